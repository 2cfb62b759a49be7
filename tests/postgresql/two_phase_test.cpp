// Two-phase commit between a journal and a PostgreSQL server, by a coordinator that is killed: at each of its steps, at each step of the recovery
// after that, and at any moment. Afterwards both sides tell the same story: each request was answered once, and applied once if the answer says so.
//
// The coordinator is the classical one, presumed abort: prepare on both sides, write down the decision to commit, commit on both sides, forget the
// decision. Whoever comes after it commits what is in doubt and decided, and rolls back the rest. Its decisions are a queue of the same journal.
#include <mailroom/journal.hpp>
#include <mailroom/transaction.hpp>

#include "../../examples/support/sql_session.hpp"
#include "support/directory.hpp"
#include "support/process.hpp"
#include "support/random.hpp"

#include <doctest/doctest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

namespace {

struct request {
    unsigned id = 0;
    unsigned from = 0, to = 0; // accounts
    int cents = 0;
};
struct answer {
    unsigned id = 0;
    bool is_done = false;
};

constexpr unsigned lanes = 3;      // accounts 2n and 2n + 1; what is prepared locks its rows, so that one transaction at a time is in a lane
constexpr int initial = 1'000'000; // cents on each account: enough for a night of small transfers

bool is_too_much(unsigned id) { return id % 4 == 2; }
bool meets_a_no(unsigned id) { return id % 4 == 3; } // at its first attempt, as if from a third party
request make_request(unsigned id) {
    const unsigned lane = id % lanes, swap = id / lanes % 2;
    return {id, lane * 2 + swap, lane * 2 + 1 - swap, is_too_much(id) ? 10'000'000 : static_cast<int>(id % 50) + 1};
}

// In memory, where there is such a place: no power is cut here, and what is written need not be waited for.
std::filesystem::path fast_place() {
    const std::filesystem::path memory = "/dev/shm";
    return ::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
}

// --------------------------------------------------------------------------------------------------------------------------- coordinator

/// Who prepares first; or the journal does not prepare at all: it commits, and its transaction brings the decision with it.
enum class way { database_first, journal_first, journal_decides };
struct habits {
    std::size_t at_once = 1; // transfers between their first and their last step
    way of = way::database_first;
    mailroom::durability promise = mailroom::durability::commit;
};

using stepper = std::function<void()>;

/// A disk whose user is told before and after whatever changes it.
class watched_files : public mailroom::posix_files {
public:
    watched_files() = default;
    explicit watched_files(stepper tell) : tell_(std::make_shared<stepper>(std::move(tell))) {}

    std::error_code write(file& f, std::uint64_t at, std::span<const std::span<const std::byte>> parts, std::size_t& written) const {
        return told([&] { return posix_files::write(f, at, parts, written); });
    }
    std::error_code sync(file& f) const {
        return told([&] { return posix_files::sync(f); });
    }
    std::error_code rename(const std::string& from, const std::string& to) const {
        return told([&] { return posix_files::rename(from, to); });
    }

private:
    template <class Call>
    std::error_code told(Call call) const {
        if (tell_ == nullptr || *tell_ == nullptr) { return call(); }
        (*tell_)();
        const std::error_code answer = call();
        (*tell_)();
        return answer;
    }
    std::shared_ptr<stepper> tell_; // copies mean the same disk
};
using disk = mailroom::basic_journal<watched_files>;
template <class T>
using kept = mailroom::queue<T, disk>;

class coordinator {
public:
    coordinator(const std::filesystem::path& where, const habits& how, stepper writing = stepper())
        : how_(how), disk_(where, {.durability = how.promise, .segment_bytes = 64 << 10}, watched_files(std::move(writing))),
          requests_(disk_, "requests", forever<request>()), answers_(disk_, "answers", forever<answer>()),
          decisions_(disk_, "decisions", forever<std::string>()) {
        // The server may not have noticed yet that who came before is dead, and be preparing what it asked for last. Its lock goes with it.
        database_.run("SELECT pg_advisory_lock(1)");
    }

