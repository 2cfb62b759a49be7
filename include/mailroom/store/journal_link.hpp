// journal_link<T>: one stream of a journal as a store of `T` sees it: encodes what is sent, decodes what is claimed.
//
// Threads: any. Locks: one of its own while messages are loaded, so that those who claim neighbours load them once; the journal's, below it.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/journal/catalog.hpp>
#include <mailroom/journal/changes.hpp>
#include <mailroom/journal/format.hpp>
#include <mailroom/journal/port.hpp>
#include <mailroom/message/codec.hpp>
#include <mailroom/message/properties_codec.hpp>
#include <mailroom/message/schema.hpp>
#include <mailroom/store/link.hpp>
#include <mailroom/store/producers.hpp>
#include <mailroom/store/recorded.hpp>
#include <mailroom/store/timing.hpp>
#include <mailroom/stream/stream.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// A receipt's side of a commit.
class journal_promise final : public pending_outcome {
public:
    /// `name`: what the place of the stream's first message is called outside.
    journal_promise(std::shared_ptr<log_port> log, offset name) : log_(std::move(log)), name_(name) {
        ticket_.self = this;
        ticket_.waits = false;
        ticket_.finish = &journal_promise::complete;
    }
    ticket& place() noexcept { return ticket_; }
    /// What is answered when it is done, where that is not the place given to the ticket.
    void answer(offset place) noexcept { ticket_.first = place; }
    /// Who is told if it fails; kept by `with(core, true)` until then.
    void tell_if_lost(side_door& door, void (*with)(void*, bool) noexcept, void* core, const std::string& id, std::size_t n, std::size_t bytes) {
        id_ = id;
        messages_ = n;
        bytes_ = bytes;
        door_ = &door;
        refer_ = with;
        core_ = core;
        refer_(core_, true);
    }
    /// It was not placed.
    void tell_nobody() noexcept {
        if (std::exchange(door_, nullptr) != nullptr) { refer_(core_, false); }
    }

    bool ready() const noexcept override { return ticket_.is_done(); }
    void wait() noexcept override { log_->wait(ticket_); }
    bool hasten() noexcept override { return log_->lead_for(ticket_); }
    result<offset> outcome() const override {
        if (ticket_.why.kind() != errc{}) { return ticket_.why; }
        return name_ + ticket_.first;
    }
    bool join(waiter& w) noexcept override {
        const std::lock_guard lock(mutex_);
        if (ticket_.is_done()) { return false; }
        waiters_.add(w, nothing());
        return true;
    }

private:
    struct own_ticket : ticket {
        journal_promise* self = nullptr;
    };
    static void complete(ticket& t) noexcept {
        journal_promise& self = *static_cast<own_ticket&>(t).self;
        if (self.door_ != nullptr && t.why.kind() != errc{}) { self.door_->lost(std::move(self.id_), self.messages_, self.bytes_, t.first); }
        {
            const std::lock_guard lock(self.mutex_);
            t.done.store(1, std::memory_order_release);
        }
        while (waiter* const w = self.waiters_.take(nothing())) { w->wake(); }
        self.tell_nobody();
        self.unrefer();
    }

    const std::shared_ptr<log_port> log_;
    const offset name_;
    own_ticket ticket_;
    side_door* door_ = nullptr;
    void (*refer_)(void*, bool) noexcept = nullptr;
    void* core_ = nullptr;
    std::string id_;
    std::size_t messages_ = 0, bytes_ = 0;
    std::mutex mutex_; // `done` against joining
    wait_list waiters_;
};

