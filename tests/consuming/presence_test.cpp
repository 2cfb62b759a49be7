#include <mailroom/consuming/presence.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

using mailroom::detail::presence;

TEST_CASE("presence: who is inside does not wait for himself") {
    mailroom::testing::manual_clock clock;
    presence p(clock);
    std::mutex mutex;
    std::unique_lock lock(mutex);
    CHECK(p.wait_for_others(lock, mailroom::clock::never));
    presence::activity in_source(p, false);
    CHECK_FALSE(p.is_in_handler());
    {
        presence::activity in_handler(p, true);
        CHECK(p.is_in_handler());
        CHECK(p.wait_for_others(lock, mailroom::clock::never));
        in_handler.end();
    }
    CHECK_FALSE(p.is_in_handler());
    in_source.end();
}

TEST_CASE("presence: others are waited for until they leave, or until the time is up") {
    mailroom::testing::manual_clock clock;
    presence p(clock);
    std::mutex mutex;
    std::atomic<bool> inside{false}, leave{false};
    std::thread other([&] {
        std::unique_lock lock(mutex);
        presence::activity here(p, true);
        lock.unlock();
        inside = true;
        while (!leave) { std::this_thread::yield(); }
        lock.lock();
        here.end();
    });
    while (!inside) { std::this_thread::yield(); }
    std::unique_lock lock(mutex);
    CHECK_FALSE(p.is_in_handler()); // that is another thread
    CHECK_FALSE(p.wait_for_others(lock, clock.now()));
    leave = true;
    CHECK(p.wait_for_others(lock, mailroom::clock::never));
    lock.unlock();
    other.join();
}
