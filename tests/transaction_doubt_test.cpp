// Two-phase commit: what is prepared is in doubt, over any restart, until the journal is told to commit it or to roll it back.
#include "support/blocked.hpp"
#include "support/crew.hpp"
#include "support/places.hpp"
#include "support/random.hpp"

#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace support;
using mailroom::testing::loss;

namespace {

using names = std::vector<std::string>;

/// A journal that is closed and opened again, in order or after a power cut.
struct place : in_journal {
    void reopen(bool crash = false) {
        if (crash) {
            journal->flush();
            disk.power_cut(7, loss::everything);
        }
        journal.reset();
        open();
    }
    queue<int> q(const std::string& name, mailroom::queue_options<int> o = {}) {
        o.retry = {.max_attempts = 0, .initial = 0s};
        return make_queue(name, o);
    }
};

} // namespace

TEST_CASE("transaction in doubt: what is prepared is nowhere until it is committed, and there after that") {
    place w;
    auto in = w.q("in");
    auto out = w.q("out");
    auto t = w.make_topic("t", {.partitions = 2});
    auto s = t.subscribe("s");
    in.send(1);
    auto d = in.try_receive();
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    tx.send(out, 10);
    tx.send(out, 11);
    tx.publish(t, 20, {.key = "a"});
    tx.publish(t, 21, {.key = "b"});
    tx.prepare("xid");
    CHECK_FALSE(tx.is_open());
    CHECK(error_of([&] { tx.send(out, 1); }) == errc::in_doubt);
    CHECK(error_of([&] { tx.commit(); }) == errc::in_doubt);
    CHECK(error_of([&] { tx.prepare("another"); }) == errc::in_doubt);
    CHECK(error_of([&] { tx.ack(*d); }) == errc::in_doubt);
    tx.rollback(); // it is not its own to decide any more
    CHECK(w.journal->in_doubt() == names{"xid"});
    w.clock.advance(24h);
    CHECK_FALSE(in.try_receive());
    CHECK_FALSE(out.try_receive());
    CHECK_FALSE(s.try_receive());
    CHECK(in.statistics().in_flight == 1);
    CHECK(**d == 1);
    SUBCASE("committed") {
        w.journal->commit("xid");
        CHECK(take(out) == ints{10, 11});
        CHECK(take(s).size() == 2);
        CHECK(in.statistics().acked == 1);
        CHECK(in.statistics().in_flight == 0);
        CHECK_FALSE(d->ack());
    }
    SUBCASE("rolled back: it is its holder's") {
        w.journal->rollback("xid");
        CHECK_FALSE(out.try_receive());
        CHECK_FALSE(s.try_receive());
        CHECK(**d == 1);
        CHECK(in.statistics().in_flight == 1);
        CHECK(d->ack());
        CHECK(in.statistics().acked == 1);
    }
    SUBCASE("rolled back, and let go before") {
        d.reset();
        CHECK_FALSE(in.try_receive());
        w.journal->rollback("xid");
        CHECK(take(in) == ints{1});
    }
    CHECK(w.journal->in_doubt().empty());
    CHECK(error_of([&] { w.journal->commit("xid"); }) == errc::not_found);
    CHECK(error_of([&] { w.journal->rollback("xid"); }) == errc::not_found);
    CHECK(w.journal->verify().intact);
}

TEST_CASE("transaction in doubt: names") {
    place w;
    auto q = w.q("q");
    const auto prepare = [&](const std::string& xid, int i) {
        return error_of([&] {
            auto tx = w.begin();
            tx.send(q, i);
            tx.prepare(xid);
        });
    };
    CHECK(prepare("", 1) == errc::invalid);
    CHECK(prepare(std::string(256, 'x'), 1) == errc::invalid);
    CHECK(prepare("\xff", 1) == errc::invalid);
    CHECK(prepare(std::string(255, 'x'), 1) == errc{});
    CHECK(prepare("a/../b", 2) == errc{});
    CHECK(prepare("a/../b", 3) == errc::already_exists);
    CHECK(error_of([&] { w.journal->commit("nobody"); }) == errc::not_found);
    CHECK(error_of([&] { w.journal->rollback(""); }) == errc::not_found);
    w.journal->commit(std::string(255, 'x'));
    CHECK(prepare(std::string(255, 'x'), 4) == errc{}); // again: it is free
    w.journal->rollback("a/../b");
    w.journal->commit(std::string(255, 'x'));
    CHECK(take(q) == ints{1, 4});
    in_memory m;
    auto memory = m.make_queue("m");
    auto tx = m.begin();
    tx.send(memory, 1);
    CHECK(error_of([&] { tx.prepare("x"); }) == errc::unsupported);
    CHECK_FALSE(tx.is_open());
    CHECK_FALSE(memory.try_receive());
}

