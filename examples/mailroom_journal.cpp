// mailroom_journal: looks into a journal that nobody has open, without the types of what is in it; verifies, salvages and compacts it.
// `mailroom_journal --help` says how. It uses the engine below queues and topics, which knows bytes and offsets only: names in
// mailroom::detail are nobody's to rely on but this project's own programs.
//
// What only looks (ls, show, tail, export, verify) changes nothing, and works on a directory that cannot be written. Text from messages is
// printed so that it cannot move the cursor.
#include "support/plain.hpp"

#include <mailroom/journal.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace format = mailroom::detail;
using engine = format::log_engine<mailroom::posix_files>;
using mailroom::on_damage;

constexpr const char* usage = R"(usage: mailroom_journal <command> <directory> [...]

Looks into a journal that nobody has open.

  ls       <directory>                         queues and topics: their types, what they hold, who subscribes
  show     <directory> <name> [--partition p] [--offset n] [--count n] [--all]
                                               messages, with what is known of each; without --count: 10
  tail     <directory> <name> [-n 10] [--all]  the last ones
  export   <directory> <name> [--partition p] [--offset n] [--count n] [--all]
                                               messages as JSON, one a line
  verify   <directory>                         reads everything and looks at every checksum; changes nothing
  salvage  <directory>                         opens what is intact of a damaged journal, so that programs can go on with
                                               it; says what is lost. Make a copy of the directory first
  compact  <directory>                         gives back the space of what nobody needs any more

Of a queue, the messages that are not settled are shown, dead letters too; of a topic, all that are stored. --all shows
also what is settled and not written over yet.

JSON: endpoint, partition, offset, time, type, version, content_type; state and attempts of a queue's message (ready,
delayed, dead, settled), waits_for and dead_for of a topic's: names of subscriptions; of its properties, those it has;
body, or body_base64 where it is not text. What else should be text and is not UTF-8 is called ..._base64 too.

exit codes: 0 done   1 could not be done   2 somebody has the journal open   3 damage was found   64 wrong usage
)";

enum exit_code { done = 0, failed = 1, in_use = 2, damaged = 3, wrong_usage = 64 };

struct bad_usage : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void complain(const std::string& sentence) { std::fprintf(stderr, "mailroom_journal: %s\n", plain::line(sentence).c_str()); }

// ------------------------------------------------------------------------------------------------------------------------------ opening

/// Throws, with a sentence, where there is no journal or somebody has it open. The engine would do it too, but for three things: for writing it
/// would make a journal where there is none, it does not know who has it open, and it asks nobody where the directory cannot be written.
void expect_journal(const std::string& directory) {
    const mailroom::posix_files files;
    std::vector<std::string> names;
    if (const auto ec = files.list(directory, names)) { throw std::runtime_error("cannot look into '" + directory + "': " + ec.message()); }
    const bool is_one = std::any_of(names.begin(), names.end(), [](const std::string& n) {
        return n == "MANIFEST" || n == "MANIFEST.old" || format::position_in(n, ".log").has_value();
    });
    if (!is_one) { throw std::runtime_error("'" + directory + "' holds no journal"); }

    const int lock = ::open((directory + "/LOCK").c_str(), O_RDONLY | O_CLOEXEC);
    if (lock < 0) { return; } // never opened, or not for us to see
    struct flock who {};
    who.l_type = F_WRLCK;
    who.l_whence = SEEK_SET;
    const bool asked = ::fcntl(lock, F_GETLK, &who) == 0;
    ::close(lock);
    if (asked && who.l_type != F_UNLCK) {
        mailroom::detail::fail(mailroom::errc::in_use, "process " + std::to_string(who.l_pid) + " has the journal '" + directory + "' open");
    }
}

std::shared_ptr<engine> open_journal(const std::string& directory, on_damage what) {
    expect_journal(directory);
    return std::make_shared<engine>(directory, mailroom::journal_options{.on_damage = what}, mailroom::posix_files());
}

std::string sentence_of(const mailroom::damage& d) { return d.file + ", byte " + std::to_string(d.byte) + ": " + d.what; }

