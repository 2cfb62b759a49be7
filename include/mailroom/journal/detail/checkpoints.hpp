// Manifests: what is committed, as of some position.
//
// One is written when everything below its position is on stable storage, under another name first, beside the one before.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>

namespace mailroom::detail {

inline constexpr const char* manifest_name = "MANIFEST";
inline constexpr const char* old_manifest_name = "MANIFEST.old";
inline constexpr const char* new_manifest_name = "MANIFEST.new";
inline constexpr const char* lock_name = "LOCK";
inline constexpr unsigned most_spares = 64; // a bit each

/// The files of segments that are done with, kept to be written over: "spare", "spare-1", "spare-2" ...
inline std::string spare_name(unsigned number) { return number == 0 ? "spare" : "spare-" + std::to_string(number); }
inline std::optional<unsigned> spare_in(std::string_view name) {
    for (unsigned i = 0; i < most_spares; ++i) {
        if (name == spare_name(i)) { return i; }
    }
    return std::nullopt;
}

/// A checkpoint that had to wait until what it says is on stable storage. With `upkeep_`.
template <class Files>
void log_engine<Files>::write_next() {
    const image now = std::exchange(next_, image{});
    if (write_manifest(now).kind() == errc{}) { remove_doomed(); }
}

/// What a manifest holds. Under `state_`.
template <class Files>
std::vector<std::byte> log_engine<Files>::encode_state(bool clean) {
    catalog_.forget_ids(std::chrono::duration_cast<duration>(clock_.wall().time_since_epoch()).count());
    std::vector<std::byte> body;
    wire_writer to(body);
    to.var(clean ? 1 : 0);
    to.u64(incarnation_);
    to.u64(applied_);
    to.u64(applied_chain_);
    to.u64(applied_); // on stable storage before this is
    to.var(segments_.size());
    for (const auto& [first, s] : segments_) {
        to.var(first);
        to.var(s->end() - first);
        to.var(s->sealed() ? 1 : 0);
        if (!s->sealed()) { continue; }
        to.var(s->runs().size());
        for (const run& r : s->runs()) {
            to.var(r.stream);
            to.var(r.first);
            to.var(r.count);
            to.var(r.start);
        }
    }
    to.var(survivors_.size());
    for (const auto& [first, s] : survivors_) {
        to.var(first - survivors_from);
        to.var(s->end() - first);
        to.var(s->messages());
    }
    to.var(next_survivor_ - survivors_from);
    to.var(moved_.size());
    for (const auto& [stream, all] : moved_) {
        to.var(stream);
        to.var(all.size());
        for (const auto& [o, where] : all) {
            to.var(o);
            to.var(where.where->first());
            to.var(where.position - where.where->first());
        }
    }
    catalog_.write(to);
    return body;
}

/// Writes a manifest of what is committed. With `upkeep_`, or before or after anybody else is there.
template <class Files>
failure log_engine<Files>::checkpoint(bool clean) {
    image now;
    next_ = image();
    {
        std::unique_lock lock(state_);
        if (!is_whole_) { return errc::io; }
        if (applied_durable_ < applied_) { // a manifest says nothing that a crash could take back
            std::error_code ec;
            if (behind_ != nullptr) { ec = sync_data(*behind_); }
            if (!ec) {
                auto opened = current_->open(files_, open_mode::write);
                ec = opened ? sync_data(**opened) : std::make_error_code(std::errc::io_error);
            }
            if (ec) {
                const std::string path = current_->path();
                lock.unlock();
                return sync_failed(path, ec);
            }
            applied_durable_ = applied_;
        }
        now = {encode_state(clean), applied_};
    }
    return write_manifest(now);
}

/// All of it is on stable storage.
template <class Files>
failure log_engine<Files>::write_manifest(const image& what) {
    const std::vector<std::byte> bytes = sealed_file::encode(sealed_file::manifest_word, id_, what.at, what.state);
    const bytes_view all(bytes);
    const std::string path = directory_ + '/' + manifest_name, fresh = directory_ + '/' + new_manifest_name,
                      old = directory_ + '/' + old_manifest_name;
    const auto write_fresh = [&]() -> std::error_code {
        file f;
        auto ec = until_done([&] { return files_.open(fresh, open_mode::create, f); });
        if (ec == std::errc::file_exists) {
            ec = until_done([&] { return files_.open(fresh, open_mode::write, f); });
            if (!ec) {
                ec = until_done([&] { return files_.truncate(f, 0); });
            }
        }
        if (!ec) { ec = write_all(files_, f, 0, {&all, 1}); }
        if (!ec) {
            ec = until_done([&] { return files_.sync_all(f); });
        }
        return ec;
    };
    auto written = write_fresh();
    if (written == std::errc::no_space_on_device && !needs_old_) { // the one before the present one is there for the worst case only
        static_cast<void>(until_done([&] { return files_.remove(old); }));
        written = write_fresh();
    }
    if (written) {
        static_cast<void>(until_done([&] { return files_.remove(fresh); }));
        return io_failure("cannot write", fresh, written);
    }
    auto ec = needs_old_ ? std::error_code() : until_done([&] { return files_.rename(path, old); });
    if (!ec || ec == std::errc::no_such_file_or_directory) {
        ec = until_done([&] { return files_.rename(fresh, path); });
    }
    if (!ec) {
        ec = until_done([&] { return files_.sync_directory(directory_); });
    }
    if (ec) { return io_failure("cannot rename", fresh, ec); }
    needs_old_ = false;
    checkpointed_ = what.at;
    return errc{};
}

} // namespace mailroom::detail
