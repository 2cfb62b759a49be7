// Real processes that are really killed while they buy, move what they sent from SQLite to a journal, and have effects of it in SQLite: at every
// single call that changes a file of either, and at any moment. What the transactions of the application say, which SQLite keeps, is held against the effects:
// one for each that committed, in order, none for those rolled back. MAILROOM_TEST_SCALE times 200 are killed at any moment.
#if defined(__unix__) || defined(__APPLE__)

# include <mailroom/journal.hpp>
# include <mailroom/sqlite.hpp>

# include "support/directory.hpp"
# include "support/environment.hpp"
# include "support/process.hpp"
# include "support/random.hpp"

# include <doctest/doctest.h>

# include <signal.h>
# include <sys/types.h>
# include <sys/wait.h>
# include <unistd.h>

# include <algorithm>
# include <chrono>
# include <cstddef>
# include <cstdint>
# include <cstdlib>
# include <exception>
# include <filesystem>
# include <span>
# include <stdexcept>
# include <string>
# include <system_error>
# include <vector>

using mailroom::durability;
using support::die;
using namespace std::chrono_literals;

namespace {

// ------------------------------------------------------------------------------------------------------------------------- where it is killed

// Of this process: how many calls that change a file may happen. The next does not, or half of it if it is a write.
constexpr std::uint64_t for_ever = UINT64_MAX;
std::uint64_t calls_left = for_ever;
bool dies_in_the_middle = false;

// True: the last call, a write, happens by half, and then nothing does.
bool is_last() {
    if (calls_left == for_ever) { return false; }
    if (calls_left == 0) {
        if (!dies_in_the_middle) { die(); }
        return true;
    }
    --calls_left;
    return false;
}
void count_call() {
    if (is_last()) { die(); }
}

// The files of the journal.
class mortal_files : public mailroom::posix_files {
public:
    using file = mailroom::posix_files::file;
    std::error_code open(const std::string& path, mailroom::detail::open_mode mode, file& out) const noexcept {
        if (mode == mailroom::detail::open_mode::create) { count_call(); }
        return posix_files::open(path, mode, out);
    }
    std::error_code write(file& f, std::uint64_t at, std::span<const std::span<const std::byte>> parts, std::size_t& written) const noexcept {
        if (is_last()) {
            const std::span<const std::byte> half[] = {parts.empty() ? std::span<const std::byte>() : parts[0].first(parts[0].size() / 2)};
            static_cast<void>(posix_files::write(f, at, half, written));
            die();
        }
        return posix_files::write(f, at, parts, written);
    }
    std::error_code truncate(file& f, std::uint64_t bytes) const noexcept { return count_call(), posix_files::truncate(f, bytes); }
    std::error_code rename(const std::string& from, const std::string& to) const noexcept { return count_call(), posix_files::rename(from, to); }
    std::error_code remove(const std::string& path) const noexcept { return count_call(), posix_files::remove(path); }
    std::error_code make_directory(const std::string& path) const noexcept { return count_call(), posix_files::make_directory(path); }
    // Processes end here, the system stays: what was written is there.
    std::error_code sync(file&) const noexcept { return {}; }
    std::error_code sync_all(file&) const noexcept { return {}; }
    std::error_code sync_directory(const std::string&) const noexcept { return {}; }
};

// Those of SQLite, which lets its calls to the system be replaced.
template <class Function>
Function real(const char* name) {
    sqlite3_vfs* const vfs = sqlite3_vfs_find(nullptr);
    return reinterpret_cast<Function>(vfs->xGetSystemCall(vfs, name));
}
using write_fn = ssize_t (*)(int, const void*, size_t);
using pwrite_fn = ssize_t (*)(int, const void*, size_t, off_t);
using truncate_fn = int (*)(int, off_t);
using unlink_fn = int (*)(const char*);
write_fn real_write = nullptr;
pwrite_fn real_pwrite = nullptr;
truncate_fn real_truncate = nullptr;
unlink_fn real_unlink = nullptr;

ssize_t mortal_write(int f, const void* from, size_t n) {
    if (is_last()) {
        static_cast<void>(real_write(f, from, n / 2));
        die();
    }
    return real_write(f, from, n);
}
ssize_t mortal_pwrite(int f, const void* from, size_t n, off_t at) {
    if (is_last()) {
        static_cast<void>(real_pwrite(f, from, n / 2, at));
        die();
    }
    return real_pwrite(f, from, n, at);
}
int mortal_truncate(int f, off_t n) { return count_call(), real_truncate(f, n); }
int mortal_unlink(const char* path) { return count_call(), real_unlink(path); }

// Returns whether SQLite writes by calls that are counted.
bool make_sqlite_mortal() {
    sqlite3_vfs* const vfs = sqlite3_vfs_find(nullptr);
    const char* const at_once = vfs->xGetSystemCall(vfs, "pwrite64") != nullptr ? "pwrite64" : "pwrite";
    real_write = real<write_fn>("write");
    real_pwrite = real<pwrite_fn>(at_once);
    real_truncate = real<truncate_fn>("ftruncate");
    real_unlink = real<unlink_fn>("unlink");
    const auto replace = [vfs](const char* name, auto by) {
        return vfs->xSetSystemCall(vfs, name, reinterpret_cast<sqlite3_syscall_ptr>(by)) == SQLITE_OK;
    };
    return (real_pwrite == nullptr || replace(at_once, &mortal_pwrite)) && replace("write", &mortal_write) &&
           replace("ftruncate", &mortal_truncate) && replace("unlink", &mortal_unlink);
}

// ----------------------------------------------------------------------------------------------------------------------------- the program

struct task {
    std::filesystem::path where;
    bool has_wal = false;
    mailroom::durability promise = durability::write;
    std::uint64_t seed = 1;
    unsigned turns = 0; // 0: until it is killed
};

using files_journal = mailroom::basic_journal<mortal_files>;
using purchases = mailroom::queue<std::int64_t, files_journal>;

// A shop: buys, which is sent; moves it; and receives, which has effects.
class shop {
public:
    explicit shop(const task& t)
        : db_(t), journal_(t.where / "journal", {.durability = t.promise, .segment_bytes = 64 << 10}),
          queue_(journal_, "purchases", {.lease = 0s, .retry = {.max_attempts = 0, .initial = 0s}}), out_(db_.handle, "purchases", {.round = 3}),
          in_(db_.handle, "effects") {}

