// Bytes that are not what was written: flipped, cut off, of another file, of another time. Never a wrong message; what is lost is said to be,
// with its file and byte; the rest is there, and life goes on.
#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/simulated_files.hpp>

#include "support/journal_oracle.hpp"
#include "support/random.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using mailroom::damage;
using mailroom::errc;
using mailroom::error;
using mailroom::on_damage;
using mailroom::testing::loss;
using mailroom::testing::manual_clock;
using support::disk;
using support::parcel;
using support::parcel_id;
using support::sim_journal;
using support::sim_queue;
using namespace std::chrono_literals;
namespace format = mailroom::detail; // where the records lie: to know what was hit

namespace {

constexpr const char* segment_0 = "data/00000000000000000000.log";

mailroom::journal_options options(manual_clock& c, on_damage what = on_damage::refuse) {
    return {.segment_bytes = 64 << 10, .on_damage = what, .clock = &c};
}

using contents = std::map<std::string, std::vector<std::byte>>;
contents all_of(const disk& files) {
    contents all;
    for (const std::string& name : files.files()) { all.emplace(name, files.contents(name)); }
    return all;
}

// What lies where in a segment.
struct stretch {
    std::uint64_t first, end; // bytes of the file
    enum { head, batch, message, endpoint, settlements, other, unused } what;
    unsigned id = 0; // of the message
};
std::vector<stretch> layout_of(const std::vector<std::byte>& file) {
    format::segment_header h;
    std::uint32_t version = 0;
    REQUIRE(format::segment_header::decode(file, h, version) == nullptr);
    const std::uint64_t seed = format::seed_of(h.id);
    std::vector<stretch> all{{0, format::segment_header::size, stretch::head}};
    std::uint64_t at = format::segment_header::size;
    const auto rest = [&] { return std::span(file).subspan(at); };
    for (;;) {
        format::batch_header b;
        if (!format::batch_header::decode(rest(), h.first + at - format::segment_header::size, seed, b)) { break; }
        all.push_back({at, at + format::batch_header::size, stretch::batch});
        at += format::batch_header::size;
        for (const std::uint64_t end = at + b.length; at < end;) {
            const auto r = format::decode_record(rest(), h.first + at - format::segment_header::size, seed);
            REQUIRE(r);
            stretch s{at, at + r->head.whole(), stretch::other};
            switch (r->head.kind) {
            case format::record_kind::message:
            case format::record_kind::moved: {
                const auto body = r->payload.subspan(r->head.properties);
                s.id = parcel_id(std::string(reinterpret_cast<const char*>(body.data()), body.size()));
                s.what = stretch::message;
                break;
            }
            case format::record_kind::settlements: s.what = stretch::settlements; break;
            case format::record_kind::endpoint:
            case format::record_kind::schema: s.what = stretch::endpoint; break;
            default: break;
            }
            all.push_back(s);
            at = s.end;
        }
    }
    all.push_back({at, file.size(), stretch::unused});
    return all;
}
const stretch& hit(const std::vector<stretch>& layout, std::uint64_t byte) {
    return *std::find_if(layout.begin(), layout.end(), [&](const stretch& s) { return byte < s.end; });
}

// Two queues, "a" and "b"; what is in them, and what was.
struct known {
    std::vector<unsigned> a, b, dead, settled;
};

// A journal of a few KiB in which a little of everything has happened.
class small_journal {
public:
    small_journal() {
        sim_journal j("data", options(clock_), files);
        sim_queue a(j, "a"), b(j, "b");
        const auto note = [&](std::vector<unsigned> in_a, std::vector<unsigned> in_b, std::vector<unsigned> dead, std::vector<unsigned> settled) {
            j.flush();
            now = {std::move(in_a), std::move(in_b), std::move(dead), std::move(settled)};
            const auto layout = layout_of(files.contents(segment_0));
            at.emplace(layout.back().first, now);
        };
        note({}, {}, {}, {});
        a.send(parcel(1, 30));
        note({1}, {}, {}, {});
        a.send(parcel(2, 40), {.key = "k", .id = "two"});
        note({1, 2}, {}, {}, {});
        b.send(parcel(3, 50));
        note({1, 2}, {3}, {}, {});
        a.send_many(std::vector{parcel(4, 21), parcel(5, 22), parcel(6, 23)});
        note({1, 2, 4, 5, 6}, {3}, {}, {});
        a.receive()->ack();
        note({2, 4, 5, 6}, {3}, {}, {1});
        {
            auto two = a.receive();
            a.receive()->ack();
            two->nack(1s);
        }
        note({2, 5, 6}, {3}, {}, {1, 4});
        a.receive()->reject("spoiled");
        note({2, 6}, {3}, {5}, {1, 4});
        b.send(parcel(7, 60));
        note({2, 6}, {3, 7}, {5}, {1, 4});
        b.receive()->ack();
        note({2, 6}, {7}, {5}, {1, 3, 4});
        a.send(parcel(8, 10));
        note({2, 6, 8}, {7}, {5}, {1, 3, 4});
        killed = files.clone();
        killed.process_kill();
    }
    disk files;  // closed
    disk killed; // not closed
    known now;
    std::map<std::uint64_t, known> at; // by the length of the segment

private:
    manual_clock clock_;
};

struct finding {
    std::optional<std::string> refused; // it did not open
    std::vector<damage> damages;        // of the opening, of receiving, of verify
    bool reported = false;
    std::uint64_t cut = 0;
    std::vector<unsigned> a, b, dead;
    std::string wrong;
};

// Opens it, and reads everything.
finding read_all(const disk& files, on_damage how) {
    finding f;
    manual_clock clock;
    std::optional<sim_journal> j;
    try {
        j.emplace("data", options(clock, how), files);
    } catch (const error& e) {
        f.refused = e.what();
        if (e.kind() != errc::corrupt) { f.wrong = "not errc::corrupt: " + *f.refused; }
        return f;
    }
    f.damages = j->recovered().damages;
    f.cut = j->recovered().cut_bytes;
    try {
        if (const auto v = j->verify(); !v.intact) {
            f.damages.insert(f.damages.end(), v.damages.begin(), v.damages.end());
            if (v.damages.empty()) { f.wrong = "verify says no, and not why"; }
        }
        clock.advance(24h);
        for (const char* const name : {"a", "b"}) {
            std::optional<sim_queue> q;
            try {
                q.emplace(*j, name);
            } catch (const error& e) {
                if (how != on_damage::read_only || e.kind() != errc::unsupported) { throw; }
                continue; // its declaration is lost, and nothing may be written
            }
            std::vector<mailroom::delivery<std::string>> held;
            mailroom::offset last = 0;
            for (unsigned tries = 0; tries < 40; ++tries) {
                try {
                    auto d = q->try_receive();
                    if (!d) { break; }
                    if (!held.empty() && d->attempt() == 1 && d->offset() <= last && held.back().attempt() == 1) { f.wrong = "out of order"; }
                    last = d->offset();
                    (name[0] == 'a' ? f.a : f.b).push_back(parcel_id(d->body()));
                    held.push_back(std::move(*d));
                } catch (const error& e) {
                    f.reported = true;
                    if (e.kind() != errc::corrupt || std::string(e.what()).find("data/") == std::string::npos) { f.wrong = std::string("received: ") + e.what(); }
                }
            }
            std::vector<mailroom::dead_letter<std::string>> dead;
            while (auto d = q->dead().try_receive()) {
                f.dead.push_back(parcel_id(d->body()));
                dead.push_back(std::move(*d));
            }
            for (auto& d : dead) { d.release(); }
            for (auto& d : held) { d.release(); }
        }
    } catch (const std::exception& e) { f.wrong = e.what(); }
    std::sort(f.a.begin(), f.a.end());
    std::sort(f.b.begin(), f.b.end());
    return f;
}

bool contains(const std::vector<unsigned>& all, unsigned id) { return std::find(all.begin(), all.end(), id) != all.end(); }

// What must not be: `may_be_lost` says of which messages the bytes were hit; `comes_back`, whether a settlement was.
std::string judge(const finding& f, const known& was, const std::function<bool(unsigned)>& may_be_lost, bool comes_back) {
    if (!f.wrong.empty()) { return f.wrong; }
    bool lost = false, back = false;
    const auto look = [&](const std::vector<unsigned>& found, const std::vector<unsigned>& expected, char which) -> std::string {
        for (const unsigned id : expected) {
            if (contains(found, id) || (comes_back && contains(f.dead, id))) { continue; }
            if (!may_be_lost(id)) { return "message " + std::to_string(id) + " is lost, which was not hit"; }
            lost = true;
        }
        for (const unsigned id : found) {
            if (contains(expected, id)) { continue; }
            const bool of_here = (which == 'b') == (id == 3 || id == 7);
            if (!of_here || (!contains(was.settled, id) && !contains(was.dead, id))) { return "message " + std::to_string(id) + " is there and should not be"; }
            if (!comes_back) { return "message " + std::to_string(id) + " came back"; }
            back = true;
        }
        return {};
    };
    if (std::string s = look(f.a, was.a, 'a'); !s.empty()) { return s; }
    if (std::string s = look(f.b, was.b, 'b'); !s.empty()) { return s; }
    for (const unsigned id : was.dead) {
        if (contains(f.dead, id) || (comes_back && contains(f.a, id))) { continue; }
        if (!may_be_lost(id)) { return "dead message " + std::to_string(id) + " is lost, which was not hit"; }
        lost = true;
    }
    if ((lost || back) && f.damages.empty() && !f.reported && f.cut == 0) { return "not reported"; }
    return {};
}

// After salvage: new messages are sent, received, and there after another power cut.
std::string goes_on(const disk& files) {
    try {
        for (unsigned round = 0; round < 2; ++round) {
            manual_clock clock;
            sim_journal j("data", options(clock, on_damage::salvage), files);
            for (const char* const name : {"a", "b"}) {
                sim_queue q(j, name);
                unsigned there = 0;
                q.browse([&](const mailroom::message<std::string>& m, mailroom::message_state) {
                    there += parcel_id(m.body()) >= 1000 ? 1 : 0;
                    return true;
                });
                if (there != round) { return std::to_string(there) + " new messages are there, not " + std::to_string(round); }
                q.send(parcel(1000 + round, 100));
            }
            disk(files).power_cut(round, loss::everything);
        }
    } catch (const std::exception& e) { return e.what(); }
    return {};
}

bool names_place(const finding& f, const std::string& path, std::uint64_t first, std::uint64_t end) {
    if (f.refused) { return f.refused->find(path) != std::string::npos && f.refused->find("byte ") != std::string::npos; }
    return std::any_of(f.damages.begin(), f.damages.end(), [&](const damage& d) { return d.file == path && d.byte >= first && d.byte < end; });
}

} // namespace

