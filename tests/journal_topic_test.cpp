// Topics of a journal as api.md says them, over restarts: where durable subscriptions go on, in all modes; what is retained; bounds.
#include "support/coroutines.hpp"
#include "support/stored.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::errc;
using mailroom::sharing;
using mailroom::start;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using support::simulated_journal;

namespace {

using stored = mailroom::topic<int, simulated_journal>;
using options = mailroom::subscribe_options<int>;
constexpr sharing modes[] = {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned};

/// A topic that is closed and opened again, and whatever is in it read by plain loops.
struct home {
    manual_clock clock{1h};
    simulated_files disk;
    mailroom::topic_options<int> o;
    std::optional<simulated_journal> journal;
    std::optional<stored> topic;

    explicit home(mailroom::topic_options<int> with = mailroom::topic_options<int>()) : o(std::move(with)) {
        o.clock = &clock;
        open();
    }
    stored& t() { return *topic; }
    void open() {
        journal.emplace("journal", mailroom::journal_options{.durability = mailroom::durability::write, .segment_bytes = 64 << 10, .clock = &clock},
                        disk);
        topic.emplace(*journal, "t", o);
    }
    void reopen() {
        topic.reset();
        journal.reset();
        open();
    }
    /// So that nothing can be orderly.
    void crash() {
        journal->flush();
        disk.power_cut(7, mailroom::testing::loss::everything);
        reopen();
    }
    void publish(int n, int first = 0) {
        for (int i = 0; i < n; ++i) { t().publish(first + i); }
    }
};

std::vector<int> take(mailroom::subscription<int>& s, std::size_t most = 1000) {
    std::vector<int> got;
    while (got.size() < most) {
        auto d = s.try_receive();
        if (!d) { break; }
        got.push_back(**d);
        CHECK(d->ack());
    }
    return got;
}
std::vector<int> range(int first, int last) {
    std::vector<int> all;
    for (int i = first; i < last; ++i) { all.push_back(i); }
    return all;
}
std::vector<int> sorted(std::vector<int> v) {
    std::sort(v.begin(), v.end());
    return v;
}
template <class Act>
errc thrown_by(Act act) {
    try {
        act();
    } catch (const mailroom::error& e) { return e.kind(); }
    return errc{};
}

} // namespace

// ------------------------------------------------------------------------------------------------------------------ where they go on

