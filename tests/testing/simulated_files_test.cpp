#include <mailroom/testing/simulated_files.hpp>

#include "support/files_contract.hpp"
#include "support/random.hpp"

#include <mailroom/base/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using mailroom::testing::loss;
using mailroom::testing::simulated_files;
using support::bytes;
using support::make_file;
using support::open_mode;
using support::read_all;
using support::write_all;
using file = simulated_files::file;
using names = std::vector<std::string>;

namespace {

const std::error_code ok;
const auto io_error = std::make_error_code(std::errc::io_error);
const auto no_space = std::make_error_code(std::errc::no_space_on_device);

std::string contents(const simulated_files& disk, const std::string& path) { return support::text(disk.contents(path)); }

file open(const simulated_files& disk, const std::string& path, open_mode mode = open_mode::write) {
    file f;
    REQUIRE(disk.open(path, mode, f) == ok);
    return f;
}

// A file whose name and bytes are synced.
file make_synced(const simulated_files& disk, const std::string& path, const std::string& what = "") {
    file f = make_file(disk, path, what);
    REQUIRE(disk.sync(f) == ok);
    REQUIRE(disk.sync_directory("") == ok);
    return f;
}

// Everything that a power cut may leave of a file, by so many seeds; "-" where the file itself is gone.
std::set<std::string> outcomes(const simulated_files& disk, const std::string& path, loss what, std::uint64_t seeds = 400) {
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
        simulated_files other = disk.clone();
        other.power_cut(seed, what);
        const names all = other.files();
        seen.insert(std::find(all.begin(), all.end(), path) == all.end() ? "-" : contents(other, path));
    }
    return seen;
}

std::set<names> outcomes_of_names(const simulated_files& disk, loss what) {
    std::set<names> seen;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        simulated_files other = disk.clone();
        other.power_cut(seed, what);
        seen.insert(other.files());
    }
    return seen;
}

std::error_code write_some(const simulated_files& disk, file& f, std::uint64_t at, const std::string& what, std::size_t& written) {
    const std::span<const std::byte> part = bytes(what);
    return disk.write(f, at, {&part, 1}, written);
}

const std::string sector_a(512, 'a'), sector_b(512, 'b'), sector_c(512, 'c'), zeros(512, '\0');

} // namespace

TEST_CASE("simulated_files: what every disk promises") {
    const simulated_files disk;
    SUBCASE("at the root") { support::check_files_contract(disk, "."); }
    SUBCASE("below") {
        REQUIRE(disk.make_directory("/some") == ok);
        REQUIRE(disk.make_directory("some/where") == ok);
        support::check_files_contract(disk, "some/where");
    }
}

TEST_CASE("simulated_files: copies share a disk, and each new one is another") {
    const simulated_files disk, copy = disk, other;
    make_file(disk, "a", "text");
    CHECK(contents(copy, "a") == "text");
    CHECK(other.files().empty());
    std::string one, two, three;
    CHECK(disk.identity("", one) == ok);
    CHECK(copy.identity("/", two) == ok);
    CHECK(other.identity(".", three) == ok);
    CHECK(one == two);
    CHECK(one != three);
}

TEST_CASE("simulated_files: a file is moved within its directory only") {
    const simulated_files disk;
    make_file(disk, "a");
    REQUIRE(disk.make_directory("below") == ok);
    CHECK(disk.rename("a", "below/a") == std::errc::cross_device_link);
    CHECK(disk.rename("a", "below") == std::errc::is_a_directory);
    CHECK(disk.rename("below", "b") == std::errc::is_a_directory);
    CHECK(disk.files() == names{"a"});
}

TEST_CASE("simulated_files: a lock keeps other handles out, until a close, the end of the handle, or a kill") {
    simulated_files disk;
    file a = make_file(disk, "LOCK");
    file b = open(disk, "LOCK");
    CHECK(disk.lock(a) == ok);
    CHECK(disk.lock(b) == std::errc::device_or_resource_busy);
    CHECK(disk.close(b) == ok); // which has not got it
    b = open(disk, "LOCK");
    CHECK(disk.lock(b) == std::errc::device_or_resource_busy);
    SUBCASE("close") { CHECK(disk.close(a) == ok); }
    SUBCASE("destruction") { a = file(); }
    SUBCASE("kill") {
        disk.process_kill();
        b = open(disk, "LOCK");
    }
    SUBCASE("power cut") {
        disk.power_cut(1, loss::nothing);
        b = open(disk, "LOCK");
    }
    CHECK(disk.lock(b) == ok);
    a = file(); // a dead handle lets nothing go
    file c = open(disk, "LOCK");
    CHECK(disk.lock(c) == std::errc::device_or_resource_busy);
}

// ---- what is synced and what is not -------------------------------------------------------------------------------------------

