// The store of queues: a log with one reader, which is trimmed as messages are settled. The log is in memory, or, with a link, in a journal;
// then what is in memory is what has been claimed and not settled.
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
#include <mailroom/store/bounds.hpp>
#include <mailroom/store/intake.hpp>
#include <mailroom/store/link.hpp>
#include <mailroom/store/outlet.hpp>
#include <mailroom/store/receiver.hpp>
#include <mailroom/store/recorded.hpp>
#include <mailroom/store/rendezvous.hpp>
#include <mailroom/store/source.hpp>
#include <mailroom/store/timing.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// The core of a queue in memory. Made with `new`; its endpoint calls `abandon` instead of deleting it.
template <class T>
class memory_core final : public outlet<T, memory_core<T>>,
                          public intake<T, memory_core<T>>,
                          public inspection<T>,
                          public receiver<T, memory_core<T>>,
                          private morgue,
                          private timed {
    using outlet_of = outlet<T, memory_core<T>>;
    using intake_of = intake<T, memory_core<T>>;
    friend outlet_of;
    friend intake_of;
    friend mailroom::detail::lot<T, memory_core<T>>;
    friend receiver<T, memory_core<T>>;
    using outlet_of::cursor_;
    using intake_of::stream_;
    static constexpr bool shares = false;

public:
    /// With a link it takes up what is stored; throws what reading that throws.
    explicit memory_core(const queue_options<T>& o, std::unique_ptr<link<T>> stored = nullptr)
        : outlet_of(o.clock != nullptr ? *o.clock : system_clock(), {.lease = o.lease,
                                                                     .retry = o.retry,
                                                                     .max_in_flight = o.max_in_flight,
                                                                     .time_to_live = o.time_to_live,
                                                                     .priorities = o.priorities,
                                                                     .ordered_by_key = o.ordered_by_key,
                                                                     .max_dead = o.max_dead,
                                                                     .drops_oldest = o.overflow == overflow::drop_oldest,
                                                                     .begin = stored != nullptr ? stored->floor() : 0,
                                                                     .loaded = stored != nullptr,
                                                                     .recorded = stored != nullptr}),
          intake_of(stream<T>::readers::one, stored.get()), inspection<T>(o.validate), link_(std::move(stored)), timing_(o.clock),
          clock_(timing_.clock()), lease_(o.lease), has_priorities_(o.priorities > 1),
          is_plain_(!o.validate && o.max_bytes == 0 && o.budget == nullptr && link_ == nullptr),
          bounds_({o.max_messages, o.max_bytes, o.budget, o.overflow}) {
        if (o.deduplicate.window > duration::zero() || o.deduplicate.until_settled) {
            known_ids_ = std::make_unique<deduplicator>(o.deduplicate.window, o.deduplicate.until_settled);
        }
        clock_.attach(*this);
    }

    /// The endpoint goes. Deliveries that are out stay valid; the last of them, or of the consumers, frees this.
    void abandon() noexcept {
        shut();
        this->unrefer();
    }
    /// A handle goes. Several may share what lives in a journal.
    void handle_gone() noexcept {
        if (link_ == nullptr) {
            abandon();
            return;
        }
        this->refer();
        if (link_->handle_gone(this)) { abandon(); }
        this->unrefer();
    }
    /// Nothing can be done with it any more. One call has an effect.
    void shut() noexcept {
        if (gone_.load(std::memory_order_relaxed)) { return; }
        clock_.detach(*this);
        if (link_ != nullptr) { link_->push(); }
        gone_.store(true, std::memory_order_seq_cst);
        close();
        cursor_.orphan([this](std::size_t out) { this->refer(out); });
        if (link_ != nullptr) { link_->leave(); }
        bounds_.abandon();
        wake_all();
    }
    /// Takes up what was there before, once the log knows its end. Throws std::bad_alloc.
    void restore(std::int64_t bytes) {
        const offset head = stream_.head();
        const auto settled = static_cast<std::int64_t>(link_->were_settled(0, head));
        bounds_.left(settled, -bytes);
        count_by(*link_, cursor_);
        this->restore_refused();
        cursor_.restore(link_->tried_until());
        if (const auto before = link_->times_before(); before.until != 0) { cursor_.note_timed(before.until - 1, before.expiry); }
        claim_in_doubt(*link_, cursor_, *this, this->dead_);
    }
    link<T>* journal() const noexcept { return link_.get(); }
    deduplicator* ids() noexcept { return known_ids_.get(); }
    producer_table& numbers() noexcept { return producers_; }
    const timing& times() const noexcept { return timing_; }
    stream<T>& messages() noexcept { return stream_; }
    /// For a log elsewhere: so many have come.
    void arrived(std::size_t n) noexcept { wake(n); }

    /// Where those who ask through this queue and those who answer meet; made when it is first asked for. Throws std::bad_alloc.
    rendezvous& meeting_point() {
        return meeting_.point([this] { return stream_.closed(); });
    }
    /// A call of the rendezvous is over at `deadline` and nobody waits for it in a thread: who waits for time sees to it.
    void watch_call(duration deadline) noexcept {
        if (meeting_.find()->watch(deadline)) { wake_all(); }
    }
    cursor& state_of_messages() noexcept { return cursor_; }
    source_base* attic() noexcept override { return this; }
    const void* room_of(const handle& at, std::uint64_t& bytes) const noexcept override {
        if (!bounds_.limited()) { return nullptr; }
        bytes = at.turn != 0 ? static_cast<const entry*>(at.where)->bytes
                             : static_cast<const block<T>*>(static_cast<const page*>(at.where)->block)->size_of(index_in_span(at.place));
        return &bounds_;
    }

    /// Whether a message without properties needs nothing but its place: the usual queue, bounded or not.
    bool is_plain() const noexcept { return is_plain_; }

    template <class Sink>
    std::size_t take(std::size_t max, Sink sink) {
        if (link_ != nullptr) [[unlikely]] { return take_stored(max, sink); }
        return outlet_of::take(max, sink);
    }
    template <class Sink>
    std::size_t pop(std::size_t max, Sink sink) {
        if (link_ != nullptr) [[unlikely]] {
            see_urgent();
            return from_journal(*link_, [&] { return outlet_of::pop(max, sink); });
        }
        return outlet_of::pop(max, sink);
    }
    template <class Fn>
    std::size_t pop_each(std::size_t max, Fn& fn) {
        if (link_ != nullptr) [[unlikely]] {
            see_urgent();
            return from_journal(*link_, [&] { return outlet_of::pop_each(max, fn); });
        }
        return outlet_of::pop_each(max, fn);
    }

    // ----------------------------------------------------------------------------------------------------------------------- the whole

    void close() noexcept {
        see_all(); // what was sent is there for those who look for the end
        stream_.close();
        cursor_.set_closing();
        wake_all();
        bounds_.wake_all();
        meeting_.close();
    }
    bool drain(duration deadline) {
        close();
        for (unsigned round = 0;;) {
            cursor_.step();
            const cursor::rest left = cursor_.remaining();
            if (left == cursor::rest::nothing) { return true; }
            if (is_gone()) { return false; }
            if (left == cursor::rest::momentarily) {
                clock_.relax(round++);
                continue;
            }
            if (deadline != clock::never && clock_.now() >= deadline) { return false; }
            watch([&] { return cursor_.remaining() != cursor::rest::some; }, deadline);
        }
    }
    void pause(bool on) noexcept { cursor_.pause(on); }
    std::size_t purge() {
        see_all();
        return cursor_.purge();
    }

    stats statistics() noexcept {
        see_all();
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
        add_before(link_.get(), s);
        s.bytes = c.bytes;
        if (c.oldest != clock::never) { s.oldest_age = std::max(duration::zero(), clock_.now() - c.oldest); }
        return s;
    }

    template <class Fn>
    void browse(Fn fn) {
        see_all();
        cursor_.browse([&](const entry& e, entry::place where) {
            const auto m = message_access::make<T>(const_cast<T*>(static_cast<const T*>(e.body)), static_cast<const envelope*>(e.cover),
                                                   timing_.wall(e.sent), e.offset);
            const auto state = where == entry::place::leased   ? message_state::in_flight
                               : where == entry::place::parked ? message_state::parked
                                                               : message_state::ready;
            return static_cast<bool>(fn(m, state));
        });
    }

    dead_letters<T>& dead() noexcept { return dead_letters_; }

    // -------------------------------------------------------------------------------------------------------------------------- source

    outlook look_ahead() noexcept override {
        sweep_calls();
        if (is_gone()) { return outlook::finished; }
        if (!stream_.closed()) { return outlook::wait; }
        switch (cursor_.remaining()) {
        case cursor::rest::nothing: return outlook::finished;
        case cursor::rest::momentarily: return outlook::again;
        case cursor::rest::some: break;
        }
        return outlook::wait;
    }
    bool may_have() const noexcept override {
        return may_have_something() || cursor_.deadline() <= clock_.now() || (link_ != nullptr && link_->has_pending());
    }
    bool glance() const noexcept override { return may_have_something() || (link_ != nullptr && link_->has_pending()); }
    duration next_due() const noexcept override { return std::min(cursor_.deadline(), meeting_.earliest()); }
    void catch_up() noexcept override {
        cursor_.step();
        sweep_calls();
    }
    /// Calls that nobody waits for in a thread, and whose time is over, are answered.
    void sweep_calls() noexcept { meeting_.sweep(clock_); }
    void join(waiter& w) noexcept override {
        receivers_.add(w, [this] { stream_.announce_waiter(); });
    }
    void about_to_sleep() noexcept {
        if (link_ != nullptr) { link_->push_settlements(); }
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
    ~memory_core() { cursor_.clear(); }
    void destroy() noexcept override { delete this; }

    bool is_gone() const noexcept { return gone_.load(std::memory_order_seq_cst); }
    // What was sent before is visible, where it lies in a journal.
    void see_all() noexcept {
        if (link_ != nullptr) { link_->push(); }
    }
    // What was sent without waiting for its write may be more urgent than all that is visible.
    void see_urgent() noexcept {
        if (has_priorities_ && !link_->commits() && link_->has_pending()) { link_->push(); }
    }
    bool may_have_something() const noexcept { return cursor_.may_have(stream_.head()); }

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

    // What the outlet asks for.

    stream<T>& log() noexcept { return stream_; }
    const stream<T>& log() const noexcept { return stream_; }
    const timing& time_of() const noexcept { return timing_; }
    static constexpr int partition_number() noexcept { return 0; }
    void plain_left(const block<T>& b, std::uint32_t i) noexcept {
        if (bounds_.limited()) { bounds_.left(1, static_cast<std::int64_t>(b.size_of(i))); }
        if (link_ != nullptr) [[unlikely]] { link_->settled(b.first + i); }
    }
    /// A message is settled, or dead: its id may be sent again.
    void ended(const envelope& cover, offset place) noexcept {
        if (known_ids_ != nullptr) [[unlikely]] { forget_known(cover.props.id, place); }
    }
    [[gnu::cold, gnu::noinline]] void forget_known(const std::string& id, offset place) noexcept {
        if (!id.empty()) { known_ids_->settled(id, place, clock_.now()); }
    }

    settler_home settlements() const noexcept { return link_ != nullptr ? link_->home() : settler_home{}; }

    // What the intake asks for.

    bool is_visible(offset place) const noexcept { return place < stream_.head(); }
    void left_empty(std::size_t n) noexcept {
        if (bounds_.limited()) { bounds_.left(static_cast<std::int64_t>(n), 0); }
    }
    bounds& room() noexcept { return bounds_; }
    deduplicator* known_ids() noexcept { return known_ids_.get(); }
    producer_table& producers() noexcept { return producers_; }
    static constexpr offset named(offset o) noexcept { return o; }
    static constexpr void appended(offset, std::size_t) noexcept {}
    void note_timed(offset o, duration expires) noexcept { cursor_.note_timed(o, expires); }
    // Drops so many of the oldest that `n` more fit, or none, if that is the rule.
    bool make_room(std::size_t n, std::size_t bytes) noexcept {
        if (bounds_.rule() != overflow::drop_oldest) { return false; }
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

    // What the cursor asks for, as far as the outlet does not answer it.

    void* block_of(offset first) override {
        if (link_ != nullptr) { return stream_.make_block(first, timing_.coarse()); }
        // Called as a page is opened: by the time its first slots are read, the lines of the next block are on their way.
        const offset head = stream_.head();
        if (head > first + 2 * span) { stream_.at(first + span)->expect_reads_from_start(); }
        return stream_.at(first);
    }
    std::uint64_t count_absent(offset first, offset last) const noexcept override {
        return link_ != nullptr && first < last ? link_->were_settled(first, last) : 0;
    }
    bool is_filled(void* b, std::uint32_t i) const noexcept override {
        const std::uint64_t word = static_cast<block<T>*>(b)->slots[i].ready.load(std::memory_order_acquire);
        return word != slot_empty && word != slot_lost;
    }
    std::uint32_t survey(void* b, std::uint32_t mask, std::array<int, span>& priorities) override {
        return link_->survey(*static_cast<block<T>*>(b), mask, cursor_.is_ordered(), priorities);
    }
    std::uint32_t pass_over(void* b, std::uint32_t mask) noexcept override { return link_->pass_over(*static_cast<block<T>*>(b), mask); }
    void take_up(void* b, std::uint32_t mask) noexcept override { link_->take_up(*static_cast<block<T>*>(b), mask); }
    bool fetch(entry& e) override {
        const auto one = std::make_unique<block<T>>();
        const std::uint32_t i = index_in_span(e.offset);
        one->first = e.offset - i;
        one->opened = timing_.coarse();
        const std::uint64_t word = link_->load_one(*one, i);
        if ((word & slot_ready) == 0) { return false; }
        e.node = outlet_of::evacuate(one.get(), i);
        if (e.node == nullptr) {
            one->end(i);
            throw std::bad_alloc();
        }
        e.body = outlet_of::body_of(e.node);
        e.cover = one->enveloped(word);
        e.sent = one->sent(word);
        e.bytes = one->size_of(i);
        return true;
    }
    void record(const entry& e, cursor_host::fate f, duration when) noexcept override { record_fate(*link_, timing_, e, f, when); }
    bool recall(entry& e, bool& dead, duration& when) noexcept override { return recall_fate(*link_, timing_, e, dead, when); }
    std::uint64_t weigh(offset first, offset last) const noexcept override {
        if (link_ != nullptr) { return weigh_unread(last - first - count_absent(first, last)); }
        if constexpr (sizes<T>::varies) {
            std::uint64_t sum = 0;
            for (offset o = first; o < last; ++o) {
                const block<T>& b = *stream_.at(o);
                if (b.slots[index_in_span(o)].ready.load(std::memory_order_acquire) != slot_empty) { sum += b.size_of(index_in_span(o)); }
            }
            return sum;
        } else {
            return (last - first) * sizeof(T);
        }
    }
    std::uint64_t weigh_unread(std::uint64_t n) const noexcept override { return n * sizeof(T); }
    void release_block(offset first, void* b) noexcept override { stream_.release(first, static_cast<block<T>*>(b)); }
    void detach_block(offset first, void* b) noexcept override { stream_.detach(first, static_cast<block<T>*>(b)); }
    void forget(const envelope& cover, offset place) noexcept override { ended(cover, place); }
    void remember(const envelope& cover, offset place) noexcept override {
        if (known_ids_ != nullptr && !cover.props.id.empty()) { known_ids_->unsettled(cover.props.id, place); }
    }
    void settled(std::int64_t messages, std::int64_t bytes) noexcept override {
        if (bounds_.limited()) { bounds_.left(messages, bytes); }
    }
    void wake(std::size_t n) noexcept override {
        if (n != SIZE_MAX && receivers_.size() == 0) { return; }
        this->refer(); // what is woken may be the endpoint's end
        if (n == SIZE_MAX) { somebody_died(); }
        for (std::size_t left = std::min(n, receivers_.size()); left != 0; --left) {
            fire(receivers_.take([this] { stream_.nobody_waits(); }));
        }
        this->unrefer();
    }
    void wake_all() noexcept { wake(SIZE_MAX); }
    void somebody_died() noexcept override {
        for (std::size_t left = watchers_.size(); left != 0; --left) { fire(watchers_.take(nothing())); }
    }
    static void fire(waiter* w) noexcept {
        if (w != nullptr) { w->wake(); }
    }

    // morgue
    std::size_t dead_parts() const noexcept override { return 1; }
    cursor& dead_state(std::size_t) noexcept override { return cursor_; }
    settler& dead_settler(std::size_t) noexcept override { return outlet_of::dead_settler(); }
    bool revive(std::size_t, const handle& at) noexcept override { return outlet_of::revive(at); }
    clock& dead_clock() const noexcept override { return clock_; }
    bool wait_for_dead(attempt_to try_once, duration deadline) override {
        for (;;) {
            if (try_once()) { return true; }
            if (is_gone() || (deadline != clock::never && clock_.now() >= deadline)) { return false; }
            watch(try_once, deadline);
        }
    }

    // timed
    void step() noexcept override {
        cursor_.step();
        sweep_calls();
        if (!is_gone()) { wake_all(); } // whoever waited for a time of its own looks at the clock
    }

    // What is handed out for the first time since a crash is noted before: it may be what killed the process.
    template <class Sink>
    std::size_t take_stored(std::size_t max, Sink& sink) {
        see_urgent();
        std::vector<std::byte> steps;
        const auto noting = [&](const auto& made) {
            note_suspect(*link_, made.at.place, made.at.attempt, steps);
            sink(made);
        };
        const std::size_t n = from_journal(*link_, [&] { return outlet_of::take(max, noting); });
        if (!steps.empty()) { link_->note_deliveries(steps); }
        return n;
    }

    const std::unique_ptr<link<T>> link_; // or nullptr
    const timing timing_;
    clock& clock_;
    const duration lease_;
    const bool has_priorities_;
    const bool is_plain_;
    std::unique_ptr<deduplicator> known_ids_;
    bounds bounds_; // its end is written at each message: what follows is not
    wait_list receivers_;
    wait_list watchers_; // who drains, and who waits for dead letters: all are woken by what may concern one
    std::atomic<bool> gone_{false};
    meeting meeting_;
    dead_letters<T> dead_letters_{*this};
    producer_table producers_;
};

} // namespace mailroom::detail