TEST_CASE("journal topic: durable subscriptions go on where they were, in every mode, with 1 and 16 partitions") {
    for (const int partitions : {1, 16}) {
        for (const sharing mode : modes) {
            for (const bool crashes : {false, true}) {
                CAPTURE(partitions);
                CAPTURE(static_cast<int>(mode));
                CAPTURE(crashes);
                home h({.partitions = partitions});
                const options o{.from = start::earliest, .mode = mode, .retry = {.max_attempts = 3, .initial = 10s}};
                std::vector<int> left = range(0, 200);
                {
                    auto s = h.t().subscribe("s", o);
                    for (int i = 0; i < 200; ++i) { h.t().publish(i, {.key = "k" + std::to_string(i % 50)}); }
                    // Acknowledged with gaps; some parked, some dead, some out.
                    std::vector<mailroom::delivery<int>> out;
                    for (int i = 0; i < 100; ++i) {
                        auto d = s.try_receive();
                        if (!d) { break; } // keys hold the rest back
                        if (**d % 5 == 0) {
                            out.push_back(std::move(*d));
                        } else if (**d % 5 == 1) {
                            CHECK(d->nack());
                        } else if (**d % 5 == 2) {
                            std::erase(left, **d);
                            CHECK(d->reject("no"));
                        } else {
                            std::erase(left, **d);
                            CHECK(d->ack());
                        }
                    }
                    for (auto& d : out) { CHECK(d.release()); }
                }
                crashes ? h.crash() : h.reopen();
                auto s = h.t().subscribe("s", o);
                CHECK(s.lag() == left.size());
                const auto dead = s.dead().size();
                CHECK(dead >= 10);
                CHECK(h.t().statistics().sent == 200);
                std::vector<int> got = take(s);
                CHECK(std::none_of(got.begin(), got.end(), [&](int i) { return std::find(left.begin(), left.end(), i) == left.end(); }));
                h.clock.advance(10s);
                while (true) {
                    const auto more = take(s);
                    if (more.empty()) { break; }
                    got.insert(got.end(), more.begin(), more.end());
                }
                CHECK(sorted(got) == left);
                CHECK(s.lag() == 0);
                CHECK(s.dead().size() == dead);
                h.reopen();
                auto again = h.t().subscribe("s", o);
                CHECK(again.lag() == 0);
                CHECK_FALSE(again.try_receive());
                CHECK(again.dead().size() == dead);
                CHECK(again.dead().redrive(1) == 1);
                h.reopen();
                auto last = h.t().subscribe("s", o);
                CHECK(last.lag() == 1);
                CHECK(last.try_receive()->attempt() == 1);
            }
        }
    }
}
TEST_CASE("journal topic: attempts and parked retries of subscriptions") {
    for (const sharing mode : modes) {
        CAPTURE(static_cast<int>(mode));
        home h;
        const options o{.from = start::earliest, .mode = mode, .retry = {.max_attempts = 3, .initial = 10s, .multiplier = 1}};
        {
            auto s = h.t().subscribe("s", o);
            h.publish(2);
            CHECK(s.try_receive()->nack());
            CHECK(s.try_receive()->nack(0s));
        }
        h.clock.advance(4s);
        h.reopen();
        {
            auto s = h.t().subscribe("s", o);
            auto one = s.try_receive();
            REQUIRE(one);
            CHECK(**one == 1);
            CHECK(one->attempt() == 2);
            CHECK_FALSE(s.try_receive());
            CHECK(one->nack(0s));
            auto third = s.try_receive();
            REQUIRE(third);
            CHECK(third->attempt() == 3);
        } // leaves: that was the last attempt
        h.reopen();
        auto s = h.t().subscribe("s", o);
        CHECK(s.dead().size() == 1);
        auto letter = s.dead().try_receive();
        REQUIRE(letter);
        CHECK(**letter == 1);
        CHECK(letter->attempts() == 3);
        CHECK_FALSE(s.try_receive());
        h.clock.advance(6s);
        auto zero = s.try_receive();
        REQUIRE(zero);
        CHECK(zero->attempt() == 2);
    }
}
TEST_CASE("journal topic: what was in flight when the journal closed is ready at once") {
    for (const sharing mode : modes) {
        CAPTURE(static_cast<int>(mode));
        home h({.partitions = 3});
        const options o{.from = start::earliest, .mode = mode, .lease = 24h};
        std::vector<mailroom::delivery<int>> out;
        auto s = h.t().subscribe("s", o);
        h.publish(9);
        s.receive_many(out, 5);
        REQUIRE(out.size() == 5);
        h.journal.reset();
        for (auto& d : out) { CHECK_FALSE(d.ack()); }
        h.topic.reset();
        h.open();
        auto again = h.t().subscribe("s", o);
        CHECK(again.lag() == 9);
        std::vector<int> got;
        while (auto d = again.try_receive()) {
            CHECK(d->attempt() == 1);
            got.push_back(**d);
            d->ack();
        }
        CHECK(sorted(got) == range(0, 9));
        CHECK_FALSE(s.try_receive());
    }
}
TEST_CASE("journal topic: dormant subscriptions hold their messages") {
    home h;
    { static_cast<void>(h.t().subscribe("sleeper")); }
    {
        auto awake = h.t().subscribe("awake");
        h.publish(10);
        CHECK(take(awake).size() == 10);
    }
    for (int round = 0; round < 3; ++round) {
        CAPTURE(round);
        h.reopen();
        auto awake = h.t().subscribe("awake");
        CHECK(awake.lag() == 0);
        h.publish(10, 10 * (round + 1));
        CHECK(take(awake) == range(10 * (round + 1), 10 * (round + 2)));
        const auto all = h.t().subscriptions();
        REQUIRE(all.size() == 2);
        const auto sleeper = std::find_if(all.begin(), all.end(), [](const auto& i) { return i.name == "sleeper"; });
        REQUIRE(sleeper != all.end());
        CHECK(sleeper->members == 0);
        CHECK(sleeper->lag == static_cast<std::size_t>(10 * (round + 2)));
        CHECK(sleeper->positions.at(0).offset == 0);
        CHECK(h.t().first_offset() == 0);
        h.journal->compact();
    }
    auto sleeper = h.t().subscribe("sleeper");
    CHECK(take(sleeper) == range(0, 40));
    CHECK(h.t().first_offset() == 40);
    CHECK(h.t().unsubscribe("sleeper"));
    h.publish(1, 40);
    h.reopen();
    CHECK(h.t().subscriptions().size() == 1);
    CHECK_FALSE(h.t().unsubscribe("sleeper"));
    auto anew = h.t().subscribe("sleeper");
    CHECK(anew.lag() == 0); // it begins at the end, as one that is new
}
TEST_CASE("journal topic: a dormant subscription holds publishers up, until it is forgotten") {
    home h({.max_messages = 3, .overflow = mailroom::overflow::reject});
    { static_cast<void>(h.t().subscribe("sleeper")); }
    h.publish(2);
    h.reopen();
    CHECK(h.t().try_publish(2));
    CHECK(h.t().try_publish(3).error() == errc::full);
    {
        auto s = h.t().subscribe("sleeper");
        CHECK(s.try_pop()->body() == 0);
        CHECK(h.t().try_publish(3));
        CHECK(h.t().try_publish(4).error() == errc::full);
    }
    h.reopen();
    CHECK(h.t().try_publish(4).error() == errc::full);
    CHECK(h.t().unsubscribe("sleeper"));
    CHECK(h.t().try_publish(4));
    h.reopen();
    CHECK(h.t().try_publish(5));
}

