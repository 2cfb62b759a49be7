#!/bin/sh
# include_budget.sh <compiler> <header> <lines> [flag...]
# The header, preprocessed, must have fewer lines than allowed and must not reach what is forbidden below.
set -u
compiler=$1 header=$2 allowed=$3
shift 3
forbidden='(/filesystem|/iostream|/regex|/future|/sstream|/boost/[^ ]*|concurrentqueue\.h|xxhash\.h|sqlite3\.h)$'

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
printf '#include <%s>\n' "$header" >"$work/header.cpp"
# What the standard library drags in behind these whatever we do (libstdc++ 13 has <sstream> in <chrono>) is not ours.
printf '#include <chrono>\n#include <memory>\n#include <string>\n#include <system_error>\n' >"$work/baseline.cpp"

files() { "$compiler" "$@" -M | tr -s ' \\' '\n\n' | grep -E "$forbidden" | sort -u; }
files "$@" "$work/baseline.cpp" >"$work/baseline"
files "$@" "$work/header.cpp" >"$work/reached"

lines=$("$compiler" "$@" -E -P "$work/header.cpp" >"$work/text" && wc -l <"$work/text") || exit 1
echo "<$header>: $lines preprocessed lines of $allowed"
status=0
if [ "$lines" -ge "$allowed" ]; then
    echo "over the budget"
    status=1
fi
extra=$(comm -13 "$work/baseline" "$work/reached")
if [ -n "$extra" ]; then
    echo "<$header> reaches what it must not:"
    echo "$extra"
    status=1
fi
exit $status
