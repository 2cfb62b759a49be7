// port: what queues and topics ask of the journal they live in, and what it asks of them. Neither knows the other's type: a queue knows no
// files, a journal no `T`.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/journal/catalog.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/format.hpp>
#include <mailroom/journal/options.hpp>
#include <mailroom/journal/parcel.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/receipt.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

static_assert(draft::front == record_header::size);

/// A message that comes from a prepared transaction.
struct adopted_message {
    properties props;
    std::size_t bytes = 0; // its footprint
};

/// A queue, or a partition of a topic, as its journal sees it.
class stream_listener {
public:
    /// Messages below `head` are there. Called in order, under the journal's lock: it only stores.
    virtual void advance(offset head) noexcept = 0;
    /// So many have come: wakes who waits. Without a lock, and perhaps its last use of the journal.
    virtual void arrived(std::size_t n) noexcept = 0;
    /// The journal closes.
    virtual void journal_closed() noexcept = 0;
    /// Topics: which messages a rule retains, whoever has settled them.
    virtual offset retained_from() noexcept { return no_offset; }
    /// Below that: the first, from `o` on.
    virtual offset next_retained(offset /*o*/) noexcept { return no_offset; }
    /// Without a lock: whatever it has put off to know that for sure, it does now. May throw std::bad_alloc.
    virtual void find_retained() {}
    /// Who knows the ids of this endpoint's messages; nullptr: none count.
    virtual const void* id_keeper() noexcept { return nullptr; }
    /// Messages of a prepared transaction are about to be placed here: nobody else sends one with an id until `unlock_ids`.
    virtual void lock_ids() noexcept {}
    virtual void unlock_ids() noexcept {}
    /// Under that lock: makes room for one, whatever the bounds; nullptr: it is a duplicate, and nothing was done. May throw.
    virtual std::unique_ptr<adopted_message> adopt(const record&) { return std::make_unique<adopted_message>(); }
    /// Under that lock: it has its place.
    virtual void adopted(const adopted_message&, offset) noexcept {}
    /// It never had one (no_offset), or could not be kept.
    virtual void not_adopted(const adopted_message&, offset) noexcept {}
    /// It is there.
    virtual void came(const adopted_message&, offset) noexcept {}
    /// Keeps it until `let_go`.
    virtual void hold() noexcept = 0;
    virtual void let_go() noexcept = 0;

protected:
    ~stream_listener() = default;
};

/// What somebody who reads a stream from front to back keeps of it from one call to the next. One thread at a time.
struct read_ahead {
    static constexpr std::size_t most = std::size_t{512} << 10; // that is read at once, but for a message that is larger

    using segment_ref = std::weak_ptr<const void>; // also of one that is gone by now, which no other is taken for

    // Bytes of a segment, from a position on.
    segment_ref of;
    std::uint64_t at = 0;
    std::size_t have = 0;
    byte_buffer bytes;
    std::size_t next = 0;      // so many are read the next time, if it goes on
    std::uint64_t reached = 0; // where the record that was read last ends
    std::size_t usual = 0;     // its length
    // Where messages with offsets in a row lie.
    segment_ref places_of;
    mailroom::offset first_place = 0;
    std::vector<std::uint64_t> places;

    /// Whether the bytes, or the places, are those of a segment.
    template <class Segment>
    bool is_of(const std::shared_ptr<Segment>& s) const noexcept {
        return is(of, s);
    }
    template <class Segment>
    bool places_are_of(const std::shared_ptr<Segment>& s) const noexcept {
        return is(places_of, s);
    }
    /// The bytes from position `p` on, as many as are here.
    bytes_view from(std::uint64_t p) const noexcept {
        if (p < at || p - at >= have) { return {}; }
        const auto skip = static_cast<std::size_t>(p - at);
        return bytes_view(bytes).subspan(skip, have - skip);
    }
    /// Gives the memory back.
    void forget() noexcept { *this = read_ahead(); }

private:
    template <class Segment>
    static bool is(const segment_ref& kept, const std::shared_ptr<Segment>& s) noexcept {
        return !kept.owner_before(s) && !s.owner_before(kept);
    }
};

/// Who is told of messages that are read: called by their places among those that were asked for, in order.
class record_reader {
public:
    /// It is there, and intact. The record is valid until this returns.
    virtual void found(unsigned i, const record& r) noexcept = 0;
    /// It cannot be read (of no file: there was no memory); nullptr: it is not there.
    virtual void lost(unsigned i, const damage* d) noexcept = 0;

protected:
    ~record_reader() = default;
};
/// One made of two functions.
template <class Found, class Lost>
class record_calls final : public record_reader {
public:
    record_calls(Found found, Lost lost) : found_(std::move(found)), lost_(std::move(lost)) {}
    void found(unsigned i, const record& r) noexcept override { found_(i, r); }
    void lost(unsigned i, const damage* d) noexcept override { lost_(i, d); }

private:
    Found found_;
    Lost lost_;
};

class log_port : public commit_port {
public:
    struct endpoint_ref {
        std::uint32_t number = 0;
        bool is_new = false;
    };

