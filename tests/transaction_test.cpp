// Transactions: what they send, publish and acknowledge is there together once they commit, and nothing of it before, or otherwise. In memory and
// in a journal.
#include "support/blocked.hpp"
#include "support/places.hpp"

#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace support;

// ------------------------------------------------------------------------------------------------------------------------------------------ together

TEST_CASE_TEMPLATE("transaction: what it sends, publishes and acknowledges is there together, after commit", Where, EVERY_WAY) {
    Where w;
    auto in = w.make_queue("in");
    auto out = w.make_queue("out");
    auto other = w.template make_queue<std::string>("other");
    auto events = w.make_topic("events", {.partitions = 3});
    auto listener = events.subscribe("listener");
    in.send(1);
    auto d = in.try_receive();
    REQUIRE(d);

    auto tx = w.begin();
    CHECK(tx.is_open());
    tx.send(out, 10);
    tx.send(out, 11, {.key = "k"});
    tx.send(other, "twelve");
    tx.publish(events, 20, {.key = "a"});
    tx.publish(events, 21, {.key = "a"});
    tx.publish(events, 22);
    CHECK(tx.ack(*d));
    CHECK(**d == 1); // it is still there
    CHECK(tx.size() == 7);
    CHECK_FALSE(out.try_receive());
    CHECK_FALSE(other.try_receive());
    CHECK_FALSE(listener.try_receive());
    CHECK(in.statistics().in_flight == 1);

    tx.commit();
    CHECK_FALSE(tx.is_open());
    CHECK_FALSE(d->ack());
    CHECK(in.statistics().in_flight == 0);
    CHECK(in.statistics().acked == 1);
    CHECK(take(out) == ints{10, 11});
    CHECK(take(other) == std::vector<std::string>{"twelve"});
    ints seen = take(listener);
    CHECK(std::find(seen.begin(), seen.end(), 20) < std::find(seen.begin(), seen.end(), 21));
    std::sort(seen.begin(), seen.end());
    CHECK(seen == ints{20, 21, 22});
    CHECK(error_of([&] { tx.send(out, 1); }) == errc::closed);
    CHECK(error_of([&] { tx.commit(); }) == errc::closed);
    CHECK(take(out).empty());
}

TEST_CASE_TEMPLATE("transaction: rolled back nothing has happened; deliveries are their holders' again, or nacked", Where, EVERY_WAY) {
    Where w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    for (int i = 1; i <= 4; ++i) { in.send(i); }
    auto kept = in.try_receive(), dropped = in.try_receive();
    {
        auto tx = w.begin();
        tx.send(out, 10);
        CHECK(tx.ack(*kept));
        CHECK(tx.ack(std::move(*dropped)));
        auto local = in.try_receive();
        CHECK(tx.ack(*local)); // let go before
    }
    CHECK_FALSE(out.try_receive());
    CHECK(in.statistics().in_flight == 1);
    CHECK(**kept == 1);
    CHECK(kept->attempt() == 1);
    auto second = in.try_receive();
    REQUIRE(second);
    CHECK(**second == 2);
    CHECK(second->attempt() == 2);
    CHECK(kept->ack());
    CHECK(second->ack());
    CHECK(take(in) == ints{3, 4});
    CHECK(in.statistics().acked == 4);

    in.send(5);
    auto verbs = in.try_receive();
    for (int round = 0; round < 3; ++round) { // again and again
        auto tx = w.begin();
        CHECK(tx.ack(*verbs));
        tx.rollback();
        CHECK_FALSE(tx.is_open());
        CHECK(**verbs == 5);
    }
    CHECK(verbs->release());
    verbs = in.try_receive();
    REQUIRE(verbs);
    CHECK(verbs->attempt() == 1);
    {
        auto tx = w.begin();
        CHECK(tx.ack(*verbs));
    }
    CHECK(verbs->reject("no"));
    CHECK(in.dead().size() == 1);
}

TEST_CASE_TEMPLATE("transaction: while it is open a delivery's own verbs do nothing", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    const auto with = [&](auto verb) {
        in.send(1);
        auto d = in.try_receive();
        auto tx = w.begin();
        REQUIRE(tx.ack(*d));
        CHECK_FALSE(verb(*d));
        CHECK(in.statistics().in_flight == 1);
        tx.commit();
        CHECK(in.statistics().in_flight == 0);
        CHECK_FALSE(in.try_receive());
        CHECK(in.dead().size() == 0);
    };
    with([](auto& d) { return d.ack(); });
    with([](auto& d) { return d.nack(); });
    with([](auto& d) { return d.nack(1h); });
    with([](auto& d) { return d.release(); });
    with([](auto& d) { return d.reject("x"); });
    with([](auto& d) { return error_of([&] { d.ack_async().wait(); }) != errc::not_found; });
}

