// value_shape: a number for the layout of a type's bytes, computed by the compiler: the same for the same layout on every
// compiler and machine of the same sizes, another one (but for one time in 2^64) where an integer became wider, a field
// moved, an alternative came. Names do not count. What checks itself when it is read (aggregates by fields) counts as one
// kind, whatever is in it.
#pragma once

#include <mailroom/message/detail/value_form.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace mailroom::detail {

// FNV-1a over the eight bytes of each number.
constexpr std::uint64_t fold(std::uint64_t hash, std::uint64_t number) {
    for (int i = 0; i < 8; ++i) {
        hash = (hash ^ (number & 0xffU)) * 0x100000001b3U;
        number >>= 8U;
    }
    return hash;
}
template <std::same_as<std::uint64_t>... Numbers>
constexpr std::uint64_t fold_all(std::uint64_t first, Numbers... numbers) {
    std::uint64_t hash = fold(0xcbf29ce484222325U, first);
    ((hash = fold(hash, numbers)), ...);
    return hash;
}

// Stored, so their numbers stay.
enum class shape_kind : std::uint64_t {
    boolean = 1,
    signed_integer = 2,
    unsigned_integer = 3,
    character = 4,
    floating = 5,
    enumeration = 6,
    time_span = 7,
    moment = 8,
    array = 9,
    structure = 10,
    opaque = 11,
    sequence = 13,
    map = 14,
    set = 15,
    maybe = 16,
    choice = 17,
    product = 18,
    aggregate = 19,
    own = 20,
};

template <class... Parts>
consteval std::uint64_t shape(shape_kind kind, Parts... parts) {
    return fold_all(static_cast<std::uint64_t>(kind), static_cast<std::uint64_t>(parts)...);
}

template <class T>
consteval std::uint64_t value_shape();

template <class Rep, class Period>
consteval std::uint64_t time_shape(std::type_identity<std::chrono::duration<Rep, Period>>) {
    return shape(shape_kind::time_span, Period::num, Period::den, value_shape<Rep>());
}
template <class Clock, class Duration>
consteval std::uint64_t time_shape(std::type_identity<std::chrono::time_point<Clock, Duration>>) {
    return shape(shape_kind::moment, value_shape<Duration>());
}
template <class... Ts>
consteval std::uint64_t parts_shape(shape_kind kind, std::type_identity<std::variant<Ts...>>) {
    return shape(kind, sizeof...(Ts), value_shape<Ts>()...);
}
template <class... Ts>
consteval std::uint64_t parts_shape(shape_kind kind, std::type_identity<std::tuple<Ts...>>) {
    return shape(kind, sizeof...(Ts), value_shape<Ts>()...);
}
template <class A, class B>
consteval std::uint64_t parts_shape(shape_kind kind, std::type_identity<std::pair<A, B>>) {
    return parts_shape(kind, std::type_identity<std::tuple<A, B>>());
}

template <class T>
consteval std::uint64_t plain_shape() {
    if constexpr (std::is_same_v<T, bool>) {
        return shape(shape_kind::boolean, sizeof(T));
    } else if constexpr (std::is_same_v<T, char>) {
        return shape(shape_kind::character, sizeof(T)); // with a sign or without: it depends on the machine
    } else if constexpr (std::is_integral_v<T>) {
        return shape(std::is_signed_v<T> ? shape_kind::signed_integer : shape_kind::unsigned_integer, sizeof(T));
    } else if constexpr (std::is_floating_point_v<T>) {
        return shape(shape_kind::floating, sizeof(T), std::numeric_limits<T>::digits);
    } else if constexpr (std::is_enum_v<T>) {
        return shape(shape_kind::enumeration, value_shape<std::underlying_type_t<T>>());
    } else if constexpr (is_time<T>) {
        return time_shape(std::type_identity<T>());
    } else if constexpr (is_std_array<T>) {
        return shape(shape_kind::array, std::tuple_size_v<T>, value_shape<typename T::value_type>());
    } else if constexpr (visible_aggregate<T>) {
        // Offsets follow from the order and sizes of the fields.
        return []<std::size_t... I>(std::index_sequence<I...>) {
            return shape(shape_kind::structure, sizeof(T), alignof(T), sizeof...(I), value_shape<field<T, I>>()...);
        }
        (std::make_index_sequence<field_count<T>>());
    } else {
        return shape(shape_kind::opaque, sizeof(T), alignof(T));
    }
}

template <class T>
consteval std::uint64_t value_shape() {
    if constexpr (form<T> == value_form::own) {
        if constexpr (requires {
                          { codec<T>::fingerprint } -> std::convertible_to<std::uint64_t>;
                      }) {
            return shape(shape_kind::own, codec<T>::fingerprint);
        } else {
            return shape(shape_kind::own);
        }
    } else if constexpr (form<T> == value_form::plain) {
        return plain_shape<T>();
    } else if constexpr (form<T> == value_form::sequence) {
        return shape(shape_kind::sequence, value_shape<typename T::value_type>());
    } else if constexpr (form<T> == value_form::associative) {
        if constexpr (requires { typename T::mapped_type; }) {
            return shape(shape_kind::map, value_shape<typename T::key_type>(), value_shape<typename T::mapped_type>());
        } else {
            return shape(shape_kind::set, value_shape<typename T::key_type>());
        }
    } else if constexpr (is_optional<T>) {
        return shape(shape_kind::maybe, value_shape<typename T::value_type>());
    } else if constexpr (is_owner<T>) {
        return shape(shape_kind::maybe, value_shape<std::remove_cv_t<typename T::element_type>>());
    } else if constexpr (form<T> == value_form::choice) {
        return parts_shape(shape_kind::choice, std::type_identity<T>());
    } else if constexpr (is_std_array<T>) {
        return shape(shape_kind::array, std::tuple_size_v<T>, value_shape<typename T::value_type>());
    } else if constexpr (form<T> == value_form::product) {
        return parts_shape(shape_kind::product, std::type_identity<T>());
    } else {
        return shape(shape_kind::aggregate); // ends every recursion of a type through itself, too
    }
}

} // namespace mailroom::detail
