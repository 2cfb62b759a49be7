// The outbox and the inbox: what commits is sent once, what is delivered has its effect once; whatever fails, is locked, or is killed in between.
#include <mailroom/journal.hpp>
#include <mailroom/sqlite.hpp>
#include <mailroom/testing.hpp>

#include "support/directory.hpp"
#include "support/environment.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using mailroom::errc;
using mailroom::inbox;
using mailroom::outbox;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using namespace std::chrono_literals;

namespace {

struct order {
    int number = 0;
    std::string what;
};
struct other {
    int number = 0;
};

using sim_journal = mailroom::basic_journal<simulated_files>;
using sim_queue = mailroom::queue<int, sim_journal>;
using sim_topic = mailroom::topic<int, sim_journal>;

// A connection, as an application has one.
class connection {
public:
    explicit connection(const std::string& file = ":memory:", int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
        REQUIRE(sqlite3_open_v2(file.c_str(), &db, flags, nullptr) == SQLITE_OK);
    }
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;
    ~connection() { CHECK(sqlite3_close(db) == SQLITE_OK); }
    void run(const std::string& sql) const {
        char* why = nullptr;
        const int code = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &why);
        const std::string text = why != nullptr ? why : "";
        sqlite3_free(why);
        REQUIRE_MESSAGE(code == SQLITE_OK, sql << ": " << text);
    }
    std::vector<int> column(const std::string& sql) const {
        std::vector<int> all;
        sqlite3_stmt* s = nullptr;
        REQUIRE(sqlite3_prepare_v2(db, sql.c_str(), -1, &s, nullptr) == SQLITE_OK);
        while (sqlite3_step(s) == SQLITE_ROW) { all.push_back(sqlite3_column_int(s, 0)); }
        sqlite3_finalize(s);
        return all;
    }
    bool in_transaction() const { return sqlite3_get_autocommit(db) == 0; }
    operator sqlite3*() const noexcept { return db; } // NOLINT: it is used as one
    sqlite3* db = nullptr;
};

// What a call throws: its kind, and a part of its sentence.
template <class Call>
void refused(errc kind, const char* part, Call call) {
    try {
        call();
        FAIL("nothing was thrown; wanted: " << part);
    } catch (const mailroom::error& e) {
        CHECK_MESSAGE(e.kind() == kind, e.what());
        CHECK_MESSAGE(std::string_view(e.what()).find(part) != std::string_view::npos, e.what());
    }
}

template <class Queue>
auto take_all(Queue& from) {
    std::vector<std::remove_cvref_t<decltype(from.try_pop()->body())>> all;
    while (auto m = from.try_pop()) { all.push_back(std::move(*m).take()); }
    return all;
}
using ints = std::vector<int>;

// A database, as it is at some moment.
struct snapshot {
    snapshot() = default;
    snapshot(const snapshot& from) { *this = from; }
    snapshot& operator=(const snapshot& from) {
        sqlite3_backup* const b = sqlite3_backup_init(db, "main", from.db, "main");
        REQUIRE(b != nullptr);
        sqlite3_backup_step(b, -1);
        REQUIRE(sqlite3_backup_finish(b) == SQLITE_OK);
        return *this;
    }
    connection db;
};

// A journal on a disk of its own.
struct home {
    explicit home(mailroom::durability d = mailroom::durability::commit)
        : disk_journal("data", {.durability = d, .segment_bytes = 64 << 10, .clock = &clock}, disk) {}
    /// As another process finds it.
    void kill() {
        disk.process_kill();
        { const sim_journal over = std::move(disk_journal); }
        disk_journal = sim_journal("data", {.segment_bytes = 64 << 10, .clock = &clock}, disk);
    }
    manual_clock clock;
    simulated_files disk;
    sim_journal disk_journal;
};

} // namespace

// --------------------------------------------------------------------------------------------------------------------------------- outbox

TEST_CASE("outbox: a message is in the queue if and only if its transaction commits, in order") {
    home h;
    sim_queue q(h.disk_journal, "q");
    const connection db;
    outbox box(db, "numbers");
    db.run("BEGIN");
    box.send(1);
    box.send(2);
    db.run("COMMIT; BEGIN");
    box.send(3);
    db.run("ROLLBACK; BEGIN");
    box.send(4);
    db.run("SAVEPOINT s");
    box.send(5);
    db.run("ROLLBACK TO s");
    box.send(6);
    db.run("COMMIT");
    box.send(7); // a transaction of its own
    CHECK(box.size() == 5);
    CHECK(q.statistics().ready == 0);
    CHECK(box.relay(q, 2) == 2);
    CHECK(box.size() == 3);
    CHECK(box.relay(q) == 3);
    CHECK(box.relay(q) == 0);
    CHECK(box.size() == 0);
    CHECK(take_all(q) == ints{1, 2, 4, 6, 7});
    CHECK(q.statistics().duplicates == 0);
}

