// log_engine: the journal without types. One directory, one commit stream for any number of queues and topics.
//
// The class, its invariants and its locks stand here. What it does: placing.hpp, commit.hpp, declarations.hpp, transactions.hpp; rotation.hpp (the segment
// that is written to), checkpoints.hpp, upkeep.hpp (space given back), survivors.hpp; reading.hpp, verification.hpp; recovery.hpp (opening), replay.hpp.
//
// How a record becomes durable. Who has one puts it, encoded and hashed, into the open batch, under `mutex_`, and gets its offset. Who needs
// progress leads: he takes the open batch, writes it with one write, syncs with one sync, takes its records into `catalog_` and the places of
// its messages into the index, publishes the new heads, and completes the tickets. Meanwhile the next batch gathers. There is one leader at a
// time; nobody else writes, and no lock is held while the disk works.
//
// Invariants
//   1. Offsets and positions are given as records are placed. When a batch fails, so does the one that gathered meanwhile, and both are given
//      again: there are no holes, and nothing of a batch that failed is ever visible. What it left on disk is overwritten by the next batch,
//      whose incarnation is higher, or cut off by recovery.
//   2. `catalog_` and the index hold what was committed, and are changed by the records of a batch, in their order, by the leader alone: what
//      recovery reads is taken in by the same code. A checkpoint is a copy of them between two batches.
//   3. A stream's head is published after its batch is as durable as the options ask for; so nobody receives what a crash could take back.
//   4. A segment is begun when all before the last are on stable storage, and, where sends wait for the disk, the last too. Its header says how far. So
//      only the last two may hold anything unsynced, and no send waits for what it was not told to wait for.
//   5. A segment's file goes when nothing in it is wanted and neither of the two manifests names it.
//   6. What a record says to lie in a survivor segment is on stable storage there before the record is placed. Until the record is committed, it is
//      read from where it was; from then on from there. So a survivor segment that no committed record speaks of is one that a crash left over.
//
// Locks: `declaring_` and `upkeep_` before `mutex_` (what gathers) before `state_` (what is committed) before a segment's, and `syncing_`. Foreign code runs under none; listeners store their
// heads under `state_`.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/journal/catalog.hpp>
#include <mailroom/journal/files.hpp>
#include <mailroom/journal/format.hpp>
#include <mailroom/journal/options.hpp>
#include <mailroom/journal/port.hpp>
#include <mailroom/journal/segment.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// The directories this process has open. With the error category, the only object of the library that is global.
class open_directories {
public:
    /// False: it is open.
    static bool enter(const std::string& identity) {
        const std::lock_guard lock(all().mutex);
        return all().names.insert(identity).second;
    }
    static void leave(const std::string& identity) noexcept {
        const std::lock_guard lock(all().mutex);
        all().names.erase(identity);
    }

private:
    struct table {
        std::mutex mutex;
        std::set<std::string> names;
    };
    [[gnu::visibility("default")]] static table& all() {
        static table* const one = new table; // never destroyed: a journal may be closed by the destructor of a static object
        return *one;
    }
};

/// A lock that the one who holds it may try to take again, in vain: upkeep commits, and whoever commits looks whether there is upkeep.
class upkeep_lock {
public:
    bool try_lock() noexcept { return !held_.exchange(true, std::memory_order_acquire); }
    void lock() noexcept {
        while (!try_lock()) { std::this_thread::yield(); } // rare, and for a few writes
    }
    void unlock() noexcept { held_.store(false, std::memory_order_release); }

private:
    std::atomic<bool> held_{false};
};

template <class Files>
class log_engine final : public log_port, public std::enable_shared_from_this<log_engine<Files>> {
    using file = typename Files::file;
    using segment_ptr = std::shared_ptr<segment<Files>>;

public:
    /// Opens the directory, or makes it. Throws errc::invalid, in_use, io, corrupt, with a sentence.
    log_engine(std::string directory, const journal_options& o, Files files);
    /// Writes what is left, and that it was closed. Nobody uses it any more.
    ~log_engine();

