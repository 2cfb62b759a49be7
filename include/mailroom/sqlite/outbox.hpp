// outbox: messages that wait in a table of the application's database, written by its own transactions, until somebody moves them to a queue or
// topic of a journal.
//
// A message is in the table if and only if its transaction committed; SQLite sees to that. What remains is to move it exactly once although two
// stores take part, and either may be the last to know. `relay` does so in rounds of one transaction and some sends each:
//
//   1. One transaction removes the rows of the round before, reads the next, and notes up to which row they go, and when that was.
//   2. They are sent, in order, each durable before the next. No transaction is open meanwhile.
//
// Killed in 2, or in 1 before its commit, nobody knows which of the noted rows were sent. So each goes under an id of its own (that of the outbox,
// its row, and 64 random bits made with it, or the id its sender gave it), and is sent again: the endpoint, which has to deduplicate by a window,
// knows those it has. That is certain while the ids are known. Whether they still are is decided by the note: what was begun longer ago than half
// the window is not sent again on a guess, but errc::in_doubt, until somebody says what to believe. Rows that were not noted were never sent.
// In one process nothing rests on the window: what was sent and could not be removed is remembered.
//
// Limits: one endpoint to an outbox, which is opened with its window each time. A power cut that takes back what SQLite called committed
// (`PRAGMA synchronous` below FULL) takes the transaction back, not the message that was moved; the random bits see to it that a later message in
// the same row is another. Threads: an outbox is used by one thread at a time, as its connection is; others have a connection and an outbox of
// their own on the same database. Who relays waits for who is relaying.
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

/// What this process knows of the moving of one outbox, whichever connection it is on.
struct outbox_progress {
    std::mutex moving;
    std::int64_t stamp = 0;    ///< of the note that the rest belongs to; another in the table: somebody else has moved since
    std::int64_t sent_to = 0;  ///< rows up to this are sent, and perhaps not removed
    std::int64_t doubt_to = 0; ///< of the others, those up to this may be

    /// The one of this identity, as long as somebody has it.
    static std::shared_ptr<outbox_progress> of(const std::string& identity) {
        static std::mutex mutex;
        static std::map<std::string, std::weak_ptr<outbox_progress>> all;
        const std::lock_guard lock(mutex);
        std::erase_if(all, [](const auto& known) { return known.second.expired(); });
        auto& known = all[identity];
        auto found = known.lock();
        if (found == nullptr) { known = found = std::make_shared<outbox_progress>(); }
        return found;
    }
};

/// A queue or topic of a journal, as the outbox sees it.
template <class T, class Persistence>
class outbox_target {
public:
    explicit outbox_target(queue<T, Persistence>& to) noexcept : queue_(&to) {}
    explicit outbox_target(topic<T, Persistence>& to) noexcept : topic_(&to) {}

    duration window() {
        deduplicator* const ids = queue_ != nullptr ? endpoint_access::core(*queue_).ids() : endpoint_access::core(*topic_).ids();
        return ids != nullptr ? ids->window() : duration::zero();
    }
    /// The time by which ids are forgotten, as the wall clock would show it.
    std::int64_t now() {
        const timing& t = queue_ != nullptr ? endpoint_access::core(*queue_).times() : endpoint_access::core(*topic_).common().time;
        return std::chrono::duration_cast<duration>(t.wall(t.now()).time_since_epoch()).count();
    }
    /// Never waits for room. As durable as the journal makes it, unless that is `none`.
    failure send(T& value, properties p) {
        if (queue_ != nullptr) {
            const auto done = queue_->try_send(std::move(value), std::move(p));
            return done ? failure(errc{}) : done.error();
        }
        const auto done = topic_->try_publish(std::move(value), std::move(p));
        return done ? failure(errc{}) : done.error();
    }
    /// What was sent is written, whatever the journal's durability. False: it could not be.
    bool write() {
        if (queue_ != nullptr) { return write(*endpoint_access::core(*queue_).journal()); }
        const auto& parts = endpoint_access::core(*topic_).partitions();
        return std::all_of(parts.begin(), parts.end(), [](const auto& part) { return write(*part->journal()); });
    }

private:
    static bool write(link<T>& to) {
        if (!to.commits()) { to.push(); }
        return to.commits() || !to.has_pending();
    }

