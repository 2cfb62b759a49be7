// held: a message that a consumer has taken and not settled, and the lists such messages wait in.
//
// Threads: none of its own and no locks; the engine guards its lists with its mutex.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/message/delivery.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

namespace mailroom::detail {

/// A message between take and settlement.
template <class T>
struct held {
    std::optional<delivery<T>> message;
    offset place = 0;
    std::uint64_t key = 0; // hash; 0: none. Two keys of one hash share a limit: stricter, never looser
    duration since{};      // when it was taken, then when its handler began
    std::uint32_t attempt = 0;
    int partition = 0;
    held* previous = nullptr;
    held* next = nullptr;

    void adopt(delivery<T>&& d, duration now, bool keyed) {
        place = d.offset();
        partition = d.partition();
        attempt = d.attempt();
        key = keyed && !d.props().key.empty() ? std::hash<std::string_view>()(d.props().key) | 1 : 0;
        since = now;
        message.emplace(std::move(d));
    }
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
