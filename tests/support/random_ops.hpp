// Operations on one queue as values, which can be drawn at random, printed, replayed and left out. drivers.hpp does them.
#pragma once

#include "support/model.hpp"
#include "support/random.hpp"

#include <chrono>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace support {

// ---- text ----

inline std::string text_of(duration d) {
    std::ostringstream out;
    out << std::chrono::duration<double>(d).count() << "s";
    return out.str();
}
inline std::string text_of(message_state s) { return s == message_state::ready ? "ready" : s == message_state::in_flight ? "in_flight" : "parked"; }
inline std::string text_of(const mailroom::result<offset>& r) {
    if (!r) { return mailroom::describe_errc(r.error().kind()); }
    return *r == mailroom::no_offset ? "no_offset" : "offset " + std::to_string(*r);
}
inline std::string text_of(const mailroom::stats& s) {
    std::ostringstream out;
    out << "ready " << s.ready << " in_flight " << s.in_flight << " parked " << s.parked << " dead " << s.dead << " sent " << s.sent << " acked "
        << s.acked << " redelivered " << s.redelivered << " expired " << s.expired << " dropped " << s.dropped << " duplicates " << s.duplicates
        << " bytes " << s.bytes << " oldest_age " << text_of(s.oldest_age);
    return out.str();
}
inline std::string text_of(offset place, int body, const properties& p) {
    return '#' + std::to_string(place) + " body " + std::to_string(body) + " key '" + p.key + "' id '" + p.id + "' subject '" + p.subject + "'";
}
inline std::string text_of(const settings& o) {
    std::ostringstream out;
    const char* const rules[] = {"block", "reject", "drop_oldest", "drop_newest"};
    const int rule = o.overflow == mailroom::overflow::block         ? 0
                     : o.overflow == mailroom::overflow::reject      ? 1
                     : o.overflow == mailroom::overflow::drop_oldest ? 2
                                                                     : 3;
    out << "max_messages " << o.max_messages << " max_bytes " << o.max_bytes << " overflow " << rules[rule] << " lease " << text_of(o.lease)
        << " retry {" << o.retry.max_attempts << ", " << text_of(o.retry.initial) << ", " << o.retry.multiplier << ", " << text_of(o.retry.maximum)
        << "} max_in_flight " << o.max_in_flight << " time_to_live " << text_of(o.time_to_live) << " priorities " << o.priorities << " deduplicate {"
        << text_of(o.deduplicate.window) << ", " << o.deduplicate.until_settled << "} ordered_by_key " << o.ordered_by_key << " max_dead "
        << o.max_dead << " validate " << (o.validate ? "yes" : "no");
    return out.str();
}

// ---- operations ----

enum class verb {
    send,
    send_many,
    receive,
    receive_many,
    pop,
    pop_many,
    ack,
    nack,
    nack_after,
    release,
    reject,
    extend,
    destroy,
    advance,
    browse,
    pause,
    resume,
    purge,
    close,
    drain,
    dead_ack,
    dead_release,
    redrive,
    redrive_even,
    dead_purge,
    count
};
inline const char* const verb_names[] = {"send",         "send_many",  "receive",      "receive_many", "pop",    "pop_many", "ack",
                                         "nack",         "nack_after", "release",      "reject",       "extend", "destroy",  "advance",
                                         "browse",       "pause",      "resume",       "purge",        "close",  "drain",    "dead_ack",
                                         "dead_release", "redrive",    "redrive_even", "dead_purge"};

struct operation {
    verb what = verb::send;
    unsigned how = 0;   // which spelling of the same: send, try_send, send_for, ...
    unsigned which = 0; // which of the deliveries at hand, modulo their number
    bool keep = false;  // a settled delivery stays at hand, to be settled again
    int n = 0;          // body, or how many
    duration time{};
    properties props = properties();

    /// A send that is given a time to wait: none.
    bool waits() const { return how % 3 == 0; }
    /// A send without properties.
    bool is_bare() const {
        return props.key.empty() && props.id.empty() && props.subject.empty() && props.delay == duration() && props.time_to_live == duration() &&
               props.priority == 0;
    }
};
/// Time goes in steps of this, and everything is due at a multiple of it.
inline constexpr duration time_step = std::chrono::milliseconds(500);

inline std::string text_of(const operation& o) {
    std::string text = std::string(verb_names[static_cast<int>(o.what)]) + " " + std::to_string(o.n);
    const auto add = [&text](const char* name, const std::string& value) { text += std::string(" ") + name + "=" + value; };
    if (o.what >= verb::ack && o.what <= verb::destroy) { add("which", std::to_string(o.which)); }
    if (o.keep) { text += " keep"; }
    if (o.time != duration()) { add("time", text_of(o.time)); }
    if (!o.props.key.empty()) { add("key", o.props.key); }
    if (!o.props.id.empty()) { add("id", o.props.id); }
    if (!o.props.subject.empty()) { add("subject", o.props.subject); }
    if (o.props.delay != duration()) { add("delay", text_of(o.props.delay)); }
    if (o.props.time_to_live != duration()) { add("time_to_live", text_of(o.props.time_to_live)); }
    if (o.props.priority != 0) { add("priority", std::to_string(o.props.priority)); }
    return text + " (" + std::to_string(o.how) + ")";
}

