// SPDX-License-Identifier: Apache-2.0
// Taking space for a range of a disk at once. What is there already stays what it is; the rest goes
// on reading as zeros, but has its place.
#pragma once

#include "block/device_queue.h"
#include "block/preallocation.h"

namespace ringdisk {

// Whether `device` can do that. kUnsupported, with a note: kMetadata where there is none (raw).
Result<void> check_preallocation(const DeviceNode& device, Preallocation how,
                                 Diagnostics& diagnostics);

// On the calling shard. Clusters that only begin or end within `range` are left alone; the last one
// may be cut by the disk's end. `size` is the disk's. Errors of the storage (kNoSpace …): what was
// taken until then stays taken.
Task<void> preallocate(DeviceNode& device, GuestRange range, Preallocation how);

}  // namespace ringdisk
