// SPDX-License-Identifier: Apache-2.0
// Checker: drives a check. Lives in one coroutine, on one shard; lanes (check_lane.h) on all shards
// do what is much. The image is gone over in windows of host clusters, as many as memory allows at
// once:
//
//   window   |  0 … 400 M clusters  | … |            one, for an image of up to 25 TiB at 64 KiB
//     1  which clusters have the refcount one              lanes, a refcount block a piece
//     2  tables are counted and marked as metadata         the driver
//     3  what L2 tables point to is counted; COPIED        lanes, an L2 table a piece
//        flags are held against 1, owners against 2
//     4  counts are held against refcounts                 lanes, a refcount block a piece
//
// What an entry says by itself is judged, and told, in the first window alone. Repair (repair.h)
// goes over the same windows with stages of its own.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "async/cancel.h"
#include "block/format_admin.h"
#include "qcow2/check/check_lane.h"
#include "qcow2/layout/bitmap_directory.h"
#include "qcow2/layout/snapshot_table.h"
#include "runtime/world.h"

namespace ringdisk::qcow2 {

// Which references are counted.
struct Counting {
  // Those of the refcount table and its blocks as they are.
  bool refcount_tables = true;
  // And of a run of clusters besides: where new ones will lie.
  ClusterIndex first_new{0};
  uint64_t new_clusters = 0;
  // Only the tables that the header itself names are marked as fixed ones: what may not be given
  // up for what an entry says.
  bool marks_for_repair = false;
  // Only stages 1 and 2: entries of L2 tables are not followed.
  bool without_data = false;
};

class Checker {
 public:
  Checker(const World& world, SharedStorage& storage, CheckOptions options, CancelToken cancel,
          std::function<void(CheckProgress)> on_progress);

  // The header and the tables that it names. An error where they cannot be read at all.
  Task<void> open();
  // All stages in all windows.
  Task<void> check();
  Findings& findings() { return findings_; }
  CheckReport report();

  // --- for repair
  const World& world() const { return world_; }
  CheckedImage& image() { return *image_; }
  StorageAccess& storage() { return *storage_; }
  // Calls use(window number), a Task<void>, for each window with its references counted. Starts
  // again from window 0 when counts did not fit: `restart` then forgets what was gathered.
  template <class Use, class Restart>
  Task<void> for_each_window(Counting counting, Use& use, Restart& restart);
  // Calls use(place of an L1 table, is it the active one), a Task<void>, for the tables that can be
  // read; image().l1 holds the table.
  template <class Use>
  Task<void> for_each_l1(Use& use);
  Result<void> admit_more() const;  // kCancelled once the check has been
  // Whether more than one kind of metadata claims the cluster.
  bool is_contested(ClusterIndex cluster) const { return contested_.contains(cluster.value()); }
  // A new refcount table has taken the old one's place.
  Task<void> use_refcount_table(HostOffset at, uint32_t clusters);
  // Of as many snapshots as before.
  void use_snapshot_table(HostOffset at, ByteCount length);
  const std::vector<Snapshot>& snapshots() const { return snapshots_.snapshots; }

  Error refuse(ErrorKind kind, std::string why) const;

 private:
  struct L1Place {
    HostOffset at;
    uint32_t entries;
  };

  uint64_t window_clusters() const;
  uint64_t blocks_end() const;
  bool open_next_window();
  Task<void> count_window(Counting counting);
  Task<void> run_stage(LaneStage stage, uint64_t first, uint64_t end);
  Task<void> run_lane(LaneStage stage, Shard& shard, Findings& found);
  Task<void> complete_lines();
  size_t lanes_for(uint64_t pieces) const;
  void note_progress();

  void take_file_size();
  Task<std::vector<uint64_t>> read_table(HostOffset at, uint64_t entries);
  Task<void> load_refcount_table();
  Task<void> load_l1(L1Place place);
  void judge_snapshot_entries();
  void add_snapshot_l1(const Snapshot& snapshot);

  // Counts and marks clusters of metadata. False where some lie beyond the end.
  bool refer_table(HostOffset at, uint64_t length, const char* what, uint32_t flag);
  void refer_cluster_of_table(ClusterIndex cluster, const char* what, uint32_t flag);
  Task<void> refer_metadata(Counting counting);
  Task<void> refer_l1(L1Place place, bool is_active, Counting counting);
  void refer_l2_table(uint64_t l1_index);
  void refer_refcount_tables();
  Task<void> refer_bitmaps(uint32_t flag);
  void judge_bitmap(const BitmapEntry& entry, uint64_t number);
  Task<void> refer_bitmap(const BitmapEntry& entry, uint64_t number, uint32_t flag);

  const World& world_;
  SharedStorage& shared_storage_;
  const CheckOptions options_;
  const CancelToken cancel_;
  const std::function<void(CheckProgress)> on_progress_;
  std::unique_ptr<StorageAccess> storage_;
  std::unique_ptr<CheckedImage> image_;
  std::unique_ptr<CheckLane> own_lane_;  // on the driver's shard
  Findings findings_;

  std::vector<L1Place> l1_places_;  // the active one first; those that can be read
  Findings table_findings_;         // what was found wrong at open
  SnapshotTable snapshots_;
  HostOffset l1_loaded_;          // what image_->l1 holds
  std::set<uint64_t> contested_;  // clusters; bounded
  bool is_wide_ = false;
  uint64_t window_number_ = 0;
  // The lowest cluster at or behind the next window that is referred to.
  std::optional<ClusterIndex> references_from_;
  uint64_t progress_total_ = 1;
};

template <class Use, class Restart>
Task<void> Checker::for_each_window(Counting counting, Use& use, Restart& restart) {
  window_number_ = 0;
  references_from_ = ClusterIndex(0);
  image_->counts.close_window();
  while (open_next_window()) {
    co_await count_window(counting);
    if (image_->counts.overflowed()) {
      if (is_wide_) co_await fail(refuse(ErrorKind::kLimit, "a cluster has 2^28 references"));
      is_wide_ = true;
      window_number_ = 0;
      references_from_ = ClusterIndex(0);
      image_->counts.close_window();
      restart();
      continue;
    }
    co_await use(window_number_);
    ++window_number_;
  }
  image_->counts.close_window();
}

template <class Use>
Task<void> Checker::for_each_l1(Use& use) {
  for (size_t i = 0; i < l1_places_.size(); ++i) {
    co_await admit_more();
    co_await load_l1(l1_places_[i]);
    image_->l1_is_active = i == 0;
    co_await use(l1_places_[i].at);
  }
}

}  // namespace ringdisk::qcow2
