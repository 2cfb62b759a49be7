// What does an answer cost: how long does it take from asking to having the answer, both sides blocking?
//
//   request_memory_1, request_memory_4   one caller, or four, and one thread that answers; nothing is stored
//   request_journal_1, request_journal_4 the same, requests stored: with no sync, and with one for each commit
//
// The rivals: two queues, one for requests and one for the answers of each caller, as one would write it by hand: no time-out, no correlation.
#include "support/machine.hpp"
#include "support/results.hpp"
#include "support/rivals.hpp"

#include <mailroom/request.hpp>
#if MAILROOM_BENCH_JOURNAL
# include "support/disk.hpp"
# include <mailroom/journal.hpp>
#endif

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace bench;

struct question {
    std::uint64_t caller = 0, number = 0;
};
struct reply {
    std::uint64_t caller = 0, number = 0;
};

constexpr std::uint64_t last = ~std::uint64_t{0};

// A way to ask: `ask(q)` from each caller's own `caller`, which answers what came back; `way(n)` serves n callers.

template <class Queue>
struct requesting {
    Queue& requests;
    mailroom::responder<question, reply> serve{requests, [](const question& q) { return reply{q.caller, q.number}; }};
    mailroom::requester<question, reply> shared{requests};

    struct caller {
        caller(requesting& w, int) : ask_(w.shared) {}
        reply ask(const question& q) { return ask_(q, std::chrono::seconds(60)).value(); }
        mailroom::requester<question, reply>& ask_;
    };
};

struct in_memory {
    explicit in_memory(int) {}
    mailroom::queue<question> queue;
    requesting<mailroom::queue<question>> all{queue};
    struct caller : requesting<mailroom::queue<question>>::caller {
        caller(in_memory& w, int i) : requesting<mailroom::queue<question>>::caller(w.all, i) {}
    };
};

// By hand, over two of our queues.
struct two_of_ours {
    explicit two_of_ours(int callers) : back(static_cast<std::size_t>(callers)) {
        server = std::thread([this] {
            while (const auto q = there.pop()) { back[(**q).caller].send({(**q).caller, (**q).number}); }
        });
    }
    ~two_of_ours() {
        there.close();
        server.join();
    }
    mailroom::queue<question> there;
    std::vector<mailroom::queue<reply>> back;
    std::thread server;
    struct caller {
        caller(two_of_ours& w, int i) : way(w), back(w.back[static_cast<std::size_t>(i)]) {}
        reply ask(const question& q) {
            way.there.send(q);
            return **back.pop();
        }
        two_of_ours& way;
        mailroom::queue<reply>& back;
    };
};

struct two_deques {
    explicit two_deques(int callers) {
        for (int i = 0; i < callers; ++i) { back.push_back(std::make_unique<mutex_and_deque<reply>>()); }
        server = std::thread([this] {
            while (const auto q = there.pop()) { back[q->caller]->push({q->caller, q->number}); }
        });
    }
    ~two_deques() {
        there.close();
        server.join();
    }
    mutex_and_deque<question> there;
    std::vector<std::unique_ptr<mutex_and_deque<reply>>> back;
    std::thread server;
    struct caller {
        caller(two_deques& w, int i) : way(w), back(*w.back[static_cast<std::size_t>(i)]) {}
        reply ask(const question& q) {
            way.there.push(question(q));
            return *back.pop();
        }
        two_deques& way;
        mutex_and_deque<reply>& back;
    };
};

#if MAILROOM_BENCH_MOODYCAMEL
template <bool Tokens>
struct two_moodycamel {
    template <class T>
    using lane = moodycamel::BlockingConcurrentQueue<T>;

