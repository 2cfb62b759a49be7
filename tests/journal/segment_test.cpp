#include <mailroom/journal/posix_files.hpp>
#include <mailroom/journal/segment.hpp>
#include <mailroom/testing/simulated_files.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using namespace mailroom::detail;
using mailroom::errc;
using mailroom::offset;
using mailroom::posix_files;
using mailroom::testing::simulated_files;
using bytes = std::vector<std::byte>;

const std::error_code ok;

journal_id id_of(unsigned n) {
    journal_id id{};
    for (auto& b : id) { b = static_cast<std::byte>(n++); }
    return id;
}
const journal_id ours = id_of(1);

// A fresh directory for each kind of disk, gone with the test.
struct simulated_place {
    using files = simulated_files;
    files disk;
    std::string path = "j";
    simulated_place() { REQUIRE(disk.make_directory(path) == ok); }
};
struct posix_place {
    using files = posix_files;
    files disk;
    std::string path;
    posix_place() {
        path = (std::filesystem::temp_directory_path() / "mailroom_segment_XXXXXX").string();
        REQUIRE(::mkdtemp(path.data()) != nullptr);
    }
    ~posix_place() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    posix_place(const posix_place&) = delete;
    posix_place& operator=(const posix_place&) = delete;
};

template <class Files>
void put(const Files& disk, const std::string& path, bytes_view all) {
    static_cast<void>(disk.remove(path));
    typename Files::file f;
    REQUIRE(disk.open(path, open_mode::create, f) == ok);
    REQUIRE(write_all(disk, f, 0, {&all, 1}) == ok);
}

template <class Files>
void put_index(const Files& disk, const segment<Files>& s) {
    static_cast<void>(disk.remove(s.index_path()));
    typename Files::file f;
    REQUIRE(disk.open(s.index_path(), open_mode::create, f) == ok);
    REQUIRE(s.write_index(disk, f, ours) == ok);
}
// The bytes of the file beside a segment.
bytes index_of(const segment<simulated_files>& s) {
    const simulated_files disk;
    REQUIRE(disk.make_directory("j") == ok);
    put_index(disk, s);
    bytes all;
    REQUIRE(read_file(disk, s.index_path(), all) == ok);
    return all;
}

bytes pattern(std::size_t n, unsigned seed = 1) {
    bytes b(n);
    for (std::size_t i = 0; i < n; ++i) { b[i] = static_cast<std::byte>((i * 31 + seed) >> 3); }
    return b;
}

// What was added, said without cleverness: where each message lies.
using places = std::map<std::pair<std::uint32_t, offset>, std::uint64_t>;

template <class Files>
places added(segment<Files>& s, support::dice& dice, unsigned streams, unsigned messages) {
    places where;
    std::map<std::uint32_t, offset> next;
    std::uint64_t at = s.first();
    for (unsigned i = 0; i < messages; ++i) {
        at += alignment * (1 + dice.below(40));
        const std::uint32_t stream = 1 + dice.below(streams);
        offset& o = next[stream];
        if (dice.percent(5)) { o += 1 + dice.below(100); } // a hole: of messages that are lost
        bool is_new = false;
        const std::size_t which = s.add(stream, o, at, is_new);
        const run& r = s.runs().at(which);
        if (r.stream != stream || r.first + r.count - 1 != o || is_new != (r.count == 1)) { FAIL("run " << which << " is not that of the message"); }
        where[{stream, o++}] = at;
    }
    return where;
}

template <class Read>
void check_places(const std::vector<run>& runs, const places& expected, support::dice& dice, Read read) {
    std::size_t seen = 0;
    for (std::size_t which = 0; which < runs.size(); ++which) {
        const run& r = runs[which];
        seen += r.count;
        std::vector<std::uint64_t> all(r.count);
        REQUIRE(read(which, 0u, std::span(all)));
        for (std::uint32_t i = 0; i < r.count; ++i) {
            const auto at = expected.find({r.stream, r.first + i});
            if (at == expected.end() || at->second != all[i]) { FAIL("offset " << r.first + i << " of stream " << r.stream << " is at " << all[i]); }
        }
        const std::uint32_t from = dice.below(r.count), n = 1 + dice.below(r.count - from);
        std::vector<std::uint64_t> some(n);
        REQUIRE(read(which, from, std::span(some)));
        CHECK(std::equal(some.begin(), some.end(), all.begin() + from));
    }
    CHECK(seen == expected.size());
}

