// producer<T>: sends to a queue or a topic under a name of its own, each message with a number. What is sent again under a number that the
// endpoint has seen is not stored again: so a retry after an outcome that nobody knows, a crash between the send and its answer, doubles nothing.
//
//     mailroom::producer gateway{orders, "gateway-7"};
//     for (std::uint64_t n = gateway.last() + 1; auto order = source.read(n); ++n) { gateway.send_as(n, *order); }   // goes on where it was
//
// In a journal the number is stored with the message, in one batch, and survives with it. An endpoint remembers the last number of each of 4096
// producers, however long they are silent, and forgets the one that was there longest ago for the next.
// Threads: any member from any thread; but two who send under one name, here or in two objects, share its numbers, and have to agree on them.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/base/error.hpp>
#include <mailroom/base/name.hpp>
#include <mailroom/message/properties.hpp>
#include <mailroom/queue.hpp>
#include <mailroom/topic.hpp>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace mailroom {

template <class T>
class producer {
public:
    using value_type = T;

    /// `name`: 1..255 bytes of UTF-8, the same after a restart, and nobody else's. May outlive the endpoint: then errc::closed. Throws errc::invalid.
    template <class Persistence>
    requires(!detail::is_transient<Persistence>) producer(queue<T, Persistence>& to, std::string name)
        : name_(std::move(name)), to_(std::make_unique<way_to_queue>(detail::endpoint_access::core(to))) {
        detail::check_name(name_);
    }
    template <class Persistence>
    requires(!detail::is_transient<Persistence>) producer(topic<T, Persistence>& to, std::string name)
        : name_(std::move(name)), to_(std::make_unique<way_to_topic>(detail::endpoint_access::core(to))) {
        detail::check_name(name_);
    }

    const std::string& name() const noexcept { return name_; }
    /// The highest number under which the endpoint has a message of this producer, as durable as it makes them; 0: none, or forgotten.
    std::uint64_t last() const { return to_->numbers().last(name_); }

    /// Sends a message under `last() + 1`; if that throws, the same message may be sent again so. Returns its place, on a queue in partition 0.
    /// Waits for room, and throws, as `queue::send` does. One at a time.
    position send(T value) { return send(std::move(value), properties()); }
    position send(T value, properties props) {
        const std::lock_guard lock(sending_);
        return to_->send(value, props, {name_, last() + 1});
    }
    /// Sends a message under a number of the caller's, above 0 and rising, gaps or none. If it is not above those before, nothing is stored, and it
    /// counts among `stats::duplicates`: returns the place of the last one for the last number, and no_offset for others.
    position send_as(std::uint64_t number, T value) { return send_as(number, std::move(value), properties()); }
    position send_as(std::uint64_t number, T value, properties props) {
        if (number == 0) { detail::fail(errc::invalid, "a producer's numbers begin at 1"); }
        return to_->send(value, props, {name_, number});
    }

private:
    class way {
    public:
        virtual ~way() = default;
        virtual position send(T& value, properties& props, const detail::numbered& by) = 0;
        virtual detail::producer_table& numbers() noexcept = 0;
    };
    template <class Core>
    class way_to : public way {
    public:
        explicit way_to(Core& core) : core_(core) { core_.refer(); }
        way_to(const way_to&) = delete;
        way_to& operator=(const way_to&) = delete;
        ~way_to() override { core_.unrefer(); }
        detail::producer_table& numbers() noexcept override { return core_.numbers(); }

    protected:
        template <class Log>
        offset send_to(Log& log, T& value, properties& props, const detail::numbered& by) {
            core_.check(value, props);
            const result<offset> done = log.send_numbered(value, &props, by);
            if (!done) { done.error().raise(); }
            return *done;
        }
        Core& core_;
    };
    struct way_to_queue final : way_to<detail::memory_core<T>> {
        using way_to<detail::memory_core<T>>::way_to;
        position send(T& value, properties& props, const detail::numbered& by) override { return {0, this->send_to(this->core_, value, props, by)}; }
    };
    struct way_to_topic final : way_to<detail::topic_core<T>> {
        using way_to<detail::topic_core<T>>::way_to;
        position send(T& value, properties& props, const detail::numbered& by) override {
            const offset place = this->send_to(this->core_.pick(&props), value, props, by);
            return place != no_offset ? detail::unpacked(place) : position{0, no_offset};
        }
    };

    const std::string name_;
    const std::unique_ptr<way> to_;
    std::mutex sending_;
};

template <class T, class Persistence>
producer(queue<T, Persistence>&, std::string) -> producer<T>;
template <class T, class Persistence>
producer(topic<T, Persistence>&, std::string) -> producer<T>;

} // namespace mailroom
