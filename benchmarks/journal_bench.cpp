// What does it cost to keep messages on disk, next to what the disk allows and to what else a program could use?
//
// Committing one by one (each send waits for the disk) by 1, 8 and 64 producers; by one that does not wait; without waiting for the disk at
// all; receiving and acknowledging; replay; opening; memory; and how much is written for each byte that is sent.
//
//   --gigabytes N   stored where opening is measured (0.5)
//   --messages N    retained where memory is measured (2000000)
//   --patience N    seconds, all together, to wait for others on this machine, and take figures again that they disturbed (0)
//
// Files lie below MAILROOM_BENCH_DIRECTORY, or the current directory. The canary is one block written to a file that was written before, and synced.
#include "support/disk.hpp"
#include "support/journal_rivals.hpp"
#include "support/our_journal.hpp"
#include "support/process.hpp"
#include "support/results.hpp"
#include "support/timed.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace {

using namespace bench;

constexpr std::size_t kib = 1024, mib = 1024 * kib;

std::string size_name(std::size_t length) { return length < kib ? std::to_string(length) + "B" : std::to_string(length / kib) + "KiB"; }
std::string size_text(std::size_t length) { return length < kib ? std::to_string(length) + " bytes" : std::to_string(length / kib) + " KiB"; }

/// How long, and how much: all that is measured with messages of one size.
struct scale {
    bool quick = false;
    double limit_seconds() const { return quick ? 0.03 : 0.4; }
    std::size_t most_bytes() const { return quick ? 4 * mib : 192 * mib; }
    timed of(int threads, std::size_t length, std::size_t clock_every = 1) const {
        return {threads, length, limit_seconds(), std::max<std::size_t>(most_bytes() / length, static_cast<std::size_t>(threads)), clock_every};
    }
    mailroom::journal_options journal(mailroom::durability d = mailroom::durability::commit) const {
        mailroom::journal_options o;
        o.durability = d;
        if (quick) { o.segment_bytes = 4 * mib; }
        return o;
    }
    /// After so much a journal writes over files it has done with.
    std::size_t until_used() const { return 5 * journal().segment_bytes; }
};

/// Something that is made when it is first needed, and kept for all rounds.
template <class Thing>
class kept {
public:
    template <class... Args>
    explicit kept(Args... args) : make_([args...] { return std::make_unique<Thing>(args...); }), thing_(std::make_shared<std::unique_ptr<Thing>>()) {}
    Thing& operator*() const {
        if (*thing_ == nullptr) { *thing_ = make_(); }
        return **thing_;
    }

private:
    std::function<std::unique_ptr<Thing>()> make_;
    std::shared_ptr<std::unique_ptr<Thing>> thing_;
};

std::vector<std::string> bodies(std::size_t threads, std::size_t length) { return std::vector<std::string>(threads, numbered_body(length)); }

// ---- the senders: each answers how many thousand messages a second -----------------------------------------------------------------

/// Each send waits for the disk.
template <class Store>
std::vector<double> commits(Store& to, const timed& t, const std::string& name) {
    auto body = bodies(static_cast<std::size_t>(t.threads), t.length);
    const outcome sent = run_for(
        t, 1,
        [&](std::size_t who, std::uint64_t n, std::size_t) {
            number(body[who], who, n);
            to.send(body[who]);
        },
        [](std::size_t) {});
    compare(sent, to.drain(), name);
    return {sent.per_second() / 1e3};
}
template <class Store>
contestant committing(std::string name, const timed& t, kept<Store> store) {
    return {name, [=] { return commits(*store, t, name); }};
}
contestant committing_anew(std::string name, const timed& t, const mailroom::journal_options& o) {
    return {name, [=] {
                journal_store store(o);
                return commits(store, t, name);
            }};
}

