// group<T>: one subscription of a topic: its cursors, one a partition, and its members.
//
// Members come and go under `admin_`, one at a time. What they do may wake receivers, and to wake a coroutine is to run foreign code: so while
// somebody is inside, wakes are only noted, and given when he is out.
//
// Who takes what: in `exclusive` and `shared` whoever asks; in `failover` the member that came first of those that are there; in `keyed` the
// member to which the key belongs (cursor/sharing.hpp); in `partitioned` the member to which the partition is assigned, once nothing of it is
// leased to the one before. Members have small numbers, from 1 on, that are used again.
//
// A member that goes leaves what it had not settled to the others at once; its late holders may settle until somebody else is given it.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/cursor/sharing.hpp>
#include <mailroom/dead_letters.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/quota.hpp>
#include <mailroom/store/rendezvous.hpp>
#include <mailroom/store/tap.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

template <class T>
class member;
template <class T>
class group;

/// What is there of a partition: all from `all_from` on, and some before, in order.
struct contents {
    std::vector<offset> some;
    offset all_from = 0;
    offset first() const noexcept { return some.empty() ? all_from : some.front(); }
};

/// Where a topic's messages, and the places of its durable subscriptions, are stored.
template <class T>
class topic_archive {
public:
    virtual ~topic_archive() = default;
    /// Nothing is decided about prepared transactions as long as this is held.
    virtual std::unique_lock<std::recursive_mutex> keep_still() = 0;
    /// The log of one partition.
    virtual std::unique_ptr<link<T>> log_of(std::size_t partition) = 0;
    /// The partition takes part from now on.
    virtual void attach(std::size_t which, partition<T>& p) = 0;
    /// What is stored of the durable subscription of this name: where it goes on in each partition. False: nothing.
    virtual bool find(std::string_view name, std::vector<beginning>& places) = 0;
    /// Stores one that is new. Throws errc::io.
    virtual void declare(std::string_view name, sharing mode, const std::vector<beginning>& places) = 0;
    /// Notes what it settles in one partition.
    virtual std::unique_ptr<link<T>> notes_of(std::string_view name, std::size_t partition) = 0;
    virtual void forget(std::string_view name) = 0;
    /// Names and modes.
    virtual std::vector<std::pair<std::string, sharing>> stored() = 0;
    virtual bool push() noexcept = 0;
    virtual void push_settlements() noexcept = 0;
    virtual bool handle_gone(void* core) noexcept = 0;
};

/// What a subscription asks of its topic, and how it keeps that.
template <class T>
class topic_base : public source_base {
public:
    explicit topic_base(const quota::limits& l, mailroom::clock* c) : common_(l, c) {}
    topic_common& common() noexcept { return common_; }
    std::vector<std::unique_ptr<partition<T>>>& partitions() noexcept { return partitions_; }
    virtual bool is_gone() const noexcept = 0;
    virtual bool is_closed() const noexcept = 0;
    /// What is there, in each partition. Takes the locks of all cursors, one after the other.
    virtual std::vector<contents> look_around() = 0;
    /// Where a subscription begins in each partition, if that is there. Takes no cursor's lock.
    virtual std::vector<beginning> find(const start& from, const std::vector<contents>& there) = 0;
    virtual void wake_watchers() noexcept = 0;
    /// An ephemeral subscription is over.
    virtual void forget(group<T>& g) noexcept = 0;
    /// Where its messages are stored, or nullptr.
    topic_archive<T>* archive() const noexcept { return archive_; }

    /// Where those who ask through this topic and those who answer meet; made when it is first asked for. Throws std::bad_alloc.
    rendezvous& meeting_point() {
        return meeting_.point([this] { return is_closed(); });
    }
    /// When the first call is over that nobody waits for in a thread.
    duration calls_due() const noexcept { return meeting_.earliest(); }
    /// Nobody answers for a subscription any more, or none of those who received through one of its members.
    void end_answering(const void* whom, const void* through = nullptr) noexcept {
        if (rendezvous* const there = meeting_.find()) { there->end_answering(whom, through); }
    }
    /// Those that are over are answered.
    void sweep_calls() noexcept { meeting_.sweep(common_.time.clock()); }

protected:
    ~topic_base() = default;
    topic_common common_;
    meeting meeting_;
    topic_archive<T>* archive_ = nullptr;
    std::vector<std::unique_ptr<partition<T>>> partitions_;
};

