// So many threads that do something for a while: what waits for a disk takes very different times, so a round is bounded by time, and by
// how much it may store.
#pragma once

#include "journal_rivals.hpp"
#include "machine.hpp"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

struct timed {
    int threads = 1;
    std::size_t length = 100; // of a body
    double limit_seconds = 0.4;
    std::size_t most = 0;        // messages, all threads together
    std::size_t clock_every = 1; // calls: what takes no longer than looking at the clock does not look each time
};

struct outcome {
    std::uint64_t messages = 0;
    std::uint64_t check = 0; // what the bodies add up to
    double took = 0;
    double per_second() const { return static_cast<double>(messages) / took; }
};

/// Each thread calls `work(who, from, n)`, which sends messages `from`... of sender `who`, `step` at a time, until the time is over; then `end(who)`.
template <class Work, class End>
outcome run_for(const timed& t, std::size_t step, Work work, End end) {
    struct alignas(128) one {
        std::uint64_t messages = 0;
        clock::time_point start, end;
    };
    const auto threads = static_cast<std::size_t>(t.threads);
    std::vector<one> all(threads);
    std::barrier<> together(static_cast<std::ptrdiff_t>(threads));
    const std::uint64_t share = std::max<std::uint64_t>(step, t.most / threads / step * step);
    const auto limit = std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(t.limit_seconds));
    settle_disk();
    std::vector<std::thread> running;
    for (std::size_t who = 0; who < threads; ++who) {
        running.emplace_back([&, who] {
            stand_at(place::anywhere);
            one& me = all[who];
            together.arrive_and_wait();
            me.start = clock::now();
            const auto until = me.start + limit;
            while (me.messages < share) {
                const std::uint64_t some = std::min<std::uint64_t>(share - me.messages, t.clock_every * step);
                for (std::uint64_t done = 0; done < some; done += step) { work(who, me.messages + done, step); }
                me.messages += some;
                if (clock::now() >= until) { break; }
            }
            end(who);
            me.end = clock::now();
        });
    }
    for (std::thread& r : running) { r.join(); }
    outcome sum;
    clock::time_point start = clock::time_point::max(), last = clock::time_point::min();
    for (std::size_t who = 0; who < threads; ++who) {
        sum.messages += all[who].messages;
        sum.check += expected_check(who, all[who].messages);
        start = std::min(start, all[who].start);
        last = std::max(last, all[who].end);
    }
    sum.took = seconds(last - start);
    return sum;
}

/// Ends the program where what came is not what was sent.
inline void compare(const outcome& sent, const tally& came, const std::string& who) {
    if (came != tally{sent.messages, sent.check}) {
        give_up(who + ": messages were lost, doubled or damaged: " + std::to_string(sent.messages) + " sent, " + std::to_string(came.messages) + " came");
    }
}

} // namespace bench
