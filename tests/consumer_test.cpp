// Handlers: which are called and how they settle, threads, prefetch, limits, leases, executors, and every way to end.
#include "support/environment.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::consume_options;
using mailroom::consumer;
using mailroom::delivery;
using mailroom::duration;
using mailroom::properties;
using mailroom::queue;

namespace {

/// Where handlers stop until they are let through.
class gate {
public:
    void pass() {
        std::unique_lock lock(mutex_);
        ++inside_;
        changed_.notify_all();
        changed_.wait(lock, [this] { return open_ || tickets_ > 0; });
        if (!open_) { --tickets_; }
        --inside_;
    }
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    void let(int n) {
        const std::lock_guard lock(mutex_);
        tickets_ += n;
        changed_.notify_all();
    }
    /// Waits until `n` stand before it.
    void await(int n) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return inside_ >= n; });
    }
    int inside() {
        const std::lock_guard lock(mutex_);
        return inside_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
    int tickets_ = 0, inside_ = 0;
};

/// What handlers saw, in order.
template <class T>
class log_of {
public:
    void add(T value) {
        const std::lock_guard lock(mutex_);
        values_.push_back(std::move(value));
        changed_.notify_all();
    }
    std::vector<T> await(std::size_t n) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return values_.size() >= n; });
        return values_;
    }
    std::vector<T> now() {
        const std::lock_guard lock(mutex_);
        return values_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<T> values_;
};

/// For what has no event to wait for: it is going to be so.
template <class Condition>
void until(Condition met) {
    while (!met()) { std::this_thread::yield(); }
}

/// manual_clock that knows which threads are at rest: parked since time moved last, and not called since.
class watched_clock final : public mailroom::clock {
public:
    void advance(duration by) {
        clock_.advance(by);
        const std::lock_guard lock(mutex_);
        ++turn_;
        changed_.notify_all();
    }
    /// Moves time, then waits until `back` threads have come to rest again.
    void advance(duration by, std::size_t back) {
        advance(by);
        await_parked(back);
    }
    void await_parked(std::size_t n) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock,
                      [&] { return static_cast<std::size_t>(std::ranges::count_if(parked_, [this](const place* p) { return rests(*p); })) >= n; });
    }

    std::size_t parked() {
        const std::lock_guard lock(mutex_);
        return static_cast<std::size_t>(std::ranges::count_if(parked_, [this](const place* p) { return rests(*p); }));
    }

    duration now() const noexcept override { return clock_.now(); }
    duration coarse() const noexcept override { return clock_.coarse(); }
    mailroom::time_point wall() const noexcept override { return clock_.wall(); }
    void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, duration deadline) noexcept override {
        std::unique_lock lock(mutex_);
        const place here{&word, expected, turn_};
        if (!rests(here) || now() >= deadline) { return; }
        parked_.push_back(&here);
        changed_.notify_all();
        changed_.wait(lock, [&] { return !rests(here); });
        std::erase(parked_, &here);
    }
    void unpark(std::atomic<std::uint32_t>&) noexcept override {
        const std::lock_guard lock(mutex_);
        changed_.notify_all();
    }
    void relax(unsigned round) noexcept override { clock_.relax(round); }
    void attach(mailroom::timed& t) override { clock_.attach(t); }
    void detach(mailroom::timed& t) noexcept override { clock_.detach(t); }

private:
    struct place {
        const std::atomic<std::uint32_t>* word;
        std::uint32_t expected;
        unsigned long turn;
    };
    bool rests(const place& p) const noexcept { return p.turn == turn_ && p.word->load() == p.expected; }

    mailroom::testing::manual_clock clock_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<const place*> parked_;
    unsigned long turn_ = 0;
};

/// An executor that is run by hand.
class hand {
public:
    mailroom::executor face() {
        return [this](std::function<void()> f) {
            const std::lock_guard lock(mutex_);
            tasks_.push_back(std::move(f));
        };
    }
    bool run_one() {
        std::function<void()> f;
        {
            const std::lock_guard lock(mutex_);
            if (tasks_.empty()) { return false; }
            f = std::move(tasks_.front());
            tasks_.pop_front();
        }
        f();
        return true;
    }
    void run() {
        while (run_one()) {}
    }
    std::size_t size() {
        const std::lock_guard lock(mutex_);
        return tasks_.size();
    }
    void drop() {
        std::deque<std::function<void()>> gone;
        const std::lock_guard lock(mutex_);
        gone.swap(tasks_);
    }

private:
    std::mutex mutex_;
    std::deque<std::function<void()>> tasks_;
};

template <class T>
mailroom::queue_options<T> on(mailroom::clock& c) {
    mailroom::queue_options<T> o;
    o.clock = &c;
    return o;
}

} // namespace

// ------------------------------------------------------------------------------------------------------------- handlers

