// Every verb of a queue in memory, in ordinary use and at its edges. Time is a manual_clock's.
#include "support/blocked.hpp"
#include "support/eventually.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::delivery;
using mailroom::duration;
using mailroom::errc;
using mailroom::message;
using mailroom::message_state;
using mailroom::offset;
using mailroom::queue;
using mailroom::queue_options;
using mailroom::testing::manual_clock;
using support::tracked;
using support::blocked;

namespace {

struct order {
    int id;
    std::string symbol;
    double price;
};
struct throwing_move {
    explicit throwing_move(int v) : value(v) {}
    throwing_move(throwing_move&& other) noexcept(false) : value(std::exchange(other.value, -1)) {}
    throwing_move& operator=(throwing_move&& other) noexcept(false) {
        value = std::exchange(other.value, -1);
        return *this;
    }
    int value;
};
struct big {
    std::array<int, 16'384> numbers{};
};
struct immovable {
    immovable() = default;
    immovable(immovable&&) = delete;
};
static_assert(!mailroom::message_body<immovable> && !mailroom::message_body<int&> && !mailroom::message_body<const int> &&
              !mailroom::message_body<int[3]>);
static_assert(mailroom::message_body<std::unique_ptr<int>> && mailroom::message_body<throwing_move>);
static_assert(!std::is_copy_constructible_v<queue<int>> && std::is_nothrow_move_constructible_v<queue<int>>);

template <class Act>
errc thrown_by(Act act) {
    try {
        act();
    } catch (const mailroom::error& e) { return e.kind(); }
    return errc{};
}

template <class T>
std::vector<T> popped(queue<T>& q) {
    std::vector<T> all;
    while (auto m = q.try_pop()) { all.push_back(std::move(*m).take()); }
    return all;
}

} // namespace

// -------------------------------------------------------------------------------------------------------------------------- bodies

TEST_CASE("queue: five minutes of use") {
    manual_clock clock;
    queue<order> orders({.clock = &clock});
    CHECK(orders.send({1, "AAPL", 189.2}) == 0);
    CHECK(orders.send({2, "MSFT", 411.0}, {.key = "MSFT", .delay = 5s, .time_to_live = 1min, .priority = 7}) == 1);
    {
        auto d = orders.receive_for(100ms);
        REQUIRE(d);
        CHECK(d->body().symbol == "AAPL");
        CHECK((**d).id == 1);
        CHECK(d->attempt() == 1);
        CHECK(d->offset() == 0);
        CHECK(d->partition() == 0);
        CHECK(d->timestamp() == clock.wall());
        CHECK(d->props() == mailroom::properties());
        CHECK(d->ack());
    }
    CHECK(!orders.try_pop());
    clock.advance(5s);
    const std::optional<message<order>> m = orders.try_pop();
    REQUIRE(m);
    CHECK(m->body().id == 2);
    CHECK(m->props().key == "MSFT");
    CHECK(m->props().priority == 7);
    CHECK(m->offset() == 1);
    CHECK(m->timestamp() == clock.wall() - 5s);
}

TEST_CASE("queue: a move-only body passes through every verb") {
    queue<std::unique_ptr<int>> q;
    q.send(std::make_unique<int>(0));
    q.send(std::make_unique<int>(1), {.key = "k"});
    CHECK(q.try_send(std::make_unique<int>(2)));
    CHECK(q.send_for(1s, std::make_unique<int>(3)));
    q.emplace(new int(4));
    std::vector<std::unique_ptr<int>> more;
    more.push_back(std::make_unique<int>(5));
    more.push_back(std::make_unique<int>(6));
    const auto send_all = [&](auto&& range) -> offset {
        if constexpr (requires { q.send_many(std::move(range)); }) { return q.send_many(std::move(range)); }
        return mailroom::no_offset;
    };
    CHECK(send_all(std::move(more)) == 5);
    CHECK(q.send_async(std::make_unique<int>(7)).wait() == 7);
    auto d = q.try_receive();
    CHECK(**d.value() == 0);
    CHECK(d->nack(0s));
    int next = 0;
    for (auto& body : popped(q)) { CHECK(*body == next++); }
    CHECK(next == 8);
}

TEST_CASE("queue: a body whose move may throw, and one of 64 KiB, stand in a box") {
    queue<throwing_move> q({.max_messages = 2});
    q.send(throwing_move(1));
    q.emplace(2);
    CHECK(q.try_receive()->body().value == 1);
    auto d = q.try_receive();
    CHECK(d->body().value == 2);
    d->ack();
    queue<big> large;
    auto b = std::make_unique<big>();
    b->numbers.back() = 7;
    large.send(*b);
    large.send_many(std::vector<big>(2, *b));
    CHECK(large.try_receive()->body().numbers.back() == 7);
    CHECK(large.try_pop()->body().numbers.back() == 7);
    CHECK(std::move(*large.try_pop()).take().numbers.back() == 7);
}

TEST_CASE("queue: strings of every length arrive whole, and buffers are not mixed up") {
    queue<std::string> q;
    std::vector<std::string> sent;
    for (std::size_t i = 0; i < 300; ++i) { sent.push_back(std::string((i * 37) % 3000, static_cast<char>('a' + i % 26))); }
    for (const auto& s : sent) { q.send(s); }
    for (const auto& s : sent) {
        auto d = q.try_receive();
        REQUIRE(d);
        CHECK(d->body() == s);
        if (s.size() % 3 == 0) {
            d->ack();
        } else {
            d->release();
            CHECK(q.try_pop()->body() == s);
        }
    }
    q.emplace(std::size_t{5}, 'x');
    q.send("literal");
    CHECK(popped(q) == std::vector<std::string>{"xxxxx", "literal"});
}

