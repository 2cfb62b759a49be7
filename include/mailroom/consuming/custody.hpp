// custody: counts the deliveries that are in the hands of a consumer's manual handlers, or of whoever those passed them to.
//
// A custody stands between deliveries and their settler: it passes each verb on and counts the delivery out when that has been done. A
// consumer has one for each settler its source's deliveries have; in practice, one.
//
// Lifetime. `out_` counts the consumer as one more, and while it is not zero the custody holds a reference to the source: so what it passes
// on may be the endpoint's last call, and deliveries outlive consumer and endpoint. At zero it goes to the source's keepsakes, and is used
// again by the next consumer: it is not freed before the source, as an `extend` on another thread may have read its address from a delivery
// that is being settled. All such a late call does is to pass `extend` on to the settler, which is the same in every use.
//
// It counts and does not list: it cannot tell which deliveries are out, so one that has lost its message to others counts until it is let go.
//
// Cost: two atomic additions and a virtual call a delivery. No lock, but the first time a settler is met.
// Threads: any member from any thread.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/store/source.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

namespace mailroom::detail {

class custody final : public settler, public keepsake {
public:
    custody(settler& to, source_base& from, clock& c) noexcept : keepsake(&to), to_(to), from_(from), clock_(c) {}

    bool stands_before(const settler& s) const noexcept { return &to_ == &s; }

    /// A consumer begins to use it, and ends.
    void open() noexcept {
        from_.refer();
        out_.store(1, std::memory_order_relaxed);
    }
    void close() noexcept { leave(); }

    /// One more is out.
    void enter() noexcept { out_.fetch_add(1, std::memory_order_relaxed); }
    /// Waits until none is out. False: the deadline came first.
    bool wait(duration deadline) noexcept {
        for (;;) {
            const std::uint32_t seen = out_.load(std::memory_order_acquire); // pairs with `leave`: what was passed on has been done
            if ((seen & ~awaited) == 1) { return true; }
            if (deadline != clock::never && clock_.now() >= deadline) { return false; }
            if ((seen & awaited) == 0) {
                out_.fetch_or(awaited, std::memory_order_relaxed);
            } else {
                clock_.park(out_, seen, deadline);
            }
        }
    }

    bool ack(const handle& at) noexcept override {
        return settle([&] { return to_.ack(at); });
    }
    bool nack(const handle& at) noexcept override {
        return settle([&] { return to_.nack(at); });
    }
    bool nack_after(const handle& at, duration after) noexcept override {
        return settle([&] { return to_.nack_after(at, after); });
    }
    bool release(const handle& at) noexcept override {
        return settle([&] { return to_.release(at); });
    }
    bool reject(const handle& at, std::string reason) noexcept override {
        return settle([&] { return to_.reject(at, std::move(reason)); });
    }
    bool extend(const handle& at, duration lease) noexcept override { return to_.extend(at, lease); }
    bool secure(const handle& at, duration at_least) noexcept override { return to_.secure(at, at_least); }
    bool keep(const handle& at) noexcept override { return to_.keep(at); }
    bool has_lost(const handle& at) noexcept override { return to_.has_lost(at); }
    void give_back(const handle& at, duration lease) noexcept override { to_.give_back(at, lease); }
    settler_home home() const noexcept override { return to_.home(); }
    time_point sent_at(const handle& at) const noexcept override { return to_.sent_at(at); }
    void end_look(const handle& at) noexcept override { to_.end_look(at); }
    source_base* attic() noexcept override { return &from_; }

private:
    friend class custodian;
    static constexpr std::uint32_t awaited = 1u << 31; // somebody waits, or did once in this use

    template <class Verb>
    bool settle(Verb verb) noexcept {
        const bool done = verb();
        leave();
        return done;
    }
    void leave() noexcept {
        clock& c = clock_; // once counted out we may be gone, unless we were the last: the address of the word only is used
        auto& word = out_;
        const std::uint32_t before = word.fetch_sub(1, std::memory_order_acq_rel);
        if ((before & ~awaited) == 1) {
            source_base& from = from_;
            from.keep(*this);
            from.unrefer(); // this may be the end of all
        } else if (before == (awaited | 2)) {
            c.unpark(word);
        }
    }

    settler& to_;
    source_base& from_;
    clock& clock_;
    std::atomic<std::uint32_t> out_{0};
    custody* sibling_ = nullptr; // of one custodian
};

/// All custodies of one consumer.
class custodian {
public:
    custodian(source_base& from, clock& c) noexcept : from_(from), clock_(c) {}
    custodian(const custodian&) = delete;
    custodian& operator=(const custodian&) = delete;
    ~custodian() {
        for (custody* c = first_.load(std::memory_order_acquire); c != nullptr;) {
            custody* const next = c->sibling_;
            c->close();
            c = next;
        }
    }

    /// From now on `d` is waited for until it is settled. Throws std::bad_alloc.
    template <class T>
    void entrust(delivery<T>& d) {
        custody& c = before(delivery_access::owner(d));
        c.enter();
        delivery_access::redirect(d, c);
    }
    /// Waits until all that was entrusted is settled. False: the deadline came first.
    bool wait(duration deadline) noexcept {
        for (custody* c = first_.load(std::memory_order_acquire); c != nullptr; c = c->sibling_) {
            if (!c->wait(deadline)) { return false; }
        }
        return true;
    }

private:
    custody* find(const settler& s) const noexcept {
        custody* c = first_.load(std::memory_order_acquire);
        while (c != nullptr && !c->stands_before(s)) { c = c->sibling_; }
        return c;
    }
    custody& before(settler& s) {
        if (custody* const c = find(s)) { return *c; }
        const std::lock_guard lock(mutex_);
        custody* c = find(s);
        if (c == nullptr) {
            c = static_cast<custody*>(from_.take_kept(&s)); // nothing else is kept under a settler's address
            if (c == nullptr) { c = new custody(s, from_, clock_); }
            c->open();
            c->sibling_ = first_.load(std::memory_order_relaxed);
            first_.store(c, std::memory_order_release);
        }
        return *c;
    }

    source_base& from_;
    clock& clock_;
    std::atomic<custody*> first_{nullptr};
    std::mutex mutex_; // guards additions
};

} // namespace mailroom::detail
