// SPDX-License-Identifier: Apache-2.0
// What a lane does with the blocks and tables it has taken.
#include "qcow2/check/check_lane.h"

#include <algorithm>

#include "async/scope.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

using Number = unsigned long long;

// Reads in flight: enough that a disk is not waited for one table at a time.
constexpr size_t kWorkers = 4;
// Pieces taken at once: most entries of an L1 table may be empty.
constexpr uint64_t kPiecesAtOnce = 8;

}  // namespace

CheckLane::CheckLane(CheckedImage& image, StorageAccess& storage, Shard& shard)
    : image_(image), storage_(storage), shard_(shard) {}

Task<void> CheckLane::run(LaneStage stage) {
  // Refcounts are looked at in one window each.
  findings_.set_muted(image_.is_muted && stage == LaneStage::kScanTables);
  auto one = [this, stage](size_t) { return work(stage); };
  co_await when_all(kWorkers, one);
}

Task<void> CheckLane::work(LaneStage stage) {
  Buffer buffer = shard_.buffers().take(image_.geometry().cluster_size());
  MutableBytes bytes = buffer.first(image_.geometry().cluster_size());
  while (!image_.is_stopped()) {
    const uint64_t first = image_.next_piece.fetch_add(kPiecesAtOnce, std::memory_order_relaxed);
    if (first >= image_.pieces_end) co_return;
    const uint64_t end = std::min(image_.pieces_end, first + kPiecesAtOnce);
    for (uint64_t piece = first; piece < end; ++piece) {
      Result<void> done;
      if (stage == LaneStage::kLoadRefcounts) {
        done = co_await load_refcounts(piece, bytes).result();
      } else if (stage == LaneStage::kScanTables) {
        done = co_await scan_table(piece, bytes).result();
      } else {
        done = co_await compare_refcounts(piece, bytes).result();
      }
      if (!done.ok()) image_.stopped.store(true, std::memory_order_relaxed);
      co_await std::move(done);
    }
    image_.done.fetch_add(end - first, std::memory_order_relaxed);
    if (on_piece_) on_piece_();
  }
}

// --- refcounts

Task<void> CheckLane::load_refcounts(uint64_t block, MutableBytes buffer) {
  if (!image_.has_block(block)) co_return;
  co_await storage_.read(HostOffset(image_.refcount_table[block]), MutableBuffers(buffer));
  const Geometry& geometry = image_.geometry();
  const ClusterIndex first = geometry.first_cluster_of_block(block);
  for (uint64_t i = 0; i < geometry.refcount_block_entries(); ++i) {
    if (load_refcount(buffer, geometry.refcount_order(), i) != 1) continue;
    image_.counts.mark(first + i, ReferenceCounts::kIsOne);
  }
  co_await NextTurn(shard_);
}

Task<void> CheckLane::compare_refcounts(uint64_t block, MutableBytes buffer) {
  if (!image_.has_block(block)) {
    compare_block_without_counters(block);
    co_return;
  }
  co_await storage_.read(HostOffset(image_.refcount_table[block]), MutableBuffers(buffer));
  const Geometry& geometry = image_.geometry();
  const ClusterIndex first = geometry.first_cluster_of_block(block);
  for (uint64_t i = 0; i < geometry.refcount_block_entries(); ++i) {
    compare_one(first + i, load_refcount(buffer, geometry.refcount_order(), i));
  }
  co_await NextTurn(shard_);
}

void CheckLane::compare_block_without_counters(uint64_t block) {
  const Geometry& geometry = image_.geometry();
  const ClusterIndex first = geometry.first_cluster_of_block(block);
  const uint64_t end =
      std::min(first.value() + geometry.refcount_block_entries(), image_.rules.file_clusters);
  // A file of petabytes without a byte in them takes no time.
  auto next = [this](uint64_t at) {
    return image_.counts.skip_uncounted(ClusterIndex(at)).value();
  };
  for (uint64_t at = next(first.value()); at < end; at = next(at + 1)) {
    const ClusterIndex cluster(at);
    const uint64_t references = image_.counts.count(cluster);
    if (references == 0) continue;
    findings_.end_cluster = std::max(findings_.end_cluster, at + 1);
    findings_.add(FindingKind::kRefcountTables, CheckStage::kRefcounts, at,
                  "cluster %llu refcount=0 reference=%llu", static_cast<Number>(at),
                  static_cast<Number>(references));
  }
}

void CheckLane::compare_one(ClusterIndex cluster, uint64_t refcount) {
  const uint64_t references = image_.counts.count(cluster);
  if ((references | refcount) == 0) return;
  if (cluster.value() < image_.rules.file_clusters) {
    findings_.end_cluster = std::max(findings_.end_cluster, cluster.value() + 1);
  }
  if (references == refcount) [[likely]]
    return;
  FindingKind kind = FindingKind::kRefcountTooLow;
  if (refcount > references) kind = FindingKind::kLeak;
  // Wider refcounts would be needed.
  if (references > image_.geometry().refcount_max()) kind = FindingKind::kOther;
  findings_.add(kind, CheckStage::kRefcounts, cluster.value(),
                "cluster %llu refcount=%llu reference=%llu", static_cast<Number>(cluster.value()),
                static_cast<Number>(refcount), static_cast<Number>(references));
}

// --- guest tables

void CheckLane::check_copied_of_table(uint64_t l1_index) {
  const L1Entry entry(image_.l1[l1_index]);
  const ClusterIndex table = image_.geometry().host_cluster(entry.table());
  if (!image_.l1_is_active || !image_.counts.covers(table)) return;
  const bool is_one = (image_.counts.flags(table) & ReferenceCounts::kIsOne) != 0;
  if (is_one == entry.is_copied()) return;
  const Findings::Unmuted here(findings_);
  findings_.add(FindingKind::kCopiedFlag, CheckStage::kCopiedFlags,
                image_.geometry().first_cluster_of(l1_index).value(),
                "OFLAG_COPIED L2 cluster: l1_index=%llu l1_entry=%llx",
                static_cast<Number>(l1_index), static_cast<Number>(entry.raw()));
  findings_.end_with_refcount(table);
}

Task<void> CheckLane::scan_table(uint64_t l1_index, MutableBytes buffer) {
  if (!names_table(image_.l1[l1_index], image_.rules)) co_return;
  check_copied_of_table(l1_index);
  co_await storage_.read(L1Entry(image_.l1[l1_index]).table(), MutableBuffers(buffer));
  scan_entries(image_, findings_, buffer, l1_index);
  co_await NextTurn(shard_);
}

}  // namespace ringdisk::qcow2
