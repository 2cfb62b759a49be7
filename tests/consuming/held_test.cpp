#include "support/scripted_source.hpp"

#include <mailroom/consuming/held.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace {

using mailroom::detail::held;
using mailroom::detail::held_list;

std::vector<mailroom::offset> places(const held_list<int>& list) {
    std::vector<mailroom::offset> seen;
    for (const held<int>* h = list.first(); h != nullptr; h = h->next) { seen.push_back(h->key); }
    return seen;
}

} // namespace

TEST_CASE("held: a list keeps its order whatever is taken out, and owns what is left") {
    held_list<int> list, other;
    CHECK(list.first() == nullptr);
    held<int>* nodes[5];
    for (mailroom::offset i = 0; i < 5; ++i) {
        nodes[i] = new held<int>();
        nodes[i]->key = i;
        list.push(*nodes[i]);
    }
    CHECK(list.size() == 5);
    other.push(*list.remove(*nodes[2])); // in the middle, at the end, at the beginning
    other.push(*list.remove(*nodes[4]));
    other.push(*list.remove(*nodes[0]));
    CHECK(places(list) == std::vector<mailroom::offset>{1, 3});
    CHECK(places(other) == std::vector<mailroom::offset>{2, 4, 0});
    list.push(*other.remove(*nodes[4]));
    CHECK(places(list) == std::vector<mailroom::offset>{1, 3, 4});
    while (held<int>* const h = other.first()) { delete other.remove(*h); }
    CHECK(other.size() == 0);
    other.push(*new held<int>());
    CHECK(other.size() == 1);
}

TEST_CASE("held: a node knows of its message what outlives it") {
    auto* const s = new support::scripted_source();
    s->add(10);
    s->add(11);
    {
        held<int> h;
        s->give().ack();
        h.adopt(s->give(), std::chrono::seconds(3), true);
        CHECK(h.message->body() == 11);
        mailroom::detail::held_term t;
        REQUIRE(h.read(t));
        CHECK(t.place == 1);
        CHECK(t.attempt == 1);
        CHECK(t.partition == 0);
        CHECK(h.key == 0); // it has none
        CHECK(t.since == std::chrono::seconds(3));
        h.begin_handler(std::chrono::seconds(4));
        CHECK(h.since() == std::chrono::seconds(4));
        h.message->ack();
        REQUIRE(h.read(t));
        CHECK(t.place == 1);
    }
    CHECK(s->said() == std::vector<std::string>{"ack 0", "ack 1"});
    s->unrefer();
}
