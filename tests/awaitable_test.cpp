// co_await q.next() and co_await q.send_async(v).
#include "support/coroutines.hpp"
#include "support/environment.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::properties;
using mailroom::queue;
using support::task;
using support::loose;

namespace {

task take_all(queue<std::string>& q, std::vector<std::string>& out, mailroom::stop_token stop = mailroom::stop_token()) {
    while (auto d = co_await q.next(stop)) {
        out.push_back(**d);
        d->ack();
    }
}

} // namespace

TEST_CASE("next: what is there is received without suspending") {
    queue<std::string> q;
    q.send("a");
    std::vector<std::string> got;
    const auto t = [](queue<std::string>& from, std::vector<std::string>& out) -> task {
        auto d = co_await from.next();
        out.push_back(**d);
        d->ack();
    }(q, got);
    CHECK(t.done());
    CHECK(got == std::vector<std::string>{"a"});
    CHECK(q.statistics().acked == 1);
}

TEST_CASE("next: suspended, it is resumed inside the call that sends") {
    queue<std::string> q;
    std::vector<std::string> got;
    const task t = take_all(q, got);
    CHECK_FALSE(t.done());
    for (const char* s : {"a", "b", "c"}) {
        q.send(s);
        CHECK(got.back() == s);
    }
    q.send("d", properties{.key = "k"});
    CHECK(got.size() == 4);
    q.close();
    CHECK(t.done());
    CHECK(q.statistics().acked == 4);
}

TEST_CASE("next: several wait, each message wakes one") {
    queue<std::string> q;
    std::vector<std::string> got;
    std::vector<task> tasks;
    for (int i = 0; i < 3; ++i) {
        tasks.push_back([](queue<std::string>& from, std::vector<std::string>& out) -> task {
            auto d = co_await from.next();
            if (d) {
                out.push_back(**d);
                d->ack();
            }
        }(q, got));
    }
    q.send("a");
    q.send("b");
    CHECK(got == std::vector<std::string>{"a", "b"});
    CHECK(tasks[0].done());
    CHECK(tasks[1].done());
    CHECK_FALSE(tasks[2].done());
    q.close();
    CHECK(tasks[2].done());
}

TEST_CASE("next: ends with its stop token") {
    queue<std::string> q;
    std::vector<std::string> got;
    mailroom::stop_source stop;
    SUBCASE("before") {
        stop.request_stop();
        const task t = take_all(q, got, stop.get_token());
        CHECK(t.done());
    }
    SUBCASE("while it is suspended") {
        const task t = take_all(q, got, stop.get_token());
        q.send("a");
        CHECK_FALSE(t.done());
        stop.request_stop();
        CHECK(t.done());
        CHECK(got.size() == 1);
        q.send("b");
        CHECK(q.try_receive());
    }
    SUBCASE("after") {
        {
            const task t = take_all(q, got, stop.get_token());
            q.close();
            CHECK(t.done());
        }
        stop.request_stop();
    }
}

TEST_CASE("next: ends with its queue") {
    std::vector<std::string> got;
    std::optional<queue<std::string>> q(std::in_place);
    const auto t = [](queue<std::string>& from, bool& nothing) -> task {
        const auto d = co_await from.next();
        nothing = !d;
    };
    bool nothing = false;
    const task waiting = t(*q, nothing);
    SUBCASE("closed") { q->close(); }
    SUBCASE("destroyed") { q.reset(); }
    CHECK(waiting.done());
    CHECK(nothing);
}

TEST_CASE("next: closed with a message in flight, it waits for what becomes of that") {
    queue<std::string> q;
    q.send("a");
    auto d = q.try_receive();
    q.close();
    std::vector<std::string> got;
    const task t = take_all(q, got);
    CHECK_FALSE(t.done());
    SUBCASE("acknowledged") {
        d->ack();
        CHECK(got.empty());
    }
    SUBCASE("back") {
        d->nack(0s);
        CHECK(got == std::vector<std::string>{"a"});
    }
    CHECK(t.done());
}

TEST_CASE("next: destroyed while suspended, it leaves nothing behind") {
    queue<std::string> q;
    std::vector<std::string> got;
    mailroom::stop_source stop;
    {
        const task a = take_all(q, got), b = take_all(q, got, stop.get_token());
        CHECK_FALSE(a.done());
    }
    stop.request_stop();
    q.send("a");
    CHECK(got.empty());
    CHECK(q.try_receive());
    {
        std::optional<queue<std::string>> gone(std::in_place);
        std::vector<task> tasks;
        tasks.push_back(take_all(*gone, got));
        tasks.clear();
        gone.reset();
    }
}

TEST_CASE("next: delayed messages, in time that is driven by hand") {
    mailroom::testing::manual_clock clock;
    mailroom::queue_options<std::string> o;
    o.clock = &clock;
    queue<std::string> q(o);
    std::vector<std::string> got;
    const task t = take_all(q, got);
    q.send("late", properties{.delay = 2h});
    q.send("soon", properties{.delay = 1h});
    q.send("now");
    CHECK(got == std::vector<std::string>{"now"});
    clock.advance(1h);
    CHECK(got == std::vector<std::string>{"now", "soon"});
    clock.advance(1h);
    CHECK(got == std::vector<std::string>{"now", "soon", "late"});
    q.close();
    CHECK(t.done());
}

