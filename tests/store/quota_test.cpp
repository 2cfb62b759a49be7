#include <mailroom/store/quota.hpp>
#include <mailroom/stream/stream.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using mailroom::duration;
using mailroom::memory_budget;
using mailroom::offset;
using mailroom::overflow;
using mailroom::detail::quota;
using account = quota::account;

namespace {

// A log and the quota over it; nothing is written into the log.
struct publishing {
    mailroom::detail::stream<int> log;
    quota q;
    explicit publishing(std::size_t messages, std::size_t bytes = 0, memory_budget* budget = nullptr)
        : q(quota::limits{messages, bytes, budget, overflow::reject}) {}

    bool publish(std::size_t n = 1, std::size_t bytes = 0) {
        bool full = false;
        const auto place = q.reserve(log, n, bytes, duration::zero(), full);
        return place.taken;
    }
    void open(account& a, std::uint64_t messages = 0, std::uint64_t bytes = 0) {
        q.open(a, [&] { return std::pair(messages, bytes); });
    }
};

struct counting_waiter final : mailroom::detail::waiter {
    counting_waiter() : waiter([](waiter& w) noexcept { ++static_cast<counting_waiter&>(w).woken; }) {}
    int woken = 0;
};

struct failing_log {
    using taken = mailroom::detail::stream<int>::taken;
    template <class Admit>
    taken take(std::uint64_t, duration, Admit) {
        throw std::bad_alloc();
    }
};

} // namespace

