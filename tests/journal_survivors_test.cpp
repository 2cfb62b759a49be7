// Survivor segments: what somebody still wants of segments that are mostly dead is copied into a file of its own, and one record puts the copies in the
// place of the originals. Whatever fails or is damaged on the way, each message is there once, at its offset.
#include "support/journal_oracle.hpp"
#include "support/random.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/crash_explorer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using mailroom::durability;
using mailroom::errc;
using mailroom::error;
using mailroom::on_damage;
using mailroom::testing::crash_explorer;
using mailroom::testing::crash_point;
using mailroom::testing::loss;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using support::disk;
using support::oracle;
using support::parcel;
using support::parcel_id;
using support::sim_journal;
using support::sim_queue;
using namespace std::chrono_literals;
namespace format = mailroom::detail;

namespace {

using ids = std::vector<unsigned>;
constexpr std::size_t small = 64 << 10;

mailroom::journal_options options(manual_clock& c, on_damage how = on_damage::refuse, durability d = durability::commit) {
    return {.durability = d, .segment_bytes = small, .on_damage = how, .clock = &c};
}
const mailroom::queue_options<std::string> patient{.lease = 0s, .retry = {.max_attempts = 0, .initial = 0s}};

std::vector<std::string> files_ending(const disk& files, std::string_view how) {
    std::vector<std::string> all;
    for (const std::string& f : files.files()) {
        if (f.ends_with(how)) { all.push_back(f); }
    }
    return all;
}
std::size_t survivor_files(const disk& files) { return files_ending(files, ".srv").size(); }
ids alive_in(sim_queue& q) {
    ids all;
    for (const auto& [at, id] : support::look_into(q).alive) {
        if (at + 1 != id) { throw std::runtime_error("message " + std::to_string(id) + " has offset " + std::to_string(at)); }
        all.push_back(id);
    }
    return all;
}
/// Sends [first, last), and settles all that is there but those in `kept`.
void churn(sim_queue& q, unsigned first, unsigned last, const ids& kept, std::size_t bytes = 3000) {
    for (unsigned id = first; id < last; ++id) { q.send(parcel(id, bytes)); }
    std::vector<mailroom::delivery<std::string>> all;
    while (q.receive_many(all, 1000) != 0) {}
    for (auto& d : all) {
        if (std::find(kept.begin(), kept.end(), parcel_id(*d)) != kept.end()) {
            d.release();
        } else {
            d.ack();
        }
    }
}
std::map<std::string, std::vector<std::byte>> all_of(const disk& files) {
    std::map<std::string, std::vector<std::byte>> all;
    for (const std::string& f : files.files()) { all[f] = files.contents(f); }
    return all;
}

} // namespace

