// A session with a PostgreSQL server: text in, text out, and an exception for what goes wrong. For the examples, and for tests/postgresql.
#pragma once

#include <libpq-fe.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace sql {

/// What the server refused; `state` is its SQLSTATE.
struct error : std::runtime_error {
    error(const std::string& text, std::string code) : std::runtime_error(text), state(std::move(code)) {}
    std::string state;
};

class session {
public:
    /// With the server of a connection string, or the one that MAILROOM_POSTGRESQL names.
    explicit session(const char* where = std::getenv("MAILROOM_POSTGRESQL")) {
        if (where == nullptr) {
            throw std::runtime_error("MAILROOM_POSTGRESQL does not name a server; examples/support/with_postgresql.sh starts one");
        }
        connection_.reset(::PQconnectdb(where));
        if (::PQstatus(connection_.get()) != CONNECTION_OK) { throw error(::PQerrorMessage(connection_.get()), ""); }
        ::PQsetNoticeProcessor(
            connection_.get(), [](void*, const char*) {}, nullptr);
    }

    /// The first column of what it answers.
    std::vector<std::string> column(const std::string& sql) {
        const std::unique_ptr<PGresult, void (*)(PGresult*)> r(::PQexec(connection_.get(), sql.c_str()), [](PGresult* p) { ::PQclear(p); });
        const ExecStatusType status = ::PQresultStatus(r.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
            const char* const state = ::PQresultErrorField(r.get(), PG_DIAG_SQLSTATE);
            throw error(sql + ": " + ::PQerrorMessage(connection_.get()), state != nullptr ? state : "");
        }
        std::vector<std::string> all;
        for (int i = 0, n = ::PQntuples(r.get()); i < n; ++i) { all.emplace_back(::PQgetvalue(r.get(), i, 0)); }
        return all;
    }
    void run(const std::string& sql) { column(sql); }
    long number(const std::string& sql) { return std::stol(column(sql).at(0)); }

private:
    struct finish {
        void operator()(PGconn* c) const noexcept { ::PQfinish(c); }
    };
    std::unique_ptr<PGconn, finish> connection_;
};

} // namespace sql
