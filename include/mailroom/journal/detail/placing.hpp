// Records come into the open batch, and whoever placed them waits for their commit.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>

namespace mailroom::detail {

template <class Files>
failure log_engine<Files>::refusal() const {
    if (closed_.load(std::memory_order_relaxed)) { return errc::closed; }
    if (read_only_) { return {errc::unsupported, "the journal is open for reading only"}; }
    return broken_;
}

template <class Files>
void log_engine<Files>::start(batch& b, std::uint64_t base) noexcept {
    b.bytes.clear_for(byte_of(base));
    b.records = 0;
    b.base = base;
    b.first = b.last = nullptr;
    b.waiting = 0;
    b.wanted = b.to_sync = b.to_rotate = b.holds_more = b.called = b.stands_alone = false;
    b.collected.clear();
}

template <class Files>
void log_engine<Files>::append(batch& b, const draft& d, offset o) {
    const std::size_t front = b.bytes.empty() ? batch_header::size : b.bytes.size();
    const std::size_t whole = d.whole();
    b.bytes.resize(front + whole);
    std::byte* const to = b.bytes.data() + front;
    const record_header h{.position = b.base + front,
                          .hash = d.hash,
                          .offset = o,
                          .time = d.time,
                          .length = d.length,
                          .stream = d.stream,
                          .kind = d.kind,
                          .schema = d.schema,
                          .properties = d.properties};
    h.encode(to, seed_);
    if (!d.payload.empty()) { std::memcpy(to + record_header::size, d.payload.data(), d.payload.size()); }
    ++b.records;
    if (d.kind != record_kind::deliveries && d.kind != record_kind::refused) { b.holds_more = true; }
}

template <class Files>
void log_engine<Files>::link(batch& b, ticket& t) noexcept {
    t.next = nullptr;
    (b.last != nullptr ? b.last->next : b.first) = &t;
    b.last = &t;
    if (t.waits) {
        ++b.waiting;
        joined_.store(b.waiting, std::memory_order_relaxed);
    }
}

template <class Files>
draft log_engine<Files>::make_draft(record_kind kind, std::uint32_t stream, std::vector<std::byte>& payload) const {
    draft d;
    d.kind = kind;
    d.stream = stream;
    d.length = static_cast<std::uint32_t>(payload.size());
    payload.resize(padded(payload.size()));
    d.payload = payload;
    d.hash = checksum(payload, seed_);
    return d;
}

/// Waits until so much more fits into the open batch; or why nothing may be placed.
template <class Files>
failure log_engine<Files>::make_way(std::unique_lock<std::mutex>& lock, std::size_t bytes) noexcept {
    const std::size_t most = std::min(most_gathered, largest_batch());
    for (;;) {
        if (failure why = refusal(); why.kind() != errc{}) { return why; }
        if (!alone_ && (open_.records == 0 || open_.size() + bytes <= most)) { return errc{}; }
        if (leading_ || alone_) { // both buffers are full
            const std::uint32_t e = epoch_.load(std::memory_order_relaxed);
            lock.unlock();
            clock_.park(epoch_, e, clock::never);
            lock.lock();
        } else {
            lead(lock, false);
            if (failed_.kind() != errc{} && open_.size() + bytes > most) { return failed_; }
        }
    }
}

template <class Files>
placed log_engine<Files>::place(std::span<draft> drafts, const admission& admit, ticket* t) {
    std::size_t bytes = 0;
    for (const draft& d : drafts) { bytes += d.whole(); }
    if (bytes > largest_batch()) {
        return {.why = {errc::too_large, "a message, or what is sent at once, takes more than half a segment of the journal (segment_bytes)"}};
    }
    std::unique_lock lock(mutex_);
    if (failure why = make_way(lock, bytes); why.kind() != errc{}) { return {.why = std::move(why)}; }
    const bool is_message = drafts.front().kind == record_kind::message;
    slot* const s = is_message ? &slot_of(drafts.front().stream) : nullptr;
    const offset first = s != nullptr ? s->placed : no_offset;
    if (!admit.ask(admit.whom, first)) { return {.full = true}; }
    const std::size_t before = open_.size();
    const std::uint32_t records = open_.records;
    try {
        offset o = first;
        for (const draft& d : drafts) { append(open_, d, is_message ? o++ : d.offset); }
    } catch (...) {
        open_.bytes.resize(before);
        open_.records = records;
        throw;
    }
    if (s != nullptr) { s->placed = first + drafts.size(); }
    if (t != nullptr) {
        t->first = first;
        link(open_, *t);
    }
    const bool is_much = open_.size() >= buffered && t == nullptr;
    if (t == nullptr || !t->waits) { call_keeper(); }
    if (is_much && !leading_) { lead(lock, false); }
    return {.taken = true, .first = first};
}

template <class Files>
offset log_engine<Files>::append(const draft& d) {
    offset at = no_offset;
    {
        const std::lock_guard lock(mutex_);
        if (closed_.load(std::memory_order_relaxed) || read_only_ || broken_.kind() != errc{}) { return no_offset; }
        if (alone_ || (open_.records != 0 && open_.size() + d.whole() > std::min(most_gathered, largest_batch()))) { return no_offset; }
        slot& s = slot_of(d.stream);
        append(open_, d, s.placed); // or throws, and nothing was changed
        at = s.placed++;
        call_keeper();
        if (open_.size() < buffered || leading_) [[likely]] { return at; }
    }
    lead_if_much();
    return at;
}

/// So much has gathered that it is time to write, unless somebody is faster.
template <class Files>
void log_engine<Files>::lead_if_much() noexcept {
    std::unique_lock lock(mutex_);
    if (open_.size() >= buffered && !leading_) { lead(lock, false); }
}

/// The slot of a stream somebody has open. With `mutex_`.
template <class Files>
auto log_engine<Files>::slot_of(std::uint32_t stream) -> slot& {
    if (last_slot_.second == nullptr || last_slot_.first != stream) { last_slot_ = {stream, &slots_.at(stream)}; }
    return *last_slot_.second;
}

/// There is something for the committer: he is told once for each batch. With `mutex_`.
template <class Files>
void log_engine<Files>::call_keeper() noexcept {
    if (keepers_.load(std::memory_order_relaxed) == 0 || open_.called) { return; }
    open_.called = true;
    wake_keeper();
}

template <class Files>
void log_engine<Files>::enrol(ticket& t) {
    const std::lock_guard lock(mutex_);
    link(open_, t);
}

template <class Files>
void log_engine<Files>::wait(ticket& t) noexcept {
    while (!t.is_done()) {
        std::unique_lock lock(mutex_);
        if (t.is_done()) { return; }
        if (!leading_) {
            lead(lock);
            continue;
        }
        const std::uint32_t e = epoch_.load(std::memory_order_relaxed);
        lock.unlock();
        if (!t.is_done()) { clock_.park(epoch_, e, clock::never); }
    }
}

template <class Files>
bool log_engine<Files>::lead_for(ticket& t) noexcept {
    if (t.is_done()) { return true; }
    std::unique_lock lock(mutex_);
    if (t.is_done()) { return true; }
    if (leading_ || keepers_.load(std::memory_order_relaxed) != 0) {
        open_.wanted = true;
        lock.unlock();
        if (keepers_.load(std::memory_order_relaxed) != 0) { wake_keeper(); }
        return t.is_done();
    }
    lead(lock, false);
    return t.is_done();
}

template <class Files>
bool log_engine<Files>::push() noexcept {
    ticket t;
    {
        const std::lock_guard lock(mutex_);
        if ((open_.records == 0 && !leading_) || closed_.load(std::memory_order_relaxed)) { return false; }
        link(open_, t);
    }
    wait(t);
    return t.why.kind() == errc{};
}

template <class Files>
void log_engine<Files>::push_settlements() noexcept {
    {
        const std::lock_guard lock(dirty_mutex_);
        if (dirty_.empty()) { return; }
    }
    ticket t;
    {
        const std::lock_guard lock(mutex_);
        if (refusal().kind() != errc{}) { return; }
        link(open_, t);
    }
    wait(t);
}

template <class Files>
void log_engine<Files>::flush(bool into_next) {
    ticket t;
    {
        const std::lock_guard lock(mutex_);
        if (failure why = refusal(); why.kind() != errc{}) { why.raise(); }
        open_.to_sync = true;
        open_.to_rotate = open_.to_rotate || into_next;
        link(open_, t);
    }
    wait(t);
    if (t.why.kind() != errc{}) { t.why.raise(); }
}

template <class Files>
void log_engine<Files>::note_deliveries(std::uint32_t cursor, bytes_view steps) noexcept {
    try {
        std::vector<std::byte> payload(steps.begin(), steps.end());
        draft d = make_draft(record_kind::deliveries, cursor, payload);
        ticket t;
        t.waits = false;
        const placed p = place({&d, 1}, admission(), &t);
        if (p.taken) { wait(t); }
    } catch (...) {} // no memory: this attempt is not counted
}

template <class Files>
offset log_engine<Files>::placed_until(std::uint32_t stream) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = slots_.find(stream);
    return at != slots_.end() ? at->second.placed : 0;
}

} // namespace mailroom::detail
