#include <mailroom/message/byte_sink.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <new>
#include <span>
#include <vector>

using mailroom::byte_sink;

namespace {

using bytes = std::vector<std::byte>;

bytes raw(std::initializer_list<int> values) {
    bytes b;
    for (const int v : values) { b.push_back(static_cast<std::byte>(v)); }
    return b;
}

} // namespace

TEST_CASE("byte sink: grows, keeps what was written, and keeps its room") {
    byte_sink out;
    CHECK(out.size() == 0);
    CHECK(out.bytes().empty());
    const auto* const inside = out.bytes().data();
    bytes expected;
    for (int i = 0; i < 1000; ++i) {
        const auto b = raw({i & 0xff, 1, 2});
        out.write(b);
        expected.insert(expected.end(), b.begin(), b.end());
        if (out.size() <= 256) { CHECK(out.bytes().data() == inside); } // nothing is allocated for a small one
    }
    CHECK(bytes(out.bytes().begin(), out.bytes().end()) == expected);
    const auto capacity = out.capacity();
    out.clear();
    CHECK(out.size() == 0);
    CHECK(out.capacity() == capacity);
    out.write(std::span<const std::byte>());
    CHECK(out.size() == 0);
    std::memset(out.extend(5), 7, 5);
    out.push_back(std::byte{8});
    CHECK(bytes(out.bytes().begin(), out.bytes().end()) == raw({7, 7, 7, 7, 7, 8}));
    out.reserve(100'000);
    CHECK(out.capacity() == 100'000);
    CHECK(out.size() == 6);
}

TEST_CASE("byte sink: what cannot be had changes nothing") {
    byte_sink out;
    out.push_back(std::byte{1});
    CHECK_THROWS_AS(out.extend(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
    CHECK(out.size() == 1);
}
