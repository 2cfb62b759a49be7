#include <mailroom/dead_letters.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include "support/tracked.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace std::chrono_literals;
using mailroom::dead_letter;
using mailroom::queue;
using mailroom::testing::manual_clock;
using support::tracked;

namespace {

// A queue with messages 0 .. count-1 among its dead.
template <class T>
void bury(queue<T>& q, int count) {
    for (int i = 0; i < count; ++i) {
        q.send(support::body_of<T>::make(i));
        q.try_receive()->reject("reason " + std::to_string(i));
    }
}
std::vector<int> dead_bodies(queue<int>& q) {
    std::vector<dead_letter<int>> held;
    std::vector<int> bodies;
    while (auto letter = q.dead().try_receive()) {
        bodies.push_back(letter->body());
        held.push_back(std::move(*letter));
    }
    return bodies;
}

} // namespace

TEST_CASE("dead letters: know why, how often and when") {
    manual_clock clock;
    queue<int> q({.retry = {.max_attempts = 3, .initial = 1s}, .clock = &clock});
    const auto start = clock.wall();
    q.send(7, {.key = "k"});
    for (int i = 0; i < 3; ++i) {
        q.try_receive()->nack();
        clock.advance(10s);
    }
    auto letter = q.dead().try_receive();
    REQUIRE(letter);
    CHECK(letter->body() == 7);
    CHECK(letter->props().key == "k");
    CHECK(letter->offset() == 0);
    CHECK(letter->timestamp() == start);
    CHECK(letter->reason() == "attempts exhausted");
    CHECK(letter->attempts() == 3);
    CHECK(letter->attempt() == 3);
    CHECK(letter->first_failure() == start);
    CHECK(letter->last_failure() == start + 20s);
}

TEST_CASE("dead letters: each way to die has its reason") {
    manual_clock clock;
    queue<int> q({.lease = 1s, .retry = {.max_attempts = 1}, .clock = &clock});
    const auto reason = [&] {
        auto letter = q.dead().try_receive();
        REQUIRE(letter);
        const std::string r = letter->reason();
        CHECK(letter->first_failure() == clock.wall());
        CHECK(letter->last_failure() == clock.wall());
        CHECK(letter->ack());
        return r;
    };
    q.send(1);
    q.try_receive()->reject();
    CHECK(reason() == "rejected");
    q.send(1);
    q.try_receive()->reject("its own, long enough to be on the heap");
    CHECK(reason() == "its own, long enough to be on the heap");
    q.send(1);
    q.try_receive()->nack();
    CHECK(reason() == "attempts exhausted");
    q.send(1);
    auto d = q.try_receive();
    clock.advance(1s);
    CHECK(reason() == "attempts exhausted: lease expired");
    CHECK(!d->ack());
    q.send(1, {.time_to_live = 1s});
    clock.advance(1s);
    CHECK(reason() == "time to live over");
    CHECK(q.dead().size() == 0);
}

TEST_CASE("dead letters: ack ends one; every other verb, and the destructor, puts it back") {
    queue<int> q;
    bury(q, 3);
    CHECK(q.dead().size() == 3);
    bool (*const verbs[])(dead_letter<int>&) = {[](dead_letter<int>& l) { return l.nack(); }, [](dead_letter<int>& l) { return l.nack(1h); },
                                                [](dead_letter<int>& l) { return l.release(); },
                                                [](dead_letter<int>& l) { return l.reject("again"); }};
    for (auto* verb : verbs) {
        auto letter = q.dead().try_receive();
        CHECK(letter->body() == 0); // the first again
        CHECK(letter->extend(1s));
        CHECK(verb(*letter));
        CHECK(!letter->ack());
        CHECK(q.dead().size() == 3);
    }
    { auto letter = q.dead().try_receive(); }
    CHECK(q.dead().try_receive()->reason() == "reason 0");
    CHECK(q.dead().try_receive()->ack());
    CHECK(dead_bodies(q) == std::vector{1, 2});
    const auto s = q.statistics();
    CHECK(s.acked == 1);
    CHECK(s.dead == 2);
}