TEST_CASE_TEMPLATE("transaction: a delivery is acknowledged once", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in");
    auto out = w.make_queue("out");
    for (int i = 0; i < 3; ++i) { in.send(i); }
    {
        auto d = in.try_receive();
        auto tx = w.begin();
        tx.send(out, 1);
        CHECK(tx.ack(*d));
        CHECK_FALSE(tx.ack(*d)); // twice
        CHECK(tx.has_lost_delivery());
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK(**d == 0);
        CHECK(d->ack());
    }
    {
        auto d = in.try_receive();
        auto one = w.begin(), two = w.begin();
        CHECK(one.ack(*d));
        two.send(out, 2);
        CHECK_FALSE(two.ack(*d)); // it is another's
        CHECK(error_of([&] { two.commit(); }) == errc::not_found);
        one.commit();
        auto three = w.begin();
        CHECK_FALSE(three.ack(*d)); // it is over
    }
    {
        auto d = in.try_receive();
        CHECK(d->ack());
        auto tx = w.begin();
        CHECK_FALSE(tx.ack(*d));
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
    }
    CHECK_FALSE(out.try_receive());
    CHECK(in.statistics().acked == 3);
}

TEST_CASE_TEMPLATE("transaction: a delivery that is over outlives its queue, and may still be asked", Where, EVERYWHERE) {
    Where w;
    std::optional<typename Where::template queue<int>> in(w.make_queue("in"));
    in->send(1, {.id = "x"});
    in->send(2, {.id = "y"});
    auto d = in->try_receive();
    auto again = in->try_receive();
    {
        auto tx = w.begin();
        CHECK(tx.ack(*again));
    }
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    CHECK(tx.ack(*again)); // for the second time
    CHECK(d->props().id == "x");
    tx.commit();
    in.reset();
    auto later = w.begin();
    CHECK_FALSE(later.ack(*d));
    CHECK_FALSE(later.ack(*again));
    CHECK_FALSE(d->extend(1h));
    CHECK_FALSE(again->extend(1h));
    CHECK(d->props() == mailroom::no_properties);
    CHECK(again->props() == mailroom::no_properties);
    CHECK(d->timestamp() == mailroom::time_point());
    CHECK_FALSE(d->ack());
    CHECK_FALSE(again->nack());
}

TEST_CASE_TEMPLATE("transaction: what is empty commits, and so does what only acknowledges", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in");
    {
        auto tx = w.begin();
        tx.commit();
        CHECK_FALSE(tx.is_open());
    }
    ints expected;
    for (int i = 0; i < 100; ++i) { in.send(i); }
    auto tx = w.begin();
    for (int i = 0; i < 100; ++i) {
        auto d = in.try_receive();
        if (i % 3 != 0) {
            CHECK(tx.ack(std::move(*d)));
        } else {
            expected.push_back(i);
            d->release();
            auto again = in.try_receive();
            if (**again == i) { CHECK(again->nack(1s)); }
        }
    }
    tx.commit();
    CHECK(in.statistics().acked == 66);
    w.clock.advance(1min);
    CHECK(take(in) == expected);
}

TEST_CASE_TEMPLATE("transaction: what is moved goes on where it is", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    in.send(1);
    in.send(2);
    auto one = w.begin();
    CHECK(one.ack(std::move(*in.try_receive())));
    one.send(out, 10);
    transaction two(std::move(one));
    CHECK_FALSE(one.is_open()); // NOLINT: what is moved from is over
    CHECK(error_of([&] { one.send(out, 1); }) == errc::closed);
    one.rollback();
    CHECK(two.size() == 2);
    two.send(out, 11);
    auto three = w.begin();
    CHECK(three.ack(std::move(*in.try_receive())));
    three.send(out, 12);
    three = std::move(two); // what it was rolls back
    auto& same = three;
    three = std::move(same);
    CHECK_FALSE(out.try_receive());
    CHECK(in.statistics().ready == 1);
    three.commit();
    CHECK(take(out) == ints{10, 11});
    CHECK(take(in) == ints{2});
}

