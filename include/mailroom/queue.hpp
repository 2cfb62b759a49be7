// queue<T>: a message queue inside the process, with acknowledgement, redelivery and dead letters.
//
// `queue<T>` keeps its messages in memory: a message survives a consumer that fails. Total order: delivered in the order in which sends were
// accepted. Threads: every member may be called from any thread at once, except construction, destruction and moves. No thread is started
// but by `consume`.
#pragma once

#include <mailroom/awaitable.hpp>
#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/consumer.hpp>
#include <mailroom/dead_letters.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/receipt.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/memory.hpp>
#include <mailroom/store/policies.hpp>

#include <concepts>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

/// What can be a message: a whole object that can be moved.
template <class T>
concept message_body = std::is_object_v<T> && !std::is_const_v<T> && !std::is_array_v<T> && std::move_constructible<T> && std::destructible<T>;

namespace detail {

template <class Range>
using range_element = decltype(*std::begin(std::declval<Range&>()));
/// An rvalue that owns its elements, not a view of somebody's: they may be moved from.
template <class Range>
inline constexpr bool gives_up_elements = !std::is_reference_v<Range> && !std::is_const_v<Range> &&
                                          (
                                              requires { typename Range::allocator_type; } || requires { std::tuple_size<Range>::value; });
/// What `send_many` takes: anything a range-for walks whose elements make a T, by copy or, given up, by move.
template <class Range, class T>
concept range_of = requires(Range& range) {
    std::begin(range);
    std::end(range);
}
&&(std::convertible_to<range_element<Range>, T> ||
   (gives_up_elements<Range> && std::convertible_to<std::remove_reference_t<range_element<Range>>&&, T>));

} // namespace detail

template <class T, class Persistence>
class queue {
    static_assert(!detail::is_transient<Persistence>, "mailroom: queue<T, transient<...>> needs #include <mailroom/store/transient.hpp>");
    static_assert(detail::is_transient<Persistence> || std::is_same_v<Persistence, memory>,
                  "mailroom: the persistence of a queue is mailroom::memory or mailroom::transient<...>");
    static_assert(message_body<T>,
                  "mailroom: the T of queue<T> has to be an object type that can be moved: not a reference, not const, not an array");

public:
    using value_type = T;

    /// An empty queue. Allocates its core, nothing for messages yet. Throws errc::invalid, with a sentence, for options outside what is allowed.
    queue() : queue(queue_options<T>()) {}
    explicit(false) queue(queue_options<T> options) : core_(make(options)) {}
    queue(queue&&) noexcept = default;
    queue& operator=(queue&&) noexcept = default;
    /// What is ready is destroyed. Deliveries that are out stay valid, their `ack` answers false; consumers idle.
    ~queue() = default;

    // ------------------------------------------------------------------------------------------------------------------------- sending

    /// Appends a message and returns its offset; waits while the queue is full and its overflow rule is `block`.
    /// Throws `error`: closed, full (rule reject, or drop_oldest with every message held), too_large, rejected, invalid.
    /// A duplicate: the offset of the original. Dropped by drop_newest: no_offset. Cost: no lock, no allocation but one block in 32 messages.
    offset send(T value) {
        if (core_->is_plain()) {
            const offset place = core_->append(value);
            if (place != no_offset) { return place; }
        }
        return deliver(value, nullptr, clock::never, stop_token());
    }
    offset send(T value, properties props) { return deliver(value, &props, clock::never, stop_token()); }
    /// The same, until stopped: errc::full.
    offset send(T value, properties props, stop_token stop) { return deliver(value, &props, clock::never, stop); }

    /// The same, waiting at most `limit`: errc::timed_out. Moves from `value` only on success. Throws nothing of the above.
    result<offset> send_for(duration limit, T&& value) { return attempt(value, nullptr, limit); }
    result<offset> send_for(duration limit, T&& value, properties props) { return attempt(value, &props, limit); }
    result<offset> send_for(duration limit, const T& value) requires std::copy_constructible<T> { return send_for(limit, T(value)); }
    result<offset> send_for(duration limit, const T& value, properties props) requires std::copy_constructible<T> {
        return send_for(limit, T(value), std::move(props));
    }

    /// The same, never waiting.
    result<offset> try_send(T&& value) { return attempt(value, nullptr); }
    result<offset> try_send(T&& value, properties props) { return attempt(value, &props); }
    result<offset> try_send(const T& value) requires std::copy_constructible<T> { return try_send(T(value)); }
    result<offset> try_send(const T& value, properties props) requires std::copy_constructible<T> { return try_send(T(value), std::move(props)); }

    /// `send` of a T made from `args`.
    template <class... Args>
    requires std::constructible_from<T, Args...> offset emplace(Args&&... args) { return send(T(std::forward<Args>(args)...)); }

    /// `send`, its outcome in a receipt. In memory it is known when this returns; it waits for room as `send` does. Throws std::bad_alloc only.
    receipt send_async(T value) { return receipt(settle_send(value, nullptr)); }
    receipt send_async(T value, properties props) { return receipt(settle_send(value, &props)); }

