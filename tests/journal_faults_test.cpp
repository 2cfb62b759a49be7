// The disk refuses: writes, syncs, room, files; and time and processes misbehave. What was promised stays, what failed never comes back.
#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/simulated_files.hpp>
#include <mailroom/transaction.hpp>

#include "support/journal_oracle.hpp"
#include "support/random.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using mailroom::durability;
using mailroom::errc;
using mailroom::error;
using mailroom::testing::loss;
using mailroom::testing::manual_clock;
using support::disk;
using support::oracle;
using support::parcel;
using support::parcel_id;
using support::sim_journal;
using support::sim_queue;
using namespace std::chrono_literals;
namespace format = mailroom::detail;

namespace {

const auto no_space = std::make_error_code(std::errc::no_space_on_device);
const auto io_error = std::make_error_code(std::errc::io_error);
const auto interrupted = std::make_error_code(std::errc::interrupted);

mailroom::journal_options options(manual_clock& c, durability d = durability::commit) {
    return {.durability = d, .segment_bytes = 64 << 10, .clock = &c};
}

// The sentence of what a call throws; empty where nothing is thrown.
template <class Call>
std::string refusal_of(errc kind, Call call) {
    try {
        call();
    } catch (const error& e) {
        CHECK(e.kind() == kind);
        return e.what();
    }
    return {};
}

std::map<std::string, std::vector<std::byte>> all_of(const disk& files) {
    std::map<std::string, std::vector<std::byte>> all;
    for (const std::string& name : files.files()) { all.emplace(name, files.contents(name)); }
    return all;
}

// What is alive, by a fresh look at the disk.
std::vector<unsigned> ids_of(const support::found_in_queue& found) {
    std::vector<unsigned> ids;
    for (const auto& [at, id] : found.alive) { ids.push_back(id); }
    return ids;
}

// Opens what is left, asks the oracle, and goes on: what is found and what is sent then survives the worst power cut.
std::string what_is_wrong(const disk& files, const oracle& o, bool power) {
    try {
        manual_clock clock;
        std::vector<unsigned> expected;
        {
            sim_journal j("data", options(clock), files);
            if (!j.recovered().damages.empty()) { return "damage: " + j.recovered().damages.front().what; }
            sim_queue q(j, "q");
            const auto found = support::look_into(q);
            o.check(found, power);
            expected = ids_of(found);
            for (unsigned i = 0; i < 3; ++i) {
                q.send(parcel(5000 + i, 4000));
                expected.push_back(5000 + i);
            }
            disk after = files.clone();
            after.power_cut(1, loss::everything);
            sim_journal again("data", options(clock), after);
            sim_queue left(again, "q");
            if (ids_of(support::look_into(left)) != expected) {
                return "what was found after the fault, or sent then, is lost in the next power cut";
            }
        }
        sim_journal j("data", options(clock), files);
        sim_queue q(j, "q");
        if (ids_of(support::look_into(q)) != expected) { return "after closing once more it is not the same"; }
        if (const auto v = j.verify(); !v.intact) { return "verify: " + v.damages.front().what; }
    } catch (const std::exception& e) { return e.what(); }
    return {};
}

struct run_of_sends {
    oracle o;
    unsigned failed = 0;
    bool last_failed = false;
    std::string wrong; // in this process
    std::uint64_t calls = 0;
    disk closed, killed;
};

// Sends 20 messages of some KiB, and acknowledges some, on a disk to which `plan` has done something after the opening.
template <class Plan>
run_of_sends send_some(durability d, Plan plan) {
    run_of_sends r;
    r.o = oracle(d);
    const disk files;
    {
        manual_clock clock;
        sim_journal j("data", options(clock, d), files);
        sim_queue q(j, "q");
        std::set<unsigned> refused;
        std::size_t settled = 0;
        plan(disk(files));
        for (unsigned id = 1; id <= 20; ++id) {
            r.o.sends(id);
            try {
                r.o.accepted(id, q.send(parcel(id, 6000)));
                r.o.committed();
                r.last_failed = false;
            } catch (const error& e) {
                if (e.kind() != errc::io || std::string(e.what()).find("data/") == std::string::npos) {
                    r.wrong = std::string("the error was: ") + e.what();
                }
                refused.insert(id);
                ++r.failed;
                r.last_failed = true;
            }
            if (id % 4 == 0) {
                auto m = q.try_receive();
                if (!m) {
                    if (settled < id - refused.size() && d != durability::none) { r.wrong = "nothing can be received"; }
                    continue;
                }
                ++settled;
                const unsigned got = parcel_id(m->body());
                if (refused.contains(got)) { r.wrong = "received what was refused: " + std::to_string(got); }
                r.o.settles(got);
                if (!m->ack()) { r.wrong = "an ack was refused"; }
            }
        }
        for (const unsigned id : refused) { r.o.refused(id); }
        try {
            r.o.check(support::look_into(q), false); // reading goes on
        } catch (const std::exception& e) { r.wrong = e.what(); }
        r.calls = files.calls();
        r.killed = files.clone();
        r.killed.clear_faults();
        r.killed.process_kill();
    }
    r.closed = files;
    r.closed.clear_faults();
    r.closed.process_kill();
    return r;
}

// Of the batch whose sync failed nobody knows whether it is there.
void forget_refusals(oracle& o) {
    for (auto& [id, f] : o.fates) {
        if (f.sent == oracle::fate::refused) { f.sent = oracle::fate::unknown; }
    }
}

} // namespace

