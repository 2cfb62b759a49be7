// cursor: the consumption state of one subscription over one stream. What is claimed, leased, parked, retried, dead.
//
// It knows offsets and times, no `T` and no waiting: what needs those it asks of its `host`, the store above.
//
// Two claim paths. The *lane* is lock-free and hands out plain messages in order; the *index* stands behind a mutex and handles the rest:
// whatever has a delay, failed before, or needs priorities, order by key or a bound on what is in flight. Everything in the index lies
// below `next_`, so what is ready there is older than all of the lane and goes first: a flag in `next_` says so, and makes claims of the
// lane fail. `gate_` says when the index has something to do by time.
//
// Invariants
//   1. An offset below `next_` belongs to exactly one: the thread whose CAS took it, the delivery whose lease is in its page word, or the
//      entry that word points to. Offsets from `next_` on belong to nobody.
//   2. A page is open for every offset below `pages_until_`, and offsets are taken below that only. A page is removed when all its words
//      say `released`. So a thread that owns an offset may use its page and block without protection.
//   3. A word leaves `leased` by CAS, once; a word becomes `moved` under the mutex only. So under the mutex each message is either wholly in
//      the lane or wholly in the index.
//   4. Where messages are loaded from elsewhere, what is ready may be on the shelf instead of in the index: of each level, what came for the first time
//      is in the index up to some offset, and on the shelf above it. So a level whose first comers are used up is restocked before it is asked.
//
// Memory order
//   claim:    `next_` CAS seq_cst; page found as in stream/directory.hpp (pair `pages_until_`).
//   lease:    word store release (by the claimer) -> CAS acq_rel (settling, sweep).
//   end:      body ended -> word store release -> `complete()` acquire -> the block is reused.
//   closing:  settler: CAS word (seq_cst), then load `closing` (seq_cst). Closer: store `closing` (seq_cst), then read the words. One of
//             them sees the other, so the last settlement wakes who waits for it. Same shape: `gate_` store, then look for waiters; a waiter
//             adds itself, then looks at `gate_`.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/cursor/entry.hpp>
#include <mailroom/cursor/index.hpp>
#include <mailroom/cursor/page.hpp>
#include <mailroom/cursor/retry.hpp>
#include <mailroom/cursor/shelf.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/stream/directory.hpp>
#include <mailroom/stream/recycler.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

struct cursor_options {
    duration lease{}; // zero: none
    retry_policy retry;
    std::size_t max_in_flight = 0; // zero: unlimited
    duration time_to_live{};       // zero: none
    int priorities = 1;
    bool ordered_by_key = false;
    std::size_t max_dead = 0; // zero: unlimited
    bool drops_oldest = false;
    offset begin = 0;              // what lies before is not for this cursor
    bool shares_bodies = false;    // they belong to the log: this cursor neither moves nor ends them
    bool filtered = false;         // the host is asked which messages are wanted
    bool limited_together = false; // what is in flight is bounded for several cursors together: each that comes back is news to all
    bool assigned = false;         // one member at a time may claim: see `assign`
    key_shares* shares = nullptr;  // members claim by key
    bool loaded = false;           // messages are stored elsewhere: the host loads them
    bool recorded = false;         // the host is told what becomes of each, and knows what became of them before

    std::size_t window = 64; // of what is loaded, so many are ready in the index before others are only noted

    bool needs_index() const noexcept { return priorities > 1 || ordered_by_key || max_in_flight != 0 || assigned || limited_together; }
};

