// engine: takes messages from a source and has a handler called for each, on threads of its own or on an executor's.
//
// States of a message here: taken (prefetched, unstarted) -> running (in a handler) -> settled. What is taken when the consumer stops is
// released. What a manual handler has moved elsewhere is given: only `drain` asks for it (consuming/custody.hpp).
// States of a consumer: taking -> stopping (takes no more; handlers finish) -> quiet -> nothing is given. There is no way back.
//
// Threads. `threads()` run handlers: min of them always, up to max while there is more to do than they can start, fewer again when fewer
// were busy for some seconds. One more, the keeper, is started when there is first an instant to wait for (`arm`), or when all are busy and
// another may have to be added (`delegate`); it stays until the stop. It renews leases, notices what becomes due by time alone, and opens the
// gate of the rate limit; `threads()` does not count it. With an executor it is the only thread, if there is one. It never runs a handler,
// unless the executor runs what it is given on the spot. All wait through the source's clock.
//
// Invariants (all fields are guarded by `mutex_` unless said otherwise)
//   1. A node is in exactly one list: spare, taken, running. Taken + running + about to be taken <= capacity.
//   2. The library's mutex is never held while anything foreign runs: handler, executor, on_error, settling, taking, renewing (these may wake,
//      and a wake may run somebody's coroutine). Lock order: `mutex_`, then a source's wait list or a clock's own; nothing else below it.
//   3. Somebody watches: as long as another handler could be started at once, either a worker waits in the source's list, or the consumer
//      itself does (as the `scout`: a callback that recruits), or the keeper is to look at the instant the rate limit allows.
//   4. A source wakes one waiter for each message. Who is woken owes a look into the source: `owed_` is set until somebody has taken from it,
//      or, where nothing may be taken any more, has passed the wake on by taking one message and releasing it.
//   5. `present_` knows who is inside a handler or inside the source for this consumer. Quiet is when nobody is but the thread that asks: so a
//      consumer that is stopped, drained or destroyed in its own handler does not wait for itself. Threads, tasks and the scout hold a shared
//      pointer to the engine; a thread destroyed from within is detached, holds the last of them, and ends when its handler returns.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consuming/detail/crew.hpp>
#include <mailroom/consuming/detail/engine_class.hpp>
#include <mailroom/consuming/detail/keeper.hpp>
#include <mailroom/consuming/detail/staying.hpp>
#include <mailroom/consuming/detail/turns.hpp>
#include <mailroom/consuming/held.hpp>
#include <mailroom/message/delivery.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

