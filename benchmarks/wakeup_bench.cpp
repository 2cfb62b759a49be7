// What does waiting cost: how many messages a second reach receivers that block, and how long does a sleeper take to wake?
//
//   blocking     receivers wait inside the queue (no polling), threads wherever the system puts them
//   round trip   two threads, two queues, one message to and fro; both on one core, on two cores, anywhere
//   sleeper      one way, to a receiver that has been waiting for 100 us and sleeps in the kernel by then
#include "support/bodies.hpp"
#include "support/machine.hpp"
#include "support/ours.hpp"
#include "support/results.hpp"
#include "support/rivals.hpp"
#include "support/throughput.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace bench;

// A way to block: `consumer::wait(use)` waits for a message; false: closed and nothing is left.

struct waiting_pop : our_queue<small> {
    struct consumer : our_queue<small>::consumer {
        using our_queue<small>::consumer::consumer;
        template <class Use>
        bool wait(Use use) {
            const auto m = from.pop();
            if (m) { use(**m); }
            return m.has_value();
        }
    };
    void close(int, std::size_t) { queue.close(); }
};

struct waiting_receive : our_queue<small> {
    struct consumer : our_queue<small>::consumer {
        using our_queue<small>::consumer::consumer;
        template <class Use>
        bool wait(Use use) {
            auto d = from.receive();
            if (!d) { return false; }
            use(**d);
            d->ack();
            return true;
        }
    };
    void close(int, std::size_t) { queue.close(); }
};

struct waiting_deque : mutex_and_deque<small> {
    struct consumer : mutex_and_deque<small>::consumer {
        using mutex_and_deque<small>::consumer::consumer;
        template <class Use>
        bool wait(Use use) {
            const auto b = from.pop();
            if (b) { use(*b); }
            return b.has_value();
        }
    };
    void close(int, std::size_t) { mutex_and_deque<small>::close(); }
};

#if MAILROOM_BENCH_MOODYCAMEL
// It cannot be closed: a last message for each receiver says so. It may overtake others, so what is left then is polled for and counted.
template <bool Tokens>
struct waiting_moody {
    static constexpr std::uint64_t last = ~std::uint64_t{0};
    moodycamel::BlockingConcurrentQueue<small> queue;
    std::atomic<std::size_t> all{0}, counted{0}; // messages; of those, by receivers that saw the end

    struct producer {
        producer(waiting_moody& q, int) : to(q.queue), token(q.queue) {}
        void send(small&& b) {
            if constexpr (Tokens) {
                to.enqueue(token, b);
            } else {
                to.enqueue(b);
            }
        }
        moodycamel::BlockingConcurrentQueue<small>& to;
        moodycamel::ProducerToken token;
    };
    struct consumer {
        consumer(waiting_moody& q, int) : way(q), from(q.queue), token(q.queue) {}
        template <class Use>
        bool wait(Use use) {
            if (!ending) {
                if constexpr (Tokens) {
                    from.wait_dequeue(token, into);
                } else {
                    from.wait_dequeue(into);
                }
                if (into.sender != last) {
                    use(into);
                    ++taken;
                    return true;
                }
                ending = true;
                way.counted += taken;
            }
            while (way.counted != way.all) {
                if (from.try_dequeue(into)) {
                    if (into.sender != last) {
                        use(into);
                        ++way.counted;
                        return true;
                    }
                    from.enqueue(into); // another's
                }
                std::this_thread::yield();
            }
            return false;
        }
        waiting_moody& way;
        moodycamel::BlockingConcurrentQueue<small>& from;
        moodycamel::ConsumerToken token;
        small into{};
        std::size_t taken = 0;
        bool ending = false;
    };
    void close(int consumers, std::size_t messages) {
        all = messages;
        for (int i = 0; i < consumers; ++i) { queue.enqueue({last, 0}); }
    }
};
#endif

// One word and a futex: the least that can be. Holds one message; for the round trips only.
struct one_word {
    std::atomic<std::uint64_t> number{0}; // plus one; 0: none

