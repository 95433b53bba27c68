// SPDX-License-Identifier: Apache-2.0
// Quarantine: the way of a host cluster from the removal of its pointer to its next use. Home shard
// only.
//
//   release()            the pointer is gone from the tables in memory; no compressed stream joins
//                        the cluster any more
//   take_released()      a write-back takes the tables' state, and with it these clusters
//   removal_is_durable() it has succeeded: no crash brings the pointer back
//   process()            pins of that time drain (nobody is using the cluster any more)
//                        refcount above one: it goes down by one, done
//                        the last one: its space is given back to the storage; when that is over
//                        the refcount becomes zero and the allocator may give the cluster out again
//
// The refcount is one until the punch is over, so that no search can find the cluster too early. A
// pass that waits for a hung read delays reuse and nothing else.
#pragma once

#include <vector>

#include "qcow2/home/allocator.h"
#include "qcow2/home/open_clusters.h"

namespace ringdisk::qcow2 {

class Quarantine {
 public:
  Quarantine(Image& image, StorageAccess& storage, RefcountBlocks& refcounts, Allocator& allocator,
             OpenClusters& open_clusters);

  void release(ClusterIndex cluster) { release(ClusterRun{cluster, 1}); }
  void release(ClusterRun run) {
    const bool is_early = image_.planted_bug == PlantedBug::kFreedBeforeRemovalIsDurable;
    open_clusters_.leave(run);
    add(is_early ? waiting_ : released_, run);
  }
  // For one write-back at a time; removal_is_durable gives them back.
  std::vector<ClusterRun> take_released() {
    is_writing_back_ = !released_.empty();
    return std::exchange(released_, {});
  }
  void removal_is_durable(const std::vector<ClusterRun>& runs);
  bool has_waiting() const { return !waiting_.empty(); }
  // Whether a flush and a pass of process() would free anything, or either is under way.
  bool is_holding() const {
    return !released_.empty() || is_writing_back_ || !waiting_.empty() || is_processing_;
  }

  // Takes all that wait through the rest of the way. One call at a time. kCorrupt: the refcounts of
  // the image are wrong; what that concerns stays in use. An I/O error: likewise.
  Task<void> process();

 private:
  static void add(std::vector<ClusterRun>& runs, ClusterRun run);
  Task<void> count_down(ClusterRun run, std::vector<ClusterRun>& last);
  Result<void> count_down_part(ClusterRun part, std::vector<ClusterRun>& last);
  Task<void> punch(const std::vector<ClusterRun>& runs);
  Task<void> punch_one(ClusterRun run);
  Task<void> set_free(ClusterRun run);
  Result<void> set_part_free(ClusterRun part);

  Image& image_;
  StorageAccess& storage_;
  RefcountBlocks& refcounts_;
  Allocator& allocator_;
  OpenClusters& open_clusters_;
  std::vector<ClusterRun> released_;
  std::vector<ClusterRun> waiting_;
  bool is_writing_back_ = false;
  bool is_processing_ = false;
};

}  // namespace ringdisk::qcow2
