#include <mailroom/store/gate.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

using mailroom::detail::gate;
using mailroom::detail::look;
using mailroom::detail::waited;
using namespace std::chrono_literals;

namespace {

// The system's clock without patience: whoever waits goes to sleep at once, so that each message meets somebody who falls asleep.
class sleepy_clock final : public mailroom::clock {
public:
    mailroom::duration now() const noexcept override { return mailroom::system_clock().now(); }
    mailroom::duration coarse() const noexcept override { return mailroom::system_clock().coarse(); }
    mailroom::time_point wall() const noexcept override { return mailroom::system_clock().wall(); }
    void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, mailroom::duration deadline) noexcept override {
        mailroom::system_clock().park(word, expected, deadline);
    }
    void unpark(std::atomic<std::uint32_t>& word) noexcept override { mailroom::system_clock().unpark(word); }
    void relax(unsigned round) noexcept override { mailroom::system_clock().relax(round); }
};

// The smallest lane: how many messages are there. Anybody may put, anybody may take; of at most `room`.
class counting_lane {
public:
    explicit counting_lane(int room) : room_(room) {}

    look put() { return move(1); }
    look take() { return move(-1); }

private:
    look move(int by) {
        int count = count_.load(std::memory_order_relaxed);
        while (count + by >= 0 && count + by <= room_) {
            if (count_.compare_exchange_weak(count, count + by, std::memory_order_relaxed)) { return look::done; }
        }
        return look::nothing;
    }

    const int room_;
    std::atomic<int> count_{0};
};

// The same for one sender and one receiver, with plain stores: no locked instruction orders what the barriers have to.
class pair_lane {
public:
    explicit pair_lane(int room) : room_(room) {}

    look put() {
        const int next = put_.load(std::memory_order_relaxed) + 1;
        if (next - taken_.load(std::memory_order_acquire) > room_) { return look::nothing; }
        put_.store(next, std::memory_order_release);
        return look::done;
    }
    look take() {
        const int next = taken_.load(std::memory_order_relaxed) + 1;
        if (next > put_.load(std::memory_order_acquire)) { return look::nothing; }
        taken_.store(next, std::memory_order_release);
        return look::done;
    }

private:
    const int room_;
    alignas(64) std::atomic<int> put_{0};
    alignas(64) std::atomic<int> taken_{0};
};

// Senders and receivers hand `each` messages a sender through a lane so small that all of them fall asleep all the time. Ends, if no wake
// is lost.
template <class Lane>
void hand_over(gate& door, int senders, int receivers, int each, int room) {
    Lane lane(room);
    std::atomic<int> taken{0};
    std::vector<std::thread> threads;
    for (int s = 0; s < senders; ++s) {
        threads.emplace_back([&] {
            for (int i = 0; i < each; ++i) {
                if (lane.put() != look::done) {
                    door.wait_for_room(0, mailroom::clock::never, mailroom::stop_token(), [&] { return lane.put(); });
                }
                door.after_put();
            }
        });
    }
    for (int r = 0; r < receivers; ++r) {
        threads.emplace_back([&] {
            for (int i = 0; i < each * senders / receivers; ++i) {
                if (lane.take() != look::done) {
                    door.wait_for_message(mailroom::clock::never, mailroom::stop_token(), [&] { return lane.take(); });
                }
                door.after_take();
                taken.fetch_add(1, std::memory_order_relaxed);
            }
        });
    }
    for (auto& thread : threads) { thread.join(); }
    CHECK(taken == senders * each);
}

} // namespace

TEST_CASE("gate: no wake is lost, whoever falls asleep") {
    sleepy_clock clock;
    for (const bool asymmetric : {true, false}) {
        if (asymmetric && !mailroom::detail::has_heavy_barrier()) { continue; }
        CAPTURE(asymmetric);
        gate door(&clock, asymmetric);
        hand_over<pair_lane>(door, 1, 1, 4000, 1);
        hand_over<pair_lane>(door, 1, 1, 4000, 4);
        hand_over<counting_lane>(door, 2, 2, 1000, 1);
        hand_over<counting_lane>(door, 3, 1, 1000, 2);
        hand_over<counting_lane>(door, 1, 3, 3000, 3);
    }
}

