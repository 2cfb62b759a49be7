// queue<T, transient<Shape>>: the raw lanes. A message is moved in, and moved out once; nothing else is kept of it.
//
//   transient<>             moodycamel::ConcurrentQueue     any number of messages and threads; sending never waits
//   transient<bounded<N>>   boost::lockfree::queue          at most N messages, any number of threads
//   transient<spsc<N>>      boost::lockfree::spsc_queue     at most N messages, one thread sends, one pops
//
// FIFO per sender, no order between senders; any T that can be moved. No lock and, once warm, no allocation for a message. A pop that waits
// costs the senders nothing measurable while nobody waits (store/gate.hpp).
//
// close() and sends that run at the same moment: with bounded<N> a message whose send returned is found by the pops before they say "closed
// and drained". With the other two shapes a sender the system has stopped in the middle of a send may put its message there after a pop has
// said so: it is then found by the next pop, and destroyed with the queue if there is none. Who must not lose it ends the senders first.
//
// moodycamel: 1.0.5 is recommended. In 1.0.3, which Debian 12 has, each thread that ever sent without a handle leaves its sub-queue behind
// until the queue is destroyed (only a thread that gets the same place for its thread-local data takes it over), and a block of memory that
// such threads use again is handed over without a happens-before: harmless on x86, not so elsewhere (upstream 404, fixed in 1.0.5).
// Snapshots of 1.0.4's time that watch for the end of threads could touch a destroyed queue from a thread that ended later (upstream 288).
// Neither concerns senders with a handle: `auto p = queue.producer(); p.send(x);` holds a moodycamel::ProducerToken, and is faster.
#pragma once

#include <mailroom/store/lane.hpp>
#include <mailroom/store/policies.hpp>

#if __has_include(<concurrentqueue/concurrentqueue.h>)
# include <concurrentqueue/concurrentqueue.h>
#elif __has_include(<concurrentqueue/moodycamel/concurrentqueue.h>)
# include <concurrentqueue/moodycamel/concurrentqueue.h>
#elif __has_include(<moodycamel/concurrentqueue.h>)
# include <moodycamel/concurrentqueue.h>
#elif __has_include(<concurrentqueue.h>)
# include <concurrentqueue.h>
#else
# error "mailroom/store/transient.hpp needs moodycamel's concurrentqueue.h (Debian: apt-get install libconcurrentqueue-dev)"
#endif
#if !__has_include(<boost/lockfree/queue.hpp>)
# error "mailroom/store/transient.hpp needs Boost.Lockfree (Debian: apt-get install libboost1.81-dev)"
#endif
#include <boost/lockfree/policies.hpp>
#include <boost/lockfree/queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace mailroom {
namespace detail {

/// Unbounded. A message whose T throws when it is moved out is gone.
template <class T>
class unbounded_lane {
    using container = moodycamel::ConcurrentQueue<T>;

public:
    static constexpr bool can_fill = false;
    static constexpr unsigned pauses_when_full = 0;

    struct producer_token : moodycamel::ProducerToken {
        explicit producer_token(unbounded_lane& lane) : moodycamel::ProducerToken(lane.queue_) {
            if (!this->valid()) { throw std::bad_alloc(); }
        }
    };
    struct consumer_token : moodycamel::ConsumerToken {
        explicit consumer_token(unbounded_lane& lane) : moodycamel::ConsumerToken(lane.queue_) {}
    };

    template <class U>
    bool put(no_token&, U&& message) {
        return enough_memory(queue_.enqueue(std::forward<U>(message)));
    }
    template <class U>
    bool put(producer_token& token, U&& message) {
        return enough_memory(queue_.enqueue(token, std::forward<U>(message)));
    }
    template <class It>
    std::size_t put_some(no_token&, It& from, std::size_t count) {
        enough_memory(queue_.enqueue_bulk(from, count));
        return advanced(from, count);
    }
    template <class It>
    std::size_t put_some(producer_token& token, It& from, std::size_t count) {
        enough_memory(queue_.enqueue_bulk(token, from, count));
        return advanced(from, count);
    }

