// SPDX-License-Identifier: Apache-2.0
// Workload: random requests from several queues on several shards to one disk, against a ModelDisk.
// Ranges of requests that are under way together never overlap (which of two overlapping writes
// wins is not defined), but they share sectors, blocks and clusters as often as possible: that is
// where padding, copying on write and allocation go wrong. One Workload a run; it lives on the
// test's thread and is used by all simulated shards.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/random.h"
#include "block/device_queue.h"
#include "runtime/world.h"
#include "sim/crash_log.h"
#include "sim/model_disk.h"

namespace ringdisk::sim {

struct WorkloadOptions {
  uint64_t operations = 300;  // over all queues
  uint32_t queues_per_shard = 2;
  uint32_t in_flight_per_queue = 2;
  uint64_t length_max = 160 * 1024;
  uint64_t alignment = 1;       // of every offset and length
  bool errors_allowed = false;  // requests may fail (fault sweep); the disk still has to be right
  // Of 100: the rest are reads.
  uint32_t writes = 40, zeroes = 10, discards = 8, flushes = 8, statuses = 6;
  uint32_t zero_runs = 0;   // of 100 writes: those with stretches of zeros
  uint32_t compressed = 0;  // whole clusters, written compressed; for formats that can
};

class Workload {
 public:
  // `log` may be null: nothing crashes.
  Workload(WorkloadOptions options, uint64_t seed, ModelDisk& model, const CrashLog* log)
      : options_(options), random_(seed), model_(model), log_(log) {}

  // Everything: queues on all shards of the world, until the operations are used up.
  Task<void> run(const World& world, DeviceNode& node);
  // Reads every sector that was touched, and some that were not, through a new queue of the calling
  // shard.
  Task<void> verify(DeviceNode& node);
  // The same after a crash after `event`.
  Task<void> verify_crashed(DeviceNode& node, uint64_t event);

  // The first error that a request gave, and how many did.
  const Error& first_error() const { return first_error_; }
  uint64_t errors() const { return errors_; }

 private:
  struct Busy {
    uint64_t begin, end;
  };
  class Claim;

  uint64_t event() const { return log_ ? log_->events() : 0; }
  Task<void> run_shard(Shard& shard, DeviceNode& node);
  Task<void> run_queue(Shard& shard, DeviceNode& node);
  Task<void> run_worker(DeviceQueue& queue);
  Task<void> run_one(DeviceQueue& queue);
  Task<void> write(DeviceQueue& queue, GuestRange range);
  Task<void> write_compressed(DeviceQueue& queue, GuestRange range);
  Task<void> write_zeroes(DeviceQueue& queue, GuestRange range);
  Task<void> discard(DeviceQueue& queue, GuestRange range);
  Task<void> flush(DeviceQueue& queue);
  Task<void> read(DeviceQueue& queue, GuestRange range);
  Task<void> block_status(DeviceQueue& queue, GuestRange range);
  Task<void> verify_range(DeviceQueue& queue, uint64_t offset, uint64_t length, bool crashed,
                          uint64_t event);
  Task<void> verify_all(DeviceNode& node, bool crashed, uint64_t event);
  Task<void> verify_through(DeviceQueue& queue, bool crashed, uint64_t event);

  Task<void> perform(DeviceQueue& queue, GuestRange range, uint64_t drawn);

  void draw_zero_runs(MutableBytes bytes);
  GuestRange draw_range(uint64_t disk_bytes);
  bool is_free(const GuestRange& range) const;
  void judge(const Result<void>& result, const char* operation, GuestRange range);

  const WorkloadOptions options_;
  Random random_;
  ModelDisk& model_;
  const CrashLog* log_;
  std::vector<Busy> busy_;
  uint64_t begun_ = 0;
  uint64_t errors_ = 0;
  Error first_error_;
  bool stopped_ = false;  // after the first wrong byte
};

}  // namespace ringdisk::sim
