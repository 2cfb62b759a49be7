// A cursor over a log that is made up here: no bodies, no stream, no threads but the last case's.
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/testing.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
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
    void* block_of(offset first) noexcept override { return blocks.at(first - index_in_span(first)).get(); }
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

// ------------------------------------------------------------------------------------------------- a log that others read too, and members

namespace {

// Blocks stay, for others need them; some offsets may be missing, and messages may have keys. Bodies are shared.
class shared_log final : public cursor_host {
public:
    struct block {
        offset first = 0;
        long open = 0; // pages of the cursor
    };

    mailroom::testing::manual_clock clock;
    std::set<offset> missing;
    std::map<offset, std::unique_ptr<envelope>> covers;
    std::int64_t messages_left = 0;
    std::size_t woken = 0;
    long holds = 0;
    std::atomic<offset> sent{0};
    cursor c;

    explicit shared_log(cursor_options o) : c(*this, clock, shared(o), true) {}
    ~shared_log() {
        c.orphan([](std::size_t) {});
        c.clear();
        for (const auto& [first, b] : blocks) { CHECK(b.open == 0); }
        CHECK(holds == 0);
    }
    static cursor_options shared(cursor_options o) {
        o.shares_bodies = true;
        return o;
    }

    void send(offset n = 1, const std::string& key = "") {
        for (const offset end = sent + n; sent < end; ++sent) {
            blocks[sent - index_in_span(sent)].first = sent - index_in_span(sent);
            if (!key.empty()) {
                covers[sent] = std::make_unique<envelope>();
                covers[sent]->props.key = key;
            }
        }
    }
    handle receive(std::uint32_t member = 0) {
        for (;;) {
            if (!c.lane_is_open([this] { return clock.now(); })) {
                handle at;
                at.place = mailroom::no_offset;
                if (c.claim_index(
                        1,
                        [&](entry& e) {
                            at = {&e, e.turn, e.attempt, e.offset};
                        },
                        member) != 0 ||
                    c.is_always_index() || c.paused()) {
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
            if (c.skip_absent(p, i)) { continue; }
            c.expect_lease(p, clock.now());
            p.state[i].store(c.lease_word(clock.now()), std::memory_order_release);
            return {&p, 0, 1, claim.first};
        }
    }
    std::vector<offset> receive_all(std::uint32_t member = 0) {
        std::vector<offset> all;
        for (;;) {
            const handle at = receive(member);
            if (at.place == mailroom::no_offset) { return all; }
            all.push_back(at.place);
            CHECK(ack(at));
        }
    }
    bool settle(const handle& at, verb what, duration after = 0s) { return c.settle(at, what, after, "").done; }
    bool ack(const handle& at) {
        if (at.turn == 0) {
            page& p = *static_cast<page*>(at.where);
            if (cursor::end_lease(p, index_in_span(at.place))) {
                ++messages_left;
                p.state[index_in_span(at.place)].store(lane_state::released, std::memory_order_release);
                return true;
            }
        }
        return settle(at, verb::ack);
    }
    // Where it stood, and below what its pages were open.
    std::pair<offset, offset> seek(offset to) {
        std::pair<offset, offset> told{nothing_there, nothing_there};
        c.seek(to, [&](offset from, offset opened) noexcept { told = {from, opened}; });
        return told;
    }
    std::vector<offset> unsettled() {
        std::vector<offset> some;
        const offset next = c.unsettled(some);
        std::sort(some.begin(), some.end());
        some.push_back(next); // the last: from here on all
        return some;
    }
    long pages() const {
        long n = 0;
        for (const auto& [first, b] : blocks) { n += b.open; }
        return n;
    }

    offset head() const noexcept override { return sent; }
    void* block_of(offset first) noexcept override {
        block& b = blocks.at(first);
        ++b.open;
        return &b;
    }
    view look(void* b, std::uint32_t i) noexcept override {
        const auto cover = covers.find(static_cast<block*>(b)->first + i);
        return {b, cover != covers.end() ? cover->second.get() : nullptr, 0s, 10};
    }
    void* evacuate(void*, std::uint32_t) noexcept override {
        FAIL_CHECK("a body that others look at was moved");
        return nullptr;
    }
    const void* body_of(void* node) const noexcept override { return node; }
    void end(const entry&) noexcept override {}
    std::uint64_t weigh(offset first, offset last) const noexcept override { return (last - first - count_absent(first, last)) * 10; }
    std::uint64_t weight(void*, std::uint32_t) const noexcept override { return 10; }
    duration sent_if_plain(void*, std::uint32_t) const noexcept override { return 0s; }
    std::uint32_t absent(offset first, const void*) const noexcept override {
        std::uint32_t mask = 0;
        for (std::uint32_t i = 0; i < span; ++i) { mask |= missing.count(first + i) != 0 ? std::uint32_t{1} << i : 0; }
        return mask;
    }
    std::uint64_t count_absent(offset first, offset last) const noexcept override {
        return first < last ? static_cast<std::uint64_t>(std::distance(missing.lower_bound(first), missing.lower_bound(last))) : 0;
    }
    offset all_from(offset next, std::vector<offset>& between) const override {
        const offset until = missing.empty() ? 0 : *missing.rbegin() + 1;
        for (; next < until; ++next) {
            if (missing.count(next) == 0) { between.push_back(next); }
        }
        return next;
    }
    void release_block(offset first, void* b) noexcept override {
        CHECK(static_cast<block*>(b)->first == first);
        CHECK(--static_cast<block*>(b)->open >= 0);
    }
    void detach_block(offset, void*) noexcept override {}
    void forget(const envelope&, offset) noexcept override {}
    void remember(const envelope&, offset) noexcept override {}
    void settled(std::int64_t messages, std::int64_t) noexcept override { messages_left += messages; }
    void wake(std::size_t receivers) noexcept override { woken += receivers != 0; }
    void somebody_died() noexcept override {}
    void hold() noexcept override { ++holds; }
    void let_go() noexcept override { --holds; }

private:
    mutable std::map<offset, block> blocks;
};

using offsets = std::vector<offset>;

offsets range(offset from, offset to) {
    offsets all(to - from);
    std::iota(all.begin(), all.end(), from);
    return all;
}

} // namespace

TEST_CASE("cursor: may begin anywhere, and what lies before is not counted") {
    for (const offset begin : {offset{1}, offset{span - 1}, offset{span}, offset{3 * span + 7}}) {
        for (const std::size_t in_flight : {0u, 5u}) { // the lane, the index
            CAPTURE(begin);
            CAPTURE(in_flight);
            cursor_options o = with_lease(30s);
            o.begin = begin;
            o.max_in_flight = in_flight;
            shared_log log(o);
            log.send(begin);
            CHECK(log.c.next() == begin);
            CHECK(!log.c.may_have(begin));
            CHECK(log.receive().place == nothing_there);
            CHECK(log.c.remaining() == cursor::rest::nothing);
            CHECK(log.unsettled() == offsets{begin});
            log.send(3);
            CHECK(log.c.count().ready == 3);
            const handle at = log.receive();
            CHECK(at.place == begin);
            CHECK(log.unsettled() == (in_flight == 0 ? offsets{begin, begin + 1} : offsets{begin, begin + 1, begin + 2, begin + 3}));
            CHECK(log.ack(at));
            CHECK(log.c.count().acked == 1);
            CHECK(log.c.count().ready == 2);
            CHECK(log.receive_all() == offsets{begin + 1, begin + 2});
            CHECK(log.c.count().acked == 3);
            CHECK(log.c.opened_until() == begin - index_in_span(begin) + (index_in_span(begin) + 3 > span ? 2 * span : span));
        }
    }
}

TEST_CASE("cursor: what is missing is passed over, alone or by whole pages, and counted nowhere") {
    for (const std::size_t in_flight : {0u, 5u}) {
        CAPTURE(in_flight);
        cursor_options o = with_lease(30s);
        o.max_in_flight = in_flight;
        shared_log log(o);
        log.missing = {1, 2, 5};
        for (offset i = span; i < 3 * span; ++i) { log.missing.insert(i); }
        log.missing.insert(3 * span + 1);
        log.send(4 * span);
        const std::size_t there = 4 * span - log.missing.size();
        CHECK(log.c.count().ready == there);
        CHECK(log.unsettled().size() == span - 3 + 1 + 1); // behind the last that is missing: all
        const handle first = log.receive();
        const handle second = log.receive();
        CHECK(first.place == 0);
        CHECK(second.place == 3);
        CHECK(log.c.count().ready == there - 2);
        CHECK(log.c.count().in_flight == 2);
        CHECK(log.ack(first));
        CHECK(log.settle(second, verb::nack_after, 0s));
        offsets expected{3, 4};
        for (offset i = 6; i < 4 * span; ++i) {
            if (log.missing.count(i) == 0) { expected.push_back(i); }
        }
        CHECK(log.receive_all() == expected);
        CHECK(log.c.count().acked == there);
        CHECK(log.c.remaining() == cursor::rest::nothing);
        CHECK(log.messages_left == static_cast<std::int64_t>(there));
        CHECK(log.pages() <= 1); // the last goes when the next is opened
    }
}

TEST_CASE("cursor: moved back, what was handed out counts no more, and all comes again as if for the first time") {
    for (const std::size_t in_flight : {0u, 50u}) {
        CAPTURE(in_flight);
        cursor_options o = with_lease(30s);
        o.max_in_flight = in_flight;
        shared_log log(o);
        log.send(2 * span + 5);
        const handle acked = log.receive(), held = log.receive(), nacked = log.receive();
        CHECK(log.ack(acked));
        CHECK(log.settle(nacked, verb::nack));
        for (std::uint32_t i = 0; i < span; ++i) { CHECK(log.ack(log.receive())); }
        const handle other = log.receive();
        const auto [from, opened] = log.seek(0);
        CHECK(from == (in_flight == 0 ? span + 4 : 2 * span + 5));
        CHECK(opened == (in_flight == 0 ? 2 * span : 3 * span));
        CHECK(log.c.next() == 0);
        CHECK(log.c.count().in_flight == 0);
        CHECK(log.c.count().ready == 2 * span + 5);
        CHECK(log.c.count().acked == span + 1); // ever
        CHECK(!log.c.extend(held, 1h));
        const handle again = log.receive();
        CHECK(again.place == 0);
        CHECK(again.attempt == 1);
        const handle held_again = log.receive();
        CHECK(held_again.place == held.place);
        CHECK(!log.ack(held)); // its place is another's now
        CHECK(!log.settle(other, verb::nack));
        CHECK(log.c.extend(held_again, 1h));
        CHECK(log.ack(held_again));
        CHECK(log.ack(again));
        CHECK(log.receive_all() == range(2, 2 * span + 5));
        CHECK(log.c.count().acked == span + 1 + 2 * span + 5);
        CHECK(log.c.remaining() == cursor::rest::nothing);
    }
}

TEST_CASE("cursor: pages of before a move stay until what is out of them is back, and no longer") {
    shared_log log(with_lease(30s));
    log.send(3 * span);
    std::vector<handle> out;
    for (std::uint32_t i = 0; i < 2 * span; ++i) { out.push_back(log.receive()); }
    log.seek(3 * span);
    CHECK(log.pages() == 2);
    for (std::uint32_t i = 0; i < span; ++i) { CHECK(!log.ack(out[i])); }
    CHECK(log.pages() == 1);
    log.seek(0);
    CHECK(log.receive_all() == range(0, 3 * span));
    log.seek(span);
    CHECK(log.pages() == 1);
    for (std::uint32_t i = span; i < 2 * span; ++i) { CHECK(!log.settle(out[i], verb::release)); }
    CHECK(log.pages() == 0);
    CHECK(log.receive_all() == range(span, 3 * span));
}

TEST_CASE("cursor: moved on, what lies between is not handed out; retries and delays of before are over") {
    for (const std::size_t in_flight : {0u, 50u}) {
        cursor_options o = with_lease(30s);
        o.max_in_flight = in_flight;
        shared_log log(o);
        log.send(100);
        CHECK(log.settle(log.receive(), verb::nack_after, 5s));
        log.seek(90);
        CHECK(log.c.deadline() == mailroom::clock::never);
        log.clock.advance(1h);
        CHECK(log.receive_all() == range(90, 100));
        log.seek(100);
        CHECK(log.receive().place == nothing_there);
        log.send(1);
        CHECK(log.receive_all() == offsets{100});
    }
}

TEST_CASE("cursor: moved, the dead that will be read again are gone, the others stay") {
    cursor_options o = with_lease(30s);
    shared_log log(o);
    log.send(6);
    for (int i = 0; i < 4; ++i) { CHECK(log.settle(log.receive(), verb::reject)); }
    CHECK(log.messages_left == 4);
    log.missing = {3};
    log.seek(2);
    CHECK(log.c.dead_places() == offsets{0, 1, 3}); // 3 will not come again
    log.missing.clear();
    const std::int64_t before = log.messages_left;
    log.seek(1);
    CHECK(log.c.dead_places() == offsets{0});
    CHECK(log.messages_left <= before);
    CHECK(log.receive_all() == range(1, 6));
}

TEST_CASE("cursor: a move is remembered by what was read before it: who stood at the same place finds another word") {
    shared_log log(with_lease(0s));
    log.send(10);
    for (int i = 0; i < 300; ++i) { // more often than there is room to count
        CHECK(log.receive().place == 0);
        log.seek(0);
    }
    CHECK(log.c.count().acked == 0);
    CHECK(log.receive_all() == range(0, 10));
}

TEST_CASE("cursor: moved while others claim, nothing is lost and nothing is out twice") {
    const std::size_t rounds = support::cases(300);
    for (std::size_t round = 0; round < rounds; ++round) {
        shared_log log(with_lease(0s));
        constexpr offset count = 5 * span;
        log.send(count);
        std::vector<std::atomic<int>> done(count); // since the last move
        std::atomic<bool> moved{false};
        std::vector<std::thread> threads;
        for (int t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                for (;;) {
                    const bool was_last = moved.load();
                    const auto claim = log.c.claim_lane(7, [&] { return log.sent.load(); });
                    if (claim.count == 0) {
                        if (was_last) { return; }
                        std::this_thread::yield();
                    }
                    for (offset o = claim.first; o < claim.first + claim.count; ++o) {
                        ++done[o];
                        claim.where->state[index_in_span(o)].store(lane_state::released, std::memory_order_release);
                    }
                }
            });
        }
        for (offset i = 0; i < 6; ++i) {
            log.c.seek((5 - i) * 11, [&](offset, offset) noexcept { // nobody is about to settle anything now
                for (auto& n : done) { n = 0; }
            });
        }
        moved = true;
        for (auto& t : threads) { t.join(); }
        const auto wrong = std::count_if(done.begin(), done.end(), [](const auto& n) { return n != 1; });
        CHECK(wrong == 0);
        CHECK(log.c.remaining() == cursor::rest::nothing);
        CHECK(log.c.count().acked >= count);
        if (wrong != 0) { break; }
    }
}

