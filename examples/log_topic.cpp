// Log files as a topic: every line is published once, and three groups do different work on all of them at the same time.
//
//                        ┌──> census    (shared: each line to whoever is free)      counts lines by severity or program
//   lines ──> partitions ┼──> guard     (keyed: one address, one member, in order)  looks for bursts of failed logins
//   by address           └──> archive   (exclusive, and away for a while)           sizes and checksums, in order
//
// The key of a line is the address in it, or else the host or what stands in its place. Halfway the archive goes away, and is back
// later: it finds what it missed. At the end all groups must have seen the same, and the same as one plain loop over the files; the exit
// code says whether they have. Understands the formats of syslog, Apache, HDFS, Spark and Zookeeper as far as this needs.
#include <mailroom/mailroom.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

constexpr int partitions = 8;
constexpr std::uint64_t burst_failures = 5; // so many failed logins of one address,
constexpr std::uint64_t burst_gap = 50;     // none of them more lines after the one before than this

// ------------------------------------------------------------------------------------------------------------------------------- lines

struct log_line {
    std::uint64_t number = 0; // of all files together, from 1
    std::string text;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The first IPv4 address in a line; empty if there is none.
std::string_view address_in(std::string_view line) {
    for (std::size_t at = 0; at < line.size(); ++at) {
        if (!is_digit(line[at]) || (at != 0 && (is_digit(line[at - 1]) || line[at - 1] == '.'))) { continue; }
        std::size_t end = at, parts = 0;
        while (parts < 4) {
            const std::size_t begin = end;
            while (end < line.size() && end - begin < 3 && is_digit(line[end])) { ++end; }
            if (end == begin) { break; }
            ++parts;
            if (parts < 4) {
                if (end == line.size() || line[end] != '.') { break; }
                ++end;
            }
        }
        const bool goes_on = end < line.size() && (is_digit(line[end]) || (line[end] == '.' && end + 1 < line.size() && is_digit(line[end + 1])));
        if (parts == 4 && !goes_on) { return line.substr(at, end - at); }
    }
    return {};
}

/// The word of that number, from 0.
std::string_view word_of(std::string_view line, std::size_t number) {
    for (std::size_t at = line.find_first_not_of(' '); at != line.npos; at = line.find_first_not_of(' ', at)) {
        const std::size_t end = std::min(line.find(' ', at), line.size());
        if (number-- == 0) { return line.substr(at, end - at); }
        at = end;
    }
    return {};
}

/// What is ordered: the address, or else what names a source in the line. Never empty: without a key there is no order between partitions.
std::string key_of(std::string_view line) {
    if (const auto address = address_in(line); !address.empty()) { return std::string(address); }
    if (const auto remote = line.find(" rhost="); remote != line.npos) {
        const auto host = word_of(line.substr(remote), 0);
        if (host.size() > std::strlen("rhost=")) { return std::string(host.substr(std::strlen("rhost="))); }
    }
    const auto host = word_of(line, 3); // in syslog
    return host.empty() ? "-" : std::string(host);
}

/// The severity, or the program where a format has none.
std::string kind_of(std::string_view line) {
    constexpr std::array severities{"INFO", "WARN", "ERROR", "FATAL", "[notice]", "[warn]", "[error]"};
    for (const char* s : severities) {
        if (line.find(s) != line.npos) { return s; }
    }
    const auto program = word_of(line, 4);
    const auto name = program.substr(0, program.find_first_of("[(:"));
    return name.empty() ? "-" : std::string(name);
}

/// Failed logins it tells of: 0 or 1.
std::uint64_t failures_in(std::string_view line) {
    return line.find("]: Failed password for ") != line.npos || line.find("]: authentication failure;") != line.npos ? 1 : 0;
}

std::uint64_t checksum(std::uint64_t so_far, std::string_view text) {
    for (const char c : text) { so_far = (so_far ^ static_cast<unsigned char>(c)) * 0x100000001b3u; }
    return (so_far ^ '\n') * 0x100000001b3u;
}

// ------------------------------------------------------------------------------------------------------------------- what each group finds

using counts = std::map<std::string, std::uint64_t>;

/// The failed logins of each address. One address is only ever in one hand, but different ones are looked at at once.
class login_watch {
public:
    void look_at(const log_line& l, const std::string& address) {
        history& h = of(address);
        h.disordered += l.number <= h.last ? 1 : 0;
        h.last = l.number;
        ++h.lines;
        if (failures_in(l.text) == 0) { return; }
        h.run = h.failures != 0 && l.number - h.last_failure <= burst_gap ? h.run + 1 : 1;
        h.bursts += h.run == burst_failures ? 1 : 0;
        ++h.failures;
        h.last_failure = l.number;
    }
    struct sums {
        std::uint64_t lines = 0, failures = 0, bursts = 0, disordered = 0;
        bool operator==(const sums&) const = default;
    };
    sums add_up() const {
        sums s;
        for (const auto& [address, h] : all_) {
            s.lines += h.lines;
            s.failures += h.failures;
            s.bursts += h.bursts;
            s.disordered += h.disordered;
        }
        return s;
    }
    std::size_t addresses() const { return all_.size(); }
    /// Those with the most failures first.
    std::vector<std::pair<std::uint64_t, std::string>> worst(std::size_t n) const {
        std::vector<std::pair<std::uint64_t, std::string>> out;
        for (const auto& [address, h] : all_) {
            if (h.bursts != 0) { out.emplace_back(h.failures, address); }
        }
        std::sort(out.rbegin(), out.rend());
        out.resize(std::min(out.size(), n));
        return out;
    }

private:
    struct history {
        std::uint64_t last = 0, lines = 0, failures = 0, last_failure = 0, run = 0, bursts = 0, disordered = 0;
    };
    history& of(const std::string& address) {
        const std::lock_guard lock(mutex_); // for the map alone: what it holds stays where it is
        return all_[address];
    }
    std::mutex mutex_;
    std::map<std::string, history> all_;
};

/// What is on a shelf of the archive: one for each partition.
struct shelf {
    std::uint64_t lines = 0, bytes = 0, sum = 0xcbf29ce484222325u;
    mailroom::offset next = 0;

