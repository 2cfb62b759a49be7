// A disk in memory that crashes, fails and loses data on demand: for tests of what is kept in a journal, users' and ours.
//
// It keeps apart what is synced and what is not: of each file its bytes and the writes and cuts since, of each directory its names
// and the creations, renames and removals since. Reads see all of it; `power_cut` decides what of the unsynced was on the disk.
// It is crueller than most disks: the name of a new file needs a sync of its directory, sectors of 512 bytes reach the disk in any order,
// each write's on their own, and what a failed sync did not bring there no later sync does. Renames within a directory are atomic.
// Deterministic: the same calls with the same seeds leave the same bytes, everywhere.
// Threads: everything may be called at once, behind one mutex. Cost: every byte is kept twice, unsynced ones three times.
#pragma once

#include <mailroom/base/error.hpp>
#include <mailroom/journal/files.hpp>
#include <mailroom/testing/detail/simulated_disk.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace mailroom::testing {

/// A disk, empty at first; copies share it. Give it as the files of a journal, then use the controls below.
/// Paths are '/' between names; "", "." and "/" are the same directory, and there from the start. Of names, `rename` moves files
/// within their directory only (std::errc::cross_device_link), and `remove` takes files. Two handles on a file shut each other out by
/// `lock`, as if they were two processes'.
class simulated_files {
    using disk = simulation::disk;
    using node = simulation::node;
    using kind = simulation::kind;
    using verdict = simulation::verdict;
    using place = simulation::place;

public:
    /// An open file of a simulated disk. Dead after `power_cut` or `process_kill`: std::errc::bad_file_descriptor.
    class file {
    public:
        file() = default;
        file(file&& other) noexcept { swap(other); }
        file& operator=(file&& other) noexcept {
            file old(std::move(*this));
            swap(other);
            return *this;
        }
        ~file() { let_go(); }

        [[nodiscard]] bool is_open() const noexcept { return node_ != nullptr; }

    private:
        friend class simulated_files;
        void swap(file& other) noexcept {
            std::swap(disk_, other.disk_);
            std::swap(node_, other.node_);
            std::swap(number_, other.number_);
            std::swap(epoch_, other.epoch_);
            std::swap(is_writable_, other.is_writable_);
        }
        void let_go() noexcept {
            if (node_ == nullptr) { return; }
            const std::lock_guard lock(disk_->mutex);
            if (node_->locked_by == number_) { node_->locked_by = 0; }
            node_ = nullptr;
        }

        std::shared_ptr<disk> disk_;
        std::shared_ptr<node> node_;
        std::uint64_t number_ = 0; // of this handle, on its disk
        std::uint64_t epoch_ = 0;  // of the disk when it was opened
        bool is_writable_ = false;
    };

    /// Makes a new disk.
    simulated_files() : disk_(std::make_shared<disk>()) {}

    // ---- the policy: see journal/files.hpp ----------------------------------------------------------------------------------------

    std::error_code open(const std::string& path, mailroom::detail::open_mode mode, file& out) const noexcept {
        using mailroom::detail::open_mode;
        file opened; // and what `out` was is let go after the lock
        const std::error_code result = guarded(*disk_, [&](disk& d) -> std::error_code {
            const bool creates = mode == open_mode::create;
            const verdict v = d.judge(kind::open, creates);
            if (!v.happens) { return v.code; }
            const place at = d.find(path);
            if (at.code) { return at.code; }
            std::shared_ptr<node> found = at.what;
            if (creates) {
                if (found != nullptr) { return simulation::code_of(std::errc::file_exists); }
                found = std::make_shared<node>();
                if (const std::error_code refused = d.change_names(*at.directory, {0, {}, at.name, found})) { return refused; }
            }
            if (found == nullptr) { return simulation::code_of(std::errc::no_such_file_or_directory); }
            if (found->is_directory) { return simulation::code_of(std::errc::is_a_directory); }
            if (mode == open_mode::write && d.set.read_only) { return simulation::code_of(std::errc::read_only_file_system); }
            if (v.code) { return v.code; } // the power went when the file was made
            opened.disk_ = disk_;
            opened.node_ = std::move(found);
            opened.number_ = ++d.set.handles;
            opened.epoch_ = d.set.epoch;
            opened.is_writable_ = mode != open_mode::read;
            return {};
        });
        if (!result) { out = std::move(opened); }
        return result;
    }

