#include <mailroom/message/body.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <memory>
#include <memory_resource>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using mailroom::detail::body;
using mailroom::detail::is_boxed;
using mailroom::detail::is_kept;
using mailroom::detail::outgoing;

struct counted {
    static inline int live = 0;
    explicit counted(int v) : value(v) { ++live; }
    counted(counted&& other) noexcept : value(std::exchange(other.value, -1)) { ++live; }
    counted& operator=(counted&& other) noexcept {
        value = std::exchange(other.value, -1);
        return *this;
    }
    ~counted() { --live; }
    int value;
};

// Its move may throw, as far as anybody can see, and does if told to.
struct nervous {
    static inline bool throws = false;
    explicit nervous(int v) : value(v) {}
    nervous(const nervous&) = delete;
    nervous(nervous&& other) noexcept(false) : value(other.value) {
        if (throws) { throw 1; }
        other.value = -1;
    }
    nervous& operator=(nervous&& other) noexcept(false) {
        value = std::exchange(other.value, -1);
        return *this;
    }
    int value;
};
struct copied_when_moved { // copyable, and its move may throw
    explicit copied_when_moved(int v) : value(v) {}
    copied_when_moved(const copied_when_moved&) = default;
    copied_when_moved(copied_when_moved&& other) noexcept(false) : value(std::exchange(other.value, -1)) {}
    copied_when_moved& operator=(const copied_when_moved&) = default;
    int value;
};
struct large {
    std::array<char, 1025> bytes{};
    std::unique_ptr<int> part;
};
struct large_unassignable {
    explicit large_unassignable(int v) : number(std::make_unique<int>(v)) {}
    large_unassignable(large_unassignable&&) noexcept = default;
    std::array<char, 1025> bytes{};
    const int constant = 0; // so it cannot be assigned
    std::unique_ptr<int> number;
};

template <class T>
void move_into(body<T>& slot, T& value) {
    outgoing<T> out(value);
    out.into(slot);
}

} // namespace

TEST_CASE("body: what stands in place, what in a box, what is kept") {
    static_assert(!is_boxed<int> && !is_boxed<counted> && !is_boxed<std::unique_ptr<int>>);
    static_assert(!is_boxed<std::array<char, 1024>> && is_boxed<std::array<char, 1025>>);
    static_assert(is_boxed<nervous> && is_boxed<large>);
    static_assert(is_kept<std::string> && is_kept<std::vector<int>>);
    static_assert(!is_kept<std::vector<std::string>> && !is_kept<int>);
    static_assert(sizeof(body<int>) == sizeof(int) && sizeof(body<std::string>) == sizeof(std::string));
    static_assert(sizeof(body<large>) == sizeof(void*));
    static_assert(body<int>::trivial && !body<counted>::trivial && !body<std::string>::trivial && !body<std::array<char, 4096>>::trivial);
    static_assert(alignof(body<std::max_align_t>) == alignof(std::max_align_t));
}

TEST_CASE("body: a value in place lives from put to drop, once") {
    {
        body<counted> slot;
        CHECK(counted::live == 0);
        counted mine(7);
        move_into(slot, mine);
        CHECK(mine.value == -1);
        CHECK(counted::live == 2);
        CHECK(slot.get()->value == 7);
        slot.drop();
        CHECK(counted::live == 1);
        move_into(slot, mine); // used again
        slot.drop();
    }
    CHECK(counted::live == 0);
}

TEST_CASE("body: taking ends the value, whatever the sink does with it") {
    body<counted> slot;
    counted mine(7);
    move_into(slot, mine);
    int seen = 0;
    slot.take([&](counted&& v) {
        const counted out(std::move(v));
        seen = out.value;
    });
    CHECK(seen == 7);
    CHECK(counted::live == 1);

    counted other(8);
    move_into(slot, other);
    CHECK_THROWS_AS(slot.take([](counted&&) { throw 1; }), int);
    CHECK(counted::live == 2); // mine and other: nothing in the slot

    body<large> box;
    large big;
    big.part = std::make_unique<int>(9);
    move_into(box, big);
    CHECK_THROWS_AS(box.take([](std::unique_ptr<large>&&) { throw 1; }), int); // no leak: the sanitizer looks
}

TEST_CASE("body: a box moves as a pointer") {
    body<large> slot;
    large mine;
    mine.part = std::make_unique<int>(3);
    move_into(slot, mine);
    CHECK(mine.part == nullptr);
    const large* const at = slot.get();
    CHECK(*at->part == 3);
    slot.take([&](std::unique_ptr<large>&& box) {
        const std::unique_ptr<large> out = std::move(box);
        CHECK(out.get() == at);
    });
}

