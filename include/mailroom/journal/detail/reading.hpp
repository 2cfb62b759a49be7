// Finding messages, and reading them.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>

#include <array>
#include <bit>

namespace mailroom::detail {

/// Reads a file from the front, in large pieces.
template <class Files>
class file_window {
public:
    file_window(const Files& files, const typename Files::file& f, std::string path) noexcept : files_(files), file_(f), path_(std::move(path)) {}

    /// `n` bytes from `at` on, or as many as there are. Valid until the next call. Throws errc::io.
    bytes_view at(std::uint64_t at, std::size_t n) {
        if (at < from_ || at - from_ > have_ || n > have_ - (at - from_)) {
            constexpr std::size_t piece = std::size_t{1} << 20;
            std::uint64_t size = 0;
            if (const auto ec = until_done([&] { return files_.size(file_, size); })) { io_failure("cannot read", path_, ec).raise(); }
            const std::uint64_t there = at < size ? size - at : 0;
            n = static_cast<std::size_t>(std::min<std::uint64_t>(n, there));
            buffer_.clear_for(at);
            buffer_.resize(std::max(n, static_cast<std::size_t>(std::min<std::uint64_t>(piece, there))));
            from_ = at;
            if (const auto ec = read_all(files_, file_, at, {buffer_.data(), buffer_.size()}, have_)) { io_failure("cannot read", path_, ec).raise(); }
        }
        const std::uint64_t skip = at - from_;
        return bytes_view(buffer_).subspan(static_cast<std::size_t>(skip), std::min(n, have_ - static_cast<std::size_t>(skip)));
    }

private:
    const Files& files_;
    const typename Files::file& file_;
    const std::string path_;
    byte_buffer buffer_;
    std::uint64_t from_ = 0;
    std::size_t have_ = 0;
};

/// Where a message lies, and those after it that lie in the same run: `most` at most, whose places go to `to` where they are known. Under `state_`.
template <class Files>
bool log_engine<Files>::find(std::uint32_t stream, offset o, unsigned most, stretch& s, std::uint64_t* to) {
    if (const auto moved = moved_.find(stream); moved != moved_.end()) {
        const auto at = moved->second.lower_bound(o);
        if (at != moved->second.end() && at->first == o) {
            s.where = at->second.where;
            s.end = s.where->end();
            s.n = 1;
            s.is_placed = true;
            *to = at->second.position;
            return true;
        }
        if (at != moved->second.end()) { most = static_cast<unsigned>(std::min<std::uint64_t>(most, at->first - o)); }
    }
    const auto all = extents_.find(stream);
    if (all == extents_.end()) { return false; }
    auto at = std::upper_bound(all->second.begin(), all->second.end(), o, [](offset x, const extent& e) { return x < e.first; });
    if (at == all->second.begin()) { return false; }
    --at;
    const run& r = at->where->runs()[at->which];
    if (o - r.first >= r.count) { return false; }
    s.where = at->where;
    s.end = s.where->end();
    s.number = static_cast<std::uint32_t>(o - r.first);
    s.n = std::min<std::uint32_t>(most, r.count - s.number);
    s.is_placed = s.where->has_places();
    if (s.is_placed) {
        s.where->places_in_memory(at->which, s.number, {to, s.n});
    } else {
        s.in = r;
    }
    return true;
}

/// The places of a stretch, from the file beside its segment. False: that cannot be read.
template <class Files>
bool log_engine<Files>::look_up(stretch& s, std::uint64_t* to, read_ahead& ahead) {
    constexpr std::uint32_t some = 1024; // where somebody reads on and on
    const offset o = s.in.first + s.number;
    const auto known = [&] { return ahead.places_are_of(s.where) && o >= ahead.first_place && o - ahead.first_place + s.n <= ahead.places.size(); };
    if (!known()) {
        limit_open_files(s.where);
        const bool goes_on = ahead.places_are_of(s.where) && o >= ahead.first_place && o - ahead.first_place <= ahead.places.size();
        const std::uint32_t n = goes_on ? std::min(some, s.in.count - s.number) : s.n;
        ahead.places.resize(std::max(n, s.n));
        ahead.places_of = s.where;
        ahead.first_place = o;
        if (!s.where->places_on_disk(files_, id_, s.in, s.number, ahead.places)) {
            ahead.places.clear();
            return false;
        }
    }
    std::copy_n(ahead.places.begin() + static_cast<std::ptrdiff_t>(o - ahead.first_place), s.n, to);
    s.is_placed = true;
    return true;
}

/// Reads from position `at` of a segment on: `least` bytes, and more where somebody reads on and on. No further than `end`.
template <class Files>
std::error_code log_engine<Files>::read_at(const segment_ptr& s, std::uint64_t at, std::size_t least, std::uint64_t end, read_ahead& ahead) noexcept {
    constexpr std::size_t little = std::size_t{128} << 10;
    try {
        const bool goes_on = at >= ahead.reached && at - ahead.reached < near;
        const std::uint64_t there = at < end ? end - at : 0;
        ahead.next = goes_on ? std::clamp(2 * ahead.next, little, read_ahead::most) : 0;
        const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(there, std::max(least, ahead.next)));
        ahead.have = 0;
        auto opened = s->open(files_, open_mode::read);
        if (!opened) { return std::make_error_code(std::errc::io_error); }
        ahead.bytes.clear_for(s->byte_of(at));
        ahead.bytes.resize(n);
        ahead.of = s;
        ahead.at = at;
        return read_all(files_, **opened, s->byte_of(at), {ahead.bytes.data(), n}, ahead.have);
    } catch (...) { return std::make_error_code(std::errc::not_enough_memory); }
}