TEST_CASE("survivors: what keeps mostly dead segments lies in a file of its own, at its offsets, in this process and later") {
    const disk files;
    manual_clock clock;
    const ids kept{3, 30, 31, 77};
    {
        sim_journal j("data", options(clock), files);
        sim_queue q(j, "q", patient);
        churn(q, 1, 100, kept);
        const std::size_t before = files_ending(files, ".log").size();
        CHECK(before >= 4);
        const auto r = j.compact();
        CHECK(r.messages_moved == kept.size());
        CHECK(r.segments_freed >= before - 1);
        CHECK(survivor_files(files) == 1);
        CHECK(files_ending(files, ".log").size() == 1);
        CHECK(r.bytes_after < 20'000);
        CHECK(alive_in(q) == kept);
        CHECK(j.verify().intact);
        CHECK(j.compact().messages_moved == 0); // it is worth its place
    }
    for (const on_damage how : {on_damage::refuse, on_damage::read_only, on_damage::salvage}) {
        sim_journal j("data", options(clock, how), files);
        CHECK(j.recovered().clean);
        CHECK(j.recovered().segments == 2);
        CHECK(j.recovered().damages.empty());
        CHECK(j.verify().intact);
        sim_queue q(j, "q", patient);
        CHECK(alive_in(q) == kept);
    }
    const std::string path = files_ending(files, ".srv").front();
    const auto bytes = files.contents(path); // as docs/file-format.md has it
    format::segment_header h;
    std::uint32_t version = 0;
    REQUIRE(format::segment_header::decode(bytes, h, version) == nullptr);
    CHECK(h.first == format::survivors_from);
    CHECK(path == "data/" + format::file_name(h.first, ".srv"));
    format::batch_header b;
    const auto rest = format::bytes_view(bytes).subspan(64);
    REQUIRE(format::batch_header::decode(rest, h.first, format::seed_of(h.id), b));
    CHECK(b.records == 4);
    CHECK(b.previous == 0);
    CHECK(b.length + 128 == bytes.size());
    const auto first = format::decode_record(rest.subspan(64), h.first + 64, format::seed_of(h.id));
    REQUIRE(first);
    CHECK(first->head.kind == format::record_kind::moved);
    CHECK(first->head.offset == 2);
    CHECK_FALSE(format::decode_record(rest.subspan(64), 64, format::seed_of(h.id))); // at no place of the stream
}

TEST_CASE("survivors: of survivors, and when the last of them is settled their file goes") {
    const disk files;
    manual_clock clock;
    std::optional<sim_journal> j(std::in_place, "data", options(clock), files);
    std::optional<sim_queue> q(std::in_place, *j, "q", patient);
    ids kept;
    for (unsigned id = 1; id <= 400; id += 10) { kept.push_back(id); }
    churn(*q, 1, 401, kept);
    j->compact();
    const auto first = files_ending(files, ".srv");
    CHECK(first.size() >= 2); // 120 KB
    CHECK(alive_in(*q) == kept);
    bool opened_again = false;
    SUBCASE("at once") {}
    SUBCASE("after another opening") { opened_again = true; }
    const auto open_again = [&] {
        if (!opened_again) { return; }
        q.reset();
        j.emplace("data", options(clock), files);
        q.emplace(*j, "q", patient);
    };
    open_again();
    kept = {91, 391};
    churn(*q, 401, 402, kept);
    CHECK(j->compact().messages_moved >= 1);
    CHECK(alive_in(*q) == kept);
    const auto second = files_ending(files, ".srv");
    CHECK(second.size() <= 2);
    CHECK(second != first);
    CHECK(j->verify().intact);
    open_again();
    CHECK(alive_in(*q) == kept);
    churn(*q, 402, 403, {});
    j->compact();
    CHECK(survivor_files(files) == 0);
    CHECK(alive_in(*q).empty());
    CHECK(j->verify().intact);
    churn(*q, 403, 500, {450}); // and so on: no position is given twice
    j->compact();
    const auto third = files_ending(files, ".srv");
    REQUIRE(third.size() == 1);
    CHECK(third.front() > second.back());
    CHECK(alive_in(*q) == ids{450});
    open_again();
    CHECK(alive_in(*q) == ids{450});
}

TEST_CASE("survivors: who sends on and on copies them himself, little by little") {
    const disk files;
    manual_clock clock;
    for (const durability d : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(d));
        const disk here = files.clone();
        ids kept;
        {
            sim_journal j("data", options(clock, on_damage::refuse, d), here);
            sim_queue q(j, "q", patient);
            std::size_t most = 0, most_survivors = 0;
            for (unsigned round = 0; round < 80; ++round) {
                const unsigned id = 1 + 50 * round;
                for (const unsigned some : {7u, 23u, 41u}) { kept.push_back(id + some); }
                if (kept.size() > 30) { kept.erase(kept.begin(), kept.begin() + 3); } // survivors die in their turn
                churn(q, id, id + 50, kept, 1500);                                    // more than a segment
                j.flush();
                most = std::max(most, files_ending(here, ".log").size());
                most_survivors = std::max(most_survivors, survivor_files(here));
            }
            CHECK(most < 12); // of 90 segments
            CHECK(most_survivors < 5);
            CHECK(survivor_files(here) > 0);
            CHECK(alive_in(q) == kept);
            CHECK(j.verify().intact);
        }
        sim_journal j("data", options(clock, on_damage::refuse, d), here);
        CHECK(j.recovered().damages.empty());
        sim_queue q(j, "q", patient);
        CHECK(alive_in(q) == kept);
    }
}

