// responder<Req, Rep>: answers what is asked through a queue. request.hpp begins with how it is used.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/type_name.hpp>
#include <mailroom/consume_options.hpp>
#include <mailroom/consumer.hpp>
#include <mailroom/consuming/engine.hpp>
#include <mailroom/message/delivery.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/request/call_of.hpp>
#include <mailroom/request/reply.hpp>
#include <mailroom/store/call.hpp>
#include <mailroom/store/rendezvous.hpp>
#include <mailroom/store/source.hpp>
#include <mailroom/subscription.hpp>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mailroom {

/// What a responder ever did.
struct response_stats {
    std::uint64_t answered = 0;  ///< requests its function was called for, and returned
    std::uint64_t failed = 0;    ///< and threw
    std::uint64_t skipped = 0;   ///< requests it was not called for, because nobody waited any more, or for an answer of another type
    std::uint64_t unclaimed = 0; ///< answers that were dropped: too late, one too many, or their requester is of an earlier process
};

namespace detail {

struct response_counters {
    std::atomic<std::uint64_t> answered{0}, failed{0}, skipped{0}, unclaimed{0};
};

template <class T>
inline constexpr bool is_result = false;
template <class T>
inline constexpr bool is_result<result<T>> = true;

/// A responder's consumer.
template <class Req, class Rep, class Fn>
class responding final : public engine<Req> {
    static constexpr bool replies = std::is_invocable_v<Fn&, const Req&, reply<Rep>&>;
    static constexpr bool plain = std::is_invocable_v<Fn&, const Req&>;
    static constexpr bool with_properties = std::is_invocable_v<Fn&, const Req&, const properties&>;
    static_assert(plain || with_properties || replies,
                  "mailroom: the function of a responder is called with (const Req&), with (const Req&, const mailroom::properties&), "
                  "or with (const Req&, mailroom::reply<Rep>&)");

public:
    /// `whom`: a subscription, each of which is given what is asked; nullptr for a queue.
    responding(source<Req>& from, rendezvous& there, const void* whom, Fn&& fn, consume_options&& o)
        : engine<Req>(from, std::move(o), true), there_(there), whom_(whom), from_(&from), kept_(from), fn_(std::move(fn)) {
        if (whom_ != nullptr) { there_.come_to_answer(whom_, from_); }
    }
    ~responding() { leave(); }
    const response_counters& count() const noexcept { return count_; }
    /// It answers no more, and what it was asked it has answered. One call has an effect.
    void leave() noexcept {
        if (whom_ != nullptr && !left_.exchange(true, std::memory_order_relaxed)) { there_.leave_answering(whom_, from_); }
    }
    bool drain(duration limit) noexcept override {
        if (!engine<Req>::drain(limit)) { return false; }
        leave();
        return true;
    }

private:
    static void add(std::atomic<std::uint64_t>& to, std::uint64_t n = 1) noexcept {
        if (n != 0) { to.fetch_add(n, std::memory_order_relaxed); }
    }