// A sealed segment with its index beside it, and not in memory.
template <class Files>
std::unique_ptr<segment<Files>> with_index(const Files& disk, const std::string& directory, std::uint64_t first, support::dice& dice, places& where,
                                           unsigned messages = 300) {
    auto s = std::make_unique<segment<Files>>(directory, first);
    where = added(*s, dice, 3, messages);
    s->seal();
    put_index(disk, *s);
    s->drop_places();
    return s;
}

template <class Files>
bool reads(segment<Files>& s, const Files& disk, const journal_id& id = ours) {
    std::array<std::uint64_t, 1> to{};
    const run r = s.runs().front();
    return s.places_on_disk(disk, id, r, 0, to);
}

} // namespace

TEST_CASE_TEMPLATE("segment: the index says where each message lies, in memory and on disk", Place, simulated_place, posix_place) {
    support::for_each_seed(20, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        const Place place;
        segment<typename Place::files> s(place.path, alignment * dice.below(1'000'000));
        const places where = added(s, dice, 1 + dice.below(4), 1 + dice.below(800));
        const auto from_memory = [&](std::size_t which, std::uint32_t from, std::span<std::uint64_t> to) {
            s.places_in_memory(which, from, to);
            return true;
        };
        CHECK(s.has_places());
        check_places(s.runs(), where, dice, from_memory);
        CHECK(!s.sealed());
        s.seal();
        CHECK(s.sealed());
        check_places(s.runs(), where, dice, from_memory);

        put_index(place.disk, s);
        s.drop_places();
        CHECK(!s.has_places());
        const auto from_disk = [&](auto& one) {
            return [&](std::size_t which, std::uint32_t from, std::span<std::uint64_t> to) {
                return one.places_on_disk(place.disk, ours, one.runs()[which], from, to);
            };
        };
        check_places(s.runs(), where, dice, from_disk(s));

        segment<typename Place::files> again(place.path, s.first()); // as it is opened from a manifest
        again.set_runs(s.runs());
        CHECK(again.sealed());
        CHECK(!again.has_places());
        check_places(again.runs(), where, dice, from_disk(again));
        s.close();
        check_places(s.runs(), where, dice, from_disk(s));
        return true;
    });
}

TEST_CASE("segment: messages of one stream in a row are one run, whatever lies between; a hole begins another") {
    segment<simulated_files> s("j", 800);
    struct {
        std::uint32_t stream;
        offset o;
        std::size_t which;
        bool is_new;
    } const steps[] = {{1, 5, 0, true}, {2, 0, 1, true}, {1, 6, 0, false}, {1, 8, 2, true}, {2, 1, 1, false}, {1, 9, 2, false}, {1, 7, 3, true}};
    std::uint64_t at = 800;
    for (const auto& step : steps) {
        bool is_new = !step.is_new;
        CHECK(s.add(step.stream, step.o, at += 8, is_new) == step.which);
        CHECK(is_new == step.is_new);
    }
    s.seal();
    std::uint64_t start = 0;
    for (const run& r : s.runs()) {
        CHECK(r.start == start);
        start += r.count;
    }
    CHECK(start == std::size(steps));
}