template <class Files>
void log_engine<Files>::read(std::uint32_t stream, offset first, std::uint32_t mask, record_reader& to, read_ahead& kept) noexcept {
    std::array<std::uint64_t, 32> places; // of a stretch
    const auto end = static_cast<unsigned>(std::bit_width(mask));
    for (auto i = static_cast<unsigned>(std::countr_zero(mask)); i < end;) {
        if ((mask >> i & 1u) == 0) {
            ++i;
            continue;
        }
        stretch s;
        try {
            bool is_there = false;
            {
                const std::lock_guard lock(state_);
                is_there = find(stream, first + i, end - i, s, places.data());
            }
            if (!is_there) {
                to.lost(i++, nullptr);
                continue;
            }
            if (!s.is_placed && !look_up(s, places.data(), kept) && rebuild_index(s.where)) { continue; } // again, from memory
        } catch (...) {                                                                                   // they are there, and cannot be had now
            const damage d{};
            for (; i < end; ++i) {
                if ((mask >> i & 1u) != 0) { to.lost(i, &d); }
            }
            return;
        }
        i += read_stretch(s, stream, first + i, mask >> i, i, places.data(), to, kept);
    }
}

/// Whether a message that could not be read in a segment is not there any more: it was moved, or settled, and the segment given back.
template <class Files>
bool log_engine<Files>::has_left(const segment_ptr& s, std::uint32_t stream, offset o) noexcept {
    stretch now;
    std::uint64_t place = 0;
    const std::lock_guard lock(state_);
    return !find(stream, o, 1, now, &place) || now.where != s;
}

/// Whether the places of a stretch were those of a file beside its segment, and have been made again from the segment. What was salvaged has other runs
/// than before, and a crash may leave the file of before.
template <class Files>
bool log_engine<Files>::places_were_wrong(const stretch& s, read_ahead& ahead) noexcept {
    if (s.in.count == 0) { return false; }
    try {
        ahead.places.clear();
        return rebuild_index(s.where);
    } catch (...) { return false; } // no memory
}

