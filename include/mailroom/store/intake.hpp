// intake<T>: the sending side of a store. Checks, bounds, deduplication, and the way into the stream.
//
// Locks: none for a plain message. One with an id holds deduplication's while it takes its offset; one with times of its own takes the
// cursor's afterwards. Nothing foreign runs under either.
#pragma once

#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/cursor/deduplication.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/bounds.hpp>
#include <mailroom/store/shelf.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

template <class T>
class intake : public shelf<T> {
protected:
    using typename shelf<T>::slot_block;
    using shelf<T>::clock_;
    using shelf<T>::coarse;
    using shelf<T>::cursor_;
    using shelf<T>::set_size;
    using shelf<T>::stream_;

public:
    /// Checks what may be wrong with a message before it is looked at by the queue. Throws `error` with errc::invalid or errc::rejected.
    void check(const T& value, const properties& p) const {
        if (const char* const wrong = wrong_with(p)) { fail(errc::invalid, wrong); }
        if (validate_ && !validate_(value, p)) { fail(errc::rejected, "the queue's `validate` refused the message"); }
    }
    /// The same as a value.
    std::optional<failure> objection(const T& value, const properties& p) const {
        if (const char* const wrong = wrong_with(p)) { return failure(errc::invalid, wrong); }
        if (validate_ && !validate_(value, p)) { return failure(errc::rejected, "the queue's `validate` refused the message"); }
        return std::nullopt;
    }

    /// Whether a message without properties needs nothing but its place: the usual queue, bounded or not.
    bool is_plain() const noexcept { return is_plain_; }
    /// Appends one message to a plain queue; no_offset, and nothing taken, where it is closed or full. Throws std::bad_alloc only.
    offset append(T& value) {
        outgoing<T> out(value);
        const duration now = coarse();
        const auto place = stream_.take(1, now, [this](offset first) { return bounds_.admits(first, 1); });
        if (!place.taken) [[unlikely]] { return no_offset; }
        slot_block& b = *stream_.at(place.first);
        const std::uint32_t i = index_in_span(place.first);
        if constexpr (sizes<T>::varies) { set_size(b, i, footprint_of(out.look())); }
        out.into(b.slots[i].value);
        b.slots[i].ready.store(b.word_at(now), std::memory_order_release);
        if (place.wake) [[unlikely]] { this->wake(1); }
        return place.first;
    }

    /// Appends one message, never waits: moves from `value` (and takes `props`) only on success.
    result<offset> try_send(T& value, properties* props) {
        outgoing<T> out(value);
        std::unique_ptr<envelope> cover;
        if (props != nullptr && *props != no_properties) {
            cover = std::make_unique<envelope>();
            cover->props = *props;
        }
        return attempt(out, cover);
    }

    /// Appends one message, waiting for room until `deadline` where the overflow rule says so.
    result<offset> send(T& value, properties* props, duration deadline, const stop_token& stop) {
        outgoing<T> out(value);
        std::unique_ptr<envelope> cover;
        if (props != nullptr && *props != no_properties) {
            cover = std::make_unique<envelope>();
            cover->props = std::move(*props);
        }
        result<offset> done = attempt(out, cover);
        if (!done && done.error() == errc::full && bounds_.rule() == overflow::block) {
            done = wait_for_room([&] { return attempt(out, cover); }, 1, deadline, stop);
        }
        if (!done && cover != nullptr && props != nullptr) { *props = std::move(cover->props); }
        return done;
    }

    /// Whether messages are looked at before they are sent.
    bool validates() const noexcept { return static_cast<bool>(validate_); }

    /// Appends `n` messages in a row, or none: `look(i)` shows one, `put(i, slot)` fills its slot and may not throw; neither knows the queue.
    template <class Look, class Put>
    result<offset> send_many(std::size_t n, Look look, Put put, duration deadline, const stop_token& stop) {
        if (n == 0) { return stream_.closed() ? result<offset>(errc::closed) : result<offset>(stream_.head()); }
        std::size_t bytes = 0;
        if (bounds_.limited()) {
            for (std::size_t i = 0; i < n; ++i) { bytes += footprint_of(look(i)); }
        }
        const auto once = [&] { return attempt_many(n, bytes, look, put); };
        result<offset> done = once();
        if (!done && done.error() == errc::full && bounds_.rule() == overflow::block) { done = wait_for_room(once, n, deadline, stop); }
        return done;
    }

protected:
    intake(clock& c, const queue_options<T>& o)
        : shelf<T>(c, {.lease = o.lease,
                       .retry = o.retry,
                       .max_in_flight = o.max_in_flight,
                       .time_to_live = o.time_to_live,
                       .priorities = o.priorities,
                       .ordered_by_key = o.ordered_by_key,
                       .max_dead = o.max_dead,
                       .drops_oldest = o.overflow == overflow::drop_oldest}),
          validate_(o.validate), is_plain_(!o.validate && o.max_bytes == 0 && o.budget == nullptr),
          bounds_({o.max_messages, o.max_bytes, o.budget, o.overflow}) {
        if (o.deduplicate.window > duration::zero() || o.deduplicate.until_settled) {
            known_ids_ = std::make_unique<deduplicator>(o.deduplicate.window, o.deduplicate.until_settled);
        }
    }
    ~intake() = default;

