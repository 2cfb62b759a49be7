// format: the fixed parts of a journal's files, as docs/file-format.md has them. Every struct here has one encoding, which a change of the
// format has to give a new version.
//
// A position is a place in the commit stream of a journal: bytes since its beginning, over all segments, without their headers. Every checksum
// of something in the stream covers its position and, as the seed, the journal it belongs to: what an earlier life of a recycled file left
// behind does not verify.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/wire.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#ifndef XXH_INLINE_ALL
# define XXH_INLINE_ALL
#endif
#include <xxhash.h>

namespace mailroom::detail {

/// 2 knows transactions and numbered producers, 3 what was refused, and survivor segments; what 1 and 2 wrote is read.
inline constexpr std::uint32_t format_version = 3, oldest_format_version = 1;
inline constexpr bool is_read(std::uint32_t version) noexcept { return version >= oldest_format_version && version <= format_version; }

/// What is said of a file of another version: it is never written over. Compared by its address, which is one in the whole program.
inline constexpr char other_version[] = "the file is of another version of the format than this program reads";

/// XXH3-64.
inline std::uint64_t checksum(bytes_view b, std::uint64_t seed) noexcept { return XXH3_64bits_withSeed(b.data(), b.size(), seed); }
/// The same of so few bytes that, where their number is known, little is left of it: as long as it is a function of its own.
template <std::size_t N>
requires(N <= 128) [[gnu::noinline, gnu::flatten]] inline std::uint64_t short_checksum(const std::byte* at, std::uint64_t seed) noexcept {
    return XXH3_64bits_withSeed(at, N, seed);
}

/// A seed, and what hashing more than 240 bytes makes of it, made once.
class hash_key {
public:
    hash_key() noexcept : hash_key(0) {}
    hash_key(std::uint64_t seed) noexcept : seed_(seed) { // NOLINT: a seed is a key
#if XXH_VERSION_NUMBER >= 801
        XXH3_generateSecret_fromSeed(secret_.data(), seed);
#endif
    }
    operator std::uint64_t() const noexcept { return seed_; }
    /// XXH3-64 with that seed.
    std::uint64_t of(bytes_view b) const noexcept {
#if XXH_VERSION_NUMBER >= 801
        return XXH3_64bits_withSecretandSeed(b.data(), b.size(), secret_.data(), secret_.size(), seed_);
#else
        return checksum(b, seed_);
#endif
    }

private:
    std::uint64_t seed_;
#if XXH_VERSION_NUMBER >= 801
    alignas(64) std::array<unsigned char, 192> secret_;
#endif
};
inline std::uint64_t checksum(bytes_view b, const hash_key& key) noexcept { return key.of(b); }

/// Everything in the commit stream begins at a multiple of this.
inline constexpr std::size_t alignment = 8;
constexpr std::size_t padded(std::size_t n) noexcept { return (n + alignment - 1) / alignment * alignment; }

/// Positions from here on are no places in the commit stream, but in survivor segments: what verifies there does so nowhere else.
inline constexpr std::uint64_t survivors_from = std::uint64_t{1} << 63, most_survivors = survivors_from / 2;

/// A random number that tells one journal from all others.
using journal_id = std::array<std::byte, 16>;
inline std::uint64_t seed_of(const journal_id& id) noexcept { return checksum(id, 0); }

constexpr std::uint64_t magic(const char (&text)[9]) noexcept {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < 8; ++i) { value |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[i])) << (8 * i); }
    return value;
}

/// At the beginning of each segment.
struct segment_header {
    static constexpr std::size_t size = 64;
    static constexpr std::uint64_t word = magic("MAILROOM");

    journal_id id{};
    std::uint64_t first = 0; // the position of what follows
    std::uint64_t incarnation = 0;
    std::uint64_t durable_upto = 0; // all below was on stable storage when it was begun

