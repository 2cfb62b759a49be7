// Verifying: everything is read, every checksum looked at, and what refers to something has to find it.
#pragma once

#include <mailroom/journal/detail/recovery.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

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
        for (const auto* const some : {&segments_, &survivors_}) {
            for (const auto& [first, s] : *some) {
                all.push_back(s);
                ends.push_back(s->end());
                bytes += s->end() - first;
            }
        }
    }
    const auto wrong = [&](damage d) {
        report.intact = false;
        report.damages.push_back(std::move(d));
    };
    std::uint64_t done = 0;
    bool is_telling = false; // what that throws is not the journal's
    for (std::size_t i = 0; i < all.size(); ++i) {
        const segment_ptr& s = all[i];
        std::vector<damage> found;
        ++report.segments;
        try {
            std::array<std::byte, segment_header::size> head;
            std::size_t got = 0;
            segment_header h;
            std::uint32_t version = 0;
            auto opened = s->open(files_, open_mode::read);
            if (!opened) { opened.error().raise(); }
            if (const auto ec = read_all(files_, **opened, 0, head, got)) { io_failure("cannot read", s->path(), ec).raise(); }
            if (const char* const what = segment_header::decode(std::span(head).first(got), h, version)) { found.push_back({s->path(), 0, what}); }
            std::uint64_t chain = 0;
            bool is_first = true;
            scan(
                s, ends[i],
                [&](const batch_header& b, const std::vector<record>& records, std::uint64_t check) {
                    if (!is_first && b.previous != chain) {
                        found.push_back({s->path(), s->byte_of(b.position), "a batch does not follow the one before"});
                    }
                    chain = check;
                    is_first = false;
                    ++report.batches;
                    report.records += records.size();
                    report.bytes += batch_header::size + b.length;
                    if (tell && bytes != 0) {
                        is_telling = true;
                        tell(static_cast<double>(done + (b.position - s->first())) / static_cast<double>(bytes));
                        is_telling = false;
                    }
                },
                [&](damage d) {
                    found.push_back(std::move(d));
                    is_first = true; // what follows has nothing to follow
                });
        } catch (const std::bad_alloc&) { throw; } catch (const std::exception& e) {
            if (is_telling) { throw; }
            found.push_back({s->path(), 0, e.what()});
        }
        if (!found.empty() && is_stored(s)) { // otherwise its file was given back meanwhile, and may be another's by now
            for (damage& d : found) { wrong(std::move(d)); }
        }
        done += ends[i] - s->first();
    }
    // Each message that somebody has still to settle is where the index says. So many offsets at once: there may be more than fit into memory.
    constexpr offset at_once = 1 << 16;
    std::vector<std::uint32_t> wanted(at_once / 32);
    std::vector<std::uint32_t> streams;
    {
        const std::lock_guard lock(state_);
        for (const auto& [number, s] : catalog_.streams()) { streams.push_back(number); }
    }
    bool has_memory = true;
    const auto look_at = [&](std::uint32_t number, offset first, std::uint32_t mask) {
        report.messages += static_cast<std::uint64_t>(std::popcount(mask));
        record_calls to([](unsigned, const record&) {},
                        [&](unsigned k, const damage* d) {
                            const bool known = d != nullptr && std::any_of(report.damages.begin(), report.damages.end(), [&](const damage& other) {
                                                   return other.file == d->file && other.byte == d->byte;
                                               });
                            if (known) { return; }
                            if (d == nullptr) {
                                const std::lock_guard lock(state_);
                                if (!catalog_.is_wanted(number, first + k)) { return; } // settled meanwhile, and gone
                            }
                            if (d != nullptr && d->file.empty()) {
                                has_memory = false;
                                return;
                            }
                            try {
                                wrong(d != nullptr
                                          ? *d
                                          : damage{directory_, 0,
                                                   "message " + std::to_string(first + k) + " of stream " + std::to_string(number) + " is nowhere"});
                            } catch (...) { has_memory = false; }
                        });
        read_ahead nothing_yet;
        read(number, first, mask, to, nothing_yet);
        if (!has_memory) { throw std::bad_alloc(); }
    };
    for (const std::uint32_t number : streams) {
        offset from = 0;
        for (bool more = true; more;) {
            std::fill(wanted.begin(), wanted.end(), 0);
            {
                const std::lock_guard lock(state_);
                const auto s = catalog_.streams().find(number);
                if (s == catalog_.streams().end()) { break; } // forgotten meanwhile
                offset first = s->second.next;
                catalog_.each_cursor_of(number, [&](const cursor_image& c) { first = std::min(first, c.floor()); });
                from = std::max(from, first - first % 32);
                const offset until = std::min(from + at_once, s->second.next);
                catalog_.each_cursor_of(number, [&](const cursor_image& c) {
                    c.each_unsettled(from, until, [&](offset o) {
                        wanted[static_cast<std::size_t>((o - from) / 32)] |= std::uint32_t{1} << (o - from) % 32;
                        return true;
                    });
                });
                more = until < s->second.next;
            }
            for (std::size_t i = 0; i < wanted.size(); ++i) {
                if (wanted[i] != 0) { look_at(number, from + 32 * i, wanted[i]); }
            }
            from += at_once;
        }
    }
    if (tell) { tell(1); }
    return report;
}

} // namespace mailroom::detail
