// A body that notices when it is read dead, destroyed twice or never, or left behind by a move; and the same face over other types, so
// that a test can be written once for all of them.
#pragma once

#include "support/shaking.hpp"

#include <atomic>
#include <cstdint>
#include <string>

namespace support {

/// An int that knows whether it is alive. Copyable and nothrow-movable; moved from, it reads -1. Shakes when it is moved or destroyed.
class tracked {
public:
    tracked(int value = -1) noexcept : value_(value) { born(); } // NOLINT: as good as an int
    tracked(const tracked& other) noexcept : value_(other.value()) { born(); }
    tracked(tracked&& other) noexcept : value_(other.value()) {
        shake();
        other.value_ = -1;
        born();
    }
    tracked& operator=(const tracked& other) noexcept {
        touch();
        value_ = other.value();
        return *this;
    }
    tracked& operator=(tracked&& other) noexcept {
        touch();
        const int value = other.value();
        shake();
        other.value_ = -1;
        value_ = value;
        return *this;
    }
    ~tracked() {
        touch();
        shake();
        mark_ = dead_mark;
        live_.fetch_sub(1, std::memory_order_relaxed);
    }

    int value() const noexcept {
        touch();
        return value_;
    }

    /// How many exist now; how often a dead one was touched.
    static long live() noexcept { return live_.load(std::memory_order_relaxed); }
    static long faults() noexcept { return faults_.load(std::memory_order_relaxed); }

private:
    static constexpr std::uint32_t live_mark = 0xA11FE5u, dead_mark = 0xDEADu;

    void born() noexcept { live_.fetch_add(1, std::memory_order_relaxed); }
    void touch() const noexcept {
        if (mark_ != live_mark) { faults_.fetch_add(1, std::memory_order_relaxed); }
    }

    int value_;
    volatile std::uint32_t mark_ = live_mark; // volatile: the last write of a destructor must happen

    static inline std::atomic<long> live_{0}, faults_{0};
};

/// The bodies the tests use, made of a number and read back.
template <class T>
struct body_of {
    static T make(int number) { return T(number); }
    static int number(const T& body) { return static_cast<int>(body); }
};
template <>
struct body_of<tracked> {
    static tracked make(int number) { return tracked(number); }
    static int number(const tracked& body) { return body.value(); }
};
template <>
struct body_of<std::string> { // long enough to be on the heap, now and then longer than what a slot may keep
    static std::string make(int number) {
        std::string text = std::to_string(number) + ' ';
        return text.append(number % 50 == 49 ? 2000u : 40u, '.');
    }
    static int number(const std::string& body) { return body.empty() ? -1 : std::stoi(body); }
};

template <class T>
int number_of(const T& body) {
    return body_of<T>::number(body);
}

} // namespace support