    std::error_code close(file& f) const noexcept {
        if (!f.is_open()) { return {}; }
        const std::error_code result = with(f, [](disk& d, node&) { return d.judge(kind::other, false).code; });
        f.let_go();
        return result;
    }

    std::error_code write(file& f, std::uint64_t at, std::span<const std::span<const std::byte>> parts, std::size_t& written) const noexcept {
        written = 0;
        return with(f, [&](disk& d, node& n) -> std::error_code {
            if (!f.is_writable_) { return simulation::code_of(std::errc::bad_file_descriptor); }
            const verdict v = d.judge(kind::write, true);
            if (!v.happens) { return v.code; }
            std::uint64_t whole = 0;
            for (const auto part : parts) { whole += part.size(); }
            std::uint64_t amount = std::min(whole, v.bytes);
            if (at > simulation::longest || amount > simulation::longest - at) { return simulation::code_of(std::errc::file_too_large); }
            if (!v.code) {
                amount = d.shorten(d.set.short_writes, amount);
                if (amount == simulation::interrupted) { return simulation::code_of(std::errc::interrupted); }
                amount = d.fit(n, at, amount);
                if (amount == 0 && whole != 0) { return simulation::code_of(std::errc::no_space_on_device); }
            }
            if (amount != 0) {
                simulation::change c{0, at, {}, false, simulation::fate::unsynced};
                c.data.reserve(static_cast<std::size_t>(amount));
                for (const auto part : parts) {
                    const auto left = static_cast<std::size_t>(amount) - c.data.size();
                    c.data.insert(c.data.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(std::min(left, part.size())));
                }
                if (const std::error_code refused = d.change_bytes(n, std::move(c))) { return refused; }
            }
            if (!v.code) { written = static_cast<std::size_t>(amount); }
            return v.code;
        });
    }

    std::error_code read(const file& f, std::uint64_t at, std::span<std::byte> to, std::size_t& got) const noexcept {
        got = 0;
        return with(f, [&](disk& d, node& n) -> std::error_code {
            const verdict v = d.judge(kind::read, false);
            if (v.code) { return v.code; }
            if (at >= n.now.size()) { return {}; }
            const std::uint64_t amount = d.shorten(d.set.short_reads, std::min<std::uint64_t>(to.size(), n.now.size() - at));
            if (amount == simulation::interrupted) { return simulation::code_of(std::errc::interrupted); }
            std::copy_n(n.now.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::ptrdiff_t>(amount), to.begin());
            got = static_cast<std::size_t>(amount);
            return {};
        });
    }

    std::error_code sync(file& f) const noexcept {
        return with(f, [](disk& d, node& n) -> std::error_code {
            const verdict v = d.judge(kind::sync, true);
            if (v.happens) {
                n.sync();
            } else if (!d.set.is_off && v.code != std::errc::interrupted) {
                n.give_up();
            }
            return v.code;
        });
    }
    std::error_code sync_all(file& f) const noexcept { return sync(f); }

    std::error_code size(const file& f, std::uint64_t& bytes) const noexcept {
        return with(f, [&](disk& d, node& n) -> std::error_code {
            const verdict v = d.judge(kind::other, false);
            if (!v.code) { bytes = n.now.size(); }
            return v.code;
        });
    }

    std::error_code truncate(file& f, std::uint64_t bytes) const noexcept {
        return with(f, [&](disk& d, node& n) -> std::error_code {
            if (!f.is_writable_) { return simulation::code_of(std::errc::invalid_argument); }
            const verdict v = d.judge(kind::other, true);
            if (!v.happens) { return v.code; }
            if (bytes > simulation::longest) { return simulation::code_of(std::errc::file_too_large); }
            if (bytes > n.now.size() && d.fit(n, 0, bytes) < bytes) { return simulation::code_of(std::errc::no_space_on_device); }
            return first(d.change_bytes(n, {0, bytes, {}, true, simulation::fate::unsynced}), v.code);
        });
    }