TEST_CASE("queue: each body ends once, when its message is settled") {
    const long live = tracked::live(), faults = tracked::faults();
    {
        queue<tracked> q;
        for (int i = 0; i < 100; ++i) { q.send(tracked(i)); }
        CHECK(tracked::live() == live + 100);
        for (int i = 0; i < 30; ++i) { q.try_receive()->ack(); }
        CHECK(tracked::live() == live + 70);
        for (int i = 30; i < 60; ++i) { q.try_pop(); }
        CHECK(tracked::live() == live + 40);
        q.try_receive()->reject();
        CHECK(tracked::live() == live + 40);
        CHECK(q.dead().purge() == 1);
        CHECK(tracked::live() == live + 39);
        auto held = q.try_receive();
        CHECK(q.purge() == 39);
        CHECK(tracked::live() == live + 1); // in the hands of its holder
        CHECK(held->body().value() == 61);
        CHECK(!held->ack());
        CHECK(tracked::live() == live);
        for (int i = 0; i < 100; ++i) { q.send(tracked(i)); }
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}

// ------------------------------------------------------------------------------------------------------------------------- sending

TEST_CASE("send: offsets are dense, whichever verb sends") {
    queue<int> q;
    const int value = 1;
    CHECK(q.send(1) == 0);
    CHECK(q.send(2, {.key = "k"}) == 1);
    CHECK(*q.try_send(3) == 2);
    CHECK(*q.try_send(value) == 3);
    CHECK(*q.try_send(value, {.key = "k"}) == 4);
    CHECK(*q.send_for(0s, value) == 5);
    CHECK(*q.send_for(0s, 1, {.key = "k"}) == 6);
    CHECK(q.emplace(7) == 7);
    CHECK(q.send_async(1).wait() == 8);
    CHECK(q.send_async(1, {.key = "k"}).wait() == 9);
    CHECK(q.send_many(std::vector<int>{1, 2, 3}) == 10);
    CHECK(q.send(1, mailroom::properties(), mailroom::stop_token()) == 13);
    CHECK(q.statistics().sent == 14);
}

TEST_CASE("send_many: from anything that can be walked; an rvalue that owns its elements gives them up, an lvalue does not") {
    queue<std::string> q;
    std::vector<std::string> v{"long enough to be on the heap: one", "long enough to be on the heap: two"};
    CHECK(q.send_many(v) == 0);
    CHECK(v[0] == "long enough to be on the heap: one");
    CHECK(q.send_many(std::as_const(v)) == 2);
    CHECK(q.send_many(std::list<std::string>{"a", "b"}) == 4);
    const std::array<const char*, 2> convertible{"c", "d"};
    CHECK(q.send_many(convertible) == 6);
    CHECK(q.send_many(std::views::all(v)) == 8); // a view owns nothing
    CHECK(v[1] == "long enough to be on the heap: two");
    CHECK(q.send_many(v | std::views::transform([](const std::string& s) { return s.substr(0, 4); })) == 10);
    CHECK(q.send_many(std::move(v)) == 12);
    CHECK(v[0].empty());                                  // NOLINT: that is the question
    CHECK(q.send_many(std::vector<std::string>()) == 14); // the next offset
    CHECK(q.statistics().sent == 14);
    std::vector<std::string> out = popped(q);
    CHECK(out.size() == 14);
    CHECK(out[13] == "long enough to be on the heap: two");
    CHECK(out[10] == "long");
}

TEST_CASE("send_many: all or none, in a row; more than there may ever be is too large") {
    queue<int> q({.max_messages = 4, .overflow = mailroom::overflow::reject});
    q.send(0);
    std::vector<int> four{1, 2, 3, 4};
    CHECK(thrown_by([&] { q.send_many(four); }) == errc::full);
    CHECK(q.statistics().sent == 1);
    CHECK(q.send_many(std::vector<int>{1, 2, 3}) == 1);
    CHECK(thrown_by([&] { q.send_many(std::vector<int>(5)); }) == errc::too_large);
    std::vector<int> kept{7, 8};
    CHECK_THROWS_AS(q.send_many(std::move(kept)), mailroom::error);
    CHECK(popped(q) == std::vector<int>{0, 1, 2, 3});
}

TEST_CASE_TEMPLATE("try_send: keeps its argument on failure", T, std::string, std::unique_ptr<int>, throwing_move) {
    const auto make = [] {
        if constexpr (std::is_same_v<T, std::string>) {
            return std::string(100, 'x');
        } else if constexpr (std::is_same_v<T, throwing_move>) {
            return throwing_move(7);
        } else {
            return std::make_unique<int>(7);
        }
    };
    const auto whole = [](const T& v) {
        if constexpr (std::is_same_v<T, std::string>) {
            return v == std::string(100, 'x');
        } else if constexpr (std::is_same_v<T, throwing_move>) {
            return v.value == 7;
        } else {
            return v != nullptr && *v == 7;
        }
    };
    manual_clock clock;
    queue<T> q({.max_messages = 1, .validate = [&](const T& v, const mailroom::properties&) { return whole(v); }, .clock = &clock});
    q.send(make());
    T value = make();
    CHECK(q.try_send(std::move(value)).error() == errc::full);
    CHECK(whole(value));
    CHECK(q.try_send(std::move(value), {.key = "k"}).error() == errc::full);
    CHECK(whole(value));
    CHECK(q.send_for(0s, std::move(value)).error() == errc::timed_out);
    CHECK(whole(value));
    CHECK(q.send_for(-1s, std::move(value), {.key = "k"}).error() == errc::timed_out);
    CHECK(whole(value));
    CHECK(q.try_send(std::move(value), {.priority = 10}).error() == errc::invalid);
    CHECK(whole(value));
    q.close();
    CHECK(q.try_send(std::move(value)).error() == errc::closed);
    CHECK(q.send_for(1s, std::move(value)).error() == errc::closed);
    CHECK(whole(value));
}

TEST_CASE("properties: what is wrong is said at the call") {
    queue<int> q;
    const mailroom::properties wrong[] = {{.delay = -1ns}, {.time_to_live = -1ns}, {.priority = -1}, {.priority = 10}};
    for (const auto& p : wrong) {
        CHECK(thrown_by([&] { q.send(1, p); }) == errc::invalid);
        const auto r = q.try_send(1, p);
        CHECK(r.error() == errc::invalid);
        CHECK(r.error().message().find("properties.") == 0);
        CHECK(q.send_for(1s, 1, p).error() == errc::invalid);
        CHECK_THROWS_AS(q.send_async(1, p).wait(), mailroom::error);
    }
    CHECK(q.statistics().sent == 0);
    q.send(1, {.priority = 9}); // clamped to the one level there is
    CHECK(q.try_pop());
}

TEST_CASE("overflow: each rule does what it says, and counts") {
    using mailroom::overflow;
    queue<int> rejecting({.max_messages = 2, .overflow = overflow::reject});
    rejecting.send_many(std::vector{0, 1});
    CHECK(thrown_by([&] { rejecting.send(2); }) == errc::full);
    CHECK(rejecting.try_send(2).error() == errc::full);
    CHECK(rejecting.send_for(1h, 2).error() == errc::full);
    CHECK_THROWS_AS(rejecting.send_async(2).wait(), mailroom::error);
    auto d = rejecting.try_receive();
    CHECK(rejecting.try_send(2).error() == errc::full); // in flight counts
    d->ack();
    CHECK(rejecting.try_send(2));

    queue<int> newest({.max_messages = 2, .overflow = overflow::drop_newest});
    newest.send_many(std::vector{0, 1});
    CHECK(newest.send(2) == mailroom::no_offset);
    CHECK(*newest.try_send(3) == mailroom::no_offset);
    CHECK(newest.send_many(std::vector{4, 5}) == mailroom::no_offset);
    CHECK(newest.statistics().dropped == 4);
    CHECK(newest.statistics().sent == 2);
    CHECK(popped(newest) == std::vector{0, 1});

    queue<int> oldest({.max_messages = 3, .overflow = overflow::drop_oldest});
    for (int i = 0; i < 5; ++i) { CHECK(oldest.send(i) == static_cast<offset>(i)); }
    CHECK(oldest.statistics().dropped == 2);
    CHECK(oldest.send_many(std::vector{5, 6}) == 5);
    std::vector<delivery<int>> held;
    oldest.receive_many(held, 3);
    CHECK(held[0].body() == 4);
    CHECK(oldest.try_send(7).error() == errc::full); // every one is held
    CHECK(thrown_by([&] { oldest.send(7); }) == errc::full);
    held[1].release();
    CHECK(oldest.send(7) == 7);
    CHECK(oldest.statistics().dropped == 5);
    CHECK(held[0].ack());
    CHECK(held[2].ack());
    CHECK(popped(oldest) == std::vector{7});
}

TEST_CASE("max_bytes: counts footprints; a message larger than it is too large at once") {
    const auto text = [](std::size_t n) { return std::string(n, 'x'); };
    queue<std::string> q({.max_bytes = 3 * sizeof(std::string) + 300});
    q.send(text(100));
    q.send(text(100));
    CHECK(q.try_send(text(101)).error() == errc::full);
    CHECK(q.try_send(text(100)));
    CHECK(q.statistics().bytes == 3 * sizeof(std::string) + 300);
    CHECK(thrown_by([&] { q.send(text(1000)); }) == errc::too_large);
    CHECK(q.try_send(text(1000)).error() == errc::too_large);
    q.try_receive()->ack();
    CHECK(q.statistics().bytes == 2 * sizeof(std::string) + 200);
    CHECK(q.try_send(text(100)));
    popped(q);
    CHECK(q.statistics().bytes == 0);
}

TEST_CASE("block: a sender waits for room, and goes on when there is some, once for each place") {
    manual_clock clock;
    queue<int> q({.max_messages = 1, .clock = &clock});
    q.send(0);
    std::atomic<int> sent{0};
    {
        const auto one = [&] {
            q.send(1);
            ++sent;
        };
        const blocked a(one), b(one);
        clock.await_parked(2);
        CHECK(sent == 0);
        CHECK(q.try_pop());
        CHECK(support::eventually([&] { return sent == 1; }));
        q.try_receive()->ack();
    }
    CHECK(sent == 2);
    CHECK(q.statistics().ready == 1);
}

TEST_CASE("block: a wait for room ends with the time, the stop, the close, or an expiry") {
    manual_clock clock;
    queue<std::string> q({.max_messages = 1, .clock = &clock});
    q.send("first");
    std::string kept = "a string that is long enough to be on the heap";
    {
        const blocked sender([&] { CHECK(q.send_for(10s, std::move(kept)).error() == errc::timed_out); });
        clock.await_parked(1);
        clock.advance(9'999'999'999ns);
        clock.await_parked(1);
        CHECK(!sender.done());
        clock.advance(1ns);
    }
    CHECK(kept == "a string that is long enough to be on the heap");
    mailroom::stop_source stop;
    {
        const blocked sender([&] { CHECK(thrown_by([&] { q.send("x", {}, stop.get_token()); }) == errc::full); });
        clock.await_parked(1);
        stop.request_stop();
    }
    CHECK(thrown_by([&] { q.send("x", {}, stop.get_token()); }) == errc::full); // stopped before it began
    CHECK(q.try_pop());
    CHECK(q.send("there is room", {.time_to_live = 1min}, stop.get_token()) == 1);
    {
        const blocked sender([&] { CHECK(q.send("after the expiry") == 2); });
        clock.await_parked(1);
        clock.advance(1min);
        CHECK(sender.finishes());
    }
    CHECK(q.dead().size() == 1);
    {
        const blocked sender([&] { CHECK(thrown_by([&] { q.send("x"); }) == errc::closed); });
        const blocked many([&] { CHECK(thrown_by([&] { q.send_many(std::vector<std::string>(1)); }) == errc::closed); });
        clock.await_parked(2);
        q.close();
    }
    CHECK(popped(q).size() == 1);
}

TEST_CASE("memory_budget: shared by two queues, room in one wakes who waits in the other") {
    manual_clock clock;
    mailroom::memory_budget budget(4 * sizeof(int));
    auto a = std::make_unique<queue<int>>(queue_options<int>{.budget = &budget, .clock = &clock});
    queue<int> b({.budget = &budget, .overflow = mailroom::overflow::block, .clock = &clock});
    a->send_many(std::vector{0, 1, 2});
    b.send(0);
    CHECK(budget.used() == 4 * sizeof(int));
    CHECK(b.try_send(1).error() == errc::full);
    {
        const blocked sender([&] { b.send(1); });
        clock.await_parked(1);
        a->try_receive()->ack();
        CHECK(sender.finishes());
    }
    {
        const blocked sender([&] { b.send_many(std::vector{2, 3}); });
        clock.await_parked(1);
        CHECK(a->try_pop());
        CHECK(budget.used() == 3 * sizeof(int));
        clock.await_parked(1);
        CHECK(!sender.done());
        CHECK(a->purge() == 1);
        CHECK(sender.finishes());
    }
    b.try_pop();
    a->send(9);
    auto out = a->try_receive();
    a.reset(); // what it held counts no longer
    CHECK(budget.used() == 3 * sizeof(int));
    out.reset();
    CHECK(budget.used() == 3 * sizeof(int));
    b.try_receive()->reject();
    CHECK(budget.used() == 2 * sizeof(int));
    CHECK(b.dead().redrive(1) == 1);
    CHECK(budget.used() == 3 * sizeof(int));
    popped(b);
    CHECK(budget.used() == 0);
}

TEST_CASE("max_messages: what lives again counts, room or not") {
    queue<int> q({.max_messages = 2, .overflow = mailroom::overflow::reject});
    q.send_many(std::vector{0, 1});
    q.try_receive()->reject();
    q.try_receive()->reject();
    q.send_many(std::vector{2, 3});
    CHECK(q.dead().redrive(9) == 2);
    CHECK(q.statistics().ready == 4);
    for (int i = 0; i < 3; ++i) {
        CHECK(q.try_send(9).error() == errc::full);
        CHECK(q.try_pop()->body() == i);
    }
    CHECK(q.try_send(9));
    CHECK(q.try_send(9).error() == errc::full);
}

TEST_CASE("deduplicate: a duplicate gets the offset of the original, as long as the rule says") {
    manual_clock clock;
    queue<int> window({.deduplicate = {.window = 10s}, .clock = &clock});
    CHECK(window.send(1, {.id = "a"}) == 0);
    CHECK(window.send(2, {.id = "b"}) == 1);
    CHECK(window.send(3, {.id = "a"}) == 0);
    CHECK(window.send(3) == 2);
    CHECK(window.send(3) == 3); // no id, no duplicate
    popped(window);
    CHECK(*window.try_send(3, {.id = "a"}) == 0);
    CHECK(window.statistics().duplicates == 2);
    clock.advance(10s);
    CHECK(window.send(3, {.id = "a"}) == 4);

    queue<int> unsettled({.deduplicate = {.until_settled = true}, .clock = &clock});
    CHECK(unsettled.send(1, {.id = "a"}) == 0);
    clock.advance(1000h);
    CHECK(unsettled.send(1, {.id = "a"}) == 0);
    auto d = unsettled.try_receive();
    CHECK(unsettled.send(1, {.id = "a"}) == 0);
    d->reject(); // dead counts as settled
    CHECK(unsettled.send(2, {.id = "a"}) == 1);
    CHECK(unsettled.try_pop());
    CHECK(unsettled.dead().redrive(1) == 1);
    CHECK(unsettled.send(3, {.id = "a"}) == 0); // it lives again
    unsettled.purge();
    CHECK(unsettled.send(3, {.id = "a"}) == 2);
}

TEST_CASE("deduplicate: what was not sent is no original") {
    manual_clock clock;
    queue<int> q({.max_messages = 1, .overflow = mailroom::overflow::reject, .deduplicate = {.window = 1h, .until_settled = true}, .clock = &clock});
    q.send(0);
    CHECK(q.try_send(1, {.id = "a"}).error() == errc::full);
    q.try_pop();
    CHECK(*q.try_send(1, {.id = "a"}) == 1);
    CHECK(*q.try_send(1, {.id = "a"}) == 1); // a duplicate needs no room
    CHECK(q.statistics().duplicates == 1);
}

// ----------------------------------------------------------------------------------------------------------------------- receiving

TEST_CASE("receive: every verb, on an empty queue and on a full one") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    mailroom::stop_source stop;
    stop.request_stop();
    std::vector<delivery<int>> some;
    std::vector<message<int>> messages;
    CHECK(!q.try_receive());
    CHECK(!q.receive_for(0s));
    CHECK(!q.receive(stop.get_token()));
    CHECK(q.receive_many(some, 5) == 0);
    CHECK(!q.try_pop());
    CHECK(!q.pop_for(0s));
    CHECK(!q.pop(stop.get_token()));
    CHECK(q.pop_many(std::back_inserter(messages), 5) == 0);

    for (int i = 0; i < 100; ++i) { q.send(i); }
    CHECK(q.receive()->body() == 0); // back, after its pause
    CHECK(q.try_receive()->body() == 1);
    CHECK(q.receive_for(1h)->body() == 2);
    CHECK(q.receive(mailroom::stop_token())->body() == 3);
    CHECK(q.receive_many(some, 5) == 5);
    CHECK(some.size() == 5);
    CHECK(q.receive_many(some, 60, 1h) == 60); // appends; across blocks
    for (std::size_t i = 0; i < some.size(); ++i) { CHECK(some[i].body() == static_cast<int>(i) + 4); }
    CHECK(q.pop()->body() == 69);
    CHECK(q.try_pop()->body() == 70);
    CHECK(q.pop_for(1h)->body() == 71);
    CHECK(q.pop(mailroom::stop_token())->body() == 72);
    CHECK(q.pop_many(std::back_inserter(messages), 100) == 27);
    CHECK(messages.front().offset() == 73);
    CHECK(messages.back().body() == 99);
    for (auto& d : some) { CHECK(d.ack()); }
    const auto s = q.statistics();
    CHECK(s.parked == 4);
    CHECK(s.acked == 96);
}

TEST_CASE("receive: a blocked one is woken by a send, a time, a stop, a close, a release, a resume") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    {
        const blocked r([&] { CHECK(q.receive()->ack()); });
        clock.await_parked(1);
        q.send(1);
    }
    {
        const blocked r([&] { CHECK(!q.receive_for(5s)); });
        clock.await_parked(1);
        clock.advance(4s);
        clock.await_parked(1);
        CHECK(!r.done());
        clock.advance(1s);
    }
    {
        std::vector<delivery<int>> some;
        const blocked r([&] { CHECK(q.receive_many(some, 10, 5s) == 2); });
        clock.await_parked(1);
        q.send_many(std::vector{1, 2});
    }
    clock.advance(1h);
    CHECK(popped(q).size() == 2);
    mailroom::stop_source stop;
    {
        const blocked a([&] { CHECK(!q.receive(stop.get_token())); });
        const blocked b([&] { CHECK(!q.pop(stop.get_token())); });
        clock.await_parked(2);
        stop.request_stop();
    }
    q.send(1);
    auto held = q.try_receive();
    {
        const blocked r([&] { CHECK(q.pop()->body() == 1); });
        clock.await_parked(1);
        held->release();
    }
    q.pause();
    q.send(2);
    {
        const blocked r([&] { CHECK(q.pop()->body() == 2); });
        clock.await_parked(1);
        CHECK(!r.done());
        q.resume();
    }
    {
        const blocked a([&] { CHECK(!q.receive()); });
        const blocked b([&] { CHECK(!q.pop_for(1h)); });
        clock.await_parked(2);
        q.close();
    }
}

