// Topics of a journal against the reference model of support/topic_world.hpp, closed and opened again and again. What that adds to the model:
//
//  - Durable subscriptions, where they are, their dead letters, their parked retries and their attempts are there again, opened or not;
//    ephemeral ones are gone. So is who owned which key, and whose turn it is among the partitions.
//  - What was in flight is ready at once. If its member left first, that was a failure, as always; if it went with the topic, it was none.
//  - What was handed out before cannot be settled any more, and keeps its body.
#include "support/random.hpp"
#include "support/stored.hpp"
#include "support/topic_world.hpp"

#include <mailroom/journal.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <optional>

using namespace support::topics;

namespace {

class topic_in_journal {
public:
    static constexpr bool is_stored = true;
    topic_in_journal(support::dice& d, mailroom::clock& c)
        : promise_(std::array{mailroom::durability::commit, mailroom::durability::write, mailroom::durability::none}[d.below(3)]), clock_(c) {}
    void open(const mailroom::topic_options<int>& o) {
        if (!journal_) {
            journal_.emplace("journal", mailroom::journal_options{.durability = promise_, .segment_bytes = 1 << 16, .clock = &clock_}, disk_);
        }
        topic.emplace(*journal_, "topic", o);
    }
    void close(unsigned how) {
        if (how == 3) { journal_.reset(); }
        topic.reset();
        if (how != 0) { journal_.reset(); }
    }

private:
    const mailroom::durability promise_;
    mailroom::clock& clock_;
    mailroom::testing::simulated_files disk_;
    std::optional<support::simulated_journal> journal_;

public:
    std::optional<mailroom::topic<int, support::simulated_journal>> topic;
};

} // namespace

TEST_CASE("journal topic: does what the model does, with one partition") {
    support::for_each_seed(125, [](std::uint64_t seed) { return run<topic_in_journal>(seed, {}, 300); });
}
TEST_CASE("journal topic: does what the model does, with several partitions") {
    support::for_each_seed(100, [](std::uint64_t seed) { return run<topic_in_journal>(seed, {.partitions = 2 + static_cast<int>(seed % 4)}, 400); });
}
TEST_CASE("journal topic: does what the model does, retaining some") {
    support::for_each_seed(75, [](std::uint64_t seed) {
        return run<topic_in_journal>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .retained = 1 + seed % 100}, 400);
    });
}
TEST_CASE("journal topic: does what the model does, filtered, retaining all") {
    support::for_each_seed(
        75, [](std::uint64_t seed) { return run<topic_in_journal>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .retained = 10'000}, 400); });
}
TEST_CASE("journal topic: does what the model does, compacted") {
    support::for_each_seed(75, [](std::uint64_t seed) {
        return run<topic_in_journal>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .retained = seed % 3 * 20, .compact = true}, 400);
    });
}
TEST_CASE("journal topic: does what the model does, bounded") {
    support::for_each_seed(75, [](std::uint64_t seed) {
        return run<topic_in_journal>(seed, {.partitions = 1 + static_cast<int>(seed % 2), .most = 5 + seed % 40}, 400);
    });
}
