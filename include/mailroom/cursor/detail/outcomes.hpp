// What time and failures do to messages: due, expired, retried, dead, alive again, gone.
#pragma once

#include <mailroom/cursor/detail/pages.hpp>
#include <mailroom/message/asking.hpp>

namespace mailroom::detail {

inline void cursor::step() noexcept {
    session s(*this);
    step(s, clock_.now());
}

inline void cursor::step(session& s, duration now) noexcept {
    if (stopped_) { return; }
    if (deferred_ != 0) { retry_deferred(now); }
    for (entry* e = index_.next_parked(); e != nullptr && e->when <= now; e = index_.next_parked()) { index_.due(*e, now); }
    for (entry* e = index_.next_lease(); e != nullptr && e->when <= now; e = index_.next_lease()) { lapse(s, *e, now); }
    if (lane_lease_ <= now) { sweep_lane(s, now); }
    if (lane_expiry_ <= now) { expire_lane(s, now); }
    if (timed_expiry_ <= now) {
        timed_expiry_ = clock::never;
        try {
            absorb(s, timed_until_);
            if (host_.head() < timed_until_) { timed_expiry_ = later(now, std::chrono::milliseconds(1)); }
        } catch (...) {
            timed_expiry_ = now; // again at the next step
        }
    }
    try_restock(s, now);
    for (entry* e = index_.next_expiry(); e != nullptr && e->expires <= now; e = index_.next_expiry()) {
        index_.take_out(*e);
        expire(s, *e, now);
        try_restock(s, now);
    }
}

/// Plain deliveries whose lease ran out become entries. Each page says before when it need not be looked at.
inline void cursor::sweep_lane(session& s, duration now) noexcept {
    duration next = clock::never;
    each_page([&](page& p) {
        if (p.earliest <= now) {
            duration earliest = clock::never;
            for (std::uint32_t i = 0; i < span; ++i) {
                const std::uint64_t seen = p.state[i].load(std::memory_order_relaxed);
                const auto kind = lane_state::kind(seen);
                if (kind == lane_state::fresh) {
                    earliest = std::min(earliest, lease_end(now)); // claimed later than now, or this moment
                } else if (kind == lane_state::leased) {
                    if (deadline_of(seen) <= now) {
                        if (entry* const e = take_lease(p, i)) {
                            lapse(s, *e, now);
                            continue;
                        }
                    }
                    earliest = std::min(earliest, deadline_of(seen));
                }
            }
            p.earliest = earliest;
        }
        next = std::min(next, p.earliest);
    });
    lane_lease_ = next;
}

/// With one time to live for all, the lane expires from its head. The first that has not expired is taken into the index, where its time
/// is watched; what follows it was sent later. What is on the shelf comes before the lane.
inline void cursor::expire_lane(session& s, duration now) noexcept {
    try {
        while (!shelf_.empty() || next() < host_.head()) {
            if (const entry* const e = shelf_.empty() ? absorb(s, host_.head(), 1) : unshelve(s, shelf_.lowest(), now)) {
                lane_expiry_ = std::min(e->expires, later(e->sent, options_.time_to_live)); // its own may be longer
                if (lane_expiry_ > now) { return; }
            }
        }
        lane_expiry_ = later(now, options_.time_to_live);
    } catch (...) {
        lane_expiry_ = now; // again at the next step
    }
}

inline void cursor::note_timed(offset o, duration expires) noexcept {
    session s(*this);
    timed_until_ = std::max(timed_until_, o + 1);
    timed_expiry_ = std::min(timed_expiry_, expires);
}

// --------------------------------------------------------------------------------------------------------------------------- outcomes

/// A message whose fate was recorded before is put where it belongs; false: nothing is known of it. The entry is in no place yet.
inline bool cursor::restore(session& s, entry& e, duration now) noexcept {
    bool dead = false;
    duration when = now;
    if (!host_.recall(e, dead, when)) { return false; }
    if (dead) {
        index_.leave_group(e, now);
        index_.bury(e);
        ++unacked_;
        s.left(e);
        if (e.cover != nullptr) { host_.forget(*e.cover, e.offset); }
        move_out(e);
    } else if (e.expires <= now) {
        expire(s, e, now);
    } else if (options_.retry.max_attempts != 0 && e.attempt >= options_.retry.max_attempts) {
        die(s, e, now, reason_crash);
    } else {
        index_.enter(e, now, std::max(when, e.due), shelf_.empty(e.level));
        move_out(e);
    }
    return true;
}

/// A lease has ended. Its holder may still settle the message, until somebody else is given it.
inline void cursor::lapse(session& s, entry& e, duration now) noexcept {
    index_.take_out(e);
    e.lapsed = true;
    fail(s, e, now, now, reason_lease);
}

/// A message has expired. The entry is nowhere.
inline void cursor::expire(session& s, entry& e, duration now) noexcept {
    if (e.unsifted) {
        s.doubt(e, now);
        return;
    }
    ++expired_;
    if (e.cover != nullptr && is_request(e.cover->props)) { // who asked has given up: it is no letter anybody would send again
        drop(s, e, now);
    } else {
        die(s, e, now, reason_expired);
    }
}

/// It goes, and is counted. The entry is nowhere.
inline void cursor::drop(session& s, entry& e, duration now) noexcept {
    ++dropped_;
    ++unacked_;
    e.lapsed = false;
    remove(s, e, now);
}

/// The filter does not want it. The entry is nowhere.
inline void cursor::ignore(session& s, entry& e, duration now) noexcept {
    skipped_.fetch_add(1, std::memory_order_relaxed);
    filtered_.fetch_add(1, std::memory_order_relaxed);
    e.lapsed = false;
    remove(s, e, now);
}

/// A delivery failed. The entry is nowhere.
inline void cursor::fail(session& s, entry& e, duration now, duration when, std::string_view reason) noexcept {
    if (e.history == nullptr) {
        e.history.reset(new (std::nothrow) obituary());
        if (e.history != nullptr) { e.history->first_failure = clock_.wall(); }
    }
    if (e.history != nullptr) { e.history->last_failure = clock_.wall(); }
    if (options_.retry.max_attempts != 0 && e.attempt >= options_.retry.max_attempts) {
        die(s, e, now, reason);
        return;
    }
    record(e, cursor_host::fate::tried, when);
    index_.enter(e, now, when, false);
    move_out(e);
}

/// To the dead letters. The entry is nowhere.
inline void cursor::die(session& s, entry& e, duration now, std::string_view reason) noexcept {
    if (e.history == nullptr) {
        e.history.reset(new (std::nothrow) obituary());
        if (e.history != nullptr) { e.history->first_failure = e.history->last_failure = clock_.wall(); }
    }
    if (e.history != nullptr) {
        try {
            e.history->reason = reason;
        } catch (...) {
            e.history->reason.clear(); // no memory for the reason: the message counts more
        }
    }
    e.lapsed = false;
    index_.leave_group(e, now);
    index_.bury(e);
    record(e, cursor_host::fate::tried);
    s.died();
    ++unacked_;
    s.left(e);
    if (e.cover != nullptr) { host_.forget(*e.cover, e.offset); }
    move_out(e);
    trim_dead(s);
}

/// There may be so many dead letters, and no more: the oldest go.
inline void cursor::trim_dead(session& s) noexcept {
    while (options_.max_dead != 0 && index_.count().dead > options_.max_dead && index_.next_dead() != nullptr) {
        entry& oldest = *index_.next_dead();
        index_.take_out(oldest);
        oldest.settled = true;
        record(oldest, cursor_host::fate::settled);
        ++dropped_;
        if (oldest.holders == 0) { s.finish(oldest); }
    }
}

/// A dead letter lives again.
inline void cursor::revive(session& s, entry& e, duration now) noexcept {
    e.attempt = 0;
    e.history.reset();
    e.due = duration::min();
    e.expires = duration::max();
    const duration life = e.cover != nullptr && e.cover->props.time_to_live > duration::zero() ? e.cover->props.time_to_live : options_.time_to_live;
    if (life > duration::zero()) { e.expires = later(now, life); }
    if (e.cover != nullptr) {
        if (!e.cover->props.key.empty()) { index_.join_group(e, std::hash<std::string_view>()(e.cover->props.key) | 1); }
        host_.remember(*e.cover, e.offset);
    }
    record(e, cursor_host::fate::revived);
    if (e.cover != nullptr || e.expires != clock::never) { record(e, cursor_host::fate::tried); } // its times are new
    s.left(-1, static_cast<std::int64_t>(e.bytes));
    index_.enter(e, now, now, false);
    move_out(e);
}

/// A message that was popped, and could not be given, is unsettled again.
inline void cursor::come_back(session& s, entry& e, duration now) noexcept {
    e.settled = false;
    e.shared = false;
    if (e.cover != nullptr) {
        if (!e.cover->props.key.empty()) { index_.join_group(e, std::hash<std::string_view>()(e.cover->props.key) | 1); }
        host_.remember(*e.cover, e.offset);
    }
    record(e, cursor_host::fate::revived);
    if (e.attempt > 0) { record(e, cursor_host::fate::tried); }
    s.left(-1, static_cast<std::int64_t>(e.bytes));
    index_.enter(e, now, now, false);
}

/// A message goes for good. The entry is nowhere.
inline void cursor::remove(session& s, entry& e, duration now) noexcept {
    e.settled = true;
    record(e, cursor_host::fate::settled);
    index_.leave_group(e, now);
    s.left(e);
    if (e.cover != nullptr) { host_.forget(*e.cover, e.offset); }
    if (e.holders == 0) { s.finish(e); }
}

/// Somebody no longer looks at an entry.
inline void cursor::let_go(session& s, entry& e) noexcept {
    if (--e.holders != 0) { return; }
    if (e.departed) { departed_.erase(e); }
    if (e.settled) {
        s.finish(e);
    } else if (e.where != entry::place::leased) {
        move_out(e);
    }
}

/// The body leaves its slot, so that the block does not wait for it. Without memory, or held by somebody, it stays.
inline void cursor::move_out(entry& e) noexcept {
    if (e.home == nullptr || e.holders != 0 || options_.shares_bodies) { return; }
    void* const node = host_.evacuate(e.home->block, e.index);
    if (node == nullptr) { return; }
    page& home = *std::exchange(e.home, nullptr);
    e.node = node;
    e.body = host_.body_of(node);
    release_slot(home, e.index);
}

} // namespace mailroom::detail
