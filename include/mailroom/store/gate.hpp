// gate: where senders and receivers of a lane wait, and how they are woken at no cost to those who need not.
//
// A lane is somebody's lock-free container: it knows "put" and "take" and nothing else. The gate stands beside it and holds one word of
// flags, read (relaxed, in the cache of everybody) at each message and written only by who goes to sleep, wakes or closes.
//
//   sender                                     receiver that found nothing
//     1  put the message into the lane           A  enter the list, set the flag `receivers` (under the list's mutex)
//     2  light_barrier()                         B  heavy_barrier()
//     3  read the flags; if `receivers`:         C  look into the lane again; only if there is nothing, park
//        take one out of the list, wake it
//
// By the promise of base/barrier.hpp either 3 sees the flag or C sees the message, so no message lies in a lane while all who could take
// it sleep because of it. The same the other way round with `senders`, where a lane may be full: 1 is then "take a message".
//
// Who is woken has been taken out of the list and looks again; who finds nothing enters it again. Who was woken and leaves without having
// looked (deadline, stop, an exception) wakes another in his place, so a wake is never lost with the one who got it.
//
// "Nothing" must be certain before anyone parks. A container that may answer "empty" while a message is in it (moodycamel does, while
// another thread is in the middle of taking) says look::unsure, and the waiter looks again instead of sleeping.
//
// Threads: every member may be called from any thread. Locks: only to sleep and to wake. All waiting is the clock's.
#pragma once

#include <mailroom/base/barrier.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace mailroom::detail {

/// What a look at a lane says: it is done; there is nothing (or no room), certainly; there may be something, look again; there is nothing
/// and will be nothing.
enum class look { done, nothing, unsure, closed };

/// How a wait ended.
enum class waited { done, closed, timed_out, stopped };

class gate {
public:
    explicit gate(clock* c, bool can_be_asymmetric = has_heavy_barrier()) noexcept
        : clock_(c != nullptr ? *c : system_clock()), flags_(can_be_asymmetric ? 0 : fenced) {}
    gate(const gate&) = delete;
    gate& operator=(const gate&) = delete;

    /// What was put before close() is seen by who sees it closed.
    [[nodiscard]] bool closed() const noexcept { return (flags_.load(std::memory_order_acquire) & is_closed) != 0; }

    /// No wait lasts from now on.
    void close() noexcept {
        flags_.fetch_or(is_closed, std::memory_order_seq_cst);
        // Who enters a list after the last take of these was under its mutex later, and so sees the flag when it looks.
        wake(receivers_, std::numeric_limits<std::size_t>::max());
        wake(senders_, std::numeric_limits<std::size_t>::max());
    }

    /// To be called after `n` messages were put into the lane, or taken out of it where it can be full.
    void after_put(std::size_t n = 1) noexcept { after<has_receivers>(receivers_, n); }
    void after_take(std::size_t n = 1) noexcept { after<has_senders>(senders_, n); }

    /// Calls `look_again() -> look` until it is done or closed, and waits in between: pauses, yields, parks; until `deadline` or a stop.
    template <class Look>
    waited wait_for_message(duration deadline, const stop_token& stop, Look look_again) {
        return wait(receivers_, 0, deadline, stop, look_again);
    }
    /// The same for a sender. It pauses `pauses` times before it looks at all: then there is room for some messages, and it works in runs
    /// instead of trading a cache line with the receivers for each.
    template <class Look>
    waited wait_for_room(unsigned pauses, duration deadline, const stop_token& stop, Look look_again) {
        return wait(senders_, pauses, deadline, stop, look_again);
    }

    [[nodiscard]] clock& time() const noexcept { return clock_; }

private:
    static constexpr std::uint32_t is_closed = 1;
    static constexpr std::uint32_t has_receivers = 2;
    static constexpr std::uint32_t has_senders = 4;
    static constexpr std::uint32_t fenced = 8; // there is no heavy barrier: both sides use full ones

    struct side {
        std::uint32_t bit;
        wait_list list{};
    };

    template <std::uint32_t Bit>
    void after(side& s, std::size_t n) noexcept {
        light_barrier();
        if ((flags_.load(std::memory_order_relaxed) & (Bit | fenced)) != 0) [[unlikely]] { wake_if_any(s, n); }
    }

