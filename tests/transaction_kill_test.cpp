// Real processes that are really killed in the middle of transactions, at any moment: each message is in exactly one place of a pipeline
// afterwards. MAILROOM_KILL_CYCLES says how many are to die (100 times MAILROOM_TEST_SCALE; 10000 for a night).
#if defined(__unix__) || defined(__APPLE__)

# include <mailroom/journal.hpp>
# include <mailroom/transaction.hpp>

# include "support/directory.hpp"
# include "support/journal_oracle.hpp"
# include "support/process.hpp"
# include "support/random.hpp"

# include <doctest/doctest.h>

# include <unistd.h>

# include <algorithm>
# include <chrono>
# include <cstddef>
# include <cstdint>
# include <cstdlib>
# include <cstring>
# include <filesystem>
# include <map>
# include <set>
# include <string>
# include <thread>
# include <utility>
# include <vector>

using mailroom::durability;
using mailroom::transaction;
using support::parcel;
using support::parcel_id;
using namespace std::chrono_literals;

namespace {

using stored_queue = mailroom::queue<std::string, mailroom::journal>;
using stored_topic = mailroom::topic<std::string, mailroom::journal>;

// What a process says.
struct report {
    enum { sends, sent, decides, works, trouble } what; // `decides`: that a prepared transaction is to be committed
    unsigned id;
    char text[112];
};

/// in -> topic -> out
struct pipeline {
    explicit pipeline(const std::filesystem::path& where, durability d)
        : journal(where, {.durability = d, .segment_bytes = 64 << 10}), in(journal, "in", options()), out(journal, "out", options()),
          middle(journal, "middle", {.partitions = 2}),
          worker(middle.subscribe("worker", {.mode = mailroom::sharing::shared, .lease = 0s, .retry = {.max_attempts = 0, .initial = 0s}})) {}
    static mailroom::queue_options<std::string> options() { return {.lease = 0s, .retry = {.max_attempts = 0, .initial = 0s}}; }

    mailroom::journal journal;
    stored_queue in, out;
    stored_topic middle;
    mailroom::subscription<std::string> worker;
};

// --------------------------------------------------------------------------------------------------------------- the one that is killed

struct task {
    std::filesystem::path where;
    mailroom::durability promise;
    std::uint64_t seed;
    unsigned last; // id that was used
    bool has_threads;
};

void say(int to, decltype(report::what) what, unsigned id = 0, const char* text = "") noexcept {
    report r{};
    r.what = what;
    r.id = id;
    std::strncpy(r.text, text, sizeof r.text - 1);
    support::say(to, r);
}

void finish(pipeline& p, transaction& tx, int to, support::dice& chance, const std::string& xid) {
    switch (chance.below(8)) {
    case 0: tx.rollback(); return;
    case 1: return;
    case 2:
        tx.prepare(xid);
        p.journal.rollback(xid);
        return;
    case 3:
    case 4:
        tx.prepare(xid);
        if (chance.percent(10)) { p.journal.compact(); }
        say(to, report::decides, 0, xid.c_str());
        p.journal.commit(xid);
        return;
    default: tx.commit();
    }
}

[[noreturn]] void live(const task& t, int to) noexcept {
    try {
        pipeline p(t.where, t.promise);
        if (!p.journal.recovered().damages.empty()) { say(to, report::trouble, 0, p.journal.recovered().damages.front().what.c_str()); }
        const auto work = [&](unsigned self) {
            try {
                support::dice chance(t.seed * 31 + self);
                unsigned last = t.last;
                for (unsigned n = 0;; ++n) {
                    const std::string xid = std::to_string(t.seed) + "/" + std::to_string(self) + "/" + std::to_string(n);
                    if (self == 0 && p.in.statistics().ready < 20 && chance.percent(50)) {
                        const unsigned id = ++last;
                        say(to, report::sends, id);
                        p.in.send(parcel(id, chance.percent(10) ? 2000 + chance.below(4000) : chance.below(200)));
                        say(to, report::sent, id);
                        continue;
                    }
                    transaction tx(p.journal);
                    const bool first = chance.percent(50);
                    for (unsigned k = 1 + chance.below(3); k != 0; --k) {
                        auto d = first ? p.in.try_receive() : p.worker.try_receive();
                        if (!d) { break; }
                        if (first) {
                            tx.publish(p.middle, d->body());
                        } else {
                            tx.send(p.out, d->body());
                        }
                        tx.ack(std::move(*d));
                    }
                    if (tx.size() == 0) { continue; }
                    finish(p, tx, to, chance, xid);
                    say(to, report::works);
                }
            } catch (const std::exception& e) { say(to, report::trouble, 0, e.what()); }
        };
        if (t.has_threads) { std::thread(work, 1u).detach(); }
        work(0);
    } catch (const std::exception& e) { say(to, report::trouble, 0, e.what()); }
    ::_exit(1);
}

// ------------------------------------------------------------------------------------------------------------------- the one that looks

class world {
public:
    unsigned last = 0;
    std::uint64_t events = 0, handed_on = 0, doubts = 0;

