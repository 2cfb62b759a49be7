// idempotent: a handler whose effect happens once for each message id, though the message comes again.
//
//     auto workers = payments.consume(mailroom::idempotent([](const payment& p) { book(p); }, 24h), {.concurrency = {4, 4}});
//
// At least once means that a message may be delivered again although its handler has run: its lease ran out, its sender sent it twice, an
// acknowledgement was lost with the process. This remembers the ids (`properties::id`) of what was done, for `window` after it was done: a delivery of
// one of those is acknowledged, and its handler not called. While an id is being handled, another delivery of it waits: until the first is done, and it is
// acknowledged, or has failed, and it is handled itself. Messages without an id are handled each time.
//
// What is remembered is in memory, of this handler, and of its copies: give one to several consumers and they share it. It is forgotten with them, and with
// the process. (Of `deduplicate`, which an endpoint does as messages come in, nothing is used here: that knows what was sent, not what was done.)
//
// All three kinds of handler. Done is: it returned (const T&; const T&, const properties&), or the delivery was acknowledged, whether that still counted or not
// (delivery<T>). Failed is: it threw; the delivery was settled otherwise or destroyed. A handler that takes the body waits in its thread for another that
// handles the same id; one that takes the delivery does not: the later delivery is kept aside, and settled or given back by whoever settles the first.
//
// Threads: any. Memory: the ids of the window, `max_ids` at most, and those being handled.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/consumer.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/settler.hpp>
#include <mailroom/store/source.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mailroom {

/// What `idempotent` remembers, and for how long.
struct idempotent_options {
    duration window = std::chrono::hours(1); ///< after an id was done
    std::size_t max_ids = 1'000'000;         ///< done and remembered at most; the oldest are forgotten first. 0: any number
    mailroom::clock* clock = nullptr;        ///< null: the system's; must outlive the handler and its deliveries
};

/// What an idempotent handler ever did, and holds.
struct idempotent_stats {
    std::uint64_t handled = 0;    ///< ever: ids done
    std::uint64_t duplicates = 0; ///< ever: deliveries that were acknowledged unhandled
    std::size_t remembered = 0;   ///< now: ids that are done
};

namespace detail {

/// The ids that are done, or being handled. Counted by whoever uses it.
class done_ids {
public:
    /// A delivery that waits for another of its id.
    class aside {
    public:
        aside(const aside&) = delete;
        aside& operator=(const aside&) = delete;
        virtual ~aside() = default;
        virtual void acknowledge() noexcept = 0;
        virtual void give_back() noexcept = 0;

    protected:
        aside() = default;
    };

    explicit done_ids(const idempotent_options& o) : clock_(o.clock != nullptr ? *o.clock : system_clock()), window_(o.window), most_(o.max_ids) {}

    enum class answer { begin, done, busy };

    /// May it be handled? `begin`: by the caller, who says `end`. Waits in this thread for another that handles it. Throws std::bad_alloc, and errc::in_use
    /// where it is this very thread.
    answer begin(const std::string& id) {
        for (;;) {
            thread_waiter self(clock_);
            {
                const std::lock_guard lock(mutex_);
                const answer a = look(id);
                if (a == answer::begin) { known_.find(id)->second.by = std::this_thread::get_id(); }
                if (a != answer::busy) { return a; }
                if (known_.find(id)->second.by == std::this_thread::get_id()) {
                    fail(errc::in_use, "the handler of a message handles another with the same id, '" + id + "'");
                }
                waiting_.add(self, nothing());
            }
            self.park(clock::never);
            if (!waiting_.remove(self, nothing())) { self.settle(); }
        }
    }
    /// The same without waiting; `make()` gives what is to be kept until the other has ended.
    template <class Make>
    answer begin_or_keep(const std::string& id, Make make) {
        const std::lock_guard lock(mutex_);
        const answer a = look(id);
        if (a == answer::busy) {
            auto& kept = known_.find(id)->second.kept;
            kept.reserve(kept.size() + 1);
            kept.push_back(make());
        }
        return a;
    }
    /// It was handled, or that failed.
    void end(const std::string& id, bool is_done) noexcept {
        std::vector<std::unique_ptr<aside>> kept;
        {
            const std::lock_guard lock(mutex_);
            const auto at = known_.find(id);
            kept = std::move(at->second.kept);
            if (is_done) { is_done = remember(*at); }
            if (!is_done) { known_.erase(at); }
            handled_ += is_done ? 1 : 0;
            duplicates_ += is_done ? kept.size() : 0;
        }
        while (waiter* const w = waiting_.take(nothing())) { w->wake(); } // each looks whether it was its own
        for (const auto& k : kept) { is_done ? k->acknowledge() : k->give_back(); }
    }

