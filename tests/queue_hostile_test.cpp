// What a hostile user would try: calls from within calls, exceptions from their own code, times without end, and bodies that misbehave.
#if defined(__GNUC__) && !defined(__clang__)
# pragma GCC diagnostic ignored "-Wpsabi" // a note about bodies of 64-byte alignment
#endif

#include "support/eventually.hpp"
#include "support/heap.hpp"
#include "support/random.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <any>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <iterator>
#include <memory>
#include <memory_resource>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::delivery;
using mailroom::duration;
using mailroom::errc;
using mailroom::message;
using mailroom::message_state;
using mailroom::testing::manual_clock;
using support::tracked;

namespace {

constexpr duration forever = duration::max();

// Calls a function with each message that is assigned to it.
template <class Fn>
struct output {
    using iterator_category = std::output_iterator_tag;
    using value_type = void;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = void;
    Fn* fn;
    output& operator*() { return *this; }
    output& operator++() { return *this; }
    output operator++(int) { return *this; }
    template <class M>
    output& operator=(M&& m) {
        (*fn)(std::forward<M>(m));
        return *this;
    }
};
template <class Fn>
output<Fn> to(Fn& fn) {
    return {&fn};
}

template <class T>
std::vector<int> drained(mailroom::queue<T>& q) {
    std::vector<int> numbers;
    while (auto m = q.try_pop()) { numbers.push_back(support::number_of(m->body())); }
    return numbers;
}

// A body that calls `foreign_code` when it ends (not where it was only moved from).
std::function<void()> foreign_code;
struct nosy {
    explicit nosy(int v) : value(v) {}
    nosy(nosy&& other) noexcept : value(std::exchange(other.value, -1)) {}
    nosy& operator=(nosy&&) = delete;
    ~nosy() {
        if (value >= 0 && foreign_code) { foreign_code(); }
    }
    int value;
};

// While it lives, each call of foreign code asks another thread to use the queue, and notes whether it could.
class lock_detector {
public:
    template <class Q>
    explicit lock_detector(Q& q) {
        foreign_code = [this, &q] {
            if (busy_ || blocked_) { return; }
            busy_ = true;
            ++calls_;
            auto answered = std::make_shared<std::atomic<bool>>(false);
            helpers_.emplace_back([&q, answered] {
                static_cast<void>(q.statistics());
                *answered = true;
            });
            const auto given_up = std::chrono::steady_clock::now() + 5s; // only where it fails
            while (!*answered && std::chrono::steady_clock::now() < given_up) { std::this_thread::yield(); }
            if (!*answered) { blocked_ = true; }
            busy_ = false;
        };
    }
    lock_detector(const lock_detector&) = delete;
    lock_detector& operator=(const lock_detector&) = delete;
    ~lock_detector() {
        foreign_code = nullptr;
        for (auto& t : helpers_) { t.join(); }
    }
    bool blocked() const { return blocked_; }
    int calls() const { return calls_; }

private:
    bool busy_ = false, blocked_ = false;
    int calls_ = 0;
    std::vector<std::thread> helpers_;
};

mailroom::queue_options<int> on(manual_clock& c) { return {.clock = &c}; }

struct mapped_file {
    std::size_t bytes;
};

} // namespace

template <>
struct mailroom::footprint<mapped_file> {
    static std::size_t of(const mapped_file& f) noexcept { return f.bytes; }
};

// --------------------------------------------------------------------------------------------------------------- who owns an attempt

TEST_CASE("late holder: of a message that died and was sent again, it owns nothing") {
    manual_clock clock;
    mailroom::queue<int> q({.lease = 1s, .retry = {.max_attempts = 1}, .clock = &clock});
    q.send(7);
    auto late = q.try_receive();
    REQUIRE(late);
    clock.advance(1s);
    REQUIRE(q.dead().size() == 1);
    REQUIRE(q.dead().redrive(1) == 1);
    auto current = q.try_receive();
    REQUIRE(current);
    CHECK(current->attempt() == 1);
    CHECK(!late->extend(1h));
    CHECK(!late->ack());
    CHECK(q.statistics().in_flight == 1);
    CHECK(current->ack());
}

TEST_CASE("late holder: its ack is refused once somebody else has the message, in the very call that takes it") {
    manual_clock clock;
    mailroom::queue<std::string> q({.lease = 1s, .clock = &clock});
    q.send("a");
    auto late = q.try_receive();
    clock.advance(1s);
    std::optional<bool> late_ack;
    std::string taken;
    auto take = [&](message<std::string> m) {
        taken = m.body();
        late_ack = late->ack();
    };
    CHECK(q.pop_many(to(take), 1) == 1);
    CHECK(taken == "a");
    CHECK(late_ack == false);
    CHECK(q.statistics().acked == 1);
}

