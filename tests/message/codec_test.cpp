#include <mailroom/message/codec.hpp>

#include <doctest/doctest.h>

#include "support/environment.hpp"

#include <array>
#include <chrono>
#include <compare>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <initializer_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

using mailroom::byte_sink;
using mailroom::codable;
using mailroom::codec;
using mailroom::errc;
using mailroom::detail::form;
using mailroom::detail::layout_fingerprint;
using mailroom::detail::value_form;

namespace {

using bytes = std::vector<std::byte>;

enum class side : std::uint8_t { buy, sell };

struct tick {
    int id = 0;
    double price = 0;

    friend bool operator==(const tick&, const tick&) = default;
};
struct flagged {
    int id = 0;
    bool on = false;
    side way = side::buy;
    std::array<bool, 2> more{};

    friend bool operator==(const flagged&, const flagged&) = default;
};
struct named { // C arrays: by its bytes, unseen
    char name[8] = {};
    std::uint64_t number = 0;
};
struct order {
    int id = 1;
    std::string symbol{};
    tick last{};

    friend bool operator==(const order&, const order&) = default;
};
struct tree {
    int value = 0;
    std::vector<tree> branches{};
    std::unique_ptr<tree> next{};
};

// No default constructor, and a codec of its own.
class price {
public:
    explicit price(long cents) : cents_(cents), tag_("c") {}

    [[nodiscard]] long cents() const { return cents_; }
    [[nodiscard]] friend bool operator==(const price&, const price&) = default;

private:
    long cents_;
    std::string tag_;
};
struct quote {
    price bid;
    const int size;
    std::optional<price> ask;
    std::vector<price> levels;
    std::array<price, 2> ends;
    std::pair<price, int> pair;
    std::string note = "none";

    friend bool operator==(const quote&, const quote&) = default;
};

// All there is, one in another.
struct everything {
    bool flag = false;
    std::int8_t small = 0;
    double real = 0;
    side way = side::buy;
    std::byte raw{};
    std::string text;
    std::u16string wide;
    std::vector<bool> bits;
    std::vector<tick> block;
    std::vector<flagged> checked;
    std::vector<std::vector<std::string>> nested;
    std::array<std::string, 2> pair_of_texts;
    std::pair<std::string, int> pair;
    std::tuple<int, std::string, bool> triple;
    std::tuple<> none;
    std::optional<std::string> maybe;
    std::optional<tick> missing;
    std::variant<std::monostate, int, std::string, order> choice;
    std::map<std::string, std::vector<int>> map;
    std::multimap<int, int> multimap;
    std::set<std::string> set;
    std::unordered_map<int, std::string> hashed;
    std::unordered_set<std::string> hashed_set;
    std::deque<int> deque;
    std::list<order> list;
    std::chrono::milliseconds span{};
    std::chrono::system_clock::time_point moment;
    std::complex<double> complex;
    order inner;

    friend bool operator==(const everything&, const everything&) = default;
};

everything full() {
    everything e;
    e.flag = true;
    e.small = -7;
    e.real = 0.1;
    e.way = side::sell;
    e.raw = std::byte{0xfe};
    e.text = "letters";
    e.wide = u"wide";
    e.bits = {true, false, true};
    e.block = {{1, 0.5}, {2, -0.5}};
    e.checked = {{1, true, side::sell, {true, false}}, {}};
    e.nested = {{"a", "b"}, {}, {std::string(300, 'c')}};
    e.pair_of_texts = {"one", "two"};
    e.pair = {"pair", 2};
    e.triple = {3, "three", true};
    e.maybe = "there";
    e.choice = order{5, "five", {5, 5.5}};
    e.map = {{"odd", {1, 3}}, {"none", {}}};
    e.multimap = {{1, 2}, {1, 3}};
    e.set = {"x", "y"};
    e.hashed = {{1, "one"}};
    e.hashed_set = {"only"};
    e.deque = {9, 8};
    e.list = {{1, "l", {}}, {2, "", {}}};
    e.span = std::chrono::milliseconds(1500);
    e.moment = std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000));
    e.complex = {1, -1};
    e.inner = {4, "inner", {4, 4}};
    return e;
}