/// Several at once by one thread: `write(first, n)`.
template <class Write>
outcome in_batches(const timed& t, std::size_t at_once, Write write) {
    std::vector<std::string> body = bodies(at_once, t.length);
    return run_for(
        t, at_once,
        [&](std::size_t who, std::uint64_t n, std::size_t some) {
            for (std::size_t i = 0; i < some; ++i) { number(body[i], who, n + i); }
            write(body.data(), some);
        },
        [](std::size_t) {});
}
contestant limit(std::string name, const timed& t, std::size_t at_once) {
    timed alone = t;
    alone.threads = 1;
    const kept<disk_itself> disk(t.length, at_once);
    return {std::move(name), [=] {
                disk_itself& d = *disk;
                return std::vector<double>{
                    in_batches(alone, at_once, [&](const std::string* first, std::size_t n) { d.write(first, n); }).per_second() / 1e3};
            }};
}
template <class Store>
contestant syncing_batches(std::string name, const timed& t, std::size_t at_once, kept<Store> store) {
    return {name, [=] {
                Store& s = *store;
                const outcome sent = in_batches(t, at_once, [&](const std::string* first, std::size_t n) { s.send_batch(first, n); });
                compare(sent, s.drain(), name);
                return std::vector<double>{sent.per_second() / 1e3};
            }};
}

void commit_tables(results& all, const scale& how) {
    for (const std::size_t length : {std::size_t{100}, kib, 16 * kib}) {
        for (const int p : {1, 8, 64}) {
            const timed t = how.of(p, length);
            const auto at_once = static_cast<std::size_t>(p);
            const std::string base = "disk: " + std::to_string(p) + (p == 1 ? " record" : " records") + " a sync";
            std::vector<contestant> who {
                committing("send", t, kept<journal_store>(how.journal(), how.until_used())), committing_anew("send, a new journal", t, how.journal()),
                    limit(base, t, at_once),
#if MAILROOM_BENCH_ROCKSDB
                    committing("RocksDB, sync", t, kept<rocks_store>(length)),
#endif
            };
            if (p == 1) {
#if MAILROOM_BENCH_SQLITE
                who.push_back(committing("SQLite, WAL, synchronous=FULL", t, kept<sqlite_store>(length)));
#endif
#if MAILROOM_BENCH_LMDB
                who.push_back(committing("LMDB", t, kept<lmdb_store>(length)));
#endif
            }
            all.contest({{"commit_" + size_name(length) + "_" + std::to_string(p) + "P",
                          size_text(length) + ", each send waits for the disk, " + std::to_string(p) + (p == 1 ? " producer" : " producers"),
                          "k msg/s", base}},
                        who);
        }
    }
}

// ---- several things at once -------------------------------------------------------------------------------------------------------------

/// So many messages taken and as many sent, in one transaction; the figure is thousands of transactions a second.
contestant moving(std::string name, const timed& t, std::size_t at_once, kept<pipeline> pipe) {
    timed more = t;
    more.most = t.most / at_once;
    return {name, [=] {
                pipeline& p = *pipe;
                auto body = bodies(static_cast<std::size_t>(t.threads), t.length);
                p.fill((more.most + static_cast<std::size_t>(t.threads)) * at_once, body.front());
                const outcome done = run_for(
                    more, 1,
                    [&](std::size_t who, std::uint64_t n, std::size_t) {
                        number(body[who], who, n);
                        p.move(at_once, body[who]);
                    },
                    [](std::size_t) {});
                if (p.drain().messages != done.messages * at_once) { give_up(name + ": messages were lost or doubled"); }
                return std::vector<double>{done.per_second() / 1e3};
            }};
}

void transaction_tables(results& all, const scale& how) {
    for (const std::size_t length : {std::size_t{100}, kib}) {
        for (const int p : {1, 8}) {
            timed t = how.of(p, length);
            t.most = std::min<std::size_t>(t.most, how.quick ? 2'000 : 40'000);
            all.contest({{"transaction_" + size_name(length) + "_" + std::to_string(p) + "P",
                          size_text(length) + ", a transaction takes and sends messages, " + std::to_string(p) + (p == 1 ? " thread" : " threads"),
                          "k/s", "a send"}},
                        {committing("a send", t, kept<journal_store>(how.journal(), how.until_used())),
                         moving("a transaction of 1 + 1", t, 1, kept<pipeline>(how.journal())),
                         moving("a transaction of 10 + 10", t, 10, kept<pipeline>(how.journal()))});
        }
    }
}

// ---- one that does not wait for each ------------------------------------------------------------------------------------------------

