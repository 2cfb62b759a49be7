// Finds bursts of failed logins in log files, and has a firewall block the addresses they come from.
//
//   lines ──> failures (in order for each address) ──> workers ──> alerts ──> firewall
//
// Several workers look for bursts at once, and still see the failures of one address one after the other: `ordered_by_key`. The firewall is
// busy now and then, so alerts are retried; what it can never do ends among the dead letters with the reason. Understands what sshd and PAM
// write in the format of syslog ("Dec 10 06:55:46 host sshd[24200]: ..."); other lines are counted and left alone.
#include "support/report.hpp"

#include <mailroom/mailroom.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

constexpr std::uint32_t burst_failures = 5; // so many failed logins,
constexpr auto burst_gap = 60s;             // none of them longer after the one before than this

// ----------------------------------------------------------------------------------------------------------------------------- messages

/// Failed logins that one line tells of.
struct failure {
    std::string file;
    std::uint64_t line = 0;
    std::string at; // as it is written
    std::chrono::seconds when{};
    std::string address, user;
    std::uint32_t times = 1;
};

struct burst {
    std::string file, address, first, last;
    std::uint32_t failures = 0;
    std::set<std::string> users;
    std::chrono::seconds until{};
    std::string answer = "-"; // of the firewall
};

struct alert {
    burst* about = nullptr;
    std::string address;
};

// ------------------------------------------------------------------------------------------------------------------------------ parsing

/// The text between `before` and the next of `ends`; nullopt if `before` is not there.
std::optional<std::string_view> between(std::string_view line, std::string_view before, std::string_view ends) {
    const auto at = line.find(before);
    if (at == line.npos) { return std::nullopt; }
    line.remove_prefix(at + before.size());
    return line.substr(0, std::min(line.find_first_of(ends), line.size()));
}

/// "Dec 10 06:55:46", as seconds since the first of January: syslog writes no year.
std::optional<std::chrono::seconds> parse_time(std::string_view text) {
    constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    constexpr std::array days_before{0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335};
    if (text.size() != 15) { return std::nullopt; }
    const auto month = months.find(text.substr(0, 3));
    const auto number = [&](std::size_t at) {
        int n = -1;
        if (text[at] == ' ') { return text[at + 1] >= '0' && text[at + 1] <= '9' ? text[at + 1] - '0' : -1; } // " 1"
        const auto [end, wrong] = std::from_chars(&text[at], &text[at] + 2, n);
        return end == &text[at] + 2 ? n : -1;
    };
    const int day = number(4), hour = number(7), minute = number(10), second = number(13);
    if (month == months.npos || month % 3 != 0 || day < 1 || hour < 0 || minute < 0 || second < 0) { return std::nullopt; }
    return std::chrono::hours(24 * (days_before[month / 3] + day - 1) + hour) + std::chrono::minutes(minute) + std::chrono::seconds(second);
}

/// What a line says about failed logins, if anything.
std::optional<failure> parse(std::string_view line) {
    if (line.size() < 16) { return std::nullopt; }
    const auto when = parse_time(line.substr(0, 15));
    if (!when) { return std::nullopt; }

    failure f;
    f.at = line.substr(0, 15);
    f.when = *when;
    if (const auto who = between(line, "]: Failed password for ", "\n")) { // "root from 10.0.0.1 port 22 ssh2"
        // Users may be called anything, " from " too: the address follows the last.
        const auto from = who->rfind(" from ");
        if (from == who->npos) { return std::nullopt; }
        f.user = who->substr(0, from);
        f.address = *between(who->substr(from), " from ", " ");
    } else if (const auto times = between(line, "]: message repeated ", " ")) { // "5 times: [ Failed password for ...]"
        const auto again = between(line, "times: [ Failed password for ", "]");
        const auto from = again ? again->rfind(" from ") : std::string_view::npos;
        const auto [end, wrong] = std::from_chars(times->data(), times->data() + times->size(), f.times);
        if (from == std::string_view::npos || wrong != std::errc() || f.times == 0) { return std::nullopt; }
        f.user = again->substr(0, from);
        f.address = *between(again->substr(from), " from ", " ");
    } else if (line.find("(pam_unix)[") != line.npos && line.find("]: authentication failure;") != line.npos) {
        // Old systems, where sshd itself says nothing. Newer ones write "pam_unix(sshd:auth)" beside "Failed password".
        f.address = between(line, " rhost=", " ").value_or("");
        f.user = between(line, " user=", " ").value_or("(unknown)");
    }
    if (f.user.starts_with("invalid user ")) { f.user.erase(0, std::strlen("invalid user ")); }
    if (f.address.empty()) { return std::nullopt; }
    return f;
}

