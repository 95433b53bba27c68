// SPDX-License-Identifier: Apache-2.0
// One pass: drain, count down, punch, free.
#include "qcow2/home/quarantine.h"

#include <algorithm>

#include "qcow2/damage.h"

namespace ringdisk::qcow2 {
Quarantine::Quarantine(Image& image, StorageAccess& storage, RefcountBlocks& refcounts,
                       Allocator& allocator, OpenClusters& open_clusters)
    : image_(image),
      storage_(storage),
      refcounts_(refcounts),
      allocator_(allocator),
      open_clusters_(open_clusters) {}

void Quarantine::add(std::vector<ClusterRun>& runs, ClusterRun run) {
  if (!runs.empty() && runs.back().first + runs.back().count == run.first) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
}

void Quarantine::removal_is_durable(const std::vector<ClusterRun>& runs) {
  is_writing_back_ = false;
  waiting_.insert(waiting_.end(), runs.begin(), runs.end());
}

// The first error travels on when everything else has been done.
Task<void> Quarantine::process() {
  const std::vector<ClusterRun> runs = std::exchange(waiting_, {});
  if (runs.empty()) co_return;
  CHECK(!is_processing_);
  is_processing_ = true;
  co_await image_.pins.drain();
  std::vector<ClusterRun> last;
  Result<void> outcome;
  for (ClusterRun run : runs) {
    Result<void> counted = co_await count_down(run, last).result();
    if (!counted.ok() && outcome.ok()) outcome = std::move(counted);
  }
  if (storage_.limits().unmaps) co_await punch(last);
  for (ClusterRun run : last) {
    Result<void> freed = co_await set_free(run).result();
    if (!freed.ok() && outcome.ok()) outcome = std::move(freed);
  }
  is_processing_ = false;
  co_await std::move(outcome);
}

// Clusters whose last reference this was are added to `last`.
Task<void> Quarantine::count_down(ClusterRun run, std::vector<ClusterRun>& last) {
  const Geometry& geometry = image_.geometry;
  for (uint64_t i = 0; i < run.count; ++i) {
    const ClusterIndex cluster = run.first + i;
    const uint64_t block = geometry.refcount_block_of(cluster);
    if (!refcounts_.has_block(block)) co_await fail(low_refcount(image_, cluster));
    co_await refcounts_.load(block);
    const uint64_t refcount = refcounts_.get(cluster);
    if (refcount == 0) co_await fail(low_refcount(image_, cluster));
    if (refcount == 1) {
      add(last, {cluster, 1});
    } else {
      refcounts_.set(cluster, refcount - 1);
    }
  }
}

Task<void> Quarantine::punch(const std::vector<ClusterRun>& runs) {
  for (size_t done = 0; done < runs.size();) {
    const size_t count = std::min<size_t>(runs.size() - done, limits::kPiecesInFlightMax);
    auto one = [&, done](size_t i) { return punch_one(runs[done + i]); };
    co_await when_all(count, one);
    done += count;
  }
}

// A hint to the storage; that it fails changes nothing.
Task<void> Quarantine::punch_one(ClusterRun run) {
  const HostRange range(image_.geometry.host_offset(run.first),
                        ByteCount(run.count << image_.geometry.cluster_bits()));
  Result<void> ignored = co_await storage_.discard(range).result();
  static_cast<void>(ignored.ok());
}

Task<void> Quarantine::set_free(ClusterRun run) {
  const Geometry& geometry = image_.geometry;
  for (uint64_t i = 0; i < run.count; ++i) {
    const ClusterIndex cluster = run.first + i;
    co_await refcounts_.load(geometry.refcount_block_of(cluster));
    // Two pointers at a cluster that was counted once.
    if (refcounts_.get(cluster) != 1) co_await fail(low_refcount(image_, cluster));
    refcounts_.set(cluster, 0);
    allocator_.add_free({cluster, 1});
  }
}

}  // namespace ringdisk::qcow2
