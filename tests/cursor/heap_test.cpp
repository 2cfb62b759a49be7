#include <mailroom/cursor/heap.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace {

struct item {
    unsigned key = 0;
    std::size_t number = 0;
    mailroom::detail::heap_links<item> links;
    mailroom::detail::heap_links<item> other_links;
};
struct by_key {
    bool operator()(const item& a, const item& b) const noexcept { return a.key != b.key ? a.key < b.key : a.number < b.number; }
};
struct backwards {
    bool operator()(const item& a, const item& b) const noexcept { return by_key()(b, a); }
};
using heap = mailroom::detail::heap<item, &item::links, by_key>;
using other_heap = mailroom::detail::heap<item, &item::other_links, backwards>;

} // namespace

TEST_CASE("heap: empty, one, and empty again") {
    heap h;
    item a;
    CHECK(h.empty());
    CHECK(h.top() == nullptr);
    CHECK(!heap::holds(a));
    h.push(a);
    CHECK(heap::holds(a));
    CHECK(h.top() == &a);
    h.erase(a);
    CHECK(!heap::holds(a));
    CHECK(h.empty());
    h.push(a);
    CHECK(h.top() == &a);
}

TEST_CASE("heap: pushed up, down or all alike, it gives them in order") {
    for (const int slope : {1, -1, 0}) {
        std::vector<item> items(1000);
        heap h;
        for (std::size_t i = 0; i < items.size(); ++i) {
            items[i].number = i;
            items[i].key = slope > 0 ? static_cast<unsigned>(i) : slope < 0 ? static_cast<unsigned>(1000 - i) : 7;
            h.push(items[i]);
        }
        const item* last = nullptr;
        std::size_t n = 0;
        for (; !h.empty(); ++n) {
            item* const top = h.top();
            if (last != nullptr) { REQUIRE(by_key()(*last, *top)); }
            last = top;
            h.erase(*top);
        }
        CHECK(n == items.size());
    }
}

TEST_CASE("heap: random pushes and erasures agree with a multiset, in two heaps at once") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        std::vector<item> items(200);
        for (std::size_t i = 0; i < items.size(); ++i) { items[i].number = i; }
        heap up;
        other_heap down;
        std::multiset<std::pair<unsigned, std::size_t>> model;
        for (int step = 0; step < 2000; ++step) {
            item& x = items[dice.below(200)];
            if (!heap::holds(x)) {
                x.key = dice.below(20);
                up.push(x);
                down.push(x);
                model.emplace(x.key, x.number);
            } else {
                item& victim = dice.percent(50) ? x : dice.percent(50) ? *up.top() : *down.top();
                up.erase(victim);
                down.erase(victim);
                model.erase(model.find({victim.key, victim.number}));
            }
            const bool right = model.empty() ? up.empty() && down.empty()
                                             : up.top() == &items[model.begin()->second] && down.top() == &items[model.rbegin()->second];
            if (!right) {
                FAIL("another top than the multiset's");
                return false;
            }
        }
        return true;
    });
}

TEST_CASE("heap: erasing a root with very many children needs no stack") {
    std::vector<item> items(200'000);
    heap h;
    for (std::size_t i = items.size(); i-- > 0;) {
        items[i].key = static_cast<unsigned>(i == 0 ? 0 : items.size() - i);
        items[i].number = i;
    }
    h.push(items[0]);
    for (std::size_t i = 1; i < items.size(); ++i) { h.push(items[i]); }
    h.erase(items[0]);
    CHECK(h.top() == &items.back());
}