    /// Decides about what is in doubt on either side.
    void recover(const stepper& step) {
        std::set<std::string> decided;
        std::vector<mailroom::delivery<std::string>> held; // not acknowledged before all is done
        while (auto d = decisions_.try_receive()) {
            decided.insert(d->body());
            held.push_back(std::move(*d));
        }
        step();
        const auto in_journal = [&] {
            for (const std::string& xid : disk_.in_doubt()) { end_in_journal(xid, decided.contains(xid)), step(); }
        };
        if (how_.of == way::journal_first) { in_journal(); }
        for (const std::string& xid : database_.column("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid")) {
            end_in_database(xid, decided.contains(xid)), step();
        }
        if (how_.of != way::journal_first) { in_journal(); }
        for (auto& d : held) { d.ack(), step(); }
    }

    /// Takes some requests and does what they ask for. False: there are none.
    bool work(const stepper& step) {
        std::vector<mailroom::delivery<request>> all;
        while (all.size() < how_.at_once) {
            auto d = requests_.try_receive();
            if (!d) { break; }
            const auto in_same_lane = [&](const auto& other) { return other.body().id % lanes == d->body().id % lanes; };
            if (std::any_of(all.begin(), all.end(), in_same_lane)) {
                d->release();
                break;
            }
            all.push_back(std::move(*d));
        }
        if (all.empty()) { return false; }
        step();
        std::vector<std::pair<std::string, bool>> prepared; // and what is decided about it
        for (auto& d : all) {
            const std::string xid = "transfer " + std::to_string(d.body().id);
            const bool yes = !meets_a_no(d.body().id) || d.attempt() > 1;
            if (prepare(xid, d, yes, step)) { prepared.emplace_back(xid, yes); }
        }
        all.clear(); // whoever held them lets go before they are decided about
        for (const auto& [xid, yes] : prepared) {
            if (yes && how_.of != way::journal_decides) { decisions_.send(xid), step(); }
        }
        for (const auto& [xid, yes] : prepared) {
            if (how_.of == way::journal_first) { end_in_journal(xid, yes), step(); }
            end_in_database(xid, yes), step();
            if (how_.of == way::database_first) { end_in_journal(xid, yes), step(); }
        }
        while (auto d = decisions_.try_receive()) { d->ack(), step(); }
        return true;
    }

    ::disk& journal() { return disk_; }
    sql::session& database() { return database_; }
    kept<request>& requests() { return requests_; }
    kept<answer>& answers() { return answers_; }
    kept<std::string>& decisions() { return decisions_; }

    /// However often whoever has it in hand dies, a message stays what it is.
    template <class T>
    static mailroom::queue_options<T> forever() {
        return {.retry = {.max_attempts = 0, .initial = 0s}};
    }

private:
    /// False: the database refused, and that is the answer.
    bool prepare(const std::string& xid, mailroom::delivery<request>& d, bool yes, const stepper& step) {
        const request r = d.body();
        const auto move = [](unsigned account, int cents) {
            return "UPDATE accounts SET cents = cents + " + std::to_string(cents) + " WHERE id = " + std::to_string(account);
        };
        database_.run("BEGIN");
        try {
            database_.run(move(r.from, -r.cents));
        } catch (const sql::error& e) {
            if (e.state != "23514") { throw; } // check_violation: not enough money
            database_.run("ROLLBACK");
            step();
            mailroom::transaction tx(disk_);
            tx.send(answers_, {r.id, false});
            tx.ack(d);
            tx.commit();
            step();
            return false;
        }
        database_.run(move(r.to, r.cents));
        database_.run("INSERT INTO applied VALUES (" + std::to_string(r.id) + ")");
        step();
        mailroom::transaction tx(disk_);
        tx.send(answers_, {r.id, true});
        tx.ack(d);
        if (how_.of == way::journal_first) { tx.prepare(xid), step(); }
        database_.run("PREPARE TRANSACTION '" + xid + "'"), step();
        if (how_.of == way::database_first) { tx.prepare(xid), step(); }
        if (how_.of == way::journal_decides && yes) {
            tx.send(decisions_, xid);
            tx.commit(), step();
        }
        return true;
    }
    void end_in_journal(const std::string& xid, bool yes) { yes ? disk_.commit(xid) : disk_.rollback(xid); }
    void end_in_database(const std::string& xid, bool yes) { database_.run((yes ? "COMMIT PREPARED '" : "ROLLBACK PREPARED '") + xid + "'"); }

