// SPDX-License-Identifier: Apache-2.0
// What a shard does for a rebase. A piece that reaches into what the overlay holds itself (its end
// is rounded) may write that over with itself, which changes nothing.
#include "jobs/rebase_lane.h"

#include <algorithm>
#include <cstring>

#include "async/scope.h"
#include "base/limits.h"
#include "codec/zero_detect.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr uint32_t kWorkers = 8;
constexpr uint32_t kWholeChain = limits::kBackingDepthMax;

bool is_same(Bytes one, Bytes other) { return memcmp(one.data(), other.data(), one.size()) == 0; }

}  // namespace

Task<void> RebaseLane::start(RebaseJob& job, Shard& shard) {
  RebaseLane lane(job, shard);
  co_await lane.run();
}

Task<void> RebaseLane::run() {
  overlay_ = co_await job_.overlay_.open_queue(shard_);
  if (job_.below_) below_ = co_await job_.below_->open_queue(shard_);
  auto one = [this](size_t) { return work(); };
  co_await when_all(kWorkers, one);
}

Task<void> RebaseLane::work() {
  for (;;) {
    const GuestRange piece = co_await next_piece();
    if (piece.empty()) co_return;
    Result<void> compared = co_await compare(piece).result();
    // The other workers of all lanes stop at their next piece.
    if (!compared.ok()) job_.stop();
    co_await std::move(compared);
    job_.done_bytes_.fetch_add(piece.length.value(), std::memory_order_relaxed);
    co_await NextTurn(shard_);
  }
}

// --- finding work

Task<GuestRange> RebaseLane::next_piece() {
  MutexLock lock = co_await lock_.lock();
  for (;;) {
    if (job_.is_stopped()) co_return GuestRange();
    if (region_.empty()) region_ = job_.cursor_.claim();
    if (region_.empty()) co_return GuestRange();
    if (!extent_.range.contains(region_.offset)) extent_ = co_await look_at(region_.offset);
    if (extent_.is_settled) region_ = job_.cursor_.claim_up_to(region_, extent_.range.end());
    const Extent piece = cut_piece();
    if (!piece.is_settled) co_return piece.range;
    job_.done_bytes_.fetch_add(piece.range.length.value(), std::memory_order_relaxed);
  }
}

// Takes the front of the region off: all of it that is settled, or one piece up to the next line of
// the grid.
RebaseLane::Extent RebaseLane::cut_piece() {
  GuestRange piece = region_.intersection(extent_.range);
  if (!extent_.is_settled) {
    const GuestOffset line =
        piece.offset.align_down(job_.piece_bytes_) + ByteCount(job_.piece_bytes_);
    piece = GuestRange::between(piece.offset, std::min(piece.end(), line));
  }
  region_ = GuestRange::between(piece.end(), region_.end());
  return {piece, extent_.is_settled};
}

// The extent that begins at `at`, as far as it goes, even beyond the region: what is known now need
// not be asked again.
Task<RebaseLane::Extent> RebaseLane::look_at(GuestOffset at) {
  const GuestRange rest = GuestRange::between(at, GuestOffset(job_.total_bytes_));
  BlockStatus own = co_await overlay_->block_status(rest, 0);
  const GuestRange range(at, own.length);
  Extent extent{range, true};
  if (!own.present) extent = co_await look_below(range);
  round_to_granules(extent);
  co_return extent;
}

// What both sides say without reading.
Task<RebaseLane::Extent> RebaseLane::look_below(GuestRange absent) {
  BlockStatus shown = co_await overlay_->block_status(absent, kWholeChain);
  Extent extent{GuestRange(absent.offset, shown.length), shown.zero};
  const uint64_t below_size = below_ ? below_->node().size().value() : 0;
  if (absent.offset.value() >= below_size) co_return extent;
  const GuestRange in_below =
      extent.range.intersection(GuestRange(GuestOffset(0), ByteCount(below_size)));
  BlockStatus below = co_await below_->block_status(in_below, kWholeChain);
  extent.range.length = below.length;
  extent.is_settled = shown.zero && below.zero;
  co_return extent;
}

