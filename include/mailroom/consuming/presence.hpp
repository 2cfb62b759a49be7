// presence: who is inside a consumer at the moment, and waiting until the others have left.
//
// Threads: every member is called under one mutex, the engine's, which `wait_for_others` lets go of while it waits.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace mailroom::detail {

class presence {
public:
    explicit presence(clock& c) noexcept : clock_(c) {}
    presence(const presence&) = delete;
    presence& operator=(const presence&) = delete;

    /// Somebody inside a handler or the source. Lives on the stack of its thread; begins and ends under the mutex.
    class activity {
    public:
        activity(presence& p, bool in_handler) noexcept : present_(p), in_handler_(in_handler), next_(p.first_) {
            if (next_ != nullptr) { next_->previous_ = this; }
            p.first_ = this;
        }
        activity(const activity&) = delete;
        activity& operator=(const activity&) = delete;
        void end() noexcept {
            (previous_ != nullptr ? previous_->next_ : present_.first_) = next_;
            if (next_ != nullptr) { next_->previous_ = previous_; }
            if (present_.asking_ != 0) {
                present_.left_.fetch_add(1, std::memory_order_release);
                present_.clock_.unpark(present_.left_);
            }
        }

    private:
        friend class presence;
        bool is_here() const noexcept { return thread_ == std::this_thread::get_id(); }

        presence& present_;
        const std::thread::id thread_ = std::this_thread::get_id();
        const bool in_handler_;
        activity* previous_ = nullptr;
        activity* next_;
    };

    /// Whether this thread is inside a handler of ours.
    bool is_in_handler() const noexcept {
        for (const activity* a = first_; a != nullptr; a = a->next_) {
            if (a->in_handler_ && a->is_here()) { return true; }
        }
        return false;
    }
    /// Waits until nobody but this thread is inside. Unlocks meanwhile. False: the deadline came first.
    bool wait_for_others(std::unique_lock<std::mutex>& lock, duration deadline) noexcept {
        for (;;) {
            const activity* other = first_;
            while (other != nullptr && other->is_here()) { other = other->next_; }
            if (other == nullptr) { return true; }
            if (deadline != clock::never && clock_.now() >= deadline) { return false; }
            const std::uint32_t seen = left_.load(std::memory_order_relaxed);
            ++asking_;
            lock.unlock();
            clock_.park(left_, seen, deadline);
            lock.lock();
            --asking_;
        }
    }

private:
    clock& clock_;
    activity* first_ = nullptr;
    int asking_ = 0;
    std::atomic<std::uint32_t> left_{0}; // changes when somebody leaves while somebody asks
};

} // namespace mailroom::detail