    struct producer {
        producer(one_word& w, int) : to(w) {}
        void send(small&& b) {
            to.number.store(b.number + 1, std::memory_order_release);
            to.number.notify_one();
        }
        one_word& to;
    };
    struct consumer {
        consumer(one_word& w, int) : from(w) {}
        template <class Use>
        bool wait(Use use) {
            from.number.wait(0, std::memory_order_acquire);
            const std::uint64_t n = from.number.load(std::memory_order_acquire);
            from.number.store(0, std::memory_order_relaxed);
            use(small{0, n - 1});
            return true;
        }
        one_word& from;
    };
};

template <class Way>
double blocking(const load& l) {
    const auto all = std::make_unique<Way>();
    const auto producers = static_cast<std::size_t>(l.producers), consumers = static_cast<std::size_t>(l.consumers);
    const std::size_t share = l.messages / producers;
    std::vector<std::size_t> taken(consumers);
    std::vector<std::uint64_t> checks(consumers);
    std::atomic<std::size_t> ready{0};
    std::atomic<bool> go{false};
    const auto gather = [&] {
        stand_at(l.pinned ? place::first_core : place::anywhere);
        ready.fetch_add(1);
        go.wait(false);
    };
    std::vector<std::thread> senders, receivers;
    for (std::size_t who = 0; who < producers; ++who) {
        senders.emplace_back([&, who] {
            typename Way::producer to(*all, static_cast<int>(who));
            gather();
            for (std::size_t i = 0; i < share; ++i) { to.send(small{who, i}); }
        });
    }
    for (std::size_t who = 0; who < consumers; ++who) {
        receivers.emplace_back([&, who] {
            typename Way::consumer from(*all, static_cast<int>(who));
            gather();
            if (l.pinned) { stand_at(place::second_core); }
            std::size_t n = 0;
            std::uint64_t check = 0;
            while (from.wait([&check](const small& b) { check += body_traits<small>::check(b); })) { ++n; }
            taken[who] = n;
            checks[who] = check;
        });
    }
    while (ready.load() != producers + consumers) { std::this_thread::yield(); }
    const auto start = clock::now();
    go.store(true);
    go.notify_all();
    for (std::thread& t : senders) { t.join(); }
    all->close(l.consumers, share * producers);
    for (std::thread& t : receivers) { t.join(); }
    const auto end = clock::now();

    std::size_t sum = 0;
    std::uint64_t check = 0, expected = 0;
    for (std::size_t who = 0; who < producers; ++who) { expected += expected_check(who, share); }
    for (std::size_t who = 0; who < consumers; ++who) {
        sum += taken[who];
        check += checks[who];
    }
    if (sum != share * producers || check != expected) { give_up("messages were lost, doubled or damaged (blocking)"); }
    return static_cast<double>(sum) / seconds(end - start) / 1e6;
}

enum class where { one_core, two_cores, anywhere };

void stand(where w, bool first) {
    stand_at(w == where::anywhere ? place::anywhere : w == where::one_core || first ? place::first_core : place::second_core);
}

// p50 and p99 of the round trip, in microseconds.
template <class Way>
std::vector<double> round_trip(where w, std::size_t trips) {
    const auto there = std::make_unique<Way>(), back = std::make_unique<Way>();
    std::uint64_t wrong = 0;
    std::thread other([&] {
        stand(w, false);
        typename Way::consumer from(*there, 0);
        typename Way::producer to(*back, 0);
        for (std::size_t i = 0; i < trips; ++i) {
            small got{};
            from.wait([&got](const small& b) { got = b; });
            to.send(small{got});
        }
    });
    stand(w, true);
    std::vector<double> times(trips);
    {
        typename Way::consumer from(*back, 0);
        typename Way::producer to(*there, 0);
        for (std::size_t i = 0; i < trips; ++i) {
            const auto start = clock::now();
            to.send(small{0, i});
            from.wait([&](const small& b) { wrong += b.number != i; });
            times[i] = seconds(clock::now() - start) * 1e6;
        }
        other.join();
    }
    stand_at(place::anywhere);
    if (wrong != 0) { give_up("a round trip brought back something else"); }
    return {percentile(times, 0.5), percentile(times, 0.99)};
}

