#include <mailroom/journal/place_list.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

using namespace mailroom::detail;

void check(const place_list& list, const std::vector<std::uint32_t>& expected) {
    REQUIRE(list.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (list[i] != expected[i]) { FAIL("number " << i << " is " << list[i] << ", not " << expected[i]); }
    }
    std::size_t seen = 0;
    CHECK(list.each_piece([&](bytes_view some) {
        for (std::size_t at = 0; at < some.size(); at += 4, ++seen) {
            if (seen >= expected.size() || load_le<std::uint32_t>(some.data() + at) != expected[seen]) { FAIL("piece by piece, number " << seen); }
        }
        return !some.empty();
    }));
    CHECK(seen == expected.size());
}

} // namespace

TEST_CASE("place_list: holds what was added, in its order, as a file wants it") {
    support::dice dice(7);
    place_list list;
    std::vector<std::uint32_t> expected;
    check(list, expected);
    for (const std::size_t size : {1u, 15u, 16u, 17u, 47u, 48u, 49u, 1000u, 16'383u, 32'751u, 32'752u, 32'753u, 49'136u, 49'137u, 200'000u}) {
        while (expected.size() < size) {
            const std::uint32_t place = dice.below(~0u);
            list.push_back(place);
            expected.push_back(place);
        }
        check(list, expected);
    }
    for (int i = 0; i < 1000; ++i) {
        const std::size_t at = dice.below(200'000);
        list.set(at, expected[at] = static_cast<std::uint32_t>(i));
    }
    check(list, expected);
    place_list other(std::move(list));
    check(other, expected);
    place_list third;
    third.push_back(1);
    third = std::move(other);
    check(third, expected);
    third.push_back(5);
    expected.push_back(5);
    check(third, expected);
}

TEST_CASE("place_list: who has seen enough gets no more") {
    place_list list;
    for (std::uint32_t i = 0; i < 100; ++i) { list.push_back(i); }
    int calls = 0;
    CHECK(!list.each_piece([&](bytes_view) { return ++calls != 2; }));
    CHECK(calls == 2);
}
