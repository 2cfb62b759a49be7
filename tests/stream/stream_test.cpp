#include <mailroom/stream/stream.hpp>

#include "support/environment.hpp"
#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

using mailroom::duration;
using mailroom::offset;
using mailroom::detail::index_in_span;
using mailroom::detail::slot_empty;
using mailroom::detail::slot_ready;
using mailroom::detail::span;

using stream = mailroom::detail::stream<long>;
constexpr auto always = [](offset) { return true; };

void write(stream& s, offset o, long value) {
    auto& slot = s.at(o)->slots[index_in_span(o)];
    slot.value.put(std::move(value));
    slot.ready.store(slot_ready, std::memory_order_release);
}
long read(stream& s, offset o) { return *s.at(o)->slots[index_in_span(o)].value.get(); }

} // namespace

TEST_CASE("stream: offsets are dense from 0, one or many at a time") {
    stream s;
    CHECK(s.head() == 0);
    CHECK(!s.closed());
    offset next = 0;
    for (const std::uint64_t n : {1u, 1u, 5u, span, 3 * span, 1u, 1000u}) {
        const auto place = s.take(n, duration::zero(), always);
        REQUIRE(place.taken);
        CHECK(place.first == next);
        CHECK(!place.wake);
        next += n;
        CHECK(s.head() == next);
    }
    for (offset o = 0; o < next; ++o) {
        REQUIRE(s.at(o) != nullptr);
        REQUIRE(s.at(o)->slots[index_in_span(o)].ready == slot_empty);
    }
}

TEST_CASE("stream: what is not admitted takes nothing; the answer is asked for the very offset that is taken") {
    stream s;
    s.take(3, duration::zero(), always);
    offset asked = mailroom::no_offset;
    const auto refused = s.take(2, duration::zero(), [&](offset first) {
        asked = first;
        return false;
    });
    CHECK(!refused.taken);
    CHECK(asked == 3);
    CHECK(s.head() == 3);
    CHECK_THROWS_AS(s.take(1, duration::zero(), [](offset) -> bool { throw 1; }), int);
    CHECK(s.head() == 3);
}

TEST_CASE("stream: closed, it takes nothing more; what is there stays") {
    stream s;
    s.take(1, duration::zero(), always);
    write(s, 0, 42);
    s.close();
    s.close();
    CHECK(s.closed());
    CHECK(!s.take(1, duration::zero(), always).taken);
    CHECK(s.head() == 1);
    CHECK(read(s, 0) == 42);
}

TEST_CASE("stream: a sender is told of waiters until nobody waits") {
    stream s;
    CHECK(s.announce_waiter() == 0);
    CHECK(s.take(1, duration::zero(), always).wake);
    CHECK(s.take(1, duration::zero(), always).wake);
    CHECK(s.announce_waiter() == 2);
    s.nobody_waits();
    CHECK(!s.take(1, duration::zero(), always).wake);
    CHECK(s.head() == 3);
    s.announce_waiter();
    s.close();
    CHECK(s.head() == 3);
}

TEST_CASE("stream: a block that was given back is used again, empty") {
    stream s;
    for (offset o = 0; o < 100 * span; ++o) {
        const auto place = s.take(1, duration(static_cast<std::int64_t>(o)), always);
        REQUIRE(s.at(o)->slots[index_in_span(o)].ready == slot_empty);
        write(s, o, static_cast<long>(o));
        REQUIRE(place.first == o);
        CHECK(read(s, o) == static_cast<long>(o));
        if (index_in_span(o) == span - 1) {
            auto* const b = s.at(o);
            s.release(o - (span - 1), b);
            s.take(1, duration::zero(), always);
            if (o > 2 * span) { CHECK(s.at(o + 1) == b); } // the only spare one; the first time it did not know that it would be needed
            CHECK(s.at(o + 1)->slots[1].ready == slot_empty);
            ++o;
            write(s, o, static_cast<long>(o));
        }
    }
}

TEST_CASE("stream: a detached block is its owner's until it is released") {
    stream s;
    s.take(4 * span, duration::zero(), always);
    auto* const b = s.at(0);
    b->slots[0].value.put(7);
    s.detach(0, b);
    CHECK(*b->slots[0].value.get() == 7);
    CHECK(s.at(span) != nullptr);
    s.release(0, b);
}

TEST_CASE("stream: many senders, dense offsets, each message read once and whole") {
    constexpr int senders = 4;
    const long each = static_cast<long>(support::scaled(support::under_thread_sanitizer ? 3'000 : 50'000));
    stream s;
    std::vector<std::thread> threads;
    for (long t = 0; t < senders; ++t) {
        threads.emplace_back([&, t] {
            for (long i = 0; i < each;) {
                const auto n = static_cast<std::uint64_t>(std::min(each - i, 1 + i % 3));
                const auto place = s.take(n, duration::zero(), always);
                for (std::uint64_t k = 0; k < n; ++k, ++i) { write(s, place.first + k, t * each + i); }
            }
        });
    }
    std::vector<int> seen(static_cast<std::size_t>(senders * each), 0);
    std::vector<long> last(senders, -1);
    bool in_order = true;
    for (offset o = 0; o < static_cast<offset>(senders * each); ++o) {
        while (s.head() <= o) { std::this_thread::yield(); }
        auto* const b = s.at(o);
        auto& slot = b->slots[index_in_span(o)];
        while (slot.ready.load(std::memory_order_acquire) == slot_empty) { std::this_thread::yield(); }
        const long value = *slot.value.get();
        ++seen[static_cast<std::size_t>(value)];
        auto& before = last[static_cast<std::size_t>(value / each)];
        in_order = in_order && value % each > before;
        before = value % each;
        if (index_in_span(o) == span - 1) { s.release(o - (span - 1), b); }
    }
    for (auto& t : threads) { t.join(); }
    CHECK(std::count(seen.begin(), seen.end(), 1) == senders * each);
    CHECK(in_order);
    CHECK(s.head() == static_cast<offset>(senders * each));
}

TEST_CASE("stream: closing beside senders, every offset below the head was given to somebody") {
    for (std::size_t round = 0; round < support::scaled(200); ++round) {
        stream s;
        std::atomic<offset> taken{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                for (;;) {
                    const auto place = s.take(2, duration::zero(), always);
                    if (!place.taken) { return; }
                    write(s, place.first, 1);
                    write(s, place.first + 1, 1);
                    taken += 2;
                }
            });
        }
        while (s.head() < 20) { std::this_thread::yield(); }
        s.close();
        for (auto& t : threads) { t.join(); }
        CHECK(taken == s.head());
    }
}
