// The reference: one queue as the design says it behaves, slow and plain, for one thread, in virtual time. What it says, sentence by sentence:
//
// Sending
//   1. A message is looked at before the queue: wrong properties are `invalid`, what `validate` refuses is `rejected`. Then: `closed`;
//      more at once than the queue could ever hold is `too_large`; a duplicate gets the original's offset and is counted; then room.
//   2. What is accepted takes the next offset, dense from 0, and is `sent`. Nothing else uses up an offset or remembers an id.
//   3. Room counts every message that is not settled, in flight ones too, dead ones not. Without room: block and reject refuse (`full`, or
//      `timed_out` where a time was given); drop_newest answers no_offset and counts the drop; drop_oldest drops the smallest offsets that are
//      not in flight, as many as needed and counted, or none and `full`.
//   4. A duplicate has the id of a message accepted less than `window` ago, or (until_settled) of one that is not settled: the latest is
//      the original. A redriven message is unsettled again; for the window it was sent when it was sent.
// Time
//   5. What is due at an instant has happened at that instant: a delay, a retry, a lease or a time to live is over when now >= its end.
//   6. A lease that ends makes the message ready, attempt + 1; who had it can still settle it until somebody else is given it.
//   7. Time to live (the message's own, else the queue's) runs from send, or redrive, and takes whatever is not in flight: to the dead, `expired`.
//      A message in flight is left alone; it goes when it comes back. max_attempts is asked before time to live.
// Receiving
//   8. Ready messages of the highest level first, then by offset; a retried one is at its own offset again.
//   9. With ordered_by_key a message with a key is held while an earlier one of that key is unsettled, or any of it is in flight. It counts as ready.
//  10. Nothing is handed out while paused or while max_in_flight are out; pop is receive and ack, so that holds for it too.
//  11. `redelivered` counts what is handed out with an attempt above 1.
// Settling: true, and done, only for the delivery handed out last, once, and while the message is in the queue.
//  12. nack: parked for initial * multiplier^(attempt - 1), at most `maximum`, or for the time given (0: ready at once), attempt + 1;
//      at max_attempts to the dead instead. Destroying an unsettled delivery is nack.
//  13. release: ready at its place, attempt unchanged. reject: to the dead. extend: in flight until now + lease.
// The dead
//  14. Beyond max_dead one is dropped, and counted (the oldest; what dies at one instant has no order). Acknowledged there they are `acked`.
//      Their attempts() are those that were made: none before the first receive, and one that was released was none.
//  15. redrive makes them ready at their own offsets, attempt 1, room or not.
//  16. purge of either kind counts as dropped; of the queue it takes what is in flight too.
// The end
//  17. close refuses sends only. Every message ever sent is acked, ready, in_flight, parked, dead or dropped: the statistics add up.
#pragma once

#include <mailroom/queue.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace support {

using mailroom::duration, mailroom::errc, mailroom::message_state, mailroom::offset, mailroom::properties;
using settings = mailroom::queue_options<int>;

class model {
public:
    static constexpr duration never = duration::max();

    struct entry {
        offset place = 0;
        int body = 0;
        properties props = properties();
        duration sent{}, due{}, expires = never, lease_over = never;
        message_state state = message_state::ready;
        std::uint32_t attempt = 1; // of the delivery that is out, or else of the next; dead: how many there were
        std::uint64_t holder = 0;  // the delivery that may settle it
        std::string reason = "";   // of its death
    };

    /// What receive gives. Settles through the model; destroyed unsettled it is a nack.
    class delivery {
    public:
        delivery(model& from, const entry& e) : from_(&from), entry_(e) {}
        delivery(delivery&& other) noexcept : from_(std::exchange(other.from_, nullptr)), entry_(std::move(other.entry_)) {}
        delivery& operator=(delivery&& other) noexcept {
            std::swap(from_, other.from_);
            std::swap(entry_, other.entry_);
            return *this;
        }
        ~delivery() { nack(); }

        const entry& operator*() const { return entry_; }
        bool ack() {
            return settle([](model& m, entry& e) { m.gone(e, m.counts_.acked); });
        }
        bool nack() { return nack(from_ != nullptr ? from_->backoff(entry_.attempt) : duration()); }
        bool nack(duration after) {
            return settle([after](model& m, entry& e) { m.failed(e, after, "attempts"); });
        }
        bool release() {
            return settle([](model& m, entry& e) { m.back(e, e.attempt, m.now_); });
        }
        bool reject(std::string why) {
            return settle([&](model& m, entry& e) { m.die(e, why, e.attempt); });
        }
        bool extend(duration lease) {
            if (from_ == nullptr || from_->is_taken_back(entry_)) { return false; }
            entry* const e = from_->held_by(entry_);
            if (e == nullptr) { return false; }
            e->state = message_state::in_flight;
            e->lease_over = from_->now_ + lease;
            return true;
        }
        void orphan() { from_ = nullptr; } // its queue is gone