    // log_port
    endpoint_ref open(std::string_view name, const endpoint_shape& shape, const schema& own,
                      const std::function<void(const schema&)>& check) override;
    std::uint16_t schema_number(std::uint32_t endpoint, const schema& own) override;
    std::uint32_t subscribe(std::uint32_t endpoint, std::string_view name, std::uint32_t mode, const std::vector<cursor_image>& at) override;
    void unsubscribe(std::uint32_t endpoint, std::string_view name) override;
    void put_cursor(std::uint32_t cursor, const cursor_image& at) override;
    void look(const std::function<void(const catalog&)>& at) override {
        const std::lock_guard lock(state_);
        at(catalog_);
    }
    void attach(std::uint32_t stream, stream_listener& l) override;
    void detach(std::uint32_t stream) noexcept override;
    void detach(change_source& s) noexcept override;
    void mark(change_source& s) noexcept override;
    placed place(std::span<draft> drafts, const admission& admit, ticket* t) override;
    offset append(const draft& d) override;
    void enrol(ticket& t) override;
    void wait(ticket& t) noexcept override;
    bool lead_for(ticket& t) noexcept override;
    bool push() noexcept override;
    void push_settlements() noexcept override;
    offset placed_until(std::uint32_t stream) noexcept override;
    void note_deliveries(std::uint32_t cursor, bytes_view steps) noexcept override;
    void read(std::uint32_t stream, offset first, std::uint32_t mask, record_reader& to, read_ahead& kept) noexcept override;
    offset first_stored(std::uint32_t stream) noexcept override;
    const hash_key& seed() const noexcept override { return seed_; }
    mailroom::durability durability() const noexcept override { return options_.durability; }
    mailroom::clock& clock() const noexcept override { return clock_; }
    std::size_t largest_batch() const noexcept override { return options_.segment_bytes / 2; }
    offset suspects_until(std::uint32_t stream) noexcept override {
        const auto at = suspects_.find(stream);
        return at != suspects_.end() ? at->second : 0;
    }
    bool is_open() const noexcept override { return !closed_.load(std::memory_order_acquire); }

    placed place_together(std::span<parcel> parcels, std::span<const settled_place> settled, ticket* t) override {
        return place_all(parcels, settled, {}, standing::with_others, t);
    }
    void prepare(std::string_view xid, std::span<const parcel> parcels, std::span<const settled_place> settled,
                 std::vector<undecided*>& held) override;
    std::vector<std::pair<std::string, offset>> in_doubt_of(std::uint32_t cursor) override;
    void hold_in_doubt(const std::string& xid, undecided& held) override {
        const std::lock_guard lock(holding_);
        held_[xid].push_back(&held);
    }
    void forget_held() noexcept {
        for (;;) {
            std::vector<undecided*> all;
            {
                const std::lock_guard lock(holding_);
                if (held_.empty()) { return; }
                all = std::move(held_.begin()->second);
                held_.erase(held_.begin());
            }
            for (undecided* const one : all) { one->decide(false); }
        }
    }

