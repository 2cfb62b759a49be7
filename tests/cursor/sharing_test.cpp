#include <mailroom/cursor/sharing.hpp>

#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <thread>
#include <vector>

using mailroom::detail::key_shares;
using mailroom::detail::share_partitions;

namespace {

// A hash as good as any.
std::uint64_t key(std::uint64_t n) {
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return n ^ n >> 31;
}
// Keys each of which is alone in its slot, as far as can be seen: a member of its own for each would show it.
std::vector<std::uint64_t> keys_of_different_slots(std::size_t n) {
    key_shares probe;
    std::vector<std::uint64_t> keys;
    // With one member more each time, a fresh slot goes to the newest, for it has none; a slot that is taken goes to an older one.
    for (std::uint64_t candidate = 0; keys.size() < n; ++candidate) {
        const auto member = static_cast<std::uint16_t>(keys.size() + 1);
        probe.join(member);
        if (probe.owner_of(key(candidate)) == member) { keys.push_back(key(candidate)); }
    }
    return keys;
}

} // namespace

TEST_CASE("key_shares: without members a key is nobody's, and is given as soon as there is one") {
    key_shares s;
    CHECK(s.owner_of(key(1)) == 0);
    s.leave(1);
    CHECK(s.owner_of(key(1)) == 0);
    s.join(1);
    CHECK(s.owner_of(key(1)) == 1);
    s.leave(1);
    CHECK(s.owner_of(key(1)) == 0);
    s.leave(7); // nobody
    s.join(3);
    CHECK(s.owner_of(key(1)) == 3);
}

TEST_CASE("key_shares: a key stays with its member, whoever joins, until it leaves") {
    key_shares s;
    s.join(1);
    s.join(2);
    std::map<std::uint64_t, std::uint16_t> owner;
    for (std::uint64_t k = 0; k < 1000; ++k) { owner[k] = s.owner_of(key(k)); }
    s.join(3);
    for (std::uint64_t k = 0; k < 1000; ++k) { REQUIRE(s.owner_of(key(k)) == owner[k]); }
    s.leave(1);
    std::set<std::uint16_t> heirs;
    for (std::uint64_t k = 0; k < 1000; ++k) {
        const std::uint16_t now = s.owner_of(key(k));
        if (owner[k] == 1) {
            REQUIRE(now != 1);
            heirs.insert(now);
        } else {
            REQUIRE(now == owner[k]);
        }
    }
    CHECK(heirs == std::set<std::uint16_t>{2, 3});
    s.join(1); // the number is another's now: of what was, it gets nothing back
    std::map<std::uint64_t, std::uint16_t> later;
    for (std::uint64_t k = 0; k < 1000; ++k) {
        later[k] = s.owner_of(key(k));
        REQUIRE(later[k] != 1);
    }
}

