// A live ticker: each subscriber gets every tick, from the moment it subscribes. One that is too slow never holds up the others: it loses the
// oldest, and is told how many.
#include <mailroom/mailroom.hpp>

#include <cstdint>
#include <cstdio>
#include <string>

struct tick {
    std::string symbol;
    int price = 0; // in cents
};

/// Somebody who reads ticks, and adds up what he sees.
struct reader {
    mailroom::subscription<tick> ticks;
    std::uint64_t received = 0, missed = 0, next = 0; // offsets are dense: a gap is what was missed
    long sum = 0;

    void read(int at_most) {
        for (int i = 0; i < at_most; ++i) {
            const auto m = ticks.try_pop();
            if (!m) { return; }
            ++received;
            missed += m->offset() - next;
            next = m->offset() + 1;
            sum += m->body().price;
        }
    }
};

int main() {
    mailroom::topic<tick> exchange({.max_messages = 100}); // so many may wait for any one subscriber
    exchange.publish({"AAPL", 18'900});                    // nobody has subscribed yet: nobody gets it

    reader board{.ticks = exchange.subscribe(), .next = exchange.next_offset()};
    reader teletype{.ticks = exchange.subscribe(), .next = exchange.next_offset()};

    std::uint64_t published = 0;
    long sum = 0;
    std::printf("%10s   %14s   %24s\n%10s   %8s %5s   %8s %9s %5s\n", "", "board", "teletype", "published", "received", "lost", "received", "to come",
                "lost");
    const auto lost = [&](std::size_t which) { return exchange.subscriptions().at(which).lost; }; // in the order in which they came
    for (int round = 1; round <= 60; ++round) {
        for (int i = 0; i < 10; ++i, ++published) {
            const int price = 18'900 + (round * 37 + i * 11) % 50;
            sum += price;
            exchange.publish({"AAPL", price}); // never waits for subscribers that come and go
        }
        board.read(10);
        teletype.read(3);
        if (round % 10 == 0) {
            std::printf("%10ju   %8ju %5ju   %8ju %9ju %5ju\n", std::uintmax_t(published), std::uintmax_t(board.received), std::uintmax_t(lost(0)),
                        std::uintmax_t(teletype.received), std::uintmax_t(teletype.ticks.lag()), std::uintmax_t(lost(1)));
        }
    }
    while (teletype.ticks.lag() != 0) { teletype.read(3); } // after hours it gets what is still there for it
    std::printf("after hours the teletype has %ju of %ju; %ju are lost, and it saw that %ju were missing\n", std::uintmax_t(teletype.received),
                std::uintmax_t(published), std::uintmax_t(lost(1)), std::uintmax_t(teletype.missed));

    const bool adds_up = board.received == published && board.sum == sum && board.missed == 0 && lost(0) == 0 && //
                         teletype.received + lost(1) == published && teletype.missed == lost(1) && lost(1) != 0;
    std::printf("received + lost = published: %s\n", adds_up ? "yes" : "NO");
    return adds_up ? 0 : 1;
}
