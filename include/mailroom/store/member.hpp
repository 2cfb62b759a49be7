// member<T>: one handle's part in a subscription: what consumers, coroutines and blocked threads receive from.
#pragma once

#include <mailroom/base/stop_token.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/store/group.hpp>
#include <mailroom/store/receiver.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace mailroom::detail {

template <class T>
class member final : public receiver<T, member<T>> {
    friend class group<T>;
    friend class receiver<T, member<T>>;

public:
    explicit member(group<T>& g) noexcept : group_(g) { group_.refer(); }

    group<T>& subscription() const noexcept { return group_; }
    /// The handle goes: this receives nothing any more, and what it had not settled is the others'.
    void abandon() noexcept {
        group_.leave(*this);
        group_.topic().end_answering(&group_, static_cast<source<T>*>(this));
        this->unrefer();
    }

    /// Up to `max` deliveries to `sink(x)`, which may not throw; x converts to a delivery<T>, once. Never waits.
    template <class Sink>
    std::size_t take(std::size_t max, Sink sink) {
        if (group_.limits_together()) {
            return group_.claim_within(max, [&](std::size_t n) { return from_any([&](tap<T>& t) { return t.take(n, sink, number_); }); });
        }
        return from_any([&](tap<T>& t) { return t.take(max, sink, number_); });
    }
    /// Up to `max` messages, settled, to `sink(x)`; x converts to a message<T>, once. Never waits.
    template <class Sink>
    std::size_t pop(std::size_t max, Sink sink) {
        if (has_enough()) { return 0; }
        return from_any([&](tap<T>& t) { return t.pop(max, sink, number_); });
    }

    /// The same, `fn(body, properties)` called for each in place.
    template <class Fn>
    std::size_t pop_each(std::size_t max, Fn& fn) {
        if (has_enough()) { return 0; }
        return from_any([&](tap<T>& t) { return t.pop_each(max, fn, number_); });
    }

    outlook look_ahead() noexcept override {
        group_.topic().sweep_calls();
        if (is_gone()) { return outlook::finished; }
        if (!group_.topic().is_closed()) { return outlook::wait; }
        switch (group_.remaining()) {
        case cursor::rest::nothing: return outlook::finished;
        case cursor::rest::momentarily: return outlook::again;
        case cursor::rest::some: break;
        }
        return outlook::wait;
    }
    bool may_have() const noexcept override {
        if (is_gone()) { return true; }
        if (next_due() <= time().now()) { return true; }
        if (group_.options().mode == sharing::failover && !is_active()) { return false; }
        if (has_enough()) { return false; }
        const bool exactly = !group_.any_takes_any() && group_.options().mode != sharing::failover;
        return std::any_of(group_.taps().begin(), group_.taps().end(),
                           [&](const auto& t) { return t->may_have() && (!exactly || t->may_have(number_)); });
    }
    duration next_due() const noexcept override { return std::min(group_.next_due(), group_.topic().calls_due()); }
    void catch_up() noexcept override {
        group_.step();
        group_.topic().sweep_calls();
    }
    void about_to_sleep() noexcept {
        if (group_.topic().archive() != nullptr) { group_.topic().archive()->push_settlements(); }
    }
    void join(waiter& w) noexcept override {
        group_.waiting_.fetch_add(1, std::memory_order_seq_cst);
        waiters().add(w, nothing());
        for (auto& t : group_.taps()) { t->listen(); }
    }
    bool leave(waiter& w) noexcept override {
        if (!waiters().remove(w, nothing())) { return false; }
        group_.waiting_.fetch_sub(1, std::memory_order_seq_cst);
        return true;
    }
    bool renew(offset o, int partition, std::uint32_t attempt, duration lease) noexcept override {
        return group_.taps()[static_cast<std::size_t>(partition)]->state().extend(o, attempt, lease);
    }
    std::size_t backlog() const noexcept override {
        std::size_t n = 0;
        for (const auto& t : group_.taps()) { n += t->backlog(); }
        return n;
    }
    clock& time() const noexcept override { return group_.topic().common().time.clock(); }
    duration lease() const noexcept override { return group_.options().lease; }
    bool has_priorities() const noexcept override { return false; }

private:
    ~member() { group_.unrefer(); }
    void destroy() noexcept override { delete this; }

    bool is_gone() const noexcept { return left_.load(std::memory_order_acquire) || group_.is_gone(); }
    bool has_enough() const noexcept { return group_.limits_together() && group_.may_claim() == 0; }
    bool is_active() const noexcept { return group_.active_.load(std::memory_order_acquire) == number_; }
    bool may_have_something() const noexcept {
        if (group_.limits_together()) { return may_have(); }
        return std::any_of(group_.taps().begin(), group_.taps().end(), [](const auto& t) { return t->may_have(); });
    }
    wait_list& waiters() noexcept { return group_.any_takes_any() ? group_.receivers_ : receivers_; }

    // One partition after the other, each for a while.
    template <class Ask>
    std::size_t from_any(Ask ask) {
        if (is_gone() || (group_.options().mode == sharing::failover && !is_active())) { return 0; }
        auto& taps = group_.taps();
        if (taps.size() == 1) { return ask(*taps.front()); }
        constexpr std::uint32_t a_while = 32;
        const std::uint32_t turn = turn_.fetch_add(1, std::memory_order_relaxed);
        for (std::size_t i = 0, at = turn / a_while % taps.size(); i < taps.size(); ++i, at = at + 1 == taps.size() ? 0 : at + 1) {
            if (const std::size_t n = ask(*taps[at])) { return n; }
        }
        return 0;
    }