/// Tells `to` of messages o + k, for each bit k of the mask: they lie at `places`. For `to` the first of them is number `i`. Returns how many that
/// were: those that follow are to be looked for again.
template <class Files>
unsigned log_engine<Files>::read_stretch(const stretch& s, std::uint32_t stream, offset o, std::uint32_t mask, unsigned i,
                                         const std::uint64_t* places, record_reader& to, read_ahead& ahead) noexcept {
    const auto give_up = [&](unsigned k, std::uint64_t position, const char* what) {
        damage d;
        try {
            if (what != nullptr) { d = damage{s.where->path(), s.where->byte_of(position), what}; }
        } catch (...) { d = damage{}; } // of no file: there was no memory
        to.lost(i + k, &d);
    };
    bool is_known = ahead.is_of(s.where);
    for (unsigned k = 0; k < s.n; ++k) {
        if ((mask >> k & 1u) == 0) { continue; }
        if (!s.is_placed) {
            if (has_left(s.where, stream, o + k)) { return k; }
            give_up(k, s.where->first(), "the segment cannot be read");
            continue;
        }
        const std::uint64_t at = places[k];
        record r;
        bool is_whole = is_known && decode_record(ahead.from(at), at, seed_, r);
        if (!is_whole) [[unlikely]] {
            std::error_code ec;
            is_whole = read_more(s, places + k, s.n - k, ahead, r, ec);
            is_known = ahead.is_of(s.where);
            if (!is_whole && ec != std::errc::not_enough_memory && has_left(s.where, stream, o + k)) { return k; }
            if (ec) {
                give_up(k, at, ec == std::errc::not_enough_memory ? nullptr : "the file cannot be read");
                continue;
            }
        }
        if (!is_whole || r.head.stream != stream || r.head.offset != o + k ||
            (r.head.kind != record_kind::message && r.head.kind != record_kind::moved)) [[unlikely]] {
            if (places_were_wrong(s, ahead)) { return k; }
            give_up(k, at, "a message is damaged");
            continue;
        }
        ahead.usual = r.head.whole();
        ahead.reached = at + ahead.usual;
        to.found(i + k, r);
    }
    return s.n;
}

/// Reads the first of `n` messages that lie at `places`, not all of which is here yet, and some after it.
template <class Files>
bool log_engine<Files>::read_more(const stretch& s, const std::uint64_t* places, unsigned n, read_ahead& ahead, record& r,
                                  std::error_code& ec) noexcept {
    const std::uint64_t at = places[0];
    // As many bytes as it and those after it that lie near seem to take.
    std::uint64_t last = at, widest = std::max<std::uint64_t>(1024, std::min<std::uint64_t>(ahead.usual, near));
    for (unsigned k = 1; k < n && places[k] > last && places[k] - at < near; ++k) {
        widest = std::max(widest, places[k] - last);
        last = places[k];
    }
    const auto reach = static_cast<std::size_t>(last - at + widest);
    std::size_t least = 0;
    for (int tries = 0; tries < 2; ++tries) { // how long it is, it says itself
        if (const bytes_view here = ahead.is_of(s.where) ? ahead.from(at) : bytes_view(); here.size() >= record_header::size) {
            record_header h;
            if (!record_header::decode(here, at, seed_, h) || here.size() >= h.whole()) { return false; }
            least = h.whole();
        }
        ec = read_at(s.where, at, std::max(least, reach), s.end, ahead);
        if (ec) { return false; }
        if (decode_record(ahead.from(at), at, seed_, r)) { return true; }
    }
    return false;
}

/// Goes through the batches of a segment up to position `until`: `fn(header, records, its checksum)` for each that is whole, `wrong(damage)` for
/// what lies between. Throws errc::io, std::bad_alloc.
template <class Files>
template <class Fn, class Wrong>
void log_engine<Files>::scan(const segment_ptr& s, std::uint64_t until, Fn fn, Wrong wrong) {
    auto opened = s->open(files_, open_mode::read);
    if (!opened) { opened.error().raise(); }
    file_window<Files> window(files_, **opened, s->path());
    std::vector<record> records;
    bool is_lost = false; // within something damaged, looking for the next batch
    for (std::uint64_t at = s->first(); at < until;) {
        batch_header h;
        const bytes_view front = window.at(s->byte_of(at), batch_header::size);
        if (front.size() < batch_header::size) {
            wrong(damage{s->path(), s->byte_of(at), "the file ends before its time"});
            return;
        }
        if (!batch_header::decode(front, at, seed_, h)) {
            if (!is_lost) { wrong(damage{s->path(), s->byte_of(at), "the header of a batch is damaged"}); }
            is_lost = true;
            at += alignment;
            continue;
        }
        is_lost = false;
        const auto check = load_le<std::uint64_t>(front.data());
        const bytes_view body =
            window.at(s->byte_of(at) + batch_header::size, static_cast<std::size_t>(std::min<std::uint64_t>(h.length, until - at)));
        records.clear();
        bool whole = body.size() == h.length;
        if (!whole) {
            wrong(damage{s->path(), s->byte_of(at), "a batch is not whole"});
            return;
        }
        for (std::size_t done = 0; done < body.size();) {
            const std::uint64_t place = at + batch_header::size + done;
            const auto r = decode_record(body.subspan(done), place, seed_);
            if (!r) {
                if (whole) { wrong(damage{s->path(), s->byte_of(place), "a record is damaged"}); }
                whole = false;
                record_header known;
                done += record_header::decode(body.subspan(done), place, seed_, known) ? known.whole() : alignment;
                continue;
            }
            records.push_back(*r);
            done += r->head.whole();
        }
        if (whole && records.size() == h.records) {
            fn(h, records, check);
        } else if (whole) {
            wrong(damage{s->path(), s->byte_of(at), "a batch is not whole"});
        }
        at += batch_header::size + h.length;
    }
}

