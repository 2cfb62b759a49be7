// Turns what the benchmarks wrote with --json into tables and plots: report DATA DOC PLOTS
//
//   DATA    a folder of *.json
//   DOC     a Markdown file; what stands between `<!-- NAME -->` and `<!-- end -->` is written anew. NAME: `reached`, the ratios asked and
//           reached; `machine`; or `tables PREFIX`, the tables whose names begin so
//   PLOTS   a folder; one SVG for each group of tables
#include "support/statistics.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using bench::short_number;
using bench::spread;
using bench::spread_of;
using bench::to_text;

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "report: %s\n", why.c_str());
    std::exit(1);
}

// ---- JSON, as far as it is needed --------------------------------------------------------------------------------------------------

struct value {
    std::string text;
    double number = 0;
    std::vector<value> list = {};
    std::map<std::string, value> members = {};

    const value& at(const std::string& name) const {
        const auto found = members.find(name);
        if (found == members.end()) { give_up("there is no \"" + name + "\""); }
        return found->second;
    }
};

class parser {
public:
    explicit parser(std::string_view text) : rest_(text) {}
    value parse() {
        value v;
        const char c = peek();
        if (c == '{') {
            each('}', [&] {
                const std::string name = parse_text();
                expect(':');
                v.members[name] = parse();
            });
        } else if (c == '[') {
            each(']', [&] { v.list.push_back(parse()); });
        } else if (c == '"') {
            v.text = parse_text();
        } else {
            const std::size_t end = rest_.find_first_of(",]} \n");
            v.text = rest_.substr(0, end);
            v.number = std::strtod(v.text.c_str(), nullptr);
            rest_.remove_prefix(std::min(end, rest_.size()));
        }
        return v;
    }

private:
    char peek() {
        while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front())) != 0) { rest_.remove_prefix(1); }
        if (rest_.empty()) { give_up("the data ends too early"); }
        return rest_.front();
    }
    void expect(char wanted) {
        if (peek() != wanted) { give_up(std::string("the data has no '") + wanted + "' where it should"); }
        rest_.remove_prefix(1);
    }
    template <class Fn>
    void each(char end, Fn element) {
        rest_.remove_prefix(1);
        while (peek() != end) {
            element();
            if (peek() == ',') { rest_.remove_prefix(1); }
        }
        rest_.remove_prefix(1);
    }
    std::string parse_text() {
        expect('"');
        std::string out;
        while (!rest_.empty() && rest_.front() != '"') {
            if (rest_.front() == '\\') { rest_.remove_prefix(1); }
            out += rest_.front();
            rest_.remove_prefix(1);
        }
        expect('"');
        return out;
    }
    std::string_view rest_;
};

std::string contents_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in) { give_up("cannot read " + file.string()); }
    return {std::istreambuf_iterator<char>(in), {}};
}
void write(const std::filesystem::path& file, const std::string& text) {
    std::ofstream out(file, std::ios::binary);
    out << text;
    out.flush();
    if (!out) { give_up("cannot write " + file.string()); }
}

// ---- what was measured -------------------------------------------------------------------------------------------------------------

struct table {
    std::string name, title, unit, baseline, command;
    bool more_is_better = true;
    std::vector<double> canary;
    std::string canary_unit;
    std::vector<std::pair<std::string, std::vector<double>>> rows;

    const std::vector<double>* find(const std::string& row) const {
        for (const auto& [name_, figures] : rows) {
            if (name_ == row) { return &figures; }
        }
        return nullptr;
    }
};

struct measured {
    std::vector<table> tables;
    std::vector<std::string> machines; // and how busy they were, for each program

    const table* find(const std::string& name) const {
        for (const table& t : tables) {
            if (t.name == name) { return &t; }
        }
        return nullptr;
    }
};

std::vector<double> numbers(const value& v) {
    std::vector<double> out;
    for (const value& x : v.list) { out.push_back(x.number); }
    return out;
}

measured read(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> files;
    for (const auto& at : std::filesystem::directory_iterator(folder)) {
        if (at.path().extension() == ".json") { files.push_back(at.path()); }
    }
    std::sort(files.begin(), files.end());
    measured all;
    for (const auto& file : files) {
        const std::string text = contents_of(file);
        const value v = parser(text).parse();
        all.machines.push_back(v.at("command").text + ": " + v.at("machine").text +
                               (v.at("load").number > 0 ? ", load before " + short_number(v.at("load").number) : ""));
        for (const value& t : v.at("tables").list) {
            table out{t.at("name").text,       t.at("title").text,
                      t.at("unit").text,       t.at("baseline").text,
                      v.at("command").text,    t.at("more_is_better").text == "true",
                      numbers(t.at("canary")), t.members.contains("canary_unit") ? t.at("canary_unit").text : "ns",
                      {}};
            for (const value& r : t.at("rows").list) { out.rows.emplace_back(r.at("name").text, numbers(r.at("figures"))); }
            all.tables.push_back(std::move(out));
        }
    }
    return all;
}

