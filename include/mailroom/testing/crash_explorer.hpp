// crash_explorer: cuts the power at every call to the disk that a program makes, and asks after each whether all that matters is still there.
//
//     using disk = mailroom::testing::simulated_files;
//     using journal = mailroom::basic_journal<disk>;
//     struct notes { std::set<int> sent, done; };                               // what the world outside knows: no crash takes it back
//
//     const auto found = mailroom::testing::crash_explorer().explore<notes>(
//         [](disk files, notes& n) {                                            // the program: opens, sends, handles ...
//             journal j("data", {}, files);
//             mailroom::queue<int, journal> orders(j, "orders");
//             for (int i : {1, 2, 3}) { orders.send(i); n.sent.insert(i); }
//             while (auto d = orders.try_receive()) { n.done.insert(**d); d->ack(); }
//         },
//         [](disk files, const notes& n) {                                      // after each crash: what is left?
//             journal j("data", {}, files);
//             mailroom::queue<int, journal> orders(j, "orders");
//             std::set<int> left = n.done;
//             while (auto d = orders.try_receive()) { left.insert(**d); }
//             return std::includes(left.begin(), left.end(), n.sent.begin(), n.sent.end());
//         });
//     CHECK_MESSAGE(found, found.text());
//
// The program is run once to count its calls that change something on the disk, then again for each of them, with the power cut there: before
// the call, in the middle of it, or after it but before anybody is told. For each of these the check is called several times, each time with a
// disk on which something else of what was not synced was lost. What is found first is reported with all it takes to replay it.
// Deterministic if the program is: one thread, and a clock of its own where times matter. Cost: the program runs about three times the number
// of its calls; the check, for each of these runs as often as there are losses to try.
#pragma once

#include <mailroom/testing/simulated_files.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom::testing {

/// One crash: where it comes, and what it takes.
struct crash_point {
    std::uint64_t call = 0;            ///< the first that does not happen, of those of this life that `simulated_files::calls` counts, from 0
    std::optional<std::uint64_t> torn; ///< or so many bytes of it happen, if it is a write; all of it, if it is something else
    loss what = loss::nothing;         ///< of the unsynced. nothing: the process is killed, and the system goes on
    std::uint64_t seed = 0;            ///< of `simulated_files::power_cut`

    /// "{.call = 17, .torn = 100, .what = loss::random, .seed = 5}"
    [[nodiscard]] std::string text() const {
        static constexpr const char* losses[] = {"nothing", "everything", "random", "tail"};
        std::string s = "{.call = " + std::to_string(call);
        if (torn == whole_call) {
            s += ", .torn = crash_point::whole_call";
        } else if (torn) {
            s += ", .torn = " + std::to_string(*torn);
        }
        s.append(", .what = loss::").append(losses[static_cast<std::size_t>(what)]);
        return s + ", .seed = " + std::to_string(seed) + '}';
    }
    /// For `torn`: all of the call happens, but nobody is told.
    static constexpr std::uint64_t whole_call = std::numeric_limits<std::uint64_t>::max();

    friend bool operator==(const crash_point&, const crash_point&) = default;
};

/// What was found.
struct crash_report {
    bool passed = true;
    std::uint64_t calls = 0;          ///< of the program when nothing happens
    std::uint64_t points = 0;         ///< at which it was cut
    std::uint64_t checks = 0;         ///< how often the check was called
    std::vector<crash_point> crashes; ///< what it failed after: one for each life
    std::string what;                 ///< what it threw, or that it answered false

    explicit operator bool() const noexcept { return passed; }
    /// A sentence: what passed, or what to replay.
    [[nodiscard]] std::string text() const {
        if (passed) {
            return std::to_string(checks) + " checks passed after " + std::to_string(points) + " cuts of " + std::to_string(calls) + " calls";
        }
        std::string s = what + " (of " + std::to_string(calls) + " calls; replay {";
        for (std::size_t i = 0; i < crashes.size(); ++i) { s.append(i == 0 ? "" : ", ").append(crashes[i].text()); }
        return s + "})";
    }
};

