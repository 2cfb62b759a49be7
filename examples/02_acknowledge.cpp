// Who receives a message holds it, and says what becomes of it. Until then the queue keeps it: an exception, an early return or a receiver
// that hangs does not lose it.
#include <mailroom/mailroom.hpp>

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

struct order {
    int id = 0;
    std::string item;
};

int main() {
    mailroom::queue<order> orders({.retry = {.initial = 0ms}}); // what failed comes back at once
    const auto receive = [](mailroom::queue<order>& from) {
        auto d = from.receive(); // waits; empty only when the queue was closed
        std::printf("received order %d (%s), attempt %u\n", d->body().id, d->body().item.c_str(), d->attempt());
        return std::move(*d);
    };

    orders.send({1, "ink"});
    receive(orders).ack();
    std::printf("  ack: done, the queue forgets it\n\n");

    orders.send({2, "paper"});
    receive(orders).nack();
    std::printf("  nack: failed, it comes again and the attempt is counted\n");
    receive(orders).release();
    std::printf("  release: not mine after all, nothing is counted\n");
    try {
        const auto held = receive(orders);
        throw std::runtime_error("the printer is on fire");
    } catch (const std::exception& e) { std::printf("  exception (%s): as nack, by the destructor\n", e.what()); }
    receive(orders).ack();
    std::printf("  ack\n\n");

    mailroom::queue<order> leased({.lease = 50ms, .retry = {.initial = 0ms}});
    leased.send({3, "stamps"});
    auto slow = receive(leased);
    std::printf("  ... and nothing happens. After its lease of 50 ms somebody else gets it:\n");
    auto quick = receive(leased);
    std::printf("  the quick one acks: %s\n", quick.ack() ? "it counts" : "too late");
    std::printf("  the slow one acks: %s\n", slow.ack() ? "it counts" : "too late, and it is told so");

    return orders.statistics().acked == 2 ? 0 : 1;
}
