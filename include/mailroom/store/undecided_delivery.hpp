// undecided_delivery: stands between a delivery and its settler while a transaction is to decide what becomes of it.
//
// Two hold it: the delivery, whose verbs answer false meanwhile, and whoever decides. If the decision is no, the delivery is its holder's
// again, as if nothing had been; if it has gone by then, that counts as a nack. The second to let go frees it.
//
//   together   the holder is there, nothing is decided
//   alone      the holder has gone
//   returned   decided: it is the holder's again
//   settled    decided: it is over, and the holder has not noticed
//
// Threads: the delivery's and the transaction's may be two.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/parcel.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/settler.hpp>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

namespace mailroom::detail {

class undecided_delivery final : public settler, public undecided {
public:
    /// Without a holder where nobody has been given it: a transaction of before has it.
    undecided_delivery(settler& to, const handle& at, duration lease, bool has_holder) noexcept
        : to_(to), home_(to.home()), at_(at), lease_(lease), had_holder_(has_holder), state_(has_holder ? state::together : state::alone) {}

    /// Nobody takes it away from here on. False: it is not ours any more.
    bool keep() noexcept { return is_kept_ = to_.keep(at_); }

    void decide(bool settled) noexcept override {
        if (settled) {
            if (home_.changes != nullptr) { home_.changes->is_written(at_.place); }
            to_.ack(at_);
        } else if (is_kept_) {
            to_.give_back(at_, lease_);
        }
        state before = state::together;
        if (state_.compare_exchange_strong(before, settled ? state::settled : state::returned, std::memory_order_acq_rel)) { return; }
        if (!settled && had_holder_) { to_.nack(at_); }
        if (!settled && !had_holder_) { to_.release(at_); } // ready at once, as what was in flight when a journal was opened
        delete this;
    }
    /// As `settler::room_of`.
    const void* room(std::uint64_t& bytes) const noexcept { return to_.room_of(at_, bytes); }
    settled_place place() const noexcept override { return {home_.changes, at_.place}; }
    bool has_lost() noexcept override { return to_.has_lost(at_); }

    bool ack(const handle&) noexcept override {
        return by_holder([this] { return to_.ack(at_); });
    }
    bool nack(const handle&) noexcept override {
        return by_holder([this] { return to_.nack(at_); });
    }
    bool nack_after(const handle&, duration after) noexcept override {
        return by_holder([this, after] { return to_.nack_after(at_, after); });
    }
    bool release(const handle&) noexcept override {
        return by_holder([this] { return to_.release(at_); });
    }
    bool reject(const handle&, std::string reason) noexcept override {
        return by_holder([&] { return to_.reject(at_, std::move(reason)); });
    }
    bool extend(const handle&, duration lease) noexcept override {
        switch (state_.load(std::memory_order_acquire)) {
        case state::returned: return to_.extend(at_, lease);
        case state::settled: return false;
        default: return to_.secure(at_, lease); // it was promised for a time
        }
    }
    bool secure(const handle&, duration at_least) noexcept override {
        return state_.load(std::memory_order_acquire) == state::returned && to_.secure(at_, at_least);
    }
    bool keep(const handle&) noexcept override { return state_.load(std::memory_order_acquire) == state::returned && to_.keep(at_); }
    bool has_lost(const handle&) noexcept override { return to_.has_lost(at_); }
    void give_back(const handle&, duration lease) noexcept override { to_.give_back(at_, lease); }
    settler_home home() const noexcept override { return home_; } // also when that is settled, and perhaps gone
    bool is_over() const noexcept override { return state_.load(std::memory_order_acquire) == state::settled; }
    time_point sent_at(const handle&) const noexcept override {
        return state_.load(std::memory_order_acquire) != state::settled ? to_.sent_at(at_) : time_point();
    }
    void end_look(const handle&) noexcept override {}

private:
    enum class state : std::uint8_t { together, alone, returned, settled };
    ~undecided_delivery() = default;

    template <class Verb>
    bool by_holder(Verb verb) noexcept {
        state before = state::together;
        if (state_.compare_exchange_strong(before, state::alone, std::memory_order_acq_rel)) { return false; }
        const bool done = before == state::returned && verb();
        delete this;
        return done;
    }

    settler& to_;
    const settler_home home_;
    const handle at_;
    const duration lease_;
    const bool had_holder_;
    bool is_kept_ = false; // the decider's
    std::atomic<state> state_;
};

} // namespace mailroom::detail
