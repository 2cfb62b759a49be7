#include <mailroom/cursor/index.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

namespace {

using mailroom::duration;
using mailroom::offset;
using mailroom::detail::entry;
using mailroom::detail::index;
using place = entry::place;

constexpr duration none = duration::min();

// Everything is sent at time zero and known by its offset.
struct index_of {
    index i;
    explicit index_of(int levels = 1, bool by_key = false, bool keeps_age = false) : i(levels, by_key, keeps_age) {}

    entry& enter(offset o, duration when = none, std::uint64_t key = 0, int level = 0) {
        entry& e = *i.make(o, key);
        e.level = static_cast<std::uint8_t>(level);
        i.enter(e, 0s, when, true);
        return e;
    }
    void end(entry& e, duration now = 0s) {
        i.take_out(e);
        i.leave_group(e, now);
        i.forget(e);
        i.recycle(e);
    }
    // What would be handed out, one after the other.
    std::vector<offset> order() {
        std::vector<offset> all;
        while (entry* const e = i.best()) {
            all.push_back(e->offset);
            end(*e);
        }
        return all;
    }
};
using offsets = std::vector<offset>;

} // namespace

TEST_CASE("index: finds what was made until it is forgotten") {
    index_of x;
    CHECK(x.i.find(0) == nullptr);
    std::vector<entry*> entries;
    for (offset o = 0; o < 1000; ++o) { entries.push_back(&x.enter(o * 7)); }
    for (offset o = 0; o < 1000; ++o) { CHECK(x.i.find(o * 7) == entries[o]); }
    CHECK(x.i.find(1) == nullptr);
    CHECK(x.i.size() == 1000);
    x.end(*entries[500]);
    CHECK(x.i.find(3500) == nullptr);
    CHECK(x.i.size() == 999);
    CHECK(x.i.count().ready == 999);
}

TEST_CASE("index: the highest level first, then the lowest offset, those that came again in their old places") {
    index_of x(3);
    for (offset o = 0; o < 6; ++o) { x.enter(o, none, 0, static_cast<int>(o % 3)); }
    CHECK(x.i.eligible() == 6);
    entry& again = *x.i.best();
    CHECK(again.offset == 2);
    x.i.take_out(again);
    x.i.lease(again, 9s);
    CHECK(x.i.best()->offset == 5);
    x.i.take_out(again);
    x.i.enter(again, 1s, none, false);
    CHECK(x.order() == offsets{2, 5, 1, 4, 0, 3});
}

TEST_CASE("index: parked until due, leased until over, expiring: the nearest of each is on top") {
    index_of x;
    entry& late = x.enter(0, 9s);
    entry& soon = x.enter(1, 3s);
    entry& now = x.enter(2);
    CHECK(x.i.count().parked == 2);
    CHECK(x.i.next_parked() == &soon);
    CHECK(x.i.best() == &now);
    x.i.due(soon, 3s);
    CHECK(soon.where == place::ready);
    CHECK(x.i.best() == &soon);
    x.i.take_out(soon);
    x.i.lease(soon, 20s);
    x.i.take_out(now);
    x.i.lease(now, 10s);
    CHECK(x.i.next_lease() == &now);
    x.i.extend(now, 30s);
    CHECK(x.i.next_lease() == &soon);
    CHECK(x.i.count().leased == 2);
    CHECK(x.i.eligible() == 0);
    x.i.take_out(late);
    late.expires = 5s;
    x.i.enter(late, 3s, 9s, false);
    CHECK(x.i.next_expiry() == &late);
    x.i.take_out(late);
    CHECK(x.i.next_expiry() == nullptr); // what is out cannot expire
}

TEST_CASE("index: of a key, one is current; the next may go when it has left its group") {
    index_of x(1, true);
    entry& a1 = x.enter(0, none, 11);
    entry& a2 = x.enter(1, none, 11);
    entry& b1 = x.enter(2, none, 22);
    entry& free = x.enter(3);
    CHECK(x.i.count().ready == 4);
    CHECK(x.i.eligible() == 3);
    x.i.take_out(a1);
    x.i.lease(a1, 9s);
    x.i.take_out(b1);
    x.i.lease(b1, 9s);
    CHECK(x.i.best() == &free);
    x.i.take_out(a1);
    x.i.enter(a1, 0s, 5s, false); // it failed: its pause holds the key
    CHECK(a2.where == place::waiting);
    CHECK(x.i.eligible() == 1);
    x.i.due(a1, 5s);
    CHECK(x.i.best() == &a1);
    x.end(a1);
    CHECK(x.i.best() == &a2);
    x.end(a2);
    entry& a3 = x.enter(9, none, 11); // the group was forgotten and is made again
    CHECK(a3.where == place::ready);
    x.end(a3);
    x.end(b1);
    x.end(free);
    CHECK(x.i.size() == 0);
}

