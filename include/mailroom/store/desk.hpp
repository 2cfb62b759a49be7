// desk: the calls of one requester.
//
// It lives as long as its requester, and as any of its calls is held. It is not counted per call: at the end of the requester both words of each
// call are marked, and who brings a marked one to 0 lets go of the desk, once for each word.
//
// Closing: a caller stores `waiting`, then loads `closed_`; the closer stores `closed_`, then loads the words; all are sequentially consistent. So
// either the caller sees that it is closed, or the closer sees the call and answers it.
//
// Threads: any. Locks: `mutex_`, to grow and for its timers; nothing foreign runs under it, and a request in memory that is answered in time takes none.
#pragma once

#include <mailroom/base/alarms.hpp>
#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/store/call.hpp>
#include <mailroom/store/source.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace mailroom::detail {

class rendezvous;

/// The calls of one requester.
class desk : private alarmed {
public:
    desk(const desk&) = delete;
    desk& operator=(const desk&) = delete;

    const std::string& name() const noexcept { return name_; }
    /// The type of the answers.
    std::string_view type() const noexcept { return type_; }

    void refer() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void unrefer() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) { delete this; }
    }

    bool closed() const noexcept { return closed_.load(std::memory_order_seq_cst); }
    /// Every call that is out is answered with errc::closed, and every one to come.
    void close() noexcept {
        closed_.store(true, std::memory_order_seq_cst);
        each([](call& c) { c.fail(errc::closed); });
    }
    /// The message at `place` goes, unless somebody has it: nobody waits for its answer. Callers may outlive the requester, and with it the queue.
    void withdraw(offset place) noexcept {
        if (place == no_offset) { return; }
        if (cursor_ == nullptr) { return; } // others may read it still
        if (source_base* const home = refer_home()) {
            cursor_->withdraw(place);
            home->unrefer();
        }
    }
    /// The requester goes: it is found no more. What is out is answered with errc::closed, and withdrawn.
    void leave() noexcept {
        closed_.store(true, std::memory_order_seq_cst);
        alarms().withdraw(*this);
        each([this](call& c) {
            const offset place = c.place();
            if (c.fail(errc::closed) && place != no_offset && cursor_ != nullptr) { cursor_->withdraw(place); }
        });
        {
            const std::lock_guard lock(mutex_);
            home_ = nullptr;
        }
        each([this](call& c) {
            refer();
            if (c.holders_.fetch_or(call::orphaned, std::memory_order_acq_rel) == 0) { unrefer(); }
            refer();
            if (c.lent_.fetch_or(call::orphaned_loan, std::memory_order_acq_rel) == 0) { unrefer(); }
        });
        unrefer();
    }
    call::tally tally() const noexcept {
        call::tally sum;
        each([&sum](const call& c) { c.add_to(sum); });
        return sum;
    }
    /// The call that is out under a number, held; or nullptr.
    call* find(std::uint64_t number) noexcept {
        const std::size_t i = static_cast<std::size_t>(number & (call::generation_step - 1));
        if (i >= size_.load(std::memory_order_acquire)) { return nullptr; }
        call* const c = at(i);
        return c->join(number) ? c : nullptr;
    }

    // ----------------------------------------------------------------------------------------------------- timers of those nobody waits for

    /// True: it is the first that is to be looked at.
    bool watch(call& c, duration deadline) noexcept {
        const std::lock_guard lock(mutex_);
        c.deadline_ = deadline;
        c.timed_ = true;
        c.previous_timed_ = nullptr;
        c.next_timed_ = timers_;
        if (timers_ != nullptr) { timers_->previous_timed_ = &c; }
        timers_ = &c;
        if (deadline >= earliest_.load(std::memory_order_relaxed)) { return false; }
        earliest_.store(deadline, std::memory_order_seq_cst);
        return true;
    }
    /// `c` is answered with errc::timed_out at `deadline`, though nobody waits for it in a thread.
    void set_timer(call& c, duration deadline) noexcept {
        if (deadline == clock::never || !watch(c, deadline)) { return; }
        if (source_base* const home = refer_home()) {
            alarm_(*home, deadline);
            home->unrefer();
        }
        if (clock_.patience() != duration::zero()) { // else the clock drives those who use it
            alarms().announce(*this, deadline);
            if (closed()) { alarms().withdraw(*this); } // it may have gone in between
        }
    }
    void unwatch(call& c) noexcept {
        const std::lock_guard lock(mutex_);
        take_out(c);
    }
    duration earliest() const noexcept { return earliest_.load(std::memory_order_seq_cst); }
    /// Answers those whose time is over, and withdraws their requests.
    void sweep(duration now) noexcept {
        for (;;) {
            call* due = nullptr;
            {
                const std::lock_guard lock(mutex_);
                duration next = clock::never;
                for (call* c = timers_; c != nullptr; c = c->next_timed_) {
                    if (c->deadline_ > now) {
                        next = std::min(next, c->deadline_);
                    } else if (due == nullptr) {
                        due = c;
                    } else {
                        next = duration::min();
                    }
                }
                earliest_.store(next, std::memory_order_seq_cst);
                if (due == nullptr) { return; }
                take_out(*due);
                due->holders_.fetch_add(1, std::memory_order_relaxed); // its caller does not let go before he has taken it out
            }
            const offset place = due->place();
            if (due->fail(errc::timed_out)) { withdraw(place); }
            due->let_go();
        }
    }