    /// Appends all of a range in a row, or none; moves from an rvalue range that owns its elements. Returns the first offset: the others
    /// follow. Throws as `send`; more than max_messages at once: errc::too_large. An empty range: the next offset.
    template <detail::range_of<T> Range>
    offset send_many(Range&& range) {
        using element = std::remove_cvref_t<detail::range_element<Range>>;
        constexpr bool gives_up = detail::gives_up_elements<Range>;
        if constexpr (requires {
                          std::data(range);
                          std::size(range);
                      } &&
                      std::is_same_v<element, T> && !detail::is_boxed<T> && (gives_up || std::is_nothrow_copy_constructible_v<T>)) {
            // Straight into their slots: nothing can throw once they have their places, and until then the range is as it was.
            auto* const values = std::data(range);
            return send_in_place(
                static_cast<std::size_t>(std::size(range)), [values](std::size_t i) -> const T& { return values[i]; },
                [values](std::size_t i, detail::body<T>& slot) noexcept {
                    if constexpr (gives_up) {
                        slot.put(std::move(values[i]));
                    } else {
                        slot.put(T(std::as_const(values[i]))); // of all its copies the one that was asked about
                    }
                });
        } else {
            return send_collected(std::forward<Range>(range));
        }
    }

    // ----------------------------------------------------------------------------------------------------------------------- receiving

    /// The next message, to be settled by its holder. Waits for one. nullopt: stopped, or closed with nothing ready, parked or in flight.
    /// Cost: no lock and no allocation on the plain path (no delay, priority, key order or retry involved); one lock otherwise.
    std::optional<delivery<T>> receive() { return receive_until(clock::never, stop_token()); }
    std::optional<delivery<T>> receive(stop_token stop) { return receive_until(clock::never, stop); }
    /// The same without waiting, and waiting at most `limit`.
    std::optional<delivery<T>> try_receive() { return core_->take_one(); }
    std::optional<delivery<T>> receive_for(duration limit) { return receive_until(detail::deadline_after(core_->time(), limit), stop_token()); }
    /// Appends up to `max` deliveries to `out`, waiting at most `wait` for the first. Returns how many.
    std::size_t receive_many(std::vector<delivery<T>>& out, std::size_t max, duration wait = duration::zero()) {
        const duration until = wait > duration::zero() ? detail::deadline_after(core_->time(), wait) : duration::min();
        return core_->take_some(out, max, until, stop_token());
    }

    /// The next message, acknowledged as it is handed out: at most once for this caller. Otherwise as `receive`.
    std::optional<message<T>> pop() { return pop_until(clock::never, stop_token()); }
    std::optional<message<T>> pop(stop_token stop) { return pop_until(clock::never, stop); }
    std::optional<message<T>> try_pop() {
        std::optional<message<T>> out;
        core_->pop(1, [&out](auto&& made) { out.emplace(std::forward<decltype(made)>(made)); });
        return out;
    }
    std::optional<message<T>> pop_for(duration limit) { return pop_until(detail::deadline_after(core_->time(), limit), stop_token()); }
    /// Up to `max` messages to `out`, without waiting. Returns how many. Should `out` throw, the message it was given is gone, the others stay.
    template <class OutputIt>
    std::size_t pop_many(OutputIt out, std::size_t max) {
        std::size_t got = 0;
        while (got < max) {
            const std::size_t n = core_->pop(max - got, [&out](auto&& made) { *out++ = message<T>(std::forward<decltype(made)>(made)); });
            if (n == 0) { break; }
            got += n;
        }
        return got;
    }

    /// `co_await q.next()`: std::optional<delivery<T>>, as `receive`. Resumed inside the call that made a message available; see awaitable.hpp.
    awaitable<T> next() { return awaitable<T>(*core_, stop_token()); }
    awaitable<T> next(stop_token stop) { return awaitable<T>(*core_, std::move(stop)); }

    /// Calls `handler` for each message on threads of its own, or an executor's: see consumer.hpp.
    template <class Handler>
    [[nodiscard]] consumer consume(Handler handler) {
        return consume(std::move(handler), consume_options());
    }
    template <class Handler>
    [[nodiscard]] consumer consume(Handler handler, consume_options options) {
        return detail::start_consumer<T>(*core_, std::move(handler), std::move(options));
    }

    // ----------------------------------------------------------------------------------------------------------------------- the whole

    /// What was given up on. Valid as long as this queue, moves included.
    dead_letters<T>& dead() { return core_->dead(); }
    /// Takes one lock and looks at what is in flight; where bodies differ in size, at the size of each that is not settled.
    stats statistics() const { return core_->statistics(); }
    /// Calls `fn(const message<T>&, message_state)` for each message that is not settled, in order, as long as it answers true. Each was in
    /// the queue at some moment of the call; references are valid inside `fn`, which runs without any lock. Takes what is ready out of the
    /// lock-free lane: costs memory for each message while they wait, and receiving them takes a lock.
    template <class Fn>
    requires std::predicate < Fn&, const message<T>
    &, message_state > void browse(Fn fn) const { core_->browse(std::ref(fn)); }
    /// Throws away all but the dead letters; returns how many. They count as dropped; what is in flight loses its hold.
    std::size_t purge() { return core_->purge(); }
    /// Nothing is handed out until `resume`; sending goes on.
    void pause() { core_->pause(true); }
    void resume() { core_->pause(false); }
    /// Sends fail with errc::closed from now on, those that wait for room too; receivers get what is left, then nullopt.
    void close() { core_->close(); }
    /// Closes, and waits at most `limit` until everything is settled, what is delayed too. True if it is.
    bool drain(duration limit) { return core_->drain(detail::deadline_after(core_->time(), limit)); }

private:
    struct abandoning {
        void operator()(detail::memory_core<T>* core) const noexcept { core->abandon(); }
    };

