// A batch is written, synced, and taken in: the leader's part.
#pragma once

#include <mailroom/journal/detail/engine_class.hpp>

namespace mailroom::detail {

/// What was collected is to be written with the next batch instead.
template <class Files>
void log_engine<Files>::return_to(change_source& s, bytes_view steps) noexcept {
    s.give_back(steps);
    if (!s.dirty.exchange(true, std::memory_order_seq_cst)) { mark(s); }
}

template <class Files>
void log_engine<Files>::mark(change_source& s) noexcept {
    const std::lock_guard lock(dirty_mutex_);
    try {
        (s.is_of_stream() ? counting_ : dirty_).push_back(&s);
    } catch (...) { s.dirty.store(false, std::memory_order_relaxed); } // no memory: with its next change
}

template <class Files>
void log_engine<Files>::return_collected(batch& b) noexcept {
    for (auto at = b.collected.rbegin(); at != b.collected.rend(); ++at) { return_to(*at->first, at->second); }
    b.collected.clear();
}

/// Asks those whose state has changed what they want written.
template <class Files>
void log_engine<Files>::collect(batch& b) noexcept {
    std::vector<change_source*> cursors, streams;
    {
        const std::lock_guard lock(dirty_mutex_);
        cursors.swap(dirty_);
        streams.swap(counting_);
    }
    for (change_source* const s : cursors) { collect_from(b, *s); }
    for (change_source* const s : streams) { collect_from(b, *s); }
}

template <class Files>
void log_engine<Files>::collect_from(batch& b, change_source& s) noexcept {
    s.dirty.store(false, std::memory_order_seq_cst); // what changes from here on marks it again
    std::vector<std::byte> steps;
    s.collect(steps);
    if (steps.empty()) { return; }
    const std::size_t size = steps.size(); // without what a draft pads them with
    try {
        b.collected.emplace_back(&s, steps);
        append(b, make_draft(kind_of(s), s.number(), steps), 0);
    } catch (...) {
        if (!b.collected.empty() && b.collected.back().first == &s) { b.collected.pop_back(); }
        return_to(s, bytes_view(steps).first(size));
    }
}

/// Waits a little for those who came with the last batch: they are about to come with this one. Without that they would part into two crowds
/// that take turns, each of which waits for the other's sync.
template <class Files>
void log_engine<Files>::gather(std::unique_lock<std::mutex>& lock) noexcept {
    constexpr duration at_most = std::chrono::microseconds(40);
    if (expected_ <= 1 || open_.waiting >= expected_ || clock_.patience() == duration::zero()) { return; }
    const unsigned expected = expected_;
    lock.unlock();
    const duration until = clock_.now() + at_most;
    while (joined_.load(std::memory_order_relaxed) < expected && clock_.now() < until) { clock_.relax(64); }
    lock.lock();
}

template <class Files>
void log_engine<Files>::take_over_tickets(batch& from, ticket*& chain, ticket*& last) noexcept {
    if (from.first == nullptr) { return; }
    (last != nullptr ? last->next : chain) = from.first;
    last = from.last;
    from.first = from.last = nullptr;
}

/// Commits the open batch. Called with the lock, and returns with it; in between it is free.
template <class Files>
void log_engine<Files>::lead(std::unique_lock<std::mutex>& lock, bool may_gather) noexcept {
    leading_ = true;
    for (;;) {
        if (may_gather) { gather(lock); }
        if (!over_) { collect(open_); }
        batch now = std::move(open_);
        open_ = batch();
        open_.bytes.swap(spare_buffer_);
        start(open_, now.base + now.size());
        joined_.store(0, std::memory_order_relaxed);
        failure why = over_ ? failure(errc::closed) : broken_;
        lock.unlock();

        std::uint64_t check = 0;
        std::vector<arrival> arrivals;
        if (why.kind() == errc{} && (now.records != 0 || now.to_sync)) {
            why = read_only_ && now.records != 0 ? failure(errc::unsupported) : write(now, check);
            if (why.kind() == errc{} && now.records != 0) {
                try {
                    take_in(now, check, arrivals);
                } catch (...) {
                    // On disk, but not here: from now on memory and disk would differ. Who sent it is told no, so it has to go from there too.
                    why = failure(errc::io);
                    take_off_disk(now);
                    stop_writing(why);
                }
            }
        }

        ticket* chain = nullptr;
        ticket* last = nullptr;
        byte_buffer buffer;
        bool is_kept = false;
        lock.lock();
        expected_ = std::max(1u, now.waiting + open_.waiting); // who came too late for this one belongs to the next: all of them to one
        take_over_tickets(now, chain, last);
        failed_ = why;
        if (now.stands_alone) { alone_ = false; }
        if (why.kind() != errc{} && options_.durability == mailroom::durability::none && broken_.kind() == errc{} && !read_only_ &&
            !now.stands_alone) {
            keep(now); // nobody was promised that it is written, but what is accepted is not forgotten: it is written when that works
            is_kept = true;
        } else if (why.kind() != errc{}) { // what gathered meanwhile counted on it
            return_collected(open_);       // in front of it comes what was collected before
            return_collected(now);
            take_over_tickets(open_, chain, last);
            buffer.swap(open_.bytes);
            start(open_, now.base);
            open_.bytes.swap(buffer);
            open_.bytes.clear();
            joined_.store(0, std::memory_order_relaxed);
            const std::lock_guard held(state_);
            for (auto& [stream, s] : slots_) { s.placed = catalog_.stream(stream).next; }
        }
        if (now.bytes.capacity() <= most_gathered) {
            now.bytes.clear();
            if (open_.bytes.empty()) { // what was written last is still in the cache
                open_.bytes.swap(now.bytes);
                open_.bytes.clear_for(byte_of(open_.base));
            }
            if (now.bytes.capacity() > spare_buffer_.capacity()) { spare_buffer_.swap(now.bytes); }
        }
        const bool again = open_.wanted;
        if (!again) { leading_ = false; }
        lock.unlock();
        // Another may lead by now: nothing of the leader's is touched below.
        finish(chain, why, is_kept);
        for (const arrival& a : arrivals) {
            a.listener->arrived(a.n);
            a.listener->let_go();
        }
        if (why.kind() == errc{} && now.records != 0) {
            tend();
        } else if (why.kind() == errc::io && no_space_.exchange(false)) {
            make_space();
        }
        lock.lock();
        failed_ = why; // whatever was committed for the sake of space meanwhile
        if (!again) { return; }
        may_gather = false;
    }
}

/// A batch that could not be written is the open one again, in front of what gathered meanwhile.
template <class Files>
void log_engine<Files>::keep(batch& b) noexcept {
    try {
        b.bytes.reserve(b.size() + open_.size());
        for (std::size_t at = batch_header::size; at < open_.size();) {
            const bytes_view rest = bytes_view(open_.bytes).subspan(at);
            record_header h;
            record_header::decode(rest, open_.base + at, seed_, h);
            const std::size_t front = b.size();
            h.position = b.base + front;
            b.bytes.add(rest.first(h.whole()));
            h.encode(b.bytes.data() + front, seed_);
            at += h.whole();
        }
        b.records += open_.records;
    } catch (...) { // no memory: what gathered meanwhile, the end of each stream, is lost
        return_collected(open_);
        const std::lock_guard held(state_);
        for (auto& [stream, s] : slots_) { s.placed = catalog_.stream(stream).next; }
        for (std::size_t at = batch_header::size; at < b.size();) {
            record_header h;
            record_header::decode(bytes_view(b.bytes).subspan(at), b.base + at, seed_, h);
            if (h.kind == record_kind::message) { slots_.at(h.stream).placed = h.offset + 1; }
            at += h.whole();
        }
    }
    open_.bytes.swap(b.bytes);
    open_.records = b.records;
    open_.base = b.base;
    open_.holds_more = open_.holds_more || b.holds_more;
    open_.wanted = false; // not again at once
}

/// Tells everybody. Threads first: they sleep. `is_kept`: it could not be written, and will be: what receipts promise, that it is accepted, it is.
template <class Files>
void log_engine<Files>::finish(ticket* chain, const failure& why, bool is_kept) noexcept {
    ticket* calls = nullptr;
    ticket** end = &calls;
    while (chain != nullptr) {
        ticket& t = *std::exchange(chain, chain->next);
        if (t.finish == nullptr || !is_kept) { t.why = why; }
        if (t.finish != nullptr) {
            t.next = nullptr;
            *end = &t;
            end = &t.next;
        } else {
            t.done.store(1, std::memory_order_release); // it may be gone after this
        }
    }
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    clock_.unpark(epoch_);
    while (calls != nullptr) {
        ticket& t = *std::exchange(calls, calls->next);
        t.finish(t);
    }
}

/// What is on disk of a batch is none any more.
template <class Files>
void log_engine<Files>::overwrite_header(const batch& b) noexcept {
    const std::array<std::byte, batch_header::size> nothing{};
    const bytes_view zeros(nothing);
    static_cast<void>(write_all(files_, *current_file_, current_->byte_of(b.base), {&zeros, 1}));
}

/// The same of the last one, which was written, for good. Nothing is written after it.
template <class Files>
void log_engine<Files>::take_off_disk(const batch& b) noexcept {
    overwrite_header(b);
    static_cast<void>(until_done([&] { return files_.sync(*current_file_); }));
}

/// Puts a batch on disk, as durable as is asked for. The leader's, without a lock.
template <class Files>
failure log_engine<Files>::write(batch& b, std::uint64_t& check) noexcept {
    const bool to_sync = b.to_sync || (options_.durability == mailroom::durability::commit && b.holds_more);
    if (b.to_rotate && b.base != current_->first()) {
        if (failure why = rotate(b.base); why.kind() != errc{}) { return why; }
    }
    if (b.records != 0) {
        if (failure why = make_room(b.base, b.size()); why.kind() != errc{}) { return why; }
        const batch_header h{.records = b.records,
                             .position = b.base,
                             .length = b.size() - batch_header::size,
                             .previous = chain_,
                             .incarnation = incarnation_,
                             .durable_upto = durable_,
                             .time = std::chrono::duration_cast<duration>(clock_.wall().time_since_epoch()).count()};
        check = h.encode(b.bytes.data(), seed_);
        const bytes_view all(b.bytes);
        const std::uint64_t at = current_->byte_of(b.base);
        if (const auto ec = write_all(files_, *current_file_, at, {&all, 1})) {
            // Whatever of it got through is not to be taken for a batch, should the process end before the next one is written over it.
            overwrite_header(b);
            incarnation_.fetch_add(1);
            note_space(ec);
            if (ec == std::errc::no_space_on_device && !until_done([&] { return files_.truncate(*current_file_, at); })) {
                zeroed_ = at; // what was written ahead is room for the manifest, which can give back more
            }
            try {
                return io_failure("cannot write to", current_->path(), ec);
            } catch (...) { return errc::io; }
        }
    }
    if (to_sync) {
        failure why = sync_behind();
        if (why.kind() == errc{}) {
            if (const auto ec = sync_data(*current_file_)) { why = sync_failed(current_->path(), ec); }
        }
        if (why.kind() != errc{}) {
            if (b.records != 0) { overwrite_header(b); }
            return why;
        }
        durable_ = b.base + b.size();
    } else {
        begin_writing_back(b.base + b.size());
    }
    if (b.records != 0) { chain_ = check; }
    return errc{};
}

/// A message lies here. Returns which of the runs of its segment it belongs to.
template <class Files>
std::size_t log_engine<Files>::take_place(const record& r, const segment_ptr& where) {
    bool is_new = false;
    const std::size_t which = where->add(r.head.stream, r.head.offset, r.head.position, is_new);
    if (is_new) { extents_[r.head.stream].push_back({where, which, r.head.offset}); }
    return which;
}

template <class Files>
void log_engine<Files>::take(const record& r, const segment_ptr& where) {
    catalog_.take(r);
    if (r.head.kind == record_kind::message) {
        take_place(r, where);
    } else if (r.head.kind == record_kind::moved) {
        moved_[r.head.stream].insert_or_assign(r.head.offset, spot{where, r.head.position});
    } else if (r.head.kind == record_kind::survivors) {
        wire_reader from(r.payload);
        switch_to(survivor_list::read(from));
    }
}

/// What was written is known from here on, and visible: the heads of its streams move on; who listens is kept until he has been told.
template <class Files>
void log_engine<Files>::take_in(const batch& b, std::uint64_t check, std::vector<arrival>& arrivals) {
    const std::lock_guard lock(state_);
    is_whole_ = false;
    struct { // messages of one stream, one after the other: most of what there is
        std::uint32_t stream = 0;
        offset next = 0;
        std::size_t which = 0; // of the runs
        std::size_t n = 0;
    } row;
    const auto end_row = [&] {
        if (row.n == 0) { return; }
        catalog_.skip_to(row.stream, row.next);
        note_arrivals(row.stream, row.n, arrivals);
        row.n = 0;
    };
    for (std::size_t at = batch_header::size; at < b.size();) {
        if (row.n != 0) {
            std::size_t whole = 0;
            const std::size_t n = current_->extend(row.which, [&](std::uint64_t& position) {
                if (at >= b.size() || !record_header::is_plain_at(b.bytes.data() + at, row.stream, row.next, whole)) { return false; }
                position = b.base + at;
                at += whole;
                ++row.next;
                return true;
            });
            row.n += n;
            if (at >= b.size()) { break; }
        }
        const bytes_view rest = bytes_view(b.bytes).subspan(at);
        record r;
        r.head = record_header::decode_own(rest.data());
        at += r.head.whole();
        end_row();
        r.payload = rest.subspan(record_header::size, r.head.length);
        if (r.head.kind != record_kind::message) {
            take(r, current_);
            continue;
        }
        catalog_.take(r);
        row = {r.head.stream, r.head.offset + 1, take_place(r, current_), 1};
    }
    end_row();
    current_->set_end(b.base + b.size());
    applied_ = b.base + b.size();
    applied_chain_ = check;
    applied_durable_ = durable_;
    is_whole_ = true;
    for (const arrival& a : arrivals) { a.listener->advance(catalog_.stream(a.stream).next); }
}

template <class Files>
void log_engine<Files>::note_arrivals(std::uint32_t stream, std::size_t n, std::vector<arrival>& arrivals) {
    const auto known = std::find_if(arrivals.rbegin(), arrivals.rend(), [&](const arrival& a) { return a.stream == stream; });
    if (known != arrivals.rend()) {
        known->n += n;
        return;
    }
    const auto s = slots_.find(stream);
    if (s == slots_.end() || s->second.listener == nullptr) { return; }
    arrivals.push_back({stream, s->second.listener, n});
    s->second.listener->hold();
}

template <class Files>
void log_engine<Files>::keep(const std::atomic<bool>& stop) noexcept {
    while (!stop.load(std::memory_order_acquire)) {
        const std::uint32_t word = keeper_word_.load(std::memory_order_seq_cst);
        bool there = false;
        {
            std::unique_lock lock(mutex_);
            there = open_.records != 0 || open_.first != nullptr;
            if (there && !leading_ && !closed_.load(std::memory_order_relaxed)) {
                lead(lock, false);
                continue;
            }
            if (there) { open_.wanted = true; }
        }
        if (!stop.load(std::memory_order_acquire)) { clock_.park(keeper_word_, word, clock::never); }
    }
    push();
}

} // namespace mailroom::detail
