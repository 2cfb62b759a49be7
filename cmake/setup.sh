# shellcheck shell=sh
# Sourced by tests/run.sh, examples/run.sh and .ci/run, with $root set to the top of the source tree. It offers:
#
#   setup <thing>...   makes sure that each thing is there: compiler cmake ninja doctest moodycamel boost xxhash sqlite clang
#                      libcxx pkg_config rivals journal_rivals postgresql.
#                      On Debian 12 it installs what is missing; elsewhere it says what is missing and exits.
#   setup_optional <thing>...   the same, but goes on without what is missing: what needs it is skipped.
#   $build             the folder to build below
#   $jobs              how many compilers to run at once
#   configure <preset> [argument...]   runs CMake for a preset of CMakePresets.json, into $build/<preset>
#
# It never removes, replaces or upgrades by name what is installed. A library of headers that cannot be installed beside
# what is there (libboost1.81-dev conflicts with libboost1.74-dev) is unpacked below $build/packages instead.

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- where to build ---------------------------------------------------------------------------------------------------

build=${MAILROOM_BUILD_DIR:-$root/build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
if ! { mkdir -p "$build" && [ -w "$build" ]; } 2>/dev/null; then
    build=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/mailroom-build-$(printf '%s' "$root" | cksum | cut -d ' ' -f 1)
    { mkdir -p "$build" && [ -w "$build" ]; } 2>/dev/null ||
        die "No folder to build in: neither $root/build nor $build can be written. Name one in MAILROOM_BUILD_DIR."
fi
packages=$build/packages  # what is unpacked instead of installed

# shellcheck disable=SC2034  # for those who source this
jobs=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

if [ -d "$packages/usr" ]; then
    export CMAKE_PREFIX_PATH="$packages/usr${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
fi

# ---- what is there ----------------------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }

modern='#include <coroutine>\n#include <compare>\n#if defined __clang__\n#if __clang_major__ < 16\n#error\n#endif\n#elif __GNUC__ < 12\n#error\n#endif'

# Puts into CXX the compiler to build with: the one the user names there, else the first that is new enough.
compiler() {
    [ -z "${compiler_found:-}" ] || return 0
    for candidate in "${CXX:-}" c++ g++ g++-15 g++-14 g++-13 g++-12 clang++ clang++-16 clang++-17 clang++-18 clang++-19; do
        [ -n "$candidate" ] && has "${candidate%% *}" && compiles "$candidate" "$modern" && {
            compiler_found=yes
            export CXX="$candidate"
            return 0
        }
        [ -z "${CXX:-}" ] || break
    done
    return 1
}

clang() {
    for candidate in clang++-16 clang++-17 clang++-18 clang++-19 clang++-20 clang++-21 clang++-22 clang++; do
        has "$candidate" && { printf '%s' "$candidate"; return; }
    done
    return 1
}

# compiles <compiler> <source text> [flag...]: preprocesses and checks it, prints nothing.
compiles() {
    compiles_with=$1 compiles_text=$2
    shift 2
    # shellcheck disable=SC2086  # a compiler may be several words
    printf '%b\n' "$compiles_text" | $compiles_with "$@" -std=c++20 -x c++ -fsyntax-only - >/dev/null 2>&1
}

# includes <source text>: compiles against the system's headers and the unpacked ones. Without a compiler nothing does,
# which is right: what it would find is then asked for again by package, and a package that is there is left alone.
includes() {
    compiler || return 1
    compiles "$CXX" "$1" -isystem "$packages/usr/include"
}

at_least() { # at_least <wanted> <got>, as versions
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

present() { # present <thing>
    case $1 in
        compiler) compiler ;;
        cmake) has cmake && at_least 3.23 "$(cmake --version | sed -n 's/^cmake version //p')" ;;
        ninja) has ninja ;;
        doctest) includes '#include <doctest/doctest.h>' ;;
        moodycamel)
            includes '#if !__has_include(<concurrentqueue/concurrentqueue.h>) && !__has_include(<concurrentqueue/moodycamel/concurrentqueue.h>) && !__has_include(<moodycamel/concurrentqueue.h>)\n#error\n#endif' ;;
        boost)
            includes '#include <boost/version.hpp>\n#if BOOST_VERSION < 108100\n#error\n#endif' &&
                includes '#if !__has_include(<boost/lockfree/queue.hpp>) || !__has_include(<boost/asio.hpp>)\n#error\n#endif' &&
                includes '#if !__has_include(<boost/pfr/core.hpp>) || !__has_include(<boost/json/src.hpp>)\n#error\n#endif' ;;
        xxhash) includes '#include <xxhash.h>\n#if XXH_VERSION_NUMBER < 800\n#error\n#endif' ;;
        sqlite)
            includes '#include <sqlite3.h>\n#if SQLITE_VERSION_NUMBER < 3024000\n#error\n#endif' &&
                echo 'extern "C" int sqlite3_libversion_number(); int main() { return sqlite3_libversion_number() == 0; }' |
                ${CXX} -x c++ - -o /dev/null -lsqlite3 >/dev/null 2>&1 ;;
        clang)
            present_clang=$(clang) && compiles "$present_clang" "$modern" &&
                for sanitizer in address thread; do
                    echo 'int main() {}' | "$present_clang" -fsanitize=$sanitizer -x c++ - -o /dev/null >/dev/null 2>&1 || return 1
                done ;;
        libcxx) present_clang=$(clang) && compiles "$present_clang" '#include <string>' -stdlib=libc++ ;;
        pkg_config) has pkg-config ;;
        rivals) includes '#include <oneapi/tbb/version.h>\n#include <zmq.h>' ;;
        journal_rivals) includes '#include <lmdb.h>\n#include <rocksdb/version.h>\n#include <sqlite3.h>' ;;
        postgresql)
            includes '#if !__has_include(<libpq-fe.h>) && !__has_include(<postgresql/libpq-fe.h>) && !__has_include(<pgsql/libpq-fe.h>)\n#error\n#endif' &&
                "$root/examples/support/with_postgresql.sh" --find ;;
        *) die "setup: unknown thing '$1'" ;;
    esac
}