    // what the journal's owner asks
    std::vector<std::string> in_doubt();
    /// Decides about a prepared transaction. Throws errc::not_found, io, closed: then it is still in doubt. Endpoints neither come nor go meanwhile.
    void resolve(std::string_view xid, bool commit);
    const recovery_report& recovered() const noexcept { return recovered_; }
    /// `into_next`: what follows goes into the next segment.
    void flush(bool into_next = false);
    verify_report verify(const progress& tell);
    compact_report compact(const progress& tell);
    /// No endpoint can do anything any more. Commits what is there.
    void close() noexcept;
    /// For a thread that commits for others: waits until something is there, or `stop`, and commits it.
    void keep(const std::atomic<bool>& stop) noexcept;
    void wake_keeper() noexcept {
        keeper_word_.fetch_add(1, std::memory_order_seq_cst);
        clock_.unpark(keeper_word_);
    }
    void set_keeper(bool there) noexcept { keepers_.fetch_add(there ? 1 : -1, std::memory_order_seq_cst); }
    const Files& files() const noexcept { return files_; }
    const std::string& directory() const noexcept { return directory_; }

private:
    static constexpr std::size_t buffered = std::size_t{1} << 20;      // so much gathers before it is written, where nobody waits
    static constexpr std::size_t most_gathered = std::size_t{4} << 20; // so much, before senders wait for the batch before
    static constexpr std::size_t a_step = std::size_t{64} << 10;       // of writing that is done for the good of all
    static constexpr std::size_t zeros_ahead = std::size_t{1} << 20;
    static constexpr std::size_t written_back_at_once = std::size_t{4} << 20;
    static constexpr std::size_t near = std::size_t{64} << 10; // what lies so near each other is read at once
    static constexpr std::size_t most_open = 128;              // files of segments

    // What gathers, or is being written.
    struct batch {
        byte_buffer bytes; // with room for its header in front
        std::uint32_t records = 0;
        std::uint64_t base = 0; // its position
        ticket* first = nullptr;
        ticket* last = nullptr;
        unsigned waiting = 0;      // threads
        bool wanted = false;       // somebody who is not a waiting thread wants it committed
        bool to_sync = false;      // whatever the options say
        bool to_rotate = false;    // into the next segment
        bool holds_more = false;   // than deliveries
        bool called = false;       // the committer was told
        bool stands_alone = false; // nothing else comes into it, or behind it before it is written: it fails alone, and is not kept
        std::vector<std::pair<change_source*, std::vector<std::byte>>> collected;
        std::size_t size() const noexcept { return bytes.size(); }
    };
    struct image { // of what is committed, for a manifest
        std::vector<std::byte> state;
        std::uint64_t at = 0; // its position
    };
    struct survivor_scan { // how far a segment was looked through
        std::size_t run = 0;
        offset next = 0;          // of that run; behind the last run, of what was moved of a stream
        std::uint32_t stream = 0; // of what was moved
        bool is_done = false;
    };
    struct slot { // a stream somebody has open
        stream_listener* listener = nullptr;
        offset placed = 0; // the next offset
    };
    struct arrival { // so many messages have come for somebody
        std::uint32_t stream = 0;
        stream_listener* listener = nullptr;
        std::size_t n = 0;
    };
    // Where one run of messages lies.
    struct extent {
        segment_ptr where;
        std::size_t which = 0; // of its runs
        offset first = 0;
    };
    struct spot {
        segment_ptr where;
        std::uint64_t position = 0;
    };
    struct stretch { // of messages: some that lie in one run, or one that lies elsewhere by now
        segment_ptr where;
        std::uint64_t end = 0; // of what is committed there
        run in{};
        std::uint32_t number = 0; // in its run
        unsigned n = 0;
        bool is_placed = false; // otherwise their places have to be read from the file beside the segment
    };

    // placing.hpp
    failure refusal() const;
    void start(batch& b, std::uint64_t base) noexcept;
    void append(batch& b, const draft& d, offset o);
    void link(batch& b, ticket& t) noexcept;
    draft make_draft(record_kind kind, std::uint32_t stream, std::vector<std::byte>& payload) const;
    failure make_way(std::unique_lock<std::mutex>& lock, std::size_t bytes) noexcept;
    void lead_if_much() noexcept;
    slot& slot_of(std::uint32_t stream);
    void call_keeper() noexcept;

