// Turns: handlers on an executor. A turn that was asked for takes one of `slots_` until its handler is done.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/consuming/detail/engine_class.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace mailroom::detail {

/// Destroyed without having run, the executor is gone: so is the consumer.
template <class T>
struct engine<T>::ticket {
    explicit ticket(std::shared_ptr<engine> e) noexcept : self(std::move(e)) {}
    ticket(const ticket&) = delete;
    ticket& operator=(const ticket&) = delete;
    ~ticket() {
        if (!begun.load(std::memory_order_relaxed)) { self->abandoned(); }
    }
    void run() noexcept {
        if (begun.exchange(true, std::memory_order_acq_rel)) { return; }
        const bool on_the_spot = posting.load(std::memory_order_relaxed) && poster == std::this_thread::get_id();
        const bool more = self->take_turn();
        if (on_the_spot) {
            again = more; // the loop of `drive` goes on: no recursion
        } else if (more) {
            self->drive();
        }
    }

    const std::shared_ptr<engine> self;
    const std::thread::id poster = std::this_thread::get_id();
    std::atomic<bool> posting{true};
    std::atomic<bool> begun{false};
    bool again = false; // used by the poster alone
};

template <class T>
void engine<T>::drive() noexcept {
    for (bool again = true; again;) {
        std::shared_ptr<const executor> where;
        {
            const std::lock_guard lock(mutex_);
            where = executor_;
            if (where == nullptr) { // stopped meanwhile
                --slots_;
                return;
            }
        }
        std::shared_ptr<ticket> t;
        try {
            t = std::make_shared<ticket>(this->shared_from_this());
            (*where)([t] { t->run(); });
        } catch (...) {
            if (t == nullptr || !t->begun.exchange(true, std::memory_order_acq_rel)) {
                refused(std::current_exception());
                return;
            }
        }
        t->posting.store(false, std::memory_order_relaxed);
        again = t->again;
    }
}

template <class T>
bool engine<T>::take_turn() noexcept {
    lock_type lock(mutex_);
    bool spun = false;
    work(lock, spun);
    if (stopping_.load(std::memory_order_relaxed)) { given_up(lock); }
    --slots_;
    return delegate();
}

template <class T>
void engine<T>::abandoned() noexcept {
    {
        const std::lock_guard lock(mutex_);
        --slots_;
    }
    stop();
}

template <class T>
void engine<T>::refused(const std::exception_ptr& why) noexcept {
    lock_type lock(mutex_);
    --slots_;
    if (stopping_.load(std::memory_order_relaxed)) { return; }
    again_at_ = clock_.now() + executor_pause;
    arm(again_at_);
    activity here(present_, true);
    lock.unlock();
    report(why);
    lock.lock();
    here.end();
}

} // namespace mailroom::detail