TEST_CASE("consumer: a handler is called with the body, with body and properties, or with the delivery") {
    queue<std::string> q;
    log_of<std::string> seen;
    std::function<void(const std::string&)> plain = [&](const std::string& s) { seen.add(s); };
    SUBCASE("body") {
        const auto c = q.consume([&](const std::string& s) { seen.add(s); });
        q.send("m", properties{.key = "k"});
        CHECK(seen.await(1)[0] == "m");
    }
    SUBCASE("by value") {
        const auto c = q.consume([&](std::string s) { seen.add(std::move(s)); });
        q.send("m");
        CHECK(seen.await(1)[0] == "m");
    }
    SUBCASE("properties") {
        const auto c = q.consume([&](const std::string& s, const properties& p) { seen.add(s + p.key); });
        q.send("m", properties{.key = "k"});
        CHECK(seen.await(1)[0] == "mk");
    }
    SUBCASE("delivery") {
        const auto c = q.consume([&](delivery<std::string> d) {
            seen.add(*d + std::to_string(d.attempt()));
            d.ack();
        });
        q.send("m");
        CHECK(seen.await(1)[0] == "m1");
    }
    SUBCASE("a generic lambda gets the body") {
        const auto c = q.consume([&](const auto& s) {
            static_assert(std::is_same_v<decltype(s), const std::string&>);
            seen.add(s);
        });
        q.send("m");
        CHECK(seen.await(1)[0] == "m");
    }
    SUBCASE("std::function") {
        const auto c = q.consume(plain, {.concurrency = {1, 2}});
        q.send("m");
        CHECK(seen.await(1)[0] == "m");
    }
    SUBCASE("one that can only be moved, for a body that can only be moved") {
        queue<std::unique_ptr<int>> ints;
        const auto c = ints.consume([&, own = std::make_unique<int>(1)](const std::unique_ptr<int>& i) { seen.add(std::to_string(*i + *own)); });
        ints.send(std::make_unique<int>(2));
        CHECK(seen.await(1)[0] == "3");
    }
    until([&] { return q.statistics().in_flight == 0; });
    CHECK(q.statistics().ready == 0);
}

TEST_CASE("consumer: what a handler throws sends the message back, and on_error is told") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.retry.initial = 1s;
    o.retry.max_attempts = 2;
    queue<int> q(o);
    log_of<std::string> errors;
    struct odd {};
    consume_options how;
    how.on_error = [&](std::exception_ptr e) {
        try {
            std::rethrow_exception(e);
        } catch (const std::exception& x) { errors.add(x.what()); } catch (const odd&) {
            errors.add("odd");
        }
        throw odd{};
    };
    SUBCASE("told") {}
    SUBCASE("untold") { how.on_error = nullptr; }
    const bool told = how.on_error != nullptr;
    log_of<int> seen;
    auto c = q.consume(
        [&](const int& i) {
            seen.add(i);
            if (i == 1) { throw std::runtime_error("one"); }
            if (i == 2) { throw odd{}; }
        },
        how);
    q.send(1);
    q.send(2);
    q.send(3);
    seen.await(3);
    until([&] { return q.statistics().acked == 1 && q.statistics().parked == 2; });
    if (told) { CHECK(errors.await(2) == std::vector<std::string>{"one", "odd"}); }
    clock.advance(1s);
    CHECK(seen.await(5) == std::vector<int>{1, 2, 3, 1, 2});
    until([&] { return q.dead().size() == 2; });
    CHECK(c.running());
}

TEST_CASE("consumer: a manual handler that neither settles nor keeps its delivery gives it back") {
    mailroom::queue_options<int> o;
    o.retry.initial = 0s;
    queue<int> q(o);
    log_of<std::uint32_t> attempts;
    std::optional<delivery<int>> kept;
    auto c = q.consume([&](delivery<int> d) {
        const std::uint32_t attempt = d.attempt();
        if (attempt == 3) { kept.emplace(std::move(d)); }
        attempts.add(attempt); // whoever sees the third sees what was kept
        if (attempt == 1) { d.nack(0s); }
        if (attempt == 2) { throw 1; }
    });
    q.send(7);
    CHECK(attempts.await(3) == std::vector<std::uint32_t>{1, 2, 3});
    CHECK_FALSE(c.drain(0s)); // the third is still in our hands
    CHECK(kept->ack());
    CHECK(c.drain(mailroom::clock::never));
    CHECK(q.statistics().acked == 1);
}

TEST_CASE("consumer: options outside what is allowed are refused with a sentence") {
    queue<int> q;
    const auto refused = [&](const consume_options& o) {
        try {
            const auto c = q.consume([](const int&) {}, o);
        } catch (const mailroom::error& e) { return e.kind() == mailroom::errc::invalid && e.sentence().size() > 10; }
        return false;
    };
    CHECK(refused({.concurrency = {0, 1}}));
    CHECK(refused({.concurrency = {-1, 1}}));
    CHECK(refused({.concurrency = {2, 1}}));
    CHECK(refused({.prefetch = 0}));
    CHECK(refused({.max_per_second = -1}));
    CHECK(refused({.max_per_second = 1e308 * 10}));
    CHECK(refused({.processing_limit = -1s}));
    CHECK_FALSE(refused({}));
    const std::function<void(const int&)> empty;
    CHECK_THROWS_AS(static_cast<void>(q.consume(empty)), mailroom::error);
    void (*const null)(const int&) = nullptr;
    CHECK_THROWS_AS(static_cast<void>(q.consume(null)), mailroom::error);
}

// -------------------------------------------------------------------------------------------------------------- threads

TEST_CASE("consumer: threads grow to the maximum while there is more to do, and shrink when they are idle") {
    watched_clock clock;
    queue<int> q(on<int>(clock));
    gate g;
    std::atomic<int> done{0};
    auto c = q.consume(
        [&](const int&) {
            g.pass();
            ++done;
        },
        {.concurrency = {1, 4}});
    CHECK(c.threads() == 1);
    SUBCASE("a backlog at once") {
        for (int i = 0; i < 10; ++i) { q.send(i); }
        g.await(4);
    }
    SUBCASE("one after another, while the others are busy") {
        for (int i = 1; i <= 4; ++i) {
            q.send(i);
            g.await(i);
            CHECK(c.threads() == i);
        }
        for (int i = 5; i <= 10; ++i) { q.send(i); }
    }
    CHECK(c.threads() == 4);
    CHECK(g.inside() == 4);
    g.open();
    until([&] { return done == 10; });
    while (c.threads() > 1) {
        clock.advance(1s);
        std::this_thread::yield();
    }
    q.send(11);
    until([&] { return done == 11; });
    CHECK(c.threads() == 1);
}

