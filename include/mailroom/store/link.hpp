// link<T>: what ties a queue, or a partition of a topic, to the journal it lives in. A store that has none lives in memory.
//
// Sending goes through it: a message is packed, placed, and committed. Receiving as well: a block of the stream is empty until somebody who
// claimed a message in it has it loaded. And what becomes of messages is noted, for the next commit to write.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/parcel.hpp>
#include <mailroom/message/byte_sink.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/receipt.hpp>
#include <mailroom/message/settler.hpp>
#include <mailroom/stream/block.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

struct numbered;

/// Messages of one stream, encoded, on their way into the journal together.
struct shipment {
    struct piece {
        std::size_t start = 0;        // of its bytes
        std::uint32_t length = 0;     // without the padding
        std::uint32_t properties = 0; // in front of the body
        std::uint64_t hash = 0;
    };
    byte_sink bytes;
    piece first;
    std::vector<piece> more; // where there are several
    const piece& at(std::size_t i) const noexcept { return i == 0 ? first : more[i - 1]; }
    std::size_t count = 0;
    const numbered* by = nullptr; // whose it is, where producers are known
    std::int64_t time = 0;        // when they are sent: wall clock, nanoseconds since 1970
    bool was_known = false;       // an answer: it is a duplicate, and was not placed

    /// There will be `n`; makes room as if all were like the first, within reason. May throw std::bad_alloc.
    void expect_alike(std::size_t n) {
        constexpr std::size_t much = std::size_t{64} << 10;
        if (n <= 1) { return; }
        bytes.reserve(n <= much / (bytes.size() + 1) ? n * bytes.size() : much);
        more.reserve(std::min(n - 1, much));
    }
};

/// What a journal tells an endpoint of messages that come from a prepared transaction, not through its own sending side.
class side_door {
public:
    /// Who knows the ids of what is sent: one for all partitions of a topic, nullptr where none count.
    virtual const void* id_keeper() noexcept = 0;
    virtual void lock_ids() noexcept = 0;
    virtual void unlock_ids() noexcept = 0;
    /// Under that lock: makes room for a message, whatever the bounds; false: it is a duplicate, and nothing was done. May throw std::bad_alloc.
    virtual bool adopt(const properties& p, std::size_t bytes) = 0;
    /// Under that lock: it has its place.
    virtual void adopted(const properties& p, offset place) noexcept = 0;
    /// It never had one (no_offset), or could not be kept.
    virtual void not_adopted(const properties& p, std::size_t bytes, offset place) noexcept = 0;
    /// It is there.
    virtual void came(const properties& p, offset place) noexcept = 0;
    /// What was sent without waiting, counted and noted, could not be kept. Called where locks may be held: it only takes note.
    virtual void lost(std::string&& id, std::size_t n, std::size_t bytes, offset place) noexcept = 0;

protected:
    ~side_door() = default;
};

/// What retains messages one by one.
class retention_rule {
public:
    /// The first from `o` on. Called under the journal's lock.
    virtual offset next_retained(offset o) noexcept = 0;
    /// Looks at all that is needed to know. Called without a lock. May throw std::bad_alloc.
    virtual void find_retained() = 0;

protected:
    ~retention_rule() = default;
};

/// What is the same for every `T`.
class link_base {
public:
    link_base(const link_base&) = delete;
    link_base& operator=(const link_base&) = delete;
    virtual ~link_base() = default;

    virtual placed place(shipment& s, const admission& admit, ticket* t) = 0;
    virtual void wait(ticket& t) noexcept = 0;
    /// Whether a send waits for its commit.
    virtual bool commits() const noexcept = 0;
    /// The offset that the next message gets.
    virtual offset placed_until() noexcept = 0;
    /// Whether messages were placed here that are not visible yet.
    virtual bool has_pending() noexcept = 0;
    /// What was placed before, by anybody, is visible when this returns; false: there was nothing, or it could not be written.
    virtual bool push() noexcept = 0;
    /// What was settled before is committed when this returns.
    virtual void push_settlements() noexcept = 0;
    /// A receipt for what was placed with `send_async`, or, with no_offset, for what is settled by now.
    /// `counts`: should it not be kept, its endpoint has to know: `id` and `bytes`.
    virtual pending_outcome* promise(shipment* s, const admission& admit, placed& p, offset place, bool counts = false,
                                     const std::string& id = std::string(), std::size_t bytes = 0) = 0;

    /// The journal, and where this cursor's settlements are noted.
    virtual settler_home home() noexcept = 0;
    /// What it takes to place a shipment together with others.
    virtual void add_to(parcel& to, const shipment& s) = 0;
    /// Prepared transactions that have to settle something of this cursor; and one that is held for that.
    virtual std::vector<std::pair<std::string, offset>> in_doubt() = 0;
    virtual void hold_in_doubt(const std::string& xid, undecided& held) = 0;

