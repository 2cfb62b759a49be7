// Where else a message could be kept on disk: RocksDB, SQLite in WAL mode, LMDB, as far as they are installed; and the disk itself.
//
// A store is a type made with a directory and the length of its bodies, with some of
//   send(body)              returns when it is on stable storage; many threads at once, where `shared`
//   send_batch(first, n)    the same for several at once; `keep_batch`: without waiting for the disk
//   drain() -> tally        counts and adds up what has come since the last call
// All are used in their quickest way that keeps the promise: a key that grows, one record a message.
#pragma once

#include "bodies.hpp"
#include "disk.hpp"
#include "results.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#if !defined(MAILROOM_BENCH_ROCKSDB)
# define MAILROOM_BENCH_ROCKSDB 0
#endif
#if !defined(MAILROOM_BENCH_SQLITE)
# define MAILROOM_BENCH_SQLITE 0
#endif
#if !defined(MAILROOM_BENCH_LMDB)
# define MAILROOM_BENCH_LMDB 0
#endif

#if MAILROOM_BENCH_ROCKSDB
# include <rocksdb/db.h>
# include <rocksdb/write_batch.h>
#endif
#if MAILROOM_BENCH_SQLITE
# include <sqlite3.h>
#endif
#if MAILROOM_BENCH_LMDB
# include <lmdb.h>
#endif

namespace bench {

/// A body of some length that carries a number.
inline std::string numbered_body(std::size_t length) { return std::string(length, 'm'); }
inline void number(std::string& body, std::uint64_t sender, std::uint64_t n) {
    const std::uint64_t word = n + (sender << 32);
    std::memcpy(body.data(), &word, sizeof word);
}
inline std::uint64_t number_of(std::string_view body) {
    std::uint64_t word = 0;
    if (body.size() >= sizeof word) { std::memcpy(&word, body.data(), sizeof word); }
    return word;
}

/// What came of what was sent.
struct tally {
    std::uint64_t messages = 0;
    std::uint64_t check = 0;

    void add(std::string_view body) {
        ++messages;
        check += number_of(body);
    }
    bool operator==(const tally&) const = default;
};

#if MAILROOM_BENCH_ROCKSDB
class rocks_store {
public:
    static constexpr bool shared = true;

    explicit rocks_store(std::size_t) {
        rocksdb::Options o;
        o.create_if_missing = true;
        o.recycle_log_file_num = 2; // its log is written over, too
        rocksdb::DB* made = nullptr;
        require(rocksdb::DB::Open(o, where_ / "rocksdb", &made));
        db_.reset(made);
    }
    void send(const std::string& body) {
        rocksdb::WriteOptions o;
        o.sync = true;
        const auto key = next_key();
        require(db_->Put(o, {key.data(), key.size()}, body));
    }
    void send_batch(const std::string* first, std::size_t n) { write(first, n, true); }
    void keep_batch(const std::string* first, std::size_t n) { write(first, n, false); }
    tally drain() {
        tally all;
        const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(rocksdb::ReadOptions()));
        const auto from = key_of(drained_);
        for (at->Seek({from.data(), from.size()}); at->Valid(); at->Next()) { all.add({at->value().data(), at->value().size()}); }
        require(at->status());
        drained_ = next_.load();
        return all;
    }

private:
    using key_bytes = std::array<char, 8>;
    static key_bytes key_of(std::uint64_t n) {
        key_bytes k{};
        for (unsigned i = 0; i < 8; ++i) { k[i] = static_cast<char>(n >> (56 - 8 * i)); }
        return k;
    }
    key_bytes next_key() { return key_of(next_.fetch_add(1)); }
    void write(const std::string* first, std::size_t n, bool sync) {
        rocksdb::WriteOptions o;
        o.sync = sync;
        batch_.Clear();
        for (std::size_t i = 0; i < n; ++i) {
            const auto key = next_key();
            batch_.Put({key.data(), key.size()}, first[i]);
        }
        require(db_->Write(o, &batch_));
    }
    static void require(const rocksdb::Status& s) {
        if (!s.ok()) { give_up("RocksDB: " + s.ToString()); }
    }
    scratch where_;
    std::unique_ptr<rocksdb::DB> db_;
    rocksdb::WriteBatch batch_;
    std::atomic<std::uint64_t> next_{0};
    std::uint64_t drained_ = 0;
};
#endif

#if MAILROOM_BENCH_SQLITE
class sqlite_store {
public:
    static constexpr bool shared = false;

    explicit sqlite_store(std::size_t) {
        sqlite3* made = nullptr;
        require(sqlite3_open((where_ / "sqlite").c_str(), &made));
        db_.reset(made);
        run("pragma journal_mode=wal");
        run("pragma synchronous=full");
        run("create table messages(number integer primary key, body blob)");
        insert_ = prepare("insert into messages(body) values(?)");
        begin_ = prepare("begin immediate");
        commit_ = prepare("commit");
    }
    void send(const std::string& body) { add(body); }
    void send_batch(const std::string* first, std::size_t n) {
        step(begin_);
        for (std::size_t i = 0; i < n; ++i) { add(first[i]); }
        step(commit_);
    }
    tally drain() {
        tally all;
        const statement read = prepare("select number, body from messages where number > ?");
        sqlite3_bind_int64(read.get(), 1, drained_);
        while (sqlite3_step(read.get()) == SQLITE_ROW) {
            drained_ = sqlite3_column_int64(read.get(), 0);
            all.add({static_cast<const char*>(sqlite3_column_blob(read.get(), 1)), static_cast<std::size_t>(sqlite3_column_bytes(read.get(), 1))});
        }
        return all;
    }

private:
    struct closing {
        void operator()(sqlite3* db) const noexcept { sqlite3_close(db); }
        void operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
    };
    using statement = std::unique_ptr<sqlite3_stmt, closing>;