    void hear(const report& r) {
        ++events;
        switch (r.what) {
        case report::sends:
            last = r.id;
            maybe_ = r.id;
            break;
        case report::sent:
            on_the_way_.insert(r.id);
            maybe_ = 0;
            break;
        case report::decides: decided_.insert(r.text); break;
        case report::works: break;
        case report::trouble: trouble_ = r.text; break;
        }
    }
    // Opens what is left, decides what is in doubt, takes what came out. Returns what is wrong.
    std::string look(const std::filesystem::path& where) {
        if (!trouble_.empty()) { return "the process said: " + trouble_; }
        try {
            std::map<unsigned, unsigned> there;
            pipeline p(where, durability::write);
            support::open_well(p.journal);
            for (const std::string& xid : p.journal.in_doubt()) {
                ++doubts;
                decided_.contains(xid) ? p.journal.commit(xid) : p.journal.rollback(xid);
            }
            decided_.clear();
            std::vector<mailroom::delivery<std::string>> held;
            const auto note = [&](auto& from) {
                while (auto d = from.try_receive()) {
                    ++there[parcel_id(d->body())];
                    held.push_back(std::move(*d));
                }
            };
            note(p.in);
            note(p.worker);
            for (auto& d : held) { d.release(); }
            held.clear();
            note(p.out);
            for (const auto& [id, times] : there) {
                if (times != 1) { return "message " + std::to_string(id) + " is there " + std::to_string(times) + " times"; }
                if (id == maybe_) {
                    on_the_way_.insert(id);
                } else if (!on_the_way_.contains(id)) {
                    return "message " + std::to_string(id) + " was never sent, or came out before";
                }
            }
            for (const unsigned id : on_the_way_) {
                if (!there.contains(id)) { return "message " + std::to_string(id) + " is lost"; }
            }
            maybe_ = 0;
            transaction tx(p.journal);
            for (auto& d : held) {
                on_the_way_.erase(parcel_id(d.body()));
                tx.ack(std::move(d));
                ++handed_on;
            }
            tx.commit();
            if (++looks_ % 20 == 0) { support::verify_well(p.journal); }
        } catch (const std::exception& e) { return e.what(); }
        return {};
    }

private:
    std::set<unsigned> on_the_way_;
    unsigned maybe_ = 0; // is on the way, or was never sent
    std::set<std::string> decided_;
    std::string trouble_;
    unsigned looks_ = 0;
};

std::size_t cycles() {
    const char* const text = std::getenv("MAILROOM_KILL_CYCLES");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : support::scaled(100);
}

} // namespace

TEST_CASE("transaction kill: processes are killed at any moment; each message is in one place, and comes out once") {
    const auto seed = support::seed();
    CAPTURE(seed);
    support::dice chance(seed);
    const support::directory d;
    world w;
    const std::size_t n = cycles();
    for (std::size_t cycle = 0; cycle < n; ++cycle) {
        CAPTURE(cycle);
        const task t{d / "journal", chance.percent(50) ? durability::commit : durability::write, seed + cycle, w.last, chance.percent(50)};
        const auto act = [&](int to) { live(t, to); };
        const auto hear = [&](const report& r) { w.hear(r); };
        if (chance.percent(15)) { // while it opens, or soon after
            support::live_and_die<report>(act, SIZE_MAX, std::chrono::microseconds(chance.below(5000)), hear);
        } else {
            support::live_and_die<report>(act, chance.below(200), 80ms, hear);
        }
        const std::string wrong = w.look(t.where);
        REQUIRE(wrong == "");
    }
    CHECK(w.handed_on > n);
    MESSAGE(w.events << " words heard, " << w.handed_on << " messages came out, " << w.doubts << " transactions were in doubt");
}

#endif
