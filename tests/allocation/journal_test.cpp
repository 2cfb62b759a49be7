// What a journal does when memory ends: whichever allocation fails, the call says so or manages; nothing is leaked or half done, what was accepted
// stays, in this process and after the next opening, and what was refused never comes.
#include "support/allocations.hpp"
#include "support/environment.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/producer.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/simulated_files.hpp>
#include <mailroom/transaction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace support;
using namespace std::chrono_literals;
using mailroom::durability;
using mailroom::errc;
using mailroom::testing::manual_clock;
using mailroom::testing::simulated_files;

namespace {

/// What the disk itself allocates stands for the system's memory, which is another: it does not fail, and is not counted.
class spared {
public:
    spared() noexcept : left_(std::exchange(support::detail::until_failure, -1)) {}
    spared(const spared&) = delete;
    spared& operator=(const spared&) = delete;
    ~spared() { support::detail::until_failure = left_; }

private:
    const long left_;
};

/// A simulated disk that has memory of its own.
class files {
public:
    using file = simulated_files::file;
    using open_mode = mailroom::detail::open_mode;
    using parts = std::span<const std::span<const std::byte>>;

    files() = default;
    explicit files(simulated_files disk) : disk_(std::move(disk)) {}
    const simulated_files& disk() const noexcept { return disk_; }

    std::error_code open(const std::string& path, open_mode mode, file& out) const noexcept {
        return with([&] { return disk_.open(path, mode, out); });
    }
    std::error_code close(file& f) const noexcept {
        return with([&] { return disk_.close(f); });
    }
    std::error_code write(file& f, std::uint64_t at, parts p, std::size_t& written) const noexcept {
        return with([&] { return disk_.write(f, at, p, written); });
    }
    std::error_code read(const file& f, std::uint64_t at, std::span<std::byte> to, std::size_t& got) const noexcept {
        return with([&] { return disk_.read(f, at, to, got); });
    }
    std::error_code sync(file& f) const noexcept {
        return with([&] { return disk_.sync(f); });
    }
    std::error_code sync_all(file& f) const noexcept {
        return with([&] { return disk_.sync_all(f); });
    }
    std::error_code size(const file& f, std::uint64_t& bytes) const noexcept {
        return with([&] { return disk_.size(f, bytes); });
    }
    std::error_code truncate(file& f, std::uint64_t bytes) const noexcept {
        return with([&] { return disk_.truncate(f, bytes); });
    }
    std::error_code lock(file& f) const noexcept {
        return with([&] { return disk_.lock(f); });
    }
    std::error_code rename(const std::string& from, const std::string& to) const noexcept {
        return with([&] { return disk_.rename(from, to); });
    }
    std::error_code remove(const std::string& path) const noexcept {
        return with([&] { return disk_.remove(path); });
    }
    std::error_code make_directory(const std::string& path) const noexcept {
        return with([&] { return disk_.make_directory(path); });
    }
    std::error_code sync_directory(const std::string& path) const noexcept {
        return with([&] { return disk_.sync_directory(path); });
    }
    std::error_code is_writable(const std::string& directory) const noexcept {
        return with([&] { return disk_.is_writable(directory); });
    }
    // These two may throw, so they do.
    std::error_code list(const std::string& directory, std::vector<std::string>& names) const { return disk_.list(directory, names); }
    std::error_code identity(const std::string& directory, std::string& out) const { return disk_.identity(directory, out); }

private:
    template <class Call>
    static std::error_code with(Call call) noexcept {
        const spared from_failure;
        return call();
    }
    simulated_files disk_;
};
static_assert(mailroom::detail::files_policy<files>);

using journal = mailroom::basic_journal<files>;
using queue = mailroom::queue<std::string, journal>;
using topic = mailroom::topic<std::string, journal>;
using subscription = mailroom::subscription<std::string>;
using delivery = mailroom::delivery<std::string>;

/// Message `number`, of so many bytes.
std::string text_of(int number, std::size_t bytes = 100) {
    std::string text = std::to_string(number) + " ";
    text.resize(std::max(bytes, text.size()), '.');
    return text;
}
int number_of(const std::string& text) { return std::stoi(text); }

/// What was said of each message that was sent to one endpoint.
class account {
public:
    void accepted(int number) { all_[number] = state::open; }
    void unsure(int number) { all_[number] = state::unsure; }
    /// It was acknowledged: it may come again after the next opening, but need not.
    void settled(int number) { all_[number] = state::settled; }

    /// What was sent after the first ten may be lost, with the end of the stream.
    void may_lose_the_end() {
        for (auto& [number, s] : all_) { s = s == state::open && number >= 10 ? state::unsure : s; }
    }