TEST_CASE("next: on an executor it is resumed there") {
    queue<std::string> q;
    std::deque<std::function<void()>> tasks;
    const mailroom::executor where = [&tasks](std::function<void()> f) { tasks.push_back(std::move(f)); };
    std::vector<std::string> got;
    const auto t = [](queue<std::string>& from, std::vector<std::string>& out, const mailroom::executor& place) -> task {
        while (auto d = co_await from.next().on(place)) {
            out.push_back(**d);
            d->ack();
        }
    }(q, got, where);
    std::thread([&] { q.send("a"); }).join();
    CHECK(got.empty());
    REQUIRE(tasks.size() == 1);
    tasks.front()();
    tasks.pop_front();
    CHECK(got == std::vector<std::string>{"a"});
    CHECK_FALSE(t.done());
    q.close();
    while (!tasks.empty()) {
        auto f = std::move(tasks.front());
        tasks.pop_front();
        f();
    }
    CHECK(t.done());
}

TEST_CASE("next: on an executor, named in one expression") {
    queue<std::string> q;
    bool done = false;
    const auto t = [](queue<std::string>& from, bool& flag) -> task {
        auto d = co_await from.next().on([](std::function<void()> f) { f(); });
        flag = d && d->ack();
    }(q, done);
    q.send("a");
    CHECK(done);
}

TEST_CASE("next: two coroutines that answer each other do not grow the stack") {
    const int rounds = static_cast<int>(support::scaled(100'000));
    queue<int> ping, pong;
    int last = 0;
    const auto player = [](queue<int>& from, queue<int>& to, int limit, int& seen) -> task {
        while (auto d = co_await from.next()) {
            seen = **d;
            d->ack();
            if (seen < limit) {
                to.send(seen + 1);
            } else {
                from.close();
                to.close();
            }
        }
    };
    const task a = player(ping, pong, rounds, last);
    const task b = player(pong, ping, rounds, last);
    ping.send(1);
    CHECK(last == rounds);
    CHECK(a.done());
    CHECK(b.done());
}

TEST_CASE("next: a coroutine may destroy its queue") {
    auto q = std::make_unique<queue<int>>();
    bool done = false;
    const auto t = [](std::unique_ptr<queue<int>>& from, bool& flag) -> task {
        auto d = co_await from->next();
        from.reset();
        flag = **d == 1 && !d->ack();
    }(q, done);
    q->send(1);
    CHECK(done);
}

TEST_CASE("send_async: awaited") {
    queue<std::string> q;
    std::uint64_t first = 9, second = 9, third = 9;
    bool refused = false;
    const auto t = [&]() -> task {
        first = co_await q.send_async("a");
        properties p{.key = "k", .id = "a long identifier that owns memory"};
        second = co_await q.send_async(std::string(100, 'b'), p);
        auto r = q.send_async("c", {.key = "another key that owns its memory"});
        third = co_await r;
        q.close();
        try {
            co_await q.send_async("d");
        } catch (const mailroom::error& e) { refused = e.kind() == mailroom::errc::closed; }
    }();
    CHECK(t.done());
    CHECK(first == 0);
    CHECK(second == 1);
    CHECK(third == 2);
    CHECK(refused);
    CHECK(q.statistics().ready == 3);
}

TEST_CASE("next: many coroutines, senders and stops on many threads") {
    const int total = static_cast<int>(support::scaled(20'000));
    constexpr int coroutines = 8;
    {
        queue<support::tracked> q;
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(total));
        std::atomic<int> taken{0}, alive{0};
        std::atomic<bool> over{false};
        const auto worker = [&](mailroom::stop_token stop) -> loose {
            ++alive;
            while (auto d = co_await q.next(stop)) {
                ++seen[static_cast<std::size_t>(d->body().value())];
                d->ack();
                ++taken;
            }
            --alive;
        };
        std::vector<std::thread> crew;
        for (int k = 0; k < 2; ++k) {
            crew.emplace_back([&, k] {
                for (int i = k; i < total; i += 2) { q.send(i); }
            });
        }
        crew.emplace_back([&] {
            while (!over) {
                mailroom::stop_source stop;
                for (int i = 0; i < coroutines; ++i) { worker(stop.get_token()); }
                const int enough = std::min(total, taken.load() + 100);
                while (taken < enough) { std::this_thread::yield(); }
                stop.request_stop();
                while (alive != 0) { std::this_thread::yield(); }
            }
        });
        while (taken < total) { std::this_thread::yield(); }
        over = true;
        for (auto& t : crew) { t.join(); }
        CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }));
    }
    CHECK(support::tracked::live() == 0);
    CHECK(support::tracked::faults() == 0);
}
