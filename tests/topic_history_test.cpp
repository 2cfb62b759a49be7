// Topics under real threads. Publishers, members that join, leave, fail, look away until their leases end and seek, and time that passes beside
// them; everybody writes down what was said. Afterwards the history is checked against what each mode of sharing promises.
//
// A moment is a number from one counter. Those of a delivery are taken inside its hold: after it was received and before it is settled. So two
// deliveries that overlap by the record overlapped indeed, unless a lease ended; and what was settled too late by the record was indeed.
#include "support/crew.hpp"
#include "support/random.hpp"
#include "support/shaking.hpp"
#include "support/tracked.hpp"

#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::offset;
using mailroom::position;
using mailroom::sharing;
using mailroom::start;
using support::dice;
using support::tracked;

namespace {

using moment = std::uint64_t;
constexpr moment never = ~moment{0};

// ------------------------------------------------------------------------------------------------------------------------ what happened

struct published {
    std::string key; // empty: none
    int partition = 0;
    offset at = 0;
    int publisher = 0;
    bool wanted = true; // by the filter
};

enum class end { held, ack, pop, reject, back, dropped }; // back: nacked or released; dropped: destroyed, nobody heard what came of it

struct hold {
    int message = 0; // its number
    int member = 0;
    std::uint32_t attempt = 1;              // 0: not known
    moment asked = 0, got = 0;              // before and after the call that gave it
    moment let_go = never;                  // before the call that settled it; popped: `asked`
    moment gone = never;                    // after that
    duration asked_at{}, got_at{};          // the clock then
    duration extended_at{};                 // the clock before the last `extend` that was granted
    moment extending = 0, extended = never; // before and after that call
    end how = end::held;
    bool said = false;       // what the settlement answered
    bool topic_gone = false; // it was settled after its topic
};

struct membership {
    moment leaving = never; // before the call
};

struct seeking {
    moment begun = 0, done = 0;
    std::optional<position> to; // none: to the earliest
};

struct history {
    sharing mode = sharing::keyed;
    duration lease{}; // zero: for ever
    std::vector<published> messages;
    std::vector<hold> holds;
    std::vector<membership> members;
    std::vector<seeking> seeks;
};

// ------------------------------------------------------------------------------------------------------------------------ was that right

/// Empty: the history keeps every promise. Otherwise which it breaks, in words.
class verdict {
public:
    static std::string of(const history& h) { return verdict(h).ask(); }

private:
    explicit verdict(const history& h) : h_(h), of_message_(h.messages.size()) {
        for (const hold& x : h_.holds) { of_message_[static_cast<std::size_t>(x.message)].push_back(&x); }
        for (auto& list : of_message_) {
            std::sort(list.begin(), list.end(), [](const hold* a, const hold* b) { return a->got < b->got; });
        }
    }
    std::string ask() {
        every_message_is_settled_once();
        what_is_refused_has_a_reason();
        nothing_is_held_twice();
        if (is_ordered()) {
            each_key_is_in_order();
        } else {
            first_deliveries_are_in_order();
        }
        if (h_.mode == sharing::keyed) { a_key_stays_with_its_member(); }
        if (h_.mode == sharing::partitioned) { a_partition_has_one_holder(); }
        if (h_.mode == sharing::failover) { one_is_active(); }
        publishers_are_in_order();
        return wrong_;
    }

    bool is_ordered() const { return h_.mode == sharing::keyed || h_.mode == sharing::partitioned; }
    const published& message(const hold& x) const { return h_.messages[static_cast<std::size_t>(x.message)]; }
    static bool settles(const hold& x) { return x.said && (x.how == end::ack || x.how == end::pop || x.how == end::reject); }

    template <class... Parts>
    void blame(const Parts&... parts) {
        if (!wrong_.empty()) { return; }
        std::ostringstream text;
        (text << ... << parts);
        text << " (mode " << static_cast<int>(h_.mode) << ", lease " << h_.lease / 1ms << " ms, " << h_.seeks.size() << " seeks)";
        wrong_ = text.str();
    }
    std::string describe(const hold& x) const {
        static constexpr std::array names{"held", "acked", "popped", "rejected", "given back", "dropped"};
        std::ostringstream text;
        text << "message " << x.message << " (key " << message(x).key << ", " << message(x).partition << ":" << message(x).at << ") of member "
             << x.member << ", attempt " << x.attempt << " [asked " << x.asked << ", got " << x.got << ", let go " << x.let_go << ", "
             << names[static_cast<std::size_t>(x.how)] << (x.said ? " yes" : " no") << ", clock " << x.asked_at / 1ms << ".." << x.got_at / 1ms
             << " ms";
        if (x.extended != never) { text << ", extended " << x.extending << ".." << x.extended << " at " << x.extended_at / 1ms << " ms"; }
        text << "]";
        return text.str();
    }

