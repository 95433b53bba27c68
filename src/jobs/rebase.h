// SPDX-License-Identifier: Apache-2.0
// RebaseJob: makes an overlay independent of the backing image it has, as far as another one would
// show something else: where the overlay holds nothing of its own, what it shows now and what the
// new image would show are compared, and what differs is copied into the overlay. Afterwards the
// recorded name can be changed, and the disk reads the same (what `rebase` does).
//
//   overlay, not its own ─┬─ reads through the old chain ─┐
//                         └─ new backing image, or zeros ─┴─ the same?  no: written to the overlay
//
// Until the name is changed the overlay reads the same with its old chain, whatever has been copied
// already, so the job may end anywhere. It runs on every shard at once, each with queues of its own
// and several pieces in flight, taken from one shared cursor; a stretch that is zero on both sides,
// or the overlay's own, is one step however long it is. Memory: two pieces for each one in flight.
//
// Lives on the shard that calls run(); done_bytes() may be asked from any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "async/cancel.h"
#include "async/task.h"
#include "block/device_queue.h"
#include "jobs/region_cursor.h"
#include "runtime/world.h"

namespace ringdisk {

struct RebaseOptions {
  // What is copied is written as compressed clusters; the overlay's format can do that.
  bool compress = false;
};

class RebaseJob {
 public:
  // `overlay` is open for writing, with its old chain. `below` is the new backing image, which may
  // be smaller or larger; null: there is to be none. Both stay open until run() is done. Where the
  // old chain is empty the overlay was opened to keep zeros that nothing hides yet
  // (OpenMode::keep_zeroes).
  RebaseJob(const World& world, DeviceNode& overlay, DeviceNode* below,
            RebaseOptions options = RebaseOptions());
  RebaseJob(const RebaseJob&) = delete;
  RebaseJob& operator=(const RebaseJob&) = delete;

  // Copies what is needed and flushes the overlay. Once. Errors: those of the disks; kCancelled
  // when `cancel` was.
  Task<void> run(CancelToken cancel);

  uint64_t total_bytes() const { return total_bytes_; }
  // How much of it is behind us. Any thread.
  uint64_t done_bytes() const { return done_bytes_.load(std::memory_order_relaxed); }
  uint64_t copied_bytes() const { return copied_bytes_.load(std::memory_order_relaxed); }

 private:
  friend class RebaseLane;

  Task<void> rebase_on(Shard& shard);
  Task<void> flush_overlay();
  void stop() { stopped_.store(true, std::memory_order_relaxed); }
  bool is_stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // constant after construction
  const World& world_;
  DeviceNode& overlay_;
  DeviceNode* const below_;
  const RebaseOptions options_;
  const uint64_t total_bytes_;
  const uint64_t granule_bytes_;  // what is compared and copied as a whole
  const uint64_t piece_bytes_;    // a multiple of it

  // any thread (atomic)
  RegionCursor cursor_;  // regions are multiples of a piece
  std::atomic<uint64_t> done_bytes_{0};
  std::atomic<uint64_t> copied_bytes_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace ringdisk
