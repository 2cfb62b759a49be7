// The rivals, each in the way its own documentation recommends. Those that are not installed do not take part.
#pragma once

#include "ours.hpp"

#include <array>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#if MAILROOM_BENCH_MOODYCAMEL
# if __has_include(<concurrentqueue/concurrentqueue.h>)
#  include <concurrentqueue/blockingconcurrentqueue.h>
#  include <concurrentqueue/concurrentqueue.h>
# elif __has_include(<concurrentqueue/moodycamel/concurrentqueue.h>)
#  include <concurrentqueue/moodycamel/blockingconcurrentqueue.h>
#  include <concurrentqueue/moodycamel/concurrentqueue.h>
# else
#  include <moodycamel/blockingconcurrentqueue.h>
#  include <moodycamel/concurrentqueue.h>
# endif
#endif
#if MAILROOM_BENCH_BOOST
# include <boost/lockfree/queue.hpp>
#endif
#if MAILROOM_BENCH_TBB
# include <oneapi/tbb/concurrent_queue.h>
#endif
#if MAILROOM_BENCH_ZEROMQ
# include <zmq.h>
#endif

namespace bench {

/// What one writes without a library.
template <class Body>
class mutex_and_deque {
public:
    void push(Body&& b) {
        {
            const std::lock_guard lock(mutex_);
            waiting_.push_back(std::move(b));
        }
        filled_.notify_one();
    }
    std::optional<Body> try_pop() {
        const std::lock_guard lock(mutex_);
        return pop_front();
    }
    /// nullopt: closed and empty.
    std::optional<Body> pop() {
        std::unique_lock lock(mutex_);
        filled_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
        return pop_front();
    }
    void close() {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        filled_.notify_all();
    }

    struct producer {
        producer(mutex_and_deque& q, int) : to(q) {}
        void send(Body&& b) { to.push(std::move(b)); }
        mutex_and_deque& to;
    };
    struct consumer {
        consumer(mutex_and_deque& q, int) : from(q) {}
        template <class Use>
        std::size_t take(Use use) {
            const std::optional<Body> b = from.try_pop();
            if (!b) { return 0; }
            use(*b);
            return 1;
        }
        mutex_and_deque& from;
    };

private:
    std::optional<Body> pop_front() {
        std::optional<Body> out;
        if (!waiting_.empty()) {
            out.emplace(std::move(waiting_.front()));
            waiting_.pop_front();
        }
        return out;
    }
    std::mutex mutex_;
    std::condition_variable filled_;
    std::deque<Body> waiting_;
    bool closed_ = false;
};

#if MAILROOM_BENCH_MOODYCAMEL

template <class Body>
struct moody {
    moodycamel::ConcurrentQueue<Body> queue;

    struct producer {
        producer(moody& q, int) : to(q.queue) {}
        void send(Body&& b) { to.enqueue(std::move(b)); }
        moodycamel::ConcurrentQueue<Body>& to;
    };
    struct consumer {
        consumer(moody& q, int) : from(q.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            if (!from.try_dequeue(into)) { return 0; }
            use(into);
            return 1;
        }
        moodycamel::ConcurrentQueue<Body>& from;
        Body into{};
    };
};

template <class Body>
struct moody_with_tokens {
    moodycamel::ConcurrentQueue<Body> queue;

    struct producer {
        producer(moody_with_tokens& q, int) : to(q.queue), token(q.queue) {}
        void send(Body&& b) { to.enqueue(token, std::move(b)); }
        moodycamel::ConcurrentQueue<Body>& to;
        moodycamel::ProducerToken token;
    };
    struct consumer {
        consumer(moody_with_tokens& q, int) : from(q.queue), token(q.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            if (!from.try_dequeue(token, into)) { return 0; }
            use(into);
            return 1;
        }
        moodycamel::ConcurrentQueue<Body>& from;
        moodycamel::ConsumerToken token;
        Body into{};
    };
};

# if defined(__GNUC__) && !defined(__clang__)
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wstringop-overflow" // of enqueue_bulk: g++ 12 takes a pointer for null that is not
# endif

template <class Body, bool Tokens>
struct moody_in_batches {
    moodycamel::ConcurrentQueue<Body> queue;

