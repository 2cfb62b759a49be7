// Opening: the manifest, then what was committed since.
//
// Where the stream of batches ends, recovery asks whether what follows was ever safe. Each batch says up to where everything was on stable
// storage when it was written, and so does the manifest. What cannot be read at or above the highest such place is a write that a crash left
// incomplete: it is cut off, with whatever follows. Below it, it is damage: never cut off as if it were a torn end, but refused, or stepped over.
#pragma once

#include <mailroom/journal/detail/checkpoints.hpp>
#include <mailroom/journal/detail/commit.hpp>
#include <mailroom/journal/detail/reading.hpp>
#include <mailroom/journal/detail/replay.hpp>
#include <mailroom/journal/detail/rotation.hpp>
#include <mailroom/journal/detail/survivors.hpp>

#include <random>

namespace mailroom::detail {

template <class Files>
log_engine<Files>::log_engine(std::string directory, const journal_options& o, Files files)
    : files_(std::move(files)), directory_(std::move(directory)), options_(o), clock_(o.clock != nullptr ? *o.clock : system_clock()) {
    if (directory_.empty()) { fail(errc::invalid, "a journal needs a directory"); }
    if (o.segment_bytes < (std::size_t{64} << 10) || o.segment_bytes > (std::uint64_t{4} << 30)) {
        fail(errc::invalid, "journal_options.segment_bytes is outside 64 KiB .. 4 GiB");
    }
    if (o.spare_segments > most_spares) { fail(errc::invalid, "journal_options.spare_segments is more than 64"); }
    if (o.durability > mailroom::durability::none) { fail(errc::invalid, "journal_options.durability is none of commit, write, none"); }
    if (o.on_damage > mailroom::on_damage::salvage) { fail(errc::invalid, "journal_options.on_damage is none of refuse, read_only, salvage"); }
    read_only_ = o.on_damage == mailroom::on_damage::read_only;
    lock_directory();
    try {
        open_all();
    } catch (...) {
        open_directories::leave(identity_);
        throw;
    }
}

template <class Files>
log_engine<Files>::~log_engine() {
    close();
}

template <class Files>
void log_engine<Files>::close() noexcept {
    {
        std::unique_lock lock(mutex_);
        if (closed_.exchange(true, std::memory_order_acq_rel)) { return; }
        // Nothing is placed any more. What was placed before, until now, is committed by this: whoever waits for it finds it done.
        const auto wait_for_leader = [&] {
            while (leading_) {
                const std::uint32_t e = epoch_.load(std::memory_order_relaxed);
                lock.unlock();
                clock_.park(epoch_, e, clock::never);
                lock.lock();
            }
        };
        wait_for_leader();
        open_.to_sync = !read_only_;
        lead(lock, false);
        wait_for_leader(); // somebody who had nothing to write
        over_ = true;
    }
    forget_held(); // they are in doubt still; who gave them out has gone
    const std::lock_guard lock(upkeep_);
    if (!read_only_ && broken_.kind() == errc{}) {
        try {
            write_indexes();
            checkpoint(true);
        } catch (...) {}
    }
    // Deliveries may keep this for a long time yet; the directory is free now.
    {
        const std::lock_guard held(state_);
        for (const auto* const all : {&segments_, &survivors_}) {
            for (const auto& [first, s] : *all) { s->close(); }
        }
        end_survivors();
    }
    current_file_.reset();
    behind_.reset();
    static_cast<void>(files_.close(lock_file_));
    open_directories::leave(identity_);
}

template <class Files>
void log_engine<Files>::report(const std::string& path, std::uint64_t byte, std::string what) {
    if (options_.on_damage == mailroom::on_damage::refuse) {
        fail(errc::corrupt, path + ", byte " + std::to_string(byte) + ": " + what +
                                ". What was stored there is at risk; nothing was changed. on_damage::read_only opens what is intact for reading, "
                                "on_damage::salvage goes on without the rest and reports it");
    }
    recovered_.damages.push_back({path, byte, std::move(what)});
}

template <class Files>
void log_engine<Files>::lock_directory() {
    std::error_code ec = read_only_ ? files_.is_writable(directory_) : until_done([&] { return files_.make_directory(directory_); });
    std::vector<std::string> names;
    if (const auto listed = files_.list(directory_, names)) {
        if (listed == std::errc::not_a_directory || ec == std::errc::not_a_directory) {
            fail(errc::invalid, "'" + directory_ + "' is a file; a journal is a directory");
        }
        io_failure("cannot open the journal's directory", directory_, ec ? ec : listed).raise();
    }
    if (!read_only_ && !ec) { ec = files_.is_writable(directory_); }
    if (!read_only_ && ec) { io_failure("cannot write to the journal's directory", directory_, ec).raise(); }
    if (const auto unknown = files_.identity(directory_, identity_)) { io_failure("cannot look at", directory_, unknown).raise(); }
    for (const std::string& n : names) { // a directory of somebody else's is left as it is
        const bool ours = n == manifest_name || n == old_manifest_name || n == new_manifest_name || n == lock_name || spare_in(n) ||
                          position_in(n, ".log") || position_in(n, ".idx") || position_in(n, ".srv");
        if (!ours) {
            fail(errc::invalid, "'" + directory_ + "' holds '" + n + "', which is no file of a journal: a journal wants a directory of its own");
        }
    }
    if (!open_directories::enter(identity_)) { fail(errc::in_use, "'" + directory_ + "' is open in this process already"); }
    try {
        if (read_only_ && ec) { return; } // nobody can write here, so nobody does
        const std::string path = directory_ + '/' + lock_name;
        ec = until_done([&] { return files_.open(path, open_mode::write, lock_file_); });
        if (ec == std::errc::no_such_file_or_directory && read_only_) { return; } // nobody has it, and nothing is changed
        if (ec == std::errc::no_such_file_or_directory) {
            ec = until_done([&] { return files_.open(path, open_mode::create, lock_file_); });
            if (ec == std::errc::file_exists) {
                ec = until_done([&] { return files_.open(path, open_mode::write, lock_file_); });
            }
        }
        if (ec) { io_failure("cannot open", path, ec).raise(); }
        if (const auto busy = until_done([&] { return files_.lock(lock_file_); })) {
            if (busy == std::errc::device_or_resource_busy) { fail(errc::in_use, "another process has the journal '" + directory_ + "' open"); }
            io_failure("cannot lock", path, busy).raise();
        }
    } catch (...) {
        open_directories::leave(identity_);
        throw;
    }
}

template <class Files>
void log_engine<Files>::open_all() {
    std::vector<std::string> names;
    if (const auto ec = files_.list(directory_, names)) { io_failure("cannot list", directory_, ec).raise(); }
    read_manifest(names);
    if (is_new_) {
        begin_anew();
    } else {
        recover(names);
    }
    {
        const std::lock_guard lock(state_);
        recovered_.segments = segments_.size() + survivors_.size();
    }
    recovered_.bytes = bytes_stored();
    start(open_, applied_);
}

template <class Files>
void log_engine<Files>::begin_anew() {
    if (read_only_) { fail(errc::not_found, "'" + directory_ + "' holds no journal"); }
    std::random_device random;
    for (auto& b : id_) { b = static_cast<std::byte>(random()); }
    seed_ = seed_of(id_);
    const auto last = directory_.find_last_not_of('/');
    const auto slash = last == std::string::npos ? last : directory_.find_last_of('/', last);
    const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : directory_.substr(0, slash);
    if (const auto ec = until_done([&] { return files_.sync_directory(parent); })) { io_failure("cannot sync", parent, ec).raise(); }
    if (failure why = rotate(0); why.kind() != errc{}) { why.raise(); }
    if (failure why = checkpoint(false); why.kind() != errc{}) { why.raise(); }
}

/// Takes in the newest manifest that can be read.
template <class Files>
void log_engine<Files>::read_manifest(std::vector<std::string>& names) {
    const auto has = [&](std::string_view name) { return std::binary_search(names.begin(), names.end(), name); };
    const bool has_segments = std::any_of(names.begin(), names.end(), [](const std::string& n) { return position_in(n, ".log").has_value(); });
    std::string problem;
    for (const char* const name : {manifest_name, old_manifest_name}) {
        if (!has(name)) { continue; }
        const std::string path = directory_ + '/' + name;
        std::vector<std::byte> bytes;
        if (const auto ec = read_file(files_, path, bytes)) { io_failure("cannot read", path, ec).raise(); }
        bytes_view body;
        std::uint64_t number = 0;
        const char* wrong = sealed_file::decode(sealed_file::manifest_word, bytes, id_, number, body);
        if (wrong == nullptr) {
            seed_ = seed_of(id_);
            try {
                if (decode_state(body, sealed_file::version_of(bytes))) { return; }
                wrong = "its contents make no sense";
            } catch (const error&) { wrong = "its contents make no sense"; }
        }
        if (wrong == other_version) { fail(errc::corrupt, path + ": " + wrong); }
        report(path, 0, wrong);
        needs_old_ = needs_old_ || name == std::string_view(manifest_name);
        segments_.clear();
        survivors_.clear();
        next_survivor_ = survivors_from;
        extents_.clear();
        moved_.clear();
        catalog_ = catalog();
    }
    if (!has_segments && !has(manifest_name) && !has(old_manifest_name)) {
        is_new_ = true;
        return;
    }
    // A first opening that a crash interrupted leaves a segment without a batch, and no manifest.
    if (!has(manifest_name) && !has(old_manifest_name)) {
        bool empty = true;
        for (const std::string& n : names) {
            const auto first = position_in(n, ".log");
            if (!first) { continue; }
            std::vector<std::byte> bytes;
            if (const auto ec = read_file(files_, directory_ + '/' + n, bytes)) { io_failure("cannot read", n, ec).raise(); }
            empty = empty && *first == 0 &&
                    std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), segment_header::size)), bytes.end(),
                                [](std::byte b) { return b == std::byte{}; });
        }
        if (empty && !read_only_) {
            for (const std::string& n : names) {
                if (n != lock_name) {
                    static_cast<void>(until_done([&] { return files_.remove(directory_ + '/' + n); }));
                }
            }
            is_new_ = true;
            return;
        }
        report(directory_ + '/' + manifest_name, 0, "the file is missing");
    }
    // Without a manifest everything is read, from the first segment on.
    has_no_manifest_ = true;
    for (const std::string& n : names) {
        const auto first = position_in(n, ".log");
        if (!first) { continue; }
        std::vector<std::byte> bytes;
        segment_header h;
        std::uint32_t version = 0;
        if (read_file(files_, directory_ + '/' + n, bytes)) { continue; }
        const char* const wrong = segment_header::decode(bytes, h, version);
        if (wrong == other_version) { fail(errc::corrupt, directory_ + '/' + n + ": " + wrong); }
        if (wrong != nullptr || h.first != *first) { continue; }
        id_ = h.id;
        seed_ = seed_of(id_);
        applied_ = *first;
        segments_.emplace(*first, std::make_shared<segment<Files>>(directory_, *first));
        return;
    }
    fail(errc::corrupt, "'" + directory_ + "' holds no manifest and no segment that can be read");
}