TEST_CASE("quota: without limits nothing is counted, and nothing is full") {
    publishing p(0);
    CHECK(!p.q.limited());
    account a(true);
    p.open(a);
    CHECK(p.publish(1'000'000, 1'000'000'000));
    CHECK(!p.q.over(a, 1000, 1000));
    CHECK(p.q.could_ever_hold(std::numeric_limits<std::size_t>::max(), std::numeric_limits<std::size_t>::max()));
}

TEST_CASE("quota: what can never fit is known beforehand") {
    memory_budget budget(50);
    CHECK(publishing(10).q.could_ever_hold(10, 1'000'000));
    CHECK(!publishing(10).q.could_ever_hold(11, 0));
    CHECK(publishing(0, 100).q.could_ever_hold(1000, 100));
    CHECK(!publishing(0, 100).q.could_ever_hold(1, 101));
    CHECK(publishing(0, 0, &budget).q.could_ever_hold(1, 50));
    CHECK(!publishing(0, 100, &budget).q.could_ever_hold(1, 51));
}

TEST_CASE("quota: exactly as many messages as the limit, for the one that has settled least") {
    publishing p(10);
    CHECK(p.publish(1000)); // nobody subscribes
    account fast(true), slow(true);
    p.open(fast);
    p.open(slow);
    CHECK(p.publish(7));
    CHECK(!p.publish(4));
    CHECK(p.publish(3));
    CHECK(!p.publish());
    CHECK(p.log.head() == 1010);
    p.q.left(fast, 10, 0);
    CHECK(!p.publish());
    p.q.left(slow, 1, 0);
    CHECK(p.publish());
    CHECK(!p.publish());
    p.q.left(slow, 10, 0);
    p.q.left(fast, 1, 0);
    CHECK(!p.publish(11));
    CHECK(p.publish(10));
    SUBCASE("what comes back counts again") {
        p.q.left(fast, 10, 0);
        p.q.left(slow, 10, 0);
        CHECK(p.publish(4));
        p.q.left(slow, -3, 0); // dead letters that live again
        CHECK(p.publish(3));
        CHECK(!p.publish());
    }
    SUBCASE("who is gone holds nobody back") {
        p.q.left(fast, 10, 0);
        CHECK(!p.publish());
        p.q.close(slow);
        CHECK(p.publish(10));
        CHECK(!p.publish());
    }
    SUBCASE("who comes begins with what it has to settle") {
        p.q.left(fast, 10, 0);
        p.q.left(slow, 10, 0);
        account late(true);
        p.open(late, 8);
        CHECK(!p.publish(3));
        CHECK(p.publish(2));
        CHECK(p.q.over(late, 0, 0).messages == 0);
        CHECK(p.q.over(late, 1, 0).messages == 1);
        CHECK(!p.q.over(fast, 1, 0));
    }
}

TEST_CASE("quota: says how far an account is over, in messages and in bytes") {
    publishing p(10, 100);
    account a(true);
    p.open(a, 4, 40);
    CHECK(!p.q.over(a, 6, 60));
    CHECK(p.q.over(a, 7, 60).messages == 1);
    CHECK(p.q.over(a, 7, 60).bytes == 0);
    CHECK(p.q.over(a, 6, 65).bytes == 5);
    CHECK(p.q.over(a, 16, 165).messages == 10);
    CHECK(p.q.over(a, 16, 165).bytes == 105);
    CHECK(p.publish(1, 60));
    CHECK(!p.publish(1, 1));
    CHECK(p.publish(1, 0));
    p.q.left(a, 1, 60);
    CHECK(p.publish(1, 60));
    CHECK(p.q.has_ample_room(0, 4));
    CHECK(!p.q.has_ample_room(0, 5));
}

TEST_CASE("quota: what cannot be opened has no account") {
    publishing p(5);
    account a(true), b(true);
    p.open(a);
    CHECK_THROWS_AS(p.q.open(b, []() -> std::pair<std::uint64_t, std::uint64_t> { throw std::runtime_error("no place"); }), std::runtime_error);
    CHECK(p.publish(5));
    p.q.left(a, 5, 0);
    CHECK(p.publish(5)); // b has settled nothing, and nobody asks
}

TEST_CASE("quota: an ephemeral account that can lose nothing more holds nobody back, until it settles some") {
    publishing p(10);
    account e(false);
    p.open(e);
    CHECK(!e.durable());
    CHECK(p.publish(10));
    CHECK(!p.publish()); // whoever publishes asks it to drop some first
    e.set_stuck();
    CHECK(p.publish(5));
    CHECK(p.q.over(e, 0, 0).messages == 5);
    p.q.left(e, 1, 0); // 14 to go
    CHECK(!p.publish());
    p.q.left(e, 4, 0);
    CHECK(!p.publish());
    p.q.left(e, 1, 0);
    CHECK(p.publish());
    CHECK(!p.publish());
    SUBCASE("a durable one does so in any case") {
        account d(true);
        p.open(d, 10);
        d.set_stuck();
        CHECK(!p.publish());
        p.q.left(e, 10, 0);
        CHECK(!p.publish());
    }
}

TEST_CASE("quota: who waits for room is woken when some is settled, an account is closed, or the topic goes") {
    publishing p(1);
    account a(true), b(true);
    p.open(a);
    p.open(b);
    CHECK(p.publish());
    counting_waiter w, w2;
    p.q.join(w, 1);
    p.q.join(w2, 1);
    p.q.left(a, 1, 0);
    CHECK(w.woken == 1);
    CHECK(w2.woken == 1);
    CHECK(!p.q.leave(w, 1));
    p.q.join(w, 1);
    CHECK(p.q.leave(w, 1));
    p.q.left(b, 1, 0);
    CHECK(w.woken == 1);
    p.q.join(w, 1);
    p.q.close(b);
    CHECK(w.woken == 2);
    p.q.join(w, 1);
    p.q.abandon();
    CHECK(w.woken == 3);
    p.q.join(w, 1);
    p.q.join(w2, 1);
    p.q.wake(1);
    CHECK(w.woken == 4);
    CHECK(w2.woken == 1);
    CHECK(p.q.leave(w2, 1));
}

TEST_CASE("quota: a budget is charged for what the slowest has not settled, and gets it back") {
    memory_budget budget(100);
    publishing p(0, 0, &budget);
    CHECK(p.publish(1, 1000)); // for nobody
    CHECK(budget.used() == 0);
    account fast(true), slow(true);
    p.open(fast);
    p.open(slow);
    CHECK(p.publish(1, 60));
    CHECK(budget.used() == 60); // once, however many subscribe
    CHECK(!p.publish(1, 41));
    CHECK(budget.used() == 60);
    p.q.left(fast, 1, 60);
    CHECK(budget.used() == 60);
    p.q.left(slow, 1, 50);
    CHECK(budget.used() == 10);
    CHECK(p.publish(1, 90));
    CHECK(budget.used() == 100);
    SUBCASE("when an account is closed") {
        p.q.close(slow);
        CHECK(budget.used() == 90);
        p.q.close(fast);
        CHECK(budget.used() == 0);
    }
    SUBCASE("when the topic goes") {
        p.q.abandon();
        CHECK(budget.used() == 0);
        p.q.left(slow, 1, 10); // by a late holder
        CHECK(budget.used() == 0);
    }
    SUBCASE("and is charged for what a new one has to settle, though that exceeds it") {
        account late(true);
        p.open(late, 10, 130);
        CHECK(budget.used() == 130);
        CHECK(!p.publish(1, 1));
        p.q.left(late, 1, 40);
        p.q.left(slow, 1, 10);
        CHECK(budget.used() == 90);
        CHECK(p.publish(1, 10));
    }
    SUBCASE("when the log is closed, which takes nothing") {
        p.q.left(slow, 1, 10);
        p.q.left(fast, 1, 0);
        CHECK(budget.used() == 90);
        p.log.close();
        CHECK(!p.publish(1, 5));
        CHECK(budget.used() == 90);
    }
}

TEST_CASE("quota: a log that throws costs nothing") {
    failing_log log;
    memory_budget budget(100);
    publishing p(5, 0, &budget);
    account a(true);
    p.open(a);
    bool full = true;
    CHECK_THROWS_AS(p.q.reserve(log, 1, 60, duration::zero(), full), std::bad_alloc);
    CHECK(budget.used() == 0);
    CHECK(p.publish(5, 100));
}

TEST_CASE("quota: room in one topic wakes who waits in another that shares its budget") {
    memory_budget budget(100);
    publishing one(0, 0, &budget), other(0, 0, &budget);
    account a(true), b(true);
    one.open(a);
    other.open(b);
    CHECK(one.publish(1, 70));
    CHECK(other.publish(1, 30));
    CHECK(!other.publish(1, 1));
    counting_waiter w;
    other.q.join(w, 1);
    one.q.left(a, 1, 70);
    CHECK(w.woken == 1);
    CHECK(other.publish(1, 70));
    CHECK(!one.publish(1, 1));
    other.q.abandon();
    CHECK(one.publish(1, 100));
}

TEST_CASE("quota: random subscriptions of two topics get exactly the room there is") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        support::dice dice(seed);
        struct subject {
            std::unique_ptr<account> a;
            std::uint64_t messages, bytes; // to settle
            bool stuck = false;
        };
        struct side {
            std::unique_ptr<publishing> p;
            std::vector<subject> all;
            std::uint64_t charge() const {
                std::uint64_t most = 0;
                for (const subject& s : all) { most = std::max(most, s.bytes); }
                return most;
            }
        };
        const std::size_t messages = dice.percent(60) ? dice.below(20) + 1 : 0, bytes = dice.percent(40) ? dice.below(200) + 20 : 0;
        memory_budget budget(dice.below(300) + 50);
        const bool budgeted = dice.percent(50);
        std::vector<side> sides(2);
        for (side& s : sides) { s.p = std::make_unique<publishing>(messages, bytes, budgeted ? &budget : nullptr); }
        bool right = true;
        for (int step = 0; step < 300 && right; ++step) {
            side& s = sides[dice.below(2)];
            const unsigned what = dice.below(10);
            const bool any = !s.all.empty();
            subject* const one = any ? &s.all[dice.below(static_cast<unsigned>(s.all.size()))] : nullptr;
            if (what < 4) {
                const std::uint64_t n = dice.below(4) + 1, b = dice.below(40) + 1;
                const bool fits = std::all_of(s.all.begin(), s.all.end(), [&](const subject& x) {
                    return x.stuck || ((messages == 0 || x.messages + n <= messages) && (bytes == 0 || x.bytes + b <= bytes));
                });
                const std::uint64_t used = sides[0].charge() + sides[1].charge();
                const bool affordable = !budgeted || !any || used + b <= budget.limit();
                right = s.p->publish(n, b) == (fits && affordable);
                if (fits && affordable) {
                    for (subject& x : s.all) { x.messages += n, x.bytes += b; }
                }
            } else if (what < 8 && any) {
                const std::uint64_t n = dice.below(static_cast<unsigned>(one->messages) + 1), b = dice.below(static_cast<unsigned>(one->bytes) + 1);
                one->messages -= n, one->bytes -= b;
                one->stuck = false;
                s.p->q.left(*one->a, static_cast<std::int64_t>(n), static_cast<std::int64_t>(b));
            } else if (what == 8) {
                if (any && dice.percent(50)) {
                    s.p->q.close(*one->a);
                    s.all.erase(s.all.begin() + (one - s.all.data()));
                } else if (s.all.size() < 4) {
                    s.all.push_back({std::make_unique<account>(dice.percent(60)), dice.below(5), dice.below(50)});
                    s.p->open(*s.all.back().a, s.all.back().messages, s.all.back().bytes);
                }
            } else if (any && !one->a->durable() && s.p->q.over(*one->a, 1, 1)) { // as a topic says it, where nothing can be dropped
                one->a->set_stuck();
                one->stuck = true;
            }
            right = right && (!budgeted || budget.used() == sides[0].charge() + sides[1].charge());
            if (!right) { FAIL_CHECK("MAILROOM_TEST_SEED=", seed, " at step ", step); }
        }
        for (side& s : sides) { s.p->q.abandon(); }
        return right && budget.used() == 0;
    });
}

