// What the benchmarks send: bodies that carry a number, so that what arrives can be checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace bench {

struct small {
    std::uint64_t sender;
    std::uint64_t number;
};
static_assert(sizeof(small) == 16);

template <class T>
struct body_traits;

template <>
struct body_traits<small> {
    static small make(std::uint64_t sender, std::uint64_t number) { return {sender, number}; }
    static std::uint64_t check(const small& b) { return b.number + (b.sender << 32); }
};

/// 64 characters, made anew for each message.
template <>
struct body_traits<std::string> {
    static std::string make(std::uint64_t sender, std::uint64_t number) {
        static constexpr std::string_view text = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        std::string s(text);
        const std::uint64_t word = number + (sender << 32);
        std::memcpy(s.data(), &word, sizeof word);
        return s;
    }
    static std::uint64_t check(const std::string& s) {
        std::uint64_t word = 0;
        std::memcpy(&word, s.data(), sizeof word);
        return word;
    }
};

/// The sum of `check` over what one sender sends.
inline std::uint64_t expected_check(std::uint64_t sender, std::uint64_t messages) {
    return (messages % 2 == 0 ? messages / 2 * (messages - 1) : (messages - 1) / 2 * messages) + messages * (sender << 32);
}

} // namespace bench
