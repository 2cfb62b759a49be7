// A directory of a test's own on the real disk, gone with it.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <system_error>

#include <stdlib.h>

namespace support {

class directory {
public:
    explicit directory(const std::filesystem::path& below = std::filesystem::temp_directory_path()) {
        std::string name = (below / "mailroom-test-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    directory(const directory&) = delete;
    directory& operator=(const directory&) = delete;
    ~directory() {
        std::error_code ignored;
        std::filesystem::permissions(path_, std::filesystem::perms::owner_all, ignored);
        std::filesystem::remove_all(path_, ignored);
    }
    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

private:
    std::filesystem::path path_;
};

} // namespace support
