// What a tap adds to the cursor: bodies that stay in the log, filters asked without a lock, holes.
#include <mailroom/store/tap.hpp>

#include "support/tracked.hpp"

#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using mailroom::properties;
using mailroom::start;
using support::tracked;

TEST_CASE("tap: what expires before its filter was asked is asked about before it is buried") {
    mailroom::testing::manual_clock clock;
    mailroom::topic<int> t({.clock = &clock});
    int asked = 0;
    auto s = t.subscribe("s", {.mode = mailroom::sharing::keyed, .filter = [&asked](int v, const properties&) {
                                   ++asked;
                                   return v % 2 == 0;
                               }});
    for (int i = 0; i < 10; ++i) { t.publish(i, {.time_to_live = 5s}); }
    clock.advance(10s);
    CHECK(s.statistics().dead == 5);
    CHECK(s.statistics().filtered == 5);
    CHECK(asked == 10);
    CHECK(s.lag() == 0);
}

TEST_CASE("tap: a seek while the filter is asked about what has expired leaves nothing of it behind") {
    mailroom::testing::manual_clock clock;
    mailroom::topic<tracked> t({.retention = {.messages = 100}, .clock = &clock});
    std::optional<mailroom::subscription<tracked>> s;
    bool sought = false;
    s.emplace(t.subscribe("s", {.mode = mailroom::sharing::keyed, .filter = [&](const tracked&, const properties&) {
                                    if (!std::exchange(sought, true)) { s->seek(start::earliest); }
                                    return true;
                                }}));
    for (int i = 0; i < 5; ++i) { t.publish(tracked(i), {.key = "k", .time_to_live = 5s}); }
    clock.advance(10s); // they expire, the filter is asked about each, and moves the subscription at the first
    CHECK(sought);
    CHECK(s->statistics().dead == 5); // read again, they have expired again
    CHECK(s->dead().purge() == 5);
    CHECK(s->lag() == 0);
    s.reset();
}

TEST_CASE("tap: what one subscription is stuck at is read again after others let go of what came later") {
    mailroom::topic<int> t;
    auto s = t.subscribe("s");
    for (int i = 0; i < 200; ++i) { t.publish(i); }
    std::vector<mailroom::delivery<int>> held;
    REQUIRE(s.receive_many(held, 200) == 200);
    for (std::size_t i = 1; i < held.size(); ++i) { CHECK(held[i].ack()); }
    for (int i = 200; i < 300; ++i) { t.publish(i); }
    s.seek(start::earliest);
    CHECK(!held[0].ack());
    CHECK(t.first_offset() == 0);
    int first = -1, count = 0;
    s.pop_each(
        [&](int v) {
            if (count++ == 0) { first = v; }
        },
        1000);
    CHECK(first == 0);
    CHECK(count == 101); // that one, and what nobody had settled
}

TEST_CASE("tap: pop_each gives what its function threw at to nobody, and the rest again") {
    mailroom::topic<int> t;
    auto s = t.subscribe("s");
    for (int i = 0; i < 100; ++i) { t.publish(i); }
    int seen = 0;
    CHECK_THROWS_AS(s.pop_each(
                        [&](int v) {
                            if (++seen == 7) { throw v; }
                        },
                        50),
                    int);
    CHECK(seen == 7);
    CHECK(s.lag() == 93);
    int next = 7;
    CHECK(s.pop_each([&](int v) { CHECK(v == next++); }, 1000) == 93);
    CHECK(s.lag() == 0);
}

TEST_CASE("tap: the function of pop_each may do anything to its subscription") {
    std::optional<mailroom::topic<int>> t(std::in_place);
    auto s = t->subscribe("s");
    for (int i = 0; i < 100; ++i) { t->publish(i); }
    int seen = 0;
    s.pop_each(
        [&](int v) {
            if (++seen == 3) { s.seek(start::latest); } // the batch it is in goes on
            if (v == 5) { t->publish(100); }
            if (v == 10) { t.reset(); }
        },
        20);
    CHECK(seen == 20);
    CHECK(!s.try_pop());
}
