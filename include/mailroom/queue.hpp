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
#include <mailroom/receiving.hpp>
#include <mailroom/sending.hpp>
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

template <class T, class Persistence>
class queue : public receiving<T, queue<T, Persistence>> {
    friend receiving<T, queue<T, Persistence>>;
    friend detail::endpoint_access;
    static_assert(!detail::is_transient<Persistence>, "mailroom: queue<T, transient<...>> needs #include <mailroom/store/transient.hpp>");
    static_assert(detail::is_transient<Persistence> || std::is_same_v<Persistence, memory> || detail::is_journal<Persistence>,
                  "mailroom: the persistence of a queue is mailroom::memory, mailroom::journal or mailroom::transient<...>");
    static_assert(message_body<T>,
                  "mailroom: the T of queue<T> has to be an object type that can be moved: not a reference, not const, not an array");

public:
    using value_type = T;

    /// An empty queue. Allocates its core, nothing for messages yet. Throws errc::invalid, with a sentence, for options outside what is allowed.
    queue() requires(!detail::is_journal<Persistence>) : queue(queue_options<T>()) {}
    explicit(false) queue(queue_options<T> options) requires(!detail::is_journal<Persistence>) : core_(make(options)) {}
    /// In a journal: what is there under this name, or a new one. A second handle shares it; the options of the first hold. Throws errc::invalid;
    /// errc::type_mismatch for a queue of another T, errc::already_exists for a topic, or other priorities or ordered_by_key; errc::io.
    queue(Persistence& where, std::string name, queue_options<T> options = queue_options<T>()) requires detail::is_journal<Persistence>
        : core_(where.template open_queue<T>(name, options)) {}
    queue(queue&&) noexcept = default;
    queue& operator=(queue&&) noexcept = default;
    /// What is ready is destroyed. Deliveries that are out stay valid, their `ack` answers false; consumers idle.
    ~queue() = default;

    // ------------------------------------------------------------------------------------------------------------------------- sending

    /// Appends a message and returns its offset; waits while the queue is full and its overflow rule is `block`.
    /// Throws `error`: closed, full (rule reject, or drop_oldest with every message held), too_large, rejected, invalid.
    /// A duplicate: the offset of the original. Dropped by drop_newest: no_offset. Cost: no lock, no allocation but one block in 32 messages.
    offset send(T&& value) { return to().send(value); }
    offset send(const T& value) requires std::copy_constructible<T> { return to().send_copy(value); }
    offset send(T value, properties props) { return to().send(value, &props, stop_token()); }
    /// The same, until stopped: errc::full.
    offset send(T value, properties props, stop_token stop) { return to().send(value, &props, stop); }

    /// The same, waiting at most `limit`: errc::timed_out. Moves from `value` only on success. Throws nothing of the above.
    result<offset> send_for(duration limit, T&& value) { return to().send_until(until(limit), value, nullptr); }
    result<offset> send_for(duration limit, T&& value, properties props) { return to().send_until(until(limit), value, &props); }
    result<offset> send_for(duration limit, const T& value) requires std::copy_constructible<T> { return send_for(limit, T(value)); }
    result<offset> send_for(duration limit, const T& value, properties props) requires std::copy_constructible<T> {
        return send_for(limit, T(value), std::move(props));
    }

    /// The same, never waiting.
    result<offset> try_send(T&& value) { return to().try_send(value, nullptr); }
    result<offset> try_send(T&& value, properties props) { return to().try_send(value, &props); }
    result<offset> try_send(const T& value) requires std::copy_constructible<T> { return try_send(T(value)); }
    result<offset> try_send(const T& value, properties props) requires std::copy_constructible<T> { return try_send(T(value), std::move(props)); }

    /// `send` of a T made from `args`.
    template <class... Args>
    requires std::constructible_from<T, Args...> offset emplace(Args&&... args) { return send(T(std::forward<Args>(args)...)); }

    /// `send`, its outcome in a receipt. In memory it is known when this returns; it waits for room as `send` does. Throws std::bad_alloc only.
    receipt send_async(T value) { return to().template send_async<receipt>(value, nullptr, same); }
    receipt send_async(T value, properties props) { return to().template send_async<receipt>(value, &props, same); }

    /// Appends all of a range in a row, or none; moves from an rvalue range that owns its elements. Returns the first offset: the others
    /// follow. Throws as `send`; more than max_messages at once: errc::too_large. An empty range: the next offset.
    template <detail::range_of<T> Range>
    offset send_many(Range&& range) {
        return to().send_many(std::forward<Range>(range));
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
        void operator()(detail::memory_core<T>* core) const noexcept { core->handle_gone(); }
    };

    static offset same(offset o) noexcept { return o; }
    static detail::memory_core<T>* make(const queue_options<T>& o) {
        detail::check_options(o);
        return new detail::memory_core<T>(o);
    }

    detail::sending<T, detail::memory_core<T>, detail::memory_core<T>> to() noexcept { return {*core_, *core_}; }
    duration until(duration limit) const noexcept { return detail::deadline_after(core_->time(), limit); }
    detail::memory_core<T>& inlet() const noexcept { return *core_; }

    std::unique_ptr<detail::memory_core<T>, abandoning> core_;
};

} // namespace mailroom
