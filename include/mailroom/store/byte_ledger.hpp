// byte_ledger: how many bytes the messages of a log take, for a rule that retains so many.
//
// It measures messages when it comes to them, once, and remembers sums of 1024: so it stays small whatever is retained. Where exactly the limit falls
// is found by measuring the messages of one chunk again.
//
// A data structure and nothing else: whoever owns it guards it.
#pragma once

#include <mailroom/base/basics.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>

namespace mailroom::detail {

class byte_ledger {
public:
    static constexpr offset chunk = 1024;

    /// The first of the last messages before `head` that take no more than `limit` bytes together; not before `lowest`, nor before what this said last.
    /// `measure(first, last, fn)` calls `fn(offset, bytes)` for each message that is there, in order. When it would have to measure more than `chunks` for
    /// the first time it answers `lowest`, and goes on with the next call. May throw what `measure` throws, std::bad_alloc.
    template <class Measure>
    offset first_within(std::uint64_t limit, offset lowest, offset head, std::size_t chunks, Measure measure) {
        lowest = std::max(lowest, base_ * chunk);
        if (lowest >= head) { return head; }
        if (sums_.empty()) { base_ = lowest / chunk; }
        while (base_ + sums_.size() < head / chunk) { sums_.push_back(unknown); }
        std::uint64_t behind = 0;
        std::array<std::uint64_t, chunk> each;
        for (offset c = (head - 1) / chunk + 1; c-- > lowest / chunk;) {
            const offset first = std::max(lowest, c * chunk), last = std::min(head, (c + 1) * chunk);
            const bool is_whole = last - first == chunk;
            std::uint64_t here = is_whole ? sums_[static_cast<std::size_t>(c - base_)] : unknown;
            if (here == unknown || here > limit - behind) {
                if (is_whole && here == unknown && chunks-- == 0) { return lowest; }
                each.fill(0);
                here = 0;
                measure(first, last, [&](offset o, std::uint64_t bytes) {
                    each[static_cast<std::size_t>(o - first)] = bytes;
                    here += bytes;
                });
                if (is_whole) { sums_[static_cast<std::size_t>(c - base_)] = here; }
            }
            if (here > limit - behind) {
                offset o = last;
                for (; o > first && each[static_cast<std::size_t>(o - 1 - first)] <= limit - behind; --o) { behind += each[static_cast<std::size_t>(o - 1 - first)]; }
                while (base_ < o / chunk) {
                    if (!sums_.empty()) { sums_.pop_front(); }
                    ++base_;
                }
                return o;
            }
            behind += here;
        }
        return lowest;
    }

private:
    static constexpr std::uint64_t unknown = std::numeric_limits<std::uint64_t>::max();
    std::deque<std::uint64_t> sums_; // of the chunks from `base_` on, as far as they are known
    offset base_ = 0;
};

} // namespace mailroom::detail
