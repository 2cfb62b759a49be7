// lot<T, Log>: the messages a transaction sends to one log, with the `T` in them. How lots are taken, step by step, is in store/lot_base.hpp, which is all
// that a transaction knows of them once they are filled.
//
// A lot is its transaction's, one thread's at a time. Locks: none of its own.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/budget.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/cursor/deduplication.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/parcel.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/link.hpp>
#include <mailroom/store/lot_base.hpp>
#include <mailroom/stream/stream.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// Messages for `Log`, a memory_core<T> or a partition<T>, which has made this its friend. It keeps the log.
template <class T, class Log>
class lot final : public lot_base {
public:
    explicit lot(Log& to) : to_(to) { to_.refer(); }
    ~lot() override { to_.unrefer(); }

    /// Takes one message. Throws errc::too_large, what its codec throws, std::bad_alloc.
    void add(T& value, properties* props) {
        auto one = std::make_unique<piece>(std::move(value));
        one->bytes = footprint_of(one->out.look());
        if (ids() != nullptr && props != nullptr) { one->identity = props->id; }
        if (props != nullptr && *props != no_properties) {
            one->cover = std::make_unique<envelope>();
            one->cover->props = std::move(*props);
        }
        if (all_.size() == all_.capacity()) { all_.reserve(std::max<std::size_t>(4, 2 * all_.size())); } // what is packed has a place
        if (link<T>* const j = to_.journal()) {
            const failure why = j->pack(packed_, one->out.look(), one->cover != nullptr ? &one->cover->props : nullptr);
            if (why.kind() != errc{}) { why.raise(); }
        }
        bytes_ += one->bytes;
        all_.push_back(std::move(one));
    }

    const void* log() const noexcept override { return &to_; }
    const void* bounds() const noexcept override { return &to_.room(); }
    commit_port* journal() const noexcept override { return to_.journal() != nullptr ? to_.journal()->home().journal : nullptr; }
    deduplicator* ids() const noexcept override { return to_.known_ids(); }
    std::size_t bytes() const noexcept override { return bytes_; }
    std::size_t size() const noexcept override { return size_; }

    failure inspect() const override {
        if (to_.stream_.closed()) { return errc::closed; }
        return to_.room().could_ever_hold(all_.size(), bytes_) ? failure(errc{}) : Log::too_large();
    }
    bool could_ever_hold(std::size_t n, std::size_t bytes) const noexcept override { return to_.room().could_ever_hold(n, bytes); }
    memory_budget* budget() const noexcept override { return to_.room().budget(); }
    std::size_t charge() const noexcept override { return to_.room().charge_for(bytes_); }
    void leave_out(id_set& others) override {
        now_ = to_.time_of().clock().now();
        began_ = std::min(began_, now_);
        size_ = bytes_ = 0;
        for (const auto& p : all_) {
            p->is_left_out = false;
            if (ids() != nullptr && !p->identity.empty()) {
                p->is_left_out = ids()->find(p->identity, now_) != no_offset || !others.add(ids(), p->identity);
                if (!p->is_left_out) { ids()->make_ready(p->identity, others.size()); }
            }
            if (!p->is_left_out) {
                ++size_;
                bytes_ += p->bytes;
            }
        }
    }
    void end_ready() noexcept override {
        if (ids() == nullptr) { return; }
        for (const auto& p : all_) {
            if (!p->identity.empty()) { ids()->end_ready(p->identity, now_); }
        }
    }
    void leave_nothing_out() noexcept override {
        size_ = all_.size();
        for (const auto& p : all_) { p->is_left_out = false; }
    }
    placed make_room(std::size_t n, std::size_t bytes, const std::function<placed()>& next) override {
        return to_.room().reserve_until([this] { return head(); }, n, bytes,
                                        [&](const admission& a) {
                                            admit_ = a;
                                            return next();
                                        });
    }
    void take_over(std::size_t bytes) noexcept override { to_.room().force(0, bytes); }
    bool wait_for_room(std::size_t n, std::size_t bytes, std::size_t charge, duration limit, const stop_token& stop, failure& why) override {
        const auto has_budget = [&] { return budget() == nullptr || budget()->has_room(charge); };
        if (to_.journal() != nullptr && to_.journal()->has_pending() && to_.journal()->push()) { return true; }
        if (!std::exchange(has_caught_up_, true) && to_.next_due() <= to_.time_of().now()) {
            to_.catch_up();
            return true;
        }
        if (to_.make_room(n, to_.room().could_ever_hold(n, charge) ? std::max(bytes, charge) : bytes) && has_budget()) { return true; }
        if (to_.room().rule() == overflow::drop_newest) {
            to_.note_refused({.dropped = size_});
            all_.clear();
            return true;
        }
        if (to_.room().rule() == overflow::block) {
            const auto look = [&]() -> result<offset> {
                if (to_.stream_.closed()) { return errc::closed; }
                return to_.room().has_room(head(), n, bytes) && has_budget() ? result<offset>(offset{0}) : result<offset>(errc::full);
            };
            const auto done = to_.wait_for_room(look, n, limit == clock::never ? limit : later(began_, limit), stop);
            if (done) { return true; }
            why = done.error();
            return false;
        }
        why = errc::full;
        return false;
    }