TEST_CASE("power_cut: what was synced stays, whatever else is lost") {
    for (const bool all : {false, true}) {
        const simulated_files disk;
        file f = make_file(disk, "a", "old");
        CHECK((all ? disk.sync_all(f) : disk.sync(f)) == ok);
        CHECK(disk.sync_directory("") == ok);
        CHECK(write_all(disk, f, 1, "new") == ok);
        CHECK(contents(disk, "a") == "onew"); // unsynced is there to be read
        for (const loss what : {loss::everything, loss::random, loss::tail}) { CHECK(outcomes(disk, "a", what).contains("old")); }
        CHECK(outcomes(disk, "a", loss::everything).size() == 1);
        CHECK(outcomes(disk, "a", loss::nothing) == std::set<std::string>{"onew"});
        CHECK(disk.sync(f) == ok);
        for (const loss what : {loss::nothing, loss::everything, loss::random, loss::tail}) {
            CHECK(outcomes(disk, "a", what) == std::set<std::string>{"onew"});
        }
    }
}

TEST_CASE("power_cut: random keeps any sectors, and any part of a longer file's length") {
    const simulated_files disk;
    file f = make_synced(disk, "a", sector_a + sector_a);
    SUBCASE("of one write, in place") {
        CHECK(write_all(disk, f, 0, sector_b + sector_b) == ok);
        std::set<std::string> whole; // the torn ones apart
        for (const std::string& s : outcomes(disk, "a", loss::random)) {
            CHECK(s.size() == 1024);
            const std::string first = s.substr(0, 512), second = s.substr(512);
            if ((first == sector_a || first == sector_b) && (second == sector_a || second == sector_b)) { whole.insert(s); }
        }
        CHECK(whole == std::set{sector_a + sector_a, sector_a + sector_b, sector_b + sector_a, sector_b + sector_b});
    }
    SUBCASE("of two writes, in any order") {
        CHECK(write_all(disk, f, 0, sector_b) == ok);
        CHECK(write_all(disk, f, 512, sector_b) == ok);
        const auto seen = outcomes(disk, "a", loss::random);
        CHECK(seen.contains(sector_a + sector_b));
        CHECK(seen.contains(sector_b + sector_a));
    }
    SUBCASE("by sectors of the file, not of the write") {
        CHECK(write_all(disk, f, 500, "xxxxxxxxxxxxxxxxxxxxxxxx") == ok);
        std::string first = sector_a + sector_a, second = first;
        first.replace(500, 12, 12, 'x');
        second.replace(512, 12, 12, 'x');
        const auto seen = outcomes(disk, "a", loss::random);
        CHECK(seen.contains(first));
        CHECK(seen.contains(second));
    }
    SUBCASE("of what makes it longer") {
        CHECK(write_all(disk, f, 1024, sector_b + sector_c) == ok);
        const auto seen = outcomes(disk, "a", loss::random);
        const std::string old = sector_a + sector_a;
        for (const std::string& left :
             {old, old + sector_b, old + zeros, old + zeros + zeros, old + sector_b + zeros, old + zeros + sector_c, old + sector_b + sector_c}) {
            CHECK(seen.contains(left));
        }
        for (const std::string& s : seen) { CHECK(s.substr(0, 1024) == old); }
    }
    SUBCASE("of what makes it longer, from within a sector to within another") {
        const std::string old = sector_a + sector_a;
        CHECK(write_all(disk, f, 1024, "x") == ok);
        CHECK(disk.sync(f) == ok);
        CHECK(write_all(disk, f, 1025, sector_b + sector_b) == ok);
        std::set<std::size_t> lengths;
        for (const std::string& s : outcomes(disk, "a", loss::random)) { lengths.insert(s.size()); }
        CHECK(lengths == std::set<std::size_t>{1025, 1536, 2048, 2049});
    }
    SUBCASE("of cuts") {
        CHECK(disk.truncate(f, 512) == ok);
        CHECK(outcomes(disk, "a", loss::random) == std::set{sector_a, sector_a + sector_a});
        CHECK(outcomes(disk, "a", loss::everything) == std::set{sector_a + sector_a});
        CHECK(disk.sync(f) == ok);
        CHECK(outcomes(disk, "a", loss::everything) == std::set{sector_a});
    }
}

TEST_CASE("power_cut: random may tear the last write at any byte, and no other") {
    const simulated_files disk;
    file f = make_synced(disk, "a", "........");
    file g = make_synced(disk, "b", "........");
    CHECK(write_all(disk, f, 0, "1234") == ok);
    CHECK(write_all(disk, g, 0, "56789") == ok);
    CHECK(outcomes(disk, "a", loss::random) == std::set<std::string>{"........", "1234...."});
    CHECK(outcomes(disk, "b", loss::random) == std::set<std::string>{"........", "5.......", "56......", "567.....", "5678....", "56789..."});
}

TEST_CASE("power_cut: tail keeps what came before some moment, in all files") {
    simulated_files disk;
    file f = make_synced(disk, "a", "....");
    file g = make_synced(disk, "b", "....");
    CHECK(write_all(disk, f, 0, "1") == ok);
    CHECK(write_all(disk, g, 0, "2") == ok);
    make_file(disk, "c");
    CHECK(write_all(disk, f, 1, "33") == ok);
    CHECK(disk.truncate(g, 1) == ok);
    CHECK(disk.remove("c") == ok);
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < 400; ++seed) {
        simulated_files other = disk.clone();
        other.power_cut(seed, loss::tail);
        std::string all;
        for (const std::string& path : other.files()) { all += path + contents(other, path); }
        seen.insert(all);
    }
    CHECK(seen ==
          std::set<std::string>{"a....b....", "a1...b....", "a1...b2...", "a1...b2...c", "a13..b2...c", "a133.b2...c", "a133.b2c", "a133.b2"});
}

