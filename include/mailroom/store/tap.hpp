// tap<T>: one subscription's cursor over one partition.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/store/link.hpp>
#include <mailroom/store/outlet.hpp>
#include <mailroom/store/partition.hpp>
#include <mailroom/store/recorded.hpp>
#include <mailroom/store/source.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// What a tap asks of its subscription.
template <class T>
class tap_owner : public source_base {
public:
    virtual bool is_gone() const noexcept = 0;
    /// So many receivers may be woken; all of them, and all who watch.
    virtual void wake_receivers(std::size_t n) noexcept = 0;
    virtual void wake_all() noexcept = 0;
    virtual void wake_watchers() noexcept = 0;
    virtual bool someone_waits() const noexcept = 0;
    /// What the filter says.
    virtual bool lets_through(const T& body, const envelope* cover) noexcept = 0;
    /// So much is settled: bounds.
    virtual bool is_counted() const noexcept = 0;
    virtual void left(std::int64_t messages, std::int64_t bytes) noexcept = 0;

protected:
    ~tap_owner() = default;
};

/// Where a reader is to begin: `places` are those it is given below `until`; empty and `until` 0: all.
struct beginning {
    offset at = 0;
    offset until = 0;
    std::vector<offset> places;
};

template <class T>
class tap final : public outlet<T, tap<T>>, private bell {
    using outlet_of = outlet<T, tap<T>>;
    friend outlet_of;
    using outlet_of::cursor_;
    static constexpr bool shares = true;

public:
    /// With a link, what it settles is noted in a journal.
    tap(tap_owner<T>& owner, partition<T>& from, cursor_options o, beginning&& where, std::unique_ptr<link<T>> noted = nullptr)
        : outlet_of(from.time_of().clock(), with_begin(o, where.at, from.journal() != nullptr, noted != nullptr)), owner_(owner), from_(from),
          is_filtered_(o.filtered), is_counted_(owner.is_counted()), noted_(std::move(noted)) {
        from_.log().admit(where.at);
        try {
            leave_out_holes(where);
        } catch (...) {
            from_.doom_all(from_.log().dismiss(where.at));
            throw;
        }
        chosen_ = std::move(where.places);
        chosen_until_ = where.until;
    }
    /// What was out is back, and the last reference to the subscription gone.
    ~tap() {
        cursor_.clear();
        from_.reap();
    }

    /// Takes up what was noted before. May throw std::bad_alloc.
    void restore() {
        if (noted_ == nullptr) { return; }
        count_by(*noted_, cursor_);
        cursor_.restore(noted_->tried_until());
        if (const auto before = noted_->times_before(); before.until != 0) { cursor_.note_timed(before.until - 1, before.expiry); }
        claim_in_doubt(*noted_, cursor_, *this, this->dead_);
    }

    template <class Sink>
    std::size_t take(std::size_t max, Sink& sink, std::uint32_t claimant) {
        if (from_.journal() == nullptr) {
            return reaped([&] { return outlet_of::take(max, sink, claimant); });
        }
        std::vector<std::byte> steps;
        const auto noting = [&](const auto& made) {
            if (noted_ != nullptr) { note_suspect(*noted_, made.at.place, made.at.attempt, steps); }
            sink(made);
        };
        const std::size_t n = reaped([&] { return from_journal(*from_.journal(), [&] { return outlet_of::take(max, noting, claimant); }); });
        if (!steps.empty()) { noted_->note_deliveries(steps); }
        return n;
    }
    template <class Sink>
    std::size_t pop(std::size_t max, Sink& sink, std::uint32_t claimant) {
        return reaped([&] { return stored_or_not([&] { return outlet_of::pop(max, sink, claimant); }); });
    }
    template <class Fn>
    std::size_t pop_each(std::size_t max, Fn& fn, std::uint32_t claimant) {
        return reaped([&] { return stored_or_not([&] { return outlet_of::pop_each(max, fn, claimant); }); });
    }

    /// What was noted of before.
    const link_base* noted() const noexcept { return noted_.get(); }
    partition<T>& from() const noexcept { return from_; }
    bool may_have() const noexcept { return cursor_.may_have(from_.log().head()) || has_pending(); }
    bool may_have(std::uint32_t claimant) noexcept { return cursor_.may_have(from_.log().head(), claimant) || has_pending(); }
    std::size_t backlog() const noexcept {
        const offset head = from_.log().head(), next = cursor_.next();
        return head > next ? static_cast<std::size_t>(head - next) : 0;
    }

    /// The subscription ends: nothing is handed out any more, and what was not read is left. `refer(n)`: so many deliveries are out.
    template <class Refer>
    void end(Refer refer) noexcept {
        silence();
        cursor_.orphan(refer);
        if (noted_ != nullptr) { noted_->leave(); }
        from_.doom_all(from_.log().dismiss(cursor_.opened_until()));
        from_.reap();
    }

