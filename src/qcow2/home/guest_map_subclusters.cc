// SPDX-License-Identifier: Apache-2.0
// Subclusters of images with extended L2 entries: allocated, zeroed and discarded each by itself.
// What a write does to the cluster that it touches:
//
//   the cluster has a place of its own     subclusters that are not there yet are filled in it:
//                                          touched ones alone
//   none, and no data                      a new place; touched subclusters are filled in it
//   data that a snapshot shares, or that   a new place; from the first to the last subcluster that
//   is compressed                          has data or is touched, all are filled in it
//
// "filled": the write and, in the subclusters at its edges, what the guest saw there before. What
// neither had data nor was touched stays unallocated or zeros, whatever the place holds there.
//
//   bits before:  - d d - z - - -      d data, z zeros, - unallocated
//   write:                  w w        shared: filled from 1 to 6
//   bits after:   - d d - z d d -      bit 3 stays: what was filled there is never read
#include <algorithm>
#include <bit>
#include <vector>

#include "qcow2/damage.h"
#include "qcow2/home/guest_map.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint32_t kAll = ~uint32_t{0};
constexpr uint64_t kPerCluster = uint64_t{1} << kSubclusterBits;

// Has a place in which subclusters may be filled.
bool has_own_place(L2Entry entry) { return entry.is_writable_in_place(); }

// Subclusters that a new place must hold because the old one does.
uint32_t data_of(L2Entry entry) { return entry.is_compressed() ? kAll : entry.allocated(); }

// Bits of the subclusters [first, end) of the disk in cluster `guest`.
uint32_t bits_of(uint64_t first, uint64_t end, ClusterIndex guest) {
  const uint64_t begin = guest.value() << kSubclusterBits;
  const uint64_t low = std::clamp(first, begin, begin + kPerCluster) - begin;
  const uint64_t high = std::clamp(end, begin, begin + kPerCluster) - begin;
  if (low >= high) return 0;
  return (high - low == kPerCluster ? kAll : (uint32_t{1} << (high - low)) - 1) << low;
}

}  // namespace

// --- allocation

// Of the subclusters [first, end), which one slice maps, a prefix that is contiguous in its place.
Task<void> GuestMap::choose_subclusters(Pending& pending, uint64_t first, uint64_t end,
                                        Slice& slice) {
  const Geometry& geometry = image_.geometry;
  const L2Entry entry = slice.load(geometry.index_in_slice(pending.guest_first));
  if (is_invalid(entry)) co_await fail(damaged_mapping(image_, pending.guest_first));
  pending.was_kept = has_own_place(entry);
  if (pending.was_kept) {
    choose_kept_subclusters(pending, first, end, slice);
  } else {
    co_await choose_new_subclusters(pending, first, end, slice);
  }
}

// None (host.count is 0) where the first one has become data meanwhile.
void GuestMap::choose_kept_subclusters(Pending& pending, uint64_t first, uint64_t end,
                                       const Slice& slice) {
  const Geometry& geometry = image_.geometry;
  const L2Entry front = slice.load(geometry.index_in_slice(pending.guest_first));
  uint64_t at = first;
  while (at < end) {
    const ClusterIndex guest = geometry.cluster_of_unit(at);
    const L2Entry entry = slice.load(geometry.index_in_slice(guest));
    const ByteCount before((guest - pending.guest_first) << geometry.cluster_bits());
    const bool goes_on =
        !is_invalid(entry) && has_own_place(entry) && entry.host() == front.host() + before;
    if (!goes_on) break;
    const auto index = static_cast<uint32_t>(at % kPerCluster);
    const uint64_t free = static_cast<uint64_t>(std::countr_zero(entry.allocated() >> index));
    const uint64_t left = kPerCluster - index;
    at += std::min(free, left);
    if (free < left) break;
  }
  at = std::min(at, end);
  if (at == first) return;
  pending.cover_first = pending.touched_first = first;
  pending.cover_end = pending.touched_end = at;
  const uint64_t clusters = geometry.cluster_of_unit(at - 1) - pending.guest_first + 1;
  pending.host = {geometry.host_cluster(front.host()), clusters};
}

