#include <mailroom/base/type_name.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace app {

struct order {};
enum class side { buy, sell };
template <class T>
struct outer {
    struct inner {};
    template <class U>
    struct deep {};
};
template <class T, class U = int>
struct with_default {};
template <class... Ts>
struct pack {};
template <class T, int N>
struct mixed {};
template <std::size_t N>
struct sized {};
struct known {};

} // namespace app

template <>
struct mailroom::type_name<app::known> {
    static constexpr std::string_view value = "acme.known";
};

namespace {
struct hidden {};

struct row {
    std::string_view name;
    std::string_view expected;
};
template <class T>
constexpr row is(std::string_view expected) {
    return {mailroom::type_name_v<T>, expected};
}
} // namespace

TEST_CASE("type_name: one spelling for every compiler and standard library") {
    using std::chrono::system_clock;
    for (const auto& [name, expected] : {
             is<bool>("bool"),
             is<char>("char"),
             is<signed char>("int8"),
             is<std::uint8_t>("uint8"),
             is<short>("int16"),
             is<std::uint16_t>("uint16"),
             is<int>("int32"),
             is<unsigned>("uint32"),
             is<std::int64_t>("int64"),
             is<long long>("int64"),
             is<std::uint64_t>("uint64"),
             is<unsigned long long>("uint64"),
             is<double>("double"),
             is<long double>("long double"),
             is<char8_t>("char8_t"),
             is<std::byte>("std::byte"),
             is<std::string>("std::string"),
             is<std::string_view>("std::string_view"),
             is<std::wstring>("std::basic_string<wchar_t>"),
             is<const char*>("const char*"),
             is<const volatile int&>("const volatile int32&"),
             is<int (*)(const char*)>("int32(*)(const char*)"),
             is<unsigned long[3]>("uint64[3]"),
             is<app::order>("app::order"),
             is<app::side>("app::side"),
             is<hidden>("(anonymous namespace)::hidden"),
             is<std::vector<int>>("std::vector<int32>"),
             is<std::vector<std::vector<std::string>>>("std::vector<std::vector<std::string>>"),
             is<std::map<std::string, std::vector<unsigned long>>>("std::map<std::string, std::vector<uint64>>"),
             is<std::map<int, int, std::greater<int>>>("std::map<int32, int32, std::greater<int32>>"),
             is<std::optional<app::order>>("std::optional<app::order>"),
             is<std::pair<short, long>>("std::pair<int16, int64>"),
             is<std::tuple<>>("std::tuple<>"),
             is<std::variant<int, std::string>>("std::variant<int32, std::string>"),
             is<std::unique_ptr<app::order>>("std::unique_ptr<app::order>"),
             is<std::array<long, 13>>("std::array<int64, 13>"),
             is<std::array<app::known, 0>>("std::array<acme.known, 0>"),
             is<std::function<void(unsigned long)>>("std::function<void(uint64)>"),
             is<std::chrono::time_point<system_clock, std::chrono::duration<long>>>(
                 "std::chrono::time_point<std::chrono::system_clock, std::chrono::duration<int64>>"),
             is<std::chrono::duration<int, std::milli>>("std::chrono::duration<int32, std::ratio<1, 1000>>"),
             is<app::outer<unsigned long>::inner>("app::outer<uint64>::inner"),
             is<app::outer<std::string>::inner>("app::outer<std::string>::inner"),
             is<app::with_default<long>>("app::with_default<int64>"),
             is<app::with_default<long, long>>("app::with_default<int64, int64>"),
             is<app::pack<int, int>>("app::pack<int32, int32>"),
             is<app::mixed<long, 3>>("app::mixed<int64, 3>"),
             is<app::sized<7>>("app::sized<7>"),
         }) {
        CHECK(name == expected);
    }
}

TEST_CASE("type_name: a user's name reaches through the templates around it") {
    CHECK(mailroom::type_name<app::known>::value == "acme.known");
    CHECK(mailroom::type_name_v<std::vector<app::known>> == "std::vector<acme.known>");
    CHECK(mailroom::type_name_v<std::map<int, std::optional<app::known>>> == "std::map<int32, std::optional<acme.known>>");
}
