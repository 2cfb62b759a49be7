// What every disk of the journal promises (journal/files.hpp), and short words for tests that use one.
#pragma once

#include <mailroom/journal/files.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace support {

using mailroom::detail::open_mode;

inline std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string text(std::span<const std::byte> all) {
    std::string s;
    for (const std::byte b : all) { s.push_back(static_cast<char>(b)); }
    return s;
}

/// Writes all of it, however little goes at a time; for ever on a disk that takes nothing.
template <class Files>
std::error_code write_all(const Files& files, typename Files::file& f, std::uint64_t at, std::string_view what) {
    while (!what.empty()) {
        const std::span<const std::byte> part = bytes(what);
        std::size_t written = 0;
        const std::error_code e = files.write(f, at, {&part, 1}, written);
        if (e && e != std::errc::interrupted) { return e; }
        at += written;
        what.remove_prefix(written);
    }
    return {};
}
/// Reads the whole file, however little comes at a time.
template <class Files>
std::string read_all(const Files& files, const typename Files::file& f) {
    std::string all;
    std::vector<std::byte> some(1000);
    for (;;) {
        std::size_t got = 0;
        const std::error_code e = files.read(f, all.size(), some, got);
        if (e == std::errc::interrupted) { continue; }
        if (e) { return "error: " + e.message(); }
        if (got == 0) { return all; }
        all += text(std::span(some).first(got));
    }
}
/// Creates a file that holds this, unsynced.
template <class Files>
typename Files::file make_file(const Files& files, const std::string& path, std::string_view what = "") {
    typename Files::file f;
    REQUIRE(files.open(path, open_mode::create, f) == std::error_code());
    REQUIRE(write_all(files, f, 0, what) == std::error_code());
    return f;
}
template <class Files>
std::string read_file(const Files& files, const std::string& path) {
    typename Files::file f;
    if (const std::error_code e = files.open(path, open_mode::read, f)) { return "error: " + e.message(); }
    return read_all(files, f);
}

