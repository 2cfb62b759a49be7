// Random tests: their cases, each with a seed of its own that replays it alone (MAILROOM_TEST_SEED), and their dice.
#pragma once

#include "support/environment.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>

namespace support {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool under_thread_sanitizer = true;
#elif defined(__has_feature)
inline constexpr bool under_thread_sanitizer = __has_feature(thread_sanitizer);
#else
inline constexpr bool under_thread_sanitizer = false;
#endif

/// How many of `count` cases this run tries: MAILROOM_TEST_SCALE of them, a tenth of that under ThreadSanitizer.
inline std::size_t cases(std::size_t count) { return scaled(under_thread_sanitizer ? count / 10 + 1 : count); }

/// Calls `test(seed)` for as many seeds, or for the one that is replayed; until it answers false: one failure is enough to read.
template <class Test>
void for_each_seed(std::size_t count, Test test) {
    const std::uint64_t first = seed();
    const std::size_t tries = std::getenv("MAILROOM_TEST_SEED") != nullptr ? 1 : cases(count);
    for (std::size_t i = 0; i < tries && test(first + i); ++i) {}
}

/// Random choices in the words of a test; the same with every standard library.
class dice {
public:
    explicit dice(std::uint64_t seed) : engine_(seed * 0x9E3779B97F4A7C15u + 1) {}

    /// 0 .. n-1
    unsigned below(unsigned n) { return static_cast<unsigned>((engine_() >> 16) % n); }
    /// low .. high
    int between(int low, int high) { return low + static_cast<int>(below(static_cast<unsigned>(high - low + 1))); }
    bool percent(unsigned p) { return below(100) < p; }

private:
    std::mt19937_64 engine_;
};

} // namespace support
