// What a simulated disk is made of: see testing/simulated_files.hpp, which is its face and has its mutex held around all of this.
#pragma once

#include <mailroom/base/error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace mailroom::testing {

/// What a power cut takes of what was not synced.
enum class loss {
    nothing,    ///< everything had reached the disk in time
    everything, ///< only what was synced is left
    random,     ///< of each write any sectors, in any order, and any part of a longer file's length; the last write may be torn at a byte;
                ///< of each directory's changes any first ones
    tail,       ///< what happened after some moment, on the whole disk; the write of that moment may be torn at a byte
};

namespace simulation {

inline std::error_code code_of(std::errc what) noexcept { return std::make_error_code(what); }

inline constexpr std::uint64_t sector_bytes = 512;
inline constexpr std::uint64_t longest = std::uint64_t{1} << 30; // of a file, in bytes: what is longer is a mistake of the test
inline constexpr std::uint64_t interrupted = std::numeric_limits<std::uint64_t>::max();

enum class kind { open, read, write, sync, other, change };
enum class fate : std::uint8_t { unsynced, given_up, durable };

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers with every standard library.
struct dice {
    std::uint64_t state;
    std::uint64_t next() noexcept {
        std::uint64_t z = state += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t n) noexcept { return next() % n; }
    bool coin() noexcept { return below(2) == 0; }
};

struct outage {
    loss what;
    dice chance;
    std::uint64_t end;  // what comes from here on is lost, by order (loss::tail)
    std::uint64_t torn; // this write may be torn
};

// A write or a cut that is not yet part of the synced bytes. A durable one waits here only for older ones, which were given up.
struct change {
    std::uint64_t order;
    std::uint64_t at; // of a cut: the new length
    std::vector<std::byte> data;
    bool is_cut;
    fate state;

    void apply(std::vector<std::byte>& to) const { keep(to, data.size()); }
    void keep(std::vector<std::byte>& to, std::size_t bytes) const {
        if (is_cut) { return to.resize(static_cast<std::size_t>(at)); }
        if (at + bytes > to.size()) { to.resize(static_cast<std::size_t>(at + bytes)); }
        std::copy_n(data.begin(), static_cast<std::ptrdiff_t>(bytes), to.begin() + static_cast<std::ptrdiff_t>(at));
    }
    void keep_some(std::vector<std::byte>& to, outage& o) const {
        dice& d = o.chance;
        if (is_cut) {
            if (d.coin()) { to.resize(static_cast<std::size_t>(at)); }
            return;
        }
        // The length grows by all, or up to some sector, or not; what is kept beyond it nobody sees.
        const std::uint64_t end = at + data.size();
        std::uint64_t length = to.size();
        if (end > length) {
            const std::uint64_t first = length / sector_bytes;
            const std::uint64_t boundary = (first + d.below(end / sector_bytes - first + 1)) * sector_bytes;
            length = d.coin() ? std::max(boundary, length) : end;
            to.resize(static_cast<std::size_t>(length));
        }
        // Each sector on its own; but by one chance for all, or large writes would never be kept or lost as a whole.
        const std::uint64_t chance = std::array<std::uint64_t, 4>{0, 8, 15, 16}[static_cast<std::size_t>(d.below(4))];
        const std::uint64_t tear = o.torn == order ? at + d.below(data.size()) : end;
        for (std::uint64_t from = at, next = 0; from < end; from = next) {
            next = std::min(end, (from / sector_bytes + 1) * sector_bytes);
            const std::uint64_t stop = std::min({tear >= from ? tear : next, next, length});
            if (d.below(16) < chance && from < stop) {
                std::copy(data.begin() + static_cast<std::ptrdiff_t>(from - at), data.begin() + static_cast<std::ptrdiff_t>(stop - at),
                          to.begin() + static_cast<std::ptrdiff_t>(from));
            }
        }
    }
};

struct node;
using name_table = std::map<std::string, std::shared_ptr<node>>;

// A change to the names of a directory: `from` is taken away, `to` is given to the node; either may be empty.
struct naming {
    std::uint64_t order;
    std::string from, to;
    std::shared_ptr<node> what;

    void apply(name_table& names) const {
        if (!to.empty()) { names.insert_or_assign(to, what); }
        if (!from.empty()) { names.erase(from); }
    }
};

struct node {
    bool is_directory = false;
    // of a file
    std::vector<std::byte> now, synced; // now = synced and then the changes
    std::vector<change> changes;
    std::uint64_t locked_by = 0; // the number of a handle
    // of a directory
    name_table names_now, names_synced;
    std::vector<naming> namings;