TEST_CASE("dead letters: held ones are given to nobody else, and count") {
    queue<int> q;
    bury(q, 3);
    auto first = q.dead().try_receive();
    auto second = q.dead().try_receive();
    auto third = q.dead().try_receive();
    CHECK(third->body() == 2);
    CHECK(!q.dead().try_receive());
    CHECK(q.dead().size() == 3);
    CHECK(q.dead().redrive(5) == 0);
    CHECK(q.dead().purge() == 0);
    CHECK(q.dead().redrive_if([](const int&) { return true; }) == 0);
    second.reset();
    CHECK(q.dead().try_receive()->body() == 1);
    CHECK(first->ack());
    CHECK(third->ack());
    CHECK(q.dead().size() == 1);
}

TEST_CASE("redrive: the first n live again at their own places, attempts from 1") {
    manual_clock clock;
    queue<int> q({.retry = {.max_attempts = 2, .initial = 0s}, .time_to_live = 1h, .clock = &clock});
    bury(q, 4);
    q.send(4);
    clock.advance(30min);
    CHECK(q.dead().redrive(0) == 0);
    CHECK(q.dead().redrive(2) == 2);
    CHECK(q.dead().redrive(100) == 2);
    CHECK(q.dead().size() == 0);
    for (int i = 0; i < 4; ++i) { // before what was sent later
        auto d = q.try_receive();
        CHECK(d->body() == i);
        CHECK(d->attempt() == 1);
        CHECK(d->ack());
    }
    bury(q, 1);
    q.dead().redrive(1);
    q.try_receive()->ack();
    CHECK(q.try_receive()->nack());
    CHECK(q.statistics().ready == 1);
    CHECK(q.statistics().acked == 5);
}

TEST_CASE("redrive: a message that lives again has its whole time to live again") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    q.send(1, {.delay = 1s, .time_to_live = 10s});
    clock.advance(10s);
    CHECK(q.dead().redrive(1) == 1);
    clock.advance(9s);
    CHECK(q.statistics().ready == 1);
    clock.advance(1s);
    CHECK(q.dead().size() == 1);
}

TEST_CASE("redrive: a key's order holds for what lives again") {
    queue<int> q({.ordered_by_key = true});
    q.send(0, {.key = "a"});
    q.send(1, {.key = "a"});
    q.try_receive()->reject();
    auto later = q.try_receive();
    CHECK(later->body() == 1);
    CHECK(q.dead().redrive(1) == 1);
    CHECK(!q.try_receive()); // its key is taken
    CHECK(later->release());
    CHECK(q.try_receive()->ack());
    CHECK(q.statistics().acked == 1);
    CHECK(q.try_receive()->offset() == 1);
}

TEST_CASE("redrive: who holds the next of a key may renew a lapsed lease, until what lives again is handed out") {
    manual_clock clock;
    for (const bool handed_out : {false, true}) {
        queue<int> q({.lease = 2s, .ordered_by_key = true, .clock = &clock});
        q.send(0, {.key = "a"});
        q.send(1, {.key = "a"});
        q.try_receive()->reject();
        auto later = q.try_receive();
        clock.advance(3s); // its lease has run out, and nobody has been given it since
        CHECK(q.dead().redrive(1) == 1);
        std::optional<mailroom::delivery<int>> first;
        if (handed_out) { first = q.try_receive(); }
        CHECK(later->extend(10s) == !handed_out);
        CHECK(!q.try_receive()); // one of them is out
        if (first) { CHECK(first->ack()); }
        if (!handed_out) { CHECK(later->ack()); }
        CHECK(q.try_receive()->body() == (handed_out ? 1 : 0));
    }
}

