#include <mailroom/journal/format.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace mailroom::detail;
using bytes = std::vector<std::byte>;

journal_id id_of(unsigned n) {
    journal_id id{};
    for (auto& b : id) { b = static_cast<std::byte>(n++); }
    return id;
}
const std::uint64_t seed = seed_of(id_of(1));

std::string hex(bytes_view b) {
    std::string text;
    for (const std::byte x : b) {
        text.push_back("0123456789abcdef"[std::to_integer<unsigned>(x) >> 4]);
        text.push_back("0123456789abcdef"[std::to_integer<unsigned>(x) & 15]);
    }
    return text;
}

bytes make_record(record_header h, std::string_view payload) {
    h.length = static_cast<std::uint32_t>(payload.size());
    bytes b(h.whole());
    std::memcpy(b.data() + record_header::size, payload.data(), payload.size());
    h.hash = checksum(bytes_view(b).subspan(record_header::size), seed);
    h.encode(b.data(), seed);
    return b;
}

std::array<std::byte, batch_header::size> make_batch(std::uint64_t at) {
    std::array<std::byte, batch_header::size> b;
    batch_header{.records = 2, .position = at, .length = 120, .previous = 9, .incarnation = 3, .durable_upto = at, .time = -1}.encode(b.data(), seed);
    return b;
}

// Every bit of it counts: with any one flipped, `holds` answers false.
template <class Holds>
void check_every_bit(bytes b, Holds holds) {
    REQUIRE(holds(b));
    for (std::size_t bit = 0; bit < b.size() * 8; ++bit) {
        const std::byte flip = std::byte{1} << (bit % 8);
        b[bit / 8] ^= flip;
        if (holds(b)) { FAIL_CHECK("bit " << bit << " of " << b.size() << " bytes may be anything"); }
        b[bit / 8] ^= flip;
    }
    for (std::size_t n = 0; n < b.size(); ++n) {
        if (holds(bytes(b.begin(), b.begin() + static_cast<std::ptrdiff_t>(n)))) { FAIL_CHECK("the first " << n << " bytes are enough"); }
    }
}

} // namespace

TEST_CASE("format: XXH3-64, and the seed is that of the journal's id") {
    CHECK(checksum({}, 0) == 0x2d06800538d394c2); // of no bytes, as xxHash publishes it
    CHECK(seed_of(id_of(1)) == checksum(id_of(1), 0));
    CHECK(seed_of(id_of(1)) != seed_of(id_of(2)));
}

TEST_CASE("format: lengths are padded to 8") {
    for (const auto& [n, expected] : {std::pair<std::size_t, std::size_t>{0, 0}, {1, 8}, {7, 8}, {8, 8}, {9, 16}}) { CHECK(padded(n) == expected); }
    static_assert(segment_header::size % alignment == 0 && batch_header::size % alignment == 0 && record_header::size % alignment == 0);
}

TEST_CASE("format: the bytes of a segment's header are these") {
    std::array<std::byte, segment_header::size> b;
    segment_header{.id = id_of(1), .first = 0x1122334455667788, .incarnation = 5}.encode(b.data());
    CHECK(hex(std::span(b).first(56)) == "4d41494c524f4f4d"                 // MAILROOM
                                         "0300000040000000"                 // version, bytes of the header
                                         "0102030405060708090a0b0c0d0e0f10" // whose
                                         "8877665544332211"                 // the position of what follows
                                         "0500000000000000"                 // incarnation
                                         "0000000000000000");
    segment_header h;
    std::uint32_t version = 0;
    REQUIRE(segment_header::decode(b, h, version) == nullptr);
    CHECK(h.id == id_of(1));
    CHECK(h.first == 0x1122334455667788);
    CHECK(h.incarnation == 5);
    CHECK(version == 3);
}

