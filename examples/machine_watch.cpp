// The main example: watches the machine it stands on for some seconds, and reports.
//
//   ticks ──> sampler ──> samples ──> workers ──> rates ──> board ──> alerts ──> phones
//
// Every arrow is a typed queue. A tick is a message with a delay: nothing here sleeps. The intake refuses samples that mean nothing, workers
// compete for the others and make rates of them, one thread keeps the board, and what exceeds its limit becomes an alert, which is delivered
// by somebody who does not always answer. At the end every message is accounted for; the exit code says whether it all adds up.
#include "support/proc.hpp"
#include "support/report.hpp"

#include <mailroom/mailroom.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using proc::source;

constexpr auto interval = 250ms;
volatile std::sig_atomic_t interrupted = 0;

double seconds(mailroom::duration d) { return std::chrono::duration<double>(d).count(); }

// ----------------------------------------------------------------------------------------------------------------------------- messages

using key = std::tuple<source, int, std::string>;
/// Who a source is. A process may rename itself.
key key_of(source what, int number, const std::string& name) { return {what, number, what == source::process ? std::string() : name}; }

struct tick {
    int number = 0;
};
/// One source at two moments.
struct sample {
    proc::reading before, now;
    mailroom::duration apart{};
};
/// A process or core: `first` is its CPU in percent. An interface: bytes in and out in a second.
struct rate {
    source what = source::process;
    std::string name;
    int number = 0;
    double first = 0, second = 0;
    mailroom::duration over{};
};
struct alert {
    std::uint64_t number = 0;
    std::string text;
};

// --------------------------------------------------------------------------------------------------------------------- from /proc to rates

/// Why a sample means nothing, or nullptr. Nobody is to blame: a machine does not stand still while it is looked at.
const char* nonsense(const sample& s) {
    if (s.now.name.empty()) { return "the process vanished while it was read"; }
    if (s.now.born != s.before.born) { return "its number belongs to another process now"; }
    if (s.now.first < s.before.first || s.now.second < s.before.second) { return "a counter went back"; }
    if (s.apart <= 0ns) { return "no time has passed"; }
    return nullptr;
}

rate rate_of(const sample& s) {
    const auto first = static_cast<double>(s.now.first - s.before.first), second = static_cast<double>(s.now.second - s.before.second);
    rate r{s.now.what, s.now.name, s.now.number, 0, 0, s.apart};
    switch (s.now.what) {
    case source::process: r.first = 100 * (first + second) / proc::ticks_per_second() / seconds(s.apart); break;
    case source::core: r.first = first + second > 0 ? 100 * first / (first + second) : 0; break;
    case source::interface:
        r.first = first / seconds(s.apart);
        r.second = second / seconds(s.apart);
        break;
    }
    return r;
}

/// Looks at everything, and offers the difference to the look before to the intake.
class sampler {
public:
    explicit sampler(mailroom::queue<sample>& intake) : intake_(intake) {}

    void look() {
        for (proc::reading& core : proc::parse_cores(proc::text_of("/proc/stat"))) { take(std::move(core)); }
        for (proc::reading& wire : proc::parse_interfaces(proc::text_of("/proc/net/dev"))) { take(std::move(wire)); }
        const std::vector<int> numbers = proc::process_numbers();
        // Listed and not read yet: on a busy machine some process ends just here; this one does on any.
        if (looks_++ == 2) { child_.end(); }
        for (const int number : numbers) { take(proc::read_process(number)); }
        last_ = std::exchange(seen_, {}); // forgets the sources that are gone
    }

    int looks() const { return looks_; }
    bool sees_anything() const { return !last_.empty(); }
    std::uint64_t offered() const { return offered_; }
    const std::map<std::string, std::uint64_t>& refused() const { return refused_; }

private:
    struct moment {
        proc::reading what;
        std::chrono::steady_clock::time_point when;
    };

    void take(proc::reading now) {
        const auto when = std::chrono::steady_clock::now();
        const key id = key_of(now.what, now.number, now.name);
        const auto before = last_.find(id);
        const bool vanished = now.name.empty();
        if (!vanished) { seen_[id] = {now, when}; }
        if (before == last_.end() && !vanished) { return; } // seen for the first time: nothing to compare with

        sample s{before != last_.end() ? before->second.what : now, now, before != last_.end() ? when - before->second.when : 0ns};
        const char* const reason = nonsense(s); // the intake finds the same; this is for the report
        ++offered_;
        if (const auto sent = intake_.send_for(5s, std::move(s)); !sent) {
            ++refused_[sent.error() == mailroom::errc::rejected ? reason : sent.error().what()];
        }
    }

    mailroom::queue<sample>& intake_;
    proc::mayfly child_;
    int looks_ = 0;
    std::uint64_t offered_ = 0;
    std::map<std::string, std::uint64_t> refused_;
    std::map<key, moment> last_, seen_;
};

// ---------------------------------------------------------------------------------------------------------------------------- the board

