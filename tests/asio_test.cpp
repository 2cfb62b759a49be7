// Receiving with Boost.Asio's completion tokens, its cancellation, its timers; and a context as an executor.

// g++ 12 with a sanitizer takes the uninitialised state of Boost's use_future for read.
#if defined(__GNUC__) && !defined(__clang__)
# pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <mailroom/asio.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/request.hpp>
#include <mailroom/testing.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace asio = boost::asio;
using namespace std::chrono_literals;
using boost::system::error_code;
using mailroom::delivery;
using mailroom::properties;
using mailroom::queue;

namespace {

using received = std::optional<delivery<int>>;

/// A coroutine that receives until the queue is closed.
asio::awaitable<void> take_all(queue<int>& q, std::vector<int>& out) {
    while (auto d = co_await mailroom::async_receive(q, asio::use_awaitable)) {
        out.push_back(**d);
        d->ack();
    }
}

} // namespace

TEST_CASE("async_receive: completes with what there is, what comes, and the end") {
    asio::io_context context;
    queue<int> q;
    std::vector<int> got;
    q.send(1);
    asio::co_spawn(context, take_all(q, got), asio::detached);
    context.poll();
    CHECK(got == std::vector<int>{1});
    q.send(2);
    q.send(3);
    CHECK(got.size() == 1); // not in the sender's call
    context.poll();
    CHECK(got == std::vector<int>{1, 2, 3});
    CHECK_FALSE(context.stopped());
    q.close();
    context.run();
    CHECK(q.statistics().acked == 3);
}

TEST_CASE("async_receive: the queue may go meanwhile") {
    asio::io_context context;
    auto q = std::make_unique<queue<int>>();
    bool done = false;
    mailroom::async_receive(context, *q, [&](error_code e, received d) {
        CHECK_FALSE(e);
        CHECK_FALSE(d);
        done = true;
    });
    context.poll();
    q.reset();
    context.run();
    CHECK(done);
}

TEST_CASE("async_receive: a callback is called on its executor, never from the initiating function") {
    asio::io_context context, other;
    queue<int> q;
    q.send(1);
    int got = 0;
    mailroom::async_receive(context, q, asio::bind_executor(other, [&](error_code, received d) { got = **d; }));
    CHECK(got == 0);
    other.run();
    CHECK(got == 1);
    CHECK(q.statistics().in_flight == 0); // nacked by its destructor
}

TEST_CASE("async_receive: futures and deferred operations") {
    asio::io_context context;
    queue<int> q;
    std::future<received> f = mailroom::async_receive(context, q, asio::use_future);
    auto later = mailroom::async_receive(context, q, asio::deferred);
    std::thread runner([&] { context.run(); });
    q.send(1);
    auto first = f.get();
    REQUIRE(first);
    CHECK(first->ack());
    runner.join();
    q.send(2);
    int second = 0;
    std::move(later)([&](error_code, received d) {
        second = **d;
        d->ack();
    });
    context.restart();
    context.run();
    CHECK(second == 2);
}

TEST_CASE("async_receive: cancelled") {
    asio::io_context context;
    queue<int> q;
    asio::cancellation_signal signal;
    error_code why;
    bool done = false;
    const auto start = [&] {
        mailroom::async_receive(context, q, asio::bind_cancellation_slot(signal.slot(), [&](error_code e, received d) {
                                    why = e;
                                    CHECK_FALSE(d);
                                    done = true;
                                }));
    };
    start();
    SUBCASE("before it began") {}
    SUBCASE("while it waits") { context.poll(); }
    signal.emit(asio::cancellation_type::total);
    context.run();
    CHECK(done);
    CHECK(why == asio::error::operation_aborted);
    signal.emit(asio::cancellation_type::total); // of nothing
    q.send(1);
    CHECK(q.try_receive());
}

