// SPDX-License-Identifier: Apache-2.0
// What a shard does for a copy. Storages may complete in place (page cache, memory), so a worker
// lets the rest of the shard run after every kTurnBytes; what it reads it writes before that, while
// it is in the cache.
#include "jobs/copy_lane.h"

#include <algorithm>

#include "async/scope.h"
#include "base/check.h"
#include "codec/zero_detect.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

// A look at everything below the image.
constexpr uint32_t kWholeChain = limits::kBackingDepthMax;
constexpr size_t kSectorBytes = 512;
constexpr uint64_t kUnknownStretchBytes = 64 * limits::kKiB;
constexpr Duration kSleepMax = std::chrono::milliseconds(50);

}  // namespace

Task<UnreadableRanges> CopyLane::start(CopyJob& job, Shard& shard, uint32_t workers) {
  CopyLane lane(job, shard);
  co_await lane.run(workers);
  co_return std::move(lane.unreadable_);
}

Task<void> CopyLane::run(uint32_t workers) {
  for (DeviceNode* source : job_.sources_) {
    std::unique_ptr<DeviceQueue> queue = co_await source->open_queue(shard_);
    sources_.push_back(std::move(queue));
  }
  target_ = co_await job_.target_.open_queue(shard_);
  auto one = [this](size_t) { return work(); };
  co_await when_all(workers, one);
}

Task<void> CopyLane::work() {
  for (;;) {
    Extent piece = co_await next_piece();
    if (piece.range.empty()) co_return;
    Result<void> done;
    if (piece.treatment == Treatment::kCopy) {
      done = co_await copy_piece(piece.range).result();
    } else {
      done = co_await target_->write_zeroes(piece.range, ZeroOptions()).result();
    }
    // The other workers of all lanes stop at their next piece.
    if (!done.ok()) job_.stop();
    co_await std::move(done);
    job_.done_bytes_.fetch_add(piece.range.length.value(), std::memory_order_relaxed);
    co_await NextTurn(shard_);
  }
}

Task<CopyLane::Extent> CopyLane::next_piece() {
  MutexLock lock = co_await lock_.lock();
  for (;;) {
    if (job_.is_stopped()) co_return Extent();
    if (region_.empty()) region_ = job_.cursor_.claim();
    if (region_.empty()) co_return Extent();
    if (!extent_.range.contains(region_.offset)) {
      extent_ = co_await look_at(region_.offset);
    }
    if (extent_.treatment != Treatment::kCopy) {
      region_ = job_.cursor_.claim_up_to(region_, extent_.range.end());
    }
    Extent piece = cut_piece();
    if (piece.treatment != Treatment::kLeave) co_return piece;
    job_.done_bytes_.fetch_add(piece.range.length.value(), std::memory_order_relaxed);
  }
}

// Takes the front of the region off: all of it that is of one kind, or one piece up to the next
// line of the grid.
CopyLane::Extent CopyLane::cut_piece() {
  GuestRange piece = region_.intersection(extent_.range);
  if (extent_.treatment == Treatment::kCopy) {
    GuestOffset line =
        piece.offset.align_down(job_.options_.piece_bytes) + ByteCount(job_.options_.piece_bytes);
    piece = GuestRange::between(piece.offset, std::min(piece.end(), line));
  }
  region_ = GuestRange::between(piece.end(), region_.end());
  return {piece, extent_.treatment};
}

size_t CopyLane::source_at(GuestOffset at) const {
  auto after = std::upper_bound(job_.source_begins_.begin(), job_.source_begins_.end(), at);
  return static_cast<size_t>(after - job_.source_begins_.begin()) - 1;
}

CopyLane::Treatment CopyLane::treatment_of(const BlockStatus& status) const {
  if (job_.options_.target_has_backing && !status.present) {
    // An image that ends before the one above it does hides what lies below it with zeros.
    const bool is_past_end = status.zero && status.depth + 1 < job_.options_.layers;
    if (!is_past_end) return Treatment::kLeave;
  }
  if (!status.zero) return Treatment::kCopy;
  return job_.options_.target_reads_zero ? Treatment::kLeave : Treatment::kZero;
}

