// quota: how much subscriptions of one topic may leave unsettled, and which publishers wait for them.
//
// Each subscription has an account. What it has not settled is what was published since it began less what it settled; a topic is full when
// that would pass a limit for one of the durable ones. An ephemeral one that would pass it loses its oldest messages instead: `shed`.
//
// What is published is counted under a mutex, what is settled is not: a settler adds to its account (seq_cst), then looks for publishers that
// wait (seq_cst); a publisher adds itself, then tries once more. One of them sees the other.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/budget.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/link.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>

namespace mailroom::detail {

class quota {
public:
    struct limits {
        std::size_t messages;
        std::size_t bytes;
        memory_budget* budget;
        overflow rule;
    };

    /// What one subscription has to settle.
    class account {
    public:
        explicit account(bool durable) noexcept : durable_(durable) {}
        bool durable() const noexcept { return durable_; }
        /// It is over the limits and nothing of it can be dropped now. One that is ephemeral holds nobody back then, until it settles some.
        void set_stuck() noexcept { stuck_.store(true, std::memory_order_seq_cst); }

    private:
        friend class quota;
        const bool durable_;
        // Of what was ever published; an account that is opened late begins with what it never had to settle.
        std::atomic<std::uint64_t> messages_{0};
        std::atomic<std::uint64_t> bytes_{0};
        std::atomic<bool> stuck_{false};
    };

    explicit quota(const limits& l) noexcept : limits_(l) {}

    bool limited() const noexcept { return limits_.messages != 0 || weighs(); }
    overflow rule() const noexcept { return limits_.rule; }
    bool could_ever_hold(std::size_t n, std::size_t bytes) const noexcept {
        return (limits_.messages == 0 || n <= limits_.messages) && (limits_.bytes == 0 || bytes <= limits_.bytes) &&
               (limits_.budget == nullptr || bytes <= limits_.budget->limit());
    }
    memory_budget* budget() const noexcept { return limits_.budget; }
    /// What messages of so many bytes take of the budget: without anybody who has to settle them, nothing.
    std::size_t charge_for(std::size_t bytes) const noexcept {
        if (limits_.budget == nullptr) { return 0; }
        const std::lock_guard lock(mutex_);
        return accounts_.empty() ? 0 : bytes;
    }
    static constexpr bool admits(offset, std::size_t) noexcept { return true; }
    /// How many more than it must somebody drops who drops at all.
    std::size_t ample() const noexcept { return limits_.messages / 8; }

    /// Takes `n` offsets of `log` for messages of `bytes` together, if there is room; `full` says whether that was why not.
    template <class Stream>
    typename Stream::taken reserve(Stream& log, std::size_t n, std::size_t bytes, duration now, bool& full) {
        const auto always = [](offset) { return true; };
        if (!limited()) { return log.take(n, now, always); }
        const std::lock_guard lock(mutex_); // so that who opens an account finds as much published as the logs hold
        full = !may_take(n, bytes) || !charge(bytes);
        if (full) { return {0, false, false}; }
        typename Stream::taken place{0, false, false};
        try {
            place = log.take(n, now, always);
        } catch (...) {
            recharge();
            throw;
        }
        if (place.taken) {
            known_room_ -= n;
            messages_ += n;
            bytes_ += bytes;
        } else {
            recharge();
        }
        return place;
    }

    /// The same where `place(admission)` puts them into a journal. What is not committed after all is taken back: `take_back`.
    template <class Place>
    placed reserve(link_base&, std::size_t n, std::size_t bytes, Place place) {
        return reserve_until(nullptr, n, bytes, place);
    }
    template <class Head, class Place>
    placed reserve_until(Head, std::size_t n, std::size_t bytes, Place place) {
        const admission always;
        if (!limited()) { return place(always); }
        const std::lock_guard lock(mutex_);
        placed p;
        p.full = !may_take(n, bytes) || !charge(bytes);
        if (p.full) { return p; }
        try {
            p = place(always);
        } catch (...) {
            recharge();
            throw;
        }
        if (p.taken) {
            known_room_ -= n;
            messages_ += n;
            bytes_ += bytes;
        } else {
            recharge();
        }
        return p;
    }
    /// Counts messages whether there is room or not.
    void force(std::size_t n, std::size_t bytes) noexcept {
        if (!limited()) { return; }
        const std::lock_guard lock(mutex_);
        messages_ += n;
        bytes_ += bytes;
        known_room_ = 0;
        recharge();
    }
    void take_back(std::size_t n, std::size_t bytes) noexcept {
        if (!limited()) { return; }
        {
            const std::lock_guard lock(mutex_);
            messages_ -= n;
            bytes_ -= bytes;
            known_room_ = 0;
            recharge();
        }
        wake_all();
    }

    /// How far one account is over the limits, should `n` more of `bytes` together come; the bytes say whether it is at all.
    struct excess {
        std::uint64_t messages = 0;
        std::uint64_t bytes = 0;
        explicit operator bool() const noexcept { return messages != 0 || bytes != 0; }
    };
    excess over(const account& a, std::size_t n, std::size_t bytes) const noexcept {
        const std::lock_guard lock(mutex_);
        return over_locked(a, n, bytes);
    }
    bool has_room(offset, std::size_t n, std::size_t bytes) const noexcept {
        const std::lock_guard lock(mutex_);
        return std::none_of(accounts_.begin(), accounts_.end(), [&](const account* a) { return a->durable() && over_locked(*a, n, bytes); });
    }
    bool has_ample_room(offset, std::size_t n) const noexcept {
        const std::lock_guard lock(mutex_);
        return std::none_of(accounts_.begin(), accounts_.end(), [&](const account* a) { return a->durable() && over_locked(*a, n, 0); });
    }

