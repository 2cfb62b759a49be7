// What can be received from, whatever it is: the same cases over a queue and over subscriptions of every mode. Time is a manual_clock's.
#include "support/blocked.hpp"
#include "support/coroutines.hpp"
#include "support/eventually.hpp"
#include "support/stored.hpp"
#include "support/tracked.hpp"

#include <mailroom/mailroom.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::consume_options;
using mailroom::consumer;
using mailroom::delivery;
using mailroom::duration;
using mailroom::message;
using mailroom::properties;
using mailroom::queue;
using mailroom::sharing;
using mailroom::subscription;
using mailroom::topic;
using mailroom::testing::manual_clock;
using support::tracked;
using support::blocked;
using support::task;

namespace {

struct settings {
    duration lease = 30s;
    mailroom::retry_policy retry = mailroom::retry_policy();
    std::size_t max_in_flight = 0;
};

/// What the cases are written for: `from()` is received from; `send` keeps the order, `spread` goes wherever a message may go.
template <class Queue>
class in_any_queue {
public:
    in_any_queue(manual_clock& clock, const settings& s)
        : queue_({.lease = s.lease, .retry = s.retry, .max_in_flight = s.max_in_flight, .clock = &clock}) {}
    Queue& from() { return queue_; }
    void send(int v, properties p = properties()) { queue_.send(tracked(v), std::move(p)); }
    void spread(int v) { queue_.send(v); }
    void close() { queue_.close(); }
    bool drain(duration limit) { return queue_.drain(limit); }

private:
    Queue queue_;
};
using in_queue = in_any_queue<queue<tracked>>;
using in_stored_queue = in_any_queue<support::stored_queue<tracked>>;

template <sharing Mode, int Partitions, class Topic = topic<tracked>>
class in_subscription {
public:
    in_subscription(manual_clock& clock, const settings& s)
        : topic_({.partitions = Partitions, .clock = &clock}),
          subscription_(topic_.subscribe("s", {.mode = Mode, .lease = s.lease, .retry = s.retry, .max_in_flight = s.max_in_flight})) {}
    subscription<tracked>& from() { return subscription_; }
    void send(int v, properties p = properties()) {
        if (Partitions > 1) { p.key = "one"; }
        topic_.publish(tracked(v), std::move(p));
    }
    void spread(int v) { topic_.publish(v); }
    void close() { topic_.close(); }
    bool drain(duration limit) { return topic_.drain(limit); }

private:
    Topic topic_;
    subscription<tracked> subscription_;
};
class in_ephemeral {
public:
    in_ephemeral(manual_clock& clock, const settings& s)
        : topic_({.clock = &clock}), subscription_(topic_.subscribe({.lease = s.lease, .retry = s.retry, .max_in_flight = s.max_in_flight})) {}
    subscription<tracked>& from() { return subscription_; }
    void send(int v, properties p = properties()) { topic_.publish(tracked(v), std::move(p)); }
    void spread(int v) { topic_.publish(v); }
    void close() { topic_.close(); }
    bool drain(duration limit) { return topic_.drain(limit); }

private:
    topic<tracked> topic_;
    subscription<tracked> subscription_;
};

using exclusive = in_subscription<sharing::exclusive, 1>;
using failover = in_subscription<sharing::failover, 1>;
using shared = in_subscription<sharing::shared, 1>;
using keyed = in_subscription<sharing::keyed, 1>;
using partitioned = in_subscription<sharing::partitioned, 1>;
using shared_of_4 = in_subscription<sharing::shared, 4>;
using stored_shared_of_4 = in_subscription<sharing::shared, 4, support::stored_topic<tracked>>;

/// Whatever a case did: every body has ended once.
class nothing_left {
public:
    ~nothing_left() {
        CHECK(tracked::live() == live_);
        CHECK(tracked::faults() == faults_);
    }

private:
    const long live_ = tracked::live(), faults_ = tracked::faults();
};

template <class From>
std::vector<int> popped(From& from) {
    std::vector<int> all;
    while (auto m = from.try_pop()) { all.push_back(m->body().value()); }
    return all;
}
std::vector<int> numbers(int from, int to) {
    std::vector<int> all(static_cast<std::size_t>(to - from));
    std::iota(all.begin(), all.end(), from);
    return all;
}
constexpr mailroom::retry_policy at_once{.max_attempts = 0, .initial = 0s};

/// What handlers saw.
class record {
public:
    void add(int value) {
        const std::lock_guard lock(mutex_);
        values_.push_back(value);
    }
    std::vector<int> now() const {
        const std::lock_guard lock(mutex_);
        return values_;
    }
    bool comes_to(const std::vector<int>& expected) const {
        return support::eventually([&] { return now() == expected; });
    }

private:
    mutable std::mutex mutex_;
    std::vector<int> values_;
};

} // namespace