    static detail::memory_core<T>* make(const queue_options<T>& o) {
        detail::check_options(o);
        return new detail::memory_core<T>(o);
    }

    static offset value_or_throw(result<offset>& done) {
        if (!done) { done.error().raise(); }
        return *done;
    }
    template <class Look, class Put>
    offset send_in_place(std::size_t n, Look look, Put put) {
        if (core_->validates()) {
            for (std::size_t i = 0; i < n; ++i) { core_->check(look(i), no_properties); }
        }
        result<offset> done = core_->send_many(n, look, put, clock::never, stop_token());
        return value_or_throw(done);
    }
    // A range of something else, or of what may throw: collected first, and given back if it is not sent.
    template <class Range>
    offset send_collected(Range&& range) {
        constexpr bool gives_up = detail::gives_up_elements<Range>;
        struct plain {
            T value;
        };
        using held = std::conditional_t<detail::is_boxed<T>, std::unique_ptr<T>, plain>; // never a vector<bool>
        std::vector<held> values;
        if constexpr (requires { std::size(range); }) { values.reserve(static_cast<std::size_t>(std::size(range))); }
        const auto keep = [&values](auto&& value) {
            if constexpr (detail::is_boxed<T>) {
                values.push_back(std::make_unique<T>(std::forward<decltype(value)>(value)));
            } else {
                values.push_back(plain{static_cast<T>(std::forward<decltype(value)>(value))});
            }
        };
        for (auto&& value : range) {
            if constexpr (gives_up) {
                keep(std::move(value));
            } else {
                keep(std::forward<decltype(value)>(value));
            }
        }
        const auto body_of = [&values](std::size_t i) -> T& {
            if constexpr (detail::is_boxed<T>) {
                return *values[i];
            } else {
                return values[i].value;
            }
        };
        const auto give_back = [&]() noexcept {
            if constexpr (gives_up && std::is_nothrow_move_assignable_v<T> && std::is_same_v<detail::range_element<Range>, T&>) {
                std::size_t i = 0;
                for (auto&& value : range) { value = std::move(body_of(i++)); }
            }
        };
        struct guard {
            const decltype(give_back)& undo;
            bool sent = false;
            ~guard() {
                if (!sent) { undo(); }
            }
        } kept{give_back};
        const offset first = send_in_place(
            values.size(), [&](std::size_t i) -> const T& { return body_of(i); },
            [&values](std::size_t i, detail::body<T>& slot) noexcept {
                if constexpr (detail::is_boxed<T>) {
                    slot.put(std::move(values[i]));
                } else {
                    slot.put(std::move(values[i].value));
                }
            });
        kept.sent = first != no_offset;
        return first;
    }
    offset deliver(T& value, properties* props, duration deadline, const stop_token& stop) {
        core_->check(value, props != nullptr ? *props : no_properties);
        result<offset> done = core_->send(value, props, deadline, stop);
        return value_or_throw(done);
    }
    result<offset> attempt(T& value, properties* props) {
        if (auto wrong = core_->objection(value, props != nullptr ? *props : no_properties)) { return *std::move(wrong); }
        return core_->try_send(value, props);
    }
    result<offset> attempt(T& value, properties* props, duration limit) {
        if (auto wrong = core_->objection(value, props != nullptr ? *props : no_properties)) { return *std::move(wrong); }
        return core_->send(value, props, detail::deadline_after(core_->time(), limit), stop_token());
    }
    result<offset> settle_send(T& value, properties* props) {
        if (auto wrong = core_->objection(value, props != nullptr ? *props : no_properties)) { return *std::move(wrong); }
        return core_->send(value, props, clock::never, stop_token());
    }
    std::optional<delivery<T>> receive_until(duration deadline, const stop_token& stop) {
        std::optional<delivery<T>> out;
        const auto one = [&] { return core_->take(1, [&out](const auto& made) { out.emplace(made); }) != 0; };
        core_->wait_for_messages(one, deadline, stop);
        return out;
    }
    std::optional<message<T>> pop_until(duration deadline, const stop_token& stop) {
        std::optional<message<T>> out;
        const auto one = [&] { return core_->pop(1, [&out](auto&& made) { out.emplace(std::forward<decltype(made)>(made)); }) != 0; };
        core_->wait_for_messages(one, deadline, stop);
        return out;
    }

    std::unique_ptr<detail::memory_core<T>, abandoning> core_;
};

} // namespace mailroom
