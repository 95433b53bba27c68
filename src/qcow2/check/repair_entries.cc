// SPDX-License-Identifier: Apache-2.0
// Mending of entries of guest tables. An entry that points into a table that the header names, or
// into an L2 table that is sound in all its entries, becomes zeros: what stands there is not the
// guest's. A cluster that only a snapshot, a bitmap or the refcount table calls theirs is left to
// the guest: it is the rarer name that is wrong.
#include <algorithm>

#include "base/endian.h"
#include "codec/zero_detect.h"
#include "qcow2/check/repair.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {

using Number = unsigned long long;

Task<void> Repair::mend_entries() {
  Counting counting;
  counting.refcount_tables = false;
  counting.marks_for_repair = true;
  counting.without_data = true;
  auto of_window = [this](uint64_t number) { return mend_entries_of_window(number == 0); };
  auto nothing = [] {};
  co_await checker_.for_each_window(counting, of_window, nothing);
}

Task<void> Repair::mend_entries_of_window(bool judges) {
  auto of_table = [this, judges](HostOffset at) { return mend_l1_table(at, judges); };
  co_await checker_.for_each_l1(of_table);
  co_await flush_written();
}

void Repair::note_mended(const char* what, uint64_t number, uint64_t before, uint64_t after) {
  done_.add(FindingKind::kEntry, CheckStage::kEntries, number, "%s %llu: entry=%llx becomes %llx",
            what, static_cast<Number>(number), static_cast<Number>(before),
            static_cast<Number>(after));
}

Task<void> Repair::mend_l1_table(HostOffset at, bool judges) {
  CheckedImage& image = checker_.image();
  Buffer buffer = Shard::current().buffers().take(geometry().cluster_size());
  MutableBytes table = buffer.first(geometry().cluster_size());
  for (uint64_t i = 0; i < image.l1.size(); ++i) {
    uint64_t& raw = image.l1[i];
    const EntryVerdict verdict = judge_l1_entry(raw, image.rules);
    if (judges && !verdict.is_sound() && verdict.kind == FindingKind::kEntry) {
      note_mended("L1 index", i, raw, verdict.mended.raw());
      raw = verdict.mended.raw();
      co_await write_l1_entry(at, i);
    }
    if (!names_table(raw, image.rules)) continue;
    co_await checker_.admit_more();
    co_await mend_l2_table(L1Entry(raw).table(), i, judges, table);
  }
}

// A table that other metadata claims too, or whose entries cannot all be understood, may be no
// table at all; nor may one that is not sound and where guest data is said to lie: it looks like
// damage, and may be the guest's bytes that a damaged L1 entry calls a table.
bool Repair::can_write_table(Bytes table, HostOffset at, uint64_t l1_index) const {
  if (checker_.is_contested(geometry().host_cluster(at))) return false;
  const bool is_doubtful = found_.may_overlap(geometry().host_cluster(at));
  const ClusterIndex first = geometry().first_cluster_of(l1_index);
  for (uint64_t i = 0; i < geometry().l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(table, i, geometry());
    const EntryVerdict verdict = judge_guest_entry(entry, first + i, checker_.image().rules);
    const bool is_lost = !verdict.is_sound() && verdict.kind == FindingKind::kLostPointer;
    if (is_lost || (is_doubtful && !verdict.is_sound())) return false;
  }
  return true;
}

Task<bool> Repair::read_table_to_mend(HostOffset at, uint64_t l1_index, MutableBytes table) {
  co_await checker_.storage().read(at, MutableBuffers(table));
  co_await NextTurn(Shard::current());
  co_return can_write_table(table, at, l1_index);
}

