// Deduplication: which ids were sent lately, or are still unsettled, and where.
//
// Ids are kept whole: a hash would now and then call two messages one. Memory: the ids of the window, and those unsettled. The caller
// holds the lock from `find` until it knows what became of the send, so that two sends of one id cannot both be first.
#pragma once

#include <mailroom/base/basics.hpp>

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mailroom::detail {

class deduplicator {
public:
    deduplicator(duration window, bool until_settled) : window_(window), until_settled_(until_settled) {}

    [[nodiscard]] std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
    void unlock() noexcept { mutex_.unlock(); } // where the lock was released from its guard

    /// Under the lock: the offset of the original, or no_offset.
    offset find(const std::string& id, duration now) {
        forget_old(now);
        const auto at = known_.find(id);
        if (at == known_.end()) { return no_offset; }
        const known& k = at->second;
        if (now < k.until) { return k.last; }
        return until_settled_ && !k.unsettled.empty() ? *std::max_element(k.unsettled.begin(), k.unsettled.end()) : no_offset;
    }
    /// Under the lock: the offset of the original, or no_offset after noting that `id` is about to be sent. May throw std::bad_alloc.
    offset find_or_note(const std::string& id, duration now) {
        if (const offset original = find(id, now); original != no_offset) { return original; }
        const auto at = known_.try_emplace(id).first;
        known& k = at->second;
        try {
            if (until_settled_) { k.unsettled.reserve(k.unsettled.size() + 1); }
            if (window_ > duration::zero()) {
                order_.emplace_back(duration::max(), &at->first);
                ++k.lines;
            }
        } catch (...) {
            drop_if_old(at, now);
            throw;
        }
        return no_offset;
    }
    /// Under the lock, for an id that is not known: `find_or_note` needs no memory for it any more, nor for `n` of them together that were made
    /// ready. May throw std::bad_alloc. Whatever becomes of it, `end_ready` follows.
    void make_ready(const std::string& id, std::size_t n) {
        if (window_ > duration::zero() && order_.capacity() - order_.size() < n) { order_.reserve(2 * order_.size() + n); }
        known& k = known_.try_emplace(id).first->second;
        if (until_settled_) { k.unsettled.reserve(k.unsettled.size() + 1); }
    }
    void end_ready(const std::string& id, duration now) noexcept {
        if (const auto at = known_.find(id); at != known_.end()) { drop_if_old(at, now); }
    }
    /// Under the same lock: it was sent at `place`.
    void sent(const std::string& id, offset place, duration now) noexcept {
        known& k = known_.find(id)->second;
        k.last = place;
        if (until_settled_) { k.unsettled.push_back(place); } // there is room, see above
        if (window_ > duration::zero()) {
            k.until = window_ < duration::max() - now ? now + window_ : duration::max();
            order_.back().first = k.until;
        }
    }
    /// Under the same lock: it was not sent.
    void not_sent(const std::string& id, duration now) noexcept {
        const auto at = known_.find(id);
        if (window_ > duration::zero()) {
            order_.pop_back();
            --at->second.lines;
        }
        drop_if_old(at, now);
    }

    /// Under the lock, some time after `sent`: what was sent at `place` could not be kept after all.
    void revoke(const std::string& id, offset place) noexcept {
        const auto at = known_.find(id);
        if (at == known_.end() || at->second.last != place) { return; }
        at->second.until = duration::min();
        at->second.last = no_offset;
        std::erase(at->second.unsettled, place);
        drop_if_old(at, duration::max());
    }
    /// What was sent before the endpoint was opened. May throw std::bad_alloc.
    void restore(const std::string& id, offset place, duration until, bool is_unsettled) {
        const std::lock_guard held(mutex_);
        known& k = known_.try_emplace(id).first->second;
        k.last = place;
        if (until_settled_ && is_unsettled) { k.unsettled.push_back(place); }
        if (window_ > duration::zero()) {
            order_.emplace_back(until, &known_.find(id)->first);
            ++k.lines;
            k.until = std::max(k.until, until);
        }
    }

    /// The message at `place` is settled.
    void settled(const std::string& id, offset place, duration now) noexcept {
        if (!until_settled_) { return; }
        const std::lock_guard held(mutex_);
        const auto at = known_.find(id);
        if (at == known_.end()) { return; }
        std::erase(at->second.unsettled, place);
        drop_if_old(at, now);
    }
    /// It lives again.
    void unsettled(const std::string& id, offset place) noexcept {
        if (!until_settled_) { return; }
        const std::lock_guard held(mutex_);
        try {
            known_.try_emplace(id).first->second.unsettled.push_back(place);
        } catch (...) {
            return; // no memory: a duplicate of a message that came back from the dead may pass
        }
    }

private:
    struct known {
        offset last = no_offset;
        duration until = duration::min(); // the window of `last`
        std::vector<offset> unsettled;    // one, unless dead letters live again; empty where settling does not matter
        std::size_t lines = 0;            // of `order_` that refer to it
    };
    using map = std::unordered_map<std::string, known>;

    void drop_if_old(map::iterator at, duration now) noexcept {
        const known& k = at->second;
        if (k.lines == 0 && k.until <= now && k.unsettled.empty()) { known_.erase(at); }
    }
    void forget_old(duration now) noexcept {
        for (; oldest_ != order_.size() && order_[oldest_].first <= now; ++oldest_) {
            const auto at = known_.find(*order_[oldest_].second);
            --at->second.lines;
            drop_if_old(at, now);
        }
        if (oldest_ > 32 && oldest_ > order_.size() / 2) {
            order_.erase(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(oldest_));
            oldest_ = 0;
        }
    }

    const duration window_;
    const bool until_settled_;
    std::mutex mutex_;
    map known_;
    std::vector<std::pair<duration, const std::string*>> order_; // by the end of the window, from `oldest_` on
    std::size_t oldest_ = 0;
};

} // namespace mailroom::detail