TEST_CASE("outbox: bodies, properties and types go through") {
    home h;
    mailroom::queue<order, sim_journal> q(h.disk_journal, "q", {.deduplicate = {.window = 1h}});
    const connection db;
    outbox box(db, "orders");
    box.send(order{7, "AAPL"}, {.key = "k", .subject = "s", .priority = 0, .headers = {{"region", "eu"}, {"retries", 3}}});
    box.send(order{8, ""}, {.id = "mine"});
    box.send(order{9, "with a \0 in it"});
    refused(errc::type_mismatch, "an outbox is for one type", [&] { box.send(other{1}); });
    refused(errc::invalid, "priority", [&] { box.send(order(), {.priority = 10}); });
    refused(errc::invalid, "negative", [&] { box.send(order(), {.delay = -1s}); });
    mailroom::queue<other, sim_journal> wrong(h.disk_journal, "wrong", {.deduplicate = {.window = 1h}});
    refused(errc::type_mismatch, "row 1 of mailroom_outbox", [&] { box.relay(wrong); });
    CHECK(box.size() == 3);
    CHECK(box.relay(q) == 3);

    auto d = q.try_receive();
    REQUIRE(d);
    CHECK(d->body().number == 7);
    CHECK(d->body().what == "AAPL");
    CHECK(d->props().key == "k");
    CHECK(d->props().subject == "s");
    CHECK(d->props().headers == mailroom::headers{{"region", "eu"}, {"retries", 3}});
    CHECK(d->props().id.empty());
    d->ack();
    CHECK(q.try_pop()->props().id == "mine");
    box.send(order{10, "again"}, {.id = "mine"}); // as `send` of the queue has it
    CHECK(box.relay(q) == 1);
    CHECK(q.statistics().duplicates == 1);
    CHECK(q.statistics().ready == 1);
}

TEST_CASE("outbox: rolled back, the type of the first message is not noted either") {
    const connection db;
    outbox box(db, "b");
    db.run("BEGIN");
    box.send(other{1});
    db.run("ROLLBACK");
    CHECK_NOTHROW(box.send(order{1, ""}));
    outbox same(db, "b");
    refused(errc::type_mismatch, "other", [&] { same.send(other{1}); });
}

TEST_CASE("outbox: a topic, each key in its partition") {
    home h;
    sim_topic t(h.disk_journal, "t", {.partitions = 3, .deduplicate = {.window = 1h}});
    auto s = t.subscribe("s");
    const connection db;
    outbox box(db, "b");
    for (int i = 0; i < 30; ++i) { box.send(i, {.key = std::to_string(i % 5)}); }
    CHECK(box.relay(t) == 30);
    std::vector<ints> by_key(5);
    while (auto m = s.try_pop()) { by_key[static_cast<std::size_t>(m->body() % 5)].push_back(m->body()); }
    for (int k = 0; k < 5; ++k) { CHECK(by_key[static_cast<std::size_t>(k)] == ints{k, k + 5, k + 10, k + 15, k + 20, k + 25}); }
}

TEST_CASE("outbox: several in one database keep apart; each is found again by its name") {
    home h;
    sim_queue q(h.disk_journal, "q");
    const support::directory d;
    {
        const connection db(d / "db");
        outbox a(db, "a"), b(db, "b");
        a.send(1);
        b.send(order{2, "x"});
        a.send(3);
    }
    const connection db(d / "db");
    outbox a(db, "a"), b(db, "b");
    CHECK(a.size() == 2);
    CHECK(b.size() == 1);
    CHECK(a.relay(q) == 2);
    CHECK(b.size() == 1);
    CHECK(take_all(q) == ints{1, 3});
}

TEST_CASE("outbox: what another connection has not committed is not moved, and in a transaction nothing is") {
    home h;
    sim_queue q(h.disk_journal, "q");
    const support::directory d;
    const connection app(d / "db"), mover(d / "db");
    app.run("PRAGMA journal_mode = WAL");
    outbox box(app, "b"), same(mover, "b");
    app.run("BEGIN");
    box.send(1);
    CHECK(same.relay(q) == 0); // it does not see it, and waits for nobody
    refused(errc::in_use, "in a transaction", [&] { box.relay(q); });
    CHECK(app.in_transaction());
    app.run("COMMIT");
    CHECK(same.relay(q) == 1);
    CHECK(box.relay(q) == 0);
    box.send(2);
    app.run("BEGIN IMMEDIATE"); // somebody writes, for longer than the other is willing to wait
    refused(errc::in_use, "sqlite3_busy_timeout", [&] { same.relay(q); });
    refused(errc::in_use, "locked", [&] { same.send(3); });
    CHECK(!mover.in_transaction());
    app.run("ROLLBACK");
    CHECK(same.relay(q) == 1);
    CHECK(take_all(q) == ints{1, 2});
}

