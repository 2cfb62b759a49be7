// bounds: how much an endpoint may hold, and who waits for room.
//
// Messages are counted without a shared counter on the sending side: what is unsettled is the offset about to be taken less what was ever
// settled, and of the latter a sender keeps a copy that it renews only when the queue looks full. Since the test is made for the very
// offset that the sender's CAS then takes, the bound is exact. Bytes are reserved before and given back if nothing was sent.
//
// Waking: a settler adds to `settled_` (seq_cst), then looks for waiters (seq_cst); a waiter adds itself, then tries once more. One of
// them sees the other.
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

namespace mailroom::detail {

class bounds {
public:
    struct limits {
        std::size_t messages;
        std::size_t bytes;
        memory_budget* budget;
        overflow rule;
    };

    explicit bounds(const limits& l) noexcept
        : limited_(l.messages != 0 || l.bytes != 0 || l.budget != nullptr), rule_(l.rule), messages_(l.messages), bytes_(l.bytes), budget_(l.budget) {
    }

    bool limited() const noexcept { return limited_; }
    overflow rule() const noexcept { return rule_; }
    memory_budget* budget() const noexcept { return budget_; }
    /// What messages of so many bytes take of the budget.
    std::size_t charge_for(std::size_t bytes) const noexcept { return budget_ != nullptr ? bytes : 0; }

    bool could_ever_hold(std::size_t n, std::size_t bytes) const noexcept {
        return (messages_ == 0 || n <= messages_) && (bytes_ == 0 || bytes <= bytes_) && (budget_ == nullptr || bytes <= budget_->limit());
    }