    explicit two_moodycamel(int callers) {
        for (int i = 0; i < callers; ++i) { back.push_back(std::make_unique<lane<reply>>()); }
        server = std::thread([this] {
            moodycamel::ConsumerToken from(there);
            std::vector<moodycamel::ProducerToken> to;
            for (const auto& b : back) { to.emplace_back(*b); }
            for (question q;;) {
                if constexpr (Tokens) {
                    there.wait_dequeue(from, q);
                } else {
                    there.wait_dequeue(q);
                }
                if (q.caller == last) { return; }
                if constexpr (Tokens) {
                    back[q.caller]->enqueue(to[q.caller], {q.caller, q.number});
                } else {
                    back[q.caller]->enqueue({q.caller, q.number});
                }
            }
        });
    }
    ~two_moodycamel() {
        there.enqueue({last, 0});
        server.join();
    }
    lane<question> there;
    std::vector<std::unique_ptr<lane<reply>>> back;
    std::thread server;
    struct caller {
        caller(two_moodycamel& w, int i) : to(w.there), back(*w.back[static_cast<std::size_t>(i)]), sending(to), receiving(back) {}
        reply ask(const question& q) {
            reply r;
            if constexpr (Tokens) {
                to.enqueue(sending, q);
                back.wait_dequeue(receiving, r);
            } else {
                to.enqueue(q);
                back.wait_dequeue(r);
            }
            return r;
        }
        lane<question>& to;
        lane<reply>& back;
        moodycamel::ProducerToken sending;
        moodycamel::ConsumerToken receiving;
    };
};
#endif

#if MAILROOM_BENCH_JOURNAL
template <mailroom::durability Durability>
struct stored {
    explicit stored(int) {}
    scratch where;
    mailroom::journal disk{where.path(), {.durability = Durability}};
    mailroom::queue<question, mailroom::journal> queue{disk, "requests"};
    requesting<mailroom::queue<question, mailroom::journal>> all{queue};
    struct caller : requesting<mailroom::queue<question, mailroom::journal>>::caller {
        caller(stored& w, int i) : requesting<mailroom::queue<question, mailroom::journal>>::caller(w.all, i) {}
    };
};
#endif

// Microseconds from asking to having the answer, on average over all callers.
template <class Way>
double round(int callers, std::size_t questions) {
    Way way(callers);
    const std::size_t share = questions / static_cast<std::size_t>(callers);
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::atomic<std::uint64_t> wrong{0};
    std::vector<std::thread> threads;
    for (int who = 0; who < callers; ++who) {
        threads.emplace_back([&, who] {
            typename Way::caller mine(way, who);
            ready.fetch_add(1);
            go.wait(false);
            std::uint64_t odd = 0;
            for (std::size_t i = 0; i < share; ++i) {
                const reply r = mine.ask({static_cast<std::uint64_t>(who), i});
                odd += r.caller != static_cast<std::uint64_t>(who) || r.number != i;
            }
            wrong += odd;
        });
    }
    while (ready.load() != callers) { std::this_thread::yield(); }
    const auto start = clock::now();
    go.store(true);
    go.notify_all();
    for (std::thread& t : threads) { t.join(); }
    const double took = seconds(clock::now() - start);
    if (wrong != 0) { give_up("somebody got an answer that was not his"); }
    return took * 1e6 / static_cast<double>(share);
}

} // namespace

int main(int argc, char** argv) {
    results all("request_bench", argc, argv);
    for (const int callers : {1, 4}) {
        const std::string n = std::to_string(callers), who = n + (callers == 1 ? " caller" : " callers");
        const auto one = [callers](std::string name, auto way, std::size_t questions) {
            using type = typename decltype(way)::type;
            return contestant{std::move(name), [=] { return std::vector<double>{round<type>(callers, questions)}; }};
        };
        const std::size_t many = all.scaled(64'000);
        all.contest({{"request_memory_" + n, "asking and having the answer, in memory, " + who, "us", "two moodycamel Blocking + tokens", false}}, {
            one("requester, responder", std::type_identity<in_memory>(), many), one("two queues, by hand", std::type_identity<two_of_ours>(), many),
                one("two mutex + deque + condvar", std::type_identity<two_deques>(), many / 4),
#if MAILROOM_BENCH_MOODYCAMEL
                one("two moodycamel Blocking", std::type_identity<two_moodycamel<false>>(), many),
                one("two moodycamel Blocking + tokens", std::type_identity<two_moodycamel<true>>(), many),
#endif
        });
#if MAILROOM_BENCH_JOURNAL
        all.contest({{"request_journal_" + n, "asking and having the answer, requests stored, " + who, "us", "", false}},
                    {
                        one("durability::none", std::type_identity<stored<mailroom::durability::none>>(), many / 8),
                        one("durability::write", std::type_identity<stored<mailroom::durability::write>>(), many / 8),
                        one("durability::commit", std::type_identity<stored<mailroom::durability::commit>>(), many / 64),
                    });
#endif
    }
    return all.finish();
}
