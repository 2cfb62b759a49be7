// One log of a topic, without subscriptions: readers are made up here. Blocks hold `span` messages; the bodies know whether they are alive.
#include <mailroom/store/partition.hpp>
#include <mailroom/testing.hpp>

#include "support/random.hpp"
#include "support/tracked.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using namespace mailroom::detail;
using mailroom::duration;
using mailroom::offset;
using support::tracked;

namespace {

mailroom::retention last_messages(std::size_t n) {
    mailroom::retention r;
    r.messages = n;
    return r;
}

class one_log final : private partition_owner {
    using slot_block = block<tracked>;

public:
    mailroom::testing::manual_clock clock;
    topic_common common;
    partition<tracked> p;
    std::vector<offset> timed;

    explicit one_log(const mailroom::retention& r = mailroom::retention())
        : common({0, 0, nullptr, mailroom::overflow::block}, &clock), p(*this, common, 3, r) {}

    void publish(std::size_t n = 1) {
        for (; n != 0; --n) {
            tracked body(static_cast<int>(p.log().head()));
            p.append(body);
        }
    }
    void publish(const std::string& key) {
        mailroom::properties props;
        props.key = key;
        tracked body(static_cast<int>(p.log().head()));
        CHECK(p.try_send(body, &props));
    }
    // Offsets of the blocks that are there.
    std::vector<offset> blocks() {
        std::vector<offset> firsts;
        for (offset o = 0; o < p.log().head(); o += span) {
            if (p.log().peek(o) != nullptr) { firsts.push_back(o); }
        }
        return firsts;
    }
    bool is_there(offset o) { return p.log().peek(o - index_in_span(o)) != nullptr; }
    // What a reader does that is a tenant of all from `from` on, and has seen these.
    void read(offset from, offset until) {
        for (; from < until; from += span) { p.leave(p.log().peek(from)); }
        p.reap();
    }
    void stop_reading(offset from) {
        p.doom_all(p.log().dismiss(from));
        p.reap();
    }

private:
    duration next_due() const noexcept override { return mailroom::clock::never; }
    void catch_up() noexcept override {}
    bool make_room(std::size_t, std::size_t) noexcept override { return false; }
    void note_timed(int, offset o, duration) noexcept override { timed.push_back(o); }
    offset held_from(int) noexcept override { return mailroom::no_offset; }
    void hold() noexcept override {}
    void let_go() noexcept override {}
};

struct counting_bell final : bell {
    std::vector<std::size_t> rung;
    void ring(std::size_t n) noexcept override { rung.push_back(n); }
};

int number_in(const block<tracked>& b, std::uint32_t i) { return const_cast<block<tracked>&>(b).slots[i].value.get()->value(); }

// All bodies ended, each once.
struct no_rest {
    const long before = tracked::live(), faults = tracked::faults();
    ~no_rest() {
        CHECK(tracked::live() == before);
        CHECK(tracked::faults() == faults);
    }
};

} // namespace

TEST_CASE("partition: without rules and readers only the block that is being written is there") {
    const no_rest at_end;
    one_log log;
    for (std::size_t i = 0; i < 100 * span; ++i) {
        log.publish();
        REQUIRE(tracked::live() <= static_cast<long>(2 * span));
    }
    log.publish(5);
    log.p.trim();
    CHECK(tracked::live() == 5);
    CHECK(log.blocks() == std::vector<offset>{100 * span});
    CHECK(log.p.retained_from(log.clock.now()) == 100 * span + 5);
}

TEST_CASE("partition: retains the last messages, a block as long as one of them is wanted") {
    const no_rest at_end;
    one_log log(last_messages(100));
    log.publish(50);
    log.p.trim();
    CHECK(log.p.retained_from(0s) == 0);
    CHECK(tracked::live() == 50);
    for (std::size_t i = 0; i < 1000; ++i) {
        log.publish();
        const offset head = log.p.log().head(), from = log.p.retained_from(0s);
        REQUIRE(from == (head > 100 ? head - 100 : 0));
        REQUIRE(log.is_there(from));
    }
    log.p.trim();
    const offset head = log.p.log().head();
    CHECK(log.p.log().lowest() == (head - 100) / span * span);
    CHECK(tracked::live() == static_cast<long>(head - log.p.log().lowest()));
}

