// The face of a queue of T that keeps its messages in a lane: sending, popping, closing, and handles for those who do it for long.
// What a lane is, is in store/transient.hpp; here is what is the same for all of them.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/store/gate.hpp>

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>

namespace mailroom {

struct consume_options;

/// The options of a transient queue.
struct transient_options {
    mailroom::clock* clock = nullptr; ///< where its waits wait; null: the system's. Must outlive the queue
};

namespace detail {

template <class...>
inline constexpr bool keeps_messages = false;

// What all verbs give that need a message to be kept until it is settled.
template <class... Any>
struct transient_verb {
    static_assert(keeps_messages<Any...>, "mailroom::transient keeps nothing to redeliver, so it has no receive, "
                                          "consume, next, browse, statistics, properties or "
                                          "the like: only send, pop and close. For those use mailroom::memory: "
                                          "mailroom::queue<T> or mailroom::queue<T, mailroom::memory>");
};

template <class P>
concept is_properties = std::same_as<std::remove_cvref_t<P>, properties>;

// An rvalue range that owns its elements gives them up; a view does not own them.
template <class Range>
inline constexpr bool gives_up = !std::is_reference_v<Range> && !std::is_const_v<Range> && !std::ranges::view<Range>;
template <class Range>
using element_of = std::conditional_t<gives_up<Range>, std::ranges::range_rvalue_reference_t<Range>, std::ranges::range_reference_t<Range>>;

// Without a handle.
struct no_token {};

/// A lane of T: what the queue below asks of a container. `put` and `take` never wait, and have no effect where they answer false or 0.
/// After `close()` only who is already inside may still put; `is_empty(closed)` then is true only if that can add nothing either, as far as
/// the lane can tell (each says how far that is).
template <class L, class T>
concept lane = requires(L lane, const L& seen, typename L::producer_token& producer, typename L::consumer_token& consumer, T& message,
                        std::optional<T>& out, T*& from, T*& to) {
    { L::can_fill } -> std::convertible_to<bool>;
    { L::pauses_when_full } -> std::convertible_to<unsigned>;                      // before a sender looks again
    { lane.put(producer, std::move(message)) } -> std::same_as<bool>;              // moves only if true
    { lane.put_some(producer, from, std::size_t()) } -> std::same_as<std::size_t>; // advances `from` by what it returns
    { lane.take(consumer, out) } -> std::same_as<bool>;
    { lane.take_some(consumer, to, std::size_t()) } -> std::same_as<std::size_t>;
    { seen.is_empty(true) } -> std::same_as<bool>; // false where it cannot tell
    { seen.size_approx() } -> std::same_as<std::size_t>;
    lane.close();
};

/// A lane and its gate, at a fixed address.
template <class T, class Lane>
class lane_core {
public:
    explicit lane_core(clock* c) : gate_(c) {}

    [[nodiscard]] gate& door() noexcept { return gate_; }
    [[nodiscard]] Lane& lane() noexcept { return lane_; }

    // In this order: who finds the lane closed sees that the gate is.
    void close() noexcept {
        gate_.close();
        lane_.close();
    }

    /// done; nothing: it is full; closed. Moves from `message` only if done.
    template <class Token, class U>
    look put(Token& token, U&& message) {
        if (gate_.closed()) [[unlikely]] { return look::closed; }
        if (!guarded([&] { return lane_.put(token, std::forward<U>(message)); }, 0)) [[unlikely]] {
            return gate_.closed() ? look::closed : look::nothing;
        }
        gate_.after_put();
        return look::done;
    }
    /// The same for up to `left` messages of `from`, both of which it advances; done where there was one at least.
    template <class Token, class It>
    look put_some(Token& token, It& from, std::size_t& left) {
        if (gate_.closed()) { return look::closed; }
        const std::size_t n = guarded([&] { return lane_.put_some(token, from, left); }, left);
        if (n == 0) { return gate_.closed() ? look::closed : look::nothing; }
        left -= n;
        gate_.after_put(n);
        return look::done;
    }
    /// The same, waiting while it is full. To be called after `put` said that it is.
    template <class Token, class U>
    waited wait_to_put(Token& token, U&& message, duration deadline, const stop_token& stop) {
        if constexpr (!Lane::can_fill) {
            return waited::closed;
        } else if constexpr (std::is_trivially_copyable_v<T> && std::is_copy_constructible_v<T>) {
            // A copy waits. Taking the address of the message itself would keep it out of registers on the way where nobody waits, and
            // reading 16 bytes that were just written as 8 and 8 costs 4 ns.
            const T copy(message);
            return wait_to_put_this(token, copy, deadline, stop);
        } else {
            return wait_to_put_this(token, std::forward<U>(message), deadline, stop);
        }
    }