namespace mailroom::detail {

// --------------------------------------------------------------------------------------------------------------- the beginning and the end

template <class T>
void engine<T>::start() {
    if (by_executor_) {
        bool go = false;
        {
            const std::lock_guard lock(mutex_);
            go = delegate();
        }
        if (go) { drive(); }
        return;
    }
    alarms().come(*this, clock_);
    try {
        const std::lock_guard lock(mutex_);
        for (int i = 0; i < least_; ++i) { add_worker(); }
    } catch (...) {
        finish();
        throw;
    }
}

template <class T>
void engine<T>::stop() noexcept {
    std::shared_ptr<const executor> given;
    std::shared_ptr<engine> scout; // may not be let go of under the mutex it contains
    std::unique_lock lock(mutex_);
    if (stopping_.load(std::memory_order_relaxed)) { return; }
    stopping_.store(true, std::memory_order_release);
    activity here(present_, false);
    given = std::move(executor_);
    if (scouting_ && source_->leave(*this)) {
        scouting_ = false;
        scout = std::move(keep_);
    }
    for (const auto& w : crew_) { rouse(*w); }
    poke();
    held_list<T> rest;
    while (held<T>* const h = taken_.first()) { rest.push(*taken_.remove(*h)); }
    note_taken();
    give_back(lock, rest);
    given_up(lock);
    here.end();
    lock.unlock();
    alarms().go(*this);
}

template <class T>
bool engine<T>::drain(duration limit) noexcept {
    stop();
    const duration deadline = deadline_after(clock_, limit);
    {
        lock_type lock(mutex_);
        if (present_.is_in_handler() || !present_.wait_for_others(lock, deadline)) { return false; }
    }
    return given_.wait(deadline); // nothing is given to handlers any more
}

template <class T>
void engine<T>::finish() noexcept {
    stop();
    alarms().go(*this);
    std::unique_lock lock(mutex_);
    present_.wait_for_others(lock, clock::never);
    // Nothing starts a thread any more.
    for (std::thread t = next_thread(); t.joinable(); t = next_thread()) {
        lock.unlock();
        if (t.get_id() == std::this_thread::get_id()) {
            t.detach(); // its handler, or what it woke, has destroyed us: it holds the engine until it returns
        } else {
            t.join();
        }
        lock.lock();
    }
    const bool is_own = present_.is_in_handler();
    lock.unlock();
    if (!is_own) { drop_handler(); }
}

template <class T>
std::thread engine<T>::next_thread() noexcept {
    if (keeper_.joinable()) { return std::move(keeper_); }
    for (const auto& w : crew_) {
        if (w->thread.joinable()) { return std::move(w->thread); }
    }
    return std::thread();
}

// ---------------------------------------------------------------------------------------------------------------------------------- taking

template <class T>
held<T>* engine<T>::startable() const noexcept {
    held<T>* h = taken_.first();
    if (per_key_ == 0) { return h; }
    for (; h != nullptr; h = h->next) {
        if (h->key == 0) { return h; }
        std::size_t same = 0;
        for (const held<T>* r = running_.first(); r != nullptr; r = r->next) { same += r->key == h->key ? 1u : 0u; }
        if (same < per_key_) { return h; }
    }
    return nullptr;
}

template <class T>
void engine<T>::fetch(lock_type& lock) noexcept {
    const std::size_t have = capacity_ - room();
    std::size_t n = have < ahead_ ? std::min(ahead_ - have, room()) : 1;
    owed_ = false;
    std::vector<delivery<T>> batch;
    try {
        batch = std::move(batch_);
        batch.clear();
        while (spare_.size() < coming_ + n) { spare_.push(*new held<T>()); }
        batch.reserve(n);
    } catch (...) { // with less memory fewer at a time
        n = std::min(spare_.size() > coming_ ? spare_.size() - coming_ : 0, batch.capacity());
    }
    trouble_ = n == 0;
    if (trouble_) { return; }
    coming_ += n;
    activity here(present_, false);
    lock.unlock();
    bool failed = false;
    try {
        source_->take_some(batch, n, duration::min(), stop_token());
    } catch (...) { // no memory; what is in the queue stays there
        failed = batch.empty();
    }
    lock.lock();
    coming_ -= n;
    trouble_ = failed;
    held_list<T> late;
    const bool stopped = stopping_.load(std::memory_order_relaxed);
    const duration now = clock_.coarse();
    for (delivery<T>& d : batch) {
        held<T>& h = *spare_.remove(*spare_.first());
        h.adopt(std::move(d), now, per_key_ != 0);
        (stopped ? late : taken_).push(h);
    }
    note_taken();
    batch.clear();
    batch_ = std::move(batch);
    if (taken_.first() != nullptr) { begin_renewing(); }
    give_back(lock, late);
    here.end();
}

template <class T>
void engine<T>::give_back(lock_type& lock, held_list<T>& list) noexcept {
    if (list.first() == nullptr) { return; }
    lock.unlock();
    for (held<T>* h = list.first(); h != nullptr; h = h->next) {
        h->message->release();
        h->message.reset();
    }
    lock.lock();
    while (held<T>* const h = list.first()) { spare_.push(*list.remove(*h)); }
}

template <class T>
void engine<T>::pass_on(lock_type& lock) noexcept {
    owed_ = false;
    activity here(present_, false);
    lock.unlock();
    try {
        if (auto d = source_->take_one()) { d->release(); }
    } catch (...) { // no memory to receive with: nobody else could either
    }
    lock.lock();
    here.end();
}

// -------------------------------------------------------------------------------------------------------------------------------- handlers

template <class T>
bool engine<T>::work(lock_type& lock, bool& spun) noexcept {
    for (bool looked = false;;) {
        if (stopping_.load(std::memory_order_relaxed)) { return false; }
        if (is_paced()) {
            given_up(lock);
            return false;
        }
        if (owed_ && room() == 0) { pass_on(lock); }
        if (!owed_) {
            if (held<T>* const h = startable()) {
                run(lock, *h, spun);
                return true;
            }
        }
        if (looked || room() == 0) { return false; }
        looked = true;
        fetch(lock);
    }
}

template <class T>
inline void engine<T>::serve(held<T>& h) noexcept {
    std::exception_ptr thrown;
    try {
        handle(h.message);
    } catch (...) {
        thrown = std::current_exception();
        if (h.message) { h.message->nack(); }
    }
    h.message.reset();
    if (thrown != nullptr) {
        report(thrown);
        thrown = nullptr;
    }
}

template <class T>
void engine<T>::run(lock_type& lock, held<T>& h, bool& spun) noexcept {
    running_.push(*taken_.remove(h));
    note_taken();
    h.begin_handler(clock_.coarse());
    if (pace_.on()) { pace_.started(clock_.now()); }
    most_busy_ = std::max(most_busy_, running_.size());
    activity here(present_, true);
    const bool another = delegate();
    lock.unlock();
    if (another) { drive(); }
    serve(h);
    spun = false;
    if (stays_) [[unlikely]] {
        stay(h);
        spun = true;
    }
    lock.lock();
    spare_.push(*running_.remove(h));
    here.end();
}

template <class T>
void engine<T>::report(const std::exception_ptr& what) noexcept {
    try {
        if (on_error_) { on_error_(what); }
    } catch (...) { // nobody is left to tell
    }
}

template <class T>
bool engine<T>::delegate() noexcept {
    for (;;) {
        if (stopping_.load(std::memory_order_relaxed)) { return false; }
        if (by_executor_ ? slots_ >= most_ : idle_ == 0 && !spinning_ && workers_.load(std::memory_order_relaxed) >= most_) { return false; }
        if (is_paced()) {
            arm_pace();
            return false;
        }
        if (startable() != nullptr) { return recruit(); }
        if (room() == 0) { return false; } // who makes room goes on
        if (trouble_) {
            again_at_ = clock_.now() + executor_pause;
            arm(again_at_);
            return false;
        }
        if (source_->may_have()) { return recruit(); }
        if (watchers_ != 0 || scouting_) { return false; }
        if (!by_executor_ && !keeper_is_there()) { return false; } // nobody could answer the scout
        keep_ = this->shared_from_this();
        scouting_ = true;
        source_->join(*this);
        if (!source_->may_have()) {
            arm(source_->next_due());
            return false;
        }
        if (!recall_scout()) { return false; }
    }
}

template <class T>
bool engine<T>::recall_scout() noexcept {
    if (!source_->leave(*this)) { return false; } // it is being woken
    scouting_ = false;
    keep_.reset(); // never the last: who calls holds one
    return true;
}

template <class T>
void engine<T>::scouted(waiter& w) noexcept {
    auto& e = static_cast<engine&>(w);
    std::shared_ptr<engine> self;
    lock_type lock(e.mutex_);
    self = std::move(e.keep_);
    e.scouting_ = false;
    e.owed_ = true;
    bool go = false;
    if (e.stopping_.load(std::memory_order_relaxed)) {
        e.given_up(lock);
    } else if (e.by_executor_) {
        go = e.recruit();
        if (!go) { e.given_up(lock); }
    } else if (e.idle_ != 0 || e.spinning_) {
        e.recruit();
    } else if (e.workers_.load(std::memory_order_relaxed) < e.most_) {
        e.grow_ = true; // a sender shall not pay for a thread
        e.poke();
    } else {
        e.given_up(lock);
    }
    lock.unlock();
    if (go) { e.drive(); }
}

template <class T>
bool engine<T>::recruit() noexcept {
    if (by_executor_) {
        if (slots_ >= most_) { return false; }
        ++slots_;
        return true;
    }
    if (spinning_) {
        nudged_.store(true, std::memory_order_relaxed);
        return false;
    }
    for (const auto& w : crew_) {
        if (w->asleep != nullptr) {
            rouse(*w);
            return false;
        }
    }
    const int have = workers_.load(std::memory_order_relaxed);
    if (have < most_ && running_.size() >= static_cast<std::size_t>(have)) { // else one is on its way
        try {
            add_worker();
        } catch (...) { // fewer threads, then
        }
    }
    return false;
}

} // namespace mailroom::detail
