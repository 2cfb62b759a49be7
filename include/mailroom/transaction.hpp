// transaction: sends, publishes and acknowledgements that take place together, or not at all.
//
//     mailroom::transaction tx{disk};
//     tx.send(out, fill);
//     tx.ack(*delivery);
//     tx.commit();                        // one atomic, durable record; not called: nothing happened
//
// Over one journal, any of its queues and topics; or, made without one, over endpoints in memory. Nobody sees anything of it before `commit`,
// and everything of it after that. It holds no lock while it is open. Threads: a transaction is a value of one thread at a time.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/budget.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/name.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/cursor/deduplication.hpp>
#include <mailroom/journal/parcel.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/store/lot_base.hpp>
#include <mailroom/store/undecided_delivery.hpp>
#include <mailroom/topic.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

struct transaction_options {
    duration lease = std::chrono::minutes(5);      ///< how long, from `ack` on, a delivery stays ours at least
    std::size_t max_bytes = std::size_t{64} << 20; ///< of the bodies sent, in memory; a journal takes half a segment
    std::size_t max_steps = std::size_t{64} << 10; ///< messages and acknowledgements
};

class transaction {
public:
    /// Over endpoints in memory.
    explicit transaction(transaction_options options = transaction_options()) : options_(options) { check(); }
    /// Over the queues and topics of a journal, which it keeps until it is destroyed.
    template <class Journal>
    requires detail::is_journal<Journal>
    explicit transaction(Journal& where, transaction_options options = transaction_options()) : options_(options), journal_(where.engine_) {
        check();
    }
    transaction(transaction&& other) noexcept
        : options_(other.options_), journal_(std::move(other.journal_)), lots_(std::move(other.lots_)), held_(std::move(other.held_)),
          steps_(other.steps_), bytes_(other.bytes_), has_lost_(other.has_lost_), state_(std::exchange(other.state_, state::over)) {
        other.lots_.clear();
        other.held_.clear();
    }
    transaction& operator=(transaction&& other) noexcept {
        if (this != &other) {
            rollback();
            std::destroy_at(this);
            std::construct_at(this, std::move(other));
        }
        return *this;
    }
    /// Rolls back, unless it was committed or prepared.
    ~transaction() { rollback(); }

    /// Sends a message when this commits. Throws errc::rejected, invalid; too_large for more than fits; unsupported for an endpoint that is not
    /// of this transaction's journal, or, without one, not in memory; in_doubt and closed once it is over. Then nothing was added.
    template <class T, class Persistence>
    void send(queue<T, Persistence>& to, std::type_identity_t<T> value) {
        expect_kept<Persistence>();
        add<T>(detail::endpoint_access::core(to), detail::endpoint_access::core(to), value, nullptr);
    }
    template <class T, class Persistence>
    void send(queue<T, Persistence>& to, std::type_identity_t<T> value, properties props) {
        expect_kept<Persistence>();
        add<T>(detail::endpoint_access::core(to), detail::endpoint_access::core(to), value, &props);
    }
    /// The same for a topic. The partition is chosen now.
    template <class T, class Persistence>
    void publish(topic<T, Persistence>& to, std::type_identity_t<T> value) {
        expect_kept<Persistence>();
        add<T>(detail::endpoint_access::core(to), detail::endpoint_access::core(to).pick(nullptr), value, nullptr);
    }
    template <class T, class Persistence>
    void publish(topic<T, Persistence>& to, std::type_identity_t<T> value, properties props) {
        expect_kept<Persistence>();
        add<T>(detail::endpoint_access::core(to), detail::endpoint_access::core(to).pick(&props), value, &props);
    }

