#include <mailroom/store/producers.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

namespace {

using mailroom::no_offset;
using mailroom::offset;
using mailroom::detail::producer_table;

// What an endpoint does to send: true if it was not sent before. `where`: its place, or where it was.
bool place(producer_table& t, const std::string& who, std::uint64_t number, offset& where) {
    const auto lock = t.lock();
    offset before = 0;
    if (t.was_sent({who, number}, before)) {
        where = before;
        return false;
    }
    t.placed({who, number}, where);
    return true;
}
bool place(producer_table& t, const std::string& who, std::uint64_t number) {
    offset where = 100 + number;
    return place(t, who, number, where);
}

} // namespace

TEST_CASE("producers: a number is taken once; where it went is known of the last one") {
    producer_table t;
    CHECK(t.last("a") == 0);
    offset where = 7;
    CHECK(place(t, "a", 1, where));
    where = 8;
    CHECK(place(t, "a", 5, where)); // gaps are fine
    CHECK_FALSE(place(t, "a", 5, where));
    CHECK(where == 8);
    for (const std::uint64_t older : {1u, 3u}) {
        CHECK_FALSE(place(t, "a", older, where));
        CHECK(where == no_offset);
    }
    CHECK(place(t, "b", 1)); // of somebody else
}

TEST_CASE("producers: what is placed is not kept yet") {
    producer_table t;
    place(t, "a", 1);
    place(t, "a", 2);
    CHECK(t.last("a") == 0);
    t.kept({"a", 2});
    t.kept({"a", 1}); // told late
    CHECK(t.last("a") == 2);
    t.kept({"nobody", 1});
    CHECK(t.last("nobody") == 0);
}

TEST_CASE("producers: what could not be kept may be sent again, and what came after it") {
    producer_table t;
    place(t, "a", 1);
    t.kept({"a", 1});
    place(t, "a", 2);
    place(t, "a", 3);
    t.not_kept({"a", 2});
    t.not_kept({"nobody", 2});
    offset where = 5;
    CHECK_FALSE(place(t, "a", 1, where));
    CHECK(where == no_offset); // it is not known any more
    CHECK(place(t, "a", 2));
    CHECK(place(t, "a", 3));
    CHECK(t.last("a") == 1);
}

TEST_CASE("producers: they are known again after the endpoint was opened") {
    producer_table t;
    t.restore("a", 9, 77, 3);
    CHECK(t.last("a") == 9);
    offset where = 0;
    CHECK_FALSE(place(t, "a", 9, where));
    CHECK(where == 77);
    CHECK(place(t, "a", 10));
}

TEST_CASE("producers: beyond 4096 the one that was there longest ago is forgotten, unless something of it is on its way") {
    producer_table t;
    const auto name = [](std::size_t i) { return "p" + std::to_string(i); };
    place(t, name(0), 1); // not kept
    for (std::size_t i = 1; i < producer_table::most; ++i) {
        place(t, name(i), 1);
        t.kept({name(i), 1});
    }
    CHECK_FALSE(place(t, name(1), 1)); // it was there again
    place(t, "one more", 1);
    CHECK_FALSE(place(t, name(0), 1));
    CHECK(t.last(name(1)) == 1);
    CHECK(t.last(name(2)) == 0); // this one
    CHECK(t.last(name(3)) == 1);

    SUBCASE("restored ones have their turn as well") {
        producer_table again;
        for (std::size_t i = 0; i < producer_table::most; ++i) { again.restore(name(i), 1, i, producer_table::most - i); }
        place(again, "one more", 1);
        CHECK(again.last(name(0)) == 1);
        CHECK(again.last(name(producer_table::most - 1)) == 0);
    }
}