    // A seek of a partition at a time between these moments.
    bool sought(int partition, moment from, moment until) const {
        return std::any_of(h_.seeks.begin(), h_.seeks.end(),
                           [&](const seeking& s) { return s.done > from && s.begun < until && (!s.to || s.to->partition == partition); });
    }
    // Whether a seek before `until` may have passed a message over.
    bool skipped(const published& m, moment until) const {
        return std::any_of(h_.seeks.begin(), h_.seeks.end(),
                           [&](const seeking& s) { return s.begun < until && s.to && s.to->partition == m.partition && s.to->offset > m.at; });
    }
    // Whether the hold on `x` may have been over when `y` was given out.
    bool lost(const hold& x, const hold& y) const {
        const bool extended_before = x.extended < y.asked;
        if (h_.lease > duration::zero() && y.got_at >= (extended_before ? x.extended_at : x.asked_at) + h_.lease) { return true; }
        if (h_.members[static_cast<std::size_t>(x.member)].leaving < y.got) { return true; }
        return sought(message(x).partition, x.asked, y.got);
    }
    // Both were held at a time, and no lease had ended.
    bool clash(const hold& x, const hold& y) const {
        const hold& first = x.got < y.got ? x : y;
        const hold& second = x.got < y.got ? y : x;
        if (second.got > first.let_go) { return false; }
        if (first.how == end::pop) { return false; } // settled as it was given
        if (second.how == end::pop && second.asked < first.got) { return false; }
        return !lost(first, second) && !lost(second, first);
    }