    /// Acknowledges a delivery when this commits. Until then it is out, its lease does not end before `transaction_options::lease`, its body stays
    /// where it is, and its own verbs but `extend` answer false; after a rollback it is its holder's again, or, if he let it go, it is nacked.
    /// False: it is settled already, or its lease was lost: then `commit` will fail. Throws errc::unsupported, too_large, in_doubt, closed as
    /// `send` does.
    template <class T>
    bool ack(delivery<T>& d) {
        expect_open();
        if (!detail::delivery_access::is_held(d)) { return has_lost_ = true, false; }
        detail::settler& owner = detail::delivery_access::owner(d);
        expect_own(owner.home().journal);
        expect_room(0);
        if (held_.size() == held_.capacity()) { held_.reserve(std::max<std::size_t>(4, 2 * held_.size())); }
        const detail::handle at = detail::delivery_access::where(d);
        if (!owner.secure(at, options_.lease)) { return has_lost_ = true, false; }
        auto* const one = new detail::undecided_delivery(owner, at, options_.lease, true);
        detail::delivery_access::redirect(d, *one);
        held_.push_back(one);
        ++steps_;
        return true;
    }
    template <class T>
    bool ack(delivery<T>&& d) {
        delivery<T> mine(std::move(d));
        return ack(mine);
    }

    /// Makes it all happen, as one; in a journal, as durable as its options say when this returns. Waits for room as `send` does where an endpoint
    /// is full; what it acknowledges of a queue makes room there for what it sends to it. Throws, and then nothing happened and it is rolled back: errc::not_found if a delivery was lost, full, closed, too_large, io (in this
    /// process nothing of it is ever delivered; after a restart it may have happened), in_doubt if it is prepared. May throw std::bad_alloc, the
    /// same. A message whose id its endpoint knows is left out, as a duplicate. Empty: does nothing.
    void commit() { commit(clock::never, stop_token()); }
    /// The same; told to stop while it waits for room: errc::full.
    void commit(stop_token stop) { commit(clock::never, stop); }
    /// The same; errc::timed_out if there was no room in time. Every other failure is thrown.
    result<void> commit_for(duration limit) {
        try {
            commit(std::max(limit, duration::zero()), stop_token());
        } catch (const error& e) {
            if (e != errc::timed_out) { throw; }
            return errc::timed_out;
        }
        return {};
    }
    /// Nothing happens. Deliveries are their holders' again. Once it is prepared, that is for the journal to do: this does nothing then.
    void rollback() noexcept {
        if (state_ != state::open) { return; }
        state_ = state::over;
        decide(false);
        lots_.clear();
    }
    /// Stores it, durable, for `journal::commit(xid)` or `journal::rollback(xid)`, at any later time, after any crash. Until then it is in doubt:
    /// what it sends is nowhere, what it acknowledges is out. `xid`: 1..255 bytes of UTF-8, none of them in use. Throws as `commit`;
    /// errc::invalid for such a name, already_exists if it is in doubt, unsupported in memory. Room is not asked for: what it sends counts when
    /// it comes, whatever the bounds.
    void prepare(std::string_view xid) {
        expect_open();
        struct undo {
            transaction& t;
            ~undo() { t.rollback(); }
        } const at_end{*this};
        detail::check_name(xid);
        if (journal_ == nullptr) {
            detail::fail(errc::unsupported, "what is in memory cannot be prepared: it would not survive what a second phase is for");
        }
        keep_all();
        std::vector<detail::parcel> parcels(lots_.size());
        for (std::size_t i = 0; i < lots_.size(); ++i) {
            if (const failure why = lots_[i]->inspect(); why.kind() != errc{}) { why.raise(); }
            lots_[i]->leave_nothing_out();
            lots_[i]->add_to(parcels[i]);
        }
        std::vector<detail::undecided*> held(held_.begin(), held_.end());
        journal_->prepare(xid, parcels, places(), held);
        state_ = state::prepared;
        held_.clear();
        lots_.clear();
    }

    /// Whether a delivery was lost: `commit` can only fail.
    bool has_lost_delivery() const noexcept { return has_lost_; }
    bool is_open() const noexcept { return state_ == state::open; }
    /// Messages and acknowledgements so far.
    std::size_t size() const noexcept { return steps_; }

private:
    enum class state : unsigned char { open, prepared, over };
    struct blocked { // for want of room
        detail::lot_base* by = nullptr;
        std::size_t n = 0, bytes = 0;
    };
    struct freed {
        const void* where = nullptr;
        std::size_t n = 0, bytes = 0;
    };

