#include <mailroom/base/budget.hpp>

#include "support/environment.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <limits>
#include <thread>
#include <vector>

namespace {

struct counting_waiter final : mailroom::detail::waiter {
    counting_waiter() : waiter([](waiter& w) noexcept { ++static_cast<counting_waiter&>(w).woken; }) {}
    int woken = 0;
};

constexpr std::size_t all = std::numeric_limits<std::size_t>::max();

} // namespace

TEST_CASE("memory_budget: gives what is left and no more") {
    mailroom::memory_budget b(100);
    CHECK(b.limit() == 100);
    CHECK(b.used() == 0);
    CHECK(b.take(60));
    CHECK(!b.take(41));
    CHECK(b.used() == 60);
    CHECK(b.take(40));
    CHECK(b.take(0));
    CHECK(!b.take(1));
    b.give_back(50);
    CHECK(b.used() == 50);
    CHECK(b.take(50));
}

TEST_CASE("memory_budget: sizes that would overflow are refused") {
    mailroom::memory_budget small(100);
    CHECK(small.take(1));
    CHECK(!small.take(all));
    CHECK(!small.take(all - 1));
    CHECK(small.used() == 1);
    mailroom::memory_budget none(0);
    CHECK(none.take(0));
    CHECK(!none.take(1));
    mailroom::memory_budget endless(all);
    CHECK(endless.take(all - 1));
    CHECK(!endless.take(2));
    CHECK(endless.take(1));
}

TEST_CASE("memory_budget: what lives again may exceed it; then nothing is given until it is below again") {
    mailroom::memory_budget b(100);
    CHECK(b.take(90));
    b.force(50);
    CHECK(b.used() == 140);
    CHECK(!b.take(1));
    CHECK(!b.take(0));
    b.give_back(41);
    CHECK(b.take(1));
    CHECK(!b.take(1));
}

TEST_CASE("memory_budget: all who wait for room are woken when some is given back, once") {
    mailroom::memory_budget b(10);
    CHECK(b.take(10));
    counting_waiter first, second;
    b.senders().add(first, mailroom::detail::nothing());
    b.senders().add(second, mailroom::detail::nothing());
    b.give_back(3);
    CHECK(first.woken == 1);
    CHECK(second.woken == 1);
    CHECK(b.senders().size() == 0);
    b.give_back(3);
    CHECK(first.woken == 1);
}

TEST_CASE("memory_budget: many threads together never hold more than its limit") {
    mailroom::memory_budget b(64);
    std::atomic<std::size_t> held{0}, most{0};
    std::vector<std::thread> threads;
    for (std::size_t t = 1; t <= 4; ++t) {
        threads.emplace_back([&, t] {
            for (std::size_t i = 0; i < support::scaled(5'000); ++i) {
                const std::size_t bytes = 1 + (i * t) % 40;
                if (!b.take(bytes)) { continue; }
                const std::size_t now = held.fetch_add(bytes) + bytes;
                for (std::size_t seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {}
                held.fetch_sub(bytes);
                b.give_back(bytes);
            }
        });
    }
    for (auto& t : threads) { t.join(); }
    CHECK(most <= 64);
    CHECK(most > 0);
    CHECK(b.used() == 0);
}
