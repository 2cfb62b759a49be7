// The power is cut, or the process killed, at every call to the disk that transactions make: each took place as a whole or not at all, and a
// pipeline of them hands on each message exactly once.
#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/crash_explorer.hpp>
#include <mailroom/transaction.hpp>

#include "support/journal_oracle.hpp"
#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using mailroom::transaction;
using mailroom::testing::crash_explorer;
using mailroom::testing::crash_options;
using mailroom::testing::manual_clock;
using support::disk;
using support::open_well;
using support::parcel;
using support::parcel_id;
using support::sim_journal;
using support::sim_queue;
using support::verify_well;
using namespace std::chrono_literals;

namespace {

using sim_topic = mailroom::topic<std::string, sim_journal>;

const mailroom::queue_options<std::string> patient{.lease = 10s, .retry = {.max_attempts = 0, .initial = 0s}};

/// The ids of all that can be received, which is given back.
template <class From>
std::vector<unsigned> look(From& from) {
    std::vector<unsigned> ids;
    std::vector<mailroom::delivery<std::string>> held;
    while (auto d = from.try_receive()) {
        ids.push_back(parcel_id(d->body()));
        held.push_back(std::move(*d));
    }
    for (auto& d : held) { d.release(); }
    return ids;
}

// --------------------------------------------------------------------------------------------------------------------------- pipelines

struct fed {
    std::set<unsigned> sent;
    unsigned last = 0; // that was tried
    unsigned lives = 0;
};

// in -> (a topic ->) out: each step takes a message, and sends what comes of it, in one transaction; with failures of all kinds.
class pipeline {
public:
    pipeline(disk files, std::uint64_t seed, bool is_long, unsigned life)
        : chance_(seed), is_long_(is_long), clock_(1000h * life), journal_("data", {.segment_bytes = 64 << 10, .clock = &clock_}, std::move(files)) {
        open_well(journal_);
        in_.emplace(journal_, "in", patient);
        out_.emplace(journal_, "out", patient);
        middle_.emplace(journal_, "middle");
        worker_.emplace(middle_->subscribe("worker", {.mode = mailroom::sharing::shared, .lease = 10s, .retry = {.max_attempts = 0, .initial = 0s}}));
    }
    void feed(fed& n, unsigned messages) {
        while (n.last < messages) {
            const unsigned id = ++n.last;
            in_->send(parcel(id, chance_.percent(20) ? 3000 + chance_.below(6000) : 20 + chance_.below(100)));
            n.sent.insert(id);
            if (chance_.percent(50)) { step(); }
        }
    }
    void drain() {
        for (int i = 0; i < 2; ++i) { // what waits for a time, too
            while (step()) {}
            clock_.advance(1h);
        }
        while (step()) {}
    }
    std::vector<unsigned> output() {
        verify_well(journal_);
        const auto left = in_->statistics();
        const auto also = middle_->statistics();
        if (const auto n = left.ready + left.in_flight + left.parked + left.dead; n != 0) {
            throw std::runtime_error("of what came in is left: ready " + std::to_string(left.ready) + ", in flight " +
                                     std::to_string(left.in_flight) + ", parked " + std::to_string(left.parked) + ", dead " +
                                     std::to_string(left.dead));
        }
        if (const auto n = also.ready + also.in_flight + also.parked + also.dead; n != 0) {
            throw std::runtime_error("of the topic is left: ready " + std::to_string(also.ready) + ", in flight " + std::to_string(also.in_flight) +
                                     ", parked " + std::to_string(also.parked) + ", dead " + std::to_string(also.dead));
        }
        return look(*out_);
    }

private:
    bool step() {
        if (is_long_ && chance_.percent(50)) { return work(*worker_, false) || work(*in_, true); }
        return work(*in_, is_long_) || (is_long_ && work(*worker_, false));
    }
    template <class From>
    bool work(From& from, bool to_middle) {
        auto d = from.try_receive();
        if (!d) { return false; }
        const unsigned how = chance_.below(10);
        if (how == 0) {
            d->nack(0s);
            return true;
        }
        transaction tx(journal_, {.lease = 10s});
        if (to_middle) {
            tx.publish(*middle_, d->body(), {.key = std::to_string(parcel_id(d->body()))});
        } else {
            tx.send(*out_, d->body());
        }
        if (how == 1) { return true; } // rolled back, and nacked
        if (!tx.ack(*d)) { throw std::runtime_error("a delivery that cannot be acknowledged"); }
        if (how == 2) { return true; }
        if (how == 3) { // too slow
            clock_.advance(11s);
            auto another = from.try_receive();
            try {
                tx.commit();
                if (another && another->offset() == d->offset()) { throw std::runtime_error("a lost delivery was committed"); }
            } catch (const mailroom::error& e) {
                if (e.kind() != mailroom::errc::not_found) { throw; }
            }
            return true;
        }
        if (how == 4) {
            tx.rollback();
            transaction next(journal_);
            next.send(to_middle ? *in_ : *out_, d->body()); // round again, or on
            next.ack(std::move(*d));
            next.commit();
            return true;
        }
        tx.commit();
        return true;
    }