    void check() const {
        if (options_.lease <= duration::zero()) { detail::fail(errc::invalid, "transaction_options.lease has to be a time"); }
        if (options_.max_steps == 0 || options_.max_bytes == 0) { detail::fail(errc::invalid, "a transaction of no steps, or no bytes"); }
    }
    template <class Persistence>
    static void expect_kept() {
        static_assert(!detail::is_transient<Persistence>, "mailroom: a transaction sends to queues and topics in memory or in a journal: a transient "
                                                          "lane cannot keep a message back");
    }
    void expect_open() const {
        if (state_ == state::prepared) { detail::fail(errc::in_doubt, "the transaction is prepared: its journal decides about it, by its name"); }
        if (state_ == state::over) { detail::fail(errc::closed, "the transaction is over"); }
    }
    void expect_own(const detail::commit_port* of) const {
        if (of == journal_.get()) { return; }
        detail::fail(errc::unsupported, journal_ == nullptr
                                            ? "a transaction without a journal is for endpoints in memory: this one lives in a journal"
                                        : of == nullptr ? "a transaction of a journal is for its queues and topics: this one is in memory"
                                                        : "a transaction has one journal: this endpoint lives in another");
    }
    void expect_room(std::size_t bytes) const {
        const std::size_t most = journal_ != nullptr ? std::min(options_.max_bytes, journal_->largest_batch()) : options_.max_bytes;
        if (steps_ >= options_.max_steps || bytes > most || bytes_ > most - bytes) {
            detail::fail(errc::too_large, "a transaction takes " + std::to_string(options_.max_steps) + " steps and " + std::to_string(most) +
                                              " bytes at most (transaction_options; in a journal also half of segment_bytes)");
        }
    }
    template <class T, class Core, class Log>
    void add(Core& core, Log& log, T& value, properties* props) {
        expect_open();
        core.check(value, props != nullptr ? *props : no_properties);
        using lot = typename Log::lot;
        auto* const j = log.journal();
        expect_own(j != nullptr ? j->home().journal : nullptr);
        const auto known = std::find_if(lots_.begin(), lots_.end(), [&](const auto& l) { return l->log() == &log; });
        const std::size_t bytes = footprint_of(value);
        expect_room(bytes);
        if (known != lots_.end()) {
            static_cast<lot*>(known->get())->add(value, props);
        } else { // not among ours before there is something in it: an empty one could still be closed, and fail the rest
            auto first = std::make_unique<lot>(log);
            first->add(value, props);
            lots_.push_back(std::move(first));
        }
        ++steps_;
        bytes_ += bytes;
    }

    void commit(duration limit, const stop_token& stop) {
        expect_open();
        struct undo {
            transaction& t;
            ~undo() { t.rollback(); }
        } const at_end{*this};
        keep_all();
        if (steps_ == 0) { return; }
        count_freed();
        for (failure why = errc{};;) {
            blocked_ = blocked{};
            const detail::placed p = attempt(why);
            if (p.taken) { break; }
            if (why.kind() != errc{}) { why.raise(); }
            if (!p.full || blocked_.by == nullptr) { (p.why.kind() != errc{} ? p.why : failure(errc::closed)).raise(); }
            const std::size_t charge = wanted_of(blocked_.by->budget());
            if (!blocked_.by->wait_for_room(blocked_.n, blocked_.bytes, charge, limit, stop, why)) { why.raise(); }
            keep_all(); // some may have been purged meanwhile, and free nothing any more
            count_freed();
        }
        state_ = state::over;
        for (const auto& l : lots_) { l->finish(); }
        decide(true);
        lots_.clear();
    }
    void keep_all() {
        for (auto* const one : held_) { has_lost_ = !one->keep() || has_lost_; }
        if (has_lost_) {
            detail::fail(errc::not_found, "a delivery of the transaction is no longer its own: its lease ran out, or it was settled before");
        }
    }
    std::vector<detail::settled_place> places() const {
        std::vector<detail::settled_place> all;
        all.reserve(held_.size());
        for (const auto* const one : held_) { all.push_back(one->place()); }
        return all;
    }
    void decide(bool yes) noexcept {
        for (auto* const one : held_) { one->decide(yes); }
        held_.clear();
    }

