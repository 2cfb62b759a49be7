// database: somebody's connection to SQLite, what is prepared on it, and a transaction of our own on it. Nothing here opens or closes a
// connection, and nothing begins or ends a transaction where one is open already. One thread at a time, as for the connection itself.
#pragma once

#include <mailroom/base/error.hpp>

#include <sqlite3.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// What SQLite answered, as one of ours.
inline errc errc_of_sqlite(int code) noexcept {
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return errc::in_use;
    case SQLITE_READONLY: return errc::unsupported;
    case SQLITE_TOOBIG: return errc::too_large;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return errc::corrupt;
    case SQLITE_ERROR: // no such table, no such column
    case SQLITE_MISUSE: return errc::invalid;
    default: return errc::io;
    }
}

class sql_database {
public:
    /// `who` begins every sentence: "the outbox 'orders'". Throws errc::invalid for a null handle, errc::unsupported for a database that is
    /// open for reading only.
    sql_database(sqlite3* handle, std::string who) : handle_(handle), who_(std::move(who)) {
        if (handle_ == nullptr) { fail(errc::invalid, who_ + ": the sqlite3* is null; open the database first"); }
        if (sqlite3_db_readonly(handle_, "main") == 1) { fail(errc::unsupported, who_ + ": the database is open for reading only"); }
    }

    sqlite3* handle() const noexcept { return handle_; }
    const std::string& who() const noexcept { return who_; }
    bool in_transaction() const noexcept { return sqlite3_get_autocommit(handle_) == 0; }

    /// Throws what SQLite answered last, with its own words.
    [[noreturn, gnu::cold, gnu::noinline]] void raise(int code) const {
        if ((code & 0xff) == SQLITE_NOMEM) { throw std::bad_alloc(); }
        std::string text = who_ + ": SQLite says: " + (code == SQLITE_MISUSE ? sqlite3_errstr(code) : sqlite3_errmsg(handle_));
        if (errc_of_sqlite(code) == errc::in_use) {
            text += "; somebody else has a lock on the database: try again, or give it a sqlite3_busy_timeout";
        }
        fail(errc_of_sqlite(code), text);
    }
    [[noreturn, gnu::cold, gnu::noinline]] void refuse(errc code, std::string_view sentence) const {
        fail(code, std::string(who_).append(": ").append(sentence));
    }

private:
    sqlite3* handle_;
    std::string who_;
};

/// A statement, prepared once.
class sql_statement {
public:
    sql_statement(const sql_database& db, std::string_view text) : db_(&db) {
        sqlite3_stmt* made = nullptr;
        const int code = sqlite3_prepare_v3(db.handle(), text.data(), static_cast<int>(text.size()), SQLITE_PREPARE_PERSISTENT, &made, nullptr);
        if (code != SQLITE_OK) { db.raise(code); }
        prepared_.reset(made);
    }

    /// One run of it: values bound from the first on, then its rows. Its end makes the statement ready for the next.
    class run {
    public:
        explicit run(sql_statement& of) noexcept : db_(*of.db_), s_(of.prepared_.get()) {}
        run(const run&) = delete;
        run& operator=(const run&) = delete;
        ~run() {
            sqlite3_reset(s_);
            sqlite3_clear_bindings(s_);
        }

        run& bind(std::int64_t value) { return bound(sqlite3_bind_int64(s_, ++at_, value)); }
        /// The text and the bytes stay where they are until the run ends.
        run& bind(std::string_view text) { return bound(sqlite3_bind_text64(s_, ++at_, data(text), text.size(), SQLITE_STATIC, SQLITE_UTF8)); }
        run& bind(std::span<const std::byte> bytes) { return bound(sqlite3_bind_blob64(s_, ++at_, data(bytes), bytes.size(), SQLITE_STATIC)); }

        /// Goes to the next row; false: there is none.
        bool next() {
            const int code = sqlite3_step(s_);
            if (code == SQLITE_ROW) { return true; }
            if (code != SQLITE_DONE) { db_.raise(code); }
            return false;
        }
        /// All of it, where no rows are wanted.
        void finish() {
            while (next()) {}
        }

        std::int64_t number(int column) const noexcept { return sqlite3_column_int64(s_, column); }
        std::string text(int column) const {
            const auto* const first = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
            return {first != nullptr ? first : "", static_cast<std::size_t>(sqlite3_column_bytes(s_, column))};
        }
        std::vector<std::byte> bytes(int column) const {
            const auto* const first = static_cast<const std::byte*>(sqlite3_column_blob(s_, column));
            const auto size = static_cast<std::size_t>(sqlite3_column_bytes(s_, column));
            return first != nullptr ? std::vector<std::byte>(first, first + size) : std::vector<std::byte>();
        }