TEST_CASE("journal faults: whichever write fails, its send alone fails, and never comes back") {
    struct kind {
        const char* name;
        std::error_code code;
        std::uint64_t bytes;
    };
    constexpr std::uint64_t all = std::uint64_t{1} << 40;
    const kind kinds[] = {{"no room", no_space, 0},
                          {"no room, half of it written", no_space, 3000},
                          {"input/output error", io_error, 0},
                          {"all of it written", io_error, all},
                          {"interrupted", interrupted, 0}};
    for (const durability d : {durability::commit, durability::write}) {
        const std::uint64_t calls = send_some(d, [](const disk&) {}).calls;
        for (const kind& k : kinds) {
            CAPTURE(std::string(k.name));
            CAPTURE(static_cast<int>(d));
            unsigned failures = 0;
            for (std::uint64_t n = 0, last = 0; n < calls && n < last + 12; ++n) { // until there are no more writes
                CAPTURE(n);
                run_of_sends r = send_some(d, [&](disk files) { files.fail_write(n, k.code, k.bytes); });
                CHECK(r.wrong == "");
                CHECK(r.failed <= (k.code == interrupted ? 0u : 1u));
                failures += r.failed;
                if (r.failed != 0) { last = n; }
                CHECK(what_is_wrong(r.killed.clone(), r.o, false) == "");
                CHECK(what_is_wrong(r.closed, r.o, true) == "");
                if (d == durability::commit) {
                    r.killed.power_cut(n, loss::random);
                    CHECK(what_is_wrong(r.killed, r.o, true) == "");
                }
            }
            CHECK(failures >= (k.code == interrupted ? 0u : 20u)); // each of the sends, once
        }
    }
}

TEST_CASE("journal faults: writes that fail for a while") {
    for (std::uint64_t n = 0; n < 20; ++n) {
        CAPTURE(n);
        const run_of_sends r = send_some(durability::commit, [&](disk files) {
            for (std::uint64_t i = 0; i < 5; ++i) { files.fail_write(n + i, no_space, i * 100); }
        });
        CHECK(r.wrong == "");
        CHECK_FALSE(r.last_failed);
        CHECK(what_is_wrong(r.killed, r.o, false) == "");
        CHECK(what_is_wrong(r.closed, r.o, true) == "");
    }
}