    habits how_;
    disk disk_;
    kept<request> requests_;
    kept<answer> answers_;
    kept<std::string> decisions_;
    sql::session database_;
};

/// A process that recovers, works until there is nothing to do, and ends with 0. The child; never returns.
[[noreturn]] void live(const std::filesystem::path& where, const habits& how, const stepper& recovering, const stepper& working,
                       const stepper& writing = stepper()) noexcept {
    try {
        coordinator c(where, how, writing);
        c.recover(recovering);
        while (c.work(working)) {}
    } catch (const std::exception& e) {
        std::fprintf(stderr, "the coordinator: %s\n", e.what());
        ::_exit(1);
    }
    ::_exit(0);
}

enum class death { none, at_once }; // what became of a process
/// At which step it kills itself; 0: at none.
struct end_at {
    std::size_t of_recovery = 0, of_work = 0, of_writing = 0;
};
death live_until(const std::filesystem::path& where, const habits& how, const end_at& at) {
    support::process child([&](int) {
        const auto count = [](std::size_t last) {
            return [last, n = std::size_t{0}]() mutable {
                if (++n == last) { support::die(); }
            };
        };
        live(where, how, count(at.of_recovery), count(at.of_work), count(at.of_writing));
    });
    const int status = child.wait();
    if (WIFSIGNALED(status)) {
        REQUIRE(WTERMSIG(status) == SIGKILL);
        return death::at_once;
    }
    REQUIRE(WEXITSTATUS(status) == 0);
    return death::none;
}

// -------------------------------------------------------------------------------------------------------------------------------- oracle

/// A fresh bank, and what was asked of it.
class world {
public:
    world() {
        database_.run("DROP TABLE IF EXISTS accounts, applied");
        database_.run("CREATE TABLE accounts (id int PRIMARY KEY, cents int NOT NULL CHECK (cents >= 0))");
        database_.run("CREATE TABLE applied (request int NOT NULL)"); // not unique: the test is to find what comes twice, not the server
        database_.run("INSERT INTO accounts SELECT n, " + std::to_string(initial) + " FROM generate_series(0, " + std::to_string(lanes * 2 - 1) +
                      ") n");
    }