    /// An account begins with as much to settle as `make` says, a pair of messages and bytes; nothing is published meanwhile. Throws
    /// std::bad_alloc, and what `make` throws.
    template <class Make>
    void open(account& a, Make make) {
        const std::lock_guard lock(mutex_);
        accounts_.reserve(accounts_.size() + 1);
        const auto [messages, bytes] = make();
        accounts_.push_back(&a);
        known_room_ = 0;
        a.messages_.store(messages_ - messages, std::memory_order_seq_cst);
        a.bytes_.store(bytes_ - bytes, std::memory_order_seq_cst);
        recharge();
    }
    void close(account& a) noexcept {
        {
            const std::lock_guard lock(mutex_);
            std::erase(accounts_, &a);
            known_room_ = 0;
            recharge();
        }
        wake_all();
    }
    /// So much of it is settled; negative: came back.
    void left(account& a, std::int64_t messages, std::int64_t bytes) noexcept {
        a.messages_.fetch_add(static_cast<std::uint64_t>(messages), std::memory_order_seq_cst);
        a.bytes_.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_seq_cst);
        if (a.stuck_.load(std::memory_order_relaxed)) { a.stuck_.store(false, std::memory_order_seq_cst); }
        if (messages < 0) {
            const std::lock_guard lock(mutex_);
            known_room_ = 0;
        }
        if (limits_.budget != nullptr) {
            const std::lock_guard lock(mutex_);
            recharge();
        }
        if (senders().size() != 0) { wake_all(); }
    }

    void join(waiter& w, std::size_t) noexcept { senders().add(w, nothing()); }
    bool leave(waiter& w, std::size_t) noexcept { return senders().remove(w, nothing()); }
    void wake(std::size_t n) noexcept {
        for (std::size_t left = std::min(n, senders().size()); left != 0; --left) {
            waiter* const w = senders().take(nothing());
            if (w == nullptr) { return; }
            w->wake();
        }
    }
    void wake_all() noexcept { wake(std::numeric_limits<std::size_t>::max()); }

    /// The topic is gone: what it holds counts no longer.
    void abandon() noexcept {
        {
            const std::lock_guard lock(mutex_);
            accounts_.clear();
            recharge();
        }
        wake_all();
    }

private:
    bool weighs() const noexcept { return limits_.bytes != 0 || limits_.budget != nullptr; }
    wait_list& senders() noexcept { return limits_.budget != nullptr ? limits_.budget->senders() : senders_; }

    excess over_locked(const account& a, std::size_t n, std::size_t bytes) const noexcept {
        const std::uint64_t m = messages_ + n - a.messages_.load(std::memory_order_seq_cst);
        const std::uint64_t b = bytes_ + bytes - a.bytes_.load(std::memory_order_seq_cst);
        excess e;
        if (limits_.messages != 0 && m > limits_.messages) { e.messages = m - limits_.messages; }
        if (limits_.bytes != 0 && b > limits_.bytes) { e.bytes = b - limits_.bytes; }
        if (limits_.budget != nullptr && b > bytes && b == most_unsettled() + bytes && !limits_.budget->has_room(bytes)) {
            e.bytes = std::max<std::uint64_t>(e.bytes, bytes); // the slowest uses the budget up
        }
        return e;
    }
    bool may_take(std::size_t n, std::size_t bytes) noexcept {
        if (!weighs() && known_room_ >= n) { return true; } // with messages alone to count, how many fit is known for a while
        std::uint64_t room = std::numeric_limits<std::uint64_t>::max();
        known_room_ = 0;
        bool some_stuck = false;
        for (const account* const a : accounts_) {
            if (!a->durable() && a->stuck_.load(std::memory_order_seq_cst)) {
                some_stuck = true; // it may get rid of something at any time, and then counts again
                continue;
            }
            if (over_locked(*a, n, bytes)) { return false; }
            if (limits_.messages != 0) { room = std::min(room, limits_.messages - (messages_ - a->messages_.load(std::memory_order_seq_cst))); }
        }
        known_room_ = some_stuck ? n : room;
        return true;
    }
    // The budget is charged for what the slowest has not settled.
    std::uint64_t most_unsettled() const noexcept {
        std::uint64_t most = 0;
        for (const account* const a : accounts_) { most = std::max(most, bytes_ - a->bytes_.load(std::memory_order_seq_cst)); }
        return most;
    }
    bool charge(std::size_t bytes) noexcept {
        if (limits_.budget == nullptr || accounts_.empty()) { return true; }
        const std::uint64_t most = most_unsettled() + bytes;
        if (most > charged_) {
            if (!limits_.budget->take(static_cast<std::size_t>(most - charged_))) { return false; }
            charged_ = most;
        }
        return true;
    }
    void recharge() noexcept {
        if (limits_.budget == nullptr) { return; }
        const std::uint64_t most = most_unsettled();
        if (most < charged_) { limits_.budget->credit(static_cast<std::size_t>(charged_ - most)); }
        if (most > charged_) { limits_.budget->force(static_cast<std::size_t>(most - charged_)); }
        charged_ = most;
    }

    const limits limits_;
    mutable std::mutex mutex_; // all but the words of the accounts
    std::vector<account*> accounts_;
    std::uint64_t messages_ = 0; // published
    std::uint64_t bytes_ = 0;
    std::uint64_t known_room_ = 0; // so many fit, as far as is known
    std::uint64_t charged_ = 0;    // to the budget
    wait_list senders_;
};

} // namespace mailroom::detail
