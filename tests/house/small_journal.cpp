// The smallest useful program on journal.hpp: what was sent and not acknowledged is there when the journal is opened again.
// Also what the consumer of mailroom::journal builds.
#include <mailroom/journal.hpp>

#include <cstdio>
#include <filesystem>
#include <string>

struct order {
    int id = 0;
    std::string symbol;
};

int receive_all(const std::filesystem::path& place) {
    mailroom::journal disk(place);
    mailroom::queue<order, mailroom::journal> orders(disk, "orders");
    int sum = 0;
    while (auto d = orders.try_receive()) {
        sum += d->body().id;
        if (!d->ack()) return -1;
    }
    return sum;
}

int main(int, char** argv) {
    const std::filesystem::path place = std::string(argv[0]) + ".data";
    std::filesystem::remove_all(place);
    {
        mailroom::journal disk(place);
        mailroom::queue<order, mailroom::journal> orders(disk, "orders");
        orders.send({1, "AAPL"});
        orders.send({2, "MSFT"});
    }
    const int sum = receive_all(place);
    const int rest = receive_all(place);
    std::filesystem::remove_all(place);
    std::printf("received orders with a sum of ids of %d, then of %d\n", sum, rest);
    return sum == 3 && rest == 0 ? 0 : 1;
}
