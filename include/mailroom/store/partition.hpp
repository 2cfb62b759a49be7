// partition<T>: one log of a topic: its stream, what is retained of it, and who is to be woken when it grows.
//
// Who holds what. Each reader is a tenant of the blocks it has not left (stream/stream.hpp), and so is the partition itself: it retains a
// block until no rule wants it any more, and at least until it is written. The last tenant to leave dooms the block; its messages end, and
// it is recycled, when somebody calls in without a lock (`reap`), for a message's destructor is foreign code.
//
// Compaction. A block that only the rule "the last of each key" wants is kept as long as one of its messages is the last of its key. A reader
// that begins in the past is given those alone: see `last_of_keys`.
//
// Waking. A reader whose subscription has somebody waiting puts its bell into `bells_`, and the stream's head says that there is one. Who
// publishes takes them out and rings them; a bell whose subscription still waits after that puts itself in again, and looks at what is there:
// in between nobody rings. So publishing costs nothing for readers that do not wait.
//
// Locks: `mutex_` (retention) before the stream's. Foreign code runs under neither.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/wait.hpp>
#include <mailroom/cursor/deduplication.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/byte_ledger.hpp>
#include <mailroom/store/intake.hpp>
#include <mailroom/store/quota.hpp>
#include <mailroom/store/timing.hpp>
#include <mailroom/stream/stream.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// A place in a topic as one number, as deduplication and the intake pass it around.
inline constexpr unsigned place_bits = 48;
inline constexpr offset packed(int partition, offset o) noexcept { return static_cast<offset>(partition) << place_bits | o; }
inline constexpr position unpacked(offset place) noexcept { return {static_cast<int>(place >> place_bits), place & ((offset{1} << place_bits) - 1)}; }

/// What a partition asks of its topic, where readers are concerned.
class partition_owner {
public:
    virtual duration next_due() const noexcept = 0;
    virtual void catch_up() noexcept = 0;
    virtual bool make_room(std::size_t n, std::size_t bytes) noexcept = 0;
    virtual void note_timed(int partition, offset o, duration expires) noexcept = 0;
    /// From where on ephemeral subscriptions need what is stored: nobody else knows of them.
    virtual offset held_from(int partition) noexcept = 0;
    /// Keeps the topic, until the same number of `let_go`.
    virtual void hold() noexcept = 0;
    virtual void let_go() noexcept = 0;

protected:
    ~partition_owner() = default;
};

/// What all partitions of a topic share.
struct topic_common {
    topic_common(const quota::limits& l, mailroom::clock* c) : time(c), room(l) {}
    timing time;
    quota room;
    std::unique_ptr<deduplicator> ids;
    producer_table numbers;
};

/// A reader that waits for a log to grow.
class bell : public waiter {
public:
    /// The log has grown by `n`, at least. Called without a lock.
    virtual void ring(std::size_t n) noexcept = 0;

protected:
    bell() noexcept : waiter(nullptr) {}
    ~bell() = default;
};

template <class T>
class partition final : public intake<T, partition<T>>, private retention_rule {
    friend intake<T, partition<T>>;
    friend mailroom::detail::lot<T, partition<T>>;
    using intake<T, partition<T>>::stream_;
    using slot_block = block<T>;

public:
    /// With a link its messages are stored in a journal.
    partition(partition_owner& owner, topic_common& common, int number, const mailroom::retention& rules, std::unique_ptr<link<T>> stored = nullptr)
        : intake<T, partition<T>>(stream<T>::readers::many, stored.get()), owner_(owner), common_(common), number_(number), rules_(rules),
          link_(std::move(stored)) {
        if (link_ != nullptr) { link_->retain_from(0); } // all, until it is known what
    }
    /// Readers are gone by now.
    ~partition() {
        reap();
        stream_.each_block([this](slot_block& b) { end_messages(b); });
    }

