// SPDX-License-Identifier: Apache-2.0
// Which pointers of an image lead into the tail of its file: the reverse map of a compaction
// (compactor.h). Every table is gone over; what leads elsewhere is only looked at for whether it
// leads into a hole that is about to be filled, which would be damage.
//
//   file   | ........ holes to be filled ........ | first ... tail ... |
//                  a pointer here: damage            remembered: which word, what it names
//
// Memory is bounded: with more pointers than `pointers_max` the tail begins later, and those that
// lead before it are forgotten. Words in tables that lie in the tail themselves are remembered by
// where they are now, so what is named is moved before what names it: data, then L2 tables, then L1
// tables. Entries that name places in a data file are not of this file.
#pragma once

#include <atomic>
#include <vector>

#include "qcow2/bitmaps/bitmap_reader.h"
#include "qcow2/edit/table_editor.h"
#include "qcow2/home/free_clusters.h"
#include "qcow2/layout/snapshot_table.h"

namespace ringdisk::qcow2 {

// What a pointer names, in the order in which it is moved: a pointer stands in something of a later
// kind.
enum class TailKind : uint8_t {
  kData,         // a cluster of a guest
  kStream,       // of a compressed cluster
  kBitmap,       // a cluster of a dirty bitmap's bits
  kTable,        // an L2 table
  kBitmapTable,  //
  kL1Table,      // of the disk or a snapshot
  kSnapshotTable,
  kBitmapDirectory,
  kEncryptionHeader,  // stays where it is (tail_plan.h)
};

// Eight bytes of the file, a big-endian number, that name a place.
struct TailPointer {
  uint64_t target = 0;  // first byte that is named
  uint64_t place = 0;   // of the word
  uint64_t raw = 0;     // what it says
  uint32_t length = 0;  // bytes that are named; a whole number of clusters but for kStream
  uint32_t count = 1;   // L1 tables that lead here
  TailKind kind = TailKind::kData;
  bool is_kept = false;  // kData: reads as zeros all of it, whatever the place holds

  uint64_t end() const { return target + length; }
};

// What the header and the snapshot table name; read anew for every pass, because they move.
struct TailRoots {
  Header header;
  SnapshotTable snapshots;
  BitmapDirectory bitmaps;
  std::vector<TailPointer> tables;  // in one piece each, of perhaps several clusters
};
// Of a table that fits a cluster any hole will do.
inline bool needs_a_run(const TailPointer& pointer, const Geometry& geometry) {
  return pointer.kind != TailKind::kStream && pointer.kind != TailKind::kEncryptionHeader &&
         pointer.length > geometry.cluster_size();
}
Task<TailRoots> read_tail_roots(HomeParts parts);
// "the L1 table", for people.
const char* name_of(TailKind kind);

// Holes that are about to be filled. Constant while shards look.
class HoleSet {
 public:
  void assign(std::vector<ClusterRun> runs);
  const std::vector<ClusterRun>& runs() const { return runs_; }
  bool contains(uint64_t cluster) const {
    if (filter_.empty() || !filter_[cluster & kFilterMask]) return false;
    return is_in_run(cluster);
  }

 private:
  // 2 MiB: exact up to 16 million clusters, 1 TiB at 64 KiB.
  static constexpr uint64_t kFilterMask = (uint64_t{1} << 24) - 1;
  bool is_in_run(uint64_t cluster) const;
  std::vector<ClusterRun> runs_;  // ascending
  std::vector<bool> filter_;
};

class TailScan {
 public:
  // The tail begins at cluster `first`, or later; `file_clusters` end the file, refcounts beyond it
  // included.
  TailScan(HomeParts parts, uint64_t first, uint64_t file_clusters, const HoleSet& holes,
           size_t pointers_max);

  // All tables, on all shards. kCorrupt: something is damaged; nothing may be moved.
  Task<void> run(const TailRoots& roots);

  // --- afterwards
  uint64_t first() const { return first_.load(std::memory_order_relaxed); }
  // By kind, target and length.
  const std::vector<TailPointer>& pointers() const { return pointers_; }

 private:
  // An L2 table and how many L1 tables lead to it.
  struct Level2 {
    uint64_t table;
    uint64_t count;
  };
  // What lanes share while they run.
  struct Work {
    std::vector<Level2> tables;
    std::atomic<size_t> next{0};
    std::atomic<bool> stopped{false};
  };
  class Lane;

  Task<void> scan_bitmap(const BitmapEntry& entry);
  Task<void> scan_l1(HostOffset at, uint64_t entries);
  Task<void> scan_level2();
  Task<void> run_lane(Shard& shard, Work& work, std::vector<TailPointer>& found);
  Result<void> note(const TailPointer& pointer, std::vector<TailPointer>& found, size_t found_max);
  void begin_later(std::vector<TailPointer>& found);
  void forget_before_first(std::vector<TailPointer>& found) const;
  void sort_pointers();
  Error damaged(const char* what, uint64_t at) const;

  const HomeParts parts_;
  const Geometry geometry_;
  const uint64_t file_clusters_;
  const HoleSet& holes_;
  const size_t pointers_max_;
  std::vector<Level2> level2_;
  std::vector<TailPointer> pointers_;

  // any shard
  std::atomic<uint64_t> first_;
};

}  // namespace ringdisk::qcow2
