// Transactions where there is no room, where ids are known, where something is refused or fails: nothing has happened then.
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

// -------------------------------------------------------------------------------------------------------------------------------------------- bounds

TEST_CASE_TEMPLATE("transaction: full with reject, drop_newest, drop_oldest", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    auto first = w.make_queue("first", {.max_messages = 3, .overflow = overflow::reject});
    in.send(1);
    auto d = in.try_receive();
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    SUBCASE("reject") {
        auto q = w.make_queue("q", {.max_messages = 3, .overflow = overflow::reject});
        q.send(1);
        q.send(2);
        tx.send(first, 1);
        tx.send(q, 3);
        tx.send(q, 4);
        CHECK(error_of([&] { tx.commit(); }) == errc::full);
        CHECK_FALSE(first.try_receive());
        CHECK(**d == 1);
        CHECK(take(q) == ints{1, 2});
        for (int i = 0; i < 3; ++i) { // nothing of the room of either has gone
            CHECK(q.try_send(i));
            CHECK(first.try_send(i));
        }
        CHECK(q.try_send(4).error() == errc::full);
        CHECK(first.try_send(4).error() == errc::full);
        CHECK(take(q) == ints{0, 1, 2});
    }
    SUBCASE("reject, bytes") {
        auto q = w.template make_queue<std::string>("q", {.max_bytes = 1000, .overflow = overflow::reject});
        auto r = w.template make_queue<std::string>("r", {.max_bytes = 1000, .overflow = overflow::reject});
        q.send(std::string(600, 'x'));
        tx.send(r, std::string(600, 'y'));
        tx.send(q, std::string(300, 'y'));
        tx.send(q, std::string(300, 'y'));
        CHECK(error_of([&] { tx.commit(); }) == errc::full);
        CHECK(q.try_pop());
        CHECK(q.statistics().bytes == 0);
        auto another = w.begin();
        another.send(r, std::string(600, 'y'));
        another.send(q, std::string(300, 'y'));
        another.send(q, std::string(300, 'y'));
        another.commit();
        CHECK(q.try_send(std::string(500, 'z')).error() == errc::full);
        CHECK(take(q).size() == 2);
        CHECK(q.try_send(std::string(700, 'z')));
    }
    SUBCASE("more than could ever be") {
        auto q = w.make_queue("q", {.max_messages = 2});
        for (int i = 0; i < 3; ++i) { tx.send(q, i); }
        CHECK(error_of([&] { tx.commit(); }) == errc::too_large);
        CHECK_FALSE(q.try_receive());
    }
    SUBCASE("more than could ever be, over the partitions of a topic") {
        auto t = w.make_topic("t", {.partitions = 4, .max_messages = 5});
        auto s = t.subscribe("s");
        for (int i = 0; i < 8; ++i) { tx.publish(t, i); }
        CHECK(error_of([&] { tx.commit(); }) == errc::too_large);
        CHECK_FALSE(s.try_receive());
    }
    SUBCASE("more than could ever be, of a budget that two share") {
        mailroom::memory_budget budget(1000);
        auto q = w.template make_queue<std::string>("q", {.budget = &budget});
        auto r = w.template make_queue<std::string>("r", {.budget = &budget});
        tx.send(q, std::string(600, 'x'));
        tx.send(r, std::string(600, 'x'));
        CHECK(error_of([&] { tx.commit(); }) == errc::too_large);
        CHECK(budget.used() == 0);
    }
    SUBCASE("drop_newest") {
        auto q = w.make_queue("q", {.max_messages = 2, .overflow = overflow::drop_newest});
        q.send(1);
        tx.send(q, 2);
        tx.send(q, 3);
        tx.send(first, 9);
        tx.commit();
        CHECK(take(first) == ints{9});
        CHECK(take(q) == ints{1});
        CHECK(q.statistics().dropped == 2);
        CHECK(in.statistics().acked == 1);
        return;
    }
    SUBCASE("drop_oldest") {
        auto q = w.make_queue("q", {.max_messages = 3, .overflow = overflow::drop_oldest});
        for (int i = 1; i <= 3; ++i) { q.send(i); }
        auto held = q.try_receive();
        tx.send(q, 4);
        tx.send(q, 5);
        tx.commit();
        CHECK(held->ack());
        CHECK(take(q) == ints{4, 5});
        CHECK(q.statistics().dropped == 2);
        return;
    }
    SUBCASE("drop_oldest, all held") {
        auto q = w.make_queue("q", {.max_messages = 2, .overflow = overflow::drop_oldest});
        q.send(1);
        q.send(2);
        auto one = q.try_receive(), two = q.try_receive();
        tx.send(q, 3);
        tx.send(first, 3);
        CHECK(error_of([&] { tx.commit(); }) == errc::full);
        CHECK_FALSE(first.try_receive());
    }
    SUBCASE("a topic, reject") {
        auto t = w.make_topic("t", {.partitions = 2, .max_messages = 4, .overflow = overflow::reject});
        auto s = t.subscribe("s");
        t.publish(1);
        tx.send(first, 1);
        for (int i = 0; i < 4; ++i) { tx.publish(t, i); }
        CHECK(error_of([&] { tx.commit(); }) == errc::full);
        CHECK_FALSE(first.try_receive());
        CHECK(take(s) == ints{1});
        auto another = w.begin();
        for (int i = 0; i < 4; ++i) { another.publish(t, i); }
        another.commit();
        CHECK(t.try_publish(9).error() == errc::full);
        CHECK(take(s).size() == 4);
    }
    CHECK(**d == 1);
    CHECK(d->ack());
}

