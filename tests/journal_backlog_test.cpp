// A long backlog in a journal, where order is not that of the offsets, or times are watched: it is handed out right, and is not in memory.
#include "support/random.hpp"
#include "support/stored.hpp"
#include "support/tracked.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

/// Knows how many of its kind were read.
struct counted {
    int number = 0;
    static inline std::size_t reads = 0;
};

} // namespace

template <>
struct mailroom::codec<counted> {
    static constexpr std::string_view content_type = "application/octet-stream";
    static void encode(const counted& c, byte_sink& out) { codec<int>::encode(c.number, out); }
    static counted decode(std::span<const std::byte> b) {
        ++counted::reads;
        return {codec<int>::decode(b)};
    }
};

namespace {

/// Can be read by some programs, and by others not.
struct particular {
    int number = 0;
    static inline bool is_read = true;
};

} // namespace

template <>
struct mailroom::codec<particular> {
    static constexpr std::string_view content_type = "application/octet-stream";
    static void encode(const particular& p, byte_sink& out) { codec<int>::encode(p.number, out); }
    static particular decode(std::span<const std::byte> b) {
        if (!particular::is_read) { throw std::runtime_error("not for this one"); }
        return {codec<int>::decode(b)};
    }
};

using namespace std::chrono_literals;
using mailroom::durability;
using mailroom::offset;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using support::simulated_journal;
using support::tracked;

namespace {

constexpr long some = 500; // so many bodies may be in memory, whatever waits

struct home {
    manual_clock clock{1h};
    simulated_files disk;
    std::optional<simulated_journal> journal;

    home() { open(); }
    void open() {
        journal.emplace("journal", mailroom::journal_options{.durability = durability::none, .segment_bytes = 256 << 10, .clock = &clock}, disk);
    }
    void reopen() {
        journal.reset();
        open();
    }
};

template <class T = tracked>
using queue = mailroom::queue<T, simulated_journal>;

/// The offsets of `n` messages in the order in which they are to be handed out, sent with random priorities.
template <class T>
std::vector<offset> send_some(queue<T>& q, std::size_t n, support::dice& dice, unsigned levels) {
    std::map<int, std::vector<offset>> by_level;
    for (std::size_t i = 0; i < n; ++i) {
        const int priority = static_cast<int>(dice.below(levels));
        const offset o = q.send(T(static_cast<int>(i)), {.priority = priority});
        by_level[-priority].push_back(o);
    }
    std::vector<offset> all;
    for (const auto& [level, places] : by_level) { all.insert(all.end(), places.begin(), places.end()); }
    return all;
}

} // namespace

TEST_CASE("journal backlog: with priorities, in the order they ask for, most of it unread") {
    for (const bool again : {false, true}) {
        CAPTURE(again);
        home h;
        support::dice dice(support::seed());
        std::vector<offset> expected;
        std::optional<queue<>> q(std::in_place, *h.journal, "q", mailroom::queue_options<tracked>{.priorities = 5});
        expected = send_some(*q, 6000, dice, 5);
        if (again) {
            q.reset();
            h.reopen();
            q.emplace(*h.journal, "q", mailroom::queue_options<tracked>{.priorities = 5});
        }
        const long before = tracked::live();
        long most = 0;
        std::vector<offset> got;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            if (i % 3 == 0) {
                const auto m = q->try_pop();
                REQUIRE(m);
                got.push_back(m->offset());
            } else {
                auto d = q->try_receive();
                REQUIRE(d);
                got.push_back(d->offset());
                CHECK(d->ack());
            }
            most = std::max(most, tracked::live() - before);
            if (i == 100) { CHECK(q->statistics().ready == expected.size() - 101); }
        }
        CHECK(got == expected);
        CHECK(most < some);
        CHECK_FALSE(q->try_receive());
        const mailroom::stats s = q->statistics();
        CHECK(s.ready == 0);
        CHECK(s.acked == expected.size());
        CHECK(q->drain(0s));
    }
    CHECK(tracked::faults() == 0);
}

