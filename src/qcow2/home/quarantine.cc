// SPDX-License-Identifier: Apache-2.0
// One pass: drain, count down, punch, free.
#include "qcow2/home/quarantine.h"

#include <algorithm>

#include "qcow2/damage.h"
#include "qcow2/home/host_clusters.h"

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
  if (storage_.limits().unmaps && image_.options.gives_space_back) co_await punch(last);
  for (ClusterRun run : last) {
    Result<void> freed = co_await set_free(run).result();
    if (!freed.ok() && outcome.ok()) outcome = std::move(freed);
  }
  is_processing_ = false;
  co_await std::move(outcome);
}

// Clusters whose last reference this was are added to `last`.
Task<void> Quarantine::count_down(ClusterRun run, std::vector<ClusterRun>& last) {
  while (run.count != 0) {
    const ClusterRun part = front_in_one_block(run, image_.geometry);
    run = {part.first + part.count, run.count - part.count};
    const uint64_t block = image_.geometry.refcount_block_of(part.first);
    if (!refcounts_.has_block(block)) co_await fail(low_refcount(image_, part.first));
    co_await refcounts_.load(block);
    co_await count_down_part(part, last);
  }
}

Result<void> Quarantine::count_down_part(ClusterRun part, std::vector<ClusterRun>& last) {
  RefcountBlocks::Counters counters = refcounts_.counters(part.first);
  for (uint64_t i = 0; i < part.count; ++i) {
    const ClusterIndex cluster = part.first + i;
    const uint64_t refcount = counters.get(cluster);
    if (refcount == 0) return low_refcount(image_, cluster);
    if (refcount == 1) {
      add(last, {cluster, 1});
    } else {
      counters.set(cluster, refcount - 1);
    }
  }
  return {};
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
  while (run.count != 0) {
    const ClusterRun part = front_in_one_block(run, image_.geometry);
    run = {part.first + part.count, run.count - part.count};
    co_await refcounts_.load(image_.geometry.refcount_block_of(part.first));
    co_await set_part_free(part);
  }
}

Result<void> Quarantine::set_part_free(ClusterRun part) {
  RefcountBlocks::Counters counters = refcounts_.counters(part.first);
  for (uint64_t i = 0; i < part.count; ++i) {
    const ClusterIndex cluster = part.first + i;
    // Two pointers at a cluster that was counted once.
    if (counters.get(cluster) != 1) return low_refcount(image_, cluster);
    counters.set(cluster, 0);
    allocator_.add_free({cluster, 1});
  }
  return {};
}

}  // namespace ringdisk::qcow2
