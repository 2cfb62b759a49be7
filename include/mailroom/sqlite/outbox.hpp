// outbox: messages that wait in a table of the application's database, written by its own transactions, until somebody moves them to a queue or
// topic of a journal.
//
// A message is in the table if and only if its transaction committed; SQLite sees to that. What remains is to move it exactly once although two
// stores take part, and either may be the last to know. `relay` does so in rounds of one transaction and one commit of the journal each:
//
//   1. One transaction removes the rows that the endpoint has, and reads the next.
//   2. They are sent, in order. No transaction is open meanwhile.
//
// Which rows the endpoint has, it says itself: an outbox is a producer (store/producers.hpp), a row's place in the table its number, and an endpoint of
// a journal stores the last number of a producer in the same batch as its messages. Killed anywhere, the next round begins with the first row the
// endpoint does not have. A number is the row and 24 random bits that were made with it: should the database ever go back in time, by a backup, or by a power cut
// that takes back what SQLite called committed (`PRAGMA synchronous` below FULL), the row of the last number is gone or another. Then, and where the endpoint does
// not know the outbox though rows of it were moved, nobody can tell what the rows are: errc::in_doubt, until `begin_anew`.
//
// Limits: one endpoint to an outbox; 2^39 messages. Threads: an outbox is used by one thread at a time, as its connection is; others have a connection and
// an outbox of their own on the same database. Who relays waits for who is relaying in this process.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/name.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/message/byte_sink.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/properties_codec.hpp>
#include <mailroom/message/schema.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/sending.hpp>
#include <mailroom/sqlite/database.hpp>
#include <mailroom/store/intake.hpp>
#include <mailroom/store/link.hpp>
#include <mailroom/store/memory.hpp>
#include <mailroom/store/producers.hpp>
#include <mailroom/store/topic_core.hpp>
#include <mailroom/topic.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom {

/// How an outbox behaves.
struct outbox_options {
    std::size_t round = 256;          ///< rows that one transaction of `relay` takes, at least 1; they are in memory at once
    mailroom::clock* clock = nullptr; ///< null: the system's. Says when messages were sent, for delays and times to live
};

namespace detail {

/// Who moves the rows of one outbox in this process, whichever connection it is on: one at a time.
inline std::shared_ptr<std::mutex> outbox_turn(const std::string& identity) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<std::mutex>> all;
    const std::lock_guard lock(mutex);
    std::erase_if(all, [](const auto& known) { return known.second.expired(); });
    auto& known = all[identity];
    auto found = known.lock();
    if (found == nullptr) { known = found = std::make_shared<std::mutex>(); }
    return found;
}

/// A queue or topic of a journal, as the outbox sees it.
template <class T, class Persistence>
class outbox_target {
public:
    using messages = std::vector<std::pair<T, properties>>;

    explicit outbox_target(queue<T, Persistence>& to) noexcept : queue_(&endpoint_access::core(to)) {}
    explicit outbox_target(topic<T, Persistence>& to) noexcept : topic_(&endpoint_access::core(to)) {}

    /// The last number the endpoint has of this producer; 0: none.
    std::uint64_t last(std::string_view who) { return (queue_ != nullptr ? queue_->numbers() : topic_->numbers()).last(who); }
    /// Whether messages without ids or times may be sent several at once; those of a topic may belong to several partitions.
    bool takes_several() const noexcept { return queue_ != nullptr; }
    /// All or none, under one number. Never waits for room. As durable as the journal makes it, unless that is `none`.
    failure send(messages& some, const numbered& by) {
        for (const auto& [value, props] : some) {
            if (auto why = queue_ != nullptr ? queue_->objection(value, props) : topic_->objection(value, props)) { return *std::move(why); }
        }
        const result<offset> done =
            queue_ != nullptr ? queue_->try_send_numbered(some, by) : topic_->pick(&some.front().second).try_send_numbered(some, by);
        return done ? failure(errc{}) : done.error();
    }
    /// What was sent is written, whatever the journal's durability. False: it could not be.
    bool write() {
        if (queue_ != nullptr) { return write(*queue_->journal()); }
        const auto& parts = topic_->partitions();
        return std::all_of(parts.begin(), parts.end(), [](const auto& part) { return write(*part->journal()); });
    }

private:
    static bool write(link<T>& to) {
        if (to.commits()) { return true; }
        to.push();
        return !to.has_pending();
    }