// The extent that begins at `at`, as far as it goes, even beyond the region: what is known now need
// not be asked again.
Task<CopyLane::Extent> CopyLane::look_at(GuestOffset at) {
  const size_t index = source_at(at);
  const GuestOffset begin = job_.source_begins_[index];
  const GuestOffset end = begin + sources_[index]->node().size();
  Extent extent;
  extent.range = GuestRange::between(at, end);
  extent.treatment = Treatment::kCopy;
  if (job_.options_.sparse_bytes != 0 || job_.options_.target_has_backing) {
    const GuestRange in_source(GuestOffset((at - begin).value()), extent.range.length);
    BlockStatus status = co_await status_at(index, in_source);
    extent.range.length = status.length;
    extent.treatment = treatment_of(status);
  }
  if (job_.cluster_bytes_ != 0) round_to_clusters(extent);
  co_return extent;
}

// Where not even the tables can be read, reading shows what is left of it, a stretch at a time.
Task<BlockStatus> CopyLane::status_at(size_t index, GuestRange in_source) {
  const CopyOptions& options = job_.options_;
  const uint32_t depth_max = options.target_has_backing ? options.layers - 1 : kWholeChain;
  Result<BlockStatus> status =
      co_await sources_[index]->block_status(in_source, depth_max).result();
  if (status.ok() || !options.salvage) co_return status;
  BlockStatus unknown;
  unknown.length = std::min(in_source.length, ByteCount(kUnknownStretchBytes));
  unknown.present = unknown.data = true;
  co_return unknown;
}

// A cluster that is of two kinds is copied. The extent begins at a cluster; the disk's last cluster
// ends with the disk.
void CopyLane::round_to_clusters(Extent& extent) const {
  const GuestOffset disk_end(job_.total_bytes_);
  const GuestOffset end = extent.range.end();
  GuestOffset rounded = end.align_down(job_.cluster_bytes_);
  if (end == disk_end) rounded = end;
  if (extent.treatment == Treatment::kCopy || rounded == extent.range.offset) {
    extent.treatment = Treatment::kCopy;
    rounded = std::min(end.align_up(job_.cluster_bytes_), disk_end);
  }
  extent.range = GuestRange::between(extent.range.offset, rounded);
}

// Sleeps in short turns, so that a stop is heard.
Task<void> CopyLane::keep_pace(ByteCount bytes) {
  const Clock& clock = shard_.clock();
  const Instant begin = job_.pacer_.claim(bytes.value(), clock.now());
  for (;;) {
    const Duration left = begin - clock.now();
    if (left <= Duration(0) || job_.is_stopped()) co_return;
    Result<void> slept = co_await shard_.sleep(std::min<Duration>(left, kSleepMax));
    co_await std::move(slept);
  }
}

Task<void> CopyLane::copy_piece(GuestRange piece) {
  if (job_.options_.bytes_per_second != 0) co_await keep_pace(piece.length);
  // Taken for each piece: with a source that completes at once the same, warm, buffer serves all
  // workers.
  Buffer buffer = shard_.buffers().take(piece.length.value());
  const MutableBytes bytes = buffer.first(piece.length.value());
  co_await read_sources(piece.offset, bytes);
  if (job_.cluster_bytes_ != 0) {
    co_await write_clusters(piece.offset, bytes);
  } else {
    co_await write_runs(piece.offset, bytes);
  }
}

// One source, or several where a cluster of the target lies across their ends.
Task<void> CopyLane::read_sources(GuestOffset at, MutableBytes target) {
  while (!target.empty()) {
    const size_t index = source_at(at);
    const ByteCount in_source = at - job_.source_begins_[index];
    const ByteCount rest = sources_[index]->node().size() - in_source;
    const MutableBytes here = target.first(std::min<uint64_t>(rest.value(), target.size()));
    co_await read_source(index, GuestOffset(in_source.value()), here);
    target = target.subspan(here.size());
    at += ByteCount(here.size());
  }
}

