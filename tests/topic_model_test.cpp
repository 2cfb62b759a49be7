// Topics in memory against the reference model of support/topic_world.hpp.
#include "support/random.hpp"
#include "support/topic_world.hpp"

#include <doctest/doctest.h>

#include <cstdint>

using namespace support::topics;

TEST_CASE("topic: does what the model does, with one partition") {
    support::for_each_seed(500, [](std::uint64_t seed) { return run<topic_in_memory>(seed, {}, 300); });
}
TEST_CASE("topic: does what the model does, with several partitions") {
    support::for_each_seed(400, [](std::uint64_t seed) { return run<topic_in_memory>(seed, {.partitions = 2 + static_cast<int>(seed % 4)}, 400); });
}
TEST_CASE("topic: does what the model does, retaining some") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        return run<topic_in_memory>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .retained = 1 + seed % 100}, 400);
    });
}
TEST_CASE("topic: does what the model does, filtered, retaining all") {
    support::for_each_seed(
        300, [](std::uint64_t seed) { return run<topic_in_memory>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .retained = 10'000}, 400); });
}
TEST_CASE("topic: does what the model does, compacted") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        return run<topic_in_memory>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .retained = seed % 3 * 20, .compact = true}, 400);
    });
}
TEST_CASE("topic: does what the model does, bounded") {
    support::for_each_seed(300, [](std::uint64_t seed) {
        return run<topic_in_memory>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .most = 5 + seed % 40}, 400);
    });
}
