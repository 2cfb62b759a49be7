// topic_core<T>: the core of a topic in memory: its partitions, and who subscribes to them.
//
// Threads: every member may be called from any thread. Locks: none on the plain path of publishing. `admin_` guards the list of subscriptions
// and is held by nobody while a subscription is asked anything; foreign code runs under none.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/group.hpp>
#include <mailroom/store/intake.hpp>
#include <mailroom/store/member.hpp>
#include <mailroom/store/partition.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// Which of `n` partitions a key is in. FNV-1a of its bytes, 64 bits wide: the same on every machine and in every version.
inline std::size_t partition_of(std::string_view key, std::size_t n) noexcept {
    std::uint64_t h = 0xcbf29ce484222325u;
    for (const char c : key) { h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u; }
    return static_cast<std::size_t>(h % n);
}

/// A counted reference to a subscription.
template <class T>
class group_ref {
public:
    explicit group_ref(group<T>& g) noexcept : group_(&g) { g.refer(); }
    group_ref(group_ref&& other) noexcept : group_(std::exchange(other.group_, nullptr)) {}
    group_ref& operator=(group_ref&& other) noexcept {
        std::swap(group_, other.group_);
        return *this;
    }
    ~group_ref() {
        if (group_ != nullptr) { group_->unrefer(); }
    }
    group<T>& operator*() const noexcept { return *group_; }
    group<T>* operator->() const noexcept { return group_; }

private:
    group<T>* group_;
};

/// Made with `new`; its endpoint calls `abandon` instead of deleting it.
template <class T>
class topic_core final : public topic_base<T>, public inspection<T>, private partition_owner, private timed {
    using topic_base<T>::common_;
    using topic_base<T>::partitions_;

public:
    /// With an archive it takes up what is stored there; throws what reading that throws.
    explicit topic_core(const topic_options<T>& o, std::unique_ptr<topic_archive<T>> stored = nullptr)
        : topic_base<T>({o.max_messages, o.max_bytes, o.budget, o.overflow}, o.clock), inspection<T>(o.validate),
          is_plain_(!o.validate && !common_.room.limited() && stored == nullptr), stored_(std::move(stored)) {
        this->archive_ = stored_.get();
        if (o.deduplicate.window > duration::zero() || o.deduplicate.until_settled) {
            common_.ids = std::make_unique<deduplicator>(o.deduplicate.window, o.deduplicate.until_settled);
        }
        partition_owner& owner = *this;
        for (int i = 0; i < o.partitions; ++i) {
            partitions_.push_back(std::make_unique<partition<T>>(owner, common_, i, o.retention,
                                                                 stored_ != nullptr ? stored_->log_of(static_cast<std::size_t>(i)) : nullptr));
        }
        common_.time.clock().attach(*this);
    }

    /// Its partitions take part in the journal from now on, and what subscribes is there. Throws std::bad_alloc, errc::io.
    void restore() {
        for (std::size_t i = 0; i < partitions_.size(); ++i) { stored_->attach(i, *partitions_[i]); }
        for (auto& p : partitions_) { p->restore(); }
        for (const auto& [name, mode] : stored_->stored()) {
            subscribe_options<T> o;
            o.mode = mode;
            o.retry.max_attempts = 0; // nothing dies before somebody says after how many
            group_ref<T> made(*new group<T>(*this, name, o, true));
            made->unrefer(); // `made` has one of its own
            const std::lock_guard lock(admin_);
            made->set_number(++numbers_);
            groups_.push_back(std::move(made));
        }
    }
    deduplicator* ids() noexcept { return common_.ids.get(); }
    const timing& times() const noexcept { return common_.time; }
    producer_table& numbers() noexcept { return common_.numbers; }
    /// A handle goes. Several may share what lives in a journal.
    void handle_gone() noexcept {
        if (stored_ == nullptr) {
            abandon();
            return;
        }
        this->refer();
        if (stored_->handle_gone(this)) { abandon(); }
        this->unrefer();
    }

    /// The endpoint goes, and with it all subscriptions; deliveries that are out stay valid.
    void abandon() noexcept {
        shut();
        this->unrefer();
    }
    /// Nothing can be done with it any more. One call has an effect.
    void shut() noexcept {
        if (gone_.load(std::memory_order_relaxed)) { return; }
        if (stored_ != nullptr) { stored_->push(); }
        common_.time.clock().detach(*this);
        gone_.store(true, std::memory_order_seq_cst);
        close();
        std::vector<group_ref<T>> all;
        {
            const std::lock_guard lock(admin_);
            all.swap(groups_);
        }
        for (auto& g : all) { g->end(); }
        all.clear();
        for (auto& p : partitions_) {
            if (p->journal() != nullptr) { p->journal()->leave(); }
        }
        common_.room.abandon();
        wake_watchers();
    }

