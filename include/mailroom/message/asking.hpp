// How a request says who asks: the address in `properties::reply_to`, the number of the call in `properties::correlation_id`. Both are text of
// 15 characters, so that they need no memory of their own, and mean something in one process only, the one that asked: after a restart the
// address of a request that was stored is nobody's. Values; threads: any.
#pragma once

#include <mailroom/message/properties.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mailroom::detail {

inline constexpr std::string_view asking_prefix = "ask:";
inline constexpr std::size_t asking_length = 15;

/// "ask:" and 64 bits, six a character.
inline std::string reply_address(std::uint64_t of) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::string text(asking_length, 'A');
    asking_prefix.copy(text.data(), asking_prefix.size());
    for (std::size_t i = asking_prefix.size(); i < asking_length; ++i, of >>= 6) { text[i] = digits[of & 63]; }
    return text;
}

/// Whether somebody waits for the answer with a `requester`: such a message is of no use to anybody once its time is over.
inline bool is_request(const properties& p) noexcept { return p.reply_to.size() == asking_length && p.reply_to.starts_with(asking_prefix); }

/// The number of a call as text: 60 bits in hexadecimal. Needs no memory where strings keep 15 characters inside.
inline void write_call_number(std::string& to, std::uint64_t number) {
    char text[asking_length];
    for (std::size_t i = asking_length; i-- != 0; number >>= 4) { text[i] = "0123456789abcdef"[number & 15]; }
    to.assign(text, asking_length);
}
/// False: it is none.
inline bool read_call_number(std::string_view text, std::uint64_t& number) noexcept {
    if (text.size() != asking_length) { return false; }
    number = 0;
    for (const char c : text) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) { return false; }
        number = number << 4 | static_cast<std::uint64_t>(digit);
    }
    return true;
}

} // namespace mailroom::detail
