// requester<Req, Rep>: asks through a queue. request.hpp begins with how it is used.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/message/asking.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/request/answer.hpp>
#include <mailroom/request/answers.hpp>
#include <mailroom/request/call_of.hpp>
#include <mailroom/store/memory.hpp>
#include <mailroom/store/rendezvous.hpp>
#include <mailroom/store/topic_core.hpp>
#include <mailroom/topic.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

namespace mailroom {

/// What a requester ever did.
struct request_stats {
    std::uint64_t asked = 0;     ///< requests
    std::uint64_t answered = 0;  ///< of those, with a value
    std::uint64_t failed = 0;    ///< with a failure of the responder, the queue, or because the caller was told to stop
    std::uint64_t timed_out = 0; ///< without an answer in time
    std::uint64_t late = 0;      ///< answers that nobody waited for any more, or that were one too many: dropped
};

/// Asks, and gets answers of type `Rep`. Threads: every member may be called from any thread at once, except construction, destruction and moves;
/// calls that are out when it is destroyed are answered with errc::closed, and touch it no more.
template <class Req, class Rep>
class requester {
    static_assert(detail::is_answer<Rep>, "mailroom: the answers of requester<Req, Rep> are objects that can be moved, or void: not a reference");

public:
    /// Asks through `requests`, which it may outlive (then: errc::closed). No thread. Throws std::bad_alloc.
    template <class Persistence>
    requires(!detail::is_transient<Persistence>) explicit(false) requester(queue<Req, Persistence>& requests)
        : queue_(&detail::endpoint_access::core(requests)) {
        begin(*queue_, queue_->time(), &queue_->state_of_messages(), &requester::ring<detail::memory_core<Req>>);
    }
    /// Asks all subscriptions of a topic. Those that have a responder as the request is sent are waited for: `many` gives the answers, and the
    /// failures, of all of them as they come, and ends when each has ended, or is gone. One answer: the first; a failure if all of them failed. Where
    /// none has a responder, whoever comes while the time lasts may answer; then `many` does not end before its time.
    template <class Persistence>
    requires(!detail::is_transient<Persistence>) explicit(false) requester(topic<Req, Persistence>& requests)
        : topic_(&detail::endpoint_access::core(requests)) {
        begin(*topic_, topic_->times().clock(), nullptr, &requester::ring<detail::topic_core<Req>>);
    }
    requester(requester&& other) noexcept
        : queue_(std::exchange(other.queue_, nullptr)), topic_(std::exchange(other.topic_, nullptr)), there_(std::exchange(other.there_, nullptr)),
          desk_(std::exchange(other.desk_, nullptr)) {}
    requester& operator=(requester&& other) noexcept {
        if (this != &other) {
            close();
            queue_ = std::exchange(other.queue_, nullptr);
            topic_ = std::exchange(other.topic_, nullptr);
            there_ = std::exchange(other.there_, nullptr);
            desk_ = std::exchange(other.desk_, nullptr);
        }
        return *this;
    }
    ~requester() { close(); }

    /// Sends `what` and waits for the answer, at most `limit`. Fails with
    ///   errc::timed_out   there was none in time; the request is withdrawn, and, if a responder has it by then, its answer dropped and counted
    ///   errc::closed      the queue, or this, was closed or destroyed
    ///   errc::cancelled   the stop token said so; the request is withdrawn
    ///   errc::rejected    the request ended without an answer: dropped from the queue, or taken by somebody else than a responder
    ///   errc::type_mismatch   the responder gives answers of another type
    ///   errc::already_exists  the endpoint deduplicates, and knows the id of the request
    ///   errc::full, too_large, invalid, rejected, ...   as `send` of the queue; a queue that blocks is waited for, at most `limit`
    /// and, with `error().travelled()`, with what the responder's function threw: a mailroom::error's kind and sentence; errc::failed and the
    /// `what()` of any other exception. `props` go with the request; `reply_to` and `correlation_id` are set here, and where the request is stored
    /// `time_to_live`, unless it is given. In memory: no lock, no allocation but one now and then for more calls at once. Throws std::bad_alloc, and
    /// what `validate` throws.
    result<Rep> operator()(Req what, duration limit) { return ask(what, limit, nullptr, stop_token()); }
    result<Rep> operator()(Req what, duration limit, stop_token stop) { return ask(what, limit, nullptr, stop); }
    result<Rep> operator()(Req what, duration limit, properties props) { return ask(what, limit, &props, stop_token()); }
    result<Rep> operator()(Req what, duration limit, properties props, stop_token stop) { return ask(what, limit, &props, stop); }