Task<void> CopyLane::read_source(size_t index, GuestOffset at, MutableBytes target) {
  Result<void> read = co_await sources_[index]->read(at, MutableBuffers(target)).result();
  if (!read.ok() && job_.options_.salvage) {
    co_await read_past_errors(index, at, target);
    co_return;
  }
  co_await std::move(read);
}

// Half as much after a failure, twice as much after a success; a sector that fails is zeros.
Task<void> CopyLane::read_past_errors(size_t index, GuestOffset at, MutableBytes target) {
  size_t wanted = target.size() / 2;
  while (!target.empty() && !job_.is_stopped()) {
    wanted = std::max(wanted - wanted % kSectorBytes, kSectorBytes);
    const MutableBytes here = target.first(std::min(wanted, target.size()));
    Result<void> read = co_await sources_[index]->read(at, MutableBuffers(here)).result();
    if (!read.ok() && here.size() > kSectorBytes) {
      wanted = here.size() / 2;
      continue;
    }
    wanted *= 2;
    if (!read.ok()) {
      fill_zero(here);
      const GuestOffset in_target = job_.source_begins_[index] + (at - GuestOffset(0));
      unreadable_.add(GuestRange(in_target, ByteCount(here.size())), read.error());
    }
    target = target.subspan(here.size());
    at += ByteCount(here.size());
  }
}

// Cluster by cluster; the piece begins at one.
Task<void> CopyLane::write_clusters(GuestOffset at, Bytes bytes) {
  while (!bytes.empty() && !job_.is_stopped()) {
    const Bytes cluster = bytes.first(std::min<uint64_t>(job_.cluster_bytes_, bytes.size()));
    co_await write_cluster(at, cluster);
    bytes = bytes.subspan(cluster.size());
    at += ByteCount(cluster.size());
  }
}

Task<void> CopyLane::write_cluster(GuestOffset at, Bytes cluster) {
  const GuestRange range(at, ByteCount(cluster.size()));
  if (job_.granule_bytes_ != 0 && is_zero(cluster)) {
    if (!job_.options_.target_reads_zero) co_await target_->write_zeroes(range, ZeroOptions());
    co_return;
  }
  // The target goes on behind the sources' end: that cluster is not ours as a whole.
  const bool is_whole = cluster.size() == job_.cluster_bytes_ ||
                        range.end().value() == target_->node().size().value();
  if (!is_whole) {
    co_await target_->write(at, ConstBuffers(cluster), WriteOptions());
    co_return;
  }
  CompressOptions options;
  options.level = job_.options_.compression_level;
  co_await target_->write_compressed(at, cluster, options);
}

// Runs are cut at multiples of the granule on the disk, not in the buffer.
Task<void> CopyLane::write_runs(GuestOffset at, Bytes bytes) {
  const uint64_t granule = job_.granule_bytes_;
  if (granule == 0) {
    co_await target_->write(at, ConstBuffers(bytes), WriteOptions());
    co_return;
  }
  while (!bytes.empty()) {
    const uint64_t to_line = granule - at.offset_in(granule).value();
    const Bytes window =
        to_line == granule ? bytes : bytes.first(std::min<size_t>(to_line, bytes.size()));
    const ZeroRun run = find_zero_run(window, granule);
    if (!run.zero) {
      co_await target_->write(at, ConstBuffers(bytes.first(run.length)), WriteOptions());
    } else if (!job_.options_.target_reads_zero) {
      co_await target_->write_zeroes(GuestRange(at, ByteCount(run.length)), ZeroOptions());
    }
    bytes = bytes.subspan(run.length);
    at += ByteCount(run.length);
  }
}

}  // namespace ringdisk