template <class T>
bytes bytes_of(const T& value) {
    byte_sink out;
    codec<T>::encode(value, out);
    return {out.bytes().begin(), out.bytes().end()};
}
template <class T>
T there_and_back(const T& value) {
    return codec<T>::decode(bytes_of(value));
}
template <class T>
errc trouble_of(const bytes& from) {
    try {
        static_cast<void>(codec<T>::decode(from));
    } catch (const mailroom::error& e) {
        CHECK(e.sentence().find("the bytes are no ") == 0);
        return e.kind();
    }
    return errc{};
}
bytes raw(std::initializer_list<int> values) {
    bytes b;
    for (const int v : values) { b.push_back(static_cast<std::byte>(v)); }
    return b;
}
template <class New, class Old>
New read_as(const Old& old) {
    return codec<New>::decode(bytes_of(old));
}

} // namespace

template <>
struct mailroom::codec<price> {
    static void encode(const price& p, byte_sink& out) {
        const std::string digits = std::to_string(p.cents());
        out.write(std::as_bytes(std::span(digits)));
    }
    static price decode(std::span<const std::byte> from) {
        if (from.empty() || from.size() > 9) { throw mailroom::error(errc::corrupt, "the bytes are no price"); }
        long cents = 0;
        for (const std::byte b : from) {
            const int digit = std::to_integer<int>(b) - '0';
            if (digit < 0 || digit > 9) { throw mailroom::error(errc::corrupt, "the bytes are no price"); }
            cents = cents * 10 + digit;
        }
        return price(cents);
    }
    static constexpr std::string_view content_type = "text/x-price";
};

// ---- what there is ----------------------------------------------------------------------------------------------------

TEST_CASE("codec: text and bytes are stored as they are, and say so") {
    CHECK(codec<std::string>::content_type == "text/plain");
    CHECK(codec<bytes>::content_type == "application/octet-stream");
    CHECK(codec<std::vector<unsigned char>>::content_type == "application/octet-stream");
    CHECK(codec<std::vector<char>>::content_type == "application/octet-stream");
    CHECK(codec<order>::content_type == "application/x-mailroom");

    CHECK(bytes_of(std::string("ab\0c", 4)) == raw({'a', 'b', 0, 'c'}));
    CHECK(bytes_of(std::string()).empty());
    CHECK(there_and_back(std::string("letters")) == "letters");
    CHECK(there_and_back(std::string()).empty());
    CHECK(there_and_back(raw({1, 2, 255})) == raw({1, 2, 255}));
    CHECK(there_and_back(bytes()).empty());
    CHECK(there_and_back(std::vector<char>{'x'}) == std::vector<char>{'x'});
}

TEST_CASE("codec: what can be copied by its bytes is copied by its bytes") {
    static_assert(form<tick> == value_form::plain && form<flagged> == value_form::plain && form<named> == value_form::plain);
    static_assert(form<std::array<tick, 3>> == value_form::plain && form<std::chrono::nanoseconds> == value_form::plain);
    static_assert(form<order> == value_form::aggregate && form<std::optional<int>> == value_form::maybe);
    const tick t{7, 0.25};
    const auto b = bytes_of(t);
    CHECK(b.size() == sizeof t);
    CHECK(std::memcmp(b.data(), &t.id, sizeof t.id) == 0);
    CHECK(there_and_back(t) == t);
    CHECK(there_and_back(flagged{1, true, side::sell, {false, true}}) == flagged{1, true, side::sell, {false, true}});
    CHECK(there_and_back(std::array<tick, 2>{t, {}}) == std::array<tick, 2>{t, {}});
    const auto n = there_and_back(named{"seven", 7});
    CHECK(std::string_view(n.name) == "seven");
    CHECK(n.number == 7);
    CHECK(there_and_back(std::complex<double>(1, 2)) == std::complex<double>(1, 2));

    for (const std::size_t size : {std::size_t{0}, sizeof t - 1, sizeof t + 1}) { CHECK(trouble_of<tick>(bytes(size)) == errc::corrupt); }
}