TEST_CASE("format: the bytes of a batch's and of a record's header are these") {
    std::array<std::byte, batch_header::size> b;
    const std::uint64_t check =
        batch_header{.records = 2, .position = 64, .length = 128, .previous = 3, .incarnation = 4, .durable_upto = 5, .time = 6}.encode(b.data(),
                                                                                                                                        seed);
    CHECK(load_le<std::uint64_t>(b.data()) == check);
    CHECK(check == checksum(bytes_view(b).subspan(8), seed));
    CHECK(hex(bytes_view(b).subspan(8)) == "42544348" // BTCH
                                           "02000000"
                                           "4000000000000000"
                                           "8000000000000000"
                                           "0300000000000000"
                                           "0400000000000000"
                                           "0500000000000000"
                                           "0600000000000000");
    std::array<std::byte, record_header::size> r;
    record_header{
        .position = 128, .hash = 1, .offset = 2, .time = 3, .length = 40, .stream = 5, .kind = record_kind::settlements, .schema = 7, .properties = 8}
        .encode(r.data(), seed);
    CHECK(load_le<std::uint64_t>(r.data()) == checksum(bytes_view(r).subspan(8), seed));
    CHECK(hex(bytes_view(r).subspan(8)) == "8000000000000000"
                                           "0100000000000000"
                                           "0200000000000000"
                                           "0300000000000000"
                                           "28000000"
                                           "05000000"
                                           "0300"
                                           "0700"
                                           "08000000");
}

TEST_CASE("format: the numbers of the kinds of records are stored, so they stay") {
    const record_kind kinds[] = {record_kind::message,    record_kind::moved,         record_kind::settlements, record_kind::place,
                                 record_kind::deliveries, record_kind::endpoint,      record_kind::schema,      record_kind::subscription,
                                 record_kind::removal,    record_kind::deduplication, record_kind::prepared,    record_kind::verdict,
                                 record_kind::produced,   record_kind::refused,       record_kind::survivors};
    unsigned number = 1;
    for (const record_kind k : kinds) { CHECK(static_cast<unsigned>(k) == number++); }
}

TEST_CASE("format: a segment's header says what is wrong with it") {
    bytes b(segment_header::size);
    segment_header{.id = id_of(1), .first = 8, .incarnation = 1}.encode(b.data());
    segment_header h;
    std::uint32_t version = 0;
    check_every_bit(b, [&](bytes_view x) { return segment_header::decode(x, h, version) == nullptr; });

    for (const std::uint32_t known : {1u, 2u, 3u}) {
        store_le(b.data() + 8, known);
        store_le(b.data() + 56, checksum(bytes_view(b).first(56), 0));
        CHECK(segment_header::decode(b, h, version) == nullptr);
        CHECK(version == known);
    }
    for (const std::uint32_t other : {0u, 4u}) {
        store_le(b.data() + 8, other);
        store_le(b.data() + 56, checksum(bytes_view(b).first(56), 0));
        CHECK(segment_header::decode(b, h, version) == std::string_view(other_version));
        CHECK(version == other);
    }
    b[8] = std::byte{77}; // and damaged: nobody knows which version it is
    CHECK(segment_header::decode(b, h, version) != nullptr);
    CHECK(version == format_version);
    b.assign(segment_header::size, std::byte{});
    CHECK(segment_header::decode(b, h, version) != nullptr);
    CHECK(segment_header::decode({}, h, version) != nullptr);
}

TEST_CASE("format: every bit of a batch's header counts, its place too, and whose it is") {
    const auto made = make_batch(640);
    batch_header h;
    check_every_bit(bytes(made.begin(), made.end()), [&](bytes_view x) { return batch_header::decode(x, 640, seed, h); });
    CHECK(batch_header::decode(made, 640, seed, h));
    CHECK(h.records == 2);
    CHECK(h.position == 640);
    CHECK(h.length == 120);
    CHECK(h.previous == 9);
    CHECK(h.incarnation == 3);
    CHECK(h.durable_upto == 640);
    CHECK(h.time == -1);
    CHECK(!batch_header::decode(made, 648, seed, h));
    CHECK(!batch_header::decode(made, 640, seed_of(id_of(2)), h));
    record_header r;
    CHECK(!record_header::decode(made, 640, seed, r));
}

TEST_CASE("format: a batch whose records do not end at a multiple of 8 is none") {
    std::array<std::byte, batch_header::size> b;
    batch_header{.records = 1, .position = 0, .length = 121}.encode(b.data(), seed);
    batch_header h;
    CHECK(!batch_header::decode(b, 0, seed, h));
}

