// The memory store: a stream, one cursor over it, and what a queue of `T` in memory is made of besides: bounds, waiting, deduplication.
//
// Threads: every member may be called from any thread. Locks: none on the plain path of sending, receiving and settling. Where several are
// held, the order is the cursor's, deduplication's, a wait list's; foreign code runs under none.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/dead_letters.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/intake.hpp>
#include <mailroom/store/shelf.hpp>
#include <mailroom/store/source.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// The core of a queue in memory. Made with `new`; its endpoint calls `abandon` instead of deleting it.
template <class T>
class memory_core final : private settler, public intake<T>, public source<T>, private timed { // `settler` first: its calls need no adjustment
    using typename shelf<T>::node;
    using typename shelf<T>::slot_block;
    using intake<T>::bounds_;
    using intake<T>::forget_id;
    using shelf<T>::clock_;
    using shelf<T>::coarse;
    using shelf<T>::cursor_;
    using shelf<T>::size_of;
    using shelf<T>::stream_;
    using shelf<T>::wait_until_written;

public:
    using shelf<T>::wall;

    explicit memory_core(const queue_options<T>& o)
        : intake<T>(o.clock != nullptr ? *o.clock : system_clock(), o), lease_(o.lease), time_to_live_(o.time_to_live),
          has_priorities_(o.priorities > 1) {
        clock_.attach(*this);
    }

    /// The endpoint goes. Deliveries that are out stay valid; the last of them, or of the consumers, frees this.
    void abandon() noexcept {
        clock_.detach(*this);
        gone_.store(true, std::memory_order_seq_cst);
        close();
        cursor_.orphan([this](std::size_t out) { this->refer(out); });
        bounds_.abandon();
        wake_all();
        this->unrefer();
    }

    // ----------------------------------------------------------------------------------------------------------------------- receiving

    /// Up to `max` deliveries to `sink(x)`, which may not throw; x converts to a delivery<T>, once. Never waits.
    template <class Sink>
    std::size_t take(std::size_t max, Sink sink) {
        const auto give = [&](entry& e) { sink(maker{*this, static_cast<const T*>(e.body), e.cover, {&e, e.turn, e.attempt, e.offset}}); };
        if (cursor_.is_always_index()) { return cursor_.claim_index(max, give); }
        const duration t = coarse();
        const auto now = [t] { return t; };
        for (;;) {
            if (!cursor_.lane_is_open(now)) {
                const std::size_t n = cursor_.claim_index(max, give);
                if (n != 0 || cursor_.paused() || is_gone()) { return n; }
            }
            const std::size_t n = take_lane(max, t, sink);
            if (n != again) { return n; }
        }
    }

    /// Up to `max` messages, settled, to `sink(x)`; x converts to a message<T>, once. Never waits.
    template <class Sink>
    std::size_t pop(std::size_t max, Sink sink) {
        for (bool passed_over = false;;) {
            if (!cursor_.lane_is_open([this] { return coarse(); })) {
                const std::size_t n =
                    cursor_.pop_index(max, std::is_copy_constructible_v<T>, passed_over, [&](entry& e, bool& out) { pop_entry(e, out, sink); });
                if (n != 0 || cursor_.is_always_index() || cursor_.paused() || is_gone()) { return n; }
            }
            const std::size_t n = pop_lane(max, passed_over, sink);
            if (n != again) { return n; }
        }
    }

    /// Calls `attempt()` until it answers true, and waits in between until `deadline` or a stop. False: the wait is over without.
    template <class Attempt>
    bool wait_for_messages(Attempt attempt_once, duration deadline, const stop_token& stop) {
        for (unsigned round = 0;;) {
            if (attempt_once()) { return true; }
            switch (look_ahead()) {
            case outlook::finished: return false;
            case outlook::again: clock_.relax(round++); continue;
            case outlook::wait: break;
            }
            if (stop.stop_requested()) { return false; }
            if (deadline != clock::never && clock_.now() >= deadline) { return false; }
            if (look_again_soon(deadline, stop)) { continue; }
            thread_waiter self(clock_);
            join(self);
            if (!may_have() && look_ahead() == outlook::wait) {
                const stop_callback wake_up(stop, [&self]() noexcept { self.interrupt(); });
                if (!stop.stop_requested()) { self.park(std::min(deadline, cursor_.deadline())); }
            }
            if (!leave(self)) { self.settle(); }
        }
    }

    // ----------------------------------------------------------------------------------------------------------------------- the whole