TEST_CASE("codec: numbers, enumerations and times") {
    CHECK(there_and_back(true));
    CHECK_FALSE(there_and_back(false));
    CHECK(there_and_back('x') == 'x');
    CHECK(there_and_back(std::numeric_limits<std::int64_t>::min()) == std::numeric_limits<std::int64_t>::min());
    CHECK(there_and_back(0.1F) == 0.1F);
    CHECK(there_and_back(0.1L) == 0.1L);
    CHECK(there_and_back(side::sell) == side::sell);
    CHECK(there_and_back(std::byte{7}) == std::byte{7});
    CHECK(there_and_back(std::chrono::hours(-3)) == std::chrono::hours(-3));
    const auto moment = std::chrono::sys_days(std::chrono::year(2024) / 2 / 29);
    CHECK(there_and_back(moment) == moment);
    CHECK(bytes_of(0x01020304) == raw({4, 3, 2, 1})); // little-endian
    CHECK(trouble_of<bool>(raw({2})) == errc::corrupt);
    CHECK(trouble_of<int>(raw({1, 2, 3})) == errc::corrupt);
}

TEST_CASE("codec: containers, and containers in containers") {
    CHECK(there_and_back(std::vector<int>{1, 2, 3}) == std::vector<int>{1, 2, 3});
    CHECK(bytes_of(std::vector<std::uint16_t>{1, 2}) == raw({2, 1, 0, 2, 0})); // one block behind a count
    CHECK(there_and_back(std::vector<bool>{true, false}) == std::vector<bool>{true, false});
    CHECK(there_and_back(std::deque<std::string>{"a", ""}) == std::deque<std::string>{"a", ""});
    CHECK(there_and_back(std::list<tick>{{1, 2}}) == std::list<tick>{{1, 2}});
    CHECK(there_and_back(std::u32string(U"wide")) == U"wide");
    const std::map<std::string, std::map<int, std::set<char>>> deep{{"a", {{1, {'x', 'y'}}, {2, {}}}}, {"b", {}}};
    CHECK(there_and_back(deep) == deep);
    const std::unordered_multimap<int, std::string> twice{{1, "a"}, {1, "b"}};
    CHECK(there_and_back(twice) == twice);
    const std::map<int, int, std::greater<>> down{{1, 1}, {2, 2}};
    CHECK(there_and_back(down) == down);
    CHECK(bytes_of(std::set<std::string>{"a", "b"}) == raw({2, 1, 'a', 1, 'b'}));
    CHECK(trouble_of<std::set<std::string>>(raw({2, 1, 'a', 1, 'a'})) == errc::corrupt);
    CHECK(trouble_of<std::unordered_set<char>>(raw({2, 'a', 'a'})) == errc::corrupt);
}

TEST_CASE("codec: optional, variant, pair, tuple, array, owning pointers") {
    CHECK(there_and_back(std::optional<int>()) == std::nullopt);
    CHECK(there_and_back(std::optional<int>(3)) == 3);
    CHECK(bytes_of(std::optional<char>('x')) == raw({1, 'x'}));
    CHECK(trouble_of<std::optional<char>>(raw({2, 'x'})) == errc::corrupt);
    using choice = std::variant<int, std::string, int>; // twice the same: told apart by the place
    CHECK(there_and_back(choice(std::in_place_index<2>, 5)) == choice(std::in_place_index<2>, 5));
    CHECK(there_and_back(choice("text")) == choice("text"));
    CHECK(trouble_of<choice>(raw({3, 0, 0, 0, 0})) == errc::corrupt);
    CHECK(there_and_back(std::pair<std::string, int>("a", 1)) == std::pair<std::string, int>("a", 1));
    CHECK(there_and_back(std::tuple<int, std::string>(1, "a")) == std::tuple<int, std::string>(1, "a"));
    CHECK(there_and_back(std::tuple<>()) == std::tuple<>());
    CHECK(trouble_of<std::tuple<>>(raw({1})) == errc::corrupt);
    CHECK(there_and_back(std::array<std::string, 2>{"a", "b"}) == std::array<std::string, 2>{"a", "b"});
    CHECK(there_and_back(std::array<std::string, 0>()) == std::array<std::string, 0>());

    CHECK(*there_and_back(std::make_unique<std::string>("owned")) == "owned");
    CHECK(there_and_back(std::unique_ptr<int>()) == nullptr);
    const auto shared = std::make_shared<const order>(order{1, "s", {}});
    const auto both = there_and_back(std::vector{shared, shared});
    CHECK(*both[0] == *shared);
    CHECK(*both[1] == *shared);
    CHECK(both[0] != both[1]); // two now
}

TEST_CASE("codec: a variant that lost its value has no bytes") {
    std::variant<int, std::deque<int>> lost;
    try {
        lost.emplace<std::deque<int>>(std::deque<int>().max_size() + 1);
    } catch (const std::length_error&) {}
    REQUIRE(lost.valueless_by_exception());
    CHECK_THROWS_AS(bytes_of(lost), mailroom::error);
}

