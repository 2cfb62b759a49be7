// A stay under the cursor's mutex, and what has to wait until it is free.
#pragma once

#include <mailroom/cursor/detail/cursor_class.hpp>

namespace mailroom::detail {

/// The mutex, and what has to wait until it is free: foreign destructors, wakes.
class cursor::session {
public:
    explicit session(cursor& c) noexcept
        : c_(c), lock_(c.mutex_), shut_before_(c.index_state_.load(std::memory_order_relaxed) == index_shut),
          leased_before_(c.index_.count().leased) {}
    session(const session&) = delete;
    session& operator=(const session&) = delete;

    ~session() {
        const std::size_t wake = rearm();
        if (messages_ != 0) { c_.host_.settled(messages_, bytes_); }
        if (ending_ == nullptr && wake == 0 && !died_ && doubted_ == nullptr) { return; }
        c_.host_.hold(); // the endpoint may go as soon as the mutex is free, even by what runs here
        lock_.unlock();
        if (doubted_ != nullptr) { bury_doubted(); }
        if (ending_ != nullptr) { end_all(); }
        if (wake != 0) { c_.host_.wake(wake); }
        if (died_) { c_.host_.somebody_died(); }
        c_.host_.let_go();
    }

    void left(const entry& e) noexcept { left(1, static_cast<std::int64_t>(e.bytes)); }
    void left(std::int64_t messages, std::int64_t bytes) noexcept {
        messages_ += messages;
        bytes_ += messages * bytes;
    }

    void died() noexcept { died_ = true; }

    /// It has expired, and nobody knows whether it was wanted. It is nowhere until the filter has said so, and holds up nothing of its key.
    void doubt(entry& e, duration now) noexcept {
        c_.index_.leave_group(e, now);
        ++e.holders;            // this session's
        e.next_free = doubted_; // not `next`: whoever moves the cursor meanwhile lists it
        doubted_ = &e;
    }

    /// The message is settled and nobody holds it: its end.
    void finish(entry& e) noexcept {
        c_.index_.forget(e);
        if (c_.ends_quietly_) {
            c_.host_.end(e);
            dispose(e);
        } else {
            e.holders = 1; // this session's: its page word still points to it, and nobody may move the body meanwhile
            e.next = ending_;
            ending_ = &e;
        }
    }

private:
    void dispose(entry& e) noexcept {
        if (e.home != nullptr) { c_.release_slot(*e.home, e.index); }
        c_.index_.recycle(e);
    }
    void bury_doubted() noexcept {
        for (entry* e = doubted_; e != nullptr; e = e->next_free) { e->unsifted = !c_.host_.wants(*e); }
        session s(c_);
        const duration now = c_.clock_.now();
        while (doubted_ != nullptr) {
            entry& e = *std::exchange(doubted_, doubted_->next_free);
            if (c_.orphaned_) {
                c_.host_.let_go(); // counted among what was out
            } else if (--e.holders, e.departed) {
                if (e.holders != 0) { continue; }
                c_.departed_.erase(e);
                s.finish(e);
            } else if (e.unsifted) {
                c_.ignore(s, e, now);
            } else {
                ++c_.expired_;
                c_.die(s, e, now, reason_expired);
            }
        }
    }
    void end_all() noexcept {
        for (entry* e = ending_; e != nullptr; e = e->next) { c_.host_.end(*e); }
        const std::lock_guard lock(c_.mutex_);
        while (ending_ != nullptr) { dispose(*std::exchange(ending_, ending_->next)); }
    }

    // Publishes what the lock-free side needs to know. Returns how many receivers may find something new.
    std::size_t rearm() noexcept {
        duration next = std::min({c_.lane_lease_, c_.lane_expiry_, c_.timed_expiry_});
        if (const entry* e = c_.index_.next_parked()) { next = std::min(next, e->when); }
        if (const entry* e = c_.index_.next_lease()) { next = std::min(next, e->when); }
        if (const entry* e = c_.index_.next_expiry()) { next = std::min(next, e->expires); }
        if (c_.deferred_ != 0) { next = duration::zero(); }

        const bool shut = !c_.may_claim();
        const std::size_t eligible = c_.index_.eligible() + c_.shelf_.size();
        const bool only_index = shut || c_.always_index_ || eligible != 0;
        c_.gate_.store(only_index ? 0 : next.count(), std::memory_order_relaxed);
        if (only_index != c_.is_gated_ && !c_.stopped_) {
            c_.is_gated_ = only_index;
            if (only_index) {
                c_.next_.fetch_or(1, std::memory_order_seq_cst);
            } else {
                c_.next_.fetch_and(~std::uint64_t{1}, std::memory_order_seq_cst);
            }
        }
        c_.index_state_.store(shut ? index_shut : eligible != 0 ? index_has : index_empty, std::memory_order_seq_cst);
        const duration before(c_.deadline_.exchange(next.count(), std::memory_order_seq_cst));

        if (next < before || c_.closing_.load(std::memory_order_relaxed)) { return SIZE_MAX; } // all look again
        if (shut) { return 0; }
        if (c_.owner_ != c_.wanted_ && c_.index_.count().leased == 0) { return SIZE_MAX; } // the new one may begin
        if (shut_before_ || (c_.options_.limited_together && c_.index_.count().leased < leased_before_)) { return SIZE_MAX; }
        return eligible;
    }

    cursor& c_;
    std::unique_lock<std::mutex> lock_;
    entry* ending_ = nullptr;
    entry* doubted_ = nullptr;
    std::int64_t messages_ = 0;
    std::int64_t bytes_ = 0;
    bool died_ = false;
    const bool shut_before_;
    const std::size_t leased_before_;
};

} // namespace mailroom::detail
