// catalog: what a journal holds: its queues and topics, how their bodies are encoded, who subscribes, and what each cursor has settled.
//
// It is changed by records only, in their order: what a crash leaves is read back by the code that made it. Where messages lie is the
// segments' business (journal/segment.hpp). Not thread-safe.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/format.hpp>
#include <mailroom/journal/image.hpp>
#include <mailroom/journal/wire.hpp>
#include <mailroom/message/properties_codec.hpp>
#include <mailroom/message/schema.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

enum class endpoint_kind : std::uint8_t { queue = 1, topic = 2 };

/// What never changes of a queue or topic, and what it keeps for replay.
struct endpoint_shape {
    endpoint_kind kind = endpoint_kind::queue;
    std::uint32_t partitions = 1;
    std::uint32_t priorities = 1;
    bool ordered_by_key = false;
    std::int64_t dedup_window = 0; // nanoseconds: how long ids are kept after they were sent
    bool dedup_until_settled = false;

    friend bool operator==(const endpoint_shape&, const endpoint_shape&) = default;
};

/// A message id, for deduplication.
struct known_id {
    std::string id;
    std::uint32_t stream = 0;
    mailroom::offset offset = 0;
    std::int64_t time = 0; // when it was sent
};

/// What a producer numbered a message.
struct produced_number {
    std::uint64_t number = 0;
    std::uint32_t stream = 0;
    mailroom::offset offset = 0;
    std::uint64_t turn = 0; // the higher, the later
};

/// So many producers are remembered of an endpoint: those that were there last.
inline constexpr std::size_t most_producers = 4096;

struct stream_entry {
    std::uint32_t endpoint = 0; // the number of its first stream
    std::uint32_t partition = 0;
    offset next = 0;
    offset timed_until = 0;                                         // no message from here on has a time to live, or a delay, of its own
    std::int64_t expiry = std::numeric_limits<std::int64_t>::max(); // of those that have, none expires before
    refusals refused{};
};

struct cursor_entry {
    std::uint32_t stream = 0;
    cursor_image image;
};

struct subscription_entry {
    std::uint32_t mode = 0;
    std::uint32_t first_cursor = 0; // one a partition, in a row
};

/// A queue or a topic. Its number is that of its first stream; its streams, one a partition, follow in a row.
struct endpoint_entry {
    std::string name;
    endpoint_shape shape;
    std::vector<schema> schemas;                                          // by the number in the records
    std::map<std::string, subscription_entry, std::less<>> subscriptions; // a queue has one, without a name
    std::deque<known_id> ids;                                             // oldest first
    std::map<std::string, produced_number, std::less<>> producers;        // the last of each
};

/// A prepared transaction. Views into the bytes it was stored as.
struct prepared_content {
    struct message {
        std::uint32_t stream = 0;
        std::uint16_t schema = 0;
        std::uint32_t properties = 0;
        std::int64_t time = 0;
        bytes_view payload;
    };
    struct settled {
        std::uint32_t cursor = 0;
        mailroom::offset offset = 0;
    };
    std::vector<message> messages; // of one stream in a row
    std::vector<settled> places;

    void write(wire_writer& to) const {
        to.var(messages.size());
        for (const message& m : messages) {
            to.var(m.stream);
            to.var(m.schema);
            to.var(m.properties);
            to.i64(m.time);
            to.bytes(m.payload);
        }
        to.var(places.size());
        for (const settled& s : places) {
            to.var(s.cursor);
            to.var(s.offset);
        }
    }
    static prepared_content read(bytes_view all) {
        wire_reader from(all);
        prepared_content c;
        for (std::size_t n = from.count(12); n != 0; --n) {
            message m;
            m.stream = from.var_as<std::uint32_t>();
            m.schema = from.var_as<std::uint16_t>();
            m.properties = from.var_as<std::uint32_t>();
            m.time = from.i64();
            m.payload = from.bytes();
            if (m.properties > m.payload.size()) { fail(errc::corrupt, "a message shorter than its properties"); }
            c.messages.push_back(m);
        }
        for (std::size_t n = from.count(2); n != 0; --n) {
            settled s;
            s.cursor = from.var_as<std::uint32_t>();
            s.offset = from.var();
            c.places.push_back(s);
        }
        from.expect_end();
        return c;
    }
};

