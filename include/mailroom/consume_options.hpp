// The options of `consume`, and the pace that `max_per_second` sets. Values; nothing here starts a thread or looks at a clock.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/wait.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <vector>

namespace mailroom {

/// How many handlers of one consumer may run at once: never fewer threads than `min`, never more than `max`.
struct concurrency {
    int min = 1;
    int max = 1;
};

/// How messages are consumed. Use designated initialisers.
struct consume_options {
    /// Threads; they grow with the backlog and shrink again when they have been idle for some seconds. With an executor: `max` counts.
    mailroom::concurrency concurrency = mailroom::concurrency();
    /// Messages held at most, those in handlers included; never fewer than one for each running handler. Where the source has priorities, or
    /// with `max_per_second`, nothing is held before its handler can start, as if it were 1.
    std::size_t prefetch = 64;
    /// Handlers started within any second, at most; 0: any number. A fraction is one in so many seconds.
    double max_per_second = 0;
    /// Handlers that run at once for messages of one key; 0: any number. Messages without a key are not counted.
    std::size_t max_per_key = 0;
    /// How long the lease of a running handler is renewed. A handler that takes longer loses its message to others one lease later.
    duration processing_limit = std::chrono::minutes(5);
    /// Where handlers run instead of on threads of the consumer. It is called by whoever sends, from several threads at once.
    mailroom::executor executor = nullptr;
    /// Told what a handler threw, after the message went back. May be called from several threads at once; what it throws is swallowed.
    std::function<void(std::exception_ptr)> on_error = nullptr;
};

namespace detail {

/// Throws errc::invalid, with a sentence, for options outside what is allowed.
inline void check_options(const consume_options& o) {
    if (o.concurrency.min < 1) { fail(errc::invalid, "consume_options.concurrency.min is 1 or more"); }
    if (o.concurrency.max < o.concurrency.min) { fail(errc::invalid, "consume_options.concurrency.max is less than its min"); }
    if (o.prefetch == 0) { fail(errc::invalid, "consume_options.prefetch is 1 or more"); }
    if (!(o.max_per_second >= 0 && o.max_per_second <= std::numeric_limits<double>::max())) { // nor not a number
        fail(errc::invalid, "consume_options.max_per_second is neither negative nor infinite; 0 means any number");
    }
    if (o.processing_limit < duration::zero()) {
        fail(errc::invalid, "consume_options.processing_limit is negative; zero means that no lease is renewed");
    }
}

/// Says when the next may start, so that no second sees more than so many. A window that slides, not a bucket: after a pause the burst is as
/// large as the limit, and never larger. Memory: 8 bytes for each of the limit, 8 KiB at most (beyond, starts count in groups).
class pace {
public:
    explicit pace(double per_second) {
        if (per_second <= 0) { return; }
        constexpr double most = 1e12, longest_seconds = 1e9;
        constexpr std::size_t stamps = 1024;
        const std::size_t many = rounded_up(std::min(per_second, most));
        window_ = duration(static_cast<duration::rep>(std::min(static_cast<double>(many) / per_second, longest_seconds) * 1e9));
        group_ = (many + stamps - 1) / stamps;
        last_.assign(std::max<std::size_t>(1, many / group_), duration::min());
    }

    bool on() const noexcept { return !last_.empty(); }
    /// The earliest instant at which `n` more, at least one, may start; never, if so many in one window are too many.
    duration next(std::size_t n = 1) const noexcept {
        duration when = duration::min();
        std::size_t allowed = in_group_ != 0 ? group_ - in_group_ : 0;
        for (std::size_t i = at_ + (in_group_ != 0 ? 1 : 0), left = last_.size() - (in_group_ != 0 ? 1 : 0); allowed < n;
             ++i, --left, allowed += group_) {
            if (left == 0) { return on() ? duration::max() : when; }
            const duration last = last_[i % last_.size()];
            if (last != duration::min()) { when = last + window_; }
        }
        return when;
    }
    void started(duration now) noexcept {
        if (last_.empty()) { return; }
        last_[at_] = now;
        if (++in_group_ == group_) {
            in_group_ = 0;
            at_ = at_ + 1 == last_.size() ? 0 : at_ + 1;
        }
    }

private:
    static std::size_t rounded_up(double x) noexcept { // without <cmath>, which is long
        const auto down = static_cast<std::size_t>(x);
        return static_cast<double>(down) < x ? down + 1 : down;
    }
    duration window_{};
    std::size_t group_ = 1;
    std::size_t in_group_ = 0;
    std::size_t at_ = 0;
    std::vector<duration> last_; // when the last of each group started; a ring
};

} // namespace detail
} // namespace mailroom
