// answers<Rep>: what `ask.many` gives, several answers to one request.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/request/call_of.hpp>

#include <coroutine>
#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

namespace mailroom {

/// Several answers to one request: what `ask.many` gives. They come one after the other, until the responder has said its last, a number of them was
/// received, or the time is over; what is not received is kept here, without bound. Destroyed before, it tells the responder that nobody waits. May
/// outlive requester and queue, not the queue's clock. A value of one thread at a time.
template <class Rep>
class answers {
public:
    /// The next; waits for it. nullopt: that was all. A failure is the last: what the responder threw, errc::timed_out, errc::closed,
    /// errc::cancelled. Only of several who were asked, through a topic, one may fail before the others have answered.
    std::optional<result<Rep>> receive() {
        if (is_over()) { return std::nullopt; }
        if (!outcome_ && !call_->wait([this]() noexcept { return call_->has_more(); }, call_.deadline())) { call_.time_out(); }
        return next_known();
    }
    /// The same without waiting: nullopt may mean that there is none yet; then `over()` is false.
    std::optional<result<Rep>> try_receive() {
        if (is_over() || !is_known()) { return std::nullopt; }
        return next_known();
    }
    /// Whether nothing more will come.
    [[nodiscard]] bool over() const noexcept { return is_over(); }
    /// Nobody wants more.
    void stop() noexcept {
        outcome_.reset();
        call_.end();
    }

    /// `co_await a.next()`: as `receive`. Resumed as a coroutine that waits for one answer is.
    class awaiter final : private detail::call_waiter {
    public:
        explicit awaiter(answers& a) noexcept : answers_(a) {}
        awaiter(const awaiter&) = delete;
        awaiter& operator=(const awaiter&) = delete;
        ~awaiter() {
            if (hooked_) { answers_.call_->unhook(); }
        }
        bool await_ready() { return answers_.is_over() || answers_.is_known(); }
        bool await_suspend(std::coroutine_handle<> h) noexcept {
            auto& call = answers_.call_;
            suspended = h;
            hooked_ = true;
            call.set_timer();
            // One that came before the hook was there has woken nobody; if its sender, or the next one's, is waking us by now, he does.
            if (call->hook(*this) && !(call->has_more() && call->unhook())) { return true; }
            hooked_ = false;
            return false;
        }
        std::optional<result<Rep>> await_resume() {
            hooked_ = false;
            if (answers_.is_over()) { return std::nullopt; }
            return answers_.next_known();
        }

    private:
        answers& answers_;
        bool hooked_ = false;
    };
    [[nodiscard]] awaiter next() noexcept { return awaiter(*this); }

    /// `for (result<Rep>& r : ask.many(...))`: receives.
    class iterator {
    public:
        using value_type = result<Rep>;
        using difference_type = std::ptrdiff_t;
        using iterator_category = std::input_iterator_tag;
        result<Rep>& operator*() const noexcept { return *of_->current_; }
        result<Rep>* operator->() const noexcept { return &*of_->current_; }
        iterator& operator++() {
            of_->current_ = of_->receive();
            return *this;
        }
        void operator++(int) { ++*this; }
        bool operator==(std::default_sentinel_t) const noexcept { return !of_->current_.has_value(); }

    private:
        friend class answers;
        explicit iterator(answers& of) noexcept : of_(&of) {}
        answers* of_;
    };
    iterator begin() {
        current_ = receive();
        return iterator(*this);
    }
    std::default_sentinel_t end() const noexcept { return {}; }

private:
    template <class, class>
    friend class requester;
    answers(detail::open_call<Rep> c, std::size_t most) noexcept : call_(std::move(c)), left_(most) {}
    explicit answers(failure why) : outcome_(std::move(why)) {}

    bool is_over() const noexcept { return !call_ && !outcome_; }
    bool is_known() {
        if (outcome_ || call_->has_more() || call_->is_done()) { return true; }
        if (call_.deadline() == clock::never || call_->time().now() < call_.deadline()) { return false; }
        call_.time_out();
        return true;
    }
    // One that is there, or the end.
    std::optional<result<Rep>> next_known() {
        if (outcome_) {
            std::optional<result<Rep>> out(std::in_place, std::move(*outcome_));
            outcome_.reset();
            return out;
        }
        if (std::optional<result<Rep>> out = call_->take_more()) {
            if (out->has_value() && --left_ == 0) { call_.conclude(errc{}); }
            return out;
        }
        const failure why = call_->why();
        call_.conclude(why.kind());
        if (why.kind() == errc{}) { return std::nullopt; }
        return std::optional<result<Rep>>(std::in_place, why);
    }

    detail::open_call<Rep> call_;
    std::size_t left_ = 0;
    std::optional<failure> outcome_;
    std::optional<result<Rep>> current_;
};

} // namespace mailroom
