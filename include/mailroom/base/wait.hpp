// Waiting: intrusive nodes for whoever waits (a thread, a coroutine, a callback), and the lists that wake them.
//
// A waiter is in at most one list. It is taken out exactly once, by the one who wakes it or by the one who gives up: who takes it out
// owns what happens next. Lists are protected by a mutex of their own, held for a few instructions and never while foreign code runs.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

namespace mailroom {

/// Where a coroutine is resumed or a handler is run, when a user names a place: it is given a task and runs it, sooner or later.
using executor = std::function<void(std::function<void()>)>;

namespace detail {

class wait_list;

/// A short while of looking again with pauses, for what another core is about to give. Whether that is worth the while depends on where the others
/// run, so each thread goes by its own experience: if the last long look was in vain, as it is where the one who is waited for needs this core, the
/// next ones are short, and every sixteenth is long again.
class brief_look {
public:
    /// Looks until `found()`; false: in vain.
    template <class Found>
    static bool look(Found found) noexcept {
        std::uint32_t& to_skip = skipping();
        const bool is_long = to_skip == 0;
        for (unsigned i = is_long ? longest : shortest; i != 0; --i) {
            if (found()) { return true; }
            pause();
        }
        to_skip = is_long ? between : to_skip - 1;
        return false;
    }

private:
    static constexpr unsigned longest = 64, shortest = 8; // pauses: one is 25 to 60 ns
    static constexpr std::uint32_t between = 15;
    static std::uint32_t& skipping() noexcept {
        static thread_local constinit std::uint32_t left = 0;
        return left;
    }
};

/// A mutex that is held for some tens of instructions only: it is worth looking again a few times before the kernel is asked to wait.
class brief_mutex {
public:
    void lock() noexcept {
        for (int i = 0; i < 64; ++i) {
            if (mutex_.try_lock()) { return; }
            pause();
        }
        mutex_.lock();
    }
    void unlock() noexcept { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

/// One who waits. `wake` is called once, by whoever took the node out of its list, without a lock.
class waiter {
public:
    using wake_fn = void (*)(waiter&) noexcept;

    explicit waiter(wake_fn fn) noexcept : wake_(fn) {}
    waiter(const waiter&) = delete;
    waiter& operator=(const waiter&) = delete;

    void wake() noexcept { wake_(*this); }

protected:
    ~waiter() = default;

private:
    friend class wait_list;
    wake_fn wake_;
    waiter* previous_ = nullptr;
    waiter* next_ = nullptr;
    wait_list* list_ = nullptr; // guarded by the list's mutex
};

/// FIFO of waiters. `flag` functions run under the list's lock, so that "somebody waits" can be kept exact somewhere else.
class wait_list {
public:
    wait_list() = default;
    wait_list(const wait_list&) = delete;
    wait_list& operator=(const wait_list&) = delete;

    /// Adds `w`; calls `on_first` under the lock if it is the first.
    template <class OnFirst>
    void add(waiter& w, OnFirst on_first) noexcept {
        const std::lock_guard lock(mutex_);
        w.list_ = this;
        w.previous_ = last_;
        w.next_ = nullptr;
        (last_ != nullptr ? last_->next_ : first_) = &w;
        last_ = &w;
        if (count_.fetch_add(1, std::memory_order_seq_cst) == 0) { on_first(); }
    }

    /// Takes `w` out unless someone has done so; `on_last` runs under the lock if none is left. True: the caller took it.
    template <class OnLast>
    bool remove(waiter& w, OnLast on_last) noexcept {
        const std::lock_guard lock(mutex_);
        if (w.list_ != this) { return false; }
        unlink(w, on_last);
        return true;
    }

    /// Takes the first out, or nullptr.
    template <class OnLast>
    waiter* take(OnLast on_last) noexcept {
        const std::lock_guard lock(mutex_);
        waiter* const w = first_;
        if (w != nullptr) { unlink(*w, on_last); }
        return w;
    }

    /// How many wait; sequentially consistent, so that it can pair with the store that a waiter looks for after `add`.
    std::size_t size() const noexcept { return count_.load(std::memory_order_seq_cst); }

private:
    template <class OnLast>
    void unlink(waiter& w, OnLast on_last) noexcept {
        (w.previous_ != nullptr ? w.previous_->next_ : first_) = w.next_;
        (w.next_ != nullptr ? w.next_->previous_ : last_) = w.previous_;
        w.list_ = nullptr;
        if (count_.fetch_sub(1, std::memory_order_seq_cst) == 1) { on_last(); }
    }

    std::mutex mutex_;
    waiter* first_ = nullptr;
    waiter* last_ = nullptr;
    std::atomic<std::uint32_t> count_{0};
};

struct nothing {
    void operator()() const noexcept {}
};

/// A thread that waits: parks on a word of its own.
class thread_waiter final : public waiter {
public:
    explicit thread_waiter(clock& c) noexcept : waiter(&thread_waiter::fire), clock_(c) {}

    bool woken() const noexcept { return word_.load(std::memory_order_acquire) != 0; }
    /// Returns when woken, at `deadline`, or for no reason.
    void park(duration deadline) noexcept { clock_.park(word_, 0, deadline); }
    /// From any thread: ends the park without taking the node out of its list (a stop was requested).
    void interrupt() noexcept {
        clock& c = clock_;
        word_.fetch_or(2, std::memory_order_release);
        c.unpark(word_);
    }
    /// Waits until a wake that has begun no longer touches this object. Call after `remove` answered false.
    void settle() noexcept {
        for (unsigned round = 0; (word_.load(std::memory_order_acquire) & 1u) == 0; ++round) { clock_.relax(round); }
    }

private:
    static void fire(waiter& w) noexcept {
        auto& self = static_cast<thread_waiter&>(w);
        clock& c = self.clock_;
        auto& word = self.word_;
        word.fetch_or(1, std::memory_order_release); // the waiter may be gone after this line: only the word's address is used
        c.unpark(word);
    }

    clock& clock_;
    std::atomic<std::uint32_t> word_{0};
};

/// Runs what a wake started (coroutines) in the outermost call on this thread, one after the other: no recursion without bound.
/// A task is an intrusive node; what it does may schedule more.
class trampoline {
public:
    struct task {
        void (*run)(task&) noexcept = nullptr;
        task* next = nullptr;
    };

    static void schedule(task& t) noexcept {
        t.next = nullptr;
        trampoline* const outer = current();
        if (outer != nullptr) {
            outer->push(t);
            return;
        }
        trampoline here;
        current() = &here;
        here.push(t);
        while (task* const next = here.first_) {
            here.first_ = next->next;
            if (here.first_ == nullptr) { here.last_ = nullptr; }
            next->run(*next);
        }
        current() = nullptr;
    }

private:
    // Which trampoline runs on this thread, if one does: where the loop above stands, nothing that outlives it.
    static trampoline*& current() noexcept {
        static thread_local constinit trampoline* running = nullptr;
        return running;
    }
    void push(task& t) noexcept {
        (last_ != nullptr ? last_->next : first_) = &t;
        last_ = &t;
    }
    task* first_ = nullptr;
    task* last_ = nullptr;
};

} // namespace detail
} // namespace mailroom
