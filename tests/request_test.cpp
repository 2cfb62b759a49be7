// Asking and answering through a queue: requester, responder, what travels, what is too late, who goes first.
#include "support/blocked.hpp"
#include "support/coroutines.hpp"
#include "support/environment.hpp"
#include "support/eventually.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/request.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::answer;
using mailroom::answers;
using mailroom::errc;
using mailroom::queue;
using mailroom::reply;
using mailroom::requester;
using mailroom::responder;
using mailroom::result;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using support::eventually;
using support::task;
using simulated_journal = mailroom::basic_journal<simulated_files>;

namespace {

int twice(int n) { return 2 * n; }

/// A gate that handlers wait at.
struct gate {
    std::atomic<int> waiting{0};
    std::atomic<bool> is_open{false};
    void pass() {
        ++waiting;
        while (!is_open) { std::this_thread::yield(); }
    }
    bool reached(int n = 1) {
        return eventually([&] { return waiting >= n; });
    }
};

} // namespace

TEST_CASE("request: an answer to each") {
    queue<int> q;
    responder serve{q, [](const int& n) { return std::to_string(n); }};
    static_assert(std::is_same_v<decltype(serve), responder<int, std::string>>);
    requester<int, std::string> ask{q};
    for (int i = 0; i < 1000; ++i) {
        const result<std::string> r = ask(i, 20s);
        REQUIRE(r);
        CHECK(*r == std::to_string(i));
    }
    CHECK(ask.statistics().asked == 1000);
    CHECK(ask.statistics().answered == 1000);
    CHECK(ask.statistics().late == 0);
    CHECK(eventually([&] { return q.statistics().acked == 1000; }));
    CHECK(serve.statistics().answered == 1000);
    CHECK(serve.statistics().unclaimed == 0);
}

TEST_CASE("request: it says who asks, and carries what it is given") {
    queue<int> q;
    requester<int, int> ask{q};
    mailroom::properties with{.key = "k", .subject = "sum"};
    auto one = ask.async(1, 1h, with), two = ask.async(2, 1h);
    const auto a = q.try_receive(), b = q.try_receive();
    REQUIRE(a);
    REQUIRE(b);
    CHECK(a->props().key == "k");
    CHECK(a->props().subject == "sum");
    CHECK(b->props().key.empty());
    CHECK(a->props().reply_to.substr(0, 4) == "ask:");
    CHECK(a->props().reply_to == b->props().reply_to);
    CHECK_FALSE(a->props().correlation_id.empty());
    CHECK(a->props().correlation_id != b->props().correlation_id);
    requester<int, int> other{q};
    auto three = other.async(3, 1h);
    CHECK(q.try_receive()->props().reply_to != a->props().reply_to);
}

TEST_CASE("request: its properties are those of this call, not of the one before in the same place") {
    queue<int> q;
    requester<int, int> ask{q};
    std::vector<std::string> subjects;
    responder<int, int> serve{q, [&](const int& n, const mailroom::properties& p) {
                                  subjects.push_back(p.subject + p.key);
                                  return n;
                              }};
    for (int i = 0; i < 40; ++i) {
        if (i % 2 == 0) {
            CHECK(ask(i, 20s, mailroom::properties{.key = "k", .subject = "s"}));
        } else {
            CHECK(ask(i, 20s));
        }
    }
    for (std::size_t i = 0; i < subjects.size(); ++i) { CHECK(subjects[i] == (i % 2 == 0 ? "sk" : "")); }
}

TEST_CASE("request: what a responder throws travels back, and is told apart") {
    queue<int> q;
    responder<int, int> serve{q, [](const int& n) -> int {
                                  if (n == 1) { throw mailroom::error(errc::timed_out, "the database is slow"); }
                                  if (n == 2) { throw std::runtime_error("no such thing"); }
                                  if (n == 3) { throw 7; }
                                  return n;
                              }};
    requester<int, int> ask{q};
    const auto ours = ask(1, 20s), theirs = ask(2, 20s), odd = ask(3, 20s), none = ask(4, 20s);
    REQUIRE_FALSE(ours);
    CHECK(ours.error() == errc::timed_out);
    CHECK(std::string(ours.error().what()) == "the database is slow");
    CHECK(ours.error().travelled());
    REQUIRE_FALSE(theirs);
    CHECK(theirs.error() == errc::failed);
    CHECK(std::string(theirs.error().what()) == "no such thing");
    CHECK(theirs.error().travelled());
    REQUIRE_FALSE(odd);
    CHECK(odd.error() == errc::failed);
    CHECK(none);
    CHECK(eventually([&] { return q.statistics().acked == 4; })); // none is tried again
    CHECK(q.dead().size() == 0);
    CHECK(serve.statistics().failed == 3);
    CHECK(ask.statistics().failed + ask.statistics().timed_out == 3);
}

