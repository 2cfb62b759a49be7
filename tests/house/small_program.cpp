// The smallest useful program on queue.hpp; also what the consumers of the installed package build.
#include <mailroom/queue.hpp>

#include <cstdio>
#include <string>

struct order {
    int id = 0;
    std::string symbol;
};

int main() {
    mailroom::queue<order> orders;
    orders.send({1, "AAPL"});
    orders.send({2, "MSFT"});

    int sum = 0;
    while (auto d = orders.try_receive()) {
        sum += d->body().id;
        if (!d->ack()) return 1;
    }
    std::printf("received orders with a sum of ids of %d\n", sum);
    return sum == 3 ? 0 : 1;
}