TYPE_TO_STRING(in_queue);
TYPE_TO_STRING(exclusive);
TYPE_TO_STRING(failover);
TYPE_TO_STRING(shared);
TYPE_TO_STRING(keyed);
TYPE_TO_STRING(partitioned);
TYPE_TO_STRING(shared_of_4);
TYPE_TO_STRING(in_ephemeral);
#define EVERY_ENDPOINT in_queue, exclusive, failover, shared, keyed, partitioned, shared_of_4, in_ephemeral, in_stored_queue, stored_shared_of_4

// -------------------------------------------------------------------------------------------------------------------------- settling

TEST_CASE_TEMPLATE("contract: a message is received, read, and acknowledged once", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock(1h);
    E e(clock, {});
    auto& from = e.from();
    CHECK(!from.try_receive());
    CHECK(!from.try_pop());
    e.send(7, {.subject = "subject", .headers = {{"h", 1}}});
    const auto sent = clock.wall();
    clock.advance(5s);
    auto d = from.receive();
    REQUIRE(d);
    CHECK(d->body().value() == 7);
    CHECK((**d).value() == 7);
    CHECK((*d)->value() == 7);
    CHECK(d->props().subject == "subject");
    CHECK(d->props().headers.find("h") != nullptr);
    CHECK(d->timestamp() == sent);
    CHECK(d->offset() == 0);
    CHECK(d->attempt() == 1);
    CHECK(!from.try_receive());
    delivery<tracked> moved = std::move(*d);
    d.reset();
    CHECK(from.statistics().in_flight == 1);
    CHECK(moved.ack());
    CHECK(!moved.ack());
    CHECK(!moved.nack());
    CHECK(!moved.nack(0s));
    CHECK(!moved.release());
    CHECK(!moved.reject());
    CHECK(!moved.extend(1h));
    clock.advance(10h);
    CHECK(!from.try_receive());
    CHECK(from.statistics().acked == 1);
    CHECK(from.dead().size() == 0);
    e.send(8);
    CHECK(from.try_receive()->ack_async().wait() == 1);
    CHECK(from.statistics().acked == 2);
}

TEST_CASE_TEMPLATE("contract: in the order of sending", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    for (int i = 0; i < 500; ++i) {
        if (i % 7 == 3) {
            e.send(i, {.subject = "s"});
        } else {
            e.send(i);
        }
    }
    std::vector<delivery<tracked>> held;
    for (int i = 0; i < 500; ++i) {
        if (i % 3 == 0) {
            const auto m = e.from().try_pop();
            REQUIRE(m);
            REQUIRE(m->body().value() == i);
        } else {
            auto d = e.from().try_receive();
            REQUIRE(d);
            REQUIRE((*d)->value() == i);
            REQUIRE(d->offset() == static_cast<mailroom::offset>(i));
            held.push_back(std::move(*d));
        }
    }
    for (const std::size_t step : {7u, 2u, 1u}) { // settled in another order
        for (std::size_t i = 0; i < held.size(); i += step) { held[i].ack(); }
    }
    CHECK(e.from().statistics().acked == 500);
    CHECK(!e.from().try_receive());
}

TEST_CASE_TEMPLATE("contract: nack sends it back after its pause, one attempt on", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    e.send(0);
    e.send(1);
    CHECK(from.try_receive()->nack()); // 100 ms
    CHECK(from.statistics().parked == 1);
    CHECK(from.try_pop()->body().value() == 1); // not held up by it
    CHECK(!from.try_receive());
    clock.advance(100ms - 1ns);
    CHECK(!from.try_receive());
    clock.advance(1ns);
    auto d = from.try_receive();
    REQUIRE(d);
    CHECK(d->attempt() == 2);
    CHECK(d->nack(1h)); // exactly
    clock.advance(1h - 1ns);
    CHECK(!from.try_receive());
    clock.advance(1ns);
    d = from.try_receive();
    REQUIRE(d);
    CHECK(d->attempt() == 3);
    CHECK(d->nack(0s));
    d = from.try_receive();
    CHECK(d->attempt() == 4);
    CHECK(d->nack(-1s));
    d = from.try_receive();
    CHECK(d->attempt() == 5);
    CHECK(d->ack());
    CHECK(from.statistics().redelivered == 4);
}

TEST_CASE_TEMPLATE("contract: a delivery destroyed unsettled is nacked, during unwinding too", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    e.send(0);
    { auto d = from.try_receive(); }
    CHECK(!from.try_receive());
    clock.advance(100ms);
    try {
        auto d = from.try_receive();
        REQUIRE(d);
        CHECK(d->attempt() == 2);
        throw std::runtime_error("a handler's");
    } catch (const std::runtime_error&) {}
    CHECK(!from.try_receive());
    clock.advance(200ms);
    auto d = from.try_receive();
    REQUIRE(d);
    CHECK(d->attempt() == 3);
    e.send(1);
    d = from.try_receive(); // assigned over: nacked
    CHECK((*d)->value() == 1);
    CHECK(from.statistics().parked == 1);
}