TEST_CASE_TEMPLATE("transaction: commit waits for room that another thread makes", Where, EVERYWHERE) {
    Where w;
    mailroom::memory_budget budget(2000);
    auto q = w.make_queue("q", {.max_messages = 4});
    auto r = w.template make_queue<std::string>("r", {.budget = &budget});
    auto r2 = w.template make_queue<std::string>("r2", {.budget = &budget});
    auto t = w.make_topic("t", {.partitions = 2, .max_messages = 4});
    auto s = t.subscribe("s");
    for (int i = 0; i < 3; ++i) {
        q.send(i);
        t.publish(i);
    }
    r2.send(std::string(1500, 'x'));
    auto tx = w.begin();
    for (int i = 0; i < 3; ++i) {
        tx.send(q, 10 + i);
        tx.publish(t, 10 + i);
    }
    tx.send(r, std::string(700, 'y'));
    tx.send(r2, std::string(700, 'z'));
    const support::blocked b([&] { tx.commit(); });
    const auto take_one = [&](auto& from) {
        auto d = from.try_receive();
        if (d) { d->ack(); }
        return d.has_value();
    };
    CHECK(take_one(q));
    CHECK(take_one(s));
    CHECK(take_one(q));
    CHECK(take_one(s));
    CHECK_FALSE(b.done());
    CHECK(take_one(r2));
    CHECK(b.finishes());
    CHECK(take(q) == ints{2, 10, 11, 12});
    CHECK(take(s).size() == 4);
    CHECK(take(r).size() == 1);
    CHECK(take(r2).size() == 1);
    CHECK(budget.used() == 0);
}

