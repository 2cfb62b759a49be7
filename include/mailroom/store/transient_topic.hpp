// topic<T, transient<Shape>>: each subscriber has a lane of its own (store/transient.hpp) and gets a copy of each message.
//
//   transient<>             a lane grows as it must; nothing is lost
//   transient<bounded<N>>   at most N messages a lane; a subscriber whose lane is full loses the oldest, and counts it
//   transient<spsc<N>>      the same with one thread that publishes and one that pops, each at a time; it loses the newest: only who pops
//                           may take from such a lane
//
// So a slow subscriber never makes a publisher wait. Who subscribes gets what is published from then on; FIFO per publishing thread, no
// order between them, and what one subscriber sees of several threads may be interleaved otherwise than what another one sees.
//
// The members are in a `roster`, which is never changed: who subscribes or leaves puts another one in its place, and the old one is freed
// when nobody reads it any more. Publishers take no lock and wait for nobody; they count themselves:
//
//   publisher                                  who changes something (roster, closed)
//     1  count up, on the present side           A  store the change
//     2  read `closed` and the roster            B  see the counts of one side at 0, make the other side the present one; twice
//     3  copy to each lane                       C  free what was replaced; close the lanes
//     4  count down; if at 0 and on the other
//        side, and somebody waits: do B, C
//
// Invariant: whatever a publisher has read in 2 exists until its 4. All of 1, 2, A and B are seq_cst. A publisher that read the old value
// in 2 did so before A in their single order, so its 1 is before every look of B: a look that finds 0 comes after its 4, which it reads
// from (counts are only ever changed by read-modify-write: a release sequence), so 4, and all of 3, happens before C. B may look at one
// counter after the other, since each that was 0 once after A tells of none that matters. Turning the sides is for progress only: who
// comes later counts on the side that is not looked at, so B ends though publishers never pause.
// Nobody waits for B. Whoever finds it unfinished goes away; the publisher that ends it comes by in 4: either B's look follows its count
// down in that order, or its reading of the side and of `somebody waits` follows their stores, and it looks itself. So a T's copy
// constructor may publish, subscribe, leave and close as it likes: it delays what is freed and closed, not those who run.
//
// Closing is such a change: from A on publishers are refused, and the lanes are closed in C. So a message that runs into a close() goes to
// all subscribers or to none, and what is in a lane when its pops say "closed and drained" is all there ever was, whatever its shape.
//
// Locks: one mutex, held for the change of a few words and the counting of members into a new roster, never while T's code, a clock or
// the allocator runs. Copies are made before a lane is touched, so in a lane nothing of T runs but its move.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/store/gate.hpp>
#include <mailroom/store/lane.hpp>
#include <mailroom/store/policies.hpp>
#include <mailroom/store/transient.hpp>

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <ranges>
#include <type_traits>
#include <utility>

namespace mailroom {

template <class T>
struct subscribe_options;

namespace detail {

/// Counts who is inside, and tells when all have left who were there at some moment: steps 1, 4 and B of the argument above.
template <std::uint32_t Counters>
class turnstile {
    static_assert(Counters >= 1 && Counters <= 32);

public:
    struct ticket {
        std::uint32_t counter;
        std::uint32_t side;
    };

    ticket enter() noexcept {
        const ticket t{Counters == 1 ? 0 : this_thread() % Counters, side_.load(std::memory_order_relaxed)}; // any side is right
        counters_[t.counter].inside[t.side].fetch_add(1, std::memory_order_seq_cst);
        return t;
    }
    /// True: somebody waits for who leaves here; `all_left()` has to be asked again.
    [[nodiscard]] bool leave(ticket t) noexcept {
        return counters_[t.counter].inside[t.side].fetch_sub(1, std::memory_order_seq_cst) == 1 && awaited_.load(std::memory_order_seq_cst) &&
               side_.load(std::memory_order_seq_cst) != t.side;
    }

    // These are called under the mutex of whom this belongs to.

