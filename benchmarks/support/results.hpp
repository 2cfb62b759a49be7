// A benchmark program's arguments, its tables, and where they go: the terminal, and a file for the report.
//
//   --quick         fewer rounds and messages: does it work, not how fast
//   --rounds N      instead of 9
//   --only TEXT     tables whose name contains it
//   --row NAME      only the row of that name: to look at one with a profiler
//   --json FILE     the figures of every round
//
// A program may have options of its own, each with a number.
#pragma once

#include "machine.hpp"
#include "statistics.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

struct row {
    std::string name;
    std::vector<double> figures; // one for each round
};

/// What was measured side by side, in interleaved rounds.
struct table {
    std::string name;  // for --only and the report
    std::string title; // for people
    std::string unit;
    std::string baseline; // the row others are compared with; empty: none
    bool more_is_better = true;
    std::vector<row> rows = {};
    std::vector<double> canary = {};
    std::string canary_unit = "ns";

    const row* find(std::string_view wanted) const {
        for (const row& r : rows) {
            if (r.name == wanted) { return &r; }
        }
        return nullptr;
    }
};

/// One that takes part: answers the figures of one round, one for each table.
struct contestant {
    std::string name;
    std::function<std::vector<double>()> run;
};

[[noreturn]] inline void give_up(const std::string& why) {
    std::fprintf(stderr, "benchmark: %s\n", why.c_str());
    std::exit(1);
}

/// An option of one program: "--gigabytes".
struct option {
    std::string_view name;
    double& value;
};

class results {
public:
    results(std::string program, int argc, char** argv, const std::vector<option>& own = {}) : program_(std::move(program)), command_(program_) {
        for (int i = 1; i < argc; ++i) {
            const std::string_view argument = argv[i];
            const auto value = [&]() -> std::string {
                if (i + 1 == argc) { give_up(std::string(argument) + " needs a value"); }
                return argv[++i];
            };
            if (argument == "--quick") {
                quick_ = true;
                command_ += " --quick";
            } else if (argument == "--rounds") {
                rounds_ = std::strtoul(value().c_str(), nullptr, 10);
                command_ += " --rounds " + std::to_string(rounds_);
            } else if (argument == "--only") {
                only_ = value();
                command_ += " --only " + only_;
            } else if (argument == "--row") {
                row_ = value();
            } else if (argument == "--json") {
                file_ = value();
            } else {
                const auto known = std::find_if(own.begin(), own.end(), [&](const option& o) { return o.name == argument; });
                if (known == own.end()) {
                    std::string all = "--quick, --rounds N, --only TEXT, --row NAME, --json FILE";
                    for (const option& o : own) { all += ", " + std::string(o.name) + " N"; }
                    give_up("unknown argument " + std::string(argument) + "; there are " + all);
                }
                const std::string number = value();
                known->value = std::strtod(number.c_str(), nullptr);
                command_ += " " + std::string(argument) + " " + number;
            }
        }
        if (rounds_ == 0) { rounds_ = quick_ ? 3 : 9; }
        std::printf("%s\n%s\nload before: %.2f\n", command_.c_str(), machine().c_str(), load_before_);
        std::fflush(stdout);
    }

    std::size_t rounds() const { return rounds_; }
    bool quick() const { return quick_; }
    /// A number of messages, less of them if it has to be quick.
    std::size_t scaled(std::size_t n) const { return quick_ ? n / 16 : n; }
    bool wants(std::string_view name) const { return only_.empty() || name.find(only_) != std::string_view::npos; }

    /// What is measured before each round from now on, to know how the machine was.
    void set_canary(std::function<double()> measure, std::string unit) {
        canary_ = std::move(measure);
        canary_unit_ = std::move(unit);
    }

    /// Asked after each figure: whether it is worth nothing, and to be taken again.
    void set_doubt(std::function<bool()> in_doubt) { in_doubt_ = std::move(in_doubt); }

