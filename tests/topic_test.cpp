// The publishing side of a topic in memory: its verbs, partitions, what it keeps, its bounds, what it says about itself, and its end. Time is a
// manual_clock's. What subscriptions do is in subscription_test.cpp.
#include "support/blocked.hpp"
#include "support/coroutines.hpp"
#include "support/eventually.hpp"
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
#include <list>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::delivery;
using mailroom::duration;
using mailroom::errc;
using mailroom::message;
using mailroom::no_offset;
using mailroom::overflow;
using mailroom::position;
using mailroom::properties;
using mailroom::sharing;
using mailroom::start;
using mailroom::subscribe_options;
using mailroom::subscription;
using mailroom::topic;
using mailroom::topic_options;
using mailroom::testing::manual_clock;
using support::tracked;
using support::blocked;
using support::task;

namespace {

struct tick {
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
static_assert(!std::is_copy_constructible_v<topic<int>> && std::is_nothrow_move_constructible_v<topic<int>>);
static_assert(!std::is_copy_constructible_v<subscription<int>> && std::is_nothrow_move_constructible_v<subscription<int>>);

template <class Act>
errc thrown_by(Act act) {
    try {
        act();
    } catch (const mailroom::error& e) {
        if (e.kind() == errc::invalid) { CHECK(e.sentence().size() > 10); } // it says what was wrong
        return e.kind();
    }
    return errc{};
}

/// All there is, acknowledged.
template <class T>
std::vector<T> popped(subscription<T>& s) {
    std::vector<T> all;
    while (auto m = s.try_pop()) { all.push_back(m->body()); }
    return all;
}
std::vector<int> numbers(int from, int to) {
    std::vector<int> all(static_cast<std::size_t>(to - from));
    std::iota(all.begin(), all.end(), from);
    return all;
}
void publish_all(topic<int>& t, int from, int to) {
    for (int i = from; i < to; ++i) { t.publish(i); }
}
properties keyed(std::string key) { return {.key = std::move(key)}; }
template <class T>
std::uint64_t kept(const topic<T>& t, int partition = 0) {
    return t.next_offset(partition) - t.first_offset(partition);
}
template <class T>
mailroom::subscription_info info_of(const topic<T>& t, std::string_view name) {
    for (auto& one : t.subscriptions()) {
        if (one.name == name) { return one; }
    }
    FAIL("there is no subscription of that name");
    return {};
}

} // namespace

// ------------------------------------------------------------------------------------------------------------------ the page's program

TEST_CASE("topic: five minutes of use") {
    topic<tick> ticks{{.partitions = 4}};
    auto live = ticks.subscribe();
    auto audit = ticks.subscribe("audit", {.from = start::earliest});
    const position at = ticks.publish({"AAPL", 189.21}, {.key = "AAPL"});
    CHECK(at.offset == 0);
    for (auto* s : {&live, &audit}) {
        auto d = s->try_receive();
        REQUIRE(d);
        CHECK((*d)->symbol == "AAPL");
        CHECK(d->props().key == "AAPL");
        CHECK(d->partition() == at.partition);
        CHECK(d->offset() == at.offset);
        CHECK(d->attempt() == 1);
        CHECK(d->ack());
    }
    CHECK(!live.try_receive());
}

TEST_CASE("topic: wrong options are said at the call") {
    const auto made = [](topic_options<int> o) { return thrown_by([&] { const topic<int> t(o); }); };
    CHECK(made({.partitions = 0}) == errc::invalid);
    CHECK(made({.partitions = -1}) == errc::invalid);
    CHECK(made({.retention = {.age = -1ns}}) == errc::invalid);
    CHECK(made({.overflow = static_cast<overflow>(9)}) == errc::invalid);
    CHECK(made({.deduplicate = {.window = -1ns}}) == errc::invalid);
    CHECK(made({.partitions = 64}) == errc{});
    topic<int> t;
    const auto joined = [&](subscribe_options<int> o) { return thrown_by([&] { t.subscribe(o); }); };
    CHECK(joined({.mode = static_cast<sharing>(17)}) == errc::invalid);
    CHECK(joined({.lease = -1ns}) == errc::invalid);
    CHECK(joined({.retry = {.initial = -1ns}}) == errc::invalid);
    CHECK(joined({.retry = {.multiplier = 0.5}}) == errc::invalid);
    CHECK(joined({.expires_after = -1ns}) == errc::invalid);
    CHECK(joined({.from = position{1, 0}}) == errc::invalid);
    CHECK(joined({.from = position{-1, 0}}) == errc::invalid);
    CHECK(t.subscriptions().empty());
}

// --------------------------------------------------------------------------------------------------------------------------- publishing

TEST_CASE("publish: offsets are dense, whichever verb publishes") {
    topic<int> t;
    auto s = t.subscribe();
    const int value = 3;
    CHECK(t.publish(0) == position{0, 0});
    CHECK(t.publish(1, {.key = "k"}) == position{0, 1});
    CHECK(*t.try_publish(2) == position{0, 2});
    CHECK(*t.try_publish(value) == position{0, 3});
    CHECK(*t.try_publish(value + 1, {.key = "k"}) == position{0, 4});
    CHECK(*t.publish_for(0s, 5) == position{0, 5});
    CHECK(*t.publish_for(1s, 6, {.key = "k"}) == position{0, 6});
    CHECK(t.emplace(7) == position{0, 7});
    CHECK(t.publish_async(8).wait() == position{0, 8});
    CHECK(t.publish_async(9, {.key = "k"}).wait() == position{0, 9});
    CHECK(t.publish_many(std::vector<int>{10, 11, 12}) == position{0, 10});
    CHECK(t.publish(13, properties(), mailroom::stop_token()) == position{0, 13});
    CHECK(t.next_offset() == 14);
    CHECK(t.statistics().sent == 14);
    CHECK(popped(s) == numbers(0, 14));
}

TEST_CASE("publish_async: the receipt is ready, calls back, and can be awaited") {
    topic<std::string> t({.max_messages = 3, .overflow = overflow::reject});
    auto s = t.subscribe("s");
    auto r = t.publish_async("a");
    CHECK(r.ready());
    std::optional<mailroom::result<position>> told;
    r.then([&](mailroom::result<position> outcome) { told = std::move(outcome); });
    REQUIRE(told);
    CHECK(**told == position{0, 0});
    std::vector<position> awaited;
    errc caught{};
    const task all = [](topic<std::string>& to, std::vector<position>& out, errc& failed) -> task {
        std::string value = "b, a string that is long enough to be on the heap";
        out.push_back(co_await to.publish_async(value));
        properties p{.key = "k"};
        out.push_back(co_await to.publish_async(value, p));
        auto receipt = to.publish_async(value, {.key = "one too many"});
        try {
            co_await receipt;
        } catch (const mailroom::error& e) { failed = e.kind(); }
    }(t, awaited, caught);
    CHECK(all.done());
    CHECK(awaited == std::vector<position>{{0, 1}, {0, 2}});
    CHECK(caught == errc::full);
    static_cast<void>(t.publish_async("discarded, and refused"));
    s.try_receive()->ack();
    static_cast<void>(t.publish_async("discarded, and still sent"));
    CHECK(t.next_offset() == 4);
}

TEST_CASE("publish_many: from anything that can be walked; an rvalue that owns its elements gives them up, an lvalue does not") {
    topic<std::string> t;
    auto s = t.subscribe();
    std::vector<std::string> v{"long enough to be on the heap: one", "long enough to be on the heap: two"};
    CHECK(t.publish_many(v) == position{0, 0});
    CHECK(v[0] == "long enough to be on the heap: one");
    CHECK(t.publish_many(std::as_const(v)) == position{0, 2});
    CHECK(t.publish_many(std::list<std::string>{"a", "b"}) == position{0, 4});
    const std::array<const char*, 2> convertible{"c", "d"};
    CHECK(t.publish_many(convertible) == position{0, 6});
    CHECK(t.publish_many(std::views::all(v)) == position{0, 8});
    CHECK(v[1] == "long enough to be on the heap: two");
    CHECK(t.publish_many(std::move(v)) == position{0, 10});
    CHECK(v[0].empty()); // NOLINT: that is the question
    CHECK(t.publish_many(std::vector<std::string>()) == position{0, 12});
    const std::vector<std::string> out = popped(s);
    REQUIRE(out.size() == 12);
    CHECK(out[7] == "d");
    CHECK(out[11] == "long enough to be on the heap: two");
}

TEST_CASE("publish_many: all or none, in a row in one partition; more than there may ever be is too large") {
    topic<int> t({.partitions = 3, .max_messages = 4, .overflow = overflow::reject});
    auto s = t.subscribe("s");
    t.publish(0);
    CHECK(thrown_by([&] { t.publish_many(numbers(1, 5)); }) == errc::full);
    CHECK(t.statistics().sent == 1);
    const position first = t.publish_many(numbers(1, 4));
    std::vector<delivery<int>> all;
    CHECK(s.receive_many(all, 10) == 4);
    int in_a_row = 0;
    for (const auto& d : all) {
        if (d.body() == 0) { continue; }
        CHECK(d.partition() == first.partition);
        CHECK(d.offset() == first.offset + static_cast<std::uint64_t>(d.body() - 1));
        ++in_a_row;
    }
    CHECK(in_a_row == 3);
    CHECK(thrown_by([&] { t.publish_many(numbers(0, 5)); }) == errc::too_large);
    std::vector<std::unique_ptr<int>> kept_back;
    topic<std::unique_ptr<int>> owners({.max_messages = 1});
    auto other = owners.subscribe("s");
    kept_back.push_back(std::make_unique<int>(1));
    kept_back.push_back(std::make_unique<int>(2));
    CHECK(thrown_by([&] { owners.publish_many(std::move(kept_back)); }) == errc::too_large);
    CHECK(owners.next_offset() == 0);
    CHECK(!other.try_receive());
}

TEST_CASE("topic: a move-only body passes through every verb, and three subscribers read the same one in place") {
    topic<std::unique_ptr<int>> t;
    std::array<subscription<std::unique_ptr<int>>, 3> subs{t.subscribe(), t.subscribe("durable"), t.subscribe("shared", {.mode = sharing::shared})};
    t.publish(std::make_unique<int>(0));
    t.publish(std::make_unique<int>(1), {.key = "k"});
    CHECK(t.try_publish(std::make_unique<int>(2)));
    CHECK(t.publish_for(1s, std::make_unique<int>(3)));
    t.emplace(new int(4));
    std::vector<std::unique_ptr<int>> more;
    more.push_back(std::make_unique<int>(5));
    more.push_back(std::make_unique<int>(6));
    t.publish_many(std::move(more));
    CHECK(t.publish_async(std::make_unique<int>(7)).wait() == position{0, 7});
    for (int i = 0; i < 8; ++i) {
        auto a = subs[0].try_receive(), b = subs[1].try_receive();
        auto c = subs[2].try_pop();
        REQUIRE(a);
        REQUIRE(b);
        REQUIRE(c);
        CHECK(*a->body() == i);
        CHECK(&a->body() == &b->body());
        CHECK(&a->body() == &c->body());
        CHECK(&a->props() == &b->props());
        CHECK(a->ack());
        CHECK(*b->body() == i); // whatever others do
        CHECK(b->ack());
        CHECK(*c->body() == i);
        CHECK(thrown_by([&] { std::move(*c).take(); }) == errc::unsupported);
    }
    CHECK(t.statistics().acked == 24);
}

TEST_CASE("topic: a body whose move may throw stands in a box") {
    topic<throwing_move> t;
    auto a = t.subscribe(), b = t.subscribe("b");
    t.publish(throwing_move(1));
    t.emplace(2);
    for (auto* s : {&a, &b}) {
        CHECK(s->try_receive()->body().value == 1); // destroyed unsettled
        CHECK(s->try_pop()->body().value == 2);
    }
}

TEST_CASE("topic: take copies, and the others still have it") {
    topic<std::string> t;
    auto a = t.subscribe(), b = t.subscribe();
    const std::string text = "long enough to be on the heap, and to be missed";
    t.publish(text, {.subject = "s"});
    auto m = a.try_pop();
    REQUIRE(m);
    CHECK(m->props().subject == "s");
    CHECK(std::move(*m).take() == text);
    auto d = b.try_receive();
    REQUIRE(d);
    CHECK(d->body() == text);
}

TEST_CASE_TEMPLATE("try_publish: keeps its argument on failure", T, std::string, std::unique_ptr<int>, throwing_move) {
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
    topic<T> t({.max_messages = 1, .validate = [&](const T& v, const properties&) { return whole(v); }, .clock = &clock});
    auto s = t.subscribe("s");
    t.publish(make());
    T value = make();
    CHECK(t.try_publish(std::move(value)).error() == errc::full);
    CHECK(whole(value));
    CHECK(t.try_publish(std::move(value), {.key = "k"}).error() == errc::full);
    CHECK(whole(value));
    CHECK(t.publish_for(0s, std::move(value)).error() == errc::timed_out);
    CHECK(whole(value));
    CHECK(t.publish_for(-1s, std::move(value), {.key = "k"}).error() == errc::timed_out);
    CHECK(whole(value));
    CHECK(t.try_publish(std::move(value), {.priority = 10}).error() == errc::invalid);
    CHECK(whole(value));
    t.close();
    CHECK(t.try_publish(std::move(value)).error() == errc::closed);
    CHECK(t.publish_for(1s, std::move(value)).error() == errc::closed);
    CHECK(whole(value));
}

TEST_CASE("publish: what is wrong is said at the call") {
    topic<int> t;
    auto s = t.subscribe();
    const properties wrong[] = {{.delay = -1ns}, {.time_to_live = -1ns}, {.priority = -1}, {.priority = 10}};
    for (const auto& p : wrong) {
        CHECK(thrown_by([&] { t.publish(1, p); }) == errc::invalid);
        const auto r = t.try_publish(1, p);
        CHECK(r.error() == errc::invalid);
        CHECK(r.error().message().find("properties.") == 0);
        CHECK(t.publish_for(1s, 1, p).error() == errc::invalid);
        CHECK_THROWS_AS(t.publish_async(1, p).wait(), mailroom::error);
    }
    CHECK(t.statistics().sent == 0);
    t.publish(1, {.priority = 9}); // clamped to the one level there is
    CHECK(s.try_pop());
}

TEST_CASE("validate: what it refuses is refused by every verb; what it throws comes out") {
    topic<int> t({.validate = [](const int& v, const properties& p) {
        if (v == 13) { throw std::runtime_error("thirteen"); }
        return v >= 0 && p.subject != "no";
    }});
    auto s = t.subscribe();
    CHECK(thrown_by([&] { t.publish(-1); }) == errc::rejected);
    CHECK(t.try_publish(-1).error() == errc::rejected);
    CHECK(t.publish_for(1s, 1, {.subject = "no"}).error() == errc::rejected);
    CHECK_THROWS_AS(t.publish_async(-1).wait(), mailroom::error);
    CHECK(thrown_by([&] { t.publish_many(std::vector{1, -1}); }) == errc::rejected);
    CHECK_THROWS_AS(t.publish(13), std::runtime_error);
    CHECK(t.next_offset() == 0);
    t.publish(1);
    CHECK(popped(s) == std::vector{1});
}

TEST_CASE("duplicates: within the window the place of the original, in whichever partition it is") {
    manual_clock clock;
    topic<int> t({.partitions = 4, .deduplicate = {.window = 1h}, .clock = &clock});
    auto s = t.subscribe();
    const position first = t.publish(1, {.id = "a"});
    CHECK(t.publish(2, {.id = "a"}) == first);
    CHECK(*t.try_publish(2, {.id = "a"}) == first);
    CHECK(*t.publish_for(1s, 2, {.key = "another key", .id = "a"}) == first);
    CHECK(t.publish_async(2, {.id = "a"}).wait() == first);
    CHECK(t.publish(3, {.id = "b"}) != first);
    CHECK(t.statistics().duplicates == 4);
    CHECK(t.statistics().sent == 2);
    CHECK(popped(s).size() == 2);
    CHECK(t.publish(2, {.id = "a"}) == first); // settled or not
    clock.advance(1h);
    CHECK(t.publish(4, {.id = "a"}) != first);
    CHECK(popped(s) == std::vector{4});
}

TEST_CASE("duplicates: until_settled counts as long as the first is kept") {
    topic<int> t({.retention = {.messages = 100}, .deduplicate = {.until_settled = true}});
    auto s = t.subscribe("s");
    CHECK(t.publish(1, {.id = "a"}) == position{0, 0});
    CHECK(t.publish(2, {.id = "a"}) == position{0, 0});
    CHECK(t.publish(3, {.id = "b"}) == position{0, 1});
    CHECK(t.statistics().duplicates == 1);
    CHECK(popped(s) == std::vector{1, 3});
    publish_all(t, 0, 1000); // long after nobody keeps it
    popped(s);
    CHECK(t.publish(4, {.id = "a"}) == position{0, 1002});
}

TEST_CASE("closed: publishing fails with it, by every verb, and so does subscribing") {
    topic<int> t;
    auto s = t.subscribe();
    t.publish(1);
    t.close();
    t.close();
    CHECK(thrown_by([&] { t.publish(2); }) == errc::closed);
    CHECK(thrown_by([&] { t.publish(2, {.key = "k"}); }) == errc::closed);
    CHECK(thrown_by([&] { t.publish_many(std::vector{2, 3}); }) == errc::closed);
    CHECK(thrown_by([&] { t.emplace(2); }) == errc::closed);
    CHECK(t.try_publish(2).error() == errc::closed);
    CHECK(t.publish_for(1s, 2).error() == errc::closed);
    CHECK_THROWS_AS(t.publish_async(2).wait(), mailroom::error);
    CHECK(thrown_by([&] { t.subscribe("new"); }) == errc::closed);
    CHECK(thrown_by([&] { t.subscribe(); }) == errc::closed);
    CHECK(popped(s) == std::vector{1});
    CHECK(!s.receive());
}

// --------------------------------------------------------------------------------------------------------------------------- partitions

TEST_CASE("partitions: the key picks one, the same for ever; without a key each in turn") {
    // FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ has these for "", "a" and "foobar"
    for (const int n : {1, 2, 7, 64}) {
        topic<int> t({.partitions = n});
        auto s = t.subscribe();
        CHECK(t.partitions() == n);
        const auto expected = [n](std::uint64_t hash) { return static_cast<int>(hash % static_cast<std::uint64_t>(n)); };
        CHECK(t.publish(0, {.key = "a"}).partition == expected(0xaf63dc4c8601ec8cu));
        CHECK(t.publish(0, {.key = "foobar"}).partition == expected(0x85944171f73967e8u));
        std::vector<int> at(static_cast<std::size_t>(n), 0);
        for (int i = 0; i < 5 * n; ++i) { ++at[static_cast<std::size_t>(t.publish(i).partition)]; }
        CHECK(std::ranges::all_of(at, [](int m) { return m == 5; }));
        for (int i = 0; i < 100; ++i) {
            const std::string key = "key " + std::to_string(i);
            const int p = t.publish(i, keyed(key)).partition;
            CHECK(t.publish(i, keyed(key)).partition == p);
            CHECK(t.try_publish(i, keyed(key))->partition == p);
        }
        std::uint64_t total = 0;
        for (int p = 0; p < n; ++p) { total += t.next_offset(p); }
        CHECK(total == 2 + static_cast<std::uint64_t>(5 * n) + 300);
        CHECK(thrown_by([&] { static_cast<void>(t.next_offset(n)); }) == errc::invalid);
        CHECK(thrown_by([&] { static_cast<void>(t.first_offset(-1)); }) == errc::invalid);
    }
}

TEST_CASE("partitions: each has offsets of its own, order within each, and keys spread") {
    topic<int> t({.partitions = 64});
    auto s = t.subscribe();
    std::set<int> used;
    for (int i = 0; i < 2000; ++i) { used.insert(t.publish(i, keyed(std::to_string(i % 500))).partition); }
    CHECK(used.size() > 32);
    std::vector<std::uint64_t> next(64, 0);
    std::vector<int> last_of_key(500, -1);
    int got = 0;
    while (auto d = s.try_receive()) {
        CHECK(d->offset() == next[static_cast<std::size_t>(d->partition())]++);
        int& last = last_of_key[static_cast<std::size_t>(d->body() % 500)];
        CHECK(d->body() > last);
        last = d->body();
        ++got;
        CHECK(d->ack());
    }
    CHECK(got == 2000);
}

// ---------------------------------------------------------------------------------------------------------------------------- retention

TEST_CASE("retention: by default a message stays until every subscription has settled it") {
    topic<int> t;
    publish_all(t, 0, 100); // for nobody
    CHECK(t.first_offset() == 100);
    CHECK(t.next_offset() == 100);
    {
        auto late = t.subscribe({.from = start::earliest});
        CHECK(!late.try_receive());
    }
    auto a = t.subscribe("a"), b = t.subscribe("b");
    publish_all(t, 100, 200);
    CHECK(t.first_offset() == 100);
    CHECK(popped(a) == numbers(100, 200));
    CHECK(t.first_offset() == 100); // b wants them
    for (int i = 0; i < 70; ++i) { CHECK(b.try_pop()); }
    CHECK(t.first_offset() == 170);
    auto held = b.try_receive();
    CHECK(popped(b) == numbers(171, 200));
    CHECK(t.first_offset() == 170);
    {
        auto c = t.subscribe({.from = start::earliest});
        CHECK(c.try_receive()->body() == 170);
    }
    CHECK(held->ack());
    CHECK(t.first_offset() == 200);
    CHECK(t.unsubscribe("a"));
    CHECK(t.statistics().bytes == 0);
}

TEST_CASE("retention: a subscription that goes gives its messages up") {
    topic<int> t;
    {
        auto ephemeral = t.subscribe();
        auto durable = t.subscribe("durable");
        publish_all(t, 0, 10);
        CHECK(kept(t) == 10);
    }
    CHECK(kept(t) == 10);
    CHECK(t.unsubscribe("durable"));
    CHECK(kept(t) == 0);
    auto s = t.subscribe("durable", {.from = start::earliest});
    CHECK(!s.try_receive());
}

TEST_CASE("retention: by messages, bytes and age, and all that are set must hold") {
    manual_clock clock;
    SUBCASE("messages") {
        topic<int> t({.retention = {.messages = 50}, .clock = &clock});
        auto s = t.subscribe();
        for (int i = 0; i < 300; ++i) {
            t.publish(i);
            if (i % 7 == 0) { popped(s); }
        }
        popped(s);
        CHECK(kept(t) == 50);
        auto replay = t.subscribe({.from = start::earliest});
        CHECK(popped(replay) == numbers(250, 300));
    }
    SUBCASE("bytes") {
        topic<int> t({.retention = {.bytes = 40 * sizeof(int)}, .clock = &clock});
        publish_all(t, 0, 300);
        CHECK(kept(t) == 40);
        auto replay = t.subscribe({.from = start::earliest});
        CHECK(popped(replay) == numbers(260, 300));
    }
    SUBCASE("age") {
        topic<int> t({.retention = {.age = 1min}, .clock = &clock});
        for (int i = 0; i < 300; ++i) {
            t.publish(i);
            clock.advance(1s);
        }
        auto replay = t.subscribe({.from = start::earliest});
        CHECK(popped(replay) == numbers(241, 300)); // number 240 is one minute old
        clock.advance(1h);
        CHECK(kept(t) == 0);
        auto none = t.subscribe({.from = start::earliest});
        CHECK(!none.try_receive());
    }
    SUBCASE("messages and age") {
        topic<int> t({.retention = {.messages = 10, .age = 1min}, .clock = &clock});
        publish_all(t, 0, 300);
        CHECK(kept(t) == 10);
        clock.advance(50s);
        publish_all(t, 300, 305);
        CHECK(kept(t) == 10);
        clock.advance(10s);
        CHECK(kept(t) == 5);
    }
    SUBCASE("in each partition") {
        topic<int> t({.partitions = 4, .retention = {.messages = 5}, .clock = &clock});
        publish_all(t, 0, 400);
        for (int p = 0; p < 4; ++p) { CHECK(kept(t, p) == 5); }
        auto replay = t.subscribe({.from = start::earliest});
        CHECK(popped(replay).size() == 20);
    }
}

TEST_CASE("retention: what a subscription has not settled stays beyond the limits") {
    topic<int> t({.retention = {.messages = 5}});
    auto s = t.subscribe("slow");
    publish_all(t, 0, 200);
    CHECK(t.first_offset() == 0);
    auto held = s.try_receive();
    CHECK(popped(s) == numbers(1, 200));
    CHECK(t.first_offset() == 0);
    CHECK(held->body() == 0);
    held->ack();
    CHECK(t.first_offset() == 195);
}

TEST_CASE("retention: compact keeps the last message of each key, in order, as long as it is the last") {
    SUBCASE("few") {
        topic<int> t({.retention = {.compact = true}});
        t.publish(0, {.key = "a"});
        t.publish(1, {.key = "b"});
        t.publish(2, {.key = "a"});
        t.publish(3); // no key: nobody needs it
        t.publish(4, {.key = "c"});
        auto s = t.subscribe({.from = start::earliest});
        CHECK(popped(s) == std::vector{1, 2, 4});
        t.publish(5, {.key = "b"});
        auto again = t.subscribe({.from = start::earliest});
        CHECK(popped(again) == std::vector{2, 4, 5});
        CHECK(popped(s) == std::vector{5});
        CHECK(t.first_offset() == 2);
    }
    SUBCASE("many, beside the last few") {
        topic<int> t({.retention = {.messages = 10, .compact = true}});
        auto reader = t.subscribe();
        t.publish(-1, {.key = "once"});
        for (int i = 0; i < 3000; ++i) {
            t.publish(i, keyed(std::to_string(i % 100)));
            if (i % 17 == 0) { popped(reader); }
        }
        publish_all(t, 3000, 3005);
        std::vector<int> expected = numbers(2900, 3005);
        expected.insert(expected.begin(), -1);
        auto s = t.subscribe({.from = start::earliest});
        CHECK(popped(s) == expected);
        CHECK(t.first_offset() == 0);
        t.publish(-2, {.key = "once"});
        auto again = t.subscribe({.from = start::earliest});
        CHECK(again.try_pop()->body() == 2900);
        CHECK(t.first_offset() == 2901);
    }
    SUBCASE("a lagging subscription still gets all") {
        topic<int> t({.retention = {.compact = true}});
        auto s = t.subscribe("s");
        for (int i = 0; i < 500; ++i) { t.publish(i, keyed(std::to_string(i % 3))); }
        CHECK(popped(s) == numbers(0, 500));
    }
}

TEST_CASE("retention: bodies are destroyed once trimmed; what is held stays until it is let go") {
    const long live = tracked::live(), faults = tracked::faults();
    {
        topic<tracked> t({.retention = {.messages = 10}});
        auto a = t.subscribe("a"), b = t.subscribe();
        for (int i = 0; i < 1000; ++i) { t.publish(tracked(i)); }
        CHECK(tracked::live() == live + 1000); // one for all
        auto held = a.try_receive();
        auto message = b.try_pop();
        while (a.try_pop()) {}
        while (b.try_pop()) {}
        CHECK(held->ack());
        CHECK(tracked::live() <= live + 10 + 4 * 32); // what nobody holds goes by the block
        CHECK(message->body().value() == 0);
        held = b.try_receive();
        CHECK(!held);
        t.publish(tracked(1000));
        held = a.try_receive();
        t.close();
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}

TEST_CASE("retention: a late holder keeps the body after everybody has settled it") {
    const long live = tracked::live(), faults = tracked::faults();
    {
        manual_clock clock;
        topic<tracked> t({.clock = &clock});
        auto s = t.subscribe("s", {.lease = 1s, .retry = {.initial = 0s}});
        t.publish(tracked(7));
        auto late = s.try_receive();
        clock.advance(2s);
        auto again = s.try_receive();
        REQUIRE(again);
        CHECK(again->attempt() == 2);
        CHECK(again->ack());
        for (int i = 0; i < 500; ++i) {
            t.publish(tracked(i));
            s.try_pop();
        }
        CHECK(late->body().value() == 7);
        CHECK_FALSE(late->ack());
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}

// ------------------------------------------------------------------------------------------------------------------------------- bounds

TEST_CASE("max_messages: counts what a durable subscription has not settled, in flight and parked included") {
    manual_clock clock;
    topic<int> t({.max_messages = 3, .overflow = overflow::reject, .clock = &clock});
    publish_all(t, 0, 100); // nobody subscribed: nothing to settle
    auto a = t.subscribe("a"), b = t.subscribe("b");
    publish_all(t, 0, 3);
    CHECK(t.try_publish(3).error() == errc::full);
    CHECK(thrown_by([&] { t.publish(3); }) == errc::full);
    CHECK(t.publish_for(1h, 3).error() == errc::full);
    CHECK(popped(a).size() == 3);
    CHECK(t.try_publish(3).error() == errc::full); // b has settled nothing
    auto d = b.try_receive();
    CHECK(t.try_publish(3).error() == errc::full); // in flight
    CHECK(d->nack(1min));
    CHECK(t.try_publish(3).error() == errc::full); // parked
    CHECK(b.try_pop());
    CHECK(t.try_publish(3));
    CHECK(t.try_publish(4).error() == errc::full);
    clock.advance(1min);
    CHECK(b.try_receive()->reject()); // dead is settled
    CHECK(t.try_publish(4));
    CHECK(t.unsubscribe("b"));
    CHECK(t.try_publish(5));
    CHECK(t.try_publish(6).error() == errc::full); // a has 3, 4, 5
    CHECK(t.statistics().dropped == 0);
}

TEST_CASE("max_messages: what a durable subscription begins with counts too") {
    topic<int> t({.retention = {.messages = 10}, .max_messages = 5, .overflow = overflow::reject});
    publish_all(t, 0, 4);
    auto s = t.subscribe("s", {.from = start::earliest});
    CHECK(t.try_publish(4));
    CHECK(t.try_publish(5).error() == errc::full);
    CHECK(popped(s).size() == 5);
    CHECK(t.try_publish(5));
    s.seek(start::earliest); // six again
    CHECK(t.try_publish(6).error() == errc::full);
    s.seek(start::latest);
    for (int i = 6; i < 11; ++i) { CHECK(t.try_publish(i)); }
    CHECK(t.try_publish(11).error() == errc::full);
}

TEST_CASE("block: a publisher waits for the slowest durable subscription, and goes on when it has settled") {
    manual_clock clock;
    topic<int> t({.partitions = 2, .max_messages = 1, .clock = &clock});
    auto fast = t.subscribe("fast"), slow = t.subscribe("slow", {.mode = sharing::shared});
    t.publish(0);
    popped(fast);
    std::atomic<int> published{0};
    {
        const auto one = [&] {
            t.publish(1);
            ++published;
        };
        const blocked a(one), b(one);
        clock.await_parked(2);
        CHECK(published == 0);
        CHECK(slow.try_pop());
        CHECK(support::eventually([&] { return published == 1; }));
        clock.await_parked(1);
        CHECK(popped(fast).size() == 1);
        slow.try_receive()->ack();
    }
    CHECK(published == 2);
    CHECK(t.statistics().sent == 3);
}

TEST_CASE("block: a wait for room ends with the time, the stop, the close, an expiry, unsubscribe, seek") {
    manual_clock clock;
    topic<std::string> t({.max_messages = 1, .clock = &clock});
    auto s = t.subscribe("s");
    t.publish("first");
    std::string kept_back = "a string that is long enough to be on the heap";
    {
        const blocked sender([&] { CHECK(t.publish_for(10s, std::move(kept_back)).error() == errc::timed_out); });
        clock.await_parked(1);
        clock.advance(9'999'999'999ns);
        clock.await_parked(1);
        CHECK(!sender.done());
        clock.advance(1ns);
    }
    CHECK(kept_back == "a string that is long enough to be on the heap");
    mailroom::stop_source stop;
    {
        const blocked sender([&] { CHECK(thrown_by([&] { t.publish("x", {}, stop.get_token()); }) == errc::full); });
        clock.await_parked(1);
        stop.request_stop();
    }
    CHECK(thrown_by([&] { t.publish("x", {}, stop.get_token()); }) == errc::full); // stopped before it began
    CHECK(s.try_pop());
    CHECK(t.publish("there is room", {.time_to_live = 1min}, stop.get_token()) == position{0, 1});
    {
        const blocked sender([&] { CHECK(t.publish("after the expiry") == position{0, 2}); });
        clock.await_parked(1);
        clock.advance(1min);
        CHECK(sender.finishes());
    }
    CHECK(s.dead().size() == 1);
    {
        const blocked sender([&] { CHECK(t.publish("after the seek") == position{0, 3}); });
        clock.await_parked(1);
        s.seek(start::latest);
        CHECK(sender.finishes());
    }
    {
        const blocked sender([&] { CHECK(t.publish("after unsubscribe") == position{0, 4}); });
        clock.await_parked(1);
        CHECK(t.unsubscribe("s"));
        CHECK(sender.finishes());
    }
    auto next = t.subscribe("next");
    t.publish("full again");
    {
        const blocked sender([&] { CHECK(thrown_by([&] { t.publish("x"); }) == errc::closed); });
        const blocked many([&] { CHECK(thrown_by([&] { t.publish_many(std::vector<std::string>(1)); }) == errc::closed); });
        clock.await_parked(2);
        t.close();
    }
    CHECK(popped(next).size() == 1);
}

TEST_CASE("max_bytes: counts footprints; a message larger than it is too large at once") {
    const auto text = [](std::size_t n) { return std::string(n, 'x'); };
    topic<std::string> t({.max_bytes = 3 * sizeof(std::string) + 300});
    auto s = t.subscribe("s");
    t.publish(text(100));
    t.publish(text(100));
    CHECK(t.try_publish(text(101)).error() == errc::full);
    CHECK(t.try_publish(text(100)));
    CHECK(t.statistics().bytes == 3 * sizeof(std::string) + 300);
    CHECK(s.statistics().bytes == 3 * sizeof(std::string) + 300);
    CHECK(thrown_by([&] { t.publish(text(1000)); }) == errc::too_large);
    CHECK(t.try_publish(text(1000)).error() == errc::too_large);
    s.try_receive()->ack();
    CHECK(s.statistics().bytes == 2 * sizeof(std::string) + 200);
    CHECK(t.try_publish(text(100)));
    popped(s);
    CHECK(s.statistics().bytes == 0);
    CHECK(t.statistics().bytes == 0);
}

TEST_CASE("memory_budget: shared by a topic and a queue, room in one wakes who waits in the other") {
    manual_clock clock;
    mailroom::memory_budget budget(4 * sizeof(int));
    auto t = std::make_unique<topic<int>>(topic_options<int>{.budget = &budget, .clock = &clock});
    mailroom::queue<int> q({.budget = &budget, .clock = &clock});
    auto a = t->subscribe("a"), b = t->subscribe("b");
    t->publish(0);
    t->publish(1);
    CHECK(budget.used() == 2 * sizeof(int)); // stored once, however many subscribe
    q.send(0);
    q.send(1);
    CHECK(t->try_publish(2).error() == errc::full);
    CHECK(q.try_send(2).error() == errc::full);
    popped(a);
    CHECK(budget.used() == 4 * sizeof(int)); // b keeps them
    {
        const blocked sender([&] { q.send(2); });
        clock.await_parked(1);
        CHECK(b.try_pop());
        CHECK(sender.finishes());
    }
    {
        const blocked publisher([&] { t->publish(2); });
        clock.await_parked(1);
        CHECK(q.try_pop());
        CHECK(publisher.finishes());
    }
    CHECK(budget.used() == 4 * sizeof(int));
    {
        const blocked sender([&] { q.send(3); });
        clock.await_parked(1);
        t.reset(); // gives back what it had
        CHECK(sender.finishes());
    }
    CHECK(budget.used() == 3 * sizeof(int));
    for (int i = 1; i < 4; ++i) { CHECK(q.try_pop()->body() == i); }
    CHECK(budget.used() == 0);
}

TEST_CASE("drop_newest: what finds no room is not taken, for nobody, and counted") {
    topic<int> t({.partitions = 2, .max_messages = 2, .overflow = overflow::drop_newest});
    auto slow = t.subscribe("slow"), fast = t.subscribe("fast");
    t.publish_many(std::vector{0, 1});
    CHECK(popped(fast).size() == 2);
    CHECK(t.publish(2).offset == no_offset);
    CHECK(t.try_publish(3)->offset == no_offset);
    CHECK(t.publish_many(std::vector{4, 5}).offset == no_offset);
    CHECK(t.publish_async(6).wait().offset == no_offset);
    CHECK(t.statistics().dropped == 5);
    CHECK(t.statistics().sent == 2);
    CHECK(popped(fast).empty());
    CHECK(popped(slow).size() == 2);
    CHECK(t.publish(7).offset != no_offset);
}

TEST_CASE("drop_oldest: a full durable subscription loses the oldest that nobody holds, alone, and is told") {
    topic<int> t({.max_messages = 3, .overflow = overflow::drop_oldest});
    auto slow = t.subscribe("slow"), fast = t.subscribe("fast");
    for (int i = 0; i < 5; ++i) {
        CHECK(t.publish(i) == position{0, static_cast<mailroom::offset>(i)});
        CHECK(popped(fast) == std::vector{i});
    }
    CHECK(info_of(t, "slow").lost == 2);
    CHECK(info_of(t, "fast").lost == 0);
    CHECK(slow.statistics().dropped == 2);
    CHECK(t.statistics().dropped == 2);
    CHECK(t.publish_many(std::vector{5, 6}) == position{0, 5});
    CHECK(popped(fast) == std::vector{5, 6});
    std::vector<delivery<int>> held;
    CHECK(slow.receive_many(held, 3) == 3);
    CHECK(held[0].body() == 4);
    CHECK(t.try_publish(7).error() == errc::full); // every one is held
    CHECK(thrown_by([&] { t.publish(7); }) == errc::full);
    CHECK(popped(fast).empty());
    CHECK(held[1].release());
    CHECK(t.publish(7) == position{0, 7});
    CHECK(info_of(t, "slow").lost == 5);
    CHECK(held[0].ack());
    CHECK(held[2].ack());
    CHECK(popped(slow) == std::vector{7});
    CHECK(popped(fast) == std::vector{7});
}

TEST_CASE("slow: an ephemeral subscription never holds a publisher up; it loses the oldest and is told how many") {
    for (const auto rule : {overflow::block, overflow::reject, overflow::drop_oldest, overflow::drop_newest}) {
        CAPTURE(static_cast<int>(rule));
        topic<int> t({.max_messages = 4, .overflow = rule});
        auto s = t.subscribe();
        auto durable = t.subscribe("durable");
        for (int i = 0; i < 100; ++i) {
            REQUIRE(t.try_publish(i));
            CHECK(popped(durable) == std::vector{i});
        }
        const auto lost = info_of(t, "").lost;
        CHECK(s.statistics().dropped == lost);
        CHECK(s.lag() <= 4);
        CHECK(s.lag() + lost == 100);
        CHECK(popped(s) == numbers(static_cast<int>(lost), 100));
        CHECK(info_of(t, "durable").lost == 0);
        std::vector<delivery<int>> held;
        publish_all(t, 100, 104);
        popped(durable);
        CHECK(s.receive_many(held, 10) == 4);
        for (int i = 104; i < 120; ++i) { // everything of it is held: nothing to drop, nobody waits
            REQUIRE(t.try_publish(i));
            popped(durable);
        }
        for (auto& d : held) { CHECK(d.ack()); }
        const std::vector<int> rest = popped(s);
        CHECK(std::ranges::is_sorted(rest));
        CHECK(s.lag() == 0);
        CHECK(rest.size() + 4 + info_of(t, "").lost == 120 - (100 - lost));
    }
}

TEST_CASE("slow: in a topic without bounds nothing is lost") {
    topic<int> t;
    auto s = t.subscribe({.slow = mailroom::slow::disconnect});
    publish_all(t, 0, 5000);
    CHECK(popped(s) == numbers(0, 5000));
    CHECK(info_of(t, "").lost == 0);
}

TEST_CASE("slow: one that is to be disconnected receives no more, and is told what it lost") {
    manual_clock clock;
    topic<int> t({.max_messages = 4, .clock = &clock});
    auto s = t.subscribe({.slow = mailroom::slow::disconnect});
    auto other = t.subscribe();
    publish_all(t, 0, 4);
    auto held = s.try_receive();
    REQUIRE(held);
    popped(other);
    CHECK(t.try_publish(4));
    CHECK(!s.try_receive());
    CHECK(!s.receive()); // at once
    CHECK(held->body() == 0);
    CHECK(!held->ack());
    CHECK(s.statistics().dropped >= 4);
    CHECK(popped(other) == std::vector{4});
    CHECK(t.try_publish(5));
    CHECK(!s.try_pop());
}

TEST_CASE("drop_oldest: by bytes") {
    const auto text = [](char c) { return std::string(100, c); };
    topic<std::string> t({.max_bytes = 2 * (sizeof(std::string) + 100), .overflow = overflow::drop_oldest});
    auto s = t.subscribe("s");
    for (const char c : {'a', 'b', 'c', 'd'}) { t.publish(text(c)); }
    CHECK(info_of(t, "s").lost == 2);
    CHECK(popped(s) == std::vector{text('c'), text('d')});
}

TEST_CASE("drop_oldest: the oldest by its time, in whichever partition") {
    for (const bool durable : {true, false}) {
        CAPTURE(durable);
        manual_clock clock;
        topic<int> t({.partitions = 2, .max_messages = 4, .overflow = overflow::drop_oldest, .clock = &clock});
        auto s = durable ? t.subscribe("s") : t.subscribe();
        const int first = t.publish(0, {.key = "a"}).partition;
        CHECK(t.publish(1, {.key = "b"}).partition != first);
        for (int i = 2; i < 5; ++i) {
            clock.advance(1s);
            t.publish(i, {.key = "b"});
        }
        std::vector<int> got = popped(s);
        std::ranges::sort(got);
        CHECK(got == numbers(1, 5));
    }
}

TEST_CASE("memory_budget: of a topic alone: too large at once, given back by seek and unsubscribe; a slow ephemeral waits for nobody") {
    mailroom::memory_budget budget(2 * sizeof(int));
    topic<int> t({.budget = &budget});
    {
        auto s = t.subscribe("s");
        CHECK(thrown_by([&] { t.publish_many(numbers(0, 3)); }) == errc::too_large);
        CHECK(budget.used() == 0);
        t.publish_many(numbers(0, 2));
        CHECK(budget.used() == budget.limit());
        s.seek(start::latest);
        CHECK(budget.used() == 0);
        t.publish_many(numbers(0, 2));
        CHECK(t.unsubscribe("s"));
        CHECK(budget.used() == 0);
    }
    auto slow = t.subscribe();
    for (int i = 0; i < 100; ++i) { REQUIRE(t.try_publish(i)); }
    const std::vector<int> got = popped(slow);
    CHECK(!got.empty());
    CHECK(got.size() <= 2);
    CHECK(got.back() == 99);
    CHECK(slow.statistics().dropped + got.size() == 100);
    CHECK(budget.used() == 0);
}

TEST_CASE("duplicates: the id of what was refused is not remembered; a duplicate needs no room") {
    for (const auto rule : {overflow::drop_newest, overflow::reject}) {
        for (const int partitions : {1, 3}) {
            topic<int> t({.partitions = partitions, .max_messages = 1, .overflow = rule, .deduplicate = {.window = 1h}});
            auto s = t.subscribe("s");
            const position first = t.publish(0, {.id = "first"});
            auto r = t.try_publish(1, {.id = "a"});
            if (rule == overflow::reject) {
                CHECK(r.error() == errc::full);
            } else {
                CHECK(r->offset == no_offset);
            }
            CHECK(*t.try_publish(0, {.id = "first"}) == first);
            popped(s);
            r = t.try_publish(1, {.id = "a"});
            REQUIRE(r);
            CHECK(r->offset != no_offset);
            CHECK(popped(s) == std::vector{1});
        }
    }
}

// -------------------------------------------------------------------------------------------------------------- what it says of itself

TEST_CASE("statistics: of the log, and summed up over subscriptions") {
    manual_clock clock;
    topic<int> t({.deduplicate = {.window = 1h}, .clock = &clock});
    auto a = t.subscribe("a"), b = t.subscribe("b", {.filter = [](const int&v, const properties&) {
                                                   if (v == 3) { throw std::runtime_error("three"); }
                                                   return v % 2 == 0;
                                               }});
    t.publish(0, {.id = "x"});
    t.publish(0, {.id = "x"});
    clock.advance(5s);
    t.publish(1);
    t.publish(2, {.delay = 1min});
    t.publish(3);
    t.publish(4, {.time_to_live = 1s});
    auto s = t.statistics();
    CHECK(s.sent == 5);
    CHECK(s.duplicates == 1);
    CHECK(s.bytes == 5 * sizeof(int));
    CHECK(s.oldest_age == 5s);
    auto held = a.try_receive();
    CHECK(a.try_pop());
    CHECK(a.try_receive()->reject());
    CHECK(t.subscriptions().size() == 2);
    s = a.statistics();
    CHECK(s.sent == 5);
    CHECK(s.in_flight == 1);
    CHECK(s.acked == 1);
    CHECK(s.dead == 1);
    CHECK(s.parked == 1);
    CHECK(s.ready == 1);
    CHECK(b.lag() == 3);
    s = b.statistics();
    CHECK(s.filtered == 2);
    CHECK(s.filter_errors == 1);
    CHECK(s.ready == 2);
    CHECK(s.parked == 1);
    s = t.statistics();
    CHECK(s.in_flight == 1);
    CHECK(s.acked == 1);
    CHECK(s.dead == 1);
    CHECK(s.parked == 2);
    CHECK(s.ready == 3);
    CHECK(s.filtered == 2);
    CHECK(s.filter_errors == 1);
    clock.advance(1s);
    CHECK(a.statistics().expired == 1);
    CHECK(b.statistics().expired == 1);
    CHECK(t.statistics().expired == 2);
    CHECK(t.statistics().dead == 3);
    CHECK(held->nack(0s));
    CHECK(a.try_receive()->attempt() == 2);
    CHECK(t.statistics().redelivered == 1);
    CHECK(t.statistics().oldest_age == 6s);
}

TEST_CASE("subscriptions: who there is, where they stand, what they hold") {
    topic<int> t({.partitions = 2});
    CHECK(t.subscriptions().empty());
    auto a = t.subscribe();
    auto b1 = t.subscribe("b", {.mode = sharing::shared});
    std::optional<subscription<int>> b2 = t.subscribe("b", {.mode = sharing::shared});
    publish_all(t, 0, 10);
    auto all = t.subscriptions();
    REQUIRE(all.size() == 2);
    CHECK(all[0].name.empty());
    CHECK(all[0].members == 1);
    CHECK(all[0].positions == std::vector<position>{{0, 0}, {1, 0}});
    CHECK(all[0].lag == 10);
    CHECK(all[1].name == "b");
    CHECK(all[1].members == 2);
    CHECK(all[1].in_flight == 0);
    CHECK(all[1].lost == 0);
    auto d = b1.try_receive();
    auto e = b2->try_receive();
    CHECK(info_of(t, "b").in_flight == 2);
    CHECK(info_of(t, "b").lag == 10);
    CHECK(d->ack());
    CHECK(info_of(t, "b").lag == 9);
    CHECK(info_of(t, "b").in_flight == 1);
    CHECK(e->ack());
    popped(a);
    CHECK(info_of(t, "").positions == std::vector<position>{{0, 5}, {1, 5}});
    CHECK(info_of(t, "").lag == 0);
    b2.reset();
    CHECK(info_of(t, "b").members == 1);
    {
        const subscription<int> gone = std::move(b1);
        CHECK(info_of(t, "b").members == 1);
    }
    CHECK(info_of(t, "b").members == 0);
    CHECK(info_of(t, "b").lag == 8);
    { const auto gone = std::move(a); }
    CHECK(t.subscriptions().size() == 1);
}

// ---------------------------------------------------------------------------------------------------------------------------- the end

TEST_CASE("close: subscriptions get what is left, wait for what may come back, then nothing") {
    manual_clock clock;
    topic<int> t({.partitions = 2, .clock = &clock});
    auto a = t.subscribe("a"), b = t.subscribe();
    t.publish(0);
    t.publish(1, {.delay = 1min});
    auto held = a.try_receive();
    t.close();
    std::atomic<int> got{-1};
    {
        const blocked receiver([&] {
            auto d = a.receive(); // it may yet come back
            CHECK(d);
            if (!d) { return; }
            got = d->body();
            d->ack();
            CHECK(a.receive()->body() == 1);
        });
        clock.await_parked(1);
        CHECK(held->release());
        CHECK(support::eventually([&] { return got == 0; }));
        clock.await_parked(1);
        clock.advance(1min);
    }
    CHECK(b.try_pop());
    CHECK(b.try_pop());
    CHECK(!b.receive());
    auto back = a.try_receive(); // what the receiver let go
    if (!back) {
        clock.advance(1min);
        back = a.try_receive();
    }
    REQUIRE(back);
    {
        const blocked receiver([&] { CHECK(!a.receive()); });
        clock.await_parked(1);
        CHECK(back->ack());
        CHECK(receiver.finishes());
    }
    CHECK(!a.receive());
    CHECK(!a.pop());
}

TEST_CASE("close: wakes whoever is blocked in any subscription") {
    manual_clock clock;
    topic<int> t({.partitions = 3, .clock = &clock});
    std::vector<subscription<int>> subs;
    subs.push_back(t.subscribe());
    for (const auto mode : {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned}) {
        const std::string name = "mode " + std::to_string(static_cast<int>(mode));
        subs.push_back(t.subscribe(name, {.mode = mode}));
        if (mode != sharing::exclusive) { subs.push_back(t.subscribe(name, {.mode = mode})); }
    }
    {
        std::vector<std::unique_ptr<blocked>> all;
        for (auto& s : subs) {
            all.push_back(std::make_unique<blocked>([&s] { CHECK(!s.receive()); }));
        }
        clock.await_parked(subs.size());
        t.close();
        for (const auto& one : all) { CHECK(one->finishes()); }
    }
}

TEST_CASE("drain: until every subscription has settled everything, or the time is up") {
    manual_clock clock;
    topic<int> t({.clock = &clock});
    CHECK(topic<int>().drain(0s));
    auto a = t.subscribe("a"), b = t.subscribe("b");
    t.publish(0);
    t.publish(1, {.delay = 5s});
    CHECK_FALSE(t.drain(0s));
    CHECK(t.try_publish(2).error() == errc::closed);
    {
        const blocked drainer([&] { CHECK_FALSE(t.drain(3s)); });
        clock.await_parked(1);
        popped(a);
        popped(b);
        clock.advance(3s);
        CHECK(drainer.finishes());
    }
    {
        const blocked drainer([&] { CHECK(t.drain(1h)); });
        clock.await_parked(1);
        clock.advance(2s);
        auto d = a.try_receive();
        CHECK(d);
        CHECK(b.try_pop());
        clock.await_parked(1);
        CHECK(!drainer.done());
        CHECK(d->ack());
        CHECK(drainer.finishes());
    }
    CHECK(t.drain(0s));
}

TEST_CASE("drain: a durable subscription that is away is waited for, until it is forgotten") {
    manual_clock clock;
    topic<int> t({.clock = &clock});
    static_cast<void>(t.subscribe("away"));
    t.publish(0);
    CHECK_FALSE(t.drain(0s));
    {
        const blocked drainer([&] { CHECK(t.drain(1h)); });
        clock.await_parked(1);
        CHECK(t.unsubscribe("away"));
        CHECK(drainer.finishes());
    }
}

TEST_CASE("lifetime: deliveries, messages, subscriptions and dead letters' owners outlive the topic") {
    const long live = tracked::live(), faults = tracked::faults();
    for (const auto mode : {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned}) {
        CAPTURE(static_cast<int>(mode));
        auto t = std::make_unique<topic<tracked>>(topic_options<tracked>{.partitions = 3});
        auto s = std::make_optional(t->subscribe("s", {.mode = mode}));
        for (int i = 0; i < 200; ++i) { t->publish(tracked(i), {.subject = std::to_string(i)}); }
        std::vector<delivery<tracked>> held;
        s->receive_many(held, 50);
        REQUIRE(!held.empty());
        CHECK(held.back().reject());
        held.pop_back();
        auto m = s->try_pop();
        REQUIRE(m);
        t.reset();
        for (const auto& d : held) { CHECK(std::to_string(d->value()) == d.props().subject); }
        CHECK(std::to_string(m->body().value()) == m->props().subject);
        CHECK(!s->try_receive());
        CHECK(!s->receive());
        CHECK(!s->pop());
        CHECK(!s->receive_for(1h));
        s->pause();
        s->resume();
        s->seek(start::earliest);
        CHECK(!s->try_receive());
        static_cast<void>(s->lag());
        static_cast<void>(s->statistics());
        static_cast<void>(s->dead().size());
        CHECK(!held.front().ack());
        CHECK(!held[1].nack());
        s.reset();
        CHECK(std::to_string(held.back()->value()) == held.back().props().subject);
        held.clear();
        CHECK(std::to_string(m->body().value()) == m->props().subject);
        m.reset();
        CHECK(tracked::live() == live);
    }
    CHECK(tracked::faults() == faults);
}

TEST_CASE("lifetime: a topic destroyed with blocked receivers, coroutines and consumers lets them go") {
    manual_clock clock;
    for (const auto mode : {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned}) {
        CAPTURE(static_cast<int>(mode));
        auto t = std::make_unique<topic<int>>(topic_options<int>{.partitions = 2, .clock = &clock});
        auto s = t->subscribe("s", {.mode = mode});
        auto u = t->subscribe();
        auto consumed = t->subscribe();
        std::atomic<int> seen{0};
        auto c = consumed.consume([&](const int&) { ++seen; });
        t->publish(1, {.delay = 1h}); // so that there is something to wait for
        bool resumed = false;
        const task waiting = [](subscription<int>& from, bool& done) -> task {
            const auto d = co_await from.next();
            done = !d.has_value();
        }(u, resumed);
        {
            const blocked receiver([&] { CHECK(!s.receive()); }), popper([&] { CHECK(!s.pop_for(10h)); });
            const blocked undertaker([&] { CHECK(!s.dead().receive_for(10h)); });
            clock.await_parked(3);
            t.reset();
            CHECK(receiver.finishes());
            CHECK(popper.finishes());
            CHECK(undertaker.finishes());
        }
        CHECK(resumed);
        CHECK(waiting.done());
        c.stop();
        CHECK(c.drain(10min));
        CHECK(seen == 0);
    }
}

TEST_CASE("lifetime: a subscription handle that goes while its receivers are gone; deliveries of an ephemeral one stay readable") {
    const long live = tracked::live(), faults = tracked::faults();
    {
        topic<tracked> t;
        std::optional<delivery<tracked>> d;
        std::optional<message<tracked>> m;
        {
            auto s = t.subscribe();
            for (int i = 0; i < 100; ++i) { t.publish(tracked(i)); }
            d = s.try_receive();
            m = s.try_pop();
        }
        CHECK(t.subscriptions().empty());
        CHECK(kept(t) == 0);
        for (int i = 0; i < 200; ++i) { t.publish(tracked(-7)); }
        CHECK((*d)->value() == 0);
        CHECK(m->body().value() == 1);
        CHECK(!d->ack());
        CHECK(m->body().value() == 1);
        m.reset();
        CHECK(tracked::live() <= live + 2 * 32);
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}

TEST_CASE("lifetime: a topic and its subscriptions can be moved") {
    topic<int> t;
    auto s = t.subscribe("s");
    auto& dead = s.dead();
    t.publish(1);
    topic<int> moved = std::move(t);
    subscription<int> also = std::move(s);
    moved.publish(2);
    CHECK(also.try_receive()->reject("bad"));
    CHECK(dead.size() == 1); // valid as long as the subscription, moves included
    CHECK(popped(also) == std::vector{2});
    auto other = moved.subscribe();
    other = std::move(also); // the one it was is over
    CHECK(moved.subscriptions().size() == 1);
    moved = topic<int>();
    CHECK(!other.receive());
}

TEST_CASE("drain: an ephemeral subscription that goes is waited for no longer") {
    topic<int> t;
    auto s = std::make_optional(t.subscribe());
    t.publish(0);
    CHECK_FALSE(t.drain(0s));
    s.reset();
    CHECK(t.drain(0s));
}

TEST_CASE("lifetime: a consumer that outlives its subscription and its topic idles") {
    std::optional<mailroom::consumer> c;
    std::atomic<int> sum{0};
    {
        topic<int> t;
        auto s = t.subscribe();
        c = s.consume([&](const int& v) { sum += v; });
        t.publish(1);
        CHECK(support::eventually([&] { return sum == 1; }));
    }
    CHECK(c->drain(1min));
    CHECK(sum == 1);
}

TEST_CASE("threads: several publish, several receive, each subscription gets each message once, in the order of its publisher") {
    constexpr int publishers = 3, each = 2000;
    topic<std::pair<int, int>> t({.partitions = 1, .max_messages = 64});
    auto a = t.subscribe("a"), b = t.subscribe("b");
    std::atomic<int> wrong{0};
    {
        std::vector<std::unique_ptr<blocked>> all;
        for (int p = 0; p < publishers; ++p) {
            all.push_back(std::make_unique<blocked>([&t, p] {
                for (int i = 0; i < each; ++i) { t.publish({p, i}); }
            }));
        }
        for (auto* s : {&a, &b}) {
            all.push_back(std::make_unique<blocked>([&wrong, s] {
                std::array<int, publishers> next{};
                for (int n = 0; n < publishers * each; ++n) {
                    auto d = s->receive();
                    if (!d || (*d)->second != next[static_cast<std::size_t>((*d)->first)]++) {
                        ++wrong;
                        if (!d) { return; }
                    }
                    d->ack();
                }
            }));
        }
    }
    CHECK(wrong == 0);
    CHECK(!a.try_receive());
    CHECK(!b.try_receive());
    CHECK(t.first_offset() == publishers * each);
}