    /// A message is settled, or dead: its id may be sent again.
    void forget_id(const properties& p, offset place) noexcept {
        if (known_ids_ != nullptr) [[unlikely]] { forget_known(p.id, place); }
    }
    [[gnu::cold, gnu::noinline]] void forget_known(const std::string& id, offset place) noexcept {
        if (!id.empty()) { known_ids_->settled(id, place, clock_.now()); }
    }

    void forget(const envelope& cover, offset place) noexcept override { forget_id(cover.props, place); }
    void remember(const envelope& cover, offset place) noexcept override {
        if (known_ids_ != nullptr && !cover.props.id.empty()) { known_ids_->unsettled(cover.props.id, place); }
    }
    void settled(std::int64_t messages, std::int64_t bytes) noexcept override {
        if (bounds_.limited()) { bounds_.left(messages, bytes); }
    }

    const std::function<bool(const T&, const properties&)> validate_;
    const bool is_plain_;
    std::unique_ptr<deduplicator> known_ids_;
    bounds bounds_; // its end is written at each message: what follows is not
    std::atomic<std::uint64_t> duplicates_{0};
    std::atomic<std::uint64_t> dropped_newest_{0};

private:
    static const char* wrong_with(const properties& p) noexcept {
        if (p.priority < 0 || p.priority > 9) { return "properties.priority is outside 0..9"; }
        if (p.delay < duration::zero()) { return "properties.delay is negative; it is a time from now"; }
        if (p.time_to_live < duration::zero()) { return "properties.time_to_live is negative; zero means for ever"; }
        return nullptr;
    }

    // One attempt to append; `errc::full` where there is no room.
    result<offset> attempt(outgoing<T>& out, std::unique_ptr<envelope>& cover) {
        const std::size_t bytes = footprint_of(out.look());
        if (stream_.closed()) { return errc::closed; }
        if (!bounds_.could_ever_hold(1, bytes)) { return too_large(); }
        const bool identified = known_ids_ != nullptr && cover != nullptr && !cover->props.id.empty();
        for (bool caught_up = false;;) {
            typename stream<T>::taken place{};
            bool full = false;
            {
                std::unique_lock<std::mutex> lock;
                duration now{};
                if (identified) {
                    lock = known_ids_->lock();
                    now = clock_.now();
                    const offset original = known_ids_->find_or_note(cover->props.id, now);
                    if (original != no_offset) {
                        duplicates_.fetch_add(1, std::memory_order_relaxed);
                        return original;
                    }
                }
                const undo_note undo{identified ? known_ids_.get() : nullptr, cover.get(), now, place.taken};
                const duration sent = cover != nullptr ? clock_.now() : coarse();
                place = reserve(1, bytes, sent, full);
                if (place.taken) {
                    if (identified) { known_ids_->sent(cover->props.id, place.first, now); }
                    const duration expires = publish(place.first, out, cover, sent, bytes);
                    lock = std::unique_lock<std::mutex>(); // what follows may run foreign code
                    if (expires != not_timed) { cursor_.note_timed(place.first, expires); }
                    if (place.wake) { this->wake(1); }
                    return place.first;
                }
            }
            if (!full) { return errc::closed; }
            if (!caught_up && cursor_.deadline() <= clock_.now()) {
                cursor_.step(); // what has expired makes room
                caught_up = true;
                continue;
            }
            if (bounds_.rule() == overflow::drop_oldest && make_room(1, bytes)) { continue; }
            return no_room(1);
        }
    }

    template <class Look, class Put>
    result<offset> attempt_many(std::size_t n, std::size_t bytes, Look& look, Put& put) {
        if (stream_.closed()) { return errc::closed; }
        if (!bounds_.could_ever_hold(n, bytes)) { return too_large(); }
        for (bool caught_up = false;;) {
            bool full = false;
            const duration now = coarse();
            const auto place = reserve(n, bytes, now, full);
            if (place.taken) {
                for (std::size_t i = 0; i < n;) { // block by block
                    slot_block& b = *stream_.at(place.first + i);
                    const std::uint32_t from = index_in_span(place.first + i);
                    const std::uint32_t to = static_cast<std::uint32_t>(std::min<std::size_t>(span, from + (n - i)));
                    const std::uint64_t word = b.word_at(now);
                    b.expect_writes(from, to);
                    for (std::uint32_t at = from; at < to; ++at, ++i) {
                        if constexpr (sizes<T>::varies) { set_size(b, at, footprint_of(look(i))); }
                        put(i, b.slots[at].value);
                        b.slots[at].ready.store(word, std::memory_order_release);
                    }
                }
                if (place.wake) { this->wake(n); }
                return place.first;
            }
            if (!full) { return errc::closed; }
            if (!caught_up && cursor_.deadline() <= clock_.now()) {
                cursor_.step();
                caught_up = true;
                continue;
            }
            if (bounds_.rule() == overflow::drop_oldest && make_room(n, bytes)) { continue; }
            return no_room(n);
        }
    }