// ------------------------------------------------------------------------------------------------------------------------------ seeking

TEST_CASE("journal topic: seek and then restart") {
    for (const sharing mode : modes) {
        for (const bool crashes : {false, true}) {
            CAPTURE(static_cast<int>(mode));
            CAPTURE(crashes);
            home h({.retention = {.messages = 1000}});
            const options o{.mode = mode};
            const auto again = [&] { crashes ? h.crash() : h.reopen(); };
            {
                auto s = h.t().subscribe("s", o);
                h.publish(20);
                CHECK(take(s).size() == 20);
                s.seek(start::earliest);
                CHECK(take(s, 5) == range(0, 5));
            }
            again();
            {
                auto s = h.t().subscribe("s", o);
                CHECK(s.lag() == 15);
                CHECK(take(s, 5) == range(5, 10));
                s.seek(mailroom::position{0, 2});
            }
            again();
            {
                auto s = h.t().subscribe("s", o);
                CHECK(take(s) == range(2, 20));
                s.seek(start::last(3));
            }
            again();
            {
                auto s = h.t().subscribe("s", o);
                CHECK(take(s) == range(17, 20));
                s.try_receive();
                h.publish(3, 20);
                s.seek(start::latest);
            }
            again();
            auto s = h.t().subscribe("s", o);
            CHECK(s.lag() == 0);
            CHECK(h.t().next_offset() == 23);
        }
    }
}
TEST_CASE("journal topic: dead letters and seeking over a restart") {
    home h({.retention = {.messages = 1000}});
    {
        auto s = h.t().subscribe("s");
        h.publish(10);
        for (int i = 0; i < 4; ++i) { CHECK(s.try_receive()->reject("why")); }
        s.seek(mailroom::position{0, 2}); // of the dead, those that will be read again are gone
        CHECK(s.dead().size() == 2);
    }
    h.reopen();
    {
        auto s = h.t().subscribe("s");
        CHECK(s.dead().size() == 2);
        CHECK(s.dead().try_receive()->reason() == "why");
        CHECK(take(s) == range(2, 10));
        s.seek(start::latest);
    }
    h.reopen();
    auto s = h.t().subscribe("s");
    CHECK(s.dead().size() == 2);
    CHECK(s.dead().redrive(2) == 2);
    CHECK(take(s) == range(0, 2));
}
TEST_CASE("journal topic: new subscriptions begin on what was stored before") {
    home h({.retention = {.messages = 1000}});
    mailroom::time_point middle;
    for (int i = 0; i < 30; ++i) {
        h.clock.advance(1s);
        if (i == 20) { middle = h.clock.wall(); }
        h.t().publish(i, {.key = i % 3 == 2 ? "" : std::string(1, static_cast<char>('a' + i % 3))});
    }
    const auto from = [&](const start& where) {
        CAPTURE(static_cast<int>(where.what()));
        static int n = 0;
        const std::string name = "s" + std::to_string(n++);
        auto durable = h.t().subscribe(name, {.from = where});
        auto ephemeral = h.t().subscribe({.from = where});
        const auto got = take(durable);
        CHECK(take(ephemeral) == got);
        return got;
    };
    for (int round = 0; round < 2; ++round) {
        CAPTURE(round);
        h.reopen();
        CHECK(from(start::earliest) == range(0, 30));
        CHECK(from(start::latest).empty());
        CHECK(from(start::last(4)) == range(26, 30));
        CHECK(from(start::last(0)).empty());
        CHECK(from(start::last(100)) == range(0, 30));
        CHECK(from(start::last_per_key) == std::vector<int>{27, 28});
        CHECK(from(start(middle)) == range(20, 30));
        CHECK(from(start(mailroom::position{0, 25})) == range(25, 30));
        CHECK(from(start(mailroom::position{0, 1000})).empty());
        CHECK(thrown_by([&] { static_cast<void>(h.t().subscribe({.from = mailroom::position{1, 0}})); }) == errc::invalid);
    }
}
TEST_CASE("journal topic: the place a subscription begins at is its place after a restart, read or not") {
    for (const bool crashes : {false, true}) {
        home h({.retention = {.messages = 1000}});
        for (int i = 0; i < 30; ++i) { h.t().publish(i, {.key = std::string(1, static_cast<char>('a' + i % 3))}); }
        { static_cast<void>(h.t().subscribe("earliest", {.from = start::earliest})); }
        { static_cast<void>(h.t().subscribe("last", {.from = start::last(4)})); }
        { static_cast<void>(h.t().subscribe("keys", {.from = start::last_per_key})); }
        { static_cast<void>(h.t().subscribe("latest")); }
        { static_cast<void>(h.t().subscribe("place", {.from = mailroom::position{0, 11}})); }
        crashes ? h.crash() : h.reopen();
        h.publish(1, 30);
        const auto rest = [&](const char* name) {
            auto s = h.t().subscribe(name, {.from = start::earliest}); // which holds only for one that is new
            return take(s);
        };
        CHECK(rest("earliest") == range(0, 31));
        CHECK(rest("last") == range(26, 31));
        CHECK(rest("keys") == range(27, 31));
        CHECK(rest("latest") == range(30, 31));
        CHECK(rest("place") == range(11, 31));
    }
}
TEST_CASE("journal topic: filters are asked again") {
    home h;
    const options even{.from = start::earliest, .filter = [](const int& i, const mailroom::properties& p) { return i % 2 == 0 && p.key != "x"; }};
    {
        auto s = h.t().subscribe("s", even);
        for (int i = 0; i < 10; ++i) { h.t().publish(i, {.key = i == 4 ? "x" : ""}); }
        CHECK(s.lag() == 4);
        CHECK(take(s, 2) == std::vector<int>{0, 2});
    }
    h.reopen();
    auto s = h.t().subscribe("s", even);
    CHECK(s.lag() == 2);
    CHECK(take(s) == std::vector<int>{6, 8});
    h.publish(3, 10);
    CHECK(take(s) == std::vector<int>{10, 12});
    h.reopen();
    auto all = h.t().subscribe("s"); // another filter from now on
    CHECK(all.lag() <= 1);           // 11 was asked about, or not yet
}
TEST_CASE("journal topic: subscriptions that expire") {
    home h;
    { static_cast<void>(h.t().subscribe("short", {.expires_after = 1min})); }
    { static_cast<void>(h.t().subscribe("long", {.expires_after = 24h})); }
    { static_cast<void>(h.t().subscribe("ever")); }
    h.publish(1);
    h.clock.advance(30s);
    h.reopen();
    { // used again: from here on it is another minute
        auto s = h.t().subscribe("short", {.expires_after = 1min});
        CHECK(s.lag() == 1);
        h.clock.advance(2min);
        CHECK(h.t().subscriptions().size() == 3);
    }
    h.clock.advance(59s);
    CHECK(h.t().subscriptions().size() == 3);
    h.clock.advance(1s);
    CHECK(h.t().subscriptions().size() == 2);
    h.reopen();
    CHECK(h.t().subscriptions().size() == 2);
    CHECK_FALSE(h.t().unsubscribe("short"));
}

