#include <mailroom/store/recorded.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using namespace mailroom::detail;
using mailroom::duration;
using mailroom::errc;
using mailroom::failure;
using mailroom::offset;
using mailroom::time_point;

namespace {

// A link to a journal that is made up: it says what it is told to, and notes what is asked of it.
class made_up_link final : public link_base {
public:
    made_up_link() { changes_ = &noted; }
    change_log noted{1};
    std::map<offset, trial> tries;
    std::size_t told = 0, pushes = 0, pending = 0;
    bool can_write = true;
    failure met{errc{}};
    std::vector<offset> suspected;

    bool has_pending() noexcept override { return pending != 0; }
    bool push() noexcept override {
        ++pushes;
        return can_write && pending-- != 0;
    }
    const trial* was_tried(offset o) const noexcept override {
        const auto at = tries.find(o);
        return at != tries.end() ? &at->second : nullptr;
    }
    std::array<std::uint64_t, 4> done_before() const noexcept override { return {1, 20, 300, 4000}; }
    bool suspects(offset o) const noexcept override { return std::find(suspected.begin(), suspected.end(), o) != suspected.end(); }
    failure damage_met() noexcept override {
        damaged_ = false;
        return std::exchange(met, failure(errc{}));
    }
    void meet(failure f) {
        met = std::move(f);
        damaged_ = true;
    }

    // Nobody asks for these here.
    placed place(shipment&, const admission&, ticket*) override { return {}; }
    void wait(ticket&) noexcept override {}
    bool commits() const noexcept override { return false; }
    offset placed_until() noexcept override { return 0; }
    void push_settlements() noexcept override {}
    pending_outcome* promise(shipment*, const admission&, placed&, offset, bool, const std::string&, std::size_t) override { return nullptr; }
    settler_home home() noexcept override { return {}; }
    void add_to(parcel&, const shipment&) override {}
    std::vector<std::pair<std::string, offset>> in_doubt() override { return {}; }
    void hold_in_doubt(const std::string&, undecided&) override {}
    bool was_settled(offset) const noexcept override { return false; }
    std::uint64_t were_settled(offset, offset) const noexcept override { return 0; }
    offset tried_until() const noexcept override { return 0; }
    offset floor() const noexcept override { return 0; }
    watched times_before() const noexcept override { return {}; }
    void note_deliveries(bytes_view) noexcept override {}
    void moved(const std::vector<offset>&, offset, offset) noexcept override {}
    void retain_from(offset) noexcept override {}
    void retain_also(retention_rule&) noexcept override {}
    offset first_stored() noexcept override { return 0; }
    void each_properties(offset, offset, const std::function<void(offset, const mailroom::properties&)>&) override {}
    void refused(const refusals&) noexcept override {}
    bool handle_gone(void*) noexcept override { return false; }
    void leave() noexcept override {}

private:
    void tell() noexcept override { ++told; }
};

// What was noted of one message.
std::pair<offset, trial> the_trial(change_log& noted) {
    std::vector<std::byte> steps;
    noted.collect(steps);
    wire_reader from(steps);
    REQUIRE(static_cast<change>(from.var()) == change::tried);
    const offset o = from.var();
    trial t = trial::read(from);
    CHECK(from.at_end());
    return {o, t};
}

} // namespace

