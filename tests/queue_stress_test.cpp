// Many producers and consumers who do everything a consumer may do, under a clock that runs away from them: nothing is lost, nothing
// invented, each attempt has one owner, order is kept where it is promised, the statistics add up.
#include "support/crew.hpp"
#include "support/ledger.hpp"
#include "support/random.hpp"
#include "support/shaking.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace support;
using namespace std::chrono_literals;

namespace {

/// What consumers do with what they are given, in percent; what is left is acknowledged.
struct habits {
    unsigned pop = 0, nack = 0, release = 0, reject = 0, destroy = 0, keep = 0;
    static habits of_all_kinds() { return {.pop = 10, .nack = 10, .release = 10, .reject = 3, .destroy = 5, .keep = 10}; }
};

struct scenario {
    std::string name;
    int producers = 2, consumers = 2;
    habits habit = habits();
    unsigned keys = 0;         // each producer has keys of its own, in whose order its messages must be taken
    bool restless = false;     // somebody pauses, resumes, looks and counts all the while
    bool order_is_seen = true; // first attempts reach each consumer in the order of offsets
};

template <class T>
class stress {
public:
    stress(const scenario& s, const mailroom::queue_options<T>& options, std::uint64_t seed)
        : s_(s), per_producer_(cases(4000)), ledger_(per_producer_ * static_cast<std::size_t>(s.producers)), settling_(total()), seed_(seed),
          refuses_(options.overflow != mailroom::overflow::block), queue_(under(clock_, options)) {
        if (options.lease == 0s) { s_.habit.keep = 0; } // who keeps one for ever waits for ever for the end
    }

    void run() {
        std::atomic<int> producing = s_.producers, consuming = s_.consumers;
        {
            crew threads(s_.producers + s_.consumers + 1);
            threads.run(s_.producers + s_.consumers + 1, [&](int i) {
                shaking = static_cast<std::uint32_t>(seed_) + static_cast<std::uint32_t>(i) + 1;
                if (i < s_.producers) {
                    produce(i);
                    if (--producing == 0) { queue_.close(); }
                } else if (i < s_.producers + s_.consumers) {
                    consume(i);
                    --consuming;
                } else {
                    while (consuming.load() != 0) { tick(static_cast<unsigned>(i)); }
                }
            });
        }
        audit();
    }

private:
    using delivery = mailroom::delivery<T>;

    static mailroom::queue_options<T> under(mailroom::clock& clock, mailroom::queue_options<T> options) {
        options.clock = &clock;
        if (options.lease > 0s) { options.lease = 20ms; }
        return options;
    }
    std::size_t total() const { return per_producer_ * static_cast<std::size_t>(s_.producers); }

    void produce(int self) {
        dice d(seed_ * 100 + static_cast<std::uint64_t>(self));
        const std::size_t first = per_producer_ * static_cast<std::size_t>(self);
        for (std::size_t i = 0; i < per_producer_;) {
            const std::size_t message = first + i;
            T body = body_of<T>::make(static_cast<int>(message));
            mailroom::properties p;
            if (s_.keys != 0) { p.key = std::to_string(self) + "/" + std::to_string(i % s_.keys); }
            if (d.percent(s_.keys != 0 ? 0 : 5)) { p.priority = d.between(0, 9); }
            if (d.percent(s_.keys != 0 || s_.order_is_seen ? 0 : 3)) { p.delay = 1ms * d.between(1, 30); }
            const bool bare = p.key.empty() && p.priority == 0 && p.delay == 0ms;
            mailroom::result<mailroom::offset> r = mailroom::errc::full;
            if (refuses_ || d.percent(20)) {
                r = bare ? queue_.try_send(std::move(body)) : queue_.try_send(std::move(body), p);
            } else if (bare && d.percent(10)) {
                const std::size_t n = std::min<std::size_t>(3, per_producer_ - i);
                std::vector<T> several;
                for (std::size_t k = 0; k < n; ++k) { several.push_back(body_of<T>::make(static_cast<int>(message + k))); }
                queue_.send_many(std::move(several));
                i += n;
                continue;
            } else {
                r = bare ? queue_.send(std::move(body)) : queue_.send(std::move(body), p);
            }
            if (r) {
                if (*r == mailroom::no_offset) { not_taken(message); }
                ++i;
            } else if (refuses_ && d.percent(50)) {
                not_taken(message), ++refused_, ++i;
            } else {
                std::this_thread::yield();
            }
        }
    }
    void not_taken(std::size_t message) {
        ledger_.ended(message, ledger::popped, ledger::end::dropped);
        not_taken_.fetch_add(1);
    }