/// What a cursor asks of the store it belongs to. Called under the cursor's mutex unless said otherwise.
class cursor_host {
public:
    struct view {
        const void* body;
        envelope* cover;
        duration sent;
        std::uint64_t bytes;
    };
    /// The end of the stream.
    virtual offset head() const noexcept = 0;
    /// May throw std::bad_alloc.
    virtual void* block_of(offset first) = 0;
    /// Looks at a message, once its sender has finished writing it. Without a body: it is lost, and nobody is given it.
    virtual view look(void* block, std::uint32_t index) noexcept = 0;
    /// Moves a body out of its slot into a node of its own. Null: there is no memory, it stays.
    virtual void* evacuate(void* block, std::uint32_t index) noexcept = 0;
    virtual const void* body_of(void* node) const noexcept = 0;
    /// Ends body and envelope. Called without the mutex unless `ends_quietly`.
    virtual void end(const entry&) noexcept = 0;
    /// Bytes of the messages in [first, last), which nobody has taken; written or not.
    virtual std::uint64_t weigh(offset first, offset last) const noexcept = 0;
    /// Where messages are loaded: what so many are taken for until then.
    virtual std::uint64_t weigh_unread(std::uint64_t /*n*/) const noexcept { return 0; }
    virtual std::uint64_t weight(void* block, std::uint32_t index) const noexcept = 0;
    /// When a message that somebody may be ending was sent; duration::min() where only its envelope says so.
    virtual duration sent_if_plain(void* block, std::uint32_t index) const noexcept = 0;
    /// Which of the `span` messages from `first` on are not for this cursor, a bit for each. Asked once, as a page is opened.
    virtual std::uint32_t absent(offset /*first*/, const void* /*block*/) const noexcept { return 0; }
    /// How many of [first, last), which nobody has taken, are not.
    virtual std::uint64_t count_absent(offset /*first*/, offset /*last*/) const noexcept { return 0; }
    /// From where on, at or after `next`, all messages are for this cursor; those between that are, are appended.
    virtual offset all_from(offset next, std::vector<offset>& /*between*/) const { return next; }
    /// What the filter says. Called without the mutex; the body stays.
    virtual bool wants(const entry&) noexcept { return true; }
    virtual void release_block(offset first, void* block) noexcept = 0;
    virtual void detach_block(offset first, void* block) noexcept = 0;
    /// An envelope's message is settled or dead, or lives again.
    virtual void forget(const envelope&, offset) noexcept = 0;
    virtual void remember(const envelope&, offset) noexcept = 0;
    /// So many left the bounds (negative: came back). Wakes senders; runs nothing foreign.
    virtual void settled(std::int64_t messages, std::int64_t bytes) noexcept = 0;
    /// Where it is recorded: a message of the index is settled; it failed, and comes back at `when`, or is dead; it lives as if it were new.
    enum class fate : std::uint8_t { settled, tried, revived };
    virtual void record(const entry&, fate, duration /*when*/) noexcept {}
    /// Tells an entry what became of its message before; when it may come back. False: nothing.
    virtual bool recall(entry&, bool& /*dead*/, duration& /*when*/) noexcept { return false; }
    /// Whether a slot holds a message that has to be ended.
    virtual bool is_filled(void* /*block*/, std::uint32_t /*index*/) const noexcept { return false; }
    /// Where messages are loaded. Which of those in `mask`, of a block, have nothing about them but how urgent they are: neither a time of their own nor
    /// a past, nor a key where keys count. May throw std::bad_alloc.
    virtual std::uint32_t survey(void* /*block*/, std::uint32_t /*mask*/, std::array<int, span>& /*priorities*/) { return 0; }
    /// Such a one is not loaded with its block. Answers those of the mask for which that is so: the others are loaded already.
    virtual std::uint32_t pass_over(void* /*block*/, std::uint32_t /*mask*/) noexcept { return 0; }
    /// It is loaded after all.
    virtual void take_up(void* /*block*/, std::uint32_t /*mask*/) noexcept {}
    /// Loads the message at `e.offset` into a node of its own. False: it is lost. Called with or without the mutex. May throw std::bad_alloc; then
    /// nothing has changed.
    virtual bool fetch(entry& /*e*/) { return false; }
    /// Called without the mutex: so many receivers may be woken; there are new dead letters.
    virtual void wake(std::size_t receivers) noexcept = 0;
    virtual void somebody_died() noexcept = 0;
    /// Keeps the store, cursor included, until the same number of `let_go`.
    virtual void hold() noexcept = 0;
    virtual void let_go() noexcept = 0;

protected:
    ~cursor_host() = default;
};