    /// So many requests more. What is in doubt stays so.
    void ask(const std::filesystem::path& where, unsigned n) {
        disk journal(where, {.segment_bytes = 64 << 10});
        kept<request> requests(journal, "requests", coordinator::forever<request>());
        for (unsigned i = 0; i < n; ++i) { requests.send(make_request(++last_)); }
    }
    /// Recovers, and holds the two sides against each other. Returns what is wrong. `is_over`: there is nothing left to do.
    std::string look(const std::filesystem::path& where, const habits& how, bool is_over) {
        coordinator c(where, how);
        c.recover([] {});
        if (!c.journal().in_doubt().empty()) { return "in doubt in the journal: " + c.journal().in_doubt().front(); }
        if (const auto all = database_.column("SELECT gid FROM pg_prepared_xacts"); !all.empty()) {
            return "in doubt in the database: " + all.front();
        }

        std::map<unsigned, unsigned> asked, done, refused, applied; // how often
        c.requests().browse([&](const mailroom::message<request>& m, mailroom::message_state s) {
            if (s == mailroom::message_state::in_flight) { asked[0] = 1; }
            return ++asked[m.body().id], true;
        });
        if (asked.contains(0)) { return "a request is still held"; }
        c.answers().browse(
            [&](const mailroom::message<answer>& m, mailroom::message_state) { return ++(m.body().is_done ? done : refused)[m.body().id], true; });
        for (const std::string& id : database_.column("SELECT request FROM applied")) { ++applied[static_cast<unsigned>(std::stoul(id))]; }
        std::vector<long> cents(lanes * 2, initial);
        for (unsigned id = 1; id <= last_; ++id) {
            const std::string name = "request " + std::to_string(id) + ": ";
            const request r = make_request(id);
            if (asked[id] + done[id] + refused[id] != 1) {
                return name + "asked " + std::to_string(asked[id]) + ", done " + std::to_string(done[id]) + ", refused " +
                       std::to_string(refused[id]);
            }
            if (applied[id] != done[id]) { return name + "done " + std::to_string(done[id]) + ", applied " + std::to_string(applied[id]); }
            if (refused[id] != 0 && !is_too_much(id)) { return name + "refused for nothing"; }
            if (is_over && asked[id] != 0) { return name + "is still there"; }
            cents[r.from] -= static_cast<int>(applied[id]) * r.cents;
            cents[r.to] += static_cast<int>(applied[id]) * r.cents;
        }
        if (asked.size() > last_ || done.size() > last_ || refused.size() > last_ || applied.size() > last_) {
            return "there is what nobody asked for";
        }
        for (unsigned i = 0; i < lanes * 2; ++i) {
            const long got = database_.number("SELECT cents FROM accounts WHERE id = " + std::to_string(i));
            if (got != cents[i]) { return "account " + std::to_string(i) + " has " + std::to_string(got) + " and not " + std::to_string(cents[i]); }
        }
        for (const auto& [name, s] : {std::pair{"requests", c.requests().statistics()}, std::pair{"answers", c.answers().statistics()},
                                      std::pair{"decisions", c.decisions().statistics()}}) {
            if (s.dead != 0) { return std::string("dead letters in ") + name; }
        }
        if (const auto s = c.decisions().statistics(); s.ready + s.in_flight + s.parked != 0) { return "a decision is not forgotten"; }
        if (const auto v = c.journal().verify(); !v.intact) { return "verify: " + v.damages.front().what; }
        return {};
    }
    /// Whatever is in doubt: money is neither made nor lost.
    long sum() { return database_.number("SELECT sum(cents) FROM accounts"); }

private:
    sql::session database_;
    unsigned last_ = 0;
};

// Of steps in recovery, and of writes, each; or each third where tests are to be short.
std::size_t stride() { return std::max<std::size_t>(1, 10 / support::scaled(10)); }

} // namespace

TEST_CASE("two phases with PostgreSQL: the coordinator is killed at each step, and again at each step of its recovery") {
    std::size_t deaths = 0, deaths_in_recovery = 0;
    for (const way of : {way::database_first, way::journal_first, way::journal_decides}) {
        for (const std::size_t at_once : {std::size_t{1}, std::size_t{3}}) {
            const habits how{at_once, of};
            CAPTURE(static_cast<int>(of));
            CAPTURE(at_once);
            bool is_killed = true;
            for (std::size_t step = 1; is_killed; ++step) {
                CAPTURE(step);
                bool again = true;
                for (std::size_t of_recovery = 0; again; of_recovery += of_recovery == 0 ? 1 : stride()) { // 0: it is not disturbed
                    CAPTURE(of_recovery);
                    const support::directory d(fast_place());
                    const auto where = d / "journal";
                    world w;
                    w.ask(where, 3); // one that is done, one that is refused, one that meets a no
                    is_killed = live_until(where, how, {.of_work = step}) == death::at_once;
                    deaths += is_killed ? 1 : 0;
                    if (is_killed && of_recovery != 0) {
                        again = live_until(where, how, {.of_recovery = of_recovery}) == death::at_once;
                        deaths_in_recovery += again ? 1 : 0;
                    }
                    again = again && is_killed;
                    const std::string wrong_then = w.look(where, how, false);
                    REQUIRE(wrong_then == "");
                    REQUIRE(live_until(where, how, {}) == death::none);
                    const std::string wrong = w.look(where, how, true);
                    REQUIRE(wrong == "");
                }
            }
        }
    }
    CHECK(deaths > 100 / stride());
    CHECK(deaths_in_recovery > 100 / stride());
    MESSAGE(deaths << " coordinators killed in their work, " << deaths_in_recovery << " in their recovery");
}

