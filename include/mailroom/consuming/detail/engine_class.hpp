// The engine's class; what it does is defined in consuming/engine.hpp and beside this file. consuming/engine.hpp says why it is right.
#pragma once

#include <mailroom/base/alarms.hpp>
#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consume_options.hpp>
#include <mailroom/consuming/custody.hpp>
#include <mailroom/consuming/held.hpp>
#include <mailroom/consuming/presence.hpp>
#include <mailroom/message/delivery.hpp>
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
#include <thread>
#include <utility>
#include <vector>

namespace mailroom::detail {

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

/// Everything of a consumer but its handler.
template <class T>
class engine : public consumer_core, public std::enable_shared_from_this<engine<T>>, private waiter, private alarm_keeper {
public:
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    /// Begins. Throws std::system_error if `min` threads cannot be had.
    void start();

    void stop() noexcept override;
    bool drain(duration limit) noexcept override;
    bool running() const noexcept override { return !stopping_.load(std::memory_order_acquire); }
    int threads() const noexcept override { return workers_.load(std::memory_order_relaxed); }
    void finish() noexcept override;

protected:
    /// `stays`: see detail/staying.hpp.
    engine(source<T>& from, consume_options&& o, bool stays = false)
        : waiter(&engine::scouted), source_(from), clock_(from.time()), given_(from, clock_), lease_(from.lease()), least_(o.concurrency.min),
          most_(o.concurrency.max), ahead_(from.has_priorities() || o.max_per_second > 0 ? 1 : o.prefetch),
          capacity_(std::max(from.has_priorities() ? 1 : o.prefetch, static_cast<std::size_t>(o.concurrency.max))), per_key_(o.max_per_key),
          processing_limit_(o.processing_limit), by_executor_(static_cast<bool>(o.executor)),
          stays_(stays && !by_executor_ && least_ == most_ && per_key_ == 0 && o.max_per_second == 0), present_(clock_), pace_(o.max_per_second) {
        if (by_executor_) { executor_ = std::make_shared<const executor>(std::move(o.executor)); }
        on_error_ = std::move(o.on_error);
    }
    ~engine() = default;

    /// Calls the handler and settles. What it throws is dealt with by the caller.
    virtual void handle(std::optional<delivery<T>>& message) = 0;
    virtual void drop_handler() noexcept { on_error_ = nullptr; }
    /// Before a handler is given a delivery to keep. Throws std::bad_alloc.
    void entrust(delivery<T>& d) { given_.entrust(d); }

private:
    static constexpr duration idle_window = std::chrono::seconds(5);
    static constexpr duration executor_pause = std::chrono::milliseconds(100);
    static constexpr duration shortest_pause = std::chrono::milliseconds(10);

    using activity = presence::activity;
    using lock_type = std::unique_lock<std::mutex>;

    struct worker {
        std::thread thread;
        thread_waiter* asleep = nullptr; // while it may be roused
        bool exited = false;             // it takes the mutex no more
    };
    /// What an executor is given.
    struct ticket;

    // What unlocks meanwhile is given the lock.

    // ------------------------------------------------------------------------------------------------------------------ taking: engine.hpp

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
    held<T>* startable() const noexcept;
    /// Takes what there is, as far as there is room.
    void fetch(lock_type& lock) noexcept;
    /// Releases each.
    void give_back(lock_type& lock, held_list<T>& list) noexcept;
    /// We were woken for a message we may not take: somebody else is to look.
    void pass_on(lock_type& lock) noexcept;
    void given_up(lock_type& lock) noexcept {
        if (owed_) { pass_on(lock); }
    }

    // ---------------------------------------------------------------------------------------------------------------- handlers: engine.hpp

    /// Runs one handler if one may run.
    bool work(lock_type& lock, bool& spun) noexcept;
    void run(lock_type& lock, held<T>& h, bool& spun) noexcept;
    [[gnu::always_inline]] void serve(held<T>& h) noexcept;
    void report(const std::exception_ptr& what) noexcept;
    /// If another handler can be started, sees to it that somebody does; else that somebody notices when one can be (invariant 3).
    /// True: the caller is to `drive`, once it has let go of the mutex.
    bool delegate() noexcept;
    bool recall_scout() noexcept;
    /// The wake of the scout: in somebody's send, or in a step of time.
    static void scouted(waiter& w) noexcept;
    /// One more to look for work. True: the caller is to `drive` the slot that was taken.
    bool recruit() noexcept;
    std::thread next_thread() noexcept;

