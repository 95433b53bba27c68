// SPDX-License-Identifier: Apache-2.0
// One lookup: from the first unit on, as long as kind and place go on, over slices and tables.
#include "qcow2/lookup.h"

#include <algorithm>

namespace ringdisk::qcow2 {

// False: the entry needs the home shard's look (it breaks the specification).
bool Lookup::classify(L2Entry entry, MapPurpose purpose, Run& one) const {
  one.units = 1;
  one.has_host = false;
  one.host = 0;
  switch (entry.cluster_kind(image_.geometry, image_.has_zero_flag())) {
    case EntryKind::kInvalid:
    case EntryKind::kSubclusters:
      return false;
    case EntryKind::kUnallocated:
      one.kind = MappingKind::kAbsent;
      return true;
    case EntryKind::kZero:
      one.kind = MappingKind::kZero;
      one.has_host = entry.has_host();
      one.host = entry.host().value();
      return true;
    case EntryKind::kCompressed:
      one.kind = MappingKind::kCompressed;
      one.has_host = true;
      one.host = entry.compressed_place(image_.geometry).offset.value();
      return true;
    case EntryKind::kData:
      break;
  }
  bool is_for_here =
      purpose == MapPurpose::kRead || (entry.is_writable_in_place() && image_.health.is_writable());
  one.kind = is_for_here ? MappingKind::kData : MappingKind::kAbsent;
  one.has_host = is_for_here;
  one.host = is_for_here ? entry.host().value() : 0;
  return true;
}

// Compressed clusters are mappings of their own: their streams are read one by one.
bool Lookup::extend(Run& run, const Run& one) const {
  if (run.units == 0) {
    run = one;
    return run.kind != MappingKind::kCompressed;
  }
  if (one.kind != run.kind || one.has_host != run.has_host) return false;
  if (run.has_host && one.host != run.host + (run.units << image_.geometry.unit_bits())) {
    return false;
  }
  run.units += one.units;
  return true;
}

// Images without subclusters: a unit is a cluster.
bool Lookup::extend_in_slice(const Slice& slice, uint64_t index, uint64_t stop, MapPurpose purpose,
                             Run& run) const {
  for (; index < stop; ++index) {
    Run one;
    if (!classify(slice.load_standard(index), purpose, one) || !extend(run, one)) return false;
  }
  return true;
}

bool Lookup::extend_in_table(uint64_t first, uint64_t end, MapPurpose purpose, Run& run,
                             uint64_t& looked_at) const {
  const Geometry& geometry = image_.geometry;
  const L1Entry table = image_.l1.load(geometry.l1_index(geometry.cluster_of_unit(first)));
  ++looked_at;
  if (!table.is_valid(geometry)) return false;
  if (!table.has_table()) {
    Run absent;
    absent.units = end - first;
    return extend(run, absent);
  }
  const uint32_t slice_bits = geometry.slice_bits() + geometry.subcluster_bits();
  while (first < end) {
    const uint64_t number = first >> slice_bits;
    Slice* slice = image_.slices.find(number);
    if (!slice) return false;
    slice->note_use();
    const uint64_t stop = std::min(end, (number + 1) << slice_bits);
    looked_at += stop - first;
    bool goes_on = false;
    if (geometry.has_subclusters()) {
      goes_on = extend_in_extended_slice(*slice, first, stop, purpose, run);
    } else {
      const uint64_t index = first & (geometry.slice_entries() - 1);
      goes_on = extend_in_slice(*slice, index, index + (stop - first), purpose, run);
    }
    if (!goes_on) return false;
    first = stop;
  }
  return true;
}

Lookup::Run Lookup::find_run(uint64_t first, uint64_t end, MapPurpose purpose) const {
  const Geometry& geometry = image_.geometry;
  Run run;
  uint64_t looked_at = 0;
  for (uint64_t at = first; at < end && looked_at < kEntriesMax;) {
    const uint64_t l1_index = geometry.l1_index(geometry.cluster_of_unit(at));
    const ClusterIndex table_end = geometry.first_cluster_of(l1_index + 1);
    const uint64_t stop = std::min(end, geometry.first_unit_of(table_end));
    if (!extend_in_table(at, stop, purpose, run, looked_at)) break;
    at = stop;
  }
  return run;
}

bool Lookup::try_map(GuestRange range, MapPurpose purpose, Mapping& mapping, bool& pinned,
                     uint32_t& generation) {
  const Geometry& geometry = image_.geometry;
  const uint64_t last = range.end().value() - 1;
  generation = image_.pins.begin_lookup(shard_);
  Run run =
      find_run(geometry.unit_of(range.offset), geometry.unit_of(GuestOffset(last)) + 1, purpose);
  pinned = run.units != 0 && run.kind == MappingKind::kData;
  if (pinned) {
    image_.pins.end_lookup_pinned(shard_);
  } else {
    image_.pins.end_lookup(shard_, generation);
  }
  if (run.units == 0) return false;
  const ByteCount lead = range.offset.offset_in(geometry.unit_size());
  const ByteCount covered((run.units << geometry.unit_bits()) - lead.value());
  mapping.kind = run.kind;
  mapping.length = std::min(range.length, covered);
  mapping.has_kept_place =
      run.has_host && (run.kind == MappingKind::kZero || run.kind == MappingKind::kAbsent);
  const bool is_compressed = run.kind == MappingKind::kCompressed;
  mapping.host = HostOffset(image_.place_in_data(run.host) +
                            (run.has_host && !is_compressed ? lead.value() : 0));
  return true;
}

}  // namespace ringdisk::qcow2