describe() { # what to tell somebody who has to install it himself
    case $1 in
        compiler) echo "a C++20 compiler: g++ 12 or clang++ 16, or later" ;;
        cmake) echo "CMake 3.23 or later" ;;
        ninja) echo "Ninja" ;;
        doctest) echo "doctest (<doctest/doctest.h>)" ;;
        moodycamel) echo "moodycamel's ConcurrentQueue (<concurrentqueue/concurrentqueue.h>)" ;;
        boost) echo "the headers of Boost 1.81 or later" ;;
        xxhash) echo "xxHash 0.8 or later (<xxhash.h>)" ;;
        sqlite) echo "SQLite 3.24 or later (<sqlite3.h>, libsqlite3)" ;;
        clang) echo "clang++ 16 or later with its sanitizers" ;;
        libcxx) echo "libc++ for that clang" ;;
        pkg_config) echo "pkg-config" ;;
        rivals) echo "oneTBB and ZeroMQ (<oneapi/tbb/version.h>, <zmq.h>)" ;;
        postgresql) echo "PostgreSQL's server and libpq (initdb, postgres, <libpq-fe.h>)" ;;
        journal_rivals) echo "SQLite, LMDB and RocksDB (<sqlite3.h>, <lmdb.h>, <rocksdb/version.h>)" ;;
    esac
}

debian_packages() { # the packages of Debian 12 that bring it
    case $1 in
        compiler) echo g++ ;;
        cmake) echo cmake ;;
        ninja) echo ninja-build ;;
        doctest) echo doctest-dev ;;
        moodycamel) echo libconcurrentqueue-dev ;;
        boost) echo libboost1.81-dev ;;
        xxhash) echo libxxhash-dev ;;
        sqlite) echo libsqlite3-dev ;;
        clang) echo clang-16 libclang-rt-16-dev ;;
        libcxx) echo libc++-16-dev libc++abi-16-dev ;;
        pkg_config) echo pkg-config ;;
        rivals) echo libtbb-dev libzmq3-dev ;;
        journal_rivals) echo libsqlite3-dev liblmdb-dev librocksdb-dev ;;
        postgresql) echo postgresql libpq-dev ;;
    esac
}

# ---- installing on Debian 12 ------------------------------------------------------------------------------------------

is_debian_12() {
    [ -r /etc/os-release ] && has apt-get &&
        [ "$(. /etc/os-release && printf '%s %s' "${ID:-}" "${VERSION_ID:-}")" = "debian 12" ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

can_install() { [ "$(id -u)" -eq 0 ] || has sudo; }

apt_updated=
apt_update() { # at most once a run
    [ -z "$apt_updated" ] || return 0
    apt_updated=yes
    can_install || return 0
    say "-- updating the lists of packages"
    as_root apt-get update -qq >&2 || say "-- apt-get update failed; going on with the lists that are there"
}

known() { # every package has a candidate in the lists
    for known_package in "$@"; do
        apt-cache show --no-all-versions "$known_package" >/dev/null 2>&1 || return 1
    done
}

# Whether these can be installed with nothing removed.
harmless() {
    harmless_plan=$(apt-get -s install --no-install-recommends --no-upgrade "$@" 2>/dev/null) || return 1
    ! printf '%s\n' "$harmless_plan" | grep -q '^Remv '
}

apt_install() {
    say "-- installing $*"
    as_root apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends --no-remove --no-upgrade "$@" >&2 && return 0
    apt_update  # the lists may name files that are gone from the mirror
    as_root apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends --no-remove --no-upgrade "$@" >&2
}

# Unpacks a package of headers below $packages, for this build alone.
unpack() {
    say "-- unpacking $1 below $packages (what is installed stays as it is)"
    mkdir -p "$packages/archives" || return 1
    (
        cd "$packages/archives" || exit 1
        rm -f "$1"_*.deb
        apt-get download -qq "$1" 2>/dev/null || { apt_update; apt-get download -qq "$1"; } || exit 1
        dpkg-deb -x "$1"_*.deb "$packages" || exit 1
        rm -f "$1"_*.deb
    ) >&2 || return 1
    case :${CMAKE_PREFIX_PATH:-}: in
        *":$packages/usr:"*) ;;
        *) export CMAKE_PREFIX_PATH="$packages/usr${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}" ;;
    esac
}

