// Makes concurrent histories of a queue with the face of api.md: threads that do random calls on it, each with a log of its own.
#pragma once

#include "support/crew.hpp"
#include "support/history.hpp"
#include "support/random.hpp"
#include "support/shaking.hpp"
#include "support/tracked.hpp"

#include <mailroom/queue.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// What the threads of a history do.
struct plan {
    int threads = 3, calls = 6;
    unsigned sends = 40, pops = 25, receives = 25, settles = 20; // weights; settles while something is at hand
    bool may_close = false;
    int before = 0;  // messages that are in the queue already
    int warm_up = 0; // messages that went through it before: where in its blocks the history happens
    std::size_t max_messages = 0;
};

/// What the threads of one history share besides the queue. All of it is relaxed: an order that everybody agrees on, and nothing that
/// would hide a race from ThreadSanitizer.
struct shared_counters {
    alignas(64) std::atomic<std::uint64_t> stamps{0};
    alignas(64) std::atomic<int> arrived{0};
};

/// Does the calls of one thread and writes them down.
template <class T, class Queue>
class recorder {
public:
    using delivery = decltype(std::declval<Queue&>().try_receive())::value_type;

    recorder(Queue& queue, shared_counters& shared, int thread, std::uint64_t seed)
        : queue_(queue), shared_(shared), thread_(thread), dice_(seed * 64 + static_cast<std::uint64_t>(thread)) {}

    void run(const plan& p) {
        shaking = dice_.below(1'000'000) + 1;
        for (int i = 0; i < p.calls; ++i) {
            approach();
            const unsigned settles = held_.empty() ? 0 : p.settles;
            unsigned at = dice_.below(p.sends + p.pops + p.receives + settles + (p.may_close ? 2 : 0));
            if (at < p.sends) {
                send(i);
            } else if ((at -= p.sends) < p.pops) {
                pop();
            } else if ((at -= p.pops) < p.receives) {
                receive();
            } else if ((at -= p.receives) < settles) {
                settle();
            } else {
                record(call::verb::close, [&](call&) { queue_.close(); });
            }
        }
        while (!held_.empty()) { settle(); }
        shaking = 0;
    }
    std::vector<call> log;

private:
    void send(int number) {
        const int body = 1000 * (thread_ + 1) + 10 * number;
        const unsigned how = dice_.below(6);
        const int count = how == 0 ? dice_.between(2, 4) : 1;
        record(call::verb::send, [&](call& c) {
            c.body = body;
            c.count = count;
            T value = body_of<T>::make(body);
            mailroom::result<std::uint64_t> r = mailroom::errc::full;
            if (how == 0 || how == 1) { // these may throw
                std::vector<T> several;
                for (int i = 0; i < count; ++i) { several.push_back(body_of<T>::make(body + i)); }
                c.begin = stamp();
                try {
                    r = queue_.send_many(std::move(several));
                } catch (const mailroom::error& e) { r = e.kind(); }
            } else {
                c.begin = stamp();
                r = how == 2 ? queue_.send_for(mailroom::duration(), std::move(value)) : queue_.try_send(std::move(value));
            }
            c.end = stamp();
            if (r) {
                c.place = *r;
            } else {
                c.said = r.error() == mailroom::errc::closed ? call::answer::closed : call::answer::full;
            }
        });
    }
    void pop() {
        record(call::verb::pop, [&](call& c) {
            c.begin = stamp();
            auto m = dice_.percent(50) ? queue_.try_pop() : queue_.pop_for(mailroom::duration());
            c.end = stamp();
            note(c, m);
        });
    }
    void receive() {
        record(call::verb::receive, [&](call& c) {
            c.begin = stamp();
            auto d = dice_.percent(50) ? queue_.try_receive() : queue_.receive_for(mailroom::duration());
            c.end = stamp();
            note(c, d);
            if (d) { held_.emplace_back(c.body, std::move(*d)); }
        });
    }
    void settle() {
        const auto at = held_.begin() + dice_.between(0, static_cast<int>(held_.size()) - 1);
        const unsigned how = dice_.below(4);
        record(how < 2 ? call::verb::ack : call::verb::back, [&](call& c) {
            c.body = at->first;
            c.begin = stamp();
            const bool done = how < 2 ? at->second.ack() : how == 2 ? at->second.nack(mailroom::duration()) : at->second.release();
            c.end = stamp();
            if (!done) { c.said = call::answer::refused; }
        });
        held_.erase(at);
    }
    template <class Taken>
    static void note(call& c, const Taken& taken) {
        if (taken) {
            c.body = number_of(taken->body());
            c.place = taken->offset();
        } else {
            c.said = call::answer::nothing;
        }
    }
    template <class Act>
    void record(call::verb what, Act act) {
        call c;
        c.what = what;
        c.thread = thread_;
        c.begin = stamp();
        act(c);
        if (c.end == 0) { c.end = stamp(); }
        log.push_back(c);
    }
    std::uint64_t stamp() {
        std::atomic_signal_fence(std::memory_order_seq_cst);
        const std::uint64_t s = shared_.stamps.fetch_add(1, std::memory_order_relaxed) + 1;
        std::atomic_signal_fence(std::memory_order_seq_cst);
        return s;
    }
    /// Before a call: meets another thread, so that both call at once; gives up the processor; waits a moment; or goes on.
    void approach() {
        const unsigned at = dice_.below(10);
        if (at < 6) {
            const int self = shared_.arrived.fetch_add(1, std::memory_order_relaxed);
            for (int i = 0; i < 1000 && shared_.arrived.load(std::memory_order_relaxed) < (self | 1) + 1; ++i) { pause(); }
        } else if (at == 6) {
            std::this_thread::yield();
        }
        for (unsigned i = at < 9 ? dice_.below(30) : 0; i > 0; --i) { std::atomic_signal_fence(std::memory_order_seq_cst); }
    }

