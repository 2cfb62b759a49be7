// A session with the PostgreSQL server that the test's script has started: text in, text out, and an exception for what goes wrong.
#pragma once

#include <libpq-fe.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace support {

/// What the server refused; `state` is its SQLSTATE.
struct sql_error : std::runtime_error {
    sql_error(const std::string& text, std::string code) : std::runtime_error(text), state(std::move(code)) {}
    std::string state;
};

class sql_session {
public:
    /// With the server that MAILROOM_POSTGRESQL names.
    sql_session() : connection_(::PQconnectdb(where())) {
        if (::PQstatus(connection_.get()) != CONNECTION_OK) { throw sql_error(::PQerrorMessage(connection_.get()), ""); }
        ::PQsetNoticeProcessor(
            connection_.get(), [](void*, const char*) {}, nullptr);
    }

    /// The first column of what it answers.
    std::vector<std::string> column(const std::string& sql) {
        const std::unique_ptr<PGresult, void (*)(PGresult*)> r(::PQexec(connection_.get(), sql.c_str()), [](PGresult* p) { ::PQclear(p); });
        const ExecStatusType status = ::PQresultStatus(r.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
            const char* const state = ::PQresultErrorField(r.get(), PG_DIAG_SQLSTATE);
            throw sql_error(sql + ": " + ::PQerrorMessage(connection_.get()), state != nullptr ? state : "");
        }
        std::vector<std::string> all;
        for (int i = 0, n = ::PQntuples(r.get()); i < n; ++i) { all.emplace_back(::PQgetvalue(r.get(), i, 0)); }
        return all;
    }
    void run(const std::string& sql) { column(sql); }
    long number(const std::string& sql) { return std::stol(column(sql).at(0)); }

private:
    static const char* where() {
        const char* const text = std::getenv("MAILROOM_POSTGRESQL");
        if (text == nullptr) { throw std::runtime_error("MAILROOM_POSTGRESQL is not set: start this by examples/support/with_postgresql.sh"); }
        return text;
    }
    struct finish {
        void operator()(PGconn* c) const noexcept { ::PQfinish(c); }
    };
    std::unique_ptr<PGconn, finish> connection_;
};

} // namespace support
