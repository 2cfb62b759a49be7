// Counts what operator new gives out, and makes it fail on demand, in a program that has nothing else to do. One of its sources defines
// SUPPORT_REPLACES_NEW before it includes this, and so replaces the global operators for all.
//
// Counts are the program's; failures are the calling thread's, so that nobody else is disturbed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace support {

namespace detail {

inline std::atomic<std::size_t> made{0}, live{0};
inline thread_local constinit long until_failure = -1; // below zero: none fails
inline thread_local constinit bool fails_for_good = false;
inline thread_local constinit long failures = 0;

inline void* allocate(std::size_t size, std::size_t alignment) noexcept {
    if (until_failure >= 0 && until_failure-- == 0) {
        ++failures;
        if (fails_for_good) { until_failure = 0; }
        return nullptr;
    }
    const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
    void* const p = alignment <= alignof(std::max_align_t) ? std::malloc(size != 0 ? size : 1) : std::aligned_alloc(alignment, rounded);
    if (p != nullptr) {
        made.fetch_add(1, std::memory_order_relaxed);
        live.fetch_add(1, std::memory_order_relaxed);
    }
    return p;
}
inline void* allocate_or_throw(std::size_t size, std::size_t alignment) {
    if (void* const p = allocate(size, alignment)) { return p; }
    throw std::bad_alloc();
}
inline void release(void* p) noexcept {
    if (p == nullptr) { return; }
    live.fetch_sub(1, std::memory_order_relaxed);
    std::free(p);
}

} // namespace detail

/// How many allocations were made ever, and how many are not given back.
inline std::size_t allocations_made() { return detail::made.load(); }
inline std::size_t allocations_live() { return detail::live.load(); }

/// While it is alive, allocation number `nth` (from 0) of this thread fails; or that one and all that follow.
class failing_allocation {
public:
    failing_allocation(long nth, bool and_all_after) {
        detail::until_failure = nth;
        detail::fails_for_good = and_all_after;
        detail::failures = 0;
    }
    failing_allocation(const failing_allocation&) = delete;
    failing_allocation& operator=(const failing_allocation&) = delete;
    ~failing_allocation() { detail::until_failure = -1; }

    /// How many are left before the failing one, where it has not failed yet.
    long left() const { return detail::until_failure; }
    bool has_failed() const { return detail::failures != 0; }
};

} // namespace support

#ifdef SUPPORT_REPLACES_NEW
// None of these may be inline; the nothrow and array forms of the standard library call the first two where they are not replaced, but
// sanitizers replace all of them.
void* operator new(std::size_t size) { return support::detail::allocate_or_throw(size, 1); }
void* operator new[](std::size_t size) { return support::detail::allocate_or_throw(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return support::detail::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return support::detail::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return support::detail::allocate(size, 1); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return support::detail::allocate(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return support::detail::allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return support::detail::allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { support::detail::release(p); }
void operator delete[](void* p) noexcept { support::detail::release(p); }
void operator delete(void* p, std::size_t) noexcept { support::detail::release(p); }
void operator delete[](void* p, std::size_t) noexcept { support::detail::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { support::detail::release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { support::detail::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { support::detail::release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { support::detail::release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { support::detail::release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { support::detail::release(p); }
#endif
