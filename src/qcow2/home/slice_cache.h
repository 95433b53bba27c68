// SPDX-License-Identifier: Apache-2.0
// SliceCache: owns the slices that all shards look at. Loads them, lets clean ones go when memory
// is full, and knows which differ from the disk. Home shard only.
//
//   not in memory ──load──> clean ──change──> dirty ──write-back begins──> held ──done──> clean
//                             │                                (held: clean, or dirty again)
//                             └──evicted──> retired: unreachable, freed when no lookup can be
//                                           reading it (Pins::Mark)
//
// A *new* table has a place and an L1 entry in memory but was never written: its slices come into
// being as zeros without a read, and the next write-back writes it whole, before its L1 entry.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "async/range_lock.h"
#include "qcow2/home/host_clusters.h"
#include "qcow2/home/metadata_map.h"
#include "qcow2/home/slice_eviction.h"
#include "qcow2/slice_reader.h"

namespace ringdisk::qcow2 {

class SliceCache {
 public:
  SliceCache(Image& image, StorageAccess& storage, const MetadataMap& metadata);

  // The slice, loaded if need be; valid until the caller next suspends (or as long as it holds it).
  // Its L1 entry has a table.
  Task<Slice*> get(uint64_t number);
  // What another shard read, as far as it is still what the disk holds. What is in `batch`
  // afterwards is memory that nobody uses (SliceReader::recycle).
  Task<void> take_in(SliceBatch& batch);
  void mark_dirty(Slice& slice);
  uint64_t dirty_count() const { return dirty_.size(); }
  uint64_t count() const { return eviction_.count(); }

  // Whether an entry in memory points at one of these clusters, which are about to become a
  // table's. Those that come into memory later are judged when they do. Costs nothing for clusters
  // behind all that was ever pointed at, as a file's end is; else a look at every entry in memory.
  bool is_pointed_at(ClusterRun run) const;

  // The table of this L1 index has just been given a place.
  void add_new_table(uint64_t l1_index) { new_tables_.insert(l1_index); }
  bool is_new_table(uint64_t l1_index) const { return new_tables_.contains(l1_index); }

  // --- for write-back
  // All dirty slices; they count as clean from now on, and are held until write_back_done.
  std::vector<Slice*> take_dirty();
  const std::set<uint64_t>& new_tables() const { return new_tables_; }
  void write_back_done(const std::vector<Slice*>& slices, const std::set<uint64_t>& tables);

 private:
  struct Retired {
    std::unique_ptr<Slice> slice;
    Pins::Mark mark;
  };

  static constexpr size_t kSparesMax = 16;

  Task<void> load(uint64_t number);
  void judge(const DecodedSlice& decoded);
  void reject_what_points_at_tables(Slice& slice) const;
  void insert(DecodedSlice decoded);
  void make_room();
  void free_retired();
  std::unique_ptr<Slice> take_spare();

  Image& image_;
  StorageAccess& storage_;
  const MetadataMap& metadata_;
  RangeLock loading_;  // slice numbers
  std::unordered_map<uint64_t, std::unique_ptr<Slice>> owned_;
  SliceEviction eviction_;
  std::deque<Retired> retired_;
  std::vector<std::unique_ptr<Slice>> spares_;
  std::vector<Slice*> dirty_;
  std::set<uint64_t> new_tables_;
  uint64_t pointed_end_ = 0;  // behind the last host cluster that an entry on the disk pointed at
};

}  // namespace ringdisk::qcow2
