// outlet<T>: where `T` meets cursor and stream. Hands out what the cursor claims, and settles it.
//
// Two kinds. A queue's outlet owns what it hands out: a settled body ends in its slot, a popped one leaves it, and what is stuck moves out.
// A topic's has a log that others read too: bodies stay where they are, and a popped message looks at the one in the log.
//
// Threads: every member may be called from any thread. Locks: none on the plain path, one where the cursor's index is asked.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/store/timing.hpp>
#include <mailroom/stream/block.hpp>
#include <mailroom/stream/stream.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace mailroom::detail {

/// `Self`, which derives from it, has
///     static constexpr bool shares;                    whether bodies belong to the log
///     stream<T>& log(); const timing& time_of();       what it reads, and when
///     bool is_gone(); void unrefer(); void wake_all();
///     void plain_left(const block<T>&, uint32_t);      a message of the lane is settled: bounds
///     void ended(envelope*, offset);                   and its envelope is no longer needed (only where it does not share)
///     bool filters(); bool lets_through(const T&, const envelope*);   (only where it shares)
///     many_left(const block<T>&, uint32_t mask);       several are settled, a bit for each (only where it shares)
///     int partition_number();
///     settler_home settlements();                      where they are noted
template <class T, class Self>
class outlet : public settler, protected cursor_host { // `settler` first: its calls need no adjustment
protected:
    using slot_block = block<T>;

    outlet(clock& c, const cursor_options& o)
        : cursor_(*this, c, o, o.shares_bodies || std::is_trivially_destructible_v<T>), time_to_live_(o.time_to_live) {}
    ~outlet() = default;

public:
    /// Up to `max` deliveries to `sink(x)`, which may not throw; x converts to a delivery<T>, once. Never waits.
    template <class Sink>
    std::size_t take(std::size_t max, Sink& sink, std::uint32_t claimant = 0) {
        if (cursor_.is_always_index()) { return take_index(max, sink, claimant); }
        const duration t = self().time_of().coarse();
        const auto now = [t] { return t; };
        for (;;) {
            if (!cursor_.lane_is_open(now)) {
                const std::size_t n = take_index(max, sink, claimant);
                if (n != 0 || cursor_.paused() || self().is_gone()) { return n; }
            }
            const std::size_t n = take_lane(max, t, sink);
            if (n != again) { return n; }
        }
    }

    /// Up to `max` messages, settled, to `sink(x)`; x converts to a message<T>, once. Never waits.
    template <class Sink>
    std::size_t pop(std::size_t max, Sink& sink, std::uint32_t claimant = 0) {
        for (bool passed_over = false;;) {
            if (!cursor_.lane_is_open([this] { return self().time_of().coarse(); })) {
                const std::size_t n = pop_index(max, passed_over, sink, claimant);
                if (n != 0 || cursor_.is_always_index() || cursor_.paused() || self().is_gone()) { return n; }
            }
            const std::size_t n = pop_lane(max, passed_over, sink);
            if (n != again) { return n; }
        }
    }

    /// The same as `pop`, `fn(body, properties)` called for each message in place.
    template <class Fn>
    std::size_t pop_each(std::size_t max, Fn& fn, std::uint32_t claimant = 0) {
        const auto look_at = [&fn](message<T>&& m) { fn(m.body(), m.props()); };
        if constexpr (Self::shares) {
            if (cursor_.lane_is_open([this] { return self().time_of().coarse(); })) {
                const std::size_t n = look_through_lane(max, fn);
                if (n != again) { return n; }
            }
        } else if constexpr (is_kept<T>) {
            if (self().log().is_loaded()) {
                exchanging<Fn> each{fn, T()};
                return pop(max, each, claimant);
            }
        }
        return pop(max, look_at, claimant);
    }

    cursor& state() noexcept { return cursor_; }
    /// The settler of dead letters: `ack` ends one, everything else puts it back.
    settler& dead_settler() noexcept { return dead_; }
    bool revive(const handle& at) noexcept { return dead_.finish(at, cursor::dead_verb::revive); }

protected:
    static constexpr std::size_t again = static_cast<std::size_t>(-1);

    Self& self() noexcept { return static_cast<Self&>(*this); }
    const Self& self() const noexcept { return static_cast<const Self&>(*this); }

    // Becomes a delivery where it is wanted: moving one would read at once what was just written in smaller pieces, and wait for it.
    struct maker {
        Self& owner;
        const T* body;
        const envelope* cover;
        handle at;
        operator delivery<T>() const noexcept { return delivery_access::make<T>(owner, body, cover, at, owner.partition_number()); }
    };