TEST_CASE("receive: a blocked one is woken exactly when something is due") {
    manual_clock clock;
    queue<int> q({.lease = 30s, .retry = {.initial = 5s}, .clock = &clock});
    const struct {
        const char* what;
        std::function<void()> prepare;
        duration due;
    } cases[] = {
        {"a delay", [&] { q.send(1, {.delay = 7s}); }, 7s},
        {"a retry",
         [&] {
             q.send(1);
             q.try_receive()->nack();
         },
         5s},
        {"a retry after a time of its own",
         [&] {
             q.send(1);
             q.try_receive()->nack(9s);
         },
         9s},
    };
    for (const auto& c : cases) {
        CAPTURE(std::string(c.what));
        c.prepare();
        duration when{};
        {
            const blocked r([&] {
                CHECK(q.receive()->ack());
                when = clock.now();
            });
            clock.await_parked(1);
            const duration start = clock.now();
            clock.advance(c.due - 1ns);
            clock.await_parked(1);
            CHECK(!r.done());
            clock.advance(1ns);
            CHECK(r.finishes());
            when -= start;
        }
        CHECK(when == c.due);
    }
    q.send(1);
    auto stuck = q.try_receive();
    {
        const blocked r([&] { CHECK(q.receive()->attempt() == 2); });
        clock.await_parked(1);
        clock.advance(30s - 1ns);
        clock.await_parked(1);
        CHECK(!r.done());
        clock.advance(1ns);
    }
    CHECK(!stuck->ack());
}

