// Asking another part of the program, and getting its answer: in time or not, one answer or several, what is thrown there arrives here.
#include <mailroom/mailroom.hpp>

#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

using namespace std::chrono_literals;

struct question {
    std::string city;
    int days = 1;
};
struct weather {
    std::string city;
    int celsius = 0;
};

int main() {
    mailroom::queue<question> questions;
    const std::map<std::string, int> known{{"Lisbon", 24}, {"Oslo", 9}, {"Quito", 15}};

    // A responder is a consumer: its thread calls the function for each request, and what it returns goes back to who asked.
    mailroom::responder<question, weather> today{questions, [&](const question& q, mailroom::reply<weather>& out) {
                                                     const auto at = known.find(q.city);
                                                     if (at == known.end()) {
                                                         throw mailroom::error(mailroom::errc::not_found, "no station in " + q.city);
                                                     }
                                                     for (int day = 0; day < q.days && out.send({q.city, at->second + day}); ++day) {
                                                     } // false: nobody wants more
                                                 }};

    // A requester has no thread: who waits takes his own answer.
    mailroom::requester<question, weather> ask{questions};
    int right = 0;
    if (const mailroom::result<weather> w = ask({"Oslo"}, 10s)) {
        std::printf("%s: %d degrees\n", w->city.c_str(), w->celsius);
        right += w->celsius == 9;
    }
    if (const auto w = ask({"Atlantis"}, 10s); !w) {
        std::printf("Atlantis: %s\n", w.error().what()); // said there, read here
        right += w.error() == mailroom::errc::not_found && w.error().travelled();
    }

    // Several answers to one request, as they come.
    int sum = 0;
    for (const auto& w : ask.many({"Quito", 3}, 10s)) { sum += w.value().celsius; }
    std::printf("Quito, three days: %d degrees in all\n", sum);
    right += sum == 15 + 16 + 17;

    // Not waiting at once: all are on their way before the first answer is looked at.
    std::vector<mailroom::answer<weather>> pending;
    for (const auto& [city, celsius] : known) { pending.push_back(ask.async({city}, 10s)); }
    for (auto& p : pending) { right += p.wait().has_value(); }

    // Nobody answers any more: the time runs out, and the request does not stay behind.
    today.drain(10s);
    const auto late = ask({"Lisbon"}, 5ms);
    std::printf("Lisbon: %s; requests left: %zu\n", late.error().what(), questions.statistics().ready);
    right += late.error() == mailroom::errc::timed_out && questions.statistics().ready == 0;

    // The same message twice, its effect once: a handler that remembers what it has done, by `properties::id`.
    mailroom::queue<int> payments;
    int paid = 0;
    {
        auto clerk = payments.consume(mailroom::idempotent([&](const int& amount) { paid += amount; }, 1h));
        for (int copy = 0; copy < 3; ++copy) { payments.send(100, {.id = "invoice 7"}); }
        payments.drain(10s);
    }
    std::printf("paid: %d\n", paid);
    return right == 7 && paid == 100 ? 0 : 1;
}