    /// What came in this process.
    void check_here(const std::vector<int>& came, bool all_are_loaded) const { check(came, false, all_are_loaded); }
    /// What came after the next opening.
    void check_later(const std::vector<int>& came) const { check(came, true, true); }

private:
    enum class state { open, unsure, settled };

    void check(const std::vector<int>& came, bool later, bool all_are_loaded) const {
        std::string wrong;
        std::set<int> once;
        for (const int number : came) {
            const auto known = all_.find(number);
            if (!once.insert(number).second) { wrong += std::to_string(number) + " came twice; "; }
            if (known == all_.end()) {
                wrong += std::to_string(number) + " was refused, and came; ";
            } else if (!later && known->second == state::settled) {
                wrong += std::to_string(number) + " was settled, and came; ";
            }
        }
        for (const auto& [number, s] : all_) {
            if (all_are_loaded && s == state::open && !once.contains(number)) { wrong += std::to_string(number) + " is lost; "; }
        }
        CHECK(wrong == "");
    }
    std::map<int, state> all_;
};

/// A journal with a queue, a topic and a durable subscription of it; and what they owe.
struct world {
    manual_clock clock{1h};
    files disk;
    mailroom::journal_options options;
    account in_queue, in_topic;
    std::optional<journal> j;
    std::optional<queue> q;
    std::optional<topic> t;
    std::optional<subscription> s;
    std::vector<delivery> held;
    long nth = -1;
    bool and_all_after = false, failed = false;
    bool may_be_left_out = false; // what could not be loaded for want of memory, until the next opening; its receiver was told

    explicit world(durability d, files on = files()) : disk(std::move(on)) {
        options.durability = d;
        options.segment_bytes = 64 << 10;
        options.clock = &clock;
        held.reserve(200);
    }
    world(const world&) = delete;
    world& operator=(const world&) = delete;

    mailroom::queue_options<std::string> of_queue() const {
        return {.lease = 1h, .retry = {.max_attempts = 100, .initial = 0s}, .deduplicate = {.window = 24h}};
    }
    static mailroom::subscribe_options<std::string> of_subscription() {
        mailroom::subscribe_options<std::string> o;
        o.lease = 1h;
        o.retry = {.max_attempts = 100, .initial = 0s};
        return o;
    }
    void open_all() {
        if (!j) { j.emplace("data", options, disk); }
        if (!q) { q.emplace(*j, "a queue whose name takes memory", of_queue()); }
        if (!t) { t.emplace(*j, "a topic whose name takes memory", mailroom::topic_options<std::string>{.partitions = 2}); }
        if (!s) { s.emplace(t->subscribe("a subscription whose name takes memory", of_subscription())); }
    }
    void close_all() {
        held.clear();
        s.reset(), t.reset(), q.reset(), j.reset();
    }

    /// A call of the library, during which allocations may fail. Answers whether it returned.
    template <class Call>
    bool attempt(Call call) {
        bool returned = false;
        failing_allocation failing(nth, and_all_after);
        try {
            call();
            returned = true;
        } catch (const std::bad_alloc&) {
            const spared own;
            CHECK(failing.has_failed());
            may_be_left_out = may_be_left_out || and_all_after; // there was none for the error that says it, either
        } catch (const mailroom::error& e) {
            const spared own;
            CHECK((failed || failing.has_failed()));
            CHECK((e == errc::io || e == errc::not_found));
            may_be_left_out = true;
        }
        failed = failed || failing.has_failed();
        nth = and_all_after && failing.has_failed() ? 0 : failing.left();
        return returned;
    }

    void send(int number, std::size_t bytes = 100, mailroom::properties p = mailroom::properties()) {
        std::string text = text_of(number, bytes);
        if (attempt([&] { q->send(std::move(text), std::move(p)); })) { in_queue.accepted(number); }
    }
    void publish(int number, std::size_t bytes = 100) {
        std::string text = text_of(number, bytes);
        if (attempt([&] { t->publish(std::move(text)); })) { in_topic.accepted(number); }
    }
    /// Memory is there again: takes what `from` gives, and holds it.
    template <class From>
    std::vector<int> take(From& from, bool& all) {
        std::vector<int> came;
        for (;;) {
            try {
                auto d = from.try_receive();
                if (!d) { return came; }
                came.push_back(number_of(**d));
                held.push_back(std::move(*d));
            } catch (const mailroom::error& e) {
                CHECK(e == errc::io);
                all = false;
            }
        }
    }