    void sync() {
        bool in_front = true;
        auto rest = changes.begin();
        for (change& c : changes) {
            if (c.state == fate::unsynced) { c.state = fate::durable; }
            in_front = in_front && c.state == fate::durable;
            if (in_front) {
                c.apply(synced);
                ++rest;
            }
        }
        changes.erase(changes.begin(), rest);
    }
    void give_up() noexcept {
        for (change& c : changes) { c.state = c.state == fate::unsynced ? fate::given_up : c.state; }
    }
    void sync_names() {
        name_table copy = names_now;
        names_synced.swap(copy);
        namings.clear();
    }
    void settle(outage& o) {
        const std::uint64_t first_names = o.chance.below(namings.size() + 1);
        for (std::size_t i = 0; i < namings.size(); ++i) {
            const bool kept =
                o.what == loss::nothing || (o.what == loss::random && i < first_names) || (o.what == loss::tail && namings[i].order < o.end);
            if (kept) { namings[i].apply(names_synced); }
        }
        namings.clear();
        names_now = names_synced;
        for (const change& c : changes) {
            if (c.state == fate::durable || o.what == loss::nothing || (o.what == loss::tail && c.order < o.end)) {
                c.apply(synced);
            } else if (o.what == loss::random) {
                c.keep_some(synced, o);
            } else if (o.what == loss::tail && c.order == o.torn && !c.is_cut) {
                c.keep(synced, static_cast<std::size_t>(o.chance.below(c.data.size())));
            }
        }
        changes.clear();
        now = synced;
    }
};

// The names of a path, without what leads nowhere; ".." goes back by its name.
inline std::vector<std::string> split(std::string_view path) {
    std::vector<std::string> names;
    while (!path.empty()) {
        const std::size_t end = std::min(path.find('/'), path.size());
        const std::string_view name = path.substr(0, end);
        path.remove_prefix(std::min(end + 1, path.size()));
        if (name == "..") {
            if (!names.empty()) { names.pop_back(); }
        } else if (!name.empty() && name != ".") {
            names.emplace_back(name);
        }
    }
    return names;
}

// A copy of a node and all below it; one node under two names, or in the past and now, is one again.
inline std::shared_ptr<node> twin(const std::shared_ptr<node>& n, std::map<const node*, std::shared_ptr<node>>& twins) {
    std::shared_ptr<node>& known = twins[n.get()];
    if (known != nullptr) { return known; }
    const auto copy = known = std::make_shared<node>(*n);
    copy->locked_by = 0;
    for (auto& [name, what] : copy->names_now) { what = twin(what, twins); }
    for (auto& [name, what] : copy->names_synced) { what = twin(what, twins); }
    for (naming& c : copy->namings) { c.what = twin(c.what, twins); }
    return copy;
}

struct place {
    std::error_code code;            // the directory is not there
    std::shared_ptr<node> directory; // null for the root
    std::string name;
    std::shared_ptr<node> what; // null if there is nothing of that name
};

struct planned_crash {
    std::uint64_t left;
    std::optional<std::uint64_t> torn;
};
struct fault {
    kind what;
    std::uint64_t left;
    std::error_code code;
    std::uint64_t bytes;
};
struct verdict {
    std::error_code code = {};                                       // what is answered
    bool happens = true;                                             // whether it is done nevertheless
    std::uint64_t bytes = std::numeric_limits<std::uint64_t>::max(); // how much of a write
};

struct settings {
    std::uint64_t calls = 0, order = 0, handles = 0, epoch = 0;
    bool is_off = false, read_only = false;
    std::uint64_t capacity = std::numeric_limits<std::uint64_t>::max();
    std::optional<planned_crash> crash;
    std::vector<fault> faults;
    std::optional<dice> short_writes, short_reads;
};

[[noreturn]] inline void absent(const std::string& path) { mailroom::detail::fail(errc::not_found, "no file " + path); }

struct disk {
    mutable std::mutex mutex;
    std::shared_ptr<node> root = std::make_shared<node>();
    settings set;
    const std::uint64_t number = next_number();

    disk() { root->is_directory = true; }

    static std::uint64_t next_number() noexcept {
        static std::atomic<std::uint64_t> last{0};
        return ++last;
    }

    // What becomes of a call of that kind, which is one of those that are counted, or not.
    verdict judge(kind what, bool changes) noexcept {
        const auto io_error = code_of(std::errc::io_error);
        if (set.is_off) { return {io_error, false}; }
        if (changes) {
            ++set.calls;
            if (set.crash && set.crash->left-- == 0) {
                set.is_off = true;
                return {io_error, set.crash->torn.has_value(), set.crash->torn.value_or(0)};
            }
        }
        verdict v;
        for (auto f = set.faults.begin(); f != set.faults.end();) {
            if (f->what != what && !(f->what == kind::change && changes)) {
                ++f;
            } else if (f->left != 0) {
                --f++->left;
            } else {
                if (!v.code) { v = {f->code, what == kind::write && f->bytes != 0, f->bytes}; }
                f = set.faults.erase(f);
            }
        }
        return v;
    }

