// Messages a second from publishers to subscribers, each of whom gets them all.
//
// A rival is made with the number of subscribers, and has
//   publisher(rival&, int number)     publish(Body&&); with batches also publish_some(std::vector<Body>&); if it has to, ready(): waits
//                                     until it knows all subscribers
//   subscriber(rival&, int number)    take(use) -> how many: calls use(const Body&) for each message it took; never waits
// both made by the thread that uses them. All go through the same loops. Each round has a rival of its own; an eighth of the messages goes
// through it before the clock starts. No publisher is ever more than `window` messages ahead of the slowest subscriber: what is measured is
// what publishers and subscribers keep up together, not how fast memory can be filled.
#pragma once

#include "bodies.hpp"
#include "machine.hpp"
#include "results.hpp"
#include "throughput.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

/// 1 KiB.
struct large {
    std::uint64_t sender;
    std::uint64_t number;
    std::array<std::uint64_t, 126> rest;
};
static_assert(sizeof(large) == 1024);

template <>
struct body_traits<large> {
    static large make(std::uint64_t sender, std::uint64_t number) {
        large b{sender, number, {}};
        b.rest.back() = number;
        return b;
    }
    static std::uint64_t check(const large& b) { return b.rest.back() + (b.sender << 32); }
};

struct fan {
    int publishers = 1;
    int subscribers = 1;
    int drainers = 1; // threads; each pops for as many subscribers as the others, or one more
    bool pinned = true;
    when_empty idle = when_empty::pauses;
    std::size_t messages = 0; // all publishers together
    std::size_t batch = 1;
    std::size_t window = 4096;

    std::string shape() const { return std::to_string(publishers) + "P" + std::to_string(subscribers) + "S"; }
};

namespace detail {

struct alignas(128) drained {
    std::atomic<std::size_t> least{0}; // messages that each of its subscribers has had
    clock::time_point end{};
};
struct alignas(128) published {
    std::atomic<std::size_t> messages{0};
};

inline constexpr std::size_t turn = 64; // messages: so many are popped for one subscriber, or published, before something else is looked at

/// One subscriber, and what it has had.
template <class Body, class Rival>
struct listener {
    listener(Rival& all, int number) : from(all, number) {}
    std::size_t take_turn() {
        std::size_t n = 0;
        while (n < turn) {
            const std::size_t k = from.take([this](const Body& b) { check += body_traits<Body>::check(b); });
            if (k == 0) { break; }
            n += k;
        }
        taken += n;
        return n;
    }
    void expect(std::size_t messages, std::uint64_t sum, const std::string& where) {
        if (taken != messages || check != sum) {
            give_up("messages were lost, doubled or damaged (" + where + "): a subscriber had " + std::to_string(taken) + " of " +
                    std::to_string(messages) + (check != sum ? ", not those that were published" : ""));
        }
        taken = 0;
        check = 0;
    }
    typename Rival::subscriber from;
    std::size_t taken = 0;
    std::uint64_t check = 0;
};

template <class Body, class Publisher>
void publish(Publisher& to, std::uint64_t who, std::size_t first, std::size_t n, std::vector<Body>& some) {
    if constexpr (requires { to.publish_some(some); }) {
        some.clear();
        for (std::size_t i = 0; i < n; ++i) { some.push_back(body_traits<Body>::make(who, first + i)); }
        to.publish_some(some);
    } else {
        for (std::size_t i = 0; i < n; ++i) { to.publish(body_traits<Body>::make(who, first + i)); }
    }
}

template <class Publisher>
void make_ready(Publisher& to) {
    if constexpr (requires { to.ready(); }) { to.ready(); }
}

} // namespace detail

