// segment: one file of a journal's commit stream, and the index that says where each message in it lies.
//
// A message is found by its stream and offset. Of the segment being written the places are kept in memory; of the others in a file beside it,
// "<first position>.idx", which is made again from the segment when it is missing or wrong: it is never trusted over the segment, for each
// record read is verified against its own place.
//
// A survivor segment is a file of its own, beside the stream: copies of the messages that somebody still wanted of segments that went. Its positions
// are from `survivors_from` on; where which message lies in it, only the engine knows.
//
// Threads: `add` and `seal` belong to whoever commits; reading may go on beside them for what was there before. A segment whose file is gone
// stays readable for those who have it open.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/journal/files.hpp>
#include <mailroom/journal/format.hpp>
#include <mailroom/journal/place_list.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mailroom::detail {

inline failure io_failure(std::string_view what, std::string_view path, const std::error_code& ec) {
    return {ec == std::errc::device_or_resource_busy ? errc::in_use : errc::io,
            std::string(what).append(" ").append(path).append(": ").append(ec.message())};
}

/// Writes all of `parts`, however often it takes.
template <class Files>
std::error_code write_all(const Files& files, typename Files::file& file, std::uint64_t at, std::span<const bytes_view> parts) noexcept {
    std::array<bytes_view, 16> left{};
    std::size_t n = std::min(parts.size(), left.size());
    std::copy_n(parts.begin(), n, left.begin());
    std::size_t from = 0;
    for (;;) {
        while (from < n && left[from].empty()) { ++from; }
        if (from == n) { return {}; }
        std::size_t written = 0;
        const std::error_code ec = files.write(file, at, std::span(left).subspan(from, n - from), written);
        if (ec == std::errc::interrupted) { continue; }
        if (ec) { return ec; }
        if (written == 0) { return std::make_error_code(std::errc::io_error); }
        at += written;
        for (; written != 0 && from < n; ++from) {
            const std::size_t some = std::min(written, left[from].size());
            left[from] = left[from].subspan(some);
            written -= some;
            if (!left[from].empty()) { break; }
        }
    }
}
/// Reads until `to` is full or the file ends; `got` says how much that was.
template <class Files>
std::error_code read_all(const Files& files, const typename Files::file& file, std::uint64_t at, std::span<std::byte> to, std::size_t& got) noexcept {
    for (got = 0; got < to.size();) {
        std::size_t some = 0;
        const std::error_code ec = files.read(file, at + got, to.subspan(got), some);
        if (ec == std::errc::interrupted) { continue; }
        if (ec) { return ec; }
        if (some == 0) { break; }
        got += some;
    }
    return {};
}
/// Asks again as long as the call was interrupted. Throws what the call throws: making a path takes memory.
template <class Call>
std::error_code until_done(Call call) {
    for (;;) {
        const std::error_code ec = call();
        if (ec != std::errc::interrupted) { return ec; }
    }
}
/// The whole of a file.
template <class Files>
std::error_code read_file(const Files& files, const std::string& path, std::vector<std::byte>& to) {
    typename Files::file file;
    std::uint64_t size = 0;
    std::error_code ec = until_done([&] { return files.open(path, open_mode::read, file); });
    if (!ec) { ec = until_done([&] { return files.size(file, size); }); }
    if (ec) { return ec; }
    to.resize(static_cast<std::size_t>(size));
    std::size_t got = 0;
    ec = read_all(files, file, 0, to, got);
    to.resize(got);
    return ec;
}

/// Messages of one stream with offsets in a row, in the order they lie in a segment.
struct run {
    std::uint32_t stream = 0;
    offset first = 0;
    std::uint32_t count = 0;
    std::uint64_t start = 0; // of its places among those of the segment
};

template <class Files>
class segment {
public:
    using file = typename Files::file;

    segment(std::string directory, std::uint64_t first) : directory_(std::move(directory)), first_(first), end_(first) {}

