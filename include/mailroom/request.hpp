// requester and responder: a question sent through a queue, and its answer back to the one who asked.
//
//     mailroom::queue<question> questions;
//     mailroom::responder<question, answer> serve{questions, [](const question& q) { return think_about(q); }};
//     mailroom::requester<question, answer> ask{questions};
//     mailroom::result<answer> a = ask(question{42}, 2s);     // errc::timed_out after two seconds
//
// The queue is any queue<Req> in memory or in a journal, with all its options; requests are messages in it. Many requesters and many responders
// may share one; each request goes to one responder. What a responder's function throws travels back. `ask.async` waits in a coroutine, a callback
// or later; `ask.many` takes several answers to one request.
//
// A requester has no thread: who waits takes his own answer. A responder is a consumer, with its threads. How they meet, and why that is right:
// store/rendezvous.hpp.
//
// What becomes of a request whose caller no longer waits: it is taken out of the queue if nobody has it, and skipped by a responder that has it but has
// not begun. One that is stored has a time to live besides, as long as its caller waits, so that it is not answered after a crash when its time is
// over; such requests are dropped when they expire, and are never among the dead letters. A stored request whose requester is of an earlier process
// is answered, and the answer dropped and counted.
//
// Delivery is at least once, as for every message: a responder that loses its lease, or its process, may have begun a request that another one
// is given. The first answer counts.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/type_name.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consumer.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/store/rendezvous.hpp>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mailroom {

/// What a requester ever did.
struct request_stats {
    std::uint64_t asked = 0;     ///< requests
    std::uint64_t answered = 0;  ///< of those, with a value
    std::uint64_t failed = 0;    ///< with a failure of the responder, the queue, or because the caller was told to stop
    std::uint64_t timed_out = 0; ///< without an answer in time
    std::uint64_t late = 0;      ///< answers that nobody waited for any more, or that were one too many: dropped
};

/// What a responder ever did.
struct response_stats {
    std::uint64_t answered = 0;  ///< requests its function was called for, and returned
    std::uint64_t failed = 0;    ///< and threw
    std::uint64_t skipped = 0;   ///< requests it was not called for, because nobody waited any more, or for an answer of another type
    std::uint64_t unclaimed = 0; ///< answers that were dropped: too late, one too many, or their requester is of an earlier process
};

namespace detail {

/// A call whose answers are `Rep`. The call's state says to whom `value_` and `why_` belong; `more_` has a mutex, because it may be read meanwhile.
template <class Rep>
class call_of final : public call {
public:
    /// Several answers are wanted. Before `open`; throws std::bad_alloc.
    void expect_many() {
        more_ = std::make_unique<answers_in>();
        this->take_several();
    }

    /// An answer. False: nobody waits. `complete`: there may be no other.
    bool give(Rep&& value, bool& complete) {
        std::uint32_t before = 0;
        complete = true;
        if (!claim(before)) { return false; }
        if constexpr (is_small) {
            if (!this->takes_several()) {
                std::construct_at(small_value(), std::move(value));
                finish(before);
                return true;
            }
        }
        try {
            if (this->takes_several()) {
                const std::lock_guard lock(more_->mutex);
                more_->waiting.emplace_back(std::move(value));
            } else {
                value_.emplace(std::move(value));
            }
        } catch (...) { // of a T that cannot be moved, or no memory
            why_ = failure(errc::failed);
            finish(before);
            return false;
        }
        if (this->takes_several()) {
            complete = false;
            go_on(before);
        } else {
            finish(before);
        }
        return true;
    }
    /// There are no further answers. For one that had none, that is a failure.
    void end() noexcept {
        std::uint32_t before = 0;
        if (!claim(before)) { return; }
        if (!this->takes_several()) { why_ = failure(errc::failed); }
        finish(before);
    }