void window_tables(results& all, const scale& how) {
    constexpr std::size_t outstanding = 1024, at_once = 64;
    const std::string base = "disk: 64 records a sync";
    for (const std::size_t length : {std::size_t{100}, kib, 16 * kib}) {
        const timed t = how.of(1, length, 16);
        const auto windowed = [&](std::string name, kept<journal_store> store, bool with_committer) {
            return contestant{name, [=] {
                                  journal_store& s = *store;
                                  std::optional<mailroom::committer> driven;
                                  if (with_committer) { driven.emplace(s.disk()); }
                                  in_flight window(s.queue(), outstanding);
                                  std::string body = numbered_body(length);
                                  const outcome sent = run_for(
                                      t, 1,
                                      [&](std::size_t, std::uint64_t n, std::size_t) {
                                          number(body, 0, n);
                                          window.send(body);
                                      },
                                      [&](std::size_t) { window.wait(); });
                                  compare(sent, s.drain(), name);
                                  return std::vector<double>{sent.per_second() / 1e3};
                              }};
        };
        const kept<journal_store> used(how.journal(), how.until_used());
        std::vector<contestant> who {
            windowed("send_async, 1024 outstanding", used, false), windowed("send_async, 1024 outstanding, committer", used, true),
                syncing_batches("send_many, 64", t, at_once, used), limit(base, t, at_once),
#if MAILROOM_BENCH_ROCKSDB
                syncing_batches("RocksDB, batches of 64, sync", t, at_once, kept<rocks_store>(length)),
#endif
#if MAILROOM_BENCH_SQLITE
                syncing_batches("SQLite, 64 a transaction", t, at_once, kept<sqlite_store>(length)),
#endif
#if MAILROOM_BENCH_LMDB
                syncing_batches("LMDB, 64 a transaction", t, at_once, kept<lmdb_store>(length)),
#endif
        };
        all.contest({{"async_" + size_name(length), size_text(length) + ", one producer that does not wait for each", "k msg/s", base}}, who);
    }
}

// ---- without waiting for the disk ---------------------------------------------------------------------------------------------------

/// A buffer of 64 KiB of records with a length and a checksum each.
class raw_append {
public:
    raw_append(const std::string& path, std::size_t zeros) : file_(path, zeros), wrap_(zeros) { buffer_.reserve(size_ + 64 * kib); }
    void add(const std::string& body) {
        const std::uint64_t head[2] = {XXH3_64bits(body.data(), body.size()), body.size()};
        const auto* const from = reinterpret_cast<const char*>(head);
        buffer_.insert(buffer_.end(), from, from + sizeof head);
        buffer_.insert(buffer_.end(), body.data(), body.data() + body.size());
        if (buffer_.size() >= size_) { write(); }
    }
    void write() {
        if (wrap_ != 0 && at_ + buffer_.size() > wrap_) { at_ = 0; }
        file_.write(buffer_.data(), buffer_.size(), at_);
        at_ += buffer_.size();
        buffer_.clear();
    }

private:
    static constexpr std::size_t size_ = 64 * kib;
    raw_file file_;
    const std::size_t wrap_;
    std::size_t at_ = 0;
    std::vector<char> buffer_;
};

void unsynced_tables(results& all, const scale& how) {
    const std::string base = "64 KiB buffer, checksum, appending";
    for (const std::size_t length : {std::size_t{100}, kib, 16 * kib}) {
        const timed t = how.of(1, length, 64);
        const auto raw = [&](std::string name, std::size_t zeros) {
            return contestant{std::move(name), [=] {
                                  scratch where;
                                  raw_append to(where / "raw", zeros);
                                  std::string body = numbered_body(length);
                                  const outcome sent = run_for(
                                      t, 1,
                                      [&](std::size_t, std::uint64_t n, std::size_t) {
                                          number(body, 0, n);
                                          to.add(body);
                                      },
                                      [&](std::size_t) { to.write(); });
                                  return std::vector<double>{sent.per_second() / 1e6};
                              }};
        };
        const auto ours = [&](std::string name, std::function<std::unique_ptr<journal_store>()> make, std::size_t at_once) {
            const auto store = std::make_shared<std::unique_ptr<journal_store>>();
            return contestant{name, [=] {
                                  if (*store == nullptr) { *store = make(); }
                                  journal_store& s = **store;
                                  std::vector<std::string> body = bodies(at_once, length);
                                  const outcome sent = run_for(
                                      t, at_once,
                                      [&](std::size_t, std::uint64_t n, std::size_t some) {
                                          for (std::size_t i = 0; i < some; ++i) { number(body[i], 0, n + i); }
                                          if (at_once == 1) {
                                              s.send(body[0]);
                                          } else {
                                              s.send_batch(body.data(), some);
                                          }
                                      },
                                      [](std::size_t) {});
                                  compare(sent, s.drain(), name);
                                  if (name.ends_with("new journal")) { store->reset(); }
                                  return std::vector<double>{sent.per_second() / 1e6};
                              }};
        };
        const auto used = [how] { return std::make_unique<journal_store>(how.journal(mailroom::durability::none), how.until_used()); };
        const auto anew = [how] { return std::make_unique<journal_store>(how.journal(mailroom::durability::none)); };
        std::vector<contestant> who{
            ours("send", used, 1),
            ours("send, a new journal", anew, 1),
            ours("send_many, 64", used, 64),
            raw(base, 0),
            raw("64 KiB buffer, checksum, over what was there", 64 * mib),
        };
#if MAILROOM_BENCH_ROCKSDB
        const kept<rocks_store> rocks(length);
        who.push_back({"RocksDB, batches of 64, no sync", [=] {
                           rocks_store& s = *rocks;
                           const outcome sent = in_batches(t, 64, [&](const std::string* first, std::size_t n) { s.keep_batch(first, n); });
                           compare(sent, s.drain(), "RocksDB");
                           return std::vector<double>{sent.per_second() / 1e6};
                       }});
#endif
        all.contest({{"unsynced_" + size_name(length), size_text(length) + ", durability::none, one producer", "M msg/s", base}}, who);
    }
}

