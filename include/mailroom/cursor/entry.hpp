// entry: everything a cursor knows of one message that is not a plain first delivery: parked, retried, prioritised, keyed, dead.
//
// An entry belongs to the cursor's index and is guarded by the cursor's mutex; deliveries of it hold its address. It is freed when its
// message is settled and no delivery of it is out (`holders`).
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/cursor/heap.hpp>
#include <mailroom/cursor/page.hpp>

#include <cstdint>
#include <memory>
#include <string>

namespace mailroom::detail {

struct envelope;
struct key_group;

/// What is remembered of a message's failures, for the dead letters.
struct obituary {
    std::string reason;
    time_point first_failure;
    time_point last_failure;
};

struct entry {
    enum class place : std::uint8_t {
        nowhere,  // being decided by the thread that holds the mutex
        ready,    // may be handed out
        waiting,  // behind an earlier message of its key
        parked,   // not before `when`
        leased,   // handed out until `when`
        dead,     // among the dead letters
        held_dead // a dead letter that somebody looks at
    };

    entry* next_free = nullptr;
    entry* next_same_bucket = nullptr;
    mailroom::offset offset = 0;

    // The body stands in slot `index` of `home`, or, when that is null, in a node of its own.
    page* home = nullptr;
    void* node = nullptr;
    const void* body = nullptr;
    detail::envelope* cover = nullptr;
    std::uint32_t index = 0;
    std::uint64_t bytes = 0;
    duration sent{};

    duration when{}; // parked: due; leased: end of the lease
    duration due{};  // not before (a delay given at send)
    duration expires = duration::max();

    key_group* group = nullptr;
    std::unique_ptr<obituary> history;
    std::uint32_t attempt = 0;  // of the delivery that is out, or of the last one
    std::uint32_t turn = 0;     // of the latest hand-out: 0 the lane's, then 1, 2, ...
    std::uint32_t holders = 0;  // deliveries, and looks by `browse`, that point to it
    std::uint32_t claimant = 0; // to whom it was handed out, where that matters
    std::uint16_t level = 0;    // its priority, or the member its key belongs to
    place where = place::nowhere;
    bool settled = false;  // gone for everybody but its holders
    bool shared = false;   // while it is popped: others look at the body
    bool unsifted = false; // the filter has not been asked
    bool departed = false; // the cursor was moved away from it: settled for good, and no longer to be found
    bool kept = false;     // a transaction decides about it: its lease does not end
    bool lapsed = false;   // the lease ran out, and nobody has been given it since: its holder may still settle it

    entry* previous = nullptr; // in a list
    entry* next = nullptr;
    heap_links<entry> in_order; // ready again, parked, leased
    heap_links<entry> in_expiry;
    heap_links<entry> in_age; // oldest first, where the oldest may be dropped
};

struct by_time {
    bool operator()(const entry& a, const entry& b) const noexcept { return a.when != b.when ? a.when < b.when : a.offset < b.offset; }
};
struct by_expiry {
    bool operator()(const entry& a, const entry& b) const noexcept { return a.expires != b.expires ? a.expires < b.expires : a.offset < b.offset; }
};
struct by_offset {
    bool operator()(const entry& a, const entry& b) const noexcept { return a.offset < b.offset; }
};

/// FIFO of entries, intrusive.
class entry_list {
public:
    bool empty() const noexcept { return first_ == nullptr; }
    entry* front() const noexcept { return first_; }
    entry* back() const noexcept { return last_; }

    void push_back(entry& e) noexcept { insert_after(last_, e); }
    /// Keeps the list in the order of offsets; O(1) for the highest.
    void insert_sorted(entry& e) noexcept {
        entry* before = last_;
        if (first_ != nullptr && e.offset < first_->offset) { before = nullptr; }
        while (before != nullptr && before->offset > e.offset) { before = before->previous; }
        insert_after(before, e);
    }
    void erase(entry& e) noexcept {
        (e.previous != nullptr ? e.previous->next : first_) = e.next;
        (e.next != nullptr ? e.next->previous : last_) = e.previous;
        e.previous = e.next = nullptr;
    }
    entry* pop_front() noexcept {
        entry* const e = first_;
        if (e != nullptr) { erase(*e); }
        return e;
    }

private:
    void insert_after(entry* before, entry& e) noexcept {
        e.previous = before;
        e.next = before != nullptr ? before->next : first_;
        (before != nullptr ? before->next : first_) = &e;
        (e.next != nullptr ? e.next->previous : last_) = &e;
    }
    entry* first_ = nullptr;
    entry* last_ = nullptr;
};

/// The messages of one key, where order per key is promised: one is current (ready, parked or leased), the others wait in order.
struct key_group {
    std::uint64_t key = 0;
    entry* current = nullptr;
    entry_list waiting;
};

} // namespace mailroom::detail
