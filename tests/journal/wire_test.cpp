#include <mailroom/journal/wire.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {

using mailroom::errc;
using mailroom::error;
using mailroom::detail::bytes_view;
using mailroom::detail::load_le;
using mailroom::detail::store_le;
using mailroom::detail::wire_reader;
using mailroom::detail::wire_writer;
using bytes = std::vector<std::byte>;

bytes raw(std::initializer_list<unsigned> values) {
    bytes b;
    for (const unsigned v : values) { b.push_back(static_cast<std::byte>(v)); }
    return b;
}

bytes as_var(std::uint64_t value) {
    bytes b;
    wire_writer(b).var(value);
    return b;
}

template <class Read>
bool is_corrupt(const bytes& b, Read read) {
    wire_reader from(b);
    try {
        read(from);
    } catch (const error& e) { return e == errc::corrupt; }
    return false;
}

constexpr std::uint64_t highest = std::numeric_limits<std::uint64_t>::max();

} // namespace

TEST_CASE("wire: numbers lie with their lowest byte first") {
    std::byte b[8];
    store_le(b, std::uint64_t{0x0102030405060708});
    CHECK(b[0] == std::byte{8});
    CHECK(b[7] == std::byte{1});
    CHECK(load_le<std::uint64_t>(b) == 0x0102030405060708);
    CHECK(load_le<std::uint16_t>(b) == 0x0708);
    store_le(b, std::int64_t{-2});
    CHECK(b[0] == std::byte{0xfe});
    CHECK(load_le<std::int64_t>(b) == -2);
}

TEST_CASE("wire: a varint has seven bits a byte, the lowest first") {
    struct {
        std::uint64_t value;
        bytes encoded;
    } const table[] = {
        {0, raw({0})},
        {1, raw({1})},
        {127, raw({0x7f})},
        {128, raw({0x80, 1})},
        {300, raw({0xac, 2})},
        {16'383, raw({0xff, 0x7f})},
        {16'384, raw({0x80, 0x80, 1})},
        {highest, raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})},
    };
    for (const auto& row : table) {
        CAPTURE(row.value);
        CHECK(as_var(row.value) == row.encoded);
        wire_reader from(row.encoded);
        CHECK(from.var() == row.value);
        CHECK(from.at_end());
    }
}

TEST_CASE("wire: a varint that is too long, or ends too early, is corrupt; a longer form of a small number is read") {
    const auto read = [](wire_reader& from) { static_cast<void>(from.var()); };
    CHECK(is_corrupt({}, read));
    CHECK(is_corrupt(raw({0x80}), read));
    CHECK(is_corrupt(raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), read));
    CHECK(is_corrupt(raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}), read));
    CHECK(is_corrupt(raw({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}), read));
    const bytes long_seven = raw({0x87, 0x80, 0});
    wire_reader from(long_seven);
    CHECK(from.var() == 7);
    CHECK(from.at_end());
}