TEST_CASE("journal backlog: what is more urgent comes first, however much waits") {
    home h;
    queue<> q(*h.journal, "q", {.priorities = 3});
    for (int i = 0; i < 3000; ++i) { q.send(tracked(i)); }
    CHECK(q.try_pop()->offset() == 0);
    const offset urgent = q.send(tracked(-5), {.priority = 2});
    const offset less = q.send(tracked(-6), {.priority = 1});
    auto held = q.try_receive();
    REQUIRE(held);
    CHECK(held->offset() == urgent);
    CHECK(q.try_receive()->offset() == less); // and back at once, for it is not settled
    CHECK(held->release());
    CHECK(q.try_pop()->offset() == urgent);
    h.clock.advance(1min);
    CHECK(q.try_pop()->offset() == less);
    CHECK(q.try_pop()->offset() == 1);
}

TEST_CASE("journal backlog: one message with a time of its own does not load what is before it") {
    home h;
    queue<> q(*h.journal, "q");
    constexpr int many = 5000;
    for (int i = 0; i < many; ++i) { q.send(tracked(i)); }
    q.send(tracked(many), {.time_to_live = 10s});
    q.send(tracked(many + 1), {.delay = 20s});
    for (int i = 0; i < 100; ++i) { q.send(tracked(i)); }
    const long before = tracked::live();
    CHECK(q.statistics().parked == 1);
    CHECK(q.statistics().ready == many + 101);
    CHECK(tracked::live() - before < some);
    h.clock.advance(15s);
    CHECK(q.statistics().dead == 1);
    CHECK(q.statistics().ready == many + 100);
    h.clock.advance(10s);
    CHECK(q.statistics().ready == many + 101);
    long most = 0;
    for (offset o = 0; o < many + 102; ++o) {
        if (o == many) { continue; }
        const auto m = q.try_pop();
        REQUIRE(m);
        REQUIRE(m->offset() == o);
        most = std::max(most, tracked::live() - before);
    }
    CHECK(most < some);
    CHECK_FALSE(q.try_pop());
    CHECK(q.dead().try_receive()->offset() == many);
}

TEST_CASE("journal backlog: a time to live for all takes what is unread as well") {
    home h;
    queue<> q(*h.journal, "q", {.time_to_live = 1min, .priorities = 2, .max_dead = 100});
    for (int i = 0; i < 1000; ++i) { q.send(tracked(i), {.priority = i % 2}); }
    h.clock.advance(30s);
    for (int i = 0; i < 1000; ++i) { q.send(tracked(i), {.priority = i % 2}); }
    CHECK(q.try_pop()->offset() == 1);
    h.clock.advance(40s);
    const mailroom::stats s = q.statistics();
    CHECK(s.ready == 1000);
    CHECK(s.expired == 999);
    CHECK(s.dead == 100);
    CHECK(q.try_pop()->offset() == 1001);
}

TEST_CASE("journal backlog: what is unread expires in time though longer lives are in front of it") {
    home h;
    queue<> q(*h.journal, "q", {.time_to_live = 1min, .priorities = 2});
    for (int i = 0; i < 100; ++i) { q.send(tracked(i), {.time_to_live = 1h}); }
    for (int i = 0; i < 1000; ++i) { q.send(tracked(100 + i)); }
    CHECK(q.try_pop()->body().value() == 0);
    h.clock.advance(50s);
    for (int i = 0; i < 1000; ++i) { q.send(tracked(1100 + i)); }
    CHECK(q.try_pop()->body().value() == 1);
    CHECK(tracked::live() < some);
    h.clock.advance(10s); // and the clock, not somebody who looks, has it done
    auto dead = q.dead().try_receive();
    REQUIRE(dead);
    CHECK(dead->body().value() == 100);
    mailroom::stats s = q.statistics();
    CHECK(s.expired == 1000);
    CHECK(s.ready == 1098);
    h.clock.advance(50s);
    s = q.statistics();
    CHECK(s.expired == 2000);
    CHECK(s.ready == 98);
    CHECK(q.try_pop()->body().value() == 2);
}