    std::error_code lock(file& f) const noexcept {
        return with(f, [&](disk& d, node& n) -> std::error_code {
            const verdict v = d.judge(kind::other, false);
            if (v.code) { return v.code; }
            if (!f.is_writable_) { return simulation::code_of(std::errc::bad_file_descriptor); }
            if (n.locked_by != 0 && n.locked_by != f.number_) { return simulation::code_of(std::errc::device_or_resource_busy); }
            n.locked_by = f.number_;
            return {};
        });
    }

    std::error_code rename(const std::string& from, const std::string& to) const noexcept {
        return guarded(*disk_, [&](disk& d) -> std::error_code {
            const verdict v = d.judge(kind::other, true);
            if (!v.happens) { return v.code; }
            const place old = d.find(from);
            const place target = d.find(to);
            if (old.code || target.code) { return old.code ? old.code : target.code; }
            if (old.what == nullptr) { return simulation::code_of(std::errc::no_such_file_or_directory); }
            if (old.what->is_directory || (target.what != nullptr && target.what->is_directory)) {
                return simulation::code_of(std::errc::is_a_directory);
            }
            if (old.directory != target.directory) { return simulation::code_of(std::errc::cross_device_link); }
            if (old.what == target.what) { return v.code; }
            return first(d.change_names(*old.directory, {0, old.name, target.name, old.what}), v.code);
        });
    }

    std::error_code remove(const std::string& path) const noexcept {
        return guarded(*disk_, [&](disk& d) -> std::error_code {
            const verdict v = d.judge(kind::other, true);
            if (!v.happens) { return v.code; }
            const place at = d.find(path);
            if (at.code) { return at.code; }
            if (at.what == nullptr) { return simulation::code_of(std::errc::no_such_file_or_directory); }
            if (at.what->is_directory) { return simulation::code_of(std::errc::is_a_directory); }
            return first(d.change_names(*at.directory, {0, at.name, {}, at.what}), v.code);
        });
    }

    std::error_code list(const std::string& directory, std::vector<std::string>& names) const {
        names.clear();
        const std::lock_guard lock(disk_->mutex);
        if (const verdict v = disk_->judge(kind::other, false); v.code) { return v.code; }
        const place at = disk_->find_directory(directory);
        if (at.code) { return at.code; }
        for (const auto& [name, what] : at.what->names_now) {
            if (!what->is_directory) { names.push_back(name); }
        }
        return {};
    }

    std::error_code make_directory(const std::string& path) const noexcept {
        return guarded(*disk_, [&](disk& d) -> std::error_code {
            const verdict v = d.judge(kind::other, true);
            if (!v.happens) { return v.code; }
            const place at = d.find(path);
            if (at.code) { return at.code; }
            if (at.what != nullptr) { return at.what->is_directory ? v.code : simulation::code_of(std::errc::not_a_directory); }
            const auto made = std::make_shared<node>();
            made->is_directory = true;
            return first(d.change_names(*at.directory, {0, {}, at.name, made}), v.code);
        });
    }

    std::error_code sync_directory(const std::string& path) const noexcept {
        return guarded(*disk_, [&](disk& d) -> std::error_code {
            const verdict v = d.judge(kind::other, true);
            if (!v.happens) { return v.code; }
            const place at = d.find_directory(path);
            if (at.code) { return at.code; }
            at.what->sync_names();
            return v.code;
        });
    }

    std::error_code is_writable(const std::string& directory) const noexcept {
        return guarded(*disk_, [&](disk& d) -> std::error_code {
            if (const verdict v = d.judge(kind::other, false); v.code) { return v.code; }
            const place at = d.find_directory(directory);
            return !at.code && d.set.read_only ? simulation::code_of(std::errc::read_only_file_system) : at.code;
        });
    }

    std::error_code identity(const std::string& directory, std::string& out) const {
        const std::lock_guard lock(disk_->mutex);
        if (const verdict v = disk_->judge(kind::other, false); v.code) { return v.code; }
        const place at = disk_->find_directory(directory);
        if (at.code) { return at.code; }
        out = "simulated " + std::to_string(disk_->number) + ':';
        for (const std::string& name : simulation::split(directory)) { out += '/' + name; }
        return {};
    }

    // ---- crashes ------------------------------------------------------------------------------------------------------------------