TEST_CASE("async_receive: a message that came before the cancellation is not lost") {
    asio::io_context context;
    queue<int> q;
    asio::cancellation_signal signal;
    int got = 0;
    mailroom::async_receive(context, q, asio::bind_cancellation_slot(signal.slot(), [&](error_code e, received d) {
                                CHECK_FALSE(e);
                                got = d ? **d : -1;
                            }));
    context.poll();
    q.send(1);
    signal.emit(asio::cancellation_type::terminal);
    context.run();
    CHECK(got == 1);
}

TEST_CASE("async_receive: delayed messages arrive with nobody else calling in") {
    asio::io_context context;
    queue<int> q;
    std::vector<int> got;
    asio::co_spawn(context, take_all(q, got), asio::detached);
    context.poll();
    SUBCASE("sent while it waits") { q.send(1, properties{.delay = 20ms}); }
    SUBCASE("a second, sooner one") {
        q.send(1, properties{.delay = 1h});
        context.poll();
        q.send(2, properties{.delay = 10ms});
    }
    while (got.empty()) { context.run_one(); }
    CHECK(q.statistics().acked == 1);
    q.purge();
    q.close();
    context.run();
}

TEST_CASE("async_receive: time that is driven by hand") {
    mailroom::testing::manual_clock clock;
    mailroom::queue_options<int> o;
    o.clock = &clock;
    queue<int> q(o);
    asio::io_context context;
    std::vector<int> got;
    asio::co_spawn(context, take_all(q, got), asio::detached);
    q.send(1, properties{.delay = 1h});
    context.poll();
    CHECK(got.empty());
    clock.advance(1h);
    context.poll();
    CHECK(got == std::vector<int>{1});
    q.close();
    context.run();
}

TEST_CASE("async_receive: a context that is destroyed takes its operations along") {
    queue<int> q;
    bool called = false;
    {
        asio::io_context context;
        mailroom::async_receive(context, q, [&](error_code, received) { called = true; });
        mailroom::async_receive(context, q, [&](error_code, received) { called = true; });
        context.poll();
        SUBCASE("waiting") {}
        SUBCASE("woken") { q.send(1); }
    }
    q.send(2);
    CHECK_FALSE(called);
    CHECK(q.try_receive());
}

TEST_CASE("async_receive: many at once, on many threads") {
    queue<int> q;
    std::atomic<int> sum{0}, count{0};
    constexpr int total = 5000;
    {
        asio::thread_pool pool(3);
        for (int i = 0; i < 4; ++i) {
            asio::co_spawn(
                pool,
                [&]() -> asio::awaitable<void> {
                    while (auto d = co_await mailroom::async_receive(q, asio::use_awaitable)) {
                        sum += **d;
                        ++count;
                        d->ack();
                    }
                },
                asio::detached);
        }
        for (int i = 1; i <= total; ++i) { q.send(i); }
        q.close();
        pool.join();
    }
    CHECK(count == total);
    CHECK(sum == total * (total + 1) / 2);
}

TEST_CASE("async_receive: cancelled and sent to at the same time, nothing is lost") {
    queue<int> q;
    asio::thread_pool pool(2);
    for (int i = 0; i < 500; ++i) {
        auto strand = asio::make_strand(pool);
        asio::cancellation_signal signal;
        std::promise<bool> outcome;
        asio::dispatch(strand, [&] {
            mailroom::async_receive(q, asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(strand, [&](error_code, received d) {
                                                                        if (d) { d->ack(); }
                                                                        outcome.set_value(d.has_value());
                                                                    })));
        });
        std::thread sender([&] { q.send(i); });
        asio::post(strand, [&] { signal.emit(asio::cancellation_type::total); });
        const bool got = outcome.get_future().get();
        sender.join();
        CHECK(q.try_pop().has_value() == !got);
        std::promise<void> quiet; // whoever uses the signal has done so
        asio::post(strand, [&] { quiet.set_value(); });
        quiet.get_future().wait();
    }
    pool.join();
    CHECK(q.statistics().ready == 0);
}

