// What fails is tried again, with longer and longer pauses. What never works ends among the dead letters, with the reason, where somebody
// can look at it and send it on its way again.
#include <mailroom/mailroom.hpp>

#include <chrono>
#include <cstdio>
#include <map>
#include <string>

using namespace std::chrono_literals;

struct mail {
    std::string to;
};

std::map<std::string, int> busy; // how often the server of an address will still refuse

// Works until nothing is left that could still be delivered.
void deliver_all(mailroom::queue<mail>& outbox) {
    while (auto d = outbox.receive_for(100ms)) { // longer than the longest pause below
        std::printf("  to %-8s attempt %u: ", (*d)->to.c_str(), d->attempt());
        if ((*d)->to.find('@') == std::string::npos) {
            std::printf("no address, given up at once\n");
            d->reject("not an address"); // trying again would not help
        } else if (busy[(*d)->to]-- > 0) {
            std::printf("server busy\n");
            d->nack(); // back after the pause that the retry policy says
        } else {
            std::printf("delivered\n");
            d->ack();
        }
    }
}

int main() {
    // Pauses of 10, 20 and 40 ms, then it is dead.
    mailroom::queue<mail> outbox({.retry = {.max_attempts = 4, .initial = 10ms, .multiplier = 2, .maximum = 1s}});
    busy = {{"bob@x", 2}, {"cem@x", 99}};
    for (const char* to : {"ann@x", "bob@x", "cem@x", "postbox"}) { outbox.send({to}); }
    deliver_all(outbox);

    std::printf("\ndead letters: %zu\n", outbox.dead().size());
    while (auto letter = outbox.dead().try_receive()) {
        std::printf("  to %-8s after %u attempt(s): %s\n", (*letter)->to.c_str(), letter->attempts(), letter->reason().c_str());
        if (letter->reason() == "not an address") {
            letter->ack(); // seen; gone for good
        } else {
            break; // put back by the destructor
        }
    }
    busy.clear(); // somebody has repaired the server
    std::printf("\nrepaired; sent again: %zu\n", outbox.dead().redrive_if([](const mail& m) { return m.to == "cem@x"; }));
    deliver_all(outbox);
    return outbox.dead().size() == 0 && outbox.statistics().acked == 4 ? 0 : 1;
}