    // ------------------------------------------------------------------------------------------------- threads of our own: detail/crew.hpp

    void rouse(worker& w) noexcept;
    void add_worker();
    void labour(worker& self) noexcept;
    /// Waits until there may be something to do.
    void rest(lock_type& lock, worker& self, bool& spun) noexcept;
    /// A short while of looking again before the kernel is asked; one at a time.
    void spin(lock_type& lock) noexcept;
    void open_window() noexcept {
        window_end_ = clock_.now() + idle_window;
        most_busy_ = running_.size();
    }
    /// Whether the calling worker, which has nothing to do, is one too many.
    bool retires() noexcept;

    // ----------------------------------------------------------------------------------- a worker that stays at work: detail/staying.hpp

    void note_taken() noexcept {
        if (stays_) [[unlikely]] { has_taken_.store(taken_.first() != nullptr, std::memory_order_relaxed); }
    }
    /// Takes one message after the other into `h`, which is running, and has it handled, without the mutex; until there was none for a while.
    void stay(held<T>& h) noexcept;
    /// False: there is none, or it is not for us.
    bool take_into(held<T>& h) noexcept;
    bool may_stay() const noexcept { return !stopping_.load(std::memory_order_acquire) && !has_taken_.load(std::memory_order_relaxed); }
    /// A short while of looking; one at a time.
    bool linger() noexcept;

    // ------------------------------------------------------------------------------------------------------- an executor: detail/turns.hpp

    /// Has the executor run a handler, and again as long as it does so on the spot and there is more.
    void drive() noexcept;
    /// One handler. True: the slot is still taken, and there is more.
    bool take_turn() noexcept;
    void abandoned() noexcept;
    /// The executor threw: tried again in a moment.
    void refused(const std::exception_ptr& why) noexcept;

    // ------------------------------------------------------------------------------------------------------- the keeper: detail/keeper.hpp

    void poke() noexcept {
        call_.fetch_add(1, std::memory_order_release);
        clock_.unpark(call_);
    }
    /// The keeper is to look at `instant`, and is started for that if need be. Never: needs no keeper.
    void arm(duration instant) noexcept;
    /// The same, of somebody else's.
    void alarm_at(duration instant) noexcept override;
    bool keeper_is_there() noexcept;
    void keep() noexcept;
    /// Leases are renewed three times in their length, all at once: who was taken since has most of its own left.
    void begin_renewing() noexcept;
    void renew(lock_type& lock, duration now) noexcept;

    source_ref<T> source_;
    clock& clock_;
    custodian given_; // counts by itself
    const duration lease_;
    const int least_, most_;
    const std::size_t ahead_;    // held at most for handlers that cannot start yet
    const std::size_t capacity_; // held at most
    const std::size_t per_key_;
    const duration processing_limit_;
    const bool by_executor_;
    const bool stays_;
    std::function<void(std::exception_ptr)> on_error_; // constant until nothing runs any more

    std::mutex mutex_;
    presence present_;                  // invariant 5
    std::atomic<bool> stopping_{false}; // written under the mutex
    std::atomic<int> workers_{0};       // likewise
    held_list<T> spare_, taken_, running_;
    std::vector<delivery<T>> batch_; // an empty vector with room
    std::size_t coming_ = 0;         // how many may come out of takes under way
    pace pace_;
    bool owed_ = false;            // invariant 4
    bool trouble_ = false;         // no memory to take with: a pause
    std::shared_ptr<engine> keep_; // ourselves, while the scout waits
    bool scouting_ = false;
    int watchers_ = 0; // workers that the source would wake, or that look
    // own threads
    std::vector<std::unique_ptr<worker>> crew_;
    int idle_ = 0;
    bool spinning_ = false;
    std::atomic<bool> nudged_{false};
    std::atomic<bool> has_taken_{false}; // whether anything is taken; written under the mutex, where workers stay
    std::atomic<bool> lingering_{false}; // whether one of those looks
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
    duration alarm_at_ = clock::never; // somebody else's
    bool grow_ = false;
    std::atomic<std::uint32_t> call_{0};
};

} // namespace mailroom::detail