    // The locks of all who know ids, in the order of their addresses.
    class id_locks {
    public:
        explicit id_locks(const std::vector<std::unique_ptr<detail::lot_base>>& lots) {
            std::vector<detail::deduplicator*> all;
            for (const auto& l : lots) {
                if (l->ids() != nullptr) { all.push_back(l->ids()); }
            }
            std::sort(all.begin(), all.end(), std::less<>());
            all.erase(std::unique(all.begin(), all.end()), all.end());
            locks_.reserve(all.size());
            for (auto* const one : all) { locks_.push_back(one->lock()); }
        }

    private:
        std::vector<std::unique_lock<std::mutex>> locks_;
    };

    // Once; not taken and `full`: for want of room in `blocked_`.
    detail::placed attempt(failure& why) {
        for (const auto& l : lots_) {
            if (why = l->inspect(); why.kind() != errc{}) { return {}; }
        }
        std::stable_sort(lots_.begin(), lots_.end(), [](const auto& a, const auto& b) { return std::less<>()(a->bounds(), b->bounds()); });
        detail::ticket t;
        detail::placed p;
        {
            const id_locks locked(lots_);
            const struct end_ready {
                const transaction& t;
                ~end_ready() {
                    for (const auto& l : t.lots_) { l->end_ready(); }
                }
            } at_end{*this};
            detail::lot_base::id_set ids;
            for (const auto& l : lots_) { l->leave_out(ids); }
            if (!could_ever_fit()) {
                why = {errc::too_large, "more at once than max_messages, max_bytes or the budget of what it sends to would ever allow"};
                return {};
            }
            p = with_room(0, t);
        }
        if (!p.taken || journal_ == nullptr || journal_->durability() == durability::none) { return p; }
        journal_->wait(t);
        if (t.why.kind() == errc{}) { return p; }
        for (const auto& l : lots_) { l->take_back(); }
        why = t.why;
        return {};
    }
    // Whether all that is counted together could be there at once: the partitions of a topic, and what shares a budget.
    bool could_ever_fit() const {
        std::map<const memory_budget*, std::size_t> charges;
        for (std::size_t i = 0; i < lots_.size();) {
            std::size_t n = 0, bytes = 0;
            const auto& first = lots_[i];
            for (; i < lots_.size() && lots_[i]->bounds() == first->bounds(); ++i) {
                n += lots_[i]->size();
                bytes += lots_[i]->bytes();
                if (lots_[i]->budget() != nullptr) { charges[lots_[i]->budget()] += lots_[i]->charge(); }
            }
            if (n != 0 && !first->could_ever_hold(n, bytes)) { return false; }
        }
        return std::all_of(charges.begin(), charges.end(), [](const auto& c) { return c.second <= c.first->limit(); });
    }
    // Room for the lots from `i` on, then the rest. Those of one topic are counted together.
    detail::placed with_room(std::size_t i, detail::ticket& t) {
        if (i == lots_.size()) { return journal_ != nullptr ? place(t) : take(); }
        std::size_t n = 0, bytes = 0, end = i;
        for (; end < lots_.size() && lots_[end]->bounds() == lots_[i]->bounds(); ++end) {
            n += lots_[end]->size();
            bytes += lots_[end]->bytes();
        }
        if (n == 0) { return with_room(end, t); }
        const blocked more = wanted_by(*lots_[i], n, bytes);
        bool found = false;
        const detail::placed p = lots_[i]->make_room(more.n, more.bytes, [&] {
            found = true;
            return with_room(end, t);
        });
        if (p.full && !found) { blocked_ = more; }
        if (p.taken && more.bytes != bytes) { lots_[i]->take_over(bytes - more.bytes); }
        return p;
    }
    // What is settled frees room, by the bounds it is in.
    void count_freed() {
        freed_.clear();
        for (const auto* const one : held_) {
            std::uint64_t bytes = 0;
            const void* const where = one->room(bytes);
            if (where == nullptr) { continue; }
            auto at = std::find_if(freed_.begin(), freed_.end(), [&](const freed& f) { return f.where == where; });
            if (at == freed_.end()) { at = freed_.insert(at, {where, 0, 0}); }
            ++at->n;
            at->bytes += static_cast<std::size_t>(bytes);
        }
    }
    // The room there has to be beside that for `n` messages of `bytes`.
    blocked wanted_by(detail::lot_base& l, std::size_t n, std::size_t bytes) const noexcept {
        const auto at = std::find_if(freed_.begin(), freed_.end(), [&](const freed& f) { return f.where == l.bounds(); });
        if (at == freed_.end()) { return {&l, n, bytes}; }
        return {&l, n - std::min(n, at->n), bytes - std::min(bytes, at->bytes)};
    }
    // What of a budget there has to be for all lots that share it, beside what is settled of theirs.
    std::size_t wanted_of(const memory_budget* budget) const noexcept {
        std::size_t all = 0;
        for (std::size_t i = 0; budget != nullptr && i < lots_.size();) {
            std::size_t n = 0, bytes = 0;
            detail::lot_base& first = *lots_[i];
            for (; i < lots_.size() && lots_[i]->bounds() == first.bounds(); ++i) {
                n += lots_[i]->size();
                bytes += lots_[i]->bytes();
            }
            if (first.budget() == budget) { all += wanted_by(first, n, bytes).bytes; }
        }
        return all;
    }
    detail::placed place(detail::ticket& t) {
        std::vector<detail::parcel> parcels;
        std::vector<detail::lot_base*> of;
        for (const auto& l : lots_) {
            if (l->size() == 0) { continue; }
            l->add_to(parcels.emplace_back());
            of.push_back(l.get());
        }
        detail::placed p = journal_->place_together(parcels, places(), journal_->durability() != durability::none ? &t : nullptr);
        for (std::size_t i = 0; i < of.size(); ++i) {
            if (p.taken) {
                of[i]->placed_at(parcels[i].first);
            } else if (p.full && parcels[i].first == no_offset) { // the first that was refused
                blocked_ = wanted_by(*of[i], of[i]->size(), of[i]->bytes());
                break;
            }
        }
        return p;
    }
    detail::placed take() {
        std::size_t n = 0;
        const auto undo = [&]() noexcept {
            while (n != 0) { lots_[--n]->leave_empty(); }
        };
        try {
            for (; n < lots_.size(); ++n) {
                if (!lots_[n]->take()) {
                    const bool is_full = lots_[n]->inspect().kind() == errc{};
                    if (is_full) { blocked_ = wanted_by(*lots_[n], lots_[n]->size(), lots_[n]->bytes()); }
                    undo();
                    return {.full = is_full};
                }
            }
        } catch (...) {
            undo();
            throw;
        }
        for (const auto& l : lots_) { l->place_ids(); }
        for (const auto& l : lots_) { l->fill(); }
        return {.taken = true};
    }

