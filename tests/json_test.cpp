#include <mailroom/json.hpp>
#include <mailroom/message/schema.hpp>

#include <boost/describe.hpp>
#include <boost/json/src.hpp> // once in a program
#include <doctest/doctest.h>

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace json_test {

struct leg {
    std::string venue;
    int size = 0;

    friend bool operator==(const leg&, const leg&) = default;
};
BOOST_DESCRIBE_STRUCT(leg, (), (venue, size))

struct order {
    int id = 0;
    std::string symbol;
    double price = 0;
    std::vector<leg> legs;
    std::map<std::string, bool> flags;

    friend bool operator==(const order&, const order&) = default;
};
BOOST_DESCRIBE_STRUCT(order, (), (id, symbol, price, legs, flags))

struct holder { // by fields, with JSON inside
    int version = 1;
    std::string note;
    std::vector<order> orders;

    friend bool operator==(const holder&, const holder&) = default;
};

} // namespace json_test

template <>
struct mailroom::codec<json_test::order> : mailroom::json_codec<json_test::order> {};

using json_test::holder;
using json_test::order;
using mailroom::codec;

namespace {

const order example{7, "MSFT \"\n\u00e9", 0.5, {{"XNAS", 100}, {"ARCX", -2}}, {{"odd", true}}};

std::string text_of(const order& o) {
    mailroom::byte_sink out;
    codec<order>::encode(o, out);
    return {reinterpret_cast<const char*>(out.bytes().data()), out.size()};
}
order from_text(std::string_view text) { return codec<order>::decode(std::as_bytes(std::span(text))); }

} // namespace

TEST_CASE("json: a described struct goes there and back, and is JSON in between") {
    CHECK(text_of({1, "A", 0.5, {{"X", 2}}, {}}) == R"({"id":1,"symbol":"A","price":5E-1,"legs":[{"venue":"X","size":2}],"flags":{}})");
    CHECK(from_text(text_of(example)) == example);
    CHECK(from_text(R"( { "symbol": "A", "id": 1, "flags": {}, "legs": [], "price": 2 } )") == order{1, "A", 2, {}, {}});

    order large = example;
    large.symbol.assign(5000, 'x'); // more than is written at once
    CHECK(from_text(text_of(large)) == large);
}

TEST_CASE("json: it says what it is, and so is not taken for another format") {
    CHECK(codec<order>::content_type == "application/json");
    CHECK(mailroom::codable<order>);
    const auto schema = mailroom::detail::schema_of<order>();
    CHECK(schema.content == "application/json");
    CHECK((mailroom::detail::decoder_for<order>(schema) != nullptr));
    auto other = schema;
    other.content = "application/x-mailroom";
    CHECK((mailroom::detail::decoder_for<order>(other) == nullptr));
}

TEST_CASE("json: inside a type that is stored by fields") {
    const holder h{2, "two", {example, example}};
    mailroom::byte_sink out;
    codec<holder>::encode(h, out);
    CHECK(codec<holder>::decode(out.bytes()) == h);
}

TEST_CASE("json: what is none, or of another type, is refused with a sentence") {
    for (const std::string_view text :
         {std::string_view(), std::string_view("{"), std::string_view("null"), std::string_view("[]"), std::string_view(R"({"id":1})"),
          std::string_view(R"({"id":"1","symbol":"A","price":2,"legs":[],"flags":{}})"),
          std::string_view(R"({"id":99999999999,"symbol":"A","price":2,"legs":[],"flags":{}})"),
          std::string_view(R"({"id":1,"symbol":"A","price":2,"legs":[],"flags":{}} x)")}) {
        CAPTURE(text);
        try {
            from_text(text);
            FAIL("was read");
        } catch (const mailroom::error& e) {
            CHECK(e == mailroom::errc::corrupt);
            CHECK(e.sentence().find("no JSON of json_test::order: ") != std::string_view::npos);
        }
    }
    CHECK_THROWS_AS(from_text(std::string(100'000, '[')), mailroom::error); // not the end of the stack
}

TEST_CASE("json: no cut and no flipped bit is worse than an exception") {
    const std::string text = text_of(example);
    for (std::size_t size = 0; size < text.size(); ++size) { CHECK_THROWS_AS(from_text(text.substr(0, size)), mailroom::error); }
    for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
        std::string damaged = text;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        try {
            static_cast<void>(from_text(damaged));
        } catch (const mailroom::error& e) { CHECK(e == mailroom::errc::corrupt); }
    }
}