TEST_CASE_TEMPLATE("contract: release puts it back to its place at once, its attempt unchanged", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    for (int i = 0; i < 5; ++i) { e.send(i); }
    std::vector<delivery<tracked>> held;
    CHECK(from.receive_many(held, 3) == 3);
    CHECK(held[1].release());
    CHECK(held[0].release());
    for (int i = 0; i < 2; ++i) {
        auto d = from.try_receive();
        REQUIRE(d);
        CHECK((*d)->value() == i);
        CHECK(d->attempt() == 1);
        CHECK(d->ack());
    }
    CHECK(popped(from) == std::vector{3, 4});
    CHECK(held[2].nack(0s));
    auto d = from.try_receive();
    CHECK(d->attempt() == 2);
    CHECK(d->release());
    CHECK(from.try_receive()->attempt() == 2);
}

TEST_CASE_TEMPLATE("contract: reject makes a dead letter at once, with the reason", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock(1min);
    E e(clock, {});
    auto& from = e.from();
    for (int i = 0; i < 4; ++i) { e.send(i, {.subject = "s"}); }
    CHECK(from.try_receive()->reject("not for us"));
    CHECK(from.try_receive()->reject());
    CHECK(popped(from) == std::vector{2, 3});
    auto& dead = from.dead();
    CHECK(dead.size() == 2);
    CHECK(from.statistics().dead == 2);
    {
        auto letter = dead.try_receive();
        REQUIRE(letter);
        CHECK((*letter)->value() == 0);
        CHECK(letter->props().subject == "s");
        CHECK(letter->reason() == "not for us");
        CHECK(letter->attempts() == 1);
        CHECK(letter->last_failure() == clock.wall());
        auto other = dead.try_receive();
        REQUIRE(other);
        CHECK((*other)->value() == 1);
        CHECK(!dead.try_receive());
        CHECK(other->ack());
        CHECK(dead.size() == 1);
    } // put back
    CHECK(dead.size() == 1);
    CHECK(dead.redrive_if([](const tracked& v) { return v.value() == 1; }) == 0);
    CHECK(dead.redrive(5) == 1);
    auto d = from.try_receive();
    REQUIRE(d);
    CHECK(d->attempt() == 1);
    CHECK(d->offset() == 0);
    CHECK(d->reject("again"));
    CHECK(dead.redrive_if([](const mailroom::dead_letter<tracked>& l) { return l.reason() == "again"; }) == 1);
    CHECK(from.try_receive()->reject("and again"));
    CHECK(dead.purge() == 1);
    CHECK(dead.size() == 0);
    CHECK(!from.try_receive());
    const auto s = from.statistics();
    CHECK(s.sent == s.acked + s.ready + s.in_flight + s.parked + s.dead + s.dropped);
}

TEST_CASE_TEMPLATE("contract: retries back off, and after the last attempt it is dead", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.retry = {.max_attempts = 5, .initial = 100ms, .multiplier = 2, .maximum = 300ms}});
    auto& from = e.from();
    e.send(0);
    const auto first = clock.wall();
    std::uint32_t attempt = 0;
    for (const duration pause : {100ms, 200ms, 300ms, 300ms}) {
        auto d = from.try_receive();
        REQUIRE(d);
        CHECK(d->attempt() == ++attempt);
        CHECK(d->nack());
        clock.advance(pause - 1ns);
        CHECK(!from.try_receive());
        clock.advance(1ns);
    }
    CHECK(from.try_receive()->nack());
    clock.advance(1h);
    CHECK(!from.try_receive());
    auto letter = from.dead().try_receive();
    REQUIRE(letter);
    CHECK(letter->attempts() == 5);
    CHECK(!letter->reason().empty());
    CHECK(letter->first_failure() == first);
    CHECK(letter->last_failure() == first + 900ms);
}

TEST_CASE_TEMPLATE("contract: zero attempts are as many as it takes", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.retry = at_once});
    e.send(0);
    for (std::uint32_t i = 1; i <= 300; ++i) {
        auto d = e.from().try_receive();
        REQUIRE(d);
        REQUIRE(d->attempt() == i);
    }
    CHECK(e.from().dead().size() == 0);
}

// ---------------------------------------------------------------------------------------------------------------------------- leases

