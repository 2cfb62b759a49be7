#include <mailroom/store/transient.hpp>
#include <mailroom/store/transient_topic.hpp>
#include <mailroom/testing.hpp>

#include <support/tracked.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using mailroom::bounded;
using mailroom::errc;
using mailroom::spsc;
using mailroom::topic;
using mailroom::transient;
using mailroom::transient_subscription;
using mailroom::unbounded;
using support::tracked;
using namespace std::chrono_literals;

namespace {

#define EVERY_SHAPE unbounded, bounded<64>, spsc<64>
#define BOUNDED_SHAPES bounded<4>, spsc<4>

template <class T, class Shape>
using lane_topic = topic<T, transient<Shape>>;
template <class T, class Shape>
using lane_subscription = transient_subscription<T, Shape>;

template <class Shape>
inline constexpr bool loses_newest = false;
template <std::size_t N>
inline constexpr bool loses_newest<spsc<N>> = true;

template <class Shape>
inline constexpr bool loses_oldest = false;
template <std::size_t N>
inline constexpr bool loses_oldest<bounded<N>> = true;

template <class Call>
std::error_code thrown(Call call) {
    try {
        call();
    } catch (const mailroom::error& e) { return e.code(); }
    return {};
}

template <class Subscription>
auto drained(Subscription& from) {
    std::vector<typename Subscription::value_type> out;
    from.pop_many(std::back_inserter(out), 1000);
    return out;
}

struct plain {
    int a = 0;
    double b = 0;
};

// Does something when it is copied; moving it does nothing.
struct hooked {
    explicit hooked(int v, const std::function<void()>* f = nullptr) : value(v), on_copy(f) {}
    hooked(const hooked& other) : value(other.value), on_copy(other.on_copy) {
        if (on_copy != nullptr) { (*on_copy)(); }
    }
    hooked(hooked&&) = default;
    int value;
    const std::function<void()>* on_copy;
};

std::vector<int> values(lane_subscription<hooked, unbounded>& from) {
    std::vector<int> out;
    while (const auto m = from.try_pop()) { out.push_back(m->value); }
    return out;
}

struct counts_copies {
    counts_copies() = default;
    counts_copies(const counts_copies&) { ++copies; }
    counts_copies(counts_copies&& other) noexcept { other.moved_from = true; }
    bool moved_from = false;
    static inline int copies = 0;
};

} // namespace

TEST_CASE_TEMPLATE("transient topic: every subscription gets each message published since it was made, in order", Shape, EVERY_SHAPE) {
    lane_topic<int, Shape> t;
    t.publish(0); // to nobody
    auto first = t.subscribe();
    t.publish(1);
    auto second = t.subscribe();
    CHECK(t.subscribers() == 2);
    for (int i = 2; i < 50; ++i) { t.publish(i); }
    CHECK(first.size_approx() == 49);
    CHECK(second.size_approx() == 48);
    CHECK(first.pop() == 1);
    CHECK(first.try_pop() == 2);
    CHECK(first.pop_for(1h) == 3);
    CHECK(first.pop(mailroom::stop_token()) == 4);
    for (int i = 5; i < 50; ++i) { CHECK(first.try_pop() == i); }
    for (int i = 2; i < 50; ++i) { CHECK(second.try_pop() == i); }
    CHECK(!first.try_pop());
    CHECK(!second.pop_for(0s));
    CHECK(first.lost() == 0);
    CHECK(second.lost() == 0);
}

TEST_CASE_TEMPLATE("transient topic: every way to publish", Shape, EVERY_SHAPE) {
    lane_topic<plain, Shape> t;
    auto a = t.subscribe(), b = t.subscribe();
    const plain constant{3, 3};
    plain variable{4, 4};
    t.publish({1, 1});
    t.publish(plain{2, 2});
    t.publish(constant);
    t.publish(variable);
    t.emplace();
    CHECK(t.try_publish({6, 6}));
    CHECK(t.try_publish(constant));
    t.publish_many({plain{8, 0}, plain{9, 0}});
    for (auto* s : {&a, &b}) {
        std::vector<int> seen;
        while (auto m = s->try_pop()) { seen.push_back(m->a); }
        CHECK(seen == std::vector<int>{1, 2, 3, 4, 0, 6, 3, 8, 9});
    }
}

