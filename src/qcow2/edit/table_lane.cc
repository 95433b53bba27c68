// SPDX-License-Identifier: Apache-2.0
// What a lane does with the tables and blocks it has taken.
#include "qcow2/edit/table_lane.h"

#include <algorithm>

#include "async/scope.h"
#include "qcow2/damage.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// Reads in flight: enough that a disk is not waited for one table at a time.
constexpr size_t kWorkers = 4;

}  // namespace

Result<void> check_table_place(const Image& image, HostOffset at, uint64_t words) {
  const Geometry& geometry = image.geometry;
  const uint64_t bytes = words * kEntryBytes;
  const uint64_t end = image.storage->node->size().value();
  const bool is_right = at.is_aligned(geometry.cluster_size()) &&
                        bytes <= limits::kQcow2L1BytesMax && at.value() <= end &&
                        geometry.clusters_of(bytes) <= geometry.clusters_of(end - at.value());
  if (bytes == 0 || is_right) return {};
  return damaged_table(image, at, words);
}

TableLane::TableLane(TableStage& stage, StorageAccess& storage, Shard& shard)
    : stage_(stage), storage_(storage), shard_(shard) {}

ClusterRuns TableLane::take_runs() {
  if (!std::is_sorted(runs_.begin(), runs_.end(), &comes_before)) {
    std::sort(runs_.begin(), runs_.end(), &comes_before);
  }
  return std::exchange(runs_, ClusterRuns());
}

Task<void> TableLane::run() {
  auto one = [this](size_t) { return take_pieces(); };
  co_await when_all(kWorkers, one);
}

Task<void> TableLane::take_pieces() {
  const uint64_t cluster_size = stage_.image.geometry.cluster_size();
  Buffer buffer = shard_.buffers().take(cluster_size);
  const MutableBytes bytes = buffer.first(cluster_size);
  while (!stage_.stopped.load(std::memory_order_relaxed)) {
    const uint64_t piece = stage_.next_piece.fetch_add(1, std::memory_order_relaxed);
    if (piece >= stage_.pieces_end) co_return;
    Result<void> done = co_await do_piece(piece, bytes).result();
    if (!done.ok()) stage_.stopped.store(true, std::memory_order_relaxed);
    co_await std::move(done);
  }
}

Task<void> TableLane::do_piece(uint64_t piece, MutableBytes buffer) {
  if (stage_.work == TableWork::kFindOnes) {
    if (stage_.refcounts.has_block(piece)) co_await find_ones(piece, buffer);
  } else if (stage_.l1[piece] != 0) {
    co_await do_table(piece, buffer);
  }
}

Task<void> TableLane::find_ones(uint64_t block, MutableBytes buffer) {
  const HostOffset at = co_await stage_.refcounts.block_place(block);
  co_await storage_.read(at, MutableBuffers(buffer));
  const Geometry& geometry = stage_.image.geometry;
  const ClusterIndex first = geometry.first_cluster_of_block(block);
  for (uint64_t i = 0; i < geometry.refcount_block_entries(); ++i) {
    if (load_refcount(buffer, geometry.refcount_order(), i) == 1) stage_.ones.mark(first + i);
  }
  co_await NextTurn(shard_);
}

Task<void> TableLane::do_table(uint64_t l1_index, MutableBytes buffer) {
  const Geometry& geometry = stage_.image.geometry;
  const L1Entry entry(stage_.l1[l1_index]);
  if (!entry.is_valid(geometry)) co_await fail(damaged_entry(stage_.image, "L1", entry.raw()));
  if (!entry.has_table()) co_return;
  co_await check_table_place(stage_.image, entry.table(), buffer.size() / kEntryBytes);
  co_await storage_.read(entry.table(), MutableBuffers(buffer));
  if (stage_.work == TableWork::kCollect) {
    co_await collect(entry, buffer);
  } else if (stage_.work == TableWork::kClearFlags) {
    stage_.flagged[l1_index] &= ~kCopied;
    if (clear_flags(buffer)) co_await storage_.write(entry.table(), ConstBuffers(Bytes(buffer)));
  } else {
    co_await correct_flag(stage_.flagged[l1_index], geometry.host_cluster(entry.table()));
    const bool is_changed = co_await correct_flags(buffer);
    if (is_changed) co_await storage_.write(entry.table(), ConstBuffers(Bytes(buffer)));
  }
  co_await NextTurn(shard_);
}

// --- collecting

// Neighbours within a table become one run, those of two tables do not: the order of clusters is
// then the same whichever lane takes which table.
Result<void> TableLane::collect(L1Entry entry, Bytes table) {
  const Image& image = stage_.image;
  const Geometry& geometry = image.geometry;
  ClusterRun last{geometry.host_cluster(entry.table()), 1};
  for (uint64_t i = 0; i < geometry.l2_entries(); ++i) {
    const L2Entry l2_entry = load_l2_entry(table, i, geometry);
    if (image.has_data_file() && !l2_entry.is_compressed()) continue;
    if (l2_entry.kind(geometry, image.has_zero_flag()) == EntryKind::kInvalid) {
      return damaged_entry(image, "L2", l2_entry.raw());
    }
    const ClusterRun run = host_clusters_of(l2_entry, geometry);
    if (run.count == 0) continue;
    if (last.first + last.count == run.first) {
      last.count += run.count;
    } else {
      runs_.push_back(std::exchange(last, run));
    }
  }
  runs_.push_back(last);
  return {};
}

// --- COPIED flags

bool TableLane::clear_flags(MutableBytes table) const {
  const Geometry& geometry = stage_.image.geometry;
  bool is_changed = false;
  for (uint64_t i = 0; i < geometry.l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(table, i, geometry);
    if (!entry.has_host() || !entry.is_copied()) continue;
    store_be64(&table[i * geometry.l2_entry_bytes()], entry.raw() & ~kCopied);
    is_changed = true;
  }
  return is_changed;
}

Result<bool> TableLane::correct_flags(MutableBytes table) const {
  const Geometry& geometry = stage_.image.geometry;
  bool is_changed = false;
  for (uint64_t i = 0; i < geometry.l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(table, i, geometry);
    if (!entry.has_host()) continue;
    uint64_t raw = entry.raw();
    RETURN_IF_ERROR(correct_flag(raw, geometry.host_cluster(entry.host())));
    if (raw == entry.raw()) continue;
    store_be64(&table[i * geometry.l2_entry_bytes()], raw);
    is_changed = true;
  }
  return is_changed;
}

Result<void> TableLane::correct_flag(uint64_t& raw, ClusterIndex cluster) const {
  if (!stage_.ones.covers(cluster)) {
    const uint64_t block = stage_.image.geometry.refcount_block_of(cluster);
    if (stage_.refcounts.has_block(block)) return {};
    return low_refcount(stage_.image, cluster);
  }
  raw = stage_.ones.is_one(cluster) ? raw | kCopied : raw & ~kCopied;
  return {};
}

}  // namespace ringdisk::qcow2