TEST_CASE("cursor: who holds messages and leaves may settle them until they are another's, and extend none") {
    shared_log log(with_lease(30s));
    log.send(4);
    const handle a = log.receive(), b = log.receive(), c = log.receive();
    CHECK(log.settle(c, verb::nack_after, 0s));
    const handle c_again = log.receive();
    CHECK(c_again.attempt == 2);
    const std::size_t before = log.woken;
    log.c.lapse();
    CHECK(log.woken > before);
    CHECK(log.c.count().in_flight == 0);
    CHECK(log.c.count().ready == 4);
    CHECK(!log.c.extend(a, 1h));
    CHECK(!log.c.extend(c_again, 1h));
    CHECK(log.ack(a));
    const handle b_again = log.receive();
    CHECK(b_again.place == b.place);
    CHECK(b_again.attempt == 2);
    CHECK(!log.ack(b));
    CHECK(log.ack(b_again));
    CHECK(log.receive_all() == offsets{2, 3});
    CHECK(!log.ack(c_again));
}

TEST_CASE("cursor: a lease that ended by itself may be had again, where nobody left") {
    shared_log log(with_lease(10s));
    log.send(1);
    const handle a = log.receive();
    log.clock.advance(10s);
    log.c.step();
    CHECK(log.c.count().ready == 1);
    CHECK(log.c.extend(a, 5s));
    CHECK(log.receive().place == nothing_there);
    log.clock.advance(5s);
    const handle again = log.receive();
    CHECK(again.attempt == 2);
    CHECK(!log.c.extend(a, 5s));
    CHECK(!log.ack(a));
    CHECK(log.ack(again));
}

