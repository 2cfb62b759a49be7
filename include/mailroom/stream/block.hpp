// block<T>: `span` messages of a stream, side by side.
//
// A slot is one word and the body, nothing else, for cache lines are what a message costs. The word says that the body is there, and carries
// either when it was sent, in nanoseconds since the block was opened, or the address of its envelope, which knows that too.
//
// A slot's life: empty -> (a sender took its offset) -> written, then `ready` stored with release -> read by those who loaded `ready`
// with acquire -> body ended by whoever settled the message -> the block is released when that is true of every slot.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/message/body.hpp>
#include <mailroom/message/message.hpp>
#include <mailroom/message/traits.hpp>
#include <mailroom/stream/directory.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

namespace mailroom::detail {

/// The low bits of a slot's word.
enum slot_bits : std::uint64_t {
    slot_empty = 0,
    slot_ready = 1,
    slot_enveloped = 2, // above: an envelope*; otherwise a time
    slot_timed = 4,     // the envelope has a time before or after which the message may not be handed out
    slot_lost = 6,      // as a whole word: there is no message, or it cannot be read
};
inline constexpr std::uint64_t slot_bits_mask = 7;

template <class T>
struct slot {
    std::atomic<std::uint64_t> ready{slot_empty};
    detail::body<T> value;
};

/// Bytes of each message, kept only where they differ between messages.
template <class T>
struct sizes {
    static constexpr bool varies = !footprint_is_constant<T>;
    struct none {};
    [[no_unique_address]] std::conditional_t<varies, std::array<std::uint64_t, span>, none> bytes;
};

template <class T>
struct block {
    block* next_free = nullptr;
    duration opened{}; // on the endpoint's clock
    offset first = 0;
    // Guarded by the stream's mutex; a stream with one reader needs neither.
    std::uint32_t tenants = 0; // who need it yet: readers, and whoever retains messages
    bool sealed = false;       // it is written
    std::array<slot<T>, span> slots;
    sizes<T> weight;

    block() noexcept = default; // weights are written before they are read

    void set_size([[maybe_unused]] std::uint32_t i, [[maybe_unused]] std::size_t bytes) noexcept {
        if constexpr (sizes<T>::varies) { weight.bytes[i] = bytes; }
    }
    std::uint64_t size_of([[maybe_unused]] std::uint32_t i) const noexcept {
        if constexpr (sizes<T>::varies) {
            return weight.bytes[i];
        } else {
            return sizeof(T);
        }
    }
    /// Ends the message in slot `i`: envelope and body.
    void end(std::uint32_t i) noexcept {
        if (slots[i].ready.load(std::memory_order_relaxed) == slot_lost) { return; }
        delete enveloped(slots[i].ready.load(std::memory_order_relaxed));
        if constexpr (!body<T>::trivial) { slots[i].value.drop(); }
    }

    /// Asks for the lines a receiver that works through a backlog will read soon. Only worth it, and only harmless, where senders are done
    /// with them. An address beyond the block does no harm.
    void expect_reads(std::uint32_t i) const noexcept {
        constexpr std::uintptr_t ahead = 512;
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(&slots[i]) + ahead));
    }
    void expect_reads_from_start() const noexcept {
        const auto at = reinterpret_cast<std::uintptr_t>(this);
        for (std::uintptr_t line = 0; line < 512; line += 64) { __builtin_prefetch(reinterpret_cast<const void*>(at + line)); }
    }

    /// Asks for the lines of slots [from, to): all of them at once, so that nobody waits for one after the other.
    void expect_reads(std::uint32_t from, std::uint32_t to) const noexcept {
        const auto end = reinterpret_cast<std::uintptr_t>(&slots[0] + to);
        for (auto at = reinterpret_cast<std::uintptr_t>(&slots[from]); at < end; at += 64) { __builtin_prefetch(reinterpret_cast<const void*>(at)); }
    }
    void expect_writes(std::uint32_t from, std::uint32_t to) noexcept {
        const auto end = reinterpret_cast<std::uintptr_t>(&slots[0] + to);
        for (auto at = reinterpret_cast<std::uintptr_t>(&slots[from]); at < end; at += 64) {
            __builtin_prefetch(reinterpret_cast<const void*>(at), 1);
        }
    }

    /// The word of a message without an envelope, sent at `when`.
    std::uint64_t word_at(duration when) const noexcept {
        constexpr std::int64_t most = std::int64_t{1} << 60; // a message sent 36 years after its block was opened stays that old
        return static_cast<std::uint64_t>(std::clamp<std::int64_t>(when.count() - opened.count(), -most, most - 1)) << 3 | slot_ready;
    }
    /// The word of one with.
    static std::uint64_t word_of(const envelope* e) noexcept {
        static_assert(alignof(envelope) > slot_bits_mask);
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(e)) | slot_ready | slot_enveloped |
               (e->is_timed() ? std::uint64_t{slot_timed} : 0);
    }

    static envelope* enveloped(std::uint64_t word) noexcept {
        return (word & slot_enveloped) != 0 ? reinterpret_cast<envelope*>(static_cast<std::uintptr_t>(word & ~slot_bits_mask)) : nullptr;
    }
    duration sent(std::uint64_t word) const noexcept {
        if (const envelope* const e = enveloped(word)) { return e->sent; }
        return opened + duration(static_cast<std::int64_t>(word) >> 3);
    }
};

/// Fills the slots of a stream whose messages are stored elsewhere.
template <class T>
class loader {
public:
    /// Returns the word of a slot that was empty, and below the head: its message is in it now, or it is `slot_lost`. Fills its neighbours as
    /// well. Threads: any.
    virtual std::uint64_t load(block<T>& b, std::uint32_t i) noexcept = 0;

protected:
    ~loader() = default;
};

/// The word of a slot whose offset was taken: waits until its sender has written it.
template <class T>
std::uint64_t wait_until_written(const slot<T>& s, clock& c) noexcept {
    // Looking often would take from the sender, each time, the line it is writing to.
    struct waiting {
        [[gnu::noinline]] static std::uint64_t wait(const slot<T>& s, clock& c) noexcept {
            for (unsigned round = 0;; ++round) {
                for (unsigned i = 0; i < 8; ++i) { c.relax(round); }
                if (const std::uint64_t word = s.ready.load(std::memory_order_acquire); word != slot_empty) { return word; }
            }
        }
    };
    const std::uint64_t word = s.ready.load(std::memory_order_acquire);
    return word != slot_empty ? word : waiting::wait(s, c);
}

} // namespace mailroom::detail