/// What is known of each source. Belongs to the one handler of the rates, so it needs no lock.
class board {
public:
    struct line {
        rate latest;
        double first_sum = 0, second_sum = 0, watched = 0, peak = 0, limit = 0;
        double first_mean() const { return watched > 0 ? first_sum / watched : 0; }
        double second_mean() const { return watched > 0 ? second_sum / watched : 0; }
    };

    explicit board(mailroom::queue<alert>& alerts) : alerts_(alerts) {}

    void add(const rate& r) {
        line& l = lines_[key_of(r.what, r.number, r.name)];
        l.first_sum += r.first * seconds(r.over);
        l.second_sum += r.second * seconds(r.over);
        l.watched += seconds(r.over);
        const double value = r.first + r.second;
        l.peak = std::max(l.peak, value);
        l.latest = r;
        // Low at first, so that a quiet machine has alerts too; then twice the value, so that a busy one has a handful and not hundreds.
        if (l.limit == 0) { l.limit = r.what == source::interface ? 1024 : 3; }
        if (value > l.limit) {
            l.limit = 2 * value;
            raise(r);
        }
    }

    /// The lines of one kind, the busiest first.
    std::vector<line> busiest(source what) const {
        std::vector<line> found;
        for (const auto& [id, l] : lines_) {
            if (std::get<source>(id) == what) { found.push_back(l); }
        }
        std::stable_sort(found.begin(), found.end(),
                         [](const line& a, const line& b) { return a.first_sum + a.second_sum > b.first_sum + b.second_sum; });
        return found;
    }
    std::uint64_t raised() const { return raised_; }

private:
    void raise(const rate& r) {
        std::array<char, 160> text{};
        switch (r.what) {
        case source::process:
            std::snprintf(text.data(), text.size(), "process %d (%s) at %.0f %% of a core", r.number, r.name.c_str(), r.first);
            break;
        case source::core: std::snprintf(text.data(), text.size(), "%s at %.0f %%", r.name.c_str(), r.first); break;
        case source::interface: std::snprintf(text.data(), text.size(), "%s moves %.0f KiB/s", r.name.c_str(), (r.first + r.second) / 1024); break;
        }
        alerts_.send({raised_++, text.data()});
    }

    mailroom::queue<alert>& alerts_;
    std::uint64_t raised_ = 0;
    std::map<key, line> lines_;
};

/// Four people take turns. Two answer at once, one at the third call, and one has left the phone at home.
void call(const alert& a, std::uint32_t attempt) {
    switch (a.number % 4) {
    case 1:
        if (attempt < 3) { throw std::runtime_error("line busy"); }
        break;
    case 2: throw std::runtime_error("no answer");
    default: break;
    }
}

// ---------------------------------------------------------------------------------------------------------------------------- the report

void print_board(const board& b) {
    std::printf("\n%-28s %8s %10s %8s %8s\n", "busiest processes", "pid", "CPU time", "mean", "peak");
    int shown = 0;
    for (const auto& l : b.busiest(source::process)) {
        if (l.first_sum == 0 || shown++ == 8) { break; }
        std::printf("  %-26.26s %8d %8.2f s %6.1f %% %6.1f %%\n", l.latest.name.c_str(), l.latest.number, l.first_sum / 100, l.first_mean(), l.peak);
    }
    if (shown == 0) { std::printf("  none used as much as one tick of the clock\n"); }
    std::printf("\n%-48s %8s %8s\n", "cores", "mean", "peak");
    shown = 0;
    for (const auto& l : b.busiest(source::core)) {
        if (shown++ == 8) { break; }
        std::printf("  %-46s %6.1f %% %6.1f %%\n", l.latest.name.c_str(), l.first_mean(), l.peak);
    }
    std::printf("\n%-28s %12s %12s %12s\n", "interfaces, KiB/s", "in", "out", "peak of both");
    shown = 0;
    for (const auto& l : b.busiest(source::interface)) {
        if (shown++ == 8) { break; }
        std::printf("  %-26.26s %12.1f %12.1f %12.1f\n", l.latest.name.c_str(), l.first_mean() / 1024, l.second_mean() / 1024, l.peak / 1024);
    }
}

void print_dead(mailroom::queue<alert>& alerts) {
    std::printf("\n%zu alert(s) reached nobody\n", alerts.dead().size());
    std::vector<mailroom::dead_letter<alert>> letters; // held, so that each is seen once; put back when this returns
    while (auto letter = alerts.dead().try_receive()) {
        if (letters.size() < 8) {
            std::printf("  %-56.56s %u calls, %s\n", letter->body().text.c_str(), letter->attempts(), letter->reason().c_str());
        }
        letters.push_back(std::move(*letter));
    }
    if (letters.size() > 8) { std::printf("  and %zu more\n", letters.size() - 8); }
}

// -------------------------------------------------------------------------------------------------------------------------------- main