    void close() noexcept {
        stream_.close();
        cursor_.set_closing();
        wake_all();
        bounds_.wake_all();
    }
    bool drain(duration deadline) {
        close();
        for (unsigned round = 0;;) {
            cursor_.step();
            const cursor::rest left = cursor_.remaining();
            if (left == cursor::rest::nothing) { return true; }
            if (left == cursor::rest::momentarily) {
                clock_.relax(round++);
                continue;
            }
            if (deadline != clock::never && clock_.now() >= deadline) { return false; }
            watch([&] { return cursor_.remaining() != cursor::rest::some; }, deadline);
        }
    }
    void pause(bool on) noexcept { cursor_.pause(on); }
    std::size_t purge() { return cursor_.purge(); }

    stats statistics() noexcept {
        const cursor::counters c = cursor_.count();
        stats s;
        s.ready = c.ready;
        s.in_flight = c.in_flight;
        s.parked = c.parked;
        s.dead = c.dead;
        s.sent = stream_.head();
        s.acked = c.acked;
        s.redelivered = c.redelivered;
        s.expired = c.expired;
        s.dropped = c.dropped + this->dropped_newest_.load(std::memory_order_relaxed);
        s.duplicates = this->duplicates_.load(std::memory_order_relaxed);
        s.bytes = c.bytes;
        if (c.oldest != clock::never) { s.oldest_age = std::max(duration::zero(), clock_.now() - c.oldest); }
        return s;
    }

    template <class Fn>
    void browse(Fn fn) {
        cursor_.browse([&](const entry& e, entry::place where) {
            const auto m =
                message_access::make<T>(const_cast<T*>(static_cast<const T*>(e.body)), static_cast<const envelope*>(e.cover), wall(e.sent), e.offset);
            const auto state = where == entry::place::leased   ? message_state::in_flight
                               : where == entry::place::parked ? message_state::parked
                                                               : message_state::ready;
            return static_cast<bool>(fn(m, state));
        });
    }

    // -------------------------------------------------------------------------------------------------------------------- dead letters

    /// Calls `attempt_once()` until it answers true, waiting in between for somebody to die.
    template <class Attempt>
    bool wait_for_dead(Attempt attempt_once, duration deadline) {
        for (;;) {
            if (attempt_once()) { return true; }
            if (is_gone() || (deadline != clock::never && clock_.now() >= deadline)) { return false; }
            watch(attempt_once, deadline);
        }
    }
    dead_letters<T>& dead() noexcept { return dead_letters_; }
    cursor& dead_side() noexcept { return cursor_; }
    /// The settler of dead letters: `ack` ends one, everything else puts it back.
    settler& dead_settler() noexcept { return dead_; }
    bool revive(const handle& at) noexcept { return dead_.finish(at, cursor::dead_verb::revive); }

    // -------------------------------------------------------------------------------------------------------------------------- source

