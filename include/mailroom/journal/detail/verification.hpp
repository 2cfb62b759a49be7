// Verifying: everything is read, every checksum looked at, and what refers to something has to find it.
#pragma once

#include <mailroom/journal/detail/recovery.hpp>

namespace mailroom::detail {

template <class Files>
verify_report log_engine<Files>::verify(const progress& tell) {
    verify_report report;
    if (!read_only_ && is_open()) { flush(); }
    std::vector<segment_ptr> all;
    std::vector<std::uint64_t> ends;
    std::uint64_t bytes = 0;
    {
        const std::lock_guard lock(state_);
        for (const auto& [first, s] : segments_) {
            all.push_back(s);
            ends.push_back(s->end());
            bytes += s->end() - first;
        }
    }
    const auto wrong = [&](damage d) {
        report.intact = false;
        report.damages.push_back(std::move(d));
    };
    std::uint64_t done = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const segment_ptr& s = all[i];
        ++report.segments;
        try {
            std::array<std::byte, segment_header::size> head;
            std::size_t got = 0;
            segment_header h;
            std::uint32_t version = 0;
            auto opened = s->open(files_, open_mode::read);
            if (!opened) { opened.error().raise(); }
            if (const auto ec = read_all(files_, **opened, 0, head, got)) { io_failure("cannot read", s->path(), ec).raise(); }
            if (const char* const what = segment_header::decode(std::span(head).first(got), h, version)) { wrong({s->path(), 0, what}); }
            std::uint64_t chain = 0;
            bool is_first = true;
            scan(
                s, ends[i],
                [&](const batch_header& b, const std::vector<record>& records, std::uint64_t check) {
                    if (!is_first && b.previous != chain) { wrong({s->path(), s->byte_of(b.position), "a batch does not follow the one before"}); }
                    chain = check;
                    is_first = false;
                    ++report.batches;
                    report.records += records.size();
                    report.bytes += batch_header::size + b.length;
                    if (tell && bytes != 0) { tell(static_cast<double>(done + (b.position - s->first())) / static_cast<double>(bytes)); }
                },
                [&](damage d) {
                    wrong(std::move(d));
                    is_first = true; // what follows has nothing to follow
                });
        } catch (const std::bad_alloc&) { throw; } catch (const std::exception& e) {
            wrong({s->path(), 0, e.what()});
        }
        done += ends[i] - s->first();
    }
    // Each message that somebody has still to settle is where the index says.
    std::vector<std::pair<std::uint32_t, std::vector<offset>>> wanted;
    {
        const std::lock_guard lock(state_);
        for (const auto& [number, s] : catalog_.streams()) {
            std::vector<offset> places;
            catalog_.each_cursor_of(number, [&, next = s.next](const cursor_image& c) {
                c.each_unsettled(0, next, [&](offset o) {
                    places.push_back(o);
                    return true;
                });
            });
            std::sort(places.begin(), places.end());
            places.erase(std::unique(places.begin(), places.end()), places.end());
            wanted.emplace_back(number, std::move(places));
        }
    }
    bool has_memory = true;
    for (const auto& [stream, places] : wanted) {
        report.messages += places.size();
        for (std::size_t i = 0; i < places.size();) {
            const offset first = places[i];
            std::uint32_t mask = 0;
            for (; i < places.size() && places[i] - first < 32; ++i) { mask |= std::uint32_t{1} << (places[i] - first); }
            record_calls to(
                [](unsigned, const record&) {},
                [&, number = stream](unsigned k, const damage* d) {
                    const bool known = d != nullptr && std::any_of(report.damages.begin(), report.damages.end(),
                                                                   [&](const damage& other) { return other.file == d->file && other.byte == d->byte; });
                    if (known) { return; }
                    if (d != nullptr && d->file.empty()) {
                        has_memory = false;
                        return;
                    }
                    try {
                        wrong(d != nullptr ? *d
                                           : damage{directory_, 0,
                                                    "message " + std::to_string(first + k) + " of stream " + std::to_string(number) + " is nowhere"});
                    } catch (...) { has_memory = false; }
                });
            read_ahead nothing_yet;
            read(stream, first, mask, to, nothing_yet);
            if (!has_memory) { throw std::bad_alloc(); }
        }
    }
    if (tell) { tell(1); }
    return report;
}

} // namespace mailroom::detail
