// The entry of every test program; doctest is compiled here and nowhere else.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
