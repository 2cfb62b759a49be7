#include <mailroom/message/message.hpp>

#include "support/tracked.hpp"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

using namespace std::chrono_literals;
using support::tracked;

namespace {

using mailroom::message;
using mailroom::detail::envelope;
using mailroom::detail::message_access;

const mailroom::time_point noon{12h};

std::unique_ptr<envelope> with_key(const char* key) {
    auto e = std::make_unique<envelope>();
    e->props.key = key;
    return e;
}
message<tracked> inside(int number) { return message_access::make<tracked>(tracked(number), with_key("k"), noon, mailroom::offset{5}); }
struct bulky : tracked { // too large for a slot
    using tracked::tracked;
    std::array<char, 2000> rest{};
};
message<bulky> boxed(int number) { return message_access::make<bulky>(std::make_unique<bulky>(number), with_key("k"), noon, mailroom::offset{5}); }

struct no_default {
    explicit no_default(int v) : value(v) {}
    int value;
};

} // namespace

TEST_CASE("message: says what it was sent with, when, and where it stood") {
    const auto m = inside(7);
    CHECK(m.body().value() == 7);
    CHECK((*m).value() == 7);
    CHECK(m->value() == 7);
    CHECK(m.props().key == "k");
    CHECK(m.timestamp() == noon);
    CHECK(m.offset() == 5);
    const auto plain = message_access::make<no_default>(no_default(1), std::unique_ptr<envelope>(), noon, mailroom::offset{0});
    CHECK(&plain.props() == &mailroom::no_properties);
    CHECK(plain->value == 1);
}

TEST_CASE("message: take gives the body, from its place or its box") {
    CHECK(inside(7).take().value() == 7);
    CHECK(boxed(8).take().value() == 8);
    const tracked kept(9);
    tracked* const at = const_cast<tracked*>(&kept);
    auto view = message_access::make<tracked>(at, static_cast<const envelope*>(nullptr), noon, mailroom::offset{0});
    CHECK(&view.body() == &kept);
    CHECK(std::move(view).take().value() == 9);
    CHECK(kept.value() == 9); // a view is copied from
}

template <class Make>
void move_about(Make make) {
    using made = decltype(make(0));
    const long before = tracked::live();
    {
        auto a = make(1);
        auto b = make(2);
        auto c = std::move(a);
        CHECK(c->value() == 1);
        CHECK(c.props().key == "k");
        c = std::move(b);
        CHECK(c->value() == 2);
        c = make(3);
        CHECK(c->value() == 3);
        made& same = c;
        c = std::move(same);
        CHECK(c->value() == 3);
        CHECK(c.offset() == 5);
        std::optional<made> o(std::move(c));
        o.reset();
        o.emplace(make(4));
        o = make(5);
        CHECK((*o)->value() == 5);
        std::swap(*o, b = make(6));
        CHECK((*o)->value() == 6);
        CHECK(b->value() == 5);
    }
    CHECK(tracked::live() == before);
    CHECK(tracked::faults() == 0);
}

TEST_CASE("message: every body ends once, however it is moved about") {
    move_about(inside);
    move_about(boxed);
    static_assert(sizeof(message<bulky>) < 100); // it carries the box, not what is in it
}

TEST_CASE("message: a view owns nothing") {
    const long before = tracked::live();
    tracked kept(9);
    const auto e = with_key("seen");
    {
        auto view = message_access::make<tracked>(&kept, static_cast<const envelope*>(e.get()), noon, mailroom::offset{3});
        CHECK(view.props().key == "seen");
        const auto moved = std::move(view);
        CHECK(&moved.body() == &kept);
        CHECK(moved.props().key == "seen");
    }
    CHECK(kept.value() == 9);
    CHECK(tracked::live() == before + 1);
}

TEST_CASE("message: a large body moves as a pointer and cannot throw") {
    struct large {
        std::array<char, 4000> bytes{};
        large() = default;
        large(large&&) noexcept(false) = default;
    };
    static_assert(std::is_nothrow_move_constructible_v<message<large>> && std::is_nothrow_move_assignable_v<message<large>>);
    static_assert(!std::is_copy_constructible_v<message<int>>);
    auto a = message_access::make<large>(std::make_unique<large>(), std::unique_ptr<envelope>(), noon, mailroom::offset{0});
    const large* const at = &a.body();
    const auto b = std::move(a);
    CHECK(&b.body() == at);
}

TEST_CASE("message: move-only bodies are taken too") {
    auto m = message_access::make<std::unique_ptr<int>>(std::make_unique<int>(4), std::unique_ptr<envelope>(), noon, mailroom::offset{0});
    const std::unique_ptr<int> out = std::move(m).take();
    CHECK(*out == 4);
}

TEST_CASE("envelope: is timed if it has a time before or after which it may not go") {
    envelope e;
    CHECK(!e.is_timed());
    e.due = 0s;
    CHECK(e.is_timed());
    e = envelope();
    e.expires = 1s;
    CHECK(e.is_timed());
}
