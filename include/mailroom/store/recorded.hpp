// What stores do alike where their messages are in a journal: noting what becomes of a message, and taking up what became of it before.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/link.hpp>
#include <mailroom/store/timing.hpp>
#include <mailroom/store/undecided_delivery.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace mailroom::detail {

inline std::int64_t wall_count(time_point t) noexcept { return std::chrono::duration_cast<duration>(t.time_since_epoch()).count(); }
inline time_point wall_point(std::int64_t nanoseconds) noexcept {
    return time_point(std::chrono::duration_cast<time_point::duration>(duration(nanoseconds)));
}

/// A message of the index is settled, has failed, or lives again.
inline void record_fate(link_base& to, const timing& times, const entry& e, cursor_host::fate f, duration when) noexcept {
    switch (f) {
    case cursor_host::fate::settled: to.settled(e.offset); return;
    case cursor_host::fate::revived: to.revived(e.offset); return;
    case cursor_host::fate::tried: break;
    }
    try {
        trial t;
        t.attempt = e.attempt;
        t.dead = e.where == entry::place::dead;
        t.due = when > duration::zero() && when != clock::never ? wall_count(times.wall(when)) : 0;
        t.expires = e.expires != clock::never ? wall_count(times.wall(e.expires)) : 0;
        if (e.history != nullptr) {
            t.first_failure = wall_count(e.history->first_failure);
            t.last_failure = wall_count(e.history->last_failure);
            t.reason = e.history->reason;
        }
        to.tried(e.offset, t);
    } catch (...) {} // no memory: after the next opening it has not failed
}

/// What was recorded of it; false: nothing.
inline bool recall_fate(const link_base& from, const timing& times, entry& e, bool& dead, duration& when) noexcept {
    const trial* const t = from.was_tried(e.offset);
    if (t == nullptr) { return false; }
    e.attempt = t->attempt;
    e.due = duration::min(); // whatever it was sent with is over
    dead = t->dead;
    if (t->due != 0) { when = times.at(wall_point(t->due)); }
    if (t->expires != 0) { e.expires = times.at(wall_point(t->expires)); }
    if (t->dead || t->last_failure != 0) {
        e.history.reset(new (std::nothrow) obituary());
        if (e.history != nullptr) {
            e.history->first_failure = wall_point(t->first_failure);
            e.history->last_failure = wall_point(t->last_failure);
            try {
                e.history->reason = t->reason;
            } catch (...) {} // the message counts more
        }
    }
    return true;
}

/// What a cursor did before it was opened counts with what it does from now on.
inline void add_before(const link_base* of, stats& s) noexcept {
    if (of == nullptr) { return; }
    const auto [acked, redelivered, expired, dropped] = of->done_before();
    s.acked += acked;
    s.redelivered += redelivered;
    s.expired += expired;
    s.dropped += dropped;
}
inline void count_by(link_base& to, const cursor& c) noexcept {
    to.count_by([](const void* of) noexcept { return static_cast<const cursor*>(of)->ever(); }, &c);
}

/// Takes messages by `take()`; where there are none, those that were sent and are not visible yet are committed first. Throws what was met of
/// damage, once for each message that is lost, when there is nothing else to give.
template <class Take>
std::size_t from_journal(link_base& from, Take take) {
    for (;;) {
        const std::size_t n = take();
        if (n != 0) { return n; }
        if (from.has_met_damage()) {
            if (const failure why = from.damage_met(); why.kind() != errc{}) { why.raise(); }
        }
        if (!from.has_pending() || !from.push()) { return 0; }
    }
}

/// A delivery of a message that was there when a process ended: its attempt is to be counted before anybody sees it.
inline void note_suspect(const link_base& from, offset o, std::uint32_t attempt, std::vector<std::byte>& steps) noexcept {
    if (!from.suspects(o)) { return; }
    const std::size_t before = steps.size();
    try {
        wire_writer to(steps);
        to.var(o);
        to.var(attempt);
    } catch (...) { steps.resize(before); }
}

/// What a prepared transaction of before is to settle is handed to nobody until that is decided. Throws std::bad_alloc.
inline void claim_in_doubt(link_base& from, cursor& c, settler& s, settler& of_dead) {
    for (const auto& [xid, place] : from.in_doubt()) {
        handle at;
        if (c.claim_at(place, [&at](const handle& h) { at = h; })) {
            from.hold_in_doubt(xid, *new undecided_delivery(s, at, duration::zero(), false));
        } else if (c.claim_dead([&at](entry& e) { at = {&e, e.turn, e.attempt, e.offset}; }, place)) {
            from.hold_in_doubt(xid, *new undecided_delivery(of_dead, at, duration::zero(), false));
        }
    }
}

} // namespace mailroom::detail
