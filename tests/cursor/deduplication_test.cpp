#include <mailroom/cursor/deduplication.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>

using namespace std::chrono_literals;

namespace {

using mailroom::duration;
using mailroom::no_offset;
using mailroom::offset;

// A deduplicator as a sender uses it.
struct ids {
    mailroom::detail::deduplicator d;
    ids(duration window, bool until_settled) : d(window, until_settled) {}

    // The offset of the original, or `place` where it is the first.
    offset send(const std::string& id, offset place, duration now) {
        const auto held = d.lock();
        const offset original = d.find_or_note(id, now);
        if (original != no_offset) { return original; }
        d.sent(id, place, now);
        return place;
    }
    void fail_to_send(const std::string& id, duration now) {
        const auto held = d.lock();
        REQUIRE(d.find_or_note(id, now) == no_offset);
        d.not_sent(id, now);
    }
};

} // namespace

TEST_CASE("deduplication: within the window, settled or not, the original answers") {
    ids i(10s, false);
    CHECK(i.send("a", 1, 0s) == 1);
    CHECK(i.send("b", 2, 5s) == 2);
    CHECK(i.send("a", 3, 10s - 1ns) == 1);
    i.d.settled("a", 1, 9s);
    CHECK(i.send("a", 3, 10s - 1ns) == 1);
    CHECK(i.send("a", 4, 10s) == 4);
    CHECK(i.send("b", 6, 15s - 1ns) == 2);
    CHECK(i.send("b", 7, 15s) == 7);
    CHECK(i.send("a", 5, 19s) == 4); // a window of its own
}

TEST_CASE("deduplication: until settled, and no longer") {
    ids i(0s, true);
    CHECK(i.send("a", 1, 0s) == 1);
    CHECK(i.send("a", 2, 1000h) == 1);
    i.d.settled("a", 1, 1000h);
    CHECK(i.send("a", 3, 1000h) == 3);
    i.d.settled("a", 1, 1000h); // the old one again: not this one's business
    CHECK(i.send("a", 4, 1000h) == 3);
    i.d.settled("unknown", 9, 0s);
}

TEST_CASE("deduplication: both rules: whichever holds longer") {
    ids i(10s, true);
    CHECK(i.send("a", 1, 0s) == 1);
    CHECK(i.send("a", 2, 11s) == 1);
    i.d.settled("a", 1, 12s);
    CHECK(i.send("a", 3, 12s) == 3);
    i.d.settled("a", 3, 13s);
    CHECK(i.send("a", 4, 21s) == 3);
    CHECK(i.send("a", 5, 22s) == 5);
}

TEST_CASE("deduplication: what was not sent is no original, and spoils nothing that was") {
    for (const bool until_settled : {false, true}) {
        for (const duration window : {duration(0), duration(10s)}) {
            if (window == 0s && !until_settled) { continue; }
            ids i(window, until_settled);
            i.fail_to_send("a", 0s);
            CHECK(i.send("a", 1, 1s) == 1);
            CHECK(i.send("a", 2, 2s) == 1);
            i.d.settled("a", 1, 20s);
            i.fail_to_send("a", 20s);
            CHECK(i.send("a", 3, 21s) == 3);
        }
    }
}

TEST_CASE("deduplication: what lives again is protected again") {
    ids i(0s, true);
    CHECK(i.send("a", 1, 0s) == 1);
    i.d.settled("a", 1, 1s); // dead
    i.d.unsettled("a", 1);
    CHECK(i.send("a", 2, 2s) == 1);
    i.d.settled("a", 1, 3s);
    CHECK(i.send("a", 4, 3s) == 4);
    i.d.unsettled("a", 1); // the name is another's by now
    CHECK(i.send("a", 5, 3s) == 4);
}

TEST_CASE("deduplication: a window without end, and one that begins late, do not overflow") {
    ids i(duration::max(), false);
    CHECK(i.send("a", 1, 5s) == 1);
    CHECK(i.send("a", 2, duration::max() - 1ns) == 1);
}

TEST_CASE("deduplication: ids are kept whole: those that begin alike, or are empty but for a zero byte, differ") {
    ids i(10s, false);
    CHECK(i.send("a", 1, 0s) == 1);
    CHECK(i.send(std::string("a\0", 2), 2, 0s) == 2);
    CHECK(i.send(std::string(1, '\0'), 3, 0s) == 3);
    CHECK(i.send(std::string(100'000, 'x'), 4, 0s) == 4);
    CHECK(i.send(std::string(100'000, 'x'), 5, 0s) == 4);
}