TEST_CASE("survivors: a reader goes on behind a message whose segment has gone meanwhile") {
    const disk files;
    manual_clock clock;
    sim_journal j("data", options(clock), files);
    mailroom::topic<std::string, sim_journal> t(j, "t");
    auto s = t.subscribe("s", {.from = mailroom::start::earliest});
    auto slow = t.subscribe("slow", {.from = mailroom::start::earliest, .lease = 0s});
    for (unsigned id = 1; id < 60; ++id) { t.publish(parcel(id, 3000)); }
    while (auto d = s.try_receive()) { d->ack(); }
    std::vector<mailroom::delivery<std::string>> some;
    slow.receive_many(some, 59);
    REQUIRE(some.size() == 59);
    auto held = std::move(some[9]);
    some.erase(some.begin() + 9);
    std::vector<unsigned> waiting;
    for (auto& d : some) {
        if (parcel_id(*d) % 20 == 0) {
            waiting.push_back(parcel_id(*d));
            d.release();
        } else {
            d.ack();
        }
    }
    j.compact();
    CHECK(survivor_files(files) == 1);
    CHECK(parcel_id(*held) == 10);
    CHECK(held.ack());
    for (const unsigned id : waiting) {
        auto d = slow.try_receive();
        REQUIRE(d);
        CHECK(parcel_id(d->body()) == id);
        d->ack();
    }
    CHECK_FALSE(slow.try_receive());
}

// ------------------------------------------------------------------------------------------------------------------- at the same time

namespace {

/// A disk on which something happens just before a message is read.
struct interrupted_files : simulated_files {
    std::shared_ptr<std::function<void()>> before = std::make_shared<std::function<void()>>();
    std::error_code read(const file& f, std::uint64_t at, std::span<std::byte> to, std::size_t& got) const noexcept {
        if (*before && at != 0 && to.size() >= 1024) { std::exchange(*before, nullptr)(); }
        return simulated_files::read(f, at, to, got);
    }
};
struct listener final : format::stream_listener {
    void advance(mailroom::offset) noexcept override {}
    void arrived(std::size_t) noexcept override {}
    void journal_closed() noexcept override {}
    void hold() noexcept override {}
    void let_go() noexcept override {}
};
struct settlement final : format::change_source {
    using change_source::change_source;
    std::vector<std::byte> steps;
    void collect(std::vector<std::byte>& to) noexcept override { to = std::exchange(steps, {}); }
    void give_back(format::bytes_view) noexcept override {}
};
using engine = format::log_engine<interrupted_files>;

void send(engine& e, std::uint32_t stream, char what, std::size_t n) {
    std::vector<std::byte> payload(5000, static_cast<std::byte>(what));
    format::draft d;
    d.stream = stream;
    d.length = static_cast<std::uint32_t>(payload.size());
    d.payload = payload;
    d.hash = format::checksum(payload, e.seed());
    for (; n != 0; --n) {
        format::ticket t;
        REQUIRE(e.place({&d, 1}, format::admission(), &t).taken);
        e.wait(t);
    }
}
void settle(engine& e, std::uint32_t cursor, mailroom::offset first, std::uint64_t n) {
    settlement s(cursor);
    format::wire_writer to(s.steps);
    for (const std::uint64_t v : {std::uint64_t{1}, first, n}) { to.var(v); }
    e.mark(s);
    e.push_settlements();
    e.detach(s);
}

} // namespace

TEST_CASE("survivors: a message whose segment goes, and whose file is written over, while it is read, is read from where it lies by then") {
    manual_clock clock;
    interrupted_files files;
    listener nobody;
    engine e("data", options(clock), files);
    const std::uint32_t queue = e.open("q", {}, format::schema{"text", 1, 0, ""}, [](const format::schema&) {}).number;
    e.attach(queue, nobody);
    send(e, queue, 'a', 30);
    settle(e, 1, 0, 3);
    settle(e, 1, 4, 26);
    const auto read = [&](mailroom::offset o) {
        std::string told;
        format::record_calls to([&](unsigned i, const format::record& r) { told = std::to_string(i) + ' ' + static_cast<char>(r.payload[0]); },
                                [&](unsigned, const mailroom::damage* d) { told = d != nullptr ? "damaged: " + d->what : "gone"; });
        format::read_ahead ahead;
        e.read(queue, 0, std::uint32_t{1} << o, to, ahead);
        return told;
    };
    bool happened = false;
    *files.before = [&] {
        e.compact(nullptr);
        send(e, queue, 'b', 20); // into what was its file
        happened = true;
    };
    CHECK(read(3) == "3 a");
    CHECK(happened);
    CHECK(read(3) == "3 a");
    settle(e, 1, 3, 1);
    *files.before = [&] { // it goes for good
        settle(e, 1, 30, 20);
        for (int i = 0; i < 2; ++i) {
            e.compact(nullptr);
            send(e, queue, 'c', 20);
        }
    };
    CHECK(read(31) == "gone");
    e.detach(queue);
}