    void handle(std::optional<delivery<Req>>& request) override {
        const properties& p = std::as_const(*request).props();
        const detail::envelope* const cover = detail::delivery_access::cover(*request);
        struct found {
            detail::call* call = nullptr;
            bool held = false;
            ~found() {
                if (held) { call->let_go(); }
            }
        } asker;
        bool known = false;
        if (cover != nullptr && cover->lent.home != nullptr) {
            asker.call = static_cast<detail::call*>(cover->lent.home);
            known = true;
        } else if ((asker.call = there_.find(p, known)) != nullptr) {
            asker.held = true;
        }
        if (known && !may_answer(asker.call, whom_)) {
            add(count_.skipped);
        } else {
            reply<Rep> out(static_cast<detail::call_of<Rep>*>(asker.call), whom_, p);
            respond(**request, out);
            add(count_.unclaimed, out.unclaimed_);
        }
        request->ack(); // the answer is given before: who crashes in between answers again
    }
    // Whether somebody waits, and for what we have.
    static bool may_answer(detail::call* c, const void* whom) noexcept {
        if (c == nullptr || !c->is_wanted()) { return false; }
        const std::string_view wanted = c->at().type(), have = type_name_v<Rep>;
        if (wanted.data() == have.data() || wanted == have) {
            static_cast<call_of<Rep>*>(c)->expect_answer();
            return true;
        }
        try {
            c->fail_from(
                whom, failure(errc::type_mismatch, "the responder answers with " + std::string(have) + ", not " + std::string(wanted)).from_afar());
        } catch (...) { c->fail_from(whom, failure(errc::type_mismatch).from_afar()); }
        return false;
    }
    void respond(const Req& what, reply<Rep>& out) noexcept {
        try {
            if constexpr (plain) {
                answer_by(out, [&]() -> decltype(auto) { return std::invoke(*fn_, what); });
            } else if constexpr (with_properties) {
                answer_by(out, [&]() -> decltype(auto) { return std::invoke(*fn_, what, out.props()); });
            } else {
                std::invoke(*fn_, what, out);
                out.end();
                add(count_.answered);
            }
            return;
        } catch (const error& e) { tell(out, e); } catch (const std::exception& e) {
            out.fail(errc::failed, e.what());
        } catch (...) { out.fail(errc::failed, "something that is no std::exception was thrown"); }
        add(count_.failed);
    }
    static void tell(reply<Rep>& out, const error& e) noexcept {
        try {
            out.fail(e.kind(), std::string(e.sentence()).c_str());
        } catch (...) { out.fail(e.kind(), ""); }
    }
    // `fn` gives the answer, or why there is none.
    template <class Call>
    void answer_by(reply<Rep>& out, Call fn) {
        using given = std::remove_cvref_t<std::invoke_result_t<Call&>>;
        if constexpr (std::is_void_v<given>) {
            static_assert(std::is_void_v<Rep>, "mailroom: the function of responder<Req, Rep> returns nothing; its Rep would be void");
            fn();
            out.send();
        } else if constexpr (is_result<given> && !std::is_same_v<given, Rep>) {
            auto&& r = fn();
            if (!r) {
                out.fail(r.error().kind(), r.error().what());
                add(count_.failed);
                return;
            }
            if constexpr (std::is_void_v<Rep>) {
                out.send();
            } else {
                out.send(*std::forward<decltype(r)>(r));
            }
        } else if constexpr (std::is_void_v<Rep>) {
            static_cast<void>(fn());
            out.send();
        } else {
            out.send(fn());
        }
        out.end();
        add(count_.answered);
    }
    void drop_handler() noexcept override {
        leave();
        fn_.reset();
        detail::engine<Req>::drop_handler();
    }

    rendezvous& there_; // of the source, or what that keeps
    const void* const whom_;
    std::atomic<bool> left_{false};
    const void* const from_;
    source_ref<Req> kept_; // as long as this may say that it leaves
    std::optional<Fn> fn_; // until nothing runs any more
    response_counters count_;
};

template <class Fn, class Req>
struct answered_by {};
template <class T>
struct without_result {
    using type = T;
};
template <class T>
struct without_result<result<T>> {
    using type = T;
};
template <class Fn, class Req>
requires std::is_invocable_v<Fn&, const Req&>
struct answered_by<Fn, Req> : without_result<std::remove_cvref_t<std::invoke_result_t<Fn&, const Req&>>> {
};
template <class Fn, class Req>
requires(!std::is_invocable_v<Fn&, const Req&> && std::is_invocable_v<Fn&, const Req&, const properties&>) struct answered_by<Fn, Req>
    : without_result<std::remove_cvref_t<std::invoke_result_t<Fn&, const Req&, const properties&>>> {
};

} // namespace detail