TEST_CASE("partition: retains so many bytes, exactly where one begins, by blocks in memory") {
    const no_rest at_end;
    mailroom::retention r;
    r.bytes = 100 * sizeof(tracked) + 3; // 100 and not 101
    one_log log(r);
    log.publish(1000);
    log.p.trim();
    CHECK(log.p.retained_from(0s) == 900);
    CHECK(log.is_there(900));
    CHECK(log.p.log().lowest() <= 900);
    CHECK(log.p.log().lowest() + 3 * span > 900);
    CHECK(tracked::live() == static_cast<long>(1000 - log.p.log().lowest()));
}

TEST_CASE("partition: retains what is not older than that, and lets go of it as time passes, though nobody publishes") {
    const no_rest at_end;
    mailroom::retention r;
    r.age = 15s;
    one_log log(r);
    log.publish(10 * span);
    log.clock.advance(10s);
    log.publish(10 * span);
    log.p.trim();
    CHECK(tracked::live() == 20 * span);
    CHECK(log.p.retained_from(log.clock.now()) == 0);
    log.clock.advance(5s);
    CHECK(log.p.retained_from(log.clock.now()) == 10 * span);
    CHECK(tracked::live() == 20 * span);
    log.p.trim();
    CHECK(tracked::live() == 10 * span);
    CHECK(log.p.log().lowest() == 10 * span);
    log.clock.advance(9999ms);
    log.p.trim();
    CHECK(tracked::live() == 10 * span);
    log.clock.advance(1ms);
    log.p.trim();
    CHECK(tracked::live() == 0);
    CHECK(log.p.retained_from(log.clock.now()) == 20 * span);
}

TEST_CASE("partition: of several rules each may let go") {
    const no_rest at_end;
    mailroom::retention r = last_messages(3 * span);
    r.age = 15s;
    one_log log(r);
    log.publish(10 * span);
    log.p.trim();
    CHECK(tracked::live() == 3 * span);
    log.clock.advance(15s);
    log.publish(span);
    log.p.trim();
    CHECK(tracked::live() == span);
    CHECK(log.p.retained_from(log.clock.now()) == 10 * span);
}

TEST_CASE("partition: compacted, the last message of each key stays as long as it is the last") {
    const no_rest at_end;
    mailroom::retention r;
    r.compact = true;
    one_log log(r);
    log.publish("rare");
    for (std::size_t i = 1; i < 40 * span; ++i) { log.publish(i % 2 == 0 ? "even" : "odd"); }
    log.p.trim();
    CHECK(log.is_there(0));
    CHECK(log.p.last_of_keys(0, log.p.log().head(), [](offset) { return true; }) == std::vector<offset>{0, 40 * span - 2, 40 * span - 1});
    CHECK(log.p.last_of_keys(0, 40 * span - 1, [](offset) { return true; }) == std::vector<offset>{0, 40 * span - 3, 40 * span - 2});
    CHECK(log.p.last_of_keys(0, log.p.log().head(), [](offset o) { return o != 0; }) == std::vector<offset>{40 * span - 2, 40 * span - 1});
    for (int i = 0; i < 20; ++i) { log.p.trim(); }
    CHECK(tracked::live() <= static_cast<long>(3 * span));
    log.publish("rare");
    for (std::size_t i = 0; i < 2 * span; ++i) { log.publish(""); } // has no key, and is nobody's last
    for (int i = 0; i < 20; ++i) { log.p.trim(); }
    CHECK(!log.is_there(0));
    CHECK(log.is_there(40 * span));
    CHECK(tracked::live() <= static_cast<long>(4 * span));
}

TEST_CASE("partition: random keys and rules, the last of each key is always there, and what nothing wants goes") {
    const no_rest at_end;
    support::for_each_seed(100, [](std::uint64_t seed) {
        support::dice dice(seed);
        mailroom::retention r = last_messages(dice.percent(50) ? dice.below(200) + 1 : 0);
        r.compact = true;
        one_log log(r);
        const unsigned keys = dice.below(60) + 1;
        std::map<std::string, offset> last;
        bool right = true;
        for (unsigned i = 0; i < 1500 && right; ++i) {
            const offset o = log.p.log().head();
            if (dice.percent(10)) {
                log.publish();
            } else {
                const unsigned k = dice.percent(80) ? dice.below(1 + keys / 8) : dice.below(keys); // a few are frequent
                log.publish("key " + std::to_string(k));
                last["key " + std::to_string(k)] = o;
            }
            for (const auto& [key, at] : last) { right = right && log.is_there(at); }
        }
        while (log.p.log().head() % span != 0) { log.publish(); } // the keys of a block are known once it is full
        for (int i = 0; i < 60; ++i) { log.p.trim(); }
        const offset head = log.p.log().head();
        std::set<offset> wanted;
        std::vector<offset> expected;
        for (const auto& [key, at] : last) {
            wanted.insert(at / span * span);
            expected.push_back(at);
        }
        std::sort(expected.begin(), expected.end());
        right = right && log.p.last_of_keys(0, head, [](offset) { return true; }) == expected;
        for (const offset b : log.blocks()) { right = right && (wanted.count(b) != 0 || (r.messages != 0 && head - (b + span) < r.messages)); }
        if (!right) { FAIL_CHECK("MAILROOM_TEST_SEED=", seed); }
        return right;
    });
}