TEST_CASE("transaction in doubt: who cannot prepare rolls back") {
    place w;
    auto in = w.q("in");
    in.send(1);
    auto d = in.try_receive();
    auto one = w.begin();
    CHECK(one.ack(*d));
    CHECK(error_of([&] { one.prepare(""); }) == errc::invalid);
    CHECK(**d == 1);
    auto two = w.begin();
    CHECK(two.ack(*d));
    w.clock.advance(24h);
    auto thief = in.try_receive();
    REQUIRE(thief);
    CHECK(error_of([&] { two.prepare("x"); }) == errc::not_found);
    CHECK(w.journal->in_doubt().empty());
    auto three = w.begin();
    CHECK(three.ack(*thief));
    w.disk.fail_write(0, std::make_error_code(std::errc::no_space_on_device));
    CHECK(error_of([&] { three.prepare("x"); }) == errc::io);
    CHECK(w.journal->in_doubt().empty());
    auto four = w.begin();
    CHECK(four.ack(*thief));
    four.prepare("x");
    w.journal->commit("x");
    CHECK(in.statistics().acked == 1);
    auto closed = w.q("closed");
    auto five = w.begin();
    five.send(closed, 1);
    closed.close();
    CHECK(error_of([&] { five.prepare("x"); }) == errc::closed);
    CHECK(w.journal->in_doubt().empty());
}

TEST_CASE("transaction in doubt: it survives restarts, orderly or not, and is decided with endpoints open, closed, or opened later") {
    for (const bool crash : {false, true}) {
        for (const int when : {0, 1, 2}) { // the verdict comes before, after, or without the endpoints' opening
            for (const bool yes : {true, false}) {
                CAPTURE(crash);
                CAPTURE(when);
                CAPTURE(yes);
                place w;
                {
                    auto in = w.q("in");
                    auto out = w.q("out");
                    for (int i = 1; i <= 3; ++i) { in.send(i); }
                    auto tx = w.begin();
                    auto d = in.try_receive();
                    CHECK(tx.ack(*d));
                    tx.send(out, 10);
                    tx.send(out, 11);
                    tx.prepare("xid");
                }
                for (int i = 0; i < 3; ++i) {
                    w.reopen(crash);
                    CHECK(w.journal->in_doubt() == names{"xid"});
                    if (i == 1) { w.journal->compact(); }
                    auto in = w.q("in");
                    auto out = w.q("out");
                    CHECK_FALSE(out.try_receive());
                    auto other = in.try_receive();
                    REQUIRE(other);
                    CHECK(**other == 2);
                    CHECK(in.statistics().in_flight == 2);
                    other->release();
                }
                w.reopen(crash);
                const auto decide = [&] {
                    if (yes) {
                        w.journal->commit("xid");
                    } else {
                        w.journal->rollback("xid");
                    }
                };
                if (when == 0) { decide(); }
                if (when == 2) {
                    decide();
                    w.reopen(crash);
                }
                for (int i = 0; i < 2; ++i) {
                    {
                        auto in = w.q("in");
                        auto out = w.q("out");
                        if (when == 1 && i == 0) { decide(); }
                        CHECK(in.statistics().in_flight == 0);
                        CHECK(in.statistics().ready == (yes ? 2 : 3));
                        CHECK(out.statistics().ready == (yes ? 2 : 0));
                        if (i == 1) {
                            CHECK(take(in) == (yes ? ints{2, 3} : ints{1, 2, 3}));
                            CHECK(take(out) == (yes ? ints{10, 11} : ints{}));
                            out.send(12);
                            CHECK(take(out) == ints{12});
                        }
                    }
                    CHECK(w.journal->in_doubt().empty());
                    CHECK(w.journal->verify().intact);
                    w.reopen(crash);
                }
            }
        }
    }
}