    void buy(support::dice& chance) {
        db_.run("BEGIN");
        for (unsigned n = 1 + chance.below(3); n != 0; --n) {
            const auto id = static_cast<std::int64_t>(chance.below(1u << 30)) << 30 | static_cast<std::int64_t>(chance.below(1u << 30));
            db_.run("INSERT INTO purchases(id) VALUES(" + std::to_string(id) + ")");
            out_.send(id);
        }
        db_.run(chance.percent(30) ? "ROLLBACK" : "COMMIT");
    }
    void move(std::size_t at_most) { out_.relay(queue_, at_most); }
    bool receive(support::dice* chance) {
        auto d = queue_.try_receive();
        if (!d) { return false; }
        try {
            in_.once(*d, [&](std::int64_t id) {
                db_.run("INSERT INTO effects(id) VALUES(" + std::to_string(id) + ")");
                if (chance != nullptr && chance->percent(20)) { throw std::runtime_error("not today"); }
            });
        } catch (const std::runtime_error& e) {
            if (std::string(e.what()) != "not today") { throw; }
        }
        return true;
    }

    // Everything that is on its way arrives. Returns what is wrong.
    std::string finish() {
        move(SIZE_MAX);
        while (receive(nullptr)) {}
        if (out_.size() != 0) { return "something is left in the outbox"; }
        if (queue_.statistics().ready != 0 || queue_.dead().size() != 0) { return "something is left in the queue"; }
        const auto bought = db_.column("SELECT id FROM purchases ORDER BY n"), done = db_.column("SELECT id FROM effects ORDER BY n");
        for (std::size_t i = 0; i < std::max(bought.size(), done.size()); ++i) {
            if (i < bought.size() && i < done.size() && bought[i] == done[i]) { continue; }
            return "of " + std::to_string(bought.size()) + " purchases and " + std::to_string(done.size()) + " effects, number " + std::to_string(i) +
                   " differs: one is lost, doubled, invented or out of order";
        }
        return {};
    }
    std::size_t count() { return db_.column("SELECT id FROM effects").size(); }

private:
    struct database {
        explicit database(const task& t) {
            if (sqlite3_open((t.where / "db").c_str(), &handle) != SQLITE_OK) { throw std::runtime_error("the database does not open"); }
            run("PRAGMA synchronous = OFF"); // the system stays
            run(t.has_wal ? "PRAGMA journal_mode = WAL" : "PRAGMA journal_mode = DELETE");
            run("CREATE TABLE IF NOT EXISTS purchases(n INTEGER PRIMARY KEY, id INTEGER)");
            run("CREATE TABLE IF NOT EXISTS effects(n INTEGER PRIMARY KEY, id INTEGER)");
        }
        database(const database&) = delete;
        database& operator=(const database&) = delete;
        ~database() { sqlite3_close(handle); }
        void run(const std::string& sql) {
            if (sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
                throw std::runtime_error(sql + ": " + sqlite3_errmsg(handle));
            }
        }
        std::vector<std::int64_t> column(const char* sql) {
            std::vector<std::int64_t> all;
            sqlite3_stmt* s = nullptr;
            sqlite3_prepare_v2(handle, sql, -1, &s, nullptr);
            while (sqlite3_step(s) == SQLITE_ROW) { all.push_back(sqlite3_column_int64(s, 0)); }
            sqlite3_finalize(s);
            return all;
        }
        sqlite3* handle = nullptr;
    };

