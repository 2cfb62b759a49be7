// A call with its answers: what `store/call.hpp` knows of a request that is out, and the place for answers of one type.
//
// Threads: `give`, `end` and what else answers from any; the rest from the caller's, one at a time.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/type_name.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/sending.hpp>
#include <mailroom/store/call.hpp>
#include <mailroom/store/desk.hpp>
#include <mailroom/store/rendezvous.hpp>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

namespace detail {

/// An answer as it is kept: where the answer is `void`, that it is done.
struct done_mark {};
template <class Rep>
using answer_value = std::conditional_t<std::is_void_v<Rep>, done_mark, Rep>;
/// What may be an answer.
template <class Rep>
inline constexpr bool is_answer = message_body<answer_value<Rep>>;

template <class Rep>
result<Rep> as_result(answer_value<Rep>&& value) {
    if constexpr (std::is_void_v<Rep>) {
        static_cast<void>(value);
        return result<void>();
    } else {
        return result<Rep>(std::move(value));
    }
}

/// A call whose answers are `Rep`. The call's state says to whom `value_` and `why_` belong; `more_` has a mutex, because it may be read meanwhile.
template <class Rep>
class call_of final : public call {
    using value_type = answer_value<Rep>;

public:
    /// Several answers are wanted. Before `open`; throws std::bad_alloc.
    void expect_many() {
        if (more_ == nullptr) { more_ = std::make_unique<answers_in>(); }
        this->take_several();
    }

    /// An answer. False: nobody waits. `complete`: there may be no other.
    bool give(value_type&& value, bool& complete) {
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
                more_->waiting.emplace_back(as_result<Rep>(std::move(value)));
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
    /// Of several who are asked, these are there; before `open`. Throws std::bad_alloc.
    void expect_from(rendezvous& there) {
        more_ = std::make_unique<answers_in>();
        more_->awaited = there.who_answers();
        this->gather();
    }
    /// After `open`: of those some may be gone. Who goes from now on says so.
    void expect_no_others(rendezvous& there) noexcept {
        std::uint32_t before = 0;
        if (!claim(before)) { return; }
        there.keep_who_answers(more_->awaited);
        go_on_silently(before);
    }
    /// There are no further answers, of one who was asked. For one that had none, that is a failure.
    void end_from(const void* whom) noexcept override {
        std::uint32_t before = 0;
        if (!is_wanted() || !claim(before)) { return; }
        if (this->gathers()) {
            if (!is_last(whom)) {
                go_on_silently(before);
                return;
            }
        }
        if (!this->takes_several()) { why_ = failure(errc::failed); }
        finish(before);
    }
    /// One of those who were asked failed. False: nobody waits.
    bool fail_from(const void* whom, failure why) noexcept override {
        std::uint32_t before = 0;
        if (!claim(before)) { return false; }
        if (!this->gathers()) {
            why_ = std::move(why);
            finish(before);
            return true;
        }
        const bool last = is_last(whom);
        const bool alone = more_->awaited.empty();
        if (this->takes_several()) {
            try {
                const std::lock_guard lock(more_->mutex);
                more_->waiting.emplace_back(std::move(why));
            } catch (...) { // no memory: it did not answer
            }
        } else if (alone) {
            why_ = std::move(why);
        }
        if (last || (alone && !this->takes_several())) {
            finish(before);
        } else if (this->takes_several()) {
            go_on(before);
        } else {
            go_on_silently(before);
        }
        return true;
    }

    /// Once it is done: the answer.
    result<Rep> take() {
        if (why().kind() != errc{}) [[unlikely]] { return result<Rep>(why()); }
        if constexpr (is_small) {
            return as_result<Rep>(std::move(*std::launder(small_value())));
        } else {
            return as_result<Rep>(std::move(*value_));
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
    std::optional<result<Rep>> take_more() {
        const std::lock_guard lock(more_->mutex);
        std::optional<result<Rep>> out;
        if (!more_->waiting.empty()) {
            out.emplace(std::move(more_->waiting.front()));
            more_->waiting.pop_front();
        }
        return out;
    }
    void through() noexcept {
        if constexpr (!std::is_trivially_destructible_v<value_type>) { value_.reset(); }
        if (more_ != nullptr) { more_.reset(); }
        this->close();
    }

private:
    struct answers_in {
        std::mutex mutex;
        std::deque<result<Rep>> waiting;
        std::vector<const void*> awaited; // who is asked and has not ended; whoever has claimed the call
    };
    // Whether nobody who was asked is left to end.
    bool is_last(const void* whom) noexcept { return std::erase(more_->awaited, whom) != 0 && more_->awaited.empty(); }
    static constexpr bool is_small = std::is_trivially_copyable_v<value_type> && sizeof(value_type) <= call::small && alignof(value_type) <= 8;
    value_type* small_value() noexcept { return reinterpret_cast<value_type*>(this->small_); }

    std::optional<value_type> value_;
    std::unique_ptr<answers_in> more_;

public:
    bool is_dressed = false; // its envelope carries more than it has to
};

template <class Rep>
class desk_of final : public desk {
public:
    desk_of(clock& c, std::uint64_t address, source_base& home, cursor* from, alarm how) : desk(c, type_name_v<Rep>, address, home, from, how) {}

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

} // namespace mailroom