template <class Files>
bool log_engine<Files>::decode_state(bytes_view body, std::uint32_t version) {
    wire_reader from(body);
    recovered_.clean = from.var() != 0;
    incarnation_.store(from.u64());
    applied_ = from.u64();
    applied_chain_ = from.u64();
    applied_durable_ = from.u64();
    for (std::size_t n = from.count(3); n != 0; --n) {
        const std::uint64_t first = from.var(), length = from.var();
        const bool sealed = from.var() != 0;
        auto s = std::make_shared<segment<Files>>(directory_, first);
        s->set_end(first + length);
        if (sealed) {
            std::vector<run> runs;
            for (std::size_t i = from.count(4); i != 0; --i) {
                run r;
                r.stream = from.var_as<std::uint32_t>();
                r.first = from.var();
                r.count = from.var_as<std::uint32_t>();
                r.start = from.var();
                runs.push_back(r);
            }
            s->set_runs(std::move(runs));
            for (std::size_t i = 0; i < s->runs().size(); ++i) { extents_[s->runs()[i].stream].push_back({s, i, s->runs()[i].first}); }
        }
        segments_.emplace(first, std::move(s));
    }
    if (version >= 3) {
        for (std::size_t n = from.count(3); n != 0; --n) {
            const std::uint64_t first = from.var(), length = from.var(), messages = from.var();
            if (first >= most_survivors || length >= most_survivors) { return false; }
            if (survivors_from + first < next_survivor_) { return false; }
            next_survivor_ = survivors_from + first + length;
            auto s = std::make_shared<segment<Files>>(directory_, survivors_from + first);
            s->set_end(next_survivor_);
            s->add_survivors(messages);
            s->seal();
            survivors_.emplace(s->first(), std::move(s));
        }
        const std::uint64_t next = from.var();
        if (next >= 2 * most_survivors || survivors_from + next < next_survivor_ || next % alignment != 0) { return false; }
        next_survivor_ = survivors_from + next;
    }
    for (std::size_t n = from.count(3); n != 0; --n) {
        auto& all = moved_[from.var_as<std::uint32_t>()];
        for (std::size_t i = from.count(3); i != 0; --i) {
            const offset o = from.var();
            const std::uint64_t first = from.var(), skip = from.var();
            const auto& among = first >= survivors_from ? survivors_ : segments_;
            const auto where = among.find(first);
            if (where == among.end()) { return false; }
            all.insert_or_assign(o, spot{where->second, where->first + skip});
        }
    }
    catalog_ = catalog::read(from, version);
    from.expect_end();
    const auto is_known = [this](std::uint32_t stream) { return catalog_.streams().contains(stream); };
    const bool all_known = std::all_of(extents_.begin(), extents_.end(), [&](const auto& e) { return is_known(e.first); }) &&
                           std::all_of(moved_.begin(), moved_.end(), [&](const auto& m) { return is_known(m.first); });
    if (!all_known || segments_.empty() || applied_ < segments_.begin()->first) { return false; }
    for (auto s = segments_.begin(); s != segments_.end(); ++s) {
        const auto next = std::next(s);
        if (s->second->end() < s->first || (next != segments_.end() && next->first < s->second->end())) { return false; }
        if (s->second->sealed() ? applied_ < s->second->end() : next != segments_.end()) { return false; }
    }
    return true;
}

