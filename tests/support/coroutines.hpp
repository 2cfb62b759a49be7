// Coroutines to test with.
#pragma once

#include <atomic>
#include <coroutine>
#include <exception>
#include <utility>

namespace support {

/// A coroutine that starts at once and belongs to this object: destroyed with it, wherever it is suspended.
class task {
public:
    struct promise_type {
        task get_return_object() { return task(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept {
            done.store(true, std::memory_order_release);
            return {};
        }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
        std::atomic<bool> done{false};
    };
    explicit task(std::coroutine_handle<promise_type> h) : handle_(h) {}
    task(task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    task& operator=(task&&) = delete;
    ~task() {
        if (handle_) { handle_.destroy(); }
    }
    bool done() const { return handle_.promise().done.load(std::memory_order_acquire); }

private:
    std::coroutine_handle<promise_type> handle_;
};

/// A coroutine nobody waits for.
struct loose {
    struct promise_type {
        loose get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

} // namespace support