// ---- receiving ----------------------------------------------------------------------------------------------------------------------

void receive_tables(results& all, const scale& how) {
    using queue = mailroom::queue<std::string, mailroom::journal>;
    for (const std::size_t length : {std::size_t{100}, kib}) {
        for (const int p : {1, 8, 64}) {
            const timed t = how.of(p, length);
            const auto threads = static_cast<std::size_t>(p);
            const auto fill = [](journal_store& s, std::size_t senders, std::uint64_t each, std::size_t len) {
                std::vector<std::string> some = bodies(64, len);
                outcome sent;
                for (std::size_t who = 0; who < senders; ++who) {
                    for (std::uint64_t n = 0; n < each; n += some.size()) {
                        const std::size_t k = std::min<std::uint64_t>(some.size(), each - n);
                        for (std::size_t i = 0; i < k; ++i) { number(some[i], who, n + i); }
                        s.send_batch(some.data(), k);
                    }
                    sent.check += expected_check(who, each);
                }
                sent.messages = senders * each;
                return sent;
            };
            // Receives what is there, by `p` threads; `one(queue, tally&)` receives and settles one, or says that there is none.
            const auto receiving = [=](std::string name, std::size_t stored, auto one) {
                const kept<journal_store> store(how.journal(), how.until_used());
                return contestant{name, [=] {
                                      journal_store& s = *store;
                                      const outcome sent = fill(s, threads, std::max<std::size_t>(1, stored / threads), length);
                                      settle_disk();
                                      std::vector<tally> got(threads);
                                      std::vector<std::thread> running;
                                      const auto start = clock::now();
                                      for (std::size_t who = 0; who < threads; ++who) {
                                          running.emplace_back([&, who] {
                                              auto each = one;
                                              tally mine;
                                              while (each(s.queue(), mine)) {}
                                              got[who] = mine;
                                          });
                                      }
                                      for (std::thread& r : running) { r.join(); }
                                      s.disk().flush();
                                      const double took = seconds(clock::now() - start);
                                      tally came;
                                      for (const tally& g : got) {
                                          came.messages += g.messages;
                                          came.check += g.check;
                                      }
                                      compare(sent, came, name);
                                      return std::vector<double>{static_cast<double>(came.messages) / took / 1e3};
                                  }};
            };
            const auto at_leisure = [](queue& q, tally& came) {
                auto d = q.try_receive();
                if (!d) { return false; }
                came.add(**d);
                d->ack();
                return true;
            };
            const auto each_durable = [](queue& q, tally& came) {
                auto d = q.try_receive();
                if (!d) { return false; }
                came.add(**d);
                d->ack_async().wait();
                return true;
            };
            const auto some_under_way = [ring = std::vector<std::optional<mailroom::receipt>>(), next = std::size_t{0}](queue& q,
                                                                                                                        tally& came) mutable {
                ring.resize(1024);
                auto d = q.try_receive();
                if (!d) {
                    for (auto& r : ring) {
                        if (r) { r->wait(); }
                    }
                    return false;
                }
                came.add(**d);
                auto& slot = ring[next++ % ring.size()];
                if (slot) { slot->wait(); }
                slot.emplace(d->ack_async());
                return true;
            };
            const std::size_t many = std::min<std::size_t>(how.quick ? 10'000 : 400'000, how.most_bytes() / length);
            const std::size_t few = how.quick ? 200 : p == 1 ? 2'000 : p == 8 ? 10'000 : 20'000;
            const std::string base = "send, each waits";
            // Senders at work, and one who receives: each of his acks goes with the next batch.
            const kept<journal_store> both(how.journal(), how.until_used());
            all.contest({{"receive_" + size_name(length) + "_" + std::to_string(p) + "P",
                          size_text(length) + ", " + std::to_string(p) + (p == 1 ? " thread" : " threads"), "k msg/s", base}},
                        {committing(base, t, kept<journal_store>(how.journal(), how.until_used())),
                         receiving("receive, ack, at the end a flush", many, at_leisure),
                         receiving("receive, ack_async, 1024 outstanding", many, some_under_way),
                         receiving("receive, ack_async, each waits", few, each_durable),
                         {"send, each waits, while one receives and acks", [=] {
                              journal_store& s = *both;
                              std::atomic<bool> over{false};
                              tally came;
                              std::thread receiver([&] {
                                  for (;;) {
                                      const bool last = over.load();
                                      if (auto d = s.queue().receive_for(std::chrono::milliseconds(last ? 0 : 1))) {
                                          came.add(**d);
                                          d->ack();
                                      } else if (last) {
                                          return;
                                      }
                                  }
                              });
                              auto body = bodies(threads, length);
                              const outcome sent = run_for(
                                  t, 1,
                                  [&](std::size_t who, std::uint64_t n, std::size_t) {
                                      number(body[who], who, n);
                                      s.send(body[who]);
                                  },
                                  [](std::size_t) {});
                              over.store(true);
                              receiver.join();
                              compare(sent, came, base);
                              return std::vector<double>{sent.per_second() / 1e3};
                          }}});
        }
    }
}