TEST_CASE("journal faults: what was accepted without a promise waits for a write that works") {
    for (std::uint64_t n = 0; n < 12; ++n) {
        for (const std::uint64_t bytes : {0u, 3000u, 100'000u}) {
            CAPTURE(n);
            CAPTURE(bytes);
            run_of_sends r = send_some(durability::none, [&](disk files) {
                files.fail_write(n, no_space, bytes);
                files.fail_write(n + 1, no_space);
            });
            CHECK(r.wrong == "");
            CHECK(r.failed <= 1);
            CHECK(what_is_wrong(r.killed, r.o, false) == ""); // no hole
            r.o.flushed();                                    // it was closed
            CHECK(what_is_wrong(r.closed, r.o, true) == "");
        }
    }
}

TEST_CASE("journal faults: a declaration that failed is none, and can be made again, whatever the durability") {
    for (const durability d : {durability::commit, durability::write, durability::none}) {
        for (std::uint64_t n = 0; n < 4; ++n) {
            CAPTURE(n);
            const disk files;
            manual_clock clock;
            {
                sim_journal j("data", options(clock, d), files);
                sim_queue first(j, "first");
                mailroom::topic<std::string, sim_journal> t(j, "t");
                j.flush();
                disk(files).fail_write(n, io_error);
                for (int tries = 0; tries < 3; ++tries) {
                    try {
                        first.send("something that gathers");
                        sim_queue q(j, "q");
                        auto s = t.subscribe("s");
                        q.send("1");
                        t.publish("2");
                        break;
                    } catch (const error& e) { CHECK(e.kind() == errc::io); }
                }
                j.flush();
                CHECK(first.try_pop());
                CHECK(sim_queue(j, "q").try_pop()->body() == "1");
                CHECK(t.subscribe("s").try_pop()->body() == "2");
            }
            sim_journal j("data", options(clock, d), files);
            CHECK(j.recovered().damages.empty());
            CHECK(sim_queue(j, "q").try_send("3"));
        }
    }
}

TEST_CASE("journal faults: short writes, short reads and interruptions are nobody's business") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        const run_of_sends r = send_some(durability::commit, [&](disk files) {
            files.short_writes(true, seed);
            files.short_reads(true, seed);
        });
        CHECK(r.failed == 0);
        CHECK(r.wrong == "");
        CHECK(what_is_wrong(r.killed, r.o, false) == "");
    }
}

TEST_CASE("journal faults: whichever sync fails, nothing is written any more; what was synced stays readable") {
    for (const durability d : {durability::commit, durability::write}) {
        unsigned failures = 0;
        for (std::uint64_t n = 0; n < 30; ++n) {
            CAPTURE(n);
            CAPTURE(static_cast<int>(d));
            run_of_sends r = send_some(d, [&](disk files) { files.fail_sync(n, io_error); });
            CHECK(r.wrong == "");
            if (d == durability::commit) { CHECK((r.failed == 0 || r.last_failed)); } // one that fails is not the last to fail
            failures += r.failed;
            forget_refusals(r.o);
            CHECK(what_is_wrong(r.killed.clone(), r.o, false) == "");
            CHECK(what_is_wrong(r.closed, r.o, d == durability::commit) == "");
            r.killed.power_cut(n, loss::random);
            CHECK(what_is_wrong(r.killed, r.o, true) == "");
        }
        if (d == durability::commit) { CHECK(failures >= 20 * 19 / 2); }
    }
}

