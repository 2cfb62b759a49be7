// The power is cut, or the process killed, at every call to the disk: what was promised is there, once, in order, and goes on from there.
#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/crash_explorer.hpp>

#include "support/journal_oracle.hpp"
#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using mailroom::durability;
using mailroom::testing::crash_explorer;
using mailroom::testing::crash_options;
using mailroom::testing::crash_point;
using mailroom::testing::loss;
using mailroom::testing::manual_clock;
using support::disk;
using support::oracle;
using support::parcel;
using support::parcel_id;
using support::sim_journal;
using support::sim_queue;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t queues = 3;

// What a history does, and what is known of it outside.
struct notes {
    std::vector<oracle> of;
    unsigned lives = 0;
};

struct history {
    const char* name;
    mailroom::durability promise;
    std::size_t steps;
    unsigned sends; // of a hundred steps
    unsigned large; // of a hundred messages: some KiB
    bool tidies;    // compacts, flushes
};

// One life of a process, by its seed: sends in every way, receives, acknowledges, fails, rejects, waits.
class life {
public:
    life(const history& h, disk files, notes& n, std::uint64_t seed)
        : history_(h), notes_(n), chance_(seed + n.lives * 7919), journal_("data", options(h, clock_), std::move(files)) {
        support::open_well(journal_);
        if (n.of.empty()) { n.of.assign(queues, oracle(h.promise)); }
        ++n.lives;
        for (oracle& o : n.of) { o.begins(); }
        for (std::size_t i = 0; i < queues; ++i) { queues_.emplace_back(journal_, "queue " + std::to_string(i), options()); }
    }
    static mailroom::journal_options options(const history& h, manual_clock& c) {
        return {.durability = h.promise, .segment_bytes = 64 << 10, .clock = &c};
    }
    static mailroom::queue_options<std::string> options() { return {.lease = 0s, .retry = {.max_attempts = 0, .initial = 1s}}; }

    void run() {
        for (std::size_t i = 0; i < history_.steps; ++i) {
            step();
            note_receipts();
        }
    }

private:
    struct promised {
        std::size_t queue;
        unsigned id;
        mailroom::receipt outcome;
    };

    void step() {
        const std::size_t which = chance_.below(queues);
        sim_queue& q = queues_[which];
        oracle& o = notes_.of[which];
        if (chance_.percent(history_.sends)) {
            send(which, q, o);
        } else if (history_.tidies && chance_.percent(5)) {
            if (chance_.percent(50)) {
                journal_.flush();
                for (oracle& one : notes_.of) { one.flushed(); }
            } else {
                journal_.compact();
                for (oracle& one : notes_.of) { one.flushed(); }
            }
        } else if (chance_.percent(5)) {
            clock_.advance(1s * chance_.below(20));
        } else if (chance_.percent(8)) {
            mourn(q, o);
        } else {
            receive(q, o);
        }
    }
    std::string body(unsigned id) { return parcel(id, chance_.percent(history_.large) ? 1500 + chance_.below(9000) : chance_.below(200)); }
    void send(std::size_t which, sim_queue& q, oracle& o) {
        unsigned id = o.last() + 1;
        switch (chance_.below(8)) {
        case 0: {
            std::vector<std::string> some;
            const unsigned first = id;
            for (unsigned i = 0, n = 2 + chance_.below(3); i < n; ++i, ++id) {
                o.sends(id, first);
                some.push_back(parcel(id, 100 + chance_.below(2000)));
            }
            const mailroom::offset at = q.send_many(std::move(some));
            for (unsigned i = first; i < id; ++i) { o.accepted(i, at + (i - first)); }
            committed();
            return;
        }
        case 1:
            o.sends(id);
            receipts_.push_back({which, id, q.send_async(body(id))});
            return;
        case 2: {
            o.sends(id);
            mailroom::properties p{.key = "k" + std::to_string(id % 3), .delay = 1s * chance_.below(5)};
            p.headers["n"] = static_cast<std::int64_t>(id);
            o.accepted(id, q.send(body(id), p));
            committed();
            return;
        }
        default:
            o.sends(id);
            o.accepted(id, q.send(body(id)));
            committed();
        }
    }
    void committed() {
        for (oracle& o : notes_.of) { o.committed(); }
    }
    // What was sent before something that has been committed, has been as well: but the receipt is what says so.
    void note_receipts() {
        std::erase_if(receipts_, [&](promised& p) {
            if (!p.outcome.ready()) { return false; }
            notes_.of[p.queue].accepted(p.id, p.outcome.wait());
            return true;
        });
    }
    void receive(sim_queue& q, oracle& o) {
        auto d = q.try_receive();
        if (!d) { return; }
        const unsigned id = parcel_id(d->body());
        if (!o.fates.contains(id)) { throw std::runtime_error("received what was never sent"); }
        switch (chance_.below(10)) {
        case 0: d->nack(1s * chance_.below(10)); break;
        case 1: d->release(); break;
        case 2:
            o.buries(id);
            d->reject("it is no good");
            break;
        case 3:
            o.settles(id);
            d->ack_async().wait();
            committed();
            break;
        default: o.settles(id); d->ack();
        }
    }
    void mourn(sim_queue& q, oracle& o) {
        auto d = q.dead().try_receive();
        if (!d) { return; }
        const unsigned id = parcel_id(d->body());
        if (chance_.percent(50)) {
            o.settles(id);
            d->ack();
        } else {
            d->release();
            o.revives(id);
            q.dead().redrive_if([&](const auto& dead) { return parcel_id(dead.body()) == id; });
        }
    }