// ---- replay -------------------------------------------------------------------------------------------------------------------------

std::vector<std::filesystem::path> files_in(const std::filesystem::path& directory, const char* extension) {
    std::vector<std::filesystem::path> out;
    for (const auto& e : std::filesystem::directory_iterator(directory)) {
        if (e.path().extension() == extension) { out.push_back(e.path()); }
    }
    std::sort(out.begin(), out.end());
    return out;
}

/// A topic with much in it, none of which anybody has settled.
struct stored_topic {
    stored_topic(const scale& how, std::size_t length, std::uint64_t n) {
        mailroom::journal disk(where.path(), how.journal(mailroom::durability::none));
        mailroom::topic<std::string, mailroom::journal> all(disk, "all");
        all.subscribe("keeps it", {.from = mailroom::start::earliest});
        std::vector<std::string> some = bodies(64, length);
        for (std::uint64_t done = 0; done < n; done += some.size()) {
            for (std::size_t i = 0; i < some.size(); ++i) { number(some[i], 0, done + i); }
            all.publish_many(some);
        }
        sent = {n, expected_check(0, n), 0};
    }
    scratch where;
    outcome sent;
};

void replay_tables(results& all, const scale& how) {
    for (const std::size_t length : {std::size_t{100}, kib, 16 * kib}) {
        const std::uint64_t n = how.most_bytes() / length / 64 * 64;
        const double payload = static_cast<double>(n * length) / 1e9;
        const std::string base = "disk: read, checksum";
        const kept<stored_topic> topic(how, length, n);
        const auto replaying = [&](std::string name, auto read) {
            return contestant{name, [=] {
                                  stored_topic& t = *topic;
                                  mailroom::journal disk(t.where.path(), how.journal());
                                  mailroom::topic<std::string, mailroom::journal> from(disk, "all");
                                  auto subscription = from.subscribe({.from = mailroom::start::earliest});
                                  settle_disk();
                                  tally came;
                                  const auto start = clock::now();
                                  while (came.messages < n) {
                                      if (!read(subscription, came)) { break; }
                                  }
                                  const double took = seconds(clock::now() - start);
                                  compare(t.sent, came, name);
                                  return std::vector<double>{payload / took, static_cast<double>(n) / took / 1e6};
                              }};
        };
        using subscription = mailroom::subscription<std::string>;
        all.contest(
            {{"replay_" + size_name(length), size_text(length) + ", a topic from its beginning, from the page cache", "GB/s of bodies", base},
             {"replay_messages_" + size_name(length), size_text(length) + ", a topic from its beginning, from the page cache", "M msg/s", base}},
            {replaying("topic, pop_each 64",
                       [](subscription& s, tally& came) { return s.pop_each([&](const std::string& b) { came.add(b); }, 64) != 0; }),
             replaying("topic, pop",
                       [](subscription& s, tally& came) {
                           auto m = s.try_pop();
                           if (m) { came.add(**m); }
                           return m.has_value();
                       }),
             replaying("topic, receive, ack",
                       [](subscription& s, tally& came) {
                           auto d = s.try_receive();
                           if (!d) { return false; }
                           came.add(**d);
                           return d->ack();
                       }),
             {"queue, opened again, pop_each 64",
              [=] {
                  scratch where;
                  outcome sent{n, expected_check(0, n), 0};
                  {
                      mailroom::journal disk(where.path(), how.journal(mailroom::durability::none));
                      mailroom::queue<std::string, mailroom::journal> q(disk, "all");
                      std::vector<std::string> some = bodies(64, length);
                      for (std::uint64_t done = 0; done < n; done += some.size()) {
                          for (std::size_t i = 0; i < some.size(); ++i) { number(some[i], 0, done + i); }
                          q.send_many(some);
                      }
                  }
                  mailroom::journal disk(where.path(), how.journal());
                  mailroom::queue<std::string, mailroom::journal> q(disk, "all");
                  settle_disk();
                  tally came;
                  const auto start = clock::now();
                  while (q.pop_each([&](const std::string& b) { came.add(b); }, 64) != 0) {}
                  const double took = seconds(clock::now() - start);
                  compare(sent, came, "replay of a queue");
                  return std::vector<double>{payload / took, static_cast<double>(n) / took / 1e6};
              }},
             {base, [=] {
                  // The same files, a mebibyte at a time, with one checksum for as many bytes as a record takes.
                  stored_topic& t = *topic;
                  const std::size_t record = 56 + (length + 7) / 8 * 8;
                  std::vector<char> piece(mib);
                  std::uint64_t sum = 0;
                  const auto start = clock::now();
                  for (const auto& path : files_in(t.where.path(), ".log")) {
                      raw_file f(path.string());
                      while (const std::size_t got = f.read(piece.data(), piece.size())) {
                          for (std::size_t at = 0; at < got; at += record) { sum += XXH3_64bits(piece.data() + at, std::min(record, got - at)); }
                      }
                  }
                  const double took = seconds(clock::now() - start);
                  if (sum == 0) { give_up("nothing was read"); }
                  return std::vector<double>{payload / took, static_cast<double>(n) / took / 1e6};
              }}});
    }
}