    // commit.hpp
    /// In the segment that is being written. The leader's.
    std::uint64_t byte_of(std::uint64_t position) const noexcept { return current_ != nullptr ? current_->byte_of(position) : segment_header::size; }
    static record_kind kind_of(const change_source& s) noexcept { return s.is_of_stream() ? record_kind::refused : record_kind::settlements; }
    void return_to(change_source& s, bytes_view steps) noexcept;
    void return_collected(batch& b) noexcept;
    void collect(batch& b) noexcept;
    void collect_from(batch& b, change_source& s) noexcept;
    void gather(std::unique_lock<std::mutex>& lock) noexcept;
    static void take_over_tickets(batch& from, ticket*& chain, ticket*& last) noexcept;
    void lead(std::unique_lock<std::mutex>& lock, bool may_gather = true) noexcept;
    void keep(batch& b) noexcept;
    void finish(ticket* chain, const failure& why, bool is_kept) noexcept;
    void overwrite_header(const batch& b) noexcept;
    void take_off_disk(const batch& b) noexcept;
    failure write(batch& b, std::uint64_t& check) noexcept;
    std::size_t take_place(const record& r, const segment_ptr& where);
    void take(const record& r, const segment_ptr& where);
    void take_in(const batch& b, std::uint64_t check, std::vector<arrival>& arrivals);
    void note_arrivals(std::uint32_t stream, std::size_t n, std::vector<arrival>& arrivals);

    // declarations.hpp
    void place_declaration(record_kind kind, std::uint32_t stream, const std::vector<std::byte>& payload);

    // transactions.hpp
    enum class standing {
        with_others,
        alone,         // in a batch of its own, so that its failure is nobody else's; somebody has to wait for its ticket
        alone_and_safe // and durable, whatever the options say
    };
    placed place_all(std::span<parcel> parcels, std::span<const settled_place> settled, std::span<const draft> others, standing how, ticket* t);
    std::vector<draft> settle_all(std::vector<prepared_content::settled>& places, std::vector<std::vector<std::byte>>& payloads) const;
    failure fits(std::size_t bytes) const;
    slot& slot_for(std::uint32_t stream);
    std::vector<undecided*> take_held(std::string_view xid);

    // rotation.hpp
    failure make_room(std::uint64_t base, std::size_t n) noexcept;
    void begin_writing_back(std::uint64_t until) noexcept;
    void stop_writing(const failure& why) noexcept;
    std::error_code sync_data(file& f) noexcept;
    failure sync_behind() noexcept;
    failure sync_failed(const std::string& path, const std::error_code& ec) noexcept;
    failure rotate(std::uint64_t base) noexcept;

    // checkpoints.hpp
    void write_next();
    std::vector<std::byte> encode_state(bool clean);
    failure checkpoint(bool clean);
    failure write_manifest(const image& what);

    // upkeep.hpp
    using entries_by_segment = std::unordered_map<const segment<Files>*, std::uint64_t>;
    void tend() noexcept;
    void note_space(const std::error_code& ec) noexcept;
    void make_space() noexcept;
    void write_indexes();
    bool is_queue(std::uint32_t stream) const noexcept;
    offset retained_from(std::uint32_t stream) noexcept;
    bool is_live(std::uint32_t stream, offset o);
    std::uint64_t live_in_runs(const segment_ptr& s, bool only_whether);
    bool is_wanted(const segment_ptr& s, std::uint64_t* live = nullptr);
    void drop(const segment_ptr& s);
    entries_by_segment count_moved();
    std::size_t retire(std::size_t allowance);
    bool keep_spare(const std::string& path);
    void remove_spares(int but);
    void remove_doomed();
    std::uint64_t bytes_stored() noexcept;
    void find_retained();
    bool is_mostly_dead(const segment_ptr& s);

    // survivors.hpp
    offset next_live(std::uint32_t stream, offset o, offset end);
    void copy_survivors(const segment_ptr& s, std::size_t most, batch& b, survivor_list& list, survivor_scan& from);
    std::size_t switch_over(batch& copies, survivor_list& list);
    failure write_survivors(batch& b);
    void end_survivors() noexcept;
    bool is_switching();
    bool may_drop(const segment_ptr& s) noexcept;
    void switch_to(const survivor_list& l);
    const char* look_at_survivors(const segment_ptr& s, std::uint64_t until);
    bool know_survivors(const record& r);
    void salvage_survivors(const std::vector<std::string>& names);
    void free_survivors(const std::vector<std::string>& names);

