// intake<T>: the sending side of one log. Deduplication, bounds, and the way into the stream.
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
#include <mailroom/store/link.hpp>
#include <mailroom/store/lot.hpp>
#include <mailroom/store/producers.hpp>
#include <mailroom/store/timing.hpp>
#include <mailroom/stream/stream.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// What may be wrong with a message before an endpoint looks at it: nothing that depends on what the endpoint holds.
template <class T>
class inspection {
public:
    using validator = std::function<bool(const T&, const properties&)>;
    explicit inspection(const validator& v) : validate_(v) {}

    /// Throws `error` with errc::invalid or errc::rejected.
    void check(const T& value, const properties& p) const {
        if (const char* const wrong = wrong_with(p)) { fail(errc::invalid, wrong); }
        if (validate_ && !validate_(value, p)) { fail(errc::rejected, refused); }
    }
    /// The same as a value.
    std::optional<failure> objection(const T& value, const properties& p) const {
        if (const char* const wrong = wrong_with(p)) { return failure(errc::invalid, wrong); }
        if (validate_ && !validate_(value, p)) { return failure(errc::rejected, refused); }
        return std::nullopt;
    }
    /// Whether messages are looked at before they are sent.
    bool validates() const noexcept { return static_cast<bool>(validate_); }

private:
    static constexpr const char* refused = "the endpoint's `validate` refused the message";
    static const char* wrong_with(const properties& p) noexcept {
        if (p.priority < 0 || p.priority > 9) { return "properties.priority is outside 0..9"; }
        if (p.delay < duration::zero()) { return "properties.delay is negative; it is a time from now"; }
        if (p.time_to_live < duration::zero()) { return "properties.time_to_live is negative; zero means for ever"; }
        return nullptr;
    }

    const validator validate_;
};

/// `Self`, which derives from it and has it and its `lot` as friends, has
///     const timing& time_of();
///     room();                          its bounds: see store/bounds.hpp and store/quota.hpp
///     deduplicator* known_ids();       or nullptr
///     producer_table& producers();
///     offset named(offset);            how a place is called outside: with its partition, where there are several
///     wake(n);                         receivers that wait
///     duration next_due(); catch_up(); what expires makes room
///     bool make_room(n, bytes);        by dropping the oldest, where that is the rule
///     note_timed(offset, expires);     a message with times of its own was appended
///     appended(offset, n);             others were as well
///     link<T>* journal();              where they are stored, or nullptr: then here
template <class T, class Self>
class intake : public side_door {
    friend detail::lot<T, Self>;

protected:
    using slot_block = block<T>;

public:
    /// Appends one message where there is nothing but `max_messages` to look at; no_offset, and nothing taken, if closed or full. Throws
    /// std::bad_alloc only.
    offset append(T& value) {
        outgoing<T> out(value);
        const duration now = self().time_of().coarse();
        const auto place = stream_.take(1, now, [this](offset first) { return self().room().admits(first, 1); });
        if (!place.taken) [[unlikely]] { return no_offset; }
        slot_block& b = *stream_.at(place.first);
        const std::uint32_t i = index_in_span(place.first);
        if constexpr (sizes<T>::varies) { b.set_size(i, footprint_of(out.look())); }
        out.into(b.slots[i].value);
        b.slots[i].ready.store(b.word_at(now), std::memory_order_release);
        self().appended(place.first, 1);
        const offset name = self().named(place.first);
        if (place.wake) [[unlikely]] { self().wake(1); } // the last: what is woken may be the endpoint's end
        return name;
    }

    /// Appends one message, never waits: moves from `value` (and takes `props`) only on success.
    result<offset> try_send(T& value, properties* props) {
        if (self().journal() != nullptr) [[unlikely]] { return store(value, props, duration::min(), stop_token()); }
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
        if (self().journal() != nullptr) [[unlikely]] { return store(value, props, deadline, stop); }
        outgoing<T> out(value);
        std::unique_ptr<envelope> cover;
        if (props != nullptr && *props != no_properties) {
            cover = std::make_unique<envelope>();
            cover->props = std::move(*props);
        }
        result<offset> done = attempt(out, cover);
        if (!done && done.error() == errc::full && self().room().rule() == overflow::block) {
            done = wait_for_room([&] { return attempt(out, cover); }, 1, deadline, stop);
        }
        if (!done && cover != nullptr && props != nullptr) { *props = std::move(cover->props); }
        return done;
    }

