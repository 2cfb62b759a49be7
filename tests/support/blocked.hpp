// blocked: another thread that does something which may block.
#pragma once

#include "support/eventually.hpp"

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

namespace support {

class blocked {
public:
    explicit blocked(std::function<void()> act)
        : thread_([this, act = std::move(act)] {
              act();
              done_ = true;
          }) {}
    ~blocked() { thread_.join(); }
    /// Whether it came back.
    bool done() const { return done_; }
    bool finishes() const {
        return eventually([this] { return done_.load(); });
    }

private:
    std::atomic<bool> done_{false};
    std::thread thread_; // the last: it begins when all else is there
};

} // namespace support
