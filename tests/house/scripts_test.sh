#!/bin/sh
# scripts_test.sh <compiler>: the checks that are scripts find what they are there to find.
set -u
compiler=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

must() { # must <pass|fail> <what> <command...>
    wanted=$1 what=$2
    shift 2
    if "$@" >"$work/output" 2>&1; then got=pass; else got=fail; fi
    if [ "$got" = "$wanted" ]; then
        echo "ok: $what"
    else
        echo "NOT OK: $what: expected to $wanted"
        cat "$work/output"
        failures=$((failures + 1))
    fi
}

cat >"$work/case.cpp" <<'CASE'
// expect: static assertion failed.*keeps nothing
// expect: static assertion failed.*keeps nothing
template <class T> struct box { static_assert(sizeof(T) == 1, "a box keeps nothing that large"); };
int main() {
#if MAILROOM_FAULT == 1
    box<int> b;
#elif MAILROOM_FAULT == 2
    int undeclared = missing;
#else
    box<char> b;
#endif
    (void)b;
}
CASE
must pass "a good case compiles" sh "$here/compile_fail.sh" "$compiler" "$work/case.cpp" 0
must pass "a fault with the right first error passes" sh "$here/compile_fail.sh" "$compiler" "$work/case.cpp" 1
must fail "a fault with another first error fails" sh "$here/compile_fail.sh" "$compiler" "$work/case.cpp" 2
must fail "a fault without an expectation fails" sh "$here/compile_fail.sh" "$compiler" "$work/case.cpp" 3
printf '// expect: error\nint main() {}\n' >"$work/healthy.cpp"
must fail "a fault that compiles fails" sh "$here/compile_fail.sh" "$compiler" "$work/healthy.cpp" 1
printf 'int main() { return missing; }\n' >"$work/rotten.cpp"
must fail "a case that has rotted fails" sh "$here/compile_fail.sh" "$compiler" "$work/rotten.cpp" 0

mkdir "$work/x" "$work/x/boost"
printf '#include <vector>\n' >"$work/x/light.hpp"
printf '#include <x/middle.hpp>\n' >"$work/x/heavy.hpp"
printf '#include <regex>\n' >"$work/x/middle.hpp"
printf '#include <x/boost/some.hpp>\n' >"$work/x/foreign.hpp"
printf 'int some();\n' >"$work/x/boost/some.hpp"
must pass "a light header is inside the budget" sh "$here/include_budget.sh" "$compiler" x/light.hpp 80000 -std=c++20 "-I$work"
must fail "a long header is over the budget" sh "$here/include_budget.sh" "$compiler" x/light.hpp 100 -std=c++20 "-I$work"
must fail "<regex> behind another header is found" sh "$here/include_budget.sh" "$compiler" x/heavy.hpp 8000000 -std=c++20 "-I$work"
must fail "a header of Boost is found" sh "$here/include_budget.sh" "$compiler" x/foreign.hpp 8000000 -std=c++20 "-I$work"
must fail "a header that is not there fails" sh "$here/include_budget.sh" "$compiler" x/none.hpp 8000000 -std=c++20 "-I$work"

exit "$failures"
