#include <mailroom/base/result.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using mailroom::errc;
using mailroom::failure;
using mailroom::result;

namespace {

result<int> half(int n) {
    if (n % 2 != 0) return errc::invalid;
    return n / 2;
}

result<void> only_even(int n) {
    if (n % 2 != 0) return failure(errc::rejected, "the number is odd");
    return {};
}

// Moves that throw when told to.
struct touchy {
    explicit touchy(int v) : value(v) {}
    touchy(touchy&& other) : value(other.value) {
        if (other.armed) throw std::runtime_error("move");
    }
    touchy(const touchy&) = default;
    touchy& operator=(const touchy&) = delete;
    ~touchy() = default;
    int value;
    bool armed = false;
};

} // namespace

TEST_CASE("result: a value") {
    result<int> r = half(8);
    CHECK(r);
    CHECK(r.has_value());
    CHECK(*r == 4);
    CHECK(r.value() == 4);
    CHECK(r.value_or(9) == 4);
    CHECK(r == 4);
    *r = 5;
    CHECK(r == result<int>(5));
    CHECK(r != half(3));
}

TEST_CASE("result: a failure compares with errc, converts to error_code, throws on value()") {
    result<int> r = half(7);
    CHECK(!r);
    CHECK(r.error() == errc::invalid);
    CHECK(r.error() != errc::full);
    CHECK(r.error().code() == errc::invalid);
    const std::error_code code = r.error();
    CHECK(code == errc::invalid);
    CHECK(r.value_or(9) == 9);
    CHECK(r.error().what() == std::string_view("invalid argument or option"));
    try {
        (void)r.value();
        FAIL("nothing thrown");
    } catch (const mailroom::error& e) { CHECK(e.code() == errc::invalid); }
    CHECK(r == half(5));
}

TEST_CASE("result<void>: done or not") {
    const result<void> done = only_even(2);
    CHECK(done);
    done.value();
    *done;
    const result<void> refused = only_even(3);
    CHECK(!refused.has_value());
    CHECK(refused.error() == errc::rejected);
    CHECK(refused.error().message() == "the number is odd");
    CHECK_THROWS_AS(refused.value(), mailroom::error);
    CHECK(refused == result<void>(errc::rejected));
    CHECK(done == result<void>());
}

TEST_CASE("failure: survives the way through an exception and back") {
    const failure first(errc::corrupt, "segment 3, byte 17");
    try {
        first.raise();
    } catch (const mailroom::error& e) {
        const failure again(e);
        CHECK(again == errc::corrupt);
        CHECK(again.message() == "segment 3, byte 17");
    }
}

TEST_CASE("failure: says whether it came from somebody else") {
    const mailroom::failure here(mailroom::errc::full, "no room");
    const mailroom::failure there = here.from_afar();
    CHECK_FALSE(here.travelled());
    CHECK(there.travelled());
    CHECK(there.kind() == mailroom::errc::full);
    CHECK(std::string(there.what()) == "no room");
    CHECK(here == there);
}

TEST_CASE("result: a move-only value") {
    result<std::unique_ptr<int>> r = std::make_unique<int>(3);
    CHECK(**r == 3);
    std::unique_ptr<int> out = *std::move(r);
    CHECK(*out == 3);
    result<std::unique_ptr<int>> other = errc::full;
    other = result<std::unique_ptr<int>>(std::move(out));
    CHECK(*other.value() == 3);
    CHECK(other->get() == other.value().get());
    other = result<std::unique_ptr<int>>(errc::closed);
    CHECK(other.error() == errc::closed);
    std::unique_ptr<int> taken = result<std::unique_ptr<int>>(std::make_unique<int>(4)).value();
    CHECK(*taken == 4);
}

TEST_CASE("result: copies and assigns in every direction") {
    const std::string text(100, 'x');
    result<std::string> a = text;
    result<std::string> b = failure(errc::io, "disk");
    result<std::string> c = a;
    CHECK(c == a);
    c = b;
    CHECK(c.error() == errc::io);
    CHECK(c.error().message() == "disk");
    c = a;
    CHECK(*c == text);
    c = std::move(b);
    CHECK(!c);
    auto& self = c;
    c = self;
    CHECK(c.error().message() == "disk");
    CHECK(result<std::string>()->empty());
    CHECK(c.value_or("none") == "none");
    CHECK(result<std::string>(text).value_or("none") == text);
}

TEST_CASE("result: a value that is made from another type") {
    const result<std::string> s = "text";
    CHECK(*s == "text");
    const result<std::vector<int>> v{std::vector<int>{1, 2}};
    CHECK(v->size() == 2);
    const result<bool> no = false;
    CHECK(no.has_value());
    CHECK(!*no);
}

TEST_CASE("result: a move that throws leaves a failure, not a half value") {
    result<touchy> a(touchy(1));
    result<touchy> b(touchy(2));
    b->armed = true;
    CHECK_THROWS_AS(a = std::move(b), std::runtime_error);
    CHECK(!a);
    CHECK(a.error() == errc::invalid);
    CHECK(b->value == 2);
}
