// What is still wanted of segments that are mostly dead: copied into segments of their own, off the way of commits.
//
// The copies are on stable storage before a record is placed that says where they lie; until that is committed the originals count. So a crash leaves a
// file that nothing speaks of, or one that is in use.
#pragma once

#include <mailroom/journal/detail/checkpoints.hpp>
#include <mailroom/journal/detail/engine_class.hpp>
#include <mailroom/journal/detail/reading.hpp>

namespace mailroom::detail {

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

// -------------------------------------------------------------------------------------------------------------------------- as it is opened

/// What is wrong with a survivor segment that is to reach until there, or nullptr.
template <class Files>
const char* log_engine<Files>::look_at_survivors(const segment_ptr& s, std::uint64_t until) {
    auto opened = s->open(files_, open_mode::read);
    if (!opened) { return "the file is missing or cannot be opened"; }
    std::array<std::byte, segment_header::size> head;
    std::size_t got = 0;
    std::uint64_t size = 0;
    if (read_all(files_, **opened, 0, head, got) || files_.size(**opened, size)) { return "the file cannot be read"; }
    segment_header h;
    std::uint32_t version = 0;
    if (const char* const wrong = segment_header::decode(std::span(head).first(got), h, version)) { return wrong; }
    if (h.id != id_ || h.first != s->first()) { return "the file is a segment of another journal, or another one of this"; }
    return size < s->byte_of(until) ? "the file is shorter than it was" : nullptr;
}

/// A record speaks of a survivor segment: no, it cannot be had. What it speaks of is then where it was: that has not gone before the next checkpoint.
template <class Files>
bool log_engine<Files>::know_survivors(const record& r) {
    if (has_no_manifest_) { return false; } // all of them are looked for
    wire_reader from(r.payload);
    const survivor_list l = survivor_list::read(from);
    const auto known = survivors_.find(l.first);
    const segment_ptr s = known != survivors_.end() ? known->second : std::make_shared<segment<Files>>(directory_, l.first);
    if (const char* const wrong = look_at_survivors(s, l.first + l.length)) {
        not_found_.emplace_back(s->path(), wrong);
        return false;
    }
    s->seal();
    survivors_.emplace(l.first, s);
    limit_open_files(s);
    return true;
}

/// Without a manifest nobody says what survivor segments hold: they do.
template <class Files>
void log_engine<Files>::salvage_survivors(const std::vector<std::string>& names) {
    for (const std::string& n : names) {
        const auto first = position_in(n, ".srv");
        if (!first || *first < survivors_from || *first - survivors_from >= most_survivors) { continue; }
        const auto s = std::make_shared<segment<Files>>(directory_, *first);
        if (const char* const wrong = look_at_survivors(s, *first)) {
            not_found_.emplace_back(s->path(), wrong);
            continue;
        }
        std::uint64_t size = 0;
        if (files_.size(**s->open(files_, open_mode::read), size)) { continue; }
        std::vector<damage> damages;
        scan(
            s, *first + (size - segment_header::size),
            [&](const batch_header& b, const std::vector<record>& records, std::uint64_t) {
                for (const record& r : records) {
                    if (r.head.kind != record_kind::moved || !catalog_.streams().contains(r.head.stream)) { continue; }
                    stretch known;
                    std::array<std::uint64_t, 1> place;
                    if (find(r.head.stream, r.head.offset, 1, known, place.data())) { continue; }
                    moved_[r.head.stream].emplace(r.head.offset, spot{s, r.head.position});
                    catalog_.skip_to(r.head.stream, r.head.offset + 1);
                    s->add_survivors(1);
                }
                s->set_end(b.position + batch_header::size + b.length);
            },
            [&](damage d) { damages.push_back(std::move(d)); });
        for (damage& d : damages) { // behind the last that is whole may be what a crash left
            if (d.byte < s->byte_of(s->end())) { report(d.file, d.byte, std::move(d.what)); }
        }
        s->seal();
        survivors_.emplace(*first, s);
        limit_open_files(s);
    }
}

/// Survivor segments that nothing speaks of go: a crash left them, or they were about to. Their positions are not used again.
template <class Files>
void log_engine<Files>::free_survivors(const std::vector<std::string>& names) {
    for (const std::string& n : names) {
        const auto first = position_in(n, ".srv");
        if (!first) { continue; }
        const std::string path = directory_ + '/' + n;
        std::uint64_t size = 0;
        file f;
        if (until_done([&] { return files_.open(path, open_mode::read, f); }) || files_.size(f, size)) { size = options_.segment_bytes; }
        if (*first >= survivors_from && *first - survivors_from < most_survivors && size < most_survivors) {
            next_survivor_ = std::max(next_survivor_, *first + padded(static_cast<std::size_t>(size)));
        }
        if (!survivors_.contains(*first)) {
            static_cast<void>(until_done([&] { return files_.remove(path); }));
        }
    }
    for (const auto& [first, s] : survivors_) { next_survivor_ = std::max(next_survivor_, s->end()); }
}

} // namespace mailroom::detail