/// Millions of publishes a second, each of which has arrived everywhere. `make()` makes a rival.
template <class Body, class Make>
double fan_out(const fan& f, Make make) {
    using rival_type = typename decltype(make())::element_type;
    const auto rival = make();
    const auto publishers = static_cast<std::size_t>(f.publishers), threads_out = static_cast<std::size_t>(std::min(f.drainers, f.subscribers));
    std::vector<detail::drained> drainers(threads_out);
    std::vector<clock::time_point> starts(publishers);
    detail::published published;
    std::barrier<> together(static_cast<std::ptrdiff_t>(publishers + threads_out));
    const std::size_t share = std::max<std::size_t>(1, f.messages / publishers / detail::turn) * detail::turn;
    const std::size_t warm = std::max<std::size_t>(1, share / 8 / detail::turn) * detail::turn;
    const auto rest = [&f](int spins) {
        if (f.idle == when_empty::yields || spins > 16) { // then what is waited for may need this core
            std::this_thread::yield();
        } else {
            for (int i = 0; i < 64; ++i) { pause(); }
        }
    };

    const auto publish_all = [&](typename rival_type::publisher& to, std::size_t who, std::size_t n) {
        std::vector<Body> some;
        some.reserve(detail::turn);
        std::size_t seen = 0; // what all subscribers have had, when it was looked at last
        for (std::size_t i = 0; i < n; i += detail::turn) {
            const std::size_t ahead = published.messages.fetch_add(detail::turn, std::memory_order_relaxed) + detail::turn;
            for (int spins = 0; ahead > seen + f.window; ++spins) {
                if (spins != 0) { rest(spins); }
                seen = drainers[0].least.load(std::memory_order_acquire);
                for (const auto& d : drainers) { seen = std::min(seen, d.least.load(std::memory_order_acquire)); }
            }
            detail::publish(to, who, i, detail::turn, some);
        }
    };
    const auto drain_all = [&](auto& mine, detail::drained& me, std::size_t all) {
        auto patience = clock::now() + std::chrono::seconds(20);
        for (int spins = 0;;) {
            std::size_t any = 0, least = all;
            for (auto& l : mine) {
                any += l->take_turn();
                least = std::min(least, l->taken);
            }
            me.least.store(least, std::memory_order_release);
            if (least == all) { break; }
            if (any != 0) {
                spins = 0;
                continue;
            }
            rest(++spins);
            if (spins % 65'536 == 0) { // nothing for a while
                if (spins == 65'536) { patience = clock::now() + std::chrono::seconds(20); }
                if (clock::now() > patience) { give_up("messages do not arrive (" + f.shape() + ")"); }
            }
        }
    };

    std::vector<std::thread> threads;
    for (std::size_t who = 0; who < publishers; ++who) {
        threads.emplace_back([&, who] {
            stand_at(f.pinned ? place::first_core : place::anywhere);
            typename rival_type::publisher to(*rival, static_cast<int>(who));
            together.arrive_and_wait(); // all have subscribed
            detail::make_ready(to);
            for (const std::size_t n : {warm, share}) {
                together.arrive_and_wait();
                starts[who] = clock::now();
                publish_all(to, who, n);
                together.arrive_and_wait();
                published.messages.store(0, std::memory_order_relaxed);
                together.arrive_and_wait();
            }
        });
    }
    for (std::size_t who = 0; who < threads_out; ++who) {
        threads.emplace_back([&, who] {
            stand_at(f.pinned ? place::second_core : place::anywhere);
            using listener = detail::listener<Body, rival_type>;
            std::vector<std::unique_ptr<listener>> mine;
            for (std::size_t s = who; s < static_cast<std::size_t>(f.subscribers); s += threads_out) {
                mine.push_back(std::make_unique<listener>(*rival, static_cast<int>(s)));
            }
            together.arrive_and_wait();
            for (const std::size_t n : {warm, share}) {
                together.arrive_and_wait();
                drain_all(mine, drainers[who], n * publishers);
                drainers[who].end = clock::now();
                std::uint64_t sum = 0;
                for (std::size_t p = 0; p < publishers; ++p) { sum += expected_check(p, n); }
                for (auto& l : mine) { l->expect(n * publishers, sum, f.shape()); }
                together.arrive_and_wait();
                drainers[who].least.store(0, std::memory_order_relaxed);
                together.arrive_and_wait();
            }
        });
    }
    for (std::thread& t : threads) { t.join(); }

    const auto start = *std::min_element(starts.begin(), starts.end());
    clock::time_point end = drainers[0].end;
    for (const auto& d : drainers) { end = std::max(end, d.end); }
    return static_cast<double>(share * publishers) / seconds(end - start) / 1e6;
}

/// Millions of publishes a second in one thread: publishes 256, pops them for one subscriber after the other, and so on.
template <class Body, class Make>
double fan_out_alone(int subscribers, std::size_t messages, Make make) {
    using rival_type = typename decltype(make())::element_type;
    using listener = detail::listener<Body, rival_type>;
    constexpr std::size_t at_once = 256;
    double figure = 0;
    std::thread alone([&] {
        stand_at(place::first_core);
        const auto rival = make();
        typename rival_type::publisher to(*rival, 0);
        std::vector<std::unique_ptr<listener>> all;
        for (int s = 0; s < subscribers; ++s) { all.push_back(std::make_unique<listener>(*rival, s)); }
        detail::make_ready(to);
        std::vector<Body> some;
        some.reserve(at_once);
        for (const std::size_t share : {messages / 8, messages}) {
            const std::size_t n = std::max<std::size_t>(1, share / at_once) * at_once;
            const auto start = clock::now();
            for (std::size_t i = 0; i < n; i += at_once) {
                detail::publish(to, 0, i, at_once, some);
                for (auto& l : all) {
                    while (l->take_turn() != 0) {}
                }
            }
            figure = static_cast<double>(n) / seconds(clock::now() - start) / 1e6;
            for (auto& l : all) { l->expect(n, expected_check(0, n), "one thread"); }
        }
    });
    alone.join();
    return figure;
}

/// Contestants in such contests. `args`: what the rival is made with, after the number of subscribers.
template <class Body, class Rival, class... Args>
contestant fanning(std::string name, const fan& f, const Args&... args) {
    return {std::move(name),
            [f, args...] { return std::vector<double>{fan_out<Body>(f, [&] { return std::make_unique<Rival>(f.subscribers, args...); })}; }};
}
template <class Body, class Rival>
contestant fanning_alone(std::string name, int subscribers, std::size_t messages) {
    return {std::move(name), [subscribers, messages] {
                return std::vector<double>{fan_out_alone<Body>(subscribers, messages, [&] { return std::make_unique<Rival>(subscribers); })};
            }};
}

} // namespace bench
