// producers: the last number that each producer of an endpoint gave a message, so that one that is sent again is not stored again.
//
// A number is *placed* when its message has its place and *kept* when that is as durable as the endpoint makes it; in memory both at once.
// Whoever sends holds the lock from the look to the placing. Memory: an entry for each producer, 4096 at most; then the one that was there
// longest ago is forgotten.
#pragma once

#include <mailroom/base/basics.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace mailroom::detail {

/// A message of a producer.
struct numbered {
    std::string_view who;
    std::uint64_t number = 0;
};

class producer_table {
public:
    static constexpr std::size_t most = 4096;

    [[nodiscard]] std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
    /// The highest number that is kept; 0: none is known.
    std::uint64_t last(std::string_view who) {
        const std::lock_guard held(mutex_);
        const auto at = all_.find(who);
        return at != all_.end() ? at->second.kept : 0;
    }
    /// Under the lock: whether it was sent before; then where, if that is still known: that of the last is. May throw std::bad_alloc.
    bool was_sent(const numbered& n, offset& place) {
        auto at = all_.find(n.who);
        if (at == all_.end()) {
            at = all_.emplace(n.who, entry()).first;
            if (all_.size() > most) { forget_one(at); }
        }
        at->second.turn = ++turn_;
        if (n.number > at->second.placed) { return false; }
        place = n.number == at->second.placed ? at->second.place : no_offset;
        return true;
    }
    /// Under the same lock.
    void placed(const numbered& n, offset place) noexcept {
        entry& e = all_.find(n.who)->second;
        e.placed = n.number;
        e.place = place;
    }
    void kept(const numbered& n) noexcept {
        const std::lock_guard held(mutex_);
        const auto at = all_.find(n.who);
        if (at != all_.end()) { at->second.kept = std::max(at->second.kept, n.number); }
    }
    /// It could not be kept, nor what was placed after it.
    void not_kept(const numbered& n) noexcept {
        const std::lock_guard held(mutex_);
        const auto at = all_.find(n.who);
        if (at == all_.end()) { return; }
        at->second.placed = at->second.kept;
        at->second.place = no_offset;
    }
    /// What was there when the endpoint was opened. May throw std::bad_alloc.
    void restore(const std::string& who, std::uint64_t number, offset place, std::uint64_t turn) {
        const std::lock_guard held(mutex_);
        all_[who] = {number, number, place, turn};
        turn_ = std::max(turn_, turn);
    }

private:
    struct entry {
        std::uint64_t placed = 0, kept = 0;
        offset place = no_offset; // of `placed`
        std::uint64_t turn = 0;
    };
    struct hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>()(s); }
    };
    using table = std::unordered_map<std::string, entry, hash, std::equal_to<>>;
    void forget_one(table::iterator but) noexcept {
        auto oldest = all_.end();
        for (auto at = all_.begin(); at != all_.end(); ++at) {
            if (at != but && at->second.placed == at->second.kept && (oldest == all_.end() || at->second.turn < oldest->second.turn)) { oldest = at; }
        }
        if (oldest != all_.end()) { all_.erase(oldest); }
    }

    std::mutex mutex_;
    table all_;
    std::uint64_t turn_ = 0;
};

} // namespace mailroom::detail
