// properties: what may be said about a message beside its body.
// An aggregate for designated initialisers: {.key = "MSFT", .delay = 5s}. A message for which nothing is said carries
// none of it.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/message/headers.hpp>

#include <string>

namespace mailroom {

/// What a sender says about a message. Every field may be left out.
struct properties {
    std::string key{};            ///< orders, partitions, groups and compacts: messages of one key stay in order
    std::string id{};             ///< deduplicates
    std::string subject{};        ///< what it is about; routed by it where there is a broker
    std::string correlation_id{}; ///< ties a reply to its request
    std::string reply_to{};       ///< where a reply is expected
    std::string content_type{};   ///< how the body is to be read where it is bytes
    duration delay{};             ///< not handed out before that much time has passed
    duration time_to_live{};      ///< given to the dead letters after that much time; 0 = never
    int priority = 0;             ///< 0..9, higher first, clamped to the levels of the endpoint
    mailroom::headers headers{};  ///< anything else

    [[nodiscard]] friend bool operator==(const properties&, const properties&) = default;
};

namespace detail {

// Never destroyed, so that what a static object still holds can be read to the end. Initialised at compile time by g++,
// and by clang when it optimises (its std::string is no constant expression).
union properties_holder {
    properties value;
    constexpr properties_holder() : value() {}
    properties_holder(const properties_holder&) = delete;
    properties_holder& operator=(const properties_holder&) = delete;
    constexpr ~properties_holder() {} // NOLINT: a defaulted one would be deleted
};
inline const properties_holder no_properties_object;

} // namespace detail

/// The properties of a message that carries none: a constant.
inline constexpr const properties& no_properties = detail::no_properties_object.value;

} // namespace mailroom