template <class T>
class journal_link final : public link<T>, private stream_listener {
public:
    /// What is stored as a stream of `log`, read by a cursor, or by several (number 0).
    /// `name`: what its first place is called outside.
    journal_link(std::shared_ptr<log_port> log, std::uint32_t endpoint, std::uint32_t stream, std::uint32_t cursor, const timing& times,
                 offset name = 0)
        : log_(std::move(log)), stream_(stream), name_(name), times_(times), own_changes_(cursor), refused_(stream) {
        this->changes_ = &own_changes_;
        schema_ = log_->schema_number(endpoint, schema_of<T>());
        log_->look([&](const catalog& c) {
            for (const schema& s : c.endpoint(endpoint).schemas) { decoders_.push_back(decoder_for<T>(s)); }
            if (const cursor_image* const image = c.image(cursor)) { before_ = *image; }
            const stream_entry& s = c.stream(stream);
            watched_.until = s.timed_until;
            this->refused_before_ = s.refused;
            if (s.expiry != std::numeric_limits<std::int64_t>::max()) { watched_.expiry = times_.at(wall_point(s.expiry)); }
        });
        if (!before_.trials().empty()) { tried_until_ = before_.trials().rbegin()->first + 1; }
        const tallies& ever = before_.ever();
        const std::uint64_t settled = before_.settled_ever();
        done_before_ = {settled > ever.dropped ? settled - ever.dropped : 0, ever.redelivered, ever.expired, ever.dropped};
        suspects_until_ = log_->suspects_until(stream_);
    }

    /// `core`, a stream's owner, is told from now on: `messages()`, `arrived(n)`, `refer()`, `unrefer()`, `shut()`.
    template <class Core>
    void attach(Core& core) {
        core_ = &core;
        door_ = &core;
        head_ = &core.messages();
        arrived_ = [](void* c, std::size_t n) noexcept { static_cast<Core*>(c)->arrived(n); };
        refer_ = [](void* c, bool more) noexcept {
            if (more) {
                static_cast<Core*>(c)->refer();
            } else {
                static_cast<Core*>(c)->unrefer();
            }
        };
        shut_ = [](void* c) noexcept { static_cast<Core*>(c)->shut(); };
        log_->attach(stream_, *this);
        is_attached_ = true;
    }
    const std::shared_ptr<log_port>& log() const noexcept { return log_; }
    std::uint32_t stream_number() const noexcept { return stream_; }

    // ------------------------------------------------------------------------------------------------------------------------- link

