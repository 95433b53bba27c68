// SPDX-License-Identifier: Apache-2.0
// Lookups in images with extended L2 entries: stretches of subclusters that are mapped alike.
#include <algorithm>

#include "qcow2/lookup.h"

namespace ringdisk::qcow2 {

// What an entry, which is compressed or has subclusters, says from subcluster `index` on.
Lookup::Run Lookup::subclusters_at(L2Entry entry, uint32_t index, MapPurpose purpose) const {
  const Geometry& geometry = image_.geometry;
  Run one;
  if (entry.is_compressed()) {
    one.kind = MappingKind::kCompressed;
    one.has_host = true;
    one.host = entry.compressed_place(geometry).offset.value();
    one.units = geometry.units_per_cluster() - index;
    return one;
  }
  one.units = entry.subcluster_run(index);
  one.has_host = entry.has_host();
  one.host = one.has_host ? entry.host().value() + (uint64_t{index} << geometry.unit_bits()) : 0;
  switch (entry.subcluster_kind(index)) {
    case EntryKind::kZero:
      one.kind = MappingKind::kZero;
      return one;
    case EntryKind::kData:
      one.kind = MappingKind::kData;
      break;
    default:
      one.kind = MappingKind::kAbsent;
      return one;
  }
  if (purpose == MapPurpose::kRead) return one;
  if (entry.is_writable_in_place() && image_.health.is_writable()) return one;
  one.kind = MappingKind::kAbsent;
  one.has_host = false;
  one.host = 0;
  return one;
}

// The units [first, end) lie in one slice.
bool Lookup::extend_in_extended_slice(const Slice& slice, uint64_t first, uint64_t end,
                                      MapPurpose purpose, Run& run) const {
  const Geometry& geometry = image_.geometry;
  const uint64_t in_cluster = geometry.units_per_cluster() - 1;
  while (first < end) {
    const L2Entry entry = slice.load(geometry.index_in_slice(geometry.cluster_of_unit(first)));
    if (entry.kind(geometry, true) == EntryKind::kInvalid) return false;
    do {
      const Run one = subclusters_at(entry, static_cast<uint32_t>(first & in_cluster), purpose);
      if (!extend(run, one)) return false;
      first += one.units;
    } while (first < end && (first & in_cluster) != 0);
  }
  return true;
}

}  // namespace ringdisk::qcow2
