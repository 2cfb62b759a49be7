#include <mailroom/store/bounds.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

namespace {

using mailroom::memory_budget;
using mailroom::offset;
using mailroom::overflow;
using mailroom::detail::bounds;

struct counting_waiter final : mailroom::detail::waiter {
    counting_waiter() : waiter([](waiter& w) noexcept { ++static_cast<counting_waiter&>(w).woken; }) {}
    int woken = 0;
};

constexpr std::size_t most = std::numeric_limits<std::size_t>::max();

} // namespace

TEST_CASE("bounds: without any, everything fits") {
    bounds b({0, 0, nullptr, overflow::block});
    CHECK(!b.limited());
    CHECK(b.could_ever_hold(most, most));
    CHECK(b.admits(1'000'000, 1'000'000));
    CHECK(b.take_bytes(most));
    CHECK(b.has_room(5, 5, 5));
    CHECK(b.missing(1000, 5) == 0);
    CHECK(b.could_spare(1000, 1000));
}

TEST_CASE("bounds: messages are the offset to be taken less what was settled") {
    bounds b({3, 0, nullptr, overflow::block});
    CHECK(b.limited());
    CHECK(b.could_ever_hold(3, most));
    CHECK(!b.could_ever_hold(4, 0));
    CHECK(b.admits(2, 1));
    CHECK(!b.admits(3, 1));
    CHECK(!b.admits(2, 2));
    b.left(2, 0);
    CHECK(b.admits(4, 1));
    CHECK(!b.admits(5, 1));
    CHECK(b.missing(5, 2) == 2);
    CHECK(b.missing(2, 1) == 0);
    b.left(-1, 0); // one came back from the dead
    CHECK(!b.admits(4, 1));
    CHECK(b.admits(3, 1));
}

TEST_CASE("bounds: bytes are taken and given back, and never wrap round") {
    bounds b({0, 100, nullptr, overflow::reject});
    CHECK(b.rule() == overflow::reject);
    CHECK(b.could_ever_hold(9, 100));
    CHECK(!b.could_ever_hold(1, 101));
    CHECK(b.take_bytes(60));
    CHECK(!b.take_bytes(41));
    CHECK(!b.take_bytes(most));
    CHECK(b.has_room(0, 1, 40));
    CHECK(!b.has_room(0, 1, 41));
    CHECK(b.could_spare(60, 40));
    CHECK(!b.could_spare(60, 41)); // of 60 bytes nothing can go
    CHECK(b.could_spare(0, 100));
    CHECK(b.take_bytes(40));
    b.left(1, 60);
    CHECK(b.take_bytes(60));
    b.left(-1, -50); // beyond the limit: what lives again
    CHECK(!b.take_bytes(0));
    b.give_bytes_back(51);
    CHECK(b.take_bytes(1));
}

TEST_CASE("bounds: of a shared budget and a bound of its own, both must agree, or nothing is taken") {
    memory_budget budget(50);
    bounds a({0, 40, &budget, overflow::block}), b({0, 0, &budget, overflow::block});
    CHECK(!a.could_ever_hold(1, 41));
    CHECK(!b.could_ever_hold(1, 51));
    CHECK(a.take_bytes(30));
    CHECK(!b.take_bytes(21));
    CHECK(b.take_bytes(20));
    CHECK(!a.take_bytes(5));
    CHECK(a.has_room(0, 1, 0));
    CHECK(a.could_spare(0, 30)); // the others' 20 stay
    CHECK(!a.could_spare(0, 31));
    CHECK(!a.could_spare(1, 30));
    CHECK(b.could_spare(20, 0));
    b.left(1, 20);
    CHECK(budget.used() == 30);
    CHECK(a.take_bytes(10));
    CHECK(!a.take_bytes(1));
    a.abandon();
    CHECK(budget.used() == 0);
    a.abandon();
    CHECK(budget.used() == 0);
}

TEST_CASE("bounds: as many waiters are woken as there are places; all, where one may want more than one") {
    bounds b({10, 0, nullptr, overflow::block});
    counting_waiter w[4];
    for (auto& each : w) { b.join(each, 1); }
    b.left(1, 0);
    CHECK(w[0].woken == 1);
    CHECK(w[1].woken == 0);
    b.left(2, 0);
    CHECK(w[2].woken == 1);
    CHECK(w[3].woken == 0);
    CHECK(!b.leave(w[0], 1));
    CHECK(b.leave(w[3], 1));
    b.join(w[0], 1);
    b.join(w[1], 5);
    b.join(w[2], 1);
    b.left(1, 0);
    CHECK(w[0].woken + w[1].woken + w[2].woken == 6);
    CHECK(!b.leave(w[1], 5));
    b.join(w[0], 1);
    b.join(w[2], 1);
    b.left(1, 0); // nobody is greedy any more
    CHECK(w[0].woken == 3);
    CHECK(w[2].woken == 2);
    b.wake_all();
    CHECK(w[2].woken == 3);
}

TEST_CASE("bounds: many senders and settlers, never more bytes than allowed, and all come back") {
    memory_budget budget(1000);
    bounds a({0, 600, &budget, overflow::reject}), b({0, 0, &budget, overflow::reject});
    std::vector<std::thread> threads;
    std::atomic<bool> exceeded{false};
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            bounds& mine = t % 2 == 0 ? a : b;
            for (std::size_t i = 0; i < 5'000; ++i) {
                const std::size_t bytes = 1 + (i * (t + 3)) % 400;
                if (!mine.take_bytes(bytes)) { continue; }
                if (budget.used() > 1000) { exceeded = true; }
                if (i % 2 == 0) {
                    mine.left(1, static_cast<std::int64_t>(bytes));
                } else {
                    mine.give_bytes_back(bytes);
                }
            }
        });
    }
    for (auto& t : threads) { t.join(); }
    CHECK(!exceeded);
    CHECK(budget.used() == 0);
    CHECK(a.take_bytes(600));
}

TEST_CASE("bounds: bytes that were taken in vain and given back wake who went to sleep for want of them") {
    memory_budget budget(200);
    for (memory_budget* const shared : {static_cast<memory_budget*>(nullptr), &budget}) {
        bounds b({1, 100, shared, overflow::block});
        CHECK(b.take_bytes(60));
        counting_waiter w;
        b.join(w, 1);
        CHECK(!b.take_bytes(60));
        b.give_bytes_back(60);
        CHECK(w.woken == 1);
    }
}

TEST_CASE("bounds: a place among the messages is judged by the head where it stands still") {
    bounds b({2, 0, nullptr, overflow::block});
    offset head = 0;
    CHECK(b.would_admit([&] { return head; }, 2));
    b.left(5, 0);
    offset seen = 0; // long ago, and then where it is
    CHECK(b.would_admit([&] { return std::exchange(seen, 6); }, 1));
    CHECK(!b.would_admit([] { return offset{7}; }, 1));
}
