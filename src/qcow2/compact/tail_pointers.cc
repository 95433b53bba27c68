// SPDX-License-Identifier: Apache-2.0
// From the header down: L1 tables here, L2 tables on all shards.
#include "qcow2/compact/tail_pointers.h"

#include <algorithm>
#include <bit>

#include "base/diagnostics.h"
#include "qcow2/damage.h"
#include "runtime/buffer.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// L1 entries in memory, beyond which the L2 tables that they name are gone over.
constexpr size_t kLevel2Max = 4 << 20;
constexpr size_t kWorkers = 4;
constexpr size_t kTablesAtOnce = 8;
// Below this another shard costs more than it saves.
constexpr size_t kTablesPerLaneMin = 16;
constexpr uint64_t kBitmapEntriesAtOnce = limits::kMiB / kEntryBytes;

}  // namespace

// --- holes

void HoleSet::assign(std::vector<ClusterRun> runs) {
  runs_ = std::move(runs);
  filter_.assign(runs_.empty() ? 0 : kFilterMask + 1, false);
  for (const ClusterRun& run : runs_) {
    const uint64_t marked = std::min(run.count, kFilterMask + 1);
    for (uint64_t i = 0; i < marked; ++i) filter_[(run.first.value() + i) & kFilterMask] = true;
  }
}

bool HoleSet::is_in_run(uint64_t cluster) const {
  auto after = std::upper_bound(
      runs_.begin(), runs_.end(), cluster,
      [](uint64_t wanted, const ClusterRun& run) { return wanted < run.first.value(); });
  if (after == runs_.begin()) return false;
  const ClusterRun& run = *std::prev(after);
  return cluster - run.first.value() < run.count;
}

// --- noting

TailScan::TailScan(HomeParts parts, uint64_t first, uint64_t file_clusters, const HoleSet& holes,
                   size_t pointers_max)
    : parts_(parts),
      geometry_(parts.image.geometry),
      file_clusters_(file_clusters),
      holes_(holes),
      pointers_max_(pointers_max),
      first_(first) {}

Error TailScan::damaged(const char* what, uint64_t at) const {
  const Error error = Error::of(ErrorKind::kCorrupt, "compact", at);
  return parts_.image.world.diagnostics.explain(
      error, parts_.image.node_id(),
      std::string(what) + " at byte " + std::to_string(at) +
          " of the file is damaged, so nothing is moved" + advice(parts_.image));
}

// Any shard; `found` is the caller's own.
Result<void> TailScan::note(const TailPointer& pointer, std::vector<TailPointer>& found,
                            size_t found_max) {
  const uint64_t begin = pointer.target >> geometry_.cluster_bits();
  const uint64_t end = geometry_.clusters_of(pointer.end());
  if (pointer.target == 0 || end > file_clusters_) return damaged("the entry", pointer.place);
  for (uint64_t cluster = begin; cluster < end; ++cluster) {
    if (holes_.contains(cluster)) return used_free_cluster(parts_.image, ClusterIndex(cluster));
  }
  if (end <= first()) return {};
  found.push_back(pointer);
  if (found.size() >= found_max) begin_later(found);
  return {};
}

// Half of the tail is left out, again and again until what leads to the rest fits.
void TailScan::begin_later(std::vector<TailPointer>& found) {
  const size_t half = found.size() / 2;
  for (forget_before_first(found); found.size() > half; forget_before_first(found)) {
    uint64_t first = first_.load(std::memory_order_relaxed);
    if (first >= file_clusters_) return found.clear();
    const uint64_t later = first + (file_clusters_ - first + 1) / 2;
    first_.compare_exchange_strong(first, later, std::memory_order_relaxed);
  }
}

void TailScan::forget_before_first(std::vector<TailPointer>& found) const {
  const uint64_t first_byte = first() << geometry_.cluster_bits();
  std::erase_if(found, [first_byte](const TailPointer& one) { return one.end() <= first_byte; });
}

void TailScan::sort_pointers() {
  forget_before_first(pointers_);
  auto is_before = [](const TailPointer& a, const TailPointer& b) {
    if (a.kind != b.kind) return a.kind < b.kind;
    if (a.target != b.target) return a.target < b.target;
    if (a.length != b.length) return a.length < b.length;
    return a.place < b.place;
  };
  std::sort(pointers_.begin(), pointers_.end(), is_before);
  // A table that was gone over twice, because two L1 tables were that lead to it.
  size_t kept = 0;
  for (const TailPointer& one : pointers_) {
    if (kept != 0 && pointers_[kept - 1].place == one.place) {
      pointers_[kept - 1].count += one.count;
    } else {
      pointers_[kept++] = one;
    }
  }
  pointers_.resize(kept);
}

