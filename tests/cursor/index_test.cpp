#include <mailroom/cursor/index.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
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
                if (e->where == place::ready && (best == nullptr || e->level > best->level || (e->level == best->level && e->offset < best->offset))) { best = e; }
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
