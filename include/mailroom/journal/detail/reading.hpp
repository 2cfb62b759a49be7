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
            buffer_.resize(std::max(n, static_cast<std::size_t>(std::min<std::uint64_t>(piece, there))));
            from_ = at;
            if (const auto ec = read_all(files_, file_, at, buffer_, have_)) { io_failure("cannot read", path_, ec).raise(); }
        }
        const std::uint64_t skip = at - from_;
        return bytes_view(buffer_).subspan(static_cast<std::size_t>(skip), std::min(n, have_ - static_cast<std::size_t>(skip)));
    }

private:
    const Files& files_;
    const typename Files::file& file_;
    const std::string path_;
    std::vector<std::byte> buffer_;
    std::uint64_t from_ = 0;
    std::size_t have_ = 0;
};

/// Where a message lies. Under `state_`.
template <class Files>
bool log_engine<Files>::find(std::uint32_t stream, offset o, lookup& l) {
    if (const auto moved = moved_.find(stream); moved != moved_.end()) {
        if (const auto at = moved->second.find(o); at != moved->second.end()) {
            l.where = at->second.where;
            l.position = at->second.position;
            l.in = nullptr;
            return true;
        }
    }
    const auto all = extents_.find(stream);
    if (all == extents_.end()) { return false; }
    auto at = std::upper_bound(all->second.begin(), all->second.end(), o, [](offset x, const extent& e) { return x < e.first; });
    if (at == all->second.begin()) { return false; }
    --at;
    const run& r = at->where->runs()[at->which];
    if (o - r.first >= r.count) { return false; }
    l.where = at->where;
    l.number = static_cast<std::uint32_t>(o - r.first);
    if (at->where->has_places()) {
        at->where->places_in_memory(at->which, l.number, {&l.position, 1});
        l.in = nullptr;
    } else {
        l.copy = r;
        l.in = &l.copy;
    }
    return true;
}

template <class Files>
void log_engine<Files>::read(std::uint32_t stream, offset first, std::uint32_t mask, const found_fn& found, const lost_fn& lost) noexcept {
    std::array<lookup, 32> where;
    std::uint32_t there = 0;
    const auto give_up = [&](unsigned i, const segment_ptr& s, std::uint64_t position, const char* what) {
        try {
            const damage d{s->path(), s->byte_of(position), what};
            lost(i, &d);
        } catch (...) { lost(i, nullptr); }
    };
    try {
        for (bool again = true; again;) {
            again = false;
            {
                const std::lock_guard lock(state_);
                there = 0;
                for (std::uint32_t left = mask; left != 0; left &= left - 1) {
                    const auto i = static_cast<unsigned>(std::countr_zero(left));
                    where[i] = lookup();
                    if (find(stream, first + i, where[i])) {
                        there |= std::uint32_t{1} << i;
                        if (where[i].in != nullptr) { where[i].in = &where[i].copy; }
                    }
                }
            }
            for (unsigned i = 0; i < 32 && !again; ++i) {
                if ((there >> i & 1u) == 0 || where[i].in == nullptr) { continue; }
                unsigned n = 1; // in a row
                while (i + n < 32 && (there >> (i + n) & 1u) != 0 && where[i + n].in != nullptr && where[i + n].where == where[i].where &&
                       where[i + n].number == where[i].number + n) {
                    ++n;
                }
                std::array<std::uint64_t, 32> places;
                limit_open_files(where[i].where);
                if (!where[i].where->places_on_disk(files_, id_, where[i].copy, where[i].number, std::span(places).first(n))) {
                    again = rebuild_index(where[i].where);
                    if (!again) {
                        for (unsigned k = i; k < i + n; ++k) {
                            there &= ~(std::uint32_t{1} << k);
                            give_up(k, where[k].where, where[k].where->first(), "the segment cannot be read");
                        }
                    }
                }
                for (unsigned k = 0; k < n; ++k) {
                    where[i + k].position = places[k];
                    where[i + k].in = nullptr;
                }
            }
        }
    } catch (...) { // no memory
        for (std::uint32_t left = mask; left != 0; left &= left - 1) { lost(static_cast<unsigned>(std::countr_zero(left)), nullptr); }
        return;
    }
    for (std::uint32_t left = mask & ~there; left != 0; left &= left - 1) { lost(static_cast<unsigned>(std::countr_zero(left)), nullptr); }

    // What lies near each other is read at once.
    constexpr std::uint64_t near = std::uint64_t{64} << 10;
    std::vector<std::byte> buffer;
    for (unsigned i = 0; i < 32;) {
        if ((there >> i & 1u) == 0) {
            ++i;
            continue;
        }
        const segment_ptr& s = where[i].where;
        unsigned end = i + 1;
        std::uint64_t last = where[i].position;
        while (end < 32 && ((there >> end & 1u) == 0 || (where[end].where == s && where[end].position > last && where[end].position - where[i].position < near))) {
            if ((there >> end & 1u) != 0) { last = where[end].position; }
            ++end;
        }
        std::size_t got = 0;
        std::shared_ptr<file> f;
        std::error_code ec;
        try {
            auto opened = s->open(files_, open_mode::read);
            if (opened) {
                f = *opened;
                buffer.resize(static_cast<std::size_t>(last - where[i].position) + 1024);
                ec = read_all(files_, *f, s->byte_of(where[i].position), buffer, got);
            } else {
                ec = std::make_error_code(std::errc::io_error);
            }
        } catch (...) { ec = std::make_error_code(std::errc::not_enough_memory); }
        for (const std::uint64_t base = where[i].position; i < end; ++i) {
            if ((there >> i & 1u) == 0) { continue; }
            const std::uint64_t at = where[i].position;
            const auto skip = static_cast<std::size_t>(at - base);
            if (ec) {
                give_up(i, s, at, "the file cannot be read");
                continue;
            }
            bytes_view bytes = skip < got ? bytes_view(buffer).subspan(skip, got - skip) : bytes_view();
            record_header h;
            std::vector<std::byte> longer;
            if (record_header::decode(bytes, at, seed_, h) && bytes.size() < h.whole()) {
                try {
                    longer.resize(h.whole());
                    std::size_t more = 0;
                    if (!read_all(files_, *f, s->byte_of(at), longer, more)) { bytes = bytes_view(longer).first(more); }
                } catch (...) {}
            }
            const auto r = decode_record(bytes, at, seed_);
            if (r && r->head.stream == stream && r->head.offset == first + i &&
                (r->head.kind == record_kind::message || r->head.kind == record_kind::moved)) {
                found(i, *r);
            } else {
                give_up(i, s, at, "a message is damaged");
            }
        }
    }
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
        const bytes_view body = window.at(s->byte_of(at) + batch_header::size, static_cast<std::size_t>(std::min<std::uint64_t>(h.length, until - at)));
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
    std::vector<std::vector<std::uint32_t>> places(runs.size());
    std::unordered_map<std::uint32_t, std::vector<std::size_t>> of; // runs, by their stream
    for (std::size_t i = 0; i < runs.size(); ++i) {
        places[i].resize(runs[i].count);
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
                    if (n < runs[i].count) { places[i][static_cast<std::size_t>(n)] = static_cast<std::uint32_t>((at - s->first()) / alignment); }
                }
            }
            at += h.whole();
        }
    } catch (const error&) { return false; }
    const std::lock_guard lock(state_);
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