TEST_CASE("transaction in doubt: an endpoint that is closed and opened again meanwhile") {
    for (const bool yes : {true, false}) {
        place w;
        std::optional in(w.q("in"));
        in->send(1);
        in->send(2);
        auto d = in->try_receive();
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.prepare("xid");
        in.reset();
        in.emplace(w.q("in"));
        auto other = in->try_receive();
        REQUIRE(other);
        CHECK(**other == 2);
        CHECK_FALSE(in->try_receive());
        if (yes) {
            w.journal->commit("xid");
        } else {
            w.journal->rollback("xid");
        }
        CHECK_FALSE(d->ack());
        CHECK(other->ack());
        CHECK(take(*in) == (yes ? ints{} : ints{1}));
        in.reset();
        in.emplace(w.q("in"));
        CHECK_FALSE(in->try_receive());
    }
}

TEST_CASE("transaction in doubt: subscriptions of every mode, while they sleep and after a restart") {
    for (const sharing mode : {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned}) {
        for (const int how : {0, 1, 2, 3}) {
            const bool yes = how % 2 == 0, sleeps = how < 2, in_order = mode == sharing::keyed || mode == sharing::partitioned;
            CAPTURE(static_cast<int>(mode));
            CAPTURE(how);
            place w;
            const mailroom::subscribe_options<int> o{.mode = mode, .retry = {.max_attempts = 0, .initial = 0s}};
            {
                auto t = w.make_topic("t", {.partitions = 2});
                auto s = t.subscribe("s", o);
                for (int i = 0; i < 6; ++i) { t.publish(i, {.key = i % 2 == 0 ? "a" : "c"}); }
                auto d = s.try_receive();
                REQUIRE(d);
                CHECK(**d == 0);
                auto tx = w.begin();
                CHECK(tx.ack(*d));
                tx.prepare("xid");
                w.clock.advance(24h);
            }
            w.reopen(true);
            {
                auto t = w.make_topic("t", {.partitions = 2});
                CHECK(t.subscriptions().front().lag == 6); // nobody is there
                auto s = t.subscribe("s", o);
                const ints first = take(s);
                CHECK(std::count(first.begin(), first.end(), 0) == 0);
                CHECK(first.size() == (in_order ? 3 : 5)); // or what comes after it waits for it
                CHECK(t.subscriptions().front().in_flight == 1);
            }
            w.journal->compact();
            w.reopen(true);
            auto t = w.make_topic("t", {.partitions = 2});
            std::optional<mailroom::subscription<int>> s;
            if (!sleeps) {
                s.emplace(t.subscribe("s", o));
                CHECK_FALSE(s->try_receive());
            }
            yes ? w.journal->commit("xid") : w.journal->rollback("xid");
            if (sleeps) { s.emplace(t.subscribe("s", o)); }
            ints left = in_order ? ints{0, 2, 4} : ints{0};
            if (yes) { left.erase(left.begin()); }
            CHECK(take(*s) == left);
            CHECK(t.subscriptions().front().lag == 0);
            CHECK(w.journal->verify().intact);
        }
    }
}

TEST_CASE("transaction in doubt: whoever takes over from a member that has left is not held up by what that had prepared") {
    for (const sharing mode : {sharing::exclusive, sharing::failover, sharing::partitioned}) {
        for (const bool restarts : {false, true}) {
            CAPTURE(static_cast<int>(mode));
            CAPTURE(restarts);
            place w;
            std::optional t(w.make_topic("t"));
            const mailroom::subscribe_options<int> o{.mode = mode, .retry = {.max_attempts = 0, .initial = 0s}};
            std::optional s(t->subscribe("s", o));
            for (int i = 0; i < 3; ++i) { t->publish(i); }
            auto tx = w.begin();
            CHECK(tx.ack(std::move(*s->try_receive())));
            tx.prepare("xid");
            s.reset();
            if (restarts) {
                t.reset();
                w.reopen(true);
                t.emplace(w.make_topic("t"));
            }
            s.emplace(t->subscribe("s", o));
            CHECK(take(*s) == ints{1, 2});
            w.journal->rollback("xid");
            CHECK(take(*s) == ints{0});
        }
    }
}

TEST_CASE("transaction in doubt: dead letters stay out of sight") {
    place w;
    {
        auto in = w.q("in");
        in.send(1);
        in.send(2);
        in.try_receive()->reject("a");
        in.try_receive()->reject("b");
        auto tx = w.begin();
        auto d = in.dead().try_receive();
        REQUIRE(**d == 1);
        CHECK(tx.ack(*d));
        tx.prepare("xid");
        CHECK(in.dead().redrive(10) == 1);
        CHECK(take(in) == ints{2});
    }
    bool yes = true;
    SUBCASE("committed") {}
    SUBCASE("rolled back") { yes = false; }
    w.reopen(true);
    auto in = w.q("in");
    CHECK_FALSE(in.dead().try_receive());
    CHECK(in.dead().redrive(10) == 0);
    CHECK_FALSE(in.try_receive());
    yes ? w.journal->commit("xid") : w.journal->rollback("xid");
    CHECK(in.dead().redrive(10) == (yes ? 0 : 1));
    CHECK(take(in) == (yes ? ints{} : ints{1}));
}

