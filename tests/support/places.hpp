// Where the endpoints of a test are, and its transactions: in memory, or in a journal on a disk that is simulated.
#pragma once

#include "support/stored.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>
#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace support {

// The words of these tests.
using namespace std::chrono_literals;
using mailroom::durability;
using mailroom::errc;
using mailroom::overflow;
using mailroom::sharing;
using mailroom::start;
using mailroom::transaction;

/// Where endpoints are, and what makes transactions over them.
struct in_memory {
    static constexpr bool is_stored = false;
    template <class T>
    using queue = mailroom::queue<T, mailroom::memory>;
    template <class T>
    using topic = mailroom::topic<T, mailroom::memory>;

    mailroom::testing::manual_clock clock{std::chrono::hours(1)};

    template <class T = int>
    queue<T> make_queue(const std::string&, mailroom::queue_options<T> o = {}) {
        o.clock = &clock;
        return queue<T>(o);
    }
    template <class T = int>
    topic<T> make_topic(const std::string&, mailroom::topic_options<T> o = {}) {
        o.clock = &clock;
        return topic<T>(o);
    }
    mailroom::transaction begin(mailroom::transaction_options o = {}) { return mailroom::transaction(o); }
};
template <mailroom::durability Promise>
struct stored {
    static constexpr bool is_stored = true;
    template <class T>
    using queue = mailroom::queue<T, simulated_journal>;
    template <class T>
    using topic = mailroom::topic<T, simulated_journal>;

    mailroom::testing::manual_clock clock{std::chrono::hours(1)};
    mailroom::testing::simulated_files disk;
    std::optional<simulated_journal> journal;
    stored() { open(); }
    void open() { journal.emplace("journal", mailroom::journal_options{.durability = Promise, .segment_bytes = 64 << 10, .clock = &clock}, disk); }

    template <class T = int>
    queue<T> make_queue(const std::string& name, mailroom::queue_options<T> o = {}) {
        return queue<T>(*journal, name, o);
    }
    template <class T = int>
    topic<T> make_topic(const std::string& name, mailroom::topic_options<T> o = {}) {
        return topic<T>(*journal, name, o);
    }
    mailroom::transaction begin(mailroom::transaction_options o = {}) { return mailroom::transaction(*journal, o); }
};
using in_journal = stored<mailroom::durability::commit>;
using in_journal_write = stored<mailroom::durability::write>;
using in_journal_none = stored<mailroom::durability::none>;

/// Everything that can be received, acknowledged.
template <class From>
auto take(From& from) {
    std::vector<std::decay_t<decltype(**from.try_receive())>> got;
    while (auto d = from.try_receive()) {
        got.push_back(**d);
        CHECK(d->ack());
    }
    return got;
}
using ints = std::vector<int>;

/// What a call throws.
template <class Call>
mailroom::errc error_of(Call call) {
    try {
        call();
    } catch (const mailroom::error& e) { return e.kind(); }
    return mailroom::errc{};
}

} // namespace support

// What a commit waits for makes a difference to some of these only.
#define EVERYWHERE support::in_memory, support::in_journal
#define EVERY_WAY support::in_memory, support::in_journal, support::in_journal_none