TEST_CASE("recorded: times go to the wall clock's count and back") {
    for (const std::int64_t n : {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, std::int64_t{1'700'000'000'123'456'789}}) {
        CHECK(wall_count(wall_point(n)) == n);
    }
    CHECK(wall_count(time_point(1s)) == 1'000'000'000);
}

TEST_CASE("recorded: what became of a message is noted, and taken up again after the next opening, on another clock") {
    made_up_link link;
    mailroom::testing::manual_clock before(100s);
    const timing times(&before);
    entry e;
    e.offset = 9;
    e.attempt = 3;
    e.expires = 160s;
    e.history = std::make_unique<obituary>(obituary{"why", times.wall(90s), times.wall(99s)});
    e.where = entry::place::parked;
    record_fate(link, times, e, cursor_host::fate::tried, 130s);
    const auto [place, t] = the_trial(link.noted);
    CHECK(place == 9);
    CHECK(link.told == 1);
    CHECK_FALSE(t.dead);

    link.tries[9] = t;
    mailroom::testing::manual_clock after(5s);
    // The same moment of the wall clock: 100 s of the one are 5 s of the other.
    const timing later(&after);
    const duration shift = later.at(times.wall(100s));
    entry again;
    again.offset = 9;
    again.due = 3s;
    bool dead = true;
    duration when{};
    REQUIRE(recall_fate(link, later, again, dead, when));
    CHECK_FALSE(dead);
    CHECK(again.attempt == 3);
    CHECK(again.due == duration::min());
    CHECK(when == shift + 30s);
    CHECK(again.expires == shift + 60s);
    REQUIRE(again.history);
    CHECK(again.history->reason == "why");
    CHECK(again.history->first_failure == times.wall(90s));
    CHECK(again.history->last_failure == times.wall(99s));
}

TEST_CASE("recorded: a dead one is dead again; one that never failed has no history; of others nothing is known") {
    made_up_link link;
    mailroom::testing::manual_clock clock(100s);
    const timing times(&clock);
    entry e;
    e.offset = 4;
    e.attempt = 1;
    e.where = entry::place::dead;
    record_fate(link, times, e, cursor_host::fate::tried, mailroom::clock::never);
    link.tries[4] = the_trial(link.noted).second;
    entry plain;
    plain.offset = 5;
    plain.where = entry::place::ready;
    record_fate(link, times, plain, cursor_host::fate::tried, 0s);
    link.tries[5] = the_trial(link.noted).second;

    bool dead = false;
    duration when = 1s;
    entry again;
    again.offset = 4;
    CHECK(recall_fate(link, times, again, dead, when));
    CHECK(dead);
    CHECK(again.history);
    CHECK(when == 1s); // nothing was said of it
    CHECK(again.expires == duration::max());
    again = entry();
    again.offset = 5;
    CHECK(recall_fate(link, times, again, dead, when));
    CHECK_FALSE(dead);
    CHECK_FALSE(again.history);
    again = entry();
    again.offset = 6;
    again.due = 7s;
    CHECK_FALSE(recall_fate(link, times, again, dead, when));
    CHECK(again.due == 7s);
}

TEST_CASE("recorded: settled and revived are noted as such") {
    made_up_link link;
    mailroom::testing::manual_clock clock;
    const timing times(&clock);
    entry e;
    e.offset = 12;
    record_fate(link, times, e, cursor_host::fate::settled, 0s);
    record_fate(link, times, e, cursor_host::fate::revived, 0s);
    std::vector<std::byte> steps;
    link.noted.collect(steps);
    wire_reader from(steps);
    CHECK(static_cast<change>(from.var()) == change::settled);
    CHECK(from.var() == 12);
    CHECK(from.var() == 1);
    CHECK(static_cast<change>(from.var()) == change::revived);
    CHECK(from.var() == 12);
    CHECK(from.at_end());
}

TEST_CASE("recorded: what a cursor did before counts") {
    const made_up_link link;
    mailroom::stats s;
    s.acked = 5;
    add_before(&link, s);
    CHECK(s.acked == 6);
    CHECK(s.redelivered == 20);
    CHECK(s.expired == 300);
    CHECK(s.dropped == 4000);
    add_before(nullptr, s);
    CHECK(s.acked == 6);
}

TEST_CASE("recorded: who finds nothing commits what is on its way, and looks again; of damage he hears when there is nothing else") {
    made_up_link link;
    std::vector<std::size_t> finds;
    const auto take = [&] { return finds.empty() ? 0 : std::exchange(finds, {finds.begin() + 1, finds.end()}).front(); };
    CHECK(from_journal(link, take) == 0);
    CHECK(link.pushes == 0); // there was nothing on its way

    finds = {3};
    link.pending = 1;
    link.meet(failure(errc::corrupt, "a message is lost"));
    CHECK(from_journal(link, take) == 3);
    CHECK(link.pushes == 0);

    finds = {0};
    CHECK_THROWS_AS(from_journal(link, take), mailroom::error);
    finds = {0, 0, 2};
    link.pending = 2;
    CHECK(from_journal(link, take) == 2);
    CHECK(link.pushes == 2);
    link.pending = 1;
    link.can_write = false;
    CHECK(from_journal(link, take) == 0);
}

TEST_CASE("recorded: only deliveries that may be of what killed the process are noted before") {
    made_up_link link;
    link.suspected = {7};
    std::vector<std::byte> steps;
    note_suspect(link, 6, 1, steps);
    CHECK(steps.empty());
    note_suspect(link, 7, 2, steps);
    wire_reader from(steps);
    CHECK(from.var() == 7);
    CHECK(from.var() == 2);
    CHECK(from.at_end());
}
