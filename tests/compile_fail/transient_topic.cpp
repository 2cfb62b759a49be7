// What a topic of lanes cannot promise does not compile, and the first line of the answer says why and what to use instead.
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
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: transient keeps nothing to redeliver.*mailroom::memory
// expect: deleted
// expect: the T of topic<T, transient<...>> has to be an object type that can be copied
// expect: the T of topic<T, transient<...>> has to be an object type that can be copied
// expect: the T of topic<T, transient<...>> has to be an object type that can be copied
// expect: the destructor of the T of topic<T, transient<...>> may not throw
// expect: bounded<N> is a lane of N messages: N is 1 or more
// expect: transient<Shape>: Shape is
#include <mailroom/store/transient.hpp>
#include <mailroom/store/transient_topic.hpp>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#if !defined(MAILROOM_FAULT)
# define MAILROOM_FAULT 0
#endif

using namespace std::chrono_literals;

struct tick {
    std::string symbol{};
    double price = 0;
};
struct shared {}; // as good as subscribe_options
struct throws_at_the_end {
    ~throws_at_the_end() noexcept(false) {}
};

template <class Shape>
using lane = mailroom::topic<tick, mailroom::transient<Shape>>;

void use(lane<mailroom::unbounded>& t, lane<mailroom::bounded<8>>& b, const tick& o) {
    auto s = t.subscribe();
    t.publish(o);
    b.publish({"AAPL", 189.2});
    const bool accepted = b.try_publish({"AAPL", 189.2}) && s.try_pop();
    static_cast<void>(accepted);
#if MAILROOM_FAULT == 1
    if (auto d = s.receive()) { d->ack(); }
#elif MAILROOM_FAULT == 2
    if (auto d = s.receive_for(100ms)) { d->ack(); }
#elif MAILROOM_FAULT == 3
    auto d = s.try_receive();
#elif MAILROOM_FAULT == 4
    std::vector<int> out;
    s.receive_many(out, 10, 1s);
#elif MAILROOM_FAULT == 5
    auto awaited = s.next();
#elif MAILROOM_FAULT == 6
    auto workers = s.consume([](const tick&) {});
#elif MAILROOM_FAULT == 7
    s.seek(17);
#elif MAILROOM_FAULT == 8
    const auto behind = s.lag();
#elif MAILROOM_FAULT == 9
    s.pause();
#elif MAILROOM_FAULT == 10
    s.resume();
#elif MAILROOM_FAULT == 11
    s.browse([](const tick&) { return true; });
#elif MAILROOM_FAULT == 12
    const auto numbers = s.statistics();
#elif MAILROOM_FAULT == 13
    s.dead().redrive(1);
#elif MAILROOM_FAULT == 14
    s.purge();
#elif MAILROOM_FAULT == 15
    auto audit = t.subscribe("audit");
#elif MAILROOM_FAULT == 16
    auto audit = t.subscribe(std::string("audit"), shared());
#elif MAILROOM_FAULT == 17
    auto filtered = b.subscribe(shared());
#elif MAILROOM_FAULT == 18
    t.unsubscribe("audit");
#elif MAILROOM_FAULT == 19
    const auto all = t.subscriptions();
#elif MAILROOM_FAULT == 20
    const auto first = t.first_offset();
#elif MAILROOM_FAULT == 21
    const auto next = b.next_offset(0);
#elif MAILROOM_FAULT == 22
    const auto numbers = t.statistics();
#elif MAILROOM_FAULT == 23
    t.dead().redrive(1);
#elif MAILROOM_FAULT == 24
    const bool drained = t.drain(1s);
#elif MAILROOM_FAULT == 25
    t.publish({"MSFT", 411.0}, {.key = "MSFT"});
#elif MAILROOM_FAULT == 26
    t.publish(o, mailroom::properties());
#elif MAILROOM_FAULT == 27
    const auto r = b.try_publish({"MSFT", 411.0}, {.key = "MSFT"});
#elif MAILROOM_FAULT == 28
    const auto r = b.publish_for(1s, o, {.key = "MSFT"});
#elif MAILROOM_FAULT == 29
    t.publish_async(o).wait();
#elif MAILROOM_FAULT == 30
    t.publish_async({"MSFT", 411.0}, {.key = "MSFT"}).wait();
#elif MAILROOM_FAULT == 31
    auto copied = s;
#elif MAILROOM_FAULT == 32
    const mailroom::topic<std::unique_ptr<tick>, mailroom::transient<>> of_pointers;
#elif MAILROOM_FAULT == 33
    const mailroom::topic<const tick, mailroom::transient<mailroom::spsc<8>>> constant;
#elif MAILROOM_FAULT == 34
    const mailroom::topic<tick&, mailroom::transient<>> reference;
#elif MAILROOM_FAULT == 35
    const mailroom::topic<throws_at_the_end, mailroom::transient<mailroom::bounded<8>>> loud;
#elif MAILROOM_FAULT == 36
    const mailroom::topic<tick, mailroom::transient<mailroom::bounded<0>>> none;
#elif MAILROOM_FAULT == 37
    const lane<int> of_no_shape;
#endif
}
