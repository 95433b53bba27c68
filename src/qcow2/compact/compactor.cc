// SPDX-License-Identifier: Apache-2.0
// Passes, and what is around them.
#include "qcow2/compact/compactor.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/damage.h"

namespace ringdisk::qcow2 {
namespace {

constexpr size_t kBlocksAtOnce = 64;
// A pass goes over all tables: not for less than this part of the file.
constexpr uint64_t kGainWorthAPass = 1024;
// One behind the other that gain nothing: each makes room for tables, which the next one moves.
constexpr int kIdlePassesMax = 2;
constexpr uint64_t kAutoclearKnown = kAutoclearBitmaps | kAutoclearRawDataFile;

}  // namespace

Compactor::Compactor(HomeParts parts, CompactLimits limits, CancelToken cancel,
                     std::function<void(CompactProgress)> on_progress)
    : parts_(parts),
      geometry_(parts.image.geometry),
      limits_(limits),
      cancel_(cancel),
      on_progress_(std::move(on_progress)),
      tables_(parts),
      space_(parts) {}

uint64_t Compactor::file_clusters() const {
  return geometry_.clusters_of(parts_.storage.size().value());
}

// A block device is as long as it is.
uint64_t Compactor::image_bytes() const {
  if (parts_.storage.limits().grows) return parts_.storage.size().value();
  return cut_end_ << geometry_.cluster_bits();
}

Task<CompactReport> Compactor::run() {
  CHECK(!parts_.image.header.is_encrypted() || parts_.image.data);
  co_await refuse_damaged_bitmaps();
  co_await space_.survey();
  // Then no refcount is to be trusted.
  const uint64_t header_refcount = co_await space_.refcount_of(ClusterIndex(0));
  if (header_refcount == 0) co_return low_refcount(parts_.image, ClusterIndex(0));
  const bool grows = parts_.storage.limits().grows;
  cut_end_ = grows ? std::max(file_clusters(), space_.end()) : space_.end();
  report_.bytes_before = report_.bytes_after = image_bytes();
  const uint64_t dense_end = space_.dense_end();
  if (dense_end >= cut_end_) co_return std::move(report_);
  progress_.total = co_await space_.used_from(dense_end);
  co_await tables_.set_dirty(true);
  Result<void> done = co_await run_passes().result();
  if (is_whole_ && parts_.image.health.is_writable()) {
    Result<void> finished = co_await finish().result();
    if (done.ok()) done = std::move(finished);
  }
  co_await std::move(done);
  report_.bytes_after = image_bytes();
  report_.is_cancelled = cancel_.is_cancelled();
  co_return std::move(report_);
}

// What they point at cannot be told, so it cannot be moved, nor be left where it is.
Result<void> Compactor::refuse_damaged_bitmaps() const {
  if (!has_valid_bitmaps(parts_.image.header) || parts_.bitmaps.is_valid()) return {};
  const Error error = Error::of(ErrorKind::kCorrupt, "compact");
  return parts_.image.world.diagnostics.explain(
      error, parts_.image.node_id(),
      "its dirty bitmaps are damaged, so nothing is moved" + advice(parts_.image));
}

// Of the tables behind the end of a file without holes. One that begins before it may stay: what
// could be gained is less than its length.
Task<uint64_t> Compactor::clusters_without_hole(const TailRoots& roots) {
  const uint64_t limit = space_.dense_end();
  const HostOffset refcounts = parts_.refcounts.table_place();
  std::vector<ClusterRun> tables = {
      {geometry_.host_cluster(refcounts),
       parts_.refcounts.table_entries() / geometry_.refcount_table_entries(1)}};
  for (const TailPointer& table : roots.tables) {
    if (!needs_a_run(table, geometry_)) continue;
    tables.push_back(
        {geometry_.host_cluster(HostOffset(table.target)), geometry_.clusters_of(table.length)});
  }
  uint64_t count = 0;
  for (const ClusterRun& table : tables) {
    if (table.count < 2 || table.first.value() < limit) continue;
    const ClusterRun run = co_await space_.reserve_run(limit, table.count);
    if (run.count == 0) count += table.count;
  }
  space_.forget_reserved();
  co_return count;
}

Task<void> Compactor::run_passes() {
  co_await clear_unknown_autoclear();
  for (int idle_passes = 0; idle_passes <= kIdlePassesMax;) {
    const TailRoots roots = co_await read_tail_roots(parts_);
    const uint64_t room = co_await clusters_without_hole(roots);
    const uint64_t end = space_.end();
    const uint64_t tail = std::min(end, limits_.tail_clusters);
    const uint64_t dense_end_before = space_.dense_end();
    const uint64_t tail_first = dense_end_before - std::min(room, dense_end_before);
    const uint64_t moved_before = moved_bytes_;
    const uint64_t end_before = cut_end_;
    const uint64_t first = std::max({tail_first, end - tail, uint64_t{1}});
    co_await run_pass(first, roots);
    co_await cut();
    if (cancel_.is_cancelled()) co_return;
    const bool has_gained = cut_end_ < end_before;
    // What makes room for a table gains nothing yet.
    const bool has_made_room = stuck_clusters_ != 0 && moved_bytes_ != moved_before;
    if (!has_gained && !has_made_room) co_return;
    idle_passes = has_gained ? 0 : idle_passes + 1;
    const uint64_t dense_end = space_.dense_end();
    if (dense_end >= cut_end_) co_return;
    const bool is_worth_it = (cut_end_ - dense_end) >= cut_end_ / kGainWorthAPass;
    if (!is_worth_it && cut_end_ == space_.end()) co_return;
  }
}

// Features that promise something about clusters which nobody here knows.
Task<void> Compactor::clear_unknown_autoclear() {
  const uint64_t bits = parts_.image.header.autoclear_features;
  if (parts_.image.header.version < 3 || (bits & ~kAutoclearKnown) == 0) co_return;
  std::vector<std::byte> field(8);
  store_be64(&field[0], bits & kAutoclearKnown);
  co_await parts_.storage.write(HostOffset(kAutoclearFeaturesAt), ConstBuffers(Bytes(field)));
  co_await parts_.storage.flush();
}

Task<void> Compactor::run_pass(uint64_t first, const TailRoots& roots) {
  TailPlanner planner(parts_, space_, first, space_.end());
  co_await planner.reserve(roots);
  const uint64_t wanted = co_await space_.used_from(first);
  const HoleSet holes = co_await planner.find_holes(wanted);
  TailScan scan(parts_, first, std::max(file_clusters(), space_.end()), holes,
                limits_.pointers_max);
  co_await scan.run(roots);
  const TailPlan plan = co_await planner.make(scan);
  verified_from_ = scan.first();
  report_.obstacles = plan.obstacles;
  stuck_clusters_ = plan.stuck_clusters;
  co_await carry_out(plan, scan);
}

Task<void> Compactor::carry_out(const TailPlan& plan, const TailScan& scan) {
  TailMover mover(parts_, scan.pointers());
  Result<void> moved = co_await move_all(plan, mover).result();
  is_whole_ = mover.is_whole();
  co_await std::move(moved);
}

Task<void> Compactor::move_all(const TailPlan& plan, TailMover& mover) {
  for (size_t first = 0, next = 0; first < plan.moves.size(); first = next) {
    if (cancel_.is_cancelled()) co_return;
    uint64_t bytes = 0;
    for (next = first; next < plan.moves.size(); ++next) {
      if (plan.moves[next].kind != plan.moves[first].kind) break;
      if (next - first == limits_.batch_moves || bytes >= limits_.batch_bytes) break;
      bytes += plan.moves[next].length;
    }
    const auto batch = std::span<const TailMove>(plan.moves).subspan(first, next - first);
    co_await mover.move(batch);
    note_moved(bytes);
  }
  for (size_t first = 0; first < plan.blocks.size(); first += kBlocksAtOnce) {
    if (cancel_.is_cancelled()) co_return;
    const size_t count = std::min(kBlocksAtOnce, plan.blocks.size() - first);
    co_await mover.move_blocks(std::span<const BlockMove>(plan.blocks).subspan(first, count));
    note_moved(count << geometry_.cluster_bits());
  }
  if (plan.refcount_table.count == 0 || cancel_.is_cancelled()) co_return;
  co_await mover.move_refcount_table(plan.refcount_table);
  note_moved(plan.refcount_table.count << geometry_.cluster_bits());
}

// What was copied twice, because a hole was at hand in an earlier pass, counts twice.
void Compactor::note_moved(uint64_t bytes) {
  moved_bytes_ += bytes;
  report_.bytes_moved = moved_bytes_;
  progress_.done = std::min(geometry_.clusters_of(moved_bytes_), progress_.total);
  if (on_progress_) on_progress_(progress_);
}

// The file never ends before anything that a crash could bring back: refcounts are durable first.
// Nor before what is free by its refcount alone: somebody has looked for pointers there.
Task<void> Compactor::cut() {
  co_await parts_.write_back.flush();
  co_await space_.survey();
  co_await space_.drop_empty_blocks();
  const uint64_t end = std::max(space_.end(), verified_from_);
  if (end >= cut_end_) co_return;
  StorageAccess& storage = parts_.storage;
  const uint64_t bytes = end << geometry_.cluster_bits();
  const uint64_t size = storage.size().value();
  if (storage.limits().grows) {
    if (bytes < size) co_await storage.resize(ByteCount(bytes));
  } else {
    const uint64_t end_before = std::min(size, cut_end_ << geometry_.cluster_bits());
    const HostRange range(HostOffset(bytes), ByteCount(end_before - bytes));
    // A hint; that it fails changes nothing.
    Result<void> ignored = co_await storage.discard(range).result();
    static_cast<void>(ignored.ok());
  }
  cut_end_ = end;
}

Task<void> Compactor::finish() {
  co_await parts_.write_back.flush();
  co_await tables_.set_dirty(false);
}

}  // namespace ringdisk::qcow2