    bool may_go_now(const slot_block& b, std::uint64_t word) const noexcept {
        if (word == slot_lost) { return false; }
        const duration now = self().time_of().now();
        const envelope* const e = b.enveloped(word);
        if (e != nullptr && e->due > now) { return false; }
        if (e != nullptr && e->expires != clock::never) { return e->expires > now; }
        return time_to_live_ == duration::zero() || now - b.sent(word) < time_to_live_;
    }
    bool is_untimed(std::uint64_t word) const noexcept { return (word & slot_timed) == 0 && time_to_live_ == duration::zero(); }

    // Working through a backlog, a receiver would wait for each line in turn: an atomic claim lets nothing overtake it. Of several, the
    // last is waited for first: with the eyes on each in turn one would follow its sender from line to line, in its way at each.
    void foresee(const cursor::lane_claim& claim, const slot_block* b) const noexcept {
        if (Self::shares && b == nullptr) { return; }
        if (claim.count > 4) {
            const std::uint32_t first = index_in_span(claim.first), last = first + static_cast<std::uint32_t>(claim.count) - 1;
            if (!Self::shares) { written(*const_cast<slot_block*>(b), last); }
            b->expect_reads(first, last + 1);
        } else if (claim.known > 2 * span) {
            b->expect_reads(index_in_span(claim.first));
        }
    }
    std::uint64_t written(slot_block& b, std::uint32_t i) const noexcept { return self().log().written(b, i, self().time_of().clock()); }
    // A claimed message of the lane that is not for now: it goes to the index; or there is none.
    void set_aside(page& p, std::uint32_t i, std::uint64_t word) noexcept {
        if (word == slot_lost) {
            cursor_.leave_out(p, i);
        } else {
            cursor_.divert(p, i);
        }
    }

    template <class Sink>
    std::size_t take_lane(std::size_t max, duration t, Sink& sink) {
        const cursor::lane_claim claim = cursor_.claim_lane(
            max, [this] { return self().log().head(); }, false, t);
        if (claim.count == 0) { return claim.index_first ? again : 0; }
        page& p = *claim.where;
        slot_block* const b = static_cast<slot_block*>(p.block);
        foresee(claim, b);
        cursor_.expect_lease(p, t);
        const std::uint64_t leased = cursor_.lease_word(t);
        std::size_t got = 0;
        const std::uint32_t first = index_in_span(claim.first);
        const offset base = claim.first - first; // the page may go with the last of its slots
        for (std::uint32_t i = first; i < first + claim.count; ++i) {
            if constexpr (Self::shares) {
                if (cursor_.skip_absent(p, i)) { continue; }
            }
            slot<T>& s = b->slots[i];
            const std::uint64_t word = written(*b, i);
            if constexpr (Self::shares) {
                if (turns_away(p, *b, i, word)) { continue; }
            }
            if (!is_untimed(word) && !may_go_now(*b, word)) {
                set_aside(p, i, word);
                continue;
            }
            p.state[i].store(leased, std::memory_order_release);
            sink(maker{self(), s.value.get(), b->enveloped(word), {&p, 0, 1, base + i}});
            ++got;
        }
        return got != 0 ? got : again;
    }

    template <class Sink>
    std::size_t take_index(std::size_t max, Sink& sink, std::uint32_t claimant) {
        if constexpr (Self::shares) {
            if (self().filters()) { return take_sifted(max, sink, claimant); }
        }
        return cursor_.claim_index(
            max,
            [&](entry& e) {
                sink(maker{self(), static_cast<const T*>(e.body), e.cover, {&e, e.turn, e.attempt, e.offset}});
            },
            claimant);
    }