    void every_message_is_settled_once() {
        for (std::size_t m = 0; m < of_message_.size(); ++m) {
            if (!h_.messages[m].wanted) {
                if (!of_message_[m].empty()) { blame("not wanted, and delivered: ", describe(*of_message_[m].front())); }
                continue;
            }
            std::vector<const hold*> ends;
            for (const hold* x : of_message_[m]) {
                if (settles(*x)) { ends.push_back(x); }
            }
            if (ends.empty() && !skipped(h_.messages[m], never)) {
                blame("never settled: message ", m, " at ", h_.messages[m].partition, ":", h_.messages[m].at);
            }
            std::sort(ends.begin(), ends.end(), [](const hold* a, const hold* b) { return a->let_go < b->let_go; });
            for (std::size_t i = 1; i < ends.size(); ++i) {
                if (!sought(h_.messages[m].partition, ends[i - 1]->let_go, std::max(ends[i - 1]->gone, ends[i]->gone))) {
                    blame("settled twice: ", describe(*ends[i - 1]), " and ", describe(*ends[i]));
                }
            }
        }
    }
    void what_is_refused_has_a_reason() {
        for (const hold& x : h_.holds) {
            if (x.said || x.topic_gone || x.how == end::held || x.how == end::dropped) { continue; }
            const auto& same = of_message_[static_cast<std::size_t>(x.message)];
            const bool another =
                std::any_of(same.begin(), same.end(), [&](const hold* y) { return y != &x && y->got > x.asked && y->asked < x.gone; });
            if (!another && !sought(message(x).partition, x.asked, x.gone)) { blame("refused without a reason: ", describe(x)); }
        }
    }
    void nothing_is_held_twice() {
        for (const auto& same : of_message_) { no_two_of(same, "held twice at once: "); }
        if (!is_ordered()) { return; }
        for (const auto& [key, list] : by_key()) { no_two_of(list, "two of a key at once: "); }
    }
    void no_two_of(const std::vector<const hold*>& list, const char* what) {
        for (std::size_t i = 0; i < list.size(); ++i) {
            for (std::size_t k = i + 1; k < list.size(); ++k) {
                if (clash(*list[i], *list[k])) { blame(what, describe(*list[i]), " and ", describe(*list[k])); }
            }
        }
    }
    void each_key_is_in_order() {
        std::map<std::string, std::vector<std::size_t>> keys; // in the order of publishing
        for (std::size_t m = 0; m < h_.messages.size(); ++m) {
            if (!h_.messages[m].key.empty() && h_.messages[m].wanted) { keys[h_.messages[m].key].push_back(m); }
        }
        for (auto& [key, list] : keys) {
            std::sort(list.begin(), list.end(), [&](std::size_t a, std::size_t b) { return h_.messages[a].at < h_.messages[b].at; });
            for (std::size_t i = 1; i < list.size(); ++i) {
                for (const hold* later : of_message_[list[i]]) {
                    for (std::size_t k = 0; k < i; ++k) {
                        const auto& before = of_message_[list[k]];
                        const bool settled =
                            std::any_of(before.begin(), before.end(), [&](const hold* x) { return settles(*x) && x->let_go < later->got; });
                        if (!settled && !skipped(h_.messages[list[k]], later->got)) {
                            blame("overtook message ", list[k], " of its key: ", describe(*later));
                        }
                    }
                }
            }
        }
    }
    void first_deliveries_are_in_order() {
        if (!h_.seeks.empty()) { return; }
        std::map<int, std::vector<const hold*>> firsts;
        for (std::size_t m = 0; m < of_message_.size(); ++m) {
            if (!of_message_[m].empty()) { firsts[h_.messages[m].partition].push_back(of_message_[m].front()); }
        }
        for (auto& [partition, list] : firsts) {
            std::sort(list.begin(), list.end(), [&](const hold* a, const hold* b) { return message(*a).at < message(*b).at; });
            for (std::size_t i = 0; i < list.size(); ++i) {
                if (list[i]->attempt != 1) { continue; } // its lease ended before while a filter was asked, and nobody saw it
                for (std::size_t k = i + 1; k < list.size(); ++k) {
                    // All that were given the earlier one asked for it when the later one was out already.
                    const auto& earlier = of_message_[static_cast<std::size_t>(list[i]->message)];
                    if (std::all_of(earlier.begin(), earlier.end(), [&](const hold* x) { return x->asked > list[k]->got; })) {
                        blame("out of order: ", describe(*list[k]), " before ", describe(*list[i]));
                    }
                }
            }
        }
    }
    void a_key_stays_with_its_member() {
        for (const auto& [key, list] : by_key()) {
            for (std::size_t i = 1; i < list.size(); ++i) {
                const hold &before = *list[i - 1], &after = *list[i];
                if (before.member != after.member && h_.members[static_cast<std::size_t>(before.member)].leaving > after.got) {
                    blame("its key belonged to another: ", describe(before), " then ", describe(after));
                }
            }
        }
    }
    void a_partition_has_one_holder() {
        for (std::size_t i = 0; i < h_.holds.size(); ++i) {
            for (std::size_t k = i + 1; k < h_.holds.size(); ++k) {
                const hold &x = h_.holds[i], &y = h_.holds[k];
                if (x.member != y.member && message(x).partition == message(y).partition && clash(x, y)) {
                    blame("two in a partition: ", describe(x), " and ", describe(y));
                }
            }
        }
    }
    void one_is_active() {
        std::vector<const hold*> all;
        for (const hold& x : h_.holds) { all.push_back(&x); }
        std::sort(all.begin(), all.end(), [](const hold* a, const hold* b) { return a->got < b->got; });
        for (std::size_t i = 1; i < all.size(); ++i) {
            if (all[i - 1]->member != all[i]->member && h_.members[static_cast<std::size_t>(all[i - 1]->member)].leaving > all[i]->got) {
                blame("two are active: ", describe(*all[i - 1]), " then ", describe(*all[i]));
            }
        }
    }
    void publishers_are_in_order() { // their messages are numbered as they published them
        std::map<std::pair<int, int>, offset> next;
        for (std::size_t m = 0; m < h_.messages.size(); ++m) {
            const published& p = h_.messages[m];
            offset& least = next[{p.publisher, p.partition}];
            if (p.at < least) { blame("message ", m, " lies before one that was published earlier"); }
            least = p.at + 1;
        }
    }
    std::map<std::string, std::vector<const hold*>> by_key() const {
        std::map<std::string, std::vector<const hold*>> lists;
        for (const hold& x : h_.holds) {
            if (!message(x).key.empty()) { lists[message(x).key].push_back(&x); }
        }
        for (auto& [key, list] : lists) {
            std::sort(list.begin(), list.end(), [](const hold* a, const hold* b) { return a->got < b->got; });
        }
        return lists;
    }

