// Many threads on one queue: whatever they are told must be what a queue that does one thing at a time could have said.
//
// What is tried here is the memory order of the stream and the cursor: that an offset is taken once, that a message is seen whole and after
// its send, that `nothing` is said only of an empty queue (or behind a send that has not returned), that what was settled is settled once
// and what came back is found at its place, that close is one moment for everybody.
#include "support/history.hpp"
#include "support/random.hpp"
#include "support/recorder.hpp"
#include "support/shaking.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

using namespace support;

namespace {

/// The two ways through the cursor, with and without a bound.
template <class T>
mailroom::queue_options<T> draw_options(dice& d, plan& p) {
    static shaking_clock clock;
    mailroom::queue_options<T> o;
    if (d.percent(50)) { o.clock = &clock; }
    o.retry.max_attempts = 0;
    o.lease = d.percent(50) ? std::chrono::hours(1) : std::chrono::hours(0);
    switch (d.below(5)) {
    case 0: o.priorities = 3; break;
    case 1: o.ordered_by_key = true; break;
    default: break;
    }
    if (d.percent(25)) {
        p.max_messages = o.max_messages = 4 + d.below(3);
        o.overflow = mailroom::overflow::reject;
    }
    return o;
}

constexpr int batch = 40;

struct tally {
    std::size_t histories = 0, calls = 0, overlapping = 0;
};

/// Makes a batch of histories and checks them.
template <class T>
bool check(crew& threads, std::uint64_t seed, tally& done) {
    dice d(seed);
    const int size = d.percent(60) ? 2 : d.between(3, 4);
    std::vector<std::unique_ptr<experiment<T, mailroom::queue<T>>>> list;
    std::vector<std::string> settings;
    for (int i = 0; i < batch; ++i) {
        plan p = draw_plan(d, size);
        const auto options = draw_options<T>(d, p);
        settings.push_back("priorities " + std::to_string(options.priorities) + " ordered_by_key " + std::to_string(options.ordered_by_key) +
                           " max_messages " + std::to_string(options.max_messages));
        list.push_back(std::make_unique<experiment<T, mailroom::queue<T>>>(p, seed * batch + static_cast<std::uint64_t>(i), options));
    }
    perform(threads, size, list);
    for (std::size_t i = 0; i < list.size(); ++i) {
        const history& h = list[i]->finish();
        done.histories += 1, done.calls += h.calls.size(), done.overlapping += overlapping(h);
        if (linearizability::check(h)) { continue; }
        FAIL_CHECK("MAILROOM_TEST_SEED=", seed, " (the same calls, hardly the same interleaving) ", settings[i], "\n", text_of(h));
        return false;
    }
    list.clear();
    const bool bodies_are_well = tracked::live() == 0 && tracked::faults() == 0;
    CHECK(bodies_are_well);
    return bodies_are_well;
}

} // namespace

TEST_CASE("queue: concurrent histories are linearizable") {
    crew threads(4);
    tally done;
    for_each_seed(10'000 / batch, [&](std::uint64_t seed) { return check<int>(threads, seed, done); });
    for_each_seed(10'000 / batch, [&](std::uint64_t seed) { return check<tracked>(threads, seed, done); });
    MESSAGE(done.histories, " histories of ", done.calls, " calls, ", done.overlapping, " of which overlapped one of another thread");
}