// ---- opening ------------------------------------------------------------------------------------------------------------------------

/// A journal that a process left behind that was killed: it has `bytes` stored, and after its last checkpoint `tail` messages were sent.
class left_behind {
public:
    left_behind(const scale& how, double bytes, std::size_t tail) : how_(how), tail_(tail) {
        mailroom::journal disk(where_.path(), how_.journal(mailroom::durability::none));
        mailroom::queue<std::string, mailroom::journal> q(disk, "all");
        const std::vector<std::string> some(64, numbered_body(kib));
        for (double done = 0; done < bytes; done += 64.0 * kib) {
            q.send_many(some);
            stored_ += some.size();
        }
    }
    /// Milliseconds until the first message is in somebody's hands; and until the journal is open.
    std::vector<double> open(bool from_disk) {
        if (tail_ != 0) { crash(); }
        settle_disk();
        if (from_disk) {
            for (const auto& e : std::filesystem::directory_iterator(where_.path())) {
                if (e.is_regular_file()) { raw_file(e.path().string()).forget(); }
            }
        }
        const auto start = clock::now();
        mailroom::journal disk(where_.path(), how_.journal());
        const double opened = seconds(clock::now() - start) * 1e3;
        mailroom::queue<std::string, mailroom::journal> q(disk, "all");
        std::optional<mailroom::delivery<std::string>> first = q.try_receive();
        const double there = seconds(clock::now() - start) * 1e3;
        if (first.has_value() != (stored_ != 0)) { give_up("opening: the first message is not there"); }
        if (first) { first->release(); }
        if (q.statistics().ready != stored_) { give_up("opening: messages were lost or doubled"); }
        return {opened, there};
    }

private:
    void crash() {
        const pid_t child = ::fork();
        if (child == 0) {
            mailroom::journal disk(where_.path(), how_.journal(mailroom::durability::write));
            mailroom::queue<std::string, mailroom::journal> q(disk, "all");
            const std::vector<std::string> some(50, numbered_body(kib));
            for (std::size_t n = 0; n < tail_; n += some.size()) { q.send_many(some); }
            ::_exit(0);
        }
        int status = 1;
        if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0) { give_up("opening: the process that was to be killed failed"); }
        stored_ += (tail_ + 49) / 50 * 50;
    }

    scale how_;
    std::size_t tail_;
    scratch where_;
    std::uint64_t stored_ = 0;
};

