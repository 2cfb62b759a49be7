// The comparison of queues with the model must find what it is there to find: doubles with one fault each, all found out.
#include "support/drivers.hpp"
#include "support/faulty_models.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>

using namespace support;
using std::chrono::seconds;

namespace {

std::size_t weight_of_int(int) { return sizeof(int); }

template <class Model>
std::optional<difference> find(const settings& o) {
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
        dice d(seed);
        if (auto found = compare<model_hands<Model>>(o, draw(d, o, 150), weight_of_int)) { return found; }
    }
    return std::nullopt;
}

/// With some settings, the one who forgets them is found out and the one who does not is not.
template <auto Set, auto Forget>
void check_forgetful(const std::string& what) {
    CAPTURE(what);
    settings o;
    o.retry.initial = seconds(1);
    Set(o);
    CHECK(find<forgetful<Forget>>(o).has_value());
    CHECK_FALSE(find<model>(o).has_value());
}

template <class Model>
void check_faulty(const std::string& what) {
    CAPTURE(what);
    settings o;
    o.retry.initial = seconds(1);
    o.retry.max_attempts = 2;
    CHECK(find<Model>(o).has_value());
}

} // namespace

TEST_CASE("comparison: finds a queue that breaks its word") {
    check_faulty<loses>("loses");
    check_faulty<duplicates>("duplicates");
    check_faulty<reorders>("reorders");
    check_faulty<looks_empty>("looks empty");
    check_faulty<skips_offsets>("skips offsets");
    check_faulty<redrives_at_the_end>("redrives at the end");
    check_faulty<never_closes>("never closes");
    check_faulty<late_by_one_step>("late by one step");
}

TEST_CASE("comparison: finds a queue that forgets an option") {
    check_forgetful<[](settings& o) { o.max_messages = 3; }, [](settings& o) { o.max_messages = 0; }>("max_messages");
    check_forgetful<[](settings& o) { o.max_messages = 3; }, [](settings& o) { o.max_messages = 4; }>("max_messages, by one");
    check_forgetful<[](settings& o) { o.max_bytes = 12; }, [](settings& o) { o.max_bytes += 4; }>("max_bytes");
    check_forgetful<[](settings& o) { o.max_messages = 3, o.overflow = mailroom::overflow::drop_oldest; },
                    [](settings& o) { o.overflow = mailroom::overflow::drop_newest; }>("drop_oldest");
    check_forgetful<[](settings& o) { o.max_messages = 3, o.overflow = mailroom::overflow::drop_newest; },
                    [](settings& o) { o.overflow = mailroom::overflow::reject; }>("drop_newest");
    check_forgetful<[](settings& o) { o.max_messages = 3, o.overflow = mailroom::overflow::reject; },
                    [](settings& o) { o.overflow = mailroom::overflow::drop_oldest; }>("reject");
    check_forgetful<[](settings& o) { o.lease = seconds(2); }, [](settings& o) { o.lease = seconds(0); }>("lease");
    check_forgetful<[](settings& o) { o.lease = seconds(2); }, [](settings& o) { o.lease += time_step; }>("lease, late");
    check_forgetful<[](settings& o) { o.retry.max_attempts = 2; }, [](settings& o) { o.retry.max_attempts = 3; }>("max_attempts");
    check_forgetful<[](settings& o) { o.retry.multiplier = 2; }, [](settings& o) { o.retry.multiplier = 1; }>("multiplier");
    check_forgetful<[](settings& o) { o.retry.maximum = seconds(2); }, [](settings& o) { o.retry.maximum = seconds(60); }>("maximum");
    check_forgetful<[](settings& o) { o.max_in_flight = 2; }, [](settings& o) { o.max_in_flight = 0; }>("max_in_flight");
    check_forgetful<[](settings& o) { o.time_to_live = seconds(3); }, [](settings& o) { o.time_to_live = seconds(0); }>("time_to_live");
    check_forgetful<[](settings& o) { o.priorities = 3; }, [](settings& o) { o.priorities = 1; }>("priorities");
    check_forgetful<[](settings& o) { o.priorities = 3; }, [](settings& o) { o.priorities = 4; }>("priorities, by one");
    check_forgetful<[](settings& o) { o.deduplicate.window = seconds(3); }, [](settings& o) { o.deduplicate.window = seconds(0); }>("window");
    check_forgetful<[](settings& o) { o.deduplicate.until_settled = true; }, [](settings& o) { o.deduplicate.until_settled = false; }>(
        "until_settled");
    check_forgetful<[](settings& o) { o.ordered_by_key = true; }, [](settings& o) { o.ordered_by_key = false; }>("ordered_by_key");
    check_forgetful<[](settings& o) { o.max_dead = 1, o.retry.max_attempts = 1; }, [](settings& o) { o.max_dead = 0; }>("max_dead");
    check_forgetful<[](settings& o) { o.validate = [](int body, const properties&) { return body % 3 != 0; }; },
                    [](settings& o) { o.validate = nullptr; }>("validate");
}

TEST_CASE("comparison: shrinks what it found to a few operations, which still show it") {
    const settings o;
    const auto found = find<reorders>(o);
    REQUIRE(found.has_value());
    const auto small = shrink<model_hands<reorders>>(o, *found, weight_of_int);
    CHECK(small.list.size() < found->list.size());
    CHECK(small.list.size() <= 22); // ten receives, something to receive
    CHECK(compare<model_hands<reorders>>(o, small.list, weight_of_int).has_value());
    for (std::size_t i = 0; i + 1 < small.list.size(); ++i) {
        auto fewer = small.list;
        fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK_FALSE(compare<model_hands<reorders>>(o, fewer, weight_of_int).has_value());
    }
}
