// SPDX-License-Identifier: Apache-2.0
// One L2 table after another, from the disk, so that memory stays bounded.
#include "qcow2/edit/table_editor.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/damage.h"

namespace ringdisk::qcow2 {
namespace {

// Changed refcount blocks in memory, and released clusters, above which they are written out.
constexpr uint64_t kDirtyBlocksMax = 128;
constexpr uint64_t kReleasedMax = 64 * 1024;

}  // namespace

// The host clusters an entry points at; a compressed stream may touch several.
Result<ClusterRun> TableEditor::run_of(L2Entry entry) const {
  if (parts_.image.has_data_file() && !entry.is_compressed()) return ClusterRun();
  if (entry.kind(geometry_, parts_.image.has_zero_flag()) == EntryKind::kInvalid) {
    return damaged_entry(parts_.image, "L2", entry.raw());
  }
  return host_clusters_of(entry, geometry_);
}

// An L2 table has one word an entry, or two.
L2Entry TableEditor::entry_of(const Table& l2, uint64_t index) const {
  if (!geometry_.has_subclusters()) return L2Entry(l2[index], 0);
  return L2Entry(l2[2 * index], l2[2 * index + 1]);
}
uint64_t& TableEditor::first_word_of(Table& l2, uint64_t index) const {
  return l2[geometry_.has_subclusters() ? 2 * index : index];
}
uint64_t TableEditor::entries_of(const Table& l2) const {
  return l2.empty() ? 0 : geometry_.l2_entries();
}

// --- tables

Task<TableEditor::Table> TableEditor::read_table(HostOffset at, uint64_t entries) {
  const uint64_t bytes = entries * kEntryBytes;
  const uint64_t end = parts_.storage.size().value();
  const bool is_right = at.is_aligned(geometry_.cluster_size()) &&
                        bytes <= limits::kQcow2L1BytesMax && at.value() <= end &&
                        geometry_.clusters_of(bytes) <= geometry_.clusters_of(end - at.value());
  if (bytes != 0 && !is_right) {
    co_await fail(damaged_table(parts_.image, at, entries));
  }
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

// --- raising

Task<void> TableEditor::raise(const Table& l1) {
  raised_table_ = l1;
  raises_ = 0;
  co_await change_refcounts(raised_table_, Change::kRaise, raises_);
}

Task<void> TableEditor::change_refcounts(const Table& l1, Change change, uint64_t& count) {
  for (uint64_t raw : l1) {
    if (change == Change::kLower && count == 0) co_return;
    const L1Entry entry(raw);
    const Table l2 = co_await read_l2(entry);
    if (!entry.has_table()) continue;
    const ClusterRun table{geometry_.host_cluster(entry.table()), 1};
    co_await change_run(table, change, count);
    for (uint64_t i = 0; i < entries_of(l2); ++i) {
      const ClusterRun run = co_await run_of(entry_of(l2, i));
      if (run.count != 0) co_await change_run(run, change, count);
    }
  }
}

Task<void> TableEditor::change_run(ClusterRun run, Change change, uint64_t& count) {
  for (uint64_t i = 0; i < run.count; ++i) {
    if (change == Change::kLower && count == 0) co_return;
    co_await change_one(run.first + i, change);
    count = change == Change::kRaise ? count + 1 : count - 1;
  }
}

// Lowering takes back what raising did, to which nothing has pointed yet.
Task<void> TableEditor::change_one(ClusterIndex cluster, Change change) {
  const uint64_t block = geometry_.refcount_block_of(cluster);
  if (!parts_.refcounts.has_block(block)) co_await fail(low_refcount(parts_.image, cluster));
  if (parts_.refcounts.dirty_count() > kDirtyBlocksMax) co_await parts_.write_back.flush();
  co_await parts_.refcounts.load(block);
  const uint64_t refcount = parts_.refcounts.get(cluster);
  if (refcount == 0) co_await fail(low_refcount(parts_.image, cluster));
  if (change == Change::kLower) {
    parts_.refcounts.set(cluster, refcount - 1);
    co_return;
  }
  if (refcount == geometry_.refcount_max()) {
    co_await fail(parts_.image.world.diagnostics.explain(
        Error::of(ErrorKind::kLimit, "count cluster", geometry_.host_offset(cluster).value()),
        parts_.image.node_id(),
        "a cluster is shared by as many snapshots as its refcount of " +
            std::to_string(geometry_.refcount_bits()) +
            " bits can count; delete one, or convert to refcount_bits=64"));
  }
  parts_.refcounts.set(cluster, refcount + 1);
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
    co_await change_refcounts(raised_table_, Change::kLower, raises_);
    co_await parts_.write_back.flush();
  }
  if (is_cleared_) co_await correct_active_table();
  co_await parts_.write_back.flush();
  co_await set_dirty(false);
}

// --- lowering

Task<void> TableEditor::lower(const Table& l1, const std::vector<ClusterRun>& tables) {
  uint64_t released = 0;
  for (uint64_t raw : l1) {
    const L1Entry entry(raw);
    Table l2 = co_await read_l2(entry);
    if (!entry.has_table()) continue;
    for (uint64_t i = 0; i < entries_of(l2); ++i) {
      const ClusterRun run = co_await run_of(entry_of(l2, i));
      if (run.count != 0) parts_.quarantine.release(run);
      released += run.count;
    }
    parts_.quarantine.release(geometry_.host_cluster(entry.table()));
    if (released < kReleasedMax) continue;
    co_await free_released();
    released = 0;
  }
  for (ClusterRun run : tables) {
    if (run.count != 0) parts_.quarantine.release(run);
  }
  co_await free_released();
}

// The pointers are gone for good: the header that led to them was flushed. The round writes the
// refcounts that are dirty by now, and hands what was released on.
Task<void> TableEditor::free_released() {
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
  co_await change_copied_flags(l1, Flags::kClear);
  co_await write_table(parts_.image.header.l1_table, l1);
  co_await parts_.storage.flush();
}

Task<void> TableEditor::correct_copied_flags(Table& l1) {
  co_await change_copied_flags(l1, Flags::kCorrect);
}

Task<void> TableEditor::change_copied_flags(Table& l1, Flags flags) {
  for (uint64_t& raw : l1) {
    const L1Entry entry(raw);
    Table l2 = co_await read_l2(entry);
    if (!entry.has_table()) continue;
    bool is_changed = false;
    for (uint64_t i = 0; i < entries_of(l2); ++i) {
      const L2Entry l2_entry = entry_of(l2, i);
      if (!l2_entry.has_host()) continue;
      const ClusterIndex host = geometry_.host_cluster(l2_entry.host());
      uint64_t& raw_l2 = first_word_of(l2, i);
      bool flipped = co_await change_flag(raw_l2, host, flags);
      is_changed = is_changed || flipped;
    }
    if (is_changed) co_await write_table(entry.table(), l2);
    co_await change_flag(raw, geometry_.host_cluster(entry.table()), flags);
  }
}

Task<bool> TableEditor::change_flag(uint64_t& raw, ClusterIndex cluster, Flags flags) {
  if (flags == Flags::kClear) {
    const uint64_t cleared = raw & ~kCopied;
    co_return std::exchange(raw, cleared) != cleared;
  }
  const uint64_t block = geometry_.refcount_block_of(cluster);
  if (!parts_.refcounts.has_block(block)) co_await fail(low_refcount(parts_.image, cluster));
  co_await parts_.refcounts.load(block);
  const uint64_t corrected = parts_.refcounts.get(cluster) == 1 ? raw | kCopied : raw & ~kCopied;
  co_return std::exchange(raw, corrected) != corrected;
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
