// Files of segments that are done with: kept to be written over, so many and no more, and given back.
#include "support/stored.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

using mailroom::durability;
using mailroom::errc;
using mailroom::testing::simulated_files;
using support::simulated_journal;

namespace {

constexpr std::size_t segment = 64 << 10;

struct home {
    mailroom::testing::manual_clock clock{std::chrono::hours(1)};
    simulated_files disk;
    mailroom::journal_options options;
    std::optional<simulated_journal> journal;
    std::optional<mailroom::queue<std::string, simulated_journal>> queue;

    explicit home(unsigned spares, durability d = durability::none) {
        options.durability = d;
        options.segment_bytes = segment;
        options.clock = &clock;
        options.spare_segments = spares;
        open();
    }
    void open() {
        journal.emplace("j", options, disk);
        queue.emplace(*journal, "letters");
    }
    void reopen() {
        queue.reset();
        journal.reset();
        open();
    }
    /// So many segments full of messages are sent, then received.
    void burst(unsigned segments) {
        const std::string body(1000, 'x');
        std::size_t n = 0;
        for (std::size_t bytes = 0; bytes < segments * segment; bytes += body.size(), ++n) { queue->send(body); }
        std::size_t got = 0;
        while (const std::size_t some = queue->pop_each([&](const std::string& b) { CHECK(b == body); }, 1000)) { got += some; }
        CHECK(got == n);
    }
    /// Sends and receives one by one until so many segments have been written.
    void trickle(unsigned segments) {
        const std::string body(1000, 'y');
        for (std::size_t bytes = 0; bytes < segments * segment; bytes += body.size()) {
            queue->send(body);
            CHECK(**queue->try_pop() == body);
        }
    }
    std::size_t count(const char* what) const {
        const auto files = disk.files();
        return static_cast<std::size_t>(std::count_if(files.begin(), files.end(), [&](const std::string& f) { return f.find(what) != std::string::npos; }));
    }
    std::size_t spares() const { return count("/spare"); }
};

} // namespace

TEST_CASE("journal space: a burst leaves as many files to be written over as was asked for, and compact gives back all but one") {
    for (const unsigned most : {0u, 1u, 3u, 64u}) {
        CAPTURE(most);
        home h(most);
        h.burst(12);
        h.trickle(4); // space is given back by who goes on
        CHECK(h.spares() <= most);
        if (most >= 3) { CHECK(h.spares() >= 3); }
        if (most == 64) { CHECK(h.spares() > 6); }
        CHECK(h.count(".log") < 8);
        h.journal->compact();
        CHECK(h.spares() <= 1);
        h.burst(2);
        h.reopen();
        h.burst(2);
    }
}

TEST_CASE("journal space: what is there to be written over is, before anything new is made") {
    home h(8);
    h.burst(12);
    h.trickle(4);
    const std::size_t before = h.spares(), logs = h.count(".log");
    REQUIRE(before >= 4);
    const std::string body(1000, 'z'); // nobody receives it: nothing more is given back
    std::size_t n = 0;
    for (; h.spares() > 0 && n < 10'000; ++n) { h.queue->send(body); }
    CHECK(h.spares() == 0);
    CHECK(h.count(".log") == logs + before);
    h.reopen();
    std::size_t got = 0;
    while (const std::size_t some = h.queue->pop_each([&](const std::string& b) { CHECK(b == body); }, 1000)) { got += some; }
    CHECK(got == n); // what lay there before is nowhere
}

TEST_CASE("journal space: who opens it and wants fewer has fewer; who only reads changes nothing") {
    home h(6);
    h.burst(12);
    h.trickle(4);
    const std::size_t before = h.spares();
    REQUIRE(before > 2);
    h.queue.reset();
    h.journal.reset();
    h.options.spare_segments = 0;
    h.options.on_damage = mailroom::on_damage::read_only;
    h.open();
    CHECK(h.spares() == before);
    h.queue.reset();
    h.journal.reset();
    h.options.on_damage = mailroom::on_damage::refuse;
    h.options.spare_segments = 2;
    h.open();
    CHECK(h.spares() == 2);
    h.options.spare_segments = 65;
    h.queue.reset();
    h.journal.reset();
    try {
        simulated_journal j("j", h.options, h.disk);
        FAIL("there is no place to note so many");
    } catch (const mailroom::error& e) { CHECK(e.kind() == errc::invalid); }
}

TEST_CASE("journal space: a full disk takes what is kept to be written over, all but one") {
    home h(16, durability::commit);
    h.burst(12);
    h.trickle(4);
    REQUIRE(h.spares() > 4);
    h.queue->send("before");
    std::size_t used = 0;
    for (const std::string& f : h.disk.files()) { used += h.disk.contents(f).size(); }
    h.disk.capacity(used + 100); // a new file does not fit any more
    const std::string body(1000, 'f');
    std::size_t taken = 0, refused = 0;
    for (int i = 0; i < 3000; ++i) {
        try {
            h.queue->send(body);
            ++taken;
        } catch (const mailroom::error& e) {
            CHECK(e.kind() == errc::io);
            ++refused;
        }
    }
    CHECK(taken > 4 * segment / 1100); // into files that were there
    CHECK(refused > 0);
    CHECK(h.spares() <= 1);
    h.disk.capacity(std::numeric_limits<std::uint64_t>::max());
    h.reopen();
    CHECK(**h.queue->try_pop() == "before");
    std::size_t got = 0;
    while (const std::size_t some = h.queue->pop_each([&](const std::string& b) { CHECK(b == body); }, 1000)) { got += some; }
    CHECK(got >= taken);
    CHECK(got <= taken + refused);
}