TEST_CASE("key_shares: a new key goes to the member with the fewest") {
    const std::vector<std::uint64_t> keys = keys_of_different_slots(1000);
    SUBCASE("so all have as many or one more, all the time") {
        key_shares s;
        for (std::uint16_t m = 1; m <= 7; ++m) { s.join(m); }
        std::map<std::uint16_t, std::size_t> has;
        for (std::uint16_t m = 1; m <= 7; ++m) { has[m] = 0; }
        for (const std::uint64_t k : keys) {
            const auto [low, high] = std::minmax_element(has.begin(), has.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
            const std::size_t least = low->second, most = high->second;
            REQUIRE(most - least <= 1);
            const std::uint16_t m = s.owner_of(k);
            REQUIRE(has[m] == least);
            ++has[m];
        }
    }
    SUBCASE("who joins late gets all that are new until it has caught up") {
        key_shares s;
        s.join(1);
        for (std::size_t i = 0; i < 100; ++i) { REQUIRE(s.owner_of(keys[i]) == 1); }
        s.join(2);
        for (std::size_t i = 100; i < 200; ++i) { REQUIRE(s.owner_of(keys[i]) == 2); }
        std::map<std::uint16_t, std::size_t> next;
        for (std::size_t i = 200; i < 300; ++i) { ++next[s.owner_of(keys[i])]; }
        CHECK(next[1] == 50);
        CHECK(next[2] == 50);
    }
    SUBCASE("what one leaves goes to those who have the fewest") {
        key_shares s;
        s.join(1);
        for (std::size_t i = 0; i < 100; ++i) { s.owner_of(keys[i]); }
        s.join(2);
        s.join(3);
        for (std::size_t i = 100; i < 160; ++i) { s.owner_of(keys[i]); } // thirty each
        s.leave(1);
        std::map<std::uint16_t, std::size_t> heirs;
        for (std::size_t i = 0; i < 100; ++i) { ++heirs[s.owner_of(keys[i])]; }
        CHECK(heirs[2] == 50);
        CHECK(heirs[3] == 50);
    }
}

TEST_CASE("key_shares: however many keys there are, their slots are bounded, and each member has its part") {
    key_shares s;
    for (std::uint16_t m = 1; m <= 4; ++m) { s.join(m); }
    std::map<std::uint16_t, std::size_t> has;
    constexpr std::uint64_t count = 400'000; // 24 in a slot
    for (std::uint64_t k = 0; k < count; ++k) { ++has[s.owner_of(key(k))]; }
    CHECK(has.size() == 4);
    for (const auto& [m, n] : has) {
        CHECK(n > count / 4 * 9 / 10);
        CHECK(n < count / 4 * 11 / 10);
    }
    // All slots are taken by now: who joins gets no key, for none is new.
    s.join(5);
    std::size_t fresh = 0;
    for (std::uint64_t k = count; k < 2 * count; ++k) { fresh += s.owner_of(key(k)) == 5; }
    CHECK(fresh == 0);
    s.leave(2);
    std::size_t inherited = 0;
    for (std::uint64_t k = 0; k < count; ++k) { inherited += s.owner_of(key(k)) == 5; }
    CHECK(inherited > count / 4 * 9 / 10);
}

TEST_CASE("key_shares: keys of one partition, whose lowest bits are the same, have slots of their own all the same") {
    for (const std::uint64_t partitions : {2u, 64u, 4096u}) {
        key_shares s;
        s.join(1);
        s.join(2);
        std::map<std::uint16_t, std::size_t> has;
        for (std::uint64_t k = 0; k < 2000; ++k) { ++has[s.owner_of(key(k) / partitions * partitions)]; }
        CHECK(has[1] > 800);
        CHECK(has[2] > 800);
    }
}

TEST_CASE("key_shares: asked by many at once, of one key all hear the same name") {
    key_shares s;
    for (std::uint16_t m = 1; m <= 3; ++m) { s.join(m); }
    constexpr std::size_t keys = 2000;
    std::vector<std::vector<std::uint16_t>> heard(3, std::vector<std::uint16_t>(keys));
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            for (std::size_t k = 0; k < keys; ++k) { heard[t][k] = s.owner_of(key(k)); }
        });
    }
    std::thread others([&] { // who comes and goes beside has no say in what is somebody's already
        for (int i = 0; i < 200; ++i) {
            s.join(9);
            s.leave(9);
        }
    });
    for (auto& t : threads) { t.join(); }
    others.join();
    std::size_t different = 0;
    for (std::size_t k = 0; k < keys; ++k) {
        std::set<std::uint16_t> names{heard[0][k], heard[1][k], heard[2][k]};
        names.erase(9);
        different += names.size() > 1 || names.count(0) != 0;
    }
    CHECK(different == 0);
}

// -------------------------------------------------------------------------------------------------------------------------- partitions

namespace {

std::vector<std::uint32_t> shared(std::vector<std::uint32_t> owners, const std::vector<std::uint32_t>& members) {
    std::vector<std::size_t> scratch(members.size(), 99);
    share_partitions(owners, members, scratch);
    return owners;
}
std::size_t moved(const std::vector<std::uint32_t>& before, const std::vector<std::uint32_t>& after) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < before.size(); ++i) { n += before[i] != after[i]; }
    return n;
}
bool is_fair(const std::vector<std::uint32_t>& owners, const std::vector<std::uint32_t>& members) {
    std::map<std::uint32_t, std::size_t> has;
    for (const std::uint32_t m : members) { has[m] = 0; }
    for (const std::uint32_t o : owners) {
        if (has.find(o) == has.end()) { return false; }
        ++has[o];
    }
    const auto [low, high] = std::minmax_element(has.begin(), has.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    return high->second - low->second <= 1;
}
/// The fewest moves that lead to a fair share, of all there are.
std::size_t fewest_moves(const std::vector<std::uint32_t>& before, const std::vector<std::uint32_t>& members) {
    std::vector<std::uint32_t> after(before.size(), members.front());
    std::vector<std::size_t> at(before.size(), 0);
    std::size_t best = before.size() + 1;
    for (;;) {
        if (is_fair(after, members)) { best = std::min(best, moved(before, after)); }
        std::size_t i = 0;
        while (i < at.size() && ++at[i] == members.size()) {
            at[i] = 0;
            after[i] = members.front();
            ++i;
        }
        if (i == at.size()) { return best; }
        after[i] = members[at[i]];
    }
}

using owners = std::vector<std::uint32_t>;

} // namespace