TEST_CASE("outbox: an endpoint that is full gets the rest later, in order") {
    home h;
    sim_queue q(h.disk_journal, "q", {.max_messages = 2, .deduplicate = {.window = 1h}});
    const connection db;
    outbox box(db, "b", {.round = 3});
    for (int i = 1; i <= 5; ++i) { box.send(i); }
    CHECK(box.relay(q) == 2);
    CHECK(box.relay(q) == 0);
    CHECK(box.size() == 3);
    CHECK(take_all(q) == ints{1, 2});
    CHECK(box.relay(q) == 2);
    CHECK(take_all(q) == ints{3, 4});
    CHECK(box.relay(q) == 1);
    CHECK(take_all(q) == ints{5});
}

TEST_CASE("outbox: a message that the endpoint refuses is named, and stays the first") {
    home h;
    sim_queue q(h.disk_journal, "q", {.deduplicate = {.window = 1h}, .validate = [](const int& i, const mailroom::properties&) { return i != 3; }});
    const connection db;
    outbox box(db, "b");
    for (int i = 1; i <= 4; ++i) { box.send(i); }
    refused(errc::rejected, "row 3 of mailroom_outbox", [&] { box.relay(q); });
    CHECK(box.size() == 2);
    refused(errc::rejected, "row 3 of mailroom_outbox", [&] { box.relay(q); });
    db.run("DELETE FROM mailroom_outbox WHERE row = 3");
    CHECK(box.relay(q) == 1);
    CHECK(take_all(q) == ints{1, 2, 4});
    q.close();
    box.send(5);
    refused(errc::closed, "row 5", [&] { box.relay(q); });
    CHECK(box.size() == 1);
}

TEST_CASE("outbox: delays and times to live count from the moment of sending") {
    home h;
    sim_queue q(h.disk_journal, "q");
    const connection db;
    outbox box(db, "b", {.clock = &h.clock});
    box.send(1, {.delay = 10s});
    box.send(2, {.delay = 1min});
    box.send(3, {.time_to_live = 10s});
    box.send(4, {.time_to_live = 1min});
    h.clock.advance(20s);
    CHECK(box.relay(q) == 4);
    h.clock.advance(1ms);
    CHECK(take_all(q) == ints{1, 4});
    CHECK(q.dead().size() == 1);
    h.clock.advance(39s);
    CHECK(take_all(q) == ints{});
    h.clock.advance(1s);
    CHECK(take_all(q) == ints{2});
}

TEST_CASE("outbox: what was sent and could not be removed is not sent again") {
    home h;
    const support::directory d;
    const connection db(d / "db"), rude(d / "db");
    outbox box(db, "b");
    bool is_rude = true;
    sim_queue q(h.disk_journal, "q", {.deduplicate = {.window = 1h}, .validate = [&](const int& i, const mailroom::properties&) {
                                          if (i == 2 && is_rude) { rude.run("BEGIN IMMEDIATE"); } // no transaction is open while messages are sent
                                          return true;
                                      }});
    for (int i = 1; i <= 3; ++i) { box.send(i); }
    refused(errc::in_use, "locked", [&] { box.relay(q); });
    CHECK(q.statistics().ready == 3);
    CHECK(box.size() == 3);
    is_rude = false;
    rude.run("ROLLBACK");
    box.send(4);
    CHECK(box.relay(q) == 1);
    CHECK(take_all(q) == ints{1, 2, 3, 4});
    CHECK(q.statistics().duplicates == 0);
}

