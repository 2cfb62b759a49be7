#include <mailroom/options.hpp>
#include <mailroom/queue.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::errc;
using mailroom::overflow;
using int_options = mailroom::queue_options<int>;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

} // namespace

TEST_CASE("queue_options: each wrong one is invalid, with a sentence that names it") {
    const struct {
        int_options wrong;
        const char* named;
    } cases[] = {
        {{.overflow = static_cast<overflow>(4)}, "queue_options.overflow"},
        {{.overflow = static_cast<overflow>(255)}, "queue_options.overflow"},
        {{.lease = -1ns}, "queue_options.lease"},
        {{.lease = duration::min()}, "queue_options.lease"},
        {{.retry = {.initial = -1ns}}, "queue_options.retry.initial"},
        {{.retry = {.multiplier = 0.999}}, "queue_options.retry.multiplier"},
        {{.retry = {.multiplier = -2}}, "queue_options.retry.multiplier"},
        {{.retry = {.multiplier = 1.1e9}}, "queue_options.retry.multiplier"},
        {{.retry = {.multiplier = not_a_number}}, "queue_options.retry.multiplier"},
        {{.retry = {.multiplier = infinity}}, "queue_options.retry.multiplier"},
        {{.retry = {.maximum = -1ns}}, "queue_options.retry.maximum"},
        {{.retry = {.jitter = -0.01}}, "queue_options.retry.jitter"},
        {{.retry = {.jitter = 1.01}}, "queue_options.retry.jitter"},
        {{.retry = {.jitter = not_a_number}}, "queue_options.retry.jitter"},
        {{.time_to_live = -1ns}, "queue_options.time_to_live"},
        {{.priorities = 0}, "queue_options.priorities"},
        {{.priorities = -1}, "queue_options.priorities"},
        {{.priorities = 11}, "queue_options.priorities"},
        {{.deduplicate = {.window = -1ns}}, "queue_options.deduplicate.window"},
    };
    for (const auto& c : cases) {
        CAPTURE(std::string(c.named));
        try {
            mailroom::queue<int> q(c.wrong);
            FAIL("it was taken");
        } catch (const mailroom::error& e) {
            CHECK(e.kind() == errc::invalid);
            CHECK(e.code() == std::errc::invalid_argument);
            CHECK(e.sentence().substr(0, std::string_view(c.named).size()) == c.named);
            CHECK(e.sentence().size() > std::string_view(c.named).size() + 10);
        }
    }
}

TEST_CASE("queue_options: what lies at the edge of what is allowed is taken") {
    const int_options edges[] = {
        {},
        {.max_messages = 1, .max_bytes = 4},
        {.max_messages = std::numeric_limits<std::size_t>::max(), .max_bytes = std::numeric_limits<std::size_t>::max()},
        {.lease = 0s},
        {.lease = duration::max()},
        {.retry = {.max_attempts = 0, .initial = 0s, .multiplier = 1, .maximum = 0s, .jitter = 0}},
        {.retry = {.max_attempts = std::numeric_limits<std::uint32_t>::max(),
                   .initial = duration::max(),
                   .multiplier = 1e9,
                   .maximum = duration::max(),
                   .jitter = 1}},
        {.max_in_flight = 1},
        {.time_to_live = 1ns},
        {.time_to_live = duration::max()},
        {.priorities = 1},
        {.priorities = 10},
        {.deduplicate = {.window = duration::max(), .until_settled = true}},
        {.ordered_by_key = true},
        {.max_dead = 1},
        {.clock = &mailroom::system_clock()},
    };
    for (const auto& o : edges) {
        mailroom::queue<int> q(o);
        q.send(1);
        CHECK(q.statistics().sent == 1);
    }
}

TEST_CASE("queue_options: the defaults are what is written down") {
    const int_options o;
    CHECK(o.max_messages == 0);
    CHECK(o.max_bytes == 0);
    CHECK(o.budget == nullptr);
    CHECK(o.overflow == overflow::block);
    CHECK(o.lease == 30s);
    CHECK(o.retry.max_attempts == 10);
    CHECK(o.retry.initial == 100ms);
    CHECK(o.retry.multiplier == 2);
    CHECK(o.retry.maximum == 1min);
    CHECK(o.retry.jitter == 0);
    CHECK(o.max_in_flight == 0);
    CHECK(o.time_to_live == 0s);
    CHECK(o.priorities == 1);
    CHECK(o.deduplicate.window == 0s);
    CHECK(!o.deduplicate.until_settled);
    CHECK(!o.ordered_by_key);
    CHECK(o.max_dead == 0);
    CHECK(!o.validate);
    CHECK(o.clock == nullptr);
    const mailroom::properties p;
    CHECK(p.key.empty());
    CHECK(p.delay == 0s);
    CHECK(p.time_to_live == 0s);
    CHECK(p.priority == 0);
    const mailroom::stats s;
    CHECK(s.sent + s.acked + s.redelivered + s.expired + s.dropped + s.duplicates + s.bytes == 0);
}

TEST_CASE("queue_options: the fields stand in the order that programs name them in") {
    mailroom::memory_budget budget(100);
    const int_options all{.max_messages = 5,
                          .max_bytes = 100,
                          .budget = &budget,
                          .overflow = overflow::reject,
                          .lease = 1s,
                          .retry = {.max_attempts = 3, .initial = 1s, .multiplier = 2, .maximum = 1min, .jitter = 0.1},
                          .max_in_flight = 2,
                          .time_to_live = 1h,
                          .priorities = 3,
                          .deduplicate = {.window = 1s, .until_settled = true},
                          .ordered_by_key = true,
                          .max_dead = 4,
                          .validate = [](const int& v, const mailroom::properties& p) { return v != 0 && p.subject.empty(); },
                          .clock = nullptr};
    mailroom::queue<int> q(all);
    CHECK(q.try_send(0).error() == errc::rejected);
    CHECK(q.try_send(1, {.key = "k",
                         .id = "i",
                         .subject = "s",
                         .correlation_id = "c",
                         .reply_to = "r",
                         .content_type = "t",
                         .delay = 1s,
                         .time_to_live = 1s,
                         .priority = 2,
                         .headers = {{"name", 1}}})
              .error() == errc::rejected);
    CHECK(q.try_send(1, {.key = "k"}));
}

TEST_CASE("queue_options: a message that a bound could never hold is too large, whatever the overflow rule") {
    for (const overflow rule : {overflow::block, overflow::reject, overflow::drop_oldest, overflow::drop_newest}) {
        mailroom::memory_budget small(3);
        mailroom::queue<int> bytes({.max_bytes = 3, .overflow = rule});
        mailroom::queue<int> shared({.budget = &small, .overflow = rule});
        mailroom::queue<int> count({.max_messages = 2, .overflow = rule});
        for (auto* q : {&bytes, &shared}) {
            CHECK(q->try_send(1).error() == errc::too_large);
            CHECK(!q->try_send(1).error().message().empty());
            CHECK_THROWS_AS(q->send(1), mailroom::error);
        }
        count.send_many(std::vector{1, 2});
        CHECK_THROWS_AS(count.send_many(std::vector{1, 2, 3}), mailroom::error);
        CHECK(count.statistics().ready == 2); // nothing was dropped for it
        CHECK(small.used() == 0);
    }
}