TEST_CASE("index: a message that waits for its key and its time goes when both have come") {
    index_of x(1, true);
    entry& first = x.enter(0, none, 11);
    entry& second = x.enter(1, 5s, 11);
    CHECK(second.where == place::waiting);
    CHECK(x.i.count().parked == 1);
    CHECK(x.i.next_parked() == &second);
    x.end(first, 1s);
    CHECK(second.where == place::parked);
    x.i.due(second, 5s);
    CHECK(x.i.best() == &second);
    x.end(second);

    entry& third = x.enter(2, none, 11);
    entry& fourth = x.enter(3, 5s, 11);
    x.i.due(fourth, 5s); // its time first
    CHECK(fourth.where == place::waiting);
    CHECK(x.i.count().parked == 0);
    CHECK(x.i.count().ready == 2);
    x.end(third, 6s);
    CHECK(x.i.best() == &fourth);
}

TEST_CASE("index: the dead keep the order of dying; one that is held keeps its place") {
    index_of x;
    entry& a = x.enter(0);
    entry& b = x.enter(1);
    for (entry* e : {&b, &a}) {
        x.i.take_out(*e);
        x.i.bury(*e);
    }
    CHECK(x.i.count().dead == 2);
    CHECK(x.i.count().ready == 0);
    CHECK(x.i.next_dead() == &b);
    x.i.hold_dead(b);
    CHECK(x.i.next_dead() == &a);
    x.i.hold_dead(a);
    CHECK(x.i.next_dead() == nullptr);
    x.i.return_dead(b);
    CHECK(x.i.next_dead() == &b);
    offsets free;
    x.i.each_dead([&](const entry& e) { free.push_back(e.offset); });
    CHECK(free == offsets{1});
    x.end(b);
    x.end(a);
    CHECK(x.i.count().dead == 0);
}

TEST_CASE("index: the oldest is known where it is asked for, wherever it stands; what is handed out is not") {
    index_of x(2, true, true);
    entry& parked = x.enter(0, 9s);
    x.enter(1, none, 0, 1);
    x.enter(2, none, 5);
    entry& waits = x.enter(3, none, 5);
    CHECK(x.i.oldest() == &parked);
    x.end(parked);
    entry& ready = *x.i.oldest();
    CHECK(ready.offset == 1);
    x.i.take_out(ready);
    x.i.lease(ready, 1s);
    CHECK(x.i.oldest()->offset == 2);
    x.end(*x.i.oldest());
    CHECK(x.i.oldest() == &waits);
    CHECK(x.i.best() == &waits);
}

