// Values to bytes and back, one inside another. Every value takes a byte or more and says itself where it ends.
//
//   plain        its bytes, as they lie (little-endian)
//   sequence     varint count, elements; plain elements that lie side by side as one block
//   associative  varint count, elements or key and value
//   maybe        0, or 1 and the value
//   choice       varint index, the value
//   product      each in turn; a zero byte where there is none
//   aggregate    varint count of fields, 32 bits that say of what shape those fields are, the fields
//   own          varint length, what the user's codec wrote
//
// A reader that knows more fields than are stored gives the others their defaults; their shapes are compared, so that
// what changed in the middle is refused and not misread.
#pragma once

#include <mailroom/base/type_name.hpp>
#include <mailroom/message/detail/byte_source.hpp>
#include <mailroom/message/detail/value_form.hpp>
#include <mailroom/message/detail/value_shape.hpp>

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace mailroom::detail {

// ---- what can be done -------------------------------------------------------------------------------------------------

template <class T>
concept complete_codec = requires(const T& value, byte_sink& out, std::span<const std::byte> bytes) {
    codec<T>::encode(value, out);
    { codec<T>::decode(bytes) } -> std::same_as<T>;
    { codec<T>::content_type } -> std::convertible_to<std::string_view>;
};

template <class T, class... Seen>
consteval bool is_codable();

template <class... Ts, class... Seen>
consteval bool are_codable(std::type_identity<std::variant<Ts...>>, type_list<Seen...>) {
    return (is_codable<Ts, Seen...>() && ...);
}
template <class T, class... Seen, std::size_t... I>
consteval bool are_codable(std::index_sequence<I...>, type_list<Seen...>) {
    return (is_codable<std::remove_cv_t<field<T, I>>, Seen...>() && ...);
}
template <class T, class... Seen, std::size_t... I>
consteval bool are_elements_codable(std::index_sequence<I...>, type_list<Seen...>) {
    return (is_codable<std::tuple_element_t<I, T>, Seen...>() && ...);
}

// `Seen` are the aggregates we are in: a tree is codable if the rest of it is.
template <class T, class... Seen>
consteval bool is_codable() {
    constexpr type_list<Seen...> seen;
    if constexpr ((std::is_same_v<T, Seen> || ...)) {
        return true;
    } else if constexpr (form<T> == value_form::own) {
        return complete_codec<T>;
    } else if constexpr (form<T> == value_form::plain) {
        return true;
    } else if constexpr (form<T> == value_form::sequence) {
        return std::default_initializable<T> && is_codable<typename T::value_type, Seen...>();
    } else if constexpr (form<T> == value_form::associative) {
        if constexpr (requires { typename T::mapped_type; }) {
            return std::default_initializable<T> && is_codable<typename T::key_type, Seen...>() && is_codable<typename T::mapped_type, Seen...>();
        } else {
            return std::default_initializable<T> && is_codable<typename T::key_type, Seen...>();
        }
    } else if constexpr (is_optional<T>) {
        return is_codable<typename T::value_type, Seen...>();
    } else if constexpr (is_owner<T>) {
        return is_codable<std::remove_cv_t<typename T::element_type>, Seen...>();
    } else if constexpr (form<T> == value_form::choice) {
        return are_codable(std::type_identity<T>(), seen);
    } else if constexpr (form<T> == value_form::product) {
        return are_elements_codable<T>(std::make_index_sequence<std::tuple_size_v<T>>(), seen);
    } else if constexpr (form<T> == value_form::aggregate) {
        return are_codable<T>(std::make_index_sequence<field_count<T>>(), type_list<Seen..., T>());
    } else {
        return false;
    }
}

inline constexpr unsigned most_depth = 100; // of aggregates in aggregates, or hostile bytes would use up the stack

template <class T>
inline constexpr std::size_t least_bytes = form<T> == value_form::plain       ? sizeof(T)
                                           : form<T> == value_form::aggregate ? 1 + sizeof(std::uint32_t)
                                                                              : 1;

// ---- plain ------------------------------------------------------------------------------------------------------------

// A bool that is neither 0 nor 1 must not be looked at as a bool.
template <class T>
consteval bool holds_bool() {
    if constexpr (std::is_enum_v<T>) {
        return std::is_same_v<std::underlying_type_t<T>, bool>;
    } else if constexpr (is_std_array<T>) {
        return holds_bool<typename T::value_type>();
    } else if constexpr (visible_aggregate<T>) {
        return []<std::size_t... I>(std::index_sequence<I...>) { return (holds_bool<field<T, I>>() || ...); }
        (std::make_index_sequence<field_count<T>>());
    } else {
        return std::is_same_v<T, bool>;
    }
}

template <class T>
bool has_good_bools(const T& value) noexcept {
    if constexpr (!holds_bool<T>()) {
        return true;
    } else if constexpr (std::is_same_v<T, bool> || std::is_enum_v<T>) {
        unsigned char byte = 0;
        static_assert(sizeof(T) == 1);
        std::memcpy(&byte, &value, 1);
        return byte <= 1;
    } else if constexpr (is_std_array<T>) {
        for (const auto& element : value) {
            if (!has_good_bools(element)) { return false; }
        }
        return true;
    } else {
        return [&]<std::size_t... I>(std::index_sequence<I...>) { return (has_good_bools(field_of<I>(value)) && ...); }
        (std::make_index_sequence<field_count<T>>());
    }
}

// Of sizeof(T) bytes.
template <class T>
T read_plain(std::span<const std::byte> bytes, const byte_source& in) {
    if constexpr (holds_bool<T>()) {
        alignas(T) std::byte storage[sizeof(T)];
        const T& value = *static_cast<const T*>(std::memcpy(storage, bytes.data(), sizeof(T))); // memcpy begins its life
        if (!has_good_bools(value)) { in.corrupt("a bool is neither true nor false"); }
        return value;
    } else {
        std::array<std::byte, sizeof(T)> storage;
        std::memcpy(storage.data(), bytes.data(), sizeof(T));
        return std::bit_cast<T>(storage);
    }
}

template <class T>
void write_value(const T& value, byte_target& to);
template <class T>
T read_value(byte_source& in);

// ---- sequences and maps -----------------------------------------------------------------------------------------------

// Plain elements side by side.
template <class T>
concept block_container = requires(T& c, std::size_t n) {
    { c.data() } -> std::same_as<typename T::value_type*>;
    c.resize(n);
}
&&plain<typename T::value_type>;

template <class T>
void write_sequence(const T& value, byte_target& to) {
    put_varint(to.out, value.size());
    if constexpr (block_container<T>) {
        to.out.write(std::as_bytes(std::span(value.data(), value.size())));
    } else {
        for (const auto& element : value) { write_value<typename T::value_type>(element, to); }
    }
}

template <class T>
T read_sequence(byte_source& in) {
    using element_type = typename T::value_type;
    const std::size_t count = in.take_count(least_bytes<element_type>);
    T value;
    if constexpr (block_container<T> && std::default_initializable<element_type>) {
        value.resize(count);
        const auto block = in.take(count * sizeof(element_type));
        if (count != 0) { std::memcpy(value.data(), block.data(), block.size()); }
        if constexpr (holds_bool<element_type>()) {
            for (const auto& element : value) {
                if (!has_good_bools(element)) { in.corrupt("a bool is neither true nor false"); }
            }
        }
    } else {
        if constexpr (requires { value.reserve(count); }) {
            const std::size_t believed = in.left() / sizeof(element_type) + 1; // of a count that may be a lie
            value.reserve(count < believed ? count : believed);
        }
        for (std::size_t i = 0; i < count; ++i) { value.push_back(read_value<element_type>(in)); }
    }
    return value;
}

template <class T>
T read_associative(byte_source& in) {
    using key_type = typename T::key_type;
    const std::size_t count = in.take_count(least_bytes<key_type>);
    T value;
    for (std::size_t i = 0; i < count; ++i) {
        auto key = read_value<key_type>(in);
        if constexpr (requires { typename T::mapped_type; }) {
            value.emplace_hint(value.end(), std::move(key), read_value<typename T::mapped_type>(in));
        } else {
            value.emplace_hint(value.end(), std::move(key));
        }
        if (value.size() != i + 1) { in.corrupt("a key stands twice"); }
    }
    return value;
}

// ---- one of several, several of one -----------------------------------------------------------------------------------

template <class T>
T read_maybe(byte_source& in) {
    const std::uint8_t there = in.take_byte();
    if (there > 1) { in.corrupt("a value is neither there nor missing"); }
    if (there == 0) { return T(); }
    if constexpr (is_optional<T>) {
        return T(std::in_place, read_value<typename T::value_type>(in));
    } else {
        using element_type = typename T::element_type;
        using read_type = std::remove_cv_t<element_type>;
        if constexpr (std::is_same_v<T, std::unique_ptr<element_type>>) {
            return T(new element_type(read_value<read_type>(in)));
        } else {
            return std::make_shared<element_type>(read_value<read_type>(in));
        }
    }
}

template <class T>
T read_choice(byte_source& in) {
    using reader = T (*)(byte_source&);
    constexpr std::size_t alternatives = std::variant_size_v<T>;
    static constexpr auto readers = []<std::size_t... I>(std::index_sequence<I...>) {
        return std::array<reader, alternatives>{
            [](byte_source& from) { return T(std::in_place_index<I>, read_value<std::variant_alternative_t<I, T>>(from)); }...};
    }
    (std::make_index_sequence<alternatives>());
    const std::uint64_t index = in.take_varint();
    if (index >= alternatives) { in.corrupt("a variant has no such alternative"); }
    return readers[static_cast<std::size_t>(index)](in);
}

template <class T>
void write_product(const T& value, byte_target& to) {
    if constexpr (std::tuple_size_v<T> == 0) {
        to.out.push_back(std::byte{0});
    } else if constexpr (is_std_array<T>) {
        for (const auto& element : value) { write_value(element, to); }
    } else {
        std::apply([&](const auto&... parts) { (write_value(parts, to), ...); }, value);
    }
}

template <class T>
T read_product(byte_source& in) {
    if constexpr (std::tuple_size_v<T> == 0) {
        if (in.take_byte() != 0) { in.corrupt("there is something where nothing belongs"); }
        return T{};
    } else if constexpr (is_std_array<T> && std::default_initializable<T> && std::is_move_assignable_v<T>) {
        T value;
        for (auto& element : value) { element = read_value<typename T::value_type>(in); }
        return value;
    } else {
        return [&]<std::size_t... I>(std::index_sequence<I...>) {
            if constexpr (is_std_array<T>) {
                return T{{read_value<std::tuple_element_t<I, T>>(in)...}}; // in braces: from left to right
            } else {
                return T{read_value<std::tuple_element_t<I, T>>(in)...};
            }
        }
        (std::make_index_sequence<std::tuple_size_v<T>>());
    }
}

// ---- aggregates -------------------------------------------------------------------------------------------------------

template <class T, std::size_t I>
using field_value = std::remove_cv_t<field<T, I>>;

// At n: the shape of the first n fields.
template <class T>
inline constexpr auto shapes_of_first = []<std::size_t... I>(std::index_sequence<I...>) {
    std::array<std::uint32_t, sizeof...(I) + 1> shapes{};
    std::uint64_t hash = shape(shape_kind::aggregate);
    std::size_t n = 0;
    const auto keep = [&] { shapes[n++] = static_cast<std::uint32_t>(hash ^ (hash >> 32U)); };
    keep();
    ((hash = fold(hash, value_shape<field_value<T, I>>()), keep()), ...);
    return shapes;
}
(std::make_index_sequence<field_count<T>>());

template <class T>
void write_aggregate(const T& value, byte_target& to) {
    constexpr std::size_t fields = field_count<T>;
    if (++to.depth > most_depth) { fail(errc::too_large, "a value of aggregates in aggregates is nested deeper than 100"); }
    put_varint(to.out, fields);
    put_fixed(to.out, shapes_of_first<T>[fields]);
    [&]<std::size_t... I>(std::index_sequence<I...>) { (write_value<field_value<T, I>>(field_of<I>(value), to), ...); }
    (std::make_index_sequence<fields>());
    --to.depth;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers" // that is what missing trailing fields are
template <class T, std::size_t... I>
T read_first_fields(byte_source& in, std::index_sequence<I...>) {
    return T{read_value<field_value<T, I>>(in)...}; // in braces: from left to right
}
#pragma GCC diagnostic pop

template <class T, std::size_t... I>
consteval bool can_be_assigned(std::index_sequence<I...>) {
    return requires { T{}; }
    &&(std::is_move_assignable_v<field<T, I>> && ...);
}

// Fewer fields than T has.
template <class T, std::size_t Known>
T read_fewer_fields(byte_source& in, std::size_t stored) {
    constexpr std::make_index_sequence<field_count<T>> all;
    if constexpr (can_be_assigned<T>(all)) {
        T value{};
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            ((I < stored ? static_cast<void>(field_of<I>(value) = read_value<field<T, I>>(in)) : void()), ...);
        }
        (all);
        return value;
    } else if constexpr (takes<T>(std::make_index_sequence<Known>())) {
        if (stored == Known) { return read_first_fields<T>(in, std::make_index_sequence<Known>()); }
        if constexpr (Known > 0) { return read_fewer_fields<T, Known - 1>(in, stored); }
    }
    in.fail_with(errc::type_mismatch, std::string("a field that has no default is missing in ").append(type_name_v<T>));
}

template <class T>
T read_aggregate(byte_source& in) {
    constexpr std::size_t fields = field_count<T>;
    if (++in.depth > most_depth) { in.corrupt("they are nested deeper than 100"); }
    const std::uint64_t stored = in.take_varint();
    const auto stored_shape = in.take_fixed<std::uint32_t>();
    if (stored > fields) [[unlikely]] {
        in.fail_with(errc::type_mismatch, std::to_string(stored)
                                              .append(" fields are stored of ")
                                              .append(type_name_v<T>)
                                              .append(", which has ")
                                              .append(std::to_string(fields))
                                              .append(" here"));
    }
    if (stored_shape != shapes_of_first<T>[static_cast<std::size_t>(stored)]) [[unlikely]] {
        in.fail_with(errc::type_mismatch, std::string("the stored fields of ").append(type_name_v<T>).append(" are of other types than here"));
    }
    const struct ascent {
        byte_source& of;
        ~ascent() { --of.depth; }
    } at_the_end{in};
    if constexpr (fields != 0) {
        if (stored != fields) { return read_fewer_fields<T, fields - 1>(in, static_cast<std::size_t>(stored)); }
    }
    return read_first_fields<T>(in, std::make_index_sequence<fields>());
}

// ---- any of them ------------------------------------------------------------------------------------------------------

template <class T>
void write_own(const T& value, byte_target& to) {
    byte_sink apart; // its length goes before it
    codec<T>::encode(value, apart);
    put_varint(to.out, apart.size());
    to.out.write(apart.bytes());
}

template <class T>
void write_value(const T& value, byte_target& to) {
    if constexpr (form<T> == value_form::own) {
        write_own(value, to);
    } else if constexpr (form<T> == value_form::plain) {
        std::memcpy(to.out.extend(sizeof(T)), &value, sizeof(T));
    } else if constexpr (form<T> == value_form::sequence) {
        write_sequence(value, to);
    } else if constexpr (form<T> == value_form::associative) {
        put_varint(to.out, value.size());
        for (const auto& element : value) {
            if constexpr (requires { typename T::mapped_type; }) {
                write_value<typename T::key_type>(element.first, to);
                write_value<typename T::mapped_type>(element.second, to);
            } else {
                write_value<typename T::key_type>(element, to);
            }
        }
    } else if constexpr (form<T> == value_form::maybe) {
        to.out.push_back(std::byte{value ? std::uint8_t{1} : std::uint8_t{0}});
        if (value) { write_value<std::remove_cvref_t<decltype(*value)>>(*value, to); }
    } else if constexpr (form<T> == value_form::choice) {
        if (value.valueless_by_exception()) { fail(errc::invalid, "a variant that lost its value to an exception has no bytes"); }
        put_varint(to.out, value.index());
        std::visit([&]<class Held>(const Held& held) { write_value<Held>(held, to); }, value);
    } else if constexpr (form<T> == value_form::product) {
        write_product(value, to);
    } else {
        write_aggregate(value, to);
    }
}

template <class T>
T read_value(byte_source& in) {
    if constexpr (form<T> == value_form::own) {
        return codec<T>::decode(in.take(in.take_varint()));
    } else if constexpr (form<T> == value_form::plain) {
        return read_plain<T>(in.take(sizeof(T)), in);
    } else if constexpr (form<T> == value_form::sequence) {
        return read_sequence<T>(in);
    } else if constexpr (form<T> == value_form::associative) {
        return read_associative<T>(in);
    } else if constexpr (form<T> == value_form::maybe) {
        return read_maybe<T>(in);
    } else if constexpr (form<T> == value_form::choice) {
        return read_choice<T>(in);
    } else if constexpr (form<T> == value_form::product) {
        return read_product<T>(in);
    } else {
        return read_aggregate<T>(in);
    }
}

} // namespace mailroom::detail