template <class T>
class group final : public tap_owner<T>, private morgue {
    friend class member<T>;

public:
    static constexpr std::size_t all = std::numeric_limits<std::size_t>::max();

    /// Throws std::bad_alloc, and what finding its place throws.
    /// `is_asleep`: it is stored, and nobody has said yet how it is to behave.
    group(topic_base<T>& topic, std::string name, const subscribe_options<T>& o, bool is_asleep = false)
        : topic_(topic), name_(std::move(name)), options_(o), is_asleep_(is_asleep), account_(!name_.empty()) {
        cursor_options how;
        how.lease = o.lease;
        how.retry = o.retry;
        const bool is_one = topic.partitions().size() == 1;
        how.max_in_flight = is_one ? o.max_in_flight : 0;
        how.limited_together = !is_one && o.max_in_flight != 0;
        how.ordered_by_key = o.mode == sharing::keyed || o.mode == sharing::partitioned;
        how.drops_oldest = topic.common().room.limited();
        how.filtered = static_cast<bool>(o.filter);
        how.assigned = o.mode == sharing::partitioned;
        how.shares = o.mode == sharing::keyed ? &shares_ : nullptr;
        owners_.resize(topic.partitions().size());
        topic_archive<T>* const archive = is_durable() ? topic.archive() : nullptr;
        std::vector<beginning> stored;
        const bool is_stored = archive != nullptr && archive->find(name_, stored);
        std::vector<contents> there; // needed where it begins in the past; in a journal much may have to be read for it
        if (!is_stored && o.from.what() != start::kind::latest) { there = topic.look_around(); }
        if (archive != nullptr && !is_stored) { // from here on it holds messages back
            stored = topic.find(o.from, there);
            archive->declare(name_, o.mode, stored);
        }
        const auto make = [&] {
            std::vector<beginning> places = archive != nullptr ? std::move(stored) : topic.find(o.from, there);
            std::pair<std::uint64_t, std::uint64_t> sum{0, 0};
            for (std::size_t i = 0; i < places.size(); ++i) {
                const offset at = places[i].at;
                taps_.push_back(std::make_unique<tap<T>>(*this, *topic.partitions()[i], how, std::move(places[i]),
                                                         archive != nullptr ? archive->notes_of(name_, i) : nullptr));
                const auto [messages, bytes] = taps_.back()->outstanding(at);
                sum.first += messages;
                sum.second += bytes;
            }
            return sum;
        };
        try {
            if (is_counted()) {
                topic.common().room.open(account_, make);
            } else {
                make();
            }
        } catch (...) {
            for (auto& t : taps_) {
                t->end([](std::size_t) {});
            }
            throw;
        }
        topic_.refer();
        for (auto& t : taps_) { t->restore(); }
    }

    bool is_asleep() const noexcept { return is_asleep_; }
    const std::string& name() const noexcept { return name_; }
    /// Its place in the topic's list, given once.
    std::uint64_t number() const noexcept { return number_; }
    void set_number(std::uint64_t n) noexcept { number_ = n; }
    const subscribe_options<T>& options() const noexcept { return options_; }
    bool is_durable() const noexcept { return !name_.empty(); }
    topic_base<T>& topic() const noexcept { return topic_; }
    quota::account& account() noexcept { return account_; }
    std::vector<std::unique_ptr<tap<T>>>& taps() noexcept { return taps_; }
    /// Whether what is in flight is bounded for all partitions together; and how many more may be claimed.
    bool limits_together() const noexcept { return options_.max_in_flight != 0 && taps_.size() > 1; }
    std::size_t may_claim() noexcept {
        const std::lock_guard lock(claiming_);
        return may_claim_locked();
    }
    /// Claims by `claim(n)`, up to `max` but within the bound, which counts what others are about to claim.
    template <class Claim>
    std::size_t claim_within(std::size_t max, Claim claim) {
        struct reservation {
            group& g;
            std::size_t n;
            ~reservation() {
                const std::lock_guard lock(g.claiming_);
                g.reserved_ -= n;
            }
        };
        std::unique_lock lock(claiming_);
        const std::size_t n = std::min(max, may_claim_locked());
        reserved_ += n;
        lock.unlock();
        const reservation held{*this, n};
        return n != 0 ? claim(n) : 0;
    }
    std::size_t members() const noexcept {
        const std::lock_guard lock(admin_);
        return members_.size();
    }

