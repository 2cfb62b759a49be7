// The topic of this library, as the benchmarks use it.
#pragma once

#include <mailroom/topic.hpp>

#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

namespace bench {

/// What is common: a topic, published to one by one.
template <class Body>
struct our_topic {
    explicit our_topic(int) {}

    struct publisher {
        publisher(our_topic& all, int) : to(all.topic) {}
        void publish(Body&& b) { to.publish(std::move(b)); }
        mailroom::topic<Body>& to;
    };
    struct subscriber {
        subscriber(our_topic& all, int) : from(all.topic.subscribe()) {}
        mailroom::subscription<Body> from;
    };
    mailroom::topic<Body> topic;
};

template <class Body>
struct topic_popped : our_topic<Body> {
    using our_topic<Body>::our_topic;
    struct subscriber : our_topic<Body>::subscriber {
        using our_topic<Body>::subscriber::subscriber;
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
struct topic_received : our_topic<Body> {
    using our_topic<Body>::our_topic;
    struct subscriber : our_topic<Body>::subscriber {
        using our_topic<Body>::subscriber::subscriber;
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

template <class Body, std::size_t Batch>
struct topic_popped_in_batches : our_topic<Body> {
    using our_topic<Body>::our_topic;
    struct subscriber : our_topic<Body>::subscriber {
        subscriber(our_topic<Body>& all, int number) : our_topic<Body>::subscriber(all, number) { out.reserve(Batch); }
        template <class Use>
        std::size_t take(Use use) {
            const std::size_t n = this->from.pop_many(std::back_inserter(out), Batch);
            for (const auto& m : out) { use(*m); }
            out.clear(); // each holds on to what it shares
            return n;
        }
        std::vector<mailroom::message<Body>> out;
    };
};

template <class Body, std::size_t Batch>
struct topic_received_in_batches : our_topic<Body> {
    using our_topic<Body>::our_topic;
    struct subscriber : our_topic<Body>::subscriber {
        subscriber(our_topic<Body>& all, int number) : our_topic<Body>::subscriber(all, number) { out.reserve(Batch); }
        template <class Use>
        std::size_t take(Use use) {
            const std::size_t n = this->from.receive_many(out, Batch);
            for (auto& d : out) {
                use(*d);
                d.ack();
            }
            out.clear();
            return n;
        }
        std::vector<mailroom::delivery<Body>> out;
    };
};

/// In place, without a message or a delivery for each.
template <class Body, std::size_t Batch>
struct topic_read_in_place : our_topic<Body> {
    using our_topic<Body>::our_topic;
    struct subscriber : our_topic<Body>::subscriber {
        using our_topic<Body>::subscriber::subscriber;
        template <class Use>
        std::size_t take(Use use) {
            return this->from.pop_each([&use](const Body& b) { use(b); }, Batch);
        }
    };
};

/// The same with publish_many.
template <class Topic>
struct published_in_batches : Topic {
    using Topic::Topic;
    struct publisher : Topic::publisher {
        using Topic::publisher::publisher;
        template <class Body>
        void publish_some(std::vector<Body>& some) {
            this->to.publish_many(std::move(some));
        }
    };
};

} // namespace bench
