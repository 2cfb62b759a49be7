// A real disk that is full, and a real sync that fails: small file systems of their own, where the environment allows to mount one.
#include <mailroom/journal.hpp>

#include "support/instances.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <sys/mount.h>
#include <unistd.h>

using mailroom::errc;

namespace {

/// A directory with a file system of its own, gone with this.
class mounted {
public:
    explicit mounted(const std::string& name)
        : path_((std::filesystem::temp_directory_path() / (name + std::to_string(::getpid()))).string()) {
        std::filesystem::create_directories(path_);
    }
    mounted(const mounted&) = delete;
    mounted& operator=(const mounted&) = delete;
    ~mounted() {
        if (is_mounted_) { ::umount2(path_.c_str(), MNT_DETACH); }
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    bool tmpfs(const char* size) { return is_mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, size) == 0; }
    bool loop(const std::string& image) {
        return is_mounted_ = std::system(("mount -o loop '" + image + "' '" + path_ + "' 2>/dev/null").c_str()) == 0; // NOLINT
    }
    const std::string& path() const { return path_; }

private:
    std::string path_;
    bool is_mounted_ = false;
};

std::string body(int i) { return std::to_string(i) + std::string(4000, 'x'); }
int number(const std::string& s) { return std::stoi(s); }

} // namespace

TEST_CASE("journal: a real disk that is full refuses sends, and takes them again once what it holds is settled") {
    mounted disk("mailroom_full_");
    if (!disk.tmpfs("size=1m")) {
        MESSAGE("skipped: no file system can be mounted here");
        return;
    }
    mailroom::journal journal(disk.path() + "/journal", {.segment_bytes = 64 << 10});
    mailroom::queue<std::string, mailroom::journal> queue(journal, "queue");
    int sent = 0;
    errc refused{};
    while (refused == errc{} && sent < 1000) {
        try {
            queue.send(body(sent));
            ++sent;
        } catch (const mailroom::error& e) { refused = e.kind(); }
    }
    CHECK(refused == errc::io);
    CHECK(sent > 100);
    for (int i = 0; i < sent; ++i) {
        auto d = queue.try_receive();
        REQUIRE(d);
        CHECK(number(**d) == i);
        d->ack();
    }
    CHECK_FALSE(queue.try_receive());
    int failures = 0, more = 0;
    while (more < 50 && failures < 10) {
        try {
            queue.send(body(sent + more));
            ++more;
        } catch (const mailroom::error&) { ++failures; }
    }
    CHECK(more == 50);
    CHECK(failures <= 3);
    for (int i = 0; i < more; ++i) {
        const auto m = queue.try_pop();
        REQUIRE(m);
        CHECK(number(m->body()) == sent + i);
    }
}

TEST_CASE("journal: a real sync that fails is sticky, and what was synced stays") {
    mounted small("mailroom_small_"), disk("mailroom_sync_");
    const std::string image = small.path() + "/image";
    // The file system believes in 64 MiB, what it stands on has 6.
    const std::string make = "truncate -s 64M '" + image + "' && mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1 '" + image + "' >/dev/null 2>&1";
    if (!small.tmpfs("size=6m") || std::system(make.c_str()) != 0 || !disk.loop(image)) { // NOLINT
        MESSAGE("skipped: no file system can be mounted on a loop device here");
        return;
    }
    int sent = 0;
    {
        mailroom::journal journal(disk.path() + "/journal", {.segment_bytes = 1 << 20});
        mailroom::queue<std::string, mailroom::journal> queue(journal, "queue");
        std::string why;
        while (why.empty() && sent < 16'000) {
            try {
                queue.send(body(sent));
                ++sent;
            } catch (const mailroom::error& e) {
                CHECK(e.kind() == errc::io);
                why = e.what();
            }
        }
        INFO(why);
        CHECK_FALSE(why.empty());
        CHECK(sent > 100);
        if (why.find("sync") == std::string::npos) {
            MESSAGE("the write was refused, not the sync");
        } else {
            for (int i = 0; i < 3; ++i) { CHECK_THROWS_AS(queue.send(body(sent)), mailroom::error); }
        }
        for (int i = 0; i < sent; ++i) {
            const auto d = queue.try_receive();
            REQUIRE(d);
            CHECK(number(**d) == i);
        }
        CHECK_FALSE(queue.try_receive());
    }
}