    failure pack(shipment& s, const T& value, const properties* props) override {
        shipment::piece p;
        p.start = s.bytes.size();
        if (props != nullptr && *props != no_properties) { encode_properties(*props, s.bytes); }
        p.properties = static_cast<std::uint32_t>(s.bytes.size() - p.start);
        codec<T>::encode(value, s.bytes);
        const std::size_t length = s.bytes.size() - p.start;
        if (length > log_->largest_batch()) {
            return {errc::too_large, "the message takes " + std::to_string(length) +
                                         " bytes; a journal takes half a segment (segment_bytes) at most, here " +
                                         std::to_string(log_->largest_batch())};
        }
        p.length = static_cast<std::uint32_t>(length);
        const std::size_t padding = padded(length) - length;
        if (padding != 0) { std::fill_n(s.bytes.extend(padding), padding, std::byte{}); }
        p.hash = checksum(s.bytes.bytes().subspan(p.start), log_->seed());
        if (s.count == 0) {
            s.time = wall_count(times_.wall(times_.coarse()));
            s.first = p;
        } else {
            s.more.push_back(p); // may throw: then it is not one of them
        }
        ++s.count;
        return errc{};
    }
    offset append(const T& value) override {
        if (waits_) { return no_offset; }
        byte_sink bytes;
        if constexpr (is_stored_as_it_is) {
            const bytes_view body = std::as_bytes(std::span(value.data(), value.size()));
            const std::size_t whole = padded(body.size());
            if (whole == body.size()) { return append_bytes(body, body.size()); } // from where it is
            std::byte* const to = bytes.extend(whole);
            store_le(to + whole - alignment, std::uint64_t{0});
            std::memcpy(to, body.data(), body.size());
            return append_bytes(bytes.bytes(), body.size());
        } else {
            codec<T>::encode(value, bytes);
            const std::size_t length = bytes.size(), padding = padded(length) - length;
            if (padding != 0) { std::fill_n(bytes.extend(padding), padding, std::byte{}); }
            return append_bytes(bytes.bytes(), length);
        }
    }
    placed place(shipment& s, const admission& admit, ticket* t) override {
        if (s.by != nullptr) { return place_numbered(s, admit, t); }
        if (s.more.empty()) {
            draft one = draft_of(s, s.first);
            return log_->place({&one, 1}, admit, t);
        }
        std::vector<draft> all;
        all.reserve(s.count);
        for (std::size_t i = 0; i < s.count; ++i) { all.push_back(draft_of(s, s.at(i))); }
        return log_->place(all, admit, t);
    }
    settler_home home() noexcept override { return {log_.get(), own_changes_.cursor() != 0 ? &own_changes_ : nullptr}; }
    void add_to(parcel& to, const shipment& s) override {
        to.stream = stream_;
        for (std::size_t i = 0; i < s.count; ++i) { to.drafts.push_back(draft_of(s, s.at(i))); }
    }
    std::vector<std::pair<std::string, offset>> in_doubt() override { return log_->in_doubt_of(own_changes_.cursor()); }
    void hold_in_doubt(const std::string& xid, undecided& held) override { log_->hold_in_doubt(xid, held); }
    void wait(ticket& t) noexcept override { log_->wait(t); }
    bool commits() const noexcept override { return waits_; }
    offset placed_until() noexcept override { return log_->placed_until(stream_); }
    bool has_pending() noexcept override { return log_->placed_until(stream_) > head_->head(); }
    bool push() noexcept override { return log_->push(); }
    void push_settlements() noexcept override { log_->push_settlements(); }
    pending_outcome* promise(shipment* s, const admission& admit, placed& p, offset known, bool counts, const std::string& id,
                             std::size_t bytes) override {
        auto* const made = new journal_promise(log_, s != nullptr ? name_ : 0);
        if (s == nullptr) {
            made->answer(known);
            log_->enrol(made->place());
            p.taken = true;
            return made;
        }
        struct undo {
            journal_promise* made;
            ~undo() {
                if (made == nullptr) { return; }
                made->tell_nobody();
                made->unrefer();
                made->unrefer();
            }
        } later{made};
        if (counts) { made->tell_if_lost(*door_, refer_, core_, id, s->count, bytes); }
        p = place(*s, admit, &made->place());
        return p.taken ? std::exchange(later.made, nullptr) : nullptr;
    }

