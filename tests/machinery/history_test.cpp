// The linearizability check: says yes to what can be explained and no to what cannot, tried on histories written by hand, against all
// permutations of small ones, and on queues with faults under real threads.
#include "support/faulty_queues.hpp"
#include "support/history.hpp"
#include "support/random.hpp"
#include "support/recorder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

using namespace support;
using verb = call::verb;
using answer = call::answer;

namespace {

call make(verb what, int body, std::uint64_t begin, std::uint64_t end, answer said = answer::done) {
    call c;
    c.what = what, c.body = body, c.begin = begin, c.end = end, c.said = said;
    return c;
}
bool explained(std::vector<call> calls, std::vector<int> after = {}, std::size_t max_messages = 0, bool strict = false) {
    history h;
    h.calls = std::move(calls), h.after = std::move(after), h.max_messages = max_messages, h.strict = strict;
    return linearizability::check(h);
}

/// The same question, asked of every order of the calls.
bool some_permutation_explains(const history& h) {
    std::vector<std::size_t> order(h.calls.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    do {
        sequential_queue queue(h);
        std::uint64_t latest = 0;
        const bool works = std::all_of(order.begin(), order.end(), [&](std::size_t i) {
            latest = std::max(latest, h.calls[i].begin);
            return h.calls[i].end > latest && queue.does(h.calls[i], latest);
        });
        if (works && queue.ends_well()) { return true; }
    } while (std::next_permutation(order.begin(), order.end()));
    return false;
}

/// Calls that a queue answered one after the other, at moments that lie somewhere in their intervals; then perhaps one answer is changed.
history draw_history(dice& d, bool with_places) {
    history h;
    h.max_messages = d.percent(40) ? 2 : 0;
    faulty_queue<fault::none> queue(h.max_messages, 0);
    std::vector<decltype(queue)::delivery> held;
    const auto note = [](call& c, const auto& taken) {
        c.said = taken ? answer::done : answer::nothing;
        if (taken) { c.body = taken->body(), c.place = taken->offset(); }
    };
    const auto calls = static_cast<unsigned>(d.between(3, 6));
    for (unsigned i = 0; i < calls || !held.empty(); ++i) {
        const unsigned moment = 100 * (i + 1);
        call c = make(verb::send, static_cast<int>(i), moment - d.below(std::min(moment, 250u)), moment + 1 + d.below(250));
        const unsigned what = i < calls ? d.below(8) : 7;
        if (what < 3) {
            const auto r = queue.try_send(c.body);
            if (r) { c.place = *r; }
            if (!r) { c.said = r.error() == mailroom::errc::full ? answer::full : answer::closed; }
        } else if (what < 5) {
            c.what = verb::pop;
            note(c, queue.try_pop());
        } else if (what == 5) {
            c.what = verb::receive;
            const auto taken = queue.try_receive();
            note(c, taken);
            if (taken) { held.push_back(*taken); }
        } else if (!held.empty()) {
            c.what = d.percent(50) ? verb::ack : verb::back;
            c.body = held.back().body();
            static_cast<void>(c.what == verb::ack ? held.back().ack() : held.back().release());
            held.pop_back();
        } else {
            c.what = verb::close;
            queue.close();
        }
        if (!with_places) { c.place = call::unknown; }
        h.calls.push_back(c);
    }
    while (const auto m = queue.try_pop()) { h.after.push_back(m->body()); }
    if (d.percent(60)) {
        call& c = h.calls[d.below(static_cast<unsigned>(h.calls.size()))];
        switch (d.below(3)) {
        case 0: c.body = d.between(0, static_cast<int>(calls)); break;
        case 1: c.said = static_cast<answer>(d.below(5)); break;
        default: std::swap(c.body, h.calls[d.below(static_cast<unsigned>(h.calls.size()))].body); break;
        }
    }
    return h;
}

template <fault Fault>
bool finds(crew& threads) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        dice d(seed);
        const int size = d.between(2, 4);
        std::vector<std::unique_ptr<experiment<int, faulty_queue<Fault>>>> list;
        for (int i = 0; i < 20; ++i) {
            plan p = draw_plan(d, size);
            p.may_close = Fault == fault::sends_after_close;
            p.warm_up = 0, p.before = 0;
            if (Fault == fault::forgets_full || Fault == fault::looks_full) { p.max_messages = 3, p.sends = 80; }
            list.push_back(std::make_unique<experiment<int, faulty_queue<Fault>>>(p, seed, p.max_messages, seed));
        }
        perform(threads, size, list);
        for (const auto& e : list) {
            if (!linearizability::check(e->finish())) { return true; }
        }
    }
    return false;
}

} // namespace