TEST_CASE("consumer: after it has shrunk it grows again, also if the remaining thread is busy") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.lease = 0s;
    queue<int> q(o);
    gate g;
    std::atomic<int> done{0};
    auto c = q.consume(
        [&](const int& i) {
            i < 0 ? g.pass() : void();
            ++done;
        },
        {.concurrency = {1, 3}, .prefetch = 1});
    q.send(-1);
    g.await(1);
    q.send(-2);
    g.await(2);
    g.let(1);
    until([&] { return done == 1; });
    while (c.threads() > 1) {
        clock.advance(1s);
        std::this_thread::yield();
    }
    q.send(1);
    until([&] { return done == 2; });
    CHECK(g.inside() == 1);
    g.open();
}

TEST_CASE("consumer: what is prefetched does not wait behind a slow handler while another thread is free") {
    queue<int> q;
    for (int i = 0; i < 50; ++i) { q.send(i); }
    gate g;
    std::atomic<int> done{0};
    auto c = q.consume(
        [&](const int& i) {
            if (i == 0) { g.pass(); }
            ++done;
        },
        {.concurrency = {2, 2}, .prefetch = 64});
    until([&] { return done == 49; });
    g.open();
    until([&] { return done == 50; });
}

TEST_CASE("consumer: prefetch bounds what is held") {
    for (const std::size_t ahead : {std::size_t{1}, std::size_t{4}}) {
        queue<int> q;
        for (int i = 0; i < 20; ++i) { q.send(i); }
        gate g;
        auto c = q.consume([&](const int&) { g.pass(); }, {.prefetch = ahead});
        g.await(1);
        CHECK(q.statistics().in_flight == ahead);
        g.let(1);
        until([&] { return q.statistics().acked == 1; });
        g.await(1);
        CHECK(q.statistics().in_flight <= ahead);
        c.stop();
        g.open();
    }
}

TEST_CASE("consumer: with priorities nothing is taken before its turn") {
    mailroom::queue_options<int> o;
    o.priorities = 10;
    queue<int> q(o);
    gate g;
    log_of<int> seen;
    auto c = q.consume([&](const int& i) {
        g.pass();
        seen.add(i);
    });
    for (int i = 0; i < 5; ++i) { q.send(i, properties{.priority = 1}); }
    g.await(1);
    CHECK(q.statistics().in_flight == 1);
    q.send(9, properties{.priority = 9});
    g.open();
    CHECK(seen.await(6) == std::vector<int>{0, 9, 1, 2, 3, 4});
}

// --------------------------------------------------------------------------------------------------------------- limits

TEST_CASE("consumer: no second sees more handlers start than allowed") {
    watched_clock clock;
    queue<int> q(on<int>(clock));
    for (int i = 0; i < 100; ++i) { q.send(i); }
    std::atomic<int> done{0};
    auto c = q.consume([&](const int&) { ++done; }, {.concurrency = {2, 2}, .max_per_second = 10});
    until([&] { return done == 10; });
    until([&] { return q.statistics().in_flight == 0; }); // nothing is taken before its time
    clock.await_parked(3);                                // two workers and the keeper
    clock.advance(999ms, 3);
    CHECK(done == 10);
    clock.advance(1ms);
    until([&] { return done == 20; });
    clock.await_parked(3);
    clock.advance(500ms, 3);
    CHECK(done == 20);
    SUBCASE("stopped while it waits for its time") {
        c.stop();
        CHECK(c.drain(mailroom::clock::never));
        CHECK(q.statistics().ready == 80);
        const auto other = q.consume([&](const int&) { ++done; });
        until([&] { return done == 100; });
    }
    SUBCASE("an hour later") {
        clock.advance(1h);
        until([&] { return done == 30; });
    }
}

