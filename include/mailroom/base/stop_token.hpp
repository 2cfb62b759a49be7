// stop_token, stop_source and stop_callback: the standard library's where it has them, else our own with the same face.
// Which one it is follows __cpp_lib_jthread (libc++ 16 has neither stop_token nor jthread); code that uses these names
// cannot tell.
#pragma once

#include <version>

#if defined(__cpp_lib_jthread)

# include <stop_token>

namespace mailroom {

using std::nostopstate;
using std::nostopstate_t;
using std::stop_callback;
using std::stop_source;
using std::stop_token;

} // namespace mailroom

#else

# include <mailroom/base/own_stop_token.hpp>

namespace mailroom {

using detail::own::nostopstate;
using detail::own::nostopstate_t;
using detail::own::stop_callback;
using detail::own::stop_source;
using detail::own::stop_token;

} // namespace mailroom

#endif
