// A cursor over a log that is made up here: no bodies, no stream, no threads but the last case's.
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/testing.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using namespace mailroom::detail;
using mailroom::duration;
using mailroom::offset;
using verb = cursor::verb;

namespace {

// The log: `head_` messages of 10 bytes, sent at time zero. It notes what it is told.
class made_up_log final : public cursor_host {
public:
    struct block {
        std::map<std::uint32_t, std::unique_ptr<envelope>> covers;
    };

    mailroom::testing::manual_clock clock;
    cursor c;
    std::atomic<offset> sent{0};
    std::map<offset, std::unique_ptr<block>> blocks; // installed
    std::size_t detached = 0, nodes = 0;
    std::int64_t messages_left = 0, bytes_left = 0;
    std::uint64_t ended = 0;
    std::size_t woken = 0, deaths = 0;
    long holds = 0;

    explicit made_up_log(const cursor_options& o) : c(*this, clock, o, true) {}
    ~made_up_log() {
        c.orphan([](std::size_t) {});
        c.clear();
        CHECK(nodes == 0);
        CHECK(detached == 0);
        CHECK(holds == 0);
    }

    void send(offset n = 1) {
        for (const offset end = sent + n; sent < end; ++sent) {
            auto& b = blocks[sent - index_in_span(sent)];
            if (b == nullptr) { b = std::make_unique<block>(); }
        }
    }
    // With times of its own.
    void send(duration due, duration expires) {
        send();
        auto cover = std::make_unique<envelope>();
        cover->due = due;
        cover->expires = expires;
        const offset o = sent - 1;
        blocks[o - index_in_span(o)]->covers[index_in_span(o)] = std::move(cover);
        c.note_timed(o, expires);
    }

    // What a store does to receive.
    handle receive() {
        for (;;) {
            if (!c.lane_is_open([this] { return clock.now(); })) {
                handle at;
                at.place = mailroom::no_offset;
                if (c.claim_index(1, [&](entry& e) { at = {&e, e.turn, e.attempt, e.offset}; }) != 0 || c.is_always_index() || c.paused()) {
                    return at;
                }
            }
            const auto claim = c.claim_lane(1, [this] { return sent.load(); });
            if (claim.count == 0) {
                if (claim.index_first) { continue; }
                return {nullptr, 0, 0, mailroom::no_offset};
            }
            page& p = *claim.where;
            const std::uint32_t i = index_in_span(claim.first);
            const auto& covers = static_cast<block*>(p.block)->covers;
            if (const auto cover = covers.find(i);
                cover != covers.end() && (cover->second->due > clock.now() || cover->second->expires <= clock.now())) {
                c.divert(p, i);
                continue;
            }
            c.expect_lease(p, clock.now());
            p.state[i].store(c.lease_word(clock.now()), std::memory_order_release);
            return {&p, 0, 1, claim.first};
        }
    }
    bool settle(const handle& at, verb what, duration after = 0s, std::string reason = "") {
        if (at.turn == 0 && what == verb::ack) {
            page& p = *static_cast<page*>(at.where);
            if (cursor::end_lease(p, index_in_span(at.place))) {
                ++ended;
                p.state[index_in_span(at.place)].store(lane_state::released, std::memory_order_release);
                return true;
            }
        }
        return c.settle(at, what, after, std::move(reason)).done;
    }

