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

// ------------------------------------------------------------------------------------------------------------------- several readers

namespace {

constexpr auto many = stream::readers::many;
using block = mailroom::detail::block<long>;

// So that offsets up to `end` are written.
void fill(stream& s, offset end) {
    while (s.head() < end) { write(s, s.take(1, duration::zero(), always).first, 1); }
}
// Whoever retains leaves a block that is written. True: he was the last.
bool retire(stream& s, block* b) {
    s.seal(b);
    return s.leave(b);
}
// Where the blocks of a chain began; they are recycled.
std::vector<offset> ended(stream& s, block* chain) {
    std::vector<offset> firsts;
    while (chain != nullptr) {
        block* const next = chain->next_free;
        firsts.push_back(chain->first);
        s.recycle(chain);
        chain = next;
    }
    std::sort(firsts.begin(), firsts.end());
    return firsts;
}
using offsets = std::vector<offset>;

} // namespace

TEST_CASE("stream: a block goes with the last of its tenants, readers and whoever retains") {
    stream s(many);
    s.admit(0);
    s.admit(0);
    fill(s, 2 * span);
    block* const b = s.peek(0);
    REQUIRE(b != nullptr);
    CHECK(b->first == 0);
    CHECK(b->tenants == 3);
    CHECK(!s.leave(b));
    CHECK(!retire(s, b));
    CHECK(b->sealed);
    CHECK(s.peek(0) == b);
    CHECK(s.gone_until() == 0);
    CHECK(s.leave(b));
    CHECK(s.peek(0) == nullptr);
    CHECK(s.gone_until() == span);
    CHECK(s.lowest() == span);
    s.recycle(b);
    CHECK(s.peek(span)->tenants == 3);
    CHECK(!s.peek(span)->sealed);
}

TEST_CASE("stream: a reader is a tenant of what it may read: from its beginning on, and of all that come") {
    stream s(many);
    fill(s, 3 * span);
    s.admit(span + 7);
    CHECK(s.peek(0)->tenants == 1);
    CHECK(s.peek(span)->tenants == 2);
    CHECK(s.peek(2 * span)->tenants == 2);
    fill(s, 4 * span);
    CHECK(s.peek(3 * span)->tenants == 2);
    s.admit(4 * span); // what is not there yet
    fill(s, 5 * span);
    CHECK(s.peek(3 * span)->tenants == 2);
    CHECK(s.peek(4 * span)->tenants == 3);
}

TEST_CASE("stream: a reader that is dismissed leaves all it had not opened") {
    stream s(many);
    s.admit(0);
    fill(s, 4 * span);
    for (offset o = 0; o < 4 * span; o += span) { CHECK(!retire(s, s.peek(o))); } // nobody else
    block* const held = s.peek(0);
    block* const read = s.peek(span);
    CHECK(s.leave(read)); // read, and left
    s.recycle(read);
    CHECK(ended(s, s.dismiss(2 * span)) == offsets{2 * span, 3 * span});
    CHECK(s.peek(0) == held); // it was opened, and something of it is out
    CHECK(s.peek(2 * span) == nullptr);
    CHECK(s.gone_until() == 4 * span);
    CHECK(s.leave(held));
    s.recycle(held);
    fill(s, 5 * span);
    CHECK(s.peek(4 * span)->tenants == 1);
}

TEST_CASE("stream: dismissing a reader ends nothing that another wants") {
    stream s(many);
    s.admit(0);
    fill(s, 4 * span);
    s.admit(2 * span);
    for (offset o = 0; o < 4 * span; o += span) { CHECK(!retire(s, s.peek(o))); }
    CHECK(ended(s, s.dismiss(0)) == offsets{0, span});
    CHECK(s.peek(2 * span)->tenants == 1);
    CHECK(ended(s, s.dismiss(2 * span)) == offsets{2 * span, 3 * span});
}

TEST_CASE("stream: who visits keeps a block; what is gone, or not there yet, cannot be visited") {
    stream s(many);
    CHECK(s.visit(0) == nullptr);
    fill(s, 1);
    CHECK(s.visit(span) == nullptr);
    fill(s, 2 * span);
    block* const b = s.visit(0);
    REQUIRE(b != nullptr);
    CHECK(!retire(s, b));
    CHECK(s.visit(0) == b);
    CHECK(!s.leave(b));
    CHECK(s.leave(b));
    s.recycle(b);
    CHECK(s.visit(0) == nullptr);
}

