// Queues and topics in a journal of their own, on a disk that is simulated: for suites that are written for those in memory.
#pragma once

#include "support/instances.hpp"
#include "support/tracked.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing/simulated_files.hpp>

#include <cstddef>
#include <span>
#include <string_view>

template <>
struct mailroom::codec<support::tracked> {
    static constexpr std::string_view content_type = "application/octet-stream";
    static void encode(const support::tracked& t, byte_sink& out) { codec<int>::encode(t.value(), out); }
    static support::tracked decode(std::span<const std::byte> b) { return support::tracked(codec<int>::decode(b)); }
};

namespace support {

using simulated_journal = mailroom::basic_journal<mailroom::testing::simulated_files>;

/// A journal that exists before, and ends after, what derives from it next.
class journal_home {
protected:
    explicit journal_home(mailroom::clock* c, mailroom::durability d = mailroom::durability::none)
        : journal_("journal", {.durability = d, .clock = c}, disk_) {}

    mailroom::testing::simulated_files disk_;
    simulated_journal journal_;
};

template <class T>
class stored_queue : private journal_home, public mailroom::queue<T, simulated_journal> {
public:
    explicit(false) stored_queue(mailroom::queue_options<T> o = mailroom::queue_options<T>())
        : journal_home(o.clock), mailroom::queue<T, simulated_journal>(journal_, "queue", o) {}
};

template <class T>
class stored_topic : private journal_home, public mailroom::topic<T, simulated_journal> {
public:
    explicit(false) stored_topic(mailroom::topic_options<T> o = mailroom::topic_options<T>())
        : journal_home(o.clock), mailroom::topic<T, simulated_journal>(journal_, "topic", o) {}
};

} // namespace support
