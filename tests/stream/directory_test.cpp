#include <mailroom/stream/directory.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <iterator>
#include <map>
#include <thread>
#include <vector>

namespace {

using mailroom::offset;
using mailroom::detail::directory;
using mailroom::detail::index_in_span;
using mailroom::detail::span;
using mailroom::detail::span_of;

struct node {
    offset first = 0;
};

void install(directory<node>& d, node& n, offset o) {
    n.first = o;
    d.reserve(o);
    d.install(o, &n);
}

} // namespace

TEST_CASE("directory: an offset has a span and a place in it") {
    CHECK(span_of(0) == 0);
    CHECK(span_of(span - 1) == 0);
    CHECK(span_of(span) == 1);
    CHECK(index_in_span(span - 1) == span - 1);
    CHECK(index_in_span(5 * span + 3) == 3);
    CHECK(span_of(~offset{0}) == ~offset{0} / span);
}

TEST_CASE("directory: finds the node of every offset of its span, while it grows") {
    directory<node> d;
    std::vector<node> nodes(100);
    for (offset s = 0; s < nodes.size(); ++s) {
        install(d, nodes[s], s * span);
        for (offset earlier = 0; earlier <= s; ++earlier) {
            REQUIRE(d.find(earlier * span) == &nodes[earlier]);
            REQUIRE(d.find(earlier * span + span - 1) == &nodes[earlier]);
        }
    }
    CHECK(d.lowest() == 0);
    CHECK(d.highest() == 100);
}

TEST_CASE("directory: in steady work it does not grow, wherever the offsets are") {
    for (const offset start : {offset{0}, offset{1} << 40}) {
        directory<node> d;
        std::vector<node> nodes(3);
        for (offset s = 0; s < 1000; ++s) {
            const offset o = (start / span + s) * span;
            CHECK(!d.is_full_for(o));
            install(d, nodes[s % 3], o);
            CHECK(d.find(o) == &nodes[s % 3]);
            if (s >= 2) { d.remove(o - 2 * span, &nodes[(s - 2) % 3]); }
        }
        CHECK(d.highest() - d.lowest() <= 3);
    }
}

TEST_CASE("directory: an old node that stays holds the lowest end; others may go before it") {
    directory<node> d;
    std::vector<node> nodes(200);
    for (offset s = 0; s < 200; ++s) { install(d, nodes[s], s * span); }
    for (offset s = 1; s < 199; ++s) { d.remove(s * span, &nodes[s]); }
    CHECK(d.lowest() == 0);
    CHECK(d.find(0) == &nodes[0]);
    CHECK(d.in_span(1) == nullptr);
    CHECK(d.in_span(199) == &nodes[199]);
    CHECK(d.is_full_for(offset{256} * span));
    CHECK(!d.is_full_for(offset{255} * span));
    d.remove(0, &nodes[0]);
    CHECK(d.lowest() == 199);
    CHECK(!d.is_full_for(offset{256} * span));
}

TEST_CASE("directory: removing what is not there, or another's place, changes nothing") {
    directory<node> d;
    node a, b;
    install(d, a, 0);
    d.remove(0, &b);
    CHECK(d.find(0) == &a);
    d.remove(77 * span, &a);
    CHECK(d.find(0) == &a);
    d.remove(0, &a);
    CHECK(d.lowest() == d.highest());
    d.remove(0, &a);
    install(d, b, 1000 * span); // after a gap
    CHECK(d.find(1000 * span) == &b);
    CHECK(d.lowest() == 1000);
}

TEST_CASE("directory: random installs and removals agree with a map") {
    support::for_each_seed(200, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        directory<node> d;
        std::vector<node> nodes(400);
        std::map<offset, node*> model;
        for (offset s = 0; s < nodes.size(); ++s) {
            install(d, nodes[s], s * span);
            model[s] = &nodes[s];
            while (!model.empty() && dice.percent(dice.percent(20) ? 95 : 40)) {
                auto victim = model.begin();
                if (dice.percent(30)) { std::advance(victim, dice.below(static_cast<unsigned>(model.size()))); }
                d.remove(victim->first * span, victim->second);
                model.erase(victim);
            }
            for (const auto& [place, expected] : model) {
                if (d.find(place * span) != expected) {
                    FAIL("span " << place << " is lost");
                    return false;
                }
            }
        }
        return true;
    });
}

TEST_CASE("directory: readers find what they own while its owner grows it") {
    directory<node> d;
    constexpr offset count = 20'000;
    std::vector<node> nodes(count);
    std::atomic<offset> limit{0};
    std::atomic<long> wrong{0};
    std::vector<std::thread> readers;
    for (int t = 0; t < 2; ++t) {
        readers.emplace_back([&] {
            for (offset known = 0; known < count;) {
                known = limit.load(std::memory_order_acquire);
                for (offset s = known > 50 ? known - 50 : 0; s < known; ++s) {
                    if (d.find(s * span)->first != s * span) { ++wrong; }
                }
            }
        });
    }
    for (offset s = 0; s < count; ++s) {
        install(d, nodes[s], s * span);
        limit.store(s + 1, std::memory_order_release);
    }
    for (auto& t : readers) { t.join(); }
    CHECK(wrong == 0);
}
