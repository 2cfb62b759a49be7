// Boost.Asio: receiving as an asynchronous operation, and an io_context as the place where handlers and coroutines run.
//
// Needs Boost 1.81 or later (headers only). Not included by anything else of the library. No thread belongs to it.
//
//   asio::awaitable<void> work(mailroom::queue<Order>& orders) {
//       while (auto d = co_await mailroom::async_receive(orders, asio::use_awaitable)) { fill(**d); d->ack(); }
//   }
//   auto c = orders.consume(fill, {.executor = mailroom::asio_executor(context)});
//
// An operation is a loop on a strand of its own: look into the source, else wait on a timer until the source's next deadline; a wake of the
// source, and a cancellation, only cancel the timer's wait. The wait owns the operation, so a context that is destroyed takes it along.
// While it is in the source's list it is also kept by `keep_`, which whoever takes it out of the list (a wake, a look, `abandon`) lets go of.
#pragma once

#include <mailroom/base/alarms.hpp>
#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consumer.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/store/source.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/wait_traits.hpp>
#include <boost/system/error_code.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

namespace mailroom {

/// Handlers of a consumer, or a coroutine that awaits `next()`, run where this executor, or this context, runs what is posted to it:
/// `consume_options::executor`, `awaitable::on`. Counts as outstanding work: `run()` goes on until the consumer is stopped or destroyed.
/// The context must outlive the consumer, or the consumer be stopped before.
inline executor asio_executor(boost::asio::any_io_executor where) {
    where = boost::asio::prefer(where, boost::asio::execution::outstanding_work.tracked);
    return [where](std::function<void()> task) { boost::asio::post(where, std::move(task)); };
}
template <class Context>
requires std::derived_from<Context, boost::asio::execution_context> executor asio_executor(Context& context) {
    return asio_executor(boost::asio::any_io_executor(context.get_executor()));
}

namespace detail {

/// One asynchronous receive, without its handler.
template <class T>
class asio_receive : public std::enable_shared_from_this<asio_receive<T>>, private waiter {
public:
    asio_receive(source<T>& from, boost::asio::any_io_executor where)
        : waiter(&asio_receive::woken), source_(from), strand_(boost::asio::make_strand(std::move(where))), timer_(strand_) {}
    asio_receive(const asio_receive&) = delete;
    asio_receive& operator=(const asio_receive&) = delete;

    /// Called once, from the initiating function.
    void begin() { post_look(owner(this->shared_from_this())); }
    /// From any thread.
    void cancel() {
        boost::asio::post(strand_, [weak = this->weak_from_this()] {
            if (const auto self = weak.lock()) {
                self->cancelled_ = true;
                self->timer_.cancel();
            }
        });
    }

protected:
    ~asio_receive() = default;
    virtual void complete(boost::system::error_code why, std::optional<delivery<T>> what) = 0;

private:
    using strand_type = boost::asio::strand<boost::asio::any_io_executor>;
    using steady = std::chrono::steady_clock;
    using timer_type = boost::asio::basic_waitable_timer<steady, boost::asio::wait_traits<steady>, strand_type>;

    /// Who holds it decides that the operation goes on; destroyed otherwise (with its context), it takes the operation out of the source.
    class owner {
    public:
        explicit owner(std::shared_ptr<asio_receive> op) noexcept : op_(std::move(op)) {}
        owner(owner&&) noexcept = default;
        owner& operator=(owner&&) = delete;
        ~owner() {
            if (op_ != nullptr) { op_->abandon(); }
        }
        asio_receive& operator*() const noexcept { return *op_; }
        void dismiss() noexcept { op_.reset(); }

    private:
        std::shared_ptr<asio_receive> op_;
    };

    static void post_look(owner self) {
        auto& op = *self;
        boost::asio::post(op.strand_, [self = std::move(self)]() mutable { look(std::move(self)); });
    }

    // On the strand.
    static void look(owner self) {
        asio_receive& op = *self;
        for (unsigned round = 0;;) {
            op.leave();
            std::optional<delivery<T>> got = op.source_->take_one(); // a stop comes second: a wake that was meant for us is not lost
            if (got || op.cancelled_) { return finish(std::move(self), std::move(got)); }
            switch (op.source_->look_ahead()) {
            case outlook::finished: return finish(std::move(self), std::nullopt);
            case outlook::again: op.source_->time().relax(round++); continue;
            case outlook::wait: break;
            }
            op.join();
            if (!op.source_->may_have() && op.source_->look_ahead() == outlook::wait) { break; }
        }
        const duration due = op.source_->next_due();
        if (due == clock::never) {
            op.timer_.expires_at(steady::time_point::max());
        } else {
            constexpr duration at_most = std::chrono::hours(24); // far from what a time_point can hold
            op.timer_.expires_after(std::clamp(due - op.source_->time().now(), duration::zero(), at_most));
        }
        op.timer_.async_wait([self = std::move(self)](boost::system::error_code) mutable { look(std::move(self)); });
    }

