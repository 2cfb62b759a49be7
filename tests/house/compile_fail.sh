#!/bin/sh
# compile_fail.sh <compiler> <source> <fault> [flag...]
# Fault 0: the source must compile. Fault n: with -DMAILROOM_FAULT=n it must not, and the first line of the compiler's
# answer that contains "error:" must match the n-th line "// expect: <extended regular expression>" of the source.
set -u
compiler=$1 source=$2 fault=$3
shift 3

if [ "$fault" -eq 0 ]; then
    exec "$compiler" "$@" -fsyntax-only "$source"
fi

expected=$(sed -n 's|^// expect: ||p' "$source" | sed -n "${fault}p")
if [ -z "$expected" ]; then
    echo "$source: has no expectation for fault $fault"
    exit 1
fi
if answer=$(LC_ALL=C "$compiler" "$@" "-DMAILROOM_FAULT=$fault" -fsyntax-only "$source" 2>&1); then
    echo "$source: fault $fault compiles, but must not"
    exit 1
fi
first=$(printf '%s\n' "$answer" | grep -m 1 'error:')
if printf '%s\n' "$first" | grep -qE -- "$expected"; then
    printf 'as expected: %s\n' "$first"
else
    printf '%s: fault %s\nexpected in the first error: %s\nthe first error is:          %s\n\n%s\n' \
        "$source" "$fault" "$expected" "$first" "$answer"
    exit 1
fi