    memory_core<T>* queue_ = nullptr;
    topic_core<T>* topic_ = nullptr;
};

} // namespace detail

/// Messages of one type that an application sends within its transactions in SQLite. Of one thread at a time, like the connection, which has to
/// stay open as long as this lives.
class outbox {
public:
    /// The outbox of this name in the connection's main database, which is made, with its tables (mailroom_...), if it is not there. Throws
    /// errc::invalid for a null handle, a name that is empty, over 255 bytes or not UTF-8, a round of 0, or tables that are to be made inside
    /// a transaction; errc::unsupported for a database that is read-only or has tables of another version; errc::in_use if it is locked;
    /// errc::io, errc::corrupt.
    outbox(sqlite3* db, std::string name, outbox_options options = outbox_options())
        : db_(db, "the outbox '" + name + "'"), options_(checked(db_, name, options)), transactions_(prepared(db_)), box_(find(name)),
          ask_type_(db_, "SELECT type FROM main.mailroom_outboxes WHERE box = ?"),
          note_type_(db_, "UPDATE main.mailroom_outboxes SET type = ?2 WHERE box = ?1"),
          insert_(db_, "INSERT INTO main.mailroom_outbox(box, nonce, time, type, version, fingerprint, content, properties, body) "
                       "VALUES(?, random() & 16777215, ?, ?, ?, ?, ?, ?, ?)"),
          any_(db_, "SELECT 1 FROM main.mailroom_outbox WHERE box = ? LIMIT 1"),
          count_(db_, "SELECT count(*) FROM main.mailroom_outbox WHERE box = ?"),
          first_(db_, "SELECT min(row) FROM main.mailroom_outbox WHERE box = ?"),
          ask_nonce_(db_, "SELECT nonce FROM main.mailroom_outbox WHERE box = ?1 AND row = ?2"),
          read_(db_, "SELECT row, nonce, time, type, version, fingerprint, content, properties, body FROM main.mailroom_outbox "
                     "WHERE box = ?1 ORDER BY row LIMIT ?2"),
          remove_(db_, "DELETE FROM main.mailroom_outbox WHERE box = ?1 AND row <= ?2"),
          ask_(db_, "SELECT generation, moved_to FROM main.mailroom_outboxes WHERE box = ?"),
          note_(db_, "UPDATE main.mailroom_outboxes SET generation = ?2, moved_to = ?3 WHERE box = ?1"), turn_(detail::outbox_turn(box_.identity)) {}
    outbox(const outbox&) = delete;
    outbox& operator=(const outbox&) = delete;
    ~outbox() = default;

    /// Writes a message into the table: it is sent if and only if the transaction that is open on the connection commits; without one, now.
    /// Delays and times to live count from here. Throws errc::type_mismatch for a T of another name than the first that was sent; errc::invalid for
    /// properties outside what is allowed; errc::in_use, errc::too_large, errc::io of SQLite, and what the codec throws. Then nothing was
    /// written, and the transaction is as SQLite leaves it: open, but where the disk is full or fails. Cost: two statements.
    template <class T>
    void send(const T& value) {
        send(value, no_properties);
    }
    template <class T>
    void send(const T& value, const properties& props) {
        detail::inspection<T>(nullptr).check(value, props);
        expect_type(type_name_v<T>, true);
        const detail::schema own = detail::schema_of<T>();
        byte_sink cover, body;
        if (props != no_properties) { detail::encode_properties(props, cover); }
        codec<T>::encode(value, body);
        detail::sql_statement::run insert(insert_);
        insert.bind(box_.number).bind(wall()).bind(own.type).bind(std::int64_t{own.version}).bind(static_cast<std::int64_t>(own.fingerprint));
        insert.bind(own.content).bind(cover.bytes()).bind(body.bytes()).finish();
    }

