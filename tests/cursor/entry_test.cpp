#include <mailroom/cursor/entry.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <vector>

using namespace std::chrono_literals;
using mailroom::offset;
using mailroom::detail::entry;
using mailroom::detail::entry_list;

namespace {

std::vector<offset> offsets(const entry_list& list) {
    std::vector<offset> all, back;
    for (const entry* e = list.front(); e != nullptr; e = e->next) { all.push_back(e->offset); }
    for (const entry* e = list.back(); e != nullptr; e = e->previous) { back.insert(back.begin(), e->offset); }
    CHECK(all == back);
    return all;
}
using places = std::vector<offset>;

struct five {
    std::array<entry, 5> e;
    entry_list list;
    five() {
        for (std::size_t i = 0; i < e.size(); ++i) { e[i].offset = i; }
    }
};

} // namespace

TEST_CASE_FIXTURE(five, "entry_list: first in, first out; any may leave") {
    CHECK(list.empty());
    CHECK(list.pop_front() == nullptr);
    for (auto& each : e) { list.push_back(each); }
    CHECK(offsets(list) == places{0, 1, 2, 3, 4});
    list.erase(e[2]);
    list.erase(e[0]);
    list.erase(e[4]);
    CHECK(offsets(list) == places{1, 3});
    CHECK(list.pop_front() == &e[1]);
    list.erase(e[3]);
    CHECK(list.empty());
    CHECK(list.back() == nullptr);
    list.push_back(e[4]);
    CHECK(offsets(list) == places{4});
}

TEST_CASE_FIXTURE(five, "entry_list: sorted insertion keeps the order of offsets, wherever one comes") {
    for (const std::size_t i : {3u, 1u, 4u, 0u, 2u}) { list.insert_sorted(e[i]); }
    CHECK(offsets(list) == places{0, 1, 2, 3, 4});
    list.erase(e[2]);
    list.insert_sorted(e[2]);
    CHECK(offsets(list) == places{0, 1, 2, 3, 4});
}

TEST_CASE_FIXTURE(five, "entry: orders by time, expiry, offset; the offset decides between equals") {
    using namespace mailroom::detail;
    e[0].when = 2s;
    e[1].when = 1s;
    e[2].when = 1s;
    CHECK(by_time()(e[1], e[0]));
    CHECK(by_time()(e[1], e[2]));
    CHECK(!by_time()(e[2], e[1]));
    e[3].expires = 1s;
    CHECK(by_expiry()(e[3], e[0])); // the others never do
    CHECK(by_expiry()(e[0], e[1]));
    CHECK(by_offset()(e[0], e[1]));
    CHECK(!by_offset()(e[1], e[0]));
}