TEST_CASE("power_cut: the same seed leaves the same bytes, on a clone too; others leave others") {
    support::for_each_seed(20, [](std::uint64_t seed) {
        CAPTURE(seed);
        simulated_files disk;
        support::dice dice(seed);
        REQUIRE(disk.make_directory("d") == ok);
        for (int i = 0; i < 6; ++i) {
            file f = make_file(disk, "d/" + std::to_string(dice.below(1000)) + '_' + std::to_string(i), std::string(dice.below(3000), 'x'));
            if (dice.percent(30)) { CHECK(disk.sync(f) == ok); }
            if (dice.percent(30)) { CHECK(disk.sync_directory("d") == ok); }
        }
        make_file(disk, "d/last", std::string(3000, 'y')); // at least this may be lost
        CHECK(disk.sync_directory("") == ok);
        const auto after = [&](std::uint64_t s, loss what) {
            simulated_files other = disk.clone();
            other.power_cut(s, what);
            std::vector<std::pair<std::string, std::vector<std::byte>>> all;
            for (const std::string& path : other.files()) { all.emplace_back(path, other.contents(path)); }
            return all;
        };
        bool differs = false;
        for (std::uint64_t s = 0; s < 20; ++s) {
            CHECK(after(s, loss::random) == after(s, loss::random));
            CHECK(after(s, loss::tail) == after(s, loss::tail));
            differs = differs || after(s, loss::random) != after(s + 1, loss::random);
        }
        CHECK(differs);
        const auto expected = after(seed, loss::random);
        disk.power_cut(seed);
        for (const auto& [path, all] : expected) { CHECK(disk.contents(path) == all); }
        return true;
    });
}

TEST_CASE("power_cut: what it leaves is synced, and what was open is dead") {
    simulated_files disk;
    file f = make_file(disk, "a", "text");
    file writable = open(disk, "a");
    disk.power_cut(1, loss::nothing);
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"text"});
    std::size_t count = 0;
    std::uint64_t size = 0;
    std::vector<std::byte> room(4);
    CHECK(f.is_open());
    CHECK(disk.read(f, 0, room, count) == std::errc::bad_file_descriptor);
    CHECK(write_all(disk, writable, 0, "x") == std::errc::bad_file_descriptor);
    CHECK(disk.sync(writable) == std::errc::bad_file_descriptor);
    CHECK(disk.sync_all(writable) == std::errc::bad_file_descriptor);
    CHECK(disk.truncate(writable, 0) == std::errc::bad_file_descriptor);
    CHECK(disk.size(f, size) == std::errc::bad_file_descriptor);
    CHECK(disk.lock(writable) == std::errc::bad_file_descriptor);
    CHECK(disk.close(f) == std::errc::bad_file_descriptor);
    CHECK_FALSE(f.is_open());
    CHECK(contents(disk, "a") == "text");
}

TEST_CASE("process_kill: everything stays, nothing is synced by it") {
    simulated_files disk;
    file f = make_synced(disk, "a", "old");
    CHECK(write_all(disk, f, 0, "new") == ok);
    make_file(disk, "b");
    disk.process_kill();
    CHECK(disk.sync(f) == std::errc::bad_file_descriptor);
    CHECK(contents(disk, "a") == "new");
    CHECK(disk.files() == names{"a", "b"});
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"old"});
    CHECK(outcomes_of_names(disk, loss::everything) == std::set{names{"a"}});
    f = open(disk, "a");
    CHECK(disk.sync(f) == ok); // the next process can do it
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"new"});
}

// ---- names --------------------------------------------------------------------------------------------------------------------

TEST_CASE("power_cut: a new file is gone without a sync of its directory, synced bytes or not") {
    const simulated_files disk;
    file f = make_file(disk, "a", "text");
    CHECK(disk.sync_all(f) == ok);
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"-"});
    CHECK(outcomes(disk, "a", loss::random) == std::set<std::string>{"-", "text"});
    CHECK(disk.sync_directory("/") == ok);
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"text"});
}

TEST_CASE("power_cut: a synced name without synced bytes is an empty file") {
    const simulated_files disk;
    make_file(disk, "a", "text");
    CHECK(disk.sync_directory("") == ok);
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{""});
}

