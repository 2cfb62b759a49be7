// Properties to bytes and back. A varint says which of them are there (bit 0 key, then id, subject, correlation_id,
// reply_to, content_type, delay, time_to_live, priority, headers), then each that is: text as varint length and bytes,
// numbers as zigzag varints (nanoseconds), headers as a varint count of name, kind and value, in the order of the names.
// A message that says nothing takes one byte.
#pragma once

#include <mailroom/message/byte_sink.hpp>
#include <mailroom/message/detail/byte_source.hpp>
#include <mailroom/message/headers.hpp>
#include <mailroom/message/properties.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace mailroom::detail {

// In the order of their bits; delay and the others follow.
inline constexpr std::array property_texts{&properties::key,      &properties::id,          &properties::subject, &properties::correlation_id,
                                           &properties::reply_to, &properties::content_type};
inline constexpr std::uint64_t delay_bit = 1U << 6U;
inline constexpr std::uint64_t time_to_live_bit = 1U << 7U;
inline constexpr std::uint64_t priority_bit = 1U << 8U;
inline constexpr std::uint64_t headers_bit = 1U << 9U;
inline constexpr std::uint64_t every_property_bit = (1U << 10U) - 1;

// Stored, so their numbers stay.
enum class header_kind : std::uint8_t { null = 0, no = 1, yes = 2, integer = 3, real = 4, text = 5, bytes = 6 };

inline void encode_header_value(const header_value& value, byte_sink& out) {
    const auto put_kind = [&out](header_kind kind) { out.push_back(static_cast<std::byte>(kind)); };
    std::visit(
        [&]<class Held>(const Held& held) {
            if constexpr (std::is_same_v<Held, std::monostate>) {
                put_kind(header_kind::null);
            } else if constexpr (std::is_same_v<Held, bool>) {
                put_kind(held ? header_kind::yes : header_kind::no);
            } else if constexpr (std::is_same_v<Held, std::int64_t>) {
                put_kind(header_kind::integer);
                put_signed(out, held);
            } else if constexpr (std::is_same_v<Held, double>) {
                put_kind(header_kind::real);
                put_fixed(out, held);
            } else if constexpr (std::is_same_v<Held, std::string>) {
                put_kind(header_kind::text);
                put_text(out, held);
            } else {
                static_assert(std::is_same_v<Held, header_value::bytes>);
                put_kind(header_kind::bytes);
                put_varint(out, held.size());
                out.write(held);
            }
        },
        value.variant());
}

inline header_value decode_header_value(byte_source& in) {
    switch (static_cast<header_kind>(in.take_byte())) {
    case header_kind::null: return {};
    case header_kind::no: return false;
    case header_kind::yes: return true;
    case header_kind::integer: return in.take_signed();
    case header_kind::real: return in.take_fixed<double>();
    case header_kind::text: return std::string(in.take_text());
    case header_kind::bytes: return header_value(in.take(in.take_varint()));
    }
    in.corrupt("a header has no such kind of value");
}

/// Appends the bytes of the properties. Allocates only where the sink grows.
inline void encode_properties(const properties& p, byte_sink& out) {
    std::uint64_t there = 0;
    for (std::size_t i = 0; i < property_texts.size(); ++i) {
        if (!(p.*property_texts[i]).empty()) { there |= std::uint64_t{1} << i; }
    }
    if (p.delay != duration::zero()) { there |= delay_bit; }
    if (p.time_to_live != duration::zero()) { there |= time_to_live_bit; }
    if (p.priority != 0) { there |= priority_bit; }
    if (!p.headers.empty()) { there |= headers_bit; }

    put_varint(out, there);
    for (const auto text : property_texts) {
        if (!(p.*text).empty()) { put_text(out, p.*text); }
    }
    if ((there & delay_bit) != 0) { put_signed(out, p.delay.count()); }
    if ((there & time_to_live_bit) != 0) { put_signed(out, p.time_to_live.count()); }
    if ((there & priority_bit) != 0) { put_signed(out, p.priority); }
    if ((there & headers_bit) != 0) {
        put_varint(out, p.headers.size());
        for (const auto& [name, value] : p.headers) {
            put_text(out, name);
            encode_header_value(value, out);
        }
    }
}

/// Reads properties from the front of the bytes and takes them off. Throws errc::corrupt where they are none, and takes
/// nothing then.
[[nodiscard]] inline properties decode_properties(std::span<const std::byte>& bytes) {
    byte_source in(bytes, "properties");
    properties p;
    const std::uint64_t there = in.take_varint();
    if ((there & ~every_property_bit) != 0) { in.corrupt("there is one that nobody knows"); }
    for (std::size_t i = 0; i < property_texts.size(); ++i) {
        if ((there >> i & 1U) != 0) { p.*property_texts[i] = in.take_text(); }
    }
    if ((there & delay_bit) != 0) { p.delay = duration(in.take_signed()); }
    if ((there & time_to_live_bit) != 0) { p.time_to_live = duration(in.take_signed()); }
    if ((there & priority_bit) != 0) {
        const std::int64_t priority = in.take_signed();
        if (!std::in_range<int>(priority)) { in.corrupt("the priority is no int"); }
        p.priority = static_cast<int>(priority);
    }
    if ((there & headers_bit) != 0) {
        std::string_view last;
        for (std::size_t left = in.take_count(2), first = left; left != 0; --left) { // a length and a kind, at least
            const std::string_view name = in.take_text();
            if (left != first && name <= last) { in.corrupt("the headers are not in the order of their names"); }
            p.headers[name] = decode_header_value(in);
            last = name;
        }
    }
    bytes = in.rest();
    return p;
}

} // namespace mailroom::detail
