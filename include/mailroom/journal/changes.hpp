// changes: what a cursor has settled, and what else became of its messages, gathered until a commit takes it; what a stream refused, in the same
// way; and tickets, by which somebody is told what became of what he placed. Light: what stores see of a journal without including it.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/journal/wire.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// Somebody who is told what became of what he placed. Completed once, by whoever led the commit, without a lock.
struct ticket {
    ticket* next = nullptr;
    std::atomic<std::uint32_t> done{0};
    offset first = no_offset;                   // set as it is placed
    failure why = errc{};                       // set before `done`; errc{}: it is as durable as was asked for
    bool waits = true;                          // a thread waits for it: worth gathering for
    void (*finish)(ticket&) noexcept = nullptr; // called instead of setting `done`, where there is one

    bool is_done() const noexcept { return done.load(std::memory_order_acquire) != 0; }
};

/// Who places messages is asked for the offset of the first whether they may be, under the journal's lock.
struct admission {
    bool (*ask)(void* whom, offset first) = [](void*, offset) { return true; };
    void* whom = nullptr;
};
struct placed {
    bool taken = false;
    bool full = false; // the admission said no
    offset first = no_offset;
    failure why = errc{};
};

/// What is remembered of a message that was handed out and is not settled. Times: wall clock, nanoseconds since 1970.
struct trial {
    std::uint32_t attempt = 0;
    bool dead = false;
    std::int64_t due = 0;     // not before; 0: at once
    std::int64_t expires = 0; // not after; 0: as it was sent
    std::int64_t first_failure = 0;
    std::int64_t last_failure = 0;
    std::string reason;

    void write(wire_writer& to) const {
        to.var(attempt);
        to.var(dead ? 1 : 0);
        to.i64(due);
        to.i64(expires);
        to.i64(first_failure);
        to.i64(last_failure);
        to.text(reason);
    }
    static trial read(wire_reader& from) {
        trial t;
        t.attempt = from.var_as<std::uint32_t>();
        t.dead = from.var() != 0;
        t.due = from.i64();
        t.expires = from.i64();
        t.first_failure = from.i64();
        t.last_failure = from.i64();
        t.reason = from.text();
        return t;
    }
};

/// The steps of a settlement record, one after the other.
enum class change : std::uint8_t {
    settled = 1, // first, how many
    tried = 2,   // offset, trial
    revived = 3, // offset: unsettled, as if it had never failed
    counted = 4, // how many more were redelivered, expired, dropped
    moved = 5,   // floor, then runs above it: everything else is unsettled
};

/// How many messages a stream did not take.
struct refusals {
    std::uint64_t duplicates = 0; // they were there already
    std::uint64_t dropped = 0;    // there was no room, and the newest is what is dropped

    refusals& operator+=(const refusals& more) noexcept {
        duplicates += more.duplicates;
        dropped += more.dropped;
        return *this;
    }
    friend bool operator==(const refusals&, const refusals&) = default;
    void write(wire_writer& to) const {
        to.var(duplicates);
        to.var(dropped);
    }
    static refusals read(wire_reader& from) {
        refusals r;
        r.duplicates = from.var();
        r.dropped = from.var();
        return r;
    }
};

/// A cursor as its journal sees it, or a stream: what has changed is collected with each commit. Of a stream it is nothing that anybody commits for.
class change_source {
public:
    enum class kind : std::uint8_t { cursor, stream };
    explicit change_source(std::uint32_t number, kind of = kind::cursor) noexcept : number_(number), of_(of) {}
    change_source(const change_source&) = delete;
    change_source& operator=(const change_source&) = delete;

    std::uint32_t number() const noexcept { return number_; }
    bool is_of_stream() const noexcept { return of_ == kind::stream; }
    /// Moves what has changed into `steps`, as the payload of a record has it. Called under the journal's lock.
    virtual void collect(std::vector<std::byte>& steps) noexcept = 0;
    /// That was not written after all: it is to be given once more.
    virtual void give_back(bytes_view steps) noexcept = 0;

    std::atomic<bool> dirty{false};

protected:
    ~change_source() = default;

private:
    const std::uint32_t number_;
    const kind of_;
};

/// What a stream refused, and is not in a record yet. Threads: any. No lock. Without memory it is given with the next one.
class refusal_log final : public change_source {
public:
    explicit refusal_log(std::uint32_t stream) noexcept : change_source(stream, kind::stream) {}

    /// Returns whether the journal has to be told that there is something.
    bool refused(const refusals& more) noexcept {
        add(more);
        return !dirty.load(std::memory_order_seq_cst) && !dirty.exchange(true, std::memory_order_seq_cst);
    }
    /// The journal is told nothing any more.
    void leave() noexcept { dirty.store(true, std::memory_order_seq_cst); }