// ---- tables ------------------------------------------------------------------------------------------------------------------------

std::string markdown(const table& t) {
    std::string out = "**" + t.title + "** (`" + t.command + " --only " + t.name + "`";
    if (!t.canary.empty()) { out += "; canary " + to_text(spread_of(t.canary)) + " " + t.canary_unit; }
    const std::vector<double>* const base = t.find(t.baseline);
    out += ")\n\n| | " + t.unit + " |" + (base != nullptr ? " ratio to " + t.baseline + " |\n|---|---|---|\n" : "\n|---|---|\n");
    for (const auto& [name, figures] : t.rows) {
        out += "| " + name + " | " + (figures.size() == 1 ? short_number(figures[0]) : to_text(spread_of(figures))) + " |";
        if (base != nullptr) { out += base == &figures ? " |" : " " + to_text(bench::paired_ratio(figures, *base)) + " |"; }
        out += "\n";
    }
    return out;
}

// ---- what was asked ----------------------------------------------------------------------------------------------------------------

// A ratio of a row to another, or (without a rival) a figure; at least `asked` where more is better, otherwise at most.
struct claim {
    const char* question;
    const char* table;
    const char* ours;
    const char* rival;
    double asked;
    double stretch; // 0: none
    bool at_least = true;
};

constexpr const char* tokens = "moodycamel + tokens";
constexpr const char* locked = "mutex + deque + condvar";
constexpr const char* popped = "send, pop";
constexpr const char* received = "send, receive, ack";
constexpr const char* published = "publish, pop_each 64";
constexpr const char* each_copy = "a moodycamel each, copies";
constexpr const char* each_share = "a moodycamel each, shared_ptr";

