// shelf<T>: where `T` meets stream and cursor. It keeps the bodies, and answers what the cursor asks about them.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/message/traits.hpp>
#include <mailroom/stream/stream.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace mailroom::detail {

/// A stream of `T` and one cursor over it. The bodies that leave their slots stand in nodes.
template <class T>
class shelf : protected cursor_host {
public:
    time_point wall(duration t) const noexcept { return wall_base_ + std::chrono::duration_cast<time_point::duration>(t); }

protected:
    using slot_block = block<T>;
    struct node {
        body<T> value;
        bool alive = true;
    };

    shelf(clock& c, const cursor_options& o)
        : clock_(c), is_os_clock_(&c == &system_clock()), wall_base_(c.wall() - std::chrono::duration_cast<time_point::duration>(c.now())),
          cursor_(*this, c, o, std::is_trivially_destructible_v<T>) {}
    ~shelf() = default;

    duration coarse() const noexcept { return is_os_clock_ ? os_clock::read_coarse() : clock_.coarse(); }
    static void set_size(slot_block& b, std::uint32_t i, std::size_t bytes) noexcept {
        if constexpr (sizes<T>::varies) { b.weight.bytes[i] = bytes; }
    }
    static std::uint64_t size_of(const slot_block& b, std::uint32_t i) noexcept {
        if constexpr (sizes<T>::varies) {
            return b.weight.bytes[i];
        } else {
            return sizeof(T);
        }
    }

    std::uint64_t wait_until_written(const slot<T>& s) const noexcept {
        const std::uint64_t word = s.ready.load(std::memory_order_acquire);
        return word != slot_empty ? word : wait_for_sender(s);
    }
    // Its sender is between taking the offset and writing. Looking often would take from it, each time, the line it is writing to.
    [[gnu::noinline]] std::uint64_t wait_for_sender(const slot<T>& s) const noexcept {
        for (unsigned round = 0;; ++round) {
            for (unsigned i = 0; i < 8; ++i) { clock_.relax(round); }
            if (const std::uint64_t word = s.ready.load(std::memory_order_acquire); word != slot_empty) { return word; }
        }
    }

    // cursor_host, as far as bodies are concerned

    offset head() const noexcept override { return stream_.head(); }
    void* block_of(offset first) const noexcept override {
        // Called as a page is opened: by the time its first slots are read, the lines of the next block are on their way.
        const offset head = stream_.head();
        if (head > first + 2 * span) { stream_.at(first + span)->expect_reads_from_start(); }
        return stream_.at(first);
    }
    view look(void* at, std::uint32_t i) noexcept override {
        slot_block& b = *static_cast<slot_block*>(at);
        const std::uint64_t word = wait_until_written(b.slots[i]);
        return {b.slots[i].value.get(), b.enveloped(word), b.sent(word), size_of(b, i)};
    }
    void* evacuate(void* at, std::uint32_t i) noexcept override {
        slot_block& b = *static_cast<slot_block*>(at);
        node* const n = new (std::nothrow) node;
        if (n != nullptr) {
            if constexpr (is_boxed<T>) {
                b.slots[i].value.take([n](auto&& value) { n->value.put(std::move(value)); });
            } else {
                n->value.put(std::move(*b.slots[i].value.get()));
                b.slots[i].value.drop();
            }
        }
        return n;
    }
    const void* body_of(void* at) const noexcept override { return static_cast<node*>(at)->value.get(); }
    void end(const entry& e) noexcept override {
        delete e.cover;
        if (e.node != nullptr) {
            node* const n = static_cast<node*>(e.node);
            if (e.body != nullptr) { n->value.drop(); }
            delete n;
        } else if (e.body != nullptr) {
            static_cast<slot_block*>(e.home->block)->slots[e.index].value.drop();
        }
    }
    std::uint64_t weigh(offset first, offset last) const noexcept override {
        if constexpr (sizes<T>::varies) {
            std::uint64_t sum = 0;
            for (offset o = first; o < last; ++o) {
                const slot_block& b = *stream_.at(o);
                if (b.slots[index_in_span(o)].ready.load(std::memory_order_acquire) != slot_empty) { sum += size_of(b, index_in_span(o)); }
            }
            return sum;
        } else {
            return (last - first) * sizeof(T);
        }
    }
    std::uint64_t weight(void* at, std::uint32_t i) const noexcept override { return size_of(*static_cast<slot_block*>(at), i); }
    duration sent_if_plain(void* at, std::uint32_t i) const noexcept override {
        const slot_block& b = *static_cast<slot_block*>(at);
        const std::uint64_t word = b.slots[i].ready.load(std::memory_order_acquire);
        return (word & slot_enveloped) != 0 ? duration::min() : b.sent(word);
    }
    void release_block(offset first, void* at) noexcept override { stream_.release(first, static_cast<slot_block*>(at)); }
    void detach_block(offset first, void* at) noexcept override { stream_.detach(first, static_cast<slot_block*>(at)); }

    clock& clock_;
    const bool is_os_clock_;
    const time_point wall_base_; // wall time at the clock's zero: timestamps do not jump when the wall clock is set
    stream<T> stream_;
    cursor cursor_;
};

} // namespace mailroom::detail
