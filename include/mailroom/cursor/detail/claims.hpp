// Handing messages of the index out, and settling what is out.
#pragma once

#include <mailroom/cursor/detail/outcomes.hpp>

namespace mailroom::detail {

/// Takes into the index, or on the shelf, what there may be to choose from. Messages in memory cost no more there than in the lane; of those that are
/// stored elsewhere, unless any may be the most urgent, no more is looked at than is asked for.
inline void cursor::absorb_enough(session& s, std::size_t max, std::uint32_t claimant) {
    const offset head = host_.head();
    if (!options_.loaded || options_.priorities > 1) {
        absorb(s, head);
        return;
    }
    const auto enough = [&] { return options_.shares != nullptr ? index_.best_for(claimant) != nullptr : index_.eligible() + shelf_.size() >= max; };
    while (next() < head && may_claim(claimant) && !enough()) { absorb(s, head, span); }
}

template <class Give>
std::size_t cursor::claim_index(std::size_t max, Give give, std::uint32_t claimant) {
    session s(*this);
    const duration now = clock_.now();
    step(s, now);
    if (always_index_ && !stopped_) { absorb_enough(s, max, claimant); }
    std::size_t n = 0;
    restock(s, now);
    for (; n < max && may_claim(claimant); ++n) {
        entry* const e = try_restock(s, now) ? best_for(claimant) : nullptr;
        if (e == nullptr) { break; }
        index_.take_out(*e);
        e->claimant = claimant;
        if (++e->attempt > 1) { ++redelivered_; }
        e->lapsed = false;
        ++e->turn;
        ++e->holders;
        index_.lease(*e, lease_end(now));
        give(*e);
    }
    return n;
}

template <class Give>
std::size_t cursor::pop_index(std::size_t max, bool copyable, bool& passed_over, Give give, std::uint32_t claimant) {
    entry* chain = nullptr;
    passed_over = false;
    {
        session s(*this);
        const duration now = clock_.now();
        step(s, now);
        if (always_index_ && !stopped_) { absorb_enough(s, max, claimant); }
        restock(s, now);
        entry* last = nullptr;
        entry* aside = nullptr; // not to be had: somebody looks at it, and there can be no copy
        for (std::size_t n = 0; n < max && may_claim(claimant);) {
            entry* const e = try_restock(s, now) ? best_for(claimant) : nullptr;
            if (e == nullptr) { break; }
            index_.take_out(*e);
            if (e->holders != 0 && !copyable) {
                e->next = aside;
                aside = e;
                continue;
            }
            if (e->attempt > 0) { ++redelivered_; }
            // Settled from here on: nobody else can come to look at it. `holders` says whether somebody does already.
            e->settled = true;
            record(*e, cursor_host::fate::settled);
            e->shared = e->holders != 0;
            ++e->holders;
            if (options_.shares_bodies) { // its receiver will look at it: one more, with a turn of its own
                ++e->holders;
                ++e->turn;
            }
            index_.leave_group(*e, now);
            s.left(*e);
            if (e->cover != nullptr) { host_.forget(*e->cover, e->offset); }
            e->next_free = nullptr; // not `next`: whoever moves the cursor meanwhile lists what is looked at
            (last != nullptr ? last->next_free : chain) = e;
            last = e;
            ++n;
        }
        while (aside != nullptr) {
            entry& e = *std::exchange(aside, aside->next);
            e.next = nullptr;
            index_.enter(e, now, now, false);
            passed_over = true;
        }
    }
    if (chain == nullptr) { return 0; }
    std::size_t given = 0;
    // What was given goes; the rest, after a copy or the receiver threw, comes back.
    struct finish {
        cursor& c;
        entry* chain;
        const std::size_t& given;
        ~finish() {
            session s(c);
            for (std::size_t n = 0; chain != nullptr; ++n) {
                entry& e = *std::exchange(chain, chain->next_free);
                if (n >= given) {
                    if (c.options_.shares_bodies) {
                        --e.holders;
                        --e.turn;
                    }
                    if (!e.departed) { c.come_back(s, e, c.clock_.now()); }
                }
                c.let_go(s, e);
            }
        }
    };
    const finish later{*this, chain, given};
    for (entry* e = chain; e != nullptr; e = e->next_free) {
        struct count {
            std::size_t& given;
            bool out = false;
            ~count() { given += out ? 1 : 0; }
        } done{given};
        give(*e, done.out);
    }
    return given;
}

inline std::size_t cursor::judge(const verdict* verdicts, std::size_t n) noexcept {
    session s(*this);
    const duration now = clock_.now();
    std::size_t orphans = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const handle& at = verdicts[i].of;
        entry& e = *static_cast<entry*>(at.where);
        if (verdicts[i].wanted) {
            e.unsifted = false;
        } else if (orphaned_) {
            ++orphans;
        } else if (!e.settled && e.turn == at.turn && e.where == entry::place::leased) {
            index_.take_out(e);
            --e.holders;
            ignore(s, e, now);
        } else {
            let_go(s, e);
        }
    }
    return orphans;
}