/// Segments the manifest names have to be there. One that is listed in the old manifest only may have gone since.
template <class Files>
void log_engine<Files>::expect_segments(std::map<std::uint64_t, segment_ptr>& all, const std::vector<std::string>& names) {
    for (auto at = all.begin(); at != all.end();) {
        const segment_ptr s = at->second;
        ++at;
        auto opened = s->open(files_, open_mode::read);
        std::array<std::byte, segment_header::size> head;
        std::size_t got = 0;
        segment_header h;
        std::uint32_t version = 0;
        const char* wrong = "the file is missing or cannot be opened";
        bool is_foreign = false;
        if (!opened && std::binary_search(names.begin(), names.end(), s->name())) { opened.error().raise(); }
        if (opened) {
            if (const auto ec = read_all(files_, **opened, 0, head, got)) { io_failure("cannot read", s->path(), ec).raise(); }
            wrong = segment_header::decode(std::span(head).first(got), h, version);
            is_foreign = wrong == nullptr && (h.id != id_ || h.first != s->first());
            if (is_foreign) { wrong = "the file is a segment of another journal, or another one of this"; }
            if (wrong == other_version) { fail(errc::corrupt, s->path() + ": " + wrong); }
            std::uint64_t size = 0;
            if (wrong == nullptr && s->sealed() && !files_.size(**opened, size) && size < s->byte_of(s->end())) {
                wrong = "the file is shorter than it was";
            }
        }
        if (wrong == nullptr) { continue; }
        report(s->path(), 0, wrong);
        const bool cut = opened && segment_header::decode(std::span(head).first(got), h, version) == nullptr;
        if (opened && !is_foreign && !read_only_) {
            if (cut) {
                make_long_enough(s);
            } else {
                write_header(s);
            }
        }
        if (!opened || is_foreign) { // nothing of it can be had
            for (const run& r : s->runs()) {
                std::erase_if(extents_[r.stream], [&](const extent& e) { return e.where == s; });
            }
            for (auto& [stream, places] : moved_) {
                std::erase_if(places, [&](const auto& m) { return m.second.where == s; });
            }
            all.erase(s->first());
        }
        limit_open_files(s);
    }
}