TEST_CASE("linearizability: calls that overlap may have been done in either order") {
    CHECK(explained({make(verb::send, 1, 1, 4), make(verb::send, 2, 2, 3), make(verb::pop, 1, 5, 6), make(verb::pop, 2, 7, 8)}));
    CHECK(explained({make(verb::send, 1, 1, 4), make(verb::send, 2, 2, 3), make(verb::pop, 2, 5, 6), make(verb::pop, 1, 7, 8)}));
    CHECK(explained({make(verb::send, 1, 1, 4), make(verb::pop, 1, 2, 3)}));
    CHECK(explained({make(verb::send, 1, 1, 4), make(verb::pop, 0, 2, 3, answer::nothing)}, {1}));
    CHECK(explained({make(verb::send, 1, 1, 4), make(verb::close, 0, 2, 3)}, {1}));
    CHECK(explained({make(verb::send, 1, 1, 4, answer::closed), make(verb::close, 0, 2, 3)}));
}

TEST_CASE("linearizability: calls that follow each other may not") {
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2), make(verb::send, 2, 3, 4), make(verb::pop, 2, 5, 6), make(verb::pop, 1, 7, 8)}));
    CHECK_FALSE(explained({make(verb::pop, 1, 1, 2), make(verb::send, 1, 3, 4)}));
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2), make(verb::close, 0, 3, 4), make(verb::send, 2, 5, 6)}, {1, 2}));
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2, answer::closed), make(verb::close, 0, 3, 4)}));
}

TEST_CASE("linearizability: nothing is lost, invented, given twice or missed") {
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2)}, {}));
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2)}, {1, 1}));
    CHECK_FALSE(explained({make(verb::pop, 7, 1, 2)}));
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2), make(verb::pop, 1, 3, 4), make(verb::pop, 1, 5, 6)}));
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2), make(verb::pop, 0, 3, 4, answer::nothing)}, {1}));
    CHECK_FALSE(explained({make(verb::send, 1, 1, 2), make(verb::send, 2, 3, 4), make(verb::pop, 2, 5, 6)}, {1}));
}

TEST_CASE("linearizability: what is given back is at its own place, what is settled is settled") {
    const std::vector<call> start = {make(verb::send, 1, 1, 2), make(verb::send, 2, 3, 4), make(verb::receive, 1, 5, 6)};
    const auto then = [&](std::vector<call> more) {
        more.insert(more.begin(), start.begin(), start.end());
        return more;
    };
    CHECK(explained(then({make(verb::back, 1, 7, 8), make(verb::pop, 1, 9, 10)}), {2}));
    CHECK_FALSE(explained(then({make(verb::back, 1, 7, 8), make(verb::pop, 2, 9, 10)}), {1}));
    CHECK(explained(then({make(verb::back, 1, 7, 10), make(verb::pop, 2, 8, 9)}), {1}));
    CHECK_FALSE(explained(then({make(verb::ack, 1, 7, 8), make(verb::ack, 1, 9, 10)}), {2}));
    CHECK(explained(then({make(verb::ack, 1, 7, 8), make(verb::ack, 1, 9, 10, answer::refused)}), {2}));
    CHECK_FALSE(explained(then({make(verb::ack, 1, 7, 8, answer::refused)}), {2}));
    CHECK_FALSE(explained(then({make(verb::pop, 2, 7, 8), make(verb::pop, 1, 9, 10)})));
}