TEST_CASE("partition: a reader that is stuck keeps its block alone, whatever is published") {
    const no_rest at_end;
    one_log log;
    log.p.log().admit(0); // it holds something of its first block, and reads on
    log.p.log().admit(0); // and this one reads everything
    log.publish(1);
    auto* const stuck = log.p.log().peek(0);
    long most = 0;
    const std::size_t blocks = support::cases(100'000) / span;
    for (std::size_t n = 1; n <= blocks; ++n) {
        log.publish(n == 1 ? span - 1 : span);
        const offset first = (n - 1) * span;
        log.p.leave(log.p.log().peek(first));
        if (n != 1) { log.p.leave(log.p.log().peek(first)); }
        log.p.reap();
        most = std::max(most, tracked::live());
    }
    log.p.trim();
    CHECK(most <= static_cast<long>(3 * span));
    CHECK(log.blocks() == std::vector<offset>{0});
    CHECK(log.p.log().peek(0) == stuck);
    CHECK(tracked::live() == span);
    for (std::uint32_t i = 0; i < span; ++i) { REQUIRE(stuck->slots[i].value.get()->value() == static_cast<int>(i)); }
    log.publish();
    CHECK(log.p.log().at(0) != stuck); // it does not make what senders look things up in grow: there it stands no more
    log.p.leave(stuck);
    log.p.reap();
    CHECK(tracked::live() == 1);
    log.stop_reading(blocks * span);
    log.stop_reading(blocks * span);
}

TEST_CASE("partition: what a reader has not read stays, beyond every rule, until it has, or goes") {
    const no_rest at_end;
    one_log log(last_messages(span));
    log.p.log().admit(0);
    log.publish(10 * span);
    log.p.trim();
    CHECK(tracked::live() == 10 * span);
    CHECK(log.p.retained_from(0s) == 9 * span);
    log.read(0, 4 * span);
    CHECK(tracked::live() == 6 * span);
    SUBCASE("read") {
        log.read(4 * span, 10 * span);
        CHECK(tracked::live() == span);
        log.stop_reading(10 * span);
    }
    SUBCASE("gone") {
        log.stop_reading(4 * span);
        CHECK(tracked::live() == span);
    }
    CHECK(log.blocks() == std::vector<offset>{9 * span});
}

TEST_CASE("partition: what nobody needs any more ends when somebody calls in, not before, and once") {
    const no_rest at_end;
    one_log log;
    log.p.log().admit(0);
    log.publish(2 * span);
    log.p.trim();
    log.p.leave(log.p.log().peek(0));
    CHECK(tracked::live() == 2 * span); // the one who left may hold a lock
    CHECK(!log.is_there(0));
    log.p.reap();
    CHECK(tracked::live() == span);
    log.p.reap();
    CHECK(tracked::live() == span);
    log.p.leave(log.p.log().peek(span)); // ends with the log
}

TEST_CASE("partition: looks through what is there, in order, over holes, as long as it is asked to, and keeps what it looks at") {
    const no_rest at_end;
    one_log log(last_messages(4 * span));
    log.p.log().admit(0);
    log.publish(10 * span + 3);
    log.read(2 * span, 4 * span);
    log.p.trim();
    std::vector<offset> seen;
    log.p.look_through(5, log.p.log().head(), [&](offset o, const block<tracked>& b, std::uint32_t i) {
        REQUIRE(number_in(b, i) == static_cast<int>(o));
        seen.push_back(o);
        return true;
    });
    CHECK(seen.front() == 5);
    CHECK(seen.back() == 10 * span + 2);
    CHECK(std::is_sorted(seen.begin(), seen.end()));
    CHECK(seen.size() == 8 * span + 3 - 5);
    CHECK(std::none_of(seen.begin(), seen.end(), [](offset o) { return o >= 2 * span && o < 4 * span; }));
    std::size_t asked = 0;
    log.p.look_through(0, log.p.log().head(), [&](offset o, const block<tracked>& b, std::uint32_t i) {
        if (o == span) { // it goes meanwhile
            log.p.leave(log.p.log().peek(span));
            log.p.reap();
            CHECK(number_in(b, i) == static_cast<int>(span));
        }
        return ++asked != span + 7;
    });
    CHECK(asked == span + 7);
    log.p.reap();
    CHECK(!log.is_there(span));
    log.read(0, 1);
    log.stop_reading(4 * span);
}

TEST_CASE("partition: a bell is rung once by what comes next, and by nothing when it is taken out") {
    const no_rest at_end;
    one_log log;
    counting_bell a, b;
    log.publish();
    CHECK(a.rung.empty());
    log.p.arm(a);
    CHECK(a.rung.empty());
    log.publish();
    CHECK(a.rung == std::vector<std::size_t>{1});
    log.publish(3);
    CHECK(a.rung.size() == 1);
    CHECK(!log.p.disarm(a)); // it was rung
    log.p.arm(a);
    log.p.arm(b);
    CHECK(log.p.disarm(a));
    log.publish("with properties");
    CHECK(a.rung.size() == 1);
    CHECK(b.rung == std::vector<std::size_t>{1});
    log.p.arm(a);
    log.p.arm(b);
    std::vector<int> values{1, 2, 3, 4, 5};
    const auto look = [&](std::size_t) -> const tracked& {
        static const tracked one(1);
        return one;
    };
    const std::size_t head = log.p.log().head();
    CHECK(log.p.send_many(
        values.size(), look, [&](std::size_t i, auto& slot) { slot.put(tracked(values[i])); }, mailroom::clock::never, mailroom::stop_token()));
    CHECK(log.p.log().head() == head + 5);
    CHECK(a.rung.back() == 5);
    CHECK(b.rung.back() == 5);
    CHECK(!log.p.log().take(1, 0s, [](offset) { return false; }).wake);
}

TEST_CASE("partition: says where it is in every place it names, and which messages have times of their own") {
    CHECK(unpacked(packed(0, 0)).partition == 0);
    CHECK(unpacked(packed(4095, (offset{1} << 48) - 1)).partition == 4095);
    CHECK(unpacked(packed(4095, (offset{1} << 48) - 1)).offset == (offset{1} << 48) - 1);
    one_log log;
    tracked body(7);
    CHECK(unpacked(log.p.append(body)).partition == 3);
    mailroom::properties props;
    props.delay = 5s;
    tracked other(8);
    const auto place = log.p.try_send(other, &props);
    REQUIRE(place);
    CHECK(unpacked(*place).offset == 1);
    CHECK(unpacked(*place).partition == 3);
    CHECK(log.timed == std::vector<offset>{1});
}

TEST_CASE("partition: many publish while a reader reads, another comes and goes, and it is trimmed: each body ends once") {
    const no_rest at_end;
    one_log log(last_messages(3 * span));
    log.p.log().admit(0);
    const std::size_t each = support::cases(20'000) / span * span;
    std::atomic<bool> over{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] { log.publish(each); });
    }
    threads.emplace_back([&] {
        while (!over.load()) {
            const offset from = log.p.retained_from(0s);
            std::size_t n = 0;
            log.p.look_through(from, log.p.log().head(), [&](offset, const block<tracked>& b, std::uint32_t i) {
                static_cast<void>(number_in(b, i));
                return ++n < 100;
            });
            log.p.trim();
        }
    });
    for (offset o = 0; o < 2 * each; o += span) {
        while (log.p.log().head() < o + span) { std::this_thread::yield(); }
        auto* const b = log.p.log().peek(o);
        for (auto& s : b->slots) {
            wait_until_written(s, log.clock);
            static_cast<void>(s.value.get()->value());
        }
        log.p.leave(b);
        log.p.reap();
    }
    over = true;
    for (auto& t : threads) { t.join(); }
    log.p.trim();
    CHECK(tracked::live() == 3 * span);
    log.stop_reading(2 * each);
    CHECK(tracked::live() == 3 * span);
}