/// What a damaged journal makes of an exit code: that it is known comes last, after what could be shown.
int finish(const engine& log, bool all_read = true) {
    for (const auto& d : log.recovered().damages) { complain(sentence_of(d)); }
    return log.recovered().damages.empty() && all_read ? done : damaged;
}

/// On a terminal, a line that is written over.
class progress_bar {
public:
    explicit progress_bar(const char* what) : what_(what) {}
    ~progress_bar() {
        if (percent_ >= 0) { std::fprintf(stderr, "\r\033[K"); }
    }
    mailroom::progress teller() {
        if (::isatty(STDERR_FILENO) == 0) { return nullptr; }
        return [this](double part) {
            const int percent = static_cast<int>(100 * std::clamp(part, 0.0, 1.0));
            if (percent == std::exchange(percent_, percent)) { return; }
            constexpr std::size_t width = 40;
            const std::size_t full = width * static_cast<std::size_t>(percent) / 100;
            std::fprintf(stderr, "\r%s [%s%s] %3d %%\033[K", what_, std::string(full, '#').c_str(), std::string(width - full, '.').c_str(), percent);
        };
    }

private:
    const char* what_;
    int percent_ = -1;
};

// ------------------------------------------------------------------------------------------------------------------- what there is

/// A queue, or one partition of a topic, as it was when the journal was opened. Nothing changes while we look.
struct stream_view {
    std::uint32_t number = 0;
    std::uint32_t partition = 0;
    mailroom::offset first = 0, next = 0;                              // stored are some of [first, next)
    std::vector<std::pair<std::string, format::cursor_image>> readers; // of a queue there is one, without a name
};
struct endpoint_view {
    std::string name;
    format::endpoint_shape shape;
    std::vector<format::schema> schemas;
    std::vector<std::pair<std::string, std::uint32_t>> subscriptions; // name, mode
    std::vector<stream_view> streams;

    bool is_queue() const { return shape.kind == format::endpoint_kind::queue; }
};