    void encode(std::byte* to) const noexcept {
        store_le(to, word);
        store_le(to + 8, format_version);
        store_le(to + 12, static_cast<std::uint32_t>(size));
        std::memcpy(to + 16, id.data(), id.size());
        store_le(to + 32, first);
        store_le(to + 40, incarnation);
        store_le(to + 48, durable_upto);
        store_le(to + 56, checksum({to, 56}, 0));
    }
    /// What is wrong with `from`, or nullptr. `version` is set whenever the file calls itself one of ours.
    static const char* decode(bytes_view from, segment_header& h, std::uint32_t& version) noexcept {
        version = format_version;
        if (from.size() < size) { return "the file ends within its header"; }
        if (load_le<std::uint64_t>(from.data()) != word) { return "the file does not begin as a segment of a journal does"; }
        if (load_le<std::uint64_t>(from.data() + 56) != checksum(from.first(56), 0)) { return "the header's checksum is wrong"; }
        version = load_le<std::uint32_t>(from.data() + 8);
        if (!is_read(version)) { return other_version; }
        std::memcpy(h.id.data(), from.data() + 16, h.id.size());
        h.first = load_le<std::uint64_t>(from.data() + 32);
        h.incarnation = load_le<std::uint64_t>(from.data() + 40);
        h.durable_upto = version < 3 ? h.first : load_le<std::uint64_t>(from.data() + 48); // before, none was begun until all below was
        return nullptr;
    }
};

/// A batch is shorter.
inline constexpr std::uint64_t most_at_once = std::uint64_t{1} << 33;

/// In front of what was committed at once.
struct batch_header {
    static constexpr std::size_t size = 64;
    static constexpr std::uint32_t word = 0x48435442; // BTCH

    std::uint32_t records = 0;
    std::uint64_t position = 0;
    std::uint64_t length = 0;       // of the records together
    std::uint64_t previous = 0;     // the checksum of the batch header before this one
    std::uint64_t incarnation = 0;  // of the journal when this was written
    std::uint64_t durable_upto = 0; // all below was on stable storage when this was written
    std::int64_t time = 0;          // wall clock, nanoseconds since 1970

    /// Returns its checksum, which the next one carries on.
    std::uint64_t encode(std::byte* to, std::uint64_t seed) const noexcept {
        store_le(to + 8, word);
        store_le(to + 12, records);
        store_le(to + 16, position);
        store_le(to + 24, length);
        store_le(to + 32, previous);
        store_le(to + 40, incarnation);
        store_le(to + 48, durable_upto);
        store_le(to + 56, time);
        const std::uint64_t check = checksum({to + 8, size - 8}, seed);
        store_le(to, check);
        return check;
    }
    /// Whether `from` is one that was written for this position of this journal.
    static bool decode(bytes_view from, std::uint64_t at, std::uint64_t seed, batch_header& h) noexcept {
        if (from.size() < size || load_le<std::uint32_t>(from.data() + 8) != word) { return false; }
        if (load_le<std::uint64_t>(from.data() + 16) != at) { return false; }
        if (load_le<std::uint64_t>(from.data()) != checksum(from.subspan(8, size - 8), seed)) { return false; }
        h.records = load_le<std::uint32_t>(from.data() + 12);
        h.position = at;
        h.length = load_le<std::uint64_t>(from.data() + 24);
        h.previous = load_le<std::uint64_t>(from.data() + 32);
        h.incarnation = load_le<std::uint64_t>(from.data() + 40);
        h.durable_upto = load_le<std::uint64_t>(from.data() + 48);
        h.time = load_le<std::int64_t>(from.data() + 56);
        return h.length % alignment == 0 && h.length < most_at_once;
    }
};

enum class record_kind : std::uint16_t {
    message = 1,
    moved = 2,          // a message again, of an older segment that is to go
    settlements = 3,    // of one cursor
    place = 4,          // where a cursor stands, whatever was settled before
    deliveries = 5,     // that were handed out after an unclean stop
    endpoint = 6,       // a queue or a topic is declared
    schema = 7,         // one more way its bodies are encoded
    subscription = 8,   // a durable one is declared
    removal = 9,        // and forgotten
    deduplication = 10, // which ids of an endpoint are kept from now on
    prepared = 11,      // a transaction, as a whole; what it sends has no offsets yet
    verdict = 12,       // whether it took place: then its messages and settlements are in the same batch
    produced = 13,      // the number that a producer gave the message before this record
    refused = 14,       // how many more messages a stream has not taken
    survivors = 15,     // messages that lie in a survivor segment from now on
};

