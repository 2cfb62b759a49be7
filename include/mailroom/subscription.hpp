// subscription<T>: a member of a subscription of a topic. Receives as a queue does, and can go back.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/dead_letters.hpp>
#include <mailroom/options.hpp>
#include <mailroom/receiving.hpp>
#include <mailroom/store/member.hpp>

#include <cstdint>
#include <memory>

namespace mailroom {

namespace detail {
struct subscription_access;
}

/// Made by `topic::subscribe`. As long as it is there it is a member of its subscription; when it is destroyed, what it had not settled goes to
/// the other members (in `shared`: as its deliveries' leases end, or when the last member goes), and an ephemeral subscription is over.
/// It may outlive its topic: it receives nullopt then. Deliveries and messages may outlive both.
/// Threads: every member may be called from any thread at once, except destruction and moves.
template <class T>
class subscription : public receiving<T, subscription<T>> {
    friend receiving<T, subscription<T>>;

public:
    using value_type = T;

    subscription(subscription&&) noexcept = default;
    subscription& operator=(subscription&&) noexcept = default;
    ~subscription() = default;

    /// Moves the subscription, for all its members, on or back: what has been handed out before counts no more (its `ack` answers false), and
    /// is handed out again, attempts starting at 1, if it lies after the new place. Dead letters that will be read again are gone. A place
    /// before the first message there is that one; one after the last is the end. Throws errc::invalid for a partition that is not there.
    /// Waits for receivers that are just being given something; from inside the subscription's filter it would wait for ever.
    void seek(start to) { core_->subscription().seek(to); }
    /// The same for one partition; the others go on.
    void seek(position to) { core_->subscription().seek(start(to)); }
    /// How many messages are not settled; with a filter: of those it lets through. It is asked about each that it has not been asked about.
    std::uint64_t lag() const { return core_->subscription().lag(); }
    /// Nothing is handed out to any member until `resume`; publishing goes on.
    void pause() { core_->subscription().pause(true); }
    void resume() { core_->subscription().pause(false); }
    /// What the subscription gave up on. Valid as long as this, moves included.
    dead_letters<T>& dead() { return core_->subscription().dead(); }
    /// Of the whole subscription. `sent`: what was ever published to its topic; `dropped`: what it lost by being slow.
    stats statistics() const { return core_->subscription().statistics(); }

private:
    friend struct detail::subscription_access;
    struct abandoning {
        void operator()(detail::member<T>* m) const noexcept { m->abandon(); }
    };
    explicit subscription(detail::member<T>* m) noexcept : core_(m) {}
    detail::member<T>& inlet() const noexcept { return *core_; }

    std::unique_ptr<detail::member<T>, abandoning> core_;
};

namespace detail {

struct subscription_access {
    template <class T>
    static mailroom::subscription<T> make(member<T>* m) noexcept {
        return mailroom::subscription<T>(m);
    }
    template <class T>
    static member<T>& core(const mailroom::subscription<T>& s) noexcept {
        return s.inlet();
    }
};

} // namespace detail
} // namespace mailroom
