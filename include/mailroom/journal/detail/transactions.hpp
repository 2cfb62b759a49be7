// Placing what belongs together, and two-phase commit.
//
// A transaction is one batch: its messages, one settlement record for each cursor, and nothing that could come between. Recovery takes in a
// batch as a whole or not at all, so the transaction took place or it did not.
//
// Prepared, it is one record that holds all of it: messages without offsets, and places to settle. It waits in the catalog, and so in each
// checkpoint, for a verdict; nothing else is held for its sake but the messages it is to settle, which nobody has settled. Its verdict is a
// batch as of any other transaction, with one more record that takes it out of the catalog.
#pragma once

#include <mailroom/journal/detail/commit.hpp>

namespace mailroom::detail {

/// The place of the next message of a stream. Under the lock.
template <class Files>
auto log_engine<Files>::slot_for(std::uint32_t stream) -> slot& {
    const auto at = slots_.find(stream);
    if (at != slots_.end()) { return at->second; }
    const std::lock_guard held(state_);
    slot& s = slots_[stream]; // of an endpoint that nobody has open
    s.placed = catalog_.stream(stream).next;
    return s;
}

/// One record for each cursor: its places, in runs. Sorts them.
template <class Files>
std::vector<draft> log_engine<Files>::settle_all(std::vector<prepared_content::settled>& places,
                                                 std::vector<std::vector<std::byte>>& payloads) const {
    std::sort(places.begin(), places.end(),
              [](const auto& a, const auto& b) { return a.cursor != b.cursor ? a.cursor < b.cursor : a.offset < b.offset; });
    std::vector<draft> notes;
    for (std::size_t i = 0; i < places.size();) {
        const std::uint32_t cursor = places[i].cursor;
        std::vector<std::byte> payload;
        while (i < places.size() && places[i].cursor == cursor) {
            const offset first = places[i].offset;
            std::uint64_t n = 0;
            while (i < places.size() && places[i].cursor == cursor && places[i].offset == first + n) { ++n, ++i; }
            wire_writer to(payload);
            to.var(static_cast<std::uint64_t>(change::settled));
            to.var(first);
            to.var(n);
        }
        payloads.push_back(std::move(payload));
        notes.push_back(make_draft(record_kind::settlements, cursor, payloads.back()));
    }
    return notes;
}
/// What belongs together and takes too much is refused before anything is done.
template <class Files>
failure log_engine<Files>::fits(std::size_t bytes) const {
    if (bytes <= largest_batch()) { return errc{}; }
    return {errc::too_large, "what belongs together takes " + std::to_string(bytes) +
                                 " bytes; a journal takes half a segment (segment_bytes) at once, here " + std::to_string(largest_batch())};
}

template <class Files>
placed log_engine<Files>::place_all(std::span<parcel> parcels, std::span<const settled_place> settled, std::span<const draft> others, standing how,
                                    ticket* t) {
    const bool stands_alone = how != standing::with_others;
    std::vector<prepared_content::settled> places;
    for (const settled_place& s : settled) {
        if (s.changes != nullptr && s.changes->cursor() != 0) { places.push_back({s.changes->cursor(), s.place}); }
    }
    std::vector<std::vector<std::byte>> payloads;
    const std::vector<draft> notes = settle_all(places, payloads);
    std::size_t bytes = batch_header::size;
    for (const parcel& p : parcels) {
        for (const draft& d : p.drafts) { bytes += d.whole(); }
    }
    for (const draft& d : notes) { bytes += d.whole(); }
    for (const draft& d : others) { bytes += d.whole(); }
    if (failure why = fits(bytes); why.kind() != errc{}) { return {.why = std::move(why)}; }

    std::vector<slot*> slots;
    slots.reserve(parcels.size());
    std::unique_lock lock(mutex_);
    for (;;) {
        if (failure why = make_way(lock, bytes); why.kind() != errc{}) { return {.why = std::move(why)}; }
        if (!stands_alone || (open_.records == 0 && !leading_)) { break; }
        if (leading_) {
            const std::uint32_t e = epoch_.load(std::memory_order_relaxed);
            lock.unlock();
            clock_.park(epoch_, e, clock::never);
            lock.lock();
        } else {
            lead(lock, false);
            if (failed_.kind() != errc{}) { return {.why = failed_}; }
        }
    }
    for (const parcel& p : parcels) { slots.push_back(&slot_for(p.stream)); }
    for (std::size_t i = 0; i < parcels.size(); ++i) {
        parcels[i].first = slots[i]->placed;
        if (!parcels[i].admit.ask(parcels[i].admit.whom, parcels[i].first)) {
            parcels[i].first = no_offset; // whoever asked sees which
            return {.full = true};
        }
    }
    collect(open_); // what became of these messages before is said before
    const std::size_t before = open_.size();
    const std::uint32_t records = open_.records;
    try {
        for (parcel& p : parcels) {
            offset o = p.first;
            for (draft& d : p.drafts) { append(open_, d, d.kind == record_kind::message ? o++ : 0); }
        }
        for (const draft& d : notes) { append(open_, d, 0); }
        for (const draft& d : others) { append(open_, d, 0); }
    } catch (...) {
        open_.bytes.resize(before);
        open_.records = records;
        throw;
    }
    for (std::size_t i = 0; i < parcels.size(); ++i) {
        for (const draft& d : parcels[i].drafts) { slots[i]->placed += d.kind == record_kind::message ? 1u : 0u; }
    }
    if (stands_alone) { open_.stands_alone = alone_ = true; }
    if (how == standing::alone_and_safe) { open_.to_sync = true; }
    if (t != nullptr) {
        t->first = parcels.empty() ? no_offset : parcels.front().first;
        link(open_, *t);
    } else if (open_.size() >= buffered && !leading_) {
        lead(lock, false);
    }
    return {.taken = true, .first = parcels.empty() ? no_offset : parcels.front().first};
}

// --------------------------------------------------------------------------------------------------------------------------- two phases

template <class Files>
void log_engine<Files>::prepare(std::string_view xid, std::span<const parcel> parcels, std::span<const settled_place> settled,
                                std::vector<undecided*>& held) {
    constexpr std::size_t most_in_doubt = std::size_t{64} << 20; // they are in memory, and in each checkpoint
    const std::lock_guard declaring(declaring_);
    std::vector<std::byte> payload;
    wire_writer to(payload);
    to.text(xid);
    prepared_content content;
    for (const parcel& p : parcels) {
        for (const draft& d : p.drafts) { content.messages.push_back({d.stream, d.schema, d.properties, d.time, d.payload.first(d.length)}); }
    }
    for (const settled_place& s : settled) {
        if (s.changes != nullptr && s.changes->cursor() != 0) { content.places.push_back({s.changes->cursor(), s.place}); }
    }
    content.write(to);
    std::size_t later = batch_header::size + record_header::size + padded(xid.size() + 16); // what its verdict takes
    for (const parcel& p : parcels) {
        for (const draft& d : p.drafts) { later += d.whole(); }
    }
    std::vector<std::vector<std::byte>> payloads;
    std::vector<prepared_content::settled> places = content.places;
    for (const draft& d : settle_all(places, payloads)) { later += d.whole(); }
    if (const failure why = fits(later); why.kind() != errc{}) { why.raise(); }
    {
        const std::lock_guard lock(state_);
        std::size_t there = 0;
        for (const auto& [name, bytes] : catalog_.in_doubt()) { there += bytes->size(); }
        if (catalog_.in_doubt().contains(xid)) { fail(errc::already_exists, "a transaction is prepared as '" + std::string(xid) + "' already"); }
        if (there + payload.size() > most_in_doubt) {
            fail(errc::too_large, "prepared transactions take 64 MiB together at most: decide about those that are in doubt");
        }
    }
    {
        const std::lock_guard lock(holding_);
        held_[std::string(xid)]; // there is memory for it
        held_.find(xid)->second.reserve(held.size());
    }
    ticket t;
    placed p;
    try {
        const draft d = make_draft(record_kind::prepared, 0, payload);
        p = place_all({}, {}, {&d, 1}, standing::alone_and_safe, &t);
        if (p.taken) {
            wait(t);
            p.why = t.why;
        }
        if (p.why.kind() != errc{}) { p.why.raise(); }
    } catch (...) {
        take_held(xid);
        throw;
    }
    const std::lock_guard lock(holding_);
    held_.find(xid)->second = std::move(held);
    held.clear();
}

template <class Files>
std::vector<undecided*> log_engine<Files>::take_held(std::string_view xid) {
    const std::lock_guard lock(holding_);
    const auto at = held_.find(xid);
    if (at == held_.end()) { return {}; }
    std::vector<undecided*> all = std::move(at->second);
    held_.erase(at);
    return all;
}

template <class Files>
std::vector<std::string> log_engine<Files>::in_doubt() {
    std::vector<std::string> names;
    const std::lock_guard lock(state_);
    for (const auto& [name, bytes] : catalog_.in_doubt()) { names.push_back(name); }
    return names;
}

template <class Files>
std::vector<std::pair<std::string, offset>> log_engine<Files>::in_doubt_of(std::uint32_t cursor) {
    std::vector<std::pair<std::string, offset>> all;
    const std::lock_guard lock(state_);
    for (const auto& [name, bytes] : catalog_.in_doubt()) {
        for (const auto& s : prepared_content::read(*bytes).places) {
            if (s.cursor == cursor) { all.emplace_back(name, s.offset); }
        }
    }
    return all;
}

template <class Files>
void log_engine<Files>::resolve(std::string_view xid, bool commit) {
    const std::lock_guard declaring(declaring_);
    catalog::prepared_bytes bytes;
    {
        const std::lock_guard lock(state_);
        const auto at = catalog_.in_doubt().find(xid);
        if (at == catalog_.in_doubt().end()) { fail(errc::not_found, "no transaction is prepared as '" + std::string(xid) + "'"); }
        bytes = at->second;
    }
    prepared_content content = commit ? prepared_content::read(*bytes) : prepared_content();

    // Who has the streams open is told of what comes; ids are locked for each endpoint once.
    struct coming {
        stream_listener* listener = nullptr;
        record what;
        std::unique_ptr<adopted_message> adopted;
        std::size_t parcel = 0, index = 0; // which, counted from 1; and where in it
        offset place = no_offset;
    };
    std::vector<coming> all;
    struct undo {
        std::vector<coming>& all;
        bool done = false;
        ~undo() {
            for (coming& c : all) {
                if (!done && c.adopted != nullptr) { c.listener->not_adopted(*c.adopted, c.place); }
            }
        }
    } undo_later{all};
    struct locked_ids {
        std::map<const void*, stream_listener*, std::less<>> all; // locked in this order, as by a transaction that commits
        bool is_locked = false;
        void lock() noexcept {
            for (const auto& [ids, l] : all) { l->lock_ids(); }
            is_locked = true;
        }
        void unlock() noexcept {
            if (!std::exchange(is_locked, false)) { return; }
            for (const auto& [ids, l] : all) { l->unlock_ids(); }
        }
        ~locked_ids() { unlock(); }
    } ids;
    std::vector<parcel> parcels;
    std::vector<std::vector<std::byte>> payloads;
    std::map<std::uint32_t, std::uint32_t> endpoint_of;
    for (const auto& m : content.messages) {
        coming c;
        c.what.head.kind = record_kind::message;
        c.what.head.stream = m.stream;
        c.what.head.schema = m.schema;
        c.what.head.properties = m.properties;
        c.what.head.time = m.time;
        c.what.head.length = static_cast<std::uint32_t>(m.payload.size());
        c.what.payload = m.payload;
        all.push_back(std::move(c));
    }
    {
        const std::lock_guard lock(mutex_);
        for (coming& c : all) {
            const auto at = slots_.find(c.what.head.stream);
            if (at != slots_.end()) { c.listener = at->second.listener; }
        }
    }
    {
        const std::lock_guard lock(state_);
        for (const coming& c : all) { endpoint_of[c.what.head.stream] = catalog_.stream(c.what.head.stream).endpoint; }
    }
    for (const coming& c : all) {
        if (c.listener != nullptr && c.listener->id_keeper() != nullptr) { ids.all.emplace(c.listener->id_keeper(), c.listener); }
    }
    ids.lock();
    std::set<std::pair<std::uint32_t, std::string>> own; // ids of this transaction
    for (coming& c : all) {
        if (c.what.head.properties != 0) {
            bytes_view front = c.what.payload.first(c.what.head.properties);
            const properties props = decode_properties(front);
            const std::uint32_t number = endpoint_of[c.what.head.stream];
            const std::lock_guard lock(state_);
            const endpoint_entry& to = catalog_.endpoint(number);
            if (!props.id.empty() && (to.shape.dedup_window != 0 || to.shape.dedup_until_settled)) {
                if (!own.emplace(number, props.id).second) { continue; }
                if (c.listener == nullptr) {
                    catalog_.forget_ids(std::chrono::duration_cast<duration>(clock_.wall().time_since_epoch()).count());
                    if (std::any_of(to.ids.begin(), to.ids.end(), [&](const known_id& k) { return k.id == props.id; })) { continue; }
                }
            }
        }
        if (c.listener != nullptr) {
            c.adopted = c.listener->adopt(c.what);
            if (c.adopted == nullptr) { continue; } // a duplicate by now
        }
        draft d = make_draft(record_kind::message, c.what.head.stream, payloads.emplace_back(c.what.payload.begin(), c.what.payload.end()));
        d.schema = c.what.head.schema;
        d.properties = c.what.head.properties;
        d.time = c.what.head.time;
        if (parcels.empty() || parcels.back().stream != d.stream) { parcels.emplace_back().stream = d.stream; }
        c.parcel = parcels.size();
        c.index = parcels.back().drafts.size();
        parcels.back().drafts.push_back(d);
    }
    {
        const std::lock_guard lock(holding_);
        const auto at = held_.find(xid);
        for (undecided* const one : at != held_.end() ? at->second : std::vector<undecided*>()) {
            if (!one->has_lost()) { continue; } // it is read again, or was purged
            const settled_place where = one->place();
            if (where.changes == nullptr) { continue; }
            std::erase_if(content.places, [&](const auto& s) { return s.cursor == where.changes->cursor() && s.offset == where.place; });
        }
    }
    std::vector<draft> others = settle_all(content.places, payloads);
    std::vector<std::byte> verdict;
    wire_writer to(verdict);
    to.text(xid);
    to.var(commit ? 1 : 0);
    others.push_back(make_draft(record_kind::verdict, 0, verdict));

    ticket t;
    placed p = place_all(parcels, {}, others, standing::alone_and_safe, &t);
    for (coming& c : all) { c.place = p.taken && c.parcel != 0 ? parcels[c.parcel - 1].first + c.index : no_offset; }
    if (p.taken) {
        for (coming& c : all) {
            if (c.adopted != nullptr) { c.listener->adopted(*c.adopted, c.place); }
        }
    }
    ids.unlock();
    if (p.taken) {
        wait(t);
        p.why = t.why;
    }
    if (p.why.kind() != errc{}) { p.why.raise(); }
    undo_later.done = true;
    for (coming& c : all) {
        if (c.adopted != nullptr) { c.listener->came(*c.adopted, c.place); }
    }
    for (undecided* const one : take_held(xid)) { one->decide(commit); }
}

} // namespace mailroom::detail