void open_tables(results& all, const scale& how, double gigabytes) {
    const double much = (how.quick ? 0.01 : gigabytes) * 1e9, little = much / 100;
    const std::size_t tail = 1000, long_tail = how.quick ? 5000 : 40'000;
    const auto text = [](double bytes) { return bytes >= 1e9 ? short_number(bytes / 1e9) + " GB" : short_number(bytes / 1e6) + " MB"; };
    const auto opening = [&](std::string name, double bytes, std::size_t messages, bool from_disk) {
        const kept<left_behind> one(how, bytes, messages);
        return contestant{std::move(name), [=] { return (*one).open(from_disk); }};
    };
    all.contest({{"open_journal", "opening a journal: until it is open", "ms", "", false},
                 {"open_first", "opening a journal: until the first message is received", "ms", "", false}},
                {opening(text(little) + ", closed", little, 0, false), opening(text(much) + ", closed", much, 0, false),
                 opening(text(little) + ", killed, 1000 messages since the checkpoint", little, tail, false),
                 opening(text(much) + ", killed, 1000 messages since the checkpoint", much, tail, false),
                 opening(text(much) + ", the same, not in the page cache", much, tail, true),
                 opening(text(much) + ", killed, " + std::to_string(long_tail) + " messages since", much, long_tail, false)});
}

// ---- memory -------------------------------------------------------------------------------------------------------------------------