TEST_CASE("journal backlog: looked through without being loaded, in order") {
    for (const int levels : {1, 3}) {
        CAPTURE(levels);
        home h;
        queue<> q(*h.journal, "q", {.priorities = levels});
        constexpr offset many = 3000;
        for (offset i = 0; i < many; ++i) { q.send(tracked(static_cast<int>(i)), {.priority = static_cast<int>(i % 3)}); }
        q.send(tracked(7), {.delay = 1min});
        auto held = q.try_receive();
        REQUIRE(held);
        const offset popped = q.try_pop()->offset();
        const long before = tracked::live();
        long most = 0;
        std::vector<offset> seen;
        std::size_t in_flight = 0, parked = 0;
        q.browse([&](const mailroom::message<tracked>& m, mailroom::message_state where) {
            CHECK(m.body().value() == (m.offset() < many ? static_cast<int>(m.offset()) : 7));
            seen.push_back(m.offset());
            in_flight += where == mailroom::message_state::in_flight;
            parked += where == mailroom::message_state::parked;
            most = std::max(most, tracked::live() - before);
            return true;
        });
        CHECK(seen.size() == many);
        CHECK(std::is_sorted(seen.begin(), seen.end()));
        CHECK(std::find(seen.begin(), seen.end(), popped) == seen.end());
        CHECK(in_flight == 1);
        CHECK(parked == 1);
        CHECK(most < some);
        std::size_t n = 0;
        q.browse([&](const mailroom::message<tracked>&, mailroom::message_state) { return ++n < 1500; });
        CHECK(n == 1500);
        CHECK(held->ack());
        h.reopen();
        queue<> later(*h.journal, "q", {.priorities = levels});
        n = 0;
        later.browse([&](const mailroom::message<tracked>&, mailroom::message_state) { return ++n != 0; });
        CHECK(n == many - 1);
    }
}

TEST_CASE("journal backlog: purged, whatever of it is in memory") {
    home h;
    queue<> q(*h.journal, "q", {.priorities = 4});
    support::dice dice(support::seed());
    send_some(q, 4000, dice, 4);
    auto held = q.try_receive();
    const long before = tracked::live();
    CHECK(q.purge() == 4000);
    CHECK(tracked::live() - before < some);
    CHECK_FALSE(held->ack());
    CHECK_FALSE(q.try_receive());
    CHECK(q.statistics().dropped == 4000);
    q.send(tracked(1));
    h.reopen();
    queue<> later(*h.journal, "q", {.priorities = 4});
    CHECK(later.statistics().ready == 1);
    CHECK(later.try_pop()->body().value() == 1);
}

TEST_CASE("journal backlog: the oldest is dropped, of whatever level") {
    home h;
    queue<> q(*h.journal, "q", {.max_messages = 400, .overflow = mailroom::overflow::drop_oldest, .priorities = 3});
    for (int i = 0; i < 400; ++i) { q.send(tracked(i), {.priority = i % 3}); }
    CHECK(q.try_pop()->offset() == 2); // so all are in the index, or noted
    for (int i = 400; i < 1000; ++i) { q.send(tracked(i), {.priority = i % 3}); }
    const mailroom::stats s = q.statistics();
    CHECK(s.ready == 400);
    CHECK(s.dropped == 599);
    std::vector<offset> got;
    while (const auto m = q.try_pop()) { got.push_back(m->offset()); }
    std::vector<offset> expected;
    for (int level = 2; level >= 0; --level) {
        for (offset o = 600; o < 1000; ++o) {
            if (static_cast<int>(o % 3) == level) { expected.push_back(o); }
        }
    }
    CHECK(got == expected);
}

TEST_CASE("journal backlog: what is in doubt is found again among what is unread") {
    for (const bool commits : {false, true}) {
        CAPTURE(commits);
        home h;
        const mailroom::queue_options<tracked> levels{.priorities = 2};
        {
            queue<> q(*h.journal, "q", levels);
            for (int i = 0; i < 2000; ++i) { q.send(tracked(i)); }
            std::vector<mailroom::delivery<tracked>> all;
            q.receive_many(all, 1000);
            REQUIRE(all.size() == 1000);
            mailroom::transaction tx(*h.journal);
            tx.ack(all[777]);
            tx.prepare("x");
            for (auto& d : all) { d.release(); }
        }
        h.reopen();
        queue<> q(*h.journal, "q", levels);
        CHECK(q.statistics().in_flight == 1);
        if (commits) {
            h.journal->commit("x");
        } else {
            h.journal->rollback("x");
        }
        std::vector<offset> got;
        while (const auto m = q.try_pop()) { got.push_back(m->offset()); }
        std::vector<offset> expected;
        for (offset o = 0; o < 2000; ++o) {
            if (!commits || o != 777) { expected.push_back(o); }
        }
        CHECK(got == expected);
    }
}