TEST_CASE("transaction in doubt: a key waits for its message that is in doubt") {
    place w;
    const mailroom::queue_options<int> o{.ordered_by_key = true};
    {
        auto in = w.q("in", o);
        for (int i = 0; i < 4; ++i) { in.send(i, {.key = i % 2 == 0 ? "a" : "b"}); }
        auto tx = w.begin();
        CHECK(tx.ack(std::move(*in.try_receive())));
        tx.prepare("xid");
    }
    w.reopen(true);
    auto in = w.q("in", o);
    CHECK(take(in) == ints{1, 3});
    SUBCASE("committed") {
        w.journal->commit("xid");
        CHECK(take(in) == ints{2});
    }
    SUBCASE("rolled back") {
        w.journal->rollback("xid");
        CHECK(take(in) == ints{0, 2});
    }
}

TEST_CASE("transaction in doubt: an older message of its key that came back waits for it, over a restart too") {
    place w;
    const mailroom::queue_options<int> o{.ordered_by_key = true};
    {
        auto in = w.q("in", o);
        in.send(0, {.key = "a"});
        in.send(1, {.key = "a"});
        CHECK(in.try_receive()->reject());
        auto tx = w.begin();
        CHECK(tx.ack(std::move(*in.try_receive())));
        tx.prepare("xid");
        CHECK(in.dead().redrive(1) == 1);
        CHECK_FALSE(in.try_receive());
    }
    w.reopen(true);
    auto in = w.q("in", o);
    CHECK_FALSE(in.try_receive());
    SUBCASE("committed") {
        w.journal->commit("xid");
        CHECK(take(in) == ints{0});
    }
    SUBCASE("rolled back") {
        w.journal->rollback("xid");
        CHECK(take(in) == ints{0, 1});
    }
}

TEST_CASE("transaction in doubt: what it sends counts when it comes, whatever the bounds, and no longer when it has gone") {
    place w;
    const mailroom::queue_options<int> o{.max_messages = 2, .overflow = overflow::reject};
    const mailroom::topic_options<int> to{.max_messages = 2, .overflow = overflow::reject};
    mailroom::memory_budget budget(64);
    const mailroom::queue_options<std::string> so{.max_bytes = 1000, .budget = nullptr, .overflow = overflow::reject};
    bool restarts = false;
    SUBCASE("at once") {}
    SUBCASE("after a restart") { restarts = true; }
    std::optional q(w.q("q", o));
    std::optional t(w.make_topic("t", to));
    std::optional s(t->subscribe("s"));
    std::optional text(w.make_queue("text", so));
    auto tx = w.begin();
    tx.send(*q, 1);
    tx.send(*q, 2);
    tx.publish(*t, 3);
    tx.publish(*t, 4);
    tx.send(*text, std::string(500, 'x'));
    tx.prepare("xid");
    q->send(5); // it counts nothing yet
    q->send(6);
    t->publish(7);
    t->publish(8);
    text->send(std::string(900, 'y'));
    if (restarts) {
        s.reset();
        t.reset();
        q.reset();
        text.reset();
        w.reopen(true);
        q.emplace(w.q("q", o));
        t.emplace(w.make_topic("t", to));
        s.emplace(t->subscribe("s"));
        text.emplace(w.make_queue("text", so));
    }
    w.journal->commit("xid");
    CHECK(q->statistics().ready == 4);
    CHECK(q->try_send(9).error() == errc::full);
    CHECK(t->try_publish(9).error() == errc::full);
    CHECK(text->try_send(std::string(10, 'z')).error() == errc::full);
    for (int i = 0; i < 2; ++i) {
        CHECK(q->try_receive()->ack());
        CHECK(s->try_receive()->ack());
    }
    CHECK(q->try_send(9).error() == errc::full);
    CHECK(t->try_publish(9).error() == errc::full);
    CHECK(take(*text).size() == 2);
    CHECK(take(*q) == ints{1, 2});
    CHECK(take(*s) == ints{3, 4});
    CHECK(text->statistics().bytes == 0);
    for (int i = 0; i < 2; ++i) {
        CHECK(q->try_send(i));
        CHECK(t->try_publish(i));
    }
    CHECK(q->try_send(9).error() == errc::full);
    CHECK(t->try_publish(9).error() == errc::full);
    CHECK(text->try_send(std::string(800, 'z')));
    CHECK(text->try_send(std::string(800, 'z')).error() == errc::full);
}