TEST_CASE("journal damage: any single bit flipped") {
    const small_journal small;
    std::uint64_t turn = 0;
    for (const bool closed : {true, false}) {
        CAPTURE(closed);
        const disk& original = closed ? small.files : small.killed;
        REQUIRE(judge(read_all(original.clone(), on_damage::refuse), small.now, [](unsigned) { return false; }, false) == "");
        const auto layout = layout_of(original.contents(segment_0));
        const std::uint64_t last_batch = std::find_if(layout.rbegin(), layout.rend(), [](const stretch& s) { return s.what == stretch::batch; })->first;
        for (const std::string& path : original.files()) {
            CAPTURE(path);
            const bool is_segment = path == segment_0;
            const std::uint64_t used = is_segment ? layout.back().first + 256 : original.contents(path).size();
            for (std::uint64_t bit = 0; bit < used * 8; ++bit) {
                const on_damage how = static_cast<on_damage>(++turn % 3);
                CAPTURE(bit);
                CAPTURE(static_cast<int>(how));
                const disk files = original.clone();
                disk(files).flip_bit(path, bit);
                const contents before = all_of(files);
                const finding f = read_all(files.clone(), how);
                const stretch s = is_segment ? hit(layout, bit / 8) : stretch{0, used, stretch::other};
                // Of a process that was killed the last batch may be one that was never finished: nobody can tell.
                const bool may_be_torn = is_segment && !closed && bit / 8 >= last_batch;
                if (f.refused) {
                    CHECK(how == on_damage::refuse);
                    CHECK(names_place(f, path, s.first, s.end));
                    const disk same = files.clone();
                    read_all(same, how);
                    CHECK(all_of(same) == before);
                    continue;
                }
                const auto may_be_lost = [&](unsigned id) {
                    if (may_be_torn) { return id == 8; }
                    return is_segment && ((s.what == stretch::message && s.id == id) || (s.what == stretch::endpoint && !closed));
                };
                const bool comes_back = is_segment && !closed && s.what == stretch::settlements;
                CHECK(judge(f, small.now, may_be_lost, comes_back || may_be_torn) == "");
                if (is_segment && s.what != stretch::unused && !may_be_torn) { CHECK(names_place(f, path, s.first, s.end)); }
                if (how == on_damage::read_only) {
                    const disk same = files.clone();
                    read_all(same, how);
                    CHECK(all_of(same) == before);
                }
                if (how == on_damage::salvage) { CHECK(goes_on(files) == ""); }
            }
        }
    }
}
