#!/bin/sh
# Builds the examples and runs the main one, on live data of this machine. On a fresh Debian 12 it installs what it
# needs; elsewhere it says what is missing. Arguments go to the program; `examples/run.sh 03_retry ...` runs another example.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

program=machine_watch
if [ $# -gt 0 ] && [ -f "$root/examples/$1.cpp" ]; then
    program=$1
    shift
fi

setup compiler cmake ninja moodycamel boost xxhash

say "-- building the examples in $build/release with $CXX"
configure release -DMAILROOM_BUILD_TESTS=OFF -DMAILROOM_BUILD_BENCHMARKS=OFF -DMAILROOM_WERROR=OFF
cmake --build "$build/release" --parallel "$jobs" >&2
exec "$build/release/examples/$program" "$@"
