#include <mailroom/journal/image.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

using mailroom::errc;
using mailroom::error;
using mailroom::no_offset;
using mailroom::offset;
using mailroom::detail::bytes_view;
using mailroom::detail::change;
using mailroom::detail::cursor_image;
using mailroom::detail::trial;
using mailroom::detail::wire_reader;
using mailroom::detail::wire_writer;
using bytes = std::vector<std::byte>;
using runs = std::map<offset, offset>;

trial some_trial(std::uint32_t attempt, bool dead = false, std::string reason = {}) {
    return {.attempt = attempt, .dead = dead, .due = -1, .first_failure = 2, .last_failure = 3, .reason = std::move(reason)};
}
bool same(const trial& a, const trial& b) {
    return a.attempt == b.attempt && a.dead == b.dead && a.due == b.due && a.first_failure == b.first_failure && a.last_failure == b.last_failure &&
           a.reason == b.reason;
}

bytes written(const cursor_image& image) {
    bytes b;
    wire_writer to(b);
    image.write(to);
    return b;
}
cursor_image reread(const cursor_image& image) {
    const bytes b = written(image);
    wire_reader from(b);
    const cursor_image again = cursor_image::read(from);
    from.expect_end();
    CHECK(written(again) == b);
    return again;
}

// The steps of a record, as somebody who settles writes them.
struct steps {
    bytes all;
    wire_writer to{all};
    steps& step(change c, std::initializer_list<std::uint64_t> numbers) {
        to.var(static_cast<std::uint64_t>(c));
        for (const std::uint64_t n : numbers) { to.var(n); }
        return *this;
    }
    steps& tried(offset o, const trial& t) {
        step(change::tried, {o});
        t.write(to);
        return *this;
    }
};

std::vector<offset> unsettled(const cursor_image& image, offset first, offset last) {
    std::vector<offset> all;
    image.each_unsettled(first, last, [&](offset o) {
        all.push_back(o);
        return true;
    });
    return all;
}

// What an image is, said without cleverness: each settled offset is in the set.
struct reference {
    offset begun = 0;
    std::set<offset> settled;

    bool is_settled(offset o) const { return o < begun || settled.contains(o); }
    std::vector<offset> unsettled(offset first, offset last) const {
        std::vector<offset> all;
        for (offset o = first; o < last; ++o) {
            if (!is_settled(o)) { all.push_back(o); }
        }
        return all;
    }
};

constexpr offset world = 120; // offsets below this are played with

bool agree(const cursor_image& image, const reference& model) {
    for (offset o = 0; o < world + 2; ++o) {
        if (image.is_settled(o) != model.is_settled(o)) {
            FAIL_CHECK("offset " << o << " is " << (model.is_settled(o) ? "" : "not ") << "settled");
            return false;
        }
    }
    // As few runs as there can be: none touches the floor or another.
    offset last = image.floor();
    for (const auto& [first, end] : image.runs()) {
        if (first <= last || end <= first) {
            FAIL_CHECK("the run from " << first << " to " << end << " follows " << last);
            return false;
        }
        last = end;
    }
    return true;
}

} // namespace

TEST_CASE("image: begins with everything below its beginning settled, which nobody settled") {
    const cursor_image fresh, later(10);
    CHECK(fresh.floor() == 0);
    CHECK(!fresh.is_settled(0));
    CHECK(later.floor() == 10);
    CHECK(later.is_settled(9));
    CHECK(!later.is_settled(10));
    CHECK(later.settled_ever() == 0);
    CHECK(later.unsettled_in(0, 15) == 5);
    CHECK(unsettled(later, 8, 12) == std::vector<offset>{10, 11});
}

TEST_CASE("image: what is settled in a row becomes one run, and the floor rises over it") {
    cursor_image c;
    c.settle(5, 6);
    c.settle(7, 9);
    CHECK(c.runs() == runs{{5, 6}, {7, 9}});
    c.settle(6, 7);
    CHECK(c.runs() == runs{{5, 9}});
    c.settle(1, 5);
    CHECK(c.runs() == runs{{1, 9}});
    CHECK(c.floor() == 0);
    c.settle(0, 1);
    CHECK(c.floor() == 9);
    CHECK(c.runs().empty());
    CHECK(c.settled_ever() == 9);
    c.settle(0, 12); // partly again
    CHECK(c.floor() == 12);
    CHECK(c.settled_ever() == 12);
    c.settle(3, 3);
    CHECK(c.settled_ever() == 12);
}