// -------------------------------------------------------------------------------------------------------------------------------- crashes

namespace {

struct one_queue {
    oracle o;
    unsigned next = 1;
};

/// Sends, and settles nearly all; compacts, or not.
void live(disk files, one_queue& n, durability d, bool compacts) {
    manual_clock clock;
    sim_journal j("data", options(clock, on_damage::refuse, d), files);
    support::open_well(j);
    sim_queue q(j, "q", patient);
    if (n.o.fates.empty()) { n.o = oracle(d); }
    n.o.begins();
    for (unsigned round = 0; round < 6; ++round) {
        for (unsigned i = 0; i < 9; ++i) {
            const unsigned id = n.next++;
            n.o.sends(id);
            n.o.accepted(id, q.send(parcel(id, 7000)));
            n.o.committed();
        }
        std::vector<mailroom::delivery<std::string>> all;
        while (q.receive_many(all, 100) != 0) {}
        for (auto& one : all) {
            const unsigned id = parcel_id(*one);
            if (id % 9 == 4 && id / 9 + 4 > n.next / 9) { // for some rounds
                one.release();
            } else {
                n.o.settles(id);
                one.ack();
            }
        }
        all.clear();
        if (compacts && round % 2 == 1) {
            j.compact();
        } else {
            j.flush();
        }
        n.o.flushed();
    }
}
void look(disk files, const one_queue& n, const crash_point& p, durability d) {
    for (int time = 0; time < 2; ++time) {
        manual_clock clock;
        sim_journal j("data", options(clock, on_damage::refuse, d), files);
        support::open_well(j);
        const std::size_t there = files_ending(files, ".log").size() + survivor_files(files);
        if (there != j.recovered().segments) { throw std::runtime_error("a file that nothing speaks of"); }
        sim_queue q(j, "q", patient);
        n.o.check(support::look_into(q), p.what != loss::nothing);
        support::verify_well(j);
        if (time == 0) { j.compact(); }
        n.o.check(support::look_into(q), p.what != loss::nothing);
        support::verify_well(j);
    }
}

} // namespace

TEST_CASE("survivors: whatever call is the last, each message that was to survive is there, once") {
    for (const bool compacts : {true, false}) {
        CAPTURE(compacts);
        const auto found =
            crash_explorer({.random_losses = 2, .tail_losses = 1})
                .explore<one_queue>([&](disk files, one_queue& n) { live(std::move(files), n, durability::commit, compacts); },
                                    [&](disk files, const one_queue& n, const crash_point& p) { look(std::move(files), n, p, durability::commit); });
        INFO(found.text());
        CHECK(found.passed);
        CHECK(found.calls > 100);
    }
}

TEST_CASE("survivors: the same with other promises, and while it recovers") {
    for (const durability d : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(d));
        const unsigned lives = d == durability::commit ? 2 : 1; // what the first power cut took, the oracle would miss after the second
        support::for_each_seed(2, [&](std::uint64_t seed) {
            const auto found =
                crash_explorer({.limit = support::scaled(40), .seed = seed, .random_losses = 1, .lives = lives})
                    .explore<one_queue>([&](disk files, one_queue& n) { live(std::move(files), n, d, true); },
                                        [&](disk files, const one_queue& n, const crash_point& p) { look(std::move(files), n, p, d); });
            INFO(found.text());
            CHECK(found.passed);
            return true;
        });
    }
}