    /// How many calls that change something the disk has seen: write, both syncs, truncate, rename, remove, open to create,
    /// make_directory, sync_directory, whether they succeeded or not; none while it is off.
    [[nodiscard]] std::uint64_t calls() const {
        const std::lock_guard lock(disk_->mutex);
        return disk_->set.calls;
    }

    /// Switches the disk off at such a call: the next for 0. That call does not happen; it and all others, reads too, answer
    /// std::errc::io_error until `power_cut` or `process_kill`. With `torn`, that many bytes of it have happened if it is a write,
    /// else all of it, though nobody is told. An earlier crash_at that has not happened is forgotten.
    void crash_at(std::uint64_t call, std::optional<std::uint64_t> torn = std::nullopt) {
        const std::lock_guard lock(disk_->mutex);
        disk_->set.crash = simulation::planned_crash{call, torn};
    }
    [[nodiscard]] bool is_off() const {
        const std::lock_guard lock(disk_->mutex);
        return disk_->set.is_off;
    }

    /// Leaves what a power cut may leave, and switches the disk on again. All of that is synced then, files opened before are dead, no
    /// file is locked. A crash that was planned has come; other faults stay.
    void power_cut(std::uint64_t seed, loss what = loss::random) {
        const std::lock_guard lock(disk_->mutex);
        disk_->lose(what, simulation::dice{seed});
    }

    /// What SIGKILL leaves: the system has everything and syncs nothing; files opened before are dead, no file is locked. Switches the
    /// disk on again where a crash was planned.
    void process_kill() {
        const std::lock_guard lock(disk_->mutex);
        disk_->restart();
    }

    // ---- faults: each happens once, at the n-th such call from now, the next for 0; any number may be planned ------------------------

    /// A write fails; `bytes` of it got through nevertheless, which nobody is told.
    void fail_write(std::uint64_t n, std::error_code code, std::uint64_t bytes = 0) { plan({kind::write, n, code, bytes}); }
    /// A sync or sync_all fails: what was unsynced in its file stays so for ever, whatever later syncs say. (Interrupted: nothing happens.)
    void fail_sync(std::uint64_t n, std::error_code code) { plan({kind::sync, n, code, 0}); }
    /// One of the calls that `calls` counts fails, and does nothing; a sync as above.
    void fail_call(std::uint64_t n, std::error_code code) { plan({kind::change, n, code, 0}); }
    void fail_read(std::uint64_t n, std::error_code code) { plan({kind::read, n, code, 0}); }
    /// An open fails, of whatever mode.
    void fail_open(std::uint64_t n, std::error_code code) { plan({kind::open, n, code, 0}); }

    /// Every write, from now on or no longer, writes a random part of what it should, and is interrupted now and then.
    void short_writes(bool on, std::uint64_t seed = 1) {
        const std::lock_guard lock(disk_->mutex);
        disk_->set.short_writes = on ? std::optional(simulation::dice{seed}) : std::nullopt;
    }
    /// The same of every read.
    void short_reads(bool on, std::uint64_t seed = 1) {
        const std::lock_guard lock(disk_->mutex);
        disk_->set.short_reads = on ? std::optional(simulation::dice{seed}) : std::nullopt;
    }
    /// Bounds the sum of the files' lengths. A write that would make it more writes what fits, or answers std::errc::no_space_on_device;
    /// so does a truncate.
    void capacity(std::uint64_t bytes) {
        const std::lock_guard lock(disk_->mutex);
        disk_->set.capacity = bytes;
    }
    /// All that would change something answers std::errc::read_only_file_system from now on, or no longer; so does opening a file to write.
    void read_only(bool on) {
        const std::lock_guard lock(disk_->mutex);
        disk_->set.read_only = on;
    }
    /// Takes back everything that was planned and switched on here, a crash too, and the bound.
    void clear_faults() {
        const std::lock_guard lock(disk_->mutex);
        simulation::settings& s = disk_->set;
        s.crash.reset();
        s.faults.clear();
        s.short_writes.reset();
        s.short_reads.reset();
        s.capacity = std::numeric_limits<std::uint64_t>::max();
        s.read_only = false;
    }

    // ---- inspection and damage: also while the disk is off, counted nowhere. What is not there: mailroom::error, errc::not_found --------

