// Several workers on one queue, and still each customer's messages one after the other and in order: `ordered_by_key`.
#include <mailroom/mailroom.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

struct step {
    std::size_t customer = 0;
    int number = 0;
};

int work_a_little(int seed) {
    for (int i = 0; i < 20'000; ++i) { seed = (seed * 31 + i) % 1'000'003; }
    return seed;
}

int main() {
    constexpr std::array customers{"ann", "bob", "cem", "dee"};
    constexpr int steps = 500;

    mailroom::queue<step> work({.ordered_by_key = true});
    for (int number = 0; number < steps; ++number) {
        for (std::size_t c = 0; c < customers.size(); ++c) { work.send({c, number}, {.key = customers[c]}); }
    }

    // No lock: two messages of one customer are never handled at once, and the second sees all that the first did.
    std::array<std::vector<int>, customers.size()> seen;
    std::array<long, customers.size()> results{};
    std::mutex mutex;
    std::set<std::thread::id> threads;

    // The handler returns: acknowledged. It throws: the message comes again. Two threads now, up to four when there is a backlog.
    auto workers = work.consume(
        [&](const step& s) {
            results[s.customer] += work_a_little(s.number);
            seen[s.customer].push_back(s.number);
            const std::lock_guard lock(mutex);
            threads.insert(std::this_thread::get_id());
        },
        {.concurrency = {.min = 2, .max = 4}});
    const bool done = work.drain(10s); // takes nothing new, and waits until all is acknowledged

    bool in_order = true;
    for (std::size_t c = 0; c < customers.size(); ++c) {
        for (int number = 0; number < steps; ++number) {
            in_order = in_order && seen[c].size() == steps && seen[c][static_cast<std::size_t>(number)] == number;
        }
        std::printf("%s: %zu steps, the first %d, the last %d\n", customers[c], seen[c].size(), seen[c].front(), seen[c].back());
    }
    std::printf("drained: %s, in order: %s, handled by %zu thread(s)\n", done ? "yes" : "no", in_order ? "yes" : "NO", threads.size());
    return done && in_order ? 0 : 1;
}