/// Messages that lie in a survivor segment from now on.
struct survivor_list {
    struct place {
        std::uint32_t stream = 0;
        mailroom::offset offset = 0;
        std::uint64_t skip = 0; // their positions less that of the segment
    };
    std::uint64_t first = 0;  // position of the segment
    std::uint64_t length = 0; // of what is in it, with them
    std::vector<place> places;

    void write(wire_writer& to) const {
        to.var(first - survivors_from);
        to.var(length);
        to.var(places.size());
        for (const place& p : places) {
            to.var(p.stream);
            to.var(p.offset);
            to.var(p.skip);
        }
    }
    static survivor_list read(wire_reader& from) {
        survivor_list l;
        const std::uint64_t first = from.var();
        l.length = from.var();
        if (first >= most_survivors || l.length >= most_survivors) { fail(errc::corrupt, "a survivor segment at an impossible place"); }
        l.first = survivors_from + first;
        for (std::size_t n = from.count(3); n != 0; --n) {
            place p;
            p.stream = from.var_as<std::uint32_t>();
            p.offset = from.var();
            p.skip = from.var();
            if (p.skip >= l.length) { fail(errc::corrupt, "a message beyond the end of its segment"); }
            l.places.push_back(p);
        }
        return l;
    }
};

class catalog {
public:
    const std::map<std::uint32_t, endpoint_entry>& endpoints() const noexcept { return endpoints_; }
    const std::map<std::uint32_t, stream_entry>& streams() const noexcept { return streams_; }
    const std::map<std::uint32_t, cursor_entry>& cursors() const noexcept { return cursors_; }

    /// The number of an endpoint, or nullptr.
    const std::uint32_t* find(std::string_view name) const noexcept {
        const auto at = names_.find(name);
        return at != names_.end() ? &at->second : nullptr;
    }
    const endpoint_entry& endpoint(std::uint32_t number) const { return endpoints_.at(number); }
    const stream_entry& stream(std::uint32_t number) const { return streams_.at(number); }
    const cursor_image* image(std::uint32_t cursor) const noexcept {
        const auto at = cursors_.find(cursor);
        return at != cursors_.end() ? &at->second.image : nullptr;
    }
    /// Prepared transactions, as they were stored, by their names.
    using prepared_bytes = std::shared_ptr<const std::vector<std::byte>>;
    const std::map<std::string, prepared_bytes, std::less<>>& in_doubt() const noexcept { return in_doubt_; }
    /// Numbers that are free.
    std::uint32_t next_stream() const noexcept { return next_stream_; }
    std::uint32_t next_cursor() const noexcept { return next_cursor_; }

    /// Whether somebody has still to settle a message; on a queue also a dead letter is one.
    std::uint64_t wanted_in(std::uint32_t stream, offset first, offset last) const noexcept {
        std::uint64_t most = 0;
        each_cursor_of(stream, [&](const cursor_image& c) { most = std::max(most, c.unsettled_in(first, last)); });
        return most;
    }
    bool is_wanted(std::uint32_t stream, offset o) const noexcept {
        bool wanted = false;
        each_cursor_of(stream, [&](const cursor_image& c) { wanted = wanted || !c.is_settled(o); });
        return wanted;
    }
    /// The first of [first, last) that somebody has not settled; `last`: there is none.
    offset next_wanted(std::uint32_t stream, offset first, offset last) const noexcept {
        offset next = last;
        each_cursor_of(stream, [&](const cursor_image& c) {
            c.each_unsettled(first, next, [&next](offset o) {
                next = o;
                return false;
            });
        });
        return next;
    }
    template <class Fn>
    void each_cursor_of(std::uint32_t stream, Fn fn) const {
        const auto s = streams_.find(stream);
        if (s == streams_.end()) { return; }
        const auto e = endpoints_.find(s->second.endpoint);
        if (e == endpoints_.end()) { return; }
        for (const auto& [name, sub] : e->second.subscriptions) {
            const auto c = cursors_.find(sub.first_cursor + s->second.partition);
            if (c != cursors_.end()) { fn(c->second.image); }
        }
    }

