// Queues and topics of a journal against their reference models: what those in memory do, and what is still so after the journal was closed
// and opened again. The model of queues is support/model.hpp. What opening again adds to its sentences:
//
//  18. What was in flight is ready at once, with the attempt it was handed out with; who held it can settle it no more.
//  19. Everything else is as it was: offsets, places, delays, retries, attempts, dead letters, known ids, times to live. Pausing and closing
//      are forgotten, and so is how often a duplicate or, by drop_newest, a message too many was not taken.
#include "support/drivers.hpp"
#include "support/stored.hpp"

#include <mailroom/journal.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace support;

namespace {

/// The model, which can be opened again.
class lasting_model : public model {
public:
    lasting_model(const settings& o, weigher w) : model(o, w) { latest = this; }
    void reopen() {
        for (auto& [place, e] : alive_) {
            if (e.state == message_state::in_flight) { back(e, e.attempt, now_); }
            e.holder = 0;
        }
        lapses_.clear(), extended_.clear();
        for (auto& e : dead_) { e.holder = 0; }
        paused_ = closed_ = false;
        step();
    }
    static inline lasting_model* latest = nullptr;

    /// After each operation: who extended a lease after it had lapsed? Whether that lapse counts after the next opening is not said.
    void note_lapses() {
        for (const auto& [place, e] : alive_) {
            if (e.holder == 0) { continue; }
            if (e.state != message_state::in_flight) {
                lapses_[place] = e.holder;
            } else if (const auto l = lapses_.find(place); l != lapses_.end() && l->second == e.holder) {
                extended_[place] = e.holder;
            }
        }
    }
    bool may_reopen() const {
        return std::none_of(extended_.begin(), extended_.end(), [&](const auto& one) {
            const auto e = alive_.find(one.first);
            return e != alive_.end() && e->second.holder == one.second;
        });
    }

private:
    std::map<offset, std::uint64_t> lapses_, extended_; // of whose deliveries
};

/// The face of a queue in a journal, which can be opened again: both, or the queue alone.
template <class T>
class lasting_queue {
public:
    explicit lasting_queue(const mailroom::queue_options<T>& o) : options_(o) {
        latest = this;
        open();
    }
    void reopen(unsigned how) {
        switch (how % 4) {
        case 0: queue_.reset(); break; // the journal stays
        case 1: queue_.reset(), journal_.reset(); break;
        case 2: journal_.reset(), queue_.reset(); break;
        default: {
            const std::optional<mailroom::queue<T, simulated_journal>> other(std::in_place, *journal_, "queue", options_); // a second handle
            queue_.reset();
            journal_.reset();
        }
        }
        open();
    }

    template <class... A>
    auto try_send(A&&... a) {
        return queue_->try_send(std::forward<A>(a)...);
    }
    template <class... A>
    auto send_for(A&&... a) {
        return queue_->send_for(std::forward<A>(a)...);
    }
    template <class... A>
    auto send(A&&... a) {
        return queue_->send(std::forward<A>(a)...);
    }
    template <class... A>
    auto emplace(A&&... a) {
        return queue_->emplace(std::forward<A>(a)...);
    }
    template <class... A>
    auto send_async(A&&... a) {
        return queue_->send_async(std::forward<A>(a)...);
    }
    template <class A>
    auto send_many(A&& a) {
        return queue_->send_many(std::forward<A>(a));
    }
    auto try_receive() { return queue_->try_receive(); }
    auto receive_for(duration d) { return queue_->receive_for(d); }
    auto receive_many(std::vector<mailroom::delivery<T>>& list, std::size_t n) { return queue_->receive_many(list, n); }
    auto try_pop() { return queue_->try_pop(); }
    auto pop_for(duration d) { return queue_->pop_for(d); }
    template <class Out>
    auto pop_many(Out out, std::size_t n) {
        return queue_->pop_many(out, n);
    }
    template <class Fn>
    void browse(Fn fn) const {
        queue_->browse(fn);
    }
    auto& dead() { return queue_->dead(); }
    auto statistics() const { return queue_->statistics(); }
    auto purge() { return queue_->purge(); }
    void pause() { queue_->pause(); }
    void resume() { queue_->resume(); }
    void close() { queue_->close(); }
    bool drain(duration d) { return queue_->drain(d); }

