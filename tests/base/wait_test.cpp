#include <mailroom/base/wait.hpp>

#include "support/environment.hpp"
#include "support/eventually.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace {

using mailroom::detail::nothing;
using mailroom::detail::thread_waiter;
using mailroom::detail::trampoline;
using mailroom::detail::wait_list;
using mailroom::detail::waiter;

struct counting_waiter final : waiter {
    counting_waiter() : waiter([](waiter& w) noexcept { ++static_cast<counting_waiter&>(w).woken; }) {}
    std::atomic<int> woken{0};
};

// A task that schedules others while it runs.
struct nested_task final : trampoline::task {
    std::vector<int>* order = nullptr;
    int number = 0;
    std::vector<nested_task*> then;
    int* depth = nullptr;
    int* deepest = nullptr;

    nested_task() {
        run = [](trampoline::task& t) noexcept {
            auto& self = static_cast<nested_task&>(t);
            *self.deepest = std::max(*self.deepest, ++*self.depth);
            self.order->push_back(self.number);
            for (nested_task* child : self.then) { trampoline::schedule(*child); }
            --*self.depth;
        };
    }
};

} // namespace

TEST_CASE("wait_list: first in, first out; each is taken out once") {
    wait_list list;
    counting_waiter a, b, c;
    CHECK(list.take(nothing()) == nullptr);
    list.add(a, nothing());
    list.add(b, nothing());
    list.add(c, nothing());
    CHECK(list.size() == 3);
    CHECK(list.remove(b, nothing()));
    CHECK(!list.remove(b, nothing()));
    CHECK(list.take(nothing()) == &a);
    CHECK(!list.remove(a, nothing()));
    CHECK(list.take(nothing()) == &c);
    CHECK(list.take(nothing()) == nullptr);
    CHECK(list.size() == 0);

    list.add(b, nothing()); // again
    CHECK(list.take(nothing()) == &b);
    b.wake();
    CHECK(b.woken == 1);
}

TEST_CASE("wait_list: ends and middle may leave in any order") {
    for (const auto& order :
         {std::array{0, 1, 2}, std::array{0, 2, 1}, std::array{1, 0, 2}, std::array{1, 2, 0}, std::array{2, 0, 1}, std::array{2, 1, 0}}) {
        wait_list list;
        std::array<counting_waiter, 3> waiters;
        for (auto& w : waiters) { list.add(w, nothing()); }
        for (const int i : order) { CHECK(list.remove(waiters[static_cast<std::size_t>(i)], nothing())); }
        CHECK(list.take(nothing()) == nullptr);
    }
}

TEST_CASE("wait_list: its flag functions run for the first who comes and the last who goes only") {
    wait_list list;
    counting_waiter a, b;
    int first = 0, last = 0;
    const auto on_first = [&] { ++first; };
    const auto on_last = [&] { ++last; };
    list.add(a, on_first);
    list.add(b, on_first);
    CHECK(first == 1);
    list.take(on_last);
    CHECK(last == 0);
    CHECK(!list.remove(a, on_last));
    CHECK(last == 0);
    CHECK(list.remove(b, on_last));
    CHECK(last == 1);
    CHECK(list.take(on_last) == nullptr);
    CHECK(last == 1);
    list.add(a, on_first);
    CHECK(first == 2);
    list.take(on_last);
    CHECK(last == 2);
}

