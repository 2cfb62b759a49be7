// For what another thread is about to do: a test that would hang if it never did fails instead.
#pragma once

#include <chrono>
#include <thread>

namespace support {

/// Waits until `condition()`. False: it has not held for so long that it never will. Only a failing test takes that long.
template <class Condition>
bool eventually(Condition condition) {
    const auto given_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > given_up) { return false; }
        std::this_thread::yield();
    }
    return true;
}

} // namespace support
