// Real processes that are really killed, at any moment: what they said of their messages through a pipe before they died is held against what
// the next one finds. MAILROOM_KILL_CYCLES says how many are to die (300 times MAILROOM_TEST_SCALE; 10000 for a night).
#if defined(__unix__) || defined(__APPLE__)

# include <mailroom/journal.hpp>

# include "support/directory.hpp"
# include "support/journal_oracle.hpp"
# include "support/process.hpp"
# include "support/random.hpp"

# include <doctest/doctest.h>

# include <unistd.h>

# include <array>
# include <chrono>
# include <cstddef>
# include <cstdint>
# include <cstdlib>
# include <cstring>
# include <filesystem>
# include <map>
# include <optional>
# include <string>
# include <thread>
# include <vector>

using mailroom::durability;
using support::parcel;
using support::parcel_id;
using namespace std::chrono_literals;

namespace {

using stored = mailroom::queue<std::string, mailroom::journal>;

constexpr unsigned senders = 2; // the ids of each rise, and are its own by their remainder

// What a process says.
struct report {
    enum { opened, sends, sent, acks, acked, settled, trouble } what;
    unsigned id;
    std::uint64_t at;
    char text[112];
};

// --------------------------------------------------------------------------------------------------------------- the one that is killed

struct task {
    std::filesystem::path where;
    mailroom::durability promise;
    std::uint64_t seed;
    std::array<unsigned, senders> last; // ids that were used
    bool has_threads;
};

void say(int to, decltype(report::what) what, unsigned id = 0, std::uint64_t at = 0, const char* text = "") noexcept {
    report r{};
    r.what = what;
    r.id = id;
    r.at = at;
    std::strncpy(r.text, text, sizeof r.text - 1);
    support::say(to, r);
}

void send_one(stored& q, int to, support::dice& chance, unsigned& last) {
    const auto body = [&](unsigned id) { return parcel(id, chance.percent(30) ? 2000 + chance.below(4000) : chance.below(300)); };
    if (chance.percent(10)) { // all or none
        std::vector<std::string> some;
        std::vector<unsigned> ids;
        for (unsigned i = 0, n = 2 + chance.below(4); i < n; ++i) {
            ids.push_back(last += senders);
            some.push_back(body(last));
            say(to, report::sends, last, ids.front());
        }
        const mailroom::offset at = q.send_many(std::move(some));
        for (std::size_t i = 0; i < ids.size(); ++i) { say(to, report::sent, ids[i], at + i); }
        return;
    }
    const unsigned id = last += senders;
    say(to, report::sends, id);
    if (chance.percent(20)) {
        const auto receipt = q.send_async(body(id));
        say(to, report::sent, id, receipt.wait());
    } else {
        say(to, report::sent, id, q.send(body(id)));
    }
}
void receive_one(stored& q, int to, support::dice& chance) {
    auto d = q.try_receive();
    if (!d) { return; }
    const unsigned id = parcel_id(d->body());
    switch (chance.below(8)) {
    case 0: d->nack(0s); return;
    case 1: d->release(); return;
    case 2:
    case 3:
        say(to, report::acks, id);
        d->ack_async().wait();
        say(to, report::settled, id);
        return;
    default:
        say(to, report::acks, id);
        d->ack();
        say(to, report::acked, id);
    }
}

[[noreturn]] void live(const task& t, int to) noexcept {
    try {
        mailroom::journal j(t.where, {.durability = t.promise, .segment_bytes = 64 << 10});
        stored q(j, "q", {.lease = 0s, .retry = {.max_attempts = 0}});
        if (!j.recovered().damages.empty()) { say(to, report::trouble, 0, 0, j.recovered().damages.front().what.c_str()); }
        say(to, report::opened);
        const auto work = [&](unsigned which, unsigned sends) {
            try {
                support::dice chance(t.seed * 31 + which);
                unsigned last = t.last[which % senders];
                for (;;) {
                    const bool crowded = q.statistics().ready > 150;
                    if (which < senders && chance.percent(crowded ? 10 : sends)) {
                        send_one(q, to, chance, last);
                    } else {
                        receive_one(q, to, chance);
                    }
                    if (chance.below(300) == 0) { j.compact(); }
                }
            } catch (const std::exception& e) { say(to, report::trouble, 0, 0, e.what()); }
        };
        if (t.has_threads) {
            std::thread(work, 1u, 60u).detach();
            std::thread(work, senders, 0u).detach();
        }
        work(0, 50);
    } catch (const std::exception& e) { say(to, report::trouble, 0, 0, e.what()); }
    ::_exit(1);
}

// ------------------------------------------------------------------------------------------------------------------- the one that looks

struct fate {
    bool sent = false;
    std::optional<mailroom::offset> at;
    unsigned group = 0;
    bool acking = false, settled = false;
};

class world {
public:
    std::array<unsigned, senders> last{};
    std::string trouble;
    std::uint64_t events = 0;