    bool take() override {
        if (size_ == 0) { return true; }
        sent_ = to_.time_of().clock().now();
        place_ = to_.stream_.take(size_, sent_, [this](offset first) { return admit_.ask(admit_.whom, first); });
        return place_.taken;
    }
    void fill() noexcept override {
        if (size_ == 0) { return; }
        offset o = place_.first;
        for (const auto& p : all_) {
            if (p->is_left_out) { continue; }
            p->expires = to_.publish(o++, p->out, p->cover, sent_, p->bytes);
        }
    }
    void leave_empty() noexcept override {
        for (offset o = place_.first; o < place_.first + size_; ++o) {
            block<T>& b = *to_.stream_.at(o);
            b.set_size(index_in_span(o), 0);
            b.slots[index_in_span(o)].ready.store(slot_lost, std::memory_order_release);
        }
        to_.left_empty(size_);
    }

    void add_to(parcel& to) override {
        parcel whole;
        to_.journal()->add_to(whole, packed_);
        to.stream = whole.stream;
        to.admit = admit_;
        for (std::size_t i = 0; i < all_.size(); ++i) {
            if (!all_[i]->is_left_out) { to.drafts.push_back(whole.drafts[i]); }
        }
    }
    void placed_at(offset first) noexcept override {
        place_.first = first;
        if (ids() == nullptr) { return; }
        each([&](piece& p, offset o) {
            if (p.identity.empty()) { return; }
            try {
                if (ids()->find_or_note(p.identity, now_) == no_offset) { ids()->sent(p.identity, to_.named(o), now_); }
            } catch (...) {} // no memory: a duplicate of it may pass
        });
    }
    void place_ids() noexcept override { placed_at(place_.first); }
    void take_back() noexcept override {
        to_.room().take_back(size_, bytes_);
        if (ids() == nullptr) { return; }
        const auto lock = ids()->lock();
        each([&](piece& p, offset o) {
            if (!p.identity.empty()) { ids()->revoke(p.identity, to_.named(o)); }
        });
    }
    void finish() noexcept override {
        if (all_.size() != size_) { to_.note_refused({.duplicates = all_.size() - size_}); }
        if (size_ == 0) { return; }
        if (to_.journal() == nullptr) {
            each([&](piece& p, offset o) {
                if (p.expires != Log::not_timed) { to_.note_timed(o, p.expires); }
            });
            to_.appended(place_.first, size_);
            if (place_.wake) { to_.wake(size_); }
            return;
        }
        if (!to_.journal()->commits() && to_.stream_.has_waiters()) { to_.wake(1); } // he commits
        each([&](piece& p, offset o) { to_.came(p.cover != nullptr ? p.cover->props : no_properties, o); });
    }

private:
    struct piece {
        explicit piece(T&& v) : value(std::move(v)), out(value) {}
        T value;
        outgoing<T> out;
        std::unique_ptr<envelope> cover;
        std::string identity; // where ids count
        std::size_t bytes = 0;
        duration expires = Log::not_timed;
        bool is_left_out = false;
    };
    offset head() noexcept { return to_.journal() != nullptr ? to_.journal()->placed_until() : to_.stream_.head(); }
    template <class Fn>
    void each(Fn fn) noexcept {
        offset o = place_.first;
        for (const auto& p : all_) {
            if (!p->is_left_out) { fn(*p, o++); }
        }
    }

    Log& to_;
    std::vector<std::unique_ptr<piece>> all_;
    shipment packed_; // where they go into a journal
    std::size_t size_ = 0, bytes_ = 0;
    admission admit_;
    bool has_caught_up_ = false;
    duration now_{}, sent_{}, began_ = clock::never;
    typename stream<T>::taken place_{};
};

} // namespace mailroom::detail