TEST_CASE_TEMPLATE("transaction: what it acknowledges makes room for what it sends to the same queue", Where, EVERYWHERE) {
    Where w;
    SUBCASE("messages") {
        auto q = w.make_queue("q", {.max_messages = 2, .overflow = overflow::reject});
        q.send(1);
        q.send(2);
        for (int round = 0; round < 5; ++round) {
            auto a = q.try_receive(), b = q.try_receive();
            auto tx = w.begin();
            CHECK(tx.ack(*a));
            CHECK(tx.ack(*b));
            tx.send(q, **a + 10);
            tx.send(q, **b + 10);
            tx.commit();
            CHECK(q.statistics().ready == 2);
            CHECK(q.try_send(0).error() == errc::full);
        }
        CHECK(take(q) == ints{51, 52});
        CHECK(q.try_send(1));
        CHECK(q.try_send(2));
        CHECK(q.try_send(3).error() == errc::full);
    }
    SUBCASE("one more than it acknowledges is one too many, and rolled back it frees nothing") {
        auto q = w.make_queue("q", {.max_messages = 3, .overflow = overflow::reject});
        for (int i = 0; i < 3; ++i) { q.send(i); }
        auto d = q.try_receive();
        {
            auto tx = w.begin();
            CHECK(tx.ack(*d));
            tx.send(q, 7);
            tx.send(q, 8);
            CHECK(error_of([&] { tx.commit(); }) == errc::full);
        }
        CHECK(q.try_send(9).error() == errc::full);
        CHECK(d->ack());
        CHECK(q.try_send(9));
        CHECK(q.try_send(10).error() == errc::full);
    }
    SUBCASE("bytes") {
        mailroom::memory_budget budget(4000);
        auto q = w.template make_queue<std::string>("q", {.max_bytes = 1500, .budget = &budget, .overflow = overflow::reject});
        q.send(std::string(1000, 'a'));
        const auto full = budget.used();
        for (const std::size_t size : {900u, 1200u, 700u}) {
            auto d = q.try_receive();
            auto tx = w.begin();
            CHECK(tx.ack(*d));
            tx.send(q, std::string(size, 'b'));
            tx.commit();
            CHECK(budget.used() == full - 1000 + size);
            CHECK(q.statistics().bytes == budget.used());
        }
        auto d = q.try_receive();
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.send(q, std::string(1490, 'c'));
        CHECK(error_of([&] { tx.commit(); }) == errc::too_large); // it could never fit
        CHECK(d->ack());
        CHECK(budget.used() == 0);
    }
}

TEST_CASE_TEMPLATE("transaction: commit waits for room until it is told to stop, or the time is over", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q", {.max_messages = 1});
    auto in = w.make_queue("in");
    q.send(1);
    in.send(5);
    auto d = in.try_receive();
    {
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.send(q, 2);
        CHECK(tx.commit_for(0s).error() == errc::timed_out);
        CHECK_FALSE(tx.is_open());
    }
    mailroom::stop_source stop;
    {
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.send(q, 2);
        errc what{};
        const support::blocked b([&] { what = error_of([&] { tx.commit(stop.get_token()); }); });
        stop.request_stop();
        CHECK(b.finishes());
        CHECK(what == errc::full);
    }
    CHECK(q.try_pop()->body() == 1);
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    tx.send(q, 2);
    CHECK(tx.commit_for(1h));
    CHECK(take(q) == ints{2});
    CHECK_FALSE(in.try_receive());
}

TEST_CASE_TEMPLATE("transaction: who waits for room in a budget waits for no more than he does not free himself", Where, EVERYWHERE) {
    Where w;
    mailroom::memory_budget budget(10 * sizeof(int));
    auto q = w.make_queue("q", {.budget = &budget});
    for (int i = 0; i < 10; ++i) { q.send(i); }
    auto tx = w.begin();
    for (int i = 0; i < 6; ++i) { CHECK(tx.ack(*q.try_receive())); }
    for (int i = 0; i < 8; ++i) { tx.send(q, 10 + i); }
    mailroom::stop_source stop;
    errc what{};
    {
        const support::blocked b([&] { what = error_of([&] { tx.commit(stop.get_token()); }); });
        w.clock.await_parked(1);
        CHECK(q.try_pop()->body() == 6);
        CHECK(q.try_pop()->body() == 7);
        CHECK(b.finishes());
        stop.request_stop(); // should it wait still
    }
    CHECK(what == errc{});
    CHECK(budget.used() == 10 * sizeof(int));
    CHECK(take(q) == ints{8, 9, 10, 11, 12, 13, 14, 15, 16, 17});
    CHECK(budget.used() == 0);
}