TEST_CASE("power_cut: a directory's changes are kept up to some point, each directory's on their own") {
    const simulated_files disk;
    REQUIRE(disk.make_directory("d") == ok);
    REQUIRE(disk.sync_directory("") == ok);
    SUBCASE("in one directory") {
        make_file(disk, "1");
        make_file(disk, "2");
        CHECK(disk.rename("1", "3") == ok);
        CHECK(disk.remove("2") == ok);
        CHECK(outcomes_of_names(disk, loss::random) == std::set{names{}, names{"1"}, names{"1", "2"}, names{"2", "3"}, names{"3"}});
        CHECK(outcomes_of_names(disk, loss::nothing) == std::set{names{"3"}});
        CHECK(disk.sync_directory("") == ok);
        CHECK(outcomes_of_names(disk, loss::everything) == std::set{names{"3"}});
    }
    SUBCASE("in two") {
        make_file(disk, "1");
        make_file(disk, "d/2");
        CHECK(outcomes_of_names(disk, loss::random) == std::set{names{}, names{"1"}, names{"d/2"}, names{"1", "d/2"}});
        CHECK(outcomes_of_names(disk, loss::tail) == std::set{names{}, names{"1"}, names{"1", "d/2"}});
        CHECK(disk.sync_directory("d") == ok);
        CHECK(outcomes_of_names(disk, loss::everything) == std::set{names{"d/2"}});
    }
    SUBCASE("with the directory itself") {
        REQUIRE(disk.make_directory("new") == ok);
        file f = make_file(disk, "new/file", "text");
        CHECK(disk.sync(f) == ok);
        CHECK(disk.sync_directory("new") == ok);
        CHECK(outcomes_of_names(disk, loss::everything) == std::set{names{}});
        CHECK(outcomes_of_names(disk, loss::random) == std::set{names{}, names{"new/file"}});
    }
}

TEST_CASE("power_cut: a rename leaves the old file or the new one under the name, never neither") {
    const simulated_files disk;
    make_synced(disk, "a", "old");
    file f = make_file(disk, "a.new", "new");
    CHECK(disk.sync(f) == ok);
    CHECK(disk.rename("a.new", "a") == ok);
    CHECK(contents(disk, "a") == "new");
    for (const loss what : {loss::random, loss::tail}) { CHECK(outcomes(disk, "a", what) == std::set<std::string>{"old", "new"}); }
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"old"});
}

TEST_CASE("power_cut: files without a name lose what they had unsynced, like others, before they come back") {
    const simulated_files disk;
    SUBCASE("replaced") {
        file f = make_synced(disk, "a", "old");
        CHECK(write_all(disk, f, 0, "OLD") == ok);
        make_file(disk, "a.new");
        CHECK(disk.rename("a.new", "a") == ok);
        CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"old"});
    }
    SUBCASE("made and removed") {
        make_file(disk, "a", "text");
        CHECK(disk.remove("a") == ok);
        CHECK(outcomes(disk, "a", loss::random).contains("-"));
        CHECK(outcomes(disk, "a", loss::random).contains(""));
        CHECK(outcomes(disk, "a", loss::random).contains("text"));
    }
}

TEST_CASE("power_cut: a file whose removal was not synced may come back as it was") {
    const simulated_files disk;
    make_synced(disk, "a", "text");
    CHECK(disk.remove("a") == ok);
    CHECK(outcomes(disk, "a", loss::random) == std::set<std::string>{"-", "text"});
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"text"});
    make_file(disk, "a", "another");
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"text"});
    CHECK(disk.sync_directory("") == ok);
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{""});
}

// ---- crashes ------------------------------------------------------------------------------------------------------------------

TEST_CASE("calls: counts what changes something, failed or not, and nothing else") {
    simulated_files disk;
    auto counted = [&, last = disk.calls()]() mutable {
        const std::uint64_t now = disk.calls();
        return now - std::exchange(last, now);
    };
    std::size_t count = 0;
    file f;
    CHECK(disk.open("a", open_mode::create, f) == ok);
    CHECK(counted() == 1);
    CHECK(write_some(disk, f, 0, "x", count) == ok);
    CHECK(counted() == 1);
    CHECK(disk.sync(f) == ok);
    CHECK(counted() == 1);
    CHECK(disk.sync_all(f) == ok);
    CHECK(counted() == 1);
    CHECK(disk.truncate(f, 0) == ok);
    CHECK(counted() == 1);
    CHECK(disk.rename("a", "b") == ok);
    CHECK(counted() == 1);
    CHECK(disk.remove("b") == ok);
    CHECK(counted() == 1);
    CHECK(disk.remove("b") == std::errc::no_such_file_or_directory);
    CHECK(counted() == 1);
    CHECK(disk.make_directory("d") == ok);
    CHECK(counted() == 1);
    CHECK(disk.sync_directory("d") == ok);
    CHECK(counted() == 1);

    f = make_file(disk, "c");
    CHECK(counted() == 1);
    std::uint64_t size = 0;
    std::vector<std::byte> room(3);
    names all;
    std::string id;
    CHECK(disk.lock(f) == ok);
    CHECK(disk.read(f, 0, room, count) == ok);
    CHECK(disk.size(f, size) == ok);
    CHECK(disk.list("d", all) == ok);
    CHECK(disk.is_writable("d") == ok);
    CHECK(disk.identity("d", id) == ok);
    CHECK(disk.close(f) == ok);
    f = open(disk, "c", open_mode::write);
    f = open(disk, "c", open_mode::read);
    disk.set_contents("c", bytes("xyz"));
    disk.flip_bit("c", 3);
    disk.cut("c", 1);
    disk.power_cut(1);
    disk.process_kill();
    CHECK(counted() == 0);
}