TEST_CASE("index: random moves keep counts, order and keys right") {
    support::for_each_seed(100, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        index_of x(3, true, true);
        std::map<offset, entry*> all;
        offset next = 0;
        for (int step = 0; step < 1500; ++step) {
            const duration now = duration(step) * 1'000'000;
            while (x.i.next_parked() != nullptr && x.i.next_parked()->when <= now) { x.i.due(*x.i.next_parked(), now); }
            if (dice.percent(50)) {
                entry& e = *x.i.make(next, dice.percent(50) ? 1 + dice.below(4) : 0);
                e.level = static_cast<std::uint8_t>(dice.below(3));
                x.i.enter(e, now, dice.percent(30) ? now + dice.below(100) * 1ms : none, true);
                all[next++] = &e;
            } else if (entry* const best = x.i.best()) {
                x.i.take_out(*best);
                x.i.lease(*best, now + 1s);
            }
            if (entry* const out = x.i.next_lease(); out != nullptr && dice.percent(60)) {
                if (dice.percent(50)) {
                    all.erase(out->offset);
                    x.end(*out, now);
                } else {
                    x.i.take_out(*out);
                    x.i.enter(*out, now, dice.percent(50) ? now + 5ms : now, false);
                }
            }
            std::size_t ready = 0, parked = 0, leased = 0, eligible = 0;
            std::map<std::uint64_t, int> current;
            offset oldest = mailroom::no_offset;
            const entry* best = nullptr;
            for (const auto& [o, e] : all) {
                const bool waits_for_time = e->where == place::waiting && e->in_order.linked;
                ready += e->where == place::ready || (e->where == place::waiting && !waits_for_time);
                parked += e->where == place::parked || waits_for_time;
                leased += e->where == place::leased;
                eligible += e->where == place::ready;
                if (e->group != nullptr && e->where != place::waiting) { ++current[e->group->key]; }
                if (e->where != place::leased) { oldest = std::min(oldest, o); }
                if (e->where == place::ready &&
                    (best == nullptr || e->level > best->level || (e->level == best->level && e->offset < best->offset))) {
                    best = e;
                }
            }
            const auto& c = x.i.count();
            bool right = c.ready == ready && c.parked == parked && c.leased == leased && x.i.eligible() == eligible && x.i.best() == best &&
                         (x.i.oldest() == nullptr ? oldest == mailroom::no_offset : x.i.oldest()->offset == oldest);
            for (const auto& [key, n] : current) { right = right && n == 1; }
            if (!right) {
                FAIL("step " << step);
                return false;
            }
        }
        return true;
    });
}

// ------------------------------------------------------------------------------------------------------------------- members share by key

namespace {

struct shared_index {
    mailroom::detail::key_shares shares;
    index i{1, true, false, &shares};

    explicit shared_index(std::uint16_t members) {
        for (std::uint16_t m = 1; m <= members; ++m) { join(m); }
    }
    void join(std::uint16_t m) {
        i.make_level(m);
        shares.join(m);
    }
    void leave(std::uint16_t m) {
        shares.leave(m);
        i.clear_level(m);
    }
    entry& enter(offset o, std::uint64_t key, duration when = none) {
        entry& e = *i.make(o, key);
        i.enter(e, 0s, when, true);
        return e;
    }
    void end(entry& e) {
        i.take_out(e);
        i.leave_group(e, 0s);
        i.forget(e);
        i.recycle(e);
    }
    std::vector<offset> order(std::uint32_t member) {
        std::vector<offset> all;
        while (entry* const e = i.best_for(member)) {
            all.push_back(e->offset);
            end(*e);
        }
        return all;
    }
    // Keys that belong to these members, as they turn up.
    std::uint64_t key_of(std::uint16_t member) {
        std::uint64_t key = 1;
        while (shares.owner_of(key) != member || taken.count(key) != 0) { key += 2; }
        taken[key] = member;
        return key;
    }
    std::map<std::uint64_t, std::uint16_t> taken;
};

} // namespace

TEST_CASE("index: each member gets what its keys have and what has none, the lowest offset first") {
    shared_index x(2);
    const std::uint64_t one = x.key_of(1), two = x.key_of(2), other = x.key_of(1);
    x.enter(0, two);
    x.enter(1, one);
    x.enter(2, 0);
    x.enter(3, other);
    x.enter(4, one); // behind 1
    CHECK(x.i.best_for(1)->offset == 1);
    CHECK(x.i.best_for(2)->offset == 0);
    CHECK(x.i.best_for(3)->offset == 2); // who has no keys, and whom nobody knows
    CHECK(x.i.has_for(1));
    CHECK(x.order(1) == offsets{1, 2, 3, 4});
    CHECK(!x.i.has_for(1));
    CHECK(x.i.best_for(1) == nullptr);
    CHECK(x.order(2) == offsets{0});
    CHECK(x.i.eligible() == 0);
    CHECK(x.i.count().ready == 0);
}

TEST_CASE("index: what is ready for a member that leaves goes to those its keys go to, in order") {
    shared_index x(2);
    const std::uint64_t one = x.key_of(1), more = x.key_of(1), two = x.key_of(2);
    x.enter(0, one);
    x.enter(1, two);
    x.enter(2, more);
    x.enter(3, one);
    CHECK(x.i.best_for(2)->offset == 1);
    x.leave(1);
    CHECK(x.i.best_for(1) == nullptr);
    CHECK(!x.i.has_for(1));
    CHECK(x.i.count().ready == 4);
    CHECK(x.i.eligible() == 3);
    CHECK(x.order(2) == offsets{0, 1, 2, 3});
    x.i.clear_level(9); // a member nobody knows
}

