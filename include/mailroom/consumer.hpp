// consumer: calls a handler for each message, on threads of its own or on an executor's.
//
// States of a message here: taken (prefetched, unstarted) -> running (in a handler) -> settled. What is taken when the consumer stops is
// released. States of a consumer: taking -> stopping (takes no more; handlers finish) -> quiet. There is no way back.
//
// Threads. `threads()` run handlers: min of them always, up to max while there is more to do than they can start, fewer again when fewer
// were busy for some seconds. One more, the keeper, is started when there is an instant to wait for: it renews leases while everybody works,
// notices what becomes due by time alone, and opens the gate of the rate limit; `threads()` does not count it. With an executor the keeper is
// the only thread. It never runs a handler, unless the executor runs what it is given on the spot. All wait through the source's clock.
//
// Invariants (all fields are guarded by `mutex_` unless said otherwise)
//   1. A node is in exactly one list: spare, taken, running. Taken + running + about to be taken <= capacity.
//   2. The library's mutex is never held while anything foreign runs: handler, executor, on_error, settling, taking, renewing (these may wake,
//      and a wake may run somebody's coroutine). Lock order: `mutex_`, then a source's wait list or a clock's own; nothing else below it.
//   3. Somebody watches: as long as another handler could be started at once, either a worker waits in the source's list, or the consumer
//      itself does (as the `scout`: a callback that recruits), or the keeper is to look at the instant the rate limit allows.
//   4. A source wakes one waiter for each message. Who is woken owes a look into the source: `owed_` is set until somebody has taken from it,
//      or, where nothing may be taken any more, has passed the wake on by taking one message and releasing it.
//   5. `activity`: who is inside a handler or inside the source for this consumer. Quiet is when nobody is but the thread that asks: so a
//      consumer that is stopped, drained or destroyed in its own handler does not wait for itself. Threads, tasks and the scout hold a shared
//      pointer to the engine; a thread destroyed from within is detached, holds the last of them, and ends when its handler returns.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consume_options.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/store/source.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

namespace detail {

/// What a `consumer` asks of its engine.
class consumer_core {
public:
    virtual void stop() noexcept = 0;
    virtual bool drain(duration limit) noexcept = 0;
    virtual bool running() const noexcept = 0;
    virtual int threads() const noexcept = 0;
    /// Stops, and waits for the handlers of other threads and for threads.
    virtual void finish() noexcept = 0;

protected:
    ~consumer_core() = default;
};

struct consumer_access;

} // namespace detail

/// A handler at work. Destroying it takes no more, waits for running handlers, and releases what no handler has started: that goes back to
/// its place, its attempts unchanged. It may outlive its queue (then it idles), not its queue's clock or its executor.
/// Threads: every member may be called from any thread, the handler's own included; destruction and moves as for any object.
class consumer {
public:
    /// One that does nothing.
    consumer() noexcept = default;
    consumer(consumer&&) noexcept = default;
    consumer& operator=(consumer&& other) noexcept {
        if (this != &other) {
            finish();
            core_ = std::move(other.core_);
        }
        return *this;
    }
    /// In its own handler: does not wait for that handler, which runs to its end.
    ~consumer() { finish(); }

    /// Takes no more and releases what no handler has started. Does not wait for running handlers.
    void stop() noexcept {
        if (core_ != nullptr) { core_->stop(); }
    }
    /// Stops, then waits at most `limit` until its handlers are done and all it took is settled or back. True if so; in its own handler:
    /// false at once. A delivery that a handler has moved elsewhere is in its new holder's hands and not waited for.
    bool drain(duration limit) noexcept { return core_ == nullptr || core_->drain(limit); }
    /// Whether it takes messages: neither stopped nor drained.
    bool running() const noexcept { return core_ != nullptr && core_->running(); }
    /// How many threads of its own it has for handlers; with an executor: 0.
    int threads() const noexcept { return core_ != nullptr ? core_->threads() : 0; }

private:
    friend struct detail::consumer_access;
    explicit consumer(std::shared_ptr<detail::consumer_core> core) noexcept : core_(std::move(core)) {}
    void finish() noexcept {
        if (core_ != nullptr) { core_->finish(); }
        core_.reset();
    }

    std::shared_ptr<detail::consumer_core> core_;
};