Task<void> Repair::mend_l2_table(HostOffset at, uint64_t l1_index, bool judges,
                                 MutableBytes table) {
  const bool may_mend = co_await read_table_to_mend(at, l1_index, table);
  if (!may_mend) co_return;
  const ClusterIndex first = geometry().first_cluster_of(l1_index);
  ChangedEntries changed;
  for (uint64_t i = 0; i < geometry().l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(table, i, geometry());
    if (entry == L2Entry::unallocated()) continue;
    L2Entry mended = entry;
    const EntryVerdict verdict = judge_guest_entry(entry, first + i, checker_.image().rules);
    if (judges && !verdict.is_sound()) mended = co_await mended_entry(entry, verdict);
    if (is_claimed(mended)) mended = co_await unclaimed_entry(mended, at);
    if (mended == entry) continue;
    note_mended("guest cluster", (first + i).value(), entry.raw(), mended.raw());
    store_l2_entry(table, i, mended, geometry());
    changed.add(i);
  }
  co_await write_entries(at, table, changed);
}

Task<L2Entry> Repair::mended_entry(L2Entry entry, EntryVerdict verdict) {
  if (verdict.kind == FindingKind::kUnclear) co_return co_await settled_entry(entry).result();
  co_return verdict.kind == FindingKind::kEntry ? verdict.mended : entry;
}

// Subclusters that are data and zeros at once are zeros, where the data are. The place is right in
// itself. What an encrypted image's data are cannot be seen here.
Task<L2Entry> Repair::settled_entry(L2Entry entry) {
  if (!entry.has_host() || checker_.image().header.is_encrypted()) co_return entry;
  Buffer buffer = Shard::current().buffers().take(geometry().cluster_size());
  MutableBytes cluster = buffer.first(geometry().cluster_size());
  co_await checker_.storage().read(entry.host(), MutableBuffers(cluster));
  const uint64_t length = geometry().cluster_size() >> kSubclusterBits;
  uint32_t settled = 0;
  for (uint32_t i = 0; i < uint32_t{1} << kSubclusterBits; ++i) {
    const bool is_unclear = (entry.allocated() & entry.zeros() & uint32_t{1} << i) != 0;
    if (is_unclear && is_zero(Bytes(cluster).subspan(i * length, length))) {
      settled |= uint32_t{1} << i;
    }
  }
  co_return entry.with_subclusters(entry.allocated() & ~settled, entry.zeros());
}

// Whether the cluster of an entry is metadata of this window.
bool Repair::is_claimed(L2Entry entry) const {
  if (!entry.has_host() || is_in_data_file(entry, checker_.image().rules)) return false;
  const uint32_t flags = checker_.image().counts.flags(geometry().host_cluster(entry.host()));
  return (flags & ReferenceCounts::kMetadata) != 0;
}

// Of the table at `table`, which is one.
Task<L2Entry> Repair::unclaimed_entry(L2Entry entry, HostOffset table) {
  const CheckedImage& image = checker_.image();
  const std::optional<L2Entry> zeros = image.rules.plain_zeros(entry);
  if (!zeros) co_return entry;
  const ClusterIndex cluster = geometry().host_cluster(entry.host());
  if ((image.counts.flags(cluster) & ReferenceCounts::kFixedTable) != 0) co_return *zeros;
  if (cluster == geometry().host_cluster(table)) co_return *zeros;
  const bool is_table = co_await is_sound_table(cluster);
  co_return is_table ? *zeros : entry;
}

Task<bool> Repair::is_sound_table(ClusterIndex table) {
  const HostOffset at = geometry().host_offset(table);
  Buffer buffer = Shard::current().buffers().take(geometry().cluster_size());
  MutableBytes bytes = buffer.first(geometry().cluster_size());
  co_await checker_.storage().read(at, MutableBuffers(bytes));
  for (uint64_t i = 0; i < geometry().l2_entries(); ++i) {
    const L2Entry entry = load_l2_entry(bytes, i, geometry());
    if (!judge_l2_entry(entry, checker_.image().rules).is_sound()) co_return false;
  }
  co_return true;
}

}  // namespace ringdisk::qcow2