    /// Begins to wait for all who are inside.
    void await() noexcept {
        turns_left_ = 2;
        unseen_ = all;
        awaited_.store(true, std::memory_order_seq_cst);
    }
    /// Whether they have left. Once true, true until the next `await()`.
    [[nodiscard]] bool all_left() noexcept {
        for (; turns_left_ != 0; --turns_left_) {
            const std::uint32_t present = side_.load(std::memory_order_relaxed);
            for (std::uint32_t i = 0; i < Counters; ++i) {
                if (counters_[i].inside[1 - present].load(std::memory_order_seq_cst) == 0) { unseen_ &= ~(std::uint32_t{1} << i); }
            }
            if (unseen_ != 0) { return false; }
            unseen_ = all;
            side_.store(1 - present, std::memory_order_seq_cst);
        }
        awaited_.store(false, std::memory_order_relaxed);
        return true;
    }

private:
    static constexpr std::uint32_t all = Counters == 32 ? ~std::uint32_t{0} : (std::uint32_t{1} << (Counters % 32)) - 1;

    // Threads are numbered as they come, so that the first few do not share a counter.
    static std::uint32_t this_thread() noexcept {
        static constinit std::atomic<std::uint32_t> last{0};
        static thread_local constinit std::uint32_t number = 0; // 0: none yet
        if (number == 0) [[unlikely]] { number = last.fetch_add(1, std::memory_order_relaxed) + 1; }
        return number;
    }

    struct alignas(128) counter {
        std::array<std::atomic<std::size_t>, 2> inside{};
    };

    std::array<counter, Counters> counters_{};
    std::atomic<std::uint32_t> side_{0};
    std::atomic<bool> awaited_{false};
    unsigned turns_left_ = 0;
    std::uint32_t unseen_ = 0; // the counters that were not 0 yet, in this turn
};

// Where the oldest messages go when there are too many.
struct discarded {
    using iterator_category = std::output_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = void;
    using pointer = void;
    using reference = void;

    discarded& operator*() noexcept { return *this; }
    discarded& operator++() noexcept { return *this; }
    discarded operator++(int) noexcept { return *this; }
    template <class T>
    requires(!std::same_as<std::remove_cvref_t<T>, discarded>) discarded& operator=(T&&) noexcept { // nothing is even moved
        return *this;
    }
};

template <class Shape>
inline constexpr bool is_spsc = false;
template <std::size_t N>
inline constexpr bool is_spsc<spsc<N>> = true;

/// What a topic and its subscriptions share: the members, and the passage of messages to them. The last of them destroys it.
template <class T, class Shape>
class topic_hub {
public:
    using lane_type = typename lane_for<T, Shape>::type;
    using core_type = lane_core<T, lane_type>;

    struct member {
        explicit member(clock* c) : core(c) {}
        core_type core;
        alignas(64) std::atomic<std::uint64_t> lost{0}; // beside the lane, whose ends are written at each message
        bool left = false;                              // guarded by the mutex of the hub
    };

    explicit topic_hub(clock* c) noexcept : clock_(c) {}
    topic_hub(const topic_hub&) = delete;
    topic_hub& operator=(const topic_hub&) = delete;
    ~topic_hub() {
        delete roster_.load(std::memory_order_relaxed);
        free(replaced_);
        free(awaited_);
    }

    [[nodiscard]] std::shared_ptr<member> join() {
        auto joining = std::make_shared<member>(clock_);
        if (!replace(joining)) { joining->core.close(); }
        settle();
        return joining;
    }
    void leave(member& leaving) noexcept {
        leaving.core.close(); // publishers pass it by from now on
        {
            const std::lock_guard lock(mutex_);
            leaving.left = true;
        }
        try {
            replace(nullptr);
        } catch (const std::bad_alloc&) {} // then it stays, closed, until the next roster leaves it out
        settle();
    }

    /// In all lanes that are not closed, or false: closed. Moves from `message` only into the last lane.
    template <class U>
    bool publish(U&& message) {
        const visit here(*this);
        if (closed_.load(std::memory_order_seq_cst)) [[unlikely]] { return false; }
        const roster* const members = roster_.load(std::memory_order_seq_cst);
        if (members == nullptr) { return true; }
        const std::size_t last = members->size - 1;
        for (std::size_t i = 0; i < last; ++i) { give(*members->of[i], std::as_const(message)); }
        give(*members->of[last], std::forward<U>(message));
        return true;
    }
    /// The same for `count` messages.
    template <class It>
    bool publish_some(const It& from, std::size_t count) {
        const visit here(*this);
        if (closed_.load(std::memory_order_seq_cst)) { return false; }
        const roster* const members = roster_.load(std::memory_order_seq_cst);
        for (std::size_t i = 0; members != nullptr && i < members->size; ++i) { give_some(*members->of[i], from, count); }
        return true;
    }