    // -------------------------------------------------------------------------------------------------------------------- publishing

    /// Whether a message without properties needs nothing but its place.
    bool is_plain() const noexcept { return is_plain_; }
    /// The partition for a message: by its key, or in turn.
    partition<T>& pick(const properties* p) noexcept {
        const std::size_t n = partitions_.size();
        if (n == 1) { return *partitions_.front(); }
        if (p != nullptr && !p->key.empty()) { return *partitions_[partition_of(p->key, n)]; }
        return *partitions_[turn_.fetch_add(1, std::memory_order_relaxed) % n];
    }

    // ----------------------------------------------------------------------------------------------------------------- subscriptions

    /// A member of an ephemeral subscription (empty name), or of the durable one of this name, which is made if there is none.
    member<T>* subscribe(std::string_view name, const subscribe_options<T>& o) {
        for (;;) {
            see_all();
            expire();
            group_ref<T> g = [&] {
                const auto still = stored_ != nullptr ? stored_->keep_still() : std::unique_lock<std::recursive_mutex>();
                const auto names = keep_names();
                return find_or_make(name, o);
            }();
            auto* const m = new member<T>(*g);
            try {
                g->join(*m);
                for (auto& p : partitions_) {
                    if (stored_ != nullptr && !g->is_durable()) { p->trim(); } // what it is to read stays from now on
                    p->reap();
                }
                return m;
            } catch (const error& e) {
                m->unrefer();
                if (!(e == errc::closed) || is_gone()) { throw; } // forgotten in between: once more
            } catch (...) {
                m->unrefer();
                throw;
            }
        }
    }
    bool unsubscribe(std::string_view name) {
        return end_for_good([&](group<T>& g) { return g.is_durable() && g.name() == name; });
    }
    std::vector<subscription_info> subscriptions() {
        see_all();
        expire();
        std::vector<subscription_info> all;
        for (auto& g : everybody()) { all.push_back(g->info()); }
        return all;
    }

    // --------------------------------------------------------------------------------------------------------------------- the whole

    /// What was published before is visible, where it lies in a journal.
    void see_all() noexcept {
        if (stored_ != nullptr) { stored_->push(); }
    }
    offset first_offset(std::size_t p) {
        see_all();
        const offset first = contents_of(p, everybody()).first();
        partitions_[p]->reap();
        return first;
    }

    stats statistics() {
        see_all();
        expire();
        stats s;
        for (auto& g : everybody()) {
            const stats one = g->statistics();
            s.ready += one.ready;
            s.in_flight += one.in_flight;
            s.parked += one.parked;
            s.dead += one.dead;
            s.acked += one.acked;
            s.redelivered += one.redelivered;
            s.expired += one.expired;
            s.dropped += one.dropped;
            s.filtered += one.filtered;
            s.filter_errors += one.filter_errors;
        }
        const std::vector<contents> there = look_around();
        for (std::size_t i = 0; i < partitions_.size(); ++i) {
            partition<T>& p = *partitions_[i];
            s.sent += p.log().head();
            s.duplicates += p.duplicates();
            s.dropped += p.dropped();
            bool is_first = true;
            p.look_through(there[i].first(), p.log().head(), [&](offset, const block<T>& b, std::uint32_t at) {
                if (is_first) {
                    s.oldest_age = std::max(s.oldest_age, common_.time.now() - b.sent(b.slots[at].ready.load(std::memory_order_relaxed)));
                }
                is_first = false;
                s.bytes += b.size_of(at);
                return true;
            });
            p.reap();
        }
        return s;
    }

    void close() noexcept {
        see_all(); // what was published is there for those who look for the end
        closed_.store(true, std::memory_order_seq_cst);
        for (auto& p : partitions_) { p->log().close(); }
        each([](group<T>& g) { g.set_closing(); });
        common_.room.wake_all();
        this->meeting_.close();
    }
    /// A call of the rendezvous is over at `deadline` and nobody waits for it in a thread: who waits for time sees to it.
    void watch_call(duration deadline) noexcept {
        if (this->meeting_.find()->watch(deadline)) {
            each([](group<T>& g) { g.step(); });
        }
    }
    bool drain(duration deadline) {
        close();
        for (unsigned round = 0;;) {
            each([](group<T>& g) { g.catch_up(); });
            if (is_gone()) { return false; }
            const cursor::rest left = remaining();
            if (left == cursor::rest::nothing) { return true; }
            clock& c = common_.time.clock();
            if (left == cursor::rest::momentarily) {
                c.relax(round++);
                continue;
            }
            if (deadline != clock::never && c.now() >= deadline) { return false; }
            thread_waiter waiting(c);
            watchers_.add(waiting, nothing());
            if (remaining() == cursor::rest::some) { waiting.park(std::min(deadline, next_due())); }
            if (!watchers_.remove(waiting, nothing())) { waiting.settle(); }
        }
    }

