// Queues and topics of a journal as api.md says them: opened again, opened twice, refused, closed before what lives in them; receipts; what
// lasts. What a crash leaves is tested in journal_crash_test.cpp, random histories in journal_model_test.cpp.
#include "support/blocked.hpp"
#include "support/coroutines.hpp"
#include "support/directory.hpp"
#include "support/eventually.hpp"
#include "support/stored.hpp"
#include "support/tracked.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::durability;
using mailroom::errc;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;
using support::eventually;
using support::simulated_journal;
namespace fs = std::filesystem;

namespace {

template <class T = int>
using simulated_queue = mailroom::queue<T, simulated_journal>;
template <class T = int>
using simulated_topic = mailroom::topic<T, simulated_journal>;

/// A disk and a clock that stay, a journal that comes and goes.
struct home {
    manual_clock clock{1h};
    simulated_files disk;
    mailroom::journal_options options;
    std::optional<simulated_journal> journal;

    home() : home(durability::commit) {}
    explicit home(durability d) {
        options.durability = d;
        options.clock = &clock;
        open();
    }
    void open() { journal.emplace("journal", options, disk); }
    void reopen() {
        journal.reset();
        open();
    }
};

/// What was thrown; errc{} if nothing was. Every failure has a sentence.
template <class Act>
errc thrown_by(Act act, std::string* sentence = nullptr) {
    try {
        act();
    } catch (const mailroom::error& e) {
        if (e.kind() != errc::closed && e.kind() != errc::not_found) { CHECK(std::string(e.what()).size() > 10); }
        if (sentence != nullptr) { *sentence = e.what(); }
        return e.kind();
    }
    return errc{};
}

/// All that is on a disk.
std::map<std::string, std::vector<std::byte>> everything(const simulated_files& disk) {
    std::map<std::string, std::vector<std::byte>> all;
    for (const std::string& f : disk.files()) { all[f] = disk.contents(f); }
    return all;
}

/// What is in a real directory, and how large it is.
std::map<std::string, std::uintmax_t> contents_of(const support::directory& d) {
    std::map<std::string, std::uintmax_t> all;
    for (const auto& e : fs::recursive_directory_iterator(d.path())) { all[e.path().string()] = e.is_regular_file() ? e.file_size() : 0; }
    return all;
}

/// Root may do anything, so root becomes somebody else for a while.
class as_nobody {
public:
    as_nobody() : was_root_(geteuid() == 0) {
        if (was_root_) { REQUIRE(seteuid(65534) == 0); }
    }
    as_nobody(const as_nobody&) = delete;
    as_nobody& operator=(const as_nobody&) = delete;
    ~as_nobody() {
        if (was_root_ && seteuid(0) != 0) { std::abort(); }
    }

private:
    const bool was_root_;
};

struct order {
    int id = 0;
    std::string symbol = "";
    double price = 0;
};
struct invoice {
    int id = 0;
    std::string text = "";
};

} // namespace

// ------------------------------------------------------------------------------------------------------------------------------- opening

TEST_CASE("journal: what was sent is there after it was opened again, on a real disk") {
    const support::directory d;
    for (const durability promise : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(promise));
        const fs::path where = d / std::to_string(static_cast<int>(promise));
        {
            mailroom::journal disk(where, {.durability = promise});
            CHECK(disk.recovered().clean);
            mailroom::queue<order, mailroom::journal> q(disk, "orders");
            CHECK(q.send({1, "AAPL", 189.2}) == 0);
            CHECK(q.send({2, "MSFT", 411.0}, {.key = "MSFT", .headers = {{"region", "eu"}, {"n", 7}}}) == 1);
            CHECK(q.send({3, "a name long enough not to fit into a string", 0.5}) == 2);
            auto first = q.try_receive();
            REQUIRE(first);
            CHECK(first->ack());
        }
        mailroom::journal disk(where, {.durability = promise});
        CHECK(disk.recovered().clean);
        CHECK(disk.recovered().damages.empty());
        CHECK(disk.verify().intact);
        mailroom::queue<order, mailroom::journal> q(disk, "orders");
        auto second = q.try_receive();
        REQUIRE(second);
        CHECK(second->offset() == 1);
        CHECK(second->body().symbol == "MSFT");
        CHECK(second->body().price == 411.0);
        CHECK(second->attempt() == 1);
        CHECK(second->props().key == "MSFT");
        CHECK(second->props().headers.find("region")->get<std::string>() == "eu");
        CHECK(second->props().headers.size() == 2);
        auto third = q.try_pop();
        REQUIRE(third);
        CHECK(third->body().id == 3);
        CHECK_FALSE(q.try_pop());
        CHECK(q.send({4}) == 3);
    }
}

TEST_CASE("journal: offsets, times and properties are what they were") {
    home h;
    mailroom::time_point sent;
    {
        simulated_queue<std::string> q(*h.journal, "q");
        h.clock.advance(90s);
        sent = h.clock.wall();
        mailroom::properties p{.key = "k", .id = "i", .subject = "s", .correlation_id = "c", .reply_to = "r", .content_type = "t", .priority = 0};
        p.headers = {{"none", nullptr}, {"bool", true}, {"int", std::int64_t{-5}}, {"double", 0.25}, {"text", std::string("x\0y", 3)}};
        q.send("body", p);
    }
    h.clock.advance(5h);
    h.reopen();
    simulated_queue<std::string> q(*h.journal, "q");
    auto d = q.try_receive();
    REQUIRE(d);
    CHECK(d->body() == "body");
    CHECK(d->timestamp() == sent);
    CHECK(d->props().key == "k");
    CHECK(d->props().id == "i");
    CHECK(d->props().subject == "s");
    CHECK(d->props().correlation_id == "c");
    CHECK(d->props().reply_to == "r");
    CHECK(d->props().content_type == "t");
    CHECK(d->props().headers.size() == 5);
    CHECK(d->props().headers.find("text")->get<std::string>() == std::string("x\0y", 3));
    CHECK(q.statistics().oldest_age >= 5h);
}

TEST_CASE("journal: two handles on a name share one queue, which lives as long as any of them") {
    home h;
    std::optional<simulated_queue<>> a(std::in_place, *h.journal, "q",
                                       mailroom::queue_options<int>{.max_messages = 2, .overflow = mailroom::overflow::reject});
    std::optional<simulated_queue<>> b(std::in_place, *h.journal, "q"); // the options of the first hold
    a->send(1);
    b->send(2);
    CHECK(b->try_send(3).error() == errc::full);
    CHECK(b->try_pop()->body() == 1);
    a.reset();
    CHECK(b->send(3) == 2);
    CHECK(b->try_send(4).error() == errc::full);
    auto c = std::move(*b);
    b.reset();
    CHECK(c.try_pop()->body() == 2);
    CHECK(c.statistics().ready == 1);
    a.emplace(*h.journal, "q");
    CHECK(a->try_pop()->body() == 3);
    a->close();
    CHECK(c.try_send(5).error() == errc::closed);
}
TEST_CASE("journal: a second handle with other options changes nothing that is kept") {
    home h;
    {
        simulated_queue<> q(*h.journal, "q", {.deduplicate = {.window = 1h}});
        simulated_topic<> t(*h.journal, "t", {.deduplicate = {.window = 1h}});
        simulated_queue<> other(*h.journal, "q");
        simulated_topic<> more(*h.journal, "t");
        CHECK(other.send(1, {.id = "one"}) == 0);
        CHECK(more.publish(1, {.id = "one"}).offset == 0);
        CHECK(q.send(1, {.id = "one"}) == 0);
    }
    h.reopen();
    simulated_queue<> q(*h.journal, "q", {.deduplicate = {.window = 1h}});
    simulated_topic<> t(*h.journal, "t", {.deduplicate = {.window = 1h}});
    CHECK(q.send(1, {.id = "one"}) == 0);
    CHECK(t.publish(1, {.id = "one"}).offset == 0);
    CHECK(q.statistics().ready == 1);
}
TEST_CASE("journal: a queue whose last handle went is opened with new options") {
    home h;
    { simulated_queue<>(*h.journal, "q", {.max_messages = 1}).send(1); }
    simulated_queue<> q(*h.journal, "q", {.max_messages = 2, .overflow = mailroom::overflow::reject});
    q.send(2);
    CHECK(q.try_send(3).error() == errc::full);
}
TEST_CASE("journal: two handles on a topic share it and its subscriptions") {
    home h;
    simulated_topic<> a(*h.journal, "t", {.partitions = 2});
    auto b = std::make_unique<simulated_topic<>>(*h.journal, "t", mailroom::topic_options<int>{.partitions = 2});
    auto s = a.subscribe("s");
    CHECK(b->subscriptions().size() == 1);
    b->publish(1);
    b.reset();
    CHECK(s.try_pop()->body() == 1);
    CHECK(thrown_by([&] { simulated_topic<>(*h.journal, "t", {.partitions = 3}); }) == errc::already_exists);
}