    const history& history_;
    notes& notes_;
    support::dice chance_;
    manual_clock clock_;
    sim_journal journal_;
    std::vector<sim_queue> queues_;
    std::vector<promised> receipts_;
};

// What a crash left half made or half removed has gone with the opening.
void no_orphans(const disk& files, std::uint64_t segments) {
    const auto names = files.files();
    const auto has = [&](const std::string& name) { return std::binary_search(names.begin(), names.end(), name); };
    std::uint64_t logs = 0;
    for (const std::string& name : names) {
        logs += name.ends_with(".log") || name.ends_with(".srv") ? 1 : 0;
        const bool lonely = name.ends_with(".idx") && !has(name.substr(0, name.size() - 4) + ".log");
        if (lonely || name.ends_with(".new")) { throw std::runtime_error("an orphan: " + name); }
    }
    if (logs != segments) { throw std::runtime_error(std::to_string(logs) + " files of segments for " + std::to_string(segments)); }
}

// After the crash: what is there is what the oracle allows, and everything goes on, also after one more opening.
void check(const history& h, const disk& files, const notes& n, const crash_point& p, bool whole) {
    const bool power = p.what != loss::nothing;
    std::vector<std::vector<unsigned>> left(queues);
    {
        manual_clock clock;
        sim_journal j("data", life::options(h, clock), files);
        no_orphans(files, j.recovered().segments);
        support::open_well(j);
        std::vector<sim_queue> all;
        for (std::size_t i = 0; i < queues; ++i) {
            all.emplace_back(j, "queue " + std::to_string(i), life::options());
            const auto found = support::look_into(all.back());
            if (!n.of.empty()) { n.of[i].check(found, power); }
            for (const auto& [at, id] : found.alive) { left[i].push_back(id); }
        }
        support::verify_well(j);
        if (!whole) { return; }
        for (std::size_t i = 0; i < queues; ++i) {
            all[i].send(parcel(1'000'000, 3000));
            left[i].push_back(1'000'000);
        }
        clock.advance(24h);
        for (std::size_t i = 0; i < queues; i += 2) { // one queue is left as it is
            std::vector<unsigned> got;
            while (auto d = all[i].try_receive()) {
                got.push_back(parcel_id(d->body()));
                d->ack();
            }
            std::sort(got.begin(), got.end());
            if (got != left[i]) {
                throw std::runtime_error("after the crash " + std::to_string(got.size()) + " of " + std::to_string(left[i].size()) +
                                         " were received");
            }
            left[i].clear();
        }
        j.flush();
    }
    manual_clock clock;
    sim_journal j("data", life::options(h, clock), files);
    if (!j.recovered().clean) { throw std::runtime_error("not clean after it was closed"); }
    for (std::size_t i = 0; i < queues; ++i) {
        sim_queue q(j, "queue " + std::to_string(i), life::options());
        std::vector<unsigned> there;
        for (const auto& [at, id] : support::look_into(q).alive) { there.push_back(id); }
        if (there != left[i]) {
            throw std::runtime_error("after the second opening " + std::to_string(there.size()) + " are there, not " +
                                     std::to_string(left[i].size()));
        }
    }
}