TEST_CASE("transaction in doubt: ids count when it is decided") {
    for (const bool window : {true, false}) {
        for (const int open : {0, 1, 2}) { // the endpoints: open all the time, closed, opened again
            CAPTURE(window);
            CAPTURE(open);
            place w;
            const mailroom::deduplication how{.window = window ? mailroom::duration(1h) : mailroom::duration::zero(), .until_settled = !window};
            std::optional q(w.q("q", {.deduplicate = how}));
            std::optional t(w.make_topic("t", {.partitions = 2, .deduplicate = how}));
            std::optional s(t->subscribe("s"));
            auto tx = w.begin();
            tx.send(*q, 1, {.id = "a"});
            tx.send(*q, 2, {.id = "a"}); // twice
            tx.send(*q, 3, {.id = "b"});
            tx.send(*q, 4);
            tx.publish(*t, 5, {.id = "a"});
            tx.publish(*t, 6, {.id = "a"});
            tx.publish(*t, 7, {.id = "b"});
            tx.prepare("xid");
            q->send(8, {.id = "b"}); // it is first: who knows whether that comes
            t->publish(9, {.id = "b"});
            if (open != 0) {
                s.reset();
                t.reset();
                q.reset();
                w.reopen(true);
            }
            const auto opened = [&] {
                q.emplace(w.q("q", {.deduplicate = how}));
                t.emplace(w.make_topic("t", {.partitions = 2, .deduplicate = how}));
                s.emplace(t->subscribe("s"));
            };
            if (open == 2) { opened(); }
            w.journal->commit("xid");
            if (open == 1) { opened(); }
            q->send(10, {.id = "a"});
            t->publish(11, {.id = "a"});
            CHECK(take(*q) == ints{8, 1, 4});
            ints got = take(*s);
            std::sort(got.begin(), got.end());
            CHECK(got == ints{5, 9});
        }
    }
}

TEST_CASE("transaction in doubt: unsubscribed, sought or purged meanwhile") {
    place w;
    auto in = w.q("in");
    auto t = w.make_topic("t", {.retention = {.messages = 100}});
    std::optional s(t.subscribe("s", {.retry = {.max_attempts = 0, .initial = 0s}}));
    in.send(1);
    t.publish(2);
    t.publish(3);
    auto tx = w.begin();
    CHECK(tx.ack(std::move(*in.try_receive())));
    CHECK(tx.ack(std::move(*s->try_receive())));
    tx.send(in, 10);
    tx.prepare("xid");
    SUBCASE("unsubscribed, committed") {
        s.reset();
        CHECK(t.unsubscribe("s"));
        w.journal->commit("xid");
        CHECK(take(in) == ints{10});
    }
    SUBCASE("unsubscribed, committed after a restart") {
        s.reset();
        CHECK(t.unsubscribe("s"));
        in = w.q("in");
        {
            auto gone = std::move(t);
            auto also = std::move(in);
        }
        w.reopen(true);
        w.journal->commit("xid");
        in = w.q("in");
        t = w.make_topic("t", {.retention = {.messages = 100}});
        s.emplace(t.subscribe("s", {.from = start::earliest}));
        CHECK(take(in) == ints{10});
        CHECK(take(*s) == ints{2, 3});
    }
    SUBCASE("unsubscribed, rolled back") {
        s.reset();
        CHECK(t.unsubscribe("s"));
        w.journal->rollback("xid");
        CHECK(take(in) == ints{1});
    }
    SUBCASE("purged, committed") {
        in.purge();
        w.journal->commit("xid");
        CHECK(take(in) == ints{10});
        CHECK(take(*s) == ints{3});
    }
    SUBCASE("purged, rolled back") {
        in.purge();
        w.journal->rollback("xid");
        CHECK(take(in).empty());
        CHECK(take(*s) == ints{2, 3});
    }
    SUBCASE("sought back, committed: what it settles is not settled any more") {
        s->seek(start::earliest);
        w.journal->commit("xid");
        std::vector<mailroom::delivery<int>> held;
        ints before;
        while (auto d = s->try_receive()) {
            before.push_back(**d);
            held.push_back(std::move(*d));
        }
        held.clear();
        CHECK(before == ints{2, 3});
        s.reset();
        {
            auto gone = std::move(t);
            auto also = std::move(in);
        }
        w.reopen();
        t = w.make_topic("t", {.retention = {.messages = 100}});
        s.emplace(t.subscribe("s"));
        CHECK(take(*s) == before);
    }
    CHECK(w.journal->in_doubt().empty());
    CHECK(w.journal->verify().intact);
}