    void add(std::string_view text, mailroom::offset place) {
        gaps += place != next ? 1 : 0;
        next = place + 1;
        ++lines;
        bytes += text.size();
        sum = checksum(sum, text);
    }
    std::uint64_t gaps = 0; // lines that did not follow the one before
    bool operator==(const shelf&) const = default;
};
using shelves = std::array<shelf, partitions>;

// -------------------------------------------------------------------------------------------------------------------------------- main

bool good = true;
void equal(const char* what, std::uint64_t left, std::uint64_t right) {
    std::printf("  %-58s %7ju = %7ju   %s\n", what, std::uintmax_t(left), std::uintmax_t(right), left == right ? "yes" : "NO");
    good = good && left == right;
}

int process(const std::vector<std::string>& paths) {
    std::vector<std::string> all; // read first, to know where the middle is
    for (const std::string& path : paths) {
        std::ifstream in(path);
        if (in) { in.peek(); } // a folder can be opened, but not read
        if (in.fail() && !in.eof()) {
            std::fprintf(stderr, "log_topic: cannot read '%s': %s\n", path.c_str(), std::strerror(errno));
            return 1;
        }
        for (std::string line; std::getline(in, line);) {
            if (!line.empty() && line.back() == '\r') { line.pop_back(); }
            all.push_back(std::move(line));
        }
    }

    mailroom::topic<log_line> lines({.partitions = partitions}); // not bounded: who is away would hold up a topic that is
    using from = mailroom::subscribe_options<log_line>;

    // Three members of the census, one thread each: whoever is free takes the next line.
    std::array<counts, 3> counted;
    std::vector<mailroom::subscription<log_line>> census;
    std::vector<mailroom::consumer> counting;
    for (counts& mine : counted) {
        census.push_back(lines.subscribe("census", from{.mode = mailroom::sharing::shared}));
        counting.push_back(census.back().consume([&mine](const log_line& l) { ++mine[kind_of(l.text)]; }));
    }
    // Two guards: an address belongs to one of them.
    login_watch watched;
    std::vector<mailroom::subscription<log_line>> guards;
    std::vector<mailroom::consumer> watching;
    for (int i = 0; i < 2; ++i) {
        guards.push_back(lines.subscribe("guard", from{.mode = mailroom::sharing::keyed}));
        watching.push_back(guards.back().consume([&watched](const log_line& l, const mailroom::properties& p) { watched.look_at(l, p.key); }));
    }
    // The archive reads for itself. Going away means letting go of the subscription; its name stays, and with it its place.
    shelves archived;
    struct archivist {
        archivist(mailroom::topic<log_line>& topic, shelves& into)
            : lines(topic.subscribe("archive")), thread([this, &into] {
                  while (auto d = lines.receive(leave.get_token())) {
                      into[static_cast<std::size_t>(d->partition())].add(d->body().text, d->offset());
                      d->ack();
                  }
              }) {}
        archivist(const archivist&) = delete;
        archivist& operator=(const archivist&) = delete;
        ~archivist() {
            leave.request_stop();
            thread.join();
        }
        mailroom::subscription<log_line> lines;
        mailroom::stop_source leave;
        std::thread thread;
    };
    std::optional<archivist> archive(std::in_place, lines, archived);

    // The same in one plain loop, while publishing.
    counts expected_counts;
    login_watch expected_watch;
    shelves expected_shelves;
    std::uint64_t missed = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (i == all.size() / 3) { archive.reset(); }
        if (i == all.size() * 2 / 3) {
            const auto known = lines.subscriptions();
            const auto away = std::find_if(known.begin(), known.end(), [](const auto& s) { return s.name == "archive"; });
            missed = away != known.end() ? away->lag : 0;
            archive.emplace(lines, archived);
        }
        log_line line{i + 1, all[i]};
        std::string key = key_of(line.text);
        ++expected_counts[kind_of(line.text)];
        expected_watch.look_at(line, key);
        const auto at = lines.publish(std::move(line), {.key = std::move(key)});
        expected_shelves[static_cast<std::size_t>(at.partition)].add(all[i], at.offset);
    }
    const bool drained = lines.drain(60s); // closes; all groups have settled everything
    archive.reset();
    counting.clear(); // waits for running handlers
    watching.clear();

