// result<T>: a value, or why there is none. The shape of std::expected, the same in every language mode.
// Made for outcomes of normal running (full, timed out, closed): these allocate nothing. A failure that carries a
// sentence of its own (a file, a byte) allocates once and is copied by reference. A result is a value: share one
// between threads like an int.
#pragma once

#include <mailroom/base/error.hpp>

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mailroom {

/// Why there is no value: an errc and, where there is more to say, a sentence. Compares with errc, converts to
/// std::error_code.
class failure {
public:
    /// Says no more than the code. Allocates nothing.
    constexpr failure(errc code) noexcept : code_(code) {} // NOLINT: `return errc::full;` is the point
    failure(errc code, std::string_view sentence) : code_(code), sentence_(std::make_shared<const std::string>(sentence)) {}
    /// Takes over what an exception said.
    explicit failure(const error& e) : failure(e.kind(), e.sentence()) {}

    [[nodiscard]] errc kind() const noexcept { return code_; }
    [[nodiscard]] std::error_code code() const noexcept { return make_error_code(code_); }
    operator std::error_code() const noexcept { return code(); } // NOLINT: as with errc itself

    /// Returns the sentence, or else what the code means. Valid as long as this failure.
    [[nodiscard]] const char* what() const noexcept { return sentence_ ? sentence_->c_str() : describe_errc(code_); }
    [[nodiscard]] std::string message() const { return what(); }

    /// Whether it came as an answer, from the one who was asked (request.hpp); else it was found on this side.
    [[nodiscard]] bool travelled() const noexcept { return travelled_; }
    /// The same, said by somebody else.
    [[nodiscard]] failure from_afar() const& {
        failure there(*this);
        there.travelled_ = true;
        return there;
    }

    /// Throws it as mailroom::error.
    [[noreturn, gnu::cold, gnu::noinline]] void raise() const {
        if (!sentence_) throw error(code_);
        throw error(code_, *sentence_);
    }

    [[nodiscard]] friend bool operator==(const failure& a, errc b) noexcept { return a.code_ == b; }
    [[nodiscard]] friend bool operator==(const failure& a, const failure& b) noexcept { return a.code_ == b.code_; }

private:
    errc code_;
    bool travelled_ = false;
    std::shared_ptr<const std::string> sentence_;
};

/// A T, or a failure. `*` and `->` need a value (undefined without one); `value()` throws mailroom::error instead. T
/// may be move-only.
template <class T>
class result {
    static_assert(std::is_object_v<T> && !std::is_array_v<T> && !std::is_same_v<std::remove_cv_t<T>, failure> &&
                      !std::is_same_v<std::remove_cv_t<T>, errc>,
                  "result<T> holds an object: T may not be a reference, an array, or one of the types that say failure");

    template <class U>
    static constexpr bool is_value = !std::is_same_v<std::remove_cvref_t<U>, result> && !std::is_same_v<std::remove_cvref_t<U>, failure> &&
                                     !std::is_same_v<std::remove_cvref_t<U>, errc> && std::is_constructible_v<T, U>;

public:
    using value_type = T;
    using error_type = failure;

    result() noexcept(std::is_nothrow_default_constructible_v<T>) requires std::default_initializable<T> : value_() {}
    result(errc code) noexcept : has_value_(false), failure_(code) {}             // NOLINT: `return errc::full;`
    result(failure why) noexcept : has_value_(false), failure_(std::move(why)) {} // NOLINT
    template <class U = T>
    requires is_value<U>
    explicit(!std::is_convertible_v<U, T>) result(U&& value) noexcept(std::is_nothrow_constructible_v<T, U>) : value_(std::forward<U>(value)) {}

    result(const result& other) requires std::copy_constructible<T> : has_value_(other.has_value_) { construct(other); }
    result(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) : has_value_(other.has_value_) { construct(std::move(other)); }
    result& operator=(const result& other) requires std::copy_constructible<T> {
        if (this != &other) *this = result(other);
        return *this;
    }
    // A T whose move throws leaves a failure behind (errc::invalid): the old value is gone, the new one did not arrive.
    result& operator=(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) {
        if (this == &other) return *this;
        destroy();
        std::construct_at(&failure_, errc::invalid);
        has_value_ = false;
        if (other.has_value_) {
            std::destroy_at(&failure_);
            if constexpr (std::is_nothrow_move_constructible_v<T>) {
                std::construct_at(std::addressof(value_), std::move(other.value_));
            } else {
                try {
                    std::construct_at(std::addressof(value_), std::move(other.value_));
                } catch (...) {
                    std::construct_at(&failure_, errc::invalid);
                    throw;
                }
            }
            has_value_ = true;
        } else {
            failure_ = std::move(other.failure_);
        }
        return *this;
    }
    ~result() { destroy(); }

    [[nodiscard]] bool has_value() const noexcept { return has_value_; }
    explicit operator bool() const noexcept { return has_value_; }

    [[nodiscard]] T& operator*() & noexcept { return value_; }
    [[nodiscard]] const T& operator*() const& noexcept { return value_; }
    [[nodiscard]] T&& operator*() && noexcept { return std::move(value_); }
    [[nodiscard]] T* operator->() noexcept { return std::addressof(value_); }
    [[nodiscard]] const T* operator->() const noexcept { return std::addressof(value_); }

    /// Returns the value, or throws the failure as mailroom::error.
    T& value() & { return require(), value_; }
    const T& value() const& { return require(), value_; }
    T&& value() && { return require(), std::move(value_); }

    template <class U>
    [[nodiscard]] T value_or(U&& other) const& {
        return has_value_ ? value_ : static_cast<T>(std::forward<U>(other));
    }
    template <class U>
    [[nodiscard]] T value_or(U&& other) && {
        return has_value_ ? std::move(value_) : static_cast<T>(std::forward<U>(other));
    }

    /// Returns why there is no value; undefined where there is one.
    [[nodiscard]] const failure& error() const noexcept { return failure_; }

    [[nodiscard]] friend bool operator==(const result& a, const result& b) requires std::equality_comparable<T> {
        if (a.has_value_ != b.has_value_) return false;
        return a.has_value_ ? a.value_ == b.value_ : a.failure_ == b.failure_;
    }
    [[nodiscard]] friend bool operator==(const result& a, const T& b) requires std::equality_comparable<T> { return a.has_value_ && a.value_ == b; }

private:
    template <class Other>
    void construct(Other&& other) {
        if (has_value_) {
            std::construct_at(std::addressof(value_), std::forward<Other>(other).value_);
        } else {
            std::construct_at(&failure_, std::forward<Other>(other).failure_);
        }
    }
    void destroy() noexcept {
        if (has_value_) {
            std::destroy_at(std::addressof(value_));
        } else {
            std::destroy_at(&failure_);
        }
    }
    void require() const {
        if (!has_value_) failure_.raise();
    }

    bool has_value_ = true;
    union {
        T value_;
        failure failure_;
    };
};

/// Done, or why not.
template <>
class result<void> {
public:
    using value_type = void;
    using error_type = failure;

    result() noexcept : failure_(errc{}) {}
    result(errc code) noexcept : failure_(code) {}             // NOLINT: `return errc::full;`
    result(failure why) noexcept : failure_(std::move(why)) {} // NOLINT

    [[nodiscard]] bool has_value() const noexcept { return failure_ == errc{}; }
    explicit operator bool() const noexcept { return has_value(); }
    void operator*() const noexcept {}
    /// Throws the failure as mailroom::error, if there is one.
    void value() const {
        if (!has_value()) failure_.raise();
    }
    /// Returns why it was not done; undefined where it was.
    [[nodiscard]] const failure& error() const noexcept { return failure_; }

    [[nodiscard]] friend bool operator==(const result& a, const result& b) noexcept { return a.failure_ == b.failure_; }

private:
    failure failure_;
};

} // namespace mailroom
