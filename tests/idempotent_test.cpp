// idempotent: the effect of a handler happens once for each id.
#include "support/environment.hpp"
#include "support/eventually.hpp"

#include <mailroom/idempotent.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using mailroom::delivery;
using mailroom::errc;
using mailroom::idempotent;
using mailroom::properties;
using mailroom::queue;
using mailroom::testing::manual_clock;
using support::eventually;

namespace {

properties with_id(std::string id) {
    properties p;
    p.id = std::move(id);
    return p;
}
bool settled(const queue<int>& q, std::uint64_t n) {
    return eventually([&] { return q.statistics().acked == n; });
}

} // namespace

TEST_CASE("idempotent: once for each id, each kind of handler; without an id each time") {
    for (int kind = 0; kind < 4; ++kind) {
        CAPTURE(kind);
        queue<int> q;
        std::atomic<int> sum{0};
        mailroom::consumer c;
        if (kind == 0) {
            c = q.consume(idempotent([&](const int& n) { sum += n; }, 1h));
        } else if (kind == 1) {
            c = q.consume(
                idempotent([&](const int& n, const properties& p) { sum += p.id.empty() ? n : n + static_cast<int>(p.id.size()) - 1; }, 1h));
        } else if (kind == 2) {
            c = q.consume(idempotent(
                [&](delivery<int> d) {
                    sum += *d;
                    d.ack();
                },
                1h));
        } else {
            c = q.consume(idempotent([&](const auto& n) { sum += n; }, 1h));
        }
        for (int i = 0; i < 3; ++i) {
            q.send(1, with_id("a"));
            q.send(10, with_id("b"));
            q.send(100);
        }
        CHECK(settled(q, 9));
        CHECK(sum == 311);
    }
}

TEST_CASE("idempotent: what failed is handled again, and so is its duplicate") {
    for (const bool by_hand : {false, true}) {
        CAPTURE(by_hand);
        queue<int> q({.retry = {.initial = 0s}});
        std::atomic<int> called{0};
        mailroom::consumer c;
        if (by_hand) {
            c = q.consume(idempotent(
                [&](delivery<int> d) {
                    const int n = ++called;
                    if (n == 1) { return; } // destroyed
                    if (n == 2) { d.nack(0s); }
                    if (n == 3) { throw std::runtime_error("no"); }
                    d.ack();
                },
                1h));
        } else {
            c = q.consume(idempotent(
                [&](const int&) {
                    if (++called <= 3) { throw std::runtime_error("no"); }
                },
                1h));
        }
        q.send(1, with_id("a"));
        q.send(1, with_id("a"));
        CHECK(settled(q, 2));
        CHECK(called == 4);
    }
}

TEST_CASE("idempotent: a duplicate waits for the one that is being handled; done: it is not handled; failed: it is") {
    for (const bool fails : {false, true}) {
        CAPTURE(fails);
        manual_clock clock;
        queue<int> q({.retry = {.max_attempts = 1}, .clock = &clock});
        std::atomic<int> called{0};
        std::atomic<bool> go{false};
        auto handler = idempotent(
            [&](const int&) {
                if (++called > 1) { return; }
                while (!go) { std::this_thread::yield(); }
                if (fails) { throw std::runtime_error("no"); }
            },
            mailroom::idempotent_options{.clock = &clock});
        auto c = q.consume(handler, {.concurrency = {2, 2}, .prefetch = 1});
        q.send(1, with_id("a"));
        q.send(1, with_id("a"));
        CHECK(eventually([&] { return called == 1 && q.statistics().in_flight == 2; }));
        clock.await_parked(1); // it waits
        CHECK(called == 1);
        go = true;
        CHECK(settled(q, fails ? 1 : 2));
        CHECK(called == (fails ? 2 : 1));
        CHECK(handler.statistics().handled == 1);
        CHECK(handler.statistics().duplicates == (fails ? 0 : 1));
        CHECK(eventually([&] { return q.statistics().dead == (fails ? 1u : 0u); })); // its consumer is told of that after the one that waited
    }
}