    counts census_sum;
    std::uint64_t census_lines = 0, archive_lines = 0, archive_bytes = 0, gaps = 0, bytes = 0, same_shelves = 0;
    for (const counts& c : counted) {
        for (const auto& [kind, n] : c) {
            census_sum[kind] += n;
            census_lines += n;
        }
    }
    for (std::size_t p = 0; p < partitions; ++p) {
        const shelf& s = archived[p];
        same_shelves += s == expected_shelves[p] ? 1 : 0;
        archive_lines += s.lines;
        archive_bytes += s.bytes;
        gaps += s.gaps;
    }
    for (const std::string& line : all) { bytes += line.size(); }
    const auto found = watched.add_up(), expected = expected_watch.add_up();

    std::printf("%zu lines of %zu file(s), %zu addresses or hosts in %d partitions\n\ncensus: ", all.size(), paths.size(), watched.addresses(),
                partitions);
    std::vector<std::pair<std::uint64_t, std::string>> most;
    for (const auto& [kind, n] : census_sum) { most.emplace_back(n, kind); }
    std::sort(most.rbegin(), most.rend());
    for (std::size_t i = 0; i < std::min<std::size_t>(most.size(), 8); ++i) {
        std::printf(" %s %ju", most[i].second.c_str(), std::uintmax_t(most[i].first));
    }
    std::printf("%s\nguard:   %ju failed logins, %ju burst(s)", most.size() > 8 ? " ..." : "", std::uintmax_t(found.failures),
                std::uintmax_t(found.bursts));
    for (const auto& [n, address] : watched.worst(3)) { std::printf("; %s: %ju", address.c_str(), std::uintmax_t(n)); }
    std::printf("\narchive: %ju lines, %ju bytes; found %ju lines waiting when it came back\n\n", std::uintmax_t(archive_lines),
                std::uintmax_t(archive_bytes), std::uintmax_t(missed));

    std::printf("%-10s %8s %10s %8s %6s\n", "group", "members", "unsettled", "taken", "lost");
    for (const auto& s : lines.subscriptions()) {
        std::uint64_t taken = 0;
        for (const auto& p : s.positions) { taken += p.offset; }
        std::printf("  %-8s %8zu %10ju %8ju %6ju\n", s.name.c_str(), std::size_t(s.members), std::uintmax_t(s.lag), std::uintmax_t(taken),
                    std::uintmax_t(s.lost));
        good = good && s.lag == 0 && s.lost == 0 && taken == all.size();
    }
    std::printf("\n");
    equal("lines read = counted by the census", all.size(), census_lines);
    equal("lines read = seen by the guard", all.size(), found.lines);
    equal("lines read = in the archive", all.size(), archive_lines);
    equal("bytes read = in the archive", bytes, archive_bytes);
    equal("kinds of the census = of a plain loop, with their counts", census_sum == expected_counts ? census_sum.size() : 0, expected_counts.size());
    equal("failed logins of the guard = of a plain loop", found.failures, expected.failures);
    equal("bursts of the guard = of a plain loop", found.bursts, expected.bursts);
    equal("shelves of the archive as they should be, checksums too", same_shelves, partitions);
    equal("lines of an address that came out of order", found.disordered, 0);
    equal("lines of a partition that came out of order", gaps, 0);
    if (!drained) { std::printf("not everything was done in time\n"); }
    return good && drained ? 0 : 1;
}

int main(int argc, char** argv) {
    const std::vector<std::string> paths(argv + std::min(argc, 1), argv + argc);
    if (paths.empty() || paths[0] == "--help" || paths[0] == "-h") {
        std::fprintf(stderr, "usage: log_topic FILE...     gives each line of log files to three groups at once\n");
        return 2;
    }
    try {
        return process(paths);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "log_topic: %s\n", e.what());
        return 1;
    }
}