TEST_CASE("transaction in doubt: what is retained, or moved by compaction, is there when it is decided") {
    place w;
    std::optional in(w.make_queue<std::string>("in"));
    std::optional out(w.make_queue<std::string>("out"));
    in->send(std::string(1000, 'a'));
    {
        auto tx = w.begin();
        CHECK(tx.ack(std::move(*in->try_receive())));
        tx.send(*out, std::string(1000, 'b'));
        tx.prepare("xid");
    }
    for (int i = 0; i < 100; ++i) { // segments come and go
        out->send(std::string(5000, 'c'));
        CHECK(out->try_receive()->ack());
        if (i % 25 == 0) { w.journal->compact(); }
    }
    CHECK(w.journal->verify().intact);
    in.reset();
    out.reset();
    w.reopen(true);
    CHECK(w.journal->in_doubt() == names{"xid"});
    in.emplace(w.make_queue<std::string>("in"));
    out.emplace(w.make_queue<std::string>("out"));
    CHECK_FALSE(in->try_receive());
    SUBCASE("committed") {
        w.journal->commit("xid");
        CHECK(take(*out) == names{std::string(1000, 'b')});
        CHECK_FALSE(in->try_receive());
    }
    SUBCASE("rolled back") {
        w.journal->rollback("xid");
        w.clock.advance(1h);
        CHECK(take(*in) == names{std::string(1000, 'a')});
        CHECK_FALSE(out->try_receive());
    }
}

TEST_CASE("transaction in doubt: many, more than a segment of them, decided in any order") {
    place w;
    std::optional q(w.make_queue<std::string>("q"));
    names expected;
    for (int i = 0; i < 60; ++i) {
        auto tx = w.begin();
        tx.send(*q, std::to_string(i) + std::string(3000, 'x'));
        const std::string n = std::to_string(i);
        tx.prepare("xid " + std::string(3 - n.size(), '0') + n);
        expected.push_back("xid " + std::string(3 - n.size(), '0') + n);
    }
    CHECK(w.journal->in_doubt() == expected);
    w.journal->compact();
    q.reset();
    w.reopen(true);
    CHECK(w.journal->in_doubt() == expected);
    w.reopen();
    CHECK(w.journal->in_doubt() == expected);
    q.emplace(w.make_queue<std::string>("q"));
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const std::string& xid = expected[i * 7 % expected.size()];
        i % 3 == 0 ? w.journal->rollback(xid) : w.journal->commit(xid);
    }
    CHECK(w.journal->in_doubt().empty());
    CHECK(take(*q).size() == 40);
    CHECK(w.journal->verify().intact);
}

TEST_CASE("transaction in doubt: a size that fits now fits when it is decided") {
    place w;
    auto q = w.make_queue<std::string>("q");
    auto in = w.q("in");
    bool was_too_large = false;
    for (std::size_t bytes = 32 << 10; bytes > 31 << 10; bytes -= 8) {
        auto tx = w.begin();
        in.send(1);
        const errc e = error_of([&] {
            tx.send(q, std::string(bytes, 'x'));
            CHECK(tx.ack(std::move(*in.try_receive())));
            tx.prepare("x");
        });
        w.clock.advance(1h);
        if (e == errc{}) {
            w.journal->commit("x");
            CHECK(take(q).size() == 1);
            break;
        }
        CHECK(e == errc::too_large);
        was_too_large = true;
        CHECK(w.journal->in_doubt().empty());
        tx.rollback();
        take(in);
    }
    CHECK(was_too_large);
    q.send("it goes on");
    CHECK(take(q).size() == 1);
}