    /// Appends one message of a producer, waiting for room, unless it was sent before: then where, or no_offset where that is not known any more.
    result<offset> send_numbered(T& value, properties* props, const numbered& by) {
        const auto waiting = [&](auto once) {
            result<offset> done = once();
            if (done || done.error() != errc::full || self().room().rule() != overflow::block) { return done; }
            return wait_for_room(once, 1, clock::never, stop_token());
        };
        if (self().journal() != nullptr) {
            shipment one;
            one.by = &by;
            if (failure why = self().journal()->pack(one, value, props); why.kind() != errc{}) { return why; }
            return waiting([&] { return attempt_to_store(one, 1, footprint_of(value), props, nullptr); });
        }
        outgoing<T> out(value);
        std::unique_ptr<envelope> cover;
        if (props != nullptr && *props != no_properties) {
            cover = std::make_unique<envelope>();
            cover->props = std::move(*props);
        }
        const result<offset> done = waiting([&] { return attempt(out, cover, &by); });
        if (done) { self().producers().kept(by); }
        return done;
    }

    /// The same, and whether it was new: for a duplicate, the place of the original.
    result<offset> send_new(T& value, properties& props, duration deadline, const stop_token& stop, bool& is_new) {
        if (self().journal() != nullptr) {
            shipment one;
            if (failure why = self().journal()->pack(one, value, &props); why.kind() != errc{}) { return why; }
            result<offset> done = store(one, 1, footprint_of(value), &props, deadline, stop);
            is_new = !one.was_known;
            return done;
        }
        auto cover = std::make_unique<envelope>();
        cover->props = std::move(props);
        result<offset> done = send_covered(value, cover, deadline, stop);
        is_new = cover == nullptr;
        return done;
    }

    /// Stores a message where a send neither waits for the disk nor for room; no_offset, and nothing done: `send` sees to it. Throws what its codec
    /// throws, std::bad_alloc.
    offset append_stored(const T& value) {
        link<T>* const to = self().journal();
        if (to == nullptr || stream_.closed() || self().room().limited()) { return no_offset; }
        const offset place = to->append(value);
        if (place == no_offset) { return no_offset; }
        if (stream_.has_waiters()) [[unlikely]] { self().wake(1); } // he commits
        return self().named(place);
    }

    /// Sends a copy, however long that takes.
    result<offset> send_copy(const T& value) {
        if (self().journal() != nullptr) [[unlikely]] { return store(value, nullptr, clock::never, stop_token()); }
        T copy(value);
        return send(copy, nullptr, clock::never, stop_token());
    }

    /// Stores messages of a producer in a journal, in a row, all or none, under one number, unless that was sent before. Never waits for room. Several: only where
    /// room has no bounds (else errc::unsupported), and such as have neither ids nor times of their own.
    result<offset> try_send_numbered(std::vector<std::pair<T, properties>>& some, const numbered& by) {
        if (some.size() > 1 && self().room().limited()) { return errc::unsupported; }
        shipment all;
        all.by = &by;
        for (const auto& [value, props] : some) {
            if (failure why = self().journal()->pack(all, value, &props); why.kind() != errc{}) { return why; }
        }
        auto& [value, props] = some.front();
        return attempt_to_store(all, some.size(), footprint_of(value), some.size() == 1 ? &props : nullptr, nullptr);
    }

    /// The same with an envelope that is there already; taken on success, unless it is a duplicate. Not for what is stored.
    result<offset> try_covered(T& value, std::unique_ptr<envelope>& cover) {
        outgoing<T> out(value);
        return attempt(out, cover);
    }
    bool blocks() noexcept { return self().room().rule() == overflow::block; }
    result<offset> send_covered(T& value, std::unique_ptr<envelope>& cover, duration deadline, const stop_token& stop) {
        outgoing<T> out(value);
        result<offset> done = attempt(out, cover);
        if (!done && done.error() == errc::full && self().room().rule() == overflow::block) {
            done = wait_for_room([&] { return attempt(out, cover); }, 1, deadline, stop);
        }
        return done;
    }