/// In front of each record.
struct record_header {
    static constexpr std::size_t size = 56;

    std::uint64_t position = 0;
    std::uint64_t hash = 0; // of the payload with its padding
    mailroom::offset offset = 0;
    std::int64_t time = 0;    // messages: when sent, wall clock, nanoseconds since 1970
    std::uint32_t length = 0; // of the payload; it is followed by zeros up to a multiple of 8
    std::uint32_t stream = 0; // or the cursor, where the record is about one
    record_kind kind{};
    std::uint16_t schema = 0;     // messages: how the body is encoded
    std::uint32_t properties = 0; // messages: bytes of the payload in front of the body

    std::size_t whole() const noexcept { return size + padded(length); }

    void encode(std::byte* to, std::uint64_t seed) const noexcept {
        store_le(to + 8, position);
        store_le(to + 16, hash);
        store_le(to + 24, offset);
        store_le(to + 32, time);
        // As whole words: so they are read again at once, to be hashed.
        store_le(to + 40, std::uint64_t{length} | std::uint64_t{stream} << 32);
        store_le(to + 48, static_cast<std::uint64_t>(kind) | std::uint64_t{schema} << 16 | std::uint64_t{properties} << 32);
        store_le(to, short_checksum<size - 8>(to + 8, seed));
    }
    static bool decode(bytes_view from, std::uint64_t at, std::uint64_t seed, record_header& h) noexcept {
        if (from.size() < size || load_le<std::uint64_t>(from.data() + 8) != at) { return false; }
        if (load_le<std::uint64_t>(from.data()) != short_checksum<size - 8>(from.data() + 8, seed)) { return false; }
        h = decode_own(from.data());
        return h.properties <= h.length;
    }
    /// Whether one that was made here and never left is a message of `stream` at that offset, without properties; then also how long all of it is.
    static bool is_plain_at(const std::byte* from, std::uint32_t stream, mailroom::offset offset, std::size_t& whole) noexcept {
        constexpr std::uint64_t kind_and_properties = 0xffffffff'0000ffffu;
        const auto sizes = load_le<std::uint64_t>(from + 40);
        if (load_le<std::uint64_t>(from + 24) != offset || sizes >> 32 != stream) { return false; }
        if ((load_le<std::uint64_t>(from + 48) & kind_and_properties) != static_cast<std::uint64_t>(record_kind::message)) { return false; }
        whole = size + padded(static_cast<std::uint32_t>(sizes));
        return true;
    }
    /// Of a record that was made here and never left: nothing to be verified.
    static record_header decode_own(const std::byte* from) noexcept {
        record_header h;
        h.position = load_le<std::uint64_t>(from + 8);
        h.hash = load_le<std::uint64_t>(from + 16);
        h.offset = load_le<std::uint64_t>(from + 24);
        h.time = load_le<std::int64_t>(from + 32);
        h.length = load_le<std::uint32_t>(from + 40);
        h.stream = load_le<std::uint32_t>(from + 44);
        h.kind = static_cast<record_kind>(load_le<std::uint16_t>(from + 48));
        h.schema = load_le<std::uint16_t>(from + 50);
        h.properties = load_le<std::uint32_t>(from + 52);
        return h;
    }
};

/// A record whose bytes were verified; valid as long as these.
struct record {
    record_header head;
    bytes_view payload;
};

/// Reads the record at position `at`; false: `from` does not begin with all of one, intact.
inline bool decode_record(bytes_view from, std::uint64_t at, const hash_key& seed, record& r) noexcept {
    if (!record_header::decode(from, at, seed, r.head) || from.size() < r.head.whole()) { return false; }
    if (checksum(from.subspan(record_header::size, padded(r.head.length)), seed) != r.head.hash) { return false; }
    r.payload = from.subspan(record_header::size, r.head.length);
    return true;
}
inline std::optional<record> decode_record(bytes_view from, std::uint64_t at, const hash_key& seed) noexcept {
    std::optional<record> r(std::in_place);
    if (!decode_record(from, at, seed, *r)) { r.reset(); }
    return r;
}

