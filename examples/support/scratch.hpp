// A directory for an example: the one named on the command line, which stays; otherwise a new one where the system keeps temporary files,
// which goes with the object.
#pragma once

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

#include <stdlib.h>

namespace scratch {

class directory {
public:
    /// Throws std::system_error where none can be made.
    directory(int argc, char** argv) {
        if (argc > 1) {
            path_ = argv[1];
            std::filesystem::create_directories(path_);
            return;
        }
        std::string pattern = (std::filesystem::temp_directory_path() / "mailroom-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) { throw std::system_error(errno, std::generic_category(), pattern); }
        path_ = pattern;
        is_ours_ = true;
    }
    directory(const directory&) = delete;
    directory& operator=(const directory&) = delete;
    ~directory() {
        std::error_code ignored;
        if (is_ours_) { std::filesystem::remove_all(path_, ignored); }
    }

    const std::filesystem::path& path() const noexcept { return path_; }

private:
    std::filesystem::path path_;
    bool is_ours_ = false;
};

} // namespace scratch