TEST_CASE("asio_executor: handlers run in the context, which runs until the consumer stops") {
    asio::io_context context;
    queue<int> q;
    const auto here = std::this_thread::get_id();
    int done = 0;
    mailroom::consumer c = q.consume(
        [&](const int& i) {
            CHECK(std::this_thread::get_id() == here);
            ++done;
            if (i == 3) { c.stop(); }
        },
        {.executor = mailroom::asio_executor(context)});
    std::thread sender([&] {
        for (int i = 1; i <= 3; ++i) { q.send(i); }
    });
    context.run();
    sender.join();
    CHECK(done == 3);
    CHECK(c.threads() == 0);
}

TEST_CASE("asio_executor: a retry after its pause, in a context with nothing else to do") {
    mailroom::queue_options<int> o;
    o.retry.initial = 5ms;
    queue<int> q(o);
    asio::io_context context;
    int calls = 0;
    mailroom::consumer c = q.consume(
        [&](const int&) {
            if (++calls < 3) { throw calls; }
            c.stop();
        },
        {.executor = mailroom::asio_executor(context)});
    q.send(1);
    context.run();
    CHECK(calls == 3);
}

TEST_CASE("asio_executor: a context that is destroyed with a task ends the consumer") {
    queue<int> q;
    auto context = std::make_unique<asio::io_context>();
    auto c = q.consume([](const int&) {}, {.executor = mailroom::asio_executor(*context)});
    q.send(1);
    context.reset();
    CHECK_FALSE(c.running());
    CHECK(q.statistics().ready == 1);
}

namespace {

/// Time as it is set; who uses it is not driven by it.
struct set_clock final : mailroom::clock {
    std::atomic<mailroom::duration> at{mailroom::duration(1h)};
    mailroom::duration now() const noexcept override { return at; }
    mailroom::duration coarse() const noexcept override { return at; }
    mailroom::time_point wall() const noexcept override {
        return mailroom::time_point(std::chrono::duration_cast<mailroom::time_point::duration>(at.load()));
    }
    void park(std::atomic<std::uint32_t>&, std::uint32_t, mailroom::duration) noexcept override { std::this_thread::yield(); }
    void unpark(std::atomic<std::uint32_t>&) noexcept override {}
    void relax(unsigned) noexcept override { std::this_thread::yield(); }
    mailroom::duration patience() const noexcept override { return mailroom::duration(1us); }
};

} // namespace

TEST_CASE("asio_timekeeper: who waits for an answer without a thread learns in time that his time is over") {
    asio::io_context context;
    set_clock clock;
    queue<int> q({.clock = &clock});
    mailroom::requester<int, int> ask{q};
    std::vector<int> over;
    const auto wait = [&](int which, mailroom::duration limit) {
        ask.async(which, limit).then([&over, which](const mailroom::result<int>& r) {
            if (!r && r.error() == mailroom::errc::timed_out) { over.push_back(which); }
        });
    };
    wait(1, 3s);
    {
        mailroom::asio_timekeeper keep{context, clock};
        wait(2, 6s);
        wait(3, 1s); // before what is planned
        CHECK(over.empty());
        clock.at = clock.at.load() + 6s;
        context.run(); // until there is nothing to be waited for
        std::sort(over.begin(), over.end());
        CHECK(over == std::vector<int>{1, 2, 3});
        CHECK(q.statistics().ready == 0);
        context.restart();
        wait(4, 2h);
        context.poll();
        CHECK_FALSE(context.stopped()); // it waits
    }
    context.run();
    CHECK(over.size() == 3);
    ask.close(); // as long as what it calls is there
}

TEST_CASE("asio_timekeeper: who waits is called in the context") {
    asio::io_context context;
    set_clock clock;
    queue<int> q({.clock = &clock});
    mailroom::requester<int, int> ask{q};
    mailroom::asio_timekeeper keep{context, clock};
    std::thread::id where, loop;
    mailroom::errc why{};
    ask.async(1, 1s).then([&](const mailroom::result<int>& r) {
        where = std::this_thread::get_id();
        why = r.error().kind();
    });
    clock.at = clock.at.load() + 1s;
    std::thread running([&] {
        loop = std::this_thread::get_id();
        context.run();
    });
    running.join();
    CHECK(why == mailroom::errc::timed_out);
    CHECK(where == loop);
}
