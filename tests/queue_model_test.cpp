// The queue against the reference model: random operations, everything compared (support/model.hpp says what is expected and why).
#include "support/drivers.hpp"

#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace support;

namespace {

template <class T>
bool run(std::uint64_t seed, const settings& o, int length) {
    using hands = queue_hands<T>;
    dice d(seed);
    const auto found = compare<hands>(o, draw(d, o, length), weight_of<T>);
    if (!found) { return true; }
    const std::string report = text_of(o, shrink<hands>(o, *found, weight_of<T>));
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
    for (const auto& [name, o] : each_option_alone()) {
        CAPTURE(name);
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
        o.max_bytes = weight_of<std::string>(1) * (2 + d.below(5)) + d.below(3);
        const mailroom::overflow rules[] = {mailroom::overflow::block, mailroom::overflow::reject, mailroom::overflow::drop_oldest,
                                            mailroom::overflow::drop_newest};
        o.overflow = rules[d.below(4)];
        return run<std::string>(seed, o, 100);
    });
}