TEST_CASE("pace: a window that slides") {
    mailroom::detail::pace none(0);
    CHECK_FALSE(none.on());
    mailroom::detail::pace slow(0.5);
    CHECK(slow.next() == duration::min());
    slow.started(10s);
    CHECK(slow.next() == 12s);
    mailroom::detail::pace three(3);
    three.started(0s);
    three.started(100ms);
    three.started(900ms);
    CHECK(three.next() == 1s);
    three.started(1s);
    CHECK(three.next() == 1100ms);
    CHECK(three.next(2) == 1900ms);
    CHECK(three.next(4) == duration::max());
    CHECK(none.next(4) == duration::min());
    mailroom::detail::pace many(1e6);
    std::vector<duration> starts;
    for (duration now{}; now < 3s; now += 100us) {
        while (many.next() <= now) {
            many.started(now);
            starts.push_back(now);
        }
    }
    std::size_t first = 0, most = 0;
    for (std::size_t i = 0; i < starts.size(); ++i) {
        while (starts[i] - starts[first] >= 1s) { ++first; }
        most = std::max(most, i - first + 1);
    }
    CHECK(most <= 1'000'000);
    CHECK(most > 990'000);
    CHECK(starts.size() > 2'900'000);
}

TEST_CASE("consumer: a key at its limit waits aside, others go on") {
    queue<int> q;
    gate g;
    log_of<int> seen;
    std::atomic<int> now{0}, most{0};
    auto c = q.consume(
        [&](const int& i, const properties& p) {
            if (p.key == "slow") {
                most = std::max(most.load(), ++now);
                g.pass();
                --now;
            }
            seen.add(i);
        },
        {.concurrency = {3, 3}, .max_per_key = 1});
    for (int i = 0; i < 5; ++i) { q.send(i, properties{.key = "slow"}); }
    for (int i = 5; i < 10; ++i) { q.send(i, properties{.key = "fast"}); }
    for (int i = 10; i < 15; ++i) { q.send(i); }
    seen.await(10);
    g.await(1);
    CHECK(g.inside() == 1);
    g.open();
    auto order = seen.await(15);
    CHECK(most == 1);
    std::erase_if(order, [](int i) { return i >= 5; });
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("consumer: with every place held by one key, the next of it starts as soon as one ends") {
    queue<int> q;
    gate g;
    std::atomic<int> done{0};
    auto c = q.consume(
        [&](delivery<int> d) {
            g.pass();
            d.ack();
            ++done;
        },
        {.concurrency = {2, 4}, .prefetch = 2, .max_per_key = 2});
    for (int i = 0; i < 20; ++i) { q.send(i, properties{.key = "k"}); }
    g.await(2);
    for (int i = 0; i < 18; ++i) {
        g.let(1);
        until([&] { return done == i + 1; });
        g.await(2);
    }
    g.open();
    until([&] { return done == 20; });
}

// --------------------------------------------------------------------------------------------------------------- leases

TEST_CASE("consumer: leases are kept alive while a handler runs, up to the limit") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.lease = 30s;
    queue<int> q(o);
    gate g;
    log_of<std::uint32_t> attempts;
    auto c = q.consume(
        [&](delivery<int> d) {
            attempts.add(d.attempt());
            g.pass();
            CHECK_FALSE(d.ack());
        },
        {.prefetch = 2, .processing_limit = 5min});
    q.send(1);
    q.send(2);
    q.send(3);
    g.await(1);
    until([&] { return q.statistics().in_flight == 2; });
    if (auto third = q.try_receive()) { third->ack(); }
    clock.await_parked(1); // the keeper
    int minutes = 0;
    for (duration t{}; t < 290s; t += 10s) {
        clock.advance(10s, 1);
        if (t % 60s == 0s) { ++minutes; }
        CHECK_FALSE(q.try_receive());
    }
    CHECK(minutes == 5);
    for (int i = 0; i < 7; ++i) { clock.advance(10s, 1); }
    auto first = q.try_receive();
    REQUIRE(first);
    CHECK(first->attempt() == 2);
    auto second = q.try_receive(); // it never started
    REQUIRE(second);
    CHECK(second->attempt() == 1);
    first->ack();
    second->ack();
    g.open();
    CHECK(c.drain(mailroom::clock::never));
    CHECK(attempts.now() == std::vector<std::uint32_t>{1});
    CHECK(q.statistics().acked == 3);
}

TEST_CASE("consumer: without leases there is no keeper") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.lease = 0s;
    queue<int> q(o);
    std::atomic<int> done{0};
    auto c = q.consume([&](const int&) { ++done; });
    q.send(1);
    until([&] { return done == 1; });
    clock.advance(1h, 1);
    q.send(2);
    until([&] { return done == 2; });
}

TEST_CASE("consumer: what becomes due by time alone is noticed") {
    queue<int> q; // the system's clock
    log_of<int> seen;
    SUBCASE("on threads") {
        const auto c = q.consume([&](const int& i) { seen.add(i); });
        q.send(1, properties{.delay = 10ms});
        CHECK(seen.await(1) == std::vector<int>{1});
        q.send(2, properties{.delay = 1ms});
        CHECK(seen.await(2) == std::vector<int>{1, 2});
    }
    SUBCASE("on an executor nobody else calls") {
        const auto c = q.consume([&](const int& i) { seen.add(i); }, {.executor = [](std::function<void()> f) { f(); }});
        q.send(1, properties{.delay = 10ms});
        CHECK(seen.await(1) == std::vector<int>{1});
        q.send(2, properties{.delay = 1ms});
        CHECK(seen.await(2) == std::vector<int>{1, 2});
    }
}

// ------------------------------------------------------------------------------------------------------------- the ends

TEST_CASE("consumer: stopped, it releases what no handler has started") {
    queue<support::tracked> q;
    for (int i = 0; i < 10; ++i) { q.send(i); }
    gate g;
    {
        auto c = q.consume([&](const support::tracked&) { g.pass(); }, {.prefetch = 4});
        g.await(1);
        CHECK(c.running());
        SUBCASE("by stop") {
            c.stop();
            c.stop();
            CHECK_FALSE(c.running());
            CHECK(q.statistics().in_flight == 1);
            CHECK(q.statistics().ready == 9);
            CHECK(g.inside() == 1);
        }
        SUBCASE("by drain, in vain at first") {
            CHECK_FALSE(c.drain(0s));
            CHECK_FALSE(c.running());
            CHECK_FALSE(c.drain(1ms));
            CHECK(q.statistics().ready == 9);
        }
        SUBCASE("by its destructor") {}
        g.open();
        CHECK((c.running() || c.drain(mailroom::clock::never)));
        if (c.running()) { return; } // the open gate lets all through before the destructor
    }
    CHECK(q.statistics().acked == 1);
    for (int i = 1; i < 10; ++i) {
        const auto d = q.try_receive();
        REQUIRE(d);
        CHECK(d->body().value() == i);
        CHECK(d->attempt() == 1);
    }
}

