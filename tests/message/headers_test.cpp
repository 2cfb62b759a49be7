#include <mailroom/message/headers.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

using mailroom::header_value;
using mailroom::headers;

TEST_CASE("header_value: takes what people write and keeps one of six kinds") {
    const std::string text = "text";
    const std::vector<std::byte> data{std::byte{1}, std::byte{2}};
    CHECK(header_value().is_null());
    CHECK(header_value(nullptr).is_null());
    CHECK(header_value(true).get<bool>());
    CHECK(header_value(7).get<std::int64_t>() == 7);
    CHECK(header_value(-7L).get<std::int64_t>() == -7);
    CHECK(header_value(7u).get<std::int64_t>() == 7);
    CHECK(header_value(std::uint8_t{200}).get<std::int64_t>() == 200);
    CHECK(header_value(1.5).get<double>() == 1.5);
    CHECK(header_value(1.5f).get<double>() == 1.5);
    CHECK(header_value("text").get<std::string>() == "text");
    CHECK(header_value(std::string_view("text")).get<std::string>() == "text");
    CHECK(header_value(text).get<std::string>() == "text");
    CHECK(header_value(std::string(text)).get<std::string>() == "text");
    CHECK(header_value(data).get<header_value::bytes>() == data);
    CHECK(header_value(std::span<const std::byte>(data)).get<header_value::bytes>() == data);
    CHECK(!std::is_constructible_v<header_value, char>);
    CHECK(!std::is_constructible_v<header_value, void*>);
}

TEST_CASE("header_value: an integer beyond 64 bits with a sign is refused") {
    constexpr auto largest = std::numeric_limits<std::int64_t>::max();
    CHECK(header_value(static_cast<std::uint64_t>(largest)).get<std::int64_t>() == largest);
    try {
        (void)header_value(static_cast<std::uint64_t>(largest) + 1);
        FAIL("nothing thrown");
    } catch (const mailroom::error& e) { CHECK(e == mailroom::errc::invalid); }
}

TEST_CASE("header_value: is asked for exactly what it holds") {
    const header_value n = 7;
    CHECK(n.is<std::int64_t>());
    CHECK(!n.is<double>());
    CHECK(n.get_if<double>() == nullptr);
    CHECK(*n.get_if<std::int64_t>() == 7);
    CHECK_THROWS_AS((void)n.get<std::string>(), mailroom::error);
    CHECK(n == header_value(7u));
    CHECK(n != header_value(7.0));
    CHECK(std::visit([](const auto& held) { return sizeof held; }, n.variant()) == sizeof(std::int64_t));
}

TEST_CASE("headers: a small map, sorted by name") {
    headers h{{"b", 2}, {"a", "one"}, {"c", nullptr}, {"b", 3}};
    CHECK(h.size() == 3);
    CHECK(h["b"] == 3); // the later one counts
    std::string names;
    for (const auto& [name, value] : h) names += name;
    CHECK(names == "abc");
    CHECK(h.find("a")->get<std::string>() == "one");
    CHECK(h.find("z") == nullptr);
    CHECK(h.contains("c"));
    h["d"] = 1.5;
    CHECK(h.find("d")->get<double>() == 1.5);
    CHECK(h["new"].is_null());
    CHECK(h.erase("new"));
    CHECK(!h.erase("new"));
    CHECK(h.size() == 4);
    CHECK(h == headers{{"d", 1.5}, {"c", nullptr}, {"b", 3}, {"a", "one"}});
    CHECK(h != headers{{"a", "one"}});
    h.clear();
    CHECK(h.empty());
    CHECK(h == headers());
}