    // One function, whole: without being told, compilers do not see through the layers of this one.
    [[gnu::flatten]] bool take(no_token&, std::optional<T>& out) {
        return into(out, [this](auto& element) { return queue_.try_dequeue(element); });
    }
    bool take(consumer_token& token, std::optional<T>& out) {
        return into(out, [this, &token](auto& element) { return queue_.try_dequeue(token, element); });
    }
    template <class OutputIt>
    std::size_t take_some(no_token&, OutputIt& out, std::size_t max) {
        return queue_.try_dequeue_bulk(out, max);
    }
    template <class OutputIt>
    std::size_t take_some(consumer_token& token, OutputIt& out, std::size_t max) {
        return queue_.try_dequeue_bulk(token, out, max);
    }

    // A failed try_dequeue proves nothing: a thread in the middle of one that will fail may hide a message from the others for a moment.
    // The sum of (tail - head) counts what was put and is not claimed for good.
    [[nodiscard]] bool is_empty(bool) const noexcept { return queue_.size_approx() == 0; }
    [[nodiscard]] std::size_t size_approx() const noexcept { return queue_.size_approx(); }
    void close() noexcept {}

private:
    // moodycamel assigns to an element that is there. Where it costs nothing to have one beforehand, in a register, it gets a T; otherwise
    // this, which makes the T where the caller wants it.
    struct target {
        std::optional<T>& out;
        target& operator=(T&& message) noexcept(std::is_nothrow_move_constructible_v<T>) {
            out.emplace(std::move(message));
            return *this;
        }
    };
    template <class Dequeue>
    static bool into(std::optional<T>& out, Dequeue dequeue) {
        if constexpr (std::is_trivially_default_constructible_v<T> && std::is_trivially_copyable_v<T> && std::is_copy_constructible_v<T> &&
                      std::is_move_assignable_v<T>) {
            T element;
            if (!dequeue(element)) { return false; }
            out.emplace(element);
            return true;
        } else {
            target element{out};
            return dequeue(element);
        }
    }

    static bool enough_memory(bool enough) {
        if (!enough) [[unlikely]] { throw std::bad_alloc(); }
        return true;
    }
    template <class It>
    static std::size_t advanced(It& from, std::size_t count) {
        std::ranges::advance(from, static_cast<std::iter_difference_t<It>>(count));
        return count;
    }

    container queue_;
};

/// The N places of a bounded lane. Those that are free hang in a stack; its head is one word that also counts them, which makes "full",
/// "how many" and "all at home" exact, and can be closed, after which no place is given out.
template <class T, std::size_t N>
class place_pool {
public:
    static constexpr std::uint32_t none = (1u << 21) - 1;
    static_assert(N < none);

    place_pool() : places_(std::make_unique<place[]>(N)) {
        for (std::uint32_t i = 0; i < N; ++i) { places_[i].next.store(i + 1 < N ? i + 1 : none, std::memory_order_relaxed); }
        head_.store(word(0, N, 0), std::memory_order_relaxed);
    }

    /// Gives out a place without a T, or none. Acquire: what was done with the place by its last user is over.
    std::uint32_t acquire() noexcept {
        std::uint64_t head = head_.load(std::memory_order_acquire);
        for (;;) {
            const std::uint32_t first = index(head);
            if (first == none || (head & closed_bit) != 0) { return none; }
            // May be stale if another thread takes the place first; then the head has changed, and if the place came back meanwhile, the tag.
            const std::uint32_t next = places_[first].next.load(std::memory_order_relaxed);
            if (head_.compare_exchange_weak(head, word(next, home(head) - 1, tag(head)), std::memory_order_acquire, std::memory_order_acquire)) {
                return first;
            }
        }
    }
    /// Takes a place back, without a T. Release: pairs with acquire().
    void release(std::uint32_t number) noexcept {
        std::uint64_t head = head_.load(std::memory_order_relaxed);
        std::uint64_t changed = 0;
        do {
            places_[number].next.store(index(head), std::memory_order_relaxed);
            changed = word(number, home(head) + 1, tag(head) + 1) | (head & closed_bit);
        } while (!head_.compare_exchange_weak(head, changed, std::memory_order_release, std::memory_order_relaxed));
    }

    [[nodiscard]] std::size_t in_use() const noexcept { return N - home(head_.load(std::memory_order_relaxed)); }
    /// Closed, and nobody has a place nor will get one.
    [[nodiscard]] bool is_over() const noexcept {
        const std::uint64_t head = head_.load(std::memory_order_acquire);
        return (head & closed_bit) != 0 && home(head) == N;
    }
    void close() noexcept { head_.fetch_or(closed_bit, std::memory_order_seq_cst); }