TEST_CASE_TEMPLATE("transaction: order holds within each stream, with what others send", Where, EVERYWHERE) {
    Where w;
    auto a = w.make_queue("a");
    auto b = w.make_queue("b");
    auto t = w.make_topic("t", {.partitions = 4});
    auto s = t.subscribe("s");
    auto tx = w.begin();
    for (int i = 0; i < 100; ++i) {
        tx.send(i % 3 == 0 ? a : b, i);
        tx.publish(t, i, {.key = std::to_string(i % 7)});
    }
    a.send(-1);
    tx.commit();
    a.send(1000);
    ints in_a{-1}, in_b;
    for (int i = 0; i < 100; ++i) { (i % 3 == 0 ? in_a : in_b).push_back(i); }
    in_a.push_back(1000);
    CHECK(take(a) == in_a);
    CHECK(take(b) == in_b);
    std::map<int, ints> by_key;
    for (const int i : take(s)) { by_key[i % 7].push_back(i); }
    CHECK(by_key.size() == 7);
    for (const auto& [key, all] : by_key) {
        CHECK(all.size() >= 14);
        CHECK(std::is_sorted(all.begin(), all.end()));
    }
}

TEST_CASE_TEMPLATE("transaction: what it sends keeps its properties, times and priorities", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q", {.priorities = 10});
    auto tx = w.begin();
    tx.send(q, 1, {.priority = 1});
    tx.send(q, 2, {.delay = 10s});
    tx.send(q, 3, {.time_to_live = 5s});
    tx.send(q, 9, {.key = "k", .priority = 9, .headers = {{"n", std::int64_t{7}}}});
    tx.commit();
    auto d = q.try_receive();
    REQUIRE(d);
    CHECK(**d == 9);
    CHECK(d->props().key == "k");
    CHECK(d->props().headers.size() == 1);
    CHECK(d->ack());
    w.clock.advance(6s);
    CHECK(take(q) == ints{1});
    CHECK(q.statistics().expired == 1);
    w.clock.advance(6s);
    CHECK(take(q) == ints{2});
    CHECK(q.dead().size() == 1);
}

// ---------------------------------------------------------------------------------------------------------------------------------- who acknowledges

TEST_CASE_TEMPLATE("transaction: deliveries of subscriptions of every mode", Where, EVERYWHERE) {
    Where w;
    for (const sharing mode : {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned}) {
        CAPTURE(static_cast<int>(mode));
        auto t = w.make_topic("t" + std::to_string(static_cast<int>(mode)), {.partitions = 2});
        auto s = t.subscribe("s", {.mode = mode, .retry = {.initial = 0s}});
        for (int i = 0; i < 6; ++i) { t.publish(i, {.key = std::to_string(i)}); }
        auto tx = w.begin();
        auto back = w.begin();
        ints first;
        for (int i = 0; i < 3; ++i) {
            auto d = s.try_receive();
            REQUIRE(d);
            first.push_back(**d);
            CHECK((i == 2 ? back : tx).ack(std::move(*d)));
        }
        tx.commit();
        back.rollback();
        ints rest = take(s);
        CHECK(rest.size() == 4);
        CHECK(std::count(rest.begin(), rest.end(), first[2]) == 1);
        CHECK(std::count(rest.begin(), rest.end(), first[0]) == 0);
    }
}

TEST_CASE_TEMPLATE("transaction: a delivery of an ephemeral subscription", Where, EVERYWHERE) {
    Where w;
    auto t = w.make_topic("t");
    auto out = w.make_queue("out");
    auto s = t.subscribe();
    for (int i = 0; i < 3; ++i) { t.publish(i); }
    auto tx = w.begin();
    auto d = s.try_receive();
    CHECK(tx.ack(*d));
    tx.send(out, 1);
    tx.commit();
    CHECK(take(s) == ints{1, 2});
    CHECK(take(out) == ints{1});
}

TEST_CASE_TEMPLATE("transaction: dead letters", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in");
    auto out = w.make_queue("out");
    in.send(1);
    in.send(2);
    in.try_receive()->reject("a");
    in.try_receive()->reject("b");
    {
        auto d = in.dead().try_receive();
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.send(out, **d);
        CHECK(in.dead().size() == 2);
    }
    CHECK(in.dead().size() == 2);
    CHECK_FALSE(out.try_receive());
    auto d = in.dead().try_receive();
    REQUIRE(d);
    const int which = **d;
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    tx.send(out, which);
    tx.commit();
    CHECK(in.dead().size() == 1);
    CHECK(take(out) == ints{which});
    CHECK(in.dead().redrive(10) == 1);
    CHECK(take(in) == ints{3 - which});
}

