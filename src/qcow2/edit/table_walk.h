// SPDX-License-Identifier: Apache-2.0
// TableWalk: goes over all L2 tables of one L1 table, on all shards. Lives in one coroutine on the
// home shard; lanes (table_lane.h) read and judge the tables, which is what costs. What is
// collected comes in batches, so that memory stays bounded and the next batch is read while the
// home shard works on this one:
//
//   lanes   | read 0 | read 1         | read 2         |
//   home             | count batch 0  | count batch 1  | …
//
// Memory: two batches of at most 8 MiB of tables each take up to 16 MiB as runs; flags need a bit a
// cluster, for a window of at most 64 MiB of them (512 Mi clusters, 32 TiB at 64 KiB) at once.
#pragma once

#include "qcow2/edit/table_lane.h"

namespace ringdisk::qcow2 {

struct TableWalkLimits {
  uint64_t batch_bytes = 8 * limits::kMiB;           // L2 tables of one batch, together
  uint64_t window_clusters = 64 * limits::kMiB * 8;  // a bit each
};

class TableWalk {
 public:
  // `storage` is the home shard's. All outlive the walk.
  TableWalk(Image& image, StorageAccess& storage, const RefcountBlocks& refcounts,
            std::span<const uint64_t> l1, TableWalkLimits limits = TableWalkLimits());

  // All host clusters that the next tables lead to, the tables' own among them, as often as they
  // do, in ascending order of the runs; the same ones whenever it is asked. Empty: that was all.
  Task<ClusterRuns> next_batch();

  // COPIED off everywhere: in the tables, on the disk, and in `l1`, the words the walk is over.
  Task<void> clear_copied_flags(std::span<uint64_t> l1);
  // COPIED exactly where the refcount on the disk is one.
  Task<void> correct_copied_flags(std::span<uint64_t> l1);

 private:
  uint64_t end_of_batch() const;
  size_t lanes_for(uint64_t pieces) const;
  Task<void> correct_in_window(uint64_t first_block, uint64_t end_block);
  Task<ClusterRuns> run_stage(TableWork work, uint64_t first, uint64_t end);
  Task<void> run_lane(Shard& shard, ClusterRuns& runs);

  const TableWalkLimits limits_;
  TableStage stage_;
  StorageAccess& storage_;
  uint64_t next_ = 0;  // the first L1 entry that was not collected
};

}  // namespace ringdisk::qcow2
