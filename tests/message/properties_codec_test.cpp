#include <mailroom/message/properties_codec.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using mailroom::byte_sink;
using mailroom::errc;
using mailroom::header_value;
using mailroom::properties;
using mailroom::detail::decode_properties;
using mailroom::detail::encode_properties;
using namespace std::chrono_literals;

namespace {

using bytes = std::vector<std::byte>;

bytes bytes_of(const properties& p) {
    byte_sink out;
    encode_properties(p, out);
    return {out.bytes().begin(), out.bytes().end()};
}
properties read_all(const bytes& from) {
    std::span<const std::byte> rest(from);
    auto p = decode_properties(rest);
    CHECK(rest.empty());
    return p;
}
bytes raw(std::initializer_list<int> values) {
    bytes b;
    for (const int v : values) { b.push_back(static_cast<std::byte>(v)); }
    return b;
}
errc trouble_of(const bytes& from) {
    std::span<const std::byte> rest(from);
    try {
        static_cast<void>(decode_properties(rest));
    } catch (const mailroom::error& e) {
        CHECK(rest.size() == from.size()); // nothing was taken
        return e.kind();
    }
    return errc{};
}

properties everything() {
    return {.key = "k",
            .id = std::string(300, 'i'),
            .subject = "orders.eu",
            .correlation_id = std::string("\0\xff", 2),
            .reply_to = "me",
            .content_type = "text/plain",
            .delay = 5s,
            .time_to_live = std::chrono::nanoseconds::max(),
            .priority = -3,
            .headers = {{"", nullptr},
                        {"big", std::numeric_limits<std::int64_t>::min()},
                        {"bytes", bytes(200, std::byte{7})},
                        {"no", false},
                        {"none", bytes()},
                        {"real", -0.25},
                        {"small", -1},
                        {"text", "T"},
                        {"yes", true}}};
}

} // namespace

TEST_CASE("properties codec: what is said comes back, and nothing else") {
    CHECK(read_all(bytes_of(everything())) == everything());
    const properties one_each[] = {
        {},
        {.key = "k"},
        {.id = "i"},
        {.subject = "s"},
        {.correlation_id = "c"},
        {.reply_to = "r"},
        {.content_type = "t"},
        {.delay = 1ns},
        {.delay = std::chrono::nanoseconds::min()},
        {.time_to_live = 24h},
        {.priority = 9},
        {.priority = std::numeric_limits<int>::min()},
        {.headers = {{"a", 1}}},
    };
    for (const auto& p : one_each) { CHECK(read_all(bytes_of(p)) == p); }
}

TEST_CASE("properties codec: every kind of header value keeps its kind") {
    const auto p = read_all(bytes_of(everything()));
    CHECK(p.headers.find("")->is_null());
    CHECK(p.headers.find("no")->is<bool>());
    CHECK(p.headers.find("small")->is<std::int64_t>());
    CHECK(p.headers.find("real")->is<double>());
    CHECK(p.headers.find("text")->is<std::string>());
    CHECK(p.headers.find("bytes")->is<header_value::bytes>());
}

TEST_CASE("properties codec: the format is this, and what is stored stays readable") {
    CHECK(bytes_of({}) == raw({0}));
    CHECK(bytes_of({.key = "MS"}) == raw({1, 2, 'M', 'S'}));
    CHECK(bytes_of({.content_type = "t", .delay = 100ns, .time_to_live = 1ns, .priority = -1}) == raw({0xe0, 0x03, 1, 't', 0xc8, 0x01, 2, 1}));
    CHECK(bytes_of({.headers = {{"a", nullptr}, {"b", false}, {"c", true}, {"d", 3}, {"e", 1.0}, {"f", "x"}, {"g", bytes(1, std::byte{9})}}}) ==
          raw({0x80, 0x04, 7, 1, 'a', 0, 1,    'b',  1, 1,   'c', 2, 1,   'd', 3,   6, 1, 'e', 4,
               0,    0,    0, 0, 0,   0, 0xf0, 0x3f, 1, 'f', 5,   1, 'x', 1,   'g', 6, 1, 9}));
}

TEST_CASE("properties codec: takes its bytes from the front and leaves the others") {
    auto b = bytes_of(everything());
    const auto size = b.size();
    const auto more = bytes_of({.key = "second"});
    b.insert(b.end(), more.begin(), more.end());
    b.push_back(std::byte{42});
    std::span<const std::byte> rest(b);
    CHECK(decode_properties(rest) == everything());
    CHECK(rest.size() == b.size() - size);
    CHECK(decode_properties(rest).key == "second");
    CHECK(rest.size() == 1);
}

TEST_CASE("properties codec: nonsense is corrupt") {
    const struct {
        const char* what;
        bytes from;
    } cases[] = {
        {"nothing at all", {}},
        {"a bit nobody knows", raw({0x80, 0x08})},
        {"more bits than there are", raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})},
        {"a number of more than 64 bits", raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02})},
        {"a number without end", bytes(20, std::byte{0xff})},
        {"a text longer than what is there", raw({1, 3, 'a', 'b'})},
        {"a text longer than any memory", raw({1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 'a'})},
        {"a priority that is no int", raw({0x80, 0x02, 0x80, 0x80, 0x80, 0x80, 0x10})},
        {"more headers than there are", raw({0x80, 0x04, 100, 1, 'a', 0})},
        {"more headers than any memory", raw({0x80, 0x04, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})},
        {"headers out of order", raw({0x80, 0x04, 2, 1, 'b', 0, 1, 'a', 0})},
        {"a header twice", raw({0x80, 0x04, 2, 1, 'a', 0, 1, 'a', 0})},
        {"a kind that is none", raw({0x80, 0x04, 1, 1, 'a', 7})},
        {"half a double", raw({0x80, 0x04, 1, 1, 'a', 4, 0, 0, 0})},
    };
    for (const auto& c : cases) {
        CAPTURE(c.what);
        CHECK(trouble_of(c.from) == errc::corrupt);
    }
}

TEST_CASE("properties codec: no cut and no flipped bit is worse than an exception") {
    const auto whole = bytes_of(everything());
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // In a vector of its own, so that a byte too far is seen by the sanitizer.
        CHECK(trouble_of(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))) == errc::corrupt);
    }
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
        bytes damaged = whole;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
        const errc trouble = trouble_of(damaged);
        CHECK((trouble == errc{} || trouble == errc::corrupt));
    }
}
