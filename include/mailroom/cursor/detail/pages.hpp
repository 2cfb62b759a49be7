// The pages of a cursor, and how messages pass from the lane into the index.
#pragma once

#include <mailroom/cursor/detail/session.hpp>

namespace mailroom::detail {

inline void cursor::open_next_page(offset at, duration lease_from) {
    const session s(*this);
    open_page(at, lease_from);
}

/// The first lease is about to be given, at time `t`, in a page that was opened without; tells those who sleep, if none ends before.
inline void cursor::watch(page& p, duration t) noexcept {
    const session s(*this);
    p.earliest = std::min(p.earliest, lease_end(t));
    lane_lease_ = std::min(lane_lease_, p.earliest);
    p.watched.store(true, std::memory_order_relaxed);
}

inline void cursor::open_page(offset at, duration lease_from) {
    const offset first = pages_until_.load(std::memory_order_relaxed);
    if (at < first) { return; } // somebody was faster
    tidy();
    constexpr std::uint64_t enough = 64; // a table so small may as well hold old pages
    while (pages_.is_full_for(first) && first / span - pages_.lowest() >= enough) {
        page* const p = pages_.in_span(pages_.lowest());
        const bool sealed = std::none_of(p->state.begin(), p->state.end(), [](const auto& word) {
            const auto kind = lane_state::kind(word.load(std::memory_order_relaxed));
            return kind == lane_state::fresh || kind == lane_state::absent;
        });
        if (!sealed) { break; }    // a claimer may still look it up
        stragglers_.push_back(*p); // pages leave the directory from its lower end: the order holds
        pages_.remove(p->first, p);
        host_.detach_block(p->first, p->block);
    }
    pages_.reserve(first);
    page* const p = spare_pages_.get();
    p->first = first;
    try {
        p->block = host_.block_of(first);
    } catch (...) { // no memory for what is loaded from a journal
        delete spare_pages_.put(p);
        throw;
    }
    p->earliest = lease_from != clock::never ? lease_end(lease_from) : clock::never;
    p->watched.store(lease_from != clock::never || options_.lease <= duration::zero(), std::memory_order_relaxed);
    p->done = begun_ > first ? static_cast<std::uint32_t>(begun_ - first) : 0;
    const std::uint32_t absent = host_.absent(first, p->block);
    for (std::uint32_t i = 0; i < span; ++i) {
        const auto tag = i < p->done ? lane_state::released : (absent >> i & 1u) != 0 ? lane_state::absent : lane_state::fresh;
        p->state[i].store(tag, std::memory_order_relaxed);
    }
    pages_.install(first, p);
    lane_lease_ = std::min(lane_lease_, p->earliest);
    pages_until_.store(first + span, std::memory_order_release);
}

/// Looks at a few pages, in turn: those that are complete go. A page opened pays for looking at four, so none waits for long.
inline void cursor::tidy() noexcept {
    for (int i = 0; i < 4; ++i) {
        if (scan_ < pages_.lowest() || scan_ >= pages_.highest()) { scan_ = pages_.lowest(); }
        if (scan_ == pages_.highest()) { break; }
        if (page* const p = pages_.in_span(scan_++)) { tidy_page(*p); }
    }
    if (!stragglers_.empty()) {
        if (++scan_straggler_ >= stragglers_.size()) { scan_straggler_ = 0; }
        tidy_page(stragglers_[scan_straggler_]);
    }
    if (!stale_.empty()) { tidy_page(*stale_[++scan_stale_ % stale_.size()]); }
}

inline void cursor::tidy_page(page& p) noexcept {
    if (p.complete()) {
        free_page(p);
    } else {
        relieve(p);
    }
}

/// A page that only a few messages of the index still need, and nobody holds: they move out, so that the block is free for others.
inline void cursor::relieve(page& p) noexcept {
    constexpr std::uint32_t few = span / 8;
    std::uint32_t kept = 0;
    for (const auto& word : p.state) {
        const std::uint64_t seen = word.load(std::memory_order_relaxed);
        if (lane_state::kind(seen) == lane_state::released) { continue; }
        if (lane_state::kind(seen) != lane_state::moved || lane_state::target(seen)->holders != 0 || ++kept > few) { return; }
    }
    for (std::uint32_t i = 0; i < span; ++i) {
        const std::uint64_t seen = p.state[i].load(std::memory_order_acquire);
        if (lane_state::kind(seen) == lane_state::released) { continue; }
        move_out(*lane_state::target(seen)); // the last one may free the page
        if (--kept == 0) { return; }
    }
}

inline void cursor::free_page(page& p) noexcept {
    host_.release_block(p.first, p.block);
    pages_.remove(p.first, &p);
    stragglers_.erase(p);
    if (!stale_.empty()) { std::erase(stale_, &p); }
    delete spare_pages_.put(&p);
}

inline page* cursor::page_of(offset o) const noexcept {
    const std::uint64_t s = span_of(o);
    if (s >= pages_.lowest() && s < pages_.highest()) {
        page* const p = pages_.in_span(s);
        if (p != nullptr) { return p; }
    }
    return stragglers_.find(o - index_in_span(o));
}

template <class Fn>
void cursor::each_page(Fn fn) noexcept {
    for (page* const p : stragglers_) { fn(*p); }
    for (page* const p : stale_) { fn(*p); }
    for (std::uint64_t s = pages_.lowest(); s < pages_.highest(); ++s) {
        if (page* const p = pages_.in_span(s)) { fn(*p); }
    }
}

/// The index is done with a slot: its body has ended or moved out.
inline void cursor::release_slot(page& p, std::uint32_t i) noexcept {
    p.state[i].store(lane_state::released, std::memory_order_release);
    if (++p.done == span) { free_page(p); }
}

// ----------------------------------------------------------------------------------------------------------- from the lane to the index

/// When a message expires: by its own time to live, or else by the one for all.
inline duration cursor::expiry(const cursor_host::view& v) const noexcept {
    if (v.cover != nullptr && v.cover->expires != clock::never) { return v.cover->expires; }
    return options_.time_to_live > duration::zero() ? later(v.sent, options_.time_to_live) : clock::never;
}

/// An entry for a slot, in no place yet. May throw std::bad_alloc.
inline entry* cursor::make_entry(page& p, std::uint32_t i, const cursor_host::view& v) {
    std::uint64_t key = 0;
    if (options_.ordered_by_key && v.cover != nullptr && !v.cover->props.key.empty()) {
        key = std::hash<std::string_view>()(v.cover->props.key) | 1; // two keys of one hash share an order: stricter, never looser
    }
    entry* const e = index_.make(p.first + i, key);
    e->home = &p;
    e->index = i;
    e->body = v.body;
    e->cover = v.cover;
    e->bytes = v.bytes;
    e->sent = v.sent;
    e->due = duration::min();
    e->expires = expiry(v);
    e->unsifted = options_.filtered;
    if (v.cover != nullptr) {
        e->due = v.cover->due;
        e->level = level_of(v.cover->props.priority);
    }
    return e;
}

inline void cursor::defer(page& p, std::uint32_t i, std::uint32_t attempt) noexcept {
    p.state[i].store(lane_state::deferred_after(attempt), std::memory_order_release);
    ++deferred_;
}

inline void cursor::retry_deferred(duration now) noexcept {
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span && deferred_ != 0; ++i) {
            const std::uint64_t seen = p.state[i].load(std::memory_order_relaxed);
            if (lane_state::kind(seen) != lane_state::deferred) { continue; }
            try {
                const cursor_host::view v = host_.look(p.block, i);
                if (v.body == nullptr) [[unlikely]] { // it was never looked at before
                    const bool is_last = p.done + 1 == span;
                    --deferred_;
                    skipped_.fetch_add(1, std::memory_order_relaxed);
                    release_slot(p, i);
                    if (is_last) { return; } // the page is gone
                    continue;
                }
                entry* const e = make_entry(p, i, v);
                e->attempt = lane_state::attempt(seen);
                p.state[i].store(lane_state::to(e), std::memory_order_release);
                --deferred_;
                index_.enter(*e, now, e->due, false);
            } catch (...) { return; }
        }
    });
}

