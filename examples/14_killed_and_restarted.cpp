// A worker that is killed in mid-work, again and again, by SIGKILL: it cannot clean up. Each time another one is started on the same journal.
// Nothing is lost; what a worker had in hand, or had done without a confirmation, comes again; and a job that kills whoever touches it ends
// among the dead letters after its last attempt.
//
// The program is both: the parent starts itself once more as the worker, and talks to it over a socket. Before each job the worker says which
// it has in hand, and waits for a nod; the parent nods, or kills. So the worker is always hit where it hurts: with a job in hand.
#include "support/scratch.hpp"

#include <mailroom/journal.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <csignal>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

struct job {
    int id = 0;
};
using job_queue = mailroom::queue<job, mailroom::journal>;

constexpr int jobs = 200;
constexpr int bomb = 60;                               // whoever has this one in hand is killed
constexpr std::array plan{25, 12, 0, 0, 0, 31, 8, 47}; // so many jobs each worker is given before it is killed; 0: only the bomb kills it
constexpr int confirm_every = 10;
const mailroom::queue_options<job> rules{.retry = {.max_attempts = 3, .initial = 0ms}};

/// What a worker says to its parent.
struct report {
    enum kind : std::int32_t { in_hand, confirmed, over } what = in_hand;
    std::int32_t id = 0;
    std::uint32_t attempt = 0;
};

// ------------------------------------------------------------------------------------------------------------------------------- worker

int work(const char* directory, int parent) {
    const auto say = [parent](const report& r) { return ::write(parent, &r, sizeof r) == ssize_t(sizeof r); };
    mailroom::journal disk(directory);
    job_queue queue(disk, "jobs", rules);
    for (int done = 1; auto d = queue.try_receive(); ++done) {
        char nod = 0;
        if (!say({report::in_hand, d->body().id, d->attempt()}) || ::read(parent, &nod, 1) != 1) { return 1; }
        // Here the job would be done. ack() is on disk with the next commit, whoever makes it; a receipt tells when.
        if (done % confirm_every != 0) {
            d->ack();
        } else {
            d->ack_async().wait(); // and all before it
            if (!say({report::confirmed})) { return 1; }
        }
    }
    return say({report::over}) ? 0 : 1;
}

// ------------------------------------------------------------------------------------------------------------------------------- parent

struct child {
    pid_t pid = -1;
    int line = -1;
};

child start_worker(const char* program, const std::string& directory) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) { throw std::system_error(errno, std::generic_category(), "socketpair"); }
    const std::string number = std::to_string(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) { throw std::system_error(errno, std::generic_category(), "fork"); }
    if (pid == 0) { // nothing but exec: the parent's state is not the child's
        ::close(ends[0]);
        ::execlp(program, program, "--worker", directory.c_str(), number.c_str(), static_cast<char*>(nullptr));
        ::_exit(127);
    }
    ::close(ends[1]);
    return {pid, ends[0]};
}

/// Reads one report; false: the worker is gone.
bool hear(const child& c, report& r) {
    for (std::size_t got = 0; got < sizeof r;) {
        const ssize_t n = ::read(c.line, reinterpret_cast<char*>(&r) + got, sizeof r - got);
        if (n < 0 && errno == EINTR) { continue; }
        if (n <= 0) { return false; }
        got += static_cast<std::size_t>(n);
    }
    return true;
}

/// What all workers together have done, as the parent saw it.
struct ledger {
    std::map<int, int> handed_out, done; // how often
    std::set<int> confirmed;
    int confirmed_and_again = 0;
};

