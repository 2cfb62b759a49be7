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
inline constexpr const char* spare_name = "spare";

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

/// The next segment begins at `base`. The one before is on stable storage by then.
template <class Files>
failure log_engine<Files>::rotate(std::uint64_t base) noexcept {
    try {
        if (current_ != nullptr && durable_ < base) {
            if (const auto ec = until_done([&] { return files_.sync(*current_file_); })) {
                failure why = io_failure("a sync failed, nothing more is written until the journal is opened again:", current_->path(), ec);
                stop_writing(why);
                return why;
            }
            durable_ = base;
        }
        auto next = std::make_shared<segment<Files>>(directory_, base);
        auto f = std::make_shared<file>();
        const std::string path = next->path(), spare = directory_ + '/' + spare_name;
        std::uint64_t size = 0;
        bool reused = false;
        // Taken without `upkeep_`, which may be held by one who waits for this leader. It is not made again before the flag says that it is gone.
        if (has_spare_.load(std::memory_order_acquire)) {
            reused = !until_done([&] { return files_.rename(spare, path); });
            has_spare_.store(false, std::memory_order_release);
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
        segment_header{.id = id_, .first = base, .incarnation = incarnation_}.encode(head.data());
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
        if (ec) {
            failure why = io_failure("a sync failed, nothing more is written until the journal is opened again:", path, ec);
            stop_writing(why);
            return why;
        }
        {
            const std::lock_guard lock(state_);
            unindexed_.reserve(unindexed_.size() + 1); // from the next on all of it happens, or nothing
            segments_.emplace(base, next);
            if (current_ != nullptr) {
                current_->seal();
                if (current_->has_places()) { unindexed_.push_back(current_); }
            }
            current_ = std::move(next);
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
        segment_ptr sparse;
        {
            const std::lock_guard held(state_);
            if (unindexed_.empty() && applied_ - checkpointed_ < options_.segment_bytes) { return; }
        }
        write_indexes();
        {
            const std::lock_guard held(state_);
            if (applied_ - checkpointed_ < options_.segment_bytes) { return; }
        }
        retire();
        if (checkpoint(false).kind() == errc{}) { remove_doomed(); }
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
        if (retire() == 0 && doomed_.empty()) { return; }
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
        std::vector<std::byte> bytes;
        {
            const std::lock_guard held(state_);
            if (unindexed_.empty()) { return; }
            s = unindexed_.back();
            bytes = s->encode_index(id_);
        }
        const bytes_view all(bytes);
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
            written = !ec && !write_all(files_, f, 0, {&all, 1});
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

/// Whether a sealed segment holds messages somebody wants; and how many at most. Under `state_`.
template <class Files>
bool log_engine<Files>::is_wanted(const segment_ptr& s, std::uint64_t* live) {
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
        if (n != 0 && live == nullptr) { return true; }
    }
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
    doomed_.push_back({std::move(index), 2});
    for (const run& r : s->runs()) {
        const auto at = extents_.find(r.stream);
        if (at == extents_.end()) { continue; }
        std::erase_if(at->second, [&](const extent& e) { return e.where == s; });
    }
    for (auto& [stream, all] : moved_) {
        std::erase_if(all, [&](const auto& m) { return m.second.where == s; });
    }
    std::erase(unindexed_, s);
    segments_.erase(s->first());
    segments_freed_.fetch_add(1, std::memory_order_relaxed);
}

/// Lets go of what nobody wants, and moves what keeps a segment hostage. Returns how many segments went. With `upkeep_`.
template <class Files>
std::size_t log_engine<Files>::retire() {
    std::vector<segment_ptr> candidates;
    {
        const std::lock_guard lock(state_);
        for (auto& [stream, all] : moved_) { // what is settled needs no place
            std::erase_if(all, [&, number = stream](const auto& m) { return !is_live(number, m.first); });
        }
        for (const auto& [first, s] : segments_) {
            if (s != current_ && s->sealed()) { candidates.push_back(s); }
        }
    }
    std::size_t gone = 0;
    std::size_t allowance = a_step;
    for (const segment_ptr& s : candidates) {
        std::uint64_t live = 0;
        {
            const std::lock_guard lock(state_);
            std::uint64_t all = 0;
            for (const run& r : s->runs()) { all += r.count; }
            if (!is_wanted(s, &live)) {
                drop(s);
                ++gone;
                continue;
            }
            if (live * 8 > all) { continue; } // worth its place
        }
        if (allowance != 0) {
            const std::uint64_t bytes = move_survivors(s, allowance);
            allowance -= static_cast<std::size_t>(std::min<std::uint64_t>(allowance, bytes));
        }
    }
    return gone;
}

/// Puts messages of a segment that somebody wants into the open batch, up to `most` bytes. Returns how many bytes that were.
template <class Files>
std::uint64_t log_engine<Files>::move_survivors(const segment_ptr& s, std::size_t most) {
    std::vector<std::pair<std::uint32_t, offset>> live;
    {
        const std::lock_guard lock(state_);
        const auto add = [&](std::uint32_t stream, offset o) {
            const auto moved = moved_.find(stream);
            const bool elsewhere = moved != moved_.end() && moved->second.contains(o) && moved->second.at(o).where != s;
            if (!elsewhere && is_live(stream, o)) { live.emplace_back(stream, o); }
            return live.size() * record_header::size < most;
        };
        for (const run& r : s->runs()) {
            for (offset o = r.first; o < r.first + r.count; ++o) {
                if (!add(r.stream, o)) { break; }
            }
        }
        for (const auto& [stream, all] : moved_) {
            for (const auto& [o, where] : all) {
                if (where.where == s && !add(stream, o)) { break; }
            }
        }
    }
    std::uint64_t done = 0;
    bool has_memory = true;
    for (const auto& [stream, o] : live) {
        if (done >= most || !has_memory) { break; }
        record_calls to(
            [&, number = stream](unsigned, const record& r) {
                try {
                    std::vector<std::byte> payload(r.payload.begin(), r.payload.end());
                    draft d = make_draft(record_kind::moved, number, payload);
                    d.schema = r.head.schema;
                    d.properties = r.head.properties;
                    d.time = r.head.time;
                    d.offset = r.head.offset;
                    if (place({&d, 1}, admission(), nullptr).taken) {
                        done += d.whole();
                        messages_moved_.fetch_add(1, std::memory_order_relaxed);
                    }
                } catch (...) { has_memory = false; }
            },
            [](unsigned, const damage*) {});
        read_ahead nothing_yet;
        read(stream, o, 1, to, nothing_yet);
    }
    if (!has_memory) { throw std::bad_alloc(); }
    return done;
}

/// Removes files that no manifest names any more. One is kept to be written over.
template <class Files>
void log_engine<Files>::remove_doomed() {
    bool any = false;
    const std::string spare = directory_ + '/' + spare_name;
    for (auto& d : doomed_) {
        if (d.checkpoints != 0 && --d.checkpoints != 0) { continue; }
        if (!has_spare_.load(std::memory_order_acquire) && d.path.ends_with(".log") && !until_done([&] { return files_.rename(d.path, spare); })) {
            has_spare_.store(true, std::memory_order_release);
        } else {
            static_cast<void>(until_done([&] { return files_.remove(d.path); }));
        }
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
    to.u64(clean ? applied_ : applied_durable_);
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
    std::vector<std::byte> bytes;
    std::uint64_t at = 0;
    {
        std::unique_lock lock(state_);
        if (!is_whole_) { return errc::io; }
        if (applied_durable_ < applied_) { // a manifest says nothing that a crash could take back
            auto opened = current_->open(files_, open_mode::write);
            std::error_code ec = opened ? until_done([&] { return files_.sync(**opened); }) : std::make_error_code(std::errc::io_error);
            if (ec) {
                failure why = io_failure("a sync failed, nothing more is written until the journal is opened again:", current_->path(), ec);
                lock.unlock();
                stop_writing(why);
                return why;
            }
            applied_durable_ = applied_;
        }
        bytes = encode_state(clean);
        at = applied_;
    }
    bytes = sealed_file::encode(sealed_file::manifest_word, id_, at, bytes);
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
    checkpointed_ = at;
    return errc{};
}

template <class Files>
std::uint64_t log_engine<Files>::bytes_stored() noexcept {
    const std::lock_guard lock(state_);
    std::uint64_t sum = 0;
    for (const auto& [first, s] : segments_) { sum += segment_header::size + (s->end() - first); }
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
    std::uint64_t live = 0, messages = 0;
    for (const run& r : s->runs()) { messages += r.count; }
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
        if (segments_.size() == 1 && current_->end() == current_->first()) {
            report.bytes_after = report.bytes_before;
            if (tell) { tell(1); }
            return report;
        }
    }
    std::vector<segment_ptr> all;
    {
        const std::lock_guard held(state_);
        for (const auto& [first, s] : segments_) {
            if (s != current_ && s->sealed()) { all.push_back(s); }
        }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (;;) {
            {
                const std::lock_guard inner(state_);
                if (!is_mostly_dead(all[i])) { break; }
            }
            const std::uint64_t bytes = move_survivors(all[i], a_step);
            if (bytes == 0) { break; }
            flush();
        }
        if (tell) { tell(static_cast<double>(i + 1) / static_cast<double>(all.size() + 1)); }
    }
    flush();
    write_indexes();
    retire();
    for (int i = 0; i < 2; ++i) { // what is in neither manifest may go
        if (failure why = checkpoint(false); why.kind() != errc{}) { why.raise(); }
        remove_doomed();
    }
    report.segments_freed = segments_freed_.load(std::memory_order_relaxed) - freed;
    report.messages_moved = messages_moved_.load(std::memory_order_relaxed) - moved;
    report.bytes_after = bytes_stored();
    if (tell) { tell(1); }
    return report;
}

} // namespace mailroom::detail
