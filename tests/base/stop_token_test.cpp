#include <mailroom/base/own_stop_token.hpp>
#include <mailroom/base/stop_token.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

// The same cases for the names the library uses (the standard's, where there are) and for our own.
namespace {

struct exported {
    using token = mailroom::stop_token;
    using source = mailroom::stop_source;
    template <class C>
    using callback = mailroom::stop_callback<C>;
    static source none() { return source(mailroom::nostopstate); }
};

struct own {
    using token = mailroom::detail::own::stop_token;
    using source = mailroom::detail::own::stop_source;
    template <class C>
    using callback = mailroom::detail::own::stop_callback<C>;
    static source none() { return source(mailroom::detail::own::nostopstate); }
};

} // namespace

TEST_CASE_TEMPLATE("stop_token: sees the request of its source, and whether one can still come", Names, exported, own) {
    typename Names::token empty;
    CHECK(!empty.stop_possible());
    CHECK(!empty.stop_requested());
    CHECK(!Names::none().stop_possible());
    CHECK(!Names::none().request_stop());

    typename Names::token token;
    {
        typename Names::source source;
        token = source.get_token();
        CHECK(token.stop_possible());
        CHECK(token == source.get_token());
        CHECK(token != empty);
        typename Names::source copy = source;
        CHECK(copy == source);
        typename Names::source moved = std::move(copy);
        moved = source;
        CHECK(token.stop_possible());
    }
    CHECK(!token.stop_possible()); // nobody is left who could ask

    typename Names::source source;
    token = source.get_token();
    CHECK(source.request_stop());
    CHECK(!source.request_stop());
    CHECK(token.stop_requested());
    { typename Names::source gone = std::move(source); }
    CHECK(token.stop_possible());
    CHECK(token.stop_requested());
}

TEST_CASE_TEMPLATE("stop_callback: runs once, at the request or at once after it", Names, exported, own) {
    typename Names::source source;
    int runs = 0;
    auto count = [&runs] { ++runs; };
    using callback = typename Names::template callback<decltype(count)>;
    const callback first(source.get_token(), count);
    { const callback left_early(source.get_token(), count); }
    const callback second(source.get_token(), count);
    CHECK(runs == 0);
    source.request_stop();
    CHECK(runs == 2);
    const callback late(source.get_token(), count);
    CHECK(runs == 3);
    const callback never(typename Names::token(), count);
    CHECK(runs == 3);
}

TEST_CASE_TEMPLATE("stop_callback: may destroy itself, or another, while it runs", Names, exported, own) {
    struct action {
        std::vector<std::optional<typename Names::template callback<action>>>* all;
        std::size_t victim;
        void operator()() { (*all)[victim].reset(); }
    };
    typename Names::source source;
    std::vector<std::optional<typename Names::template callback<action>>> all(3);
    all[0].emplace(source.get_token(), action{&all, 0});
    all[1].emplace(source.get_token(), action{&all, 2});
    all[2].emplace(source.get_token(), action{&all, 1});
    source.request_stop();
    CHECK(!all[0]);
    CHECK((!all[1] != !all[2])); // whichever ran first took the other away
}

TEST_CASE_TEMPLATE("stop_callback: its destructor waits while another thread runs it", Names, exported, own) {
    for (int round = 0; round < 200; ++round) {
        typename Names::source source;
        std::atomic<bool> entered{false};
        auto data = std::make_unique<int>(0);
        std::thread asking;
        {
            auto touch = [&entered, p = data.get()] {
                entered = true;
                for (int i = 0; i < 10; ++i) {
                    ++*p;
                    std::this_thread::yield();
                }
            };
            typename Names::template callback<decltype(touch)> callback(source.get_token(), std::move(touch));
            asking = std::thread([&source] { source.request_stop(); });
            while (!entered) std::this_thread::yield();
        }
        CHECK(*data == 10);
        data.reset();
        asking.join();
    }
}

TEST_CASE_TEMPLATE("stop_source: many threads ask, register and leave at once; one wins, each callback runs once at most", Names, exported, own) {
    for (int round = 0; round < 100; ++round) {
        typename Names::source source;
        std::atomic<int> winners{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&, token = source.get_token()] {
                for (int i = 0; i < 20; ++i) {
                    int runs = 0;
                    auto count = [&runs] { ++runs; };
                    { typename Names::template callback<decltype(count)> callback(token, count); }
                    if (runs > 1) winners += 100;
                }
                if (source.request_stop()) ++winners;
            });
        }
        for (auto& t : threads) t.join();
        CHECK(winners == 1);
    }
}