    void consume(int self) {
        dice d(seed_ * 100 + static_cast<std::uint64_t>(self));
        std::vector<delivery> kept; // until they are late
        std::optional<mailroom::offset> last;
        const auto in_order = [&](mailroom::offset o, std::size_t message) {
            if (s_.order_is_seen && last && o <= *last) { ledger_.broken("out of order: ", message); }
            last = o;
        };
        for (;;) {
            if (!kept.empty() && d.percent(20)) {
                settle(d, std::move(kept.front()), false);
                kept.erase(kept.begin());
            }
            if (d.percent(s_.habit.pop)) {
                auto m = queue_.try_pop();
                if (!m) { continue; }
                const auto message = static_cast<std::size_t>(number_of(m->body()));
                settling_[message] = true, popped_.fetch_add(1);
                ledger_.ended(message, ledger::popped, ledger::end::acked);
                continue;
            }
            auto got = queue_.receive();
            if (!got) { break; }
            const auto message = static_cast<std::size_t>(number_of(got->body()));
            ledger_.given(message, got->attempt());
            if (got->attempt() == 1) { in_order(got->offset(), message); }
            if (s_.keys != 0) { check_key(message); }
            if (d.percent(s_.habit.keep)) {
                if (d.percent(30)) { got->extend(1ms * d.between(1, 40)); }
                kept.push_back(std::move(*got));
            } else {
                settle(d, std::move(*got), true);
            }
        }
        for (auto& late : kept) {
            if (late.ack()) { ledger_.broken("held by somebody after the end: ", static_cast<std::size_t>(late.offset())); }
        }
    }

    /// `settling_` says, before the queue is told, what is about to end: whoever sees the next message of the key sees it.
    void settle(dice& d, delivery got, bool in_time) {
        const auto message = static_cast<std::size_t>(number_of(got.body()));
        const std::uint32_t attempt = got.attempt();
        unsigned at = in_time ? d.below(100) : 99;
        if (at < s_.habit.nack) { return void(d.percent(50) ? got.nack() : got.nack(1ms * d.between(0, 3))); }
        if ((at -= s_.habit.nack) < s_.habit.release) { return ledger_.to_be_released(message, attempt), void(got.release()); }
        if ((at -= s_.habit.release) < s_.habit.destroy) { return; }
        at -= s_.habit.destroy;
        const bool rejected = at < s_.habit.reject;
        settling_[message] = true;
        if (rejected ? got.reject("stress") : got.ack()) {
            ledger_.ended(message, attempt, rejected ? ledger::end::dead : ledger::end::acked);
            if (!rejected) { acked_.fetch_add(1); }
        }
        if (got.ack()) { ledger_.broken("settled twice: ", message); }
    }
    /// The message of the same key before this one must be settled, or about to be.
    void check_key(std::size_t message) {
        const std::size_t i = message % per_producer_;
        if (i >= s_.keys && !settling_[message - s_.keys]) { ledger_.broken("given before the one before it in its key was settled: ", message); }
    }

    void tick(unsigned self) {
        dice d(seed_ * 100 + self);
        clock_.advance(1ms);
        std::this_thread::yield();
        if (!s_.restless) { return; }
        switch (ticks_++ % 8) {
        case 0: queue_.pause(); break;
        case 1: queue_.resume(); break;
        case 2: static_cast<void>(queue_.statistics()); break;
        case 3: {
            int looked_at = 0;
            queue_.browse([&](const mailroom::message<T>& m, mailroom::message_state) {
                if (static_cast<std::size_t>(number_of(m.body())) >= total()) { ledger_.broken("browsed: ", static_cast<std::size_t>(m.offset())); }
                return ++looked_at < 20;
            });
            break;
        }
        default: break;
        }
    }

