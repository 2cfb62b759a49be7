// A directory for an example: the one named on the command line, which has to be new or empty, and stays; otherwise a new one where the system
// keeps temporary files, which goes with the object.
#pragma once

#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

#include <stdlib.h>

namespace scratch {

class directory {
public:
    /// Throws std::runtime_error (std::system_error, where none can be made).
    directory(int argc, char** argv) {
        if (argc > 1) {
            path_ = argv[1];
            std::filesystem::create_directories(path_);
            if (!std::filesystem::is_empty(path_)) {
                throw std::runtime_error("'" + path_.string() + "' is not empty; the example wants a directory of its own");
            }
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
