// A payment is taken off an account in a PostgreSQL table, and its request becomes a receipt in a journal: both or neither, though neither side
// knows of the other. Two-phase commit: both prepare, a promise that survives a crash; then who coordinates writes down what is decided, and
// tells both. Who dies in between is followed by one who looks at what is in doubt: what is decided is committed, the rest is rolled back.
//
//     examples/support/with_postgresql.sh <this program>     beside a server of its own; or give it a connection string: then max_prepared_transactions
//                                                            has to be above 0, and the table mailroom_accounts is made anew
#include "support/scratch.hpp"
#include "support/sql_session.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/transaction.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>
#include <string>
#include <utility>

using namespace std::chrono_literals;

struct payment {
    int id = 0;
    int cents = 0;
};
template <class T>
using kept = mailroom::queue<T, mailroom::journal>;
template <class T>
const mailroom::queue_options<T> patient{.retry = {.max_attempts = 0, .initial = 0ms}}; // no message dies because coordinators do

enum class dies { never, before_the_decision, after_the_decision };

class coordinator {
public:
    coordinator(const std::filesystem::path& directory, const char* server) : disk_(directory), database_(server) {
        // If one died before us, the server may still be at what it asked for last: we wait for the lock, which ends with its session.
        database_.run("SELECT pg_advisory_lock(18)");
        std::map<std::string, mailroom::delivery<std::string>> decided;
        while (auto d = decisions_.try_receive()) { decided.emplace(d->body(), std::move(*d)); }
        for (const std::string& xid : disk_.in_doubt()) {
            const bool yes = decided.contains(xid);
            std::printf("  in doubt in the journal: %s, %s\n", xid.c_str(), yes ? "committed" : "rolled back");
            yes ? disk_.commit(xid) : disk_.rollback(xid);
        }
        for (const std::string& xid :
             database_.column("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'payment-%'")) {
            const bool yes = decided.contains(xid);
            std::printf("  in doubt in the database: %s, %s\n", xid.c_str(), yes ? "committed" : "rolled back");
            database_.run((yes ? "COMMIT PREPARED '" : "ROLLBACK PREPARED '") + xid + "'");
        }
        for (auto& [xid, d] : decided) { d.ack(); } // last: only now may it be forgotten
    }

    void pay(dies when) {
        auto request = requests_.receive();
        const payment p = request->body();
        const std::string xid = "payment-" + std::to_string(p.id);
        database_.run("BEGIN");
        database_.run("UPDATE mailroom_accounts SET cents = cents - " + std::to_string(p.cents));
        database_.run("PREPARE TRANSACTION '" + xid + "'");
        mailroom::transaction tx(disk_);
        tx.ack(*request);
        tx.send(receipts_, p);
        tx.prepare(xid);
        if (when == dies::before_the_decision) { return; }
        decisions_.send(xid); // this is the moment: on disk when it returns
        if (when == dies::after_the_decision) { return; }
        disk_.commit(xid);
        database_.run("COMMIT PREPARED '" + xid + "'");
        decisions_.receive()->ack();
    }

    void ask(payment p) { requests_.send(p); }
    /// Whether what is left and what was paid make what there was.
    bool adds_up(std::size_t to_do) {
        long paid = 0;
        receipts_.browse([&](const auto& receipt, auto) { return paid += receipt.body().cents, true; });
        const long left = database_.number("SELECT cents FROM mailroom_accounts");
        std::printf("  %ld left, receipts for %ld, %zu to do\n", left, paid, requests_.statistics().ready);
        return left + paid == 1000 && requests_.statistics().ready == to_do;
    }

private:
    mailroom::journal disk_;
    kept<payment> requests_{disk_, "requests", patient<payment>}, receipts_{disk_, "receipts"};
    kept<std::string> decisions_{disk_, "decisions", patient<std::string>};
    sql::session database_;
};

int main(int argc, char** argv) {
    try {
        const char* const server = argc > 1 ? argv[1] : std::getenv("MAILROOM_POSTGRESQL");
        sql::session(server).run("DROP TABLE IF EXISTS mailroom_accounts; CREATE TABLE mailroom_accounts (cents int);"
                                 "INSERT INTO mailroom_accounts VALUES (1000)");
        const scratch::directory home(1, argv);
        const auto journal = home.path() / "journal";
        const auto payments = {payment{1, 300}, payment{2, 50}, payment{3, 25}};
        for (const payment& p : payments) { coordinator(journal, server).ask(p); }
        bool good = true;
        const auto next = [&](dies when, const char* what, std::size_t to_do) {
            std::printf("the next payment%s\n", what);
            coordinator(journal, server).pay(when); // who goes then as a killed one would: nothing is decided by going
            good = coordinator(journal, server).adds_up(to_do) && good;
        };
        next(dies::never, "", 2);
        next(dies::before_the_decision, ", and the coordinator dies when both have prepared", 2);
        next(dies::after_the_decision, " again, and the coordinator dies when it has decided", 1);
        next(dies::never, "", 0);
        std::printf("it adds up: %s\n", good ? "yes" : "NO");
        return good ? 0 : 1;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "two_phase_postgresql: %s\n", e.what());
        return 1;
    }
}
