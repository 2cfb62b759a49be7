// How much memory do messages that wait take, and queues that do not do anything? How many threads?
//
// Counted are the bytes the allocator has handed out, its own overhead included (glibc's mallinfo2), and the pages the process has (resident).
#include "support/bodies.hpp"
#include "support/machine.hpp"
#include "support/ours.hpp"
#include "support/process.hpp"
#include "support/results.hpp"
#include "support/rivals.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace bench;

template <class Queue>
void push(Queue& q, std::uint64_t i) {
    if constexpr (requires { q.queue.send(small{}); }) {
        q.queue.send(small{0, i});
    } else if constexpr (requires { q.push(small{}); }) {
        q.push(small{0, i});
    } else {
        q.queue.enqueue(small{0, i});
    }
}
template <class Queue>
bool pop(Queue& q) {
    if constexpr (requires { q.queue.try_receive(); }) {
        auto d = q.queue.try_receive();
        return d && d->ack();
    } else if constexpr (requires { q.try_pop(); }) {
        return q.try_pop().has_value();
    } else {
        small b{};
        return q.queue.try_dequeue(b);
    }
}

// Bytes of `n` messages that wait, each; then what is left when they are gone, in KiB: allocated, and resident above what was before.
template <class Queue>
std::vector<double> backlog(std::size_t n) {
    give_back();
    const auto q = std::make_unique<Queue>();
    push(*q, 0);
    pop(*q);
    const double before = allocated(), pages_before = resident();
    for (std::size_t i = 0; i < n; ++i) { push(*q, i); }
    const double full = allocated(), pages_full = resident();
    std::size_t taken = 0;
    while (pop(*q)) { ++taken; }
    if (taken != n) { give_up("messages were lost or doubled (backlog)"); }
    const double left = allocated() - before;
    give_back();
    return {(full - before) / static_cast<double>(n), (pages_full - pages_before) / static_cast<double>(n), std::max(0.0, left / 1024),
            std::max(0.0, (resident() - pages_before) / 1024)};
}

// Bytes of each of `n` queues: never used, after 100 messages, after 1000.
template <class Queue>
std::vector<double> idle(std::size_t n) {
    give_back();
    std::vector<double> all;
    const double threads_before = threads_running();
    for (const std::size_t messages : {std::size_t{0}, std::size_t{100}, std::size_t{1000}}) {
        std::vector<std::unique_ptr<Queue>> queues;
        queues.reserve(n);
        const double before = allocated();
        for (std::size_t i = 0; i < n; ++i) { queues.push_back(std::make_unique<Queue>()); }
        for (const auto& q : queues) {
            for (std::size_t i = 0; i < messages; ++i) { push(*q, i); }
            std::size_t taken = 0;
            while (pop(*q)) { ++taken; }
            if (taken != messages) { give_up("messages were lost or doubled (idle)"); }
        }
        all.push_back((allocated() - before) / static_cast<double>(n));
        if (messages == 0) { all.push_back(threads_running() - threads_before); }
    }
    return all;
}

} // namespace

int main(int argc, char** argv) {
    results all("footprint_bench", argc, argv);
#if !defined(__GLIBC__)
    std::puts("the bytes of the allocator are known with glibc only");
#endif
    const auto run = [&](const std::vector<table>& tables, const std::vector<contestant>& who) {
        std::vector<table> filled = tables;
        if (!all.wants(tables.front().name)) { return; }
        const std::size_t rounds = std::min<std::size_t>(3, all.rounds()); // the same each time
        for (std::size_t k = 0; k < who.size(); ++k) {
            for (table& t : filled) { t.rows.push_back({who[k].name, {}}); }
            for (std::size_t round = 0; round < rounds; ++round) {
                const std::vector<double> figures = who[k].run();
                for (std::size_t i = 0; i < filled.size(); ++i) { filled[i].rows[k].figures.push_back(figures[i]); }
            }
        }
        for (table& t : filled) { all.add(std::move(t)); }
    };

    const std::size_t waiting = all.quick() ? 100'000 : 1'000'000, queues = all.quick() ? 1'000 : 10'000;
    const std::string million = all.quick() ? "100,000" : "a million", many = all.quick() ? "1,000" : "10,000";
    run({{"waiting_bytes", million + " messages of 16 bytes wait", "bytes/msg", "", false},
         {"waiting_resident", million + " messages of 16 bytes wait: pages of the process", "bytes/msg", "", false},
         {"burst_left", "allocated when " + million + " messages have come and gone", "KiB", "", false},
         {"burst_resident", "pages of the process when " + million + " messages have come and gone, above before", "KiB", "", false}},
        {
            {"queue", [=] { return backlog<our_queue<small>>(waiting); }},
                {"mutex + deque + condvar", [=] { return backlog<mutex_and_deque<small>>(waiting); }},
#if MAILROOM_BENCH_MOODYCAMEL
                {"moodycamel", [=] { return backlog<moody<small>>(waiting); }},
#endif
        });
    run({{"idle_never_used", many + " queues, never used", "bytes/queue", "", false},
         {"idle_threads", "threads of " + many + " queues", "threads", "", false},
         {"idle_drained_100", many + " queues, 100 messages received and acked", "bytes/queue", "", false},
         {"idle_drained_1000", many + " queues, 1000 messages received and acked", "bytes/queue", "", false}},
        {
            {"queue", [=] { return idle<our_queue<small>>(queues); }},
                {"mutex + deque + condvar", [=] { return idle<mutex_and_deque<small>>(queues); }},
#if MAILROOM_BENCH_MOODYCAMEL
                {"moodycamel", [=] { return idle<moody<small>>(queues); }},
#endif
        });
    return all.finish();
}