    const history& h_;
    std::vector<std::vector<const hold*>> of_message_; // in the order of `got`
    std::string wrong_;
};

// --------------------------------------------------------------------------------------------------------------------- making it happen

constexpr int publishers = 2, each_publishes = 40, most_members = 3;

class scene {
public:
    using topic = mailroom::topic<tracked>;
    using subscription = mailroom::subscription<tracked>;
    using delivery = mailroom::delivery<tracked>;

    explicit scene(std::uint64_t seed) : seed_(seed), plan_(seed) {
        static constexpr std::array modes{sharing::keyed,       sharing::keyed,       sharing::keyed,    sharing::partitioned,
                                          sharing::partitioned, sharing::partitioned, sharing::failover, sharing::shared};
        h_.mode = modes[plan_.below(modes.size())];
        h_.lease = plan_.percent(25) ? 0ms : plan_.percent(50) ? 100ms : 1s;
        h_.messages.resize(publishers * each_publishes);
        h_.members.resize(most_members * 64);
        seeks_ = plan_.percent(20);
        filters_ = plan_.percent(25);
        keys_ = plan_.between(1, 8);
        fails_ = plan_.percent(70);
        leaves_ = plan_.percent(50) ? 6 : 1;
        steps_ = plan_.between(30, 120);

        mailroom::topic_options<tracked> o;
        o.partitions = plan_.between(1, 4);
        o.clock = &clock_;
        if (seeks_) { o.retention.messages = 1000; }
        if (plan_.percent(20)) { o.max_messages = 1000; } // not reached, but counted
        topic_.emplace(std::move(o));

        how_.mode = h_.mode;
        how_.lease = h_.lease;
        how_.retry.max_attempts = 0;
        how_.retry.initial = plan_.percent(50) ? 0ms : 20ms;
        how_.retry.maximum = 1s; // whoever takes the rest waits for as long as that: what failed twelve times would pause for longer
        how_.max_in_flight = plan_.percent(25) ? 2 : 0;
        if (filters_) {
            how_.filter = [](const tracked& body, const mailroom::properties&) {
                support::shake();
                return body.value() % 7 != 0;
            };
        }
        static_cast<void>(topic_->subscribe("all", how_)); // from here on it is there
    }

    std::string run(support::crew& threads, support::meeting& all) {
        const int members = plan_.percent(80) ? 3 : 2;
        busy_.store(members, std::memory_order_relaxed);
        const int size = publishers + members + 1;
        threads.run(size, [&](int self) {
            dice d(seed_ * 16 + static_cast<std::uint64_t>(self) + 1);
            if (size == publishers + most_members + 1) { all.arrive(); }
            support::shaking = d.below(1'000'000) + 1;
            if (self < publishers) {
                publish(self, d);
            } else if (self < publishers + members) {
                actor(*this, self - publishers, d).run();
                busy_.fetch_sub(1, std::memory_order_relaxed);
            } else {
                pass_time(d);
            }
            support::shaking = 0;
        });
        finish();
        const std::string found = verdict::of(h_);
        if (!wrong_.empty()) { return wrong_; }
        return found;
    }

private:
    struct held {
        delivery d;
        std::size_t record; // in `holds`
    };

    moment now() { return moments_.fetch_add(1, std::memory_order_relaxed); }

    void publish(int self, dice& d) {
        for (int i = 0; i < each_publishes; ++i) {
            const int number = self * each_publishes + i;
            published& m = h_.messages[static_cast<std::size_t>(number)];
            m.publisher = self;
            m.wanted = !filters_ || number % 7 != 0;
            if (!d.percent(5)) { m.key = std::string(1, static_cast<char>('a' + d.below(static_cast<unsigned>(keys_)))); }
            mailroom::properties p;
            p.key = m.key;
            const position at = topic_->publish(tracked(number), p);
            m.partition = at.partition, m.at = at.offset;
            if (d.percent(30)) { std::this_thread::yield(); }
        }
    }
    void pass_time(dice& d) {
        while (busy_.load(std::memory_order_relaxed) != 0) {
            if (clock_.parked() != 0 || d.percent(10)) {
                clock_.advance(d.between(1, 40) * 1ms);
            } else {
                std::this_thread::yield();
            }
        }
    }

    // One thread that is a member, and then another.
    class actor {
    public:
        actor(scene& s, int self, dice& d) : s_(s), self_(self), d_(d) {}

