// Topics against a reference model: random publishers, members that join, leave, fail and seek, and time that passes. The model keeps what each
// subscription knows of each offset, and says which deliveries are allowed, which must come, and what becomes of each. Where the topic is, and
// how it is closed and opened again, is the Home's to say; what that adds to the model stands in journal_topic_model_test.cpp.
#pragma once

#include "support/random.hpp"

#include <mailroom/testing.hpp>
#include <mailroom/topic.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace support::topics {

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::offset;
using mailroom::sharing;
using mailroom::start;

inline constexpr duration lease = 10s;
inline constexpr std::uint32_t most_attempts = 4;

struct settings {
    int partitions = 1;
    std::size_t retained = 0;
    std::size_t most = 0; // max_messages
    bool compact = false;
};

/// What one subscription knows of one offset.
struct item {
    enum class state { absent, ready, parked, leased, settled, dead } is = state::absent;
    std::uint32_t attempt = 0; // of the last delivery
    int turn = 0;              // how often it was handed out
    int holder = 0;            // the member
    bool lapsed = false;       // its holder may still settle it
    bool left = false;         // because it left: then it may not extend it
    duration when{};           // parked: due; leased: end
    bool extended = false;     // after it had lapsed: whether that lapse counts after the next opening is not said
};

struct published {
    std::string key;
    duration at{};
    duration due{};
};

struct held {
    mailroom::delivery<int> d;
    int turn;
    int epoch;
};

struct part {
    std::vector<item> items; // by offset
};

class subject { // a subscription, as the model sees it
public:
    std::string name; // empty: ephemeral
    sharing mode = sharing::exclusive;
    bool filtered = false;
    std::vector<part> parts;
    mailroom::subscribe_options<int> options;
    int epoch = 0;
    std::map<std::string, int> owners; // keyed: of keys
    struct one {
        int number;
        mailroom::subscription<int> handle;
    };
    std::list<one> members; // in the order of joining
    std::vector<held> out;
    std::vector<std::pair<mailroom::message<int>, int>> kept; // popped messages, and what is in them
    int joined = 0;

    bool keyed() const { return mode == sharing::keyed || mode == sharing::partitioned; }
};