TEST_CASE("consumer: its destructor waits for running handlers") {
    queue<int> q;
    gate g;
    std::atomic<bool> returned{false};
    auto c = std::make_unique<consumer>(q.consume(
        [&](const int&) {
            g.pass();
            returned = true;
        },
        {.concurrency = {2, 2}}));
    q.send(1);
    g.await(1);
    std::thread opener([&] {
        until([&] { return !c->running(); });
        g.open();
    });
    c->stop();
    opener.join();
    c.reset();
    CHECK(returned);
}

TEST_CASE("consumer: it may do anything to itself and its queue from its own handler") {
    auto q = std::make_unique<queue<int>>();
    std::unique_ptr<consumer> c;
    gate g;
    std::atomic<bool> done{false};
    std::function<void()> deed;
    bool by_executor = false;
    SUBCASE("own threads") {}
    SUBCASE("an executor") { by_executor = true; }
    consume_options how{.concurrency = {2, 2}};
    std::vector<std::thread> pool;
    std::mutex pool_mutex;
    if (by_executor) {
        how.executor = [&](std::function<void()> f) {
            const std::lock_guard lock(pool_mutex);
            pool.emplace_back(std::move(f));
        };
    }
    const auto run = [&](std::function<void()> what) {
        deed = std::move(what);
        c = std::make_unique<consumer>(q->consume(
            [&](delivery<int> d) {
                g.pass();
                deed();
                d.ack();
                done = true;
            },
            how));
        q->send(1);
        g.await(1);
        g.open();
        until([&] { return done.load(); });
    };
    SUBCASE("stop") {
        run([&] { c->stop(); });
        CHECK_FALSE(c->running());
    }
    SUBCASE("drain") {
        bool drained = true;
        run([&] { drained = c->drain(mailroom::clock::never); });
        CHECK_FALSE(drained);
        CHECK(c->drain(mailroom::clock::never));
    }
    SUBCASE("destroy it") {
        run([&] { c.reset(); });
        CHECK(q->statistics().acked == 1);
    }
    SUBCASE("assign over it") {
        run([&] { *c = consumer(); });
        CHECK(q->statistics().acked == 1);
        CHECK_FALSE(c->running());
    }
    SUBCASE("replace it") {
        run([&] { *c = q->consume([](const int&) {}); });
        CHECK(c->running());
    }
    SUBCASE("close the queue") {
        run([&] { q->close(); });
        CHECK(q->drain(mailroom::clock::never));
        CHECK(c->running());
    }
    SUBCASE("destroy the queue") {
        run([&] { q.reset(); });
        CHECK(c->running());
    }
    SUBCASE("destroy both") {
        run([&] {
            q.reset();
            c.reset();
        });
    }
    SUBCASE("send to its own queue") {
        std::atomic<int> calls{0};
        run([&] { ++calls == 1 ? static_cast<void>(q->send(2)) : c->stop(); });
        until([&] { return !c->running(); });
    }
    c.reset();
    const auto join = [&] {
        std::vector<std::thread> mine;
        {
            const std::lock_guard lock(pool_mutex);
            mine.swap(pool);
        }
        for (auto& t : mine) { t.join(); }
        return !mine.empty();
    };
    while (join()) {}
}

TEST_CASE("consumer: one handler waits for room that another makes") {
    mailroom::queue_options<int> o;
    o.max_messages = 2;
    queue<int> q(o);
    std::atomic<int> done{0};
    auto c = q.consume(
        [&](const int& i) {
            if (i == 0) {
                q.send(1);
                q.send(2);
                q.send(3);
            }
            ++done;
        },
        {.concurrency = {2, 2}});
    q.send(0);
    until([&] { return done == 4; });
}

TEST_CASE("consumer: drained while retries are parked, it does not wait for them") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.retry.initial = 1h;
    queue<int> q(o);
    log_of<int> seen;
    auto c = q.consume([&](const int& i) {
        seen.add(i);
        throw 1;
    });
    q.send(1);
    seen.await(1);
    CHECK(c.drain(mailroom::clock::never));
    CHECK(q.statistics().parked == 1);
    CHECK(c.drain(0s));
    CHECK(c.threads() >= 0);
}

TEST_CASE("consumer: a drain waits in the time of its queue's clock") {
    watched_clock clock;
    queue<int> q(on<int>(clock));
    gate g;
    auto c = q.consume([&](const int&) { g.pass(); });
    q.send(1);
    g.await(1);
    clock.await_parked(1);
    std::atomic<int> answer{-1};
    std::thread drainer([&] { answer = c.drain(10s) ? 1 : 0; });
    until([&] { return !c.running(); });
    clock.await_parked(1);
    CHECK(answer == -1);
    while (answer == -1) {
        clock.advance(5s);
        std::this_thread::yield();
    }
    CHECK(answer == 0);
    drainer.join();
    g.open();
    CHECK(c.drain(mailroom::clock::never));
}

TEST_CASE("consumer: moved over a running one, that one ends first") {
    queue<int> a, b;
    std::atomic<int> of_a{0}, of_b{0};
    auto c = a.consume([&](const int&) { ++of_a; });
    a.send(1);
    until([&] { return of_a == 1; });
    c = b.consume([&](const int&) { ++of_b; });
    a.send(2);
    b.send(1);
    until([&] { return of_b == 1; });
    CHECK(of_a == 1);
    CHECK(a.statistics().ready == 1);
    auto moved = std::move(c);
    CHECK(moved.running());
    CHECK_FALSE(c.running()); // NOLINT: moved from, and says so
    CHECK(c.threads() == 0);
    CHECK(c.drain(0s));
    c.stop();
    moved = consumer();
    CHECK_FALSE(moved.running());
}

