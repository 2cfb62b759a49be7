#include "support/environment.hpp"
#include "support/scripted_source.hpp"

#include <mailroom/consuming/custody.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::delivery;
using mailroom::detail::custodian;
using mailroom::detail::delivery_access;

TEST_CASE("custody: every verb is passed on, and all but extend end what is waited for") {
    auto* const s = new support::scripted_source();
    mailroom::testing::manual_clock clock;
    {
        custodian c(*s, clock);
        CHECK(c.wait(clock.now()));
        const auto entrusted = [&] {
            s->add(1);
            auto d = s->give();
            c.entrust(d);
            CHECK_FALSE(c.wait(clock.now()));
            return d;
        };
        CHECK(entrusted().ack());
        CHECK(c.wait(clock.now()));
        CHECK(entrusted().nack());
        CHECK(entrusted().nack(1s));
        CHECK(entrusted().release());
        CHECK(entrusted().reject("why"));
        { const auto dropped = entrusted(); }
        CHECK(c.wait(clock.now()));
        auto d = entrusted();
        CHECK(d.extend(1s));
        CHECK(d.timestamp() == mailroom::time_point(7s));
        CHECK_FALSE(c.wait(clock.now()));
        auto e = std::move(d);
        CHECK_FALSE(c.wait(clock.now()));
        CHECK(e.ack());
        CHECK(c.wait(clock.now()));
        CHECK_FALSE(e.ack());
        CHECK(c.wait(clock.now()));
    }
    CHECK(s->said() == std::vector<std::string>{"ack 0", "nack 1", "nack after a while 2", "release 3", "reject 4", "nack 5", "extend 6", "ack 6"});
    s->unrefer();
}

TEST_CASE("custody: a delivery keeps the source, after consumer and endpoint, until it is settled") {
    bool gone = false;
    auto* const s = new support::scripted_source(&gone);
    s->add(1);
    s->add(2);
    std::optional<custodian> c(std::in_place, *s, s->time());
    auto first = s->give(), second = s->give();
    c->entrust(first);
    c->entrust(second);
    s->unrefer();
    CHECK(first.ack());
    c.reset();
    CHECK_FALSE(gone);
    CHECK(second.body() == 2);
    CHECK(second.ack());
    CHECK(gone);
}

TEST_CASE("custody: used again once nothing is out, by the next consumer of the same settler") {
    bool gone = false;
    auto* const s = new support::scripted_source(&gone);
    for (int i = 0; i < 4; ++i) { s->add(i); }
    const mailroom::detail::settler* was = nullptr;
    const auto owner_after_entrusting = [&](custodian& c, delivery<int>& d) {
        c.entrust(d);
        return static_cast<const mailroom::detail::settler*>(&delivery_access::owner(d));
    };
    std::optional<delivery<int>> left_behind;
    {
        custodian c(*s, s->time());
        auto d = s->give();
        was = owner_after_entrusting(c, d);
        d.ack();
        left_behind.emplace(s->give());
        CHECK(owner_after_entrusting(c, *left_behind) == was);
    }
    {
        custodian c(*s, s->time());
        auto d = s->give();
        CHECK(owner_after_entrusting(c, d) != was); // that one still has somebody out
        d.ack();
        CHECK(c.wait(mailroom::clock::never));
        left_behind->ack();
        custodian next(*s, s->time());
        auto e = s->give();
        CHECK(owner_after_entrusting(next, e) == was);
        CHECK(c.wait(s->time().now()));
        CHECK_FALSE(next.wait(s->time().now()));
        e.ack();
        CHECK(next.wait(s->time().now()));
    }
    CHECK_FALSE(gone);
    s->unrefer();
    CHECK(gone);
}

TEST_CASE("custody: who waits is woken by the last of many threads") {
    const int rounds = static_cast<int>(support::scaled(200));
    for (int i = 0; i < rounds; ++i) {
        auto* const s = new support::scripted_source();
        std::vector<std::thread> crew;
        {
            custodian c(*s, s->time());
            for (int k = 0; k < 4; ++k) {
                s->add(k);
                auto d = s->give();
                c.entrust(d);
                crew.emplace_back([mine = std::move(d)]() mutable {
                    mine.extend(1s);
                    mine.ack();
                });
            }
            if (i % 2 == 0) {
                CHECK(c.wait(mailroom::clock::never));
                CHECK(s->said().size() == 8);
            }
        }
        s->unrefer();
        for (auto& t : crew) { t.join(); }
    }
}
