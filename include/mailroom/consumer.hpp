// consumer: calls a handler for each message, on threads of its own or on an executor's. How it works: consuming/engine.hpp.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/consume_options.hpp>
#include <mailroom/consuming/engine.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/store/source.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace mailroom {

namespace detail {
struct consumer_access;
}

/// A handler at work. Destroying it takes no more, waits for running handlers, and releases what no handler has started: that goes back to
/// its place, its attempts unchanged. It does not wait for deliveries that a handler has moved elsewhere; those outlive it and stay valid.
/// It may outlive its queue (then it idles), not its queue's clock or its executor.
///
/// Its threads: those of `threads()`, none with an executor; and at most one more, the keeper, which waits for instants and, unless the executor
/// runs handlers on the spot, runs none. It exists until the consumer stops, from the first moment at which
///   - a message was taken from a source that has leases: they are renewed; or
///   - `max_per_second` holds a handler back; or
///   - nothing can be taken, but the source holds what time alone brings: delayed, to be retried, or leased and perhaps to be lost; or
///   - what failed is tried again in a moment: an executor that threw, a take without memory; or
///   - own threads are all busy and fewer than `concurrency.max`: a sender may have it start another; or
///   - it has own threads, and in this process, by the same clock, somebody waits without a thread for an answer with a time limit (request.hpp).
/// So with an executor, and without leases, delays, retries and a rate limit that is reached, there is no thread.
///
/// Threads: every member may be called from any thread, the handler's own included; destruction and moves as for any object.
class consumer {
public:
    /// One that does nothing.
    consumer() noexcept = default;
    consumer(consumer&&) noexcept = default;
    consumer& operator=(consumer&& other) noexcept {
        if (this != &other) {
            finish();
            core_ = std::move(other.core_);
        }
        return *this;
    }
    /// In its own handler: does not wait for that handler, which runs to its end.
    ~consumer() { finish(); }

    /// Takes no more and releases what no handler has started. Does not wait for running handlers.
    void stop() noexcept {
        if (core_ != nullptr) { core_->stop(); }
    }
    /// Stops, then waits at most `limit` until its handlers are done and all it took is settled or back. True if so; in its own handler:
    /// false at once. A delivery that a handler has moved elsewhere is waited for until its holder settles or destroys it, even if its lease
    /// ran out and others have the message. Who holds one himself and gives no limit waits for ever. Further consumers of the queue, and what
    /// they hold, do not matter.
    bool drain(duration limit) noexcept { return core_ == nullptr || core_->drain(limit); }
    /// Whether it takes messages: neither stopped nor drained.
    bool running() const noexcept { return core_ != nullptr && core_->running(); }
    /// How many threads of its own it has for handlers; with an executor: 0.
    int threads() const noexcept { return core_ != nullptr ? core_->threads() : 0; }

private:
    friend struct detail::consumer_access;
    explicit consumer(std::shared_ptr<detail::consumer_core> core) noexcept : core_(std::move(core)) {}
    void finish() noexcept {
        if (core_ != nullptr) { core_->finish(); }
        core_.reset();
    }

    std::shared_ptr<detail::consumer_core> core_;
};

namespace detail {

struct consumer_access {
    static consumer make(std::shared_ptr<consumer_core> core) noexcept { return consumer(std::move(core)); }
};

/// How a handler wants its messages.
enum class handler_kind { none, body, body_and_properties, delivery };

template <class T, class Handler>
constexpr handler_kind kind_of_handler() noexcept {
    if constexpr (std::is_invocable_v<Handler&, const T&>) {
        return handler_kind::body;
    } else if constexpr (std::is_invocable_v<Handler&, const T&, const properties&>) {
        return handler_kind::body_and_properties;
    } else if constexpr (std::is_invocable_v<Handler&, delivery<T>>) {
        return handler_kind::delivery;
    } else {
        return handler_kind::none;
    }
}

/// A function pointer or std::function may be empty.
template <class Handler>
bool is_empty_handler(const Handler&) noexcept {
    return false;
}
template <class Result, class... Args>
bool is_empty_handler(Result (*const& f)(Args...)) noexcept {
    return f == nullptr;
}
template <class Signature>
bool is_empty_handler(const std::function<Signature>& f) noexcept {
    return f == nullptr;
}

template <class T, class Handler>
class engine_with final : public engine<T> {
public:
    engine_with(source<T>& from, Handler&& handler, consume_options&& o) : engine<T>(from, std::move(o)), handler_(std::move(handler)) {}

private:
    void handle(std::optional<delivery<T>>& message) override {
        constexpr handler_kind kind = kind_of_handler<T, Handler>();
        if constexpr (kind == handler_kind::body) {
            static_cast<void>(std::invoke(*handler_, std::as_const(*message).body()));
        } else if constexpr (kind == handler_kind::body_and_properties) {
            static_cast<void>(std::invoke(*handler_, std::as_const(*message).body(), std::as_const(*message).props()));
        } else {
            this->entrust(*message);
            static_cast<void>(std::invoke(*handler_, std::move(*message)));
        }
        if constexpr (kind != handler_kind::delivery) { message->ack(); }
    }
    void drop_handler() noexcept override {
        handler_.reset();
        engine<T>::drop_handler();
    }

    std::optional<Handler> handler_; // until nothing runs any more
};

/// A "handler" that only wants to know what it would be called for: how edges find the source behind an endpoint.
template <class T>
struct source_finder {
    source<T>** found;
};

/// What `consume` is. Throws errc::invalid for options outside what is allowed, std::system_error if threads cannot be had.
template <class T, class Handler>
consumer start_consumer(source<T>& from, Handler handler, consume_options options) {
    if constexpr (std::is_same_v<Handler, source_finder<T>>) {
        *handler.found = &from;
        return consumer();
    } else {
        static_assert(kind_of_handler<T, Handler>() != handler_kind::none,
                      "mailroom: a handler of consume() is called with (const T&), with (const T&, const mailroom::properties&), "
                      "or with (mailroom::delivery<T>)");
        check_options(options);
        if (is_empty_handler(handler)) { fail(errc::invalid, "the handler of consume() is an empty function"); }
        auto core = std::make_shared<engine_with<T, Handler>>(from, std::move(handler), std::move(options));
        core->start();
        return consumer_access::make(std::move(core));
    }
}

} // namespace detail
} // namespace mailroom
