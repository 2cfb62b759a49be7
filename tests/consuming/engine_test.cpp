// The engine by hand: over a source of the test, on an executor of the test. tests/consumer_test.cpp has all the rest.
#include "support/scripted_source.hpp"

#include "support/eventually.hpp"

#include <mailroom/consuming/engine.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/testing/manual_clock.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using mailroom::consume_options;
using mailroom::delivery;

class recording final : public mailroom::detail::engine<int> {
public:
    recording(mailroom::detail::source<int>& from, consume_options&& o) : engine<int>(from, std::move(o)) {}
    std::vector<int> seen;

private:
    void handle(std::optional<delivery<int>>& message) override {
        seen.push_back(message->body());
        if (message->body() < 0) { throw message->body(); }
        message->ack();
    }
};

struct tasks {
    std::deque<std::function<void()>> waiting;
    mailroom::executor face() {
        return [this](std::function<void()> f) { waiting.push_back(std::move(f)); };
    }
    bool run_one() {
        if (waiting.empty()) { return false; }
        const auto f = std::move(waiting.front());
        waiting.pop_front();
        f();
        return true;
    }
};

} // namespace

TEST_CASE("engine: one turn of the executor is one handler; what it throws sends the message back") {
    bool gone = false;
    auto* const s = new support::scripted_source(&gone);
    tasks t;
    int errors = 0;
    for (const int n : {1, -2, 3}) { s->add(n); }
    {
        consume_options o{.prefetch = 2, .executor = t.face()};
        o.on_error = [&](const std::exception_ptr&) { ++errors; };
        const auto e = std::make_shared<recording>(*s, std::move(o));
        e->start();
        s->unrefer(); // it may outlive its endpoint
        CHECK(e->seen.empty());
        CHECK(t.waiting.size() == 1);
        CHECK(t.run_one());
        CHECK(e->seen == std::vector<int>{1});
        CHECK(t.run_one());
        CHECK(t.run_one());
        CHECK(e->seen == std::vector<int>{1, -2, 3});
        CHECK(errors == 1);
        CHECK(s->said() == std::vector<std::string>{"ack 0", "nack 1", "ack 2"});
        CHECK(e->running());
        e->finish();
        while (t.run_one()) {}
        CHECK_FALSE(gone);
    }
    CHECK(gone);
}

TEST_CASE("engine: stopped, it releases what it had taken in advance") {
    auto* const s = new support::scripted_source();
    tasks t;
    for (int n = 0; n < 4; ++n) { s->add(n); }
    {
        const auto e = std::make_shared<recording>(*s, consume_options{.prefetch = 3, .executor = t.face()});
        e->start();
        CHECK(t.run_one()); // takes three
        e->stop();
        CHECK_FALSE(e->running());
        CHECK(s->said() == std::vector<std::string>{"ack 0", "release 1", "release 2"});
        CHECK(e->drain(mailroom::duration::zero()));
        while (t.run_one()) {}
        CHECK(e->seen == std::vector<int>{0});
        e->finish();
    }
    s->unrefer();
}

namespace {

/// A worker that stays, over a queue.
class staying final : public mailroom::detail::engine<int> {
public:
    using on_message = std::function<void(int)>;
    staying(mailroom::queue<int>& from, on_message fn, consume_options&& o)
        : engine<int>(mailroom::detail::endpoint_access::core(from), std::move(o), true), fn_(std::move(fn)) {}

private:
    void handle(std::optional<delivery<int>>& message) override {
        fn_(message->body());
        message->ack();
    }
    on_message fn_;
};

} // namespace

TEST_CASE("engine: a worker that stays takes what comes while it is at work, in order; what throws goes back; who stops gives back") {
    mailroom::queue<int> q({.retry = {.max_attempts = 2, .initial = std::chrono::nanoseconds(0)}});
    std::atomic<int> errors{0};
    std::vector<int> seen;
    consume_options o{.prefetch = 1};
    o.on_error = [&](const std::exception_ptr&) { ++errors; };
    std::shared_ptr<staying> e;
    std::atomic<bool> may_begin{false};
    e = std::make_shared<staying>(
        q,
        [&](int n) {
            while (!may_begin) { std::this_thread::yield(); }
            seen.push_back(n);
            if (n < 5) { q.send(n + 1); }
            if (n == 3 && seen.size() == 3) { throw n; } // 3 again, beside 4
            if (n == 5) {
                q.send(6);
                e->stop();
            }
        },
        std::move(o));
    e->start();
    q.send(1);
    may_begin = true;
    CHECK(support::eventually([&] { return !e->running(); }));
    CHECK(e->drain(std::chrono::seconds(20)));
    CHECK(errors == 1);
    CHECK(std::vector<int>(seen.begin(), seen.begin() + 3) == std::vector<int>{1, 2, 3});
    CHECK(seen.back() == 5);
    CHECK(q.statistics().in_flight == 0);
    CHECK(q.statistics().ready >= 1); // 6, at least, is there for others
    e->finish();
}

TEST_CASE("engine: the lease of what a staying worker has taken by itself is renewed") {
    using std::chrono::seconds;
    mailroom::testing::manual_clock clock;
    mailroom::queue<int> q({.lease = seconds(9), .clock = &clock});
    std::atomic<bool> is_there{false}, may_end{false};
    const auto e = std::make_shared<staying>(
        q,
        [&](int n) {
            if (n == 1) {
                q.send(2);
                return;
            }
            is_there = true;
            while (!may_end) { std::this_thread::yield(); }
        },
        consume_options());
    e->start();
    q.send(1);
    REQUIRE(support::eventually([&] { return is_there.load(); }));
    for (int i = 0; i < 5; ++i) {
        clock.await_parked(1); // the keeper
        clock.advance(seconds(3));
        clock.await_parked(1);
        CHECK_FALSE(q.try_receive());
    }
    may_end = true;
    CHECK(e->drain(seconds(20)));
    CHECK(q.statistics().acked == 2);
    CHECK(q.statistics().redelivered == 0);
    e->finish();
}
