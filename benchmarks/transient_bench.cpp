// What does `transient` cost over the raw container behind it?
//
// The same calls to the raw container and to the lane, 16 bytes: with and without handles (tokens), 64 by 64; pinned (senders on one core,
// receivers on the other) and on one thread, where nothing but the instructions counts (64 sent, then 64 popped; time of the processor).
// Nobody waits in it: what is asked is what the possibility to wait, to be closed and to be bounded costs those who do not use it.
#include "support/results.hpp"
#include "support/throughput.hpp"

#include <mailroom/store/transient.hpp>

#include <boost/lockfree/queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>

#include <cstddef>
#include <ctime>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace bench;

constexpr std::size_t places = 1024, batch = 64;

// ---- the raw containers: a sender that finds one full pauses and tries again ----

struct raw_moodycamel {
    moodycamel::ConcurrentQueue<small> queue;
    struct producer {
        producer(raw_moodycamel& all, int) : to(all.queue) {}
        void send(small&& b) { to.enqueue(std::move(b)); }
        moodycamel::ConcurrentQueue<small>& to;
    };
    struct consumer {
        consumer(raw_moodycamel& all, int) : from(all.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            small b;
            if (!from.try_dequeue(b)) { return 0; }
            use(b);
            return 1;
        }
        moodycamel::ConcurrentQueue<small>& from;
    };
};

template <bool Batches>
struct raw_moodycamel_tokens {
    moodycamel::ConcurrentQueue<small> queue;
    struct single_producer {
        single_producer(raw_moodycamel_tokens& all, int) : to(all.queue), token(all.queue) {}
        void send(small&& b) { to.enqueue(token, std::move(b)); }
        moodycamel::ConcurrentQueue<small>& to;
        moodycamel::ProducerToken token;
    };
    struct bulk_producer : single_producer {
        using single_producer::single_producer;
        void send_some(std::vector<small>& some) { this->to.enqueue_bulk(this->token, some.begin(), some.size()); }
    };
    using producer = std::conditional_t<Batches, bulk_producer, single_producer>;
    struct consumer {
        consumer(raw_moodycamel_tokens& all, int) : from(all.queue), token(all.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            small some[Batches ? batch : 1];
            const std::size_t n = Batches ? from.try_dequeue_bulk(token, some, batch) : from.try_dequeue(token, some[0]);
            for (std::size_t i = 0; i < n; ++i) { use(some[i]); }
            return n;
        }
        moodycamel::ConcurrentQueue<small>& from;
        moodycamel::ConsumerToken token;
    };
};

template <class Container>
struct raw_boost {
    Container queue;
    struct producer {
        producer(raw_boost& all, int) : to(all.queue) {}
        void send(small&& b) {
            while (!to.push(b)) { bench::pause(); }
        }
        Container& to;
    };
    struct consumer {
        consumer(raw_boost& all, int) : from(all.queue) {}
        template <class Use>
        std::size_t take(Use use) {
            small b;
            if (!from.pop(b)) { return 0; }
            use(b);
            return 1;
        }
        Container& from;
    };
};
using raw_spsc = raw_boost<boost::lockfree::spsc_queue<small, boost::lockfree::capacity<places>>>;
using raw_queue = raw_boost<boost::lockfree::queue<small, boost::lockfree::capacity<places>>>;

// ---- ours ----

enum class sends { waiting, trying };

template <class Shape, bool Handles, sends How = sends::waiting, bool Batches = false>
struct ours {
    using queue_type = mailroom::queue<small, mailroom::transient<Shape>>;
    queue_type queue;

    struct single_producer {
        single_producer(ours& all, int) : to(end(all.queue)) {}
        static decltype(auto) end(queue_type& q) {
            if constexpr (Handles) {
                return q.producer();
            } else {
                return (q);
            }
        }
        void send(small&& b) {
            if constexpr (How == sends::waiting) {
                to.send(std::move(b));
            } else {
                while (!to.try_send(std::move(b))) { bench::pause(); }
            }
        }
        decltype(end(std::declval<queue_type&>())) to;
    };
    struct bulk_producer : single_producer {
        using single_producer::single_producer;
        void send_some(std::vector<small>& some) { this->to.send_many(some); }
    };
    using producer = std::conditional_t<Batches, bulk_producer, single_producer>;

    struct consumer {
        consumer(ours& all, int) : from(end(all.queue)) {}
        static decltype(auto) end(queue_type& q) {
            if constexpr (Handles) {
                return q.consumer();
            } else {
                return (q);
            }
        }
        template <class Use>
        std::size_t take(Use use) {
            if constexpr (Batches) {
                small some[batch];
                const std::size_t n = from.pop_many(some, batch);
                for (std::size_t i = 0; i < n; ++i) { use(some[i]); }
                return n;
            } else {
                const std::optional<small> b = from.try_pop();
                if (!b) { return 0; }
                use(*b);
                return 1;
            }
        }
        decltype(end(std::declval<queue_type&>())) from;
    };
};

// ---- on one thread ----

