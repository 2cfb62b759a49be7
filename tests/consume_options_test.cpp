#include <mailroom/consume_options.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using mailroom::consume_options;
using mailroom::duration;
using mailroom::errc;
using mailroom::detail::pace;

namespace {

// What check_options says against them; empty: nothing.
std::string objection(void (*change)(consume_options&)) {
    consume_options o;
    change(o);
    try {
        mailroom::detail::check_options(o);
    } catch (const mailroom::error& e) {
        CHECK(e.kind() == errc::invalid);
        return e.what();
    }
    return {};
}
// When they start who want to all the time, from zero on.
std::vector<duration> starts(pace p, std::size_t n) {
    std::vector<duration> all;
    duration now = 0s;
    while (all.size() < n) {
        now = std::max(now, p.next());
        p.started(now);
        all.push_back(now);
    }
    return all;
}
std::size_t most_in_a_window(const std::vector<duration>& starts, duration window) {
    std::size_t most = 0;
    for (std::size_t first = 0, end = 0; first < starts.size(); ++first) {
        while (end < starts.size() && starts[end] < starts[first] + window) { ++end; }
        most = std::max(most, end - first);
    }
    return most;
}

} // namespace

TEST_CASE("consume options: what cannot be meant is refused, by its name") {
    CHECK(objection([](consume_options&) {}) == "");
    CHECK(objection([](consume_options& o) { o.concurrency = {2, 2}, o.prefetch = 1, o.max_per_second = 0.001, o.processing_limit = 0s; }) == "");
    const auto names = [](const std::string& text, const char* what) { return text.find(what) != std::string::npos; };
    CHECK(names(objection([](consume_options& o) { o.concurrency.min = 0; }), "concurrency.min"));
    CHECK(names(objection([](consume_options& o) { o.concurrency = {3, 2}; }), "concurrency.max"));
    CHECK(names(objection([](consume_options& o) { o.prefetch = 0; }), "prefetch"));
    CHECK(names(objection([](consume_options& o) { o.max_per_second = -1; }), "max_per_second"));
    CHECK(names(objection([](consume_options& o) { o.max_per_second = std::numeric_limits<double>::infinity(); }), "max_per_second"));
    CHECK(names(objection([](consume_options& o) { o.max_per_second = std::numeric_limits<double>::quiet_NaN(); }), "max_per_second"));
    CHECK(names(objection([](consume_options& o) { o.processing_limit = -1ns; }), "processing_limit"));
}

TEST_CASE("pace: without a limit anything may start at once") {
    pace p(0);
    CHECK_FALSE(p.on());
    CHECK(p.next() == duration::min());
    p.started(5s);
    CHECK(p.next(1000) == duration::min());
}

TEST_CASE("pace: no second sees more than so many, and each has so many where they wait") {
    for (const double limit : {1.0, 2.0, 3.0, 10.0, 1000.0}) {
        CAPTURE(limit);
        const auto many = static_cast<std::size_t>(limit);
        const auto all = starts(pace(limit), 3 * many + 1);
        CHECK(most_in_a_window(all, 1s) == many);
        CHECK(all[many - 1] == 0s); // a burst as large as the limit
        CHECK(all[many] == 1s);
        CHECK(all.back() == 3s);
    }
}

TEST_CASE("pace: a fraction is one in so many seconds; what is between is rounded to a longer time, not to more") {
    const auto slow = starts(pace(0.25), 3);
    CHECK(slow[1] == 4s);
    CHECK(slow[2] == 8s);
    const auto odd = starts(pace(2.5), 7); // three in 1.2 seconds
    CHECK(odd[2] == 0s);
    CHECK(odd[3] == 1200ms);
    CHECK(odd[6] == 2400ms);
}

TEST_CASE("pace: a large limit counts in groups, never more than it says") {
    const double limit = 10'000;
    const auto all = starts(pace(limit), 35'000);
    CHECK(most_in_a_window(all, 1s) <= 10'000);
    CHECK(all.back() <= 4s); // and not much fewer
}

TEST_CASE("pace: after a pause the burst is as large as the limit, and not larger") {
    pace p(3);
    p.started(0s);
    CHECK(p.next() == duration::min()); // two are left
    CHECK(p.next(3) == 1s);             // when the first of them is a second ago
    CHECK(p.next(4) == duration::max());
    p.started(10s), p.started(10s), p.started(10s);
    CHECK(p.next() == 11s);
}