Task<void> GuestMap::choose_new_subclusters(Pending& pending, uint64_t first, uint64_t end,
                                            Slice& slice) {
  const Geometry& geometry = image_.geometry;
  const ClusterIndex front = pending.guest_first;
  const uint64_t wanted = geometry.cluster_of_unit(end - 1) - front + 1;
  std::vector<uint32_t> data;
  while (data.size() < wanted) {
    const L2Entry entry = slice.load(geometry.index_in_slice(front + data.size()));
    if (is_invalid(entry) || has_own_place(entry)) break;
    data.push_back(data_of(entry));
  }
  const NewClusters made = co_await allocate_for(front, data.size());
  pending.host = made.run;
  pending.reads_zero = made.reads_zero;
  const ClusterIndex back = front + (made.run.count - 1);
  end = std::min(end, geometry.first_unit_of(back + 1));
  pending.touched_first = pending.cover_first = first;
  pending.touched_end = pending.cover_end = end;
  if (data.front() != 0) {
    const auto lowest = static_cast<uint64_t>(std::countr_zero(data.front()));
    pending.cover_first = std::min(first, geometry.first_unit_of(front) + lowest);
  }
  const auto data_end = static_cast<uint64_t>(std::bit_width(data[made.run.count - 1]));
  pending.cover_end = std::max(end, geometry.first_unit_of(back) + data_end);
}

L2Entry GuestMap::recorded_subclusters(const Pending& pending, uint64_t index, L2Entry old) const {
  const uint32_t touched =
      bits_of(pending.touched_first, pending.touched_end, pending.guest_first + index);
  const uint32_t zeros = old.is_compressed() ? 0 : old.zeros() & ~touched;
  const uint32_t allocated = data_of(old) | touched;
  if (pending.was_kept) return old.with_subclusters(allocated, zeros);
  const HostOffset host = image_.geometry.host_offset(pending.host.first + index);
  return L2Entry::owned(host).with_subclusters(allocated, zeros);
}

// --- removal

uint32_t GuestMap::mask_of(GuestRange units, ClusterIndex guest) const {
  const Geometry& geometry = image_.geometry;
  uint64_t end = geometry.unit_of(GuestOffset(units.end().value() - 1)) + 1;
  // Behind the disk's end there is nothing to be kept: what goes up to it is whole.
  const bool is_last = units.end().value() == image_.size.value();
  if (is_last) end = geometry.first_unit_of(ClusterIndex(cluster_end(units)));
  return bits_of(geometry.unit_of(units.offset), end, guest);
}

// `units` up to a compressed cluster that it does not hold whole. Where that is the first, zeros
// have to be written; a discard leaves it as it is.
Result<GuestRange> GuestMap::without_cut_compressed(const Slice& slice, GuestRange units,
                                                    Removal removal) const {
  const Geometry& geometry = image_.geometry;
  if (!geometry.has_subclusters() || removal == Removal::kDiscard) return units;
  const ClusterIndex first = geometry.guest_cluster(units.offset);
  const ClusterIndex last(cluster_end(units) - 1);
  auto is_cut = [&](ClusterIndex guest) {
    return slice.load(geometry.index_in_slice(guest)).is_compressed() &&
           mask_of(units, guest) != kAll;
  };
  if (is_cut(first)) {
    return Error::of(ErrorKind::kUnsupported, "zero clusters", units.offset.value());
  }
  if (!is_cut(last)) return units;
  return GuestRange::between(units.offset, geometry.guest_offset(last));
}

// As entry_after, for the subclusters of `mask`. The place goes with the last data, unless zeros
// are to keep it.
L2Entry GuestMap::subclusters_after(L2Entry entry, uint32_t mask, Removal removal) const {
  const bool shows_below = image_.may_show_below();
  const bool is_discard = removal == Removal::kDiscard;
  if (entry.is_compressed()) {
    if (mask != kAll) return entry;
    return L2Entry::unallocated().with_subclusters(0, is_discard && !shows_below ? 0 : kAll);
  }
  const uint32_t allocated = entry.allocated() & ~mask;
  const uint32_t lost = entry.allocated() & mask;
  uint32_t zeros = entry.zeros() | (shows_below ? mask : 0);
  if (!is_discard) zeros |= lost;
  const bool is_kept = removal == Removal::kZeroKeepingPlace && entry.is_copied();
  const bool is_last = allocated == 0 && (lost != 0 || mask == kAll);
  const L2Entry place = is_last && !is_kept ? L2Entry::unallocated() : entry;
  return place.with_subclusters(allocated, zeros);
}

}  // namespace ringdisk::qcow2
