// The store as consumers and coroutines see it: a source. What users see of it is in queue_test.cpp.
#include <mailroom/options.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/store/memory.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <vector>

using namespace std::chrono_literals;

namespace {

using mailroom::delivery;
using mailroom::duration;
using mailroom::detail::memory_core;
using mailroom::detail::outlook;
using mailroom::detail::source;
using mailroom::detail::source_ref;
using mailroom::testing::manual_clock;

struct abandoning {
    template <class T>
    void operator()(memory_core<T>* core) const noexcept {
        core->abandon();
    }
};
template <class T>
using core_ptr = std::unique_ptr<memory_core<T>, abandoning>;

template <class T>
core_ptr<T> make(const mailroom::queue_options<T>& o) {
    return core_ptr<T>(new memory_core<T>(o));
}
void send(memory_core<int>& core, int value, mailroom::properties p = mailroom::properties()) { REQUIRE(core.try_send(value, &p)); }

struct counting_waiter final : mailroom::detail::waiter {
    counting_waiter() : waiter([](waiter& w) noexcept { ++static_cast<counting_waiter&>(w).woken; }) {}
    int woken = 0;
};

} // namespace

TEST_CASE("memory: says what it is made of") {
    manual_clock clock;
    const auto core = make<int>({.lease = 7s, .priorities = 2, .clock = &clock});
    const source<int>& s = *core;
    CHECK(&s.time() == &clock);
    CHECK(s.lease() == 7s);
    CHECK(s.has_priorities());
    CHECK(!make<int>({})->has_priorities());
    CHECK(&make<int>({})->time() == &mailroom::system_clock());
}

TEST_CASE("memory: looks ahead: waits while something may come, finished when nothing will") {
    manual_clock clock;
    const auto core = make<int>({.lease = 0s, .clock = &clock});
    source<int>& s = *core;
    CHECK(s.look_ahead() == outlook::wait);
    CHECK(!s.may_have());
    CHECK(s.next_due() == mailroom::clock::never);
    send(*core, 1);
    CHECK(s.may_have());
    CHECK(s.backlog() == 1);
    core->close();
    CHECK(s.look_ahead() == outlook::wait);
    auto d = s.take_one();
    CHECK(s.look_ahead() == outlook::wait); // it may come back
    CHECK(!s.may_have());
    CHECK(s.backlog() == 0);
    d->ack();
    CHECK(s.look_ahead() == outlook::finished);
}

TEST_CASE("memory: tells when something is due, and catches up") {
    manual_clock clock;
    const auto core = make<int>({.lease = 30s, .clock = &clock});
    source<int>& s = *core;
    send(*core, 1, {.delay = 5s});
    CHECK(s.may_have()); // as far as can be seen without a look
    CHECK(!s.take_one());
    CHECK(!s.may_have());
    CHECK(s.next_due() == 5s);
    counting_waiter w;
    s.join(w);
    clock.advance(5s); // steps the core, which wakes
    CHECK(w.woken == 1);
    CHECK(!s.leave(w));
    CHECK(s.take_one());
}

TEST_CASE("memory: a waiter is woken once, by a send, a close, or the end of the endpoint") {
    auto core = make<int>({});
    counting_waiter a, b;
    core->join(a);
    core->join(b);
    send(*core, 1);
    CHECK(a.woken == 1);
    CHECK(b.woken == 0);
    CHECK(core->leave(b));
    send(*core, 2);
    core->join(a);
    core->close();
    CHECK(a.woken == 2);
    core->join(b);
    const source_ref<int> kept(*core);
    core.reset();
    CHECK(b.woken == 1);
    CHECK(kept->look_ahead() == outlook::finished);
    CHECK(!kept->take_one());
    CHECK(!kept->may_have());
}

TEST_CASE("memory: takes some, at once, or waiting for the first") {
    manual_clock clock;
    const auto core = make<int>({.clock = &clock});
    source<int>& s = *core;
    std::vector<delivery<int>> out;
    CHECK(s.take_some(out, 5, duration::min(), mailroom::stop_token()) == 0);
    CHECK(s.take_some(out, 5, clock.now(), mailroom::stop_token()) == 0);
    for (int i = 0; i < 100; ++i) { send(*core, i); }
    CHECK(s.take_some(out, 70, mailroom::clock::never, mailroom::stop_token()) == 70);
    CHECK(s.take_some(out, 70, duration::min(), mailroom::stop_token()) == 30);
    CHECK(out.size() == 100);
    CHECK(out[99].body() == 99);
}

TEST_CASE("memory: renews a lease by place and attempt, in whosever hands the delivery is") {
    manual_clock clock;
    const auto core = make<int>({.lease = 10s, .clock = &clock});
    source<int>& s = *core;
    send(*core, 1);
    auto first = s.take_one();
    clock.advance(9s);
    CHECK(s.renew(first->offset(), first->partition(), first->attempt(), 10s));
    clock.advance(9s);
    CHECK(!s.take_one());
    clock.advance(1s);
    auto second = s.take_one();
    REQUIRE(second);
    CHECK(!s.renew(0, 0, 1, 10s));
    CHECK(s.renew(0, 0, 2, 1h));
    CHECK(!s.renew(7, 0, 1, 10s));
    CHECK(second->ack());
    CHECK(!s.renew(0, 0, 2, 10s));
}

TEST_CASE("memory: what refers to it keeps it, endpoint or not") {
    auto core = make<int>({});
    send(*core, 1);
    send(*core, 2);
    auto d = core->take_one();
    {
        const source_ref<int> kept(*core);
        core.reset();
        CHECK(kept->backlog() == 0);
        CHECK(d->body() == 1);
    }
    CHECK(d->body() == 1); // now the delivery alone keeps it
    CHECK(!d->ack());
}