TEST_CASE("cursor: a member that leaves loses its own, the others keep theirs") {
    cursor_options o = with_lease(30s);
    o.ordered_by_key = true;
    shared_log log(o);
    log.send(1, "a");
    log.send(1, "b");
    log.send(1, "a");
    const handle one = log.receive(1), two = log.receive(2);
    CHECK(log.receive(1).place == nothing_there); // behind the first of its key
    log.c.lapse(1);
    CHECK(log.c.count().in_flight == 1);
    CHECK(log.c.extend(two, 1h));
    CHECK(!log.c.extend(one, 1h));
    const handle again = log.receive(2);
    CHECK(again.place == 0);
    CHECK(again.attempt == 2);
    CHECK(!log.ack(one));
    CHECK(log.ack(two));
    CHECK(log.ack(again));
    CHECK(log.receive_all(2) == offsets{2});
}

TEST_CASE("cursor: assigned to one, nobody else is given anything; the next begins when nothing of the one before is leased") {
    cursor_options o = with_lease(30s);
    o.assigned = true;
    o.ordered_by_key = true;
    shared_log log(o);
    log.send(5);
    CHECK(log.receive(1).place == nothing_there);
    log.c.assign(1);
    CHECK(!log.c.may_have(5, 2));
    CHECK(log.receive(2).place == nothing_there);
    CHECK(log.c.may_have(5, 1));
    const handle a = log.receive(1), b = log.receive(1);
    CHECK(a.place == 0);
    log.c.assign(2);
    CHECK(log.receive(1).place == nothing_there);
    CHECK(log.receive(2).place == nothing_there);
    CHECK(!log.c.may_have(5, 2));
    CHECK(log.ack(a));
    CHECK(log.receive(2).place == nothing_there);
    const std::size_t before = log.woken;
    CHECK(log.settle(b, verb::nack_after, 0s));
    CHECK(log.woken > before);
    CHECK(log.c.may_have(5, 2));
    const handle next = log.receive(2);
    CHECK(next.place == 1);
    CHECK(next.attempt == 2);
    SUBCASE("or when its lease ends") {
        log.c.assign(3);
        CHECK(log.receive(3).place == nothing_there);
        log.clock.advance(30s);
        const handle later = log.receive(3);
        CHECK(later.place == 1);
        CHECK(!log.c.extend(next, 1h));
        CHECK(!log.ack(next));
        CHECK(log.ack(later));
    }
    SUBCASE("or when it leaves") {
        log.c.lapse(2);
        log.c.assign(3);
        CHECK(log.receive(3).place == 1);
        CHECK(!log.ack(next));
    }
    SUBCASE("one that is given it back meanwhile goes on") {
        log.c.assign(3);
        log.c.assign(2);
        CHECK(log.receive(2).place == 2);
    }
    SUBCASE("what lapsed may not be had again by one to whom it belongs no more") {
        log.clock.advance(30s);
        log.c.step();
        log.c.assign(3);
        CHECK(!log.c.extend(next, 1h));
        CHECK(log.receive(3).place == 1);
    }
    SUBCASE("nobody: all stays") {
        log.c.lapse(2);
        log.c.assign(0);
        CHECK(log.receive(2).place == nothing_there);
        CHECK(log.receive(3).place == nothing_there);
        log.c.assign(3);
        CHECK(log.receive_all(3) == offsets{1, 2, 3, 4});
    }
}

