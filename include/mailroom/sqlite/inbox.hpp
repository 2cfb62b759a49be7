// inbox: effects in SQLite that happen once for each message, however often it is delivered.
//
// One transaction notes the message's identity and runs the effect, so the note is there if and only if the effect is; then the message is
// acknowledged. Killed in between, it is delivered again, the note is found, and it is acknowledged without the effect.
//
// The identity is the message's `properties::id`, or else its place: partition and offset. So an inbox is for one queue or one subscription, whose
// places are never given again: one of a journal. For an endpoint in memory, whose offsets begin at 0 with each process, messages need ids.
//
// Room: `inbox_options::keep` notes of the last effects stay. A note is needed as long as its message may be delivered again: until its
// acknowledgement is durable, which in a journal is with the next commit. So what is in flight or waits for a retry with its effect done has to
// fit in `keep`; the default is a million. `prune_below` and `prune` are for who knows better. A message that is sent again under an
// id whose note is gone, a dead letter that lives again, or a `seek` to before that has its effect again.
// Threads: an inbox is used by one thread at a time, as its connection is.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/name.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/sqlite/database.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace mailroom {

/// How an inbox behaves.
struct inbox_options {
    std::size_t keep = 1'000'000;     ///< notes of the last effects; 0: all, until they are pruned
    mailroom::clock* clock = nullptr; ///< null: the system's. Says when effects were, for `prune`
};

/// The effects of one consumer. Of one thread at a time, like the connection, which has to stay open as long as this lives.
class inbox {
public:
    /// The inbox of this name in the connection's main database, whose table (mailroom_inbox) is made if it is not there. Throws as an outbox does.
    inbox(sqlite3* db, std::string name, inbox_options options = inbox_options())
        : db_(db, "the inbox '" + name + "'"), name_(checked(db_, std::move(name))), options_(options), transactions_(prepared(db_)),
          note_(db_, "INSERT INTO main.mailroom_inbox(name, id, n, at) "
                     "SELECT ?1, ?2, coalesce((SELECT max(n) FROM main.mailroom_inbox WHERE name = ?1), 0) + 1, ?3 WHERE true "
                     "ON CONFLICT(name, id) DO NOTHING"),
          ask_(db_, "SELECT 1 FROM main.mailroom_inbox WHERE name = ?1 AND id = ?2"),
          forget_(db_, "DELETE FROM main.mailroom_inbox WHERE name = ?1 AND n <= (SELECT max(n) FROM main.mailroom_inbox WHERE name = ?1) - ?2"),
          forget_by_age_(db_, "DELETE FROM main.mailroom_inbox WHERE name = ?1 AND at < ?2"),
          forget_by_place_(db_, "DELETE FROM main.mailroom_inbox WHERE name = ?1 AND id >= ?2 AND id < ?3"),
          count_(db_, "SELECT count(*) FROM main.mailroom_inbox WHERE name = ?") {}
    inbox(const inbox&) = delete;
    inbox& operator=(const inbox&) = delete;
    ~inbox() = default;

    /// Runs the effect unless that of this message has been, and acknowledges; answers whether it ran now. The effect is called as a handler is,
    /// `effect(const T&)`, `effect(const T&, const properties&)`, or `effect()`; all it does on this connection is part of the transaction, which it may not end.
    /// Throws what the effect throws: then it has not happened, and the delivery is not settled. errc::in_use if the connection is in
    /// a transaction, or the database is locked; errc::invalid if the effect ended the transaction; errc::io. None of these settles it. Cost: one transaction.
    template <class T, class Effect>
    requires std::invocable<Effect&, const T&, const properties&> || std::invocable<Effect&, const T&> || std::invocable<Effect&>
    bool once(delivery<T>& d, Effect effect) {
        if (db_.in_transaction()) {
            db_.refuse(errc::in_use, "the connection is in a transaction, and a message may be acknowledged only after its effect is committed; use "
                                     "once(id, effect) inside, and acknowledge yourself");
        }
        const bool ran = once_in_own(key_of(d), [&] {
            if constexpr (std::invocable<Effect&, const T&, const properties&>) {
                effect(d.body(), d.props());
            } else if constexpr (std::invocable<Effect&, const T&>) {
                effect(d.body());
            } else {
                effect();
            }
        });
        d.ack();
        return ran;
    }

    /// The same for what has an id from elsewhere: that of a message is its `properties::id`. Inside a transaction of the caller it becomes part of it:
    /// it has happened when that commits. Throws errc::invalid for an empty id.
    template <std::invocable Effect>
    bool once(std::string_view id, Effect effect) {
        const std::string key = key_of(id);
        if (!db_.in_transaction()) { return once_in_own(key, effect); }
        detail::sql_transactions::part changing(transactions_);
        if (!note(key)) { return false; }
        effect();
        expect_still_open();
        changing.keep();
        return true;
    }