void memory_tables(results& all, const scale& how, std::size_t n) {
    const std::string name = "memory_sent";
    if (!all.wants("memory_")) { return; }
    table sent{name, std::to_string(n) + " messages of 16 bytes in a journal", "bytes of memory each", "", false};
    const auto figure = [&](const char* row, double bytes) { sent.rows.push_back({row, {bytes / static_cast<double>(n)}}); };
    scratch where;
    const auto measure = [&](auto after) {
        give_back();
        const double before = allocated();
        mailroom::journal disk(where.path(), how.journal(mailroom::durability::none));
        mailroom::queue<std::string, mailroom::journal> q(disk, "all");
        after(disk, q, before);
    };
    const std::string body = numbered_body(16);
    measure([&](mailroom::journal& disk, auto& q, double before) {
        const std::vector<std::string> some(64, body);
        for (std::size_t i = 0; i < n; i += some.size()) { q.send_many(some); }
        disk.flush();
        figure("queue, all sent", allocated() - before);
    });
    measure([&](mailroom::journal&, auto& q, double before) {
        figure("queue, opened again", allocated() - before);
        std::uint64_t came = 0;
        while (q.pop_each([&](const std::string&) { ++came; }, 64) != 0) {}
        if (came != (n + 63) / 64 * 64) { give_up("memory: messages were lost or doubled"); }
        figure("queue, opened again, all received", allocated() - before);
    });
    // The worst case: every other one is settled.
    measure([&](mailroom::journal& disk, auto& q, double before) {
        const std::vector<std::string> some(64, body);
        for (std::size_t i = 0; i < n; i += some.size()) { q.send_many(some); }
        std::vector<mailroom::delivery<std::string>> held;
        const std::size_t most = std::min<std::size_t>(n, 200'000);
        held.reserve(most / 2 + 1);
        for (std::size_t i = 0; i < most; ++i) {
            auto d = q.try_receive();
            if (i % 2 == 0) {
                d->ack();
            } else {
                held.push_back(std::move(*d));
            }
        }
        disk.flush();
        sent.rows.push_back({"queue, 200,000 received, every other acked: each", {(allocated() - before) / static_cast<double>(most)}});
    });
    all.add(std::move(sent));
}

// ---- what is written ----------------------------------------------------------------------------------------------------------------

/// Bytes given to the system, and bytes that reached the disk, for each byte of the bodies.
template <class Send>
std::vector<double> amplification(std::uint64_t n, std::size_t length, Send send) {
    settle_disk();
    const written before = written::now(bench_directory());
    send();
    settle_disk();
    const written spent = written::now(bench_directory()).since(before);
    const auto payload = static_cast<double>(n * length);
    return {spent.to_system / payload, spent.to_disk / payload};
}

void amplification_tables(results& all, const scale& how) {
    for (const std::size_t length : {std::size_t{100}, kib}) {
        const std::uint64_t few = how.quick ? 200 : 1'000, many = how.quick ? 2'000 : 100'000;
        const auto ours = [&](std::string name, std::size_t used, auto send) {
            const kept<journal_store> store(how.journal(), used);
            return contestant{std::move(name), [=] {
                                  journal_store& s = *store;
                                  auto figures = send(s);
                                  static_cast<void>(s.drain());
                                  return figures;
                              }};
        };
        [[maybe_unused]] const auto theirs = [&](std::string name, auto store) {
            return contestant{std::move(name), [=] {
                                  auto& s = *store;
                                  const std::string body = numbered_body(length);
                                  return amplification(few, length, [&] {
                                      for (std::uint64_t i = 0; i < few; ++i) { s.send(body); }
                                  });
                              }};
        };
        const auto one_by_one = [=](journal_store& s) {
            const std::string body = numbered_body(length);
            return amplification(few, length, [&] {
                for (std::uint64_t i = 0; i < few; ++i) { s.send(body); }
            });
        };
        const auto with_acks = [=](journal_store& s) {
            const std::string body = numbered_body(length);
            return amplification(few, length, [&] {
                for (std::uint64_t i = 0; i < few; ++i) {
                    s.send(body);
                    s.queue().try_receive()->ack();
                }
            });
        };
        const auto windowed = [=](bool acks) {
            return [=](journal_store& s) {
                const std::string body = numbered_body(length);
                return amplification(many, length, [&] {
                    in_flight window(s.queue(), 1024);
                    for (std::uint64_t i = 0; i < many; ++i) {
                        window.send(body);
                        if (!acks || i < 2048) { continue; }
                        if (auto d = s.queue().try_receive()) { d->ack(); }
                    }
                    window.wait();
                });
            };
        };
        const std::size_t used = how.until_used();
        std::vector<contestant> who {
            ours("send, each waits", used, one_by_one), ours("send, each waits, a new journal", 0, one_by_one),
                ours("send, each waits, then receive and ack", used, with_acks), ours("send_async, 1024 outstanding", used, windowed(false)),
                ours("send_async, 1024 outstanding, a new journal", 0, windowed(false)),
                ours("send_async, 1024 outstanding, receive and ack", used, windowed(true)),
#if MAILROOM_BENCH_ROCKSDB
                theirs("RocksDB, sync", kept<rocks_store>(length)),
#endif
#if MAILROOM_BENCH_SQLITE
                theirs("SQLite, WAL, synchronous=FULL", kept<sqlite_store>(length)),
#endif
#if MAILROOM_BENCH_LMDB
                theirs("LMDB", kept<lmdb_store>(length)),
#endif
        };
        all.contest({{"written_system_" + size_name(length), size_text(length) + ": bytes given to the system for each byte of the bodies",
                      "bytes/byte", "", false},
                     {"written_disk_" + size_name(length),
                      size_text(length) + ": bytes the disk was given for each byte of the bodies (by all processes)", "bytes/byte", "", false}},
                    who);
    }
}

} // namespace

int main(int argc, char** argv) {
    double gigabytes = 0.5, messages = 0, patience = 0;
    results all("journal_bench", argc, argv, {{"--gigabytes", gigabytes}, {"--messages", messages}, {"--patience", patience}});
    all.set_canary([] { return disk_canary_us(); }, "us");
    if (patience > 0) {
        all.set_doubt([quiet = std::make_shared<quiet_disk>(patience)] { return quiet->was_disturbed(); });
    }
    const scale how{all.quick()};
    if (messages <= 0) { messages = how.quick ? 100'000 : 2'000'000; }
    commit_tables(all, how);
    transaction_tables(all, how);
    window_tables(all, how);
    unsynced_tables(all, how);
    receive_tables(all, how);
    replay_tables(all, how);
    open_tables(all, how, gigabytes);
    memory_tables(all, how, static_cast<std::size_t>(messages));
    amplification_tables(all, how);
    return all.finish();
}
