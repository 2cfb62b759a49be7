// The tags of the lanes are declared with the queue; what they stand for is in a header of its own.
// expect: queue<T, transient<...>> needs #include <mailroom/store/transient.hpp>
#include <mailroom/queue.hpp>

#if !defined(MAILROOM_FAULT)
# define MAILROOM_FAULT 0
#endif

#if MAILROOM_FAULT == 1
mailroom::queue<int, mailroom::transient<>> lane;
#else
mailroom::queue<int> memory;
#endif