TEST_CASE_TEMPLATE("transaction: within a consumer's handler", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    for (int i = 0; i < 20; ++i) { in.send(i); }
    std::atomic<int> failures{0}, done{0};
    {
        auto c = in.consume([&](mailroom::delivery<int> d) {
            auto tx = w.begin();
            const int body = *d;
            tx.send(out, body + 100);
            if (!tx.ack(d)) { ++failures; }
            if (body % 4 == 0 && d.attempt() == 1) { return; } // rolled back; nacked as the delivery goes
            if (body % 4 == 1) {
                CHECK(d.extend(1h));
                tx.rollback();
                auto another = w.begin();
                another.send(out, body + 100);
                if (!another.ack(std::move(d))) { ++failures; }
                another.commit();
            } else {
                tx.commit();
            }
            ++done;
        });
        CHECK(support::eventually([&] { return done == 20; }));
    }
    CHECK(failures == 0);
    ints got = take(out);
    std::sort(got.begin(), got.end());
    ints expected;
    for (int i = 0; i < 20; ++i) { expected.push_back(i + 100); }
    CHECK(got == expected);
    CHECK(in.statistics().in_flight + in.statistics().ready + in.statistics().parked == 0);
}

// -------------------------------------------------------------------------------------------------------------------------------------------- leases

TEST_CASE_TEMPLATE("transaction: an acknowledged delivery is held as long as the transaction says, and no shorter than before", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.lease = 10s, .retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    in.send(1);
    SUBCASE("up to a bound") {
        auto d = in.try_receive();
        auto tx = w.begin({.lease = 1min});
        CHECK(tx.ack(*d));
        w.clock.advance(59s);
        CHECK_FALSE(in.try_receive());
        w.clock.advance(2s);
        auto another = in.try_receive();
        REQUIRE(another);
        CHECK(another->attempt() == 2);
        tx.send(out, 1);
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK(tx.has_lost_delivery());
        CHECK_FALSE(out.try_receive());
        CHECK_FALSE(d->ack());
        CHECK(another->ack());
    }
    SUBCASE("a longer lease stays") {
        auto d = in.try_receive();
        CHECK(d->extend(1h));
        auto tx = w.begin({.lease = 1s});
        CHECK(tx.ack(*d));
        w.clock.advance(59min);
        CHECK_FALSE(in.try_receive());
        tx.commit();
        CHECK(in.statistics().acked == 1);
    }
    SUBCASE("its holder may extend it") {
        auto d = in.try_receive();
        auto tx = w.begin({.lease = 10s});
        CHECK(tx.ack(*d));
        CHECK(d->extend(1h));
        w.clock.advance(59min);
        CHECK_FALSE(in.try_receive());
        tx.commit();
        CHECK_FALSE(in.try_receive());
        CHECK(in.statistics().acked == 1);
    }
    SUBCASE("lost before") {
        auto d = in.try_receive();
        w.clock.advance(11s);
        auto another = in.try_receive();
        REQUIRE(another);
        auto tx = w.begin();
        tx.send(out, 1);
        CHECK_FALSE(tx.ack(*d));
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK_FALSE(out.try_receive());
    }
    SUBCASE("run out, but nobody has had it since") {
        auto d = in.try_receive();
        w.clock.advance(11s);
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        w.clock.advance(10min);
        tx.commit(); // nor now
        CHECK(in.statistics().acked == 1);
    }
    SUBCASE("after a rollback it begins anew") {
        auto d = in.try_receive();
        {
            auto tx = w.begin({.lease = 1min});
            CHECK(tx.ack(*d));
            w.clock.advance(50s);
        }
        w.clock.advance(11s);
        auto another = in.try_receive(); // a minute from `ack` on is what was promised
        REQUIRE(another);
        CHECK_FALSE(d->ack());
    }
    SUBCASE("one lost, the others come back") {
        in.send(2);
        auto d = in.try_receive();
        auto mine = in.try_receive();
        auto tx = w.begin({.lease = 1min});
        CHECK(tx.ack(*mine));
        w.clock.advance(11s);
        d = in.try_receive(); // 1 again
        REQUIRE(d);
        CHECK(**d == 1);
        CHECK(tx.ack(*d));
        w.clock.advance(50s);
        auto thief = in.try_receive();
        REQUIRE(thief);
        CHECK(**thief == 2);
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK(**d == 1);
        CHECK(d->ack());
        CHECK(thief->ack());
        CHECK(in.statistics().acked == 2);
    }
}

