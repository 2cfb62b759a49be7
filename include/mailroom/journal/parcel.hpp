// parcel: what stores hand to a journal when several of them are to change as one, and what they ask of it then. Light: a transaction in memory
// includes it without a journal.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/options.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mailroom::detail {

enum class record_kind : std::uint16_t; // journal/format.hpp

/// A record on its way in. The payload is padded with zeros, and hashed.
struct draft {
    record_kind kind = static_cast<record_kind>(1); // a message
    std::uint32_t stream = 0;
    std::uint16_t schema = 0;
    std::uint32_t properties = 0;
    std::int64_t time = 0;
    mailroom::offset offset = no_offset; // of messages: given as they are placed
    std::uint32_t length = 0;
    std::uint64_t hash = 0;
    bytes_view payload;

    static constexpr std::size_t front = 56; // of its header
    std::size_t whole() const noexcept { return front + payload.size(); }
};

/// Messages of one stream, in a row.
struct parcel {
    std::uint32_t stream = 0;
    std::vector<draft> drafts;
    admission admit;
    offset first = no_offset; // set as they are placed
};

/// A message that is settled with the rest.
struct settled_place {
    change_log* changes = nullptr; // of its cursor
    offset place = 0;
};

/// A delivery about whose settlement somebody else decides.
class undecided {
public:
    /// Its last call. Yes: it is settled; the journal knows already.
    virtual void decide(bool settled) noexcept = 0;
    /// What is to be settled; and whether its cursor has been moved away from it, so that it is not to be settled any more.
    virtual settled_place place() const noexcept = 0;
    virtual bool has_lost() noexcept = 0;

protected:
    ~undecided() = default;
};

/// What transactions ask of the journal their endpoints live in.
class commit_port {
public:
    /// Puts messages and settlements into the batch that is next committed, all or none. Each admission, under the lock, is asked for the offset
    /// of the first of its parcel. `t` is completed with that batch. May throw std::bad_alloc, then nothing was placed.
    virtual placed place_together(std::span<parcel> parcels, std::span<const settled_place> settled, ticket* t) = 0;
    /// Stores them, durable, for `resolve` to place: under `xid`. Takes over `held` if it does. Throws errc::already_exists, too_large, closed, io.
    virtual void prepare(std::string_view xid, std::span<const parcel> parcels, std::span<const settled_place> settled,
                         std::vector<undecided*>& held) = 0;
    /// Waits until a ticket is done; commits, if nobody else does.
    virtual void wait(ticket& t) noexcept = 0;
    virtual mailroom::durability durability() const noexcept = 0;
    /// What is placed at once takes no more.
    virtual std::size_t largest_batch() const noexcept = 0;

protected:
    ~commit_port() = default;
};

} // namespace mailroom::detail