    /// Runs the contestants round by round, each round beginning with another, after one round that does not count.
    void contest(std::vector<table> tables, std::vector<contestant> all) {
        if (!wants(tables.front().name)) { return; }
        std::erase_if(all, [this](const contestant& c) { return !row_.empty() && c.name != row_; });
        if (all.empty()) { return; }
        for (table& t : tables) {
            t.canary_unit = canary_unit_;
            for (const contestant& c : all) { t.rows.push_back({c.name, {}}); }
        }
        for (std::size_t round = 0; round <= rounds_; ++round) {
            const double canary = canary_();
            for (table& t : tables) {
                if (round != 0) { t.canary.push_back(canary); }
            }
            for (std::size_t k = 0; k < all.size(); ++k) {
                const std::size_t who = (k + round) % all.size();
                std::vector<double> figures = all[who].run();
                while (in_doubt_ && in_doubt_()) { figures = all[who].run(); }
                if (figures.size() != tables.size()) { give_up(all[who].name + ": a figure for each table is wanted"); }
                for (std::size_t i = 0; i < tables.size() && round != 0; ++i) { tables[i].rows[who].figures.push_back(figures[i]); }
            }
        }
        for (table& t : tables) { add(std::move(t)); }
    }

    /// A table that is complete.
    void add(table t) {
        print(t);
        tables_.push_back(std::move(t));
    }

    /// To be returned from main.
    int finish() const {
        if (file_.empty()) { return 0; }
        std::ofstream out(file_);
        out << "{\"program\": " << quoted(program_) << ",\n \"command\": " << quoted(command_) << ",\n \"machine\": " << quoted(machine())
            << ",\n \"load\": " << load_before_ << ",\n \"tables\": [";
        for (std::size_t i = 0; i < tables_.size(); ++i) {
            const table& t = tables_[i];
            out << (i != 0 ? ",\n" : "\n") << "  {\"name\": " << quoted(t.name) << ", \"title\": " << quoted(t.title)
                << ", \"unit\": " << quoted(t.unit) << ", \"baseline\": " << quoted(t.baseline)
                << ", \"more_is_better\": " << (t.more_is_better ? "true" : "false") << ",\n   \"canary\": " << list(t.canary)
                << ", \"canary_unit\": " << quoted(t.canary_unit) << ",\n   \"rows\": [";
            for (std::size_t k = 0; k < t.rows.size(); ++k) {
                out << (k != 0 ? ",\n" : "\n") << "    {\"name\": " << quoted(t.rows[k].name) << ", \"figures\": " << list(t.rows[k].figures) << "}";
            }
            out << "]}";
        }
        out << "]}\n";
        out.flush();
        if (!out) { give_up("cannot write " + file_); }
        return 0;
    }

private:
    static std::string quoted(std::string_view text) {
        std::string out = "\"";
        for (const char c : text) {
            if (c == '"' || c == '\\') { out += '\\'; }
            out += c;
        }
        return out + '"';
    }
    static std::string list(const std::vector<double>& figures) {
        std::string out = "[";
        for (const double x : figures) {
            char text[32];
            std::snprintf(text, sizeof text, "%s%.6g", out.size() > 1 ? ", " : "", x);
            out += text;
        }
        return out + "]";
    }
    static void print(const table& t) {
        std::printf("\n%s (%s)\n", t.title.c_str(), t.name.c_str());
        if (!t.canary.empty()) { std::printf("  canary %s %s\n", to_text(spread_of(t.canary)).c_str(), t.canary_unit.c_str()); }
        const row* const base = t.find(t.baseline);
        std::printf("  %-44s %26s", "", t.unit.c_str());
        if (base != nullptr) { std::printf("   ratio to %s", t.baseline.c_str()); }
        std::printf("\n");
        for (const row& r : t.rows) {
            std::printf("  %-44s %26s", r.name.c_str(), to_text(spread_of(r.figures)).c_str());
            if (base != nullptr && base != &r) { std::printf("   %s", to_text(paired_ratio(r.figures, base->figures)).c_str()); }
            std::printf("\n");
        }
        std::fflush(stdout);
    }

    std::string program_, command_, only_, row_, file_;
    std::size_t rounds_ = 0;
    bool quick_ = false;
    double load_before_ = load_average();
    std::function<double()> canary_ = canary_ns;
    std::string canary_unit_ = "ns";
    std::function<bool()> in_doubt_;
    std::vector<table> tables_;
};

} // namespace bench