/// Why a message is dead, where its receiver gave no reason.
inline constexpr std::string_view reason_attempts = "attempts exhausted";
inline constexpr std::string_view reason_crash = "attempts exhausted: the process ended";
inline constexpr std::string_view reason_lease = "attempts exhausted: lease expired";
inline constexpr std::string_view reason_expired = "time to live over";
inline constexpr std::string_view reason_rejected = "rejected";

class cursor {
public:
    /// What a settlement is to do.
    enum class verb : std::uint8_t { ack, nack, nack_after, release, reject, pop }; // pop: ack, and go on looking at it, one turn later

    struct lane_claim {
        offset first = 0;
        std::size_t count = 0;
        page* where = nullptr;
        bool index_first = false; // nothing was taken: the index has something older
        std::uint64_t known = 0;  // how many from `first` on are known to have been sent
    };

    /// What is there now and what ever was.
    struct counters {
        std::size_t ready = 0, in_flight = 0, parked = 0, dead = 0;
        std::uint64_t acked = 0, redelivered = 0, expired = 0, dropped = 0, filtered = 0;
        std::uint64_t bytes = 0;
        duration oldest = duration::max(); // when the oldest unsettled message was sent
    };

    /// What is left before everything is settled.
    enum class rest : std::uint8_t { nothing, some, momentarily };

    cursor(cursor_host& host, clock& time, const cursor_options& options, bool ends_quietly)
        : host_(host), clock_(time), options_(options), always_index_(options.needs_index()), ends_quietly_(ends_quietly),
          index_(options.priorities, options.ordered_by_key, options.drops_oldest, options.shares), shelf_(options.priorities), begun_(options.begin),
          uncounted_(static_cast<std::int64_t>(options.begin)) {
        next_.store(begun_ << 1 | (always_index_ ? 1 : 0), std::memory_order_relaxed);
        pages_until_.store(begun_ - index_in_span(begun_), std::memory_order_relaxed);
        if (always_index_) {
            gate_.store(0, std::memory_order_relaxed);
            is_gated_ = true;
        }
        if (options_.time_to_live > duration::zero()) { // the first step finds out when it has something to do
            lane_expiry_ = duration::zero();
            gate_.store(0, std::memory_order_relaxed);
            deadline_.store(0, std::memory_order_relaxed);
        }
    }
    cursor(const cursor&) = delete;
    cursor& operator=(const cursor&) = delete;
    /// Ends whatever is left. For the host's destructor: nothing may be in use any more.
    void clear() noexcept;

    // ---------------------------------------------------------------------------------------------------------------- the lane

    /// Whether the lane may be used without looking at the index; `coarse()` is asked for the time only if it matters.
    template <class Coarse>
    bool lane_is_open(Coarse coarse) const noexcept {
        const std::int64_t until = gate_.load(std::memory_order_relaxed);
        if (until == clock::never.count()) { return true; }
        // A coarse clock may be a tick behind; so close to a deadline the exact one decides.
        constexpr duration tick = std::chrono::milliseconds(5);
        return until != 0 && until - tick.count() > coarse().count();
    }
    bool is_always_index() const noexcept { return always_index_; }

