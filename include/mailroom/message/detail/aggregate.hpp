// What can be seen of an aggregate: its fields, by the structured bindings of Boost.PFR. To bases, unions, C arrays and
// more than 100 fields PFR answers with a hard error, so these are looked for first; and the fields are counted here.
#pragma once

#include <boost/pfr/core.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace mailroom::detail {

// Stand for a value of whatever type a field has. As in PFR: by reference where T can be copied, else by value; the two
// overloads keep what takes anything (std::optional) from being ambiguous. None of this ever runs; it has bodies because
// clang, where it looks into a constructor of a type without linkage, misses them.
struct any_lvalue {
    template <class U>
    operator U&() const&& noexcept { // NOLINT: to convert is all it does
        __builtin_unreachable();
    }
    template <class U>
    operator U&() const& noexcept { // NOLINT
        __builtin_unreachable();
    }
};
struct any_rvalue {
    template <class U>
    operator U() const&& noexcept { // NOLINT
        __builtin_unreachable();
    }
};
template <class T>
using any_field = std::conditional_t<std::is_copy_constructible_v<T>, any_lvalue, any_rvalue>;

struct any_pointer {
    template <class U>
    operator U*() const noexcept { // NOLINT
        __builtin_unreachable();
    }
};
template <class T>
struct any_base_of {
    template <class U>
    requires(std::is_base_of_v<U, T> && !std::is_same_v<U, T>) operator U() const noexcept { // NOLINT
        __builtin_unreachable();
    }
};

template <class Any, std::size_t>
using nth = Any;

// T{x, x, x}
template <class T, std::size_t... I>
consteval bool takes(std::index_sequence<I...>) {
    return requires { T{std::declval<nth<any_field<T>, I>>()...}; };
}
// T{x, x, {x, x}, x, x}
template <class T, std::size_t... Before, std::size_t... Inner, std::size_t... After>
consteval bool takes(std::index_sequence<Before...>, std::index_sequence<Inner...>, std::index_sequence<After...>) {
    return requires {
        T{std::declval<nth<any_field<T>, Before>>()..., {std::declval<nth<any_field<T>, Inner>>()...}, std::declval<nth<any_field<T>, After>>()...};
    };
}
template <class T, std::size_t... Before>
consteval bool takes_pointer(std::index_sequence<Before...>) {
    return requires { T{std::declval<nth<any_field<T>, Before>>()..., std::declval<any_pointer>()}; };
}

inline constexpr std::size_t most_fields = 100; // as many as PFR knows

template <class T>
consteval bool has_base() {
    return requires { T{std::declval<any_base_of<T>>()}; };
}

// The most values that T{x, x, ...} takes, given that it takes Low and not High.
template <class T, std::size_t Low, std::size_t High>
consteval std::size_t count_between() {
    if constexpr (High - Low == 1) {
        return Low;
    } else {
        constexpr std::size_t middle = Low + (High - Low) / 2;
        if constexpr (takes<T>(std::make_index_sequence<middle>())) {
            return count_between<T, middle, High>();
        } else {
            return count_between<T, Low, middle>();
        }
    }
}
// The same where T{} is not enough: the first number that is, and then as far as it goes.
template <class T, std::size_t Count>
consteval std::size_t count_from() {
    if constexpr (Count > most_fields) {
        return most_fields + 1;
    } else if constexpr (!takes<T>(std::make_index_sequence<Count>())) {
        return count_from<T, Count + 1>();
    } else if constexpr (takes<T>(std::make_index_sequence<Count + 1>())) {
        return count_from<T, Count + 1>();
    } else {
        return Count;
    }
}
// As PFR counts, but it asks for eight times as many values as T has bytes, and g++ 12 breaks down over some of that.
template <class T>
consteval std::size_t count_fields() {
    if constexpr (takes<T>(std::make_index_sequence<most_fields + 1>())) {
        return most_fields + 1;
    } else if constexpr (takes<T>(std::make_index_sequence<0>())) {
        return count_between<T, 0, most_fields + 1>();
    } else {
        return count_from<T, 1>();
    }
}
template <class T>
inline constexpr std::size_t field_count = count_fields<T>();

// Of N values in a row, whether the one at I is the first element of a C array: no braces around it leave the others
// their places, and some around the array's own elements do. (PFR counts the elements of an array as fields.)
template <class T, std::size_t N, std::size_t I, std::size_t Extent>
consteval bool array_of_begins() {
    if constexpr (I + Extent > N) {
        return false;
    } else {
        constexpr std::make_index_sequence<I> before;
        constexpr std::make_index_sequence<Extent> inner;
        if constexpr (!takes<T>(before, inner, std::make_index_sequence<N - I - Extent>())) {
            return array_of_begins<T, N, I, Extent + 1>();
        } else if constexpr (takes<T>(before, inner, std::make_index_sequence<N - I - 1>())) {
            return array_of_begins<T, N, I, Extent + 1>();
        } else {
            return true;
        }
    }
}
// Step by step: a vector that is asked whether it takes {x} looks whether its elements can be copied, an error of its own.
template <class T, std::size_t N, std::size_t I>
consteval bool array_begins() {
    constexpr std::make_index_sequence<I> before;
    constexpr std::make_index_sequence<N - I - 1> after;
    if constexpr (takes<T>(before, std::make_index_sequence<0>(), after)) {
        return false;
    } else if constexpr (takes<T>(before, std::make_index_sequence<1>(), after)) {
        return false;
    } else {
        return array_of_begins<T, N, I, 2>();
    }
}

/// The field at I, from 0.
template <std::size_t I, class T>
constexpr auto& field_of(T& value) noexcept {
    return boost::pfr::detail::sequence_tuple::get<I>(boost::pfr::detail::tie_as_tuple(value, boost::pfr::detail::size_t_<field_count<T>>()));
}
template <class T, std::size_t I>
using field = std::remove_reference_t<decltype(field_of<I>(std::declval<T&>()))>;

template <class T>
consteval bool has_c_array() {
    return []<std::size_t... I>(std::index_sequence<I...>) { return (array_begins<T, sizeof...(I), I>() || ...); }
    (std::make_index_sequence<field_count<T>>());
}

// PFR shows a reference as what it refers to. But it leaves T without an assignment, for which no field is to blame.
// (A reference beside a const field is not found out.)
template <class T>
consteval bool has_reference() {
    return !std::is_move_assignable_v<T>&&[]<std::size_t... I>(std::index_sequence<I...>) { return (std::is_move_assignable_v<field<T, I>> && ...); }
    (std::make_index_sequence<field_count<T>>());
}

// Whether the fields of a T can be named one by one. (Of a bit-field PFR says so itself, with an error.)
template <class T>
consteval bool sees_fields() {
    if constexpr (!std::is_aggregate_v<T> || std::is_array_v<T> || std::is_union_v<T>) {
        return false;
    } else if constexpr (has_base<T>()) {
        return false;
    } else if constexpr (field_count<T> > most_fields) {
        return false;
    } else if constexpr (has_c_array<T>()) {
        return false;
    } else {
        return !has_reference<T>();
    }
}
template <class T>
concept visible_aggregate = sees_fields<T>();

// Whether one of the first values in a T is a pointer, or takes one as a view of text does; for what cannot be seen better.
template <class T>
consteval bool holds_pointer() {
    return []<std::size_t... I>(std::index_sequence<I...>) { return (takes_pointer<T>(std::make_index_sequence<I>()) || ...); }
    (std::make_index_sequence<most_fields>());
}

} // namespace mailroom::detail
