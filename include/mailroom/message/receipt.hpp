// A receipt: the outcome of something that may take a while to become durable. In memory it is there at once; a journal tells when the batch it
// is in has been committed.
// A receipt is a value of one thread at a time.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace mailroom {

namespace detail {

/// What a receipt waits for. Counted: the receipt and whoever completes it each hold one reference. Threads: any.
class pending_outcome {
public:
    pending_outcome(const pending_outcome&) = delete;
    pending_outcome& operator=(const pending_outcome&) = delete;

    void refer() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void unrefer() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) { delete this; }
    }

    virtual bool ready() const noexcept = 0;
    /// Blocks until it is; does the work itself where nobody else is at it.
    virtual void wait() noexcept = 0;
    /// Does the work now unless somebody is at it; answers whether it is ready.
    virtual bool hasten() noexcept = 0;
    /// Valid once it is ready.
    virtual result<offset> outcome() const = 0;
    /// `w` is woken when it is ready. False: it is already.
    virtual bool join(waiter& w) noexcept = 0;

protected:
    pending_outcome() = default;
    virtual ~pending_outcome() = default;

private:
    std::atomic<std::uint32_t> references_{2};
};

} // namespace detail

namespace detail {

/// A counted reference to an outcome, or none.
class outcome_ref {
public:
    outcome_ref() noexcept = default;
    /// Takes over a reference.
    explicit outcome_ref(pending_outcome* p) noexcept : pending_(p) {}
    outcome_ref(const outcome_ref& other) noexcept : pending_(other.pending_) {
        if (pending_ != nullptr) { pending_->refer(); }
    }
    outcome_ref(outcome_ref&& other) noexcept : pending_(std::exchange(other.pending_, nullptr)) {}
    outcome_ref& operator=(outcome_ref other) noexcept {
        std::swap(pending_, other.pending_);
        return *this;
    }
    ~outcome_ref() { reset(); }
    void reset() noexcept {
        if (pending_ != nullptr) { std::exchange(pending_, nullptr)->unrefer(); }
    }
    pending_outcome* operator->() const noexcept { return pending_; }
    pending_outcome& operator*() const noexcept { return *pending_; }
    friend bool operator==(const outcome_ref& r, std::nullptr_t) noexcept { return r.pending_ == nullptr; }

private:
    pending_outcome* pending_ = nullptr;
};

} // namespace detail

/// What `send_async` and `ack_async` answer. Discarding it does not undo the send.
template <class Value>
class basic_receipt {
public:
    /// A receipt whose outcome is known.
    explicit basic_receipt(result<Value> outcome) : outcome_(std::move(outcome)) {}
    /// One that will be: takes over a reference. `read` makes a value of the offset.
    basic_receipt(detail::pending_outcome& pending, Value (*read)(offset)) noexcept : outcome_(errc::in_doubt), pending_(&pending), read_(read) {}

    /// Whether `wait` would return at once.
    [[nodiscard]] bool ready() const noexcept { return pending_ == nullptr || pending_->ready(); }

    /// Waits for the outcome. Throws `mailroom::error` when it is a failure.
    const Value& wait() const {
        if (pending_ != nullptr) {
            pending_->wait();
            settle();
        }
        return outcome_.value();
    }

    /// Calls `fn(result<Value>)` when the outcome is known: in this call if it is known already, else where it becomes known. `fn` runs without
    /// any library lock and may not throw. Nobody waits for a `then`: where nothing else drives the journal, give it a committer.
    template <class Fn>
    void then(Fn&& fn) const {
        if (pending_ != nullptr) {
            using call = callback<std::decay_t<Fn>>;
            auto held = std::make_unique<call>(std::forward<Fn>(fn), *pending_, read_);
            if (pending_->join(*held)) {
                static_cast<void>(held.release()); // it ends itself
                return;
            }
            settle();
            held->fn(outcome_);
            return;
        }
        std::forward<Fn>(fn)(outcome_);
    }

    /// `co_await receipt`: the value, or the failure thrown. Commits in place, as `wait` does, unless somebody is at it; then it suspends.
    auto operator co_await() const noexcept { return awaiter(*this); }

private:
    template <class Fn>
    struct callback final : detail::waiter {
        template <class F>
        callback(F&& f, detail::pending_outcome& p, Value (*r)(offset)) : waiter(&callback::fire), fn(std::forward<F>(f)), pending(p), read(r) {
            pending.refer();
        }
        ~callback() { pending.unrefer(); }
        static void fire(detail::waiter& w) noexcept {
            const std::unique_ptr<callback> self(static_cast<callback*>(&w));
            const result<offset> done = self->pending.outcome();
            self->fn(done ? result<Value>(self->read(*done)) : result<Value>(done.error()));
        }
        Fn fn;
        detail::pending_outcome& pending;
        Value (*read)(offset);
    };

    class awaiter final : private detail::waiter, private detail::trampoline::task {
    public:
        explicit awaiter(const basic_receipt& r) noexcept : waiter(&awaiter::fire), receipt_(r) { run = &awaiter::resume; }
        bool await_ready() const noexcept { return receipt_.pending_ == nullptr || receipt_.pending_->hasten(); }
        bool await_suspend(std::coroutine_handle<> h) noexcept {
            suspended_ = h;
            return receipt_.pending_->join(*this);
        }
        Value await_resume() const { return receipt_.wait(); }

    private:
        static void fire(detail::waiter& w) noexcept { detail::trampoline::schedule(static_cast<awaiter&>(w)); }
        static void resume(detail::trampoline::task& t) noexcept { static_cast<awaiter&>(t).suspended_.resume(); }
        const basic_receipt& receipt_;
        std::coroutine_handle<> suspended_;
    };

    void settle() const {
        const result<offset> done = pending_->outcome();
        outcome_ = done ? result<Value>(read_(*done)) : result<Value>(done.error());
        pending_.reset();
    }

    mutable result<Value> outcome_;
    mutable detail::outcome_ref pending_;
    Value (*read_)(offset) = nullptr;
};

/// The receipt of an offset.
using receipt = basic_receipt<offset>;

} // namespace mailroom