std::vector<endpoint_view> endpoints_of(engine& log, std::optional<std::string_view> only = std::nullopt) {
    std::vector<endpoint_view> all;
    log.look([&](const format::catalog& c) {
        for (const auto& [number, e] : c.endpoints()) {
            if (only && e.name != *only) { continue; }
            endpoint_view v{e.name, e.shape, e.schemas, {}, {}};
            for (const auto& [name, s] : e.subscriptions) { v.subscriptions.emplace_back(name, s.mode); }
            for (std::uint32_t p = 0; p < e.shape.partitions; ++p) {
                stream_view s{number + p, p, 0, c.stream(number + p).next, {}};
                for (const auto& [name, sub] : e.subscriptions) {
                    if (const auto* const image = c.image(sub.first_cursor + p)) { s.readers.emplace_back(name, *image); }
                }
                v.streams.push_back(std::move(s));
            }
            all.push_back(std::move(v));
        }
    });
    for (auto& e : all) {
        for (auto& s : e.streams) { s.first = log.first_stored(s.number); }
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return all;
}

endpoint_view find_endpoint(engine& log, const std::string& name) {
    auto found = endpoints_of(log, name);
    if (!found.empty()) { return std::move(found.front()); }
    std::string others;
    for (const auto& e : endpoints_of(log)) { others += (others.empty() ? "'" : ", '") + e.name + "'"; }
    throw std::runtime_error("the journal has no queue or topic '" + name + "'; " + (others.empty() ? "it is empty" : "it has " + others));
}

struct counted {
    std::uint64_t unsettled = 0, dead = 0;
};
counted count(const stream_view& s, const format::cursor_image& reader) {
    counted c{reader.unsettled_in(0, s.next), 0};
    for (const auto& [o, t] : reader.trials()) { c.dead += t.dead && o < s.next ? 1 : 0; }
    return c;
}

// ------------------------------------------------------------------------------------------------------------------------- messages

struct stored_message {
    format::record_header head;
    mailroom::properties props;
    bool props_readable = true;
    std::vector<std::byte> body;
};

/// Calls `fn` for the messages of a stream from offset `from` on, in order, as long as it answers true: those that are not settled, of a queue, or
/// all that are stored. Returns false, after a complaint, where one could not be read.
class reading {
public:
    reading(engine& log, const endpoint_view& of, bool all) : log_(log), all_(all || !of.is_queue()), name_(of.name) {}

    using consumer = std::function<bool(const stream_view&, const stored_message&)>;
    /// False: `fn` wants no more.
    bool each(const stream_view& s, mailroom::offset from, const consumer& fn) {
        for (mailroom::offset o = std::max(from, s.first); o < s.next;) {
            mailroom::offset first = o;
            const std::uint32_t mask = block(s, o, first);
            if (mask == 0) { break; }
            std::vector<stored_message> found;
            std::vector<std::pair<unsigned, std::optional<mailroom::damage>>> lost;
            bool no_memory = false;
            format::record_calls to( // through which nothing is thrown
                [&](unsigned, const format::record& r) {
                    try {
                        found.push_back(taken(r));
                    } catch (...) { no_memory = true; }
                },
                [&](unsigned i, const mailroom::damage* d) {
                    try {
                        lost.emplace_back(i, d != nullptr ? std::optional(*d) : std::nullopt);
                    } catch (...) { no_memory = true; }
                });
            log_.read(s.number, first, mask, to, ahead_);
            if (no_memory) { throw std::bad_alloc(); }
            std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.head.offset < b.head.offset; });
            for (const auto& m : found) {
                if (!fn(s, m)) { return false; }
            }
            for (const auto& [i, d] : lost) { // what is settled may be gone
                if (!d && all_) { continue; }
                complain("'" + name_ + "', offset " + std::to_string(first + i) + ": " + (d ? sentence_of(*d) : "the message is lost"));
                intact_ = false;
            }
            o = first + 32;
        }
        return true;
    }
    /// Where to begin to get the last `n`, or more.
    mailroom::offset tail(const stream_view& s, std::uint64_t n) {
        std::deque<mailroom::offset> last;
        if (!all_) {
            for (const auto& [name, reader] : s.readers) {
                reader.each_unsettled(s.first, s.next, [&](mailroom::offset o) {
                    last.push_back(o);
                    if (last.size() > n) { last.pop_front(); }
                    return true;
                });
            }
            return last.empty() ? s.next : last.front();
        }
        std::uint64_t there = 0;
        mailroom::offset from = s.next;
        while (from > s.first && there < n) { // gaps are rare: the first try is the last
            from -= std::min(from - s.first, std::max<std::uint64_t>(n - there, 32));
            there = 0;
            each(s, from, [&](const auto&, const auto&) { return ++there < n; });
        }
        return from;
    }
    bool intact() const { return intact_; }

private:
    // At most 32 offsets that are worth a look, from `o` on.
    std::uint32_t block(const stream_view& s, mailroom::offset o, mailroom::offset& first) const {
        std::uint32_t mask = 0;
        if (all_) {
            first = o;
            return s.next - o >= 32 ? ~std::uint32_t{0} : (std::uint32_t{1} << (s.next - o)) - 1;
        }
        for (const auto& [name, reader] : s.readers) {
            reader.each_unsettled(o, s.next, [&](mailroom::offset x) {
                if (mask == 0) { first = x; }
                if (x - first >= 32) { return false; }
                mask |= std::uint32_t{1} << (x - first);
                return true;
            });
        }
        return mask;
    }
    static stored_message taken(const format::record& r) {
        stored_message m{r.head, {}, true, {}};
        auto rest = r.payload;
        if (r.head.properties != 0) {
            auto front = r.payload.first(r.head.properties);
            try {
                m.props = format::decode_properties(front);
            } catch (const mailroom::error&) { m.props_readable = false; }
            rest = r.payload.subspan(r.head.properties);
        }
        m.body.assign(rest.begin(), rest.end());
        return m;
    }

    engine& log_;
    format::read_ahead ahead_;
    const bool all_;
    const std::string name_;
    bool intact_ = true;
};

const format::schema& schema_of(const endpoint_view& e, const stored_message& m) {
    static const format::schema unknown{"(unknown)", 0, 0, "application/octet-stream"};
    return m.head.schema < e.schemas.size() ? e.schemas[m.head.schema] : unknown;
}
std::string_view content_of(const endpoint_view& e, const stored_message& m) {
    return !m.props.content_type.empty() ? std::string_view(m.props.content_type) : std::string_view(schema_of(e, m).content);
}
bool is_text(std::string_view content, plain::bytes body) {
    const auto kind = content.substr(0, content.find(';'));
    const bool says_so =
        kind.starts_with("text/") || kind == "application/json" || kind == "application/xml" || kind.ends_with("+json") || kind.ends_with("+xml");
    return says_so && mailroom::detail::is_utf8(plain::as_text(body));
}

