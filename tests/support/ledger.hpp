// What happened to each message while many threads had their way with a queue, and what must never have happened.
// Any thread may write into it; messages are numbered from 0.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace support {

class ledger {
public:
    enum class end : std::uint8_t { none, acked, dead, dropped };

    explicit ledger(std::size_t messages) : pages_(messages) {}

    /// Somebody was given this attempt of the message.
    void given(std::size_t message, std::uint32_t attempt) {
        if (message >= pages_.size()) { return broken("invented: ", message); }
        page& p = pages_[message];
        if (attempt == 0 || attempt > 63) { return broken("attempt out of range: ", message); }
        if ((p.attempts.fetch_or(bit(attempt)) & bit(attempt)) != 0) { broken("an attempt was given twice: ", message); }
        if (p.outcome.load() != end::none && attempt > p.last_attempt.load()) { broken("given after its end: ", message); }
        handed_out_.fetch_add(1);
        if (attempt > 1) { redelivered_.fetch_add(1); }
    }
    /// Before a release: the same attempt will be given again.
    void to_be_released(std::size_t message, std::uint32_t attempt) { pages_[message].attempts.fetch_and(~bit(attempt)); }
    /// The queue said yes: this attempt ended the message. A pop does not know its attempt: the last possible.
    static constexpr std::uint32_t popped = 63;
    void ended(std::size_t message, std::uint32_t attempt, end how) {
        page& p = pages_[message];
        p.last_attempt.store(attempt);
        end none = end::none;
        if (!p.outcome.compare_exchange_strong(none, how)) { broken("ended twice: ", message); }
        if ((p.attempts.load() >> attempt) > 1) { broken("ended by one who had lost it: ", message); }
    }
    /// It was found among the dead, where its last receiver may have sent it.
    void found_dead(std::size_t message) {
        const end before = pages_[message].outcome.exchange(end::dead);
        if (before == end::acked || before == end::dropped) { broken("dead, though it ended otherwise: ", message); }
        if (pages_[message].found.exchange(true)) { broken("dead twice: ", message); }
    }

    std::size_t count(end how) const {
        std::size_t n = 0;
        for (const page& p : pages_) { n += p.outcome.load() == how; }
        return n;
    }
    std::uint64_t handed_out() const { return handed_out_.load(); }
    std::uint64_t redelivered() const { return redelivered_.load(); }

    void broken(const std::string& what, std::size_t message) {
        const std::lock_guard lock(mutex_);
        if (complaints_.size() < 10) { complaints_.push_back(what + std::to_string(message)); }
    }
    /// Everything that must not have been, or "".
    std::string complaints() const {
        std::string text;
        for (const auto& c : complaints_) { text += c + "\n"; }
        return text;
    }

private:
    struct page {
        std::atomic<std::uint64_t> attempts{0};
        std::atomic<std::uint32_t> last_attempt{0}; // which ended it: an earlier one may be noted later
        std::atomic<end> outcome{end::none};
        std::atomic<bool> found{false};
    };
    static std::uint64_t bit(std::uint32_t attempt) { return std::uint64_t{1} << attempt; }

    std::vector<page> pages_;
    std::atomic<std::uint64_t> handed_out_{0}, redelivered_{0};
    std::mutex mutex_;
    std::vector<std::string> complaints_;
};

} // namespace support