    support::dice chance_;
    const bool is_long_;
    manual_clock clock_; // of a later life it is later
    sim_journal journal_;
    std::optional<sim_queue> in_, out_;
    std::optional<sim_topic> middle_;
    std::optional<mailroom::subscription<std::string>> worker_;
};

void exactly_once(std::vector<unsigned> got, const fed& n) {
    std::sort(got.begin(), got.end());
    if (std::adjacent_find(got.begin(), got.end()) != got.end()) { throw std::runtime_error("one came out twice"); }
    for (const unsigned id : n.sent) {
        if (!std::binary_search(got.begin(), got.end(), id)) { throw std::runtime_error("message " + std::to_string(id) + " did not come out"); }
    }
    for (const unsigned id : got) {
        if (id == 0 || id > n.last) { throw std::runtime_error("message " + std::to_string(id) + " was never sent"); }
    }
}

void explore_pipeline(bool is_long, unsigned messages, crash_options o) {
    const auto seed = support::seed();
    CAPTURE(seed);
    o.seed = seed;
    const auto found = crash_explorer(o).explore<fed>(
        [&](disk files, fed& n) {
            const unsigned life = n.lives++;
            pipeline p(std::move(files), seed + life, is_long, life);
            p.feed(n, messages);
            p.drain();
        },
        [&](disk files, const fed& n) {
            pipeline p(std::move(files), seed * 31, is_long, n.lives);
            p.drain();
            exactly_once(p.output(), n);
        });
    CHECK_MESSAGE(found, found.text());
    MESSAGE(found.text());
}

} // namespace

TEST_CASE("transaction crash: in, out: exactly once, wherever the power is cut") { explore_pipeline(false, 6, {.limit = support::scaled(150)}); }
TEST_CASE("transaction crash: in, topic, out: exactly once, wherever the power is cut") {
    explore_pipeline(true, 6, {.limit = support::scaled(120)});
}
TEST_CASE("transaction crash: exactly once, though what goes on is cut off again") {
    explore_pipeline(true, 4, {.limit = support::scaled(12), .random_losses = 1, .tail_losses = 0, .lives = 3, .cuts_per_life = 1});
}

// ---------------------------------------------------------------------------------------------------------------------- all or nothing

