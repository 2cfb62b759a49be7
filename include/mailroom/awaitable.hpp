// co_await q.next(): receiving in a coroutine. No thread belongs to it.
//
// A coroutine that finds nothing is resumed by whoever makes something available: inside that call, after all else it does, or on the
// executor that `on` names. What becomes due by time alone is noticed when somebody next calls in, or with the help of a timer
// (`mailroom/asio.hpp`), or of a clock that is advanced by hand.
//
// Phases: a waiter is announced while `arming`; who wakes it then only leaves word (`fired`) and the coroutine, still running, looks again.
// Once it is `armed` it is suspended, belongs to whoever wakes it, and is not touched by `await_suspend` any more.
#pragma once

#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/store/source.hpp>

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <optional>
#include <utility>

namespace mailroom {

namespace detail {

/// Waits for one delivery without a thread: calls `done` once it has one, or never will. The common part of coroutines and callbacks.
template <class T>
class pending_receive : private waiter, private trampoline::task {
public:
    using done_fn = void (*)(pending_receive&) noexcept;

    pending_receive(source<T>& from, stop_token stop, executor where, done_fn done)
        : waiter(&pending_receive::fired), from_(from), stop_(std::move(stop)), executor_(std::move(where)), done_(done) {
        trampoline::task::run = &pending_receive::resume;
    }
    pending_receive(const pending_receive&) = delete;
    pending_receive& operator=(const pending_receive&) = delete;
    ~pending_receive() {
        on_stop_.reset();
        if (phase_.load(std::memory_order_acquire) == armed) { from_->leave(*this); } // a coroutine destroyed while suspended
    }

    /// True: the outcome is known. Never waits.
    bool try_now() {
        result_ = from_->take_one();
        return result_.has_value() || stop_.stop_requested() || from_->look_ahead() == outlook::finished;
    }

    /// False: the outcome is known. True: `done` will be called, perhaps before this returns; do not touch this object any more.
    bool start() {
        if (stop_.stop_possible() && !on_stop_) { on_stop_.emplace(stop_, stopped{this}); }
        for (;;) {
            phase_.store(arming, std::memory_order_relaxed);
            from_->join(*this);
            const bool look = from_->may_have() || stop_.stop_requested() || from_->look_ahead() != outlook::wait;
            if (!look) {
                std::uint32_t expected = arming;
                if (phase_.compare_exchange_strong(expected, armed, std::memory_order_acq_rel)) { return true; }
            } else if (!from_->leave(*this)) {
                while (phase_.load(std::memory_order_acquire) != was_fired) { from_->time().relax(0); }
            }
            phase_.store(idle, std::memory_order_relaxed);
            if (try_now()) { return false; }
        }
    }

    std::optional<delivery<T>> take() { return std::move(result_); }
    source<T>& from() const noexcept { return *from_; }
    void resume_on(executor where) { executor_ = std::move(where); }

private:
    enum phases : std::uint32_t { idle, arming, armed, was_fired };

    struct stopped {
        pending_receive* self;
        void operator()() const noexcept {
            if (self->from_->leave(*self)) { fired(*self); }
        }
    };

    static void fired(waiter& w) noexcept {
        auto& self = static_cast<pending_receive&>(w);
        if (self.phase_.exchange(was_fired, std::memory_order_acq_rel) != armed) { return; } // it looks by itself
        if (self.executor_) {
            try {
                self.executor_([&self] { resume(self); });
                return;
            } catch (...) { // the executor did not take it: here, then
            }
        }
        trampoline::schedule(self);
    }
    static void resume(trampoline::task& t) noexcept {
        auto& self = static_cast<pending_receive&>(t);
        bool known = true;
        try {
            known = self.try_now() || !self.start();
        } catch (...) { // no memory to receive with: the coroutine sees nothing, the message stays
        }
        if (known) { self.done_(self); }
    }

    source_ref<T> from_;
    stop_token stop_;
    executor executor_;
    done_fn done_;
    std::optional<delivery<T>> result_;
    std::atomic<std::uint32_t> phase_{idle};
    std::optional<stop_callback<stopped>> on_stop_;
};

} // namespace detail

/// What `next()` gives: `co_await` it for `std::optional<delivery<T>>`; nullopt: stopped, or closed with nothing left.
/// Valid as long as its endpoint. Cost while there are messages: that of `try_receive`, no allocation.
template <class T>
class awaitable {
public:
    awaitable(detail::source<T>& from, stop_token stop) : from_(&from), stop_(std::move(stop)) {}

    /// Resumes on `where` instead of on the thread that made a message available.
    [[nodiscard]] awaitable on(executor where) const {
        awaitable there(*this);
        there.executor_ = std::move(where);
        return there;
    }

    /// Lives in the coroutine while it waits. As with any awaiter: a suspended coroutine may be destroyed only when nobody can be about
    /// to resume it; stop it first, by its token.
    class awaiter {
    public:
        explicit awaiter(const awaitable& a) : pending_(*a.from_, a.stop_, a.executor_, &awaiter::finish) {}
        awaiter(const awaiter&) = delete;
        awaiter& operator=(const awaiter&) = delete;

        bool await_ready() { return pending_.try_now(); }
        bool await_suspend(std::coroutine_handle<> waiting) {
            pending_.waiting = waiting;
            return pending_.start();
        }
        std::optional<delivery<T>> await_resume() { return pending_.take(); }

    private:
        struct resumable : detail::pending_receive<T> {
            using detail::pending_receive<T>::pending_receive;
            std::coroutine_handle<> waiting;
        };
        static void finish(detail::pending_receive<T>& p) noexcept { static_cast<resumable&>(p).waiting.resume(); }

        resumable pending_;
    };
    awaiter operator co_await() const { return awaiter(*this); }

private:
    detail::source<T>* from_;
    stop_token stop_;
    executor executor_;
};

} // namespace mailroom