template <class Files>
void log_engine<Files>::recover(std::vector<std::string>& names) {
    expect_segments(segments_, names);
    expect_segments(survivors_, names);
    segment_ptr last;
    const std::uint64_t end = replay(last, names);
    if (has_no_manifest_) { salvage_survivors(names); }
    for (const auto& [path, wrong] : not_found_) {
        if (wrong == other_version) { fail(errc::corrupt, path + ": " + wrong); }
        report(path, 0, wrong);
    }
    if (!recovered_.damages.empty()) { catalog_.skip_what_was_settled(); }
    const bool unclean = !recovered_.clean;
    if (unclean) {
        for (const auto& [number, s] : catalog_.streams()) { suspects_[number] = s.next; }
    }
    applied_ = end;
    chain_ = applied_chain_;
    if (read_only_) {
        current_ = last;
        return;
    }
    incarnation_.fetch_add(1);
    open_last(last, end);
    applied_durable_ = durable_ = end;
    free_survivors(names);
    // Files nobody knows: of a crash in the middle of making or removing one.
    for (const std::string& n : names) {
        const auto log = position_in(n, ".log"), index = position_in(n, ".idx");
        const auto spare = spare_in(n);
        if (spare && *spare < options_.spare_segments) {
            spares_.fetch_or(std::uint64_t{1} << *spare);
            continue;
        }
        if (spare || (log && !segments_.contains(*log)) || (index && !segments_.contains(*index)) || n == new_manifest_name) {
            static_cast<void>(until_done([&] { return files_.remove(directory_ + '/' + n); }));
        }
    }
    if (!recovered_.damages.empty() && current_->end() != current_->first()) { // what is damaged is read over once, not at each opening
        start(open_, applied_);
        if (failure why = rotate(applied_); why.kind() != errc{}) { why.raise(); }
    }
    if (failure why = checkpoint(false); why.kind() != errc{}) { why.raise(); }
}