TEST_CASE("codec: an aggregate of everything") {
    CHECK(there_and_back(full()) == full());
    CHECK(there_and_back(everything()) == everything());
    CHECK(there_and_back(std::vector<everything>{full(), {}, full()}) == std::vector<everything>{full(), {}, full()});
}

TEST_CASE("codec: a user's codec is used inside other types, and nothing needs a default constructor") {
    const quote q{price(100), 5, price(101), {price(1), price(2)}, {price(3), price(4)}, {price(5), 6}, "note"};
    CHECK(there_and_back(q) == q);
    CHECK(bytes_of(std::vector{price(12), price(3)}) == raw({2, 2, '1', '2', 1, '3'}));
    CHECK_THROWS_AS(codec<std::vector<price>>::decode(raw({1, 1, 'x'})), mailroom::error);
}

TEST_CASE("codec: a type that holds its like") {
    tree t{1, {}, nullptr};
    t.branches.push_back({2, {}, nullptr});
    t.branches.push_back({3, {}, std::make_unique<tree>(tree{4, {}, nullptr})});
    const auto u = there_and_back(t);
    REQUIRE(u.branches.size() == 2);
    CHECK(u.branches[0].value == 2);
    CHECK(u.branches[1].next->value == 4);
    CHECK(u.next == nullptr);
}

TEST_CASE("codec: what is nested too deep is refused both ways, before the stack ends") {
    const auto chain = [](int length) {
        tree first{0, {}, nullptr};
        for (tree* last = &first; --length > 0; last = last->next.get()) { last->next = std::make_unique<tree>(tree{1, {}, nullptr}); }
        return first;
    };
    CHECK(there_and_back(chain(100)).next->value == 1);
    try {
        bytes_of(chain(101));
        FAIL("was written");
    } catch (const mailroom::error& e) { CHECK(e == errc::too_large); }

    const auto one = bytes_of(chain(1));
    bytes endless;
    for (int i = 0; i < 200'000; ++i) {
        endless.insert(endless.end(), one.begin(), one.end());
        endless.back() = std::byte{1}; // there is a next
    }
    CHECK(trouble_of<tree>(endless) == errc::corrupt);
}

TEST_CASE("codec: the format is this, and what is stored stays readable") {
    // two fields, their shape, an int32, a text
    struct letter {
        std::int32_t number;
        std::string text;
    };
    CHECK(bytes_of(letter{258, "ab"}) == raw({2, 0x66, 0xa4, 0xb4, 0xc5, 2, 1, 0, 0, 2, 'a', 'b'}));
    CHECK(layout_fingerprint<tick>() == 0x742d83651ef7d79bU);
    CHECK(layout_fingerprint<std::vector<std::map<std::string, std::optional<int>>>>() == 0xb9554ad155f6f2cbU);
    CHECK(bytes_of(std::string(300, 'x')).size() == 300);
    CHECK(bytes_of(std::vector<std::string>{std::string(300, 'x')}).size() == 303); // varint counts
}

// ---- what has no codec ------------------------------------------------------------------------------------------------

namespace {

struct with_pointer {
    int* p;
};
struct with_view {
    std::string_view text;
    int n;
};
struct with_array_and_pointer {
    char name[8];
    const char* text;
};
struct with_array_and_string {
    int numbers[3];
    std::string text;
};
struct with_reference {
    int& r;
};
struct derived : tick {
    int more = 0;
};
struct derived_with_text : order {
    int more = 0;
};
union either {
    int i;
    float f;
};
class hidden {
public:
    hidden() = default;
    [[nodiscard]] int get() const { return value_; }

private:
    int value_ = 3;
};
struct hundred_and_one {
    std::array<char, 200> in_one;
    char many[101];
};
struct abstract {
    virtual ~abstract() = default;
    virtual void act() = 0;
};
class locked {
    locked(const locked&) = delete;
};

} // namespace

