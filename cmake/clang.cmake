# Toolchain of the presets that end in "-clang": clang 16 (the name it has in Debian 12) or a later one.
find_program(mailroom_clang NAMES
    clang++-16 clang++-17 clang++-18 clang++-19 clang++-20 clang++-21 clang++-22 clang++ NO_CACHE REQUIRED)
set(CMAKE_CXX_COMPILER "${mailroom_clang}")
