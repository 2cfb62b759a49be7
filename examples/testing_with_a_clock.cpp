// How to test a program that retries for an hour: with a clock that moves when the test says so. No sleeping, the same result every time.
#include <mailroom/mailroom.hpp>
#include <mailroom/testing.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace std::chrono_literals;

// The program under test: it gives an invoice to a bank that may be closed. It takes its queue from outside, and so its clock.
struct billing {
    mailroom::queue<std::string>& invoices;
    int attempts = 0;

    void run_once(bool bank_is_open) {
        while (auto d = invoices.try_receive()) {
            ++attempts;
            if (bank_is_open) {
                d->ack();
            } else {
                d->nack();
            }
        }
    }
};

int failed = 0;
void check(bool holds, const char* what) {
    std::printf("  %-6s %s\n", holds ? "ok" : "FAILED", what);
    failed += holds ? 0 : 1;
}

int main() {
    const auto started = std::chrono::steady_clock::now();
    mailroom::testing::manual_clock clock; // before the queues that use it: it must outlive them
    // Pauses of 1, 2, 4, 8, 16 and 30 minutes: a bit more than an hour.
    mailroom::queue<std::string> invoices({.retry = {.max_attempts = 7, .initial = 1min, .multiplier = 2, .maximum = 30min}, .clock = &clock});
    billing program{invoices};

    std::printf("the bank is closed:\n");
    invoices.send("invoice 1");
    program.run_once(false);
    clock.advance(59s);
    program.run_once(false);
    check(program.attempts == 1, "no second attempt before the minute is over");
    clock.advance(1s);
    program.run_once(false);
    check(program.attempts == 2, "but then");
    for (int minute = 0; minute < 60; ++minute) {
        clock.advance(1min);
        program.run_once(false);
    }
    check(program.attempts == 7, "seven attempts within the hour");
    check(invoices.dead().size() == 1, "then it is a dead letter");

    std::printf("the bank opens:\n");
    invoices.dead().redrive(1);
    program.run_once(true);
    check(invoices.statistics().acked == 1, "sent again, it is paid");

    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started);
    std::printf("61 minutes of retries, tested in %jd microseconds\n", std::intmax_t(took.count()));
    return failed == 0 ? 0 : 1;
}
