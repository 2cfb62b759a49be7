#include <mailroom/base/name.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

using mailroom::errc;
using mailroom::detail::check_name;
using mailroom::detail::is_utf8;

namespace {

// RFC 3629, section 4, row by row: the ranges of the first byte and of those that follow.
struct range {
    unsigned char low, high;
};
struct row {
    std::size_t length;
    std::array<range, 4> bytes;
};
constexpr range tail{0x80, 0xbf};
constexpr std::array<row, 9> grammar{{{1, {{{0x00, 0x7f}}}},
                                      {2, {{{0xc2, 0xdf}, tail}}},
                                      {3, {{{0xe0, 0xe0}, {0xa0, 0xbf}, tail}}},
                                      {3, {{{0xe1, 0xec}, tail, tail}}},
                                      {3, {{{0xed, 0xed}, {0x80, 0x9f}, tail}}},
                                      {3, {{{0xee, 0xef}, tail, tail}}},
                                      {4, {{{0xf0, 0xf0}, {0x90, 0xbf}, tail, tail}}},
                                      {4, {{{0xf1, 0xf3}, tail, tail, tail}}},
                                      {4, {{{0xf4, 0xf4}, {0x80, 0x8f}, tail, tail}}}}};

bool reads(const row& r, std::string_view s) {
    if (s.size() < r.length) { return false; }
    for (std::size_t i = 0; i < r.length; ++i) {
        const auto c = static_cast<unsigned char>(s[i]);
        if (c < r.bytes[i].low || c > r.bytes[i].high) { return false; }
    }
    return true;
}
bool by_the_grammar(std::string_view s) {
    while (!s.empty()) {
        const row* match = nullptr;
        for (const row& r : grammar) {
            if (reads(r, s)) { match = &r; }
        }
        if (match == nullptr) { return false; }
        s.remove_prefix(match->length);
    }
    return true;
}

errc refusal(std::string_view name) {
    try {
        check_name(name);
    } catch (const mailroom::error& e) { return e.kind(); }
    return errc{};
}
std::string sentence(std::string_view name) {
    try {
        check_name(name);
    } catch (const mailroom::error& e) { return std::string(e.sentence()); }
    return "";
}

} // namespace

static_assert(is_utf8("") && is_utf8("name") && !is_utf8("\xff"));

TEST_CASE("name: every sequence of one, two and three bytes is UTF-8 or not as the grammar says") {
    std::size_t wrong = 0, right = 0;
    std::array<char, 3> bytes{};
    for (std::size_t length = 1; length <= 3; ++length) {
        for (std::uint32_t n = 0; n < 1u << (8 * length); ++n) {
            for (std::size_t i = 0; i < length; ++i) { bytes[i] = static_cast<char>(n >> (8 * i) & 0xff); }
            const std::string_view s(bytes.data(), length);
            const bool expected = by_the_grammar(s);
            wrong += is_utf8(s) != expected;
            right += expected;
        }
    }
    CHECK(wrong == 0);
    // Of one byte 128; of two 128 * 128 and 1920; of three 128^3, twice 128 * 1920 and, without surrogates, 63488 - 2048.
    CHECK(right == 128 + (128 * 128 + 1920) + (128 * 128 * 128 + 2 * 128 * 1920 + 63488 - 2048));
}

TEST_CASE("name: of four bytes, every beginning, with the tails that border on what is allowed") {
    std::size_t wrong = 0, right = 0;
    for (unsigned a = 0; a < 256; ++a) {
        for (unsigned b = 0; b < 256; ++b) {
            for (const unsigned c : {0x00u, 0x7fu, 0x80u, 0xa5u, 0xbfu, 0xc0u, 0xffu}) {
                for (const unsigned d : {0x41u, 0x7fu, 0x80u, 0xbfu, 0xc2u}) {
                    const std::array<char, 4> bytes{static_cast<char>(a), static_cast<char>(b), static_cast<char>(c), static_cast<char>(d)};
                    const std::string_view s(bytes.data(), bytes.size());
                    const bool expected = by_the_grammar(s);
                    wrong += is_utf8(s) != expected;
                    right += expected;
                }
            }
        }
    }
    CHECK(wrong == 0);
    CHECK(right > 0);
}

TEST_CASE("name: what is overlong, a surrogate, too high, cut off or stray is not UTF-8") {
    for (const std::string_view good :
         {"a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
          "Gr\xc3\xbc\xc3\x9f"
          "e \xe2\x82\xac \xf0\x9f\x93\xa8"}) {
        CAPTURE(good);
        CHECK(is_utf8(good));
        CHECK(is_utf8(std::string(good) + "z" + std::string(good)));
        CHECK(refusal(good) == errc{});
    }
    for (const std::string_view bad : {"\xc0\x80",
                                       "\xc1\xbf",
                                       "\xe0\x9f\xbf",
                                       "\xe0\x80\x80",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf0\x80\x80\x80", // overlong
                                       "\xed\xa0\x80",
                                       "\xed\xbf\xbf",
                                       "\xed\xa0\xbd\xed\xb3\xa8", // surrogates
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xf7\xbf\xbf\xbf", // too high
                                       "\xf8\x88\x80\x80\x80",
                                       "\xfc\x84\x80\x80\x80\x80",
                                       "\xfe",
                                       "\xff", // no such lead
                                       "\x80",
                                       "\xbf",
                                       "a\x80", // stray
                                       "\xc3",
                                       "\xe2\x82",
                                       "\xe2",
                                       "\xf0\x9f\x93",
                                       "\xf0\x9f",
                                       "\xf0",
                                       "\xc3z",
                                       "\xe2\x82z"}) { // cut off
        CAPTURE(bad);
        CHECK(!is_utf8(bad));
        CHECK(!is_utf8("good, then " + std::string(bad)));
        CHECK(!is_utf8(std::string(bad) + " then good"));
        CHECK(refusal(bad) == errc::invalid);
        CHECK(sentence(bad) == "the name is not UTF-8");
    }
    CHECK(!is_utf8(std::string_view("\xe2\x82\xac", 2))); // what lies behind the end is not looked at
}

TEST_CASE("name: empty, too long, a place in a file system and control characters are refused, each with a sentence") {
    CHECK(refusal("") == errc::invalid);
    CHECK(sentence("") == "the name is empty");
    CHECK(refusal(std::string(255, 'x')) == errc{});
    CHECK(refusal(std::string(256, 'x')) == errc::invalid);
    CHECK(sentence(std::string(256, 'x')) == "the name is longer than 255 bytes");
    CHECK(refusal(".") == errc::invalid);
    CHECK(refusal("..") == errc::invalid);
    for (const std::string_view dots : {"...", ".a", "a.", "a..b", "./."}) { CHECK(refusal(dots) == errc{}); }
    for (int c = 0; c < 0x80; ++c) {
        const std::string name = std::string("a") + static_cast<char>(c) + "b";
        CAPTURE(c);
        CHECK(refusal(name) == (c < 0x20 || c == 0x7f ? errc::invalid : errc{}));
    }
    CHECK(sentence(std::string("a\0b", 3)) == "the name has a control character in it");
}