TEST_CASE("receive: many blocked receivers, each message wakes one who gets it") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    std::atomic<int> sum{0};
    {
        std::vector<std::unique_ptr<blocked>> receivers;
        for (int i = 0; i < 4; ++i) {
            receivers.push_back(std::make_unique<blocked>([&] { sum += q.pop()->body(); }));
        }
        clock.await_parked(4);
        q.send(1);
        CHECK(support::eventually([&] { return sum == 1; }));
        q.send(10, {.delay = 1s});
        q.send_many(std::vector{100, 1000});
        CHECK(support::eventually([&] { return sum == 1101; }));
        clock.await_parked(1);
        clock.advance(1s);
    }
    CHECK(sum == 1111);
}

TEST_CASE("order: one total order; what comes back goes first; what is delayed lets others pass") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    for (int i = 0; i < 100; ++i) { q.send(i, i == 50 ? mailroom::properties{.delay = 10s} : mailroom::properties()); }
    auto first = q.try_receive();
    auto second = q.try_receive();
    CHECK(second->release());
    CHECK(first->nack(0s));
    CHECK(q.try_receive()->attempt() == 2); // 0 again; and back after a pause
    CHECK(q.try_pop()->body() == 1);
    std::vector<int> rest = popped(q);
    CHECK(rest.size() == 97);
    CHECK(std::is_sorted(rest.begin(), rest.end()));
    clock.advance(10s);
    CHECK(popped(q) == std::vector{0, 50});
}