    private:
        // Null would be bound as NULL.
        static const char* data(std::string_view text) noexcept { return text.data() != nullptr ? text.data() : ""; }
        static const void* data(std::span<const std::byte> bytes) noexcept {
            return bytes.data() != nullptr ? static_cast<const void*>(bytes.data()) : "";
        }
        run& bound(int code) {
            if (code != SQLITE_OK) { db_.raise(code); }
            return *this;
        }

        const sql_database& db_;
        sqlite3_stmt* s_;
        int at_ = 0;
    };

private:
    struct finalizing {
        void operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
    };
    const sql_database* db_;
    std::unique_ptr<sqlite3_stmt, finalizing> prepared_;
};

/// Begins and ends transactions of our own.
class sql_transactions {
public:
    explicit sql_transactions(const sql_database& db)
        : db_(db), begin_(db, "BEGIN IMMEDIATE"), commit_(db, "COMMIT"), rollback_(db, "ROLLBACK"), save_(db, "SAVEPOINT mailroom"),
          release_(db, "RELEASE mailroom"), take_back_(db, "ROLLBACK TO mailroom") {}

    /// Takes the lock to write at once: what follows does not fail for want of it. Rolled back unless it was committed.
    class own {
    public:
        /// Nobody may have a transaction open on the connection.
        explicit own(sql_transactions& of) : of_(of) {
            assert(!of_.db_.in_transaction());
            sql_statement::run(of_.begin_).finish();
        }
        own(const own&) = delete;
        own& operator=(const own&) = delete;
        ~own() {
            if (is_open_ && of_.db_.in_transaction()) { quietly(of_.rollback_); }
        }
        void commit() {
            sql_statement::run(of_.commit_).finish();
            is_open_ = false;
        }

    private:
        sql_transactions& of_;
        bool is_open_ = true;
    };

    /// A part of somebody else's transaction. Taken back unless it was kept.
    class part {
    public:
        explicit part(sql_transactions& of) : of_(of) { sql_statement::run(of_.save_).finish(); }
        part(const part&) = delete;
        part& operator=(const part&) = delete;
        ~part() {
            if (is_open_ && of_.db_.in_transaction()) {
                quietly(of_.take_back_);
                quietly(of_.release_);
            }
        }
        void keep() {
            sql_statement::run(of_.release_).finish();
            is_open_ = false;
        }

    private:
        sql_transactions& of_;
        bool is_open_ = true;
    };

private:
    static void quietly(sql_statement& s) noexcept {
        try {
            sql_statement::run(s).finish();
        } catch (...) {} // SQLite has ended it by itself, or does so when the connection closes
    }

    const sql_database& db_;
    sql_statement begin_, commit_, rollback_, save_, release_, take_back_;
};

/// Makes the tables of one part ("outbox", "inbox"), all or none, unless they are there. `tables`: statements, with semicolons. Throws
/// errc::unsupported where another version made them, errc::invalid where they are missing and the connection is in a transaction.
inline void make_sql_tables(const sql_database& db, std::string_view part, std::int64_t version, const char* tables) {
    const auto execute = [&](const char* text) {
        if (const int code = sqlite3_exec(db.handle(), text, nullptr, nullptr, nullptr); code != SQLITE_OK) { db.raise(code); }
    };
    const auto is_there = [&] {
        {
            sql_statement look(db, "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'mailroom_parts'");
            if (!sql_statement::run(look).next()) { return false; }
        }
        sql_statement ask(db, "SELECT version FROM main.mailroom_parts WHERE part = ?");
        sql_statement::run answer(ask);
        if (!answer.bind(part).next()) { return false; }
        if (const std::int64_t found = answer.number(0); found != version) {
            db.refuse(errc::unsupported,
                      "its tables are of version " + std::to_string(found) + ", and this program knows version " + std::to_string(version) + " only");
        }
        return true;
    };
    if (is_there()) { return; }
    if (db.in_transaction()) {
        db.refuse(errc::invalid, "its tables are not there yet, and are made outside of transactions: make it before one is begun");
    }
    sql_transactions transactions(db);
    sql_transactions::own making(transactions);
    if (is_there()) { return; } // somebody else was faster
    execute("CREATE TABLE IF NOT EXISTS main.mailroom_parts(part TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID");
    execute(tables);
    sql_statement note(db, "INSERT INTO main.mailroom_parts VALUES(?, ?)");
    sql_statement::run(note).bind(part).bind(version).finish();
    making.commit();
}

} // namespace mailroom::detail
