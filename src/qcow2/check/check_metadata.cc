// SPDX-License-Identifier: Apache-2.0
// The references that do not come from L2 tables: header, L1 tables and the L2 tables they name,
// snapshots, refcounts (bitmaps: check_bitmaps.cc). Each cluster is marked with what it holds, so
// that a second owner is noticed; the refcount tables come last, because they can be built anew
// elsewhere.
#include <algorithm>

#include "base/endian.h"
#include "base/span_reader.h"
#include "qcow2/check/checker.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

using Number = unsigned long long;

constexpr uint64_t kTablePieceBytes = limits::kMiB;
// Owners of metadata that are not alone, remembered for a repair.
constexpr size_t kContestedMax = 1 << 16;

}  // namespace

Task<std::vector<uint64_t>> Checker::read_table(HostOffset at, uint64_t entries) {
  std::vector<uint64_t> table(entries);
  Buffer buffer =
      Shard::current().buffers().take(std::min(kTablePieceBytes, entries * kEntryBytes + 1));
  for (uint64_t done = 0; done < entries;) {
    const uint64_t count = std::min(entries - done, kTablePieceBytes / kEntryBytes);
    MutableBytes piece = buffer.first(count * kEntryBytes);
    co_await storage_->read(at + ByteCount(done * kEntryBytes), MutableBuffers(piece));
    for (uint64_t i = 0; i < count; ++i) table[done + i] = load_be64(&piece[i * kEntryBytes]);
    done += count;
  }
  co_return std::move(table);
}

Task<void> Checker::load_l1(L1Place place) {
  if (place.at == l1_loaded_ && image_->l1.size() == place.entries) co_return;
  image_->l1 = co_await read_table(place.at, place.entries);
  l1_loaded_ = place.at;
}

// Version 2 asks for none of the fields that may be missing.
void Checker::judge_snapshot_entries() {
  for (size_t i = 0; i < snapshots_.snapshots.size(); ++i) {
    const Snapshot& snapshot = snapshots_.snapshots[i];
    if (snapshot.has_too_much()) {
      table_findings_.add(FindingKind::kSnapshotEntry, CheckStage::kSnapshotTable, i,
                          "snapshot table entry %zu has too much extra data", i);
    }
    if (snapshot.is_complete() || image_->header.version < 3) continue;
    table_findings_.add(FindingKind::kSnapshotEntry, CheckStage::kSnapshotTable, i,
                        "snapshot table entry %zu is incomplete", i);
  }
}

void Checker::use_snapshot_table(HostOffset at, ByteCount length) {
  image_->header.snapshot_table = at;
  snapshots_.length = length.value();
  take_file_size();
}

void Checker::add_snapshot_l1(const Snapshot& snapshot) {
  const uint64_t length = uint64_t{snapshot.l1_size} * kEntryBytes;
  const uint64_t at = snapshot.l1_table.value();
  const char* fault = nullptr;
  if (!snapshot.l1_table.is_aligned(image_->geometry().cluster_size())) {
    fault = "is not cluster aligned";
  } else if (length > limits::kQcow2L1BytesMax) {
    fault = "is too large";
  } else if (length != 0 && (at >= kHostEnd || image_->geometry().clusters_of(at + length) >
                                                   image_->rules.file_clusters)) {
    fault = "lies beyond the end of the file";
  }
  if (!fault) {
    if (length != 0) l1_places_.push_back({snapshot.l1_table, snapshot.l1_size});
    return;
  }
  table_findings_.add(FindingKind::kLostPointer, CheckStage::kTables, at,
                      "snapshot %.64s l1_offset=%#llx l1_size=%u: L1 table %s; snapshot table "
                      "entry corrupted",
                      snapshot.id.c_str(), static_cast<Number>(at), snapshot.l1_size, fault);
}

// What names no block that can be read is told, and is no block from then on.
Task<void> Checker::load_refcount_table() {
  const uint64_t entries =
      image_->geometry().refcount_table_entries(image_->header.refcount_table_clusters);
  image_->refcount_table = co_await read_table(image_->header.refcount_table, entries);
  for (size_t i = 0; i < entries; ++i) {
    uint64_t& entry = image_->refcount_table[i];
    if (entry == 0) continue;
    const HostOffset block(entry);
    const char* fault = nullptr;
    if ((entry & 511) != 0) {
      fault = "has reserved bits set";
    } else if (!block.is_aligned(image_->geometry().cluster_size())) {
      fault = "is not cluster aligned; refcount table entry corrupted";
    } else if (image_->geometry().host_cluster(block).value() >= image_->rules.file_clusters) {
      fault = "is outside image";
    }
    if (!fault) continue;
    table_findings_.add(FindingKind::kRefcountTables, CheckStage::kRefcountTables, i,
                        "refcount block %zu %s", i, fault);
    entry = 0;
  }
}

Task<void> Checker::use_refcount_table(HostOffset at, uint32_t clusters) {
  image_->header.refcount_table = at;
  image_->header.refcount_table_clusters = clusters;
  take_file_size();
  co_await load_refcount_table();
}

// --- counting and marking