// --------------------------------------------------------------------------------------------------------------------------------- faults

TEST_CASE("survivors: whichever call fails, sends go on or say so, and nothing is lost or there twice") {
    enum class fault { write, half_a_write, sync, call, open };
    const auto no_room = std::make_error_code(std::errc::no_space_on_device), broken = std::make_error_code(std::errc::io_error);
    for (const durability d : {durability::commit, durability::none}) {
        for (const fault f : {fault::write, fault::half_a_write, fault::sync, fault::call, fault::open}) {
            CAPTURE(static_cast<int>(d));
            CAPTURE(static_cast<int>(f));
            unsigned copied = 0, failures = 0;
            for (std::uint64_t n = 0, last = 1; n < last; ++n) { // until there are no more calls
                CAPTURE(n);
                const disk files;
                manual_clock clock;
                const ids kept{3, 20, 38};
                ids all = kept;
                bool failed = false;
                {
                    sim_journal j("data", options(clock, on_damage::refuse, d), files);
                    sim_queue q(j, "q", patient);
                    churn(q, 1, 41, kept, 4000);
                    j.flush();
                    const std::uint64_t calls = files.calls();
                    switch (f) {
                    case fault::write: disk(files).fail_write(n, no_room); break;
                    case fault::half_a_write: disk(files).fail_write(n, broken, 2000); break;
                    case fault::sync: disk(files).fail_sync(n, broken); break;
                    case fault::call: disk(files).fail_call(n, broken); break;
                    case fault::open: disk(files).fail_open(n, broken); break;
                    }
                    try {
                        j.compact();
                    } catch (const error& e) {
                        CHECK(e.kind() == errc::io);
                        failed = true;
                        ++failures;
                    }
                    last = std::max(last, files.calls() - calls + 5);
                    disk(files).clear_faults();
                    CHECK(alive_in(q) == kept);
                    try {
                        q.send(parcel(41, 100));
                        all.push_back(41);
                    } catch (const error& e) { // a sync of the stream failed: that lasts
                        CHECK(e.kind() == errc::io);
                        CHECK(failed);
                    }
                    CHECK(alive_in(q) == all);
                    try {
                        j.compact();
                        ++copied;
                        CHECK(survivor_files(files) >= 1);
                        CHECK(files_ending(files, ".log").size() <= 2); // one that could not be removed
                    } catch (const error& e) { CHECK(failed); }
                    CHECK(alive_in(q) == all);
                    if (failed && d == durability::none) { all = kept; }
                }
                sim_journal j("data", options(clock, on_damage::refuse, d), files);
                CHECK(j.recovered().damages.empty());
                CHECK(files_ending(files, ".log").size() + survivor_files(files) == j.recovered().segments);
                sim_queue q(j, "q", patient);
                ids found = alive_in(q);
                if (all == kept && !found.empty() && found.back() == 41) { found.pop_back(); } // nobody was promised anything
                CHECK(found == all);
                CHECK(j.verify().intact);
                j.compact();
                CHECK(alive_in(q).size() >= all.size());
                CHECK(j.verify().intact);
            }
            CHECK(copied > 10);
            CHECK(failures > 0);
        }
    }
}

// --------------------------------------------------------------------------------------------------------------------------------- damage

namespace {

/// A journal of three survivors, closed; or killed, where the record that speaks of them is behind the last checkpoint.
struct with_survivors {
    explicit with_survivors(std::size_t bytes = 60) {
        manual_clock clock;
        {
            sim_journal j("data", options(clock), files);
            sim_queue q(j, "q", patient);
            churn(q, 1, 50, kept, 3000);
            q.send(parcel(50, bytes));
            q.send(parcel(51, bytes));
            q.send(parcel(52, bytes));
            churn(q, 53, 75, kept, 3000);
            j.compact();
            path = files_ending(files, ".srv").at(0);
            killed = files.clone();
            killed.process_kill();
        }
    }
    const ids kept{50, 51, 52};
    disk files, killed;
    std::string path;
};

struct outcome {
    std::string refused;
    std::vector<mailroom::damage> damages;
    ids found;
    std::string wrong;
};
outcome open_and_look(const disk& files, on_damage how) {
    outcome all;
    manual_clock clock;
    try {
        sim_journal j("data", options(clock, how), files);
        all.damages = j.recovered().damages;
        const auto v = j.verify();
        all.damages.insert(all.damages.end(), v.damages.begin(), v.damages.end());
        if (v.intact != v.damages.empty()) { all.wrong = "verify says no, and not why"; }
        sim_queue q(j, "q", patient);
        for (unsigned tries = 0; tries < 20; ++tries) {
            try {
                auto d = q.try_receive();
                if (!d) { break; }
                all.found.push_back(parcel_id(d->body()));
                d->ack();
            } catch (const error& e) {
                if (e.kind() != errc::corrupt) { all.wrong = e.what(); }
            }
        }
    } catch (const error& e) {
        all.refused = e.what();
        if (e.kind() != errc::corrupt || how != on_damage::refuse) { all.wrong = e.what(); }
    } catch (const std::exception& e) { all.wrong = e.what(); }
    return all;
}

} // namespace

