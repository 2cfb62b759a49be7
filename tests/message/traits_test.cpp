#include <mailroom/message/traits.hpp>

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace {

struct plain {
    int a, b;
};
struct order {
    int id = 0;
    std::string symbol;
};
struct deque_of_mine {
    std::vector<int> held;
};

} // namespace

template <>
struct mailroom::footprint<order> {
    static std::size_t of(const order& o) noexcept { return sizeof o + o.symbol.size(); }
};
template <>
struct mailroom::reuse_slot<deque_of_mine> : std::true_type {};

using mailroom::footprint;
using mailroom::footprint_of;

TEST_CASE("footprint: what does not hold anything elsewhere counts its size, known beforehand") {
    CHECK(footprint_of(1) == 4);
    CHECK(footprint_of(plain{}) == 8);
    CHECK(footprint_of(std::string_view("not mine")) == sizeof(std::string_view));
    CHECK(footprint_of(std::array<int, 3>{}) == 12);
    CHECK(footprint_of(std::optional<int>(1)) == sizeof(std::optional<int>));
    static_assert(footprint<int>::constant && footprint<plain>::constant && footprint<std::array<int, 3>>::constant);
    static_assert(footprint<std::optional<int>>::constant && footprint<std::variant<int, char>>::constant);
    static_assert(footprint<std::pair<int, int>>::constant && footprint<std::tuple<>>::constant);
    static_assert(!footprint<std::string>::constant && !footprint<std::pair<int, std::string>>::constant);
    static_assert(!mailroom::detail::footprint_is_constant<order> && !footprint<std::optional<order>>::constant);
}

TEST_CASE("footprint: what is held elsewhere is added, however deep it lies") {
    const std::string text(100, 'x');
    CHECK(footprint_of(text) == sizeof text + 100);
    CHECK(footprint_of(std::u16string(10, u'x')) == sizeof(std::u16string) + 20);
    CHECK(footprint_of(std::vector<int>(5)) == sizeof(std::vector<int>) + 20);
    CHECK(footprint_of(std::vector<std::string>(2, text)) == sizeof(std::vector<int>) + 2 * (sizeof text + 100));
    CHECK(footprint_of(std::vector<bool>(16)) > sizeof(std::vector<bool>));
    CHECK(footprint_of(std::optional<std::string>(text)) == sizeof(std::optional<std::string>) + 100);
    CHECK(footprint_of(std::optional<std::string>()) == sizeof(std::optional<std::string>));
    CHECK(footprint_of(std::pair<int, std::string>(1, text)) == sizeof(std::pair<int, std::string>) + 100);
    CHECK(footprint_of(std::tuple<std::string, int, std::string>(text, 1, text)) == sizeof(std::tuple<std::string, int, std::string>) + 200);
    CHECK(footprint_of(std::array<std::string, 2>{text, text}) == 2 * sizeof(std::string) + 200);
    CHECK(footprint_of(std::variant<int, std::string>(text)) == sizeof(std::variant<int, std::string>) + 100);
    CHECK(footprint_of(std::variant<int, std::string>(1)) == sizeof(std::variant<int, std::string>));
    CHECK(footprint_of(std::make_unique<std::string>(text)) == sizeof(void*) + sizeof text + 100);
    CHECK(footprint_of(std::unique_ptr<std::string>()) == sizeof(void*));
    CHECK(footprint_of(std::make_shared<plain>()) == 2 * sizeof(void*) + 8);
    CHECK(footprint_of(std::map<int, std::string>{{1, text}}) == sizeof(std::map<int, int>) + sizeof(std::pair<const int, std::string>) + 100);
}

TEST_CASE("footprint: the user's own count is used, inside other types too") {
    const order o{1, std::string(50, 'x')};
    CHECK(footprint_of(o) == sizeof o + 50);
    CHECK(footprint_of(std::vector<order>{o, o}) == sizeof(std::vector<int>) + 2 * (sizeof o + 50));
}

TEST_CASE("footprint: a value counts the same wherever it was moved") {
    std::string spacious;
    spacious.reserve(1000);
    spacious = "short";
    const std::size_t before = footprint_of(spacious);
    const std::string moved = std::move(spacious);
    CHECK(footprint_of(moved) == before);
}

TEST_CASE("reuse_slot: strings and vectors of trivial types, and what the user says") {
    static_assert(mailroom::reuse_slot_v<std::string> && mailroom::reuse_slot_v<std::u8string>);
    static_assert(mailroom::reuse_slot_v<std::vector<int>> && mailroom::reuse_slot_v<std::vector<plain>>);
    static_assert(!mailroom::reuse_slot_v<std::vector<std::string>> && !mailroom::reuse_slot_v<int>);
    static_assert(!mailroom::reuse_slot_v<std::map<int, int>>);
    CHECK(mailroom::reuse_slot_v<deque_of_mine>);
}
