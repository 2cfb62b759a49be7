// Doubles of the model, each with one fault that a comparison must find. What is wrong is the double's only line.
#pragma once

#include "support/model.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// Does not know of some option: `Forget` takes it out of the settings.
template <auto Forget>
struct forgetful : model {
    forgetful(settings o, weigher weight) : model((Forget(o), o), weight) {}
};

/// Every `every`-th time something goes wrong.
class now_and_then {
public:
    explicit now_and_then(int every) : every_(every) {}
    bool operator()() { return ++count_ % every_ == 0; }

private:
    int every_, count_ = 0;
};

struct loses : model {
    using model::model;
    auto send(const std::vector<int>& bodies, const properties& p) {
        auto r = model::send(bodies, p);
        if (r && wrong()) { alive_.erase(*r); }
        return r;
    }
    now_and_then wrong{10};
};
struct duplicates : model {
    using model::model;
    std::optional<delivery> receive() {
        auto d = model::receive();
        if (d && wrong()) { delivery(std::move(*d)).nack(duration()), d = model::receive(); }
        return d;
    }
    now_and_then wrong{10};
};
struct reorders : model {
    using model::model;
    std::optional<delivery> receive() {
        auto first = model::receive();
        if (!first || !wrong()) { return first; }
        auto second = model::receive();
        if (!second) { return first; }
        first->release();
        return second;
    }
    now_and_then wrong{10};
};
struct looks_empty : model {
    using model::model;
    std::optional<delivery> receive() { return wrong() ? std::nullopt : model::receive(); }
    now_and_then wrong{10};
};
struct skips_offsets : model {
    using model::model;
    auto send(const std::vector<int>& bodies, const properties& p) {
        if (wrong()) { ++next_; }
        return model::send(bodies, p);
    }
    now_and_then wrong{10};
};
struct redrives_at_the_end : model {
    using model::model;
    template <class Predicate>
    std::size_t redrive(Predicate pred) {
        for (auto& e : dead_) { e.place = next_++; }
        return model::redrive(pred);
    }
};
struct never_closes : model {
    using model::model;
    void close() {}
};
struct late_by_one_step : model {
    using model::model;
    void advance(duration d) { model::advance(std::exchange(behind_, d)); }
    duration behind_{};
};

} // namespace support
