// SPDX-License-Identifier: Apache-2.0
// The order of a repair's steps, and those about refcounts and COPIED flags.
#include "qcow2/check/repair.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "qcow2/describe.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

using Number = unsigned long long;

Task<void> write_features(StorageAccess& storage, uint64_t at, uint64_t bits) {
  std::byte bytes[8];
  store_be64(bytes, bits);
  co_await storage.write(HostOffset(at), ConstBuffers(Bytes(bytes)));
  co_await storage.flush();
}

}  // namespace

Repair::Repair(Checker& checker, CheckRepair mode)
    : checker_(checker),
      mode_(mode),
      found_(checker.findings()),
      keeps_leaks_(found_.count(FindingKind::kLostPointer) != 0) {
  if (mode == CheckRepair::kLeaks) {
    mends_flags_ = found_.corruptions() == found_.count(FindingKind::kCopiedFlag) +
                                               found_.count(FindingKind::kSnapshotEntry);
  }
}

bool Repair::has_work() const {
  if (must_rebuild_but_may_not() || (rebuilds() && keeps_leaks_)) return false;
  const uint64_t leaks = keeps_leaks_ ? 0 : found_.leaks();
  const uint64_t flags = mends_flags_ ? found_.count(FindingKind::kCopiedFlag) : 0;
  if (mode_ == CheckRepair::kLeaks) return leaks + flags != 0;
  if (may_renew_snapshot_table()) return true;
  return leaks + flags + entries_to_mend() + found_.count(FindingKind::kRefcountTooLow) +
             found_.count(FindingKind::kRefcountTables) !=
         0;
}

bool Repair::must_rebuild_but_may_not() const { return mode_ == CheckRepair::kLeaks && rebuilds(); }

Task<void> Repair::run() {
  if (mode_ == CheckRepair::kAll && found_.corruptions() != 0) co_await mark_dirty();
  if (mode_ == CheckRepair::kAll && entries_to_mend() != 0) co_await mend_entries();
  if (may_renew_snapshot_table()) plan_snapshot_table();
  if (rebuilds()) co_await rebuild();
  Counting counting;
  if (new_snapshots_) {
    counting.first_new = new_snapshots_->first;
    counting.new_clusters = new_snapshots_->clusters;
  }
  co_await mend_windows(counting);
  if (new_snapshots_) {
    co_await switch_snapshot_tables();
    const Counting as_it_is;
    co_await mend_windows(as_it_is);
  }
  co_await restore_dirty();
}

Task<void> Repair::mend_windows(Counting counting) {
  auto mend = [this](uint64_t) { return mend_window(); };
  auto nothing = [] {};
  co_await checker_.for_each_window(counting, mend, nothing);
}

// --- bits of the header

// Also ends what features promise that are not known here.
Task<void> Repair::mark_dirty() {
  Header& header = checker_.image().header;
  was_dirty_ = header.is_dirty();
  if (header.version < 3) co_return;
  const uint64_t known = header.autoclear_features & (kAutoclearBitmaps | kAutoclearRawDataFile);
  if (known != header.autoclear_features) {
    co_await write_features(checker_.storage(), kAutoclearFeaturesAt, known);
  }
  if (was_dirty_) co_return;
  header.incompatible_features |= kIncompatibleDirty;
  co_await write_features(checker_.storage(), kIncompatibleFeaturesAt,
                          header.incompatible_features);
}

// The steps are done; the bit says what it said before.
Task<void> Repair::restore_dirty() {
  Header& header = checker_.image().header;
  if (was_dirty_ || !header.is_dirty()) co_return;
  header.incompatible_features &= ~kIncompatibleDirty;
  co_await write_features(checker_.storage(), kIncompatibleFeaturesAt,
                          header.incompatible_features);
}

Task<void> Repair::mark_sound(StorageAccess& storage, const Header& header) {
  const uint64_t sound =
      header.incompatible_features & ~(kIncompatibleDirty | kIncompatibleCorrupt);
  if (header.version < 3 || sound == header.incompatible_features) co_return;
  co_await storage.flush();
  co_await write_features(storage, kIncompatibleFeaturesAt, sound);
}

// --- refcounts and flags

Task<void> Repair::flush_written() {
  if (!has_written_) co_return;
  has_written_ = false;
  co_await checker_.storage().flush();
}

Task<void> Repair::mend_window() {
  co_await mend_refcounts(Refcounts::kRaise);
  if (mends_flags_) co_await mend_flags(Flags::kClear);
  co_await mend_refcounts(Refcounts::kLower);
  if (mends_flags_) co_await mend_flags(Flags::kSet);
}

uint64_t Repair::wanted_refcount(uint64_t references, uint64_t refcount) const {
  const uint64_t possible = std::min(references, geometry().refcount_max());
  if (mode_ == CheckRepair::kLeaks) {
    return keeps_leaks_ ? refcount : std::min(refcount, possible);
  }
  return keeps_leaks_ ? std::max(refcount, possible) : possible;
}

Task<void> Repair::mend_refcounts(Refcounts direction) {
  const CheckedImage& image = checker_.image();
  const uint32_t block_bits = geometry().refcount_block_bits();
  const uint64_t end =
      std::min<uint64_t>(image.refcount_table.size(), image.counts.end().value() >> block_bits);
  for (uint64_t block = image.counts.first().value() >> block_bits; block < end; ++block) {
    if (!image.has_block(block)) continue;
    co_await checker_.admit_more();
    co_await mend_block(block, direction);
  }
  co_await flush_written();
}

