// byte_sink: what a codec writes to: bytes side by side, growing. The first 256 are kept in the object itself, so a small
// message is encoded without an allocation; a sink that is cleared keeps what it has and serves the next message. One
// thread at a time.
#pragma once

#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace mailroom {

/// A growing buffer of bytes. What asks for more than there is throws std::bad_alloc and changes nothing.
class byte_sink {
public:
    byte_sink() noexcept {} // NOLINT: `= default` would let `byte_sink{}` fill the buffer with zeros
    byte_sink(const byte_sink&) = delete;
    byte_sink& operator=(const byte_sink&) = delete;

    /// Appends a copy. The bytes must not be the sink's own.
    void write(std::span<const std::byte> bytes) {
        if (!bytes.empty()) { std::memcpy(extend(bytes.size()), bytes.data(), bytes.size()); }
    }
    void push_back(std::byte b) { *extend(1) = b; }

    /// Appends that many bytes of no particular value; returns where they begin, until the next call that appends.
    std::byte* extend(std::size_t count) {
        if (capacity_ - size_ < count) [[unlikely]] { grow(count); }
        std::byte* const place = data_ + size_;
        size_ += count;
        return place;
    }

    /// Makes room for that many bytes in all.
    void reserve(std::size_t capacity) {
        if (capacity > capacity_) { move_to(capacity); }
    }

    /// Forgets the bytes and keeps their room.
    void clear() noexcept { size_ = 0; }

    /// What was written; valid until the next call that changes it.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

private:
    static constexpr std::size_t inline_bytes = 256;

    [[gnu::cold, gnu::noinline]] void grow(std::size_t count) {
        constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 4;
        if (count > most || size_ > most) { throw std::bad_alloc(); }
        const std::size_t needed = size_ + count;
        move_to(needed > 2 * capacity_ ? needed : 2 * capacity_);
    }
    void move_to(std::size_t capacity) {
        auto larger = std::make_unique_for_overwrite<std::byte[]>(capacity);
        if (size_ != 0) { std::memcpy(larger.get(), data_, size_); }
        heap_ = std::move(larger);
        data_ = heap_.get();
        capacity_ = capacity;
    }

    std::byte* data_ = inline_;
    std::size_t size_ = 0;
    std::size_t capacity_ = inline_bytes;
    std::unique_ptr<std::byte[]> heap_;
    std::byte inline_[inline_bytes];
};

} // namespace mailroom