protected:
    using alarm = void (*)(source_base& home, duration deadline) noexcept;

    desk(clock& c, std::string_view type, std::uint64_t address, source_base& home, cursor* from, alarm how)
        : alarmed(c), clock_(c), type_(type), name_(reply_address(address)), home_(&home), cursor_(from), alarm_(how) {}
    virtual ~desk() = default;

    /// Calls beside each other: 8, 16, 32, ...
    static constexpr std::size_t first_chunk = 8;
    static constexpr std::size_t most_chunks = 17;
    static std::size_t chunk_of(std::size_t i) noexcept { return static_cast<std::size_t>(std::bit_width(i / first_chunk + 1)) - 1; }
    static std::size_t start_of(std::size_t chunk) noexcept { return first_chunk * ((std::size_t{1} << chunk) - 1); }

    virtual call* at(std::size_t i) const noexcept = 0;
    /// Makes the next chunk, whose first call has number `i`; its size. Throws std::bad_alloc. Under the mutex.
    virtual std::size_t make_chunk(std::size_t chunk) = 0;

    /// A call for the caller, who holds it. Throws std::bad_alloc, and errc::full for a million calls at once.
    call& take() {
        const std::size_t n = size_.load(std::memory_order_acquire);
        const std::size_t from = hint_.load(std::memory_order_relaxed);
        for (std::size_t k = 0, i = from; k < n; ++k) {
            i = i + 1 < n ? i + 1 : 0;
            if (call* const c = at(i); c->try_take()) {
                hint_.store(i, std::memory_order_relaxed);
                at(i + 1 < n ? i + 1 : 0)->expect_use();
                return *c;
            }
        }
        return grow();
    }

private:
    duration next_alarm() const noexcept override { return earliest(); }
    void ring(duration now) noexcept override { sweep(now); }
    void hold_alarm() noexcept override { refer(); }
    void let_go_alarm() noexcept override { unrefer(); }

    source_base* refer_home() noexcept {
        const std::lock_guard lock(mutex_);
        if (home_ != nullptr) { home_->refer(); }
        return home_;
    }
    call& grow() {
        const std::lock_guard lock(mutex_);
        const std::size_t n = size_.load(std::memory_order_relaxed);
        const std::size_t chunk = chunk_of(n);
        if (chunk >= most_chunks) { mailroom::detail::fail(errc::full, "a million requests of one requester are out"); }
        const std::size_t more = make_chunk(chunk);
        for (std::size_t i = n; i < n + more; ++i) {
            call* const c = at(i);
            c->clock_ = &clock_;
            c->desk_ = this;
            c->number_.store(i, std::memory_order_relaxed);
            c->cover.props.reply_to = name_;
        }
        at(n)->try_take();
        size_.store(n + more, std::memory_order_release);
        return *at(n);
    }
    template <class Fn>
    void each(Fn fn) const {
        for (std::size_t i = 0, n = size_.load(std::memory_order_acquire); i < n; ++i) { fn(*at(i)); }
    }
    void take_out(call& c) noexcept {
        if (!c.timed_) { return; }
        c.timed_ = false;
        (c.previous_timed_ != nullptr ? c.previous_timed_->next_timed_ : timers_) = c.next_timed_;
        if (c.next_timed_ != nullptr) { c.next_timed_->previous_timed_ = c.previous_timed_; }
    }

    friend class rendezvous;

    clock& clock_;
    const std::string_view type_;
    const std::string name_;
    std::uint64_t order_ = 0; // guarded by the rendezvous
    source_base* home_;       // guarded by the mutex: the queue's core, as long as the requester is there
    cursor* const cursor_;    // whose messages are its requests alone, valid as long as that; or nullptr
    const alarm alarm_;
    std::atomic<std::size_t> references_{1};
    std::atomic<std::size_t> size_{0};
    std::atomic<bool> closed_{false};
    alignas(64) std::atomic<std::size_t> hint_{0};
    std::mutex mutex_;
    call* timers_ = nullptr;
    std::atomic<duration> earliest_{clock::never};
};

inline void call::let_go() noexcept {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) == (orphaned | 1u)) { desk_->unrefer(); }
}
inline void call::end_loan() noexcept {
    if (lent_.fetch_sub(1, std::memory_order_acq_rel) == (orphaned_loan | 1u)) { desk_->unrefer(); }
}

} // namespace mailroom::detail