/// What one reader has made of a message.
struct fate {
    enum kind { ready, delayed, dead, settled } what = ready;
    std::uint32_t attempts = 0;
    std::int64_t due = 0;
    std::string reason;
};
constexpr std::array fate_names{"ready", "delayed", "dead", "settled"};

fate fate_of(const format::cursor_image& reader, const stored_message& m) {
    const auto now = std::chrono::duration_cast<mailroom::duration>(std::chrono::system_clock::now().time_since_epoch()).count();
    fate f;
    if (reader.is_settled(m.head.offset)) {
        f.what = fate::settled;
        return f;
    }
    f.due = m.props.delay > mailroom::duration::zero() && m.head.time <= INT64_MAX - m.props.delay.count() ? m.head.time + m.props.delay.count() : 0;
    if (const auto at = reader.trials().find(m.head.offset); at != reader.trials().end()) {
        f.attempts = at->second.attempt;
        f.due = std::max(f.due, at->second.due);
        f.reason = at->second.reason;
        if (at->second.dead) { f.what = fate::dead; }
    }
    if (f.what == fate::ready && f.due > now) { f.what = fate::delayed; }
    return f;
}
std::string sentence_of(const fate& f) {
    std::string text = fate_names[f.what];
    if (f.what == fate::delayed) { text += " until " + plain::time(f.due); }
    if (f.attempts != 0) { text += ", " + plain::count(f.attempts, "attempt"); }
    if (!f.reason.empty()) { text += ": " + plain::line(f.reason); }
    return text;
}

// ------------------------------------------------------------------------------------------------------------------------------ showing

std::string value_of(const mailroom::header_value& v) {
    return std::visit(
        []<class Held>(const Held& held) -> std::string {
            if constexpr (std::is_same_v<Held, std::monostate>) {
                return "null";
            } else if constexpr (std::is_same_v<Held, bool>) {
                return held ? "true" : "false";
            } else if constexpr (std::is_same_v<Held, std::int64_t>) {
                return std::to_string(held);
            } else if constexpr (std::is_same_v<Held, double>) {
                return plain::number(held);
            } else if constexpr (std::is_same_v<Held, std::string>) {
                return '"' + plain::line(held) + '"';
            } else {
                return plain::count(held.size(), "byte") + ", base64 " + plain::base64(held);
            }
        },
        v.variant());
}

void show(const endpoint_view& e, const stream_view& s, const stored_message& m) {
    const bool is_queue = e.is_queue();
    std::printf("%s%s offset %ju  %s", plain::line(e.name).c_str(), e.streams.size() > 1 ? (" partition " + std::to_string(s.partition)).c_str() : "",
                std::uintmax_t(m.head.offset), plain::time(m.head.time).c_str());
    if (is_queue && !s.readers.empty()) { std::printf("  %s", sentence_of(fate_of(s.readers.front().second, m)).c_str()); }
    std::printf("\n");
    for (const auto& [name, reader] : s.readers) {
        const fate f = fate_of(reader, m);
        if (!is_queue && f.what != fate::settled) { std::printf("  for %s: %s\n", plain::line(name).c_str(), sentence_of(f).c_str()); }
    }
    const auto text = [](const char* what, const std::string& value) {
        if (!value.empty()) { std::printf("  %s: %s\n", what, plain::line(value).c_str()); }
    };
    const auto seconds = [](const char* what, mailroom::duration d) {
        if (d != mailroom::duration::zero()) { std::printf("  %s: %g s\n", what, std::chrono::duration<double>(d).count()); }
    };
    if (!m.props_readable) { std::printf("  its properties make no sense\n"); }
    text("key", m.props.key);
    text("id", m.props.id);
    text("subject", m.props.subject);
    text("correlation_id", m.props.correlation_id);
    text("reply_to", m.props.reply_to);
    seconds("delay", m.props.delay);
    seconds("time_to_live", m.props.time_to_live);
    if (m.props.priority != 0) { std::printf("  priority: %d\n", m.props.priority); }
    for (const auto& [name, value] : m.props.headers) { std::printf("  header %s: %s\n", plain::line(name).c_str(), value_of(value).c_str()); }

    const format::schema& schema = schema_of(e, m);
    constexpr std::size_t most_shown = 4096;
    const bool texts = is_text(content_of(e, m), m.body);
    std::printf("  body: %s, %s, %s version %u\n", plain::count(m.body.size(), "byte").c_str(), plain::line(content_of(e, m)).c_str(),
                plain::line(schema.type).c_str(), schema.version);
    const auto front = plain::bytes(m.body).first(std::min(m.body.size(), most_shown));
    if (!texts) {
        std::printf("%s", plain::hex_dump(front, "    ").c_str());
    } else {
        for (std::string_view left = plain::as_text(front); !left.empty();) {
            const std::size_t end = std::min(left.find('\n'), left.size());
            std::printf("    %s\n", plain::line(left.substr(0, end)).c_str());
            left.remove_prefix(std::min(end + 1, left.size()));
        }
    }
    if (front.size() < m.body.size()) {
        std::printf("    ... and %s more; export has them all\n", plain::count(m.body.size() - front.size(), "byte").c_str());
    }
}