    // Notes an id as not sent unless it was, whatever happens in between.
    struct undo_note {
        deduplicator* ids;
        const envelope* cover;
        const duration& now;
        const bool& sent;
        ~undo_note() {
            if (ids != nullptr && !sent) { ids->not_sent(cover->props.id, now); }
        }
    };

    static failure too_large() { return failure(errc::too_large, "more at once than max_messages, max_bytes or the budget would ever allow"); }
    result<offset> no_room(std::size_t n) {
        if (bounds_.rule() == overflow::drop_newest) {
            dropped_newest_.fetch_add(n, std::memory_order_relaxed);
            return no_offset;
        }
        return errc::full;
    }
    // Drops so many of the oldest that `n` more fit, or none.
    bool make_room(std::size_t n, std::size_t bytes) noexcept {
        std::size_t dropped = 0;
        while (!bounds_.has_room(stream_.head(), n, bytes)) {
            if (dropped == 0) {
                const cursor::drop_outlook have = cursor_.droppable();
                if (have.messages < bounds_.missing(stream_.head(), n) || !bounds_.could_spare(have.held_bytes, bytes)) { return false; }
            }
            if (!cursor_.drop_oldest()) { return false; }
            ++dropped;
        }
        return true;
    }

    typename stream<T>::taken reserve(std::size_t n, std::size_t bytes, duration now, bool& full) {
        if (!bounds_.limited()) {
            return stream_.take(n, now, [](offset) { return true; });
        }
        // Messages first: bytes taken and given back would wake others who wait for room, and they this one.
        if (!bounds_.would_admit([this] { return stream_.head(); }, n) || !bounds_.take_bytes(bytes)) {
            full = true;
            return {0, false, false};
        }
        bool refused = false;
        typename stream<T>::taken place{0, false, false};
        try {
            place = stream_.take(n, now, [&](offset first) {
                refused = !bounds_.admits(first, n);
                return !refused;
            });
        } catch (...) {
            bounds_.give_bytes_back(bytes);
            throw;
        }
        if (!place.taken) {
            bounds_.give_bytes_back(bytes);
            full = refused && !stream_.closed();
        }
        return place;
    }

    static constexpr duration not_timed = duration::min();

    // Fills the slot of an offset that was taken. Answers when the message expires if it has times of its own, else `not_timed`.
    duration publish(offset o, outgoing<T>& out, std::unique_ptr<envelope>& cover, duration now, std::size_t bytes) noexcept {
        slot_block& b = *stream_.at(o);
        const std::uint32_t i = index_in_span(o);
        std::uint64_t word = b.word_at(now);
        duration expires = not_timed;
        if (cover != nullptr) {
            const properties& p = cover->props;
            cover->sent = now;
            if (p.delay > duration::zero()) { cover->due = later(now, p.delay); }
            if (p.time_to_live > duration::zero()) { cover->expires = later(now, p.time_to_live); }
            if (cover->is_timed()) { expires = cover->expires; }
            word = b.word_of(cover.release());
        }
        set_size(b, i, bytes);
        out.into(b.slots[i].value);
        b.slots[i].ready.store(word, std::memory_order_release);
        return expires;
    }
    template <class Attempt>
    result<offset> wait_for_room(Attempt attempt_once, std::size_t n, duration deadline, const stop_token& stop) {
        for (;;) {
            if (stop.stop_requested()) { return errc::full; }
            if (deadline != clock::never && clock_.now() >= deadline) { return errc::timed_out; }
            if (const duration patience = clock_.patience(); patience > duration::zero()) {
                const duration until = std::min(deadline, clock_.now() + patience);
                for (unsigned round = 0; clock_.now() < until && !bounds_.has_ample_room(stream_.head(), n); ++round) { clock_.relax(round); }
            }
            result<offset> done = attempt_once();
            if (done || done.error() != errc::full) { return done; }
            {
                thread_waiter self(clock_);
                bounds_.join(self, n);
                struct leaving {
                    bounds& room;
                    thread_waiter& self;
                    std::size_t n;
                    bool waited = false;
                    ~leaving() {
                        if (room.leave(self, n)) { return; }
                        self.settle();
                        if (!waited) { room.wake(1); } // the room that was announced is another's
                    }
                } leave_later{bounds_, self, n};
                done = attempt_once();
                if (done || done.error() != errc::full) { return done; }
                leave_later.waited = true;
                const stop_callback wake_up(stop, [&self]() noexcept { self.interrupt(); });
                if (!stop.stop_requested()) { self.park(std::min(deadline, cursor_.deadline())); }
            }
            done = attempt_once();
            if (done || done.error() != errc::full) { return done; }
        }
    }
};

} // namespace mailroom::detail
