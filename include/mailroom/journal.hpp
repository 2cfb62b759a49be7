// journal: one directory in which queues and topics survive a crash of the process, of the system, a power cut.
//
//     mailroom::journal disk{"./data"};
//     mailroom::queue<Order, mailroom::journal> orders{disk, "orders"};   // send() returns when the order is on disk
//
// One journal is one stream of commits for all its queues and topics: however many send at once, one write and one sync carry them all. It
// starts no thread: whoever needs progress commits for everybody. Threads: every member may be called from any thread at once, except
// construction and destruction.
#pragma once

#include <mailroom/base/clock.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/name.hpp>
#include <mailroom/base/type_name.hpp>
#include <mailroom/journal/engine.hpp>
#include <mailroom/journal/options.hpp>
#include <mailroom/journal/posix_files.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/store/journal_archive.hpp>
#include <mailroom/store/journal_link.hpp>
#include <mailroom/topic.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace mailroom {

namespace detail {

/// A name in a journal. Throws errc::invalid, with a sentence.
inline void check_journal_name(std::string_view name) {
    check_name(name);
    if (name.find('/') != std::string_view::npos || name.find("..") != std::string_view::npos) {
        fail(errc::invalid, "the name has a '/' or '..' in it, as places in a file system have");
    }
}

/// Opens what lives in a journal, or finds it open. Each is registered under its name as long as somebody has a handle on it.
class journal_registry {
public:
    explicit journal_registry(std::shared_ptr<log_port> log) : log_(std::move(log)) {}

    template <class T>
    memory_core<T>* open_queue(const std::string& name, queue_options<T> o) {
        check_journal_name(name);
        check_options(o);
        if (o.clock == nullptr) { o.clock = &log_->clock(); }
        endpoint_shape shape;
        shape.priorities = static_cast<std::uint32_t>(o.priorities);
        shape.ordered_by_key = o.ordered_by_key;
        shape.dedup_window = o.deduplicate.window.count();
        shape.dedup_until_settled = o.deduplicate.until_settled;
        const std::lock_guard lock(log_->tenants_mutex());
        const log_port::endpoint_ref at = declare<T>(name, shape);
        if (auto* const known = find(name)) {
            ++known->handles;
            return static_cast<memory_core<T>*>(known->core);
        }
        log_->push(); // what an earlier handle left behind is there to be taken up
        std::uint32_t cursor = 0;
        std::vector<known_id> ids;
        log_->look([&](const catalog& c) {
            const endpoint_entry& e = c.endpoint(at.number);
            cursor = e.subscriptions.at(std::string()).first_cursor;
            ids.assign(e.ids.begin(), e.ids.end());
        });
        auto made = std::make_unique<journal_link<T>>(log_, at.number, at.number, cursor, timing(o.clock));
        journal_link<T>& to = *made;
        struct ending {
            void operator()(memory_core<T>* c) const noexcept { c->abandon(); }
        };
        std::unique_ptr<memory_core<T>, ending> core(new memory_core<T>(o, std::move(made)));
        to.attach(*core);
        restore_ids(*core, ids, o, to.before());
        core->restore(bytes_of(o, *core, to.before()));
        restore_numbers(core->numbers(), at.number, false);
        enter<T>(name, core.get());
        return core.release();
    }

