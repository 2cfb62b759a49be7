// journal_archive<T>: a topic of a journal as its core sees it: a stream for each partition, a cursor in each for each durable subscription.
#pragma once

#include <mailroom/base/basics.hpp>
#include <mailroom/journal/catalog.hpp>
#include <mailroom/journal/port.hpp>
#include <mailroom/options.hpp>
#include <mailroom/store/group.hpp>
#include <mailroom/store/journal_link.hpp>
#include <mailroom/store/partition.hpp>
#include <mailroom/store/timing.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mailroom::detail {

/// Where a cursor goes on, from what is known of it; and the reverse.
inline beginning beginning_of(const cursor_image& image) {
    beginning b;
    b.at = b.until = image.floor();
    if (image.runs().empty()) { return b; }
    b.until = image.runs().rbegin()->second;
    image.each_unsettled(image.floor(), b.until, [&](offset o) {
        b.places.push_back(o);
        return true;
    });
    return b;
}
inline cursor_image image_of(const beginning& b) {
    const offset floor = b.places.empty() ? std::max(b.at, b.until) : b.places.front();
    cursor_image image(floor);
    offset next = floor;
    for (const offset o : b.places) {
        if (o > next) { image.settle(next, o); }
        next = o + 1;
    }
    if (b.until > next) { image.settle(next, b.until); }
    return image;
}

template <class T>
class journal_archive final : public topic_archive<T> {
public:
    journal_archive(std::shared_ptr<log_port> log, std::uint32_t number, const timing& times)
        : log_(std::move(log)), number_(number), times_(times) {}

    std::unique_lock<std::recursive_mutex> keep_still() override { return std::unique_lock(log_->tenants_mutex()); }
    std::unique_ptr<link<T>> log_of(std::size_t partition) override {
        const auto i = static_cast<std::uint32_t>(partition);
        auto made = std::make_unique<journal_link<T>>(log_, number_, number_ + i, 0, times_, packed(static_cast<int>(i), 0));
        logs_.push_back(made.get());
        return made;
    }
    void attach(std::size_t which, mailroom::detail::partition<T>& p) override { logs_[which]->attach(p); }
    bool find(std::string_view name, std::vector<beginning>& places) override {
        bool found = false;
        log_->look([&](const catalog& c) {
            const endpoint_entry& e = c.endpoint(number_);
            const auto at = e.subscriptions.find(name);
            found = at != e.subscriptions.end();
            for (std::uint32_t i = 0; found && i < e.shape.partitions; ++i) { places.push_back(beginning_of(*c.image(at->second.first_cursor + i))); }
        });
        return found;
    }
    void declare(std::string_view name, sharing mode, const std::vector<beginning>& places) override {
        std::vector<cursor_image> images;
        for (const beginning& b : places) { images.push_back(image_of(b)); }
        log_->subscribe(number_, name, static_cast<std::uint32_t>(mode), images);
    }
    std::unique_ptr<link<T>> notes_of(std::string_view name, std::size_t partition) override {
        const auto i = static_cast<std::uint32_t>(partition);
        std::uint32_t cursor = 0;
        log_->look([&](const catalog& c) { cursor = c.endpoint(number_).subscriptions.find(name)->second.first_cursor + i; });
        return std::make_unique<journal_link<T>>(log_, number_, number_ + i, cursor, times_);
    }
    void forget(std::string_view name) override { log_->unsubscribe(number_, name); }
    std::vector<std::pair<std::string, sharing>> stored() override {
        std::vector<std::pair<std::string, sharing>> all;
        log_->look([&](const catalog& c) {
            for (const auto& [name, s] : c.endpoint(number_).subscriptions) { all.emplace_back(name, static_cast<sharing>(s.mode)); }
        });
        return all;
    }
    bool push() noexcept override { return log_->push(); }
    void push_settlements() noexcept override { log_->push_settlements(); }
    bool handle_gone(void* core) noexcept override { return log_->handle_gone(core); }

private:
    const std::shared_ptr<log_port> log_;
    const std::uint32_t number_;
    const timing times_;
    std::vector<journal_link<T>*> logs_; // by partition; the partitions own them
};

} // namespace mailroom::detail
