#include <mailroom/sqlite/database.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace mailroom::detail;
using mailroom::errc;
using mailroom::error;

namespace {

struct memory_database {
    memory_database() { REQUIRE(sqlite3_open(":memory:", &handle) == SQLITE_OK); }
    memory_database(const memory_database&) = delete;
    memory_database& operator=(const memory_database&) = delete;
    ~memory_database() { CHECK(sqlite3_close(handle) == SQLITE_OK); }
    void run(const char* sql) { REQUIRE(sqlite3_exec(handle, sql, nullptr, nullptr, nullptr) == SQLITE_OK); }
    std::int64_t ask(const char* sql) {
        const sql_database db(handle, "the test");
        sql_statement s(db, sql);
        sql_statement::run r(s);
        REQUIRE(r.next());
        return r.number(0);
    }
    sqlite3* handle = nullptr;
};

template <class Call>
std::optional<errc> thrown_by(Call call, std::string* text = nullptr) {
    try {
        call();
    } catch (const error& e) {
        if (text != nullptr) { *text = e.what(); }
        return e.kind();
    }
    return std::nullopt;
}

} // namespace

TEST_CASE("sqlite database: its answers are ours, extended ones too") {
    CHECK(errc_of_sqlite(SQLITE_BUSY) == errc::in_use);
    CHECK(errc_of_sqlite(SQLITE_BUSY_SNAPSHOT) == errc::in_use);
    CHECK(errc_of_sqlite(SQLITE_LOCKED_SHAREDCACHE) == errc::in_use);
    CHECK(errc_of_sqlite(SQLITE_READONLY_DBMOVED) == errc::unsupported);
    CHECK(errc_of_sqlite(SQLITE_TOOBIG) == errc::too_large);
    CHECK(errc_of_sqlite(SQLITE_NOTADB) == errc::corrupt);
    CHECK(errc_of_sqlite(SQLITE_CORRUPT_INDEX) == errc::corrupt);
    CHECK(errc_of_sqlite(SQLITE_ERROR) == errc::invalid);
    CHECK(errc_of_sqlite(SQLITE_FULL) == errc::io);
    CHECK(errc_of_sqlite(SQLITE_IOERR_FSYNC) == errc::io);
}

TEST_CASE("sqlite database: what goes wrong is said by name, with SQLite's own words") {
    memory_database m;
    const sql_database db(m.handle, "the outbox 'a'");
    std::string text;
    CHECK(thrown_by([&] { sql_statement(db, "SELECT * FROM no_such"); }, &text) == errc::invalid);
    CHECK_MESSAGE(text.find("the outbox 'a': SQLite says: no such table: no_such") != std::string::npos, text);
    CHECK(thrown_by([&] { db.raise(SQLITE_BUSY); }, &text) == errc::in_use);
    CHECK(text.find("sqlite3_busy_timeout") != std::string::npos);
    CHECK_THROWS_AS(db.raise(SQLITE_NOMEM), std::bad_alloc);
    CHECK(thrown_by([&] { db.refuse(errc::not_found, "it is gone"); }, &text) == errc::not_found);
    CHECK(text.find("the outbox 'a': it is gone") != std::string::npos);
    CHECK(thrown_by([] { sql_database(nullptr, "nobody"); }) == errc::invalid);
}

TEST_CASE("sqlite database: numbers, texts and bytes go there and back, empty ones as such and not as NULL") {
    memory_database m;
    m.run("CREATE TABLE t(n INTEGER NOT NULL, text TEXT NOT NULL, bytes BLOB NOT NULL)");
    const sql_database db(m.handle, "the test");
    sql_statement put(db, "INSERT INTO t VALUES(?, ?, ?)");
    const std::vector<std::byte> some{std::byte{0}, std::byte{255}, std::byte{0}};
    using std::string_view;
    sql_statement::run(put).bind(std::numeric_limits<std::int64_t>::min()).bind(string_view("a\0b", 3)).bind(std::span(some)).finish();
    sql_statement::run(put).bind(std::int64_t{0}).bind(string_view()).bind(std::span<const std::byte>()).finish();
    sql_statement get(db, "SELECT n, text, bytes FROM t ORDER BY rowid");
    sql_statement::run rows(get);
    REQUIRE(rows.next());
    CHECK(rows.number(0) == std::numeric_limits<std::int64_t>::min());
    CHECK(rows.text(1) == std::string("a\0b", 3));
    CHECK(rows.bytes(2) == some);
    REQUIRE(rows.next());
    CHECK(rows.number(0) == 0);
    CHECK(rows.text(1) == "");
    CHECK(rows.bytes(2).empty());
    CHECK_FALSE(rows.next());
}

