#include <mailroom/testing/crash_explorer.hpp>

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using mailroom::detail::open_mode;
using mailroom::testing::crash_explorer;
using mailroom::testing::crash_options;
using mailroom::testing::crash_point;
using mailroom::testing::loss;
using disk = mailroom::testing::simulated_files;
using journal = mailroom::basic_journal<disk>;

namespace {

struct notes {
    std::set<int> sent, done;
};

// The program of a user: it takes an order, and handles it.
void handle_orders(disk files, notes& n, bool too_early) {
    journal j("data", {}, files);
    mailroom::queue<int, journal> orders(j, "orders");
    for (const int i : {1, 2, 3}) {
        orders.send(i);
        n.sent.insert(i);
    }
    while (auto d = orders.try_receive()) {
        const int order = **d;
        if (too_early) { d->ack_async().wait(); }
        n.done.insert(order); // it is handled
        d->ack();
    }
}
bool all_there(disk files, const notes& n) {
    journal j("data", {}, files);
    mailroom::queue<int, journal> orders(j, "orders");
    std::set<int> left = n.done;
    while (auto d = orders.try_receive()) { left.insert(**d); }
    return std::includes(left.begin(), left.end(), n.sent.begin(), n.sent.end());
}

// Writes a file as one should, or forgets something.
struct file_writer {
    bool syncs = true, syncs_name = true;

    void operator()(disk files) const {
        disk::file f;
        must(files.open("f", open_mode::create, f));
        const std::span<const std::byte> part = std::as_bytes(std::span(std::string_view("0123456789")));
        std::size_t written = 0;
        must(files.write(f, 0, {&part, 1}, written));
        if (syncs) { must(files.sync(f)); }
        if (syncs_name) { must(files.sync_directory("")); }
        must(files.rename("f", "g"));
        must(files.sync_directory(""));
    }
    static void must(std::error_code e) {
        if (e) { throw std::system_error(e); }
    }
};
// Under its final name the file is whole.
bool is_whole_or_not_there(disk files) {
    const auto names = files.files();
    return std::find(names.begin(), names.end(), "g") == names.end() || files.contents("g").size() == 10;
}

} // namespace

TEST_CASE("crash_explorer: a handler that keeps its promises passes, at every call") {
    const auto found = crash_explorer().explore<notes>([](disk files, notes& n) { handle_orders(files, n, false); },
                                                       [](disk files, const notes& n) { return all_there(files, n); });
    CHECK_MESSAGE(found, found.text());
    CHECK(found.calls > 10);
    CHECK(found.points == 3 * found.calls + 1);
    CHECK(found.checks == 5 * found.points);
    CHECK(found.text().find("passed") != std::string::npos);
}

TEST_CASE("crash_explorer: a handler that acknowledges too early is found out, and the crash is replayed") {
    const auto program = [](disk files, notes& n) { handle_orders(files, n, true); };
    const auto check = [](disk files, const notes& n) { return all_there(files, n); };
    const auto found = crash_explorer().explore<notes>(program, check);
    REQUIRE_FALSE(found);
    REQUIRE(found.crashes.size() == 1);
    INFO(found.text());
    CHECK(found.what == "the check answered false");
    CHECK(found.text().find("{.call = " + std::to_string(found.crashes.front().call)) != std::string::npos);

    const auto again = crash_explorer().replay<notes>(found.crashes, program, check);
    CHECK_FALSE(again);
    CHECK(again.checks == 1);
    std::vector<crash_point> sooner{{0, std::nullopt, loss::everything, 0}};
    CHECK(crash_explorer().replay<notes>(sooner, program, check));
}

TEST_CASE("crash_explorer: what is not synced is found to be lost") {
    CHECK(crash_explorer().explore(file_writer(), is_whole_or_not_there));
    CHECK_FALSE(crash_explorer().explore(file_writer{.syncs = false}, is_whole_or_not_there));
    CHECK(crash_explorer().explore(file_writer{.syncs_name = false}, is_whole_or_not_there));
    CHECK(crash_explorer({.power_cuts = false}).explore(file_writer{.syncs = false}, is_whole_or_not_there)); // a process that dies needs no sync
    const auto report = crash_explorer({.kills = false}).explore(file_writer{.syncs = false}, [](disk files) {
        if (!is_whole_or_not_there(files)) { throw std::runtime_error("half of it"); }
    });
    CHECK(report.what == "half of it");
    CHECK(report.crashes.back().what != loss::nothing);
}

TEST_CASE("crash_explorer: limits, lives and programs that fail by themselves") {
    SUBCASE("so many points, by a seed") {
        std::vector<std::uint64_t> calls[2];
        for (auto& some : calls) {
            const auto found = crash_explorer({.limit = 5, .seed = 7})
                                   .explore<int>([](disk files, int&) { file_writer()(files); },
                                                 [&](disk, const int&, const crash_point& p) { some.push_back(p.call); });
            CHECK(found.points == 5);
        }
        CHECK(calls[0] == calls[1]);
    }
    SUBCASE("several lives") {
        const auto found = crash_explorer({.lives = 3, .cuts_per_life = 1})
                               .explore<int>(
                                   [](disk files, int& lives) {
                                       ++lives;
                                       disk::file f;
                                       const std::error_code e = files.open("f", open_mode::create, f);
                                       if (e && e != std::errc::file_exists) { throw std::system_error(e); }
                                   },
                                   [](disk, const int& lives) { return lives == 3; });
        CHECK_MESSAGE(found, found.text());
        const auto failing =
            crash_explorer({.lives = 2})
                .explore<int>([](disk files, int&) { static_cast<void>(files.make_directory("d")); }, [](disk, const int&) { return false; });
        CHECK(failing.crashes.size() == 2);
        const auto again = crash_explorer().replay<int>(
            failing.crashes, [](disk files, int&) { static_cast<void>(files.make_directory("d")); }, [](disk, const int&) { return false; });
        CHECK(again.points == 2);
        CHECK_FALSE(again);
    }
    SUBCASE("a program that fails while the power is on") {
        const auto found = crash_explorer().explore([](disk) { throw std::runtime_error("no paper"); }, [](disk) { return true; });
        CHECK_FALSE(found);
        CHECK(found.what.find("no paper") != std::string::npos);
    }
    SUBCASE("the words of a point") {
        CHECK(crash_point{17, 100, loss::random, 5}.text() == "{.call = 17, .torn = 100, .what = loss::random, .seed = 5}");
        CHECK(crash_point{1, crash_point::whole_call, loss::tail, 0}.text() ==
              "{.call = 1, .torn = crash_point::whole_call, .what = loss::tail, .seed = 0}");
    }
}
