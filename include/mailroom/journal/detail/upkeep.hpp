// Segments, checkpoints, and space given back.
//
// All of it is done in small steps by whoever has just committed, after he has handed the lead on; never under a lock that a send needs but
// for as long as the state is copied. What goes, goes in this order: it is in no manifest any more, neither the present one nor the one
// before; then its file is removed. So a crash at any step leaves a file too many, never one too few.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>
#include <mailroom/journal/detail/reading.hpp>

namespace mailroom::detail {

inline constexpr const char* manifest_name = "MANIFEST";
inline constexpr const char* old_manifest_name = "MANIFEST.old";
inline constexpr const char* new_manifest_name = "MANIFEST.new";
inline constexpr const char* lock_name = "LOCK";
inline constexpr unsigned most_spares = 64; // a bit each

/// The files of segments that are done with, kept to be written over: "spare", "spare-1", "spare-2" ...
inline std::string spare_name(unsigned number) { return number == 0 ? "spare" : "spare-" + std::to_string(number); }
inline std::optional<unsigned> spare_in(std::string_view name) {
    for (unsigned i = 0; i < most_spares; ++i) {
        if (name == spare_name(i)) { return i; }
    }
    return std::nullopt;
}

// ---------------------------------------------------------------------------------------------------------------------- the leader's part

/// Sees to it that `n` bytes can be written at position `base` of the current segment.
template <class Files>
failure log_engine<Files>::make_room(std::uint64_t base, std::size_t n) noexcept {
    try {
        if (base != current_->first() && current_->byte_of(base) + n > options_.segment_bytes) {
            if (failure why = rotate(base); why.kind() != errc{}) { return why; }
        }
        const std::uint64_t end = current_->byte_of(base) + n;
        if (end <= zeroed_) { return errc{}; }
        if (options_.durability != mailroom::durability::commit) { return errc{}; } // no sync waits for the file to grow
        // A file that is written over does not grow with each sync. Where there is no room for that there may be for the batch itself.
        const std::uint64_t until = std::max(end, std::min<std::uint64_t>(zeroed_ + zeros_ahead, options_.segment_bytes));
        static const std::array<std::byte, zeros_ahead / 16> nothing{};
        const std::uint64_t from = std::max(zeroed_, end);
        std::array<bytes_view, 16> parts;
        std::size_t n_parts = 0;
        for (std::uint64_t left = until - from; left != 0; left -= parts[n_parts++].size()) {
            parts[n_parts] = bytes_view(nothing).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, nothing.size())));
        }
        if (n_parts != 0 && !write_all(files_, *current_file_, from, std::span(parts).first(n_parts))) { zeroed_ = until; }
        return errc{};
    } catch (...) { return errc::io; }
}

/// Nobody waits for what was written, but one day, as a segment is sealed, all of it has to be on the disk: the system may begin.
template <class Files>
void log_engine<Files>::begin_writing_back(std::uint64_t until) noexcept {
    const std::uint64_t from = std::max({begun_, durable_, current_->first()});
    if (until - from < written_back_at_once) { return; }
    if constexpr (requires { files_.start_sync(*current_file_, from, until); }) {
        files_.start_sync(*current_file_, current_->byte_of(from), until - from);
    }
    begun_ = until;
}

/// A sync failed: what the system has dropped no later sync brings back.
template <class Files>
void log_engine<Files>::stop_writing(const failure& why) noexcept {
    const std::lock_guard lock(mutex_);
    broken_ = why;
}

/// Syncs a segment. The system tells of a loss once: whoever asks after that may be told that all is well, so nobody asks any more.
template <class Files>
std::error_code log_engine<Files>::sync_data(file& f) noexcept {
    const std::lock_guard lock(syncing_);
    if (has_lost_) { return std::make_error_code(std::errc::io_error); }
    const std::error_code ec = until_done([&] { return files_.sync(f); });
    has_lost_ = static_cast<bool>(ec);
    return ec;
}

/// The segment before the one that is written to is on stable storage after that.
template <class Files>
failure log_engine<Files>::sync_behind() noexcept {
    if (behind_ == nullptr) { return errc{}; }
    if (const auto ec = sync_data(*behind_)) { return sync_failed(directory_, ec); }
    durable_ = std::max(durable_, current_->first());
    const std::lock_guard lock(state_);
    behind_.reset();
    return errc{};
}

