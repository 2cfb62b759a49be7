#include <mailroom/stream/block.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

using namespace std::chrono_literals;

namespace {

using mailroom::duration;
using mailroom::detail::block;
using mailroom::detail::envelope;
using mailroom::detail::slot;
using mailroom::detail::span;

} // namespace

TEST_CASE("block: a slot is its word and the body; sizes are kept only where they differ") {
    static_assert(sizeof(slot<std::int32_t>) == 16);
    static_assert(sizeof(slot<std::uint64_t>) == 16);
    static_assert(sizeof(slot<std::array<char, 16>>) == 24);
    static_assert(sizeof(slot<std::array<char, 4096>>) == 16, "boxed");
    static_assert(!mailroom::detail::sizes<int>::varies && mailroom::detail::sizes<std::string>::varies);
    CHECK(sizeof(block<int>) < 4096);
}

TEST_CASE("block: keeps the time a message was sent, exactly") {
    for (const duration opened : {duration(0), duration(1s), duration(24h * 365 * 50)}) {
        for (const duration after : {duration(0), duration(1), duration(1500), duration(-1), duration(-1us), duration(24h * 365 * 30)}) {
            CAPTURE(opened.count());
            CAPTURE(after.count());
            const auto b = std::make_unique<block<int>>();
            b->opened = opened;
            const std::uint64_t word = b->word_at(opened + after);
            CHECK((word & mailroom::detail::slot_bits_mask) == mailroom::detail::slot_ready);
            CHECK(b->sent(word) == opened + after);
            CHECK(b->enveloped(word) == nullptr);
        }
    }
}

TEST_CASE("block: a time too far from its opening is the farthest there is") {
    const auto b = std::make_unique<block<int>>();
    CHECK(b->sent(b->word_at(duration::max())) > 24h * 365 * 36);
}

TEST_CASE("block: an envelope is found, and tells the time") {
    const auto b = std::make_unique<block<int>>();
    const auto e = std::make_unique<envelope>();
    e->sent = 77ns;
    CHECK(b->enveloped(b->word_of(e.get())) == e.get());
    CHECK(b->sent(b->word_of(e.get())) == 77ns);
    CHECK((b->word_of(e.get()) & mailroom::detail::slot_timed) == 0);
    e->due = 1s;
    CHECK((b->word_of(e.get()) & mailroom::detail::slot_timed) != 0);
    CHECK(b->enveloped(b->word_of(e.get())) == e.get());
}

TEST_CASE("block: begins empty, and asking for lines to be read touches none") {
    const auto b = std::make_unique<block<std::string>>();
    for (const auto& s : b->slots) { CHECK(s.ready == mailroom::detail::slot_empty); }
    b->expect_reads_from_start();
    b->expect_reads(span - 1);
}
