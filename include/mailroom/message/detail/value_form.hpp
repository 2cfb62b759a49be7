// value_form: how a value of a type is laid out in bytes, decided at compile time.
#pragma once

#include <mailroom/message/detail/aggregate.hpp>
#include <mailroom/message/traits.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace mailroom {

template <class T>
struct codec;

namespace detail {

enum class value_form {
    none,        ///< no bytes: pointers, references, views, handles
    own,         ///< a user's codec
    plain,       ///< its bytes, as they lie
    sequence,    ///< a count, then elements: strings, vectors, lists
    associative, ///< the same for maps and sets
    maybe,       ///< a byte, then perhaps a value: optional, unique_ptr, shared_ptr
    choice,      ///< which, then that: variant
    product,     ///< one after the other: pair, tuple, array
    aggregate,   ///< how many fields and of what shape, then the fields
};

// The codec that comes with the library says so; a specialisation does not.
template <class T>
concept has_own_codec = !requires {
    typename codec<T>::provided_by_mailroom;
};

template <class T>
inline constexpr bool is_std_array = false;
template <class T, std::size_t N>
inline constexpr bool is_std_array<std::array<T, N>> = true;
template <class T>
inline constexpr bool is_tuple = false;
template <class... Ts>
inline constexpr bool is_tuple<std::tuple<Ts...>> = true;
template <class A, class B>
inline constexpr bool is_tuple<std::pair<A, B>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_owner = false;
template <class T>
inline constexpr bool is_owner<std::unique_ptr<T>> = !std::is_array_v<T> && !std::is_void_v<T>;
template <class T>
inline constexpr bool is_owner<std::shared_ptr<T>> = !std::is_array_v<T> && !std::is_void_v<T>;
template <class T>
inline constexpr bool is_time = false;
template <class Rep, class Period>
inline constexpr bool is_time<std::chrono::duration<Rep, Period>> = std::is_arithmetic_v<Rep>;
template <class Clock, class Duration>
inline constexpr bool is_time<std::chrono::time_point<Clock, Duration>> = is_time<Duration>;

template <class T>
concept associative_container = owning_container<T> && requires {
    typename T::key_type;
};
template <class T>
concept sequence_container = owning_container<T> && requires(T& c, typename T::value_type&& v) {
    c.push_back(std::move(v));
};

// Trivially copyable and yet without a meaning of its own: it points at what somebody else owns.
template <class T>
concept borrows = requires(const T& t) {
    requires std::is_pointer_v<decltype(t.data())>;
} // string_view, span
|| requires { typename T::iterator_category; }                                       // iterators
|| requires(const T& t) { requires std::is_pointer_v<decltype(t.address())>; }       // coroutine_handle
|| requires(const T& t) { requires std::is_lvalue_reference_v<decltype(t.get())>; }; // reference_wrapper

// Whether it can be read by copying bytes over it. A const or reference field speaks against it.
template <class T>
concept copied_by_bytes = std::is_trivially_copyable_v<T> && std::is_copy_constructible_v<T> && std::is_copy_assignable_v<T> &&
    (std::is_class_v<T> || std::is_union_v<T>);

template <class T>
consteval value_form form_of();
template <class T>
inline constexpr value_form form = form_of<T>();
template <class T>
concept plain = form<T>
== value_form::plain;

template <class T>
consteval bool has_plain_fields() {
    return []<std::size_t... I>(std::index_sequence<I...>) { return (plain<field<T, I>> && ...); }
    (std::make_index_sequence<field_count<T>>());
}

template <class T>
consteval value_form form_of_aggregate() {
    if constexpr (visible_aggregate<T>) {
        if constexpr (copied_by_bytes<T>) {
            if constexpr (has_plain_fields<T>()) { return value_form::plain; }
        }
        return value_form::aggregate;
    } else if constexpr (!copied_by_bytes<T>) {
        return value_form::none;
    } else {
        return holds_pointer<T>() ? value_form::none : value_form::plain;
    }
}

template <class T>
consteval value_form form_of() {
    if constexpr (!std::is_object_v<T> || std::is_array_v<T> || std::is_abstract_v<T> || std::is_const_v<T> || std::is_volatile_v<T>) {
        return value_form::none;
    } else if constexpr (has_own_codec<T>) {
        return value_form::own;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> || is_time<T>) {
        return value_form::plain;
    } else if constexpr (!std::is_class_v<T> && !std::is_union_v<T>) {
        return value_form::none; // pointers
    } else if constexpr (associative_container<T>) {
        return value_form::associative;
    } else if constexpr (sequence_container<T>) {
        return value_form::sequence;
    } else if constexpr (is_optional<T> || is_owner<T>) {
        return value_form::maybe;
    } else if constexpr (is_variant<T>) {
        return value_form::choice;
    } else if constexpr (is_std_array<T>) {
        return plain<typename T::value_type> ? value_form::plain : value_form::product;
    } else if constexpr (is_tuple<T>) {
        return value_form::product;
    } else if constexpr (std::is_aggregate_v<T>) {
        return form_of_aggregate<T>();
    } else if constexpr (copied_by_bytes<T>) {
        return borrows<T> ? value_form::none : value_form::plain;
    } else {
        return value_form::none;
    }
}

} // namespace detail
} // namespace mailroom