namespace detail {

struct consumer_access {
    static consumer make(std::shared_ptr<consumer_core> core) noexcept { return consumer(std::move(core)); }
};

/// A message between take and settlement.
template <class T>
struct held {
    std::optional<delivery<T>> message;
    offset place = 0;
    std::uint64_t key = 0;  // hash; 0: none. Two keys of one hash share a limit: stricter, never looser
    duration since{};       // when it was taken, then when its handler began
    std::uint32_t attempt = 0;
    int partition = 0;
    held* previous = nullptr;
    held* next = nullptr;

    void adopt(delivery<T>&& d, duration now, bool keyed) {
        place = d.offset();
        partition = d.partition();
        attempt = d.attempt();
        key = keyed && !d.props().key.empty() ? std::hash<std::string_view>()(d.props().key) | 1 : 0;
        since = now;
        message.emplace(std::move(d));
    }
};

/// A list of them, in order. Owns its nodes.
template <class T>
class held_list {
public:
    held_list() = default;
    held_list(const held_list&) = delete;
    held_list& operator=(const held_list&) = delete;
    ~held_list() {
        while (first_ != nullptr) { delete remove(*first_); }
    }

    held<T>* first() const noexcept { return first_; }
    std::size_t size() const noexcept { return size_; }
    void push(held<T>& h) noexcept {
        h.next = nullptr;
        h.previous = last_;
        (last_ != nullptr ? last_->next : first_) = &h;
        last_ = &h;
        ++size_;
    }
    held<T>* remove(held<T>& h) noexcept {
        (h.previous != nullptr ? h.previous->next : first_) = h.next;
        (h.next != nullptr ? h.next->previous : last_) = h.previous;
        --size_;
        return &h;
    }

private:
    held<T>* first_ = nullptr;
    held<T>* last_ = nullptr;
    std::size_t size_ = 0;
};

/// Everything of a consumer but its handler.
template <class T>
class engine : public consumer_core, public std::enable_shared_from_this<engine<T>>, private waiter {
public:
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    /// Begins. Throws std::system_error if `min` threads cannot be had.
    void start() {
        if (by_executor_) {
            bool go = false;
            {
                const std::lock_guard lock(mutex_);
                go = delegate();
            }
            if (go) { drive(); }
            return;
        }
        try {
            const std::lock_guard lock(mutex_);
            for (int i = 0; i < least_; ++i) { add_worker(); }
        } catch (...) {
            finish();
            throw;
        }
    }

    void stop() noexcept override {
        std::shared_ptr<const executor> given;
        std::shared_ptr<engine> scout; // may not be let go of under the mutex it contains
        std::unique_lock lock(mutex_);
        if (stopping_.load(std::memory_order_relaxed)) { return; }
        stopping_.store(true, std::memory_order_release);
        activity here(*this, false);
        given = std::move(executor_);
        if (scouting_ && source_->leave(*this)) {
            scouting_ = false;
            scout = std::move(keep_);
        }
        for (const auto& w : crew_) { rouse(*w); }
        poke();
        held_list<T> rest;
        while (held<T>* const h = taken_.first()) { rest.push(*taken_.remove(*h)); }
        give_back(lock, rest);
        given_up(lock);
        here.end();
        lock.unlock();
    }

    bool drain(duration limit) noexcept override {
        stop();
        std::unique_lock lock(mutex_);
        if (is_in_handler()) { return false; }
        return wait_quiet(lock, deadline_after(clock_, limit));
    }
    bool running() const noexcept override { return !stopping_.load(std::memory_order_acquire); }
    int threads() const noexcept override { return workers_.load(std::memory_order_relaxed); }

    void finish() noexcept override {
        stop();
        std::unique_lock lock(mutex_);
        wait_quiet(lock, clock::never);
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
        const bool is_own = is_in_handler();
        lock.unlock();
        if (!is_own) { drop_handler(); }
    }

protected:
    engine(source<T>& from, consume_options&& o)
        : waiter(&engine::scouted), source_(from), clock_(from.time()), lease_(from.lease()), least_(o.concurrency.min), most_(o.concurrency.max),
          ahead_(from.has_priorities() || o.max_per_second > 0 ? 1 : o.prefetch),
          capacity_(std::max(from.has_priorities() ? 1 : o.prefetch, static_cast<std::size_t>(o.concurrency.max))), per_key_(o.max_per_key),
          processing_limit_(o.processing_limit), by_executor_(static_cast<bool>(o.executor)), pace_(o.max_per_second) {
        if (by_executor_) { executor_ = std::make_shared<const executor>(std::move(o.executor)); }
        on_error_ = std::move(o.on_error);
    }
    ~engine() = default;

