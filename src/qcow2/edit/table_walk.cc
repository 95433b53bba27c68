// SPDX-License-Identifier: Apache-2.0
// Batches, windows and stages.
#include "qcow2/edit/table_walk.h"

#include <algorithm>

#include "async/scope.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// Below this another shard costs more than it saves: a table of 64 KiB takes some 20 us.
constexpr uint64_t kPiecesPerLaneMin = 2;

ClusterRuns merged(ClusterRuns one, ClusterRuns other) {
  if (one.empty()) return other;
  ClusterRuns both(one.size() + other.size());
  std::merge(one.begin(), one.end(), other.begin(), other.end(), both.begin(), &comes_before);
  return both;
}

Task<ClusterRuns> run_lane_here(TableStage& stage, Shard& shard) {
  std::unique_ptr<StorageAccess> storage =
      co_await StorageAccess::open(*stage.image.storage, shard);
  TableLane lane(stage, *storage, shard);
  co_await lane.run();
  co_return lane.take_runs();
}

}  // namespace

TableWalk::TableWalk(Image& image, StorageAccess& storage, const RefcountBlocks& refcounts,
                     std::span<const uint64_t> l1, TableWalkLimits limits)
    : limits_(limits), stage_(image, refcounts, l1), storage_(storage) {}

// --- collecting

uint64_t TableWalk::end_of_batch() const {
  const uint64_t tables_max =
      std::max<uint64_t>(limits_.batch_bytes >> stage_.image.geometry.cluster_bits(), 1);
  uint64_t tables = 0, end = next_;
  for (; end < stage_.l1.size() && tables < tables_max; ++end) {
    if (stage_.l1[end] != 0) ++tables;
  }
  return end;
}

Task<ClusterRuns> TableWalk::next_batch() {
  ClusterRuns runs;
  while (runs.empty() && next_ < stage_.l1.size()) {
    const uint64_t first = std::exchange(next_, end_of_batch());
    runs = co_await run_stage(TableWork::kCollect, first, next_);
  }
  co_return std::move(runs);
}

// --- flags

Task<void> TableWalk::clear_copied_flags(std::span<uint64_t> l1) {
  stage_.flagged = l1;
  ClusterRuns none = co_await run_stage(TableWork::kClearFlags, 0, l1.size());
  CHECK(none.empty());
}

// In windows that begin at a refcount block that there is.
Task<void> TableWalk::correct_copied_flags(std::span<uint64_t> l1) {
  stage_.flagged = l1;
  const RefcountBlocks& refcounts = stage_.refcounts;
  const uint64_t block_bits = stage_.image.geometry.refcount_block_bits();
  const uint64_t blocks_max = std::max<uint64_t>(limits_.window_clusters >> block_bits, 1);
  for (uint64_t first = 0; first < refcounts.table_entries();) {
    if (!refcounts.has_block(first)) {
      ++first;
      continue;
    }
    uint64_t end = std::min(first + blocks_max, refcounts.table_entries());
    while (!refcounts.has_block(end - 1)) --end;
    co_await correct_in_window(first, end);
    first = end;
  }
}

Task<void> TableWalk::correct_in_window(uint64_t first_block, uint64_t end_block) {
  const Geometry& geometry = stage_.image.geometry;
  stage_.ones.open(geometry.first_cluster_of_block(first_block),
                   (end_block - first_block) * geometry.refcount_block_entries());
  ClusterRuns none = co_await run_stage(TableWork::kFindOnes, first_block, end_block);
  none = co_await run_stage(TableWork::kCorrectFlags, 0, stage_.l1.size());
  CHECK(none.empty());
}

// --- lanes

size_t TableWalk::lanes_for(uint64_t pieces) const {
  return std::clamp<size_t>(pieces / kPiecesPerLaneMin, 1, stage_.image.world.shards.size());
}

Task<ClusterRuns> TableWalk::run_stage(TableWork work, uint64_t first, uint64_t end) {
  stage_.work = work;
  stage_.pieces_end = end;
  stage_.next_piece.store(first, std::memory_order_relaxed);
  stage_.stopped.store(false, std::memory_order_relaxed);
  const std::span<Shard* const> shards = stage_.image.world.shards;
  const size_t lanes = lanes_for(end - first);
  const uint32_t own = Shard::current().index();
  std::vector<ClusterRuns> found(lanes);
  // This shard's lane comes last: it may not suspend for a while.
  auto one = [&](size_t i) {
    return run_lane(*shards[(own + lanes - 1 - i) % shards.size()], found[i]);
  };
  co_await when_all(lanes, one);
  ClusterRuns runs;
  for (ClusterRuns& of_lane : found) runs = merged(std::move(runs), std::move(of_lane));
  co_return std::move(runs);
}

Task<void> TableWalk::run_lane(Shard& shard, ClusterRuns& runs) {
  TableStage& stage = stage_;
  if (shard.is_current()) {
    TableLane lane(stage, storage_, shard);
    co_await lane.run();
    runs = lane.take_runs();
    co_return;
  }
  auto there = [&stage, &shard] { return run_lane_here(stage, shard); };
  Result<ClusterRuns> result = co_await shard.call(there).result();
  if (!result.ok()) stage.stopped.store(true, std::memory_order_relaxed);
  runs = co_await std::move(result);
}

}  // namespace ringdisk::qcow2