    // -------------------------------------------------------------------------------------------------------------------- topic_base

    bool is_gone() const noexcept override { return gone_.load(std::memory_order_seq_cst); }
    bool is_closed() const noexcept override { return closed_.load(std::memory_order_seq_cst); }
    void wake_watchers() noexcept override {
        for (std::size_t left = watchers_.size(); left != 0; --left) {
            waiter* const w = watchers_.take(nothing());
            if (w != nullptr) { w->wake(); }
        }
    }
    void forget(group<T>& g) noexcept override {
        const group_ref<T> kept(g);
        {
            const std::lock_guard lock(admin_);
            const auto at = std::find_if(groups_.begin(), groups_.end(), [&](const auto& one) { return &*one == &g; });
            if (at != groups_.end()) { groups_.erase(at); } // which is never the last reference
        }
        g.end();
    }
    std::vector<contents> look_around() override {
        const std::vector<group_ref<T>> all = everybody();
        std::vector<contents> there;
        for (std::size_t i = 0; i < partitions_.size(); ++i) { there.push_back(contents_of(i, all)); }
        return there;
    }
    std::vector<beginning> find(const start& from, const std::vector<contents>& there) override {
        std::vector<beginning> places(partitions_.size());
        for (std::size_t i = 0; i < places.size(); ++i) { places[i].at = partitions_[i]->log().head(); }
        switch (from.what()) {
        case start::kind::latest: break;
        case start::kind::earliest:
            for (std::size_t i = 0; i < places.size(); ++i) { places[i] = from_place(there[i], 0, places[i].at); }
            break;
        case start::kind::last_per_key:
            for (std::size_t i = 0; i < places.size(); ++i) {
                const offset head = places[i].at;
                const auto is_there = [&](offset o) {
                    return o >= there[i].all_from || std::binary_search(there[i].some.begin(), there[i].some.end(), o);
                };
                places[i] = from_place({partitions_[i]->last_of_keys(there[i].first(), head, is_there), head}, 0, head);
            }
            break;
        case start::kind::time: {
            const duration since = common_.time.at(from.when());
            for (std::size_t i = 0; i < places.size(); ++i) {
                offset first = places[i].at;
                partitions_[i]->look_through(there[i].first(), places[i].at, [&](offset o, const block<T>& b, std::uint32_t at) {
                    if (b.sent(b.slots[at].ready.load(std::memory_order_relaxed)) < since) { return true; }
                    first = o;
                    return false;
                });
                places[i] = from_place(there[i], first, places[i].at);
            }
            break;
        }
        case start::kind::last: go_back(from.count(), there, places); break;
        case start::kind::place: {
            const int p = from.where().partition;
            if (p < 0 || static_cast<std::size_t>(p) >= places.size()) { fail(errc::invalid, "the topic has no partition of that number"); }
            const auto i = static_cast<std::size_t>(p);
            places[i] = from_place(there[i], from.where().offset, places[i].at);
            break;
        }
        }
        return places;
    }

private:
    ~topic_core() = default;
    void destroy() noexcept override { delete this; }

    // ------------------------------------------------------------------------------------------------------------- places to begin at