/// What was cut off a segment is zeros from now on: damage where it was, and nowhere else.
template <class Files>
void log_engine<Files>::make_long_enough(const segment_ptr& s) {
    auto opened = s->open(files_, open_mode::write);
    if (!opened) { opened.error().raise(); }
    auto ec = until_done([&] { return files_.truncate(**opened, s->byte_of(s->end())); });
    if (!ec) {
        ec = until_done([&] { return files_.sync_all(**opened); });
    }
    if (ec) { io_failure("cannot write to", s->path(), ec).raise(); }
}

/// A header that is damaged says again what the name of its file says.
template <class Files>
void log_engine<Files>::write_header(const segment_ptr& s) {
    std::array<std::byte, segment_header::size> head;
    segment_header{.id = id_, .first = s->first(), .incarnation = incarnation_, .durable_upto = s->first()}.encode(head.data());
    const bytes_view all(head);
    auto opened = s->open(files_, open_mode::write);
    if (!opened) { opened.error().raise(); }
    auto ec = write_all(files_, **opened, 0, {&all, 1});
    if (!ec) {
        ec = until_done([&] { return files_.sync(**opened); });
    }
    if (ec) { io_failure("cannot write to", s->path(), ec).raise(); }
}

/// The segment that is written to from now on: what is beyond its last batch goes.
template <class Files>
void log_engine<Files>::open_last(const segment_ptr& last, std::uint64_t at) {
    if (last == nullptr) { // it is missing: begin another
        if (failure why = rotate(at); why.kind() != errc{}) { why.raise(); }
        return;
    }
    auto opened = last->open(files_, open_mode::write);
    if (!opened) { opened.error().raise(); }
    current_ = last;
    current_file_ = *opened;
    const std::uint64_t end = last->byte_of(at);
    std::uint64_t size = 0;
    auto ec = until_done([&] { return files_.size(*current_file_, size); });
    if (!ec && (size > end ? !recovered_.clean : size < end)) {
        ec = until_done([&] { return files_.truncate(*current_file_, end); });
        size = end;
    }
    if (ec) { io_failure("cannot cut", last->path(), ec).raise(); }
    if (!recovered_.clean) {
        for (const auto& [first, s] : segments_) {
            if (s == last || s->end() <= durable_) { continue; }
            auto before = s->open(files_, open_mode::write);
            if (!before) { before.error().raise(); }
            write_again(s, **before, s->byte_of(std::max(durable_, first)), s->byte_of(s->end()));
            if (const auto wrong = until_done([&] { return files_.sync(**before); })) { io_failure("cannot sync", s->path(), wrong).raise(); }
        }
        write_again(last, *current_file_, 0, segment_header::size);
        write_again(last, *current_file_, last->byte_of(std::max(durable_, last->first())), end);
    }
    ec = until_done([&] { return files_.sync_all(*current_file_); });
    if (ec) { io_failure("cannot sync", last->path(), ec).raise(); }
    zeroed_ = size;
}

/// Bytes that were never known to be safe are written again, the same to the same place: should a sync have failed before, the system may show what
/// it will not write any more.
template <class Files>
void log_engine<Files>::write_again(const segment_ptr& s, file& f, std::uint64_t from, std::uint64_t until) {
    file_window<Files> window(files_, f, s->path());
    while (from < until) {
        const bytes_view some = window.at(from, static_cast<std::size_t>(std::min<std::uint64_t>(until - from, std::size_t{1} << 20)));
        if (some.empty()) { return; }
        if (const auto ec = write_all(files_, f, from, {&some, 1})) { io_failure("cannot write to", s->path(), ec).raise(); }
        from += some.size();
    }
}

} // namespace mailroom::detail
