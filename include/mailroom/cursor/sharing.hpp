// sharing: who of several members gets what. Keys to members, each key to one as long as he stays; partitions to members, evenly, moving as
// few as possible.
//
// Members have numbers from 1 on; 0 is nobody.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <span>
#include <vector>

namespace mailroom::detail {

/// Which member a key belongs to. Keys share slots by their hashes, so the memory is bounded, whatever keys there are. A slot goes to the
/// member that has the fewest when a key of it first turns up, and stays with him until he leaves: who joins late gets keys that are new.
/// Threads: any member from any thread; one mutex, held for some tens of instructions.
class key_shares {
public:
    static constexpr std::size_t slot_count = std::size_t{1} << 14;

    /// Throws std::bad_alloc; then nothing has changed.
    void join(std::uint16_t member) {
        const std::lock_guard lock(mutex_);
        if (slots_.empty()) { slots_.resize(slot_count); }
        if (load_.size() <= member) { load_.resize(member + std::size_t{1}, absent); }
        load_[member] = 0;
    }
    void leave(std::uint16_t member) noexcept {
        const std::lock_guard lock(mutex_);
        if (member >= load_.size()) { return; }
        load_[member] = absent;
        std::replace(slots_.begin(), slots_.end(), member, std::uint16_t{0});
    }
    /// The member a key of this hash belongs to from now on; 0: there is none.
    std::uint16_t owner_of(std::uint64_t key_hash) noexcept {
        const std::lock_guard lock(mutex_);
        if (slots_.empty()) { return 0; }
        // The lowest bits may say which partition a key is in, so they are the same for all keys here.
        std::uint16_t& slot = slots_[static_cast<std::size_t>((key_hash * 0x9e3779b97f4a7c15u) >> 50)];
        if (slot == 0) {
            const auto least = std::min_element(load_.begin(), load_.end());
            if (least == load_.end() || *least == absent) { return 0; }
            ++*least;
            slot = static_cast<std::uint16_t>(least - load_.begin());
        }
        return slot;
    }

private:
    static constexpr std::size_t absent = std::numeric_limits<std::size_t>::max();

    std::mutex mutex_;
    std::vector<std::uint16_t> slots_;
    std::vector<std::size_t> load_; // slots of each member; nobody's number is never a member's
};

/// Gives each partition to one of `members` (any numbers but 0), each member as many as every other or one more. `owners` says who has it now,
/// 0 or somebody who left for nobody, and is changed as little as possible. Without members: all 0. `scratch`: one word a member.
inline void share_partitions(std::span<std::uint32_t> owners, std::span<const std::uint32_t> members, std::span<std::size_t> scratch) noexcept {
    if (members.empty()) {
        std::fill(owners.begin(), owners.end(), 0u);
        return;
    }
    const std::size_t least = owners.size() / members.size();
    std::size_t extra = owners.size() % members.size(); // so many may have one more
    const auto has = scratch.first(members.size());
    std::fill(has.begin(), has.end(), std::size_t{0});
    const auto place = [&](std::uint32_t m) { return static_cast<std::size_t>(std::find(members.begin(), members.end(), m) - members.begin()); };
    for (std::uint32_t& o : owners) {
        const std::size_t at = place(o);
        if (at == members.size()) {
            o = 0;
        } else if (has[at] < least) {
            ++has[at];
        } else if (has[at] == least && extra != 0) {
            ++has[at];
            --extra;
        } else {
            o = 0;
        }
    }
    for (std::uint32_t& o : owners) {
        if (o != 0) { continue; }
        const auto poorest = std::min_element(has.begin(), has.end());
        ++*poorest;
        o = members[static_cast<std::size_t>(poorest - has.begin())];
    }
}

} // namespace mailroom::detail