namespace {

constexpr std::size_t places = 4; // three queues and a subscription

struct model {
    std::vector<std::set<unsigned>> there = std::vector<std::set<unsigned>>(places);
    friend bool operator==(const model&, const model&) = default;
};
struct known {
    model now;
    std::optional<model> next; // now or this, nobody was told
    unsigned last = 0;
    unsigned lives = 0;
};

class shop {
public:
    shop(disk files, std::uint64_t seed) : chance_(seed), journal_("data", {.segment_bytes = 64 << 10, .clock = &clock_}, std::move(files)) {
        open_well(journal_);
        for (std::size_t i = 0; i + 1 < places; ++i) { queues_.emplace_back(journal_, "q" + std::to_string(i), patient); }
        topic_.emplace(journal_, "t", mailroom::topic_options<std::string>{.partitions = 2});
        subscription_.emplace(topic_->subscribe("s", {.lease = 10s, .retry = {.max_attempts = 0, .initial = 0s}}));
    }
    model found() {
        verify_well(journal_);
        model m;
        for (std::size_t i = 0; i < places; ++i) {
            const std::vector<unsigned> ids = i + 1 < places ? look(queues_[i]) : look(*subscription_);
            m.there[i].insert(ids.begin(), ids.end());
            if (m.there[i].size() != ids.size()) { throw std::runtime_error("one is there twice"); }
        }
        return m;
    }
    /// What is there has to be what is known; then it is known for sure.
    void expect(known& k) {
        const model m = found();
        if (m != k.now && m != k.next) {
            std::string what = "found";
            for (std::size_t i = 0; i < places; ++i) {
                what += " [";
                for (const unsigned id : m.there[i]) { what += std::to_string(id) + ' '; }
                what += "] for [";
                for (const unsigned id : k.now.there[i]) { what += std::to_string(id) + ' '; }
                what += "]";
            }
            throw std::runtime_error(what + (k.next ? ", and it is not the next either" : ""));
        }
        k.now = m;
        k.next.reset();
    }
    void run(known& k, int steps) {
        for (int i = 0; i < steps; ++i) {
            switch (chance_.below(10)) {
            case 0: journal_.compact(); break;
            case 1: plain(k); break;
            default: transact(k);
            }
        }
    }

private:
    std::string next_body(known& k) { return parcel(++k.last, chance_.percent(15) ? 2000 + chance_.below(6000) : 10 + chance_.below(100)); }
    void plain(known& k) {
        k.next = k.now;
        const std::string body = next_body(k);
        const std::size_t where = chance_.below(places);
        k.next->there[where].insert(k.last);
        if (where + 1 < places) {
            queues_[where].send(body);
        } else {
            topic_->publish(body);
        }
        k.now = *std::exchange(k.next, std::nullopt);
    }
    void transact(known& k) {
        model after = k.now;
        std::vector<mailroom::delivery<std::string>> held;
        transaction tx(journal_);
        for (unsigned n = chance_.below(4); n != 0; --n) {
            const std::size_t where = chance_.below(places);
            auto d = where + 1 < places ? queues_[where].try_receive() : subscription_->try_receive();
            if (!d) { continue; }
            after.there[where].erase(parcel_id(d->body()));
            if (!tx.ack(*d)) { throw std::runtime_error("a delivery that cannot be acknowledged"); }
            if (chance_.percent(50)) { held.push_back(std::move(*d)); }
        }
        for (unsigned n = chance_.below(5); n != 0; --n) {
            const std::size_t where = chance_.below(places);
            const std::string body = next_body(k);
            after.there[where].insert(k.last);
            if (where + 1 < places) {
                tx.send(queues_[where], body);
            } else {
                tx.publish(*topic_, body);
            }
        }
        if (chance_.percent(20)) { return; }
        k.next = after;
        tx.commit();
        k.now = *std::exchange(k.next, std::nullopt);
    }

    support::dice chance_;
    manual_clock clock_;
    sim_journal journal_;
    std::vector<sim_queue> queues_;
    std::optional<sim_topic> topic_;
    std::optional<mailroom::subscription<std::string>> subscription_;
};

} // namespace

TEST_CASE("transaction crash: random transactions over queues and a topic: of each all is there or nothing") {
    for (const unsigned lives : {1u, 2u}) {
        const auto seed = support::seed();
        CAPTURE(seed);
        const crash_options o{.limit = support::scaled(lives == 1 ? 60 : 10), .seed = seed, .random_losses = 1, .lives = lives, .cuts_per_life = 1};
        const auto found = crash_explorer(o).explore<known>(
            [&](disk files, known& k) {
                shop s(std::move(files), seed + k.lives++);
                s.expect(k);
                s.run(k, 25);
            },
            [&](disk files, const known& k) {
                known mine = k;
                {
                    shop s(files, seed * 31);
                    s.expect(mine);
                    s.run(mine, 3);
                }
                shop s(files, seed * 37); // as it was left
                s.expect(mine);
            });
        CHECK_MESSAGE(found, found.text());
        MESSAGE(found.text());
    }
}

