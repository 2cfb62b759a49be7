#!/bin/bash
# Builds the benchmarks and runs them all; writes docs/performance/ and the tables of docs/performance.md. About a quarter of an hour, on a
# machine that does nothing else.
#
#   benchmarks/run.sh [--quick] [name...]      --quick: two minutes, into build/bench/quick, to see that all works
#                                              names: only these programs (queue, topic, wakeup, request, footprint, options, transient, journal, include)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export CXX=${CXX:-g++}
. "$root/cmake/setup.sh"

quick= only=
for argument in "$@"; do
    case $argument in
        --quick) quick=--quick ;;
        -*) die "run.sh: unknown argument $argument" ;;
        *) only="$only $argument" ;;
    esac
done
wanted() { [ -z "$only" ] || case "$only " in *" $1 "*) ;; *) return 1 ;; esac; }

setup compiler cmake ninja doctest moodycamel boost xxhash pkg_config rivals journal_rivals
out=$build/bench
mkdir -p "$out"
cmake -S "$root" -B "$out" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMAILROOM_BENCH_NATIVE=ON -DMAILROOM_BUILD_TESTS=OFF -DMAILROOM_BUILD_EXAMPLES=OFF \
    -DMAILROOM_BUILD_BENCHMARKS=ON >"$out/configure.log" 2>&1 || { cat "$out/configure.log" >&2; die "CMake could not configure the benchmarks"; }
cmake --build "$out" --parallel "$jobs" >"$out/build.log" 2>&1 || { tail -n 40 "$out/build.log" >&2; die "the benchmarks do not build"; }
"$CXX" -std=c++20 -O1 -Wall -Wextra -Wpedantic -Wconversion -Wshadow "$root/benchmarks/report.cpp" -o "$out/report"

# The document and its data stay as they are when it is only a try.
doc=$root/docs/performance.md data=$root/docs/performance
if [ -n "$quick" ]; then
    mkdir -p "$out/quick"
    cp "$doc" "$out/quick/performance.md"
    doc=$out/quick/performance.md data=$out/quick
fi
mkdir -p "$data"

start=$SECONDS
for name in queue topic transient wakeup request options footprint journal; do
    program=$out/benchmarks/${name}_bench
    wanted "$name" && [ -x "$program" ] || continue
    MAILROOM_BENCH_DIRECTORY=$out "$program" $quick --json "$data/$name.json"
    printf '\n==== %s: %d s so far\n\n' "$name" $((SECONDS - start))
done
if wanted include; then "$root/benchmarks/include_cost.sh" $quick --json "$data/include.json"; fi
"$out/report" "$data" "$doc" "$data"
printf '\n==== %d s; the tables are in %s, data and plots in %s\n' $((SECONDS - start)) "$doc" "$data"
