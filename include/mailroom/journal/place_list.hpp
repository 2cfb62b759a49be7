// place_list: where messages lie in a segment, one number of 32 bits for each, in the order they were sent.
//
// In pieces that are never moved, as they go into the file beside the segment (little-endian): millions are added without copying those before,
// and written as they are. A piece is twice as large as the one before, up to 64 KiB: a list of a few takes 64 bytes. Not thread-safe, but for
// reading.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/wire.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace mailroom::detail {

class place_list {
public:
    place_list() noexcept = default;
    place_list(place_list&& other) noexcept { swap(other); }
    place_list& operator=(place_list&& other) noexcept {
        place_list old(std::move(other));
        swap(old);
        return *this;
    }

    std::size_t size() const noexcept { return size_; }
    std::uint32_t operator[](std::size_t i) const noexcept { return load_le<std::uint32_t>(at(i)); }
    void set(std::size_t i, std::uint32_t place) noexcept { store_le(at(i), place); }
    /// May throw std::bad_alloc; then nothing was added.
    void push_back(std::uint32_t place) {
        if (next_ == end_) { add_piece(); }
        store_le(next_, place);
        next_ += width;
        ++size_;
    }
    /// Calls `fn(bytes_view)` for all of it, piece by piece, as long as it answers true. Returns whether it always did.
    template <class Fn>
    bool each_piece(Fn fn) const {
        std::size_t left = size_;
        for (std::size_t p = 0; left != 0; ++p) {
            const std::size_t n = std::min(left, places_in(p));
            if (!fn(bytes_view(pieces_[p].get(), n * width))) { return false; }
            left -= n;
        }
        return true;
    }

private:
    static constexpr std::size_t width = sizeof(std::uint32_t);
    static constexpr std::size_t first_piece = 16, doublings = 10; // then all are as large as the last that was doubled
    static constexpr std::size_t largest_piece = first_piece << doublings;
    static constexpr std::size_t in_growing = (first_piece << (doublings + 1)) - first_piece; // together

    static constexpr std::size_t places_in(std::size_t piece) noexcept { return first_piece << std::min(piece, doublings); }
    std::byte* at(std::size_t i) const noexcept {
        if (i >= in_growing) {
            i -= in_growing;
            return pieces_[doublings + 1 + i / largest_piece].get() + i % largest_piece * width;
        }
        const std::size_t piece = static_cast<std::size_t>(std::bit_width(i / first_piece + 1)) - 1;
        return pieces_[piece].get() + (i - ((first_piece << piece) - first_piece)) * width;
    }
    void add_piece() {
        const std::size_t n = places_in(pieces_.size()) * width;
        pieces_.push_back(std::make_unique_for_overwrite<std::byte[]>(n));
        next_ = pieces_.back().get();
        end_ = next_ + n;
    }
    void swap(place_list& other) noexcept {
        pieces_.swap(other.pieces_);
        std::swap(next_, other.next_);
        std::swap(end_, other.end_);
        std::swap(size_, other.size_);
    }

    std::vector<std::unique_ptr<std::byte[]>> pieces_;
    std::byte* next_ = nullptr;
    std::byte* end_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace mailroom::detail
