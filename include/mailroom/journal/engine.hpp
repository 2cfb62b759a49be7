// The journal without types, whole: see detail/engine_class.hpp.
#pragma once

#include <mailroom/journal/detail/checkpoints.hpp>
#include <mailroom/journal/detail/commit.hpp>
#include <mailroom/journal/detail/declarations.hpp>
#include <mailroom/journal/detail/placing.hpp>
#include <mailroom/journal/detail/reading.hpp>
#include <mailroom/journal/detail/recovery.hpp>
#include <mailroom/journal/detail/replay.hpp>
#include <mailroom/journal/detail/rotation.hpp>
#include <mailroom/journal/detail/survivors.hpp>
#include <mailroom/journal/detail/transactions.hpp>
#include <mailroom/journal/detail/upkeep.hpp>
#include <mailroom/journal/detail/verification.hpp>