    /// Takes a record. Throws errc::corrupt for one that contradicts what is known.
    void take(const record& r) {
        wire_reader from(r.payload);
        switch (r.head.kind) {
        case record_kind::message: {
            stream_entry& s = known_stream(r.head.stream);
            s.next = std::max(s.next, r.head.offset + 1);
            note_properties(s, r);
            break;
        }
        case record_kind::moved: known_stream(r.head.stream); break;
        case record_kind::settlements:
            if (!was_forgotten(r.head.stream)) { known_cursor(r.head.stream).image.take(from); }
            break;
        case record_kind::place:
            if (!was_forgotten(r.head.stream)) { known_cursor(r.head.stream).image = cursor_image::read(from); }
            break;
        case record_kind::deliveries:
            if (was_forgotten(r.head.stream)) { break; }
            while (!from.at_end()) {
                const offset o = from.var();
                const auto attempt = from.var_as<std::uint32_t>();
                cursor_image& image = known_cursor(r.head.stream).image;
                if (!image.is_settled(o)) { image.handed_out(o, attempt); }
            }
            break;
        case record_kind::endpoint: declare(r.head.stream, from); break;
        case record_kind::schema: known_endpoint(r.head.stream).schemas.push_back(read_schema(from)); break;
        case record_kind::subscription: subscribe(r.head.stream, from); break;
        case record_kind::removal: forget(r.head.stream, from.text()); break;
        case record_kind::deduplication: {
            const endpoint_shape now = read_shape(from);
            endpoint_shape& shape = known_endpoint(r.head.stream).shape;
            shape.dedup_window = now.dedup_window;
            shape.dedup_until_settled = now.dedup_until_settled;
            break;
        }
        case record_kind::prepared: {
            std::string xid = from.text();
            prepare(std::move(xid), from.rest());
            break;
        }
        case record_kind::verdict: in_doubt_.erase(from.text()); break; // its preparation may have been lost to damage
        case record_kind::produced: {
            std::string who = from.text();
            const stream_entry& s = known_stream(r.head.stream);
            const std::uint64_t number = from.var();
            if (s.next != 0) { note_number(known_endpoint(s.endpoint), std::move(who), {number, r.head.stream, s.next - 1, 0}); }
            break;
        }
        case record_kind::refused: {
            const refusals more = refusals::read(from);
            known_stream(r.head.stream).refused += more;
            break;
        }
        case record_kind::survivors:
            for (const survivor_list::place& p : survivor_list::read(from).places) { known_stream(p.stream); }
            break;
        default: fail(errc::corrupt, "a record of unknown kind");
        }
    }

    // ------------------------------------------------------------------------------------------------- the payloads of declarations

    static void write_endpoint(wire_writer& to, std::string_view name, const endpoint_shape& s, const schema& first, std::uint32_t cursor) {
        to.text(name);
        write_shape(to, s);
        write_schema(to, first);
        to.var(cursor); // of a queue
    }
    static void write_subscription(wire_writer& to, std::string_view name, std::uint32_t mode, std::uint32_t first_cursor,
                                   const std::vector<cursor_image>& images) {
        to.text(name);
        to.var(mode);
        to.var(first_cursor);
        to.var(images.size());
        for (const cursor_image& i : images) { i.write(to); }
    }
    static void write_schema(wire_writer& to, const schema& s) {
        to.text(s.type);
        to.var(s.version);
        to.u64(s.fingerprint);
        to.text(s.content);
    }
    static schema read_schema(wire_reader& from) {
        schema s;
        s.type = from.text();
        s.version = from.var_as<std::uint32_t>();
        s.fingerprint = from.u64();
        s.content = from.text();
        return s;
    }

    // ------------------------------------------------------------------------------------------------------------------- checkpoints

