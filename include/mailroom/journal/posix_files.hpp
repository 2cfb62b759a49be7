// The files of a POSIX system, for the journal. The only header of the journal that needs those of the system; Linux first, and
// elsewhere what POSIX.1-2008 has. What each call does is said in journal/files.hpp; errors are errno, in the generic category.
// Cost: the system calls named below, no allocation but in `list` and `identity`. Threads: as journal/files.hpp says.
//
// Two things to know about the lock, a record lock of fcntl: the system sees one owner in all handles of one process, so who must
// not open a directory twice in a process asks `identity` and keeps a list; and closing any handle on the locked file ends it.
#pragma once

#include <mailroom/journal/files.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace mailroom {

/// The files of this machine. Stateless: every copy and every object means the same disk.
class posix_files {
public:
    /// An open descriptor, or none.
    class file {
    public:
        file() = default;
        file(file&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
        file& operator=(file&& other) noexcept {
            file old(std::move(*this));
            descriptor_ = std::exchange(other.descriptor_, -1);
            return *this;
        }
        ~file() {
            if (is_open()) { ::close(descriptor_); }
        }

        [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }

    private:
        friend class posix_files;
        int descriptor_ = -1;
    };

    /// open(2). The rights of a new file are what the process leaves to others (umask).
    std::error_code open(const std::string& path, detail::open_mode mode, file& out) const noexcept {
        int flags = O_CLOEXEC | (mode == detail::open_mode::read ? O_RDONLY : O_RDWR);
        if (mode == detail::open_mode::create) { flags |= O_CREAT | O_EXCL; }
        file opened;
        opened.descriptor_ = ::open(path.c_str(), flags, 0666);
        if (!opened.is_open()) { return last_error(); }
        out = std::move(opened);
        return {};
    }

    /// close(2). Interrupted counts as closed: the descriptor is gone, and its number may be another file's by now.
    std::error_code close(file& f) const noexcept {
        if (!f.is_open()) { return {}; }
        const int result = ::close(std::exchange(f.descriptor_, -1));
        return result == 0 || errno == EINTR ? std::error_code() : last_error();
    }

    /// pwritev(2), of as many parts as the system takes at once.
    std::error_code write(file& f, std::uint64_t at, std::span<const std::span<const std::byte>> parts, std::size_t& written) const noexcept {
        written = 0;
        if (at > last_place) { return std::make_error_code(std::errc::file_too_large); }
        std::array<iovec, parts_at_once> pieces;
        std::size_t count = 0;
        std::size_t room = static_cast<std::size_t>(std::numeric_limits<ssize_t>::max()); // more at once is an error
        for (const std::span<const std::byte> part : parts) {
            if (part.empty()) { continue; } // or a call of nothing but empty parts would write nothing, for ever
            if (count == pieces.size() || room == 0) { break; }
            const std::size_t length = std::min(part.size(), room);
            pieces[count++] = {const_cast<std::byte*>(part.data()), length}; // which pwritev does not write to
            room -= length;
        }
#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
        const ssize_t result = ::pwritev(f.descriptor_, pieces.data(), static_cast<int>(count), static_cast<off_t>(at));
#else
        const ssize_t result = count == 0 ? 0 : ::pwrite(f.descriptor_, pieces[0].iov_base, pieces[0].iov_len, static_cast<off_t>(at));
#endif
        if (result < 0) { return last_error(); }
        written = static_cast<std::size_t>(result);
        return {};
    }

    /// pread(2).
    std::error_code read(const file& f, std::uint64_t at, std::span<std::byte> to, std::size_t& got) const noexcept {
        got = 0;
        if (at > last_place) { return f.is_open() ? std::error_code() : std::make_error_code(std::errc::bad_file_descriptor); }
        const ssize_t result = ::pread(f.descriptor_, to.data(), to.size(), static_cast<off_t>(at));
        if (result < 0) { return last_error(); }
        got = static_cast<std::size_t>(result);
        return {};
    }

