// A durable subscriber has a name. It may go away, and finds what it missed when it is back.
#include <mailroom/mailroom.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace std::chrono_literals;

struct entry {
    int number = 0;
    std::string text;
};

int main() {
    mailroom::topic<entry> ledger;
    int published = 0, audited = 0;
    long sum_published = 0, sum_audited = 0;
    const auto publish = [&](const char* text) {
        ledger.publish({++published, text});
        sum_published += published;
    };
    // Reads what is there, and acks so many of it.
    const auto audit_some = [&](mailroom::subscription<entry>& from, int at_most) {
        while (at_most-- > 0) {
            auto d = from.try_receive();
            if (!d) { return; }
            std::printf("  audited %d: %s\n", d->body().number, d->body().text.c_str());
            ++audited;
            sum_audited += d->body().number;
            d->ack();
        }
    };
    const auto show = [&] {
        for (const auto& s : ledger.subscriptions()) {
            std::printf("  subscription \"%s\": %zu member(s), %ju entries to come\n", s.name.c_str(), std::size_t(s.members), std::uintmax_t(s.lag));
        }
    };
    // What was in hand when it left comes again at once.
    const mailroom::subscribe_options<entry> options{.from = mailroom::start::earliest, .retry = {.initial = 0ms}};

    std::printf("the auditor is there:\n");
    {
        auto audit = ledger.subscribe("audit", options);
        publish("rent");
        publish("light");
        publish("a new desk");
        audit_some(audit, 2);
        const auto in_hand = audit.try_receive(); // and now the telephone rings: nothing is acked
        std::printf("  in hand, not settled: %d\n", in_hand->body().number);
    }
    std::printf("the auditor is away:\n");
    publish("champagne");
    publish("more champagne");
    show();

    std::printf("the auditor is back:\n");
    {
        auto audit = ledger.subscribe("audit", options); // goes on where it was, whatever `from` says
        try {
            auto second = ledger.subscribe("audit", options);
            std::printf("  somebody else is the auditor too!\n");
            return 1;
        } catch (const mailroom::error& e) { std::printf("  somebody else who wants to be the auditor is told: %s\n", e.what()); }
        audit_some(audit, 100);
    }
    show();
    const bool adds_up = audited == published && sum_audited == sum_published;

    std::printf("the auditor retires:\n");
    const bool forgotten = ledger.unsubscribe("audit");
    show();
    publish("a farewell present"); // kept for nobody
    auto next = ledger.subscribe("audit", {.from = mailroom::start::latest});
    std::printf("  the next one begins with %ju entries\n", std::uintmax_t(next.lag()));

    std::printf("audited %d of %d entries that had to be: %s\n", audited, published - 1, adds_up ? "it adds up" : "it does NOT add up");
    return adds_up && forgotten && next.lag() == 0 ? 0 : 1;
}
