// What a queue asks of the allocator: nothing for a message in steady state, and no more than it can do without: whichever allocation fails,
// the call says so or manages, nothing is lost, leaked or half done, and the queue works on.
#define SUPPORT_REPLACES_NEW
#include "support/allocations.hpp"
#include "support/random.hpp"
#include "support/tracked.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>
#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace support;
using namespace std::chrono_literals;

namespace {

/// How many allocations `rounds` calls of `round` make, once it has been called as often before.
template <class Round>
std::size_t allocations_of(int rounds, Round round) {
    for (int i = 0; i < rounds; ++i) { round(); }
    const std::size_t before = allocations_made();
    for (int i = 0; i < rounds; ++i) { round(); }
    return allocations_made() - before;
}

/// Random calls on a queue, one of whose allocations fails; and an account of every message that was accepted.
template <class T>
class trial {
public:
    /// `nth` allocation fails, or that and all after it until the calls are over. Answers whether one failed.
    bool run(const mailroom::queue_options<T>& options, std::uint64_t seed, long nth, bool and_all_after) {
        nth_ = nth, and_all_after_ = and_all_after;
        mailroom::testing::manual_clock clock;
        mailroom::queue_options<T> o = options;
        o.clock = &clock;
        std::optional<mailroom::queue<T>> queue;
        while (!queue) {
            attempt([&] { queue.emplace(o); });
            if (failed_) { and_all_after_ = false; } // else there would never be one
        }
        held_.reserve(1000);
        dice d(seed);
        for (int i = 0; i < 60; ++i) { step(*queue, clock, d, i); }
        held_.clear();

        // Memory is there again: everything must come out, once.
        for (int i = 0; i < 100; ++i) {
            clock.advance(1min);
            queue->dead().redrive(queue->dead().size());
            while (auto m = queue->try_pop()) { ended(number_of(m->body())); }
        }
        const mailroom::stats s = queue->statistics();
        CHECK(s.ready + s.in_flight + s.parked + s.dead == 0);
        CHECK(s.sent == sent_);
        CHECK(s.bytes == 0);
        for (const auto& [body, count] : open_) {
            CAPTURE(body);
            CHECK(count == 0);
        }
        CHECK(queue->send(body_of<T>::make(1)) == sent_);
        return failed_;
    }

private:
    void step(mailroom::queue<T>& queue, mailroom::testing::manual_clock& clock, dice& d, int number) {
        const unsigned at = d.below(20);
        if (at < 8) {
            send(queue, d, number);
        } else if (at < 11) {
            attempt([&] {
                if (auto got = queue.try_receive()) { held_.push_back(std::move(*got)); }
            });
        } else if (at < 12) {
            attempt([&] { queue.receive_many(held_, 3); });
        } else if (at < 14) {
            std::optional<mailroom::message<T>> m;
            attempt([&] { m = queue.try_pop(); });
            if (m) { ended(number_of(m->body())); }
        } else if (at < 18) {
            settle(d);
        } else if (at < 19) {
            attempt([&] {
                clock.advance(1s);
                static_cast<void>(queue.statistics());
            });
        } else {
            attempt([&] { queue.browse([](const mailroom::message<T>&, mailroom::message_state) { return true; }); });
            attempt([&] { queue.dead().redrive(1); });
        }
    }
    void send(mailroom::queue<T>& queue, dice& d, int number) {
        mailroom::properties p;
        if (d.percent(30)) { p.key = "a key that does not fit into a short string " + std::to_string(d.below(3)); }
        if (d.percent(30)) { p.id = "an identity that does not fit into a short string " + std::to_string(number); }
        if (d.percent(20)) { p.delay = 2s; }
        if (d.percent(20)) { p.time_to_live = 3s; }
        if (d.percent(30)) { p.priority = d.between(0, 9); }
        T body = body_of<T>::make(number);
        std::vector<T> several;
        if (d.percent(20)) { several.push_back(body_of<T>::make(number)), several.push_back(body_of<T>::make(1000 + number)); }
        bool sent = false;
        attempt([&] {
            if (!several.empty()) {
                queue.send_many(several), sent = true;
            } else if (d.percent(50)) {
                sent = queue.try_send(std::move(body), p).has_value();
            } else {
                sent = queue.try_send(std::move(body)).has_value();
            }
        });
        if (sent) {
            sent_ += several.empty() ? 1 : several.size();
            open_[number] = 1;
            if (!several.empty()) { open_[1000 + number] = 1; }
        }
        CHECK(queue.statistics().sent == sent_);
    }
    void settle(dice& d) {
        if (held_.empty()) { return; }
        const auto it = held_.begin() + d.between(0, static_cast<int>(held_.size()) - 1);
        const int body = number_of(it->body());
        const unsigned how = d.below(7);
        bool acked = false;
        attempt([&] {
            switch (how) {
            case 0: acked = it->ack(); break;
            case 1: it->nack(); break;
            case 2: it->nack(0s); break;
            case 3: it->release(); break;
            case 4: it->reject("a reason that does not fit into a short string"); break;
            case 5: it->extend(5s); break;
            default: break;
            }
            if (how != 5) { held_.erase(it); }
        });
        if (acked) { ended(body); }
    }
    void ended(int body) {
        CAPTURE(body);
        CHECK(--open_[body] == 0);
    }

