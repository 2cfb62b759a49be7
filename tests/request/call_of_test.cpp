// A call by hand: asked, answered, failed, gathered, given up, used again.
#include <mailroom/queue.hpp>
#include <mailroom/request/call_of.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using mailroom::errc;
using mailroom::failure;
using mailroom::queue;
using mailroom::detail::call_of;
using mailroom::detail::desk_of;
using mailroom::detail::endpoint_access;
using mailroom::detail::rendezvous;

template <class Rep>
struct table {
    queue<int> q;
    rendezvous there;
    desk_of<Rep>* const desk = new desk_of<Rep>(mailroom::system_clock(), 1, endpoint_access::core(q), nullptr, &table::rings);
    table() { there.enter(*desk); }
    ~table() {
        there.leave(*desk);
        desk->leave();
    }
    static void rings(mailroom::detail::source_base&, mailroom::duration) noexcept {}
};

template <class Rep>
Rep seven() {
    if constexpr (std::is_same_v<Rep, int>) {
        return 7;
    } else {
        return std::string(7, 'x');
    }
}

} // namespace

TEST_CASE_TEMPLATE("call_of: one answer, and no second", Rep, int, std::string) {
    table<Rep> t;
    call_of<Rep>& c = t.desk->take();
    c.open();
    CHECK(c.is_wanted());
    CHECK_FALSE(c.is_done());
    bool complete = false;
    CHECK(c.give(seven<Rep>(), complete));
    CHECK(complete);
    CHECK(c.is_done());
    CHECK_FALSE(c.is_wanted());
    CHECK_FALSE(c.give(Rep(), complete));
    CHECK_FALSE(c.fail(errc::closed));
    CHECK(c.take() == seven<Rep>());
    c.through();
}

TEST_CASE("call_of: what failed, and what ended without an answer; the place is used again") {
    table<int> t;
    for (int i = 0; i < 40; ++i) {
        call_of<int>& c = t.desk->take();
        c.open();
        if (i % 2 == 0) {
            CHECK(c.fail_from(nullptr, failure(errc::invalid, "no").from_afar()));
            const auto r = c.take();
            CHECK(r.error() == errc::invalid);
            CHECK(r.error().travelled());
        } else {
            c.end_from(nullptr);
            CHECK(c.take().error() == errc::failed);
        }
        c.through();
    }
}

TEST_CASE("call_of: it is not used again while its message has its envelope") {
    table<int> t;
    call_of<int>& c = t.desk->take();
    c.lend();
    c.open();
    CHECK(c.abandon());
    c.through();
    for (int i = 0; i < 40; ++i) {
        call_of<int>& other = t.desk->take();
        CHECK(&other != &c);
        other.open();
        CHECK(other.abandon());
        other.through();
    }
    c.end_loan();
    bool again = false;
    for (int i = 0; i < 40 && !again; ++i) {
        call_of<int>& other = t.desk->take();
        again = &other == &c;
        other.open();
        CHECK(other.abandon());
        other.through();
    }
    CHECK(again);
}

TEST_CASE("call_of: several who are asked: it is over when each has ended; for one answer, when one is there or all have failed") {
    table<int> t;
    const int a = 0, b = 0, stranger = 0;
    t.there.come_to_answer(&a, &a);
    t.there.come_to_answer(&b, &b);
    t.there.come_to_answer(&b, &a);
    const auto asked = [&](bool several) -> call_of<int>& {
        call_of<int>& c = t.desk->take();
        if (several) { c.expect_many(); }
        c.expect_from(t.there);
        c.open();
        c.expect_no_others(t.there);
        return c;
    };
    bool complete = true;
    {
        call_of<int>& c = asked(true);
        CHECK(c.give(1, complete));
        CHECK_FALSE(complete);
        c.end_from(&a);
        c.end_from(&a); // said twice
        c.end_from(&stranger);
        CHECK_FALSE(c.is_done());
        CHECK(c.fail_from(&b, failure(errc::invalid)));
        CHECK(c.is_done());
        CHECK(*c.take_more() == 1);
        CHECK(c.take_more()->error() == errc::invalid);
        CHECK_FALSE(c.take_more());
        c.through();
    }
    {
        call_of<int>& c = asked(false);
        CHECK(c.fail_from(&a, failure(errc::invalid)));
        CHECK_FALSE(c.is_done());
        CHECK(c.give(2, complete));
        CHECK(complete);
        CHECK(c.take() == 2);
        c.through();
    }
    {
        call_of<int>& c = asked(false);
        CHECK(c.fail_from(&b, failure(errc::not_found)));
        CHECK(c.fail_from(&a, failure(errc::invalid)));
        CHECK(c.take().error() == errc::invalid);
        c.through();
    }
    {
        call_of<int>& c = asked(true);
        t.there.leave_answering(&b, &a); // one of two who answer for it
        c.end_from(&a);
        CHECK_FALSE(c.is_done());
        t.there.end_answering(&b);
        CHECK(c.is_done());
        CHECK_FALSE(c.take_more());
        c.through();
    }
    t.there.leave_answering(&a, &a);
}

TEST_CASE("call_of: where the answer is void, that it is done") {
    table<void> t;
    call_of<void>& c = t.desk->take();
    c.open();
    bool complete = false;
    CHECK(c.give({}, complete));
    CHECK(c.take());
    c.through();
}