    /// Moves what is committed, `at_most` so many messages, to a queue or topic of a journal, in order, each exactly once whatever process is killed
    /// meanwhile; returns how many. It stops, and returns, where the endpoint is full. Nothing calls it but the application: after a commit, when it
    /// starts, before it receives. Its transactions are short and of its own; none is open while it sends.
    /// Throws errc::in_use while the connection is in a transaction, or the database is locked; errc::type_mismatch where T cannot read what was sent; errc::in_doubt
    /// as said above; what `try_send` answers, but for full. What was moved until then is not moved again, and the message it stopped at, which the
    /// sentence names, stays the first.
    /// Cost: a transaction and, on a queue without bounds, a commit of the journal for each `round` messages, and one transaction more. On topics and
    /// bounded queues, and for messages with ids, delays or times to live, a commit for each.
    template <class T, class Persistence>
    requires detail::is_journal<Persistence> std::size_t relay(queue<T, Persistence>& to,
                                                               std::size_t at_most = std::numeric_limits<std::size_t>::max()) {
        return move(detail::outbox_target<T, Persistence>(to), at_most);
    }
    template <class T, class Persistence>
    requires detail::is_journal<Persistence> std::size_t relay(topic<T, Persistence>& to,
                                                               std::size_t at_most = std::numeric_limits<std::size_t>::max()) {
        return move(detail::outbox_target<T, Persistence>(to), at_most);
    }

    /// How many messages wait. Inside a transaction those of its own count.
    std::size_t size() {
        detail::sql_statement::run rows(count_);
        rows.bind(box_.number).next();
        return static_cast<std::size_t>(rows.number(0));
    }

    /// After errc::in_doubt, or to go to another endpoint: believes that rows up to `sent_to` were sent, and removes them; all others are sent by the next `relay`, as
    /// if they never had been. Returns how many were removed. Look into the endpoint first: who believes wrongly loses messages, or has them
    /// twice. Throws errc::in_use inside a transaction.
    std::size_t begin_anew(std::int64_t sent_to = 0) {
        expect_no_transaction();
        const std::lock_guard lock(*turn_);
        detail::sql_transactions::own changing(transactions_);
        const state now = ask();
        detail::sql_statement::run(remove_).bind(box_.number).bind(sent_to).finish();
        const auto removed = static_cast<std::size_t>(sqlite3_changes(db_.handle()));
        put({now.generation + 1, 0});
        changing.commit();
        return removed;
    }

private:
    struct box {
        std::int64_t number = 0;
        std::string identity;
    };
    struct row {
        std::int64_t number = 0, nonce = 0, time = 0;
        detail::schema stored;
        std::vector<std::byte> properties, body;
    };
    struct round {
        std::string who; ///< the producer
        std::vector<row> rows;
    };
    struct state {
        std::int64_t generation = 0; ///< one more each time it began anew
        std::int64_t moved_to = 0;   ///< rows up to this were moved and removed
    };
    static constexpr unsigned nonce_bits = 24;

    static const outbox_options& checked(const detail::sql_database& db, const std::string& name, const outbox_options& o) {
        try {
            detail::check_name(name);
        } catch (const error& e) { db.refuse(e.kind(), e.sentence()); }
        if (o.round == 0) { db.refuse(errc::invalid, "outbox_options.round is 0"); }
        return o;
    }
    static const detail::sql_database& prepared(const detail::sql_database& db) {
        detail::make_sql_tables(
            db, "outbox", 1,
            "CREATE TABLE main.mailroom_outboxes(box INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity TEXT NOT NULL, "
            "type TEXT NOT NULL, generation INTEGER NOT NULL, moved_to INTEGER NOT NULL);"
            "CREATE TABLE main.mailroom_outbox(row INTEGER PRIMARY KEY AUTOINCREMENT, box INTEGER NOT NULL, nonce INTEGER NOT NULL, "
            "time INTEGER NOT NULL, type TEXT NOT NULL, version INTEGER NOT NULL, fingerprint INTEGER NOT NULL, "
            "content TEXT NOT NULL, properties BLOB NOT NULL, body BLOB NOT NULL);"
            "CREATE INDEX main.mailroom_outbox_by_box ON mailroom_outbox(box, row);");
        return db;
    }
    box find(const std::string& name) {
        const auto look = [&]() -> std::optional<box> {
            detail::sql_statement ask(db_, "SELECT box, identity FROM main.mailroom_outboxes WHERE name = ?");
            detail::sql_statement::run answer(ask);
            if (!answer.bind(name).next()) { return std::nullopt; }
            return box{answer.number(0), answer.text(1)};
        };
        if (auto found = look()) { return *std::move(found); }
        if (db_.in_transaction()) {
            db_.refuse(errc::invalid, "it is not there yet, and is made outside of transactions: make it before one is begun");
        }
        detail::sql_transactions::own making(transactions_);
        auto found = look();
        if (!found) {
            detail::sql_statement make(db_, "INSERT INTO main.mailroom_outboxes(name, identity, type, generation, moved_to) "
                                            "VALUES(?, lower(hex(randomblob(16))), '', 1, 0)");
            detail::sql_statement::run(make).bind(name).finish();
            found = look();
        }
        making.commit();
        return *std::move(found);
    }