    [[gnu::cold, gnu::noinline]] void wake_if_any(side& s, std::size_t n) noexcept {
        if ((flags_.load(std::memory_order_relaxed) & fenced) != 0) {
            full_barrier();
            if ((flags_.load(std::memory_order_relaxed) & s.bit) == 0) { return; }
        }
        wake(s, n);
    }

    void wake(side& s, std::size_t n) noexcept {
        for (; n != 0; --n) {
            waiter* const w = s.list.take([&] { flags_.fetch_and(~s.bit, std::memory_order_seq_cst); });
            if (w == nullptr) { return; }
            w->wake();
        }
    }

    // B of the argument above. How long who asks may sleep without looking: for ever, but where the barrier failed.
    duration barrier_before_sleep() noexcept {
        if ((flags_.load(std::memory_order_relaxed) & fenced) != 0) {
            full_barrier();
            return clock::never;
        }
        return heavy_barrier() ? clock::never : deadline_after(clock_, std::chrono::milliseconds(1));
    }

    // A thread's stay in a list.
    class stay {
    public:
        stay(gate& g, side& s) noexcept : gate_(g), side_(s), self_(g.clock_) {
            side_.list.add(self_, [&] { gate_.flags_.fetch_or(side_.bit, std::memory_order_seq_cst); });
        }
        stay(const stay&) = delete;
        stay& operator=(const stay&) = delete;
        ~stay() {
            if (side_.list.remove(self_, [&] { gate_.flags_.fetch_and(~side_.bit, std::memory_order_seq_cst); })) { return; }
            self_.settle(); // who took this out is still about to wake it
            if (!used_) { gate_.wake(side_, 1); }
        }
        [[nodiscard]] thread_waiter& self() noexcept { return self_; }
        // The wake that may have come is not lost: the caller has done what it was for, or looks again before it leaves.
        void used() noexcept { used_ = true; }

    private:
        gate& gate_;
        side& side_;
        thread_waiter self_;
        bool used_ = false;
    };

    template <class Look>
    [[gnu::noinline]] waited wait(side& s, unsigned pauses, duration deadline, const stop_token& stop, Look& look_again) {
        if (const std::optional<waited> soon = wait_awake(pauses, deadline, stop, look_again)) { return *soon; }
        for (unsigned round = 0;;) {
            stay here(*this, s);
            const stop_callback wake_up(stop, [&here]() noexcept { here.self().interrupt(); });
            const duration latest = std::min(deadline, barrier_before_sleep());
            for (;;) {
                const look seen = look_again();
                if (seen == look::done || seen == look::closed) {
                    here.used();
                    return seen == look::done ? waited::done : waited::closed;
                }
                if (stop.stop_requested()) { return waited::stopped; }
                if (deadline != clock::never && clock_.now() >= deadline) { return waited::timed_out; }
                if (here.self().woken() || (latest != clock::never && clock_.now() >= latest)) {
                    here.used();
                    break; // out of the list: enter it again, and look
                }
                if (seen == look::unsure) {
                    clock_.relax(round++);
                } else {
                    here.self().park(latest);
                }
            }
        }
    }

    // The first microseconds: 64 pauses, then the rest of the time slice to others for as long as the clock has patience.
    template <class Look>
    std::optional<waited> wait_awake(unsigned pauses, duration deadline, const stop_token& stop, Look& look_again) {
        const duration patience = clock_.patience();
        if (patience <= duration::zero()) { return std::nullopt; }
        duration until = clock::never;
        for (unsigned round = 0;; ++round) {
            clock_.relax(round);
            if (round < pauses) { continue; }
            const look seen = look_again();
            if (seen == look::done) { return waited::done; }
            if (seen == look::closed) { return waited::closed; }
            if (stop.stop_requested()) { return waited::stopped; }
            if (round < 64) { continue; }
            const duration now = clock_.now();
            if (now >= deadline) { return waited::timed_out; }
            if (until == clock::never) { until = now + patience; }
            if (now >= until) { return std::nullopt; }
        }
    }

    clock& clock_;
    std::atomic<std::uint32_t> flags_;
    side receivers_{.bit = has_receivers};
    side senders_{.bit = has_senders};
};

} // namespace mailroom::detail