inline void cursor::sift(bool only_parked) {
    std::vector<offset> places;
    {
        session s(*this);
        step(s, clock_.now());
        absorb(s, host_.head());
        if (only_parked && !parked_unsifted_) { return; }
        index_.each([&](const entry& e) {
            if (!e.settled && e.unsifted && (!only_parked || e.due > duration::min())) { places.push_back(e.offset); }
        });
        parked_unsifted_ = false;
    }
    std::sort(places.begin(), places.end());
    for (const offset o : places) {
        entry* e = nullptr;
        {
            const std::lock_guard lock(mutex_);
            e = index_.find(o);
            if (e == nullptr || e->settled || !e->unsifted || e->where == entry::place::nowhere) { continue; }
            ++e->holders;
        }
        const bool wanted = host_.wants(*e);
        session s(*this);
        if (wanted) {
            e->unsifted = false;
        } else if (!e->settled && e->unsifted && e->attempt == 0 && e->where != entry::place::nowhere) {
            index_.take_out(*e);
            ignore(s, *e, clock_.now());
        }
        let_go(s, *e);
    }
}

// ---------------------------------------------------------------------------------------------------------------------------- members

inline void cursor::assign(std::uint32_t member) noexcept {
    const session s(*this);
    wanted_ = member;
    if (owner_ == 0 || index_.count().leased == 0) { owner_ = wanted_; }
}

inline void cursor::add_member(std::uint32_t member) {
    const session s(*this);
    index_.make_level(member);
}

inline void cursor::remove_member(std::uint32_t member) noexcept {
    const session s(*this);
    index_.clear_level(member);
}

inline void cursor::lapse() noexcept {
    session s(*this);
    const duration now = clock_.now();
    each_page([&](page& p) {
        for (std::uint32_t i = 0; i < span; ++i) { take_lease(p, i); }
    });
    lapse_chain(s, now, [](const entry&) { return true; });
}

inline void cursor::lapse(std::uint32_t claimant) noexcept {
    session s(*this);
    lapse_chain(s, clock_.now(), [&](const entry& e) { return e.claimant == claimant; });
}

/// Collected first: what is leased is in no list, and what becomes of one may concern others.
template <class Which>
void cursor::lapse_chain(session& s, duration now, Which which) noexcept {
    entry* chain = nullptr;
    index_.each([&](entry& e) {
        if ((e.where != entry::place::leased && !e.lapsed) || !which(std::as_const(e))) { return; }
        e.claimant = left_member;
        if (e.where != entry::place::leased || e.kept) { return; }
        e.next = chain;
        chain = &e;
    });
    while (chain != nullptr) {
        entry& e = *std::exchange(chain, chain->next);
        e.next = nullptr;
        lapse(s, e, now);
    }
}

