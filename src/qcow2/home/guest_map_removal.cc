// SPDX-License-Identifier: Apache-2.0
// Zeroing and discarding whole guest clusters, and subclusters. What an entry becomes:
//
//                      zero                        zero, keeping places     discard
//   unallocated        zero flag over a backing    likewise                 likewise
//                      image, else stays
//   zeros with place   zero flag, released         stays                    zero flag, released
//   data               zero flag, released         zero flag with place,    nothing without backing
//                                                  if it is ours alone      image, else zero flag;
//                                                                           released
//   compressed         zero flag, released         zero flag, released      as data
//
// Version 2 has no zero flag: without a backing image "unallocated" says the same; with one,
// zeroing is refused (the caller writes zeros) and discarding leaves everything as it is.
// A discard hides the backing image also where nothing was ever written, as in QEMU: who trims a
// range must not find there what it had before, neither the image's data nor another's below.
// Subclusters: guest_map_subclusters.cc.
#include <algorithm>

#include "qcow2/damage.h"
#include "qcow2/home/guest_map.h"

namespace ringdisk::qcow2 {

L2Entry GuestMap::entry_after(L2Entry entry, Removal removal) const {
  const bool has_backing = image_.may_show_below();
  const L2Entry zero = image_.has_zero_flag() ? L2Entry::zero() : L2Entry::unallocated();
  const bool keeps = removal == Removal::kZeroKeepingPlace && image_.has_zero_flag();
  switch (entry.kind(image_.geometry, image_.has_zero_flag())) {
    case EntryKind::kInvalid:
    case EntryKind::kSubclusters:
      break;
    case EntryKind::kUnallocated:
      return has_backing ? zero : entry;
    case EntryKind::kZero:
      return entry.has_host() && removal != Removal::kZeroKeepingPlace ? zero : entry;
    case EntryKind::kData:
      if (keeps && entry.is_copied()) return L2Entry(entry.persistent() | kReadsZero, 0);
      [[fallthrough]];
    case EntryKind::kCompressed:
      return removal == Removal::kDiscard && !has_backing ? L2Entry::unallocated() : zero;
  }
  UNREACHABLE("an entry of another kind is found before it is changed");
}

// How much at the front of `clusters` needs no change, as far as the L1 table alone tells.
ByteCount GuestMap::skip_untouched(GuestRange clusters) const {
  const Geometry& geometry = image_.geometry;
  const bool absent_stays = !image_.may_show_below();
  GuestOffset at = clusters.offset;
  while (absent_stays && at < clusters.end()) {
    const uint64_t l1_index = geometry.l1_index(geometry.guest_cluster(at));
    if (image_.l1.load(l1_index).raw() != 0) break;
    GuestOffset table_end = geometry.guest_offset(geometry.first_cluster_of(l1_index + 1));
    at = std::min(table_end, clusters.end());
  }
  return at - clusters.offset;
}

// Changes the entries of `units`, which the slice maps; with `only_look`, says whether there is
// anything to change.
Result<bool> GuestMap::apply_removal(Slice& slice, GuestRange units, Removal removal,
                                     bool only_look) {
  const Geometry& geometry = image_.geometry;
  const uint64_t end = cluster_end(units);
  bool changes = false;
  for (ClusterIndex guest = geometry.guest_cluster(units.offset); guest.value() < end;
       guest = guest + 1) {
    const uint64_t index = geometry.index_in_slice(guest);
    const L2Entry old = slice.load(index);
    if (is_invalid(old)) return damaged_mapping(image_, guest);
    const L2Entry changed = geometry.has_subclusters()
                                ? subclusters_after(old, mask_of(units, guest), removal)
                                : entry_after(old, removal);
    if (changed == old) continue;
    changes = true;
    if (only_look) continue;
    slice.store(index, changed);
    if (!changed.has_host()) release(old);
  }
  return changes;
}

// One behind the last cluster that `units` touches.
uint64_t GuestMap::cluster_end(GuestRange units) const {
  return image_.geometry.guest_cluster(GuestOffset(units.end().value() - 1)).value() + 1;
}

// What of `units` its first slice maps.
GuestRange GuestMap::front_in_slice(GuestRange units) const {
  const Geometry& geometry = image_.geometry;
  const ClusterIndex first = geometry.guest_cluster(units.offset);
  const ClusterIndex slice_end((geometry.slice_of(first) + 1) << geometry.slice_bits());
  return GuestRange::between(units.offset, std::min(geometry.guest_offset(slice_end), units.end()));
}

// The units at the front of `asked` that one slice maps.
Task<ClusterChange> GuestMap::remove_in_slice(GuestRange asked, Removal removal) {
  const Geometry& geometry = image_.geometry;
  GuestRange units = front_in_slice(asked);
  const ClusterIndex first = geometry.guest_cluster(units.offset);

  RangeGuard guard(clusters_, first.value(), cluster_end(units));
  co_await guard.acquired();
  co_await check_writable(image_, "zero clusters");
  const uint64_t l1_index = geometry.l1_index(first);
  if (image_.l1.load(l1_index).raw() == 0) {
    if (!image_.may_show_below()) co_return ClusterChange{units.length};
    co_await ensure_own_table(l1_index);
  }
  Slice* slice = co_await slice_for(first);
  units = co_await without_cut_compressed(*slice, units, removal);
  bool changes = co_await apply_removal(*slice, units, removal, true);
  if (!changes) co_return ClusterChange{units.length};
  co_await ensure_own_table(l1_index);
  slice = co_await slice_for(first);
  changes = co_await apply_removal(*slice, units, removal, false);
  if (changes) slices_.mark_dirty(*slice);
  co_return ClusterChange{units.length};
}

Task<ClusterChange> GuestMap::zero_clusters(GuestRange clusters, ZeroOptions options) {
  const Removal removal = options.may_unmap ? Removal::kZero : Removal::kZeroKeepingPlace;
  if (ByteCount skipped = skip_untouched(clusters); !skipped.is_zero()) {
    co_return ClusterChange{skipped};
  }
  if (!image_.has_zero_flag() && image_.may_show_below()) {
    co_return Error::of(ErrorKind::kUnsupported, "zero clusters", clusters.offset.value());
  }
  co_return co_await remove_in_slice(clusters, removal);
}

Task<ClusterChange> GuestMap::discard_clusters(GuestRange clusters) {
  if (!image_.has_zero_flag() && image_.may_show_below()) {
    co_return ClusterChange{clusters.length};
  }
  if (ByteCount skipped = skip_untouched(clusters); !skipped.is_zero()) {
    co_return ClusterChange{skipped};
  }
  co_return co_await remove_in_slice(clusters, Removal::kDiscard);
}

}  // namespace ringdisk::qcow2