    template <class T>
    topic_core<T>* open_topic(const std::string& name, topic_options<T> o) {
        check_journal_name(name);
        check_options(o);
        if (o.clock == nullptr) { o.clock = &log_->clock(); }
        endpoint_shape shape;
        shape.kind = endpoint_kind::topic;
        shape.partitions = static_cast<std::uint32_t>(o.partitions);
        shape.dedup_window = o.deduplicate.window.count();
        shape.dedup_until_settled = o.deduplicate.until_settled;
        const std::lock_guard lock(log_->tenants_mutex());
        const log_port::endpoint_ref at = declare<T>(name, shape);
        if (auto* const known = find(name)) {
            ++known->handles;
            return static_cast<topic_core<T>*>(known->core);
        }
        log_->push();
        struct ending {
            void operator()(topic_core<T>* c) const noexcept { c->abandon(); }
        };
        std::unique_ptr<topic_core<T>, ending> core(new topic_core<T>(o, std::make_unique<journal_archive<T>>(log_, at.number, timing(o.clock))));
        core->restore();
        if (deduplicator* const known = core->ids()) {
            std::vector<known_id> ids;
            log_->look([&](const catalog& c) { ids.assign(c.endpoint(at.number).ids.begin(), c.endpoint(at.number).ids.end()); });
            for (const known_id& k : ids) {
                const duration sent = core->common().time.at(wall_point(k.time));
                known->restore(k.id, packed(static_cast<int>(k.stream - at.number), k.offset), later(sent, o.deduplicate.window), true);
            }
        }
        restore_numbers(core->numbers(), at.number, true);
        enter<T>(name, core.get());
        return core.release();
    }

private:
    void restore_numbers(producer_table& to, std::uint32_t number, bool is_topic) {
        std::map<std::string, produced_number, std::less<>> all;
        log_->look([&](const catalog& c) { all = c.endpoint(number).producers; });
        for (const auto& [who, p] : all) {
            to.restore(who, p.number, is_topic ? packed(static_cast<int>(p.stream - number), p.offset) : p.offset, p.turn);
        }
    }
    template <class T, class Core>
    void enter(const std::string& name, Core* core) {
        log_port::tenant t{name, std::string(type_name_v<T>), core, 1, [](void* c) noexcept { static_cast<Core*>(c)->shut(); }};
        log_->tenants().push_back(std::move(t));
    }
    log_port::tenant* find(std::string_view name) noexcept {
        auto& all = log_->tenants();
        const auto at = std::find_if(all.begin(), all.end(), [&](const log_port::tenant& t) { return t.name == name; });
        return at != all.end() ? &*at : nullptr;
    }
    template <class T>
    log_port::endpoint_ref declare(const std::string& name, const endpoint_shape& shape) {
        if (const auto* const known = find(name); known != nullptr && known->type != type_name_v<T>) {
            fail(errc::type_mismatch, "'" + name + "' is open with messages of type " + known->type + ", not " + std::string(type_name_v<T>));
        }
        return log_->open(name, shape, schema_of<T>(), [&](const schema& s) {
            if (decoder_for<T>(s) == nullptr) { fail(errc::type_mismatch, "'" + name + "': " + mismatch_sentence<T>(s)); }
        });
    }
    template <class T>
    static void restore_ids(memory_core<T>& core, const std::vector<known_id>& ids, const queue_options<T>& o, const cursor_image& image) {
        deduplicator* const known = core.ids();
        if (known == nullptr) { return; }
        for (const known_id& k : ids) {
            const duration sent = core.times().at(wall_point(k.time));
            known->restore(k.id, k.offset, later(sent, o.deduplicate.window), !image.is_settled(k.offset));
        }
    }
    // Where bytes are bounded, what is stored has to be looked at once.
    template <class T>
    std::int64_t bytes_of(const queue_options<T>& o, memory_core<T>& core, const cursor_image& image) {
        if (o.max_bytes == 0 && o.budget == nullptr) { return 0; }
        std::int64_t sum = 0;
        const offset head = core.messages().head();
        for (offset first = image.floor() - index_in_span(image.floor()); first < head; first += span) {
            const std::unique_ptr<block<T>> b(core.messages().make_block(first, duration::zero()));
            for (std::uint32_t i = 0; i < span && first + i < head; ++i) {
                if (image.is_settled(first + i)) { continue; }
                if (core.journal()->load(*b, i) != slot_lost) { sum += static_cast<std::int64_t>(b->size_of(i)); }
            }
            for (std::uint32_t i = 0; i < span; ++i) {
                if (b->slots[i].ready.load(std::memory_order_relaxed) != slot_empty) { b->end(i); }
            }
        }
        return sum;
    }

    std::shared_ptr<log_port> log_;
};

} // namespace detail

