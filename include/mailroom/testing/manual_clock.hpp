// Time that stands still until it is told to move.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace mailroom::testing {

/// A clock that moves only by `advance`. Give its address to the options of endpoints; it must outlive them. Thread-safe.
/// Blocked calls of those endpoints wait in its time: `receive_for(1h)` returns when an hour was advanced.
class manual_clock final : public clock {
public:
    manual_clock() = default;
    /// Starts at `start`; the wall clock then shows 2020-01-01 00:00 UTC plus that.
    explicit manual_clock(duration start) noexcept : now_(start.count()) {}
    ~manual_clock() = default;

    /// Moves time and runs everything that became due: delays, leases, retries, expiries, waits.
    void advance(duration by) {
        std::vector<timed*> driven;
        {
            const std::lock_guard lock(mutex_);
            now_.fetch_add(by.count(), std::memory_order_seq_cst);
            ++turn_;
            driven = endpoints_;
        }
        moved_.notify_all();
        for (timed* const endpoint : driven) {
            const std::lock_guard lock(stepping_); // an endpoint that is being detached waits until it is stepped no more
            if (is_attached(endpoint)) { endpoint->step(); }
        }
    }

    /// How many threads are blocked in endpoints that use this clock. One that has been woken is not, though it may not have run yet.
    std::size_t parked() const {
        const std::lock_guard lock(mutex_);
        return count_parked();
    }
    /// Waits, in real time and without limit, until at least `threads` are blocked: then `advance` finds them.
    void await_parked(std::size_t threads) const {
        std::unique_lock lock(mutex_);
        moved_.wait(lock, [&] { return count_parked() >= threads; });
    }

    duration now() const noexcept override { return duration(now_.load(std::memory_order_seq_cst)); }
    duration coarse() const noexcept override { return now(); }
    time_point wall() const noexcept override {
        constexpr std::chrono::sys_days epoch = std::chrono::year(2020) / 1 / 1;
        return time_point(epoch) + std::chrono::duration_cast<time_point::duration>(now());
    }
    void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, duration deadline) noexcept override {
        std::unique_lock lock(mutex_);
        if (word.load(std::memory_order_acquire) != expected || now() >= deadline) { return; }
        parked_thread self{&word, expected, turn_, first_parked_};
        first_parked_ = &self;
        moved_.notify_all();
        moved_.wait(lock, [&] { return !is_blocked(self); });
        parked_thread** link = &first_parked_;
        while (*link != &self) { link = &(*link)->next; }
        *link = self.next;
    }
    void unpark(std::atomic<std::uint32_t>&) noexcept override {
        { const std::lock_guard lock(mutex_); }
        moved_.notify_all();
    }
    void relax(unsigned) noexcept override { std::this_thread::yield(); }

    void attach(timed& endpoint) override {
        const std::lock_guard lock(mutex_);
        endpoints_.push_back(&endpoint);
    }
    void detach(timed& endpoint) noexcept override {
        {
            const std::lock_guard lock(mutex_);
            endpoints_.erase(std::remove(endpoints_.begin(), endpoints_.end(), &endpoint), endpoints_.end());
        }
        const std::lock_guard wait(stepping_); // until `advance`, in another thread, is done with it
    }

private:
    struct parked_thread {
        const std::atomic<std::uint32_t>* word;
        std::uint32_t expected;
        std::uint64_t turn; // of the clock when it came
        parked_thread* next;
    };
    bool is_blocked(const parked_thread& t) const noexcept { return t.turn == turn_ && t.word->load(std::memory_order_acquire) == t.expected; }
    std::size_t count_parked() const noexcept {
        std::size_t n = 0;
        for (const parked_thread* t = first_parked_; t != nullptr; t = t->next) { n += is_blocked(*t) ? 1 : 0; }
        return n;
    }
    bool is_attached(timed* endpoint) const {
        const std::lock_guard lock(mutex_);
        return std::find(endpoints_.begin(), endpoints_.end(), endpoint) != endpoints_.end();
    }

    std::atomic<std::int64_t> now_{0};
    mutable std::mutex mutex_;
    mutable std::condition_variable moved_;
    std::recursive_mutex stepping_;
    std::vector<timed*> endpoints_;
    std::uint64_t turn_ = 0;
    parked_thread* first_parked_ = nullptr;
};

} // namespace mailroom::testing
