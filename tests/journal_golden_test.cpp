// Journals that were written once, by each version of the format: every later version reads them. What they hold is written here as well: with
// MAILROOM_WRITE_GOLDEN=<directory> this makes such a journal, which is how those in tests/golden were made. Version 1 knew no more than `write`.
#include <mailroom/journal.hpp>
#include <mailroom/producer.hpp>
#include <mailroom/transaction.hpp>

#include "support/instances.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;
using mailroom::properties;

namespace golden {

struct order {
    int id = 0;
    std::string symbol;
    std::vector<double> prices;
};
struct tick {
    std::uint32_t id = 0;
    float price = 0;
};

} // namespace golden

template <>
struct mailroom::type_name<golden::order> {
    static constexpr std::string_view value = "golden.order";
};
template <>
struct mailroom::type_name<golden::tick> {
    static constexpr std::string_view value = "golden.tick";
};

namespace {

using golden::order;
using golden::tick;

order make(int i) { return {i, "S" + std::to_string(i), {1.0 * i, 0.5}}; }

void write(const std::filesystem::path& directory) {
    mailroom::journal disk(directory, {.segment_bytes = 64 << 10});
    mailroom::queue<order, mailroom::journal> orders(disk, "orders", {.retry = {.max_attempts = 3, .initial = 0s}});
    mailroom::topic<tick, mailroom::journal> ticks(disk, "ticks", {.partitions = 2, .retention = {.messages = 1000}});
    auto audit = ticks.subscribe("audit", {.from = mailroom::start::earliest, .mode = mailroom::sharing::shared});
    for (int i = 0; i < 10; ++i) { orders.send(make(i)); }
    properties p;
    p.key = "key";
    p.id = "id-1";
    p.subject = "subject";
    p.correlation_id = "correlation";
    p.reply_to = "reply";
    p.content_type = "type";
    p.headers = {{"answer", 42}, {"half", 0.5}, {"name", "value"}, {"no", false}};
    orders.send(make(10), p);
    orders.send_many(std::vector<order>{make(11), make(12)});
    for (int i = 0; i < 4; ++i) { orders.receive()->ack(); } // 0..3
    auto kept = orders.receive();                            // 4
    auto done = orders.receive();                            // 5
    auto bad = orders.receive();                             // 6
    auto again = orders.receive();                           // 7
    done->ack();
    bad->reject("not good");
    again->nack();
    for (std::uint32_t i = 0; i < 20; ++i) { ticks.publish({i, 0.25F * static_cast<float>(i)}, {.key = i % 2 == 0 ? "even" : "odd"}); }
    for (int i = 0; i < 6; ++i) { audit.receive()->ack(); }
    kept->release();
}

/// What there is since version 2, and since version 3.
void write_more(const std::filesystem::path& directory) {
    mailroom::journal disk(directory, {.segment_bytes = 64 << 10});
    mailroom::queue<order, mailroom::journal> once(disk, "once", {.deduplicate = {.until_settled = true}});
    mailroom::topic<tick, mailroom::journal> unique(disk, "unique", {.partitions = 2, .deduplicate = {.window = 24h}});
    mailroom::producer from(once, "someone");
    for (const std::uint64_t number : {5u, 7u, 7u, 6u}) { from.send_as(number, make(static_cast<int>(number))); } // two are duplicates
    once.send(make(8), {.id = "eight"});
    once.send(make(8), {.id = "eight"});
    for (const char* const key : {"even", "odd", "odd"}) { unique.publish({1, 1}, {.key = key, .id = key}); }
    mailroom::queue<order, mailroom::journal> left(disk, "left",
                                                   {.retry = {.max_attempts = 0}}); // one message of many, which compaction takes elsewhere
    for (int i = 0; i < 50; ++i) { left.send({i, std::string(4000, 'x'), {}}); }
    for (int i = 0; i < 20; ++i) { left.receive()->ack(); }
    auto only = left.receive();
    for (int i = 21; i < 50; ++i) { left.receive()->ack(); }
    disk.compact();
    only->release();
    auto d = once.receive();
    mailroom::transaction tx(disk);
    tx.ack(*d);
    tx.send(once, make(9));
    tx.prepare("undecided");
}

/// A copy, which may be written to.
class copy_of {
public:
    explicit copy_of(const std::filesystem::path& from)
        : path_(std::filesystem::temp_directory_path() / ("mailroom_golden_" + std::to_string(::getpid()))) {
        std::filesystem::remove_all(path_);
        std::filesystem::copy(from, path_, std::filesystem::copy_options::recursive);
    }
    copy_of(const copy_of&) = delete;
    copy_of& operator=(const copy_of&) = delete;
    ~copy_of() { std::filesystem::remove_all(path_); }
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

} // namespace

TEST_CASE("golden journal: what each version wrote is read") {
    if (const char* const directory = std::getenv("MAILROOM_WRITE_GOLDEN")) {
        write(directory);
        write_more(directory);
        return;
    }
    unsigned version = 0;
    SUBCASE("1") { version = 1; }
    SUBCASE("2") { version = 2; }
    SUBCASE("3") { version = 3; }
    const copy_of copy(std::filesystem::path(MAILROOM_SOURCE_DIR) / "tests/golden" / ("journal_" + std::to_string(version)));
    for (int time = 0; time < 2; ++time) { // as it is, and as this version has written it
        mailroom::journal disk(copy.path());
        CHECK(disk.recovered().clean);
        CHECK(disk.recovered().damages.empty());
        CHECK(disk.verify().intact);
        mailroom::queue<order, mailroom::journal> orders(disk, "orders", {.retry = {.max_attempts = 3, .initial = 0s}});
        const mailroom::stats s = orders.statistics();
        CHECK(s.sent == 13);
        CHECK(s.acked == 5);
        CHECK(s.ready == 7);
        CHECK(s.dead == 1);
        auto dead = orders.dead().try_receive();
        REQUIRE(dead);
        CHECK((*dead)->id == 6);
        CHECK(dead->reason() == "not good");
        CHECK(dead->offset() == 6);
        dead->release();
        std::vector<mailroom::delivery<order>> all;
        CHECK(orders.receive_many(all, 100) == 7);
        std::vector<int> ids;
        for (const auto& d : all) {
            ids.push_back(d->id);
            CHECK(d->symbol == "S" + std::to_string(d->id));
            CHECK(d->prices == std::vector<double>{1.0 * d->id, 0.5});
            CHECK(d.offset() == static_cast<mailroom::offset>(d->id));
            CHECK(d.attempt() == (d->id == 7 ? 2u : 1u));
            if (d->id != 10) { CHECK(d.props() == properties()); }
        }
        CHECK(ids == std::vector<int>{4, 7, 8, 9, 10, 11, 12});
        const properties& p = all[4].props();
        CHECK(p.key == "key");
        CHECK(p.id == "id-1");
        CHECK(p.subject == "subject");
        CHECK(p.correlation_id == "correlation");
        CHECK(p.reply_to == "reply");
        CHECK(p.content_type == "type");
        CHECK(p.headers == mailroom::headers{{"answer", 42}, {"half", 0.5}, {"name", "value"}, {"no", false}});
        for (auto& d : all) { d.release(); }

        mailroom::topic<tick, mailroom::journal> ticks(disk, "ticks", {.partitions = 2, .retention = {.messages = 1000}});
        CHECK(ticks.next_offset(0) + ticks.next_offset(1) == 20);
        auto audit = ticks.subscribe("audit", {.mode = mailroom::sharing::shared});
        CHECK(audit.lag() == 14);
        auto replay = ticks.subscribe({.from = mailroom::start::earliest});
        std::uint32_t sum = 0, n = 0;
        while (const auto m = replay.try_pop()) {
            CHECK(m->body().price == 0.25F * static_cast<float>(m->body().id));
            CHECK(m->props().key == (m->body().id % 2 == 0 ? "even" : "odd"));
            sum += m->body().id;
            ++n;
        }
        CHECK(n == 20);
        CHECK(sum == 190);
        if (version == 1) {
            disk.compact();
            continue;
        }

        CHECK(disk.in_doubt() == std::vector<std::string>{"undecided"});
        mailroom::queue<order, mailroom::journal> once(disk, "once", {.deduplicate = {.until_settled = true}});
        mailroom::topic<tick, mailroom::journal> unique(disk, "unique", {.partitions = 2, .deduplicate = {.window = 24h}});
        CHECK(once.statistics().in_flight == 1);
        CHECK(once.statistics().ready == 2);
        CHECK(once.statistics().duplicates == (version < 3 ? 0u : 3u));
        CHECK(unique.statistics().sent == 2);
        CHECK(unique.statistics().duplicates == (version < 3 ? 0u : 1u));
        CHECK(mailroom::producer(once, "someone").last() == 7);
        mailroom::queue<order, mailroom::journal> left(disk, "left", {.retry = {.max_attempts = 0}});
        auto only = left.try_receive();
        REQUIRE(only);
        CHECK((*only)->id == 20);
        CHECK((*only)->symbol == std::string(4000, 'x'));
        CHECK(left.statistics().ready == 0);
        only->release();
        disk.compact(); // what lies elsewhere by now goes elsewhere again
        CHECK(disk.verify().intact);
    }
}
