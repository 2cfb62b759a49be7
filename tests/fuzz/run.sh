#!/bin/sh
# run.sh <program> <seconds> <work folder> <corpus> [argument...]
# Runs a program of libFuzzer on the inputs it writes to begin with and on those of the corpus, if there is one; then it looks for new ones for
# so many seconds (0: it does not), the same way each time, another way with another MAILROOM_FUZZ_SEED. What breaks it stays in the work folder:
# the program, called with that file, does it again.
set -eu
program=$1 seconds=$2 work=$3 corpus=$4
shift 4
rm -rf "$work/seeds" "$work/found"
mkdir -p "$work/seeds" "$work/found"
MAILROOM_FUZZ_SEEDS=$work/seeds "$program" || { echo "$program cannot write the inputs to begin with"; exit 1; }
[ -n "$(ls "$work/seeds")" ] || { echo "$program wrote no inputs to begin with into MAILROOM_FUZZ_SEEDS"; exit 1; }
[ -d "$corpus" ] || corpus=$work/seeds
limit=-max_total_time=$seconds
[ "$seconds" -ne 0 ] || limit=-runs=0
exec "$program" "-seed=${MAILROOM_FUZZ_SEED:-1}" "$limit" -timeout=20 -rss_limit_mb=1500 -print_final_stats=1 "$@" "-artifact_prefix=$work/" \
    "$work/found" "$work/seeds" "$corpus"
