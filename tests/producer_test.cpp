// Producers: what is sent again under its number is stored once, in memory and in a journal, whatever crashed in between.
#include "support/stored.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/producer.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

using mailroom::durability;
using mailroom::errc;
using mailroom::no_offset;
using mailroom::position;
using mailroom::producer;
using mailroom::testing::crash_explorer;
using mailroom::testing::simulated_files;
using support::simulated_journal;

namespace {

template <class T>
using simulated_queue = mailroom::queue<T, simulated_journal>;
template <class T>
using simulated_topic = mailroom::topic<T, simulated_journal>;

template <class Queue>
void numbers_of_a_queue(Queue& q) {
    producer p{q, "gateway"};
    static_assert(std::is_same_v<decltype(p), producer<int>>);
    CHECK(p.name() == "gateway");
    CHECK(p.last() == 0);
    CHECK(p.send(10) == position{0, 0});
    CHECK(p.last() == 1);
    CHECK(p.send_as(5, 50) == position{0, 1}); // gaps are allowed
    CHECK(p.last() == 5);
    CHECK(p.send_as(5, 51) == position{0, 1}); // the same again: where the first is
    CHECK(p.send_as(3, 30) == position{0, no_offset});
    CHECK(p.send(60, {.key = "k"}) == position{0, 2});
    producer other{q, "another"};
    CHECK(other.last() == 0);
    CHECK(other.send(70) == position{0, 3});
    CHECK(q.statistics().duplicates == 2);
    CHECK(q.statistics().sent == 4);
    for (const int body : {10, 50, 60, 70}) { CHECK(q.try_pop().value().body() == body); }
    CHECK(!q.try_pop());
}

} // namespace