TEST_CASE("request: where the answer is void, that it is done") {
    queue<int> q;
    std::atomic<int> sum{0};
    responder serve{q, [&](const int& n) {
                        if (n < 0) { throw mailroom::error(errc::invalid, "negative"); }
                        sum += n;
                    }};
    static_assert(std::is_same_v<decltype(serve), responder<int, void>>);
    requester<int, void> ask{q};
    const result<void> done = ask(5, 20s);
    CHECK(done);
    CHECK(sum == 5);
    const result<void> wrong = ask(-1, 20s);
    CHECK(wrong.error() == errc::invalid);
    CHECK(std::string(wrong.error().what()) == "negative");
    CHECK(wrong.error().travelled());
    CHECK(ask.async(6, 20s).wait());
    CHECK(sum == 11);
    std::atomic<int> told{0};
    ask.async(1, 20s).then([&](const result<void>& r) { told = r ? 1 : 2; });
    CHECK(eventually([&] { return told == 1; }));
    std::atomic<int> awaited{0};
    const task t = [](requester<int, void>& r, std::atomic<int>& out) -> task {
        const result<void> first = co_await r.async(2, 20s);
        auto second = r.async(-2, 20s);
        const result<void> failed = co_await second;
        out = first && failed.error() == errc::invalid ? 1 : 2;
    }(ask, awaited);
    CHECK(eventually([&] { return t.done(); }));
    CHECK(awaited == 1);
    auto all = ask.many(3, 20s);
    CHECK(all.receive()->has_value());
    CHECK_FALSE(all.receive());
    CHECK(eventually([&] { return serve.statistics().answered == 5; }));
    CHECK(serve.drain(20s)); // nobody resumes a coroutine any more
    CHECK(ask.statistics().answered == 5);
}

TEST_CASE("request: where the answer is void, it may come several times, or as a result") {
    queue<int> q;
    requester<int, void> ask{q};
    {
        responder<int, void> several{q, [](const int& n, reply<void>& out) {
                                         for (int i = 0; i < n && out.send(); ++i) {}
                                     }};
        int ticks = 0;
        for (const auto& r : ask.many(4, 20s)) { ticks += r.has_value(); }
        CHECK(ticks == 4);
        CHECK(ask(1, 20s));
        CHECK(ask(0, 20s).error() == errc::failed); // it ended without
    }
    {
        responder one{q, [](const int& n) -> result<void> {
                          if (n == 0) { return mailroom::failure(errc::not_found, "no zero"); }
                          return {};
                      }};
        static_assert(std::is_same_v<decltype(one), responder<int, void>>);
        CHECK(ask(1, 20s));
        CHECK(std::string(ask(0, 20s).error().what()) == "no zero");
    }
    responder<int, void> ignored{q, [](const int& n) { return n; }}; // what it returns is of no interest
    CHECK(ask(1, 20s));
    requester<int, int> other{q};
    CHECK(other(1, 20s).error() == errc::type_mismatch);
}

TEST_CASE("request: a responder may return a result") {
    queue<int> q;
    responder serve{q, [](const int& n) -> result<int> {
                        if (n < 0) { return mailroom::failure(errc::invalid, "negative"); }
                        return n + 1;
                    }};
    static_assert(std::is_same_v<decltype(serve), responder<int, int>>);
    requester<int, int> ask{q};
    CHECK(ask(1, 20s) == 2);
    const auto wrong = ask(-1, 20s);
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error() == errc::invalid);
    CHECK(std::string(wrong.error().what()) == "negative");
    CHECK(wrong.error().travelled());
}

