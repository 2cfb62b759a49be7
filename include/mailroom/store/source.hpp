// source<T>: something that can be received from, as consumers and coroutines see it. Stores implement it.
//
// Lifetime: a source counts those who refer to it (its endpoint, consumers, coroutines, deliveries that outlived their endpoint) and
// deletes itself when the last lets go. Every member may be called from any thread.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/message/delivery.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// What a receiver is to do when there was nothing for it.
enum class outlook : std::uint8_t {
    wait,     // something may come
    again,    // something is about to be decided: look again at once
    finished, // closed, and nothing is ready, parked or in flight
};

/// Something small that stays with a source until that goes, because a late call may still look at it.
class keepsake {
public:
    keepsake(const keepsake&) = delete;
    keepsake& operator=(const keepsake&) = delete;
    virtual ~keepsake() = default;

protected:
    explicit keepsake(const void* of) noexcept : of_(of) {}

private:
    friend class source_base;
    const void* const of_;
    keepsake* next_ = nullptr;
};

/// What a source is without its `T`: counted references, and keepsakes.
class source_base {
public:
    source_base() = default;
    source_base(const source_base&) = delete;
    source_base& operator=(const source_base&) = delete;

    void refer(std::size_t n = 1) noexcept { references_.fetch_add(n, std::memory_order_relaxed); }
    void unrefer() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) { destroy(); }
    }

    /// Keeps `k`, made with `new`, until the source goes or somebody takes it.
    void keep(keepsake& k) noexcept {
        const std::lock_guard lock(mutex_);
        k.next_ = kept_;
        kept_ = &k;
    }
    /// One that was kept and is `of` the same, to be used again; or nullptr.
    keepsake* take_kept(const void* of) noexcept {
        const std::lock_guard lock(mutex_);
        for (keepsake** at = &kept_; *at != nullptr; at = &(*at)->next_) {
            if ((*at)->of_ == of) { return std::exchange(*at, (*at)->next_); }
        }
        return nullptr;
    }

protected:
    ~source_base() {
        while (kept_ != nullptr) { delete std::exchange(kept_, kept_->next_); }
    }
    virtual void destroy() noexcept = 0;

private:
    std::atomic<std::size_t> references_{1};
    std::mutex mutex_; // held for a few instructions
    keepsake* kept_ = nullptr;
};

template <class T>
class source : public source_base {
public:
    /// A delivery if there is one; never waits.
    virtual std::optional<delivery<T>> take_one() = 0;
    /// Appends up to `max`, waiting for the first until `deadline` or a stop. Returns how many.
    virtual std::size_t take_some(std::vector<delivery<T>>& out, std::size_t max, duration deadline, const stop_token& stop) = 0;
    virtual outlook look_ahead() noexcept = 0;
    /// Whether a take may find something now; sequentially consistent with `join`.
    virtual bool may_have() const noexcept = 0;
    /// The same without looking at the time: for who looks again and again, for a moment.
    virtual bool glance() const noexcept { return may_have(); }
    /// When something that is parked now becomes due.
    virtual duration next_due() const noexcept = 0;
    /// Does what is due, and wakes who waits for it.
    virtual void catch_up() noexcept = 0;
    /// Waits to be woken when a take may find something, or never will.
    virtual void join(waiter& w) noexcept = 0;
    /// False: somebody is waking it.
    virtual bool leave(waiter& w) noexcept = 0;
    /// Renews the lease of a delivery that may be in other hands.
    virtual bool renew(offset o, int partition, std::uint32_t attempt, duration lease) noexcept = 0;
    /// About how many could be received at once.
    virtual std::size_t backlog() const noexcept = 0;
    virtual clock& time() const noexcept = 0;
    /// Zero: none.
    virtual duration lease() const noexcept = 0;
    /// Whether what is received early may later turn out not to be the most urgent.
    virtual bool has_priorities() const noexcept = 0;

protected:
    ~source() = default;
};

/// A counted reference to a source.
template <class T>
class source_ref {
public:
    explicit source_ref(source<T>& s) noexcept : source_(&s) { s.refer(); }
    source_ref(source_ref&& other) noexcept : source_(std::exchange(other.source_, nullptr)) {}
    source_ref& operator=(source_ref&& other) noexcept {
        std::swap(source_, other.source_);
        return *this;
    }
    ~source_ref() {
        if (source_ != nullptr) { source_->unrefer(); }
    }
    source<T>& operator*() const noexcept { return *source_; }
    source<T>* operator->() const noexcept { return source_; }

private:
    source<T>* source_;
};

} // namespace mailroom::detail