TEST_CASE("late holder: of a message that was released it owns nothing, though its number comes round again") {
    manual_clock clock;
    mailroom::queue<int> q({.lease = 1s, .clock = &clock});
    q.send(7);
    auto late = q.try_receive();
    clock.advance(1s);
    auto second = q.try_receive();
    REQUIRE(second->attempt() == 2);
    CHECK(second->release());
    CHECK(!late->extend(1h));
    CHECK(!late->ack());
    auto third = q.try_receive();
    CHECK(third->attempt() == 2);
    CHECK(third->ack());
}

// -------------------------------------------------------------------------------------------------------- exceptions from user's code

TEST_CASE_TEMPLATE("pop_many: what its iterator threw at is gone, the others stay as they were", T, int, std::string, tracked) {
    for (const bool through_index : {false, true}) {
        CAPTURE(through_index);
        const long live = tracked::live(), faults = tracked::faults();
        {
            manual_clock clock;
            mailroom::queue<T> q({.priorities = through_index ? 2 : 1, .clock = &clock});
            for (int i = 0; i < 6; ++i) { q.send(support::body_of<T>::make(i)); }
            std::vector<delivery<T>> failed;
            q.receive_many(failed, 6);
            for (auto& d : failed) { CHECK(d.nack(0s)); }
            int seen = 0;
            auto third_time = [&](message<T> m) {
                const message<T> out = std::move(m);
                if (++seen == 3) { throw 3; }
            };
            CHECK_THROWS_AS(q.pop_many(to(third_time), 5), int);
            const auto now = q.statistics();
            CHECK(now.ready == 3);
            CHECK(now.acked == 3);
            CHECK(now.in_flight == 0);
            std::vector<int> left;
            while (auto d = q.try_receive()) {
                REQUIRE(&d->body() != nullptr);
                left.push_back(support::number_of(d->body()));
                CHECK(d->attempt() == 2);
                d->ack();
            }
            CHECK(left == std::vector<int>{3, 4, 5});
        }
        CHECK(tracked::live() == live);
        CHECK(tracked::faults() == faults);
    }
}

TEST_CASE("pop_many: from the lane too, an iterator that throws takes one message with it") {
    mailroom::queue<std::string> q;
    for (int i = 0; i < 50; ++i) { q.send(support::body_of<std::string>::make(i)); }
    auto always = [](const message<std::string>&) { throw 1; };
    CHECK_THROWS_AS(q.pop_many(to(always), 40), int);
    CHECK_THROWS_AS(q.pop_many(to(always), 1), int);
    const auto left = drained(q);
    CHECK(left.size() == 48);
    CHECK(left.front() == 2);
    CHECK(std::is_sorted(left.begin(), left.end()));
    CHECK(q.statistics().acked == 50);
}

namespace {

struct copy_throws {
    static inline bool throws = false;
    explicit copy_throws(int v) : value(v) {}
    copy_throws(const copy_throws& other) : value(other.value) {
        if (throws) { throw 1; }
    }
    copy_throws(copy_throws&&) noexcept = default;
    copy_throws& operator=(const copy_throws&) = default;
    int value;
};

} // namespace

TEST_CASE("copies that throw: whatever verb needed one, the message is where it was") {
    manual_clock clock;
    mailroom::queue<copy_throws> q({.lease = 1s, .deduplicate = {.until_settled = true}, .clock = &clock});
    const copy_throws mine(1);
    copy_throws::throws = true;
    CHECK_THROWS_AS(q.try_send(mine), int);
    CHECK_THROWS_AS(q.send(mine), int);
    CHECK_THROWS_AS(q.send_for(1s, mine), int);
    const std::vector<copy_throws> several = [] {
        std::vector<copy_throws> v;
        v.emplace_back(1);
        return v;
    }();
    CHECK_THROWS_AS(q.send_many(several), int);
    CHECK(q.statistics().sent == 0);
    q.send(copy_throws(7), {.id = "seven"});
    auto late = q.try_receive();
    clock.advance(1s);
    CHECK_THROWS_AS(q.try_pop(), int); // somebody still looks at it, so it has to be copied
    CHECK(q.statistics().ready == 1);
    CHECK(late->body().value == 7);
    CHECK(q.send(copy_throws(8), {.id = "seven"}) == 0); // it is still known, for it is still there
    copy_throws::throws = false;
    CHECK(q.try_pop()->body().value == 7);
    CHECK(!late->ack());
    CHECK(q.statistics().ready == 0);
}

