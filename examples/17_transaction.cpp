// A broker between two queues: takes orders, books fills and publishes trades, all of it or nothing of it for each order. It is stopped by an
// exception in mid-work, and by the end of its journal, and each order has one fill nevertheless.
#include "support/scratch.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/producer.hpp>
#include <mailroom/transaction.hpp>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

struct order {
    int id = 0;
    std::string symbol;
    int shares = 0;
};
struct fill {
    int order = 0;
    double price = 0;
};

constexpr int orders_in_all = 20;

/// Works off what is there, until it is stopped.
int work(const std::filesystem::path& directory, int stumble_at) {
    mailroom::journal disk(directory);
    mailroom::queue<order, mailroom::journal> orders(disk, "orders", {.retry = {.initial = 0ms}});
    mailroom::queue<fill, mailroom::journal> fills(disk, "fills");
    mailroom::topic<std::string, mailroom::journal> trades(disk, "trades");

    // Whoever is not sure whether he sent something sends it again, under its number: it is stored once.
    mailroom::producer gateway{orders, "gateway-1"};
    for (int id = 1; id <= orders_in_all; ++id) { gateway.send_as(std::uint64_t(id), {id, id % 2 == 0 ? "AAPL" : "MSFT", 10 * id}); }

    int done = 0;
    while (auto d = orders.try_receive()) {
        mailroom::transaction tx(disk); // destroyed without `commit`: as if it had never been
        tx.send(fills, {d->body().id, 100.0 + d->body().id});
        tx.publish(trades, d->body().symbol + " x " + std::to_string(d->body().shares));
        tx.ack(*d);
        if (++done == stumble_at) { throw std::runtime_error("stumbled over order " + std::to_string(d->body().id)); }
        tx.commit(); // one record on disk for all three
    }
    return done;
}

int main(int argc, char** argv) {
    const scratch::directory directory(argc, argv);
    for (const int stumble_at : {5, 4, 0}) {
        try {
            std::printf("worked off %d orders, until there were no more\n", work(directory.path(), stumble_at));
        } catch (const std::exception& e) { std::printf("%s; what it had done for that one is undone\n", e.what()); }
    }

    mailroom::journal disk(directory.path());
    mailroom::queue<fill, mailroom::journal> fills(disk, "fills");
    mailroom::topic<std::string, mailroom::journal> trades(disk, "trades");
    std::map<int, int> fills_of;
    while (auto f = fills.try_pop()) { ++fills_of[f->body().order]; }
    bool once = fills_of.size() == orders_in_all;
    for (const auto& [id, n] : fills_of) { once = once && n == 1; }
    std::printf("%zu orders, %s; %llu trades published\n", fills_of.size(), once ? "each filled once" : "NOT each filled once",
                static_cast<unsigned long long>(trades.statistics().sent));
    return once && trades.statistics().sent == orders_in_all ? 0 : 1;
}
