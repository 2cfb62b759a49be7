#include <mailroom/store/timing.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::time_point;
using mailroom::detail::timing;

namespace {

// Its coarse hand lags behind, and its wall clock can be set.
class settable_clock final : public mailroom::clock {
public:
    duration at{5s};
    time_point shows = time_point(std::chrono::sys_days(std::chrono::year(2024) / 2 / 29));

    duration now() const noexcept override { return at; }
    duration coarse() const noexcept override { return at - 4ms; }
    time_point wall() const noexcept override { return shows; }
    void park(std::atomic<std::uint32_t>&, std::uint32_t, duration) noexcept override {}
    void unpark(std::atomic<std::uint32_t>&) noexcept override {}
    void relax(unsigned) noexcept override {}
};

constexpr duration century = std::chrono::hours(24 * 36525);

} // namespace

TEST_CASE("timing: is its clock's, or the system's where there is none") {
    settable_clock c;
    const timing t(&c);
    CHECK(&t.clock() == &c);
    CHECK(t.now() == 5s);
    CHECK(t.coarse() == 4996ms);
    c.at += 1h;
    CHECK(t.now() == 1h + 5s);
    CHECK(t.coarse() == 1h + 4996ms);

    const timing system(nullptr);
    CHECK(&system.clock() == &mailroom::system_clock());
    const duration before = mailroom::system_clock().now();
    CHECK(system.now() >= before);
    CHECK(system.coarse() <= system.now());
    const timing named(&mailroom::system_clock());
    const duration coarse = named.coarse();
    CHECK(coarse <= mailroom::system_clock().now());
}

TEST_CASE("timing: times and what the wall showed are each other's reverse") {
    settable_clock c;
    const time_point born = c.shows;
    const timing t(&c);
    CHECK(t.wall(5s) == born);
    CHECK(t.wall(0s) == born - 5s);
    CHECK(t.wall(5s + 90min) == born + 90min);
    CHECK(t.wall(-1h) == born - 1h - 5s);
    for (const duration d : {duration(0s), duration(5s), duration(-3h), duration(365 * 24h), duration(-365 * 24h), duration(1us)}) {
        CHECK(t.at(t.wall(d)) == d);
    }
}

TEST_CASE("timing: timestamps do not jump when the wall clock is set") {
    settable_clock c;
    const timing t(&c);
    const time_point stamp = t.wall(7s);
    c.shows += 24h;
    CHECK(t.wall(7s) == stamp);
    CHECK(t.at(stamp) == 7s);
    c.shows -= 1000h;
    CHECK(t.wall(7s) == stamp);
    CHECK(t.at(stamp) == 7s);
    CHECK(timing(&c).wall(5s) == c.shows); // who begins later goes by what it shows then
}

TEST_CASE("timing: what is more than a century away is as far as can be, and does not overflow") {
    mailroom::testing::manual_clock c;
    const timing t(&c);
    const time_point zero = t.wall(0s);
    CHECK(t.at(zero + std::chrono::duration_cast<time_point::duration>(century)) == century);
    CHECK(t.at(zero - std::chrono::duration_cast<time_point::duration>(century)) == -century);
    CHECK(t.at(zero + std::chrono::duration_cast<time_point::duration>(century) + 1us) == mailroom::clock::never);
    CHECK(t.at(zero - std::chrono::duration_cast<time_point::duration>(century) - 1us) == duration::min());
    CHECK(t.at(time_point::max()) == mailroom::clock::never);
    CHECK(t.at(time_point::min()) == duration::min());
    CHECK(t.at(time_point()) == -std::chrono::duration_cast<duration>(zero.time_since_epoch())); // 1970 is not that far away
}