TEST_CASE_TEMPLATE("transaction: what is purged while it waits for room is lost, and frees none", Where, EVERYWHERE) {
    Where w;
    auto in = w.make_queue("in", {.max_messages = 1});
    auto q = w.make_queue("q", {.max_messages = 1});
    in.send(1);
    q.send(1);
    auto tx = w.begin();
    CHECK(tx.ack(*in.try_receive()));
    tx.send(in, 2);
    tx.send(q, 2);
    errc what{};
    {
        const support::blocked b([&] { what = error_of([&] { tx.commit(); }); });
        w.clock.await_parked(1);
        CHECK(in.purge() == 1);
        in.send(3);
        CHECK(q.try_pop()->body() == 1);
        CHECK(b.finishes());
    }
    CHECK(what == errc::not_found);
    CHECK(tx.has_lost_delivery());
    CHECK(take(in) == ints{3});
    CHECK_FALSE(q.try_receive());
}

TEST_CASE_TEMPLATE("transaction: who waits for room is told that the queue is closed", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q", {.max_messages = 1});
    q.send(1);
    auto tx = w.begin();
    tx.send(q, 2);
    errc what{};
    {
        const support::blocked b([&] { what = error_of([&] { tx.commit(); }); });
        q.close();
        CHECK(b.finishes());
    }
    CHECK(what == errc::closed);
}

TEST_CASE_TEMPLATE("transaction: what is refused is not added, and the rest goes on", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q", {.validate = [](const int& i, const mailroom::properties&) { return i < 100; }});
    auto text = w.template make_queue<std::string>("text");
    auto tx = w.begin({.max_bytes = 40 << 10, .max_steps = 5});
    CHECK(error_of([&] { tx.send(q, 100); }) == errc::rejected);
    CHECK(error_of([&] { tx.send(q, 1, {.priority = 11}); }) == errc::invalid);
    CHECK(error_of([&] { tx.send(q, 1, {.delay = -1s}); }) == errc::invalid);
    CHECK(error_of([&] { tx.send(text, std::string(41 << 10, 'x')); }) == errc::too_large);
    CHECK(tx.size() == 0);
    tx.send(q, 1);
    for (int i = 0; i < 4; ++i) { tx.send(q, i); }
    CHECK(error_of([&] { tx.send(q, 9); }) == errc::too_large);
    q.send(50);
    auto d = q.try_receive();
    CHECK(error_of([&] { tx.ack(*d); }) == errc::too_large);
    CHECK(d->ack());
    tx.commit();
    CHECK(take(q) == ints{1, 0, 1, 2, 3});
    CHECK_FALSE(text.try_receive());
    CHECK(error_of([&] { w.begin({.lease = 0s}); }) == errc::invalid);
    CHECK(error_of([&] { w.begin({.max_bytes = 0}); }) == errc::invalid);
    CHECK(error_of([&] { w.begin({.max_steps = 0}); }) == errc::invalid);
}

TEST_CASE_TEMPLATE("transaction: an endpoint of which a message was refused is no part of it", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q");
    auto other = w.make_queue("other");
    auto gone = std::make_unique<decltype(w.make_queue("gone"))>(w.make_queue("gone"));
    auto tx = w.begin({.max_steps = 2});
    tx.send(q, 1);
    tx.send(q, 2);
    CHECK(error_of([&] { tx.send(other, 3); }) == errc::too_large);
    CHECK(error_of([&] { tx.send(*gone, 3); }) == errc::too_large);
    CHECK(tx.size() == 2);
    other.close();
    gone.reset();
    tx.commit();
    CHECK(take(q) == ints{1, 2});
}

TEST_CASE_TEMPLATE("transaction: a delivery that was lost is no step of it", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q");
    q.send(1);
    auto d = q.try_receive();
    REQUIRE(d->ack());
    auto tx = w.begin({.max_steps = 1});
    CHECK_FALSE(tx.ack(*d));
    CHECK(tx.size() == 0);
    CHECK(error_of([&] { tx.commit(); }) == errc::not_found);
}