    void close() noexcept {
        {
            const std::lock_guard lock(mutex_);
            if (closed_.load(std::memory_order_relaxed)) { return; }
            closed_.store(true, std::memory_order_seq_cst);
            lanes_to_close_ = true;
        }
        settle();
    }

    [[nodiscard]] std::size_t members() const noexcept {
        const std::lock_guard lock(mutex_);
        return count();
    }

private:
    static constexpr bool takes_oldest = lane_type::can_fill && !is_spsc<Shape>;
    static constexpr unsigned patience = 64 + 16; // pauses, then time slices

    using publishers = turnstile<is_spsc<Shape> ? 1 : 8>;

    // Not empty; where there are no members there is no roster. Only who replaces it writes, before others see it; `next` after.
    struct roster {
        explicit roster(std::size_t n) : of(std::make_unique<std::shared_ptr<member>[]>(n)), room(n) {}
        const std::unique_ptr<std::shared_ptr<member>[]> of;
        const std::size_t room;
        std::size_t size = 0;
        roster* next = nullptr; // among those that were replaced
    };
    static void free(roster* first) noexcept {
        while (first != nullptr) { delete std::exchange(first, first->next); }
    }

    // A publisher's stay.
    class visit {
    public:
        explicit visit(topic_hub& h) noexcept : hub_(h), ticket_(h.publishers_.enter()) {}
        visit(const visit&) = delete;
        visit& operator=(const visit&) = delete;
        ~visit() {
            if (hub_.publishers_.leave(ticket_)) [[unlikely]] { hub_.settle(); }
        }

    private:
        topic_hub& hub_;
        const typename publishers::ticket ticket_;
    };

    // Those who have not left. Under the mutex.
    std::size_t count() const noexcept {
        const roster* const now = roster_.load(std::memory_order_relaxed);
        std::size_t n = 0;
        for (std::size_t i = 0; now != nullptr && i < now->size; ++i) { n += now->of[i]->left ? 0 : 1; }
        return n;
    }

    // Makes a roster of those who have not left, and of `joining` if there is one; false: closed, and nobody joins any more.
    bool replace(const std::shared_ptr<member>& joining) {
        const std::size_t more = joining != nullptr ? 1 : 0;
        for (;;) {
            const std::size_t room = members() + more;
            std::unique_ptr<roster> made(room != 0 ? new roster(room) : nullptr); // without the lock, so it may be too small by now
            const std::lock_guard lock(mutex_);
            if (joining != nullptr && closed_.load(std::memory_order_relaxed)) { return false; }
            const std::size_t needed = count() + more;
            if (needed > room) { continue; }
            roster* const old = roster_.load(std::memory_order_relaxed);
            if (needed != 0) {
                for (std::size_t i = 0; old != nullptr && i < old->size; ++i) {
                    if (!old->of[i]->left) { made->of[made->size++] = old->of[i]; }
                }
                if (joining != nullptr) { made->of[made->size++] = joining; }
            }
            roster_.store(needed != 0 ? made.release() : nullptr, std::memory_order_seq_cst);
            if (old != nullptr) { old->next = std::exchange(replaced_, old); }
            return true;
        }
    }

    // B and C of the argument above, as far as they go now. May destroy messages, and close lanes: nothing is held meanwhile.
    [[gnu::cold, gnu::noinline]] void settle() noexcept {
        roster* unread = nullptr;
        bool closing = false;
        {
            const std::lock_guard lock(mutex_);
            for (;;) {
                if (!awaits_) {
                    if (replaced_ == nullptr && !lanes_to_close_) { break; }
                    awaits_ = true;
                    awaited_ = std::exchange(replaced_, nullptr);
                    awaited_close_ = std::exchange(lanes_to_close_, false);
                    publishers_.await();
                }
                if (!publishers_.all_left()) { break; }
                awaits_ = false;
                closing |= std::exchange(awaited_close_, false);
                while (awaited_ != nullptr) {
                    roster* const moved = std::exchange(awaited_, awaited_->next);
                    moved->next = std::exchange(unread, moved);
                }
            }
        }
        if (closing) { close_lanes(); }
        free(unread); // last: with the last message, who owned this may go
    }

