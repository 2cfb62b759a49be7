// Queues, topics and subscriptions are declared, opened and left.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>

namespace mailroom::detail {

template <class Files>
void log_engine<Files>::place_declaration(record_kind kind, std::uint32_t stream, const std::vector<std::byte>& payload) {
    std::vector<std::byte> bytes = payload;
    draft d = make_draft(kind, stream, bytes);
    d.offset = 0;
    ticket t;
    // Where a batch that could not be written is kept for later, what its caller was told has failed must not be in it.
    placed p = options_.durability == mailroom::durability::none ? place_all({}, {}, {&d, 1}, standing::alone, &t) : place({&d, 1}, admission(), &t);
    if (!p.taken) { p.why.raise(); }
    wait(t);
    if (t.why.kind() != errc{}) { t.why.raise(); }
}

template <class Files>
log_port::endpoint_ref log_engine<Files>::open(std::string_view name, const endpoint_shape& shape, const schema& own,
                                               const std::function<void(const schema&)>& check) {
    const std::lock_guard declaring(declaring_);
    std::uint32_t number = 0, cursor = 0;
    bool knows_own = false, other_ids = false;
    {
        const std::lock_guard gathering(mutex_);
        const std::lock_guard lock(state_);
        if (const std::uint32_t* const known = catalog_.find(name)) {
            number = *known;
            const endpoint_entry& e = catalog_.endpoint(number);
            for (const schema& s : e.schemas) {
                check(s);
                knows_own = knows_own || s == own;
            }
            const auto open = slots_.find(number);
            const bool is_open = open != slots_.end() && open->second.listener != nullptr; // then the options of its first opening hold
            other_ids = !is_open && (e.shape.dedup_window != shape.dedup_window || e.shape.dedup_until_settled != shape.dedup_until_settled);
            const auto differs = [&](const char* what) {
                fail(errc::already_exists, std::string("'").append(name).append("' is there already, with ").append(what));
            };
            if (e.shape.kind != shape.kind) {
                differs(e.shape.kind == endpoint_kind::queue ? "messages for a queue, not a topic" : "messages for a topic, not a queue");
            }
            if (e.shape.partitions != shape.partitions) { differs("another number of partitions"); }
            if (e.shape.priorities != shape.priorities) { differs("other priorities"); }
            if (e.shape.ordered_by_key != shape.ordered_by_key) { differs("another ordered_by_key"); }
        } else {
            number = catalog_.next_stream();
            cursor = catalog_.next_cursor();
        }
    }
    std::vector<std::byte> payload;
    wire_writer to(payload);
    if (cursor == 0) {
        if (!knows_own && !read_only_) {
            catalog::write_schema(to, own);
            place_declaration(record_kind::schema, number, payload);
        }
        if (other_ids && !read_only_) { // from now on other ids are kept
            payload.clear();
            catalog::write_shape(to, shape);
            place_declaration(record_kind::deduplication, number, payload);
        }
        return {number, false};
    }
    catalog::write_endpoint(to, name, shape, own, cursor);
    place_declaration(record_kind::endpoint, number, payload);
    return {number, true};
}

template <class Files>
std::uint16_t log_engine<Files>::schema_number(std::uint32_t endpoint, const schema& own) {
    const std::lock_guard lock(state_);
    const auto& all = catalog_.endpoint(endpoint).schemas;
    const auto at = std::find(all.begin(), all.end(), own);
    return at != all.end() ? static_cast<std::uint16_t>(at - all.begin()) : 0;
}

template <class Files>
std::uint32_t log_engine<Files>::subscribe(std::uint32_t endpoint, std::string_view name, std::uint32_t mode, const std::vector<cursor_image>& at) {
    const std::lock_guard declaring(declaring_);
    std::vector<std::byte> payload;
    wire_writer to(payload);
    std::uint32_t cursor = 0;
    {
        const std::lock_guard lock(state_);
        cursor = catalog_.next_cursor();
    }
    catalog::write_subscription(to, name, mode, cursor, at);
    place_declaration(record_kind::subscription, endpoint, payload);
    return cursor;
}

template <class Files>
void log_engine<Files>::unsubscribe(std::uint32_t endpoint, std::string_view name) {
    std::vector<std::byte> payload;
    wire_writer(payload).text(name);
    place_declaration(record_kind::removal, endpoint, payload);
}

template <class Files>
void log_engine<Files>::put_cursor(std::uint32_t cursor, const cursor_image& at) {
    std::vector<std::byte> payload;
    wire_writer to(payload);
    at.write(to);
    draft d = make_draft(record_kind::place, cursor, payload);
    d.offset = 0;
    const placed p = place({&d, 1}, admission(), nullptr);
    if (!p.taken) { p.why.raise(); }
}

template <class Files>
void log_engine<Files>::attach(std::uint32_t stream, stream_listener& l) {
    const std::lock_guard lock(mutex_);
    const std::lock_guard held(state_);
    slot& s = slots_[stream];
    const offset next = catalog_.stream(stream).next;
    if (s.listener == nullptr) { s.placed = std::max(s.placed, next); }
    s.listener = &l;
    l.advance(next);
}

template <class Files>
void log_engine<Files>::detach(std::uint32_t stream) noexcept {
    std::unique_lock lock(mutex_);
    const std::lock_guard held(state_);
    const auto at = slots_.find(stream);
    if (at != slots_.end()) { at->second.listener = nullptr; } // what was placed is still to be committed
}

template <class Files>
void log_engine<Files>::detach(change_source& s) noexcept {
    for (;;) {
        std::unique_lock lock(mutex_);
        if (leading_) { // he may have collected from it
            const std::uint32_t e = epoch_.load(std::memory_order_relaxed);
            lock.unlock();
            clock_.park(epoch_, e, clock::never);
            continue;
        }
        {
            const std::lock_guard held(dirty_mutex_);
            std::erase(s.is_of_stream() ? counting_ : dirty_, &s);
        }
        std::erase_if(open_.collected,
                      [&](const auto& c) { return c.first == &s; }); // should that fail, it is delivered again after the next opening
        std::vector<std::byte> steps;
        s.collect(steps);
        if (steps.empty() || refusal().kind() != errc{}) { return; }
        try {
            append(open_, make_draft(kind_of(s), s.number(), steps), 0);
        } catch (...) {} // no memory: it is delivered again after the next opening
        return;
    }
}

} // namespace mailroom::detail
