// The disk under the benchmarks of the journal: directories that are gone afterwards, a file that was written before, and the canary.
//
// Everything lies below MAILROOM_BENCH_DIRECTORY, or the current directory: which disk is measured is for the user to say.
#pragma once

#include "machine.hpp"
#include "results.hpp"
#include "statistics.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <chrono>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace bench {

inline std::filesystem::path bench_directory() {
    const char* const wanted = std::getenv("MAILROOM_BENCH_DIRECTORY");
    return wanted != nullptr && *wanted != '\0' ? std::filesystem::path(wanted) : std::filesystem::current_path();
}

/// A directory of its own, removed with all that is in it.
class scratch {
public:
    scratch() {
        static std::atomic<unsigned> number{0};
        path_ = bench_directory() / ("mailroom-bench-" + std::to_string(::getpid()) + "-" + std::to_string(number.fetch_add(1)));
        std::filesystem::create_directories(path_);
    }
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;
    ~scratch() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::filesystem::path& path() const noexcept { return path_; }
    std::string operator/(const char* name) const { return (path_ / name).string(); }

private:
    std::filesystem::path path_;
};

[[noreturn]] inline void give_up_errno(const char* what) { give_up(std::string(what) + ": " + std::strerror(errno)); }

/// A file, by the system's calls and nothing else.
class raw_file {
public:
    /// A new one, with `zeros` bytes that were written and synced.
    raw_file(const std::string& path, std::size_t zeros) : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
        if (descriptor_ < 0) { give_up_errno("cannot make a file"); }
        const std::vector<char> nothing(std::size_t{1} << 20);
        for (std::size_t at = 0; at < zeros; at += nothing.size()) { write(nothing.data(), std::min(nothing.size(), zeros - at), at); }
        if (::fsync(descriptor_) != 0) { give_up_errno("fsync"); }
    }
    /// One that is there.
    explicit raw_file(const std::string& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
        if (descriptor_ < 0) { give_up_errno("cannot open a file"); }
    }
    raw_file(const raw_file&) = delete;
    raw_file& operator=(const raw_file&) = delete;
    ~raw_file() { ::close(descriptor_); }

    void write(const void* from, std::size_t n, std::size_t at) {
        if (::pwrite(descriptor_, from, n, static_cast<off_t>(at)) != static_cast<ssize_t>(n)) { give_up_errno("pwrite"); }
    }
    void sync() {
        if (::fdatasync(descriptor_) != 0) { give_up_errno("fdatasync"); }
    }
    /// The next bytes; 0 at the end.
    std::size_t read(void* to, std::size_t n) {
        const ssize_t got = ::read(descriptor_, to, n);
        if (got < 0) { give_up_errno("read"); }
        return static_cast<std::size_t>(got);
    }
    /// What is in the page cache of it is dropped.
    void forget() {
        static_cast<void>(::fdatasync(descriptor_));
        static_cast<void>(::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED));
    }

private:
    int descriptor_;
};

/// What others have left to be written is written now, not while somebody is measured.
inline void settle_disk() {
#if defined(__linux__)
    const int d = ::open(bench_directory().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d >= 0) {
        static_cast<void>(::syncfs(d));
        ::close(d);
    }
#else
    ::sync();
#endif
}

/// Microseconds for one block to reach a file that was written before: the median of so many. Everything that waits for the disk changes with it.
inline double disk_canary_us(std::size_t times = 100) {
    static scratch where;
    static raw_file file(where / "canary", std::size_t{1} << 20);
    constexpr std::size_t block = 4096;
    const std::vector<char> bytes(block, 'x');
    std::vector<double> each;
    settle_disk();
    for (std::size_t i = 0; i < times; ++i) {
        const auto start = clock::now();
        file.write(bytes.data(), block, i % 256 * block);
        file.sync();
        each.push_back(seconds(clock::now() - start) * 1e6);
    }
    return percentile(each, 0.5);
}

/// Where others use the machine too: waits until the disk answers as quickly as it can, and says whether it did not when it was asked. What
/// needs the disk takes tens of times as long while they compile, and a figure from then says nothing.
class quiet_disk {
public:
    explicit quiet_disk(double patience_seconds) : left_(patience_seconds) {}
    /// True: what was measured just before was disturbed.
    bool was_disturbed() {
        if (left_ <= 0 || is_quiet()) { return false; }
        const auto start = clock::now();
        const auto waited = [start] { return seconds(clock::now() - start); };
        while (waited() < left_ && !is_quiet()) { std::this_thread::sleep_for(std::chrono::milliseconds(200)); }
        left_ -= waited();
        return left_ > 0;
    }

private:
    bool is_quiet() {
        const double now = disk_canary_us(20);
        least_ = std::min(least_, now);
        return now < 2.5 * least_;
    }
    double left_;
    double least_ = 250;
};

} // namespace bench