TEST_CASE("redrive_if: by letter or by body; only those") {
    queue<int> q;
    bury(q, 6);
    CHECK(q.dead().redrive_if([](const dead_letter<int>& l) { return l.reason() == "reason 4"; }) == 1);
    CHECK(q.dead().redrive_if([](int body) { return body < 2; }) == 2);
    CHECK(q.dead().redrive_if([](const auto& l) { return l.attempts() > 1; }) == 0);
    CHECK(dead_bodies(q) == std::vector{2, 3, 5});
    CHECK(q.try_pop()->body() == 0);
    CHECK(q.try_pop()->body() == 1);
    CHECK(q.try_pop()->body() == 4);
    CHECK(!q.try_pop());
}

TEST_CASE("purge: ends all that nobody holds; they count as dropped") {
    const long live = tracked::live();
    queue<tracked> q;
    bury(q, 5);
    auto held = q.dead().try_receive();
    CHECK(q.dead().purge() == 4);
    CHECK(tracked::live() == live + 1);
    CHECK(q.dead().size() == 1);
    CHECK(q.statistics().dropped == 4);
    CHECK(held->body().value() == 0);
    CHECK(held->ack());
    CHECK(tracked::live() == live);
    CHECK(q.purge() == 0);
}

TEST_CASE("max_dead: the oldest are dropped, counted; not those in somebody's hands") {
    const long live = tracked::live();
    queue<tracked> q({.max_dead = 2});
    bury(q, 2);
    auto held = q.dead().try_receive();
    bury(q, 2);
    CHECK(q.statistics().dropped == 2);
    CHECK(held->body().value() == 0);
    CHECK(q.dead().size() == 2);
    CHECK(tracked::live() == live + 2);
    held.reset();
    CHECK(q.dead().try_receive()->body().value() == 0);
    bury(q, 1);
    CHECK(q.statistics().dropped == 3);
    CHECK(q.dead().size() == 2);
    const auto s = q.statistics();
    CHECK(s.sent == s.acked + s.dead + s.dropped);
}

TEST_CASE("receive_for: waits for one to die, until its time is up") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    const auto wait = [&](mailroom::duration limit, bool expected) {
        return std::thread([&q, limit, expected] { CHECK(q.dead().receive_for(limit).has_value() == expected); });
    };
    std::thread a = wait(5s, false);
    clock.await_parked(1);
    clock.advance(5s);
    a.join();
    std::thread b = wait(5s, true);
    clock.await_parked(1);
    bury(q, 1);
    b.join();
    CHECK(q.dead().size() == 1);
    CHECK(q.dead().try_receive()->ack());
    q.send(1, {.time_to_live = 3s});
    std::thread c = wait(mailroom::duration::max(), true); // dies of time alone
    clock.await_parked(1);
    clock.advance(3s);
    c.join();
    CHECK(q.dead().receive_for(-1s)->ack());
    CHECK(!q.dead().receive_for(0s));
}

TEST_CASE("dead letter: is a delivery, and may outlive its queue") {
    static_assert(std::is_base_of_v<mailroom::delivery<int>, dead_letter<int>>);
    static_assert(std::is_nothrow_move_constructible_v<dead_letter<int>> && !std::is_copy_constructible_v<dead_letter<int>>);
    const long live = tracked::live(), faults = tracked::faults();
    {
        std::optional<dead_letter<tracked>> letter;
        std::optional<mailroom::delivery<tracked>> plain;
        {
            queue<tracked> q;
            bury(q, 2);
            letter = q.dead().try_receive();
            plain = q.dead().try_receive();
        }
        CHECK(letter->body().value() == 0);
        CHECK(plain->body().value() == 1);
        dead_letter<tracked> moved = std::move(*letter);
        CHECK(moved.reason() == "reason 0");
        CHECK(!letter->ack());
        CHECK(!moved.ack());
        CHECK(!plain->nack());
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}