    void require(int result) {
        if (result != SQLITE_OK) { give_up(std::string("SQLite: ") + (db_ != nullptr ? sqlite3_errmsg(db_.get()) : "cannot open")); }
    }
    void run(const char* text) { require(sqlite3_exec(db_.get(), text, nullptr, nullptr, nullptr)); }
    statement prepare(const char* text) {
        sqlite3_stmt* made = nullptr;
        require(sqlite3_prepare_v2(db_.get(), text, -1, &made, nullptr));
        return statement(made);
    }
    void step(statement& s) {
        if (sqlite3_step(s.get()) != SQLITE_DONE) { give_up(std::string("SQLite: ") + sqlite3_errmsg(db_.get())); }
        sqlite3_reset(s.get());
    }
    void add(const std::string& body) {
        require(sqlite3_bind_blob(insert_.get(), 1, body.data(), static_cast<int>(body.size()), SQLITE_STATIC));
        step(insert_);
    }
    scratch where_;
    std::unique_ptr<sqlite3, closing> db_;
    statement insert_, begin_, commit_;
    std::int64_t drained_ = 0;
};
#endif

#if MAILROOM_BENCH_LMDB
class lmdb_store {
public:
    static constexpr bool shared = false;

    explicit lmdb_store(std::size_t) {
        require(mdb_env_create(&env_));
        require(mdb_env_set_mapsize(env_, std::size_t{16} << 30));
        require(mdb_env_open(env_, where_.path().c_str(), 0, 0664));
        MDB_txn* t = nullptr;
        require(mdb_txn_begin(env_, nullptr, 0, &t));
        require(mdb_dbi_open(t, nullptr, MDB_INTEGERKEY, &messages_));
        require(mdb_txn_commit(t));
    }
    lmdb_store(const lmdb_store&) = delete;
    lmdb_store& operator=(const lmdb_store&) = delete;
    ~lmdb_store() { mdb_env_close(env_); }
    void send(const std::string& body) { send_batch(&body, 1); }
    void send_batch(const std::string* first, std::size_t n) {
        MDB_txn* t = nullptr;
        require(mdb_txn_begin(env_, nullptr, 0, &t));
        for (std::size_t i = 0; i < n; ++i) {
            std::uint64_t number = next_++;
            MDB_val key{sizeof number, &number}, value{first[i].size(), const_cast<char*>(first[i].data())};
            require(mdb_put(t, messages_, &key, &value, MDB_APPEND));
        }
        require(mdb_txn_commit(t));
    }
    tally drain() {
        tally all;
        MDB_txn* t = nullptr;
        MDB_cursor* at = nullptr;
        require(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &t));
        require(mdb_cursor_open(t, messages_, &at));
        MDB_val key{sizeof drained_, &drained_}, value{};
        for (int found = mdb_cursor_get(at, &key, &value, MDB_SET_RANGE); found == 0; found = mdb_cursor_get(at, &key, &value, MDB_NEXT)) {
            all.add({static_cast<const char*>(value.mv_data), value.mv_size});
        }
        mdb_cursor_close(at);
        mdb_txn_abort(t);
        drained_ = next_;
        return all;
    }

private:
    static void require(int result) {
        if (result != 0) { give_up(std::string("LMDB: ") + mdb_strerror(result)); }
    }
    scratch where_;
    MDB_env* env_ = nullptr;
    MDB_dbi messages_ = 0;
    std::uint64_t next_ = 0;
    std::uint64_t drained_ = 0;
};
#endif

/// The limit: records, nothing around them, written and synced `at_once`, on a file that was written before.
class disk_itself {
public:
    disk_itself(std::size_t length, std::size_t at_once) : length_(length), at_once_(at_once), file_(where_ / "raw", size_), buffer_(length * at_once, 'm') {
        if (buffer_.size() > size_) { give_up("a batch is larger than the raw file"); }
    }
    std::size_t at_once() const noexcept { return at_once_; }
    void write(const std::string* first, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) { std::memcpy(buffer_.data() + i * length_, first[i].data(), length_); }
        if (at_ + n * length_ > size_) { at_ = 0; }
        file_.write(buffer_.data(), n * length_, at_);
        file_.sync();
        at_ += n * length_;
    }

private:
    static constexpr std::size_t size_ = std::size_t{64} << 20;
    const std::size_t length_, at_once_;
    scratch where_;
    raw_file file_;
    std::vector<char> buffer_;
    std::size_t at_ = 0;
};

} // namespace bench