    /// Whether `n` messages from offset `first` on fit.
    bool admits(offset first, std::size_t n) noexcept {
        if (messages_ == 0) { return true; }
        std::uint64_t settled = seen_.load(std::memory_order_relaxed);
        if (first + n - settled <= messages_) { return true; }
        settled = settled_.load(std::memory_order_seq_cst);
        seen_.store(settled, std::memory_order_relaxed);
        return first + n - settled <= messages_;
    }
    /// The same for whoever has not taken them yet: of the head, which may move meanwhile, it is asked again until it stands still.
    template <class Head>
    bool would_admit(Head head, std::size_t n) noexcept {
        for (offset at = head(); !admits(at, n);) {
            const offset again = head();
            if (again == at) { return false; }
            at = again;
        }
        return true;
    }
    /// Who took bytes and cannot use them gives them back, and by then somebody else may have gone to sleep for want of them: it wakes all.
    bool take_bytes(std::size_t bytes) noexcept {
        if (budget_ != nullptr && !budget_->has_room(bytes)) { return false; } // otherwise those who wait would wake each other for ever
        if (bytes_ != 0) {
            std::uint64_t used = used_.load(std::memory_order_relaxed);
            do {
                if (used > bytes_ || bytes > bytes_ - used) { return false; }
            } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_seq_cst, std::memory_order_relaxed));
        } else if (budget_ != nullptr) {
            used_.fetch_add(bytes, std::memory_order_relaxed); // what to give back when the endpoint goes
        }
        if (budget_ != nullptr && !budget_->take(bytes)) {
            used_.fetch_sub(bytes, std::memory_order_seq_cst);
            wake_all();
            return false;
        }
        return true;
    }
    void give_bytes_back(std::size_t bytes) noexcept {
        if (weighs()) { used_.fetch_sub(bytes, std::memory_order_seq_cst); }
        if (budget_ != nullptr) {
            budget_->give_back(bytes); // wakes all who wait for it
        } else if (weighs()) {
            wake_all();
        }
    }

    /// Takes `n` offsets of `log` for messages of `bytes` together, if there is room for all; `full` says whether that was why not.
    template <class Stream>
    typename Stream::taken reserve(Stream& log, std::size_t n, std::size_t bytes, duration now, bool& full) {
        if (!limited()) {
            return log.take(n, now, [](offset) { return true; });
        }
        // Messages first: bytes taken and given back would wake others who wait for room, and they this one.
        if (!would_admit([&log] { return log.head(); }, n) || !take_bytes(bytes)) {
            full = true;
            return {0, false, false};
        }
        bool refused = false;
        typename Stream::taken place{0, false, false};
        try {
            place = log.take(n, now, [&](offset first) {
                refused = !admits(first, n);
                return !refused;
            });
        } catch (...) {
            give_bytes_back(bytes);
            throw;
        }
        if (!place.taken) {
            give_bytes_back(bytes);
            full = refused && !log.closed();
        }
        return place;
    }

    /// The same where `place(admission)` puts them into a journal. What is not committed after all is taken back: `take_back`.
    template <class Place>
    placed reserve(link_base& log, std::size_t n, std::size_t bytes, Place place) {
        return reserve_until([&log] { return log.placed_until(); }, n, bytes, place);
    }
    /// The same where `head()` says up to where there are messages.
    template <class Head, class Place>
    placed reserve_until(Head head, std::size_t n, std::size_t bytes, Place place) {
        struct asked {
            bounds& b;
            std::size_t n;
        } whom{*this, n};
        const admission admit{[](void* w, offset first) {
                                  auto& a = *static_cast<asked*>(w);
                                  return a.n == 0 || a.b.admits(first, a.n);
                              },
                              &whom};
        placed p;
        if (limited() && ((n != 0 && !would_admit(head, n)) || (n + bytes != 0 && !take_bytes(bytes)))) {
            p.full = true;
            return p;
        }
        try {
            p = place(admit);
        } catch (...) {
            if (limited()) { give_bytes_back(bytes); }
            throw;
        }
        if (!p.taken && limited()) { give_bytes_back(bytes); }
        return p;
    }
    /// Takes bytes whether there is room or not.
    void force(std::size_t, std::size_t bytes) noexcept {
        if (!weighs()) { return; }
        used_.fetch_add(bytes, std::memory_order_seq_cst);
        if (budget_ != nullptr) { budget_->force(bytes); }
    }
    /// Messages that were placed are not there after all. Their offsets are given again.
    void take_back(std::size_t, std::size_t bytes) noexcept {
        if (limited()) {
            give_bytes_back(bytes);
            wake_all();
        }
    }

    bool has_room(offset head, std::size_t n, std::size_t bytes) noexcept {
        return admits(head, n) && (bytes_ == 0 || used_.load(std::memory_order_seq_cst) + bytes <= bytes_) &&
               (budget_ == nullptr || budget_->used() + bytes <= budget_->limit());
    }
    /// The same with some to spare. Who found it full and looks again at once would trade places with the receiver one by one.
    bool has_ample_room(offset head, std::size_t n) noexcept { return has_room(head, std::max(n, std::min(messages_, n + messages_ / 8)), 0); }
    /// How many messages have to go before `n` more fit.
    std::size_t missing(offset head, std::size_t n) const noexcept {
        const std::uint64_t would_be = head + n - settled_.load(std::memory_order_seq_cst);
        return messages_ != 0 && would_be > messages_ ? static_cast<std::size_t>(would_be - messages_) : 0;
    }
    /// Whether `bytes` more would fit if all but `held` went.
    bool could_spare(std::uint64_t held, std::size_t bytes) const noexcept {
        if (bytes_ != 0 && held + bytes > bytes_) { return false; }
        if (budget_ == nullptr) { return true; }
        const std::uint64_t mine = used_.load(std::memory_order_seq_cst);
        const std::uint64_t of_others = budget_->used() - std::min<std::uint64_t>(mine, budget_->used());
        return of_others + held + bytes <= budget_->limit();
    }

    /// So many messages, of `bytes` together, are settled; negative: they came back from the dead.
    void left(std::int64_t messages, std::int64_t bytes) noexcept {
        settled_.fetch_add(static_cast<std::uint64_t>(messages), std::memory_order_seq_cst);
        if (messages < 0) { seen_.store(settled_.load(std::memory_order_seq_cst), std::memory_order_relaxed); }
        if (weighs()) {
            used_.fetch_sub(static_cast<std::uint64_t>(bytes), std::memory_order_seq_cst);
            if (budget_ != nullptr) {
                if (bytes < 0) {
                    budget_->force(static_cast<std::size_t>(-bytes));
                } else {
                    budget_->give_back(static_cast<std::size_t>(bytes)); // wakes all who wait for it
                    return;
                }
            }
        }
        if (messages > 0) { wake(weighs() || greedy_.load(std::memory_order_seq_cst) != 0 ? SIZE_MAX : static_cast<std::size_t>(messages)); }
    }

    /// A sender begins to wait for room for `n`.
    void join(waiter& w, std::size_t n) noexcept {
        if (n > 1) { greedy_.fetch_add(1, std::memory_order_seq_cst); }
        senders().add(w, nothing());
    }
    bool leave(waiter& w, std::size_t n) noexcept {
        if (n > 1) { greedy_.fetch_sub(1, std::memory_order_seq_cst); }
        return senders().remove(w, nothing());
    }
    void wake(std::size_t n) noexcept {
        std::size_t left = senders().size();
        for (left = n < left ? n : left; left != 0; --left) {
            waiter* const w = senders().take(nothing());
            if (w == nullptr) { return; }
            w->wake();
        }
    }
    void wake_all() noexcept { wake(SIZE_MAX); }

    /// The endpoint is gone: what it holds counts no longer.
    void abandon() noexcept {
        const std::uint64_t rest = used_.exchange(0, std::memory_order_seq_cst);
        if (budget_ != nullptr && rest != 0) { budget_->give_back(static_cast<std::size_t>(rest)); }
    }

private:
    bool weighs() const noexcept { return bytes_ != 0 || budget_ != nullptr; }
    wait_list& senders() noexcept { return budget_ != nullptr ? budget_->senders() : senders_; }

    const bool limited_;
    const overflow rule_;
    const std::size_t messages_;
    const std::size_t bytes_;
    memory_budget* const budget_;
    std::atomic<std::uint64_t> seen_{0}; // of `settled_`; written by senders, rarely
    // Receivers write below at each message, and senders read above: the list keeps the two in different cache lines.
    wait_list senders_;
    static_assert(sizeof(wait_list) >= 64);
    std::atomic<std::uint32_t> greedy_{0};  // waiters that want more than one place
    std::atomic<std::uint64_t> settled_{0}; // ever; written by settlers
    std::atomic<std::uint64_t> used_{0};    // bytes
};

} // namespace mailroom::detail