TEST_CASE("outbox: after a crash in the middle of a round it goes on where the endpoint ends, however much later") {
    home h;
    const support::directory d;
    std::optional<connection> db;
    db.emplace(d / "db");
    {
        outbox box(*db, "b", {.round = 4});
        // As the database is when the third is about to be sent: so a process that is killed there leaves it.
        sim_queue q(h.disk_journal, "q", {.validate = [&](const int& i, const mailroom::properties&) {
                        if (i == 3) { std::filesystem::copy_file(d / "db", d / "left", std::filesystem::copy_options::overwrite_existing); }
                        return i != 3;
                    }});
        for (int i = 1; i <= 6; ++i) { box.send(i); }
        refused(errc::rejected, "row 3", [&] { box.relay(q); });
        CHECK(box.size() == 4);
    }
    db.emplace(d / "left");
    outbox box(*db, "b");
    sim_queue q(h.disk_journal, "q");
    CHECK(box.size() == 6);
    CHECK(take_all(q) == ints{1, 2});
    h.clock.advance(24h * 365);
    CHECK(box.relay(q) == 4);
    CHECK(take_all(q) == ints{3, 4, 5, 6});
    CHECK(box.size() == 0);
    CHECK(q.statistics().duplicates == 0);
}

TEST_CASE("outbox: where the database has gone back in time nobody can tell what was sent, and somebody is asked") {
    home h;
    sim_queue q(h.disk_journal, "q");
    const support::directory d;
    {
        const connection db(d / "db");
        outbox box(db, "b");
        box.send(1);
        box.send(2);
        CHECK(box.relay(q) == 2);
        std::filesystem::copy_file(d / "db", d / "backup");
        for (int i = 3; i <= 5; ++i) { box.send(i); }
        CHECK(box.relay(q) == 3);
    }
    CHECK(take_all(q) == ints{1, 2, 3, 4, 5});
    const connection db(d / "backup");
    outbox box(db, "b");
    box.send(30); // a row that the endpoint has, of another message
    refused(errc::in_doubt, "up to row 5", [&] { box.relay(q); });
    box.send(40);
    box.send(50);
    box.send(60);
    refused(errc::in_doubt, "gone back in time", [&] { box.relay(q); });
    CHECK(box.size() == 4);
    db.run("BEGIN");
    refused(errc::in_use, "transaction", [&] { box.begin_anew(); });
    db.run("COMMIT");
    CHECK(box.begin_anew(3) == 1); // somebody found 30
    CHECK(box.relay(q) == 3);
    CHECK(take_all(q) == ints{40, 50, 60});
    box.send(7);
    CHECK(box.relay(q) == 1);
    CHECK(take_all(q) == ints{7});
}

TEST_CASE("outbox: it goes to one endpoint, unless somebody says that it begins anew") {
    home h;
    sim_queue q(h.disk_journal, "q"), other_one(h.disk_journal, "other");
    const connection db;
    outbox box(db, "b");
    box.send(1);
    CHECK(box.relay(q) == 1);
    box.send(2);
    refused(errc::in_doubt, "another one", [&] { box.relay(other_one); });
    CHECK(box.begin_anew() == 0);
    CHECK(box.relay(other_one) == 1);
    CHECK(take_all(other_one) == ints{2});
    CHECK(take_all(q) == ints{1});
}