TEST_CASE("image: one that is unsettled again is the only one that is") {
    cursor_image c;
    c.settle(0, 10);
    c.settle(20, 30);
    for (const offset o : {offset{9}, offset{0}, offset{5}, offset{20}, offset{29}, offset{25}}) {
        CAPTURE(o);
        cursor_image d = c;
        d.unsettle(o);
        CHECK(!d.is_settled(o));
        CHECK(d.settled_ever() == 19);
        CHECK(d.unsettled_in(0, 30) == 11);
        d.unsettle(o);
        CHECK(d.settled_ever() == 19);
        d.settle(o, o + 1);
        CHECK(d == c);
        CHECK(d.settled_ever() == 20);
    }
    c.unsettle(15);
    CHECK(c.settled_ever() == 20);
}

TEST_CASE("image: who looks at what is unsettled may stop") {
    cursor_image c;
    c.settle(2, 4);
    std::vector<offset> seen;
    c.each_unsettled(0, 10, [&](offset o) {
        seen.push_back(o);
        return seen.size() < 3;
    });
    CHECK(seen == std::vector<offset>{0, 1, 4});
    CHECK(unsettled(c, 3, 3).empty());
    CHECK(unsettled(c, 9, 3).empty());
    CHECK(unsettled(c, no_offset - 2, no_offset) == std::vector<offset>{no_offset - 2, no_offset - 1});
}

TEST_CASE("image: what failed is remembered until it is settled") {
    cursor_image c;
    c.try_again(3, some_trial(2, true, "no"));
    c.try_again(5, some_trial(1));
    c.handed_out(5, 4);
    c.handed_out(5, 2); // an older one
    c.handed_out(6, 1);
    CHECK(c.trials().at(5).attempt == 4);
    CHECK(c.trials().at(6).attempt == 1);
    c.settle(0, 4);
    CHECK(c.trials().size() == 2);
    c.settle(5, 7);
    CHECK(c.trials().empty());
}

TEST_CASE("image: takes the steps of a record, one after the other") {
    cursor_image c;
    steps s;
    s.step(change::settled, {0, 3}).tried(5, some_trial(2, true, "because")).tried(1, some_trial(9)).step(change::counted, {1, 2, 3});
    c.take(wire_reader(s.all));
    c.take(wire_reader(s.all)); // again: counts go on, the rest is as it was
    CHECK(c.floor() == 3);
    CHECK(c.settled_ever() == 3);
    REQUIRE(c.trials().size() == 1); // what is settled is not tried again
    CHECK(same(c.trials().at(5), some_trial(2, true, "because")));
    CHECK(c.ever().redelivered == 2);
    CHECK(c.ever().expired == 4);
    CHECK(c.ever().dropped == 6);
    steps t;
    t.step(change::revived, {5}).step(change::revived, {1}).step(change::revived, {77});
    c.take(wire_reader(t.all));
    CHECK(c.trials().empty());
    CHECK(unsettled(c, 0, 6) == std::vector<offset>{1, 3, 4, 5});
    CHECK(c.settled_ever() == 2);
}

TEST_CASE("image: one that is moved has settled what it is told, and nothing else") {
    cursor_image c;
    steps s;
    s.step(change::settled, {0, 8}).tried(9, some_trial(2)).step(change::moved, {2, 2, 4, 6, 8, 9});
    c.take(wire_reader(s.all));
    CHECK(c.floor() == 2);
    CHECK(c.runs() == runs{{4, 6}, {8, 9}});
    CHECK(c.trials().empty());
    steps joined; // runs that touch the floor, or each other, are one
    joined.step(change::moved, {3, 3, 3, 5, 7, 8, 8, 9});
    c.take(wire_reader(joined.all));
    CHECK(c.floor() == 5);
    CHECK(c.runs() == runs{{7, 9}});
    steps none;
    none.step(change::moved, {0, 0});
    c.take(wire_reader(none.all));
    CHECK(c == cursor_image());
    for (const auto& numbers : {std::vector<std::uint64_t>{5, 1, 4, 6}, {0, 1, 6, 4}, {0, 200, 1, 2}, {0, 1, 1}, {0}}) {
        steps wrong;
        wrong.step(change::moved, {});
        for (const std::uint64_t n : numbers) { wrong.to.var(n); }
        CHECK_THROWS_AS(c.take(wire_reader(wrong.all)), error);
    }
}