    std::uint64_t first() const noexcept { return first_; }
    /// The position after its last batch.
    std::uint64_t end() const noexcept { return end_; }
    void set_end(std::uint64_t end) noexcept { end_ = end; }
    bool holds_survivors() const noexcept { return first_ >= survivors_from; }
    std::string name() const { return file_name(first_, holds_survivors() ? ".srv" : ".log"); }
    std::string path() const { return directory_ + '/' + name(); }
    std::string index_path() const { return directory_ + '/' + file_name(first_, ".idx"); }
    std::uint64_t byte_of(std::uint64_t position) const noexcept { return segment_header::size + (position - first_); }
    bool sealed() const noexcept { return sealed_; }

    /// Its file, opened if it is not.
    result<std::shared_ptr<file>> open(const Files& files, open_mode mode) {
        const std::lock_guard lock(mutex_);
        if (file_ == nullptr || (mode == open_mode::write && !writable_)) {
            auto opened = std::make_shared<file>();
            if (const auto ec = until_done([&] { return files.open(path(), mode, *opened); })) { return io_failure("cannot open", path(), ec); }
            file_ = std::move(opened);
            writable_ = mode != open_mode::read;
        }
        return file_;
    }
    /// Who reads goes on; the next one opens it again.
    void close() noexcept {
        const std::lock_guard lock(mutex_);
        file_.reset();
        index_.reset();
    }

    // ------------------------------------------------------------------------------------------------------------------------- index

    /// How many messages were ever put here.
    std::uint64_t messages() const noexcept {
        std::uint64_t n = survivors_;
        for (const run& r : runs_) { n += r.count; }
        return n;
    }
    void add_survivors(std::uint64_t n) noexcept { survivors_ += n; }

    const std::vector<run>& runs() const noexcept { return runs_; }
    void set_runs(std::vector<run> runs) noexcept {
        runs_ = std::move(runs);
        sealed_ = true;
    }

    /// A message was written at `position`. Returns its run; `is_new` says whether that begins with it. May throw std::bad_alloc.
    std::size_t add(std::uint32_t stream, offset o, std::uint64_t position, bool& is_new) {
        const auto unit = static_cast<std::uint32_t>((position - first_) / alignment);
        const auto [at, fresh] = last_run_.try_emplace(stream, runs_.size());
        if (!fresh && runs_[at->second].first + runs_[at->second].count == o) {
            places_[at->second].push_back(unit);
            ++runs_[at->second].count;
            is_new = false;
        } else {
            places_.resize(runs_.size() + 1); // one that a failed try left behind is used now
            places_.back().push_back(unit);
            runs_.push_back({stream, o, 1, 0});
            at->second = runs_.size() - 1;
            is_new = true;
        }
        return at->second;
    }
    /// The same of messages that follow the last one of run `which`, as long as `next(position)` answers true. Returns how many. May throw std::bad_alloc.
    template <class Next>
    std::size_t extend(std::size_t which, Next next) {
        place_list& places = places_[which];
        const std::size_t before = places.size();
        struct counting { // also those before one for which there is no memory
            run& r;
            const place_list& places;
            const std::size_t before;
            ~counting() { r.count += static_cast<std::uint32_t>(places.size() - before); }
        } const count_later{runs_[which], places, before};
        for (std::uint64_t position = 0; next(position);) { places.push_back(static_cast<std::uint32_t>((position - first_) / alignment)); }
        return places.size() - before;
    }
    /// No more comes. What it knows of its places can go as soon as they are in a file.
    void seal() noexcept {
        std::uint64_t start = 0;
        for (run& r : runs_) {
            r.start = start;
            start += r.count;
        }
        sealed_ = true;
        last_run_.clear();
    }
    bool has_places() const noexcept { return !places_.empty(); }
    /// Writes the file beside it, from the places in memory.
    std::error_code write_index(const Files& files, file& to, const journal_id& id) const {
        std::uint64_t size = 0;
        for (const place_list& places : places_) { size += places.size() * sizeof(std::uint32_t); }
        const auto front = sealed_file::frame(sealed_file::index_word, id, first_, size, [this](auto fn) {
            for (const place_list& places : places_) {
                places.each_piece([&fn](bytes_view some) {
                    fn(some);
                    return true;
                });
            }
        });
        std::array<bytes_view, 16> parts{front}; // of one call
        std::size_t n = 1;
        std::uint64_t at = 0;
        std::error_code ec;
        const auto write = [&] {
            ec = write_all(files, to, at, std::span(parts).first(n));
            for (const bytes_view& p : std::span(parts).first(n)) { at += p.size(); }
            n = 0;
            return !ec;
        };
        for (const place_list& places : places_) {
            const bool all = places.each_piece([&](bytes_view some) {
                if (n == parts.size() && !write()) { return false; }
                parts[n++] = some;
                return true;
            });
            if (!all) { return ec; }
        }
        write();
        return ec;
    }
    void drop_places() noexcept { std::vector<place_list>().swap(places_); }
    /// The places of all runs, found again.
    void set_places(std::vector<place_list> places) noexcept {
        const std::lock_guard lock(mutex_);
        places_.swap(places);
        index_.reset();
    }