TEST_CASE("wait_list: between one who wakes and one who gives up, exactly one takes the node out") {
    const int rounds = static_cast<int>(support::scaled(20'000));
    wait_list list;
    std::vector<std::unique_ptr<counting_waiter>> waiters;
    for (int i = 0; i < rounds; ++i) { waiters.push_back(std::make_unique<counting_waiter>()); }
    std::atomic<int> added{0}, taken{0}, removed{0};
    std::thread taker([&] {
        while (taken + removed < rounds) {
            if (waiter* w = list.take(nothing())) {
                w->wake();
                ++taken;
            } else {
                std::this_thread::yield();
            }
        }
    });
    for (auto& w : waiters) {
        list.add(*w, nothing());
        ++added;
        if (list.remove(*w, nothing())) { ++removed; }
    }
    taker.join();
    CHECK(taken + removed == rounds);
    int woken = 0;
    for (const auto& w : waiters) { woken += w->woken; }
    CHECK(woken == taken);
    CHECK(list.size() == 0);
}

TEST_CASE("thread_waiter: a wake before the park is not lost") {
    thread_waiter w(mailroom::system_clock());
    CHECK(!w.woken());
    w.wake();
    CHECK(w.woken());
    w.park(mailroom::clock::never);
    w.settle();
}

TEST_CASE("thread_waiter: an interruption ends the park, and is no wake to settle for") {
    mailroom::clock& c = mailroom::system_clock();
    thread_waiter w(c);
    std::thread other([&] { w.interrupt(); });
    w.park(mailroom::clock::never);
    other.join();
    w.park(mailroom::clock::never); // and every later one
    std::thread waker([&] { w.wake(); });
    w.settle(); // returns when the wake has come
    waker.join();
    CHECK(w.woken());
}

TEST_CASE("thread_waiter: after settle it may go, though its waker has only just begun") {
    for (std::size_t i = 0; i < support::scaled(2'000); ++i) {
        wait_list list;
        std::thread other;
        {
            thread_waiter w(mailroom::system_clock());
            list.add(w, nothing());
            other = std::thread([&list] {
                waiter* first = nullptr;
                while ((first = list.take(nothing())) == nullptr) { std::this_thread::yield(); }
                first->wake();
            });
            w.park(mailroom::clock::never);
            if (!list.remove(w, nothing())) {
                w.settle();
            } else {
                list.add(w, nothing());
                while (list.size() != 0) { std::this_thread::yield(); }
                w.settle();
            }
        }
        other.join();
    }
}

TEST_CASE("trampoline: what a task schedules runs after it, in order, never inside it") {
    std::vector<int> order;
    int depth = 0, deepest = 0;
    std::array<nested_task, 5> tasks;
    for (int i = 0; i < 5; ++i) {
        auto& t = tasks[static_cast<std::size_t>(i)];
        t.order = &order;
        t.number = i;
        t.depth = &depth;
        t.deepest = &deepest;
    }
    tasks[0].then = {&tasks[1], &tasks[2]};
    tasks[1].then = {&tasks[3]};
    tasks[3].then = {&tasks[4]};
    trampoline::schedule(tasks[0]);
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(deepest == 1);

    tasks[2].then.clear();
    order.clear();
    trampoline::schedule(tasks[2]); // a new outermost call
    CHECK(order == std::vector<int>{2});
}

TEST_CASE("trampoline: a chain of a million wakes needs no stack") {
    struct chain final : trampoline::task {
        long left = 1'000'000;
        chain() {
            run = [](trampoline::task& t) noexcept {
                auto& self = static_cast<chain&>(t);
                if (--self.left != 0) { trampoline::schedule(self); }
            };
        }
    } task;
    trampoline::schedule(task);
    CHECK(task.left == 0);
}

TEST_CASE("brief_look: a thread for which it was in vain looks less often, and now and then as long as before") {
    std::thread([] { // each thread has its own experience
        using mailroom::detail::brief_look;
        const auto looks_in_vain = [] {
            int n = 0;
            CHECK_FALSE(brief_look::look([&n] { return ++n < 0; }));
            return n;
        };
        int n = 0;
        CHECK(brief_look::look([&n] { return ++n == 60; })); // as long as it is worth it
        const int longest = looks_in_vain();
        CHECK(longest >= 60);
        for (int i = 0; i < 15; ++i) {
            const int few = looks_in_vain();
            CHECK(few >= 1);
            CHECK(few < longest / 4);
        }
        n = 0;
        CHECK(brief_look::look([&n] { return ++n == 60; }));
        CHECK(looks_in_vain() == longest);
    })
        .join();
}

TEST_CASE("trampoline: each thread has its own") {
    struct starter final : trampoline::task {
        bool other_ran = false;
        starter() {
            run = [](trampoline::task& t) noexcept {
                struct inner_task final : trampoline::task {
                    std::atomic<bool> ran{false};
                    inner_task() {
                        run = [](trampoline::task& i) noexcept { static_cast<inner_task&>(i).ran = true; };
                    }
                } inner;
                std::thread([&] { trampoline::schedule(inner); }).join();
                static_cast<starter&>(t).other_ran = inner.ran;
            };
        }
    } task;
    trampoline::schedule(task);
    CHECK(task.other_ran);
}