TEST_CASE("request: answers that can only be moved, and large ones") {
    queue<std::unique_ptr<int>> q;
    responder<std::unique_ptr<int>, std::unique_ptr<std::string>> serve{
        q, [](const std::unique_ptr<int>& n) { return std::make_unique<std::string>(std::string(static_cast<std::size_t>(*n), 'x')); }};
    requester<std::unique_ptr<int>, std::unique_ptr<std::string>> ask{q};
    auto r = ask(std::make_unique<int>(100'000), 20s);
    REQUIRE(r);
    CHECK((*r)->size() == 100'000);
}

TEST_CASE("request: nobody answers in time; it is withdrawn, and no dead letter") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    requester<int, int> ask{q};
    std::optional<result<int>> got;
    {
        support::blocked caller([&] { got = ask(1, 2s); });
        clock.await_parked(1);
        clock.advance(2s - 1ns);
        CHECK_FALSE(caller.done());
        clock.await_parked(1);
        CHECK(q.statistics().ready == 1);
        clock.advance(1ns);
        CHECK(caller.finishes());
    }
    REQUIRE_FALSE(*got);
    CHECK(got->error() == errc::timed_out);
    CHECK_FALSE(got->error().travelled());
    CHECK(q.statistics().ready == 0);
    CHECK(q.statistics().dropped == 1);
    CHECK(q.dead().size() == 0);
    CHECK(ask.statistics().timed_out == 1);
    // Among others it is the one that goes.
    auto a = ask.async(1, 1h), c = ask.async(3, 1h);
    q.send(9);
    auto b = ask.async(2, 1s);
    clock.advance(1s);
    CHECK(b.wait().error() == errc::timed_out);
    CHECK(q.statistics().ready == 3);
    CHECK(**q.try_pop() == 1);
    CHECK(**q.try_pop() == 3);
    CHECK(**q.try_pop() == 9);
    CHECK_FALSE(q.try_pop());
    CHECK(a.wait().error() == errc::rejected); // taken by somebody who gave no answer
}

TEST_CASE("request: one that a responder holds but has not begun is skipped, an answer that is late is dropped; both are counted") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    gate g;
    std::atomic<int> called{0};
    responder<int, int> serve{q, [&](const int& n) {
                                  ++called;
                                  if (n == 1) { g.pass(); }
                                  return n;
                              }};
    requester<int, int> ask{q};
    auto first = ask.async(1, 1s);
    REQUIRE(g.reached());
    auto second = ask.async(2, 1s), third = ask.async(3, 1h);
    clock.advance(1s);
    CHECK(first.wait().error() == errc::timed_out);
    CHECK(second.wait().error() == errc::timed_out);
    g.is_open = true;
    CHECK(third.wait() == 3);
    CHECK(eventually([&] { return serve.statistics().answered == 2; }));
    CHECK(called == 2);
    CHECK(ask.statistics().late == 1);
    CHECK(serve.statistics().unclaimed == 1);
    CHECK(serve.statistics().skipped + q.statistics().dropped == 1); // held by then, or still in the queue
    CHECK(q.dead().size() == 0);
}

TEST_CASE("request: a stop token ends it at once, and withdraws the request") {
    queue<int> q;
    requester<int, int> ask{q};
    mailroom::stop_source stop;
    std::optional<result<int>> got;
    {
        support::blocked caller([&] { got = ask(1, 1h, stop.get_token()); });
        CHECK(eventually([&] { return q.statistics().ready == 1; }));
        CHECK_FALSE(caller.done());
        stop.request_stop();
        CHECK(caller.finishes());
    }
    CHECK(got->error() == errc::cancelled);
    CHECK(q.statistics().ready == 0);
    CHECK(ask(2, 1h, stop.get_token()).error() == errc::cancelled); // stopped before
    auto later = ask.async(3, 1h);
    later.cancel();
    CHECK(later.wait().error() == errc::cancelled);
    { const auto dropped = ask.async(4, 1h); }
    CHECK(q.statistics().ready == 0);
    CHECK(q.statistics().dropped == 4);
}

TEST_CASE("request: what the queue refuses is answered at once") {
    manual_clock clock;
    queue<int> full({.max_messages = 1, .overflow = mailroom::overflow::reject, .clock = &clock});
    requester<int, int> ask{full};
    auto first = ask.async(1, 1h);
    CHECK(ask(2, 1h).error() == errc::full);
    queue<int> slow({.max_messages = 1, .clock = &clock});
    requester<int, int> patient{slow};
    auto in = patient.async(1, 1h);
    std::optional<result<int>> got;
    {
        support::blocked caller([&] { got = patient(2, 3s); });
        clock.await_parked(1);
        clock.advance(3s);
        CHECK(caller.finishes());
    }
    CHECK(got->error() == errc::timed_out); // waiting for room
    queue<int> picky({.validate = [](const int& n, const mailroom::properties&) { return n > 0; }});
    requester<int, int> wrong{picky};
    CHECK(wrong(-1, 1h).error() == errc::rejected);
    CHECK(wrong(1, 1h, mailroom::properties{.priority = 99}).error() == errc::invalid);
    queue<int> dropping({.max_messages = 1, .overflow = mailroom::overflow::drop_newest});
    requester<int, int> unlucky{dropping};
    auto kept = unlucky.async(1, 1h);
    CHECK(unlucky(2, 1h).error() == errc::full);
    queue<int> known({.deduplicate = {.window = 1h}});
    requester<int, int> again{known};
    auto original = again.async(1, 1h, mailroom::properties{.id = "x"});
    CHECK(again(1, 1h, mailroom::properties{.id = "x"}).error() == errc::already_exists);
    CHECK(known.statistics().ready == 1);
}

TEST_CASE("request: a message that ends without an answer tells who waits") {
    queue<int> q({.max_messages = 2, .overflow = mailroom::overflow::drop_oldest});
    requester<int, int> ask{q};
    auto a = ask.async(1, 1h), b = ask.async(2, 1h), c = ask.async(3, 1h);
    CHECK(a.wait().error() == errc::rejected); // it was the oldest
    q.try_receive()->ack();
    CHECK(b.wait().error() == errc::rejected);
    q.purge();
    CHECK(c.wait().error() == errc::rejected);
}

TEST_CASE("request: closed or destroyed, queue or requester: who waits gets errc::closed") {
    for (const int how : {0, 1, 2, 3}) {
        CAPTURE(how);
        auto q = std::make_unique<queue<int>>();
        auto ask = std::make_unique<requester<int, int>>(*q);
        std::optional<result<int>> got;
        auto pending = ask->async(2, 1h);
        std::optional<result<int>> told;
        ask->async(3, 1h).then([&](result<int> r) { told = std::move(r); });
        {
            support::blocked caller([&, a = ask.get()] { got = (*a)(1, 1h); });
            REQUIRE(eventually([&] { return q->statistics().ready == 3; }));
            if (how == 0) { q->close(); }
            if (how == 1) { q.reset(); }
            if (how == 2) { ask->close(); }
            if (how == 3) { ask.reset(); }
            CHECK(caller.finishes());
        }
        CHECK(got->error() == errc::closed);
        CHECK(pending.wait().error() == errc::closed);
        REQUIRE(told.has_value());
        CHECK(told->error() == errc::closed);
        if (ask != nullptr) { CHECK((*ask)(4, 1h).error() == errc::closed); }
        if (how >= 2) { CHECK(q->statistics().ready == 0); } // withdrawn
    }
}

TEST_CASE("request: answers outlive requester and queue, and so do requests taken from it") {
    std::optional<mailroom::message<int>> popped;
    std::optional<mailroom::delivery<int>> held;
    std::optional<answer<int>> a;
    {
        queue<int> q;
        requester<int, int> ask{q};
        a.emplace(ask.async(1, 1h));
        auto second = ask.async(2, 1h);
        popped = q.try_pop();
        held.emplace(*q.try_receive());
    }
    CHECK(a->wait().error() == errc::closed);
    CHECK(popped->props().reply_to.size() == 15);
    CHECK(held->props().reply_to.size() == 15);
    CHECK_FALSE(held->ack());
}

TEST_CASE("request: a responder of another type is told apart") {
    queue<int> q;
    std::atomic<int> called{0};
    responder<int, double> serve{q, [&](const int& n) {
                                     ++called;
                                     return n * 0.5;
                                 }};
    requester<int, int> ask{q};
    const auto r = ask(1, 20s);
    REQUIRE_FALSE(r);
    CHECK(r.error() == errc::type_mismatch);
    CHECK(std::string(r.error().what()).find("double") != std::string::npos);
    CHECK(called == 0);
}

TEST_CASE("request: then is called where the answer comes, at once if it is there") {
    queue<int> q;
    requester<int, int> ask{q};
    std::atomic<int> sum{0};
    ask.async(20, 1h).then([&](const result<int>& r) { sum += r.value(); });
    CHECK(sum == 0);
    responder<int, int> serve{q, twice};
    CHECK(eventually([&] { return sum == 40; }));
    auto there = ask.async(1, 1h);
    CHECK(eventually([&] { return there.ready(); }));
    there.then([&](const result<int>& r) { sum += r.value(); });
    CHECK(sum == 42);
    CHECK_FALSE(there.ready());
}

TEST_CASE("request: co_await, in coroutines that ask while others answer") {
    queue<int> q;
    requester<int, int> ask{q};
    std::atomic<int> sum{0};
    const auto inquire = [](requester<int, int>& r, std::atomic<int>& out, int rounds) -> task {
        for (int i = 0; i < rounds; ++i) {
            auto pending = r.async(i, 1h);
            const result<int> got = co_await pending;
            out += got.value();
        }
    };
    std::vector<task> tasks;
    for (int i = 0; i < 8; ++i) { tasks.push_back(inquire(ask, sum, 100)); }
    CHECK_FALSE(tasks[0].done());
    {
        responder<int, int> serve{q, twice, {.concurrency = {2, 2}}};
        for (const task& t : tasks) {
            CHECK(eventually([&] { return t.done(); }));
        }
    }
    CHECK(sum == 8 * 9900);
    const auto directly = [](requester<int, int>& r, std::atomic<int>& out) -> task { out = (co_await r.async(4, 1h)).value(); };
    const task t = directly(ask, sum);
    { // whoever resumed it has left it when the responder is gone
        responder<int, int> serve{q, twice};
        CHECK(eventually([&] { return t.done(); }));
    }
    CHECK(sum == 8);
}

TEST_CASE("request: a coroutine's time is over by a clock advanced by hand, by a look into the queue, by a consumer that waits") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    requester<int, int> ask{q};
    const auto inquire = [](requester<int, int>& r, errc& out, mailroom::duration limit) -> task {
        auto pending = r.async(1, limit);
        const result<int> got = co_await pending;
        out = got ? errc{} : got.error().kind();
    };
    errc one{}, two{};
    const task a = inquire(ask, one, 1s), b = inquire(ask, two, 2s);
    clock.advance(1s);
    CHECK(a.done());
    CHECK(one == errc::timed_out);
    CHECK_FALSE(b.done());
    CHECK(q.statistics().ready == 1);
    clock.advance(1s);
    CHECK(b.done());
    CHECK(two == errc::timed_out);
    CHECK(q.statistics().ready == 0);

    queue<int> real; // time passes by itself: a consumer that holds the request, and waits for others, notices
    requester<int, int> hasty{real};
    gate g;
    errc three{};
    std::optional<responder<int, int>> serve(
        std::in_place, real,
        [&](const int& n) {
            g.pass();
            return n;
        },
        mailroom::consume_options{.concurrency = {2, 2}});
    const task c = inquire(hasty, three, 1ms);
    CHECK(eventually([&] { return c.done(); }));
    CHECK(three == errc::timed_out);
    g.is_open = true;
    serve.reset();
}

