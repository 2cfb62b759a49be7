#include <mailroom/testing.hpp>

#include "support/eventually.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::testing::manual_clock;

namespace {

struct endpoint final : mailroom::timed {
    std::function<void()> act = [] {};
    int steps = 0;
    void step() noexcept override {
        ++steps;
        act();
    }
};

} // namespace

TEST_CASE("manual_clock: stands still until it is advanced") {
    manual_clock c;
    CHECK(c.now() == 0s);
    CHECK(c.coarse() == 0s);
    CHECK(c.wall() == std::chrono::sys_days(std::chrono::year(2020) / 1 / 1));
    c.advance(90s);
    CHECK(c.now() == 90s);
    CHECK(c.coarse() == 90s);
    CHECK(c.wall() == std::chrono::sys_days(std::chrono::year(2020) / 1 / 1) + 90s);
    c.advance(0s);
    CHECK(c.now() == 90s);
    CHECK(manual_clock(5h).now() == 5h);
    CHECK(c.patience() == 0s);
    c.relax(0);
}

TEST_CASE("manual_clock: advancing steps every endpoint, once, when the time has moved") {
    manual_clock c;
    endpoint a, b;
    a.act = [&] { CHECK(c.now() == 1s); };
    c.attach(a);
    c.attach(b);
    c.advance(1s);
    CHECK(a.steps == 1);
    CHECK(b.steps == 1);
    a.act = [] {};
    c.detach(a);
    c.detach(a);
    c.advance(1s);
    CHECK(a.steps == 1);
    CHECK(b.steps == 2);
    c.detach(b);
}

TEST_CASE("manual_clock: a step may attach, detach and advance") {
    manual_clock c;
    endpoint first, second, third;
    first.act = [&] {
        c.detach(second); // not stepped any more, though its turn was to come
        c.detach(first);
        c.attach(third);
        c.advance(1s);
    };
    c.attach(first);
    c.attach(second);
    c.advance(1s);
    CHECK(first.steps == 1);
    CHECK(second.steps == 0);
    CHECK(third.steps == 1);
    CHECK(c.now() == 2s);
    c.detach(third);
}

TEST_CASE("manual_clock: detach waits for a step that runs in another thread") {
    manual_clock c;
    endpoint e;
    std::atomic<bool> inside{false};
    std::atomic<bool> left{false};
    e.act = [&] {
        inside = true;
        for (int i = 0; i < 2'000; ++i) { std::this_thread::yield(); }
        left = true;
    };
    c.attach(e);
    std::thread mover([&] { c.advance(1s); });
    while (!inside) { std::this_thread::yield(); }
    c.detach(e);
    CHECK(left);
    mover.join();
}

TEST_CASE("manual_clock: a park ends with its word, a wake, or the time") {
    manual_clock c;
    std::atomic<std::uint32_t> word{0};
    c.park(word, 1, mailroom::clock::never); // another value
    c.park(word, 0, 0s);                     // over
    c.park(word, 0, -1s);
    CHECK(c.parked() == 0);
    c.await_parked(0);

    const auto wait_until = [&](duration deadline) {
        return std::thread([&c, &word, deadline] {
            while (word == 0 && c.now() < deadline) { c.park(word, 0, deadline); }
        });
    };
    std::thread timed = wait_until(10s);
    c.await_parked(1);
    CHECK(c.parked() == 1);
    c.advance(9s);
    c.await_parked(1);
    c.advance(1s);
    timed.join();
    CHECK(c.parked() == 0);

    std::thread a = wait_until(mailroom::clock::never);
    std::thread b = wait_until(1h);
    c.await_parked(2);
    word = 1;
    c.unpark(word);
    a.join();
    b.join();
    CHECK(c.parked() == 0);
}

TEST_CASE("manual_clock: who has been woken is not counted as blocked, before it has had a chance to run") {
    for (int i = 0; i < 100; ++i) {
        manual_clock c;
        std::atomic<std::uint32_t> word{0};
        std::thread sleeper([&] { c.park(word, 0, 1s); });
        c.await_parked(1);
        c.advance(1s);
        const std::size_t still = c.parked();
        sleeper.join();
        REQUIRE(still == 0);
    }
}