    [[nodiscard]] void* storage(std::uint32_t number) noexcept { return places_[number].body; }
    [[nodiscard]] T& operator[](std::uint32_t number) noexcept { return *std::launder(reinterpret_cast<T*>(places_[number].body)); }

private:
    struct place {
        alignas(T) std::byte body[sizeof(T)];
        std::atomic<std::uint32_t> next{none};
    };

    // The head: | closed: 1 | tag: 21 | home: 21 | index: 21 |. The tag counts releases: without one in between, a place cannot be first again.
    static constexpr std::uint64_t closed_bit = std::uint64_t{1} << 63;
    static constexpr std::uint64_t word(std::uint32_t index, std::uint64_t home, std::uint64_t tag) noexcept {
        return index | (home << 21) | ((tag & none) << 42);
    }
    static constexpr std::uint32_t index(std::uint64_t head) noexcept { return static_cast<std::uint32_t>(head & none); }
    static constexpr std::uint64_t home(std::uint64_t head) noexcept { return (head >> 21) & none; }
    static constexpr std::uint64_t tag(std::uint64_t head) noexcept { return (head >> 42) & none; }

    alignas(64) std::atomic<std::uint64_t> head_;
    alignas(64) std::unique_ptr<place[]> places_;
};

/// Bounded. What goes through boost::lockfree::queue, which takes trivial types only, is the number of the place a message stands in.
/// A message whose T throws when it is moved out is gone.
template <class T, std::size_t N>
class bounded_lane {
    // Nodes in one array where their 16-bit numbers suffice. Both are given N nodes now, and never take another.
    using container = std::conditional_t<(N < 65'535), boost::lockfree::queue<std::uint32_t, boost::lockfree::fixed_sized<true>>,
                                         boost::lockfree::queue<std::uint32_t>>;

public:
    static constexpr bool can_fill = true;
    static constexpr unsigned pauses_when_full = std::min<std::size_t>(64, N / 16);

    struct producer_token : no_token {
        explicit producer_token(bounded_lane&) noexcept {}
    };
    struct consumer_token : no_token {
        explicit consumer_token(bounded_lane&) noexcept {}
    };

    bounded_lane() : queue_(N) {}
    ~bounded_lane() {
        for (std::uint32_t i = 0; queue_.pop(i);) { std::destroy_at(std::addressof(pool_[i])); }
    }

    template <class U>
    bool put(no_token&, U&& message) {
        const std::uint32_t place = pool_.acquire();
        if (place == pool_.none) { return false; }
        holder held{pool_, place};
        ::new (pool_.storage(place)) T(std::forward<U>(message));
        held.keep();
        // Cannot fail: a node goes back to the container before the number in it goes back to the pool, so N numbers find N nodes.
        queue_.bounded_push(place);
        return true;
    }
    template <class It>
    std::size_t put_some(no_token& token, It& from, std::size_t count) {
        std::size_t done = 0;
        while (done < count && put(token, *from)) { ++from, ++done; }
        return done;
    }

    bool take(no_token&, std::optional<T>& out) {
        return take_one([&out](T&& message) { out.emplace(std::move(message)); });
    }
    template <class OutputIt>
    std::size_t take_some(no_token&, OutputIt& out, std::size_t max) {
        std::size_t done = 0;
        while (done < max && take_one([&out](T&& message) { *out++ = std::move(message); })) { ++done; }
        return done;
    }

    // Open: the container says "empty" only if it is. Closed: a sender may be on its way with a place; when all are at home there is none.
    [[nodiscard]] bool is_empty(bool closed) const noexcept { return !closed || pool_.is_over(); }
    [[nodiscard]] std::size_t size_approx() const noexcept { return pool_.in_use(); }
    void close() noexcept { pool_.close(); }

private:
    using pool = place_pool<T, N>;

    // Gives a place back at the end of a scope.
    struct holder {
        pool& from;
        std::uint32_t place;
        bool keeps = false;
        void keep() noexcept { keeps = true; }
        ~holder() {
            if (!keeps) { from.release(place); }
        }
    };

    template <class Out>
    bool take_one(Out out) {
        std::uint32_t place = 0;
        if (!queue_.pop(place)) { return false; }
        const holder held{pool_, place};
        struct ending {
            T& message;
            ~ending() { std::destroy_at(std::addressof(message)); }
        } const end{pool_[place]};
        out(std::move(end.message));
        return true;
    }

    pool pool_;
    container queue_;
};

// Elements of trivial type side by side.
template <class It, class T>
concept array_of = std::contiguous_iterator<It> && std::same_as<std::iter_value_t<It>, T> && std::is_trivially_copyable_v<T>;

/// One sender, one receiver. A message whose T throws when it is moved out stays where it is.
template <class T, std::size_t N>
class spsc_lane {
public:
    static constexpr bool can_fill = true;
    static constexpr unsigned pauses_when_full = std::min<std::size_t>(64, N / 16);

