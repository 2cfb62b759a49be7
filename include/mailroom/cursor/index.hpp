// index: the ordered side of a cursor. Entries by place: ready, waiting for their key, parked, leased, dead.
//
// A data structure and nothing else: no clock, no lock, no bodies. The cursor's mutex protects it. Only `make` may fail (std::bad_alloc);
// every later move of an entry is noexcept, because a settlement must not fail for want of memory.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/cursor/entry.hpp>
#include <mailroom/cursor/heap.hpp>
#include <mailroom/cursor/sharing.hpp>
#include <mailroom/stream/recycler.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace mailroom::detail {

class index {
public:
    /// `keeps_age`: the oldest message that is not handed out will be asked for.
    /// `shares`: who gets which key, where members share them; each then has a level of his own, and level 0 is anybody's.
    index(int levels, bool by_key, bool keeps_age, key_shares* shares = nullptr)
        : ready_(static_cast<std::size_t>(levels)), by_key_(by_key), keeps_age_(keeps_age), shares_(shares) {}
    index(const index&) = delete;
    index& operator=(const index&) = delete;
    ~index() {
        for (entry* e : buckets_) {
            while (e != nullptr) {
                entry* const next = e->next_same_bucket;
                delete e;
                e = next;
            }
        }
    }

    /// How many entries are in each place. `ready` includes those that wait for their key.
    struct counts {
        std::size_t ready = 0, parked = 0, leased = 0, dead = 0;
    };
    const counts& count() const noexcept { return count_; }
    std::size_t size() const noexcept { return size_; }
    /// Of the messages that are leased.
    std::uint64_t leased_bytes() const noexcept { return leased_bytes_; }

    /// A new entry for `o`, in no place yet. `key` is 0 where there is none. May throw std::bad_alloc; then nothing has changed.
    entry* make(offset o, std::uint64_t key) {
        if (size_ >= buckets_.size()) { rehash(buckets_.empty() ? 16 : buckets_.size() * 2); }
        key_group* group = nullptr;
        if (by_key_ && key != 0) { group = &groups_[key]; }
        entry* e = nullptr;
        try {
            e = pool_.get();
        } catch (...) {
            if (group != nullptr && group->current == nullptr && group->waiting.empty()) { groups_.erase(key); }
            throw;
        }
        *e = entry();
        e->offset = o;
        if (group != nullptr) {
            group->key = key;
            e->group = group;
        }
        entry*& bucket = buckets_[hash(o)];
        e->next_same_bucket = bucket;
        bucket = e;
        ++size_;
        return e;
    }

    /// Forgets an entry that is nowhere. It stays valid until `recycle`.
    void forget(entry& e) noexcept {
        if (e.departed) { return; }
        entry** link = &buckets_[hash(e.offset)];
        while (*link != &e) { link = &(*link)->next_same_bucket; }
        *link = e.next_same_bucket;
        --size_;
        if (buckets_.size() > 1024 && size_ < buckets_.size() / 8) {
            try {
                rehash(buckets_.size() / 4);
            } catch (...) { // no memory to become smaller with: next time
            }
        }
    }
    void recycle(entry& e) noexcept {
        e.history.reset();
        delete pool_.put(&e);
    }

    entry* find(offset o) const noexcept {
        if (buckets_.empty()) { return nullptr; }
        entry* e = buckets_[hash(o)];
        while (e != nullptr && e->offset != o) { e = e->next_same_bucket; }
        return e;
    }

    /// A message enters, or comes back: ready, or parked until `when`; behind the current one of its key if there is one.
    /// `fresh`: it comes in the order of offsets, for the first time.
    void enter(entry& e, duration now, duration when, bool fresh) noexcept {
        key_group* const group = e.group;
        if (group != nullptr && group->current != &e) {
            entry* const current = group->current;
            if (current != nullptr && (current->where == entry::place::leased || current->offset < e.offset)) {
                wait(e, now, when);
                watch(e);
                return;
            }
            group->current = &e;
            if (current != nullptr) { step_back(*current, now); } // an older one came back: a dead letter that lives again
        }
        if (group != nullptr && !group->waiting.empty() && group->waiting.front()->offset < e.offset) { // it failed, and such a one came back
            entry& older = *group->waiting.pop_front();
            stop_waiting(older);
            group->current = &older;
            put(older, now, older.when, false);
            wait(e, now, when);
        } else {
            put(e, now, when, fresh);
        }
        watch(e);
    }

    /// The time of a parked message has come.
    void due(entry& e, duration now) noexcept {
        if (e.where == entry::place::waiting) {
            parked_.erase(e);
            --count_.parked;
            ++count_.ready;
        } else {
            take_out(e);
            enter(e, now, now, false);
        }
    }