TEST_CASE("gate: with the patience of the system's clock") {
    gate door(nullptr);
    hand_over<pair_lane>(door, 1, 1, 10'000, 1);
    hand_over<counting_lane>(door, 2, 2, 2000, 2);
}

TEST_CASE("gate: a wait ends at its deadline, in the time of its clock") {
    mailroom::testing::manual_clock clock;
    gate door(&clock);
    waited end = waited::done;
    std::thread waiting([&] { end = door.wait_for_message(clock.now() + 1h, {}, [] { return look::nothing; }); });
    clock.await_parked(1);
    clock.advance(59min);
    clock.await_parked(1);
    clock.advance(1min);
    waiting.join();
    CHECK(end == waited::timed_out);
}

TEST_CASE("gate: a wait ends when it is stopped, or when the gate is closed") {
    mailroom::testing::manual_clock clock;
    gate door(&clock);
    mailroom::stop_source source;
    waited stopped = waited::done, closed = waited::done, closed_sender = waited::done;
    std::thread a([&] { stopped = door.wait_for_message(mailroom::clock::never, source.get_token(), [] { return look::nothing; }); });
    clock.await_parked(1);
    source.request_stop();
    a.join();
    CHECK(stopped == waited::stopped);

    const auto until_closed = [&] { return door.closed() ? look::closed : look::nothing; };
    std::thread b([&] { closed = door.wait_for_message(mailroom::clock::never, {}, until_closed); });
    std::thread c([&] { closed_sender = door.wait_for_room(0, mailroom::clock::never, {}, until_closed); });
    clock.await_parked(2);
    CHECK(!door.closed());
    door.close();
    b.join();
    c.join();
    CHECK(closed == waited::closed);
    CHECK(closed_sender == waited::closed);
    CHECK(door.closed());
}

TEST_CASE("gate: who is unsure looks again and does not sleep") {
    mailroom::testing::manual_clock clock; // nobody would wake it
    gate door(&clock);
    int looks = 0;
    CHECK(door.wait_for_message(mailroom::clock::never, {}, [&] { return ++looks < 100 ? look::unsure : look::done; }) == waited::done);
    CHECK(looks == 100);
}

TEST_CASE("gate: a look that throws leaves, and leaves nothing behind") {
    mailroom::testing::manual_clock clock;
    gate door(&clock);
    CHECK_THROWS_AS(door.wait_for_message(mailroom::clock::never, {}, []() -> look { throw std::runtime_error("no"); }), std::runtime_error);
    door.after_put(); // would wake a waiter that is gone, if its node were still there
    door.close();
}

TEST_CASE("gate: who is woken and leaves without looking wakes another in his place") {
    mailroom::testing::manual_clock clock;
    for (int round = 0; round < 300; ++round) {
        gate door(&clock);
        std::atomic<int> messages{0};
        const auto take = [&] {
            int there = messages.load(std::memory_order_relaxed);
            while (there > 0) {
                if (messages.compare_exchange_weak(there, there - 1)) { return look::done; }
            }
            return look::nothing;
        };
        mailroom::stop_source source;
        waited stoppable = waited::closed;
        std::thread first([&] { stoppable = door.wait_for_message(mailroom::clock::never, source.get_token(), take); });
        clock.await_parked(1);
        std::thread second([&] { door.wait_for_message(mailroom::clock::never, {}, take); });
        clock.await_parked(2);
        // The first in the list is woken and stopped at the same moment: whatever it does, the message is taken.
        std::thread stopping([&] { source.request_stop(); });
        messages.fetch_add(1, std::memory_order_relaxed);
        door.after_put();
        stopping.join();
        first.join();
        if (stoppable == waited::done) {
            messages.fetch_add(1, std::memory_order_relaxed);
            door.after_put();
        }
        second.join();
        CHECK(messages == 0);
    }
}