TEST_CASE("request: a coroutine's time is over by any consumer of the process that has threads, whatever it does") {
    queue<int> q, elsewhere;
    requester<int, int> ask{q};
    const auto inquire = [](requester<int, int>& r, std::atomic<errc>& out) -> task {
        auto pending = r.async(1, 1ms);
        const result<int> got = co_await pending;
        out = got ? errc{} : got.error().kind();
    };
    std::atomic<errc> one{errc{}}, two{errc{}}, three{errc{}};
    const task before = inquire(ask, one); // nobody is there yet
    gate g;
    {
        auto idle = elsewhere.consume([](const int&) {});
        CHECK(eventually([&] { return before.done(); }));
        CHECK(one == errc::timed_out);
        const task a = inquire(ask, two);
        CHECK(eventually([&] { return a.done(); }));
        CHECK(two == errc::timed_out);
        CHECK(idle.drain(20s)); // nobody resumes anything any more
    }
    {
        auto busy = elsewhere.consume([&](const int&) { g.pass(); });
        elsewhere.send(1);
        REQUIRE(g.reached());
        const task b = inquire(ask, three);
        CHECK(eventually([&] { return b.done(); }));
        CHECK(three == errc::timed_out);
        g.is_open = true;
        CHECK(busy.drain(20s));
    }
    CHECK(q.statistics().ready == 0); // withdrawn
    std::atomic<bool> called{false};
    ask.async(1, 1ms).then([&](const result<int>& r) { called = r.error() == errc::timed_out; });
    ask.close(); // nothing is left for whoever comes
    CHECK_FALSE(called);
    auto another = elsewhere.consume([](const int&) {});
    CHECK(another.drain(20s));
}