/// `,"name":"value"`, or `,"name_base64":"..."` where it is no UTF-8.
std::string field(const char* name, std::string_view value) {
    const bool texts = mailroom::detail::is_utf8(value);
    return std::string(",\"")
        .append(name)
        .append(texts ? "\":" : "_base64\":")
        .append(texts ? plain::quoted(value) : '"' + plain::base64(value) + '"');
}
std::string json_of(const mailroom::headers& headers) {
    std::string all;
    for (const auto& [name, value] : headers) {
        const bool texts = mailroom::detail::is_utf8(name);
        const auto put = [&, key = texts ? name : plain::base64(name)](const char* suffix, const std::string& what) {
            all.append(all.empty() ? "" : ",").append(plain::quoted(key + (texts ? "" : "_name_base64") + suffix)).append(":").append(what);
        };
        if (const auto* const s = value.get_if<std::string>()) {
            const bool is_utf8 = mailroom::detail::is_utf8(*s);
            put(is_utf8 ? "" : "_base64", is_utf8 ? plain::quoted(*s) : '"' + plain::base64(*s) + '"');
        } else if (const auto* const b = value.get_if<mailroom::header_value::bytes>()) {
            put("_base64", '"' + plain::base64(*b) + '"');
        } else {
            put("", value_of(value));
        }
    }
    return '{' + all + '}';
}

std::string json_of(const endpoint_view& e, const stream_view& s, const stored_message& m) {
    const format::schema& schema = schema_of(e, m);
    std::string j = "{\"endpoint\":" + plain::quoted(e.name) + ",\"partition\":" + std::to_string(s.partition) +
                    ",\"offset\":" + std::to_string(m.head.offset) + ",\"time\":\"" + plain::time(m.head.time) + '"' + field("type", schema.type) +
                    ",\"version\":" + std::to_string(schema.version) + field("content_type", content_of(e, m));
    if (e.is_queue()) {
        const fate f = s.readers.empty() ? fate() : fate_of(s.readers.front().second, m);
        j += std::string(",\"state\":\"") + fate_names[f.what] + "\",\"attempts\":" + std::to_string(f.attempts);
        if (f.what == fate::delayed) { j += ",\"due\":\"" + plain::time(f.due) + '"'; }
        if (!f.reason.empty()) { j += field("reason", f.reason); }
    } else {
        std::string waits, dead;
        for (const auto& [name, reader] : s.readers) {
            const fate f = fate_of(reader, m);
            if (f.what == fate::settled) { continue; }
            std::string& of = f.what == fate::dead ? dead : waits;
            of += (of.empty() ? "" : ",") + plain::quoted(name);
        }
        j += ",\"waits_for\":[" + waits + ']' + (dead.empty() ? "" : ",\"dead_for\":[" + dead + ']');
    }
    const std::pair<const char*, const std::string&> texts[] = {{"key", m.props.key},
                                                                {"id", m.props.id},
                                                                {"subject", m.props.subject},
                                                                {"correlation_id", m.props.correlation_id},
                                                                {"reply_to", m.props.reply_to}};
    for (const auto& [name, value] : texts) {
        if (!value.empty()) { j += field(name, value); }
    }
    if (m.props.delay != mailroom::duration::zero()) { j += ",\"delay_ns\":" + std::to_string(m.props.delay.count()); }
    if (m.props.time_to_live != mailroom::duration::zero()) { j += ",\"time_to_live_ns\":" + std::to_string(m.props.time_to_live.count()); }
    if (m.props.priority != 0) { j += ",\"priority\":" + std::to_string(m.props.priority); }
    if (!m.props.headers.empty()) { j += ",\"headers\":" + json_of(m.props.headers); }
    if (!m.props_readable) { j += ",\"properties\":null"; }
    return j + (is_text(content_of(e, m), m.body) ? field("body", plain::as_text(m.body)) : ",\"body_base64\":\"" + plain::base64(m.body) + '"') +
           '}';
}

