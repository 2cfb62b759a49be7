// delivery<T>: a message somebody holds for the moment, and the verbs that decide what becomes of it.
//
// A delivery looks into the endpoint's memory and keeps that memory alive: it may outlive its endpoint. Every verb but `extend` ends it.
// Threads: one delivery is a value of one thread at a time, except that `extend` may be called while another thread settles it, as long as
// its endpoint lives.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/receipt.hpp>
#include <mailroom/message/settler.hpp>

#include <atomic>
#include <cassert>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace mailroom {

namespace detail {

struct delivery_access;

} // namespace detail

/// A message handed out under a lease. Settle it with `ack`, `nack`, `release` or `reject`; destroyed unsettled it is nacked.
template <class T>
class delivery {
public:
    delivery(delivery&& other) noexcept
        : owner_(other.give_up()), body_(other.body_), envelope_(other.envelope_), at_(other.at_), partition_(other.partition_),
          is_undecided_(other.is_undecided_) {}
    delivery& operator=(delivery&& other) noexcept {
        if (this != &other) {
            drop();
            body_ = other.body_;
            envelope_ = other.envelope_;
            at_ = other.at_;
            partition_ = other.partition_;
            is_undecided_ = other.is_undecided_;
            owner_.store(other.give_up(), std::memory_order_relaxed);
        }
        return *this;
    }
    ~delivery() { drop(); }

    /// The body, in place. Valid until this delivery is settled or destroyed, whatever others do.
    const T& body() const noexcept {
        assert(has_body() && "a delivery's body ends with the call that settles it");
        return *body_;
    }
    const T& operator*() const noexcept { return body(); }
    const T* operator->() const noexcept { return std::addressof(body()); }

    /// What it was sent with; empty if nothing was set, and after settling.
    const properties& props() const noexcept { return envelope_ != nullptr && has_body() ? envelope_->props : no_properties; }
    /// When it was sent, by the wall clock; the epoch after settling.
    time_point timestamp() const noexcept {
        const detail::settler* const owner = owner_.load(std::memory_order_relaxed);
        return owner != nullptr ? owner->sent_at(at_) : time_point();
    }
    /// Its place in the stream.
    mailroom::offset offset() const noexcept { return at_.place; }
    int partition() const noexcept { return partition_; }
    /// How often it has been handed out: 1 the first time.
    std::uint32_t attempt() const noexcept { return at_.attempt; }

    /// Done. True unless it is settled already, or the message is no longer this delivery's: its lease ran out and somebody else was
    /// given it or it died, or it was purged, or the endpoint is gone. No allocation; no lock on the plain path.
    bool ack() noexcept {
        return settle([this](detail::settler& s) { return s.ack(at_); });
    }

    /// `ack`, and a receipt that is ready when the settlement is as durable as the endpoint makes it.
    receipt ack_async() {
        detail::pending_outcome* pending = nullptr;
        const bool done = settle([&](detail::settler& s) {
            bool acked = false;
            pending = s.ack_async(at_, acked);
            return acked;
        });
        if (pending != nullptr) { return receipt(*pending, [](mailroom::offset o) { return o; }); }
        if (done) { return receipt(at_.place); }
        return receipt(result<mailroom::offset>(errc::not_found));
    }

    /// Failed: back to the queue after the pause its retry policy says, or to the dead letters after the last attempt.
    bool nack() noexcept {
        return settle([this](detail::settler& s) { return s.nack(at_); });
    }
    /// Failed: back after exactly `retry_after`; zero or less: at once.
    bool nack(duration retry_after) noexcept {
        return settle([this, retry_after](detail::settler& s) { return s.nack_after(at_, retry_after); });
    }
    /// Not mine after all: back to its place at once, its attempts unchanged.
    bool release() noexcept {
        return settle([this](detail::settler& s) { return s.release(at_); });
    }
    /// Never deliverable: to the dead letters at once, with a reason.
    bool reject(std::string reason = std::string()) noexcept {
        return settle([this, &reason](detail::settler& s) { return s.reject(at_, std::move(reason)); });
    }

    /// Holds it for `lease` from now. False if it is no longer this delivery's. May be called from another thread than the one that settles.
    bool extend(duration lease) noexcept {
        detail::settler* const owner = owner_.load(std::memory_order_relaxed);
        return owner != nullptr && owner->extend(at_, lease);
    }

protected:
    delivery(detail::settler& owner, const T* body, const detail::envelope* e, const detail::handle& at, int part) noexcept
        : owner_(&owner), body_(body), envelope_(e), at_(at), partition_(part) {}

private:
    friend struct detail::delivery_access;

    bool held() const noexcept { return owner_.load(std::memory_order_relaxed) != nullptr; }
    // A transaction settles it without its doing.
    bool has_body() const noexcept { return held() && (!is_undecided_ || !owner_.load(std::memory_order_relaxed)->is_over()); }
    // Load and store, no exchange: only one thread settles or moves a delivery, `extend` merely reads.
    detail::settler* give_up() noexcept {
        detail::settler* const owner = owner_.load(std::memory_order_relaxed);
        owner_.store(nullptr, std::memory_order_relaxed);
        return owner;
    }
    template <class Verb>
    bool settle(Verb verb) noexcept {
        detail::settler* const owner = give_up();
        return owner != nullptr && verb(*owner);
    }
    void drop() noexcept { nack(); }

    std::atomic<detail::settler*> owner_; // null once settled
    const T* body_;
    const detail::envelope* envelope_;
    detail::handle at_;
    int partition_;
    bool is_undecided_ = false; // a transaction has it, or had
};

namespace detail {

/// How stores make deliveries.
struct delivery_access {
    template <class T>
    static delivery<T> make(settler& owner, const T* body, const envelope* e, const handle& at, int partition = 0) noexcept {
        return delivery<T>(owner, body, e, at, partition);
    }
    /// Where it stands; the delivery itself is over, and whoever called settles it.
    template <class T>
    static handle disarm(delivery<T>& d) noexcept {
        d.owner_.store(nullptr, std::memory_order_relaxed);
        return d.at_;
    }
    template <class T>
    static bool is_held(const delivery<T>& d) noexcept {
        return d.held();
    }
    /// Whom a delivery that is not settled asks.
    template <class T>
    static settler& owner(const delivery<T>& d) noexcept {
        assert(d.held());
        return *d.owner_.load(std::memory_order_relaxed);
    }
    /// What it came in, or nullptr.
    template <class T>
    static const envelope* cover(const delivery<T>& d) noexcept {
        return d.envelope_;
    }
    /// From now on it asks `to`, who is to pass it on. Before anybody else knows the delivery.
    template <class T>
    static void redirect(delivery<T>& d, settler& to) noexcept {
        d.owner_.store(&to, std::memory_order_relaxed);
        d.is_undecided_ = true;
    }
    template <class T>
    static const handle& where(const delivery<T>& d) noexcept {
        return d.at_;
    }
};

} // namespace detail
} // namespace mailroom
