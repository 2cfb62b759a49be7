// lot_base: the messages a transaction sends to one log, on their way in together with other lots. What is the same for every `T` and every store;
// the rest is in store/lot.hpp.
//
// A transaction takes its lots through these steps, all of them one step before any of them the next; the ids of all endpoints are locked
// from the second to the fourth, in the order of their addresses:
//   1. inspect     whether they could ever be taken
//   2. leave_out   what is a duplicate
//   3. make_room   each inside the one before: room is counted, then the next is asked, and given back if that finds none
//   4. in memory: take, each its places, then fill; in a journal: add_to, placed
//   5. finish, or take_back
// In memory the places of all are taken before one is filled: whoever sees one message of a transaction finds the others there, perhaps
// waits for them to be filled for a moment.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/budget.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/parcel.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mailroom::detail {

class deduplicator;

class lot_base {
public:
    lot_base(const lot_base&) = delete;
    lot_base& operator=(const lot_base&) = delete;
    virtual ~lot_base() = default;

    /// Which log it is for; which bounds count it: lots of one may stand side by side; nullptr where it is not to be grouped.
    virtual const void* log() const noexcept = 0;
    virtual const void* bounds() const noexcept = 0;
    virtual commit_port* journal() const noexcept = 0;
    virtual deduplicator* ids() const noexcept = 0;
    virtual std::size_t bytes() const noexcept = 0;
    virtual std::size_t size() const noexcept = 0;

    virtual failure inspect() const = 0;
    /// Whether there could ever be room for `n` messages of `bytes`; and which budget they are charged to, with how much.
    virtual bool could_ever_hold(std::size_t n, std::size_t bytes) const noexcept = 0;
    virtual memory_budget* budget() const noexcept = 0;
    virtual std::size_t charge() const noexcept = 0;
    /// Ids of this transaction, and who knows them.
    class id_set {
    public:
        /// False: it was there. May throw std::bad_alloc.
        bool add(const deduplicator* of, std::string_view id) {
            std::vector<const deduplicator*>& all = known_[id];
            if (std::find(all.begin(), all.end(), of) != all.end()) { return false; }
            all.push_back(of);
            ++size_;
            return true;
        }
        std::size_t size() const noexcept { return size_; }

    private:
        std::unordered_map<std::string_view, std::vector<const deduplicator*>> known_;
        std::size_t size_ = 0;
    };
    virtual void leave_out(id_set& others) = 0;
    /// The ids are about to be unlocked.
    virtual void end_ready() noexcept = 0;
    virtual void leave_nothing_out() noexcept = 0;
    /// Calls `next`, once there is room for `n` messages of `bytes`, this lot's and those of others that are counted with it.
    virtual placed make_room(std::size_t n, std::size_t bytes, const std::function<placed()>& next) = 0;
    /// Asks for room: false: there will be none, and `why` says so. `charge`: what all lots want of the budget together; `limit`: how long it may
    /// take since the first `leave_out`. Without locks.
    virtual bool wait_for_room(std::size_t n, std::size_t bytes, std::size_t charge, duration limit, const stop_token& stop, failure& why) = 0;
    /// Bytes that what the transaction settles is about to free are these messages'.
    virtual void take_over(std::size_t bytes) noexcept = 0;

    virtual bool take() = 0;
    virtual void fill() noexcept = 0;
    /// Places it took stay empty.
    virtual void leave_empty() noexcept = 0;

    virtual void add_to(parcel& to) = 0;
    /// In a journal they have their places, in memory they have been filled: their ids are known. Under their lock.
    virtual void placed_at(offset first) noexcept = 0;
    virtual void place_ids() noexcept = 0;
    virtual void take_back() noexcept = 0;

    virtual void finish() noexcept = 0;

protected:
    lot_base() = default;
};

} // namespace mailroom::detail
