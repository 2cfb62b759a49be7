// What a program could use instead of a topic: a queue for each subscriber, a list of observers, ZeroMQ. Those that are not installed do not
// take part.
#pragma once

#include "rivals.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// What one writes without a library: one lock, and a deque for each subscriber.
template <class Body>
class observers {
public:
    explicit observers(int subscribers) : waiting_(static_cast<std::size_t>(subscribers)) {}

    struct publisher {
        publisher(observers& o, int) : to(o) {}
        void publish(Body&& b) {
            const std::lock_guard lock(to.mutex_);
            for (auto& waiting : to.waiting_) { waiting.push_back(b); }
        }
        observers& to;
    };
    struct subscriber {
        subscriber(observers& o, int who) : all(o), number(static_cast<std::size_t>(who)) {}
        template <class Use>
        std::size_t take(Use use) {
            std::optional<Body> b;
            {
                const std::lock_guard lock(all.mutex_);
                auto& waiting = all.waiting_[number];
                if (waiting.empty()) { return 0; }
                b.emplace(std::move(waiting.front()));
                waiting.pop_front();
            }
            use(*b);
            return 1;
        }
        observers& all;
        std::size_t number;
    };

private:
    std::mutex mutex_;
    std::vector<std::deque<Body>> waiting_;
};

#if MAILROOM_BENCH_MOODYCAMEL

/// What goes into a subscriber's queue: a copy of the body,
template <class Body>
struct by_copy {
    using stored = Body;
    static Body store(Body&& b) { return std::move(b); }
    static const Body& body(const stored& s) { return s; }
};
/// or a share in one body.
template <class Body>
struct by_share {
    using stored = std::shared_ptr<const Body>;
    static stored store(Body&& b) { return std::make_shared<const Body>(std::move(b)); }
    static const Body& body(const stored& s) { return *s; }
};

/// A moodycamel queue for each subscriber, with tokens; one by one, or `Batch` at a time.
template <class Body, template <class> class By, std::size_t Batch = 1>
struct moody_each {
    using by = By<Body>;
    using stored = typename by::stored;
    using one = moodycamel::ConcurrentQueue<stored>;

    explicit moody_each(int subscribers) {
        for (int i = 0; i < subscribers; ++i) { queues.push_back(std::make_unique<one>()); }
    }
    std::vector<std::unique_ptr<one>> queues;

    struct publisher {
        publisher(moody_each& all, int) : to(all.queues) {
            for (const auto& q : to) { tokens.emplace_back(*q); }
        }
        void publish(Body&& b) {
            const stored s = by::store(std::move(b));
            for (std::size_t i = 0; i < to.size(); ++i) { to[i]->enqueue(tokens[i], s); }
        }
        const std::vector<std::unique_ptr<one>>& to;
        std::vector<moodycamel::ProducerToken> tokens;
    };
    struct subscriber {
        subscriber(moody_each& all, int number) : from(*all.queues[static_cast<std::size_t>(number)]), token(from) {}
        template <class Use>
        std::size_t take(Use use) {
            if constexpr (Batch == 1) {
                if (!from.try_dequeue(token, into[0])) { return 0; }
                use(by::body(into[0]));
                return 1;
            } else {
                const std::size_t n = from.try_dequeue_bulk(token, into.begin(), Batch);
                for (std::size_t i = 0; i < n; ++i) { use(by::body(into[i])); }
                return n;
            }
        }
        one& from;
        moodycamel::ConsumerToken token;
        std::array<stored, Batch> into{};
    };
};

# if defined(__GNUC__) && !defined(__clang__)
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wstringop-overflow" // of enqueue_bulk: g++ 12 takes a pointer for null that is not
# endif

template <class Body, std::size_t Batch>
struct moody_each_in_batches : moody_each<Body, by_copy, Batch> {
    using base = moody_each<Body, by_copy, Batch>;
    using base::base;
    struct publisher : base::publisher {
        using base::publisher::publisher;
        void publish_some(std::vector<Body>& some) {
            if (some.empty()) { return; }
            for (std::size_t i = 0; i < this->to.size(); ++i) { this->to[i]->enqueue_bulk(this->tokens[i], some.begin(), some.size()); }
        }
    };
};