TEST_CASE("delay: a message delayed behind a backlog waits for its turn, not for its time") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    for (int i = 0; i < 200; ++i) { q.send(i); }
    q.send(200, {.delay = 1s});
    q.send(201);
    clock.advance(2s); // due long before it is reached
    const std::vector<int> all = popped(q);
    CHECK(all.size() == 202);
    CHECK(std::is_sorted(all.begin(), all.end()));
}

TEST_CASE("time_to_live: expires anywhere in the queue, with the reason") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    for (int i = 0; i < 100; ++i) { q.send(i, i % 10 == 5 ? mailroom::properties{.time_to_live = 5s} : mailroom::properties()); }
    auto held = q.try_receive();
    clock.advance(5s);
    CHECK(q.statistics().expired == 10);
    CHECK(q.dead().size() == 10);
    CHECK(q.dead().try_receive()->reason() == "time to live over");
    CHECK(q.statistics().ready == 89);
    CHECK(held->ack());
    CHECK(popped(q).size() == 89);

    q.send(1, {.time_to_live = 5s});
    auto out = q.try_receive();
    clock.advance(6s);
    CHECK(q.dead().size() == 10); // what is out cannot expire
    CHECK(out->nack(0s));
    CHECK(!q.try_receive());
    CHECK(q.dead().size() == 11);
    q.send(2, {.delay = 10s, .time_to_live = 5s});
    clock.advance(5s);
    CHECK(q.dead().size() == 12);
}