TEST_CASE("outbox: a message among others that needs a commit of its own keeps its place") {
    home h;
    sim_queue q(h.disk_journal, "q", {.deduplicate = {.window = 1h}});
    const connection db;
    outbox box(db, "b");
    for (int i = 1; i <= 12; ++i) {
        if (i % 4 == 0) {
            box.send(i, {.id = std::to_string(i % 8)}); // 12 is a duplicate of 4
        } else {
            box.send(i, {.key = "k"});
        }
    }
    CHECK(box.relay(q) == 12);
    CHECK(box.size() == 0);
    CHECK(take_all(q) == ints{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
    CHECK(q.statistics().duplicates == 1);
    box.send(13, {.id = "4"}); // the last of its round: it has no number in the queue
    CHECK(box.relay(q) == 1);
    CHECK(box.size() == 0);
    CHECK(box.relay(q) == 0);
}

TEST_CASE("outbox: without durability what was moved is written before it is removed") {
    home h(mailroom::durability::none);
    const connection db;
    {
        sim_queue q(h.disk_journal, "q");
        sim_topic t(h.disk_journal, "t");
        outbox box(db, "b"), news(db, "n");
        for (int i = 1; i <= 3; ++i) { box.send(i), news.send(i); }
        CHECK(box.relay(q) == 3);
        CHECK(news.relay(t) == 3);
        h.kill(); // what is written stays
    }
    sim_queue q(h.disk_journal, "q");
    CHECK(take_all(q) == ints{1, 2, 3});
    sim_topic t(h.disk_journal, "t");
    CHECK(t.next_offset() == 3);
}

TEST_CASE("outbox: whichever write of the journal fails, nothing is lost, doubled or out of order") {
    for (const mailroom::durability promise : {mailroom::durability::commit, mailroom::durability::none}) {
        std::uint64_t n = 0;
        for (std::uint64_t failed = 1; failed != 0; ++n) {
            CAPTURE(n);
            home h(promise);
            sim_queue q(h.disk_journal, "q");
            const connection db;
            outbox box(db, "b", {.round = 3});
            for (int i = 1; i <= 7; ++i) { box.send(i); }
            h.disk.fail_write(n, std::make_error_code(promise == mailroom::durability::commit ? std::errc::no_space_on_device : std::errc::io_error));
            failed = 0;
            for (int turn = 0; turn < 3; ++turn) {
                try {
                    box.relay(q);
                } catch (const mailroom::error& e) {
                    CHECK(e.kind() == errc::io);
                    ++failed;
                }
            }
            CHECK(failed <= 1);
            CHECK(box.size() == 0);
            CHECK(take_all(q) == ints{1, 2, 3, 4, 5, 6, 7});
        }
        CHECK(n > 3); // a write for each round
    }
}

TEST_CASE("outbox: whichever sync of the journal fails, and whatever became of what it was for, nothing is lost or doubled") {
    for (const bool is_power_cut : {false, true}) {
        std::uint64_t n = 0;
        for (;; ++n) {
            CAPTURE(n);
            home h;
            const connection db;
            bool failed = false;
            {
                sim_queue q(h.disk_journal, "q");
                outbox box(db, "b", {.round = 3});
                for (int i = 1; i <= 5; ++i) { box.send(i); }
                h.disk.fail_sync(n, std::make_error_code(std::errc::io_error));
                try {
                    box.relay(q);
                } catch (const mailroom::error& e) {
                    CHECK(e.kind() == errc::io);
                    failed = true;
                }
                if (!failed) {
                    CHECK(take_all(q) == ints{1, 2, 3, 4, 5});
                    break;
                }
                CHECK_THROWS_AS(box.relay(q), mailroom::error); // nothing is written any more
            }
            if (is_power_cut) { h.disk.power_cut(n); }
            h.kill();
            sim_queue q(h.disk_journal, "q");
            outbox box(db, "b");
            box.relay(q);
            CHECK(box.size() == 0);
            CHECK(take_all(q) == ints{1, 2, 3, 4, 5});
        }
        CHECK(n > 1);
    }
}

TEST_CASE("outbox, inbox: the power is cut at every call of the journal; each message is there once, in order, and has its effect once") {
    // The database keeps what it committed; the journal loses what was not synced.
    const auto run = [](simulated_files files, const connection& db, bool sends) {
        db.run("CREATE TABLE IF NOT EXISTS purchases(id INTEGER); CREATE TABLE IF NOT EXISTS effects(id INTEGER)");
        sim_journal j("data", {.segment_bytes = 64 << 10}, files);
        sim_queue q(j, "q");
        outbox box(db, "b", {.round = 2});
        inbox in(db, "i");
        const auto receive_all = [&] {
            while (auto d = q.try_receive()) {
                in.once(*d, [&](const int& i) { db.run("INSERT INTO effects VALUES(" + std::to_string(i) + ")"); });
            }
        };
        for (int i = 1; i <= 6 && sends; ++i) {
            db.run("BEGIN");
            db.run("INSERT INTO purchases VALUES(" + std::to_string(i) + ")");
            box.send(i);
            db.run(i == 4 ? "ROLLBACK" : "COMMIT");
            if (i == 3) {
                box.relay(q);
                receive_all();
            }
        }
        box.relay(q);
        receive_all();
    };
    const auto live = [&](simulated_files files, snapshot& w) { run(files, w.db, true); };
    const auto look = [&](simulated_files files, const snapshot& w) {
        const snapshot again(w); // several disks are shown for one end of the program
        run(files, again.db, false);
        return again.db.column("SELECT id FROM effects ORDER BY rowid") == again.db.column("SELECT id FROM purchases ORDER BY rowid");
    };
    using mailroom::testing::crash_explorer;
    const auto found = crash_explorer().explore<snapshot>(live, look);
    CHECK_MESSAGE(found, found.text());
    CHECK(found.points > 60);
    const auto twice = crash_explorer({.limit = support::scaled(100), .seed = support::seed(), .lives = 2}).explore<snapshot>(live, look);
    CHECK_MESSAGE(twice, twice.text());
}

TEST_CASE("outbox: two threads move what a third sends, each by its own connection") {
    home h;
    sim_queue q(h.disk_journal, "q");
    const support::directory d;
    const int messages = static_cast<int>(support::scaled(100));
    const auto open = [&] {
        auto db = std::make_unique<connection>(d / "db");
        sqlite3_busy_timeout(*db, 60'000);
        return db;
    };
    {
        const auto db = open();
        db->run("PRAGMA journal_mode = WAL");
        const outbox box(*db, "b");
    }
    std::atomic<bool> done{false};
    std::atomic<std::size_t> moved{0};
    const auto work = [&] {
        const auto db = open();
        db->run("PRAGMA synchronous = OFF");
        outbox box(*db, "b", {.round = 3});
        for (bool last = false; !last;) {
            last = done.load();
            moved += box.relay(q);
        }
    };
    std::thread first(work), second(work);
    {
        const auto db = open();
        db->run("PRAGMA synchronous = OFF");
        outbox box(*db, "b");
        for (int i = 0; i < messages; ++i) { box.send(i); }
        done = true;
    }
    first.join();
    second.join();
    CHECK(moved == static_cast<std::size_t>(messages));
    const ints all = take_all(q);
    CHECK(all.size() == static_cast<std::size_t>(messages));
    CHECK(std::is_sorted(all.begin(), all.end()));
    CHECK(q.statistics().duplicates == 0);
}

// ---------------------------------------------------------------------------------------------------------------------------------- inbox

namespace {

struct accounts : connection {
    accounts() { run("CREATE TABLE effects(id INTEGER)"); }
    void add(int i) const { run("INSERT INTO effects VALUES(" + std::to_string(i) + ")"); }
    ints effects() const { return column("SELECT id FROM effects ORDER BY rowid"); }
};

} // namespace

TEST_CASE("inbox: an effect happens once for each message, however often it is delivered") {
    home h;
    sim_queue q(h.disk_journal, "q", {.retry = {.max_attempts = 0, .initial = 0s}, .deduplicate = {}});
    const accounts db;
    inbox in(db, "i"), elsewhere(db, "j");
    q.send(1);
    q.send(2, {.id = "two"});
    for (int i = 1; i <= 2; ++i) {
        auto d = q.try_receive();
        REQUIRE(d);
        CHECK(!in.contains(*d));
        CHECK(in.once(*d, [&](const int& body) { db.add(body); }));
        CHECK(!d->ack()); // it was
    }
    CHECK(q.statistics().acked == 2);
    CHECK(db.effects() == ints{1, 2});
    CHECK(in.contains("two"));
    CHECK(!elsewhere.contains("two"));
    q.send(3, {.id = "two"}); // the endpoint forgot the id, the inbox has not
    auto d = q.try_receive();
    CHECK(in.contains(*d));
    CHECK(!in.once(*d, [&] { FAIL("it has been"); }));
    CHECK(q.statistics().acked == 3);
    CHECK(db.effects() == ints{1, 2});
    CHECK(elsewhere.once("two", [&] { db.add(4); })); // another consumer
    CHECK(db.effects() == ints{1, 2, 4});
    CHECK(in.size() == 2);
}

TEST_CASE("inbox: killed between the effect and the acknowledgement, it is found to have been") {
    home h;
    const accounts db;
    const auto open = [&] { return sim_queue(h.disk_journal, "q", {.lease = 0s}); };
    {
        sim_queue q = open();
        q.send(1);
        q.send(2, {.id = "two"});
        inbox in(db, "i");
        for (int i = 1; i <= 2; ++i) {
            auto d = q.try_receive();
            in.once(*d, [&](const int& body, const mailroom::properties& p) { db.add(body + (p.id.empty() ? 0 : 10)); });
        }
        h.kill(); // before anybody committed the acknowledgements
    }
    sim_queue q = open();
    inbox in(db, "i");
    int found = 0;
    while (auto d = q.try_receive()) {
        CHECK(!in.once(*d, [&] { FAIL("it has been"); }));
        ++found;
    }
    CHECK(found == 2);
    CHECK(db.effects() == ints{1, 12});
    CHECK(q.statistics().ready == 0);
}

TEST_CASE("inbox: an effect that fails has not been, and its message is not settled") {
    home h;
    sim_queue q(h.disk_journal, "q", {.retry = {.initial = 0s}});
    const accounts db;
    inbox in(db, "i");
    q.send(1);
    {
        auto d = q.try_receive();
        CHECK_THROWS_AS(in.once(*d,
                                [&](const int& body) {
                                    db.add(body);
                                    throw std::runtime_error("no");
                                }),
                        std::runtime_error);
        CHECK(!db.in_transaction());
        CHECK(!in.contains(*d));
        CHECK(d->release());
    }
    {
        auto d = q.try_receive();
        refused(errc::invalid, "has ended the transaction", [&] {
            in.once(*d, [&](const int& body) {
                db.add(body);
                db.run("ROLLBACK");
            });
        });
        CHECK(!in.contains(*d));
    }
    CHECK(db.effects().empty());
    auto d = q.try_receive();
    CHECK(d->attempt() == 2);
    CHECK(in.once(*d, [&](const int& body) { db.add(body); }));
    CHECK(db.effects() == ints{1});
}

TEST_CASE("inbox: inside a transaction of the caller an effect is a part of it") {
    home h;
    sim_queue q(h.disk_journal, "q");
    q.send(1);
    const accounts db;
    inbox in(db, "i");
    auto d = q.try_receive();
    db.run("BEGIN");
    refused(errc::in_use, "after its effect is committed", [&] { in.once(*d, [] {}); });
    CHECK(db.in_transaction());
    CHECK(in.once("a", [&] { db.add(1); }));
    CHECK(!in.once("a", [&] { FAIL("it has been"); }));
    CHECK_THROWS_AS(in.once("b",
                            [&] {
                                db.add(2);
                                throw 1;
                            }),
                    int);
    CHECK(db.in_transaction());
    CHECK(in.once("c", [&] { db.add(3); }));
    CHECK(db.effects() == ints{1, 3});
    db.run("ROLLBACK");
    CHECK(db.effects().empty());
    CHECK(!in.contains("a"));
    CHECK(in.once("a", [&] { CHECK(in.once("d", [&] { db.add(4); })); })); // the inner one is a part of the outer
    CHECK(!db.in_transaction());
    CHECK(in.contains("d"));
    refused(errc::invalid, "empty", [&] { in.once("", [] {}); });
}

TEST_CASE("inbox: what it does goes out by an outbox of the same transaction") {
    home h;
    sim_queue q(h.disk_journal, "q"), answers(h.disk_journal, "answers");
    const connection db;
    inbox in(db, "i");
    outbox box(db, "b");
    q.send(1);
    q.send(2);
    while (auto d = q.try_receive()) {
        try {
            in.once(*d, [&](const int& i) {
                box.send(10 * i);
                if (i == 2 && d->attempt() == 1) { throw std::runtime_error("no"); }
            });
        } catch (const std::runtime_error&) { d->nack(0s); }
    }
    CHECK(box.relay(answers) == 2);
    CHECK(take_all(answers) == ints{10, 20});
}

TEST_CASE("inbox: its table is bounded") {
    const accounts db;
    inbox few(db, "few", {.keep = 3}), all(db, "all", {.keep = 0});
    for (int i = 1; i <= 10; ++i) {
        few.once(std::to_string(i), [] {});
        all.once(std::to_string(i), [] {});
    }
    CHECK(few.size() == 3);
    CHECK(!few.contains("7"));
    CHECK(few.contains("8"));
    CHECK(!few.once("8", [] {}));
    CHECK(few.contains("8"));
    CHECK(all.size() == 10);
    inbox one(db, "few", {.keep = 1});
    one.once("11", [] {});
    CHECK(one.size() == 1);
}

TEST_CASE("inbox: pruned by age and by place") {
    home h;
    const accounts db;
    inbox in(db, "i", {.clock = &h.clock});
    mailroom::topic<int, sim_journal> t(h.disk_journal, "t", {.partitions = 2, .deduplicate = {.window = 1h}});
    auto s = t.subscribe("s");
    for (int i = 0; i < 8; ++i) { t.publish(i, {.key = i < 4 ? "a" : "d"}); }
    REQUIRE(t.next_offset(0) == 4); // two keys, two partitions
    t.publish(8, {.key = "a", .id = "eight"});
    while (auto d = s.try_receive()) {
        in.once(*d, [] {});
    }
    CHECK(in.size() == 9);
    CHECK(in.prune_below({1, 3}) == 3);
    CHECK(in.prune_below({1, 3}) == 0);
    CHECK(in.size() == 6);
    CHECK(in.prune_below({0, 100}) + in.prune_below({1, 100}) == 5);
    CHECK(in.contains("eight"));
    refused(errc::invalid, "negative", [&] { in.prune_below({-1, 3}); });
    refused(errc::invalid, "negative", [&] { in.prune(-1s); });
    h.clock.advance(1h);
    in.once("late", [] {});
    CHECK(in.prune(2h) == 0);
    CHECK(in.prune(1min) == 1);
    CHECK(in.contains("late"));
    CHECK(in.size() == 1);
}

// ----------------------------------------------------------------------------------------------------------------------------- bad input

TEST_CASE("sqlite: what cannot work is refused with a sentence") {
    const support::directory d;
    refused(errc::invalid, "the sqlite3* is null", [] { outbox(nullptr, "b"); });
    refused(errc::invalid, "the sqlite3* is null", [] { inbox(nullptr, "i"); });
    const connection db(d / "db");
    refused(errc::invalid, "empty", [&] { outbox(db, ""); });
    refused(errc::invalid, "255", [&] { outbox(db, std::string(256, 'x')); });
    refused(errc::invalid, "UTF-8", [&] { inbox(db, "\xff"); });
    refused(errc::invalid, "empty", [&] { inbox(db, ""); });
    refused(errc::invalid, "round", [&] { outbox(db, "b", {.round = 0}); });
    CHECK(db.column("SELECT count(*) FROM sqlite_master") == ints{0}); // nothing was made of it

    db.run("BEGIN");
    refused(errc::invalid, "outside of transactions", [&] { outbox(db, "b"); });
    refused(errc::invalid, "outside of transactions", [&] { inbox(db, "i"); });
    db.run("COMMIT");
    { outbox(db, "b"), inbox(db, "i"); }
    db.run("BEGIN");
    CHECK_NOTHROW(outbox(db, "b"));
    CHECK_NOTHROW(inbox(db, "i"));
    refused(errc::invalid, "outside of transactions", [&] { outbox(db, "another"); });
    db.run("COMMIT");

    {
        const connection reads(d / "db", SQLITE_OPEN_READONLY);
        refused(errc::unsupported, "reading only", [&] { outbox(reads, "b"); });
        refused(errc::unsupported, "reading only", [&] { inbox(reads, "i"); });
    }
    {
        const connection impatient(d / "db");
        db.run("BEGIN EXCLUSIVE");
        refused(errc::in_use, "locked", [&] { outbox(impatient, "b"); });
        refused(errc::in_use, "locked", [&] { inbox(impatient, "i"); });
        db.run("COMMIT");
        outbox late(impatient, "b");
        inbox too(impatient, "i");
        db.run("BEGIN EXCLUSIVE");
        refused(errc::in_use, "locked", [&] { late.send(1); });
        refused(errc::in_use, "locked", [&] { too.once("1", [] { FAIL("without a lock"); }); });
        db.run("COMMIT");
        impatient.run("PRAGMA query_only = ON");
        refused(errc::unsupported, "readonly", [&] { late.send(1); });
    }
    db.run("UPDATE mailroom_parts SET version = 2");
    refused(errc::unsupported, "of version 2", [&] { outbox(db, "b"); });
    refused(errc::unsupported, "of version 2", [&] { inbox(db, "i"); });

    const connection foreign;
    foreign.run("CREATE TABLE mailroom_outbox(mine TEXT)");
    refused(errc::invalid, "mailroom_outbox", [&] { outbox(foreign, "b"); });
    CHECK(foreign.column("SELECT count(*) FROM sqlite_master") == ints{1});
    std::ofstream(d / "noise") << std::string(8192, '#');
    const connection noise(d / "noise");
    refused(errc::corrupt, "not a database", [&] { outbox(noise, "b"); });
}

TEST_CASE("sqlite: a table of damaged rows is refused, row by row") {
    home h;
    mailroom::queue<order, sim_journal> q(h.disk_journal, "q", {.deduplicate = {.window = 1h}});
    const connection db;
    outbox box(db, "b");
    box.send(order{1, "x"});
    db.run("UPDATE mailroom_outbox SET body = x'ffffffffffffffffff'");
    refused(errc::corrupt, "row 1", [&] { box.relay(q); });
    db.run("UPDATE mailroom_outbox SET properties = x'ffffffffffffffffff'");
    refused(errc::corrupt, "row 1", [&] { box.relay(q); });
    db.run("UPDATE mailroom_outbox SET version = 7");
    refused(errc::type_mismatch, "a newer program wrote it", [&] { box.relay(q); });
    CHECK(box.size() == 1);
    db.run("DELETE FROM mailroom_outboxes");
    refused(errc::not_found, "mailroom_outboxes", [&] { box.send(order()); });
    refused(errc::not_found, "mailroom_outboxes", [&] { box.relay(q); });
    CHECK(q.statistics().sent == 0);
}

TEST_CASE("sqlite: the connection cannot be closed as long as somebody uses it, and its limits are kept") {
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open(":memory:", &db) == SQLITE_OK);
    {
        outbox box(db, "b");
        CHECK(sqlite3_close(db) == SQLITE_BUSY);
        sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 10'000);
        refused(errc::too_large, "too big", [&] { box.send(std::string(20'000, 'x')); });
        CHECK(box.size() == 0);
        sqlite3_close_v2(db); // ends with the last statement
        CHECK_NOTHROW(box.send(std::string("late")));
    }
}