    // Nobody joins any more.
    void close_lanes() noexcept {
        const visit here(*this);
        const roster* const members = roster_.load(std::memory_order_seq_cst);
        for (std::size_t i = 0; members != nullptr && i < members->size; ++i) { members->of[i]->core.close(); }
    }

    template <class U>
    static void give(member& to, U&& message) {
        if constexpr (std::is_lvalue_reference_v<U> && !std::is_trivially_copyable_v<T>) {
            if (to.core.door().closed()) { return; }
            T copy(message);
            // Laundered, or g++ 12 warns that the ring, which pushes a range of one, moves from more than the one that is here.
            put(to, std::move(*std::launder(std::addressof(copy))));
        } else {
            put(to, std::forward<U>(message));
        }
    }

    template <class U>
    static void put(member& to, U&& message) {
        no_token none;
        if (to.core.put(none, std::forward<U>(message)) != look::nothing) [[likely]] { return; }
        if constexpr (lane_type::can_fill) { put_into_full(to, std::forward<U>(message)); }
    }

    template <class U>
    [[gnu::cold, gnu::noinline]] static void put_into_full(member& to, U&& message) {
        no_token none;
        for (unsigned round = 0; make_room(to, 1, round);) {
            if (to.core.put(none, std::forward<U>(message)) != look::nothing) { return; }
        }
        to.lost.fetch_add(1, std::memory_order_relaxed);
    }

    template <class It>
    static void give_some(member& to, It from, std::size_t left) {
        no_token none;
        unsigned round = 0;
        while (left != 0) {
            const look seen = to.core.put_some(none, from, left);
            if (seen == look::closed) { return; }
            if (seen == look::done) { continue; }
            if (!make_room(to, left, round)) {
                to.lost.fetch_add(left, std::memory_order_relaxed);
                return;
            }
        }
    }

    // Takes up to `n` of the oldest messages out. All places taken and no message there: others are in the middle of a move. They are given
    // 64 pauses and some time slices, and not more, for one of them may be this thread, a few calls above. False: there will be no room.
    static bool make_room(member& to, std::size_t n, unsigned& round) {
        if constexpr (!takes_oldest) {
            static_cast<void>(to), static_cast<void>(n), static_cast<void>(round);
            return false;
        } else {
            no_token none;
            discarded out;
            const std::size_t taken = to.core.take_some(none, out, n);
            to.lost.fetch_add(taken, std::memory_order_relaxed);
            if (taken != 0) { return true; }
            if (round == patience) { return false; }
            to.core.door().time().relax(round++);
            return true;
        }
    }

    // Read by publishers, written when something changes.
    alignas(128) std::atomic<roster*> roster_{nullptr};
    std::atomic<bool> closed_{false}; // set under the mutex
    clock* const clock_;

    publishers publishers_;

    mutable brief_mutex mutex_;
    roster* replaced_ = nullptr;  // since the last await()
    bool lanes_to_close_ = false; // the same
    bool awaits_ = false;         // await() was called, and all_left() has not been true since
    roster* awaited_ = nullptr;   // what can be freed then
    bool awaited_close_ = false;  // the same
};

// What a T has to be, said before anything is made of it.
template <class T>
struct topic_body {
    static_assert(std::is_object_v<T> && !std::is_const_v<T> && !std::is_array_v<T> && std::is_copy_constructible_v<T>,
                  "mailroom: the T of topic<T, transient<...>> has to be an object type that can be copied, for each subscription gets a "
                  "copy of its own: not a reference, not const, not an array; what cannot be copied goes as a std::shared_ptr<const T>");
    static_assert(!std::is_object_v<T> || std::is_nothrow_destructible_v<T>,
                  "mailroom: the destructor of the T of topic<T, transient<...>> may not throw");
};

} // namespace detail

template <class T, class Shape>
class topic<T, transient<Shape>>;

/// A subscription to a topic<T, transient<Shape>>: a lane with what was published since it was made. Ephemeral: destroyed, it is gone with
/// what is in it. May outlive its topic: then its pops drain it and answer nullopt. Threads: `pop`, `pop(stop_token)`, `try_pop`,
/// `pop_for` and `pop_many` (see queue<T, transient<...>>) from any thread at once, with spsc<N> from one at a time; destruction and moves
/// alone. Nobody may be blocked in it when it is destroyed.
template <class T, class Shape = unbounded>
class transient_subscription : public detail::lane_receiver<transient_subscription<T, Shape>, T> {
    using hub = detail::topic_hub<T, Shape>;

public:
    using value_type = T;