TEST_CASE_TEMPLATE("transient topic: an rvalue is moved to the last subscription, and copied to the others only", Shape, EVERY_SHAPE) {
    lane_topic<counts_copies, Shape> t;
    counts_copies m;
    counts_copies::copies = 0;
    t.publish(std::move(m));
    CHECK(!m.moved_from); // nobody wants it
    auto a = t.subscribe(), b = t.subscribe(), c = t.subscribe();
    t.publish(m);
    CHECK(counts_copies::copies == 3);
    CHECK(!m.moved_from);
    t.publish(std::move(m));
    CHECK(counts_copies::copies == 5);
    CHECK(m.moved_from);
    CHECK(t.try_publish(counts_copies()));
    CHECK(counts_copies::copies == 7);
    t.emplace();
    CHECK(counts_copies::copies == 9);
    CHECK(c.size_approx() == 4);
}

TEST_CASE_TEMPLATE("transient topic: ranges are copied, or moved from where they are given up", Shape, EVERY_SHAPE) {
    lane_topic<std::string, Shape> t;
    auto a = t.subscribe(), b = t.subscribe();
    const auto both_have = [&](const std::vector<std::string>& expected) {
        CHECK(drained(a) == expected);
        CHECK(drained(b) == expected);
    };
    std::vector<std::string> words{std::string(40, 'a'), std::string(40, 'b')};
    const std::vector<std::string> copy = words;
    t.publish_many(words);
    CHECK(words == copy);
    both_have(copy);
    t.publish_many(std::span(words)); // an rvalue that owns nothing
    CHECK(words == copy);
    both_have(copy);
    t.publish_many(std::move(words));
    CHECK(words[0].empty());
    both_have(copy);
    t.publish_many(std::vector<std::string>());
    both_have({});
    t.publish_many(copy | std::views::transform([](const std::string& s) { return s + "!"; }));
    both_have({copy[0] + "!", copy[1] + "!"});
    std::istringstream text("one two three"); // can be read once
    t.publish_many(std::ranges::subrange{std::istream_iterator<std::string>(text), std::istream_iterator<std::string>()});
    both_have({"one", "two", "three"});
    const char* const literals[] = {"x", "y"};
    t.publish_many(literals);
    both_have({"x", "y"});
    t.publish_many({"p", "q"});
    both_have({"p", "q"});
}

TEST_CASE_TEMPLATE("transient topic: many numbers at once", Shape, EVERY_SHAPE) {
    lane_topic<int, Shape> t;
    auto a = t.subscribe(), b = t.subscribe();
    std::vector<int> numbers(60);
    std::iota(numbers.begin(), numbers.end(), 0);
    t.publish_many(numbers);
    CHECK(drained(a) == numbers);
    CHECK(drained(b) == numbers);
    t.publish_many(std::vector<int>());
    CHECK(!a.try_pop());
    const std::vector<short> others{1, 2};
    t.publish_many(others);
    CHECK(drained(a) == std::vector<int>{1, 2});
    t.close();
    CHECK(thrown([&] { t.publish_many(numbers); }) == errc::closed);
}

TEST_CASE_TEMPLATE("transient topic: who is full loses and counts, the others do not, and the publisher goes on", Shape, BOUNDED_SHAPES) {
    mailroom::testing::manual_clock clock;
    lane_topic<std::string, Shape> t({.clock = &clock});
    auto slow = t.subscribe(), quick = t.subscribe();
    for (int i = 0; i < 10; ++i) {
        t.publish(std::to_string(i));
        CHECK(quick.try_pop() == std::to_string(i));
        CHECK(slow.lost() == static_cast<std::uint64_t>(i < 4 ? 0 : i - 3));
    }
    CHECK(quick.lost() == 0);
    CHECK(slow.size_approx() == 4);
    CHECK(drained(slow) == (loses_newest<Shape> ? std::vector<std::string>{"0", "1", "2", "3"} : std::vector<std::string>{"6", "7", "8", "9"}));
    t.publish("10"); // there is room again
    CHECK(slow.try_pop() == "10");
    CHECK(slow.lost() == 6);
}