// p50 and p99 of the way to a receiver that sleeps, in microseconds.
template <class Way>
std::vector<double> to_sleeper(where w, std::size_t messages) {
    const auto queue = std::make_unique<Way>();
    std::vector<clock::time_point> sent(messages), got(messages);
    std::atomic<std::size_t> arrived{0};
    std::thread sleeper([&] {
        stand(w, false);
        typename Way::consumer from(*queue, 0);
        for (std::size_t i = 0; i < messages; ++i) {
            from.wait([](const small&) {});
            got[i] = clock::now();
            arrived.store(i + 1);
        }
    });
    stand(w, true);
    {
        typename Way::producer to(*queue, 0);
        for (std::size_t i = 0; i < messages; ++i) {
            while (arrived.load() != i) { std::this_thread::yield(); }
            for (const auto until = clock::now() + std::chrono::microseconds(100); clock::now() < until;) {
                if (w != where::two_cores) { std::this_thread::yield(); }
            }
            sent[i] = clock::now();
            to.send(small{0, i});
        }
        sleeper.join();
    }
    stand_at(place::anywhere);
    std::vector<double> times(messages);
    for (std::size_t i = 0; i < messages; ++i) { times[i] = seconds(got[i] - sent[i]) * 1e6; }
    return {percentile(times, 0.5), percentile(times, 0.99)};
}

} // namespace

int main(int argc, char** argv) {
    results all("wakeup_bench", argc, argv);
    for (const bool pinned : {false, true}) {
        for (const int n : {1, 2, 4}) {
            const load l{n, n, pinned, when_empty::pauses, all.scaled(500'000)};
            const auto one = [&]<class Way>(std::string name, std::type_identity<Way>) {
                return contestant{std::move(name), [l] { return std::vector<double>{blocking<Way>(l)}; }};
            };
            all.contest(
                {{std::string("blocking_") + (pinned ? "pinned_" : "unpinned_") + l.shape(),
                  "receivers block, 16 bytes, " + l.shape() + (pinned ? ", pinned" : ", unpinned"), "M msg/s", "moodycamel Blocking + tokens"}},
                {
                    one("send, pop", std::type_identity<waiting_pop>()), one("send, receive, ack", std::type_identity<waiting_receive>()),
                        one("mutex + deque + condvar", std::type_identity<waiting_deque>()),
#if MAILROOM_BENCH_MOODYCAMEL
                        one("moodycamel Blocking", std::type_identity<waiting_moody<false>>()),
                        one("moodycamel Blocking + tokens", std::type_identity<waiting_moody<true>>()),
#endif
                });
        }
    }
    for (const auto& [w, name, text] : {std::tuple(where::one_core, "same_core", "both threads on one core"),
                                        std::tuple(where::two_cores, "across", "each thread on a core of its own"),
                                        std::tuple(where::anywhere, "anywhere", "threads wherever the system puts them")}) {
        const auto tables = [&](std::string kind, const std::string& title) {
            std::vector<table> both;
            for (const char* which : {"p50", "p99"}) {
                both.push_back({kind + "_" + name + "_" + which, title + ", " + which + ", " + text, "us", "mutex + deque + condvar", false});
            }
            return both;
        };
        const std::size_t trips = all.scaled(16'000), messages = all.scaled(1'600);
        all.contest(tables("round_trip", "round trip of a message through two queues"), {
            {"send, pop", [=, at = w] { return round_trip<waiting_pop>(at, trips); }},
                {"send, receive, ack", [=, at = w] { return round_trip<waiting_receive>(at, trips); }},
                {"mutex + deque + condvar", [=, at = w] { return round_trip<waiting_deque>(at, trips); }},
                {"std::atomic::wait", [=, at = w] { return round_trip<one_word>(at, trips); }},
#if MAILROOM_BENCH_MOODYCAMEL
                {"moodycamel Blocking + tokens", [=, at = w] { return round_trip<waiting_moody<true>>(at, trips); }},
#endif
        });
        all.contest(tables("sleeper", "one way, to a receiver asleep for 100 us"), {
            {"send, pop", [=, at = w] { return to_sleeper<waiting_pop>(at, messages); }},
                {"send, receive, ack", [=, at = w] { return to_sleeper<waiting_receive>(at, messages); }},
                {"mutex + deque + condvar", [=, at = w] { return to_sleeper<waiting_deque>(at, messages); }},
                {"std::atomic::wait", [=, at = w] { return to_sleeper<one_word>(at, messages); }},
#if MAILROOM_BENCH_MOODYCAMEL
                {"moodycamel Blocking + tokens", [=, at = w] { return to_sleeper<waiting_moody<true>>(at, messages); }},
#endif
        });
    }
    return all.finish();
}
