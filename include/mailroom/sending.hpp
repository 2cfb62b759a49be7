// sending: what queues and topics do alike with a message on its way in.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/properties.hpp>

#include <concepts>
#include <cstddef>
#include <iterator>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace mailroom {

/// What can be a message: a whole object that can be moved.
template <class T>
concept message_body = std::is_object_v<T> && !std::is_const_v<T> && !std::is_array_v<T> && std::move_constructible<T> && std::destructible<T>;

namespace detail {

/// How what stands above the faces reaches what an endpoint is made of.
struct endpoint_access {
    template <class Endpoint>
    static auto& core(Endpoint& of) noexcept {
        return *of.core_;
    }
};

template <class Range>
using range_element = decltype(*std::begin(std::declval<Range&>()));
/// An rvalue that owns its elements, not a view of somebody's: they may be moved from.
template <class Range>
inline constexpr bool gives_up_elements = !std::is_reference_v<Range> && !std::is_const_v<Range> &&
                                          (
                                              requires { typename Range::allocator_type; } || requires { std::tuple_size<Range>::value; });
/// What `send_many` takes: anything a range-for walks whose elements make a T, by copy or, given up, by move.
template <class Range, class T>
concept range_of = requires(Range& range) {
    std::begin(range);
    std::end(range);
}
&&(std::convertible_to<range_element<Range>, T> ||
   (gives_up_elements<Range> && std::convertible_to<std::remove_reference_t<range_element<Range>>&&, T>));

/// Sends to one log, after its endpoint, `Core`, has looked at the message. A value of one call.
template <class T, class Core, class Log>
class sending {
public:
    sending(Core& core, Log& log) noexcept : core_(core), log_(log) {}

    /// Waits while it is full and the rule says so. Throws what is wrong.
    offset send(T& value) {
        if (core_.is_plain()) {
            const offset place = log_.append(value);
            if (place != no_offset) { return place; }
        }
        return send(value, nullptr, stop_token());
    }
    /// The same of a copy; what is only encoded is not copied.
    offset send_copy(const T& value) {
        if (core_.is_plain()) {
            T copy(value);
            return send(copy);
        }
        if (core_.validates()) { core_.check(value, no_properties); }
        if (const offset place = log_.append_stored(value); place != no_offset) { return place; }
        result<offset> done = log_.send_copy(value);
        return value_or_throw(done);
    }
    offset send(T& value, properties* props, const stop_token& stop) {
        core_.check(value, props != nullptr ? *props : no_properties);
        result<offset> done = log_.send(value, props, clock::never, stop);
        return value_or_throw(done);
    }
    /// The same until `deadline`, as a value.
    result<offset> send_until(duration deadline, T& value, properties* props) {
        if (auto wrong = core_.objection(value, props != nullptr ? *props : no_properties)) { return *std::move(wrong); }
        return log_.send(value, props, deadline, stop_token());
    }
    /// Never waits.
    result<offset> try_send(T& value, properties* props) {
        if (auto wrong = core_.objection(value, props != nullptr ? *props : no_properties)) { return *std::move(wrong); }
        return log_.try_send(value, props);
    }

    /// The outcome in a receipt; `read` makes its value of an offset.
    template <class Receipt, class Read>
    Receipt send_async(T& value, properties* props, Read read) {
        if (auto wrong = core_.objection(value, props != nullptr ? *props : no_properties)) { return Receipt(*std::move(wrong)); }
        return log_.template send_async<Receipt>(value, props, read);
    }

    /// All of a range in a row, or none.
    template <class Range>
    offset send_many(Range&& range) {
        using element = std::remove_cvref_t<range_element<Range>>;
        constexpr bool gives_up = gives_up_elements<Range>;
        if constexpr (requires {
                          std::data(range);
                          std::size(range);
                      } &&
                      std::is_same_v<element, T> && !is_boxed<T> && (gives_up || std::is_nothrow_copy_constructible_v<T>)) {
            // Straight into their slots: nothing can throw once they have their places, and until then the range is as it was.
            auto* const values = std::data(range);
            return send_in_place(
                static_cast<std::size_t>(std::size(range)), [values](std::size_t i) -> const T& { return values[i]; },
                [values](std::size_t i, body<T>& slot) noexcept {
                    if constexpr (gives_up) {
                        slot.put(std::move(values[i]));
                    } else {
                        slot.put(T(std::as_const(values[i]))); // of all its copies the one that was asked about
                    }
                });
        } else {
            if constexpr (requires {
                              std::data(range);
                              std::size(range);
                          } &&
                          std::is_same_v<element, T>) {
                if (log_.journal() != nullptr) { // only looked at: what is encoded is neither copied nor moved
                    const auto* const values = std::data(range);
                    return send_in_place(
                        static_cast<std::size_t>(std::size(range)), [values](std::size_t i) -> const T& { return values[i]; },
                        [](std::size_t, body<T>&) noexcept {});
                }
            }
            return send_collected(std::forward<Range>(range));
        }
    }

private:
    static offset value_or_throw(result<offset>& done) {
        if (!done) { done.error().raise(); }
        return *done;
    }
    template <class Look, class Put>
    offset send_in_place(std::size_t n, Look look, Put put) {
        if (core_.validates()) {
            for (std::size_t i = 0; i < n; ++i) { core_.check(look(i), no_properties); }
        }
        result<offset> done = log_.send_many(n, look, put, clock::never, stop_token());
        return value_or_throw(done);
    }
    // A range of something else, or of what may throw: collected first, and given back if it is not sent.
    template <class Range>
    offset send_collected(Range&& range) {
        constexpr bool gives_up = gives_up_elements<Range>;
        struct plain {
            T value;
        };
        using held = std::conditional_t<is_boxed<T>, std::unique_ptr<T>, plain>; // never a vector<bool>
        std::vector<held> values;
        if constexpr (requires { std::size(range); }) { values.reserve(static_cast<std::size_t>(std::size(range))); }
        const auto keep = [&values](auto&& value) {
            if constexpr (is_boxed<T>) {
                values.push_back(std::make_unique<T>(std::forward<decltype(value)>(value)));
            } else {
                values.push_back(plain{static_cast<T>(std::forward<decltype(value)>(value))});
            }
        };
        for (auto&& value : range) {
            if constexpr (gives_up) {
                keep(std::move(value));
            } else {
                keep(std::forward<decltype(value)>(value));
            }
        }
        const auto body_of = [&values](std::size_t i) -> T& {
            if constexpr (is_boxed<T>) {
                return *values[i];
            } else {
                return values[i].value;
            }
        };
        const auto give_back = [&]() noexcept {
            if constexpr (gives_up && std::is_nothrow_move_assignable_v<T> && std::is_same_v<range_element<Range>, T&>) {
                std::size_t i = 0;
                for (auto&& value : range) { value = std::move(body_of(i++)); }
            }
        };
        struct guard {
            const decltype(give_back)& undo;
            bool sent = false;
            ~guard() {
                if (!sent) { undo(); }
            }
        } kept{give_back};
        const offset first = send_in_place(
            values.size(), [&](std::size_t i) -> const T& { return body_of(i); },
            [&values](std::size_t i, body<T>& slot) noexcept {
                if constexpr (is_boxed<T>) {
                    slot.put(std::move(values[i]));
                } else {
                    slot.put(std::move(values[i].value));
                }
            });
        kept.sent = first != no_offset;
        return first;
    }

    Core& core_;
    Log& log_;
};

} // namespace detail
} // namespace mailroom