    private:
        template <class Act>
        bool settle(Act act) {
            model* const m = std::exchange(from_, nullptr);
            entry* const e = m != nullptr ? m->held_by(entry_) : nullptr;
            if (e == nullptr) { return false; }
            act(*m, *e);
            m->step();
            return true;
        }
        model* from_;
        entry entry_;
    };

    /// `weight` says how many bytes a body counts for.
    using weigher = std::size_t (*)(int body);
    explicit model(const settings& o, weigher weight) : o_(o), weight_(weight) {}

    // -- sending --

    mailroom::result<offset> send(const std::vector<int>& bodies, const properties& p) {
        const load more{bodies.size(), std::accumulate(bodies.begin(), bodies.end(), std::size_t{0},
                                                       [&](std::size_t sum, int body) { return sum + weight_(body); })};
        if (p.priority < 0 || p.priority > 9 || p.delay < duration() || p.time_to_live < duration()) { return errc::invalid; }
        for (const int body : bodies) {
            if (o_.validate && !o_.validate(body, p)) { return errc::rejected; }
        }
        if (closed_) { return errc::closed; }
        if (!fits(more)) { return errc::too_large; }
        if (const auto original = original_of(p.id)) { return ++counts_.duplicates, *original; }
        if (!fits(now() + more)) {
            if (o_.overflow == mailroom::overflow::drop_newest) { return counts_.dropped += more.messages, mailroom::no_offset; }
            if (o_.overflow != mailroom::overflow::drop_oldest || !drop_oldest_for(more)) { return errc::full; }
        }
        const offset first = next_;
        for (const int body : bodies) {
            entry e{.place = next_++, .body = body, .props = p, .sent = now_, .due = now_ + p.delay};
            if (p.delay > duration()) { e.state = message_state::parked; }
            start_time_to_live(e);
            alive_.emplace(e.place, e);
            ++counts_.sent;
        }
        if (!p.id.empty()) { ids_[p.id] = {first, now_ + o_.deduplicate.window}; }
        return first;
    }

    // -- receiving --

    std::optional<delivery> receive() {
        entry* const e = next_ready();
        if (e == nullptr) { return std::nullopt; }
        e->state = message_state::in_flight;
        e->lease_over = o_.lease > duration() ? now_ + o_.lease : never;
        e->holder = ++holders_;
        if (e->attempt > 1) { ++counts_.redelivered; }
        return delivery(*this, *e);
    }

    // -- the dead --

    const std::deque<entry>& dead() const { return dead_; }
    void ack_dead() { counts_.acked += dead_.size(), dead_.clear(); }
    std::size_t purge_dead() {
        const std::size_t n = dead_.size();
        return dead_.clear(), counts_.dropped += n, n;
    }
    template <class Predicate>
    std::size_t redrive(Predicate pred) {
        std::size_t done = 0;
        for (auto e = dead_.begin(); e != dead_.end();) {
            if (!pred(e->body)) {
                ++e;
                continue;
            }
            e->holder = 0;
            start_time_to_live(*e);
            back(alive_[e->place] = *e, 1, now_);
            e = dead_.erase(e);
            ++done;
        }
        return done;
    }

    // -- the rest --

    mailroom::stats statistics() const {
        mailroom::stats s = counts_;
        for (const auto& [place, e] : alive_) {
            ++(e.state == message_state::ready ? s.ready : e.state == message_state::parked ? s.parked : s.in_flight);
            s.bytes += weight_(e.body);
        }
        for (std::size_t i = 0; i < dead_.size(); ++i) { ++s.dead; }
        if (!alive_.empty()) { s.oldest_age = now_ - alive_.begin()->second.sent; }
        return s;
    }
    const std::map<offset, entry>& browse() const { return alive_; }
    std::size_t purge() {
        const std::size_t n = alive_.size();
        return alive_.clear(), counts_.dropped += n, n;
    }
    void pause() { paused_ = true; }
    void resume() { paused_ = false; }
    void close() { closed_ = true; }
    bool closed() const { return closed_; }
    bool drained() const { return alive_.empty(); }
    void advance(duration d) {
        now_ += d;
        step();
    }

protected:
    entry* next_ready() {
        if (paused_) { return nullptr; }
        std::size_t out = 0;
        for (const auto& [place, e] : alive_) { out += e.state == message_state::in_flight; }
        if (o_.max_in_flight != 0 && out >= o_.max_in_flight) { return nullptr; }
        entry* best = nullptr;
        for (auto& [place, e] : alive_) {
            if (e.state != message_state::ready || held_by_key(e)) { continue; }
            if (best == nullptr || level(e) > level(*best)) { best = &e; }
        }
        return best;
    }
    bool held_by_key(const entry& e) const {
        if (!o_.ordered_by_key || e.props.key.empty()) { return false; }
        return std::any_of(alive_.begin(), alive_.end(), [&](const auto& other) {
            const entry& o = other.second;
            return o.props.key == e.props.key && (o.place < e.place || o.state == message_state::in_flight);
        });
    }
    /// Its lease has lapsed, and meanwhile another of its key was handed out.
    bool is_taken_back(const entry& handed_out) const {
        if (!o_.ordered_by_key || handed_out.props.key.empty()) { return false; }
        const auto mine = alive_.find(handed_out.place);
        if (mine == alive_.end() || mine->second.state == message_state::in_flight) { return false; }
        return std::any_of(alive_.begin(), alive_.end(), [&](const auto& other) {
            const entry& o = other.second;
            return o.props.key == handed_out.props.key && o.place != handed_out.place && o.state == message_state::in_flight;
        });
    }
    int level(const entry& e) const { return std::min<int>(e.props.priority, static_cast<int>(o_.priorities) - 1); }