    Queue& queue_;
    shared_counters& shared_;
    int thread_;
    dice dice_;
    std::vector<std::pair<int, delivery>> held_;
};

/// Draws what a history of so many threads is to be like.
inline plan draw_plan(dice& d, int threads) {
    plan p;
    p.threads = threads;
    p.calls = d.between(3, threads == 2 ? 12 : 8);
    p.may_close = d.percent(10);
    p.before = d.percent(50) ? d.between(0, 3) : 0;
    p.warm_up = d.percent(70) ? d.between(0, 140) : 0;
    if (d.percent(30)) { p.pops = 0; }
    if (d.percent(30)) { p.receives = 0; }
    if (p.pops + p.receives == 0) { p.pops = 50; }
    return p;
}

/// One history in the making: a queue, made of `args`, and those who call it.
template <class T, class Queue>
class experiment {
public:
    template <class... Args>
    experiment(const plan& p, std::uint64_t seed, Args&&... args) : plan_(p), queue_(std::in_place, std::forward<Args>(args)...) {
        for (int i = 0; i < p.warm_up; ++i) {
            queue_->send(body_of<T>::make(0));
            queue_->try_pop();
        }
        history_.max_messages = p.max_messages;
        history_.next = static_cast<std::uint64_t>(p.warm_up);
        for (int i = 1; i <= p.before; ++i) { history_.before.emplace_back(history_.next++, i), queue_->send(body_of<T>::make(i)); }
        for (int i = 0; i < p.threads; ++i) { recorders_.emplace_back(*queue_, shared_, i, seed); }
    }
    void run(int thread) { recorders_[static_cast<std::size_t>(thread)].run(plan_); }

    /// After all threads: what was called, and what is left. The queue goes.
    const history& finish() {
        for (auto& r : recorders_) { history_.calls.insert(history_.calls.end(), r.log.begin(), r.log.end()); }
        recorders_.clear();
        while (auto m = queue_->try_pop()) { history_.after.push_back(number_of(m->body())); }
        queue_.reset();
        return history_;
    }

private:
    const plan plan_;
    std::optional<Queue> queue_;
    shared_counters shared_;
    history history_;
    std::vector<recorder<T, Queue>> recorders_;
};

/// Runs experiments one after the other, each started by all its threads at once.
template <class Experiment>
void perform(crew& threads, int size, std::vector<std::unique_ptr<Experiment>>& list) {
    meeting start(size);
    threads.run(size, [&](int self) {
        for (auto& e : list) {
            start.arrive();
            e->run(self);
        }
    });
}

} // namespace support