TEST_CASE("validate: may throw, refuse, and use its own queue") {
    mailroom::queue<int>* self = nullptr;
    mailroom::queue<int> q({.validate = [&](const int& v, const mailroom::properties& p) {
        if (v == 13) { throw std::string("thirteen"); }
        if (v > 0) { self->send(v - 1, p); }
        return v != 5;
    }});
    self = &q;
    CHECK_THROWS_AS(q.send(13), std::string);
    CHECK_THROWS_AS(q.try_send(13), std::string);
    q.send(3);
    CHECK(drained(q) == std::vector<int>{0, 1, 2, 3});
    CHECK_THROWS_AS(q.send(5), mailroom::error);
    CHECK(drained(q) == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(q.try_send(5).error() == errc::rejected);
    CHECK(q.send_for(1s, 5).error() == errc::rejected);
}

TEST_CASE("send_many: one that is refused refuses all, and what the range held is still in it") {
    mailroom::queue<std::string> q({.validate = [](const std::string& s, const mailroom::properties&) { return s != "bad"; }});
    std::vector<std::string> some{"good", "bad", "fine"};
    CHECK_THROWS_AS(q.send_many(some), mailroom::error);
    CHECK_THROWS_AS(q.send_many(std::move(some)), mailroom::error);
    CHECK(some == std::vector<std::string>{"good", "bad", "fine"}); // NOLINT: that is the question
    CHECK(q.statistics().sent == 0);
}

// ------------------------------------------------------------------------------------------------------------ calls from within calls

TEST_CASE("send_many: copies what is not const as if it were") {
    struct picky {
        picky() = default;
        picky(picky&) { throw 1; }
        picky(const picky&) noexcept {}
        picky(picky&&) noexcept {}
    };
    mailroom::queue<picky> q;
    std::array<picky, 3> some;
    CHECK(q.send_many(some) == 0);
    CHECK(q.statistics().ready == 3);
}

TEST_CASE("foreign code: a body ends under no lock of the queue") {
    manual_clock clock;
    mailroom::queue<nosy> q(
        {.lease = 1s, .retry = {.max_attempts = 3, .initial = 0s}, .deduplicate = {.until_settled = true}, .max_dead = 1, .clock = &clock});
    const struct {
        const char* what;
        std::function<void()> run;
    } steps[] = {
        {"send", [&] { q.send(nosy(1)); }},
        {"send with an id", [&] { q.send(nosy(2), {.id = "two"}); }},
        {"receive, nack", [&] { q.try_receive()->nack(); }},
        {"receive, release", [&] { q.try_receive()->release(); }},
        {"receive, ack", [&] { q.try_receive()->ack(); }},
        {"reject", [&] { q.try_receive()->reject(); }},
        {"send, timed", [&] { q.send(nosy(3), {.time_to_live = 1s}); }},
        {"send, delayed", [&] { q.send(nosy(4), {.delay = 10s}); }},
        {"expire, drop the oldest dead", [&] { clock.advance(5s); }},
        {"redrive", [&] { q.dead().redrive(5); }},
        {"lapse",
         [&] {
             auto d = q.try_receive();
             clock.advance(1s);
         }},
        {"pop", [&] { q.try_pop(); }},
        {"browse", [&] { q.browse([](const message<nosy>&, message_state) { return true; }); }},
        {"purge",
         [&] {
             q.send(nosy(5));
             q.purge();
         }},
    };
    for (const auto& step : steps) {
        CAPTURE(std::string(step.what));
        bool blocked = false;
        {
            const lock_detector detector(q);
            step.run();
            blocked = detector.blocked();
        }
        CHECK(!blocked);
    }
}

TEST_CASE("body: its destructor may send to, receive from and count its own queue") {
    struct talkative {
        talkative(mailroom::queue<talkative>* queue, int left) : q(queue), again(left) {}
        talkative(talkative&& other) noexcept : q(std::exchange(other.q, nullptr)), again(other.again) {}
        talkative& operator=(talkative&&) = delete;
        ~talkative() {
            if (q == nullptr) { return; }
            static_cast<void>(q->statistics());
            if (again > 0) { q->send(talkative(q, again - 1)); }
            if (auto d = q->try_receive()) { d->release(); }
            q->browse([](const message<talkative>&, message_state) { return true; });
        }
        mailroom::queue<talkative>* q;
        int again;
    };
    mailroom::queue<talkative> q;
    q.send(talkative(&q, 6));
    int handled = 0;
    for (;; ++handled) {
        auto d = q.try_receive();
        if (!d) { break; }
        switch (handled % 4) {
        case 0: d->ack(); break;
        case 1: d->reject(); break;
        case 2: d.reset(); break;
        default: q.purge(); break;
        }
        q.dead().purge();
        if (handled > 100) { break; }
    }
    CHECK(handled >= 3);
    q.purge();
    while (q.statistics().ready + q.statistics().parked != 0) { q.purge(); }
}

TEST_CASE_TEMPLATE("browse: its function may do anything to the queue", T, int, std::string, tracked, std::unique_ptr<int>) {
    using actions = std::vector<std::function<void(mailroom::queue<T>&, std::vector<delivery<T>>&)>>;
    const auto make = [](int i) {
        if constexpr (std::is_same_v<T, std::unique_ptr<int>>) {
            return std::make_unique<int>(i);
        } else {
            return support::body_of<T>::make(i);
        }
    };
    const auto read = [](const T& body) {
        if constexpr (std::is_same_v<T, std::unique_ptr<int>>) {
            return body ? *body : -1;
        } else {
            return support::number_of(body);
        }
    };
    const actions all{
        [](auto& q, auto&) { q.purge(); },
        [&](auto& q, auto&) { static_cast<void>(q.try_send(make(100))); },
        [](auto& q, auto&) { q.try_pop(); },
        [](auto& q, auto&) { q.try_receive(); },
        [](auto& q, auto& held) {
            if (auto d = q.try_receive()) { held.push_back(std::move(*d)); }
        },
        [](auto&, auto& held) {
            for (auto& d : held) { d.ack(); }
            held.clear();
        },
        [](auto&, auto& held) { held.clear(); },
        [](auto&, auto& held) {
            for (auto& d : held) { d.reject("no"); }
        },
        [](auto& q, auto&) {
            q.dead().redrive(3);
            q.dead().purge();
        },
        [](auto& q, auto&) { q.browse([](const message<T>&, message_state) { return true; }); },
        [](auto& q, auto&) { static_cast<void>(q.statistics()); },
        [](auto& q, auto&) {
            q.pause();
            q.resume();
        },
        [](auto& q, auto&) { q.close(); },
    };
    const long live = tracked::live(), faults = tracked::faults();
    for (std::size_t a = 0; a < all.size(); ++a) {
        for (std::size_t b = 0; b < all.size(); ++b) {
            CAPTURE(a);
            CAPTURE(b);
            manual_clock clock;
            std::vector<delivery<T>> held;
            mailroom::queue<T> q({.clock = &clock});
            for (int i = 0; i < 40; ++i) { q.send(make(i)); }
            q.receive_many(held, 3);
            int calls = 0;
            q.browse([&](const message<T>& m, message_state) {
                const int before = read(m.body());
                all[calls % 2 == 0 ? a : b](q, held);
                if (read(m.body()) != before) { FAIL("a body changed under the eyes of browse"); }
                return ++calls < 60;
            });
            CHECK(calls > 0);
            const auto s = q.statistics();
            CHECK(s.sent == s.acked + s.ready + s.in_flight + s.parked + s.dead + s.dropped);
        }
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}

TEST_CASE("browse: a function that throws leaves everything as it was") {
    mailroom::queue<int> q;
    for (int i = 0; i < 5; ++i) { q.send(i); }
    CHECK_THROWS_AS(q.browse([](const message<int>& m, message_state) -> bool {
        if (*m == 2) { throw 2; }
        return true;
    }),
                    int);
    CHECK(drained(q) == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE_TEMPLATE("pop_many: its iterator may use the queue it is filled from", T, int, std::string, tracked) {
    for (const int levels : {1, 2}) {
        CAPTURE(levels);
        const long live = tracked::live(), faults = tracked::faults();
        {
            mailroom::queue<T> q({.priorities = levels});
            for (int i = 0; i < 64; ++i) { q.send(support::body_of<T>::make(i)); }
            int seen = 0;
            auto busy = [&](message<T> m) {
                CHECK(support::number_of(m.body()) >= 0);
                if (++seen > 200) { return; }
                for (int i = 0; i < 100; ++i) { q.send(support::body_of<T>::make(1000 + i)); }
                for (int i = 0; i < 100; ++i) { q.try_pop(); }
                if (auto d = q.try_receive()) { d->release(); }
                if (seen % 50 == 0) { q.purge(); }
                static_cast<void>(q.statistics());
            };
            q.pop_many(to(busy), 300);
            CHECK(seen > 0);
            q.purge();
            const auto s = q.statistics();
            CHECK(s.ready + s.in_flight + s.parked == 0);
            CHECK(s.sent == s.acked + s.dropped);
        }
        CHECK(tracked::live() == live);
        CHECK(tracked::faults() == faults);
    }
}

TEST_CASE("redrive_if: its predicate may send, pop, purge and look among the dead itself") {
    const long faults = tracked::faults();
    mailroom::queue<tracked> q;
    for (int i = 0; i < 10; ++i) {
        q.send(tracked(i));
        q.try_receive()->reject("first");
    }
    int asked = 0;
    const std::size_t revived = q.dead().redrive_if([&](const mailroom::dead_letter<tracked>& letter) {
        const int number = letter->value();
        ++asked;
        q.send(tracked(100 + number));
        q.try_pop();
        if (auto other = q.dead().try_receive()) { CHECK(other->offset() != letter.offset()); }
        if (number == 3) { CHECK(q.dead().purge() == 8); } // 0, 2, 4..9: what is held stays
        q.purge();
        CHECK(letter->value() == number);
        return number % 2 == 1;
    });
    CHECK(asked == 4);
    CHECK(revived == 2);
    CHECK(q.dead().size() == 0);
    CHECK(q.try_pop()->body().value() == 3); // 1 was purged by the predicate for 2
    CHECK(tracked::faults() == faults);
}

TEST_CASE("redrive_if: a predicate that throws puts its letter back") {
    mailroom::queue<int> q;
    q.send(1);
    q.try_receive()->reject();
    CHECK_THROWS_AS(q.dead().redrive_if([](const int&) -> bool { throw 1; }), int);
    CHECK(q.dead().size() == 1);
    CHECK(q.dead().try_receive()->body() == 1);
}

TEST_CASE("deliveries as bodies: queues may hold one another's deliveries") {
    mailroom::queue<int> inner;
    mailroom::queue<delivery<int>> outer;
    inner.send(1);
    inner.send(2);
    outer.send(*inner.try_receive());
    outer.send(*inner.try_receive());
    CHECK(inner.statistics().in_flight == 2);
    outer.try_pop()->body();
    CHECK(inner.statistics().in_flight == 1); // destroyed unsettled
    auto d = outer.try_receive();
    CHECK((*d)->body() == 2);
    CHECK(d->ack());
    CHECK(inner.statistics().in_flight == 0);
    mailroom::queue<mailroom::queue<int>> queues;
    queues.send(std::move(inner));
    CHECK(queues.try_pop()->body().statistics().parked == 2);
}

// --------------------------------------------------------------------------------------------------------------------- times without end

TEST_CASE("endless times: each option and argument takes the longest duration there is") {
    for (const duration start : {duration(0), duration(1s), duration(24h * 365 * 50)}) {
        CAPTURE(start.count());
        manual_clock clock(start);
        mailroom::queue<int> q({.lease = forever,
                                .retry = {.initial = forever, .maximum = forever, .jitter = 1},
                                .time_to_live = forever,
                                .deduplicate = {.window = forever},
                                .clock = &clock});
        CHECK(!q.try_receive());
        CHECK(!q.dead().receive_for(0s));
        q.send(1, {.id = "one", .time_to_live = forever});
        CHECK(q.send(1, {.id = "one"}) == 0);
        q.send(2, {.delay = forever});
        q.send(3);
        CHECK(*q.send_for(forever, 4) == 3);
        clock.advance(24h * 365 * 50);
        CHECK(q.receive_for(forever)->body() == 1); // nacked: its pause never ends
        auto three = q.receive_for(forever);
        CHECK(three->body() == 3);
        CHECK(three->extend(forever));
        CHECK(q.pop_for(forever)->body() == 4);
        clock.advance(24h * 365 * 50);
        CHECK(!q.try_receive());
        CHECK(three->nack(forever));
        CHECK(!q.try_receive());
        const auto s = q.statistics();
        CHECK(s.parked == 3);
        CHECK(s.expired == 0);
        CHECK(s.dead == 0);
        CHECK(q.purge() == 3);
        CHECK(q.drain(forever));
    }
}

TEST_CASE("endless times: the most negative durations mean at once") {
    manual_clock clock(1s);
    mailroom::queue<int> q(on(clock));
    CHECK(!q.receive_for(duration::min()));
    CHECK(!q.pop_for(duration::min()));
    CHECK(!q.dead().receive_for(duration::min()));
    std::vector<delivery<int>> none;
    CHECK(q.receive_many(none, 5, duration::min()) == 0);
    CHECK(*q.send_for(duration::min(), 1) == 0);
    auto d = q.try_receive();
    CHECK(d->extend(duration::min())); // its lease is over
    CHECK(q.try_receive()->nack(duration::min()));
    CHECK(q.try_pop());
    CHECK(q.drain(duration::min()));
}

TEST_CASE("lease: holds for its time whatever the clock's epoch is") {
    for (const duration start : {duration(0), duration(24h * 365 * 20), duration(24h * 365 * 56), duration(24h * 365 * 200)}) {
        CAPTURE(start.count());
        manual_clock clock(start); // as a clock that counts from 1970 would
        mailroom::queue<int> q({.lease = 30s, .clock = &clock});
        q.send(1);
        q.send(2);
        auto first = q.try_receive();
        clock.advance(20s);
        auto second = q.try_receive();
        clock.advance(10s - 1ns);
        CHECK(!q.try_receive());
        CHECK(q.statistics().in_flight == 2);
        clock.advance(1ns);
        CHECK(q.try_receive()->body() == 1);
        CHECK(q.statistics().in_flight == 1); // the second is still its holder's
        CHECK(!first->ack());
        CHECK(second->extend(10s));
        clock.advance(10s - 1ns);
        CHECK(q.statistics().in_flight == 1);
        CHECK(second->ack());
    }
}

TEST_CASE("lease: none means none, even after centuries") {
    manual_clock clock;
    mailroom::queue<int> q({.lease = 0s, .clock = &clock});
    q.send(1);
    auto d = q.try_receive();
    clock.advance(24h * 365 * 250);
    CHECK(!q.try_receive());
    CHECK(d->ack());
}

TEST_CASE("max_attempts: 1 dies at the first failure, 0 never") {
    manual_clock clock;
    mailroom::queue<int> once({.retry = {.max_attempts = 1}, .clock = &clock});
    once.send(1);
    once.try_receive()->nack(1h);
    CHECK(once.dead().size() == 1);
    CHECK(once.dead().try_receive()->attempts() == 1);
    mailroom::queue<int> always({.retry = {.max_attempts = 0, .initial = 0s}, .clock = &clock});
    always.send(1);
    for (std::uint32_t i = 1; i <= 1500; ++i) {
        auto d = always.try_receive();
        REQUIRE(d);
        REQUIRE(d->attempt() == i);
        d->nack();
    }
    CHECK(always.dead().size() == 0);
}

// ------------------------------------------------------------------------------------------------------------------------- memory

TEST_CASE("memory: millions of messages behind one stuck delivery cost no more than a few") {
    if (!support::heap_is_known) { return; }
    const int count = static_cast<int>(support::cases(10'000'000));
    mailroom::queue<std::array<long, 4>> q({.lease = 0s});
    q.send({});
    auto stuck = q.try_receive();
    const std::size_t before = support::heap_in_use();
    std::size_t most = 0;
    for (int i = 0; i < count; ++i) {
        q.send({i, i, i, i});
        if (i % 2 == 0) {
            REQUIRE(q.try_pop());
        } else {
            REQUIRE(q.try_receive()->ack());
        }
        if (i % 4096 == 0) { most = std::max(most, support::heap_in_use()); }
    }
    CHECK(most < before + 1'000'000);
    CHECK(stuck->ack());
    CHECK(q.statistics().acked == static_cast<std::uint64_t>(count) + 1);
}

TEST_CASE("memory: messages that wait, fail or die among a million others cost what they hold") {
    if (!support::heap_is_known) { return; }
    manual_clock clock;
    mailroom::queue<long> q({.lease = 1h, .clock = &clock});
    const long count = static_cast<long>(support::cases(1'000'000));
    const long every = count / 50 + 1;
    const std::size_t before = support::heap_in_use();
    std::size_t most = 0, kept = 0;
    std::vector<delivery<long>> held;
    for (long i = 0; i < count; ++i) {
        if (i % every == 0) {
            switch (++kept % 5) {
            case 0: q.send(i, {.delay = 1h}); break;
            case 1: q.send(i, {.delay = 1h, .time_to_live = 2h}); break;
            default: q.send(i); break;
            }
        } else {
            q.send(i);
        }
        auto d = q.try_receive();
        if (!d) { continue; }
        if (i % every == 0) {
            switch (kept % 5) {
            case 2: d->nack(1h); break;
            case 3: d->reject("no"); break;
            default: held.push_back(std::move(*d)); break;
            }
        } else {
            REQUIRE(d->ack());
        }
        if (i % 4096 == 0) { most = std::max(most, support::heap_in_use()); }
    }
    CHECK(most < before + 500'000);
    held.clear();
    const auto s = q.statistics();
    CHECK(s.parked + s.dead == kept);
}

TEST_CASE("memory: a burst through either side gives its memory back") {
    if (!support::heap_is_known) { return; }
    const int count = static_cast<int>(support::cases(400'000));
    for (const int levels : {1, 2}) {
        CAPTURE(levels);
        const std::size_t before = support::heap_in_use();
        mailroom::queue<std::array<long, 4>> q({.priorities = levels});
        for (int i = 0; i < count; ++i) { q.send({}); }
        while (q.try_pop()) {}
        CHECK(support::heap_in_use() < before + 4 * static_cast<std::size_t>(count) + 100'000); // of 32 bytes and more for each
    }
}

TEST_CASE("memory: bodies whose footprint is beyond 4 GiB are counted whole, and given back whole") {
    mailroom::memory_budget budget(std::size_t{1} << 40);
    const mapped_file large{(std::size_t{5} << 30) + 7};
    mailroom::queue<mapped_file> q({.max_bytes = std::size_t{20} << 30, .budget = &budget, .overflow = mailroom::overflow::reject});
    for (int i = 0; i < 8; ++i) {
        REQUIRE(q.try_send(large));
        CHECK(budget.used() == large.bytes);
        CHECK(q.statistics().bytes == large.bytes);
        switch (i % 4) {
        case 0: q.try_receive()->ack(); break;
        case 1: q.try_pop(); break;
        case 2: q.purge(); break;
        default: q.try_receive()->reject(); break;
        }
        CHECK(budget.used() == 0);
        CHECK(q.statistics().bytes == 0);
    }
}

// --------------------------------------------------------------------------------------------------------------- bodies that misbehave

namespace {

struct own_address {
    int value = 0;
    const own_address* operator&() const = delete;
    own_address* operator&() = delete;
};
struct greedy { // can be made of anything
    greedy() = default;
    template <class U>
    greedy(const U&) : made_of_something(true) {}
    bool made_of_something = false;
};
struct alignas(64) wide {
    int value = 0;
};
struct alignas(4096) page_sized {
    int value = 0;
};
struct empty {};
struct own_new {
    static void* operator new(std::size_t) = delete;
    int value = 0;
};

} // namespace

TEST_CASE("bodies: types that do odd things with addresses, alignment and conversions pass through") {
    mailroom::queue<own_address> a;
    a.send(own_address{3});
    CHECK((*a.try_receive())->value == 3);
    CHECK(a.statistics().parked == 1);
    CHECK(a.purge() == 1);
    mailroom::queue<greedy> g;
    g.send(greedy());
    CHECK(!g.try_pop()->body().made_of_something);
    mailroom::queue<wide> w;
    for (int i = 0; i < 40; ++i) { w.send(wide{i}); }
    for (int i = 0; i < 40; ++i) {
        auto d = w.try_receive();
        CHECK(d->body().value == i);
        CHECK(reinterpret_cast<std::uintptr_t>(&d->body()) % 64 == 0);
    }
    mailroom::queue<page_sized> p;
    p.send(page_sized{5});
    auto d = p.try_receive();
    CHECK(reinterpret_cast<std::uintptr_t>(&d->body()) % 4096 == 0);
    d.reset();
    mailroom::queue<empty> e;
    e.send({});
    CHECK(e.try_pop());
    mailroom::queue<own_new> n;
    n.send(own_new{4});
    n.try_receive()->nack();
    CHECK(n.statistics().parked == 1);
    mailroom::queue<std::any> any;
    any.send(5);
    any.send(std::string("text"));
    CHECK(std::any_cast<int>(any.try_pop()->body()) == 5);
    auto held = any.try_receive();
    CHECK(std::any_cast<std::string>(held->body()) == "text");
    mailroom::queue<bool> b;
    b.send_many(std::vector<bool>{true, false});
    CHECK(b.try_pop()->body());
    mailroom::queue<std::function<int()>> f;
    f.send([] { return 9; });
    CHECK(f.try_pop()->body()() == 9);
}

TEST_CASE("bodies: strings whose buffers belong to different resources keep them apart") {
    std::array<std::byte, 1 << 16> memory;
    std::pmr::monotonic_buffer_resource mine(memory.data(), memory.size(), std::pmr::null_memory_resource());
    mailroom::queue<std::pmr::string> q;
    for (int i = 0; i < 100; ++i) {
        q.send(std::pmr::string(100, 'x', &mine));
        q.send(std::pmr::string(100, 'y'));
        CHECK(*q.try_pop()->body().begin() == 'x');
        CHECK(q.try_receive()->ack());
    }
}

// ------------------------------------------------------------------------------------------------------------------- waits that end

TEST_CASE("receive_many: asked for none, it does not wait") {
    // Time runs by being looked at, so that even an endless wait ends.
    struct hasty_clock final : mailroom::clock {
        mutable std::atomic<std::int64_t> looks{0};
        duration now() const noexcept override { return duration(++looks * 1'000'000); }
        duration coarse() const noexcept override { return duration(looks.load() * 1'000'000); }
        mailroom::time_point wall() const noexcept override { return {}; }
        void park(std::atomic<std::uint32_t>&, std::uint32_t, duration) noexcept override {}
        void unpark(std::atomic<std::uint32_t>&) noexcept override {}
        void relax(unsigned) noexcept override {}
    } clock;
    mailroom::queue<int> q({.clock = &clock});
    std::vector<delivery<int>> out;
    CHECK(q.receive_many(out, 0, 1h) == 0);
    CHECK(clock.looks < 1000);
    q.send(1);
    CHECK(q.receive_many(out, 0, 1h) == 0);
    CHECK(clock.looks < 1000);
    std::vector<message<int>> none;
    CHECK(q.pop_many(std::back_inserter(none), 0) == 0);
}

TEST_CASE("memory_budget: who waits for a place among the messages sleeps, though there are bytes left") {
    manual_clock clock;
    mailroom::memory_budget budget(1000);
    mailroom::queue<int> q({.max_messages = 1, .budget = &budget, .clock = &clock});
    q.send(1);
    {
        std::vector<std::jthread> senders;
        for (int i = 0; i < 2; ++i) {
            senders.emplace_back([&q] { q.send(2); });
        }
        clock.await_parked(2);
        std::size_t awake = 0; // nothing happens, so nobody has a reason to look again
        for (int i = 0; i < 20'000; ++i) {
            std::this_thread::yield();
            awake += 2 - clock.parked();
        }
        CHECK(awake == 0);
        for (int i = 0; i < 3; ++i) { CHECK(q.pop()); }
    }
    CHECK(budget.used() == 0);
}

TEST_CASE("drain: wakes when the last message is popped, acked, rejected, purged or dropped") {
    const std::function<void(mailroom::queue<int>&, std::optional<delivery<int>>&)> last_acts[] = {
        [](auto& q, auto&) { q.try_pop(); },
        [](auto& q, auto&) { q.try_receive()->ack(); },
        [](auto& q, auto&) { q.try_receive()->reject(); },
        [](auto& q, auto&) { q.purge(); },
    };
    for (const int levels : {1, 2}) {
        for (std::size_t act = 0; act < std::size(last_acts); ++act) {
            CAPTURE(levels);
            CAPTURE(act);
            manual_clock clock;
            mailroom::queue<int> q({.lease = 0s, .priorities = levels, .clock = &clock});
            q.send(1);
            std::atomic<bool> done{false};
            std::atomic<bool> result{false};
            std::thread drainer([&] {
                result = q.drain(1h);
                done = true;
            });
            clock.await_parked(1);
            std::optional<delivery<int>> held;
            last_acts[act](q, held);
            const bool woken = support::eventually([&] { return done.load(); });
            clock.advance(2h);
            drainer.join();
            CHECK(woken);
            CHECK(result);
        }
    }
}

TEST_CASE("clock: a queue may be destroyed while another thread moves its clock") {
    manual_clock clock;
    static std::atomic<int> inside{0};
    struct slow_to_die {
        explicit slow_to_die(bool s) : slow(s) {}
        slow_to_die(slow_to_die&& other) noexcept : slow(std::exchange(other.slow, false)) {}
        ~slow_to_die() {
            if (!slow) { return; }
            ++inside;
            for (int i = 0; i < 2'000; ++i) { std::this_thread::yield(); }
            ++inside;
        }
        bool slow;
    };
    inside = 0;
    auto q = std::make_unique<mailroom::queue<slow_to_die>>(mailroom::queue_options<slow_to_die>{.max_dead = 1, .clock = &clock});
    q->send(slow_to_die(true), {.time_to_live = 1s});
    q->send(slow_to_die(false), {.time_to_live = 2s});
    std::thread mover([&] { clock.advance(1min); }); // both die; the first is one too many, and ends
    while (inside == 0) { std::this_thread::yield(); }
    q.reset();
    CHECK(inside == 2); // the clock was done with it
    mover.join();
}

// ------------------------------------------------------------------------------------------------------------------- side by side

TEST_CASE_TEMPLATE("side by side: pops, looks, late holders and purges of the index share no message", T, std::string, tracked) {
    manual_clock clock;
    const int count = static_cast<int>(support::cases(20'000));
    const long live = tracked::live(), faults = tracked::faults();
    {
        mailroom::queue<T> q({.lease = 1ms, .retry = {.max_attempts = 0, .initial = 0s}, .priorities = 2, .clock = &clock});
        std::atomic<bool> over{false};
        std::atomic<long> wrong{0}, taken{0}, acked{0};
        std::thread looker([&] {
            while (!over) {
                q.browse([&](const message<T>& m, message_state) {
                    if (support::number_of(m.body()) < 0) { ++wrong; }
                    return true;
                });
            }
        });
        std::thread holder([&] {
            std::vector<delivery<T>> held;
            while (!over) {
                q.receive_many(held, 4);
                clock.advance(1ms);
                std::this_thread::yield();
                for (auto& d : held) {
                    if (support::number_of(d.body()) < 0) { ++wrong; }
                    if (d.ack()) { ++acked; }
                }
                held.clear();
            }
        });
        std::thread popper([&] {
            auto take = [&](message<T> m) {
                if (support::number_of(m.body()) < 0) { ++wrong; }
                ++taken;
            };
            while (!over) { q.pop_many(to(take), 3); }
        });
        for (int i = 0; i < count; ++i) {
            q.send(support::body_of<T>::make(i));
            if (i % 64 == 0) { std::this_thread::yield(); }
        }
        const bool all = support::eventually([&] { return taken + acked >= count; });
        over = true;
        looker.join();
        holder.join();
        popper.join();
        CHECK(all);
        CHECK(wrong == 0);
        CHECK(taken + acked == count);
        CHECK(q.statistics().acked == static_cast<std::uint64_t>(count));
    }
    CHECK(tracked::live() == live);
    CHECK(tracked::faults() == faults);
}