    template <class Token, class It>
    [[gnu::cold, gnu::noinline]] waited wait_to_put_some(Token& token, It& from, std::size_t& left) {
        return gate_.wait_for_room(Lane::pauses_when_full, clock::never, stop_token(), [&] { return put_some(token, from, left); });
    }

    template <class Token>
    bool take(Token& token, std::optional<T>& out) {
        if (!guarded([&] { return lane_.take(token, out); }, 0)) { return false; }
        if constexpr (Lane::can_fill) { gate_.after_take(); }
        return true;
    }
    template <class Token, class OutputIt>
    std::size_t take_some(Token& token, OutputIt& out, std::size_t max) {
        const std::size_t n = guarded([&] { return lane_.take_some(token, out, max); }, 0, max);
        if constexpr (Lane::can_fill) { gate_.after_take(n); }
        return n;
    }
    template <class Token>
    [[gnu::cold, gnu::noinline]] void wait_to_take(Token& token, std::optional<T>& out, duration deadline, const stop_token& stop) {
        gate_.wait_for_message(deadline, stop, [&] {
            const bool closed = gate_.closed(); // before the look: what was sent before close() is found by it
            if (take(token, out)) { return look::done; }
            if (!lane_.is_empty(closed)) { return look::unsure; }
            return closed ? look::closed : look::nothing;
        });
    }

private:
    // Should `act` throw (moving a T may, and so may the user's iterators): up to `puts` messages may be in the lane all the same, and up to
    // `takes` places have come back, if only the one that was held for the T that threw: who waits for them is woken.
    template <class Act>
    auto guarded(Act act, std::size_t puts, std::size_t takes = 1) {
        try {
            return act();
        } catch (...) {
            gate_.after_put(puts);
            gate_.after_take(takes);
            throw;
        }
    }

    template <class Token, class U>
    [[gnu::cold, gnu::noinline]] waited wait_to_put_this(Token& token, U&& message, duration deadline, const stop_token& stop) {
        return gate_.wait_for_room(Lane::pauses_when_full, deadline, stop, [&] { return put(token, std::forward<U>(message)); });
    }

    gate gate_;
    alignas(128) Lane lane_; // not in the cache line before or after the flags, which processors fetch in pairs
};

/// The sending verbs, for the queue and for a producer's handle. Self has `core()` and `out_token()`.
template <class Self, class T>
class lane_sender {
public:
    /// Puts a message into the lane; waits while a bounded one is full. Throws error: errc::closed; std::bad_alloc where an unbounded lane
    /// finds no memory. Moves from its argument only on success.
    void send(T&& message) { send_or_throw(std::move(message)); }
    void send(const T& message) requires std::copy_constructible<T> { send_or_throw(message, stop_token()); }
    /// The same, until stopped: throws errc::full.
    void send(T&& message, const stop_token& stop) { send_or_throw(std::move(message), stop); }
    void send(const T& message, const stop_token& stop) requires std::copy_constructible<T> { send_or_throw(message, stop); }
    /// Makes a T and sends it.
    template <class... Args>
    requires std::constructible_from<T, Args...>
    void emplace(Args&&... args) { send(T(std::forward<Args>(args)...)); }

    /// The same, waiting at most `limit`: errc::closed, errc::timed_out.
    result<void> send_for(duration limit, T&& message) { return send_within(limit, std::move(message)); }
    result<void> send_for(duration limit, const T& message) requires std::copy_constructible<T> { return send_within(limit, message); }
    /// The same without waiting: errc::closed, errc::full.
    result<void> try_send(T&& message) { return send_now(std::move(message)); }
    result<void> try_send(const T& message) requires std::copy_constructible<T> { return send_now(message); }

