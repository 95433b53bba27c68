// SPDX-License-Identifier: Apache-2.0
// Refcounts of what tables lead to, batch by batch, and the steps around them.
#include "qcow2/edit/table_editor.h"

#include <algorithm>

#include "async/scope.h"
#include "base/diagnostics.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/damage.h"
#include "qcow2/edit/table_walk.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// Changed refcount blocks in memory above which they are written out, and runs of released
// clusters above which they are freed.
constexpr uint64_t kDirtyBytesMax = 32 * limits::kMiB;
constexpr uint64_t kReleasedMax = 64 * 1024;
// Some 100 us.
constexpr uint64_t kClustersATurn = 32 * 1024;
constexpr uint64_t kAllClusters = ~uint64_t{0};

uint64_t cut_to(ClusterRuns& runs, uint64_t clusters_max) {
  uint64_t clusters = 0;
  size_t kept = 0;
  for (; kept < runs.size() && clusters < clusters_max; ++kept) {
    runs[kept].count = std::min(runs[kept].count, clusters_max - clusters);
    clusters += runs[kept].count;
  }
  runs.resize(kept);
  return clusters;
}

Task<void> prefetch(TableWalk& tables, Result<ClusterRuns>& following) {
  following = co_await tables.next_batch().result();
}

}  // namespace

// --- tables

Task<TableEditor::Table> TableEditor::read_table(HostOffset at, uint64_t entries) {
  const uint64_t bytes = entries * kEntryBytes;
  co_await check_table_place(parts_.image, at, entries);
  std::vector<std::byte> raw(bytes);
  if (bytes != 0) co_await parts_.storage.read(at, MutableBuffers(MutableBytes(raw)));
  Table table(entries);
  for (size_t i = 0; i < table.size(); ++i) table[i] = load_be64(&raw[i * kEntryBytes]);
  co_return std::move(table);
}

Task<void> TableEditor::write_table(HostOffset at, const Table& table) {
  std::vector<std::byte> raw(table.size() * kEntryBytes);
  for (size_t i = 0; i < table.size(); ++i) store_be64(&raw[i * kEntryBytes], table[i]);
  if (!raw.empty()) co_await parts_.storage.write(at, ConstBuffers(Bytes(raw)));
}

Task<TableEditor::Table> TableEditor::read_l2(L1Entry entry) {
  if (!entry.is_valid(geometry_)) {
    co_await fail(damaged_entry(parts_.image, "L1", entry.raw()));
  }
  if (!entry.has_table()) co_return Table();
  co_return co_await read_table(entry.table(), geometry_.cluster_size() / kEntryBytes);
}

// --- refcounts

// What comes next is read while this is used, but whether that fails counts only when it is needed.
template <class Use>
Task<void> TableEditor::walk(const Table& l1, uint64_t clusters_max, Use& use) {
  TableWalk tables(parts_.image, parts_.storage, parts_.refcounts, l1);
  ClusterRuns runs = co_await tables.next_batch();
  for (uint64_t left = clusters_max; !runs.empty();) {
    left -= cut_to(runs, left);
    Result<ClusterRuns> following = ClusterRuns();
    auto one = [&](size_t which) {
      if (which == 0) return prefetch(tables, following);
      return use(runs);
    };
    co_await when_all(2, one);
    if (left == 0) co_return;
    runs = co_await std::move(following);
  }
}

// Changed blocks in memory stay bounded. The cluster's block is there until the caller suspends.
Task<void> TableEditor::load_counters(ClusterIndex cluster) {
  const uint64_t block = geometry_.refcount_block_of(cluster);
  if (!parts_.refcounts.has_block(block)) co_await fail(low_refcount(parts_.image, cluster));
  const uint64_t dirty_bytes = parts_.refcounts.dirty_count() << geometry_.cluster_bits();
  if (dirty_bytes > kDirtyBytesMax) co_await parts_.write_back.flush();
  co_await parts_.refcounts.load(block);
}

Task<void> TableEditor::give_way(uint64_t clusters) {
  changed_clusters_ += clusters;
  if (changed_clusters_ < kClustersATurn) co_return;
  changed_clusters_ = 0;
  co_await NextTurn(Shard::current());
}