TEST_CASE("two phases with PostgreSQL: the coordinator is killed before and after each write of its journal, in its work and in its recovery") {
    std::size_t deaths = 0;
    // In its work; and in the recovery from a death after both have prepared, after the decision, after one of both was told.
    for (unsigned i = 0; i < 8; ++i) {
        const habits how{.of = i % 2 == 0 ? way::database_first : way::journal_first};
        const std::size_t first_death = std::array<std::size_t, 4>{0, 4, 5, 6}[i / 2];
        CAPTURE(static_cast<int>(how.of));
        CAPTURE(first_death);
        for (std::size_t step = 1, killed = 1; killed != 0; step += stride()) {
            CAPTURE(step);
            const support::directory d(fast_place());
            const auto where = d / "journal";
            world w;
            w.ask(where, first_death == 0 ? 3 : 1);
            if (first_death != 0) { REQUIRE(live_until(where, how, {.of_work = first_death}) == death::at_once); }
            killed = live_until(where, how, {.of_writing = step}) == death::at_once ? 1 : 0;
            deaths += killed;
            const std::string wrong_then = w.look(where, how, false);
            REQUIRE(wrong_then == "");
            REQUIRE(live_until(where, how, {}) == death::none);
            const std::string wrong = w.look(where, how, true);
            REQUIRE(wrong == "");
        }
    }
    CHECK(deaths > 50 / stride());
    MESSAGE(deaths << " coordinators killed at a write");
}

TEST_CASE("two phases with PostgreSQL: coordinators are killed at any moment") {
    const auto seed = support::seed();
    CAPTURE(seed);
    support::dice chance(seed);
    const support::directory d(fast_place());
    const auto where = d / "journal";
    world w;
    std::size_t killed = 0, in_doubt = 0;
    habits how;
    w.ask(where, 20);
    for (std::size_t cycle = 0, n = support::scaled(60); cycle < n; ++cycle) {
        CAPTURE(cycle);
        how = {1 + chance.below(lanes), static_cast<way>(chance.below(3)),
               chance.percent(50) ? mailroom::durability::commit : mailroom::durability::write};
        const unsigned words = chance.below(chance.percent(50) ? 6 : 40); // one a step: the first ones are of the recovery
        const auto more = std::chrono::microseconds(chance.below(3000));
        support::process child([&](int to) {
            const stepper say = [to] { support::say(to, 's'); };
            live(where, how, say, say);
        });
        char word = 0;
        for (unsigned i = 0; i < words && child.hear(word); ++i) {}
        for (const auto last = std::chrono::steady_clock::now() + more; std::chrono::steady_clock::now() < last;) {}
        child.kill();
        const int status = child.wait();
        REQUIRE((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
        killed += WIFSIGNALED(status) ? 1 : 0;

        REQUIRE(w.sum() == initial * lanes * 2);
        {
            disk journal(where, {.segment_bytes = 64 << 10});
            in_doubt += journal.in_doubt().size();
            if (chance.percent(20)) { journal.compact(); }
        }
        if (chance.percent(50)) {
            const std::string wrong = w.look(where, how, false);
            REQUIRE(wrong == "");
        }
        if (chance.percent(70)) { w.ask(where, 1 + chance.below(12)); }
    }
    REQUIRE(live_until(where, how, {}) == death::none);
    const std::string wrong = w.look(where, how, true);
    REQUIRE(wrong == "");
    CHECK(killed > 0);
    MESSAGE(killed << " coordinators killed, " << in_doubt << " transactions found in doubt");
}
