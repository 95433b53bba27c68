// SPDX-License-Identifier: Apache-2.0
// The job as a whole: the cursor, the start and end of the lanes, the last flush. Piece by piece
// work is in rebase_lane.cc.
#include "jobs/rebase.h"

#include <algorithm>

#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/check.h"
#include "base/limits.h"
#include "jobs/rebase_lane.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint64_t kGranuleMin = 4 * limits::kKiB;
constexpr uint64_t kPieceMin = 256 * limits::kKiB;
constexpr uint64_t kRegionMin = 16 * limits::kMiB;

// Whole clusters, or subclusters, so that nothing has to be merged around what is copied. Only a
// whole cluster can be compressed.
uint64_t granule_for(const DeviceNode& overlay, RebaseOptions options) {
  const FormatLimits& limits = overlay.format().limits();
  if (options.compress) return limits.cluster_size.value();
  return std::max(limits.granularity().value(), kGranuleMin);
}

}  // namespace

RebaseJob::RebaseJob(const World& world, DeviceNode& overlay, DeviceNode* below,
                     RebaseOptions options)
    : world_(world),
      overlay_(overlay),
      below_(below),
      options_(options),
      total_bytes_(overlay.size().value()),
      granule_bytes_(granule_for(overlay, options)),
      piece_bytes_(std::max(granule_bytes_, kPieceMin)),
      cursor_(total_bytes_, std::max(piece_bytes_, kRegionMin)) {
  CHECK(!options.compress || overlay.format().limits().compresses);
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