TEST_CASE_TEMPLATE("contract: a lease that runs out gives it to the next receiver; the late holder changes nothing", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 10s, .retry = {.max_attempts = 2, .initial = 0s}});
    auto& from = e.from();
    e.send(0);
    auto late = from.try_receive();
    clock.advance(10s - 1ns);
    CHECK(!from.try_receive());
    clock.advance(1ns);
    auto d = from.try_receive();
    REQUIRE(d);
    CHECK(d->attempt() == 2);
    CHECK((*late)->value() == 0);
    CHECK(!late->extend(1h));
    CHECK(!late->ack());
    CHECK(from.statistics().in_flight == 1);
    CHECK(d->ack());
    CHECK(from.statistics().acked == 1);

    e.send(1);
    late = from.try_receive();
    clock.advance(10s);
    CHECK(late->ack()); // nobody else has been given it
    CHECK(!from.try_receive());
    CHECK(from.statistics().acked == 2);

    e.send(2); // by leases alone to the dead letters
    std::vector<delivery<tracked>> lost;
    for (int i = 0; i < 2; ++i) {
        CHECK(from.receive_many(lost, 1) == 1);
        clock.advance(10s);
    }
    CHECK(!from.try_receive());
    CHECK(from.dead().size() == 1);
    for (auto& l : lost) {
        CHECK(l->value() == 2);
        CHECK(!l.ack());
    }
    CHECK(from.dead().size() == 1);
}

TEST_CASE_TEMPLATE("contract: extend counts from now", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 10s, .retry = at_once});
    auto& from = e.from();
    e.send(0);
    auto d = from.try_receive();
    clock.advance(9s);
    CHECK(d->extend(20s));
    clock.advance(19s);
    CHECK(!from.try_receive());
    CHECK(d->extend(2s)); // shorter than what is left would be no less
    clock.advance(2s);
    auto again = from.try_receive();
    REQUIRE(again);
    CHECK(again->attempt() == 2);
    CHECK(!d->extend(1h));
    clock.advance(9s);
    CHECK(!from.try_receive());
    CHECK(again->ack());
}

TEST_CASE_TEMPLATE("contract: without leases nothing is lost by time", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 0s});
    e.send(0);
    auto d = e.from().try_receive();
    clock.advance(100'000h);
    CHECK(!e.from().try_receive());
    CHECK(d->ack());
}

TEST_CASE_TEMPLATE("contract: a delay holds it back, a time to live ends it", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    e.send(0, {.delay = 5s});
    e.send(1, {.time_to_live = 2s});
    e.send(2, {.delay = 1s});
    e.send(3);
    CHECK(popped(from) == std::vector{1, 3});
    CHECK(from.statistics().parked == 2);
    clock.advance(1s);
    CHECK(popped(from) == std::vector{2});
    e.send(4, {.time_to_live = 3s});
    e.send(5, {.delay = 4s, .time_to_live = 3s});
    clock.advance(3s);
    CHECK(!from.try_receive());
    CHECK(from.dead().size() == 2);
    CHECK(from.statistics().expired == 2);
    clock.advance(1s);
    CHECK(popped(from) == std::vector{0});
    auto letter = from.dead().try_receive();
    REQUIRE(letter);
    CHECK(!letter->reason().empty());
    CHECK(letter->ack());
    CHECK(from.dead().purge() == 1);
}

// ------------------------------------------------------------------------------------------------------------------------------- pop

TEST_CASE_TEMPLATE("contract: pop takes and acknowledges", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock(1min);
    E e(clock, {});
    auto& from = e.from();
    for (int i = 0; i < 10; ++i) { e.send(i, {.subject = std::to_string(i)}); }
    auto m = from.try_pop();
    REQUIRE(m);
    CHECK(m->body().value() == 0);
    CHECK(m->props().subject == "0");
    CHECK(m->offset() == 0);
    CHECK(m->timestamp() == clock.wall());
    CHECK(std::move(*m).take().value() == 0);
    CHECK(from.pop()->body().value() == 1);
    CHECK(from.pop_for(1s)->body().value() == 2);
    CHECK(from.pop(mailroom::stop_token())->body().value() == 3);
    std::vector<message<tracked>> many;
    CHECK(from.pop_many(std::back_inserter(many), 0) == 0);
    CHECK(from.pop_many(std::back_inserter(many), 4) == 4);
    CHECK(from.pop_many(std::back_inserter(many), 100) == 2);
    CHECK(from.pop_many(std::back_inserter(many), 100) == 0);
    for (int i = 0; i < 6; ++i) {
        CHECK(many[static_cast<std::size_t>(i)].body().value() == 4 + i);
        CHECK(many[static_cast<std::size_t>(i)].props().subject == std::to_string(4 + i));
    }
    CHECK(from.statistics().acked == 10);
    CHECK(from.statistics().in_flight == 0);
    clock.advance(10h);
    CHECK(!from.try_pop());
}