TEST_CASE("producer: what is sent again under its number is stored once, in memory") {
    mailroom::queue<int> q;
    numbers_of_a_queue(q);
}
TEST_CASE("producer: what is sent again under its number is stored once, in a journal") {
    for (const durability d : {durability::commit, durability::none}) {
        simulated_journal disk("d", {.durability = d}, simulated_files());
        simulated_queue<int> q(disk, "q");
        numbers_of_a_queue(q);
        CHECK(disk.verify().intact);
    }
}
TEST_CASE("producer: numbers and names that are none are refused") {
    mailroom::queue<int> q;
    CHECK_THROWS_AS(producer(q, ""), mailroom::error);
    CHECK_THROWS_AS(producer(q, std::string(256, 'x')), mailroom::error);
    producer p{q, "p"};
    try {
        p.send_as(0, 1);
        FAIL("a number below 1");
    } catch (const mailroom::error& e) { CHECK(e == errc::invalid); }
    CHECK(q.statistics().sent == 0);
}
TEST_CASE("producer: outlives its endpoint, and then finds it closed") {
    auto q = std::make_unique<mailroom::queue<int>>();
    producer p{*q, "p"};
    q.reset();
    try {
        p.send(1);
        FAIL("sent to nobody");
    } catch (const mailroom::error& e) { CHECK(e == errc::closed); }
    CHECK(p.last() == 0);
}
TEST_CASE("producer: what was refused has no number") {
    mailroom::queue<int> q({.max_messages = 1, .overflow = mailroom::overflow::reject});
    producer p{q, "p"};
    p.send(1);
    CHECK_THROWS_AS(p.send(2), mailroom::error);
    CHECK(p.last() == 1);
    q.pop();
    p.send(2);
    CHECK(p.last() == 2);
    CHECK(q.try_pop().value().body() == 2);
}
TEST_CASE("producer: of a topic, the place of the last is known in its partition, also after a restart") {
    simulated_files files;
    position at;
    for (int round = 0; round < 3; ++round) {
        simulated_journal disk("d", {}, files);
        simulated_topic<int> t(disk, "t", {.partitions = 4});
        producer p{t, "p"};
        CHECK(p.last() == static_cast<std::uint64_t>(round));
        if (round != 0) { CHECK(p.send_as(p.last(), 99, {.key = "elsewhere"}) == at); }
        at = p.send(round, {.key = std::to_string(round)});
        CHECK(t.statistics().sent == static_cast<std::uint64_t>(round) + 1);
    }
}
TEST_CASE("producer: numbers survive checkpoints and compaction") {
    simulated_files files;
    {
        simulated_journal disk("d", {.durability = durability::none, .segment_bytes = 64 << 10}, files);
        simulated_queue<std::string> q(disk, "q");
        producer p{q, "p"};
        for (int i = 0; i < 500; ++i) {
            p.send(std::string(1000, 'x'));
            q.try_pop();
        }
        disk.compact();
        CHECK(disk.verify().intact);
    }
    simulated_journal disk("d", {}, files);
    simulated_queue<std::string> q(disk, "q");
    CHECK(producer(q, "p").last() == 500);
    CHECK(q.statistics().sent == 500);
}
TEST_CASE("producer: so many are remembered, and the one that was there longest ago is forgotten") {
    constexpr std::size_t most = mailroom::detail::producer_table::most;
    static_assert(most == mailroom::detail::most_producers);
    simulated_files files;
    {
        simulated_journal disk("d", {.durability = durability::none}, files);
        simulated_queue<int> q(disk, "q");
        for (std::size_t i = 0; i < most; ++i) { producer(q, std::to_string(i)).send(1); }
        producer(q, "0").send(1); // was there again
        producer(q, "one more").send(1);
        CHECK(producer(q, "0").last() == 2);
        CHECK(producer(q, "1").last() == 0);
        CHECK(producer(q, "2").last() == 1);
    }
    simulated_journal disk("d", {}, files);
    simulated_queue<int> q(disk, "q");
    CHECK(producer(q, "0").last() == 2);
    CHECK(producer(q, "1").last() == 0);
    CHECK(producer(q, "2").last() == 1);
    CHECK(producer(q, "one more").last() == 1);
}
TEST_CASE("producer: a send that failed may be sent again, whatever of it reached the disk") {
    for (std::uint64_t n = 0; n < 4; ++n) {
        CAPTURE(n);
        simulated_files files;
        {
            simulated_journal disk("d", {}, files);
            simulated_queue<int> q(disk, "q");
            producer p{q, "p"};
            p.send(1);
            files.fail_write(n, std::make_error_code(std::errc::io_error));
            for (int i = 2; i < 6; ++i) {
                while (p.last() < static_cast<std::uint64_t>(i)) {
                    try {
                        p.send_as(static_cast<std::uint64_t>(i), i);
                    } catch (const mailroom::error& e) { CHECK(e == errc::io); }
                }
            }
            CHECK(p.last() == 5);
        }
        simulated_journal disk("d", {}, files);
        simulated_queue<int> q(disk, "q");
        CHECK(producer(q, "p").last() == 5);
        for (int i = 1; i < 6; ++i) { CHECK(q.try_pop().value().body() == i); }
        CHECK(!q.try_pop());
    }
}
TEST_CASE("producer: the power is cut at every call; who goes on where it was doubles nothing and leaves nothing out") {
    struct nothing {};
    constexpr int all = 12;
    const auto send_the_rest = [](simulated_journal& disk) {
        simulated_queue<int> q(disk, "q");
        simulated_topic<int> t(disk, "t", {.partitions = 2, .retention = {.messages = 100}});
        producer a{q, "p"};
        producer b{t, "p"};
        for (std::uint64_t n = a.last() + 1; n <= all; ++n) { a.send_as(n, static_cast<int>(n)); }
        for (std::uint64_t n = b.last() + 1; n <= all; ++n) { b.send_as(n, static_cast<int>(n)); }
    };
    const auto found = crash_explorer().explore<nothing>(
        [&](simulated_files files, nothing&) {
            simulated_journal disk("d", {.segment_bytes = 64 << 10}, files);
            send_the_rest(disk);
        },
        [&](simulated_files files, const nothing&) {
            simulated_journal disk("d", {.segment_bytes = 64 << 10}, files);
            send_the_rest(disk); // from where the endpoints say that they are
            simulated_queue<int> q(disk, "q");
            simulated_topic<int> t(disk, "t", {.partitions = 2, .retention = {.messages = 100}});
            auto s = t.subscribe({.from = mailroom::start::earliest});
            std::vector<int> of_topic(all + 1, 0);
            for (int n = 1; n <= all; ++n) {
                const auto m = q.try_pop();
                if (!m || m->body() != n) { return false; }
                const auto one = s.try_pop();
                if (!one) { return false; }
                ++of_topic[static_cast<std::size_t>(one->body())];
            }
            for (std::size_t n = 1; n <= all; ++n) {
                if (of_topic[n] != 1) { return false; }
            }
            return !q.try_pop() && !s.try_pop();
        });
    CHECK_MESSAGE(found, found.text());
}
TEST_CASE("producer: many threads under one name store each number once") {
    for (const bool stored : {false, true}) {
        simulated_journal disk("d", {}, simulated_files());
        mailroom::queue<int> in_memory;
        simulated_queue<int> on_disk(disk, "q");
        const auto run = [](auto& q) {
            constexpr int numbers = 300;
            std::vector<std::thread> threads;
            for (int i = 0; i < 3; ++i) {
                threads.emplace_back([&q] {
                    producer p{q, "p"};
                    for (int n = 1; n <= numbers; ++n) { p.send_as(static_cast<std::uint64_t>(n), n); }
                });
            }
            for (auto& t : threads) { t.join(); }
            int last = 0;
            while (auto m = q.try_pop()) {
                CHECK(m->body() > last); // in order, none twice; who is behind may have been overtaken
                last = m->body();
            }
            CHECK(last == numbers);
            CHECK(q.statistics().sent + q.statistics().duplicates == 3 * numbers);
        };
        if (stored) {
            run(on_disk);
        } else {
            run(in_memory);
        }
    }
}