    /// Appends `n` messages in a row, or none: `look(i)` shows one, `put(i, slot)` fills its slot and may not throw; neither knows the queue.
    template <class Look, class Put>
    result<offset> send_many(std::size_t n, Look look, Put put, duration deadline, const stop_token& stop) {
        if (n == 0) { return stream_.closed() ? result<offset>(errc::closed) : result<offset>(self().named(stream_.head())); }
        std::size_t bytes = 0;
        if (self().room().limited()) {
            for (std::size_t i = 0; i < n; ++i) { bytes += footprint_of(look(i)); }
        }
        if (self().journal() != nullptr) [[unlikely]] {
            shipment all;
            for (std::size_t i = 0; i < n; ++i) {
                if (failure why = self().journal()->pack(all, look(i), nullptr); why.kind() != errc{}) { return why; }
                if (i == 0) { all.expect_alike(n); }
            }
            return store(all, n, bytes, nullptr, deadline, stop);
        }
        const auto once = [&] { return attempt_many(n, bytes, look, put); };
        result<offset> done = once();
        if (!done && done.error() == errc::full && self().room().rule() == overflow::block) { done = wait_for_room(once, n, deadline, stop); }
        return done;
    }

    /// Appends one message, waiting for room as `send` does; its outcome in a receipt.
    template <class Receipt, class Read>
    Receipt send_async(T& value, properties* props, Read read) {
        if (self().journal() == nullptr) {
            result<offset> done = send(value, props, clock::never, stop_token());
            return Receipt(done ? result<std::invoke_result_t<Read, offset>>(read(*done)) : result<std::invoke_result_t<Read, offset>>(done.error()));
        }
        shipment one;
        if (failure why = self().journal()->pack(one, value, props); why.kind() != errc{}) { return Receipt(std::move(why)); }
        pending_outcome* pending = nullptr;
        result<offset> done = store(one, 1, footprint_of(value), props, clock::never, stop_token(), &pending);
        if (pending != nullptr) { return Receipt(*pending, +read); }
        return Receipt(done ? result<std::invoke_result_t<Read, offset>>(read(*done)) : result<std::invoke_result_t<Read, offset>>(done.error()));
    }

    /// Messages for this log that a transaction sends.
    using lot = detail::lot<T, Self>;

    // side_door
    const void* id_keeper() noexcept override { return self().known_ids(); }
    void lock_ids() noexcept override {
        if (self().known_ids() != nullptr) { static_cast<void>(self().known_ids()->lock().release()); }
    }
    void unlock_ids() noexcept override {
        if (self().known_ids() != nullptr) { self().known_ids()->unlock(); }
    }
    bool adopt(const properties& p, std::size_t bytes) override {
        deduplicator* const ids = self().known_ids();
        if (ids != nullptr && !p.id.empty() && ids->find(p.id, self().time_of().clock().now()) != no_offset) {
            note_refused({.duplicates = 1});
            return false;
        }
        self().room().force(1, bytes);
        return true;
    }
    void adopted(const properties& p, offset place) noexcept override {
        deduplicator* const ids = self().known_ids();
        if (ids == nullptr || p.id.empty()) { return; }
        const duration now = self().time_of().clock().now();
        try {
            if (ids->find_or_note(p.id, now) == no_offset) { ids->sent(p.id, self().named(place), now); }
        } catch (...) {} // no memory: a duplicate of it may pass
    }
    void not_adopted(const properties& p, std::size_t bytes, offset place) noexcept override {
        self().room().take_back(1, bytes);
        deduplicator* const ids = self().known_ids();
        if (ids == nullptr || p.id.empty() || place == no_offset) { return; }
        const auto lock = ids->lock();
        ids->revoke(p.id, self().named(place));
    }
    void lost(std::string&& id, std::size_t n, std::size_t bytes, offset place) noexcept override {
        {
            const std::lock_guard lock(losing_);
            try {
                lost_.push_back({std::move(id), n, bytes, place});
            } catch (...) {} // no memory: it counts until the endpoint is opened again
            has_lost_.store(true, std::memory_order_release);
        }
        self().room().wake_all(); // whoever waits for room looks again
    }
    void came(const properties& p, offset place) noexcept override {
        if (p.delay > duration::zero() || p.time_to_live > duration::zero()) {
            const duration sent = self().time_of().clock().now();
            self().note_timed(place, p.time_to_live > duration::zero() ? later(sent, p.time_to_live) : clock::never);
        }
    }

protected:
    explicit intake(typename stream<T>::readers r = stream<T>::readers::one, loader<T>* from = nullptr) noexcept : stream_(r, from) {}
    ~intake() = default;