TEST_CASE("index: without members what has a key waits for the first who comes") {
    shared_index x(1);
    const std::uint64_t one = x.key_of(1);
    x.enter(0, one);
    x.enter(2, 0);
    x.leave(1);
    const std::uint64_t fresh = one + 1000;
    x.enter(1, fresh);
    CHECK(x.i.eligible() == 3);
    CHECK(x.i.has_for(2)); // perhaps: nobody has asked whose it is
    x.join(2);
    x.join(3);
    std::map<std::uint32_t, offsets> got;
    for (std::uint32_t m = 2; m <= 3; ++m) {
        while (entry* const e = x.i.best_for(m)) {
            got[m].push_back(e->offset);
            const std::uint16_t owner = e->group != nullptr ? x.shares.owner_of(e->group->key) : std::uint16_t{0};
            CHECK((owner == 0 || owner == m));
            x.end(*e);
        }
    }
    CHECK(got[2].size() + got[3].size() == 3);
    CHECK(std::is_sorted(got[2].begin(), got[2].end()));
    CHECK(std::is_sorted(got[3].begin(), got[3].end()));
}

TEST_CASE("index: what was leased when its member left is the heir's when it comes back") {
    shared_index x(2);
    const std::uint64_t one = x.key_of(1);
    entry& e = x.enter(0, one);
    x.enter(1, one);
    x.i.take_out(e);
    x.i.lease(e, 9s);
    CHECK(x.i.best_for(1) == nullptr);
    x.leave(1);
    CHECK(x.i.best_for(2) == nullptr); // the key is held
    x.i.take_out(e);
    x.i.enter(e, 0s, none, false);
    CHECK(x.order(2) == offsets{0, 1});
}

TEST_CASE("index: random keys and members: whoever asks gets the oldest of what is his, and of a key one at a time") {
    support::for_each_seed(200, [](std::uint64_t seed) {
        support::dice dice(seed);
        shared_index x(0);
        std::vector<std::uint16_t> members;
        struct message {
            std::uint64_t key;
            bool out;
        };
        std::map<offset, message> all;
        offset next = 0;
        bool right = true;
        for (int step = 0; step < 500 && right; ++step) {
            const unsigned what = dice.below(10);
            if (what < 4) {
                const std::uint64_t key = dice.percent(15) ? 0 : 1 + 2 * dice.below(12);
                x.enter(next, key);
                all[next++] = {key, false};
            } else if (what == 4 && members.size() < 4) {
                std::uint16_t m = 1;
                while (std::find(members.begin(), members.end(), m) != members.end()) { ++m; }
                members.push_back(m);
                x.join(m);
            } else if (what == 5 && !members.empty() && dice.percent(50)) {
                const auto at = members.begin() + dice.between(0, static_cast<int>(members.size()) - 1);
                const std::uint16_t m = *at;
                members.erase(at);
                x.leave(m);
            } else if (what < 8 && !members.empty()) {
                const std::uint16_t m = members[dice.below(static_cast<unsigned>(members.size()))];
                offset expected = mailroom::no_offset; // the first that is free: of each key, the first that is there
                std::map<std::uint64_t, bool> seen;
                for (const auto& [o, one] : all) {
                    if (one.key == 0 ? one.out : std::exchange(seen[one.key], true)) { continue; }
                    if (one.out || (one.key != 0 && x.shares.owner_of(one.key) != m)) { continue; }
                    expected = o;
                    break;
                }
                entry* const e = x.i.best_for(m);
                right = e == nullptr ? expected == mailroom::no_offset : e->offset == expected;
                if (e != nullptr && right) {
                    x.i.take_out(*e);
                    x.i.lease(*e, 9s);
                    all[e->offset].out = true;
                }
            } else {
                for (auto& [o, one] : all) {
                    if (!one.out || !dice.percent(50)) { continue; }
                    entry& e = *x.i.find(o);
                    if (dice.percent(60)) {
                        x.end(e);
                        all.erase(o);
                        break;
                    }
                    x.i.take_out(e);
                    x.i.enter(e, 0s, none, false);
                    one.out = false;
                }
            }
            if (!right) { FAIL_CHECK("MAILROOM_TEST_SEED=", seed, " at step ", step); }
        }
        return right;
    });
}
