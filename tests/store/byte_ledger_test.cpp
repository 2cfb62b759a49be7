#include <mailroom/store/byte_ledger.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using mailroom::offset;
using mailroom::detail::byte_ledger;

namespace {

constexpr std::size_t any = static_cast<std::size_t>(-1);

/// Messages that it may measure, and how many it did.
struct messages {
    std::vector<std::uint64_t> sizes;
    std::size_t measured = 0;

    auto measure() {
        return [this](offset first, offset last, auto tell) {
            for (offset o = first; o < last; ++o) { tell(o, sizes[static_cast<std::size_t>(o)]); }
            measured += static_cast<std::size_t>(last - first);
        };
    }
    offset expected(std::uint64_t limit, offset lowest) const {
        offset first = sizes.size();
        for (std::uint64_t sum = 0; first > lowest && sum + sizes[static_cast<std::size_t>(first - 1)] <= limit; --first) {
            sum += sizes[static_cast<std::size_t>(first - 1)];
        }
        return first;
    }
};

} // namespace

TEST_CASE("byte_ledger: an empty log, and one that fits") {
    byte_ledger b;
    messages l;
    CHECK(b.first_within(100, 0, 0, any, l.measure()) == 0);
    l.sizes = {10, 20, 30};
    CHECK(b.first_within(100, 0, 3, any, l.measure()) == 0);
    CHECK(b.first_within(50, 0, 3, any, l.measure()) == 1);
    CHECK(b.first_within(29, 0, 3, any, l.measure()) == 3);
}

TEST_CASE("byte_ledger: what it has measured it does not measure again, but where the limit falls") {
    byte_ledger b;
    messages l;
    l.sizes.assign(100 * byte_ledger::chunk, 10);
    const auto limit = 50 * byte_ledger::chunk * 10 + 5;
    CHECK(b.first_within(limit, 0, l.sizes.size(), any, l.measure()) == 50 * byte_ledger::chunk);
    const std::size_t once = l.measured;
    CHECK(once == 51 * byte_ledger::chunk);
    CHECK(b.first_within(limit, 0, l.sizes.size(), any, l.measure()) == 50 * byte_ledger::chunk);
    CHECK(l.measured == once); // what it said last it does not look before
    l.sizes.resize(l.sizes.size() + byte_ledger::chunk, 10);
    CHECK(b.first_within(limit, 0, l.sizes.size(), any, l.measure()) == 51 * byte_ledger::chunk);
    CHECK(l.measured == once + 2 * byte_ledger::chunk);
}

TEST_CASE("byte_ledger: a little at a time, it answers the lowest until it knows") {
    byte_ledger b;
    messages l;
    l.sizes.assign(20 * byte_ledger::chunk, 1);
    offset first = 0;
    int calls = 0;
    do {
        const std::size_t before = l.measured;
        first = b.first_within(10 * byte_ledger::chunk, 3, l.sizes.size(), 2, l.measure());
        CHECK(l.measured - before <= 2 * byte_ledger::chunk);
        REQUIRE(++calls < 20);
    } while (first == 3);
    CHECK(first == 10 * byte_ledger::chunk);
    CHECK(calls == 6);
}

TEST_CASE("byte_ledger: random, against adding all up") {
    support::for_each_seed(100, [](std::uint64_t seed) {
        support::dice dice(seed);
        byte_ledger b;
        messages l;
        offset lowest = 0;
        const std::uint64_t limit = dice.below(40'000);
        for (int i = 0; i < 40; ++i) {
            for (unsigned n = dice.below(2000); n != 0; --n) { l.sizes.push_back(dice.percent(10) ? dice.below(5000) : dice.below(20)); }
            const offset expected = l.expected(limit, lowest);
            const offset got = b.first_within(limit, lowest, l.sizes.size(), any, l.measure());
            if (got != expected) {
                CHECK_MESSAGE(false, "seed ", seed, ": ", got, ", not ", expected);
                return false;
            }
            if (dice.percent(50)) { lowest = got; }
        }
        return true;
    });
}