    struct producer_token : no_token {
        explicit producer_token(spsc_lane&) noexcept {}
    };
    struct consumer_token : no_token {
        explicit consumer_token(spsc_lane&) noexcept {}
    };

    template <class U>
    bool put(no_token&, U&& message) {
        if constexpr (std::is_lvalue_reference_v<U> || (std::is_trivially_copyable_v<T> && std::is_copy_constructible_v<T>)) {
            return ring_.push(message);
        } else {
            // spsc_queue pushes one message by copying it, and a range by making a T of each `*it`.
            const auto from = std::make_move_iterator(std::addressof(message));
            return ring_.push(from, from + 1) != from;
        }
    }
    template <class It>
    std::size_t put_some(no_token&, It& from, std::size_t count) {
        const It first = from;
        from = ring_.push(first, std::ranges::next(first, static_cast<std::iter_difference_t<It>>(count)));
        return static_cast<std::size_t>(std::ranges::distance(first, from));
    }

    bool take(no_token&, std::optional<T>& out) {
        auto move_out = [&out](T& message) { out.emplace(std::move(message)); };
        return ring_.consume_one(move_out);
    }
    template <class OutputIt>
    std::size_t take_some(no_token&, OutputIt& out, std::size_t max) {
        if constexpr (array_of<OutputIt, T>) {
            return ring_.pop(std::to_address(out), max);
        } else {
            auto move_out = [&out](T& message) { *out++ = std::move(message); };
            std::size_t done = 0;
            while (done < max && ring_.consume_one(move_out)) { ++done; }
            return done;
        }
    }

    [[nodiscard]] bool is_empty(bool) const noexcept { return ring_.read_available() == 0; }
    [[nodiscard]] std::size_t size_approx() const noexcept { return std::min(ring_.read_available(), N); }
    void close() noexcept {}

private:
    boost::lockfree::spsc_queue<T, boost::lockfree::capacity<N>> ring_;
};

// What a T has to be, said before anything is made of it.
template <class T>
struct lane_body {
    static_assert(!std::is_object_v<T> || std::is_nothrow_destructible_v<T>,
                  "mailroom: the destructor of the T of queue<T, transient<...>> may not throw");
    static_assert(std::is_object_v<T> && !std::is_const_v<T> && !std::is_array_v<T> && std::is_move_constructible_v<T>,
                  "mailroom: the T of queue<T, transient<...>> has to be an object type that can be moved: not a "
                  "reference, not const, not an array");
};

template <class T, class Shape>
struct lane_for {
    static_assert(is_lane_shape<Shape>, "mailroom::transient<Shape>: Shape is mailroom::unbounded, bounded<N> or spsc<N>");
    using type = unbounded_lane<T>;
};
template <class T>
struct lane_for<T, unbounded> : lane_body<T> {
    using type = unbounded_lane<T>;
};
template <class T, std::size_t N>
struct lane_for<T, bounded<N>> : lane_body<T> {
    using type = bounded_lane<T, bounded<N>::capacity>;
};
template <class T, std::size_t N>
struct lane_for<T, spsc<N>> : lane_body<T> {
    using type = spsc_lane<T, spsc<N>::capacity>;
};

} // namespace detail

/// A queue that keeps a message until it is popped, and not longer: at most once.
template <class T, class Shape>
class queue<T, transient<Shape>> : public detail::lane_queue<T, typename detail::lane_for<T, Shape>::type> {
public:
    using detail::lane_queue<T, typename detail::lane_for<T, Shape>::type>::lane_queue;
};

} // namespace mailroom