Task<void> TableEditor::raise(const Table& l1) {
  raised_table_ = l1;
  raises_ = 0;
  auto raise_runs = [this](const ClusterRuns& runs) {
    return change_refcounts(runs, Change::kRaise);
  };
  co_await walk(raised_table_, kAllClusters, raise_runs);
}

Task<void> TableEditor::change_refcounts(const ClusterRuns& runs, Change change) {
  for (ClusterRun run : runs) {
    while (run.count != 0) {
      const ClusterRun part = front_in_one_block(run, geometry_);
      run = {part.first + part.count, run.count - part.count};
      co_await give_way(part.count);
      co_await load_counters(part.first);
      co_await change_part(part, change);
    }
  }
}

// Lowering takes back what raising did, to which nothing has pointed yet.
Result<void> TableEditor::change_part(ClusterRun part, Change change) {
  RefcountBlocks::Counters counters = parts_.refcounts.counters(part.first);
  for (uint64_t i = 0; i < part.count; ++i) {
    const ClusterIndex cluster = part.first + i;
    const uint64_t refcount = counters.get(cluster);
    if (refcount == 0) return low_refcount(parts_.image, cluster);
    if (change == Change::kLower) {
      counters.set(cluster, refcount - 1);
      --raises_;
      continue;
    }
    if (refcount == geometry_.refcount_max()) return refuse_raise(cluster);
    counters.set(cluster, refcount + 1);
    ++raises_;
  }
  return {};
}

Error TableEditor::refuse_raise(ClusterIndex cluster) const {
  return parts_.image.world.diagnostics.explain(
      Error::of(ErrorKind::kLimit, "count cluster", geometry_.host_offset(cluster).value()),
      parts_.image.node_id(),
      "a cluster is shared by as many snapshots as its refcount of " +
          std::to_string(geometry_.refcount_bits()) +
          " bits can count; delete one, or convert to refcount_bits=64");
}

// The first error counts, so how this ends is not told; the dirty bit tells of it.
Task<void> TableEditor::undo() {
  if (!is_marked_ || is_committed_ || !parts_.image.health.is_writable()) co_return;
  Result<void> taken = co_await take_back().result();
  static_cast<void>(taken.ok());
}

Task<void> TableEditor::take_back() {
  for (ClusterRun run : std::exchange(allocated_, {})) {
    for (uint64_t i = 0; i < run.count; ++i) {
      const ClusterRun one{run.first + i, 1};
      co_await parts_.allocator.take_back(one);
    }
  }
  if (raises_ != 0) {
    auto lower_again = [this](const ClusterRuns& runs) {
      return change_refcounts(runs, Change::kLower);
    };
    co_await walk(raised_table_, raises_, lower_again);
    co_await parts_.write_back.flush();
  }
  if (is_cleared_) co_await correct_active_table();
  co_await parts_.write_back.flush();
  co_await set_dirty(false);
}

// --- lowering

Task<void> TableEditor::lower(const Table& l1, const std::vector<ClusterRun>& tables) {
  auto lower_batch = [this](const ClusterRuns& runs) { return lower_runs(runs); };
  co_await walk(l1, kAllClusters, lower_batch);
  co_await lower_runs(tables);
  co_await free_released();
}

Task<void> TableEditor::lower_runs(const ClusterRuns& runs) {
  for (ClusterRun run : runs) {
    while (run.count != 0) {
      const ClusterRun part = front_in_one_block(run, geometry_);
      run = {part.first + part.count, run.count - part.count};
      co_await give_way(part.count);
      if (much_is_released()) co_await free_released();
      co_await load_counters(part.first);
      co_await lower_part(part);
    }
  }
}

// What others share is counted down at once: the header that led here was flushed, and no request
// is on its way to any cluster. What nobody shares goes the way of all that is given up.
Result<void> TableEditor::lower_part(ClusterRun part) {
  RefcountBlocks::Counters counters = parts_.refcounts.counters(part.first);
  ClusterRun last{part.first, 0};
  for (uint64_t i = 0; i < part.count; ++i) {
    const ClusterIndex cluster = part.first + i;
    const uint64_t refcount = counters.get(cluster);
    if (refcount == 0) return low_refcount(parts_.image, cluster);
    if (refcount == 1) {
      ++last.count;
      continue;
    }
    counters.set(cluster, refcount - 1);
    release(last);
    last = {cluster + 1, 0};
  }
  release(last);
  return {};
}