    void write(wire_writer& to) const {
        to.var(next_stream_);
        to.var(next_cursor_);
        to.var(endpoints_.size());
        for (const auto& [number, e] : endpoints_) {
            to.var(number);
            to.text(e.name);
            write_shape(to, e.shape);
            to.var(e.schemas.size());
            for (const schema& s : e.schemas) { write_schema(to, s); }
            for (std::uint32_t i = 0; i < e.shape.partitions; ++i) {
                const stream_entry& s = streams_.at(number + i);
                to.var(s.next);
                to.var(s.timed_until);
                to.i64(s.expiry);
            }
            to.var(e.subscriptions.size());
            for (const auto& [name, s] : e.subscriptions) {
                to.text(name);
                to.var(s.mode);
                to.var(s.first_cursor);
                for (std::uint32_t i = 0; i < e.shape.partitions; ++i) { cursors_.at(s.first_cursor + i).image.write(to); }
            }
            to.var(e.ids.size());
            for (const known_id& k : e.ids) {
                to.text(k.id);
                to.var(k.stream);
                to.var(k.offset);
                to.i64(k.time);
            }
        }
        // Since version 2.
        for (const auto& [number, e] : endpoints_) {
            to.var(e.producers.size());
            for (const auto& [who, p] : e.producers) {
                to.text(who);
                to.var(p.number);
                to.var(p.stream);
                to.var(p.offset);
                to.var(p.turn);
            }
        }
        to.var(in_doubt_.size());
        for (const auto& [xid, bytes] : in_doubt_) {
            to.text(xid);
            to.bytes(*bytes);
        }
        // Since version 3.
        for (const auto& [number, s] : streams_) { s.refused.write(to); }
    }
    static catalog read(wire_reader& from, std::uint32_t version = format_version) {
        catalog c;
        const auto next_stream = from.var_as<std::uint32_t>();
        c.next_cursor_ = from.var_as<std::uint32_t>();
        for (std::size_t n = from.count(10); n != 0; --n) {
            const auto number = from.var_as<std::uint32_t>();
            endpoint_entry e;
            e.name = from.text();
            e.shape = read_shape(from);
            for (std::size_t i = from.count(4); i != 0; --i) { e.schemas.push_back(read_schema(from)); }
            if (c.names_.contains(e.name)) { fail(errc::corrupt, "an endpoint is declared twice"); }
            c.expect_free(number, e.shape.partitions, c.streams_, next_stream);
            c.add_streams(number, e.shape.partitions);
            for (std::uint32_t i = 0; i < e.shape.partitions; ++i) {
                stream_entry& s = c.streams_.at(number + i);
                s.next = from.var();
                s.timed_until = from.var();
                s.expiry = from.i64();
            }
            for (std::size_t i = from.count(4); i != 0; --i) {
                std::string name = from.text();
                subscription_entry s;
                s.mode = from.var_as<std::uint32_t>();
                s.first_cursor = from.var_as<std::uint32_t>();
                if (e.subscriptions.contains(name)) { fail(errc::corrupt, "a subscription is declared twice"); }
                c.expect_free(s.first_cursor, e.shape.partitions, c.cursors_, c.next_cursor_);
                for (std::uint32_t p = 0; p < e.shape.partitions; ++p) { c.cursors_[s.first_cursor + p] = {number + p, cursor_image::read(from)}; }
                e.subscriptions.emplace(std::move(name), s);
            }
            for (std::size_t i = from.count(11); i != 0; --i) {
                known_id k;
                k.id = from.text();
                k.stream = from.var_as<std::uint32_t>();
                k.offset = from.var();
                k.time = from.i64();
                e.ids.push_back(std::move(k));
            }
            c.names_.emplace(e.name, number);
            c.endpoints_.emplace(number, std::move(e));
        }
        c.next_stream_ = next_stream;
        if (version < 2) { return c; }
        for (auto& [number, e] : c.endpoints_) {
            for (std::size_t n = from.count(5); n != 0; --n) {
                std::string who = from.text();
                produced_number p;
                p.number = from.var();
                p.stream = from.var_as<std::uint32_t>();
                p.offset = from.var();
                p.turn = from.var();
                c.turn_ = std::max(c.turn_, p.turn);
                e.producers.insert_or_assign(std::move(who), p);
            }
        }
        for (std::size_t n = from.count(2); n != 0; --n) {
            std::string xid = from.text();
            c.prepare(std::move(xid), from.bytes());
        }
        if (version < 3) { return c; }
        for (auto& [number, s] : c.streams_) { s.refused = refusals::read(from); }
        return c;
    }

