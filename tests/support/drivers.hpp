// Does operations to the model and to a queue, one by one. Whatever either says must be the same, word for word.
//
//   model_hands, queue_hands   how each operation is done, and what came of it as text
//   driver<Hands>              keeps the deliveries at hand and does whole operations
//   compare                    does a list to both and finds the first difference; `shrink` leaves out what it does not need
#pragma once

#include "support/random_ops.hpp"
#include "support/tracked.hpp"

#include <mailroom/testing.hpp>

#include <chrono>
#include <cstddef>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// How things are done to the model, or to a double of it that has a fault.
template <class Model = model>
class model_hands {
public:
    using delivery = model::delivery;

    explicit model_hands(
        const settings& o, model::weigher weight = [](int) { return sizeof(int); })
        : o_(o), queue_(o, weight) {}
    Model& queue() { return queue_; }
    void advance(duration d) { queue_.advance(d); }

    std::string send(const operation& op) {
        const auto r = queue_.send({op.n}, op.props);
        const bool late = op.waits() && o_.overflow == mailroom::overflow::block && !r && r.error() == errc::full;
        return text_of(late ? mailroom::result<offset>(errc::timed_out) : r);
    }
    std::string send_many(const operation& op) { return text_of(queue_.send(std::vector<int>(static_cast<std::size_t>(op.n), op.n), properties())); }
    std::optional<delivery> receive(const operation&) { return queue_.receive(); }
    std::vector<delivery> receive_many(const operation& op) {
        std::vector<delivery> list;
        while (static_cast<int>(list.size()) < op.n) {
            auto d = queue_.receive();
            if (!d) { break; }
            list.push_back(std::move(*d));
        }
        return list;
    }
    std::string pop(const operation&) {
        auto d = queue_.receive();
        if (!d) { return "nothing"; }
        d->ack();
        return text_of((**d).place, (**d).body, (**d).props);
    }
    std::string pop_many(const operation& op) {
        std::string text = "got";
        for (int i = 0; i < op.n; ++i) {
            const std::string one = pop(op);
            if (one == "nothing") { break; }
            text += ", " + one;
        }
        return text;
    }
    std::string describe(const delivery& d) {
        return text_of((*d).place, (*d).body, (*d).props) + " attempt " + std::to_string((*d).attempt) + " sent " + text_of((*d).sent);
    }
    std::string browse() {
        std::string text;
        for (const auto& [place, e] : queue_.browse()) { text += text_of(place, e.body, e.props) + " " + text_of(e.state) + "; "; }
        return text;
    }
    bool drain() {
        queue_.close();
        return queue_.drained();
    }
    std::map<offset, std::string> dead(bool ack) {
        std::map<offset, std::string> lines;
        for (const auto& e : queue_.dead()) {
            lines[e.place] = text_of(e.place, e.body, e.props) + " attempts " + std::to_string(e.attempt) + (e.reason == "why" ? " why" : "");
        }
        if (ack) { queue_.ack_dead(); }
        return lines;
    }
    std::size_t redrive() {
        return queue_.redrive([](int) { return true; });
    }
    std::size_t redrive_even() {
        return queue_.redrive([](int body) { return body % 2 == 0; });
    }
    std::size_t purge_dead() { return queue_.purge_dead(); }
    void end(std::vector<delivery>& held) {
        for (auto& d : held) { d.orphan(); }
    }

private:
    settings o_;
    Model queue_;
};

/// How things are done to a queue with the face of api.md, in every spelling there is, under a clock advanced by hand.
template <class T, class Queue = mailroom::queue<T>>
class queue_hands {
public:
    using delivery = mailroom::delivery<T>;

    explicit queue_hands(const settings& o)
        : may_wait_(o.overflow == mailroom::overflow::block && (o.max_messages != 0 || o.max_bytes != 0)), born_(clock_.wall()),
          queue_(std::in_place, translate(o, clock_)) {}
    Queue& queue() { return *queue_; }
    void advance(duration d) { clock_.advance(d); }