TEST_CASE_TEMPLATE("contract: pop takes what came back, too", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.retry = at_once});
    for (int i = 0; i < 4; ++i) { e.send(i); }
    std::vector<delivery<tracked>> held;
    CHECK(e.from().receive_many(held, 4) == 4);
    CHECK(held[2].nack());
    CHECK(held[0].release());
    CHECK(popped(e.from()) == std::vector{0, 2});
    held.clear();
    CHECK(popped(e.from()) == std::vector{1, 3});
}

// --------------------------------------------------------------------------------------------------------------------- many at once

TEST_CASE_TEMPLATE("contract: receive_many appends up to as many, waiting only for the first", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    std::vector<delivery<tracked>> held;
    CHECK(from.receive_many(held, 10) == 0);
    for (int i = 0; i < 100; ++i) { e.send(i); }
    CHECK(from.receive_many(held, 0) == 0);
    CHECK(from.receive_many(held, 30) == 30);
    CHECK(from.receive_many(held, 50, 1h) == 50);
    CHECK(from.receive_many(held, 50, 1h) == 20);
    REQUIRE(held.size() == 100);
    for (int i = 0; i < 100; ++i) { CHECK(held[static_cast<std::size_t>(i)]->value() == i); }
    for (auto& d : held) { CHECK(d.ack()); }
    held.clear();
    {
        const blocked receiver([&] { CHECK(from.receive_many(held, 10, 1h) == 1); });
        clock.await_parked(1);
        e.send(7);
    }
    {
        const blocked receiver([&] { CHECK(from.receive_many(held, 10, 10s) == 0); });
        clock.await_parked(1);
        clock.advance(10s);
    }
    CHECK(held.size() == 1);
}

TEST_CASE_TEMPLATE("contract: from wherever it was sent to, all of it is received", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    for (int i = 0; i < 1000; ++i) { e.spread(i); }
    std::vector<int> got;
    std::vector<delivery<tracked>> held;
    while (e.from().receive_many(held, 33) != 0) {}
    for (auto& d : held) {
        got.push_back(d->value());
        CHECK(d.ack());
    }
    std::ranges::sort(got);
    CHECK(got == numbers(0, 1000));
    CHECK(e.from().statistics().acked == 1000);
}

// --------------------------------------------------------------------------------------------------------------------------- waiting

TEST_CASE_TEMPLATE("contract: a wait ends with the time or the stop", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    CHECK(!from.receive_for(0s));
    CHECK(!from.receive_for(-1s));
    CHECK(!from.pop_for(0s));
    {
        const blocked receiver([&] { CHECK(!from.receive_for(10s)); }), popper([&] { CHECK(!from.pop_for(10s)); });
        clock.await_parked(2);
        clock.advance(10s - 1ns);
        clock.await_parked(2);
        CHECK(!receiver.done());
        CHECK(!popper.done());
        clock.advance(1ns);
    }
    mailroom::stop_source stop;
    {
        const blocked receiver([&] { CHECK(!from.receive(stop.get_token())); }), popper([&] { CHECK(!from.pop(stop.get_token())); });
        clock.await_parked(2);
        stop.request_stop();
    }
    CHECK(!from.receive(stop.get_token()));
    CHECK(!from.pop(stop.get_token()));
    e.send(0);
    CHECK(from.statistics().ready == 1);
    mailroom::stop_source other;
    CHECK(from.receive(other.get_token())->ack());
}

TEST_CASE_TEMPLATE("contract: a blocked receiver is woken by whatever makes a message ready", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 10s, .retry = {.max_attempts = 4, .initial = 1s}});
    auto& from = e.from();
    std::optional<delivery<tracked>> got;
    const auto receives = [&](auto act) {
        got.reset();
        {
            const blocked receiver([&] { got = from.receive(); });
            clock.await_parked(1);
            act();
            CHECK(receiver.finishes());
        }
        REQUIRE(got);
        return (*got)->value();
    };
    CHECK(receives([&] { e.send(0); }) == 0);
    CHECK(got->ack());
    CHECK(receives([&] {
              e.send(1, {.delay = 5s});
              clock.advance(5s);
          }) == 1);
    std::optional<delivery<tracked>> held = std::move(got);
    CHECK(receives([&] { held->release(); }) == 1);
    held = std::move(got);
    CHECK(receives([&] { held->nack(0s); }) == 1);
    held = std::move(got);
    CHECK(receives([&] {
              held->nack(3s);
              clock.advance(3s);
          }) == 1);
    held = std::move(got);
    CHECK(receives([&] { clock.advance(11s); }) == 1); // its lease, and a pause
    CHECK(!held->ack());
    CHECK(got->attempt() == 4);
    held = std::move(got);
    CHECK(receives([&] {
              CHECK(held->reject());
              CHECK(from.dead().redrive(1) == 1);
          }) == 1);
    CHECK(got->ack());
}