    // reading.hpp
    bool find(std::uint32_t stream, offset o, unsigned most, stretch& s, std::uint64_t* to);
    bool look_up(stretch& s, std::uint64_t* to, read_ahead& ahead);
    bool has_left(const segment_ptr& s, std::uint32_t stream, offset o) noexcept;
    bool places_were_wrong(const stretch& s, read_ahead& ahead) noexcept;
    unsigned read_stretch(const stretch& s, std::uint32_t stream, offset o, std::uint32_t mask, unsigned i, const std::uint64_t* places,
                          record_reader& to, read_ahead& ahead) noexcept;
    bool read_more(const stretch& s, const std::uint64_t* places, unsigned n, read_ahead& ahead, record& r, std::error_code& ec) noexcept;
    std::error_code read_at(const segment_ptr& s, std::uint64_t at, std::size_t least, std::uint64_t end, read_ahead& ahead) noexcept;
    bool rebuild_index(const segment_ptr& s);
    template <class Fn, class Wrong>
    void scan(const segment_ptr& s, std::uint64_t until, Fn fn, Wrong wrong);
    void limit_open_files(const segment_ptr& used) noexcept;

    // verification.hpp
    bool is_stored(const segment_ptr& s) noexcept {
        const std::lock_guard lock(state_);
        const auto& all = s->holds_survivors() ? survivors_ : segments_;
        const auto at = all.find(s->first());
        return at != all.end() && at->second == s;
    }

    // recovery.hpp
    void report(const std::string& path, std::uint64_t byte, std::string what);
    void lock_directory();
    void open_all();
    void begin_anew();
    void read_manifest(std::vector<std::string>& names);
    bool decode_state(bytes_view body, std::uint32_t version);
    void expect_segments(std::map<std::uint64_t, segment_ptr>& all, const std::vector<std::string>& names);
    void recover(std::vector<std::string>& names);
    void make_long_enough(const segment_ptr& s);
    void write_header(const segment_ptr& s);
    void open_last(const segment_ptr& last, std::uint64_t at);
    void write_again(const segment_ptr& s, file& f, std::uint64_t from, std::uint64_t until);

    // replay.hpp
    struct replay_state {
        std::uint64_t at = 0;    // so far everything was taken in
        std::uint64_t chain = 0; // the checksum of the last batch header
        std::uint64_t lowest_incarnation = 0;
        bool jumped = false;         // over damage: what follows has nothing to follow
        std::uint64_t broken_at = 0; // why it does not go on
        std::string what{};
    };
    void apply_recovered(const record& r, const segment_ptr& s);
    void index_again(const segment_ptr& s, std::uint64_t until);
    void replay_segment(const segment_ptr& s, replay_state& r);
    bool enter_next(segment_ptr& last, replay_state& r, const std::vector<std::string>& names);
    std::uint64_t replay(segment_ptr& last, const std::vector<std::string>& names);
    std::uint64_t durable_beyond(const segment_ptr& s, std::uint64_t from, const std::vector<std::string>& names, bool& remains);
    std::uint64_t salvage_from(const segment_ptr& s, std::uint64_t from);

    const Files files_;
    const std::string directory_;
    const journal_options options_;
    mailroom::clock& clock_;
    std::string identity_;
    file lock_file_;
    journal_id id_{};
    hash_key seed_;
    recovery_report recovered_;
    std::map<std::uint32_t, offset> suspects_; // fixed once it is open
    bool read_only_ = false;
    bool is_new_ = false;
    bool has_no_manifest_ = false;                               // while it is opened
    std::vector<std::pair<std::string, const char*>> not_found_; // while it is opened: survivor segments that cannot be read, and why