TEST_CASE("time_to_live: the queue's own is for messages that have none") {
    manual_clock clock;
    queue<int> q({.time_to_live = 10s, .clock = &clock});
    for (int i = 0; i < 70; ++i) { q.send(i); }
    q.send(70, {.time_to_live = 20s});
    clock.advance(5s);
    q.send(71);
    clock.advance(5s - 1ns);
    CHECK(q.dead().size() == 0);
    clock.advance(1ns);
    CHECK(q.dead().size() == 70);
    CHECK(q.statistics().ready == 2);
    clock.advance(5s);
    CHECK(q.dead().size() == 71);
    clock.advance(5s);
    CHECK(q.dead().size() == 72);
    CHECK(!q.try_receive());
}

TEST_CASE("time_to_live: one of its own that is longer does not keep what follows alive") {
    manual_clock clock;
    queue<int> q({.time_to_live = 2s, .clock = &clock});
    for (int i = 0; i < 3; ++i) { q.send(i, {.time_to_live = 1min}); }
    q.send(3);
    q.send(4);
    clock.advance(2s);
    CHECK(q.dead().size() == 2);
    CHECK(q.dead().try_receive()->body() == 3);
    clock.advance(10s);
    CHECK(q.statistics().ready == 3);
    CHECK(q.try_pop()->body() == 0);
}

TEST_CASE("priorities: higher first, first come first served within a level") {
    queue<int> q({.priorities = 3});
    for (int i = 0; i < 30; ++i) { q.send(i, {.priority = i % 5}); } // 2, 3 and 4 are one level
    std::vector<int> expected;
    for (int i = 0; i < 30; ++i) {
        if (i % 5 >= 2) { expected.push_back(i); }
    }
    for (const int level : {1, 0}) {
        for (int i = level; i < 30; i += 5) { expected.push_back(i); }
    }
    CHECK(popped(q) == expected);
}

TEST_CASE("ordered_by_key: the next of a key goes when the one before is settled, whatever happens to it") {
    manual_clock clock;
    queue<int> q({.lease = 10s, .retry = {.max_attempts = 3, .initial = 1s}, .ordered_by_key = true, .clock = &clock});
    q.send(1, {.key = "a"});
    q.send(2, {.key = "a"});
    q.send(3, {.key = "b"});
    q.send(4);
    auto one = q.try_receive();
    auto three = q.try_receive();
    auto four = q.try_receive();
    CHECK(three->body() == 3);
    CHECK(four->body() == 4);
    CHECK(!q.try_receive());
    CHECK(one->nack());
    CHECK(!q.try_receive()); // its pause holds its key back
    clock.advance(1s);
    one = q.try_receive();
    CHECK(one->body() == 1);
    clock.advance(10s); // lapses
    auto again = q.try_receive();
    CHECK(again->body() == 1);
    CHECK(again->attempt() == 3);
    CHECK(!one->ack());
    CHECK(again->nack()); // dies: the next may go
    CHECK(q.try_receive()->body() == 2);
    CHECK(q.dead().size() == 1);
}

TEST_CASE("max_in_flight: so many are out, then one for each that is settled") {
    manual_clock clock;
    queue<int> q({.max_in_flight = 2, .clock = &clock});
    for (int i = 0; i < 5; ++i) { q.send(i); }
    std::vector<delivery<int>> some;
    CHECK(q.receive_many(some, 5) == 2);
    CHECK(!q.try_receive());
    {
        const blocked r([&] { CHECK(q.receive()->ack()); });
        clock.await_parked(1);
        CHECK(some[0].ack());
        CHECK(r.finishes());
    }
    CHECK(some[1].extend(1h));
    CHECK(q.try_receive()->release());
    CHECK(q.try_receive()->body() == 3);
}

// ------------------------------------------------------------------------------------------------------------------------- settling

