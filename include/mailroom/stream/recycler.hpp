// recycler: a free list that learns how much is worth keeping.
//
// It keeps nothing at first. When a node is needed soon after one was given back to the allocator, that was a mistake, and it keeps one
// more from then on, `most` at the most. So steady work allocates nothing, a single burst leaves nothing behind, and repeated small bursts
// are remembered. Not thread-safe: its owner's mutex protects it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

namespace mailroom::detail {

/// `Node` has a member `Node* next_free`.
template <class Node>
class recycler {
    // A mebibyte at the most, and not fewer than 64 nodes.
    static constexpr std::size_t most = std::max<std::size_t>(64, (std::size_t{1} << 20) / sizeof(Node));

public:
    recycler() = default;
    recycler(const recycler&) = delete;
    recycler& operator=(const recycler&) = delete;
    ~recycler() {
        while (free_ != nullptr) { delete std::exchange(free_, free_->next_free); }
    }

    /// A node in whatever state it was given back in, or nullptr: the caller makes a new one.
    Node* take() noexcept {
        if (free_ != nullptr) {
            --count_;
            return std::exchange(free_, free_->next_free);
        }
        if (mistakes_ > 0) {
            --mistakes_;
            if (keep_ < most) { ++keep_; }
        }
        return nullptr;
    }
    /// The same, or a new one. May throw std::bad_alloc.
    Node* get() {
        Node* const node = take();
        return node != nullptr ? node : new Node;
    }

    /// Takes a node back. Returns one to be deleted, or nullptr: deleting can wait until the mutex is free.
    Node* put(Node* node) noexcept {
        if (count_ < keep_) {
            node->next_free = free_;
            free_ = node;
            ++count_;
            return nullptr;
        }
        if (mistakes_ < most) { ++mistakes_; }
        return node;
    }

private:
    Node* free_ = nullptr;
    std::size_t count_ = 0;
    std::size_t keep_ = 0;
    std::size_t mistakes_ = 0; // nodes given back that may be needed again
};

} // namespace mailroom::detail