/// Makes the index of a sealed segment again, in memory, until it is in a file. False: the segment cannot be read.
template <class Files>
bool log_engine<Files>::rebuild_index(const segment_ptr& s) {
    std::vector<run> runs;
    {
        const std::lock_guard lock(state_);
        runs = s->runs();
    }
    // What is damaged gets a place at which nothing verifies: that of the segment itself.
    std::vector<place_list> places(runs.size());
    std::unordered_map<std::uint32_t, std::vector<std::size_t>> of; // runs, by their stream
    for (std::size_t i = 0; i < runs.size(); ++i) {
        for (std::uint32_t n = 0; n != runs[i].count; ++n) { places[i].push_back(0); }
        of[runs[i].stream].push_back(i);
    }
    auto opened = s->open(files_, open_mode::read);
    if (!opened) { return false; }
    try {
        file_window<Files> window(files_, **opened, s->path());
        for (std::uint64_t at = s->first(); at < s->end();) { // each record says itself where it stands
            record_header h;
            const bytes_view front = window.at(s->byte_of(at), record_header::size);
            if (front.size() < record_header::size) { break; }
            if (!record_header::decode(front, at, seed_, h)) {
                at += alignment;
                continue;
            }
            if (h.kind == record_kind::message) {
                for (const std::size_t i : of[h.stream]) {
                    const offset n = h.offset - runs[i].first;
                    if (n < runs[i].count) { places[i].set(static_cast<std::size_t>(n), static_cast<std::uint32_t>((at - s->first()) / alignment)); }
                }
            }
            at += h.whole();
        }
    } catch (const error&) { return false; }
    const std::lock_guard lock(state_);
    const auto kept = segments_.find(s->first());
    if (kept == segments_.end() || kept->second != s) { return false; } // it was given back meanwhile
    if (!s->has_places()) {
        s->set_places(std::move(places));
        unindexed_.push_back(s);
    }
    return true;
}

template <class Files>
offset log_engine<Files>::first_stored(std::uint32_t stream) noexcept {
    const std::lock_guard lock(state_);
    offset first = catalog_.stream(stream).next;
    const auto all = extents_.find(stream);
    if (all != extents_.end() && !all->second.empty()) { first = all->second.front().first; }
    const auto moved = moved_.find(stream);
    if (moved != moved_.end() && !moved->second.empty()) { first = std::min(first, moved->second.begin()->first); }
    return first;
}

/// Segments that nobody has read from lately are closed.
template <class Files>
void log_engine<Files>::limit_open_files(const segment_ptr& used) noexcept {
    const std::lock_guard lock(state_);
    try {
        const auto known = std::find_if(recently_opened_.begin(), recently_opened_.end(), [&](const auto& w) { return w.lock() == used; });
        if (known != recently_opened_.end()) {
            std::rotate(known, known + 1, recently_opened_.end());
            return;
        }
        recently_opened_.push_back(used);
    } catch (...) { return; }
    if (recently_opened_.size() > most_open) {
        if (const segment_ptr oldest = recently_opened_.front().lock(); oldest != nullptr && oldest != current_) { oldest->close(); }
        recently_opened_.erase(recently_opened_.begin());
    }
}

} // namespace mailroom::detail