inline void cursor::divert(page& p, std::uint32_t i, bool sifted) noexcept {
    session s(*this);
    const duration now = clock_.now();
    try {
        const cursor_host::view v = host_.look(p.block, i);
        if (v.body == nullptr) [[unlikely]] {
            leave_out(p, i);
            return;
        }
        entry* const e = make_entry(p, i, v);
        e->unsifted = !sifted;
        p.state[i].store(lane_state::to(e), std::memory_order_release);
        if (e->expires <= now) {
            expire(s, *e, now);
        } else {
            index_.enter(*e, now, e->due, false);
            move_out(*e);
        }
    } catch (...) { defer(p, i, 0); }
}

inline void cursor::put_back(page& p, std::uint32_t popped, std::uint32_t slots) noexcept {
    session s(*this);
    if (p.state[popped].load(std::memory_order_acquire) != lane_state::popped) { return; }
    const duration now = clock_.now();
    for (std::uint32_t i = 0; i < span; ++i) {
        if ((slots >> i & 1u) == 0) { continue; }
        try {
            entry* const e = make_entry(p, i, host_.look(p.block, i));
            e->unsifted = false;
            p.state[i].store(lane_state::to(e), std::memory_order_release);
            index_.enter(*e, now, e->due, false);
        } catch (...) { defer(p, i, 0); }
    }
}

