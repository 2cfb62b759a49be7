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

/// A simulated disk on which something happens before the next sync, or the n-th read from now; once.
class interrupted_files : public simulated_files {
public:
    std::error_code sync(file& f) const noexcept {
        if (const auto what = std::exchange(plan_->at_sync, nullptr)) { what(); }
        return simulated_files::sync(f);
    }
    std::error_code read(const file& f, std::uint64_t at, std::span<std::byte> to, std::size_t& got) const noexcept {
        if (plan_->at_read && --plan_->reads == 0) { std::exchange(plan_->at_read, nullptr)(); }
        return simulated_files::read(f, at, to, got);
    }
    void before_sync(std::function<void()> what) const { plan_->at_sync = std::move(what); }
    void before_read(int n, std::function<void()> what) const {
        plan_->reads = n;
        plan_->at_read = std::move(what);
    }

private:
    struct plan {
        std::function<void()> at_sync, at_read;
        int reads = 0;
    };
    std::shared_ptr<plan> plan_ = std::make_shared<plan>();
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

void settle(engine& e, std::uint32_t stream, mailroom::offset first, std::uint64_t n) {
    std::uint32_t cursor = 0;
    e.look([&](const detail::catalog& c) { cursor = c.endpoint(stream).subscriptions.at("").first_cursor; });
    std::vector<std::byte> steps;
    detail::wire_writer to(steps);
    to.var(static_cast<std::uint64_t>(detail::change::settled));
    to.var(first);
    to.var(n);
    detail::draft d;
    d.kind = detail::record_kind::settlements;
    d.stream = cursor;
    d.offset = 0;
    d.length = static_cast<std::uint32_t>(steps.size());
    steps.resize(detail::padded(steps.size()));
    d.payload = steps;
    d.hash = detail::checksum(steps, e.seed());
    REQUIRE(e.place({&d, 1}, detail::admission(), nullptr).taken);
}

/// Some segments of messages, all but every hundredth of which are settled. Nothing of them is open.
struct sparse_journal {
    interrupted_files disk;
    std::shared_ptr<engine> e;
    listener l;
    std::uint32_t stream = 0;

    sparse_journal() {
        open();
        for (int i = 0; i < 3000; ++i) { REQUIRE(put(*e, stream).taken); }
        for (mailroom::offset o = 0; o < 3000; o += 100) { settle(*e, stream, o + 1, 99); }
        open();
    }
    ~sparse_journal() { close(); }
    void open() {
        if (e != nullptr) { close(); }
        e = std::make_shared<engine>("d", mailroom::journal_options{.durability = durability::none, .segment_bytes = 64 << 10}, disk);
        stream = e->open("q", {}, detail::schema(), any_schema).number;
        e->attach(stream, l);
    }
    void close() {
        e->detach(stream);
        e->close();
    }
    /// What is wanted moves to the end; the files it was in are written over, or removed.
    void change_all() {
        for (int i = 0; i < 6000; ++i) { REQUIRE(put(*e, stream).taken); }
        e->compact({});
        for (int i = 0; i < 2000; ++i) { REQUIRE(put(*e, stream).taken); }
        e->flush();
    }
    /// Reads the message at `o`.
    std::string look_at(mailroom::offset o) {
        std::string what = "nobody said";
        detail::record_calls to([&](unsigned, const detail::record& r) { what = r.head.offset == o ? "found" : "another"; },
                                [&](unsigned, const mailroom::damage* d) { what = d != nullptr ? "damaged: " + d->what : "gone"; });
        detail::read_ahead nothing_yet;
        e->read(stream, o, 1, to, nothing_yet);
        return what;
    }
};

} // namespace

TEST_CASE("journal engine: what moves while somebody is about to read it is read where it is then") {
    for (const mailroom::offset o : {0u, 100u, 700u}) {
        for (int reads : {2, 3}) { // of its places in the index, of itself
            sparse_journal j;
            j.disk.before_read(reads, [&] { j.change_all(); });
            CHECK(j.look_at(o) == "found");
            CHECK(j.look_at(o) == "found");
        }
    }
}

TEST_CASE("journal engine: what is settled, and given back, while somebody is about to read it is gone, not damaged") {
    for (int reads : {2, 3}) {
        sparse_journal j;
        j.disk.before_read(reads, [&] {
            settle(*j.e, j.stream, 0, 3000);
            j.change_all();
        });
        CHECK(j.look_at(100) == "gone");
    }
}

TEST_CASE("journal engine: a segment that is given back, and written over, while it is verified is not damaged") {
    for (int reads : {1, 2}) { // of its header, of what follows
        sparse_journal j;
        bool changed = false;
        j.disk.before_read(reads, [&] {
            j.change_all();
            changed = true;
        });
        CHECK(j.e->verify({}).intact);
        CHECK(changed);
        CHECK(j.e->verify({}).intact);
    }
}

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
