// Concurrent histories of one FIFO queue, and whether they are linearizable: whether all calls can be put in one order that each thread
// and the clock on the wall agree with, in which a queue that does one thing at a time would have given the same answers.
//
// The search is Wing and Gong's with Lowe's memory of the configurations seen ("Testing for linearizability", 2017): sound and complete,
// up to 64 calls. Offsets that calls return, where known, are part of the answers, and make the search short.
//
// What a queue may do within a call, as guarantees.md has it:
//   - a send first takes its offset, later its message can be seen: until it returns, it may hold up what is behind it ("the price of total
//     order"). So `nothing` is a true answer if the first that is not taken belongs to a send that has not returned. (`strict`: it is not.)
//   - a pop first takes the message, later it is settled: until it returns, it may still count against max_messages.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace support {

/// What a thread calls, and what it is told.
struct call {
    enum class verb : std::uint8_t { send, pop, receive, ack, back, close }; // back: nack at once, or release
    enum class answer : std::uint8_t { done, nothing, full, closed, refused };
    static constexpr std::uint64_t unknown = ~std::uint64_t{0};

    verb what = verb::send;
    answer said = answer::done;
    int thread = 0;
    int body = 0;                  // of a send of several: the first, the others count up
    int count = 1;                 // of a send
    std::uint64_t place = unknown; // the offset, where the call says it
    std::uint64_t begin = 0, end = 0;
};

/// Everything that was called on a queue, what was in it before and what was left in it afterwards (offsets ascend, none in flight).
struct history {
    std::vector<call> calls;
    std::vector<std::pair<std::uint64_t, int>> before; // offset, body
    std::vector<int> after;
    std::uint64_t next = 0; // the offset of the next send
    std::size_t max_messages = 0;
    bool strict = false;
};

inline std::string text_of(const call& c) {
    const char* const verbs[] = {"send", "pop", "receive", "ack", "back", "close"};
    const char* const answers[] = {"done", "nothing", "full", "closed", "refused"};
    std::string text = "thread " + std::to_string(c.thread) + " [" + std::to_string(c.begin) + ", " + std::to_string(c.end) + "] " +
                       verbs[static_cast<int>(c.what)] + " ";
    if (c.said == call::answer::done || c.what == call::verb::send) {
        text += std::to_string(c.body) + (c.count > 1 ? " x" + std::to_string(c.count) : "") + " ";
    }
    return text + answers[static_cast<int>(c.said)] + (c.place == call::unknown ? "" : " #" + std::to_string(c.place));
}

inline std::string text_of(const history& h) {
    std::string text = "before:";
    for (const auto& [place, body] : h.before) { text += " " + std::to_string(body); }
    auto calls = h.calls;
    std::sort(calls.begin(), calls.end(), [](const call& a, const call& b) { return a.begin < b.begin; });
    for (const call& c : calls) { text += "\n  " + text_of(c); }
    text += "\nafter:";
    for (const int body : h.after) { text += " " + std::to_string(body); }
    return text;
}

/// How many of the calls overlapped one of another thread: what a history is worth.
inline std::size_t overlapping(const history& h) {
    return static_cast<std::size_t>(std::count_if(h.calls.begin(), h.calls.end(), [&](const call& a) {
        return std::any_of(h.calls.begin(), h.calls.end(), [&](const call& b) { return a.thread != b.thread && a.begin < b.end && b.begin < a.end; });
    }));
}

/// The queue that does one thing at a time: what is in it, in order, and what calls of which we know the answer do to it.
class sequential_queue {
public:
    explicit sequential_queue(const history& h) : history_(&h), next_(h.next) {
        for (const auto& [place, body] : h.before) { items_.push_back({place, body, ready, 0}); }
    }

    /// Does the call and says true, if its answer is the one that was given. `latest`: when the last of the calls done so far, and of
    /// this one, began; a call that ended before has ended by now.
    bool does(const call& c, std::uint64_t latest) {
        switch (c.what) {
        case call::verb::send: return send(c, latest);
        case call::verb::pop:
        case call::verb::receive: return take(c, latest);
        case call::verb::ack:
        case call::verb::back: return settle(c);
        case call::verb::close: return closed_ = true;
        }
        return false;
    }

    /// Whether what is left is what was found afterwards.
    bool ends_well() const {
        return std::equal(items_.begin(), items_.end(), history_->after.begin(), history_->after.end(),
                          [](const item& i, int body) { return i.body == body && i.at != in_flight; });
    }

