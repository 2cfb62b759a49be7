// byte_source: what a decoder reads from: bytes that may be anything. Every length is compared with what is left before
// it is believed. And the numbers of the format, both ways: little-endian, and varints (LEB128: seven bits a byte, low
// ones first; integers with a sign as zigzag, so that small ones are short).
#pragma once

#include <mailroom/base/error.hpp>
#include <mailroom/message/byte_sink.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace mailroom::detail {

static_assert(std::endian::native == std::endian::little,
              "mailroom stores values as they lie in memory, little-endian: this machine would need a codec that turns them round");

class byte_source {
public:
    /// `what` is named in what is thrown; it must live as long as this.
    byte_source(std::span<const std::byte> bytes, std::string_view what) noexcept : rest_(bytes), what_(what) {}

    [[nodiscard]] std::span<const std::byte> rest() const noexcept { return rest_; }
    [[nodiscard]] std::size_t left() const noexcept { return rest_.size(); }

    std::span<const std::byte> take(std::uint64_t count) {
        if (count > rest_.size()) [[unlikely]] { corrupt("they end too early"); }
        const auto taken = rest_.first(static_cast<std::size_t>(count));
        rest_ = rest_.subspan(static_cast<std::size_t>(count));
        return taken;
    }

    std::uint8_t take_byte() { return std::to_integer<std::uint8_t>(take(1)[0]); }

    template <class Number>
    Number take_fixed() {
        Number number;
        std::memcpy(&number, take(sizeof number).data(), sizeof number);
        return number;
    }

    std::uint64_t take_varint() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const std::uint8_t byte = take_byte();
            const std::uint64_t bits = byte & 0x7fU;
            if (shift == 63 && bits > 1) { break; }
            value |= bits << shift;
            if (byte < 0x80) { return value; }
        }
        corrupt("a number has more than 64 bits");
    }

    std::int64_t take_signed() {
        const std::uint64_t coded = take_varint();
        return static_cast<std::int64_t>((coded >> 1U) ^ (~(coded & 1U) + 1U));
    }

    /// The count of what follows, each of which takes `least_bytes` or more: never more than there can be.
    std::size_t take_count(std::size_t least_bytes) {
        const std::uint64_t count = take_varint();
        if (count > rest_.size() / least_bytes) { corrupt("they end too early"); }
        return static_cast<std::size_t>(count);
    }

    std::string_view take_text() {
        const auto text = take(take_varint());
        return {reinterpret_cast<const char*>(text.data()), text.size()};
    }

    void expect_end() const {
        if (!rest_.empty()) { corrupt("there are more of them than it takes"); }
    }

    [[noreturn, gnu::cold, gnu::noinline]] void corrupt(std::string_view why) const { fail_with(errc::corrupt, why); }
    [[noreturn, gnu::cold, gnu::noinline]] void fail_with(errc code, std::string_view why) const {
        std::string sentence("the bytes are no ");
        sentence.append(what_).append(": ").append(why);
        fail(code, sentence);
    }

    unsigned depth = 0; ///< how many values that may hold their like are being read, one in another

private:
    std::span<const std::byte> rest_;
    std::string_view what_;
};

// What a value is written to: the sink, and how deep we are.
struct byte_target {
    byte_sink& out;
    unsigned depth = 0;
};

template <class Number>
void put_fixed(byte_sink& out, Number number) {
    std::memcpy(out.extend(sizeof number), &number, sizeof number);
}
inline void put_varint(byte_sink& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7U) { out.push_back(static_cast<std::byte>(value | 0x80U)); }
    out.push_back(static_cast<std::byte>(value));
}
inline void put_signed(byte_sink& out, std::int64_t value) {
    const auto bits = static_cast<std::uint64_t>(value);
    put_varint(out, (bits << 1U) ^ (value < 0 ? ~std::uint64_t{0} : 0));
}
inline void put_text(byte_sink& out, std::string_view text) {
    put_varint(out, text.size());
    out.write(std::as_bytes(std::span(text)));
}

} // namespace mailroom::detail