const auto& claims() {
    static const std::vector<claim> all{
        {"send + pop, 16 B, pinned, 1P1C", "small_pinned_1P1C", popped, tokens, 0.8, 1.1},
        {"send + pop, 16 B, pinned, 2P2C", "small_pinned_2P2C", popped, tokens, 1.0, 1.3},
        {"send + pop, 16 B, pinned, 4P4C", "small_pinned_4P4C", popped, tokens, 1.0, 2},
        {"send + pop, 16 B, unpinned, 1P1C", "small_unpinned_1P1C", popped, tokens, 0.5, 0.8},
        {"send + pop, 16 B, unpinned, 2P2C", "small_unpinned_2P2C", popped, tokens, 0.4, 0.7},
        {"send + pop, 16 B, unpinned, 4P4C", "small_unpinned_4P4C", popped, tokens, 0.3, 0.6},
        {"send + pop, 16 B, unpinned, 1P1C", "small_unpinned_1P1C", popped, locked, 3, 0},
        {"send + pop, 16 B, unpinned, 2P2C", "small_unpinned_2P2C", popped, locked, 3, 0},
        {"send + pop, 16 B, unpinned, 4P4C", "small_unpinned_4P4C", popped, locked, 3, 0},
        {"receive + ack, pinned, 1P1C", "small_pinned_1P1C", received, tokens, 0.6, 0.9},
        {"receive + ack, pinned, 2P2C", "small_pinned_2P2C", received, tokens, 0.8, 1.1},
        {"receive + ack, pinned, 4P4C", "small_pinned_4P4C", received, tokens, 0.8, 1.5},
        {"receive + ack, pinned, 1P1C", "small_pinned_1P1C", received, popped, 0.85, 0.95},
        {"receive + ack, pinned, 2P2C", "small_pinned_2P2C", received, popped, 0.85, 0.95},
        {"receive + ack, pinned, 4P4C", "small_pinned_4P4C", received, popped, 0.85, 0.95},
        {"with max_messages, 1P1C", "small_pinned_1P1C", "send, pop, max_messages never reached", popped, 0.7, 0.9},
        {"with max_messages, 2P2C", "small_pinned_2P2C", "send, pop, max_messages never reached", popped, 0.7, 0.9},
        {"std::string of 64, 1P1C", "string_pinned_1P1C", popped, tokens, 1.0, 1.3},
        {"std::string of 64, 2P2C", "string_pinned_2P2C", popped, tokens, 2.5, 4},
        {"batches of 64, 1P1C", "batch_pinned_1P1C", "send_many, pop_many", "moodycamel bulk + tokens", 0.4, 0.8},
        {"batches of 64, 2P2C", "batch_pinned_2P2C", "send_many, pop_many", "moodycamel bulk + tokens", 0.4, 0.8},
        {"batches of 64, 4P4C", "batch_pinned_4P4C", "send_many, pop_many", "moodycamel bulk + tokens", 0.4, 0.8},
        {"transient<>, one thread", "transient_alone_unbounded", "transient<>", "moodycamel", 0.97, 0},
        {"transient<>, handles, one thread", "transient_alone_handles", "transient<>, handles", tokens, 0.97, 0},
        {"transient<>, pinned, 1P1C", "transient_unbounded_pinned_1P1C", "transient<>", "moodycamel", 0.97, 0},
        {"transient<>, handles, pinned, 1P1C", "transient_handles_pinned_1P1C", "transient<>, handles", tokens, 0.97, 0},
        {"transient<spsc>, one thread", "transient_alone_spsc", "transient<spsc>", "Boost.Lockfree spsc_queue", 0.97, 0},
        {"transient<spsc>, pinned", "transient_spsc_pinned_1P1C", "transient<spsc>, try_send", "Boost.Lockfree spsc_queue", 0.97, 0},
        {"blocking receive, unpinned, 1P1C", "blocking_unpinned_1P1C", received, "moodycamel Blocking + tokens", 1.3, 2.5},
        {"blocking receive, unpinned, 2P2C", "blocking_unpinned_2P2C", received, "moodycamel Blocking + tokens", 1.3, 2.5},
        {"blocking receive, unpinned, 4P4C", "blocking_unpinned_4P4C", received, "moodycamel Blocking + tokens", 1.3, 2.5},
        {"asking and having the answer, 1 caller", "request_memory_1", "requester, responder", "two moodycamel Blocking + tokens", 1.0, 0, false},
        {"asking and having the answer, 4 callers", "request_memory_4", "requester, responder", "two moodycamel Blocking + tokens", 1.0, 0, false},
        {"index path: priorities, M msg/s", "index_1P1C", "priorities = 3", nullptr, 2, 5},
        {"index path: delays, M msg/s", "index_1P1C", "a delay of 1 us", nullptr, 2, 5},
        {"index path: keys, M msg/s", "index_1P1C", "ordered_by_key, 1000 keys", nullptr, 2, 5},
        {"topic to 8 subscribers, 16 B, pinned", "fan_small_pinned_1P8S", published, each_copy, 1.5, 3},
        {"topic to 8 subscribers, 16 B, unpinned", "fan_small_unpinned_1P8S", published, each_copy, 1.5, 3},
        {"topic to 8 subscribers, 16 B, a thread each", "fan_threads_pinned_1P8S", published, each_copy, 1.5, 3},
        {"topic to 32 subscribers, 16 B, pinned", "fan_small_pinned_1P32S", published, each_copy, 1.8, 4},
        {"topic to 32 subscribers, 16 B, unpinned", "fan_small_unpinned_1P32S", published, each_copy, 1.8, 4},
        {"the same to 8 subscribers, pinned, by `pop`", "fan_small_pinned_1P8S", "publish, pop", each_copy, 1.5, 3},
        {"the same to 32 subscribers, pinned, by `pop`", "fan_small_pinned_1P32S", "publish, pop", each_copy, 1.8, 4},
        {"topic to 8 subscribers, 1 KiB, pinned", "fan_large_pinned_1P8S", published, each_share, 1.6, 0},
        {"topic to 8 subscribers, 1 KiB, one thread", "fan_alone_large", published, each_share, 1.6, 0},
        {"topic to 8 subscribers, 1 KiB, 4 publishers", "fan_many_large_pinned_4P8S", published, each_share, 1.6, 0},
        {"topic to 8 subscribers, 16 B, 4 publishers, M publishes/s: ten times a disruptor", "fan_many_small_pinned_4P8S", published, nullptr, 14, 0},
        {"publish to 1000 that do not read, against 1", "fan_idle", "publish, 1000 idle", "publish, 1 idle", 1.2, 0, false},
        {"a million messages waiting, 16 B, bytes a message", "waiting_bytes", "queue", nullptr, 64, 0, false},
        {"10,000 queues never used, bytes a queue", "idle_never_used", "queue", nullptr, 4096, 0, false},
        {"10,000 queues drained after 100 messages, bytes a queue", "idle_drained_100", "queue", nullptr, 4096, 0, false},
        {"10,000 queues drained after 1000 messages, bytes a queue", "idle_drained_1000", "queue", nullptr, 4096, 0, false},
        {"10,000 queues, threads", "idle_threads", "queue", nullptr, 0, 0, false},
        {"include: preprocessed lines", "include_lines", "<mailroom/queue.hpp>", nullptr, 80'000, 0, false},
        {"include: time", "include_time", "<mailroom/queue.hpp>", "the standard headers it includes", 1.4, 0, false},
        {"the hello program, -O2, s", "hello_time", "hello", nullptr, 1.5, 0, false},
        {"the hello program, -O2, MiB of the compiler", "hello_memory", "hello", nullptr, 250, 0, false},
    };
    return all;
}

std::string reached(const measured& all) {
    std::string out = "| question | against | asked (stretch) | reached | |\n|---|---|---|---|---|\n";
    for (const claim& c : claims()) {
        const table* const t = all.find(c.table);
        const std::vector<double>* const ours = t != nullptr ? t->find(c.ours) : nullptr;
        const std::vector<double>* const theirs = t != nullptr && c.rival != nullptr ? t->find(c.rival) : nullptr;
        out += std::string("| ") + c.question + " | " +
               (c.rival == nullptr  ? ""
                : c.rival == popped ? "our own send, pop"
                                    : c.rival) +
               " | " + (c.at_least ? "" : "at most ") + short_number(c.asked) + (c.stretch > 0 ? " (" + short_number(c.stretch) + ")" : "") + " | ";
        if (ours == nullptr || (c.rival != nullptr && theirs == nullptr)) {
            out += "not measured | |\n";
            continue;
        }
        const spread s = theirs != nullptr ? bench::paired_ratio(*ours, *theirs) : spread_of(*ours);
        const bool holds = c.at_least ? s.median >= c.asked : s.median <= c.asked;
        out += to_text(s) + " | " + (holds ? c.stretch > 0 && s.median >= c.stretch ? "stretch" : "met" : "**missed**") + " |\n";
    }
    return out;
}

// ---- plots -------------------------------------------------------------------------------------------------------------------------

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '<') {
            out += "&lt;";
        } else if (c == '>') {
            out += "&gt;";
        } else if (c == '&') {
            out += "&amp;";
        } else {
            out += c;
        }
    }
    return out;
}
bool is_ours(const std::string& row) {
    return row.starts_with("send") || row.starts_with("publish") || row == "queue" || row.starts_with("<mailroom") || row == "hello" ||
           row.find("lease") == 0;
}