/// Of slots [from, end) of a page, notes on the shelf those that need not be loaded yet; a bit for each. May throw std::bad_alloc.
inline std::uint32_t cursor::put_on_shelf(page& p, std::uint32_t from, std::uint32_t end) {
    if (!loads_by_itself() || (shelf_.empty() && index_.eligible() < options_.window)) { return 0; }
    std::array<int, span> priorities{};
    std::uint32_t mask = 0;
    for (std::uint32_t i = from; i < end; ++i) { mask |= std::uint32_t{1} << i; }
    mask = host_.survey(p.block, mask, priorities);
    for (std::uint32_t i = from; i < end; ++i) {
        const std::size_t level = level_of(priorities[i]);
        if (shelf_.empty(level) && (index_.eligible() < options_.window || index_.is_dry(level))) { mask &= ~(std::uint32_t{1} << i); }
    }
    mask = host_.pass_over(p.block, mask); // who claimed a neighbour before may have loaded it meanwhile
    std::uint32_t shelved = 0;
    try {
        for (std::uint32_t i = from; i < end; ++i) {
            if ((mask >> i & 1u) == 0) { continue; }
            shelf_.push(level_of(priorities[i]), p.first + i);
            shelved |= std::uint32_t{1} << i;
        }
    } catch (...) { host_.take_up(p.block, mask & ~shelved); } // those are loaded, or deferred
    return shelved;
}

/// Takes what lies in the lane below `until` into the index, or on the shelf, and answers the last that has not expired. May throw std::bad_alloc;
/// nothing is lost then.
inline entry* cursor::absorb(session& s, offset until, std::size_t most) {
    const duration now = clock_.now();
    entry* alive = nullptr;
    until = std::min(until, host_.head()); // what is to be watched may not be visible yet, in a journal
    while (most != 0) {
        std::uint64_t word = next_.load(std::memory_order_relaxed);
        const offset at = place_in(word);
        if (at >= until) { break; }
        if (at >= pages_until_.load(std::memory_order_relaxed)) { open_page(at); }
        const std::size_t n = std::min({most, static_cast<std::size_t>(until - at), static_cast<std::size_t>(span - index_in_span(at))});
        // With the flag: from here on these are older than all of the lane, and no claim of the lane may overtake them.
        if (!next_.compare_exchange_weak(word, (word + 2 * n) | 1, std::memory_order_seq_cst, std::memory_order_relaxed)) { continue; }
        is_gated_ = true;
        gate_.store(0, std::memory_order_relaxed);
        page& p = *pages_.find(at);
        most -= n;
        std::uint32_t i = index_in_span(at);
        const std::uint32_t end = i + static_cast<std::uint32_t>(n);
        std::uint32_t shelved = 0;
        try {
            shelved = put_on_shelf(p, i, end);
            for (; i < end; ++i) {
                if ((shelved >> i & 1u) != 0) {
                    release_slot(p, i);
                    continue;
                }
                if (lane_state::kind(p.state[i].load(std::memory_order_relaxed)) == lane_state::absent) {
                    skipped_.fetch_add(1, std::memory_order_relaxed);
                    release_slot(p, i); // the page goes with the last of its slots, and that is the last of this round
                    continue;
                }
                const cursor_host::view v = host_.look(p.block, i);
                if (v.body == nullptr) [[unlikely]] {
                    skipped_.fetch_add(1, std::memory_order_relaxed);
                    release_slot(p, i);
                    continue;
                }
                entry* const e = make_entry(p, i, v);
                p.state[i].store(lane_state::to(e), std::memory_order_release);
                if (options_.recorded && restore(s, *e, now)) {
                    alive = e;
                } else if (e->expires <= now) {
                    expire(s, *e, now); // a keyed message that expires behind others of its key has no turn to give up
                } else {
                    index_.enter(*e, now, e->due, shelf_.empty(e->level));
                    parked_unsifted_ = parked_unsifted_ || (e->unsifted && e->due > now);
                    alive = e;
                }
            }
        } catch (...) {
            for (; i < end; ++i) {
                if ((shelved >> i & 1u) != 0) {
                    release_slot(p, i);
                } else if (!skip_absent(p, i)) {
                    defer(p, i, 0);
                }
            }
            throw;
        }
    }
    return alive;
}

