// alarms: instants that nobody waits for, and those who can look at them because they wait for time anyway.
//
// Who waits for an answer in a coroutine or a callback has no thread that could notice that his time is over, and none is started for that. So such
// an instant is announced here, and whoever has a thread or a timer for instants of his own (a consumer's keeper, an event loop) looks at it.
//
// One board for the process; what belongs together has the same clock. Clocks that are advanced by hand drive their endpoints themselves.
// Threads: any. Locks: the board's, under which keepers are told; nothing foreign runs under it. Lists are intrusive: nothing needs memory.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>

namespace mailroom::detail {

class alarm_board;

/// Somebody with instants. Counted: the board holds one reference while it is listed.
class alarmed {
public:
    alarmed(const alarmed&) = delete;
    alarmed& operator=(const alarmed&) = delete;

protected:
    explicit alarmed(clock& c) noexcept : alarm_clock_(c) {}
    ~alarmed() = default;

private:
    friend class alarm_board;
    virtual duration next_alarm() const noexcept = 0;
    /// Does what is due. Foreign code may run.
    virtual void ring(duration now) noexcept = 0;
    virtual void hold_alarm() noexcept = 0;
    virtual void let_go_alarm() noexcept = 0;

    clock& alarm_clock_;
    bool listed_ = false; // guarded by the board
    alarmed* previous_alarmed_ = nullptr;
    alarmed* next_alarmed_ = nullptr;
};

/// Somebody who waits for time. After being told, he calls `alarm_board::ring` at that instant.
class alarm_keeper {
public:
    alarm_keeper(const alarm_keeper&) = delete;
    alarm_keeper& operator=(const alarm_keeper&) = delete;

protected:
    alarm_keeper() noexcept = default;
    ~alarm_keeper() = default;

private:
    friend class alarm_board;
    /// Under the board's lock: calls nothing of it.
    virtual void alarm_at(duration instant) noexcept = 0;

    const clock* kept_clock_ = nullptr; // guarded by the board; nullptr: not there
    alarm_keeper* previous_keeper_ = nullptr;
    alarm_keeper* next_keeper_ = nullptr;
};

class alarm_board {
public:
    constexpr alarm_board() noexcept = default;
    alarm_board(const alarm_board&) = delete;
    alarm_board& operator=(const alarm_board&) = delete;

    /// `a` has something for `instant`, earlier than what it had before.
    void announce(alarmed& a, duration instant) noexcept {
        const std::lock_guard lock(mutex_);
        if (!a.listed_) {
            a.hold_alarm();
            a.listed_ = true;
            a.previous_alarmed_ = nullptr;
            a.next_alarmed_ = alarmed_;
            if (alarmed_ != nullptr) { alarmed_->previous_alarmed_ = &a; }
            alarmed_ = &a;
            count_.fetch_add(1, std::memory_order_relaxed);
        }
        tell(a.alarm_clock_, instant);
    }
    /// `a` has nothing any more, and announces nothing.
    void withdraw(alarmed& a) noexcept {
        {
            const std::lock_guard lock(mutex_);
            if (!a.listed_) { return; }
            take_out(a);
        }
        a.let_go_alarm();
    }
    /// Somebody comes who looks at instants of `c`, and goes.
    void come(alarm_keeper& k, const clock& c) noexcept {
        const std::lock_guard lock(mutex_);
        k.kept_clock_ = &c;
        k.previous_keeper_ = nullptr;
        k.next_keeper_ = keepers_;
        if (keepers_ != nullptr) { keepers_->previous_keeper_ = &k; }
        keepers_ = &k;
        if (const duration next = earliest(c); next != clock::never) { tell(c, next); }
    }
    void go(alarm_keeper& k) noexcept {
        const std::lock_guard lock(mutex_);
        if (k.kept_clock_ == nullptr) { return; }
        const clock& c = *k.kept_clock_;
        k.kept_clock_ = nullptr;
        (k.previous_keeper_ != nullptr ? k.previous_keeper_->next_keeper_ : keepers_) = k.next_keeper_;
        if (k.next_keeper_ != nullptr) { k.next_keeper_->previous_keeper_ = k.previous_keeper_; }
        if (const duration next = earliest(c); next != clock::never) { tell(c, next); }
    }
    /// Whether there is any.
    bool any() const noexcept { return count_.load(std::memory_order_relaxed) != 0; }
    /// Has done what is due; answers what comes next.
    duration ring(const clock& c, duration now) noexcept {
        for (;;) {
            alarmed* due = nullptr;
            {
                const std::lock_guard lock(mutex_);
                duration next = clock::never;
                for (alarmed* a = alarmed_; a != nullptr && due == nullptr; a = a->next_alarmed_) {
                    if (&a->alarm_clock_ != &c) { continue; }
                    const duration at = a->next_alarm();
                    if (at <= now) { due = a; }
                    next = std::min(next, at);
                }
                if (due == nullptr) { return next; }
                due->hold_alarm();
            }
            due->ring(now);
            bool is_out = false;
            {
                const std::lock_guard lock(mutex_);
                is_out = due->listed_ && due->next_alarm() == clock::never;
                if (is_out) { take_out(*due); }
            }
            if (is_out) { due->let_go_alarm(); }
            due->let_go_alarm();
        }
    }

private:
    void tell(const clock& c, duration instant) noexcept {
        for (alarm_keeper* k = keepers_; k != nullptr; k = k->next_keeper_) {
            if (k->kept_clock_ == &c) {
                k->alarm_at(instant);
                return;
            }
        }
    }
    duration earliest(const clock& c) const noexcept {
        duration next = clock::never;
        for (const alarmed* a = alarmed_; a != nullptr; a = a->next_alarmed_) {
            if (&a->alarm_clock_ == &c) { next = std::min(next, a->next_alarm()); }
        }
        return next;
    }
    void take_out(alarmed& a) noexcept {
        a.listed_ = false;
        (a.previous_alarmed_ != nullptr ? a.previous_alarmed_->next_alarmed_ : alarmed_) = a.next_alarmed_;
        if (a.next_alarmed_ != nullptr) { a.next_alarmed_->previous_alarmed_ = a.previous_alarmed_; }
        count_.fetch_sub(1, std::memory_order_relaxed);
    }

    std::mutex mutex_;
    alarmed* alarmed_ = nullptr;
    alarm_keeper* keepers_ = nullptr;
    std::atomic<std::size_t> count_{0};
};

// Never destroyed: endpoints may be static objects.
union alarm_board_holder {
    alarm_board value;
    constexpr alarm_board_holder() noexcept : value() {}
    alarm_board_holder(const alarm_board_holder&) = delete;
    alarm_board_holder& operator=(const alarm_board_holder&) = delete;
    ~alarm_board_holder() {} // NOLINT: a defaulted one would be deleted
};
inline constinit alarm_board_holder the_alarm_board;

inline alarm_board& alarms() noexcept { return the_alarm_board.value; }

} // namespace mailroom::detail
