// A receipt: the outcome of something that may take a while to become durable. In memory it is there at once.
// A receipt is a value of one thread at a time.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>

#include <coroutine>
#include <utility>

namespace mailroom {

/// What `send_async` and `ack_async` answer. Discarding it does not undo the send.
template <class Value>
class basic_receipt {
public:
    /// A receipt whose outcome is known.
    explicit basic_receipt(result<Value> outcome) : outcome_(std::move(outcome)) {}

    /// Whether `wait` would return at once.
    [[nodiscard]] bool ready() const noexcept { return true; }

    /// Waits for the outcome. Throws `mailroom::error` when it is a failure.
    const Value& wait() const { return outcome_.value(); }

    /// Calls `fn(result<Value>)` when the outcome is known: in this call if it is known already. `fn` runs without any library lock.
    template <class Fn>
    void then(Fn&& fn) const {
        std::forward<Fn>(fn)(outcome_);
    }

    /// `co_await receipt`: the value, or the failure thrown.
    bool await_ready() const noexcept { return ready(); }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    Value await_resume() const { return wait(); }

private:
    result<Value> outcome_;
};

/// The receipt of an offset.
using receipt = basic_receipt<offset>;

} // namespace mailroom