    /// Two queues with the same words are the same.
    void words(std::vector<std::uint64_t>& out) const {
        out.push_back(closed_);
        for (const item& i : items_) { out.push_back(i.place << 2 | i.at); }
        out.push_back(call::unknown);
        for (const item& i : items_) { out.push_back(static_cast<std::uint64_t>(i.body)); } // places may not be known to the calls
        for (const std::uint64_t end : popping_) { out.push_back(end); }
    }

private:
    enum state : std::uint8_t { sending, ready, in_flight }; // sending: perhaps not to be seen yet
    struct item {
        std::uint64_t place;
        int body;
        state at;
        std::uint64_t sent_by; // when its send ended
    };

    bool send(const call& c, std::uint64_t latest) {
        if (closed_ || c.said == call::answer::closed) { return closed_ && c.said == call::answer::closed; }
        popping_.erase(popping_.begin(), popping_.upper_bound(latest));
        const auto wanted = static_cast<std::size_t>(c.count);
        if (c.said == call::answer::full) { return history_->max_messages != 0 && items_.size() + popping_.size() + wanted > history_->max_messages; }
        if (c.said != call::answer::done || (c.place != call::unknown && c.place != next_)) { return false; }
        if (history_->max_messages != 0) {
            if (items_.size() + wanted > history_->max_messages) { return false; }
            // Some pops must be over by now: those that end first.
            while (items_.size() + popping_.size() + wanted > history_->max_messages) { popping_.erase(popping_.begin()); }
        }
        for (int i = 0; i < c.count; ++i) { items_.push_back({next_++, c.body + i, sending, c.end}); }
        return true;
    }
    bool take(const call& c, std::uint64_t latest) {
        const auto first = std::find_if(items_.begin(), items_.end(), [](const item& i) { return i.at != in_flight; });
        if (c.said == call::answer::nothing) {
            return first == items_.end() || (!history_->strict && first->at == sending && first->sent_by > latest);
        }
        if (c.said != call::answer::done || first == items_.end() || first->body != c.body) { return false; }
        if (c.place != call::unknown && c.place != first->place) { return false; }
        if (c.what == call::verb::pop) {
            items_.erase(first);
            if (history_->max_messages != 0) { popping_.insert(c.end); }
        } else {
            first->at = in_flight;
        }
        return true;
    }
    bool settle(const call& c) {
        const auto it = std::find_if(items_.begin(), items_.end(), [&](const item& i) { return i.at == in_flight && i.body == c.body; });
        if (it == items_.end()) { return c.said == call::answer::refused; }
        if (c.said != call::answer::done) { return false; }
        if (c.what == call::verb::ack) {
            items_.erase(it);
        } else {
            it->at = ready;
        }
        return true;
    }

    const history* history_;
    std::uint64_t next_;
    std::vector<item> items_;              // not settled, by offset
    std::multiset<std::uint64_t> popping_; // when pops end whose messages may still count
    bool closed_ = false;
};

/// Whether some order of the calls explains all their answers.
class linearizability {
public:
    static bool check(const history& h) { return linearizability(h).search(sequential_queue(h), 0, 0); }

private:
    explicit linearizability(const history& h) : calls_(h.calls) {
        if (calls_.size() > 64) { throw "a history of more than 64 calls"; }
        std::sort(calls_.begin(), calls_.end(), [](const call& a, const call& b) { return a.begin < b.begin; });
    }

    /// `done`: one bit for each call that has been put in order; `latest`: when the last of them began.
    bool search(const sequential_queue& now, std::uint64_t done, std::uint64_t latest) {
        std::uint64_t first_end = ~std::uint64_t{0}; // of those to come: none that begins later can be next
        for (std::size_t i = 0; i < calls_.size(); ++i) {
            if ((done >> i & 1) == 0) { first_end = std::min(first_end, calls_[i].end); }
        }
        if (first_end == ~std::uint64_t{0}) { return now.ends_well(); }
        std::vector<std::uint64_t> key{done};
        now.words(key);
        if (!seen_.insert(std::move(key)).second) { return false; }
        for (std::size_t i = 0; i < calls_.size() && calls_[i].begin < first_end; ++i) {
            if ((done >> i & 1) != 0) { continue; }
            sequential_queue next = now;
            const std::uint64_t begun = std::max(latest, calls_[i].begin);
            if (next.does(calls_[i], begun) && search(next, done | std::uint64_t{1} << i, begun)) { return true; }
        }
        return false;
    }

    struct hash {
        std::size_t operator()(const std::vector<std::uint64_t>& words) const {
            std::uint64_t h = 0;
            for (const std::uint64_t w : words) { h = (h ^ w) * 0x9E3779B97F4A7C15u, h ^= h >> 29; }
            return static_cast<std::size_t>(h);
        }
    };

    std::vector<call> calls_;
    std::unordered_set<std::vector<std::uint64_t>, hash> seen_;
};

} // namespace support