/// The value of a message says where it is, so that any mix-up shows.
inline int value_of(int partition, offset o) { return partition * 100'000 + static_cast<int>(o); }
inline bool matches(int value) { return value % 3 != 0; }

/// Where the topic is: one that ends with it.
struct topic_in_memory {
    static constexpr bool is_stored = false;
    topic_in_memory(dice&, mailroom::clock&) {}
    void open(const mailroom::topic_options<int>& o) { topic.emplace(o); }
    std::optional<mailroom::topic<int>> topic;
};

template <class Home>
class topic_world {
public:
    topic_world(std::uint64_t seed, settings s) : d_(seed), s_(s), home_(d_, clock_), log_(static_cast<std::size_t>(s.partitions)) {
        mailroom::topic_options<int>& o = options_;
        o.partitions = s.partitions;
        o.retention.messages = s.retained;
        o.retention.compact = s.compact;
        o.max_messages = s.most;
        o.overflow = mailroom::overflow::reject;
        o.clock = &clock_;
        home_.open(options_);
    }

    std::string run(int length) {
        const sharing modes[] = {sharing::exclusive, sharing::failover, sharing::shared, sharing::keyed, sharing::partitioned};
        for (int i = d_.between(1, 3); i != 0; --i) { open(std::string(1, static_cast<char>('a' + i)), modes[d_.below(5)]); }
        for (int i = 0; i < length && wrong_.empty(); ++i) { step(); }
        if (wrong_.empty()) { finish(); }
        return wrong_.empty() ? std::string() : wrong_ + "\n" + story_.str();
    }

private:
    template <class... Words>
    void tell(const Words&... words) {
        (story_ << ... << words) << '\n';
    }
    template <class... Words>
    void blame(const Words&... words) {
        std::ostringstream text;
        (text << ... << words);
        if (wrong_.empty()) { wrong_ = text.str(); }
    }

    duration now() const { return clock_.now(); }
    const published& message(int p, offset o) const { return log_[static_cast<std::size_t>(p)][static_cast<std::size_t>(o)]; }

    // ------------------------------------------------------------------------------------------------------------------ what happens

    void step() {
        switch (d_.below(20)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4: publish(); break;
        case 5:
        case 6:
        case 7:
        case 8:
        case 9: receive(); break;
        case 10:
        case 11:
        case 12: settle(); break;
        case 13: pop(); break;
        case 14: join(); break;
        case 15: leave(); break;
        case 16: pass_time(); break;
        case 17: check(); break;
        case 18:
            if (d_.percent(30)) { seek(); }
            break;
        default:
            if (d_.percent(20)) {
                open(std::string(), sharing::exclusive);
            } else if (d_.percent(10)) {
                unsubscribe();
            } else if (Home::is_stored && d_.percent(30)) {
                if constexpr (Home::is_stored) { reopen(); }
            } else {
                for (int i = d_.between(1, 40); i != 0; --i) { publish(); }
            }
        }
    }

    void publish() {
        mailroom::properties props;
        if (d_.percent(70)) { props.key = std::string(1, static_cast<char>('k' + d_.below(6))); }
        if (d_.percent(5)) { props.delay = std::chrono::seconds(d_.below(8)); }
        const duration due = now() + props.delay;
        const std::string key = props.key;
        // The place is part of the value, so it has to be known: without a key it is the next in turn.
        bool full = false;
        for (const auto& s : subjects_) { full = full || (!s->name.empty() && s_.most != 0 && unsettled(*s, true) >= s_.most); }
        for (const auto& s : subjects_) {
            if (s->name.empty() && s_.most != 0) { return; } // what it loses is another test's
        }
        int guess = 0;
        if (s_.partitions > 1) {
            guess = key.empty() ? static_cast<int>(turn_ % static_cast<std::size_t>(s_.partitions))
                                : static_cast<int>(mailroom::detail::partition_of(key, static_cast<std::size_t>(s_.partitions)));
            if (key.empty()) { ++turn_; }
        }
        auto& log = log_[static_cast<std::size_t>(guess)];
        const auto place = home_.topic->try_publish(value_of(guess, log.size()), std::move(props));
        if (full) {
            if (place) { blame("published though full"); }
            return;
        }
        if (!place) {
            blame("not published: ", place.error().message());
            return;
        }
        if (place->partition != guess || place->offset != log.size()) { blame("published at ", place->partition, ":", place->offset); }
        tell("publish ", key, " at ", place->partition, ":", place->offset, due > now() ? " delayed" : "");
        log.push_back({key, now(), due});
        for (auto& s : subjects_) {
            item i;
            i.is = due > now() ? item::state::parked : item::state::ready;
            i.when = due;
            if (s->filtered && !matches(value_of(guess, place->offset))) { i.is = item::state::absent; }
            s->parts[static_cast<std::size_t>(guess)].items.push_back(i);
        }
    }

    void open(const std::string& name, sharing mode) {
        mailroom::subscribe_options<int> o;
        o.mode = mode;
        o.lease = lease;
        o.retry = {.max_attempts = most_attempts, .initial = 2s, .multiplier = 2, .maximum = 1min, .jitter = 0};
        auto s = std::make_unique<subject>();
        s->name = name;
        s->mode = mode;
        s->filtered = s_.retained >= 10'000 && d_.percent(50); // otherwise what is there depends on what filters were asked
        if (s->filtered) {
            o.filter = [](int value, const mailroom::properties&) {
                if (!matches(value) && value % 2 == 0) { throw value; }
                return matches(value);
            };
        }
        s->parts.resize(log_.size());
        s->options = o;
        o.from = draw_start(*s);
        auto handle = name.empty() ? home_.topic->subscribe(o) : home_.topic->subscribe(name, o);
        tell("open ", name, " mode ", static_cast<int>(mode), s->filtered ? " filtered" : "");
        s->members.push_back({++s->joined, std::move(handle)});
        subjects_.push_back(std::move(s));
    }

    // Draws a place, and notes what the subscription will then have to be given.
    start draw_start(subject& s) {
        std::vector<std::set<offset>> there; // before anything changes
        for (std::size_t p = 0; p < log_.size(); ++p) { there.push_back(contents(p)); }
        for (std::size_t p = 0; p < log_.size(); ++p) {
            auto& items = s.parts[p].items;
            items.resize(log_[p].size());
            for (auto& i : items) {
                if (i.is != item::state::dead) { i = {item::state::settled, 0, i.turn, 0, false, false, {}}; }
            }
        }
        const auto from = [&](std::size_t p, offset o) {
            for (offset at = o; at < log_[p].size(); ++at) {
                if (there[p].count(at) != 0) { revive(s, static_cast<int>(p), at); }
            }
        };
        switch (d_.below(6)) {
        case 0: tell("from latest"); return start::latest;
        case 1:
            tell("from earliest");
            for (std::size_t p = 0; p < log_.size(); ++p) { from(p, 0); }
            return start::earliest;
        case 2: {
            tell("from last per key");
            for (std::size_t p = 0; p < log_.size(); ++p) {
                std::map<std::string, offset> last;
                for (const offset o : there[p]) {
                    const std::string& key = message(static_cast<int>(p), o).key;
                    if (!key.empty()) { last[key] = o; }
                }
                for (const auto& [key, at] : last) { revive(s, static_cast<int>(p), at); }
            }
            return start::last_per_key;
        }
        case 3: {
            if (s_.partitions > 1) { return start::latest; }
            const std::size_t n = d_.below(50);
            tell("from last ", n);
            std::size_t left = n;
            for (auto at = there[0].rbegin(); at != there[0].rend() && left != 0; ++at, --left) { revive(s, 0, *at); }
            return start::last(n);
        }
        case 4: {
            const duration since = now() - std::chrono::seconds(d_.below(30));
            tell("from time ", since.count());
            for (std::size_t p = 0; p < log_.size(); ++p) {
                offset o = 0;
                while (o < log_[p].size() && message(static_cast<int>(p), o).at < since) { ++o; }
                from(p, o);
            }
            return start(clock_.wall() - (now() - since));
        }
        default: {
            const int p = static_cast<int>(d_.below(static_cast<unsigned>(s_.partitions)));
            const auto at = static_cast<std::size_t>(p);
            const offset o = d_.below(static_cast<unsigned>(log_[at].size()) + 5);
            tell("from ", p, ":", o);
            from(at, o);
            return start(mailroom::position{p, o});
        }
        }
    }
    // What is there: retained, the last of its key where that counts, or not settled by somebody.
    std::set<offset> contents(std::size_t p) const {
        const offset head = log_[p].size();
        std::set<offset> there;
        for (offset o = s_.retained == 0 ? head : head > s_.retained ? head - s_.retained : 0; o < head; ++o) { there.insert(o); }
        if (s_.compact) {
            std::set<std::string> seen;
            for (offset o = head; o-- > 0;) {
                const std::string& key = log_[p][static_cast<std::size_t>(o)].key;
                if (!key.empty() && seen.insert(key).second) { there.insert(o); }
            }
        }
        for (const auto& s : subjects_) {
            for (offset o = 0; o < head; ++o) {
                const auto is = s->parts[p].items[static_cast<std::size_t>(o)].is;
                if (is == item::state::ready || is == item::state::parked || is == item::state::leased) { there.insert(o); }
            }
        }
        return there;
    }
    void revive(subject& s, int p, offset o) {
        item& i = s.parts[static_cast<std::size_t>(p)].items[static_cast<std::size_t>(o)];
        const bool wanted = !s.filtered || matches(value_of(p, o));
        const duration due = message(p, o).due;
        i = {!wanted ? item::state::absent : due > now() ? item::state::parked : item::state::ready, 0, i.turn, 0, false, false, due};
    }

    subject* draw_subject() { return subjects_.empty() ? nullptr : subjects_[d_.below(static_cast<unsigned>(subjects_.size()))].get(); }
    static subject::one* draw_member(subject& s, dice& d) {
        if (s.members.empty()) { return nullptr; }
        auto at = s.members.begin();
        std::advance(at, d.below(static_cast<unsigned>(s.members.size())));
        return &*at;
    }

    // ---------------------------------------------------------------------------------------------------------------- what is allowed

    // Whether the message may be handed out now, to somebody.
    bool is_eligible(const subject& s, std::size_t p, offset o) const {
        const auto& items = s.parts[p].items;
        const item& i = items[static_cast<std::size_t>(o)];
        const bool ready = i.is == item::state::ready || (i.is == item::state::parked && i.when <= now());
        if (!ready) { return false; }
        if (!s.keyed() || log_[p][static_cast<std::size_t>(o)].key.empty()) { return true; }
        for (offset before = 0; before < o; ++before) {
            const auto is = items[static_cast<std::size_t>(before)].is;
            const bool open = is == item::state::ready || is == item::state::parked || is == item::state::leased;
            if (open && log_[p][static_cast<std::size_t>(before)].key == log_[p][static_cast<std::size_t>(o)].key) { return false; }
        }
        return true;
    }
    bool may_have(const subject& s, int member, std::size_t p, offset o) const {
        if (s.mode != sharing::keyed) { return true; }
        const auto owner = s.owners.find(log_[p][static_cast<std::size_t>(o)].key);
        return owner == s.owners.end() || owner->second == member;
    }

    std::string text_of(const subject& s, std::size_t p, offset o) const {
        const char* const states[] = {"absent", "ready", "parked", "leased", "settled", "dead"};
        const item& i = s.parts[p].items[static_cast<std::size_t>(o)];
        std::ostringstream text;
        text << p << ':' << o << ' ' << log_[p][static_cast<std::size_t>(o)].key << ' ' << states[static_cast<int>(i.is)] << " attempt " << i.attempt
             << " holder " << i.holder << (i.lapsed ? " lapsed" : "") << (i.left ? " left" : "");
        return text.str();
    }
    std::string all_of(const subject& s, item::state is) const {
        std::string text = " mode " + std::to_string(static_cast<int>(s.mode));
        for (std::size_t p = 0; p < log_.size(); ++p) {
            for (offset o = 0; o < log_[p].size(); ++o) {
                if (s.parts[p].items[static_cast<std::size_t>(o)].is == is) { text += "; " + text_of(s, p, o); }
            }
        }
        return text;
    }

    // A message was handed to a member: whether that may be.
    void given(subject& s, int member, int partition, offset o, int value, bool in_batch = false) {
        const auto p = static_cast<std::size_t>(partition);
        tell(s.name, " member ", member, " is given ", partition, ":", o);
        if (value != value_of(partition, o)) { blame("the body is another's"); }
        if (p >= log_.size() || o >= log_[p].size()) { return blame("never published"); }
        if (!is_eligible(s, p, o)) { return blame(s.name, " mode ", static_cast<int>(s.mode), ": not to be had now, ", text_of(s, p, o)); }
        if (!may_have(s, member, p, o)) { return blame("its key belongs to another member"); }
        if (s.mode == sharing::failover && s.members.front().number != member) { blame("not the active member"); }
        for (offset before = 0; before < o && !(in_batch && s.keyed()); ++before) { // in a batch, what waits for one of it comes later
            if (is_eligible(s, p, before) && may_have(s, member, p, before) && s.mode != sharing::keyed) { blame("before ", before); }
        }
        if (s.mode == sharing::partitioned) {
            for (const item& i : s.parts[p].items) {
                if (i.is == item::state::leased && i.holder != member) { blame("another member holds messages of the partition"); }
            }
        }
        const std::string& key = log_[p][static_cast<std::size_t>(o)].key;
        if (s.mode == sharing::keyed && !key.empty()) { s.owners[key] = member; }
    }
    // A member got nothing: whether there was nothing.
    void given_nothing(const subject& s, int member) {
        if (s.mode == sharing::failover && s.members.front().number != member) { return; }
        if (s.mode == sharing::partitioned && s.members.size() > 1) { return; }
        for (std::size_t p = 0; p < log_.size(); ++p) {
            for (offset o = 0; o < log_[p].size(); ++o) {
                if (!is_eligible(s, p, o)) { continue; }
                if (s.mode == sharing::keyed && s.members.size() > 1) {
                    const auto owner = s.owners.find(log_[p][static_cast<std::size_t>(o)].key);
                    const bool anybodys = log_[p][static_cast<std::size_t>(o)].key.empty();
                    if (!anybodys && (owner == s.owners.end() || owner->second != member)) { continue; }
                }
                return blame(s.name, " member ", member, " got nothing, though there was ", p, ":", o);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------- receiving, settling

    void receive() {
        subject* const s = draw_subject();
        subject::one* const m = s != nullptr ? draw_member(*s, d_) : nullptr;
        if (m == nullptr) { return; }
        auto d = m->handle.try_receive();
        if (!d) { return given_nothing(*s, m->number); }
        given(*s, m->number, d->partition(), d->offset(), d->body());
        if (!wrong_.empty()) { return; }
        item& i = s->parts[static_cast<std::size_t>(d->partition())].items[static_cast<std::size_t>(d->offset())];
        if (d->attempt() != i.attempt + 1) { blame("attempt ", d->attempt(), " after ", i.attempt); }
        i = {item::state::leased, d->attempt(), i.turn + 1, m->number, false, false, now() + lease};
        s->out.push_back({std::move(*d), i.turn, s->epoch});
    }
    void pop() {
        subject* const s = draw_subject();
        subject::one* const m = s != nullptr ? draw_member(*s, d_) : nullptr;
        if (m == nullptr || s_.partitions > 1) { return; } // a message does not say its partition
        if (d_.percent(30)) {
            const std::size_t most = 1 + d_.below(70);
            const bool throws = !s->filtered && d_.percent(20); // what was claimed for the filter, and given back, is lost to late holders
            std::size_t seen = 0;
            const auto look = [&](int value) {
                const offset o = static_cast<offset>(value % 100'000);
                given(*s, m->number, 0, o, value, true);
                if (!wrong_.empty()) { return; }
                item& i = s->parts[0].items[static_cast<std::size_t>(o)];
                i = {item::state::settled, i.attempt, i.turn + 1, 0, false, false, {}};
                ++seen;
                if (throws && d_.percent(30)) { throw value; }
            };
            try {
                const std::size_t n = m->handle.pop_each(look, most);
                if (n != seen || n > most) { blame("pop_each said ", n, " instead of ", seen); }
                if (n < most && wrong_.empty()) { given_nothing(*s, m->number); }
            } catch (int) {}
            return;
        }
        auto popped = m->handle.try_pop();
        if (!popped) { return given_nothing(*s, m->number); }
        given(*s, m->number, 0, popped->offset(), popped->body());
        if (!wrong_.empty()) { return; }
        item& i = s->parts[0].items[static_cast<std::size_t>(popped->offset())];
        i = {item::state::settled, i.attempt, i.turn + 1, 0, false, false, {}};
        const int value = popped->body();
        if (d_.percent(30)) { s->kept.emplace_back(std::move(*popped), value); }
    }

    void settle() {
        subject* const s = draw_subject();
        if (s == nullptr || s->out.empty()) { return; }
        const std::size_t at = d_.below(static_cast<unsigned>(s->out.size()));
        held h = std::move(s->out[at]);
        s->out.erase(s->out.begin() + static_cast<std::ptrdiff_t>(at));
        const int p = h.d.partition();
        const offset o = h.d.offset();
        item& i = s->parts[static_cast<std::size_t>(p)].items[static_cast<std::size_t>(o)];
        if (h.d.body() != value_of(p, o)) { blame("the body of what is out has changed"); }
        const bool mine = h.epoch == s->epoch && h.turn == i.turn && (i.is == item::state::leased || i.lapsed);
        const unsigned verb = d_.below(8);
        const char* const verbs[] = {"nacks", "nacks at once", "releases", "rejects", "extends", "acks", "acks", "acks"};
        tell(s->name, ' ', verbs[verb], ' ', p, ":", o, mine ? "" : " too late");
        bool done = false;
        item next = i;
        next.lapsed = false;
        const auto failed = [&](duration pause) {
            next.is = i.attempt >= most_attempts ? item::state::dead : pause > 0s ? item::state::parked : item::state::ready;
            next.when = now() + pause;
        };
        switch (verb) {
        case 0:
            done = h.d.nack();
            failed(std::min<duration>(1min, 2s * (1 << (i.attempt > 0 ? i.attempt - 1 : 0))));
            break;
        case 1:
            done = h.d.nack(0s);
            failed(0s);
            break;
        case 2:
            done = h.d.release();
            next.is = item::state::ready;
            next.attempt = i.attempt - 1;
            break;
        case 3:
            done = h.d.reject("odd");
            next.is = item::state::dead;
            break;
        case 4: {
            const bool blocked = mine && i.lapsed && (i.left || (s->keyed() && key_is_leased(*s, static_cast<std::size_t>(p), o)));
            done = h.d.extend(lease);
            // Of a partition that was assigned to another meanwhile, only the topic knows whether that one has begun.
            const bool open = mine && i.lapsed && !i.left && s->mode == sharing::partitioned;
            if (done != (mine && !blocked) && !(open && !done)) { blame("extend said ", done); }
            if (done) { i = {item::state::leased, i.attempt, i.turn, i.holder, false, false, now() + lease, i.extended || i.lapsed}; }
            s->out.push_back(std::move(h));
            return;
        }
        default: done = h.d.ack(); next.is = item::state::settled;
        }
        if (done != mine) { blame("settling said ", done); }
        if (mine) { i = next; }
    }
    bool key_is_leased(const subject& s, std::size_t p, offset o) const {
        for (offset at = 0; at < log_[p].size(); ++at) {
            if (at != o && log_[p][static_cast<std::size_t>(at)].key == log_[p][static_cast<std::size_t>(o)].key &&
                s.parts[p].items[static_cast<std::size_t>(at)].is == item::state::leased) {
                return !log_[p][static_cast<std::size_t>(o)].key.empty();
            }
        }
        return false;
    }

    static void lapse(item& i) {
        i.is = i.attempt >= most_attempts ? item::state::dead : item::state::ready;
        i.lapsed = i.is == item::state::ready;
    }

    // --------------------------------------------------------------------------------------------------------------- members, time

    void join() {
        subject* const s = draw_subject();
        if (s == nullptr || s->name.empty()) { return; }
        const bool refused = s->mode == sharing::exclusive && !s->members.empty();
        if (s->members.size() >= 4) { return; }
        try {
            auto handle = home_.topic->subscribe(s->name, s->options);
            if (refused) { return blame("a second member of an exclusive subscription"); }
            s->members.push_back({++s->joined, std::move(handle)});
            tell(s->name, " member ", s->joined, " joins");
        } catch (const mailroom::error& e) {
            if (!refused || !(e == mailroom::errc::already_exists)) { blame("cannot join: ", e.what()); }
        }
    }
    void leave() {
        subject* const s = draw_subject();
        if (s == nullptr || s->members.empty()) { return; }
        auto at = s->members.begin();
        std::advance(at, d_.below(static_cast<unsigned>(s->members.size())));
        const int number = at->number;
        const bool active = at == s->members.begin();
        tell(s->name, " member ", number, " leaves");
        s->members.erase(at);
        if (s->name.empty()) {
            for (held& h : s->out) {
                if (h.d.ack()) { blame("ack of what an ended subscription gave"); }
            }
            std::erase_if(subjects_, [&](const auto& one) { return one.get() == s; });
            return;
        }
        const bool all =
            s->mode == sharing::exclusive || (s->mode == sharing::failover && active) || (s->mode == sharing::shared && s->members.empty());
        const bool own = s->mode == sharing::keyed || s->mode == sharing::partitioned;
        for (auto& p : s->parts) {
            for (item& i : p.items) {
                if (!all && !(own && i.holder == number)) { continue; }
                i.left = true;
                if (i.is == item::state::leased) { lapse(i); }
            }
        }
        std::erase_if(s->owners, [&](const auto& one) { return one.second == number; });
    }
    void unsubscribe() {
        subject* const s = draw_subject();
        if (s == nullptr || s->name.empty()) { return; }
        tell("unsubscribe ", s->name);
        if (!home_.topic->unsubscribe(s->name)) { blame("there was no such subscription"); }
        for (auto& m : s->members) {
            if (m.handle.try_receive()) { blame("received after unsubscribing"); }
        }
        for (held& h : s->out) {
            if (h.d.ack()) { blame("ack after unsubscribing"); }
        }
        const std::string name = s->name;
        const sharing mode = s->mode;
        std::erase_if(subjects_, [&](const auto& one) { return one.get() == s; });
        open(name, mode);
    }
    // Closed, in one of four ways, of which those from the third on end its members with it, and opened again.
    void reopen() {
        for (const auto& s : subjects_) {
            for (const auto& p : s->parts) {
                if (std::any_of(p.items.begin(), p.items.end(), [](const item& i) { return i.extended; })) { return; }
            }
        }
        const unsigned how = d_.below(4);
        tell("reopen ", how);
        std::list<subject::one> members;
        if (how > 1) {
            for (auto& s : subjects_) { members.splice(members.end(), s->members); }
        }
        for (auto& s : subjects_) {
            s->members.clear();
            s->owners.clear();
            s->epoch = s->epoch + 1; // of nothing that is out
            for (held& h : s->out) { h.epoch = -1; }
            for (auto& p : s->parts) {
                for (item& i : p.items) {
                    if (i.is == item::state::leased) {
                        if (how > 1) {
                            i = {item::state::ready, i.attempt - 1, i.turn, 0, false, false, {}};
                        } else {
                            lapse(i);
                        }
                    }
                    i.lapsed = false;
                }
            }
        }
        home_.close(how);
        std::erase_if(subjects_, [&](const auto& s) {
            if (!s->name.empty()) { return false; }
            for (held& h : s->out) {
                if (h.d.ack()) { blame("ack of what an ended subscription gave"); }
            }
            return true;
        });
        home_.open(options_);
        for (auto& m : members) {
            if (m.handle.try_receive() || m.handle.lag() != 0) { blame("a handle on what was closed is alive"); }
        }
        turn_ = 0;
        check();
    }
    void pass_time() {
        const duration by = std::chrono::seconds(d_.between(1, d_.percent(30) ? 30 : 5));
        tell("time passes: ", by.count() / 1'000'000'000);
        clock_.advance(by);
        for (auto& s : subjects_) {
            for (auto& p : s->parts) {
                for (item& i : p.items) {
                    if (i.is == item::state::leased && i.when <= now()) { lapse(i); }
                }
            }
        }
    }
    void seek() {
        subject* const s = draw_subject();
        if (s == nullptr || s->members.empty()) { return; }
        tell(s->name, " seeks");
        subject before;
        before.parts = s->parts;
        const start to = draw_start(*s);
        if (to.what() == start::kind::place) { // the other partitions stay as they are
            for (int p = 0; p < s_.partitions; ++p) {
                if (p != to.where().partition) { s->parts[static_cast<std::size_t>(p)] = before.parts[static_cast<std::size_t>(p)]; }
            }
        } else {
            ++s->epoch;
        }
        if (to.what() == start::kind::place) {
            for (held& h : s->out) {
                if (h.d.partition() == to.where().partition) { h.epoch = -1; }
            }
        }
        if (to.what() == start::kind::place && d_.percent(50)) {
            s->members.front().handle.seek(to.where());
        } else {
            s->members.front().handle.seek(to);
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------ checks

    static std::size_t unsettled(const subject& s, bool = false) {
        std::size_t n = 0;
        for (const auto& p : s.parts) {
            for (const item& i : p.items) { n += i.is == item::state::ready || i.is == item::state::parked || i.is == item::state::leased; }
        }
        return n;
    }
    static std::size_t count(const subject& s, item::state what) {
        std::size_t n = 0;
        for (const auto& p : s.parts) {
            for (const item& i : p.items) { n += i.is == what; }
        }
        return n;
    }

    void check() {
        for (const auto& s : subjects_) {
            for (const auto& [m, value] : s->kept) {
                if (m.body() != value) { blame("a popped body has changed"); }
            }
            if (s->members.empty()) { continue; }
            auto& any = s->members.front().handle;
            const auto lag = any.lag();
            if (lag != unsettled(*s)) { blame(s->name, " lag ", lag, " instead of ", unsettled(*s)); }
            const auto stats = any.statistics();
            if (stats.in_flight != count(*s, item::state::leased)) {
                blame(s->name, " in flight ", stats.in_flight, all_of(*s, item::state::leased));
            }
            if (stats.dead != count(*s, item::state::dead)) {
                blame(s->name, " dead ", stats.dead, " instead of ", count(*s, item::state::dead), all_of(*s, item::state::dead));
            }
            if (any.dead().size() != stats.dead) { blame("dead letters"); }
        }
        for (int p = 0; p < s_.partitions; ++p) {
            const auto at = static_cast<std::size_t>(p);
            const offset head = log_[at].size();
            if (home_.topic->next_offset(p) != head) { blame("next offset"); }
            const std::set<offset> there = contents(at);
            const offset first = there.empty() ? head : *there.begin();
            if (home_.topic->first_offset(p) != first) { blame("first offset ", home_.topic->first_offset(p), " instead of ", first); }
        }
        const auto infos = home_.topic->subscriptions();
        if (infos.size() != subjects_.size()) { blame(infos.size(), " subscriptions instead of ", subjects_.size()); }
        for (const auto& i : infos) {
            if (i.name.empty()) { continue; }
            const auto s = std::find_if(subjects_.begin(), subjects_.end(), [&](const auto& one) { return one->name == i.name; });
            if (s == subjects_.end()) { return blame("an unknown subscription"); }
            if (i.members != (*s)->members.size() || (i.lag != unsettled(**s) && !(Home::is_stored && (*s)->filtered && (*s)->members.empty()))) {
                blame("subscriptions(): ", i.name, " lag ", i.lag, " instead of ", unsettled(**s));
            }
        }
    }

    // Everything that can be settled is, by members that ask in turn.
    void finish() {
        check();
        for (auto& s : subjects_) {
            for (held& h : s->out) { static_cast<void>(h.d.ack()); }
            s->out.clear();
        }
        clock_.advance(10min);
        for (auto& s : subjects_) {
            if (s->members.empty()) { continue; }
            for (auto& p : s->parts) {
                for (item& i : p.items) {
                    if (i.is == item::state::leased) { lapse(i); }
                }
            }
            for (bool any = true; any;) {
                any = false;
                for (auto& m : s->members) {
                    while (auto d = m.handle.try_receive()) {
                        any = true;
                        if (!d->ack()) { return blame("the last ack"); }
                    }
                }
            }
            if (s->members.front().handle.lag() != 0) { blame(s->name, " has a rest of ", s->members.front().handle.lag()); }
        }
        std::erase_if(subjects_, [](const auto& s) { return s->members.empty(); });
        if (d_.percent(50)) { home_.topic.reset(); } // what is out outlives it
    }

    dice d_;
    const settings s_;
    mailroom::testing::manual_clock clock_{std::chrono::hours(1)};
    mailroom::topic_options<int> options_;
    Home home_;
    std::vector<std::vector<published>> log_;
    std::vector<std::unique_ptr<subject>> subjects_;
    std::size_t turn_ = 0;
    std::string wrong_;
    std::ostringstream story_;
};

/// Plays one history. False: it failed, and said so.
template <class Home>
bool run(std::uint64_t seed, const settings& s, int length) {
    const std::string wrong = topic_world<Home>(seed, s).run(length);
    if (wrong.empty()) { return true; }
    FAIL_CHECK("MAILROOM_TEST_SEED=", seed, " partitions ", s.partitions, " retained ", s.retained, ": ", wrong);
    return false;
}

} // namespace support::topics