TEST_CASE("codec: what has no bytes of its own has no codec") {
    static_assert(!codable<int*> && !codable<void (*)()> && !codable<int tick::*> && !codable<std::nullptr_t> && !codable<int[3]>);
    static_assert(!codable<const int> && !codable<int&> && !codable<void>);
    static_assert(!codable<std::string_view> && !codable<std::span<int>> && !codable<std::reference_wrapper<int>>);
    static_assert(!codable<std::list<int>::iterator> && !codable<std::vector<int>::iterator> && !codable<std::function<void()>>);
    static_assert(!codable<with_pointer> && !codable<with_view> && !codable<with_array_and_pointer> && !codable<with_reference>);
    static_assert(!codable<with_array_and_string> && !codable<derived_with_text> && !codable<locked>);
    static_assert(!codable<std::vector<int*>> && !codable<std::map<int, with_view>> && !codable<std::optional<std::string_view>>);
    static_assert(!codable<std::variant<int, with_pointer>> && !codable<std::tuple<int, int*>> && !codable<std::unique_ptr<int[]>>);
    static_assert(!codable<abstract> && !codable<std::unique_ptr<abstract>> && !codable<std::shared_ptr<void>>);

    // Not seen into, but copied by their bytes.
    static_assert(codable<derived> && codable<either> && codable<hidden> && codable<hundred_and_one>);
    CHECK(there_and_back(hidden()).get() == 3);
    CHECK(there_and_back(either{.i = 4}).i == 4);
    CHECK(there_and_back(derived{{1, 2}, 3}).more == 3);
}

// ---- versions of one type ---------------------------------------------------------------------------------------------

namespace {

struct first {
    int id;
    std::string name;
};
struct grown {
    int id;
    std::string name;
    int count = 42;
    std::vector<int> more{1, 2};
};
struct grown_constant {
    const int id;
    std::string name;
    int count = 42;
};
struct grown_without_default {
    int id;
    std::string name;
    price last;
};
struct widened {
    long id;
    std::string name;
};
struct swapped {
    std::string name;
    int id;
};
struct unsigned_now {
    unsigned id;
    std::string name;
};
struct holds_first {
    std::vector<first> all;
    std::string note;
};
struct holds_grown {
    std::vector<grown> all;
    std::string note;
};
struct tick_grown {
    int id = 0;
    double price = 0;
    double size = 0;
};
struct order_with_grown_tick {
    int id = 1;
    std::string symbol{};
    tick_grown last{};
};

} // namespace

TEST_CASE("codec: trailing fields that are missing take their defaults") {
    const auto g = read_as<grown>(first{7, "seven"});
    CHECK(g.id == 7);
    CHECK(g.name == "seven");
    CHECK(g.count == 42);
    CHECK(g.more == std::vector<int>{1, 2});
    const auto c = read_as<grown_constant>(first{8, "eight"});
    CHECK(c.id == 8);
    CHECK(c.name == "eight");
    CHECK(c.count == 42);
    const auto h = read_as<holds_grown>(holds_first{{{1, "a"}, {2, "b"}}, "inside too"});
    CHECK(h.all[1].id == 2);
    CHECK(h.all[1].count == 42);
    CHECK(h.note == "inside too");
    CHECK(trouble_of<grown_without_default>(bytes_of(first{1, "a"})) == errc::type_mismatch);
}

TEST_CASE("codec: more fields than are known, or others, are refused and not misread") {
    const auto mismatch = [](const bytes& b, auto of) { return trouble_of<typename decltype(of)::type>(b) == errc::type_mismatch; };
    CHECK(mismatch(bytes_of(grown{1, "a", 2, {}}), std::type_identity<first>()));
    CHECK(mismatch(bytes_of(holds_grown{{{1, "a", 2, {}}}, ""}), std::type_identity<holds_first>()));
    CHECK(mismatch(bytes_of(first{1, "a"}), std::type_identity<widened>()));
    CHECK(mismatch(bytes_of(first{1, "a"}), std::type_identity<swapped>()));
    CHECK(mismatch(bytes_of(first{1, "a"}), std::type_identity<unsigned_now>()));
    CHECK(mismatch(bytes_of(order{1, "a", {}}), std::type_identity<order_with_grown_tick>())); // a plain one inside it changed
    try {
        read_as<first>(grown{1, "a", 2, {}});
    } catch (const mailroom::error& e) {
        CHECK(e.sentence().find("4 fields are stored of ") != std::string_view::npos);
        CHECK(e.sentence().find("first, which has 2 here") != std::string_view::npos);
    }
}

