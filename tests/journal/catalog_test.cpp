#include <mailroom/journal/catalog.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using mailroom::errc;
using mailroom::error;
using mailroom::no_offset;
using mailroom::offset;
using namespace mailroom::detail;
using bytes = std::vector<std::byte>;

const schema order{"order", 1, 0x1122334455667788, "application/x-mailroom"};
const schema newer{"order", 2, 99, "application/json"};

bytes payload(const std::function<void(wire_writer&)>& write) {
    bytes b;
    wire_writer to(b);
    write(to);
    return b;
}
void take(catalog& c, record_kind kind, std::uint32_t stream, const bytes& what, offset o = 0, std::uint32_t properties = 0, std::int64_t time = 0) {
    record r;
    r.head.kind = kind;
    r.head.stream = stream;
    r.head.offset = o;
    r.head.properties = properties;
    r.head.time = time;
    r.head.length = static_cast<std::uint32_t>(what.size());
    r.payload = what;
    c.take(r);
}
bool refuses(catalog& c, record_kind kind, std::uint32_t stream, const bytes& what, offset o = 0, std::uint32_t properties = 0) {
    try {
        take(c, kind, stream, what, o, properties);
    } catch (const error& e) { return e == errc::corrupt; }
    return false;
}

bytes endpoint_of(std::string_view name, const endpoint_shape& shape, std::uint32_t cursor = 0) {
    return payload([&](wire_writer& to) { catalog::write_endpoint(to, name, shape, order, cursor); });
}
bytes subscription_of(std::string_view name, std::uint32_t mode, std::uint32_t first_cursor, const std::vector<cursor_image>& at) {
    return payload([&](wire_writer& to) { catalog::write_subscription(to, name, mode, first_cursor, at); });
}
bytes numbers(std::initializer_list<std::uint64_t> all) {
    return payload([&](wire_writer& to) {
        for (const std::uint64_t n : all) { to.var(n); }
    });
}
bytes text(std::string_view t) {
    return payload([&](wire_writer& to) { to.text(t); });
}
bytes message_of(std::string_view id, std::uint32_t& properties_bytes) {
    mailroom::byte_sink sink;
    encode_properties({.id = std::string(id)}, sink);
    properties_bytes = static_cast<std::uint32_t>(sink.size());
    bytes b(sink.bytes().begin(), sink.bytes().end());
    b.resize(b.size() + 3, std::byte{'b'});
    return b;
}
void send(catalog& c, std::uint32_t stream, offset o, std::string_view id = {}, std::int64_t time = 0) {
    std::uint32_t front = 0;
    bytes b = id.empty() ? bytes(3) : message_of(id, front);
    take(c, record_kind::message, stream, b, o, front, time);
}

bytes written(const catalog& c) {
    return payload([&](wire_writer& to) { c.write(to); });
}
catalog reread(const catalog& c) {
    const bytes b = written(c);
    wire_reader from(b);
    catalog again = catalog::read(from);
    from.expect_end();
    CHECK(written(again) == b);
    CHECK(again.next_stream() == c.next_stream());
    CHECK(again.next_cursor() == c.next_cursor());
    return again;
}

constexpr endpoint_shape a_topic{.kind = endpoint_kind::topic, .partitions = 3, .dedup_window = 1'000};

// A queue (stream 1, cursor 1), a topic (streams 2..4) with two subscriptions (cursors 2..4, 5..7), ids, settlements and failures.
catalog make_catalog() {
    catalog c;
    take(c, record_kind::endpoint, 1,
         endpoint_of("queue", {.priorities = 3, .ordered_by_key = true, .dedup_window = 5, .dedup_until_settled = true}, 1));
    take(c, record_kind::endpoint, 2, endpoint_of("topic", a_topic));
    take(c, record_kind::schema, 2, payload([](wire_writer& to) { catalog::write_schema(to, newer); }));
    take(c, record_kind::subscription, 2, subscription_of("audit", 1, 2, {cursor_image(0), cursor_image(0), cursor_image(0)}));
    for (offset o = 0; o < 5; ++o) {
        send(c, 1, o, "id " + std::to_string(o), 10);
        send(c, 3, o, o % 2 != 0 ? "topic " + std::to_string(o) : "", 20);
    }
    take(c, record_kind::subscription, 2, subscription_of("mail", 2, 5, {cursor_image(0), cursor_image(3), cursor_image(0)}));
    take(c, record_kind::settlements, 1, numbers({1, 0, 1, 1, 2, 1, 4, 1, 2, 3}));
    take(c, record_kind::settlements, 3, numbers({1, 1, 2}));
    take(c, record_kind::deliveries, 1, numbers({1, 2, 3, 7, 0, 1}));
    take(c, record_kind::refused, 3, numbers({4, 0}));
    take(c, record_kind::refused, 3, numbers({1, 200}));
    return c;
}

} // namespace

