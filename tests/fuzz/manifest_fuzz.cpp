// A libFuzzer target: bytes from outside as the manifest of a journal.
//
// The first byte of the input says what is done with the rest, which takes the place of MANIFEST:
//   bit 0   it is the body: the frame around it, with its checksum, is made here
//   bit 1   there is no MANIFEST.old
//   bit 2   there are no files beside the segments
// Then the journal is opened with on_damage::salvage, verified, written to, compacted, verified, closed; and all that once more.
//
//   clang++-16 -std=c++20 -g -O1 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/manifest_fuzz.cpp -o manifest_fuzz
//   ./manifest_fuzz -timeout=10 -rss_limit_mb=1500 <new inputs> tests/fuzz/corpus/manifest
//
// With MAILROOM_FUZZ_SEEDS=<a directory that exists> it writes the inputs to begin with there, and ends.
#include <mailroom/journal/engine.hpp>
#include <mailroom/testing.hpp>
#include <mailroom/testing/simulated_files.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace mailroom::detail;
using mailroom::offset;
using mailroom::testing::simulated_files;
using engine = log_engine<simulated_files>;
using bytes = std::vector<std::byte>;

mailroom::testing::manual_clock time_stands_still;
const schema orders{"order", 1, 77, "application/x-mailroom"};

struct listener final : stream_listener {
    void advance(offset) noexcept override {}
    void arrived(std::size_t) noexcept override {}
    void journal_closed() noexcept override {}
    void hold() noexcept override {}
    void let_go() noexcept override {}
} nobody;

struct source final : change_source {
    using change_source::change_source;
    bytes steps;
    void collect(bytes& to) noexcept override { to = std::exchange(steps, {}); }
    void give_back(bytes_view) noexcept override {}
};

mailroom::journal_options options() {
    return {.segment_bytes = std::size_t{64} << 10, .on_damage = mailroom::on_damage::salvage, .clock = &time_stands_still};
}

bool anybody(void*, offset) { return true; }

void send(engine& e, std::uint32_t stream, std::size_t size, std::string_view id = {}) {
    mailroom::byte_sink front;
    if (!id.empty()) { encode_properties({.key = "k", .id = std::string(id)}, front); }
    bytes payload(front.bytes().begin(), front.bytes().end());
    payload.resize(payload.size() + size, std::byte{'x'});
    draft d;
    d.stream = stream;
    d.properties = static_cast<std::uint32_t>(front.size());
    d.length = static_cast<std::uint32_t>(payload.size());
    payload.resize(padded(payload.size()));
    d.payload = payload;
    d.hash = checksum(payload, e.seed());
    ticket t;
    if (e.place({&d, 1}, {&anybody, nullptr}, &t).taken) { e.wait(t); }
}

void settle(engine& e, std::uint32_t cursor, offset first, std::uint64_t n) {
    source s(cursor);
    wire_writer to(s.steps);
    for (const std::uint64_t v : {std::uint64_t{1}, first, n, std::uint64_t{2}, first + n}) { to.var(v); }
    trial{.attempt = 2, .dead = true, .due = 5, .first_failure = 3, .last_failure = 4, .reason = "because"}.write(to);
    for (const std::uint64_t v : {4U, 1U, 2U, 3U}) { to.var(v); }
    e.mark(s);
    e.push_settlements();
    e.detach(s);
}

std::uint32_t declare(engine& e, std::string_view name, const endpoint_shape& shape) {
    return e.open(name, shape, orders, [](const schema&) {}).number;
}

/// A bit of everything, but for what takes room.
void little(engine& e, std::uint32_t queue, std::uint32_t topic) {
    for (const char* const id : {"", "one", ""}) { send(e, queue, 20, id); }
    for (const char* const id : {"two", ""}) { send(e, topic + 1, 20, id); }
    settle(e, 1, e.placed_until(queue) - 3, 1);
    bytes steps;
    wire_writer to(steps);
    to.var(e.placed_until(queue) - 1);
    to.var(3);
    e.note_deliveries(1, steps);
    const offset next = e.placed_until(topic);
    const std::uint32_t cursors = e.subscribe(topic, "audit", 1, {cursor_image(next), cursor_image(0)});
    e.put_cursor(cursors, cursor_image(0));
    e.subscribe(topic, "mail", 2, {cursor_image(0), cursor_image(0)});
    e.unsubscribe(topic, "mail");
}