        void run() {
            for (int i = 0; i < s_.steps_; ++i) {
                if (!me_) {
                    join();
                    if (!me_) { break; }
                }
                const unsigned what = d_.below(100);
                if (what < 45) {
                    receive();
                } else if (what < 55) {
                    pop();
                } else if (what < 92) {
                    settle();
                } else if (what < 92 + s_.leaves_) {
                    leave();
                } else if (s_.seeks_ && what < 99) {
                    seek();
                }
            }
            if (me_ && d_.percent(50)) { leave(); }
            const std::lock_guard lock(s_.mutex_);
            for (held& h : held_) { s_.late_.push_back({std::move(h.d), h.record + s_.h_.holds.size()}); }
            s_.h_.holds.insert(s_.h_.holds.end(), holds_.begin(), holds_.end());
            s_.h_.seeks.insert(s_.h_.seeks.end(), seeks_.begin(), seeks_.end());
            if (me_) { s_.still_.push_back({std::move(*me_), number_}); }
        }

    private:
        void join() {
            number_ = self_ * 64 + joined_;
            if (++joined_ == 63) { return; } // the last number is for whoever sweeps up
            me_.emplace(s_.topic_->subscribe("all", s_.how_));
        }
        void leave() {
            if (d_.percent(30)) {
                while (!held_.empty()) { settle(); }
            }
            s_.h_.members[static_cast<std::size_t>(number_)].leaving = s_.now();
            me_.reset();
        }
        void seek() {
            seeking k;
            k.begun = s_.now();
            if (d_.percent(60)) {
                me_->seek(start::earliest);
            } else {
                const int p = static_cast<int>(d_.below(static_cast<unsigned>(s_.topic_->partitions())));
                k.to = position{p, d_.below(static_cast<unsigned>(s_.topic_->next_offset(p)) + 1)};
                me_->seek(*k.to);
            }
            k.done = s_.now();
            seeks_.push_back(k);
        }
        void receive() {
            hold h;
            begin(h);
            if (d_.percent(20)) {
                std::vector<delivery> some;
                me_->receive_many(some, static_cast<std::size_t>(d_.between(2, 5)));
                for (delivery& d : some) { note(h, std::move(d)); }
            } else if (auto d = d_.percent(20) ? me_->receive_for(d_.between(0, 200) * 1ms) : me_->try_receive()) {
                note(h, std::move(*d));
            }
        }
        void pop() {
            hold h;
            begin(h);
            if (auto m = d_.percent(20) ? me_->pop_for(d_.between(0, 200) * 1ms) : me_->try_pop()) {
                got(h, m->body().value());
                h.let_go = h.asked;
                h.gone = h.got;
                h.how = end::pop;
                h.said = true;
                h.attempt = s_.filters_ ? 0 : 1;
                holds_.push_back(h);
            }
        }
        void settle() {
            if (held_.empty()) { return; }
            const auto at = held_.begin() + d_.between(0, static_cast<int>(held_.size()) - 1);
            hold& h = holds_[at->record];
            if (s_.h_.lease > 0ms && d_.percent(8)) {
                hold next = h;
                next.extending = s_.now();
                next.extended_at = s_.clock_.now();
                if (at->d.extend(s_.h_.lease)) {
                    next.extended = s_.now();
                    h = next;
                }
                return;
            }
            s_.settle(h, at->d, s_.fails_ ? d_.below(100) : 0);
            held_.erase(at);
        }

        void begin(hold& h) {
            h.member = number_;
            h.asked_at = s_.clock_.now();
            h.asked = s_.now();
        }
        void got(hold& h, int number) {
            h.got = s_.now();
            h.got_at = s_.clock_.now();
            h.message = number;
        }
        void note(hold h, delivery&& d) {
            got(h, d->value());
            h.attempt = d.attempt();
            holds_.push_back(h);
            held_.push_back({std::move(d), holds_.size() - 1});
        }

        scene& s_;
        const int self_;
        dice& d_;
        std::optional<subscription> me_;
        int number_ = 0, joined_ = 0;
        std::vector<held> held_;
        std::vector<hold> holds_;
        std::vector<seeking> seeks_;
    };

    void settle(hold& h, delivery& d, unsigned how) {
        h.let_go = now();
        if (how < 60) {
            h.how = end::ack;
            h.said = d.ack();
        } else if (how < 65) {
            h.how = end::reject;
            h.said = d.reject();
        } else if (how < 75) {
            h.how = end::back;
            h.said = d.nack();
        } else if (how < 82) {
            h.how = end::back;
            h.said = d.nack(0ms);
        } else if (how < 92) {
            h.how = end::back;
            h.said = d.release();
        } else {
            h.how = end::dropped;
            const delivery gone = std::move(d);
        }
        h.gone = now();
    }