    /// Calls the handler and settles. What it throws is dealt with by the caller.
    virtual void handle(std::optional<delivery<T>>& message) = 0;
    virtual void drop_handler() noexcept { on_error_ = nullptr; }

private:
    static constexpr duration idle_window = std::chrono::seconds(5);
    static constexpr duration executor_pause = std::chrono::milliseconds(100);
    static constexpr duration shortest_pause = std::chrono::milliseconds(10);

    /// Somebody inside a handler or the source. Lives on the stack; begins and ends under the mutex.
    class activity {
    public:
        activity(engine& e, bool in_handler) noexcept : engine_(e), in_handler_(in_handler), next_(e.active_now_) {
            if (next_ != nullptr) { next_->previous_ = this; }
            e.active_now_ = this;
        }
        activity(const activity&) = delete;
        activity& operator=(const activity&) = delete;
        void end() noexcept {
            (previous_ != nullptr ? previous_->next_ : engine_.active_now_) = next_;
            if (next_ != nullptr) { next_->previous_ = previous_; }
            if (engine_.stopping_.load(std::memory_order_relaxed)) {
                engine_.quiet_.fetch_add(1, std::memory_order_release);
                engine_.clock_.unpark(engine_.quiet_);
            }
        }
        bool handles() const noexcept { return in_handler_; }
        bool is_here() const noexcept { return thread_ == std::this_thread::get_id(); }
        const activity* next() const noexcept { return next_; }

    private:
        engine& engine_;
        const std::thread::id thread_ = std::this_thread::get_id();
        const bool in_handler_;
        activity* previous_ = nullptr;
        activity* next_;
    };

    struct worker {
        std::thread thread;
        thread_waiter* asleep = nullptr; // while it may be roused
        bool exited = false;             // it takes the mutex no more
    };

    using lock_type = std::unique_lock<std::mutex>;

    // ------------------------------------------------------------------------------------------------------------------------ taking

    std::size_t room() const noexcept {
        const std::size_t have = taken_.size() + running_.size() + coming_;
        return have < capacity_ ? capacity_ - have : 0;
    }
    /// Whether the rate limit forbids one more, besides those who are about to take one.
    bool is_paced() const noexcept { return pace_.on() && pace_.next(coming_ + 1) > clock_.now(); }
    void arm_pace() noexcept {
        pace_at_ = std::min(pace_at_, pace_.next(coming_ + 1));
        arm(pace_at_);
    }