// ------------------------------------------------------------------------------------------------------------------------------- bursts

/// The failures of one address. Only one worker at a time is here, and sees what the one before did: the queue orders by key.
struct address_history {
    std::vector<std::unique_ptr<burst>> runs; // alerts point to them; those with fewer than `burst_failures` are none
    std::uint64_t last_line = 0;
    std::string last_file;
    bool in_order = true;

    /// The burst that has just become one.
    burst* add(const failure& f) {
        in_order = in_order && (f.file != last_file || f.line > last_line);
        burst* run = runs.empty() ? nullptr : runs.back().get();
        const bool goes_on = run != nullptr && f.file == last_file && f.when >= run->until && f.when - run->until <= burst_gap;
        if (!goes_on) {
            runs.push_back(std::make_unique<burst>(burst{f.file, f.address, f.at, f.at, 0, {}, f.when}));
            run = runs.back().get();
        }
        last_line = f.line;
        last_file = f.file;
        const bool was = run->failures >= burst_failures;
        run->failures += f.times;
        run->users.insert(f.user);
        run->last = f.at;
        run->until = f.when;
        return !was && run->failures >= burst_failures ? run : nullptr;
    }
};

/// All addresses. The lock is for the map alone: what it holds stays where it is.
class histories {
public:
    address_history& of(const std::string& address) {
        const std::lock_guard lock(mutex_);
        return all_[address];
    }
    const std::map<std::string, address_history>& all() const { return all_; }

private:
    std::mutex mutex_;
    std::map<std::string, address_history> all_;
};

/// Stands for something on the other side of a network. It is busy for the first calls about an address, how many depends on the address:
/// each run of this program is the same. False: it will never do that.
bool firewall_blocks(const std::string& address, std::uint32_t attempt) {
    if (address.find_first_not_of("0123456789.:abcdef") != address.npos) { return false; } // a name
    unsigned sum = 0;
    for (const char c : address) { sum += static_cast<unsigned char>(c); }
    if (attempt <= sum % 4) { throw std::runtime_error("the firewall is busy"); }
    return true;
}

// -------------------------------------------------------------------------------------------------------------------------------- main