    std::string send(const operation& op) {
        T body = body_of<T>::make(op.n);
        const T copy = body;
        const bool bare = op.is_bare();
        const auto r = attempt([&]() -> mailroom::result<offset> {
            if (op.waits()) { return bare ? queue_->send_for(duration(), std::move(body)) : queue_->send_for(duration(), std::move(body), op.props); }
            if (op.how % 2 == 0 || may_wait_) { return bare ? queue_->try_send(std::move(body)) : queue_->try_send(std::move(body), op.props); }
            switch (op.how % 5) {
            case 0: return bare ? queue_->try_send(copy) : queue_->try_send(copy, op.props);
            case 1: return bare ? queue_->emplace(copy) : queue_->send(copy, op.props);
            case 2: return bare ? queue_->send_async(copy).wait() : queue_->send_async(copy, op.props).wait();
            case 3: return queue_->send(copy, op.props, mailroom::stop_token());
            default: return bare ? queue_->send(copy) : queue_->send(copy, op.props);
            }
        });
        return support::text_of(r) + (!r && number_of(body) != op.n ? ", but the body was moved from" : "");
    }
    std::string send_many(const operation& op) {
        std::vector<T> bodies;
        for (int i = 0; i < op.n; ++i) { bodies.push_back(body_of<T>::make(op.n)); }
        return support::text_of(attempt(
            [&]() -> mailroom::result<offset> { return op.how % 2 == 0 ? queue_->send_many(bodies) : queue_->send_many(std::move(bodies)); }));
    }
    std::optional<delivery> receive(const operation& op) { return op.how % 2 == 0 ? queue_->try_receive() : queue_->receive_for(duration()); }
    std::vector<delivery> receive_many(const operation& op) {
        std::vector<delivery> list;
        queue_->receive_many(list, static_cast<std::size_t>(op.n));
        return list;
    }
    std::string pop(const operation& op) {
        const auto m = op.how % 2 == 0 ? queue_->try_pop() : queue_->pop_for(duration());
        return m ? text_of(*m) : "nothing";
    }
    std::string pop_many(const operation& op) {
        std::vector<mailroom::message<T>> list;
        queue_->pop_many(std::back_inserter(list), static_cast<std::size_t>(op.n));
        std::string text = "got";
        for (const auto& m : list) { text += ", " + text_of(m); }
        return text;
    }
    std::string describe(const delivery& d) {
        return text_of(d) + " attempt " + std::to_string(d.attempt()) + " sent " + support::text_of(duration(d.timestamp() - born_));
    }
    std::string browse() {
        std::map<offset, std::string> lines; // in whichever order they come; one that comes twice shows
        queue_->browse([&](const mailroom::message<T>& m, message_state s) {
            lines[m.offset()] += text_of(m) + " " + support::text_of(s) + "; ";
            return true;
        });
        std::string text;
        for (const auto& [place, line] : lines) { text += line; }
        return text;
    }
    bool drain() { return queue_->drain(duration()); }
    std::map<offset, std::string> dead(bool ack) {
        std::map<offset, std::string> lines;
        std::vector<mailroom::dead_letter<T>> letters;
        while (auto d = queue_->dead().try_receive()) { letters.push_back(std::move(*d)); }
        for (auto& d : letters) {
            lines[d.offset()] += text_of(d) + " attempts " + std::to_string(d.attempts()) + (d.reason() == "why" ? " why" : "");
            if (!(ack ? d.ack() : d.release())) { lines[d.offset()] += ", but it could not be settled"; }
        }
        return lines;
    }
    std::size_t redrive() { return queue_->dead().redrive(queue_->dead().size()); }
    std::size_t redrive_even() {
        return queue_->dead().redrive_if([](const auto& d) { return number_of(d.body()) % 2 == 0; });
    }
    std::size_t purge_dead() { return queue_->dead().purge(); }
    void end(std::vector<delivery>&) { queue_.reset(); }

private:
    template <class Message>
    static std::string text_of(const Message& m) {
        return support::text_of(m.offset(), number_of(m.body()), m.props());
    }
    template <class Send>
    static mailroom::result<offset> attempt(Send send) {
        try {
            return send();
        } catch (const mailroom::error& e) { return e.kind(); }
    }
    static mailroom::queue_options<T> translate(const settings& o, mailroom::clock& clock) {
        mailroom::queue_options<T> t;
        t.max_messages = o.max_messages;
        t.max_bytes = o.max_bytes;
        t.overflow = o.overflow;
        t.lease = o.lease;
        t.retry = o.retry;
        t.max_in_flight = o.max_in_flight;
        t.time_to_live = o.time_to_live;
        t.priorities = o.priorities;
        t.deduplicate = o.deduplicate;
        t.ordered_by_key = o.ordered_by_key;
        t.max_dead = o.max_dead;
        if (o.validate) {
            t.validate = [v = o.validate](const T& body, const properties& p) { return v(number_of(body), p); };
        }
        t.clock = &clock;
        return t;
    }