TEST_CASE("idempotent: deliveries settled elsewhere: the second is kept aside, then settled or given back with the first") {
    for (const bool fails : {false, true}) {
        CAPTURE(fails);
        manual_clock clock;
        queue<int> q({.clock = &clock});
        std::mutex mutex;
        std::vector<delivery<int>> taken;
        const auto count = [&] {
            const std::lock_guard lock(mutex);
            return taken.size();
        };
        auto handler = idempotent(
            [&](delivery<int> d) {
                const std::lock_guard lock(mutex);
                taken.push_back(std::move(d));
            },
            mailroom::idempotent_options{.clock = &clock});
        auto c = q.consume(handler); // one thread: it does not block
        for (int i = 0; i < 3; ++i) { q.send(i, with_id("a")); }
        q.send(7);
        CHECK(eventually([&] { return count() == 2; })); // the first, and the one without an id
        CHECK(q.statistics().in_flight == 4);
        std::optional<delivery<int>> first;
        {
            const std::lock_guard lock(mutex);
            first.emplace(std::move(taken.front()));
            taken.erase(taken.begin());
        }
        CHECK(first->extend(1min));
        if (fails) {
            CHECK(first->reject("no"));
            CHECK(eventually([&] { return count() == 2; }));
            {
                const std::lock_guard lock(mutex);
                CHECK(*taken.back() == 1);
                CHECK(taken.back().attempt() == 1);
            }
            CHECK(q.statistics().acked == 0);
        } else {
            CHECK(first->ack());
            CHECK(q.statistics().acked == 3);
            CHECK(handler.statistics().duplicates == 2);
        }
        std::vector<delivery<int>> rest;
        {
            const std::lock_guard lock(mutex);
            rest.swap(taken);
        }
        for (auto& d : rest) { CHECK(d.ack()); }
        CHECK(settled(q, fails ? 3 : 4));
        CHECK(c.drain(20s));
    }
}

TEST_CASE("idempotent: acknowledged counts, though the lease was lost") {
    manual_clock clock;
    queue<int> q({.lease = 1s, .clock = &clock});
    auto handler = idempotent([](delivery<int> d) { CHECK_FALSE(d.ack()); }, mailroom::idempotent_options{.clock = &clock});
    q.send(1, with_id("a"));
    auto d = q.try_receive();
    clock.advance(2s);
    auto again = q.try_receive();
    REQUIRE(again);
    handler(std::move(*d));
    CHECK(handler.statistics().handled == 1);
    handler(std::move(*again)); // its effect has happened
    CHECK(q.statistics().acked == 1);
    CHECK(handler.statistics().duplicates == 1);
}

TEST_CASE("idempotent: a receipt of the acknowledgement") {
    queue<int> q;
    auto handler = idempotent([](delivery<int> d) { d.ack_async().wait(); }, 1h);
    q.send(1, with_id("a"));
    handler(*q.try_receive());
    CHECK(handler.statistics().handled == 1);
    CHECK(q.statistics().acked == 1);
}

TEST_CASE("idempotent: for its window, and no more ids than it may") {
    manual_clock clock;
    int called = 0;
    auto handler = idempotent([&](const int&) { ++called; }, mailroom::idempotent_options{.window = 10s, .max_ids = 3, .clock = &clock});
    handler(1, with_id("a"));
    clock.advance(10s - 1ns);
    handler(1, with_id("a"));
    CHECK(called == 1);
    clock.advance(1ns);
    handler(1, with_id("a"));
    CHECK(called == 2);
    CHECK(handler.statistics().remembered == 1);
    for (const char* id : {"b", "c", "d"}) { handler(1, with_id(id)); }
    CHECK(handler.statistics().remembered == 3);
    handler(1, with_id("d"));
    handler(1, with_id("b"));
    CHECK(called == 5);
    handler(1, with_id("a")); // the oldest was forgotten
    CHECK(called == 6);
    clock.advance(1h);
    CHECK(handler.statistics().remembered == 0);
    CHECK(handler.statistics().handled == 6);
    CHECK(handler.statistics().duplicates == 3);
}