    idempotent_stats count() {
        const std::lock_guard lock(mutex_);
        forget_old();
        return {handled_, duplicates_, order_.size()};
    }

private:
    struct state {
        bool is_done = false;
        std::thread::id by; // who handles it, where that is known
        std::vector<std::unique_ptr<aside>> kept;
    };
    using map = std::unordered_map<std::string, state>;

    // Under the mutex.
    answer look(const std::string& id) {
        forget_old();
        const auto [at, is_new] = known_.try_emplace(id);
        if (is_new) { return answer::begin; }
        if (!at->second.is_done) { return answer::busy; }
        ++duplicates_;
        return answer::done;
    }
    bool remember(map::value_type& of) noexcept {
        try {
            order_.emplace_back(later(clock_.now(), window_), &of.first);
        } catch (...) { return false; } // no memory: it may be handled again
        of.second.is_done = true;
        of.second.by = {};
        while (most_ != 0 && order_.size() > most_) { forget_first(); }
        return true;
    }
    void forget_first() noexcept {
        known_.erase(known_.find(*order_.front().second));
        order_.pop_front();
    }
    void forget_old() noexcept {
        if (order_.empty()) { return; }
        for (const duration now = clock_.now(); !order_.empty() && order_.front().first <= now;) { forget_first(); }
    }

    clock& clock_;
    const duration window_;
    const std::size_t most_;
    std::mutex mutex_; // held for a look; nothing foreign runs under it
    map known_;
    std::deque<std::pair<duration, const std::string*>> order_; // what is done, by when it is forgotten
    std::uint64_t handled_ = 0, duplicates_ = 0;
    wait_list waiting_;
};

/// Stands between a delivery and its settler, and says what became of its id. Then it stays with the delivery's source, to be used again: somebody may be
/// about to `extend` the delivery.
class settling_watch final : public settler, public keepsake {
public:
    /// For a delivery of `to`. Throws std::bad_alloc.
    static settling_watch& over(settler& to, const std::string& id, const std::shared_ptr<done_ids>& ids) {
        source_base* const home = to.attic();
        std::unique_ptr<keepsake> used(home != nullptr ? home->take_kept(ids.get()) : nullptr);
        if (used == nullptr) { used.reset(new settling_watch(ids.get())); }
        settling_watch& w = static_cast<settling_watch&>(*used);
        w.to_.store(&to, std::memory_order_relaxed);
        w.home_ = home;
        w.id_ = id;
        w.ids_ = ids;
        if (home != nullptr) { home->refer(); }
        static_cast<void>(used.release());
        return w;
    }
    /// The delivery is over, or never began.
    void leave() noexcept {
        ids_.reset();
        if (home_ == nullptr) {
            delete this;
            return;
        }
        source_base& from = *home_;
        from.keep(*this);
        from.unrefer();
    }

    bool ack(const handle& at) noexcept override {
        return ended(true, [&] { return to().ack(at); });
    }
    pending_outcome* ack_async(const handle& at, bool& done) override {
        struct ending {
            settling_watch& w;
            ~ending() { w.tell(true); }
        } const at_end{*this};
        return to().ack_async(at, done);
    }
    bool nack(const handle& at) noexcept override {
        return ended(false, [&] { return to().nack(at); });
    }
    bool nack_after(const handle& at, duration after) noexcept override {
        return ended(false, [&] { return to().nack_after(at, after); });
    }
    bool release(const handle& at) noexcept override {
        return ended(false, [&] { return to().release(at); });
    }
    bool reject(const handle& at, std::string reason) noexcept override {
        return ended(false, [&] { return to().reject(at, std::move(reason)); });
    }
    bool extend(const handle& at, duration lease) noexcept override { return to().extend(at, lease); }
    bool secure(const handle& at, duration at_least) noexcept override { return to().secure(at, at_least); }
    bool keep(const handle& at) noexcept override { return to().keep(at); }
    void give_back(const handle& at, duration lease) noexcept override { to().give_back(at, lease); }
    settler_home home() const noexcept override { return to().home(); }
    time_point sent_at(const handle& at) const noexcept override { return to().sent_at(at); }
    void end_look(const handle& at) noexcept override { to().end_look(at); }
    source_base* attic() noexcept override { return home_; }

private:
    explicit settling_watch(const void* of) noexcept : keepsake(of) {}
    settler& to() const noexcept { return *to_.load(std::memory_order_relaxed); }
    void tell(bool is_done) noexcept {
        ids_->end(id_, is_done);
        leave();
    }
    template <class Verb>
    bool ended(bool is_done, Verb verb) noexcept {
        const bool counted = verb();
        tell(is_done);
        return counted;
    }
    std::atomic<settler*> to_{nullptr}; // a late `extend` may read it while another use begins: then it is refused there
    source_base* home_ = nullptr;
    std::string id_;
    std::shared_ptr<done_ids> ids_;
};

} // namespace detail

