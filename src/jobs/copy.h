// SPDX-License-Identifier: Apache-2.0
// CopyJob: the content of one or several disks, laid end to end, into another disk: what `convert`
// does. It runs on every shard at once; each has queues of its own, several requests in flight, and
// takes its work from one shared cursor.
//
//   cursor ─> region (16 MiB, one shard's) ─> extents (block status) ─> pieces (256 KiB) ─> workers
//   a worker: read a piece ─> find its zeros ─> write what is not zero, leave out or zero the rest
//
// A compressed copy works in whole clusters of the target: extents are rounded to them, a cluster
// is zero as a whole or not at all, and each of the others is compressed on the shard that has read
// it.
//
// A stretch that reads as zeros is one step however long it is: the shard that finds it moves the
// cursor past it, so an empty disk of many terabytes costs a few look-ups. Pieces are small enough
// that what was read is still in the core's own cache when it is written, and buffers come from the
// shard's pool: nothing is allocated for a piece.
//
// Durability is that of the target's cache mode: the job ends with a flush, which `unsafe`
// (convert's default, as qemu-img's) makes nothing of. The first failure of any request stops all
// shards and is the job's result; where reading past errors is asked for, only failed writes are
// failures. Lives on the shard that calls run(); done_bytes() may be asked
// from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "async/cancel.h"
#include "async/task.h"
#include "base/limits.h"
#include "block/device_queue.h"
#include "jobs/pacer.h"
#include "jobs/region_cursor.h"
#include "jobs/unreadable.h"
#include "runtime/world.h"

namespace ringdisk {

struct CopyOptions {
  // Zeros are looked for in what was read, in aligned blocks of this many bytes (a power of two, at
  // least 512). 0: nothing is looked for, in the extents of the source neither, and every byte is
  // written.
  uint64_t sparse_bytes = 4096;
  // The target reads as zeros everywhere, so zeros need not be written.
  bool target_reads_zero = false;
  // The target, or what lies below it, holds what the source's uppermost images do not: only what
  // those `layers` images hold is copied.
  bool target_has_backing = false;
  uint32_t layers = 1;
  // Clusters are written compressed; the target's format can do that.
  bool compress = false;
  uint32_t compression_level = 0;  // 0: the format's default
  // What cannot be read becomes zeros, and unreadable() tells of it; else it ends the job.
  bool salvage = false;
  uint64_t bytes_per_second = 0;  // of content; 0: no limit
  // Requests in flight on all shards together; 0: kCopyRequestsPerShard on each.
  uint32_t requests_in_flight = 0;
  uint64_t piece_bytes = 256 * limits::kKiB;  // a power of two, at most 2 MiB
  uint64_t region_bytes = 16 * limits::kMiB;  // a multiple of piece_bytes
};

inline constexpr uint32_t kCopyRequestsPerShard = 8;

class CopyJob {
 public:
  // Sources and target stay open until run() is done; the target is at least as large as the
  // sources together.
  CopyJob(const World& world, std::vector<DeviceNode*> sources, DeviceNode& target,
          CopyOptions options);
  CopyJob(const CopyJob&) = delete;
  CopyJob& operator=(const CopyJob&) = delete;

  // Copies everything and flushes the target. Once. Errors: those of source and target; kCancelled
  // when `cancel` was.
  Task<void> run(CancelToken cancel);

  uint64_t total_bytes() const { return total_bytes_; }
  // How much of it is behind us, zeros and all. Any thread.
  uint64_t done_bytes() const { return done_bytes_.load(std::memory_order_relaxed); }
  // With CopyOptions::salvage, once run() is done: what was not read, by its place in the target.
  const UnreadableRanges& unreadable() const { return unreadable_; }

 private:
  friend class CopyLane;

  Task<void> copy_on(Shard& shard);
  Task<void> flush_target();
  void stop() { stopped_.store(true, std::memory_order_relaxed); }
  bool is_stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // constant after construction
  const World& world_;
  const std::vector<DeviceNode*> sources_;
  std::vector<GuestOffset> source_begins_;  // where each source lies in the target
  DeviceNode& target_;
  const CopyOptions options_;
  const uint64_t total_bytes_;
  uint64_t granule_bytes_ = 0;  // what zeros are looked for in
  uint64_t cluster_bytes_ = 0;  // of a target that is compressed; 0: it is not

  // any thread (atomic)
  RegionCursor cursor_;
  std::atomic<uint64_t> done_bytes_{0};
  std::atomic<bool> stopped_{false};
  Pacer pacer_;

  // the shard of run() only
  UnreadableRanges unreadable_;
};

}  // namespace ringdisk
