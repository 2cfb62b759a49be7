// cursor: the consumption state of one subscription over one stream.
//
// The class, its invariants and its lock-free side: detail/cursor_class.hpp. What happens under its mutex, in the order in which each builds
// on the one before: detail/session.hpp, pages.hpp, outcomes.hpp, claims.hpp; and here what concerns the cursor as a whole.
#pragma once

#include <mailroom/cursor/detail/claims.hpp>

namespace mailroom::detail {

inline void cursor::pause(bool on) noexcept {
    session s(*this);
    paused_.store(on, std::memory_order_relaxed);
}

inline cursor::rest cursor::remaining() noexcept {
    const std::lock_guard lock(mutex_);
    const auto& n = index_.count();
    const offset taken = moving_ ? stopped_at_ : next();
    if (moving_) { return rest::momentarily; }
    if (n.ready + n.parked + n.leased + shelf_.size() + deferred_ != 0 || host_.head() > taken) { return rest::some; }
    rest result = rest::nothing;
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span && p.first + i < taken; ++i) {
            const auto kind = lane_state::kind(p.state[i].load(std::memory_order_seq_cst));
            if (kind == lane_state::leased) {
                result = rest::some;
            } else if ((kind == lane_state::fresh || kind == lane_state::absent) && result == rest::nothing) {
                result = rest::momentarily;
            }
        }
    });
    return result;
}

/// What has expired unasked is known to be dead, or not, before the dead are looked at.
inline void cursor::settle_doubts() noexcept {
    if (!options_.filtered) { return; }
    session s(*this);
    step(s, clock_.now());
    try {
        absorb(s, timed_until_);
    } catch (...) {} // no memory: it is not known yet
}

inline offset cursor::lowest_needed() noexcept {
    const std::lock_guard lock(mutex_);
    offset lowest = taken_until(host_.head());
    each_page([&](const page& p) { lowest = std::min(lowest, p.first); });
    return lowest;
}

inline void cursor::restore(offset until) {
    session s(*this);
    absorb(s, std::min(until, host_.head()));
    trim_dead(s);
}

/// The oldest that nobody holds, taken out of the lane if it is there; nullptr: there is none, or no memory to see it with.
inline entry* cursor::oldest(session& s) noexcept {
    try {
        while (index_.oldest() == nullptr && shelf_.empty() && next() < host_.head()) { absorb(s, host_.head(), 1); }
        const duration now = clock_.now();
        while (!shelf_.empty()) {
            const std::size_t level = shelf_.lowest();
            const entry* const e = index_.oldest();
            if (e != nullptr && e->offset < shelf_.front(level)) { break; }
            unshelve(s, level, now);
        }
    } catch (...) {}
    return index_.oldest();
}

inline bool cursor::drop_oldest() noexcept {
    session s(*this);
    const duration now = clock_.now();
    step(s, now);
    entry* const e = oldest(s);
    if (e == nullptr) { return false; }
    index_.take_out(*e);
    drop(s, *e, now);
    return true;
}

/// The message at `o` goes if nobody holds it; with no memory for that it stays.
inline bool cursor::withdraw(offset o) noexcept {
    session s(*this);
    if (stopped_) { return false; }
    const duration now = clock_.now();
    entry* e = nullptr;
    try {
        absorb(s, o + 1, static_cast<std::size_t>(o + 1));
        e = index_.find(o);
        if (e == nullptr) { e = find_shelved(s, o); }
    } catch (...) { return false; }
    if (e == nullptr || e->settled || e->holders != 0) { return false; }
    if (e->where != entry::place::ready && e->where != entry::place::waiting && e->where != entry::place::parked) { return false; }
    index_.take_out(*e);
    drop(s, *e, now);
    return true;
}

inline duration cursor::oldest_droppable() noexcept {
    session s(*this);
    step(s, clock_.now());
    const entry* const e = oldest(s);
    return e != nullptr ? e->sent : clock::never;
}

inline cursor::drop_outlook cursor::droppable() noexcept {
    session s(*this);
    step(s, clock_.now());
    const offset head = host_.head();
    const offset taken = taken_until(head);
    const std::uint64_t in_lane = head - taken - host_.count_absent(taken, head);
    drop_outlook o{index_.count().ready + index_.count().parked + shelf_.size() + static_cast<std::size_t>(in_lane), index_.leased_bytes()};
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span && p.first + i < taken; ++i) {
            const auto kind = lane_state::kind(p.state[i].load(std::memory_order_relaxed));
            if (kind == lane_state::leased || kind == lane_state::fresh) { o.held_bytes += host_.weight(p.block, i); }
        }
    });
    return o;
}

