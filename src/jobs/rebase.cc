// SPDX-License-Identifier: Apache-2.0
// The job as a whole: the cursor, the start and end of the lanes, the last flush. Piece by piece
// work is in rebase_lane.cc.
#include "jobs/rebase.h"

#include <algorithm>

#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/limits.h"
#include "jobs/rebase_lane.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint64_t kGranuleMin = 4 * limits::kKiB;
constexpr uint64_t kPieceMin = 256 * limits::kKiB;
constexpr uint64_t kRegionMin = 16 * limits::kMiB;

// Whole clusters, or subclusters, so that nothing has to be merged around what is copied.
uint64_t granule_for(const DeviceNode& overlay) {
  return std::max(overlay.format().limits().granularity().value(), kGranuleMin);
}

}  // namespace

RebaseJob::RebaseJob(const World& world, DeviceNode& overlay, DeviceNode* below)
    : world_(world),
      overlay_(overlay),
      below_(below),
      total_bytes_(overlay.size().value()),
      granule_bytes_(granule_for(overlay)),
      piece_bytes_(std::max(granule_bytes_, kPieceMin)),
      region_bytes_(std::max(piece_bytes_, kRegionMin)) {}

GuestRange RebaseJob::claim_region() {
  const uint64_t begin = cursor_.fetch_add(region_bytes_, std::memory_order_relaxed);
  if (begin >= total_bytes_) return {};
  const uint64_t end = std::min(total_bytes_, begin + region_bytes_);
  return GuestRange::between(GuestOffset(begin), GuestOffset(end));
}

// Regions stay on their grid, so that pieces do.
GuestRange RebaseJob::claim_up_to(GuestRange region, GuestOffset wanted_end) {
  uint64_t wanted = wanted_end.value();
  if (wanted < total_bytes_) wanted -= wanted % region_bytes_;
  uint64_t expected = region.end().value();
  if (wanted <= expected) return region;
  if (!cursor_.compare_exchange_strong(expected, wanted, std::memory_order_relaxed)) return region;
  return GuestRange::between(region.offset, GuestOffset(wanted));
}

Task<void> RebaseJob::rebase_on(Shard& shard) {
  auto lane_on_shard = [this, &shard] { return RebaseLane::start(*this, shard); };
  Result<void> rebased = co_await shard.call(lane_on_shard).result();
  if (!rebased.ok()) stop();
  co_await std::move(rebased);
}

Task<void> RebaseJob::flush_overlay() {
  std::unique_ptr<DeviceQueue> queue = co_await overlay_.open_queue(Shard::current());
  co_await queue->flush();
}

Task<void> RebaseJob::run(CancelToken cancel) {
  StopOnCancel listener(cancel, stopped_);
  auto one = [this](size_t index) { return rebase_on(*world_.shards[index]); };
  co_await when_all(world_.shards.size(), one);
  if (cancel.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "rebase"));
  co_await flush_overlay();
}

}  // namespace ringdisk