inline bool cursor::may_have(offset head, std::uint32_t claimant) noexcept {
    const std::lock_guard lock(mutex_);
    if (!may_claim(claimant)) { return false; }
    return head > next() || (options_.shares != nullptr ? index_.has_for(claimant) : index_.eligible() != 0);
}

// --------------------------------------------------------------------------------------------------------------------------- settling

inline bool cursor::apply(session& s, entry& e, const handle& at, verb what, duration after, std::string_view reason) noexcept {
    const bool mine = !e.settled && e.turn == at.turn && (e.where == entry::place::leased || e.lapsed);
    if (!mine) {
        let_go(s, e);
        return false;
    }
    // Only what waits for its key, or for a time, needs to know what time it is.
    const duration now = what == verb::ack && e.group == nullptr ? duration::zero() : clock_.now();
    index_.take_out(e);
    --e.holders;
    e.lapsed = e.kept = false;
    switch (what) {
    case verb::ack: remove(s, e, now); break;
    case verb::pop:
        ++e.holders;
        ++e.turn;
        remove(s, e, now);
        break;
    case verb::nack: fail(s, e, now, later(now, pause_after(options_.retry, e.attempt, e.offset)), reason_attempts); break;
    case verb::nack_after: fail(s, e, now, later(now, std::max(after, duration::zero())), reason_attempts); break;
    case verb::release:
        --e.attempt;
        record(e, cursor_host::fate::tried);
        index_.enter(e, now, now, false);
        move_out(e);
        break;
    case verb::reject: die(s, e, now, reason.empty() ? reason_rejected : reason); break;
    }
    return true;
}

template <class Give>
bool cursor::claim_at(offset o, Give give) {
    session s(*this);
    absorb(s, o + 1);
    entry* e = index_.find(o);
    if (e == nullptr) { e = find_shelved(s, o); }
    if (e == nullptr || e->settled || e->where == entry::place::dead || e->where == entry::place::held_dead) { return false; }
    if (!index_.reclaim(*e, clock_.now())) { return false; } // one of its key is handed out
    ++e->attempt;
    e->lapsed = false;
    ++e->turn;
    ++e->holders;
    e->kept = true;
    index_.lease(*e, clock::never);
    give(handle{e, e->turn, e->attempt, e->offset});
    return true;
}

inline cursor::outcome cursor::settle(const handle& at, verb what, duration after, std::string reason) noexcept {
    bool done = false;
    bool orphan = false;
    page* lost = nullptr;
    {
        session s(*this);
        orphan = orphaned_;
        if (orphan) {
            // Everything is ended by the one who comes last.
        } else if (at.turn != 0) {
            done = apply(s, *static_cast<entry*>(at.where), at, what, after, reason);
        } else {
            page& p = *static_cast<page*>(at.where);
            const std::uint32_t i = index_in_span(at.place);
            entry* e = take_lease(p, i);
            const std::uint64_t seen = p.state[i].load(std::memory_order_acquire);
            if (e == nullptr && lane_state::kind(seen) == lane_state::moved) { e = lane_state::target(seen); }
            if (e != nullptr) {
                done = apply(s, *e, at, what, after, reason);
            } else if (lane_state::kind(seen) == lane_state::leased) {
                defer(p, i, what == verb::release ? 0 : 1); // no memory: back in the queue without its pause, when there is some
                done = true;
            } else if (lane_state::kind(seen) == lane_state::lost) {
                p.state[i].store(lane_state::of(lane_state::ended), std::memory_order_release);
                host_.hold();
                lost = &p;
            }
        }
    }
    if (lost != nullptr) {
        end_lost(*lost, index_in_span(at.place));
        host_.let_go();
    }
    return {done, orphan};
}

/// The holder of a purged message lets go. Called without the mutex: the word says `ended`, so nobody else comes near.
inline void cursor::end_lost(page& p, std::uint32_t i) noexcept {
    const cursor_host::view v = host_.look(p.block, i);
    entry e;
    e.home = &p;
    e.index = i;
    e.body = v.body;
    e.cover = v.cover;
    host_.end(e);
    const std::lock_guard lock(mutex_);
    release_slot(p, i);
}

