// Topics under threads, where it is about being woken and about coming and going, not about what is delivered (topic_history_test.cpp).
#include "support/coroutines.hpp"
#include "support/random.hpp"

#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <coroutine>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using mailroom::sharing;
using mailroom::start;

TEST_CASE("waiting: as many messages as are published at once wake as many members that wait") {
    for (const int partitions : {1, 2}) {
        for (std::size_t round = 0; round < support::cases(500); ++round) {
            mailroom::testing::manual_clock clock; // under it nobody looks again by himself
            mailroom::topic<int> t({.partitions = partitions, .clock = &clock});
            auto a = t.subscribe("s", {.mode = sharing::shared});
            auto b = t.subscribe("s", {.mode = sharing::shared});
            std::atomic<int> got{0};
            std::vector<std::jthread> threads;
            for (auto* s : {&a, &b}) {
                threads.emplace_back([s, &got] {
                    if (s->receive()) { ++got; } // and keeps nobody waiting: each takes one
                });
            }
            clock.await_parked(2);
            threads.emplace_back([&t] { t.publish(1); });
            threads.emplace_back([&t] { t.publish(2); });
            threads.clear();
            REQUIRE(got == 2);
        }
    }
}

TEST_CASE("waiting: an ephemeral subscription that waits is woken by each message, whoever else comes and goes") {
    mailroom::testing::manual_clock clock;
    mailroom::topic<int> t({.clock = &clock});
    std::atomic<bool> done{false};
    std::jthread others([&] {
        while (!done) {
            auto s = t.subscribe();
            static_cast<void>(s.try_receive());
        }
    });
    auto s = t.subscribe();
    const int many = static_cast<int>(support::cases(3000));
    std::jthread reader([&] {
        for (int i = 0; i < many; ++i) {
            const auto m = s.pop();
            REQUIRE(m);
            CHECK(m->body() == i);
        }
    });
    for (int i = 0; i < many; ++i) { t.publish(i); }
    reader.join();
    done = true;
}

TEST_CASE("seek: at any time, while others publish and receive under a bound: nobody waits for ever") {
    for (std::size_t round = 0; round < support::cases(300); ++round) {
        mailroom::topic<std::string> t({.partitions = 1 + static_cast<int>(round % 2), .max_messages = 3});
        auto s = t.subscribe("s", {.mode = sharing::shared});
        std::atomic<bool> done{false};
        std::jthread reader([&] {
            while (!done) {
                if (auto d = s.try_receive()) { d->ack(); }
            }
        });
        std::jthread publisher([&] {
            for (int i = 0; i < 40; ++i) { t.publish(std::to_string(i)); }
            done = true;
        });
        while (!done) { s.seek(round % 3 == 0 ? start::earliest : start::latest); }
        reader.join();
        s.seek(start::latest);
        CHECK(s.lag() == 0);
        for (int i = 0; i < 3; ++i) { CHECK(t.try_publish(std::string("there is room again"))); }
        CHECK(!t.try_publish(std::string("and no more than that")));
    }
}

namespace {

support::loose end_when_something_comes(std::optional<mailroom::topic<int>>& t, mailroom::subscription<int>& s, int& got) {
    if (const auto d = co_await s.next()) { got += d->body(); }
    t.reset();
}

} // namespace

TEST_CASE("waiting: what a publish wakes may be the end of its topic") {
    for (const int partitions : {1, 3}) {
        std::optional<mailroom::topic<int>> t;
        t.emplace(mailroom::topic_options<int>{.partitions = partitions});
        auto a = t->subscribe(), b = t->subscribe();
        int got = 0;
        end_when_something_comes(t, a, got);
        end_when_something_comes(t, b, got);
        t->publish(7); // resumes the first, which ends the topic, and with it the wait of the second
        CHECK(!t);
        CHECK((got == 7 || got == 14));
        CHECK(!b.try_pop());
    }
}
