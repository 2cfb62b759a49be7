#!/bin/sh
# run.sh <find_package|journal|pkg_config|add_subdirectory|fetch_content> <source tree> <work folder> <cmake> <generator> <compiler> [argument...]
# Builds and runs a program that uses mailroom in that way. The installed package is used from a prefix that was moved
# after the install. The arguments are for the consumer's CMake. Exit code 77: this machine has no tool for it.
set -eu
kind=$1 source=$2 work=$3/$1 cmake=$4 generator=$5 compiler=$6
shift 6
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$work"
mkdir -p "$work"

configure() { # configure <source> <build> <argument...>
    configure_source=$1 configure_build=$2
    shift 2
    "$cmake" -S "$configure_source" -B "$configure_build" -G "$generator" "-DCMAKE_CXX_COMPILER=$compiler" \
        -DCMAKE_BUILD_TYPE=Debug "$@"
}

install_and_move() {
    configure "$source" "$work/mailroom" -DMAILROOM_BUILD_TESTS=OFF -DMAILROOM_BUILD_EXAMPLES=OFF \
        -DMAILROOM_BUILD_BENCHMARKS=OFF "-DCMAKE_INSTALL_PREFIX=$work/first place" "$@"
    "$cmake" --build "$work/mailroom"
    "$cmake" --install "$work/mailroom"
    mkdir "$work/moved"
    mv "$work/first place" "$work/moved/prefix"
    rm -rf "$work/mailroom"
    if grep -rIlF -e "$work" -e "$source" "$work/moved/prefix"; then
        echo "the installed files above name the place they were built in"
        exit 1
    fi
    # What is installed is what is in the tree, and nothing else.
    (cd "$source/include" && find . -name '*.hpp' | sort) >"$work/in_tree"
    (cd "$work/moved/prefix/include" && find . -type f | sort) >"$work/in_prefix"
    diff "$work/in_tree" "$work/in_prefix"
}

case $kind in
    find_package | journal)
        install_and_move
        configure "$here/$kind" "$work/build" "-DCMAKE_PREFIX_PATH=$work/moved/prefix" "$@"
        "$cmake" --build "$work/build"
        "$work/build/program"
        ;;
    pkg_config)
        command -v pkg-config >/dev/null || { echo "no pkg-config here"; exit 77; }
        install_and_move -DCMAKE_INSTALL_DATADIR=deep/share
        export PKG_CONFIG_PATH="$work/moved/prefix/deep/share/pkgconfig"
        pkg-config --modversion --validate mailroom
        # The flags come quoted for a shell, as folders may have spaces.
        eval "set -- $(pkg-config --cflags --libs mailroom)"
        "$compiler" -std=c++20 "$here/../house/small_program.cpp" -o "$work/program" "$@"
        "$work/program"
        ;;
    add_subdirectory | fetch_content)
        configure "$here/$kind" "$work/build" "-Dmailroom_source=$source" "-DCMAKE_INSTALL_PREFIX=$work/prefix" "$@"
        "$cmake" --build "$work/build"
        "$work/build/program"
        # A consumer's `ctest` and `install` know nothing of ours.
        (cd "$work/build" && "${cmake%cmake}ctest" -N) | grep -q 'Total Tests: 0'
        "$cmake" --install "$work/build"
        if [ -n "$(find "$work/prefix" -type f 2>/dev/null)" ]; then
            find "$work/prefix" -type f
            echo "installing the consumer installed the files above"
            exit 1
        fi
        ;;
    *) echo "unknown kind '$kind'"; exit 2 ;;
esac
