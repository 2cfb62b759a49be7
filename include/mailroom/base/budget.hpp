// memory_budget: a bound on bytes that several endpoints share.
#pragma once

#include <mailroom/base/wait.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mailroom {

/// At most so many bytes of unsettled messages in all endpoints that name it in their options. Must outlive them. Thread-safe.
class memory_budget {
public:
    explicit memory_budget(std::size_t bytes) noexcept : limit_(bytes) {}
    memory_budget(const memory_budget&) = delete;
    memory_budget& operator=(const memory_budget&) = delete;

    std::size_t limit() const noexcept { return limit_; }
    /// Bytes in use now.
    std::size_t used() const noexcept { return static_cast<std::size_t>(used_.load(std::memory_order_relaxed)); }

    /// Whether `bytes` are left. For endpoints.
    bool has_room(std::size_t bytes) const noexcept {
        const std::size_t used = used_.load(std::memory_order_seq_cst);
        return bytes <= limit_ && used <= limit_ - bytes;
    }
    /// Takes `bytes` if they are left. For endpoints.
    bool take(std::size_t bytes) noexcept {
        auto used = used_.load(std::memory_order_relaxed);
        do {
            if (bytes > limit_ || used > limit_ - bytes) { return false; }
        } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_seq_cst, std::memory_order_relaxed));
        return true;
    }
    /// Takes `bytes` whether they are left or not: what lives again. For endpoints.
    void force(std::size_t bytes) noexcept { used_.fetch_add(bytes, std::memory_order_seq_cst); }
    /// Gives back; the caller wakes who waits, once it holds no lock. For endpoints.
    void credit(std::size_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_seq_cst); }
    /// Gives back, and wakes the senders that wait for room. For endpoints.
    void give_back(std::size_t bytes) noexcept {
        credit(bytes);
        for (std::size_t n = senders_.size(); n != 0; --n) {
            detail::waiter* const w = senders_.take(detail::nothing());
            if (w == nullptr) { break; }
            w->wake();
        }
    }
    /// Senders of any of the endpoints that wait for room.
    detail::wait_list& senders() noexcept { return senders_; }

private:
    const std::size_t limit_;
    std::atomic<std::size_t> used_{0};
    detail::wait_list senders_;
};

} // namespace mailroom
