// Every public header in two translation units of one program: whatever is not inline is a link error.
#include "every_header.hpp"

#include <cstdio>

const void* seen_from_b();

int main() {
    if (seen_from_b() == nullptr) return 1;
    std::puts("two translation units share one set of definitions");
}