    // Whoever is left settles what is left, and nothing may be lost.
    void finish() {
        {
            std::vector<held> after; // these outlive the topic
            for (held& h : late_) {
                if (plan_.percent(70)) {
                    settle(h_.holds[h.record], h.d, fails_ ? plan_.below(100) : 0);
                } else {
                    after.push_back(std::move(h));
                }
            }
            for (auto& [m, number] : still_) { h_.members[static_cast<std::size_t>(number)].leaving = now(); }
            still_.clear();

            const int last = most_members * 64 - 1;
            subscription me = topic_->subscribe("all", how_);
            for (int quiet = 0; me.lag() != 0;) {
                hold h;
                h.member = last;
                h.asked_at = clock_.now(), h.asked = now();
                auto d = me.try_receive();
                if (!d) {
                    if (++quiet > 20) {
                        wrong_ = "the rest never comes: " + std::to_string(me.lag());
                        break;
                    }
                    clock_.advance(h_.lease + 1s);
                    if (h_.lease == 0ms && quiet > 2) { // held for ever by who holds on to them
                        for (held& x : after) { settle(h_.holds[x.record], x.d, 0); }
                        after.clear();
                    }
                    continue;
                }
                quiet = 0;
                h.got = now(), h.got_at = clock_.now(), h.message = (*d)->value(), h.attempt = d->attempt();
                settle(h, *d, 0);
                h_.holds.push_back(h);
            }
            if (h_.seeks.empty() && wrong_.empty()) {
                const auto rejected = static_cast<std::size_t>(
                    std::count_if(h_.holds.begin(), h_.holds.end(), [](const hold& h) { return h.how == end::reject && h.said; }));
                if (me.dead().size() != rejected) { wrong_ = "not as many dead letters as were rejected"; }
            }
            if (plan_.percent(50)) { topic_.reset(); }
            for (held& h : after) {
                h_.holds[h.record].topic_gone = !topic_;
                settle(h_.holds[h.record], h.d, 0);
                if (!topic_ && h_.holds[h.record].said) { wrong_ = "settled, and its topic was gone"; }
            }
        }
        late_.clear();
        topic_.reset();
    }

    const std::uint64_t seed_;
    dice plan_;
    bool seeks_ = false, filters_ = false, fails_ = false;
    int keys_ = 1, steps_ = 0;
    unsigned leaves_ = 0;
    mailroom::subscribe_options<tracked> how_;
    mailroom::testing::manual_clock clock_{1h};
    std::optional<topic> topic_;
    alignas(64) std::atomic<moment> moments_{1}; // relaxed: an order all agree on, and nothing that hides a race
    alignas(64) std::atomic<int> busy_{0};
    std::mutex mutex_; // as threads end
    history h_;
    std::vector<held> late_;
    std::vector<std::pair<subscription, int>> still_;
    std::string wrong_;
};

} // namespace

TEST_CASE("topic: histories of members that come, go, fail and seek keep what their mode of sharing promises") {
    support::crew threads(publishers + most_members + 1);
    support::meeting all(publishers + most_members + 1);
    support::for_each_seed(1500, [&](std::uint64_t seed) {
        const std::string wrong = scene(seed).run(threads, all);
        if (wrong.empty() && tracked::live() == 0 && tracked::faults() == 0) { return true; }
        FAIL_CHECK("MAILROOM_TEST_SEED=", seed, ": ", wrong, "; ", tracked::live(), " bodies left, ", tracked::faults(), " used dead");
        return false;
    });
}

// -------------------------------------------------------------------------------------------------------------- the check itself can fail

