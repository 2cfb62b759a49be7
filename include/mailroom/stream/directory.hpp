// directory: from an offset to the node (a block of messages, a page of a cursor) that holds it.
//
// A ring of pointers, one for each span of `span` offsets between the lowest and the highest that are installed; it doubles when they
// lie further apart. One writer at a time (its owner's mutex); `find` takes no lock.
//
// Who may call `find(o)`: a thread that knows the node of `o` was installed (it read, with acquire, a limit that the installer raised
// afterwards, with release) and that cannot be removed before this thread is done with it (it owns an offset in that node). So `find`
// reads an entry that nobody writes meanwhile. Tables that were outgrown stay until the end: a slow reader may still look into one, and
// its entry there is as good as in the newest. Together they are no larger than the newest.
#pragma once

#include <mailroom/base/basics.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace mailroom::detail {

/// How many offsets share a block, or a page. 32 keeps an endpoint that was used and drained small; larger blocks save a receiver some
/// cache misses at their borders.
inline constexpr unsigned span_bits = 5;
inline constexpr std::uint32_t span = 1u << span_bits;

inline constexpr std::uint64_t span_of(offset o) noexcept { return o >> span_bits; }
inline constexpr std::uint32_t index_in_span(offset o) noexcept { return static_cast<std::uint32_t>(o & (span - 1)); }

template <class Node>
class directory {
public:
    directory() = default;
    directory(const directory&) = delete;
    directory& operator=(const directory&) = delete;
    ~directory() {
        for (table* t = current_.load(std::memory_order_relaxed); t != nullptr;) {
            table* const older = t->older;
            ::operator delete(t);
            t = older;
        }
    }

    /// The node of `o`. See above who may ask.
    Node* find(offset o) const noexcept {
        const table* const t = current_.load(std::memory_order_acquire);
        return t->entries()[span_of(o) & t->mask].load(std::memory_order_relaxed);
    }

    /// Writer only: makes room for the node of `o`, the next above all installed. May throw std::bad_alloc, then nothing is changed.
    void reserve(offset o) {
        table* const t = current_.load(std::memory_order_relaxed);
        if (t != nullptr) {
            if (lowest_ == highest_) { lowest_ = highest_ = span_of(o); }
            if (span_of(o) - lowest_ <= t->mask) { return; }
            advance();
            if (span_of(o) - lowest_ <= t->mask) { return; }
        }
        table* const bigger = make_table(t == nullptr ? 16 : (t->mask + 1) * 2);
        if (t != nullptr) {
            for (std::uint64_t s = lowest_; s != highest_; ++s) {
                bigger->entries()[s & bigger->mask].store(t->entries()[s & t->mask].load(std::memory_order_relaxed), std::memory_order_relaxed);
            }
        } else {
            lowest_ = highest_ = span_of(o);
        }
        bigger->older = t;
        current_.store(bigger, std::memory_order_release);
    }

    /// Writer only, after `reserve(o)`.
    void install(offset o, Node* node) noexcept {
        table* const t = current_.load(std::memory_order_relaxed);
        t->entries()[span_of(o) & t->mask].store(node, std::memory_order_relaxed);
        highest_ = span_of(o) + 1;
    }

    /// Writer only: whether installing `o` needs a larger table.
    bool is_full_for(offset o) const noexcept {
        const table* const t = current_.load(std::memory_order_relaxed);
        return t != nullptr && lowest_ != highest_ && span_of(o) - lowest_ > t->mask;
    }
    /// Writer only: the spans [lowest, highest) that may be installed, and the node of one of them, or nullptr.
    std::uint64_t lowest() const noexcept { return lowest_; }
    std::uint64_t highest() const noexcept { return highest_; }
    Node* in_span(std::uint64_t s) const noexcept {
        const table* const t = current_.load(std::memory_order_relaxed);
        return t->entries()[s & t->mask].load(std::memory_order_relaxed);
    }

    /// Writer only: forgets the node of `o`, if it is `node`.
    void remove(offset o, const Node* node) noexcept {
        const std::uint64_t s = span_of(o);
        if (s < lowest_ || s >= highest_) { return; }
        table* const t = current_.load(std::memory_order_relaxed);
        auto& entry = t->entries()[s & t->mask];
        if (entry.load(std::memory_order_relaxed) == node) { entry.store(nullptr, std::memory_order_relaxed); }
        advance();
    }

private:
    // The entries follow the table in the same allocation: one load less on each look-up.
    struct table {
        explicit table(std::uint64_t size) noexcept : mask(size - 1) { std::uninitialized_value_construct_n(entries(), size); }
        std::atomic<Node*>* entries() noexcept { return reinterpret_cast<std::atomic<Node*>*>(this + 1); }
        const std::atomic<Node*>* entries() const noexcept { return reinterpret_cast<const std::atomic<Node*>*>(this + 1); }
        std::uint64_t mask;
        table* older = nullptr;
    };
    static table* make_table(std::uint64_t size) {
        return ::new (::operator new(sizeof(table) + static_cast<std::size_t>(size) * sizeof(std::atomic<Node*>))) table(size);
    }

    void advance() noexcept {
        table* const t = current_.load(std::memory_order_relaxed);
        while (lowest_ != highest_ && t->entries()[lowest_ & t->mask].load(std::memory_order_relaxed) == nullptr) { ++lowest_; }
    }

    std::atomic<table*> current_{nullptr};
    std::uint64_t lowest_ = 0; // spans [lowest_, highest_) may be installed
    std::uint64_t highest_ = 0;
};

} // namespace mailroom::detail
