// Responders of subscriptions: a question to several, each of whom may answer.
#include "support/blocked.hpp"
#include "support/coroutines.hpp"
#include "support/environment.hpp"
#include "support/eventually.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/request.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::errc;
using mailroom::reply;
using mailroom::requester;
using mailroom::responder;
using mailroom::result;
using mailroom::topic;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using support::eventually;
using support::task;
using disk_journal = mailroom::basic_journal<simulated_files>;

namespace {

template <class Rep>
std::multiset<Rep> values(mailroom::answers<Rep> all) {
    std::multiset<Rep> got;
    for (auto& r : all) { got.insert(r.value()); }
    return got;
}

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

// Three subscriptions that answer, and one that only listens.
template <class Topic>
void gathers(Topic& t) {
    auto one = t.subscribe("one"), two = t.subscribe("two"), three = t.subscribe(), audit = t.subscribe("audit");
    responder a{one, [](const int& n) { return n + 1; }};
    static_assert(std::is_same_v<decltype(a), responder<int, int>>);
    responder<int, int> b{two, [](const int& n) { return n + 2; }};
    responder<int, int> c{three, [](const int& n, reply<int>& out) {
                              out.send(n + 3);
                              out.send(n + 4);
                          }};
    requester<int, int> ask{t};
    for (int i = 0; i < 20; ++i) { CHECK(values(ask.many(10 * i, 20s)) == std::multiset<int>{10 * i + 1, 10 * i + 2, 10 * i + 3, 10 * i + 4}); }
    CHECK(eventually([&] { return a.statistics().answered == 20 && b.statistics().answered == 20 && c.statistics().answered == 20; }));
    CHECK(ask.statistics().answered == 20);
    int n = 0;
    for (auto& r : ask.many(7, 20s, 2)) { // no more than wanted
        CHECK(r.has_value());
        ++n;
    }
    CHECK(n == 2);
    const result<int> first = ask(1, 20s);
    REQUIRE(first);
    CHECK(*first >= 2);
    CHECK(*first <= 5);
    CHECK(audit.lag() == 22);
    CHECK(**audit.try_pop() == 0);
}

} // namespace

TEST_CASE("responder: each subscription is asked, all answers are gathered, and end when the last has answered") {
    topic<int> t;
    gathers(t);
    topic<int> parted({.partitions = 3});
    gathers(parted);
}

TEST_CASE("responder: the same where the topic is in a journal") {
    simulated_files disk;
    disk_journal journal("journal", {}, disk);
    topic<int, disk_journal> t{journal, "questions"};
    gathers(t);
}

TEST_CASE("responder: one of several fails, the others are heard; a single caller gets an answer if there is one") {
    topic<int> t;
    auto one = t.subscribe("one"), two = t.subscribe("two");
    responder<int, int> a{one, [](const int& n) {
                              if (n < 0) { throw mailroom::error(errc::invalid, "negative"); }
                              return n;
                          }};
    gate g;
    responder<int, int> b{two, [&](const int& n) {
                              if (n == -2) { throw mailroom::error(errc::not_found, "nor here"); }
                              g.pass();
                              return 2 * n;
                          }};
    requester<int, int> ask{t};
    auto all = ask.many(-1, 20s);
    const auto failed = all.receive();
    REQUIRE(failed);
    CHECK(failed->error() == errc::invalid);
    CHECK(failed->error().travelled());
    CHECK_FALSE(all.over());
    g.is_open = true;
    CHECK(*all.receive() == -2);
    CHECK_FALSE(all.receive());
    CHECK(ask(-3, 20s) == -6);
    const auto neither = ask(-2, 20s);
    REQUIRE_FALSE(neither);
    CAPTURE(neither.error().what());
    CHECK((neither.error() == errc::invalid || neither.error() == errc::not_found)); // the last of them
}

TEST_CASE("responder: one of another type has failed, the others are heard") {
    topic<int> t;
    auto one = t.subscribe("one"), two = t.subscribe("two");
    responder<int, double> a{one, [](const int& n) { return n * 0.5; }};
    responder<int, int> b{two, [](const int& n) { return n; }};
    requester<int, int> ask{t};
    std::vector<errc> failures;
    int sum = 0;
    for (auto& r : ask.many(5, 20s)) {
        if (r) {
            sum += *r;
        } else {
            failures.push_back(r.error().kind());
        }
    }
    CHECK(sum == 5);
    CHECK(failures == std::vector<errc>{errc::type_mismatch});
    CHECK(ask(6, 20s) == 6);
}

TEST_CASE("responder: members of one subscription share what is asked") {
    topic<int> t;
    auto one = t.subscribe("workers", {.mode = mailroom::sharing::shared}), two = t.subscribe("workers", {.mode = mailroom::sharing::shared});
    std::atomic<int> called{0};
    const auto fn = [&](const int& n) {
        ++called;
        return n;
    };
    responder<int, int> a{one, fn}, b{two, fn};
    requester<int, int> ask{t};
    for (int i = 0; i < 50; ++i) { CHECK(values(ask.many(i, 20s)) == std::multiset<int>{i}); }
    CHECK(called == 50);
}