TEST_CASE("sqlite database: a run that fails, or ends in the middle, leaves the statement ready, with nothing bound") {
    memory_database m;
    m.run("CREATE TABLE t(n INTEGER NOT NULL UNIQUE)");
    const sql_database db(m.handle, "the test");
    sql_statement put(db, "INSERT INTO t VALUES(?)");
    for (const std::int64_t n : {1, 2, 3}) { sql_statement::run(put).bind(n).finish(); }
    CHECK(thrown_by([&] { sql_statement::run(put).bind(std::int64_t{2}).finish(); }) == errc::io); // a constraint
    CHECK(thrown_by([&] { sql_statement::run(put).finish(); }) == errc::io);                       // NULL: the 2 is not there any more
    sql_statement::run(put).bind(std::int64_t{4}).finish();
    sql_statement get(db, "SELECT n FROM t");
    for (int i = 0; i < 2; ++i) {
        sql_statement::run rows(get);
        REQUIRE(rows.next());
        CHECK(rows.number(0) == 1);
    }
    CHECK(m.ask("SELECT count(*) FROM t") == 4);
    CHECK(thrown_by([&] { sql_statement::run(put).bind(std::int64_t{5}).bind(std::int64_t{6}); }).has_value()); // one too many
}

TEST_CASE("sqlite database: a transaction of our own is there once committed, else not at all") {
    memory_database m;
    m.run("CREATE TABLE t(n)");
    const sql_database db(m.handle, "the test");
    sql_transactions transactions(db);
    {
        sql_transactions::own one(transactions);
        CHECK(db.in_transaction());
        m.run("INSERT INTO t VALUES(1)");
    }
    CHECK_FALSE(db.in_transaction());
    CHECK(m.ask("SELECT count(*) FROM t") == 0);
    {
        sql_transactions::own one(transactions);
        m.run("INSERT INTO t VALUES(1)");
        one.commit();
        CHECK_FALSE(db.in_transaction());
    }
    CHECK(m.ask("SELECT count(*) FROM t") == 1);
    {
        const sql_transactions::own one(transactions);
        m.run("INSERT INTO t VALUES(2)");
        m.run("ROLLBACK"); // by somebody else, as SQLite itself does when the disk is full
    }
    CHECK(m.ask("SELECT count(*) FROM t") == 1);
}

TEST_CASE("sqlite database: a part of somebody else's transaction is taken back alone") {
    memory_database m;
    m.run("CREATE TABLE t(n)");
    const sql_database db(m.handle, "the test");
    sql_transactions transactions(db);
    m.run("BEGIN");
    m.run("INSERT INTO t VALUES(1)");
    {
        const sql_transactions::part lost(transactions);
        m.run("INSERT INTO t VALUES(10)");
    }
    {
        sql_transactions::part kept(transactions);
        m.run("INSERT INTO t VALUES(100)");
        {
            const sql_transactions::part inner(transactions);
            m.run("INSERT INTO t VALUES(1000)");
        }
        kept.keep();
    }
    CHECK(db.in_transaction());
    m.run("COMMIT");
    CHECK(m.ask("SELECT sum(n) FROM t") == 101);
}

TEST_CASE("sqlite database: tables are made once, for each part, all or none") {
    memory_database m;
    const sql_database db(m.handle, "the test");
    m.run("BEGIN");
    CHECK(thrown_by([&] { make_sql_tables(db, "a", 1, "CREATE TABLE a1(n);"); }) == errc::invalid);
    m.run("COMMIT");
    CHECK(thrown_by([&] { make_sql_tables(db, "a", 1, "CREATE TABLE a1(n); CREATE TABLE main.a1(n);"); }) == errc::invalid);
    CHECK(m.ask("SELECT count(*) FROM sqlite_master") == 0);
    make_sql_tables(db, "a", 1, "CREATE TABLE a1(n); CREATE TABLE a2(n);");
    make_sql_tables(db, "a", 1, "CREATE TABLE a1(n); CREATE TABLE a2(n);"); // they are there
    make_sql_tables(db, "b", 7, "CREATE TABLE b1(n);");
    CHECK(m.ask("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name LIKE '__'") == 3);
    std::string text;
    CHECK(thrown_by([&] { make_sql_tables(db, "b", 8, ""); }, &text) == errc::unsupported);
    CHECK(text.find("version 7") != std::string::npos);
    m.run("BEGIN");
    CHECK_NOTHROW(make_sql_tables(db, "b", 7, "")); // nothing is to be made
    m.run("COMMIT");
}
