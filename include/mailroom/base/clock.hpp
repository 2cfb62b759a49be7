// The only place where the library asks for time, sleeps or spins.
//
// A `clock` is injected into each endpoint (`options.clock`), so a test can drive hours of retries in microseconds with
// `mailroom::testing::manual_clock`. Instants are `duration`s since the clock's own epoch; they never go back and are unaffected
// by changes of the wall clock. Threads: every member may be called from any thread at once.
#pragma once

#include <mailroom/base/basics.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#if defined(__linux__)
# include <cerrno>
# include <ctime>
# include <linux/futex.h>
# include <sys/syscall.h>
# include <unistd.h>
#endif

namespace mailroom {

/// Something whose deadlines a clock may drive: an endpoint. Called by clocks that are advanced by hand.
class timed {
public:
    /// Does what is due at the clock's present time: delays, leases, expiries. Never blocks.
    virtual void step() noexcept = 0;

protected:
    ~timed() = default;
};

/// Where time comes from and how a thread waits for it. Must outlive the endpoints that use it, and their deliveries.
class clock {
public:
    /// The deadline that is never reached.
    static constexpr duration never = duration::max();

    /// Time since the epoch of this clock, exact. Cost with the system's clock: about 25 ns.
    virtual duration now() const noexcept = 0;
    /// The same scale, up to one tick of the kernel (4 ms) behind `now()`. Cost: about 5 ns.
    virtual duration coarse() const noexcept = 0;
    /// Calendar time, for people: timestamps.
    virtual time_point wall() const noexcept = 0;

    /// Blocks while `word == expected`, until `unpark(word)` or `deadline`. May return early for no reason.
    virtual void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, duration deadline) noexcept = 0;
    /// Wakes whoever is parked on `word`, after its value was changed. The word may be gone already: its address only is used.
    virtual void unpark(std::atomic<std::uint32_t>& word) noexcept = 0;
    /// One step of a short wait: a pause of the processor in the first rounds, then the rest of the time slice.
    virtual void relax(unsigned round) noexcept = 0;
    /// How long a thread should look again before it parks; zero under clocks that are advanced by hand.
    virtual duration patience() const noexcept { return duration::zero(); }

    /// An endpoint that uses this clock begins, or ends, to be driven by it. The system's clock drives nobody.
    virtual void attach(timed&) {}
    virtual void detach(timed&) noexcept {}

    clock() = default;
    clock(const clock&) = delete;
    clock& operator=(const clock&) = delete;

protected:
    ~clock() = default;
};

namespace detail {

/// One pause of the processor in a spin loop.
inline void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#else
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

/// The operating system's monotonic clock and futexes. Stateless.
class os_clock final : public clock {
public:
    // A literal type with a trivial destructor: the one instance is a constant, made at compile time and never destroyed.
    constexpr os_clock() noexcept = default;

    static duration read_now() noexcept {
#if defined(__linux__)
        return read(CLOCK_MONOTONIC);
#else
        return std::chrono::duration_cast<duration>(std::chrono::steady_clock::now().time_since_epoch());
#endif
    }
    static duration read_coarse() noexcept {
#if defined(__linux__)
        return read(CLOCK_MONOTONIC_COARSE);
#else
        return read_now();
#endif
    }

    duration now() const noexcept override { return read_now(); }
    duration coarse() const noexcept override { return read_coarse(); }
    time_point wall() const noexcept override { return std::chrono::system_clock::now(); }

    void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, duration deadline) noexcept override {
#if defined(__linux__)
        static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
        timespec until{};
        const bool timed_wait = deadline != never;
        if (timed_wait) {
            if (deadline < duration::zero()) { return; }
            until.tv_sec = static_cast<std::time_t>(deadline.count() / 1'000'000'000);
            until.tv_nsec = static_cast<long>(deadline.count() % 1'000'000'000);
        }
        // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC: a spurious return loses nothing.
        ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, timed_wait ? &until : nullptr, nullptr, FUTEX_BITSET_MATCH_ANY);
#else
        // No portable wait with a deadline on a bare word: look again every 200 us at most.
        if (word.load(std::memory_order_acquire) != expected) { return; }
        const duration left = deadline == never ? std::chrono::microseconds(200) : deadline - read_now();
        std::this_thread::sleep_for(left < std::chrono::microseconds(200) ? left : std::chrono::microseconds(200));
#endif
    }
    void unpark(std::atomic<std::uint32_t>& word) noexcept override {
#if defined(__linux__)
        ::syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 0x7fffffff, nullptr, nullptr, 0);
#else
        static_cast<void>(word);
#endif
    }
    void relax(unsigned round) noexcept override {
        if (round < 64) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
    duration patience() const noexcept override { return std::chrono::microseconds(20); }

private:
#if defined(__linux__)
    static duration read(clockid_t which) noexcept {
        timespec t{};
        ::clock_gettime(which, &t);
        return std::chrono::seconds(t.tv_sec) + duration(t.tv_nsec);
    }
#endif
};

inline constinit os_clock the_os_clock{};

/// The instant `by` after `t`; what is too far away to be reached is never.
constexpr duration later(duration t, duration by) noexcept { return by < clock::never - std::max(t, duration::zero()) ? t + by : clock::never; }

/// The instant `limit` from now.
inline duration deadline_after(const clock& c, duration limit) noexcept { return limit == clock::never ? limit : later(c.now(), limit); }

} // namespace detail

/// The clock endpoints use unless their options name another.
inline clock& system_clock() noexcept { return detail::the_os_clock; }

} // namespace mailroom
