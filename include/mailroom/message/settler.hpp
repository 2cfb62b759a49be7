// settler: what a delivery, or a message that shares its body, asks of the endpoint that gave it.
#pragma once

#include <mailroom/base/basics.hpp>

#include <atomic>
#include <cstdint>
#include <string>

namespace mailroom::detail {

class pending_outcome;
class change_log;
class commit_port;
class source_base;

/// Where a delivery stands in its endpoint. Only the endpoint reads it.
struct handle {
    void* where = nullptr;     // turn 0: its page; else its entry
    std::uint32_t turn = 0;    // which hand-out of the message this is; a dead letter that lives again goes on counting
    std::uint32_t attempt = 0; // what the holder is told
    offset place = 0;
};

/// The word that says whether somebody looks at a message he popped, where its body is shared: `held`, until he makes it `over`; if it no longer
/// says `held`, he asks the settler instead.
struct look_word {
    static constexpr std::uint64_t held = 10;
    static constexpr std::uint64_t over = 3;
};

/// Where settlements are noted: the journal, and what has changed of a cursor there; both null in memory, the second where nothing is noted.
struct settler_home {
    commit_port* journal = nullptr;
    change_log* changes = nullptr;
};

/// Every call but `extend`, `secure`, `keep`, `has_lost`, `give_back`, `home`, `is_over` and `sent_at` ends the hold on the body and may be the
/// endpoint's last. Threads: any.
class settler {
public:
    virtual bool ack(const handle&) noexcept = 0;
    /// The same; answers who knows when it is durable, or nullptr: it is as durable as it gets.
    virtual pending_outcome* ack_async(const handle& at, bool& done) {
        done = ack(at);
        return nullptr;
    }
    virtual bool nack(const handle&) noexcept = 0;
    virtual bool nack_after(const handle&, duration) noexcept = 0;
    virtual bool release(const handle&) noexcept = 0;
    virtual bool reject(const handle&, std::string reason) noexcept = 0;
    virtual bool extend(const handle&, duration lease) noexcept = 0;

    // For transactions; who knows none gives them nothing.

    /// The same as `extend`, never for a shorter time than it is held for already.
    virtual bool secure(const handle&, duration) noexcept { return false; }
    /// From here on only purging, seeking and the end of the endpoint take it away, until it is settled or given back.
    virtual bool keep(const handle&) noexcept { return false; }
    /// Somebody took it away from who keeps it, and the endpoint is still there.
    virtual bool has_lost(const handle&) noexcept { return false; }
    /// It is held for `lease` from now, as it was before; or not, if whoever claimed it has left meanwhile.
    virtual void give_back(const handle&, duration) noexcept {}
    virtual settler_home home() const noexcept { return {}; }
    /// Which bounds it makes room in when it is settled, and how many bytes; nullptr: in none.
    virtual const void* room_of(const handle&, std::uint64_t& /*bytes*/) const noexcept { return nullptr; }
    /// Who decided about a delivery settled it: its body has gone.
    virtual bool is_over() const noexcept { return false; }

    virtual time_point sent_at(const handle&) const noexcept = 0;
    /// Who popped a message, settled as it is, whose body others share, no longer looks at it.
    virtual void end_look(const handle&) noexcept = 0;
    /// Where something can be kept that a late `extend` may still look at; or nullptr.
    virtual source_base* attic() noexcept { return nullptr; }

protected:
    ~settler() = default;
};

} // namespace mailroom::detail