/// The promises, one after the other, in an empty directory that may be written to.
template <class Files>
void check_files_contract(const Files& files, const std::string& directory) {
    using file = typename Files::file;
    const std::error_code ok;
    const std::string path = directory + "/file";
    std::vector<std::string> names;
    std::uint64_t size = 99;
    std::size_t count = 99;
    std::vector<std::byte> room(10);

    SUBCASE("handles: none is open by default, calls on none are refused, closing none is nothing") {
        file none;
        CHECK_FALSE(none.is_open());
        const std::span<const std::byte> part = bytes("x");
        CHECK(files.write(none, 0, {&part, 1}, count) == std::errc::bad_file_descriptor);
        CHECK(count == 0);
        count = 99;
        CHECK(files.read(none, 0, room, count) == std::errc::bad_file_descriptor);
        CHECK(count == 0);
        CHECK(files.sync(none) == std::errc::bad_file_descriptor);
        CHECK(files.sync_all(none) == std::errc::bad_file_descriptor);
        CHECK(files.size(none, size) == std::errc::bad_file_descriptor);
        CHECK(files.truncate(none, 0) == std::errc::bad_file_descriptor);
        CHECK(files.lock(none) == std::errc::bad_file_descriptor);
        CHECK(files.close(none) == ok);
    }
    SUBCASE("handles: move, close and open again") {
        file first = make_file(files, path, "one");
        file second(std::move(first));
        CHECK_FALSE(first.is_open());
        CHECK(second.is_open());
        first = std::move(second);
        CHECK(read_all(files, first) == "one");
        second = make_file(files, directory + "/other", "two");
        first = std::move(second); // which closes what it was
        CHECK(read_all(files, first) == "two");
        CHECK(files.open(path, open_mode::read, first) == ok);
        CHECK(read_all(files, first) == "one");
        CHECK(files.open(directory + "/missing", open_mode::read, first) == std::errc::no_such_file_or_directory);
        CHECK(read_all(files, first) == "one"); // a failed open changes nothing
        CHECK(files.close(first) == ok);
        CHECK_FALSE(first.is_open());
        CHECK(files.close(first) == ok);
    }
    SUBCASE("open: what must exist and what must not") {
        file f;
        CHECK(files.open(path, open_mode::read, f) == std::errc::no_such_file_or_directory);
        CHECK(files.open(path, open_mode::write, f) == std::errc::no_such_file_or_directory);
        CHECK(files.open(directory + "/missing/file", open_mode::create, f) == std::errc::no_such_file_or_directory);
        CHECK_FALSE(f.is_open());
        CHECK(files.open(path, open_mode::create, f) == ok);
        CHECK(files.open(path + "/file", open_mode::create, f) == std::errc::not_a_directory);
        CHECK(files.open(path, open_mode::create, f) == std::errc::file_exists);
        CHECK(files.open(directory, open_mode::create, f) == std::errc::file_exists);
        CHECK(write_all(files, f, 0, "made") == ok);
        CHECK(read_all(files, f) == "made");
        CHECK(files.open(path, open_mode::write, f) == ok);
        CHECK(write_all(files, f, 2, "de it") == ok);
        CHECK(read_all(files, f) == "made it");
        CHECK(files.open(path, open_mode::read, f) == ok);
        CHECK(write_all(files, f, 0, "no") == std::errc::bad_file_descriptor);
        CHECK(bool(files.truncate(f, 0)));
        CHECK(bool(files.lock(f)));
        CHECK(read_all(files, f) == "made it");
    }
    SUBCASE("write: parts one after the other, empty ones too, anywhere") {
        file f = make_file(files, path);
        const std::vector<std::span<const std::byte>> parts{bytes("ab"), {}, bytes("c"), bytes("def")};
        CHECK(files.write(f, 0, parts, count) == ok);
        CHECK(count == 6);
        CHECK(files.write(f, 9, std::span(parts).first(1), count) == ok);
        CHECK(count == 2);
        CHECK(files.write(f, 4, std::span(parts).subspan(1, 2), count) == ok);
        CHECK(count == 1);
        using namespace std::string_view_literals;
        CHECK(read_file(files, path) == "abcdcf\0\0\0ab"sv); // through another handle
        CHECK(files.write(f, 2, {}, count) == ok);
        CHECK(count == 0);
        CHECK(files.write(f, 200, std::span(parts).subspan(1, 1), count) == ok);
        CHECK(count == 0);
        CHECK(files.size(f, size) == ok);
        CHECK(size == 11);
    }
    SUBCASE("write: more parts than the system takes at once, most of them empty") {
        file f = make_file(files, path);
        std::string expected;
        std::vector<std::span<const std::byte>> parts(5000);
        const std::string letters = "abcdefghijklmnopqrstuvwxyz";
        for (std::size_t i = 2000; i < parts.size(); ++i) {
            parts[i] = bytes(std::string_view(letters).substr(i % 26, 1));
            expected += letters[i % 26];
        }
        std::uint64_t at = 0;
        while (at < expected.size()) {
            // What is left: the parts from here on.
            REQUIRE(files.write(f, at, std::span(parts).subspan(at == 0 ? 0 : 2000 + static_cast<std::size_t>(at)), count) == ok);
            REQUIRE(count > 0);
            at += count;
        }
        CHECK(at == expected.size());
        CHECK(read_all(files, f) == expected);
    }
    SUBCASE("write and truncate: nowhere near the end of all places") {
        file f = make_file(files, path, "here");
        const std::span<const std::byte> part = bytes("x");
        CHECK(bool(files.write(f, ~std::uint64_t{0}, {&part, 1}, count)));
        CHECK(count == 0);
        CHECK(bool(files.write(f, std::uint64_t{1} << 63, {&part, 1}, count)));
        CHECK(bool(files.truncate(f, ~std::uint64_t{0})));
        CHECK(files.read(f, ~std::uint64_t{0}, room, count) == ok);
        CHECK(count == 0);
        CHECK(read_all(files, f) == "here");
    }
    SUBCASE("read: what is there, nothing at the end") {
        file f = make_file(files, path, "0123456789abc");
        CHECK(files.read(f, 8, room, count) == ok);
        CHECK(count == 5);
        CHECK(text(std::span(room).first(5)) == "89abc");
        CHECK(files.read(f, 13, room, count) == ok);
        CHECK(count == 0);
        CHECK(files.read(f, 1000, room, count) == ok);
        CHECK(count == 0);
        CHECK(files.read(f, 0, {}, count) == ok);
        CHECK(count == 0);
    }
    SUBCASE("read: from several threads at once, through one handle") {
        std::string expected;
        for (int i = 0; i < 20'000; ++i) { expected.push_back(static_cast<char>('a' + i % 23)); }
        const file f = make_file(files, path, expected);
        std::vector<std::string> seen(4);
        std::vector<std::thread> readers;
        for (std::string& s : seen) {
            readers.emplace_back([&] { s = read_all(files, f); });
        }
        for (std::thread& t : readers) { t.join(); }
        for (const std::string& s : seen) { CHECK(s == expected); }
    }
    SUBCASE("truncate and size: shorter, and longer by zeros") {
        file f = make_file(files, path, "0123456789");
        CHECK(files.truncate(f, 3) == ok);
        CHECK(files.size(f, size) == ok);
        CHECK(size == 3);
        CHECK(files.truncate(f, 5) == ok);
        CHECK(read_all(files, f) == std::string("012\0\0", 5));
        CHECK(files.truncate(f, 0) == ok);
        CHECK(files.size(f, size) == ok);
        CHECK(size == 0);
    }
    SUBCASE("sync: of files and directories") {
        file f = make_file(files, path, "data");
        CHECK(files.sync(f) == ok);
        CHECK(files.sync_all(f) == ok);
        CHECK(files.sync_directory(directory) == ok);
        CHECK(files.sync_directory(directory + "/missing") == std::errc::no_such_file_or_directory);
        CHECK(files.sync_directory(path) == std::errc::not_a_directory);
        CHECK(read_all(files, f) == "data");
    }
    SUBCASE("rename: replaces, and what is open stays what it was") {
        file a = make_file(files, path, "a");
        file b = make_file(files, directory + "/other", "b");
        CHECK(files.rename(path, path) == ok);
        CHECK(files.rename(path, directory + "/other") == ok);
        CHECK(read_file(files, directory + "/other") == "a");
        CHECK(files.rename(path, directory + "/third") == std::errc::no_such_file_or_directory);
        CHECK(write_all(files, a, 0, "A") == ok);
        CHECK(read_file(files, directory + "/other") == "A");
        CHECK(read_all(files, b) == "b");
        CHECK(files.rename(directory + "/other", directory + "/new") == ok);
        CHECK(files.list(directory, names) == ok);
        CHECK(names == std::vector<std::string>{"new"});
    }
    SUBCASE("remove: takes the name, not what is open") {
        file f = make_file(files, path, "left");
        CHECK(files.remove(path) == ok);
        CHECK(files.remove(path) == std::errc::no_such_file_or_directory);
        CHECK(files.make_directory(directory + "/below") == ok);
        CHECK(bool(files.remove(directory + "/below")));
        CHECK(read_all(files, f) == "left");
        CHECK(files.sync(f) == ok);
        file again = make_file(files, path, "new");
        CHECK(read_all(files, f) == "left");
    }
    SUBCASE("list: bare names of files, sorted") {
        names = {"old"};
        CHECK(files.list(directory, names) == ok);
        CHECK(names.empty());
        CHECK(files.make_directory(directory + "/below") == ok);
        for (const char* name : {"b", "a", "below/c", "A", "z.log"}) { make_file(files, directory + '/' + name); }
        CHECK(files.list(directory, names) == ok);
        CHECK(names == std::vector<std::string>{"A", "a", "b", "z.log"});
        CHECK(files.list(directory + "/below/", names) == ok);
        CHECK(names == std::vector<std::string>{"c"});
        CHECK(files.list(directory + "/missing", names) == std::errc::no_such_file_or_directory);
        CHECK(files.list(directory + "/a", names) == std::errc::not_a_directory);
    }
    SUBCASE("make_directory: one level, and one that exists is fine") {
        make_file(files, path);
        CHECK(files.make_directory(directory) == ok);
        CHECK(files.make_directory(directory + "/one/two") == std::errc::no_such_file_or_directory);
        CHECK(files.make_directory(directory + "/one") == ok);
        CHECK(files.make_directory(directory + "/one/two") == ok);
        CHECK(files.make_directory(directory + "/one") == ok);
        CHECK(files.make_directory(path) == std::errc::not_a_directory);
        CHECK(files.make_directory(path + "/one") == std::errc::not_a_directory);
        make_file(files, directory + "/one/two/three");
    }
    SUBCASE("is_writable: asks about directories") {
        make_file(files, path);
        CHECK(files.is_writable(directory) == ok);
        CHECK(files.is_writable(directory + "/missing") == std::errc::no_such_file_or_directory);
        CHECK(files.is_writable(path) == std::errc::not_a_directory);
    }
    SUBCASE("identity: the same for all paths to one directory, and for no other") {
        make_file(files, path);
        CHECK(files.make_directory(directory + "/below") == ok);
        std::string here, there, again;
        CHECK(files.identity(directory, here) == ok);
        CHECK(files.identity(directory + "/below", there) == ok);
        CHECK(here != there);
        for (const char* detour : {"/", "/.", "//", "/below/..", "/./below/../"}) {
            CAPTURE(detour);
            CHECK(files.identity(directory + detour, again) == ok);
            CHECK(again == here);
        }
        CHECK(files.identity(directory + "/missing", again) == std::errc::no_such_file_or_directory);
        CHECK(files.identity(path, again) == std::errc::not_a_directory);
    }
    SUBCASE("lock: taken once, taken again by who has it, free after a close") {
        file f = make_file(files, path);
        CHECK(files.lock(f) == ok);
        CHECK(files.lock(f) == ok);
        CHECK(files.close(f) == ok);
        CHECK(files.open(path, open_mode::write, f) == ok);
        CHECK(files.lock(f) == ok);
    }
}

} // namespace support