// --- L1 tables

Task<void> TailScan::run(const TailRoots& roots) {
  for (const TailPointer& table : roots.tables) {
    co_await note(table, pointers_, pointers_max_);
  }
  for (const BitmapEntry& bitmap : roots.bitmaps.entries) co_await scan_bitmap(bitmap);
  co_await scan_l1(roots.header.l1_table, roots.header.l1_size);
  for (const Snapshot& snapshot : roots.snapshots.snapshots) {
    co_await scan_l1(snapshot.l1_table, snapshot.l1_size);
  }
  co_await scan_level2();
  sort_pointers();
}

// Of one that is inconsistent, too: its clusters are its own as long as it is there.
Task<void> TailScan::scan_bitmap(const BitmapEntry& entry) {
  for (uint64_t done = 0; done < entry.table_entries; done += kBitmapEntriesAtOnce) {
    const uint64_t count = std::min(kBitmapEntriesAtOnce, entry.table_entries - done);
    const std::vector<uint64_t> table =
        co_await read_bitmap_table(parts_.storage, entry, done, count);
    for (uint64_t i = 0; i < count; ++i) {
      TailPointer pointer;
      pointer.place = entry.table.value() + (done + i) * kEntryBytes;
      pointer.raw = table[i];
      if (fault_of_bitmap_table_entry(pointer.raw, geometry_)) {
        co_await fail(damaged("the entry of a bitmap table", pointer.place));
      }
      pointer.target = bitmap_cluster(pointer.raw).value();
      if (pointer.target == 0) continue;
      pointer.length = static_cast<uint32_t>(geometry_.cluster_size());
      pointer.kind = TailKind::kBitmap;
      co_await note(pointer, pointers_, pointers_max_);
    }
  }
}

Task<void> TailScan::scan_l1(HostOffset at, uint64_t entries) {
  TableEditor editor(parts_);
  const TableEditor::Table table = co_await editor.read_table(at, entries);
  for (size_t i = 0; i < table.size(); ++i) {
    const uint64_t place = at.value() + i * kEntryBytes;
    const L1Entry entry(table[i]);
    if (!entry.is_valid(geometry_)) co_await fail(damaged("the L1 entry", place));
    if (!entry.has_table()) continue;
    TailPointer pointer;
    pointer.target = entry.table().value();
    pointer.place = place;
    pointer.raw = entry.raw();
    pointer.length = static_cast<uint32_t>(geometry_.cluster_size());
    pointer.kind = TailKind::kTable;
    co_await note(pointer, pointers_, pointers_max_);
    level2_.push_back({pointer.target, 1});
  }
  if (level2_.size() >= kLevel2Max) co_await scan_level2();
}

// --- L2 tables

// One shard's part: takes tables from a common list until it is empty.
class TailScan::Lane {
 public:
  Lane(TailScan& scan, Work& work, std::vector<TailPointer>& found, size_t found_max)
      : scan_(scan), work_(work), found_(found), found_max_(found_max) {}

  Task<void> run(Shard& shard) {
    std::unique_ptr<StorageAccess> storage =
        co_await StorageAccess::open(*scan_.parts_.image.storage, shard);
    auto one = [this, &shard, &storage](size_t) { return work(shard, *storage); };
    co_await when_all(kWorkers, one);
  }

 private:
  Task<void> work(Shard& shard, StorageAccess& storage) {
    const uint64_t bytes = scan_.geometry_.cluster_size();
    Buffer buffer = shard.buffers().take(bytes);
    while (!work_.stopped.load(std::memory_order_relaxed)) {
      const size_t begin = work_.next.fetch_add(kTablesAtOnce, std::memory_order_relaxed);
      if (begin >= work_.tables.size()) co_return;
      const size_t end = std::min(begin + kTablesAtOnce, work_.tables.size());
      for (size_t i = begin; i < end; ++i) {
        MutableBytes table = buffer.first(bytes);
        const Level2 level2 = work_.tables[i];
        co_await storage.read(HostOffset(level2.table), MutableBuffers(table));
        Result<void> scanned = scan_entries(table, level2);
        if (!scanned.ok()) work_.stopped.store(true, std::memory_order_relaxed);
        co_await std::move(scanned);
        co_await NextTurn(shard);
      }
    }
  }