    bool was_settled(offset o) const noexcept override { return before_.is_settled(o); }
    std::uint64_t were_settled(offset first, offset last) const noexcept override {
        const offset known = before_.runs().empty() ? before_.floor() : before_.runs().rbegin()->second;
        const offset end = std::min(last, known);
        return first < end ? (end - first) - before_.unsettled_in(first, end) : 0;
    }
    const trial* was_tried(offset o) const noexcept override {
        const auto at = before_.trials().find(o);
        return at != before_.trials().end() ? &at->second : nullptr;
    }
    offset tried_until() const noexcept override { return tried_until_; }
    offset floor() const noexcept override { return before_.floor(); }
    link_base::watched times_before() const noexcept override { return watched_; }
    std::array<std::uint64_t, 4> done_before() const noexcept override { return done_before_; }
    const cursor_image& before() const noexcept { return before_; }
    bool suspects(offset o) const noexcept override { return o < suspects_until_; }
    void note_deliveries(bytes_view steps) noexcept override { log_->note_deliveries(own_changes_.cursor(), steps); }
    void moved(const std::vector<offset>& places, offset until, offset at) noexcept override {
        try {
            std::vector<std::pair<offset, offset>> runs; // between what it is given
            const offset floor = places.empty() ? std::max(at, until) : places.front();
            offset next = floor;
            for (const offset o : places) {
                if (o > next) { runs.emplace_back(next, o); }
                next = o + 1;
            }
            if (until > next) { runs.emplace_back(next, until); }
            if (own_changes_.moved(floor, runs)) { tell(); }
        } catch (...) {} // no memory: after the next opening it stands where it did
        const std::lock_guard lock(loading_);
        tried_until_ = 0;
        before_ = cursor_image();
    }
    void refused(const refusals& more) noexcept override {
        if (refused_.refused(more)) { log_->mark(refused_); }
    }
    void retain_from(offset o) noexcept override { retained_.store(o, std::memory_order_relaxed); }
    void retain_also(retention_rule& rule) noexcept override { rule_.store(&rule, std::memory_order_release); }
    offset first_stored() noexcept override { return log_->first_stored(stream_); }
    failure damage_met() noexcept override {
        const std::lock_guard lock(loading_);
        if (met_.empty()) {
            this->damaged_.store(false, std::memory_order_relaxed);
            return std::exchange(met_more_, false) ? failure(errc::io) : failure(errc{});
        }
        failure first = std::move(met_.front());
        met_.erase(met_.begin());
        if (met_.empty() && !met_more_) { this->damaged_.store(false, std::memory_order_relaxed); }
        return first;
    }
    bool handle_gone(void* core) noexcept override { return log_->handle_gone(core); }
    void leave() noexcept override {
        if (!has_left_.exchange(true)) {
            if (own_changes_.cursor() != 0) { log_->detach(own_changes_); }
            log_->detach(refused_);
            refused_.leave();
        }
        if (is_attached_.exchange(false)) { log_->detach(stream_); }
    }

    // ----------------------------------------------------------------------------------------------------------------------- loader

    std::uint64_t load(block<T>& b, std::uint32_t i) noexcept override { return load(b, i, ~std::uint32_t{0}); }
    std::uint64_t load_one(block<T>& b, std::uint32_t i) noexcept override { return load(b, i, std::uint32_t{1} << i); }
    std::uint32_t survey(const block<T>& b, std::uint32_t mask, bool keys_count, std::array<int, span>& priorities) override {
        const std::lock_guard lock(loading_);
        std::uint32_t unread = 0, plain = 0;
        for (std::uint32_t left = mask; left != 0; left &= left - 1) {
            const auto k = static_cast<std::uint32_t>(std::countr_zero(left));
            const offset o = b.first + k;
            if (b.slots[k].ready.load(std::memory_order_acquire) != slot_empty || before_.is_settled(o) || was_tried(o) != nullptr) { continue; }
            unread |= std::uint32_t{1} << k;
        }
        const auto is_plain = [&](unsigned k, const record& r) {
            if (r.head.properties == 0) { return true; }
            bytes_view front = r.payload.first(r.head.properties);
            const properties props = decode_properties(front);
            priorities[k] = props.priority;
            return props.delay <= duration::zero() && props.time_to_live <= duration::zero() && (!keys_count || props.key.empty());
        };
        bool has_memory = true;
        record_calls to(
            [&](unsigned k, const record& r) {
                try {
                    if (is_plain(k, r)) { plain |= std::uint32_t{1} << k; }
                } catch (const std::bad_alloc&) { has_memory = false; } catch (...) {
                } // it is found out when it is loaded
            },
            [](unsigned, const damage*) {});
        log_->read(stream_, b.first, unread, to, ahead_);
        if (!has_memory) { throw std::bad_alloc(); }
        return plain;
    }

