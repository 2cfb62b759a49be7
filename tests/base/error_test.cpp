#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <system_error>

namespace {

// What another shared library would hold: the same name at another address.
struct foreign_category : std::error_category {
    [[nodiscard]] const char* name() const noexcept override { return "mailroom"; }
    [[nodiscard]] std::string message(int) const override { return "from elsewhere"; }
};

// Runs before anything of the library could have been initialised dynamically.
const std::error_code made_before_main = mailroom::errc::io;

} // namespace

TEST_CASE("basics: words have the types the interface promises") {
    CHECK(std::is_same_v<mailroom::duration, std::chrono::nanoseconds>);
    CHECK(mailroom::no_offset == ~std::uint64_t{0});
    constexpr mailroom::position p{.partition = 1, .offset = 7};
    CHECK(p == mailroom::position{1, 7});
    CHECK(mailroom::position{} == mailroom::position{0, 0});
}

TEST_CASE("errc: numbers are stable and each has words of its own") {
    CHECK(static_cast<int>(mailroom::errc::closed) == 1);
    CHECK(static_cast<int>(mailroom::errc::unsupported) == 15);
    CHECK(static_cast<int>(mailroom::errc::failed) == 16);
    CHECK(static_cast<int>(mailroom::errc::cancelled) == 17);
    for (int a = 1; a <= 17; ++a) {
        const std::string_view said = mailroom::describe_errc(static_cast<mailroom::errc>(a));
        CHECK(said != "unknown error");
        for (int b = 1; b < a; ++b) CHECK(said != mailroom::describe_errc(static_cast<mailroom::errc>(b)));
    }
    CHECK(mailroom::describe_errc(static_cast<mailroom::errc>(18)) == std::string_view("unknown error"));
    CHECK(mailroom::describe_errc(static_cast<mailroom::errc>(0)) == std::string_view("unknown error"));
}

TEST_CASE("error_code: made from errc, compared with errc") {
    const std::error_code code = mailroom::errc::full;
    CHECK(code == mailroom::errc::full);
    CHECK(mailroom::errc::full == code);
    CHECK(code != mailroom::errc::closed);
    CHECK(code.category().name() == std::string_view("mailroom"));
    CHECK(code.message() == "full");
    CHECK(std::error_code(2, std::generic_category()) != mailroom::errc::full);
    CHECK(made_before_main == mailroom::errc::io);
}

TEST_CASE("error_code: compares equal when another shared library made it") {
    const foreign_category foreign;
    const std::error_code theirs(static_cast<int>(mailroom::errc::timed_out), foreign);
    CHECK(theirs == mailroom::errc::timed_out);
    CHECK(theirs != mailroom::errc::full);
    CHECK(theirs == std::error_condition(static_cast<int>(mailroom::errc::timed_out), mailroom::category()));
    CHECK(std::error_code(mailroom::errc::full) == std::error_condition(static_cast<int>(mailroom::errc::full), foreign));
    CHECK(std::error_code(mailroom::errc::full) != std::error_condition(static_cast<int>(mailroom::errc::closed), foreign));
}

TEST_CASE("error_code: equals the condition of the standard that says the same") {
    CHECK(std::error_code(mailroom::errc::timed_out) == std::errc::timed_out);
    CHECK(std::error_code(mailroom::errc::invalid) == std::errc::invalid_argument);
    CHECK(std::error_code(mailroom::errc::io) == std::errc::io_error);
    CHECK(std::error_code(mailroom::errc::unsupported) == std::errc::not_supported);
    CHECK(std::error_code(mailroom::errc::cancelled) == std::errc::operation_canceled);
    CHECK(std::error_code(mailroom::errc::full) != std::errc::timed_out);
    CHECK(std::error_code(mailroom::errc::full).default_error_condition() ==
          std::error_condition(static_cast<int>(mailroom::errc::full), mailroom::category()));
}

TEST_CASE("error: carries a code and a sentence") {
    const mailroom::error e(mailroom::errc::invalid, "priority 12 is outside 0..9");
    CHECK(e.code() == mailroom::errc::invalid);
    CHECK(e == mailroom::errc::invalid);
    CHECK(e.kind() == mailroom::errc::invalid);
    CHECK(e.sentence() == "priority 12 is outside 0..9");
    CHECK(std::string_view(e.what()).starts_with("priority 12 is outside 0..9"));
    CHECK(mailroom::error(mailroom::errc::full).sentence().empty());
    CHECK(std::string_view(mailroom::error(mailroom::errc::full).what()) == "full");
}

TEST_CASE("fail: throws an error a std::system_error handler catches") {
    try {
        mailroom::detail::fail(mailroom::errc::too_large, "5 messages at once, 4 are allowed");
    } catch (const std::system_error& e) {
        CHECK(e.code() == mailroom::errc::too_large);
        return;
    }
    FAIL("nothing thrown");
}