TEST_CASE_TEMPLATE("contract: several blocked receivers get one message each", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    std::atomic<int> sum{0};
    std::vector<std::unique_ptr<blocked>> all;
    for (int i = 0; i < 4; ++i) {
        all.push_back(std::make_unique<blocked>([&] {
            auto d = e.from().receive();
            CHECK(d);
            if (!d) { return; }
            sum += (*d)->value();
            CHECK(d->ack());
        }));
    }
    clock.await_parked(4);
    e.spread(1);
    CHECK(support::eventually([&] { return sum == 1; }));
    clock.await_parked(3);
    for (const int v : {10, 100, 1000}) { e.spread(v); }
    for (const auto& one : all) { CHECK(one->finishes()); }
    CHECK(sum == 1111);
}

TEST_CASE_TEMPLATE("contract: pause holds everything back until resume", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.retry = at_once});
    auto& from = e.from();
    e.send(0);
    auto d = from.try_receive();
    from.pause();
    e.send(1);
    CHECK(d->nack());
    CHECK(!from.try_receive());
    CHECK(!from.try_pop());
    CHECK(!from.receive_for(0s));
    std::vector<delivery<tracked>> none;
    CHECK(from.receive_many(none, 5) == 0);
    {
        std::atomic<int> got{0};
        const auto receive = [&] {
            if (from.receive()->ack()) { ++got; }
        };
        const blocked a(receive), b(receive);
        clock.await_parked(2);
        e.send(2);
        clock.await_parked(2);
        CHECK(got == 0);
        from.resume();
        CHECK(a.finishes());
        CHECK(b.finishes());
    }
    CHECK(popped(from).size() == 1);
}

TEST_CASE_TEMPLATE("contract: max_in_flight bounds what is out, and what is settled makes room", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.retry = at_once, .max_in_flight = 3});
    auto& from = e.from();
    for (int i = 0; i < 10; ++i) { e.send(i); }
    std::vector<delivery<tracked>> held;
    CHECK(from.receive_many(held, 10) == 3);
    CHECK(!from.try_receive());
    CHECK(!from.try_pop());
    CHECK(held[0].ack());
    CHECK(from.receive_many(held, 10) == 1);
    CHECK(held[1].nack(1h));
    CHECK(from.receive_many(held, 10) == 1);
    CHECK(held[2].reject());
    CHECK(from.try_pop()->body().value() == 5);
    CHECK(from.try_pop()->body().value() == 6); // popped is settled
    CHECK(from.receive_many(held, 10) == 1);
    {
        const blocked receiver([&] { CHECK(from.receive()->ack()); });
        clock.await_parked(1);
        CHECK(held[3].ack());
        CHECK(receiver.finishes());
    }
    CHECK(from.statistics().in_flight == 2);
}

// -------------------------------------------------------------------------------------------------------------------------- coroutines

namespace {

template <class From>
task take_all(From& from, std::vector<int>& out, mailroom::stop_token stop = mailroom::stop_token()) {
    while (auto d = co_await from.next(stop)) {
        out.push_back((*d)->value());
        d->ack();
    }
    out.push_back(-1);
}

} // namespace

TEST_CASE_TEMPLATE("contract: next gives what is there without suspending, and is resumed by whatever makes a message ready", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 10s, .retry = at_once});
    auto& from = e.from();
    e.send(0);
    e.send(1);
    auto held = from.try_receive();
    std::vector<int> got;
    const task t = take_all(from, got);
    CHECK(got == std::vector{1});
    CHECK(!t.done());
    e.send(2);
    CHECK(got == std::vector{1, 2});
    CHECK(held->release());
    CHECK(got == std::vector{1, 2, 0});
    e.send(3, {.delay = 5s});
    CHECK(got.size() == 3);
    clock.advance(5s);
    CHECK(got == std::vector{1, 2, 0, 3});
    from.pause();
    e.send(4);
    CHECK(got.size() == 4);
    from.resume();
    CHECK(got == std::vector{1, 2, 0, 3, 4});
    e.close();
    CHECK(t.done());
    CHECK(got.back() == -1);
    CHECK(from.statistics().acked == 5);
}

