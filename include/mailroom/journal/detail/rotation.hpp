// The segment that is written to: room in it, syncs, and the next one. All of it is the leader's.
#pragma once

#include <mailroom/journal/detail/checkpoints.hpp>
#include <mailroom/journal/detail/engine_class.hpp>

namespace mailroom::detail {

/// Sees to it that `n` bytes can be written at position `base` of the current segment.
template <class Files>
failure log_engine<Files>::make_room(std::uint64_t base, std::size_t n) noexcept {
    try {
        if (base != current_->first() && current_->byte_of(base) + n > options_.segment_bytes) {
            if (failure why = rotate(base); why.kind() != errc{}) { return why; }
        }
        const std::uint64_t end = current_->byte_of(base) + n;
        if (end <= zeroed_) { return errc{}; }
        if (options_.durability != mailroom::durability::commit) { return errc{}; } // no sync waits for the file to grow
        // A file that is written over does not grow with each sync. Where there is no room for that there may be for the batch itself.
        const std::uint64_t until = std::max(end, std::min<std::uint64_t>(zeroed_ + zeros_ahead, options_.segment_bytes));
        static const std::array<std::byte, zeros_ahead / 16> nothing{};
        const std::uint64_t from = std::max(zeroed_, end);
        std::array<bytes_view, 16> parts;
        std::size_t n_parts = 0;
        for (std::uint64_t left = until - from; left != 0; left -= parts[n_parts++].size()) {
            parts[n_parts] = bytes_view(nothing).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, nothing.size())));
        }
        if (n_parts != 0 && !write_all(files_, *current_file_, from, std::span(parts).first(n_parts))) { zeroed_ = until; }
        return errc{};
    } catch (...) { return errc::io; }
}

/// Nobody waits for what was written, but one day, as a segment is sealed, all of it has to be on the disk: the system may begin.
template <class Files>
void log_engine<Files>::begin_writing_back(std::uint64_t until) noexcept {
    const std::uint64_t from = std::max({begun_, durable_, current_->first()});
    if (until - from < written_back_at_once) { return; }
    if constexpr (requires { files_.start_sync(*current_file_, from, until); }) {
        files_.start_sync(*current_file_, current_->byte_of(from), until - from);
    }
    begun_ = until;
}

/// A sync failed: what the system has dropped no later sync brings back.
template <class Files>
void log_engine<Files>::stop_writing(const failure& why) noexcept {
    const std::lock_guard lock(mutex_);
    broken_ = why;
}

/// Syncs a segment. The system tells of a loss once: whoever asks after that may be told that all is well, so nobody asks any more.
template <class Files>
std::error_code log_engine<Files>::sync_data(file& f) noexcept {
    const std::lock_guard lock(syncing_);
    if (has_lost_) { return std::make_error_code(std::errc::io_error); }
    const std::error_code ec = until_done([&] { return files_.sync(f); });
    has_lost_ = static_cast<bool>(ec);
    return ec;
}

/// The segment before the one that is written to is on stable storage after that.
template <class Files>
failure log_engine<Files>::sync_behind() noexcept {
    if (behind_ == nullptr) { return errc{}; }
    if (const auto ec = sync_data(*behind_)) { return sync_failed(directory_, ec); }
    durable_ = std::max(durable_, current_->first());
    const std::lock_guard lock(state_);
    behind_.reset();
    return errc{};
}

/// What the system has dropped no later sync brings back.
template <class Files>
failure log_engine<Files>::sync_failed(const std::string& path, const std::error_code& ec) noexcept {
    failure why = errc::io;
    try {
        why = io_failure("a sync failed, nothing more is written until the journal is opened again:", path, ec);
    } catch (...) {}
    stop_writing(why);
    return why;
}

/// The next segment begins at `base`. Where sends wait for the disk, the one before is on stable storage by then. Where they do not, this does not
/// either: the one before that is, which the system has had time to write.
template <class Files>
failure log_engine<Files>::rotate(std::uint64_t base) noexcept {
    try {
        bool stays_behind = false;
        if (current_ != nullptr && durable_ < base) {
            if (failure why = sync_behind(); why.kind() != errc{}) { return why; }
            stays_behind = options_.durability != mailroom::durability::commit;
            if (!stays_behind) {
                if (const auto ec = sync_data(*current_file_)) { return sync_failed(current_->path(), ec); }
                durable_ = base;
            }
        }
        auto next = std::make_shared<segment<Files>>(directory_, base);
        auto f = std::make_shared<file>();
        const std::string path = next->path();
        std::uint64_t size = 0;
        bool reused = false;
        // Taken without `upkeep_`, which may be held by one who waits for this leader. It is not made again before its bit says that it is gone.
        for (std::uint64_t there = spares_.load(std::memory_order_acquire); there != 0 && !reused; there = spares_.load(std::memory_order_acquire)) {
            const auto i = static_cast<unsigned>(std::countr_zero(there));
            const std::string spare = directory_ + '/' + spare_name(i);
            reused = !until_done([&] { return files_.rename(spare, path); });
            spares_.fetch_and(~(std::uint64_t{1} << i), std::memory_order_release);
        }
        if (reused) {
            if (const auto ec = until_done([&] { return files_.open(path, open_mode::write, *f); })) { return io_failure("cannot open", path, ec); }
            if (files_.size(*f, size)) { size = 0; }
        } else {
            auto ec = until_done([&] { return files_.open(path, open_mode::create, *f); });
            if (ec == std::errc::file_exists) {
                ec = until_done([&] { return files_.open(path, open_mode::write, *f); });
            } // of a try that failed
            if (ec) {
                note_space(ec);
                return io_failure("cannot make", path, ec);
            }
        }
        std::array<std::byte, segment_header::size> head;
        segment_header{.id = id_, .first = base, .incarnation = incarnation_, .durable_upto = std::min(durable_, base)}.encode(head.data());
        const bytes_view all(head);
        auto ec = write_all(files_, *f, 0, {&all, 1});
        if (ec) {
            note_space(ec);
            static_cast<void>(until_done([&] { return files_.remove(path); }));
            return io_failure("cannot make", path, ec);
        }
        ec = until_done([&] { return files_.sync_all(*f); });
        if (!ec) {
            ec = until_done([&] { return files_.sync_directory(directory_); });
        }
        if (ec) { return sync_failed(path, ec); }
        {
            const std::lock_guard lock(state_);
            unindexed_.reserve(unindexed_.size() + 1); // from the next on all of it happens, or nothing
            segments_.emplace(base, next);
            if (current_ != nullptr) {
                current_->seal();
                if (current_->has_places()) { unindexed_.push_back(current_); }
            }
            current_ = std::move(next);
            if (stays_behind) { behind_ = current_file_; }
        }
        current_file_ = std::move(f);
        zeroed_ = std::max<std::uint64_t>(size, segment_header::size);
        return errc{};
    } catch (...) { return errc::io; }
}

} // namespace mailroom::detail