TEST_CASE("catalog: a queue is declared, with its cursor and the first way its bodies are encoded") {
    catalog c;
    CHECK(c.next_stream() == 1);
    CHECK(c.find("queue") == nullptr);
    const endpoint_shape shape{.priorities = 10, .ordered_by_key = true, .dedup_window = -1, .dedup_until_settled = true};
    take(c, record_kind::endpoint, 1, endpoint_of("queue", shape, 1));
    REQUIRE(c.find("queue") != nullptr);
    CHECK(*c.find("queue") == 1);
    const endpoint_entry& e = c.endpoint(1);
    CHECK(e.name == "queue");
    CHECK(e.shape == shape);
    CHECK(e.schemas == std::vector<schema>{order});
    REQUIRE(e.subscriptions.size() == 1);
    CHECK(e.subscriptions.at("").first_cursor == 1);
    CHECK(c.stream(1).next == 0);
    CHECK(c.image(1) != nullptr);
    CHECK(c.image(2) == nullptr);
    CHECK(c.next_stream() == 2);
    CHECK(c.next_cursor() == 2);
}

TEST_CASE("catalog: a topic has a stream a partition, in a row, and no cursor until somebody subscribes") {
    catalog c;
    take(c, record_kind::endpoint, 1, endpoint_of("topic", a_topic));
    CHECK(c.streams().size() == 3);
    for (std::uint32_t p = 0; p < 3; ++p) {
        CHECK(c.stream(1 + p).endpoint == 1);
        CHECK(c.stream(1 + p).partition == p);
    }
    CHECK(c.cursors().empty());
    CHECK(c.next_stream() == 4);
    CHECK(c.next_cursor() == 1);
    take(c, record_kind::subscription, 1, subscription_of("audit", 7, 1, {cursor_image(4), cursor_image(5), cursor_image(6)}));
    CHECK(c.endpoint(1).subscriptions.at("audit").mode == 7);
    for (std::uint32_t p = 0; p < 3; ++p) {
        CHECK(c.cursors().at(1 + p).stream == 1 + p);
        CHECK(c.image(1 + p)->floor() == 4 + p);
    }
    CHECK(c.next_cursor() == 4);
    take(c, record_kind::removal, 1, text("audit"));
    CHECK(c.cursors().empty());
    CHECK(c.endpoint(1).subscriptions.empty());
    CHECK(c.next_cursor() == 4); // numbers are not used again
    take(c, record_kind::removal, 1, text("audit"));
}

TEST_CASE("catalog: declarations that contradict what is known are refused") {
    catalog c = make_catalog();
    CHECK(refuses(c, record_kind::endpoint, 5, endpoint_of("queue", {}, 8)));
    CHECK(refuses(c, record_kind::endpoint, 4, endpoint_of("other", {}, 8)));
    CHECK(refuses(c, record_kind::schema, 77, payload([](wire_writer& to) { catalog::write_schema(to, newer); })));
    CHECK(refuses(c, record_kind::schema, 3, payload([](wire_writer& to) { catalog::write_schema(to, newer); }))); // a partition is no endpoint
    CHECK(refuses(c, record_kind::subscription, 77, subscription_of("x", 0, 9, {cursor_image(0)})));
    CHECK(refuses(c, record_kind::subscription, 2, subscription_of("x", 0, 9, {cursor_image(0)}))); // of three partitions
    CHECK(refuses(c, record_kind::removal, 77, text("audit")));
    for (const endpoint_shape& impossible :
         {endpoint_shape{.partitions = 0}, endpoint_shape{.partitions = 4097}, endpoint_shape{.kind = static_cast<endpoint_kind>(3)},
          endpoint_shape{.kind = static_cast<endpoint_kind>(0)}}) {
        CHECK(refuses(c, record_kind::endpoint, 5, endpoint_of("other", impossible, 8)));
    }
    CHECK(c.next_stream() == 5);
    CHECK(c.find("other") == nullptr);
}

