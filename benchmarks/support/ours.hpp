// The queue of this library, as the benchmarks use it.
#pragma once

#include <mailroom/queue.hpp>

#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

namespace bench {

/// What is common: a queue, made with options.
template <class Body>
struct our_queue {
    our_queue() = default;
    explicit our_queue(const mailroom::queue_options<Body>& options) : queue(options) {}

    struct producer {
        producer(our_queue& all, int) : to(all.queue) {}
        void send(Body&& b) { to.send(std::move(b)); }
        mailroom::queue<Body>& to;
    };
    struct consumer {
        consumer(our_queue& all, int) : from(all.queue) {}
        mailroom::queue<Body>& from;
    };
    mailroom::queue<Body> queue;
};

template <class Body>
struct ours_popped : our_queue<Body> {
    using our_queue<Body>::our_queue;
    struct consumer : our_queue<Body>::consumer {
        using our_queue<Body>::consumer::consumer;
        template <class Use>
        std::size_t take(Use use) {
            const auto m = this->from.try_pop();
            if (!m) { return 0; }
            use(**m);
            return 1;
        }
    };
};

template <class Body>
struct ours_received : our_queue<Body> {
    using our_queue<Body>::our_queue;
    struct consumer : our_queue<Body>::consumer {
        using our_queue<Body>::consumer::consumer;
        template <class Use>
        std::size_t take(Use use) {
            auto d = this->from.try_receive();
            if (!d) { return 0; }
            use(**d);
            d->ack();
            return 1;
        }
    };
};

inline constexpr std::size_t batch_size = 64;

template <class Body>
struct our_batches : our_queue<Body> {
    using our_queue<Body>::our_queue;
    struct producer : our_queue<Body>::producer {
        using our_queue<Body>::producer::producer;
        void send_some(std::vector<Body>& some) { this->to.send_many(std::move(some)); }
    };
};

template <class Body>
struct ours_popped_in_batches : our_batches<Body> {
    using our_batches<Body>::our_batches;
    struct consumer : our_queue<Body>::consumer {
        consumer(our_queue<Body>& all, int number) : our_queue<Body>::consumer(all, number) { out.reserve(batch_size); }
        template <class Use>
        std::size_t take(Use use) {
            out.clear();
            const std::size_t n = this->from.pop_many(std::back_inserter(out), batch_size);
            for (const auto& m : out) { use(*m); }
            return n;
        }
        std::vector<mailroom::message<Body>> out;
    };
};

template <class Body>
struct ours_received_in_batches : our_batches<Body> {
    using our_batches<Body>::our_batches;
    struct consumer : our_queue<Body>::consumer {
        consumer(our_queue<Body>& all, int number) : our_queue<Body>::consumer(all, number) { out.reserve(batch_size); }
        template <class Use>
        std::size_t take(Use use) {
            out.clear();
            const std::size_t n = this->from.receive_many(out, batch_size);
            for (auto& d : out) {
                use(*d);
                d.ack();
            }
            return n;
        }
        std::vector<mailroom::delivery<Body>> out;
    };
};

} // namespace bench
