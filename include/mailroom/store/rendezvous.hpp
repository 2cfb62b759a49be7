// rendezvous: where those who ask through a queue and those who answer meet. It belongs to the queue's core and is made by the first requester.
//
// A requester has a desk, and on it a call for each request that is out. A call lends its message an envelope, so in memory the message itself
// leads to the call: nothing is looked up, and no request asks for memory once there are calls enough. A request that was stored, or copied, has
// lost its envelope; there the address in `reply_to` finds the desk, and the number in `correlation_id` the call.
//
// Invariants
//   1. `word_` of a call is its state.
//
//          idle --> waiting --> answering --> done --> idle      asked, answered, taken
//                      | ^         ^ |
//                      v |         | +--> waiting               an answer that is not the last
//                   sleeping ------+                             the caller sleeps in the kernel, on this word
//                   hooked   ------+                             a coroutine or a callback waits
//                                  answering --> gone --> idle  nobody waits any more
//                                  answering --> whatever it was: one of several who are asked came to nothing
//
//      Who moves it to `answering` (by CAS, so one) owns the place of the answer until he has stored `done`; before and after, the caller does.
//      A time-out, a stop and the end of the requester or queue are answers like others, given by whoever notices.
//   2. A call is held by its caller, by whoever found it by number and is answering (`holders_` counts them), and by the message that has its
//      envelope (`lent_`). It is used again only by a CAS of `holders_` from 0, and if `lent_` is 0 then. So who holds it sees one request only, and
//      the state can be trusted. The two are apart because they end on different cores at about the same time: neither waits for the other's line.
//   3. A desk lives as long as its requester, and as any of its calls is held. It is not counted per call: at the end of the requester both words
//      of each call are marked, and who brings a marked one to 0 lets go of the desk, once for each word.
//
// Memory order
//   - The answer is written between the CAS to `answering` (acquire: the caller has left that place) and the store of `done` (release); the
//     caller reads it after an acquire load of `done`.
//   - Going to sleep: the caller's CAS waiting -> sleeping and the answerer's CAS to `answering` are on one word. Either the caller's fails, and he
//     sees that an answer is coming, or the answerer's sees `sleeping` and wakes him. The kernel compares the word once more.
//   - What a call says to its answerer (the envelope) is published with the message, by the stream's release of its slot.
//   - `take_back` and the caller let go by `fetch_sub(acq_rel)`; the CAS from 0 and the look at `lent_` (acquire) see all that both have done.
//   - Closing: the caller stores `waiting`, then loads `closed_`; the closer stores `closed_`, then loads the words; all are sequentially consistent.
//     So either the caller sees that it is closed, or the closer sees the call and answers it.
//
// Threads: any. Locks: a desk's `mutex_` to grow and for its timers, the rendezvous' to come, to go and to be found by address; none is held while
// anything foreign runs, and none is taken for a request in memory that is answered in time.
#pragma once

#include <mailroom/base/alarms.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/message/asking.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/store/source.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

class desk;
class rendezvous;

/// One request that is out. What type its answer has only derived classes know.
class alignas(64) call : public envelope_home {
public:
    enum state : std::uint32_t { idle, waiting, sleeping, hooked, answering, done, gone };

    call() noexcept { cover.lent.home = this; }
    call(const call&) = delete;
    call& operator=(const call&) = delete;

    // ---------------------------------------------------------------------------------------------------------------- for who answers

