// Another process: it does something, and says how it goes in words of a fixed size, until it ends or is killed.
#pragma once

#include <doctest/doctest.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <type_traits>

#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

namespace support {

/// Its last act, of its own choice.
[[noreturn]] inline void die() noexcept {
    for (;;) { ::kill(::getpid(), SIGKILL); }
}

/// In the process: says a word. A pipe takes one of up to 512 bytes whole or not at all, whenever the process is killed.
template <class Word>
void say(int to, const Word& word) noexcept {
    static_assert(sizeof word <= 512 && std::is_trivially_copyable_v<Word>);
    while (::write(to, &word, sizeof word) < 0 && errno == EINTR) {}
}

class process {
public:
    /// Does `act(to)` in a process of its own, in which `to` is what it says its words to. It ends with 0 when `act` returns, with 1 if that throws.
    template <class Act>
    explicit process(Act act) {
        int ends[2];
        REQUIRE(::pipe(ends) == 0);
        id_ = ::fork();
        REQUIRE(id_ >= 0);
        if (id_ == 0) {
            ::close(ends[0]);
            try {
                act(ends[1]);
            } catch (...) { ::_exit(1); }
            ::_exit(0);
        }
        ::close(ends[1]);
        from_ = ends[0];
    }
    process(const process&) = delete;
    process& operator=(const process&) = delete;
    ~process() {
        kill();
        wait();
        ::close(from_);
    }

    /// Its next word. False: it has ended, and all was heard.
    template <class Word>
    bool hear(Word& word) {
        std::size_t got = 0;
        while (got < sizeof word) {
            const ssize_t n = ::read(from_, reinterpret_cast<char*>(&word) + got, sizeof word - got);
            if (n < 0 && errno == EINTR) { continue; }
            if (n <= 0) { return false; }
            got += static_cast<std::size_t>(n);
        }
        return true;
    }
    /// Calls `heard` with so many of its words at the most, those it says within the time. It goes on then.
    template <class Word, class Heard>
    void hear_some(std::size_t words, std::chrono::microseconds at_most, Heard heard) {
        const auto until = std::chrono::steady_clock::now() + at_most;
        for (Word word{}; words != 0; --words) {
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
            pollfd waits{from_, POLLIN, 0};
            if (left.count() < 0 || ::poll(&waits, 1, static_cast<int>(left.count()) + 1) <= 0 || !hear(word)) { return; }
            heard(word);
        }
    }
    /// Calls `heard` with all that it says until it ends.
    template <class Word, class Heard>
    void hear_all(Heard heard) {
        for (Word word{}; hear(word);) { heard(word); }
    }
    void kill() {
        if (id_ > 0) { ::kill(id_, SIGKILL); }
    }
    /// Waits until it has ended. How, as waitpid says it.
    int wait() {
        while (id_ > 0 && ::waitpid(id_, &status_, 0) < 0 && errno == EINTR) {}
        id_ = 0;
        return status_;
    }

private:
    pid_t id_ = 0; // 0: it has been waited for
    int from_ = -1;
    int status_ = 0;
};

/// Starts a process and kills it after so many of its words, or so much time; `heard` gets every word it said.
template <class Word, class Act, class Heard>
void live_and_die(Act act, std::size_t words, std::chrono::microseconds at_most, Heard heard) {
    process p(act);
    p.hear_some<Word>(words, at_most, heard);
    p.kill();
    p.wait();
    p.hear_all<Word>(heard);
}

} // namespace support