/// An entry with its body for what is on the shelf, in no place yet; nullptr: it is lost. May throw std::bad_alloc; then nothing has changed.
inline entry* cursor::load(offset o) {
    entry* const e = index_.make(o, 0);
    const auto discard = [&] {
        index_.forget(*e);
        index_.recycle(*e);
    };
    bool is_there = false;
    try {
        is_there = host_.fetch(*e);
    } catch (...) {
        discard();
        throw;
    }
    if (is_there) { return e; }
    discard();
    return nullptr;
}

/// What was loaded has left the shelf and enters the index. Nullptr: it is lost, or has expired.
inline entry* cursor::come_off_shelf(session& s, entry* e, std::size_t level, duration now, bool fresh) noexcept {
    if (e == nullptr) {
        skipped_.fetch_add(1, std::memory_order_relaxed);
        return nullptr;
    }
    e->due = duration::min();
    e->expires = expiry({e->body, e->cover, e->sent, e->bytes});
    e->level = static_cast<std::uint16_t>(level);
    if (e->expires <= now) {
        expire(s, *e, now);
        return nullptr;
    }
    index_.enter(*e, now, now, fresh);
    return e;
}

/// The first of a level leaves the shelf. Nullptr: it is lost, or has expired. May throw std::bad_alloc; then nothing has changed.
inline entry* cursor::unshelve(session& s, std::size_t level, duration now) {
    entry* const e = load(shelf_.front(level));
    shelf_.pop(level);
    return come_off_shelf(s, e, level, now, true);
}

/// Of what is on the shelf, the message at `o`, in the index now; nullptr: it is not there, or not any more. May throw std::bad_alloc; then nothing
/// has changed.
inline entry* cursor::find_shelved(session& s, offset o) {
    if (shelf_.empty()) { return nullptr; }
    shelf others = shelf_;
    const int level = others.take(o);
    if (level < 0) { return nullptr; }
    entry* const e = load(o);
    shelf_ = std::move(others);
    return come_off_shelf(s, e, static_cast<std::size_t>(level), clock_.now(), false);
}

/// Every level of which something is on the shelf has something ready in the index. May throw std::bad_alloc.
inline void cursor::restock(session& s, duration now) {
    constexpr int some = 32;
    for (std::size_t level = 0; level < shelf_.levels(); ++level) {
        if (!index_.is_dry(level)) { continue; }
        for (int n = 0; n < some && !shelf_.empty(level);) { n += unshelve(s, level, now) != nullptr ? 1 : 0; }
    }
}
inline bool cursor::try_restock(session& s, duration now) noexcept {
    if (shelf_.empty()) { return true; }
    try {
        restock(s, now);
        return true;
    } catch (...) { return false; }
}

/// A plain delivery becomes an entry, still out. Null: it is no longer leased, or there is no memory (then it is still leased).
inline entry* cursor::take_lease(page& p, std::uint32_t i) noexcept {
    auto& word = p.state[i];
    std::uint64_t seen = word.load(std::memory_order_acquire);
    if (lane_state::kind(seen) != lane_state::leased) { return nullptr; }
    entry* e = nullptr;
    try {
        e = index_.make(p.first + i, 0);
    } catch (...) { return nullptr; }
    while (!word.compare_exchange_weak(seen, lane_state::to(e), std::memory_order_acq_rel, std::memory_order_acquire)) {
        if (lane_state::kind(seen) != lane_state::leased) { // settled meanwhile
            index_.forget(*e);
            index_.recycle(*e);
            return nullptr;
        }
    }
    // Only now is what the message carries safe to look at: its holder can no longer end it without the mutex.
    const cursor_host::view v = host_.look(p.block, i);
    e->home = &p;
    e->index = i;
    e->body = v.body;
    e->cover = v.cover;
    e->bytes = v.bytes;
    e->sent = v.sent;
    e->due = duration::min();
    e->expires = expiry(v);
    e->attempt = 1;
    e->holders = 1;
    index_.lease(*e, deadline_of(seen));
    return e;
}

} // namespace mailroom::detail
