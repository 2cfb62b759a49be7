#include <mailroom/base/barrier.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <thread>

namespace {

using mailroom::detail::full_barrier;
using mailroom::detail::has_heavy_barrier;
using mailroom::detail::heavy_barrier;
using mailroom::detail::light_barrier;

struct alignas(64) cell {
    std::atomic<std::uint32_t> value{0};
};

// Both sides write their own cell and read the other's, in rounds that begin together. Returns in how many rounds both missed. (With the
// light barrier on both sides a two-core x86 gives about one round in ten thousand.)
template <class Busy, class Rare>
int rounds_in_which_both_missed(int rounds, Busy busy_barrier, Rare rare_barrier) {
    cell offered, sleeping, ready, done;
    std::uint32_t seen_by_busy = 0;
    int missed = 0;
    std::thread busy([&] {
        for (std::uint32_t round = 1; round <= static_cast<std::uint32_t>(rounds); ++round) {
            for (int spins = 0; ready.value.load(std::memory_order_acquire) != round; ++spins) {
                if (spins > 200) { std::this_thread::yield(); }
            }
            offered.value.store(round, std::memory_order_relaxed);
            busy_barrier();
            seen_by_busy = sleeping.value.load(std::memory_order_relaxed);
            done.value.store(round, std::memory_order_release);
        }
    });
    for (std::uint32_t round = 1; round <= static_cast<std::uint32_t>(rounds); ++round) {
        ready.value.store(round, std::memory_order_release);
        sleeping.value.store(round, std::memory_order_relaxed);
        rare_barrier();
        const std::uint32_t seen_by_rare = offered.value.load(std::memory_order_relaxed);
        while (done.value.load(std::memory_order_acquire) != round) { std::this_thread::yield(); }
        if (seen_by_busy != round && seen_by_rare != round) { ++missed; }
    }
    busy.join();
    return missed;
}

constexpr int rounds = 20'000;

} // namespace

TEST_CASE("barrier: the light and the heavy side never both miss each other") {
    if (!has_heavy_barrier()) {
        MESSAGE("this system has no membarrier: endpoints use full barriers");
        return;
    }
    CHECK(heavy_barrier());
    CHECK(rounds_in_which_both_missed(rounds, light_barrier, [] { heavy_barrier(); }) == 0);
}

TEST_CASE("barrier: the full barrier on both sides does the same where there is no heavy one") {
    CHECK(rounds_in_which_both_missed(rounds, full_barrier, full_barrier) == 0);
}
