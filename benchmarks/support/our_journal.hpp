// The journal of this library, as the benchmarks use it.
#pragma once

#include "disk.hpp"
#include "journal_rivals.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/transaction.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// A queue in a journal in a directory of its own.
class journal_store {
public:
    static constexpr bool shared = true;

    /// `used_bytes`: so much goes through it first. A journal writes over the files of segments that are done with; a new one has none yet.
    explicit journal_store(const mailroom::journal_options& o, std::size_t used_bytes = 0) : disk_(where_.path(), o), queue_(disk_, "letters") {
        const std::vector<std::string> some(16, numbered_body(std::min(std::size_t{16} << 10, o.segment_bytes / 64)));
        for (std::size_t done = 0; done < used_bytes; done += some.size() * some.front().size()) {
            queue_.send_many(some);
            static_cast<void>(queue_.pop_each([](const std::string&) {}, some.size()));
        }
        static_cast<void>(drain());
    }
    mailroom::queue<std::string, mailroom::journal>& queue() noexcept { return queue_; }
    mailroom::journal& disk() noexcept { return disk_; }

    void send(const std::string& body) { queue_.send(body); }
    void send_batch(const std::string* first, std::size_t n) { queue_.send_many(std::span(first, n)); }
    tally drain() {
        tally all;
        while (queue_.pop_each([&all](const std::string& b) { all.add(b); }, 4096) != 0) {}
        disk_.flush();
        return all;
    }

private:
    scratch where_;
    mailroom::journal disk_;
    mailroom::queue<std::string, mailroom::journal> queue_;
};

/// Two queues in a journal; what is in the one goes to the other, so many messages a transaction.
class pipeline {
public:
    explicit pipeline(const mailroom::journal_options& o) : disk_(where_.path(), o), from_(disk_, "from"), to_(disk_, "to") {}

    /// So many are there to be moved.
    void fill(std::size_t n, const std::string& body) {
        const std::vector<std::string> some(64, body);
        for (std::size_t done = 0; done < n; done += some.size()) { from_.send_many(some); }
    }
    void move(std::size_t n, const std::string& body) {
        mailroom::transaction tx(disk_);
        for (std::size_t i = 0; i < n; ++i) {
            tx.ack(from_.receive().value());
            tx.send(to_, body);
        }
        tx.commit();
    }
    tally drain() {
        while (from_.pop_each([](const std::string&) {}, 4096) != 0) {}
        tally all;
        while (to_.pop_each([&all](const std::string& b) { all.add(b); }, 4096) != 0) {}
        disk_.flush();
        return all;
    }

private:
    scratch where_;
    mailroom::journal disk_;
    mailroom::queue<std::string, mailroom::journal> from_, to_;
};

/// Sends, and has so many under way.
class in_flight {
public:
    in_flight(mailroom::queue<std::string, mailroom::journal>& to, std::size_t window) : to_(to), ring_(window) {}
    void send(const std::string& body) {
        std::optional<mailroom::receipt>& slot = ring_[next_];
        if (slot) { slot->wait(); }
        slot.emplace(to_.send_async(body));
        next_ = next_ + 1 == ring_.size() ? 0 : next_ + 1;
    }
    void wait() {
        for (auto& slot : ring_) {
            if (slot) { slot->wait(); }
            slot.reset();
        }
    }

private:
    mailroom::queue<std::string, mailroom::journal>& to_;
    std::vector<std::optional<mailroom::receipt>> ring_;
    std::size_t next_ = 0;
};

} // namespace bench