TEST_CASE("image: the last offsets there are") {
    cursor_image c;
    steps s;
    s.step(change::settled, {no_offset - 3, 3});
    c.take(wire_reader(s.all));
    CHECK(c.is_settled(no_offset - 1));
    CHECK(!c.is_settled(no_offset - 4));
    CHECK(reread(c) == c);
    s.step(change::settled, {0, no_offset});
    c.take(wire_reader(s.all));
    CHECK(c.floor() == no_offset);
    CHECK(reread(c) == c);
    for (const auto& [first, n] :
         {std::pair<offset, std::uint64_t>{no_offset - 3, 4}, {1, no_offset}, {no_offset, 1}, {no_offset - 1, ~std::uint64_t{0}}}) {
        steps beyond;
        beyond.step(change::settled, {first, n});
        CHECK_THROWS_AS(c.take(wire_reader(beyond.all)), error);
    }
}

TEST_CASE("image: is written and read back, with all it knows") {
    cursor_image c(7);
    CHECK(reread(c) == c);
    steps s;
    s.step(change::settled, {9, 2}).step(change::settled, {20, 1}).step(change::counted, {300, 2, 70'000});
    s.tried(8, some_trial(1, false, std::string(300, 'r'))).tried(30, some_trial(std::numeric_limits<std::uint32_t>::max(), true));
    c.take(wire_reader(s.all));
    const cursor_image d = reread(c);
    CHECK(d == c);
    CHECK(d.floor() == 7);
    CHECK(d.runs() == runs{{9, 11}, {20, 21}});
    CHECK(d.settled_ever() == 3);
    CHECK(d.ever().redelivered == 300);
    CHECK(d.ever().dropped == 70'000);
    REQUIRE(d.trials().size() == 2);
    CHECK(same(d.trials().at(8), c.trials().at(8)));
    CHECK(same(d.trials().at(30), c.trials().at(30)));
}

TEST_CASE("image: the bytes of one are these") {
    cursor_image c(2);
    c.settle(2, 3);
    c.settle(5, 7);
    bytes expected;
    for (const unsigned b : {2U, 3U, 3U, 0U, 0U, 0U, 1U, 2U, 2U, 0U}) {
        expected.push_back(static_cast<std::byte>(b));
    } // begun, floor, settled, three tallies, runs, trials
    CHECK(written(c) == expected);
}

TEST_CASE("image: runs that touch, are empty, or end beyond the last offset are refused") {
    const auto refused = [](std::initializer_list<std::uint64_t> numbers) {
        bytes b;
        wire_writer to(b);
        for (const std::uint64_t n : numbers) { to.var(n); }
        wire_reader from(b);
        try {
            static_cast<void>(cursor_image::read(from));
        } catch (const error& e) { return e == errc::corrupt; }
        return false;
    };
    CHECK(!refused({0, 0, 0, 0, 0, 0, 1, 1, 1, 0}));
    CHECK(refused({0, 0, 0, 0, 0, 0, 1, 0, 1, 0}));
    CHECK(refused({0, 0, 0, 0, 0, 0, 1, 1, 0, 0}));
    CHECK(refused({0, 5, 0, 0, 0, 0, 1, 1, no_offset - 5, 0}));
    CHECK(!refused({0, 5, 0, 0, 0, 0, 1, 1, no_offset - 6, 0}));
    CHECK(refused({0, 5, 0, 0, 0, 0, 1, no_offset, 1, 0}));
    CHECK(refused({0, 0, 0, 0, 0, 0, 200, 1, 1, 0}));
    CHECK(refused({0, 0, 0, 0, 0, 0, 0, 1}));
    CHECK(refused({}));
}

TEST_CASE("image: random operations agree with a set") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        reference model;
        model.begun = dice.percent(50) ? 0 : dice.below(20);
        cursor_image image(model.begun);
        for (int i = 0; i < 150; ++i) {
            const offset o = dice.below(world);
            switch (dice.below(6)) {
            case 0:
            case 1:
            case 2: {
                const offset end = std::min<offset>(world, o + (dice.percent(70) ? 1 : dice.below(30)));
                steps s;
                s.step(change::settled, {o, end - o});
                if (dice.percent(50)) {
                    image.settle(o, end);
                } else {
                    image.take(wire_reader(s.all));
                }
                for (offset x = o; x < end; ++x) {
                    if (!model.is_settled(x)) { model.settled.insert(x); }
                }
                break;
            }
            case 3:
                if (o < model.begun) { break; }
                image.unsettle(o);
                model.settled.erase(o);
                break;
            case 4: image = reread(image); break;
            default: {
                const offset end = o + dice.below(40);
                const std::vector<offset> expected = model.unsettled(o, end);
                if (unsettled(image, o, end) != expected || image.unsettled_in(o, end) != expected.size()) {
                    FAIL("what is unsettled in [" << o << ", " << end << ") differs");
                    return false;
                }
            }
            }
            if (!agree(image, model)) { return false; }
            if (image.settled_ever() != model.settled.size()) {
                FAIL("settled " << image.settled_ever() << ", not " << model.settled.size());
                return false;
            }
        }
        return true;
    });
}

