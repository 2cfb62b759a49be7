// The oracle of a journal's tests: what the world outside knows of a queue, kept where no crash reaches it; and what it says of what was found
// afterwards. Lost, invented, wrong, out of order, back from the dead: each has a sentence.
#pragma once

#include "support/instances.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/testing/simulated_files.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace support {

using disk = mailroom::testing::simulated_files;
using sim_journal = mailroom::basic_journal<disk>;
using sim_queue = mailroom::queue<std::string, sim_journal>;

/// A body that says which one it is and can be told from a damaged one: "17:" and then what follows from 17.
inline std::string parcel(unsigned id, std::size_t bytes) {
    std::string s = std::to_string(id) + ':';
    std::uint64_t x = id * 0x9E3779B97F4A7C15u + bytes;
    const std::size_t front = s.size();
    s.resize(std::max(front, bytes));
    char* const to = s.data();
    for (std::size_t at = front, some = 0; at < bytes; at += some) { // eight letters at a time: the tests make, and look at, very many
        x = x * 6364136223846793005u + 1442695040888963407u;
        const std::uint64_t letters = ((x >> 4) & 0x0f0f0f0f0f0f0f0fu) | 0x6060606060606060u;
        some = bytes - at < sizeof letters ? bytes - at : sizeof letters;
        std::memcpy(to + at, &letters, some);
    }
    return s;
}
/// Its number. Throws std::runtime_error if it is not what was sent.
inline unsigned parcel_id(const std::string& s) {
    const std::size_t end = s.find(':');
    if (end == std::string::npos || end > 9) { throw std::runtime_error("a body that nobody sent: " + s.substr(0, 20)); }
    const auto id = static_cast<unsigned>(std::strtoul(s.c_str(), nullptr, 10));
    if (s != parcel(id, s.size()) && s.size() != end + 1) { throw std::runtime_error("the body of message " + std::to_string(id) + " is damaged"); }
    return id;
}

inline std::string text_of(const mailroom::damage& d) { return d.file + ", byte " + std::to_string(d.byte) + ": " + d.what; }
/// Throws std::runtime_error, with a sentence, if the journal was damaged when it was opened; if it is now.
template <class Journal>
void open_well(const Journal& j) {
    if (!j.recovered().damages.empty()) { throw std::runtime_error("damage: " + text_of(j.recovered().damages.front())); }
}
template <class Journal>
void verify_well(Journal& j) {
    if (const auto v = j.verify(); !v.intact) { throw std::runtime_error("verify: " + text_of(v.damages.front())); }
}

/// What is in a queue: by browsing, and looking at the dead; nothing changes but the place of the dead in their line.
struct found_in_queue {
    std::vector<std::pair<mailroom::offset, unsigned>> alive; // in order
    std::vector<std::pair<mailroom::offset, unsigned>> dead;
};
template <class Queue>
found_in_queue look_into(Queue& q) {
    found_in_queue found;
    std::string problem; // nothing is thrown through browse
    q.browse([&](const mailroom::message<std::string>& m, mailroom::message_state) {
        try {
            found.alive.emplace_back(m.offset(), parcel_id(m.body()));
        } catch (const std::exception& e) { problem = e.what(); }
        return problem.empty();
    });
    if (!problem.empty()) { throw std::runtime_error(problem); }
    std::vector<mailroom::dead_letter<std::string>> held;
    while (auto d = q.dead().try_receive()) {
        found.dead.emplace_back(d->offset(), parcel_id(d->body()));
        held.push_back(std::move(*d));
    }
    for (auto& d : held) { d.release(); }
    return found;
}

/// What is known of one queue. Ids rise in the order in which they are sent; one thread.
class oracle {
public:
    oracle() = default;
    explicit oracle(mailroom::durability d) : promise_(d) {}

    struct fate {
        enum { unknown, accepted, refused } sent = unknown;
        mailroom::offset at = mailroom::no_offset;
        unsigned group = 0;                               // of those sent at once
        unsigned life = 0, settled_in = 0, buried_in = 0; // of the process that sent it; that settled it; that rejected it, 0: it was called back
        bool safe[2] = {};                                // from a killed process, from a power cut
        bool settling = false, settled[2] = {};           // acknowledged; and it can be relied on
        bool burying = false, buried[2] = {};             // rejected
    };
    std::map<unsigned, fate> fates;

