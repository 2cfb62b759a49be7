// retry_policy: how often a message is tried, and how long it pauses in between.
#pragma once

#include <mailroom/base/basics.hpp>

#include <chrono>
#include <cstdint>

namespace mailroom {

/// How often a message is handed out before it is dead, and the pause after the n-th failure: initial * multiplier^(n-1), at most maximum.
struct retry_policy {
    std::uint32_t max_attempts = 10; ///< 0: unlimited
    duration initial = std::chrono::milliseconds(100);
    double multiplier = 2;
    duration maximum = std::chrono::minutes(1);
    double jitter = 0; ///< 0..1: the pause is drawn evenly from pause * (1 - jitter) to pause * (1 + jitter)
};

namespace detail {

/// The pause after failed attempt `attempt` (1, 2, ...). The jitter depends on the message alone, so that a run can be repeated.
inline duration pause_after(const retry_policy& policy, std::uint32_t attempt, offset o) noexcept {
    if (policy.initial <= duration::zero()) { return duration::zero(); }
    const double most = static_cast<double>(policy.maximum.count());
    double pause = static_cast<double>(policy.initial.count());
    double factor = policy.multiplier;
    for (std::uint32_t power = attempt > 0 ? attempt - 1 : 0; power != 0 && pause < most; power /= 2, factor *= factor) { // by squaring
        if (power % 2 != 0) { pause *= factor; }
    }
    if (!(pause < most)) { pause = most; } // also what overflowed
    if (policy.jitter > 0) {
        std::uint64_t x = o * 0x9e3779b97f4a7c15u + attempt; // splitmix64
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        const double even = static_cast<double>(x >> 11) * 0x1.0p-53;
        pause *= 1.0 + policy.jitter * (2.0 * even - 1.0);
    }
    constexpr double most_representable = 9e18; // about 285 years; above, the conversion would be undefined
    return pause < most_representable ? duration(static_cast<std::int64_t>(pause)) : duration(static_cast<std::int64_t>(most_representable));
}

} // namespace detail
} // namespace mailroom