/// Calls a function for each request and sends what it returns back to whoever asked. Its function is called as
///     fn(const Req&) -> Rep                       or result<Rep>; where Rep is void, anything
///     fn(const Req&, const properties&) -> Rep    or result<Rep>; the same
///     fn(const Req&, reply<Rep>&)                 several answers, as it goes; they end when it returns
/// and what it throws travels back; the request is done then, and not tried again. It is a consumer: as to threads, leases, destruction and what
/// `consume_options` mean, see consumer.hpp. Requests for whose answers nobody waits any more are skipped. Messages of the queue that are no requests
/// are answered like requests that nobody waits for.
/// Where the number of threads is fixed, and nothing limits what may start, a thread that is at work takes one request after the other itself, and
/// looks for the next for a moment before it sleeps; `prefetch` counts for what is there as it begins.
template <class Req, class Rep>
class responder {
    static_assert(detail::is_answer<Rep>, "mailroom: the answers of responder<Req, Rep> are objects that can be moved, or void: not a reference");

public:
    /// Begins. Throws errc::invalid for options outside what is allowed, std::system_error if threads cannot be had.
    template <class Persistence, class Fn>
    requires(!detail::is_transient<Persistence>) responder(queue<Req, Persistence>& requests, Fn fn)
        : responder(requests, std::move(fn), consume_options()) {}
    template <class Persistence, class Fn>
    requires(!detail::is_transient<Persistence>) responder(queue<Req, Persistence>& requests, Fn fn, consume_options options) {
        auto& core = detail::endpoint_access::core(requests);
        begin(core, core.meeting_point(), nullptr, std::move(fn), std::move(options));
    }
    /// Answers for a subscription: of several, each is given what is asked, and may answer. Members of one subscription share it, as its mode says.
    template <class Fn>
    responder(subscription<Req>& requests, Fn fn) : responder(requests, std::move(fn), consume_options()) {}
    template <class Fn>
    responder(subscription<Req>& requests, Fn fn, consume_options options) {
        auto& group = detail::subscription_access::core(requests).subscription();
        begin(detail::subscription_access::core(requests), group.topic().meeting_point(), &group, std::move(fn), std::move(options));
    }

    /// As those of a consumer.
    void stop() noexcept { consumer_.stop(); }
    bool drain(duration limit) noexcept { return consumer_.drain(limit); }
    bool running() const noexcept { return consumer_.running(); }
    int threads() const noexcept { return consumer_.threads(); }

    response_stats statistics() const noexcept {
        response_stats s;
        if (count_ == nullptr) { return s; }
        s.answered = count_->answered.load(std::memory_order_relaxed);
        s.failed = count_->failed.load(std::memory_order_relaxed);
        s.skipped = count_->skipped.load(std::memory_order_relaxed);
        s.unclaimed = count_->unclaimed.load(std::memory_order_relaxed);
        return s;
    }

private:
    template <class Fn>
    void begin(detail::source<Req>& from, detail::rendezvous& there, const void* whom, Fn fn, consume_options options) {
        detail::check_options(options);
        if (detail::is_empty_handler(fn)) { detail::fail(errc::invalid, "the function of a responder is empty"); }
        auto made = std::make_shared<detail::responding<Req, Rep, Fn>>(from, there, whom, std::move(fn), std::move(options));
        made->start();
        count_ = std::shared_ptr<const detail::response_counters>(made, &made->count());
        consumer_ = detail::consumer_access::make(std::move(made));
    }

    std::shared_ptr<const detail::response_counters> count_;
    consumer consumer_; // the first to go: it waits for running functions
};
/// `responder serve{requests, fn};`: the answers are what `fn` returns. Not where it takes a reply<Rep>&: name the types there.
template <class Req, class Persistence, class Fn, class... Options>
responder(queue<Req, Persistence>&, Fn, Options...) -> responder<Req, typename detail::answered_by<Fn, Req>::type>;

template <class Req, class Fn, class... Options>
responder(subscription<Req>&, Fn, Options...) -> responder<Req, typename detail::answered_by<Fn, Req>::type>;

} // namespace mailroom