TEST_CASE("survivors: any bit flipped, the file cut anywhere: it is said where, and nothing else is lost") {
    const with_survivors w;
    REQUIRE(open_and_look(w.files.clone(), on_damage::refuse).found == w.kept);
    const std::uint64_t length = w.files.contents(w.path).size();
    CHECK(length < 700);
    const auto check = [&](const disk& files, std::uint64_t from, std::uint64_t until) {
        for (const on_damage how : {on_damage::refuse, on_damage::read_only, on_damage::salvage}) {
            CAPTURE(static_cast<int>(how));
            const disk there = files.clone();
            const auto before = all_of(there);
            const outcome o = open_and_look(there, how);
            CHECK(o.wrong == "");
            if (!o.refused.empty()) {
                CHECK(o.refused.find(w.path) != std::string::npos);
                CHECK(o.refused.find("at risk") != std::string::npos);
                CHECK(all_of(there) == before);
                continue;
            }
            CHECK(
                std::any_of(o.damages.begin(), o.damages.end(), [&](const auto& d) { return d.file == w.path && d.byte >= from && d.byte < until; }));
            CHECK(std::includes(w.kept.begin(), w.kept.end(), o.found.begin(), o.found.end()));
            if (until <= 128) { CHECK(o.found == w.kept); } // a header: each record stands for itself
            if (how == on_damage::read_only) { CHECK(all_of(there) == before); }
        }
    };
    for (std::uint64_t bit = 0; bit < length * 8; ++bit) {
        CAPTURE(bit);
        const disk files = w.files.clone();
        disk(files).flip_bit(w.path, bit);
        const std::uint64_t whole = (length - 128) / 3; // of a record
        const std::uint64_t byte = bit / 8, start = byte < 64 ? 0 : byte < 128 ? 64 : 128 + (byte - 128) / whole * whole;
        check(files, start, byte < 128 ? start + 64 : start + whole);
    }
    for (std::uint64_t bytes = 0; bytes < length; ++bytes) {
        CAPTURE(bytes);
        const disk files = w.files.clone();
        disk(files).cut(w.path, bytes);
        check(files, 0, length);
    }
}

TEST_CASE("survivors: their file is missing, or another one") {
    const with_survivors w;
    for (const bool closed : {true, false}) {
        CAPTURE(closed);
        const disk files = closed ? w.files.clone() : w.killed.clone();
        SUBCASE("missing") { static_cast<void>(disk(files).remove(w.path)); }
        SUBCASE("of another journal") {
            const with_survivors other;
            disk(files).set_contents(w.path, other.files.contents(other.path));
        }
        const auto before = all_of(files);
        const outcome refused = open_and_look(files, on_damage::refuse);
        CHECK(refused.refused.find(w.path) != std::string::npos);
        CHECK(all_of(files) == before);
        const outcome read = open_and_look(files, on_damage::read_only);
        CHECK(read.wrong == "");
        CHECK(read.found.empty());
        CHECK(all_of(files) == before);
        const outcome saved = open_and_look(files, on_damage::salvage);
        CHECK(saved.wrong == "");
        REQUIRE_FALSE(saved.damages.empty());
        CHECK(saved.damages.front().file == w.path);
        CHECK(open_and_look(files, on_damage::refuse).refused == "");
    }
}

