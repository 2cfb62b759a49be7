#include <mailroom/base/clock.hpp>

#include "support/eventually.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

using namespace std::chrono_literals;
using mailroom::duration;

namespace {

// A clock that shows one time, to ask what follows from it.
class still_clock final : public mailroom::clock {
public:
    explicit still_clock(duration at) : at_(at) {}
    duration now() const noexcept override { return at_; }
    duration coarse() const noexcept override { return at_; }
    mailroom::time_point wall() const noexcept override { return {}; }
    void park(std::atomic<std::uint32_t>&, std::uint32_t, duration) noexcept override {}
    void unpark(std::atomic<std::uint32_t>&) noexcept override {}
    void relax(unsigned) noexcept override {}

private:
    duration at_;
};

} // namespace

TEST_CASE("clock: the system's never goes back, and its coarse face is never ahead") {
    mailroom::clock& c = mailroom::system_clock();
    CHECK(&c == &mailroom::system_clock());
    duration last = c.now();
    duration last_coarse = c.coarse();
    for (int i = 0; i < 10'000; ++i) {
        const duration coarse = c.coarse();
        const duration now = c.now();
        REQUIRE(now >= last);
        REQUIRE(coarse >= last_coarse);
        REQUIRE(coarse <= now);
        last = now;
        last_coarse = coarse;
    }
    CHECK(last > duration::zero());
    CHECK(c.wall() > std::chrono::sys_days(std::chrono::year(2020) / 1 / 1));
    CHECK(c.patience() > duration::zero());
}

TEST_CASE("clock: park returns at once where there is nothing to wait for") {
    mailroom::clock& c = mailroom::system_clock();
    std::atomic<std::uint32_t> word{7};
    c.park(word, 8, mailroom::clock::never); // another value
    c.park(word, 7, duration::zero());       // long ago
    c.park(word, 7, -1s);                    // before all time
    c.park(word, 7, duration::min());
    c.park(word, 7, c.now());
    CHECK(word == 7);
}

TEST_CASE("clock: park waits until its deadline, never shorter unless woken") {
    mailroom::clock& c = mailroom::system_clock();
    std::atomic<std::uint32_t> word{0};
    const duration until = c.now() + 2ms;
    while (c.now() < until) { c.park(word, 0, until); } // ends only if the park ends
    CHECK(c.now() >= until);
}

TEST_CASE("clock: unpark ends every park on its word") {
    mailroom::clock& c = mailroom::system_clock();
    std::atomic<std::uint32_t> word{0};
    std::atomic<int> returned{0};
    const auto wait = [&] {
        while (word.load() == 0) { c.park(word, 0, mailroom::clock::never); }
        ++returned;
    };
    std::thread a(wait), b(wait);
    word = 1;
    c.unpark(word);
    CHECK(support::eventually([&] { return returned == 2; }));
    a.join();
    b.join();
}

TEST_CASE("clock: relax returns in every round") {
    for (const unsigned round : {0u, 63u, 64u, ~0u}) { mailroom::system_clock().relax(round); }
}

TEST_CASE("deadline_after: a limit that is never reached is never, and none overflows") {
    using mailroom::detail::deadline_after;
    constexpr duration never = mailroom::clock::never;
    const struct {
        duration now, limit, deadline;
    } cases[] = {
        {5s, 1s, 6s},
        {5s, 0s, 5s},
        {5s, -1s, 4s},
        {0s, never, never},
        {5s, never, never},
        {5s, never - 5s, never},
        {5s, never - 4s, never},
        {5s, never - 6s, never - 1s},
        {0s, duration::min(), duration::min()},
        {5s, duration::min(), duration::min() + 5s},
    };
    for (const auto& c : cases) {
        CAPTURE(c.now.count());
        CAPTURE(c.limit.count());
        CHECK(deadline_after(still_clock(c.now), c.limit) == c.deadline);
    }
}

TEST_CASE("clock: one that is not the system's looks again not at all before it parks, unless it says so") {
    CHECK(still_clock(0s).patience() == duration::zero());
}