    int number() const noexcept { return number_; }
    link<T>* journal() const noexcept { return link_.get(); }
    // What its link asks of it.
    stream<T>& messages() noexcept { return stream_; }
    void arrived(std::size_t n) noexcept {
        constexpr offset now_and_then = 1024; // it may have to look at what is stored
        if (rules_.compact) { look_on(n); }
        const offset head = stream_.head();
        offset before = trimmed_at_.load(std::memory_order_relaxed);
        if (head - before >= now_and_then && trimmed_at_.compare_exchange_strong(before, head, std::memory_order_relaxed)) { trim_stored(); }
        reap();
        wake(n);
    }
    void refer() noexcept { owner_.hold(); }
    void unrefer() noexcept { owner_.let_go(); }
    void shut() noexcept {}
    /// Takes up what is stored. What the rules retain of it, by keys or bytes, is found out little by little.
    void restore() {
        const offset head = stream_.head();
        this->restore_refused();
        known_until_.store(std::min(link_->first_stored(), head), std::memory_order_release);
        trimmed_at_.store(head, std::memory_order_relaxed);
        if (rules_.compact) { link_->retain_also(*this); }
        if (rules_.bytes == 0) {
            trim_stored();
        } else {
            link_->retain_from(known_until_.load(std::memory_order_relaxed));
        }
    }
    stream<T>& log() noexcept { return stream_; }
    const stream<T>& log() const noexcept { return stream_; }
    const timing& time_of() const noexcept { return common_.time; }
    std::uint64_t duplicates() const noexcept { return this->duplicates_.load(std::memory_order_relaxed); }
    std::uint64_t dropped() const noexcept { return this->dropped_newest_.load(std::memory_order_relaxed); }

    // ----------------------------------------------------------------------------------------------------------------------- readers

    /// The first offset that the limits retain at time `now`; what readers hold, or compaction keeps, may lie before.
    offset retained_from(duration now) {
        const std::lock_guard lock(mutex_);
        return link_ != nullptr ? first_retained_stored(now, std::numeric_limits<std::size_t>::max()) : first_retained(now);
    }
    /// Before this, nothing is there.
    offset lowest() noexcept { return link_ != nullptr ? link_->first_stored() : stream_.lowest(); }
    bool compacts() const noexcept { return rules_.compact; }
    /// The last of each key in [first, last) among those for which `counts(offset)` holds, in order. Looks at every message there.
    template <class Counts>
    std::vector<offset> last_of_keys(offset first, offset last, Counts counts) {
        std::unordered_map<std::string, offset> newest;
        look_through(first, last, [&](offset o, const slot_block& b, std::uint32_t i) {
            if (!counts(o)) { return true; }
            const envelope* const e = b.enveloped(b.slots[i].ready.load(std::memory_order_relaxed));
            if (e != nullptr && !e->props.key.empty()) { newest[e->props.key] = o; }
            return true;
        });
        std::vector<offset> places;
        for (const auto& [key, o] : newest) { places.push_back(o); }
        std::sort(places.begin(), places.end());
        return places;
    }

    /// The same of all that is there. May throw std::bad_alloc.
    std::vector<offset> last_of_keys() {
        if (link_ == nullptr) {
            return last_of_keys(lowest(), stream_.head(), [](offset) { return true; });
        }
        find_retained();
        const std::lock_guard lock(lasts_mutex_);
        return {lasts_.begin(), lasts_.end()};
    }

    /// Calls `fn(offset, const block<T>&, slot index)` for each message that is there in [first, last), in order, as long as it answers true.
    /// Without foreign code; who calls it without a lock reaps afterwards.
    template <class Fn>
    void look_through(offset first, offset last, Fn fn) {
        for (offset o = first; o < last;) {
            const offset base = o - index_in_span(o);
            const offset end = std::min(last, base + span);
            bool more = true;
            if (slot_block* const b = stream_.is_loaded() ? stream_.open(base, time_of().coarse()) : stream_.visit(base)) {
                for (; o < end && more; ++o) {
                    const std::uint32_t i = index_in_span(o);
                    if (stream_.written(*b, i, time_of().clock()) != slot_lost) { more = fn(o, std::as_const(*b), i); }
                }
                leave(b);
            }
            if (!more) { return; }
            o = end;
        }
    }

    /// The block of a reader, which stays until he leaves it. May throw std::bad_alloc where messages are loaded.
    slot_block* open(offset first) { return stream_.is_loaded() ? stream_.open(first, time_of().coarse()) : stream_.peek(first); }
    /// Leaves a block, which may end with that at the next `reap`.
    void leave(slot_block* b) noexcept {
        if (stream_.leave(b)) { doom(b); }
    }
    /// Several, chained, that nobody needs any more.
    void doom_all(slot_block* chain) noexcept {
        while (chain != nullptr) { doom(std::exchange(chain, chain->next_free)); }
    }
    /// Ends the messages nobody needs any more. Runs their destructors: without a lock.
    void reap() noexcept {
        if (doomed_.load(std::memory_order_relaxed) != nullptr) [[unlikely]] { reap_doomed(); }
    }
    [[gnu::cold, gnu::noinline]] void reap_doomed() noexcept {
        for (slot_block* b = doomed_.exchange(nullptr, std::memory_order_acquire); b != nullptr;) {
            slot_block* const next = b->next_free;
            end_messages(*b);
            stream_.recycle(b);
            b = next;
        }
    }

