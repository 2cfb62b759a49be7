// Everything but the edges: include this, or the single headers it names.
#pragma once

#include <mailroom/idempotent.hpp>
#include <mailroom/producer.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/request.hpp>
#include <mailroom/topic.hpp>
#include <mailroom/transaction.hpp>

#if __has_include(<boost/lockfree/queue.hpp>) && \
    (__has_include(<concurrentqueue/concurrentqueue.h>) || __has_include(<concurrentqueue/moodycamel/concurrentqueue.h>) || \
     __has_include(<moodycamel/concurrentqueue.h>) || __has_include(<concurrentqueue.h>))
# include <mailroom/store/transient.hpp>
# include <mailroom/store/transient_topic.hpp>
#endif
#if __has_include(<xxhash.h>) && __has_include(<boost/pfr/core.hpp>)
# include <mailroom/journal.hpp>
#endif
