// call: one request that is out.
//
// It lends its message an envelope, so in memory the message itself leads to the call: nothing is looked up, and no request asks for memory once
// there are calls enough. A request that was stored, or copied, has lost its envelope; there the address in `reply_to` finds the desk, and the
// number in `correlation_id` the call.
//
// Invariants
//   1. `word_` is its state.
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
//
// Memory order
//   - The answer is written between the CAS to `answering` (acquire: the caller has left that place) and the store of `done` (release); the
//     caller reads it after an acquire load of `done`.
//   - Going to sleep: the caller's CAS waiting -> sleeping and the answerer's CAS to `answering` are on one word. Either the caller's fails, and he
//     sees that an answer is coming, or the answerer's sees `sleeping` and wakes him. The kernel compares the word once more.
//   - What a call says to its answerer (the envelope) is published with the message, by the stream's release of its slot.
//   - `take_back` and the caller let go by `fetch_sub(acq_rel)`; the CAS from 0 and the look at `lent_` (acquire) see all that both have done.
//
// Threads: its caller's, and any that answer.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/message/asking.hpp>
#include <mailroom/message/message.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace mailroom::detail {

class desk;

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

} // namespace mailroom::detail
