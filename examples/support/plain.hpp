// Bytes that may be anything, as text that can be printed: lines for people, in which nothing moves the cursor; JSON (RFC 8259), from which
// everything can be had back; hex dumps. Values and functions without state.
#pragma once

#include <mailroom/base/name.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <span>
#include <string>
#include <string_view>

namespace plain {

using bytes = std::span<const std::byte>;

inline std::string_view as_text(bytes b) noexcept { return {reinterpret_cast<const char*>(b.data()), b.size()}; }
inline unsigned at(bytes b, std::size_t i) noexcept { return std::to_integer<unsigned>(b[i]); }

/// How many bytes a character of UTF-8 has that begins here; 0: none begins.
inline std::size_t character_at(std::string_view s, std::size_t i) {
    for (std::size_t n = 1; n <= 4 && i + n <= s.size(); ++n) {
        if (mailroom::detail::is_utf8(s.substr(i, n))) { return n; }
    }
    return 0;
}

/// For people: characters as they are, but control characters and what is no UTF-8 as \xNN.
inline std::string line(std::string_view s) {
    std::string out;
    for (std::size_t i = 0; i < s.size();) {
        const std::size_t n = character_at(s, i);
        const auto first = static_cast<unsigned char>(s[i]);
        const bool control =
            n == 1 ? (first < 0x20 && first != '\t') || first == 0x7f : n == 2 && first == 0xc2 && static_cast<unsigned char>(s[i + 1]) < 0xa0;
        if (n != 0 && !control) {
            out.append(s, i, n);
            i += n;
            continue;
        }
        char hex[8];
        for (std::size_t end = i + (n == 0 ? 1 : n); i < end; ++i) {
            std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(s[i])));
            out.append(hex);
        }
    }
    return out;
}

/// Columns it takes, if each character takes one.
inline std::size_t columns(std::string_view s) noexcept {
    std::size_t n = 0;
    for (const char c : s) { n += (static_cast<unsigned char>(c) & 0xc0u) != 0x80 ? 1 : 0; }
    return n;
}
/// Filled up with blanks.
inline std::string padded(std::string s, std::size_t width) {
    const std::size_t n = columns(s);
    if (n < width) { s.append(width - n, ' '); }
    return s;
}

/// A string of JSON, with its quotes. For UTF-8 only.
inline std::string quoted(std::string_view s) {
    std::string out = "\"";
    for (const char c : s) {
        switch (c) {
        case '"': out.append("\\\""); break;
        case '\\': out.append("\\\\"); break;
        case '\b': out.append("\\b"); break;
        case '\f': out.append("\\f"); break;
        case '\n': out.append("\\n"); break;
        case '\r': out.append("\\r"); break;
        case '\t': out.append("\\t"); break;
        default:
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
                char hex[8];
                std::snprintf(hex, sizeof hex, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
                out.append(hex);
            } else {
                out.push_back(c);
            }
        }
    }
    return out.append("\"");
}

/// Base64 (RFC 4648), with padding.
inline std::string base64(bytes b) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    out.reserve((b.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < b.size(); i += 3) {
        const std::size_t n = b.size() - i < 3 ? b.size() - i : 3;
        const unsigned three = at(b, i) << 16 | (n > 1 ? at(b, i + 1) << 8 : 0) | (n > 2 ? at(b, i + 2) : 0);
        for (unsigned k = 0; k < 4; ++k) { out.push_back(k <= n ? digits[three >> (18 - 6 * k) & 63u] : '='); }
    }
    return out;
}
inline std::string base64(std::string_view s) { return base64(std::as_bytes(std::span(s.data(), s.size()))); }

/// A number of JSON, or, for what JSON has no number for, a string.
inline std::string number(double value) {
    if (!std::isfinite(value)) { return std::isnan(value) ? "\"NaN\"" : value > 0 ? "\"Infinity\"" : "\"-Infinity\""; }
    std::array<char, 32> digits; // the shortest that reads back as the same
    const auto [end, wrong] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    return {digits.data(), end};
}

/// Sixteen bytes a line, with their places and what they are as ASCII.
inline std::string hex_dump(bytes b, std::string_view indent) {
    std::string out;
    char part[24];
    for (std::size_t i = 0; i < b.size(); i += 16) {
        std::snprintf(part, sizeof part, "%08zx ", i);
        out.append(indent).append(part);
        std::string ascii;
        for (std::size_t k = 0; k < 16; ++k) {
            if (k == 8) { out.push_back(' '); }
            if (i + k >= b.size()) {
                out.append("   ");
                continue;
            }
            const unsigned value = at(b, i + k);
            std::snprintf(part, sizeof part, " %02x", value);
            out.append(part);
            ascii.push_back(value >= 0x20 && value < 0x7f ? static_cast<char>(value) : '.');
        }
        out.append("  |").append(ascii).append("|\n");
    }
    return out;
}

/// Nanoseconds since 1970 as 2025-11-21T18:43:12.123456789Z.
inline std::string time(std::int64_t ns) {
    constexpr std::int64_t second = 1'000'000'000;
    std::int64_t whole = ns / second, part = ns % second;
    if (part < 0) {
        part += second;
        --whole;
    }
    const auto seconds = static_cast<std::time_t>(whole);
    std::tm calendar{};
    ::gmtime_r(&seconds, &calendar);
    char day[40], fraction[24];
    std::strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &calendar);
    std::snprintf(fraction, sizeof fraction, ".%09lldZ", static_cast<long long>(part));
    return std::string(day).append(fraction);
}

/// "512 bytes", "1.5 KiB"
inline std::string size(std::uint64_t n) {
    constexpr std::array units{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (n < 1024) { return std::to_string(n) + (n == 1 ? " byte" : " bytes"); }
    double value = static_cast<double>(n) / 1024;
    std::size_t unit = 0;
    for (; value >= 1024 && unit + 1 < units.size(); ++unit) { value /= 1024; }
    char text[32];
    std::snprintf(text, sizeof text, "%.1f %s", value, units[unit]);
    return text;
}

/// "1 message", "2 messages"
inline std::string count(std::uint64_t n, std::string_view what) {
    return std::to_string(n).append(" ").append(what).append(n == 1 ? "" : what.ends_with("ch") ? "es" : "s");
}

} // namespace plain