TEST_CASE("cursor: members that share by key get their own, and what a member leaves") {
    key_shares shares;
    cursor_options o = with_lease(30s);
    o.ordered_by_key = true;
    o.shares = &shares;
    shared_log log(o);
    for (const auto m : {std::uint16_t{1}, std::uint16_t{2}}) {
        log.c.add_member(m);
        shares.join(m);
    }
    for (const std::string key : {"a", "b", "a", "b"}) { log.send(1, key); }
    const handle one = log.receive(1);
    CHECK(one.place == 0); // the first key goes to the first who asks with the fewest
    const handle two = log.receive(2);
    CHECK(two.place == 1);
    CHECK(log.receive(1).place == nothing_there);
    CHECK(log.ack(one));
    CHECK(!log.c.may_have(4, 2));
    CHECK(log.receive(2).place == nothing_there);
    CHECK(log.c.may_have(4, 1));
    const handle third = log.receive(1);
    CHECK(third.place == 2);
    shares.leave(1);
    log.c.lapse(1);
    log.c.remove_member(1);
    CHECK(log.c.may_have(4, 2));
    CHECK(log.receive(2).place == 2);
    CHECK(!log.ack(third));
    CHECK(log.ack(two));
    CHECK(log.receive(2).place == 3);
}

TEST_CASE("cursor: what was popped and could not be given comes back in its place") {
    shared_log log(with_lease(30s));
    log.send(10);
    const auto claim = log.c.claim_lane(4, [&] { return log.sent.load(); });
    REQUIRE(claim.count == 4);
    page& p = *claim.where;
    for (std::uint32_t i = 1; i < 4; ++i) { p.state[i].store(lane_state::released); }
    p.state[0].store(lane_state::popped);
    log.c.put_back(p, 0, 0b1010);
    p.state[0].store(lane_state::released);
    const handle one = log.receive();
    CHECK(one.place == 1);
    CHECK(one.attempt == 1);
    CHECK(log.ack(one));
    CHECK(log.receive_all() == offsets{3, 4, 5, 6, 7, 8, 9});
    SUBCASE("unless the cursor was moved meanwhile: then it comes anyway, or not at all") {
        log.send(4);
        const auto next = log.c.claim_lane(2, [&] { return log.sent.load(); });
        page& q = *next.where;
        q.state[11].store(lane_state::released);
        q.state[10].store(lane_state::popped);
        log.seek(12);
        log.c.put_back(q, 10, 0b100000000000);
        CHECK(log.receive_all() == offsets{12, 13});
        CHECK(!log.settle({&q, 0, 1, 10}, verb::ack)); // its holder lets go
    }
}