/// What `idempotent` gives: a handler for `consume`. Copies share what they remember.
template <class Handler>
class idempotent_handler {
public:
    idempotent_handler(Handler handler, const idempotent_options& o) : handler_(std::move(handler)), ids_(std::make_shared<detail::done_ids>(o)) {}

    template <class T>
    requires(detail::kind_of_handler<T, Handler>() == detail::handler_kind::body ||
             detail::kind_of_handler<T, Handler>() == detail::handler_kind::body_and_properties) //
        void
        operator()(const T& body, const properties& props) {
        const auto handle = [&] {
            if constexpr (detail::kind_of_handler<T, Handler>() == detail::handler_kind::body) {
                static_cast<void>(std::invoke(handler_, body));
            } else {
                static_cast<void>(std::invoke(handler_, body, props));
            }
        };
        if (props.id.empty()) { return handle(); }
        if (ids_->begin(props.id) == detail::done_ids::answer::done) { return; }
        struct ending {
            detail::done_ids& ids;
            const std::string& id;
            bool is_done = false;
            ~ending() { ids.end(id, is_done); }
        } at_end{*ids_, props.id};
        handle();
        at_end.is_done = true;
    }

    template <class T>
    requires(detail::kind_of_handler<T, Handler>() == detail::handler_kind::delivery) //
        void
        operator()(delivery<T> message) {
        if (!message.props().id.empty()) {
            struct kept final : detail::done_ids::aside {
                explicit kept(delivery<T>&& d) noexcept : message(std::move(d)) {}
                void acknowledge() noexcept override { message.ack(); }
                void give_back() noexcept override { message.release(); }
                delivery<T> message;
            };
            const std::string id = message.props().id;
            struct leaving {
                void operator()(detail::settling_watch* w) const noexcept { w->leave(); }
            };
            std::unique_ptr<detail::settling_watch, leaving> watch(&detail::settling_watch::over(detail::delivery_access::owner(message), id, ids_));
            switch (ids_->begin_or_keep(id, [&] { return std::make_unique<kept>(std::move(message)); })) {
            case detail::done_ids::answer::done: message.ack(); return;
            case detail::done_ids::answer::busy: return;
            case detail::done_ids::answer::begin: break;
            }
            detail::delivery_access::redirect(message, *watch.release());
        }
        static_cast<void>(std::invoke(handler_, std::move(message)));
    }

    idempotent_stats statistics() const { return ids_->count(); }

private:
    Handler handler_;
    std::shared_ptr<detail::done_ids> ids_;
};

/// Wraps a handler of `consume` so that its effect happens once for each id within `window`: see the head of idempotent.hpp. Throws errc::invalid for
/// a window of zero or less, or an empty function. Cost for a message with an id: two looks under a lock, and a copy of the id.
template <class Handler>
[[nodiscard]] idempotent_handler<Handler> idempotent(Handler handler, idempotent_options options) {
    if (options.window <= duration::zero()) { detail::fail(errc::invalid, "idempotent_options.window is zero or less"); }
    if (detail::is_empty_handler(handler)) { detail::fail(errc::invalid, "the handler of idempotent() is an empty function"); }
    return idempotent_handler<Handler>(std::move(handler), options);
}
template <class Handler>
[[nodiscard]] idempotent_handler<Handler> idempotent(Handler handler, duration window) {
    return idempotent(std::move(handler), idempotent_options{.window = window});
}

} // namespace mailroom