    /// Whether the effect has been, and its note is kept.
    template <class T>
    bool contains(const delivery<T>& d) {
        return has(key_of(d));
    }
    bool contains(std::string_view id) { return has(key_of(id)); }
    /// How many notes there are. Counts them.
    std::size_t size() {
        detail::sql_statement::run count(count_);
        count.bind(name_).next();
        return static_cast<std::size_t>(count.number(0));
    }

    /// Forgets the effects of messages without an id before this place of a partition; returns how many. Safe below the first message that is not
    /// settled, once that is durable: `topic::subscriptions()` says it after `journal::flush()`.
    std::size_t prune_below(position settled) {
        if (settled.partition < 0) { db_.refuse(errc::invalid, "the partition is negative"); }
        return forget(forget_by_place_, place_key(settled.partition, 0), place_key(settled.partition, settled.offset));
    }
    /// Forgets effects of longer ago; returns how many. Safe where nothing that old is delivered again: the time that the program is down counts, so
    /// not for what has just been opened.
    std::size_t prune(duration older_than) {
        if (older_than < duration::zero()) { db_.refuse(errc::invalid, "the age is negative"); }
        detail::sql_statement::run r(forget_by_age_);
        r.bind(name_).bind(wall() - older_than.count()).finish();
        return static_cast<std::size_t>(sqlite3_changes(db_.handle()));
    }

private:
    static std::string checked(const detail::sql_database& db, std::string name) {
        try {
            detail::check_name(name);
        } catch (const error& e) { db.refuse(e.kind(), e.sentence()); }
        return name;
    }
    static const detail::sql_database& prepared(const detail::sql_database& db) {
        detail::make_sql_tables(db, "inbox", 1,
                                "CREATE TABLE main.mailroom_inbox(name TEXT NOT NULL, id TEXT NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL, "
                                "PRIMARY KEY(name, id)) WITHOUT ROWID;"
                                "CREATE UNIQUE INDEX main.mailroom_inbox_by_n ON mailroom_inbox(name, n);");
        return db;
    }

    // Ids and places do not meet: the first character says which it is. Places sort as they are.
    std::string key_of(std::string_view id) const {
        if (id.empty()) { db_.refuse(errc::invalid, "the id is empty"); }
        return std::string("=").append(id);
    }
    template <class T>
    std::string key_of(const delivery<T>& d) const {
        return d.props().id.empty() ? place_key(d.partition(), d.offset()) : key_of(d.props().id);
    }
    static std::string place_key(int partition, mailroom::offset at) {
        std::string key = "@";
        const auto put = [&key](std::uint64_t n, int digits) {
            for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
                key.push_back("0123456789abcdef"[(n >> static_cast<unsigned>(shift)) & 0xfU]);
            }
        };
        put(static_cast<std::uint64_t>(partition), 8);
        key.push_back('/');
        put(at, 16);
        return key;
    }
    std::int64_t wall() const {
        const mailroom::clock& c = options_.clock != nullptr ? *options_.clock : system_clock();
        return std::chrono::duration_cast<duration>(c.wall().time_since_epoch()).count();
    }

    template <class Effect>
    bool once_in_own(const std::string& key, Effect&& effect) {
        detail::sql_transactions::own changing(transactions_);
        if (!note(key)) { return false; }
        effect();
        expect_still_open();
        changing.commit();
        return true;
    }
    void expect_still_open() const {
        if (!db_.in_transaction()) { db_.refuse(errc::invalid, "the effect has ended the transaction it is a part of, or SQLite had to"); }
    }
    // False: it is there. Makes room for it.
    bool note(const std::string& key) {
        {
            detail::sql_statement::run r(note_);
            r.bind(name_).bind(key).bind(wall()).finish();
        }
        if (sqlite3_changes(db_.handle()) == 0) { return false; }
        if (options_.keep != 0) {
            detail::sql_statement::run r(forget_);
            r.bind(name_).bind(static_cast<std::int64_t>(std::min<std::uint64_t>(options_.keep, std::numeric_limits<std::int64_t>::max()))).finish();
        }
        return true;
    }
    bool has(const std::string& key) {
        detail::sql_statement::run ask(ask_);
        return ask.bind(name_).bind(key).next();
    }
    std::size_t forget(detail::sql_statement& which, const std::string& from, const std::string& to) {
        detail::sql_statement::run r(which);
        r.bind(name_).bind(from).bind(to).finish();
        return static_cast<std::size_t>(sqlite3_changes(db_.handle()));
    }

    detail::sql_database db_;
    std::string name_;
    inbox_options options_;
    detail::sql_transactions transactions_;
    detail::sql_statement note_, ask_, forget_, forget_by_age_, forget_by_place_, count_;
};

} // namespace mailroom
