// Interleavings that are rare by themselves: wherever the library calls something of ours (the clock, the moves and destructors of bodies),
// a thread that says so stands still for a moment, now and then, or gives up its processor. So others get in between.
#pragma once

#include <mailroom/base/clock.hpp>

#include <atomic>
#include <cstdint>
#include <thread>

namespace support {

/// Not 0: this thread shakes. Its random numbers.
inline thread_local constinit std::uint32_t shaking = 0;

inline void shake() {
    if (shaking == 0) { return; }
    shaking ^= shaking << 13, shaking ^= shaking >> 17, shaking ^= shaking << 5; // xorshift; never 0 again
    if (shaking % 64 == 0) {
        std::this_thread::yield();
    } else if (shaking % 8 == 0) {
        for (std::uint32_t i = shaking % 1024; i > 0; --i) { std::atomic_signal_fence(std::memory_order_seq_cst); }
    }
}

/// The system's clock, for threads that shake.
class shaking_clock final : public mailroom::clock {
public:
    mailroom::duration now() const noexcept override { return shake(), mailroom::system_clock().now(); }
    mailroom::duration coarse() const noexcept override { return shake(), mailroom::system_clock().coarse(); }
    mailroom::time_point wall() const noexcept override { return shake(), mailroom::system_clock().wall(); }
    void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, mailroom::duration deadline) noexcept override {
        mailroom::system_clock().park(word, expected, deadline);
    }
    void unpark(std::atomic<std::uint32_t>& word) noexcept override { mailroom::system_clock().unpark(word); }
    void relax(unsigned round) noexcept override { mailroom::system_clock().relax(round); }
    mailroom::duration patience() const noexcept override { return mailroom::system_clock().patience(); }
};

} // namespace support
