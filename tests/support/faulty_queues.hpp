// Small queues under a mutex with the face that a recorder needs, each with one fault that a check of its histories must find.
#pragma once

#include "support/random.hpp"

#include <mailroom/queue.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace support {

enum class fault {
    none,
    loses,             // now and then a message that was sent
    duplicates,        // now and then gives one twice
    reorders,          // now and then gives the second
    looks_empty,       // now and then, though it is not
    forgets_full,      // takes one more than the bound, now and then
    looks_full,        // now and then, though it is not
    sends_after_close, // takes one more
    settles_twice,     // ack says yes to one who holds nothing any more
    comes_back_last,   // what is given back goes to the end
    splits_batches,    // a batch is not sent at once
    races_to_take,     // looks, and takes later: two may be given the same
    races_to_append,   // takes an offset, and appends later: out of order
};

template <fault Fault>
class faulty_queue {
public:
    class delivery;
    struct message {
        int value;
        std::uint64_t place;
        int body() const { return value; }
        std::uint64_t offset() const { return place; }
    };

    faulty_queue(std::size_t max_messages, std::uint64_t seed) : max_(max_messages), dice_(seed) {}

    mailroom::result<std::uint64_t> try_send(int body) { return put({body}); }
    mailroom::result<std::uint64_t> send_for(mailroom::duration, int body) { return put({body}); }
    std::uint64_t send(int body) { return put({body}).value(); }
    std::uint64_t send_many(const std::vector<int>& bodies) {
        if constexpr (Fault == fault::splits_batches) {
            const std::uint64_t first = put({bodies[0]}).value();
            for (std::size_t i = 1; i < bodies.size(); ++i) { std::this_thread::yield(), put({bodies[i]}).value(); }
            return first;
        }
        return put(bodies).value();
    }
    std::optional<message> try_pop() {
        auto d = take();
        if (d) { settle(d->place, true); }
        return d;
    }
    std::optional<message> pop_for(mailroom::duration) { return try_pop(); }
    std::optional<delivery> try_receive() {
        auto m = take();
        if (!m) { return std::nullopt; }
        return delivery(*this, *m);
    }
    std::optional<delivery> receive_for(mailroom::duration) { return try_receive(); }
    void close() {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }

    class delivery : public message {
    public:
        delivery(faulty_queue& from, const message& m) : message(m), from_(&from) {}
        bool ack() { return from_->settle(this->place, true); }
        bool nack(mailroom::duration) { return from_->settle(this->place, false); }
        bool release() { return from_->settle(this->place, false); }

    private:
        faulty_queue* from_;
    };

private:
    bool wrong(fault f) { return Fault == f && dice_.percent(20); }

    mailroom::result<std::uint64_t> put(const std::vector<int>& bodies) {
        std::unique_lock lock(mutex_);
        if (closed_ && !wrong(fault::sends_after_close)) { return mailroom::errc::closed; }
        if (max_ != 0 && ((items_.size() + out_.size() + bodies.size() > max_ && !wrong(fault::forgets_full)) || wrong(fault::looks_full))) {
            return mailroom::errc::full;
        }
        const std::uint64_t first = next_;
        next_ += bodies.size();
        if (wrong(fault::races_to_append)) { lock.unlock(), std::this_thread::yield(), lock.lock(); }
        if (wrong(fault::loses)) { return first; }
        for (std::size_t i = 0; i < bodies.size(); ++i) { items_.push_back({bodies[i], first + i}); }
        return first;
    }
    std::optional<message> take() {
        std::unique_lock lock(mutex_);
        if (items_.empty() || wrong(fault::looks_empty)) { return std::nullopt; }
        const auto it = items_.begin() + (items_.size() > 1 && wrong(fault::reorders) ? 1 : 0);
        const message m = *it;
        if (wrong(fault::races_to_take)) {
            lock.unlock(), std::this_thread::yield(), lock.lock();
            std::erase_if(items_, [&](const message& i) { return i.place == m.place; });
        } else if (!wrong(fault::duplicates)) {
            items_.erase(it);
        }
        out_[m.place] = m;
        return m;
    }
    bool settle(std::uint64_t place, bool done) {
        const std::lock_guard lock(mutex_);
        const auto it = out_.find(place);
        if (it == out_.end()) { return false; }
        const message m = it->second;
        if (!(done && wrong(fault::settles_twice))) { out_.erase(it); }
        if (!done || wrong(fault::settles_twice)) {
            items_.insert(
                std::find_if(items_.begin(), items_.end(), [&](const message& i) { return i.place > place && Fault != fault::comes_back_last; }), m);
        }
        return true;
    }

    std::mutex mutex_;
    std::size_t max_;
    dice dice_;
    std::vector<message> items_;
    std::map<std::uint64_t, message> out_;
    std::uint64_t next_ = 0;
    bool closed_ = false;
};

} // namespace support