TEST_CASE("settling: each verb once, and the counters that follow") {
    manual_clock clock;
    queue<int> q({.retry = {.max_attempts = 2, .initial = 1s}, .clock = &clock});
    for (int i = 0; i < 6; ++i) { q.send(i); }
    std::vector<delivery<int>> d;
    q.receive_many(d, 6);
    CHECK(d[0].ack());
    CHECK(d[1].nack());
    CHECK(d[2].nack(10s));
    CHECK(d[3].release());
    CHECK(d[4].reject("broken"));
    CHECK(d[5].ack_async().wait() == 5);
    for (auto& each : d) { CHECK(!each.ack()); }
    auto s = q.statistics();
    CHECK(s.acked == 2);
    CHECK(s.parked == 2);
    CHECK(s.ready == 1);
    CHECK(s.dead == 1);
    CHECK(s.in_flight == 0);
    CHECK(s.redelivered == 0);
    CHECK(q.try_receive()->attempt() == 1); // released: unchanged; now it fails
    clock.advance(1s);
    d.clear();
    CHECK(q.receive_many(d, 6) == 2);
    CHECK(d[0].attempt() == 2);
    CHECK(d[0].body() == 1);
    CHECK(d[1].body() == 3);
    CHECK(d[0].nack(5s)); // its second attempt was the last
    CHECK(q.statistics().dead == 2);
    CHECK(q.statistics().redelivered == 2);
    CHECK(q.dead().try_receive()->reason() == "broken");
}

TEST_CASE("lease: lapsed, it is still its holder's until somebody else has the message") {
    manual_clock clock;
    queue<int> q({.lease = 10s, .clock = &clock});
    q.send(1);
    auto d = q.try_receive();
    clock.advance(10s);
    CHECK(q.statistics().ready == 1);
    CHECK(d->ack());
    CHECK(!q.try_receive());

    q.send(2);
    auto first = q.try_receive();
    clock.advance(10s);
    CHECK(first->extend(5s)); // taken back
    CHECK(!q.try_receive());
    clock.advance(5s);
    auto second = q.try_receive();
    CHECK(second->attempt() == 2);
    CHECK(first->body() == 2);
    CHECK(!first->extend(1h));
    CHECK(!first->nack());
    CHECK(second->extend(1h));
    clock.advance(30min);
    CHECK(second->ack());
    CHECK(q.statistics().acked == 2);
}

TEST_CASE("lease: a lapsed one counts as a failed attempt, and the last one kills") {
    manual_clock clock;
    queue<int> q({.lease = 1s, .retry = {.max_attempts = 2}, .clock = &clock});
    q.send(1);
    auto a = q.try_receive();
    clock.advance(1s);
    auto b = q.try_receive();
    clock.advance(1s);
    CHECK(q.dead().size() == 1);
    CHECK(!a->ack());
    CHECK(!b->ack()); // it died
    auto letter = q.dead().try_receive();
    CHECK(letter->attempts() == 2);
    CHECK(letter->reason() == "attempts exhausted: lease expired");
    CHECK(letter->first_failure() == clock.wall() - 1s);
    CHECK(letter->last_failure() == clock.wall());
}

TEST_CASE("delivery: may outlive its queue, its body stays") {
    const long live = tracked::live(), faults = tracked::faults();
    {
        std::vector<delivery<tracked>> out;
        std::optional<mailroom::dead_letter<tracked>> letter;
        {
            queue<tracked> q({.lease = 0s});
            for (int i = 0; i < 100; ++i) { q.send(tracked(i), i % 7 == 0 ? mailroom::properties{.key = "k"} : mailroom::properties()); }
            q.receive_many(out, 70);
            for (std::size_t i = 1; i < out.size(); i += 2) { out[i].ack(); }
            out[2].nack(0s);
            out.push_back(*q.try_receive()); // through the index
            out[4].reject("dead");
            letter = q.dead().try_receive();
        }
        CHECK(letter->body().value() == 4);
        CHECK(letter->reason() == "dead");
        CHECK(!letter->ack());
        CHECK(out.back().body().value() == 2);
        CHECK(out[14].props().key == "k");
        CHECK(out[14].timestamp() > mailroom::time_point());
        CHECK(!out[14].extend(1s));
        CHECK(!out[0].ack());
        CHECK(!out[6].nack());
        CHECK(!out[8].release());
        CHECK(!out[10].reject());
        CHECK(!out.back().ack());
        CHECK(out[12].body().value() == 12);
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}

// ------------------------------------------------------------------------------------------------------------------------ the whole

TEST_CASE("queue: moved, it is the same queue; deliveries and dead letters stay theirs") {
    queue<int> a;
    a.send(1);
    a.send(2);
    auto d = a.try_receive();
    auto& dead = a.dead();
    queue<int> b = std::move(a);
    CHECK(&b.dead() == &dead);
    CHECK(d->reject());
    CHECK(b.dead().size() == 1);
    queue<int> c;
    c.send(9);
    auto lost = c.try_receive();
    c = std::move(b);
    CHECK(!lost->ack()); // its queue is gone
    CHECK(c.try_pop()->body() == 2);
    CHECK(c.send(3) == 2);
}

TEST_CASE("close: sends fail, receivers get what is left, then nullopt; one stays for what may come back") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    q.send_many(std::vector{1, 2});
    q.send(3, {.delay = 5s});
    q.close();
    q.close();
    CHECK(thrown_by([&] { q.send(4); }) == errc::closed);
    CHECK(thrown_by([&] { q.send(4, {.key = "k"}); }) == errc::closed);
    CHECK(thrown_by([&] { q.send_many(std::vector{4}); }) == errc::closed);
    CHECK(thrown_by([&] { q.emplace(4); }) == errc::closed);
    CHECK(q.try_send(4).error() == errc::closed);
    CHECK(q.send_for(1s, 4).error() == errc::closed);
    CHECK_THROWS_AS(q.send_async(4).wait(), mailroom::error);
    CHECK(q.receive()->ack());
    auto held = q.receive();
    {
        const blocked r([&] { CHECK(q.receive()->body() == 3); });
        clock.await_parked(1);
        clock.advance(5s);
    }
    clock.advance(1s);
    CHECK(q.pop()->body() == 3);
    {
        const blocked r([&] { CHECK(!q.receive()); });
        clock.await_parked(1);
        CHECK(!r.done());
        held->ack();
    }
    CHECK(!q.receive());
    CHECK(!q.pop());
}