inline bool cursor::extend(const handle& at, duration lease, bool never_shorter) noexcept {
    // By its offset: the holder may settle it meanwhile, and what it stands for be gone. But after a `seek` the offset may be another's.
    return extend_if(
        at.place, lease, [&](const entry& e) { return e.turn == at.turn && (at.turn == 0 ? e.home : static_cast<const void*>(&e)) == at.where; },
        [&](const page& p) { return at.turn == 0 && &p == at.where; }, never_shorter);
}

inline bool cursor::extend(offset o, std::uint32_t attempt, duration lease) noexcept {
    return extend_if(
        o, lease, [&](const entry& e) { return e.attempt == attempt; }, [&](const page&) { return attempt == 1; });
}

/// A delivery of the index is leased until then, if it may still be.
inline bool cursor::hold_on(entry& e, duration until, duration now, bool never_shorter) noexcept {
    if (e.kept) { return true; }
    if (e.where == entry::place::leased) {
        if (!never_shorter || e.when < until) { index_.extend(e, until); }
        return true;
    }
    if (!e.lapsed || e.claimant == left_member || (options_.assigned && e.claimant != owner_) || !index_.reclaim(e, now)) { return false; }
    index_.lease(e, until);
    e.lapsed = false;
    return true;
}

inline bool cursor::keep(const handle& at) noexcept {
    session s(*this);
    if (stopped_) { return false; }
    entry* e = index_.find(at.place);
    if (e == nullptr && at.turn == 0) { // it is in the lane, or it is another page's by now
        page* const p = page_of(at.place);
        if (p == at.where && p != nullptr) { e = take_lease(*p, index_in_span(at.place)); }
    }
    if (e == nullptr || e->settled || e->turn != at.turn || (at.turn == 0 ? e->home : static_cast<const void*>(e)) != at.where) { return false; }
    if (!hold_on(*e, clock::never, clock_.now(), false)) { return false; }
    return e->kept = true;
}

inline bool cursor::has_lost(const handle& at) noexcept {
    const std::lock_guard lock(mutex_);
    if (orphaned_) { return false; }
    const entry* const e = index_.find(at.place);
    return e == nullptr || e->settled || e->turn != at.turn || !e->kept;
}

inline void cursor::give_back(const handle& at, duration lease) noexcept {
    session s(*this);
    entry* const e = stopped_ ? nullptr : index_.find(at.place);
    if (e == nullptr || e->settled || e->turn != at.turn || !e->kept) { return; }
    e->kept = false;
    const duration now = clock_.now();
    if (e->claimant == left_member) {
        lapse(s, *e, now);
    } else {
        index_.extend(*e, later(now, lease));
    }
}

template <class Match, class MatchPage>
bool cursor::extend_if(offset o, duration lease, Match match, MatchPage in_lane, bool never_shorter) noexcept {
    session s(*this);
    if (stopped_) { return false; }
    const duration now = clock_.now();
    const duration until = later(now, std::max(lease, duration::zero()));
    if (entry* const e = index_.find(o)) { return !e->settled && match(std::as_const(*e)) && hold_on(*e, until, now, never_shorter); }
    page* const p = page_of(o);
    if (p == nullptr || !in_lane(std::as_const(*p))) { return false; }
    auto& word = p->state[index_in_span(o)];
    std::uint64_t seen = word.load(std::memory_order_relaxed);
    while (lane_state::kind(seen) == lane_state::leased) {
        if (never_shorter && deadline_of(seen) >= until) { return true; }
        if (word.compare_exchange_weak(seen, word_of(until), std::memory_order_acq_rel, std::memory_order_relaxed)) {
            p->earliest = std::min(p->earliest, until);
            lane_lease_ = std::min(lane_lease_, until);
            return true;
        }
    }
    return false;
}

} // namespace mailroom::detail