    // A message is there if a rule retains it, or if it is not settled by somebody.
    contents contents_of(std::size_t i, const std::vector<group_ref<T>>& all) {
        partition<T>& p = *partitions_[i];
        contents there;
        there.all_from = p.retained_from(common_.time.now());
        for (const auto& g : all) { there.all_from = std::min(there.all_from, g->taps()[i]->state().unsettled(there.some)); }
        if (p.compacts()) {
            const std::vector<offset> last = p.last_of_keys();
            there.some.insert(there.some.end(), last.begin(), last.end());
        }
        std::sort(there.some.begin(), there.some.end());
        there.some.erase(std::unique(there.some.begin(), there.some.end()), there.some.end());
        there.some.erase(std::lower_bound(there.some.begin(), there.some.end(), there.all_from), there.some.end());
        return there;
    }
    // Of what is there, all from `at` on.
    static beginning from_place(const contents& there, offset at, offset head) {
        beginning b;
        if (at >= there.all_from) {
            b.at = std::min(at, head);
            return b;
        }
        b.places.assign(std::lower_bound(there.some.begin(), there.some.end(), at), there.some.end());
        b.until = there.all_from;
        b.at = b.places.empty() ? b.until : b.places.front();
        return b;
    }
    // The last `n` by their times: step by step back from the ends, wherever the newest of what is left is.
    void go_back(std::size_t n, const std::vector<contents>& there, std::vector<beginning>& places) {
        struct sent {
            offset o;
            duration when;
        };
        std::vector<std::vector<sent>> left(places.size()); // newest last
        for (std::size_t i = 0; i < places.size(); ++i) {
            const offset head = places[i].at;
            const offset from = n < head ? head - static_cast<offset>(n) : 0;
            const beginning all = from_place(there[i], from >= there[i].all_from ? from : 0, head);
            partitions_[i]->look_through(all.at, head, [&](offset o, const block<T>& b, std::uint32_t at) {
                if (o >= all.until || std::binary_search(all.places.begin(), all.places.end(), o)) {
                    left[i].push_back({o, b.sent(b.slots[at].ready.load(std::memory_order_relaxed))});
                }
                return true;
            });
        }
        for (; n != 0; --n) {
            std::size_t newest = places.size();
            for (std::size_t i = 0; i < places.size(); ++i) {
                if (!left[i].empty() && (newest == places.size() || left[i].back().when > left[newest].back().when)) { newest = i; }
            }
            if (newest == places.size()) { break; }
            places[newest].at = left[newest].back().o;
            left[newest].pop_back();
        }
        for (std::size_t i = 0; i < places.size(); ++i) { places[i] = from_place(there[i], places[i].at, partitions_[i]->log().head()); }
    }

    // ---------------------------------------------------------------------------------------------------------------- the subscriptions

