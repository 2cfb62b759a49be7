// wire: numbers and texts as bytes, little-endian on every machine. Writing appends to a vector; reading never looks past the end.
// Values of one thread at a time.
#pragma once

#include <mailroom/base/error.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom::detail {

using bytes_view = std::span<const std::byte>;

template <class Integer>
Integer load_le(const std::byte* at) noexcept {
    Integer value;
    std::memcpy(&value, at, sizeof value);
    if constexpr (std::endian::native == std::endian::big) {
        Integer turned = 0;
        for (std::size_t i = 0; i < sizeof value; ++i) { turned = static_cast<Integer>((turned << 8) | ((value >> (8 * i)) & 0xff)); }
        value = turned;
    }
    return value;
}
template <class Integer>
void store_le(std::byte* at, Integer value) noexcept {
    if constexpr (std::endian::native == std::endian::big) {
        for (std::size_t i = 0; i < sizeof value; ++i) { at[i] = static_cast<std::byte>(value >> (8 * i)); }
    } else {
        std::memcpy(at, &value, sizeof value);
    }
}

/// Bytes side by side, growing; what is added has no particular values. What asks for more than there is throws std::bad_alloc and changes nothing.
class byte_buffer {
public:
    byte_buffer() noexcept = default;
    byte_buffer(byte_buffer&& other) noexcept { swap(other); }
    byte_buffer& operator=(byte_buffer&& other) noexcept {
        byte_buffer old(std::move(other));
        swap(old);
        return *this;
    }
    std::byte* data() noexcept { return data_; }
    const std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::size_t capacity() const noexcept { return capacity_; }
    bool empty() const noexcept { return size_ == 0; }
    operator bytes_view() const noexcept { return {data_, size_}; }

    void clear() noexcept { size_ = 0; }
    /// Empty, and what follows is to lie in memory as it will at byte `at` of a file: so it is copied there a third faster.
    void clear_for(std::uint64_t at) noexcept {
        size_ = 0;
        skew_ = static_cast<std::size_t>(at % line);
        if (memory_ != nullptr) { data_ = first_of(memory_.get()); }
    }
    void reserve(std::size_t n) {
        if (n <= capacity_) { return; }
        auto larger = std::make_unique_for_overwrite<std::byte[]>(n + 2 * line);
        std::byte* const to = first_of(larger.get());
        if (size_ != 0) { std::memcpy(to, data_, size_); }
        memory_ = std::move(larger);
        data_ = to;
        capacity_ = n;
    }
    void resize(std::size_t n) {
        if (n > capacity_) { reserve(std::max(n, 2 * capacity_)); }
        size_ = n;
    }
    void add(bytes_view more) {
        if (more.empty()) { return; }
        resize(size_ + more.size());
        std::memcpy(data_ + size_ - more.size(), more.data(), more.size());
    }
    void swap(byte_buffer& other) noexcept {
        memory_.swap(other.memory_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(skew_, other.skew_);
    }

private:
    static constexpr std::size_t line = 64; // of a cache
    std::byte* first_of(std::byte* memory) const noexcept {
        const std::size_t over = reinterpret_cast<std::uintptr_t>(memory) % line;
        return memory + (line - over) % line + skew_;
    }

    std::unique_ptr<std::byte[]> memory_;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0, capacity_ = 0;
    std::size_t skew_ = 0; // where in a line it begins
};

/// Appends to a vector. Everything may throw std::bad_alloc.
class wire_writer {
public:
    explicit wire_writer(std::vector<std::byte>& out) noexcept : out_(out) {}

    void u64(std::uint64_t value) { fixed(value); }
    void i64(std::int64_t value) { fixed(static_cast<std::uint64_t>(value)); }
    /// Seven bits a byte, the lowest first.
    void var(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) { out_.push_back(static_cast<std::byte>(value | 0x80)); }
        out_.push_back(static_cast<std::byte>(value));
    }
    void text(std::string_view t) {
        var(t.size());
        const auto* const from = reinterpret_cast<const std::byte*>(t.data());
        out_.insert(out_.end(), from, from + t.size());
    }
    void bytes(bytes_view b) {
        var(b.size());
        raw(b);
    }
    void raw(bytes_view b) { out_.insert(out_.end(), b.begin(), b.end()); }

private:
    template <class Integer>
    void fixed(Integer value) {
        std::byte bytes[sizeof value];
        store_le(bytes, value);
        out_.insert(out_.end(), bytes, bytes + sizeof value);
    }
    std::vector<std::byte>& out_;
};

/// Reads what wire_writer wrote. Throws errc::corrupt where the bytes end too early or make no sense.
class wire_reader {
public:
    explicit wire_reader(bytes_view in) noexcept : in_(in) {}

    std::uint64_t u64() { return fixed<std::uint64_t>(); }
    std::int64_t i64() { return static_cast<std::int64_t>(fixed<std::uint64_t>()); }
    std::uint64_t var() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto b = static_cast<std::uint64_t>(take(1)[0]);
            if (shift == 63 && b > 1) { break; }
            value |= (b & 0x7f) << shift;
            if (b < 0x80) { return value; }
        }
        fail(errc::corrupt, "a number is longer than 64 bits");
    }
    template <class Integer>
    Integer var_as() {
        const std::uint64_t value = var();
        if (value > static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<Integer>>(-1) >> (std::is_signed_v<Integer> ? 1 : 0))) {
            fail(errc::corrupt, "a number is too large for its field");
        }
        return static_cast<Integer>(value);
    }
    /// How many things follow, each of `least` bytes or more.
    std::size_t count(std::size_t least) {
        const std::uint64_t n = var();
        if (n > in_.size() / least) { fail(errc::corrupt, "more is announced than is there"); }
        return static_cast<std::size_t>(n);
    }
    std::string text() {
        const bytes_view b = take(count(1));
        return {reinterpret_cast<const char*>(b.data()), b.size()};
    }
    bytes_view bytes() { return take(count(1)); }
    bytes_view rest() { return take(in_.size()); }
    bytes_view take(std::size_t n) {
        if (n > in_.size()) { fail(errc::corrupt, "the bytes end too early"); }
        const bytes_view front = in_.first(n);
        in_ = in_.subspan(n);
        return front;
    }
    bool at_end() const noexcept { return in_.empty(); }
    void expect_end() const {
        if (!at_end()) { fail(errc::corrupt, "there is more than was expected"); }
    }

private:
    template <class Integer>
    Integer fixed() {
        return load_le<Integer>(take(sizeof(Integer)).data());
    }
    bytes_view in_;
};

} // namespace mailroom::detail