// ---------------------------------------------------------------------------------------------------------------------------- retention

TEST_CASE("journal topic: a subscription that is forgotten while somebody waits for it, who makes it again, is new on disk too") {
    home h;
    auto s = h.t().subscribe("s", options{.mode = sharing::shared});
    std::optional<mailroom::subscription<int>> again;
    const support::task waiting = [](home& of, mailroom::subscription<int>& old, std::optional<mailroom::subscription<int>>& made) -> support::task {
        auto d = co_await old.next();
        CHECK_FALSE(d);
        made.emplace(of.t().subscribe("s", options{.mode = sharing::shared}));
    }(h, s, again);
    CHECK(h.t().unsubscribe("s"));
    CHECK(waiting.done());
    REQUIRE(again);
    h.publish(3);
    CHECK(take(*again, 1) == range(0, 1));
    again.reset();
    s = h.t().subscribe();
    h.reopen();
    REQUIRE(h.t().subscriptions().size() == 1);
    auto after = h.t().subscribe("s", options{.mode = sharing::shared});
    CHECK(take(after) == range(1, 3));
}

TEST_CASE("journal topic: one that cannot be forgotten on disk is there") {
    home h;
    auto s = h.t().subscribe("s");
    h.publish(2);
    h.journal->flush();
    h.disk.fail_write(0, std::make_error_code(std::errc::io_error));
    CHECK(thrown_by([&] { h.t().unsubscribe("s"); }) == errc::io);
    CHECK(take(s) == range(0, 2));
    CHECK(h.t().unsubscribe("s"));
    CHECK(take(s).empty());
    h.reopen();
    CHECK(h.t().subscriptions().empty());
}

