// SPDX-License-Identifier: Apache-2.0
// One lookup: from the first cluster on, as long as kind and place go on, over slices and tables.
#include "qcow2/lookup.h"

#include <algorithm>

namespace ringdisk::qcow2 {

// False: the entry needs the home shard's look (it breaks the specification).
bool Lookup::classify(L2Entry entry, MapPurpose purpose, Run& one) const {
  one.clusters = 1;
  one.has_host = false;
  one.host = 0;
  switch (entry.kind(image_.geometry, image_.has_zero_flag())) {
    case EntryKind::kInvalid:
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
  if (run.clusters == 0) {
    run = one;
    return run.kind != MappingKind::kCompressed;
  }
  if (one.kind != run.kind || one.has_host != run.has_host) return false;
  if (run.has_host && one.host != run.host + (run.clusters << image_.geometry.cluster_bits())) {
    return false;
  }
  run.clusters += one.clusters;
  return true;
}

bool Lookup::extend_in_table(ClusterIndex cluster, uint64_t end, MapPurpose purpose, Run& run,
                             uint64_t& looked_at) const {
  const Geometry& geometry = image_.geometry;
  const L1Entry table = image_.l1.load(geometry.l1_index(cluster));
  ++looked_at;
  if (!table.is_valid(geometry)) return false;
  if (!table.has_table()) {
    Run absent;
    absent.clusters = end - cluster.value();
    return extend(run, absent);
  }
  while (cluster.value() < end) {
    Slice* slice = image_.slices.find(geometry.slice_of(cluster));
    if (!slice) return false;
    slice->note_use();
    uint64_t index = geometry.index_in_slice(cluster);
    uint64_t stop = std::min(geometry.slice_entries(), index + (end - cluster.value()));
    cluster = cluster + (stop - index);
    looked_at += stop - index;
    for (; index < stop; ++index) {
      Run one;
      if (!classify(slice->load(index), purpose, one) || !extend(run, one)) return false;
    }
  }
  return true;
}

Lookup::Run Lookup::find_run(ClusterIndex first, uint64_t end, MapPurpose purpose) const {
  const Geometry& geometry = image_.geometry;
  Run run;
  uint64_t looked_at = 0;
  for (ClusterIndex at = first; at.value() < end && looked_at < kEntriesMax;) {
    ClusterIndex table_end = geometry.first_cluster_of(geometry.l1_index(at) + 1);
    uint64_t stop = std::min(end, table_end.value());
    if (!extend_in_table(at, stop, purpose, run, looked_at)) break;
    at = ClusterIndex(stop);
  }
  return run;
}

bool Lookup::try_map(GuestRange range, MapPurpose purpose, Mapping& mapping, bool& pinned,
                     uint32_t& generation) {
  const Geometry& geometry = image_.geometry;
  const uint64_t last = range.end().value() - 1;
  generation = image_.pins.begin_lookup(shard_);
  Run run = find_run(geometry.guest_cluster(range.offset),
                     geometry.guest_cluster(GuestOffset(last)).value() + 1, purpose);
  pinned = run.clusters != 0 && run.kind == MappingKind::kData;
  if (pinned) {
    image_.pins.end_lookup_pinned(shard_);
  } else {
    image_.pins.end_lookup(shard_, generation);
  }
  if (run.clusters == 0) return false;
  const ByteCount lead = range.offset.offset_in(geometry.cluster_size());
  const ByteCount covered((run.clusters << geometry.cluster_bits()) - lead.value());
  mapping.kind = run.kind;
  mapping.length = std::min(range.length, covered);
  mapping.preallocated_zero = run.kind == MappingKind::kZero && run.has_host;
  const bool is_compressed = run.kind == MappingKind::kCompressed;
  mapping.host = HostOffset(run.host + (run.has_host && !is_compressed ? lead.value() : 0));
  return true;
}

}  // namespace ringdisk::qcow2