    /// Sends the messages of a range in order, each as `send` does; moves from an rvalue range that owns its elements. What was sent before
    /// an exception stays sent; an unbounded lane takes all or none. Others' messages may come between them.
    template <std::ranges::input_range Range>
    requires std::constructible_from<T, element_of<Range>>
    void send_many(Range&& range) {
        if constexpr (!std::ranges::forward_range<Range>) {
            for (auto&& element : range) { send(T(static_cast<element_of<Range>>(element))); }
        } else if constexpr (gives_up<Range>) {
            send_some(std::make_move_iterator(std::ranges::begin(range)), static_cast<std::size_t>(std::ranges::distance(range)));
        } else {
            send_some(std::ranges::begin(range), static_cast<std::size_t>(std::ranges::distance(range)));
        }
    }
    void send_many(std::initializer_list<T> messages) requires std::copy_constructible<T> { send_some(messages.begin(), messages.size()); }

    // What a lane cannot do: each of these fails to compile with one sentence. (Templates with defaults, so that braces reach them too.)
    template <class U = T, is_properties P = properties, class... Any>
    auto send(U&&, P&&, Any&&...) {
        return transient_verb<Any...>();
    }
    template <class U = T, is_properties P = properties>
    auto try_send(U&&, P&&) {
        return transient_verb<U>();
    }
    template <class U = T, is_properties P = properties>
    auto send_for(duration, U&&, P&&) {
        return transient_verb<U>();
    }
    template <class U = T>
    auto send_async(U&&) {
        return transient_verb<U>();
    }
    template <class U = T, is_properties P = properties>
    auto send_async(U&&, P&&) {
        return transient_verb<U>();
    }

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }

    // A stop token that was not given is not even made where nobody waits.
    template <class U, class... Stop>
    void send_or_throw(U&& message, const Stop&... stop) {
        const look seen = self().core().put(self().out_token(), std::forward<U>(message));
        if (seen == look::done) [[likely]] { return; }
        finish(seen == look::closed ? waited::closed
                                    : self().core().wait_to_put(self().out_token(), std::forward<U>(message), clock::never, stop_token(stop...)));
    }
    template <class U>
    result<void> send_within(duration limit, U&& message) {
        const look seen = self().core().put(self().out_token(), std::forward<U>(message));
        if (seen == look::done) { return {}; }
        if (seen == look::closed) { return errc::closed; }
        if (limit <= duration::zero()) { return errc::timed_out; }
        const duration deadline = deadline_after(self().core().door().time(), limit);
        switch (self().core().wait_to_put(self().out_token(), std::forward<U>(message), deadline, stop_token())) {
        case waited::done: return {};
        case waited::closed: return errc::closed;
        default: return errc::timed_out;
        }
    }
    template <class U>
    result<void> send_now(U&& message) {
        switch (self().core().put(self().out_token(), std::forward<U>(message))) {
        case look::done: return {};
        case look::closed: return errc::closed;
        default: return errc::full;
        }
    }

    template <class It>
    void send_some(It from, std::size_t left) {
        while (left != 0) {
            const look seen = self().core().put_some(self().out_token(), from, left);
            if (seen == look::closed) { finish(waited::closed); }
            if (seen == look::nothing) { finish(self().core().wait_to_put_some(self().out_token(), from, left)); }
        }
    }

    static void finish(waited end) {
        switch (end) {
        case waited::done: return;
        case waited::closed: fail(errc::closed, "the queue is closed");
        case waited::timed_out:
        case waited::stopped: fail(errc::full, "the queue was full until the sender was stopped");
        }
    }
};

/// The popping verbs, for the queue and for a consumer's handle. Self has `core()` and `in_token()`.
template <class Self, class T>
class lane_receiver {
public:
    /// Takes the next message out; waits for one. nullopt: closed and drained, or stopped with nothing there. Once it is here, the message
    /// is nowhere else. Should the T throw when it is moved out: see the shape.
    std::optional<T> pop() { return pop_until_stopped(); }
    std::optional<T> pop(const stop_token& stop) { return pop_until_stopped(stop); }
    /// The same without waiting.
    std::optional<T> try_pop() {
        std::optional<T> out;
        self().core().take(self().in_token(), out);
        return out;
    }
    /// The same, waiting at most `limit`.
    std::optional<T> pop_for(duration limit) {
        if (limit <= duration::zero()) { return try_pop(); }
        std::optional<T> out;
        if (!self().core().take(self().in_token(), out)) {
            self().core().wait_to_take(self().in_token(), out, deadline_after(self().core().door().time(), limit), stop_token());
        }
        return out;
    }
    /// Takes up to `max` messages out, without waiting, and assigns each to `*out++`. Returns how many.
    template <class OutputIt>
    std::size_t pop_many(OutputIt out, std::size_t max) {
        return self().core().take_some(self().in_token(), out, max);
    }