    static void finish(owner self, std::optional<delivery<T>> got) {
        const auto op = (*self).shared_from_this();
        self.dismiss();
        op->complete(!got && op->cancelled_ ? make_error_code(boost::asio::error::operation_aborted) : boost::system::error_code(), std::move(got));
    }

    void join() {
        const std::lock_guard lock(mutex_);
        keep_ = this->shared_from_this();
        joined_ = true;
        source_->join(*this);
    }
    /// Out of the list, whoever takes us out. Answers whether a wake was spent on us.
    bool leave() noexcept {
        std::shared_ptr<asio_receive> last; // let go of outside the mutex
        for (unsigned round = 0;; ++round) {
            {
                const std::lock_guard lock(mutex_);
                if (!joined_) { return round != 0; }
                if (round == 0 && source_->leave(*this)) {
                    joined_ = false;
                    last = std::move(keep_);
                    return false;
                }
            }
            source_->time().relax(round); // its wake has begun and ends in a moment
        }
    }
    static void woken(waiter& w) noexcept {
        auto& op = static_cast<asio_receive&>(w);
        std::shared_ptr<asio_receive> self;
        const std::lock_guard lock(op.mutex_); // `abandon` waits for it: the context is there until then
        self = std::move(op.keep_);
        try {
            if (!op.abandoned_) {
                boost::asio::post(op.strand_, [weak = std::weak_ptr<asio_receive>(self)] {
                    if (const auto alive = weak.lock()) { alive->timer_.cancel(); }
                });
            }
        } catch (...) { // no memory for that: the timer's next deadline is when it looks
        }
        op.joined_ = false;
    }
    void abandon() noexcept {
        {
            const std::lock_guard lock(mutex_);
            abandoned_ = true;
        }
        if (leave()) {
            try {
                if (auto d = source_->take_one()) { d->release(); } // somebody else is to be woken
            } catch (...) {}
        }
    }

    source_ref<T> source_;
    strand_type strand_;
    timer_type timer_;
    bool cancelled_ = false; // on the strand
    std::mutex mutex_;       // never held by a thread that takes, settles or runs anything foreign
    bool joined_ = false;
    bool abandoned_ = false;
    std::shared_ptr<asio_receive> keep_;
};

template <class T, class Handler>
class asio_receive_with final : public asio_receive<T> {
public:
    asio_receive_with(source<T>& from, boost::asio::any_io_executor where, Handler&& handler)
        : asio_receive<T>(from, where), handler_(std::move(handler)), where_(boost::asio::get_associated_executor(handler_, where)), work_(where_) {}

    void watch_for_cancellation() {
        auto slot = boost::asio::get_associated_cancellation_slot(handler_);
        if (!slot.is_connected()) { return; }
        slot.assign([weak = this->weak_from_this()](boost::asio::cancellation_type type) {
            constexpr auto any =
                boost::asio::cancellation_type::terminal | boost::asio::cancellation_type::partial | boost::asio::cancellation_type::total;
            if ((type & any) == boost::asio::cancellation_type::none) { return; }
            if (const auto self = weak.lock()) { self->cancel(); }
        });
    }

private:
    using executor_type = boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>;

    void complete(boost::system::error_code why, std::optional<delivery<T>> what) override {
        const auto work = std::move(work_);
        boost::asio::dispatch(where_, [handler = std::move(handler_), why, what = std::move(what)]() mutable {
            auto slot = boost::asio::get_associated_cancellation_slot(handler);
            if (slot.is_connected()) { slot.clear(); }
            std::move(handler)(why, std::move(what));
        });
    }

    Handler handler_;
    executor_type where_;
    boost::asio::executor_work_guard<executor_type> work_;
};

/// A timer that looks at instants nobody waits for: base/alarms.hpp.
class asio_alarms final : public std::enable_shared_from_this<asio_alarms>, private alarm_keeper {
public:
    asio_alarms(boost::asio::any_io_executor where, clock& c) : clock_(c), strand_(boost::asio::make_strand(std::move(where))), timer_(strand_) {}
    void begin() { alarms().come(*this, clock_); }
    void end() noexcept {
        alarms().go(*this);
        try {
            boost::asio::post(strand_, [self = this->shared_from_this()] { self->timer_.cancel(); });
        } catch (...) { // no memory for that: the timer finds nobody when it fires
        }
    }

private:
    using strand_type = boost::asio::strand<boost::asio::any_io_executor>;
    using steady = std::chrono::steady_clock;
    using timer_type = boost::asio::basic_waitable_timer<steady, boost::asio::wait_traits<steady>, strand_type>;

