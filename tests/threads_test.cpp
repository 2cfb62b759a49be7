// The library starts no thread unless something that says so is made: queues and everything done with them need none.
#include <mailroom/mailroom.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <memory>
#include <vector>

using namespace std::chrono_literals;

namespace {

std::size_t threads_of_this_process() {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

} // namespace

TEST_CASE("threads: none exists because of queues") {
    if (!std::filesystem::exists("/proc/self/task")) { return; }
    const std::size_t before = threads_of_this_process(); // sanitizers have some of their own
    std::vector<std::unique_ptr<mailroom::queue<int>>> queues;
    for (int i = 0; i < 1000; ++i) {
        queues.push_back(
            std::make_unique<mailroom::queue<int>>(mailroom::queue_options<int>{.lease = 1ms, .time_to_live = 1ms, .priorities = 1 + i % 2}));
        auto& q = *queues.back();
        q.send(1);
        q.send(2, {.key = "k", .delay = 1ms, .time_to_live = 1min});
        q.send_async(3).wait();
        q.pop_for(1us);
        if (auto d = q.try_receive()) { d->nack(1ms); }
        if (auto d = q.try_receive()) { d->reject(); }
        q.receive_for(1us);
        q.dead().redrive(1);
        static_cast<void>(q.statistics());
        if (i % 3 == 0) { q.close(); }
    }
    CHECK(threads_of_this_process() == before);
    mailroom::queue<int> plain({.lease = 0s});
    auto workers = plain.consume([](const int&) {}, {.concurrency = {.min = 2, .max = 2}});
    CHECK(workers.threads() == 2);
    CHECK(threads_of_this_process() >= before + 2); // what says so, does so; a sanitizer may add one of its own
}