    void collect(std::vector<std::byte>& steps) noexcept override {
        const refusals all{duplicates_.exchange(0, std::memory_order_seq_cst), dropped_.exchange(0, std::memory_order_seq_cst)};
        if (all == refusals()) { return; }
        try {
            wire_writer to(steps);
            all.write(to);
        } catch (...) {
            steps.clear();
            add(all);
        }
    }
    void give_back(bytes_view steps) noexcept override {
        try {
            wire_reader from(steps);
            add(refusals::read(from));
        } catch (...) {} // it is what was collected
    }

private:
    void add(const refusals& more) noexcept {
        duplicates_.fetch_add(more.duplicates, std::memory_order_seq_cst);
        dropped_.fetch_add(more.dropped, std::memory_order_seq_cst);
    }
    std::atomic<std::uint64_t> duplicates_{0}, dropped_{0};
};

/// The changes of one cursor. Threads: any. Lock: its own, for a few instructions. Without memory a change is forgotten: its message is delivered
/// again after the next opening.
class change_log : public change_source {
public:
    explicit change_log(std::uint32_t cursor) noexcept : change_source(cursor) {}
    std::uint32_t cursor() const noexcept { return number(); }

    /// Some in a row were settled. Returns whether the journal has to be told that there is something.
    bool settled(offset first, std::uint64_t n) noexcept {
        const std::lock_guard lock(mutex_);
        if (!written_.empty() && n == 1) {
            if (const auto at = std::find(written_.begin(), written_.end(), first); at != written_.end()) {
                written_.erase(at);
                return false;
            }
        }
        if (run_ != 0 && first_ + run_ == first) {
            run_ += n;
        } else {
            close_run();
            first_ = first;
            run_ = n;
        }
        return news();
    }
    bool tried(offset o, const trial& t) noexcept {
        return step([&](wire_writer& to) {
            to.var(static_cast<std::uint64_t>(change::tried));
            to.var(o);
            t.write(to);
        });
    }
    bool revived(offset o) noexcept {
        return step([&](wire_writer& to) {
            to.var(static_cast<std::uint64_t>(change::revived));
            to.var(o);
        });
    }
    /// The cursor was moved: from here on, all is unsettled but what lies below `floor`, and the runs (first, the one after the last) above it.
    bool moved(offset floor, const std::vector<std::pair<offset, offset>>& runs) noexcept {
        {
            const std::lock_guard lock(mutex_);
            written_.clear();
        }
        return step([&](wire_writer& to) {
            to.var(static_cast<std::uint64_t>(change::moved));
            to.var(floor);
            to.var(runs.size());
            for (const auto& [first, end] : runs) {
                to.var(first);
                to.var(end);
            }
        });
    }

    /// The next settlement of `o` is in a record already: it is not noted again.
    void is_written(offset o) noexcept {
        const std::lock_guard lock(mutex_);
        try {
            written_.push_back(o);
        } catch (...) {} // no memory: it is noted twice, which says the same
    }
    /// What is asked, with each collection, how many were redelivered, expired, dropped since `of` began.
    void count_by(std::array<std::uint64_t, 3> (*ask)(const void* of) noexcept, const void* of) noexcept {
        const std::lock_guard lock(mutex_);
        ask_ = ask;
        asked_ = of;
    }

    void collect(std::vector<std::byte>& steps) noexcept override {
        const std::lock_guard lock(mutex_);
        close_run();
        count();
        steps.swap(steps_);
        steps_.clear();
    }
    void give_back(bytes_view steps) noexcept override {
        const std::lock_guard lock(mutex_);
        try {
            steps_.insert(steps_.begin(), steps.begin(), steps.end());
        } catch (...) {}
    }

private:
    // Under the lock.
    void count() noexcept {
        if (ask_ == nullptr) { return; }
        const std::array<std::uint64_t, 3> now = ask_(asked_);
        if (now == noted_) { return; }
        write([&](wire_writer& to) {
            to.var(static_cast<std::uint64_t>(change::counted));
            for (std::size_t i = 0; i < now.size(); ++i) { to.var(now[i] - noted_[i]); }
        });
        noted_ = now;
    }
    template <class Write>
    void write(Write step) noexcept {
        const std::size_t before = steps_.size();
        try {
            wire_writer to(steps_);
            step(to);
        } catch (...) { steps_.resize(before); }
    }
    template <class Write>
    bool step(Write one) noexcept {
        const std::lock_guard lock(mutex_);
        close_run();
        write(one);
        return news();
    }
    void close_run() noexcept {
        if (run_ == 0) { return; }
        write([this](wire_writer& to) {
            to.var(static_cast<std::uint64_t>(change::settled));
            to.var(first_);
            to.var(run_);
        });
        run_ = 0;
    }
    bool news() noexcept { return !dirty.load(std::memory_order_relaxed) && !dirty.exchange(true, std::memory_order_seq_cst); }

    brief_mutex mutex_;
    std::vector<std::byte> steps_;
    std::vector<offset> written_;
    std::array<std::uint64_t, 3> (*ask_)(const void*) noexcept = nullptr;
    const void* asked_ = nullptr;
    std::array<std::uint64_t, 3> noted_{};
    offset first_ = 0;
    std::uint64_t run_ = 0; // settled from there on, not in `steps_` yet
};

} // namespace mailroom::detail