    /// Forgets ids that nobody would call duplicates any more at time `now`.
    void forget_ids(std::int64_t now) {
        for (auto& [number, e] : endpoints_) {
            const std::int64_t window = e.shape.dedup_window;
            std::erase_if(e.ids, [&](const known_id& k) {
                const bool old =
                    window == 0 || static_cast<std::int64_t>(static_cast<std::uint64_t>(now) - static_cast<std::uint64_t>(k.time)) > window;
                return old && !(e.shape.dedup_until_settled && is_wanted(k.stream, k.offset));
            });
        }
    }
    /// A message whose record is damaged is lost: whatever comes has a later offset.
    void skip_to(std::uint32_t stream, offset next) {
        const auto at = streams_.find(stream);
        if (at != streams_.end()) { at->second.next = std::max(at->second.next, next); }
    }
    /// The same where nothing of the record is left: what was settled, or tried, was there.
    void skip_what_was_settled() {
        for (const auto& [number, c] : cursors_) {
            if (const offset until = c.image.known_until(); until != no_offset) { skip_to(c.stream, until); }
        }
    }

    static void write_shape(wire_writer& to, const endpoint_shape& s) {
        to.var(static_cast<std::uint64_t>(s.kind));
        to.var(s.partitions);
        to.var(s.priorities);
        to.var(s.ordered_by_key ? 1 : 0);
        to.i64(s.dedup_window);
        to.var(s.dedup_until_settled ? 1 : 0);
    }

private:
    static endpoint_shape read_shape(wire_reader& from) {
        endpoint_shape s;
        const std::uint64_t kind = from.var();
        s.kind = static_cast<endpoint_kind>(kind);
        s.partitions = from.var_as<std::uint32_t>();
        s.priorities = from.var_as<std::uint32_t>();
        s.ordered_by_key = from.var() != 0;
        s.dedup_window = from.i64();
        s.dedup_until_settled = from.var() != 0;
        if (kind < 1 || kind > 2 || s.partitions < 1 || s.partitions > 4096 || (kind == 1 && s.partitions != 1)) {
            fail(errc::corrupt, "an endpoint of impossible shape");
        }
        return s;
    }

