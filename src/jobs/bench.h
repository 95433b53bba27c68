// SPDX-License-Identifier: Apache-2.0
// BenchJob: a stream of equal requests to one disk, with so many in flight, and how long it took:
// what `bench` does. Requests are numbered by one counter for all shards; request i lies at offset
// + i x step, wrapped at the disk's end.
//
//   count 8, depth 4, two shards: each shard keeps 2 in flight, both draw the numbers 0 … 7
//
// With a flush interval the requests between two flushes are a round: they are drained, then
// flushed. Rounds run on one shard, since a drain over several would measure the hand-over; without
// drain a worker that draws the number of a flush does it before its request, beside the others, on
// any shard.
#pragma once

#include <atomic>
#include <cstdint>

#include "async/cancel.h"
#include "async/task.h"
#include "block/device_queue.h"
#include "runtime/clock.h"
#include "runtime/world.h"

namespace ringdisk {

inline constexpr uint64_t kBenchCountMax = (uint64_t{1} << 31) - 1;
inline constexpr uint64_t kBenchStepMax = (uint64_t{1} << 31) - 1;
static_assert(kBenchCountMax <= kOffsetMax / kBenchStepMax, "positions are computed in 64 bits");

struct BenchOptions {
  uint64_t count = 75000;        // at most kBenchCountMax
  uint32_t depth = 64;           // at least 1
  uint64_t buffer_bytes = 4096;  // 1 … kRequestBytesMax, at most the disk's size
  uint64_t step_bytes = 0;       // 0: buffer_bytes; at most kBenchStepMax
  uint64_t offset = 0;
  bool write = false;
  std::byte pattern{0};         // what is written
  uint64_t flush_interval = 0;  // 0: no flushes
  bool drain = true;            // before a flush
  uint32_t queues = 0;          // shards that ask, one queue each; 0: all
};

class BenchJob {
 public:
  BenchJob(const World& world, DeviceNode& device, BenchOptions options);
  BenchJob(const BenchJob&) = delete;
  BenchJob& operator=(const BenchJob&) = delete;

  // Runs all requests; gives the time they took, queues being opened and buffers filled before.
  // Once. The first failure ends it. kCancelled when `cancel` was.
  Task<Duration> run(CancelToken cancel);
  // How many shards work.
  uint32_t shards_used() const { return shards_used_; }
  // How many requests have been drawn. Any thread.
  uint64_t started() const { return next_.load(std::memory_order_relaxed); }

 private:
  friend class BenchLane;

  Task<void> run_on(Shard& shard);
  uint32_t depth_on(uint32_t shard_index) const;
  // A number below `end`, or `end` when none is left.
  uint64_t draw(uint64_t end);
  GuestOffset offset_of(uint64_t number) const;
  bool is_flush_due(uint64_t number) const;

  // constant after construction
  const World& world_;
  DeviceNode& device_;
  const BenchOptions options_;
  uint64_t step_bytes_;
  uint32_t shards_used_;

  // any thread (atomic)
  std::atomic<uint64_t> next_{0};
  std::atomic<uint64_t> began_ns_{~uint64_t{0}};  // the earliest start of a lane
  std::atomic<bool> stopped_{false};
};

}  // namespace ringdisk