TEST_CASE("segment: its names, its end, and where a position is in its file") {
    segment<simulated_files> s("some/where", 65'536);
    CHECK(s.path() == "some/where/00000000000000065536.log");
    CHECK(s.index_path() == "some/where/00000000000000065536.idx");
    CHECK_FALSE(s.holds_survivors());
    segment<simulated_files> others("some/where", survivors_from + 8);
    CHECK(others.holds_survivors());
    CHECK(others.path() == "some/where/09223372036854775816.srv");
    CHECK(others.byte_of(survivors_from + 72) == segment_header::size + 64);
    CHECK(others.messages() == 0);
    others.add_survivors(3);
    CHECK(others.messages() == 3);
    CHECK(s.end() == s.first());
    s.set_end(70'000);
    CHECK(s.end() == 70'000);
    CHECK(s.byte_of(65'536) == segment_header::size);
    CHECK(s.byte_of(65'544) == segment_header::size + 8);
}

TEST_CASE("segment: the bytes of an index are these") {
    segment<simulated_files> s("j", 80);
    bool is_new = false;
    s.add(1, 0, 80 + 64, is_new);
    s.add(2, 0, 80 + 128, is_new);
    s.add(1, 1, 80 + 256, is_new);
    s.seal();
    const bytes file = index_of(s);
    journal_id whose{};
    std::uint64_t first = 0;
    bytes_view body;
    REQUIRE(sealed_file::decode(sealed_file::index_word, file, whose, first, body) == nullptr);
    CHECK(whose == ours);
    CHECK(first == 80);
    const bytes expected = [] {
        bytes b;
        for (const unsigned x : {8U, 0U, 0U, 0U, 32U, 0U, 0U, 0U, 16U, 0U, 0U, 0U}) {
            b.push_back(static_cast<std::byte>(x));
        } // stream 1, then stream 2; units of 8 bytes
        return b;
    }();
    CHECK(bytes(body.begin(), body.end()) == expected);
}

TEST_CASE_TEMPLATE("segment: an index that is missing, empty, cut, another's or of another segment is noticed", Place, simulated_place, posix_place) {
    support::dice dice(1);
    const Place place;
    places where;
    const auto s = with_index(place.disk, place.path, 640, dice, where);
    bytes good;
    REQUIRE(read_file(place.disk, s->index_path(), good) == ok);
    CHECK(good.size() > sealed_file::head);
    const auto says = [&](bytes_view file) {
        s->close();
        put(place.disk, s->index_path(), file);
        return reads(*s, place.disk);
    };
    CHECK(says(good));
    CHECK(!says({}));
    for (const std::size_t n : {std::size_t{1}, sealed_file::head - 1, sealed_file::head, good.size() - 1}) {
        CHECK(!says(bytes_view(good).first(n)));
    }
    bytes longer = good;
    longer.push_back(std::byte{});
    CHECK(!says(longer));
    CHECK(!says(bytes(good.size())));
    const bytes body(good.begin() + sealed_file::head, good.end());
    CHECK(says(sealed_file::encode(sealed_file::index_word, ours, 640, body)));
    CHECK(!says(sealed_file::encode(sealed_file::index_word, id_of(2), 640, body)));
    CHECK(!says(sealed_file::encode(sealed_file::index_word, ours, 648, body)));
    CHECK(!says(sealed_file::encode(sealed_file::manifest_word, ours, 640, body)));
    s->close();
    REQUIRE(place.disk.remove(s->index_path()) == ok);
    CHECK(!reads(*s, place.disk));
    put(place.disk, s->index_path(), good); // it is looked for again
    CHECK(reads(*s, place.disk));
}

TEST_CASE("segment: any bit of an index that is flipped is noticed") {
    support::dice dice(2);
    simulated_place place;
    places where;
    const auto s = with_index(place.disk, place.path, 0, dice, where, 40);
    const std::size_t bits = place.disk.contents(s->index_path()).size() * 8;
    for (std::size_t bit = 0; bit < bits; ++bit) {
        place.disk.flip_bit(s->index_path(), bit);
        if (reads(*s, place.disk)) { FAIL_CHECK("bit " << bit << " may be anything"); }
        place.disk.flip_bit(s->index_path(), bit);
        s->close();
    }
    CHECK(reads(*s, place.disk));
}

TEST_CASE("segment: an index that ends before a run does is noticed") {
    simulated_place place;
    segment<simulated_files> s(place.path, 0);
    s.set_runs({{1, 0, 100, 0}, {2, 0, 1'000, 100}});
    put(place.disk, s.index_path(), sealed_file::encode(sealed_file::index_word, ours, 0, bytes(101 * sizeof(std::uint32_t))));
    std::array<std::uint64_t, 100> to{};
    CHECK(s.places_on_disk(place.disk, ours, s.runs()[0], 0, to));
    CHECK(s.places_on_disk(place.disk, ours, s.runs()[1], 0, std::span(to).first(1)));
    CHECK(!s.places_on_disk(place.disk, ours, s.runs()[1], 0, std::span(to).first(2)));
    CHECK(!s.places_on_disk(place.disk, ours, s.runs()[1], 500, std::span(to).first(1)));
}

TEST_CASE("segment: an index that cannot be read is as good as none, and is read when it can be") {
    support::dice dice(3);
    simulated_place place;
    places where;
    const auto s = with_index(place.disk, place.path, 0, dice, where);
    place.disk.fail_open(0, std::make_error_code(std::errc::too_many_files_open));
    CHECK(!reads(*s, place.disk));
    place.disk.fail_read(0, std::make_error_code(std::errc::io_error)); // while it is verified
    CHECK(!reads(*s, place.disk));
    CHECK(reads(*s, place.disk));
    place.disk.fail_read(0, std::make_error_code(std::errc::io_error)); // later
    CHECK(!reads(*s, place.disk));
    CHECK(reads(*s, place.disk));
}

TEST_CASE("segment: places that were found again take the place of an index that was wrong") {
    support::dice dice(4);
    simulated_place place;
    places where;
    const auto s = with_index(place.disk, place.path, 0, dice, where, 50);
    std::vector<place_list> found;
    for (const run& r : s->runs()) {
        found.emplace_back();
        for (std::uint32_t i = 0; i < r.count; ++i) {
            found.back().push_back(static_cast<std::uint32_t>(where.at({r.stream, r.first + i}) / alignment));
        }
    }
    place.disk.cut(s->index_path(), 3);
    CHECK(!reads(*s, place.disk));
    s->set_places(std::move(found));
    CHECK(s->has_places());
    check_places(s->runs(), where, dice, [&](std::size_t which, std::uint32_t from, std::span<std::uint64_t> to) {
        s->places_in_memory(which, from, to);
        return true;
    });
    put_index(place.disk, *s);
    s->drop_places();
    CHECK(reads(*s, place.disk));
}

TEST_CASE_TEMPLATE("segment: its file is opened once, and again to be written; who has it open reads on when it is gone", Place, simulated_place,
                   posix_place) {
    const Place place;
    segment<typename Place::files> s(place.path, 0);
    const auto missing = s.open(place.disk, open_mode::read);
    REQUIRE(!missing);
    CHECK(missing.error() == errc::io);
    CHECK(std::string(missing.error().what()).find(s.path()) != std::string::npos);
    put(place.disk, s.path(), pattern(100));
    const auto one = s.open(place.disk, open_mode::read), two = s.open(place.disk, open_mode::read);
    REQUIRE(one);
    REQUIRE(two);
    CHECK(*one == *two);
    const auto three = s.open(place.disk, open_mode::write), four = s.open(place.disk, open_mode::read);
    REQUIRE(three);
    REQUIRE(four);
    CHECK(*three != *one);
    CHECK(*four == *three);
    s.close();
    REQUIRE(place.disk.remove(s.path()) == ok);
    CHECK(!s.open(place.disk, open_mode::read));
    bytes all(200);
    std::size_t got = 0;
    CHECK(read_all(place.disk, **one, 0, all, got) == ok);
    CHECK(got == 100);
}

TEST_CASE_TEMPLATE("segment: write_all and read_all do all of it", Place, simulated_place, posix_place) {
    const Place place;
    typename Place::files::file f;
    const std::string path = place.path + "/file";
    REQUIRE(place.disk.open(path, open_mode::create, f) == ok);
    const bytes one = pattern(10, 1), two = pattern(5'000, 2), three = pattern(1, 3), four = pattern(300, 4);
    const std::array<bytes_view, 4> parts{one, bytes_view(), two, three};
    CHECK(write_all(place.disk, f, 7, parts) == ok);
    CHECK(write_all(place.disk, f, 7 + 5'011, std::array<bytes_view, 1>{four}) == ok);
    CHECK(write_all(place.disk, f, 0, {}) == ok);
    CHECK(write_all(place.disk, f, 0, std::array<bytes_view, 1>{}) == ok);
    bytes expected(7);
    for (const bytes* const part : {&one, &two, &three, &four}) { expected.insert(expected.end(), part->begin(), part->end()); }
    bytes all;
    REQUIRE(read_file(place.disk, path, all) == ok);
    CHECK(all == expected);
    std::size_t got = 77;
    bytes some(100);
    CHECK(read_all(place.disk, f, expected.size() - 40, some, got) == ok);
    CHECK(got == 40);
    CHECK(read_all(place.disk, f, expected.size() + 40, some, got) == ok);
    CHECK(got == 0);
    CHECK(read_all(place.disk, f, 0, {}, got) == ok);
    CHECK(got == 0);
    CHECK(read_file(place.disk, place.path + "/none", all) == std::errc::no_such_file_or_directory);
}

TEST_CASE("segment: write_all and read_all go on after short writes, short reads and interruptions") {
    support::for_each_seed(100, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        simulated_place place;
        place.disk.short_writes(true, seed);
        place.disk.short_reads(true, seed + 1);
        simulated_files::file f;
        REQUIRE(place.disk.open("j/file", open_mode::create, f) == ok);
        std::array<bytes, 4> parts;
        std::array<bytes_view, 4> views;
        const unsigned n = dice.below(5);
        bytes expected(dice.below(100));
        const std::size_t at = expected.size();
        for (unsigned i = 0; i < n; ++i) {
            parts[i] = pattern(dice.percent(20) ? 0 : dice.below(2'000), i);
            views[i] = parts[i];
            expected.insert(expected.end(), parts[i].begin(), parts[i].end());
        }
        if (expected.size() == at) { expected.clear(); }
        REQUIRE(write_all(place.disk, f, at, std::span(views).first(n)) == ok);
        CHECK(place.disk.contents("j/file") == expected);
        bytes all(expected.size() + 50);
        std::size_t got = 0;
        REQUIRE(read_all(place.disk, f, 0, all, got) == ok);
        all.resize(got);
        CHECK(all == expected);
        bytes file;
        REQUIRE(read_file(place.disk, "j/file", file) == ok);
        CHECK(file == expected);
        return true;
    });
}

TEST_CASE("segment: write_all and read_all say what went wrong; a call that was interrupted is made again") {
    simulated_place place;
    simulated_files::file f;
    REQUIRE(place.disk.open("j/file", open_mode::create, f) == ok);
    const bytes all = pattern(100);
    const std::array<bytes_view, 2> parts{bytes_view(all).first(30), bytes_view(all).subspan(30)};
    place.disk.fail_write(0, std::make_error_code(std::errc::interrupted));
    place.disk.fail_write(1, std::make_error_code(std::errc::interrupted));
    CHECK(write_all(place.disk, f, 0, parts) == ok);
    CHECK(place.disk.contents("j/file") == all);
    place.disk.fail_write(0, std::make_error_code(std::errc::no_space_on_device));
    CHECK(write_all(place.disk, f, 0, parts) == std::errc::no_space_on_device);
    place.disk.fail_write(0, std::make_error_code(std::errc::io_error), 50);
    CHECK(write_all(place.disk, f, 0, parts) == std::errc::io_error);
    place.disk.capacity(120);
    CHECK(write_all(place.disk, f, 50, parts) == std::errc::no_space_on_device);
    CHECK(place.disk.contents("j/file").size() == 120); // what there was room for
    place.disk.clear_faults();

    bytes to(100);
    std::size_t got = 0;
    place.disk.fail_read(0, std::make_error_code(std::errc::interrupted));
    CHECK(read_all(place.disk, f, 0, to, got) == ok);
    CHECK(got == 100);
    place.disk.fail_read(0, std::make_error_code(std::errc::io_error));
    CHECK(read_all(place.disk, f, 0, to, got) == std::errc::io_error);
    CHECK(got == 0);
    place.disk.fail_open(0, std::make_error_code(std::errc::interrupted));
    place.disk.fail_read(0, std::make_error_code(std::errc::interrupted));
    bytes file;
    CHECK(read_file(place.disk, "j/file", file) == ok);
    CHECK(file.size() == 120);
    int asked = 0;
    CHECK(until_done([&] { return std::make_error_code(++asked < 4 ? std::errc::interrupted : std::errc::io_error); }) == std::errc::io_error);
    CHECK(asked == 4);
}

namespace {

// A disk that takes nothing and does not say why.
struct stuck_files {
    struct file {};
    std::error_code write(file&, std::uint64_t, std::span<const bytes_view>, std::size_t& written) const noexcept {
        written = 0;
        return {};
    }
};

} // namespace

TEST_CASE("segment: a disk that takes nothing is an error, not a loop") {
    const stuck_files disk;
    stuck_files::file f;
    const bytes all(10);
    const bytes_view part(all);
    CHECK(write_all(disk, f, 0, {&part, 1}) == std::errc::io_error);
}

TEST_CASE("segment: a run that goes on is the same, told with or without its stream") {
    segment<simulated_files> one("j", 80), other("j", 80);
    bool is_new = false;
    const std::size_t which = one.add(3, 10, 144, is_new);
    other.add(3, 10, 144, is_new);
    std::uint64_t next = 1;
    const auto some = [&](std::uint64_t& position) {
        position = 144 + next * 64;
        return next < 100 && next++ % 7 != 0; // told in several rows
    };
    std::size_t told = 1;
    while (next < 100) {
        const std::size_t n = one.extend(which, some);
        told += n;
        if (next < 100) { one.add(3, 10 + told++, 144 + (next - 1) * 64, is_new); }
    }
    for (std::uint64_t i = 1; i < 100; ++i) {
        other.add(3, 10 + i, 144 + i * 64, is_new);
        CHECK(!is_new);
    }
    CHECK(one.add(3, 110, 144 + 100 * 64, is_new) == which); // and on
    CHECK(!is_new);
    other.add(3, 110, 144 + 100 * 64, is_new);
    one.seal();
    other.seal();
    REQUIRE(one.runs().size() == 1);
    CHECK(one.runs()[0].count == 101);
    CHECK(index_of(one) == index_of(other));
}