TEST_CASE("format: every bit of a record counts, its padding too, its place, and whose it is") {
    for (const std::string_view payload : {"", "a", "seven b", "8 bytes.", "somewhat longer than that"}) {
        CAPTURE(payload);
        const bytes b = make_record({.position = 4096, .offset = 7, .time = -5, .stream = 3, .kind = record_kind::message, .schema = 2}, payload);
        CHECK(b.size() == record_header::size + padded(payload.size()));
        check_every_bit(b, [&](bytes_view x) { return decode_record(x, 4096, seed).has_value(); });
        bytes longer = b;
        longer.resize(b.size() + 100, std::byte{1});
        const auto r = decode_record(longer, 4096, seed);
        REQUIRE(r.has_value());
        CHECK(r->head.whole() == b.size());
        CHECK(r->head.offset == 7);
        CHECK(r->head.time == -5);
        CHECK(r->head.stream == 3);
        CHECK(r->head.schema == 2);
        CHECK(r->head.kind == record_kind::message);
        CHECK(std::string_view(reinterpret_cast<const char*>(r->payload.data()), r->payload.size()) == payload);
        CHECK(!decode_record(b, 4104, seed));
        CHECK(!decode_record(b, 4096, seed_of(id_of(2))));
        batch_header h;
        CHECK(!batch_header::decode(longer, 4096, seed, h));
    }
}

TEST_CASE("format: a record whose properties are longer than itself is none") {
    const bytes fits = make_record({.position = 0, .kind = record_kind::message, .properties = 4}, "four");
    CHECK(decode_record(fits, 0, seed).has_value());
    const bytes b = make_record({.position = 0, .kind = record_kind::message, .properties = 5}, "four");
    CHECK(!decode_record(b, 0, seed));
}

TEST_CASE("format: a record that says it is longer than any file is none, and says no wrong size") {
    bytes b(record_header::size);
    record_header h{.position = 0, .length = std::numeric_limits<std::uint32_t>::max(), .kind = record_kind::message};
    CHECK(h.whole() == record_header::size + (std::uint64_t{1} << 32));
    h.encode(b.data(), seed);
    CHECK(record_header::decode(b, 0, seed, h));
    CHECK(!decode_record(b, 0, seed));
}

TEST_CASE("format: a file with one checksum: every bit counts, its kind, its length, whose it is") {
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{40}}) {
        const bytes body(n, std::byte{7});
        const bytes file = sealed_file::encode(sealed_file::manifest_word, id_of(1), 99, body);
        CHECK(file.size() == sealed_file::head + n);
        journal_id id{};
        std::uint64_t number = 0;
        bytes_view inside;
        check_every_bit(file, [&](bytes_view x) { return sealed_file::decode(sealed_file::manifest_word, x, id, number, inside) == nullptr; });
        REQUIRE(sealed_file::decode(sealed_file::manifest_word, file, id, number, inside) == nullptr);
        CHECK(id == id_of(1));
        CHECK(number == 99);
        CHECK(bytes(inside.begin(), inside.end()) == body);
        CHECK(sealed_file::decode(sealed_file::index_word, file, id, number, inside) != nullptr);
        bytes longer = file;
        longer.push_back(std::byte{});
        CHECK(sealed_file::decode(sealed_file::manifest_word, longer, id, number, inside) != nullptr);
    }
}

TEST_CASE("format: the bytes around a manifest are these") {
    const bytes file = sealed_file::encode(sealed_file::manifest_word, id_of(1), 3, bytes(2, std::byte{0xaa}));
    CHECK(load_le<std::uint64_t>(file.data()) == checksum(bytes_view(file).subspan(8), seed));
    CHECK(hex(bytes_view(file).subspan(8)) == "4d41494c4d414e49" // MAILMANI
                                              "0300000000000000"
                                              "0102030405060708090a0b0c0d0e0f10"
                                              "0300000000000000"
                                              "0200000000000000"
                                              "aaaa");
    std::array<std::byte, 8> word;
    store_le(word.data(), sealed_file::index_word);
    CHECK(std::string_view(reinterpret_cast<const char*>(word.data()), 8) == "MAILINDX");
}

TEST_CASE("format: another version of a file with one checksum is called that") {
    bytes file = sealed_file::encode(sealed_file::manifest_word, id_of(1), 3, {});
    store_le(file.data() + 16, std::uint32_t{4});
    store_le(file.data(), checksum(bytes_view(file).subspan(8), seed));
    journal_id id{};
    std::uint64_t number = 0;
    bytes_view body;
    CHECK(sealed_file::decode(sealed_file::manifest_word, file, id, number, body) == std::string_view(other_version));
}

