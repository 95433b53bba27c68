// SPDX-License-Identifier: Apache-2.0
// The allocator's second half: new refcount blocks, and a larger refcount table when the old one is
// full.
//
//   growing the table of an image with b blocks' room, needed for block b or beyond:
//   ... used | new table: T clusters | blocks that count the new part, each in the first cluster
//            ^ end_ before                                            that it can count ...
#include <algorithm>

#include "qcow2/damage.h"
#include "qcow2/home/allocator.h"

namespace ringdisk::qcow2 {

// Makes sure that `block` exists and is in memory. A new one takes the cluster at the end. What may
// fail comes before anything changes.
Task<void> Allocator::ensure_block(uint64_t block) {
  if (block >= refcounts_.table_entries()) co_await grow_table(block);
  while (!refcounts_.has_block(block)) {
    const bool is_ready = co_await prepare_place(block);
    if (!is_ready) continue;
    const ClusterRun run{ClusterIndex(end_), 1};
    co_await claim(run);
    place_block(block);
  }
  co_await refcounts_.load(block);
}

// Whether the cluster at the end can become `block`: it has room, and what counts it is in memory.
// Else a step towards that.
Task<bool> Allocator::prepare_place(uint64_t block) {
  const Geometry& geometry = image_.geometry;
  co_await check_room(end_ + 1);
  const uint64_t bytes = (end_ + 1) << geometry.cluster_bits();
  if (storage_.limits().grows && storage_.size().value() < bytes) {
    co_await extend_storage(end_ + 1);
  }
  const ClusterIndex place(end_);
  const ClusterRun run{place, 1};
  co_await reserve(run);
  const uint64_t counted_by = geometry.refcount_block_of(place);
  if (counted_by == block) co_return true;
  if (!refcounts_.is_loaded(counted_by)) {
    co_await ensure_block(counted_by);  // may take the cluster itself
    co_return false;
  }
  if (refcounts_.get(place) == 0) co_return true;
  ++end_;  // in use already: left by a crash
  co_return false;
}

// The cluster at the end becomes `block`, which counts it, or it is counted by one in memory.
void Allocator::place_block(uint64_t block) {
  const Geometry& geometry = image_.geometry;
  const ClusterIndex place(end_++);
  const bool counts_itself = geometry.refcount_block_of(place) == block;
  if (!counts_itself) refcounts_.set(place, 1);  // dirty, so it stays in memory
  refcounts_.add_block(block, geometry.host_offset(place));
  if (counts_itself) refcounts_.set(place, 1);
}

// Moves the end until no block that there is says of the `count` clusters behind it that they are
// in use: leaks beyond the file's end, left by a crash.
Task<void> Allocator::skip_used(uint64_t count) {
  for (uint64_t at = end_; at < end_ + count; ++at) {
    const ClusterIndex cluster(at);
    const uint64_t block = image_.geometry.refcount_block_of(cluster);
    if (!refcounts_.has_block(block)) continue;
    co_await refcounts_.load(block);
    if (refcounts_.get(cluster) != 0 || metadata_.contains(cluster)) end_ = at + 1;
  }
}

// Clusters of a table with room for `block`, for the blocks that count the table itself, and half
// as much again, so that growing stays rare.
uint64_t Allocator::grown_table_clusters(uint64_t block) const {
  const Geometry& geometry = image_.geometry;
  const uint64_t per_cluster = geometry.refcount_table_entries(1);
  uint64_t clusters = 1;
  for (;;) {
    const uint64_t own_blocks = clusters / geometry.refcount_block_entries() + 2;
    const uint64_t needed = (block + 1 + own_blocks) * 3 / 2;
    const uint64_t fitting = (needed + per_cluster - 1) / per_cluster;
    if (fitting <= clusters) return clusters;
    clusters = fitting;
  }
}

Task<void> Allocator::grow_table(uint64_t block) {
  const Geometry& geometry = image_.geometry;
  const uint64_t clusters_max = limits::kQcow2RefcountTableBytesMax >> geometry.cluster_bits();
  const uint64_t clusters = std::min(grown_table_clusters(block), clusters_max);
  co_await skip_used(clusters);
  const uint64_t entries = geometry.refcount_table_entries(clusters);
  const uint64_t last_block = geometry.refcount_block_of(ClusterIndex(end_ + clusters)) +
                              clusters / geometry.refcount_block_entries() + 2;
  if (std::max(block, last_block) >= entries || entries <= refcounts_.table_entries()) {
    co_await fail(Error::of(ErrorKind::kNoSpace, "grow refcount table"));
  }
  co_await check_room(end_ + clusters);
  const uint64_t old_entries = refcounts_.table_entries();
  const ClusterRun old{geometry.host_cluster(refcounts_.table_place()),
                       old_entries / geometry.refcount_table_entries(1)};
  const ClusterRun run{ClusterIndex(end_), clusters};
  if (storage_.limits().grows) co_await extend_storage(end_ + clusters);
  co_await reserve(run);
  co_await claim(run);
  end_ += clusters;
  refcounts_.move_table(geometry.host_offset(run.first), entries);
  replaced_tables_.push_back(old);
  Result<void> counted = co_await count_table(run).result();
  // Half-counted it must never reach the disk.
  if (!counted.ok()) end_writing(image_, counted.error());
  co_await std::move(counted);
}

// The blocks that count a new refcount table are among those that it alone has room for, so they
// come after it.
Task<void> Allocator::count_table(ClusterRun run) {
  for (uint64_t i = 0; i < run.count; ++i) {
    co_await ensure_block(image_.geometry.refcount_block_of(run.first + i));
    CHECK_EQ(refcounts_.get(run.first + i), uint64_t{0});
    refcounts_.set(run.first + i, 1);
  }
}

// A run may be longer than what a refcount block counts. Blocks that are missing come first, at the
// end, until the run behind them meets none that is missing.
Task<ClusterRun> Allocator::allocate_contiguous(uint64_t count) {
  MutexLock lock = co_await allocating_.lock();
  const uint64_t per_block = image_.geometry.refcount_block_entries();
  std::optional<ClusterRun> hole;
  if (count <= per_block) hole = free_.find(count);
  if (hole) {
    NewClusters made = co_await allocate_hole(*hole);
    if (made.run.count == count) co_return made.run;
    // It crossed into the next block.
    for (uint64_t i = 0; i < made.run.count; ++i) refcounts_.set(made.run.first + i, 0);
    add_free(made.run);
  }
  for (;;) {
    bool is_ready = co_await prepare_run_at_end(count);
    if (is_ready) break;
  }
  const ClusterRun run{ClusterIndex(end_), count};
  if (storage_.limits().grows && storage_.size().value() < (end_ + count)
                                                               << image_.geometry.cluster_bits()) {
    co_await extend_storage(end_ + count);
  }
  end_ += count;
  for (uint64_t i = 0; i < count; ++i) {
    co_await refcounts_.load(image_.geometry.refcount_block_of(run.first + i));
    refcounts_.set(run.first + i, 1);
  }
  co_return run;
}

// Whether `count` clusters from end_ on are counted and free; else a step towards that.
Task<bool> Allocator::prepare_run_at_end(uint64_t count) {
  const Geometry& geometry = image_.geometry;
  const uint64_t first = end_;
  co_await check_room(first + count);
  const uint64_t last_block = geometry.refcount_block_of(ClusterIndex(first + count - 1));
  for (uint64_t block = geometry.refcount_block_of(ClusterIndex(first)); block <= last_block;
       ++block) {
    co_await ensure_block(block);
    if (end_ != first) co_return false;
  }
  for (uint64_t cluster = first; cluster < first + count; ++cluster) {
    co_await refcounts_.load(geometry.refcount_block_of(ClusterIndex(cluster)));
    if (refcounts_.get(ClusterIndex(cluster)) == 0 && !metadata_.contains(ClusterIndex(cluster))) {
      continue;
    }
    end_ = cluster + 1;  // in use already: left by a crash
    co_return false;
  }
  co_return true;
}

std::vector<ClusterRun> Allocator::take_replaced_tables() {
  for (ClusterRun table : replaced_tables_) metadata_.remove(table.first, table.count);
  return std::exchange(replaced_tables_, {});
}

}  // namespace ringdisk::qcow2
