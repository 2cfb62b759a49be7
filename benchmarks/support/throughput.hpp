// Messages a second through a queue: senders on one core and receivers on the other, or all anywhere.
//
// A rival is a type with `producer` and `consumer`, made for each thread:
//   producer(rival&, int number)    send(Body&&); with batches also send_some(std::vector<Body>&)
//   consumer(rival&, int number)    take(use) -> how many: calls use(const Body&) for each message it took; never waits
// All go through the same loops. Each round has a queue of its own; an eighth of the messages goes through it before the clock starts.
#pragma once

#include "bodies.hpp"
#include "machine.hpp"
#include "results.hpp"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace bench {

/// What a receiver does that finds nothing.
enum class when_empty { pauses, yields };

struct load {
    int producers = 1;
    int consumers = 1;
    bool pinned = true;
    when_empty idle = when_empty::pauses;
    std::size_t messages = 0; // all senders together
    std::size_t batch = 1;

    std::string shape() const { return std::to_string(producers) + "P" + std::to_string(consumers) + "C"; }
};

namespace detail {

struct alignas(128) worker {
    std::atomic<std::size_t> taken{0};
    std::uint64_t check = 0;
    clock::time_point start{};
    clock::time_point end{};
};

} // namespace detail

/// Millions of messages a second. `make()` makes a rival.
template <class Body, class Make>
double throughput(const load& l, Make make) {
    using rival_type = typename decltype(make())::element_type;
    using traits = body_traits<Body>;
    const auto rival = make();
    const auto producers = static_cast<std::size_t>(l.producers), consumers = static_cast<std::size_t>(l.consumers);
    std::vector<detail::worker> senders(producers), receivers(consumers);
    std::atomic<std::size_t> sending{0};
    std::barrier<> together(static_cast<std::ptrdiff_t>(producers + consumers));
    const std::size_t batch = std::max<std::size_t>(1, l.batch);
    const std::size_t share = std::max<std::size_t>(1, l.messages / producers / batch) * batch;
    const std::size_t warm = std::max<std::size_t>(1, share / 8 / batch) * batch;

    const auto send = [&](typename rival_type::producer& to, std::size_t who, std::size_t n) {
        if constexpr (requires(std::vector<Body> & some) { to.send_some(some); }) {
            std::vector<Body> some;
            some.reserve(batch);
            for (std::size_t i = 0; i < n; i += batch) {
                some.clear();
                for (std::size_t k = 0; k < batch; ++k) { some.push_back(traits::make(who, i + k)); }
                to.send_some(some);
            }
        } else {
            for (std::size_t i = 0; i < n; ++i) { to.send(traits::make(who, i)); }
        }
        sending.fetch_sub(1);
    };
    const auto receive = [&](typename rival_type::consumer& from, detail::worker& me, std::size_t all) {
        std::size_t taken = 0;
        std::uint64_t check = 0;
        for (;;) {
            const std::size_t n = from.take([&check](const Body& b) { check += traits::check(b); });
            if (n != 0) {
                me.taken.store(taken += n, std::memory_order_relaxed);
                continue;
            }
            if (sending.load(std::memory_order_relaxed) == 0) {
                std::size_t sum = 0;
                for (const detail::worker& r : receivers) { sum += r.taken.load(std::memory_order_relaxed); }
                if (sum >= all) { break; }
            }
            if (l.idle == when_empty::yields) {
                std::this_thread::yield();
            } else {
                for (int i = 0; i < 64; ++i) { pause(); }
            }
        }
        me.check = check;
    };

    std::vector<std::thread> threads;
    for (std::size_t who = 0; who < producers; ++who) {
        threads.emplace_back([&, who] {
            stand_at(l.pinned ? place::first_core : place::anywhere);
            typename rival_type::producer to(*rival, static_cast<int>(who));
            for (const std::size_t n : {warm, share}) {
                sending.fetch_add(1);
                together.arrive_and_wait();
                senders[who].start = clock::now();
                send(to, who, n);
                together.arrive_and_wait();
            }
        });
    }
    for (std::size_t who = 0; who < consumers; ++who) {
        threads.emplace_back([&, who] {
            stand_at(l.pinned ? place::second_core : place::anywhere);
            typename rival_type::consumer from(*rival, static_cast<int>(who));
            for (const std::size_t n : {warm, share}) {
                receivers[who].taken.store(0, std::memory_order_relaxed);
                together.arrive_and_wait();
                receive(from, receivers[who], n * producers);
                receivers[who].end = clock::now();
                together.arrive_and_wait();
            }
        });
    }
    for (std::thread& t : threads) { t.join(); }

    std::size_t taken = 0;
    std::uint64_t check = 0, expected = 0;
    clock::time_point start = clock::time_point::max(), end = clock::time_point::max();
    for (std::size_t who = 0; who < producers; ++who) {
        expected += expected_check(who, share);
        start = std::min(start, senders[who].start);
    }
    for (const detail::worker& r : receivers) {
        taken += r.taken.load();
        check += r.check;
        end = std::min(end, r.end); // the first who saw that all were taken: the others may have to wait for a core to see it
    }
    if (taken != share * producers || check != expected) { give_up("messages were lost, doubled or damaged (" + l.shape() + ")"); }
    return static_cast<double>(taken) / seconds(end - start) / 1e6;
}

/// A contestant in such a contest.
template <class Body, class Rival, class... Args>
contestant competing(std::string name, const load& l, const Args&... args) {
    return {std::move(name), [l, args...] { return std::vector<double>{throughput<Body>(l, [&] { return std::make_unique<Rival>(args...); })}; }};
}

} // namespace bench
