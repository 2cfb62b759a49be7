// A barrier with a free side and a dear side, for a question asked at every message and answered "no" nearly always: does anybody sleep?
//
//   busy side (each message)            rare side (before it sleeps)
//     1  write what is offered            A  write "I sleep"
//     2  light_barrier()                  B  heavy_barrier()
//     3  read whether one sleeps          C  look for what is offered
//
// Promise: not both miss each other: either 3 sees A, or C sees 1 (and all that happened before it, where 1 is a release and C an
// acquire). Without barriers both may: a store waits in the store buffer while the load behind it is done ("Dekker", "store buffering").
// The textbook cure is a sequentially consistent fence on both sides; on x86 it costs the busy side 20 cycles and more at each message.
//
// Argument. heavy_barrier() is membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED: between its call and its return each other thread of the
// process that runs executes a full barrier (the kernel interrupts its processor), and one that does not run has executed one when it was
// switched out and will when it is switched in. Take the busy thread, and the place M in its program order where that barrier fell.
//   - M before 3: then 3 is executed after M, and M comes after A became visible (A is before B in the rare thread, and the call itself
//     begins with a full barrier). So 3 sees A.
//   - M after 3: then M is after 1 as well, for 1 is before 3 in program order, and light_barrier() forbids the compiler to
//     exchange them. M makes 1 visible before B returns. So C sees 1.
// That is all light_barrier() has to do: no instruction. The C++ memory model has no word for this; the code relies on the kernel's
// documented one (membarrier(2); tools/memory-model in Linux; the same as folly's and liburcu's asymmetric fences).
//
// Where membarrier is missing (before Linux 4.14, forbidden by a sandbox, other systems) has_heavy_barrier() says so, once for all, and
// both sides have to call full_barrier() instead: then the promise is [atomics.fences]. It is asked when an endpoint is made, and the
// answer kept where the busy side looks anyway, so the fall-back costs nothing where it is not needed.
//
// ThreadSanitizer runs this code as it is: what is decided here is only whether somebody must be woken, never who may touch what.
// Threads: all of these may be called from any thread.
#pragma once

#include <atomic>

#if defined(__linux__) && __has_include(<linux/membarrier.h>)
# define MAILROOM_DETAIL_HAS_MEMBARRIER 1
# include <cerrno>
# include <linux/membarrier.h>
# include <sys/syscall.h>
# include <unistd.h>
#endif

namespace mailroom::detail {

/// Orders what is before and after it in the program, for whoever runs heavy_barrier(). Costs nothing but what the compiler may not do.
inline void light_barrier() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

#if defined(__SANITIZE_THREAD__) && defined(__GNUC__) && !defined(__clang__)
# pragma GCC diagnostic push
# pragma GCC diagnostic ignored "-Wtsan" // the sanitizer does not see fences; nothing here asks it to
#endif

/// A sequentially consistent fence: both sides, where there is no heavy barrier.
inline void full_barrier() noexcept { std::atomic_thread_fence(std::memory_order_seq_cst); }

#if defined(__SANITIZE_THREAD__) && defined(__GNUC__) && !defined(__clang__)
# pragma GCC diagnostic pop
#endif

#if defined(MAILROOM_DETAIL_HAS_MEMBARRIER)

/// Says whether the system can do it, which does not change while the process lives. One system call, 0.3 us.
inline bool has_heavy_barrier() noexcept {
    const long commands = ::syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    return commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 && (commands & MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0;
}

/// Makes each running thread of the process execute a full barrier. One system call and an interrupt for each processor that runs one of
/// our threads: 0.2 to 5 us. The first call of a process with several threads registers it with the kernel, which takes 10 to 20 ms, once.
/// False: the kernel changed its mind (a sandbox was entered); then nothing is promised, and the caller must not sleep for long.
inline bool heavy_barrier() noexcept {
    // The call orders this thread too, but the compiler need not know.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    long answer = ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    if (answer != 0 && errno == EPERM) { // not registered: no global remembers it, the kernel does
        ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
        answer = ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return answer == 0;
}

#else

inline bool has_heavy_barrier() noexcept { return false; }
inline bool heavy_barrier() noexcept {
    full_barrier();
    return false;
}

#endif

} // namespace mailroom::detail