namespace {

// Two partitions, two keys: messages 0 and 1 of `a` in partition 0, message 2 of `b` there too, message 3 of `c` in partition 1.
struct story {
    history h;
    explicit story(sharing mode, duration lease = 1s) {
        h.mode = mode;
        h.lease = lease;
        h.members.resize(4);
        h.messages = {{"a", 0, 0, 0, true}, {"a", 0, 1, 0, true}, {"b", 0, 2, 0, true}, {"c", 1, 0, 0, true}};
    }
    /// A member asks at `at`, holds it from then on, and says `how` at `until`.
    hold& had(int member, int message, moment at, moment until, end how = end::ack, bool said = true) {
        hold x;
        x.message = message, x.member = member;
        x.asked = 10 * at, x.got = 10 * at + 1, x.let_go = 10 * until, x.gone = 10 * until + 1;
        x.how = how, x.said = said;
        if (how == end::pop) { x.let_go = x.asked, x.gone = x.got; }
        h.holds.push_back(x);
        return h.holds.back();
    }
    /// The rest, one after the other, as nobody can find fault with.
    story& and_the_rest() {
        for (int m = 0, at = 100; m < 4; ++m, ++at) {
            if (std::none_of(h.holds.begin(), h.holds.end(), [m](const hold& x) { return x.message == m; })) {
                for (membership& who : h.members) { who.leaving = std::min(who.leaving, moment{990}); }
                had(3, m, static_cast<moment>(at), static_cast<moment>(at));
                h.members[3].leaving = never;
            }
        }
        return *this;
    }
    std::string verdict() const { return ::verdict::of(h); }
    bool is_blamed(const std::string& why) const { return verdict().find(why) != std::string::npos; }
};

constexpr std::array every_mode{sharing::keyed, sharing::partitioned, sharing::failover, sharing::shared};

} // namespace

TEST_CASE("topic histories: what is right is found right") {
    for (const sharing mode : every_mode) {
        CAPTURE(static_cast<int>(mode));
        CHECK(story(mode).and_the_rest().verdict() == "");
    }
    SUBCASE("what failed comes again; a lease that ended, a member that left and a seek end holds") {
        story failed(sharing::keyed);
        failed.had(0, 0, 1, 2, end::back);
        failed.had(0, 0, 3, 4);
        CHECK(failed.and_the_rest().verdict() == "");

        story late(sharing::keyed);
        late.had(0, 0, 1, 9, end::ack, false);
        late.had(0, 0, 5, 6).got_at = 1s;
        CHECK(late.and_the_rest().verdict() == "");

        story left(sharing::keyed);
        left.had(0, 0, 1, 9, end::ack, false);
        left.h.members[0].leaving = 30;
        left.had(1, 0, 5, 6);
        CHECK(left.and_the_rest().verdict() == "");

        story moved(sharing::keyed);
        moved.had(0, 0, 1, 9, end::ack, false);
        moved.h.seeks.push_back({30, 35, std::nullopt});
        moved.had(0, 0, 5, 6);
        CHECK(moved.and_the_rest().verdict() == "");
    }
    SUBCASE("each of two may have asked first") {
        story close(sharing::keyed);
        close.had(0, 0, 2, 9, end::pop);
        close.h.holds.back().asked = close.h.holds.back().let_go = 5; // it was settled before the next was given
        close.had(0, 1, 1, 3);
        CHECK(close.and_the_rest().verdict() == "");
    }
    SUBCASE("what a seek passed over need not be settled") {
        story passed(sharing::keyed);
        passed.h.seeks.push_back({5, 6, position{0, 2}});
        passed.had(0, 2, 1, 2);
        passed.had(0, 3, 3, 4);
        CHECK(passed.verdict() == "");
    }
}