    group<T>& group_;
    std::uint32_t number_ = 0;
    std::atomic<bool> left_{false};
    std::atomic<std::uint32_t> turn_{0};
    wait_list receivers_; // where it is not for any to take what is there
};

// ------------------------------------------------------------------------------------------------------------- the group and its members

template <class T>
std::uint32_t group<T>::free_number() const noexcept {
    for (std::uint32_t n = 1;; ++n) {
        if (std::none_of(members_.begin(), members_.end(), [n](const member<T>* m) { return m->number_ == n; })) { return n; }
    }
}

template <class T>
void group<T>::join(member<T>& m) {
    const inside here(*this);
    if (is_gone()) { fail(errc::closed, "the subscription is over"); }
    if (!members_.empty() && (options_.mode == sharing::exclusive || !is_durable())) {
        fail(errc::already_exists, "an exclusive subscription has one member: it is open already");
    }
    constexpr std::size_t most = std::numeric_limits<std::uint16_t>::max() - 1;
    if (members_.size() >= most) { fail(errc::full, "a subscription has at most 65534 members"); }
    {
        const std::lock_guard lock(roll_);
        members_.reserve(members_.size() + 1);
    }
    roster_.reserve(members_.size() + 1);
    loads_.resize(members_.size() + 1);
    m.number_ = free_number();
    if (options_.mode == sharing::keyed) {
        for (auto& t : taps_) { t->state().add_member(m.number_); }
        shares_.join(static_cast<std::uint16_t>(m.number_));
    }
    {
        const std::lock_guard lock(roll_);
        members_.push_back(&m);
    }
    last_used_ = clock::never;
    if (active_.load(std::memory_order_relaxed) == 0) { active_.store(m.number_, std::memory_order_release); }
    if (options_.mode == sharing::partitioned) { assign_partitions(); }
    pending_.store(true, std::memory_order_seq_cst);
}

template <class T>
void group<T>::leave(member<T>& m) noexcept {
    bool last = false;
    {
        const inside here(*this);
        m.left_.store(true, std::memory_order_release);
        {
            const std::lock_guard lock(roll_);
            std::erase(members_, &m);
        }
        last = members_.empty();
        if (last) { last_used_ = topic_.common().time.now(); }
        if (is_durable() && !is_gone()) { hand_over(m.number_); }
        pending_.store(true, std::memory_order_seq_cst);
    }
    wake_in(m.receivers_); // who waits in its name finds that it is over
    if (last && !is_durable()) { topic_.forget(*this); }
}

template <class T>
void group<T>::hand_over(std::uint32_t gone) noexcept {
    switch (options_.mode) {
    case sharing::failover:
        if (active_.load(std::memory_order_relaxed) != gone) { return; }
        for (auto& t : taps_) { t->state().lapse(); } // before the next one may receive, for its leases are not meant
        active_.store(members_.empty() ? 0 : members_.front()->number_, std::memory_order_release);
        return;
    case sharing::shared:
        if (!members_.empty()) { return; } // nobody knows what was whose
        break;
    case sharing::keyed:
        shares_.leave(static_cast<std::uint16_t>(gone));
        for (auto& t : taps_) {
            t->state().lapse(gone);
            t->state().remove_member(gone);
        }
        return;
    case sharing::partitioned:
        for (auto& t : taps_) { t->state().lapse(gone); }
        assign_partitions();
        return;
    case sharing::exclusive: break;
    }
    for (auto& t : taps_) { t->state().lapse(); }
}

template <class T>
void group<T>::assign_partitions() noexcept {
    roster_.clear(); // there is room for as many as there are members
    for (const member<T>* const m : members_) { roster_.push_back(m->number_); }
    share_partitions(owners_, roster_, loads_);
    for (std::size_t i = 0; i < taps_.size(); ++i) { taps_[i]->state().assign(owners_[i]); }
}

template <class T>
void group<T>::wake_in(wait_list& list) noexcept {
    for (std::size_t left = list.size(); left != 0; --left) {
        waiter* const w = list.take(nothing());
        if (w == nullptr) { return; }
        waiting_.fetch_sub(1, std::memory_order_seq_cst);
        w->wake();
    }
}

template <class T>
void group<T>::wake_receivers(std::size_t n) noexcept {
    if (n == 0 || leave_wakes()) { return; }
    if (any_takes_any()) {
        for (std::size_t left = std::min(n, receivers_.size()); left != 0; --left) {
            waiter* const w = receivers_.take(nothing());
            if (w == nullptr) { return; }
            waiting_.fetch_sub(1, std::memory_order_seq_cst);
            w->wake();
        }
        return;
    }
    // Which of them may take what is there, they find out themselves.
    for (std::size_t left = waiting_.load(std::memory_order_seq_cst); left != 0;) {
        std::array<waiter*, 16> some;
        std::size_t count = 0;
        {
            const std::lock_guard lock(roll_);
            for (member<T>* const m : members_) {
                if (options_.mode == sharing::failover && n != all && !m->is_active()) { continue; }
                while (count < std::min(left, some.size())) {
                    waiter* const w = m->receivers_.take(nothing());
                    if (w == nullptr) { break; }
                    some[count++] = w;
                }
            }
        }
        if (count == 0) { return; }
        waiting_.fetch_sub(static_cast<std::uint32_t>(count), std::memory_order_seq_cst);
        left -= count;
        for (std::size_t i = 0; i < count; ++i) { some[i]->wake(); }
    }
}

} // namespace mailroom::detail
