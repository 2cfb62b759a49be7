// How a `T` stands in a slot: in place, in a box, or kept for the next message.
//
// A slot is filled after its offset was taken, when nothing may throw any more. A `T` whose move may throw, or that is large, is
// therefore boxed before. A `T` with `reuse_slot<T>` stays alive in its slot, and its buffer goes back to a producer.
#pragma once

#include <mailroom/message/traits.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace mailroom::detail {

/// Above this size a body is boxed: a block of slots stays small, whatever `T` is.
inline constexpr std::size_t largest_inline_body = 1024;
/// How much memory a slot may keep for the next message.
inline constexpr std::size_t largest_kept_buffer = 1024;

template <class T>
class body;

template <class T>
inline constexpr bool is_boxed = !std::is_nothrow_move_constructible_v<T> || sizeof(T) > largest_inline_body;
// Buffers may only change owners where every allocator is as good as every other.
template <class T>
consteval bool has_equal_allocators() {
    if constexpr (requires { typename T::allocator_type; }) {
        return std::allocator_traits<typename T::allocator_type>::is_always_equal::value;
    } else {
        return true;
    }
}
template <class T>
inline constexpr bool swaps_freely = has_equal_allocators<T>();
template <class T>
inline constexpr bool is_kept = reuse_slot<T>::value && !is_boxed<T> && swaps_freely<T> && std::is_default_constructible_v<T> &&
                                std::is_copy_constructible_v<T> && std::is_nothrow_swappable_v<T>;

/// A body on its way into a slot: what could throw has been done. The sender's value is moved from by `into` alone, but where a move may
/// throw: such a T is copied before, or, where it cannot be, moved and given back if it was not sent.
template <class T>
class outgoing {
    static constexpr bool moves_early = is_boxed<T> && !std::is_nothrow_move_constructible_v<T>;

public:
    explicit outgoing(T& value) : value_(value) {
        if constexpr (moves_early) {
            box_ = std::make_unique<T>(std::move_if_noexcept(value));
        } else if constexpr (is_boxed<T>) {
            memory_.reset(static_cast<T*>(std::allocator<T>().allocate(1)));
        }
    }
    outgoing(const outgoing&) = delete;
    outgoing& operator=(const outgoing&) = delete;
    ~outgoing() {
        if constexpr (moves_early && !std::is_copy_constructible_v<T> && std::is_move_assignable_v<T>) {
            try {
                if (box_ != nullptr) { value_ = std::move(*box_); }
            } catch (...) { // it throws again: its sender asked for that
            }
        }
    }

    const T& look() const noexcept {
        if constexpr (moves_early) {
            return *box_;
        } else {
            return value_;
        }
    }

    void into(body<T>& slot) noexcept {
        if constexpr (moves_early) {
            slot.put(std::move(box_));
        } else if constexpr (is_boxed<T>) {
            slot.put(std::unique_ptr<T>(std::construct_at(memory_.release(), std::move(value_))));
        } else {
            slot.put(std::move(value_));
        }
    }

private:
    struct none {};
    struct nothing_kept {};
    struct freeing {
        void operator()(T* memory) const noexcept { std::allocator<T>().deallocate(memory, 1); }
    };
    T& value_;
    [[no_unique_address]] std::conditional_t<moves_early, std::unique_ptr<T>, none> box_;
    [[no_unique_address]] std::conditional_t<is_boxed<T> && !moves_early, std::unique_ptr<T, freeing>, nothing_kept> memory_;
};

/// The place of one `T`. Its owner says when it is alive; nothing here is atomic.
template <class T>
class body {
public:
    body() noexcept {
        if constexpr (is_kept<T>) { ::new (static_cast<void*>(storage_)) T(); }
    }
    ~body() {
        if constexpr (is_kept<T>) { std::launder(reinterpret_cast<T*>(storage_))->~T(); }
    }
    body(const body&) = delete;
    body& operator=(const body&) = delete;

    /// Fills the slot. The argument is left empty, perhaps with a buffer of a former message to use again.
    void put(T&& value) noexcept requires(!is_boxed<T>) {
        if constexpr (is_kept<T>) {
            using std::swap;
            swap(*get(), value);
            if constexpr (requires { value.clear(); }) { value.clear(); }
        } else {
            ::new (static_cast<void*>(storage_)) T(std::move(value));
        }
    }
    void put(std::unique_ptr<T> value) noexcept requires is_boxed<T> { ::new (static_cast<void*>(storage_)) std::unique_ptr<T>(std::move(value)); }

    /// Fills the slot with copies, in the buffer of a former message if they fit. May throw std::bad_alloc: then it is not filled.
    template <class Element>
    void assign(const Element* first, std::size_t n) requires is_kept<T> {
        T& value = *get();
        if (value.size() == n) { // messages of one stream are often alike: nothing is to be made longer or shorter
            std::copy_n(first, n, value.data());
        } else {
            value.assign(first, first + n);
        }
    }

    /// Gives the value for another one's buffer; it has ended here.
    void exchange(T& with) noexcept requires is_kept<T> {
        using std::swap;
        swap(*get(), with);
        trim();
    }

    T* get() noexcept {
        if constexpr (is_boxed<T>) {
            return std::launder(reinterpret_cast<std::unique_ptr<T>*>(storage_))->get();
        } else {
            return std::launder(reinterpret_cast<T*>(storage_));
        }
    }

    /// Takes the value out for good: answers `sink(T&&)` or, boxed, `sink(std::unique_ptr<T>&&)`. When this returns it has ended.
    template <class Sink>
    auto take(Sink&& sink) {
        const ending end{*this};
        if constexpr (is_boxed<T>) {
            return sink(std::move(*std::launder(reinterpret_cast<std::unique_ptr<T>*>(storage_))));
        } else if constexpr (is_kept<T>) {
            // A copy lets the buffer stay: the receiver frees what it allocated itself, which is far cheaper than freeing what
            // another thread did. Without memory for a copy, or with much to copy, the value moves.
            T& value = *get();
            std::optional<T> copy;
            if (value.size() * sizeof(typename T::value_type) <= largest_kept_buffer) {
                try {
                    copy.emplace(value);
                } catch (...) { copy.reset(); }
            }
            return sink(std::move(copy ? *copy : value));
        } else {
            return sink(std::move(*get()));
        }
    }

    /// Ends the value.
    void drop() noexcept {
        if constexpr (is_boxed<T>) {
            std::destroy_at(std::launder(reinterpret_cast<std::unique_ptr<T>*>(storage_)));
        } else if constexpr (is_kept<T>) {
            trim();
        } else {
            get()->~T();
        }
    }

    /// Whether `drop` does nothing.
    static constexpr bool trivial = std::is_trivially_destructible_v<T> && !is_boxed<T> && !is_kept<T>;

private:
    struct ending {
        body& ended;
        ~ending() { ended.drop(); }
    };

    void trim() noexcept {
        T& value = *get();
        if (value.capacity() * sizeof(typename T::value_type) > largest_kept_buffer) { T().swap(value); }
    }

    using stored = std::conditional_t<is_boxed<T>, std::unique_ptr<T>, T>;
    alignas(stored) std::byte storage_[sizeof(stored)];
};

} // namespace mailroom::detail