void explore(const history& h, std::uint64_t seed, const crash_options& o) {
    CAPTURE(std::string(h.name));
    CAPTURE(seed);
    unsigned checks = 0;
    const auto found =
        crash_explorer(o).explore<notes>([&](disk files, notes& n) { life(h, std::move(files), n, seed).run(); },
                                         [&](disk files, const notes& n, const crash_point& p) { check(h, files, n, p, ++checks % 4 == 0); });
    INFO(found.text());
    CHECK(found.passed);
    CHECK(found.calls > h.steps / 4);
}

// Few and small; some KiB, so that segments follow each other; mostly settled, so that space is given back.
constexpr history histories[] = {
    {"small", durability::commit, 40, 50, 10, true},
    {"rotating", durability::commit, 90, 60, 80, false},
    {"tidy", durability::commit, 160, 45, 80, true},
    {"written", durability::write, 90, 55, 70, true},
    {"gathered", durability::none, 90, 55, 70, true},
    {"written, never flushed", durability::write, 90, 60, 80, false},
    {"gathered, never flushed", durability::none, 120, 60, 80, false},
};

} // namespace

TEST_CASE("journal crashes: whatever call is the last, what was promised is there, once, in order") {
    for (const history& h : histories) {
        support::for_each_seed(2, [&](std::uint64_t seed) {
            explore(h, seed, {.limit = support::scaled(60), .seed = seed});
            return true;
        });
    }
}

TEST_CASE("journal crashes: at every call of a small history") {
    for (const durability d : {durability::commit, durability::write, durability::none}) {
        const history h{"small", d, 30, 55, 50, true};
        explore(h, 1, {.random_losses = 3, .tail_losses = 2});
    }
}

TEST_CASE("journal crashes: once more while it recovers, or soon after") {
    for (const std::size_t i : {0u, 1u, 2u}) {
        support::for_each_seed(1, [&](std::uint64_t seed) {
            explore(histories[i], seed, {.limit = support::scaled(15), .seed = seed, .random_losses = 1, .lives = 2});
            explore(histories[i], seed, {.limit = support::scaled(3), .seed = seed, .random_losses = 1, .lives = 3});
            return true;
        });
    }
}

namespace {

// What a scenario of its own notes: one queue.
struct one_queue {
    oracle o;
    std::map<unsigned, mailroom::offset> first_answer;
};
mailroom::journal_options small_segments(manual_clock& c) { return {.segment_bytes = 64 << 10, .clock = &c}; }

} // namespace

TEST_CASE("journal crashes: what is sent again with its id is there once") {
    const mailroom::queue_options<std::string> once{.retry = {.max_attempts = 0}, .deduplicate = {.window = 1h}};
    const auto program = [&](disk files, one_queue& n) {
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q", once);
        n.o.begins();
        std::uint64_t duplicates = q.statistics().duplicates;
        for (unsigned id = 1; id <= 24; ++id) { // each life sends the same
            if (!n.o.fates.contains(id)) { n.o.sends(id); }
            const mailroom::offset at = q.send(parcel(id, 6000), {.id = "order " + std::to_string(id)});
            const auto [known, fresh] = n.first_answer.emplace(id, at);
            if (!fresh && known->second != at) { throw std::runtime_error("a duplicate got an offset of its own"); }
            n.o.accepted(id, at);
            if (std::exchange(duplicates, q.statistics().duplicates) == q.statistics().duplicates) { n.o.committed(); }
            if (id % 2 == 0) {
                if (auto d = q.try_receive()) {
                    n.o.settles(parcel_id(d->body()));
                    d->ack();
                }
            }
            if (id == 16) {
                j.compact();
                n.o.flushed();
            }
        }
    };
    const auto check = [&](disk files, const one_queue& n) {
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q", once);
        n.o.check(support::look_into(q));
    };
    const auto found =
        crash_explorer({.limit = support::scaled(40), .seed = support::seed(), .random_losses = 1, .lives = 2}).explore<one_queue>(program, check);
    INFO(found.text());
    CHECK(found.passed);
}

