// A worker that stays at work: after a handler it looks for the next message by itself, takes one and has it handled, and so on, as long as there is
// one soon. No lists, no mutex, no batch: what a message costs is its claim and its handler. For whoever is waited for, as a responder is.
//
// Such a worker counts as running one handler all the while: its node stays in `running_` and names one message after the other, and `present_`
// counts it as inside a handler. So it is waited for, its lease is renewed, and nobody gives it anything else to do. It goes back to the lists when
// anything was taken there (that is older), when the consumer stops, and when it has looked in vain for a moment.
//
// Only where the number of threads is fixed, and neither a rate nor keys limit what may start: then every other worker is either at work as well, or
// waits in the source's list by itself, and nobody needs to be told of what this one does.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consuming/detail/engine_class.hpp>

#include <atomic>
#include <optional>
#include <utility>

namespace mailroom::detail {

template <class T>
[[gnu::noinline]] void engine<T>::stay(held<T>& h) noexcept {
    while (may_stay() && (take_into(h) || (linger() && take_into(h)))) { serve(h); }
}

template <class T>
bool engine<T>::take_into(held<T>& h) noexcept {
    try {
        h.message = source_->take_one();
    } catch (...) { // no memory; what is in the queue stays there
        return false;
    }
    if (!h.message) { return false; }
    if (stopping_.load(std::memory_order_acquire)) {
        h.message->release();
        h.message.reset();
        return false;
    }
    h.begin(*h.message, clock_.coarse());
    return true;
}

template <class T>
bool engine<T>::linger() noexcept {
    const duration patience = clock_.patience();
    if (patience == duration::zero() || lingering_.exchange(true, std::memory_order_relaxed)) { return false; }
    bool found = brief_look::look([this]() noexcept { return source_->glance(); });
    const duration until = found ? duration::min() : clock_.now() + patience;
    while (!found && may_stay() && clock_.now() < until) {
        clock_.relax(64);
        found = source_->may_have();
    }
    lingering_.store(false, std::memory_order_relaxed);
    return found;
}

} // namespace mailroom::detail
