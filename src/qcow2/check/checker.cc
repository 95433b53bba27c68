// SPDX-License-Identifier: Apache-2.0
// Windows, stages and lanes of a check.
#include "qcow2/check/checker.h"

#include <algorithm>

#include "async/on_cancel.h"
#include "async/scope.h"
#include "base/diagnostics.h"
#include "qcow2/describe.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// All L1 tables together: tables that overlap, which a hostile image may have by the thousand,
// would be followed for ever.
constexpr uint64_t kL1EntriesMax = 64 << 20;
// Below this another shard costs more than it saves: a table of entries takes some 10 us.
constexpr uint64_t kPiecesPerLaneMin = 16;
// Of the memory that may be used; the rest is for tables and what is found.
constexpr uint64_t kCountsPerCent = 75;

Task<Findings> run_lane_here(CheckedImage& image, LaneStage stage, Shard& shard) {
  std::unique_ptr<StorageAccess> storage = co_await StorageAccess::open(image.storage, shard);
  CheckLane lane(image, *storage, shard);
  co_await lane.run(stage);
  co_return lane.take_findings();
}

}  // namespace

Checker::Checker(const World& world, SharedStorage& storage, CheckOptions options,
                 CancelToken cancel, std::function<void(CheckProgress)> on_progress)
    : world_(world),
      shared_storage_(storage),
      options_(options),
      cancel_(cancel),
      on_progress_(std::move(on_progress)) {}

Error Checker::refuse(ErrorKind kind, std::string why) const {
  return world_.diagnostics.explain(Error::of(kind, "check"), storage_->node_id(), std::move(why));
}

Result<void> Checker::admit_more() const {
  if (cancel_.is_cancelled()) return Error::of(ErrorKind::kCancelled, "check");
  return {};
}

// Behind the last subcluster that holds data a file may end, enciphered or not.
void Checker::take_file_size() {
  EntryRules& rules = image_->rules;
  const uint64_t size = storage_->size().value();
  rules.file_clusters = rules.geometry.clusters_of(size);
  const bool is_all_or_none = rules.is_encrypted && !rules.geometry.has_subclusters();
  rules.data_clusters =
      is_all_or_none ? size >> rules.geometry.cluster_bits() : rules.file_clusters;
}

Task<void> Checker::open() {
  Diagnostics& diagnostics = world_.diagnostics;
  storage_ = co_await StorageAccess::open(shared_storage_, Shard::current());
  image_ = std::make_unique<CheckedImage>(shared_storage_);
  own_lane_ = std::make_unique<CheckLane>(*image_, *storage_, Shard::current());
  own_lane_->set_on_piece([this] { note_progress(); });
  Header header = co_await read_header_for_check(*storage_, diagnostics);
  co_await check_features(header, diagnostics, storage_->node_id());
  co_await check_places(header, storage_->size(), diagnostics, storage_->node_id());
  image_->rules.geometry = header.geometry();
  image_->rules.is_encrypted = header.is_encrypted();
  image_->rules.has_zero_flag = header.version >= 3;
  image_->rules.has_backing = header.has_backing;
  image_->rules.has_data_file = header.has_data_file();
  image_->rules.data_file_is_raw = header.data_file_is_raw();
  image_->header = std::move(header);
  take_file_size();
  snapshots_ = co_await read_snapshots(*storage_, image_->header, diagnostics);
  judge_snapshot_entries();
  l1_places_.push_back({image_->header.l1_table, image_->header.l1_size});
  for (const Snapshot& snapshot : snapshots_.snapshots) add_snapshot_l1(snapshot);
  uint64_t entries = 0;
  for (const L1Place& place : l1_places_) entries += place.entries;
  if (entries > kL1EntriesMax) {
    co_await fail(
        refuse(ErrorKind::kLimit, "the snapshots' L1 tables are larger than any real ones"));
  }
  co_await load_refcount_table();
  const uint64_t windows = image_->rules.file_clusters / window_clusters() + 1;
  progress_total_ = windows * (entries + 2 * blocks_end()) + 1;
  if (options_.repair != CheckRepair::kNone) progress_total_ *= 4;
}

Task<void> Checker::check() {
  findings_ = Findings();
  findings_.merge(Findings(table_findings_));
  const Findings at_start = findings_;
  auto compare = [this](uint64_t) {
    const uint64_t block_bits = image_->geometry().refcount_block_bits();
    return run_stage(LaneStage::kCompareRefcounts, image_->counts.first().value() >> block_bits,
                     std::min(blocks_end(), image_->counts.end().value() >> block_bits));
  };
  auto forget = [this, &at_start] { findings_ = at_start; };
  co_await for_each_window(Counting(), compare, forget);
  co_await complete_lines();
}

// What lanes could not say of refcounts.
Task<void> Checker::complete_lines() {
  const Geometry& geometry = image_->geometry();
  Buffer buffer = Shard::current().buffers().take(geometry.cluster_size());
  MutableBytes bytes = buffer.first(geometry.cluster_size());
  uint64_t loaded = ~uint64_t{0};
  std::vector<uint64_t> refcounts;
  for (ClusterIndex cluster : findings_.refcounts_wanted()) {
    const uint64_t block = geometry.refcount_block_of(cluster);
    if (block != loaded && image_->has_block(block)) {
      co_await storage_->read(HostOffset(image_->refcount_table[block]), MutableBuffers(bytes));
      loaded = block;
    }
    uint64_t refcount = 0;
    if (block == loaded) {
      refcount = load_refcount(bytes, geometry.refcount_order(),
                               geometry.index_in_refcount_block(cluster));
    }
    refcounts.push_back(refcount);
  }
  findings_.complete(refcounts);
}

