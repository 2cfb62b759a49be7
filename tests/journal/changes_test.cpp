#include <mailroom/journal/changes.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace {

using mailroom::offset;
using mailroom::detail::change;
using mailroom::detail::change_log;
using mailroom::detail::change_source;
using mailroom::detail::refusal_log;
using mailroom::detail::refusals;
using mailroom::detail::trial;
using mailroom::detail::wire_reader;
using mailroom::detail::wire_writer;
using bytes = std::vector<std::byte>;

bytes collected(change_source& from) {
    bytes steps;
    from.collect(steps);
    return steps;
}
// What steps say, in words.
std::string read(const bytes& steps) {
    std::string text;
    const auto number = [&](wire_reader& from) { text += ' ' + std::to_string(from.var()); };
    for (wire_reader from(steps); !from.at_end(); text += "; ") {
        switch (static_cast<change>(from.var())) {
        case change::settled: text += "settled", number(from), number(from); break;
        case change::tried: {
            text += "tried", number(from);
            const trial t = trial::read(from);
            text += " attempt " + std::to_string(t.attempt) + (t.dead ? " dead " : " ") + t.reason;
            break;
        }
        case change::revived: text += "revived", number(from); break;
        case change::counted: text += "counted", number(from), number(from), number(from); break;
        case change::moved: {
            text += "moved", number(from);
            for (std::uint64_t n = from.var(); n != 0; --n) { text += ",", number(from), number(from); }
            break;
        }
        default: return text + "?";
        }
    }
    return text;
}
std::string told(change_log& by) { return read(collected(by)); }

} // namespace

TEST_CASE("changes: what failed is written and read back, field by field") {
    const trial t{
        .attempt = 0xffff'ffff, .dead = true, .due = -1, .expires = INT64_MAX, .first_failure = INT64_MIN, .last_failure = 7, .reason = "why"};
    bytes written;
    wire_writer to(written);
    t.write(to);
    wire_reader from(written);
    const trial again = trial::read(from);
    CHECK(from.at_end());
    CHECK(again.attempt == t.attempt);
    CHECK(again.dead);
    CHECK(again.due == t.due);
    CHECK(again.expires == t.expires);
    CHECK(again.first_failure == t.first_failure);
    CHECK(again.last_failure == t.last_failure);
    CHECK(again.reason == t.reason);
    for (std::size_t n = 0; n < written.size(); ++n) { // cut short
        wire_reader cut(mailroom::detail::bytes_view(written).first(n));
        CHECK_THROWS_AS(trial::read(cut), mailroom::error);
    }
}

TEST_CASE("changes: what is settled in a row is one step; anything else begins another") {
    change_log log(3);
    CHECK(log.cursor() == 3);
    CHECK(told(log) == "");
    log.settled(1, 1);
    log.settled(2, 3);
    log.settled(5, 1);
    CHECK(told(log) == "settled 1 5; ");
    CHECK(told(log) == "");
    log.settled(6, 1); // in a row, but the last steps were taken
    log.settled(8, 1);
    log.settled(7, 1);
    log.tried(20, {.attempt = 2, .reason = "no"});
    log.settled(8, 1);
    log.revived(20);
    log.settled(9, 1);
    CHECK(told(log) == "settled 6 1; settled 8 1; settled 7 1; tried 20 attempt 2 no; settled 8 1; revived 20; settled 9 1; ");
}

TEST_CASE("changes: the journal is told once, until it has looked") {
    change_log log(1);
    CHECK(log.settled(1, 1));
    CHECK_FALSE(log.settled(2, 1));
    CHECK_FALSE(log.tried(4, {}));
    CHECK(log.dirty);
    log.dirty = false; // as the journal does before it collects
    CHECK(log.revived(4));
    CHECK_FALSE(log.moved(5, {}));
    log.dirty = false;
    CHECK(log.moved(6, {}));
}

TEST_CASE("changes: what a record settled already is not noted again, once") {
    change_log log(1);
    log.is_written(5);
    log.is_written(7);
    CHECK_FALSE(log.settled(5, 1));
    CHECK_FALSE(log.dirty);
    CHECK(told(log) == "");
    CHECK(log.settled(5, 1));
    CHECK(told(log) == "settled 5 1; ");
    log.settled(7, 2); // several: which says the same twice, and harms nobody
    CHECK(told(log) == "settled 7 2; ");
    CHECK_FALSE(log.settled(7, 1));
    CHECK(told(log) == "");
}

TEST_CASE("changes: who was moved has settled what it says, and what was written before counts no more") {
    change_log log(1);
    log.settled(1, 1);
    log.is_written(9);
    log.moved(4, {{6, 8}, {10, 11}});
    log.settled(9, 1);
    CHECK(told(log) == "settled 1 1; moved 4, 6 8, 10 11; settled 9 1; ");
}

TEST_CASE("changes: what could not be written comes first the next time") {
    change_log log(1);
    log.settled(1, 2);
    const bytes lost = collected(log);
    log.settled(3, 1);
    log.give_back(lost);
    CHECK(told(log) == "settled 1 2; settled 3 1; ");
}

TEST_CASE("changes: of what is counted the journal gets what is new") {
    using counts = std::array<std::uint64_t, 3>;
    counts now{0, 0, 0};
    change_log log(1);
    log.count_by([](const void* of) noexcept { return *static_cast<const counts*>(of); }, &now);
    CHECK(told(log) == "");
    now = {2, 0, 1};
    CHECK(told(log) == "counted 2 0 1; ");
    CHECK(told(log) == "");
    now = {2, 5, 1};
    log.settled(1, 1);
    CHECK(told(log) == "settled 1 1; counted 0 5 0; ");
}

TEST_CASE("changes: what a stream refused is given once, and again if it was not written") {
    refusal_log log(7);
    CHECK(log.number() == 7);
    CHECK(log.is_of_stream());
    const auto given = [&log] {
        const bytes b = collected(log);
        if (b.empty()) { return refusals(); }
        wire_reader from(b);
        const refusals r = refusals::read(from);
        CHECK(from.at_end());
        return r;
    };
    CHECK(collected(log).empty());
    CHECK(log.refused({.duplicates = 2}));
    CHECK_FALSE(log.refused({.dropped = 300})); // the journal knows that there is something
    const bytes first = collected(log);
    CHECK(collected(log).empty());
    log.dirty = false;
    CHECK(log.refused({.duplicates = 1}));
    log.give_back(first);
    CHECK(given() == refusals{3, 300});
    CHECK(given() == refusals());
    log.dirty = false;
    log.leave();
    CHECK_FALSE(log.refused({.duplicates = 1})); // nobody collects from it any more
}