    std::int64_t wall() const {
        const mailroom::clock& c = options_.clock != nullptr ? *options_.clock : system_clock();
        return std::chrono::duration_cast<duration>(c.wall().time_since_epoch()).count();
    }
    // One type to an outbox: that of the first message that was committed.
    void expect_type(std::string_view type, bool note_it) {
        std::string known;
        {
            detail::sql_statement::run ask(ask_type_);
            if (!ask.bind(box_.number).next()) { db_.refuse(errc::not_found, "somebody has removed it from the table mailroom_outboxes"); }
            known = ask.text(0);
        }
        if (known == type) { return; }
        if (!known.empty()) {
            db_.refuse(errc::type_mismatch, "it has messages of type " + known + ", not " + std::string(type) + "; an outbox is for one type");
        }
        if (note_it) { detail::sql_statement::run(note_type_).bind(box_.number).bind(type).finish(); }
    }
    void expect_no_transaction() const {
        if (db_.in_transaction()) {
            db_.refuse(errc::in_use,
                       "the connection is in a transaction; what it wrote is not committed yet. Relay afterwards, or by another connection");
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------- moving

    template <class Target>
    std::size_t move(Target to, std::size_t at_most) {
        expect_no_transaction();
        const std::lock_guard lock(*turn_);
        std::size_t moved = 0;
        std::int64_t done_to = 0; // rows up to this are the endpoint's, or dropped by it
        while (is_any()) {
            const round next = begin_round(to, done_to, std::min(options_.round, at_most - moved));
            if (next.rows.empty()) { break; }
            bool is_full = false;
            try {
                is_full = !send_round(to, next, done_to, moved);
            } catch (...) {
                try {
                    begin_round(to, done_to, 0);
                } catch (...) {} // the next call does it
                throw;
            }
            if (is_full) { at_most = moved; } // the next round only removes
        }
        return moved;
    }
    bool is_any() {
        detail::sql_statement::run any(any_);
        return any.bind(box_.number).next();
    }
    state ask() {
        detail::sql_statement::run answer(ask_);
        if (!answer.bind(box_.number).next()) { db_.refuse(errc::not_found, "somebody has removed it from the table mailroom_outboxes"); }
        return {answer.number(0), answer.number(1)};
    }
    void put(const state& s) { detail::sql_statement::run(note_).bind(box_.number).bind(s.generation).bind(s.moved_to).finish(); }
    std::string producer_name(const state& s) const { return "outbox " + box_.identity + '.' + std::to_string(s.generation); }
    static std::uint64_t number_of(const row& r) noexcept {
        return static_cast<std::uint64_t>(r.number) << nonce_bits | static_cast<std::uint64_t>(r.nonce);
    }

    // Step 1.
    template <class Target>
    round begin_round(Target& to, std::int64_t done_to, std::size_t limit) {
        if (!to.write()) { db_.refuse(errc::io, "the journal could not write what was moved; it is removed when that works"); }
        detail::sql_transactions::own changing(transactions_);
        state now = ask();
        const std::uint64_t last = to.last(producer_name(now));
        expect_same_history(now, last);
        done_to = std::max(done_to, static_cast<std::int64_t>(last >> nonce_bits));
        if (done_to > now.moved_to) {
            detail::sql_statement::run(remove_).bind(box_.number).bind(done_to).finish();
            now.moved_to = done_to;
            put(now);
        }
        round next{producer_name(now), {}};
        if (limit != 0) { next.rows = read(limit); }
        changing.commit();
        return next;
    }
    // Rows go from the front, and not beyond what the endpoint has: while some are there that it has, so is the last of them.
    void expect_same_history(const state& now, std::uint64_t last) {
        if (last == 0) {
            if (now.moved_to == 0) { return; }
            db_.refuse(errc::in_doubt,
                       "rows up to " + std::to_string(now.moved_to) +
                           " of mailroom_outbox were moved, and the endpoint knows nothing of it: it is another one, or has forgotten. "
                           "Look, and call begin_anew");
        }
        const auto row_of_last = static_cast<std::int64_t>(last >> nonce_bits);
        {
            detail::sql_statement::run first(first_);
            if (!first.bind(box_.number).next() || first.number(0) == 0 || first.number(0) > row_of_last) { return; }
        }
        detail::sql_statement::run nonce(ask_nonce_);
        if (nonce.bind(box_.number).bind(row_of_last).next() &&
            static_cast<std::uint64_t>(nonce.number(0)) == (last & ((std::uint64_t{1} << nonce_bits) - 1))) {
            return;
        }
        db_.refuse(errc::in_doubt,
                   "the endpoint has messages up to row " + std::to_string(row_of_last) +
                       " of mailroom_outbox, which is another or not there: the database has gone back in time, and nobody can tell which of "
                       "the rows up to that were moved. Look, and call begin_anew");
    }
    std::vector<row> read(std::size_t limit) {
        std::vector<row> rows;
        detail::sql_statement::run r(read_);
        r.bind(box_.number).bind(static_cast<std::int64_t>(std::min<std::uint64_t>(limit, 1u << 20)));
        while (r.next()) {
            row one;
            one.number = r.number(0);
            one.nonce = r.number(1);
            one.time = r.number(2);
            one.stored = {r.text(3), static_cast<std::uint32_t>(r.number(4)), static_cast<std::uint64_t>(r.number(5)), r.text(6)};
            one.properties = r.bytes(7);
            one.body = r.bytes(8);
            rows.push_back(std::move(one));
        }
        return rows;
    }

    // Step 2. False: the endpoint is full.
    template <class T, class Persistence>
    bool send_round(detail::outbox_target<T, Persistence>& to, const round& next, std::int64_t& done_to, std::size_t& moved) {
        const auto& [who, rows] = next;
        const auto now = wall();
        bool may_be_several = to.takes_several();
        for (std::size_t i = 0; i < rows.size();) {
            std::vector<std::pair<T, properties>> some; // one, or as many as are plain
            std::size_t end = i;
            for (bool is_more = true; is_more && end < rows.size();) {
                try {
                    some.push_back(decode<T>(rows[end], now));
                } catch (...) {
                    if (some.empty()) { throw; }
                    break; // its turn comes
                }
                is_more = may_be_several && is_plain(some.back().second);
                if (!is_more && some.size() > 1) {
                    some.pop_back();
                } else {
                    ++end;
                }
            }
            const failure why = to.send(some, {who, number_of(rows[end - 1])});
            if (why.kind() == errc{}) {
                done_to = rows[end - 1].number;
                moved += end - i;
                i = end;
            } else if (end - i > 1 && why != errc::io) {
                may_be_several = false; // one by one: which of them it is
            } else if (why == errc::full) {
                return false;
            } else {
                db_.refuse(why.kind(), describe(rows[i]) + why.what());
            }
        }
        return true;
    }
    static bool is_plain(const properties& p) noexcept { return p.id.empty() && p.delay == duration::zero() && p.time_to_live == duration::zero(); }
    static std::string describe(const row& r) { return "row " + std::to_string(r.number) + " of mailroom_outbox: "; }
    template <class T>
    std::pair<T, properties> decode(const row& r, std::int64_t now) const {
        const detail::decoder<T> read_as = detail::decoder_for<T>(r.stored);
        if (read_as == nullptr) { db_.refuse(errc::type_mismatch, describe(r) + detail::mismatch_sentence<T>(r.stored)); }
        properties p;
        try {
            std::span<const std::byte> cover(r.properties);
            if (!cover.empty()) { p = detail::decode_properties(cover); }
            const duration waited(std::max<std::int64_t>(0, now - r.time));
            if (p.delay > duration::zero()) { p.delay = std::max(duration::zero(), p.delay - waited); }
            if (p.time_to_live > duration::zero()) { p.time_to_live = std::max(duration(1), p.time_to_live - waited); }
            return {read_as(r.body), std::move(p)};
        } catch (const error& e) { db_.refuse(e.kind(), describe(r) + std::string(e.sentence())); }
    }

    detail::sql_database db_;
    outbox_options options_;
    detail::sql_transactions transactions_;
    box box_;
    detail::sql_statement ask_type_, note_type_, insert_, any_, count_, first_, ask_nonce_, read_, remove_, ask_, note_;
    std::shared_ptr<std::mutex> turn_;
};

} // namespace mailroom