/// The life of one worker, which is given `quota` jobs, if it is not 0. Returns whether it ended by itself.
bool one_life(int number, const child& worker, int quota, ledger& books) {
    std::vector<int> unconfirmed;
    std::string again;
    int hands = 0;
    bool killed = false;
    report r;
    while (hear(worker, r)) {
        if (r.what == report::over) { break; }
        if (r.what == report::confirmed) {
            books.confirmed.insert(unconfirmed.begin(), unconfirmed.end());
            unconfirmed.clear();
            continue;
        }
        ++hands;
        books.confirmed_and_again += books.confirmed.contains(r.id) ? 1 : 0;
        if (books.handed_out[r.id]++ != 0) { again += " " + std::to_string(r.id) + " (" + std::to_string(r.attempt) + ")"; }
        if (r.id == bomb || hands == quota) {
            killed = ::kill(worker.pid, SIGKILL) == 0;
            break;
        }
        ++books.done[r.id];
        unconfirmed.push_back(r.id);
        if (::write(worker.line, "!", 1) != 1) { break; }
    }
    int status = 0;
    while (::waitpid(worker.pid, &status, 0) < 0 && errno == EINTR) {}
    ::close(worker.line);
    if (!killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) { throw std::runtime_error("a worker has failed by itself"); }
    if (!killed) { books.confirmed.insert(unconfirmed.begin(), unconfirmed.end()); } // closed, so on disk

    const std::string end = "killed with job " + std::to_string(r.id) + " in hand, " + std::to_string(unconfirmed.size()) + " not confirmed";
    std::printf("worker %d: %3d jobs in hand, %s\n", number, hands, killed ? end.c_str() : "none left");
    if (!again.empty()) { std::printf("          again (attempt):%s\n", again.c_str()); }
    return !killed;
}

int run(const char* program, const std::filesystem::path& directory) {
    { // a journal is open in one process at a time: closed before the first worker comes
        mailroom::journal disk(directory);
        job_queue queue(disk, "jobs", rules);
        std::vector<job> all;
        for (int id = 1; id <= jobs; ++id) { all.push_back({id}); }
        queue.send_many(all); // one commit
    }

    ledger books;
    int killed = 0;
    for (;; ++killed) {
        const int quota = std::size_t(killed) < plan.size() ? plan[std::size_t(killed)] : 0;
        if (one_life(killed + 1, start_worker(program, directory.string()), quota, books)) { break; }
        if (killed == 50) { throw std::runtime_error("this does not end"); }
    }

    mailroom::journal disk(directory);
    job_queue queue(disk, "jobs", rules);
    const mailroom::stats s = queue.statistics();
    int twice = 0, lost = 0, dead = 0;
    for (const auto& [id, times] : books.done) { twice += times > 1 ? 1 : 0; }
    if (const auto letter = queue.dead().try_receive()) { // put back by the destructor
        std::printf("dead letter: job %d after %u attempts: %s\n", letter->body().id, letter->attempts(), letter->reason().c_str());
        dead = letter->body().id == bomb ? 1 : 0;
    }
    for (int id = 1; id <= jobs; ++id) { lost += books.done.contains(id) || (id == bomb && dead == 1) ? 0 : 1; }
    std::printf("%d jobs were done more than once: without a confirmation nobody knew that they had been\n", twice);

    std::printf("jobs: %d sent, %zu done, %zu dead, %d lost, %zu left; %d workers killed; confirmed and yet again: %d\n", jobs, books.done.size(),
                s.dead, lost, s.ready + s.in_flight + s.parked, killed, books.confirmed_and_again);
    const bool adds_up = books.done.size() + s.dead == jobs && s.dead == 1 && dead == 1 && lost == 0 && s.ready + s.in_flight + s.parked == 0 &&
                         killed >= int(plan.size()) && books.confirmed_and_again == 0;
    std::printf("it adds up: %s\n", adds_up ? "yes" : "NO");
    return adds_up ? 0 : 1;
}

int main(int argc, char** argv) {
    try {
        if (argc == 4 && std::strcmp(argv[1], "--worker") == 0) { return work(argv[2], std::atoi(argv[3])); }
        const scratch::directory home(argc, argv);
        return run(argv[0], home.path() / "jobs");
    } catch (const std::exception& e) {
        std::fprintf(stderr, "killed_and_restarted: %s\n", e.what());
        return 1;
    }
}
