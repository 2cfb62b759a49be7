#include <mailroom/journal/posix_files.hpp>

#include "support/directory.hpp"
#include "support/files_contract.hpp"
#include "support/process.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using mailroom::posix_files;
using support::make_file;
using support::open_mode;

namespace {

const std::error_code ok;

// Another process: it answers with `act`, and goes on until it is killed.
class neighbour {
public:
    explicit neighbour(const std::function<int()>& act)
        : process_([&](int to) {
              support::say(to, act());
              for (;;) { ::pause(); }
          }) {
        REQUIRE(process_.hear(answer_));
    }
    int answer() const { return answer_; }
    void kill() {
        process_.kill();
        process_.wait();
    }

private:
    support::process process_;
    int answer_ = -1;
};

// What `act` answers in another process.
int answer_of(const std::function<int()>& act) { return neighbour(act).answer(); }

// 0: locked. 1: somebody else has it. 2: something else.
int try_lock(const posix_files& files, const std::string& path, posix_files::file& f) {
    if (files.open(path, open_mode::write, f)) { return 2; }
    const std::error_code e = files.lock(f);
    return !e ? 0 : e == std::errc::device_or_resource_busy ? 1 : 2;
}

std::vector<int> open_descriptors() {
    std::vector<int> found;
    for (int d = 0; d < 1024; ++d) {
        if (::fcntl(d, F_GETFD) >= 0) { found.push_back(d); }
    }
    return found;
}

} // namespace

TEST_CASE("posix_files: what every disk promises") {
    const support::directory dir;
    support::check_files_contract(posix_files(), dir.path().string());
}

TEST_CASE("posix_files: no descriptor is left open, and none is inherited by a program that is started") {
    const support::directory dir;
    const posix_files files;
    const std::vector<int> before = open_descriptors();
    {
        const posix_files::file created = make_file(files, dir / "a");
        posix_files::file read, written;
        CHECK(files.open(dir / "a", open_mode::read, read) == ok);
        CHECK(files.open(dir / "a", open_mode::write, written) == ok);
        const std::vector<int> now = open_descriptors();
        CHECK(now.size() == before.size() + 3);
        for (const int d : now) {
            const bool is_ours = std::find(before.begin(), before.end(), d) == before.end();
            if (is_ours) { CHECK((::fcntl(d, F_GETFD) & FD_CLOEXEC) != 0); }
        }
        CHECK(files.open(dir / "a", open_mode::read, read) == ok); // instead of the one it was
        CHECK(open_descriptors().size() == before.size() + 3);
        CHECK(files.close(written) == ok);
        CHECK(open_descriptors().size() == before.size() + 2);
    }
    std::vector<std::string> names;
    std::string id;
    CHECK(files.list(dir.path().string(), names) == ok);
    CHECK(files.sync_directory(dir.path().string()) == ok);
    CHECK(files.identity(dir.path().string(), id) == ok);
    CHECK(files.list(dir / "a", names) == std::errc::not_a_directory);
    CHECK(files.sync_directory(dir / "a") == std::errc::not_a_directory);
    CHECK(open_descriptors() == before);
}

TEST_CASE("posix_files: the lock keeps another process out, until its owner closes or is killed") {
    const support::directory dir;
    const posix_files files;
    make_file(files, dir / "LOCK");
    posix_files::file f;
    const auto try_it = [&] {
        posix_files::file other;
        return try_lock(files, dir / "LOCK", other);
    };

    neighbour owner([&] { return try_lock(files, dir / "LOCK", f); });
    REQUIRE(owner.answer() == 0);
    CHECK(try_it() == 1);
    owner.kill();
    CHECK(try_lock(files, dir / "LOCK", f) == 0);
    CHECK(answer_of(try_it) == 1);
    CHECK(support::write_all(files, f, 0, "the lock covers what is written later") == ok);
    CHECK(answer_of(try_it) == 1);
    CHECK(files.close(f) == ok);
    CHECK(answer_of(try_it) == 0);
}