TEST_CASE("crash_at: for every call of a program, the calls before it happened, it and the rest did not") {
    // Each call changes what can be seen by a mark of its own.
    const std::vector<std::function<std::error_code(const simulated_files&, file&)>> program{
        [](const simulated_files& d, file& f) { return d.open("a", open_mode::create, f); },
        [](const simulated_files& d, file& f) { return write_all(d, f, 0, "1234"); },
        [](const simulated_files& d, file& f) { return d.sync(f); },
        [](const simulated_files& d, file& f) { return d.truncate(f, 3); },
        [](const simulated_files& d, file& f) { return d.sync_all(f); },
        [](const simulated_files& d, file&) { return d.make_directory("d"); },
        [](const simulated_files& d, file&) { return d.rename("a", "b"); },
        [](const simulated_files& d, file&) { return d.sync_directory(""); },
        [](const simulated_files& d, file&) { return d.remove("b"); },
        [](const simulated_files& d, file&) { return d.sync_directory("/"); },
    };
    const auto picture = [](const simulated_files& disk, loss what) {
        simulated_files other = disk.clone();
        other.power_cut(0, what);
        std::string all;
        for (const std::string& path : other.files()) { all += path + '=' + contents(other, path) + ' '; }
        std::string id;
        return all + (other.identity("d", id) ? "" : "d");
    };
    for (const bool torn : {false, true}) {
        for (std::size_t n = 0; n < program.size(); ++n) {
            CAPTURE(torn);
            CAPTURE(n);
            simulated_files expected;
            file g;
            for (std::size_t i = 0; i < n + (torn ? 1 : 0); ++i) { REQUIRE(program[i](expected, g) == ok); }

            simulated_files disk;
            file f;
            disk.crash_at(n, torn ? std::optional<std::uint64_t>(100) : std::nullopt);
            for (std::size_t i = 0; i < program.size(); ++i) {
                CHECK(disk.is_off() == (i > n));
                const std::error_code e = program[i](disk, f);
                const bool has_handle = f.is_open() || i == 0; // else some calls have nothing to go by
                if (has_handle) { CHECK(e == (i < n ? ok : io_error)); }
            }
            CHECK(disk.is_off());
            CHECK(disk.calls() == n + 1);
            for (const loss what : {loss::nothing, loss::everything}) { CHECK(picture(disk, what) == picture(expected, what)); }
        }
    }
}

TEST_CASE("crash_at: a write may be torn at every byte") {
    for (std::uint64_t length = 0; length <= 5; ++length) {
        simulated_files disk;
        file f = make_synced(disk, "a", "......");
        disk.crash_at(0, length);
        std::size_t written = 99;
        CHECK(write_some(disk, f, 1, "12345", written) == io_error);
        CHECK(written == 0);
        disk.process_kill();
        std::string expected = "......";
        expected.replace(1, static_cast<std::size_t>(length), std::string("12345").substr(0, static_cast<std::size_t>(length)));
        CHECK(contents(disk, "a") == expected);
        CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"......"});
    }
}

TEST_CASE("crash_at: once it is off everything is refused, until the power is back") {
    simulated_files disk;
    file f = make_synced(disk, "a", "text");
    disk.crash_at(0);
    disk.crash_at(1); // instead
    CHECK(disk.sync(f) == ok);
    CHECK(disk.sync(f) == io_error);
    CHECK(disk.is_off());
    const std::uint64_t calls = disk.calls();
    file g;
    std::size_t count = 0;
    std::uint64_t size = 0;
    std::vector<std::byte> room(4);
    names all;
    std::string id;
    CHECK(disk.open("a", open_mode::read, g) == io_error);
    CHECK(disk.open("b", open_mode::create, g) == io_error);
    CHECK(disk.read(f, 0, room, count) == io_error);
    CHECK(write_some(disk, f, 0, "x", count) == io_error);
    CHECK(disk.sync(f) == io_error);
    CHECK(disk.truncate(f, 0) == io_error);
    CHECK(disk.size(f, size) == io_error);
    CHECK(disk.lock(f) == io_error);
    CHECK(disk.rename("a", "b") == io_error);
    CHECK(disk.remove("a") == io_error);
    CHECK(disk.list("", all) == io_error);
    CHECK(disk.make_directory("d") == io_error);
    CHECK(disk.sync_directory("") == io_error);
    CHECK(disk.is_writable("") == io_error);
    CHECK(disk.identity("", id) == io_error);
    CHECK(disk.close(f) == io_error);
    CHECK_FALSE(f.is_open());
    CHECK(disk.calls() == calls);
    CHECK(contents(disk, "a") == "text"); // by the controls it can be looked at
    SUBCASE("kill") { disk.process_kill(); }
    SUBCASE("power cut") { disk.power_cut(1); }
    CHECK_FALSE(disk.is_off());
    f = open(disk, "a");
    CHECK(write_all(disk, f, 0, "next") == ok);
    CHECK(contents(disk, "a") == "next");
}

