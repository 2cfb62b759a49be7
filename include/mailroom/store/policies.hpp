// The persistence policies of queues: each is named by what a message survives. Tags only: including this costs nothing, and what stands
// behind a tag is in a header of its own (`memory`: mailroom/queue.hpp; `transient`: mailroom/store/transient.hpp).
#pragma once

#include <cstddef>

namespace mailroom {

/// A message survives a consumer that fails: at least once inside the process. The default.
struct memory {};

/// A shape of `transient`: any number of messages, senders and receivers; sending never waits.
struct unbounded {};

/// A shape of `transient`: at most N messages, any number of senders and receivers; sending waits while it is full.
template <std::size_t N>
struct bounded {
    static_assert(N > 0, "mailroom::bounded<N> is a lane of N messages: N is 1 or more");
    static_assert(N <= 2'000'000, "mailroom::bounded<N> holds 2000000 messages at most: for more, use mailroom::memory with max_messages, "
                                  "or mailroom::unbounded");
    static constexpr std::size_t capacity = N;
};

/// A shape of `transient`: at most N messages, one thread that sends and one that receives at a time; the fastest.
template <std::size_t N>
struct spsc {
    static_assert(N > 0, "mailroom::spsc<N> is a lane of N messages: N is 1 or more");
    static constexpr std::size_t capacity = N;
};

namespace detail {

template <class T>
inline constexpr bool is_lane_shape = false;
template <>
inline constexpr bool is_lane_shape<unbounded> = true;
template <std::size_t N>
inline constexpr bool is_lane_shape<bounded<N>> = true;
template <std::size_t N>
inline constexpr bool is_lane_shape<spsc<N>> = true;

} // namespace detail

/// A message survives nothing: once popped it is gone, at most once. The raw lane: no acknowledgement, no properties, no order between
/// different senders; the price of a lock-free container and no more.
template <class Shape = unbounded>
struct transient {
    static_assert(detail::is_lane_shape<Shape>, "mailroom::transient<Shape>: Shape is mailroom::unbounded, bounded<N> or spsc<N>");
};

namespace detail {

template <class Persistence>
inline constexpr bool is_journal = requires { typename Persistence::is_journal; };

template <class Persistence>
inline constexpr bool is_transient = false;
template <class Shape>
inline constexpr bool is_transient<transient<Shape>> = true;

} // namespace detail

/// A queue of T; each message goes to one receiver. Defined in mailroom/queue.hpp, and for `transient` in mailroom/store/transient.hpp.
template <class T, class Persistence = memory>
class queue;

/// A topic of T; each message goes to every subscription. Defined in mailroom/topic.hpp, and for `transient` in
/// mailroom/store/transient_topic.hpp.
template <class T, class Persistence = memory>
class topic;

} // namespace mailroom