    queue<T, Persistence>* queue_ = nullptr;
    topic<T, Persistence>* topic_ = nullptr;
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
                       "VALUES(?, random(), ?, ?, ?, ?, ?, ?, ?)"),
          any_(db_, "SELECT 1 FROM main.mailroom_outbox WHERE box = ? LIMIT 1"),
          count_(db_, "SELECT count(*) FROM main.mailroom_outbox WHERE box = ?1 AND row > ?2 AND row <= ?3"),
          read_(db_, "SELECT row, nonce, time, type, version, fingerprint, content, properties, body FROM main.mailroom_outbox "
                     "WHERE box = ?1 AND row <= ?2 ORDER BY row LIMIT ?3"),
          remove_(db_, "DELETE FROM main.mailroom_outbox WHERE box = ?1 AND row <= ?2"),
          ask_note_(db_, "SELECT stamp, doubt_to, since FROM main.mailroom_outboxes WHERE box = ?"),
          note_(db_, "UPDATE main.mailroom_outboxes SET stamp = ?2, doubt_to = ?3, since = ?4 WHERE box = ?1"), random_(db_, "SELECT random()"),
          progress_(detail::outbox_progress::of(box_.identity)) {}
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
    /// meanwhile; returns how many. It stops, and returns, where the endpoint is full. Nothing calls it but the application: after a commit, when it starts, before
    /// it receives. Its transactions are short and of its own; none is open while it sends.
    /// Throws errc::invalid for an endpoint without deduplicate.window, or one below a second; errc::in_use while the connection is in a transaction, or the database is
    /// locked; errc::type_mismatch where T cannot read what was sent; errc::in_doubt as said above; what `try_send` answers, but for full. What
    /// was moved until then is not moved again, and the message it stopped at, which the sentence names, stays the first.
    /// Cost: one transaction in `round` messages and one more, and a commit of the journal for each message.
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
    std::size_t size() { return count(0, last_row); }

    /// Of the messages that wait, how many may have been sent by a process that ended meanwhile.
    std::size_t in_doubt() {
        const std::lock_guard lock(progress_->moving);
        const note known = ask_note();
        return count(known.stamp == progress_->stamp ? progress_->sent_to : 0, known.doubt_to);
    }
    /// What to believe of those, after errc::in_doubt: that they were sent (they are removed), or that they were not (`relay` sends them). Returns how
    /// many. Look into the endpoint first: who believes wrongly loses them, or has them twice. Throws errc::in_use inside a transaction.
    std::size_t assume_sent() { return decide(true); }
    std::size_t assume_unsent() { return decide(false); }

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
    struct note {
        std::int64_t stamp = 0, doubt_to = 0, since = 0;
    };
    struct round {
        std::vector<row> rows;
        note before; ///< what is in doubt of them, and since when
    };
    static constexpr std::int64_t last_row = std::numeric_limits<std::int64_t>::max();

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
            "type TEXT NOT NULL, stamp INTEGER NOT NULL, doubt_to INTEGER NOT NULL, since INTEGER NOT NULL);"
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
            detail::sql_statement make(db_, "INSERT INTO main.mailroom_outboxes(name, identity, type, stamp, doubt_to, since) "
                                            "VALUES(?, lower(hex(randomblob(16))), '', 0, 0, 0)");
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
        if (to.window() < std::chrono::seconds(1)) {
            db_.refuse(errc::invalid,
                       "the endpoint has no deduplicate.window, or one of less than a second, so a message could be in it twice after a "
                       "crash; give it one of more than twice as long as the process may be down");
        }
        expect_no_transaction();
        const std::lock_guard lock(progress_->moving);
        std::size_t moved = 0;
        while (moved < at_most && is_any()) {
            const round now = begin_round(to.now(), std::min(options_.round, at_most - moved));
            if (now.rows.empty()) { return moved; }
            bool was_full = false;
            try {
                was_full = !send_round(to, now, moved);
            } catch (...) {
                end_round();
                throw;
            }
            if (was_full) { break; }
        }
        if (progress_->sent_to != 0) { clean_up(); }
        return moved;
    }
    std::size_t count(std::int64_t above, std::int64_t until) {
        detail::sql_statement::run rows(count_);
        rows.bind(box_.number).bind(above).bind(until).next();
        return static_cast<std::size_t>(rows.number(0));
    }
    bool is_any() {
        detail::sql_statement::run any(any_);
        return any.bind(box_.number).next();
    }
    note ask_note() {
        detail::sql_statement::run ask(ask_note_);
        if (!ask.bind(box_.number).next()) { db_.refuse(errc::not_found, "somebody has removed it from the table mailroom_outboxes"); }
        note n{ask.number(0), ask.number(1), ask.number(2)};
        // What this process noted last it knows better.
        if (n.stamp != 0 && n.stamp == progress_->stamp) { n.doubt_to = progress_->doubt_to; }
        return n;
    }
    void put_note(const note& n) { detail::sql_statement::run(note_).bind(box_.number).bind(n.stamp).bind(n.doubt_to).bind(n.since).finish(); }
    // What this process has sent is removed, within a transaction.
    void remove_sent(const note& n) {
        if (n.stamp == 0 || n.stamp != progress_->stamp || progress_->sent_to == 0) { return; }
        detail::sql_statement::run(remove_).bind(box_.number).bind(progress_->sent_to).finish();
    }
    std::vector<row> read(std::int64_t until, std::size_t limit) {
        std::vector<row> rows;
        detail::sql_statement::run r(read_);
        r.bind(box_.number).bind(until).bind(static_cast<std::int64_t>(std::min<std::uint64_t>(limit, 1u << 20)));
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

    std::int64_t draw_stamp() {
        detail::sql_statement::run draw(random_);
        draw.next();
        return draw.number(0) | 1; // never 0
    }

    // The transaction of step 1.
    round begin_round(std::int64_t now, std::size_t limit) {
        detail::sql_transactions::own changing(transactions_);
        round next;
        next.before = ask_note();
        remove_sent(next.before);
        if (next.before.doubt_to > 0) { next.rows = read(next.before.doubt_to, limit); } // those alone: the time that is noted is theirs
        if (next.rows.empty()) {
            next.before.doubt_to = 0;
            next.rows = read(last_row, limit);
        }
        note made = next.before;
        made.stamp = draw_stamp();
        if (made.doubt_to == 0 && !next.rows.empty()) { made.doubt_to = next.rows.back().number, made.since = now; }
        put_note(made);
        changing.commit();
        progress_->stamp = made.stamp;
        progress_->sent_to = 0;
        progress_->doubt_to = next.before.doubt_to;
        return next;
    }

    // Step 2. False: the endpoint is full.
    template <class Target>
    bool send_round(Target& to, const round& now, std::size_t& moved) {
        std::size_t n = 0;
        const auto settle = [&] { // what was accepted is written
            if (n == 0) { return; }
            const std::int64_t last = now.rows[n - 1].number;
            if (!to.write()) {
                progress_->doubt_to = std::max(progress_->doubt_to, last);
                db_.refuse(errc::io, "the journal could not write what was moved; it is moved again, and found to be there");
            }
            progress_->sent_to = last;
            moved += n;
        };
        bool was_full = false;
        try {
            for (const row& r : now.rows) {
                if (r.number <= now.before.doubt_to) { expect_known_ids(to, now.before, r); }
                failure why = send_one(to, r);
                if (why == errc::full) {
                    was_full = true;
                    break;
                }
                if (why.kind() != errc{}) { db_.refuse(why.kind(), describe(r) + why.what()); }
                ++n;
            }
        } catch (...) {
            settle();
            throw;
        }
        settle();
        return !was_full;
    }
    // Whether a send that answered so may have happened all the same.
    static bool is_uncertain(errc code) noexcept { return code == errc::io || code == errc::corrupt || code == errc::in_doubt; }
    static std::string describe(const row& r) { return "row " + std::to_string(r.number) + " of mailroom_outbox: "; }

    template <class Target>
    void expect_known_ids(Target& to, const note& n, const row& r) const {
        const std::int64_t age = to.now() - n.since;
        if (age < to.window().count() / 2) { return; }
        db_.refuse(errc::in_doubt,
                   describe(r) + "a process ended while it moved the rows up to " + std::to_string(n.doubt_to) +
                       ", longer ago than half the window in which the endpoint knows ids, so nobody can tell whether they are there; "
                       "look, and call assume_sent or assume_unsent");
    }

    // The one place that knows how a message is sent once: under an id that the endpoint deduplicates.
    template <class T, class Persistence>
    failure send_one(detail::outbox_target<T, Persistence>& to, const row& r) {
        const detail::decoder<T> decode = detail::decoder_for<T>(r.stored);
        if (decode == nullptr) { db_.refuse(errc::type_mismatch, describe(r) + detail::mismatch_sentence<T>(r.stored)); }
        properties p;
        std::optional<T> value;
        try {
            std::span<const std::byte> cover(r.properties);
            if (!cover.empty()) { p = detail::decode_properties(cover); }
            value.emplace(decode(r.body));
        } catch (const error& e) { db_.refuse(e.kind(), describe(r) + std::string(e.sentence())); }
        if (p.id.empty()) { p.id = box_.identity + '.' + std::to_string(r.number) + '.' + std::to_string(static_cast<std::uint64_t>(r.nonce)); }
        const duration waited(std::max<std::int64_t>(0, to.now() - r.time));
        if (p.delay > duration::zero()) { p.delay = std::max(duration::zero(), p.delay - waited); }
        if (p.time_to_live > duration::zero()) { p.time_to_live = std::max(duration(1), p.time_to_live - waited); }
        try {
            failure why = to.send(*value, std::move(p));
            if (is_uncertain(why.kind())) { progress_->doubt_to = std::max(progress_->doubt_to, r.number); }
            return why;
        } catch (...) {
            progress_->doubt_to = std::max(progress_->doubt_to, r.number);
            throw;
        }
    }

    // What was sent is removed, and of the rest it is noted what is known.
    void clean_up() {
        detail::sql_transactions::own changing(transactions_);
        note now = ask_note();
        remove_sent(now);
        if (now.stamp == progress_->stamp) { put_note(now); }
        changing.commit();
        progress_->sent_to = 0;
    }
    // The same while something else is on its way to be told. What cannot be done now is done by the next round.
    void end_round() noexcept {
        try {
            clean_up();
        } catch (...) {}
    }
    std::size_t decide(bool were_sent) {
        expect_no_transaction();
        const std::lock_guard lock(progress_->moving);
        detail::sql_transactions::own changing(transactions_);
        note now = ask_note();
        remove_sent(now);
        std::size_t n = 0;
        if (now.doubt_to > 0) {
            n = count(0, now.doubt_to);
            if (were_sent) { detail::sql_statement::run(remove_).bind(box_.number).bind(now.doubt_to).finish(); }
        }
        put_note(note());
        changing.commit();
        progress_->stamp = progress_->sent_to = progress_->doubt_to = 0;
        return n;
    }

    detail::sql_database db_;
    outbox_options options_;
    detail::sql_transactions transactions_;
    box box_;
    detail::sql_statement ask_type_, note_type_, insert_, any_, count_, read_, remove_, ask_note_, note_, random_;
    std::shared_ptr<detail::outbox_progress> progress_;
};

} // namespace mailroom
