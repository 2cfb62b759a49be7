#!/bin/sh
# journal_tour.sh <folder of programs>: the examples of the journal one after the other, each with a directory of its own, which goes at the end;
# then mailroom_journal over what they leave. Checks their sums, and that the tool finds what they say; the exit code says whether all holds.
set -u
programs=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/mailroom-tour-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
wrong=0

check() { # check <what> <got> <wanted>
    if [ "$2" = "$3" ]; then
        printf 'ok: %s\n' "$1"
    else
        printf 'NOT OK: %s: wanted "%s", got "%s"\n' "$1" "$3" "$2"
        wrong=$((wrong + 1))
    fi
}
example() { # example <name> <its last line>
    printf '\n==== %s\n' "$1"
    "$programs/$1" "$work/$1" >"$work/output"
    status=$?
    cat "$work/output"
    check "$1 ends well" "$status" 0
    check "$1 adds up" "$(tail -n 1 "$work/output")" "$2"
}
tool() { # tool <wanted exit code> <argument...>: its output in $work/output
    wanted=$1
    shift
    printf '\n==== mailroom_journal %s\n' "$*"
    (cd "$work" && "$programs/mailroom_journal" "$@") >"$work/output"
    status=$?
    cat "$work/output"
    check "mailroom_journal $1 exits with $wanted" "$status" "$wanted"
}
lines() { wc -l <"$work/output" | tr -d ' '; }

example 13_journal "3 sent, 1 read, 2 still there after reopening"
example 14_killed_and_restarted "it adds up: yes"
example 15_durable_topic "55 published, not as expected: 0"
example 16_types_that_change "not as expected: 0"
[ ! -x "$programs/19_outbox" ] || example 19_outbox "3 processes were killed, each order is paid once" # where SQLite is

jobs=14_killed_and_restarted/jobs news=15_durable_topic/news
tool 0 ls $jobs
tool 0 verify $jobs
check "the last word of verify" "$(tail -n 1 "$work/output")" intact
tool 0 export $jobs jobs
check "one job is left" "$(lines)" 1
check "it is the dead letter" "$(grep -c '"offset":59,.*"state":"dead","attempts":3,"reason":' "$work/output")" 1
tool 0 ls $news
tool 0 tail $news news -n 1
check "the last headline is number 55" "$(grep -c 'offset 54' "$work/output")" 1
"$programs/mailroom_journal" export "$work/$news" news >"$work/output"
check "all 55 headlines are stored" "$(lines)" 55
tool 0 compact $news
tool 0 verify $news
tool 1 ls 13_journal # the journal is one level below
tool 64 show $news

if [ "$wrong" = 0 ]; then
    printf '\nthe journal: everything adds up\n'
else
    printf '\nthe journal: %s NOT OK\n' "$wrong"
    exit 1
fi