inline std::size_t cursor::purge() {
    constexpr std::size_t some = 1024; // in one stay under the mutex
    const offset until = host_.head();
    std::size_t gone = 0;
    for (bool first = true;; first = false) {
        session s(*this);
        const duration now = clock_.now();
        if (first) {
            each_page([&](page& p) {
                for (std::uint32_t i = 0; i < span; ++i) {
                    std::uint64_t seen = p.state[i].load(std::memory_order_relaxed);
                    while (lane_state::kind(seen) == lane_state::leased) {
                        if (p.state[i].compare_exchange_weak(seen, lane_state::of(lane_state::lost), std::memory_order_acq_rel)) {
                            const cursor_host::view v = host_.look(p.block, i);
                            if (v.cover != nullptr) { host_.forget(*v.cover, p.first + i); }
                            entry gone_one;
                            gone_one.offset = p.first + i;
                            record(gone_one, cursor_host::fate::settled);
                            s.left(1, static_cast<std::int64_t>(v.bytes));
                            ++gone;
                        }
                    }
                }
            });
        }
        if (deferred_ != 0) { retry_deferred(now); }
        const std::size_t before = gone;
        absorb(s, until, some);
        const auto all = [&](auto next) {
            while (entry* const e = next()) {
                index_.take_out(*e);
                e->lapsed = false;
                remove(s, *e, now);
                ++gone;
            }
        };
        do {
            all([&] { return index_.best(); });
            all([&] { return index_.next_parked(); });
            all([&] { return index_.next_lease(); });
            restock(s, now);
        } while (index_.eligible() != 0 && gone - before < some);
        if (next() >= until && index_.eligible() == 0) {
            unacked_ += static_cast<std::int64_t>(gone);
            dropped_ += gone;
            return gone;
        }
    }
}

inline cursor::counters cursor::count() noexcept {
    settle_doubts();
    session s(*this);
    step(s, clock_.now());
    try {
        absorb(s, timed_until_); // what is delayed is parked, wherever it lies
        const auto& n = index_.count();
        while (n.ready + n.parked + n.leased + shelf_.size() == 0 && next() < host_.head()) {
            absorb(s, host_.head(), 1);
        } // the oldest, to look at it
    } catch (...) {}
    try_restock(s, clock_.now());
    counters c;
    const offset head = host_.head();
    const offset taken = taken_until(head);
    c.ready = static_cast<std::size_t>(head - taken - host_.count_absent(taken, head)) + index_.count().ready + shelf_.size() + deferred_;
    c.in_flight = index_.count().leased;
    c.parked = index_.count().parked;
    c.dead = index_.count().dead;
    c.bytes = host_.weigh(taken, head) + host_.weigh_unread(shelf_.size());
    std::size_t momentary = 0;
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span && p.first + i < taken; ++i) {
            const auto kind = lane_state::kind(p.state[i].load(std::memory_order_acquire));
            if (kind == lane_state::fresh) { ++c.in_flight; }
            if (kind == lane_state::absent) { ++momentary; }
            if (kind != lane_state::leased) { continue; }
            ++c.in_flight;
            c.bytes += host_.weight(p.block, i);
            if (c.oldest != clock::never) { continue; }
            c.oldest = host_.sent_if_plain(p.block, i); // the first that is out is the oldest that is out
            if (c.oldest == duration::min()) {
                c.oldest = clock::never;
                if (take_lease(p, i) != nullptr) { // an entry now, and counted as one below
                    c.bytes -= host_.weight(p.block, i);
                }
            }
        }
    });
    index_.each([&](const entry& e) {
        if (e.settled || e.where == entry::place::dead || e.where == entry::place::held_dead) { return; }
        c.bytes += e.bytes;
        c.oldest = std::min(c.oldest, e.sent);
    });
    const std::int64_t unsettled = static_cast<std::int64_t>(index_.count().ready + shelf_.size() + deferred_ + c.in_flight + c.parked + momentary);
    const std::int64_t skipped = static_cast<std::int64_t>(skipped_.load(std::memory_order_relaxed));
    c.acked = static_cast<std::uint64_t>(std::max<std::int64_t>(0, static_cast<std::int64_t>(taken) - uncounted_ - unsettled - unacked_ - skipped));
    c.filtered = filtered_.load(std::memory_order_relaxed);
    c.redelivered = redelivered_;
    c.expired = expired_;
    c.dropped = dropped_;
    return c;
}

