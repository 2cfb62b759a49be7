// When a message comes: not before its delay is over, the urgent ones first, and not at all once its time to live is over.
#include <mailroom/mailroom.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace std::chrono_literals;

int main() {
    mailroom::queue<std::string> desk({.priorities = 10});
    const auto started = std::chrono::steady_clock::now();

    desk.send("newsletter", {.priority = 1});
    desk.send("the tea you put on is ready", {.delay = 60ms, .priority = 9});
    desk.send("bill", {.priority = 5});
    desk.send("second bill", {.priority = 5}); // the same priority: first come, first served
    desk.send("fire alarm", {.priority = 9});

    while (auto m = desk.pop_for(200ms)) {
        const auto after = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started);
        std::printf("after %3jd ms, priority %d: %s\n", std::intmax_t(after.count()), m->props().priority, m->body().c_str());
        if (desk.statistics().parked == 0 && desk.statistics().ready == 0) { break; }
    }

    // Nobody comes to read this one.
    desk.send("half price, only now", {.time_to_live = 30ms});
    if (auto letter = desk.dead().receive_for(1s)) { std::printf("\nnever read: \"%s\": %s\n", letter->body().c_str(), letter->reason().c_str()); }
    std::printf("and no reader will see it: %s\n", desk.try_pop() ? "it is there!" : "the desk is empty");
}