    /// Throws std::bad_alloc; then nothing has changed.
    void seek(beginning&& to) {
        // For a while it is two readers: the blocks it is to read stay, whatever it leaves.
        from_.log().admit(to.at);
        offset leaves_from = to.at;
        try {
            leave_out_holes(to);
            cursor_.seek(to.at, [&](offset from, offset opened_until) noexcept {
                // What was not read is over; what will be read has to be settled, perhaps once more.
                const offset head = from_.log().head(); // what is published from here on has to be settled in any case
                const auto before = outstanding(from, head);
                if (noted_ != nullptr) { noted_->moved(to.places, to.until, to.at); }
                chosen_ = std::move(to.places);
                chosen_until_ = to.until;
                const auto after = outstanding(to.at, head);
                if (is_counted_) { // at once: in between there must not seem to be room
                    owner_.left(static_cast<std::int64_t>(before.first - after.first), static_cast<std::int64_t>(before.second - after.second));
                }
                leaves_from = opened_until;
            });
        } catch (...) {
            from_.doom_all(from_.log().dismiss(leaves_from));
            throw;
        }
        from_.doom_all(from_.log().dismiss(leaves_from));
        from_.reap();
    }

    /// Messages from where it stands to the end, and their bytes.
    std::pair<std::uint64_t, std::uint64_t> outstanding(offset from) const noexcept { return outstanding(from, from_.log().head()); }
    std::pair<std::uint64_t, std::uint64_t> outstanding(offset from, offset head) const noexcept {
        return {from < head ? head - from - count_absent(from, head) : 0, from < head ? weigh(from, head) : 0};
    }

    // ------------------------------------------------------------------------------------------------------------------------ waiting

    /// Somebody waits: the log is to ring. Otherwise than by a ring nobody learns of what is published from now on.
    void listen() noexcept {
        const std::lock_guard lock(ringing_);
        if (armed_ || silent_) { return; }
        armed_ = true;
        owner_.refer();
        from_.arm(*this);
    }

private:
    // Whether messages were published that are not visible yet.
    bool has_pending() const noexcept { return from_.journal() != nullptr && from_.journal()->has_pending(); }
    template <class Take>
    std::size_t reaped(Take take) {
        const std::size_t n = take();
        from_.reap();
        return n;
    }
    template <class Take>
    std::size_t stored_or_not(Take take) {
        return from_.journal() != nullptr ? from_journal(*from_.journal(), take) : take();
    }
    static cursor_options with_begin(cursor_options o, offset begin, bool is_loaded, bool is_noted) noexcept {
        o.begin = begin;
        o.loaded = is_loaded;
        o.recorded = is_noted;
        o.shares_bodies = true;
        return o;
    }

    // Of blocks that are gone nothing is chosen. From here on, none goes: this is their tenant. Throws std::bad_alloc.
    void leave_out_holes(beginning& where) {
        const offset gone = from_.log().gone_until();
        if (where.at >= gone) { return; }
        const auto is_hole = [this](offset o) { return from_.log().peek(o - index_in_span(o)) == nullptr; };
        std::erase_if(where.places, [&](offset o) { return o < gone && is_hole(o); });
        const offset all_from = std::max(where.at, where.until);
        if (all_from >= gone) { return; }
        for (offset base = all_from - index_in_span(all_from); base < gone; base += span) {
            if (is_hole(base)) { continue; }
            for (offset o = std::max(base, all_from); o < base + span; ++o) { where.places.push_back(o); }
        }
        where.until = gone;
    }
    void ring(std::size_t n) noexcept override {
        {
            const std::lock_guard lock(ringing_);
            armed_ = false;
        }
        if (!owner_.is_gone()) {
            owner_.wake_receivers(n);
            if (owner_.someone_waits()) {
                listen();
                // Who published in between found no bell. Nobody knows how much of what is there has been told to whom: some may wake in vain.
                if (const std::size_t there = backlog(); there != 0) { owner_.wake_receivers(there); }
            }
        }
        owner_.unrefer();
    }
    void silence() noexcept {
        bool mine = false;
        {
            const std::lock_guard lock(ringing_);
            silent_ = true;
            mine = armed_ && from_.disarm(*this);
            if (mine) { armed_ = false; }
        }
        if (mine) { owner_.unrefer(); }
    }

    // What the outlet asks for.

    stream<T>& log() noexcept { return from_.log(); }
    const stream<T>& log() const noexcept { return from_.log(); }
    const timing& time_of() const noexcept { return from_.time_of(); }
    int partition_number() const noexcept { return from_.number(); }
    link_base* journal() const noexcept { return noted_.get(); }
    settler_home settlements() const noexcept {
        if (from_.journal() == nullptr) { return {}; }
        return {from_.journal()->home().journal, noted_ != nullptr ? noted_->home().changes : nullptr};
    }
    bool is_gone() const noexcept { return owner_.is_gone(); }
    void refer() noexcept { owner_.refer(); }
    void unrefer() noexcept { owner_.unrefer(); }
    void wake_all() noexcept { owner_.wake_all(); }
    bool filters() const noexcept { return is_filtered_; }
    bool lets_through(const T& value, const envelope* cover) noexcept { return owner_.lets_through(value, cover); }
    void many_left(const block<T>& b, std::uint32_t mask) noexcept {
        if (noted_ != nullptr) {
            for (std::uint64_t left = mask; left != 0;) { // row by row
                const int first = std::countr_zero(left), n = std::countr_one(left >> first);
                noted_->settled(b.first + static_cast<offset>(first), static_cast<std::uint64_t>(n));
                left &= ~std::uint64_t{0} << (first + n);
            }
        }
        if (is_counted_) {
            std::uint64_t bytes = 0;
            for (std::uint32_t left = mask; left != 0; left &= left - 1) { bytes += b.size_of(static_cast<std::uint32_t>(std::countr_zero(left))); }
            owner_.left(std::popcount(mask), static_cast<std::int64_t>(bytes));
        }
    }
    void plain_left(const block<T>& b, std::uint32_t i) noexcept {
        if (noted_ != nullptr) { noted_->settled(b.first + i); }
        if (is_counted_) { owner_.left(1, static_cast<std::int64_t>(b.size_of(i))); }
    }

