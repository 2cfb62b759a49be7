// The journal without types: what is placed while it closes.
#include <mailroom/journal/engine.hpp>
#include <mailroom/testing.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

using mailroom::durability;
using mailroom::errc;
using mailroom::testing::simulated_files;
namespace detail = mailroom::detail;

namespace {

/// A simulated disk on which something happens before each sync, once.
class interrupted_files : public simulated_files {
public:
    std::error_code sync(file& f) const noexcept {
        if (const auto what = std::exchange(*before_sync_, nullptr)) { what(); }
        return simulated_files::sync(f);
    }
    void before_sync(std::function<void()> what) const { *before_sync_ = std::move(what); }

private:
    std::shared_ptr<std::function<void()>> before_sync_ = std::make_shared<std::function<void()>>();
};

class listener final : public detail::stream_listener {
public:
    std::uint64_t head = 0;

private:
    void advance(mailroom::offset to) noexcept override { head = to; }
    void arrived(std::size_t) noexcept override {}
    void journal_closed() noexcept override {}
    void hold() noexcept override {}
    void let_go() noexcept override {}
};

const auto any_schema = [](const detail::schema&) {};
using engine = detail::log_engine<interrupted_files>;

detail::placed put(engine& e, std::uint32_t stream, detail::ticket* t = nullptr) {
    const std::array<std::byte, 8> body{};
    detail::draft d;
    d.stream = stream;
    d.length = 8;
    d.payload = body;
    d.hash = detail::checksum(body, e.seed());
    return e.place({&d, 1}, detail::admission(), t);
}

} // namespace

TEST_CASE("journal engine: what is accepted while it closes is on disk, or was refused") {
    for (const durability promise : {durability::commit, durability::write, durability::none}) {
        const interrupted_files disk;
        std::uint64_t accepted = 0;
        detail::ticket late;
        {
            const auto e = std::make_shared<engine>("d", mailroom::journal_options{.durability = promise}, disk);
            const auto at = e->open("q", {}, detail::schema(), any_schema);
            listener l;
            e->attach(at.number, l);
            REQUIRE(put(*e, at.number).taken);
            ++accepted;
            // The last sync of `close` is under way: somebody who had looked whether it is open comes only now.
            disk.before_sync([&] { accepted += put(*e, at.number, &late).taken; });
            e->close();
            CHECK_FALSE(put(*e, at.number).taken);
            if (accepted == 2) { CHECK(late.is_done()); }
            e->detach(at.number);
        }
        const auto e = std::make_shared<engine>("d", mailroom::journal_options{}, disk);
        const auto at = e->open("q", {}, detail::schema(), any_schema);
        listener l;
        e->attach(at.number, l);
        CHECK(l.head == accepted);
        e->detach(at.number);
    }
}

TEST_CASE("journal engine: what waits for the next commit of a journal that is closed is told so") {
    const auto e = std::make_shared<engine>("d", mailroom::journal_options(), interrupted_files());
    e->close();
    detail::ticket t;
    e->enrol(t);
    e->wait(t);
    CHECK(t.why.kind() == errc::closed);
    CHECK_FALSE(e->push());
}