double processor_seconds() {
    std::timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class Rival>
double alone(std::size_t messages) {
    const auto rival = std::make_unique<Rival>();
    typename Rival::producer to(*rival, 0);
    typename Rival::consumer from(*rival, 0);
    std::uint64_t check = 0;
    double start = 0;
    for (const std::size_t n : {messages / 8, messages}) {
        check = 0;
        start = processor_seconds();
        for (std::size_t i = 0; i < n; i += batch) {
            for (std::size_t k = 0; k < batch; ++k) { to.send(body_traits<small>::make(0, i + k)); }
            for (std::size_t k = 0; k < batch; ++k) {
                from.take([&check](const small& b) { check += body_traits<small>::check(b); });
            }
        }
    }
    const double took = processor_seconds() - start;
    if (check != expected_check(0, (messages + batch - 1) / batch * batch)) { give_up("messages were lost or damaged on one thread"); }
    return static_cast<double>(messages) / took / 1e6;
}
template <class Rival>
contestant by_itself(std::string name, std::size_t messages) {
    return {std::move(name), [messages] { return std::vector<double>{alone<Rival>(messages)}; }};
}

using mailroom::bounded;
using mailroom::spsc;
using mailroom::unbounded;

const std::string moody = "moodycamel", moody_tokens = "moodycamel + tokens", moody_bulk = "moodycamel bulk + tokens",
                  boost_spsc = "Boost.Lockfree spsc_queue", boost_queue = "Boost.Lockfree queue";

void across(results& all, const load& l) {
    const std::string shape = l.shape(), how = shape + (l.pinned ? ", pinned" : ", unpinned"), tail = (l.pinned ? "_pinned_" : "_unpinned_") + shape;
    all.contest({{"transient_unbounded" + tail, "transient<>, 16 bytes, " + how, "M msg/s", moody}},
                {
                    competing<small, raw_moodycamel>(moody, l),
                    competing<small, ours<unbounded, false>>("transient<>", l),
                });
    all.contest({{"transient_handles" + tail, "transient<> with handles, 16 bytes, " + how, "M msg/s", moody_tokens}},
                {
                    competing<small, raw_moodycamel_tokens<false>>(moody_tokens, l),
                    competing<small, ours<unbounded, true>>("transient<>, handles", l),
                });
    load by_batch = l;
    by_batch.batch = batch;
    by_batch.messages *= 4;
    all.contest({{"transient_batch" + tail, "transient<>, 64 by 64, " + how, "M msg/s", moody_bulk}},
                {
                    competing<small, raw_moodycamel_tokens<true>>(moody_bulk, by_batch),
                    competing<small, ours<unbounded, true, sends::waiting, true>>("transient<>, handles, send_many, pop_many", by_batch),
                });
    all.contest({{"transient_bounded" + tail, "transient<bounded<1024>>, 16 bytes, " + how, "M msg/s", boost_queue}},
                {
                    competing<small, raw_queue>(boost_queue, l),
                    competing<small, ours<bounded<places>, false, sends::trying>>("transient<bounded>, try_send", l),
                    competing<small, ours<bounded<places>, false>>("transient<bounded>, send", l),
                });
    if (l.producers == 1) {
        all.contest({{"transient_spsc" + tail, "transient<spsc<1024>>, 16 bytes, " + how, "M msg/s", boost_spsc}},
                    {
                        competing<small, raw_spsc>(boost_spsc, l),
                        competing<small, ours<spsc<places>, false, sends::trying>>("transient<spsc>, try_send", l),
                        competing<small, ours<spsc<places>, false>>("transient<spsc>, send", l),
                    });
    }
}

void one_thread(results& all) {
    const std::size_t n = all.scaled(2'000'000);
    all.contest({{"transient_alone_unbounded", "transient<> on one thread, 16 bytes", "M msg/s", moody}},
                {by_itself<raw_moodycamel>(moody, n), by_itself<ours<unbounded, false>>("transient<>", n)});
    all.contest({{"transient_alone_handles", "transient<> with handles on one thread, 16 bytes", "M msg/s", moody_tokens}},
                {by_itself<raw_moodycamel_tokens<false>>(moody_tokens, n), by_itself<ours<unbounded, true>>("transient<>, handles", n)});
    all.contest({{"transient_alone_bounded", "transient<bounded<1024>> on one thread, 16 bytes", "M msg/s", boost_queue}},
                {by_itself<raw_queue>(boost_queue, n), by_itself<ours<bounded<places>, false>>("transient<bounded>", n)});
    all.contest({{"transient_alone_spsc", "transient<spsc<1024>> on one thread, 16 bytes", "M msg/s", boost_spsc}},
                {by_itself<raw_spsc>(boost_spsc, 8 * n), by_itself<ours<spsc<places>, false>>("transient<spsc>", 8 * n)});
}

} // namespace

int main(int argc, char** argv) {
    results all("transient_bench", argc, argv);
    one_thread(all);
    for (const int n : {1, 2}) { across(all, {n, n, true, when_empty::pauses, all.scaled(2'000'000)}); }
    across(all, {1, 1, false, when_empty::pauses, all.scaled(2'000'000)});
    return all.finish();
}