TEST_CASE("consumer: it may outlive its queue") {
    consumer c;
    gate g;
    std::atomic<int> acked{-1};
    {
        queue<support::tracked> q;
        for (int i = 0; i < 10; ++i) { q.send(i); }
        c = q.consume(
            [&](delivery<support::tracked> d) {
                g.pass();
                acked = (d->value() == 0 && d.ack()) ? 1 : 0;
            },
            {.concurrency = {1, 2}, .prefetch = 4});
        g.await(1);
    }
    CHECK(c.running());
    g.open();
    until([&] { return acked == 0; });
    CHECK(c.drain(mailroom::clock::never));
    c = consumer();
    CHECK(support::tracked::live() == 0);
    CHECK(support::tracked::faults() == 0);
}

TEST_CASE("consumer: after close it handles what is left, then idles") {
    queue<int> q;
    for (int i = 0; i < 100; ++i) { q.send(i); }
    q.close();
    std::atomic<int> done{0};
    auto c = q.consume([&](const int&) { ++done; }, {.concurrency = {1, 3}});
    CHECK(q.drain(mailroom::clock::never));
    until([&] { return done == 100; });
    CHECK(c.running());
}

// ------------------------------------------------------------------------------- deliveries that left their handler

namespace {

/// Where handlers put deliveries that somebody else settles.
class shelf_of_deliveries {
public:
    void put(delivery<int> d) {
        const std::lock_guard lock(mutex_);
        held_.push_back(std::move(d));
        changed_.notify_all();
    }
    void await(std::size_t n) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return held_.size() >= n; });
    }
    delivery<int> take() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !held_.empty(); });
        delivery<int> d = std::move(held_.back());
        held_.pop_back();
        return d;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<delivery<int>> held_;
};

} // namespace

TEST_CASE("consumer: a drain waits for deliveries that a handler has moved elsewhere") {
    enum class ending { settled, dropped, too_late };
    for (const bool by_executor : {false, true}) {
        for (const ending end : {ending::settled, ending::dropped, ending::too_late}) {
            CAPTURE(by_executor);
            CAPTURE(static_cast<int>(end));
            watched_clock clock;
            auto o = on<int>(clock);
            o.lease = 0s;
            queue<int> q(o);
            shelf_of_deliveries shelf;
            consume_options how{.concurrency = {1, 2}, .prefetch = 3};
            if (by_executor) {
                how.executor = [](std::function<void()> f) { f(); };
            }
            auto c = q.consume([&](delivery<int> d) { shelf.put(std::move(d)); }, how);
            for (int i = 0; i < 3; ++i) { q.send(i); }
            shelf.await(3);
            CHECK_FALSE(c.drain(0s));
            CHECK_FALSE(c.running());
            CHECK(shelf.take().ack());
            CHECK_FALSE(c.drain(0s));
            auto second = shelf.take();
            CHECK(second.extend(1s));
            std::atomic<int> answer{-1};
            until([&] { return clock.parked() == 0; }); // the consumer's threads have gone
            std::thread drainer([&] { answer = c.drain(1h) ? 1 : 0; });
            clock.await_parked(1);
            CHECK(second.nack(2h));
            CHECK(answer == -1);
            if (end == ending::settled) {
                CHECK(shelf.take().reject("odd"));
            } else if (end == ending::dropped) {
                const auto last = shelf.take();
            } else {
                while (answer == -1) {
                    clock.advance(30min);
                    std::this_thread::yield();
                }
            }
            drainer.join();
            CHECK(answer == (end == ending::too_late ? 0 : 1));
            if (end == ending::settled) {
                CHECK(q.statistics().parked == 1);
                CHECK(q.dead().size() == 1);
            }
            if (end == ending::too_late) { shelf.take().release(); }
            CHECK(c.drain(mailroom::clock::never));
        }
    }
}

TEST_CASE("consumer: a drain waits for the holder of a delivery whose message others were given meanwhile") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.lease = 1s;
    queue<int> q(o);
    shelf_of_deliveries shelf;
    auto c = q.consume([&](delivery<int> d) { shelf.put(std::move(d)); });
    q.send(1);
    shelf.await(1);
    c.stop();
    clock.advance(1min);
    auto again = q.try_receive();
    REQUIRE(again);
    CHECK(again->attempt() == 2);
    CHECK_FALSE(c.drain(0s));
    CHECK_FALSE(shelf.take().ack());
    CHECK(c.drain(mailroom::clock::never));
    CHECK(again->ack());
}