TEST_CASE("topic histories: what is wrong is found, and why") {
    SUBCASE("lost") {
        for (const sharing mode : every_mode) {
            story s(mode);
            for (int m = 0; m < 3; ++m) { s.had(0, m, static_cast<moment>(1 + 2 * m), static_cast<moment>(2 + 2 * m)); }
            CHECK(s.is_blamed("never settled: message 3"));
            s.had(0, 3, 8, 9, end::back);
            CHECK(s.is_blamed("never settled: message 3"));
            s.h.seeks.push_back({1, 2, position{1, 0}}); // passes nothing over
            CHECK(s.is_blamed("never settled: message 3"));
        }
    }
    SUBCASE("settled twice") {
        story s(sharing::shared);
        s.had(0, 0, 1, 2);
        s.had(1, 0, 3, 4);
        CHECK(s.and_the_rest().is_blamed("settled twice"));
        s.h.seeks.push_back({100, 200, std::nullopt}); // too late to be a reason
        CHECK(s.is_blamed("settled twice"));
        s.h.seeks.push_back({15, 25, position{1, 0}}); // elsewhere
        CHECK(s.is_blamed("settled twice"));
        s.h.seeks.push_back({15, 25, std::nullopt});
        CHECK(!s.is_blamed("settled twice"));
    }
    SUBCASE("refused for nothing") {
        story s(sharing::shared);
        s.had(0, 0, 1, 2, end::ack, false);
        s.had(0, 0, 3, 4);
        CHECK(s.and_the_rest().is_blamed("refused without a reason"));
    }
    SUBCASE("held twice") {
        for (const sharing mode : every_mode) {
            story s(mode);
            s.had(0, 0, 1, 5, end::back);
            s.had(0, 0, 3, 7).got_at = 999ms; // a moment before the lease ends
            CHECK(s.and_the_rest().is_blamed("held twice at once"));
            story with_none(mode, 0s);
            with_none.had(0, 0, 1, 5, end::back);
            with_none.had(0, 0, 3, 7).got_at = 24h;
            CHECK(with_none.and_the_rest().is_blamed("held twice at once"));
        }
        story popped(sharing::shared);
        popped.had(0, 0, 1, 5, end::back);
        popped.had(1, 0, 3, 3, end::pop);
        CHECK(popped.and_the_rest().is_blamed("held twice at once"));
        story extended(sharing::shared);
        hold& first = extended.had(0, 0, 1, 5, end::back);
        first.extended_at = 500ms, first.extending = 15, first.extended = 16;
        extended.had(1, 0, 3, 7).got_at = 1400ms;
        CHECK(extended.and_the_rest().is_blamed("held twice at once"));
    }
    SUBCASE("two of a key") {
        for (const sharing mode : {sharing::keyed, sharing::partitioned}) {
            story s(mode);
            s.had(0, 0, 1, 5);
            s.had(0, 1, 3, 7);
            CHECK(s.and_the_rest().is_blamed("two of a key at once"));
        }
        story any(sharing::shared);
        any.had(0, 0, 1, 5);
        any.had(0, 1, 3, 7);
        CHECK(any.and_the_rest().verdict() == "");
    }
    SUBCASE("overtaken") {
        for (const sharing mode : {sharing::keyed, sharing::partitioned}) {
            story s(mode);
            s.had(0, 0, 1, 2, end::back);
            s.had(0, 1, 3, 4);
            s.had(0, 0, 5, 6);
            CHECK(s.and_the_rest().is_blamed("overtook message 0"));
            story never_settled(mode);
            never_settled.had(0, 1, 3, 4);
            CHECK(never_settled.and_the_rest().is_blamed("overtook message 0"));
        }
        for (const sharing mode : {sharing::failover, sharing::shared}) {
            story s(mode);
            s.had(0, 1, 1, 2);
            s.had(0, 0, 3, 4);
            CHECK(s.and_the_rest().is_blamed("out of order"));
            story again(mode);
            again.had(0, 0, 1, 2, end::back);
            again.had(0, 1, 3, 4);
            again.had(0, 0, 5, 6);
            CHECK(again.and_the_rest().verdict() == "");
        }
    }
    SUBCASE("a key in two hands") {
        story s(sharing::keyed);
        s.had(0, 0, 1, 2);
        s.had(1, 1, 3, 4);
        CHECK(s.is_blamed("never settled")); // the first thing that is wrong
        CHECK(s.and_the_rest().is_blamed("its key belonged to another"));
        s.h.members[0].leaving = 25;
        CHECK(s.verdict() == "");
    }
    SUBCASE("a partition in two hands") {
        story s(sharing::partitioned);
        s.had(0, 0, 1, 5);
        s.had(1, 2, 3, 7);
        CHECK(s.and_the_rest().is_blamed("two in a partition"));
        story apart(sharing::partitioned);
        apart.had(0, 0, 1, 5);
        apart.had(1, 3, 3, 7);
        CHECK(apart.and_the_rest().verdict() == "");
    }
    SUBCASE("two active") {
        story s(sharing::failover);
        s.had(0, 0, 1, 2);
        s.had(1, 1, 3, 4);
        CHECK(s.and_the_rest().is_blamed("two are active"));
        s.h.members[0].leaving = 25;
        CHECK(s.verdict() == "");
    }
    SUBCASE("a publisher's order") {
        story s(sharing::shared);
        std::swap(s.h.messages[0].at, s.h.messages[1].at);
        s.had(0, 1, 1, 2);
        CHECK(s.and_the_rest().is_blamed("lies before one that was published earlier"));
    }
    SUBCASE("not wanted") {
        story s(sharing::shared);
        s.h.messages[0].wanted = false;
        s.had(0, 0, 1, 2);
        CHECK(s.and_the_rest().is_blamed("not wanted"));
    }
}