/// Settings in which every option has its chance, alone and with others.
inline settings draw_settings(dice& d, unsigned chance) {
    using std::chrono::seconds;
    settings o;
    const auto with = [&](auto set) {
        if (d.percent(chance)) { set(); }
    };
    o.retry.initial = seconds(1);
    o.retry.maximum = seconds(20);
    const auto bound = [&](auto& limit, unsigned unit) {
        limit = unit * (3 + d.below(6));
        const mailroom::overflow rules[] = {mailroom::overflow::block, mailroom::overflow::reject, mailroom::overflow::drop_oldest,
                                            mailroom::overflow::drop_newest};
        o.overflow = rules[d.below(4)];
    };
    with([&] { bound(o.max_messages, 1); });
    with([&] { o.lease = seconds(d.percent(20) ? 0 : d.between(1, 5)); });
    with([&] { o.retry.max_attempts = d.percent(20) ? 0 : 1 + d.below(3); });
    with([&] { o.retry.initial = seconds(d.between(0, 3)); });
    with([&] { o.retry.multiplier = d.percent(50) ? 1 : 3; });
    with([&] { o.max_in_flight = 1 + d.below(4); });
    with([&] { o.time_to_live = seconds(d.between(1, 9)) + time_step; });
    with([&] { o.priorities = d.between(2, 10); });
    with([&] { o.deduplicate.window = seconds(d.between(1, 9)); });
    with([&] { o.deduplicate.until_settled = true; });
    with([&] { o.ordered_by_key = true; });
    with([&] { o.max_dead = 1 + d.below(3); });
    with([&] { o.validate = [](int body, const properties&) { return body % 7 != 3; }; });
    return o;
}

/// Times to live end at half seconds, all else at whole ones: two ends of one message never fall together, but with a step of the test.
inline std::vector<operation> draw(dice& d, const settings& o, int length) {
    using std::chrono::milliseconds;
    using std::chrono::seconds;
    const bool bounded = o.max_messages != 0 || o.max_bytes != 0;
    std::vector<std::pair<verb, int>> weights = {
        {verb::send, 30},    {verb::receive, 20},   {verb::receive_many, 2}, {verb::pop, 6},    {verb::pop_many, 1},  {verb::ack, 8},
        {verb::nack, 6},     {verb::nack_after, 3}, {verb::release, 3},      {verb::reject, 2}, {verb::extend, 2},    {verb::destroy, 3},
        {verb::advance, 12}, {verb::browse, 2},     {verb::pause, 1},        {verb::resume, 2}, {verb::dead_purge, 1}};
    if (!bounded || o.overflow != mailroom::overflow::block) { weights.push_back({verb::send_many, 3}); }
    if (o.max_dead == 0) { // else nobody knows which of them are left
        weights.insert(weights.end(), {{verb::dead_ack, 1}, {verb::dead_release, 1}, {verb::redrive, 2}, {verb::redrive_even, 2}});
    }
    if (d.percent(20)) { weights.push_back({verb::purge, 1}); }
    int total = 0;
    for (const auto& [what, weight] : weights) { total += weight; }

    std::vector<operation> list;
    for (int i = 0; i < length; ++i) {
        operation op;
        int at = d.between(0, total - 1);
        for (const auto& [what, weight] : weights) {
            if ((at -= weight) < 0) {
                op.what = what;
                break;
            }
        }
        if (i > length * 3 / 4 && d.percent(1)) { op.what = d.percent(50) ? verb::close : verb::drain; }
        op.how = d.below(60);
        op.which = d.below(1000);
        op.keep = d.percent(15);
        op.n = op.what == verb::send ? i : d.between(1, 4);
        if (op.what == verb::pop_many && o.ordered_by_key) { op.n = 1; } // one pop may or may not see what another in it let go
        op.time = seconds(d.between(0, 4));
        if (op.what == verb::advance) { op.time = time_step * (d.percent(80) ? d.between(1, 4) : d.between(5, 80)); }
        if (op.what == verb::extend) { op.time += seconds(1); }
        if (op.what == verb::send) {
            if (d.percent(o.ordered_by_key ? 80 : 20)) { op.props.key = std::string(1, static_cast<char>('a' + d.below(3))); }
            if (d.percent(o.deduplicate.until_settled || o.deduplicate.window > duration() ? 60 : 5)) { op.props.id = std::to_string(d.below(6)); }
            if (d.percent(10)) { op.props.subject = "s"; }
            if (d.percent(15)) { op.props.delay = seconds(d.between(1, 6)); }
            if (d.percent(10)) { op.props.time_to_live = seconds(d.between(1, 8)) + milliseconds(500); }
            if (d.percent(o.priorities > 1 ? 60 : 10)) { op.props.priority = d.between(0, 9); }
            if (d.percent(1)) { op.props.priority = d.percent(50) ? -1 : 10; }
            if (d.percent(1)) { (d.percent(50) ? op.props.delay : op.props.time_to_live) = seconds(-1); }
        }
        list.push_back(op);
    }
    return list;
}

} // namespace support
