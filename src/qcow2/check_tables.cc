// SPDX-License-Identifier: Apache-2.0
// Following L1 and L2 tables: what they point to is counted, what breaks the specification is a
// corruption.
#include "qcow2/checker.h"

namespace ringdisk::qcow2 {

using Number = unsigned long long;

Task<void> Checker::check_l1(HostOffset at, uint32_t entries, Active active) {
  if (entries == 0) co_return;
  if (entries > limits::kQcow2L1BytesMax / kEntryBytes ||
      !at.is_aligned(geometry_.cluster_size())) {
    corruption("ERROR: an L1 table at offset %#llx with %u entries breaks the limits",
               static_cast<Number>(at.value()), entries);
    co_return;
  }
  if (!refer(at, uint64_t{entries} * kEntryBytes, "L1 table")) co_return;
  std::vector<uint64_t> table = co_await read_table(at, entries);
  for (size_t i = 0; i < table.size(); ++i) {
    const L1Entry entry(table[i]);
    advance(1);
    if (entry.raw() == 0) continue;
    const HostOffset l2 = entry.table();
    if (!l2.is_aligned(geometry_.cluster_size())) {
      corruption("ERROR l2_offset=%llx: Table is not cluster aligned; L1 entry corrupted",
                 static_cast<Number>(l2.value()));
      continue;
    }
    if (!entry.is_valid(geometry_)) {
      corruption("ERROR l1_entry=%llx: breaks the specification; L1 entry corrupted",
                 static_cast<Number>(entry.raw()));
    }
    if (!entry.has_table()) continue;
    if (!refer(l2, geometry_.cluster_size(), "L2 table")) continue;
    co_await check_l2(l2, i, active);
  }
}

Task<void> Checker::check_l2(HostOffset table, uint64_t l1_index, Active active) {
  std::vector<uint64_t> entries = co_await read_table(table, geometry_.l2_entries());
  const uint64_t first = geometry_.first_cluster_of(l1_index).value();
  previous_data_end_ = 0;  // fragments are counted table by table, as qemu-img does
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i] != 0) check_l2_entry(L2Entry(entries[i]), first + i, active);
  }
}

void Checker::check_l2_entry(L2Entry entry, uint64_t guest_cluster, Active active) {
  const bool zero_flag_known = header_.version >= 3;
  switch (entry.kind(geometry_, zero_flag_known)) {
    case EntryKind::kUnallocated:
      return;
    case EntryKind::kInvalid:
      corruption(
          "ERROR offset=%llx: guest cluster %llu has an L2 entry that breaks the specification",
          static_cast<Number>(entry.raw()), static_cast<Number>(guest_cluster));
      return;
    case EntryKind::kCompressed: {
      const CompressedPlace place = entry.compressed_place(geometry_);
      // The last sector of a file may be cut.
      refer(place.offset, 1, "compressed cluster");
      const uint64_t first = place.offset.value() >> geometry_.cluster_bits();
      const uint64_t last =
          (place.offset.value() + place.length.value() - 1) >> geometry_.cluster_bits();
      for (uint64_t cluster = first + 1; cluster <= last; ++cluster) {
        refer(geometry_.host_offset(ClusterIndex(cluster)), 1, "compressed cluster");
      }
      if (active == Active::kYes) {
        ++report_.compressed_clusters;
        ++report_.allocated_clusters;
        // A compressed cluster is fragmented by its nature.
        ++report_.fragmented_clusters;
      }
      return;
    }
    case EntryKind::kZero:
    case EntryKind::kData:
      break;
  }
  if (!entry.has_host()) return;
  refer(entry.host(), geometry_.cluster_size(), "data cluster");
  if (active == Active::kNo) return;
  if (entry.kind(geometry_, zero_flag_known) == EntryKind::kData) {
    ++report_.allocated_clusters;
    const uint64_t host = entry.host().value();
    if (previous_data_end_ != 0 && host != previous_data_end_) ++report_.fragmented_clusters;
    previous_data_end_ = host + geometry_.cluster_size();
  }
}

}  // namespace ringdisk::qcow2