TEST_CASE("responder: who goes is not waited for any more: the responder, its subscription, the topic") {
    topic<int> t;
    std::optional<mailroom::subscription<int>> one(t.subscribe()), two(t.subscribe("two")), three(t.subscribe("three"));
    gate g;
    const auto stuck = [&](const int&) {
        g.pass();
        return 1;
    };
    three->pause(); // nothing gets there
    two->pause();
    std::optional<responder<int, int>> a(std::in_place, *one, stuck), b(std::in_place, *two, stuck), c(std::in_place, *three, stuck);
    requester<int, int> ask{t};
    auto all = ask.many(1, 1h);
    REQUIRE(g.reached());
    b->stop();
    CHECK_FALSE(all.try_receive());
    CHECK(b->drain(20s));
    CHECK_FALSE(all.over());
    CHECK(t.unsubscribe("three"));
    CHECK_FALSE(all.try_receive());
    CHECK_FALSE(all.over());
    one.reset(); // its responder is at work still, but does not count
    CHECK_FALSE(all.receive());
    CHECK(all.over());
    g.is_open = true;
    a.reset();
    auto nobody = ask.many(2, 1h); // whoever comes may answer
    CHECK_FALSE(nobody.try_receive());
    CHECK_FALSE(nobody.over());
    t.close();
    CHECK(nobody.receive()->error() == errc::closed);
    CHECK(ask(3, 1h).error() == errc::closed);
}

TEST_CASE("responder: nobody answers in time: timed_out, and whoever comes later skips it") {
    manual_clock clock;
    topic<int> t({.clock = &clock});
    auto late = t.subscribe("late");
    requester<int, int> ask{t};
    auto one = ask.async(1, 2s);
    auto all = ask.many(2, 2s);
    clock.advance(2s);
    CHECK(one.wait().error() == errc::timed_out);
    CHECK(all.receive()->error() == errc::timed_out);
    CHECK_FALSE(all.receive());
    auto waits = ask.async(3, 1h);
    std::vector<int> called;
    responder<int, int> serve{late, [&](const int& n) {
                                  called.push_back(n);
                                  return n;
                              }};
    CHECK(waits.wait() == 3); // nobody was there when it was asked
    CHECK(called == std::vector<int>{3});
    CHECK(late.dead().size() == 0);
}

TEST_CASE("responder: a coroutine gathers, and learns by a clock advanced by hand that its time is over") {
    manual_clock clock;
    topic<int> t({.clock = &clock});
    auto one = t.subscribe("one"), two = t.subscribe("two");
    requester<int, int> ask{t};
    std::atomic<int> sum{0};
    std::atomic<errc> why{errc{}};
    const task gather = [](requester<int, int>& r, std::atomic<int>& out, std::atomic<errc>& last) -> task {
        auto all = r.many(5, 10s);
        while (auto a = co_await all.next()) {
            if (*a) {
                out += a->value();
            } else {
                last = a->error().kind();
            }
        }
    }(ask, sum, why);
    {
        responder<int, int> a{one, [](const int& n) { return n; }};
        CHECK(eventually([&] { return sum == 5; }));
        CHECK(a.drain(20s));
    }
    CHECK_FALSE(gather.done());
    clock.advance(10s);
    CHECK(gather.done());
    CHECK(why == errc::timed_out);
}

TEST_CASE("responder: requests to a topic in a journal are answered to nobody after a restart, while their time lasts") {
    manual_clock clock{1h};
    simulated_files disk;
    {
        disk_journal journal("journal", {.clock = &clock}, disk);
        topic<int, disk_journal> t{journal, "questions"};
        auto one = t.subscribe("one");
        requester<int, int> ask{t};
        auto stays = ask.async(1, 1h), expires = ask.async(2, 1min);
        disk.process_kill();
    }
    clock.advance(2min);
    disk_journal journal("journal", {.clock = &clock}, disk);
    topic<int, disk_journal> t{journal, "questions"};
    auto one = t.subscribe("one");
    std::vector<int> called;
    requester<int, int> ask{t};
    responder<int, int> serve{one, [&](const int& n) {
                                  called.push_back(n);
                                  return n;
                              }};
    CHECK(ask(3, 1h) == 3);
    CHECK(called == std::vector<int>{1, 3});
    CHECK(serve.statistics().unclaimed == 1);
    CHECK(one.dead().size() == 0);
}

TEST_CASE("responder: many who ask and many who answer, coming and going: each answer is its own, nothing hangs") {
    const std::size_t rounds = support::scaled(150);
    topic<std::pair<int, int>> t;
    std::atomic<int> wrong{0};
    std::atomic<bool> over{false};
    using question = std::pair<int, int>;
    auto steady = t.subscribe("steady");
    responder<question, std::string> always{steady, [](const question& q) { return std::to_string(q.first) + ":" + std::to_string(q.second); }};
    std::thread comes_and_goes([&] {
        while (!over) {
            auto mine = t.subscribe();
            responder<question, std::string> some{mine, [](const question& q) {
                                                      if (q.second % 5 == 0) { throw mailroom::error(errc::invalid, "five"); }
                                                      return std::to_string(q.first) + ":" + std::to_string(q.second);
                                                  }};
            std::this_thread::yield();
        }
    });
    std::vector<std::thread> threads;
    for (int who = 0; who < 3; ++who) {
        threads.emplace_back([&, who] {
            requester<question, std::string> ask{t};
            for (std::size_t i = 0; i < rounds; ++i) {
                const int n = static_cast<int>(i);
                const std::string right = std::to_string(who) + ":" + std::to_string(n);
                int answers = 0;
                for (auto& r : ask.many({who, n}, 1h)) {
                    if (r ? *r != right : !(r.error() == errc::invalid)) { ++wrong; }
                    answers += r.has_value();
                }
                wrong += answers == 0;
            }
        });
    }
    for (std::thread& one : threads) { one.join(); }
    over = true;
    comes_and_goes.join();
    CHECK(wrong == 0);
}