    void lease(entry& e, duration until) noexcept {
        e.when = until;
        e.where = entry::place::leased;
        leased_.push(e);
        ++count_.leased;
        leased_bytes_ += e.bytes;
    }
    void extend(entry& e, duration until) noexcept {
        leased_.erase(e);
        e.when = until;
        leased_.push(e);
    }

    /// Takes out a message whose lease has lapsed, for the one who still holds it; it is the current one of its key again, before those that
    /// became current meanwhile. False: of those, one is handed out already, and nothing has changed.
    bool reclaim(entry& e, duration now) noexcept {
        key_group* const group = e.group;
        if (group == nullptr || group->current == &e) {
            take_out(e);
            return true;
        }
        entry* const current = group->current;
        if (current != nullptr && current->where == entry::place::leased) { return false; }
        take_out(e);
        group->current = &e;
        if (current != nullptr) { step_back(*current, now); }
        return true;
    }

    void bury(entry& e) noexcept {
        e.where = entry::place::dead;
        dead_.push_back(e);
        ++count_.dead;
    }
    /// Somebody looks at a dead letter: it keeps its place, but nobody else is given it.
    void hold_dead(entry& e) noexcept { e.where = entry::place::held_dead; }
    void return_dead(entry& e) noexcept { e.where = entry::place::dead; }

    /// Takes an entry out of its place; it keeps its key until `leave_group`. What is out can neither expire nor be dropped.
    void take_out(entry& e) noexcept {
        switch (e.where) {
        case entry::place::ready:
            if (ready_[e.level].again.holds(e)) {
                ready_[e.level].again.erase(e);
            } else {
                ready_[e.level].fresh.erase(e);
            }
            --count_.ready;
            --eligible_;
            break;
        case entry::place::waiting:
            e.group->waiting.erase(e);
            stop_waiting(e);
            break;
        case entry::place::parked:
            parked_.erase(e);
            --count_.parked;
            break;
        case entry::place::leased:
            leased_.erase(e);
            --count_.leased;
            leased_bytes_ -= e.bytes;
            break;
        case entry::place::dead:
        case entry::place::held_dead:
            dead_.erase(e);
            --count_.dead;
            break;
        case entry::place::nowhere: break;
        }
        e.where = entry::place::nowhere;
        if (expiry_.holds(e)) { expiry_.erase(e); }
        if (age_.holds(e)) { age_.erase(e); }
    }

    /// A message will not come back: the next of its key may go.
    void leave_group(entry& e, duration now) noexcept {
        key_group* const group = e.group;
        if (group == nullptr || group->current != &e) {
            if (group != nullptr && group->current == nullptr && group->waiting.empty()) { groups_.erase(group->key); }
            e.group = nullptr;
            return;
        }
        e.group = nullptr;
        group->current = group->waiting.pop_front();
        if (group->current == nullptr) {
            groups_.erase(group->key);
            return;
        }
        stop_waiting(*group->current);
        put(*group->current, now, group->current->when, false);
    }
    /// A dead letter is to live again: it needs its key again. False: no memory for that; nothing has changed.
    bool join_group(entry& e, std::uint64_t key) noexcept {
        if (!by_key_ || key == 0) { return true; }
        try {
            e.group = &groups_[key];
        } catch (...) { return false; }
        e.group->key = key;
        return true;
    }

    /// What is to be handed out next: the highest level, then the lowest offset. Nullptr: nothing is ready.
    entry* best() const noexcept {
        for (auto level = ready_.rbegin(); level != ready_.rend(); ++level) {
            if (entry* const e = level->first()) { return e; }
        }
        return nullptr;
    }
    /// The same among what `member` may be given.
    entry* best_for(std::uint32_t member) noexcept {
        for (;;) {
            entry* const mine = member < ready_.size() ? ready_[member].first() : nullptr;
            entry* const anybodys = ready_[0].first();
            if (anybodys == nullptr || (mine != nullptr && mine->offset < anybodys->offset)) { return mine; }
            const std::uint32_t level = level_of(*anybodys);
            if (level == 0 || level == member) { return anybodys; }
            move_to(*anybodys, level); // its key belongs to somebody by now
        }
    }
    bool has_for(std::uint32_t member) const noexcept { return !ready_[0].empty() || (member < ready_.size() && !ready_[member].empty()); }
    /// There is a member of this number. May throw std::bad_alloc.
    void make_level(std::uint32_t member) {
        if (ready_.size() <= member) { ready_.resize(member + 1); }
    }
    /// A member has gone, its keys belong to others: so does what was ready for it.
    void clear_level(std::uint32_t member) noexcept {
        if (member >= ready_.size()) { return; }
        while (entry* const e = ready_[member].first()) { move_to(*e, level_of(*e)); }
    }
    /// Whether nothing is ready in a level that came in the order of offsets.
    bool is_dry(std::size_t level) const noexcept { return ready_[level].fresh.empty(); }
    /// How many `best` could give, one after the other.
    std::size_t eligible() const noexcept { return eligible_; }

