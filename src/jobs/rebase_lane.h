// SPDX-License-Identifier: Apache-2.0
// RebaseLane: one shard's part of a RebaseJob: its queues, its current region and extent, and its
// workers. Made, used and destroyed on its shard; the only thing it shares with other lanes is the
// job's cursor and counters.
#pragma once

#include <memory>

#include "async/mutex.h"
#include "jobs/rebase.h"

namespace ringdisk {

class Shard;

class RebaseLane {
 public:
  // A lane of its own for the calling shard, from beginning to end.
  static Task<void> start(RebaseJob& job, Shard& shard);

 private:
  RebaseLane(RebaseJob& job, Shard& shard) : job_(job), shard_(shard) {}

  struct Extent {
    GuestRange range;
    bool is_settled = false;  // the overlay's own, or zero on both sides
  };

  Task<void> run();
  Task<void> work();
  // The next piece to be compared; empty: nothing is left. Workers of the lane come here one at a
  // time.
  Task<GuestRange> next_piece();
  Task<Extent> look_at(GuestOffset at);
  Task<Extent> look_below(GuestRange absent);
  Extent cut_piece();
  void round_to_granules(Extent& extent) const;

  Task<void> compare(GuestRange piece);
  Task<void> read_below(GuestRange piece, MutableBytes target);
  Task<void> copy_differing(GuestOffset at, Bytes shown, Bytes below);
  Task<void> copy_run(GuestOffset at, Bytes shown);
  Task<void> write_run(GuestOffset at, Bytes bytes);

  RebaseJob& job_;
  Shard& shard_;

  // this shard only
  std::unique_ptr<DeviceQueue> overlay_;
  std::unique_ptr<DeviceQueue> below_;  // null: there is none
  Mutex lock_;                          // guards region_ and extent_ across suspensions
  GuestRange region_;                   // claimed, not handed to a worker yet
  Extent extent_;                       // the newest look at the disks; may reach beyond region_
};

}  // namespace ringdisk
