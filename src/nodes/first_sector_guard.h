// SPDX-License-Identifier: Apache-2.0
// FirstSectorGuardNode: a filter that refuses writes which would make the storage's first sector
// announce another format. `raw` puts it in front of disks that were opened without anybody saying
// that they are raw, and of no others.
//
// Cost: for everything that begins behind the first sector one comparison. What touches the first
// sector takes its turn under a lock of the node, since two writes that are harmless alone ("QF"
// and "I\xfb") may not pass side by side; a part of the sector is checked together with what is
// there. Discards leave the first sector out.
#pragma once

#include <memory>

#include "block/block_lock.h"
#include "nodes/storage_filter.h"

namespace ringdisk {

class Diagnostics;

class FirstSectorGuardNode final : public StorageFilter {
 public:
  FirstSectorGuardNode(std::unique_ptr<SharedStorage> child, Diagnostics& diagnostics)
      : StorageFilter(std::move(child)), diagnostics_(diagnostics) {}

  // Nobody needs to know that it is there.
  const char* driver() const override { return child().driver(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;

 private:
  Diagnostics& diagnostics_;
  BlockLock first_sector_;  // any shard (its own lock)
};

}  // namespace ringdisk
