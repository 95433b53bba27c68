// SPDX-License-Identifier: Apache-2.0
// HostSpace: which clusters of an image's file are in use and which are holes, by its refcounts, as
// a compaction wants to know it (compactor.h). Home shard only; no queue is in use.
//
//   0 ...... used and free ...... ws ...... tail ...... end
//
// `ws` is where the file would end if it had no holes: as many clusters as are in use lie before
// it. What is in use behind it fits the holes before it. Only clusters that a refcount block counts
// are holes. Memory: 16 bytes for each refcount block, and the refcount cache.
#pragma once

#include <unordered_set>
#include <vector>

#include "qcow2/edit/table_editor.h"
#include "qcow2/home/free_clusters.h"

namespace ringdisk::qcow2 {

class HostSpace {
 public:
  explicit HostSpace(HomeParts parts) : parts_(parts), geometry_(parts.image.geometry) {}

  // Reads all refcounts. Everything below is as of then.
  Task<void> survey();

  uint64_t used() const { return used_; }
  // Behind the last cluster in use but for refcount blocks that nothing but themselves needs.
  uint64_t end() const { return end_; }
  // ws.
  uint64_t dense_end() const;
  // Clusters in use from `first` on.
  Task<uint64_t> used_from(uint64_t first);

  // Holes before `limit`, lowest first, until there are `wanted` clusters of them; none that
  // reserve() has.
  Task<std::vector<ClusterRun>> find_holes(uint64_t limit, uint64_t wanted);
  // The lowest hole of `count` clusters before `limit`, from now on nobody else's; count 0: none.
  Task<ClusterRun> reserve_run(uint64_t limit, uint64_t count);
  void forget_reserved() { reserved_.clear(); }

  // Takes the refcount blocks that count nothing any more out of the table, durably; gives what
  // they took. Afterwards nothing lies behind end().
  Task<void> drop_empty_blocks();

  Task<uint64_t> refcount_of(ClusterIndex cluster);

 private:
  bool has_block(uint64_t block) const { return parts_.refcounts.has_block(block); }
  Task<uint64_t> count_used(uint64_t block, uint64_t first_cluster);
  Task<void> find_end();
  Task<void> note_droppable_places();
  Task<size_t> count_droppable();
  // The highest cluster that `block` counts and that is needed by more than `droppable_`, behind
  // it; 0: none.
  Task<uint64_t> needed_end_of(uint64_t block);
  Task<void> collect_holes(uint64_t block, uint64_t limit, uint64_t wanted,
                           std::vector<ClusterRun>& holes, uint64_t& found);
  bool is_reserved(uint64_t cluster) const;

  const HomeParts parts_;
  const Geometry geometry_;
  std::vector<uint64_t> used_of_block_;
  uint64_t used_ = 0;
  uint64_t end_ = 0;
  std::vector<uint64_t> droppable_;                // refcount blocks, the last one first
  std::unordered_set<uint64_t> droppable_places_;  // clusters in which they lie
  std::vector<ClusterRun> reserved_;
};

}  // namespace ringdisk::qcow2