    // ------------------------------------------------------------------------------------------------------------------------- bells

    /// Puts a bell in, which is not in. Who looks at the head after that misses nothing.
    void arm(bell& b) noexcept {
        bells_.add(b, [this] { stream_.announce_waiter(); });
    }
    /// Takes it out. False: somebody is ringing it.
    bool disarm(bell& b) noexcept {
        return bells_.remove(b, [this] { stream_.nobody_waits(); });
    }

    /// Lets go of what no rule retains. Called now and then by whoever publishes.
    void trim() noexcept {
        if (link_ != nullptr) {
            trim_stored();
            return;
        }
        {
            const std::unique_lock lock(mutex_, std::try_to_lock);
            if (lock.owns_lock()) { trim_locked(time_of().coarse()); }
        }
        reap();
    }

private:
    // What the intake asks for.

    bool is_visible(offset place) const noexcept { return unpacked(place).partition != number_ || unpacked(place).offset < stream_.head(); }
    static constexpr void left_empty(std::size_t) noexcept {}
    quota& room() noexcept { return common_.room; }
    deduplicator* known_ids() noexcept { return common_.ids.get(); }
    producer_table& producers() noexcept { return common_.numbers; }
    offset named(offset o) const noexcept { return packed(number_, o); }
    void wake(std::size_t n) noexcept {
        partition_owner& owner = owner_;
        owner.hold(); // what is woken may be the topic's end
        for (std::size_t left = bells_.size(); left != 0; --left) {
            waiter* const w = bells_.take([this] { stream_.nobody_waits(); });
            if (w == nullptr) { break; }
            static_cast<bell*>(w)->ring(n);
        }
        owner.let_go();
    }
    duration next_due() const noexcept { return owner_.next_due(); }
    void catch_up() noexcept { owner_.catch_up(); }
    bool make_room(std::size_t n, std::size_t bytes) noexcept { return owner_.make_room(n, bytes); }
    void note_timed(offset o, duration expires) noexcept { owner_.note_timed(number_, o, expires); }
    void appended(offset first, std::size_t n) noexcept {
        if (index_in_span(first) + n >= span) [[unlikely]] { trim(); }
    }

    void doom(slot_block* b) noexcept {
        b->next_free = doomed_.load(std::memory_order_relaxed);
        while (!doomed_.compare_exchange_weak(b->next_free, b, std::memory_order_release, std::memory_order_relaxed)) {}
    }
    void end_messages(slot_block& b) noexcept {
        for (std::uint32_t i = 0; i < span; ++i) {
            if (b.slots[i].ready.load(std::memory_order_acquire) != slot_empty) { end_message(b, i); }
        }
    }
    void end_message(slot_block& b, std::uint32_t i) noexcept {
        const envelope* const e = b.enveloped(b.slots[i].ready.load(std::memory_order_relaxed));
        if (e != nullptr && link_ == nullptr && common_.ids != nullptr && !e->props.id.empty()) {
            common_.ids->settled(e->props.id, named(b.first + i), time_of().now());
        }
        b.end(i);
    }

    // ---------------------------------------------------------------------------------------------------- retention of what is stored

    // Tells the journal what is to be kept.
    void trim_stored() noexcept {
        const offset held = owner_.held_from(number_);
        offset from = no_offset;
        if (has_limits()) {
            const std::lock_guard lock(mutex_);
            try {
                constexpr std::size_t a_few = 4;
                from = first_retained_stored(time_of().now(), a_few);
            } catch (...) { return; } // no memory: more is kept
        }
        if (rules_.compact) { from = std::min(from, known_until_.load(std::memory_order_acquire)); }
        link_->retain_from(std::min(from, held));
    }

