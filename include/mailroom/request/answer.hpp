// answer<Rep>: what `ask.async` gives. Waits in a thread, a coroutine or a callback.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/request/call_of.hpp>

#include <coroutine>
#include <memory>
#include <optional>
#include <utility>

namespace mailroom {

/// An answer that is on its way: what `ask.async` gives. One of `wait`, `then` and `co_await` takes it, once. Destroyed before, it cancels the
/// request. It may outlive requester and queue (then: errc::closed), not the queue's clock. A value of one thread at a time.
template <class Rep>
class answer {
public:
    /// Whether `wait` would return at once. False too once it was taken.
    [[nodiscard]] bool ready() {
        if (!call_) { return outcome_.has_value(); }
        if (!call_->is_done() && time_is_over()) { call_.time_out(); }
        return call_->is_done();
    }
    /// Blocks until there is an answer, or its time is over: errc::timed_out; other failures as those of a requester.
    result<Rep> wait() {
        if (call_ && !call_->wait(call_.deadline())) { call_.time_out(); }
        return take();
    }
    /// Calls `fn(result<Rep>)` when the outcome is known: in this call if it is known already, else where it becomes known, without any library lock.
    /// It may not throw. What time alone decides is noticed as it is for a coroutine.
    template <class Fn>
    void then(Fn fn) {
        if (ready() || !call_) {
            fn(take());
            return;
        }
        struct callback final : detail::waiter {
            callback(Fn&& f, detail::open_call<Rep>&& c) : waiter(&callback::fire), fn(std::move(f)), call(std::move(c)) {}
            static void fire(detail::waiter& w) noexcept {
                const std::unique_ptr<callback> self(static_cast<callback*>(&w));
                self->fn(self->call.take());
            }
            Fn fn;
            detail::open_call<Rep> call;
        };
        auto held = std::make_unique<callback>(std::move(fn), std::move(call_));
        held->call.set_timer();
        if (held->call->hook(*held)) {
            static_cast<void>(held.release()); // it ends itself
        } else {
            held->fn(held->call.take());
        }
    }
    /// Nobody waits any more; the request is withdrawn. `wait` says errc::cancelled.
    void cancel() {
        if (!call_) { return; }
        call_->fail(errc::cancelled);
        outcome_.emplace(call_.take());
    }

    class awaiter final : private detail::call_waiter {
    public:
        explicit awaiter(answer& a) noexcept : answer_(a) {}
        awaiter(const awaiter&) = delete;
        awaiter& operator=(const awaiter&) = delete;
        ~awaiter() {
            if (hooked_) { answer_.call_->unhook(); } // a coroutine destroyed while suspended
        }
        bool await_ready() { return answer_.ready() || !answer_.call_; }
        bool await_suspend(std::coroutine_handle<> h) noexcept {
            suspended = h;
            hooked_ = true;
            answer_.call_.set_timer();
            if (answer_.call_->hook(*this)) { return true; }
            hooked_ = false;
            return false;
        }
        result<Rep> await_resume() {
            hooked_ = false;
            return answer_.take();
        }

    private:
        answer& answer_;
        bool hooked_ = false;
    };
    /// `co_await`: result<Rep>. The coroutine is resumed by whoever answers, inside that call. That its time is over is noticed in time by any
    /// consumer or responder of this process that has threads of its own and the same clock, by an `asio_timekeeper` (mailroom/asio.hpp), by who
    /// waits for messages of the endpoint, and by a clock advanced by hand; where there is none of these, by whoever next looks into the endpoint and
    /// finds nothing.
    awaiter operator co_await() & noexcept { return awaiter(*this); }
    awaiter operator co_await() && noexcept { return awaiter(*this); }

private:
    template <class, class>
    friend class requester;
    explicit answer(detail::open_call<Rep> c) noexcept : call_(std::move(c)) {}
    explicit answer(failure why) : outcome_(std::move(why)) {}

    bool time_is_over() const noexcept { return call_.deadline() != clock::never && call_->time().now() >= call_.deadline(); }
    result<Rep> take() {
        if (!call_) {
            if (!outcome_) { return errc::not_found; } // taken before
            result<Rep> out = std::move(*outcome_);
            outcome_.reset();
            return out;
        }
        return call_.take();
    }

    detail::open_call<Rep> call_;
    std::optional<result<Rep>> outcome_;
};

} // namespace mailroom