    /// A process starts: what an earlier one had not brought to the disk it knows nothing of.
    void begins() { ++life_; }
    void sends(unsigned id, unsigned group = 0) {
        fates[id].group = group;
        fates[id].life = life_;
        last_ = id;
    }
    void accepted(unsigned id, mailroom::offset at) {
        fate& f = fates.at(id);
        f.sent = fate::accepted;
        f.at = at;
        note_safe(f.safe, promise_);
    }
    void refused(unsigned id) { fates.at(id).sent = fate::refused; }
    void settles(unsigned id) {
        fates.at(id).settling = true;
        fates.at(id).settled_in = life_;
    }
    void buries(unsigned id) {
        fates.at(id).burying = true;
        fates.at(id).buried_in = life_;
    }
    /// A dead one is called back.
    void revives(unsigned id) {
        fate& f = fates.at(id);
        f.buried_in = 0;
        f.buried[0] = f.buried[1] = false;
    }
    /// A commit of this journal that began after all this has been waited for.
    void committed() { note(promise_, false); }
    /// The same, on stable storage.
    void flushed() { note(mailroom::durability::commit, true); }
    unsigned last() const { return last_; }

    /// Throws std::runtime_error, with a sentence, for what must not be. `power`: what came was a power cut.
    void check(const found_in_queue& found, bool power = true) const {
        const int which = power ? 1 : 0;
        std::map<unsigned, bool> there; // whether it is dead
        for (const bool dead : {false, true}) {
            mailroom::offset last = 0;
            unsigned last_id = 0;
            bool any = false;
            for (const auto& [at, id] : dead ? found.dead : found.alive) {
                const auto known = fates.find(id);
                if (known == fates.end()) { fail(id, "was never sent"); }
                const fate& f = known->second;
                if (!there.emplace(id, dead).second) { fail(id, "is there twice"); }
                if (f.sent == fate::refused) { fail(id, "was refused, and is there"); }
                if (f.sent == fate::accepted && f.at != at) { fail(id, "has offset " + std::to_string(at) + ", it was " + std::to_string(f.at)); }
                if (f.settled[which]) { fail(id, "was settled, and is there"); }
                if (dead && !f.burying) { fail(id, "is dead for no reason"); }
                if (!dead && f.buried[which]) { fail(id, "lives, it was rejected"); }
                if (any && !dead && (at <= last || id <= last_id)) { fail(id, "comes after " + std::to_string(last_id)); }
                last = at;
                last_id = id;
                any = true;
            }
        }
        unsigned lost = 0;
        std::map<unsigned, std::pair<unsigned, unsigned>> groups; // how many are there, and not
        for (const auto& [id, f] : fates) {
            const bool is_there = there.contains(id);
            if (f.group != 0 && !f.settling) { ++(is_there ? groups[f.group].first : groups[f.group].second); }
            if (is_there && lost != 0 && fates.at(lost).life == f.life) { fail(lost, "is lost, though " + std::to_string(id) + " is there: a hole"); }
            if (is_there || f.sent != fate::accepted || f.settling) { continue; }
            if (f.safe[which]) { fail(id, "is lost"); }
            if (lost == 0) { lost = id; }
        }
        for (const auto& [group, n] : groups) {
            if (n.first != 0 && n.second != 0) {
                throw std::runtime_error("of what was sent at once (" + std::to_string(group) + ") a part is there");
            }
        }
    }

private:
    void note(mailroom::durability d, bool sent_too) {
        for (auto& [id, f] : fates) {
            if (sent_too && f.sent == fate::accepted && f.life == life_) { note_safe(f.safe, d); }
            if (f.settled_in == life_) { note_safe(f.settled, d); }
            if (f.buried_in == life_) { note_safe(f.buried, d); }
        }
    }
    static void note_safe(bool (&safe)[2], mailroom::durability d) {
        safe[0] = safe[0] || d != mailroom::durability::none;
        safe[1] = safe[1] || d == mailroom::durability::commit;
    }
    [[noreturn]] static void fail(unsigned id, const std::string& what) { throw std::runtime_error("message " + std::to_string(id) + ' ' + what); }

    mailroom::durability promise_ = mailroom::durability::commit;
    unsigned last_ = 0;
    unsigned life_ = 1;
};

} // namespace support
