// How much memory the process has allocated and not freed, where the system can say.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
# define MAILROOM_TEST_SANITIZED 1
#elif defined(__has_feature)
# if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#  define MAILROOM_TEST_SANITIZED 1
# endif
#endif

#if defined(MAILROOM_TEST_SANITIZED)
extern "C" std::size_t __sanitizer_get_current_allocated_bytes(); // of every sanitizer with an allocator; its header is not always there
#elif defined(__GLIBC__)
# include <malloc.h>
#endif

namespace support {

#if defined(MAILROOM_TEST_SANITIZED)
inline constexpr bool heap_is_known = true;
inline std::size_t heap_in_use() { return __sanitizer_get_current_allocated_bytes(); }
#elif defined(__GLIBC__)
inline constexpr bool heap_is_known = true;
inline std::size_t heap_in_use() {
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
}
#else
inline constexpr bool heap_is_known = false;
inline std::size_t heap_in_use() { return 0; }
#endif

} // namespace support