// ----------------------------------------------------------------------------------------------------------------------------- commands

/// What stands behind the directory.
struct request {
    std::string directory, name;
    std::optional<std::uint64_t> partition, offset, count;
    bool all = false;
};

int list(const request& r) {
    const auto log = open_journal(r.directory, on_damage::read_only);
    const auto all = endpoints_of(*log);
    std::size_t names = 4, types = 4;
    const auto type_of = [](const endpoint_view& e) {
        std::string text;
        for (const auto& s : e.schemas) {
            const std::string one = plain::line(s.type) + (s.version != 1 ? " version " + std::to_string(s.version) : "");
            if (text.find(one) == text.npos) { text += (text.empty() ? "" : ", ") + one; }
        }
        return text;
    };
    for (const auto& e : all) {
        names = std::max(names, plain::columns(plain::line(e.name)));
        types = std::max(types, plain::columns(type_of(e)));
    }
    if (!all.empty()) {
        std::printf("%s  kind   %s  partitions  messages      dead      sent\n", plain::padded("name", names).c_str(),
                    plain::padded("type", types).c_str());
    }
    constexpr std::array modes{"exclusive", "failover", "shared", "keyed", "partitioned"};
    for (const auto& e : all) {
        std::uint64_t messages = 0, dead = 0, sent = 0;
        for (const auto& s : e.streams) {
            sent += s.next;
            if (!e.is_queue()) { messages += s.next - std::min(s.first, s.next); }
            for (const auto& [name, reader] : s.readers) {
                const counted c = count(s, reader);
                dead += c.dead;
                if (e.is_queue()) { messages += c.unsettled - std::min(c.dead, c.unsettled); }
            }
        }
        std::printf("%s  %s  %s  %10zu  %8ju  %8ju  %8ju\n", plain::padded(plain::line(e.name), names).c_str(), e.is_queue() ? "queue" : "topic",
                    plain::padded(type_of(e), types).c_str(), e.streams.size(), std::uintmax_t(messages), std::uintmax_t(dead), std::uintmax_t(sent));
        for (const auto& [name, mode] : e.is_queue() ? std::vector<std::pair<std::string, std::uint32_t>>() : e.subscriptions) {
            counted sum;
            for (const auto& s : e.streams) {
                for (const auto& [who, reader] : s.readers) {
                    if (who != name) { continue; }
                    const counted c = count(s, reader);
                    sum.unsettled += c.unsettled;
                    sum.dead += c.dead;
                }
            }
            std::printf("  subscription \"%s\" (%s): lag %ju, dead %ju\n", plain::line(name).c_str(), mode < modes.size() ? modes[mode] : "?",
                        std::uintmax_t(sum.unsettled - std::min(sum.dead, sum.unsettled)), std::uintmax_t(sum.dead));
        }
    }
    const auto& found = log->recovered();
    const auto queues = static_cast<std::uint64_t>(std::count_if(all.begin(), all.end(), [](const auto& e) { return e.is_queue(); }));
    std::printf("%s%s, %s, %s, %s\n", all.empty() ? "" : "\n", plain::count(queues, "queue").c_str(),
                plain::count(all.size() - queues, "topic").c_str(), plain::count(found.segments, "segment").c_str(),
                plain::size(found.bytes).c_str());
    if (!found.clean) {
        std::printf("it was not closed: %s since the last checkpoint", plain::count(found.replayed, "record").c_str());
        std::printf(found.cut_bytes != 0 ? ", and %s of a write that was not finished\n" : "\n", plain::count(found.cut_bytes, "byte").c_str());
    }
    for (const std::string& xid : log->in_doubt()) { std::printf("in doubt: \"%s\"\n", plain::line(xid).c_str()); } // prepared, and not decided
    return finish(*log);
}

