// The engine by hand: over a source of the test, on an executor of the test. tests/consumer_test.cpp has all the rest.
#include "support/scripted_source.hpp"

#include <mailroom/consuming/engine.hpp>

#include <doctest/doctest.h>

#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using mailroom::consume_options;
using mailroom::delivery;

class recording final : public mailroom::detail::engine<int> {
public:
    recording(mailroom::detail::source<int>& from, consume_options&& o) : engine<int>(from, std::move(o)) {}
    std::vector<int> seen;

private:
    void handle(std::optional<delivery<int>>& message) override {
        seen.push_back(message->body());
        if (message->body() < 0) { throw message->body(); }
        message->ack();
    }
};

struct tasks {
    std::deque<std::function<void()>> waiting;
    mailroom::executor face() {
        return [this](std::function<void()> f) { waiting.push_back(std::move(f)); };
    }
    bool run_one() {
        if (waiting.empty()) { return false; }
        const auto f = std::move(waiting.front());
        waiting.pop_front();
        f();
        return true;
    }
};

} // namespace

TEST_CASE("engine: one turn of the executor is one handler; what it throws sends the message back") {
    bool gone = false;
    auto* const s = new support::scripted_source(&gone);
    tasks t;
    int errors = 0;
    for (const int n : {1, -2, 3}) { s->add(n); }
    {
        consume_options o{.prefetch = 2, .executor = t.face()};
        o.on_error = [&](const std::exception_ptr&) { ++errors; };
        const auto e = std::make_shared<recording>(*s, std::move(o));
        e->start();
        s->unrefer(); // it may outlive its endpoint
        CHECK(e->seen.empty());
        CHECK(t.waiting.size() == 1);
        CHECK(t.run_one());
        CHECK(e->seen == std::vector<int>{1});
        CHECK(t.run_one());
        CHECK(t.run_one());
        CHECK(e->seen == std::vector<int>{1, -2, 3});
        CHECK(errors == 1);
        CHECK(s->said() == std::vector<std::string>{"ack 0", "nack 1", "ack 2"});
        CHECK(e->running());
        e->finish();
        while (t.run_one()) {}
        CHECK_FALSE(gone);
    }
    CHECK(gone);
}

TEST_CASE("engine: stopped, it releases what it had taken in advance") {
    auto* const s = new support::scripted_source();
    tasks t;
    for (int n = 0; n < 4; ++n) { s->add(n); }
    {
        const auto e = std::make_shared<recording>(*s, consume_options{.prefetch = 3, .executor = t.face()});
        e->start();
        CHECK(t.run_one()); // takes three
        e->stop();
        CHECK_FALSE(e->running());
        CHECK(s->said() == std::vector<std::string>{"ack 0", "release 1", "release 2"});
        CHECK(e->drain(mailroom::duration::zero()));
        while (t.run_one()) {}
        CHECK(e->seen == std::vector<int>{0});
        e->finish();
    }
    s->unrefer();
}