TEST_CASE_TEMPLATE("contract: next ends with its stop token, and several wait for one each", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    std::vector<int> got;
    mailroom::stop_source stop;
    {
        const task a = take_all(from, got, stop.get_token()), b = take_all(from, got, stop.get_token());
        CHECK(got.empty());
        stop.request_stop();
        CHECK(a.done());
        CHECK(b.done());
    }
    CHECK(got == std::vector{-1, -1});
    got.clear();
    {
        const task before = take_all(from, got, stop.get_token());
        CHECK(before.done());
    }
    {
        std::vector<task> tasks;
        const auto one = [](auto& source, std::vector<int>& out) -> task {
            auto d = co_await source.next();
            if (!d) { co_return; }
            out.push_back((*d)->value());
            d->ack();
        };
        for (int i = 0; i < 3; ++i) { tasks.push_back(one(from, got)); }
        e.send(1);
        e.send(2);
        CHECK(got == std::vector{-1, 1, 2});
        CHECK(std::ranges::count_if(tasks, [](const task& t) { return t.done(); }) == 2);
        // The third is destroyed while it is suspended.
        SUBCASE("") { tasks.clear(); }
        SUBCASE("after the close") {
            e.close();
            CHECK(tasks[2].done());
        }
    }
    CHECK(!from.try_receive());
}

// --------------------------------------------------------------------------------------------------------------------------- consumers

TEST_CASE_TEMPLATE("contract: consume calls a handler of any kind; ack on return", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    record seen;
    for (int i = 0; i < 10; ++i) { e.send(i, {.subject = "ten"}); }
    consumer c;
    SUBCASE("the body") {
        c = from.consume([&](const tracked& v) { seen.add(v.value()); });
    }
    SUBCASE("the body by value") {
        c = from.consume([&](tracked v) { seen.add(v.value()); }); // NOLINT: that is the point
    }
    SUBCASE("anything") {
        c = from.consume([&](const auto& v) {
            static_assert(std::is_same_v<decltype(v), const tracked&>);
            seen.add(v.value());
        });
    }
    SUBCASE("body and properties") {
        c = from.consume([&](const tracked& v, const properties& p) { seen.add(p.subject == "ten" ? v.value() : -1); });
    }
    SUBCASE("the delivery") {
        c = from.consume([&](delivery<tracked> d) {
            seen.add(d->value());
            d.ack();
        });
    }
    SUBCASE("an executor") {
        c = from.consume([&](const tracked& v) { seen.add(v.value()); }, {.executor = [](std::function<void()> f) { f(); }});
        CHECK(c.threads() == 0);
    }
    SUBCASE("one at a time") {
        c = from.consume([&](const tracked& v) { seen.add(v.value()); }, {.prefetch = 1});
    }
    CHECK(seen.comes_to(numbers(0, 10)));
    CHECK(support::eventually([&] { return from.statistics().acked == 10; }));
    for (int i = 10; i < 20; ++i) { e.send(i, {.subject = "ten"}); }
    CHECK(seen.comes_to(numbers(0, 20)));
    CHECK(c.drain(mailroom::clock::never));
    CHECK(!c.running());
    CHECK(from.statistics().acked == 20);
    e.send(20);
    // One that was woken for nothing as it stopped may still hold the message for a moment, to pass the wake on.
    CHECK(support::eventually([&] { return from.try_pop().has_value(); }));
}

TEST_CASE_TEMPLATE("contract: what a handler throws sends the message back, and on_error is told", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.retry = {.max_attempts = 3, .initial = 0s}});
    std::atomic<int> told{0}, calls{0};
    const auto c = e.from().consume(
        [&](const tracked& v) {
            ++calls;
            if (v.value() == 1) { throw std::runtime_error("one"); }
        },
        {.on_error = [&](std::exception_ptr) { ++told; }});
    for (int i = 0; i < 3; ++i) { e.send(i); }
    CHECK(support::eventually([&] { return e.from().dead().size() == 1 && e.from().statistics().acked == 2 && told == 3; }));
    CHECK(calls == 5);
    CHECK(c.running());
}

TEST_CASE_TEMPLATE("contract: a consumer that goes releases what no handler has started", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    for (int i = 0; i < 10; ++i) { e.send(i); }
    std::atomic<bool> inside{false}, go{false};
    {
        auto c = from.consume(
            [&](const tracked&) {
                inside = true;
                while (!go) { std::this_thread::yield(); }
            },
            {.prefetch = 8});
        CHECK(support::eventually([&] { return inside.load(); }));
        c.stop();
        CHECK(!c.running());
        go = true;
    }
    CHECK(from.statistics().acked == 1);
    for (int i = 1; i < 10; ++i) {
        auto d = from.try_receive();
        REQUIRE(d);
        CHECK((*d)->value() == i);
        CHECK(d->attempt() == 1);
        CHECK(d->ack());
    }
}

TEST_CASE_TEMPLATE("contract: the lease of a running handler is renewed", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 10s, .retry = at_once});
    std::atomic<bool> inside{false}, go{false};
    std::atomic<int> calls{0};
    const auto c = e.from().consume([&](const tracked&) {
        ++calls;
        inside = true;
        while (!go) { std::this_thread::yield(); }
    });
    e.send(0);
    CHECK(support::eventually([&] { return inside.load(); }));
    for (int i = 0; i < 20; ++i) {
        clock.await_parked(1); // who renews
        clock.advance(3s);
    }
    CHECK(!e.from().try_receive());
    go = true;
    CHECK(support::eventually([&] { return e.from().statistics().acked == 1; }));
    CHECK(calls == 1);
}

