// Names of endpoints: what may be one.
#pragma once

#include <mailroom/base/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mailroom::detail {

/// Whether the bytes are UTF-8 as RFC 3629 has it: shortest forms, no surrogates, nothing above U+10FFFF.
constexpr bool is_utf8(std::string_view s) noexcept {
    for (std::size_t i = 0; i < s.size();) {
        const auto lead = static_cast<unsigned char>(s[i]);
        std::size_t more = 0;
        std::uint32_t code = 0, least = 0;
        if (lead < 0x80) {
            ++i;
            continue;
        }
        if ((lead & 0xe0u) == 0xc0) {
            more = 1, code = lead & 0x1fu, least = 0x80;
        } else if ((lead & 0xf0u) == 0xe0) {
            more = 2, code = lead & 0x0fu, least = 0x800;
        } else if ((lead & 0xf8u) == 0xf0) {
            more = 3, code = lead & 0x07u, least = 0x10000;
        } else {
            return false;
        }
        if (s.size() - i <= more) { return false; }
        for (std::size_t k = 1; k <= more; ++k) {
            const auto next = static_cast<unsigned char>(s[i + k]);
            if ((next & 0xc0u) != 0x80) { return false; }
            code = code << 6 | (next & 0x3fu);
        }
        if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) { return false; }
        i += more + 1;
    }
    return true;
}

/// Throws errc::invalid, with a sentence, for what cannot be a name.
inline void check_name(std::string_view name) {
    if (name.empty()) { fail(errc::invalid, "the name is empty"); }
    if (name.size() > 255) { fail(errc::invalid, "the name is longer than 255 bytes"); }
    if (name == "." || name == "..") { fail(errc::invalid, "the name is . or .., which are places in a file system"); }
    if (!is_utf8(name)) { fail(errc::invalid, "the name is not UTF-8"); }
    for (const char c : name) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) { fail(errc::invalid, "the name has a control character in it"); }
    }
}

} // namespace mailroom::detail