    /// Returns the paths of all files, sorted, without a '/' in front.
    [[nodiscard]] std::vector<std::string> files() const {
        const std::lock_guard lock(disk_->mutex);
        std::vector<std::string> paths;
        collect(*disk_->root, "", paths);
        std::sort(paths.begin(), paths.end());
        return paths;
    }
    /// Returns what a read would see.
    [[nodiscard]] std::vector<std::byte> contents(const std::string& path) const {
        const std::lock_guard lock(disk_->mutex);
        return disk_->expect(path).now;
    }
    /// Makes the file hold these bytes, creating it where its directory has none. Its bytes and its name are synced then; so are all
    /// names in the directories above it, by this and by the two below.
    void set_contents(const std::string& path, std::span<const std::byte> bytes) {
        const std::lock_guard lock(disk_->mutex);
        const place at = disk_->find(path);
        if (at.code) { simulation::absent(path); }
        if (at.what == nullptr) { // also on a disk that is read only
            const simulation::naming made{0, {}, at.name, std::make_shared<node>()};
            made.apply(at.directory->names_now);
        }
        damage(path, [&](std::vector<std::byte>& all) { all.assign(bytes.begin(), bytes.end()); });
    }
    /// Flips a bit, counted from the lowest of the first byte; errc::invalid if the file is shorter.
    void flip_bit(const std::string& path, std::uint64_t bit) {
        const std::lock_guard lock(disk_->mutex);
        damage(path, [&](std::vector<std::byte>& all) {
            if (bit / 8 >= all.size()) { mailroom::detail::fail(errc::invalid, "the file has fewer bits"); }
            all[static_cast<std::size_t>(bit / 8)] ^= std::byte{1} << static_cast<unsigned>(bit % 8);
        });
    }
    /// Cuts the file to that many bytes, or adds zeros up to there.
    void cut(const std::string& path, std::uint64_t length) {
        const std::lock_guard lock(disk_->mutex);
        damage(path, [&](std::vector<std::byte>& all) { all.resize(static_cast<std::size_t>(length)); });
    }

    /// Makes another disk in the same state, with the same faults planned; open files and locks stay with this one.
    [[nodiscard]] simulated_files clone() const {
        const std::lock_guard lock(disk_->mutex);
        simulated_files other;
        std::map<const node*, std::shared_ptr<node>> twins;
        other.disk_->root = simulation::twin(disk_->root, twins);
        other.disk_->set = disk_->set;
        return other;
    }

private:
    static std::error_code first(std::error_code one, std::error_code other) noexcept { return one ? one : other; }

    // Memory that runs out is the system's answer too, not an exception.
    template <class Act>
    static std::error_code guarded(disk& d, Act act) noexcept {
        try {
            const std::lock_guard lock(d.mutex);
            return act(d);
        } catch (const std::exception&) { return simulation::code_of(std::errc::not_enough_memory); }
    }
    template <class Act>
    static std::error_code with(const file& f, Act act) noexcept {
        if (!f.is_open()) { return simulation::code_of(std::errc::bad_file_descriptor); }
        return guarded(*f.disk_, [&](disk& d) {
            if (f.epoch_ != d.set.epoch) { return simulation::code_of(std::errc::bad_file_descriptor); }
            return std::error_code(act(d, *f.node_));
        });
    }

    void plan(const simulation::fault& f) {
        const std::lock_guard lock(disk_->mutex);
        disk_->set.faults.push_back(f);
    }

    template <class Change>
    void damage(const std::string& path, Change change_all) {
        node& n = disk_->expect(path);
        change_all(n.now);
        n.changes.clear();
        n.synced = n.now;
        std::shared_ptr<node> above = disk_->root;
        for (const std::string& name : simulation::split(path)) {
            if (!above->is_directory) { break; }
            above->sync_names();
            above = above->names_now.at(name);
        }
    }

    static void collect(const node& directory, const std::string& before, std::vector<std::string>& paths) {
        for (const auto& [name, what] : directory.names_now) {
            if (what->is_directory) {
                collect(*what, before + name + '/', paths);
            } else {
                paths.push_back(before + name);
            }
        }
    }

    std::shared_ptr<disk> disk_;
};

static_assert(mailroom::detail::files_policy<simulated_files>);

} // namespace mailroom::testing
