// SPDX-License-Identifier: Apache-2.0
// Allocator: gives out host clusters and takes them back. Home shard only, writable images only.
//
//   0 ............ scanned ............ end at open ............ end ─────> the file grows here
//   | holes found by discover()  | holes not looked for yet |  ours  |
//
// A request is served from a known hole that fits it whole, else from the file's end, so that runs
// stay contiguous; tables from the end as long as there is room, where no entry can point yet.
// Holes that were there at open are found in passing, one refcount block a request, so that no
// request waits for a whole scan. What lies beyond the end at open and was never given out reads as
// zeros on storages that grow so.
//
// The file is made longer ahead of its use, in large steps: then its end never lies within a sector
// that the guest writes in parts (a crash that loses the last growth would tear it), and most
// writes find the file's size as it has to be. close() cuts off what is left over.
//
// Growing at the end meets clusters that no refcount block counts yet. The new block takes the
// first of them and counts itself; where the refcount table has no room for the block's entry, a
// larger table is placed there first, in memory; write-back makes it durable before the header
// points at it, and gives the old one back (write_back.h).
#pragma once

#include <cstdint>
#include <functional>

#include "async/mutex.h"
#include "qcow2/home/free_clusters.h"
#include "qcow2/home/metadata_map.h"
#include "qcow2/home/refcount_blocks.h"
#include "qcow2/home/slice_cache.h"

namespace ringdisk::qcow2 {

struct NewClusters {
  ClusterRun run;
  bool reads_zero = false;
};

class Allocator {
 public:
  Allocator(Image& image, StorageAccess& storage, RefcountBlocks& refcounts, MetadataMap& metadata,
            const SliceCache& slices);

  Task<void> open();

  // 1 to `count` contiguous clusters, whose refcount is one from now on (in memory). kNoSpace: the
  // storage or the format has no room. kCorrupt: the refcounts are not to be trusted.
  Task<NewClusters> allocate(uint64_t count);
  // One cluster for a table, in the metadata map from now on, with its space on the storage: a full
  // disk shows now, in the request that needs the table, and not when metadata is written back.
  Task<ClusterIndex> allocate_table();
  // `count` clusters one behind the other, however many: a table that must lie in one piece.
  // Refcount one each, as above; the space is not promised.
  Task<ClusterRun> allocate_contiguous(uint64_t count);
  // Takes back clusters that nothing ever pointed at (refcount one).
  Task<void> take_back(ClusterRun run);
  // The clusters' refcount has become zero and nobody is using them: they may be given out again.
  void add_free(ClusterRun run);

  // Cuts off what extend_storage was ahead. Nothing is allocated afterwards.
  Task<void> trim_storage();

  // Clusters of refcount tables that a larger one has replaced; the caller frees them when the
  // header says so on the disk.
  std::vector<ClusterRun> take_replaced_tables();

 private:
  static constexpr uint64_t kExtensionMin = 1 * limits::kMiB;
  static constexpr uint64_t kExtensionMax = 64 * limits::kMiB;

  Task<void> find_end();
  Task<void> discover();
  Task<NewClusters> allocate_hole(ClusterRun hole);
  Task<NewClusters> allocate_last_holes(uint64_t count, Error full);
  Task<NewClusters> allocate_for_table();
  Result<void> claim(ClusterRun run);
  Task<NewClusters> allocate_at_end(uint64_t count);
  Task<void> extend_storage(uint64_t end);
  Task<void> reserve(ClusterRun run);
  Task<void> ensure_block(uint64_t block);
  Task<bool> prepare_place(uint64_t block);
  void place_block(uint64_t block);
  Task<void> skip_used(uint64_t count);
  Task<void> grow_table(uint64_t block);
  Task<void> count_table(ClusterRun run);
  Task<bool> prepare_run_at_end(uint64_t count);
  uint64_t grown_table_clusters(uint64_t block) const;
  Result<void> check_room(uint64_t end) const;
  uint64_t free_at_end(uint64_t count);

  Image& image_;
  StorageAccess& storage_;
  RefcountBlocks& refcounts_;
  MetadataMap& metadata_;
  const SliceCache& slices_;
  Mutex allocating_;
  FreeClusters free_;
  uint64_t scanned_ = 0;   // clusters below were looked at, or never need to be
  uint64_t scan_end_ = 0;  // the end at open
  uint64_t end_ = 0;       // clusters from here on were never given out
  uint64_t extended_ = 0;  // bytes that extend_storage last made it; 0: never
  std::vector<ClusterRun> replaced_tables_;
};

}  // namespace ringdisk::qcow2