    const bool may_wait_;
    mailroom::testing::manual_clock clock_;
    const mailroom::time_point born_;
    std::optional<Queue> queue_;
};

/// Does operations with a pair of hands, and keeps what they hold.
template <class Hands>
class driver {
public:
    template <class... Args>
    explicit driver(const Args&... args) : hands_(args...) {}

    /// Says what came of it, and how the queue stands then.
    std::string apply(const operation& op) {
        std::string text = outcome(op);
        return text + " | " + text_of(hands_.queue().statistics());
    }

    /// The queue goes before the deliveries that are out: their bodies stay, their settlements are refused.
    std::string end() {
        hands_.end(held_);
        std::string text;
        for (auto& d : held_) { text += d.ack() ? "true " : "false "; }
        held_.clear();
        return text;
    }

private:
    std::string outcome(const operation& op) {
        switch (op.what) {
        case verb::send: return hands_.send(op);
        case verb::send_many: return hands_.send_many(op);
        case verb::receive: {
            auto d = hands_.receive(op);
            return d ? keep(std::move(*d)) : "nothing";
        }
        case verb::receive_many: {
            std::string text = "got";
            for (auto& d : hands_.receive_many(op)) { text += ", " + keep(std::move(d)); }
            return text;
        }
        case verb::pop: return hands_.pop(op);
        case verb::pop_many: return hands_.pop_many(op);
        case verb::advance: // in steps, with a look at each: what is due at different instants is seen to happen in that order
            for (duration left = op.time; left > duration(); left -= time_step) {
                hands_.advance(time_step);
                static_cast<void>(hands_.queue().statistics());
            }
            return "";
        case verb::browse: return hands_.browse();
        case verb::pause: return hands_.queue().pause(), "";
        case verb::resume: return hands_.queue().resume(), "";
        case verb::purge: return std::to_string(hands_.queue().purge());
        case verb::close: return hands_.queue().close(), "";
        case verb::drain: return hands_.drain() ? "drained" : "not drained";
        case verb::dead_ack:
        case verb::dead_release: {
            std::string text;
            for (const auto& [place, line] : hands_.dead(op.what == verb::dead_ack)) { text += line + "; "; }
            return text;
        }
        case verb::redrive: return std::to_string(hands_.redrive());
        case verb::redrive_even: return std::to_string(hands_.redrive_even());
        case verb::dead_purge: return std::to_string(hands_.purge_dead());
        default: return held_.empty() ? "nothing at hand" : settle(op);
        }
    }
    std::string keep(typename Hands::delivery d) {
        std::string text = hands_.describe(d);
        held_.push_back(std::move(d));
        return text;
    }
    std::string settle(const operation& op) {
        const auto d = held_.begin() + static_cast<std::ptrdiff_t>(op.which % held_.size());
        const bool done = op.what == verb::ack          ? d->ack()
                          : op.what == verb::nack       ? d->nack()
                          : op.what == verb::nack_after ? d->nack(op.time)
                          : op.what == verb::release    ? d->release()
                          : op.what == verb::reject     ? d->reject(op.how % 2 == 0 ? "why" : "")
                          : op.what == verb::extend     ? d->extend(op.time)
                                                        : false;
        if (op.what != verb::extend && !(op.keep && op.what != verb::destroy)) { held_.erase(d); }
        return done ? "true" : "false";
    }

    Hands hands_;
    std::vector<typename Hands::delivery> held_;
};

/// What a body counts for, found out by sending it.
template <class T>
std::size_t weight_of(int body) {
    static std::map<int, std::size_t> known;
    const auto [it, is_new] = known.try_emplace(body);
    if (is_new) {
        mailroom::queue<T> probe;
        probe.send(body_of<T>::make(body));
        it->second = static_cast<std::size_t>(probe.statistics().bytes);
    }
    return it->second;
}