TEST_CASE("catalog: a message moves its stream on; one of a stream nobody knows is refused") {
    catalog c = make_catalog();
    CHECK(c.stream(1).next == 5);
    CHECK(c.stream(2).next == 0);
    CHECK(c.stream(3).next == 5);
    send(c, 2, 0);
    CHECK(c.stream(2).next == 1);
    CHECK(refuses(c, record_kind::message, 0, {}));
    CHECK(refuses(c, record_kind::message, 5, {}));
    c.skip_to(2, 9);
    c.skip_to(2, 3);
    c.skip_to(77, 3);
    CHECK(c.stream(2).next == 9);
}

TEST_CASE("catalog: settlements, places and deliveries are of one cursor") {
    catalog c = make_catalog();
    CHECK(c.image(1)->is_settled(0));
    CHECK(!c.image(1)->is_settled(1));
    CHECK(c.image(1)->is_settled(2));
    CHECK(c.image(1)->ever().redelivered == 1);
    CHECK(c.image(1)->trials().at(1).attempt == 2);
    CHECK(c.image(1)->trials().at(3).attempt == 7);
    CHECK(c.image(1)->trials().count(0) == 0); // it is settled
    take(c, record_kind::place, 1, payload([](wire_writer& to) { cursor_image(4).write(to); }));
    CHECK(c.image(1)->floor() == 4);
    CHECK(c.image(1)->trials().empty());
    CHECK(refuses(c, record_kind::settlements, 77, numbers({1, 0, 1})));
    CHECK(refuses(c, record_kind::place, 77, payload([](wire_writer& to) { cursor_image(4).write(to); })));
    CHECK(refuses(c, record_kind::deliveries, 77, numbers({1, 2})));
    CHECK(refuses(c, record_kind::settlements, 1, numbers({5})));
    CHECK(refuses(c, record_kind::settlements, 1, numbers({1, 2})));
    CHECK(refuses(c, record_kind::deliveries, 1, numbers({1})));
    CHECK(refuses(c, record_kind::deliveries, 1, numbers({1, std::uint64_t{1} << 32})));
}

TEST_CASE("catalog: what comes too late for a subscription that was forgotten is nothing, not damage") {
    catalog c = make_catalog();
    take(c, record_kind::removal, 2, text("audit"));
    const bytes before = written(c);
    CHECK_FALSE(refuses(c, record_kind::settlements, 3, numbers({1, 1, 2})));
    CHECK_FALSE(refuses(c, record_kind::deliveries, 3, numbers({1, 2})));
    CHECK_FALSE(refuses(c, record_kind::place, 3, payload([](wire_writer& to) { cursor_image(4).write(to); })));
    CHECK(written(c) == before);
}

TEST_CASE("catalog: records of a kind nobody knows are refused") {
    catalog c = make_catalog();
    for (const unsigned kind : {0u, 10u, 255u, 65535u}) { CHECK(refuses(c, static_cast<record_kind>(kind), 1, numbers({1, 0, 1}))); }
}

TEST_CASE("catalog: what each stream refused is added up, and lasts") {
    catalog c = make_catalog();
    CHECK(c.stream(3).refused == refusals{5, 200});
    CHECK(c.stream(1).refused == refusals());
    CHECK(reread(c).stream(3).refused == refusals{5, 200});
    CHECK(refuses(c, record_kind::refused, 5, numbers({1, 1})));
    CHECK(refuses(c, record_kind::refused, 3, numbers({1})));
    CHECK(c.stream(3).refused == refusals{5, 200});
}