    /// The subscription is over. Deliveries that are out stay valid; the last of them frees this. One call has an effect.
    void end() noexcept {
        const inside here(*this);
        if (gone_.exchange(true, std::memory_order_seq_cst)) { return; }
        if (is_counted()) { topic_.common().room.close(account_); }
        for (auto& t : taps_) {
            t->end([this](std::size_t out) { this->refer(out); });
        }
        pending_.store(true, std::memory_order_seq_cst);
    }

    // ----------------------------------------------------------------------------------------------------------------------- members

    /// Throws errc::already_exists where there may be one only, errc::closed if the subscription is over, std::bad_alloc.
    void join(member<T>& m);
    void leave(member<T>& m) noexcept;
    /// Whether it has been without members since `then`.
    bool unused_since(duration then) const noexcept {
        const std::lock_guard lock(admin_);
        return members_.empty() && last_used_ <= then;
    }

    // ------------------------------------------------------------------------------------------------------------------------- state

    void seek(const start& to) {
        see_all();
        if (is_gone()) { return; }
        std::vector<beginning> places = topic_.find(to, topic_.look_around());
        const inside here(*this);
        if (is_gone()) { return; }
        for (std::size_t i = 0; i < taps_.size(); ++i) {
            if (to.what() == start::kind::place && static_cast<int>(i) != to.where().partition) { continue; }
            taps_[i]->seek(std::move(places[i]));
            if (topic_.archive() != nullptr && !is_durable()) { taps_[i]->from().trim(); }
        }
        pending_.store(true, std::memory_order_seq_cst);
    }
    void pause(bool on) noexcept {
        for (auto& t : taps_) { t->state().pause(on); }
    }
    void step() noexcept {
        catch_up();
        if (!is_gone()) { wake_all(); } // whoever waited for a time of its own looks at the clock
    }
    void catch_up() noexcept {
        for (auto& t : taps_) { t->state().step(); }
    }
    duration next_due() const noexcept {
        duration next = clock::never;
        for (const auto& t : taps_) { next = std::min(next, t->state().deadline()); }
        return next;
    }
    cursor::rest remaining() noexcept {
        cursor::rest result = cursor::rest::nothing;
        if (is_gone()) { return result; }
        for (auto& t : taps_) {
            const cursor::rest one = t->state().remaining();
            if (one == cursor::rest::some) { return one; }
            if (one == cursor::rest::momentarily) { result = one; }
        }
        return result;
    }
    void set_closing() noexcept {
        for (auto& t : taps_) { t->state().set_closing(); }
        wake_all();
    }

    stats statistics() noexcept {
        see_all();
        stats s;
        duration oldest = clock::never;
        for (auto& t : taps_) {
            const cursor::counters c = t->state().count();
            s.ready += c.ready;
            s.in_flight += c.in_flight;
            s.parked += c.parked;
            s.dead += c.dead;
            s.sent += t->from().log().head();
            s.acked += c.acked;
            s.redelivered += c.redelivered;
            s.expired += c.expired;
            s.dropped += c.dropped;
            s.bytes += c.bytes;
            s.filtered += c.filtered;
            add_before(t->noted(), s);
            oldest = std::min(oldest, c.oldest);
        }
        s.dropped += cut_off_.load(std::memory_order_relaxed);
        s.filter_errors = filter_errors_.load(std::memory_order_relaxed);
        if (oldest != clock::never) { s.oldest_age = std::max(duration::zero(), topic_.common().time.now() - oldest); }
        return s;
    }
    /// Not settled, after the filter; asks the filter about what it has not been asked about.
    std::uint64_t lag() {
        see_all();
        if (is_gone()) { return 0; }
        if (options_.filter) {
            for (auto& t : taps_) { t->state().sift(); }
        }
        const stats s = statistics();
        return s.ready + s.in_flight + s.parked;
    }
    subscription_info info() {
        subscription_info i;
        i.name = name_;
        i.members = members();
        i.lag = lag();
        const stats s = statistics();
        i.in_flight = s.in_flight;
        i.lost = s.dropped;
        i.redelivered = s.redelivered;
        i.filtered = s.filtered;
        i.filter_errors = s.filter_errors;
        i.mode = options_.mode;
        for (auto& t : taps_) {
            std::vector<offset> open;
            const offset next = t->state().unsettled(open);
            i.positions.push_back({t->from().number(), open.empty() ? next : *std::min_element(open.begin(), open.end())});
        }
        return i;
    }