    /// Where the messages of a run from number `from` on lie, from memory.
    void places_in_memory(std::size_t which, std::uint32_t from, std::span<std::uint64_t> to) const noexcept {
        for (std::size_t i = 0; i < to.size(); ++i) { to[i] = first_ + std::uint64_t{places_[which][from + i]} * alignment; }
    }
    /// The same from the file beside it; false: it is not there, or not what it should be.
    bool places_on_disk(const Files& files, const journal_id& id, const run& r, std::uint32_t from, std::span<std::uint64_t> to) {
        std::shared_ptr<file> index;
        {
            const std::lock_guard lock(mutex_);
            if (index_ == nullptr) { open_index(files, id); }
            index = index_;
        }
        if (index == nullptr) { return false; }
        constexpr std::size_t at_once = 1024;
        std::array<std::byte, at_once * sizeof(std::uint32_t)> bytes; // filled as far as it is looked at
        for (std::size_t done = 0; done < to.size();) {
            const std::size_t n = std::min(at_once, to.size() - done);
            const std::uint64_t at = sealed_file::head + (r.start + from + done) * sizeof(std::uint32_t);
            std::size_t got = 0;
            if (read_all(files, *index, at, std::span(bytes).first(n * sizeof(std::uint32_t)), got) || got != n * sizeof(std::uint32_t)) { return false; }
            for (std::size_t i = 0; i < n; ++i) {
                to[done + i] = first_ + std::uint64_t{load_le<std::uint32_t>(bytes.data() + i * sizeof(std::uint32_t))} * alignment;
            }
            done += n;
        }
        return true;
    }

private:
    // All of it is verified once, as it is opened; what is read later is verified by the records.
    void open_index(const Files& files, const journal_id& id) {
        auto opened = std::make_shared<file>();
        if (until_done([&] { return files.open(index_path(), open_mode::read, *opened); })) { return; }
        std::vector<std::byte> all;
        std::uint64_t size = 0, number = 0;
        std::size_t got = 0;
        if (until_done([&] { return files.size(*opened, size); })) { return; }
        all.resize(static_cast<std::size_t>(size));
        if (read_all(files, *opened, 0, all, got) || got != all.size()) { return; }
        journal_id whose{};
        bytes_view body;
        if (sealed_file::decode(sealed_file::index_word, all, whose, number, body) != nullptr || whose != id || number != first_) { return; }
        index_ = std::move(opened);
    }

    const std::string directory_;
    const std::uint64_t first_;
    std::uint64_t end_;
    std::uint64_t survivors_ = 0;
    bool sealed_ = false;

    std::mutex mutex_; // the handles
    std::shared_ptr<file> file_;
    std::shared_ptr<file> index_;
    bool writable_ = false;

    std::vector<run> runs_;
    std::vector<place_list> places_; // of each run, in units of 8 bytes; none when they are on disk
    std::unordered_map<std::uint32_t, std::size_t> last_run_;
};

} // namespace mailroom::detail