    /// Once it is done: the answer.
    result<Rep> take() {
        if (why().kind() != errc{}) [[unlikely]] { return result<Rep>(why()); }
        if constexpr (is_small) {
            return result<Rep>(std::move(*small_value()));
        } else {
            return result<Rep>(std::move(*value_));
        }
    }
    /// Asks for the line where the answer will be, before the caller looks at the call's state once more.
    void expect_answer() const noexcept {
        if constexpr (!is_small) { __builtin_prefetch(&why_, 1); }
    }
    bool has_more() noexcept {
        const std::lock_guard lock(more_->mutex);
        return !more_->waiting.empty();
    }
    std::optional<Rep> take_more() {
        const std::lock_guard lock(more_->mutex);
        std::optional<Rep> out;
        if (!more_->waiting.empty()) {
            out.emplace(std::move(more_->waiting.front()));
            more_->waiting.pop_front();
        }
        return out;
    }
    void through() noexcept {
        if constexpr (!std::is_trivially_destructible_v<Rep>) { value_.reset(); }
        if (more_ != nullptr) { more_.reset(); }
        this->close();
    }

private:
    struct answers_in {
        std::mutex mutex;
        std::deque<Rep> waiting;
    };
    static constexpr bool is_small = std::is_trivially_copyable_v<Rep> && sizeof(Rep) <= call::small && alignof(Rep) <= 8;
    Rep* small_value() noexcept { return std::launder(reinterpret_cast<Rep*>(this->small_)); }

    std::optional<Rep> value_;
    std::unique_ptr<answers_in> more_;

public:
    bool is_dressed = false; // its envelope carries more than it has to
};

template <class Rep>
class desk_of final : public desk {
public:
    desk_of(clock& c, std::uint64_t address, source_base& home, cursor& from, alarm ring) : desk(c, type_name_v<Rep>, address, home, from, ring) {}

    call_of<Rep>& take() { return static_cast<call_of<Rep>&>(desk::take()); }

private:
    call* at(std::size_t i) const noexcept override {
        const std::size_t chunk = chunk_of(i);
        return &chunks_[chunk][i - start_of(chunk)];
    }
    std::size_t make_chunk(std::size_t chunk) override {
        chunks_[chunk] = std::make_unique<call_of<Rep>[]>(first_chunk << chunk);
        return first_chunk << chunk;
    }
    std::array<std::unique_ptr<call_of<Rep>[]>, most_chunks> chunks_;
};

/// A call that its caller is through with at the end of this, whatever happens.
template <class Rep>
class open_call {
public:
    open_call() noexcept = default;
    explicit open_call(call_of<Rep>& c) noexcept : call_(&c) {}
    open_call(open_call&& other) noexcept
        : call_(std::exchange(other.call_, nullptr)), deadline_(other.deadline_), timed_(other.timed_), on_stop_(std::move(other.on_stop_)) {}
    open_call& operator=(open_call&& other) noexcept {
        if (this != &other) {
            end();
            call_ = std::exchange(other.call_, nullptr);
            deadline_ = other.deadline_;
            timed_ = other.timed_;
            on_stop_ = std::move(other.on_stop_);
        }
        return *this;
    }
    ~open_call() { end(); }

    call_of<Rep>* operator->() const noexcept { return call_; }
    call_of<Rep>& operator*() const noexcept { return *call_; }
    explicit operator bool() const noexcept { return call_ != nullptr; }

    void set_deadline(duration d) noexcept { deadline_ = d; }
    duration deadline() const noexcept { return deadline_; }
    /// From now on a stop is an answer.
    void stop_by(const stop_token& stop) {
        if (stop.stop_possible()) { on_stop_ = std::make_unique<stop_callback<cancelling>>(stop, cancelling{call_}); }
    }
    void set_timer() noexcept {
        if (timed_) { return; }
        timed_ = true;
        call_->at().set_timer(*call_, deadline_);
    }
    /// Its time is over.
    void time_out() noexcept {
        call* const c = call_;
        if (c->fail(errc::timed_out)) { c->at().withdraw(c->place()); }
    }
    /// Once it is done: the answer, or why there is none.
    result<Rep> take() {
        result<Rep> out = call_->take();
        conclude(out ? errc{} : out.error().kind());
        return out;
    }
    /// The caller is through, and this became of it; errc{}: it was answered.
    void conclude(errc what) noexcept {
        call_->note_outcome(what == errc{}, what);
        if (what == errc::cancelled && !call_->why().travelled()) { call_->at().withdraw(call_->place()); }
        end();
    }
    void end() noexcept {
        if (call_ == nullptr) { return; }
        on_stop_.reset();
        if (call_->abandon()) { call_->at().withdraw(call_->place()); }
        if (timed_) { call_->at().unwatch(*call_); }
        std::exchange(call_, nullptr)->through();
    }

private:
    struct cancelling {
        call* of;
        void operator()() const noexcept { of->fail(errc::cancelled); }
    };
    call_of<Rep>* call_ = nullptr;
    duration deadline_ = clock::never;
    bool timed_ = false;
    std::unique_ptr<stop_callback<cancelling>> on_stop_;
};

/// A coroutine that waits for a call: `fire` and `resume` as for every waiter.
class call_waiter : public waiter, private trampoline::task {
public:
    call_waiter() noexcept : waiter(&call_waiter::fired) { run = &call_waiter::resume; }
    std::coroutine_handle<> suspended;

protected:
    ~call_waiter() = default;

private:
    static void fired(waiter& w) noexcept { trampoline::schedule(static_cast<call_waiter&>(w)); }
    static void resume(trampoline::task& t) noexcept { static_cast<call_waiter&>(t).suspended.resume(); }
};

} // namespace detail

