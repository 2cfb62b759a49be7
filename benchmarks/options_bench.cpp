// What does each option of a queue cost, next to the same queue without it?
//
// send, receive, ack of 16 bytes, pinned. First the options that leave messages on the lock-free path, then those for which a lock and an
// index are needed. Where an option looks at a property, the queue it is compared with is sent the same property and does not look.
#include "support/bodies.hpp"
#include "support/machine.hpp"
#include "support/ours.hpp"
#include "support/results.hpp"
#include "support/throughput.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace bench;
using options = mailroom::queue_options<small>;

// What each message carries besides its body.
struct plain {
    static constexpr bool none = true;
};
struct with_id {
    static constexpr bool none = false;
    static mailroom::properties of(const small& b) {
        mailroom::properties p;
        std::array<char, 24> text{};
        const int n = std::snprintf(text.data(), text.size(), "%x-%llx", static_cast<unsigned>(b.sender), static_cast<unsigned long long>(b.number));
        p.id.assign(text.data(), static_cast<std::size_t>(n));
        return p;
    }
};
struct with_key {
    static constexpr bool none = false;
    static mailroom::properties of(const small& b) {
        mailroom::properties p;
        p.key = std::to_string(b.number % 1000);
        return p;
    }
};
struct with_priority {
    static constexpr bool none = false;
    static mailroom::properties of(const small& b) {
        mailroom::properties p;
        p.priority = static_cast<int>(b.number % 3);
        return p;
    }
};
struct with_delay {
    static constexpr bool none = false;
    static mailroom::properties of(const small&) {
        mailroom::properties p;
        p.delay = std::chrono::microseconds(1);
        return p;
    }
};
struct with_time_to_live {
    static constexpr bool none = false;
    static mailroom::properties of(const small&) {
        mailroom::properties p;
        p.time_to_live = std::chrono::hours(1);
        return p;
    }
};

template <class Carries>
struct subject : ours_received<small> {
    using ours_received<small>::ours_received;
    struct producer : ours_received<small>::producer {
        using ours_received<small>::producer::producer;
        void send(small&& b) {
            if constexpr (Carries::none) {
                to.send(b);
            } else {
                to.send(b, Carries::of({b.sender, next++}));
            }
        }
        std::uint64_t next = 0; // ids are never used twice
    };
};

// Each message fails once.
struct failing_once : our_queue<small> {
    using our_queue<small>::our_queue;
    struct consumer : our_queue<small>::consumer {
        using our_queue<small>::consumer::consumer;
        template <class Use>
        std::size_t take(Use use) {
            while (auto d = from.try_receive()) {
                if (d->attempt() == 1) {
                    d->nack();
                    continue;
                }
                use(**d);
                d->ack();
                return 1;
            }
            return 0;
        }
    };
};

template <class Set>
options with(Set set) {
    options o;
    set(o);
    return o;
}

template <class Carries>
contestant trying(std::string name, const load& l, const options& o) {
    return competing<small, subject<Carries>>(std::move(name), l, o);
}

} // namespace

int main(int argc, char** argv) {
    results all("options_bench", argc, argv);
    const options none;
    for (const int n : {1, 2}) {
        const load lane{n, n, true, when_empty::pauses, all.scaled(1'000'000)};
        all.contest({{"lane_" + lane.shape(), "options of the lock-free path, " + lane.shape() + ", pinned", "M msg/s", "none"}},
                    {
                        trying<plain>("none", lane, none),
                        competing<small, ours_popped<small>>("popped instead of received and acked", lane, none),
                        trying<plain>("lease = 0 (for ever)", lane, with([](options& o) { o.lease = mailroom::duration::zero(); })),
                        trying<plain>("max_messages, never reached", lane, with([&](options& o) { o.max_messages = lane.messages * 2; })),
                        trying<plain>("max_messages = 1024", lane, with([](options& o) { o.max_messages = 1024; })),
                        trying<plain>("max_bytes, never reached", lane, with([](options& o) { o.max_bytes = std::size_t{1} << 40; })),
                        trying<plain>("max_in_flight = 64", lane, with([](options& o) { o.max_in_flight = 64; })),
                        trying<plain>("validate", lane, with([](options& o) {
                                          o.validate = [](const small& b, const mailroom::properties&) { return b.sender < 100; };
                                      })),
                        trying<plain>("time_to_live = 1 h for all", lane, with([](options& o) { o.time_to_live = std::chrono::hours(1); })),
                    });
        const load slow{n, n, true, when_empty::pauses, all.scaled(200'000)};
        all.contest({{"properties_" + slow.shape(), "messages with properties, " + slow.shape() + ", pinned", "M msg/s", "an id, not looked at"}},
                    {
                        trying<with_id>("an id, not looked at", slow, none),
                        trying<with_id>("deduplicate, window = 1 s", slow, with([](options& o) { o.deduplicate.window = std::chrono::seconds(1); })),
                        trying<with_id>("deduplicate, until_settled", slow, with([](options& o) { o.deduplicate.until_settled = true; })),
                        trying<with_time_to_live>("a time to live of 1 h", slow, none),
                    });
        all.contest(
            {{"index_" + slow.shape(), "options that need the index, " + slow.shape() + ", pinned", "M msg/s", "a key, not looked at"}},
            {
                trying<with_key>("a key, not looked at", slow, none),
                trying<plain>("ordered_by_key, no keys", slow, with([](options& o) { o.ordered_by_key = true; })),
                trying<with_key>("ordered_by_key, 1000 keys", slow, with([](options& o) { o.ordered_by_key = true; })),
                trying<plain>("priorities = 3, all the same", slow, with([](options& o) { o.priorities = 3; })),
                trying<with_priority>("priorities = 3", slow, with([](options& o) { o.priorities = 3; })),
                trying<with_delay>("a delay of 1 us", slow, none),
                competing<small, failing_once>("each fails once", slow, with([](options& o) { o.retry.initial = mailroom::duration::zero(); })),
            });
    }
    return all.finish();
}
