// Space given back.
//
// All of it is done in small steps by whoever has just committed, after he has handed the lead on; never under a lock that a send needs but
// for as long as the state is copied. What goes, goes in this order: it is in no manifest any more, neither the present one nor the one
// before; then its file is removed. So a crash at any step leaves a file too many, never one too few.
#pragma once

#include <mailroom/journal/detail/checkpoints.hpp>
#include <mailroom/journal/detail/engine_class.hpp>
#include <mailroom/journal/detail/reading.hpp>
#include <mailroom/journal/detail/survivors.hpp>

namespace mailroom::detail {

/// One small step of what is to be done.
template <class Files>
void log_engine<Files>::tend() noexcept {
    const std::unique_lock lock(upkeep_, std::try_to_lock);
    if (!lock.owns_lock() || closed_.load(std::memory_order_relaxed)) { return; }
    try {
        const auto is_due = [this] { return next_.state.empty() && applied_ - checkpointed_ >= options_.segment_bytes; };
        bool has_come = false; // what the next manifest says can no longer be taken back by a crash
        {
            const std::lock_guard held(state_);
            has_come = !next_.state.empty() && next_.at <= applied_durable_;
            if (unindexed_.empty() && !has_come && !is_due()) { return; }
        }
        write_indexes();
        if (has_come) { write_next(); }
        {
            const std::lock_guard held(state_);
            if (!is_due()) { return; }
        }
        retire(a_step);
        {
            const std::lock_guard held(state_);
            if (!is_whole_) { return; }
            next_ = {encode_state(false), applied_};
            has_come = next_.at <= applied_durable_;
        }
        if (has_come) { write_next(); }
    } catch (...) {} // no memory: at the next commit
}

template <class Files>
void log_engine<Files>::note_space(const std::error_code& ec) noexcept {
    if (ec == std::errc::no_space_on_device) { no_space_.store(true); }
}

/// The disk is full: what is settled is written down alone, and the segments that nobody wants go at once.
template <class Files>
void log_engine<Files>::make_space() noexcept {
    const std::unique_lock lock(upkeep_, std::try_to_lock);
    if (!lock.owns_lock() || closed_.load(std::memory_order_relaxed)) { return; }
    try {
        flush();
    } catch (...) {} // not even that fits: what is settled already may do
    try {
        remove_spares(1);
        if (retire(0) == 0 && doomed_.empty()) { return; }
        for (int i = 0; i < 2; ++i) {
            if (checkpoint(false).kind() != errc{}) { return; }
            remove_doomed();
        }
    } catch (...) {} // no memory: the next that fails tries again
    no_space_.store(false);
}

/// The places of messages in sealed segments go from memory into files. Not synced: what is missing is made again.
template <class Files>
void log_engine<Files>::write_indexes() {
    for (;;) {
        segment_ptr s;
        {
            const std::lock_guard held(state_);
            if (unindexed_.empty()) { return; }
            s = unindexed_.back(); // as long as it is one of them its places stay as they are
        }
        bool written = false;
        {
            file f;
            const std::string path = s->index_path();
            auto ec = until_done([&] { return files_.open(path, open_mode::create, f); });
            if (ec == std::errc::file_exists) {
                ec = until_done([&] { return files_.remove(path); });
                if (!ec) {
                    ec = until_done([&] { return files_.open(path, open_mode::create, f); });
                }
            }
            written = !ec && !s->write_index(files_, f, id_);
        }
        const std::lock_guard held(state_);
        std::erase(unindexed_, s);
        if (written) { s->drop_places(); } // otherwise they stay in memory
    }
}

template <class Files>
bool log_engine<Files>::is_queue(std::uint32_t stream) const noexcept {
    const auto s = catalog_.streams().find(stream);
    if (s == catalog_.streams().end()) { return false; }
    const auto e = catalog_.endpoints().find(s->second.endpoint);
    return e != catalog_.endpoints().end() && e->second.shape.kind == endpoint_kind::queue;
}

template <class Files>
offset log_engine<Files>::retained_from(std::uint32_t stream) noexcept {
    const auto at = slots_.find(stream);
    if (at != slots_.end() && at->second.listener != nullptr) { return at->second.listener->retained_from(); }
    // Nobody has it open: of a topic nobody knows what it is to keep, so it keeps all.
    return is_queue(stream) ? no_offset : 0;
}

/// Whether somebody wants a message. Under `state_`.
template <class Files>
bool log_engine<Files>::is_live(std::uint32_t stream, offset o) {
    if (o >= retained_from(stream) || catalog_.is_wanted(stream, o)) { return true; }
    const auto at = slots_.find(stream);
    return at != slots_.end() && at->second.listener != nullptr && at->second.listener->next_retained(o) == o;
}

/// How many of the messages that were sent into a sealed segment are wanted, and still to be found there. Under `state_`.
template <class Files>
std::uint64_t log_engine<Files>::live_in_runs(const segment_ptr& s, bool only_whether) {
    std::uint64_t n = 0;
    for (const run& r : s->runs()) {
        const offset end = r.first + r.count, kept = std::max(r.first, retained_from(r.stream));
        const auto slot_of = slots_.find(r.stream);
        stream_listener* const l = slot_of != slots_.end() ? slot_of->second.listener : nullptr;
        std::uint64_t here = kept < end ? end - kept : 0;
        const offset rest = std::min(end, kept);
        here += catalog_.wanted_in(r.stream, r.first, rest);
        if (l != nullptr && !is_queue(r.stream)) {
            for (offset o = l->next_retained(r.first); o < rest; o = l->next_retained(o + 1)) { here += catalog_.is_wanted(r.stream, o) ? 0 : 1; }
        }
        if (here != 0) { // less those that lie elsewhere by now
            if (const auto moved = moved_.find(r.stream); moved != moved_.end()) {
                for (auto at = moved->second.lower_bound(r.first); at != moved->second.end() && at->first < end; ++at) {
                    if (at->second.where != s && is_live(r.stream, at->first)) { here -= std::min<std::uint64_t>(here, 1); }
                }
            }
        }
        n += here;
        if (n != 0 && only_whether) { return n; }
    }
    return n;
}

/// Whether a sealed segment holds messages somebody wants; and how many at most. Under `state_`.
template <class Files>
bool log_engine<Files>::is_wanted(const segment_ptr& s, std::uint64_t* live) {
    std::uint64_t n = live_in_runs(s, live == nullptr);
    if (n != 0 && live == nullptr) { return true; }
    for (const auto& [stream, all] : moved_) {
        for (const auto& [o, where] : all) {
            if (where.where == s && is_live(stream, o)) {
                ++n;
                if (live == nullptr) { return true; }
            }
        }
    }
    if (live != nullptr) { *live = n; }
    return n != 0;
}

/// A segment is forgotten: nothing in it is wanted. Under `state_`.
template <class Files>
void log_engine<Files>::drop(const segment_ptr& s) {
    std::string log = s->path(), index = s->index_path();
    doomed_.reserve(doomed_.size() + 2); // no file is doomed of a segment that is not forgotten
    doomed_.push_back({std::move(log), 2});
    if (!s->holds_survivors()) { doomed_.push_back({std::move(index), 2}); }
    for (const run& r : s->runs()) {
        const auto at = extents_.find(r.stream);
        if (at == extents_.end()) { continue; }
        std::erase_if(at->second, [&](const extent& e) { return e.where == s; });
    }
    for (auto& [stream, all] : moved_) {
        std::erase_if(all, [&](const auto& m) { return m.second.where == s; });
    }
    std::erase(unindexed_, s);
    (s->holds_survivors() ? survivors_ : segments_).erase(s->first());
    segments_freed_.fetch_add(1, std::memory_order_relaxed);
}

/// How many messages that were moved lie in each segment. Under `state_`.
template <class Files>
auto log_engine<Files>::count_moved() -> entries_by_segment {
    entries_by_segment n;
    for (const auto& [stream, all] : moved_) {
        for (const auto& [o, where] : all) { ++n[where.where.get()]; }
    }
    return n;
}

/// Lets go of what nobody wants, and copies `allowance` bytes, or a little more, of what keeps segments hostage. Returns how many segments went.
/// With `upkeep_`.
template <class Files>
std::size_t log_engine<Files>::retire(std::size_t allowance) {
    if (is_switching()) { allowance = 0; }
    std::vector<segment_ptr> candidates;
    entries_by_segment moved_there;
    {
        const std::lock_guard lock(state_);
        for (auto& [stream, all] : moved_) { // what is settled needs no place
            std::erase_if(all, [&, number = stream](const auto& m) { return !is_live(number, m.first); });
        }
        for (const auto& [first, s] : segments_) {
            if (s != current_ && s->sealed()) { candidates.push_back(s); }
        }
        moved_there = count_moved();
        if (survivors_to_ != nullptr && switching_ == nullptr && survivors_to_->end() - survivors_to_->first() >= a_step &&
            moved_there[survivors_to_.get()] * 8 <= survivors_to_->messages()) {
            end_survivors();
        }
        for (const auto& [first, s] : survivors_) {
            if (s != survivors_to_) { candidates.push_back(s); }
        }
    }
    std::size_t gone = 0;
    batch copies;
    survivor_list list;
    for (const segment_ptr& s : candidates) {
        {
            const std::lock_guard lock(state_);
            // None was moved there since: what is being switched to is no candidate, or may not be dropped.
            const auto moved = moved_there.find(s.get());
            const std::uint64_t live = live_in_runs(s, false) + (moved != moved_there.end() ? moved->second : 0);
            if (live == 0 && may_drop(s)) {
                drop(s);
                ++gone;
            }
            if (live == 0 || live * 8 > s->messages()) { continue; } // gone, or worth its place
        }
        if (survivor_scan from; copies.size() < allowance) { copy_survivors(s, allowance, copies, list, from); }
    }
    try {
        switch_over(copies, list);
    } catch (...) {} // no room, or no memory: they stay where they are, until the next time
    return gone;
}

/// A file that no manifest names any more is kept to be written over. False: there are enough, or that failed. With `upkeep_`.
template <class Files>
bool log_engine<Files>::keep_spare(const std::string& path) {
    const auto i = static_cast<unsigned>(std::countr_one(spares_.load(std::memory_order_acquire)));
    if (i >= options_.spare_segments || !path.ends_with(".log")) { return false; }
    const std::string spare = directory_ + '/' + spare_name(i);
    if (until_done([&] { return files_.rename(path, spare); })) { return false; }
    spares_.fetch_or(std::uint64_t{1} << i, std::memory_order_release);
    return true;
}

/// Gives back what is kept to be written over, but for so many. A leader who takes one meanwhile has it, or finds none. With `upkeep_`.
template <class Files>
void log_engine<Files>::remove_spares(int but) {
    std::uint64_t there = spares_.load(std::memory_order_acquire);
    for (; std::popcount(there) > but; there = spares_.load(std::memory_order_acquire)) {
        const auto i = static_cast<unsigned>(std::bit_width(there) - 1);
        static_cast<void>(until_done([&] { return files_.remove(directory_ + '/' + spare_name(i)); }));
        spares_.fetch_and(~(std::uint64_t{1} << i), std::memory_order_release);
    }
}

/// Removes files that no manifest names any more. Some are kept to be written over.
template <class Files>
void log_engine<Files>::remove_doomed() {
    bool any = false;
    for (auto& d : doomed_) {
        if (d.checkpoints != 0 && --d.checkpoints != 0) { continue; }
        if (!keep_spare(d.path)) { static_cast<void>(until_done([&] { return files_.remove(d.path); })); }
        d.path.clear();
        any = true;
    }
    std::erase_if(doomed_, [](const doomed& d) { return d.path.empty(); });
    if (any) {
        static_cast<void>(until_done([&] { return files_.sync_directory(directory_); }));
    }
}

template <class Files>
std::uint64_t log_engine<Files>::bytes_stored() noexcept {
    const std::lock_guard lock(state_);
    std::uint64_t sum = 0;
    for (const auto* const all : {&segments_, &survivors_}) {
        for (const auto& [first, s] : *all) { sum += segment_header::size + (s->end() - first); }
    }
    return sum;
}

/// Topics may have to look through what they store before they know what they retain of it.
template <class Files>
void log_engine<Files>::find_retained() {
    std::vector<stream_listener*> all;
    {
        const std::lock_guard lock(state_);
        for (const auto& [stream, s] : slots_) {
            if (s.listener != nullptr) { all.push_back(s.listener); }
        }
        for (stream_listener* const l : all) { l->hold(); }
    }
    struct letting_go {
        std::vector<stream_listener*>& all;
        ~letting_go() {
            for (stream_listener* const l : all) { l->let_go(); }
        }
    } const later{all};
    for (stream_listener* const l : all) { l->find_retained(); }
}

/// Whether nobody wants most of what was sent into a segment. Under `state_`.
template <class Files>
bool log_engine<Files>::is_mostly_dead(const segment_ptr& s) {
    std::uint64_t live = 0;
    const std::uint64_t messages = s->messages();
    return messages != 0 && (!is_wanted(s, &live) || live * 2 <= messages);
}

template <class Files>
compact_report log_engine<Files>::compact(const progress& tell) {
    compact_report report;
    report.bytes_before = bytes_stored();
    const std::uint64_t freed = segments_freed_.load(std::memory_order_relaxed), moved = messages_moved_.load(std::memory_order_relaxed);
    flush();
    find_retained();
    bool is_open_one_dead = false;
    {
        const std::lock_guard held(state_);
        is_open_one_dead = is_mostly_dead(current_);
    }
    if (is_open_one_dead) { flush(true); } // sealed, it can be given back as the others
    const std::lock_guard lock(upkeep_);
    {
        const std::lock_guard held(state_);
        if (segments_.size() == 1 && survivors_.empty() && current_->end() == current_->first()) {
            report.bytes_after = report.bytes_before;
            if (tell) { tell(1); }
            return report;
        }
    }
    if (is_switching()) { flush(); }
    std::vector<segment_ptr> all;
    {
        const std::lock_guard held(state_);
        if (survivors_to_ != nullptr && is_mostly_dead(survivors_to_)) { end_survivors(); }
        for (const auto* const some : {&segments_, &survivors_}) {
            for (const auto& [first, s] : *some) {
                if (s != current_ && s != survivors_to_) { all.push_back(s); }
            }
        }
    }
    batch copies;
    survivor_list list;
    const auto is_switched_over = [&] {
        if (switch_over(copies, list) == 0) { return true; }
        flush();
        copies = batch();
        list = survivor_list();
        return !is_switching() && switch_.why.kind() == errc{};
    };
    bool goes_on = true;
    for (std::size_t i = 0; i < all.size() && goes_on; ++i) {
        survivor_scan from;
        {
            const std::lock_guard inner(state_);
            from.is_done = !is_mostly_dead(all[i]);
        }
        while (!from.is_done && goes_on) {
            copy_survivors(all[i], a_step, copies, list, from);
            if (copies.size() >= a_step) { goes_on = is_switched_over(); } // otherwise with those of the next
        }
        if (tell) { tell(static_cast<double>(i + 1) / static_cast<double>(all.size() + 1)); }
    }
    if (goes_on) { static_cast<void>(is_switched_over()); }
    flush();
    write_indexes();
    retire(0);
    for (int i = 0; i < 2; ++i) { // what is in neither manifest may go
        if (failure why = checkpoint(false); why.kind() != errc{}) { why.raise(); }
        remove_doomed();
    }
    remove_spares(1);
    report.segments_freed = segments_freed_.load(std::memory_order_relaxed) - freed;
    report.messages_moved = messages_moved_.load(std::memory_order_relaxed) - moved;
    report.bytes_after = bytes_stored();
    if (tell) { tell(1); }
    return report;
}

} // namespace mailroom::detail