/// What the system has dropped no later sync brings back.
template <class Files>
failure log_engine<Files>::sync_failed(const std::string& path, const std::error_code& ec) noexcept {
    failure why = errc::io;
    try {
        why = io_failure("a sync failed, nothing more is written until the journal is opened again:", path, ec);
    } catch (...) {}
    stop_writing(why);
    return why;
}

/// The next segment begins at `base`. Where sends wait for the disk, the one before is on stable storage by then. Where they do not, this does not
/// either: the one before that is, which the system has had time to write.
template <class Files>
failure log_engine<Files>::rotate(std::uint64_t base) noexcept {
    try {
        bool stays_behind = false;
        if (current_ != nullptr && durable_ < base) {
            if (failure why = sync_behind(); why.kind() != errc{}) { return why; }
            stays_behind = options_.durability != mailroom::durability::commit;
            if (!stays_behind) {
                if (const auto ec = sync_data(*current_file_)) { return sync_failed(current_->path(), ec); }
                durable_ = base;
            }
        }
        auto next = std::make_shared<segment<Files>>(directory_, base);
        auto f = std::make_shared<file>();
        const std::string path = next->path();
        std::uint64_t size = 0;
        bool reused = false;
        // Taken without `upkeep_`, which may be held by one who waits for this leader. It is not made again before its bit says that it is gone.
        for (std::uint64_t there = spares_.load(std::memory_order_acquire); there != 0 && !reused; there = spares_.load(std::memory_order_acquire)) {
            const auto i = static_cast<unsigned>(std::countr_zero(there));
            const std::string spare = directory_ + '/' + spare_name(i);
            reused = !until_done([&] { return files_.rename(spare, path); });
            spares_.fetch_and(~(std::uint64_t{1} << i), std::memory_order_release);
        }
        if (reused) {
            if (const auto ec = until_done([&] { return files_.open(path, open_mode::write, *f); })) { return io_failure("cannot open", path, ec); }
            if (files_.size(*f, size)) { size = 0; }
        } else {
            auto ec = until_done([&] { return files_.open(path, open_mode::create, *f); });
            if (ec == std::errc::file_exists) {
                ec = until_done([&] { return files_.open(path, open_mode::write, *f); });
            } // of a try that failed
            if (ec) {
                note_space(ec);
                return io_failure("cannot make", path, ec);
            }
        }
        std::array<std::byte, segment_header::size> head;
        segment_header{.id = id_, .first = base, .incarnation = incarnation_, .durable_upto = std::min(durable_, base)}.encode(head.data());
        const bytes_view all(head);
        auto ec = write_all(files_, *f, 0, {&all, 1});
        if (ec) {
            note_space(ec);
            static_cast<void>(until_done([&] { return files_.remove(path); }));
            return io_failure("cannot make", path, ec);
        }
        ec = until_done([&] { return files_.sync_all(*f); });
        if (!ec) {
            ec = until_done([&] { return files_.sync_directory(directory_); });
        }
        if (ec) { return sync_failed(path, ec); }
        {
            const std::lock_guard lock(state_);
            unindexed_.reserve(unindexed_.size() + 1); // from the next on all of it happens, or nothing
            segments_.emplace(base, next);
            if (current_ != nullptr) {
                current_->seal();
                if (current_->has_places()) { unindexed_.push_back(current_); }
            }
            current_ = std::move(next);
            if (stays_behind) { behind_ = current_file_; }
        }
        current_file_ = std::move(f);
        zeroed_ = std::max<std::uint64_t>(size, segment_header::size);
        return errc{};
    } catch (...) { return errc::io; }
}

// ------------------------------------------------------------------------------------------------------------------------- for all's good

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

