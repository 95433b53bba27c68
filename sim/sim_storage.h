// SPDX-License-Identifier: Apache-2.0
// SimDisk and SimStorageNode: a simulated medium, and the storage driver that opens it. The disk
// outlives the node, as a file outlives the process that opened it; it may be opened again, and
// crashed (crash_log.h has the fault model).
//
//   CrashLog log;
//   SimDisk disk(options, world.draw_seed(), &log);
//   SharedStorage storage(std::make_unique<SimStorageNode>(disk, "disk.img", 1));
//   … work …
//   SimDisk crashed(disk, event, subset_seed);         // what is there after power came back
//
// What it does to a correct caller: every request takes a drawn time, so requests pass each other;
// a discard takes effect or not, in parts. The driver CHECKs everything that block/storage.h
// promises it (alignment, ranges, queues on their shard, no queue left at close), so that a mistake
// in block/ or in a format ends the test. Errors come from SimFaults: the n-th request fails, at
// once or after a part of it has happened. A failed flush may have lost what it was to save. One
// thread; any number of simulated shards.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/random.h"
#include "block/storage.h"
#include "runtime/clock.h"
#include "sim/crash_log.h"
#include "sim/sim_faults.h"

namespace ringdisk::sim {

struct SimDiskOptions {
  ByteCount size;
  uint32_t block_size = 1;
  uint32_t memory_alignment = 1;
  bool read_only = false;
  bool grows = true;  // a regular file; false: a block device
  bool grown_reads_zero = true;
  bool stale = false;  // what was never written is somebody else's (block device)
  bool fast_zero = true;
  bool unmaps = true;
  bool flush_lies = false;  // flushes succeed and save nothing: what a crash sweep must notice
  uint64_t space_bytes_max = ~uint64_t{0};  // written sectors beyond this: ENOSPC
  Duration delay_max = std::chrono::microseconds(100);

  static SimDiskOptions file() { return {}; }
  static SimDiskOptions block_device(ByteCount size, uint32_t block_size);
};

class SimDisk {
 public:
  // With a log (which outlives it) it can be crashed. `faults` may be shared by several disks.
  SimDisk(SimDiskOptions options, uint64_t seed, CrashLog* log = nullptr,
          SimFaults* faults = nullptr);
  // What is left of `other`, whose log is set, when the power fails after `event` events.
  SimDisk(const SimDisk& other, uint64_t event, uint64_t subset_seed, CrashLog* log = nullptr,
          SimFaults* faults = nullptr);
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;
  ~SimDisk();

  const SimDiskOptions& options() const { return options_; }
  uint64_t size() const { return state_.size; }
  uint64_t written_bytes() const { return state_.content.written_sectors() * kSectorBytes; }
  // What readers see now, past the driver: for setting up and looking at tests. Within the size.
  void peek(uint64_t offset, MutableBytes target) const { state_.content.read(offset, target); }
  // Durable at once; makes the disk larger where needed. Before the log has events.
  void poke(uint64_t offset, Bytes source);
  void set_faults(SimFaults* faults) { faults_ = faults; }
  void set_space_bytes_max(uint64_t bytes) { options_.space_bytes_max = bytes; }
  void set_flush_lies(bool lies) { options_.flush_lies = lies; }

 private:
  friend class SimStorageNode;
  friend class SimStorageQueue;

  SimDiskOptions options_;
  Random random_;
  DiskState state_;  // volatile: what readers see
  CrashLog* log_;
  uint32_t log_number_ = 0;
  SimFaults* faults_;
  uint32_t open_nodes_ = 0;
};

class SimStorageNode final : public StorageNode {
 public:
  SimStorageNode(SimDisk& disk, std::string name, uint32_t id, bool read_only = false);
  ~SimStorageNode() override;

  const char* driver() const override { return "sim"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override { return ByteCount(disk_.size()); }
  Task<ByteCount> allocated_size() override;
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;
  Task<void> close() override;

 private:
  friend class SimStorageQueue;
  SimDisk& disk_;
  const StorageLimits limits_;
  uint32_t queues_ = 0;
  bool closed_ = false;
};

}  // namespace ringdisk::sim
