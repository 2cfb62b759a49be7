// A group of consumers that shares the work of a topic: whole partitions belong to its members, and are shared out anew as members come and
// go. The key picks the partition, so what happens to one customer happens in order, whoever does it.
#include <mailroom/mailroom.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

using namespace std::chrono_literals;

struct event {
    int customer = 0;
    int number = 0;
};

constexpr int partitions = 6, customers = 50;

struct member {
    std::string name;
    mailroom::subscription<event> events; // being there is membership
    std::set<int> seen_partitions;
};

/// What the group has done so far, all members together.
struct ledger {
    std::array<int, customers> done{};
    int handled = 0, out_of_order = 0;

    void book(const event& e) {
        int& last = done[static_cast<std::size_t>(e.customer)];
        if (e.number != last + 1) { ++out_of_order; }
        last = e.number;
        ++handled;
    }
};

int main() {
    mailroom::topic<event> events({.partitions = partitions});
    std::vector<std::unique_ptr<member>> group;
    ledger books;
    std::array<int, customers> published{};
    int published_all = 0;

    // What a member could not settle is there again at once.
    const mailroom::subscribe_options<event> shared_out{.mode = mailroom::sharing::partitioned, .retry = {.initial = 0ms}};
    const auto join = [&](const char* name) { group.push_back(std::make_unique<member>(member{name, events.subscribe("billing", shared_out), {}})); };
    const auto publish = [&](int rounds) {
        for (int round = 0; round < rounds; ++round) {
            for (int c = 0; c < customers; ++c, ++published_all) {
                events.publish({c, ++published[static_cast<std::size_t>(c)]}, {.key = "customer " + std::to_string(c)});
            }
        }
    };
    // Members take turns, one event at a time, until nobody finds anything.
    const auto work = [&](const char* what) {
        for (const auto& m : group) { m->seen_partitions.clear(); }
        for (bool any = true; any;) {
            any = false;
            for (const auto& m : group) {
                if (auto d = m->events.try_receive()) {
                    books.book(d->body());
                    m->seen_partitions.insert(d->partition());
                    d->ack();
                    any = true;
                }
            }
        }
        std::printf("%-22s", what);
        for (const auto& m : group) {
            std::printf("  %s:", m->name.c_str());
            for (const int p : m->seen_partitions) { std::printf(" %d", p); }
        }
        std::printf("\n");
    };
    // Each partition was seen by one member, and they share evenly.
    const auto is_even = [&] {
        std::multiset<int> all;
        std::size_t most = 0, least = partitions;
        for (const auto& m : group) {
            all.insert(m->seen_partitions.begin(), m->seen_partitions.end());
            most = std::max(most, m->seen_partitions.size());
            least = std::min(least, m->seen_partitions.size());
        }
        return all.size() == partitions && std::set<int>(all.begin(), all.end()).size() == partitions && most - least <= 1;
    };

    bool evenly = true;
    std::printf("who gets events of which partitions:\n");
    join("ann");
    publish(4);
    work("ann alone");
    evenly = evenly && is_even();

    join("bob");
    publish(4);
    work("bob joins");
    evenly = evenly && is_even();

    join("cem");
    join("dee");
    publish(4);
    work("cem and dee join");
    evenly = evenly && is_even();

    // One leaves with an event in hand that she has not settled: who takes over her partitions begins with that.
    publish(4);
    {
        const auto in_hand = group.front()->events.try_receive();
        std::printf("  ann leaves, in her hand number %d of customer %d\n", in_hand->body().number, in_hand->body().customer);
        group.erase(group.begin());
    }
    work("ann has left");
    evenly = evenly && is_even();

    group.clear(); // the group is there without members too: nothing is lost
    publish(4);
    join("eve");
    work("all gone, eve comes");
    evenly = evenly && is_even();

    std::printf("%d events published, %d handled, %d of a customer out of order\n", published_all, books.handled, books.out_of_order);
    return evenly && books.handled == published_all && books.out_of_order == 0 && books.done == published ? 0 : 1;
}
