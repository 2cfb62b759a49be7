// Whatever of a user's code runs inside a call of the queue may use the queue: here the destructor of a body, which sends and pops until the
// memory it stands in would be used again, were it given back too early.
#include <mailroom/queue.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>

using namespace std::chrono_literals;

namespace {

/// The place of the body that is being destroyed, while its destructor does something else; and what has been made there meanwhile.
const void* dying = nullptr;
int made_on_the_dying = 0;
std::function<void()> at_death;
bool shells_too = false; // what was moved from has a destructor too

class testator {
public:
    explicit testator(int value) : value_(value) { look(); }
    testator(testator&& other) noexcept : value_(std::exchange(other.value_, -1)) { look(); }
    testator& operator=(testator&& other) noexcept {
        value_ = std::exchange(other.value_, -1);
        return *this;
    }
    ~testator() {
        if (!at_death || dying != nullptr || (value_ < 0 && !shells_too)) { return; }
        dying = this;
        at_death();
        dying = nullptr;
    }
    int value() const { return value_; }

private:
    void look() const {
        if (this == dying) { ++made_on_the_dying; }
    }
    int value_;
};

/// A queue that has been used up to the end of a block: the message in `last` is the only one of it that is not settled.
struct used_queue {
    explicit used_queue(int used) : queue(mailroom::queue_options<testator>{.lease = 1s, .retry = {.max_attempts = 1}, .clock = &clock}) {
        for (int i = 0; i < used; ++i) { queue.send(testator(i)), queue.try_pop(); }
        queue.send(testator(used));
    }
    void use() {
        for (int i = 0; i < 200; ++i) { queue.send(testator(i)); }
        while (queue.try_pop()) {}
        for (int i = 0; i < 200; ++i) { queue.send(testator(i)), queue.try_receive()->ack(); }
    }
    mailroom::testing::manual_clock clock;
    mailroom::queue<testator> queue;
};

} // namespace

TEST_CASE("queue: the destructor of a body may use the queue it stood in") {
    struct {
        std::string name;
        void (*end)(used_queue&);
        bool shells = false;
    } const table[] = {
        {"pop, and what it leaves behind", [](used_queue& q) { q.queue.try_pop(); }, true},
        {"pop", [](used_queue& q) { q.queue.try_pop(); }},
        {"ack", [](used_queue& q) { q.queue.try_receive()->ack(); }},
        {"purge", [](used_queue& q) { q.queue.purge(); }},
        {"purge, while it is out",
         [](used_queue& q) {
             const auto d = q.queue.try_receive();
             q.queue.purge();
         }},
        {"ack after a retry",
         [](used_queue& q) {
             q.queue.try_receive()->release();
             q.queue.try_receive()->ack();
         }},
        {"pop after a retry",
         [](used_queue& q) {
             q.queue.try_receive()->release();
             q.queue.try_pop();
         }},
        {"the dead: ack",
         [](used_queue& q) {
             q.queue.try_receive()->reject();
             q.queue.dead().try_receive()->ack();
         }},
        {"the dead: purge",
         [](used_queue& q) {
             q.queue.try_receive()->reject();
             q.queue.dead().purge();
         }},
    };
    for (const auto& row : table) {
        for (int used = 0; used < 130; ++used) { // wherever in its block the message stands
            CAPTURE(row.name);
            CAPTURE(used);
            made_on_the_dying = 0;
            used_queue q(used);
            bool acted = false;
            shells_too = row.shells;
            at_death = [&] {
                acted = true;
                q.use();
            };
            row.end(q);
            at_death = nullptr;
            CHECK(acted);
            REQUIRE(made_on_the_dying == 0);
            q.queue.send(testator(7));
            auto m = q.queue.try_pop();
            REQUIRE(m.has_value());
            CHECK(m->body().value() == 7);
        }
    }
}