template <class Files = posix_files>
class basic_journal {
public:
    using is_journal = void;

    /// Locks the directory, which is made if it is not there, and recovers what is in it. Throws errc::in_use where it is open already,
    /// errc::corrupt for damage (naming file and byte, what is at risk and the option to set), errc::io, errc::invalid.
    explicit basic_journal(const std::filesystem::path& directory, journal_options options = journal_options(), Files files = Files())
        : engine_(std::make_shared<detail::log_engine<Files>>(directory.string(), options, std::move(files))) {}
    basic_journal(basic_journal&&) noexcept = default;
    basic_journal& operator=(basic_journal&& other) noexcept {
        if (this != &other) {
            close();
            engine_ = std::move(other.engine_);
        }
        return *this;
    }
    /// Closes its queues and topics: sends answer errc::closed, receivers get nothing, acknowledgements are refused.
    ~basic_journal() { close(); }

    /// What opening found.
    recovery_report recovered() const { return engine_->recovered(); }
    /// What was sent and settled before is on stable storage when this returns, whatever the options say. Throws errc::io.
    void flush() { engine_->flush(); }
    /// Reads everything, and looks at every checksum and every reference. Goes on beside senders and receivers.
    verify_report verify(const progress& tell = progress()) { return engine_->verify(tell); }
    /// Gives back what space it can at once; otherwise that happens step by step as messages are sent. Throws errc::io.
    compact_report compact(const progress& tell = progress()) { return engine_->compact(tell); }

    /// The names of the prepared transactions about which nobody has decided yet, in order; those of before the last opening as well.
    std::vector<std::string> in_doubt() const { return engine_->in_doubt(); }
    /// Decides about one: it takes place, as a whole, or nothing of it does. Durable when this returns, whatever the options say. Throws
    /// errc::not_found where there is none of this name (it was decided, or never was prepared), errc::io: then it is still in doubt.
    void commit(std::string_view xid) { resolve(xid, true); }
    void rollback(std::string_view xid) { resolve(xid, false); }

private:
    void resolve(std::string_view xid, bool commit) {
        const std::lock_guard lock(engine_->tenants_mutex());
        engine_->resolve(xid, commit);
    }
    template <class, class>
    friend class queue;
    template <class, class>
    friend class topic;
    friend class committer;
    friend class transaction;

    template <class T>
    detail::memory_core<T>* open_queue(const std::string& name, const queue_options<T>& o) {
        return detail::journal_registry(engine_).open_queue<T>(name, o);
    }
    template <class T>
    detail::topic_core<T>* open_topic(const std::string& name, const topic_options<T>& o) {
        return detail::journal_registry(engine_).open_topic<T>(name, o);
    }
    void close() noexcept {
        if (engine_ == nullptr) { return; }
        std::vector<detail::log_port::tenant> all;
        {
            const std::lock_guard lock(engine_->tenants_mutex());
            try {
                all = engine_->tenants();
            } catch (...) {
                for (const auto& t : engine_->tenants()) { t.close(t.core); }
            }
            for (const auto& t : all) { t.close(t.core); }
        }
        engine_->close();
    }

    std::shared_ptr<detail::log_engine<Files>> engine_;
};

using journal = basic_journal<>;

/// A thread that commits what `send_async` leaves behind, so that nobody who sends has to. Ends, after a last commit, with its destructor.
/// May not outlive the journal.
class committer {
public:
    template <class Files>
    explicit committer(basic_journal<Files>& of)
        : wake_([engine = of.engine_.get()] { engine->wake_keeper(); }), leave_([engine = of.engine_.get()] { engine->set_keeper(false); }) {
        of.engine_->set_keeper(true);
        thread_ = std::thread([engine = of.engine_.get(), this] { engine->keep(stop_); });
    }
    committer(const committer&) = delete;
    committer& operator=(const committer&) = delete;
    ~committer() {
        stop_.store(true, std::memory_order_release);
        wake_();
        thread_.join();
        leave_();
    }

private:
    std::function<void()> wake_;
    std::function<void()> leave_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

} // namespace mailroom
