// What the benchmarks run on: its description, pinning threads to its cores, and the canary.
//
// The canary is the round trip of one cache line between the two cores the pinned benchmarks use. On virtual machines it may change within
// minutes, and everything that passes messages between cores changes with it: figures taken under different canaries do not compare.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
# include <sched.h>
# include <sys/utsname.h>
#endif

namespace bench {

using clock = std::chrono::steady_clock;

inline double seconds(clock::duration d) { return std::chrono::duration<double>(d).count(); }

/// Where a thread may run.
enum class place { anywhere, first_core, second_core };

#if defined(__linux__)
inline const cpu_set_t& allowed_cores() {
    static const cpu_set_t allowed = [] {
        cpu_set_t set;
        CPU_ZERO(&set);
        sched_getaffinity(0, sizeof set, &set);
        return set;
    }();
    return allowed;
}
#endif

/// The cores this process may use.
inline std::vector<int> cores() {
    std::vector<int> all;
#if defined(__linux__)
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(static_cast<unsigned>(i), &allowed_cores())) { all.push_back(i); }
    }
#endif
    if (all.empty()) { all.push_back(0); }
    return all;
}

/// Puts the calling thread there. The two cores are the first and the last of those allowed.
inline void stand_at(place where) {
#if defined(__linux__)
    cpu_set_t set = allowed_cores();
    if (where != place::anywhere) {
        static const std::vector<int> all = cores();
        CPU_ZERO(&set);
        CPU_SET(static_cast<unsigned>(where == place::first_core ? all.front() : all.back()), &set);
    }
    sched_setaffinity(0, sizeof set, &set);
#else
    static_cast<void>(where);
#endif
}

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

/// Nanoseconds for a cache line to go to the other core and back.
inline double canary_ns() {
    if (cores().size() < 2) { return 0; }
    constexpr std::uint32_t trips = 20'000;
    struct alignas(128) shared_line {
        std::atomic<std::uint32_t> word{0};
    } line;
    std::atomic<bool> there{false};
    std::thread other([&] {
        stand_at(place::second_core);
        there.store(true);
        for (std::uint32_t i = 0; i < trips; ++i) {
            while (line.word.load(std::memory_order_acquire) != 2 * i + 1) { pause(); }
            line.word.store(2 * i + 2, std::memory_order_release);
        }
    });
    stand_at(place::first_core);
    while (!there.load()) { std::this_thread::yield(); }
    const auto start = clock::now();
    for (std::uint32_t i = 0; i < trips; ++i) {
        line.word.store(2 * i + 1, std::memory_order_release);
        while (line.word.load(std::memory_order_acquire) != 2 * i + 2) { pause(); }
    }
    const auto end = clock::now();
    other.join();
    stand_at(place::anywhere);
    return seconds(end - start) * 1e9 / trips;
}

inline std::string after_colon(const char* file, const std::string& key) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const auto colon = line.find(':');
        if (line.starts_with(key) && colon != std::string::npos) {
            const auto from = line.find_first_not_of(" \t", colon + 1);
            return from == std::string::npos ? std::string() : line.substr(from);
        }
    }
    return {};
}

/// One line: processor, cores, memory, system, compiler.
inline std::string machine() {
    std::string text = after_colon("/proc/cpuinfo", "model name");
    if (text.empty()) { text = "unknown processor"; }
    const bool is_virtual = after_colon("/proc/cpuinfo", "flags").find(" hypervisor ") != std::string::npos;
    text += ", family " + after_colon("/proc/cpuinfo", "cpu family") + " model " + after_colon("/proc/cpuinfo", "model\t") + ", " +
            std::to_string(cores().size()) + (is_virtual ? " virtual cores" : " cores");
#if defined(__linux__)
    utsname system{};
    if (uname(&system) == 0) { text += std::string(", ") + system.sysname + " " + system.release; }
#endif
#if defined(__clang__)
    text += ", clang " __clang_version__;
#elif defined(__GNUC__)
    text += ", g++ " __VERSION__;
#endif
    return text;
}

/// How busy the machine is already: the load of the last minute.
inline double load_average() {
    std::ifstream in("/proc/loadavg");
    double load = 0;
    in >> load;
    return load;
}

} // namespace bench