TEST_CASE("crash_at: one that has not happened does not outlive a kill or a power cut") {
    simulated_files disk;
    disk.crash_at(0);
    SUBCASE("kill") { disk.process_kill(); }
    SUBCASE("power cut") { disk.power_cut(1); }
    make_file(disk, "a", "text");
    CHECK_FALSE(disk.is_off());
}

// ---- faults -------------------------------------------------------------------------------------------------------------------

TEST_CASE("faults: the n-th call fails, once, and no other") {
    simulated_files disk;
    file f = make_synced(disk, "a", "....");
    std::size_t count = 0;
    SUBCASE("write") {
        disk.fail_write(1, no_space);
        CHECK(write_some(disk, f, 0, "1", count) == ok);
        CHECK(disk.sync(f) == ok); // does not count
        CHECK(write_some(disk, f, 1, "2", count) == no_space);
        CHECK(count == 0);
        CHECK(write_some(disk, f, 2, "3", count) == ok);
        CHECK(contents(disk, "a") == "1.3.");
    }
    SUBCASE("write, of which a part got through") {
        disk.fail_write(0, io_error, 2);
        disk.fail_write(0, no_space, 1); // the first that was planned is the answer, and both have been
        CHECK(write_some(disk, f, 0, "123", count) == io_error);
        CHECK(count == 0);
        CHECK(contents(disk, "a") == "12..");
        CHECK(write_some(disk, f, 0, "3", count) == ok);
    }
    SUBCASE("sync and sync_all") {
        disk.fail_sync(1, io_error);
        CHECK(disk.sync(f) == ok);
        CHECK(disk.sync_directory("") == ok);
        CHECK(disk.sync_all(f) == io_error);
        CHECK(disk.sync(f) == ok);
    }
    SUBCASE("read") {
        disk.fail_read(1, io_error);
        std::vector<std::byte> room(2);
        CHECK(disk.read(f, 0, room, count) == ok);
        CHECK(disk.read(f, 0, room, count) == io_error);
        CHECK(count == 0);
        CHECK(disk.read(f, 0, room, count) == ok);
    }
    SUBCASE("open") {
        const auto none_left = std::make_error_code(std::errc::too_many_files_open);
        disk.fail_open(1, none_left);
        disk.fail_open(2, none_left);
        file g;
        CHECK(disk.open("a", open_mode::read, g) == ok);
        CHECK(disk.open("a", open_mode::write, g) == none_left);
        CHECK(disk.open("b", open_mode::create, g) == none_left);
        CHECK(disk.files() == names{"a"});
        CHECK(disk.open("b", open_mode::create, g) == ok);
    }
    SUBCASE("any") {
        const std::vector<std::function<std::error_code()>> calls{
            [&] { return write_all(disk, f, 0, "x"); },
            [&] { return disk.truncate(f, 2); },
            [&] { return disk.rename("a", "b"); },
            [&] { return disk.remove("a"); },
            [&] { return disk.make_directory("d"); },
            [&] {
                file g;
                return disk.open("c", open_mode::create, g);
            },
            [&] { return disk.sync_directory(""); },
            [&] { return disk.sync(f); },
        };
        for (std::size_t i = 0; i < calls.size(); ++i) { disk.fail_call(i, no_space); }
        for (const auto& call : calls) { CHECK(call() == no_space); }
        CHECK(contents(disk, "a") == "....");
        CHECK(disk.files() == names{"a"});
        CHECK(bool(disk.is_writable("d")));
        for (const auto& call : calls) { CHECK(call() != no_space); }
    }
    SUBCASE("none, when they are taken back") {
        disk.fail_call(0, io_error);
        disk.fail_write(0, io_error);
        disk.fail_read(0, io_error);
        disk.fail_open(0, io_error);
        disk.fail_sync(0, io_error);
        disk.crash_at(0);
        disk.capacity(0);
        disk.read_only(true);
        disk.short_writes(true);
        disk.short_reads(true);
        disk.clear_faults();
        for (int i = 0; i < 50; ++i) {
            CHECK(write_some(disk, f, 0, "123456", count) == ok);
            CHECK(count == 6);
            std::vector<std::byte> room(6);
            CHECK(disk.read(f, 0, room, count) == ok);
            CHECK(count == 6);
        }
        CHECK(disk.sync(f) == ok);
        f = open(disk, "a");
    }
}

TEST_CASE("faults: what a failed sync did not bring to the disk no later sync does") {
    for (const bool by_call : {false, true}) {
        simulated_files disk;
        file f = make_synced(disk, "a", "....");
        CHECK(write_all(disk, f, 0, "1") == ok);
        if (by_call) {
            disk.fail_call(0, io_error);
        } else {
            disk.fail_sync(0, io_error);
        }
        CHECK(disk.sync(f) == io_error);
        CHECK(contents(disk, "a") == "1..."); // it can be read
        CHECK(disk.sync(f) == ok);
        CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"...."});
        CHECK(outcomes(disk, "a", loss::random).contains("...."));
        CHECK(outcomes(disk, "a", loss::random).contains("1..."));

        // What is written later is synced, and what is older does not come over it.
        CHECK(write_all(disk, f, 3, "3") == ok);
        CHECK(disk.sync(f) == ok);
        CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"...3"});
        CHECK(outcomes(disk, "a", loss::random).contains("...3"));
        CHECK(outcomes(disk, "a", loss::random).contains("1..3"));
        CHECK(write_all(disk, f, 0, "2") == ok);
        CHECK(disk.sync(f) == ok);
        for (const loss what : {loss::nothing, loss::everything, loss::random, loss::tail}) {
            CHECK(outcomes(disk, "a", what) == std::set<std::string>{"2..3"});
        }
        disk.process_kill(); // the next process is not told either
        f = open(disk, "a");
        CHECK(write_all(disk, f, 1, "4") == ok);
        disk.fail_sync(0, io_error);
        CHECK(disk.sync(f) == io_error);
        disk.process_kill();
        f = open(disk, "a");
        CHECK(disk.sync(f) == ok);
        CHECK(contents(disk, "a") == "24.3");
        CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"2..3"});
    }
}