    transaction_options options_;
    std::shared_ptr<detail::commit_port> journal_; // or nullptr: in memory
    std::vector<std::unique_ptr<detail::lot_base>> lots_;
    std::vector<detail::undecided_delivery*> held_;
    std::size_t steps_ = 0, bytes_ = 0;
    bool has_lost_ = false;
    state state_ = state::open;
    blocked blocked_;
    std::vector<freed> freed_;
};

namespace detail {

template <class Make, class Fn>
auto transact(Make make, Fn& fn, int attempts) {
    for (;; --attempts) {
        transaction t = make();
        try {
            if constexpr (std::is_void_v<std::invoke_result_t<Fn&, transaction&>>) {
                fn(t);
                if (t.is_open()) { t.commit(); }
                return;
            } else {
                auto value = fn(t);
                if (t.is_open()) { t.commit(); }
                return value;
            }
        } catch (const error&) {
            if (!t.has_lost_delivery() || attempts <= 1) { throw; }
        }
    }
}

} // namespace detail

/// Runs `fn(transaction&)` and commits; once more, with a new transaction, where a delivery was lost meanwhile, up to `attempts` times. What `fn`
/// throws rolls back and is thrown on. Returns what `fn` returns.
template <class Journal, class Fn>
requires detail::is_journal<Journal> && std::invocable<Fn&, transaction&>
auto transact(Journal& where, Fn fn, int attempts = 10) {
    return detail::transact([&where] { return transaction(where); }, fn, attempts);
}
/// The same over endpoints in memory.
template <class Fn>
requires std::invocable<Fn&, transaction&>
auto transact(Fn fn, int attempts = 10) {
    return detail::transact([] { return transaction(); }, fn, attempts);
}

} // namespace mailroom