TEST_CASE("transaction in doubt: prepared ones take 64 MiB together at most, over restarts, until some of them are decided") {
    mailroom::testing::manual_clock clock{1h};
    const mailroom::testing::simulated_files disk;
    std::optional<simulated_journal> journal;
    std::optional<mailroom::queue<std::string, simulated_journal>> q;
    const auto open = [&] {
        q.reset();
        journal.reset();
        journal.emplace("journal", mailroom::journal_options{.segment_bytes = 32 << 20, .clock = &clock}, disk);
        q.emplace(*journal, "q", mailroom::queue_options<std::string>{.retry = {.initial = 0s}});
    };
    open();
    const auto prepare = [&](const std::string& xid, std::size_t mib) {
        transaction tx(*journal, {.max_bytes = 16 << 20});
        tx.send(*q, std::string(mib << 20, 'x'));
        return error_of([&] { tx.prepare(xid); });
    };
    for (const char* xid : {"a", "b", "c", "d"}) { CHECK(prepare(xid, 15) == errc{}); }
    CHECK(prepare("too much", 15) == errc::too_large);
    CHECK(prepare("e", 3) == errc{});
    CHECK(prepare("too much", 1) == errc::too_large); // 63 MiB, and their heads
    const names all{"a", "b", "c", "d", "e"};
    CHECK(journal->in_doubt() == all);
    q->send("1"); // what is not prepared goes on
    auto d = q->try_receive();
    REQUIRE(d);
    {
        transaction tx(*journal, {.max_bytes = 16 << 20});
        CHECK(tx.ack(*d));
        tx.send(*q, std::string(2 << 20, 'x'));
        CHECK(error_of([&] { tx.prepare("too much"); }) == errc::too_large);
        CHECK(d->ack()); // its holder's again
    }
    open();
    CHECK(journal->in_doubt() == all);
    CHECK(prepare("too much", 1) == errc::too_large);
    journal->rollback("b");
    journal->commit("c");
    auto came = q->try_pop();
    REQUIRE(came);
    CHECK(came->body() == std::string(15 << 20, 'x'));
    CHECK(prepare("f", 15) == errc{});
    CHECK(prepare("g", 15) == errc{});
    CHECK(prepare("too much", 1) == errc::too_large);
    CHECK(journal->in_doubt() == names{"a", "d", "e", "f", "g"});
}

TEST_CASE("transaction in doubt: a sync that fails while it is prepared: it is not, nothing of it ever comes in this process") {
    for (const bool power : {true, false}) {
        CAPTURE(power);
        place w;
        std::optional in(w.q("in"));
        std::optional out(w.q("out"));
        in->send(1);
        auto d = in->try_receive();
        REQUIRE(d);
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.send(*out, 10);
        w.disk.fail_sync(0, std::make_error_code(std::errc::io_error));
        CHECK(error_of([&] { tx.prepare("xid"); }) == errc::io);
        CHECK_FALSE(tx.is_open());
        CHECK_FALSE(out->try_receive());
        CHECK(**d == 1); // its holder's again
        CHECK(in->statistics().in_flight == 1);
        CHECK(error_of([&] { w.journal->commit("xid"); }) != errc{});
        auto next = w.begin();
        next.send(*out, 11);
        CHECK(error_of([&] { next.prepare("another"); }) == errc::io); // a journal whose sync failed writes nothing any more
        CHECK_FALSE(out->try_receive());

        d.reset();
        in.reset();
        out.reset();
        power ? w.disk.power_cut(7, loss::everything) : w.disk.process_kill();
        w.journal.reset();
        w.open();
        const names left = w.journal->in_doubt();
        const bool may_be = left.empty() || (!power && left == names{"xid"}); // what was written and not synced, the system has
        CHECK(may_be);
        for (const std::string& xid : left) { w.journal->commit(xid); }
        in.emplace(w.q("in"));
        out.emplace(w.q("out"));
        CHECK(take(*in) == (left.empty() ? ints{1} : ints{}));
        CHECK(take(*out) == (left.empty() ? ints{} : ints{10}));
        CHECK(w.journal->verify().intact);
    }
}