TEST_CASE("body: a kept string stays alive in its slot, and its buffer goes back to the sender") {
    body<std::string> slot;
    CHECK(slot.get()->empty());
    std::string value(500, 'a');
    const char* const buffer = value.data();
    move_into(slot, value);
    CHECK(slot.get()->data() == buffer);
    CHECK(value.empty());
    slot.drop();
    std::string second(600, 'b');
    move_into(slot, second);
    CHECK(*slot.get() == std::string(600, 'b'));
    CHECK(second.empty());
    CHECK(second.data() == buffer);
    slot.drop();
}

TEST_CASE("body: a slot keeps at most 1 KiB") {
    body<std::string> slot;
    std::string value(1025, 'a');
    move_into(slot, value);
    slot.drop();
    CHECK(slot.get()->capacity() < 1024);
    body<std::vector<int>> numbers;
    std::vector<int> many(257);
    move_into(numbers, many);
    numbers.drop();
    CHECK(numbers.get()->capacity() == 0);
    std::vector<int> few(256);
    move_into(numbers, few);
    numbers.drop();
    CHECK(numbers.get()->capacity() == 256);
}

TEST_CASE("body: a kept value is taken whole, short or long") {
    for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{1024}, std::size_t{1025}, std::size_t{100'000}}) {
        body<std::string> slot;
        std::string value(size, 'x');
        move_into(slot, value);
        std::string out;
        slot.take([&](std::string&& v) { out = std::move(v); });
        CHECK(out == std::string(size, 'x'));
        CHECK(slot.get()->capacity() <= 1024);
    }
}

TEST_CASE("body: containers whose buffers belong to different resources never trade them") {
    std::array<std::byte, 4096> memory;
    std::pmr::monotonic_buffer_resource mine(memory.data(), memory.size(), std::pmr::null_memory_resource());
    body<std::pmr::string> slot;
    {
        std::pmr::string text(200, 'x', &mine);
        move_into(slot, text);
        CHECK(*slot.get() == std::pmr::string(200, 'x'));
        slot.drop();
        std::pmr::string other(300, 'y');
        move_into(slot, other); // `other` must free what is its own
        slot.drop();
    }
    body<std::pmr::vector<int>> numbers;
    std::pmr::vector<int> some(100, 1, &mine);
    move_into(numbers, some);
    CHECK(numbers.get()->size() == 100);
    numbers.drop();
}

TEST_CASE("outgoing: what was not sent is the sender's again") {
    counted plain(1);
    { const outgoing<counted> out(plain); }
    CHECK(plain.value == 1);

    large big;
    big.part = std::make_unique<int>(2);
    {
        const outgoing<large> out(big);
        CHECK(*out.look().part == 2);
    }
    REQUIRE(big.part != nullptr);
    CHECK(*big.part == 2);

    copied_when_moved copy(3);
    { const outgoing<copied_when_moved> out(copy); }
    CHECK(copy.value == 3);

    nervous alone(4); // cannot be copied
    { const outgoing<nervous> out(alone); }
    CHECK(alone.value == 4);

    large_unassignable fixed(5);
    { const outgoing<large_unassignable> out(fixed); }
    REQUIRE(fixed.number != nullptr);
    CHECK(*fixed.number == 5);
}

TEST_CASE("outgoing: a move that throws happens before anything is taken") {
    nervous value(1);
    nervous::throws = true;
    CHECK_THROWS_AS(outgoing<nervous>{value}, int);
    nervous::throws = false;
    CHECK(value.value == 1);
    body<nervous> slot;
    outgoing<nervous> out(value);
    nervous::throws = true;
    out.into(slot); // a pointer moves, the value does not
    CHECK(slot.get()->value == 1);
    slot.drop();
    nervous::throws = false;
}

TEST_CASE("body: a value is exchanged for a buffer, which is kept unless it is large") {
    body<std::string> slot;
    const std::string value(500, 'a');
    slot.assign(value.data(), value.size());
    std::string other(mailroom::detail::largest_kept_buffer - 24, 'b');
    const char* const buffer = other.data();
    slot.exchange(other);
    CHECK(other == value);
    slot.assign(value.data(), value.size());
    CHECK(slot.get()->data() == buffer);
    std::string large(4 * mailroom::detail::largest_kept_buffer, 'c');
    slot.exchange(large);
    CHECK(large == value);
    CHECK(slot.get()->capacity() <= mailroom::detail::largest_kept_buffer);
    slot.drop();
}

TEST_CASE("body: what is assigned uses the buffer that is there") {
    body<std::string> slot;
    const std::string first(500, 'a'), second(400, 'b');
    slot.assign(first.data(), first.size());
    CHECK(*slot.get() == first);
    const char* const buffer = slot.get()->data();
    slot.drop();
    slot.assign(second.data(), second.size());
    CHECK(*slot.get() == second);
    CHECK(slot.get()->data() == buffer);
    slot.drop();
    const std::string third(second.size(), 'c'); // as long as the one before
    slot.assign(third.data(), third.size());
    CHECK(*slot.get() == third);
    CHECK(slot.get()->data() == buffer);
    slot.drop();
    slot.assign(first.data(), 0);
    CHECK(slot.get()->empty());
    slot.drop();
}