TEST_CASE("faults: an interrupted sync is none, the next one does it") {
    simulated_files disk;
    file f = make_synced(disk, "a", "....");
    CHECK(write_all(disk, f, 0, "1") == ok);
    disk.fail_sync(0, std::make_error_code(std::errc::interrupted));
    CHECK(disk.sync(f) == std::errc::interrupted);
    CHECK(disk.sync(f) == ok);
    CHECK(outcomes(disk, "a", loss::everything) == std::set<std::string>{"1..."});
}

TEST_CASE("short_writes and short_reads: less than asked, interrupted, but never nothing") {
    simulated_files disk;
    file f = make_synced(disk, "a");
    disk.short_writes(true, 7);
    disk.short_reads(true, 7);
    int shorter = 0, interrupted = 0, whole = 0;
    const std::string ten = "0123456789";
    for (int i = 0; i < 1000; ++i) {
        std::size_t count = 99;
        std::error_code e;
        if (i % 2 == 0) {
            e = write_some(disk, f, 0, ten, count);
        } else {
            std::vector<std::byte> room(1);
            e = disk.read(f, 0, room, count);
            CHECK((e == ok || e == std::errc::interrupted));
            CHECK(count == (e ? 0 : 1));
            continue;
        }
        if (e) {
            CHECK(e == std::errc::interrupted);
            CHECK(count == 0);
            ++interrupted;
        } else {
            CHECK(count >= 1);
            CHECK(count <= 10);
            ++(count < 10 ? shorter : whole);
        }
    }
    CHECK(shorter > 0);
    CHECK(interrupted > 0);
    CHECK(whole > 0);
    std::string text;
    for (int i = 0; i < 500; ++i) { text += ten; }
    CHECK(write_all(disk, f, 0, text) == ok);
    CHECK(read_all(disk, f) == text);
    CHECK(contents(disk, "a") == text);
}

TEST_CASE("capacity: a write takes what fits, then there is no space until there is") {
    simulated_files disk;
    file a = make_file(disk, "a", "1234");
    file b = make_file(disk, "b", "12");
    disk.capacity(10);
    std::size_t count = 0;
    CHECK(write_some(disk, b, 2, "3456", count) == ok);
    CHECK(count == 4);
    CHECK(write_some(disk, a, 0, "abc", count) == ok); // nothing longer
    CHECK(write_some(disk, a, 3, "de", count) == ok);
    CHECK(count == 1); // the rest does not fit
    CHECK(write_some(disk, a, 4, "e", count) == no_space);
    CHECK(count == 0);
    CHECK(write_some(disk, a, 8, "e", count) == no_space); // zeros in between need room too
    CHECK(disk.truncate(a, 5) == no_space);
    CHECK(contents(disk, "a") == "abcd");
    CHECK(disk.truncate(a, 2) == ok);
    CHECK(disk.truncate(a, 3) == ok);
    CHECK(write_some(disk, b, 6, "78", count) == ok);
    CHECK(count == 1);
    CHECK(disk.remove("b") == ok);
    CHECK(write_some(disk, a, 3, "45678901", count) == ok);
    CHECK(count == 7);
    disk.capacity(~std::uint64_t{0});
    CHECK(write_some(disk, a, 10, "0123", count) == ok);
    CHECK(count == 4);
}

TEST_CASE("read_only: everything that changes something is refused, reading goes on") {
    simulated_files disk;
    file f = make_synced(disk, "a", "text");
    REQUIRE(disk.make_directory("d") == ok);
    disk.read_only(true);
    const std::errc refused = std::errc::read_only_file_system;
    file g;
    CHECK(disk.open("b", open_mode::create, g) == refused);
    CHECK(disk.open("a", open_mode::write, g) == refused);
    CHECK(write_all(disk, f, 0, "x") == refused);
    CHECK(disk.truncate(f, 0) == refused);
    CHECK(disk.rename("a", "b") == refused);
    CHECK(disk.remove("a") == refused);
    CHECK(disk.make_directory("e") == refused);
    CHECK(disk.make_directory("d") == ok); // which is there
    CHECK(disk.is_writable("") == refused);
    CHECK(disk.open("a", open_mode::read, g) == ok);
    CHECK(read_all(disk, g) == "text");
    CHECK(disk.files() == names{"a"});
    disk.read_only(false);
    CHECK(disk.is_writable("") == ok);
    CHECK(write_all(disk, f, 0, "T") == ok);
}