TEST_CASE("journal backlog: what is damaged is left out alone, and told of once") {
    home h;
    constexpr int many = 2000; // the last segment is looked through as it is opened: what is damaged lies before
    {
        queue<std::string> q(*h.journal, "q", {.priorities = 2});
        for (int i = 0; i < many; ++i) { q.send(std::to_string(i) + std::string(400, 'x')); }
    }
    h.journal.reset();
    std::size_t flipped = 0;
    for (const std::string& name : h.disk.files()) {
        if (!name.ends_with(".log")) { continue; }
        const auto all = h.disk.contents(name);
        const std::string_view text(reinterpret_cast<const char*>(all.data()), all.size());
        for (const char* which : {"3xxxx", "320xxxx", "777xxxx"}) {
            const std::size_t at = text.find(std::string(1, '\0') + which);
            if (at == std::string_view::npos) { continue; }
            h.disk.flip_bit(name, (at + 300) * 8);
            ++flipped;
        }
    }
    REQUIRE(flipped == 3);
    h.open();
    queue<std::string> q(*h.journal, "q", {.priorities = 2});
    std::size_t got = 0, damages = 0;
    for (;;) {
        try {
            if (!q.try_pop()) { break; }
            ++got;
        } catch (const mailroom::error& e) {
            CHECK(e == mailroom::errc::corrupt);
            ++damages;
        }
    }
    CHECK(got == many - 3);
    CHECK(damages == 3);
}

TEST_CASE("journal backlog: a topic that keeps the last of each key, or so many bytes, is not read to be opened") {
    for (const bool by_keys : {true, false}) {
        CAPTURE(by_keys);
        home h;
        mailroom::topic_options<counted> options;
        if (by_keys) {
            options.retention.compact = true;
        } else {
            options.retention.bytes = 5000 * sizeof(counted);
        }
        constexpr int many = 20'000, keys = 50;
        using topic = mailroom::topic<counted, simulated_journal>;
        const auto key = [](int i) { return mailroom::properties{.key = std::to_string(i % keys)}; };
        {
            topic t(*h.journal, "t", options);
            auto s = t.subscribe("s"); // so all is stored
            for (int i = 0; i < many; ++i) { t.publish({i}, key(i)); }
        }
        h.reopen();
        counted::reads = 0;
        topic t(*h.journal, "t", options);
        CHECK(counted::reads == 0);
        t.unsubscribe("s");
        std::size_t most = 0;
        const int more = by_keys ? 300 : 2048;
        for (int i = 0; i < more; ++i) {
            const std::size_t before = counted::reads;
            t.publish({many + i}, key(i));
            if (i % 32 == 31) { h.journal->flush(); }
            most = std::max(most, counted::reads - before);
        }
        CHECK(most <= (by_keys ? 1024u : 5 * 1024u));
        CHECK(counted::reads < static_cast<std::size_t>(many));

        auto all = t.subscribe({.from = mailroom::start::earliest});
        std::vector<int> got, expected;
        while (auto d = all.try_receive()) {
            got.push_back(d->body().number);
            d->ack();
        }
        for (int i = by_keys ? many + more - keys : many + more - 5000; i < many + more; ++i) { expected.push_back(i); }
        CHECK(got == expected);

        const auto before = h.journal->compact();
        CHECK(before.bytes_after < before.bytes_before);
        got.clear();
        h.reopen();
        topic again(*h.journal, "t", options);
        auto rest = again.subscribe({.from = mailroom::start::earliest});
        while (auto d = rest.try_receive()) {
            got.push_back(d->body().number);
            d->ack();
        }
        CHECK(got == expected);
    }
}