TEST_CASE("transaction: a journal takes half a segment at once") {
    in_journal w;
    auto q = w.make_queue<std::string>("q");
    auto tx = w.begin();
    for (int i = 0; i < 3; ++i) { tx.send(q, std::string(10000, 'x')); }
    CHECK(error_of([&] { tx.send(q, std::string(10000, 'x')); }) == errc::too_large);
    tx.commit();
    CHECK(take(q).size() == 3);
    auto numbers = w.make_queue("numbers");
    auto many = w.begin();
    for (int i = 0; i < 2000; ++i) { many.send(numbers, i); } // little by themselves, too much with all that goes with them
    CHECK(error_of([&] { many.commit(); }) == errc::too_large);
    CHECK_FALSE(numbers.try_receive());
    q.send("y");
    CHECK(take(q).size() == 1);
}

TEST_CASE("transaction: endpoints that are elsewhere are refused") {
    in_journal one, two;
    in_memory none;
    auto there = one.make_queue("q");
    auto topic = one.make_topic("t");
    auto subscription = topic.subscribe();
    auto elsewhere = two.make_queue("q");
    auto memory = none.make_queue("q");
    there.send(1);
    topic.publish(1);
    elsewhere.send(2);
    memory.send(3);
    auto d = there.try_receive();
    auto e = elsewhere.try_receive();
    auto m = memory.try_receive();
    auto s = subscription.try_receive();
    auto stored = one.begin();
    auto transient = none.begin();
    CHECK(error_of([&] { stored.send(elsewhere, 1); }) == errc::unsupported);
    CHECK(error_of([&] { stored.send(memory, 1); }) == errc::unsupported);
    CHECK(error_of([&] { stored.ack(*e); }) == errc::unsupported);
    CHECK(error_of([&] { stored.ack(*m); }) == errc::unsupported);
    CHECK(error_of([&] { transient.send(there, 1); }) == errc::unsupported);
    CHECK(error_of([&] { transient.publish(topic, 1); }) == errc::unsupported);
    CHECK(error_of([&] { transient.ack(*d); }) == errc::unsupported);
    CHECK(error_of([&] { transient.ack(*s); }) == errc::unsupported);
    CHECK(stored.size() == 0);
    CHECK(transient.size() == 0);
    CHECK(stored.ack(*d));
    CHECK(stored.ack(*s));
    stored.send(there, 5);
    CHECK(transient.ack(*m));
    transient.send(memory, 6);
    stored.commit();
    transient.commit();
    CHECK(take(there) == ints{5});
    CHECK(take(memory) == ints{6});
    CHECK(e->ack());
}

// ---------------------------------------------------------------------------------------------------------------------------------------- duplicates

TEST_CASE_TEMPLATE("transaction: duplicates are left out, also of its own", Where, EVERYWHERE) {
    Where w;
    for (const bool by_window : {true, false}) {
        const std::string n = by_window ? "w" : "s";
        const mailroom::deduplication how{.window = by_window ? mailroom::duration(1h) : mailroom::duration::zero(), .until_settled = !by_window};
        auto q = w.make_queue("q" + n, {.deduplicate = how});
        auto other = w.make_queue("other" + n, {.deduplicate = how});
        auto t = w.make_topic("t" + n, {.partitions = 4, .deduplicate = how});
        auto s = t.subscribe("s");
        q.send(1, {.id = "a"});
        auto tx = w.begin();
        tx.send(q, 2, {.id = "a"}); // known
        tx.send(q, 3, {.id = "b"});
        tx.send(other, 4, {.id = "b"}); // another's
        tx.send(q, 5, {.id = "b"});     // its own
        tx.send(q, 6, {.id = "c"});
        for (int i = 0; i < 4; ++i) { tx.publish(t, 10 + i, {.id = "x"}); } // in whatever partition
        q.send(7, {.id = "c"});                                             // meanwhile
        tx.commit();
        CHECK(q.try_send(8, {.id = "b"}).has_value());
        CHECK(t.try_publish(8, {.id = "x"}).has_value());
        CHECK(q.statistics().duplicates == 4);
        CHECK(t.statistics().duplicates == 4);
        CHECK(take(q) == ints{1, 7, 3});
        CHECK(take(other) == ints{4});
        CHECK(take(s) == ints{10});
        auto back = w.begin();
        back.send(q, 1, {.id = "new"});
        back.rollback();
        auto twice = w.begin();
        twice.send(q, 2, {.id = "new"});
        twice.commit();
        CHECK(take(q) == ints{2});
    }
}