    /// The oldest that is not handed out, wherever it stands. Needs `keeps_age`.
    entry* oldest() const noexcept { return age_.top(); }

    entry* next_parked() const noexcept { return parked_.top(); }
    entry* next_lease() const noexcept { return leased_.top(); }
    entry* next_expiry() const noexcept { return expiry_.top(); }
    /// The first dead letter that nobody holds.
    entry* next_dead() const noexcept {
        entry* e = dead_.front();
        while (e != nullptr && e->where != entry::place::dead) { e = e->next; }
        return e;
    }

    /// In the order of dying, those that nobody holds.
    template <class Fn>
    void each_dead(Fn fn) const {
        for (const entry* e = dead_.front(); e != nullptr; e = e->next) {
            if (e->where == entry::place::dead) { fn(*e); }
        }
    }
    template <class Fn>
    void each(Fn fn) const {
        for (entry* e : buckets_) {
            while (e != nullptr) {
                entry* const next = e->next_same_bucket;
                fn(*e);
                e = next;
            }
        }
    }

private:
    void put(entry& e, duration now, duration when, bool fresh) noexcept {
        if (when > now) {
            e.when = when;
            e.where = entry::place::parked;
            parked_.push(e);
            ++count_.parked;
            return;
        }
        e.where = entry::place::ready;
        if (shares_ != nullptr) { e.level = level_of(e); }
        if (fresh) {
            ready_[e.level].fresh.push_back(e);
        } else {
            ready_[e.level].again.push(e);
        }
        ++count_.ready;
        ++eligible_;
    }
    std::uint16_t level_of(const entry& e) const noexcept { return e.group != nullptr ? shares_->owner_of(e.group->key) : std::uint16_t{0}; }
    void move_to(entry& e, std::uint32_t level) noexcept {
        if (ready_[e.level].again.holds(e)) {
            ready_[e.level].again.erase(e);
        } else {
            ready_[e.level].fresh.erase(e);
        }
        e.level = static_cast<std::uint16_t>(level);
        ready_[level].again.push(e);
    }
    // Behind the current message of its key. If it has a time of its own it counts as parked until then.
    void wait(entry& e, duration now, duration when) noexcept {
        e.when = when;
        e.where = entry::place::waiting;
        e.group->waiting.insert_sorted(e);
        if (when > now) {
            parked_.push(e);
            ++count_.parked;
        } else {
            ++count_.ready;
        }
    }
    // It was the current one of its key.
    void step_back(entry& e, duration now) noexcept {
        const duration its_when = e.where == entry::place::parked ? e.when : duration::min();
        take_out(e);
        wait(e, now, its_when);
        watch(e);
    }
    void stop_waiting(entry& e) noexcept {
        if (parked_.holds(e)) {
            parked_.erase(e);
            --count_.parked;
        } else {
            --count_.ready;
        }
    }
    void watch(entry& e) noexcept {
        if (e.expires != duration::max()) { expiry_.push(e); }
        if (keeps_age_) { age_.push(e); }
    }

    std::size_t hash(offset o) const noexcept { return static_cast<std::size_t>(o) & (buckets_.size() - 1); } // offsets are dense
    void rehash(std::size_t size) {
        std::vector<entry*> before(size, nullptr);
        before.swap(buckets_);
        for (entry* e : before) {
            while (e != nullptr) {
                entry* const next = e->next_same_bucket;
                entry*& bucket = buckets_[hash(e->offset)];
                e->next_same_bucket = bucket;
                bucket = e;
                e = next;
            }
        }
    }

    // What is ready: what came in the order of offsets, and what came back.
    struct rank {
        entry_list fresh;
        heap<entry, &entry::in_order, by_offset> again;
        bool empty() const noexcept { return fresh.empty() && again.empty(); }
        entry* first() const noexcept {
            entry* const a = fresh.front();
            entry* const b = again.top();
            return a == nullptr || (b != nullptr && b->offset < a->offset) ? b : a;
        }
    };
    std::vector<rank> ready_;
    heap<entry, &entry::in_order, by_time> parked_;
    heap<entry, &entry::in_order, by_time> leased_;
    heap<entry, &entry::in_expiry, by_expiry> expiry_;
    heap<entry, &entry::in_age, by_offset> age_;
    entry_list dead_; // in the order of dying
    std::unordered_map<std::uint64_t, key_group> groups_;
    recycler<entry> pool_;
    std::vector<entry*> buckets_;
    std::size_t size_ = 0;
    std::size_t eligible_ = 0;
    std::uint64_t leased_bytes_ = 0;
    counts count_;
    bool by_key_;
    bool keeps_age_;
    key_shares* const shares_;
};

} // namespace mailroom::detail
