#include <mailroom/message/properties.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <type_traits>

using mailroom::properties;
using namespace std::chrono_literals;

namespace {

// As a user writes them, in the order they are declared; that this file compiles without a warning is the test.
properties all_of_them() {
    return {.key = "MSFT",
            .id = "1",
            .subject = "orders.eu.created",
            .correlation_id = "2",
            .reply_to = "answers",
            .content_type = "text/plain",
            .delay = 5s,
            .time_to_live = 1min,
            .priority = 7,
            .headers = {{"region", "eu"}, {"tries", 3}}};
}

std::size_t key_size(const properties& p) { return p.key.size(); }

const std::size_t seen_before_main = key_size(mailroom::no_properties) + mailroom::no_properties.headers.size();

} // namespace

TEST_CASE("properties: an aggregate for designated initialisers") {
    CHECK(std::is_aggregate_v<properties>);
    CHECK(key_size({.key = "MSFT", .delay = 5s}) == 4);
    CHECK(key_size({.headers = {{"one", 1}}}) == 0);
    CHECK(key_size({}) == 0);
    const properties p = all_of_them();
    CHECK(p.time_to_live == 60s);
    CHECK(p.headers.find("tries")->get<std::int64_t>() == 3);
    properties changed = p;
    CHECK(changed == p);
    changed.headers["tries"] = 4;
    CHECK(changed != p);
}

TEST_CASE("properties: the empty ones are a constant") {
    CHECK(mailroom::no_properties == properties());
    CHECK(seen_before_main == 0);
}
