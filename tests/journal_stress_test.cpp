// Many threads over one journal: several queues and topics at once, committed by whoever comes first. Nothing is lost, nothing comes twice
// that was settled, order holds per producer (and per key), also over restarts while they run. Under ThreadSanitizer too.
#include "support/crew.hpp"
#include "support/directory.hpp"
#include "support/ledger.hpp"
#include "support/random.hpp"
#include "support/stored.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using mailroom::durability;
using mailroom::errc;
using mailroom::sharing;
using mailroom::start;
using support::dice;

namespace {

/// What all messages are: who sent it, and the how manieth of his it is.
struct note {
    std::uint32_t producer = 0;
    std::uint32_t n = 0;
};

constexpr std::uint32_t producers = 3;

/// What a set of consumers has seen of each producer; complains about what cannot be.
class witness {
public:
    explicit witness(std::uint32_t each) : each_(each), seen_(std::size_t{producers} * each) {}
    void settled(const note& m) {
        if (m.producer >= producers || m.n >= each_) { return complain("invented"); }
        if (seen_[std::size_t{m.producer} * each_ + m.n].fetch_add(1) != 0) {
            complain("settled twice: " + std::to_string(m.producer) + ":" + std::to_string(m.n));
        }
        ++count_;
    }
    std::uint64_t count() const { return count_; }
    void complain(const std::string& what) {
        const std::lock_guard lock(mutex_);
        if (complaints_.size() < 500) { complaints_ += what + "\n"; }
    }
    std::string complaints() const {
        const std::lock_guard lock(mutex_);
        return complaints_;
    }
    std::uint64_t missing() const {
        std::uint64_t n = 0;
        for (const auto& one : seen_) { n += one == 0; }
        return n;
    }

private:
    const std::uint32_t each_;
    std::vector<std::atomic<std::uint32_t>> seen_;
    std::atomic<std::uint64_t> count_{0};
    mutable std::mutex mutex_;
    std::string complaints_;
};

/// One consumer: of each producer, what comes for the first time comes in order.
class in_order {
public:
    explicit in_order(witness& w) : witness_(w) {}
    void saw(const note& m, std::uint32_t attempt) {
        if (attempt != 1) { return; }
        auto& next = next_[m.producer];
        if (m.n < next) {
            witness_.complain("out of order: " + std::to_string(m.producer) + ":" + std::to_string(m.n) + " after " + std::to_string(next - 1));
        }
        next = m.n + 1;
    }

private:
    witness& witness_;
    std::map<std::uint32_t, std::uint32_t> next_;
};

class real_home {
public:
    using journal = mailroom::journal;
    std::unique_ptr<journal> open(const mailroom::journal_options& o) { return std::make_unique<journal>(directory_ / "j", o); }

private:
    support::directory directory_;
};
class simulated_home {
public:
    using journal = support::simulated_journal;
    std::unique_ptr<journal> open(const mailroom::journal_options& o) { return std::make_unique<journal>("j", o, disk_); }

private:
    mailroom::testing::simulated_files disk_;
};

template <class Send>
void produce(std::uint32_t self, std::uint32_t each, dice d, Send send) {
    for (std::uint32_t n = 0; n < each; ++n) {
        send(note{self, n}, d);
        if (d.percent(2)) { std::this_thread::yield(); }
    }
}

// Producers, consumers of two queues, members of three subscriptions of a topic; all in one journal.
template <class Home>
void everything_at_once(std::uint64_t seed, durability promise, std::uint32_t each, bool kept) {
    CAPTURE(seed);
    CAPTURE(static_cast<int>(promise));
    Home home;
    using journal = typename Home::journal;
    const auto disk = home.open({.durability = promise, .segment_bytes = 64 << 10});
    std::optional<mailroom::committer> keep;
    if (kept) { keep.emplace(*disk); }
    mailroom::queue<note, journal> a(*disk, "a"), b(*disk, "b", {.max_messages = 50});
    mailroom::topic<note, journal> t(*disk, "t", {.partitions = 3, .retention = {.messages = 20}});
    const std::uint64_t all = std::uint64_t{each} * producers;
    witness of_a(each), of_b(each), of_shared(each), of_keyed(each), of_failover(each), of_partitioned(each);
    struct group {
        const char* name;
        sharing mode;
        witness& seen;
    } const groups[] = {{"shared", sharing::shared, of_shared},
                        {"keyed", sharing::keyed, of_keyed},
                        {"failover", sharing::failover, of_failover},
                        {"partitioned", sharing::partitioned, of_partitioned}};
    const auto options_of = [](const group& g) {
        return mailroom::subscribe_options<note>{.from = start::earliest, .mode = g.mode, .retry = {.max_attempts = 0, .initial = 0s}};
    };
    for (const group& g : groups) { static_cast<void>(t.subscribe(g.name, options_of(g))); }
    std::mutex order_mutex;
    std::map<std::pair<std::string, std::uint32_t>, std::uint32_t> next_of; // group and producer: keys in order, whoever has them

    std::vector<std::thread> threads;
    for (std::uint32_t p = 0; p < producers; ++p) {
        threads.emplace_back([&, p] {
            produce(p, each, dice(seed + p), [&](const note& m, dice& d) {
                switch (d.below(4)) {
                case 0: a.send(m); break;
                case 1: a.send_async(m); break;
                case 2: a.send_many(std::vector<note>{m}); break;
                default: a.send_async(m).wait();
                }
                b.send(m, {.key = std::to_string(m.producer)});
                const std::string key = std::to_string(m.producer);
                if (d.percent(50)) {
                    t.publish(m, {.key = key});
                } else {
                    t.publish_async(m, {.key = key});
                }
            });
        });
    }
    const auto consume_queue = [&](auto& q, witness& seen, int how) {
        in_order mine(seen);
        dice d(seed + 100 + static_cast<std::uint64_t>(how));
        while (seen.count() < all) {
            if (how == 0) {
                if (const auto m = q.pop_for(10ms)) { mine.saw(m->body(), 1), seen.settled(m->body()); }
                continue;
            }
            auto got = q.receive_for(10ms);
            if (!got) { continue; }
            const note m = **got;
            mine.saw(m, got->attempt());
            const auto what = d.below(10);
            if (what == 0) {
                got->nack(0s);
            } else if (what == 2) {
                if (got->ack()) { seen.settled(m); }
            } else {
                auto r = got->ack_async();
                seen.settled(m);
                if (d.percent(10)) { r.wait(); }
            }
        }
    };
    threads.emplace_back([&] { consume_queue(a, of_a, 0); });
    threads.emplace_back([&] { consume_queue(a, of_a, 0); });
    threads.emplace_back([&] { consume_queue(b, of_b, 1); });
    threads.emplace_back([&] { consume_queue(b, of_b, 2); });
    for (const group& g : groups) {
        for (int i = 0; i < 2; ++i) {
            threads.emplace_back([&, i] {
                dice d(seed + 200 + static_cast<std::uint64_t>(i));
                while (g.seen.count() < all) {
                    auto member = t.subscribe(g.name, options_of(g)); // joins, stays a while, leaves
                    for (unsigned stay = 20 + d.below(200); stay != 0 && g.seen.count() < all; --stay) {
                        auto got = member.receive_for(2ms);
                        if (!got) { continue; }
                        const note m = **got;
                        if (d.percent(10)) {
                            got->nack(0s);
                        } else if (g.mode == sharing::shared) {
                            if (got->ack()) { g.seen.settled(m); }
                        } else { // the next of its key comes when this one is settled
                            const std::lock_guard lock(order_mutex);
                            if (!got->ack()) { continue; }
                            g.seen.settled(m);
                            auto& next = next_of[{g.name, m.producer}];
                            if (g.mode != sharing::failover && m.n != next) {
                                g.seen.complain(std::string(g.name) + " out of order: " + std::to_string(m.n) + " instead of " +
                                                std::to_string(next));
                            }
                            next = m.n + 1;
                        }
                    }
                }
            });
        }
    }
    threads.emplace_back([&] { // who comes and goes, and looks around
        dice d(seed + 300);
        while (of_a.count() < all || of_shared.count() < all) {
            auto live = t.subscribe({.from = d.percent(50) ? start::earliest : start::latest});
            live.receive_for(1ms);
            static_cast<void>(a.statistics());
            static_cast<void>(t.statistics());
            static_cast<void>(t.subscriptions());
            const mailroom::queue<note, journal> other(*disk, "other" + std::to_string(d.below(3)));
            static_cast<void>(other.statistics());
            if (d.percent(20)) { disk->flush(); }
            if (d.percent(5)) { disk->compact(); }
            if (d.percent(5)) { CHECK(disk->verify().intact); }
            for (unsigned yields = d.below(50); yields != 0; --yields) { std::this_thread::yield(); }
        }
    });
    for (auto& th : threads) { th.join(); }
    for (const witness* w : {&of_a, &of_b, &of_shared, &of_keyed, &of_failover, &of_partitioned}) {
        CHECK(w->complaints() == "");
        CHECK(w->missing() == 0);
    }
    CHECK(a.statistics().ready == 0);
    CHECK(a.statistics().sent == all);
    CHECK(b.statistics().acked == all);
    for (const auto& i : t.subscriptions()) { CHECK(i.lag == 0); }
    CHECK(disk->verify().intact);
}

// Producers and consumers that go on while the journal is closed under them and opened again.
template <class Home>
void restarts(std::uint64_t seed, durability promise, std::uint32_t each, int rounds) {
    CAPTURE(seed);
    Home home;
    using journal = typename Home::journal;
    witness of_queue(each * static_cast<std::uint32_t>(rounds)), of_topic(each * static_cast<std::uint32_t>(rounds));
    std::vector<std::uint32_t> queue_next(producers, 0), topic_next(producers, 0);
    std::atomic<std::uint64_t> sent{0}, published{0};
    dice d(seed);
    const mailroom::subscribe_options<note> o{.from = start::earliest, .mode = sharing::shared, .retry = {.max_attempts = 0, .initial = 0s}};
    const mailroom::queue_options<note> qo{.retry = {.max_attempts = 0, .initial = 0s}};
    for (int round = 0; round < rounds; ++round) {
        auto disk = home.open({.durability = promise, .segment_bytes = 64 << 10});
        CHECK(disk->recovered().clean);
        mailroom::queue<note, journal> q(*disk, "q", qo);
        mailroom::topic<note, journal> t(*disk, "t", {.partitions = 2});
        if (round == 0) { static_cast<void>(t.subscribe("s", o)); }
        std::atomic<std::uint32_t> producing{producers};
        std::vector<std::thread> threads;
        for (std::uint32_t p = 0; p < producers; ++p) {
            threads.emplace_back([&, p] {
                try {
                    for (std::uint32_t n = 0; n < each; ++n) {
                        q.send({p, queue_next[p]});
                        ++queue_next[p], ++sent;
                        t.publish({p, topic_next[p]});
                        ++topic_next[p], ++published;
                    }
                } catch (const mailroom::error& e) { CHECK(e.kind() == errc::closed); }
                --producing;
            });
        }
        for (int c = 0; c < 2; ++c) {
            threads.emplace_back([&] {
                while (auto got = q.receive()) {
                    const note m = **got;
                    if (got->ack()) { of_queue.settled(m); }
                }
            });
            threads.emplace_back([&, s = t.subscribe("s", o)]() mutable {
                while (auto got = s.receive()) {
                    const note m = **got;
                    if (got->ack()) { of_topic.settled(m); }
                }
            });
        }
        const std::uint64_t until = sent + d.below(d.percent(20) ? 3 : each / 8); // at any of their messages, and now and then at the first of them
        while (sent < until && producing != 0) { std::this_thread::yield(); }
        disk.reset();
        for (auto& th : threads) { th.join(); }
    }
    // What a send that failed with errc::closed may have done nevertheless is settled here, or was before.
    auto disk = home.open({.durability = promise});
    mailroom::queue<note, journal> q(*disk, "q", qo);
    mailroom::topic<note, journal> t(*disk, "t", {.partitions = 2});
    auto s = t.subscribe("s", o);
    while (auto m = q.try_pop()) { of_queue.settled(m->body()); }
    while (auto m = s.try_pop()) { of_topic.settled(m->body()); }
    CHECK(of_queue.complaints() == "");
    CHECK(of_topic.complaints() == "");
    CHECK(of_queue.count() == sent);
    CHECK(of_topic.count() == published);
    CHECK(q.statistics().sent == sent);
}

std::uint32_t each(std::uint32_t n) { return support::under_thread_sanitizer ? n / 5 + 20 : n; }

} // namespace

TEST_CASE("journal stress: queues and topics at once, on a simulated disk") {
    for (const durability promise : {durability::commit, durability::write, durability::none}) {
        everything_at_once<simulated_home>(support::seed(), promise, each(500), promise == durability::write);
    }
}
TEST_CASE("journal stress: queues and topics at once, on a real disk") {
    everything_at_once<real_home>(support::seed(), durability::commit, each(200), false);
    everything_at_once<real_home>(support::seed() + 1, durability::write, each(500), false);
    everything_at_once<real_home>(support::seed() + 2, durability::none, each(500), true);
}
TEST_CASE("journal stress: closed under those who use it, and opened again") {
    restarts<simulated_home>(support::seed(), durability::none, each(2000), 15);
    restarts<simulated_home>(support::seed() + 1, durability::commit, each(2000), 15);
    restarts<real_home>(support::seed() + 2, durability::write, each(1000), 8);
}