    struct load {
        std::size_t messages, bytes;
        load operator+(load other) const { return {messages + other.messages, bytes + other.bytes}; }
        load operator-(load other) const { return {messages - other.messages, bytes - other.bytes}; }
    };
    load now() const {
        load sum{alive_.size(), 0};
        for (const auto& [place, e] : alive_) { sum.bytes += weight_(e.body); }
        return sum;
    }
    bool fits(load l) const { return (o_.max_messages == 0 || l.messages <= o_.max_messages) && (o_.max_bytes == 0 || l.bytes <= o_.max_bytes); }
    bool drop_oldest_for(load more) {
        std::vector<offset> victims;
        load left = now();
        for (auto e = alive_.begin(); e != alive_.end() && !fits(left + more); ++e) {
            if (e->second.state == message_state::in_flight) { continue; }
            victims.push_back(e->first);
            left = left - load{1, weight_(e->second.body)};
        }
        if (!fits(left + more)) { return false; }
        for (const offset victim : victims) { gone(alive_.at(victim), counts_.dropped); }
        return true;
    }
    std::optional<offset> original_of(const std::string& id) const {
        if (id.empty()) { return std::nullopt; }
        if (const auto last = ids_.find(id); last != ids_.end() && now_ < last->second.second) { return last->second.first; }
        if (!o_.deduplicate.until_settled) { return std::nullopt; }
        const auto latest = std::find_if(alive_.rbegin(), alive_.rend(), [&](const auto& e) { return e.second.props.id == id; });
        return latest != alive_.rend() ? std::optional(latest->first) : std::nullopt;
    }
    void start_time_to_live(entry& e) const {
        const duration d = e.props.time_to_live > duration() ? e.props.time_to_live : o_.time_to_live;
        e.expires = d > duration() ? now_ + d : never;
    }
    duration backoff(std::uint32_t attempt) const {
        const double grown = static_cast<double>(o_.retry.initial.count()) * std::pow(o_.retry.multiplier, attempt - 1);
        return grown < static_cast<double>(o_.retry.maximum.count()) ? duration(std::llround(grown)) : o_.retry.maximum;
    }

    /// The message of that delivery, if the delivery may settle it.
    entry* held_by(const entry& handed_out) {
        const auto e = alive_.find(handed_out.place);
        if (e == alive_.end() || e->second.holder != handed_out.holder) { return nullptr; }
        e->second.attempt = handed_out.attempt;
        return &e->second;
    }
    template <class Counter>
    void gone(entry& e, Counter& counter) {
        ++counter;
        alive_.erase(offset(e.place));
    }
    void back(entry& e, std::uint32_t attempt, duration due) {
        e.attempt = attempt;
        e.due = due;
        e.state = due > now_ ? message_state::parked : message_state::ready;
    }
    void failed(entry& e, duration after, const char* why) {
        if (o_.retry.max_attempts != 0 && e.attempt >= o_.retry.max_attempts) { return die(e, why, e.attempt); }
        back(e, e.attempt + 1, now_ + after);
    }
    void die(entry& e, std::string why, std::uint32_t attempts) {
        e.reason = std::move(why);
        e.attempt = attempts;
        dead_.push_back(e);
        alive_.erase(offset(e.place));
        if (o_.max_dead != 0 && dead_.size() > o_.max_dead) { dead_.pop_front(), ++counts_.dropped; }
    }
    void step() {
        for (auto next = alive_.begin(); next != alive_.end();) {
            entry& e = (next++)->second;
            if (e.state == message_state::in_flight) {
                if (now_ < e.lease_over) { continue; }
                const bool last = o_.retry.max_attempts != 0 && e.attempt >= o_.retry.max_attempts;
                failed(e, duration(), "lease");
                if (last) { continue; }
            }
            if (e.state == message_state::parked && now_ >= e.due) { e.state = message_state::ready; }
            if (now_ >= e.expires) { ++counts_.expired, die(e, "expired", e.attempt - 1); }
        }
    }

    settings o_;
    weigher weight_;
    duration now_{};
    std::map<offset, entry> alive_;
    std::deque<entry> dead_;
    std::map<std::string, std::pair<offset, duration>> ids_;
    mailroom::stats counts_ = mailroom::stats(); // the "ever" half
    offset next_ = 0;
    std::uint64_t holders_ = 0;
    bool paused_ = false, closed_ = false;
};

} // namespace support