TEST_CASE("request: a coroutine destroyed while it waits cancels its request") {
    queue<int> q;
    requester<int, int> ask{q};
    {
        const auto t = [](requester<int, int>& r) -> task {
            auto pending = r.async(1, 1h);
            co_await pending;
        }(ask);
        CHECK(q.statistics().ready == 1);
    }
    CHECK(q.statistics().ready == 0);
}

TEST_CASE("many: a stream of answers, to its end") {
    queue<int> q;
    responder<int, std::string> serve{q, [](const int& n, reply<std::string>& out) {
                                          for (int i = 0; i < n && out.send(std::to_string(i)); ++i) {}
                                          if (n == 3) { throw std::runtime_error("tired"); }
                                      }};
    requester<int, std::string> ask{q};
    std::vector<std::string> got;
    for (auto& r : ask.many(5, 20s)) { got.push_back(r.value()); }
    CHECK(got == std::vector<std::string>{"0", "1", "2", "3", "4"});
    auto none = ask.many(0, 20s);
    CHECK_FALSE(none.receive());
    CHECK(none.over());
    auto failing = ask.many(3, 20s);
    for (int i = 0; i < 3; ++i) { CHECK(*failing.receive() == std::to_string(i)); }
    const auto last = failing.receive();
    REQUIRE(last);
    CHECK(last->error() == errc::failed);
    CHECK(last->error().travelled());
    CHECK(std::string(last->error().what()) == "tired");
    CHECK_FALSE(failing.receive());
    CHECK(ask(7, 20s).value() == "0"); // who wants one gets the first
    CHECK(ask(0, 20s).error() == errc::failed);
    CHECK(eventually([&] { return serve.statistics().unclaimed == 1; })); // and the responder is told at the second
}