TEST_CASE_TEMPLATE("contract: several handlers at once take all there is, once each", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    constexpr int count = 2000;
    std::vector<std::atomic<int>> seen(count);
    auto c = e.from().consume([&](const tracked& v) { ++seen[static_cast<std::size_t>(v.value())]; }, {.concurrency = {2, 4}});
    for (int i = 0; i < count; ++i) { e.spread(i); }
    CHECK(support::eventually([&] { return e.from().statistics().acked == count; }));
    CHECK(std::ranges::all_of(seen, [](const auto& n) { return n == 1; }));
    CHECK(c.drain(mailroom::clock::never));
}

// ----------------------------------------------------------------------------------------------------------------------------- the end

TEST_CASE_TEMPLATE("contract: closed, it is drained, then there is nothing", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {.lease = 0s, .retry = {.initial = 1s}});
    auto& from = e.from();
    for (int i = 0; i < 5; ++i) { e.send(i); }
    e.send(5, {.delay = 1min});
    auto held = from.receive();
    e.close();
    for (int i = 1; i < 5; ++i) {
        auto d = from.receive();
        REQUIRE(d);
        CHECK((*d)->value() == i);
        CHECK(d->ack());
    }
    CHECK(!from.try_receive());
    {
        std::optional<delivery<tracked>> back;
        const blocked receiver([&] { back = from.receive(); });
        clock.await_parked(1);
        CHECK(held->nack()); // it may yet come back
        clock.await_parked(1);
        clock.advance(1s);
        CHECK(receiver.finishes());
        REQUIRE(back);
        CHECK((*back)->value() == 0);
        held = std::move(back);
    }
    clock.advance(1min);
    CHECK(from.pop()->body().value() == 5);
    {
        const blocked receiver([&] { CHECK(!from.receive()); }), popper([&] { CHECK(!from.pop()); });
        clock.await_parked(2);
        CHECK(held->ack());
        CHECK(receiver.finishes());
        CHECK(popper.finishes());
    }
    CHECK(!from.receive());
    CHECK(!from.pop());
    CHECK(!from.receive_for(1h));
    CHECK(e.drain(0s));
}

TEST_CASE_TEMPLATE("contract: closed with nothing to come, whoever waits is let go", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    std::vector<int> got;
    const task t = take_all(from, got);
    auto c = from.consume([](const tracked&) {});
    {
        const blocked receiver([&] { CHECK(!from.receive()); }), popper([&] { CHECK(!from.pop()); });
        clock.await_parked(2);
        e.close();
        CHECK(receiver.finishes());
        CHECK(popper.finishes());
    }
    CHECK(t.done());
    CHECK(c.drain(mailroom::clock::never));
}

TEST_CASE_TEMPLATE("contract: a blocked receiver of what is closed is let go by the last death, too", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    e.send(0);
    e.send(1, {.delay = 1h, .time_to_live = 1min});
    auto held = from.try_receive();
    e.close();
    const blocked receiver([&] { CHECK(!from.receive()); });
    clock.await_parked(1);
    CHECK(held->reject());
    clock.await_parked(1);
    CHECK(!receiver.done());
    clock.advance(1min);
    CHECK(receiver.finishes());
    CHECK(from.dead().size() == 2);
}

TEST_CASE_TEMPLATE("contract: statistics: every message is somewhere", E, EVERY_ENDPOINT) {
    const nothing_left at_the_end;
    manual_clock clock;
    E e(clock, {});
    auto& from = e.from();
    clock.advance(1s);
    for (int i = 0; i < 10; ++i) { e.send(i); }
    e.send(10, {.delay = 1h});
    e.send(11, {.time_to_live = 1s});
    clock.advance(3s);
    std::vector<delivery<tracked>> held;
    CHECK(from.receive_many(held, 5) == 5);
    CHECK(held[0].ack());
    CHECK(held[1].nack());
    CHECK(held[2].reject());
    CHECK(from.try_pop());
    const auto s = from.statistics();
    CHECK(s.sent == 12);
    CHECK(s.acked == 2);
    CHECK(s.parked == 2);
    CHECK(s.in_flight == 2);
    CHECK(s.dead == 2);
    CHECK(s.ready == 4);
    CHECK(s.expired == 1);
    CHECK(s.redelivered == 0);
    CHECK(s.dropped == 0);
    CHECK(s.duplicates == 0);
    CHECK(s.bytes == 8 * sizeof(tracked));
    CHECK(s.oldest_age == 3s);
}