TEST_CASE("cursor: knows what is not settled, wherever it is") {
    shared_log log(with_lease(30s));
    log.send(10);
    CHECK(log.unsettled() == offsets{0});
    const handle acked = log.receive(), held = log.receive(), nacked = log.receive(), dead = log.receive(), released = log.receive();
    CHECK(log.unsettled() == offsets{0, 1, 2, 3, 4, 5});
    CHECK(log.ack(acked));
    CHECK(log.settle(nacked, verb::nack));
    CHECK(log.settle(dead, verb::reject));
    CHECK(log.settle(released, verb::release));
    CHECK(log.unsettled() == offsets{1, 2, 4, 5}); // the dead count as settled
    CHECK(log.ack(held));
    CHECK(log.unsettled() == offsets{2, 4, 5});
    CHECK(log.c.redrive(1) == 1);
    CHECK(log.unsettled() == offsets{2, 3, 4, 5});
    log.seek(8);
    CHECK(log.unsettled() == offsets{8});
    log.seek(0);
    CHECK(log.unsettled() == offsets{0});
}

TEST_CASE("cursor: withdraw: one message goes, wherever it lies, unless somebody holds it") {
    cursor_options options;
    options.lease = 10s;
    made_up_log log(options);
    log.send(6);
    const handle first = log.receive();
    CHECK(first.place == 0);
    CHECK_FALSE(log.c.withdraw(0)); // held
    CHECK(log.c.withdraw(3));       // in the lane
    CHECK_FALSE(log.c.withdraw(3)); // gone
    CHECK(log.c.withdraw(4));       // in the lane still
    CHECK(log.c.withdraw(1));       // in the index by now
    CHECK_FALSE(log.c.withdraw(6)); // not there yet
    CHECK(log.settle(first, verb::nack_after, 5s));
    CHECK(log.c.withdraw(0)); // parked
    CHECK(log.c.count().dropped == 4);
    CHECK(log.c.count().dead == 0);
    for (const offset expected : {2u, 5u}) {
        const handle at = log.receive();
        CHECK(at.place == expected);
        CHECK(log.settle(at, verb::ack));
    }
    CHECK(log.receive().place == mailroom::no_offset);
    CHECK(log.c.count().acked == 2);
    log.send();
    const handle dead = log.receive();
    CHECK(log.settle(dead, verb::reject));
    CHECK_FALSE(log.c.withdraw(dead.place));
}

TEST_CASE("cursor: a request that expires is dropped, not dead") {
    made_up_log log(cursor_options{});
    log.send(duration::min(), 1s);
    log.send(duration::min(), 1s);
    log.blocks[0]->covers[1]->props.reply_to = reply_address(7);
    log.clock.advance(1s);
    log.c.step();
    CHECK(log.c.count().expired == 2);
    CHECK(log.c.count().dead == 1);
    CHECK(log.c.count().dropped == 1);
    CHECK(log.receive().place == mailroom::no_offset);
}
