#include <mailroom/store/transient.hpp>
#include <mailroom/testing.hpp>

#include <support/tracked.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using mailroom::bounded;
using mailroom::errc;
using mailroom::queue;
using mailroom::spsc;
using mailroom::transient;
using mailroom::unbounded;
using support::tracked;
using namespace std::chrono_literals;

namespace {

// Every shape, with room for what most cases send; and those that can be full.
#define EVERY_SHAPE unbounded, bounded<64>, bounded<70'000>, spsc<64>
#define BOUNDED_SHAPES bounded<4>, spsc<4>

template <class T, class Shape>
using lane_queue = queue<T, transient<Shape>>;

template <class Call>
std::error_code thrown(Call call) {
    try {
        call();
    } catch (const mailroom::error& e) { return e.code(); }
    return {};
}

// Throws when it is moved, if it was told to; counts how many exist.
struct brittle {
    explicit brittle(int v, bool breaks_now = false) : value(v), breaks(breaks_now) { ++live; }
    brittle(brittle&& other) : value(other.value), breaks(other.breaks) {
        if (breaks) { throw std::runtime_error("broke"); }
        ++live;
    }
    brittle(const brittle&) = delete;
    brittle& operator=(const brittle&) = delete;
    ~brittle() { --live; }

    int value;
    bool breaks;
    static inline int live = 0;
};

struct plain {
    int a = 0;
    double b = 0;
};

struct alignas(64) wide {
    int value = 0;
};

} // namespace

TEST_CASE_TEMPLATE("transient: what is sent is popped, in order, and then gone", Shape, EVERY_SHAPE) {
    lane_queue<int, Shape> q;
    CHECK(!q.try_pop());
    for (int i = 0; i < 50; ++i) { q.send(i); }
    CHECK(q.size_approx() == 50);
    CHECK(q.pop() == 0);
    CHECK(q.try_pop() == 1);
    CHECK(q.pop_for(1h) == 2);
    CHECK(q.pop(mailroom::stop_token()) == 3);
    for (int i = 4; i < 50; ++i) { CHECK(q.try_pop() == i); }
    CHECK(!q.try_pop());
    CHECK(!q.pop_for(0s));
    CHECK(!q.pop_for(-1s));
    CHECK(q.size_approx() == 0);
}