    /// Takes up to `max` offsets in a row; `head()` reads the end of the stream. Lock-free but for one in `span`, which opens a page and
    /// may throw std::bad_alloc. `past_index`: although something older is ready in the index. `lease_from`: when the leases begin that the
    /// caller will write; never: it writes none. A queue that is only popped from so has no deadlines, and need not look at the clock.
    template <class Head>
    lane_claim claim_lane(std::size_t max, Head head, bool past_index = false, duration lease_from = clock::never) {
        std::uint64_t word = next_.load(std::memory_order_relaxed);
        for (;;) {
            const offset at = place_in(word);
            if ((word & 1) != 0 && !past_index) { return {.index_first = true}; }
            offset seen = seen_.load(std::memory_order_relaxed);
            if (at >= seen) {
                seen = head();
                if (at >= seen) { return {}; }
                seen_.store(seen, std::memory_order_relaxed);
            }
            if (at >= pages_until_.load(std::memory_order_acquire)) {
                open_next_page(at, lease_from);
                word = next_.load(std::memory_order_relaxed);
                continue;
            }
            const std::size_t n = max == 1 ? 1 : std::min(max, static_cast<std::size_t>(std::min<offset>(seen - at, span - index_in_span(at))));
            if (next_.compare_exchange_weak(word, word + 2 * n, std::memory_order_seq_cst, std::memory_order_relaxed)) {
                return {at, n, pages_.find(at), false, seen - at};
            }
        }
    }

    /// The first offset that nobody has taken.
    offset next() const noexcept { return place_in(next_.load(std::memory_order_seq_cst)); }

    /// The word for a delivery claimed at coarse time `t`.
    std::uint64_t lease_word(duration t) const noexcept { return word_of(lease_end(t)); }

    /// To be called before a lease is written into a page, at the time it is counted from.
    void expect_lease(page& p, duration t) noexcept {
        if (!p.watched.load(std::memory_order_relaxed)) [[unlikely]] { watch(p, t); }
    }

    /// A claimed message of the lane may not be handed out now: it is delayed or expired. The index takes it.
    void divert(page& p, std::uint32_t i, bool sifted = true) noexcept;

    /// Of a page one of whose words says `popped`: these slots were released, and are not settled after all. Unless the cursor was moved, or
    /// its endpoint has gone, meanwhile.
    void put_back(page& p, std::uint32_t popped, std::uint32_t slots) noexcept;