void TableEditor::release(ClusterRun run) {
  if (run.count == 0) return;
  parts_.quarantine.release(run);
  ++released_runs_;
  const uint64_t block = geometry_.refcount_block_of(run.first);
  if (std::exchange(last_released_block_, block) != block) ++released_blocks_;
}

// Freeing changes all these blocks before any of them is written.
bool TableEditor::much_is_released() const {
  return released_runs_ >= kReleasedMax ||
         released_blocks_ << geometry_.cluster_bits() >= kDirtyBytesMax;
}

// The pointers are gone for good: the header that led to them was flushed. The round writes the
// refcounts that are dirty by now, and hands what was released on.
Task<void> TableEditor::free_released() {
  released_runs_ = released_blocks_ = 0;
  co_await parts_.write_back.flush();
  co_await parts_.quarantine.process();
  co_await parts_.write_back.flush();
}

// --- COPIED flags

Task<void> TableEditor::correct_active_table() {
  const Header& header = parts_.image.header;
  Table active = co_await read_table(header.l1_table, header.l1_size);
  co_await correct_copied_flags(active);
  co_await write_table(header.l1_table, active);
}

Task<void> TableEditor::clear_active_copied_flags(Table& l1) {
  is_cleared_ = true;
  TableWalk tables(parts_.image, parts_.storage, parts_.refcounts, l1);
  co_await tables.clear_copied_flags(l1);
  co_await write_table(parts_.image.header.l1_table, l1);
  co_await parts_.storage.flush();
}

// Lanes look at refcounts on the disk.
Task<void> TableEditor::correct_copied_flags(Table& l1) {
  if (parts_.write_back.is_dirty()) co_await parts_.write_back.flush();
  TableWalk tables(parts_.image, parts_.storage, parts_.refcounts, l1);
  co_await tables.correct_copied_flags(l1);
}

// --- header

Task<ClusterRun> TableEditor::allocate_for(uint64_t bytes) {
  const uint64_t count = geometry_.clusters_of(bytes);
  if (count == 0) co_return ClusterRun{ClusterIndex(0), 0};
  const ClusterRun place = co_await parts_.allocator.allocate_contiguous(count);
  allocated_.push_back(place);
  co_return place;
}

Task<void> TableEditor::write_header(uint64_t at, Bytes bytes) {
  co_await parts_.storage.write(HostOffset(at), ConstBuffers(bytes));
  co_await parts_.storage.flush();
}

// From now on the disk points at what was allocated and raised. A write that fails may have
// reached the disk all the same, so nothing is undone after it either.
Task<void> TableEditor::commit_header(uint64_t at, Bytes bytes) {
  is_committed_ = true;
  co_await write_header(at, bytes);
}

Task<void> TableEditor::rewrite_header(const HeaderChange& change) {
  is_committed_ = true;
  co_await qcow2::rewrite_header(parts_.storage, parts_.image.world.diagnostics, change);
}

// What a failed write has left is not known, so the bitmaps stay in use.
Task<void> TableEditor::commit_size(ByteCount size, Bytes fields) {
  const bool is_same = size == parts_.image.header.size;
  if (is_same) {
    co_await parts_.bitmaps.start();
  } else {
    co_await parts_.bitmaps.prepare_resize();
  }
  Result<void> committed = co_await commit_header(kDiskFieldsAt, fields).result();
  if (!committed.ok()) {
    parts_.bitmaps.abandon();
  } else if (!is_same) {
    parts_.bitmaps.resize(size);
  }
  co_await std::move(committed);
}

Task<void> TableEditor::set_dirty(bool dirty) {
  is_marked_ = dirty;
  if (parts_.image.header.version < 3) co_return;
  std::vector<std::byte> field(8);
  const uint64_t bit = dirty ? kIncompatibleDirty : 0;
  store_be64(&field[0], parts_.image.header.incompatible_features | bit);
  co_await write_header(kIncompatibleFeaturesAt, field);
}

}  // namespace ringdisk::qcow2