    template <class... Any>
    auto receive(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto try_receive(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto receive_for(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto receive_many(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto next(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class Handler>
    auto consume(Handler&&) {
        return transient_verb<Handler>();
    }
    template <class Handler, class Options = consume_options>
    auto consume(Handler&&, Options&&) {
        return transient_verb<Handler>();
    }

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }

    template <class... Stop>
    std::optional<T> pop_until_stopped(const Stop&... stop) {
        std::optional<T> out;
        if (!self().core().take(self().in_token(), out)) { self().core().wait_to_take(self().in_token(), out, clock::never, stop_token(stop...)); }
        return out;
    }
};

/// What one thread sends through for long. Not to be used by two threads at once, nor after its queue is destroyed.
template <class T, class Lane>
class lane_producer : public lane_sender<lane_producer<T, Lane>, T> {
public:
    explicit lane_producer(lane_core<T, Lane>& core) : core_(&core), token_(core.lane()) {}

private:
    friend lane_sender<lane_producer, T>;
    lane_core<T, Lane>& core() noexcept { return *core_; }
    typename Lane::producer_token& out_token() noexcept { return token_; }

    lane_core<T, Lane>* core_;
    [[no_unique_address]] typename Lane::producer_token token_;
};

/// What one thread pops through for long. Not to be used by two threads at once, nor after its queue is destroyed.
template <class T, class Lane>
class lane_consumer : public lane_receiver<lane_consumer<T, Lane>, T> {
public:
    explicit lane_consumer(lane_core<T, Lane>& core) : core_(&core), token_(core.lane()) {}

private:
    friend lane_receiver<lane_consumer, T>;
    lane_core<T, Lane>& core() noexcept { return *core_; }
    typename Lane::consumer_token& in_token() noexcept { return token_; }

    lane_core<T, Lane>* core_;
    [[no_unique_address]] typename Lane::consumer_token token_;
};

/// A queue whose messages are in a lane. Threads: every member from any thread at once, except destruction and moves, and except what the
/// lane's shape says. Nobody may be blocked in it when it is destroyed; what is in it then is destroyed with it.
template <class T, class Lane>
class lane_queue : public lane_sender<lane_queue<T, Lane>, T>, public lane_receiver<lane_queue<T, Lane>, T> {
    static_assert(lane<Lane, T>);

public:
    using value_type = T;
    using producer_handle = lane_producer<T, Lane>;
    using consumer_handle = lane_consumer<T, Lane>;

    lane_queue() : lane_queue(transient_options()) {}
    explicit(false) lane_queue(transient_options options) : core_(std::make_unique<lane_core<T, Lane>>(options.clock)) {}

    /// A handle for a thread that sends (pops) for long: cheaper where the lane keeps something for each thread.
    [[nodiscard]] producer_handle producer() { return producer_handle(*core_); }
    [[nodiscard]] consumer_handle consumer() { return consumer_handle(*core_); }

    /// How many messages there were at some moment of the call, about.
    [[nodiscard]] std::size_t size_approx() const noexcept { return core_->lane().size_approx(); }
    /// Sends answer errc::closed from now on, those that wait for room too; pops take what is left, then answer nullopt. Again: no effect.
    void close() noexcept { core_->close(); }

    template <class... Any>
    auto browse(Any&&...) const {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto statistics(Any&&...) const {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto dead(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto purge(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto pause(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto resume(Any&&...) {
        return transient_verb<Any...>();
    }
    template <class... Any>
    auto drain(Any&&...) {
        return transient_verb<Any...>();
    }

private:
    friend lane_sender<lane_queue, T>;
    friend lane_receiver<lane_queue, T>;
    lane_core<T, Lane>& core() noexcept { return *core_; }
    no_token& out_token() noexcept { return none_; }
    no_token& in_token() noexcept { return none_; }

    std::unique_ptr<lane_core<T, Lane>> core_;
    [[no_unique_address]] no_token none_;
};

} // namespace detail
} // namespace mailroom
