#include "every_header.hpp"

const void* seen_from_b();
const void* seen_from_b() {
    static const char here = 'b';
    return &here;
}