    /// A call of the library, during which allocations may fail.
    template <class Call>
    void attempt(Call call) {
        failing_allocation failing(nth_, and_all_after_);
        try {
            call();
        } catch (const std::bad_alloc&) { CHECK(failing.has_failed()); } catch (const mailroom::error& e) {
            CHECK((failing.has_failed() || e == mailroom::errc::full));
        }
        nth_ = failing.left();
        failed_ = failed_ || failing.has_failed();
    }

    long nth_ = 0;
    bool and_all_after_ = false, failed_ = false;
    std::uint64_t sent_ = 0;
    std::map<int, int> open_;
    std::vector<mailroom::delivery<T>> held_;
};

template <class T>
void run(const std::string& name, const mailroom::queue_options<T>& options) {
    CAPTURE(name);
    for_each_seed(20, [&](std::uint64_t seed) {
        for (const bool and_all_after : {false, true}) {
            bool failed = true;
            for (long n = 0; failed; ++n) {
                CAPTURE(seed);
                CAPTURE(n);
                CAPTURE(and_all_after);
                const std::size_t live = allocations_live();
                failed = trial<T>().run(options, seed, n, and_all_after);
                REQUIRE(allocations_live() == live);
                REQUIRE(tracked::live() == 0);
                REQUIRE(tracked::faults() == 0);
            }
        }
        return true;
    });
}

} // namespace

TEST_CASE("allocation: the failure comes where it was ordered, and shows who counts before he has") {
    struct careless {
        std::vector<std::unique_ptr<int>> kept;
        std::size_t sent = 0;
        void send(int value) { ++sent, kept.push_back(std::make_unique<int>(value)); }
    };
    std::size_t found = 0;
    for (long n = 0; n < 4; ++n) {
        const std::size_t before = allocations_live();
        {
            careless c;
            bool thrown = false;
            {
                const failing_allocation failing(n, false);
                try {
                    c.send(1), c.send(2);
                } catch (const std::bad_alloc&) { thrown = true; }
                CHECK(thrown == failing.has_failed());
            }
            CHECK(thrown == (n < 4));
            found += c.sent != c.kept.size();
        }
        CHECK(allocations_live() == before);
    }
    CHECK(found == 4);
}

