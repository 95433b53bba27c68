// SPDX-License-Identifier: Apache-2.0
// Regions begin and end where blocks do, so that no block is counted by two lanes.
#include "jobs/measure.h"

#include <algorithm>
#include <bit>

#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/check.h"
#include "base/limits.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

// 1024 clusters of 64 KiB: two slices of a qcow2 image's L2 tables. Large enough that the cursor is
// not what lanes meet at, small enough that they end together.
constexpr uint64_t kRegionMin = 64 * limits::kMiB;
// Look-ups that end at once between two turns of the shard.
constexpr uint32_t kLookUpsPerTurn = 256;

// What one lane has counted, in order.
class BlockCount {
 public:
  explicit BlockCount(uint64_t block_bytes) : block_bytes_(block_bytes) {}

  // Content, behind all that was added before; the block that both have a part of is counted once.
  void add(GuestRange content) {
    const uint64_t first = std::max(content.offset.value() / block_bytes_, next_);
    next_ = (content.end().value() - 1) / block_bytes_ + 1;
    if (next_ > first) blocks_ += next_ - first;
  }
  uint64_t blocks() const { return blocks_; }

 private:
  const uint64_t block_bytes_;
  uint64_t next_ = 0;  // the first block that is not counted
  uint64_t blocks_ = 0;
};

}  // namespace

MeasureJob::MeasureJob(const World& world, DeviceNode& disk, ByteCount block_size)
    : world_(world),
      disk_(disk),
      block_bytes_(block_size.value()),
      region_bytes_(std::max(block_bytes_, kRegionMin)),
      cursor_(disk.size().value(), region_bytes_) {
  CHECK(std::has_single_bit(block_bytes_));
}

Task<void> MeasureJob::count_here(Shard& shard) {
  std::unique_ptr<DeviceQueue> queue = co_await disk_.open_queue(shard);
  const GuestOffset disk_end(disk_.size().value());
  BlockCount count(block_bytes_);
  uint32_t look_ups = 0;
  for (GuestRange region = cursor_.claim(); !region.empty(); region = cursor_.claim()) {
    while (!region.empty() && !is_stopped()) {
      const BlockStatus status = co_await queue->block_status(
          GuestRange::between(region.offset, disk_end), limits::kBackingDepthMax);
      const GuestRange stretch(region.offset, status.length);
      region = cursor_.claim_up_to(region, stretch.end());
      const GuestRange seen = region.intersection(stretch);
      if (!status.zero) count.add(seen);
      region = GuestRange::between(seen.end(), region.end());
      if (++look_ups % kLookUpsPerTurn == 0) co_await NextTurn(shard);
    }
    if (is_stopped()) break;
  }
  blocks_.fetch_add(count.blocks(), std::memory_order_relaxed);
}

Task<void> MeasureJob::count_on(Shard& shard) {
  auto here = [this, &shard] { return count_here(shard); };
  Result<void> counted = co_await shard.call(here).result();
  if (!counted.ok()) stop();
  co_await std::move(counted);
}

// A shard for each region at the most: opening the chain's queues is work, too.
Task<ByteCount> MeasureJob::run(CancelToken cancel) {
  StopOnCancel listener(cancel, stopped_);
  const uint64_t regions = (disk_.size().value() + region_bytes_ - 1) / region_bytes_;
  const size_t lanes = std::min<uint64_t>(world_.shards.size(), regions);
  auto one = [this](size_t index) { return count_on(*world_.shards[index]); };
  co_await when_all(lanes, one);
  if (cancel.is_cancelled()) co_await fail(Error::of(ErrorKind::kCancelled, "measure"));
  co_return ByteCount(blocks_.load(std::memory_order_relaxed) * block_bytes_);
}

}  // namespace ringdisk
