#include <mailroom/message/asking.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <string>

using mailroom::properties;
namespace detail = mailroom::detail;

TEST_CASE("asking: addresses are text of 15 characters, each another") {
    std::set<std::string> all;
    for (const std::uint64_t n :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{63}, std::uint64_t{64}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
        const std::string a = detail::reply_address(n);
        CHECK(a.size() == 15);
        CHECK(detail::is_request(properties{.reply_to = a}));
        all.insert(a);
    }
    CHECK(all.size() == 6);
    for (const char* other : {"", "ask:", "ask:0123456789", "ask:0123456789ab", "orders.of.today"}) {
        CHECK_FALSE(detail::is_request(properties{.reply_to = other}));
    }
}

TEST_CASE("asking: numbers of calls, there and back") {
    std::string text;
    std::uint64_t back = 1;
    for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{0xabcdef}, (std::uint64_t{1} << 60) - 1}) {
        detail::write_call_number(text, n);
        CHECK(text.size() == 15);
        CHECK(detail::read_call_number(text, back));
        CHECK(back == n);
    }
    for (const char* wrong : {"", "1", "00000000000000g", "0000000000000000", "00000000000000A"}) {
        CHECK_FALSE(detail::read_call_number(wrong, back));
    }
}