    void alarm_at(duration instant) noexcept override {
        try {
            boost::asio::post(strand_, [weak = this->weak_from_this(), instant] {
                if (const auto self = weak.lock()) { self->look_at(instant); }
            });
        } catch (...) { // no memory: at the next that is announced
        }
    }
    // On the strand.
    void look_at(duration instant) {
        if (instant >= planned_) { return; }
        constexpr duration at_most = std::chrono::hours(24); // far from what a time_point can hold
        planned_ = instant;
        timer_.expires_after(std::clamp(instant - clock_.now(), duration::zero(), at_most));
        timer_.async_wait([weak = this->weak_from_this()](boost::system::error_code why) {
            const auto self = why ? nullptr : weak.lock();
            if (self == nullptr) { return; }
            self->planned_ = clock::never;
            const duration next = alarms().ring(self->clock_, self->clock_.now());
            if (next != clock::never) { self->look_at(next); }
        });
    }

    clock& clock_;
    strand_type strand_;
    timer_type timer_;
    duration planned_ = clock::never;
};

/// The source behind an endpoint.
template <class Endpoint>
source<typename Endpoint::value_type>& source_behind(Endpoint& e) {
    source<typename Endpoint::value_type>* found = nullptr;
    static_cast<void>(e.consume(source_finder<typename Endpoint::value_type>{&found}));
    return *found;
}

} // namespace detail

/// Receives one message from a queue. Completes with `void(boost::system::error_code, std::optional<delivery<T>>)`: a delivery; or nullopt,
/// once the queue is closed with nothing left; or nullopt with `operation_aborted`, cancelled by the token's cancellation slot (all types).
/// Works with every completion token. Messages that become due by time alone arrive without anybody calling in. The queue may be destroyed
/// meanwhile (nullopt). Runs on the handler's associated executor, or else on `where`; without one, on Asio's system executor, which has
/// threads. Cost: one allocation, and a timer.
template <class Endpoint, class CompletionToken>
auto async_receive(boost::asio::any_io_executor where, Endpoint& endpoint, CompletionToken&& token) {
    using T = typename Endpoint::value_type;
    using signature = void(boost::system::error_code, std::optional<delivery<T>>);
    return boost::asio::async_initiate<CompletionToken, signature>(
        [where](auto handler, auto from) {
            using handler_type = decltype(handler);
            const boost::asio::any_io_executor loop = boost::asio::get_associated_executor(handler, where);
            auto op = std::make_shared<detail::asio_receive_with<T, handler_type>>(**from, loop, std::move(handler));
            op->watch_for_cancellation();
            op->begin();
        },
        token, std::make_shared<detail::source_ref<T>>(detail::source_behind(endpoint)));
}
template <class Endpoint, class CompletionToken>
requires requires { typename Endpoint::value_type; }
auto async_receive(Endpoint& endpoint, CompletionToken&& token) {
    return async_receive(boost::asio::any_io_executor(boost::asio::system_executor()), endpoint, std::forward<CompletionToken>(token));
}
template <class Context, class Endpoint, class CompletionToken>
requires std::derived_from<Context, boost::asio::execution_context>
auto async_receive(Context& context, Endpoint& endpoint, CompletionToken&& token) {
    return async_receive(boost::asio::any_io_executor(context.get_executor()), endpoint, std::forward<CompletionToken>(token));
}

/// As long as it is there, an executor, or a context, sees to it that whoever waits for an answer in a coroutine or by `then` (request.hpp) learns in
/// time that his time is over, where no consumer with threads is there to do so: of all requesters of this process whose queues or topics use this
/// clock. They are resumed on it then. No thread; a timer, which counts as outstanding work from when such a wait begins until its time is over, or
/// this is destroyed. The context must outlive it. A value of one thread; destroyed in any.
class asio_timekeeper {
public:
    explicit asio_timekeeper(boost::asio::any_io_executor where, clock& of = system_clock())
        : alarms_(std::make_shared<detail::asio_alarms>(std::move(where), of)) {
        alarms_->begin();
    }
    template <class Context>
    requires std::derived_from<Context, boost::asio::execution_context>
    explicit asio_timekeeper(Context& context, clock& of = system_clock())
        : asio_timekeeper(boost::asio::any_io_executor(context.get_executor()), of) {}
    asio_timekeeper(const asio_timekeeper&) = delete;
    asio_timekeeper& operator=(const asio_timekeeper&) = delete;
    ~asio_timekeeper() { alarms_->end(); }

private:
    std::shared_ptr<detail::asio_alarms> alarms_;
};

} // namespace mailroom