// ------------------------------------------------------------------------------------------------------------------------ two phases

namespace {

// Two journals, and between them a coordinator whose log no crash reaches: what it decided is there before anybody is told.
struct coordinator {
    fed messages;
    std::set<std::string> committed;
    unsigned last = 0; // transaction
};

class branches {
public:
    branches(disk files, std::uint64_t seed)
        : chance_(seed), here_("here", {.segment_bytes = 64 << 10, .clock = &clock_}, files),
          there_("there", {.segment_bytes = 64 << 10, .clock = &clock_}, files) {
        open_well(here_);
        open_well(there_);
        if (chance_.percent(50)) { open(); } // before anything is decided, or after
    }
    /// Whatever was left in doubt is decided as the coordinator knows.
    void resume(const coordinator& c) {
        for (sim_journal* const j : {&here_, &there_}) {
            for (const std::string& xid : j->in_doubt()) {
                if (c.committed.contains(xid)) {
                    j->commit(xid);
                } else {
                    j->rollback(xid);
                }
            }
            if (!j->in_doubt().empty()) { throw std::runtime_error("still in doubt"); }
        }
        open();
    }
    void feed(fed& n, unsigned messages) {
        while (n.last < messages) {
            const unsigned id = ++n.last;
            in_->send(parcel(id, chance_.percent(20) ? 3000 : 50));
            n.sent.insert(id);
        }
    }
    void drain(coordinator& c) {
        while (auto d = in_->try_receive()) {
            const std::string xid = "tx " + std::to_string(++c.last);
            transaction here(here_), there(there_);
            there.send(*out_, d->body());
            here.ack(std::move(*d));
            if (chance_.percent(10)) { continue; }
            here.prepare(xid);
            if (chance_.percent(20)) {
                here_.rollback(xid);
                continue;
            }
            there.prepare(xid);
            if (chance_.percent(20)) {
                there_.rollback(xid);
                if (chance_.percent(50)) { here_.compact(); }
                here_.rollback(xid);
                continue;
            }
            c.committed.insert(xid);
            if (chance_.percent(20)) { there_.compact(); }
            here_.commit(xid);
            there_.commit(xid);
        }
    }
    std::vector<unsigned> output() {
        verify_well(here_);
        verify_well(there_);
        return look(*out_);
    }

private:
    void open() {
        if (in_) { return; }
        in_.emplace(here_, "in", patient);
        out_.emplace(there_, "out", patient);
    }
    support::dice chance_;
    manual_clock clock_;
    sim_journal here_, there_;
    std::optional<sim_queue> in_, out_;
};

} // namespace

TEST_CASE("transaction crash: prepared in two journals, whose coordinator decides: exactly once, wherever the power is cut") {
    for (const unsigned lives : {1u, 2u}) {
        const auto seed = support::seed();
        CAPTURE(seed);
        const crash_options o{.limit = support::scaled(lives == 1 ? 80 : 12), .seed = seed, .random_losses = 1, .lives = lives, .cuts_per_life = 1};
        const auto found = crash_explorer(o).explore<coordinator>(
            [&](disk files, coordinator& c) {
                branches b(std::move(files), seed + c.messages.lives++);
                b.resume(c);
                b.feed(c.messages, 4);
                b.drain(c);
            },
            [&](disk files, const coordinator& c) {
                coordinator mine = c;
                branches b(std::move(files), seed * 31);
                b.resume(mine);
                b.drain(mine);
                exactly_once(b.output(), mine.messages);
            });
        CHECK_MESSAGE(found, found.text());
        MESSAGE(found.text());
    }
}