    void audit() {
        CHECK(queue_.drain(mailroom::duration()));
        const mailroom::stats s = queue_.statistics();
        CHECK(s.ready + s.in_flight + s.parked == 0);
        CHECK(s.bytes == 0);
        CHECK(s.sent == s.acked + s.dead + s.dropped - (not_taken_ - refused_));
        CHECK(s.acked == acked_ + popped_);
        if (s_.habit.pop == 0) { CHECK(s.redelivered == ledger_.redelivered()); }
        while (auto dead = queue_.dead().try_receive()) {
            ledger_.found_dead(static_cast<std::size_t>(number_of(dead->body())));
            dead->ack();
        }
        CHECK(ledger_.count(ledger::end::dead) == s.dead);
        CHECK(ledger_.count(ledger::end::none) == s.dropped - (not_taken_ - refused_)); // dropped by the queue: it does not say which
        CHECK(ledger_.count(ledger::end::acked) == s.acked);
        const std::string complaints = ledger_.complaints();
        CHECK_MESSAGE(complaints.empty(), complaints, "MAILROOM_TEST_SEED=", seed_);
    }

    scenario s_;
    const std::size_t per_producer_;
    ledger ledger_;
    std::vector<std::atomic<bool>> settling_;
    const std::uint64_t seed_;
    const bool refuses_;
    std::atomic<std::uint64_t> not_taken_{0}, refused_{0}, popped_{0}, acked_{0};
    unsigned ticks_ = 0;
    mailroom::testing::manual_clock clock_;
    mailroom::queue<T> queue_;
};

template <class T>
void run(const scenario& s, const mailroom::queue_options<T>& options) {
    CAPTURE(s.name);
    const std::uint64_t first = seed();
    CAPTURE(first);
    stress<T>(s, options, first).run();
    CHECK(tracked::live() == 0);
    CHECK(tracked::faults() == 0);
}

} // namespace

TEST_CASE("queue: many take from it, each message goes to one of them, in order") {
    mailroom::queue_options<tracked> o;
    o.lease = 0s;
    for (const auto& [producers, consumers] : {std::pair{1, 1}, {1, 4}, {4, 1}, {3, 3}}) {
        run({.name = "plain", .producers = producers, .consumers = consumers}, o);
        o.max_messages = 16;
        run({.name = "bounded", .producers = producers, .consumers = consumers}, o);
        o.max_messages = 0;
    }
    run({.name = "restless", .restless = true}, o);
    mailroom::queue_options<std::string> text;
    text.lease = 0s, text.max_messages = 100;
    run<std::string>({.name = "strings", .producers = 3, .consumers = 3}, text);
}

TEST_CASE("queue: consumers fail in every way, nothing is lost and nothing is done twice") {
    mailroom::queue_options<tracked> o;
    o.retry = {.max_attempts = 12, .initial = 1ms, .maximum = 20ms};
    const scenario s{.name = "plain", .producers = 2, .consumers = 3, .habit = habits::of_all_kinds(), .order_is_seen = false};
    const auto with = [&](const char* name, auto set) {
        auto options = o;
        set(options);
        scenario named = s;
        named.name = name;
        run(named, options);
        named.restless = true;
        run(named, options);
    };
    with("plain", [](auto&) {});
    with("bounded", [](auto& options) { options.max_messages = 32; });
    with("one attempt", [](auto& options) { options.retry.max_attempts = 1; });
    with("no lease", [](auto& options) { options.lease = 0s; });
    with("priorities", [](auto& options) { options.priorities = 10; });
    with("in flight", [](auto& options) { options.max_in_flight = 20; });
    with("time to live", [](auto& options) { options.time_to_live = 200ms; });
    with("drop oldest", [](auto& options) { options.max_messages = 32, options.overflow = mailroom::overflow::drop_oldest; });
    with("drop newest", [](auto& options) { options.max_messages = 32, options.overflow = mailroom::overflow::drop_newest; });
    with("reject", [](auto& options) { options.max_messages = 32, options.overflow = mailroom::overflow::reject; });
}

TEST_CASE("queue: the messages of a key are taken one after the other, whatever fails meanwhile") {
    mailroom::queue_options<tracked> o;
    o.ordered_by_key = true;
    o.retry = {.max_attempts = 0, .initial = 1ms, .maximum = 3ms};
    scenario s{.name = "keys", .producers = 2, .consumers = 3, .habit = habits::of_all_kinds(), .keys = 7, .order_is_seen = false};
    s.habit.keep = s.habit.pop = 0; // so that each end is announced before it is one
    o.lease = 0s;
    run(s, o);
    o.max_messages = 64;
    run(s, o);
    s.restless = true;
    run(s, o);
}
