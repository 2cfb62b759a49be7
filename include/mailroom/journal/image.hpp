// image: what a journal knows of one cursor: which messages it has settled, and what became of those that failed.
//
// It is changed by records only, in their order; so what is read back after a crash is what was committed, by the same code.
// Memory: a run for each gap between settled messages, and one trial for each message that failed or is dead. Not thread-safe.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/wire.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// What a cursor ever did, beyond what its image shows.
struct tallies {
    std::uint64_t redelivered = 0;
    std::uint64_t expired = 0;
    std::uint64_t dropped = 0;
};

class cursor_image {
public:
    cursor_image() = default;
    explicit cursor_image(offset begin) noexcept : begun_(begin), floor_(begin) {}

    /// All below is settled.
    offset floor() const noexcept { return floor_; }
    /// Runs of settled messages above the floor: first, and the one after the last.
    const std::map<offset, offset>& runs() const noexcept { return runs_; }
    const std::map<offset, trial>& trials() const noexcept { return trials_; }
    const tallies& ever() const noexcept { return ever_; }
    /// Nothing is said of this one, or any behind it.
    offset known_until() const noexcept {
        const offset settled = runs_.empty() ? floor_ : runs_.rbegin()->second;
        return trials_.empty() ? settled : std::max(settled, trials_.rbegin()->first + 1);
    }
    /// How many were settled, whatever the reason.
    std::uint64_t settled_ever() const noexcept { return settled_; }

    bool is_settled(offset o) const noexcept {
        if (o < floor_) { return true; }
        const auto after = runs_.upper_bound(o);
        return after != runs_.begin() && o < std::prev(after)->second;
    }
    /// How many of [first, last) are not.
    std::uint64_t unsettled_in(offset first, offset last) const noexcept {
        first = std::max(first, floor_);
        if (first >= last) { return 0; }
        std::uint64_t n = last - first;
        auto at = runs_.upper_bound(first);
        if (at != runs_.begin()) { --at; }
        for (; at != runs_.end() && at->first < last; ++at) {
            const offset from = std::max(first, at->first), to = std::min(last, at->second);
            if (from < to) { n -= to - from; }
        }
        return n;
    }
    /// Calls `fn(offset)` for each of [first, last) that is not, in order, as long as it answers true.
    template <class Fn>
    void each_unsettled(offset first, offset last, Fn fn) const {
        offset o = std::max(first, floor_);
        auto at = runs_.upper_bound(o);
        if (at != runs_.begin() && o < std::prev(at)->second) { o = std::prev(at)->second; }
        while (o < last) {
            const offset stop = at != runs_.end() ? std::min(last, at->first) : last;
            for (; o < stop; ++o) {
                if (!fn(o)) { return; }
            }
            if (at == runs_.end()) { return; }
            o = std::max(o, at->second);
            ++at;
        }
    }

    void settle(offset first, offset last) {
        trials_.erase(trials_.lower_bound(first), trials_.lower_bound(last));
        settled_ += unsettled_in(first, last);
        first = std::max(first, floor_);
        if (first >= last) { return; }
        auto at = runs_.lower_bound(first);
        if (at != runs_.begin() && std::prev(at)->second >= first) {
            --at;
            first = at->first;
        }
        while (at != runs_.end() && at->first <= last) {
            last = std::max(last, at->second);
            at = runs_.erase(at);
        }
        if (first <= floor_) {
            floor_ = last;
        } else {
            runs_.emplace_hint(at, first, last);
        }
    }
    void unsettle(offset o) {
        if (!is_settled(o)) { return; }
        --settled_;
        if (o < floor_) {
            if (o + 1 < floor_) { runs_.emplace(o + 1, floor_); }
            floor_ = o;
            return;
        }
        const auto at = std::prev(runs_.upper_bound(o));
        const offset first = at->first, last = at->second;
        if (o + 1 < last) { runs_.emplace(o + 1, last); }
        if (first < o) {
            at->second = o;
        } else {
            runs_.erase(at);
        }
    }
    void try_again(offset o, trial t) { trials_[o] = std::move(t); }
    void handed_out(offset o, std::uint32_t attempt) {
        trial& t = trials_[o];
        t.attempt = std::max(t.attempt, attempt);
    }

    /// Takes the steps of a record. Throws errc::corrupt for bytes that make no sense.
    void take(wire_reader steps) {
        while (!steps.at_end()) {
            switch (static_cast<change>(steps.var())) {
            case change::settled: {
                const offset first = steps.var();
                const std::uint64_t n = steps.var();
                if (n > no_offset - first) { fail(errc::corrupt, "a settlement beyond the last offset"); }
                settle(first, first + n);
                break;
            }
            case change::tried: {
                const offset o = steps.var();
                trial t = trial::read(steps);
                if (!is_settled(o)) { try_again(o, std::move(t)); }
                break;
            }
            case change::revived: {
                const offset o = steps.var();
                unsettle(o);
                trials_.erase(o);
                break;
            }
            case change::counted:
                ever_.redelivered += steps.var();
                ever_.expired += steps.var();
                ever_.dropped += steps.var();
                break;
            case change::moved: {
                const std::uint64_t settled_ever = settled_; // what it settles once more counts no more
                floor_ = steps.var();
                runs_.clear();
                trials_.clear();
                for (std::size_t n = steps.count(2); n != 0; --n) {
                    const offset first = steps.var(), end = steps.var();
                    if (first < floor_ || end < first) { fail(errc::corrupt, "runs out of order"); }
                    settle(first, end);
                }
                settled_ = settled_ever;
                break;
            }
            default: fail(errc::corrupt, "an unknown step of a cursor");
            }
        }
    }

    void write(wire_writer& to) const {
        to.var(begun_);
        to.var(floor_);
        to.var(settled_);
        to.var(ever_.redelivered);
        to.var(ever_.expired);
        to.var(ever_.dropped);
        to.var(runs_.size());
        offset last = floor_;
        for (const auto& [first, end] : runs_) {
            to.var(first - last);
            to.var(end - first);
            last = end;
        }
        to.var(trials_.size());
        for (const auto& [o, t] : trials_) {
            to.var(o);
            t.write(to);
        }
    }
    static cursor_image read(wire_reader& from) {
        cursor_image image;
        image.begun_ = from.var();
        image.floor_ = from.var();
        image.settled_ = from.var();
        image.ever_.redelivered = from.var();
        image.ever_.expired = from.var();
        image.ever_.dropped = from.var();
        offset last = image.floor_;
        for (std::size_t n = from.count(2); n != 0; --n) {
            const std::uint64_t gap = from.var(), length = from.var();
            if (gap == 0 || length == 0 || gap > no_offset - last || length > no_offset - last - gap) { fail(errc::corrupt, "runs out of order"); }
            image.runs_.emplace_hint(image.runs_.end(), last + gap, last + gap + length);
            last += gap + length;
        }
        for (std::size_t n = from.count(36); n != 0; --n) {
            const offset o = from.var();
            image.trials_.emplace_hint(image.trials_.end(), o, trial::read(from));
        }
        return image;
    }

    friend bool operator==(const cursor_image& a, const cursor_image& b) { return a.floor_ == b.floor_ && a.runs_ == b.runs_; }

private:
    offset begun_ = 0;
    offset floor_ = 0;
    std::uint64_t settled_ = 0;
    std::map<offset, offset> runs_;
    std::map<offset, trial> trials_;
    tallies ever_;
};

} // namespace mailroom::detail