TEST_CASE("codec: a fingerprint for each layout that does not check itself") {
    static_assert(layout_fingerprint<std::string>() == 0 && layout_fingerprint<bytes>() == 0 && layout_fingerprint<order>() == 0);
    static_assert(layout_fingerprint<everything>() == 0 && layout_fingerprint<price>() == 0);

    struct same {
        int other_name;
        double price;
    };
    struct narrower {
        int id;
        float price;
    };
    struct reordered {
        double price;
        int id;
    };
    struct integer {
        int id;
        std::int64_t price;
    };
    struct natural {
        int id;
        std::uint64_t price;
    };
    struct longer {
        int id;
        double price;
        int more;
    };
    struct inner {
        same s;
    };
    struct inner_changed {
        integer s;
    };
    enum class narrow : std::uint8_t { a };
    enum class wide : std::uint16_t { a };
    static_assert(layout_fingerprint<tick>() == layout_fingerprint<same>());
    constexpr std::uint64_t all[] = {layout_fingerprint<same>(),
                                     layout_fingerprint<narrower>(),
                                     layout_fingerprint<reordered>(),
                                     layout_fingerprint<integer>(),
                                     layout_fingerprint<natural>(),
                                     layout_fingerprint<longer>(),
                                     layout_fingerprint<inner>(),
                                     layout_fingerprint<inner_changed>(),
                                     layout_fingerprint<named>(),
                                     layout_fingerprint<int>(),
                                     layout_fingerprint<unsigned>(),
                                     layout_fingerprint<char>(),
                                     layout_fingerprint<std::int8_t>(),
                                     layout_fingerprint<bool>(),
                                     layout_fingerprint<narrow>(),
                                     layout_fingerprint<wide>(),
                                     layout_fingerprint<std::chrono::seconds>(),
                                     layout_fingerprint<std::chrono::milliseconds>(),
                                     layout_fingerprint<std::chrono::sys_seconds>(),
                                     layout_fingerprint<std::array<int, 2>>(),
                                     layout_fingerprint<std::array<int, 3>>(),
                                     layout_fingerprint<std::vector<int>>(),
                                     layout_fingerprint<std::vector<float>>(),
                                     layout_fingerprint<std::vector<same>>(),
                                     layout_fingerprint<std::vector<integer>>(),
                                     layout_fingerprint<std::set<int>>(),
                                     layout_fingerprint<std::map<int, int>>(),
                                     layout_fingerprint<std::optional<int>>(),
                                     layout_fingerprint<std::variant<int>>(),
                                     layout_fingerprint<std::variant<int, float>>(),
                                     layout_fingerprint<std::tuple<int, float>>(),
                                     layout_fingerprint<std::tuple<float, int>>(),
                                     layout_fingerprint<std::vector<std::string>>(),
                                     layout_fingerprint<std::vector<order>>(),
                                     layout_fingerprint<std::vector<price>>()};
    for (std::size_t i = 0; i < std::size(all); ++i) {
        CHECK(all[i] != 0);
        for (std::size_t j = 0; j < i; ++j) {
            CAPTURE(i);
            CAPTURE(j);
            CHECK(all[i] != all[j]);
        }
    }
}

// ---- hostile bytes ----------------------------------------------------------------------------------------------------

namespace {

// Counts what is asked for.
struct meter {
    static inline std::size_t asked = 0;
};
template <class T>
struct counting {
    using value_type = T;

    counting() = default;
    template <class U>
    counting(const counting<U>&) {} // NOLINT
    T* allocate(std::size_t n) {
        meter::asked += n * sizeof(T);
        return std::allocator<T>().allocate(n);
    }
    void deallocate(T* p, std::size_t n) { std::allocator<T>().deallocate(p, n); }
    friend bool operator==(const counting&, const counting&) { return true; }
};

// Whatever the bytes are: a value, or one of the two troubles.
template <class T>
void try_to_read(const bytes& from) {
    const errc trouble = trouble_of<T>(from);
    CHECK((trouble == errc{} || trouble == errc::corrupt || trouble == errc::type_mismatch));
}

} // namespace

TEST_CASE("codec: no cut of the bytes is worse than an exception") {
    const auto whole = bytes_of(full());
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // In a vector of its own, so that a byte too far is seen by the sanitizer.
        CHECK(trouble_of<everything>(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))) == errc::corrupt);
    }
    bytes longer = whole;
    longer.push_back(std::byte{0});
    CHECK(trouble_of<everything>(longer) == errc::corrupt);
}