    /// Not if there was no memory for what had been written: then it was taken back, and nothing more is written until the next opening.
    bool can_write() {
        try {
            j->flush();
            return true;
        } catch (const mailroom::error& e) {
            CHECK(failed);
            CHECK(e == errc::io);
            return false;
        }
    }

    /// Memory is there again.
    void check() {
        nth = -1;
        const bool was_open = q.has_value() && s.has_value();
        if (was_open) {
            held.clear();
            clock.advance(2s);
            const bool writes = can_write();
            if (!writes && options.durability == durability::none) { in_queue.may_lose_the_end(), in_topic.may_lose_the_end(); }
            bool all = !may_be_left_out, all_of_topic = all;
            const std::vector<int> of_queue = take(*q, all), of_topic = take(*s, all_of_topic);
            in_queue.check_here(of_queue, all);
            in_topic.check_here(of_topic, all_of_topic);
            if (writes) { CHECK(j->verify().intact); }
        }
        close_all();
        for (int life = 0; life < 2; ++life) {
            CAPTURE(life);
            open_all();
            CHECK(j->recovered().damages.empty());
            for (const std::string& xid : j->in_doubt()) { j->rollback(xid); }
            bool all = true;
            in_queue.check_later(take(*q, all));
            in_topic.check_later(take(*s, all));
            CHECK(all);
            held.clear();
            send(90'000 + life), publish(90'000 + life);
            CHECK(j->verify().intact);
            close_all();
        }
    }
};

/// Lets each allocation of `act` fail in turn, on a copy of the disk that `prepare` left.
template <class Prepare, class Act>
void whichever_fails(const char* name, durability d, bool is_open, bool is_killed, Prepare prepare, Act act) {
    CAPTURE(std::string(name));
    world before(d);
    before.open_all();
    prepare(before);
    simulated_files left;
    if (is_killed) {
        before.j->flush();
        left = before.disk.disk().clone();
        left.process_kill();
    }
    before.close_all();
    if (!is_killed) { left = before.disk.disk().clone(); }

    for (const bool and_all_after : {false, true}) {
        bool failed = true;
        const long step = std::max(1L, 1000L / static_cast<long>(support::scaled(1000))); // MAILROOM_TEST_SCALE: each so-manieth, others each time
        long n = static_cast<long>(support::seed() % static_cast<std::uint64_t>(step));
        for (; failed; n += step) {
            CAPTURE(n);
            CAPTURE(and_all_after);
            const std::size_t live = allocations_live();
            {
                world w(d, files(left.clone()));
                w.in_queue = before.in_queue, w.in_topic = before.in_topic;
                if (is_open) { w.open_all(); }
                w.nth = n, w.and_all_after = and_all_after;
                act(w);
                failed = w.failed;
                w.check();
            }
            REQUIRE(allocations_live() == live);
        }
        CHECK(n > 10);
    }
}

/// Some of each, of which one is settled.
const auto some = [](world& w) {
    for (int i = 0; i < 6; ++i) { w.send(i, 200, {.key = i % 2 == 0 ? "a key that takes memory of its own" : ""}), w.publish(i); }
    w.send(6, 100, {.id = "an identity that takes memory of its own", .time_to_live = 24h});
    auto d = w.q->try_receive();
    REQUIRE(d);
    w.in_queue.settled(number_of(**d));
    d->ack();
    auto e = w.s->try_receive();
    REQUIRE(e);
    w.in_topic.settled(number_of(**e));
    e->ack();
};
/// As much as fills some segments.
const auto much = [](world& w) {
    some(w);
    for (int i = 100; i < 110; ++i) { w.send(i, 20'000); }
};

} // namespace

TEST_CASE("journal allocation: opening") {
    const auto open = [](world& w) { w.attempt([&] { w.open_all(); }); };
    {
        world warm(durability::commit);
        warm.open_all();
    }
    SUBCASE("what was closed") { whichever_fails("closed", durability::commit, false, false, some, open); }
    SUBCASE("what was killed") { whichever_fails("killed", durability::commit, false, true, some, open); }
    SUBCASE("several segments, killed") { whichever_fails("segments", durability::commit, false, true, much, open); }
    SUBCASE("a new one") {
        for (const bool and_all_after : {false, true}) {
            bool failed = true;
            for (long n = 0; failed; ++n) {
                CAPTURE(n);
                CAPTURE(and_all_after);
                const std::size_t live = allocations_live();
                {
                    world w(durability::commit);
                    w.nth = n, w.and_all_after = and_all_after;
                    w.attempt([&] { w.open_all(); });
                    failed = w.failed;
                    w.check();
                }
                REQUIRE(allocations_live() == live);
            }
        }
    }
}

TEST_CASE("journal allocation: sending") {
    for (const durability d : {durability::commit, durability::write, durability::none}) {
        CAPTURE(static_cast<int>(d));
        whichever_fails("send", d, true, false, some, [](world& w) {
            w.send(10);
            w.send(11, 300, {.key = "a key that takes memory of its own", .id = "another identity with memory of its own", .delay = 1s});
            std::vector<std::string> three;
            for (int i = 12; i < 15; ++i) { three.push_back(text_of(i)); }
            if (w.attempt([&] { w.q->send_many(three); })) {
                for (int i = 12; i < 15; ++i) { w.in_queue.accepted(i); }
            }
            for (int i = 15; i < 18; ++i) {
                std::string text = text_of(i);
                std::optional<mailroom::receipt> r;
                const bool placed = w.attempt([&] { r.emplace(w.q->send_async(std::move(text))); });
                if (placed && w.attempt([&] { r->wait(); })) { w.in_queue.accepted(i); }
            }
            for (int i = 10; i < 13; ++i) { w.publish(i); }
            std::optional<mailroom::producer<std::string>> p;
            w.attempt([&] { p.emplace(*w.q, "a producer whose name takes memory"); });
            for (int i = 20; p && i < 22; ++i) {
                std::string text = text_of(i);
                if (w.attempt([&] { p->send_as(static_cast<std::uint64_t>(i), std::move(text)); })) { w.in_queue.accepted(i); }
            }
        });
    }
}

TEST_CASE("journal allocation: receiving and settling") {
    whichever_fails("settle", durability::commit, true, false, some, [](world& w) {
        for (int i = 0; i < 6; ++i) {
            std::optional<delivery> d;
            w.attempt([&] { d = w.q->try_receive(); });
            if (!d) { continue; }
            const int number = number_of(**d);
            bool acked = false;
            w.attempt([&] {
                switch (i) {
                case 0: acked = d->ack(); break;
                case 1: d->nack(); break;
                case 2: acked = d->reject("a reason that does not fit into a short string"); break;
                case 3: d->nack(1s); break;
                case 4: d->release(); break;
                default: break;
                }
                d.reset();
            });
            if (acked) { w.in_queue.settled(number); }
        }
        {
            std::optional<mailroom::message<std::string>> m;
            w.attempt([&] { m = w.q->try_pop(); });
            if (m) { w.in_queue.settled(number_of(m->body())); }
            m.reset();
            w.attempt([&] { m = w.s->try_pop(); });
            if (m) { w.in_topic.settled(number_of(m->body())); }
        }
        {
            std::optional<delivery> d;
            w.attempt([&] { d = w.s->try_receive(); });
            const int number = d ? number_of(**d) : -1;
            bool acked = false;
            w.attempt([&] { acked = d && d->ack(); });
            if (acked) { w.in_topic.settled(number); }
        }
        w.attempt([&] { w.j->flush(); });
    });
}

TEST_CASE("journal allocation: receiving what was there at an unclean stop") {
    whichever_fails("suspects", durability::commit, true, true, some, [](world& w) {
        for (int i = 0; i < 3; ++i) {
            std::optional<delivery> d;
            w.attempt([&] { d = w.q->try_receive(); });
            if (d) { w.held.push_back(std::move(*d)); }
        }
        w.attempt([&] { w.held.clear(); });
        w.attempt([&] { w.j->flush(); });
    });
}

TEST_CASE("journal allocation: a backlog that is noted, and loaded later") {
    const auto many = [](world& w) {
        some(w);
        for (int i = 200; i < 300; ++i) { w.send(i, 50); }
        w.send(300, 50, {.time_to_live = 24h}); // so all before it is looked at
    };
    whichever_fails("backlog", durability::none, true, false, many, [](world& w) {
        w.attempt([&] { static_cast<void>(w.q->statistics()); });
        for (int i = 0; i < 3; ++i) {
            std::optional<delivery> d;
            w.attempt([&] { d = w.q->try_receive(); });
            if (!d) { continue; }
            const int number = number_of(**d);
            bool acked = false;
            w.attempt([&] { acked = d->ack(); });
            if (acked) { w.in_queue.settled(number); }
        }
        for (int i = 0; i < 100; ++i) { // also of those that were only noted
            std::optional<mailroom::message<std::string>> m;
            w.attempt([&] { m = w.q->try_pop(); });
            if (m) { w.in_queue.settled(number_of(m->body())); }
        }
        w.attempt([&] { w.q->browse([](const mailroom::message<std::string>&, mailroom::message_state) { return true; }); });
        w.attempt([&] { w.j->flush(); });
    });
}

TEST_CASE("journal allocation: seeking") {
    whichever_fails("seek", durability::commit, true, false, some, [](world& w) {
        w.attempt([&] { w.s->seek(mailroom::start::earliest); });
        std::optional<delivery> d;
        w.attempt([&] { d = w.s->try_receive(); });
        d.reset();
        for (int i = 0; i < 6; ++i) { w.in_topic.unsure(i); } // settled once, or not
    });
}

TEST_CASE("journal allocation: transactions") {
    whichever_fails("transaction", durability::commit, true, false, some, [](world& w) {
        std::optional<delivery> d;
        w.attempt([&] { d = w.q->try_receive(); });
        const int number = d ? number_of(**d) : -1;
        std::optional<mailroom::transaction> tx;
        bool acked = false;
        const bool done = w.attempt([&] {
            tx.emplace(*w.j);
            tx->send(*w.q, text_of(30));
            tx->send(*w.q, text_of(31), {.id = "an identity of a transaction, with memory"});
            tx->publish(*w.t, text_of(30));
            acked = d && tx->ack(*d);
            tx->commit();
        });
        tx.reset();
        if (done) {
            w.in_queue.accepted(30), w.in_queue.accepted(31), w.in_topic.accepted(30);
            if (acked) { w.in_queue.settled(number); }
        }
    });
}

TEST_CASE("journal allocation: transactions in two phases") {
    for (const bool commit : {true, false}) {
        CAPTURE(commit);
        whichever_fails("prepared", durability::commit, true, false, some, [commit](world& w) {
            std::optional<delivery> d;
            w.attempt([&] { d = w.q->try_receive(); });
            const int number = d ? number_of(**d) : -1;
            std::optional<mailroom::transaction> tx;
            bool acked = false;
            const bool prepared = w.attempt([&] {
                tx.emplace(*w.j);
                tx->send(*w.q, text_of(30));
                tx->send(*w.q, text_of(31), {.id = "an identity of a transaction, with memory"});
                tx->publish(*w.t, text_of(30));
                acked = d && tx->ack(*d);
                tx->prepare("the name of a transaction that takes memory");
            });
            tx.reset();
            d.reset();
            if (!prepared) { return; }
            const bool decided = w.attempt([&] {
                if (commit) {
                    w.j->commit("the name of a transaction that takes memory");
                } else {
                    w.j->rollback("the name of a transaction that takes memory");
                }
            });
            if (decided && commit) {
                w.in_queue.accepted(30), w.in_queue.accepted(31), w.in_topic.accepted(30);
                if (acked) { w.in_queue.settled(number); }
            }
            if (!decided) {               // then it is in doubt still, and may be decided
                w.may_be_left_out = true; // it is out
                w.nth = -1;
                if (w.can_write()) { CHECK(w.j->in_doubt().size() == 1); }
            }
        });
    }
}

TEST_CASE("journal allocation: segments, checkpoints and space given back") {
    whichever_fails("upkeep", durability::commit, true, false, much, [](world& w) {
        for (int i = 200; i < 206; ++i) { w.send(i, 20'000); }
        for (int i = 0; i < 14; ++i) {
            std::optional<mailroom::message<std::string>> m;
            w.attempt([&] { m = w.q->try_pop(); });
            if (m) { w.in_queue.settled(number_of(m->body())); }
        }
        for (int i = 206; i < 212; ++i) { w.send(i, 20'000); }
    });
}

TEST_CASE("journal allocation: what survives a segment is copied elsewhere, and read from there") {
    whichever_fails("survivors", durability::commit, true, false, much, [](world& w) {
        {
            auto kept = w.q->try_receive();
            while (auto m = w.q->try_pop()) { w.in_queue.settled(number_of(m->body())); }
            if (kept) { kept->release(); }
        }
        for (int i = 0; i < 2; ++i) { // the second time, or that of others, it works
            w.attempt([&] { w.j->compact(); });
        }
        w.send(300, 100);
        bool intact = true;
        w.attempt([&] { intact = w.j->verify().intact; });
        CHECK(intact);
        w.attempt([&] { w.close_all(); });
    });
}

TEST_CASE("journal allocation: verify, compact, and the end") {
    whichever_fails("verify", durability::commit, true, false, much, [](world& w) {
        for (int i = 0; i < 12; ++i) {
            if (auto m = w.q->try_pop()) { w.in_queue.settled(number_of(m->body())); }
        }
        bool intact = true;
        w.attempt([&] { intact = w.j->verify().intact; });
        CHECK(intact);
        w.attempt([&] { w.j->compact(); });
        w.attempt([&] { w.close_all(); });
    });
}
