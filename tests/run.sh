#!/bin/sh
# Builds and runs the tests. On a fresh Debian 12 it installs what it needs; elsewhere it says what is missing.
# Arguments go to ctest: tests/run.sh -R queue        MAILROOM_BUILD_DIR names another folder than build/,
# MAILROOM_DEBUG the flags for the debugger instead of -g
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

pkg_config=
if is_debian_12; then pkg_config=pkg_config; fi  # elsewhere the test that needs it is skipped without it
setup compiler cmake ninja doctest moodycamel boost xxhash sqlite $pkg_config
setup_optional postgresql

say "-- building the tests in $build/dev with $CXX"
configure dev -DMAILROOM_BUILD_EXAMPLES=OFF -DMAILROOM_BUILD_BENCHMARKS=OFF "-DMAILROOM_WERROR=${MAILROOM_WERROR:-OFF}" "-DCMAKE_CXX_FLAGS_DEBUG=${MAILROOM_DEBUG:--g}"
cmake --build "$build/dev" --parallel "$jobs"
cd "$build/dev"
exec ctest --output-on-failure --no-label-summary --parallel "$jobs" "$@"