TEST_CASE("journal topic: retention by number") {
    for (const int partitions : {1, 16}) {
        CAPTURE(partitions);
        home h({.partitions = partitions, .retention = {.messages = 10}});
        h.publish(1000);
        for (int round = 0; round < 2; ++round) {
            CAPTURE(round);
            auto all = h.t().subscribe({.from = start::earliest});
            CHECK(take(all).size() == static_cast<std::size_t>(partitions) * 10);
            for (int p = 0; p < partitions; ++p) {
                CHECK(h.t().next_offset(p) - h.t().first_offset(p) == 10);
                CHECK(h.t().next_offset(p) >= 1000u / static_cast<unsigned>(partitions));
            }
            h.reopen();
        }
        h.o.retention.messages = 0; // the rules may change
        h.reopen();
        CHECK(h.t().first_offset() == h.t().next_offset());
        auto none = h.t().subscribe({.from = start::earliest});
        CHECK_FALSE(none.try_receive());
    }
}
TEST_CASE("journal topic: retention by age") {
    home h({.retention = {.age = 1min}});
    for (int i = 0; i < 10; ++i) {
        h.publish(1, i);
        h.clock.advance(10s);
    }
    for (int round = 0; round < 2; ++round) {
        CAPTURE(round);
        auto all = h.t().subscribe({.from = start::earliest});
        CHECK(take(all) == range(5, 10)); // published 50, 40, .. 10 s ago
        h.reopen();
    }
    h.clock.advance(30s);
    h.reopen();
    auto some = h.t().subscribe({.from = start::earliest});
    CHECK(take(some) == range(8, 10));
    h.clock.advance(1h);
    CHECK(h.t().first_offset() == 10);
    h.reopen();
    CHECK(h.t().first_offset() == 10);
    CHECK(h.t().next_offset() == 10);
    CHECK(h.t().publish(1).offset == 10);
}
TEST_CASE("journal topic: retention by bytes") {
    home h({.retention = {.bytes = 100 * sizeof(int)}});
    h.publish(1000);
    const auto before = h.t().first_offset();
    CHECK(before > 800);
    CHECK(before < 1000);
    h.reopen();
    const auto after = h.t().first_offset();
    CHECK(after == before);
    {
        auto all = h.t().subscribe({.from = start::earliest});
        CHECK(take(all) == range(static_cast<int>(after), 1000));
        h.publish(500, 1000);
        CHECK(h.t().first_offset() == 1000); // it has not read them yet
    }
    CHECK(h.t().first_offset() > 1300);
}
TEST_CASE("journal topic: retention of the last of each key") {
    home h({.retention = {.compact = true}});
    for (int i = 0; i < 1000; ++i) { h.t().publish(i, {.key = "k" + std::to_string(i % 7)}); }
    h.publish(10, 1000);
    for (int round = 0; round < 3; ++round) {
        CAPTURE(round);
        auto all = h.t().subscribe({.from = start::earliest});
        CHECK(take(all) == range(993, 1000));
        CHECK(h.t().first_offset() == 993);
        h.journal->compact();
        if (round == 1) { h.t().publish(2000, {.key = "k0"}); }
        if (round == 1) { h.t().publish(994, {.key = "k6"}); } // 994 was k0's, 993 k6's
        if (round == 1) {
            h.reopen();
            auto changed = h.t().subscribe({.from = start::earliest});
            CHECK(take(changed) == std::vector<int>{995, 996, 997, 998, 999, 2000, 994});
            break;
        }
        h.reopen();
    }
}
TEST_CASE("journal topic: what a rule lets go, and nobody waits for, gives its space back") {
    home h({.retention = {.messages = 100}});
    const auto bytes = [&] {
        std::size_t n = 0;
        for (const auto& f : h.disk.files()) { n += h.disk.contents(f).size(); }
        return n;
    };
    auto s = h.t().subscribe("s");
    h.publish(1000);
    take(s, 1000);
    h.journal->compact();
    const auto before = bytes();
    for (int round = 0; round < 20; ++round) {
        h.publish(1000);
        CHECK(take(s, 1000).size() == 1000);
    }
    h.journal->flush();
    CHECK(bytes() < before + (1 << 20));
    h.journal->compact();
    CHECK(bytes() < before + (256 << 10));
    h.reopen();
    CHECK(h.t().next_offset() == 21'000);
    CHECK(h.t().first_offset() == 20'900);
}

// ------------------------------------------------------------------------------------------------------------------------------ the rest

TEST_CASE("journal topic: ephemeral subscriptions beside durable ones") {
    home h({.partitions = 2});
    auto durable = h.t().subscribe("s");
    auto live = h.t().subscribe();
    h.publish(10);
    CHECK(sorted(take(live, 4)).size() == 4);
    CHECK(sorted(take(durable)) == range(0, 10));
    auto out = live.try_receive();
    h.reopen();
    CHECK_FALSE(out->ack());
    CHECK_FALSE(live.try_receive());
    CHECK(h.t().subscriptions().size() == 1);
    auto again = h.t().subscribe();
    auto back = h.t().subscribe("s");
    h.publish(2, 10);
    CHECK(sorted(take(again)) == range(10, 12));
    CHECK(sorted(take(back)) == range(10, 12));
}
TEST_CASE("journal topic: an ephemeral subscription that is behind loses nothing, as long as the topic has no bounds") {
    home h;
    auto live = h.t().subscribe();
    auto durable = h.t().subscribe("s");
    for (int i = 0; i < 20; ++i) {
        h.publish(1000, 1000 * i);
        take(durable);
        if (i % 5 == 4) { h.journal->compact(); }
    }
    CHECK(live.lag() == 20'000);
    CHECK(take(live, 20'000) == range(0, 20'000));
}
TEST_CASE("journal topic: offsets of partitions") {
    home h({.partitions = 16});
    std::map<int, mailroom::offset> next;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 100; ++i) {
            const auto p = h.t().publish(i, {.key = std::to_string(i)});
            CHECK(p.offset == next[p.partition]++);
        }
        h.reopen();
        for (const auto& [p, n] : next) {
            CHECK(h.t().next_offset(p) == n);
            CHECK(h.t().first_offset(p) == n); // nobody wants them
        }
    }
    CHECK(thrown_by([&] { static_cast<void>(h.t().next_offset(16)); }) == errc::invalid);
    CHECK(thrown_by([&] { static_cast<void>(h.t().first_offset(-1)); }) == errc::invalid);
}
TEST_CASE("journal topic: next_offset is known as soon as publish has returned, whatever the durability") {
    for (const auto promise : {mailroom::durability::commit, mailroom::durability::write, mailroom::durability::none}) {
        CAPTURE(static_cast<int>(promise));
        simulated_files disk;
        simulated_journal j("journal", {.durability = promise}, disk);
        stored t(j, "t");
        CHECK(t.publish(1).offset == 0);
        CHECK(t.next_offset() == 1);
        auto r = t.publish_async(2);
        r.wait();
        CHECK(t.next_offset() == 2);
    }
}
TEST_CASE("journal topic: publish_many is one batch in one partition") {
    home h({.partitions = 4});
    auto s = h.t().subscribe("s");
    const auto first = h.t().publish_many(range(0, 50));
    CHECK(h.t().next_offset(first.partition) == 50);
    h.disk.fail_write(0, std::make_error_code(std::errc::no_space_on_device));
    CHECK(thrown_by([&] { h.t().publish_many(range(50, 60)); }) == errc::io);
    CHECK(take(s, 20) == range(0, 20));
    h.reopen();
    auto again = h.t().subscribe("s");
    CHECK(take(again) == range(20, 50));
    CHECK(h.t().statistics().sent == 50);
}
TEST_CASE("journal topic: bounded, over a restart") {
    for (const auto rule : {mailroom::overflow::reject, mailroom::overflow::drop_oldest, mailroom::overflow::drop_newest}) {
        CAPTURE(static_cast<int>(rule));
        home h({.max_messages = 10, .overflow = rule});
        {
            auto s = h.t().subscribe("s");
            h.publish(10);
            CHECK(take(s, 3) == range(0, 3));
        }
        h.reopen();
        {
            auto s = h.t().subscribe("s");
            h.publish(3, 10);
            const auto r = h.t().try_publish(13);
            switch (rule) {
            case mailroom::overflow::reject:
                CHECK(r.error() == errc::full);
                CHECK(take(s) == range(3, 13));
                break;
            case mailroom::overflow::drop_oldest:
                CHECK(r);
                CHECK(take(s) == range(4, 14));
                break;
            default: CHECK(r->offset == mailroom::no_offset); CHECK(take(s) == range(3, 13));
            }
        }
        h.reopen();
        CHECK(h.t().subscriptions().at(0).lag == 0);
        h.publish(10);
        if (rule == mailroom::overflow::reject) { CHECK(h.t().try_publish(1).error() == errc::full); }
    }
}
TEST_CASE("journal topic: an ephemeral subscriber that is slow loses its oldest, a durable one nothing") {
    home h({.max_messages = 10, .overflow = mailroom::overflow::reject});
    auto durable = h.t().subscribe("s");
    auto slow = h.t().subscribe();
    std::vector<int> kept;
    for (int i = 0; i < 50; ++i) {
        REQUIRE(h.t().try_publish(i));
        const auto got = take(durable);
        kept.insert(kept.end(), got.begin(), got.end());
    }
    CHECK(kept == range(0, 50));
    const auto rest = take(slow);
    CHECK(rest.size() <= 10);
    CHECK(rest.back() == 49);
    CHECK(slow.statistics().dropped == 50 - rest.size());
}
TEST_CASE("journal topic: members that come and go over restarts share what is left") {
    for (const sharing mode : {sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned}) {
        CAPTURE(static_cast<int>(mode));
        home h({.partitions = 4});
        const options o{.from = start::earliest, .mode = mode};
        std::map<std::string, std::vector<int>> seen; // by key
        { static_cast<void>(h.t().subscribe("s", o)); }
        int next = 0;
        for (int round = 0; round < 6; ++round) {
            std::vector<mailroom::subscription<int>> members;
            for (int m = 0; m <= round % 3; ++m) { members.push_back(h.t().subscribe("s", o)); }
            for (int i = 0; i < 40; ++i, ++next) { h.t().publish(next, {.key = "k" + std::to_string(next % 8)}); }
            for (int i = 0; i < 25; ++i) {
                for (auto& m : members) {
                    auto d = m.try_receive();
                    if (!d) { continue; }
                    seen[d->props().key].push_back(**d);
                    CHECK(d->ack());
                }
            }
            if (round % 2 == 0) {
                members.clear();
                h.reopen();
            } else {
                h.crash();
            }
        }
        auto s = h.t().subscribe("s", o);
        while (auto d = s.try_receive()) {
            seen[d->props().key].push_back(**d);
            CHECK(d->ack());
        }
        std::vector<int> all;
        for (const auto& [key, list] : seen) {
            if (mode != sharing::shared) { CHECK(std::is_sorted(list.begin(), list.end())); }
            all.insert(all.end(), list.begin(), list.end());
        }
        CHECK(sorted(all) == range(0, next));
    }
}
TEST_CASE("journal topic: delayed messages and times to live of subscriptions") {
    home h;
    {
        auto s = h.t().subscribe("s");
        h.t().publish(1, {.delay = 10s});
        h.t().publish(2, {.time_to_live = 5s});
        h.t().publish(3);
    }
    h.clock.advance(5s);
    h.reopen();
    {
        auto s = h.t().subscribe("s");
        CHECK(s.dead().size() == 1);
        CHECK(s.statistics().parked == 1);
        CHECK(take(s) == range(3, 4));
    }
    h.clock.advance(5s);
    h.reopen();
    auto s = h.t().subscribe("s");
    CHECK(s.dead().size() == 1);
    CHECK(take(s) == range(1, 2));
}
TEST_CASE("journal topic: what nobody subscribes to is not kept, and its offsets are not used again") {
    home h;
    h.publish(100);
    CHECK(h.t().first_offset() == 100);
    h.crash();
    CHECK(h.t().next_offset() == 100);
    auto s = h.t().subscribe({.from = start::earliest});
    CHECK_FALSE(s.try_receive());
    CHECK(h.t().publish(1).offset == 100);
}
TEST_CASE("journal topic: statistics of subscriptions across a restart") {
    home h;
    {
        auto s = h.t().subscribe("s");
        h.publish(10);
        take(s, 4);
        s.try_receive()->reject();
        s.try_receive()->nack(0s);
        CHECK(s.try_receive()->attempt() == 2);
    }
    h.reopen();
    auto s = h.t().subscribe("s");
    const auto now = s.statistics();
    CHECK(now.sent == 10);
    CHECK(now.acked == 4);
    CHECK(now.dead == 1);
    CHECK(now.ready == 4);
    CHECK(now.parked == 1); // the last delivery was forgotten, which is a failure
    CHECK(now.redelivered == 1);
}
TEST_CASE("journal topic: what was tried often does not die while its subscription sleeps") {
    home h;
    const options unlimited{.retry = {.max_attempts = 0, .initial = 0s}};
    {
        auto s = h.t().subscribe("s", unlimited);
        h.publish(1);
        for (int i = 0; i < 20; ++i) { CHECK(s.try_receive()->nack(0s)); }
    }
    h.crash();
    auto s = h.t().subscribe("s", unlimited);
    CHECK(s.dead().size() == 0);
    CHECK(take(s) == std::vector<int>{0});
}
