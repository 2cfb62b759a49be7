#include <mailroom/cursor/shelf.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <limits>
#include <vector>

using mailroom::offset;
using mailroom::detail::shelf;

TEST_CASE("shelf: each level hands back what it was given, in order") {
    shelf s(2);
    CHECK(s.empty());
    for (const offset o : std::initializer_list<offset>{3, 4, 5, 9, 11, 12}) { s.push(1, o); }
    s.push(0, 7);
    CHECK(s.size() == 7);
    CHECK(s.lowest() == 1);
    for (const offset o : std::initializer_list<offset>{3, 4, 5, 9}) {
        CHECK(s.front(1) == o);
        s.pop(1);
    }
    CHECK(s.lowest() == 0);
    s.push(1, 13);
    s.push(1, 1000);
    for (const offset o : std::initializer_list<offset>{11, 12, 13, 1000}) {
        CHECK(s.front(1) == o);
        s.pop(1);
    }
    CHECK(s.empty(1));
    CHECK_FALSE(s.empty());
    s.pop(0);
    CHECK(s.empty());
}

TEST_CASE("shelf: gaps and lengths of any size") {
    shelf s(1);
    std::vector<offset> all;
    for (unsigned bits = 0; bits < 62; ++bits) { all.push_back((offset{1} << bits) + bits); }
    for (const offset o : all) { s.push(0, o); }
    for (const offset o : all) {
        REQUIRE(s.front(0) == o);
        s.pop(0);
    }
    CHECK(s.empty());
    for (offset o = 0; o < 100'000; ++o) { s.push(0, o + o / 50'000); } // two runs
    for (offset o = 0; o < 100'000; ++o) {
        REQUIRE(s.front(0) == o + o / 50'000);
        s.pop(0);
    }
}

TEST_CASE("shelf: one is taken out wherever it stands") {
    for (const offset which : std::initializer_list<offset>{0, 1, 2, 5, 6, 9, 30, 40, 41}) {
        shelf s(3);
        std::vector<offset> rest;
        for (const offset o : std::initializer_list<offset>{0, 1, 2, 5, 6, 9, 30, 40, 41}) {
            s.push(2, o);
            if (o != which) { rest.push_back(o); }
        }
        s.push(1, 3);
        CHECK(s.take(which) == 2);
        CHECK(s.take(which) == -1);
        CHECK(s.size() == rest.size() + 1);
        s.push(2, 42);
        rest.push_back(42);
        for (const offset o : rest) {
            REQUIRE(s.front(2) == o);
            s.pop(2);
        }
        CHECK(s.empty(2));
    }
}

TEST_CASE("shelf: random, against queues that keep every offset") {
    support::for_each_seed(200, [](std::uint64_t seed) {
        support::dice dice(seed);
        constexpr int levels = 3;
        shelf s(levels);
        std::vector<std::deque<offset>> model(levels);
        offset next = 0;
        const auto wrong = [seed] {
            CHECK_MESSAGE(false, "seed ", seed);
            return false;
        };
        for (int i = 0; i < 2000; ++i) {
            const std::size_t level = dice.below(levels);
            switch (dice.below(8)) {
            case 0:
            case 1:
            case 2:
                for (unsigned n = dice.below(dice.percent(10) ? 500 : 5); n != 0; --n) {
                    s.push(level, next);
                    model[level].push_back(next++);
                }
                next += dice.below(dice.percent(10) ? 100'000 : 3);
                break;
            case 3:
                if (!model[level].empty()) {
                    const std::size_t at = dice.below(static_cast<unsigned>(model[level].size()));
                    if (s.take(model[level][at]) != static_cast<int>(level)) { return wrong(); }
                    model[level].erase(model[level].begin() + static_cast<std::ptrdiff_t>(at));
                }
                break;
            default:
                for (unsigned n = dice.below(8); n != 0 && !model[level].empty(); --n) {
                    if (s.front(level) != model[level].front()) { return wrong(); }
                    s.pop(level);
                    model[level].pop_front();
                }
            }
            std::size_t size = 0;
            for (std::size_t k = 0; k < levels; ++k) {
                size += model[k].size();
                if (s.empty(k) != model[k].empty()) { return wrong(); }
            }
            if (s.size() != size) { return wrong(); }
        }
        return true;
    });
}
