// Dead letters: messages an endpoint gave up on, with the reason. To be looked at, sent again, or thrown away.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/stop_token.hpp>
#include <mailroom/cursor/cursor.hpp>
#include <mailroom/message/delivery.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace mailroom {

namespace detail {

/// Where dead letters lie: with one cursor, or one for each partition.
class morgue {
public:
    virtual std::size_t dead_parts() const noexcept = 0;
    virtual cursor& dead_state(std::size_t part) noexcept = 0;
    /// `ack` ends a dead letter, every other verb puts it back.
    virtual settler& dead_settler(std::size_t part) noexcept = 0;
    virtual bool revive(std::size_t part, const handle&) noexcept = 0;
    virtual clock& dead_clock() const noexcept = 0;
    /// Calls `try_once()` until it answers true, waiting in between for somebody to die.
    struct attempt_to {
        bool (*call)(void*);
        void* with;
        bool operator()() const { return call(with); }
    };
    virtual bool wait_for_dead(attempt_to try_once, duration deadline) = 0;

protected:
    ~morgue() = default;
};

} // namespace detail

/// A dead message, held for the moment. `ack` ends it; every other verb, and the destructor, puts it back among the dead.
template <class T>
class dead_letter : public delivery<T> {
public:
    /// Why it is dead: what `reject` was given, "attempts exhausted", "time to live over", ...
    const std::string& reason() const noexcept { return reason_; }
    /// How often it was handed out.
    std::uint32_t attempts() const noexcept { return attempts_; }
    /// When it failed first and last, by the wall clock; for one that never failed, when it died.
    time_point first_failure() const noexcept { return first_failure_; }
    time_point last_failure() const noexcept { return last_failure_; }

private:
    template <class>
    friend class dead_letters;

    dead_letter(detail::settler& owner, const detail::entry& e, const detail::handle& at, int part, std::string reason)
        : delivery<T>(owner, static_cast<const T*>(e.body), e.cover, at, part), reason_(std::move(reason)), attempts_(e.attempt) {
        if (e.history != nullptr) {
            first_failure_ = e.history->first_failure;
            last_failure_ = e.history->last_failure;
        }
    }

    std::string reason_;
    std::uint32_t attempts_;
    time_point first_failure_{};
    time_point last_failure_{};
};

/// The dead letters of one endpoint. Valid as long as that endpoint. Thread-safe.
template <class T>
class dead_letters {
public:
    explicit dead_letters(detail::morgue& where) noexcept : where_(where) {}
    dead_letters(const dead_letters&) = delete;
    dead_letters& operator=(const dead_letters&) = delete;

    /// The first that nobody holds, or nullopt. One lock; may allocate for the reason.
    std::optional<dead_letter<T>> try_receive() {
        std::optional<dead_letter<T>> out;
        for (std::size_t part = 0; part < where_.dead_parts() && !out; ++part) {
            if (auto next = claim(part, no_offset)) { out.emplace(std::move(*next)); }
        }
        return out;
    }
    /// The same, waiting at most `limit` for one to die.
    std::optional<dead_letter<T>> receive_for(duration limit) {
        std::optional<dead_letter<T>> out;
        auto found = [&] {
            if (!out) {
                if (auto next = try_receive()) { out.emplace(std::move(*next)); }
            }
            return out.has_value();
        };
        const detail::morgue::attempt_to attempt{[](void* with) { return (*static_cast<decltype(found)*>(with))(); }, &found};
        where_.wait_for_dead(attempt, detail::deadline_after(where_.dead_clock(), limit));
        return out;
    }

    /// How many there are, those being looked at included.
    std::size_t size() const {
        std::size_t n = 0;
        for (std::size_t part = 0; part < where_.dead_parts(); ++part) { n += where_.dead_state(part).dead_count(); }
        return n;
    }
    /// The first `n` live again: ready at their own place, their attempts starting at 1, room or not. Returns how many.
    std::size_t redrive(std::size_t n) {
        std::size_t done = 0;
        for (std::size_t part = 0; part < where_.dead_parts() && done < n; ++part) { done += where_.dead_state(part).redrive(n - done); }
        return done;
    }
    /// Those for which `pred(const dead_letter<T>&)`, or `pred(const T&)`, holds live again. A generic lambda gets the dead letter.
    /// `pred` runs without any library lock. Returns how many.
    template <class Pred>
    std::size_t redrive_if(Pred pred) {
        std::size_t n = 0;
        for (std::size_t part = 0; part < where_.dead_parts(); ++part) {
            for (const offset place : where_.dead_state(part).dead_places()) {
                std::optional<dead_letter<T>> letter = claim(part, place);
                if (!letter) { continue; }
                bool chosen = false;
                if constexpr (std::is_invocable_r_v<bool, Pred&, const dead_letter<T>&>) {
                    chosen = pred(std::as_const(*letter));
                } else {
                    chosen = pred(letter->body());
                }
                if (chosen && where_.revive(part, detail::delivery_access::disarm(*letter))) { ++n; }
            }
        }
        return n;
    }
    /// Ends all that nobody holds. Returns how many; they count as dropped.
    std::size_t purge() {
        std::size_t n = 0;
        for (std::size_t part = 0; part < where_.dead_parts(); ++part) { n += where_.dead_state(part).purge_dead(); }
        return n;
    }

private:
    std::optional<dead_letter<T>> claim(std::size_t part, offset place) {
        std::optional<dead_letter<T>> out;
        where_.dead_state(part).claim_dead(
            [&](detail::entry& e) {
                const detail::handle at{&e, e.turn, e.attempt, e.offset};
                out.emplace(dead_letter<T>(where_.dead_settler(part), e, at, static_cast<int>(part),
                                           e.history != nullptr ? e.history->reason : std::string()));
            },
            place);
        return out;
    }

    detail::morgue& where_;
};

} // namespace mailroom
