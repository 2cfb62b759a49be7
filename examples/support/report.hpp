// How the larger examples show what they do: a progress line, and the table at the end in which every message is accounted for.
#pragma once

#include <mailroom/options.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include <unistd.h>

namespace report {

/// A line that is written over on a terminal; a line a second elsewhere.
class progress {
public:
    void show(double done, double all, const std::string& text) {
        if (terminal_) {
            constexpr std::size_t width = 24;
            const auto full = static_cast<std::size_t>(static_cast<double>(width) * std::min(done / all, 1.0));
            const std::string bar = std::string(full, '#') + std::string(width - full, '.');
            std::printf("\r[%s] %4.1f of %.0f s  %s\033[K", bar.c_str(), done, all, text.c_str());
        } else if (done >= next_) {
            std::printf("%4.1f of %.0f s: %s\n", done, all, text.c_str());
            next_ += 1;
        }
        std::fflush(stdout);
    }
    ~progress() {
        if (terminal_) { std::printf("\r\033[K"); }
    }

private:
    bool terminal_ = ::isatty(STDOUT_FILENO) != 0;
    double next_ = 1;
};

/// Says for each queue where its messages are, and for each sum whether it holds; remembers whether all did.
class books {
public:
    books() { std::printf("\n%-12s %8s   %8s   %6s   %8s   %6s   %s\n", "queue", "sent", "acked", "dead", "dropped", "left", "adds up"); }

    void queue(const char* name, const mailroom::stats& s) {
        const std::uint64_t left = s.ready + s.in_flight + s.parked;
        const bool holds = s.sent == s.acked + s.dead + s.dropped + left;
        std::printf("  %-10s %8ju = %8ju + %6ju + %8ju + %6ju   %s\n", name, std::uintmax_t(s.sent), std::uintmax_t(s.acked), std::uintmax_t(s.dead),
                    std::uintmax_t(s.dropped), std::uintmax_t(left), holds ? "yes" : "NO");
        good_ = good_ && holds;
    }
    void equal(const char* what, std::uint64_t left, std::uint64_t right) {
        std::printf("  %-46s %6ju = %6ju   %s\n", what, std::uintmax_t(left), std::uintmax_t(right), left == right ? "yes" : "NO");
        good_ = good_ && left == right;
    }

    bool add_up() const { return good_; }

private:
    bool good_ = true;
};

} // namespace report