    offset head() const noexcept override { return sent; }
    void* block_of(offset first) const noexcept override { return blocks.at(first - index_in_span(first)).get(); }
    view look(void* b, std::uint32_t i) noexcept override {
        const auto& covers = static_cast<block*>(b)->covers;
        const auto cover = covers.find(i);
        return {b, cover != covers.end() ? cover->second.get() : nullptr, 0s, 10};
    }
    void* evacuate(void*, std::uint32_t) noexcept override {
        ++nodes;
        return &nodes;
    }
    const void* body_of(void* node) const noexcept override { return node; }
    void end(const entry& e) noexcept override {
        ++ended;
        if (e.node != nullptr) { --nodes; }
    }
    std::uint64_t weigh(offset first, offset last) const noexcept override { return (last - first) * 10; }
    std::uint64_t weight(void*, std::uint32_t) const noexcept override { return 10; }
    duration sent_if_plain(void*, std::uint32_t) const noexcept override { return 0s; }
    void release_block(offset first, void* b) noexcept override {
        const auto at = blocks.find(first);
        if (at != blocks.end() && at->second.get() == b) {
            if (at->second->covers.empty()) {
                blocks.erase(at);
            } else {
                graves.push_back(std::move(at->second)); // envelopes are the entries' until the end
                blocks.erase(at);
            }
        } else {
            --detached;
            delete static_cast<block*>(b);
        }
    }
    void detach_block(offset first, void*) noexcept override {
        ++detached;
        static_cast<void>(blocks.at(first).release());
        blocks.erase(first);
    }
    void forget(const envelope&, offset) noexcept override {}
    void remember(const envelope&, offset) noexcept override {}
    void settled(std::int64_t messages, std::int64_t bytes) noexcept override {
        messages_left += messages;
        bytes_left += bytes;
    }
    void wake(std::size_t receivers) noexcept override { woken += receivers != 0; }
    void somebody_died() noexcept override { ++deaths; }
    void hold() noexcept override { ++holds; }
    void let_go() noexcept override { --holds; }

private:
    std::vector<std::unique_ptr<block>> graves;
};

cursor_options with_lease(duration lease) {
    cursor_options o;
    o.lease = lease;
    o.retry.initial = 1s;
    return o;
}

constexpr offset nothing_there = mailroom::no_offset;

} // namespace

TEST_CASE("cursor: hands out the lane in order, once, and ends where the log ends") {
    made_up_log log(with_lease(30s));
    CHECK(log.receive().place == nothing_there);
    log.send(100);
    std::vector<handle> out;
    for (offset o = 0; o < 100; ++o) {
        out.push_back(log.receive());
        CHECK(out.back().place == o);
        CHECK(out.back().attempt == 1);
    }
    CHECK(log.receive().place == nothing_there);
    CHECK(log.c.next() == 100);
    CHECK(!log.c.may_have(100));
    CHECK(log.c.may_have(101));
    for (auto& at : out) { CHECK(log.settle(at, verb::ack)); }
    for (auto& at : {out[99], out[98]}) { CHECK(!log.settle(at, verb::ack)); }
    CHECK(log.ended == 100);
    CHECK(log.c.count().acked == 100);
}

TEST_CASE("cursor: many claimed at once never cross a page or the end") {
    made_up_log log(with_lease(0s));
    log.send(span + 3);
    const auto head = [&] { return log.sent.load(); };
    const auto first = log.c.claim_lane(1000, head);
    CHECK(first.count == span);
    CHECK(first.known == span + 3);
    const auto second = log.c.claim_lane(1000, head);
    CHECK(second.first == span);
    CHECK(second.count == 3);
    CHECK(log.c.claim_lane(1000, head).count == 0);
    for (const auto& claim : {first, second}) {
        for (std::size_t i = 0; i < claim.count; ++i) { claim.where->state[i].store(lane_state::released); }
    }
}

TEST_CASE("cursor: what failed comes back after its pause, before what is younger, its attempt one more") {
    made_up_log log(with_lease(30s));
    log.send(5);
    const handle zero = log.receive();
    const handle one = log.receive();
    CHECK(log.settle(zero, verb::nack));
    CHECK(log.settle(one, verb::release));
    CHECK(log.c.deadline() == 1s);
    handle next = log.receive();
    CHECK(next.place == 1);
    CHECK(next.attempt == 1);
    CHECK(log.receive().place == 2);
    log.clock.advance(1s);
    next = log.receive();
    CHECK(next.place == 0);
    CHECK(next.attempt == 2);
    CHECK(log.settle(next, verb::nack_after, 7s));
    CHECK(log.c.count().parked == 1);
    CHECK(log.receive().place == 3);
    log.clock.advance(7s);
    next = log.receive();
    CHECK(next.attempt == 3);
    CHECK(log.settle(next, verb::ack));
    CHECK(log.receive().place == 4);
    const auto counted = log.c.count();
    CHECK(counted.in_flight == 4);
    CHECK(counted.acked == 1);
    CHECK(counted.redelivered == 2);
}

