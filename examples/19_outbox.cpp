// An order is in a table of SQLite if and only if its message is in the queue, and it is paid for once, although the process that does all this is
// killed at the worst moments: after the commit and before the message was moved; while it pays; and when it has paid and nobody knows it yet.
#include "support/scratch.hpp"

#include <mailroom/journal.hpp>
#include <mailroom/sqlite.hpp>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

struct order {
    int id = 0, cents = 0;
};
enum class end { after_commit, while_paying, when_paid, none };

void run(sqlite3* db, const std::string& sql) {
    if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) { throw std::runtime_error(sql + ": " + sqlite3_errmsg(db)); }
}
int number(sqlite3* db, const char* sql) {
    sqlite3_stmt* s = nullptr;
    sqlite3_prepare_v2(db, sql, -1, &s, nullptr);
    const int n = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int(s, 0) : -1;
    sqlite3_finalize(s);
    return n;
}

// Takes four orders, from `first` on, unless it is 0; moves and pays what there is.
void live(const std::filesystem::path& home, int first, end how) {
    const auto dies_if = [how](end here) { how == here ? ::raise(SIGKILL) : 0; };
    sqlite3* db = nullptr;
    if (sqlite3_open((home / "shop.db").c_str(), &db) != SQLITE_OK) { throw std::runtime_error("the database does not open"); }
    run(db, "CREATE TABLE IF NOT EXISTS orders(id INTEGER, cents INTEGER); CREATE TABLE IF NOT EXISTS payments(id INTEGER, cents INTEGER)");
    {
        mailroom::journal disk(home / "journal");
        mailroom::queue<order, mailroom::journal> orders(disk, "orders");
        mailroom::outbox box(db, "orders");
        mailroom::inbox paid(db, "payments");

        for (int id = first; id != 0 && id < first + 4; ++id) {
            run(db, "BEGIN");
            run(db, "INSERT INTO orders VALUES(" + std::to_string(id) + ", " + std::to_string(100 * id) + ")");
            box.send(order{id, 100 * id});
            run(db, id % 4 == 0 ? "ROLLBACK" : "COMMIT"); // every fourth thinks better of it
        }
        dies_if(end::after_commit);
        box.relay(orders); // what was committed and not moved yet, by whichever process
        while (auto d = orders.try_receive()) {
            paid.once(*d, [&](const order& o) {
                run(db, "INSERT INTO payments VALUES(" + std::to_string(o.id) + ", " + std::to_string(o.cents) + ")");
                dies_if(end::while_paying);
            });
            dies_if(end::when_paid); // acknowledged, but not yet on disk
        }
        std::printf("%d orders, %d paid, %zu on their way\n", number(db, "SELECT count(*) FROM orders"), number(db, "SELECT count(*) FROM payments"),
                    box.size() + orders.statistics().ready);
    }
    const int differ = number(db, "SELECT abs((SELECT sum(cents) FROM orders) - (SELECT sum(cents) FROM payments)) + "
                                  "(SELECT count(*) FROM orders WHERE id NOT IN (SELECT id FROM payments))");
    sqlite3_close(db);
    if (differ != 0) { throw std::runtime_error("orders and payments differ"); }
}

int main(int argc, char** argv) {
    try {
        const scratch::directory home(argc, argv);
        int first = 1, killed = 0;
        for (const end how : {end::after_commit, end::while_paying, end::when_paid}) {
            const pid_t child = ::fork();
            if (child == 0) { live(home.path(), first, how); }
            int status = 0;
            ::waitpid(child, &status, 0);
            killed += WIFSIGNALED(status) ? 1 : 0;
            first += 4;
        }
        live(home.path(), 0, end::none);
        std::printf("%d processes were killed, each order is paid once\n", killed);
        return killed == 3 ? 0 : 1;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "outbox: %s\n", e.what());
        return 1;
    }
}
