#include <mailroom/cursor/deduplication.hpp>
#include <mailroom/store/lot.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

TEST_CASE("lot: an id is new once for each who knows it") {
    // Only the addresses count.
    const char places[2] = {};
    const auto* const one = reinterpret_cast<const mailroom::detail::deduplicator*>(&places[0]);
    const auto* const other = reinterpret_cast<const mailroom::detail::deduplicator*>(&places[1]);
    mailroom::detail::lot_base::id_set ids;
    CHECK(ids.size() == 0);
    const std::string text = "order 1";
    CHECK(ids.add(one, text));
    CHECK_FALSE(ids.add(one, std::string_view("order 1"))); // by what it says, not by where it is
    CHECK(ids.add(other, text));
    CHECK_FALSE(ids.add(other, text));
    CHECK(ids.add(one, "order 2"));
    CHECK(ids.add(one, ""));
    CHECK_FALSE(ids.add(one, ""));
    CHECK(ids.size() == 4);
}