TEST_CASE("wire: a number has to fit its field") {
    wire_reader fits(bytes_view{});
    const bytes most = as_var(0xffff'ffff), more = as_var(0x1'0000'0000);
    fits = wire_reader(most);
    CHECK(fits.var_as<std::uint32_t>() == 0xffff'ffff);
    CHECK(is_corrupt(more, [](wire_reader& from) { static_cast<void>(from.var_as<std::uint32_t>()); }));
    const bytes byte = as_var(256);
    CHECK(is_corrupt(byte, [](wire_reader& from) { static_cast<void>(from.var_as<std::uint8_t>()); }));
    const bytes sign = as_var(128);
    CHECK(is_corrupt(sign, [](wire_reader& from) { static_cast<void>(from.var_as<std::int8_t>()); }));
    fits = wire_reader(sign);
    CHECK(fits.var_as<std::uint8_t>() == 128);
}

TEST_CASE("wire: a count is believed only as far as there are bytes for it") {
    bytes b = as_var(3);
    b.resize(b.size() + 12);
    wire_reader from(b);
    CHECK(from.count(4) == 3);
    CHECK(is_corrupt(b, [](wire_reader& r) { static_cast<void>(r.count(5)); }));
    CHECK(is_corrupt(as_var(highest), [](wire_reader& r) { static_cast<void>(r.count(1)); }));
    CHECK(is_corrupt(as_var(highest), [](wire_reader& r) { static_cast<void>(r.text()); }));
    CHECK(is_corrupt(raw({1}), [](wire_reader& r) { static_cast<void>(r.text()); }));
}

TEST_CASE("wire: texts, fixed numbers and raw bytes come back; what is beyond is asked for") {
    bytes b;
    wire_writer to(b);
    const std::string with_zero("a\0b", 3);
    to.text("");
    to.text(with_zero);
    to.text(std::string(200, 'x'));
    to.u64(highest - 1);
    to.i64(std::numeric_limits<std::int64_t>::min());
    to.raw(raw({1, 2, 3}));
    wire_reader from(b);
    CHECK(from.text().empty());
    CHECK(from.text() == with_zero);
    CHECK(from.text() == std::string(200, 'x'));
    CHECK(from.u64() == highest - 1);
    CHECK(from.i64() == std::numeric_limits<std::int64_t>::min());
    CHECK_THROWS_AS(from.expect_end(), error);
    CHECK_THROWS_AS(static_cast<void>(from.take(4)), error);
    CHECK(from.take(3).size() == 3);
    CHECK(from.at_end());
    from.expect_end();
    CHECK(from.take(0).empty());
    CHECK_THROWS_AS(static_cast<void>(from.u64()), error);
}

TEST_CASE("wire: any numbers and texts come back; any bytes are read or refused") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        std::vector<std::uint64_t> numbers;
        bytes b;
        wire_writer to(b);
        for (int i = 0; i < 20; ++i) {
            const std::uint64_t high = dice.below(0xffffffff), low = dice.below(0xffffffff);
            numbers.push_back((high << 32 | low) >> dice.below(64));
            to.var(numbers.back());
            to.text(std::string(dice.below(40), static_cast<char>(dice.below(256))));
        }
        wire_reader from(b);
        for (const std::uint64_t n : numbers) {
            REQUIRE(from.var() == n);
            static_cast<void>(from.text());
        }
        CHECK(from.at_end());
        bytes hostile(dice.below(60));
        for (auto& x : hostile) { x = static_cast<std::byte>(dice.percent(60) ? 0x80 | dice.below(128) : dice.below(256)); }
        const bool refused = is_corrupt(hostile, [&](wire_reader& r) {
            while (!r.at_end()) {
                switch (dice.below(5)) {
                case 0: static_cast<void>(r.var()); break;
                case 1: static_cast<void>(r.text()); break;
                case 2: static_cast<void>(r.u64()); break;
                case 3: static_cast<void>(r.var_as<std::uint16_t>()); break;
                default: static_cast<void>(r.take(r.count(3))); break;
                }
            }
        });
        static_cast<void>(refused);
        return true;
    });
}

TEST_CASE("wire: a buffer keeps what is in it as it grows, and its room when it is cleared") {
    using mailroom::detail::byte_buffer;
    support::dice dice(3);
    byte_buffer b;
    bytes expected;
    CHECK(b.empty());
    b.add({});
    CHECK(b.empty());
    for (int i = 0; i < 200; ++i) {
        const bytes some(dice.below(100), static_cast<std::byte>(i));
        b.add(some);
        expected.insert(expected.end(), some.begin(), some.end());
        REQUIRE(bytes_view(b).size() == expected.size());
        REQUIRE(std::equal(expected.begin(), expected.end(), bytes_view(b).begin()));
    }
    b.resize(expected.size() - 10);
    expected.resize(expected.size() - 10);
    byte_buffer other(std::move(b));
    CHECK(b.empty()); // NOLINT: it is as new
    CHECK(b.capacity() == 0);
    b.add(raw({1, 2, 3}));
    CHECK(b.size() == 3);
    b = std::move(other);
    REQUIRE(b.size() == expected.size());
    CHECK(std::equal(expected.begin(), expected.end(), b.data()));
    const std::size_t room = b.capacity();
    b.clear();
    CHECK(b.empty());
    CHECK(b.capacity() == room);
    b.reserve(room / 2);
    CHECK(b.capacity() == room);
}

TEST_CASE("wire: what a buffer holds lies in memory as it will lie in its file, however the buffer grows") {
    mailroom::detail::byte_buffer b;
    for (const std::uint64_t at : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{1'000'056}}) {
        b.clear_for(at);
        CHECK(b.empty());
        for (std::size_t n = 1; n < 2'000'000; n *= 3) {
            b.resize(n);
            CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == at % 64);
        }
        mailroom::detail::byte_buffer other(std::move(b));
        CHECK(reinterpret_cast<std::uintptr_t>(other.data()) % 64 == at % 64);
        b = std::move(other);
    }
}