TEST_CASE_TEMPLATE("transaction: where all are duplicates there is nothing to be full of", Where, EVERYWHERE) {
    Where w;
    auto q = w.make_queue("q", {.max_messages = 1, .overflow = overflow::reject, .deduplicate = {.window = 1h}});
    q.send(1, {.id = "a"});
    auto tx = w.begin();
    tx.send(q, 2, {.id = "a"});
    tx.commit();
    CHECK(take(q) == ints{1});
    auto fails = w.begin();
    auto closed = w.make_queue("closed");
    fails.send(q, 3, {.id = "b"});
    fails.send(closed, 3);
    closed.close();
    CHECK(error_of([&] { fails.commit(); }) == errc::closed);
    auto works = w.begin();
    works.send(q, 4, {.id = "b"}); // it was never sent
    works.commit();
    CHECK(take(q) == ints{4});
}

// ---------------------------------------------------------------------------------------------------------------------------------------- what fails

TEST_CASE_TEMPLATE("transaction: a disk that fails at commit: nothing has happened, and later it works", Where, in_journal, in_journal_write) {
    for (int what = 0; what < 2; ++what) {
        Where w;
        auto in = w.make_queue("in", {.retry = {.initial = 0s}});
        auto out = w.make_queue("out", {.max_messages = 2, .overflow = overflow::reject, .deduplicate = {.window = 1h}});
        auto t = w.make_topic("t", {.max_messages = 2, .overflow = overflow::reject});
        auto s = t.subscribe("s");
        in.send(1);
        auto d = in.try_receive();
        auto tx = w.begin();
        CHECK(tx.ack(*d));
        tx.send(out, 1, {.id = "a"});
        tx.send(out, 2, {.id = "b"});
        tx.publish(t, 3);
        tx.publish(t, 4);
        if (what == 0) {
            w.disk.fail_write(0, std::make_error_code(std::errc::no_space_on_device));
        } else {
            w.disk.fail_write(0, std::make_error_code(std::errc::io_error), 100);
        }
        CHECK(error_of([&] { tx.commit(); }) == errc::io);
        CHECK_FALSE(out.try_receive());
        CHECK_FALSE(s.try_receive());
        CHECK(in.statistics().acked == 0);
        CHECK(**d == 1);
        auto again = w.begin();
        CHECK(again.ack(*d));
        again.send(out, 5, {.id = "a"});
        again.send(out, 6, {.id = "b"});
        again.publish(t, 7);
        again.publish(t, 8);
        again.commit();
        CHECK(take(out) == ints{5, 6});
        CHECK(take(s) == ints{7, 8});
        CHECK(in.statistics().acked == 1);
    }
}