/// A checkpoint that had to wait until what it says is on stable storage. With `upkeep_`.
template <class Files>
void log_engine<Files>::write_next() {
    const image now = std::exchange(next_, image{});
    if (write_manifest(now).kind() == errc{}) { remove_doomed(); }
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

/// The first of [o, end) of a stream that somebody wants; `end`: there is none. Under `state_`.
template <class Files>
offset log_engine<Files>::next_live(std::uint32_t stream, offset o, offset end) {
    const offset kept = retained_from(stream);
    if (o >= kept) { return o; }
    offset next = catalog_.next_wanted(stream, o, std::min(end, kept));
    const auto at = slots_.find(stream);
    if (at != slots_.end() && at->second.listener != nullptr) { next = std::min(next, at->second.listener->next_retained(o)); }
    return std::min(next, end);
}

/// Adds messages of a segment that somebody wants to a batch of a survivor segment, until it has `most` bytes: those from `from` on, which moves behind
/// them.
template <class Files>
void log_engine<Files>::copy_survivors(const segment_ptr& s, std::size_t most, batch& b, survivor_list& list, survivor_scan& from) {
    struct found {
        std::uint32_t stream;
        offset o;
        survivor_scan next;
    };
    std::vector<found> live;
    {
        const std::lock_guard lock(state_);
        if (next_survivor_ - survivors_from >= most_survivors) { // never, but for what a manifest was made to say
            from.is_done = true;
            return;
        }
        if (b.records == 0) {
            if (survivors_to_ != nullptr && survivors_to_->byte_of(next_survivor_) >= options_.segment_bytes) { end_survivors(); }
            start(b, next_survivor_);
            list.first = survivors_to_ != nullptr ? survivors_to_->first() : next_survivor_;
        }
        const std::size_t enough = most / record_header::size + 1;
        survivor_scan at = from;
        const auto& runs = s->runs();
        for (; at.run < runs.size() && live.size() < enough; ++at.run, at.next = 0) {
            const run& r = runs[at.run];
            const offset end = r.first + r.count;
            const auto moved = moved_.find(r.stream);
            for (offset o = next_live(r.stream, std::max(r.first, at.next), end); o < end; o = next_live(r.stream, o + 1, end)) {
                if (live.size() == enough) { break; }
                at.next = o + 1;
                const auto elsewhere = moved != moved_.end() ? moved->second.find(o) : typename std::map<offset, spot>::const_iterator();
                if (moved == moved_.end() || elsewhere == moved->second.end() || elsewhere->second.where == s) { live.push_back({r.stream, o, at}); }
            }
            if (live.size() == enough) { break; }
        }
        if (at.run >= runs.size()) { // what came here from another one
            for (auto stream = moved_.lower_bound(at.stream); stream != moved_.end() && live.size() < enough; ++stream) {
                if (stream->first != at.stream) { at.next = 0; }
                at.stream = stream->first;
                for (auto one = stream->second.lower_bound(at.next); one != stream->second.end() && live.size() < enough; ++one) {
                    at.next = one->first + 1;
                    if (one->second.where != s || !is_live(stream->first, one->first)) { continue; }
                    const bool is_of_run = std::any_of(runs.begin(), runs.end(), [&](const run& r) { // as such it was found
                        return r.stream == stream->first && one->first >= r.first && one->first - r.first < r.count;
                    });
                    if (!is_of_run) { live.push_back({stream->first, one->first, at}); }
                }
            }
        }
        at.is_done = live.size() < enough;
        from.is_done = at.is_done && live.empty();
        if (!live.empty()) { live.back().next.is_done = at.is_done; }
    }
    bool has_memory = true;
    read_ahead ahead;
    for (const auto& [stream, o, next] : live) {
        if (b.size() >= most) { return; }
        record_calls to(
            [&](unsigned, const record& r) {
                draft d;
                d.kind = record_kind::moved;
                d.stream = r.head.stream;
                d.schema = r.head.schema;
                d.properties = r.head.properties;
                d.time = r.head.time;
                d.length = r.head.length;
                d.hash = r.head.hash; // of what was read, and is written
                d.payload = {r.payload.data(), padded(r.payload.size())};
                const std::uint64_t position = b.base + (b.bytes.empty() ? batch_header::size : b.size());
                try {
                    list.places.push_back({r.head.stream, r.head.offset, position - list.first});
                    append(b, d, r.head.offset);
                } catch (...) { has_memory = false; }
            },
            [](unsigned, const damage*) {});
        read(stream, o, 1, to, ahead);
        if (!has_memory) { throw std::bad_alloc(); }
        from = next;
    }
}

/// Puts copies of messages on the disk, and then, with one record, in the place of what they are copies of. Returns how many. Throws errc::io.
template <class Files>
std::size_t log_engine<Files>::switch_over(batch& copies, survivor_list& list) {
    if (copies.records == 0) { return 0; }
    if (failure why = write_survivors(copies); why.kind() != errc{}) { why.raise(); }
    list.length = copies.base + copies.size() - list.first;
    std::vector<std::byte> payload;
    wire_writer to(payload);
    list.write(to);
    draft d = make_draft(record_kind::survivors, 0, payload);
    d.offset = 0;
    switch_.next = nullptr;
    switch_.why = errc{};
    switch_.waits = false;
    switch_.done.store(0, std::memory_order_relaxed);
    placed p = place({&d, 1}, admission(), &switch_);
    if (!p.taken) { p.why.raise(); }
    switching_ = survivors_to_;
    messages_moved_.fetch_add(list.places.size(), std::memory_order_relaxed);
    return list.places.size();
}

/// Puts a batch at the end of the survivor segment that is being written, or begins one with it. It is on stable storage when this returns.
template <class Files>
failure log_engine<Files>::write_survivors(batch& b) {
    segment_ptr to = survivors_to_;
    std::shared_ptr<file> f = survivors_file_;
    const bool is_new = to == nullptr;
    if (is_new) {
        to = std::make_shared<segment<Files>>(directory_, b.base);
        f = std::make_shared<file>();
    }
    {
        const std::lock_guard lock(state_);
        next_survivor_ = b.base + b.size(); // whatever becomes of it
        end_survivors();                    // unless all of it works
    }
    const std::string path = to->path();
    std::error_code ec;
    if (is_new) {
        ec = until_done([&] { return files_.open(path, open_mode::create, *f); });
        if (ec) { return io_failure("cannot make", path, ec); }
        std::array<std::byte, segment_header::size> head;
        segment_header{.id = id_, .first = b.base, .incarnation = incarnation_, .durable_upto = b.base}.encode(head.data());
        const bytes_view all(head);
        ec = write_all(files_, *f, 0, {&all, 1});
    }
    const batch_header h{.records = b.records,
                         .position = b.base,
                         .length = b.size() - batch_header::size,
                         .previous = is_new ? 0 : survivors_chain_,
                         .incarnation = incarnation_,
                         .durable_upto = 0,
                         .time = std::chrono::duration_cast<duration>(clock_.wall().time_since_epoch()).count()};
    const std::uint64_t check = h.encode(b.bytes.data(), seed_);
    const bytes_view all(b.bytes);
    if (!ec) { ec = write_all(files_, *f, to->byte_of(b.base), {&all, 1}); }
    if (!ec) {
        ec = until_done([&] { return files_.sync_all(*f); });
    }
    if (!ec && is_new) {
        ec = until_done([&] { return files_.sync_directory(directory_); });
    }
    if (!ec && is_new) {
        try {
            const std::lock_guard lock(state_);
            survivors_.emplace(to->first(), to);
        } catch (...) { ec = std::make_error_code(std::errc::not_enough_memory); }
    }
    if (ec) {
        if (is_new) {
            static_cast<void>(until_done([&] { return files_.remove(path); }));
        }
        return io_failure("cannot write to", path, ec);
    }
    const std::lock_guard lock(state_);
    survivors_to_ = std::move(to);
    survivors_file_ = std::move(f);
    survivors_chain_ = check;
    return errc{};
}

/// The next survivors begin a segment of their own.
template <class Files>
void log_engine<Files>::end_survivors() noexcept {
    survivors_to_.reset();
    survivors_file_.reset();
}

/// Whether the record that was placed last is still to be committed. With `upkeep_`.
template <class Files>
bool log_engine<Files>::is_switching() {
    if (switching_ == nullptr) { return false; }
    if (!switch_.is_done()) { return true; }
    // Where nobody was promised anything, what could not be written is kept, and written later.
    if (switch_.why.kind() != errc{} && options_.durability == mailroom::durability::none) { unsure_.insert(switching_->first()); }
    switching_.reset();
    return false;
}

/// Whether no record can come that speaks of a segment nobody wants. With `upkeep_`.
template <class Files>
bool log_engine<Files>::may_drop(const segment_ptr& s) noexcept {
    return s != switching_ && s != survivors_to_ && !unsure_.contains(s->first());
}

/// Messages lie in a survivor segment from now on. Under `state_`.
template <class Files>
void log_engine<Files>::switch_to(const survivor_list& l) {
    const auto at = survivors_.find(l.first);
    if (at == survivors_.end()) { return; } // one that cannot be read: they are where they were
    const segment_ptr& s = at->second;
    s->set_end(std::max(s->end(), l.first + l.length));
    s->add_survivors(l.places.size());
    for (const survivor_list::place& p : l.places) { moved_[p.stream].insert_or_assign(p.offset, spot{s, l.first + p.skip}); }
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

// --------------------------------------------------------------------------------------------------------------------------- checkpoints

/// What a manifest holds. Under `state_`.
template <class Files>
std::vector<std::byte> log_engine<Files>::encode_state(bool clean) {
    catalog_.forget_ids(std::chrono::duration_cast<duration>(clock_.wall().time_since_epoch()).count());
    std::vector<std::byte> body;
    wire_writer to(body);
    to.var(clean ? 1 : 0);
    to.u64(incarnation_);
    to.u64(applied_);
    to.u64(applied_chain_);
    to.u64(applied_); // on stable storage before this is
    to.var(segments_.size());
    for (const auto& [first, s] : segments_) {
        to.var(first);
        to.var(s->end() - first);
        to.var(s->sealed() ? 1 : 0);
        if (!s->sealed()) { continue; }
        to.var(s->runs().size());
        for (const run& r : s->runs()) {
            to.var(r.stream);
            to.var(r.first);
            to.var(r.count);
            to.var(r.start);
        }
    }
    to.var(survivors_.size());
    for (const auto& [first, s] : survivors_) {
        to.var(first - survivors_from);
        to.var(s->end() - first);
        to.var(s->messages());
    }
    to.var(next_survivor_ - survivors_from);
    to.var(moved_.size());
    for (const auto& [stream, all] : moved_) {
        to.var(stream);
        to.var(all.size());
        for (const auto& [o, where] : all) {
            to.var(o);
            to.var(where.where->first());
            to.var(where.position - where.where->first());
        }
    }
    catalog_.write(to);
    return body;
}

/// Writes a manifest of what is committed. With `upkeep_`, or before or after anybody else is there.
template <class Files>
failure log_engine<Files>::checkpoint(bool clean) {
    image now;
    next_ = image();
    {
        std::unique_lock lock(state_);
        if (!is_whole_) { return errc::io; }
        if (applied_durable_ < applied_) { // a manifest says nothing that a crash could take back
            std::error_code ec;
            if (behind_ != nullptr) { ec = sync_data(*behind_); }
            if (!ec) {
                auto opened = current_->open(files_, open_mode::write);
                ec = opened ? sync_data(**opened) : std::make_error_code(std::errc::io_error);
            }
            if (ec) {
                const std::string path = current_->path();
                lock.unlock();
                return sync_failed(path, ec);
            }
            applied_durable_ = applied_;
        }
        now = {encode_state(clean), applied_};
    }
    return write_manifest(now);
}

/// All of it is on stable storage.
template <class Files>
failure log_engine<Files>::write_manifest(const image& what) {
    const std::vector<std::byte> bytes = sealed_file::encode(sealed_file::manifest_word, id_, what.at, what.state);
    const bytes_view all(bytes);
    const std::string path = directory_ + '/' + manifest_name, fresh = directory_ + '/' + new_manifest_name,
                      old = directory_ + '/' + old_manifest_name;
    const auto write_fresh = [&]() -> std::error_code {
        file f;
        auto ec = until_done([&] { return files_.open(fresh, open_mode::create, f); });
        if (ec == std::errc::file_exists) {
            ec = until_done([&] { return files_.open(fresh, open_mode::write, f); });
            if (!ec) {
                ec = until_done([&] { return files_.truncate(f, 0); });
            }
        }
        if (!ec) { ec = write_all(files_, f, 0, {&all, 1}); }
        if (!ec) {
            ec = until_done([&] { return files_.sync_all(f); });
        }
        return ec;
    };
    auto written = write_fresh();
    if (written == std::errc::no_space_on_device && !needs_old_) { // the one before the present one is there for the worst case only
        static_cast<void>(until_done([&] { return files_.remove(old); }));
        written = write_fresh();
    }
    if (written) {
        static_cast<void>(until_done([&] { return files_.remove(fresh); }));
        return io_failure("cannot write", fresh, written);
    }
    auto ec = needs_old_ ? std::error_code() : until_done([&] { return files_.rename(path, old); });
    if (!ec || ec == std::errc::no_such_file_or_directory) {
        ec = until_done([&] { return files_.rename(fresh, path); });
    }
    if (!ec) {
        ec = until_done([&] { return files_.sync_directory(directory_); });
    }
    if (ec) { return io_failure("cannot rename", fresh, ec); }
    needs_old_ = false;
    checkpointed_ = what.at;
    return errc{};
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
