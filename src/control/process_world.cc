// SPDX-License-Identifier: Apache-2.0
// Puts the parts of a real process together, lowest first.
#include "control/process_world.h"

#include <unistd.h>

namespace ringdisk {

ProcessWorld::ProcessWorld(ProcessWorldOptions options, Diagnostics& diagnostics)
    : diagnostics_(diagnostics),
      log_(STDERR_FILENO, options.log_level, "ringdisk: "),
      runtime_(options.runtime, clock_, log_),
      blocking_(runtime_.worker_threads()),
      network_(blocking_, diagnostics) {}

Result<void> ProcessWorld::start() {
  RETURN_IF_ERROR(runtime_.start());
  world_.emplace(World{clock_, log_, diagnostics_, blocking_, network_, runtime_.shards()});
  return {};
}

}  // namespace ringdisk