TEST_CASE("consumer: its end does not wait for deliveries that are elsewhere, and they outlive everybody") {
    auto q = std::make_unique<queue<support::tracked>>();
    std::optional<delivery<support::tracked>> first, second;
    gate g;
    auto c = std::make_unique<consumer>(q->consume([&](delivery<support::tracked> d) {
        (d->value() == 1 ? first : second).emplace(std::move(d));
        g.pass();
    }));
    q->send(1);
    q->send(2);
    g.let(1);
    g.await(1);
    g.let(1);
    until([&] { return q->statistics().in_flight == 2 && g.inside() == 0; });
    SUBCASE("the consumer, then the queue") {
        c.reset();
        CHECK(q->statistics().in_flight == 2);
        CHECK(first->ack());
        CHECK(q->statistics().acked == 1);
        q.reset();
        CHECK(second->body().value() == 2);
        CHECK_FALSE(second->ack());
    }
    SUBCASE("the queue, then the consumer") {
        q.reset();
        CHECK_FALSE(c->drain(0s));
        CHECK_FALSE(first->extend(1s));
        CHECK_FALSE(first->ack());
        c.reset();
        CHECK_FALSE(second->extend(1s));
        second.reset();
    }
    SUBCASE("drained by whoever is last") {
        q.reset();
        first.reset();
        CHECK_FALSE(second->nack());
        CHECK(c->drain(mailroom::clock::never));
    }
    SUBCASE("the next consumer does not wait for those of the one before") {
        c.reset();
        auto next = q->consume([](delivery<support::tracked> d) { d.ack(); });
        q->send(3);
        until([&] { return q->statistics().acked == 1; });
        CHECK(next.drain(mailroom::clock::never));
        first.reset();
        CHECK(second->ack());
    }
    c.reset();
    q.reset();
    first.reset();
    second.reset();
    CHECK(support::tracked::live() == 0);
    CHECK(support::tracked::faults() == 0);
}

TEST_CASE("consumer: deliveries settled and extended by other threads while consumers come and go") {
    const int rounds = static_cast<int>(support::scaled(300));
    queue<int> q;
    std::atomic<int> acked{0};
    for (int i = 0; i < rounds; ++i) {
        std::optional<delivery<int>> at_work;
        std::atomic<bool> given{false}, extended{false};
        auto c = std::make_unique<consumer>(q.consume([&](delivery<int> d) {
            at_work.emplace(std::move(d));
            given = true;
        }));
        q.send(i);
        until([&] { return given.load(); });
        std::thread settles([&] {
            until([&] { return extended.load(); });
            acked += at_work->ack() ? 1 : 0;
        });
        std::thread extends([&] {
            for (int k = 0; k < 20; ++k) {
                at_work->extend(1min);
                extended = true;
            }
        });
        if (i % 2 == 0) {
            CHECK(c->drain(mailroom::clock::never));
            CHECK(q.statistics().acked == static_cast<std::uint64_t>(i) + 1);
        }
        c.reset();
        settles.join();
        extends.join();
    }
    CHECK(acked == rounds);
    CHECK(q.statistics().in_flight == 0);
}

TEST_CASE("consumer: with an executor a thread exists only once there is an instant to wait for") {
    const auto threads = [] {
        const std::filesystem::directory_iterator tasks("/proc/self/task");
        return std::distance(begin(tasks), end(tasks));
    };
    if (!std::filesystem::exists("/proc/self/task")) { return; }
    const auto before = threads(); // those of ended tests may still be going
    watched_clock clock;
    auto o = on<int>(clock);
    o.lease = 0s;
    consume_options how{.concurrency = {1, 4}, .executor = [](std::function<void()> f) { f(); }};
    int done = 0;
    SUBCASE("none for plain messages without leases") {
        queue<int> q(o);
        const auto c = q.consume([&](const int&) { ++done; }, how);
        for (int i = 0; i < 100; ++i) { q.send(i); }
        CHECK(done == 100);
        CHECK(threads() <= before);
    }
    SUBCASE("one for a lease") {
        o.lease = 1s;
        queue<int> q(o);
        const auto c = q.consume([&](const int&) { ++done; }, how);
        CHECK(threads() <= before);
        q.send(1);
        clock.await_parked(1);
        CHECK(done == 1);
    }
    SUBCASE("one for what is delayed") {
        queue<int> q(o);
        const auto c = q.consume([](const int&) {}, how);
        q.send(1, properties{.delay = 1s});
        clock.await_parked(1);
        CHECK(done == 0);
    }
    SUBCASE("one for a rate limit that is reached") {
        how.max_per_second = 2;
        queue<int> q(o);
        const auto c = q.consume([&](const int&) { ++done; }, how);
        q.send(1);
        CHECK(done == 1);
        CHECK(threads() <= before);
        q.send(2);
        clock.await_parked(1);
        CHECK(done == 2);
    }
}

// ------------------------------------------------------------------------------------------------------------ executors