TEST_CASE("many: one answer of a responder that gives one is a stream of one") {
    queue<int> q;
    responder<int, int> serve{q, twice};
    requester<int, int> ask{q};
    auto all = ask.many(4, 20s);
    CHECK(*all.receive() == 8);
    CHECK_FALSE(all.receive());
}

TEST_CASE("many: no more than wanted; the responder is told") {
    queue<int> q;
    std::atomic<int> given{0};
    std::atomic<bool> ended{false};
    responder<int, int> serve{q, [&](const int&, reply<int>& out) {
                                  while (out.send(given)) { ++given; }
                                  ended = !out.wanted();
                              }};
    requester<int, int> ask{q};
    int n = 0;
    for (auto& r : ask.many(1, 20s, 3)) { CHECK(r == n++); }
    CHECK(n == 3);
    CHECK(eventually([&] { return ended.load(); }));
    CHECK(ask.many(1, 20s, 0).receive()->error() == errc::invalid);
    ended = false;
    {
        auto some = ask.many(1, 20s);
        CHECK(some.receive());
    } // destroyed: nobody wants more
    CHECK(eventually([&] { return ended.load(); }));
}

TEST_CASE("many: what came in time is received, then errc::timed_out, then nothing") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    gate g;
    responder<int, int> serve{q, [&](const int&, reply<int>& out) {
                                  out.send(1);
                                  out.send(2);
                                  g.pass();
                                  out.send(3);
                              }};
    requester<int, int> ask{q};
    auto some = ask.many(1, 5s);
    REQUIRE(g.reached());
    CHECK(*some.receive() == 1);
    clock.advance(5s);
    CHECK(*some.receive() == 2);
    CHECK(some.receive()->error() == errc::timed_out);
    CHECK_FALSE(some.receive());
    CHECK_FALSE(some.try_receive());
    g.is_open = true;
    CHECK(eventually([&] { return ask.statistics().late == 1; }));
}

TEST_CASE("many: closed, cancelled, waited for, in a coroutine") {
    queue<int> q;
    requester<int, int> ask{q};
    mailroom::stop_source stop;
    auto stopped = ask.many(1, 1h, 9, stop.get_token());
    CHECK_FALSE(stopped.try_receive());
    CHECK_FALSE(stopped.over());
    std::optional<std::optional<result<int>>> got;
    {
        support::blocked waits([&] { got = stopped.receive(); });
        stop.request_stop();
        CHECK(waits.finishes());
    }
    CHECK((*got)->error() == errc::cancelled);
    std::atomic<int> sum{0};
    const auto t = [](requester<int, int>& r, std::atomic<int>& out) -> task {
        auto all = r.many(100, 1h);
        while (auto one = co_await all.next()) { out += one->value(); }
    }(ask, sum);
    {
        responder<int, int> serve{q, [](const int& n, reply<int>& out) {
                                      for (int i = 0; i < n; ++i) { out.send(i); }
                                  }};
        CHECK(eventually([&] { return t.done(); }));
    }
    CHECK(sum == 4950);
    auto left = ask.many(1, 1h);
    q.close();
    CHECK(left.receive()->error() == errc::closed);
    CHECK_FALSE(left.receive());
}

TEST_CASE("request: redelivered to a second responder, it has one answer") {
    manual_clock clock;
    queue<int> q({.lease = 10s, .clock = &clock});
    requester<int, int> ask{q};
    auto pending = ask.async(1, 1h);
    gate g;
    responder<int, int> slow{q,
                             [&](const int&) {
                                 g.pass();
                                 return 1;
                             },
                             {.processing_limit = 0s}};
    REQUIRE(g.reached());
    clock.advance(11s);
    responder<int, int> quick{q, [](const int&) { return 2; }};
    CHECK(pending.wait() == 2);
    g.is_open = true;
    CHECK(eventually([&] { return slow.statistics().unclaimed == 1; }));
    CHECK(ask.statistics().late == 1);
}

