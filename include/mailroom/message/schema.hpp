// schema: what is stored beside the bytes of a type, so that they are read as that or not at all; and how what was stored
// by an older version of a type is read by a newer one. Values and functions without state.
#pragma once

#include <mailroom/base/error.hpp>
#include <mailroom/base/type_name.hpp>
#include <mailroom/message/codec.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mailroom {

/// Which version of its type T is. To be raised when the meaning or the layout changes and old messages are still stored:
///
///     template <> inline constexpr std::uint32_t mailroom::type_version<Order> = 2;
template <class T>
inline constexpr std::uint32_t type_version = 1;

/// Which type New was before. The older type is kept in the program, under another C++ name and the old type_name and
/// version:
///
///     template <> struct mailroom::older<Order> { using type = OrderV1; };
template <class New>
struct older {
    using type = void;
};

/// How an Old becomes a New:
///
///     template <> struct mailroom::upcast<OrderV1, Order> { static Order convert(OrderV1&& old); };
template <class Old, class New>
struct upcast;

namespace detail {

struct schema {
    std::string type;              ///< type_name
    std::uint32_t version = 1;     ///< type_version
    std::uint64_t fingerprint = 0; ///< layout_fingerprint
    std::string content;           ///< content_type of the codec

    [[nodiscard]] friend bool operator==(const schema&, const schema&) = default;
};

template <class T>
[[nodiscard]] schema schema_of() {
    require_codec<T>();
    return {std::string(type_name_v<T>), type_version<T>, layout_fingerprint<T>(), std::string(codec<T>::content_type)};
}

template <class T>
[[nodiscard]] bool has_schema(const schema& s) {
    return s.type == type_name_v<T> && s.version == type_version<T> && s.fingerprint == layout_fingerprint<T>() &&
           s.content == codec<T>::content_type;
}

template <class T>
using decoder = T (*)(std::span<const std::byte>);

template <class Old, class New>
concept upcastable = requires(Old&& old) {
    { upcast<Old, New>::convert(std::move(old)) } -> std::same_as<New>;
};

// Reads a Stored and makes a T of it, step by step up the chain.
template <class T, class Stored>
T decode_as(std::span<const std::byte> bytes) {
    if constexpr (std::is_same_v<T, Stored>) {
        return codec<T>::decode(bytes);
    } else {
        using before = typename older<T>::type;
        static_assert(upcastable<before, T>,
                      "mailroom::older<New> names a type from which there is no way: specialise mailroom::upcast<Old, New> with "
                      "`static New convert(Old&& old)`");
        return upcast<before, T>::convert(decode_as<before, Stored>(bytes));
    }
}

template <class T, class Candidate>
decoder<T> find_decoder(const schema& stored) {
    static_assert(codable<Candidate>, "mailroom::older<New> names a type that has no codec");
    if (has_schema<Candidate>(stored)) { return &decode_as<T, Candidate>; }
    using before = typename older<Candidate>::type;
    if constexpr (std::is_void_v<before>) {
        return nullptr;
    } else {
        return find_decoder<T, before>(stored);
    }
}

/// Returns what reads bytes stored under that schema as a T: directly, or as one of the types that T was before, changed
/// step by step; nullptr where T cannot read them.
template <class T>
[[nodiscard]] decoder<T> decoder_for(const schema& stored) {
    require_codec<T>();
    return find_decoder<T, T>(stored);
}

/// "acme.order version 2 (application/x-mailroom, layout 1f00...)"
[[nodiscard]] inline std::string describe(const schema& s) {
    std::string text = s.type;
    text.append(" version ").append(std::to_string(s.version)).append(" (").append(s.content);
    if (s.fingerprint != 0) {
        text.append(", layout ");
        for (int shift = 60; shift >= 0; shift -= 4) { text.push_back("0123456789abcdef"[(s.fingerprint >> static_cast<unsigned>(shift)) & 0xfU]); }
    }
    return text.append(")");
}

/// Says that a T cannot read what is stored, and what to do about it where that can be told.
template <class T>
[[nodiscard]] std::string mismatch_sentence(const schema& stored) {
    const schema here = schema_of<T>();
    std::string text = "what is stored is " + describe(stored) + " and cannot be read as " + describe(here);
    if (stored.type != here.type) { return text; }
    if (stored.version > here.version) { return text + ": a newer program wrote it"; }
    if (stored.version < here.version) { return text + ": specialise mailroom::older and mailroom::upcast for it"; }
    if (stored.fingerprint != here.fingerprint) { return text + ": its layout has changed and its type_version has not"; }
    return text;
}

template <class T>
[[noreturn, gnu::cold]] void fail_mismatch(const schema& stored) {
    fail(errc::type_mismatch, mismatch_sentence<T>(stored));
}

} // namespace detail
} // namespace mailroom