    // Claimed, and let through by the filter.
    struct claimed {
        const T* body;
        const envelope* cover;
        handle at;
        bool unsifted;
    };
    using claimed_some = std::array<claimed, span>;
    // Filters are foreign code: they are asked without the lock, about messages that are claimed. What is wanted is judged before it is handed
    // out: from then on its entry may go at any time.
    std::size_t claim_sifted(std::size_t max, std::uint32_t claimant, claimed_some& some) {
        for (;;) {
            if (cursor_.is_ordered()) { cursor_.sift(true); }
            std::array<cursor::verdict, span> verdicts;
            std::size_t n = 0, asked = 0, kept = 0;
            cursor_.claim_index(
                std::min<std::size_t>(max, span),
                [&](entry& e) {
                    some[n++] = {static_cast<const T*>(e.body), e.cover, {&e, e.turn, e.attempt, e.offset}, e.unsifted};
                },
                claimant);
            for (std::size_t i = 0; i < n; ++i) {
                const bool wanted = !some[i].unsifted || self().lets_through(*some[i].body, some[i].cover);
                if (some[i].unsifted) { verdicts[asked++] = {some[i].at, wanted}; }
                if (wanted) { some[kept++] = some[i]; }
            }
            if (asked != 0) {
                for (std::size_t orphans = cursor_.judge(verdicts.data(), asked); orphans != 0; --orphans) { self().unrefer(); }
            }
            if (kept != 0 || n == 0) { return kept; }
        }
    }
    template <class Sink>
    std::size_t take_sifted(std::size_t max, Sink& sink, std::uint32_t claimant) {
        claimed_some some;
        const std::size_t n = claim_sifted(max, claimant, some);
        for (std::size_t i = 0; i < n; ++i) { sink(maker{self(), some[i].body, some[i].cover, some[i].at}); }
        return n;
    }
    template <class Sink>
    std::size_t pop_sifted(std::size_t max, Sink& sink, std::uint32_t claimant) {
        claimed_some some;
        const std::size_t n = claim_sifted(max, claimant, some);
        std::size_t i = 0, got = 0;
        // Should the sink throw, the rest of what was claimed goes back.
        struct remainder {
            outlet& o;
            const claimed_some& some;
            const std::size_t& i;
            const std::size_t n;
            ~remainder() {
                for (std::size_t at = i; at < std::min(n, some.size()); ++at) { o.release(some[at].at); }
            }
        } const rest{*this, some, i, n};
        while (i < n) {
            const claimed& c = some[i++];
            const time_point when = sent_at(c.at);
            if (!settle(c.at, cursor::verb::pop)) { continue; } // its lease ran out while the filter was asked
            ++got;
            sink(message_access::look<T>(*this, c.body, c.cover, when, handle{c.at.where, c.at.turn + 1, c.at.attempt, c.at.place}));
        }
        return got;
    }
    // A claimed message of the lane, if the filter does not want it.
    bool turns_away(page& p, slot_block& b, std::uint32_t i, std::uint64_t word) noexcept {
        if (!self().filters() || word == slot_lost || self().lets_through(*b.slots[i].value.get(), b.enveloped(word))) { return false; }
        self().plain_left(b, i);
        cursor_.turn_away(p, i);
        if (cursor_.closing()) [[unlikely]] { self().wake_all(); }
        return true;
    }

    // ------------------------------------------------------------------------------------------------------------------------- popping

    // Becomes a message where it is wanted, and with that it is settled, whatever its receiver does next.
    struct taking {
        Self& core;
        slot_block& block;
        page& where;
        std::uint32_t& next; // is moved on
        std::uint64_t word;
        struct settling {
            const taking& t;
            const std::uint32_t at = t.next++;
            ~settling() { t.core.popped(t.block, t.where, at); }
        };
        /// The same in place of another value, whose buffer stays; returns what it was sent with.
        std::unique_ptr<envelope> exchange(T& with) const requires is_kept<T> {
            const settling at_end{*this};
            std::unique_ptr<envelope> cover(block.enveloped(word));
            if (cover != nullptr) { core.ended(*cover, where.first + at_end.at); }
            block.slots[at_end.at].value.exchange(with);
            return cover;
        }
        operator message<T>() const {
            const settling at_end{*this};
            const offset place = where.first + at_end.at;
            if constexpr (Self::shares) {
                const std::uint32_t at = at_end.at;
                return message_access::look<T>(core, block.slots[at].value.get(), block.enveloped(word), core.time_of().wall(block.sent(word)),
                                               handle{&where.state[at], 0, 1, place});
            } else {
                std::unique_ptr<envelope> cover(block.enveloped(word));
                const duration sent = cover != nullptr ? cover->sent : block.sent(word);
                if (cover != nullptr) { core.ended(*cover, place); }
                return block.slots[at_end.at].value.take([&](auto&& value) {
                    return message_access::make<T>(std::forward<decltype(value)>(value), std::move(cover), core.time_of().wall(sent), place);
                });
            }
        }
    };