    /// Drops its oldest until `n` more messages of `bytes` fit, if the rules allow that for it. True: some were dropped, or it stands in
    /// nobody's way any more.
    bool shed(std::size_t n, std::size_t bytes, bool by_rule) noexcept {
        quota& room = topic_.common().room;
        quota::excess over = room.over(account_, n, bytes);
        if (!over || is_gone() || (is_durable() && !by_rule)) { return false; }
        if (!is_durable() && options_.slow == slow::disconnect) {
            std::size_t rest = 0;
            for (auto& t : taps_) {
                const cursor::counters c = t->state().count();
                rest += c.ready + c.parked + c.in_flight;
            }
            cut_off_.fetch_add(rest, std::memory_order_relaxed);
            end();
            return true;
        }
        // Some more than must be: who is behind would otherwise lose one for each that comes.
        const std::size_t reserve = is_durable() ? 0 : room.ample();
        bool any = false;
        while (over) {
            std::size_t left = std::max<std::size_t>(1, static_cast<std::size_t>(over.messages) + reserve);
            for (; left != 0 && drop_oldest(); --left) { any = true; }
            if (left != 0) { break; }
            over = room.over(account_, n, bytes);
        }
        over = room.over(account_, n, bytes);
        for (auto& t : taps_) { t->from().reap(); }
        if (over && !is_durable()) {
            account_.set_stuck();
            return true;
        }
        return any && !over;
    }

    dead_letters<T>& dead() noexcept { return dead_letters_; }

    /// Waits, unless `met()` by then, for what wakes the watchers.
    template <class Met>
    void watch(Met met, duration deadline) {
        thread_waiter waiting(topic_.common().time.clock());
        watchers_.add(waiting, nothing());
        struct leaving {
            wait_list& list;
            thread_waiter& waiting;
            ~leaving() {
                if (!list.remove(waiting, nothing())) { waiting.settle(); }
            }
        } const leave_later{watchers_, waiting};
        if (!met()) { waiting.park(std::min(deadline, next_due())); }
    }

    // --------------------------------------------------------------------------------------------------------------------- tap_owner

    bool is_gone() const noexcept override { return gone_.load(std::memory_order_seq_cst); }
    bool lets_through(const T& value, const envelope* cover) noexcept override {
        try {
            return options_.filter(value, cover != nullptr ? cover->props : no_properties);
        } catch (...) {
            filter_errors_.fetch_add(1, std::memory_order_relaxed);
            return false;
        }
    }
    bool is_counted() const noexcept override { return topic_.common().room.limited(); }
    void left(std::int64_t messages, std::int64_t bytes) noexcept override { topic_.common().room.left(account_, messages, bytes); }
    bool someone_waits() const noexcept override { return waiting_.load(std::memory_order_seq_cst) != 0; }
    void wake_receivers(std::size_t n) noexcept override;
    void wake_all() noexcept override {
        wake_receivers(all);
        wake_watchers();
    }
    void wake_watchers() noexcept override {
        for (std::size_t left = watchers_.size(); left != 0; --left) {
            waiter* const w = watchers_.take(nothing());
            if (w != nullptr) { w->wake(); }
        }
        topic_.wake_watchers();
    }

private:
    ~group() {
        taps_.clear();
        topic_.unrefer();
    }
    void destroy() noexcept override { delete this; }

    // What was published before is visible, where it lies in a journal.
    void see_all() noexcept {
        if (topic_.archive() != nullptr) { topic_.archive()->push(); }
    }