TEST_CASE("transaction: a sync that fails: nothing of it is delivered any more") {
    in_journal w;
    auto in = w.make_queue("in", {.retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    in.send(1);
    auto d = in.try_receive();
    auto tx = w.begin();
    CHECK(tx.ack(*d));
    tx.send(out, 1);
    w.disk.fail_sync(0, std::make_error_code(std::errc::io_error));
    CHECK(error_of([&] { tx.commit(); }) == errc::io);
    CHECK_FALSE(out.try_receive());
    CHECK(**d == 1);
    auto again = w.begin();
    CHECK(again.ack(*d));
    CHECK(error_of([&] { again.commit(); }) == errc::io); // a journal whose sync failed writes nothing any more
    CHECK(d->release());
}

TEST_CASE("transaction: transact commits, goes on after a lost lease, and passes on what is thrown") {
    in_journal w;
    auto in = w.make_queue("in", {.lease = 10s, .retry = {.initial = 0s}});
    auto out = w.make_queue("out");
    in.send(1);
    int calls = 0;
    const int got = mailroom::transact(*w.journal, [&](transaction& tx) {
        auto d = in.try_receive();
        REQUIRE(d);
        tx.send(out, ++calls);
        CHECK(tx.ack(*d));
        if (calls < 3) {
            w.clock.advance(10min);
            auto thief = in.try_receive();
            REQUIRE(thief);
        }
        return calls * 10;
    });
    CHECK(got == 30);
    CHECK(calls == 3);
    CHECK(take(out) == ints{3});
    CHECK(in.statistics().acked == 1);

    CHECK_THROWS_AS(mailroom::transact(*w.journal,
                                       [&](transaction& tx) {
                                           tx.send(out, 1);
                                           throw std::runtime_error("no");
                                       }),
                    std::runtime_error);
    mailroom::transact(*w.journal, [&](transaction& tx) {
        tx.send(out, 2);
        tx.rollback();
    });
    mailroom::transact(*w.journal, [&](transaction& tx) {
        tx.send(out, 3);
        tx.commit();
    });
    CHECK(take(out) == ints{3});
    calls = 0;
    in.send(1);
    const auto always_lost = [&](transaction& tx) {
        ++calls;
        auto d = in.try_receive();
        REQUIRE(d);
        CHECK(tx.ack(*d));
        in.purge();
        in.send(1);
    };
    CHECK(error_of([&] { mailroom::transact(*w.journal, always_lost, 4); }) == errc::not_found);
    CHECK(calls == 4);
}
TEST_CASE("transaction: transact over endpoints in memory goes on after a lost lease as well") {
    mailroom::testing::manual_clock clock;
    mailroom::queue<int> in({.lease = 10s, .retry = {.initial = 0s}, .clock = &clock}), out;
    in.send(1);
    int calls = 0;
    mailroom::transact([&](transaction& tx) {
        auto d = in.try_receive();
        REQUIRE(d);
        tx.send(out, ++calls);
        CHECK(tx.ack(*d));
        if (calls == 1) {
            clock.advance(10min);
            auto thief = in.try_receive();
            REQUIRE(thief);
        }
    });
    CHECK(calls == 2);
    CHECK(take(out) == ints{2});
    CHECK(in.statistics().acked == 1);
}

TEST_CASE_TEMPLATE("transaction: it is there after a restart as it was before", Where, in_journal, in_journal_write, in_journal_none) {
    Where w;
    {
        auto in = w.make_queue("in");
        auto out = w.make_queue("out");
        auto t = w.make_topic("t");
        auto s = t.subscribe("s");
        for (int i = 0; i < 10; ++i) { in.send(i); }
        for (int i = 0; i < 5; ++i) {
            auto tx = w.begin();
            for (int k = 0; k < 2; ++k) { CHECK(tx.ack(std::move(*in.try_receive()))); }
            tx.send(out, i);
            tx.publish(t, i);
            if (i % 2 == 0) { tx.commit(); }
        }
    }
    w.journal.reset();
    w.open();
    auto in = w.make_queue("in");
    auto out = w.make_queue("out");
    auto t = w.make_topic("t");
    auto s = t.subscribe("s");
    w.clock.advance(1h);
    ints left = take(in);
    CHECK(left.size() == 4);
    CHECK(take(out) == ints{0, 2, 4});
    CHECK(take(s) == ints{0, 2, 4});
    CHECK(in.statistics().acked == 10);
    CHECK(w.journal->verify().intact);
}
