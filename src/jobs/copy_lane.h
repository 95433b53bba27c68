// SPDX-License-Identifier: Apache-2.0
// CopyLane: one shard's part of a CopyJob: its queues, its current region and extent, and its
// workers. Made, used and destroyed on its shard; the only thing it shares with other lanes is the
// job's cursor and counters.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "async/mutex.h"
#include "jobs/copy.h"

namespace ringdisk {

class Shard;

class CopyLane {
 public:
  // A lane of its own for the calling shard, from beginning to end. Gives what could not be read,
  // where that ends no job.
  static Task<UnreadableRanges> start(CopyJob& job, Shard& shard, uint32_t workers);

 private:
  CopyLane(CopyJob& job, Shard& shard) : job_(job), shard_(shard) {}

  // Opens the queues and works with `workers` requests in flight until nothing is left to claim, or
  // the job is stopped.
  Task<void> run(uint32_t workers);

  // What is to be done about a stretch of the disk.
  enum class Treatment : uint8_t {
    kCopy,
    kZero,   // reads as zeros; the target must be told
    kLeave,  // the target has it already
  };
  struct Extent {
    GuestRange range;
    Treatment treatment = Treatment::kLeave;
  };

  Task<void> work();
  // The next piece for a worker; empty: nothing is left. Workers of the lane come here one at a
  // time.
  Task<Extent> next_piece();
  Task<Extent> look_at(GuestOffset at);
  Task<BlockStatus> status_at(size_t index, GuestRange in_source);
  Extent cut_piece();
  Treatment treatment_of(const BlockStatus& status) const;
  size_t source_at(GuestOffset at) const;

  void round_to_clusters(Extent& extent) const;

  Task<void> copy_piece(GuestRange piece);
  Task<void> keep_pace(ByteCount bytes);
  Task<void> read_sources(GuestOffset at, MutableBytes target);
  Task<void> read_source(size_t index, GuestOffset at, MutableBytes target);
  Task<void> read_past_errors(size_t index, GuestOffset at, MutableBytes target);
  Task<void> write_runs(GuestOffset at, Bytes bytes);
  Task<void> write_clusters(GuestOffset at, Bytes bytes);
  Task<void> write_cluster(GuestOffset at, Bytes cluster);

  CopyJob& job_;
  Shard& shard_;

  // this shard only
  std::vector<std::unique_ptr<DeviceQueue>> sources_;
  std::unique_ptr<DeviceQueue> target_;
  UnreadableRanges unreadable_;
  Mutex lock_;         // guards region_ and extent_ across suspensions
  GuestRange region_;  // claimed, not handed to a worker yet
  Extent extent_;      // the newest look at the source; may reach beyond region_
};

}  // namespace ringdisk