    static inline lasting_queue* latest = nullptr;
    static inline mailroom::durability durability = mailroom::durability::none;

private:
    void open() {
        if (!journal_) {
            journal_.emplace("journal", mailroom::journal_options{.durability = durability, .segment_bytes = 1 << 16, .clock = options_.clock},
                             disk_);
        }
        queue_.emplace(*journal_, "queue", options_);
    }

    const mailroom::queue_options<T> options_;
    mailroom::testing::simulated_files disk_;
    std::optional<simulated_journal> journal_;
    std::optional<mailroom::queue<T, simulated_journal>> queue_;
};

struct step {
    operation op = operation();
    bool reopens = false;
};
struct parting {
    std::vector<step> list;
    std::string expected, actual;
};

template <class T>
std::optional<parting> part(const settings& o, const std::vector<step>& list) {
    using expecting_hands = model_hands<lasting_model>;
    using tested_hands = queue_hands<T, lasting_queue<T>>;
    driver<expecting_hands> expecting(o, weight_of<T>);
    lasting_model& m = *lasting_model::latest;
    driver<tested_hands> tested(o);
    lasting_queue<T>& q = *lasting_queue<T>::latest;
    operation look;
    look.what = verb::browse;
    for (std::size_t i = 0; i < list.size(); ++i) {
        if (list[i].reopens && m.may_reopen()) {
            m.reopen();
            q.reopen(list[i].op.how);
        }
        const operation& op = list[i].reopens ? look : list[i].op;
        std::string expected = expecting.apply(op), actual = tested.apply(op);
        m.note_lapses();
        if (expected != actual) { return parting{{list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i) + 1}, expected, actual}; }
    }
    std::string expected = expecting.end(), actual = tested.end();
    if (expected != actual) { return parting{list, "at the end: " + expected, actual}; }
    return std::nullopt;
}

template <class T>
bool run(std::uint64_t seed, const settings& o, int length) {
    dice d(seed);
    constexpr mailroom::durability promises[] = {mailroom::durability::none, mailroom::durability::write, mailroom::durability::commit};
    lasting_queue<T>::durability = promises[d.below(3)];
    std::vector<step> list;
    for (auto& op : draw(d, o, length)) { list.push_back({std::move(op), d.percent(5)}); }
    auto found = part<T>(o, list);
    if (!found) { return true; }
    found = shorten(std::move(*found), [&](const auto& fewer) { return part<T>(o, fewer); });
    std::string report = "\nsettings: " + text_of(o) + "\n";
    for (const step& s : found->list) { report += "  " + (s.reopens ? "reopen (" + std::to_string(s.op.how % 4) + ")" : text_of(s.op)) + "\n"; }
    report += "expected: " + found->expected + "\nactual:   " + found->actual;
    FAIL_CHECK("MAILROOM_TEST_SEED=", seed, report);
    return false;
}

template <class T>
bool run_random_settings(std::uint64_t seed) {
    dice d(seed);
    const unsigned chance = d.below(4) * 15;
    return run<T>(seed, draw_settings(d, chance), d.between(20, 200));
}

} // namespace

TEST_CASE("journal queue: does what the model does, opened again and again, each option alone") {
    for (const auto& [name, o] : each_option_alone()) {
        CAPTURE(name);
        for_each_seed(20, [&](std::uint64_t seed) { return run<int>(seed, o, 150) && run<tracked>(seed + 1000, o, 150); });
    }
    CHECK(tracked::live() == 0);
    CHECK(tracked::faults() == 0);
}

TEST_CASE("journal queue: does what the model does, opened again and again, options mixed") {
    for_each_seed(300, run_random_settings<int>);
    for_each_seed(300, run_random_settings<tracked>);
    CHECK(tracked::live() == 0);
    CHECK(tracked::faults() == 0);
}
