// stream<T>: one log in memory. Dense offsets, total order, lock-free append.
//
// Invariants
//   1. An offset belongs to the sender whose CAS on `head_` took it. From then on that sender only does what cannot throw, so there are
//      no holes: every offset below head becomes ready.
//   2. A block is installed for every offset below `limit_`; a sender takes offsets below `limit_` only.
//   3. A block is released when all its offsets were settled, which needs all of them to have been taken and written. So whoever owns an
//      unsettled offset may use its block without protection, and nobody else touches a block: there is no stale access to guard against,
//      and a released block can be freed at once.
//   4. Where there are several readers, each is a tenant of each block from where it began on, until it leaves that block; so is whoever
//      retains messages, and he leaves a block, sealed, only when it is written. A block without tenants is nobody's: 3 holds for all of
//      them together. What some reader does not settle stays, what came after it may go: so there are holes, below `gone_until`.
//   5. Where messages are stored elsewhere there is a loader. Nobody takes offsets then: the head is told to `advance`, a block is there from
//      when a reader opens it until its last tenant leaves, and a slot is filled by the first who asks for its word.
//
// Memory order
//   install:  directory entry (relaxed) -> `limit_` store release.   sender: `limit_` load acquire -> find.                       (pair 1)
//   publish:  body, envelope -> `ready` store release.               reader: `ready` load acquire -> body.                        (pair 2)
//   reuse:    the cursor saw every slot released (acquire) -> `release` under `mutex_` -> `grow` under `mutex_` -> pair 1.
//   waking:   a waiter sets `waiters` by fetch_or on `head_`, and goes to sleep only if the head it got back holds nothing for it. A sender's
//             CAS on the same word comes after that in the word's modification order, so it sees the flag and wakes. No fence, no second word.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/stream/block.hpp>
#include <mailroom/stream/directory.hpp>
#include <mailroom/stream/recycler.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace mailroom::detail {

/// `head_`: the next offset, and two flags.
enum head_bits : std::uint64_t { head_closed = 1, head_waiters = 2, head_one = 4 };
inline constexpr unsigned head_shift = 2;

template <class T>
class stream {
public:
    /// With many readers, somebody decides what is retained for them.
    enum class readers : std::uint8_t { one, many };
    explicit stream(readers r = readers::one, loader<T>* from = nullptr) noexcept : tenants_(r == readers::one || from != nullptr ? 0 : 1), from_(from) {}
    stream(const stream&) = delete;
    stream& operator=(const stream&) = delete;

    /// Frees the blocks; the bodies in them must have ended.
    ~stream() {
        for (std::uint64_t s = blocks_.lowest(); s != blocks_.highest(); ++s) { delete blocks_.in_span(s); }
        for (const block<T>* const b : aside_) { delete b; }
    }

    offset head() const noexcept { return head_.load(std::memory_order_acquire) >> head_shift; }
    bool closed() const noexcept { return (head_.load(std::memory_order_acquire) & head_closed) != 0; }

    /// What `take` found.
    struct taken {
        offset first;
        bool taken;
        bool wake; // somebody waits for messages: call wake after `publish`
    };

    /// Takes `n` offsets in a row at time `now`, if `admit(first offset)` agrees and the stream is open; otherwise takes none.
    /// May throw std::bad_alloc, then nothing was taken.
    template <class Admit>
    taken take(std::uint64_t n, duration now, Admit admit) {
        std::uint64_t h = head_.load(std::memory_order_relaxed);
        for (;;) {
            const offset first = h >> head_shift;
            if ((h & head_closed) != 0) { return {first, false, false}; }
            if (first + n > limit_.load(std::memory_order_acquire)) { // pair 1
                grow(first + n, now);
                h = head_.load(std::memory_order_relaxed);
                continue;
            }
            if (!admit(first)) {
                // What the answer was based on may be older than the head: ask again only if the head moved.
                const std::uint64_t again = head_.load(std::memory_order_relaxed);
                if (again == h) { return {first, false, false}; }
                h = again;
                continue;
            }
            if (head_.compare_exchange_weak(h, h + n * head_one, std::memory_order_seq_cst, std::memory_order_relaxed)) {
                return {first, true, (h & head_waiters) != 0};
            }
        }
    }

