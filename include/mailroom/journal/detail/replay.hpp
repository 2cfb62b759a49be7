// What was committed since the manifest, and whether its end is the end, or damage: recovery.hpp says how that is told apart.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>
#include <mailroom/journal/detail/reading.hpp>
#include <mailroom/journal/detail/rotation.hpp>

namespace mailroom::detail {

template <class Files>
void log_engine<Files>::apply_recovered(const record& r, const segment_ptr& s) {
    if (r.head.kind == record_kind::message) {
        // A message lost to damage leaves a hole in the index, not in the offsets.
        const auto known = catalog_.streams().find(r.head.stream);
        if (known == catalog_.streams().end() || r.head.offset < known->second.next) { fail(errc::corrupt, "a message out of order"); }
    }
    if (r.head.kind != record_kind::survivors || know_survivors(r)) { take(r, s); }
    ++recovered_.replayed;
}

/// Of the segment that was open, the places of what was committed before the checkpoint are made again.
template <class Files>
void log_engine<Files>::index_again(const segment_ptr& s, std::uint64_t until) {
    s->set_end(until);
    auto opened = s->open(files_, open_mode::read);
    if (!opened) { opened.error().raise(); }
    file_window<Files> window(files_, **opened, s->path());
    bool is_lost = false;
    for (std::uint64_t at = s->first(); at < until;) { // record by record: what is damaged has no place
        const bytes_view front = window.at(s->byte_of(at), batch_header::size);
        if (front.size() < record_header::size) {
            report(s->path(), s->byte_of(at), "the file ends before its time");
            return;
        }
        batch_header b;
        if (batch_header::decode(front, at, seed_, b)) {
            at += batch_header::size;
            continue;
        }
        record_header h;
        const bool is_record = record_header::decode(front, at, seed_, h);
        const auto r = is_record ? decode_record(window.at(s->byte_of(at), h.whole()), at, seed_) : std::nullopt;
        if (!r) {
            if (!is_lost) { report(s->path(), s->byte_of(at), "a record is damaged"); }
            is_lost = true;
            at += alignment;
            continue;
        }
        is_lost = false;
        if (h.kind == record_kind::message && catalog_.streams().contains(h.stream)) { take_place(*r, s); }
        at += h.whole();
    }
}

/// Takes in the batches of one segment, as far as they go on.
template <class Files>
void log_engine<Files>::replay_segment(const segment_ptr& s, replay_state& r) {
    auto opened = s->open(files_, open_mode::read);
    if (!opened) { opened.error().raise(); }
    file_window<Files> window(files_, **opened, s->path());
    std::vector<record> records;
    for (;;) {
        batch_header h;
        r.broken_at = r.at;
        r.what = "the header of a batch is damaged";
        const bytes_view front = window.at(s->byte_of(r.at), batch_header::size);
        if (!batch_header::decode(front, r.at, seed_, h)) { return; }
        const auto check = load_le<std::uint64_t>(front.data());
        if (!r.jumped && (h.previous != r.chain || h.incarnation < r.lowest_incarnation)) {
            r.what = "a batch does not follow the one before";
            return;
        }
        const bytes_view body = window.at(s->byte_of(r.at) + batch_header::size, static_cast<std::size_t>(h.length));
        records.clear();
        bool whole = body.size() == h.length;
        for (std::size_t done = 0; whole && done < body.size();) {
            r.broken_at = r.at + batch_header::size + done;
            const auto one = decode_record(body.subspan(done), r.broken_at, seed_);
            whole = one.has_value();
            if (!whole) { break; }
            records.push_back(*one);
            done += one->head.whole();
        }
        r.what = "a record is damaged";
        if (!whole || records.size() != h.records) { return; }
        try {
            for (const record& one : records) { apply_recovered(one, s); }
        } catch (const error& e) {
            r.what = e.what();
            return;
        }
        r.at += batch_header::size + h.length;
        r.chain = check;
        r.lowest_incarnation = h.incarnation;
        r.jumped = false;
        durable_ = std::max(durable_, h.durable_upto);
        s->set_end(r.at);
        recovered_.clean = false;
    }
}

/// Goes on in the segment that begins where the one before ended, if there is one.
template <class Files>
bool log_engine<Files>::enter_next(segment_ptr& last, replay_state& r, const std::vector<std::string>& names) {
    if ((last != nullptr && r.at == last->first()) || !std::binary_search(names.begin(), names.end(), file_name(r.at, ".log"))) { return false; }
    auto next = std::make_shared<segment<Files>>(directory_, r.at);
    auto opened = next->open(files_, open_mode::read);
    if (!opened) { opened.error().raise(); }
    std::array<std::byte, segment_header::size> head;
    std::size_t got = 0;
    segment_header h;
    std::uint32_t version = 0;
    if (const auto ec = read_all(files_, **opened, 0, head, got)) { io_failure("cannot read", next->path(), ec).raise(); }
    const char* const wrong = segment_header::decode(std::span(head).first(got), h, version);
    if (wrong == other_version) { fail(errc::corrupt, next->path() + ": " + wrong); }
    if (wrong != nullptr || h.id != id_ || h.first != r.at) { // of a crash while it was made, or damaged
        bool remains = false;
        recovered_.cut_bytes = 0;
        if (std::max(durable_, durable_beyond(next, r.at, names, remains)) <= r.at) { return false; }
        report(next->path(), 0, wrong != nullptr ? wrong : "the file is a segment of another journal, or another one of this");
        r.jumped = true;
        if (wrong == nullptr) { return false; }
        if (!read_only_) { write_header(next); }
        h.durable_upto = r.at;
    }
    if (last != nullptr) {
        last->seal();
        if (last->has_places()) { unindexed_.push_back(last); }
    }
    last = segments_.try_emplace(r.at, next).first->second;
    durable_ = std::max(durable_, std::min(h.durable_upto, r.at));
    return true;
}

/// Where the first segment begins that begins after `position`; 0: there is none.
inline std::uint64_t first_after(std::uint64_t position, const std::vector<std::string>& names) {
    std::uint64_t next = 0;
    for (const std::string& n : names) {
        const auto first = position_in(n, ".log");
        if (first && *first > position && (next == 0 || *first < next)) { next = *first; }
    }
    return next;
}

/// Reads what was committed after the checkpoint. Returns where it ends; `last` is the segment that ends there.
template <class Files>
std::uint64_t log_engine<Files>::replay(segment_ptr& last, const std::vector<std::string>& names) {
    replay_state r{.at = applied_, .chain = applied_chain_, .lowest_incarnation = incarnation_.load()};
    r.jumped = catalog_.endpoints().empty() && !recovered_.damages.empty(); // there is no manifest, so nothing to follow
    durable_ = applied_durable_;
    auto where = segments_.upper_bound(r.at);
    if (where != segments_.begin()) { --where; }
    last = where != segments_.end() && !where->second->sealed() ? where->second : nullptr;
    if (last != nullptr && last->first() < r.at) { index_again(last, r.at); }
    for (;;) {
        if (last != nullptr) { replay_segment(last, r); }
        if (enter_next(last, r, names)) { continue; }
        // The end, or damage: whatever was ever safe has to be there.
        if (last == nullptr) { // the segment that was written to is missing, which is reported; what was begun after it may be there
            const std::uint64_t next = first_after(r.at, names);
            if (next == 0) { break; }
            r.at = next;
            r.jumped = true;
            recovered_.clean = false;
            continue;
        }
        bool remains = false;
        const std::uint64_t safe = std::max(durable_, durable_beyond(last, r.at, names, remains));
        if (r.at >= safe) {
            if (remains) { recovered_.clean = false; }
            break;
        }
        report(last->path(), last->byte_of(r.broken_at), r.what);
        r.jumped = true;
        recovered_.clean = false;
        std::uint64_t next = salvage_from(last, r.at);
        const bool is_here = next != 0;
        if (next == 0) { next = first_after(std::max(r.at, last->first()), names); } // nothing more in this segment: the next one there is
        if (next == 0) {
            r.at = std::max(r.at, std::min(safe, last->end()));
            break;
        }
        r.at = next;
        if (is_here) { last->set_end(r.at); }
    }
    applied_chain_ = r.chain;
    return r.at;
}

/// Up to where everything was once safe, as far as what lies beyond `from` can tell. `remains`: there is something of this life of the file.
template <class Files>
std::uint64_t log_engine<Files>::durable_beyond(const segment_ptr& s, std::uint64_t from, const std::vector<std::string>& names, bool& remains) {
    std::uint64_t highest = 0, last_seen = from;
    const auto look = [&](const segment_ptr& one, std::uint64_t first) {
        auto opened = one->open(files_, open_mode::read);
        if (!opened) { return; }
        std::uint64_t size = 0;
        if (files_.size(**opened, size)) { return; }
        file_window<Files> window(files_, **opened, one->path());
        for (std::uint64_t at = first; one->byte_of(at) + batch_header::size <= size;) {
            const bytes_view all = window.at(one->byte_of(at), std::size_t{64} << 10);
            if (all.size() < batch_header::size) { return; }
            const std::byte* b = all.data();
            for (const std::byte* const last = b + (all.size() - batch_header::size); b <= last; b += alignment, at += alignment) {
                const bool names_itself = load_le<std::uint64_t>(b + 8) == at || load_le<std::uint64_t>(b + 16) == at;
                if (!names_itself) { continue; }
                last_seen = std::max(last_seen, at + alignment);
                batch_header h;
                if (batch_header::decode({b, batch_header::size}, at, seed_, h)) { highest = std::max(highest, h.durable_upto); }
            }
        }
    };
    look(s, from);
    for (const std::string& n : names) {
        const auto first = position_in(n, ".log");
        if (!first || *first <= s->first()) { continue; }
        auto later = std::make_shared<segment<Files>>(directory_, *first);
        std::array<std::byte, segment_header::size> head;
        std::size_t got = 0;
        segment_header h;
        std::uint32_t version = 0;
        auto opened = later->open(files_, open_mode::read);
        if (!opened || read_all(files_, **opened, 0, head, got)) { continue; }
        if (segment_header::decode(std::span(head).first(got), h, version) != nullptr || h.id != id_ || h.first != *first) { continue; }
        if (*first > from) { highest = std::max(highest, std::min(h.durable_upto, *first)); }
        look(later, *first);
    }
    if (last_seen > from) {
        remains = true;
        recovered_.cut_bytes = last_seen - from;
    }
    return highest;
}

/// Takes in what is intact of a damaged batch, and says where the next whole one begins; 0: there is none in this segment.
template <class Files>
std::uint64_t log_engine<Files>::salvage_from(const segment_ptr& s, std::uint64_t from) {
    recovered_.cut_bytes = 0;
    auto opened = s->open(files_, open_mode::read);
    if (!opened) { return 0; }
    std::uint64_t size = 0;
    if (files_.size(**opened, size)) { return 0; }
    file_window<Files> window(files_, **opened, s->path());
    bool is_first = true;
    for (std::uint64_t at = from; s->byte_of(at) + record_header::size <= size;) {
        batch_header b;
        if (batch_header::decode(window.at(s->byte_of(at), batch_header::size), at, seed_, b)) {
            if (!is_first) { return at; } // the one that is damaged may have kept its header
            is_first = false;
            at += batch_header::size;
            continue;
        }
        is_first = false;
        record_header h;
        if (record_header::decode(window.at(s->byte_of(at), record_header::size), at, seed_, h)) {
            const auto r = decode_record(window.at(s->byte_of(at), h.whole()), at, seed_);
            if (r) {
                try {
                    apply_recovered(*r, s);
                } catch (const error&) {} // of something that is lost
                at += h.whole();
                s->set_end(at);
                continue;
            }
            if (h.kind == record_kind::message) { catalog_.skip_to(h.stream, h.offset + 1); }
            report(s->path(), s->byte_of(at), "a record is damaged");
            at += alignment;
            continue;
        }
        at += alignment;
    }
    return 0;
}

} // namespace mailroom::detail
