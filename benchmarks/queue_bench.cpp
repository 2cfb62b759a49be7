// How many messages a second go through a queue in memory, next to what else a program could use?
//
// send + pop and receive + ack, one by one and 64 by 64, 16 bytes and strings of 64 characters, with and without a bound; 1, 2 and 4
// senders and as many receivers; pinned (senders on one core, receivers on the other) and wherever the system puts them.
#include "support/ours.hpp"
#include "support/results.hpp"
#include "support/rivals.hpp"
#include "support/throughput.hpp"

#include <string>
#include <vector>

namespace {

using namespace bench;

const std::string moody_tokens = "moodycamel + tokens";

std::string how(const load& l) {
    return l.shape() + ", " + (l.pinned ? "pinned" : "unpinned") + (l.idle == when_empty::yields ? ", receivers yield" : "");
}
std::string name_of(const char* what, const load& l) {
    return std::string(what) + (l.pinned ? "_pinned_" : "_unpinned_") + l.shape() + (l.idle == when_empty::yields ? "_yield" : "");
}

template <class Body>
mailroom::queue_options<Body> at_most(std::size_t messages) {
    mailroom::queue_options<Body> o;
    o.max_messages = messages;
    return o;
}

void one_by_one(results& all, const load& l) {
    std::vector<contestant> who {
        competing<small, ours_popped<small>>("send, pop", l), competing<small, ours_received<small>>("send, receive, ack", l),
            competing<small, mutex_and_deque<small>>("mutex + deque + condvar", l),
#if MAILROOM_BENCH_MOODYCAMEL
            competing<small, moody<small>>("moodycamel", l), competing<small, moody_with_tokens<small>>(moody_tokens, l),
#endif
    };
    if (l.idle == when_empty::pauses) {
        who.insert(who.begin() + 2, competing<small, ours_popped<small>>("the same, max_messages never reached", l, at_most<small>(l.messages * 2)));
        who.insert(who.begin() + 3, competing<small, ours_popped<small>>("the same, max_messages = 1024", l, at_most<small>(1024)));
        who[2].name = "send, pop, max_messages never reached";
        who[3].name = "send, pop, max_messages = 1024";
#if MAILROOM_BENCH_BOOST
        who.push_back(competing<small, boost_queue<small>>("Boost.Lockfree queue", l));
#endif
#if MAILROOM_BENCH_TBB
        who.push_back(competing<small, tbb_queue<small>>("oneTBB concurrent_queue", l));
#endif
#if MAILROOM_BENCH_ZEROMQ
        if (l.producers < 4) { who.push_back(competing<small, zeromq_inproc<small>>("ZeroMQ inproc", l, l.consumers)); }
#endif
    }
    all.contest({{name_of("small", l), "16 bytes, one by one, " + how(l), "M msg/s", moody_tokens}}, who);
}

void batches(results& all, const load& l) {
    all.contest({{name_of("batch", l), "16 bytes, 64 by 64, " + how(l), "M msg/s", "moodycamel bulk + tokens"}}, {
        competing<small, ours_popped_in_batches<small>>("send_many, pop_many", l),
            competing<small, ours_received_in_batches<small>>("send_many, receive_many, ack", l),
#if MAILROOM_BENCH_MOODYCAMEL
            competing<small, moody_in_batches<small, false>>("moodycamel bulk", l),
            competing<small, moody_in_batches<small, true>>("moodycamel bulk + tokens", l),
#endif
    });
}

void strings(results& all, const load& l) {
    using text = std::string;
    all.contest({{name_of("string", l), "strings of 64, one by one, " + how(l), "M msg/s", moody_tokens}}, {
        competing<text, ours_popped<text>>("send, pop", l), competing<text, ours_received<text>>("send, receive, ack", l),
            competing<text, mutex_and_deque<text>>("mutex + deque + condvar", l),
#if MAILROOM_BENCH_MOODYCAMEL
            competing<text, moody<text>>("moodycamel", l), competing<text, moody_with_tokens<text>>(moody_tokens, l),
#endif
#if MAILROOM_BENCH_TBB
            competing<text, tbb_queue<text>>("oneTBB concurrent_queue", l),
#endif
    });
}

} // namespace

int main(int argc, char** argv) {
    results all("queue_bench", argc, argv);
    for (const bool pinned : {true, false}) {
        for (const int n : {1, 2, 4}) {
            one_by_one(all, {n, n, pinned, when_empty::pauses, all.scaled(1'000'000)});
            one_by_one(all, {n, n, pinned, when_empty::yields, all.scaled(1'000'000)});
            batches(all, {n, n, pinned, when_empty::pauses, all.scaled(4'000'000), batch_size});
            if (n < 4) { strings(all, {n, n, pinned, when_empty::pauses, all.scaled(500'000)}); }
        }
    }
    return all.finish();
}