    /// The same, not waiting for the answer; only for room in the queue, where that blocks, and for the disk, where requests are stored.
    [[nodiscard]] answer<Rep> async(Req what, duration limit) { return begin(what, limit, nullptr, stop_token()); }
    [[nodiscard]] answer<Rep> async(Req what, duration limit, stop_token stop) { return begin(what, limit, nullptr, stop); }
    [[nodiscard]] answer<Rep> async(Req what, duration limit, properties props) { return begin(what, limit, &props, stop_token()); }
    [[nodiscard]] answer<Rep> async(Req what, duration limit, properties props, stop_token stop) { return begin(what, limit, &props, stop); }

    /// The same, for several answers: all that the responder gives within `limit`, `most` at most. Allocates for each answer that waits. Of a topic:
    /// all that its responders give; a failure of one does not end it, and does not count.
    [[nodiscard]] answers<Rep> many(Req what, duration limit, std::size_t most = std::numeric_limits<std::size_t>::max()) {
        return begin_many(what, limit, most, nullptr, stop_token());
    }
    [[nodiscard]] answers<Rep> many(Req what, duration limit, std::size_t most, stop_token stop) {
        return begin_many(what, limit, most, nullptr, stop);
    }
    [[nodiscard]] answers<Rep> many(Req what, duration limit, std::size_t most, properties props) {
        return begin_many(what, limit, most, &props, stop_token());
    }

    request_stats statistics() const noexcept {
        request_stats s;
        if (desk_ == nullptr) { return s; }
        const detail::call::tally t = desk_->tally();
        s.asked = t.asked;
        s.answered = t.answered;
        s.failed = t.failed;
        s.timed_out = t.timed_out;
        s.late = t.late;
        return s;
    }

    /// Whoever waits gets errc::closed, and so does whoever asks. What is out is withdrawn.
    void close() noexcept {
        if (desk_ == nullptr) { return; }
        there_->leave(*desk_);
        std::exchange(desk_, nullptr)->leave();
        if (queue_ != nullptr) { std::exchange(queue_, nullptr)->unrefer(); }
        if (topic_ != nullptr) { std::exchange(topic_, nullptr)->unrefer(); }
    }

private:
    using call = detail::call_of<Rep>;
    using opened = detail::open_call<Rep>;

    template <class Core>
    void begin(Core& core, clock& time, detail::cursor* mine, void (*alarm)(detail::source_base&, duration) noexcept) {
        there_ = &core.meeting_point();
        desk_ = new detail::desk_of<Rep>(time, there_->new_address(this), core, mine, alarm);
        try {
            there_->enter(*desk_);
        } catch (...) {
            desk_->unrefer();
            throw;
        }
        core.refer();
    }
    template <class Core>
    static void ring(detail::source_base& home, duration deadline) noexcept {
        static_cast<Core&>(home).watch_call(deadline);
    }

    bool lends() const noexcept { return queue_ != nullptr && queue_->journal() == nullptr; }
    result<Rep> ask(Req& what, duration limit, properties* props, const stop_token& stop) {
        if (desk_ == nullptr) { return errc::closed; }
        opened c(desk_->take());
        if (failure why = send(c, what, limit, props, stop); why.kind() != errc{}) { return not_sent(c, std::move(why)); }
        // From here on the requester may go: only the call, and its desk, stay.
        c.stop_by(stop);
        if (!c->wait_briefly() && !c->wait(deadline_of(c, limit))) { c.time_out(); }
        return c.take();
    }
    answer<Rep> begin(Req& what, duration limit, properties* props, const stop_token& stop) {
        if (desk_ == nullptr) { return answer<Rep>(failure(errc::closed)); }
        opened c(desk_->take());
        if (failure why = send(c, what, limit, props, stop); why.kind() != errc{}) { return answer<Rep>(not_sent(c, std::move(why))); }
        c.set_deadline(deadline_of(c, limit));
        c.stop_by(stop);
        return answer<Rep>(std::move(c));
    }
    answers<Rep> begin_many(Req& what, duration limit, std::size_t most, properties* props, const stop_token& stop) {
        if (desk_ == nullptr) { return answers<Rep>(failure(errc::closed)); }
        if (most == 0) { return answers<Rep>(failure(errc::invalid, "of no answers none is asked for")); }
        opened c(desk_->take());
        c->expect_many();
        if (failure why = send(c, what, limit, props, stop); why.kind() != errc{}) { return answers<Rep>(not_sent(c, std::move(why))); }
        c.set_deadline(deadline_of(c, limit));
        c.stop_by(stop);
        return answers<Rep>(std::move(c), most);
    }
    static failure not_sent(opened& c, failure why) {
        c.conclude(why.kind());
        return why;
    }

