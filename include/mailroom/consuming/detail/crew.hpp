// The crew: the engine's own threads that run handlers. How one waits, and how many there are.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consuming/detail/engine_class.hpp>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

namespace mailroom::detail {

template <class T>
void engine<T>::rouse(worker& w) noexcept {
    if (w.asleep != nullptr) { w.asleep->interrupt(); }
    w.asleep = nullptr;
}

template <class T>
void engine<T>::add_worker() {
    crew_.erase(std::remove_if(crew_.begin(), crew_.end(),
                               [](const std::unique_ptr<worker>& w) {
                                   if (w->exited) { w->thread.join(); } // at once: it is past its last look at the mutex
                                   return w->exited;
                               }),
                crew_.end());
    crew_.push_back(std::make_unique<worker>());
    worker& w = *crew_.back();
    try {
        w.thread = std::thread([self = this->shared_from_this(), &w] { self->labour(w); });
    } catch (...) {
        crew_.pop_back();
        throw;
    }
    if (workers_.fetch_add(1, std::memory_order_relaxed) == least_) { open_window(); }
}

template <class T>
void engine<T>::labour(worker& self) noexcept {
    lock_type lock(mutex_);
    bool spun = false;
    while (!stopping_.load(std::memory_order_relaxed)) {
        if (work(lock, spun)) { continue; }
        if (stopping_.load(std::memory_order_relaxed) || retires()) { break; }
        rest(lock, self, spun);
    }
    given_up(lock);
    workers_.fetch_sub(1, std::memory_order_relaxed);
    delegate(); // it may have been the one who watched
    self.exited = true;
}

template <class T>
void engine<T>::rest(lock_type& lock, worker& self, bool& spun) noexcept {
    const bool paced = is_paced();
    if (paced) { arm_pace(); }
    const bool watch = !paced && room() != 0 && !trouble_;
    if (watch && !spun && !spinning_ && clock_.patience() > duration::zero()) {
        spun = true;
        spin(lock);
        return;
    }
    spun = false;
    thread_waiter nap(clock_);
    duration until = clock::never;
    if (workers_.load(std::memory_order_relaxed) > least_) { until = window_end_; }
    if (trouble_) { until = std::min(until, clock_.now() + executor_pause); }
    ++idle_;
    self.asleep = &nap;
    if (watch) {
        ++watchers_;
        source_->join(nap);
        if (scouting_) { recall_scout(); }
        arm(source_->next_due());
    }
    lock.unlock();
    if (!watch || !source_->may_have()) { nap.park(until); }
    lock.lock();
    self.asleep = nullptr;
    --idle_;
    if (watch) {
        --watchers_;
        if (!source_->leave(nap)) {
            nap.settle();
            owed_ = true;
        }
    }
    trouble_ = false;
}

template <class T>
void engine<T>::spin(lock_type& lock) noexcept {
    spinning_ = true;
    nudged_.store(false, std::memory_order_relaxed);
    ++watchers_;
    lock.unlock();
    bool found = false;
    for (int i = 0; i < 64 && !found; ++i) {
        pause();
        found = source_->glance();
    }
    const duration until = found ? duration::min() : clock_.now() + clock_.patience();
    while (!found && !source_->may_have() && !nudged_.load(std::memory_order_relaxed) && !stopping_.load(std::memory_order_relaxed) &&
           clock_.now() < until) {
        clock_.relax(64);
    }
    lock.lock();
    --watchers_;
    spinning_ = false;
}

template <class T>
bool engine<T>::retires() noexcept {
    const int have = workers_.load(std::memory_order_relaxed);
    if (have <= least_) { return false; }
    if (clock_.now() >= window_end_) {
        surplus_ = have - std::max(least_, static_cast<int>(most_busy_));
        open_window();
    }
    if (surplus_ <= 0) { return false; }
    --surplus_;
    return true;
}

} // namespace mailroom::detail
