// message<T>: what `pop` gives. It owns its body (a queue), or looks at one that somebody else keeps (in `browse`).
// A message is a value of one thread at a time; looking at it from several is fine.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/properties.hpp>

#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace mailroom {

namespace detail {

/// Properties as they are kept with a message, their times made absolute on the endpoint's clock. Only messages that carry some have one.
struct envelope {
    properties props;
    duration sent{};                    // when
    duration due = duration::min();     // not before
    duration expires = duration::max(); // not after

    bool is_timed() const noexcept { return due != duration::min() || expires != duration::max(); }
};

struct message_access;

} // namespace detail

/// A message that has been taken out of its queue, with its properties.
template <class T>
class message {
    static constexpr bool holds_inside = !detail::is_boxed<T>; // what is boxed in its slot stays in its box

public:
    message(message&& other) noexcept
        : cover_(std::exchange(other.cover_, nullptr)), timestamp_(other.timestamp_), offset_(other.offset_), owns_(other.owns_) {
        if constexpr (holds_inside) {
            if (owns_) {
                std::construct_at(std::addressof(inside_), std::move(other.inside_));
                return;
            }
        }
        body_ = std::exchange(other.body_, nullptr);
    }
    message& operator=(message&& other) noexcept {
        if (this != &other) {
            std::destroy_at(this);
            std::construct_at(this, std::move(other));
        }
        return *this;
    }
    ~message() {
        if (!owns_) { return; }
        if constexpr (holds_inside) {
            std::destroy_at(std::addressof(inside_));
        } else {
            delete body_;
        }
        if (cover_ != nullptr) [[unlikely]] { end_cover(cover_); }
    }

    /// The body. Valid as long as this message.
    const T& body() const noexcept {
        if constexpr (holds_inside) {
            if (owns_) { return inside_; }
        }
        return *body_;
    }
    const T& operator*() const noexcept { return body(); }
    const T* operator->() const noexcept { return std::addressof(body()); }

    /// Moves the body out; the message is of no further use. Of one that is only looked at (in `browse`): copies it.
    T take() && {
        if constexpr (holds_inside) {
            if (owns_) { return std::move(inside_); }
        }
        if constexpr (std::is_copy_constructible_v<T>) {
            if (!owns_) { return *body_; }
        }
        return std::move(*body_);
    }

    /// What it was sent with; empty if nothing was set.
    const properties& props() const noexcept { return cover_ != nullptr ? cover_->props : no_properties; }
    /// When it was sent, by the wall clock.
    time_point timestamp() const noexcept { return timestamp_; }
    /// Its place in the stream.
    mailroom::offset offset() const noexcept { return offset_; }

private:
    friend struct detail::message_access;

    // Out of line, so that what all messages do is short.
    [[gnu::cold, gnu::noinline]] static void end_cover(const detail::envelope* cover) noexcept { delete cover; }

    message(T&& value, std::unique_ptr<detail::envelope> e, time_point when, mailroom::offset place) requires(!detail::is_boxed<T>)
        : inside_(std::move(value)), cover_(e.release()), timestamp_(when), offset_(place), owns_(true) {}
    message(std::unique_ptr<T> value, std::unique_ptr<detail::envelope> e, time_point when, mailroom::offset place) requires detail::is_boxed<T>
        : body_(value.release()), cover_(e.release()), timestamp_(when), offset_(place), owns_(true) {}
    message(T* value, const detail::envelope* e, time_point when, mailroom::offset place)
        : body_(value), cover_(e), timestamp_(when), offset_(place), owns_(false) {}

    struct nothing {};
    union {
        std::conditional_t<holds_inside, T, nothing> inside_;
        T* body_;
    };
    const detail::envelope* cover_; // its own, unless it only looks
    time_point timestamp_;
    mailroom::offset offset_;
    bool owns_; // otherwise somebody else does, and this looks
};

namespace detail {

/// How stores make messages.
struct message_access {
    template <class T, class... Args>
    static message<T> make(Args&&... args) {
        return message<T>(std::forward<Args>(args)...);
    }
};

} // namespace detail
} // namespace mailroom
