// codec<T>: how a T becomes bytes and comes back, where bytes are needed: in a journal, between processes. Provided for
// strings, bytes, numbers, enumerations, times, what can be copied by its bytes, aggregates (by Boost.PFR), and the
// standard containers, optional, variant, pair, tuple, array and owning pointers of such. The layout is described in
// detail/value_coder.hpp. Functions without state; they may be called from any thread.
#pragma once

#include <mailroom/base/type_name.hpp>
#include <mailroom/message/byte_sink.hpp>
#include <mailroom/message/detail/byte_source.hpp>
#include <mailroom/message/detail/value_coder.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace mailroom {

/// Whether a T has a codec: provided or a user's own.
template <class T>
concept codable = detail::is_codable<T>();

namespace detail {

template <class T>
inline constexpr bool is_bytes = false;
template <class Allocator>
inline constexpr bool is_bytes<std::vector<std::byte, Allocator>> = true;
template <class Allocator>
inline constexpr bool is_bytes<std::vector<unsigned char, Allocator>> = true;
template <class Allocator>
inline constexpr bool is_bytes<std::vector<char, Allocator>> = true;
template <class T>
inline constexpr bool is_text = false;
template <class Traits, class Allocator>
inline constexpr bool is_text<std::basic_string<char, Traits, Allocator>> = true;

// A body that is nothing but its bytes: no count goes before them.
template <class T>
concept bare = is_text<T> || is_bytes<T>;

// Says what to do, first of all that the compiler says.
template <class T>
consteval void require_codec() {
    static_assert(codable<T>,
                  "this T has no codec, and bytes are needed: specialise mailroom::codec<T> with encode, decode and content_type; or make "
                  "it an aggregate of values (no pointers, references, views, bases, no C arrays beside members that own memory)");
}

} // namespace detail

/// Turns a T into bytes and back. Specialise it for a type of one's own:
///
///     template <> struct mailroom::codec<Order> {
///         static void encode(const Order& o, mailroom::byte_sink& out);          // appends
///         static Order decode(std::span<const std::byte> bytes);                 // throws what is no Order
///         static constexpr std::string_view content_type = "application/x-order";
///         static constexpr std::uint64_t fingerprint = 1;                        // optional: another number, another layout
///     };
///
/// The provided one: strings and vectors of bytes are stored as they are. What can be copied by its bytes is (one memcpy;
/// padding too, with whatever is in it), so that a changed layout is another format: `detail::layout_fingerprint` tells.
/// Other aggregates are stored field by field: fields that were added at the end since take their defaults, any other
/// change is refused. Owning pointers are stored as what they point to, each time they do. An aggregate with a base or a C
/// array, a union or a class is stored by its bytes or not at all; what is in it is not looked at, but for pointers, which
/// are refused where they are seen. Enumerators are not checked.
template <class T>
struct codec {
    using provided_by_mailroom = void;

    /// "text/plain", "application/octet-stream", or "application/x-mailroom".
    static constexpr std::string_view content_type = detail::is_text<T>    ? std::string_view("text/plain")
                                                     : detail::is_bytes<T> ? std::string_view("application/octet-stream")
                                                                           : std::string_view("application/x-mailroom");

    /// Appends the bytes of the value. Throws std::bad_alloc, errc::too_large for what is nested deeper than 100
    /// aggregates, errc::invalid for a variant without a value; what was appended until then is of no use.
    static void encode(const T& value, byte_sink& out) {
        detail::require_codec<T>();
        if constexpr (codable<T>) {
            if constexpr (detail::bare<T>) {
                out.write(std::as_bytes(std::span(value.data(), value.size())));
            } else {
                detail::byte_target to{out};
                detail::write_value(value, to);
            }
        }
    }

    /// Makes a T of all these bytes. Throws errc::corrupt where they are none, errc::type_mismatch where they are one with
    /// other fields. Safe for any bytes: allocates no more than a small multiple of what is there.
    static T decode(std::span<const std::byte> bytes) {
        detail::require_codec<T>();
        if constexpr (detail::bare<T>) {
            const auto* const first = reinterpret_cast<const typename T::value_type*>(bytes.data());
            return bytes.empty() ? T() : T(first, first + bytes.size());
        } else if constexpr (codable<T>) {
            detail::byte_source in(bytes, type_name_v<T>);
            T value = detail::read_value<T>(in);
            in.expect_end();
            return value;
        }
    }
};

namespace detail {

/// A number for the layout of the bytes of a T: 0 where they check themselves (text, bytes, aggregates by fields), the
/// user's own where codec<T> says one, else a hash of sizes, alignments and kinds (detail/value_shape.hpp).
template <class T>
consteval std::uint64_t layout_fingerprint() {
    if constexpr (has_own_codec<T>) {
        if constexpr (requires {
                          { codec<T>::fingerprint } -> std::convertible_to<std::uint64_t>;
                      }) {
            return codec<T>::fingerprint;
        } else {
            return 0;
        }
    } else if constexpr (bare<T> || form<T> == value_form::aggregate || form<T> == value_form::none) {
        return 0;
    } else {
        return value_shape<T>() | 1U;
    }
}

} // namespace detail
} // namespace mailroom
