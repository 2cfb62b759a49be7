// The few words every room uses: time, offset, position.
// Values only; nothing here allocates, throws or depends on a thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

namespace mailroom {

/// A span of time. Every option, delay, lease and limit of the library is given in it; any std::chrono duration of
/// nanoseconds or coarser converts without a cast.
using duration = std::chrono::nanoseconds;

/// A moment of wall time: what a message was sent at, where a replay starts.
using time_point = std::chrono::system_clock::time_point;

/// The place of a message in its stream: dense, from 0.
using offset = std::uint64_t;

/// No place: what is returned for a message that was not kept.
inline constexpr offset no_offset = std::numeric_limits<offset>::max();

/// A place in a partitioned stream.
struct position {
    int partition = 0;
    mailroom::offset offset = 0;

    friend constexpr bool operator==(const position&, const position&) = default;
};

} // namespace mailroom