TEST_CASE("catalog: what is said of a survivor segment makes sense, or is refused") {
    catalog c = make_catalog();
    const auto list = [](std::uint64_t first, std::uint64_t length, std::uint64_t stream, std::uint64_t skip) {
        return numbers({first, length, 1, stream, 7, skip});
    };
    take(c, record_kind::survivors, 0, list(0, 200, 1, 192));
    take(c, record_kind::survivors, 0, list(most_survivors - 1, 200, 4, 64));
    CHECK(refuses(c, record_kind::survivors, 0, list(most_survivors, 200, 1, 64)));
    CHECK(refuses(c, record_kind::survivors, 0, list(0, most_survivors, 1, 64)));
    CHECK(refuses(c, record_kind::survivors, 0, list(0, 200, 1, 200)));
    CHECK(refuses(c, record_kind::survivors, 0, list(0, 200, 5, 64)));
    CHECK(refuses(c, record_kind::survivors, 0, list(0, 200, std::uint64_t{1} << 32, 64)));
    survivor_list l{.first = survivors_from + 64, .length = 500, .places = {{1, 2, 64}, {3, 4, 128}}};
    const bytes b = payload([&](wire_writer& to) { l.write(to); });
    wire_reader from(b);
    const survivor_list again = survivor_list::read(from);
    CHECK(from.at_end());
    CHECK(again.first == l.first);
    CHECK(again.length == l.length);
    REQUIRE(again.places.size() == 2);
    CHECK(again.places[1].stream == 3);
    CHECK(again.places[1].offset == 4);
    CHECK(again.places[1].skip == 128);
}

TEST_CASE("catalog: a message is wanted until every subscription has settled it") {
    catalog c = make_catalog();
    CHECK(!c.is_wanted(1, 0));
    CHECK(c.is_wanted(1, 1));
    CHECK(c.wanted_in(1, 0, 5) == 3);
    // audit (cursor 3) has settled 1 and 2 of stream 3; mail (cursor 6) began at 3
    CHECK(c.is_wanted(3, 0));
    CHECK(!c.is_wanted(3, 1));
    CHECK(!c.is_wanted(3, 2));
    CHECK(c.is_wanted(3, 3));
    CHECK(c.wanted_in(3, 0, 3) == 1);
    CHECK(c.wanted_in(3, 3, 5) == 2);
    take(c, record_kind::removal, 2, text("audit"));
    CHECK(!c.is_wanted(3, 0));
    take(c, record_kind::removal, 2, text("mail"));
    CHECK(c.wanted_in(3, 0, no_offset) == 0);
    CHECK(!c.is_wanted(77, 0));
    CHECK(c.wanted_in(77, 0, 5) == 0);
}

