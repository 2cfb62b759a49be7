// held: a message that a consumer has taken and not settled, and the lists such messages wait in.
//
// Threads: none of its own and no locks; the engine guards its lists with its mutex. What a message's lease is renewed by may be read while another
// message takes its place: a number is odd meanwhile, and another afterwards.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/message/delivery.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

namespace mailroom::detail {

/// Which message it is, and since when: what its lease is renewed by.
struct held_term {
    offset place = 0;
    int partition = 0;
    std::uint32_t attempt = 0;
    duration since{}; // when it was taken, then when its handler began
};

/// A message between take and settlement.
template <class T>
struct held {
    std::optional<delivery<T>> message;
    std::uint64_t key = 0; // hash; 0: none. Two keys of one hash share a limit: stricter, never looser
    held* previous = nullptr;
    held* next = nullptr;

    void adopt(delivery<T>&& d, duration now, bool keyed) {
        key = keyed && !d.props().key.empty() ? std::hash<std::string_view>()(d.props().key) | 1 : 0;
        place_.store(d.offset(), std::memory_order_relaxed); // nobody reads it yet
        partition_.store(d.partition(), std::memory_order_relaxed);
        attempt_.store(d.attempt(), std::memory_order_relaxed);
        since_.store(now, std::memory_order_relaxed);
        message.emplace(std::move(d));
    }
    /// `d`, which is in `message` or will be. Whoever has the message; others may `read` meanwhile.
    void begin(const delivery<T>& d, duration now) noexcept {
        const std::uint32_t odd = version_.load(std::memory_order_relaxed) + 1;
        version_.store(odd, std::memory_order_relaxed);
        place_.store(d.offset(), std::memory_order_release); // with `read`: who sees one of these sees the odd number
        partition_.store(d.partition(), std::memory_order_release);
        attempt_.store(d.attempt(), std::memory_order_release);
        since_.store(now, std::memory_order_release);
        version_.store(odd + 1, std::memory_order_release);
    }
    void begin_handler(duration now) noexcept { since_.store(now, std::memory_order_relaxed); }
    duration since() const noexcept { return since_.load(std::memory_order_relaxed); }
    /// False: it is about to be another one.
    bool read(held_term& t) const noexcept {
        const std::uint32_t before = version_.load(std::memory_order_acquire);
        t.place = place_.load(std::memory_order_acquire);
        t.partition = partition_.load(std::memory_order_acquire);
        t.attempt = attempt_.load(std::memory_order_acquire);
        t.since = since_.load(std::memory_order_acquire);
        return (before & 1u) == 0 && version_.load(std::memory_order_relaxed) == before;
    }

private:
    std::atomic<std::uint32_t> version_{0};
    std::atomic<std::uint32_t> attempt_{0};
    std::atomic<offset> place_{0};
    std::atomic<duration> since_{duration()};
    std::atomic<int> partition_{0};
};

/// A list of them, in order. Owns its nodes.
template <class T>
class held_list {
public:
    held_list() = default;
    held_list(const held_list&) = delete;
    held_list& operator=(const held_list&) = delete;
    ~held_list() {
        while (first_ != nullptr) { delete remove(*first_); }
    }

    held<T>* first() const noexcept { return first_; }
    std::size_t size() const noexcept { return size_; }
    void push(held<T>& h) noexcept {
        h.next = nullptr;
        h.previous = last_;
        (last_ != nullptr ? last_->next : first_) = &h;
        last_ = &h;
        ++size_;
    }
    held<T>* remove(held<T>& h) noexcept {
        (h.previous != nullptr ? h.previous->next : first_) = h.next;
        (h.next != nullptr ? h.next->previous : last_) = h.previous;
        --size_;
        return &h;
    }

private:
    held<T>* first_ = nullptr;
    held<T>* last_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace mailroom::detail