// Bars from the medians, a line from the least to the most.
std::string svg(const std::string& title, const std::vector<const table*>& tables) {
    constexpr int width = 860, left = 330, right = 150, bar = 15, gap = 5, head = 26;
    int height = 46;
    for (const table* t : tables) { height += head + static_cast<int>(t->rows.size()) * (bar + gap) + 14; }
    std::ostringstream out;
    out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height << "\" font-family=\"sans-serif\" font-size=\"12\">\n"
        << "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#222222\">"
        << escaped(title) << "</text>\n";
    int y = 46;
    for (const table* t : tables) {
        double top = 0;
        for (const auto& [name, figures] : t->rows) { top = std::max(top, spread_of(figures).most); }
        const double scale = top > 0 ? (width - left - right) / top : 0;
        out << "<text x=\"12\" y=\"" << y + 12 << "\" font-weight=\"bold\" fill=\"#444444\">" << escaped(t->title + ", " + t->unit)
            << (t->more_is_better ? "" : " (less is better)") << "</text>\n";
        y += head;
        for (const auto& [name, figures] : t->rows) {
            const spread s = spread_of(figures);
            const double middle = y + bar / 2.0;
            out << "<text x=\"" << left - 8 << "\" y=\"" << y + 12 << "\" text-anchor=\"end\" fill=\"#222222\">" << escaped(name) << "</text>\n"
                << "<rect x=\"" << left << "\" y=\"" << y << "\" width=\"" << s.median * scale << "\" height=\"" << bar << "\" fill=\""
                << (is_ours(name) ? "#2f6fbb" : "#b4bcc6") << "\"/>\n"
                << "<path d=\"M" << left + s.least * scale << ' ' << middle << "H" << left + s.most * scale << "\" stroke=\"#222222\"/>\n"
                << "<text x=\"" << left + s.most * scale + 6 << "\" y=\"" << y + 12 << "\" fill=\"#222222\">" << short_number(s.median)
                << "</text>\n";
            y += bar + gap;
        }
        y += 14;
    }
    out << "</svg>\n";
    return out.str();
}

