#!/bin/sh
# with_postgresql.sh <command...>: runs the command beside a PostgreSQL server of its own, whose connection string is in MAILROOM_POSTGRESQL, and
# exits with its exit code. The server's data and its socket are in a temporary directory that goes with it; it listens to nothing else, has
# prepared transactions, and does not sync: only its clients are killed here. 77: there is no server to start on this machine; with --find
# instead of a command that is all it says.
set -u

find_bin() { # the folder of initdb and postgres
    for bin in "$(dirname "$(command -v initdb 2>/dev/null || echo /none/initdb)")" "$(pg_config --bindir 2>/dev/null || echo /none)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin; do
        [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && return 0
    done
    return 1
}
if [ "${1:-}" = --find ]; then
    find_bin
    exit
fi
find_bin || { echo "skipped: there is no PostgreSQL server on this machine"; exit 77; }

# A server refuses to be root. Where we are, it is somebody else, who has to reach the directory.
run_as=
place=${TMPDIR:-/tmp}
if [ "$(id -u)" -eq 0 ]; then
    place=/tmp
    user=nobody
    id postgres >/dev/null 2>&1 && user=postgres
    command -v setpriv >/dev/null || { echo "skipped: a PostgreSQL server cannot be run by root, and there is no setpriv to be another"; exit 77; }
    run_as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi
[ ${#place} -le 60 ] || place=/tmp # the name of a socket is short

server=
work=$(mktemp -d "$place/mailroom-pg-XXXXXX") || exit 1
# shellcheck disable=SC2317  # called by the traps
finish() {
    trap '' INT TERM HUP
    if [ -n "$server" ]; then
        kill -INT "$server" 2>/dev/null # nobody is waited for
        wait "$server" 2>/dev/null
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP
[ -z "$run_as" ] || chown "$user" "$work" || exit 1
cd "$work" || exit 1

# If this script is killed the server ends with it, where the system can do that.
with_us=
if setpriv --pdeathsig INT true 2>/dev/null; then with_us="setpriv --pdeathsig INT"; fi
[ -z "$run_as" ] || [ -z "$with_us" ] || { run_as="$run_as --pdeathsig INT" with_us=; }

# shellcheck disable=SC2086  # several words
$run_as "$bin/initdb" -D "$work/data" -U mailroom -A trust -E UTF8 --locale=C --no-sync --no-instructions >"$work/initdb.log" 2>&1 ||
    { cat "$work/initdb.log"; echo "skipped: initdb cannot do its work here"; exit 77; }
# shellcheck disable=SC2086
$run_as $with_us "$bin/postgres" -D "$work/data" -k "$work" -c listen_addresses= -c fsync=off -c jit=off -c autovacuum=off -c shared_buffers=16MB \
    -c max_connections=20 -c max_prepared_transactions=20 >"$work/server.log" 2>&1 &
server=$!
until grep -q '^ready' "$work/data/postmaster.pid" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || { cat "$work/server.log"; echo "skipped: a PostgreSQL server does not start here"; server=; exit 77; }
    sleep 0.1
done

cd / || exit 1
MAILROOM_POSTGRESQL="host=$work user=mailroom dbname=postgres" "$@" &
command=$!
trap 'kill "$command" 2>/dev/null; exit 130' INT TERM HUP
wait "$command"
status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 77 ] || { echo "---- the last words of the server"; tail -n 20 "$work/server.log"; }
exit "$status"
