#!/bin/sh
# Builds the examples and runs the main one, on live data of this machine; then those of the journal, which check their sums, in directories that
# go afterwards. On a fresh Debian 12 it installs what it needs; elsewhere it says what is missing. Arguments go to the main program;
# `examples/run.sh 03_retry ...` runs another example alone, `examples/run.sh journal` those of the journal. An example with PostgreSQL is run
# beside a server of its own, unless it is told of one.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

program=machine_watch with_journal=yes
if [ $# -gt 0 ] && [ -f "$root/examples/$1.cpp" ]; then
    program=$1 with_journal=
    shift
elif [ "${1:-}" = journal ]; then
    program=
fi

setup compiler cmake ninja moodycamel boost xxhash sqlite
beside=
case $program in
    *_postgresql)
        setup postgresql
        [ $# -gt 0 ] || [ -n "${MAILROOM_POSTGRESQL:-}" ] || beside="$root/examples/support/with_postgresql.sh"
        ;;
esac

say "-- building the examples in $build/release with $CXX"
configure release -DMAILROOM_BUILD_TESTS=OFF -DMAILROOM_BUILD_BENCHMARKS=OFF -DMAILROOM_WERROR=OFF
cmake --build "$build/release" --parallel "$jobs" >&2
[ -n "$with_journal" ] || exec ${beside:+"$beside"} "$build/release/examples/$program" "$@"
[ -z "$program" ] || "$build/release/examples/$program" "$@"
exec sh "$root/examples/support/journal_tour.sh" "$build/release/examples"