template <class Fn>
void cursor::browse(Fn fn) {
    std::vector<offset> places;
    shelf unread(options_.priorities);
    offset next_unread = 0, end = 0; // of the lane
    {
        session s(*this);
        step(s, clock_.now());
        if (loads_by_itself()) {
            unread = shelf_;
            next_unread = next();
            end = host_.head();
        } else {
            absorb(s, host_.head());
        }
        each_page([&](page& p) {
            for (std::uint32_t i = 0; i < span; ++i) { take_lease(p, i); }
        });
        places.reserve(index_.size());
        index_.each([&](const entry& e) {
            if (!e.settled) { places.push_back(e.offset); }
        });
    }
    std::sort(places.begin(), places.end());
    // What nobody has loaded is loaded for the look, whoever is given it meanwhile: it was there.
    const auto show = [&](offset o) {
        entry e;
        e.offset = o;
        if (!host_.fetch(e)) { return true; }
        struct ending {
            cursor& c;
            entry& e;
            ~ending() { c.host_.end(e); }
        } const later{*this, e};
        const duration now = clock_.now();
        if (expiry({e.body, e.cover, e.sent, e.bytes}) <= now) { return true; }
        return fn(std::as_const(e), e.cover != nullptr && e.cover->due > now ? entry::place::parked : entry::place::ready);
    };
    const auto show_shelved = [&](offset until) {
        while (!unread.empty() && unread.front(unread.lowest()) < until) {
            const offset o = unread.front(unread.lowest());
            unread.pop(unread.lowest());
            if (!show(o)) { return false; }
        }
        return true;
    };
    for (const offset o : places) {
        if (!show_shelved(o)) { return; }
        entry* e = nullptr;
        entry::place where{};
        {
            const std::lock_guard lock(mutex_);
            e = index_.find(o);
            if (e == nullptr || e->settled || e->body == nullptr || e->where == entry::place::dead || e->where == entry::place::held_dead) {
                continue;
            }
            where = e->where;
            if (where == entry::place::waiting) { where = e->in_order.linked ? entry::place::parked : entry::place::ready; }
            ++e->holders;
        }
        struct hold {
            cursor& c;
            entry& e;
            ~hold() {
                session s(c);
                c.let_go(s, e);
            }
        } const held{*this, *e};
        if (!fn(std::as_const(*e), where)) { return; }
    }
    if (!show_shelved(end)) { return; }
    while (next_unread < end && show(next_unread)) { ++next_unread; }
}

// ----------------------------------------------------------------------------------------------------------------------- dead letters

template <class Give>
bool cursor::claim_dead(Give give, offset o) {
    settle_doubts();
    session s(*this);
    step(s, clock_.now());
    entry* const e = o == no_offset ? index_.next_dead() : index_.find(o);
    if (e == nullptr || e->where != entry::place::dead || stopped_) { return false; }
    ++e->turn;
    give(*e);
    index_.hold_dead(*e);
    ++e->holders;
    return true;
}

inline cursor::outcome cursor::settle_dead(entry& e, dead_verb what) noexcept {
    session s(*this);
    if (orphaned_) { return {false, true}; }
    const bool done = !e.settled;
    if (done && what == dead_verb::put_back) {
        index_.return_dead(e);
    } else if (done) {
        index_.take_out(e);
        --unacked_;
        if (what == dead_verb::revive) {
            revive(s, e, clock_.now());
        } else {
            e.settled = true;
            record(e, cursor_host::fate::settled);
        }
    }
    let_go(s, e);
    return {done, false};
}

inline std::vector<offset> cursor::dead_places() {
    settle_doubts();
    session s(*this);
    step(s, clock_.now());
    std::vector<offset> places;
    index_.each_dead([&](const entry& e) { places.push_back(e.offset); });
    return places;
}

inline std::size_t cursor::dead_count() noexcept {
    settle_doubts();
    session s(*this);
    step(s, clock_.now());
    return index_.count().dead;
}

inline std::size_t cursor::redrive(std::size_t most) noexcept {
    settle_doubts();
    session s(*this);
    const duration now = clock_.now();
    step(s, now);
    std::size_t n = 0;
    for (; n < most; ++n) {
        entry* const e = index_.next_dead();
        if (e == nullptr) { break; }
        index_.take_out(*e);
        --unacked_;
        revive(s, *e, now);
    }
    return n;
}

inline std::size_t cursor::purge_dead() noexcept {
    settle_doubts();
    session s(*this);
    step(s, clock_.now());
    std::size_t n = 0;
    while (entry* const e = index_.next_dead()) {
        index_.take_out(*e);
        e->settled = true;
        record(*e, cursor_host::fate::settled);
        if (e->holders == 0) { s.finish(*e); }
        ++n;
    }
    dropped_ += n;
    return n;
}