    /// errc{}: the request is on its way, and the deadline known.
    failure send(opened& c, Req& what, duration limit, properties* props, const stop_token& stop) {
        if (topic_ != nullptr) { c->expect_from(*there_); }
        c->open();
        if (topic_ != nullptr) { c->expect_no_others(*there_); }
        result<offset> place = lends() ? lend(c, what, limit, props, stop) : store(c, what, limit, props, stop);
        if (!place) { return stop.stop_requested() && place.error() == errc::full ? failure(errc::cancelled) : place.error(); }
        if (*place == no_offset) { return failure(errc::full, "the endpoint is full, and its overflow rule dropped the request"); }
        c->sent_to(*place);
        return errc{};
    }
    // Where it waited for room, or for the disk, its time began before; otherwise now, or a moment ago.
    static duration deadline_of(const opened& c, duration limit) noexcept {
        return c.deadline() != clock::never ? c.deadline() : detail::deadline_after(c->time(), limit);
    }
    // In memory: the call's own envelope goes with the message.
    result<offset> lend(opened& c, Req& what, duration limit, properties* props, const stop_token& stop) {
        detail::envelope& e = c->cover;
        c->lend();
        struct lent {
            call& of;
            std::unique_ptr<detail::envelope> cover;
            ~lent() {
                if (cover.release() != nullptr) { of.end_loan(); }
            }
        } way{*c, std::unique_ptr<detail::envelope>(&e)};
        if (desk_->closed()) { return errc::closed; }
        if (props != nullptr || c->is_dressed) {
            e.props = props != nullptr ? std::move(*props) : properties();
            e.props.reply_to = desk_->name();
            c->is_dressed = props != nullptr;
        }
        detail::write_call_number(e.props.correlation_id, c->number());
        e.due = duration::min();
        e.expires = duration::max();
        if (auto wrong = queue_->objection(what, e.props)) { return *std::move(wrong); }
        result<offset> place = queue_->try_covered(what, way.cover);
        if (!place && place.error() == errc::full && limit > duration::zero() && queue_->blocks()) {
            c.set_deadline(detail::deadline_after(queue_->time(), limit));
            place = queue_->send_covered(what, way.cover, c.deadline(), stop);
        }
        if (place && *place != no_offset && way.cover != nullptr) { return known_already(); }
        return place;
    }
    // In a journal, or to several: what belongs to the call is said by its properties.
    result<offset> store(opened& c, Req& what, duration limit, properties* props, const stop_token& stop) {
        if (desk_->closed()) { return errc::closed; }
        properties all = props != nullptr ? std::move(*props) : properties();
        all.reply_to = desk_->name();
        detail::write_call_number(all.correlation_id, c->number());
        if (all.time_to_live == duration::zero() && limit != clock::never) { all.time_to_live = std::max(limit, duration(1)); }
        if (auto wrong = topic_ != nullptr ? topic_->objection(what, all) : queue_->objection(what, all)) { return *std::move(wrong); }
        c.set_deadline(detail::deadline_after(c->time(), limit));
        bool is_new = false;
        result<offset> place = topic_ != nullptr ? topic_->pick(&all).send_new(what, all, c.deadline(), stop, is_new)
                                                 : queue_->send_new(what, all, c.deadline(), stop, is_new);
        if (place && *place != no_offset && !is_new) { return known_already(); }
        return place;
    }
    static failure known_already() { return failure(errc::already_exists, "the id of the request is that of an earlier one"); }

    detail::memory_core<Req>* queue_ = nullptr; // one of the two
    detail::topic_core<Req>* topic_ = nullptr;
    detail::rendezvous* there_ = nullptr;
    detail::desk_of<Rep>* desk_ = nullptr;
};

} // namespace mailroom
