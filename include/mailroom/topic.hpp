// topic<T>: publish once, however many subscribe.
//
// A topic is one log or several side by side, its partitions; a subscription is a cursor over each. Each message is stored once and read in
// place. Threads: every member may be called from any thread at once, except construction, destruction and moves. No thread is started but by
// `consume`.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/name.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/receipt.hpp>
#include <mailroom/options.hpp>
#include <mailroom/sending.hpp>
#include <mailroom/store/policies.hpp>
#include <mailroom/store/topic_core.hpp>
#include <mailroom/subscription.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

/// The receipt of a place in a topic.
using position_receipt = basic_receipt<position>;

template <class T, class Persistence>
class topic {
    friend detail::endpoint_access;
    static_assert(!detail::is_transient<Persistence>, "mailroom: topic<T, transient<...>> needs #include <mailroom/store/transient_topic.hpp>");
    static_assert(detail::is_transient<Persistence> || std::is_same_v<Persistence, memory> || detail::is_journal<Persistence>,
                  "mailroom: the persistence of a topic is mailroom::memory, mailroom::journal or mailroom::transient<...>");
    static_assert(message_body<T>,
                  "mailroom: the T of topic<T> has to be an object type that can be moved: not a reference, not const, not an array");

public:
    using value_type = T;

    /// A topic without subscriptions. Throws errc::invalid, with a sentence, for options outside what is allowed.
    topic() requires(!detail::is_journal<Persistence>) : topic(topic_options<T>()) {}
    explicit(false) topic(topic_options<T> options) requires(!detail::is_journal<Persistence>) : core_(make(options)) {}
    /// In a journal: what is there under this name, durable subscriptions included, or a new one. A second handle shares it; the options of the
    /// first hold. Throws errc::invalid; errc::type_mismatch for a topic of another T, errc::already_exists for a queue, or another number of
    /// partitions; errc::io.
    topic(Persistence& where, std::string name, topic_options<T> options = topic_options<T>()) requires detail::is_journal<Persistence>
        : core_(where.template open_topic<T>(name, options)) {}
    topic(topic&&) noexcept = default;
    topic& operator=(topic&&) noexcept = default;
    /// Subscriptions receive nothing any more. Deliveries and messages that are out stay valid.
    ~topic() = default;

    // ---------------------------------------------------------------------------------------------------------------------- publishing

    /// Appends a message to the partition of its key, or, without a key, to one partition after the other; waits while a durable subscription
    /// has left as much unsettled as the options allow, and the overflow rule is `block`. Throws `error` as `queue::send` does. A duplicate:
    /// the place of the original. Dropped by drop_newest: the offset is no_offset.
    /// Cost: no lock, no allocation but one block in 32 messages, and nothing for subscribers that do not wait.
    position publish(T&& value) { return place(to(nullptr).send(value)); }
    position publish(const T& value) requires std::copy_constructible<T> { return place(to(nullptr).send_copy(value)); }
    position publish(T value, properties props) { return place(to(&props).send(value, &props, stop_token())); }
    /// The same, until stopped: errc::full.
    position publish(T value, properties props, stop_token stop) { return place(to(&props).send(value, &props, stop)); }

    /// The same, waiting at most `limit`: errc::timed_out. Moves from `value` only on success. Throws nothing of the above.
    result<position> publish_for(duration limit, T&& value) { return place(to(nullptr).send_until(until(limit), value, nullptr)); }
    result<position> publish_for(duration limit, T&& value, properties props) { return place(to(&props).send_until(until(limit), value, &props)); }
    result<position> publish_for(duration limit, const T& value) requires std::copy_constructible<T> { return publish_for(limit, T(value)); }
    result<position> publish_for(duration limit, const T& value, properties props) requires std::copy_constructible<T> {
        return publish_for(limit, T(value), std::move(props));
    }

    /// The same, never waiting.
    result<position> try_publish(T&& value) { return place(to(nullptr).try_send(value, nullptr)); }
    result<position> try_publish(T&& value, properties props) { return place(to(&props).try_send(value, &props)); }
    result<position> try_publish(const T& value) requires std::copy_constructible<T> { return try_publish(T(value)); }
    result<position> try_publish(const T& value, properties props) requires std::copy_constructible<T> {
        return try_publish(T(value), std::move(props));
    }

    /// `publish` of a T made from `args`.
    template <class... Args>
    requires std::constructible_from<T, Args...> position emplace(Args&&... args) { return publish(T(std::forward<Args>(args)...)); }