TEST_CASE("responder: messages that are no requests are answered to nobody; options are those of a consumer") {
    queue<int> q;
    std::atomic<int> called{0};
    {
        responder<int, int> serve{q,
                                  [&](const int& n) {
                                      ++called;
                                      return n;
                                  },
                                  {.concurrency = {2, 2}, .prefetch = 1}};
        CHECK(serve.threads() == 2);
        q.send(1);
        q.send(2, {.correlation_id = "17", .reply_to = "somewhere else"});
        CHECK(eventually([&] { return q.statistics().acked == 2; }));
        CHECK(called == 2);
        CHECK(serve.statistics().unclaimed == 2);
        CHECK(serve.drain(20s));
        CHECK_FALSE(serve.running());
    }
    CHECK_THROWS_AS((responder<int, int>(q, twice, {.prefetch = 0})), mailroom::error);
    CHECK_THROWS_AS((responder<int, int>(q, std::function<int(const int&)>())), mailroom::error);
}

TEST_CASE("requester: moves, and any number of calls at once") {
    queue<int> q;
    requester<int, int> first{q};
    std::vector<answer<int>> all;
    for (int i = 0; i < 1000; ++i) { all.push_back(first.async(i, 1h)); }
    requester<int, int> ask = std::move(first);
    CHECK(first(1, 1h).error() == errc::closed);
    responder<int, int> serve{q, twice};
    for (int i = 0; i < 1000; ++i) { CHECK(all[static_cast<std::size_t>(i)].wait() == 2 * i); }
    requester<int, int> another{q};
    auto out = another.async(1, 1h);
    another = std::move(ask);
    const auto r = out.wait(); // answered before, or closed with the requester that was moved to
    CHECK((r ? *r == 2 : r.error() == errc::closed));
    CHECK(another(21, 20s) == 42);
}

TEST_CASE("journal: requests are stored, answers are not; after a restart they are answered to nobody") {
    manual_clock clock{1h};
    simulated_files disk;
    const mailroom::journal_options options{.clock = &clock};
    {
        simulated_journal journal("journal", options, disk);
        queue<int, simulated_journal> q{journal, "requests"};
        requester<int, int> ask{q};
        {
            responder<int, int> serve{q, twice};
            CHECK(ask(21, 1h) == 42);
            auto many = ask.many(1, 1h);
            CHECK(*many.receive() == 2);
            CHECK_FALSE(many.receive());
        }
        auto stays = ask.async(1, 1h), expires = ask.async(2, 1min);
        const auto d = q.try_receive();
        REQUIRE(d);
        CHECK(d->props().time_to_live == 1h);
        disk.process_kill(); // this process is dead, though it does not know
    }
    clock.advance(2min);
    simulated_journal journal("journal", options, disk);
    queue<int, simulated_journal> q{journal, "requests"};
    requester<int, int> ask{q};
    std::vector<int> called;
    responder<int, int> serve{q, [&](const int& n) {
                                  called.push_back(n);
                                  return n;
                              }};
    CHECK(ask(3, 1h) == 3);
    CHECK(called == std::vector<int>{1, 3}); // the time of the other was over
    CHECK(serve.statistics().unclaimed == 1);
    CHECK(q.dead().size() == 0);
    CHECK(q.statistics().ready == 0);
    CHECK(ask.statistics().late == 0);
}

TEST_CASE("journal: nobody answers in time: withdrawn, no dead letter; a late answer is dropped and counted; closed is told") {
    manual_clock clock{1h};
    simulated_files disk;
    auto journal = std::make_unique<simulated_journal>("journal", mailroom::journal_options{.clock = &clock}, disk);
    queue<int, simulated_journal> q{*journal, "requests"};
    requester<int, int> ask{q};
    auto a = ask.async(1, 1s);
    clock.advance(1s);
    CHECK(a.wait().error() == errc::timed_out);
    CHECK(q.statistics().ready == 0);
    CHECK(q.dead().size() == 0);
    gate g;
    std::atomic<int> called{0};
    std::optional<responder<int, int>> serve(std::in_place, q, [&](const int& n) {
        ++called;
        g.pass();
        return n;
    });
    auto b = ask.async(2, 1s);
    REQUIRE(g.reached());
    auto c = ask.async(3, 1s);
    clock.advance(1s);
    CHECK(b.wait().error() == errc::timed_out);
    CHECK(c.wait().error() == errc::timed_out);
    g.is_open = true;
    CHECK(ask(4, 1h) == 4);
    CHECK(called == 2);
    CHECK(ask.statistics().late == 1);
    CHECK(q.dead().size() == 0);
    serve.reset();
    auto last = ask.async(5, 1h);
    journal.reset();
    CHECK(last.wait().error() == errc::closed);
    CHECK(ask(6, 1h).error() == errc::closed);
}

