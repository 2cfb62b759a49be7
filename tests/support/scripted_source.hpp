// A source that hands out the numbers it was given and writes down what becomes of them. For tests of what stands above a source.
#pragma once

#include <mailroom/store/source.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// Made with `new`; whoever made it calls `unrefer`. Nobody is ever woken: who waits has to look.
class scripted_source final : public mailroom::detail::source<int>, private mailroom::detail::settler {
public:
    using duration = mailroom::duration;
    using handle = mailroom::detail::handle;

    explicit scripted_source(bool* gone = nullptr, mailroom::clock& c = mailroom::system_clock()) : gone_(gone), clock_(c) {}

    void add(int n) {
        const std::lock_guard lock(mutex_);
        bodies_.push_back(n);
    }
    /// Such as "ack 0": the verb and the offset, in order.
    std::vector<std::string> said() const {
        const std::lock_guard lock(mutex_);
        return said_;
    }
    mailroom::delivery<int> give() { return std::move(*take_one()); }

    std::optional<mailroom::delivery<int>> take_one() override {
        const std::lock_guard lock(mutex_);
        if (next_ == bodies_.size()) { return std::nullopt; }
        const handle at{nullptr, 0, 1, next_};
        return mailroom::detail::delivery_access::make<int>(*this, &bodies_[next_++], nullptr, at);
    }
    std::size_t take_some(std::vector<mailroom::delivery<int>>& out, std::size_t max, duration, const mailroom::stop_token&) override {
        std::size_t n = 0;
        for (; n < max; ++n) {
            auto d = take_one();
            if (!d) { break; }
            out.push_back(std::move(*d));
        }
        return n;
    }
    mailroom::detail::outlook look_ahead() noexcept override { return mailroom::detail::outlook::wait; }
    bool may_have() const noexcept override {
        const std::lock_guard lock(mutex_);
        return next_ < bodies_.size();
    }
    duration next_due() const noexcept override { return mailroom::clock::never; }
    void catch_up() noexcept override {}
    void join(mailroom::detail::waiter&) noexcept override {}
    bool leave(mailroom::detail::waiter&) noexcept override { return true; }
    bool renew(mailroom::offset, int, std::uint32_t, duration) noexcept override { return true; }
    std::size_t backlog() const noexcept override { return 0; }
    mailroom::clock& time() const noexcept override { return clock_; }
    duration lease() const noexcept override { return duration::zero(); }
    bool has_priorities() const noexcept override { return false; }

private:
    bool say(const char* verb, const handle& at) noexcept {
        const std::lock_guard lock(mutex_);
        said_.push_back(verb + std::to_string(at.place));
        return true;
    }
    bool ack(const handle& at) noexcept override { return say("ack ", at); }
    bool nack(const handle& at) noexcept override { return say("nack ", at); }
    bool nack_after(const handle& at, duration) noexcept override { return say("nack after a while ", at); }
    bool release(const handle& at) noexcept override { return say("release ", at); }
    bool reject(const handle& at, std::string) noexcept override { return say("reject ", at); }
    bool extend(const handle& at, duration) noexcept override { return say("extend ", at); }
    mailroom::time_point sent_at(const handle&) const noexcept override { return mailroom::time_point(std::chrono::seconds(7)); }
    void end_look(const handle&) noexcept override {}
    void destroy() noexcept override {
        if (gone_ != nullptr) { *gone_ = true; }
        delete this;
    }

    bool* const gone_;
    mailroom::clock& clock_;
    mutable std::mutex mutex_;
    std::deque<int> bodies_; // stay where they are
    std::size_t next_ = 0;
    std::vector<std::string> said_;
};

} // namespace support
