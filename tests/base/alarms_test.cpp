// The board by hand: who is told of which instant, and what is done when it comes.
#include <mailroom/base/alarms.hpp>
#include <mailroom/testing/manual_clock.hpp>

#include <doctest/doctest.h>

#include <vector>

using mailroom::duration;
using mailroom::detail::alarm_board;

namespace {

struct has_alarms final : mailroom::detail::alarmed {
    explicit has_alarms(mailroom::clock& c) : alarmed(c) {}
    duration at = mailroom::clock::never, then = mailroom::clock::never;
    int references = 1;
    std::vector<duration> rung;

private:
    duration next_alarm() const noexcept override { return at; }
    void ring(duration now) noexcept override {
        rung.push_back(now);
        at = then;
        then = mailroom::clock::never;
    }
    void hold_alarm() noexcept override { ++references; }
    void let_go_alarm() noexcept override { --references; }
};

struct looks final : mailroom::detail::alarm_keeper {
    std::vector<duration> told;

private:
    void alarm_at(duration instant) noexcept override { told.push_back(instant); }
};

using instants = std::vector<duration>;

} // namespace

TEST_CASE("alarms: who keeps the same clock is told, and rings what is due") {
    mailroom::testing::manual_clock here, there;
    alarm_board board;
    looks mine, other;
    board.come(other, there);
    board.come(mine, here);
    has_alarms a(here);
    CHECK_FALSE(board.any());
    a.at = duration(10);
    a.then = duration(30);
    board.announce(a, a.at);
    CHECK(board.any());
    CHECK(a.references == 2);
    CHECK(mine.told == instants{duration(10)});
    CHECK(other.told.empty());
    CHECK(board.ring(here, duration(9)) == duration(10));
    CHECK(a.rung.empty());
    CHECK(board.ring(there, duration(11)) == mailroom::clock::never);
    CHECK(board.ring(here, duration(11)) == duration(30));
    CHECK(a.rung == instants{duration(11)});
    CHECK(board.ring(here, duration(30)) == mailroom::clock::never);
    CHECK(a.rung == instants{duration(11), duration(30)});
    CHECK_FALSE(board.any()); // it has nothing any more
    CHECK(a.references == 1);
    board.go(mine);
    board.go(mine);
    board.go(other);
}

TEST_CASE("alarms: who comes later is told, and who goes leaves it to another") {
    mailroom::testing::manual_clock c;
    alarm_board board;
    has_alarms a(c), b(c);
    a.at = duration(20);
    b.at = duration(10);
    board.announce(a, a.at);
    board.announce(b, b.at);
    looks first, second;
    board.come(first, c);
    CHECK(first.told == instants{duration(10)});
    board.come(second, c);
    first.told.clear();
    second.told.clear();
    board.go(second);
    CHECK(first.told == instants{duration(10)});
    board.withdraw(b);
    board.withdraw(b);
    CHECK(b.references == 1);
    CHECK(board.ring(c, duration(15)) == duration(20));
    CHECK(b.rung.empty());
    board.withdraw(a);
    CHECK(a.references == 1);
    CHECK_FALSE(board.any());
    board.go(first);
}