    /// Whether a claimed slot holds nothing for this cursor; it is released then.
    bool skip_absent(page& p, std::uint32_t i) noexcept {
        if (p.state[i].load(std::memory_order_relaxed) != lane_state::absent) [[likely]] { return false; }
        skipped_.fetch_add(1, std::memory_order_relaxed);
        p.state[i].store(lane_state::released, std::memory_order_release);
        return true;
    }
    /// The filter does not let a claimed message of the lane through.
    void turn_away(page& p, std::uint32_t i) noexcept {
        skipped_.fetch_add(1, std::memory_order_relaxed);
        filtered_.fetch_add(1, std::memory_order_relaxed);
        p.state[i].store(lane_state::released, std::memory_order_release);
    }
    /// Tries to settle a plain delivery; on success the caller ends the body and then stores `released`.
    static bool end_lease(page& p, std::uint32_t i) noexcept {
        auto& word = p.state[i];
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        while (lane_state::kind(seen) == lane_state::leased) {
            if (word.compare_exchange_weak(seen, lane_state::of(lane_state::ended), std::memory_order_seq_cst, std::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    // --------------------------------------------------------------------------------------------------------------- the index

    /// Hands out up to `max` messages of the index: `give(entry&)` under the mutex; it may not throw. Returns how many.
    /// `claimant`: which member asks, where that matters.
    template <class Give>
    std::size_t claim_index(std::size_t max, Give give, std::uint32_t claimant = 0);
    /// The same for `pop`: the messages are settled already; `give(entry&, bool& out)` moves the body out, or, where others look at it
    /// (`shared`), copies it; if it throws, those that are not `out` come back. Called without the mutex. What is looked at and cannot be
    /// copied is passed over. Where bodies are shared, `give` makes a look at it, which ends by `settle`.
    template <class Give>
    std::size_t pop_index(std::size_t max, bool copyable, bool& passed_over, Give give, std::uint32_t claimant = 0);

    /// What the filter said of entries that were handed out `unsifted`: those that are not wanted go, as if they had never been.
    /// Returns how many of these hold references of their own, because their endpoint is gone.
    struct verdict {
        handle of;
        bool wanted;
    };
    std::size_t judge(const verdict* verdicts, std::size_t n) noexcept;
    /// Asks the filter about all that it has not been asked about, without the mutex; or only about what is delayed, for what is not wanted
    /// holds nothing of its key back. Takes it out of the lane.
    void sift(bool only_parked = false);
    bool is_ordered() const noexcept { return options_.ordered_by_key; }

    /// A delivery is leased for ever, whoever leaves, until it is settled or given back: then for `lease` from now, if its member is still there.
    bool keep(const handle& at) noexcept;
    /// What was kept is another's by now, or nobody's.
    bool has_lost(const handle& at) noexcept;
    void give_back(const handle& at, duration lease) noexcept;
    /// For a cursor that has just been restored: hands out the message at `o` for ever, `give(handle)` under the mutex; false: it is settled.
    /// May throw std::bad_alloc.
    template <class Give>
    bool claim_at(offset o, Give give);

    /// Settles a delivery that `end_lease` did not. `orphan`: its endpoint is gone, and it gives back the reference it held.
    struct outcome {
        bool done;
        bool orphan;
    };
    outcome settle(const handle& at, verb what, duration after, std::string reason) noexcept;
    bool extend(const handle& at, duration lease, bool never_shorter = false) noexcept;
    /// The same for a delivery that may be in other hands.
    bool extend(offset o, std::uint32_t attempt, duration lease) noexcept;

    // ---------------------------------------------------------------------------------------------------------------- the whole

    /// Does what is due: leases, delays, expiries.
    void step() noexcept;
    /// When `step` next has something to do.
    duration deadline() const noexcept { return duration(deadline_.load(std::memory_order_seq_cst)); }
    /// Whether a claim may find something, given the stream's head. For one that is about to sleep: sequentially consistent.
    bool may_have(offset head) const noexcept {
        const auto see = index_state_.load(std::memory_order_seq_cst);
        return see != index_shut && (see == index_has || head > next());
    }
    /// The message of a claimed slot is lost: it is released as if it had never been.
    void leave_out(page& p, std::uint32_t i) noexcept {
        skipped_.fetch_add(1, std::memory_order_relaxed);
        p.state[i].store(lane_state::released, std::memory_order_release);
    }
    /// For a cursor that has just been made: takes what lies before `until` into the index, as it was recorded. May throw std::bad_alloc.
    void restore(offset until);
    /// A message with times of its own was appended at `o`.
    void note_timed(offset o, duration expires) noexcept;

    /// From now on only `member` may claim, as soon as nothing that another claimed is leased. 0: nobody.
    void assign(std::uint32_t member) noexcept;
    /// Members share by key: there is one more, or one less, of this number. The first may throw std::bad_alloc.
    void add_member(std::uint32_t member);
    void remove_member(std::uint32_t member) noexcept;
    /// All leases end now, because who holds them has left; or those of one claimant. They may be settled until somebody else is given the
    /// message, but not extended.
    void lapse() noexcept;
    void lapse(std::uint32_t claimant) noexcept;
    /// How many of the index are leased; where it is always used: how many are in flight.
    std::size_t leased() noexcept {
        const std::lock_guard lock(mutex_);
        return index_.count().leased;
    }
    /// The same as `may_have`, for one claimant, exactly.
    bool may_have(offset head, std::uint32_t claimant) noexcept;
    /// Moves on, or back, to `to`: nothing handed out before counts any more. `moved(from, opened)`, under the mutex, is told where it stood and
    /// below what its pages were open; it is not called if the endpoint is gone. Waits for those who are about to hand something out.
    /// Throws std::bad_alloc, then nothing has changed. One at a time.
    template <class Moved>
    void seek(offset to, Moved moved);
    /// Appends the offsets that are taken and not settled, in no order; dead letters count as settled. Answers the first that is not taken:
    /// from there on nothing is settled. May throw std::bad_alloc.
    offset unsettled(std::vector<offset>& before);
    /// What it ever did, so far: redelivered, expired, dropped.
    std::array<std::uint64_t, 3> ever() const noexcept {
        return {redelivered_.load(std::memory_order_relaxed), expired_.load(std::memory_order_relaxed), dropped_.load(std::memory_order_relaxed)};
    }
    /// Nothing before is needed any more: its pages are complete.
    offset lowest_needed() noexcept;
    /// Below this, all pages were opened.
    offset opened_until() const noexcept { return pages_until_.load(std::memory_order_relaxed); }

    void pause(bool on) noexcept;
    bool paused() const noexcept { return paused_.load(std::memory_order_relaxed); }
    void set_closing() noexcept { closing_.store(true, std::memory_order_seq_cst); }
    bool closing() const noexcept { return closing_.load(std::memory_order_seq_cst); }
    rest remaining() noexcept;
    /// Drops the oldest message that nobody holds. False: all are held.
    bool drop_oldest() noexcept;
    /// Drops the message at `o`, wherever it lies, unless somebody holds it or it is dead. Takes what lies before it into the index.
    bool withdraw(offset o) noexcept;
    /// When that was sent; never: there is none.
    duration oldest_droppable() noexcept;
    /// How many messages nobody holds, and the bytes of those that somebody does.
    struct drop_outlook {
        std::size_t messages;
        std::uint64_t held_bytes;
    };
    drop_outlook droppable() noexcept;
    /// Throws everything away but the dead letters; returns how many. What is handed out loses its hold.
    std::size_t purge();
    counters count() noexcept;

    /// Calls `fn(const entry&, place)` -> go on, without the mutex, for every message that is not dead; each stays valid for the call.
    template <class Fn>
    void browse(Fn fn);

    // ------------------------------------------------------------------------------------------------------------ dead letters

    /// What becomes of a dead letter that somebody held.
    enum class dead_verb : std::uint8_t { put_back, remove, revive };

    /// The first that nobody holds, or the one at `o`: `give(entry&)`, under the mutex. False: there is none.
    template <class Give>
    bool claim_dead(Give give, offset o = no_offset);
    outcome settle_dead(entry& e, dead_verb what) noexcept;
    /// Whether who holds a dead letter may still settle it.
    bool has_dead(const entry& e) noexcept {
        const std::lock_guard lock(mutex_);
        return !orphaned_ && !e.settled;
    }
    std::size_t dead_count() noexcept;
    /// Where those are that nobody holds.
    std::vector<offset> dead_places();
    std::size_t redrive(std::size_t most) noexcept;
    std::size_t purge_dead() noexcept;

    /// The endpoint goes: nothing is handed out any more. `keep(n)` is told how many deliveries are out before any of them can let go.
    template <class Keep>
    void orphan(Keep keep) noexcept;

private:
    class session; // the mutex, and what is to be done once it is free

    // Words count from the cursor's beginning: a clock's epoch may be far away, and there is room for 36 years only.
    std::uint64_t word_of(duration deadline) const noexcept {
        return lane_state::lease_until(deadline == clock::never ? deadline : deadline - epoch_);
    }
    duration deadline_of(std::uint64_t word) const noexcept {
        const duration since = lane_state::deadline(word);
        return since == lane_state::latest ? clock::never : epoch_ + since;
    }
    duration lease_end(duration t) const noexcept { return options_.lease > duration::zero() ? later(t, options_.lease) : clock::never; }
    void lapse(session& s, entry& e, duration now) noexcept;
    void ignore(session& s, entry& e, duration now) noexcept;
    void depart(session& s, entry& e, duration now) noexcept;
    template <class Which>
    void lapse_chain(session& s, duration now, Which which) noexcept;
    bool quiesced(session* s) noexcept;
    void open_next_page(offset at, duration lease_from);
    void open_page(offset at, duration lease_from = clock::never);
    template <class Move>
    void move_to(session& s, offset to, Move& move) noexcept;
    offset taken_until(offset head) const noexcept { return std::min(moving_ ? stopped_at_ : next(), head); }
    void watch(page& p, duration t) noexcept;
    void tidy() noexcept;
    void tidy_page(page& p) noexcept;
    void relieve(page& p) noexcept;
    void free_page(page& p) noexcept;
    page* page_of(offset o) const noexcept;
    template <class Fn>
    void each_page(Fn fn) noexcept;
    void release_slot(page& p, std::uint32_t i) noexcept;

    duration expiry(const cursor_host::view& v) const noexcept;
    entry* make_entry(page& p, std::uint32_t i, const cursor_host::view& v);
    void defer(page& p, std::uint32_t i, std::uint32_t attempt) noexcept;
    entry* absorb(session& s, offset until, std::size_t most = SIZE_MAX);
    std::uint32_t put_on_shelf(page& p, std::uint32_t from, std::uint32_t end);
    entry* load(offset o);
    entry* come_off_shelf(session& s, entry* e, std::size_t level, duration now, bool fresh) noexcept;
    entry* unshelve(session& s, std::size_t level, duration now);
    entry* find_shelved(session& s, offset o);
    void restock(session& s, duration now);
    bool try_restock(session& s, duration now) noexcept;
    bool loads_by_itself() const noexcept { return options_.loaded && !options_.shares_bodies; }
    std::uint16_t level_of(int priority) const noexcept { return static_cast<std::uint16_t>(std::clamp(priority, 0, options_.priorities - 1)); }
    bool restore(session& s, entry& e, duration now) noexcept;
    void trim_dead(session& s) noexcept;
    entry* oldest(session& s) noexcept;
    void record(const entry& e, cursor_host::fate f, duration when = duration::min()) noexcept {
        if (options_.recorded && !moving_) [[unlikely]] { host_.record(e, f, when); } // what is moved away from is not settled by that
    }
    void absorb_enough(session& s, std::size_t max, std::uint32_t claimant);
    void retry_deferred(duration now) noexcept;
    bool hold_on(entry& e, duration until, duration now, bool never_shorter) noexcept;
    template <class Match, class MatchPage>
    bool extend_if(offset o, duration lease, Match match, MatchPage in_lane, bool never_shorter = false) noexcept;
    entry* take_lease(page& p, std::uint32_t i) noexcept;
    bool apply(session& s, entry& e, const handle& at, verb what, duration after, std::string_view reason) noexcept;
    void step(session& s, duration now) noexcept;
    void sweep_lane(session& s, duration now) noexcept;
    void expire_lane(session& s, duration now) noexcept;
    void expire(session& s, entry& e, duration now) noexcept;
    void settle_doubts() noexcept;
    void fail(session& s, entry& e, duration now, duration when, std::string_view reason) noexcept;
    void die(session& s, entry& e, duration now, std::string_view reason) noexcept;
    void come_back(session& s, entry& e, duration now) noexcept;
    void revive(session& s, entry& e, duration now) noexcept;
    void remove(session& s, entry& e, duration now) noexcept;
    void drop(session& s, entry& e, duration now) noexcept;
    void let_go(session& s, entry& e) noexcept;
    void end_lost(page& p, std::uint32_t i) noexcept;
    void move_out(entry& e) noexcept;
    bool may_claim() const noexcept {
        return !stopped_ && !paused_.load(std::memory_order_relaxed) &&
               (options_.max_in_flight == 0 || index_.count().leased < options_.max_in_flight);
    }
    bool may_claim(std::uint32_t claimant) noexcept {
        if (!may_claim()) { return false; }
        if (!options_.assigned) { return true; }
        if (claimant != wanted_) { return false; }
        if (owner_ != wanted_ && (owner_ == 0 || index_.count().leased == 0)) { owner_ = wanted_; }
        return owner_ == wanted_;
    }
    entry* best_for(std::uint32_t claimant) noexcept { return options_.shares != nullptr ? index_.best_for(claimant) : index_.best(); }

    cursor_host& host_;
    clock& clock_;
    const duration epoch_ = clock_.now();
    const cursor_options options_;
    const bool always_index_;
    const bool ends_quietly_;

    // `next_`, from its lowest bit on: whether the index goes first; the first offset nobody has taken; how often the cursor was moved.
    static constexpr std::uint32_t left_member = ~std::uint32_t{0};
    static constexpr unsigned move_shift = 56;
    static constexpr std::uint64_t nothing_left = (std::uint64_t{1} << move_shift) - 2;
    static constexpr offset place_in(std::uint64_t word) noexcept { return (word & nothing_left) >> 1; }

    // Written by every claim. So a claim of the lane fails if the index got something older meanwhile, or the cursor was moved.
    alignas(64) std::atomic<std::uint64_t> next_{0};
    std::atomic<offset> seen_{0}; // the stream's head, as some claimer saw it
    // Read by every claim, written rarely.
    alignas(64) std::atomic<std::int64_t> gate_{clock::never.count()}; // the lane is open before this time
    std::atomic<offset> pages_until_{0};
    directory<page> pages_;
    std::atomic<bool> closing_{false};
    std::atomic<bool> paused_{false};
    enum index_states : std::uint32_t { index_empty, index_has, index_shut }; // shut: paused, or enough is in flight
    std::atomic<std::uint32_t> index_state_{index_empty};
    std::atomic<std::int64_t> deadline_{clock::never.count()};

    std::atomic<std::uint64_t> skipped_{0};  // taken, and not for this cursor or not wanted
    std::atomic<std::uint64_t> filtered_{0}; // of these, not wanted

    std::mutex mutex_; // all below, and writing what is between `gate_` and here
    index index_;
    shelf shelf_;              // what is ready as well, below `next_` too, and was not loaded
    offset begun_;             // what lies before was never for this cursor
    std::int64_t uncounted_;   // how much further `next_` is than there were messages taken
    std::vector<page*> stale_; // pages from before a `seek`, until what is out of them has come back
    entry_list departed_;      // and entries
    std::uint32_t owner_ = 0;  // who claims, where members are assigned, and who is to
    std::uint32_t wanted_ = 0;
    recycler<page> spare_pages_;
    page_list stragglers_; // pages that something old keeps, out of the directory
    std::uint64_t scan_ = 0;
    std::size_t scan_straggler_ = 0;
    std::size_t scan_stale_ = 0;
    duration lane_lease_ = clock::never;   // no lease in the lane ends before
    duration lane_expiry_ = clock::never;  // with a time to live for all: no message of the lane expires before
    duration timed_expiry_ = clock::never; // likewise for those with times of their own, which lie below `timed_until_`
    offset timed_until_ = 0;
    std::size_t deferred_ = 0;     // words that wait for memory
    bool is_gated_ = false;        // the flag in `next_`
    bool stopped_ = false;         // the endpoint is going, or the cursor about to move: nothing is handed out
    bool moving_ = false;          // the latter
    bool parked_unsifted_ = false; // something delayed came that the filter has not been asked about
    bool orphaned_ = false;        // it has gone: what is out holds references of its own
    offset stopped_at_ = 0;        // where `next_` was then
    std::uint64_t moves_ = 0;
    // Written under the mutex, read by whoever writes them down.
    std::atomic<std::uint64_t> redelivered_{0}, expired_{0}, dropped_{0};
    std::int64_t unacked_ = 0; // left the log otherwise than by an ack: died, dropped, purged; less what lives again
};

} // namespace mailroom::detail
