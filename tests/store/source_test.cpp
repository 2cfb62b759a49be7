#include <mailroom/store/source.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace {

using mailroom::delivery;
using mailroom::duration;
using mailroom::detail::outlook;
using mailroom::detail::source;
using mailroom::detail::source_ref;
using mailroom::detail::waiter;

// The least a source can be: it has nothing, and says when it goes.
class nothing_here final : public source<int> {
public:
    explicit nothing_here(bool& gone) : gone_(gone) {}
    std::optional<delivery<int>> take_one() override { return std::nullopt; }
    std::size_t take_some(std::vector<delivery<int>>&, std::size_t, duration, const mailroom::stop_token&) override { return 0; }
    outlook look_ahead() noexcept override { return outlook::finished; }
    bool may_have() const noexcept override { return false; }
    duration next_due() const noexcept override { return mailroom::clock::never; }
    void catch_up() noexcept override {}
    void join(waiter&) noexcept override {}
    bool leave(waiter&) noexcept override { return true; }
    bool renew(mailroom::offset, int, std::uint32_t, duration) noexcept override { return false; }
    std::size_t backlog() const noexcept override { return 0; }
    mailroom::clock& time() const noexcept override { return mailroom::system_clock(); }
    duration lease() const noexcept override { return duration::zero(); }
    bool has_priorities() const noexcept override { return false; }

private:
    void destroy() noexcept override {
        gone_ = true;
        delete this;
    }
    bool& gone_;
};

} // namespace

TEST_CASE("source: goes when the last who refers to it lets go") {
    bool gone = false;
    auto* const s = new nothing_here(gone);
    {
        source_ref<int> a(*s);
        source_ref<int> b(*s);
        CHECK(!b->may_have());
        s->refer(2); // deliveries that stayed behind
        s->unrefer();
        s->unrefer();
        s->unrefer(); // its endpoint
        CHECK(!gone);
        source_ref<int> c = std::move(a);
        source_ref<int> d(*s);
        d = std::move(b);
        CHECK(&*d == s);
        CHECK(!gone);
    }
    CHECK(gone);
}

TEST_CASE("source: what it is to keep stays until it goes, or until somebody takes it") {
    class kept final : public mailroom::detail::keepsake {
    public:
        kept(const void* of, int& ended) : keepsake(of), ended_(ended) {}
        ~kept() override { ++ended_; }

    private:
        int& ended_;
    };
    bool gone = false;
    int ended = 0;
    const int a = 0, b = 0;
    auto* const s = new nothing_here(gone);
    CHECK(s->take_kept(&a) == nullptr);
    auto* const first = new kept(&a, ended);
    s->keep(*first);
    s->keep(*new kept(&b, ended));
    s->keep(*new kept(&b, ended));
    CHECK(s->take_kept(&a) == first);
    CHECK(s->take_kept(&a) == nullptr);
    s->unrefer();
    CHECK(gone);
    CHECK(ended == 2);
    delete first;
}
