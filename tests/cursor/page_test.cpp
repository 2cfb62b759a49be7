#include <mailroom/cursor/entry.hpp>
#include <mailroom/cursor/page.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <memory>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::detail::entry;
using mailroom::detail::lane_state;
using mailroom::detail::page;
using mailroom::detail::span;

TEST_CASE("lane_state: tags alone are themselves") {
    for (const auto tag : {lane_state::fresh, lane_state::ended, lane_state::released, lane_state::lost}) {
        CHECK(lane_state::kind(lane_state::of(tag)) == tag);
    }
}

TEST_CASE("lane_state: a lease carries its end, as far as there is room for it") {
    for (const duration end : {duration(0), duration(1), duration(30s), duration(24h * 365 * 36), lane_state::latest}) {
        CAPTURE(end.count());
        const std::uint64_t word = lane_state::lease_until(end);
        CHECK(lane_state::kind(word) == lane_state::leased);
        CHECK(lane_state::deadline(word) == end);
    }
    CHECK(lane_state::deadline(lane_state::lease_until(24h * 365 * 200)) == lane_state::latest);
    CHECK(lane_state::kind(lane_state::lease_until(duration::max())) == lane_state::leased);
    CHECK(lane_state::kind(lane_state::lease_until(-1s)) == lane_state::leased);
    CHECK(lane_state::deadline(lane_state::lease_until(-1s)) == 0s);
}

TEST_CASE("lane_state: what was moved says where to, what was deferred after which attempt") {
    const auto e = std::make_unique<entry>();
    const std::uint64_t word = lane_state::to(e.get());
    CHECK(lane_state::kind(word) == lane_state::moved);
    CHECK(lane_state::target(word) == e.get());
    for (const std::uint32_t attempt : {0u, 1u, 4'000'000'000u}) {
        const std::uint64_t waiting = lane_state::deferred_after(attempt);
        CHECK(lane_state::kind(waiting) == lane_state::deferred);
        CHECK(lane_state::attempt(waiting) == attempt);
    }
}

TEST_CASE("page: is complete when every slot is released, not before") {
    page p;
    for (auto& word : p.state) { word = lane_state::of(lane_state::released); }
    CHECK(p.complete());
    for (const auto other : {lane_state::of(lane_state::fresh), lane_state::lease_until(1s), lane_state::of(lane_state::ended),
                             lane_state::of(lane_state::lost), lane_state::deferred_after(1)}) {
        for (const std::uint32_t i : {0u, span / 2, span - 1}) {
            p.state[i] = other;
            CHECK(!p.complete());
            p.state[i] = lane_state::of(lane_state::released);
        }
    }
    CHECK(p.complete());
}

TEST_CASE("page_list: pages are found by their first offset, wherever others have left") {
    constexpr std::size_t count = 300;
    std::vector<page> pages(count);
    mailroom::detail::page_list list;
    for (std::size_t i = 0; i < count; ++i) {
        pages[i].first = i * span;
        list.push_back(pages[i]);
    }
    const auto check = [&](std::size_t from, std::size_t step) { // those that are left: from, from + step, ...
        std::size_t seen = 0;
        for (const page* p : list) {
            CHECK(p->first == (from + seen * step) * span);
            CHECK(&list[seen] == p);
            ++seen;
        }
        CHECK(seen == list.size());
        for (std::size_t i = 0; i < count; ++i) {
            const bool is_left = i >= from && (i - from) % step == 0;
            CHECK(list.find(pages[i].first) == (is_left ? &pages[i] : nullptr));
        }
    };
    check(0, 1);
    for (std::size_t i = 1; i < count; i += 2) { list.erase(pages[i]); } // from within
    check(0, 2);
    for (std::size_t i = 0; i < 200; i += 2) { list.erase(pages[i]); } // from the front
    check(200, 2);
    list.erase(pages[0]); // not there any more: no effect
    page twin;
    twin.first = pages[200].first;
    list.erase(twin); // another one
    check(200, 2);
    list.clear();
    CHECK(list.empty());
    list.push_back(pages[7]);
    CHECK(list.find(pages[7].first) == &pages[7]);
}
