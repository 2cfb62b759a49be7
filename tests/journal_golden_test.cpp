// A journal that was written once, by version 1 of the format: every later version reads it. What it holds is written here as well: with
// MAILROOM_WRITE_GOLDEN=<directory> this makes such a journal, which is how the one in tests/golden was made.
#include <mailroom/journal.hpp>

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

TEST_CASE("golden journal: what version 1 wrote is read") {
    if (const char* const directory = std::getenv("MAILROOM_WRITE_GOLDEN")) {
        write(directory);
        return;
    }
    const copy_of copy(std::filesystem::path(MAILROOM_SOURCE_DIR) / "tests/golden/journal_1");
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
    }
}
