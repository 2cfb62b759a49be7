// The options of a queue, and what it says about itself. Aggregates with an initialiser for every field: use designated initialisers.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/budget.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/cursor/retry.hpp>
#include <mailroom/message/properties.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace mailroom {

/// What becomes of a message for which there is no room.
enum class overflow : std::uint8_t {
    block,       ///< the sender waits; it can be stopped and timed out
    reject,      ///< errc::full
    drop_oldest, ///< the oldest message that nobody holds goes, counted; errc::full if all are held
    drop_newest, ///< it is not taken: no_offset, counted
};

/// When a message counts as a duplicate of an earlier one with the same `properties::id`; both may be set, both zero: never.
struct deduplication {
    duration window = duration::zero(); ///< for so long after the first was sent, settled or not
    bool until_settled = false;         ///< as long as the first is not settled (dead counts as settled)
};

/// Where a message is.
enum class message_state : std::uint8_t {
    ready,     ///< may be received, now or when its key's turn comes
    in_flight, ///< received, not settled
    parked,    ///< delayed, or pausing after a failure
};

/// How a queue behaves. Zero means "no limit" where a limit is meant.
template <class T>
struct queue_options {
    std::size_t max_messages = 0;                            ///< unsettled messages, those in flight included
    std::size_t max_bytes = 0;                               ///< their bytes, counted by footprint<T>
    memory_budget* budget = nullptr;                         ///< bytes shared with other endpoints
    mailroom::overflow overflow = mailroom::overflow::block; ///< what happens when one of these is reached
    duration lease = std::chrono::seconds(30);               ///< how long a receiver may take before the message goes to another; 0: for ever
    retry_policy retry = retry_policy();
    std::size_t max_in_flight = 0;            ///< messages handed out and not settled
    duration time_to_live = duration::zero(); ///< for messages that have none of their own
    int priorities = 1;                       ///< levels, 1..10
    deduplication deduplicate = deduplication();
    bool ordered_by_key = false;                                         ///< one message of a key at a time, in order
    std::size_t max_dead = 0;                                            ///< dead letters kept; the oldest are dropped, counted
    std::function<bool(const T&, const properties&)> validate = nullptr; ///< false: errc::rejected
    mailroom::clock* clock = nullptr;                                    ///< null: the system's
};

namespace detail {

/// Throws errc::invalid for options outside what is allowed.
template <class T>
void check_options(const queue_options<T>& o) {
    const auto require = [](bool holds, const char* otherwise) {
        if (!holds) { fail(errc::invalid, otherwise); }
    };
    require(o.lease >= duration::zero(), "queue_options.lease is negative; zero means for ever");
    require(o.time_to_live >= duration::zero(), "queue_options.time_to_live is negative; zero means for ever");
    require(o.priorities >= 1 && o.priorities <= 10, "queue_options.priorities is outside 1..10 levels");
    require(o.overflow <= overflow::drop_newest, "queue_options.overflow is none of block, reject, drop_oldest, drop_newest");
    require(o.deduplicate.window >= duration::zero(), "queue_options.deduplicate.window is negative; zero switches it off");
    require(o.retry.initial >= duration::zero(), "queue_options.retry.initial is negative");
    require(o.retry.maximum >= duration::zero(), "queue_options.retry.maximum is negative");
    require(o.retry.multiplier >= 1 && o.retry.multiplier <= 1e9, "queue_options.retry.multiplier is outside 1..1e9");
    require(o.retry.jitter >= 0 && o.retry.jitter <= 1, "queue_options.retry.jitter is outside 0..1");
}

} // namespace detail

/// What an endpoint holds now, and what it ever did. Every message sent is acked, ready, in flight, parked, dead or dropped.
struct stats {
    std::size_t ready = 0;                  ///< now
    std::size_t in_flight = 0;              ///< now
    std::size_t parked = 0;                 ///< now: delayed or pausing after a failure
    std::size_t dead = 0;                   ///< now
    std::uint64_t sent = 0;                 ///< ever: accepted
    std::uint64_t acked = 0;                ///< ever
    std::uint64_t redelivered = 0;          ///< ever: deliveries with an attempt above 1
    std::uint64_t expired = 0;              ///< ever: became dead because their time to live was over
    std::uint64_t dropped = 0;              ///< ever: by an overflow rule, by max_dead, by purge
    std::uint64_t duplicates = 0;           ///< ever: sends that were answered with an earlier offset
    std::uint64_t bytes = 0;                ///< now: of unsettled messages, by footprint<T>
    duration oldest_age = duration::zero(); ///< now: of the oldest unsettled message
};

} // namespace mailroom