/// Calls `fn` for what a request asks for.
int walk(const request& r, std::uint64_t most, const std::function<void(const endpoint_view&, const stream_view&, const stored_message&)>& fn) {
    const auto log = open_journal(r.directory, on_damage::read_only);
    const endpoint_view e = find_endpoint(*log, r.name);
    if (r.partition && *r.partition >= e.streams.size()) {
        throw std::runtime_error("'" + r.name + "' has " + plain::count(e.streams.size(), "partition") + ", counted from 0");
    }
    reading read(*log, e, r.all);
    std::uint64_t shown = 0;
    for (const stream_view& s : e.streams) {
        if ((r.partition && *r.partition != s.partition) || shown == most) { continue; }
        read.each(s, r.offset.value_or(0), [&](const stream_view& from, const stored_message& m) {
            fn(e, from, m);
            return ++shown != most;
        });
    }
    return finish(*log, read.intact());
}

int tail(const request& r) {
    const auto log = open_journal(r.directory, on_damage::read_only);
    const endpoint_view e = find_endpoint(*log, r.name);
    const std::uint64_t n = r.count.value_or(10);
    reading read(*log, e, r.all);
    std::vector<std::pair<const stream_view*, stored_message>> last; // of all partitions
    for (const stream_view& s : e.streams) {
        std::deque<stored_message> here;
        if (n == 0) { break; }
        read.each(s, read.tail(s, n), [&](const stream_view&, const stored_message& m) {
            here.push_back(m);
            if (here.size() > n) { here.pop_front(); }
            return true;
        });
        for (auto& m : here) { last.emplace_back(&s, std::move(m)); }
    }
    std::stable_sort(last.begin(), last.end(), [](const auto& a, const auto& b) { return a.second.head.time < b.second.head.time; });
    for (std::size_t i = last.size() - std::min<std::size_t>(last.size(), n); i < last.size(); ++i) { show(e, *last[i].first, last[i].second); }
    return finish(*log, read.intact());
}

/// Reads everything; what opening has found and what reading finds, each once.
bool report_of(engine& log, const char* what) {
    std::vector<std::string> damages;
    const auto add = [&](const mailroom::damage& d) {
        if (std::string s = sentence_of(d); std::find(damages.begin(), damages.end(), s) == damages.end()) { damages.push_back(std::move(s)); }
    };
    mailroom::verify_report r;
    {
        progress_bar bar(what);
        r = log.verify(bar.teller());
    }
    for (const auto& d : log.recovered().damages) { add(d); }
    for (const auto& d : r.damages) { add(d); }
    std::printf("%s, %s, %s, %s read; %s not settled\n", plain::count(r.segments, "segment").c_str(), plain::count(r.batches, "batch").c_str(),
                plain::count(r.records, "record").c_str(), plain::size(r.bytes).c_str(), plain::count(r.messages, "message").c_str());
    if (log.recovered().cut_bytes != 0) {
        std::printf("behind the end: %s of a write that a crash left unfinished; nobody was told that it was stored\n",
                    plain::count(log.recovered().cut_bytes, "byte").c_str());
    }
    for (const std::string& d : damages) { std::printf("damaged: %s\n", plain::line(d).c_str()); }
    return damages.empty() && r.intact;
}

int verify(const request& r) {
    const auto log = open_journal(r.directory, on_damage::read_only);
    const bool intact = report_of(*log, "verifying");
    std::printf("%s\n", intact ? "intact" : "DAMAGED");
    return intact ? done : damaged;
}