    /// Whether anybody waits for an answer still. True too while another is given: it may not be the last.
    bool is_wanted() const noexcept {
        const std::uint32_t seen = word_.load(std::memory_order_acquire);
        return is_open(seen) || seen == answering;
    }
    /// True: the place of the answer is the caller's until `finish` or `go_on`.
    bool claim(std::uint32_t& before) noexcept {
        before = word_.load(std::memory_order_acquire); // what was answered may be taken by a caller who finds that out here
        for (unsigned round = 0; is_open(before) || before == answering;) {
            if (before == answering) { // somebody else is at it; with several answers there is room for another then
                clock_->relax(round++);
                before = word_.load(std::memory_order_acquire);
            } else if (word_.compare_exchange_weak(before, answering, std::memory_order_seq_cst, std::memory_order_acquire)) {
                return true;
            }
        }
        return false;
    }
    void finish(std::uint32_t before) noexcept { move_on(before, done); }
    /// There was an answer, and may be further ones.
    void go_on(std::uint32_t before) noexcept { move_on(before, waiting); }
    /// There was none: the caller is not to know.
    void go_on_silently(std::uint32_t before) noexcept { word_.store(before, std::memory_order_release); }
    /// Asks for the line of a call that will be used next.
    void expect_use() const noexcept { __builtin_prefetch(&word_, 1); }
    /// Whether its caller takes more than one answer. Constant while it is out.
    bool takes_several() const noexcept { return takes_several_; }
    /// Whether several are asked, each of whom may answer, or fail. Constant while it is out.
    bool gathers() const noexcept { return gathers_; }
    /// One of those who were asked says no more; failed. False: nobody waits.
    virtual void end_from(const void* whom) noexcept = 0;
    virtual bool fail_from(const void* whom, failure why) noexcept = 0;
    /// Answers with a failure. False: it has been answered, or nobody waits.
    bool fail(failure why) noexcept {
        std::uint32_t before = 0;
        if (!claim(before)) { return false; }
        why_ = std::move(why);
        finish(before);
        return true;
    }
    /// Found by number: holds the call if it is still out under this one.
    bool join(std::uint64_t number) noexcept {
        std::uint32_t h = holders_.load(std::memory_order_relaxed);
        while ((h & ~orphaned) != 0) {
            if (holders_.compare_exchange_weak(h, h + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
                if (number_.load(std::memory_order_relaxed) == number) { return true; }
                let_go();
                return false;
            }
        }
        return false;
    }
    void let_go() noexcept;
    desk& at() const noexcept { return *desk_; }
    clock& time() const noexcept { return *clock_; }
    void note_late() noexcept { late_.fetch_add(1, std::memory_order_relaxed); }

    // ----------------------------------------------------------------------------------------------------------------- for who asks

    /// True: it is the caller's, with a hold for him.
    bool try_take() noexcept {
        if (holders_.load(std::memory_order_relaxed) != 0 || lent_.load(std::memory_order_relaxed) != 0) { return false; }
        std::uint32_t none = 0;
        if (!holders_.compare_exchange_strong(none, 1, std::memory_order_acquire, std::memory_order_relaxed)) { return false; }
        if (lent_.load(std::memory_order_acquire) == 0) { return true; }
        let_go(); // somebody else took it, sent it, and gave up, in between
        return false;
    }
    /// Its envelope goes with a message, which holds it from now on.
    void lend() noexcept { lent_.store(1, std::memory_order_relaxed); }
    void take_several() noexcept { takes_several_ = true; }
    void gather() noexcept { gathers_ = true; }
    /// A request begins.
    void open() {
        number_.store(number_.load(std::memory_order_relaxed) + generation_step, std::memory_order_relaxed);
        place_.store(no_offset, std::memory_order_relaxed);
        count(asked_);
        word_.store(waiting, std::memory_order_seq_cst);
    }
    std::uint64_t number() const noexcept { return number_.load(std::memory_order_relaxed); }
    /// Where its message stands, once that was sent.
    void sent_to(offset place) noexcept { place_.store(place, std::memory_order_relaxed); }
    offset place() const noexcept { return place_.load(std::memory_order_relaxed); }
    bool is_done() const noexcept { return word_.load(std::memory_order_acquire) == done; }
    /// Nobody waits for it any more. False: it is answered.
    bool abandon() noexcept {
        std::uint32_t before = 0;
        if (!claim(before)) { return false; }
        word_.store(gone, std::memory_order_release);
        return true;
    }
    /// Blocks until it is done, or `has()`, an answer that is not the last, or `deadline`: false.
    template <class Has>
    bool wait(Has has, duration deadline) noexcept {
        clock& c = *clock_;
        if (look_soon(has, deadline)) { return true; }
        for (unsigned round = 0;;) {
            std::uint32_t seen = word_.load(std::memory_order_acquire);
            if (seen == done || has()) { return true; }
            if (seen == answering) {
                c.relax(round++);
                continue;
            }
            if (deadline != clock::never && c.now() >= deadline) { return false; }
            if (seen == waiting && !word_.compare_exchange_strong(seen, sleeping, std::memory_order_seq_cst, std::memory_order_relaxed)) { continue; }
            if (!has()) { c.park(word_, sleeping, deadline); }
        }
    }
    bool wait(duration deadline) noexcept {
        return wait([]() noexcept { return false; }, deadline);
    }
    /// As long as it takes another core to answer at once.
    bool wait_briefly() const noexcept {
        if (clock_->patience() == duration::zero()) { return is_done(); }
        return brief_look::look([this]() noexcept { return is_done(); });
    }
    /// `w` is woken once it is done. False: it is already.
    bool hook(waiter& w) noexcept {
        hook_ = &w;
        for (unsigned round = 0;;) {
            std::uint32_t seen = word_.load(std::memory_order_acquire);
            if (seen == done) { return false; }
            if (seen == answering) {
                clock_->relax(round++);
            } else if (word_.compare_exchange_strong(seen, hooked, std::memory_order_seq_cst, std::memory_order_relaxed)) {
                return true;
            }
        }
    }
    /// True: `w` will not be woken.
    bool unhook() noexcept {
        for (unsigned round = 0;;) {
            std::uint32_t seen = hooked;
            if (word_.compare_exchange_strong(seen, waiting, std::memory_order_seq_cst, std::memory_order_relaxed)) { return true; }
            if (seen != answering) { return false; }
            clock_->relax(round++); // it may come to nothing
        }
    }
    /// The caller is through with it: it is done or gone. Writes no more than it has to, for the line may be on its way to the next.
    void close() noexcept {
        if (why_.kind() != errc{}) { why_ = failure(errc{}); }
        takes_several_ = gathers_ = false;
        let_go();
    }
    const failure& why() const noexcept { return why_; }

    void take_back(envelope&) noexcept override {
        // The message ended. Whoever waits in a thread need not wait any longer; no foreign code may run here, so others wait until their time is over.
        if (is_wanted()) { lose(); }
        end_loan();
    }
    void end_loan() noexcept;

    /// What became of the requests that used this place. Written by their callers, one at a time.
    struct tally {
        std::uint64_t asked = 0, answered = 0, failed = 0, timed_out = 0, late = 0;
    };
    void add_to(tally& sum) const noexcept {
        sum.asked += asked_.load(std::memory_order_relaxed);
        sum.answered += answered_.load(std::memory_order_relaxed);
        sum.failed += failed_.load(std::memory_order_relaxed);
        sum.timed_out += timed_out_.load(std::memory_order_relaxed);
        sum.late += late_.load(std::memory_order_relaxed);
    }
    void note_outcome(bool has_value, errc otherwise) noexcept { count(has_value ? answered_ : otherwise == errc::timed_out ? timed_out_ : failed_); }

protected:
    ~call() = default;

private:
    friend class desk;
    static constexpr std::uint32_t orphaned = std::uint32_t{1} << 31;
    static constexpr std::uint16_t orphaned_loan = std::uint16_t{1} << 15;
    static constexpr unsigned index_bits = 20;
    static constexpr std::uint64_t generation_step = std::uint64_t{1} << index_bits;

    static bool is_open(std::uint32_t s) noexcept { return s == waiting || s == sleeping || s == hooked; }
    void move_on(std::uint32_t before, state to) noexcept {
        if (before == waiting) [[likely]] {
            word_.store(to, std::memory_order_release);
            return;
        }
        clock& c = *clock_;
        waiter* const hook = before == hooked ? hook_ : nullptr;
        word_.store(to, std::memory_order_release); // from here on it may be used again: only its address is
        if (before == sleeping) { c.unpark(word_); }
        if (hook != nullptr) { hook->wake(); }
    }
    static void count(std::atomic<std::uint64_t>& c) noexcept { c.store(c.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }

    // A short while of looking again, before the thread is put to sleep.
    template <class Has>
    bool look_soon(Has has, duration deadline) noexcept {
        if (is_done() || has()) { return true; }
        clock& c = *clock_;
        const duration patience = c.patience();
        if (patience == duration::zero()) { return false; }
        const duration until = std::min(deadline, c.now() + patience);
        while (c.now() < until) {
            c.relax(64);
            if (is_done() || has()) { return true; }
        }
        return false;
    }
    void lose() noexcept {
        std::uint32_t before = word_.load(std::memory_order_relaxed);
        while (before == waiting || before == sleeping) {
            if (word_.compare_exchange_weak(before, answering, std::memory_order_seq_cst, std::memory_order_relaxed)) {
                try {
                    why_ = failure(errc::rejected, "the request ended without an answer: dropped, or settled by somebody who gave none");
                } catch (...) { why_ = failure(errc::rejected); }
                finish(before);
                return;
            }
        }
    }

    // One line: what asking writes and answering reads, and the other way round. With it the beginning of the envelope.
    std::atomic<std::uint32_t> word_{idle};
    std::atomic<std::uint16_t> lent_{0};
    bool takes_several_ = false, gathers_ = false;
    desk* desk_ = nullptr;

protected:
    /// Where an answer is written that is no larger.
    static constexpr std::size_t small = 16;
    alignas(8) std::byte small_[small];

public:
    envelope cover; // what it lends

private:
    // Only the caller writes these, some after the message was sent: not where it is in the way of who answers.
    alignas(64) std::atomic<std::uint32_t> holders_{0};
    clock* clock_ = nullptr;
    std::atomic<std::uint64_t> number_{0}; // generation and place on the desk
    std::atomic<offset> place_{no_offset};
    waiter* hook_ = nullptr;
    std::atomic<std::uint64_t> asked_{0}, answered_{0}, failed_{0}, timed_out_{0};
    std::atomic<std::uint64_t> late_{0}; // this one is written by whoever is late
    // guarded by the desk's mutex: its place among the timers
    duration deadline_ = clock::never;
    bool timed_ = false;
    call* next_timed_ = nullptr;
    call* previous_timed_ = nullptr;

protected:
    alignas(64) failure why_{errc{}}; // why there is no answer; errc{}: there is one. Behind it, the answer
};

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

/// All desks of those who ask through one endpoint.
class rendezvous {
public:
    rendezvous() = default;
    rendezvous(const rendezvous&) = delete;
    rendezvous& operator=(const rendezvous&) = delete;

    /// An address that nobody had before: neither here nor, as far as chance goes, in a process that stored requests in the same journal.
    std::uint64_t new_address(const void* whose) noexcept {
        std::uint64_t x =
            static_cast<std::uint64_t>(system_clock().now().count()) ^ static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(whose)) ^
            static_cast<std::uint64_t>(system_clock().wall().time_since_epoch().count()) << 20 ^ made_.fetch_add(1, std::memory_order_relaxed) << 48;
        for (const std::uint64_t by : {0xbf58476d1ce4e5b9u, 0x94d049bb133111ebu}) { x = (x ^ x >> 30) * by; } // splitmix64
        return x ^ x >> 31;
    }

    void enter(desk& d) {
        const std::lock_guard lock(mutex_);
        desks_.push_back(&d);
        d.order_ = ++entered_;
        if (closed_) { d.close(); } // there are no calls yet
    }
    void leave(desk& d) noexcept {
        const std::lock_guard lock(mutex_);
        std::erase(desks_, &d);
    }
    /// The call that a request belongs to, held, or nullptr; `known`: whether whoever asked is there.
    call* find(const properties& p, bool& known) noexcept {
        known = false;
        std::uint64_t number = 0;
        if (!is_request(p) || !read_call_number(p.correlation_id, number)) { return nullptr; }
        const std::lock_guard lock(mutex_);
        for (desk* const d : desks_) {
            if (d->name() == p.reply_to) {
                known = true;
                return d->find(number);
            }
        }
        return nullptr;
    }
    /// Somebody answers for `whom`, a subscription, each of which is given what is asked; `through`: its member he receives by. Throws std::bad_alloc.
    void come_to_answer(const void* whom, const void* through) {
        const std::lock_guard lock(mutex_);
        answering_.push_back({whom, through});
    }
    /// One who answered through `through` goes; all of them do; all who answered for `whom` do.
    void leave_answering(const void* whom, const void* through) noexcept { take_answering(whom, through, false); }
    void end_answering(const void* whom, const void* through = nullptr) noexcept { take_answering(whom, through, true); }
    /// For whom anybody answers at the moment, each once.
    std::vector<const void*> who_answers() {
        std::vector<const void*> all;
        {
            const std::lock_guard lock(mutex_);
            for (const answering& a : answering_) { all.push_back(a.whom); }
        }
        std::sort(all.begin(), all.end());
        all.erase(std::unique(all.begin(), all.end()), all.end());
        return all;
    }
    /// Takes out for whom nobody answers any more.
    void keep_who_answers(std::vector<const void*>& whom) noexcept {
        const std::lock_guard lock(mutex_);
        std::erase_if(whom, [this](const void* w) { return !answers_for(w); });
    }
    /// The endpoint was closed.
    void close() noexcept {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        each([](desk& d) { d.close(); });
    }

    /// When the first call is over that nobody waits for in a thread.
    duration earliest() const noexcept { return duration(earliest_.load(std::memory_order_seq_cst)); }
    /// `d` has one that is over at `deadline`. True: none was over before.
    bool watch(duration deadline) noexcept {
        std::int64_t seen = earliest_.load(std::memory_order_relaxed);
        while (deadline.count() < seen) {
            if (earliest_.compare_exchange_weak(seen, deadline.count(), std::memory_order_seq_cst)) { return true; }
        }
        return false;
    }
    void sweep_at(duration now) noexcept {
        if (earliest() > now) { return; }
        earliest_.store(clock::never.count(), std::memory_order_seq_cst);
        each([&](desk& d) {
            d.sweep(now);
            if (d.earliest() != clock::never) { watch(d.earliest()); }
        });
    }

private:
    struct answering {
        const void* whom;
        const void* through;
    };
    bool answers_for(const void* whom) const noexcept {
        return std::any_of(answering_.begin(), answering_.end(), [whom](const answering& a) { return a.whom == whom; });
    }
    void take_answering(const void* whom, const void* through, bool all) noexcept {
        {
            const std::lock_guard lock(mutex_);
            bool found = false;
            std::erase_if(answering_, [&](const answering& a) {
                const bool is_one = a.whom == whom && (through == nullptr || a.through == through) && (all || !found);
                found = found || is_one;
                return is_one;
            });
            if (!found || answers_for(whom)) { return; }
        }
        each([whom](desk& d) { d.each([whom](call& c) { c.end_from(whom); }); });
    }
    // Calls `fn` for each, in the order in which they came, without the lock.
    template <class Fn>
    void each(Fn fn) noexcept {
        for (std::uint64_t last = 0;;) {
            desk* next = nullptr;
            {
                const std::lock_guard lock(mutex_);
                const auto at = std::find_if(desks_.begin(), desks_.end(), [last](const desk* d) { return d->order_ > last; });
                if (at == desks_.end()) { return; }
                next = *at;
                next->refer();
            }
            last = next->order_;
            fn(*next);
            next->unrefer();
        }
    }

    std::mutex mutex_;
    std::vector<desk*> desks_;
    std::vector<answering> answering_;
    bool closed_ = false;
    std::uint64_t entered_ = 0;
    std::atomic<std::uint64_t> made_{0};
    std::atomic<std::int64_t> earliest_{clock::never.count()};
};

/// An endpoint's rendezvous, once there is one.
class meeting {
public:
    meeting() = default;
    meeting(const meeting&) = delete;
    meeting& operator=(const meeting&) = delete;
    ~meeting() { delete there_.load(std::memory_order_relaxed); }

    /// Made when it is first asked for; `is_closed()`: whether the endpoint is. Throws std::bad_alloc.
    template <class IsClosed>
    rendezvous& point(IsClosed is_closed) {
        rendezvous* there = find();
        if (there == nullptr) {
            auto made = std::make_unique<rendezvous>();
            if (there_.compare_exchange_strong(there, made.get(), std::memory_order_seq_cst)) {
                there = made.release();
                if (is_closed()) { there->close(); }
            }
        }
        return *there;
    }
    rendezvous* find() const noexcept { return there_.load(std::memory_order_seq_cst); }
    /// When the first call is over that nobody waits for in a thread.
    duration earliest() const noexcept {
        const rendezvous* const there = find();
        return there == nullptr ? clock::never : there->earliest();
    }
    void sweep(const clock& c) noexcept {
        if (rendezvous* const there = find(); there != nullptr && there->earliest() != clock::never) [[unlikely]] { there->sweep_at(c.now()); }
    }
    /// The endpoint was closed.
    void close() noexcept {
        if (rendezvous* const there = find()) { there->close(); }
    }

private:
    std::atomic<rendezvous*> there_{nullptr};
};

} // namespace mailroom::detail
