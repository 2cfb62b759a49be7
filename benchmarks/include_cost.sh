#!/bin/bash
# What does including <mailroom/queue.hpp> cost the compiler, next to the standard headers it includes?
#
#   benchmarks/include_cost.sh [--quick] [--json FILE]        CXX=g++
#
# Lines after the preprocessor (-E -P); processor time (user + system) of compiling a file that includes it, and nothing else, next to one
# that includes the standard headers; the hello program with -O2: processor time and the compiler's largest resident memory.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cxx=${CXX:-g++}
rounds=9 json=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) rounds=2 ;;
        --json) json=$2; shift ;;
        *) echo "include_cost.sh: unknown argument $1" >&2; exit 1 ;;
    esac
    shift
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile=("$cxx" -std=c++20 -I"$root/include")

cat >"$work/queue.cpp" <<'CPP'
#include <mailroom/queue.hpp>
CPP
cat >"$work/hello.cpp" <<'CPP'
#include <mailroom/queue.hpp>
#include <cstdio>
#include <string>
int main() {
    mailroom::queue<std::string> inbox;
    inbox.send("hello");
    auto d = inbox.receive();
    std::printf("%s\n", d->body().c_str());
    d->ack();
}
CPP
# The standard headers that our own, reached from queue.hpp, name.
"${compile[@]}" -MM "$work/queue.cpp" | tr ' \\' '\n\n' | grep '/mailroom/' |
    xargs sed -n 's/^ *# *include *<\([a-z_]*\)>.*/#include <\1>/p' | sort -u >"$work/std.cpp"

lines() { "${compile[@]}" -E -P "$1" | wc -l; }
queue_lines=$(lines "$work/queue.cpp")
std_lines=$(lines "$work/std.cpp")

# A program that says what another one took: seconds of processor time, MiB at the most.
cat >"$work/took.cpp" <<'CPP'
#include <cstdio>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int, char** argv) {
    const pid_t child = fork();
    if (child == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    int status = 0;
    rusage use{};
    wait4(child, &status, 0, &use);
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
    std::printf("%.3f %.1f\n", seconds(use.ru_utime) + seconds(use.ru_stime), static_cast<double>(use.ru_maxrss) / 1024);
    return status != 0;
}
CPP
"$cxx" -std=c++20 -O1 "$work/took.cpp" -o "$work/took"

queue_s= std_s= hello_s= hello_mb=
add() { printf '%s%s%s' "$1" "${1:+, }" "$2"; }
for ((round = 0; round <= rounds; ++round)); do # the first does not count
    read -r q _ < <("$work/took" "${compile[@]}" -O2 -c "$work/queue.cpp" -o "$work/queue.o")
    read -r s _ < <("$work/took" "${compile[@]}" -O2 -c "$work/std.cpp" -o "$work/std.o")
    read -r h m < <("$work/took" "${compile[@]}" -O2 "$work/hello.cpp" -o "$work/hello" -pthread)
    [ "$round" -gt 0 ] || continue
    queue_s=$(add "$queue_s" "$q") std_s=$(add "$std_s" "$s") hello_s=$(add "$hello_s" "$h") hello_mb=$(add "$hello_mb" "$m")
done
[ "$("$work/hello")" = hello ] || { echo "include_cost.sh: the hello program does not say hello" >&2; exit 1; }

middle() { tr -d ' ' <<<"$1" | tr ',' '\n' | sort -n | awk '{ a[NR] = $1 } END { printf "%s [%s - %s]", a[int((NR + 1) / 2)], a[1], a[NR] }'; }
version=$("$cxx" --version | head -n 1)
echo "include_cost.sh, $version, $rounds rounds"
echo "  <mailroom/queue.hpp>             $queue_lines lines, $(middle "$queue_s") s"
echo "  the standard headers it needs    $std_lines lines, $(middle "$std_s") s    ($(wc -l <"$work/std.cpp") headers)"
echo "  the hello program, -O2           $(middle "$hello_s") s, $(middle "$hello_mb") MiB"
[ -n "$json" ] || exit 0
table() { printf '  {"name": "%s", "title": "%s", "unit": "%s", "baseline": "%s", "more_is_better": false, "canary": [], "rows": [\n    ' "$@"; }
row() { printf '{"name": "%s", "figures": [%s]}' "$1" "$2"; }
{
    printf '{"program": "include_cost", "command": "include_cost.sh", "machine": "%s", "load": 0, "tables": [\n' "$version"
    table include_lines "preprocessed lines" lines "the standard headers it includes"
    row "<mailroom/queue.hpp>" "$queue_lines"; printf ',\n    '; row "the standard headers it includes" "$std_lines"; printf ']},\n'
    table include_time "compiling a file that only includes, -O2" s "the standard headers it includes"
    row "<mailroom/queue.hpp>" "$queue_s"; printf ',\n    '; row "the standard headers it includes" "$std_s"; printf ']},\n'
    table hello_time "the hello program, -O2" s ""
    row "hello" "$hello_s"; printf ']},\n'
    table hello_memory "the hello program, -O2: memory of the compiler" MiB ""
    row "hello" "$hello_mb"; printf ']}\n]}\n'
} >"$json"