struct crash_options {
    std::uint64_t limit = 0;    ///< points at most, picked at random; 0: all there are
    std::uint64_t seed = 1;     ///< of all that is picked
    unsigned random_losses = 2; ///< power cuts that lose any of what was unsynced, at each point
    unsigned tail_losses = 1;   ///< power cuts that lose what came after some moment
    bool kills = true;          ///< also: the process dies, the system stays
    bool power_cuts = true;     ///< false: none, whatever stands above
    unsigned lives = 1;         ///< more: the program is started again on what a crash left, with the same notes, and crashes once more
    unsigned cuts_per_life = 2; ///< in each life after the first, at random
};

/// Explores a program's crashes. Thread-safe in the sense of a value: one object, one thread.
class crash_explorer {
public:
    crash_explorer() = default;
    explicit crash_explorer(const crash_options& o) : options_(o) {}

    /// Runs `program(disk, notes&)` and calls `check(disk, const notes&)`, or `check(disk, const notes&, const crash_point&)` with the last
    /// crash, after each. The check says no by answering false or by an exception. What the program throws is expected once the power is off,
    /// and a failure before. Each run has a disk and notes of its own; Notes is copied where there are several lives.
    template <class Notes, class Program, class Check>
    requires std::default_initializable<Notes> && std::invocable<Program&, simulated_files, Notes&> crash_report explore(Program program, Check check)
    const {
        crash_report found;
        simulation::dice chance{options_.seed};
        {
            const simulated_files disk;
            Notes notes{};
            if (!live(program, disk, notes, nullptr, found)) { return found; }
            found.calls = disk.calls();
        }
        std::vector<crash_point> points = all_points(found.calls, chance);
        if (options_.limit != 0 && points.size() > options_.limit) {
            for (std::size_t i = 0; i < options_.limit; ++i) { std::swap(points[i], points[i + chance.below(points.size() - i)]); }
            points.resize(static_cast<std::size_t>(options_.limit));
        }
        for (const crash_point& p : points) {
            const simulated_files disk;
            Notes notes{};
            if (!descend(program, check, disk, notes, p, 1, chance, found)) { return found; }
        }
        return found;
    }
    /// The same for a program that tells nobody: `program(disk)`, `check(disk)`.
    template <class Program, class Check>
    requires std::invocable<Program&, simulated_files> crash_report explore(Program program, Check check)
    const {
        return explore<nothing_noted>(
            [&](simulated_files given, nothing_noted&) { program(std::move(given)); },
            [&](simulated_files given, const nothing_noted&) { return answer_of([&] { return check(std::move(given)); }); });
    }

    /// Goes through exactly these crashes, one for each life, and calls the check once: what `crash_report::crashes` is for.
    template <class Notes, class Program, class Check>
    crash_report replay(const std::vector<crash_point>& crashes, Program program, Check check) const {
        crash_report found;
        const simulated_files disk;
        Notes notes{};
        for (const crash_point& p : crashes) {
            found.crashes.push_back(p);
            ++found.points;
            if (!live(program, disk, notes, &p, found)) { return found; }
            lose(disk, p);
        }
        found.passed = ask(check, disk, notes, crashes.empty() ? crash_point() : crashes.back(), found);
        return found;
    }

private:
    struct nothing_noted {};

    // Every call, cut before it, within it, after it; and the end.
    static std::vector<crash_point> all_points(std::uint64_t calls, simulation::dice& chance) {
        std::vector<crash_point> points;
        for (std::uint64_t call = 0; call < calls; ++call) {
            points.push_back({call, std::nullopt, loss::nothing, 0});
            points.push_back({call, some_bytes(chance), loss::nothing, 0});
            points.push_back({call, crash_point::whole_call, loss::nothing, 0});
        }
        points.push_back({calls, std::nullopt, loss::nothing, 0});
        return points;
    }
    // How long a write is nobody knows here: small tears as often as large ones.
    static std::uint64_t some_bytes(simulation::dice& chance) { return 1 + chance.below(std::uint64_t{8} << chance.below(13)); }