TEST_CASE("quota: many publish and settle at once, and never one message more than allowed is unsettled") {
    constexpr std::size_t limit = 7;
    const std::uint64_t count = support::cases(40'000);
    publishing p(limit);
    std::array<account, 2> accounts{account(true), account(true)};
    for (account& a : accounts) { p.open(a); }
    std::array<std::atomic<std::uint64_t>, 2> settling{};
    std::atomic<std::uint64_t> most{0}, refused{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] {
            while (p.log.head() < count) {
                if (!p.publish()) {
                    refused.fetch_add(1);
                    std::this_thread::yield();
                    continue;
                }
                const std::uint64_t head = p.log.head();
                for (const auto& s : settling) { // begun to be settled, at least; so so many are not, at least
                    const std::uint64_t begun = s.load(), open = head > begun ? head - begun : 0;
                    for (std::uint64_t seen = most; seen < open && !most.compare_exchange_weak(seen, open);) {}
                }
            }
        });
    }
    for (std::size_t t = 0; t < 2; ++t) {
        threads.emplace_back([&, t] {
            for (std::uint64_t done = 0; done < count;) {
                const std::uint64_t n = std::min(p.log.head() - done, t + 1);
                if (n == 0) {
                    std::this_thread::yield();
                    continue;
                }
                settling[t].fetch_add(n);
                p.q.left(accounts[t], static_cast<std::int64_t>(n), 0);
                done += n;
            }
        });
    }
    for (auto& t : threads) { t.join(); }
    CHECK(most > 0);
    CHECK(most <= limit);
    CHECK(refused > 0);
    // Whatever came in beyond `count` is there yet; exactly the rest of the room is left.
    const std::uint64_t left = *std::max_element(settling.begin(), settling.end(), [](const auto& a, const auto& b) { return a.load() > b.load(); });
    const std::uint64_t room = limit - (p.log.head() - left);
    for (std::uint64_t i = 0; i < room; ++i) { CHECK(p.publish()); }
    CHECK(!p.publish());
}

