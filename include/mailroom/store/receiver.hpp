// receiver<T>: something that can be received from, by those who wait in threads: the wait loop, written once for queues and subscriptions.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/store/source.hpp>
#include <mailroom/stream/directory.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

namespace mailroom::detail {

/// `Self`, which derives from it and from nothing else that is a source, has `take(max, sink)` as in store/outlet.hpp, `may_have_something()`,
/// a quick look, and the rest of source<T>. Threads: any. Locks: only to sleep.
template <class T, class Self>
class receiver : public source<T> {
public:
    /// Calls `attempt_once()` until it answers true, and waits in between until `deadline` or a stop. False: the wait is over without.
    template <class Attempt>
    bool wait_for_messages(Attempt attempt_once, duration deadline, const stop_token& stop) {
        clock& c = this->time();
        for (unsigned round = 0;;) {
            if (attempt_once()) { return true; }
            switch (self().look_ahead()) {
            case outlook::finished: return false;
            case outlook::again: c.relax(round++); continue;
            case outlook::wait: break;
            }
            if (stop.stop_requested()) { return false; }
            if (deadline != clock::never && c.now() >= deadline) { return false; }
            if (look_again_soon(deadline, stop)) { continue; }
            self().about_to_sleep();
            thread_waiter waiting(c);
            self().join(waiting);
            if (!self().may_have() && self().look_ahead() == outlook::wait) {
                const stop_callback wake_up(stop, [&waiting]() noexcept { waiting.interrupt(); });
                if (!stop.stop_requested()) { waiting.park(std::min(deadline, self().next_due())); }
            }
            if (!self().leave(waiting)) { waiting.settle(); }
        }
    }

    std::optional<delivery<T>> take_one() override {
        std::optional<delivery<T>> out;
        self().take(1, [&out](const auto& made) { out.emplace(made); });
        return out;
    }
    std::size_t take_some(std::vector<delivery<T>>& out, std::size_t max, duration deadline, const stop_token& stop) override {
        if (max == 0) { return 0; }
        std::size_t got = 0;
        const auto some = [&] {
            while (got < max) {
                const std::size_t n = std::min<std::size_t>(max - got, span);
                if (out.capacity() - out.size() < n) { out.reserve(std::max(out.size() + n, 2 * out.capacity())); }
                const std::size_t more = self().take(n, [&out](const auto& made) { out.emplace_back(made); });
                got += more;
                if (more == 0) { break; }
            }
            return got != 0;
        };
        if (deadline == duration::min()) {
            some();
        } else {
            wait_for_messages(some, deadline, stop);
        }
        return got;
    }

protected:
    ~receiver() = default;

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }

    // After an empty look: a short while of looking again, before the thread is put to sleep.
    bool look_again_soon(duration deadline, const stop_token& stop) {
        clock& c = this->time();
        const duration patience = c.patience();
        if (patience == duration::zero()) { return false; }
        for (unsigned i = 0; i < 16; ++i) {
            pause();
            if ((i & 1) != 0 && self().may_have_something()) { return true; }
        }
        const duration until = std::min(deadline, c.now() + patience);
        while (c.now() < until && !stop.stop_requested()) {
            c.relax(64);
            if (self().may_have()) { return true; }
        }
        return false;
    }
};

} // namespace mailroom::detail