TEST_CASE("cursor: an acknowledgement ends one lease, of one turn") {
    made_up_log log(with_lease(10s));
    log.send(2);
    const handle first = log.receive();
    log.clock.advance(10s);
    log.c.step();
    CHECK(log.c.count().ready == 2);
    const handle second = log.receive();
    CHECK(second.place == 0);
    CHECK(second.attempt == 2);
    CHECK(!log.c.extend(first, 1h));
    CHECK(log.c.extend(second, 1h));
    CHECK(log.c.extend(0, 2, 1h));
    CHECK(!log.c.extend(0, 1, 1h));
    CHECK(!log.settle(first, verb::ack));
    CHECK(log.settle(second, verb::ack));
    const handle lapsed = log.receive();
    log.clock.advance(10s);
    log.c.step();
    CHECK(log.settle(lapsed, verb::ack)); // nobody was given it since
    CHECK(log.receive().place == nothing_there);
}

TEST_CASE("cursor: attempts run out, messages expire, and each death is told and counted") {
    cursor_options o = with_lease(10s);
    o.retry.max_attempts = 2;
    o.max_dead = 2;
    made_up_log log(o);
    log.send(1);
    log.settle(log.receive(), verb::nack);
    log.clock.advance(1s);
    log.settle(log.receive(), verb::nack);
    CHECK(log.c.dead_count() == 1);
    CHECK(log.deaths > 0);
    CHECK(log.messages_left == 1);
    CHECK(log.bytes_left == 10);
    log.send(duration::min(), log.clock.now() + 5s);
    log.send(duration::min(), log.clock.now() + 9s);
    CHECK(log.c.deadline() == log.clock.now() + 5s);
    log.clock.advance(5s);
    CHECK(log.c.count().expired == 1);
    CHECK(log.c.deadline() == log.clock.now() + 4s);
    log.clock.advance(4s);
    log.c.step();
    CHECK(log.c.dead_count() == 2); // the oldest had to go
    auto counted = log.c.count();
    CHECK(counted.dropped == 1);
    CHECK(counted.expired == 2);
    CHECK(counted.acked == 0);
    CHECK(log.c.dead_places() == std::vector<offset>{1, 2});
    CHECK(log.c.redrive(1) == 1);
    CHECK(log.messages_left == 2);
    CHECK(log.c.purge_dead() == 1);
    CHECK(log.c.purge() == 1);
    CHECK(log.messages_left == 3);
}

TEST_CASE("cursor: delayed messages let others pass, and wake nobody before their time") {
    made_up_log log(with_lease(0s));
    log.send(5s, duration::max());
    log.send(1);
    CHECK(log.receive().place == 1);
    CHECK(log.receive().place == nothing_there);
    CHECK(log.c.deadline() == 5s);
    CHECK(!log.c.may_have(2));
    const std::size_t before = log.woken;
    log.c.step();
    CHECK(log.woken == before);
    log.clock.advance(5s);
    log.c.step();
    CHECK(log.woken > before);
    CHECK(log.c.may_have(2));
    CHECK(log.receive().place == 0);
}

TEST_CASE("cursor: millions pass a stuck lease, a delayed message and a dead one, and cost nothing") {
    made_up_log log(with_lease(0s));
    log.send(1);
    const handle stuck = log.receive();
    log.send(1);
    log.settle(log.receive(), verb::reject);
    log.send(1h, duration::max());
    std::size_t most = 0;
    const offset count = support::cases(2'000'000);
    for (offset o = 0; o < count; ++o) {
        log.send(1);
        REQUIRE(log.settle(log.receive(), verb::ack));
        most = std::max(most, log.blocks.size() + log.detached + log.nodes);
    }
    CHECK(most < 100);
    CHECK(log.settle(stuck, verb::ack));
    CHECK(log.c.count().acked == count + 1);
}