TEST_CASE("posix_files: a forked child does not keep the lock of its killed parent") {
    const support::directory dir;
    const posix_files files;
    make_file(files, dir / "LOCK");
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    posix_files::file f;
    neighbour parent([&] {
        if (const int answer = try_lock(files, dir / "LOCK", f)) { return answer; }
        const pid_t child = ::fork();
        if (child == 0) { // lives on with the open file until the test is over
            ::close(ends[1]);
            char x = 0;
            while (::read(ends[0], &x, 1) > 0) {}
            ::_exit(0);
        }
        return child > 0 ? 0 : 2;
    });
    REQUIRE(parent.answer() == 0);
    CHECK(try_lock(files, dir / "LOCK", f) == 1);
    parent.kill();
    CHECK(try_lock(files, dir / "LOCK", f) == 0);
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST_CASE("posix_files: a directory that must not be written to says so") {
    const support::directory dir;
    const posix_files files;
    REQUIRE(files.make_directory(dir / "mine") == ok);
    REQUIRE(::chmod(dir.path().string().c_str(), 0755) == 0);
    REQUIRE(::chmod((dir / "mine").c_str(), 0555) == 0);
    // The rights of a file system mean nothing to root: somebody else asks.
    const int answer = answer_of([&] {
        if (::geteuid() == 0 && (::setegid(65534) != 0 || ::seteuid(65534) != 0)) { return 77; }
        posix_files::file f;
        if (files.is_writable(dir / "mine") != std::errc::permission_denied) { return 1; }
        if (files.open(dir / "mine/file", open_mode::create, f) != std::errc::permission_denied) { return 2; }
        return 0;
    });
    if (answer != 77) { CHECK(answer == 0); }
    CHECK(::chmod((dir / "mine").c_str(), 0755) == 0);
}

TEST_CASE("posix_files: links lead to what they name, and only files are listed") {
    const support::directory dir;
    const posix_files files;
    make_file(files, dir / "file", "text");
    REQUIRE(files.make_directory(dir / "below") == ok);
    REQUIRE(::symlink("below", (dir / "link").c_str()) == 0);
    REQUIRE(::symlink("file", (dir / "to_file").c_str()) == 0);
    REQUIRE(::symlink("nowhere", (dir / "dangling").c_str()) == 0);
    REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
    std::vector<std::string> names;
    CHECK(files.list(dir.path().string(), names) == ok);
    CHECK(names == std::vector<std::string>{"file", "to_file"});
    CHECK(files.make_directory(dir / "link") == ok);
    CHECK(files.make_directory(dir / "to_file") == std::errc::not_a_directory);
    CHECK(bool(files.make_directory(dir / "dangling")));
    std::string below, link;
    CHECK(files.identity(dir / "below", below) == ok);
    CHECK(files.identity(dir / "link", link) == ok);
    CHECK(below == link);
}

TEST_CASE("posix_files: errors of the system come through") {
    const support::directory dir;
    const posix_files files;
    posix_files::file f;
    SUBCASE("a full disk") {
        if (::access("/dev/full", W_OK) != 0) { return; }
        CHECK(files.open("/dev/full", open_mode::write, f) == ok);
        CHECK(support::write_all(files, f, 0, "x") == std::errc::no_space_on_device);
    }
    SUBCASE("a limit on the size of files") {
        CHECK(answer_of([&] {
                  ::signal(SIGXFSZ, SIG_IGN);
                  const rlimit limit{1000, 1000};
                  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) { return 1; }
                  f = make_file(files, dir / "a");
                  const std::string long_text(1500, 'x');
                  const std::span<const std::byte> part = support::bytes(long_text);
                  std::size_t written = 0;
                  if (files.write(f, 0, {&part, 1}, written) || written != 1000) { return 2; } // short, not an error
                  return files.write(f, 1000, {&part, 1}, written) == std::errc::file_too_large && written == 0 ? 0 : 3;
              }) == 0);
    }
    SUBCASE("no descriptors left") {
        CHECK(answer_of([&] {
                  const rlimit limit{0, 0};
                  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) { return 1; }
                  std::vector<std::string> names;
                  if (files.open(dir / "a", open_mode::create, f) != std::errc::too_many_files_open) { return 2; }
                  if (files.list(dir.path().string(), names) != std::errc::too_many_files_open) { return 3; }
                  return files.sync_directory(dir.path().string()) == std::errc::too_many_files_open ? 0 : 4;
              }) == 0);
        CHECK(files.open(dir / "a", open_mode::read, f) == std::errc::no_such_file_or_directory);
    }
    SUBCASE("places that no file has") {
        f = make_file(files, dir / "a");
        CHECK(support::write_all(files, f, std::uint64_t{1} << 63, "x") == std::errc::file_too_large);
        CHECK(files.truncate(f, std::uint64_t{1} << 63) == std::errc::file_too_large);
    }
    SUBCASE("a name that is too long") { CHECK(files.open(dir / std::string(300, 'x'), open_mode::create, f) == std::errc::filename_too_long); }
}

#if defined(__linux__)
TEST_CASE("posix_files: to begin a sync changes nothing that anybody sees") {
    const support::directory dir;
    const posix_files disk;
    posix_files::file f;
    REQUIRE(disk.open(dir / "f", open_mode::create, f) == ok);
    const std::vector<std::byte> bytes(100'000, std::byte{7});
    const std::span<const std::byte> all(bytes);
    std::size_t n = 0;
    REQUIRE(disk.write(f, 0, {&all, 1}, n) == ok);
    disk.start_sync(f, 0, n);
    disk.start_sync(f, 50'000, 1'000'000);                            // beyond the end
    disk.start_sync(f, 0, std::numeric_limits<std::uint64_t>::max()); // beyond what the system can say
    disk.start_sync(f, std::numeric_limits<std::uint64_t>::max(), 1);
    std::uint64_t size = 0;
    CHECK(disk.size(f, size) == ok);
    CHECK(size == bytes.size());
    std::vector<std::byte> back(bytes.size());
    CHECK(disk.read(f, 0, back, n) == ok);
    CHECK(n == bytes.size());
    CHECK(back == bytes);
    CHECK(disk.sync(f) == ok);
}
#endif