    std::mutex declaring_; // one at a time, for numbers are given by what is committed
    std::mutex mutex_;     // what gathers
    batch open_;
    byte_buffer spare_buffer_;
    std::unordered_map<std::uint32_t, slot> slots_;         // changed under both locks; none is ever taken out
    std::pair<std::uint32_t, slot*> last_slot_{0, nullptr}; // somebody placed messages in; no stream has number 0
    bool leading_ = false;
    bool alone_ = false;      // there is one that stands alone
    bool over_ = false;       // closed, and its files with it
    unsigned expected_ = 1;   // threads that waited for the last batch, or came while it was written
    failure failed_ = errc{}; // the last batch
    failure broken_ = errc{}; // a sync failed: nothing is written any more
    std::mutex holding_;
    std::map<std::string, std::vector<undecided*>, std::less<>> held_; // of the transactions in doubt: deliveries
    std::atomic<bool> closed_{false};
    std::atomic<std::uint32_t> epoch_{0}; // batches that are over
    std::atomic<unsigned> joined_{0};     // threads that wait for the open batch
    std::mutex dirty_mutex_;              // held for a few instructions
    std::vector<change_source*> dirty_;
    std::vector<change_source*> counting_; // streams: for them nobody commits
    std::atomic<int> keepers_{0};
    std::atomic<std::uint32_t> keeper_word_{0};

    // The leader's.
    segment_ptr current_;
    std::shared_ptr<file> current_file_;
    std::mutex syncing_;
    bool has_lost_ = false; // guarded by it
    std::shared_ptr<file> behind_; // of the segment before, until that is on stable storage; changed under `state_`
    std::uint64_t zeroed_ = 0; // bytes of its file that are there already
    std::uint64_t chain_ = 0;  // the checksum of the last batch header
    std::atomic<std::uint64_t> incarnation_{1};
    std::uint64_t durable_ = 0;
    std::uint64_t begun_ = 0; // before this, the system was asked to write to the disk what it was given

    std::mutex state_; // what is committed
    catalog catalog_;
    std::map<std::uint64_t, segment_ptr> segments_;
    std::map<std::uint64_t, segment_ptr> survivors_;                  // survivor segments
    std::uint64_t next_survivor_ = survivors_from;                    // positions from here on are nobody's
    std::unordered_map<std::uint32_t, std::vector<extent>> extents_;  // in the order of their offsets
    std::map<std::uint32_t, std::map<offset, spot>> moved_; // messages that lie elsewhere now
    bool is_whole_ = true;                                            // not while, or after, only some records of a batch were taken in
    std::uint64_t applied_ = 0;
    std::uint64_t applied_chain_ = 0;
    std::uint64_t applied_durable_ = 0;

    upkeep_lock upkeep_; // one does it at a time
    std::uint64_t checkpointed_ = 0;
    image next_; // it is written when a crash can no longer take back what it says
    bool needs_old_ = false;             // the manifest is damaged: the one before stays until there is a new one
    std::vector<segment_ptr> unindexed_; // sealed, the file beside them not written; under `state_`
    struct doomed {
        std::string path;
        unsigned checkpoints = 0; // still to be written before it may go
    };
    std::vector<doomed> doomed_;
    std::atomic<std::uint64_t> spares_{0}; // a bit for each file that is there
    // What is being put into survivor segments; with `upkeep_`.
    segment_ptr survivors_to_;             // or nullptr: the next messages begin another
    std::shared_ptr<file> survivors_file_; // of it
    std::uint64_t survivors_chain_ = 0;    // the checksum of the last batch header there
    ticket switch_;                        // of the record that was placed last
    segment_ptr switching_;                // which speaks of this one; nullptr: what became of it is known
    std::set<std::uint64_t> unsure_;       // survivor segments that a record may yet speak of, though it was said to have failed
    std::atomic<bool> no_space_{false}; // the last failure was that
    std::atomic<std::uint64_t> segments_freed_{0};
    std::atomic<std::uint64_t> messages_moved_{0};
    std::vector<std::weak_ptr<segment<Files>>> recently_opened_;
};

} // namespace mailroom::detail