// Raising comes first, and notes for the flags which refcounts are one in the end.
Task<void> Repair::mend_block(uint64_t block, Refcounts direction) {
  CheckedImage& image = checker_.image();
  Shard& shard = Shard::current();
  Buffer buffer = shard.buffers().take(geometry().cluster_size());
  MutableBytes bytes = buffer.first(geometry().cluster_size());
  const HostOffset at(image.refcount_table[block]);
  co_await checker_.storage().read(at, MutableBuffers(bytes));
  const ClusterIndex first = geometry().first_cluster_of_block(block);
  const uint32_t order = geometry().refcount_order();
  bool is_changed = false;
  for (uint64_t i = 0; i < geometry().refcount_block_entries(); ++i) {
    const ClusterIndex cluster = first + i;
    const uint64_t references = image.counts.count(cluster);
    const uint64_t refcount = load_refcount(bytes, order, i);
    const uint64_t wanted = wanted_refcount(references, refcount);
    if (direction == Refcounts::kRaise) {
      const bool is_one = wanted == 1 && references <= 1;
      if (is_one) image.counts.mark(cluster, ReferenceCounts::kIsOne);
      if (!is_one) image.counts.unmark(cluster, ReferenceCounts::kIsOne);
    }
    const bool is_step = direction == Refcounts::kRaise ? wanted > refcount : wanted < refcount;
    if (!is_step) continue;
    store_refcount(bytes, order, i, wanted);
    is_changed = true;
  }
  co_await NextTurn(shard);
  if (!is_changed) co_return;
  has_written_ = true;
  co_await checker_.storage().write(at, ConstBuffers(Bytes(bytes)));
}

bool Repair::is_flag_to_change(ClusterIndex cluster, bool is_copied, Flags which) const {
  const CheckedImage& image = checker_.image();
  if (!image.counts.covers(cluster)) return false;
  const bool is_one = (image.counts.flags(cluster) & ReferenceCounts::kIsOne) != 0;
  return which == Flags::kClear ? is_copied && !is_one : !is_copied && is_one;
}

Task<void> Repair::mend_flags(Flags which) {
  auto of_table = [this, which](HostOffset at) { return mend_flags_of_l1(at, which); };
  co_await checker_.for_each_l1(of_table);
  co_await flush_written();
}

Task<void> Repair::mend_flags_of_l1(HostOffset at, Flags which) {
  CheckedImage& image = checker_.image();
  // The flags of snapshots mean nothing.
  if (!image.l1_is_active) co_return;
  Buffer buffer = Shard::current().buffers().take(geometry().cluster_size());
  MutableBytes table = buffer.first(geometry().cluster_size());
  for (uint64_t i = 0; i < image.l1.size(); ++i) {
    uint64_t& raw = image.l1[i];
    if (!names_table(raw, image.rules)) continue;
    co_await checker_.admit_more();
    const HostOffset l2 = L1Entry(raw).table();
    if (is_flag_to_change(geometry().host_cluster(l2), L1Entry(raw).is_copied(), which)) {
      done_.add(FindingKind::kCopiedFlag, CheckStage::kCopiedFlags,
                geometry().first_cluster_of(i).value(),
                "OFLAG_COPIED L2 cluster: l1_index=%llu l1_entry=%llx refcount=%llu",
                static_cast<Number>(i), static_cast<Number>(raw),
                static_cast<Number>(image.counts.count(geometry().host_cluster(l2))));
      raw ^= kCopied;
      co_await write_l1_entry(at, i);
    }
    co_await mend_flags_of_table(l2, i, which, table);
  }
}

Task<void> Repair::mend_flags_of_table(HostOffset at, uint64_t l1_index, Flags which,
                                       MutableBytes table) {
  // Those that name places in a data file share them with nobody.
  if (checker_.image().rules.has_data_file) co_return;
  const bool may_mend = co_await read_table_to_mend(at, l1_index, table);
  if (!may_mend) co_return;
  ChangedEntries changed;
  for (uint64_t i = 0; i < geometry().l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(table, i, geometry());
    if (!entry.has_host()) continue;
    const ClusterIndex cluster = geometry().host_cluster(entry.host());
    if (!is_flag_to_change(cluster, entry.is_copied(), which)) continue;
    done_.add(FindingKind::kCopiedFlag, CheckStage::kCopiedFlags,
              geometry().first_cluster_of(l1_index).value() + i,
              "OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu",
              static_cast<Number>(entry.raw()),
              static_cast<Number>(checker_.image().counts.count(cluster)));
    store_l2_entry(table, i, L2Entry(entry.raw() ^ kCopied, entry.bitmap()), geometry());
    changed.add(i);
  }
  co_await write_entries(at, table, changed);
}

Task<void> Repair::write_l1_entry(HostOffset table, uint64_t index) {
  std::byte bytes[kEntryBytes];
  store_be64(bytes, checker_.image().l1[index]);
  has_written_ = true;
  co_await checker_.storage().write(table + ByteCount(index * kEntryBytes),
                                    ConstBuffers(Bytes(bytes)));
}

Task<void> Repair::write_entries(HostOffset at, Bytes table, ChangedEntries changed) {
  if (changed.first > changed.last) co_return;
  const uint64_t entry = geometry().l2_entry_bytes();
  const uint64_t count = changed.last - changed.first + 1;
  const Bytes bytes = table.subspan(changed.first * entry, count * entry);
  has_written_ = true;
  co_await checker_.storage().write(at + ByteCount(changed.first * entry), ConstBuffers(bytes));
}

}  // namespace ringdisk::qcow2
