// rendezvous: where those who ask through an endpoint and those who answer meet. It belongs to the endpoint's core and is made by the first
// requester. A requester has a desk (desk.hpp), and on it a call for each request that is out (call.hpp).
//
// Threads: any. Locks: `mutex_`, to come, to go and to be found by address, before a desk's; nothing foreign runs under it, and a request in memory
// that is answered in time takes none.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/message/asking.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/store/call.hpp>
#include <mailroom/store/desk.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// All desks of those who ask through one endpoint.
class rendezvous {
public:
    rendezvous() = default;
    rendezvous(const rendezvous&) = delete;
    rendezvous& operator=(const rendezvous&) = delete;

    /// An address that nobody had before: neither here nor, as far as chance goes, in a process that stored requests in the same journal.
    std::uint64_t new_address(const void* whose) noexcept {
        std::uint64_t x =
            static_cast<std::uint64_t>(system_clock().now().count()) ^ static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(whose)) ^
            static_cast<std::uint64_t>(system_clock().wall().time_since_epoch().count()) << 20 ^ made_.fetch_add(1, std::memory_order_relaxed) << 48;
        for (const std::uint64_t by : {0xbf58476d1ce4e5b9u, 0x94d049bb133111ebu}) { x = (x ^ x >> 30) * by; } // splitmix64
        return x ^ x >> 31;
    }

    void enter(desk& d) {
        const std::lock_guard lock(mutex_);
        desks_.push_back(&d);
        d.order_ = ++entered_;
        if (closed_) { d.close(); } // there are no calls yet
    }
    void leave(desk& d) noexcept {
        const std::lock_guard lock(mutex_);
        std::erase(desks_, &d);
    }
    /// The call that a request belongs to, held, or nullptr; `known`: whether whoever asked is there.
    call* find(const properties& p, bool& known) noexcept {
        known = false;
        std::uint64_t number = 0;
        if (!is_request(p) || !read_call_number(p.correlation_id, number)) { return nullptr; }
        const std::lock_guard lock(mutex_);
        for (desk* const d : desks_) {
            if (d->name() == p.reply_to) {
                known = true;
                return d->find(number);
            }
        }
        return nullptr;
    }
    /// Somebody answers for `whom`, a subscription, each of which is given what is asked; `through`: its member he receives by. Throws std::bad_alloc.
    void come_to_answer(const void* whom, const void* through) {
        const std::lock_guard lock(mutex_);
        answering_.push_back({whom, through});
    }
    /// One who answered through `through` goes; all of them do; all who answered for `whom` do.
    void leave_answering(const void* whom, const void* through) noexcept { take_answering(whom, through, false); }
    void end_answering(const void* whom, const void* through = nullptr) noexcept { take_answering(whom, through, true); }
    /// For whom anybody answers at the moment, each once.
    std::vector<const void*> who_answers() {
        std::vector<const void*> all;
        {
            const std::lock_guard lock(mutex_);
            for (const answering& a : answering_) { all.push_back(a.whom); }
        }
        std::sort(all.begin(), all.end());
        all.erase(std::unique(all.begin(), all.end()), all.end());
        return all;
    }
    /// Takes out for whom nobody answers any more.
    void keep_who_answers(std::vector<const void*>& whom) noexcept {
        const std::lock_guard lock(mutex_);
        std::erase_if(whom, [this](const void* w) { return !answers_for(w); });
    }
    /// The endpoint was closed.
    void close() noexcept {
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
        }
        each([](desk& d) { d.close(); });
    }

    /// When the first call is over that nobody waits for in a thread.
    duration earliest() const noexcept { return duration(earliest_.load(std::memory_order_seq_cst)); }
    /// `d` has one that is over at `deadline`. True: none was over before.
    bool watch(duration deadline) noexcept {
        std::int64_t seen = earliest_.load(std::memory_order_relaxed);
        while (deadline.count() < seen) {
            if (earliest_.compare_exchange_weak(seen, deadline.count(), std::memory_order_seq_cst)) { return true; }
        }
        return false;
    }
    void sweep_at(duration now) noexcept {
        if (earliest() > now) { return; }
        earliest_.store(clock::never.count(), std::memory_order_seq_cst);
        each([&](desk& d) {
            d.sweep(now);
            if (d.earliest() != clock::never) { watch(d.earliest()); }
        });
    }

private:
    struct answering {
        const void* whom;
        const void* through;
    };
    bool answers_for(const void* whom) const noexcept {
        return std::any_of(answering_.begin(), answering_.end(), [whom](const answering& a) { return a.whom == whom; });
    }
    void take_answering(const void* whom, const void* through, bool all) noexcept {
        {
            const std::lock_guard lock(mutex_);
            bool found = false;
            std::erase_if(answering_, [&](const answering& a) {
                const bool is_one = a.whom == whom && (through == nullptr || a.through == through) && (all || !found);
                found = found || is_one;
                return is_one;
            });
            if (!found || answers_for(whom)) { return; }
        }
        each([whom](desk& d) { d.each([whom](call& c) { c.end_from(whom); }); });
    }
    // Calls `fn` for each, in the order in which they came, without the lock.
    template <class Fn>
    void each(Fn fn) noexcept {
        for (std::uint64_t last = 0;;) {
            desk* next = nullptr;
            {
                const std::lock_guard lock(mutex_);
                const auto at = std::find_if(desks_.begin(), desks_.end(), [last](const desk* d) { return d->order_ > last; });
                if (at == desks_.end()) { return; }
                next = *at;
                next->refer();
            }
            last = next->order_;
            fn(*next);
            next->unrefer();
        }
    }

    std::mutex mutex_;
    std::vector<desk*> desks_;
    std::vector<answering> answering_;
    bool closed_ = false;
    std::uint64_t entered_ = 0;
    std::atomic<std::uint64_t> made_{0};
    std::atomic<std::int64_t> earliest_{clock::never.count()};
};

/// An endpoint's rendezvous, once there is one.
class meeting {
public:
    meeting() = default;
    meeting(const meeting&) = delete;
    meeting& operator=(const meeting&) = delete;
    ~meeting() { delete there_.load(std::memory_order_relaxed); }

    /// Made when it is first asked for; `is_closed()`: whether the endpoint is. Throws std::bad_alloc.
    template <class IsClosed>
    rendezvous& point(IsClosed is_closed) {
        rendezvous* there = find();
        if (there == nullptr) {
            auto made = std::make_unique<rendezvous>();
            if (there_.compare_exchange_strong(there, made.get(), std::memory_order_seq_cst)) {
                there = made.release();
                if (is_closed()) { there->close(); }
            }
        }
        return *there;
    }
    rendezvous* find() const noexcept { return there_.load(std::memory_order_seq_cst); }
    /// When the first call is over that nobody waits for in a thread.
    duration earliest() const noexcept {
        const rendezvous* const there = find();
        return there == nullptr ? clock::never : there->earliest();
    }
    void sweep(const clock& c) noexcept {
        if (rendezvous* const there = find(); there != nullptr && there->earliest() != clock::never) [[unlikely]] { there->sweep_at(c.now()); }
    }
    /// The endpoint was closed.
    void close() noexcept {
        if (rendezvous* const there = find()) { there->close(); }
    }

private:
    std::atomic<rendezvous*> there_{nullptr};
};

} // namespace mailroom::detail