    database db_;
    files_journal journal_;
    purchases queue_;
    mailroom::outbox out_;
    mailroom::inbox in_;
};

// Says a byte for each thing it does; 'x' and a sentence if it fails.
[[noreturn]] void live(const task& t, int to) noexcept {
    const auto say = [to](char c) { support::say(to, c); };
    try {
        support::dice chance(t.seed);
        shop s(t);
        say('.');
        for (unsigned turn = 0; t.turns == 0 || turn < t.turns; ++turn) {
            s.buy(chance);
            say('.');
            if (chance.percent(60)) { s.move(chance.percent(50) ? SIZE_MAX : 1 + chance.below(4)); }
            say('.');
            for (unsigned n = chance.below(6); n != 0 && s.receive(&chance); --n) { say('.'); }
        }
        ::_exit(0);
    } catch (const std::exception& e) {
        say('x');
        for (const char* c = e.what(); *c != 0; ++c) { say(*c); }
    }
    ::_exit(1);
}

struct ending {
    bool was_killed = false;
    std::string trouble;
};

// Starts one, which is killed by itself after so many calls, or, if they are for_ever, from here after so many words or so much time.
ending live_and_die(const task& t, std::uint64_t calls, bool in_the_middle, std::size_t words, std::chrono::microseconds at_most) {
    support::process p([&](int to) {
        calls_left = calls;
        dies_in_the_middle = in_the_middle;
        if (!make_sqlite_mortal()) { ::_exit(2); }
        live(t, to);
    });
    ending e;
    const auto hear = [&](char c) {
        if (c == 'x' || !e.trouble.empty()) { e.trouble.push_back(c); }
    };
    if (calls == for_ever) {
        p.hear_some<char>(words, at_most, hear);
        p.kill();
    }
    p.hear_all<char>(hear);
    const int status = p.wait();
    e.was_killed = WIFSIGNALED(status);
    if (e.was_killed && WTERMSIG(status) != SIGKILL) { e.trouble += " ended by signal " + std::to_string(WTERMSIG(status)); }
    if (!e.was_killed && WEXITSTATUS(status) != 0) { e.trouble += " exit code " + std::to_string(WEXITSTATUS(status)); }
    return e;
}
ending live_and_die(const task& t, std::uint64_t calls, bool in_the_middle) { return live_and_die(t, calls, in_the_middle, 0, 0us); }

std::string finish(const task& t, std::size_t* effects = nullptr) {
    try {
        shop s(t);
        std::string wrong = s.finish();
        if (effects != nullptr) { *effects = s.count(); }
        return wrong;
    } catch (const std::exception& e) { return e.what(); }
}

} // namespace

TEST_CASE("sqlite kill: at every call that changes a file, of SQLite and of the journal; each purchase has its effect once") {
    const auto seed = support::seed();
    CAPTURE(seed);
    support::dice chance(seed);
    for (const bool has_wal : {false, true}) {
        CAPTURE(has_wal);
        for (std::uint64_t calls = 0;; ++calls) {
            CAPTURE(calls);
            const support::directory d;
            task t{d.path(), has_wal, durability::write, seed, 5};
            const ending first = live_and_die(t, calls, chance.percent(50));
            REQUIRE(first.trouble == "");
            if (!first.was_killed) {
                CHECK(calls > 40);
                std::size_t effects = 0;
                REQUIRE(finish(t, &effects) == "");
                MESSAGE(calls << " calls");
                break;
            }
            if (chance.percent(50)) { // and once more, soon after
                t.seed = seed + calls + 1;
                t.turns = 2;
                REQUIRE(live_and_die(t, chance.below(60), chance.percent(50)).trouble == "");
            }
            const std::string wrong = finish(t);
            REQUIRE(wrong == "");
        }
    }
}

TEST_CASE("sqlite kill: at any moment, again and again; each purchase has its effect once") {
    const auto seed = support::seed();
    CAPTURE(seed);
    support::dice chance(seed);
    const support::directory homes[2];
    std::size_t killed = 0;
    for (std::size_t cycle = 0, n = support::scaled(200); cycle < n; ++cycle) {
        CAPTURE(cycle);
        const bool has_wal = cycle % 2 != 0;
        const task t{homes[cycle % 2].path(), has_wal, chance.percent(50) ? durability::commit : durability::write, seed + cycle, 0};
        const ending e = live_and_die(t, for_ever, false, chance.percent(15) ? SIZE_MAX : chance.below(80),
                                      chance.percent(15) ? std::chrono::microseconds(chance.below(5000)) : std::chrono::microseconds(60'000));
        REQUIRE(e.trouble == "");
        killed += e.was_killed;
        if (chance.percent(30)) { // else the next one begins with what this one left
            const std::string wrong = finish(t);
            REQUIRE(wrong == "");
        }
    }
    CHECK(killed == support::scaled(200));
    for (const bool has_wal : {false, true}) {
        std::size_t effects = 0;
        const std::string wrong = finish({homes[has_wal ? 1 : 0].path(), has_wal, durability::commit, 0, 0}, &effects);
        REQUIRE(wrong == "");
        CHECK(effects > 0);
        MESSAGE(effects << " effects");
    }
}

#endif