    group_ref<T> find_or_make(std::string_view name, const subscribe_options<T>& o) {
        {
            std::unique_lock lock(admin_);
            if (group<T>* const g = named(name); g != nullptr && !g->is_asleep()) { return checked(*g, o); }
            if (group<T>* const g = named(name)) { // it is told now how to behave
                group_ref<T> asleep = checked(*g, o);
                std::erase_if(groups_, [&](const auto& one) { return &*one == g; });
                lock.unlock();
                asleep->end();
                stored_->push(); // what it noted is there to be taken up
            }
        }
        if (is_gone() || is_closed()) { fail(errc::closed, "the topic is closed"); }
        group_ref<T> made(*new group<T>(*this, std::string(name), o));
        made->unrefer(); // `made` has one of its own
        std::unique_lock lock(admin_);
        if (group<T>* const g = named(name)) { // somebody was faster
            group_ref<T> other = checked(*g, o);
            lock.unlock();
            made->end();
            return other;
        }
        groups_.push_back(group_ref<T>(*made));
        made->set_number(++numbers_);
        lock.unlock();
        if (is_closed()) { made->set_closing(); }
        if (o.expires_after > duration::zero()) { some_expire_.store(true, std::memory_order_relaxed); }
        return made;
    }
    group<T>* named(std::string_view name) const noexcept {
        if (name.empty()) { return nullptr; }
        const auto at = std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g->name() == name; });
        return at != groups_.end() ? &**at : nullptr;
    }
    static group_ref<T> checked(group<T>& g, const subscribe_options<T>& o) {
        if (g.options().mode != o.mode) { fail(errc::already_exists, "the subscription of that name has another sharing mode"); }
        return group_ref<T>(g);
    }
    std::vector<group_ref<T>> everybody() {
        const std::lock_guard lock(admin_);
        std::vector<group_ref<T>> all;
        all.reserve(groups_.size());
        for (const auto& g : groups_) { all.push_back(group_ref<T>(*g)); }
        return all;
    }
    // One after the other, without memory: those that come or go meanwhile may be seen or not.
    template <class Fn>
    void each(Fn fn) noexcept {
        for (std::uint64_t seen = 0;;) {
            group<T>* next = nullptr;
            {
                const std::lock_guard lock(admin_);
                const auto at =
                    std::upper_bound(groups_.begin(), groups_.end(), seen, [](std::uint64_t n, const auto& g) { return n < g->number(); });
                if (at == groups_.end()) { return; }
                next = &**at;
                next->refer();
            }
            seen = next->number();
            fn(*next);
            next->unrefer();
        }
    }
    template <class Which>
    void take_out(Which which, std::vector<group_ref<T>>& to) {
        for (std::size_t i = 0; i < groups_.size();) {
            if (which(*groups_[i])) {
                to.push_back(std::move(groups_[i]));
                groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(i));
            } else {
                ++i;
            }
        }
    }
    // Durable subscriptions that nobody has used for too long.
    void expire() {
        if (!some_expire_.load(std::memory_order_relaxed)) { return; }
        const duration now = common_.time.now();
        try {
            end_for_good([&](group<T>& g) {
                const duration after = g.options().expires_after;
                return g.is_durable() && after > duration::zero() && g.unused_since(now - after);
            });
        } catch (const error&) {} // the journal cannot forget it now
    }
    // In a journal they are forgotten on disk first, and meanwhile nobody takes them up by their names. Returns whether there were any.
    template <class Which>
    bool end_for_good(Which which) {
        std::vector<group_ref<T>> gone;
        struct ending { // what waits for them runs without a lock, and may subscribe again
            topic_core& topic;
            const std::vector<group_ref<T>>& gone;
            ~ending() {
                for (auto& g : gone) {
                    g->end();
                    topic.end_answering(&*g);
                }
            }
        } const later{*this, gone};
        {
            const auto names = keep_names();
            for (auto& g : everybody()) {
                if (!which(*g)) { continue; }
                gone.reserve(gone.size() + 1);
                if (stored_ != nullptr) { stored_->forget(g->name()); }
                const std::lock_guard lock(admin_);
                take_out([&](group<T>& one) { return &one == &*g; }, gone);
            }
        }
        return !gone.empty();
    }
    std::unique_lock<std::recursive_mutex> keep_names() {
        return stored_ != nullptr ? std::unique_lock(naming_) : std::unique_lock<std::recursive_mutex>();
    }

    cursor::rest remaining() noexcept {
        cursor::rest result = cursor::rest::nothing;
        each([&](group<T>& g) {
            const cursor::rest one = g.remaining();
            if (one == cursor::rest::some || result == cursor::rest::nothing) { result = one; }
        });
        return result;
    }

    // --------------------------------------------------------------------------------------------------------------- partition_owner

    duration next_due() const noexcept override {
        duration next = clock::never;
        const std::lock_guard lock(admin_);
        for (const auto& g : groups_) { next = std::min(next, g->next_due()); }
        return next;
    }
    void catch_up() noexcept override {
        each([](group<T>& g) { g.step(); });
    }
    bool make_room(std::size_t n, std::size_t bytes) noexcept override {
        bool made = false, held_back = false;
        const bool by_rule = common_.room.rule() == overflow::drop_oldest;
        each([&](group<T>& g) {
            if (!g.is_durable()) { return; }
            made = g.shed(n, bytes, by_rule) || made;
            held_back = held_back || (!g.is_gone() && common_.room.over(g.account(), n, bytes));
        });
        if (held_back) { return false; } // then it is not published, and nobody else has to lose anything for it
        each([&](group<T>& g) { made = (!g.is_durable() && g.shed(n, bytes, by_rule)) || made; });
        return made;
    }
    void note_timed(int p, offset o, duration expires) noexcept override {
        each([&](group<T>& g) { g.taps()[static_cast<std::size_t>(p)]->state().note_timed(o, expires); });
    }

    offset held_from(int p) noexcept override {
        offset lowest = no_offset;
        each([&](group<T>& g) {
            if (!g.is_durable() && !g.is_gone()) { lowest = std::min(lowest, g.taps()[static_cast<std::size_t>(p)]->state().lowest_needed()); }
        });
        return lowest;
    }
    void hold() noexcept override { this->refer(); }
    void let_go() noexcept override { this->unrefer(); }

    // timed
    void step() noexcept override {
        catch_up();
        this->sweep_calls();
        try {
            expire();
        } catch (...) { // no memory: next time
        }
        for (auto& p : partitions_) { p->trim(); }
        common_.room.wake_all();
        wake_watchers();
    }

    const bool is_plain_;
    const std::unique_ptr<topic_archive<T>> stored_; // or nullptr
    std::atomic<std::size_t> turn_{0};
    std::atomic<bool> closed_{false};
    std::atomic<bool> gone_{false};
    std::atomic<bool> some_expire_{false};

    std::recursive_mutex naming_; // which durable subscriptions there are, and are stored: above `admin_`
    mutable std::mutex admin_;
    std::vector<group_ref<T>> groups_; // in the order of their numbers
    std::uint64_t numbers_ = 0;
    wait_list watchers_; // who drains
};

} // namespace mailroom::detail
