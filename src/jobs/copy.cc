// SPDX-License-Identifier: Apache-2.0
// The job as a whole: the cursor, the start and end of the lanes, the last flush. Piece by piece
// work is in copy_lane.cc.
#include "jobs/copy.h"

#include <algorithm>
#include <bit>

#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/check.h"
#include "jobs/copy_lane.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

// Looking for zeros in smaller blocks than the target can leave out would only split its writes;
// but a block with large clusters is not to be filled with zeros because of a few bytes in it.
constexpr uint64_t kGranuleMax = 64 * limits::kKiB;

uint64_t granule_for(const CopyOptions& options, const FormatLimits& target) {
  if (options.sparse_bytes == 0 || target.maps_directly) return options.sparse_bytes;
  return std::max(options.sparse_bytes, std::min(target.granularity().value(), kGranuleMax));
}

// Compressing a region takes many times as long as copying it, so regions are smaller, that no
// shard is left alone with the last one for long.
constexpr uint64_t kCompressedRegionBytes = 4 * limits::kMiB;

CopyOptions fitted(CopyOptions options, const FormatLimits& target) {
  if (!options.compress) return options;
  CHECK(target.compresses);
  options.piece_bytes = std::max(options.piece_bytes, target.cluster_size.value());
  options.region_bytes =
      std::max(std::min(options.region_bytes, kCompressedRegionBytes), options.piece_bytes);
  return options;
}

uint64_t size_of_all(const std::vector<DeviceNode*>& disks) {
  uint64_t bytes = 0;
  for (const DeviceNode* disk : disks) bytes += disk->size().value();
  return bytes;
}

}  // namespace

CopyJob::CopyJob(const World& world, std::vector<DeviceNode*> sources, DeviceNode& target,
                 CopyOptions options)
    : world_(world),
      sources_(std::move(sources)),
      target_(target),
      options_(fitted(options, target.format().limits())),
      total_bytes_(size_of_all(sources_)),
      cursor_(total_bytes_, options_.region_bytes),
      pacer_(options_.bytes_per_second) {
  CHECK(options_.sparse_bytes == 0 || std::has_single_bit(options_.sparse_bytes));
  CHECK(std::has_single_bit(options_.piece_bytes));
  CHECK_GE(options_.layers, 1u);
  CHECK_EQ(options_.region_bytes % options_.piece_bytes, uint64_t{0});
  GuestOffset begin(0);
  for (const DeviceNode* source : sources_) {
    source_begins_.push_back(begin);
    begin += source->size();
  }
  CHECK_LE(total_bytes_, target.size().value());
  granule_bytes_ = granule_for(options_, target.format().limits());
  if (options_.compress) cluster_bytes_ = target.format().limits().cluster_size.value();
}

Task<void> CopyJob::copy_on(Shard& shard) {
  const auto shards = static_cast<uint32_t>(world_.shards.size());
  const uint32_t wanted = options_.requests_in_flight;
  const uint32_t workers = wanted == 0 ? kCopyRequestsPerShard : (wanted + shards - 1) / shards;
  auto lane_on_shard = [this, &shard, workers] { return CopyLane::start(*this, shard, workers); };
  Result<UnreadableRanges> unread = co_await shard.call(lane_on_shard).result();
  if (!unread.ok()) stop();
  const UnreadableRanges of_lane = co_await std::move(unread);
  unreadable_.add_all(of_lane);
}

Task<void> CopyJob::flush_target() {
  std::unique_ptr<DeviceQueue> queue = co_await target_.open_queue(Shard::current());
  co_await queue->flush();
}

Task<void> CopyJob::run(CancelToken cancel) {
  StopOnCancel listener(cancel, stopped_);
  auto one = [this](size_t index) { return copy_on(*world_.shards[index]); };
  co_await when_all(world_.shards.size(), one);
  if (cancel.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "copy"));
  co_await flush_target();
}

}  // namespace ringdisk
