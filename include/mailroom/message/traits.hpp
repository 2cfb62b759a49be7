// What an endpoint wants to know about a body: how many bytes it counts for (footprint), and whether its buffer is
// worth keeping in the slot for the next message (reuse_slot). Both may be specialised for a type of one's own.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace mailroom {

template <class T>
struct footprint;

/// Returns the bytes a value counts for. Depends on the value alone (never on spare capacity), so a value that was
/// moved to another place counts the same there.
template <class T>
[[nodiscard]] constexpr std::size_t footprint_of(const T& value) noexcept {
    return footprint<T>::of(value);
}

namespace detail {

// A container that owns its elements: strings, vectors, maps...; not a view or a span.
template <class T>
concept owning_container = requires(const T& c) {
    typename T::value_type;
    typename T::allocator_type;
    { c.size() } -> std::convertible_to<std::size_t>;
    c.begin();
    c.end();
};
template <class T>
concept optional_like = requires(const T& o) {
    typename T::value_type;
    { o.has_value() } -> std::same_as<bool>;
    { *o } -> std::same_as<const typename T::value_type&>;
};
template <class T>
concept owning_pointer = requires(const T& p) {
    typename T::element_type;
    { p.get() } -> std::same_as<typename T::element_type*>;
    {static_cast<bool>(p)};
}
&&!std::is_array_v<typename T::element_type> && !std::is_void_v<typename T::element_type>;
template <class T>
concept tuple_like = requires {
    std::tuple_size<T>::value;
};

template <class T>
inline constexpr bool is_variant = false;
template <class... Ts>
inline constexpr bool is_variant<std::variant<Ts...>> = true;

// Whether each T counts for sizeof(T). A specialisation that does not say so varies.
template <class T>
consteval bool says_constant() {
    if constexpr (requires {
                      { footprint<T>::constant } -> std::convertible_to<bool>;
                  }) {
        return footprint<T>::constant;
    } else {
        return false;
    }
}
template <class T>
inline constexpr bool footprint_is_constant = says_constant<T>();

// For each part of a T.
template <class... Ts>
consteval bool all_constant(std::type_identity<std::variant<Ts...>>) {
    return (footprint_is_constant<Ts> && ...);
}
template <class T, std::size_t... I>
consteval bool all_constant(std::index_sequence<I...>) {
    return (footprint_is_constant<std::remove_cvref_t<std::tuple_element_t<I, T>>> && ...);
}

template <class T>
consteval bool is_flat() {
    if constexpr (owning_container<T> || owning_pointer<T>) {
        return false;
    } else if constexpr (optional_like<T>) {
        return footprint_is_constant<typename T::value_type>;
    } else if constexpr (is_variant<T>) {
        return all_constant(std::type_identity<T>());
    } else if constexpr (tuple_like<T>) {
        return all_constant<T>(std::make_index_sequence<std::tuple_size_v<T>>());
    } else {
        return true;
    }
}

// What a part holds elsewhere, beyond the place it takes in its owner.
template <class T>
constexpr std::size_t held_elsewhere(const T& part) noexcept {
    const std::size_t all = footprint_of(part);
    return all > sizeof(T) ? all - sizeof(T) : 0;
}

} // namespace detail

/// How many bytes a T counts for against `max_bytes`: its size and what it holds elsewhere, as far as that can be seen:
/// elements of standard containers and what optional, variant, pair, tuple, array and owning pointers hold, nested as
/// they are. The members of a class are not seen; where they matter, say so:
///
///     template <> struct mailroom::footprint<Order> {
///         static std::size_t of(const Order& o) noexcept { return sizeof o + o.symbol.size(); }
///     };
///
/// `constant` (false where it is missing) says that each T counts for sizeof(T), and then the count is not even stored.
template <class T>
struct footprint {
    static constexpr bool constant = detail::is_flat<T>();

    static constexpr std::size_t of(const T& value) noexcept {
        if constexpr (constant) {
            return sizeof(T);
        } else if constexpr (detail::owning_container<T>) {
            if constexpr (detail::footprint_is_constant<typename T::value_type>) {
                return sizeof(T) + value.size() * sizeof(typename T::value_type);
            } else {
                std::size_t sum = sizeof(T);
                for (const auto& element : value) { sum += footprint_of(element); }
                return sum;
            }
        } else if constexpr (detail::optional_like<T>) {
            return sizeof(T) + (value.has_value() ? detail::held_elsewhere(*value) : 0);
        } else if constexpr (detail::owning_pointer<T>) {
            return sizeof(T) + (value ? footprint_of(*value) : 0);
        } else if constexpr (detail::is_variant<T>) {
            if (value.valueless_by_exception()) { return sizeof(T); }
            return sizeof(T) + std::visit([](const auto& held) noexcept { return detail::held_elsewhere(held); }, value);
        } else {
            return [&]<std::size_t... I>(std::index_sequence<I...>) {
                using std::get;
                return (sizeof(T) + ... + detail::held_elsewhere(get<I>(value)));
            }
            (std::make_index_sequence<std::tuple_size_v<T>>());
        }
    }
};

/// Whether a slot keeps the object of a settled message so that its buffer serves the next one (3-5 times the speed for
/// strings): true for strings and vectors of trivial elements. A T of one's own for which it is made true must have
/// `clear()` and a useful `capacity()`.
template <class T>
struct reuse_slot : std::false_type {};
template <class Char, class Traits, class Allocator>
struct reuse_slot<std::basic_string<Char, Traits, Allocator>> : std::true_type {};
template <class T, class Allocator>
struct reuse_slot<std::vector<T, Allocator>> : std::bool_constant<std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>> {};

template <class T>
inline constexpr bool reuse_slot_v = reuse_slot<T>::value;

} // namespace mailroom