    struct producer {
        producer(moody_in_batches& q, int) : to(q.queue), token(q.queue) {}
        void send_some(std::vector<Body>& some) {
            const auto from = std::make_move_iterator(some.begin());
            if (some.empty()) { return; }
            if constexpr (Tokens) {
                to.enqueue_bulk(token, from, some.size());
            } else {
                to.enqueue_bulk(from, some.size());
            }
        }
        moodycamel::ConcurrentQueue<Body>& to;
        moodycamel::ProducerToken token;
    };
    struct consumer {
        consumer(moody_in_batches& q, int) : from(q.queue), token(q.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            std::size_t n = 0;
            if constexpr (Tokens) {
                n = from.try_dequeue_bulk(token, into.begin(), batch_size);
            } else {
                n = from.try_dequeue_bulk(into.begin(), batch_size);
            }
            for (std::size_t i = 0; i < n; ++i) { use(into[i]); }
            return n;
        }
        moodycamel::ConcurrentQueue<Body>& from;
        moodycamel::ConsumerToken token;
        std::array<Body, batch_size> into{};
    };
};

# if defined(__GNUC__) && !defined(__clang__)
#  pragma GCC diagnostic pop
# endif

#endif
#if MAILROOM_BENCH_BOOST

/// Trivial bodies only.
template <class Body>
struct boost_queue {
    boost::lockfree::queue<Body> queue{65'000};

    struct producer {
        producer(boost_queue& q, int) : to(q.queue) {}
        void send(Body&& b) { to.push(b); }
        boost::lockfree::queue<Body>& to;
    };
    struct consumer {
        consumer(boost_queue& q, int) : from(q.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            Body into;
            if (!from.pop(into)) { return 0; }
            use(into);
            return 1;
        }
        boost::lockfree::queue<Body>& from;
    };
};

#endif
#if MAILROOM_BENCH_TBB

template <class Body>
struct tbb_queue {
    oneapi::tbb::concurrent_queue<Body> queue;

    struct producer {
        producer(tbb_queue& q, int) : to(q.queue) {}
        void send(Body&& b) { to.push(std::move(b)); }
        oneapi::tbb::concurrent_queue<Body>& to;
    };
    struct consumer {
        consumer(tbb_queue& q, int) : from(q.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            if (!from.try_pop(into)) { return 0; }
            use(into);
            return 1;
        }
        oneapi::tbb::concurrent_queue<Body>& from;
        Body into{};
    };
};

#endif
#if MAILROOM_BENCH_ZEROMQ

/// Each receiver has a PULL socket, each sender a PUSH socket that takes them in turn. Without a high-water mark, as the others.
/// Trivial bodies only.
template <class Body>
class zeromq_inproc {
public:
    explicit zeromq_inproc(int receivers) : receivers_(receivers) {
        zmq_ctx_set(context_, ZMQ_IO_THREADS, 0);
        for (int i = 0; i < receivers; ++i) {
            pulls_.push_back(open(ZMQ_PULL));
            zmq_bind(pulls_.back(), address(i).c_str());
        }
    }
    zeromq_inproc(const zeromq_inproc&) = delete;
    zeromq_inproc& operator=(const zeromq_inproc&) = delete;
    ~zeromq_inproc() {
        for (void* const s : pulls_) { zmq_close(s); }
        zmq_ctx_term(context_);
    }

    struct producer {
        producer(zeromq_inproc& all, int) : to(all.open(ZMQ_PUSH)) {
            for (int i = 0; i < all.receivers_; ++i) { zmq_connect(to, address(i).c_str()); }
        }
        producer(const producer&) = delete;
        producer& operator=(const producer&) = delete;
        ~producer() { zmq_close(to); }
        void send(Body&& b) { zmq_send(to, &b, sizeof b, 0); }
        void* to;
    };
    struct consumer {
        consumer(zeromq_inproc& all, int number) : from(all.pulls_[static_cast<std::size_t>(number)]) {}
        template <class Use>
        std::size_t take(Use use) {
            Body into;
            if (zmq_recv(from, &into, sizeof into, ZMQ_DONTWAIT) != static_cast<int>(sizeof into)) { return 0; }
            use(into);
            return 1;
        }
        void* from;
    };

private:
    static std::string address(int i) { return "inproc://" + std::to_string(i); }
    void* open(int kind) const {
        void* const s = zmq_socket(context_, kind);
        const int none = 0;
        zmq_setsockopt(s, ZMQ_SNDHWM, &none, sizeof none);
        zmq_setsockopt(s, ZMQ_RCVHWM, &none, sizeof none);
        zmq_setsockopt(s, ZMQ_LINGER, &none, sizeof none);
        return s;
    }
    void* context_ = zmq_ctx_new();
    int receivers_;
    std::vector<void*> pulls_;
};

#endif

} // namespace bench
