// type_name<T>: what a type is called, the same on every compiler and standard library: the identity of a type on disk
// and across shared libraries, where typeid and addresses do not serve. Limits: two types of the same spelling (local
// classes, unnamed namespaces) have the same name, lambdas have none worth keeping, and an inline namespace of the
// user's own is spelled by g++ but not by clang. Where that matters, specialise type_name. Computed by the compiler;
// nothing happens at run time.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

namespace mailroom {

namespace detail {
template <class T>
struct derived_type_name;
}

/// Names a type. Integers are spelled by width ("int32", "uint64"), strings "std::string", namespaces of the
/// implementation (std::__cxx11, std::__1) and default template arguments are left out: `std::vector<std::map<int32,
/// std::string>>`.
///
/// To give a type a name of its own (before its first use, and for ever, once it is stored):
///
///     template <> struct mailroom::type_name<Order> { static constexpr std::string_view value = "acme.order"; };
///
/// Standard containers and other class templates of types take over the names of their arguments.
template <class T>
struct type_name {
    static constexpr std::string_view value = detail::derived_type_name<T>::value;
};

template <class T>
inline constexpr std::string_view type_name_v = type_name<T>::value;

namespace detail {

// What the compiler says. `auto`, because g++ would explain an alias in the return type: "[with T = int;
// std::string_view = …]".
template <class T>
consteval auto spelled_type() {
    return std::string_view(__PRETTY_FUNCTION__);
}
template <template <class...> class C>
consteval auto spelled_template() {
    return std::string_view(__PRETTY_FUNCTION__);
}
template <template <class, std::size_t> class C>
consteval auto spelled_sized_template() {
    return std::string_view(__PRETTY_FUNCTION__);
}
consteval std::string_view spelled_part(std::string_view pretty) { // "… [with T = what]"
    const std::size_t begin = pretty.find(" = ") + 3;
    return pretty.substr(begin, pretty.rfind(']') - begin);
}

template <std::size_t Capacity>
struct name_text {
    char data[Capacity + 1] = {};
    std::size_t size = 0;

    constexpr void add(std::string_view text) {
        for (const char c : text) data[size++] = c;
    }
    [[nodiscard]] constexpr std::string_view view() const { return {data, size}; }
};

constexpr bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads a compiler's spelling and gives ours.
class name_reader {
public:
    constexpr explicit name_reader(std::string_view text) : rest_(text) {}

    template <std::size_t Capacity>
    constexpr void write(name_text<Capacity>& out) {
        while (!rest_.empty()) {
            if (skip("{anonymous}")) {
                out.add("(anonymous namespace)");
            } else if (skip("(anonymous namespace)")) {
                out.add("(anonymous namespace)");
            } else if (is_word(rest_.front())) {
                const std::string_view word = canonical(take_word());
                // The space between two words is the only one that says something.
                if (spaced_ && out.size != 0 && is_word(out.data[out.size - 1])) out.add(" ");
                out.add(word);
            } else if (rest_.front() == ',') {
                rest_.remove_prefix(1);
                out.add(", ");
            } else if (rest_.front() == ' ') {
                rest_.remove_prefix(1);
                spaced_ = true;
                continue;
            } else {
                // "const T", "T* const": a word after a star keeps its distance by itself.
                out.add(rest_.substr(0, 1));
                rest_.remove_prefix(1);
            }
            spaced_ = false;
        }
    }

private:
    constexpr bool skip(std::string_view text) {
        if (!rest_.starts_with(text)) return false;
        rest_.remove_prefix(text.size());
        return true;
    }

    constexpr std::string_view take_word() {
        std::size_t n = 0;
        while (n < rest_.size() && is_word(rest_[n])) ++n;
        const std::string_view word = rest_.substr(0, n);
        rest_.remove_prefix(n);
        return word;
    }

    constexpr std::string_view canonical(std::string_view word) {
        if (is_digit(word.front())) return word.substr(0, word.find_first_of("uUlL")); // 3UL
        // A namespace with a reserved name is the implementation's: std::__cxx11::, std::__1::, std::chrono::_V2::.
        if (word.size() > 1 && word[0] == '_' && (word[1] == '_' || (word[1] >= 'A' && word[1] <= 'Z')) && skip("::")) return {};
        if (word == "basic_string" && skip("<char>")) return "string";
        if (word == "basic_string_view" && skip("<char>")) return "string_view";
        return is_integer_word(word) ? integer(word) : word;
    }

    static constexpr bool is_integer_word(std::string_view w) {
        return w == "unsigned" || w == "signed" || w == "long" || w == "short" || w == "int" || w == "char" || w == "double";
    }