    /// fdatasync(2); fsync(2) where there is none.
    std::error_code sync(file& f) const noexcept {
#if defined(_POSIX_SYNCHRONIZED_IO) && _POSIX_SYNCHRONIZED_IO > 0 && !defined(__APPLE__)
        return answer(::fdatasync(f.descriptor_));
#else
        return sync_all(f);
#endif
    }

#if defined(__linux__) && defined(SYNC_FILE_RANGE_WRITE)
    /// sync_file_range(2), without waiting.
    void start_sync(file& f, std::uint64_t at, std::uint64_t bytes) const noexcept {
        if (at > last_place || bytes > last_place - at) { return; }
        ::sync_file_range(f.descriptor_, static_cast<off_t>(at), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
    }
#endif

    /// fsync(2); on macOS F_FULLFSYNC, for there fsync leaves the data in the memory of the drive.
    std::error_code sync_all(file& f) const noexcept { return answer(sync_descriptor(f.descriptor_)); }

    /// fstat(2).
    std::error_code size(const file& f, std::uint64_t& bytes) const noexcept {
        struct stat status {};
        if (::fstat(f.descriptor_, &status) != 0) { return last_error(); }
        bytes = static_cast<std::uint64_t>(status.st_size);
        return {};
    }

    /// ftruncate(2).
    std::error_code truncate(file& f, std::uint64_t bytes) const noexcept {
        if (bytes > last_place) { return std::make_error_code(std::errc::file_too_large); }
        return answer(::ftruncate(f.descriptor_, static_cast<off_t>(bytes)));
    }

    /// fcntl(2), F_SETLK: not flock(2), which a forked child would hold on to after its parent was killed.
    std::error_code lock(file& f) const noexcept {
        struct flock all {};
        all.l_type = F_WRLCK;
        all.l_whence = SEEK_SET; // from 0, for 0 bytes: up to the end, wherever that is
        if (::fcntl(f.descriptor_, F_SETLK, &all) == 0) { return {}; }
        return errno == EAGAIN || errno == EACCES ? std::make_error_code(std::errc::device_or_resource_busy) : last_error();
    }

    /// rename(2).
    std::error_code rename(const std::string& from, const std::string& to) const noexcept { return answer(::rename(from.c_str(), to.c_str())); }

    /// unlink(2).
    std::error_code remove(const std::string& path) const noexcept { return answer(::unlink(path.c_str())); }

    /// readdir(3), and fstatat(2) for each name. May throw std::bad_alloc.
    std::error_code list(const std::string& directory, std::vector<std::string>& names) const {
        names.clear();
        file opened;
        opened.descriptor_ = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (!opened.is_open()) { return last_error(); }
        const std::unique_ptr<DIR, closes_directory> reading(::fdopendir(opened.descriptor_));
        if (reading == nullptr) { return last_error(); }
        opened.descriptor_ = -1; // it is the stream's now
        for (;;) {
            errno = 0;
            const dirent* const entry = ::readdir(reading.get());
            if (entry == nullptr) { break; }
            struct stat status {};
            if (::fstatat(::dirfd(reading.get()), entry->d_name, &status, 0) == 0 && S_ISREG(status.st_mode)) { names.emplace_back(entry->d_name); }
        }
        if (errno != 0) { return last_error(); }
        std::sort(names.begin(), names.end());
        return {};
    }

    /// mkdir(2). The rights are what the process leaves to others (umask).
    std::error_code make_directory(const std::string& path) const noexcept {
        if (::mkdir(path.c_str(), 0777) == 0) { return {}; }
        if (errno != EEXIST) { return last_error(); }
        struct stat status {};
        if (::stat(path.c_str(), &status) != 0) { return last_error(); }
        return S_ISDIR(status.st_mode) ? std::error_code() : std::make_error_code(std::errc::not_a_directory);
    }

    /// open(2), fsync(2), close(2).
    std::error_code sync_directory(const std::string& path) const noexcept {
        file opened;
        opened.descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (!opened.is_open()) { return last_error(); }
        const int result = sync_descriptor(opened.descriptor_);
        // Some network file systems cannot sync a directory and say so like this; they have nothing to sync either.
        return result == 0 || errno == EINVAL ? std::error_code() : last_error();
    }

    /// faccessat(2), with the rights this process has now.
    std::error_code is_writable(const std::string& directory) const noexcept {
        struct stat status {};
        if (::stat(directory.c_str(), &status) != 0) { return last_error(); }
        if (!S_ISDIR(status.st_mode)) { return std::make_error_code(std::errc::not_a_directory); }
        return answer(::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS));
    }

    /// stat(2): "device:inode". May throw std::bad_alloc.
    std::error_code identity(const std::string& directory, std::string& out) const {
        struct stat status {};
        if (::stat(directory.c_str(), &status) != 0) { return last_error(); }
        if (!S_ISDIR(status.st_mode)) { return std::make_error_code(std::errc::not_a_directory); }
        out = std::to_string(status.st_dev) + ':' + std::to_string(status.st_ino);
        return {};
    }

private:
    struct closes_directory {
        void operator()(DIR* stream) const noexcept { ::closedir(stream); }
    };

#if defined(IOV_MAX)
    static constexpr std::size_t parts_at_once = IOV_MAX < 1024 ? IOV_MAX : 1024; // 16 KiB of stack
#else
    static constexpr std::size_t parts_at_once = 16; // the least that POSIX allows
#endif
    static constexpr auto last_place = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

    static std::error_code last_error() noexcept { return {errno, std::generic_category()}; }
    static std::error_code answer(int result) noexcept { return result == 0 ? std::error_code() : last_error(); }
    static int sync_descriptor(int descriptor) noexcept {
#if defined(__APPLE__)
        if (::fcntl(descriptor, F_FULLFSYNC) == 0) { return 0; }
#endif
        return ::fsync(descriptor);
    }
};

static_assert(detail::files_policy<posix_files>);

} // namespace mailroom
