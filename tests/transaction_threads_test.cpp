// Transactions of several threads at once, and who looks at what they do meanwhile.
#include "support/blocked.hpp"
#include "support/crew.hpp"
#include "support/places.hpp"
#include "support/random.hpp"

#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace support;

TEST_CASE_TEMPLATE("transaction: whoever sees one message of a transaction finds the others there", Where, EVERY_WAY) {
    Where w;
    auto a = w.make_queue("a");
    auto b = w.make_queue("b");
    auto t = w.make_topic("t", {.partitions = 2});
    auto s = t.subscribe("s", {.mode = sharing::shared});
    constexpr int senders = 2, rounds_at_most = 4000;
    const int rounds = static_cast<int>(support::cases(Where::is_stored ? rounds_at_most / 4 : rounds_at_most));
    std::atomic<int> seen{0}, missing{0};
    support::crew crew(senders + 1);
    crew.run(senders + 1, [&](int self) {
        if (self < senders) {
            for (int i = 0; i < rounds; ++i) {
                auto tx = w.begin();
                if (i % 2 == 0) { tx.send(a, self * rounds + i); }
                tx.send(b, self * rounds + i);
                tx.publish(t, self * rounds + i);
                if (i % 2 != 0) { tx.send(a, self * rounds + i); }
                if (i % 5 == 0) { continue; }
                tx.commit();
            }
            return;
        }
        const int expected = senders * (rounds - (rounds + 4) / 5);
        while (seen < expected) { // one of a, and there is one of each other for it: they are taken in pairs
            auto first = a.try_receive();
            if (!first) { continue; }
            ++seen;
            first->ack();
            auto second = b.try_receive();
            auto third = s.try_receive();
            missing += second ? 0 : 1;
            missing += third ? 0 : 1;
            if (second) { second->ack(); }
            if (third) { third->ack(); }
        }
    });
    CHECK(missing == 0);
    CHECK_FALSE(b.try_receive());
    CHECK_FALSE(s.try_receive());
}

TEST_CASE_TEMPLATE("transaction: many at once, over the same endpoints in any order, with bounds, ids and rollbacks", Where, EVERY_WAY) {
    Where w;
    constexpr int threads = 4, queues = 4;
    const int messages = static_cast<int>(support::cases(Where::is_stored ? 300 : 1000));
    std::vector<typename Where::template queue<int>> q;
    for (int i = 0; i < queues; ++i) {
        q.push_back(
            w.make_queue("q" + std::to_string(i),
                         {.max_messages = 1 << 16, .retry = {.max_attempts = 0, .initial = 0s}, .deduplicate = {.window = i % 2 == 0 ? 1h : 0h}}));
    }
    auto t = w.make_topic("t", {.partitions = 3, .max_messages = 1 << 16, .deduplicate = {.window = 1h}});
    auto s = t.subscribe("s", {.mode = sharing::shared});
    for (int i = 0; i < messages; ++i) { q[0].send(i); }
    std::vector<std::atomic<int>> ended(static_cast<std::size_t>(messages));
    std::atomic<int> left{messages};
    support::crew crew(threads);
    const auto seed = support::seed();
    CAPTURE(seed);
    crew.run(threads, [&](int self) { // each message wanders from queue to queue until it ends
        support::dice chance(seed + static_cast<unsigned>(self));
        while (left > 0) {
            const std::size_t from = chance.below(queues);
            auto d = q[from].try_receive();
            if (!d) { continue; }
            const int body = **d;
            const std::string id = std::to_string(body) + "/" + std::to_string(from);
            auto tx = w.begin();
            if (from == queues - 1) {
                tx.publish(t, body, {.id = id});
            } else {
                tx.send(q[from + 1], body, {.id = id});
            }
            if (chance.percent(30)) { tx.publish(t, -1); }
            if (!tx.ack(*d)) { continue; }
            if (chance.percent(30)) { continue; }
            tx.commit();
            if (from == queues - 1) {
                ++ended[static_cast<std::size_t>(body)];
                --left;
            }
        }
    });
    CHECK(std::all_of(ended.begin(), ended.end(), [](const auto& n) { return n == 1; }));
    std::vector<int> arrived(static_cast<std::size_t>(messages));
    for (const int body : take(s)) {
        if (body >= 0) { ++arrived[static_cast<std::size_t>(body)]; }
    }
    CHECK(std::all_of(arrived.begin(), arrived.end(), [](int n) { return n == 1; }));
    for (auto& one : q) { CHECK_FALSE(one.try_receive()); }
}

TEST_CASE_TEMPLATE("transaction: waiting receivers are woken", Where, EVERY_WAY) {
    Where w;
    auto q = w.make_queue("q");
    auto t = w.make_topic("t");
    auto s = t.subscribe("s");
    std::optional<int> first, second;
    {
        const support::blocked one([&] { first = **q.receive(); });
        const support::blocked two([&] { second = **s.receive(); });
        auto tx = w.begin();
        tx.send(q, 1);
        tx.publish(t, 2);
        tx.commit();
        CHECK(one.finishes());
        CHECK(two.finishes());
    }
    CHECK(first == 1);
    CHECK(second == 2);
}
