// page: what a cursor knows of `span` offsets in a row.
//
// One word for each offset holds its whole state while it is in the lane, the lock-free path of plain first deliveries:
//
//   fresh ----> leased ----> ended ----> released          receive, ack
//     |            \-------> moved (entry) -> released     nack, reject, a lease that ran out: the index takes over
//     |            \-------> lost -------> released        purged, or the endpoint is gone: the holder cleans up
//     |\---------------------------------> released        pop: the claim is the settlement; and what a filter does not let through
//     |\-------------------> popped -----> released        pop where the body is shared: its receiver looks at it, settled as it is
//     \--------------------> moved (entry) -> released     delayed, or taken over by the index before it was handed out
//   absent -----------------------------> released         not for this cursor; as any other it belongs to the thread whose claim took it
//
// `leased -> X` is a CAS: whoever succeeds owns the outcome, everybody else finds out that it is too late. `released` is stored with
// release after the body has ended; a page is complete, and its block free, when all its words were seen (acquire) to say so.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/message/settler.hpp>
#include <mailroom/stream/directory.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mailroom::detail {

struct entry;

/// The state of one offset in the lane: a tag in the low bits and, above, the end of the lease or the entry's address.
class lane_state {
public:
    enum tag : std::uint64_t { fresh = 0, leased = 1, ended = 2, released = 3, moved = 4, lost = 5, deferred = 6, absent = 7 };

    static constexpr std::uint64_t of(tag t) noexcept { return t; }
    /// Settled, its body still looked at by whoever popped it.
    static constexpr std::uint64_t popped = std::uint64_t{1} << 3 | ended;
    static_assert(popped == look_word::held && released == look_word::over);
    /// Deadlines are nanoseconds since the cursor began; 36 years fit, and stand for ever.
    static constexpr duration latest{(std::int64_t{1} << 60) - 1};
    static constexpr std::uint64_t lease_until(duration deadline) noexcept {
        const duration d = deadline < duration::zero() ? duration::zero() : deadline > latest ? latest : deadline;
        return static_cast<std::uint64_t>(d.count()) << 3 | leased;
    }
    /// There was no memory for the entry it needs; the next step tries again. `attempt`: of the delivery that has ended, 0: none.
    static constexpr std::uint64_t deferred_after(std::uint32_t attempt) noexcept { return std::uint64_t{attempt} << 3 | deferred; }
    static constexpr std::uint32_t attempt(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word >> 3); }
    static std::uint64_t to(const entry* e) noexcept { return reinterpret_cast<std::uintptr_t>(e) | moved; }

    static constexpr tag kind(std::uint64_t word) noexcept { return static_cast<tag>(word & 7); }
    static constexpr duration deadline(std::uint64_t word) noexcept { return duration(static_cast<std::int64_t>(word >> 3)); }
    static entry* target(std::uint64_t word) noexcept { return reinterpret_cast<entry*>(static_cast<std::uintptr_t>(word & ~std::uint64_t{7})); }
};

struct page {
    page* next_free = nullptr;
    offset first = 0;
    void* block = nullptr;            // of the stream
    duration earliest{};              // no lease in this page ends before; guarded by the cursor's mutex
    std::uint32_t done = 0;           // slots released by the index; likewise
    std::atomic<bool> watched{false}; // whether `earliest` counts: the first lease in a page makes it so
    std::array<std::atomic<std::uint64_t>, span> state;

    /// The page one of whose words this is.
    static page& of(std::atomic<std::uint64_t>& word, std::uint32_t i) noexcept {
        return *reinterpret_cast<page*>(reinterpret_cast<std::byte*>(&word - i) - offsetof(page, state));
    }

    bool complete() const noexcept {
        for (const auto& word : state) {
            if (word.load(std::memory_order_acquire) != lane_state::released) { return false; }
        }
        return true;
    }
};

/// Pages by their first offset. Those that leave are mostly the first: that costs no more than a step.
class page_list {
public:
    auto begin() const noexcept { return pages_.begin() + static_cast<std::ptrdiff_t>(gone_); }
    auto end() const noexcept { return pages_.end(); }
    bool empty() const noexcept { return size() == 0; }
    std::size_t size() const noexcept { return pages_.size() - gone_; }
    page& operator[](std::size_t i) const noexcept { return *pages_[gone_ + i]; }

    /// The page of the span that begins at `first`, or nullptr.
    page* find(offset first) const noexcept {
        const auto at = place_of(first);
        return at != end() && (*at)->first == first ? *at : nullptr;
    }
    /// Adds one that begins later than all others. May throw std::bad_alloc.
    void push_back(page& p) { pages_.push_back(&p); }
    /// Takes one out, if it is there.
    void erase(const page& p) noexcept {
        const auto at = place_of(p.first);
        if (at == end() || *at != &p) { return; }
        if (at != begin()) {
            pages_.erase(at);
        } else if (++gone_ > 32 && gone_ > pages_.size() / 2) {
            pages_.erase(pages_.begin(), begin());
            gone_ = 0;
        }
    }
    /// Moves all to the end of `to`, which has room for them.
    void clear_into(std::vector<page*>& to) noexcept {
        to.insert(to.end(), begin(), end());
        clear();
    }
    void clear() noexcept {
        pages_.clear();
        gone_ = 0;
    }

private:
    std::vector<page*>::const_iterator place_of(offset first) const noexcept {
        return std::lower_bound(begin(), end(), first, [](const page* p, offset o) { return p->first < o; });
    }
    std::vector<page*> pages_;
    std::size_t gone_ = 0; // from the beginning
};

} // namespace mailroom::detail