TEST_CASE("journal backlog: the last of each key is found in a topic whose messages cannot be read, or do not fit into memory") {
    home h;
    using topic = mailroom::topic<particular, simulated_journal>;
    mailroom::topic_options<particular> options;
    options.retention.compact = true;
    constexpr int many = 5000, keys = 50;
    {
        topic t(*h.journal, "t", options);
        auto s = t.subscribe("s"); // so all is stored
        for (int i = 0; i < many; ++i) { t.publish({i}, {.key = i < keys ? std::to_string(i) : "of all others"}); }
        mailroom::topic_options<tracked> of_others;
        of_others.retention.compact = true;
        mailroom::topic<tracked, simulated_journal> others(*h.journal, "others", of_others);
        auto reader = others.subscribe("s");
        for (int i = 0; i < many; ++i) { others.publish(tracked(i), {.key = std::to_string(i % keys)}); }
    }
    h.reopen();
    {
        particular::is_read = false;
        topic t(*h.journal, "t", options);
        t.unsubscribe("s");
        const mailroom::compact_report r = h.journal->compact();
        CHECK(r.bytes_after < r.bytes_before);
        particular::is_read = true;
    }
    {
        mailroom::topic_options<tracked> of_others;
        of_others.retention.compact = true;
        mailroom::topic<tracked, simulated_journal> others(*h.journal, "others", of_others);
        others.unsubscribe("s");
        const mailroom::compact_report r = h.journal->compact();
        CHECK(r.bytes_after < r.bytes_before);
        CHECK(tracked::live() < some);
    }
    topic t(*h.journal, "t", options);
    auto all = t.subscribe({.from = mailroom::start::earliest});
    for (int i = 0; i <= keys; ++i) {
        auto d = all.try_receive();
        REQUIRE(d);
        CHECK(d->body().number == (i < keys ? i : many - 1));
        d->ack();
    }
    CHECK_FALSE(all.try_receive());
}

TEST_CASE("journal backlog: compacting gives back the segment that was being written as well") {
    home h;
    std::vector<int> kept;
    {
        queue<> q(*h.journal, "q", {.lease = 0s});
        for (int i = 0; i < 1000; ++i) { q.send(tracked(i)); }
        std::vector<mailroom::delivery<tracked>> all;
        while (q.receive_many(all, 1000) != 0) {}
        for (auto& d : all) {
            if (d.offset() % 250 == 7) {
                kept.push_back(d.body().value());
                d.release();
            } else {
                d.ack();
            }
        }
        const mailroom::compact_report r = h.journal->compact();
        CHECK(r.segments_freed == 1);
        CHECK(r.messages_moved == kept.size());
        CHECK(r.bytes_after * 10 < r.bytes_before);
        const mailroom::compact_report again = h.journal->compact();
        CHECK(again.segments_freed == 0);
        CHECK(again.messages_moved == 0);
    }
    h.reopen();
    queue<> q(*h.journal, "q");
    for (const int expected : kept) { CHECK(q.try_pop()->body().value() == expected); }
    CHECK_FALSE(q.try_pop());
    CHECK(h.journal->recovered().clean);
}

TEST_CASE("journal backlog: many threads, each message once") {
    home h;
    queue<> q(*h.journal, "q", {.lease = 0s, .priorities = 3});
    constexpr int senders = 2, each = 2000;
    std::atomic<int> left{senders * each};
    std::vector<std::atomic<int>> times(senders * each);
    std::vector<std::thread> threads;
    for (int who = 0; who < senders; ++who) {
        threads.emplace_back([&, who] {
            for (int i = 0; i < each; ++i) { q.send(tracked(who * each + i), {.priority = i % 3}); }
        });
    }
    for (int who = 0; who < 2; ++who) {
        threads.emplace_back([&, who] {
            support::dice dice(support::seed() + static_cast<std::uint64_t>(who));
            while (left.load() > 0) {
                auto d = q.try_receive();
                if (!d) {
                    std::this_thread::yield();
                } else if (dice.percent(20)) {
                    d->release();
                } else {
                    ++times[static_cast<std::size_t>(d->body().value())];
                    d->ack();
                    --left;
                }
            }
        });
    }
    threads.emplace_back([&] {
        while (left.load() > 0) {
            q.statistics();
            std::size_t n = 0;
            q.browse([&](const mailroom::message<tracked>& m, mailroom::message_state) { return m.body().value() >= 0 && ++n < 300; });
        }
    });
    for (std::thread& t : threads) { t.join(); }
    CHECK(std::all_of(times.begin(), times.end(), [](const auto& n) { return n == 1; }));
    CHECK(q.statistics().acked == senders * each);
    CHECK(tracked::faults() == 0);
}