    /// The first whose handler may start as far as keys are concerned.
    held<T>* startable() const noexcept {
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

    /// Takes what there is, as far as there is room. Unlocks meanwhile.
    void fetch(lock_type& lock) noexcept {
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
        activity here(*this, false);
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
        batch.clear();
        batch_ = std::move(batch);
        if (taken_.first() != nullptr) { begin_renewing(); }
        give_back(lock, late);
        here.end();
    }

    /// Releases each. Unlocks meanwhile.
    void give_back(lock_type& lock, held_list<T>& list) noexcept {
        if (list.first() == nullptr) { return; }
        lock.unlock();
        for (held<T>* h = list.first(); h != nullptr; h = h->next) {
            h->message->release();
            h->message.reset();
        }
        lock.lock();
        while (held<T>* const h = list.first()) { spare_.push(*list.remove(*h)); }
    }

    /// We were woken for a message we may not take: somebody else is to look. Unlocks meanwhile.
    void pass_on(lock_type& lock) noexcept {
        owed_ = false;
        activity here(*this, false);
        lock.unlock();
        try {
            if (auto d = source_->take_one()) { d->release(); }
        } catch (...) { // no memory to receive with: nobody else could either
        }
        lock.lock();
        here.end();
    }
    void given_up(lock_type& lock) noexcept {
        if (owed_) { pass_on(lock); }
    }

    // ---------------------------------------------------------------------------------------------------------------------- handlers

    /// Runs one handler if one may run. Unlocks meanwhile.
    bool work(lock_type& lock) noexcept {
        for (bool looked = false;;) {
            if (stopping_.load(std::memory_order_relaxed)) { return false; }
            if (is_paced()) {
                given_up(lock);
                return false;
            }
            if (owed_ && room() == 0) { pass_on(lock); }
            if (!owed_) {
                if (held<T>* const h = startable()) {
                    run(lock, *h);
                    return true;
                }
            }
            if (looked || room() == 0) { return false; }
            looked = true;
            fetch(lock);
        }
    }

    void run(lock_type& lock, held<T>& h) noexcept {
        running_.push(*taken_.remove(h));
        h.since = clock_.coarse();
        if (pace_.on()) { pace_.started(clock_.now()); }
        most_busy_ = std::max(most_busy_, running_.size());
        activity here(*this, true);
        const bool another = delegate();
        lock.unlock();
        if (another) { drive(); }
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
        lock.lock();
        spare_.push(*running_.remove(h));
        here.end();
    }

    void report(const std::exception_ptr& what) noexcept {
        try {
            if (on_error_) { on_error_(what); }
        } catch (...) { // nobody is left to tell
        }
    }

    /// If another handler can be started, sees to it that somebody does; else that somebody notices when one can be (invariant 3).
    /// True: the caller is to `drive`, once it has let go of the mutex.
    bool delegate() noexcept {
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
    bool recall_scout() noexcept {
        if (!source_->leave(*this)) { return false; } // it is being woken
        scouting_ = false;
        keep_.reset(); // never the last: who calls holds one
        return true;
    }

    /// The wake of the scout: in somebody's send, or in a step of time.
    static void scouted(waiter& w) noexcept {
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

    /// One more to look for work. True: the caller is to `drive` the slot that was taken.
    bool recruit() noexcept {
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

    // ----------------------------------------------------------------------------------------------------------------- threads of our own

    void rouse(worker& w) noexcept {
        if (w.asleep != nullptr) { w.asleep->interrupt(); }
        w.asleep = nullptr;
    }

    void add_worker() {
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

    void labour(worker& self) noexcept {
        lock_type lock(mutex_);
        bool spun = false;
        while (!stopping_.load(std::memory_order_relaxed)) {
            if (work(lock)) {
                spun = false;
                continue;
            }
            if (stopping_.load(std::memory_order_relaxed) || retires()) { break; }
            rest(lock, self, spun);
        }
        given_up(lock);
        workers_.fetch_sub(1, std::memory_order_relaxed);
        delegate(); // it may have been the one who watched
        self.exited = true;
    }

    /// Waits until there may be something to do. Unlocks meanwhile.
    void rest(lock_type& lock, worker& self, bool& spun) noexcept {
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

    /// A short while of looking again before the kernel is asked; one at a time.
    void spin(lock_type& lock) noexcept {
        spinning_ = true;
        nudged_.store(false, std::memory_order_relaxed);
        ++watchers_;
        lock.unlock();
        for (int i = 0; i < 64; ++i) { pause(); }
        const duration until = clock_.now() + clock_.patience();
        while (!source_->may_have() && !nudged_.load(std::memory_order_relaxed) && !stopping_.load(std::memory_order_relaxed) && clock_.now() < until) {
            clock_.relax(64);
        }
        lock.lock();
        --watchers_;
        spinning_ = false;
    }

    void open_window() noexcept {
        window_end_ = clock_.now() + idle_window;
        most_busy_ = running_.size();
    }
    /// Whether the calling worker, which has nothing to do, is one too many.
    bool retires() noexcept {
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

    // --------------------------------------------------------------------------------------------------------------------- an executor

    /// What an executor is given. Destroyed without having run, the executor is gone: so is the consumer.
    struct ticket {
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

    /// Has the executor run a handler, and again as long as it does so on the spot and there is more.
    void drive() noexcept {
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
    /// One handler. True: the slot is still taken, and there is more.
    bool take_turn() noexcept {
        lock_type lock(mutex_);
        work(lock);
        if (stopping_.load(std::memory_order_relaxed)) { given_up(lock); }
        --slots_;
        return delegate();
    }
    void abandoned() noexcept {
        {
            const std::lock_guard lock(mutex_);
            --slots_;
        }
        stop();
    }
    /// The executor threw: tried again in a moment.
    void refused(const std::exception_ptr& why) noexcept {
        lock_type lock(mutex_);
        --slots_;
        if (stopping_.load(std::memory_order_relaxed)) { return; }
        again_at_ = clock_.now() + executor_pause;
        arm(again_at_);
        activity here(*this, true);
        lock.unlock();
        report(why);
        lock.lock();
        here.end();
    }

    // ---------------------------------------------------------------------------------------------------------------------- the keeper

    void poke() noexcept {
        call_.fetch_add(1, std::memory_order_release);
        clock_.unpark(call_);
    }
    /// The keeper is to look at `instant`.
    void arm(duration instant) noexcept {
        if (instant >= plan_ || !keeper_is_there()) { return; }
        plan_ = instant;
        poke();
    }
    bool keeper_is_there() noexcept {
        if (!keeper_.joinable() && !stopping_.load(std::memory_order_relaxed)) {
            try {
                keeper_ = std::thread([self = this->shared_from_this()] { self->keep(); });
            } catch (...) { // tried again when next needed
            }
        }
        return keeper_.joinable();
    }

    void keep() noexcept {
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
                activity here(*this, false);
                lock.unlock();
                source_->catch_up();
                lock.lock();
                here.end();
                due = source_->next_due();
                if (due <= now) { due = now + shortest_pause; }
            }
            if (stopping_.load(std::memory_order_relaxed)) { break; }
            if (grow_) { continue; }
            const duration plan = plan_ = std::min({tick_at_, pace_at_, again_at_, due});
            const std::uint32_t seen = call_.load(std::memory_order_relaxed);
            lock.unlock();
            clock_.park(call_, seen, plan);
            lock.lock();
        }
    }

    /// Leases are renewed three times in their length, all at once: who was taken since has most of its own left.
    void begin_renewing() noexcept {
        if (lease_ <= duration::zero() || tick_at_ != clock::never) { return; }
        tick_at_ = clock_.now() + std::max<duration>(lease_ / 3, std::chrono::microseconds(100));
        arm(tick_at_);
    }
    void renew(lock_type& lock, duration now) noexcept {
        struct term {
            offset place;
            int partition;
            std::uint32_t attempt;
        };
        tick_at_ = clock::never;
        held_list<T> stale; // taken so long ago that the handlers in front of them must be stuck: somebody else may have them
        std::vector<term> terms;
        for (held<T>* h = taken_.first(); h != nullptr;) {
            held<T>* const next = h->next;
            if (now - h->since >= std::max(processing_limit_, lease_)) { stale.push(*taken_.remove(*h)); }
            h = next;
        }
        try {
            terms.reserve(taken_.size() + running_.size());
            for (const held<T>* h = taken_.first(); h != nullptr; h = h->next) { terms.push_back({h->place, h->partition, h->attempt}); }
            for (const held<T>* h = running_.first(); h != nullptr; h = h->next) {
                if (now - h->since < processing_limit_) { terms.push_back({h->place, h->partition, h->attempt}); }
            }
        } catch (...) { // two thirds of the leases are left
        }
        if (taken_.first() != nullptr || running_.first() != nullptr) { begin_renewing(); }
        activity here(*this, false);
        lock.unlock();
        for (const term& t : terms) { source_->renew(t.place, t.partition, t.attempt, lease_); }
        lock.lock();
        give_back(lock, stale);
        here.end();
    }

    // ------------------------------------------------------------------------------------------------------------------------- the end

    /// Whether this thread is inside a handler of ours.
    bool is_in_handler() const noexcept {
        for (const activity* a = active_now_; a != nullptr; a = a->next()) {
            if (a->handles() && a->is_here()) { return true; }
        }
        return false;
    }
    /// Waits until nobody but this thread is inside. Unlocks meanwhile.
    bool wait_quiet(lock_type& lock, duration deadline) noexcept {
        for (;;) {
            const activity* other = active_now_;
            while (other != nullptr && other->is_here()) { other = other->next(); }
            if (other == nullptr) { return true; }
            if (deadline != clock::never && clock_.now() >= deadline) { return false; }
            const std::uint32_t seen = quiet_.load(std::memory_order_relaxed);
            lock.unlock();
            clock_.park(quiet_, seen, deadline);
            lock.lock();
        }
    }
    std::thread next_thread() noexcept {
        if (keeper_.joinable()) { return std::move(keeper_); }
        for (const auto& w : crew_) {
            if (w->thread.joinable()) { return std::move(w->thread); }
        }
        return std::thread();
    }

    source_ref<T> source_;
    clock& clock_;
    const duration lease_;
    const int least_, most_;
    const std::size_t ahead_;    // held at most for handlers that cannot start yet
    const std::size_t capacity_; // held at most
    const std::size_t per_key_;
    const duration processing_limit_;
    const bool by_executor_;
    std::function<void(std::exception_ptr)> on_error_; // constant until nothing runs any more

    std::mutex mutex_;
    std::atomic<bool> stopping_{false}; // written under the mutex
    std::atomic<int> workers_{0};       // likewise
    held_list<T> spare_, taken_, running_;
    std::vector<delivery<T>> batch_; // an empty vector with room
    std::size_t coming_ = 0;         // how many may come out of takes under way
    activity* active_now_ = nullptr;
    pace pace_;
    bool owed_ = false;    // invariant 4
    bool trouble_ = false; // no memory to take with: a pause
    std::shared_ptr<engine> keep_; // ourselves, while the scout waits
    bool scouting_ = false;
    int watchers_ = 0; // workers that the source would wake, or that look
    // own threads
    std::vector<std::unique_ptr<worker>> crew_;
    int idle_ = 0;
    bool spinning_ = false;
    std::atomic<bool> nudged_{false};
    duration window_end_ = clock::never; // when what was needed lately is looked at
    std::size_t most_busy_ = 0;
    int surplus_ = 0;
    // an executor's
    std::shared_ptr<const executor> executor_;
    int slots_ = 0; // turns that were asked for and are not over
    // the keeper
    std::thread keeper_;
    duration plan_ = clock::never; // when it wakes
    duration tick_at_ = clock::never, pace_at_ = clock::never, again_at_ = clock::never;
    bool grow_ = false;
    std::atomic<std::uint32_t> call_{0};
    std::atomic<std::uint32_t> quiet_{0};
};

/// How a handler wants its messages.
enum class handler_kind { none, body, body_and_properties, delivery };

template <class T, class Handler>
constexpr handler_kind kind_of_handler() noexcept {
    if constexpr (std::is_invocable_v<Handler&, const T&>) {
        return handler_kind::body;
    } else if constexpr (std::is_invocable_v<Handler&, const T&, const properties&>) {
        return handler_kind::body_and_properties;
    } else if constexpr (std::is_invocable_v<Handler&, delivery<T>>) {
        return handler_kind::delivery;
    } else {
        return handler_kind::none;
    }
}

/// A function pointer or std::function may be empty.
template <class Handler>
bool is_empty_handler(const Handler&) noexcept {
    return false;
}
template <class Result, class... Args>
bool is_empty_handler(Result (*const& f)(Args...)) noexcept {
    return f == nullptr;
}
template <class Signature>
bool is_empty_handler(const std::function<Signature>& f) noexcept {
    return f == nullptr;
}

template <class T, class Handler>
class engine_with final : public engine<T> {
public:
    engine_with(source<T>& from, Handler&& handler, consume_options&& o) : engine<T>(from, std::move(o)), handler_(std::move(handler)) {}

private:
    void handle(std::optional<delivery<T>>& message) override {
        constexpr handler_kind kind = kind_of_handler<T, Handler>();
        if constexpr (kind == handler_kind::body) {
            static_cast<void>(std::invoke(*handler_, std::as_const(*message).body()));
        } else if constexpr (kind == handler_kind::body_and_properties) {
            static_cast<void>(std::invoke(*handler_, std::as_const(*message).body(), std::as_const(*message).props()));
        } else {
            static_cast<void>(std::invoke(*handler_, std::move(*message)));
        }
        if constexpr (kind != handler_kind::delivery) { message->ack(); }
    }
    void drop_handler() noexcept override {
        handler_.reset();
        engine<T>::drop_handler();
    }

    std::optional<Handler> handler_; // until nothing runs any more
};

/// A "handler" that only wants to know what it would be called for: how edges find the source behind an endpoint.
template <class T>
struct source_finder {
    source<T>** found;
};

/// What `consume` is. Throws errc::invalid for options outside what is allowed, std::system_error if threads cannot be had.
template <class T, class Handler>
consumer start_consumer(source<T>& from, Handler handler, consume_options options) {
    if constexpr (std::is_same_v<Handler, source_finder<T>>) {
        *handler.found = &from;
        return consumer();
    } else {
        static_assert(kind_of_handler<T, Handler>() != handler_kind::none,
                      "mailroom: a handler of consume() is called with (const T&), with (const T&, const mailroom::properties&), "
                      "or with (mailroom::delivery<T>)");
        check_options(options);
        if (is_empty_handler(handler)) { fail(errc::invalid, "the handler of consume() is an empty function"); }
        auto core = std::make_shared<engine_with<T, Handler>>(from, std::move(handler), std::move(options));
        core->start();
        return consumer_access::make(std::move(core));
    }
}

} // namespace detail
} // namespace mailroom