/// A journal of three segments, and one of survivors. A crash has left it, so the end has to be found.
simulated_files make_disk() {
    simulated_files disk;
    engine e("j", options(), disk);
    const std::uint32_t queue = declare(e, "queue", {});
    const std::uint32_t topic = declare(e, "topic", {.kind = endpoint_kind::topic, .partitions = 2, .dedup_window = std::int64_t{1} << 60});
    for (const std::uint32_t stream : {queue, topic, topic + 1}) { e.attach(stream, nobody); }
    for (int i = 0; i < 4; ++i) { send(e, queue, 16'000); }
    settle(e, 1, 1, 2); // two survive
    static_cast<void>(e.compact(nullptr));
    for (int i = 0; i < 2; ++i) {
        little(e, queue, topic);
        for (int k = 0; k < 2; ++k) { send(e, queue, 30'000); }
    }
    send(e, queue, 5'000); // the third begins here
    static_cast<void>(e.open("queue", {}, schema{"order", 2, 78, "application/x-mailroom"}, [](const schema&) {}));
    little(e, queue, topic);
    return disk.clone();
}

/// Gives checksums to whatever has the outline of a segment, as one of journal `id` that begins at `first`; returns that of the last batch.
std::uint64_t mend(std::span<std::byte> file, const journal_id& id, std::uint64_t first, std::uint64_t chain) {
    if (file.size() < segment_header::size) { return chain; }
    segment_header{.id = id, .first = first, .incarnation = load_le<std::uint64_t>(file.data() + 40)}.encode(file.data());
    const std::uint64_t seed = seed_of(id);
    for (std::size_t at = segment_header::size; at + record_header::size <= file.size();) {
        const std::uint64_t position = first + (at - segment_header::size);
        std::byte* const b = file.data() + at;
        if (load_le<std::uint32_t>(b + 8) == batch_header::word && at + batch_header::size <= file.size()) {
            store_le(b + 16, position);
            store_le(b + 32, chain);
            chain = checksum({b + 8, batch_header::size - 8}, seed);
            store_le(b, chain);
            at += batch_header::size;
            continue;
        }
        if (load_le<std::uint64_t>(b) == 0) { break; } // what was never written
        const std::size_t room = file.size() - at - record_header::size, length = padded(load_le<std::uint32_t>(b + 40));
        store_le(b + 8, position);
        if (length <= room) { store_le(b + 16, checksum({b + record_header::size, length}, seed)); }
        store_le(b, checksum({b + 8, record_header::size - 8}, seed));
        at += record_header::size + std::min(length, room);
    }
    return chain;
}

std::uint64_t first_of(const std::string& path) { return *position_in(std::string_view(path).substr(2), path.ends_with(".srv") ? ".srv" : ".log"); }

/// The same journal under an id that is always the same: inputs stay what they are from run to run.
journal_id rename_journal(simulated_files& disk) {
    journal_id id{};
    for (std::size_t i = 0; i < id.size(); ++i) { id[i] = static_cast<std::byte>(i + 1); }
    std::uint64_t chain = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> chains{{0, 0}}; // at which position
    for (const std::string& path : disk.files()) {
        if (path.ends_with(".srv")) {
            bytes file = disk.contents(path);
            mend(file, id, first_of(path), 0);
            disk.set_contents(path, file);
        }
        if (!path.ends_with(".log")) { continue; }
        bytes file = disk.contents(path);
        chain = mend(file, id, first_of(path), chain);
        disk.set_contents(path, file);
        for (std::size_t at = segment_header::size; at + batch_header::size <= file.size(); at += alignment) {
            batch_header h;
            const std::uint64_t position = first_of(path) + at - segment_header::size;
            if (batch_header::decode(std::span(file).subspan(at), position, seed_of(id), h)) {
                chains.emplace_back(position + batch_header::size + h.length, load_le<std::uint64_t>(file.data() + at));
            }
        }
    }
    for (const std::string& path : disk.files()) {
        const bool is_index = path.ends_with(".idx");
        if (!is_index && !path.ends_with("MANIFEST") && !path.ends_with("MANIFEST.old")) { continue; }
        bytes file = disk.contents(path);
        const std::uint64_t word = is_index ? sealed_file::index_word : sealed_file::manifest_word;
        bytes body(file.begin() + sealed_file::head, file.end());
        if (!is_index) { // where it stands, and the checksum of the batch before
            const auto applied = load_le<std::uint64_t>(body.data() + 9);
            for (const auto& [position, check] : chains) {
                if (position == applied) { store_le(body.data() + 17, check); }
            }
        }
        disk.set_contents(path, sealed_file::encode(word, id, load_le<std::uint64_t>(file.data() + 40), body));
    }
    return id;
}

/// What a program would do with it. Nothing but a mailroom::error may get out of the engine.
void use(const simulated_files& disk) {
    try {
        engine e("j", options(), disk);
        std::uint64_t unsettled = 0;
        e.look([&](const catalog& c) {
            for (const auto& [number, s] : c.streams()) { unsettled += std::min<std::uint64_t>(c.wanted_in(number, 0, s.next), 1u << 20); }
        });
        if (unsettled > 100'000) { return; } // a list that says so of a message of each is as long as they are many
        static_cast<void>(e.verify(nullptr));
        try {
            const std::uint32_t queue = declare(e, "queue", {});
            e.attach(queue, nobody);
            send(e, queue, 20, "three");
        } catch (const mailroom::error&) {}
        static_cast<void>(e.compact(nullptr));
        static_cast<void>(e.verify(nullptr));
    } catch (const mailroom::error&) {}
}

simulated_files the_disk;
journal_id the_id{};

void write_seed(const char* where, const char* name, char first, bytes_view rest) {
    std::ofstream file(std::string(where) + '/' + name, std::ios::binary);
    file.put(first);
    file.write(reinterpret_cast<const char*>(rest.data()), static_cast<std::streamsize>(rest.size()));
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    the_disk = make_disk();
    the_id = rename_journal(the_disk);
    if (const char* const where = std::getenv("MAILROOM_FUZZ_SEEDS")) {
        const bytes now = the_disk.contents("j/MANIFEST"), old = the_disk.contents("j/MANIFEST.old");
        simulated_files closed = the_disk.clone();
        use(closed);
        const bytes clean = closed.contents("j/MANIFEST");
        write_seed(where, "whole", 0, now);
        write_seed(where, "body", 1, bytes_view(now).subspan(sealed_file::head));
        write_seed(where, "old_body", 3, bytes_view(old).subspan(sealed_file::head));
        write_seed(where, "clean_body", 7, bytes_view(clean).subspan(sealed_file::head));
        std::exit(0);
    }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) { return 0; }
    const unsigned how = data[0];
    simulated_files disk = the_disk.clone();
    disk.capacity(std::uint64_t{32} << 20); // a file may be said to be as long as a real one can be: here its zeros take memory
    bytes file(size - 1);
    if (size > 1) { std::memcpy(file.data(), data + 1, size - 1); }
    if ((how & 1u) != 0) { file = sealed_file::encode(sealed_file::manifest_word, the_id, 0, file); }
    disk.set_contents("j/MANIFEST", file);
    for (const std::string& name : disk.files()) {
        if (((how & 2u) != 0 && name == "j/MANIFEST.old") || ((how & 4u) != 0 && name.ends_with(".idx"))) { static_cast<void>(disk.remove(name)); }
    }
    use(disk);
    use(disk);
    return 0;
}