TEST_CASE("survivors: damaged before any checkpoint knew of them, they are read from where they were") {
    disk files;
    manual_clock clock;
    const ids kept{3, 20, 38};
    {
        sim_journal j("data", options(clock), files);
        sim_queue q(j, "q", patient);
        churn(q, 1, 41, kept, 4000);
        j.flush();
        // The record is committed, and no manifest written after it.
        const disk before = files.clone();
        for (std::uint64_t n = 0;; ++n) {
            REQUIRE(n < 200);
            const disk one = before.clone();
            disk(one).process_kill();
            sim_journal again("data", options(clock), one);
            sim_queue p(again, "q", patient);
            const auto manifest = one.contents("data/MANIFEST");
            disk(one).crash_at(n);
            try {
                again.compact();
            } catch (const error&) {}
            disk(one).process_kill();
            if (survivor_files(one) == 0 || one.contents("data/MANIFEST") != manifest) { continue; }
            // Whether the record is there can be seen by what opening says of a file that is missing.
            const disk missing = one.clone();
            static_cast<void>(disk(missing).remove(files_ending(one, ".srv").front()));
            try {
                sim_journal third("data", options(clock), missing);
            } catch (const error& e) {
                CHECK(e.kind() == errc::corrupt);
                files = missing;
                break;
            }
        }
    }
    const outcome read = open_and_look(files.clone(), on_damage::read_only);
    CHECK(read.wrong == "");
    CHECK(read.damages.size() == 1);
    CHECK(read.found == kept);
    const outcome saved = open_and_look(files, on_damage::salvage);
    CHECK(saved.damages.size() == 1);
    CHECK(saved.found == kept);
    CHECK(open_and_look(files, on_damage::refuse).refused == "");
}

TEST_CASE("survivors: without a manifest they are found in their files") {
    const disk files; // where the declaration is in a segment still
    manual_clock clock;
    const ids kept{30, 31};
    {
        sim_journal j("data", options(clock), files);
        sim_queue q(j, "q", patient);
        mailroom::topic<std::string, sim_journal> t(j, "t", {.retention = {.messages = 1000}});
        for (unsigned id = 1; id <= 40; ++id) { t.publish(parcel(id, 1000)); } // keeps the first segment
        churn(q, 1, 75, kept, 3000);
        j.compact();
        CHECK(survivor_files(files) == 1);
    }
    for (const char* const name : {"data/MANIFEST", "data/MANIFEST.old"}) { static_cast<void>(disk(files).remove(name)); }
    CHECK(open_and_look(files.clone(), on_damage::refuse).refused.find("MANIFEST") != std::string::npos);
    const outcome read = open_and_look(files.clone(), on_damage::read_only);
    CHECK(read.wrong == "");
    CHECK(std::includes(read.found.begin(), read.found.end(), kept.begin(), kept.end()));
    const outcome saved = open_and_look(files, on_damage::salvage);
    CHECK(saved.wrong == "");
    CHECK(saved.found == read.found);
    CHECK(open_and_look(files, on_damage::refuse).refused == "");
}

TEST_CASE("survivors: a file that nothing speaks of goes with the next opening, and its positions are not used again") {
    const with_survivors w;
    const disk files = w.files.clone();
    auto orphan = w.files.contents(w.path);
    const std::uint64_t first = format::survivors_from + (1 << 20);
    const std::string path = "data/" + format::file_name(first, ".srv");
    disk(files).set_contents(path, orphan);
    const auto before = all_of(files);
    CHECK(open_and_look(files, on_damage::read_only).found == w.kept);
    CHECK(all_of(files) == before); // who only reads removes nothing
    manual_clock clock;
    sim_journal j("data", options(clock), files);
    CHECK(j.recovered().damages.empty());
    CHECK(files_ending(files, ".srv") == std::vector<std::string>{w.path});
    sim_queue q(j, "q", patient);
    churn(q, 75, 150, {50, 51, 52, 99}, 3000);
    j.compact();
    CHECK(alive_in(q) == ids{50, 51, 52, 99});
    CHECK(files_ending(files, ".srv").back() > path);
}
