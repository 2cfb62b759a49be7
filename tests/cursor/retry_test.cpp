#include <mailroom/cursor/retry.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <set>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::retry_policy;
using mailroom::detail::pause_after;

TEST_CASE("retry: the pause grows by the multiplier, up to the maximum") {
    const retry_policy usual;
    CHECK(pause_after(usual, 1, 0) == 100ms);
    CHECK(pause_after(usual, 2, 0) == 200ms);
    CHECK(pause_after(usual, 3, 7) == 400ms);
    CHECK(pause_after(usual, 10, 0) == 51200ms);
    CHECK(pause_after(usual, 11, 0) == 1min);
    CHECK(pause_after(usual, 4'000'000'000u, 0) == 1min);
    CHECK(pause_after({.initial = 3s, .multiplier = 1}, 50, 0) == 3s);
    CHECK(pause_after({.initial = 1h, .maximum = 1min}, 1, 0) == 1min);
    CHECK(pause_after({.initial = 1ns, .multiplier = 1e9, .maximum = 1h}, 2, 0) == 1s);
}

TEST_CASE("retry: no pause is no pause, after however many attempts") {
    for (const std::uint32_t attempt : {1u, 2u, 1024u, 1025u, 2000u, 4'000'000'000u}) {
        CAPTURE(attempt);
        CHECK(pause_after({.initial = 0s}, attempt, 0) == 0s);
        CHECK(pause_after({.initial = 0s, .multiplier = 1e9, .jitter = 1}, attempt, 3) == 0s);
        CHECK(pause_after({.maximum = 0s}, attempt, 0) == 0s);
    }
}

TEST_CASE("retry: the longest durations neither overflow nor turn negative") {
    for (const double jitter : {0.0, 0.5, 1.0}) {
        for (mailroom::offset o = 0; o < 100; ++o) {
            const duration p = pause_after({.initial = duration::max(), .multiplier = 1e9, .maximum = duration::max(), .jitter = jitter}, 100, o);
            CHECK(p >= 0s);
        }
    }
    CHECK(pause_after({.initial = duration::max(), .maximum = duration::max()}, 1, 0) > 24h * 365 * 250);
}

TEST_CASE("retry: jitter spreads evenly between its bounds, and is the same for the same message") {
    const retry_policy policy{.initial = 1s, .maximum = 1h, .jitter = 0.5};
    std::set<std::int64_t> different;
    double sum = 0;
    for (mailroom::offset o = 0; o < 10'000; ++o) {
        const duration p = pause_after(policy, 1, o);
        REQUIRE(p >= 500ms);
        REQUIRE(p <= 1500ms);
        CHECK(p == pause_after(policy, 1, o));
        different.insert(p.count());
        sum += static_cast<double>(p.count());
    }
    CHECK(different.size() > 9'900);
    CHECK(sum / 10'000 > 0.98e9);
    CHECK(sum / 10'000 < 1.02e9);
    CHECK(pause_after(policy, 2, 5) != 2 * pause_after(policy, 1, 5)); // each attempt draws anew
    CHECK(pause_after({.initial = 1s, .jitter = 0}, 1, 5) == 1s);
}