    transient_subscription(transient_subscription&&) noexcept = default;
    transient_subscription& operator=(transient_subscription&& other) noexcept {
        transient_subscription old(std::move(*this));
        hub_ = std::move(other.hub_);
        member_ = std::move(other.member_);
        return *this;
    }
    ~transient_subscription() {
        if (hub_ != nullptr) { hub_->leave(*member_); }
    }

    /// How many messages there were at some moment of the call, about.
    [[nodiscard]] std::size_t size_approx() const noexcept { return member_->core.lane().size_approx(); }
    /// How many messages were not given to this subscription because its lane was full. With bounded<N> the oldest of the lane (the one that
    /// was just published only if N other threads are each in the middle of putting or popping one, and stay there for microseconds); with
    /// spsc<N> the one that was just published; never any with unbounded.
    [[nodiscard]] std::uint64_t lost() const noexcept { return member_->lost.load(std::memory_order_relaxed); }

    template <class... Any>
    auto seek(Any&&...) {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto lag(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto pause(Any&&...) {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto resume(Any&&...) {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto browse(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto statistics(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto dead(Any&&...) {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto purge(Any&&...) {
        return detail::transient_verb<Any...>();
    }

private:
    friend topic<T, transient<Shape>>;
    friend detail::lane_receiver<transient_subscription, T>;

    explicit transient_subscription(std::shared_ptr<hub> h) : hub_(std::move(h)), member_(hub_->join()) {}

    typename hub::core_type& core() noexcept { return member_->core; }
    detail::no_token& in_token() noexcept { return none_; }

    std::shared_ptr<hub> hub_; // before the member: null in what was moved from
    std::shared_ptr<typename hub::member> member_;
    [[no_unique_address]] detail::no_token none_;
};

/// A topic that keeps nothing: each message is copied into the lane of every subscription there is, at most once. Threads: every member
/// from any thread at once, except destruction and moves, and except that with spsc<N> one thread publishes at a time. A T's copy constructor
/// and destructor may call any member, of this topic too; its move constructor may not publish to it.
template <class T, class Shape>
class topic<T, transient<Shape>> : detail::topic_body<T> {
    using hub = detail::topic_hub<T, Shape>;

public:
    using value_type = T;
    using subscription_type = transient_subscription<T, Shape>;

    topic() : topic(transient_options()) {}
    explicit(false) topic(transient_options options) : hub_(std::make_shared<hub>(options.clock)) {}
    topic(topic&&) noexcept = default;
    topic& operator=(topic&& other) noexcept {
        topic old(std::move(*this));
        hub_ = std::move(other.hub_);
        return *this;
    }
    ~topic() {
        if (hub_ != nullptr) { hub_->close(); }
    }

    /// Gives a copy of the message to every subscription, and never waits; with none, the message is gone. Moves from an rvalue only where it
    /// is the last subscription's. Throws error: errc::closed, and then nobody has it; what T's copy or move constructor throws, and
    /// std::bad_alloc where an unbounded lane finds no memory: then some subscriptions have it and the others never will.
    void publish(T&& message) { publish_or_throw(std::move(message)); }
    void publish(const T& message) { publish_or_throw(message); }
    /// Makes a T and publishes it.
    template <class... Args>
    requires std::constructible_from<T, Args...>
    void emplace(Args&&... args) { publish(T(std::forward<Args>(args)...)); }
    /// The same as `publish`, with errc::closed as a value. Never errc::full: a subscription without room loses a message instead.
    result<void> try_publish(T&& message) { return publish_now(std::move(message)); }
    result<void> try_publish(const T& message) { return publish_now(message); }

    /// Publishes the messages of a range in order, each as `publish` does; moves from an rvalue range that owns its elements. What was
    /// published before an exception stays published. Others' messages may come between them.
    template <std::ranges::input_range Range>
    requires std::constructible_from<T, detail::element_of<Range>>
    void publish_many(Range&& range) {
        using element = detail::element_of<Range>;
        if constexpr (std::is_trivially_copyable_v<T> && std::ranges::forward_range<Range> && std::is_reference_v<element> &&
                      std::same_as<std::remove_cvref_t<element>, T>) {
            publish_some(std::ranges::begin(range), static_cast<std::size_t>(std::ranges::distance(range)));
        } else {
            const auto end = std::ranges::end(range);
            for (auto it = std::ranges::begin(range); it != end; ++it) {
                if constexpr (detail::gives_up<Range>) {
                    publish_element(std::ranges::iter_move(it));
                } else {
                    publish_element(*it);
                }
            }
        }
    }
    void publish_many(std::initializer_list<T> messages) { publish_many(std::ranges::subrange(messages.begin(), messages.end())); }

    /// A subscription to what is published from now on. To a closed topic: one that is closed from the start, and does not count.
    [[nodiscard]] subscription_type subscribe() { return subscription_type(hub_); }
    /// How many subscriptions there are.
    [[nodiscard]] std::size_t subscribers() const noexcept { return hub_->members(); }

    /// Publishing answers errc::closed from now on; a message whose publishing runs meanwhile goes to all subscriptions or to none. When the
    /// publishers that are inside have left (now, if there are none) the subscriptions are closed: pops take what is left, then answer
    /// nullopt. Does not wait. Again: no effect. The destructor does the same.
    void close() noexcept { hub_->close(); }

    // What a lane cannot do: each of these fails to compile with one sentence. (Templates with defaults, so that braces reach them too.)
    template <class U = T, detail::is_properties P = properties, class... Any>
    auto publish(U&&, P&&, Any&&...) {
        return detail::transient_verb<U, Any...>();
    }
    template <class U = T, detail::is_properties P = properties>
    auto try_publish(U&&, P&&) {
        return detail::transient_verb<U>();
    }
    template <class U = T, detail::is_properties P = properties>
    auto publish_for(duration, U&&, P&&) {
        return detail::transient_verb<U>();
    }
    template <class U = T>
    auto publish_async(U&&) {
        return detail::transient_verb<U>();
    }
    template <class U = T, detail::is_properties P = properties>
    auto publish_async(U&&, P&&) {
        return detail::transient_verb<U>();
    }
    template <class NameOrOptions = subscribe_options<T>>
    auto subscribe(NameOrOptions&&) {
        return detail::transient_verb<NameOrOptions>();
    }
    template <class Name, class Options = subscribe_options<T>>
    auto subscribe(Name&&, Options&&) {
        return detail::transient_verb<Name>();
    }
    template <class... Any>
    auto unsubscribe(Any&&...) {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto subscriptions(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto first_offset(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto next_offset(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto statistics(Any&&...) const {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto dead(Any&&...) {
        return detail::transient_verb<Any...>();
    }
    template <class... Any>
    auto drain(Any&&...) {
        return detail::transient_verb<Any...>();
    }

private:
    template <class U>
    void publish_or_throw(U&& message) {
        if (!hub_->publish(std::forward<U>(message))) [[unlikely]] { refuse(); }
    }
    template <class U>
    result<void> publish_now(U&& message) {
        if (!hub_->publish(std::forward<U>(message))) { return errc::closed; }
        return {};
    }
    template <class Element>
    void publish_element(Element&& element) {
        if constexpr (std::same_as<std::remove_cvref_t<Element>, T>) {
            publish(std::forward<Element>(element));
        } else {
            publish(T(std::forward<Element>(element)));
        }
    }
    template <class It>
    void publish_some(It from, std::size_t count) {
        if (!hub_->publish_some(from, count)) { refuse(); }
    }
    [[noreturn]] static void refuse() { detail::fail(errc::closed, "the topic is closed"); }

    std::shared_ptr<hub> hub_; // null in what was moved from
};

} // namespace mailroom
