// What a test takes from outside: how much work to do and which seed to begin with.
//   MAILROOM_TEST_SCALE   factor on the number of histories and iterations (1; 0.1 in a hurry, 100 for a night)
//   MAILROOM_TEST_SEED    seed of the random tests; without it each run has its own, which a failing test prints
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>

namespace support {

/// Scales a number of iterations by MAILROOM_TEST_SCALE; never less than one.
inline std::size_t scaled(std::size_t iterations) {
    const char* text = std::getenv("MAILROOM_TEST_SCALE");
    const double scale = text ? std::strtod(text, nullptr) : 1.0;
    const double wanted = static_cast<double>(iterations) * (scale > 0 ? scale : 1.0);
    return wanted < 1 ? 1 : static_cast<std::size_t>(wanted);
}

/// The seed of this run. Show it with the failure: `const auto seed = support::seed(); CAPTURE(seed);`
inline std::uint64_t seed() {
    if (const char* text = std::getenv("MAILROOM_TEST_SEED")) return std::strtoull(text, nullptr, 0);
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
}

} // namespace support