    void hear(const report& r) {
        ++events;
        switch (r.what) {
        case report::opened: break;
        case report::sends:
            fates_[r.id].group = static_cast<unsigned>(r.at);
            last[r.id % senders] = r.id;
            break;
        case report::sent:
            fates_[r.id].sent = true;
            fates_[r.id].at = r.at;
            break;
        case report::acks: fates_[r.id].acking = true; break;
        case report::acked: break;
        case report::settled: fates_[r.id].settled = true; break;
        case report::trouble: trouble = r.text; break;
        }
    }
    // Opens what is left. Returns what is wrong.
    std::string look(const std::filesystem::path& where) {
        if (!trouble.empty()) { return "the process said: " + trouble; }
        try {
            mailroom::journal j(where, {.segment_bytes = 64 << 10});
            support::open_well(j);
            stored q(j, "q", {.lease = 0s, .retry = {.max_attempts = 0}});
            const auto found = support::look_into(q);
            if (!found.dead.empty()) { return "there are dead letters"; }
            std::map<unsigned, mailroom::offset> there;
            std::array<unsigned, senders> before{};
            for (const auto& [at, id] : found.alive) {
                const std::string name = "message " + std::to_string(id);
                const auto known = fates_.find(id);
                if (known == fates_.end()) { return name + " was never sent, or was settled long ago"; }
                if (!there.emplace(id, at).second) { return name + " is there twice"; }
                if (known->second.settled) { return name + " was settled, and is there"; }
                if (known->second.at && *known->second.at != at) { return name + " has another offset than it had"; }
                if (id <= before[id % senders]) { return name + " is out of order"; }
                before[id % senders] = id;
            }
            std::map<unsigned, unsigned> groups; // 1: some are there, 2: some are not
            for (const auto& [id, f] : fates_) {
                const bool is_there = there.contains(id);
                if (!is_there && f.sent && !f.acking) { return "message " + std::to_string(id) + " is lost"; }
                if (f.group != 0 && !f.acking && !f.sent) { groups[f.group] |= is_there ? 1u : 2u; }
            }
            for (const auto& [group, parts] : groups) {
                if (parts == 3) { return "of what was sent at once from " + std::to_string(group) + " on a part is there"; }
            }
            std::map<unsigned, fate> left; // whatever is not there now has gone for good
            for (const auto& [id, at] : there) {
                fate& f = left[id];
                f.sent = true;
                f.at = at;
            }
            fates_ = std::move(left);
            if (++looks_ % 20 == 0) { support::verify_well(j); }
        } catch (const std::exception& e) { return e.what(); }
        return {};
    }

private:
    std::map<unsigned, fate> fates_;
    unsigned looks_ = 0;
};

std::size_t cycles() {
    const char* const text = std::getenv("MAILROOM_KILL_CYCLES");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : support::scaled(300);
}

} // namespace

TEST_CASE("journal kill: while a process has the directory open nobody else has; once it is killed anybody may") {
    const support::directory d;
    const auto where = d / "journal";
    support::process owner([&](int to) { live({where, durability::commit, 1, {0, 1}, false}, to); });
    report r{};
    REQUIRE(owner.hear(r));
    CHECK(r.what == report::opened);
    CHECK_THROWS_WITH_AS(mailroom::journal{where}, doctest::Contains(where.c_str()), mailroom::error);
    try {
        const mailroom::journal second(where);
    } catch (const mailroom::error& e) { CHECK(e.kind() == mailroom::errc::in_use); }
    owner.kill();
    owner.wait();
    CHECK_NOTHROW(mailroom::journal{where});
}

TEST_CASE("journal kill: processes are killed at any moment; nothing is lost, invented, twice or out of order") {
    const auto seed = support::seed();
    CAPTURE(seed);
    support::dice chance(seed);
    const support::directory d;
    world w;
    for (unsigned i = 0; i < senders; ++i) { w.last[i] = i; }
    for (std::size_t cycle = 0, n = cycles(); cycle < n; ++cycle) {
        CAPTURE(cycle);
        const task t{d / "journal", chance.percent(50) ? durability::commit : durability::write, seed + cycle, w.last, chance.percent(50)};
        const auto act = [&](int to) { live(t, to); };
        const auto hear = [&](const report& r) { w.hear(r); };
        if (chance.percent(15)) { // while it opens, or soon after
            support::live_and_die<report>(act, SIZE_MAX, std::chrono::microseconds(chance.below(3000)), hear);
        } else {
            support::live_and_die<report>(act, chance.below(300), 60ms, hear);
        }
        const std::string wrong = w.look(t.where);
        REQUIRE(wrong == "");
    }
    CHECK(w.events > cycles() * 10);
    MESSAGE(w.events << " words heard");
}

#endif
