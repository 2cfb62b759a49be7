// For tests of programs that use mailroom: time that stands still until it is told to move, a disk that forgets what was not synced, fails and
// fills up, and power that is cut at every write. Never included by the library itself.
#pragma once

#include <mailroom/testing/crash_explorer.hpp>
#include <mailroom/testing/manual_clock.hpp>
#include <mailroom/testing/simulated_files.hpp>
