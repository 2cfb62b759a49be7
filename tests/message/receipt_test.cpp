#include <mailroom/message/receipt.hpp>

#include <doctest/doctest.h>

#include <coroutine>
#include <exception>
#include <string>

namespace {

using mailroom::errc;
using mailroom::receipt;
using mailroom::result;

// A coroutine that runs when called and keeps nothing.
struct at_once {
    struct promise_type {
        at_once get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

at_once await_into(receipt r, mailroom::offset& value, errc& failure) {
    try {
        value = co_await r;
    } catch (const mailroom::error& e) { failure = e.kind(); }
}

} // namespace

TEST_CASE("receipt: a known outcome is ready, and the same each time it is asked for") {
    const receipt r(result<mailroom::offset>(mailroom::offset{42}));
    CHECK(r.ready());
    CHECK(r.wait() == 42);
    CHECK(r.wait() == 42);
    const receipt copy = r;
    CHECK(copy.wait() == 42);
}

TEST_CASE("receipt: a failure is thrown with its code and sentence") {
    const receipt r(result<mailroom::offset>(mailroom::failure(errc::rejected, "not with me")));
    CHECK(r.ready());
    try {
        r.wait();
        FAIL("it did not throw");
    } catch (const mailroom::error& e) {
        CHECK(e.kind() == errc::rejected);
        CHECK(e.sentence() == "not with me");
    }
}

TEST_CASE("receipt: then is called in the call, with the outcome, good or bad") {
    int calls = 0;
    const receipt good{result<mailroom::offset>(mailroom::offset{7})};
    good.then([&](const result<mailroom::offset>& r) {
        ++calls;
        CHECK(*r == 7);
    });
    const receipt bad{result<mailroom::offset>(errc::closed)};
    bad.then([&](const result<mailroom::offset>& r) {
        ++calls;
        CHECK(r.error() == errc::closed);
    });
    CHECK(calls == 2);
}

TEST_CASE("receipt: co_await gives the value or throws, without suspending") {
    mailroom::offset value = 0;
    errc failure{};
    await_into(receipt(result<mailroom::offset>(mailroom::offset{9})), value, failure);
    CHECK(value == 9);
    await_into(receipt(result<mailroom::offset>(errc::full)), value, failure);
    CHECK(failure == errc::full);
}