TEST_CASE("codec: no flipped bit is worse than an exception") {
    const auto whole = bytes_of(full());
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
        bytes damaged = whole;
        damaged[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
        try {
            const everything e = codec<everything>::decode(damaged);
            static_cast<void>(bytes_of(e)); // every part of it is looked at
        } catch (const mailroom::error& e) { CHECK((e == errc::corrupt || e == errc::type_mismatch)); }
    }
}

TEST_CASE("codec: no bytes at all are worse than an exception") {
    const auto seed = support::seed();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto whole = bytes_of(full());
    for (std::size_t round = support::scaled(3000); round != 0; --round) {
        bytes damaged = whole;
        for (std::size_t places = 1 + random() % 8; places != 0; --places) {
            damaged[random() % damaged.size()] = static_cast<std::byte>(random() % 4 == 0 ? 0xff : random());
        }
        damaged.resize(random() % 4 == 0 ? random() % damaged.size() : damaged.size());
        try_to_read<everything>(damaged);

        bytes noise(random() % 40);
        for (auto& b : noise) { b = static_cast<std::byte>(random() % 3 == 0 ? random() : random() % 4); }
        try_to_read<std::vector<std::map<std::string, std::vector<bool>>>>(noise);
        try_to_read<std::variant<std::set<int>, std::optional<std::string>, std::list<flagged>>>(noise);
        try_to_read<flagged>(noise);
        try_to_read<tree>(noise);
        try_to_read<std::unordered_map<char, std::deque<std::string>>>(noise);
    }
}

TEST_CASE("codec: a bool that is neither is refused wherever it stands") {
    const auto at = [](auto value, std::size_t place) {
        auto b = bytes_of(value);
        b[place] = std::byte{2};
        return b;
    };
    CHECK(trouble_of<flagged>(at(flagged(), offsetof(flagged, on))) == errc::corrupt);
    CHECK(trouble_of<flagged>(at(flagged(), offsetof(flagged, more) + 1)) == errc::corrupt);
    CHECK(trouble_of<std::vector<flagged>>(at(std::vector<flagged>(3), 1 + 2 * sizeof(flagged) + offsetof(flagged, on))) == errc::corrupt);
    CHECK(trouble_of<std::vector<bool>>(at(std::vector<bool>(3), 2)) == errc::corrupt);
    CHECK(trouble_of<std::array<bool, 2>>(at(std::array<bool, 2>(), 1)) == errc::corrupt);
    enum class answer : bool { no, yes };
    CHECK(trouble_of<answer>(raw({2})) == errc::corrupt);
    CHECK(there_and_back(answer::yes) == answer::yes);
}

TEST_CASE("codec: a count that lies costs no memory") {
    const bytes lies[] = {
        raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}), // 2^64 - 1
        raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}),       // 2^63 - 1
        raw({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40}),       // 2^62: times 4 it is 0
        raw({0x80, 0x80, 0x80, 0x80, 0x10, 1, 2, 3, 4, 5, 6, 7, 8}),       // 2^32
    };
    for (const auto& lie : lies) {
        meter::asked = 0;
        CHECK(trouble_of<std::vector<int, counting<int>>>(lie) == errc::corrupt);
        CHECK(trouble_of<std::vector<std::string, counting<std::string>>>(lie) == errc::corrupt);
        CHECK(trouble_of<std::vector<order, counting<order>>>(lie) == errc::corrupt);
        CHECK(trouble_of<std::basic_string<char16_t, std::char_traits<char16_t>, counting<char16_t>>>(lie) == errc::corrupt);
        CHECK(meter::asked == 0);
        CHECK(trouble_of<std::set<std::string>>(lie) == errc::corrupt);
        CHECK(trouble_of<std::list<std::tuple<>>>(lie) == errc::corrupt);
        CHECK(trouble_of<std::vector<std::array<std::string, 0>>>(lie) == errc::corrupt);
    }

    // One that could be true as far as the bytes go, and is not.
    bytes plausible = raw({0x88, 0x27}); // 5000
    plausible.resize(5002, std::byte{0xff});
    meter::asked = 0;
    CHECK(trouble_of<std::vector<std::string, counting<std::string>>>(plausible) == errc::corrupt);
    CHECK(meter::asked <= plausible.size() + sizeof(std::string));
}