TEST_CASE("quota: two topics share a budget under many threads, and it is never exceeded, nor lost") {
    memory_budget budget(100);
    const std::uint64_t each = support::cases(20'000);
    std::array<publishing, 2> topics{publishing(0, 0, &budget), publishing(0, 0, &budget)};
    std::array<account, 2> accounts{account(true), account(true)};
    std::array<std::atomic<std::uint64_t>, 2> sent{};
    std::atomic<std::size_t> most{0};
    const auto look = [&] {
        const std::size_t used = budget.used();
        for (std::size_t seen = most; seen < used && !most.compare_exchange_weak(seen, used);) {}
    };
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 2; ++t) {
        topics[t].open(accounts[t]);
        threads.emplace_back([&, t] {
            while (sent[t] < each) {
                if (topics[t].publish(1, 30)) {
                    sent[t].fetch_add(1);
                } else {
                    std::this_thread::yield();
                }
                look();
            }
        });
        threads.emplace_back([&, t] {
            for (std::uint64_t done = 0; done < each;) {
                if (sent[t] == done) {
                    std::this_thread::yield();
                    continue;
                }
                topics[t].q.left(accounts[t], 1, 30);
                ++done;
                look();
            }
        });
    }
    for (auto& t : threads) { t.join(); }
    CHECK(most > 30);
    CHECK(most <= 100);
    CHECK(budget.used() == 0);
    CHECK(topics[0].publish(1, 100));
    CHECK(!topics[1].publish(1, 1));
}