/// An answer that is on its way: what `ask.async` gives. One of `wait`, `then` and `co_await` takes it, once. Destroyed before, it cancels the request.
/// It may outlive requester and queue (then: errc::closed), not the queue's clock. A value of one thread at a time.
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
    /// `co_await`: result<Rep>. The coroutine is resumed by whoever answers, inside that call. That its time is over is noticed by a consumer of the
    /// queue that waits, by whoever next looks into an empty queue, or by a clock advanced by hand.
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

/// Several answers to one request: what `ask.many` gives. They come one after the other, until the responder has said its last, a number of them was
/// received, or the time is over; what is not received is kept here, without bound. Destroyed before, it tells the responder that nobody waits. May
/// outlive requester and queue, not the queue's clock. A value of one thread at a time.
template <class Rep>
class answers {
public:
    /// The next; waits for it. nullopt: that was all. A failure is the last: what the responder threw, errc::timed_out, errc::closed, errc::cancelled.
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
        if (std::optional<Rep> value = call_->take_more()) {
            std::optional<result<Rep>> out(std::in_place, std::move(*value));
            if (--left_ == 0) { call_.conclude(errc{}); }
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

/// Asks, and gets answers of type `Rep`. Threads: every member may be called from any thread at once, except construction, destruction and moves; calls
/// that are out when it is destroyed are answered with errc::closed, and touch it no more.
template <class Req, class Rep>
class requester {
    static_assert(message_body<Rep>, "mailroom: the answers of requester<Req, Rep> are objects that can be moved: not a reference, not void");

public:
    /// Asks through `requests`, which it may outlive (then: errc::closed). No thread. Throws std::bad_alloc.
    template <class Persistence>
    requires(!detail::is_transient<Persistence>) explicit(false) requester(queue<Req, Persistence>& requests)
        : core_(&detail::endpoint_access::core(requests)) {
        detail::rendezvous& there = core_->meeting_point();
        desk_ = new detail::desk_of<Rep>(core_->time(), there.new_address(this), *core_, core_->state_of_messages(), &requester::ring);
        try {
            there.enter(*desk_);
        } catch (...) {
            desk_->unrefer();
            throw;
        }
        core_->refer();
    }
    requester(requester&& other) noexcept : core_(std::exchange(other.core_, nullptr)), desk_(std::exchange(other.desk_, nullptr)) {}
    requester& operator=(requester&& other) noexcept {
        if (this != &other) {
            close();
            core_ = std::exchange(other.core_, nullptr);
            desk_ = std::exchange(other.desk_, nullptr);
        }
        return *this;
    }
    ~requester() { close(); }

    /// Sends `what` and waits for the answer, at most `limit`. Fails with
    ///   errc::timed_out   there was none in time; the request is withdrawn, and, if a responder has it by then, its answer dropped and counted
    ///   errc::closed      the queue, or this, was closed or destroyed
    ///   errc::cancelled   the stop token said so; the request is withdrawn
    ///   errc::rejected    the request ended without an answer: dropped from the queue, or taken by somebody else than a responder
    ///   errc::type_mismatch   the responder gives answers of another type
    ///   errc::full, too_large, invalid, rejected, ...   as `send` of the queue; a queue that blocks is waited for, at most `limit`
    /// and, with `error().travelled()`, with what the responder's function threw: a mailroom::error's kind and sentence; errc::failed and the `what()` of
    /// any other exception.
    /// `props` go with the request; `reply_to` and `correlation_id` are set here, and where the request is stored `time_to_live`, unless it is given.
    /// In memory: no lock, no allocation but one now and then for more calls at once. Throws std::bad_alloc, and what `validate` throws.
    result<Rep> operator()(Req what, duration limit) { return ask(what, limit, nullptr, stop_token()); }
    result<Rep> operator()(Req what, duration limit, stop_token stop) { return ask(what, limit, nullptr, stop); }
    result<Rep> operator()(Req what, duration limit, properties props) { return ask(what, limit, &props, stop_token()); }
    result<Rep> operator()(Req what, duration limit, properties props, stop_token stop) { return ask(what, limit, &props, stop); }

    /// The same, not waiting for the answer; only for room in the queue, where that blocks, and for the disk, where requests are stored.
    [[nodiscard]] answer<Rep> async(Req what, duration limit) { return begin(what, limit, nullptr, stop_token()); }
    [[nodiscard]] answer<Rep> async(Req what, duration limit, stop_token stop) { return begin(what, limit, nullptr, stop); }
    [[nodiscard]] answer<Rep> async(Req what, duration limit, properties props) { return begin(what, limit, &props, stop_token()); }
    [[nodiscard]] answer<Rep> async(Req what, duration limit, properties props, stop_token stop) { return begin(what, limit, &props, stop); }

    /// The same, for several answers: all that the responder gives within `limit`, `most` at most. Allocates for each answer that waits.
    [[nodiscard]] answers<Rep> many(Req what, duration limit, std::size_t most = std::numeric_limits<std::size_t>::max()) {
        return begin_many(what, limit, most, nullptr, stop_token());
    }
    [[nodiscard]] answers<Rep> many(Req what, duration limit, std::size_t most, stop_token stop) {
        return begin_many(what, limit, most, nullptr, stop);
    }
    [[nodiscard]] answers<Rep> many(Req what, duration limit, std::size_t most, properties props) {
        return begin_many(what, limit, most, &props, stop_token());
    }

    request_stats statistics() const noexcept {
        request_stats s;
        if (desk_ == nullptr) { return s; }
        const detail::call::tally t = desk_->tally();
        s.asked = t.asked;
        s.answered = t.answered;
        s.failed = t.failed;
        s.timed_out = t.timed_out;
        s.late = t.late;
        return s;
    }

    /// Whoever waits gets errc::closed, and so does whoever asks. What is out is withdrawn.
    void close() noexcept {
        if (desk_ == nullptr) { return; }
        core_->meeting_point().leave(*desk_);
        std::exchange(desk_, nullptr)->leave();
        std::exchange(core_, nullptr)->unrefer();
    }

private:
    using call = detail::call_of<Rep>;
    using opened = detail::open_call<Rep>;

    static void ring(detail::source_base& home, duration deadline) noexcept { static_cast<detail::memory_core<Req>&>(home).watch_call(deadline); }

    bool lends() const noexcept { return core_->journal() == nullptr; }
    result<Rep> ask(Req& what, duration limit, properties* props, const stop_token& stop) {
        if (desk_ == nullptr) { return errc::closed; }
        opened c(desk_->take());
        if (failure why = send(c, what, limit, props, stop); why.kind() != errc{}) { return not_sent(c, std::move(why)); }
        // From here on the requester may go: only the call, and its desk, stay.
        c.stop_by(stop);
        if (!c->wait_briefly() && !c->wait(deadline_of(c, limit))) { c.time_out(); }
        return c.take();
    }
    answer<Rep> begin(Req& what, duration limit, properties* props, const stop_token& stop) {
        if (desk_ == nullptr) { return answer<Rep>(failure(errc::closed)); }
        opened c(desk_->take());
        if (failure why = send(c, what, limit, props, stop); why.kind() != errc{}) { return answer<Rep>(not_sent(c, std::move(why))); }
        c.set_deadline(deadline_of(c, limit));
        c.stop_by(stop);
        return answer<Rep>(std::move(c));
    }
    answers<Rep> begin_many(Req& what, duration limit, std::size_t most, properties* props, const stop_token& stop) {
        if (desk_ == nullptr) { return answers<Rep>(failure(errc::closed)); }
        if (most == 0) { return answers<Rep>(failure(errc::invalid, "of no answers none is asked for")); }
        opened c(desk_->take());
        c->expect_many();
        if (failure why = send(c, what, limit, props, stop); why.kind() != errc{}) { return answers<Rep>(not_sent(c, std::move(why))); }
        c.set_deadline(deadline_of(c, limit));
        c.stop_by(stop);
        return answers<Rep>(std::move(c), most);
    }
    static failure not_sent(opened& c, failure why) {
        c.conclude(why.kind());
        return why;
    }

    /// errc{}: the request is on its way, and the deadline known.
    failure send(opened& c, Req& what, duration limit, properties* props, const stop_token& stop) {
        c->open();
        result<offset> place = lends() ? lend(c, what, limit, props, stop) : store(c, what, limit, props, stop);
        if (!place) { return stop.stop_requested() && place.error() == errc::full ? failure(errc::cancelled) : place.error(); }
        if (*place == no_offset) { return failure(errc::full, "the queue is full, and its overflow rule dropped the request"); }
        c->sent_to(*place);
        return errc{};
    }
    // Where it waited for room, or for the disk, its time began before; otherwise now, or a moment ago.
    static duration deadline_of(const opened& c, duration limit) noexcept {
        return c.deadline() != clock::never ? c.deadline() : detail::deadline_after(c->time(), limit);
    }
    // In memory: the call's own envelope goes with the message.
    result<offset> lend(opened& c, Req& what, duration limit, properties* props, const stop_token& stop) {
        detail::envelope& e = c->cover;
        c->lend();
        struct lent {
            call& of;
            std::unique_ptr<detail::envelope> cover;
            ~lent() {
                if (cover.release() != nullptr) { of.end_loan(); }
            }
        } way{*c, std::unique_ptr<detail::envelope>(&e)};
        if (desk_->closed()) { return errc::closed; }
        if (props != nullptr || c->is_dressed) {
            e.props = props != nullptr ? std::move(*props) : properties();
            e.props.reply_to = desk_->name();
            c->is_dressed = props != nullptr;
        }
        detail::write_call_number(e.props.correlation_id, c->number());
        e.due = duration::min();
        e.expires = duration::max();
        if (auto wrong = core_->objection(what, e.props)) { return *std::move(wrong); }
        result<offset> place = core_->try_covered(what, way.cover);
        if (!place && place.error() == errc::full && limit > duration::zero() && core_->blocks()) {
            c.set_deadline(detail::deadline_after(core_->time(), limit));
            place = core_->send_covered(what, way.cover, c.deadline(), stop);
        }
        if (place && *place != no_offset && way.cover != nullptr) {
            return failure(errc::already_exists, "the id of the request is that of an earlier one");
        }
        return place;
    }
    // In a journal: what belongs to the call is said by its properties.
    result<offset> store(opened& c, Req& what, duration limit, properties* props, const stop_token& stop) {
        if (desk_->closed()) { return errc::closed; }
        properties all = props != nullptr ? std::move(*props) : properties();
        all.reply_to = desk_->name();
        detail::write_call_number(all.correlation_id, c->number());
        if (all.time_to_live == duration::zero() && limit != clock::never) { all.time_to_live = std::max(limit, duration(1)); }
        if (auto wrong = core_->objection(what, all)) { return *std::move(wrong); }
        c.set_deadline(detail::deadline_after(core_->time(), limit));
        return core_->send(what, &all, c.deadline(), stop);
    }

    detail::memory_core<Req>* core_;
    detail::desk_of<Rep>* desk_ = nullptr;
};

namespace detail {
template <class Req, class Rep, class Fn>
class responding;
}

/// Where a function that gives several answers puts them: `fn(const Req&, reply<Rep>&)`. Valid until the function returns; then the answers are complete. Who
/// asked for one answer gets the first. Threads: one at a time.
template <class Rep>
class reply {
public:
    reply(const reply&) = delete;
    reply& operator=(const reply&) = delete;

    /// One more. False: nobody waits for it, it was dropped and counted; there is no use in going on.
    bool send(Rep value) {
        if (call_ != nullptr && call_->give(std::move(value), complete_)) { return true; }
        ++unclaimed_;
        if (call_ != nullptr) { call_->note_late(); }
        return false;
    }
    /// Whether anybody waits for more.
    bool wanted() const noexcept { return call_ != nullptr && call_->is_wanted(); }
    /// What the request came with.
    const properties& props() const noexcept { return *props_; }

private:
    template <class, class, class>
    friend class detail::responding;
    reply(detail::call_of<Rep>* c, const properties& p) noexcept : call_(c), props_(&p) {}

    void fail(errc kind, const char* sentence) noexcept {
        bool told = false;
        if (call_ != nullptr) {
            try {
                told = call_->fail(failure(kind, sentence).from_afar());
            } catch (...) { // no memory for the sentence
                told = call_->fail(failure(kind).from_afar());
            }
            if (!told) { call_->note_late(); }
        }
        if (!told) { ++unclaimed_; }
    }

    void end() noexcept {
        if (call_ != nullptr && !complete_) { call_->end(); }
    }

    detail::call_of<Rep>* call_;
    const properties* props_;
    std::uint64_t unclaimed_ = 0;
    bool complete_ = false;
};

namespace detail {

struct response_counters {
    std::atomic<std::uint64_t> answered{0}, failed{0}, skipped{0}, unclaimed{0};
};

/// A responder's consumer.
template <class Req, class Rep, class Fn>
class responding final : public engine<Req> {
    static constexpr bool replies = std::is_invocable_v<Fn&, const Req&, reply<Rep>&>;
    static constexpr bool plain = std::is_invocable_v<Fn&, const Req&>;
    static constexpr bool with_properties = std::is_invocable_v<Fn&, const Req&, const properties&>;
    static_assert(plain || with_properties || replies,
                  "mailroom: the function of a responder is called with (const Req&), with (const Req&, const mailroom::properties&), "
                  "or with (const Req&, mailroom::reply<Rep>&)");

public:
    responding(memory_core<Req>& from, Fn&& fn, consume_options&& o) : engine<Req>(from, std::move(o), true), core_(from), fn_(std::move(fn)) {}
    const response_counters& count() const noexcept { return count_; }

private:
    static void add(std::atomic<std::uint64_t>& to, std::uint64_t n = 1) noexcept {
        if (n != 0) { to.fetch_add(n, std::memory_order_relaxed); }
    }

    void handle(std::optional<delivery<Req>>& request) override {
        const properties& p = std::as_const(*request).props();
        const detail::envelope* const cover = detail::delivery_access::cover(*request);
        struct found {
            detail::call* call = nullptr;
            bool held = false;
            ~found() {
                if (held) { call->let_go(); }
            }
        } asker;
        bool known = false;
        if (cover != nullptr && cover->lent.home != nullptr) {
            asker.call = static_cast<detail::call*>(cover->lent.home);
            known = true;
        } else if ((asker.call = core_.meeting_point().find(p, known)) != nullptr) {
            asker.held = true;
        }
        if (known && !may_answer(asker.call)) {
            add(count_.skipped);
        } else {
            reply<Rep> out(static_cast<detail::call_of<Rep>*>(asker.call), p);
            respond(**request, out);
            add(count_.unclaimed, out.unclaimed_);
        }
        request->ack(); // the answer is given before: who crashes in between answers again
    }
    // Whether somebody waits, and for what we have.
    static bool may_answer(detail::call* c) noexcept {
        if (c == nullptr || !c->is_wanted()) { return false; }
        const std::string_view wanted = c->at().type(), have = type_name_v<Rep>;
        if (wanted.data() == have.data() || wanted == have) {
            static_cast<call_of<Rep>*>(c)->expect_answer();
            return true;
        }
        try {
            c->fail(failure(errc::type_mismatch, "the responder answers with " + std::string(have) + ", not " + std::string(wanted)).from_afar());
        } catch (...) { c->fail(failure(errc::type_mismatch).from_afar()); }
        return false;
    }
    void respond(const Req& what, reply<Rep>& out) noexcept {
        try {
            if constexpr (plain) {
                answer_with(out, std::invoke(*fn_, what));
            } else if constexpr (with_properties) {
                answer_with(out, std::invoke(*fn_, what, out.props()));
            } else {
                std::invoke(*fn_, what, out);
                out.end();
                add(count_.answered);
            }
            return;
        } catch (const error& e) { tell(out, e); } catch (const std::exception& e) {
            out.fail(errc::failed, e.what());
        } catch (...) { out.fail(errc::failed, "something that is no std::exception was thrown"); }
        add(count_.failed);
    }
    static void tell(reply<Rep>& out, const error& e) noexcept {
        try {
            out.fail(e.kind(), std::string(e.sentence()).c_str());
        } catch (...) { out.fail(e.kind(), ""); }
    }
    template <class Result>
    void answer_with(reply<Rep>& out, Result&& r) {
        if constexpr (std::is_same_v<std::remove_cvref_t<Result>, result<Rep>> && !std::is_same_v<Rep, result<Rep>>) {
            if (!r) {
                out.fail(r.error().kind(), r.error().what());
                add(count_.failed);
                return;
            }
            out.send(*std::forward<Result>(r));
        } else {
            out.send(std::forward<Result>(r));
        }
        out.end();
        add(count_.answered);
    }
    void drop_handler() noexcept override {
        fn_.reset();
        detail::engine<Req>::drop_handler();
    }

    memory_core<Req>& core_; // the engine keeps it
    std::optional<Fn> fn_;   // until nothing runs any more
    response_counters count_;
};

template <class Fn, class Req>
struct answered_by {};
template <class T>
struct without_result {
    using type = T;
};
template <class T>
struct without_result<result<T>> {
    using type = T;
};
template <class Fn, class Req>
requires std::is_invocable_v<Fn&, const Req&>
struct answered_by<Fn, Req> : without_result<std::remove_cvref_t<std::invoke_result_t<Fn&, const Req&>>> {
};
template <class Fn, class Req>
requires(!std::is_invocable_v<Fn&, const Req&> && std::is_invocable_v<Fn&, const Req&, const properties&>) struct answered_by<Fn, Req>
    : without_result<std::remove_cvref_t<std::invoke_result_t<Fn&, const Req&, const properties&>>> {
};

} // namespace detail

/// Calls a function for each request and sends what it returns back to whoever asked. Its function is called as
///     fn(const Req&) -> Rep                       or result<Rep>
///     fn(const Req&, const properties&) -> Rep    or result<Rep>
///     fn(const Req&, reply<Rep>&)                 several answers, as it goes; they end when it returns
/// and what it throws travels back; the request is done then, and not tried again. It is a consumer: as to threads, leases, destruction and what
/// `consume_options` mean, see consumer.hpp. Requests for whose answers nobody waits any more are skipped. Messages of the queue that are no requests are
/// answered like requests that nobody waits for.
template <class Req, class Rep>
class responder {
    static_assert(message_body<Rep>, "mailroom: the answers of responder<Req, Rep> are objects that can be moved: not a reference, not void");

public:
    /// Begins. Throws errc::invalid for options outside what is allowed, std::system_error if threads cannot be had.
    template <class Persistence, class Fn>
    requires(!detail::is_transient<Persistence>) responder(queue<Req, Persistence>& requests, Fn fn)
        : responder(requests, std::move(fn), consume_options()) {}
    template <class Persistence, class Fn>
    requires(!detail::is_transient<Persistence>) responder(queue<Req, Persistence>& requests, Fn fn, consume_options options) {
        detail::check_options(options);
        if (detail::is_empty_handler(fn)) { detail::fail(errc::invalid, "the function of a responder is empty"); }
        auto made = std::make_shared<detail::responding<Req, Rep, Fn>>(detail::endpoint_access::core(requests), std::move(fn), std::move(options));
        made->start();
        count_ = std::shared_ptr<const detail::response_counters>(made, &made->count());
        consumer_ = detail::consumer_access::make(std::move(made));
    }

    /// As those of a consumer.
    void stop() noexcept { consumer_.stop(); }
    bool drain(duration limit) noexcept { return consumer_.drain(limit); }
    bool running() const noexcept { return consumer_.running(); }
    int threads() const noexcept { return consumer_.threads(); }

    response_stats statistics() const noexcept {
        response_stats s;
        if (count_ == nullptr) { return s; }
        s.answered = count_->answered.load(std::memory_order_relaxed);
        s.failed = count_->failed.load(std::memory_order_relaxed);
        s.skipped = count_->skipped.load(std::memory_order_relaxed);
        s.unclaimed = count_->unclaimed.load(std::memory_order_relaxed);
        return s;
    }

private:
    std::shared_ptr<const detail::response_counters> count_;
    consumer consumer_; // the first to go: it waits for running functions
};
/// `responder serve{requests, fn};`: the answers are what `fn` returns. Not where it takes a reply<Rep>&: name the types there.
template <class Req, class Persistence, class Fn, class... Options>
responder(queue<Req, Persistence>&, Fn, Options...) -> responder<Req, typename detail::answered_by<Fn, Req>::type>;

} // namespace mailroom
