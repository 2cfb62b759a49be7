// reply<Rep>: where a responder's function puts several answers.
#pragma once

#include <mailroom/base/error.hpp>
#include <mailroom/base/result.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/request/call_of.hpp>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace mailroom {

namespace detail {
template <class Req, class Rep, class Fn>
class responding;
}

/// Where a function that gives several answers puts them: `fn(const Req&, reply<Rep>&)`. Valid until the function returns; then the answers are
/// complete. Who asked for one answer gets the first. Threads: one at a time.
template <class Rep>
class reply {
    using value_type = detail::answer_value<Rep>;

public:
    reply(const reply&) = delete;
    reply& operator=(const reply&) = delete;

    /// One more. False: nobody waits for it, it was dropped and counted; there is no use in going on.
    bool send(value_type value) requires(!std::is_void_v<Rep>) { return give(std::move(value)); }
    bool send() requires std::is_void_v<Rep> { return give(value_type()); }
    /// Whether anybody waits for more.
    bool wanted() const noexcept { return call_ != nullptr && call_->is_wanted(); }
    /// What the request came with.
    const properties& props() const noexcept { return *props_; }

private:
    template <class, class, class>
    friend class detail::responding;
    reply(detail::call_of<Rep>* c, const void* whom, const properties& p) noexcept : call_(c), whom_(whom), props_(&p) {}

    bool give(value_type&& value) {
        if (call_ != nullptr && call_->give(std::move(value), complete_)) { return true; }
        ++unclaimed_;
        if (call_ != nullptr) { call_->note_late(); }
        return false;
    }
    void fail(errc kind, const char* sentence) noexcept {
        bool told = false;
        if (call_ != nullptr) {
            try {
                told = call_->fail_from(whom_, failure(kind, sentence).from_afar());
            } catch (...) { // no memory for the sentence
                told = call_->fail_from(whom_, failure(kind).from_afar());
            }
            if (!told) { call_->note_late(); }
        }
        if (!told) { ++unclaimed_; }
    }

    void end() noexcept {
        if (call_ != nullptr && !complete_) { call_->end_from(whom_); }
    }

    detail::call_of<Rep>* call_;
    const void* whom_; // of several who are asked
    const properties* props_;
    std::uint64_t unclaimed_ = 0;
    bool complete_ = false;
};

} // namespace mailroom