    std::uint32_t pass_over(block<T>& b, std::uint32_t mask) noexcept override {
        const std::lock_guard lock(loading_); // nobody is filling them
        for (std::uint32_t left = mask; left != 0; left &= left - 1) {
            const auto k = static_cast<std::uint32_t>(std::countr_zero(left));
            std::uint64_t none = slot_empty;
            if (!b.slots[k].ready.compare_exchange_strong(none, slot_lost, std::memory_order_acq_rel)) { mask &= ~(std::uint32_t{1} << k); }
        }
        return mask;
    }
    void take_up(block<T>& b, std::uint32_t mask) noexcept override {
        for (std::uint32_t left = mask; left != 0; left &= left - 1) {
            b.slots[static_cast<std::uint32_t>(std::countr_zero(left))].ready.store(slot_empty, std::memory_order_release);
        }
    }
    void each_properties(offset first, offset last, const std::function<void(offset, const properties&)>& fn) override {
        read_ahead reading;
        std::exception_ptr thrown;
        offset base = first;
        record_calls to(
            [&](unsigned k, const record& r) {
                if (r.head.properties == 0 || thrown != nullptr) { return; }
                std::optional<properties> props;
                try {
                    bytes_view front = r.payload.first(r.head.properties);
                    props = decode_properties(front);
                } catch (const std::bad_alloc&) { thrown = std::current_exception(); } catch (...) {
                } // it is found out when it is loaded
                if (!props) { return; }
                try {
                    fn(base + k, *props);
                } catch (...) { thrown = std::current_exception(); }
            },
            [&](unsigned, const damage* d) {
                if (d != nullptr && d->file.empty() && thrown == nullptr) { thrown = std::make_exception_ptr(std::bad_alloc()); }
            });
        for (; base < last; base += span) {
            const offset n = std::min<offset>(span, last - base);
            log_->read(stream_, base, n == span ? ~std::uint32_t{0} : (std::uint32_t{1} << n) - 1, to, reading);
            if (thrown != nullptr) { std::rethrow_exception(thrown); }
        }
    }

private:
    std::uint64_t load(block<T>& b, std::uint32_t i, std::uint32_t wanted) noexcept {
        const std::lock_guard lock(loading_);
        std::uint32_t empty = 0;
        const offset head = head_->head();
        for (std::uint32_t k = 0; k < span && b.first + k < head; ++k) {
            if ((wanted >> k & 1u) == 0 || b.slots[k].ready.load(std::memory_order_acquire) != slot_empty) { continue; }
            if (own_changes_.cursor() != 0 && before_.is_settled(b.first + k)) { // one reader, who is done with it
                b.slots[k].ready.store(slot_lost, std::memory_order_release);
            } else {
                empty |= std::uint32_t{1} << k;
            }
        }
        if (empty != 0) {
            filling to(*this, b);
            log_->read(stream_, b.first, empty, to, ahead_);
            if (head <= b.first + span || ahead_.bytes.capacity() > read_ahead::most) { ahead_.forget(); } // what follows has not been sent yet, or the messages are large
        }
        return b.slots[i].ready.load(std::memory_order_acquire);
    }
    void tell() noexcept override { log_->mark(own_changes_); }

    // stream_listener
    void advance(offset head) noexcept override { head_->advance(head); }
    void arrived(std::size_t n) noexcept override { arrived_(core_, n); }
    offset retained_from() noexcept override { return retained_.load(std::memory_order_relaxed); }
    offset next_retained(offset o) noexcept override {
        retention_rule* const rule = rule_.load(std::memory_order_acquire);
        return rule != nullptr ? rule->next_retained(o) : no_offset;
    }
    void find_retained() override {
        if (retention_rule* const rule = rule_.load(std::memory_order_acquire)) { rule->find_retained(); }
    }
    void journal_closed() noexcept override { shut_(core_); }
    const void* id_keeper() noexcept override { return door_->id_keeper(); }
    void lock_ids() noexcept override { door_->lock_ids(); }
    void unlock_ids() noexcept override { door_->unlock_ids(); }
    std::unique_ptr<adopted_message> adopt(const record& r) override {
        auto m = std::make_unique<adopted_message>();
        bytes_view front = r.payload.first(r.head.properties);
        if (r.head.properties != 0) { m->props = decode_properties(front); }
        m->bytes = footprint_of(decoders_.at(r.head.schema)(r.payload.subspan(r.head.properties)));
        if (!door_->adopt(m->props, m->bytes)) { m.reset(); }
        return m;
    }
    void adopted(const adopted_message& m, offset o) noexcept override { door_->adopted(m.props, o); }
    void not_adopted(const adopted_message& m, offset o) noexcept override { door_->not_adopted(m.props, m.bytes, o); }
    void came(const adopted_message& m, offset o) noexcept override { door_->came(m.props, o); }
    void hold() noexcept override { refer_(core_, true); }
    void let_go() noexcept override { refer_(core_, false); }