    // What the cursor asks for, as far as the outlet does not answer it.

    void* block_of(offset first) override { return from_.open(first); }
    std::uint32_t absent(offset first, const void* b) const noexcept override {
        if (b == nullptr) { return ~std::uint32_t{0}; }
        if (first >= chosen_until_) { return 0; }
        std::uint32_t mask = 0;
        auto next = std::lower_bound(chosen_.begin(), chosen_.end(), first);
        for (std::uint32_t i = 0; i < span && first + i < chosen_until_; ++i) {
            if (next != chosen_.end() && *next == first + i) {
                ++next;
            } else {
                mask |= std::uint32_t{1} << i;
            }
        }
        return mask;
    }
    std::uint64_t count_absent(offset first, offset last) const noexcept override {
        if (first >= chosen_until_) { return 0; }
        const offset until = std::min(last, chosen_until_);
        const auto from = std::lower_bound(chosen_.begin(), chosen_.end(), first), to = std::lower_bound(from, chosen_.end(), until);
        return (until - first) - static_cast<std::uint64_t>(to - from);
    }
    offset all_from(offset next, std::vector<offset>& between) const override {
        if (next >= chosen_until_) { return next; }
        between.insert(between.end(), std::lower_bound(chosen_.begin(), chosen_.end(), next), chosen_.end());
        return std::min(chosen_until_, from_.log().head());
    }
    bool wants(const entry& e) noexcept override { return lets_through(*static_cast<const T*>(e.body), e.cover); }
    void record(const entry& e, cursor_host::fate f, duration when) noexcept override { record_fate(*noted_, time_of(), e, f, when); }
    bool recall(entry& e, bool& dead, duration& when) noexcept override { return recall_fate(*noted_, time_of(), e, dead, when); }
    std::uint64_t weigh(offset first, offset last) const noexcept override {
        if (from_.journal() != nullptr && !is_counted_) { return first < last ? (last - first - count_absent(first, last)) * sizeof(T) : 0; }
        if constexpr (!sizes<T>::varies) {
            return (last - first - (last > first ? count_absent(first, last) : 0)) * sizeof(T);
        } else {
            std::uint64_t sum = 0;
            for (offset o = first; o < last;) {
                const offset base = o - index_in_span(o), end = std::min(last, base + span);
                block<T>* b = nullptr;
                try {
                    b = from_.journal() != nullptr ? from_.open(base) : from_.log().visit(base);
                } catch (...) {} // no memory: it weighs nothing
                if (b != nullptr) {
                    const std::uint32_t gone = absent(base, b);
                    for (; o < end; ++o) {
                        const std::uint32_t i = index_in_span(o);
                        if (from_.journal() != nullptr) { from_.log().written(*b, i, time_of().clock()); }
                        if ((gone >> i & 1u) == 0 && b->slots[i].ready.load(std::memory_order_acquire) != slot_empty) { sum += b->size_of(i); }
                    }
                    from_.leave(b);
                }
                o = end;
            }
            return sum;
        }
    }
    void release_block(offset, void* b) noexcept override {
        if (b != nullptr) { from_.leave(static_cast<block<T>*>(b)); }
    }
    void detach_block(offset, void*) noexcept override {} // the log forgets blocks by itself
    void forget(const envelope&, offset) noexcept override {}
    void remember(const envelope&, offset) noexcept override {}
    void settled(std::int64_t messages, std::int64_t bytes) noexcept override {
        if (is_counted_) { owner_.left(messages, bytes); }
    }
    void wake(std::size_t n) noexcept override {
        if (n == std::numeric_limits<std::size_t>::max()) {
            owner_.wake_all();
        } else {
            owner_.wake_receivers(n);
        }
    }
    void somebody_died() noexcept override { owner_.wake_watchers(); }

    tap_owner<T>& owner_;
    partition<T>& from_;
    const bool is_filtered_;
    const bool is_counted_;
    const std::unique_ptr<link<T>> noted_; // or nullptr
    std::vector<offset> chosen_;           // guarded by the cursor's mutex, as `absent` is called under it
    offset chosen_until_;

    std::mutex ringing_;
    bool armed_ = false;  // the bell is in the log's list, or about to be rung
    bool silent_ = false; // it will not be again
};

} // namespace mailroom::detail