  Result<void> scan_entries(Bytes table, Level2 level2) {
    const Geometry& geometry = scan_.geometry_;
    for (uint64_t i = 0; i < geometry.l2_entries(); ++i) {
      const L2Entry entry = load_l2_entry(table, i, geometry);
      if ((entry.raw() & ~(kCopied | kReadsZero)) == 0) continue;
      RETURN_IF_ERROR(scan_entry(entry, level2, level2.table + i * geometry.l2_entry_bytes()));
    }
    return {};
  }

  Result<void> scan_entry(L2Entry entry, Level2 level2, uint64_t place) {
    const Geometry& geometry = scan_.geometry_;
    if (scan_.parts_.image.has_data_file() && !entry.is_compressed()) return {};
    const EntryKind kind = entry.kind(geometry, scan_.parts_.image.has_zero_flag());
    if (kind == EntryKind::kInvalid || entry.is_frozen()) {
      return scan_.damaged("the L2 entry", place);
    }
    TailPointer pointer;
    pointer.place = place;
    pointer.raw = entry.raw();
    pointer.count = static_cast<uint32_t>(level2.count);
    if (entry.is_compressed()) {
      const CompressedPlace stream = entry.compressed_place(geometry);
      pointer.target = stream.offset.value();
      pointer.length = static_cast<uint32_t>(stream.length.value());
      pointer.kind = TailKind::kStream;
    } else {
      pointer.target = entry.host().value();
      pointer.length = static_cast<uint32_t>(geometry.cluster_size());
      pointer.is_kept =
          kind == EntryKind::kZero || (kind == EntryKind::kSubclusters && entry.allocated() == 0);
      if (!pointer.is_kept && is_cut_short(entry)) return scan_.damaged("the L2 entry", place);
    }
    return scan_.note(pointer, found_, found_max_);
  }

  // Whether what it shows lies beyond the end of the file, where enciphered zeros are no zeros.
  bool is_cut_short(L2Entry entry) const {
    if (!scan_.parts_.image.header.is_encrypted()) return false;
    const Geometry& geometry = scan_.geometry_;
    uint64_t shown = geometry.cluster_size();
    if (geometry.has_subclusters()) {
      shown = geometry.unit_size() * static_cast<uint64_t>(std::bit_width(entry.allocated()));
    }
    return entry.host().value() + shown > scan_.parts_.storage.size().value();
  }

  TailScan& scan_;
  Work& work_;
  std::vector<TailPointer>& found_;
  const size_t found_max_;
};

Task<void> TailScan::run_lane(Shard& shard, Work& work, std::vector<TailPointer>& found) {
  const size_t found_max = pointers_max_ / parts_.image.world.shards.size();
  Lane lane(*this, work, found, found_max);
  auto there = [&lane, &shard] { return lane.run(shard); };
  co_await shard.call(there);
}

// What L1 entries have named so far.
Task<void> TailScan::scan_level2() {
  std::sort(level2_.begin(), level2_.end(),
            [](const Level2& a, const Level2& b) { return a.table < b.table; });
  Work work;
  for (const Level2& one : level2_) {
    if (!work.tables.empty() && work.tables.back().table == one.table) {
      work.tables.back().count += one.count;
    } else {
      work.tables.push_back(one);
    }
  }
  level2_.clear();
  const auto& shards = parts_.image.world.shards;
  const size_t lanes = std::clamp<size_t>(work.tables.size() / kTablesPerLaneMin, 1, shards.size());
  std::vector<std::vector<TailPointer>> found(lanes);
  const uint32_t own = Shard::current().index();
  auto one = [&](size_t lane) {
    return run_lane(*shards[(own + lane) % shards.size()], work, found[lane]);
  };
  co_await when_all(lanes, one);
  for (std::vector<TailPointer>& of_lane : found) {
    pointers_.insert(pointers_.end(), of_lane.begin(), of_lane.end());
    std::vector<TailPointer>().swap(of_lane);
  }
  forget_before_first(pointers_);
  if (pointers_.size() > pointers_max_) begin_later(pointers_);
}

}  // namespace ringdisk::qcow2