/// Settings in which one option differs from the ordinary, and what it is called.
inline std::vector<std::pair<std::string, settings>> each_option_alone() {
    using std::chrono::seconds;
    const struct {
        const char* name;
        void (*set)(settings&);
    } table[] = {
        {"defaults", [](settings&) {}},
        {"no lease", [](settings& o) { o.lease = seconds(0); }},
        {"short lease", [](settings& o) { o.lease = seconds(1); }},
        {"one attempt", [](settings& o) { o.lease = seconds(2), o.retry.max_attempts = 1; }},
        {"attempts without end", [](settings& o) { o.lease = seconds(1), o.retry.max_attempts = 0; }},
        {"retry at once", [](settings& o) { o.retry.initial = seconds(0); }},
        {"few dead", [](settings& o) { o.max_dead = 2, o.retry.max_attempts = 1; }},
        {"block", [](settings& o) { o.max_messages = 4; }},
        {"reject", [](settings& o) { o.max_messages = 4, o.overflow = mailroom::overflow::reject; }},
        {"drop oldest", [](settings& o) { o.max_messages = 4, o.overflow = mailroom::overflow::drop_oldest; }},
        {"drop newest", [](settings& o) { o.max_messages = 4, o.overflow = mailroom::overflow::drop_newest; }},
        {"one in flight", [](settings& o) { o.max_in_flight = 1; }},
        {"time to live", [](settings& o) { o.time_to_live = seconds(5) + time_step, o.lease = seconds(3); }},
        {"two levels", [](settings& o) { o.priorities = 2; }},
        {"ten levels", [](settings& o) { o.priorities = 10; }},
        {"ids in a window", [](settings& o) { o.deduplicate.window = seconds(4); }},
        {"ids until settled", [](settings& o) { o.deduplicate.until_settled = true; }},
        {"order by key", [](settings& o) { o.ordered_by_key = true, o.lease = seconds(3); }},
        {"validation", [](settings& o) { o.validate = [](int body, const properties&) { return body % 3 != 0; }; }},
    };
    std::vector<std::pair<std::string, settings>> all;
    for (const auto& row : table) {
        settings o;
        o.retry.initial = seconds(1);
        o.retry.maximum = seconds(20);
        row.set(o);
        all.emplace_back(row.name, o);
    }
    return all;
}

// ---- comparison ----

struct difference {
    std::vector<operation> list; // the last of which shows it
    std::string expected, actual;
};

/// Does the operations to the model and to what `Hands` holds; answers where they part.
template <class Hands>
std::optional<difference> compare(const settings& o, const std::vector<operation>& list, model::weigher weight) {
    driver<model_hands<>> expecting(o, weight);
    driver<Hands> tested(o);
    for (std::size_t i = 0; i < list.size(); ++i) {
        std::string expected = expecting.apply(list[i]), actual = tested.apply(list[i]);
        if (expected != actual) { return difference{{list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i) + 1}, expected, actual}; }
    }
    std::string expected = expecting.end(), actual = tested.end();
    if (expected != actual) { return difference{list, "at the end: " + expected, actual}; }
    return std::nullopt;
}

/// Leaves out of the list of what was found, many at once and then single ones, as long as `again(list)` finds something still.
template <class Found, class Again>
Found shorten(Found found, Again again) {
    for (std::size_t chunk = found.list.size() / 2; chunk > 0;) {
        bool smaller = false;
        for (std::size_t at = 0; at + chunk <= found.list.size();) {
            auto fewer = found.list;
            fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(at), fewer.begin() + static_cast<std::ptrdiff_t>(at + chunk));
            if (auto still = again(fewer)) {
                found = std::move(*still);
                smaller = true;
            } else {
                at += chunk;
            }
        }
        if (chunk > 1) {
            chunk /= 2;
        } else if (!smaller) {
            break;
        }
    }
    return found;
}
template <class Hands>
difference shrink(const settings& o, difference found, model::weigher weight) {
    return shorten(std::move(found), [&](const auto& fewer) { return compare<Hands>(o, fewer, weight); });
}

/// For people: what was done, what should have come of it, what did.
inline std::string text_of(const settings& o, const difference& d) {
    std::string text = "\nsettings: " + text_of(o) + "\n";
    for (const auto& op : d.list) { text += "  " + text_of(op) + "\n"; }
    return text + "expected: " + d.expected + "\nactual:   " + d.actual;
}

} // namespace support