CheckReport Checker::report() {
  CheckReport report;
  report.corruptions = findings_.corruptions();
  report.leaks = findings_.leaks();
  report.total_clusters = image_->geometry().guest_clusters(image_->header.size);
  report.allocated_clusters = findings_.allocated;
  report.fragmented_clusters = findings_.fragmented;
  report.compressed_clusters = findings_.compressed;
  report.image_end_offset = findings_.end_cluster << image_->geometry().cluster_bits();
  report.messages = findings_.lines();
  report.messages_cut = findings_.is_cut();
  return report;
}

void Checker::note_progress() {
  if (!on_progress_) return;
  const uint64_t done = image_->done.load(std::memory_order_relaxed);
  on_progress_({std::min(done, progress_total_), progress_total_});
}

// --- windows

// Whole refcount blocks, so that each is in one window.
uint64_t Checker::window_clusters() const {
  const uint64_t cell_bytes = is_wide_ ? sizeof(uint32_t) : sizeof(uint16_t);
  const uint64_t block = image_->geometry().refcount_block_entries();
  const uint64_t fit = options_.memory_max / 100 * kCountsPerCent / cell_bytes;
  const uint64_t wanted = std::max(image_->rules.file_clusters, uint64_t{1});
  const uint64_t whole = (wanted + block - 1) / block * block;
  return std::max(block, std::min(whole, fit / block * block));
}

// One behind the last refcount block that there is or should be.
uint64_t Checker::blocks_end() const {
  const uint64_t needed =
      (image_->rules.file_clusters + image_->geometry().refcount_block_entries() - 1) >>
      image_->geometry().refcount_block_bits();
  return std::max<uint64_t>(image_->refcount_table.size(), needed);
}

// The next one in which a cluster is referred to or has a refcount block. Most of a file, and more
// so of what a damaged one claims to be, may have neither.
bool Checker::open_next_window() {
  const uint32_t block_bits = image_->geometry().refcount_block_bits();
  const uint64_t past = image_->counts.end().value();
  uint64_t first = ~uint64_t{0};
  if (references_from_) first = references_from_->value();
  for (uint64_t block = past >> block_bits; block < image_->refcount_table.size(); ++block) {
    if (!image_->has_block(block)) continue;
    first = std::min(first, std::max(past, block << block_bits));
    break;
  }
  if (first == ~uint64_t{0}) return false;
  first = first >> block_bits << block_bits;
  image_->is_muted = window_number_ != 0;
  image_->counts.open_window(ClusterIndex(first), window_clusters(), is_wide_);
  return true;
}

Task<void> Checker::count_window(Counting counting) {
  const ClusterIndex end = image_->counts.end();
  if (counting.refcount_tables) {
    const uint64_t block_bits = image_->geometry().refcount_block_bits();
    co_await run_stage(LaneStage::kLoadRefcounts, image_->counts.first().value() >> block_bits,
                       std::min(blocks_end(), end.value() >> block_bits));
  }
  // Nothing points into this window: there is nothing to be counted.
  if (!references_from_ || *references_from_ >= end) co_return;
  findings_.set_muted(image_->is_muted);
  co_await refer_metadata(counting);
  if (!counting.without_data) {
    auto scan = [this](HostOffset) {
      return run_stage(LaneStage::kScanTables, 0, image_->l1.size());
    };
    co_await for_each_l1(scan);
  }
  references_from_ = image_->counts.next_outside();
}

// --- lanes

size_t Checker::lanes_for(uint64_t pieces) const {
  return std::clamp<size_t>(pieces / kPiecesPerLaneMin, 1, world_.shards.size());
}

Task<void> Checker::run_stage(LaneStage stage, uint64_t first, uint64_t end) {
  if (first >= end) co_return;
  co_await admit_more();
  StopOnCancel stop_lanes(cancel_, image_->stopped);
  image_->next_piece.store(first, std::memory_order_relaxed);
  image_->pieces_end = end;
  const size_t lanes = lanes_for(end - first);
  std::vector<Findings> found(lanes);
  const uint32_t own = Shard::current().index();
  auto one = [&](size_t lane) {
    return run_lane(stage, *world_.shards[(own + lane) % world_.shards.size()], found[lane]);
  };
  co_await when_all(lanes, one);
  for (Findings& of_lane : found) findings_.merge(std::move(of_lane));
  co_await admit_more();
}

Task<void> Checker::run_lane(LaneStage stage, Shard& shard, Findings& found) {
  if (shard.is_current()) {
    co_await own_lane_->run(stage);
    found = own_lane_->take_findings();
    co_return;
  }
  CheckedImage& image = *image_;
  auto there = [&image, stage, &shard] { return run_lane_here(image, stage, shard); };
  Result<Findings> result = co_await shard.call(there).result();
  if (!result.ok()) image.stopped.store(true, std::memory_order_relaxed);
  found = co_await std::move(result);
}

}  // namespace ringdisk::qcow2