    // --------------------------------------------------------------------------------------------------------------- what there is

    /// Finds an endpoint or declares it. Throws errc::already_exists for another kind or shape, and what `check` throws, which is shown
    /// each schema it has; a schema of its own that is new is added.
    virtual endpoint_ref open(std::string_view name, const endpoint_shape& shape, const schema& own,
                              const std::function<void(const schema&)>& check) = 0;
    /// The number of `own` among the schemas of an endpoint.
    virtual std::uint16_t schema_number(std::uint32_t endpoint, const schema& own) = 0;
    /// Declares a durable subscription; returns the first of its cursors.
    virtual std::uint32_t subscribe(std::uint32_t endpoint, std::string_view name, std::uint32_t mode, const std::vector<cursor_image>& at) = 0;
    virtual void unsubscribe(std::uint32_t endpoint, std::string_view name) = 0;
    /// Moves a cursor, whatever it settled before. Not waited for.
    virtual void put_cursor(std::uint32_t cursor, const cursor_image& at) = 0;
    /// Looks at what is known, under the journal's lock.
    virtual void look(const std::function<void(const catalog&)>& at) = 0;

    // ----------------------------------------------------------------------------------------------------------------- who is there

    virtual void attach(std::uint32_t stream, stream_listener& l) = 0;
    virtual void detach(std::uint32_t stream) noexcept = 0;
    /// After this nothing is collected from it any more; what it had is placed.
    virtual void detach(change_source& s) noexcept = 0;
    /// Something has changed.
    virtual void mark(change_source& s) noexcept = 0;

    // -------------------------------------------------------------------------------------------------------------------- committing

    /// Puts records, messages of one stream in a row or others, into the batch that is next committed, all or none. `admit`, under the lock, is asked for
    /// the offset of the first. `t` is completed with that batch. Waits where the batch is full.
    virtual placed place(std::span<draft> drafts, const admission& admit, ticket* t) = 0;
    /// The same for one message, where nobody asks and nobody waits; no_offset: nothing happened, and `place` says why, or waits.
    virtual offset append(const draft& d) = 0;
    /// Joins the batch that is next committed, without a record: also what is settled by now is in it.
    virtual void enrol(ticket& t) = 0;
    /// Commits what is there, unless somebody is at it; returns whether the ticket is done.
    virtual bool lead_for(ticket& t) noexcept = 0;
    /// Waits until all that was placed before is visible; false: there was nothing, or it could not be written.
    virtual bool push() noexcept = 0;
    /// The same for all that was settled before.
    virtual void push_settlements() noexcept = 0;
    /// The offset the next message of a stream gets, committed or not.
    virtual offset placed_until(std::uint32_t stream) noexcept = 0;
    /// A record that is handed to the system at once, without waiting for the disk.
    virtual void note_deliveries(std::uint32_t cursor, bytes_view steps) noexcept = 0;

    // ------------------------------------------------------------------------------------------------------------------ transactions

    /// What prepared transactions, about which nobody has decided, have to settle of a cursor: their names, and places.
    virtual std::vector<std::pair<std::string, offset>> in_doubt_of(std::uint32_t cursor) = 0;
    /// One of those is held here, until it is decided.
    virtual void hold_in_doubt(const std::string& xid, undecided& held) = 0;

    // ----------------------------------------------------------------------------------------------------------------------- reading

    /// Tells `to` of each message first + i of those whose bit is set. Who reads on keeps what was read with them.
    virtual void read(std::uint32_t stream, offset first, std::uint32_t mask, record_reader& to, read_ahead& kept) noexcept = 0;
    /// The first offset of a stream that is stored.
    virtual offset first_stored(std::uint32_t stream) noexcept = 0;

    /// What payloads are hashed with.
    virtual const hash_key& seed() const noexcept = 0;
    virtual mailroom::clock& clock() const noexcept = 0;
    /// Messages below this were there when the journal was opened after a crash: who is handed one may be what killed the process.
    virtual offset suspects_until(std::uint32_t stream) noexcept = 0;
    virtual bool is_open() const noexcept = 0;
    /// What every open endpoint is registered with, by its name. Two handles share one core.
    struct tenant {
        std::string name;
        std::string type; // of its messages
        void* core = nullptr;
        std::size_t handles = 0;
        void (*close)(void* core) noexcept = nullptr;
    };
    std::recursive_mutex& tenants_mutex() noexcept { return tenants_mutex_; }
    std::vector<tenant>& tenants() noexcept { return tenants_; }
    /// One handle on `core` is gone. True: it was the last.
    bool handle_gone(const void* core) noexcept {
        const std::lock_guard lock(tenants_mutex_);
        const auto at = std::find_if(tenants_.begin(), tenants_.end(), [&](const tenant& t) { return t.core == core; });
        if (at == tenants_.end()) { return true; }
        if (--at->handles != 0) { return false; }
        tenants_.erase(at);
        return true;
    }

protected:
    ~log_port() = default;

private:
    std::recursive_mutex tenants_mutex_;
    std::vector<tenant> tenants_;
};

} // namespace mailroom::detail