TEST_CASE("transaction in doubt: a verdict that cannot be written leaves it in doubt") {
    place w;
    std::optional in(w.q("in"));
    std::optional out(w.q("out", {.max_messages = 2, .overflow = overflow::reject, .deduplicate = {.window = 1h}}));
    in->send(1);
    auto tx = w.begin();
    CHECK(tx.ack(std::move(*in->try_receive())));
    tx.send(*out, 10, {.id = "a"});
    tx.send(*out, 11, {.id = "b"});
    tx.prepare("xid");
    for (const bool yes : {true, false}) {
        for (unsigned i = 0; i < 10; ++i) { w.disk.fail_write(i, std::make_error_code(std::errc::io_error)); }
        CHECK(error_of([&] { yes ? w.journal->commit("xid") : w.journal->rollback("xid"); }) == errc::io);
        w.disk.clear_faults();
        CHECK(w.journal->in_doubt() == names{"xid"});
        CHECK_FALSE(in->try_receive());
        CHECK_FALSE(out->try_receive());
    }
    SUBCASE("and again") {
        w.journal->commit("xid");
        CHECK(take(*out) == ints{10, 11});
        CHECK(out->try_send(1));
        CHECK(out->try_send(2));
        CHECK(out->try_send(3).error() == errc::full);
        CHECK(in->statistics().acked == 1);
    }
    SUBCASE("rolled back") {
        w.journal->rollback("xid");
        CHECK(take(*in) == ints{1});
        CHECK(out->try_send(1, {.id = "a"}));
        CHECK(take(*out) == ints{1});
    }
    SUBCASE("after a restart") {
        in.reset();
        out.reset();
        w.reopen(true);
        CHECK(w.journal->in_doubt() == names{"xid"});
        w.journal->commit("xid");
        out.emplace(w.q("out", {.deduplicate = {.window = 1h}}));
        CHECK(take(*out) == ints{10, 11});
    }
}

TEST_CASE("transaction in doubt: a waiting receiver is woken by the verdict") {
    place w;
    auto q = w.q("q");
    auto t = w.make_topic("t");
    auto s = t.subscribe("s");
    auto tx = w.begin();
    tx.send(q, 1);
    tx.publish(t, 2);
    tx.prepare("xid");
    std::optional<int> first, second;
    {
        const blocked one([&] { first = **q.receive(); });
        const blocked two([&] { second = **s.receive(); });
        w.journal->commit("xid");
        CHECK(one.finishes());
        CHECK(two.finishes());
    }
    CHECK(first == 1);
    CHECK(second == 2);
}

TEST_CASE("transaction in doubt: the journal goes while deliveries are held") {
    auto w = std::make_unique<place>();
    std::optional in(w->q("in"));
    in->send(1);
    auto d = in->try_receive();
    auto tx = w->begin();
    CHECK(tx.ack(*d));
    tx.prepare("xid");
    w->journal.reset();
    CHECK_FALSE(d->ack());
    in.reset();
    w->open();
    CHECK(w->journal->in_doubt() == names{"xid"});
    w->journal->rollback("xid");
    in.emplace(w->q("in"));
    CHECK(take(*in) == ints{1});
}

TEST_CASE("transaction in doubt: prepared and decided by many at once, beside plain traffic and transactions, with ids") {
    in_journal_write w;
    auto a = w.make_queue("a", {.retry = {.max_attempts = 0, .initial = 0s}, .deduplicate = {.window = 1h}});
    auto b = w.make_queue("b", {.retry = {.max_attempts = 0, .initial = 0s}, .deduplicate = {.window = 1h}});
    auto c = w.make_queue("c");
    const int messages = static_cast<int>(cases(400));
    constexpr int threads = 4;
    for (int i = 0; i < messages; ++i) { a.send(i); }
    std::atomic<int> left{messages};
    const auto seed = support::seed();
    CAPTURE(seed);
    crew crew(threads);
    crew.run(threads, [&](int self) {
        dice chance(seed + static_cast<unsigned>(self));
        for (int n = 0; left > 0; ++n) {
            if (chance.percent(20)) { c.send(n); }
            auto d = a.try_receive();
            if (!d) { continue; }
            auto tx = w.begin();
            const std::string id = std::to_string(**d);
            if (chance.percent(50)) { // in both orders
                tx.send(b, **d, {.id = id});
                tx.send(a, -1, {.id = "once"});
            } else {
                tx.send(a, -1, {.id = "once"});
                tx.send(b, **d, {.id = id});
            }
            const bool counts = **d >= 0;
            if (!tx.ack(std::move(*d))) { continue; }
            if (chance.percent(40)) {
                tx.commit();
            } else {
                const std::string xid = std::to_string(self) + "/" + std::to_string(n);
                tx.prepare(xid);
                if (chance.percent(30)) {
                    w.journal->rollback(xid);
                    continue;
                }
                w.journal->commit(xid);
            }
            if (counts) { --left; }
        }
    });
    ints got;
    for (const int i : take(b)) {
        if (i >= 0) { got.push_back(i); }
    }
    std::sort(got.begin(), got.end());
    CHECK(static_cast<int>(got.size()) == messages);
    CHECK(std::adjacent_find(got.begin(), got.end()) == got.end());
    CHECK(w.journal->in_doubt().empty());
    CHECK(w.journal->verify().intact);
}
