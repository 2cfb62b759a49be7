// What Linux says about itself below /proc, as readings: counters that only grow, each with its owner. Parsing is separate from reading.
// Every file may be gone, empty or cut short when it is read, and a process may call itself anything: ") R 1 (" too.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <csignal>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace proc {

enum class source { process, core, interface };

/// Two counters of one source at one moment. A process: its CPU ticks in user and kernel mode. A core: its ticks at work and idle.
/// An interface: bytes in and out.
struct reading {
    source what = source::process;
    std::string name;       // empty: it vanished while it was read
    int number = 0;         // of the process, or of the core
    std::uint64_t born = 0; // a process number is used again; number and birth together are not
    std::uint64_t first = 0;
    std::uint64_t second = 0;
};

struct memory {
    std::uint64_t total_kib = 0;
    std::uint64_t available_kib = 0;
};

/// CPU ticks in a second.
inline double ticks_per_second() {
    const long ticks = ::sysconf(_SC_CLK_TCK);
    return ticks > 0 ? static_cast<double>(ticks) : 100.0;
}

// ------------------------------------------------------------------------------------------------------------------------------ parsing

inline std::optional<std::uint64_t> to_number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (wrong != std::errc() || end != text.data() + text.size()) { return std::nullopt; }
    return value;
}

/// The words of a line.
inline std::vector<std::string_view> split(std::string_view line) {
    std::vector<std::string_view> words;
    constexpr std::string_view blanks = " \t\r\n";
    for (auto at = line.find_first_not_of(blanks); at != line.npos; at = line.find_first_not_of(blanks, at)) {
        const auto end = std::min(line.find_first_of(blanks, at), line.size());
        words.push_back(line.substr(at, end - at));
        at = end;
    }
    return words;
}

/// Calls `fn` for each line.
template <class Fn>
void each_line(std::string_view text, Fn fn) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        fn(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

/// The name as it may be printed: no control characters, which could move the cursor.
inline std::string printable(std::string_view name) {
    std::string out(name);
    std::replace_if(
        out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    return out;
}

/// /proc/[pid]/stat: "pid (name) state ...". The name may hold blanks and parentheses: it ends at the last one of the line.
inline std::optional<reading> parse_process(std::string_view text) {
    const auto open = text.find('('), close = text.rfind(')');
    if (open == text.npos || close == text.npos || close < open) { return std::nullopt; }
    const auto head = split(text.substr(0, open));
    const auto fields = split(text.substr(close + 1)); // from the third on, "state"
    if (head.size() != 1 || fields.size() < 20) { return std::nullopt; }
    const auto pid = to_number(head[0]), user = to_number(fields[11]), kernel = to_number(fields[12]), born = to_number(fields[19]);
    if (!pid || !user || !kernel || !born) { return std::nullopt; }
    std::string name = printable(text.substr(open + 1, close - open - 1));
    if (name.empty()) { name = "(no name)"; }
    return reading{source::process, std::move(name), static_cast<int>(*pid), *born, *user, *kernel};
}

/// /proc/stat: a line a core, "cpu3 user nice system idle iowait irq softirq steal ...".
inline std::vector<reading> parse_cores(std::string_view text) {
    std::vector<reading> cores;
    each_line(text, [&](std::string_view line) {
        const auto words = split(line);
        if (words.size() < 5 || !words[0].starts_with("cpu")) { return; }
        const auto number = to_number(words[0].substr(3)); // "cpu" alone is the sum of them
        if (!number) { return; }
        reading core{source::core, std::string(words[0]), static_cast<int>(*number), 0, 0, 0};
        for (std::size_t i = 1; i < std::min<std::size_t>(words.size(), 9); ++i) { // what guests use is in "user" already
            const auto ticks = to_number(words[i]);
            if (!ticks) { return; }
            const bool idle = i == 4 || i == 5;
            (idle ? core.second : core.first) += *ticks;
        }
        cores.push_back(std::move(core));
    });
    return cores;
}

/// /proc/net/dev: two lines of headings, then "name: 8 numbers of what came in, 8 of what went out"; the first of each are bytes.
inline std::vector<reading> parse_interfaces(std::string_view text) {
    std::vector<reading> interfaces;
    each_line(text, [&](std::string_view line) {
        const auto colon = line.rfind(':'); // "eth0:1" is a name too
        if (colon == line.npos) { return; }
        const auto name = split(line.substr(0, colon)), numbers = split(line.substr(colon + 1));
        if (name.size() != 1 || numbers.size() < 9) { return; }
        const auto in = to_number(numbers[0]), out = to_number(numbers[8]);
        if (in && out) { interfaces.push_back({source::interface, printable(name[0]), 0, 0, *in, *out}); }
    });
    return interfaces;
}

/// /proc/meminfo: "MemTotal:  24684092 kB".
inline memory parse_memory(std::string_view text) {
    memory found;
    each_line(text, [&](std::string_view line) {
        const auto words = split(line);
        if (words.size() < 2) { return; }
        if (words[0] == "MemTotal:") { found.total_kib = to_number(words[1]).value_or(0); }
        if (words[0] == "MemAvailable:") { found.available_kib = to_number(words[1]).value_or(0); }
    });
    return found;
}

// ------------------------------------------------------------------------------------------------------------------------------ reading

/// The whole of a file; empty if it cannot be read, or not any more.
inline std::string text_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::string text;
    std::getline(in, text, '\0'); // not by iterators: a process that ends between open and read makes those throw
    return text;
}

/// The numbers of the processes there are, or were a moment ago.
inline std::vector<int> process_numbers() {
    std::vector<int> numbers;
    std::error_code ignored; // an incomplete list is as good: the next one comes soon
    for (std::filesystem::directory_iterator at("/proc", ignored), end; at != end; at.increment(ignored)) {
        if (const auto n = to_number(at->path().filename().native())) { numbers.push_back(static_cast<int>(*n)); }
    }
    return numbers;
}

/// A process, its name empty if it has vanished.
inline reading read_process(int number) {
    if (auto found = parse_process(text_of("/proc/" + std::to_string(number) + "/stat"))) { return *std::move(found); }
    return reading{source::process, {}, number, 0, 0, 0};
}

/// A child process that does nothing until it is ended. To be made while there is one thread.
class mayfly {
public:
    mayfly() : pid_(::fork()) {
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL); // must not be left behind
            for (;;) { ::pause(); }
        }
    }
    mayfly(const mayfly&) = delete;
    mayfly& operator=(const mayfly&) = delete;
    ~mayfly() { end(); }

    void end() {
        if (pid_ <= 0) { return; }
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }

private:
    ::pid_t pid_;
};

} // namespace proc