    // A stay under `admin_`.
    class inside {
    public:
        explicit inside(group& g) noexcept : group_(g), lock_(g.admin_) { group_.quiet_.fetch_add(1, std::memory_order_seq_cst); }
        inside(const inside&) = delete;
        inside& operator=(const inside&) = delete;
        ~inside() {
            group_.refer(); // what is woken may be its end
            group_.quiet_.fetch_sub(1, std::memory_order_seq_cst);
            lock_.unlock();
            if (group_.pending_.exchange(false, std::memory_order_seq_cst)) { group_.wake_all(); }
            group_.unrefer();
        }

    private:
        group& group_;
        std::unique_lock<std::mutex> lock_;
    };
    // Whether wakes are to be left to somebody who is inside.
    bool leave_wakes() noexcept {
        if (quiet_.load(std::memory_order_seq_cst) == 0) { return false; }
        pending_.store(true, std::memory_order_seq_cst);
        return quiet_.load(std::memory_order_seq_cst) != 0; // he will look at `pending_` after this
    }

    std::size_t may_claim_locked() noexcept {
        std::size_t taken = reserved_;
        for (auto& t : taps_) { taken += t->state().leased(); }
        return taken < options_.max_in_flight ? options_.max_in_flight - taken : 0;
    }
    std::uint32_t free_number() const noexcept;
    // Of all partitions, the oldest message that nobody holds.
    bool drop_oldest() noexcept {
        tap<T>* where = taps_.front().get();
        if (taps_.size() > 1) {
            duration oldest = clock::never;
            for (auto& t : taps_) {
                const duration sent = t->state().oldest_droppable();
                if (sent < oldest) {
                    where = t.get();
                    oldest = sent;
                }
            }
        }
        return where->state().drop_oldest();
    }
    void hand_over(std::uint32_t gone) noexcept;
    void assign_partitions() noexcept;
    void wake_in(wait_list& list) noexcept;
    bool any_takes_any() const noexcept { return options_.mode == sharing::exclusive || options_.mode == sharing::shared; }

    // morgue
    std::size_t dead_parts() const noexcept override { return taps_.size(); }
    cursor& dead_state(std::size_t i) noexcept override { return taps_[i]->state(); }
    settler& dead_settler(std::size_t i) noexcept override { return taps_[i]->dead_settler(); }
    bool revive(std::size_t i, const handle& at) noexcept override { return taps_[i]->revive(at); }
    clock& dead_clock() const noexcept override { return topic_.common().time.clock(); }
    bool wait_for_dead(attempt_to try_once, duration deadline) override {
        for (;;) {
            if (try_once()) { return true; }
            if (is_gone() || (deadline != clock::never && dead_clock().now() >= deadline)) { return false; }
            watch(try_once, deadline);
        }
    }

    topic_base<T>& topic_;
    const std::string name_;
    std::uint64_t number_ = 0;
    const subscribe_options<T> options_;
    const bool is_asleep_;
    quota::account account_;
    key_shares shares_;
    std::vector<std::unique_ptr<tap<T>>> taps_;
    std::atomic<bool> gone_{false};
    std::atomic<std::uint64_t> filter_errors_{0};
    std::atomic<std::uint64_t> cut_off_{0}; // lost at once, by being disconnected

    mutable std::mutex admin_;
    std::vector<member<T>*> members_;   // in the order of coming; also under `roll_`
    std::vector<std::uint32_t> owners_; // of the partitions, where they are assigned
    std::vector<std::uint32_t> roster_; // scratch, with room for all members: leaving must not fail
    std::vector<std::size_t> loads_;
    duration last_used_ = clock::never; // since when there has been no member
    std::atomic<std::uint32_t> quiet_{0};
    std::atomic<bool> pending_{false};
    std::atomic<std::uint32_t> active_{0}; // the number of the member that came first

    std::mutex claiming_;      // for a few instructions more
    std::size_t reserved_ = 0; // so many are about to be claimed

    std::mutex roll_;     // for a few instructions: to find who waits
    wait_list receivers_; // where any may take any message; otherwise each member has its own
    std::atomic<std::uint32_t> waiting_{0};
    wait_list watchers_; // who waits for dead letters
    dead_letters<T> dead_letters_{*this};
};

} // namespace mailroom::detail
