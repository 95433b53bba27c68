// SPDX-License-Identifier: Apache-2.0
// TableLane: the part that one shard has in going over the L2 tables of one L1 table. Lanes of all
// shards take pieces (tables, or refcount blocks) from a common cursor, so that none waits for
// another's large piece; the driver on the home shard (table_walk.h) waits for all of them.
//
// TableStage is what they share: the driver's, and constant while lanes run but for what says
// otherwise. Nobody changes refcounts meanwhile where a stage reads them.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "async/task.h"
#include "block/storage_access.h"
#include "qcow2/home/host_clusters.h"
#include "qcow2/home/refcount_blocks.h"
#include "qcow2/image.h"

namespace ringdisk::qcow2 {

using ClusterRuns = std::vector<ClusterRun>;

// The order of runs: by what they lead to. Whoever collects the same tables again gets the same.
inline bool comes_before(const ClusterRun& one, const ClusterRun& other) {
  return one.first != other.first ? one.first < other.first : one.count < other.count;
}

enum class TableWork : uint8_t {
  kCollect,      // gathers the host clusters that tables lead to, and the tables' own
  kClearFlags,   // takes COPIED off entries and off `flagged`
  kFindOnes,     // pieces are refcount blocks: which clusters of the window have the refcount one
  kCorrectFlags  // sets COPIED exactly where that is so, for hosts within the window
};

// Which clusters of a window have the refcount one, a bit each. A refcount block has whole words of
// it, so lanes that work on different blocks touch different words.
class RefcountOnes {
 public:
  // Whole refcount blocks.
  void open(ClusterIndex first, uint64_t clusters) {
    first_ = first;
    clusters_ = clusters;
    words_.assign(clusters / 64, 0);
  }
  bool covers(ClusterIndex cluster) const {
    return cluster >= first_ && cluster - first_ < clusters_;
  }
  bool is_one(ClusterIndex cluster) const {
    const uint64_t bit = cluster - first_;
    return (words_[bit / 64] >> bit % 64 & 1) != 0;
  }
  void mark(ClusterIndex cluster) {
    const uint64_t bit = cluster - first_;
    words_[bit / 64] |= uint64_t{1} << bit % 64;
  }

 private:
  ClusterIndex first_{0};
  uint64_t clusters_ = 0;
  std::vector<uint64_t> words_;
};
static_assert(Geometry(9, 6).refcount_block_entries() % 64 == 0);

struct TableStage {
  TableStage(Image& the_image, const RefcountBlocks& the_refcounts,
             std::span<const uint64_t> the_l1)
      : image(the_image), refcounts(the_refcounts), l1(the_l1) {}

  Image& image;
  const RefcountBlocks& refcounts;
  const std::span<const uint64_t> l1;
  std::span<uint64_t> flagged;  // the same words, where flags change; each is one lane's at a time
  TableWork work = TableWork::kCollect;
  uint64_t pieces_end = 0;
  RefcountOnes ones;  // any shard while they are found: see there

  // any shard
  std::atomic<uint64_t> next_piece{0};
  std::atomic<bool> stopped{false};
};

// kCorrupt: a table of so many words cannot lie there.
Result<void> check_table_place(const Image& image, HostOffset at, uint64_t words);

class TableLane {
 public:
  // On the shard that it belongs to, as `storage` does.
  TableLane(TableStage& stage, StorageAccess& storage, Shard& shard);

  // As much of a stage as the other lanes leave.
  Task<void> run();
  // What was collected, in ascending order.
  ClusterRuns take_runs();

 private:
  Task<void> take_pieces();
  Task<void> do_piece(uint64_t piece, MutableBytes buffer);
  Task<void> find_ones(uint64_t block, MutableBytes buffer);
  Task<void> do_table(uint64_t l1_index, MutableBytes buffer);
  Result<void> collect(L1Entry entry, Bytes table);
  bool clear_flags(MutableBytes table) const;
  Result<bool> correct_flags(MutableBytes table) const;
  Result<void> correct_flag(uint64_t& raw, ClusterIndex cluster) const;

  TableStage& stage_;
  StorageAccess& storage_;
  Shard& shard_;
  ClusterRuns runs_;
};

}  // namespace ringdisk::qcow2
