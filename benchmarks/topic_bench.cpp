// What does it cost to give each message to many, next to what else a program could use?
//
// publish to 1, 8 and 32 subscribers, 16 bytes and 1 KiB, one and four publishers; subscribers that share one thread, have one each, or are
// drained by the thread that publishes; 64 at a time. Pinned (publishers on one core, subscribers on the other) and wherever the system puts
// them. And: what does publishing cost when a thousand have subscribed and do not read?
#include "support/fan_out.hpp"
#include "support/fan_rivals.hpp"
#include "support/our_topic.hpp"
#include "support/results.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace bench;

constexpr std::size_t batch = detail::turn;

const std::string each_copy = "a moodycamel each, copies";
const std::string each_share = "a moodycamel each, shared_ptr";

std::string how(const fan& f) {
    const auto count = [](int n, const char* what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); };
    return count(f.publishers, "publisher") + ", " + count(f.subscribers, "subscriber") + (f.drainers == 1 ? " on one thread, " : " on threads, ") +
           (f.pinned ? "pinned" : "unpinned");
}
std::string name_of(const std::string& what, const fan& f) { return what + (f.pinned ? "_pinned_" : "_unpinned_") + f.shape(); }

template <class Body>
void one_by_one(results& all, const std::string& what, const std::string& size, const std::string& baseline, const fan& f) {
    std::vector<contestant> who {
        fanning<Body, topic_popped<Body>>("publish, pop", f), fanning<Body, topic_received<Body>>("publish, receive, ack", f),
            fanning<Body, topic_read_in_place<Body, batch>>("publish, pop_each 64", f),
            fanning<Body, topic_popped_in_batches<Body, batch>>("publish, pop_many 64", f),
            fanning<Body, topic_received_in_batches<Body, batch>>("publish, receive_many 64, ack", f),
            fanning<Body, observers<Body>>("mutex + a deque each", f),
#if MAILROOM_BENCH_MOODYCAMEL
            fanning<Body, moody_each<Body, by_copy>>(each_copy, f), fanning<Body, moody_each<Body, by_copy, batch>>(each_copy + ", bulk out", f),
            fanning<Body, moody_each<Body, by_share>>(each_share, f),
#endif
#if MAILROOM_BENCH_ZEROMQ
            fanning<Body, zeromq_pub_sub<Body>>("ZeroMQ inproc, PUB and SUB", f, f.publishers),
#endif
    };
    all.contest({{name_of(what, f), size + ", " + how(f), "M publishes/s", baseline}}, who);
}

void in_batches(results& all, const fan& f) {
    all.contest({{name_of("fan_batch", f), "16 bytes, 64 by 64, " + how(f), "M publishes/s", "a moodycamel bulk each, copies"}}, {
        fanning<small, published_in_batches<topic_read_in_place<small, batch>>>("publish_many, pop_each", f),
            fanning<small, published_in_batches<topic_popped_in_batches<small, batch>>>("publish_many, pop_many", f),
            fanning<small, published_in_batches<topic_received_in_batches<small, batch>>>("publish_many, receive_many, ack", f),
#if MAILROOM_BENCH_MOODYCAMEL
            fanning<small, moody_each_in_batches<small, batch>>("a moodycamel bulk each, copies", f),
#endif
    });
}

template <class Body>
void alone(results& all, const std::string& what, const std::string& size, const std::string& baseline, std::size_t messages) {
    constexpr int subscribers = 8;
    all.contest({{what, size + ", 8 subscribers, one thread: publish 256, then drain each", "M publishes/s", baseline}}, {
        fanning_alone<Body, topic_popped<Body>>("publish, pop", subscribers, messages),
            fanning_alone<Body, topic_received<Body>>("publish, receive, ack", subscribers, messages),
            fanning_alone<Body, topic_read_in_place<Body, batch>>("publish, pop_each 64", subscribers, messages),
            fanning_alone<Body, topic_popped_in_batches<Body, batch>>("publish, pop_many 64", subscribers, messages),
            fanning_alone<Body, topic_received_in_batches<Body, batch>>("publish, receive_many 64, ack", subscribers, messages),
            fanning_alone<Body, observers<Body>>("mutex + a deque each", subscribers, messages),
#if MAILROOM_BENCH_MOODYCAMEL
            fanning_alone<Body, moody_each<Body, by_copy>>(each_copy, subscribers, messages),
            fanning_alone<Body, moody_each<Body, by_share>>(each_share, subscribers, messages),
#endif
#if MAILROOM_BENCH_ZEROMQ
            fanning_alone<Body, zeromq_pub_sub<Body>>("ZeroMQ inproc, PUB and SUB", subscribers, messages),
#endif
    });
}