TEST_CASE("catalog: ids are kept where there is a window, until it is over, or until their message is settled") {
    catalog c = make_catalog();
    const auto ids = [&](std::uint32_t endpoint) {
        std::vector<std::string> all;
        for (const known_id& k : c.endpoint(endpoint).ids) { all.push_back(k.id); }
        return all;
    };
    using list = std::vector<std::string>;
    CHECK(ids(1) == list{"id 0", "id 1", "id 2", "id 3", "id 4"});
    CHECK(ids(2) == list{"topic 1", "topic 3"});
    CHECK(c.endpoint(2).ids.front().stream == 3);
    CHECK(c.endpoint(2).ids.front().offset == 1);
    CHECK(c.endpoint(2).ids.front().time == 20);
    c.forget_ids(15); // 5 after: the window is not over
    CHECK(ids(1).size() == 5);
    c.forget_ids(16);
    CHECK(ids(1) == list{"id 1", "id 3", "id 4"}); // 0 and 2 are settled
    CHECK(ids(2).size() == 2);
    c.forget_ids(1'021);
    CHECK(ids(2).empty());
    catalog without;
    take(without, record_kind::endpoint, 1, endpoint_of("queue", {}, 1));
    send(without, 1, 0, "id");
    CHECK(without.endpoint(1).ids.empty());
}

TEST_CASE("catalog: properties that make no sense are refused where an id is looked for") {
    catalog c = make_catalog();
    CHECK(refuses(c, record_kind::message, 1, numbers({1u << 20}), 9, 3));
    CHECK(refuses(c, record_kind::message, 1, bytes(1, std::byte{0x80}), 9, 1));
}

TEST_CASE("catalog: is written and read back, with all it knows") {
    CHECK(reread(catalog()).endpoints().empty());
    const catalog c = make_catalog(), d = reread(c);
    REQUIRE(d.find("topic") != nullptr);
    CHECK(*d.find("topic") == 2);
    CHECK(d.endpoint(2).shape == a_topic);
    CHECK(d.endpoint(2).schemas == std::vector<schema>{order, newer});
    CHECK(d.endpoint(2).subscriptions.at("mail").first_cursor == 5);
    CHECK(d.endpoint(1).ids.size() == 5);
    CHECK(d.stream(3).next == 5);
    CHECK(*d.image(1) == *c.image(1));
    CHECK(d.cursors().at(6).stream == 3);
    catalog e = d; // what is read goes on as what was written
    take(e, record_kind::endpoint, e.next_stream(), endpoint_of("third", {}, e.next_cursor()));
    CHECK(*e.find("third") == 5);
    CHECK(e.image(8) != nullptr);
}

TEST_CASE("catalog: numbers that were given stay given, also when nobody has them any more") {
    catalog c = make_catalog();
    take(c, record_kind::removal, 2, text("audit"));
    take(c, record_kind::removal, 2, text("mail"));
    CHECK(reread(c).next_cursor() == 8);
}

namespace {

struct sample {
    std::string what;
    record_kind kind;
    std::uint32_t stream;
    bytes payload;
    std::uint32_t properties;
};
std::vector<sample> samples() {
    std::uint32_t front = 0;
    const bytes message = message_of("an id", front);
    cursor_image image(2);
    image.settle(5, 9);
    image.try_again(12, {.attempt = 3, .dead = true, .due = 1, .first_failure = 2, .last_failure = 3, .reason = "why"});
    const bytes place = payload([&](wire_writer& to) { image.write(to); });
    const bytes steps = payload([&](wire_writer& to) {
        for (const std::uint64_t n : {1U, 1U, 2U, 2U, 4U}) { to.var(n); }
        trial{.attempt = 3, .dead = true, .due = 1, .first_failure = 2, .last_failure = 3, .reason = "why"}.write(to);
        for (const std::uint64_t n : {3U, 0U, 4U, 1U, 2U, 3U}) { to.var(n); }
    });
    return {{"message", record_kind::message, 1, message, front},
            {"moved", record_kind::moved, 1, message, front},
            {"settlements", record_kind::settlements, 1, steps, 0},
            {"place", record_kind::place, 1, place, 0},
            {"deliveries", record_kind::deliveries, 1, numbers({1, 2, 3, 300}), 0},
            {"endpoint", record_kind::endpoint, 5, endpoint_of("new", {.priorities = 300, .dedup_window = 1}, 8), 0},
            {"topic", record_kind::endpoint, 5, endpoint_of("new", a_topic), 0},
            {"schema", record_kind::schema, 2, payload([](wire_writer& to) { catalog::write_schema(to, newer); }), 0},
            {"subscription", record_kind::subscription, 2, subscription_of("new", 300, 8, {image, cursor_image(0), image}), 0},
            {"removal", record_kind::removal, 2, text("audit"), 0},
            {"refused", record_kind::refused, 3, numbers({300, 2}), 0},
            {"survivors", record_kind::survivors, 0, numbers({64, 3000, 2, 1, 3, 64, 3, 200, 1000}), 0}};
}

// Everything a journal asks of a catalog, whatever it was made of.
void exercise(catalog& c) {
    for (const auto& [number, s] : c.streams()) {
        static_cast<void>(c.is_wanted(number, 3));
        static_cast<void>(c.wanted_in(number, 0, s.next));
        static_cast<void>(c.endpoint(s.endpoint));
    }
    for (const auto& [number, e] : c.endpoints()) { CHECK(c.find(e.name) != nullptr); }
    c.forget_ids(100);
    static_cast<void>(written(c));
}

// Takes it, if it can be taken; what is then there can be used. Anything but errc::corrupt is a failure.
void try_record(const sample& s, const bytes& hostile) {
    catalog c = make_catalog();
    try {
        take(c, s.kind, s.stream, hostile, 5, std::min(s.properties, static_cast<std::uint32_t>(hostile.size())));
    } catch (const error& e) { CHECK(e == errc::corrupt); }
    exercise(c);
}
// The same with a checkpoint. Answers whether it was taken.
bool try_checkpoint(const bytes& hostile) {
    catalog c;
    try {
        wire_reader from(hostile);
        c = catalog::read(from);
    } catch (const error& e) {
        CHECK(e == errc::corrupt);
        return false;
    }
    exercise(c);
    for (const sample& s : samples()) {
        try {
            take(c, s.kind, s.stream, s.payload, 5, s.properties);
        } catch (const error& e) { CHECK(e == errc::corrupt); }
    }
    exercise(c);
    return true;
}

bytes damaged(bytes b, support::dice& dice) {
    for (unsigned i = 1 + dice.below(4); i != 0 && !b.empty(); --i) {
        const std::size_t at = dice.below(static_cast<unsigned>(b.size()));
        const auto there = b.begin() + static_cast<std::ptrdiff_t>(at);
        switch (dice.below(6)) {
        case 0: b[at] ^= std::byte{1} << dice.below(8); break;
        case 1: b[at] = static_cast<std::byte>(dice.below(256)); break;
        case 2: b[at] = static_cast<std::byte>(dice.below(8)); break;
        case 3: b.insert(there, 1 + dice.below(9), std::byte{0xff}); break;
        case 4: b.erase(there, there + static_cast<std::ptrdiff_t>(std::min<std::size_t>(b.size() - at, dice.below(4)))); break;
        default: b.resize(at); break;
        }
    }
    return b;
}

} // namespace

TEST_CASE("catalog: every record as it is written is taken") {
    for (const sample& s : samples()) {
        CAPTURE(s.what);
        catalog c = make_catalog();
        take(c, s.kind, s.stream, s.payload, 5, s.properties);
        exercise(c);
        static_cast<void>(reread(c));
    }
}

TEST_CASE("catalog: a record cut short, or with a bit flipped, is refused or makes sense") {
    for (const sample& s : samples()) {
        CAPTURE(s.what);
        for (std::size_t n = 0; n < s.payload.size(); ++n) {
            try_record(s, bytes(s.payload.begin(), s.payload.begin() + static_cast<std::ptrdiff_t>(n)));
        }
        for (std::size_t bit = 0; bit < s.payload.size() * 8; ++bit) {
            CAPTURE(bit);
            bytes b = s.payload;
            b[bit / 8] ^= std::byte{1} << (bit % 8);
            try_record(s, b);
        }
    }
}

TEST_CASE("catalog: a checkpoint cut short is refused; with a bit flipped it is, or makes sense") {
    const bytes whole = written(make_catalog());
    for (std::size_t n = 0; n < whole.size(); ++n) { CHECK(!try_checkpoint(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)))); }
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
        CAPTURE(bit);
        bytes b = whole;
        b[bit / 8] ^= std::byte{1} << (bit % 8);
        static_cast<void>(try_checkpoint(b));
    }
}

TEST_CASE("catalog: hostile records and checkpoints, at random") {
    const bytes whole = written(make_catalog());
    const std::vector<sample> all = samples();
    support::for_each_seed(1'000, [&](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice dice(seed);
        const sample& s = all[dice.below(static_cast<unsigned>(all.size()))];
        CAPTURE(s.what);
        try_record(s, damaged(s.payload, dice));
        static_cast<void>(try_checkpoint(damaged(whole, dice)));
        return true;
    });
}