TEST_CASE("image: hostile bytes are refused, or give an image that can be used") {
    support::for_each_seed(2'000, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        cursor_image image(dice.below(5));
        steps s;
        for (unsigned i = dice.below(6); i != 0; --i) { s.step(change::settled, {dice.below(60), dice.below(5)}); }
        if (dice.percent(60)) { s.tried(dice.below(60), some_trial(dice.below(5), dice.percent(50), "r")); }
        if (dice.percent(30)) { s.step(change::revived, {dice.below(60)}); }
        if (dice.percent(30)) { s.step(change::moved, {dice.below(20), 2, 20 + dice.below(5), 30, 33, 33 + std::uint64_t{dice.below(9)}}); }
        image.take(wire_reader(s.all));

        const bool as_steps = dice.percent(50);
        bytes hostile = as_steps ? s.all : written(image);
        for (unsigned i = dice.below(4); i != 0 && !hostile.empty(); --i) {
            const std::size_t at = dice.below(static_cast<unsigned>(hostile.size()));
            switch (dice.below(4)) {
            case 0: hostile[at] ^= std::byte{1} << dice.below(8); break;
            case 1: hostile[at] = static_cast<std::byte>(dice.below(256)); break;
            case 2: hostile.resize(at); break;
            default: hostile.insert(hostile.begin() + static_cast<std::ptrdiff_t>(at), std::size_t{1} + dice.below(9), std::byte{0xff}); break;
            }
        }
        cursor_image other;
        try {
            if (as_steps) {
                other.take(wire_reader(hostile));
            } else {
                wire_reader from(hostile);
                other = cursor_image::read(from);
            }
        } catch (const error& e) { CHECK(e == errc::corrupt); }
        // Whatever it is now, everything may be asked and said.
        static_cast<void>(other.unsettled_in(0, no_offset));
        std::size_t seen = 0;
        other.each_unsettled(other.floor(), no_offset, [&](offset o) {
            CHECK(!other.is_settled(o));
            return ++seen < 50;
        });
        for (const offset o : {offset{0}, other.floor(), offset{30}, no_offset - 1}) {
            other.unsettle(o);
            CHECK(!other.is_settled(o));
            other.settle(o, o + 1);
            CHECK(other.is_settled(o));
        }
        static_cast<void>(reread(other));
        other.settle(0, no_offset);
        CHECK(other.floor() == no_offset);
        CHECK(other.runs().empty());
        return true;
    });
}