// ---- subscribers that do not read --------------------------------------------------------------------------------------------------

/// Nanoseconds a publish, while nobody reads. The subscribers read between the times that count.
template <class Rival>
double behind(int subscribers, std::size_t messages) {
    constexpr std::size_t times = 5; // the first does not count
    const auto rival = std::make_unique<Rival>(subscribers);
    using listener = detail::listener<small, Rival>;
    std::vector<std::unique_ptr<listener>> idle;
    for (int s = 0; s < subscribers; ++s) { idle.push_back(std::make_unique<listener>(*rival, s)); }
    typename Rival::publisher to(*rival, 0);
    clock::duration spent{};
    for (std::size_t time = 0; time < times; ++time) {
        const auto start = clock::now();
        for (std::size_t i = 0; i < messages; ++i) { to.publish(body_traits<small>::make(0, i)); }
        if (time != 0) { spent += clock::now() - start; }
        for (auto& l : idle) {
            while (l->take_turn() != 0) {}
            l->expect(messages, expected_check(0, messages), "idle subscribers");
        }
    }
    return seconds(spent) * 1e9 / static_cast<double>(messages * (times - 1));
}

template <class Rival>
contestant idling(std::string name, int subscribers, std::size_t messages) {
    return {std::move(name), [subscribers, messages] {
                double figure = 0;
                std::thread alone([&] {
                    stand_at(place::first_core);
                    figure = behind<Rival>(subscribers, messages);
                });
                alone.join();
                return std::vector<double>{figure};
            }};
}

void idle(results& all) {
    using ours = topic_popped_in_batches<small, 512>;
    // Where each subscriber has a queue of its own a round of a thousand takes long, and much memory: fewer messages.
    const std::size_t messages = all.scaled(32'768), fewer = all.scaled(2'048);
    all.contest({{"fan_idle", "publishing 16 bytes to subscribers that do not read", "ns/publish", "publish, 1 idle", false}}, {
        idling<ours>("publish, nobody subscribed", 0, messages), idling<ours>("publish, 1 idle", 1, messages),
            idling<ours>("publish, 32 idle", 32, messages), idling<ours>("publish, 1000 idle", 1000, messages),
            idling<observers<small>>("mutex + a deque each, 1 idle", 1, messages),
            idling<observers<small>>("mutex + a deque each, 1000 idle", 1000, fewer),
#if MAILROOM_BENCH_MOODYCAMEL
            idling<moody_each<small, by_copy>>(each_copy + ", 1 idle", 1, messages),
            idling<moody_each<small, by_copy>>(each_copy + ", 1000 idle", 1000, fewer),
#endif
    });
}

} // namespace

int main(int argc, char** argv) {
    results all("topic_bench", argc, argv);
    const auto shared_out = [&all](std::size_t deliveries, int subscribers) {
        return all.scaled(deliveries / static_cast<std::size_t>(subscribers));
    };
    constexpr auto pauses = when_empty::pauses, yields = when_empty::yields;
    for (const bool pinned : {true, false}) {
        for (const int n : {1, 8, 32}) {
            one_by_one<small>(all, "fan_small", "16 bytes", each_copy, {1, n, 1, pinned, pauses, shared_out(2'000'000, n)});
        }
        for (const int n : {1, 8, 32}) {
            one_by_one<large>(all, "fan_large", "1 KiB", each_share, {1, n, 1, pinned, pauses, shared_out(800'000, n)});
        }
        one_by_one<small>(all, "fan_many_small", "16 bytes", each_copy, {4, 8, 1, pinned, pauses, shared_out(2'000'000, 8)});
        one_by_one<large>(all, "fan_many_large", "1 KiB", each_share, {4, 8, 1, pinned, pauses, shared_out(800'000, 8)});
        one_by_one<small>(all, "fan_threads", "16 bytes", each_copy, {1, 8, 8, pinned, yields, shared_out(2'000'000, 8), 1, 16'384});
        for (const int n : {1, 8}) { in_batches(all, {1, n, 1, pinned, pauses, shared_out(8'000'000, n), batch}); }
    }
    alone<small>(all, "fan_alone_small", "16 bytes", each_copy, all.scaled(250'000));
    alone<large>(all, "fan_alone_large", "1 KiB", each_share, all.scaled(100'000));
    idle(all);
    return all.finish();
}
