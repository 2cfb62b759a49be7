// What a lane cannot promise does not compile, and the first line of the answer says why and what to use instead.
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: bounded<N> is a lane of N messages: N is 1 or more
// expect: spsc<N> is a lane of N messages: N is 1 or more
// expect: bounded<N> holds 2000000 messages at most
// expect: transient<Shape>: Shape is
// expect: the T of queue<T, transient<...>> has to be an object type that can be moved
// expect: the T of queue<T, transient<...>> has to be an object type that can be moved
// expect: the destructor of the T of queue<T, transient<...>> may not throw
// expect: the T of queue<T, transient<...>> has to be an object type that can be moved
#include <mailroom/mailroom.hpp>
#include <mailroom/store/transient.hpp>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#if !defined(MAILROOM_FAULT)
# define MAILROOM_FAULT 0
#endif

using namespace std::chrono_literals;

struct order {
    int id = 0;
    std::string symbol{};
};
struct immovable {
    immovable() = default;
    immovable(immovable&&) = delete;
};
struct throws_at_the_end {
    ~throws_at_the_end() noexcept(false) {}
};

template <class Shape>
using lane = mailroom::queue<order, mailroom::transient<Shape>>;

void use(lane<mailroom::unbounded>& q, lane<mailroom::bounded<8>>& b, const order& o) {
    q.send(o);
    b.send({1, "AAPL"}, mailroom::stop_token());
#if MAILROOM_FAULT == 1
    if (auto d = q.receive()) { d->ack(); }
#elif MAILROOM_FAULT == 2
    if (auto d = b.receive_for(100ms)) { d->ack(); }
#elif MAILROOM_FAULT == 3
    auto d = q.try_receive();
#elif MAILROOM_FAULT == 4
    auto d = q.receive(mailroom::stop_token());
#elif MAILROOM_FAULT == 5
    std::vector<mailroom::delivery<order>> out;
    b.receive_many(out, 10, 1s);
#elif MAILROOM_FAULT == 6
    auto workers = q.consume([](const order&) {});
#elif MAILROOM_FAULT == 7
    auto workers = b.consume([](const order&) {}, {.concurrency = {1, 8}, .prefetch = 64});
#elif MAILROOM_FAULT == 8
    auto awaited = q.next();
#elif MAILROOM_FAULT == 9
    q.browse([](const mailroom::message<order>&, mailroom::message_state) { return true; });
#elif MAILROOM_FAULT == 10
    const auto s = b.statistics();
#elif MAILROOM_FAULT == 11
    q.send({2, "MSFT"}, {.key = "MSFT", .delay = 5s, .priority = 7});
#elif MAILROOM_FAULT == 12
    q.send(o, mailroom::properties());
#elif MAILROOM_FAULT == 13
    const auto r = b.try_send({2, "MSFT"}, {.key = "MSFT"});
#elif MAILROOM_FAULT == 14
    const auto r = b.send_for(1s, {2, "MSFT"}, {.key = "MSFT"});
#elif MAILROOM_FAULT == 15
    q.send_async({2, "MSFT"}).wait();
#elif MAILROOM_FAULT == 16
    q.send_async(o, {.key = "MSFT"}).wait();
#elif MAILROOM_FAULT == 17
    q.dead().redrive(1);
#elif MAILROOM_FAULT == 18
    q.purge();
#elif MAILROOM_FAULT == 19
    q.pause();
#elif MAILROOM_FAULT == 20
    const bool drained = q.drain(1s);
#elif MAILROOM_FAULT == 21
    auto in = q.producer();
    in.send({2, "MSFT"}, {.key = "MSFT"});
#elif MAILROOM_FAULT == 22
    auto out = b.consumer();
    auto d = out.receive();
#elif MAILROOM_FAULT == 23
    const lane<mailroom::bounded<0>> none;
#elif MAILROOM_FAULT == 24
    const lane<mailroom::spsc<0>> none;
#elif MAILROOM_FAULT == 25
    const lane<mailroom::bounded<3'000'000>> large;
#elif MAILROOM_FAULT == 26
    const lane<int> of_no_shape;
#elif MAILROOM_FAULT == 27
    const mailroom::queue<immovable, mailroom::transient<>> fixed;
#elif MAILROOM_FAULT == 28
    const mailroom::queue<const order, mailroom::transient<mailroom::spsc<8>>> constant;
#elif MAILROOM_FAULT == 29
    const mailroom::queue<throws_at_the_end, mailroom::transient<mailroom::bounded<8>>> loud;
#elif MAILROOM_FAULT == 30
    const mailroom::queue<order&, mailroom::transient<>> reference;
#endif
}