    // Text and bytes, whose slots keep their buffers.
    static constexpr bool is_stored_as_it_is = is_kept<T> && bare<T> && !has_own_codec<T>;

    // A message whose bytes are padded.
    offset append_bytes(bytes_view bytes, std::size_t length) {
        if (length > largest_) { return no_offset; }
        draft d;
        d.stream = stream_;
        d.schema = schema_;
        d.time = wall_count(times_.wall(times_.coarse()));
        d.length = static_cast<std::uint32_t>(length);
        d.payload = bytes;
        d.hash = checksum(bytes, key_);
        return log_->append(d);
    }
    // Messages and, after them, whose they are.
    placed place_numbered(const shipment& s, const admission& admit, ticket* t) {
        std::vector<std::byte> payload;
        wire_writer to(payload);
        to.text(s.by->who);
        to.var(s.by->number);
        draft note;
        note.kind = record_kind::produced;
        note.stream = stream_;
        note.offset = 0;
        note.length = static_cast<std::uint32_t>(payload.size());
        payload.resize(padded(payload.size()));
        note.payload = payload;
        note.hash = checksum(payload, log_->seed());
        parcel all;
        all.stream = stream_;
        all.admit = admit;
        all.drafts.reserve(s.count + 1);
        all.drafts.push_back(draft_of(s, s.first));
        for (const shipment::piece& p : s.more) { all.drafts.push_back(draft_of(s, p)); }
        all.drafts.push_back(note);
        return log_->place_together({&all, 1}, {}, t);
    }
    draft draft_of(const shipment& s, const shipment::piece& p) const noexcept {
        draft d;
        d.stream = stream_;
        d.schema = schema_;
        d.properties = p.properties;
        d.time = s.time;
        d.length = p.length;
        d.hash = p.hash;
        d.payload = s.bytes.bytes().subspan(p.start, padded(p.length));
        return d;
    }
    struct filling final : record_reader {
        filling(journal_link& l, block<T>& to) noexcept : own(l), b(to) {}
        void found(unsigned k, const record& r) noexcept override { own.fill(b, k, r); }
        void lost(unsigned k, const damage* d) noexcept override {
            b.slots[k].ready.store(slot_lost, std::memory_order_release);
            if (d == nullptr) { return; }                                          // it has gone, or never came
            own.note_damage(d->file.empty() ? failure(errc::io) : failure_of(*d)); // of no file: there was no memory
        }
        journal_link& own;
        block<T>& b;
    };
    static failure failure_of(const damage& d) {
        try {
            return {errc::corrupt, d.file + ", byte " + std::to_string(d.byte) + ": " + d.what + "; it is left out"};
        } catch (...) { return errc::corrupt; }
    }
    void note_damage(failure f) noexcept {
        try {
            met_.push_back(std::move(f));
        } catch (...) { met_more_ = true; }
        this->damaged_.store(true, std::memory_order_relaxed);
    }
    void fill(block<T>& b, unsigned k, const record& r) noexcept {
        if constexpr (is_stored_as_it_is) {
            if (r.head.properties == 0 && r.head.schema < decoders_.size() && decoders_[r.head.schema] == &decode_as<T, T>) [[likely]] {
                try {
                    assign(b, k, r.payload);
                } catch (...) {
                    b.slots[k].ready.store(slot_lost, std::memory_order_release);
                    note_damage(errc::io);
                    return;
                }
                b.slots[k].ready.store(b.word_at(times_.at(wall_point(r.head.time))), std::memory_order_release);
                return;
            }
        }
        decode(b, k, r);
    }
    void assign(block<T>& b, unsigned k, bytes_view body) requires is_stored_as_it_is {
        b.slots[k].value.assign(reinterpret_cast<const typename T::value_type*>(body.data()), body.size());
        if constexpr (sizes<T>::varies) { b.set_size(k, footprint_of(*b.slots[k].value.get())); }
    }
    void decode(block<T>& b, unsigned k, const record& r) noexcept {
        try {
            std::unique_ptr<envelope> cover;
            bytes_view front = r.payload.first(r.head.properties);
            if (r.head.properties != 0) {
                cover = std::make_unique<envelope>();
                cover->props = decode_properties(front);
            }
            if (r.head.schema >= decoders_.size() || decoders_[r.head.schema] == nullptr) {
                fail(errc::type_mismatch, "a message was stored in a way this type does not read");
            }
            const bytes_view bytes = r.payload.subspan(r.head.properties);
            bool is_filled = false;
            if constexpr (is_stored_as_it_is) {
                if (decoders_[r.head.schema] == &decode_as<T, T>) {
                    assign(b, k, bytes);
                    is_filled = true;
                }
            }
            if (!is_filled) {
                T value = decoders_[r.head.schema](bytes);
                outgoing<T> out(value);
                if constexpr (sizes<T>::varies) { b.set_size(k, footprint_of(out.look())); }
                out.into(b.slots[k].value);
            }
            const duration sent = times_.at(wall_point(r.head.time));
            std::uint64_t word = b.word_at(sent);
            if (cover != nullptr) {
                cover->sent = sent;
                if (cover->props.delay > duration::zero()) { cover->due = later(sent, cover->props.delay); }
                if (cover->props.time_to_live > duration::zero()) { cover->expires = later(sent, cover->props.time_to_live); }
                word = b.word_of(cover.release());
            }
            b.slots[k].ready.store(word, std::memory_order_release);
        } catch (const std::bad_alloc&) {
            b.slots[k].ready.store(slot_lost, std::memory_order_release);
            note_damage(errc::io);
        } catch (const std::exception& e) {
            b.slots[k].ready.store(slot_lost, std::memory_order_release);
            try {
                note_damage({errc::corrupt, "message " + std::to_string(r.head.offset) + " cannot be decoded: " + e.what() + "; it is left out"});
            } catch (...) { note_damage(errc::corrupt); }
        } catch (...) {
            b.slots[k].ready.store(slot_lost, std::memory_order_release);
            note_damage(errc::corrupt);
        }
    }

