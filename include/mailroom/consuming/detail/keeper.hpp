// The keeper: one thread of the engine that waits for instants. It renews leases, notices what becomes due by time alone, opens the gate of
// the rate limit, adds a worker where a sender found all of them busy, and looks at instants of others (base/alarms.hpp).
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/consuming/detail/engine_class.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace mailroom::detail {

template <class T>
void engine<T>::arm(duration instant) noexcept {
    if (instant >= plan_ || !keeper_is_there()) { return; }
    plan_ = instant;
    poke();
}

template <class T>
void engine<T>::alarm_at(duration instant) noexcept {
    const std::lock_guard lock(mutex_);
    if (stopping_.load(std::memory_order_relaxed)) { return; }
    alarm_at_ = std::min(alarm_at_, instant);
    arm(instant);
}

template <class T>
bool engine<T>::keeper_is_there() noexcept {
    if (!keeper_.joinable() && !stopping_.load(std::memory_order_relaxed)) {
        try {
            keeper_ = std::thread([self = this->shared_from_this()] { self->keep(); });
        } catch (...) { // tried again when next needed
        }
    }
    return keeper_.joinable();
}

template <class T>
void engine<T>::keep() noexcept {
    lock_type lock(mutex_);
    while (!stopping_.load(std::memory_order_relaxed)) {
        plan_ = duration::min(); // whatever is armed while we work is looked at below
        const duration now = clock_.now();
        if (tick_at_ <= now) { renew(lock, now); }
        bool go = false;
        if (pace_at_ <= now || again_at_ <= now) {
            if (again_at_ <= now) { trouble_ = false; }
            pace_at_ = again_at_ = clock::never;
            go = delegate();
        }
        if (grow_) {
            grow_ = false;
            recruit();
        }
        if (go) {
            lock.unlock();
            drive();
            lock.lock();
        }
        duration due = source_->next_due();
        if (due <= now) {
            activity here(present_, false);
            lock.unlock();
            source_->catch_up();
            lock.lock();
            here.end();
            due = source_->next_due();
            if (due <= now) { due = now + shortest_pause; }
        }
        if (alarm_at_ <= now) {
            alarm_at_ = clock::never;
            activity here(present_, false);
            lock.unlock();
            const duration next = alarms().ring(clock_, now);
            lock.lock();
            here.end();
            alarm_at_ = std::min(alarm_at_, next);
        }
        if (stopping_.load(std::memory_order_relaxed)) { break; }
        if (grow_) { continue; }
        const duration plan = plan_ = std::min({tick_at_, pace_at_, again_at_, alarm_at_, due});
        const std::uint32_t seen = call_.load(std::memory_order_relaxed);
        lock.unlock();
        clock_.park(call_, seen, plan);
        lock.lock();
    }
}

template <class T>
void engine<T>::begin_renewing() noexcept {
    if (lease_ <= duration::zero() || tick_at_ != clock::never) { return; }
    tick_at_ = clock_.now() + std::max<duration>(lease_ / 3, std::chrono::microseconds(100));
    arm(tick_at_);
}

template <class T>
void engine<T>::renew(lock_type& lock, duration now) noexcept {
    tick_at_ = clock::never;
    held_list<T> stale; // taken so long ago that the handlers in front of them must be stuck: somebody else may have them
    std::vector<held_term> terms;
    for (held<T>* h = taken_.first(); h != nullptr;) {
        held<T>* const next = h->next;
        if (now - h->since() >= std::max(processing_limit_, lease_)) { stale.push(*taken_.remove(*h)); }
        h = next;
    }
    note_taken();
    try {
        terms.reserve(taken_.size() + running_.size());
        held_term t;
        for (const held<T>* h = taken_.first(); h != nullptr; h = h->next) {
            if (h->read(t)) { terms.push_back(t); }
        }
        for (const held<T>* h = running_.first(); h != nullptr; h = h->next) {
            if (h->read(t) && now - t.since < processing_limit_) { terms.push_back(t); }
        }
    } catch (...) { // two thirds of the leases are left
    }
    if (taken_.first() != nullptr || running_.first() != nullptr) { begin_renewing(); }
    activity here(present_, false);
    lock.unlock();
    for (const held_term& t : terms) { source_->renew(t.place, t.partition, t.attempt, lease_); }
    lock.lock();
    give_back(lock, stale);
    here.end();
}

} // namespace mailroom::detail