    // "long unsigned int", "unsigned long": by width. "long double" comes here for its first word.
    constexpr std::string_view integer(std::string_view word) {
        bool is_unsigned = false, is_signed = false, is_short = false, is_char = false, is_double = false;
        int longs = 0;
        for (;;) {
            is_unsigned |= word == "unsigned";
            is_signed |= word == "signed";
            is_short |= word == "short";
            is_char |= word == "char";
            is_double |= word == "double";
            longs += word == "long" ? 1 : 0;
            const std::string_view before = rest_;
            if (!skip(" ")) break;
            word = take_word();
            if (word.empty() || !is_integer_word(word)) {
                rest_ = before;
                break;
            }
        }
        if (is_double) return longs != 0 ? "long double" : "double";
        if (is_char && !is_unsigned && !is_signed) return "char";
        const std::size_t bytes = is_char ? 1 : is_short ? sizeof(short) : longs == 1 ? sizeof(long) : longs == 2 ? sizeof(long long) : sizeof(int);
        switch (bytes) {
        case 1: return is_unsigned ? "uint8" : "int8";
        case 2: return is_unsigned ? "uint16" : "int16";
        case 4: return is_unsigned ? "uint32" : "int32";
        default: return is_unsigned ? "uint64" : "int64";
        }
    }

    std::string_view rest_;
    bool spaced_ = false;
};

template <std::size_t SpelledSize>
consteval auto read_name(std::string_view spelled) {
    name_text<2 * SpelledSize + 32> out; // no rule makes a name twice as long, but {anonymous} of a short one
    name_reader(spelled).write(out);
    return out;
}

template <class T>
struct derived_type_name {
    static constexpr std::string_view spelled = spelled_part(spelled_type<T>());
    static constexpr auto text = read_name<spelled.size()>(spelled);
    static constexpr std::string_view value = text.view();
};

template <template <class...> class C>
struct template_name {
    static constexpr std::string_view spelled = spelled_part(spelled_template<C>());
    static constexpr auto text = read_name<spelled.size()>(spelled);
    static constexpr std::string_view value = text.view();
};

template <class... Ts>
struct type_list {};

// How many arguments say it all: C<A, B> is C<A> where B is the default.
template <template <class...> class C, class Full, class... Head, class... Rest>
consteval std::size_t telling_arguments(type_list<Head...>, type_list<Rest...> rest) {
    if constexpr (sizeof...(Rest) == 0) {
        return sizeof...(Head);
    } else {
        if constexpr (requires { requires std::same_as<C<Head...>, Full>; }) {
            return sizeof...(Head);
        } else {
            return []<class Next, class... Others>(type_list<Next, Others...>) {
                return telling_arguments<C, Full>(type_list<Head..., Next>(), type_list<Others...>());
            }(rest);
        }
    }
}

// A class template of types is named by its parts, so that the names users give to their own types reach through.
template <template <class...> class C, class... Ts>
struct derived_type_name<C<Ts...>> {
    static constexpr std::size_t telling = telling_arguments<C, C<Ts...>>(type_list<>(), type_list<Ts...>());
    static constexpr auto text = [] {
        name_text<template_name<C>::value.size() + 2 + (0 + ... + (type_name<Ts>::value.size() + 2))> out;
        out.add(template_name<C>::value);
        out.add("<");
        std::size_t index = 0;
        [[maybe_unused]] const auto argument = [&](std::string_view name) {
            if (index >= telling) return;
            if (index++ != 0) out.add(", ");
            out.add(name);
        };
        (argument(type_name<Ts>::value), ...);
        out.add(">");
        return out;
    }();
    static constexpr std::string_view value = text.view();
};

// std::array and its like.
template <template <class, std::size_t> class C, class T, std::size_t N>
struct derived_type_name<C<T, N>> {
    static constexpr std::string_view spelled = spelled_part(spelled_sized_template<C>());
    static constexpr auto text = [] {
        constexpr auto name = read_name<spelled.size()>(spelled);
        name_text<name.size + type_name<T>::value.size() + 32> out;
        out.add(name.view());
        out.add("<");
        out.add(type_name<T>::value);
        out.add(", ");
        std::size_t unit = 1;
        while (N / unit >= 10) unit *= 10;
        for (; unit != 0; unit /= 10) {
            const char digit = static_cast<char>('0' + N / unit % 10);
            out.add({&digit, 1});
        }
        out.add(">");
        return out;
    }();
    static constexpr std::string_view value = text.view();
};

template <>
struct derived_type_name<std::string> {
    static constexpr std::string_view value = "std::string";
};
template <>
struct derived_type_name<std::string_view> {
    static constexpr std::string_view value = "std::string_view";
};

} // namespace detail
} // namespace mailroom