    /// `publish`, its outcome in a receipt. In memory it is known when this returns; it waits for room as `publish` does.
    position_receipt publish_async(T value) { return to(nullptr).template send_async<position_receipt>(value, nullptr, at); }
    position_receipt publish_async(T value, properties props) { return to(&props).template send_async<position_receipt>(value, &props, at); }

    /// Appends all of a range in a row to one partition, or none; moves from an rvalue range that owns its elements. Returns the first place.
    /// Throws as `publish`; more than max_messages at once: errc::too_large.
    template <detail::range_of<T> Range>
    position publish_many(Range&& range) {
        return place(to(nullptr).send_many(std::forward<Range>(range)));
    }

    // ------------------------------------------------------------------------------------------------------------------- subscriptions

    /// An ephemeral subscription: it receives what is published from now on (or from `from` on), and is gone when it is destroyed.
    subscription<T> subscribe() { return join(std::string_view(), subscribe_options<T>()); }
    template <std::same_as<subscribe_options<T>> Options = subscribe_options<T>>
    subscription<T> subscribe(Options options) {
        return join(std::string_view(), options);
    }
    /// A member of the durable subscription of this name, which is made if there is none; then its place is `from`. It keeps its place and its
    /// messages while it has no members. For one that is there already the options of its first opening hold; another mode:
    /// errc::already_exists. Throws errc::invalid for an empty name, one that is not UTF-8 or longer than 255 bytes, or options outside what is
    /// allowed; errc::already_exists for a second member of an exclusive one; errc::closed when the topic is closed
    /// and there is no such subscription yet.
    template <std::convertible_to<std::string_view> Name>
    subscription<T> subscribe(const Name& name) {
        return join(named(name), subscribe_options<T>());
    }
    template <std::convertible_to<std::string_view> Name>
    subscription<T> subscribe(const Name& name, subscribe_options<T> options) {
        return join(named(name), options);
    }
    /// Forgets a durable subscription: its members receive nothing any more. False: there is none of this name.
    bool unsubscribe(std::string_view name) { return core_->unsubscribe(name); }
    /// All there are. Asks each for its state: takes its locks, one after the other, and calls its filter for what that has not seen.
    std::vector<subscription_info> subscriptions() const { return core_->subscriptions(); }

    // ----------------------------------------------------------------------------------------------------------------------- the whole

    int partitions() const noexcept { return static_cast<int>(core_->partitions().size()); }
    /// The first offset that is there, and the one the next message gets. Throws errc::invalid for a partition that is not there.
    mailroom::offset first_offset(int partition = 0) const { return core_->first_offset(checked(partition)); }
    mailroom::offset next_offset(int partition = 0) const {
        core_->see_all();
        return core_->partitions()[checked(partition)]->log().head();
    }
    /// `sent`, `duplicates`, `bytes` and `oldest_age` are the log's; the rest is summed up over all subscriptions. Looks at each message there.
    stats statistics() const { return core_->statistics(); }
    /// Publishing fails with errc::closed from now on; subscriptions get what is left, then nullopt.
    void close() { core_->close(); }
    /// Closes, and waits at most `limit` until every subscription has settled everything. True if so.
    bool drain(duration limit) { return core_->drain(until(limit)); }

private:
    struct abandoning {
        void operator()(detail::topic_core<T>* core) const noexcept { core->handle_gone(); }
    };
    static detail::topic_core<T>* make(const topic_options<T>& o) {
        detail::check_options(o);
        return new detail::topic_core<T>(o);
    }
    detail::sending<T, detail::topic_core<T>, detail::partition<T>> to(const properties* p) noexcept { return {*core_, core_->pick(p)}; }
    duration until(duration limit) const noexcept { return detail::deadline_after(core_->common().time.clock(), limit); }
    static position at(offset packed) noexcept { return place(packed); }
    static position place(offset packed) noexcept { return packed == no_offset ? position{0, no_offset} : detail::unpacked(packed); }
    static result<position> place(result<offset>&& packed) {
        if (!packed) { return packed.error(); }
        return place(*packed);
    }
    std::size_t checked(int partition) const {
        if (partition < 0 || partition >= partitions()) { detail::fail(errc::invalid, "the topic has no partition of that number"); }
        return static_cast<std::size_t>(partition);
    }
    static std::string_view named(std::string_view name) {
        detail::check_name(name);
        return name;
    }
    subscription<T> join(std::string_view name, const subscribe_options<T>& options) {
        detail::check_options(options);
        return detail::subscription_access::make<T>(core_->subscribe(name, options));
    }

    std::unique_ptr<detail::topic_core<T>, abandoning> core_;
};

} // namespace mailroom