# if defined(__GNUC__) && !defined(__clang__)
#  pragma GCC diagnostic pop
# endif

#endif
#if MAILROOM_BENCH_ZEROMQ

/// A publishing socket for each publisher, and a SUB socket for each subscriber that is connected to all of them. Without a high-water mark:
/// nothing is lost. XPUB is PUB that hears who subscribes, so that it can wait for them. Trivial bodies only.
template <class Body>
class zeromq_pub_sub {
public:
    explicit zeromq_pub_sub(int subscribers, int publishers = 1) : subscribers_(subscribers), publishers_(publishers) {
        zmq_ctx_set(context_, ZMQ_IO_THREADS, 0);
        zmq_ctx_set(context_, ZMQ_MAX_SOCKETS, 4096);
        for (int i = 0; i < publishers; ++i) {
            pubs_.push_back(open(ZMQ_XPUB));
            const int each = 1;
            zmq_setsockopt(pubs_.back(), ZMQ_XPUB_VERBOSE, &each, sizeof each);
            if (zmq_bind(pubs_.back(), address(i).c_str()) != 0) { give_up("ZeroMQ cannot bind"); }
        }
    }
    zeromq_pub_sub(const zeromq_pub_sub&) = delete;
    zeromq_pub_sub& operator=(const zeromq_pub_sub&) = delete;
    ~zeromq_pub_sub() {
        for (void* const s : pubs_) { zmq_close(s); }
        zmq_ctx_term(context_);
    }

    struct publisher {
        publisher(zeromq_pub_sub& all, int number) : to(all.pubs_[static_cast<std::size_t>(number)]), expected(all.subscribers_) {}
        /// Waits until it has heard of all subscribers.
        void ready() {
            for (int i = 0; i < expected; ++i) {
                char text[8];
                if (zmq_recv(to, text, sizeof text, 0) != 1) { give_up("ZeroMQ does not subscribe"); }
            }
        }
        void publish(Body&& b) { zmq_send(to, &b, sizeof b, 0); }
        void* to;
        int expected;
    };
    struct subscriber {
        subscriber(zeromq_pub_sub& all, int) : from(all.open(ZMQ_SUB)) {
            zmq_setsockopt(from, ZMQ_SUBSCRIBE, "", 0);
            for (int i = 0; i < all.publishers_; ++i) {
                if (zmq_connect(from, address(i).c_str()) != 0) { give_up("ZeroMQ cannot connect"); }
            }
            zmq_msg_init(&into);
        }
        subscriber(const subscriber&) = delete;
        subscriber& operator=(const subscriber&) = delete;
        ~subscriber() {
            zmq_msg_close(&into);
            zmq_close(from);
        }
        template <class Use>
        std::size_t take(Use use) {
            if (zmq_msg_recv(&into, from, ZMQ_DONTWAIT) != static_cast<int>(sizeof(Body))) { return 0; }
            use(*static_cast<const Body*>(zmq_msg_data(&into))); // aligned as a pointer is
            return 1;
        }
        void* from;
        zmq_msg_t into;
    };

private:
    static std::string address(int i) { return "inproc://publisher " + std::to_string(i); }
    void* open(int kind) const {
        void* const s = zmq_socket(context_, kind);
        const int none = 0;
        zmq_setsockopt(s, ZMQ_SNDHWM, &none, sizeof none);
        zmq_setsockopt(s, ZMQ_RCVHWM, &none, sizeof none);
        zmq_setsockopt(s, ZMQ_LINGER, &none, sizeof none);
        return s;
    }
    void* context_ = zmq_ctx_new();
    int subscribers_, publishers_;
    std::vector<void*> pubs_;
};

#endif

} // namespace bench