TEST_CASE("share_partitions: nobody has any where there is nobody") {
    CHECK(shared({1, 2, 0}, {}) == owners{0, 0, 0});
    CHECK(shared({}, {1, 2}).empty());
}

TEST_CASE("share_partitions: one has all; who joins gets his part and no more moves; who leaves leaves his") {
    CHECK(shared({0, 0, 0, 0}, {5}) == owners{5, 5, 5, 5});
    const owners two = shared({5, 5, 5, 5}, {5, 6});
    CHECK(moved({5, 5, 5, 5}, two) == 2);
    CHECK(is_fair(two, {5, 6}));
    const owners three = shared(two, {5, 6, 7});
    CHECK(moved(two, three) == 1);
    CHECK(is_fair(three, {5, 6, 7}));
    const owners back = shared(three, {6, 7});
    CHECK(is_fair(back, {6, 7}));
    for (std::size_t i = 0; i < back.size(); ++i) {
        if (three[i] != 5) { CHECK(back[i] == three[i]); }
    }
    CHECK(shared(back, {7, 6}) == back); // the order of members is nothing
}

TEST_CASE("share_partitions: of more members than partitions some have none") {
    const owners o = shared({0, 0}, {1, 2, 3});
    CHECK(is_fair(o, {1, 2, 3}));
    CHECK(o[0] != o[1]);
    CHECK(shared(o, {1, 2, 3, 4}) == o);
}

TEST_CASE("share_partitions: balanced within one, with the fewest moves there could be") {
    support::for_each_seed(400, [](std::uint64_t seed) {
        support::dice dice(seed);
        const auto partitions = static_cast<std::size_t>(dice.between(1, 6));
        const auto count = static_cast<std::size_t>(dice.between(1, 4));
        std::vector<std::uint32_t> members;
        while (members.size() < count) {
            const std::uint32_t m = 1 + dice.below(9);
            if (std::find(members.begin(), members.end(), m) == members.end()) { members.push_back(m); }
        }
        owners before(partitions);
        for (auto& o : before) { // members, nobody, and some who left
            o = dice.percent(70) ? members[dice.below(static_cast<unsigned>(members.size()))] : dice.below(12);
        }
        const owners after = shared(before, members);
        const bool right = is_fair(after, members) && moved(before, after) == fewest_moves(before, members);
        if (!right) { FAIL_CHECK("MAILROOM_TEST_SEED=", seed, ": ", moved(before, after), " moves of ", fewest_moves(before, members)); }
        return right;
    });
}

TEST_CASE("share_partitions: members come and go, and it stays fair; who stays keeps all but what another must get") {
    support::for_each_seed(200, [](std::uint64_t seed) {
        support::dice dice(seed);
        owners all(static_cast<std::size_t>(dice.between(1, 64)), 0);
        std::vector<std::uint32_t> members;
        bool right = true;
        for (int step = 0; step < 60 && right; ++step) {
            const owners before = all;
            if (members.empty() || dice.percent(55)) {
                members.push_back(100 + static_cast<std::uint32_t>(step));
            } else {
                members.erase(members.begin() + dice.between(0, static_cast<int>(members.size()) - 1));
            }
            all = shared(all, members);
            if (members.empty()) {
                right = std::count(all.begin(), all.end(), 0u) == static_cast<std::ptrdiff_t>(all.size());
                continue;
            }
            std::size_t homeless = 0; // had an owner that is gone, or none
            for (const std::uint32_t o : before) { homeless += std::find(members.begin(), members.end(), o) == members.end(); }
            const std::size_t part = all.size() / members.size();
            right = is_fair(all, members) && moved(before, all) <= homeless + part;
        }
        if (!right) { FAIL_CHECK("MAILROOM_TEST_SEED=", seed); }
        return right;
    });
}