TEST_CASE("journal: what does not fit what is there is refused, open or not") {
    home h;
    std::string why;
    const auto refused = [&] {
        const auto before = everything(h.disk);
        CHECK(thrown_by([&] { simulated_queue<>(*h.journal, "q", {.priorities = 3}); }) == errc::already_exists);
        CHECK(thrown_by([&] { simulated_queue<>(*h.journal, "q", {.ordered_by_key = true}); }) == errc::already_exists);
        CHECK(thrown_by([&] { simulated_topic<>(*h.journal, "q"); }) == errc::already_exists);
        CHECK(thrown_by([&] { simulated_queue<>(*h.journal, "t"); }) == errc::already_exists);
        CHECK(thrown_by([&] { simulated_topic<>(*h.journal, "t", {.partitions = 1}); }) == errc::already_exists);
        CHECK(thrown_by([&] { simulated_queue<order>(*h.journal, "q"); }, &why) == errc::type_mismatch);
        CHECK(why.find("int") != std::string::npos);
        CHECK(why.find("order") != std::string::npos);
        CHECK(thrown_by([&] { simulated_queue<double>(*h.journal, "q"); }, &why) == errc::type_mismatch);
        CHECK(why.find("int") != std::string::npos);
        CHECK(why.find("double") != std::string::npos);
        CHECK(thrown_by([&] { simulated_topic<order>(*h.journal, "t", {.partitions = 2}); }, &why) == errc::type_mismatch);
        CHECK(thrown_by([&] { simulated_queue<invoice>(*h.journal, "o", {.priorities = 2}); }, &why) == errc::type_mismatch);
        CHECK(why.find("order") != std::string::npos);
        CHECK(why.find("invoice") != std::string::npos);
        h.journal->flush();
        CHECK(everything(h.disk) == before);
    };
    {
        const simulated_queue<> q(*h.journal, "q", {.priorities = 2});
        const simulated_topic<> t(*h.journal, "t", {.partitions = 2});
        const simulated_queue<order> o(*h.journal, "o", {.priorities = 2});
        h.journal->flush();
        refused();
    }
    refused();
    h.reopen();
    refused();
    simulated_queue<> q(*h.journal, "q", {.priorities = 2});
    q.send(1);
    CHECK(q.try_pop()->body() == 1);
}
TEST_CASE("journal: a subscription stored with another mode is refused") {
    home h;
    { static_cast<void>(simulated_topic<>(*h.journal, "t").subscribe("s", {.mode = mailroom::sharing::shared})); }
    h.reopen();
    simulated_topic<> t(*h.journal, "t");
    CHECK(thrown_by([&] { static_cast<void>(t.subscribe("s", {.mode = mailroom::sharing::keyed})); }) == errc::already_exists);
    CHECK(thrown_by([&] { static_cast<void>(t.subscribe("s")); }) == errc::already_exists);
    t.publish(1);
    CHECK(t.subscribe("s", {.mode = mailroom::sharing::shared}).try_pop()->body() == 1);
}