TEST_CASE("drain: closes and waits until all is settled, what is delayed too, or the time is up") {
    manual_clock clock;
    queue<int> q({.clock = &clock});
    q.send(1);
    q.send(2, {.delay = 10s});
    q.send(3, {.delay = 1h, .time_to_live = 30s});
    CHECK(!q.drain(0s));
    CHECK(q.try_send(4).error() == errc::closed);
    auto d = q.try_receive();
    {
        const blocked drainer([&] { CHECK(q.drain(1h)); });
        clock.await_parked(1);
        d->ack();
        clock.advance(10s);
        CHECK(q.try_receive()->ack());
        clock.await_parked(1);
        CHECK(!drainer.done());
        clock.advance(20s);
    }
    CHECK(q.dead().size() == 1);
    CHECK(q.drain(0s));
    queue<int> never({.clock = &clock});
    never.send(1);
    {
        const blocked drainer([&] { CHECK(!never.drain(5s)); });
        clock.await_parked(1);
        clock.advance(5s);
    }
}

TEST_CASE("pause: nothing is handed out, sending and settling go on") {
    manual_clock clock;
    queue<int> q({.lease = 1s, .clock = &clock});
    q.send(1);
    q.send(2);
    auto held = q.try_receive();
    q.pause();
    q.pause();
    q.send(3);
    CHECK(!q.try_receive());
    CHECK(!q.try_pop());
    CHECK(held->ack());
    CHECK(q.statistics().ready == 2);
    clock.advance(1h);
    CHECK(!q.try_receive());
    q.resume();
    CHECK(popped(q) == std::vector{2, 3});
}

TEST_CASE("purge: all but the dead letters; what is out loses its hold") {
    manual_clock clock;
    queue<int> q({.max_messages = 100, .clock = &clock});
    for (int i = 0; i < 90; ++i) { q.send(i); }
    q.send(90, {.delay = 1h});
    q.try_receive()->reject();
    auto held = q.try_receive();
    auto again = q.try_receive();
    again->nack(0s);
    again = q.try_receive();
    CHECK(q.purge() == 90);
    CHECK(!held->ack());
    CHECK(!again->ack());
    CHECK(held->offset() == 1);
    const auto s = q.statistics();
    CHECK(s.ready + s.in_flight + s.parked == 0);
    CHECK(s.dead == 1);
    CHECK(s.dropped == 90);
    CHECK(s.bytes == 0);
    CHECK(q.purge() == 0);
    CHECK(q.send_many(std::vector<int>(100)) == 91); // there is room for all
    CHECK(q.drain(0s) == false);
}

TEST_CASE("browse: each message once, in order, with its state, until told to stop") {
    manual_clock clock;
    queue<std::string> q({.clock = &clock});
    q.send("flying", {.key = "k"});
    q.send("dead");
    q.send("parked", {.delay = 1h});
    q.send("ready");
    q.send("failed");
    auto d = q.try_receive();
    q.try_receive()->reject();
    auto failed = [&] {
        auto ready = q.try_receive();
        auto out = q.try_receive();
        ready->release();
        return out;
    }();
    failed->nack(5s);
    std::vector<std::pair<std::string, message_state>> seen;
    q.browse([&](const message<std::string>& m, message_state where) {
        seen.emplace_back(m.body(), where);
        if (m.body() == "flying") {
            CHECK(m.props().key == "k");
            CHECK(m.offset() == 0);
            CHECK(m.timestamp() == clock.wall());
        }
        return true;
    });
    const std::vector<std::pair<std::string, message_state>> expected{
        {"flying", message_state::in_flight}, {"parked", message_state::parked}, {"ready", message_state::ready}, {"failed", message_state::parked}};
    CHECK(seen == expected);
    int calls = 0;
    q.browse([&](const message<std::string>&, message_state) { return ++calls < 2; });
    CHECK(calls == 2);
    CHECK(d->ack());
    CHECK(q.try_pop()->body() == "ready");
}

TEST_CASE("statistics: they add up, and know the oldest and the bytes") {
    manual_clock clock;
    queue<std::string> q({.clock = &clock});
    CHECK(q.statistics().oldest_age == 0s);
    q.send(std::string(100, 'a'));
    clock.advance(3s);
    q.send(std::string(50, 'b'));
    auto s = q.statistics();
    CHECK(s.ready == 2);
    CHECK(s.bytes == 150 + 2 * sizeof(std::string));
    CHECK(s.oldest_age == 3s);
    auto d = q.try_receive();
    s = q.statistics();
    CHECK(s.in_flight == 1);
    CHECK(s.bytes == 150 + 2 * sizeof(std::string));
    CHECK(s.oldest_age == 3s);
    d->ack();
    s = q.statistics();
    CHECK(s.bytes == 50 + sizeof(std::string));
    CHECK(s.oldest_age == 0s);
    CHECK(s.sent == 2);
    CHECK(s.acked == 1);
}