// ---- inspection and damage ----------------------------------------------------------------------------------------------------

TEST_CASE("files and contents: what a reader would see") {
    const simulated_files disk;
    CHECK(disk.files().empty());
    REQUIRE(disk.make_directory("d") == ok);
    make_file(disk, "d/z", "1");
    make_file(disk, "e", "2");
    make_file(disk, "a", "3");
    CHECK(disk.files() == names{"a", "d/z", "e"});
    CHECK(contents(disk, "./d//z") == "1");
    for (const char* path : {"missing", "d", "a/b", "missing/a", ""}) {
        CAPTURE(path);
        CHECK_THROWS_AS(static_cast<void>(disk.contents(path)), mailroom::error);
        CHECK_THROWS_AS(simulated_files(disk).cut(path, 1), mailroom::error);
        CHECK_THROWS_AS(simulated_files(disk).flip_bit(path, 1), mailroom::error);
    }
    CHECK_THROWS_WITH(static_cast<void>(disk.contents("missing")), "no file missing: not found");
    CHECK_THROWS_AS(simulated_files(disk).set_contents("missing/a", {}), mailroom::error);
    CHECK_THROWS_AS(simulated_files(disk).set_contents("d", {}), mailroom::error);
}

TEST_CASE("set_contents, flip_bit and cut: what they leave is synced, and whoever has it open sees it") {
    simulated_files disk;
    REQUIRE(disk.make_directory("d") == ok);
    disk.set_contents("d/a", bytes("aaa"));
    CHECK(outcomes(disk, "d/a", loss::everything) == std::set<std::string>{"aaa"});
    file f = open(disk, "d/a");
    CHECK(write_all(disk, f, 0, "bbbb") == ok);
    SUBCASE("set") {
        disk.set_contents("d/a", bytes("ccc"));
        CHECK(read_all(disk, f) == "ccc");
    }
    SUBCASE("flip") {
        disk.flip_bit("d/a", 8); // the lowest of the second byte
        CHECK(read_all(disk, f) == "bcbb");
        disk.flip_bit("d/a", 31);
        CHECK(read_all(disk, f) == "bcb\xe2");
        CHECK_THROWS_AS(disk.flip_bit("d/a", 32), mailroom::error);
    }
    SUBCASE("cut") {
        disk.cut("d/a", 2);
        CHECK(read_all(disk, f) == "bb");
        disk.cut("d/a", 3);
        CHECK(read_all(disk, f) == std::string("bb\0", 3));
    }
    for (const loss what : {loss::everything, loss::random}) { CHECK(outcomes(disk, "d/a", what) == std::set{read_all(disk, f)}); }
}

TEST_CASE("clone: the same state, and from then on another disk") {
    simulated_files disk;
    file f = make_synced(disk, "a", "old");
    CHECK(disk.lock(f) == ok);
    CHECK(write_all(disk, f, 0, "new") == ok);
    CHECK(disk.rename("a", "b") == ok);
    disk.fail_write(0, no_space);
    simulated_files other = disk.clone();
    CHECK(contents(other, "b") == "new");
    CHECK(other.calls() == disk.calls());
    for (const loss what : {loss::nothing, loss::everything, loss::random, loss::tail}) {
        for (const char* path : {"a", "b"}) { CHECK(outcomes(other, path, what) == outcomes(disk, path, what)); }
    }
    file g = open(other, "b");
    CHECK(other.lock(g) == ok); // locks were not cloned
    std::size_t count = 0;
    CHECK(write_some(other, g, 0, "x", count) == no_space); // faults were
    CHECK(write_some(disk, f, 0, "x", count) == no_space);
    CHECK(write_all(other, g, 0, "NEW") == ok);
    CHECK(other.remove("b") == ok);
    CHECK(contents(disk, "b") == "new");
    CHECK(other.files().empty());
    disk.power_cut(1, loss::everything);
    CHECK(disk.files() == names{"a"});
    CHECK(read_all(other, g) == "NEW");

    disk.crash_at(0);
    CHECK(disk.remove("a") == io_error);
    CHECK(disk.clone().is_off());
    disk.process_kill();
    CHECK_FALSE(disk.is_off());
}

TEST_CASE("simulated_files: may be used by several threads at once") {
    simulated_files disk;
    std::atomic<int> done{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&disk, &done, t] {
            const std::string path = std::to_string(t);
            file f;
            bool fine = !disk.open(path, open_mode::create, f);
            for (std::uint64_t i = 0; i < 200; ++i) {
                fine = fine && !write_all(disk, f, i, "x") && !disk.sync(f) && !disk.sync_directory("");
                fine = fine && read_all(disk, f).size() == i + 1;
            }
            done += fine ? 1 : 0;
        });
    }
    while (disk.calls() < 1000) {
        static_cast<void>(disk.files());
        simulated_files other = disk.clone();
        other.power_cut(1);
    }
    for (std::thread& t : threads) { t.join(); }
    CHECK(done == 3);
    CHECK(disk.calls() == 3 * (1 + 200 * 3));
}