    const std::shared_ptr<log_port> log_;
    const std::uint32_t stream_;
    const offset name_;
    const bool waits_ = log_->durability() != mailroom::durability::none;
    const hash_key& key_ = log_->seed();
    const std::size_t largest_ = log_->largest_batch();
    const timing times_;
    change_log own_changes_;
    refusal_log refused_;
    cursor_image before_;
    link_base::watched watched_;
    std::array<std::uint64_t, 4> done_before_{};
    offset tried_until_ = 0;
    offset suspects_until_ = 0;
    std::uint16_t schema_ = 0;
    std::vector<decoder<T>> decoders_;
    std::atomic<bool> is_attached_{false};
    std::atomic<bool> has_left_{false};
    std::atomic<offset> retained_{no_offset};
    std::atomic<retention_rule*> rule_{nullptr};

    void* core_ = nullptr;
    side_door* door_ = nullptr;
    stream<T>* head_ = nullptr;
    void (*arrived_)(void*, std::size_t) noexcept = nullptr;
    void (*refer_)(void*, bool) noexcept = nullptr;
    void (*shut_)(void*) noexcept = nullptr;

    std::mutex loading_;
    read_ahead ahead_;
    std::vector<failure> met_;
    bool met_more_ = false; // there was no memory to say what
};

} // namespace mailroom::detail