int watch(int duration_s) {
    mailroom::queue<tick> ticks;
    // Bounded: when the workers cannot follow, the sampler waits. Nonsense is refused before it is anybody's work.
    mailroom::queue<sample> samples(
        {.max_messages = 4096, .validate = [](const sample& s, const mailroom::properties&) { return nonsense(s) == nullptr; }});
    mailroom::queue<rate> rates;
    mailroom::queue<alert> alerts({.retry = {.max_attempts = 4, .initial = 20ms, .multiplier = 2}});

    sampler machine(samples); // makes a child: before there are threads
    board seen(alerts);
    std::atomic<std::uint64_t> calls{0}, delivered{0}, failed{0};

    machine.look();
    if (!machine.sees_anything()) {
        std::fprintf(stderr, "machine_watch: nothing to be read below /proc; this example watches Linux machines\n");
        return 1;
    }

    auto workers = samples.consume([&](const sample& s) { rates.send(rate_of(s)); }, {.concurrency = {.min = 2, .max = 4}});
    auto keeper = rates.consume([&](const rate& r) { seen.add(r); });
    auto caller = alerts.consume(
        [&](mailroom::delivery<alert> d) {
            ++calls;
            call(*d, d.attempt()); // throws when nobody answers: the alert goes back and comes again
            ++delivered;
            d.ack();
        },
        {.on_error = [&](std::exception_ptr) { ++failed; }});

    const auto started = std::chrono::steady_clock::now();
    const auto elapsed = [&] { return seconds(std::chrono::steady_clock::now() - started); };
    const int last = duration_s * static_cast<int>(1s / interval);
    bool drained = false;
    {
        report::progress line;
        ticks.send({1}, {.delay = interval});
        while (auto t = ticks.receive()) {
            // The next one is sent before the work, which must not add to the interval.
            if ((*t)->number < last && interrupted == 0) {
                ticks.send({(*t)->number + 1}, {.delay = interval});
            } else {
                ticks.close(); // receive() answers with nothing once this tick is acknowledged
            }
            machine.look();
            t->ack();
            const mailroom::stats s = samples.statistics(), a = alerts.statistics();
            line.show(elapsed(), duration_s,
                      std::to_string(s.acked) + " samples, " + std::to_string(a.acked) + " alerts delivered, " + std::to_string(a.parked) +
                          " to be tried again, " + std::to_string(a.dead) + " dead");
        }
        // In the order of the stream: what is not done there would make messages for the next. Last the consumer, for its `on_error`.
        drained = samples.drain(10s) && rates.drain(10s) && alerts.drain(10s) && caller.drain(10s);
    }

    const proc::memory memory = proc::parse_memory(proc::text_of("/proc/meminfo"));
    std::printf("\nWatched for %.1f s: %d looks at %zu processes, %zu cores, %zu interfaces.\n"
                "Memory: %.1f of %.1f GiB available.\n",
                elapsed(), machine.looks(), seen.busiest(source::process).size(), seen.busiest(source::core).size(),
                seen.busiest(source::interface).size(), static_cast<double>(memory.available_kib) / (1 << 20),
                static_cast<double>(memory.total_kib) / (1 << 20));
    print_board(seen);
    print_dead(alerts);

    std::uint64_t refused = 0;
    std::printf("\nsamples that the intake refused\n");
    for (const auto& [why, count] : machine.refused()) {
        std::printf("  %-46s %8ju\n", why.c_str(), std::uintmax_t(count));
        refused += count;
    }

    const mailroom::stats s = samples.statistics(), r = rates.statistics(), a = alerts.statistics();
    report::books books;
    books.queue("ticks", ticks.statistics());
    books.queue("samples", s);
    books.queue("rates", r);
    books.queue("alerts", a);
    books.equal("samples offered = sent + refused", machine.offered(), s.sent + refused);
    books.equal("samples acked = rates sent", s.acked, r.sent);
    books.equal("alerts raised = sent", seen.raised(), a.sent);
    books.equal("alerts delivered = acked", delivered, a.acked);
    books.equal("calls = delivered + failed", calls, delivered + failed);
    if (!drained) { std::printf("not everything was done in time\n"); }
    return books.add_up() && drained ? 0 : 1;
}

int main(int argc, char** argv) {
    int duration_s = 6;
    const char* const argument = argc == 2 ? argv[1] : "6";
    const auto [end, wrong] = std::from_chars(argument, argument + std::strlen(argument), duration_s);
    if (argc > 2 || wrong != std::errc() || *end != '\0' || duration_s < 1 || duration_s > 86'400) {
        std::fprintf(stderr, "usage: machine_watch [seconds]\n"
                             "watches this machine for so long: 1 to 86400, 6 if not said; Ctrl-C ends it early\n");
        return 2;
    }
    std::signal(SIGINT, [](int) { interrupted = 1; });
    try {
        return watch(duration_s);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "machine_watch: %s\n", e.what());
        return 1;
    }
}
