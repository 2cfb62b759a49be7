// shelf: what waits and has not been loaded: the offsets of messages that are stored elsewhere, by their level, in order.
//
// Where many messages wait, those that are handed out next are in the index, body and all; of the others it is enough to know how urgent each is.
// A level is a queue of runs, written as the gap before and the length of each: a backlog of one level costs next to nothing, and one of many levels
// that change with every message two bytes for each.
//
// A data structure and nothing else. The cursor's mutex protects it.
#pragma once

#include <mailroom/base/basics.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace mailroom::detail {

class shelf {
public:
    explicit shelf(int levels) : levels_(static_cast<std::size_t>(levels)) {}

    bool empty() const noexcept { return size_ == 0; }
    std::size_t size() const noexcept { return size_; }
    std::size_t levels() const noexcept { return levels_.size(); }
    bool empty(std::size_t which) const noexcept { return levels_[which].head.empty(); }
    /// The lowest of a level that is not empty.
    offset front(std::size_t which) const noexcept { return levels_[which].head.first; }

    /// `o` is above all that were put into this level before. May throw std::bad_alloc; then nothing has changed.
    void push(std::size_t which, offset o) {
        levels_[which].push(o);
        ++size_;
    }
    void pop(std::size_t which) noexcept {
        levels_[which].pop();
        --size_;
    }
    /// The level that holds the lowest of all. Not for one that is empty.
    std::size_t lowest() const noexcept {
        std::size_t best = levels_.size();
        for (std::size_t i = 0; i < levels_.size(); ++i) {
            if (!empty(i) && (best == levels_.size() || front(i) < front(best))) { best = i; }
        }
        return best;
    }
    /// Takes `o` out, wherever it stands, and answers its level; -1: it is not here. Reads all that is. May throw std::bad_alloc; then nothing has changed.
    int take(offset o) {
        for (std::size_t i = 0; i < levels_.size(); ++i) {
            level without;
            bool found = false;
            for (level rest = levels_[i]; !rest.head.empty(); rest.pop()) {
                if (rest.head.first == o) {
                    found = true;
                } else {
                    without.push(rest.head.first);
                }
            }
            if (!found) { continue; }
            levels_[i] = std::move(without);
            --size_;
            return static_cast<int>(i);
        }
        return -1;
    }

private:
    struct stretch {
        offset first = 0, last = 0; // beyond the end
        bool empty() const noexcept { return first == last; }
    };
    struct level {
        stretch head;                   // the first run
        std::deque<unsigned char> runs; // those between, each from the end of the one before
        offset written = 0;             // the end of the last of them
        stretch tail;                   // the last, where there are several

        void push(offset o) {
            stretch& last = tail.empty() ? head : tail;
            if (!last.empty() && last.last == o) {
                ++last.last;
                return;
            }
            if (!tail.empty()) {
                write(tail.first - (runs.empty() ? head.last : written), tail.last - tail.first);
                written = tail.last;
            }
            (head.empty() ? head : tail) = {o, o + 1};
        }
        void pop() noexcept {
            if (++head.first != head.last) { return; }
            if (runs.empty()) {
                head = std::exchange(tail, {});
                return;
            }
            head.first = head.last + read();
            head.last = head.first + read();
        }
        void write(offset gap, offset length) {
            std::array<unsigned char, 20> bytes; // filled as far as it is used
            std::size_t n = 0;
            for (offset left : {gap, length}) {
                for (; left >= 0x80; left >>= 7) { bytes[n++] = static_cast<unsigned char>(left | 0x80); }
                bytes[n++] = static_cast<unsigned char>(left);
            }
            const std::size_t before = runs.size();
            try {
                runs.insert(runs.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
            } catch (...) {
                runs.resize(before);
                throw;
            }
        }
        offset read() noexcept {
            offset value = 0;
            for (unsigned shift = 0;; shift += 7) {
                const unsigned char byte = runs.front();
                runs.pop_front();
                value |= offset{byte & 0x7fu} << shift;
                if (byte < 0x80) { return value; }
            }
        }
    };
    std::vector<level> levels_;
    std::size_t size_ = 0;
};

} // namespace mailroom::detail