TEST_CASE("journal: names that cannot be are refused, and leave nothing") {
    home h;
    h.journal->flush();
    const auto before = everything(h.disk);
    const std::string bad[] = {"",
                               ".",
                               "..",
                               "a/b",
                               "/",
                               "a/",
                               "../x",
                               "a..b",
                               "x\xff",
                               "\xc0\x80",
                               "\xed\xa0\x80",
                               "\xf4\x90\x80\x80",
                               "half \xe2\x82",
                               std::string(256, 'n'),
                               std::string("a\0b", 3),
                               "line\nend"};
    for (const std::string& name : bad) {
        CAPTURE(name);
        CHECK(thrown_by([&] { simulated_queue<>(*h.journal, name); }) == errc::invalid);
        CHECK(thrown_by([&] { simulated_topic<>(*h.journal, name); }) == errc::invalid);
    }
    CHECK(everything(h.disk) == before);
    for (const std::string& name :
         {std::string(255, 'n'), std::string("a.b c"), std::string("\xe2\x82\xac\xf0\x9f\x93\xac"), std::string("orders.eu.*")}) {
        simulated_queue<> q(*h.journal, name);
        q.send(1);
    }
    h.reopen();
    CHECK(simulated_queue<>(*h.journal, std::string(255, 'n')).try_pop()->body() == 1);
    simulated_topic<> t(*h.journal, "t");
    for (const std::string& name : {std::string(), std::string(256, 'n'), std::string("x\xff")}) {
        CAPTURE(name);
        CHECK(thrown_by([&] { static_cast<void>(t.subscribe(name)); }) == errc::invalid);
    }
    CHECK(t.subscriptions().empty());
}
TEST_CASE("journal: options that cannot be are refused before anything is stored") {
    home h;
    h.journal->flush();
    const auto before = everything(h.disk);
    CHECK(thrown_by([&] { simulated_queue<>(*h.journal, "q", {.priorities = 11}); }) == errc::invalid);
    CHECK(thrown_by([&] { simulated_queue<>(*h.journal, "q", {.lease = -1s}); }) == errc::invalid);
    CHECK(thrown_by([&] { simulated_topic<>(*h.journal, "q", {.partitions = 0}); }) == errc::invalid);
    CHECK(thrown_by([&] { simulated_topic<>(*h.journal, "q", {.partitions = 1'000'000'000}); }) == errc::invalid);
    CHECK(everything(h.disk) == before);
    CHECK(thrown_by([&] { simulated_journal("other", {.segment_bytes = 1}, h.disk); }) == errc::invalid);
    CHECK(thrown_by([&] { simulated_journal("other", {.segment_bytes = std::size_t{1} << 40}, h.disk); }) == errc::invalid);
    CHECK(thrown_by([&] { simulated_journal("", {}, h.disk); }) == errc::invalid);
    CHECK(everything(h.disk) == before);
}

TEST_CASE("journal: a directory is open once in a process") {
    home h;
    CHECK(thrown_by([&] { simulated_journal("journal", h.options, h.disk); }) == errc::in_use);
    CHECK(thrown_by([&] { simulated_journal("./journal", h.options, h.disk); }) == errc::in_use);
    simulated_journal other("other", h.options, h.disk);
    h.journal.emplace("journal2", h.options, h.disk);
    CHECK(thrown_by([&] { simulated_journal("journal", h.options, h.disk); }) == errc{});
    const support::directory d;
    {
        const mailroom::journal one(d / "j");
        CHECK(thrown_by([&] { mailroom::journal(d / "j"); }) == errc::in_use);
        fs::create_directory_symlink(d / "j", d / "link");
        CHECK(thrown_by([&] { mailroom::journal(d / "link"); }) == errc::in_use);
    }
    CHECK(thrown_by([&] { mailroom::journal(d / "link"); }) == errc{});
}
TEST_CASE("journal: whatever is out, a closed journal can be opened again at once") {
    home h;
    std::optional<simulated_queue<>> q(std::in_place, *h.journal, "q");
    std::optional<simulated_topic<>> t(std::in_place, *h.journal, "t");
    auto s = t->subscribe("s");
    for (int i = 0; i < 3; ++i) { q->send(i), t->publish(i); }
    auto d = q->try_receive();
    auto e = s.try_receive();
    auto p = s.try_pop();
    auto r = q->send_async(9);
    h.reopen();
    simulated_queue<> again(*h.journal, "q");
    CHECK(again.statistics().ready == 4);
    simulated_topic<> topic(*h.journal, "t");
    CHECK(topic.subscribe("s").lag() == 2);
    CHECK(d->body() == 0);
    CHECK(e->body() == 0);
    CHECK(p->body() == 1);
    CHECK_FALSE(d->ack());
    CHECK_FALSE(e->ack());
    CHECK(q->try_send(1).error() == errc::closed);
    CHECK(again.statistics().ready == 4);
}

TEST_CASE("journal: a path that is no directory of its own is refused and left as it is") {
    const support::directory d;
    std::ofstream(d / "file") << "precious";
    fs::create_directory(d / "theirs");
    std::ofstream(d / "theirs/notes.txt") << "precious too";
    fs::create_directory(d / "empty");
    const auto before = contents_of(d);
    std::string why;
    CHECK(thrown_by([&] { mailroom::journal(d / "file"); }, &why) == errc::invalid);
    CHECK(why.find("file") != std::string::npos);
    CHECK(thrown_by([&] { mailroom::journal(d / "theirs"); }, &why) == errc::invalid);
    CHECK(why.find("notes.txt") != std::string::npos);
    CHECK(thrown_by([&] { mailroom::journal(d / "file/below"); }, &why) != errc{});
    CHECK(thrown_by([&] { mailroom::journal(d / "not/there"); }, &why) == errc::io);
    CHECK(why.find("not/there") != std::string::npos);
    CHECK(thrown_by([&] { mailroom::journal(d / std::string(300, 'n')); }) == errc::io);
    CHECK(thrown_by([&] { mailroom::journal{fs::path()}; }) == errc::invalid);
    CHECK(contents_of(d) == before);
    CHECK(thrown_by([&] { mailroom::journal(d / "empty"); }) == errc{}); // a directory that is there and empty is fine
}
TEST_CASE("journal: without permission it says so and changes nothing") {
    const support::directory d;
    {
        mailroom::journal j(d / "j");
        mailroom::queue<int, mailroom::journal>(j, "q").send(1);
    }
    fs::permissions(d.path(), fs::perms::owner_all | fs::perms::others_read | fs::perms::others_exec);
    fs::create_directory(d / "closed");
    for (const char* name : {"j", "closed"}) { fs::permissions(d / name, fs::perms::owner_read | fs::perms::owner_exec); }
    const auto before = contents_of(d);
    {
        const as_nobody me;
        std::string why;
        for (const char* name : {"j", "closed", "new"}) {
            CAPTURE(name);
            if (geteuid() != 65534 && std::string(name) == "new") { continue; } // then the directory above is ours
            CHECK(thrown_by([&] { mailroom::journal(d / name); }, &why) == errc::io);
            CHECK(why.find(name) != std::string::npos);
        }
    }
    CHECK(contents_of(d) == before);
    for (const char* name : {"j", "closed"}) { fs::permissions(d / name, fs::perms::owner_all); }
    mailroom::journal j(d / "j");
    CHECK(mailroom::queue<int, mailroom::journal>(j, "q").try_pop()->body() == 1);
}
TEST_CASE("journal: a disk that is read only") {
    home h;
    simulated_queue<>(*h.journal, "q").send(1);
    simulated_topic<>(*h.journal, "t").publish(1);
    h.journal.reset();
    h.disk.read_only(true);
    const auto before = everything(h.disk);
    CHECK(thrown_by([&] { h.open(); }) == errc::io);
    h.options.on_damage = mailroom::on_damage::read_only;
    {
        h.open();
        simulated_queue<> q(*h.journal, "q");
        CHECK(thrown_by([&] { q.send(2); }) == errc::unsupported);
        CHECK(q.try_send(2).error() == errc::unsupported);
        CHECK(thrown_by([&] { simulated_queue<>(*h.journal, "new"); }) == errc::unsupported);
        CHECK(q.statistics().ready == 1);
        auto d = q.try_receive();
        REQUIRE(d);
        CHECK(d->body() == 1);
        CHECK(d->ack());
        simulated_topic<> t(*h.journal, "t");
        CHECK(thrown_by([&] { t.publish(2); }) == errc::unsupported);
        CHECK(thrown_by([&] { static_cast<void>(t.subscribe("s")); }) == errc::unsupported);
        h.journal->verify();
    }
    h.journal.reset();
    CHECK(everything(h.disk) == before);
    h.disk.read_only(false);
    h.options.on_damage = mailroom::on_damage::refuse;
    h.open();
    CHECK(simulated_queue<>(*h.journal, "q").try_pop()->body() == 1);
}

TEST_CASE("journal: a message above the limit is refused, alone") {
    home h;
    h.options.segment_bytes = 64 << 10;
    h.reopen();
    simulated_queue<std::string> q(*h.journal, "q");
    simulated_topic<std::string> t(*h.journal, "t");
    auto s = t.subscribe("s");
    h.journal->flush();
    const auto before = everything(h.disk);
    std::string big((64 << 10) + 1, 'x');
    std::string why;
    CHECK(thrown_by([&] { q.send(big); }, &why) == errc::too_large);
    CHECK(why.find("segment_bytes") != std::string::npos);
    CHECK(thrown_by([&] { q.send("x", {.headers = {{"h", big}}}); }) == errc::too_large);
    const auto tried = q.try_send(std::move(big));
    CHECK(tried.error() == errc::too_large);
    CHECK(big.size() == (64 << 10) + 1); // not moved from
    CHECK(thrown_by([&] { q.send_async(big).wait(); }) == errc::too_large);
    CHECK(thrown_by([&] { t.publish(big); }) == errc::too_large);
    CHECK(thrown_by([&] { t.publish_async(big).wait(); }) == errc::too_large);
    CHECK(thrown_by([&] { q.send_many(std::vector<std::string>{"a", big}); }) == errc::too_large);
    CHECK(thrown_by([&] { q.send_many(std::vector<std::string>(40, std::string(4000, 'y'))); }) == errc::too_large); // one batch is all or nothing
    h.journal->flush();
    CHECK(everything(h.disk) == before);
    CHECK(q.statistics().sent == 0);
    CHECK(q.send("small") == 0);
    CHECK(t.publish(std::string(20'000, 'z')).offset == 0);
    CHECK(s.try_pop()->body().size() == 20'000);
}

// ------------------------------------------------------------------------------------------------------------------------------- the end

TEST_CASE("journal: destroyed before what lives in it") {
    home h;
    simulated_queue<support::tracked> q(*h.journal, "q");
    simulated_topic<std::string> t(*h.journal, "t");
    auto s = t.subscribe("s");
    auto ephemeral = t.subscribe();
    for (int i = 0; i < 3; ++i) { q.send(support::tracked(i)), t.publish(std::string(50, 'a')); }
    auto d = q.try_receive();
    auto e = s.try_receive();
    auto m = s.try_pop();
    h.journal.reset();
    CHECK(thrown_by([&] { q.send(support::tracked(1)); }) == errc::closed);
    CHECK(q.try_send(support::tracked(1)).error() == errc::closed);
    CHECK(q.send_for(1h, support::tracked(1)).error() == errc::closed);
    CHECK(thrown_by([&] { q.send_async(support::tracked(1)).wait(); }) == errc::closed);
    CHECK(thrown_by([&] { q.send_many(std::vector<support::tracked>(3)); }) == errc::closed);
    CHECK(thrown_by([&] { t.publish("x"); }) == errc::closed);
    CHECK(t.try_publish("x").error() == errc::closed);
    CHECK(thrown_by([&] { t.publish_async("x").wait(); }) == errc::closed);
    CHECK(thrown_by([&] { static_cast<void>(t.subscribe("new")); }) == errc::closed);
    CHECK_FALSE(q.receive());
    CHECK_FALSE(q.receive_for(1h));
    CHECK_FALSE(q.pop());
    CHECK_FALSE(s.receive());
    CHECK_FALSE(s.pop());
    CHECK_FALSE(ephemeral.receive());
    CHECK(d->body().value() == 0);
    CHECK(e->body() == std::string(50, 'a'));
    CHECK(m->body() == std::string(50, 'a'));
    CHECK_FALSE(d->extend(1s));
    CHECK_FALSE(d->ack());
    CHECK_FALSE(e->nack());
    CHECK_FALSE(q.dead().try_receive());
    CHECK(q.dead().redrive(5) == 0);
    CHECK(q.purge() == 0);
    CHECK(s.lag() == 0);
    s.seek(mailroom::start::earliest);
    static_cast<void>(q.statistics());
    static_cast<void>(t.statistics());
    static_cast<void>(t.subscriptions());
    static_cast<void>(t.next_offset());
    q.browse([](const auto&, mailroom::message_state) { return true; });
    q.close();
    static_cast<void>(q.drain(0s)); // comes back
    t.close();
    static_cast<void>(t.drain(0s));
    CHECK(support::tracked::faults() == 0);
}
TEST_CASE("journal: whoever waits when it ends, wakes") {
    simulated_files disk;
    manual_clock clock;
    std::optional<simulated_journal> j(std::in_place, "journal", mailroom::journal_options{.clock = &clock}, disk);
    simulated_queue<> q(*j, "q"), full(*j, "full", {.max_messages = 1});
    simulated_topic<> t(*j, "t");
    auto s = t.subscribe("s");
    full.send(1);
    std::atomic<int> nothing{0}, closed{0};
    const support::blocked receiver([&] { nothing += !q.receive(); });
    const support::blocked popper([&] { nothing += !s.pop(); });
    const support::blocked timed([&] { nothing += !q.receive_for(1h); });
    const support::blocked sender([&] { closed += thrown_by([&] { full.send(2); }) == errc::closed; });
    const support::blocked dead([&] { nothing += !q.dead().receive_for(1h); });
    clock.await_parked(5);
    j.reset();
    CHECK(receiver.finishes());
    CHECK(popper.finishes());
    CHECK(timed.finishes());
    CHECK(sender.finishes());
    CHECK(dead.finishes());
    CHECK(nothing == 4);
    CHECK(closed == 1);
}
TEST_CASE("journal: moved") {
    simulated_files disk;
    simulated_journal a("a", {}, disk);
    simulated_queue<> in_a(a, "q");
    in_a.send(1);
    simulated_journal b("b", {}, disk);
    simulated_queue<> in_b(b, "q");
    in_b.send(2);
    a = std::move(b); // which ends what was in a
    CHECK(in_a.try_send(3).error() == errc::closed);
    CHECK(in_b.try_pop()->body() == 2);
    CHECK(thrown_by([&] { simulated_journal("b", {}, disk); }) == errc::in_use);
    simulated_journal c(std::move(a));
    CHECK(simulated_queue<>(c, "q").send(4) == 1);
    simulated_journal again("a", {}, disk);
    CHECK(simulated_queue<>(again, "q").try_pop()->body() == 1);
}
TEST_CASE("journal: consumers idle when it ends, and go on with what is opened again") {
    home h(durability::write);
    std::atomic<int> seen{0};
    {
        simulated_queue<> q(*h.journal, "q");
        auto worker = q.consume([&](const int&) { ++seen; });
        for (int i = 0; i < 100; ++i) { q.send(i); }
        CHECK(eventually([&] { return seen == 100; }));
        h.journal.reset();
        CHECK(q.try_send(1).error() == errc::closed);
        worker.stop();
    }
    h.open();
    simulated_queue<> q(*h.journal, "q");
    CHECK(q.statistics().ready == 0);
    CHECK(q.statistics().acked == 100);
    auto worker = q.consume([&](const int&) { ++seen; });
    q.send(1);
    CHECK(eventually([&] { return seen == 101; }));
}

// ------------------------------------------------------------------------------------------------------------------------------ receipts

TEST_CASE("journal: receipts of sends") {
    for (const durability promise : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(promise));
        home h(promise);
        simulated_queue<> q(*h.journal, "q");
        simulated_topic<> t(*h.journal, "t", {.partitions = 3});
        auto s = t.subscribe("s");
        auto a = q.send_async(1);
        auto b = q.send_async(2, {.key = "k"});
        auto pa = t.publish_async(7, {.key = "k"});
        q.send_async(3); // discarded: still sent
        t.publish_async(8, {.key = "k"});
        CHECK(b.wait() == 1);
        CHECK(b.ready());
        CHECK(a.ready()); // one batch
        CHECK(a.wait() == 0);
        CHECK(a.wait() == 0);
        const mailroom::position place = pa.wait();
        CHECK(place.offset == 0);
        CHECK(t.next_offset(place.partition) == 2);
        for (int i = 1; i <= 3; ++i) { CHECK(q.try_pop()->body() == i); }
        CHECK(s.try_pop()->body() == 7);
        CHECK(s.try_pop()->body() == 8);
    }
}
TEST_CASE("journal: a receiver gets what nobody has committed yet") {
    home h;
    simulated_queue<> q(*h.journal, "q");
    q.send_async(1);
    CHECK(q.try_pop()->body() == 1);
    q.send_async(2);
    CHECK(q.pop()->body() == 2);
    std::optional<mailroom::delivery<int>> got;
    const support::blocked receiver([&] { got = q.receive(); });
    h.clock.await_parked(1);
    q.send_async(3); // wakes it, and it commits
    CHECK(receiver.finishes());
    CHECK(got->body() == 3);
}
TEST_CASE("journal: then, before and after") {
    home h;
    simulated_queue<> q(*h.journal, "q");
    std::vector<std::string> told;
    {
        auto r = q.send_async(1);
        r.then([&](mailroom::result<mailroom::offset> o) {
            told.push_back("first " + std::to_string(*o));
            q.send(10); // runs without any lock
        });
        CHECK(told.empty());
    } // the receipt goes, what it was told stays
    h.journal->flush();
    REQUIRE(told.size() == 1);
    CHECK(told[0] == "first 0");
    auto r = q.send_async(2);
    r.wait();
    r.then([&](mailroom::result<mailroom::offset> o) { told.push_back("second " + std::to_string(*o)); });
    CHECK(told.back() == "second 2");
    auto last = q.send_async(3);
    last.then([&](mailroom::result<mailroom::offset> o) { told.push_back(o ? "last " + std::to_string(*o) : "failed"); });
    h.journal.reset(); // leads
    CHECK(told.back() == "last 3");
    CHECK(last.ready());
    CHECK(last.wait() == 3);
}
TEST_CASE("journal: receipts of failed writes") {
    home h;
    simulated_queue<> q(*h.journal, "q");
    simulated_topic<> t(*h.journal, "t");
    h.journal->flush();
    auto r = q.send_async(1);
    auto p = t.publish_async(1);
    errc told{};
    r.then([&](mailroom::result<mailroom::offset> o) { told = o ? errc{} : o.error().kind(); });
    h.disk.fail_write(0, std::make_error_code(std::errc::no_space_on_device));
    CHECK(thrown_by([&] { r.wait(); }) == errc::io);
    CHECK(thrown_by([&] { p.wait(); }) == errc::io);
    CHECK(told == errc::io);
    CHECK_FALSE(q.try_pop());
    CHECK(q.send(2) == 0);
    CHECK(q.try_pop()->body() == 2);
    h.reopen();
    CHECK_FALSE(simulated_queue<>(*h.journal, "q").try_pop());
    CHECK(simulated_topic<>(*h.journal, "t").next_offset() == 0);
}
TEST_CASE("journal: receipts, without a promise, of what could not be written yet") {
    home h(durability::none);
    simulated_queue<> q(*h.journal, "q", {.max_messages = 2, .overflow = mailroom::overflow::reject, .deduplicate = {.window = 1h}});
    h.journal->flush();
    h.disk.fail_write(0, std::make_error_code(std::errc::io_error));
    CHECK(q.send_async(1, {.id = "one"}).wait() == 0); // it is accepted, and kept
    CHECK(q.send(1, {.id = "one"}) == 0);              // so this is a duplicate
    CHECK(q.send(2) == 1);
    CHECK(q.try_send(3).error() == errc::full);
    CHECK(q.try_pop()->body() == 1);
    CHECK(q.try_pop()->body() == 2);
    CHECK_FALSE(q.try_pop());
}
TEST_CASE("journal: co_await of sends, acknowledgements and messages") {
    for (const bool kept : {false, true}) {
        CAPTURE(kept);
        simulated_files disk;
        simulated_journal j("journal", {}, disk);
        std::optional<mailroom::committer> keep;
        if (kept) { keep.emplace(j); }
        simulated_queue<> q(j, "q");
        simulated_topic<> t(j, "t");
        auto s = t.subscribe("s");
        std::vector<int> order;
        std::atomic<bool> over{false};
        const auto work = [&]() -> support::task {
            CHECK(co_await q.send_async(1) == 0);
            order.push_back(1);
            auto receipt = q.send_async(2, {.key = "k"});
            CHECK(co_await receipt == 1);
            const mailroom::position place = co_await t.publish_async(3);
            CHECK(place.offset == 0);
            auto d = co_await q.next();
            CHECK(d->body() == 1);
            co_await d->ack_async();
            order.push_back(2);
            auto e = co_await s.next();
            CHECK(e->body() == 3);
            co_await e->ack_async();
            order.push_back(3);
            over.store(true);
        };
        const support::task running = work();
        CHECK(eventually([&] { return over.load(); }));
        keep.reset(); // it may have resumed the coroutine last
        CHECK(running.done());
        CHECK(order == std::vector<int>{1, 2, 3});
    }
}
TEST_CASE("journal: receipts of acknowledgements") {
    home h;
    simulated_queue<> q(*h.journal, "q");
    simulated_topic<> t(*h.journal, "t");
    auto s = t.subscribe("s");
    for (int i = 0; i < 4; ++i) { q.send(i), t.publish(i); }
    auto a = q.try_receive()->ack_async();
    CHECK(a.wait() == 0);
    auto b = q.try_receive()->ack_async();
    int told = 0;
    b.then([&](mailroom::result<mailroom::offset> o) { told += o.has_value(); });
    q.try_receive()->ack_async(); // discarded
    auto c = s.try_receive()->ack_async();
    CHECK(c.wait() == 0);
    CHECK(told == 1);
    auto late = q.try_receive();
    CHECK(late->ack());
    CHECK(thrown_by([&] { late->ack_async().wait(); }) != errc{}); // it is settled already
    h.disk.power_cut(1, mailroom::testing::loss::everything);
    h.journal.reset();
    h.open();
    simulated_queue<> again(*h.journal, "q");
    CHECK(again.statistics().ready == 1); // the last was not told to be durable
    CHECK(simulated_topic<>(*h.journal, "t").subscribe("s").lag() == 3);
}
TEST_CASE("journal: a receipt outlives queue and journal") {
    home h;
    std::optional<simulated_queue<>> q(std::in_place, *h.journal, "q");
    auto r = q->send_async(1);
    auto d = (q->send(2), q->try_receive());
    auto a = d->ack_async();
    q.reset();
    h.journal.reset();
    CHECK(r.ready());
    CHECK(r.wait() == 0);
    CHECK(a.ready());
    CHECK(a.wait() == 0);
    h.open();
    q.emplace(*h.journal, "q");
    CHECK(q->try_pop()->body() == 2);
    CHECK_FALSE(q->try_pop());
}

// ----------------------------------------------------------------------------------------------------------------- committing, durability

TEST_CASE("journal: a committer commits what nobody waits for") {
    simulated_files disk;
    simulated_journal j("journal", {}, disk);
    simulated_queue<> q(j, "q");
    simulated_topic<> t(j, "t");
    {
        const mailroom::committer keep(j);
        auto r = q.send_async(1);
        CHECK(eventually([&] { return r.ready(); }));
        std::atomic<bool> told{false};
        t.publish_async(2).then([&](auto) { told = true; });
        CHECK(eventually([&] { return told.load(); }));
        CHECK(q.send(3) == 1); // others wait as ever
        for (int i = 0; i < 1000; ++i) { q.send_async(i); }
    }
    disk.power_cut(1, mailroom::testing::loss::everything);
    simulated_files after = disk.clone();
    simulated_journal again("journal", {}, after);
    CHECK(simulated_queue<>(again, "q").statistics().ready == 1002); // its end is a last commit
}
TEST_CASE("journal: a second committer goes, the first goes on") {
    simulated_files disk;
    simulated_journal j("journal", {}, disk);
    simulated_queue<> q(j, "q");
    const mailroom::committer keep(j);
    { const mailroom::committer other(j); }
    auto r = q.send_async(1);
    CHECK(eventually([&] { return r.ready(); }));
}
TEST_CASE("journal: flush makes durable what was sent and settled") {
    for (const durability promise : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(promise));
        home h(promise);
        {
            simulated_queue<> q(*h.journal, "q");
            simulated_topic<> t(*h.journal, "t");
            auto s = t.subscribe("s");
            for (int i = 0; i < 3; ++i) { q.send(i), t.publish(i); }
            q.try_pop();
            s.try_pop();
            h.journal->flush();
            h.disk.power_cut(1, mailroom::testing::loss::everything);
            h.journal.reset();
        }
        h.open();
        CHECK(simulated_queue<>(*h.journal, "q").statistics().ready == 2);
        simulated_topic<> t(*h.journal, "t");
        CHECK(t.subscriptions().at(0).lag == 2);
    }
}
TEST_CASE("journal: what each durability promises") {
    for (const durability promise : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(promise));
        for (const bool power : {false, true}) {
            CAPTURE(power);
            home h(promise);
            {
                simulated_queue<> q(*h.journal, "q");
                h.journal->flush();
                q.send(1);
                q.send(2);
                if (power) {
                    h.disk.power_cut(1, mailroom::testing::loss::everything);
                } else {
                    h.disk.process_kill();
                }
                h.journal.reset(); // in vain
            }
            h.open();
            simulated_queue<> q(*h.journal, "q");
            const auto ready = q.statistics().ready;
            if (promise == durability::commit || (promise == durability::write && !power)) {
                CHECK(ready == 2);
            } else {
                CHECK(ready == 0);
            }
            CHECK(h.journal->recovered().damages.empty());
        }
    }
}
TEST_CASE("journal: send_many is there whole or not at all") {
    home h;
    simulated_queue<> q(*h.journal, "q");
    CHECK(q.send_many(std::vector<int>{}) == 0);
    CHECK(q.send_many(std::vector<int>{1, 2, 3}) == 0);
    h.disk.fail_write(0, std::make_error_code(std::errc::io_error));
    CHECK(thrown_by([&] { q.send_many(std::vector<int>{4, 5, 6}); }) == errc::io);
    CHECK(q.send_many(std::vector<int>{7, 8}) == 3);
    h.reopen();
    CHECK(q.try_send(1).error() == errc::closed);
    simulated_queue<> again(*h.journal, "q");
    for (const int i : {1, 2, 3, 7, 8}) { CHECK(again.try_pop()->body() == i); }
    CHECK_FALSE(again.try_pop());
}

// ----------------------------------------------------------------------------------------------------------------------------- what lasts

TEST_CASE("journal: statistics across a restart") {
    home h;
    {
        simulated_queue<> q(*h.journal, "q", {.retry = {.max_attempts = 2, .initial = 1s}});
        for (int i = 0; i < 10; ++i) { q.send(i); }
        q.try_pop();
        q.try_receive()->ack();
        q.try_receive()->reject("why");
        q.try_receive()->nack(1h);
        q.try_receive()->nack(0s);
        auto twice = q.try_receive();
        CHECK(twice->attempt() == 2);
        twice->ack();
        static_cast<void>(q.try_receive()->release());
    }
    h.reopen();
    simulated_queue<> q(*h.journal, "q");
    auto s = q.statistics();
    CHECK(s.sent == 10);
    CHECK(s.acked == 3);
    CHECK(s.redelivered == 1);
    CHECK(s.dead == 1);
    CHECK(s.parked == 1);
    CHECK(s.ready == 5);
    CHECK(s.in_flight == 0);
    CHECK(q.purge() == 6);
    q.dead().purge();
    h.reopen();
    s = simulated_queue<>(*h.journal, "q").statistics();
    CHECK(s.sent == 10);
    CHECK(s.acked == 3);
    CHECK(s.dropped == 7);
    CHECK(s.ready + s.parked + s.dead == 0);
    CHECK(s.oldest_age == 0s);
    CHECK(s.bytes == 0);
}
TEST_CASE("journal: ids are known after a restart, as long as they were to be") {
    home h;
    const mailroom::queue_options<int> window{.deduplicate = {.window = 10s}};
    const mailroom::queue_options<int> settled{.deduplicate = {.until_settled = true}};
    const mailroom::topic_options<int> topic{.partitions = 3, .deduplicate = {.window = 10s}};
    mailroom::position first;
    {
        simulated_queue<> a(*h.journal, "a", window), b(*h.journal, "b", settled);
        simulated_topic<> t(*h.journal, "t", topic);
        CHECK(a.send(0) == 0);
        CHECK(a.send(1, {.id = "x"}) == 1);
        a.purge();
        CHECK(b.send(1, {.id = "x"}) == 0);
        CHECK(b.send(2, {.id = "y"}) == 1);
        CHECK(b.send(3, {.id = "z"}) == 2);
        b.try_pop();                  // x is settled
        b.try_receive()->reject("y"); // so is y, for who sends
        first = t.publish(1, {.key = "k", .id = "x"});
    }
    h.clock.advance(6s);
    h.reopen();
    {
        simulated_queue<> a(*h.journal, "a", window), b(*h.journal, "b", settled);
        simulated_topic<> t(*h.journal, "t", topic);
        CHECK(a.statistics().duplicates == 0);
        CHECK(a.send(2, {.id = "x"}) == 1);
        CHECK(a.statistics().duplicates == 1);
        CHECK(b.send(4, {.id = "z"}) == 2);
        CHECK(b.send(5, {.id = "y"}) == 3);
        CHECK(b.send(6, {.id = "x"}) == 4);
        CHECK(t.publish(2, {.key = "k", .id = "x"}) == first);
    }
    h.clock.advance(5s); // 11 s after it was sent
    h.reopen();
    simulated_queue<> a(*h.journal, "a", window), b(*h.journal, "b", settled);
    simulated_topic<> t(*h.journal, "t", topic);
    CHECK(a.send(3, {.id = "x"}) == 2);
    CHECK(b.send(7, {.id = "x"}) == 4);
    CHECK(b.dead().redrive(1) == 1);
    CHECK(b.send(8, {.id = "y"}) == 3);
    CHECK(t.publish(3, {.key = "k", .id = "x"}).offset == 1);
}
namespace {

/// A queue that knows ids, one that is full with one message, and a topic that does both: they refuse.
struct refusing {
    explicit refusing(home& h)
        : unique(*h.journal, "unique", {.deduplicate = {.window = 1h}}),
          full(*h.journal, "full", {.max_messages = 1, .overflow = mailroom::overflow::drop_newest}),
          topic(*h.journal, "topic",
                {.partitions = 3, .max_messages = 2, .overflow = mailroom::overflow::drop_newest, .deduplicate = {.window = 1h}}),
          subscription(topic.subscribe("s", {.from = mailroom::start::earliest})) {}

    using list = std::vector<std::uint64_t>;
    list counts() { return {unique.statistics().duplicates, full.statistics().dropped, topic.statistics().duplicates, topic.statistics().dropped}; }
    simulated_queue<> unique, full;
    simulated_topic<> topic;
    mailroom::subscription<int> subscription;
};

} // namespace

TEST_CASE("journal: what was refused, as a duplicate or for want of room, is counted on after a restart, each once") {
    home h;
    using list = refusing::list;
    std::optional<refusing> all(h);
    all->unique.send(1, {.id = "x"});
    all->unique.send(1, {.id = "x"});
    mailroom::transaction tx(*h.journal);
    tx.send(all->unique, 1, {.id = "x"});
    tx.commit();
    all->full.send(1);
    all->full.send(2);
    all->full.send(3);
    all->full.send_many(std::vector{4});
    all->topic.publish(1, {.key = "a", .id = "a"});
    all->topic.publish(1, {.key = "b", .id = "b"});
    all->topic.publish(1, {.key = "a", .id = "a"});
    all->topic.publish(1, {.key = "c", .id = "c"});
    CHECK(all->counts() == list{2, 3, 1, 1});
    SUBCASE("they close, and then the journal") {
        all.reset();
        h.reopen();
    }
    SUBCASE("the journal closes first") {
        h.journal.reset();
        all.reset();
        h.open();
    }
    SUBCASE("the journal stays") { all.reset(); }
    SUBCASE("it is a crash, and they were committed; what was not is forgotten") {
        h.journal->flush();
        all->unique.send(1, {.id = "x"});
        CHECK(all->counts() == list{3, 3, 1, 1});
        h.disk.process_kill();
        all.reset();
        h.reopen();
    }
    all.emplace(h);
    CHECK(all->counts() == list{2, 3, 1, 1});
    CHECK(all->unique.statistics().sent == 1);
    all->unique.send(1, {.id = "x"});
    all->topic.publish(1, {.key = "b", .id = "b"});
    all.reset();
    h.reopen();
    all.emplace(h);
    CHECK(all->counts() == list{3, 3, 2, 1});
    h.journal->compact(); // a checkpoint says the same
    all.reset();
    h.reopen();
    CHECK(refusing(h).counts() == list{3, 3, 2, 1});
    CHECK(h.journal->verify().intact);
}
TEST_CASE("journal: a write that fails takes nothing from what is counted of refusals, and counts nothing twice") {
    home h;
    const mailroom::queue_options<int> unique{.deduplicate = {.window = 1h}};
    {
        simulated_queue<> q(*h.journal, "q", unique);
        q.send(1, {.id = "x"});
        q.send(1, {.id = "x"});
        h.disk.fail_write(0, std::make_error_code(std::errc::io_error));
        CHECK(thrown_by([&] { q.send(2); }) == errc::io);
        q.send(3);
        q.send(1, {.id = "x"});
    }
    h.reopen();
    CHECK(simulated_queue<>(*h.journal, "q", unique).statistics().duplicates == 2);
}
TEST_CASE("journal: deduplication switched on, off and changed by a restart") {
    home h;
    { simulated_queue<>(*h.journal, "q").send(1, {.id = "x"}); }
    h.reopen();
    { // what was sent without it is unknown, or known: but it works, and nothing is refused
        simulated_queue<> q(*h.journal, "q", {.deduplicate = {.window = 1h}});
        const auto at = q.send(2, {.id = "y"});
        CHECK(q.send(3, {.id = "y"}) == at);
    }
    h.reopen();
    {
        simulated_queue<> q(*h.journal, "q", {.deduplicate = {.window = 2h}});
        CHECK(q.send(4, {.id = "y"}) == 1);
    }
    h.reopen();
    simulated_queue<> q(*h.journal, "q");
    CHECK(q.send(5, {.id = "y"}) == 2);
}
TEST_CASE("journal: delays and retries are over when they would have been") {
    home h;
    const mailroom::queue_options<int> o{.retry = {.initial = 10s, .multiplier = 2}};
    {
        simulated_queue<> q(*h.journal, "q", o);
        q.send(1, {.delay = 10s});
        q.send(2);
        CHECK(q.try_receive()->nack());
        q.send(3, {.delay = 1h});
    }
    h.clock.advance(4s);
    h.reopen();
    {
        simulated_queue<> q(*h.journal, "q", o);
        CHECK(q.statistics().parked == 3);
        CHECK_FALSE(q.try_receive());
        CHECK_FALSE(q.receive_for(0s));
    }
    h.clock.advance(5s);
    h.reopen();
    simulated_queue<> q(*h.journal, "q", o);
    CHECK_FALSE(q.try_receive());
    h.clock.advance(1s);
    auto one = q.try_receive();
    REQUIRE(one);
    CHECK(one->body() == 1);
    CHECK(one->attempt() == 1);
    auto two = q.try_receive();
    REQUIRE(two);
    CHECK(two->body() == 2);
    CHECK(two->attempt() == 2);
    CHECK(two->nack()); // 20 s by now
    CHECK(q.statistics().parked == 2);
    h.clock.advance(19s);
    CHECK_FALSE(q.try_receive());
    h.clock.advance(1s);
    CHECK(q.try_receive()->attempt() == 3);
}
TEST_CASE("journal: a receiver waits for a delay that began before the restart") {
    home h;
    { simulated_queue<>(*h.journal, "q").send(1, {.delay = 10s}); }
    h.reopen();
    simulated_queue<> q(*h.journal, "q");
    std::optional<mailroom::message<int>> got;
    const support::blocked receiver([&] { got = q.pop(); });
    h.clock.await_parked(1);
    h.clock.advance(9s);
    h.clock.await_parked(1); // it has looked, and waits again
    CHECK_FALSE(receiver.done());
    h.clock.advance(1s);
    CHECK(receiver.finishes());
    CHECK(got->body() == 1);
}
TEST_CASE("journal: times to live go on while nobody has it open") {
    home h;
    const mailroom::queue_options<int> o{.time_to_live = 1min};
    {
        simulated_queue<> q(*h.journal, "q", o);
        q.send(1, {.time_to_live = 10s});
        q.send(2);
        q.send(3, {.time_to_live = 1h});
    }
    h.clock.advance(10s);
    h.reopen();
    {
        simulated_queue<> q(*h.journal, "q", o);
        CHECK(q.statistics().dead == 1);
        CHECK(q.statistics().expired == 1);
        auto d = q.dead().try_receive();
        REQUIRE(d);
        CHECK(d->body() == 1);
        CHECK(d->attempts() == 0);
    }
    h.reopen();
    {
        simulated_queue<> q(*h.journal, "q", o);
        CHECK(q.statistics().dead == 1);
        CHECK(q.statistics().expired == 1);
        h.clock.advance(50s);
        CHECK(q.statistics().dead == 2);
        CHECK(q.try_pop()->body() == 3);
    }
}
TEST_CASE("journal: priorities and the order of keys across a restart") {
    home h;
    const mailroom::queue_options<int> levels{.priorities = 3};
    const mailroom::queue_options<int> keys{.retry = {.initial = 10s}, .ordered_by_key = true};
    {
        simulated_queue<> a(*h.journal, "a", levels), b(*h.journal, "b", keys);
        for (int i = 0; i < 9; ++i) { a.send(i, {.priority = i % 3}); }
        for (int i = 0; i < 4; ++i) { b.send(i, {.key = i % 2 == 0 ? "even" : "odd"}); }
        CHECK(b.try_receive()->nack());
    }
    h.reopen();
    simulated_queue<> a(*h.journal, "a", levels), b(*h.journal, "b", keys);
    for (const int i : {2, 5, 8, 1, 4, 7, 0, 3, 6}) { CHECK(a.try_pop()->body() == i); }
    auto odd = b.try_receive();
    REQUIRE(odd);
    CHECK(odd->body() == 1);
    CHECK_FALSE(b.try_receive()); // 0 waits for its retry, 2 and 3 for those before
    CHECK(odd->ack());
    CHECK(b.try_pop()->body() == 3);
    h.clock.advance(10s);
    auto zero = b.try_receive();
    REQUIRE(zero);
    CHECK(zero->body() == 0);
    CHECK(zero->attempt() == 2);
    CHECK_FALSE(b.try_receive());
    zero->ack();
    CHECK(b.try_pop()->body() == 2);
}
TEST_CASE("journal: dead letters keep their story, and live again") {
    home h;
    const mailroom::queue_options<std::string> o{.retry = {.max_attempts = 2, .initial = 1s}};
    mailroom::time_point first, last;
    {
        simulated_queue<std::string> q(*h.journal, "q", o);
        q.send("poison", {.key = "k"});
        q.send("rejected");
        q.send("fine");
        first = h.clock.wall();
        q.try_receive()->nack();
        h.clock.advance(1s);
        last = h.clock.wall();
        q.try_receive()->nack();
        q.try_receive()->reject("no such account");
        CHECK(q.dead().size() == 2);
    }
    h.clock.advance(1h);
    for (int round = 0; round < 3; ++round) {
        CAPTURE(round);
        h.reopen();
        simulated_queue<std::string> q(*h.journal, "q", o);
        REQUIRE(q.dead().size() == 2);
        auto one = q.dead().try_receive();
        auto two = q.dead().try_receive();
        REQUIRE(one);
        REQUIRE(two);
        CHECK(one->body() == "poison");
        CHECK(one->props().key == "k");
        CHECK(one->offset() == 0);
        CHECK(one->attempts() == 2);
        CHECK(one->first_failure() == first);
        CHECK(one->last_failure() == last);
        CHECK(two->reason() == "no such account");
        CHECK(two->attempts() == 1);
    }
    {
        h.reopen();
        simulated_queue<std::string> q(*h.journal, "q", o);
        CHECK(q.dead().redrive_if([](const auto& d) { return d.body() == "poison"; }) == 1);
    }
    h.reopen();
    simulated_queue<std::string> q(*h.journal, "q", o);
    CHECK(q.dead().size() == 1);
    auto d = q.try_receive();
    REQUIRE(d);
    CHECK(d->body() == "poison");
    CHECK(d->offset() == 0);
    CHECK(d->attempt() == 1);
    CHECK(q.dead().try_receive()->ack());
    h.reopen();
    CHECK(simulated_queue<std::string>(*h.journal, "q", o).dead().size() == 0);
}
TEST_CASE("journal: what was in flight is ready at once, whatever its lease") {
    for (const auto lease : {mailroom::duration(0), mailroom::duration(24h)}) {
        home h;
        const mailroom::queue_options<int> o{.lease = lease, .max_in_flight = 2};
        std::vector<mailroom::delivery<int>> out;
        {
            simulated_queue<> q(*h.journal, "q", o);
            for (int i = 0; i < 3; ++i) { q.send(i); }
            CHECK(q.receive_many(out, 5) == 2);
        }
        h.reopen();
        simulated_queue<> q(*h.journal, "q", o);
        CHECK(q.statistics().ready == 3);
        CHECK(q.statistics().in_flight == 0);
        for (auto& d : out) { CHECK_FALSE(d.ack()); }
        for (int i = 0; i < 3; ++i) {
            auto d = q.try_receive();
            REQUIRE(d);
            CHECK(d->body() == i);
            CHECK(d->attempt() == 1); // nobody failed
            CHECK(d->ack());
        }
    }
}
TEST_CASE("journal: attempts count on after an unclean stop, so poison dies") {
    home h;
    const mailroom::queue_options<int> o{.retry = {.max_attempts = 3, .initial = 0s}};
    { simulated_queue<>(*h.journal, "q", o).send(1); }
    int killed = 0;
    for (; killed < 10; ++killed) {
        h.reopen();
        simulated_queue<> q(*h.journal, "q", o);
        auto d = q.try_receive();
        if (!d) { break; }
        h.disk.process_kill();
        h.journal.reset();
    }
    CHECK(killed >= 3);
    CHECK(killed <= 4);
    h.reopen();
    simulated_queue<> q(*h.journal, "q", o);
    CHECK(q.dead().size() == 1);
    CHECK(q.statistics().ready == 0);
}
TEST_CASE("journal: bounds hold across a restart") {
    home h;
    const auto with = [](mailroom::overflow rule) { return mailroom::queue_options<std::string>{.max_messages = 3, .overflow = rule}; };
    {
        simulated_queue<std::string> q(*h.journal, "q", with(mailroom::overflow::reject));
        for (int i = 0; i < 3; ++i) { q.send(std::to_string(i)); }
        q.try_receive()->reject(); // the dead need no room
        q.send("3");
    }
    h.reopen();
    {
        simulated_queue<std::string> q(*h.journal, "q", with(mailroom::overflow::reject));
        CHECK(q.try_send("4").error() == errc::full);
        q.try_pop();
        CHECK(q.send("4") == 4);
    }
    h.reopen();
    {
        simulated_queue<std::string> q(*h.journal, "q", with(mailroom::overflow::drop_oldest));
        CHECK(q.send("5") == 5);
        CHECK(q.statistics().dropped == 1);
        CHECK(q.try_pop()->body() == "3");
    }
    h.reopen();
    const std::string body(100, 'b');
    const mailroom::queue_options<std::string> bytes{.max_bytes = 1000, .overflow = mailroom::overflow::reject};
    std::size_t fitted = 0;
    {
        simulated_queue<std::string> q(*h.journal, "bytes", bytes);
        while (q.try_send(body)) { ++fitted; }
        CHECK(fitted > 2);
    }
    h.reopen();
    simulated_queue<std::string> q(*h.journal, "bytes", bytes);
    CHECK(q.try_send(body).error() == errc::full);
    q.try_pop();
    CHECK(q.try_send(body));
    CHECK(q.try_send(body).error() == errc::full);
}
TEST_CASE("journal: drop_oldest drops as many as needed or none, also of what is left of an earlier opening") {
    home h;
    const mailroom::queue_options<int> bounded{.max_messages = 4, .overflow = mailroom::overflow::drop_oldest};
    std::optional<mailroom::delivery<int>> first;
    {
        simulated_queue<> q(*h.journal, "q", bounded);
        for (int i = 0; i < 4; ++i) { q.send(i); }
        first = q.receive();
        q.receive()->ack();
        h.journal->flush();
    }
    h.reopen(); // what was held is ready again
    simulated_queue<> q(*h.journal, "q", bounded);
    const auto held = q.receive();
    REQUIRE(held);
    CHECK(**held == 0);
    CHECK_THROWS_AS(q.send_many(std::vector{4, 5, 6, 7}), mailroom::error); // one is held, so there is never room for four
    CHECK(q.statistics().dropped == 0);
    CHECK(q.statistics().ready == 2);
    q.send_many(std::vector{4, 5, 6});
    CHECK(q.statistics().dropped == 2);
    CHECK(q.statistics().ready == 3);
}

TEST_CASE("journal: a queue of many messages is not read to be opened, and reads as it was written") {
    home h(durability::none);
    h.options.segment_bytes = 64 << 10;
    h.reopen();
    constexpr int many = 20'000;
    {
        simulated_queue<> q(*h.journal, "q");
        for (int i = 0; i < many; ++i) { q.send(i); }
        std::vector<mailroom::delivery<int>> list;
        q.receive_many(list, many);
        for (auto& d : list) { CHECK((*d % 7 != 0 ? d.ack() : d.release())); }
    }
    h.reopen();
    simulated_queue<> q(*h.journal, "q");
    const auto left = static_cast<std::size_t>((many + 6) / 7);
    CHECK(q.statistics().ready == left);
    int expected = 0;
    while (auto m = q.try_pop()) {
        REQUIRE(m->body() == expected);
        REQUIRE(m->offset() == static_cast<mailroom::offset>(expected));
        expected += 7;
    }
    CHECK(expected >= many);
    h.journal->compact();
    CHECK(h.journal->verify().intact);
    CHECK(h.journal->verify().messages == 0);
}
TEST_CASE("journal: verify counts whatever many messages wait, and passes on what its progress throws") {
    home h(durability::none);
    constexpr int many = 150'000;
    simulated_queue<> q(*h.journal, "q");
    q.send_many(std::vector<int>(1000));
    while (q.try_pop()) {}
    for (int i = 0; i < many / 1000; ++i) { q.send_many(std::vector<int>(1000)); }
    auto held = q.try_receive();
    q.try_pop();
    h.journal->flush();
    const auto r = h.journal->verify();
    CHECK(r.intact);
    CHECK(r.messages == many - 1);
    struct enough : std::runtime_error {
        using std::runtime_error::runtime_error;
    };
    CHECK_THROWS_AS(h.journal->verify([](double) { throw enough("enough"); }), enough);
    CHECK(h.journal->verify().intact);
}
TEST_CASE("journal: several queues and topics in one directory do not know each other") {
    home h;
    for (int round = 0; round < 3; ++round) {
        CAPTURE(round);
        std::vector<simulated_queue<>> queues;
        std::vector<simulated_topic<>> topics;
        for (int i = 0; i < 5; ++i) {
            queues.emplace_back(*h.journal, "q" + std::to_string(i));
            topics.emplace_back(*h.journal, "t" + std::to_string(i), mailroom::topic_options<int>{.partitions = i + 1});
        }
        for (int i = 0; i < 5; ++i) {
            const auto at = static_cast<std::size_t>(i);
            auto s = topics[at].subscribe("s", {.from = mailroom::start::earliest});
            CHECK(queues[at].send(10 * round + i) == static_cast<mailroom::offset>(round));
            topics[at].publish(10 * round + i, {.key = "k"});
            CHECK(queues[at].try_pop()->body() == 10 * round + i);
            CHECK(s.try_pop()->body() == 10 * round + i);
            CHECK_FALSE(s.try_pop());
        }
        queues.clear();
        topics.clear();
        h.reopen();
    }
}
TEST_CASE("journal: pausing and closing are of this opening only") {
    home h;
    {
        simulated_queue<> q(*h.journal, "q");
        q.send(1);
        q.pause();
        q.close();
        CHECK_FALSE(q.try_receive());
        CHECK_FALSE(q.drain(0s));
    }
    simulated_queue<> q(*h.journal, "q"); // in the same journal
    CHECK(q.send(2) == 1);
    CHECK(q.try_pop()->body() == 1);
}
TEST_CASE("journal: a queue opened and closed again and again in one journal") {
    home h;
    int next = 0;
    for (int round = 0; round < 50; ++round) {
        simulated_queue<> q(*h.journal, "q", {.retry = {.max_attempts = 0, .initial = 0s}});
        q.send_async(round);
        auto d = q.try_receive();
        REQUIRE(d);
        CHECK(d->body() == next);
        switch (round % 3) {
        case 0: d->ack(), ++next; break;
        case 1: d->nack(); break;
        default: d->release();
        }
    }
    h.reopen();
    simulated_queue<> q(*h.journal, "q");
    auto d = q.try_receive();
    CHECK(d->body() == next);
}

// ------------------------------------------------------------------------------------------------------------------------------- reading on

namespace {

std::string text_of(int i) {
    const auto length = static_cast<std::size_t>(i * 37 % 1500); // some keep their buffers in the slots, some do not
    return std::to_string(i) + std::string(length, static_cast<char>('a' + i % 26));
}

} // namespace

TEST_CASE("journal: a long queue of texts reads as it was written, from any segment, whoever sends beside") {
    home h(durability::none);
    h.options.segment_bytes = 256 << 10;
    h.reopen();
    constexpr int many = 3000;
    {
        simulated_queue<std::string> q(*h.journal, "q");
        simulated_queue<> other(*h.journal, "other");
        for (int i = 0; i < many; ++i) {
            const std::string text = text_of(i);
            CHECK(q.send(text) == static_cast<mailroom::offset>(i));
            CHECK(text == text_of(i));
            if (i % 100 > 50) { other.send(i); }
        }
        CHECK(h.journal->compact().bytes_after > 5u * (256 << 10));
    }
    h.reopen();
    simulated_queue<std::string> q(*h.journal, "q");
    for (int i = 0; i <= many;) {
        if (i == many / 2) { q.send(text_of(many)); } // while somebody reads on
        q.pop_each(
            [&](const std::string& s) {
                if (s != text_of(i)) { FAIL("message " << i); }
                ++i;
            },
            many / 2 > i ? std::min<std::size_t>(50, static_cast<std::size_t>(many / 2 - i)) : 50);
    }
    CHECK(!q.try_pop());
}

TEST_CASE("journal: bodies of any length are what they were, however they were sent") {
    const auto made = [](std::size_t n) {
        std::string body(n, 'b');
        for (std::size_t i = 0; i < n; ++i) { body[i] = static_cast<char>('a' + (i * 7 + n) % 26); }
        return body;
    };
    constexpr std::size_t most = 300;
    for (const durability d : {durability::none, durability::commit}) {
        home h(d);
        {
            simulated_queue<std::string> texts(*h.journal, "texts");
            simulated_queue<std::vector<std::byte>> bytes(*h.journal, "bytes");
            std::vector<std::string> all;
            for (std::size_t n = 0; n < most; ++n) {
                all.push_back(made(n));
                texts.send(all.back());
                const auto some = std::as_bytes(std::span(all.back()));
                bytes.send(std::vector<std::byte>(some.begin(), some.end()));
            }
            const std::vector<std::string> before = all;
            texts.send_many(all);
            CHECK(all == before);
            texts.send_many(std::move(all)); // given up, and yet only looked at or moved: either way it arrives
        }
        h.reopen();
        simulated_queue<std::string> texts(*h.journal, "texts");
        simulated_queue<std::vector<std::byte>> bytes(*h.journal, "bytes");
        for (std::size_t i = 0; i < 3 * most; ++i) {
            const auto m = texts.try_pop();
            if (!m || m->body() != made(i % most)) { FAIL("text " << i); }
        }
        std::size_t n = 0;
        while (bytes.pop_each(
                   [&](const std::vector<std::byte>& body) {
                       const std::string wanted = made(n++);
                       if (!std::ranges::equal(body, std::as_bytes(std::span(wanted)))) { FAIL("bytes " << n - 1); }
                   },
                   32) != 0) {}
        CHECK(n == most);
        CHECK(!texts.try_pop());
    }
}

TEST_CASE("journal: what pop_each handed out is settled, what comes behind one that threw is there") {
    struct stop {};
    for (const std::size_t throws_at : {std::size_t{0}, std::size_t{1}, std::size_t{17}, std::size_t{31}, std::size_t{32}, std::size_t{39}}) {
        home h;
        constexpr std::size_t many = 40;
        {
            simulated_queue<std::string> q(*h.journal, "q");
            for (std::size_t i = 0; i < many; ++i) {
                mailroom::properties p;
                if (i % 3 == 0) { p.subject = "no " + std::to_string(i); }
                if (i == 9) { p.delay = 1h; }
                q.send(text_of(static_cast<int>(i)), p);
            }
        }
        h.reopen();
        std::vector<std::string> seen;
        {
            simulated_queue<std::string> q(*h.journal, "q");
            const auto look = [&](const std::string& body, const mailroom::properties& p) {
                if (seen.size() == throws_at) { throw stop(); }
                const std::size_t i = seen.size() < 9 ? seen.size() : seen.size() + 1;
                CHECK(p.subject == (i % 3 == 0 ? "no " + std::to_string(i) : std::string()));
                seen.push_back(body);
            };
            try {
                while (q.pop_each(look, 64) != 0) {}
                CHECK(throws_at == many - 1);
            } catch (const stop&) { CHECK(throws_at < many - 1); }
        }
        h.reopen(); // the one that threw is settled too, as it is popped before it is looked at
        simulated_queue<std::string> q(*h.journal, "q");
        for (std::size_t i = throws_at < many - 1 ? throws_at + 1 : throws_at; i < many - 1; ++i) {
            const auto m = q.try_pop();
            if (!m || m->body() != text_of(static_cast<int>(i < 9 ? i : i + 1))) { FAIL("message " << i << " after " << throws_at); }
        }
        CHECK(!q.try_pop());
        CHECK(q.statistics().parked == 1);
    }
}

TEST_CASE("journal: readers of one topic at different places do not read each other's bytes") {
    home h(durability::none);
    h.options.segment_bytes = 256 << 10;
    h.reopen();
    constexpr int many = 2000;
    {
        simulated_topic<std::string> t(*h.journal, "t");
        auto keeps = t.subscribe("keeps", {.from = mailroom::start::earliest});
        for (int i = 0; i < many; ++i) { t.publish(text_of(i)); }
    }
    h.reopen();
    simulated_topic<std::string> t(*h.journal, "t");
    auto first = t.subscribe("keeps"), second = t.subscribe({.from = mailroom::start::earliest});
    int at[2] = {0, 0};
    const auto read = [&](mailroom::subscription<std::string>& s, int& i, int n) {
        for (; n != 0 && i < many; --n, ++i) {
            auto m = s.try_pop();
            if (!m || m->body() != text_of(i)) { FAIL("message " << i); }
        }
    };
    read(second, at[1], 700); // ahead
    while (at[0] < many) {
        read(first, at[0], 45);
        read(second, at[1], 30);
    }
    CHECK(!first.try_pop());
    CHECK(!second.try_pop());
}

TEST_CASE("journal: what is damaged among what is read ahead is left out alone") {
    home h(durability::none);
    h.options.segment_bytes = 256 << 10;
    h.reopen();
    constexpr int many = 2000; // the last segment is looked through as it is opened: what is damaged lies before
    {
        simulated_queue<std::string> q(*h.journal, "q");
        for (int i = 0; i < many; ++i) { q.send(std::to_string(i) + std::string(400, 'x')); }
    }
    h.journal.reset();
    std::size_t flipped = 0;
    for (const std::string& name : h.disk.files()) {
        if (!name.ends_with(".log")) { continue; }
        const auto all = h.disk.contents(name);
        const std::string_view text(reinterpret_cast<const char*>(all.data()), all.size());
        for (const char* which : {"150xxxx", "151xxxx", "320xxxx", "777xxxx"}) {
            const std::size_t at = text.find(std::string(1, '\0') + which); // a body begins where its header ends, with zeros
            if (at == std::string_view::npos) { continue; }
            h.disk.flip_bit(name, (at + 300) * 8);
            ++flipped;
        }
    }
    REQUIRE(flipped == 4);
    h.open();
    simulated_queue<std::string> q(*h.journal, "q");
    std::vector<int> got;
    std::size_t damages = 0;
    for (;;) {
        try {
            auto m = q.try_pop();
            if (!m) { break; }
            got.push_back(std::atoi(m->body().c_str()));
        } catch (const mailroom::error& e) {
            CHECK(e == errc::corrupt);
            ++damages;
        }
    }
    std::vector<int> expected;
    for (int i = 0; i < many; ++i) {
        if (i != 150 && i != 151 && i != 320 && i != 777) { expected.push_back(i); }
    }
    CHECK(got == expected);
    CHECK(damages == 4);
}