    std::vector<std::pair<loss, std::uint64_t>> losses(simulation::dice& chance) const {
        std::vector<std::pair<loss, std::uint64_t>> all;
        if (options_.kills) { all.emplace_back(loss::nothing, 0); }
        if (!options_.power_cuts) { return all; }
        all.emplace_back(loss::everything, 0);
        for (unsigned i = 0; i < options_.random_losses; ++i) { all.emplace_back(loss::random, chance.next()); }
        for (unsigned i = 0; i < options_.tail_losses; ++i) { all.emplace_back(loss::tail, chance.next()); }
        return all;
    }
    static void lose(const simulated_files& of, const crash_point& p) {
        simulated_files disk = of;
        if (p.what == loss::nothing) {
            disk.process_kill();
        } else {
            disk.power_cut(p.seed, p.what);
        }
    }

    // One life that ends as `p` says, on a disk it may change, and everything that may come after.
    template <class Notes, class Program, class Check>
    bool descend(Program& program, Check& check, const simulated_files& disk, Notes& notes, crash_point p, unsigned life, simulation::dice& chance,
                 crash_report& found) const {
        ++found.points;
        found.crashes.push_back(p);
        if (!live(program, disk, notes, &p, found)) { return false; }
        for (const auto& [what, seed] : losses(chance)) {
            p.what = what;
            p.seed = seed;
            found.crashes.back() = p;
            const simulated_files after = disk.clone();
            lose(after, p);
            if (life >= options_.lives) {
                if (!ask(check, after, notes, p, found)) { return found.passed = false; }
                continue;
            }
            std::uint64_t calls = 0;
            {
                const simulated_files other = after.clone();
                Notes copy = notes;
                const std::uint64_t before = other.calls();
                found.crashes.push_back({std::numeric_limits<std::uint64_t>::max(), std::nullopt, loss::nothing, 0});
                if (!live(program, other, copy, nullptr, found)) { return false; }
                found.crashes.pop_back();
                calls = other.calls() - before;
            }
            for (unsigned i = 0; i < options_.cuts_per_life; ++i) {
                const simulated_files other = after.clone();
                Notes copy = notes;
                crash_point next{chance.below(calls + 1), std::nullopt, loss::nothing, 0};
                if (chance.coin()) { next.torn = chance.coin() ? crash_point::whole_call : some_bytes(chance); }
                if (!descend(program, check, other, copy, next, life + 1, chance, found)) { return false; }
            }
        }
        found.crashes.pop_back();
        return true;
    }

    // Runs the program until it ends or the power does. False: it failed while the power was on.
    template <class Notes, class Program>
    static bool live(Program& program, const simulated_files& on, Notes& notes, const crash_point* p, crash_report& found) {
        simulated_files disk = on;
        if (p != nullptr) { disk.crash_at(p->call, p->torn); }
        try {
            program(disk, notes);
        } catch (const std::exception& e) {
            if (!disk.is_off()) { found.what = std::string("the program failed though nothing had happened: ") + e.what(); }
        } catch (...) {
            if (!disk.is_off()) { found.what = "the program failed though nothing had happened"; }
        }
        return found.passed = found.what.empty();
    }

    template <class Call>
    static bool answer_of(Call call) {
        if constexpr (std::is_void_v<decltype(call())>) {
            call();
            return true;
        } else {
            return static_cast<bool>(call());
        }
    }
    template <class Notes, class Check>
    static bool ask(Check& check, const simulated_files& disk, const Notes& notes, const crash_point& p, crash_report& found) {
        ++found.checks;
        try {
            bool fine = false;
            if constexpr (std::invocable<Check&, simulated_files, const Notes&, const crash_point&>) {
                fine = answer_of([&] { return check(disk, notes, p); });
            } else {
                fine = answer_of([&] { return check(disk, notes); });
            }
            if (!fine) { found.what = "the check answered false"; }
            return fine;
        } catch (const std::exception& e) { found.what = e.what(); } catch (...) {
            found.what = "the check threw something";
        }
        return false;
    }

    crash_options options_;
};

} // namespace mailroom::testing