TEST_CASE_TEMPLATE("transaction: what takes a delivery away between ack and commit fails it as a whole", Where, EVERYWHERE) {
    Where w;
    auto out = w.make_queue("out");
    auto tx = w.begin();
    tx.send(out, 1);
    SUBCASE("purge") {
        auto in = w.make_queue("in");
        in.send(1);
        auto d = in.try_receive();
        CHECK(tx.ack(*d));
        CHECK(in.purge() == 1);
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK_FALSE(d->ack());
    }
    SUBCASE("the queue is destroyed") {
        std::optional in(w.make_queue("in"));
        in->send(1);
        auto d = in->try_receive();
        CHECK(tx.ack(*d));
        in.reset();
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK_FALSE(d->ack());
        if (Where::is_stored) {
            auto again = w.make_queue("in");
            CHECK(take(again) == ints{1});
        }
    }
    SUBCASE("the queue is destroyed, and the delivery") {
        std::optional in(w.make_queue("in"));
        in->send(1);
        CHECK(tx.ack(std::move(*in->try_receive())));
        in.reset();
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
    }
    SUBCASE("the queue is closed: that takes nothing") {
        auto in = w.make_queue("in");
        in.send(1);
        CHECK(tx.ack(std::move(*in.try_receive())));
        in.close();
        tx.commit();
        CHECK(in.statistics().acked == 1);
        CHECK(take(out) == ints{1});
        return;
    }
    SUBCASE("the topic is destroyed") {
        std::optional t(w.make_topic("t"));
        auto s = t->subscribe("s");
        t->publish(1);
        CHECK(tx.ack(std::move(*s.try_receive())));
        t.reset();
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
    }
    SUBCASE("the member leaves") {
        auto t = w.make_topic("t");
        std::optional s(t.subscribe("s", {.retry = {.initial = 0s}}));
        t.publish(1);
        auto d = s->try_receive();
        CHECK(tx.ack(*d));
        s.reset();
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK_FALSE(d->ack());
        auto next = t.subscribe("s");
        CHECK(take(next) == ints{1});
    }
    SUBCASE("an ephemeral subscription is gone") {
        auto t = w.make_topic("t");
        std::optional s(t.subscribe());
        t.publish(1);
        CHECK(tx.ack(std::move(*s->try_receive())));
        s.reset();
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
    }
    SUBCASE("unsubscribe") {
        auto t = w.make_topic("t");
        auto s = t.subscribe("s");
        t.publish(1);
        auto d = s.try_receive();
        CHECK(tx.ack(*d));
        CHECK(t.unsubscribe("s"));
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK_FALSE(d->ack());
    }
    SUBCASE("seek") {
        auto t = w.make_topic("t", {.retention = {.messages = 10}});
        auto s = t.subscribe("s");
        t.publish(1);
        auto d = s.try_receive();
        CHECK(tx.ack(*d));
        s.seek(start::earliest);
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
        CHECK_FALSE(d->ack());
        CHECK(take(s) == ints{1});
    }
    CHECK_FALSE(out.try_receive());
    CHECK_FALSE(tx.is_open());
}

TEST_CASE_TEMPLATE("transaction: a destination that is gone or closed fails it", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    in.send(1);
    auto d = in.try_receive();
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    tx.send(out, 1);
    SUBCASE("closed") {
        auto other = w.make_queue("other");
        tx.send(other, 1);
        other.close();
        CHECK(error_of([&] { tx.commit(); }) == errc::closed);
    }
    SUBCASE("destroyed") {
        {
            auto other = w.make_queue("other");
            tx.send(other, 1);
        }
        CHECK(error_of([&] { tx.commit(); }) == errc::closed);
        if (Where::is_stored) {
            auto other = w.make_queue("other");
            CHECK_FALSE(other.try_receive());
        }
    }
    SUBCASE("a topic destroyed") {
        {
            auto other = w.make_topic("other");
            tx.publish(other, 1);
        }
        CHECK(error_of([&] { tx.commit(); }) == errc::closed);
    }
    CHECK_FALSE(out.try_receive());
    CHECK(**d == 1);
    CHECK(d->ack());
}

TEST_CASE("transaction: its journal is closed or gone before it") {
    auto w = std::make_unique<in_journal>();
    std::optional in(w->make_queue("in"));
    in->send(1);
    auto d = in->try_receive();
    auto tx = w->begin();
    CHECK(tx.ack(*d));
    tx.send(*in, 2);
    w->journal.reset();
    SUBCASE("committed") {
        CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
    }
    SUBCASE("without deliveries") {
        tx.rollback();
        CHECK(error_of([&] { tx.send(*in, 1); }) == errc::closed);
    }
    SUBCASE("rolled back late") {
        in.reset();
        d.reset();
    }
    w->open();
    in.reset();
    in.emplace(w->make_queue("in"));
    CHECK(take(*in) == ints{1});
}
