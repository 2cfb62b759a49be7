// A stop_token, stop_source and stop_callback with the face and the rules of [thread.stoptoken], for standard libraries
// without them. Included by base/stop_token.hpp where it is needed; compiles everywhere, so that it is tested
// everywhere. One allocation a source; asking costs one acquire load; callbacks hang in an intrusive list under a mutex
// that is never held while one runs. Threads: as the standard says: everything may be called at once, but one object is
// assigned by one thread.
#pragma once

#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

namespace mailroom::detail::own {

struct nostopstate_t {
    explicit nostopstate_t() = default;
};
inline constexpr nostopstate_t nostopstate{};

// A callback in the list. `run` is called once at most.
struct stop_node {
    void (*run)(stop_node*) noexcept = nullptr;
    stop_node* next = nullptr;
    stop_node** link = nullptr; // what points here; null while not in the list
    bool* gone = nullptr;       // set to true by a callback that destroys its own node
};

class stop_state {
public:
    [[nodiscard]] bool requested() const noexcept { return requested_.load(std::memory_order_acquire); }
    [[nodiscard]] bool possible() const noexcept { return requested() || sources_.load(std::memory_order_acquire) != 0; }

    bool request() noexcept {
        std::unique_lock lock(mutex_);
        if (requested_.load(std::memory_order_relaxed)) return false;
        requested_.store(true, std::memory_order_release);
        runner_ = std::this_thread::get_id();
        while (stop_node* node = first_) {
            unlink(*node);
            bool gone = false;
            node->gone = &gone;
            running_ = node;
            lock.unlock();
            node->run(node);
            lock.lock();
            if (!gone) { // else remove() cleared it, and the node is no more
                running_ = nullptr;
                finished_.notify_all();
            }
        }
        return true;
    }

    // False: stop was requested before, the caller runs it himself.
    bool add(stop_node& node) noexcept {
        const std::lock_guard lock(mutex_);
        if (requested_.load(std::memory_order_relaxed)) return false;
        node.next = first_;
        node.link = &first_;
        if (first_ != nullptr) first_->link = &node.next;
        first_ = &node;
        return true;
    }

    // Returns when the node is not in the list and not running, unless it is this thread that runs it.
    void remove(stop_node& node) noexcept {
        std::unique_lock lock(mutex_);
        if (node.link != nullptr) return unlink(node);
        if (running_ != &node) return;
        if (runner_ == std::this_thread::get_id()) {
            *node.gone = true;
            running_ = nullptr;
            return;
        }
        finished_.wait(lock, [&] { return running_ != &node; });
    }

    void add_source() noexcept { sources_.fetch_add(1, std::memory_order_relaxed); }
    void drop_source() noexcept { sources_.fetch_sub(1, std::memory_order_release); }
    void hold() noexcept { holders_.fetch_add(1, std::memory_order_relaxed); }
    void drop() noexcept {
        if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }

private:
    static void unlink(stop_node& node) noexcept {
        *node.link = node.next;
        if (node.next != nullptr) node.next->link = node.link;
        node.link = nullptr;
    }

    std::atomic<bool> requested_{false};
    std::atomic<std::uint32_t> sources_{0};
    std::atomic<std::uint32_t> holders_{0};
    std::mutex mutex_;
    std::condition_variable finished_;
    stop_node* first_ = nullptr;
    stop_node* running_ = nullptr;
    std::thread::id runner_;
};

// A counted pointer to the state.
class stop_state_pointer {
public:
    stop_state_pointer() noexcept = default;
    explicit stop_state_pointer(stop_state* state) noexcept : state_(state) {
        if (state_ != nullptr) state_->hold();
    }
    stop_state_pointer(const stop_state_pointer& other) noexcept : stop_state_pointer(other.state_) {}
    stop_state_pointer(stop_state_pointer&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    stop_state_pointer& operator=(stop_state_pointer other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~stop_state_pointer() {
        if (state_ != nullptr) state_->drop();
    }
    explicit operator bool() const noexcept { return state_ != nullptr; }
    stop_state* operator->() const noexcept { return state_; }
    friend bool operator==(const stop_state_pointer&, const stop_state_pointer&) noexcept = default;

private:
    stop_state* state_ = nullptr;
};

class stop_source;
template <class Callback>
class stop_callback;

class stop_token {
public:
    stop_token() noexcept = default;
    void swap(stop_token& other) noexcept { std::swap(state_, other.state_); }
    [[nodiscard]] bool stop_requested() const noexcept { return state_ && state_->requested(); }
    [[nodiscard]] bool stop_possible() const noexcept { return state_ && state_->possible(); }
    [[nodiscard]] friend bool operator==(const stop_token&, const stop_token&) noexcept = default;
    friend void swap(stop_token& a, stop_token& b) noexcept { a.swap(b); }

private:
    friend class stop_source;
    template <class Callback>
    friend class stop_callback;
    explicit stop_token(const stop_state_pointer& state) noexcept : state_(state) {}

    stop_state_pointer state_;
};

class stop_source {
public:
    stop_source() : state_(new stop_state) { state_->add_source(); }
    explicit stop_source(nostopstate_t) noexcept {}
    stop_source(const stop_source& other) noexcept : state_(other.state_) {
        if (state_) state_->add_source();
    }
    stop_source(stop_source&&) noexcept = default;
    stop_source& operator=(stop_source other) noexcept {
        swap(other);
        return *this;
    }
    ~stop_source() {
        if (state_) state_->drop_source();
    }
    void swap(stop_source& other) noexcept { std::swap(state_, other.state_); }
    [[nodiscard]] stop_token get_token() const noexcept { return stop_token(state_); }
    [[nodiscard]] bool stop_requested() const noexcept { return state_ && state_->requested(); }
    [[nodiscard]] bool stop_possible() const noexcept { return static_cast<bool>(state_); }
    bool request_stop() noexcept { return state_ && state_->request(); }
    [[nodiscard]] friend bool operator==(const stop_source&, const stop_source&) noexcept = default;
    friend void swap(stop_source& a, stop_source& b) noexcept { a.swap(b); }

private:
    stop_state_pointer state_;
};

template <class Callback>
class stop_callback : private stop_node {
    static_assert(std::invocable<Callback> && std::destructible<Callback>, "a stop_callback holds something that is called without arguments");

public:
    using callback_type = Callback;

    template <class C>
    requires std::constructible_from<Callback, C>
    explicit stop_callback(const stop_token& token, C&& callback) noexcept(std::is_nothrow_constructible_v<Callback, C>)
        : state_(token.state_), callback_(std::forward<C>(callback)) {
        enter();
    }
    template <class C>
    requires std::constructible_from<Callback, C>
    explicit stop_callback(stop_token&& token, C&& callback) noexcept(std::is_nothrow_constructible_v<Callback, C>)
        : state_(std::move(token.state_)), callback_(std::forward<C>(callback)) {
        enter();
    }
    stop_callback(const stop_callback&) = delete;
    stop_callback& operator=(const stop_callback&) = delete;
    ~stop_callback() {
        if (state_) state_->remove(*this);
    }

private:
    void enter() noexcept {
        run = [](stop_node* node) noexcept { std::forward<Callback>(static_cast<stop_callback*>(node)->callback_)(); };
        if (state_ && !state_->add(*this)) run(this);
    }

    stop_state_pointer state_;
    Callback callback_;
};

template <class Callback>
stop_callback(stop_token, Callback) -> stop_callback<Callback>;

} // namespace mailroom::detail::own
