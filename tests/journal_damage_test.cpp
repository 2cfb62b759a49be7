// Bytes that are not what was written: flipped, cut off, of another file, of another time. Never a wrong message; what is lost is said to be,
// with its file and byte; the rest is there, and life goes on.
#include <mailroom/journal.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/simulated_files.hpp>

#include "support/heap.hpp"
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

// Every one, or each so-manieth where that takes too long: odd, so that every bit of a byte has its turn.
std::uint64_t stride() {
#if defined(MAILROOM_TEST_SANITIZED) || !defined(__OPTIMIZE__)
    const std::size_t at_best = 7;
#else
    const std::size_t at_best = 1;
#endif
    return std::max<std::uint64_t>(1, 1000 * at_best / support::scaled(1000)) | 1;
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

std::uint64_t last_batch_of(const std::vector<stretch>& layout) {
    return std::find_if(layout.rbegin(), layout.rend(), [](const stretch& s) { return s.what == stretch::batch; })->first;
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
            for (unsigned tries = 0; tries < 200; ++tries) {
                try {
                    auto d = q->try_receive();
                    if (!d) { break; }
                    if (!held.empty() && d->attempt() == 1 && d->offset() <= last && held.back().attempt() == 1) { f.wrong = "out of order"; }
                    last = d->offset();
                    (name[0] == 'a' ? f.a : f.b).push_back(parcel_id(d->body()));
                    held.push_back(std::move(*d));
                } catch (const error& e) {
                    f.reported = true;
                    if (e.kind() != errc::corrupt || std::string(e.what()).find("data/") == std::string::npos) {
                        f.wrong = std::string("received: ") + e.what();
                    }
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
            if (!of_here || (!contains(was.settled, id) && !contains(was.dead, id))) {
                return "message " + std::to_string(id) + " is there and should not be";
            }
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
        REQUIRE(judge(
                    read_all(original.clone(), on_damage::refuse), small.now, [](unsigned) { return false; }, false) == "");
        const auto layout = layout_of(original.contents(segment_0));
        const std::uint64_t last_batch = last_batch_of(layout);
        for (const std::string& path : original.files()) {
            CAPTURE(path);
            const bool is_segment = path == segment_0;
            const std::uint64_t used = is_segment ? layout.back().first + 256 : original.contents(path).size();
            for (std::uint64_t bit = 0; bit < used * 8; bit += stride()) {
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

TEST_CASE("journal damage: what is sent after the loss of a message that was settled is not taken for that one") {
    disk files;
    {
        const disk open;
        manual_clock clock;
        sim_journal j("data", options(clock), open);
        sim_queue q(j, "a");
        q.send(parcel(1, 100));
        q.receive()->ack();
        j.flush();
        files = open.clone(); // nothing says where the queue ends but its messages, and what was settled
        files.process_kill();
    }
    const auto layout = layout_of(files.contents(segment_0));
    const auto lost = std::find_if(layout.begin(), layout.end(), [](const stretch& s) { return s.what == stretch::message; });
    REQUIRE(lost != layout.end());
    for (const std::uint64_t byte : {lost->first, lost->first + 20, lost->end - 1}) { // of its header, of its body
        CAPTURE(byte);
        const disk now = files.clone();
        disk(now).flip_bit(segment_0, byte * 8);
        CHECK(goes_on(now) == "");
    }
}

TEST_CASE("journal damage: every file cut at every byte") {
    const small_journal small;
    for (const bool closed : {true, false}) {
        CAPTURE(closed);
        const disk& original = closed ? small.files : small.killed;
        const auto layout = layout_of(original.contents(segment_0));
        for (const std::string& path : original.files()) {
            CAPTURE(path);
            const bool is_segment = path == segment_0;
            const std::uint64_t length = original.contents(path).size();
            for (std::uint64_t bytes = 0; bytes < std::min(length, is_segment ? layout.back().first + 64 : length); bytes += stride()) {
                CAPTURE(bytes);
                const disk files = original.clone();
                disk(files).cut(path, bytes);
                const contents before = all_of(files);
                const finding careful = read_all(files.clone(), on_damage::refuse);
                known expected = small.now;
                if (is_segment && bytes < layout.back().first) {
                    const auto after = small.at.upper_bound(bytes);
                    expected = after != small.at.begin() ? std::prev(after)->second : known();
                }
                const auto nothing = [](unsigned) { return false; };
                if (careful.refused) { // whoever closed it says how far it went
                    CHECK(names_place(careful, path, 0, length));
                    const disk same = files.clone();
                    read_all(same, on_damage::refuse);
                    CHECK(all_of(same) == before);
                } else {
                    CHECK(judge(careful, expected, nothing, false) == "");
                    if (is_segment && bytes < layout.back().first) { CHECK_FALSE(closed); }
                }
                const finding saved = read_all(files.clone(), on_damage::salvage);
                CHECK_FALSE(saved.refused);
                // What is settled in a manifest stays settled, whatever was cut.
                if (closed && is_segment) {
                    CHECK(judge(
                              saved, small.now,
                              [&](unsigned id) {
                                  const auto s = std::find_if(layout.begin(), layout.end(),
                                                              [&](const stretch& one) { return one.what == stretch::message && one.id == id; });
                                  return s->end > bytes;
                              },
                              false) == "");
                } else {
                    CHECK(judge(saved, expected, nothing, false) == "");
                }
                CHECK(goes_on(files) == "");
            }
        }
    }
}

namespace {

// Several segments, each with a file beside it; every other message is settled.
class large_journal {
public:
    explicit large_journal(unsigned first = 1, disk on = disk()) : files(on) {
        manual_clock clock;
        sim_journal j("data", options(clock), files);
        sim_queue a(j, "a");
        for (unsigned id = first; id < first + 60; ++id) {
            a.send(parcel(id, 5000));
            if (id % 2 == 0) { continue; }
            now.a.push_back(id);
        }
        std::vector<mailroom::delivery<std::string>> all;
        a.receive_many(all, 100);
        for (auto& d : all) {
            const unsigned id = parcel_id(d.body());
            if (id % 2 == 0) {
                d.ack();
                now.settled.push_back(id);
            } else {
                d.release();
            }
        }
        j.flush();
        killed = files.clone();
        killed.process_kill();
        disk(killed).power_cut(1, loss::everything);
    }
    // Which messages lie in a segment.
    static std::set<unsigned> in(const disk& d, const std::string& path) {
        std::set<unsigned> ids;
        for (const stretch& s : layout_of(d.contents(path))) {
            if (s.what == stretch::message) { ids.insert(s.id); }
        }
        return ids;
    }
    std::vector<std::string> segments(const disk& d) const {
        std::vector<std::string> all;
        for (const std::string& name : d.files()) {
            if (name.ends_with(".log")) { all.push_back(name); }
        }
        return all;
    }
    disk files, killed;
    known now;
};

} // namespace

TEST_CASE("journal damage: any bit of several segments and the files beside them") {
    const large_journal large;
    support::for_each_seed(1, [&](std::uint64_t seed) {
        CAPTURE(seed);
        support::dice chance(seed);
        for (std::size_t i = 0; i < support::scaled(600); ++i) {
            const bool closed = chance.percent(50);
            const disk files = (closed ? large.files : large.killed).clone();
            const auto names = files.files();
            const std::string path = names[chance.below(static_cast<unsigned>(names.size()))];
            const std::uint64_t length = files.contents(path).size();
            if (length == 0) { continue; }
            const std::uint64_t bit = chance.below(static_cast<unsigned>(length * 8));
            CAPTURE(closed);
            CAPTURE(path);
            CAPTURE(bit);
            const bool is_segment = path.ends_with(".log");
            const auto layout = is_segment ? layout_of(files.contents(path)) : std::vector<stretch>();
            const stretch s = is_segment ? hit(layout, bit / 8) : stretch{0, length, stretch::other};
            if (is_segment && !closed && path == large.segments(files).back() && bit / 8 >= last_batch_of(layout)) {
                continue;
            } // taken for a torn write
            disk(files).flip_bit(path, bit);
            for (const on_damage how : {on_damage::refuse, on_damage::read_only, on_damage::salvage}) {
                CAPTURE(static_cast<int>(how));
                const finding f = read_all(files.clone(), how);
                if (f.refused) {
                    CHECK(how == on_damage::refuse);
                    CHECK(names_place(f, path, s.first, s.end));
                    continue;
                }
                const auto may_be_lost = [&](unsigned id) { return s.what == stretch::message && s.id == id; };
                CHECK(judge(f, large.now, may_be_lost, s.what == stretch::settlements && !closed) == "");
                if (is_segment && s.what != stretch::unused) { CHECK(names_place(f, path, s.first, s.end)); }
            }
            CHECK(goes_on(files) == "");
        }
        return true;
    });
}

TEST_CASE("journal damage: segments swapped, doubled, missing, empty, zeros, of another journal, of another time") {
    const large_journal large, other(1);
    for (const bool closed : {true, false}) {
        CAPTURE(closed);
        const disk& original = closed ? large.files : large.killed;
        const auto segments = large.segments(original), others = other.segments(other.files);
        REQUIRE(segments.size() >= 4);
        struct change {
            const char* name;
            std::function<std::vector<std::string>(disk&, std::size_t)> make; // the segments that are bad then
        };
        const change changes[] = {
            {"swapped",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 const std::size_t k = (i + 1) % segments.size();
                 const auto one = d.contents(segments[i]), two = d.contents(segments[k]);
                 d.set_contents(segments[i], two);
                 d.set_contents(segments[k], one);
                 return {segments[i], segments[k]};
             }},
            {"one twice",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 d.set_contents(segments[i], d.contents(segments[(i + 1) % segments.size()]));
                 return {segments[i]};
             }},
            {"missing",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 CHECK_FALSE(d.remove(segments[i]));
                 CHECK_FALSE(d.sync_directory("data"));
                 return {segments[i]};
             }},
            {"empty",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 d.set_contents(segments[i], {});
                 return {segments[i]};
             }},
            {"zeros",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 d.set_contents(segments[i], std::vector<std::byte>(d.contents(segments[i]).size()));
                 return {segments[i]};
             }},
            {"zeros after the header",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 auto bytes = d.contents(segments[i]);
                 std::fill(bytes.begin() + 64, bytes.end(), std::byte{});
                 d.set_contents(segments[i], bytes);
                 return {segments[i]};
             }},
            {"of another journal",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 d.set_contents(segments[i], other.files.contents(others[i]));
                 return {segments[i]};
             }},
            {"the body of another journal",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 auto bytes = other.files.contents(others[i]);
                 const auto own = d.contents(segments[i]);
                 std::copy_n(own.begin(), 64, bytes.begin());
                 d.set_contents(segments[i], bytes);
                 return {segments[i]};
             }},
            {"of a foreign program",
             [&](disk& d, std::size_t i) -> std::vector<std::string> {
                 const std::string text(5000, 'x');
                 d.set_contents(segments[i], std::as_bytes(std::span(text)));
                 return {segments[i]};
             }},
        };
        for (const change& c : changes) {
            for (std::size_t i = 0; i < segments.size(); ++i) {
                CAPTURE(std::string(c.name));
                CAPTURE(i);
                disk files = original.clone();
                std::set<unsigned> lost;
                std::map<std::string, std::set<unsigned>> in;
                for (const std::string& s : segments) { in[s] = large_journal::in(original, s); }
                const auto bad = c.make(files, i);
                for (const std::string& s : bad) { lost.insert(in[s].begin(), in[s].end()); }
                const contents before = all_of(files);
                const disk careful = files.clone();
                const finding refused = read_all(careful, on_damage::refuse);
                if (refused.refused) {
                    CHECK(std::any_of(bad.begin(), bad.end(), [&](const std::string& s) { return refused.refused->find(s) != std::string::npos; }));
                    CHECK(all_of(careful) == before);
                }
                for (const on_damage how : {on_damage::read_only, on_damage::salvage}) {
                    const finding f = read_all(files.clone(), how);
                    CHECK_FALSE(f.refused);
                    // The settlements stood in the last segment: whoever loses these, has them back.
                    const bool last_is_bad = std::find(bad.begin(), bad.end(), segments.back()) != bad.end();
                    CHECK(judge(
                              f, large.now, [&](unsigned id) { return lost.contains(id); }, last_is_bad && !closed) == "");
                    for (const std::string& s : bad) {
                        if (in[s].empty() && closed) { continue; }
                        CHECK(names_place(f, s, 0, std::uint64_t{1} << 40));
                    }
                }
                CHECK(goes_on(files) == "");
            }
        }
    }
}

