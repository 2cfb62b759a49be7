// The queue against the reference model: random operations, everything compared (support/model.hpp says what is expected and why).
#include "support/drivers.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>

using namespace support;
using std::chrono::seconds;

namespace {

/// What a body counts for, found out by sending it.
template <class T>
std::size_t weight(int body) {
    static std::map<int, std::size_t> known;
    const auto [it, is_new] = known.try_emplace(body);
    if (is_new) {
        mailroom::queue<T> probe;
        probe.send(body_of<T>::make(body));
        it->second = static_cast<std::size_t>(probe.statistics().bytes);
    }
    return it->second;
}

template <class T>
bool run(std::uint64_t seed, const settings& o, int length) {
    using hands = queue_hands<T>;
    dice d(seed);
    const auto found = compare<hands>(o, draw(d, o, length), weight<T>);
    if (!found) { return true; }
    const std::string report = text_of(o, shrink<hands>(o, *found, weight<T>));
    FAIL_CHECK("MAILROOM_TEST_SEED=", seed, report);
    return false;
}

template <class T>
bool run_random_settings(std::uint64_t seed) {
    dice d(seed);
    const unsigned chance = d.below(4) * 15;
    return run<T>(seed, draw_settings(d, chance), d.between(20, 200));
}

} // namespace

TEST_CASE("queue: does what the model does, each option alone") {
    struct {
        std::string name;
        void (*set)(settings&);
    } const table[] = {
        {"defaults", [](settings&) {}},
        {"no lease", [](settings& o) { o.lease = seconds(0); }},
        {"short lease", [](settings& o) { o.lease = seconds(1); }},
        {"one attempt", [](settings& o) { o.lease = seconds(2), o.retry.max_attempts = 1; }},
        {"attempts without end", [](settings& o) { o.lease = seconds(1), o.retry.max_attempts = 0; }},
        {"retry at once", [](settings& o) { o.retry.initial = seconds(0); }},
        {"few dead", [](settings& o) { o.max_dead = 2, o.retry.max_attempts = 1; }},
        {"block", [](settings& o) { o.max_messages = 4; }},
        {"reject", [](settings& o) { o.max_messages = 4, o.overflow = mailroom::overflow::reject; }},
        {"drop oldest", [](settings& o) { o.max_messages = 4, o.overflow = mailroom::overflow::drop_oldest; }},
        {"drop newest", [](settings& o) { o.max_messages = 4, o.overflow = mailroom::overflow::drop_newest; }},
        {"one in flight", [](settings& o) { o.max_in_flight = 1; }},
        {"time to live", [](settings& o) { o.time_to_live = seconds(5) + time_step, o.lease = seconds(3); }},
        {"two levels", [](settings& o) { o.priorities = 2; }},
        {"ten levels", [](settings& o) { o.priorities = 10; }},
        {"ids in a window", [](settings& o) { o.deduplicate.window = seconds(4); }},
        {"ids until settled", [](settings& o) { o.deduplicate.until_settled = true; }},
        {"order by key", [](settings& o) { o.ordered_by_key = true, o.lease = seconds(3); }},
        {"validation", [](settings& o) { o.validate = [](int body, const properties&) { return body % 3 != 0; }; }},
    };
    for (const auto& row : table) {
        CAPTURE(row.name);
        settings o;
        o.retry.initial = seconds(1);
        o.retry.maximum = seconds(20);
        row.set(o);
        for_each_seed(100, [&](std::uint64_t seed) { return run<int>(seed, o, 150) && run<tracked>(seed, o, 150); });
    }
    CHECK(tracked::live() == 0);
    CHECK(tracked::faults() == 0);
}

TEST_CASE("queue: does what the model does, options mixed") {
    for_each_seed(2000, run_random_settings<int>);
    for_each_seed(1000, run_random_settings<tracked>);
    for_each_seed(1000, run_random_settings<std::string>);
    CHECK(tracked::live() == 0);
    CHECK(tracked::faults() == 0);
}

TEST_CASE("queue: does what the model does, bounded by bytes") {
    for_each_seed(500, [](std::uint64_t seed) {
        dice d(seed);
        settings o = draw_settings(d, 20);
        o.max_bytes = weight<std::string>(1) * (2 + d.below(5)) + d.below(3);
        const mailroom::overflow rules[] = {mailroom::overflow::block, mailroom::overflow::reject, mailroom::overflow::drop_oldest,
                                            mailroom::overflow::drop_newest};
        o.overflow = rules[d.below(4)];
        return run<std::string>(seed, o, 100);
    });
}
