#include <mailroom/message/delivery.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

namespace {

using mailroom::delivery;
using mailroom::duration;
using mailroom::detail::delivery_access;
using mailroom::detail::envelope;
using mailroom::detail::handle;

const mailroom::time_point noon{12h};

// An endpoint that writes down what it is asked, and answers what it is told to.
struct scripted final : mailroom::detail::settler {
    std::vector<std::string> calls;
    bool answer = true;

    bool note(std::string what, const handle& at) noexcept {
        calls.push_back(std::move(what) + " " + std::to_string(at.place) + "/" + std::to_string(at.attempt));
        return answer;
    }
    bool ack(const handle& at) noexcept override { return note("ack", at); }
    bool nack(const handle& at) noexcept override { return note("nack", at); }
    bool nack_after(const handle& at, duration d) noexcept override { return note("nack " + std::to_string(d.count()), at); }
    bool release(const handle& at) noexcept override { return note("release", at); }
    bool reject(const handle& at, std::string reason) noexcept override { return note("reject '" + reason + "'", at); }
    bool extend(const handle& at, duration d) noexcept override { return note("extend " + std::to_string(d.count()), at); }
    mailroom::time_point sent_at(const handle&) const noexcept override { return noon; }
    void end_look(const handle&) noexcept override {}
};

using calls = std::vector<std::string>;

struct fixture {
    scripted owner;
    std::string text = "body";
    envelope cover;
    fixture() { cover.props.key = "k"; }
    delivery<std::string> make(mailroom::offset place = 3, std::uint32_t attempt = 2) {
        return delivery_access::make<std::string>(owner, &text, &cover, {nullptr, 0, attempt, place}, 1);
    }
};

} // namespace

TEST_CASE_FIXTURE(fixture, "delivery: shows the body in place and what is known of it") {
    const auto d = make();
    CHECK(&d.body() == &text);
    CHECK(&*d == &text);
    CHECK(d->size() == 4);
    CHECK(d.props().key == "k");
    CHECK(d.timestamp() == noon);
    CHECK(d.offset() == 3);
    CHECK(d.partition() == 1);
    CHECK(d.attempt() == 2);
    auto bare = delivery_access::make<std::string>(owner, &text, nullptr, {});
    CHECK(&bare.props() == &mailroom::no_properties);
    CHECK(bare.partition() == 0);
}

TEST_CASE_FIXTURE(fixture, "delivery: each verb asks its endpoint once, with its place and attempt; nothing after") {
    const struct {
        bool (*settle)(delivery<std::string>&);
        const char* call;
    } cases[] = {
        {[](delivery<std::string>& d) { return d.ack(); }, "ack 3/2"},
        {[](delivery<std::string>& d) { return d.nack(); }, "nack 3/2"},
        {[](delivery<std::string>& d) { return d.nack(5ns); }, "nack 5 3/2"},
        {[](delivery<std::string>& d) { return d.release(); }, "release 3/2"},
        {[](delivery<std::string>& d) { return d.reject(); }, "reject '' 3/2"},
        {[](delivery<std::string>& d) { return d.reject("bad"); }, "reject 'bad' 3/2"},
        {[](delivery<std::string>& d) { return bool(d.ack_async().wait() == 3); }, "ack 3/2"},
    };
    for (const auto& c : cases) {
        for (const bool answer : {true, false}) {
            if (!answer && std::string(c.call) == "ack 3/2") { continue; } // ack_async throws: below
            CAPTURE(c.call);
            owner.calls.clear();
            owner.answer = answer;
            {
                auto d = make();
                CHECK(c.settle(d) == answer);
                CHECK(owner.calls == calls{c.call});
                owner.answer = true;
                CHECK(!d.ack()); // settled, even if it was too late
                CHECK(!d.nack());
                CHECK(!d.nack(1s));
                CHECK(!d.release());
                CHECK(!d.reject("again"));
                CHECK(!d.extend(1s));
                CHECK(d.props() == mailroom::no_properties);
                CHECK(d.offset() == 3);
                CHECK(d.attempt() == 2);
            }
            CHECK(owner.calls == calls{c.call});
        }
    }
}

TEST_CASE_FIXTURE(fixture, "delivery: ack_async answers the offset, or that it was too late") {
    auto d = make();
    const mailroom::receipt first = d.ack_async();
    CHECK(first.ready());
    CHECK(first.wait() == 3);
    const mailroom::receipt second = d.ack_async();
    CHECK_THROWS_AS(second.wait(), mailroom::error);
    owner.answer = false;
    auto late = make();
    bool failed = false;
    late.ack_async().then([&](const mailroom::result<mailroom::offset>& r) { failed = !r; });
    CHECK(failed);
}

TEST_CASE_FIXTURE(fixture, "delivery: destroyed unsettled it is nacked, during unwinding too") {
    { const auto d = make(); }
    CHECK(owner.calls == calls{"nack 3/2"});
    try {
        const auto d = make(4, 1);
        throw std::runtime_error("handler");
    } catch (const std::runtime_error&) { CHECK(owner.calls == calls{"nack 3/2", "nack 4/1"}); }
}

TEST_CASE_FIXTURE(fixture, "delivery: extending does not settle") {
    auto d = make();
    CHECK(d.extend(7ns));
    owner.answer = false;
    CHECK(!d.extend(8ns));
    owner.answer = true;
    CHECK(d.ack());
    CHECK(owner.calls == calls{"extend 7 3/2", "extend 8 3/2", "ack 3/2"});
}

TEST_CASE_FIXTURE(fixture, "delivery: a moved one is settled by the new holder alone") {
    auto a = make(1);
    auto b = std::move(a);
    CHECK(!a.ack());
    CHECK(!a.extend(1s));
    CHECK(owner.calls.empty());
    auto c = make(2);
    c = std::move(b); // what it held goes back
    CHECK(owner.calls == calls{"nack 2/2"});
    CHECK(c.offset() == 1);
    delivery<std::string>& same = c;
    c = std::move(same);
    CHECK(owner.calls.size() == 1);
    std::vector<delivery<std::string>> many;
    for (mailroom::offset o = 10; o < 20; ++o) { many.push_back(make(o)); }
    CHECK(owner.calls.size() == 1);
    std::swap(many.front(), many.back());
    CHECK(many.front().offset() == 19);
    CHECK(owner.calls.size() == 1);
    many.clear();
    CHECK(owner.calls.size() == 11);
    std::optional<delivery<std::string>> o(std::move(c));
    CHECK(o->ack());
    static_assert(!std::is_copy_constructible_v<delivery<int>> && std::is_nothrow_move_constructible_v<delivery<int>>);
}