TEST_CASE("allocation: a message in steady state needs none") {
    mailroom::queue<int> queue;
    SUBCASE("send and pop") {
        CHECK(allocations_of(10'000, [&] { queue.send(1), queue.try_pop(); }) == 0);
    }
    SUBCASE("send, receive and ack") {
        CHECK(allocations_of(10'000, [&] { queue.send(1), queue.try_receive()->ack(); }) == 0);
    }
    SUBCASE("with others before it") {
        for (int i = 0; i < 1000; ++i) { queue.send(i); }
        CHECK(allocations_of(10'000, [&] { queue.send(1), queue.try_receive()->ack(); }) == 0);
    }
    SUBCASE("in runs") {
        CHECK(allocations_of(1000, [&] {
                  for (int i = 0; i < 50; ++i) { queue.send(i); }
                  while (auto d = queue.try_receive()) { d->ack(); }
              }) == 0);
    }
    SUBCASE("strings whose buffers go round") {
        mailroom::queue<std::string> strings;
        std::string text(100, '.');
        CHECK(allocations_of(10'000, [&] {
                  strings.emplace(text);
                  auto d = strings.try_receive();
                  text.assign(d->body());
                  d->ack();
              }) <= 10'000); // the one that makes the argument
    }
}

TEST_CASE("allocation: a queue that was never used, or was drained, gives back what it took") {
    const std::size_t before = allocations_live();
    {
        mailroom::queue<std::string> queue;
        const std::size_t idle = allocations_live();
        for (int i = 0; i < 10'000; ++i) { queue.send(std::to_string(i)); }
        const std::size_t full = allocations_live();
        while (queue.try_pop()) {}
        const std::size_t drained = allocations_live();
        CHECK(full - idle > 300);
        CHECK(drained - idle < 20);
    }
    CHECK(allocations_live() == before);
}

TEST_CASE("allocation: whichever fails, nothing is lost and the queue works on") {
    mailroom::queue_options<std::string> o;
    o.retry = {.max_attempts = 3, .initial = 1s};
    run<std::string>("plain", o);
    run<tracked>("plain", {.lease = 2s, .retry = {.max_attempts = 2, .initial = 0s}});
    o.priorities = 4;
    run<std::string>("priorities", o);
    o.priorities = 1, o.ordered_by_key = true;
    run<std::string>("keys", o);
    o.ordered_by_key = false, o.deduplicate = {.window = 0s, .until_settled = true};
    run<std::string>("ids", o);
    o.deduplicate = {.window = 1min};
    run<std::string>("ids in a window", o);
    run<tracked>("bounded", {.max_messages = 8, .overflow = mailroom::overflow::reject, .lease = 2s, .time_to_live = 4s});
    run<tracked>("everything", {.lease = 2s, .max_in_flight = 4, .priorities = 3, .deduplicate = {.window = 2s}, .ordered_by_key = true});
}

TEST_CASE("allocation: whichever allocation of a transaction fails, all of it has happened or nothing") {
    for (const bool and_all_after : {false, true}) {
        bool failed = true;
        for (long nth = 0; failed; ++nth) {
            CAPTURE(nth);
            CAPTURE(and_all_after);
            REQUIRE(nth < 1000);
            mailroom::queue<std::string> in({.lease = 0s, .retry = {.initial = 0s}});
            mailroom::queue<std::string> out({.max_messages = 100, .deduplicate = {.window = 1h}});
            mailroom::topic<std::string> topic({.partitions = 3, .max_messages = 100});
            auto subscription = topic.subscribe("s");
            for (int i = 0; i < 3; ++i) { in.send("message " + std::to_string(i)); }
            for (std::size_t i = 0; i < 30; ++i) { out.send("filler"); } // a block ends within the transaction
            auto d = in.try_receive();
            bool done = false, lost = false;
            {
                const failing_allocation failing(nth, and_all_after);
                try {
                    mailroom::transaction tx;
                    for (int i = 0; i < 4; ++i) {
                        tx.send(out, "a body that is too long to be without memory of its own", {.id = i % 2 == 0 ? "x" : "y"});
                        tx.publish(topic, "a body that is too long to be without memory of its own");
                    }
                    lost = !tx.ack(*d);
                    tx.commit();
                    done = true;
                } catch (const std::bad_alloc&) {
                } catch (const mailroom::error& e) {
                    lost = e.kind() == mailroom::errc::not_found; // there was no memory to keep it
                }
                failed = failing.has_failed();
            }
            std::size_t sent = 0, published = 0;
            while (auto m = out.try_pop()) { sent += m->body() != "filler" ? 1 : 0; }
            while (auto m = subscription.try_pop()) { ++published; }
            CHECK(sent == (done ? 2 : 0));
            CHECK(published == (done ? 4 : 0));
            CHECK((done || lost || failed));
            if (done) {
                CHECK_FALSE(d->ack());
                CHECK(in.statistics().acked == 1);
            } else {
                CHECK(**d == "message 0");
                CHECK(d->ack());
            }
            CHECK(in.try_pop());
            CHECK(in.try_pop());
            CHECK_FALSE(in.try_pop());
            out.send("x", {.id = "x"}); // known, or not: as it was sent
            CHECK(out.try_pop().has_value() == !done);
            for (int i = 0; i < 99; ++i) { // the bounds have not suffered
                CHECK(out.try_send("filler"));
                CHECK(topic.try_publish("filler"));
            }
            CHECK(out.statistics().ready == 99);
        }
    }
}

TEST_CASE("allocation: a message that a transaction of a journal had no memory for is not in it, and the rest takes place") {
    using disk = mailroom::testing::simulated_files;
    using journal = mailroom::basic_journal<disk>;
    bool failed = true;
    for (long nth = 0; failed; ++nth) {
        CAPTURE(nth);
        REQUIRE(nth < 1000);
        disk files;
        std::vector<std::string> accepted;
        accepted.reserve(8);
        {
            journal j("data", {.segment_bytes = 1 << 20}, files);
            mailroom::queue<std::string, journal> out(j, "out");
            mailroom::transaction tx{j};
            {
                const failing_allocation failing(nth, false);
                for (char c = 'a'; c != 'i'; ++c) {
                    try {
                        std::string body(40, c), note = body;
                        tx.send(out, std::move(body));
                        accepted.push_back(std::move(note));
                    } catch (const std::bad_alloc&) {} // the next may do
                }
                failed = failing.has_failed();
            }
            CHECK(tx.size() == accepted.size());
            tx.commit();
            CHECK(out.statistics().ready == accepted.size());
        }
        journal j("data", {.segment_bytes = 1 << 20}, files);
        mailroom::queue<std::string, journal> out(j, "out");
        std::vector<std::string> there;
        while (auto m = out.try_pop()) { there.push_back(std::move(*m).take()); }
        CHECK(there == accepted);
    }
}