/// A whole file with one checksum: the manifest, and the index beside a segment.
struct sealed_file {
    static constexpr std::size_t head = 56;
    static constexpr std::uint64_t manifest_word = magic("MAILMANI"), index_word = magic("MAILINDX");

    /// What stands in front of a body of `size` bytes, which `each_piece(fn)` hands to `fn(bytes_view)`.
    template <class EachPiece>
    static std::array<std::byte, head> frame(std::uint64_t word, const journal_id& id, std::uint64_t number, std::uint64_t size, EachPiece each_piece) {
        std::array<std::byte, head> front;
        std::byte* const to = front.data();
        store_le(to + 8, word);
        store_le(to + 16, std::uint64_t{format_version}); // 32 bits, and as many zeros
        std::memcpy(to + 24, id.data(), id.size());
        store_le(to + 40, number);
        store_le(to + 48, size);
        XXH3_state_t sum;
        XXH3_INITSTATE(&sum);
        XXH3_64bits_reset_withSeed(&sum, seed_of(id));
        XXH3_64bits_update(&sum, to + 8, head - 8);
        each_piece([&sum](bytes_view some) { XXH3_64bits_update(&sum, some.data(), some.size()); });
        store_le(to, std::uint64_t{XXH3_64bits_digest(&sum)});
        return front;
    }
    /// `body` in its frame.
    static std::vector<std::byte> encode(std::uint64_t word, const journal_id& id, std::uint64_t number, bytes_view body) {
        const auto front = frame(word, id, number, body.size(), [body](auto fn) { fn(body); });
        std::vector<std::byte> file;
        file.reserve(head + body.size());
        file.insert(file.end(), front.begin(), front.end());
        file.insert(file.end(), body.begin(), body.end());
        return file;
    }
    /// Of a file that was decoded.
    static std::uint32_t version_of(bytes_view file) noexcept { return load_le<std::uint32_t>(file.data() + 16); }
    /// What is wrong with `file`, or nullptr and its parts.
    static const char* decode(std::uint64_t word, bytes_view file, journal_id& id, std::uint64_t& number, bytes_view& body) noexcept {
        if (file.empty()) { return "the file is empty"; }
        if (file.size() < head) { return "the file ends within its header"; }
        if (load_le<std::uint64_t>(file.data() + 8) != word) { return "the file does not begin as its name says"; }
        std::memcpy(id.data(), file.data() + 24, id.size());
        number = load_le<std::uint64_t>(file.data() + 40);
        if (load_le<std::uint64_t>(file.data()) != checksum(file.subspan(8), seed_of(id))) { return "the checksum is wrong"; }
        if (!is_read(load_le<std::uint32_t>(file.data() + 16))) { return other_version; }
        body = file.subspan(head);
        return load_le<std::uint64_t>(file.data() + 48) == body.size() ? nullptr : "the file is not as long as it says";
    }
};

/// "00000000000000065536.log": a segment by its first position. Sorted by name they are in order.
inline std::string file_name(std::uint64_t first, std::string_view suffix) {
    char digits[24];
    std::snprintf(digits, sizeof digits, "%020llu", static_cast<unsigned long long>(first));
    return std::string(digits).append(suffix);
}
inline std::optional<std::uint64_t> position_in(std::string_view name, std::string_view suffix) noexcept {
    if (name.size() != 20 + suffix.size() || !name.ends_with(suffix)) { return std::nullopt; }
    std::uint64_t value = 0;
    for (const char c : name.substr(0, 20)) {
        if (c < '0' || c > '9' || value > (~std::uint64_t{0} - 9) / 10) { return std::nullopt; }
        value = value * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return value;
}

} // namespace mailroom::detail