    std::optional<delivery<T>> take_one() override {
        std::optional<delivery<T>> out;
        take(1, [&out](const auto& made) { out.emplace(made); });
        return out;
    }
    std::size_t take_some(std::vector<delivery<T>>& out, std::size_t max, duration deadline, const stop_token& stop) override {
        if (max == 0) { return 0; }
        std::size_t got = 0;
        const auto some = [&] {
            while (got < max) {
                const std::size_t n = std::min<std::size_t>(max - got, span);
                if (out.capacity() - out.size() < n) { out.reserve(std::max(out.size() + n, 2 * out.capacity())); }
                const std::size_t more = take(n, [&out](const auto& made) { out.emplace_back(made); });
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
    outlook look_ahead() noexcept override {
        if (is_gone()) { return outlook::finished; }
        if (!stream_.closed()) { return outlook::wait; }
        switch (cursor_.remaining()) {
        case cursor::rest::nothing: return outlook::finished;
        case cursor::rest::momentarily: return outlook::again;
        case cursor::rest::some: break;
        }
        return outlook::wait;
    }
    bool may_have() const noexcept override { return cursor_.may_have(stream_.head()) || cursor_.deadline() <= clock_.now(); }
    duration next_due() const noexcept override { return cursor_.deadline(); }
    void catch_up() noexcept override { cursor_.step(); }
    void join(waiter& w) noexcept override {
        receivers_.add(w, [this] { stream_.announce_waiter(); });
    }
    bool leave(waiter& w) noexcept override {
        return receivers_.remove(w, [this] { stream_.nobody_waits(); });
    }
    bool renew(offset o, int, std::uint32_t attempt, duration lease) noexcept override { return cursor_.extend(o, attempt, lease); }
    std::size_t backlog() const noexcept override {
        const offset head = stream_.head();
        const offset next = cursor_.next();
        return head > next ? static_cast<std::size_t>(head - next) : 0;
    }
    clock& time() const noexcept override { return clock_; }
    duration lease() const noexcept override { return lease_; }
    bool has_priorities() const noexcept override { return has_priorities_; }

private:
    // Becomes a delivery where it is wanted: moving one would read at once what was just written in smaller pieces, and wait for it.
    struct maker {
        settler& owner;
        const T* body;
        const envelope* cover;
        handle at;
        operator delivery<T>() const noexcept { return delivery_access::make<T>(owner, body, cover, at); }
    };
    static constexpr std::size_t again = static_cast<std::size_t>(-1);

    struct dead_letter_settler final : settler {
        explicit dead_letter_settler(memory_core& c) noexcept : core(c) {}
        using verb = cursor::dead_verb;
        bool finish(const handle& at, verb what) noexcept {
            const cursor::outcome o = core.cursor_.settle_dead(*static_cast<entry*>(at.where), what);
            if (o.orphan) { core.unrefer(); }
            return o.done;
        }
        bool ack(const handle& at) noexcept override { return finish(at, verb::remove); }
        bool nack(const handle& at) noexcept override { return finish(at, verb::put_back); }
        bool nack_after(const handle& at, duration) noexcept override { return finish(at, verb::put_back); }
        bool release(const handle& at) noexcept override { return finish(at, verb::put_back); }
        bool reject(const handle& at, std::string) noexcept override { return finish(at, verb::put_back); }
        bool extend(const handle&, duration) noexcept override { return true; } // a dead letter has no lease to run out
        time_point sent_at(const handle& at) const noexcept override { return core.wall(static_cast<entry*>(at.where)->sent); }
        memory_core& core;
    };

    ~memory_core() { cursor_.clear(); }
    void destroy() noexcept override { delete this; }

    bool is_gone() const noexcept { return gone_.load(std::memory_order_seq_cst); }

    // Waits, unless `met()` by then, for what wakes the watchers.
    template <class Met>
    void watch(Met met, duration deadline) {
        thread_waiter self(clock_);
        watchers_.add(self, nothing());
        struct leaving {
            wait_list& list;
            thread_waiter& self;
            ~leaving() {
                if (!list.remove(self, nothing())) { self.settle(); }
            }
        } const leave_later{watchers_, self};
        if (!met()) { self.park(std::min(deadline, cursor_.deadline())); }
    }

    // After an empty look: a short while of looking again, before the thread is put to sleep.
    bool look_again_soon(duration deadline, const stop_token& stop) {
        const duration patience = clock_.patience();
        if (patience == duration::zero()) { return false; }
        for (unsigned i = 0; i < 16; ++i) {
            pause();
            if ((i & 1) != 0 && cursor_.may_have(stream_.head())) { return true; }
        }
        const duration until = std::min(deadline, clock_.now() + patience);
        while (clock_.now() < until && !stop.stop_requested()) {
            clock_.relax(64);
            if (may_have()) { return true; }
        }
        return false;
    }
    static void pause() noexcept { mailroom::detail::pause(); }

    bool may_go_now(const slot_block& b, std::uint64_t word) const noexcept {
        const duration now = clock_.now();
        const envelope* const e = b.enveloped(word);
        if (e != nullptr && e->due > now) { return false; }
        if (e != nullptr && e->expires != clock::never) { return e->expires > now; }
        return time_to_live_ == duration::zero() || now - b.sent(word) < time_to_live_;
    }
    bool is_untimed(std::uint64_t word) const noexcept { return (word & slot_timed) == 0 && time_to_live_ == duration::zero(); }

    // Working through a backlog, a receiver would wait for each line in turn: an atomic claim lets nothing overtake it. Of several, the
    // last is waited for first: with the eyes on each in turn one would follow its sender from line to line, in its way at each.
    void foresee(const cursor::lane_claim& claim, const slot_block& b) const noexcept {
        if (claim.count > 4) {
            const std::uint32_t first = index_in_span(claim.first), last = first + static_cast<std::uint32_t>(claim.count) - 1;
            wait_until_written(b.slots[last]);
            b.expect_reads(first, last + 1);
        } else if (claim.known > 2 * span) {
            b.expect_reads(index_in_span(claim.first));
        }
    }

    template <class Sink>
    std::size_t take_lane(std::size_t max, duration t, Sink& sink) {
        const cursor::lane_claim claim = cursor_.claim_lane(
            max, [this] { return stream_.head(); }, false, t);
        if (claim.count == 0) { return claim.index_first ? again : 0; }
        page& p = *claim.where;
        slot_block& b = *static_cast<slot_block*>(p.block);
        foresee(claim, b);
        cursor_.expect_lease(p, t);
        const std::uint64_t leased = cursor_.lease_word(t);
        std::size_t got = 0;
        const std::uint32_t first = index_in_span(claim.first);
        for (std::uint32_t i = first; i < first + claim.count; ++i) {
            slot<T>& s = b.slots[i];
            const std::uint64_t word = wait_until_written(s);
            if (!is_untimed(word) && !may_go_now(b, word)) {
                cursor_.divert(p, i);
                continue;
            }
            p.state[i].store(leased, std::memory_order_release);
            sink(maker{*this, s.value.get(), b.enveloped(word), {&p, 0, 1, p.first + i}});
            ++got;
        }
        return got != 0 ? got : again;
    }

    // Becomes a message where it is wanted, and with that it is settled, whatever its receiver does next.
    struct taking {
        memory_core& core;
        slot_block& block;
        page& where;
        std::uint32_t& next; // is moved on
        std::uint64_t word;
        operator message<T>() const {
            struct settling {
                const taking& t;
                const std::uint32_t at = t.next++;
                ~settling() { t.core.popped(t.block, t.where, at); }
            } const at_end{*this};
            std::unique_ptr<envelope> cover(block.enveloped(word));
            const duration sent = cover != nullptr ? cover->sent : block.sent(word);
            const offset place = where.first + at_end.at;
            if (cover != nullptr) { core.forget_id(cover->props, place); }
            return block.slots[at_end.at].value.take([&](auto&& value) {
                return message_access::make<T>(std::forward<decltype(value)>(value), std::move(cover), core.wall(sent), place);
            });
        }
    };

    template <class Sink>
    std::size_t pop_lane(std::size_t max, bool past_index, Sink& sink) {
        const cursor::lane_claim claim = cursor_.claim_lane(
            max, [this] { return stream_.head(); }, past_index);
        if (claim.count == 0) { return claim.index_first ? again : 0; }
        page& p = *claim.where;
        slot_block& b = *static_cast<slot_block*>(p.block);
        foresee(claim, b);
        std::size_t got = 0;
        std::uint32_t i = index_in_span(claim.first);
        const std::uint32_t end = i + static_cast<std::uint32_t>(claim.count);
        // Should the sink throw, the rest of what was claimed goes back.
        struct remainder {
            cursor& c;
            page& p;
            std::uint32_t& i;
            const std::uint32_t end;
            ~remainder() {
                for (; i < end; ++i) { c.divert(p, i); }
            }
        } const rest{cursor_, p, i, end};
        while (i < end) {
            const std::uint64_t word = wait_until_written(b.slots[i]);
            if (!is_untimed(word) && !may_go_now(b, word)) {
                cursor_.divert(p, i++);
                continue;
            }
            ++got;
            sink(taking{*this, b, p, i, word});
        }
        return got != 0 ? got : again;
    }
    void popped(slot_block& b, page& p, std::uint32_t i) noexcept {
        if (bounds_.limited()) { bounds_.left(1, static_cast<std::int64_t>(size_of(b, i))); }
        p.state[i].store(lane_state::released, std::memory_order_release);
        // Who closed before the claim is seen here; who closes after it finds the claim, and looks again until it is over.
        if (cursor_.closing()) [[unlikely]] { wake_all(); }
    }

    // ------------------------------------------------------------------------------------------------------------------------- settler

    bool ack(const handle& at) noexcept override {
        if (at.turn == 0) {
            page& p = *static_cast<page*>(at.where);
            const std::uint32_t i = index_in_span(at.place);
            if (cursor::end_lease(p, i)) {
                end_plain(p, i);
                return true;
            }
        }
        return settle(at, cursor::verb::ack);
    }
    bool nack(const handle& at) noexcept override { return settle(at, cursor::verb::nack); }
    bool nack_after(const handle& at, duration after) noexcept override { return settle(at, cursor::verb::nack_after, after); }
    bool release(const handle& at) noexcept override { return settle(at, cursor::verb::release); }
    bool reject(const handle& at, std::string reason) noexcept override { return settle(at, cursor::verb::reject, {}, std::move(reason)); }
    bool extend(const handle& at, duration lease) noexcept override { return cursor_.extend(at, lease); }
    time_point sent_at(const handle& at) const noexcept override {
        if (at.turn != 0) { return wall(static_cast<const entry*>(at.where)->sent); }
        const slot_block& b = *static_cast<const slot_block*>(static_cast<const page*>(at.where)->block);
        const std::uint32_t i = index_in_span(at.place);
        return wall(b.sent(b.slots[i].ready.load(std::memory_order_relaxed)));
    }

    bool settle(const handle& at, cursor::verb what, duration after = duration::zero(), std::string reason = std::string()) noexcept {
        const cursor::outcome o = cursor_.settle(at, what, after, std::move(reason));
        if (o.orphan) { this->unrefer(); }
        return o.done;
    }

    // The end of a plain message whose lease word says `ended`. Storing `released` is the last that touches the core.
    void end_plain(page& p, std::uint32_t i) noexcept {
        slot_block& b = *static_cast<slot_block*>(p.block);
        slot<T>& s = b.slots[i];
        const std::uint64_t word = s.ready.load(std::memory_order_relaxed);
        if (const std::unique_ptr<envelope> cover{b.enveloped(word)}) { forget_id(cover->props, p.first + i); }
        if constexpr (!body<T>::trivial) { s.value.drop(); }
        if (bounds_.limited()) { bounds_.left(1, static_cast<std::int64_t>(size_of(b, i))); }
        if (cursor_.closing()) { wake_all(); }
        p.state[i].store(lane_state::released, std::memory_order_release);
    }

    // --------------------------------------------------------------------------------------------------------------------- cursor_host

    template <class Sink>
    void pop_entry(entry& e, bool& out, Sink& sink) {
        const auto make = [&](auto&& value, std::unique_ptr<envelope> cover) {
            return message_access::make<T>(std::forward<decltype(value)>(value), std::move(cover), wall(e.sent), e.offset);
        };
        if (!e.shared) {
            body<T>& value = e.node != nullptr ? static_cast<node*>(e.node)->value : static_cast<slot_block*>(e.home->block)->slots[e.index].value;
            message<T> m =
                value.take([&](auto&& v) { return make(std::forward<decltype(v)>(v), std::unique_ptr<envelope>(std::exchange(e.cover, nullptr))); });
            e.body = nullptr; // it has ended here
            out = true;
            sink(std::move(m));
        } else if constexpr (std::is_copy_constructible_v<T>) { // a late holder, or somebody who browses, still looks at it
            const T& original = *static_cast<const T*>(e.body);
            std::unique_ptr<envelope> cover = e.cover != nullptr ? std::make_unique<envelope>(*e.cover) : nullptr;
            if constexpr (is_boxed<T>) {
                message<T> m = make(std::make_unique<T>(original), std::move(cover));
                out = true;
                sink(std::move(m));
            } else {
                message<T> m = make(T(original), std::move(cover));
                out = true;
                sink(std::move(m));
            }
        }
    }

    void wake(std::size_t n) noexcept override {
        if (n == SIZE_MAX) { somebody_died(); }
        for (std::size_t left = std::min(n, receivers_.size()); left != 0; --left) {
            fire(receivers_.take([this] { stream_.nobody_waits(); }));
        }
    }
    void wake_all() noexcept { wake(SIZE_MAX); }
    void somebody_died() noexcept override {
        for (std::size_t left = watchers_.size(); left != 0; --left) { fire(watchers_.take(nothing())); }
    }
    void hold() noexcept override { this->refer(); }
    void let_go() noexcept override { this->unrefer(); }
    static void fire(waiter* w) noexcept {
        if (w != nullptr) { w->wake(); }
    }

    // timed
    void step() noexcept override {
        cursor_.step();
        if (!is_gone()) { wake_all(); } // whoever waited for a time of its own looks at the clock
    }

    const duration lease_;
    const duration time_to_live_;
    const bool has_priorities_;
    wait_list receivers_;
    wait_list watchers_; // who drains, and who waits for dead letters: all are woken by what may concern one
    std::atomic<bool> gone_{false};
    dead_letter_settler dead_{*this};
    dead_letters<T> dead_letters_{*this};
};

} // namespace mailroom::detail