TEST_CASE("journal faults: a disk that is full works again once what is on it is settled") {
    for (const std::uint64_t room : {400'000u, 600'000u, 1'000'000u}) {
        for (const durability d : {durability::commit, durability::write}) {
            CAPTURE(room);
            CAPTURE(static_cast<int>(d));
            const disk files;
            disk(files).capacity(room);
            manual_clock clock;
            oracle o(d);
            unsigned id = 0;
            std::set<unsigned> refused;
            {
                sim_journal j("data", options(clock, d), files);
                sim_queue q(j, "q"), rare(j, "rare");
                rare.send("kept for long");
                unsigned all_received = 0;
                for (unsigned round = 0; round < 5; ++round) {
                    CAPTURE(round);
                    for (bool full = false; !full;) { // fills up
                        o.sends(++id);
                        try {
                            o.accepted(id, q.send(parcel(id, 3000 + id % 7 * 500)));
                            o.committed();
                        } catch (const error& e) {
                            CHECK(e.kind() == errc::io);
                            refused.insert(id);
                            o.refused(id);
                            full = true;
                        }
                        REQUIRE(id < 5000);
                    }
                    unsigned received = 0;
                    for (auto m = q.try_receive(); m; m = q.try_receive()) { // is emptied
                        const unsigned got = parcel_id(m->body());
                        if (refused.contains(got)) { FAIL_CHECK("received what was refused"); }
                        o.settles(got);
                        CHECK(m->ack());
                        ++received;
                    }
                    all_received += received;
                    unsigned tries = 0;
                    for (bool full = true; full; ++tries) { // works again, by itself
                        REQUIRE(tries < 20);
                        o.sends(++id);
                        try {
                            o.accepted(id, q.send(parcel(id, 3000)));
                            o.committed();
                            full = false;
                        } catch (const error& e) {
                            CHECK(e.kind() == errc::io);
                            refused.insert(id);
                            o.refused(id);
                        }
                    }
                    CHECK(tries <= 3);
                }
                CHECK(all_received >= 3 * room / 10'000); // the same room was used several times
                o.check(support::look_into(q), false);
            }
            disk(files).clear_faults();
            sim_journal j("data", options(clock), files);
            sim_queue q(j, "q"), rare(j, "rare");
            o.check(support::look_into(q), true);
            CHECK(rare.try_pop());
            CHECK(j.verify().intact);
        }
    }
}

TEST_CASE("journal faults: on a full disk, what has to stand alone in its batch is refused, however much could be moved") {
    for (unsigned n = 700; n < 760; n += 4) {
        CAPTURE(n);
        const disk files;
        manual_clock clock;
        sim_journal j("data", options(clock, durability::write), files);
        sim_queue q(j, "q");
        for (unsigned id = 1; id <= n; ++id) { q.send(parcel(id, 1000)); }
        std::vector<mailroom::delivery<std::string>> held; // few of many: those would be moved
        for (unsigned i = 0; i < n; ++i) {
            auto d = q.try_receive();
            if (i % 20 == 0) {
                held.push_back(std::move(*d));
            } else {
                d->ack();
            }
        }
        j.flush();
        std::uint64_t there = 0;
        for (const auto& [name, bytes] : all_of(files)) { there += bytes.size(); }
        disk(files).capacity(there + 100);
        disk(files).crash_at(20'000); // should it never end
        q.send_async(parcel(n + 1, 30'000));
        mailroom::transaction tx(j);
        tx.send(q, "prepared");
        try {
            tx.prepare("xid");
        } catch (const error& e) { CHECK(e.kind() == errc::io); }
        CHECK_FALSE(disk(files).is_off());
        disk(files).clear_faults();
        mailroom::transaction again(j);
        again.send(q, "prepared later");
        again.prepare("later");
        j.commit("later");
        CHECK(j.verify().intact);
    }
}

TEST_CASE("journal faults: whatever call of opening fails, it says which file, changes nothing that matters, and opens afterwards") {
    for (const bool closed : {true, false}) {
        CAPTURE(closed);
        disk original;
        oracle o;
        {
            manual_clock clock;
            sim_journal j("data", options(clock), original);
            sim_queue q(j, "q");
            for (unsigned id = 1; id <= 30; ++id) {
                o.sends(id);
                o.accepted(id, q.send(parcel(id, 6000)));
            }
            if (!closed) {
                original = original.clone();
                original.process_kill();
            }
        }
        using planner = std::function<void(disk&, std::uint64_t, std::error_code)>;
        const std::pair<const char*, planner> plans[] = {
            {"call", [](disk& d, std::uint64_t n, std::error_code e) { d.fail_call(n, e); }},
            {"open", [](disk& d, std::uint64_t n, std::error_code e) { d.fail_open(n, e); }},
            {"read", [](disk& d, std::uint64_t n, std::error_code e) { d.fail_read(n, e); }},
            {"sync", [](disk& d, std::uint64_t n, std::error_code e) { d.fail_sync(n, e); }},
        };
        for (const auto& [what, plan] : plans) {
            for (const auto code : {std::errc::io_error, std::errc::too_many_files_open, std::errc::interrupted}) {
                unsigned failures = 0;
                for (std::uint64_t n = 0, last = 0; n < last + 12; ++n) { // until there are no more such calls
                    CAPTURE(std::string(what));
                    CAPTURE(std::make_error_code(code).message());
                    CAPTURE(n);
                    disk files = original.clone();
                    plan(files, n, std::make_error_code(code));
                    try {
                        manual_clock clock;
                        sim_journal j("data", options(clock), files);
                        sim_queue q(j, "q");
                        files.clear_faults();
                        CHECK_NOTHROW(o.check(support::look_into(q)));
                    } catch (const error& e) {
                        ++failures;
                        last = n;
                        CHECK(e.kind() == errc::io);
                        CHECK(std::string(e.what()).find("data") != std::string::npos);
                        CHECK(std::string(e.what()).find(std::make_error_code(code).message()) != std::string::npos);
                    } catch (const std::exception& e) { FAIL_CHECK("not an error of ours: " << e.what()); }
                    if (code == std::errc::interrupted) { CHECK(failures == 0); }
                    files.clear_faults();
                    files.process_kill();
                    CHECK(what_is_wrong(files, o, true) == "");
                }
                CHECK((failures != 0) == (code != std::errc::interrupted));
            }
        }
    }
}

TEST_CASE("journal faults: whatever call of making a journal fails, the next opening makes it") {
    for (std::uint64_t n = 0; n < 20; ++n) {
        CAPTURE(n);
        disk files;
        files.fail_call(n, no_space);
        bool failed = false;
        try {
            manual_clock clock;
            sim_journal j("data", options(clock), files);
            sim_queue q(j, "q");
        } catch (const error& e) {
            CHECK(e.kind() == errc::io);
            CHECK(std::string(e.what()).find(n == 2 ? "cannot sync ." : "data") != std::string::npos); // the directory above
            failed = true;
        }
        if (n == 0) { CHECK(failed); }
        files.clear_faults();
        CHECK(what_is_wrong(files, oracle(), true) == "");
    }
}

TEST_CASE("journal faults: a directory that is not ours, or not to be written to, is left as it is") {
    manual_clock clock;
    disk files;
    {
        sim_journal j("data", options(clock), files);
        sim_queue q(j, "q");
        q.send(parcel(1, 100));
        CHECK(refusal_of(errc::in_use, [&] { sim_journal("data", options(clock), files); }) != "");
        CHECK(refusal_of(errc::in_use, [&] { sim_journal("./data//", options(clock), files); }) != "");
    }
    SUBCASE("another process has the lock, until it is killed") {
        disk::file lock;
        REQUIRE_FALSE(files.open("data/LOCK", mailroom::detail::open_mode::write, lock));
        REQUIRE_FALSE(files.lock(lock));
        CHECK(refusal_of(errc::in_use, [&] { sim_journal("data", options(clock), files); }).find("data") != std::string::npos);
        CHECK_NOTHROW(sim_journal("data", {.on_damage = mailroom::on_damage::refuse, .clock = &clock}, [&] {
            lock = disk::file();
            return files;
        }()));
    }
    SUBCASE("a directory that cannot be written to") {
        files.read_only(true);
        const auto calls = files.calls();
        CHECK(refusal_of(errc::io, [&] { sim_journal("data", options(clock), files); }).find("data") != std::string::npos);
        sim_journal j("data", {.on_damage = mailroom::on_damage::read_only, .clock = &clock}, files);
        sim_queue q(j, "q");
        CHECK(support::look_into(q).alive.size() == 1);
        CHECK(refusal_of(errc::unsupported, [&] { q.send("no"); }) != "");
        CHECK(files.calls() <= calls + 1);
    }
    SUBCASE("files of somebody else") {
        disk other;
        REQUIRE_FALSE(other.make_directory("data"));
        const std::string text = "dear diary";
        other.set_contents("data/diary.txt", std::as_bytes(std::span(text)));
        CHECK(refusal_of(errc::invalid, [&] { sim_journal("data", options(clock), other); }).find("diary.txt") != std::string::npos);
        CHECK(other.files() == std::vector<std::string>{"data/diary.txt"});
    }
    SUBCASE("a file where the directory should be") {
        disk other;
        other.set_contents("data", {});
        CHECK(refusal_of(errc::invalid, [&] { sim_journal("data", options(clock), other); }).find("data") != std::string::npos);
    }
    SUBCASE("nothing to read") {
        disk other;
        CHECK(refusal_of(errc::io, [&] { sim_journal("data", {.on_damage = mailroom::on_damage::read_only, .clock = &clock}, other); }) != "");
        CHECK(other.files().empty());
    }
    SUBCASE("of a version to come") {
        for (const auto how : {mailroom::on_damage::refuse, mailroom::on_damage::read_only, mailroom::on_damage::salvage}) {
            CAPTURE(static_cast<int>(how));
            mailroom::journal_options o = options(clock);
            o.on_damage = how;
            for (const std::string& name : files.files()) {
                CAPTURE(name);
                disk newer = files.clone();
                auto bytes = newer.contents(name);
                if (name.ends_with(".log")) {
                    format::store_le(bytes.data() + 8, format::format_version + 1);
                    format::store_le(bytes.data() + 56, format::checksum({bytes.data(), 56}, 0));
                } else if (name.ends_with("MANIFEST")) {
                    format::journal_id id{};
                    std::memcpy(id.data(), bytes.data() + 24, id.size());
                    format::store_le(bytes.data() + 16, format::format_version + 1);
                    format::store_le(bytes.data(), format::checksum({bytes.data() + 8, bytes.size() - 8}, format::seed_of(id)));
                } else {
                    continue;
                }
                newer.set_contents(name, bytes);
                const auto before = all_of(newer);
                const std::string why = refusal_of(errc::corrupt, [&] { sim_journal("data", o, newer); });
                CHECK(why.find(name) != std::string::npos);
                CHECK(why.find("version") != std::string::npos);
                CHECK(all_of(newer) == before);
            }
        }
    }
    SUBCASE("a manifest that is missing, empty or of another") {
        for (const bool both : {false, true}) {
            for (const char* const what : {"missing", "empty", "text"}) {
                CAPTURE(both);
                CAPTURE(std::string(what));
                disk bad = files.clone();
                for (const char* const name : {"data/MANIFEST", "data/MANIFEST.old"}) {
                    if (!both && std::string(name).ends_with("old")) { continue; }
                    const std::string text(300, '#');
                    if (std::string(what) == "missing") {
                        REQUIRE_FALSE(bad.remove(name));
                    } else if (std::string(what) == "empty") {
                        bad.set_contents(name, {});
                    } else {
                        bad.set_contents(name, std::as_bytes(std::span(text)));
                    }
                }
                const std::string why = refusal_of(errc::corrupt, [&] { sim_journal("data", options(clock), bad.clone()); });
                if (both) { CHECK(why.find("MANIFEST") != std::string::npos); }
                mailroom::journal_options o = options(clock);
                o.on_damage = mailroom::on_damage::salvage;
                sim_journal j("data", o, bad);
                sim_queue q(j, "q");
                CHECK(support::look_into(q).alive.size() == 1);
                if (why != "") { CHECK_FALSE(j.recovered().damages.empty()); }
                CHECK_NOTHROW(q.send(parcel(2, 10)));
            }
        }
    }
}

namespace {

// A clock whose wall can be set, as an operator does; the time that passes does not jump.
class clock_that_is_set final : public mailroom::clock {
public:
    manual_clock inner;
    mailroom::duration offset{};

    mailroom::duration now() const noexcept override { return inner.now(); }
    mailroom::duration coarse() const noexcept override { return inner.coarse(); }
    mailroom::time_point wall() const noexcept override { return inner.wall() + std::chrono::duration_cast<mailroom::time_point::duration>(offset); }
    void park(std::atomic<std::uint32_t>& word, std::uint32_t expected, mailroom::duration deadline) noexcept override {
        inner.park(word, expected, deadline);
    }
    void unpark(std::atomic<std::uint32_t>& word) noexcept override { inner.unpark(word); }
    void relax(unsigned round) noexcept override { inner.relax(round); }
    void attach(mailroom::timed& endpoint) override { inner.attach(endpoint); }
    void detach(mailroom::timed& endpoint) noexcept override { inner.detach(endpoint); }
};

} // namespace

TEST_CASE("journal faults: the wall clock jumps a day either way") {
    for (const mailroom::duration jump : {mailroom::duration(24h), mailroom::duration(-24h)}) {
        CAPTURE(jump.count());
        disk files;
        clock_that_is_set clock;
        const mailroom::journal_options o{.segment_bytes = 64 << 10, .clock = &clock};
        mailroom::offset next = 0;
        {
            sim_journal j("data", o, files);
            sim_queue q(j, "q", {.lease = 10s});
            for (unsigned id = 1; id <= 20; ++id) { CHECK(q.send(parcel(id, 6000)) == next++); }
            q.send(parcel(21, 10), {.delay = 5s});
            ++next;
            auto held = q.try_receive();
            REQUIRE(held);
            CHECK(parcel_id(held->body()) == 1);
            clock.offset = jump;
            for (unsigned id = 22; id <= 40; ++id) { CHECK(q.send(parcel(id, 6000)) == next++); }
            clock.inner.advance(4s); // neither the lease nor the delay is over
            for (unsigned id = 2; id <= 20; ++id) {
                auto d = q.try_receive();
                REQUIRE(d);
                CHECK(parcel_id(d->body()) == id);
                d->ack();
            }
            auto d = q.try_receive();
            REQUIRE(d);
            CHECK(parcel_id(d->body()) == 22);
            d->release();
            clock.inner.advance(1s);
            d = q.try_receive();
            REQUIRE(d);
            CHECK(parcel_id(d->body()) == 21);
            d->ack();
            clock.inner.advance(5s);
            d = q.try_receive();
            REQUIRE(d);
            CHECK(parcel_id(d->body()) == 1);
            CHECK(d->attempt() == 2);
            CHECK_FALSE(held->ack());
            d->ack();
            j.flush();
            files = files.clone();
            files.power_cut(1, loss::random);
        }
        clock.offset = -jump;
        sim_journal j("data", o, files);
        sim_queue q(j, "q");
        CHECK(q.send(parcel(41, 10)) == next);
        for (unsigned id = 22; id <= 41; ++id) {
            auto d = q.try_receive();
            REQUIRE(d);
            CHECK(parcel_id(d->body()) == id);
            d->ack();
        }
        CHECK_FALSE(q.try_receive());
        CHECK(j.verify().intact);
    }
}

TEST_CASE("journal faults: a message whose process dies each time is given up on") {
    for (const bool first_is_clean : {true, false}) {
        for (const bool power : {true, false}) {
            CAPTURE(first_is_clean);
            CAPTURE(power);
            disk files;
            {
                manual_clock clock;
                sim_journal j("data", options(clock), files);
                sim_queue q(j, "q");
                q.send(parcel(1, 10));
                q.send(parcel(2, 10));
                if (!first_is_clean) {
                    files = files.clone();
                    files.process_kill();
                }
            }
            unsigned deaths = 0;
            std::uint32_t last = 0;
            for (bool alive = true; alive;) {
                REQUIRE(deaths < 6);
                disk next;
                {
                    manual_clock clock;
                    sim_journal j("data", options(clock), files);
                    sim_queue q(j, "q", {.retry = {.max_attempts = 3}});
                    auto d = q.try_receive();
                    REQUIRE(d);
                    if (parcel_id(d->body()) == 2) {
                        alive = false;
                        CHECK(q.statistics().dead == 1);
                        auto dead = q.dead().try_receive();
                        REQUIRE(dead);
                        CHECK(parcel_id(dead->body()) == 1);
                        CHECK(dead->attempts() == 3);
                        break;
                    }
                    CHECK(parcel_id(d->body()) == 1);
                    if (deaths > 1) { CHECK(d->attempt() == last + 1); }
                    last = d->attempt();
                    next = files.clone();
                    if (power) {
                        next.power_cut(deaths, loss::nothing);
                    } else {
                        next.process_kill();
                    }
                    d->release(); // nobody sees that
                }
                files = next;
                ++deaths;
            }
            CHECK(deaths >= 3);
            CHECK(deaths <= (first_is_clean ? 4u : 3u));
        }
    }
}

TEST_CASE("journal faults: attempts and dead letters survive restarts") {
    disk files;
    for (std::uint32_t life = 1; life <= 4; ++life) {
        CAPTURE(life);
        manual_clock clock(1h * life);
        sim_journal j("data", options(clock), files);
        sim_queue q(j, "q", {.retry = {.max_attempts = 4, .initial = 1min, .multiplier = 1}});
        if (life == 1) { q.send(parcel(1, 10)); }
        auto d = q.try_receive();
        REQUIRE(d);
        CHECK(d->attempt() == life);
        d->nack();
        CHECK_FALSE(q.try_receive());
        if (life % 2 == 0) { // once the process is killed, once it ends
            j.flush();
            disk after = files.clone();
            after.process_kill();
            files = after;
        }
    }
    manual_clock clock(10h);
    sim_journal j("data", options(clock), files);
    sim_queue q(j, "q");
    CHECK_FALSE(q.try_receive());
    auto dead = q.dead().try_receive();
    REQUIRE(dead);
    CHECK(dead->attempts() == 4);
    dead->release();
    CHECK(q.dead().redrive(1) == 1);
    auto d = q.try_receive();
    REQUIRE(d);
    CHECK(d->attempt() == 1);
}