// A granule that is of two kinds is compared. The extent begins at a granule; the disk's last one
// ends with the disk.
void RebaseLane::round_to_granules(Extent& extent) const {
  const GuestOffset disk_end(job_.total_bytes_);
  const GuestOffset end = extent.range.end();
  GuestOffset rounded = end == disk_end ? end : end.align_down(job_.granule_bytes_);
  if (!extent.is_settled || rounded == extent.range.offset) {
    extent.is_settled = false;
    rounded = std::min(end.align_up(job_.granule_bytes_), disk_end);
  }
  extent.range = GuestRange::between(extent.range.offset, rounded);
}

// --- comparing

Task<void> RebaseLane::compare(GuestRange piece) {
  const auto length = static_cast<size_t>(piece.length.value());
  Buffer shown_buffer = shard_.buffers().take(length);
  Buffer below_buffer = shard_.buffers().take(length);
  const MutableBytes shown = shown_buffer.first(length);
  const MutableBytes below = below_buffer.first(length);
  co_await overlay_->read(piece.offset, MutableBuffers(shown));
  co_await read_below(piece, below);
  co_await copy_differing(piece.offset, shown, below);
}

// Beyond the new image's end there are zeros.
Task<void> RebaseLane::read_below(GuestRange piece, MutableBytes target) {
  const uint64_t size = below_ ? below_->node().size().value() : 0;
  const GuestRange inside = piece.intersection(GuestRange(GuestOffset(0), ByteCount(size)));
  const auto length = static_cast<size_t>(inside.length.value());
  fill_zero(target.subspan(length));
  if (length != 0) co_await below_->read(piece.offset, MutableBuffers(target.first(length)));
}

// Runs of granules that differ, each of which is written at once.
Task<void> RebaseLane::copy_differing(GuestOffset at, Bytes shown, Bytes below) {
  size_t begin = 0;  // of the run of differing granules that ends at `done`
  for (size_t done = 0; done < shown.size();) {
    const size_t granule = std::min<size_t>(job_.granule_bytes_, shown.size() - done);
    const bool same = is_same(shown.subspan(done, granule), below.subspan(done, granule));
    if (same && begin < done) {
      co_await copy_run(at + ByteCount(begin), shown.subspan(begin, done - begin));
    }
    done += granule;
    if (same) begin = done;
  }
  if (begin < shown.size()) {
    co_await copy_run(at + ByteCount(begin), shown.subspan(begin));
  }
}

// Zeros are kept as such, granule by granule.
Task<void> RebaseLane::copy_run(GuestOffset at, Bytes shown) {
  job_.copied_bytes_.fetch_add(shown.size(), std::memory_order_relaxed);
  while (!shown.empty()) {
    const ZeroRun run = find_zero_run(shown, job_.granule_bytes_);
    if (run.zero) {
      const GuestRange zeroes(at, ByteCount(run.length));
      co_await overlay_->write_zeroes(zeroes, ZeroOptions());
    } else {
      co_await write_run(at, shown.first(run.length));
    }
    shown = shown.subspan(run.length);
    at += ByteCount(run.length);
  }
}

// Granules, which are clusters where they are to be compressed.
Task<void> RebaseLane::write_run(GuestOffset at, Bytes bytes) {
  if (!job_.options_.compress) {
    co_await overlay_->write(at, ConstBuffers(bytes), WriteOptions());
    co_return;
  }
  while (!bytes.empty()) {
    const Bytes cluster = bytes.first(std::min<size_t>(job_.granule_bytes_, bytes.size()));
    co_await overlay_->write_compressed(at, cluster, CompressOptions());
    bytes = bytes.subspan(cluster.size());
    at += ByteCount(cluster.size());
  }
}

}  // namespace ringdisk
