#include <mailroom/stream/recycler.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace {

struct node {
    static inline int live = 0;
    static inline int made = 0;
    node() {
        ++live;
        ++made;
    }
    ~node() { --live; }
    node* next_free = nullptr;
    int mark = 0;
};
struct large_node {
    static inline int live = 0;
    large_node() { ++live; }
    ~large_node() { --live; }
    large_node* next_free = nullptr;
    char bytes[64 * 1024];
};

using mailroom::detail::recycler;

template <class Node>
void burst(recycler<Node>& r, std::size_t size) {
    std::vector<Node*> out;
    for (std::size_t i = 0; i < size; ++i) { out.push_back(r.get()); }
    for (Node* n : out) { delete r.put(n); }
}

} // namespace

TEST_CASE("recycler: what was given back is used again, as it was left") {
    recycler<node> r;
    delete r.put(r.get()); // a mistake, as the next line shows
    node* const a = r.get();
    a->mark = 7;
    CHECK(r.put(a) == nullptr);
    node* const b = r.get();
    CHECK(b == a);
    CHECK(b->mark == 7);
    delete r.put(b);
}

TEST_CASE("recycler: a single burst leaves nothing behind") {
    recycler<node> r;
    const int before = node::live;
    burst(r, 1000);
    CHECK(node::live == before);
}

TEST_CASE("recycler: steady work allocates nothing, once it has learnt how much it needs") {
    recycler<node> r;
    for (int i = 0; i < 20; ++i) { burst(r, 10); }
    const int before = node::made;
    for (int i = 0; i < 100; ++i) { burst(r, 10); }
    CHECK(node::made == before);
    CHECK(node::live <= 10);
}

TEST_CASE("recycler: however large the bursts, it keeps a mebibyte at most, or 64 nodes") {
    {
        recycler<large_node> r;
        for (int i = 0; i < 20; ++i) { burst(r, 200); }
        CHECK(large_node::live <= 64);
    }
    CHECK(large_node::live == 0);
    const int before = node::live;
    {
        recycler<node> r;
        for (int i = 0; i < 5; ++i) { burst(r, 100'000); }
        CHECK(static_cast<std::size_t>(node::live - before) * sizeof(node) <= (std::size_t{1} << 20));
    }
    CHECK(node::live == before);
}