    place find(const std::string& path) const {
        place at{{}, nullptr, {}, root};
        for (const std::string& name : split(path)) {
            if (at.what == nullptr || !at.what->is_directory) {
                const auto why = at.what == nullptr ? std::errc::no_such_file_or_directory : std::errc::not_a_directory;
                return {code_of(why), nullptr, {}, nullptr};
            }
            at.directory = at.what;
            at.name = name;
            const auto found = at.directory->names_now.find(name);
            at.what = found == at.directory->names_now.end() ? nullptr : found->second;
        }
        return at;
    }
    place find_directory(const std::string& path) const {
        place at = find(path);
        if (at.code) { return at; }
        if (at.what == nullptr) { at.code = code_of(std::errc::no_such_file_or_directory); }
        if (at.what != nullptr && !at.what->is_directory) { at.code = code_of(std::errc::not_a_directory); }
        return at;
    }
    node& expect(const std::string& path) const {
        const place at = find(path);
        if (at.code || at.what == nullptr || at.what->is_directory) { absent(path); }
        return *at.what;
    }

    // Both answer why not, or nothing; where memory runs out nothing has changed.
    std::error_code change_names(node& directory, naming c) {
        if (set.read_only) { return code_of(std::errc::read_only_file_system); }
        c.order = ++set.order;
        directory.namings.push_back(c);
        try {
            c.apply(directory.names_now);
        } catch (...) {
            directory.namings.pop_back();
            throw;
        }
        return {};
    }
    std::error_code change_bytes(node& n, change c) {
        if (set.read_only) { return code_of(std::errc::read_only_file_system); }
        if (n.changes.size() == n.changes.capacity()) { n.changes.reserve(n.changes.size() * 2 + 4); }
        c.apply(n.now);
        c.order = ++set.order;
        n.changes.push_back(std::move(c));
        return {};
    }

    std::uint64_t shorten(std::optional<dice>& chance, std::uint64_t amount) noexcept {
        if (!chance || amount == 0) { return amount; }
        return chance->below(8) == 0 ? interrupted : 1 + chance->below(amount);
    }
    static std::uint64_t used_by(const node& n) {
        std::uint64_t bytes = n.now.size();
        for (const auto& [name, what] : n.names_now) { bytes += used_by(*what); }
        return bytes;
    }
    // How many of so many bytes at that place there is room for.
    std::uint64_t fit(const node& n, std::uint64_t at, std::uint64_t amount) const {
        if (at + amount <= n.now.size() || set.capacity == std::numeric_limits<std::uint64_t>::max()) { return amount; }
        const std::uint64_t used = used_by(*root);
        const std::uint64_t end = n.now.size() + (set.capacity > used ? set.capacity - used : 0);
        return end <= at ? 0 : std::min(amount, end - at);
    }

    // Every file and directory, also those whose removal is not synced; in an order that is always the same.
    std::vector<std::shared_ptr<node>> all() const {
        std::vector<std::shared_ptr<node>> found{root};
        std::set<const node*> seen{root.get()};
        const auto take = [&](const std::shared_ptr<node>& n) {
            if (seen.insert(n.get()).second) { found.push_back(n); }
        };
        for (std::size_t i = 0; i < found.size(); ++i) {
            const std::shared_ptr<node> n = found[i];
            for (const auto& [name, what] : n->names_synced) { take(what); }
            for (const naming& c : n->namings) { take(c.what); }
            for (const auto& [name, what] : n->names_now) { take(what); }
        }
        return found;
    }
    // Everything unsynced is settled; then the power is back.
    void lose(loss what, dice chance) {
        const auto nodes = all();
        constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
        outage o{what, chance, never, never};
        std::vector<std::uint64_t> orders;
        std::uint64_t last_write = never;
        for (const auto& n : nodes) {
            for (const change& c : n->changes) {
                if (c.state == fate::durable) { continue; }
                orders.push_back(c.order);
                if (!c.is_cut && (last_write == never || c.order > last_write)) { last_write = c.order; }
            }
            for (const naming& c : n->namings) { orders.push_back(c.order); }
        }
        std::sort(orders.begin(), orders.end());
        if (what == loss::tail) {
            const auto kept = static_cast<std::size_t>(o.chance.below(orders.size() + 1));
            o.end = kept < orders.size() ? orders[kept] : never;
        }
        if (o.chance.coin()) { o.torn = what == loss::tail ? o.end : last_write; }
        for (const auto& n : nodes) { n->settle(o); }
        restart();
    }
    // Who had files open is gone.
    void restart() {
        for (const auto& n : all()) { n->locked_by = 0; }
        ++set.epoch;
        set.is_off = false;
        set.crash.reset();
    }
};

} // namespace simulation
} // namespace mailroom::testing