TEST_CASE_TEMPLATE("transient: many times round the lane", Shape, EVERY_SHAPE) {
    lane_queue<std::string, Shape> q;
    const auto text = [](int k) { return std::string(40, static_cast<char>('a' + k % 26)); };
    int wrong = 0;
    for (int i = 0; i < 500; ++i) {
        for (int k = 0; k < 37; ++k) { q.send(text(k)); }
        for (int k = 0; k < 37; ++k) { wrong += q.try_pop() == text(k) ? 0 : 1; }
    }
    CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("transient: every way to send", Shape, EVERY_SHAPE) {
    lane_queue<plain, Shape> q;
    const plain constant{3, 3};
    plain variable{4, 4};
    q.send({1, 1});
    q.send(plain{2, 2});
    q.send(constant);
    q.send(variable);
    q.emplace();
    q.send({6, 6}, mailroom::stop_token());
    CHECK(q.try_send({7, 7}));
    CHECK(q.try_send(constant));
    CHECK(q.send_for(1s, {9, 9}));
    CHECK(q.send_for(1s, variable));
    q.send_many({plain{11, 0}, plain{12, 0}});
    std::vector<int> seen;
    while (auto m = q.try_pop()) { seen.push_back(m->a); }
    CHECK(seen == std::vector<int>{1, 2, 3, 4, 0, 6, 7, 3, 9, 4, 11, 12});
}

TEST_CASE_TEMPLATE("transient: a move-only T", Shape, EVERY_SHAPE) {
    using pointer = std::unique_ptr<int>;
    lane_queue<pointer, Shape> q;
    static_assert(
        !requires(const pointer& p) { q.send(p); } && !requires(const pointer& p) { q.try_send(p); });
    q.send(std::make_unique<int>(1));
    q.emplace(new int(2));
    pointer three = std::make_unique<int>(3);
    CHECK(q.try_send(std::move(three)));
    CHECK(three == nullptr);
    std::vector<pointer> more;
    for (int i = 4; i < 8; ++i) { more.push_back(std::make_unique<int>(i)); }
    q.send_many(std::move(more));
    CHECK(**q.pop() == 1);
    std::vector<pointer> out;
    CHECK(q.pop_many(std::back_inserter(out), 3) == 3);
    CHECK(*out[2] == 4);
    auto rest = q.consumer();
    CHECK(**rest.pop() == 5);
    CHECK(q.size_approx() == 2); // destroyed with the queue
}

TEST_CASE_TEMPLATE("transient: a T with a large alignment stands where it must", Shape, EVERY_SHAPE) {
    lane_queue<wide, Shape> q;
    for (int i = 0; i < 60; ++i) { q.send(wide{i}); }
    for (int i = 0; i < 60; ++i) {
        const std::optional<wide> m = q.try_pop();
        CHECK(m->value == i);
        CHECK(reinterpret_cast<std::uintptr_t>(&*m) % 64 == 0);
    }
}

TEST_CASE_TEMPLATE("transient: each T is destroyed once, those left in the queue with it", Shape, EVERY_SHAPE) {
    const long before = tracked::live();
    {
        lane_queue<tracked, Shape> q;
        for (int i = 0; i < 60; ++i) { q.send(tracked(i)); }
        for (int i = 0; i < 20; ++i) { CHECK(q.try_pop()->value() == i); }
        CHECK(tracked::live() == before + 40);
        for (int i = 0; i < 20; ++i) { q.send(i); }
    }
    CHECK(tracked::live() == before);
    { const lane_queue<tracked, Shape> never_used; }
    CHECK(tracked::live() == before);
    CHECK(tracked::faults() == 0);
}

TEST_CASE_TEMPLATE("transient: a full lane takes exactly N, and takes nothing from who is refused", Shape, BOUNDED_SHAPES) {
    mailroom::testing::manual_clock clock;
    lane_queue<std::string, Shape> q({.clock = &clock});
    for (int round = 0; round < 5; ++round) {
        for (int i = 0; i < 4; ++i) { CHECK(q.try_send(std::string(50, 'x'))); }
        std::string kept(50, 'y');
        CHECK(q.try_send(std::move(kept)).error() == errc::full);
        CHECK(kept == std::string(50, 'y'));
        CHECK(q.try_send(static_cast<const std::string&>(kept)).error() == errc::full);
        CHECK(q.send_for(0s, std::move(kept)).error() == errc::timed_out);
        CHECK(kept == std::string(50, 'y'));
        CHECK(q.size_approx() == 4);
        CHECK(q.try_pop());
        CHECK(q.try_send(std::move(kept)));
        CHECK(q.try_send("z").error() == errc::full);
        while (q.try_pop()) {}
    }
}

TEST_CASE("transient: one place is a lane too, and so are many") {
    queue<int, transient<bounded<1>>> one;
    queue<int, transient<spsc<1>>> one_to_one;
    queue<int, transient<bounded<65'534>>> many;
    queue<int, transient<bounded<65'535>>> more;
    const auto fills_to = [](auto& q, int n) {
        for (int round = 0; round < 2; ++round) {
            int taken = 0, given = 0;
            while (q.try_send(taken)) { ++taken; }
            CHECK(taken == n);
            while (q.try_pop() == given) { ++given; }
            CHECK(given == n);
        }
    };
    fills_to(one, 1);
    fills_to(one_to_one, 1);
    fills_to(many, 65'534);
    fills_to(more, 65'535);
}

TEST_CASE_TEMPLATE("transient: closed, sends are refused and pops drain", Shape, EVERY_SHAPE) {
    lane_queue<std::string, Shape> q;
    q.send("a");
    q.send("b");
    q.close();
    q.close();
    std::string kept = "kept";
    CHECK(thrown([&] { q.send(kept); }) == errc::closed);
    CHECK(thrown([&] { q.send(std::move(kept)); }) == errc::closed);
    CHECK(thrown([&] { q.send(kept, mailroom::stop_token()); }) == errc::closed);
    CHECK(thrown([&] { q.emplace("c"); }) == errc::closed);
    CHECK(thrown([&] { q.send_many(std::vector<std::string>(3, "d")); }) == errc::closed);
    CHECK(q.try_send(std::move(kept)).error() == errc::closed);
    CHECK(q.send_for(1h, std::move(kept)).error() == errc::closed);
    CHECK(kept == "kept");
    CHECK(q.pop() == "a");
    CHECK(q.pop_for(1h) == "b");
    CHECK(!q.pop());
    CHECK(!q.pop_for(1h));
    CHECK(!q.pop(mailroom::stop_token()));
    CHECK(!q.try_pop());
}

TEST_CASE_TEMPLATE("transient: a blocked pop is woken by a message, a close, a stop, its deadline", Shape, EVERY_SHAPE) {
    mailroom::testing::manual_clock clock;
    lane_queue<int, Shape> q({.clock = &clock});
    std::optional<int> got;

    std::thread receiver([&] { got = q.pop(); });
    clock.await_parked(1);
    q.send(1);
    receiver.join();
    CHECK(got == 1);

    mailroom::stop_source source;
    receiver = std::thread([&] { got = q.pop(source.get_token()); });
    clock.await_parked(1);
    source.request_stop();
    receiver.join();
    CHECK(!got);
    q.send(2);
    CHECK(q.pop(source.get_token()) == 2); // what is there is given even then
    CHECK(!q.pop(source.get_token()));

    receiver = std::thread([&] { got = q.pop_for(1min); });
    clock.await_parked(1);
    clock.advance(1min);
    receiver.join();
    CHECK(!got);

    receiver = std::thread([&] { got = q.pop_for(1min); });
    clock.await_parked(1);
    clock.advance(30s);
    clock.await_parked(1);
    q.send(3);
    receiver.join();
    CHECK(got == 3);

    receiver = std::thread([&] { got = q.pop_for(mailroom::duration::max()); });
    clock.await_parked(1);
    q.close();
    receiver.join();
    CHECK(!got);
}

TEST_CASE_TEMPLATE("transient: a blocked send is woken by a pop, a close, a stop, its deadline", Shape, BOUNDED_SHAPES) {
    mailroom::testing::manual_clock clock;
    lane_queue<std::string, Shape> q({.clock = &clock});
    const auto fill = [&] {
        while (q.try_send("filler")) {}
    };

    fill();
    std::thread sender([&] { q.send("last"); });
    clock.await_parked(1);
    CHECK(q.pop() == "filler");
    sender.join();
    for (int i = 0; i < 3; ++i) { CHECK(q.try_pop() == "filler"); }
    CHECK(q.try_pop() == "last");

    fill();
    sender = std::thread([&] { q.send_many(std::vector<std::string>{"1", "2"}); });
    clock.await_parked(1);
    std::vector<std::string> out;
    CHECK(q.pop_many(std::back_inserter(out), 4) == 4);
    sender.join();
    CHECK(q.try_pop() == "1");
    CHECK(q.try_pop() == "2");

    std::string kept(50, 'k');
    std::error_code why;
    mailroom::stop_source source;
    fill();
    sender = std::thread([&] { why = thrown([&] { q.send(std::move(kept), source.get_token()); }); });
    clock.await_parked(1);
    source.request_stop();
    sender.join();
    CHECK(why == errc::full);

    sender = std::thread([&] { why = q.send_for(1min, std::move(kept)).error(); });
    clock.await_parked(1);
    clock.advance(1min);
    sender.join();
    CHECK(why == errc::timed_out);

    sender = std::thread([&] { why = thrown([&] { q.send(std::move(kept)); }); });
    clock.await_parked(1);
    q.close();
    sender.join();
    CHECK(why == errc::closed);
    CHECK(kept == std::string(50, 'k'));
}

TEST_CASE_TEMPLATE("transient: as many messages as blocked receivers wake each of them; a close wakes all", Shape, unbounded, bounded<64>) {
    mailroom::testing::manual_clock clock;
    lane_queue<int, Shape> q({.clock = &clock});
    for (const bool at_once : {false, true}) {
        std::atomic<int> sum{0};
        std::vector<std::thread> receivers;
        for (int i = 0; i < 5; ++i) {
            receivers.emplace_back([&] { sum += q.pop().value(); });
        }
        clock.await_parked(5);
        if (at_once) {
            q.send_many({1, 2, 3, 4, 5});
        } else {
            for (int i = 1; i <= 5; ++i) { q.send(i); }
        }
        for (auto& r : receivers) { r.join(); }
        CHECK(sum == 15);
    }
    std::vector<std::thread> receivers;
    std::atomic<int> nothing{0};
    for (int i = 0; i < 5; ++i) {
        receivers.emplace_back([&] { nothing += q.pop() ? 0 : 1; });
    }
    clock.await_parked(5);
    q.close();
    for (auto& r : receivers) { r.join(); }
    CHECK(nothing == 5);
}

TEST_CASE_TEMPLATE("transient: ranges are copied, or moved from where they are given up", Shape, EVERY_SHAPE) {
    lane_queue<std::string, Shape> q;
    const auto drained = [&] {
        std::vector<std::string> out;
        q.pop_many(std::back_inserter(out), 64);
        return out;
    };
    std::vector<std::string> words{std::string(40, 'a'), std::string(40, 'b')};
    const std::vector<std::string> copy = words;
    q.send_many(words);
    CHECK(words == copy);
    CHECK(drained() == copy);
    q.send_many(std::span(words)); // an rvalue that owns nothing
    CHECK(words == copy);
    CHECK(drained() == copy);
    q.send_many(std::move(words));
    CHECK(words[0].empty());
    CHECK(drained() == copy);
    q.send_many(std::vector<std::string>());
    CHECK(drained().empty());
    q.send_many(copy | std::views::transform([](const std::string& s) { return s + "!"; }));
    CHECK(drained() == std::vector<std::string>{copy[0] + "!", copy[1] + "!"});
    std::istringstream text("one two three"); // can be read once
    const std::ranges::subrange once{std::istream_iterator<std::string>(text), std::istream_iterator<std::string>()};
    q.send_many(once);
    CHECK(drained() == std::vector<std::string>{"one", "two", "three"});
    const char* const literals[] = {"x", "y"};
    q.send_many(literals);
    CHECK(drained() == std::vector<std::string>{"x", "y"});
}

TEST_CASE_TEMPLATE("transient: a range longer than the lane goes through while somebody pops", Shape, BOUNDED_SHAPES) {
    lane_queue<int, Shape> q;
    std::vector<int> numbers(10'000);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::thread sender([&] {
        q.send_many(numbers);
        q.close();
    });
    std::vector<int> got;
    while (auto m = q.pop()) { got.push_back(*m); }
    sender.join();
    CHECK(got == numbers);
}

TEST_CASE_TEMPLATE("transient: pop_many takes what is there, up to a number, to any output", Shape, EVERY_SHAPE) {
    lane_queue<int, Shape> q;
    for (int i = 0; i < 60; ++i) { q.send(i); }
    int array[40] = {};
    CHECK(q.pop_many(array, 40) == 40);
    CHECK(array[39] == 39);
    std::vector<int> rest;
    CHECK(q.pop_many(std::back_inserter(rest), 0) == 0);
    CHECK(q.pop_many(std::back_inserter(rest), 1000) == 20);
    CHECK(rest.back() == 59);
    CHECK(q.pop_many(std::back_inserter(rest), 1000) == 0);
}

TEST_CASE_TEMPLATE("transient: a T that throws when it is sent leaves the lane as it was", Shape, EVERY_SHAPE) {
    brittle::live = 0;
    {
        lane_queue<brittle, Shape> q;
        q.emplace(1);
        for (int i = 0; i < 200; ++i) { // more often than there are places, and over the edges of blocks
            brittle bad(0, true);
            CHECK_THROWS_AS(q.send(std::move(bad)), std::runtime_error);
            if (i % 10 == 0) {
                q.emplace(2);
                CHECK(q.try_pop());
            }
        }
        CHECK(q.size_approx() == 1);
        CHECK(q.try_pop()->value == 2);
        CHECK(!q.try_pop());
    }
    CHECK(brittle::live == 0);
}

namespace {

// Breaks on the way out: the first move is the one into the lane.
struct breaks_later {
    explicit breaks_later(int v, int moves_before) : value(v), moves_left(moves_before) { ++live; }
    breaks_later(breaks_later&& other) : value(other.value), moves_left(other.moves_left - 1) {
        if (moves_left < 0) {
            other.moves_left = 1000; // once
            throw std::runtime_error("broke");
        }
        ++live;
    }
    breaks_later& operator=(breaks_later&&) = delete;
    ~breaks_later() { --live; }
    int value;
    int moves_left;
    static inline int live = 0;
};

} // namespace

TEST_CASE_TEMPLATE("transient: a T that throws when it is popped is gone, or stays with spsc; the others are not affected", Shape, EVERY_SHAPE) {
    breaks_later::live = 0;
    {
        lane_queue<breaks_later, Shape> q;
        for (int round = 0; round < 100; ++round) {
            q.send(breaks_later(1, 1));
            q.send(breaks_later(2, 1000));
            CHECK_THROWS_AS(q.try_pop(), std::runtime_error);
            if constexpr (std::is_same_v<Shape, spsc<64>>) { CHECK(q.try_pop()->value == 1); }
            CHECK(q.try_pop()->value == 2);
            CHECK(!q.try_pop());
        }
        CHECK(q.size_approx() == 0);
    }
    CHECK(breaks_later::live == 0);
}

namespace {

// Waits in its move, while it holds a place of the lane, until it is told to throw.
struct slow_to_break {
    explicit slow_to_break(std::atomic<int>* s) : stage(s) {}
    slow_to_break(slow_to_break&& other) : stage(other.stage) {
        if (stage == nullptr) { return; }
        stage->store(1);
        while (stage->load() != 2) { std::this_thread::yield(); }
        throw std::runtime_error("broke");
    }
    std::atomic<int>* stage;
};

} // namespace

TEST_CASE("transient<bounded>: a sender that throws gives its place to one who waits for it") {
    mailroom::testing::manual_clock clock;
    queue<slow_to_break, transient<bounded<1>>> q({.clock = &clock});
    std::atomic<int> stage{0};
    std::thread breaking([&] { CHECK_THROWS_AS(q.emplace(&stage), std::runtime_error); });
    while (stage.load() != 1) { std::this_thread::yield(); }
    std::thread waiting([&] { q.emplace(nullptr); });
    clock.await_parked(1);
    stage.store(2);
    breaking.join();
    waiting.join();
    CHECK(q.try_pop());
}

TEST_CASE_TEMPLATE("transient: what a range sent before it threw is found by who waits for it", Shape, unbounded, bounded<64>) {
    mailroom::testing::manual_clock clock;
    lane_queue<int, Shape> q({.clock = &clock});
    std::optional<int> got;
    std::thread receiver([&] { got = q.pop(); });
    clock.await_parked(1);
    const auto bad = std::views::iota(1, 10) | std::views::transform([](int i) { return i < 5 ? i : throw std::runtime_error("broke"); });
    CHECK_THROWS_AS(q.send_many(bad), std::runtime_error);
    if constexpr (std::is_same_v<Shape, unbounded>) { // all or none
        CHECK(q.size_approx() == 0);
        q.send(1);
    }
    receiver.join();
    CHECK(got == 1);
}

TEST_CASE_TEMPLATE("transient: places freed before an output threw are found by who waits for them", Shape, BOUNDED_SHAPES) {
    mailroom::testing::manual_clock clock;
    lane_queue<int, Shape> q({.clock = &clock});
    q.send_many({1, 2, 3, 4});
    std::thread sender([&] { q.send(5); });
    clock.await_parked(1);
    struct full_after_two {
        int* taken;
        full_after_two& operator*() { return *this; }
        full_after_two& operator++() { return *this; }
        full_after_two operator++(int) { return *this; }
        full_after_two& operator=(int) {
            if (++*taken > 2) { throw std::runtime_error("full"); }
            return *this;
        }
    };
    int taken = 0;
    CHECK_THROWS_AS(q.pop_many(full_after_two{&taken}, 4), std::runtime_error);
    sender.join();
    CHECK(q.size_approx() >= 2);
}

TEST_CASE_TEMPLATE("transient: a queue can be moved, its handles with it", Shape, EVERY_SHAPE) {
    lane_queue<int, Shape> q;
    auto in = q.producer();
    auto out = q.consumer();
    in.send(1);
    lane_queue<int, Shape> moved = std::move(q);
    in.send(2);
    moved.send(3);
    CHECK(out.pop().has_value());
    CHECK(moved.size_approx() == 2);
    lane_queue<int, Shape> assigned;
    assigned.send(9);
    assigned = std::move(moved);
    CHECK(assigned.size_approx() == 2);
    auto other_in = std::move(in);
    other_in.send(4);
    CHECK(assigned.size_approx() == 3);
}

TEST_CASE_TEMPLATE("transient: handles do what the queue does", Shape, EVERY_SHAPE) {
    mailroom::testing::manual_clock clock;
    std::optional<typename lane_queue<int, Shape>::producer_handle> survivor;
    {
        lane_queue<int, Shape> q({.clock = &clock});
        auto in = q.producer();
        auto out = q.consumer();
        in.send(1);
        in.emplace(2);
        CHECK(in.try_send(3));
        CHECK(in.send_for(1s, 4));
        in.send_many({5, 6, 7});
        CHECK(out.pop() == 1);
        CHECK(out.try_pop() == 2);
        CHECK(out.pop_for(1s) == 3);
        std::vector<int> rest;
        CHECK(out.pop_many(std::back_inserter(rest), 10) == 4);
        CHECK(rest == std::vector<int>{4, 5, 6, 7});
        std::optional<int> got;
        std::thread receiver([&] { got = out.pop(); });
        clock.await_parked(1);
        in.send(8);
        receiver.join();
        CHECK(got == 8);
        q.close();
        CHECK(in.try_send(9).error() == errc::closed);
        CHECK(!out.pop());
        survivor.emplace(q.producer());
    } // a handle may be destroyed after its queue, if it is not used
}

namespace {

// `senders` threads send numbers, tagged with who they are; `receivers` take them. Each receiver must see the numbers of each sender grow,
// and all of them must arrive once.
template <class Queue>
void transfer(Queue& q, int senders, int receivers, int each, bool with_handles) {
    struct tally {
        std::vector<std::uint32_t> last;
        std::uint64_t count = 0, sum = 0, disorder = 0;
    };
    std::vector<tally> tallies(static_cast<std::size_t>(receivers));
    std::vector<std::thread> sending, receiving;
    for (int r = 0; r < receivers; ++r) {
        receiving.emplace_back([&, r] {
            tally& mine = tallies[static_cast<std::size_t>(r)];
            mine.last.assign(static_cast<std::size_t>(senders), 0);
            const auto note = [&](std::uint64_t m) {
                const auto who = static_cast<std::size_t>(m >> 32);
                const auto number = static_cast<std::uint32_t>(m);
                if (number <= mine.last[who]) { ++mine.disorder; }
                mine.last[who] = number;
                ++mine.count;
                mine.sum += number;
            };
            if (with_handles) {
                auto out = q.consumer();
                while (auto m = out.pop()) { note(**m); }
            } else {
                while (auto m = q.pop()) { note(**m); }
            }
        });
    }
    for (int s = 0; s < senders; ++s) {
        sending.emplace_back([&, s] {
            const auto send_all = [&](auto& to) {
                for (int i = 1; i <= each; ++i) {
                    to.send(std::make_unique<std::uint64_t>(static_cast<std::uint64_t>(s) << 32 | static_cast<std::uint64_t>(i)));
                }
            };
            if (with_handles) {
                auto in = q.producer();
                send_all(in);
            } else {
                send_all(q);
            }
        });
    }
    for (auto& t : sending) { t.join(); }
    q.close();
    for (auto& t : receiving) { t.join(); }
    std::uint64_t count = 0, sum = 0, disorder = 0;
    for (const tally& t : tallies) {
        count += t.count;
        sum += t.sum;
        disorder += t.disorder;
    }
    const auto n = static_cast<std::uint64_t>(each);
    CHECK(count == n * static_cast<std::uint64_t>(senders));
    CHECK(sum == n * (n + 1) / 2 * static_cast<std::uint64_t>(senders));
    CHECK(disorder == 0);
}

} // namespace

TEST_CASE_TEMPLATE("transient: many senders and receivers, FIFO of each sender, nothing lost or doubled", Shape, unbounded, bounded<1>, bounded<8>,
                   bounded<1024>) {
    for (const bool with_handles : {false, true}) {
        for (const auto& [senders, receivers] : {std::pair(1, 1), std::pair(1, 3), std::pair(3, 1), std::pair(3, 3)}) {
            lane_queue<std::unique_ptr<std::uint64_t>, Shape> q;
            transfer(q, senders, receivers, 2000, with_handles);
        }
    }
}

TEST_CASE_TEMPLATE("transient: one sender, one receiver, FIFO, nothing lost or doubled", Shape, spsc<1>, spsc<8>, spsc<1024>) {
    for (const bool with_handles : {false, true}) {
        lane_queue<std::unique_ptr<std::uint64_t>, Shape> q;
        transfer(q, 1, 1, 20'000, with_handles);
    }
}

TEST_CASE("transient<bounded>: what was sent before a close at the same moment is popped before the pops say that it "
          "is over") {
    for (int round = 0; round < 300; ++round) {
        queue<int, transient<bounded<16>>> q;
        std::atomic<int> sent{0}, popped{0};
        std::vector<std::thread> threads;
        for (int s = 0; s < 2; ++s) {
            threads.emplace_back([&] {
                try {
                    for (;;) {
                        q.send(1);
                        sent.fetch_add(1);
                    }
                } catch (const mailroom::error&) {}
            });
            threads.emplace_back([&] {
                while (q.pop()) { popped.fetch_add(1); }
            });
        }
        while (popped.load() < 20) { std::this_thread::yield(); }
        q.close();
        for (auto& t : threads) { t.join(); }
        CHECK(sent == popped);
        CHECK(!q.try_pop());
    }
}