    // What the image of before says.
    virtual bool was_settled(offset o) const noexcept = 0;
    virtual std::uint64_t were_settled(offset first, offset last) const noexcept = 0;
    virtual const trial* was_tried(offset o) const noexcept = 0;
    /// Beyond this, nothing was tried.
    virtual offset tried_until() const noexcept = 0;
    virtual offset floor() const noexcept = 0;
    /// Messages before `until` may have times of their own; none expires before `expiry`, on the endpoint's clock.
    struct watched {
        offset until = 0;
        duration expiry = duration::max();
    };
    virtual watched times_before() const noexcept = 0;
    /// What the cursor ever did before: acknowledged, redelivered, expired, dropped.
    virtual std::array<std::uint64_t, 4> done_before() const noexcept = 0;
    void count_by(std::array<std::uint64_t, 3> (*ask)(const void*) noexcept, const void* of) noexcept { changes_->count_by(ask, of); }

    /// Deliveries that may be of what killed the process before: to be noted before they are handed out.
    virtual bool suspects(offset o) const noexcept = 0;
    virtual void note_deliveries(bytes_view steps) noexcept = 0;

    /// What the stream refused, ever, when it was opened; and what it refuses now.
    const refusals& refused_before() const noexcept { return refused_before_; }
    virtual void refused(const refusals& more) noexcept = 0;

    void settled(offset first, std::uint64_t n = 1) noexcept {
        if (changes_->settled(first, n)) { tell(); }
    }
    void tried(offset o, const trial& t) noexcept {
        if (changes_->tried(o, t)) { tell(); }
    }
    void revived(offset o) noexcept {
        if (changes_->revived(o)) { tell(); }
    }

    /// The cursor was moved: it is given `places`, which lie below `until`, and all from there on.
    virtual void moved(const std::vector<offset>& places, offset until, offset at) noexcept = 0;
    /// From where on a rule retains messages, whoever has settled them; no_offset: none does.
    virtual void retain_from(offset) noexcept = 0;
    /// Who says which messages before that are retained as well.
    virtual void retain_also(retention_rule&) noexcept = 0;
    /// The first message that is stored.
    virtual offset first_stored() noexcept = 0;
    /// Calls `fn(offset, properties)` for each message of [first, last) that can be read and has any, in order. No body is decoded, nothing is loaded.
    /// Throws std::bad_alloc, and what `fn` throws.
    virtual void each_properties(offset first, offset last, const std::function<void(offset, const properties&)>& fn) = 0;

    /// The first damage that was met since the last call, as a failure; errc{}: none.
    virtual failure damage_met() noexcept = 0;
    bool has_met_damage() const noexcept { return damaged_.load(std::memory_order_relaxed); }
    /// One handle on the endpoint `core` is gone. True: it was the last.
    virtual bool handle_gone(void* core) noexcept = 0;
    /// Nothing comes from here any more. What was settled is placed.
    virtual void leave() noexcept = 0;

protected:
    link_base() = default;
    virtual void tell() noexcept = 0;
    change_log* changes_ = nullptr;
    refusals refused_before_;
    std::atomic<bool> damaged_{false};
};

template <class T>
class link : public link_base, public loader<T> {
public:
    /// Encodes a message as one more of a shipment; errc{}, or why it cannot be stored. Throws what its codec throws, std::bad_alloc.
    [[nodiscard]] virtual failure pack(shipment& s, const T& value, const properties* props) = 0;
    /// The whole of it for one message that says nothing more, where no send waits for its commit: returns its place. no_offset: nothing happened;
    /// `pack` and `place` know why. Throws the same.
    [[nodiscard]] virtual offset append(const T& value) = 0;
    /// Of the slots in `mask`, those whose messages have nothing about them but a priority: neither a time of their own nor a past, nor, where
    /// `keys_count`, a key. Nothing is loaded. May throw std::bad_alloc.
    virtual std::uint32_t survey(const block<T>& b, std::uint32_t mask, bool keys_count, std::array<int, span>& priorities) = 0;
    /// Of the slots in `mask`, those that are empty are not filled, with a neighbour or otherwise, until they are taken up again; answers them.
    virtual std::uint32_t pass_over(block<T>& b, std::uint32_t mask) noexcept = 0;
    virtual void take_up(block<T>& b, std::uint32_t mask) noexcept = 0;
    /// Fills one slot, and not its neighbours.
    virtual std::uint64_t load_one(block<T>& b, std::uint32_t i) noexcept = 0;
};

} // namespace mailroom::detail