    void note_refused(const refusals& more) noexcept {
        duplicates_.fetch_add(more.duplicates, std::memory_order_relaxed);
        dropped_newest_.fetch_add(more.dropped, std::memory_order_relaxed);
        if (self().journal() != nullptr) { self().journal()->refused(more); }
    }
    /// Goes on counting where it stopped before.
    void restore_refused() noexcept {
        duplicates_.fetch_add(self().journal()->refused_before().duplicates, std::memory_order_relaxed);
        dropped_newest_.fetch_add(self().journal()->refused_before().dropped, std::memory_order_relaxed);
    }

    stream<T> stream_;
    std::atomic<std::uint64_t> duplicates_{0};
    std::atomic<std::uint64_t> dropped_newest_{0};

    struct lost_send {
        std::string id;
        std::size_t messages = 0, bytes = 0;
        offset place = 0;
    };
    brief_mutex losing_;
    std::vector<lost_send> lost_;
    std::atomic<bool> has_lost_{false};

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }

    // One attempt to append; `errc::full` where there is no room.
    result<offset> attempt(outgoing<T>& out, std::unique_ptr<envelope>& cover, const numbered* by = nullptr) {
        const std::size_t bytes = footprint_of(out.look());
        if (stream_.closed()) { return errc::closed; }
        if (!self().room().could_ever_hold(1, bytes)) { return too_large(); }
        const bool identified = self().known_ids() != nullptr && cover != nullptr && !cover->props.id.empty();
        for (bool caught_up = false;;) {
            typename stream<T>::taken place{};
            bool full = false;
            {
                std::unique_lock<std::mutex> numbers, lock;
                if (by != nullptr) {
                    numbers = self().producers().lock();
                    if (offset before = no_offset; self().producers().was_sent(*by, before)) {
                        note_refused({.duplicates = 1});
                        return before;
                    }
                }
                duration now{};
                if (identified) {
                    lock = self().known_ids()->lock();
                    now = self().time_of().clock().now();
                    const offset original = self().known_ids()->find_or_note(cover->props.id, now);
                    if (original != no_offset) {
                        note_refused({.duplicates = 1});
                        return original;
                    }
                }
                const undo_note undo{identified ? self().known_ids() : nullptr, cover.get(), now, place.taken};
                // One that is lent, and has no times of its own, is a plain message but for its way back.
                const bool exact = cover != nullptr && (cover->lent.home == nullptr || cover->props.delay > duration::zero() ||
                                                        cover->props.time_to_live > duration::zero());
                const duration sent = exact ? self().time_of().clock().now() : self().time_of().coarse();
                place = self().room().reserve(stream_, 1, bytes, sent, full);
                if (place.taken) {
                    if (identified) { self().known_ids()->sent(cover->props.id, self().named(place.first), now); }
                    if (by != nullptr) { self().producers().placed(*by, self().named(place.first)); }
                    const duration expires = publish(place.first, out, cover, sent, bytes);
                    lock = std::unique_lock<std::mutex>();
                    numbers = std::unique_lock<std::mutex>(); // what follows may run foreign code
                    if (expires != not_timed) { self().note_timed(place.first, expires); }
                    self().appended(place.first, 1);
                    const offset name = self().named(place.first);
                    if (place.wake) { self().wake(1); }
                    return name;
                }
            }
            if (!full) { return errc::closed; }
            if (!caught_up && self().next_due() <= self().time_of().now()) {
                self().catch_up(); // what has expired makes room
                caught_up = true;
                continue;
            }
            if (self().make_room(1, bytes)) { continue; }
            return no_room(1);
        }
    }

    template <class Look, class Put>
    result<offset> attempt_many(std::size_t n, std::size_t bytes, Look& look, Put& put) {
        if (stream_.closed()) { return errc::closed; }
        if (!self().room().could_ever_hold(n, bytes)) { return too_large(); }
        for (bool caught_up = false;;) {
            bool full = false;
            const duration now = self().time_of().coarse();
            const auto place = self().room().reserve(stream_, n, bytes, now, full);
            if (place.taken) {
                for (std::size_t i = 0; i < n;) { // block by block
                    slot_block& b = *stream_.at(place.first + i);
                    const std::uint32_t from = index_in_span(place.first + i);
                    const std::uint32_t to = static_cast<std::uint32_t>(std::min<std::size_t>(span, from + (n - i)));
                    const std::uint64_t word = b.word_at(now);
                    b.expect_writes(from, to);
                    for (std::uint32_t at = from; at < to; ++at, ++i) {
                        if constexpr (sizes<T>::varies) { b.set_size(at, footprint_of(look(i))); }
                        put(i, b.slots[at].value);
                        b.slots[at].ready.store(word, std::memory_order_release);
                    }
                }
                self().appended(place.first, n);
                const offset name = self().named(place.first);
                if (place.wake) { self().wake(n); }
                return name;
            }
            if (!full) { return errc::closed; }
            if (!caught_up && self().next_due() <= self().time_of().now()) {
                self().catch_up();
                caught_up = true;
                continue;
            }
            if (self().make_room(n, bytes)) { continue; }
            return no_room(n);
        }
    }

    // ------------------------------------------------------------------------------------------------------------------ into a journal

    // Encoded first, outside any lock; then a place is asked for; then the commit is waited for. `deadline`: duration::min() never waits for room.
    result<offset> store(const T& value, const properties* props, duration deadline, const stop_token& stop) {
        if (props == nullptr) {
            if (const offset place = append_stored(value); place != no_offset) { return place; }
        }
        shipment one;
        if (failure why = self().journal()->pack(one, value, props); why.kind() != errc{}) { return why; }
        return store(one, 1, footprint_of(value), props, deadline, stop);
    }
    result<offset> store(shipment& all, std::size_t n, std::size_t bytes, const properties* props, duration deadline, const stop_token& stop,
                         pending_outcome** pending = nullptr) {
        const auto once = [&] { return attempt_to_store(all, n, bytes, props, pending); };
        result<offset> done = once();
        if (!done && done.error() == errc::full && self().room().rule() == overflow::block && deadline != duration::min()) {
            done = wait_for_room(once, n, deadline, stop);
        }
        return done;
    }
    // A duplicate is answered for when the original is: it is as durable, or it was lost.
    result<offset> answer_for(offset original) {
        link<T>& to = *self().journal();
        to.push();
        if (!to.commits() || original == no_offset || self().is_visible(original)) { return original; }
        return failure(errc::io, "what this message is a duplicate of could not be stored, just now");
    }
    // What was sent without waiting, and could not be kept, counts no more.
    void take_back_lost() noexcept {
        if (!has_lost_.load(std::memory_order_acquire)) [[likely]] { return; }
        std::vector<lost_send> all;
        {
            const std::lock_guard lock(losing_);
            all.swap(lost_);
            has_lost_.store(false, std::memory_order_relaxed);
        }
        for (const lost_send& l : all) {
            self().room().take_back(l.messages, l.bytes);
            if (l.id.empty() || self().known_ids() == nullptr) { continue; }
            const auto lock = self().known_ids()->lock();
            self().known_ids()->revoke(l.id, self().named(l.place));
        }
    }
    result<offset> attempt_to_store(shipment& all, std::size_t n, std::size_t bytes, const properties* props, pending_outcome** pending) {
        link<T>& to = *self().journal();
        if (stream_.closed()) { return errc::closed; }
        if (!self().room().could_ever_hold(n, bytes)) { return too_large(); }
        const bool identified = self().known_ids() != nullptr && props != nullptr && !props->id.empty();
        for (bool caught_up = false, pushed = false;;) {
            take_back_lost();
            placed p;
            ticket t;
            {
                std::unique_lock<std::mutex> numbers, lock;
                if (all.by != nullptr) {
                    numbers = self().producers().lock();
                    if (offset before = no_offset; self().producers().was_sent(*all.by, before)) {
                        note_refused({.duplicates = 1});
                        numbers.unlock();
                        return answer_for(before);
                    }
                }
                duration now{};
                if (identified) {
                    lock = self().known_ids()->lock();
                    now = self().time_of().clock().now();
                    const offset original = self().known_ids()->find_or_note(props->id, now);
                    if (original != no_offset) {
                        note_refused({.duplicates = 1});
                        all.was_known = true;
                        lock.unlock();
                        return answer_for(original);
                    }
                }
                struct undo {
                    deduplicator* ids;
                    const properties* props;
                    const duration& now;
                    const placed& p;
                    ~undo() {
                        if (ids != nullptr && !p.taken) { ids->not_sent(props->id, now); }
                    }
                } const undo_later{identified ? self().known_ids() : nullptr, props, now, p};
                p = self().room().reserve(to, n, bytes, [&](const admission& admit) {
                    if (pending == nullptr) { return to.place(all, admit, to.commits() ? &t : nullptr); }
                    placed sent;
                    *pending = to.promise(&all, admit, sent, no_offset, identified || self().room().limited(), identified ? props->id : std::string(),
                                          bytes);
                    return sent;
                });
                if (p.taken && identified) { self().known_ids()->sent(props->id, self().named(p.first), now); }
                if (p.taken && all.by != nullptr) { self().producers().placed(*all.by, self().named(p.first)); }
            }
            if (p.taken) {
                if (pending != nullptr) {
                    if (stream_.has_waiters()) { self().wake(1); } // he commits
                } else if (to.commits()) {
                    to.wait(t);
                    if (t.why.kind() != errc{}) {
                        self().room().take_back(n, bytes);
                        if (identified) {
                            const auto lock = self().known_ids()->lock();
                            self().known_ids()->revoke(props->id, self().named(p.first));
                        }
                        if (all.by != nullptr) { self().producers().not_kept(*all.by); }
                        return t.why;
                    }
                } else if (stream_.has_waiters()) {
                    self().wake(1);
                }
                if (all.by != nullptr) { self().producers().kept(*all.by); }
                if (props != nullptr && (props->delay > duration::zero() || props->time_to_live > duration::zero())) {
                    const duration sent = self().time_of().clock().now();
                    self().note_timed(p.first, props->time_to_live > duration::zero() ? later(sent, props->time_to_live) : clock::never);
                }
                return self().named(p.first);
            }
            if (!p.full) { return p.why.kind() == errc{} ? failure(errc::closed) : p.why; }
            if (!pushed && to.push()) { // what is not visible yet cannot make room
                pushed = true;
                continue;
            }
            if (!caught_up && self().next_due() <= self().time_of().now()) {
                self().catch_up();
                caught_up = true;
                continue;
            }
            if (self().make_room(n, bytes)) { continue; }
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
        if (self().room().rule() == overflow::drop_newest) {
            note_refused({.dropped = n});
            return no_offset;
        }
        return errc::full;
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
        b.set_size(i, bytes);
        out.into(b.slots[i].value);
        b.slots[i].ready.store(word, std::memory_order_release);
        return expires;
    }
    template <class Attempt>
    result<offset> wait_for_room(Attempt attempt_once, std::size_t n, duration deadline, const stop_token& stop) {
        clock& c = self().time_of().clock();
        auto& room = self().room();
        for (;;) {
            if (stop.stop_requested()) { return errc::full; }
            if (deadline != clock::never && c.now() >= deadline) { return errc::timed_out; }
            if (const duration patience = c.patience(); patience > duration::zero()) {
                const duration until = std::min(deadline, c.now() + patience);
                for (unsigned round = 0; c.now() < until && !room.has_ample_room(stream_.head(), n); ++round) { c.relax(round); }
            }
            result<offset> done = attempt_once();
            if (done || done.error() != errc::full) { return done; }
            {
                thread_waiter waiting(c);
                room.join(waiting, n);
                struct leaving {
                    decltype(room) where;
                    thread_waiter& who;
                    std::size_t n;
                    bool waited = false;
                    ~leaving() {
                        if (where.leave(who, n)) { return; }
                        who.settle();
                        if (!waited) { where.wake(1); } // the room that was announced is another's
                    }
                } leave_later{room, waiting, n};
                done = attempt_once();
                if (done || done.error() != errc::full) { return done; }
                leave_later.waited = true;
                const stop_callback wake_up(stop, [&waiting]() noexcept { waiting.interrupt(); });
                if (!stop.stop_requested()) { waiting.park(std::min(deadline, self().next_due())); }
            }
            done = attempt_once();
            if (done || done.error() != errc::full) { return done; }
        }
    }
};

} // namespace mailroom::detail