TEST_CASE("linearizability: a bound is kept, and refuses only when it is reached") {
    const std::vector<call> two = {make(verb::send, 1, 1, 2), make(verb::send, 2, 3, 4)};
    const auto then = [&](std::vector<call> more) {
        more.insert(more.begin(), two.begin(), two.end());
        return more;
    };
    CHECK(explained(then({make(verb::send, 3, 5, 6, answer::full)}), {1, 2}, 2));
    CHECK_FALSE(explained(then({make(verb::send, 3, 5, 6)}), {1, 2, 3}, 2));
    CHECK_FALSE(explained(then({make(verb::send, 3, 5, 6, answer::full)}), {1, 2}, 3));
    CHECK(explained(then({make(verb::receive, 1, 5, 6), make(verb::send, 3, 7, 8, answer::full), make(verb::ack, 1, 9, 10)}), {2}, 2));
    CHECK_FALSE(explained(then({make(verb::pop, 1, 5, 6), make(verb::send, 3, 7, 8, answer::full)}), {2}, 2));
    // A pop that has not returned may not have given its place back yet; but not both before and after somebody had it.
    CHECK(explained(then({make(verb::pop, 1, 5, 12), make(verb::pop, 2, 6, 7), make(verb::send, 3, 8, 9), make(verb::send, 4, 10, 11, answer::full)}),
                    {3}, 2));
    CHECK_FALSE(explained(then({make(verb::pop, 1, 5, 14), make(verb::pop, 2, 6, 7), make(verb::send, 3, 8, 9), make(verb::send, 4, 10, 11),
                                make(verb::pop, 3, 12, 13, answer::nothing)}),
                          {3, 4}, 2));
}

TEST_CASE("linearizability: a send that has not returned may hold up what is behind it, unless the check is strict") {
    const std::vector<call> held_up = {make(verb::send, 1, 1, 10), make(verb::send, 2, 2, 3), make(verb::pop, 0, 4, 5, answer::nothing)};
    auto first_is_1 = held_up;
    first_is_1[0].place = 0, first_is_1[1].place = 1;
    CHECK(explained(first_is_1, {1, 2}));
    CHECK_FALSE(explained(first_is_1, {1, 2}, 0, true));
    auto first_is_2 = held_up;
    first_is_2[0].place = 1, first_is_2[1].place = 0;
    CHECK_FALSE(explained(first_is_2, {2, 1}));
    auto seen_before = first_is_1; // once somebody was given something behind it, it holds nothing up
    seen_before.push_back(make(verb::receive, 1, 4, 5)), seen_before.push_back(make(verb::back, 1, 6, 7));
    seen_before.push_back(make(verb::pop, 0, 8, 9, answer::nothing));
    CHECK_FALSE(explained(seen_before, {1, 2}));
}

TEST_CASE("linearizability: agrees with a search of all permutations") {
    int yes = 0, no = 0;
    for (std::uint64_t seed = 0; seed < cases(3000); ++seed) {
        dice d(seed);
        const history h = draw_history(d, seed % 2 == 0);
        const bool expected = some_permutation_explains(h);
        (expected ? yes : no) += 1;
        CAPTURE(text_of(h));
        REQUIRE(linearizability::check(h) == expected);
    }
    CHECK(yes > 100 * static_cast<int>(cases(3000)) / 1000);
    CHECK(no > 100 * static_cast<int>(cases(3000)) / 1000);
}

TEST_CASE("linearizability: finds every fault under threads, and none where there is none") {
    crew threads(4);
    CHECK_FALSE(finds<fault::none>(threads));
    CHECK(finds<fault::loses>(threads));
    CHECK(finds<fault::duplicates>(threads));
    CHECK(finds<fault::reorders>(threads));
    CHECK(finds<fault::looks_empty>(threads));
    CHECK(finds<fault::forgets_full>(threads));
    CHECK(finds<fault::looks_full>(threads));
    CHECK(finds<fault::sends_after_close>(threads));
    CHECK(finds<fault::settles_twice>(threads));
    CHECK(finds<fault::comes_back_last>(threads));
    CHECK(finds<fault::splits_batches>(threads));
    CHECK(finds<fault::races_to_take>(threads));
    CHECK(finds<fault::races_to_append>(threads));
}
