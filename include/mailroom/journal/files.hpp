// What the journal asks of an operating system: the policy `Files`, as a concept. mailroom::posix_files is the real one,
// mailroom::testing::simulated_files one that crashes and fails on demand. No header of an operating system is needed here.
//
// A policy is a value; copies mean the same disk. Its calls are as thin as the system's: none retries, none logs, none throws but
// std::bad_alloc where it hands out strings. Each answers a std::error_code of the generic or the system category, empty where all
// went well; any may answer std::errc::interrupted, upon which nothing happened and the caller asks again.
// Threads: a policy may be used from any thread at once; so may one file by `read`, `write`, `size` and the syncs, but no call
// runs beside an open, a close or a move of the same file.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace mailroom::detail {

/// What a file is opened for.
enum class open_mode {
    read,   ///< to be read; it must exist
    write,  ///< to be read and written; it must exist
    create, ///< to be read and written; it must not exist (std::errc::file_exists)
};

/// An open file, or none: what a policy calls `file`. Closes in its destructor; an error of that close is nobody's.
template <class File>
concept file_handle = std::default_initializable<File> && std::movable<File> && !std::copyable<File> && requires(const File& file) {
    { file.is_open() }
    noexcept->std::same_as<bool>;
};

/// A disk, as the journal sees it. Paths are those of the system, '/' between their parts; lengths and places are in bytes.
///
/// Files
///   open(path, mode, out)       Opens a file; `out` is then that file, and what it was before is closed. Of a failed open, `out` stays.
///                               The new name of a created file is durable after `sync_directory`, not before. No child inherits it.
///   close(file)                 Closes it; whatever is answered, it is not open any more. One that is not open: nothing to do.
///   write(file, at, parts, written)
///                               Writes the parts, one after the other, from `at` on; `written` is how many bytes were: perhaps fewer than
///                               there are, but at least one unless there are none. 0 after an error, though some may have got through.
///                               The place between the old end and `at` reads as zeros. Visible to every read from then on, durable after
///                               a sync.
///   read(file, at, to, got)     Reads into `to`; `got` is how many bytes came: perhaps fewer than fit, 0 only at the end of the file.
///   sync(file)                  Makes durable what was written and cut before the call, and as much of the size as reading it needs. If it
///                               fails, no later success says anything about what was written before: the system may have dropped it.
///   sync_all(file)              The same, and all that is known about the file.
///   start_sync(file, at, bytes) Begins to make durable so many bytes from `at` on, and waits for nothing; promises nothing, answers nothing,
///                               noexcept. A policy may do without.
///   size(file, bytes)           Says how long the file is.
///   truncate(file, bytes)       Cuts the file, or makes it longer by zeros. Durable after a sync.
///   lock(file)                  Takes the whole file, opened for writing, against other processes, without waiting;
///                               std::errc::device_or_resource_busy while another has it. Ends when the file is closed, or any other
///                               handle of this process on the same file is, and with the process, however that ends; a forked child does
///                               not have it. Whether two handles of one process shut each other out is not said.
/// Names
///   rename(from, to)            Gives a file another name in the same directory, in one step: `to` is the old file or the new one at any
///                               moment, also after a power cut. Durable after `sync_directory`.
///   remove(path)                Takes the name of a file away. Durable after `sync_directory`.
///   list(directory, names)      Says what files are in it: bare names, sorted, no directories. May throw std::bad_alloc.
///   make_directory(path)        Makes one level. One that exists is fine; std::errc::not_a_directory if something else does.
///   sync_directory(path)        Makes durable which names are in the directory.
///   is_writable(directory)      Answers an empty code if files can be made and removed in it, else why not.
///   identity(directory, out)    Says something that is equal for two paths to one directory, and different for two directories that
///                               exist at the same time. May throw std::bad_alloc.
template <class Files>
concept files_policy = std::copyable<Files> && file_handle<typename Files::file> &&
    requires(const Files& files, typename Files::file& file, const typename Files::file& looked_at, const std::string& path, open_mode mode,
             std::uint64_t at, std::uint64_t& bytes, std::span<const std::span<const std::byte>> parts, std::span<std::byte> to, std::size_t& count,
             std::vector<std::string>& names, std::string& text) {
    { files.open(path, mode, file) }
    noexcept->std::same_as<std::error_code>;
    { files.close(file) }
    noexcept->std::same_as<std::error_code>;
    { files.write(file, at, parts, count) }
    noexcept->std::same_as<std::error_code>;
    { files.read(looked_at, at, to, count) }
    noexcept->std::same_as<std::error_code>;
    { files.sync(file) }
    noexcept->std::same_as<std::error_code>;
    { files.sync_all(file) }
    noexcept->std::same_as<std::error_code>;
    { files.size(looked_at, bytes) }
    noexcept->std::same_as<std::error_code>;
    { files.truncate(file, at) }
    noexcept->std::same_as<std::error_code>;
    { files.lock(file) }
    noexcept->std::same_as<std::error_code>;
    { files.rename(path, path) }
    noexcept->std::same_as<std::error_code>;
    { files.remove(path) }
    noexcept->std::same_as<std::error_code>;
    { files.list(path, names) } -> std::same_as<std::error_code>;
    { files.make_directory(path) }
    noexcept->std::same_as<std::error_code>;
    { files.sync_directory(path) }
    noexcept->std::same_as<std::error_code>;
    { files.is_writable(path) }
    noexcept->std::same_as<std::error_code>;
    { files.identity(path, text) } -> std::same_as<std::error_code>;
};

} // namespace mailroom::detail