TEST_CASE("consumer: with an executor, handlers run where it says and nowhere else") {
    queue<int> q;
    hand h;
    std::vector<int> seen;
    const auto here = std::this_thread::get_id();
    auto c = q.consume(
        [&](const int& i) {
            CHECK(std::this_thread::get_id() == here);
            seen.push_back(i);
        },
        {.executor = h.face()});
    CHECK(c.threads() == 0);
    std::thread([&] {
        for (int i = 0; i < 5; ++i) { q.send(i); }
    }).join();
    CHECK(seen.empty());
    CHECK(h.size() == 1);
    CHECK(q.statistics().in_flight == 0); // taken when it runs, not before
    CHECK(h.run_one());
    CHECK(seen == std::vector<int>{0});
    CHECK(h.size() == 1);
    h.run();
    CHECK(seen == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(q.statistics().acked == 5);
    q.send(5);
    c.stop();
    h.run();
    CHECK(seen.size() == 5);
    CHECK(q.statistics().ready == 1);
}

TEST_CASE("consumer: an executor is asked for as many at once as allowed") {
    queue<int> q;
    hand h;
    int done = 0;
    auto c = q.consume([&](const int&) { ++done; }, {.concurrency = {1, 3}, .executor = h.face()});
    for (int i = 0; i < 10; ++i) { q.send(i); }
    CHECK(h.size() == 1); // whoever starts one asks for the next
    CHECK(h.run_one());
    CHECK(h.size() >= 2);
    CHECK(h.size() <= 3);
    h.run();
    CHECK(done == 10);
}

TEST_CASE("consumer: an executor that runs on the spot does not recurse without bound") {
    queue<int> q;
    const int many = static_cast<int>(support::scaled(100'000));
    int done = 0;
    auto c = q.consume(
        [&](const int& i) {
            ++done;
            if (i > 0) { q.send(i - 1); }
        },
        {.executor = [](std::function<void()> f) { f(); }});
    q.send(many);
    CHECK(done == many + 1);
    for (int i = 0; i < 100; ++i) { q.send(0); }
    CHECK(done == many + 101);
}

TEST_CASE("consumer: an executor that drops what it was given ends the consumer") {
    queue<int> q;
    hand h;
    auto c = q.consume([](const int&) {}, {.executor = h.face()});
    q.send(1);
    h.drop();
    CHECK_FALSE(c.running());
    CHECK(q.statistics().ready == 1);
    CHECK(c.drain(0s));
}

TEST_CASE("consumer: an executor that throws is asked again") {
    watched_clock clock;
    queue<int> q(on<int>(clock));
    bool broken = true;
    std::atomic<int> errors{0};
    std::atomic<int> done{0};
    consume_options how;
    how.executor = [&](std::function<void()> f) {
        if (broken) { throw std::bad_alloc(); }
        f();
    };
    how.on_error = [&](std::exception_ptr) { ++errors; };
    auto c = q.consume([&](const int&) { ++done; }, how);
    q.send(1);
    CHECK(errors == 1);
    CHECK(done == 0);
    broken = false;
    clock.await_parked(1);
    clock.advance(1s);
    until([&] { return done == 1; });
}

TEST_CASE("consumer: retries and leases go on under an executor") {
    watched_clock clock;
    auto o = on<int>(clock);
    o.retry.initial = 1s;
    o.lease = 30s;
    queue<int> q(o);
    hand h;
    int calls = 0;
    auto c = q.consume(
        [&](const int&) {
            if (++calls == 1) { throw 1; }
            for (int i = 0; i < 9; ++i) { clock.advance(10s, 1); } // the keeper
            CHECK_FALSE(q.try_receive());
        },
        {.executor = h.face()});
    q.send(1);
    h.run();
    CHECK(calls == 1);
    CHECK(q.statistics().parked == 1);
    clock.advance(1s);
    until([&] { return h.size() == 1; });
    clock.await_parked(1);
    h.run();
    CHECK(calls == 2);
    CHECK(q.statistics().acked == 1);
}

// --------------------------------------------------------------------------------------------------------------- stress

TEST_CASE("consumer: a message sent while one consumer stops is handled by the other") {
    const std::size_t rounds = support::scaled(2000);
    queue<int> q;
    std::atomic<int> done{0};
    auto stays = q.consume([&](const int&) { ++done; });
    for (std::size_t i = 0; i < rounds; ++i) {
        auto goes = q.consume([&](const int&) { ++done; }, {.concurrency = {1, 2}});
        std::atomic<bool> go{false};
        std::thread stopper([&] {
            until([&] { return go.load(); });
            goes.stop();
        });
        go = true;
        q.send(static_cast<int>(i));
        stopper.join();
        until([&] { return done == static_cast<int>(i) + 1; });
    }
}

TEST_CASE("consumer: consumers that come and go lose nothing") {
    const int total = static_cast<int>(support::scaled(20'000));
    mailroom::queue_options<support::tracked> o;
    o.retry = {.max_attempts = 0, .initial = 0s};
    {
        queue<support::tracked> q(o);
        std::vector<std::atomic<int>> acked(static_cast<std::size_t>(total));
        std::atomic<int> done{0}, calls{0};
        std::atomic<bool> over{false};
        const auto handler = [&](delivery<support::tracked> d) {
            const int v = d->value();
            if (++calls % 7 == 0) { throw v; }
            if (d.ack()) {
                ++acked[static_cast<std::size_t>(v)];
                ++done;
            }
        };
        std::vector<std::thread> crew;
        for (int k = 0; k < 3; ++k) {
            crew.emplace_back([&, k] {
                for (int round = 0; !over; ++round) {
                    consume_options how{.concurrency = {1, 1 + (round + k) % 3}, .prefetch = static_cast<std::size_t>(1 + (round * 7) % 40)};
                    how.max_per_key = static_cast<std::size_t>(round % 2);
                    if (k == 2 && round % 3 == 0) {
                        how.executor = [](std::function<void()> f) { f(); };
                    }
                    auto c = q.consume(handler, how);
                    const int enough = std::min(total, done.load() + 200);
                    until([&] { return done.load() >= enough || over; });
                    if (round % 4 == 0) { c.stop(); }
                    if (round % 4 == 1) { CHECK(c.drain(mailroom::clock::never)); }
                }
            });
        }
        for (int i = 0; i < total; ++i) { q.send(i, properties{.key = std::to_string(i % 5)}); }
        until([&] { return done == total; });
        over = true;
        for (auto& t : crew) { t.join(); }
        CHECK(std::all_of(acked.begin(), acked.end(), [](const auto& n) { return n == 1; }));
        CHECK(q.statistics().acked == static_cast<std::uint64_t>(total));
    }
    CHECK(support::tracked::live() == 0);
    CHECK(support::tracked::faults() == 0);
}