TEST_CASE_TEMPLATE("transient topic: many at once are more than a lane holds", Shape, BOUNDED_SHAPES) {
    lane_topic<int, Shape> t;
    auto s = t.subscribe();
    t.publish(100);
    t.publish_many({0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    CHECK(s.lost() == 7);
    CHECK(drained(s) == (loses_newest<Shape> ? std::vector<int>{100, 0, 1, 2} : std::vector<int>{6, 7, 8, 9}));
    t.publish_many({1, 2, 3});
    t.publish_many({4, 5});
    CHECK(s.lost() == 8);
    CHECK(drained(s) == (loses_newest<Shape> ? std::vector<int>{1, 2, 3, 4} : std::vector<int>{2, 3, 4, 5}));
}

TEST_CASE("transient topic: with one place there is always the latest") {
    lane_topic<int, bounded<1>> t;
    auto s = t.subscribe();
    for (int i = 0; i < 100; ++i) { t.publish(i); }
    CHECK(s.lost() == 99);
    CHECK(s.pop() == 99);
    CHECK(!s.try_pop());
}

TEST_CASE_TEMPLATE("transient topic: closed, publishing is refused, subscriptions drain and then say nothing", Shape, EVERY_SHAPE) {
    lane_topic<std::string, Shape> t;
    auto s = t.subscribe();
    t.publish("a");
    t.publish("b");
    t.close();
    t.close();
    std::string kept = "kept";
    CHECK(thrown([&] { t.publish(kept); }) == errc::closed);
    CHECK(thrown([&] { t.publish(std::move(kept)); }) == errc::closed);
    CHECK(thrown([&] { t.emplace("c"); }) == errc::closed);
    CHECK(thrown([&] { t.publish_many(std::vector<std::string>(3, "d")); }) == errc::closed);
    CHECK(t.try_publish(std::move(kept)).error() == errc::closed);
    CHECK(t.try_publish(std::as_const(kept)).error() == errc::closed);
    CHECK(kept == "kept");
    CHECK(s.pop() == "a");
    CHECK(s.pop_for(1h) == "b");
    CHECK(!s.pop());
    CHECK(!s.pop_for(1h));
    CHECK(!s.pop(mailroom::stop_token()));
    CHECK(!s.try_pop());
    CHECK(t.subscribers() == 1);
    auto late = t.subscribe();
    CHECK(!late.pop());
    CHECK(t.subscribers() == 1);
}

TEST_CASE_TEMPLATE("transient topic: a blocked pop is woken by a message, a close, a stop, its deadline, the end of the topic", Shape, EVERY_SHAPE) {
    mailroom::testing::manual_clock clock;
    auto t = std::make_unique<lane_topic<int, Shape>>(mailroom::transient_options{.clock = &clock});
    auto s = t->subscribe();
    std::optional<int> got;

    std::thread receiver([&] { got = s.pop(); });
    clock.await_parked(1);
    t->publish(1);
    receiver.join();
    CHECK(got == 1);

    receiver = std::thread([&] { got = s.pop(); });
    clock.await_parked(1);
    t->publish_many({2, 3});
    receiver.join();
    CHECK(got == 2);
    CHECK(s.pop() == 3);

    mailroom::stop_source source;
    receiver = std::thread([&] { got = s.pop(source.get_token()); });
    clock.await_parked(1);
    source.request_stop();
    receiver.join();
    CHECK(!got);

    got = 0;
    receiver = std::thread([&] { got = s.pop_for(1min); });
    clock.await_parked(1);
    clock.advance(1min);
    receiver.join();
    CHECK(!got);

    got = 0;
    auto other = t->subscribe();
    receiver = std::thread([&] { got = s.pop(); });
    std::optional<int> got_too = 0;
    std::thread another([&] { got_too = other.pop(); });
    clock.await_parked(2);
    t->close();
    receiver.join();
    another.join();
    CHECK(!got);
    CHECK(!got_too);

    got = 0;
    t = std::make_unique<lane_topic<int, Shape>>(mailroom::transient_options{.clock = &clock});
    s = t->subscribe();
    receiver = std::thread([&] { got = s.pop(); });
    clock.await_parked(1);
    t.reset();
    receiver.join();
    CHECK(!got);
}

TEST_CASE_TEMPLATE("transient topic: threads that pop from one subscription share its messages", Shape, unbounded, bounded<64>) {
    mailroom::testing::manual_clock clock;
    lane_topic<int, Shape> t({.clock = &clock});
    auto s = t.subscribe();
    std::atomic<int> sum{0};
    std::vector<std::thread> receivers;
    for (int i = 0; i < 4; ++i) {
        receivers.emplace_back([&] { sum += s.pop().value(); });
    }
    clock.await_parked(4);
    t.publish_many({1, 2});
    t.publish(3);
    t.publish(4);
    for (auto& r : receivers) { r.join(); }
    CHECK(sum == 10);
}

TEST_CASE_TEMPLATE("transient topic: subscriptions come and go", Shape, EVERY_SHAPE) {
    lane_topic<int, Shape> t;
    std::optional a = t.subscribe();
    std::optional b = t.subscribe();
    std::optional c = t.subscribe();
    t.publish(1);
    b.reset();
    CHECK(t.subscribers() == 2);
    t.publish(2);
    CHECK(drained(*a) == std::vector<int>{1, 2});
    CHECK(drained(*c) == std::vector<int>{1, 2});
    a.reset();
    c.reset();
    CHECK(t.subscribers() == 0);
    t.publish(3);
    a = t.subscribe();
    CHECK(t.subscribers() == 1);
    t.publish(4);
    CHECK(drained(*a) == std::vector<int>{4});
}

TEST_CASE_TEMPLATE("transient topic: a subscription may outlive its topic, and drains", Shape, EVERY_SHAPE) {
    const long before = tracked::live();
    {
        std::optional<lane_subscription<tracked, Shape>> a, b;
        {
            lane_topic<tracked, Shape> t;
            a = t.subscribe();
            b = t.subscribe();
            for (int i = 0; i < 10; ++i) { t.publish(tracked(i)); }
        }
        CHECK(tracked::live() == before + 20);
        for (int i = 0; i < 10; ++i) { CHECK(a->pop()->value() == i); }
        CHECK(!a->pop());
        CHECK(b->pop()->value() == 0); // the others go with it
    }
    CHECK(tracked::live() == before);
    CHECK(tracked::faults() == 0);
}

TEST_CASE_TEMPLATE("transient topic: a subscription that ends takes its messages with it", Shape, EVERY_SHAPE) {
    const long before = tracked::live();
    lane_topic<tracked, Shape> t;
    auto stays = t.subscribe();
    for (int round = 0; round < 20; ++round) {
        auto goes = t.subscribe();
        for (int i = 0; i < 3; ++i) { t.publish(i); }
        CHECK(goes.pop()->value() == 0);
    }
    CHECK(tracked::live() == before + 60);
    CHECK(stays.size_approx() == 60);
    t.publish_many(std::vector<tracked>(100)); // more than bounded ones hold
    while (stays.try_pop()) {}
    CHECK(tracked::live() == before);
    CHECK(tracked::faults() == 0);
}

TEST_CASE_TEMPLATE("transient topic: topics and subscriptions can be moved", Shape, EVERY_SHAPE) {
    using subscription = lane_subscription<int, Shape>;
    static_assert(!std::is_copy_constructible_v<subscription> && !std::is_copy_assignable_v<subscription>);
    static_assert(std::is_nothrow_move_constructible_v<subscription> && std::is_nothrow_move_assignable_v<subscription>);
    static_assert(!std::is_copy_constructible_v<lane_topic<int, Shape>> && std::is_nothrow_move_assignable_v<lane_topic<int, Shape>>);
    lane_topic<int, Shape> t;
    auto s = t.subscribe();
    lane_topic<int, Shape> moved = std::move(t);
    moved.publish(1);
    auto other = std::move(s);
    moved.publish(2);
    CHECK(moved.subscribers() == 1);
    CHECK(drained(other) == std::vector<int>{1, 2});

    other = moved.subscribe(); // leaves what it was
    CHECK(moved.subscribers() == 1);
    moved.publish(3);
    CHECK(drained(other) == std::vector<int>{3});

    lane_topic<int, Shape> assigned;
    auto of_the_old = assigned.subscribe();
    assigned.publish(9);
    assigned = std::move(moved); // closes what it was
    CHECK(of_the_old.pop() == 9);
    CHECK(!of_the_old.pop());
    assigned.publish(4);
    CHECK(other.pop() == 4);
}

namespace {

struct breaks_in_copy {
    explicit breaks_in_copy(int v, int copies) : value(v), copies_left(std::make_shared<int>(copies)) { ++live; }
    breaks_in_copy(const breaks_in_copy& other) : value(other.value), copies_left(other.copies_left) {
        if (--*copies_left < 0) { throw std::runtime_error("broke"); }
        ++live;
    }
    breaks_in_copy(breaks_in_copy&& other) noexcept : value(other.value), copies_left(other.copies_left) { ++live; }
    ~breaks_in_copy() { --live; }
    int value;
    std::shared_ptr<int> copies_left;
    static inline int live = 0;
};

// Moves only by copying, which breaks when it is told to.
struct breaks_in_move {
    explicit breaks_in_move(bool now) : breaks(now) { ++live; }
    breaks_in_move(const breaks_in_move& other) : breaks(other.breaks) {
        if (breaks) { throw std::runtime_error("broke"); }
        ++live;
    }
    ~breaks_in_move() { --live; }
    bool breaks;
    static inline int live = 0;
};

} // namespace

TEST_CASE_TEMPLATE("transient topic: a T whose copy throws went to some, the topic goes on", Shape, EVERY_SHAPE) {
    breaks_in_copy::live = 0;
    {
        lane_topic<breaks_in_copy, Shape> t;
        auto a = t.subscribe(), b = t.subscribe(), c = t.subscribe();
        for (int round = 0; round < 100; ++round) {
            const breaks_in_copy lvalue(1, 2);
            CHECK_THROWS_AS(t.publish(lvalue), std::runtime_error);
            CHECK_THROWS_AS(t.publish(breaks_in_copy(2, 1)), std::runtime_error);
            CHECK_THROWS_AS(static_cast<void>(t.try_publish(breaks_in_copy(3, 0))), std::runtime_error);
            t.publish(breaks_in_copy(4, 2));
            const auto has = [](auto& s, std::vector<int> expected) {
                for (const int value : expected) { CHECK(s.try_pop()->value == value); }
                CHECK(!s.try_pop());
            };
            has(a, {1, 2, 4});
            has(b, {1, 4});
            has(c, {4});
        }
        t.publish(breaks_in_copy(5, 2));
        b = t.subscribe(); // nobody was left behind inside: what is replaced is freed now
        CHECK(breaks_in_copy::live == 2);
        t.close();
        CHECK(a.pop()->value == 5);
        CHECK(!a.pop());
    }
    CHECK(breaks_in_copy::live == 0);
}

TEST_CASE_TEMPLATE("transient topic: a T that throws on its way into the lane leaves it as it was", Shape, unbounded, bounded<4>, spsc<4>) {
    breaks_in_move::live = 0;
    {
        lane_topic<breaks_in_move, Shape> t;
        auto s = t.subscribe();
        t.emplace(false);
        for (int i = 0; i < 100; ++i) { CHECK_THROWS_AS(t.emplace(true), std::runtime_error); }
        CHECK(s.size_approx() == 1);
        CHECK(s.lost() == 0);
        CHECK(s.try_pop());
        CHECK(!s.try_pop());
    }
    CHECK(breaks_in_move::live == 0);
}

TEST_CASE("transient topic: a copy that publishes, subscribes, leaves and closes") {
    topic<hooked, transient<>> t;
    auto a = t.subscribe();
    std::optional b = t.subscribe();
    std::optional<lane_subscription<hooked, unbounded>> joined;

    const std::function<void()> publishes = [&] { t.emplace(100); };
    const hooked publisher(1, &publishes);
    t.publish(publisher);
    CHECK(values(a) == std::vector<int>{100, 1, 100});
    CHECK(values(*b) == std::vector<int>{100, 100, 1});

    const std::function<void()> joins = [&] {
        if (!joined) { joined = t.subscribe(); }
    };
    const hooked joiner(2, &joins);
    t.publish(joiner);
    CHECK(values(*joined).empty()); // published before it was there
    CHECK(t.subscribers() == 3);

    const std::function<void()> leaves = [&] { b.reset(); };
    const hooked leaver(3, &leaves);
    t.publish(leaver);
    CHECK(t.subscribers() == 2);
    CHECK(values(*joined) == std::vector<int>{3});
    CHECK(values(a) == std::vector<int>{2, 3});

    std::optional<bool> refused;
    const std::function<void()> closes = [&] {
        t.close();
        if (!refused) { refused = t.try_publish(hooked(5)).error() == errc::closed; }
    };
    const hooked closer(4, &closes);
    t.publish(closer); // it is inside already: it goes to all
    CHECK(refused == true);
    CHECK(a.pop()->value == 4);
    CHECK(!a.pop());
    CHECK(joined->pop()->value == 4);
    CHECK(!joined->pop());
}

TEST_CASE("transient topic: who leaves does not wait for a publisher that is inside, which finds nothing destroyed under it") {
    const long before = tracked::live();
    struct message {
        hooked hook;
        tracked content;
    };
    topic<message, transient<>> t;
    std::optional a = t.subscribe();
    std::optional b = t.subscribe();
    t.publish({hooked(0), 1});
    CHECK(tracked::live() == before + 2);
    std::atomic<int> stage{0};
    const std::function<void()> waits = [&] {
        if (stage.load() != 0) { return; }
        stage = 1;
        while (stage.load() != 2) { std::this_thread::yield(); }
    };
    std::thread publisher([&] { t.publish({hooked(1, &waits), 2}); });
    while (stage.load() != 1) { std::this_thread::yield(); }
    a.reset();
    b.reset();
    CHECK(t.subscribers() == 0);
    auto c = t.subscribe();
    t.publish({hooked(2), 3}); // comes and goes meanwhile
    CHECK(c.try_pop()->content.value() == 3);
    CHECK(tracked::live() > before); // the publisher may still touch those lanes
    t.close();
    CHECK(t.try_publish({hooked(3), 4}).error() == errc::closed);
    CHECK(!c.try_pop());
    stage = 2;
    publisher.join();
    CHECK(tracked::live() == before);
    CHECK(!c.pop());
    CHECK(tracked::faults() == 0);
}

TEST_CASE("transient topic: a close lets the publisher that is inside finish, and only then ends the pops") {
    mailroom::testing::manual_clock clock;
    topic<hooked, transient<>> t({.clock = &clock});
    auto a = t.subscribe(), b = t.subscribe();
    std::atomic<int> stage{0};
    const std::function<void()> waits = [&] {
        stage = 1;
        while (stage.load() != 2) { std::this_thread::yield(); }
    };
    std::thread publisher([&] { t.publish(hooked(1, &waits)); });
    while (stage.load() != 1) { std::this_thread::yield(); }
    std::vector<int> got;
    std::thread receiver([&] {
        while (auto m = b.pop()) { got.push_back(m->value); }
    });
    clock.await_parked(1);
    t.close();
    CHECK(clock.parked() == 1);
    CHECK(t.try_publish(hooked(2)).error() == errc::closed);
    stage = 2;
    publisher.join();
    receiver.join();
    CHECK(got == std::vector<int>{1});
    CHECK(a.pop()->value == 1);
    CHECK(!a.pop());
}

namespace {

// Does something when it is moved out of a lane: the first moves are those into it.
struct moves_slowly {
    explicit moves_slowly(int v, std::function<void()> f = {}) : value(v), on_pop(std::move(f)) {}
    moves_slowly(const moves_slowly&) = default;
    moves_slowly(moves_slowly&& other) : value(other.value), on_pop(std::move(other.on_pop)), moves(other.moves + 1) {
        if (moves == 2 && on_pop) { on_pop(); }
    }
    int value;
    std::function<void()> on_pop{};
    int moves = 0;
};

} // namespace

TEST_CASE("transient topic: a subscriber that stands in the middle of a pop with the only place does not stop a publisher") {
    topic<moves_slowly, transient<bounded<1>>> t;
    auto s = t.subscribe();
    std::atomic<int> stage{0};
    t.emplace(1, [&] {
        stage = 1;
        while (stage.load() != 2) { std::this_thread::yield(); }
    });
    std::thread receiver([&] { CHECK(s.pop()->value == 1); });
    while (stage.load() != 1) { std::this_thread::yield(); }
    t.emplace(2);
    CHECK(s.lost() == 1);
    stage = 2;
    receiver.join();
    CHECK(!s.try_pop());
    t.emplace(3);
    CHECK(s.pop()->value == 3);

    t.emplace(4, [&] { t.emplace(5); }); // the same with one thread
    CHECK(s.pop()->value == 4);
    CHECK(s.lost() == 2);
    CHECK(!s.try_pop());
}

TEST_CASE("turnstile: all have left when those have who were inside, whoever comes and goes meanwhile") {
    mailroom::detail::turnstile<1> gate;
    gate.await();
    CHECK(gate.all_left()); // nobody was
    const auto first = gate.enter();
    CHECK(!gate.leave(first)); // nobody waits
    const auto old = gate.enter();
    const auto second = gate.enter();
    gate.await();
    CHECK(!gate.all_left());
    CHECK(!gate.leave(gate.enter())); // the last on its side, but for this nobody waits
    auto later = gate.enter();
    for (int i = 0; i < 10; ++i) { // it is never empty
        const auto next = gate.enter();
        CHECK(!gate.leave(later)); // not for these
        CHECK(!gate.all_left());
        later = next;
    }
    CHECK(!gate.leave(old)); // not the last
    CHECK(!gate.all_left());
    CHECK(gate.leave(second));
    CHECK(gate.all_left()); // though there is somebody inside
    CHECK(gate.all_left());
    gate.await();
    CHECK(!gate.all_left()); // who has to leave now
    CHECK(gate.leave(later));
    CHECK(gate.all_left());
    const auto last = gate.enter();
    CHECK(!gate.leave(last));
}

TEST_CASE("turnstile: who entered on a side that is not the present one any more is waited for too") {
    mailroom::detail::turnstile<1> gate;
    const auto here = gate.enter();
    gate.await();
    CHECK(!gate.all_left()); // has turned once
    const auto there = gate.enter();
    CHECK(there.side != here.side);
    gate.await(); // begins again: both have to leave
    CHECK(!gate.all_left());
    CHECK(gate.leave(here)); // on the side that is looked at
    CHECK(!gate.all_left()); // turns, and looks at the other
    CHECK(gate.leave(there));
    CHECK(gate.all_left());
}

namespace {

// A message of the stress tests: on the heap, so that the sanitizers see it; who sent it, and which it is, from 1.
struct numbered {
    numbered(std::size_t p, std::uint64_t n) : publisher(p), number(std::make_unique<std::uint64_t>(n)) { ++live; }
    numbered(const numbered& other) : publisher(other.publisher), number(std::make_unique<std::uint64_t>(*other.number)) { ++live; }
    numbered(numbered&& other) noexcept : publisher(other.publisher), number(std::move(other.number)) { ++live; }
    ~numbered() { --live; }
    std::size_t publisher;
    std::unique_ptr<std::uint64_t> number;
    static inline std::atomic<int> live{0};
};

// What a subscriber saw of each publisher.
struct observer {
    explicit observer(std::size_t publishers) : last(publishers, 0) {}
    void note(const numbered& m) {
        std::uint64_t& before = last[m.publisher];
        if (*m.number <= before) { ++disorder; }
        if (before != 0 && *m.number != before + 1) { gaps += *m.number - before - 1; }
        before = *m.number;
        ++count;
    }
    std::vector<std::uint64_t> last;
    std::uint64_t count = 0, disorder = 0, gaps = 0;
};

} // namespace

TEST_CASE_TEMPLATE("transient topic: members come and go while others publish: FIFO of each publisher, nothing doubled, what is missing was counted",
                   Shape, unbounded, bounded<8>, bounded<1024>, spsc<8>, spsc<1024>) {
    constexpr std::size_t publishers = loses_newest<Shape> ? 1 : 3;
    constexpr std::uint64_t each = 3000;
    numbered::live = 0;
    {
        lane_topic<numbered, Shape> t;
        std::vector<lane_subscription<numbered, Shape>> faithful;
        for (int i = 0; i < 2; ++i) { faithful.push_back(t.subscribe()); }
        std::vector<observer> seen(2, observer(publishers));
        std::atomic<bool> over{false};
        std::atomic<std::uint64_t> disorder{0}, gaps{0}, visits{0};
        std::vector<std::thread> publishing, popping, visiting;
        for (std::size_t i = 0; i < 2; ++i) {
            popping.emplace_back([&, i] {
                while (const auto m = faithful[i].pop()) { seen[i].note(*m); }
            });
        }
        for (int i = 0; i < 2; ++i) {
            visiting.emplace_back([&] {
                while (!over.load()) {
                    auto s = t.subscribe();
                    observer mine(publishers);
                    for (int k = 0; k < 50 && !over.load(); ++k) {
                        if (const auto m = s.try_pop()) { mine.note(*m); }
                    }
                    // With bounded<N> the messages after a gap are there before it is counted, with spsc<N> after it.
                    if (!loses_oldest<Shape> && mine.gaps > s.lost()) { gaps += mine.gaps; }
                    disorder += mine.disorder;
                    ++visits;
                }
            });
        }
        for (std::size_t p = 0; p < publishers; ++p) {
            publishing.emplace_back([&, p] {
                for (std::uint64_t n = 1; n <= each; ++n) {
                    if (n % 2 == 0) {
                        t.emplace(p, n);
                    } else {
                        const numbered m(p, n);
                        t.publish(m);
                    }
                }
            });
        }
        for (auto& p : publishing) { p.join(); }
        while (visits.load() < 4) { std::this_thread::yield(); }
        over = true;
        for (auto& v : visiting) { v.join(); }
        CHECK(t.subscribers() == 2);
        t.close();
        for (auto& p : popping) { p.join(); }
        CHECK(disorder == 0);
        CHECK(gaps == 0);
        for (std::size_t i = 0; i < 2; ++i) {
            CHECK(seen[i].disorder == 0);
            CHECK(seen[i].count + faithful[i].lost() == each * publishers);
            if constexpr (std::is_same_v<Shape, unbounded>) { CHECK(faithful[i].lost() == 0); }
        }
        CHECK(numbered::live == 0); // the visitors' too
    }
}

TEST_CASE_TEMPLATE("transient topic: a close at the same moment: what was published goes to all, what was refused to none", Shape, unbounded,
                   bounded<2048>, spsc<2048>) {
    for (int round = 0; round < 200; ++round) {
        lane_topic<int, Shape> t;
        auto a = t.subscribe(), b = t.subscribe();
        std::atomic<int> published{0};
        std::vector<std::thread> threads;
        for (int p = 0; p < (loses_newest<Shape> ? 1 : 2); ++p) {
            threads.emplace_back([&] {
                for (int i = 0; i < 1000 && t.try_publish(i); ++i) { ++published; }
            });
        }
        int got_a = 0, got_b = 0;
        threads.emplace_back([&] {
            while (a.pop()) { ++got_a; }
        });
        threads.emplace_back([&] {
            while (b.pop()) { ++got_b; }
        });
        while (published.load() < 5) { std::this_thread::yield(); }
        t.close();
        for (auto& each : threads) { each.join(); }
        CHECK(got_a == published);
        CHECK(got_b == published);
        CHECK(!a.try_pop());
        CHECK(a.lost() == 0);
    }
}

TEST_CASE("transient topic: subscriptions are made and end in many threads, with the topic gone in between") {
    const long before = tracked::live();
    for (int round = 0; round < 100; ++round) {
        auto t = std::make_unique<topic<tracked, transient<bounded<4>>>>();
        std::vector<std::vector<lane_subscription<tracked, bounded<4>>>> kept(3);
        std::vector<std::thread> threads;
        for (auto& mine : kept) {
            threads.emplace_back([&] {
                for (int i = 0; i < 6; ++i) {
                    mine.push_back(t->subscribe());
                    t->publish(i);
                    if (i % 2 == 0) { mine.erase(mine.begin()); }
                }
            });
        }
        for (auto& each : threads) { each.join(); }
        CHECK(t->subscribers() == 9);
        threads.clear();
        t.reset();
        for (auto& mine : kept) {
            threads.emplace_back([&] {
                CHECK(mine.back().pop()->value() >= 0);
                mine.clear();
            });
        }
        for (auto& each : threads) { each.join(); }
    }
    CHECK(tracked::live() == before);
    CHECK(tracked::faults() == 0);
}
