#include <mailroom/store/undecided_delivery.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>

using namespace std::chrono_literals;
using mailroom::duration;
using mailroom::detail::handle;
using mailroom::detail::settler;
using mailroom::detail::undecided_delivery;

namespace {

// Notes what it is asked, and answers yes.
class noting final : public settler {
public:
    std::string heard;
    bool may_keep = true;

    bool ack(const handle& at) noexcept override { return note("ack", at); }
    bool nack(const handle& at) noexcept override { return note("nack", at); }
    bool nack_after(const handle& at, duration) noexcept override { return note("nack_after", at); }
    bool release(const handle& at) noexcept override { return note("release", at); }
    bool reject(const handle& at, std::string why) noexcept override { return note("reject " + why, at); }
    bool extend(const handle& at, duration) noexcept override { return note("extend", at); }
    bool secure(const handle& at, duration) noexcept override { return note("secure", at); }
    bool keep(const handle& at) noexcept override { return note("keep", at) && may_keep; }
    void give_back(const handle& at, duration by) noexcept override { note("give back for " + std::to_string(by / 1s), at); }
    mailroom::time_point sent_at(const handle&) const noexcept override { return mailroom::time_point(7s); }
    void end_look(const handle&) noexcept override {}

private:
    bool note(const std::string& what, const handle& at) {
        heard += what + (at.place == 5 ? "" : " of another") + "; ";
        return true;
    }
};

handle at_5() {
    handle at;
    at.place = 5;
    return at;
}
// The holder's own handle, which says nothing of the place.
const handle its_holders{};

} // namespace

TEST_CASE("undecided: while nothing is decided its verbs answer no; settled, it is over") {
    noting to;
    auto* const d = new undecided_delivery(to, at_5(), 3s, true);
    CHECK(d->keep());
    CHECK_FALSE(d->is_over());
    CHECK_FALSE(d->keep(its_holders));
    CHECK_FALSE(d->secure(its_holders, 1s));
    CHECK(d->extend(its_holders, 1s)); // no shorter than it was promised
    d->decide(true);
    CHECK(to.heard == "keep; secure; ack; ");
    CHECK(d->is_over());
    CHECK(d->sent_at(its_holders) == mailroom::time_point()); // whoever knows may have gone
    CHECK_FALSE(d->extend(its_holders, 1s));
    CHECK_FALSE(d->ack(its_holders)); // the last to let go
    CHECK(to.heard == "keep; secure; ack; ");
}

TEST_CASE("undecided: if the answer is no it is its holder's again, as it was") {
    noting to;
    auto* const d = new undecided_delivery(to, at_5(), 3s, true);
    CHECK(d->keep());
    d->decide(false);
    CHECK_FALSE(d->is_over());
    CHECK(d->sent_at(its_holders) == mailroom::time_point(7s));
    CHECK(d->extend(its_holders, 1s));
    CHECK(d->secure(its_holders, 1s));
    CHECK(d->keep(its_holders));
    CHECK(d->reject(its_holders, "why"));
    CHECK(to.heard == "keep; give back for 3; extend; secure; keep; reject why; ");
}

TEST_CASE("undecided: what was not to be kept is not given back") {
    noting to;
    to.may_keep = false;
    auto* const d = new undecided_delivery(to, at_5(), 3s, true);
    CHECK_FALSE(d->keep());
    d->decide(false);
    CHECK(d->nack_after(its_holders, 1s));
    CHECK(to.heard == "keep; nack_after; ");
}

TEST_CASE("undecided: whose holder has gone before: settled, or a failure; never held by anybody, it is ready at once") {
    for (const bool is_settled : {true, false}) {
        CAPTURE(is_settled);
        noting to;
        auto* const d = new undecided_delivery(to, at_5(), 3s, true);
        CHECK(d->keep());
        CHECK_FALSE(d->release(its_holders)); // lets go
        d->decide(is_settled);
        CHECK(to.heard == (is_settled ? "keep; ack; " : "keep; give back for 3; nack; "));

        noting of_before;
        (new undecided_delivery(of_before, at_5(), 0s, false))->decide(is_settled);
        CHECK(of_before.heard == (is_settled ? "ack; " : "release; "));
    }
}