# Debian's PostgreSQL comes with a database that is started at once and at each boot. Nobody asked for one: this installs the programs alone.
without_cluster() { # without_cluster <command...>
    without_file=/etc/postgresql-common/createcluster.d/mailroom-setup.conf
    as_root mkdir -p "${without_file%/*}" && echo 'create_main_cluster = false' | as_root tee "$without_file" >/dev/null
    "$@"
    without_status=$?
    as_root rm -f "$without_file"
    as_root rmdir "${without_file%/*}" 2>/dev/null || true # unless it holds something
    return $without_status
}

# Brings what can be installed; what would cost the user something is left for a second look.
install_things() {
    install_list=
    for thing in "$@"; do
        # shellcheck disable=SC2046  # one word a package
        set_of=$(debian_packages "$thing")
        # shellcheck disable=SC2086
        known $set_of || apt_update
        # Another Boost in sight would still be found first, or be in the way: ours goes beside it.
        if [ "$thing" = boost ] && { includes '#include <boost/version.hpp>' || [ -e /usr/include/boost/version.hpp ] || [ -e /usr/local/include/boost/version.hpp ]; }; then
            continue
        fi
        # shellcheck disable=SC2086
        if harmless $install_list $set_of; then install_list="$install_list $set_of"; fi
    done
    case " $install_list " in *" postgresql "*) install_with=without_cluster ;; *) install_with= ;; esac
    # shellcheck disable=SC2086
    [ -z "$install_list" ] || $install_with apt_install $install_list || say "-- apt-get could not install everything"
}

# Installs what is missing of these, where that can be done. What then is still missing is in $lacking.
bring() {
    missing=
    lacking=
    for thing in "$@"; do present "$thing" || missing="$missing $thing"; done
    [ -n "$missing" ] || return 0

    if is_debian_12; then
        # shellcheck disable=SC2086
        if can_install; then install_things $missing; fi
        for thing in $missing; do
            case $thing in
                doctest | moodycamel | boost | xxhash)
                    compiler && { present "$thing" || unpack "$(debian_packages "$thing")" || say "-- it could not be fetched"; } ;;
            esac
        done
    fi

    for thing in $missing; do present "$thing" || lacking="$lacking $thing"; done
}

setup_optional() {
    bring "$@"
    for thing in $lacking; do say "-- going on without $(describe "$thing"): what needs it is skipped"; done
}

setup() {
    bring "$@"
    [ -n "$lacking" ] || return 0
    say "Missing on this machine:"
    for thing in $lacking; do say "  - $(describe "$thing")"; done
    compiler || say "(Headers are looked for with the compiler: without one they count as missing.)"
    if is_debian_12; then
        # shellcheck disable=SC2046  # one line for all of them
        say "Please install them and run this again:  apt-get install" $(for thing in $lacking; do debian_packages "$thing"; done)
        can_install || say "(This script would do it, as root or with sudo.)"
    else
        say "Only on Debian 12 are they installed by this script; please install them and run it again."
    fi
    exit 1
}

# ---- building ---------------------------------------------------------------------------------------------------------

configure() {
    configure_preset=$1
    shift
    if [ -e "$build/$configure_preset/CMakeCache.txt" ] &&
        ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/$configure_preset/CMakeCache.txt"; then
        rm -rf "${build:?}/$configure_preset"  # made for a source tree that has moved
    fi
    # What was found last time is looked for again: since then something may have been unpacked.
    cmake -S "$root" --preset "$configure_preset" -B "$build/$configure_preset" -U "MAILROOM_*_INCLUDE_DIR" "$@" >"$build/$configure_preset.log" 2>&1 ||
        { cat "$build/$configure_preset.log" >&2; die "CMake could not configure '$configure_preset'"; }
}
