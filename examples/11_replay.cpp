// A topic that keeps what it was told for a while, and subscribers who want to hear it again: all of it, from a time on, the last few, the
// last of each key, or once more from here.
#include <mailroom/mailroom.hpp>
#include <mailroom/testing.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using mailroom::start;

struct reading {
    std::string room;
    int hour = 0; // since the program began
    int celsius = 0;
};

/// All that is there for a subscriber now.
std::vector<reading> read(mailroom::subscription<reading>& from) {
    std::vector<reading> all;
    while (const auto m = from.try_pop()) { all.push_back(m->body()); }
    return all;
}

int wrong = 0;
void show(const char* what, const std::vector<reading>& all, std::size_t expected, int first_hour) {
    std::printf("%-38s %3zu reading(s)", what, all.size());
    if (!all.empty()) {
        std::printf(", from %s in hour %d to %s in hour %d", all.front().room.c_str(), all.front().hour, all.back().room.c_str(), all.back().hour);
    }
    const bool as_expected = all.size() == expected && (all.empty() || all.front().hour == first_hour);
    std::printf("%s\n", as_expected ? "" : "   NOT AS EXPECTED");
    wrong += as_expected ? 0 : 1;
}

int main() {
    mailroom::testing::manual_clock clock; // time that this program moves: it stands still in between
    // Nobody has to have read it: what is younger than a day stays.
    mailroom::topic<reading> readings({.retention = {.age = 24h}, .clock = &clock});

    // Two days, a reading an hour of each of three rooms; the sensor in the attic fails after 30 hours.
    const auto publish = [&](const char* room, int hour, int celsius) { readings.publish({room, hour, celsius}, {.key = room}); };
    int hour = 0;
    for (; hour < 48; ++hour) {
        clock.advance(30min); // at half past
        publish("hall", hour, 18 + hour % 5);
        publish("cellar", hour, 12);
        if (hour < 30) { publish("attic", hour, 25 - hour % 3); }
        clock.advance(30min);
    }

    // It is 48:00. In the last 24 hours: two rooms 24 times, and the attic 6 times.
    auto all = readings.subscribe({.from = start::earliest});
    show("all that is kept", read(all), 24 + 24 + 6, 24);
    auto last = readings.subscribe({.from = start::last(5)});
    show("the last five", read(last), 5, 45);
    auto afternoon = readings.subscribe({.from = clock.wall() - 9h});
    show("since 39:00", read(afternoon), 18, 39);
    auto rooms = readings.subscribe({.from = start::last_per_key});
    show("the last of each room", read(rooms), 3, 29);

    // Each of them goes on with what comes.
    clock.advance(15min);
    publish("hall", hour, 20);
    show("and then, for each of them", read(rooms), 1, 48);
    show("", read(last), 1, 48);

    // The same subscriber once more.
    const mailroom::offset before = readings.next_offset() - 4;
    read(all);
    all.seek(mailroom::position{0, before});
    show("back by four", read(all), 4, 46);
    all.seek(clock.wall() - 2h - 15min);
    show("back to 46:00", read(all), 5, 46);
    all.seek(start::earliest);
    show("back to the first", read(all), 55, 24);
    all.seek(start::latest);
    show("forward to the next that comes", read(all), 0, 0);

    clock.advance(23h + 55min);
    publish("hall", hour + 24, 19);
    auto late = readings.subscribe({.from = start::earliest});
    show("a day later, all that is kept", read(late), 2, 48);
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