    void declare(std::uint32_t number, wire_reader& from) {
        endpoint_entry e;
        e.name = from.text();
        e.shape = read_shape(from);
        e.schemas.push_back(read_schema(from));
        const auto cursor = from.var_as<std::uint32_t>();
        if (e.shape.kind == endpoint_kind::queue && (cursor < next_cursor_ || cursor == no_number)) {
            fail(errc::corrupt, "a cursor is declared twice");
        }
        if (number > no_number - e.shape.partitions) { fail(errc::corrupt, "the numbers of streams are used up"); }
        if (names_.contains(e.name) || number < next_stream_) { fail(errc::corrupt, "an endpoint is declared twice"); }
        add_streams(number, e.shape.partitions);
        if (e.shape.kind == endpoint_kind::queue) {
            e.subscriptions.emplace(std::string(), subscription_entry{0, cursor});
            cursors_[cursor] = {number, cursor_image()};
            next_cursor_ = std::max(next_cursor_, cursor + 1);
        }
        names_.emplace(e.name, number);
        endpoints_.emplace(number, std::move(e));
    }
    void prepare(std::string xid, bytes_view body) {
        const prepared_content all = prepared_content::read(body);
        for (const auto& m : all.messages) { known_stream(m.stream); }
        if (in_doubt_.contains(xid)) { fail(errc::corrupt, "a transaction is prepared twice"); }
        in_doubt_.emplace(std::move(xid), std::make_shared<const std::vector<std::byte>>(body.begin(), body.end()));
    }
    void note_number(endpoint_entry& e, std::string who, produced_number p) {
        p.turn = ++turn_;
        e.producers.insert_or_assign(std::move(who), p);
        if (e.producers.size() <= most_producers) { return; }
        e.producers.erase(
            std::min_element(e.producers.begin(), e.producers.end(), [](const auto& a, const auto& b) { return a.second.turn < b.second.turn; }));
    }
    static constexpr std::uint32_t no_number = ~std::uint32_t{0};
    /// `n` numbers from `first` on have to be below `end`, and nobody's.
    template <class Map>
    static void expect_free(std::uint32_t first, std::uint32_t n, const Map& taken, std::uint32_t end) {
        const auto at = taken.lower_bound(first);
        if (first == 0) { fail(errc::corrupt, "numbers begin at 1"); }
        if (first > end || n > end - first || (at != taken.end() && at->first < first + n)) { fail(errc::corrupt, "a number is given twice"); }
    }
    void add_streams(std::uint32_t number, std::uint32_t partitions) {
        for (std::uint32_t i = 0; i < partitions; ++i) { streams_[number + i] = {.endpoint = number, .partition = i}; }
        next_stream_ = std::max(next_stream_, number + partitions);
    }
    void subscribe(std::uint32_t number, wire_reader& from) {
        endpoint_entry& e = known_endpoint(number);
        std::string name = from.text();
        subscription_entry s;
        s.mode = from.var_as<std::uint32_t>();
        s.first_cursor = from.var_as<std::uint32_t>();
        if (s.first_cursor < next_cursor_ || s.first_cursor > no_number - e.shape.partitions) { fail(errc::corrupt, "a cursor is declared twice"); }
        if (from.count(4) != e.shape.partitions) { fail(errc::corrupt, "a subscription without a place in each partition"); }
        for (std::uint32_t i = 0; i < e.shape.partitions; ++i) { cursors_[s.first_cursor + i] = {number + i, cursor_image::read(from)}; }
        next_cursor_ = std::max(next_cursor_, s.first_cursor + e.shape.partitions);
        e.subscriptions.insert_or_assign(std::move(name), s);
    }
    void forget(std::uint32_t number, const std::string& subscription) {
        endpoint_entry& e = known_endpoint(number);
        const auto at = e.subscriptions.find(subscription);
        if (at == e.subscriptions.end()) { return; }
        for (std::uint32_t i = 0; i < e.shape.partitions; ++i) { cursors_.erase(at->second.first_cursor + i); }
        e.subscriptions.erase(at);
    }
    // What a message is sent with, as far as it concerns who keeps it.
    void note_properties(stream_entry& s, const record& r) {
        if (r.head.properties == 0) { return; }
        bytes_view front = r.payload.first(r.head.properties);
        properties p = decode_properties(front);
        if (p.delay > duration::zero() || p.time_to_live > duration::zero()) {
            s.timed_until = std::max(s.timed_until, r.head.offset + 1);
            if (p.time_to_live > duration::zero()) { s.expiry = std::min(s.expiry, later_than(r.head.time, p.time_to_live.count())); }
        }
        endpoint_entry& e = known_endpoint(s.endpoint);
        const bool deduplicates = e.shape.dedup_window != 0 || e.shape.dedup_until_settled;
        if (deduplicates && !p.id.empty()) { e.ids.push_back({std::move(p.id), r.head.stream, r.head.offset, r.head.time}); }
    }
    static std::int64_t later_than(std::int64_t t, std::int64_t by) noexcept {
        constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
        return t > never - by ? never : t + by;
    }

    // A cursor of a subscription that went while somebody still had something to say of it: numbers are given once.
    bool was_forgotten(std::uint32_t cursor) const noexcept { return cursor < next_cursor_ && !cursors_.contains(cursor); }
    stream_entry& known_stream(std::uint32_t number) { return known(streams_, number, "a message of an unknown stream"); }
    cursor_entry& known_cursor(std::uint32_t number) { return known(cursors_, number, "a settlement of an unknown cursor"); }
    endpoint_entry& known_endpoint(std::uint32_t number) { return known(endpoints_, number, "a declaration for an unknown endpoint"); }
    template <class Map>
    static typename Map::mapped_type& known(Map& map, std::uint32_t number, const char* otherwise) {
        const auto at = map.find(number);
        if (at == map.end()) { fail(errc::corrupt, otherwise); }
        return at->second;
    }

    std::map<std::uint32_t, endpoint_entry> endpoints_;
    std::map<std::string, std::uint32_t, std::less<>> names_;
    std::map<std::uint32_t, stream_entry> streams_;
    std::map<std::uint32_t, cursor_entry> cursors_;
    std::map<std::string, prepared_bytes, std::less<>> in_doubt_;
    std::uint64_t turn_ = 0; // of who produced last
    std::uint32_t next_stream_ = 1;
    std::uint32_t next_cursor_ = 1;
};

} // namespace mailroom::detail