TEST_CASE("stream: what somebody keeps for long is set aside; the rest goes, and is found in as few places as before") {
    stream s(many);
    s.admit(0);
    fill(s, 1);
    block* const old = s.peek(0);
    for (offset o = 0; o < 1000 * span; o += span) {
        fill(s, o + span);
        block* const b = s.peek(o);
        CHECK(!retire(s, b));
        if (o == 5 * span) { continue; } // one more
        if (o != 0) {
            REQUIRE(s.leave(b));
            s.recycle(b);
        }
    }
    CHECK(s.peek(0) == old);
    CHECK(s.peek(5 * span)->first == 5 * span);
    CHECK(s.peek(6 * span) == nullptr);
    fill(s, 1001 * span);
    CHECK(s.at(0) != old); // where senders look things up it stands no more
    CHECK(s.visit(0) == old);
    CHECK(!s.leave(old));
    CHECK(s.lowest() == 0);
    CHECK(s.gone_until() == 1000 * span);
    CHECK(read(s, 1000 * span) == 1);
    std::size_t found = 0;
    s.each_block([&](block&) { ++found; });
    CHECK(found == 3);
    SUBCASE("and goes as any other") {
        CHECK(s.leave(old));
        s.recycle(old);
        CHECK(s.peek(0) == nullptr);
        CHECK(s.lowest() == 5 * span);
    }
    SUBCASE("a reader that begins there has it") {
        s.admit(3 * span);
        CHECK(old->tenants == 1);
        CHECK(s.peek(5 * span)->tenants == 2);
        CHECK(ended(s, s.dismiss(3 * span)).empty());
    }
    SUBCASE("a reader that goes leaves it") { CHECK(ended(s, s.dismiss(0)) == offsets{0, 5 * span}); }
}

TEST_CASE("stream: a block that is not known to be written stays where senders find it, however many there are") {
    stream s(many);
    fill(s, 500 * span);
    for (offset o = 0; o < 500 * span; o += span) { REQUIRE(s.at(o) == s.peek(o)); }
}

TEST_CASE("stream: random readers keep exactly the blocks they have not left") {
    support::for_each_seed(200, [](std::uint64_t seed) {
        support::dice dice(seed);
        stream s(many);
        struct reader {
            std::uint64_t begun;               // its first span
            std::vector<std::uint64_t> opened; // and not left
            std::uint64_t next;
        };
        std::vector<reader> readers;
        std::uint64_t sealed = 0, spans = 0;
        std::vector<bool> there;
        bool right = true;
        const auto is_wanted = [&](std::uint64_t n) {
            return n >= sealed || std::any_of(readers.begin(), readers.end(), [n](const reader& r) {
                       return n >= r.next || std::find(r.opened.begin(), r.opened.end(), n) != r.opened.end();
                   });
        };
        const auto left = [&](block* b, bool gone) {
            const std::uint64_t n = b->first / span;
            right = right && gone == !is_wanted(n);
            if (gone) {
                there[n] = false;
                s.recycle(b);
            }
        };
        for (int step = 0; step < 400 && right; ++step) {
            const unsigned what = dice.below(10);
            if (what < 3) {
                fill(s, ++spans * span);
                there.push_back(true);
            } else if (what == 3 && readers.size() < 4) {
                const std::uint64_t from = dice.below(static_cast<unsigned>(spans) + 1);
                // Nobody begins where something is gone.
                const bool whole = std::all_of(there.begin() + static_cast<std::ptrdiff_t>(from), there.end(), [](bool b) { return b; });
                if (!whole) { continue; }
                s.admit(from * span + dice.below(span));
                readers.push_back({from, {}, from});
            } else if (what < 7 && !readers.empty()) {
                reader& r = readers[dice.below(static_cast<unsigned>(readers.size()))];
                if (r.next < spans && dice.percent(60)) {
                    r.opened.push_back(r.next++);
                } else if (!r.opened.empty()) {
                    const auto at = r.opened.begin() + dice.between(0, static_cast<int>(r.opened.size()) - 1);
                    block* const b = s.peek(*at * span);
                    r.opened.erase(at);
                    left(b, s.leave(b));
                }
            } else if (what == 7 && sealed < spans) {
                block* const b = s.peek(sealed++ * span);
                left(b, retire(s, b));
            } else if (what == 8 && !readers.empty()) {
                const auto at = readers.begin() + dice.between(0, static_cast<int>(readers.size()) - 1);
                const reader gone = *at;
                readers.erase(at);
                for (const offset first : ended(s, s.dismiss(gone.next * span))) {
                    right = right && !is_wanted(first / span);
                    there[first / span] = false;
                }
                for (const std::uint64_t n : gone.opened) { // what was out of it comes back
                    block* const b = s.peek(n * span);
                    left(b, s.leave(b));
                }
            }
            std::uint64_t highest_gone = 0, lowest = spans;
            for (std::uint64_t n = 0; n < spans; ++n) {
                right = right && there[n] == is_wanted(n) && (s.peek(n * span) != nullptr) == there[n];
                if (!there[n]) { highest_gone = n + 1; }
                if (there[n]) { lowest = std::min(lowest, n); }
            }
            right = right && s.gone_until() == highest_gone * span && (lowest == spans || s.lowest() == lowest * span);
            if (!right) { FAIL_CHECK("MAILROOM_TEST_SEED=", seed, " at step ", step); }
        }
        return right;
    });
}