    bool is_loaded() const noexcept { return from_ != nullptr; }
    /// Messages below `head` are stored.
    void advance(offset head) noexcept {
        std::uint64_t h = head_.load(std::memory_order_relaxed);
        while ((h >> head_shift) < head &&
               !head_.compare_exchange_weak(h, (h & (head_one - 1)) | head << head_shift, std::memory_order_seq_cst, std::memory_order_relaxed)) {}
    }
    /// Whether somebody waits for messages.
    bool has_waiters() const noexcept { return (head_.load(std::memory_order_seq_cst) & head_waiters) != 0; }
    /// The word of a slot whose offset is below the head.
    std::uint64_t written(block<T>& b, std::uint32_t i, clock& c) const noexcept {
        const std::uint64_t word = b.slots[i].ready.load(std::memory_order_acquire);
        if (word != slot_empty) [[likely]] { return word; }
        return from_ == nullptr ? wait_until_written(b.slots[i], c) : from_->load(b, i);
    }
    /// An empty block of loaded messages, for the one reader. May throw std::bad_alloc.
    block<T>* make_block(offset first, duration now) {
        std::unique_ptr<block<T>> b;
        {
            const std::lock_guard lock(mutex_);
            b.reset(spare_.take());
        }
        if (b == nullptr) { b = std::make_unique<block<T>>(); }
        for (auto& s : b->slots) { s.ready.store(slot_empty, std::memory_order_relaxed); }
        b->opened = now;
        b->first = first;
        b->tenants = 0;
        b->sealed = true;
        return b.release();
    }

    /// The block of an offset that the caller owns.
    block<T>* at(offset o) const noexcept { return blocks_.find(o); }

    /// Lets a block go that nobody will look up any more: its owner keeps the pointer until it releases it.
    void detach(offset first, const block<T>* b) noexcept {
        if (from_ != nullptr) { return; }
        const std::lock_guard lock(mutex_);
        blocks_.remove(first, b);
    }

    void close() noexcept { head_.fetch_or(head_closed, std::memory_order_seq_cst); }

    /// A receiver is about to sleep. Returns the head: sleep only if it holds nothing more.
    offset announce_waiter() noexcept { return head_.fetch_or(head_waiters, std::memory_order_seq_cst) >> head_shift; }
    void nobody_waits() noexcept { head_.fetch_and(~static_cast<std::uint64_t>(head_waiters), std::memory_order_seq_cst); }

    /// Takes back a block all of whose messages are settled and ended; `first` is its first offset.
    void release(offset first, block<T>* b) noexcept {
        block<T>* surplus = nullptr;
        {
            const std::lock_guard lock(mutex_);
            if (from_ == nullptr) { blocks_.remove(first, b); }
            surplus = spare_.put(b);
        }
        delete surplus;
    }

    // ------------------------------------------------------------------------------------------------------------- several readers