// ------------------------------------------------------------------------------------------------------------------------------ moving

inline offset cursor::unsettled(std::vector<offset>& before) {
    const std::lock_guard lock(mutex_);
    const offset head = host_.head();
    const offset taken = taken_until(head);
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span && p.first + i < taken; ++i) {
            const auto kind = lane_state::kind(p.state[i].load(std::memory_order_acquire));
            if (kind == lane_state::leased || kind == lane_state::fresh || kind == lane_state::deferred) { before.push_back(p.first + i); }
        }
    });
    index_.each([&](const entry& e) {
        if (!e.settled && e.where != entry::place::dead && e.where != entry::place::held_dead) { before.push_back(e.offset); }
    });
    return host_.all_from(taken, before);
}

/// Whether nobody is between claiming a message and saying what becomes of it. What is leased or looked at loses its hold on the way.
inline bool cursor::quiesced(session* s) noexcept {
    bool quiet = true;
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span; ++i) {
            auto& word = p.state[i];
            std::uint64_t seen = word.load(std::memory_order_acquire);
            while ((lane_state::kind(seen) == lane_state::leased || seen == lane_state::popped) &&
                   !word.compare_exchange_weak(seen, lane_state::of(lane_state::lost), std::memory_order_acq_rel, std::memory_order_acquire)) {}
            const auto kind = lane_state::kind(seen);
            if (kind == lane_state::leased && s != nullptr) {
                ++unacked_;
                s->left(1, static_cast<std::int64_t>(host_.weight(p.block, i)));
            }
            if (kind == lane_state::ended && seen != lane_state::popped) { quiet = false; }
            if ((kind == lane_state::fresh || kind == lane_state::absent) && p.first + i < stopped_at_) { quiet = false; }
        }
    });
    return quiet;
}

/// A message counts no more, whoever holds it. The entry is nowhere.
inline void cursor::depart(session& s, entry& e, duration now) noexcept {
    e.lapsed = false;
    if (e.holders != 0) {
        index_.forget(e);
        e.departed = true;
        departed_.push_back(e);
    }
    remove(s, e, now);
}

template <class Move>
void cursor::seek(offset to, Move move) {
    {
        session s(*this);
        if (stopped_) { return; }
        std::size_t pages = 0;
        each_page([&](page&) { ++pages; });
        stale_.reserve(pages + 1); // who was about to claim may open one more
        moving_ = stopped_ = true;
        stopped_at_ = place_in(next_.exchange(nothing_left, std::memory_order_seq_cst)); // and finds nothing
    }
    for (unsigned round = 0;; ++round) {
        {
            session s(*this);
            if (quiesced(&s)) {
                move_to(s, to, move);
                return;
            }
        }
        clock_.relax(round);
    }
}