TEST_CASE("format: a segment is called by its first position") {
    CHECK(file_name(0, ".log") == "00000000000000000000.log");
    CHECK(file_name(65'536, ".idx") == "00000000000000065536.idx");
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{10'000'000'000'000'000'000u}}) {
        CHECK(position_in(file_name(first, ".log"), ".log") == first);
        CHECK(position_in(file_name(first, ".log"), ".idx") == std::nullopt);
    }
    CHECK(file_name(9, ".log") < file_name(10, ".log"));
    for (const char* const name :
         {"", ".log", "LOCK", "MANIFEST", "0.log", "0000000000000000000.log", "000000000000000000000.log", "0000000000000000000a.log",
          "-0000000000000000001.log", "00000000000000000000log", "99999999999999999999.log", "00000000000000000000.log.idx"}) {
        CAPTURE(name);
        CHECK(position_in(name, ".log") == std::nullopt);
    }
}

TEST_CASE("format: any bytes are one of ours or not, and nothing is read beyond them") {
    support::for_each_seed(500, [](std::uint64_t number) {
        CAPTURE(number);
        support::dice dice(number);
        bytes b(dice.below(200));
        for (auto& x : b) { x = static_cast<std::byte>(dice.percent(50) ? 0 : dice.below(256)); }
        segment_header s;
        batch_header h;
        std::uint32_t version = 0;
        journal_id id{};
        std::uint64_t n = 0;
        bytes_view body;
        CHECK(segment_header::decode(b, s, version) != nullptr);
        CHECK(!batch_header::decode(b, 0, seed, h));
        CHECK(!decode_record(b, 0, seed).has_value());
        CHECK(sealed_file::decode(sealed_file::index_word, b, id, n, body) != nullptr);
        return true;
    });
}

TEST_CASE("format: a key hashes as its seed does, whatever the length; so does what hashes a few bytes") {
    bytes b(3000);
    support::dice dice(7);
    for (auto& x : b) { x = static_cast<std::byte>(dice.below(256)); }
    for (const std::uint64_t s : {std::uint64_t{0}, std::uint64_t{1}, seed, ~std::uint64_t{0}}) {
        const hash_key key(s);
        CHECK(std::uint64_t{key} == s);
        for (std::size_t n = 0; n < b.size(); ++n) {
            const bytes_view front = bytes_view(b).first(n);
            if (checksum(front, key) != checksum(front, s)) { FAIL("of " << n << " bytes"); }
        }
        CHECK(short_checksum<48>(b.data(), s) == checksum(bytes_view(b).first(48), s));
        CHECK(short_checksum<56>(b.data(), s) == checksum(bytes_view(b).first(56), s));
    }
}

TEST_CASE("format: a plain message of a stream, at an offset, is known as one, and nothing else is") {
    const auto made = [](record_kind kind, std::uint32_t stream, mailroom::offset o, std::uint32_t length, std::uint32_t properties) {
        bytes b(record_header::size);
        const record_header h{.offset = o, .length = length, .stream = stream, .kind = kind, .schema = 0xffff, .properties = properties};
        h.encode(b.data(), seed);
        return b;
    };
    std::size_t whole = 0;
    CHECK(record_header::is_plain_at(made(record_kind::message, 7, 12, 100, 0).data(), 7, 12, whole));
    CHECK(whole == record_header::size + 104);
    CHECK(record_header::is_plain_at(made(record_kind::message, ~std::uint32_t{0}, 12, ~std::uint32_t{0}, 0).data(), ~std::uint32_t{0}, 12, whole));
    CHECK(whole == record_header::size + (std::size_t{1} << 32));
    for (const auto& other :
         {made(record_kind::moved, 7, 12, 100, 0), made(record_kind::settlements, 7, 12, 100, 0), made(record_kind::message, 8, 12, 100, 0),
          made(record_kind::message, 7, 13, 100, 0), made(record_kind::message, 7, 12, 100, 1)}) {
        CHECK_FALSE(record_header::is_plain_at(other.data(), 7, 12, whole));
    }
}

TEST_CASE("format: the header of one's own record is read as it was written") {
    const bytes b = make_record({.position = 88,
                                 .offset = ~mailroom::offset{0} - 1,
                                 .time = -5,
                                 .stream = 0xfedcba98,
                                 .kind = record_kind::moved,
                                 .schema = 0xfffe,
                                 .properties = 3},
                                "abcde");
    record_header known;
    REQUIRE(record_header::decode(b, 88, seed, known));
    const record_header own = record_header::decode_own(b.data());
    CHECK(own.position == 88);
    CHECK(own.hash == known.hash);
    CHECK(own.offset == ~mailroom::offset{0} - 1);
    CHECK(own.time == -5);
    CHECK(own.length == 5);
    CHECK(own.stream == 0xfedcba98);
    CHECK(own.kind == record_kind::moved);
    CHECK(own.schema == 0xfffe);
    CHECK(own.properties == 3);
}
