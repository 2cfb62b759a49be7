// What can go wrong, as std::error_code and as an exception.
// The category is one constant-initialised object; where two shared libraries each hold a copy of it, codes still
// compare equal to errc and to conditions, because the comparison goes by the name of the category and not by its
// address. All of it may be used from any thread, and before and after main.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace mailroom {

/// What went wrong. Numbers are stable: they may be stored and sent.
enum class errc {
    closed = 1,     ///< the endpoint takes nothing any more
    full,           ///< a bound was reached
    rejected,       ///< validation refused the message
    timed_out,      ///< the time given ran out
    invalid,        ///< an argument or option is outside what is allowed
    type_mismatch,  ///< the endpoint holds another type
    already_exists, ///< the name is taken, or open with other options
    not_found,      ///< there is nothing of that name
    in_use,         ///< another process or handle holds it
    corrupt,        ///< stored bytes are not what was written
    io,             ///< the operating system refused a read, write or sync
    too_large,      ///< more than the limit allows at once
    unroutable,     ///< no destination matches
    in_doubt,       ///< prepared, neither committed nor rolled back
    unsupported,    ///< this endpoint cannot do that
    failed,         ///< whoever was asked threw something that is none of ours
    cancelled,      ///< the one who waits was told to stop
};

} // namespace mailroom

template <>
struct std::is_error_code_enum<mailroom::errc> : std::true_type {};

namespace mailroom {

/// Says what a code means in general, in a few words; "unknown error" for a number that is none of ours. Static
/// storage.
[[nodiscard]] constexpr const char* describe_errc(errc code) noexcept {
    switch (code) {
    case errc::closed: return "closed";
    case errc::full: return "full";
    case errc::rejected: return "rejected by validation";
    case errc::timed_out: return "timed out";
    case errc::invalid: return "invalid argument or option";
    case errc::type_mismatch: return "holds another type";
    case errc::already_exists: return "already exists";
    case errc::not_found: return "not found";
    case errc::in_use: return "in use";
    case errc::corrupt: return "corrupt data";
    case errc::io: return "input or output failed";
    case errc::too_large: return "too large";
    case errc::unroutable: return "no destination matches";
    case errc::in_doubt: return "in doubt";
    case errc::unsupported: return "not supported";
    case errc::failed: return "failed";
    case errc::cancelled: return "cancelled";
    }
    return "unknown error";
}

namespace detail {

class [[gnu::visibility("default")]] category_type final : public std::error_category {
public:
    constexpr category_type() noexcept = default;

    [[nodiscard]] const char* name() const noexcept override { return "mailroom"; }
    [[nodiscard]] std::string message(int value) const override { return describe_errc(static_cast<errc>(value)); }

    // The conditions of the standard that say the same; the others are conditions of their own.
    [[nodiscard]] std::error_condition default_error_condition(int value) const noexcept override {
        switch (static_cast<errc>(value)) {
        case errc::timed_out: return std::errc::timed_out;
        case errc::invalid: return std::errc::invalid_argument;
        case errc::io: return std::errc::io_error;
        case errc::unsupported: return std::errc::not_supported;
        case errc::cancelled: return std::errc::operation_canceled;
        default: return {value, *this};
        }
    }
    [[nodiscard]] bool equivalent(int value, const std::error_condition& condition) const noexcept override {
        return (condition.value() == value && is_ours(condition.category())) || condition == default_error_condition(value);
    }
    [[nodiscard]] bool equivalent(const std::error_code& code, int value) const noexcept override {
        return code.value() == value && is_ours(code.category());
    }

    // A copy of this object in another shared library is ours too.
    [[nodiscard]] static bool is_ours(const std::error_category& other) noexcept { return std::string_view(other.name()) == "mailroom"; }
};

// Never destroyed: an error may be looked at by the destructor of a static object.
union [[gnu::visibility("default")]] category_holder {
    category_type value;
    constexpr category_holder() noexcept : value() {}
    category_holder(const category_holder&) = delete;
    category_holder& operator=(const category_holder&) = delete;
    ~category_holder() {} // NOLINT: a defaulted one would be deleted
};

[[gnu::visibility("default")]] inline constinit const category_holder category_object;

} // namespace detail

/// Returns the category of mailroom's codes; its name is "mailroom".
[[nodiscard]] inline const std::error_category& category() noexcept { return detail::category_object.value; }

/// Makes a std::error_code; found by the standard library, so `std::error_code c = errc::full;` compiles.
[[nodiscard]] inline std::error_code make_error_code(errc code) noexcept { return {static_cast<int>(code), category()}; }

/// Compares a code with an errc, also where the code was made in another shared library. (Comparing two
/// std::error_codes goes by the address of the category, as the standard has it.)
[[nodiscard]] inline bool operator==(const std::error_code& code, errc expected) noexcept {
    return code.value() == static_cast<int>(expected) && detail::category_type::is_ours(code.category());
}

/// What is thrown for what is not expected in normal running. `code()` says which errc, `what()` a sentence for a
/// person.
// clang-format off: it takes the attribute for something else
class [[gnu::visibility("default")]] error
    : public std::
      system_error{public : explicit error(errc code) : std::system_error(make_error_code(code)){} error(errc code, std::string_view sentence) :
                       std::system_error(make_error_code(code), std::string(sentence)){}

                   /// Returns the errc, for a switch.
                   [[nodiscard]] errc kind() const noexcept {return static_cast<errc>(code().value());
} // namespace mailroom

/// Returns what was said beyond the meaning of the code, which what() has at its end; empty where nothing was. Valid as
/// long as this.
[[nodiscard]] std::string_view sentence() const noexcept {
    const std::string_view all = what();
    const std::string_view meaning = describe_errc(kind());
    const std::size_t tail = meaning.size() + 2; // ": "
    return all.size() >= tail && all.ends_with(meaning) ? all.substr(0, all.size() - tail) : std::string_view();
}

[[nodiscard]] friend bool operator==(const error& e, errc expected) noexcept { return e.kind() == expected; }
}
;
// clang-format on

namespace detail {

// Out of line and cold, so that a check costs its caller a compare, a jump and two registers.
[[noreturn, gnu::cold, gnu::noinline]] inline void fail(errc code, std::string_view sentence) { throw error(code, sentence); }

} // namespace detail
} // namespace mailroom