TEST_CASE("idempotent: copies share what they remember, two queues and a topic too") {
    queue<int> one, two;
    mailroom::topic<int> events;
    auto sub = events.subscribe();
    std::atomic<int> called{0};
    const auto handler = idempotent([&](const int&) { ++called; }, 1h);
    auto a = one.consume(handler), b = two.consume(handler), c = sub.consume(handler);
    one.send(1, with_id("x"));
    two.send(1, with_id("x"));
    events.publish(1, with_id("x"));
    CHECK(settled(one, 1));
    CHECK(settled(two, 1));
    CHECK(eventually([&] { return sub.lag() == 0; }));
    CHECK(called == 1);
    CHECK(handler.statistics().duplicates == 2);
}

TEST_CASE("idempotent: within itself, the same id is refused, not waited for") {
    std::function<void(const int&)> again;
    auto handler = idempotent([&](const int& n) { again(n); }, 1h);
    again = [&](const int& n) {
        if (n == 1) { handler(2, with_id("a")); }
    };
    CHECK_THROWS_AS(handler(1, with_id("a")), mailroom::error);
    handler(3, with_id("a")); // it failed, and may be tried again
    CHECK(handler.statistics().handled == 1);
}

TEST_CASE("idempotent: wrong options") {
    CHECK_THROWS_AS(static_cast<void>(idempotent([](const int&) {}, 0s)), mailroom::error);
    CHECK_THROWS_AS(static_cast<void>(idempotent(std::function<void(const int&)>(), 1s)), mailroom::error);
}

TEST_CASE("idempotent: deliveries outlive consumer and queue") {
    std::vector<delivery<int>> taken;
    std::atomic<int> n{0};
    {
        queue<int> q;
        auto c = q.consume(idempotent(
            [&](delivery<int> d) {
                taken.push_back(std::move(d));
                ++n;
            },
            1h));
        q.send(1, with_id("a"));
        q.send(2, with_id("b"));
        CHECK(eventually([&] { return n == 2; }));
    }
    CHECK_FALSE(taken[0].ack());
}

TEST_CASE("idempotent: threads that fail, and duplicates of everything: each effect once") {
    const std::size_t ids = support::scaled(500);
    queue<int> q({.retry = {.max_attempts = 0, .initial = 0s}});
    std::vector<std::atomic<int>> effects(ids);
    std::atomic<unsigned> dice{0};
    const auto unlucky = [&] { return dice.fetch_add(1) % 3 == 0; };
    auto body = idempotent(
        [&](const int& n) {
            if (unlucky()) { throw std::runtime_error("no"); }
            ++effects[static_cast<std::size_t>(n)];
        },
        1h);
    auto by_hand = idempotent(
        [&](delivery<int> d) {
            if (unlucky()) {
                d.nack(0s);
                return;
            }
            ++effects[static_cast<std::size_t>(*d)];
            d.ack();
        },
        1h);
    for (const bool manual : {false, true}) {
        for (auto& e : effects) { e = 0; }
        const std::uint64_t before = q.statistics().acked;
        mailroom::consumer c;
        if (manual) {
            c = q.consume(by_hand, {.concurrency = {4, 4}, .prefetch = 4});
        } else {
            c = q.consume(body, {.concurrency = {4, 4}, .prefetch = 4});
        }
        for (std::size_t i = 0; i < ids; ++i) {
            for (int copy = 0; copy < 3; ++copy) { q.send(static_cast<int>(i), with_id(std::to_string(i))); }
        }
        CHECK(settled(q, before + 3 * ids));
        for (const auto& e : effects) { REQUIRE(e == 1); }
    }
}