struct plot {
    const char* file;
    const char* title;
    std::vector<std::string> prefixes;
};

void draw(const measured& all, const std::filesystem::path& folder) {
    const std::vector<plot> plots{
        {"queue_pinned.svg",
         "A queue in memory, 16 bytes, senders on one core, receivers on the other",
         {"small_pinned_1P1C", "small_pinned_2P2C", "small_pinned_4P4C"}},
        {"queue_unpinned.svg",
         "A queue in memory, 16 bytes, threads wherever the system puts them",
         {"small_unpinned_1P1C", "small_unpinned_2P2C", "small_unpinned_4P4C"}},
        {"batches.svg", "64 messages at a time", {"batch_pinned", "batch_unpinned"}},
        {"strings.svg", "Strings of 64 characters", {"string_pinned", "string_unpinned"}},
        {"blocking.svg", "Receivers that block", {"blocking_unpinned", "blocking_pinned"}},
        {"wakeup.svg", "Waking a receiver", {"round_trip_same_core_p50", "round_trip_across_p50", "sleeper_same_core_p50", "sleeper_across_p50"}},
        {"options.svg", "What each option costs", {"lane_1P1C", "properties_1P1C", "index_1P1C"}},
        {"memory.svg", "Memory", {"waiting_bytes", "burst_left", "idle_never_used", "idle_drained"}},
        {"transient.svg", "The transient lanes", {"transient"}},
        {"topic.svg",
         "A topic, 16 bytes, to 1, 8 and 32 subscribers, pinned",
         {"fan_small_pinned_1P1S", "fan_small_pinned_1P8S", "fan_small_pinned_1P32S"}},
        {"topic_large.svg", "A topic, 1 KiB, to 8 subscribers", {"fan_large_pinned_1P8S", "fan_many_large_pinned_4P8S", "fan_alone_large"}},
        {"topic_idle.svg", "Subscribers that do not read", {"fan_idle"}},
        {"include.svg", "What including the queue costs the compiler", {"include", "hello"}},
    };
    for (const plot& p : plots) {
        std::vector<const table*> wanted;
        for (const std::string& prefix : p.prefixes) {
            for (const table& t : all.tables) {
                const bool whole = t.name == prefix;
                if (whole || (t.name.starts_with(prefix) &&
                              std::none_of(p.prefixes.begin(), p.prefixes.end(), [&](const std::string& x) { return x == t.name; }) &&
                              t.name.find("_yield") == std::string::npos)) {
                    wanted.push_back(&t);
                }
            }
        }
        if (!wanted.empty()) { write(folder / p.file, svg(p.title, wanted)); }
    }
}

// ---- the document ------------------------------------------------------------------------------------------------------------------

std::string filled(const std::string& what, const measured& all) {
    std::string out;
    if (what == "reached") { return reached(all); }
    if (what == "machine") {
        for (const std::string& m : all.machines) { out += "- `" + m.substr(0, m.find(':')) + "`" + m.substr(m.find(':')) + "\n"; }
        return out;
    }
    if (!what.starts_with("tables ")) { give_up("the document asks for '" + what + "'"); }
    for (const table& t : all.tables) {
        if (t.name.starts_with(what.substr(7))) { out += (out.empty() ? "" : "\n") + markdown(t); }
    }
    return out.empty() ? "Not measured.\n" : out;
}

std::string rewritten(const std::string& text, const measured& all) {
    static constexpr std::string_view begin = "<!-- ", close = " -->\n", end = "<!-- end -->";
    std::string out;
    for (std::size_t at = 0;;) {
        const std::size_t from = text.find(begin, at);
        if (from == std::string::npos) { return out + text.substr(at); }
        const std::size_t name_end = text.find(close, from);
        const std::size_t to = name_end == std::string::npos ? name_end : text.find(end, name_end);
        if (to == std::string::npos) { give_up("a part of the document has no end"); }
        const std::string name = text.substr(from + begin.size(), name_end - from - begin.size());
        out += text.substr(at, name_end + close.size() - at) + "\n" + filled(name, all) + "\n";
        out += end;
        at = to + end.size();
    }
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 4) { give_up("usage: report DATA DOC PLOTS"); }
    const measured all = read(argv[1]);
    const std::string text = rewritten(contents_of(argv[2]), all);
    write(argv[2], text);
    draw(all, argv[3]);
}