TEST_CASE("journal crashes: of one key the order holds, whatever failed before") {
    const mailroom::queue_options<std::string> keyed{.retry = {.max_attempts = 0, .initial = 10s}, .ordered_by_key = true};
    const auto program = [&](disk files, one_queue& n) {
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q", keyed);
        n.o.begins();
        for (unsigned id = 1; id <= 9; ++id) {
            n.o.sends(id);
            n.o.accepted(id, q.send(parcel(id, 50), {.key = std::to_string(id % 3)}));
            n.o.committed();
            if (id > 3) {
                if (auto d = q.try_receive()) {
                    if (id % 2 == 0) {
                        d->nack();
                    } else {
                        n.o.settles(parcel_id(d->body()));
                        d->ack();
                    }
                }
            }
        }
        j.flush();
        n.o.flushed();
    };
    const auto check = [&](disk files, const one_queue& n) {
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q", keyed);
        const auto there = support::look_into(q);
        n.o.check(there);
        unsigned last[3] = {};
        std::size_t got = 0;
        for (unsigned i = 0; i < 20; ++i) {
            while (auto d = q.try_receive()) {
                const unsigned id = parcel_id(d->body());
                if (id <= last[id % 3]) {
                    throw std::runtime_error(std::to_string(id) + " came after " + std::to_string(last[id % 3]) + ", of one key");
                }
                last[id % 3] = id;
                ++got;
                d->ack();
            }
            clock.advance(10s);
        }
        if (got != there.alive.size()) { throw std::runtime_error("not all came"); }
    };
    const auto found = crash_explorer().explore<one_queue>(program, check);
    INFO(found.text());
    CHECK(found.passed);
}

TEST_CASE("journal crashes: what was purged stays so, what waited goes on waiting, and what has expired is dead") {
    const auto program = [&](disk files, one_queue& n) {
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q");
        n.o.begins();
        for (unsigned id = 1; id <= 5; ++id) {
            n.o.sends(id);
            n.o.accepted(id, q.send(parcel(id, 100)));
        }
        for (unsigned id = 1; id <= 5; ++id) { n.o.settles(id); }
        if (q.purge() != 5) { throw std::runtime_error("not all were purged"); }
        n.o.sends(6);
        n.o.accepted(6, q.send(parcel(6, 100), {.delay = 1h}));
        n.o.committed();
        n.o.sends(7);
        n.o.buries(7);
        n.o.accepted(7, q.send(parcel(7, 100), {.time_to_live = 1min}));
        n.o.fates.at(7).buried_in = 0; // nobody knows when
        clock.advance(2min);
        if (q.try_receive()) { throw std::runtime_error("there is something"); }
        j.flush();
        n.o.flushed();
    };
    const auto check = [&](disk files, const one_queue& n) {
        manual_clock clock(10min);
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q");
        n.o.check(support::look_into(q));
        if (n.o.fates.contains(7) && n.o.fates.at(7).safe[0]) {
            if (q.try_receive()) { throw std::runtime_error("what is delayed, or has expired, is handed out"); }
            clock.advance(51min);
            auto d = q.try_receive();
            if (!d || parcel_id(d->body()) != 6) { throw std::runtime_error("what was delayed does not come"); }
            if (q.statistics().dead != 1) { throw std::runtime_error("what has expired is not dead"); }
        }
    };
    const auto found = crash_explorer().explore<one_queue>(program, check);
    INFO(found.text());
    CHECK(found.passed);
}

TEST_CASE("journal crashes: on a disk that is full, and gets room again") {
    const auto program = [&](disk files, one_queue& n) {
        files.capacity(250'000);
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        sim_queue q(j, "q");
        n.o.begins();
        for (unsigned id = 1; id <= 90; ++id) {
            n.o.sends(id);
            try {
                n.o.accepted(id, q.send(parcel(id, 4000 + id % 5 * 700)));
                n.o.committed();
                continue;
            } catch (const mailroom::error&) {
                if (files.is_off()) { throw; }
            }
            n.o.refused(id);
            while (auto d = q.try_receive()) { // all but the first are done
                const unsigned got = parcel_id(d->body());
                if (n.o.fates.at(got).sent == oracle::fate::refused) { throw std::runtime_error("received what was refused"); }
                if (got == 1) {
                    d->nack(24h);
                } else {
                    n.o.settles(got);
                    d->ack();
                }
            }
        }
    };
    const auto check = [&](disk files, const one_queue& n, const crash_point& p) {
        files.clear_faults();
        manual_clock clock;
        sim_journal j("data", small_segments(clock), files);
        support::open_well(j);
        no_orphans(files, j.recovered().segments);
        sim_queue q(j, "q");
        n.o.check(support::look_into(q), p.what != loss::nothing);
    };
    const auto found = crash_explorer({.limit = support::scaled(80), .seed = support::seed()}).explore<one_queue>(program, check);
    INFO(found.text());
    CHECK(found.passed);
}
