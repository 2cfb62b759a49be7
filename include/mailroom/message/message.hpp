// message<T>: what `pop` gives. It owns its body (a queue), shares it with others (a topic), or looks at one that somebody keeps (`browse`).
// A message is a value of one thread at a time; looking at it from several is fine.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/message/settler.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace mailroom {

namespace detail {

struct envelope;

/// Whoever lends envelopes and wants them back. `take_back` is called in the place of `delete`, perhaps under an endpoint's lock.
class envelope_home {
public:
    virtual void take_back(envelope& lent) noexcept = 0;

protected:
    ~envelope_home() = default;
};

/// Properties as they are kept with a message, their times made absolute on the endpoint's clock. Only messages that carry some have one.
/// One that is lent is given back by `delete`; a copy of it is not lent.
struct envelope {
    struct lender {
        envelope_home* home = nullptr;
        lender() noexcept = default;
        lender(const lender&) noexcept {}
        lender& operator=(const lender&) noexcept { return *this; }
    };

    lender lent;
    duration sent{};                    // when
    duration due = duration::min();     // not before
    duration expires = duration::max(); // not after
    properties props;

    bool is_timed() const noexcept { return due != duration::min() || expires != duration::max(); }

    static void* operator new(std::size_t bytes) { return ::operator new(bytes); }
    static void* operator new(std::size_t, void* at) noexcept { return at; }
    static void operator delete(void* at) noexcept { ::operator delete(at); } // for a constructor that throws
    static void operator delete(envelope* e, std::destroying_delete_t) noexcept {
        if (e->lent.home != nullptr) [[unlikely]] {
            e->lent.home->take_back(*e);
            return;
        }
        e->~envelope();
        ::operator delete(e);
    }
};

struct message_access;

} // namespace detail

/// A message that has been taken out of its queue, or read from its topic, with its properties.
template <class T>
class message {
    static constexpr bool holds_inside = !detail::is_boxed<T>; // what is boxed in its slot stays in its box

public:
    message(message&& other) noexcept
        : cover_(std::exchange(other.cover_, nullptr)), timestamp_(other.timestamp_), offset_(other.offset_), turn_(other.turn_), kind_(other.kind_) {
        if constexpr (holds_inside) {
            if (kind_ == kind::owner) {
                std::construct_at(std::addressof(inside_), std::move(other.inside_));
                return;
            }
        }
        outside_ = other.outside_;
        other.outside_.body = nullptr;
        if (other.kind_ == kind::sharer) { other.kind_ = kind::onlooker; }
    }
    message& operator=(message&& other) noexcept {
        if (this != &other) {
            std::destroy_at(this);
            std::construct_at(this, std::move(other));
        }
        return *this;
    }
    ~message() {
        if (kind_ != kind::owner) [[unlikely]] {
            if (kind_ == kind::sharer) { end_look(); }
            return;
        }
        if constexpr (holds_inside) {
            std::destroy_at(std::addressof(inside_));
        } else {
            delete outside_.body;
        }
        if (cover_ != nullptr) [[unlikely]] { end_cover(cover_); }
    }

    /// The body. Valid as long as this message.
    const T& body() const noexcept {
        if constexpr (holds_inside) {
            if (kind_ == kind::owner) { return inside_; }
        }
        return *outside_.body;
    }
    const T& operator*() const noexcept { return body(); }
    const T* operator->() const noexcept { return std::addressof(body()); }

    /// Moves the body out; the message is of no further use. Copies one that others see too (on a topic, in `browse`); throws
    /// errc::unsupported where such a T cannot be copied.
    T take() && {
        if (kind_ != kind::owner) {
            if constexpr (std::is_copy_constructible_v<T>) {
                return std::as_const(*outside_.body);
            } else {
                detail::fail(errc::unsupported, "the message is shared with others, and its T cannot be copied: look at body() instead");
            }
        }
        if constexpr (holds_inside) {
            return std::move(inside_);
        } else {
            return std::move(*outside_.body);
        }
    }

    /// What it was sent with; empty if nothing was set.
    const properties& props() const noexcept { return cover_ != nullptr ? cover_->props : no_properties; }
    /// When it was sent, by the wall clock.
    time_point timestamp() const noexcept { return timestamp_; }
    /// Its place in the stream.
    mailroom::offset offset() const noexcept { return offset_; }

private:
    friend struct detail::message_access;

    enum class kind : std::uint8_t {
        owner,    // of body and properties
        onlooker, // somebody else keeps them, for as long as this is there
        sharer,   // the endpoint keeps them until this says that it no longer looks
    };

    void end_look() noexcept {
        if (turn_ == 0) [[likely]] {
            std::uint64_t seen = detail::look_word::held;
            auto& word = *static_cast<std::atomic<std::uint64_t>*>(outside_.where);
            if (word.compare_exchange_strong(seen, detail::look_word::over, std::memory_order_acq_rel, std::memory_order_relaxed)) { return; }
        }
        outside_.keeper->end_look({outside_.where, turn_, 0, offset_});
    }

    // Out of line, so that what all messages do is short.
    [[gnu::cold, gnu::noinline]] static void end_cover(const detail::envelope* cover) noexcept { delete cover; }

    message(T&& value, std::unique_ptr<detail::envelope> e, time_point when, mailroom::offset place) requires(!detail::is_boxed<T>)
        : inside_(std::move(value)), cover_(e.release()), timestamp_(when), offset_(place), kind_(kind::owner) {}
    message(std::unique_ptr<T> value, std::unique_ptr<detail::envelope> e, time_point when, mailroom::offset place) requires detail::is_boxed<T>
        : outside_{value.release(), nullptr, nullptr}, cover_(e.release()), timestamp_(when), offset_(place), kind_(kind::owner) {}
    message(T* value, const detail::envelope* e, time_point when, mailroom::offset place)
        : outside_{value, nullptr, nullptr}, cover_(e), timestamp_(when), offset_(place), kind_(kind::onlooker) {}
    message(T* value, const detail::envelope* e, time_point when, detail::settler& keeper, const detail::handle& at)
        : outside_{value, &keeper, at.where}, cover_(e), timestamp_(when), offset_(at.place), turn_(at.turn), kind_(kind::sharer) {}

    struct outside {
        T* body;
        detail::settler* keeper;
        void* where;
    };
    struct nothing {};
    union {
        std::conditional_t<holds_inside, T, nothing> inside_;
        outside outside_;
    };
    const detail::envelope* cover_; // its own, if it is the owner
    time_point timestamp_;
    mailroom::offset offset_;
    std::uint32_t turn_ = 0;
    kind kind_;
};

namespace detail {

/// How stores make messages.
struct message_access {
    template <class T, class... Args>
    static message<T> make(Args&&... args) {
        return message<T>(std::forward<Args>(args)...);
    }
    template <class T>
    static message<T> look(settler& keeper, const T* body, const envelope* cover, time_point when, const handle& at) {
        return message<T>(const_cast<T*>(body), cover, when, keeper, at);
    }
};

} // namespace detail
} // namespace mailroom
