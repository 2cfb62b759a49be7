// What a journal is told, and what it reports.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mailroom {

/// What a send waits for.
enum class durability : std::uint8_t {
    commit, ///< until it is on stable storage: survives a power cut
    write,  ///< until the operating system has it: survives the process
    none,   ///< until it is in a buffer, which is written when somebody needs progress or it is full
};

/// What opening does when bytes that were once safely stored are no longer what they were. (What a crash left half written at the end is no
/// damage: it is cut off and reported.)
enum class on_damage : std::uint8_t {
    refuse,    ///< throws errc::corrupt, and changes nothing
    read_only, ///< opens what is intact for reading; sends fail with errc::unsupported, nothing is changed on disk
    salvage,   ///< opens what is intact, goes on from there, and reports the rest
};

struct journal_options {
    mailroom::durability durability = mailroom::durability::commit;
    std::size_t segment_bytes = std::size_t{64} << 20; ///< 64 KiB .. 4 GiB
    mailroom::on_damage on_damage = mailroom::on_damage::refuse;
    mailroom::clock* clock = nullptr; ///< null: the system's
    /// Files of segments that are done with, kept to be written over, for that is quicker than to let a new one grow: so many at most, 0 .. 64,
    /// `segment_bytes` each. A burst leaves them behind; `compact`, and a full disk, give back all but one.
    unsigned spare_segments = 6;
};

/// Bytes that are not what was written.
struct damage {
    std::string file;
    std::uint64_t byte = 0;
    std::string what;
};

/// What opening found.
struct recovery_report {
    bool clean = true;           ///< it was closed, or is new
    std::vector<damage> damages; ///< what is lost, and where
    std::uint64_t cut_bytes = 0; ///< of a last write that a crash left incomplete
    std::uint64_t replayed = 0;  ///< records read since the last checkpoint
    std::uint64_t segments = 0;
    std::uint64_t bytes = 0; ///< of what is stored in all segments
};

/// What `verify` found.
struct verify_report {
    bool intact = true;
    std::vector<damage> damages;
    std::uint64_t segments = 0;
    std::uint64_t batches = 0;
    std::uint64_t records = 0;
    std::uint64_t bytes = 0;    ///< that were read
    std::uint64_t messages = 0; ///< that somebody has still to settle, or a rule retains
};

/// What `compact` did.
struct compact_report {
    std::uint64_t segments_freed = 0;
    std::uint64_t messages_moved = 0;
    std::uint64_t bytes_before = 0;
    std::uint64_t bytes_after = 0;
};

/// Told how far something is, from 0 to 1.
using progress = std::function<void(double)>;

} // namespace mailroom