TEST_CASE("cursor: paused or full of flights it hands out nothing, and says so") {
    cursor_options o = with_lease(30s);
    o.max_in_flight = 1;
    made_up_log log(o);
    log.send(3);
    const handle only = log.receive();
    CHECK(log.receive().place == nothing_there);
    CHECK(!log.c.may_have(3));
    log.settle(only, verb::ack);
    CHECK(log.c.may_have(3));
    log.c.pause(true);
    CHECK(log.receive().place == nothing_there);
    log.c.pause(false);
    CHECK(log.receive().place == 1);
}

TEST_CASE("cursor: knows what is left before everything is settled") {
    made_up_log log(with_lease(0s));
    CHECK(log.c.remaining() == cursor::rest::nothing);
    log.send(2);
    CHECK(log.c.remaining() == cursor::rest::some);
    const handle a = log.receive();
    const handle b = log.receive();
    CHECK(log.c.remaining() == cursor::rest::some);
    log.settle(a, verb::ack);
    log.settle(b, verb::nack);
    CHECK(log.c.remaining() == cursor::rest::some);
    log.clock.advance(1s);
    log.settle(log.receive(), verb::reject);
    CHECK(log.c.remaining() == cursor::rest::nothing); // the dead are settled
    log.send(1);
    const auto claim = log.c.claim_lane(1, [&] { return log.sent.load(); });
    CHECK(log.c.remaining() == cursor::rest::momentarily); // somebody is about to say
    claim.where->state[index_in_span(claim.first)].store(lane_state::released);
    CHECK(log.c.remaining() == cursor::rest::nothing);
}

TEST_CASE("cursor: random verbs keep its counts right, in the lane and in the index") {
    support::for_each_seed(60, [](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        cursor_options o = with_lease(dice.percent(50) ? 20s : 0s);
        o.retry.max_attempts = dice.percent(50) ? 3 : 0;
        o.max_in_flight = dice.percent(30) ? 5 : 0;
        o.drops_oldest = true;
        made_up_log log(o);
        std::vector<handle> held;
        std::uint64_t acked = 0;
        for (int step = 0; step < 2000; ++step) {
            switch (dice.below(8)) {
            case 0: log.send(dice.below(4)); break;
            case 1: log.send(log.clock.now() + dice.below(10) * 1s, log.clock.now() + (1 + dice.below(30)) * 1s); break;
            case 2:
                if (dice.percent(5)) { log.c.purge(); }
                if (dice.percent(10)) { log.c.drop_oldest(); }
                if (dice.percent(10)) { log.c.redrive(dice.below(3)); }
                break;
            case 3: log.clock.advance(dice.below(3) * 500ms); break;
            case 4:
            case 5: {
                const handle at = log.receive();
                if (at.place != nothing_there) { held.push_back(at); }
                break;
            }
            default: {
                if (held.empty()) { break; }
                const std::size_t i = dice.below(static_cast<unsigned>(held.size()));
                const verb what = dice.percent(60) ? verb::ack : static_cast<verb>(dice.below(5));
                const bool done = log.settle(held[i], what, 1s);
                acked += done && what == verb::ack;
                held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
            }
            }
            if (step % 50 != 0) { continue; }
            const auto n = log.c.count();
            if (n.acked != acked || log.sent != n.ready + n.in_flight + n.parked + n.dead + n.acked + n.dropped) {
                FAIL("step " << step << ": " << n.acked << " acked, expected " << acked);
                break;
            }
        }
        const bool right = log.c.count().acked == acked;
        for (const handle& at : held) { log.settle(at, verb::nack); }
        return right;
    });
}

TEST_CASE("cursor: many claim the lane at once, and nobody gets what another has") {
    made_up_log log(with_lease(0s));
    const offset count = support::cases(200'000);
    log.send(count);
    std::vector<std::atomic<std::uint8_t>> seen(count);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            for (;;) {
                const auto claim = log.c.claim_lane(1 + t * 5, [&] { return log.sent.load(); });
                if (claim.count == 0) { return; }
                for (offset o = claim.first; o < claim.first + claim.count; ++o) {
                    ++seen[o];
                    claim.where->state[index_in_span(o)].store(lane_state::released, std::memory_order_release);
                }
            }
        });
    }
    for (auto& t : threads) { t.join(); }
    CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }));
    CHECK(log.c.remaining() == cursor::rest::nothing);
}