TEST_CASE("journal damage: salvage that is interrupted at any call loses nothing more") {
    const disk killed;
    std::vector<std::string> segments;
    {
        manual_clock clock;
        sim_journal j("data", {.segment_bytes = 64 << 10, .clock = &clock}, killed);
        sim_queue a(j, "a"), b(j, "b");
        for (unsigned id = 1; id <= 30; ++id) { a.send(parcel(id, 6000)); }
        while (a.try_pop()) {}
        j.compact(); // what declared the queues is in the manifest alone
        for (unsigned id = 31; id <= 120; ++id) { (id % 3 == 0 ? a : b).send(parcel(id, 3000)); }
        disk(killed).process_kill();
    }
    for (const std::string& name : killed.files()) {
        if (name.ends_with(".log")) { segments.push_back(name); }
    }
    const auto salvaged = [](const disk& files) {
        const finding f = read_all(files, on_damage::salvage);
        CHECK_FALSE(f.refused);
        return std::pair(f.a, f.b);
    };
    std::vector<std::vector<std::string>> names{{"data/MANIFEST"}, {"data/MANIFEST.old"}};
    for (const std::string& segment : segments) {
        names.push_back({segment});
        names.push_back({"data/MANIFEST", segment}); // what was sealed since the manifest before has an index beside it, of what was there then
    }
    for (const auto& hit : names) {
        const disk damaged = killed.clone();
        for (const std::string& name : hit) {
            auto bytes = damaged.contents(name);
            std::fill_n(bytes.begin() + (name.ends_with(".log") ? 20'000 : 0), 40, std::byte{0x55});
            disk(damaged).set_contents(name, bytes);
        }
        const auto whole = salvaged(damaged.clone());
        for (std::uint64_t call = 0;; ++call) {
            CAPTURE(hit.front() + ' ' + hit.back());
            CAPTURE(call);
            const disk files = damaged.clone();
            disk(files).crash_at(call);
            try {
                sim_journal j("data", {.segment_bytes = 64 << 10, .on_damage = on_damage::salvage}, files);
            } catch (const error&) {}
            const bool is_cut = files.is_off();
            for (const loss what : {loss::nothing, loss::everything, loss::random}) {
                const disk after = files.clone();
                disk(after).power_cut(call, what);
                CHECK(salvaged(after) == whole);
            }
            if (!is_cut) { break; }
        }
    }
}

// Begun since the last checkpoint, a segment stands in no manifest.
TEST_CASE("journal damage: the segment that was written to last is missing, what was begun after it is there") {
    for (unsigned n = 8; n < 70; ++n) {
        const disk files;
        manual_clock clock;
        const mailroom::journal_options o{.segment_bytes = 64 << 10, .clock = &clock};
        std::vector<std::string> segments;
        {
            sim_journal j("data", o, files);
            sim_queue q(j, "q");
            for (unsigned i = 0; i < n; ++i) { q.send(parcel(i, 6000)); }
            disk(files).power_cut(1, mailroom::testing::loss::everything);
            for (const std::string& name : files.files()) {
                if (name.ends_with(".log")) { segments.push_back(name); }
            }
        }
        for (const std::string& gone : segments) {
            CAPTURE(n);
            CAPTURE(gone);
            if (gone == segments.front() && segments.size() == 1) { continue; } // the queue itself was declared there
            const disk damaged = files.clone();
            std::set<unsigned> left, found;
            for (const std::string& name : segments) {
                if (name != gone) { left.merge(large_journal::in(damaged, name)); }
            }
            CHECK_FALSE(disk(damaged).remove(gone));
            for (const on_damage how : {on_damage::read_only, on_damage::salvage}) {
                found.clear();
                mailroom::journal_options with = o;
                with.on_damage = how;
                sim_journal j("data", with, damaged);
                if (gone != segments.back()) { CHECK_FALSE(j.recovered().damages.empty()); } // of that one nobody may know yet
                sim_queue q(j, "q");
                for (const auto& [at, id] : support::look_into(q).alive) { found.insert(id); }
                CHECK(found == left);
            }
        }
    }
}