TEST_CASE("journal backlog: random, against a map that keeps everything") {
    support::for_each_seed(30, [](std::uint64_t seed) {
        support::dice dice(seed);
        home h;
        const int levels = dice.between(1, 4);
        const mailroom::queue_options<tracked> options{.lease = 0s, .retry = {.max_attempts = 0}, .priorities = levels};
        std::optional<queue<>> q(std::in_place, *h.journal, "q", options);
        struct one {
            mailroom::duration due{}, expires = mailroom::duration::max();
            bool tried = false;
        };
        std::map<std::pair<int, offset>, one> model; // what is not settled, in the order of being handed out
        mailroom::duration now{};
        const auto bury = [&] { std::erase_if(model, [&](const auto& m) { return m.second.expires <= now; }); };
        const auto best = [&] { return std::find_if(model.begin(), model.end(), [&](const auto& m) { return m.second.due <= now; }); };
        const auto wrong = [&](const std::string& what) {
            CHECK_MESSAGE(false, what, ", seed ", seed);
            return false;
        };
        for (int step = 0; step < 400; ++step) {
            bury();
            switch (dice.below(10)) {
            case 0:
            case 1:
                for (unsigned n = dice.below(150); n != 0; --n) {
                    mailroom::properties p{.priority = dice.between(0, levels - 1)};
                    one m;
                    if (dice.percent(3)) {
                        p.delay = std::chrono::seconds(dice.between(1, 30));
                        m.due = now + p.delay;
                    }
                    if (dice.percent(3)) {
                        p.time_to_live = std::chrono::seconds(dice.between(1, 60));
                        m.expires = now + p.time_to_live;
                    }
                    model[{-p.priority, q->send(tracked(step), p)}] = m;
                }
                break;
            case 2:
                h.clock.advance(1s);
                now += 1s;
                break;
            case 3:
                if (dice.percent(10)) {
                    q.reset();
                    h.reopen();
                    q.emplace(*h.journal, "q", options);
                }
                break;
            case 4: {
                std::size_t n = 0, ready = 0;
                offset last = 0;
                bool in_order = true;
                q->browse([&](const mailroom::message<tracked>& m, mailroom::message_state where) {
                    in_order = in_order && (n == 0 || m.offset() > last);
                    last = m.offset();
                    ++n;
                    ready += where == mailroom::message_state::ready;
                    return true;
                });
                const auto due =
                    static_cast<std::size_t>(std::count_if(model.begin(), model.end(), [&](const auto& m) { return m.second.due <= now; }));
                if (n != model.size() || ready != due || !in_order) { return wrong("browse"); }
                break;
            }
            case 5: {
                const auto due =
                    static_cast<std::size_t>(std::count_if(model.begin(), model.end(), [&](const auto& m) { return m.second.due <= now; }));
                const mailroom::stats s = q->statistics();
                if (s.ready != due || s.parked != model.size() - due || s.in_flight != 0) { return wrong("statistics"); }
                break;
            }
            case 6:
                if (dice.percent(2)) {
                    if (q->purge() != model.size()) { return wrong("purge"); }
                    model.clear();
                }
                break;
            default:
                for (unsigned n = dice.below(40); n != 0; --n) {
                    auto d = q->try_receive();
                    const auto expected = best();
                    if (d.has_value() != (expected != model.end())) { return wrong("receive"); }
                    if (!d) { break; }
                    if (d->offset() != expected->first.second) { return wrong("order"); }
                    if (dice.percent(70)) {
                        d->ack();
                        model.erase(expected);
                    } else if (dice.percent(50)) {
                        const int after = dice.between(0, 5);
                        d->nack(std::chrono::seconds(after));
                        expected->second.due = now + std::chrono::seconds(after);
                    } else {
                        d->release();
                    }
                }
            }
        }
        return true;
    });
    CHECK(tracked::faults() == 0);
}