void Checker::refer_cluster_of_table(ClusterIndex cluster, const char* what, uint32_t flag) {
  image_->counts.add(cluster);
  const uint32_t before = image_->counts.mark(cluster, flag);
  uint32_t rivals = ReferenceCounts::kMetadata;
  // Snapshots share L2 tables with the disk.
  if (flag == ReferenceCounts::kL2Table && !image_->l1_is_active) {
    rivals &= ~ReferenceCounts::kL2Table;
  }
  if ((before & rivals) == 0) return;
  if (contested_.size() < kContestedMax) contested_.insert(cluster.value());
  const bool is_refcounts = flag == ReferenceCounts::kRefcountTables;
  const Findings::Unmuted here(findings_);
  findings_.add(is_refcounts ? FindingKind::kRefcountTables : FindingKind::kOther,
                is_refcounts ? CheckStage::kRefcountTables : CheckStage::kTables, cluster.value(),
                "%s: cluster %llu holds another table too", what,
                static_cast<Number>(cluster.value()));
}

bool Checker::refer_table(HostOffset at, uint64_t length, const char* what, uint32_t flag) {
  if (length == 0) return true;
  const Geometry& geometry = image_->geometry();
  const bool is_possible = at.value() < kHostEnd && length <= kHostEnd - at.value();
  const uint64_t first = at.value() >> geometry.cluster_bits();
  const uint64_t end = is_possible ? geometry.clusters_of(at.value() + length) : 0;
  if (!is_possible || end > image_->rules.file_clusters) {
    findings_.add(FindingKind::kLostPointer, CheckStage::kTables, at.value(),
                  "%s at offset %#llx lies beyond the end of the file", what,
                  static_cast<Number>(at.value()));
    return false;
  }
  for (uint64_t cluster = first; cluster < end; ++cluster) {
    refer_cluster_of_table(ClusterIndex(cluster), what, flag);
  }
  return true;
}

Task<void> Checker::refer_metadata(Counting counting) {
  const Header& header = image_->header;
  // Who only repairs gives up nothing for a table that an entry alone calls one.
  const uint32_t named_by_entries = counting.marks_for_repair ? 0 : ReferenceCounts::kFixedTable;
  refer_table(HostOffset(0), 1, "header", ReferenceCounts::kFixedTable);
  for (size_t i = 0; i < l1_places_.size(); ++i) {
    co_await refer_l1(l1_places_[i], i == 0, counting);
  }
  refer_table(header.snapshot_table, snapshots_.length, "snapshot table",
              ReferenceCounts::kFixedTable);
  if (const std::optional<HostRange> encryption = header.encryption_header()) {
    refer_table(encryption->offset, encryption->length.value(), "encryption header",
                ReferenceCounts::kFixedTable);
  } else if (const HeaderExtension* unused =
                 header.find_extension(ExtensionType::kEncryptionHeader)) {
    SpanReader reader(unused->content);
    const HostOffset at(reader.be64());
    const uint64_t length = reader.be64();
    if (reader.ok()) refer_table(at, length, "encryption header", named_by_entries);
  }
  co_await refer_bitmaps(named_by_entries);
  if (counting.refcount_tables) refer_refcount_tables();
  for (uint64_t i = 0; i < counting.new_clusters; ++i) image_->counts.add(counting.first_new + i);
}

Task<void> Checker::refer_l1(L1Place place, bool is_active, Counting counting) {
  co_await admit_more();
  if (place.entries == 0) co_return;
  const uint32_t flag = is_active || !counting.marks_for_repair ? ReferenceCounts::kFixedTable : 0;
  image_->l1_is_active = is_active;
  refer_table(place.at, uint64_t{place.entries} * kEntryBytes, "L1 table", flag);
  co_await load_l1(place);
  for (size_t i = 0; i < image_->l1.size(); ++i) {
    if (image_->l1[i] != 0) refer_l2_table(i);
  }
}

void Checker::refer_l2_table(uint64_t l1_index) {
  const uint64_t raw = image_->l1[l1_index];
  const EntryVerdict verdict = judge_l1_entry(raw, image_->rules);
  if (!verdict.is_sound()) {
    findings_.add(verdict.kind, CheckStage::kTables, l1_index,
                  "l1_index=%llu l1_entry=%llx: %s; L1 entry corrupted",
                  static_cast<Number>(l1_index), static_cast<Number>(raw), verdict.fault);
  }
  const HostOffset table = L1Entry(raw).table();
  if (names_table(raw, image_->rules)) {
    refer_cluster_of_table(image_->geometry().host_cluster(table), "L2 table",
                           ReferenceCounts::kL2Table);
  } else if (L1Entry(raw).has_table()) {
    // The table may be in either; both are kept.
    refer(*image_, table, image_->geometry().cluster_size());
  }
}

void Checker::refer_refcount_tables() {
  const Header& header = image_->header;
  refer_table(header.refcount_table,
              uint64_t{header.refcount_table_clusters} << header.cluster_bits, "refcount table",
              ReferenceCounts::kRefcountTables);
  for (uint64_t entry : image_->refcount_table) {
    if (entry == 0) continue;
    refer_cluster_of_table(image_->geometry().host_cluster(HostOffset(entry)), "refcount block",
                           ReferenceCounts::kRefcountTables);
  }
}

}  // namespace ringdisk::qcow2