template <class Move>
void cursor::move_to(session& s, offset to, Move& move) noexcept {
    const duration now = clock_.now();
    move(stopped_at_, pages_until_.load(std::memory_order_relaxed));
    entry* chain = nullptr;
    index_.each([&](entry& e) { // expired, and somebody is asking the filter about it: he ends it when he is back
        if (e.settled || e.where != entry::place::nowhere) { return; }
        e.node = chain; // bodies are shared: no node is in use
        chain = &e;
    });
    while (chain != nullptr) {
        entry& e = *chain;
        chain = static_cast<entry*>(std::exchange(e.node, nullptr));
        ++unacked_;
        depart(s, e, now);
    }
    const auto all = [&](auto next) {
        while (entry* const e = next()) {
            ++unacked_;
            index_.take_out(*e);
            depart(s, *e, now);
        }
    };
    do {
        all([&] { return index_.best(); });
        all([&] { return index_.next_parked(); });
        all([&] { return index_.next_lease(); });
    } while (index_.eligible() != 0);
    index_.each([&](entry& e) { // the dead that will be read again
        if (e.offset < to || host_.count_absent(e.offset, e.offset + 1) != 0 || e.settled ||
            (e.where != entry::place::dead && e.where != entry::place::held_dead)) {
            return;
        }
        e.node = chain;
        chain = &e;
    });
    while (chain != nullptr) {
        entry& e = *chain;
        chain = static_cast<entry*>(std::exchange(e.node, nullptr));
        index_.take_out(e);
        s.left(-1, static_cast<std::int64_t>(e.bytes)); // it left when it died
        depart(s, e, now);
    }
    index_.each([&](entry& e) { // settled, and still looked at: its place may be another's soon
        if (!e.settled) { return; }
        e.node = chain;
        chain = &e;
    });
    while (chain != nullptr) {
        entry& e = *chain;
        chain = static_cast<entry*>(std::exchange(e.node, nullptr));
        index_.forget(e);
        e.departed = true;
        departed_.push_back(e);
    }
    // Pages go when what is out of them is back.
    page* done = nullptr;
    stragglers_.clear_into(stale_);
    for (std::uint64_t at = pages_.lowest(); at < pages_.highest(); ++at) {
        if (page* const p = pages_.in_span(at)) { stale_.push_back(p); }
    }
    for (page* const p : stale_) {
        pages_.remove(p->first, p);
        for (std::uint32_t i = 0; i < span; ++i) {
            const auto kind = lane_state::kind(p->state[i].load(std::memory_order_relaxed));
            if (kind == lane_state::deferred) {
                --deferred_;
                ++unacked_;
            }
            if (kind == lane_state::deferred || kind == lane_state::fresh || kind == lane_state::absent) {
                p->state[i].store(lane_state::released, std::memory_order_relaxed);
            }
        }
        if (p->complete()) {
            p->next_free = done;
            done = p;
        }
    }
    while (done != nullptr) { free_page(*std::exchange(done, done->next_free)); }

    uncounted_ += static_cast<std::int64_t>(to) - static_cast<std::int64_t>(stopped_at_);
    begun_ = to;
    pages_until_.store(to - index_in_span(to), std::memory_order_relaxed);
    lane_lease_ = clock::never;
    if (to < timed_until_) { timed_expiry_ = now; } // these are watched again
    ++moves_;                                       // who read `next_` before, and finds the same place now, does not find the same word
    next_.store(moves_ << move_shift | to << 1 | (always_index_ ? 1 : 0), std::memory_order_seq_cst);
    is_gated_ = always_index_;
    moving_ = stopped_ = false;
    index_.each_dead([this](const entry& e) { // those that stay were not settled
        record(e, cursor_host::fate::revived);
        record(e, cursor_host::fate::tried);
    });
}

// ---------------------------------------------------------------------------------------------------------------------------- the end

template <class Keep>
void cursor::orphan(Keep keep) noexcept {
    {
        const std::lock_guard lock(mutex_);
        stopped_ = true;
        gate_.store(0, std::memory_order_relaxed);
        index_state_.store(index_shut, std::memory_order_seq_cst);
        stopped_at_ = place_in(next_.exchange(nothing_left, std::memory_order_seq_cst)); // whoever was about to claim finds nothing
    }
    for (unsigned round = 0;; ++round) {
        {
            const std::lock_guard lock(mutex_);
            if (quiesced(nullptr)) { // nobody is about to say what becomes of a message, and may need the mutex for that
                std::size_t out = 0;
                each_page([&](page& p) {
                    for (const auto& word : p.state) { out += lane_state::kind(word.load(std::memory_order_relaxed)) == lane_state::lost ? 1u : 0u; }
                });
                index_.each([&](const entry& e) { out += e.holders; });
                for (const entry* e = departed_.front(); e != nullptr; e = e->next) { out += e->holders; }
                orphaned_ = true;
                keep(out);
                return;
            }
        }
        clock_.relax(round);
    }
}

inline void cursor::clear() noexcept {
    const auto end_slot = [&](void* block, std::uint32_t i) {
        const cursor_host::view v = host_.look(block, i);
        page stand_in;
        stand_in.block = block;
        entry e;
        e.home = &stand_in;
        e.index = i;
        e.body = v.body;
        e.cover = v.cover;
        host_.end(e);
    };
    index_.each([&](entry& e) { host_.end(e); });
    while (entry* const e = departed_.pop_front()) {
        host_.end(*e);
        index_.recycle(*e);
    }
    const offset head = options_.shares_bodies || options_.loaded ? 0 : host_.head();
    for (offset o = stopped_at_; o < head; ++o) { end_slot(host_.block_of(o), index_in_span(o)); }
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span; ++i) {
            const auto kind = lane_state::kind(p.state[i].load(std::memory_order_acquire));
            const bool unread = kind == lane_state::fresh && options_.loaded && !options_.shares_bodies && host_.is_filled(p.block, i);
            if (kind == lane_state::lost || kind == lane_state::deferred || unread) { end_slot(p.block, i); }
        }
        host_.release_block(p.first, p.block);
        pages_.remove(p.first, &p);
        delete &p;
    });
    stragglers_.clear();
    stale_.clear();
}

} // namespace mailroom::detail
