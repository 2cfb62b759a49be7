// JSON for bodies, by Boost.JSON, for who asks for it. A type takes part if boost::json::value_from and value_to take it:
// containers, described structs (BOOST_DESCRIBE_STRUCT), or tag_invoke of one's own; Boost.JSON decides what may be
// missing. Before Boost 1.84 it may read a double as one of its neighbours.
//
// Boost.JSON is not header-only by itself: one translation unit of the program includes <boost/json/src.hpp> (or the
// program links libboost_json). Functions without state; they may be called from any thread.
#pragma once

#include <mailroom/base/error.hpp>
#include <mailroom/base/type_name.hpp>
#include <mailroom/message/byte_sink.hpp>

#include <boost/json/conversion.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serializer.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>

#include <cstddef>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <string_view>

namespace mailroom {

namespace detail {

template <class T>
consteval void require_json() {
    static_assert(boost::json::has_value_from<T>::value && boost::json::has_value_to<T>::value,
                  "Boost.JSON does not know this T: describe it (BOOST_DESCRIBE_STRUCT) or write tag_invoke for value_from and value_to");
}

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_json(std::string_view type, std::string_view why) {
    fail(errc::corrupt, std::string("the bytes are no JSON of ").append(type).append(": ").append(why));
}

} // namespace detail

/// A codec that writes JSON:
///
///     BOOST_DESCRIBE_STRUCT(Order, (), (id, symbol, price))
///     template <> struct mailroom::codec<Order> : mailroom::json_codec<Order> {};
template <class T>
struct json_codec {
    static constexpr std::string_view content_type = "application/json";

    /// Appends the value as JSON, without spaces.
    static void encode(const T& value, byte_sink& out) {
        detail::require_json<T>();
        const boost::json::value document = boost::json::value_from(value);
        boost::json::serializer serializer;
        serializer.reset(&document);
        char part[1024];
        while (!serializer.done()) { out.write(std::as_bytes(std::span<const char>(serializer.read(part)))); }
    }

    /// Reads one JSON document. Throws errc::corrupt where it is none, or none of a T; values nested deeper than 32 are
    /// refused.
    static T decode(std::span<const std::byte> bytes) {
        detail::require_json<T>();
        boost::json::parse_options options;
        precise(options);
        try {
            return boost::json::value_to<T>(
                boost::json::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, boost::json::storage_ptr(), options));
        } catch (const std::bad_alloc&) { throw; } catch (const std::exception& trouble) {
            detail::fail_json(type_name_v<T>, trouble.what());
        }
    }

private:
    template <class Options>
    static void precise(Options& options) {
        if constexpr (requires { options.numbers; }) { options.numbers = decltype(options.numbers)::precise; }
    }
};

} // namespace mailroom
