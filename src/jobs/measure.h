// SPDX-License-Identifier: Apache-2.0
// MeasureJob: how much of a disk is content, counted in blocks of the size in which somebody would
// store it: what `measure` needs to know of an image. Mappings of the whole backing chain are
// asked, and no byte is read.
//
//   disk     | content |          zeros          | cont|     | ent |
//   blocks   | counted | counted |       |       | counted | counted |
//
// It runs on every shard that there is work for, each with a queue of its own, region by region
// from one shared cursor; a stretch of one kind is one step however long it is. Memory: none to
// speak of. Lives on the shard that calls run().
#pragma once

#include <atomic>
#include <cstdint>

#include "async/cancel.h"
#include "async/task.h"
#include "block/device_queue.h"
#include "jobs/region_cursor.h"
#include "runtime/world.h"

namespace ringdisk {

class MeasureJob {
 public:
  // `disk` stays open until run() is done; `block_size` is a power of two.
  MeasureJob(const World& world, DeviceNode& disk, ByteCount block_size);
  MeasureJob(const MeasureJob&) = delete;
  MeasureJob& operator=(const MeasureJob&) = delete;

  // The bytes of all blocks that hold something else than zeros; the disk's last one counts as if
  // it were whole. Once. Errors: those of the disk; kCancelled when `cancel` was.
  Task<ByteCount> run(CancelToken cancel);

 private:
  Task<void> count_on(Shard& shard);
  Task<void> count_here(Shard& shard);
  void stop() { stopped_.store(true, std::memory_order_relaxed); }
  bool is_stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // constant after construction
  const World& world_;
  DeviceNode& disk_;
  const uint64_t block_bytes_;
  const uint64_t region_bytes_;  // a multiple of it

  // any thread (atomic)
  RegionCursor cursor_;
  std::atomic<uint64_t> blocks_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace ringdisk