    // Keys of what is stored are looked at in order, a few at a time, by whoever publishes, or all of them, by whoever has to know. What has not been looked
    // at is retained.
    void look_on(std::size_t n) noexcept {
        constexpr offset a_few = 4 * span;
        const offset known = known_until_.load(std::memory_order_relaxed);
        if (stream_.head() - known < 2 * a_few) { return; }
        const std::unique_lock lock(looking_, std::try_to_lock);
        if (!lock.owns_lock()) { return; }
        try {
            look_at_keys(known + std::max<offset>(a_few, 2 * n));
        } catch (...) {} // no memory: the next one goes on
    }
    void find_retained() override {
        if (rules_.compact) {
            const std::lock_guard lock(looking_);
            look_at_keys(stream_.head());
        }
        trim_stored();
    }
    // With `looking_`. May throw std::bad_alloc.
    void look_at_keys(offset until) {
        until = std::min(until, stream_.head());
        const offset from = std::max(known_until_.load(std::memory_order_relaxed), link_->first_stored());
        link_->each_properties(from, until, [this](offset o, const properties& props) {
            if (props.key.empty()) { return; }
            offset& last = last_of_.try_emplace(props.key, o).first->second;
            const std::lock_guard lock(lasts_mutex_);
            lasts_.insert(o);
            if (last != o) { lasts_.erase(std::exchange(last, o)); }
        });
        known_until_.store(std::max(from, until), std::memory_order_release);
    }
    offset next_retained(offset o) noexcept override {
        const std::lock_guard lock(lasts_mutex_); // the journal's lock is held: none that is held while the journal is asked
        const auto at = lasts_.lower_bound(o);
        return at != lasts_.end() ? *at : no_offset;
    }
    duration sent_at(offset o) {
        duration when = duration::max();
        look_through(o, o + 1, [&](offset, const slot_block& b, std::uint32_t i) {
            when = b.sent(b.slots[i].ready.load(std::memory_order_relaxed));
            return false;
        });
        return when;
    }
    // `most`: so many chunks of what it has never looked at may be measured.
    offset first_retained_stored(duration now, std::size_t most) {
        const offset head = stream_.head();
        if (!has_limits()) { return head; }
        offset first = rules_.messages != 0 && head > rules_.messages ? head - rules_.messages : 0;
        first = std::max({first, kept_from_, std::min(link_->first_stored(), head)});
        if (rules_.age > duration::zero()) { // times rise with the offsets, but for the clocks of several senders
            offset low = first, high = head;
            while (low < high) {
                const offset middle = low + (high - low) / 2;
                const duration sent = sent_at(middle);
                if (sent != duration::max() && now - sent >= rules_.age) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            first = low;
        }
        if (rules_.bytes != 0) {
            first = bytes_.first_within(rules_.bytes, first, head, most, [this](offset from, offset until, auto tell) {
                this->look_through(from, until, [&](offset o, const slot_block& b, std::uint32_t i) {
                    tell(o, b.size_of(i));
                    return true;
                });
            });
        }
        kept_from_ = std::max(kept_from_, first);
        return first;
    }

    // --------------------------------------------------------------------------------------------------- retention, under `mutex_`

    bool is_written(const slot_block& b) const noexcept {
        return std::all_of(b.slots.begin(), b.slots.end(), [](const auto& s) { return s.ready.load(std::memory_order_acquire) != slot_empty; });
    }
    static std::uint64_t bytes_in(const slot_block& b) noexcept {
        std::uint64_t sum = 0;
        for (std::uint32_t i = 0; i < span; ++i) { sum += b.size_of(i); }
        return sum;
    }
    bool has_limits() const noexcept { return rules_.messages != 0 || rules_.bytes != 0 || rules_.age > duration::zero(); }

    // The block of a span this partition is a tenant of.
    slot_block* mine(std::uint64_t s) const noexcept { return stream_.peek(s << span_bits); }

    void trim_locked(duration now) noexcept {
        const offset head = stream_.head();
        while (((sealed_ + 1) << span_bits) <= head) {
            slot_block* const b = mine(sealed_);
            if (!is_written(*b)) { break; }
            try {
                if (rules_.compact) { note_keys(*b); }
            } catch (...) { break; } // no memory: at the next block
            if (rules_.bytes != 0) { sealed_bytes_ += bytes_in(*b); }
            ++sealed_;
        }
        while (retained_ < sealed_) {
            slot_block* const b = mine(retained_);
            const std::uint64_t bytes = rules_.bytes != 0 ? bytes_in(*b) : 0;
            if (is_within(*b, retained_, head, sealed_bytes_ - bytes, now)) { break; }
            if (rules_.compact && keep_last(*b)) {
                // It goes on in `compacted_`.
            } else {
                release(b);
            }
            sealed_bytes_ -= bytes;
            ++retained_;
        }
        if (rules_.compact) { leave_superseded(); }
    }

    // Whether the limits want any message of a written block, when so many bytes lie behind it.
    bool is_within(const slot_block& b, std::uint64_t s, offset head, std::uint64_t behind, duration now) const noexcept {
        if (!has_limits()) { return false; }
        if (rules_.messages != 0 && head - ((s + 1) << span_bits) >= rules_.messages) { return false; }
        if (rules_.bytes != 0 && behind >= rules_.bytes) { return false; }
        if (rules_.age > duration::zero()) {
            duration newest = duration::min();
            for (const auto& slot : b.slots) { newest = std::max(newest, b.sent(slot.ready.load(std::memory_order_relaxed))); }
            if (now - newest >= rules_.age) { return false; }
        }
        return true;
    }

    offset first_retained(duration now) noexcept {
        const offset head = stream_.head();
        if (!has_limits()) { return head; }
        offset first = rules_.messages != 0 && head > rules_.messages ? head - rules_.messages : 0;
        first = std::max(first, retained_ << span_bits); // from here on blocks are ours
        const auto block_at = [this](offset o) -> const slot_block& {
            const slot_block& b = *mine(span_of(o));
            wait_until_written(b.slots[index_in_span(o)], time_of().clock());
            return b;
        };
        if (rules_.age > duration::zero()) {
            while (first < head) {
                const slot_block& b = block_at(first);
                if (now - b.sent(b.slots[index_in_span(first)].ready.load(std::memory_order_relaxed)) < rules_.age) { break; }
                ++first;
            }
        }
        if (rules_.bytes != 0) {
            std::uint64_t sum = 0;
            for (offset o = head; o > first; --o) {
                sum += block_at(o - 1).size_of(index_in_span(o - 1));
                if (sum > rules_.bytes) { return o; }
            }
        }
        return first;
    }

    void note_keys(const slot_block& b) {
        const offset base = sealed_ << span_bits;
        for (std::uint32_t i = 0; i < span; ++i) {
            const envelope* const e = b.enveloped(b.slots[i].ready.load(std::memory_order_relaxed));
            if (e != nullptr && !e->props.key.empty()) { last_of_[e->props.key] = base + i; }
        }
    }
    // Whether a block that the limits do not want holds the last message of some key: then it is kept among the compacted.
    bool keep_last(slot_block& b) noexcept {
        if (!holds_last(b, retained_ << span_bits)) { return false; }
        try {
            compacted_.push_back(&b);
            stream_.seal(&b);
        } catch (...) { return false; } // no memory to keep it with
        return true;
    }
    bool holds_last(const slot_block& b, offset base) const noexcept {
        for (std::uint32_t i = 0; i < span; ++i) {
            const envelope* const e = b.enveloped(b.slots[i].ready.load(std::memory_order_relaxed));
            if (e == nullptr || e->props.key.empty()) { continue; }
            const auto at = last_of_.find(e->props.key);
            if (at != last_of_.end() && at->second == base + i) { return true; }
        }
        return false;
    }
    // Goes through some of the compacted blocks, in turn.
    void leave_superseded() noexcept {
        for (std::size_t n = std::min(compacted_.size(), 4 + compacted_.size() / 8); n != 0; --n) {
            if (compact_next_ >= compacted_.size()) { compact_next_ = 0; }
            slot_block* const b = compacted_[compact_next_];
            if (holds_last(*b, b->first)) {
                ++compact_next_;
            } else {
                compacted_.erase(compacted_.begin() + static_cast<std::ptrdiff_t>(compact_next_));
                release(b);
            }
        }
    }
    void release(slot_block* b) noexcept {
        stream_.seal(b);
        leave(b);
    }

    partition_owner& owner_;
    topic_common& common_;
    const int number_;
    const mailroom::retention rules_;
    wait_list bells_;
    std::atomic<slot_block*> doomed_{nullptr};

    std::mutex mutex_;                                // retention: all below
    std::uint64_t retained_ = 0;                      // spans from here on are retained, or not looked at yet
    std::uint64_t sealed_ = 0;                        // spans below are written, and were looked at
    std::uint64_t sealed_bytes_ = 0;                  // of [retained_, sealed_)
    std::unordered_map<std::string, offset> last_of_; // the last message of each key, of what is sealed
    std::vector<slot_block*> compacted_;              // what only the last messages of keys keep, in order
    std::size_t compact_next_ = 0;

    const std::unique_ptr<link<T>> link_; // or nullptr: in memory
    std::atomic<offset> trimmed_at_{0};
    offset kept_from_ = 0;
    byte_ledger bytes_;
    std::mutex looking_;                 // with it, `last_of_` where messages are stored
    std::atomic<offset> known_until_{0}; // whose keys are known
    std::mutex lasts_mutex_;
    std::set<offset> lasts_; // the last message of each key
};

} // namespace mailroom::detail
