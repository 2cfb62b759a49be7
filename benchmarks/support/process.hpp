// What this process takes: memory, threads, and what it hands to the disk.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

#if defined(__GLIBC__)
# include <malloc.h>
#endif
#if defined(__linux__)
# include <sys/stat.h>
# include <sys/sysmacros.h>
#endif

namespace bench {

#if defined(__GLIBC__)
/// Bytes the allocator has handed out, its own overhead included.
inline double allocated() {
    const auto info = mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
}
inline void give_back() { malloc_trim(0); }
#else
inline double allocated() { return 0; }
inline void give_back() {}
#endif

/// Bytes of the pages it has.
inline double resident() {
    std::ifstream in("/proc/self/statm");
    double all = 0, here = 0;
    in >> all >> here;
    return here * 4096;
}

inline double threads_running() {
    double n = 0;
    for (auto at = std::filesystem::directory_iterator("/proc/self/task"); at != std::filesystem::directory_iterator(); ++at) { ++n; }
    return n;
}

/// Bytes written (Linux).
struct written {
    double to_system = 0; // by this process, with calls that write
    double to_disk = 0;   // by all processes, to the block device below `directory`: pages, and what the file system keeps for itself

    static written now(const std::filesystem::path& directory) {
        written w;
        std::ifstream io("/proc/self/io");
        std::string key;
        for (double value = 0; io >> key >> value;) {
            if (key == "wchar:") { w.to_system = value; }
        }
#if defined(__linux__)
        struct stat status {};
        if (::stat(directory.c_str(), &status) == 0) {
            std::ifstream in("/sys/dev/block/" + std::to_string(major(status.st_dev)) + ':' + std::to_string(minor(status.st_dev)) + "/stat");
            double field[7] = {};
            for (double& f : field) { in >> f; }
            w.to_disk = field[6] * 512;
        }
#endif
        return w;
    }
    written since(const written& before) const { return {to_system - before.to_system, to_disk - before.to_disk}; }
};

} // namespace bench
