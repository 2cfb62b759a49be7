// timing: an endpoint's clock, and what the wall clock showed when that was zero.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>

#include <chrono>

namespace mailroom::detail {

/// Values fixed at construction; the clock outlives it. Threads: any.
class timing {
public:
    explicit timing(mailroom::clock* c) noexcept
        : clock_(c != nullptr ? *c : system_clock()), is_os_clock_(&clock_ == &system_clock()),
          wall_base_(clock_.wall() - std::chrono::duration_cast<time_point::duration>(clock_.now())) {}

    mailroom::clock& clock() const noexcept { return clock_; }
    duration now() const noexcept { return clock_.now(); }
    duration coarse() const noexcept { return is_os_clock_ ? os_clock::read_coarse() : clock_.coarse(); }
    /// Timestamps do not jump when the wall clock is set.
    time_point wall(duration t) const noexcept { return wall_base_ + std::chrono::duration_cast<time_point::duration>(t); }
    /// The reverse; what is more than a century away is as far as can be.
    duration at(time_point t) const noexcept {
        constexpr std::chrono::hours century(24 * 36525);
        if (t < wall_base_ - century) { return duration::min(); }
        return t > wall_base_ + century ? mailroom::clock::never : std::chrono::duration_cast<duration>(t - wall_base_);
    }

private:
    mailroom::clock& clock_;
    const bool is_os_clock_;
    const time_point wall_base_;
};

} // namespace mailroom::detail
