#include <mailroom/message/schema.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using mailroom::codec;
using mailroom::errc;
using mailroom::detail::decoder_for;
using mailroom::detail::mismatch_sentence;
using mailroom::detail::schema;
using mailroom::detail::schema_of;

namespace schema_test {

// One message type through three versions.
struct order_v1 {
    int id;
    double price;
};
struct order_v2 {
    int id;
    long cents;
};
struct order {
    int id;
    long cents;
    std::string currency;
};

struct tick {
    int id;
    double price;
};
struct own {
    int number = 0;
};

} // namespace schema_test

using schema_test::order;
using schema_test::order_v1;
using schema_test::order_v2;
using schema_test::own;
using schema_test::tick;

template <>
struct mailroom::type_name<order_v1> {
    static constexpr std::string_view value = "acme.order";
};
template <>
struct mailroom::type_name<order_v2> {
    static constexpr std::string_view value = "acme.order";
};
template <>
struct mailroom::type_name<order> {
    static constexpr std::string_view value = "acme.order";
};
template <>
inline constexpr std::uint32_t mailroom::type_version<order_v2> = 2;
template <>
inline constexpr std::uint32_t mailroom::type_version<order> = 3;
template <>
struct mailroom::older<order> {
    using type = order_v2;
};
template <>
struct mailroom::older<order_v2> {
    using type = order_v1;
};
template <>
struct mailroom::upcast<order_v1, order_v2> {
    static order_v2 convert(order_v1&& old) { return {old.id, static_cast<long>(old.price * 100)}; }
};
template <>
struct mailroom::upcast<order_v2, order> {
    static order convert(order_v2&& old) { return {old.id, old.cents, "USD"}; }
};

template <>
struct mailroom::codec<own> {
    static void encode(const own& o, byte_sink& out) { out.push_back(static_cast<std::byte>(o.number)); }
    static own decode(std::span<const std::byte> from) { return {from.empty() ? 0 : std::to_integer<int>(from[0])}; }
    static constexpr std::string_view content_type = "application/x-own";
    static constexpr std::uint64_t fingerprint = 77;
};

namespace {

template <class T>
std::vector<std::byte> bytes_of(const T& value) {
    mailroom::byte_sink out;
    codec<T>::encode(value, out);
    return {out.bytes().begin(), out.bytes().end()};
}
template <class T>
bool reads(const schema& stored) {
    return decoder_for<T>(stored) != nullptr;
}

} // namespace

TEST_CASE("schema: says name, version, layout and content") {
    CHECK(schema_of<std::string>() == schema{"std::string", 1, 0, "text/plain"});
    CHECK(schema_of<order>() == schema{"acme.order", 3, 0, "application/x-mailroom"});
    const auto plain = schema_of<tick>();
    CHECK(plain.type == "schema_test::tick");
    CHECK(plain.fingerprint == mailroom::detail::layout_fingerprint<tick>());
    CHECK(schema_of<own>() == schema{"schema_test::own", 1, 77, "application/x-own"});
}

TEST_CASE("schema: a type reads what was stored as itself") {
    const auto decode = decoder_for<tick>(schema_of<tick>());
    REQUIRE((decode != nullptr));
    CHECK(decode(bytes_of(tick{1, 0.5})).price == 0.5);
    CHECK(reads<std::string>(schema_of<std::string>()));
    CHECK(decoder_for<own>(schema_of<own>())(bytes_of(own{5})).number == 5);
}

TEST_CASE("schema: what differs in name, version, layout or content is not read") {
    const auto right = schema_of<tick>();
    for (int part = 0; part < 4; ++part) {
        auto wrong = right;
        (part == 0 ? wrong.type : wrong.content) += part == 0 || part == 3 ? "x" : "";
        if (part == 1) { ++wrong.version; }
        if (part == 2) { ++wrong.fingerprint; }
        CAPTURE(part);
        CHECK_FALSE(reads<tick>(wrong));
    }
}

TEST_CASE("schema: older versions are read step by step") {
    const auto from_first = decoder_for<order>(schema_of<order_v1>());
    REQUIRE((from_first != nullptr));
    const order o = from_first(bytes_of(order_v1{7, 1.5}));
    CHECK(o.id == 7);
    CHECK(o.cents == 150);
    CHECK(o.currency == "USD");
    CHECK(decoder_for<order>(schema_of<order_v2>())(bytes_of(order_v2{8, 20})).cents == 20);
    CHECK(decoder_for<order>(schema_of<order>())(bytes_of(order{9, 30, "EUR"})).currency == "EUR");
    CHECK(decoder_for<order_v2>(schema_of<order_v1>())(bytes_of(order_v1{7, 2.5})).cents == 250);

    // Never the other way, and never as a version with another layout.
    CHECK_FALSE(reads<order_v1>(schema_of<order_v2>()));
    CHECK_FALSE(reads<order_v2>(schema_of<order>()));
    auto first_of_old = schema_of<order_v1>();
    first_of_old.fingerprint ^= 2;
    CHECK_FALSE(reads<order>(first_of_old));

    // What an old decoder throws comes through.
    CHECK_THROWS_AS(static_cast<void>(from_first(std::vector<std::byte>(3))), mailroom::error);
}

TEST_CASE("schema: a mismatch is said so that somebody can act on it") {
    const auto says = [](const std::string& sentence, std::string_view part) {
        CAPTURE(sentence);
        CAPTURE(part);
        CHECK(sentence.find(part) != std::string::npos);
    };
    says(mismatch_sentence<tick>(schema_of<order>()),
         "what is stored is acme.order version 3 (application/x-mailroom) and cannot be read as schema_test::tick version 1 (");
    says(mismatch_sentence<order_v1>(schema_of<order>()), "a newer program wrote it");
    says(mismatch_sentence<order>({"acme.order", 0, 0, "application/x-mailroom"}), "specialise mailroom::older and mailroom::upcast");
    says(mismatch_sentence<tick>({"schema_test::tick", 1, 0xabcU, "application/x-mailroom"}), "layout 0000000000000abc");
    says(mismatch_sentence<tick>({"schema_test::tick", 1, 0xabcU, "application/x-mailroom"}), "its layout has changed and its type_version has not");
    try {
        mailroom::detail::fail_mismatch<tick>(schema_of<order>());
    } catch (const mailroom::error& e) { CHECK(e == errc::type_mismatch); }
}
