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
#include <string>
#include <vector>

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

inline void check_retry(const retry_policy& p, const char* options) {
    const auto require = [options](bool holds, const char* otherwise) {
        if (!holds) { fail(errc::invalid, std::string(options) + ".retry." + otherwise); }
    };
    require(p.initial >= duration::zero(), "initial is negative");
    require(p.maximum >= duration::zero(), "maximum is negative");
    require(p.multiplier >= 1 && p.multiplier <= 1e9, "multiplier is outside 1..1e9");
    require(p.jitter >= 0 && p.jitter <= 1, "jitter is outside 0..1");
}

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
    check_retry(o.retry, "queue_options");
}

} // namespace detail

/// What stays of a topic although nobody needs it any more, for replay. A message stays if it is within all of the first three that are set;
/// with none set, only what a subscription has not settled stays.
struct retention {
    std::size_t messages = 0;        ///< the last so many of each partition
    std::size_t bytes = 0;           ///< the last of each partition, so many bytes together at most
    duration age = duration::zero(); ///< what was published within so long
    bool compact = false;            ///< besides these, the last message of each key, as long as it is the last
};

/// How a topic behaves. Zero means "no limit" where a limit is meant.
template <class T>
struct topic_options {
    int partitions = 1; ///< logs side by side, 1..4096; order holds within each
    mailroom::retention retention = mailroom::retention();
    std::size_t max_messages = 0;                                        ///< that any one subscription may leave unsettled
    std::size_t max_bytes = 0;                                           ///< their bytes, counted by footprint<T>
    memory_budget* budget = nullptr;                                     ///< bytes shared with other endpoints
    mailroom::overflow overflow = mailroom::overflow::block;             ///< what happens when a durable subscription reaches one of these
    deduplication deduplicate = deduplication();                         ///< until_settled: as long as the log keeps the first
    std::function<bool(const T&, const properties&)> validate = nullptr; ///< false: errc::rejected
    mailroom::clock* clock = nullptr;                                    ///< null: the system's
};

/// Where a subscription begins to read, or goes on.
class start {
public:
    static const start latest;       ///< with what is published from now on
    static const start earliest;     ///< with the first message that is there: retained, or not settled by some subscription
    static const start last_per_key; ///< with the last message of each key, then all from now on
    /// With the last `n` messages of the topic, by their times where there are several partitions.
    static start last(std::size_t n) noexcept {
        start s(kind::last);
        s.count_ = n;
        return s;
    }
    /// With the first message of each partition that was published at `when` or later.
    start(time_point when) noexcept : kind_(kind::time), when_(when) {} // NOLINT: meant to convert
    /// With a place in one partition. A new subscription begins in the others with what is published from now on; `seek` leaves those alone.
    start(position where) noexcept : kind_(kind::place), where_(where) {} // NOLINT: meant to convert

    enum class kind : std::uint8_t { latest, earliest, last_per_key, last, time, place };
    kind what() const noexcept { return kind_; }
    std::size_t count() const noexcept { return count_; }
    time_point when() const noexcept { return when_; }
    position where() const noexcept { return where_; }

private:
    constexpr explicit start(kind k) noexcept : kind_(k) {}
    kind kind_;
    std::size_t count_ = 0;
    time_point when_{};
    position where_{};
};
inline constexpr start start::latest{start::kind::latest};
inline constexpr start start::earliest{start::kind::earliest};
inline constexpr start start::last_per_key{start::kind::last_per_key};

/// Who of several members of a durable subscription gets what.
enum class sharing : std::uint8_t {
    exclusive,   ///< there is one member; a second is refused: errc::already_exists
    failover,    ///< one is active; when it goes, the next takes over, beginning with what that had not settled
    shared,      ///< each message goes to one member, whichever asks first
    keyed,       ///< of one key, all messages go to one member, in order, as long as it stays
    partitioned, ///< each partition belongs to one member; they are shared out evenly as members come and go
};

/// What a slow ephemeral subscriber of a full topic gets.
enum class slow : std::uint8_t {
    drop_oldest, ///< it loses its oldest messages, and is told how many
    disconnect,  ///< it loses all and receives no more
};

/// How a subscription behaves. For one that is open already, the options of its first opening hold.
template <class T>
struct subscribe_options {
    start from = start::latest; ///< where a new subscription begins
    sharing mode = sharing::exclusive;
    std::function<bool(const T&, const properties&)> filter = nullptr; ///< false, or an exception: not for this subscription. Called without a lock
    duration lease = std::chrono::seconds(30); ///< how long a receiver may take before the message goes to another; 0: for ever
    retry_policy retry = retry_policy();
    std::size_t max_in_flight = 0; ///< messages handed out and not settled
    mailroom::slow slow = mailroom::slow::drop_oldest;
    duration expires_after = duration::zero(); ///< a durable subscription nobody has used for so long is forgotten; 0: never
};

namespace detail {

template <class T>
void check_options(const topic_options<T>& o) {
    const auto require = [](bool holds, const char* otherwise) {
        if (!holds) { fail(errc::invalid, otherwise); }
    };
    require(o.partitions >= 1 && o.partitions <= 4096, "topic_options.partitions is outside 1..4096");
    require(o.retention.age >= duration::zero(), "topic_options.retention.age is negative; zero means no limit by age");
    require(o.overflow <= overflow::drop_newest, "topic_options.overflow is none of block, reject, drop_oldest, drop_newest");
    require(o.deduplicate.window >= duration::zero(), "topic_options.deduplicate.window is negative; zero switches it off");
}

template <class T>
void check_options(const subscribe_options<T>& o) {
    const auto require = [](bool holds, const char* otherwise) {
        if (!holds) { fail(errc::invalid, otherwise); }
    };
    require(o.lease >= duration::zero(), "subscribe_options.lease is negative; zero means for ever");
    require(o.mode <= sharing::partitioned, "subscribe_options.mode is none of exclusive, failover, shared, keyed, partitioned");
    require(o.slow <= slow::disconnect, "subscribe_options.slow is neither drop_oldest nor disconnect");
    require(o.expires_after >= duration::zero(), "subscribe_options.expires_after is negative; zero means never");
    check_retry(o.retry, "subscribe_options");
}

} // namespace detail

/// One subscription of a topic, as `topic::subscriptions` sees it.
struct subscription_info {
    std::string name;                ///< empty: ephemeral
    std::size_t members = 0;         ///< now
    std::vector<position> positions; ///< now, one a partition: the first message that is not settled
    std::uint64_t lag = 0;           ///< now: messages not settled, after the filter
    std::size_t in_flight = 0;       ///< now: received, not settled
    std::uint64_t lost = 0;          ///< ever: dropped because it was slow and the topic full
    std::uint64_t redelivered = 0;   ///< ever: deliveries with an attempt above 1
    std::uint64_t filtered = 0;      ///< ever: not wanted by its filter
    std::uint64_t filter_errors = 0; ///< ever: of these, because the filter threw
    sharing mode = sharing::exclusive;
};

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
    std::uint64_t filtered = 0;             ///< ever: not wanted by the filter of a subscription
    std::uint64_t filter_errors = 0;        ///< ever: of these, because the filter threw
};

} // namespace mailroom