    /// One more reader, from the span that begins at `from` on.
    void admit(offset from) noexcept {
        if (from_ != nullptr) { return; }
        const std::lock_guard lock(mutex_);
        ++tenants_;
        each_block_from(from, [](block<T>& b) { ++b.tenants; });
    }
    /// A reader that had opened all below `from` is gone. Returns the blocks that have no tenants any more, chained, for their messages to be
    /// ended and the blocks to be recycled.
    [[nodiscard]] block<T>* dismiss(offset from) noexcept {
        if (from_ != nullptr) { return nullptr; } // it opened none of these
        const std::lock_guard lock(mutex_);
        --tenants_;
        block<T>* gone = nullptr;
        each_block_from(from, [&](block<T>& b) {
            if (--b.tenants == 0) {
                b.next_free = gone;
                gone = &b;
            }
        });
        for (block<T>* b = gone; b != nullptr; b = b->next_free) { remove(*b); }
        return gone;
    }
    /// Somebody wants to look at a block for a while; `leave` ends that. nullptr: it is gone, or not there yet.
    block<T>* visit(offset first) noexcept {
        const std::lock_guard lock(mutex_);
        block<T>* const b = installed(first);
        if (b != nullptr) { ++b->tenants; }
        return b;
    }
    /// A reader opens the block of loaded messages that begins at `first`; it is a tenant. May throw std::bad_alloc.
    block<T>* open(offset first, duration now) {
        if (block<T>* const b = visit(first)) { return b; }
        block<T>* made = make_block(first, now);
        const std::lock_guard lock(mutex_);
        if (block<T>* const b = installed(first)) { // somebody was faster
            delete spare_.put(made);
            ++b->tenants;
            return b;
        }
        try {
            aside_.insert(aside_.begin() + (aside_place(first) - aside_.begin()), made);
        } catch (...) {
            delete spare_.put(made);
            throw;
        }
        made->tenants = 1;
        return made;
    }
    /// The block of a tenant.
    block<T>* peek(offset first) const noexcept {
        const std::lock_guard lock(mutex_);
        return installed(first);
    }
    /// For the end, when nobody else is there.
    template <class Fn>
    void each_block(Fn fn) noexcept {
        each_block_from(0, fn);
    }
    /// A tenant leaves a block. True: it was the last; the messages are to be ended and the block to be recycled.
    [[nodiscard]] bool leave(block<T>* b) noexcept {
        const std::lock_guard lock(mutex_);
        if (--b->tenants != 0) { return false; }
        remove(*b);
        return true;
    }
    /// A block is written: no sender will look it up.
    void seal(block<T>* b) noexcept {
        const std::lock_guard lock(mutex_);
        b->sealed = true;
    }
    void recycle(block<T>* b) noexcept {
        block<T>* surplus = nullptr;
        {
            const std::lock_guard lock(mutex_);
            surplus = spare_.put(b);
        }
        delete surplus;
    }
    /// Before this, no block is there.
    offset lowest() const noexcept {
        const std::lock_guard lock(mutex_);
        return aside_.empty() ? blocks_.lowest() << span_bits : aside_.front()->first;
    }
    /// From here on no block is missing.
    offset gone_until() const noexcept {
        const std::lock_guard lock(mutex_);
        return gone_until_;
    }

private:
    block<T>* installed(offset first) const noexcept {
        const std::uint64_t s = span_of(first);
        if (from_ == nullptr && s >= blocks_.lowest() && s < blocks_.highest()) { return blocks_.in_span(s); }
        const auto at = aside_place(first);
        return at != aside_.end() && span_of((*at)->first) == s ? *at : nullptr;
    }
    template <class Fn>
    void each_block_from(offset from, Fn fn) noexcept {
        for (auto at = aside_place(from); at != aside_.end(); ++at) { fn(**at); }
        if (from_ != nullptr) { return; }
        for (std::uint64_t s = std::max(span_of(from), blocks_.lowest()); s < blocks_.highest(); ++s) {
            if (block<T>* const b = blocks_.in_span(s)) { fn(*b); }
        }
    }
    auto aside_place(offset from) const noexcept {
        return std::lower_bound(aside_.begin(), aside_.end(), span_of(from),
                                [](const block<T>* b, std::uint64_t s) { return span_of(b->first) < s; });
    }
    void remove(const block<T>& b) noexcept {
        if (from_ == nullptr) { blocks_.remove(b.first, &b); }
        const auto at = aside_place(b.first);
        if (at != aside_.end() && *at == &b) { aside_.erase(at); }
        if (from_ == nullptr) { gone_until_ = std::max(gone_until_, b.first + span); }
    }
    /// Something old would make the directory grow for ever: sealed blocks at its lower end go to a list. May throw
    /// std::bad_alloc.
    void set_aside_oldest(offset wanted) {
        while (blocks_.is_full_for(wanted)) {
            const std::uint64_t s = blocks_.lowest();
            block<T>* const b = blocks_.in_span(s);
            if (b == nullptr || !b->sealed) { return; }
            aside_.push_back(b); // blocks leave the directory from its lower end: the order holds
            blocks_.remove(s << span_bits, b);
        }
    }

    /// Installs blocks until `limit_` is at least `wanted`. A block is made and cleared without the mutex: who releases one does not wait
    /// for the allocator, or for pages of the system, to serve a sender.
    void grow(offset wanted, duration now) {
        std::unique_ptr<block<T>> next;
        for (;;) {
            {
                const std::lock_guard lock(mutex_);
                offset limit = limit_.load(std::memory_order_relaxed);
                if (next != nullptr && limit < wanted) { // otherwise somebody was faster
                    if (tenants_ != 0) { set_aside_oldest(limit); }
                    blocks_.reserve(limit);
                    next->opened = now;
                    next->first = limit;
                    next->tenants = tenants_;
                    next->sealed = false;
                    blocks_.install(limit, next.release());
                    limit_.store(limit += span, std::memory_order_release); // pair 1
                }
                if (limit >= wanted) { return; }
                next.reset(spare_.take());
            }
            if (next == nullptr) { next = std::make_unique<block<T>>(); }
            // Also brings the block into this core's cache, all lines at once.
            for (auto& s : next->slots) { s.ready.store(slot_empty, std::memory_order_relaxed); }
        }
    }

    alignas(64) std::atomic<std::uint64_t> head_{0}; // written by every sender
    alignas(64) std::atomic<offset> limit_{0};       // read by every sender, written once a block
    directory<block<T>> blocks_;
    mutable brief_mutex mutex_; // directory, spare blocks, tenants
    recycler<block<T>> spare_;
    std::vector<block<T>*> aside_; // old ones, in order
    std::uint32_t tenants_;        // of a new block
    loader<T>* const from_;        // or nullptr: they are in memory
    offset gone_until_ = 0;
};

} // namespace mailroom::detail