    // Calls `fn` with what is popped. What was loaded for the one who pops has no sender who wants its buffer: it serves what is loaded next.
    template <class Fn>
    struct exchanging {
        Fn& fn;
        T passing;
        void operator()(message<T>&& m) { fn(m.body(), m.props()); }
        void operator()(const taking& t) {
            const std::unique_ptr<envelope> cover = t.exchange(passing);
            fn(std::as_const(passing), cover != nullptr ? cover->props : no_properties);
        }
    };

    template <class Sink>
    std::size_t pop_lane(std::size_t max, bool past_index, Sink& sink) {
        const cursor::lane_claim claim = cursor_.claim_lane(
            max, [this] { return self().log().head(); }, past_index);
        if (claim.count == 0) { return claim.index_first ? again : 0; }
        page& p = *claim.where;
        slot_block* const b = static_cast<slot_block*>(p.block);
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
                for (; i < end; ++i) {
                    if (!Self::shares || !c.skip_absent(p, i)) { c.divert(p, i, !Self::shares); }
                }
            }
        } const rest{cursor_, p, i, end};
        while (i < end) {
            if constexpr (Self::shares) {
                if (cursor_.skip_absent(p, i)) {
                    ++i;
                    continue;
                }
            }
            const std::uint64_t word = written(*b, i);
            if constexpr (Self::shares) {
                if (turns_away(p, *b, i, word)) {
                    ++i;
                    continue;
                }
            }
            if (!is_untimed(word) && !may_go_now(*b, word)) {
                set_aside(p, i++, word);
                continue;
            }
            ++got;
            sink(taking{self(), *b, p, i, word});
        }
        return got != 0 ? got : again;
    }
    void popped(slot_block& b, page& p, std::uint32_t i) noexcept {
        self().plain_left(b, i);
        p.state[i].store(Self::shares ? lane_state::popped : lane_state::of(lane_state::released), std::memory_order_release);
        // Who closed before the claim is seen here; who closes after it finds the claim, and looks again until it is over.
        if (cursor_.closing()) [[unlikely]] { self().wake_all(); }
    }

    // A batch of the lane, looked at in place. One of its words says so for all: as long as it is not `released` the page stays, and with it the
    // block; so the others may be released before. `again`: nothing was there for the lane to give, but perhaps elsewhere.
    template <class Fn>
    std::size_t look_through_lane(std::size_t max, Fn& fn) {
        const cursor::lane_claim claim = cursor_.claim_lane(max, [this] { return self().log().head(); });
        if (claim.count == 0) { return claim.index_first ? again : 0; }
        page& p = *claim.where;
        slot_block* const b = static_cast<slot_block*>(p.block);
        foresee(claim, b);
        const std::uint32_t first = index_in_span(claim.first), end = first + static_cast<std::uint32_t>(claim.count);
        std::uint32_t wanted = 0; // a bit for each
        for (std::uint32_t i = first; i < end; ++i) {
            if (lane_state::kind(p.state[i].load(std::memory_order_relaxed)) == lane_state::absent) [[unlikely]] {
                cursor_.skip_absent(p, i);
                continue;
            }
            const std::uint64_t seen = b->slots[i].ready.load(std::memory_order_acquire);
            const std::uint64_t word = seen != slot_empty ? seen : written(*b, i);
            if (self().filters() && turns_away(p, *b, i, word)) { continue; }
            if (!is_untimed(word) && !may_go_now(*b, word)) {
                set_aside(p, i, word);
                continue;
            }
            wanted |= std::uint32_t{1} << i;
        }
        if (wanted == 0) { return again; }
        const auto anchor = static_cast<std::uint32_t>(std::countr_zero(wanted));
        p.state[anchor].store(lane_state::popped, std::memory_order_release);
        for (std::uint32_t i = anchor + 1; i < end; ++i) {
            if ((wanted >> i & 1u) != 0) { p.state[i].store(lane_state::released, std::memory_order_release); }
        }
        std::uint32_t left = wanted; // not looked at yet
        const auto finish = [&]() noexcept {
            if (left != 0) { cursor_.put_back(p, anchor, left); } // what was called threw
            self().many_left(*b, wanted & ~left);
            if (cursor_.closing()) [[unlikely]] { self().wake_all(); }
            std::uint64_t held = lane_state::popped;
            if (!p.state[anchor].compare_exchange_strong(held, lane_state::of(lane_state::released), std::memory_order_acq_rel)) {
                settle({&p, 0, 1, claim.first - first + anchor}, cursor::verb::ack);
            }
        };
        std::size_t got = 0;
        for (std::uint32_t i = anchor; i < end; ++i) {
            if ((wanted >> i & 1u) == 0) { continue; }
            const envelope* const e = b->enveloped(b->slots[i].ready.load(std::memory_order_relaxed));
            try {
                fn(std::as_const(*b->slots[i].value.get()), e != nullptr ? e->props : no_properties);
            } catch (...) {
                left = i + 1 < span ? wanted & (~std::uint32_t{0} << (i + 1)) : 0;
                finish();
                throw;
            }
            ++got;
        }
        left = 0;
        finish();
        return got;
    }

    template <class Sink>
    std::size_t pop_index(std::size_t max, bool& passed_over, Sink& sink, std::uint32_t claimant) {
        if constexpr (Self::shares) {
            if (self().filters()) {
                passed_over = false;
                return pop_sifted(max, sink, claimant);
            }
        }
        return cursor_.pop_index(
            max, Self::shares || std::is_copy_constructible_v<T>, passed_over, [&](entry& e, bool& out) { pop_entry(e, out, sink); }, claimant);
    }

    template <class Sink>
    void pop_entry(entry& e, bool& out, Sink& sink) {
        if constexpr (Self::shares) {
            out = true;
            sink(message_access::look<T>(*this, static_cast<const T*>(e.body), e.cover, self().time_of().wall(e.sent),
                                         handle{&e, e.turn, e.attempt, e.offset}));
        } else {
            const auto make = [&](auto&& value, std::unique_ptr<envelope> cover) {
                return message_access::make<T>(std::forward<decltype(value)>(value), std::move(cover), self().time_of().wall(e.sent), e.offset);
            };
            if (!e.shared) {
                body<T>& value =
                    e.node != nullptr ? static_cast<node*>(e.node)->value : static_cast<slot_block*>(e.home->block)->slots[e.index].value;
                message<T> m = value.take(
                    [&](auto&& v) { return make(std::forward<decltype(v)>(v), std::unique_ptr<envelope>(std::exchange(e.cover, nullptr))); });
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
    pending_outcome* ack_async(const handle& at, bool& done) override {
        auto* const to = self().journal();
        if (to == nullptr) {
            done = ack(at);
            return nullptr;
        }
        self().refer(); // it may go with the delivery
        struct letting_go {
            Self& s;
            ~letting_go() { s.unrefer(); }
        } const later{self()};
        done = ack(at);
        placed p;
        return done ? to->promise(nullptr, {}, p, at.place) : nullptr;
    }
    bool nack(const handle& at) noexcept override { return settle(at, cursor::verb::nack); }
    bool nack_after(const handle& at, duration after) noexcept override { return settle(at, cursor::verb::nack_after, after); }
    bool release(const handle& at) noexcept override { return settle(at, cursor::verb::release); }
    bool reject(const handle& at, std::string reason) noexcept override { return settle(at, cursor::verb::reject, {}, std::move(reason)); }
    bool extend(const handle& at, duration lease) noexcept override { return cursor_.extend(at, lease); }
    bool secure(const handle& at, duration at_least) noexcept override { return cursor_.extend(at, at_least, true); }
    bool keep(const handle& at) noexcept override { return cursor_.keep(at); }
    bool has_lost(const handle& at) noexcept override { return cursor_.has_lost(at); }
    void give_back(const handle& at, duration lease) noexcept override { cursor_.give_back(at, lease); }
    settler_home home() const noexcept override { return self().settlements(); }
    time_point sent_at(const handle& at) const noexcept override {
        if (at.turn != 0) { return self().time_of().wall(static_cast<const entry*>(at.where)->sent); }
        const slot_block& b = *static_cast<const slot_block*>(static_cast<const page*>(at.where)->block);
        const std::uint32_t i = index_in_span(at.place);
        return self().time_of().wall(b.sent(b.slots[i].ready.load(std::memory_order_relaxed)));
    }
    void end_look(const handle& at) noexcept override {
        handle in_page = at;
        if (at.turn == 0) { // the word it was given says that the cursor has to be asked
            in_page.where = &page::of(*static_cast<std::atomic<std::uint64_t>*>(at.where), index_in_span(at.place));
        }
        settle(in_page, cursor::verb::ack);
    }

    bool settle(const handle& at, cursor::verb what, duration after = duration::zero(), std::string reason = std::string()) noexcept {
        const cursor::outcome o = cursor_.settle(at, what, after, std::move(reason));
        if (o.orphan) { self().unrefer(); }
        return o.done;
    }

    // The end of a plain message whose lease word says `ended`. Storing `released` is the last that touches the core.
    void end_plain(page& p, std::uint32_t i) noexcept {
        slot_block& b = *static_cast<slot_block*>(p.block);
        if constexpr (!Self::shares) {
            slot<T>& s = b.slots[i];
            const std::uint64_t word = s.ready.load(std::memory_order_relaxed);
            if (const std::unique_ptr<envelope> cover{b.enveloped(word)}) { self().ended(*cover, p.first + i); }
            if constexpr (!body<T>::trivial) { s.value.drop(); }
        }
        self().plain_left(b, i);
        if (cursor_.closing()) { self().wake_all(); }
        p.state[i].store(lane_state::released, std::memory_order_release);
    }

    // --------------------------------------------------------------------------------------------------------------------- cursor_host

    offset head() const noexcept override { return self().log().head(); }
    view look(void* at, std::uint32_t i) noexcept override {
        slot_block& b = *static_cast<slot_block*>(at);
        const std::uint64_t word = written(b, i);
        if (word == slot_lost) [[unlikely]] { return {nullptr, nullptr, duration::zero(), 0}; }
        return {b.slots[i].value.get(), b.enveloped(word), b.sent(word), b.size_of(i)};
    }
    std::uint64_t weight(void* at, std::uint32_t i) const noexcept override { return static_cast<slot_block*>(at)->size_of(i); }
    duration sent_if_plain(void* at, std::uint32_t i) const noexcept override {
        const slot_block& b = *static_cast<slot_block*>(at);
        const std::uint64_t word = b.slots[i].ready.load(std::memory_order_acquire);
        return (word & slot_enveloped) != 0 ? duration::min() : b.sent(word);
    }
    void* evacuate([[maybe_unused]] void* at, [[maybe_unused]] std::uint32_t i) noexcept override {
        if constexpr (Self::shares) {
            return nullptr;
        } else {
            slot_block& b = *static_cast<slot_block*>(at);
            node* const n = new (std::nothrow) node;
            if (n != nullptr) {
                if constexpr (is_boxed<T>) {
                    b.slots[i].value.take([n](auto&& value) { n->value.put(std::move(value)); });
                } else {
                    n->value.put(std::move(*b.slots[i].value.get()));
                    b.slots[i].value.drop();
                }
            }
            return n;
        }
    }
    const void* body_of(void* at) const noexcept override { return static_cast<node*>(at)->value.get(); }
    void end(const entry& e) noexcept override {
        if constexpr (!Self::shares) {
            delete e.cover;
            if (e.node != nullptr) {
                node* const n = static_cast<node*>(e.node);
                if (e.body != nullptr) { n->value.drop(); }
                delete n;
            } else if (e.body != nullptr) {
                static_cast<slot_block*>(e.home->block)->slots[e.index].value.drop();
            }
        }
    }
    void hold() noexcept override { self().refer(); }
    void let_go() noexcept override { self().unrefer(); }

    struct dead_letter_settler final : settler {
        explicit dead_letter_settler(outlet& o) noexcept : owner(o) {}
        using verb = cursor::dead_verb;
        bool finish(const handle& at, verb what) noexcept {
            const cursor::outcome o = owner.cursor_.settle_dead(*static_cast<entry*>(at.where), what);
            if (o.orphan) { owner.self().unrefer(); }
            return o.done;
        }
        bool ack(const handle& at) noexcept override { return finish(at, verb::remove); }
        bool nack(const handle& at) noexcept override { return finish(at, verb::put_back); }
        bool nack_after(const handle& at, duration) noexcept override { return finish(at, verb::put_back); }
        bool release(const handle& at) noexcept override { return finish(at, verb::put_back); }
        bool reject(const handle& at, std::string) noexcept override { return finish(at, verb::put_back); }
        bool extend(const handle&, duration) noexcept override { return true; } // a dead letter has no lease to run out
        bool secure(const handle& at, duration) noexcept override { return keep(at); }
        bool keep(const handle& at) noexcept override { return owner.cursor_.has_dead(*static_cast<const entry*>(at.where)); }
        void give_back(const handle&, duration) noexcept override {}
        settler_home home() const noexcept override { return owner.self().settlements(); }
        time_point sent_at(const handle& at) const noexcept override { return owner.self().time_of().wall(static_cast<entry*>(at.where)->sent); }
        void end_look(const handle&) noexcept override {}
        outlet& owner;
    };

    cursor cursor_;
    const duration time_to_live_;
    dead_letter_settler dead_{*this};

private:
    struct node { // a body that left its slot
        body<T> value;
    };
};

} // namespace mailroom::detail