int find_bursts(const std::vector<std::string>& paths) {
    // Bounded: a file may be larger than memory.
    mailroom::queue<failure> failures({.max_messages = 1024, .ordered_by_key = true});
    mailroom::queue<alert> alerts({.retry = {.max_attempts = 5, .initial = 5ms, .multiplier = 2}});
    histories seen;
    std::atomic<std::uint64_t> calls{0}, blocked{0}, refused{0}, busy{0};

    auto workers = failures.consume(
        [&](const failure& f) {
            if (burst* const found = seen.of(f.address).add(f)) { alerts.send({found, f.address}); }
        },
        {.concurrency = {.min = 2, .max = 4}});
    auto guard = alerts.consume(
        [&](mailroom::delivery<alert> d) {
            ++calls;
            burst& about = *d->about; // it has one alert, and that has one handler at a time
            // Throws when busy: the alert goes back and comes again.
            if (firewall_blocks(d->address, d.attempt())) {
                about.answer = "blocked at call " + std::to_string(d.attempt());
                ++blocked;
                d.ack();
            } else {
                about.answer = "not an address";
                ++refused;
                d.reject("the firewall blocks addresses, not names");
            }
        },
        {.concurrency = {.min = 1, .max = 2}, .on_error = [&](std::exception_ptr) { ++busy; }});

    std::uint64_t lines = 0, others = 0, attempts = 0;
    for (const std::string& path : paths) {
        std::ifstream in(path);
        if (in) { in.peek(); } // a folder can be opened, but not read
        if (in.fail() && !in.eof()) {
            std::fprintf(stderr, "login_bursts: cannot read '%s': %s\n", path.c_str(), std::strerror(errno));
            return 1;
        }
        const std::string file = path.substr(path.find_last_of('/') + 1);
        std::string line;
        for (std::uint64_t number = 1; std::getline(in, line); ++number) {
            ++lines;
            auto f = parse(line);
            if (!f) {
                ++others;
                continue;
            }
            f->file = file;
            f->line = number;
            attempts += f->times;
            std::string key = f->address;
            failures.send(*std::move(f), {.key = std::move(key)});
        }
    }
    // Failures first: they make alerts. Then the consumer: `on_error` may come after the message that failed has been handled by another.
    const bool drained = failures.drain(60s) && alerts.drain(60s) && guard.drain(60s);

    std::vector<const burst*> bursts;
    std::uint64_t counted = 0, disordered = 0;
    for (const auto& [address, history] : seen.all()) {
        disordered += history.in_order ? 0 : 1;
        for (const auto& run : history.runs) {
            counted += run->failures;
            if (run->failures >= burst_failures) { bursts.push_back(run.get()); }
        }
    }
    std::stable_sort(bursts.begin(), bursts.end(), [](const burst* a, const burst* b) { return a->failures > b->failures; });

    std::printf("Bursts: %u failed logins or more, at most %jd s apart. %zu found among %zu addresses.\n\n", burst_failures,
                std::intmax_t(burst_gap.count()), bursts.size(), seen.all().size());
    if (!bursts.empty()) {
        std::printf("%-36s %8s %6s   %-15s   %-8s  %-17s  %s\n", "address", "failures", "users", "first", "last", "firewall", "file");
    }
    constexpr std::size_t shown = 25;
    for (std::size_t i = 0; i < std::min(bursts.size(), shown); ++i) {
        const burst& b = *bursts[i];
        std::printf("%-36.36s %8u %6zu   %-15s   %-8s  %-17s  %s\n", b.address.c_str(), b.failures, b.users.size(), b.first.c_str(),
                    b.last.substr(7).c_str(), b.answer.c_str(), b.file.c_str());
    }
    if (bursts.size() > shown) { std::printf("and %zu smaller ones\n", bursts.size() - shown); }

    const mailroom::stats f = failures.statistics(), a = alerts.statistics();
    report::books books;
    books.queue("failures", f);
    books.queue("alerts", a);
    books.equal("lines = other lines + failures sent", lines, others + f.sent);
    books.equal("failed logins read = counted by address", attempts, counted);
    books.equal("bursts = alerts sent", bursts.size(), a.sent);
    books.equal("alerts blocked = acked", blocked, a.acked);
    books.equal("alerts refused = dead", refused, a.dead);
    books.equal("calls = blocked + refused + busy", calls, blocked + refused + busy);
    books.equal("addresses whose failures came out of order", disordered, 0);
    if (!drained) { std::printf("not everything was done in time\n"); }
    return books.add_up() && drained ? 0 : 1;
}

int main(int argc, char** argv) {
    const std::vector<std::string> paths(argv + std::min(argc, 1), argv + argc);
    if (paths.empty() || paths[0] == "--help" || paths[0] == "-h") {
        std::fprintf(stderr, "usage: login_bursts FILE...     looks for bursts of failed logins in log files of sshd\n");
        return 2;
    }
    try {
        return find_bursts(paths);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "login_bursts: %s\n", e.what());
        return 1;
    }
}
