// Asking several at once, and gathering what they answer: a topic carries the question to each subscription, and its responder answers.
#include <mailroom/mailroom.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

using namespace std::chrono_literals;

struct wanted {
    std::string article;
    int pieces = 0;
};
struct offer {
    std::string shop;
    int cents = 0;
};

int main() {
    mailroom::topic<wanted> questions;

    // Each shop has a subscription of its own; members of one subscription would share the questions.
    auto north = questions.subscribe("north"), south = questions.subscribe("south"), east = questions.subscribe("east");
    mailroom::responder<wanted, offer> first{north, [](const wanted& w) { return offer{"north", 120 * w.pieces}; }};
    mailroom::responder<wanted, offer> second{south, [](const wanted& w) { return offer{"south", w.pieces > 10 ? 100 * w.pieces : 130 * w.pieces}; }};
    mailroom::responder<wanted, offer> third{east, [](const wanted& w) -> offer {
                                                 if (w.article != "rope") {
                                                     throw mailroom::error(mailroom::errc::not_found, "east has no " + w.article);
                                                 }
                                                 return {"east", 110 * w.pieces};
                                             }};

    mailroom::requester<wanted, offer> ask{questions};
    int right = 0;

    // All answers, failures among them, until each has answered; no longer than the limit.
    std::vector<offer> offers;
    for (const mailroom::result<offer>& o : ask.many({"nail", 100}, 10s)) {
        if (o) {
            offers.push_back(*o);
        } else {
            std::printf("%s\n", o.error().what());
        }
    }
    std::sort(offers.begin(), offers.end(), [](const offer& a, const offer& b) { return a.cents < b.cents; });
    for (const offer& o : offers) { std::printf("%s: %d cents\n", o.shop.c_str(), o.cents); }
    right += offers.size() == 2 && offers.front().shop == "south";

    // The first answer is enough.
    if (const mailroom::result<offer> any = ask({"rope", 1}, 10s)) {
        std::printf("the first: %s\n", any->shop.c_str());
        ++right;
    }
    // Or the first two.
    int count = 0;
    for (const auto& o : ask.many({"rope", 1}, 10s, 2)) { count += o.has_value(); }
    right += count == 2;
    return right == 3 ? 0 : 1;
}