int salvage(const request& r) {
    auto log = open_journal(r.directory, on_damage::salvage);
    const bool could_be_opened = log->recovered().damages.empty();
    const bool intact = report_of(*log, "reading what is left");
    log->flush();
    log.reset();
    if (intact) {
        std::printf("intact: there was nothing to salvage\n");
        return done;
    }
    std::printf("%s: what stood at the places above is lost, the rest is there\n", could_be_opened ? "DAMAGED" : "salvaged");
    try {
        open_journal(r.directory, on_damage::refuse);
        std::printf("programs can open the journal\n");
    } catch (const mailroom::error& e) {
        if (e.code() != mailroom::errc::corrupt) { throw; }
        std::printf("programs can open it with on_damage::salvage only: damage remains\n");
    }
    return damaged;
}

int compact(const request& r) {
    const auto log = open_journal(r.directory, on_damage::refuse);
    mailroom::compact_report report;
    {
        progress_bar bar("compacting");
        report = log->compact(bar.teller());
    }
    std::printf("%s before, %s after; %s freed, %s moved\n", plain::size(report.bytes_before).c_str(), plain::size(report.bytes_after).c_str(),
                plain::count(report.segments_freed, "segment").c_str(), plain::count(report.messages_moved, "message").c_str());
    return finish(*log);
}

std::uint64_t number(std::string_view option, const char* text) {
    std::uint64_t value = 0;
    const auto* const end = text != nullptr ? text + std::strlen(text) : nullptr;
    if (text == nullptr) { throw bad_usage(std::string(option) + " wants a number"); }
    const auto [stop, wrong] = std::from_chars(text, end, value);
    if (wrong != std::errc() || stop != end) { throw bad_usage(std::string(option) + " wants a number, not '" + text + "'"); }
    return value;
}

int run(int argc, char** argv) {
    const std::string command = argc > 1 ? argv[1] : "";
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--help") == 0 || std::strcmp(argv[i], "-h") == 0 || (i == 1 && command == "help")) {
            std::printf("%s", usage);
            return done;
        }
    }
    const bool of_one = command == "show" || command == "tail" || command == "export";
    const std::map<std::string, int (*)(const request&)> whole{{"ls", list}, {"verify", verify}, {"salvage", salvage}, {"compact", compact}};
    if (command.empty()) { throw bad_usage("a command is missing"); }
    if (!of_one && !whole.contains(command)) { throw bad_usage("there is no command '" + command + "'"); }
    if (argc < 3) { throw bad_usage("the directory of a journal is missing"); }
    if (of_one && argc < 4) { throw bad_usage("the name of a queue or topic is missing"); }

    request r{.directory = argv[2], .name = of_one ? argv[3] : "", .partition = {}, .offset = {}, .count = {}};
    for (int i = of_one ? 4 : 3; i < argc; ++i) {
        const std::string_view option = argv[i];
        if (of_one && option == "--all") {
            r.all = true;
        } else if (of_one && command != "tail" && option == "--partition") {
            r.partition = number(option, argv[++i]);
        } else if (of_one && command != "tail" && option == "--offset") {
            r.offset = number(option, argv[++i]);
        } else if (of_one && option == (command == "tail" ? "-n" : "--count")) {
            r.count = number(option, argv[++i]);
        } else {
            throw bad_usage("'" + command + "' has no use for '" + argv[i] + "'");
        }
    }
    if (command == "tail") { return tail(r); }
    if (command == "show") { return walk(r, r.count.value_or(10), show); }
    if (command == "export") {
        return walk(r, r.count.value_or(~std::uint64_t{0}),
                    [](const auto& e, const auto& s, const auto& m) { std::printf("%s\n", json_of(e, s, m).c_str()); });
    }
    return whole.at(command)(r);
}

int main(int argc, char** argv) {
    int code = failed;
    try {
        code = run(argc, argv);
    } catch (const bad_usage& e) {
        complain(std::string(e.what()) + " (mailroom_journal --help says what there is)");
        code = wrong_usage;
    } catch (const mailroom::error& e) {
        complain(e.what());
        code = e.code() == mailroom::errc::in_use ? in_use : e.code() == mailroom::errc::corrupt ? damaged : failed;
    } catch (const std::exception& e) { complain(e.what()); }
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        complain(std::string("cannot write: ") + std::strerror(errno));
        return failed;
    }
    return code;
}
