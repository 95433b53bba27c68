// SPDX-License-Identifier: Apache-2.0
// MapWalk: where the bytes of a disk lie, as the longest stretches of one kind, in order: what
// `map` prints. Asks block status on the calling shard alone; what is alike and contiguous is
// merged, across clusters and images.
#pragma once

#include <functional>

#include "async/task.h"
#include "block/device_queue.h"

namespace ringdisk {

// A stretch of the disk; the fields of BlockStatus hold for all of it, `host` for its first byte.
struct MapEntry {
  GuestOffset start;
  BlockStatus status;  // status.length: of the whole stretch
};

// Whether `next`, which begins where `entry` ends, continues it.
bool continues(const MapEntry& entry, const BlockStatus& next);

// Calls `visit` for each stretch of `range`, first to last. An error of `visit` ends the walk and
// is its result.
Task<void> walk_map(DeviceQueue& queue, GuestRange range,
                    std::function<Result<void>(const MapEntry&)> visit);

}  // namespace ringdisk
