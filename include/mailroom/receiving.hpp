// receiving: the verbs of whoever can be received from. A queue and a subscription have the same.
#pragma once

#include <mailroom/awaitable.hpp>
#include <mailroom/base/basics.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/consumer.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/message/properties.hpp>

#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

/// The receiving side of an endpoint. `Self`, which derives from it, has `inlet()`: something with `take`, `pop`, `take_one`, `take_some`,
/// `wait_for_messages` and `time`, and a source<T>. Threads: every member may be called from any thread at once.
template <class T, class Self>
class receiving {
public:
    /// The next message, to be settled by its holder. Waits for one. nullopt: stopped, or closed with nothing ready, parked or in flight.
    /// Cost: no lock and no allocation on the plain path (no delay, priority, key order or retry involved); one lock otherwise.
    std::optional<delivery<T>> receive() { return receive_until(clock::never, stop_token()); }
    std::optional<delivery<T>> receive(stop_token stop) { return receive_until(clock::never, stop); }
    /// The same without waiting, and waiting at most `limit`.
    std::optional<delivery<T>> try_receive() { return core().take_one(); }
    std::optional<delivery<T>> receive_for(duration limit) { return receive_until(detail::deadline_after(core().time(), limit), stop_token()); }
    /// Appends up to `max` deliveries to `out`, waiting at most `wait` for the first. Returns how many.
    std::size_t receive_many(std::vector<delivery<T>>& out, std::size_t max, duration wait = duration::zero()) {
        const duration until = wait > duration::zero() ? detail::deadline_after(core().time(), wait) : duration::min();
        return core().take_some(out, max, until, stop_token());
    }

    /// The next message, acknowledged as it is handed out: at most once for this caller. Otherwise as `receive`.
    std::optional<message<T>> pop() { return pop_until(clock::never, stop_token()); }
    std::optional<message<T>> pop(stop_token stop) { return pop_until(clock::never, stop); }
    std::optional<message<T>> try_pop() {
        std::optional<message<T>> out;
        core().pop(1, [&out](auto&& made) { out.emplace(std::forward<decltype(made)>(made)); });
        return out;
    }
    std::optional<message<T>> pop_for(duration limit) { return pop_until(detail::deadline_after(core().time(), limit), stop_token()); }
    /// Up to `max` messages to `out`, without waiting. Returns how many. Should `out` throw, the message it was given is gone, the others stay.
    template <class OutputIt>
    std::size_t pop_many(OutputIt out, std::size_t max) {
        std::size_t got = 0;
        while (got < max) {
            const std::size_t n = core().pop(max - got, [&out](auto&& made) { *out++ = message<T>(std::forward<decltype(made)>(made)); });
            if (n == 0) { break; }
            got += n;
        }
        return got;
    }

    /// Calls `fn(const T&)`, or `fn(const T&, const properties&)`, for up to `max` messages that are there, without waiting; returns how many.
    /// Each is settled as `fn` is called with it. On a topic this is the cheapest way to read: in place, a batch at a time. Should `fn` throw,
    /// the message it was given is gone, the others stay. It runs without any lock, and may call whatever it likes.
    template <class Fn>
    std::size_t pop_each(Fn fn, std::size_t max) {
        const auto call = [&fn](const T& body, const properties& props) {
            if constexpr (std::is_invocable_v<Fn&, const T&>) {
                static_cast<void>(props);
                fn(body);
            } else {
                fn(body, props);
            }
        };
        std::size_t got = 0;
        while (got < max) {
            const std::size_t n = core().pop_each(max - got, call);
            if (n == 0) { break; }
            got += n;
        }
        return got;
    }

    /// `co_await q.next()`: std::optional<delivery<T>>, as `receive`. Resumed inside the call that made a message available; see awaitable.hpp.
    awaitable<T> next() { return awaitable<T>(core(), stop_token()); }
    awaitable<T> next(stop_token stop) { return awaitable<T>(core(), std::move(stop)); }

    /// Calls `handler` for each message on threads of its own, or an executor's: see consumer.hpp.
    template <class Handler>
    [[nodiscard]] consumer consume(Handler handler) {
        return consume(std::move(handler), consume_options());
    }
    template <class Handler>
    [[nodiscard]] consumer consume(Handler handler, consume_options options) {
        return detail::start_consumer<T>(core(), std::move(handler), std::move(options));
    }

protected:
    receiving() noexcept = default;
    ~receiving() = default;
    receiving(receiving&&) noexcept = default;
    receiving& operator=(receiving&&) noexcept = default;

private:
    auto& core() const noexcept { return static_cast<const Self&>(*this).inlet(); }

    std::optional<delivery<T>> receive_until(duration deadline, const stop_token& stop) {
        std::optional<delivery<T>> out;
        const auto one = [&] { return core().take(1, [&out](const auto& made) { out.emplace(made); }) != 0; };
        core().wait_for_messages(one, deadline, stop);
        return out;
    }
    std::optional<message<T>> pop_until(duration deadline, const stop_token& stop) {
        std::optional<message<T>> out;
        const auto one = [&] { return core().pop(1, [&out](auto&& made) { out.emplace(std::forward<decltype(made)>(made)); }) != 0; };
        core().wait_for_messages(one, deadline, stop);
        return out;
    }
};

} // namespace mailroom
