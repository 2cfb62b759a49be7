// headers: what a sender writes on the outside of a message: a small ordered map from names to simple values.
// Sorted by name, so that two sets of headers are equal whatever the order they were written in. Made for a handful of
// entries: kept in one vector, found by binary search, empty costs no allocation. A value type: not to be written by
// two threads at once.
#pragma once

#include <mailroom/base/error.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace mailroom {

namespace detail {

template <class T>
concept header_integer = std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t> &&
                         !std::same_as<T, char8_t> && !std::same_as<T, char16_t> && !std::same_as<T, char32_t>;

// A literal or a string, but not a null pointer or what only looks like one.
template <class T>
concept header_text = std::convertible_to<T, std::string_view> && !std::same_as<std::remove_cvref_t<T>, std::nullptr_t>;

} // namespace detail

/// One value of a header: nothing, a bool, a 64-bit integer, a double, text, or bytes.
class header_value {
public:
    using bytes = std::vector<std::byte>;
    using storage = std::variant<std::monostate, bool, std::int64_t, double, std::string, bytes>;

    constexpr header_value() noexcept = default;
    constexpr header_value(std::nullptr_t) noexcept {} // NOLINT: {"name", value} is the point of all of these
    template <std::same_as<bool> B>
    constexpr header_value(B value) noexcept : storage_(value) {} // NOLINT
    /// Throws errc::invalid for what an int64 cannot hold.
    template <detail::header_integer I>
    constexpr header_value(I value) : storage_(checked(value)) {} // NOLINT
    template <std::floating_point F>
    constexpr header_value(F value) noexcept : storage_(static_cast<double>(value)) {} // NOLINT
    template <detail::header_text S>
    header_value(const S& text) : storage_(std::in_place_type<std::string>, std::string_view(text)) {} // NOLINT
    header_value(std::string&& text) noexcept : storage_(std::move(text)) {}                           // NOLINT
    header_value(bytes data) noexcept : storage_(std::move(data)) {}                                   // NOLINT
    explicit header_value(std::span<const std::byte> data) : storage_(bytes(data.begin(), data.end())) {}

    [[nodiscard]] bool is_null() const noexcept { return storage_.index() == 0; }
    /// Says whether it holds a T: bool, std::int64_t, double, std::string or header_value::bytes.
    template <class T>
    [[nodiscard]] bool is() const noexcept {
        return std::holds_alternative<T>(storage_);
    }
    /// Returns the T it holds, or nullptr where it holds something else. Nothing is converted.
    template <class T>
    [[nodiscard]] const T* get_if() const noexcept {
        return std::get_if<T>(&storage_);
    }
    /// Returns the T it holds; throws errc::type_mismatch where it holds something else.
    template <class T>
    [[nodiscard]] const T& get() const {
        if (const T* held = get_if<T>()) { return *held; }
        detail::fail(errc::type_mismatch, "the header holds a value of another type");
    }
    /// For std::visit.
    [[nodiscard]] const storage& variant() const noexcept { return storage_; }

    [[nodiscard]] friend bool operator==(const header_value&, const header_value&) = default;

private:
    template <class I>
    static constexpr std::int64_t checked(I value) {
        if (!std::in_range<std::int64_t>(value)) {
            detail::fail(errc::invalid, "a header holds integers of 64 bits with a sign; this one is larger");
        }
        return static_cast<std::int64_t>(value);
    }

    storage storage_;
};

/// A small map from name to header_value, sorted by name. `{{"region", "eu"}, {"retries", 3}}`
class headers {
public:
    using value_type = std::pair<std::string, header_value>;
    using const_iterator = std::vector<value_type>::const_iterator;
    using iterator = const_iterator;

    constexpr headers() noexcept = default;
    /// Where a name stands twice, the later value counts.
    headers(std::initializer_list<value_type> entries) {
        entries_.reserve(entries.size());
        for (const auto& [name, value] : entries) { (*this)[name] = value; }
    }

    /// Returns the value of that name, made null where there was none. Valid until the next change.
    header_value& operator[](std::string_view name) {
        const auto place = entries_.begin() + (at(name) - entries_.cbegin());
        if (place != entries_.end() && place->first == name) { return place->second; }
        return entries_.emplace(place, name, header_value())->second;
    }

    /// Returns the value of that name, or nullptr. Valid until the next change.
    [[nodiscard]] const header_value* find(std::string_view name) const noexcept {
        const auto place = at(name);
        return place != entries_.end() && place->first == name ? &place->second : nullptr;
    }
    [[nodiscard]] bool contains(std::string_view name) const noexcept { return find(name) != nullptr; }

    /// Takes that name out; says whether it was there.
    bool erase(std::string_view name) {
        const auto place = at(name);
        if (place == entries_.end() || place->first != name) { return false; }
        entries_.erase(place);
        return true;
    }
    void clear() noexcept { entries_.clear(); }

    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
    [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
    /// In the order of the names; `for (const auto& [name, value] : headers)`.
    [[nodiscard]] const_iterator begin() const noexcept { return entries_.begin(); }
    [[nodiscard]] const_iterator end() const noexcept { return entries_.end(); }

    [[nodiscard]] friend bool operator==(const headers&, const headers&) = default;

private:
    [[nodiscard]] const_iterator at(std::string_view name) const noexcept {
        auto place = entries_.begin(); // by hand: <algorithm> would double the lines of this header
        for (auto rest = entries_.size(); rest != 0;) {
            const auto half = rest / 2;
            const auto middle = place + static_cast<std::ptrdiff_t>(half);
            if (middle->first < name) {
                place = middle + 1;
                rest -= half + 1;
            } else {
                rest = half;
            }
        }
        return place;
    }

    std::vector<value_type> entries_;
};

} // namespace mailroom