TEST_CASE("journal: a request whose id is known is answered at once, also after a restart, and the original stays") {
    manual_clock clock{1h};
    simulated_files disk;
    const mailroom::queue_options<int> options{.deduplicate = {.window = 24h}};
    const mailroom::properties named{.id = "x"};
    {
        simulated_journal journal("journal", {.clock = &clock}, disk);
        queue<int, simulated_journal> q{journal, "requests", options};
        requester<int, int> ask{q};
        auto original = ask.async(1, 10h, named);
        const auto again = ask(1, 1h, named);
        CHECK(again.error() == errc::already_exists);
        CHECK_FALSE(again.error().travelled());
        CHECK(ask.many(1, 1h, 9, named).receive()->error() == errc::already_exists);
        CHECK(q.statistics().ready == 1);
        CHECK(q.statistics().duplicates == 2);
        responder<int, int> serve{q, twice};
        CHECK(original.wait() == 2);
        CHECK(ask(1, 1h, named).error() == errc::already_exists); // answered, and known still
        serve.drain(20s);
        auto left = ask.async(2, 10h, mailroom::properties{.id = "y"});
        disk.process_kill();
    }
    simulated_journal journal("journal", {.clock = &clock}, disk);
    queue<int, simulated_journal> q{journal, "requests", options};
    requester<int, int> ask{q};
    CHECK(ask(1, 1h, named).error() == errc::already_exists);
    CHECK(ask(2, 1h, mailroom::properties{.id = "y"}).error() == errc::already_exists);
    CHECK(q.statistics().ready == 1); // it is not taken out by the one who was refused
    clock.advance(25h);
    responder<int, int> serve{q, twice};
    CHECK(ask(1, 1h, named) == 2);
}

TEST_CASE("request: many requesters, many responders, times that run out: each answer is its own, nothing is left") {
    const std::size_t rounds = support::scaled(400);
    queue<std::pair<int, int>> q({.max_messages = 64});
    const auto work = [](const std::pair<int, int>& p) {
        if (p.second % 7 == 0) { throw mailroom::error(errc::invalid, "seven"); }
        return std::to_string(p.first) + ":" + std::to_string(p.second);
    };
    using asker = requester<std::pair<int, int>, std::string>;
    std::atomic<int> wrong{0};
    {
        responder<std::pair<int, int>, std::string> one{q, work, {.concurrency = {2, 2}, .prefetch = 4}}, two{q, work};
        asker shared{q};
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&, t] {
                asker own{q};
                for (std::size_t i = 0; i < rounds; ++i) {
                    const int n = static_cast<int>(i);
                    asker& ask = i % 3 == 0 ? own : shared;
                    const mailroom::duration limit = i % 5 == 0 ? mailroom::duration(std::chrono::microseconds(i % 50)) : mailroom::duration(1h);
                    const std::string expected = std::to_string(t) + ":" + std::to_string(n);
                    const auto right = [&](const result<std::string>& r) {
                        if (r) { return *r == expected && n % 7 != 0; }
                        if (r.error() == errc::timed_out) { return i % 5 == 0; }
                        return r.error() == errc::invalid && n % 7 == 0;
                    };
                    bool ok = false;
                    switch (i % 4) {
                    case 0: {
                        auto pending = ask.async({t, n}, limit);
                        ok = i % 8 == 0 || right(pending.wait()); // some are dropped on the way
                        break;
                    }
                    case 1: {
                        ok = true;
                        for (auto& r : ask.many({t, n}, limit)) { ok = ok && right(r); }
                        break;
                    }
                    default: ok = right(ask({t, n}, limit));
                    }
                    wrong += ok ? 0 : 1;
                }
            });
        }
        for (std::thread& t : threads) { t.join(); }
        CHECK(eventually([&] {
            const auto s = q.statistics();
            return s.ready + s.in_flight + s.parked == 0;
        }));
    }
    CHECK(wrong == 0);
    CHECK(q.dead().size() == 0);
}

TEST_CASE("request: queue, requester and responder go while others ask: nothing hangs") {
    for (std::size_t i = 0; i < support::scaled(60); ++i) {
        auto q = std::make_unique<queue<int>>();
        auto ask = std::make_unique<requester<int, int>>(*q);
        auto serve = std::make_unique<responder<int, int>>(*q, twice);
        requester<int, int> other{*q};
        std::atomic<int> running{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                ++running;
                for (;;) {
                    const auto r = other(1, 1h);
                    if (!r) {
                        CHECK(r.error() == errc::closed);
                        return;
                    }
                }
            });
        }
        auto pending = ask->async(5, 1h);
        CHECK(eventually([&] { return running == 2; }));
        if (i % 3 == 0) { serve.reset(); }
        if (i % 3 == 1) { ask.reset(); }
        q.reset();
        for (std::thread& t : threads) { t.join(); }
        const auto r = pending.wait();
        CHECK((r ? *r == 10 : r.error() == errc::closed));
    }
}
