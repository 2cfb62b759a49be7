// A queue that may hold three messages, and what happens to the fourth: that is for its owner to say, and never silent.
#include <mailroom/mailroom.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>

using namespace std::chrono_literals;
using mailroom::overflow;

void show_left(const char* rule, mailroom::queue<int>& q) {
    std::printf("%-11s keeps", rule);
    q.browse([](const mailroom::message<int>& m, mailroom::message_state) {
        std::printf(" %d", m.body());
        return true;
    });
    std::printf("; dropped and counted: %ju\n", std::uintmax_t(q.statistics().dropped));
}

int main() {
    mailroom::queue<int> reject({.max_messages = 3, .overflow = overflow::reject});
    mailroom::queue<int> newest({.max_messages = 3, .overflow = overflow::drop_newest});
    mailroom::queue<int> oldest({.max_messages = 3, .overflow = overflow::drop_oldest});
    for (int i = 1; i <= 5; ++i) {
        if (const auto sent = reject.try_send(i); !sent) { std::printf("reject      answers %d with: %s\n", i, sent.error().what()); }
        newest.send(i); // no_offset for what was not taken
        oldest.send(i);
    }
    show_left("reject", reject);
    show_left("drop_newest", newest);
    show_left("drop_oldest", oldest);

    // The default: who sends waits for room. A limit of time, or a stop token, ends the waiting.
    mailroom::queue<int> block({.max_messages = 3});
    for (int i = 1; i <= 3; ++i) { block.send(i); }
    std::printf("\nblock       answers after 10 ms with: %s\n", block.send_for(10ms, 4).error().what());

    mailroom::stop_source stop;
    std::thread sender([&] {
        try {
            for (int i = 4;; ++i) {
                block.send(i, {}, stop.get_token());
                std::printf("block       took %d: somebody made room\n", i);
            }
        } catch (const mailroom::error& e) { std::printf("block       stopped while it waited: %s\n", e.what()); }
    });
    for (int i = 1; i <= 3; ++i) { block.pop(); } // each lets the sender go on for one
    while (block.statistics().ready < 3) { std::this_thread::yield(); }
    stop.request_stop();
    sender.join();
    show_left("block", block);
}
