// SPDX-License-Identifier: Apache-2.0
// The drawing of a crashed image: from a settled state and the changes whose survival is open (with
// the durable ones between them), one of the states that the fault model of crash_log.h allows.
// Internal to CrashLog.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/crash_log.h"

namespace ringdisk::sim {

struct UndecidedChange {
  const Change* change;
  uint64_t number;  // in the log: what the draw hangs on
  bool durable;
};

// The change as it is without a crash.
void apply_whole(const Change& change, DiskState& state);

DiskState replay_crash(const DiskState& settled, const std::vector<UndecidedChange>& tail,
                       uint64_t subset_seed);

}  // namespace ringdisk::sim
