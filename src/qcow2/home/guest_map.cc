// SPDX-License-Identifier: Apache-2.0
// Allocation of guest clusters, and of the L2 tables that map them.
#include "qcow2/home/guest_map.h"

#include <algorithm>

#include "qcow2/damage.h"

namespace ringdisk::qcow2 {

GuestMap::GuestMap(Image& image, SliceCache& slices, Allocator& allocator, Quarantine& quarantine,
                   const MetadataMap& metadata)
    : image_(image),
      slices_(slices),
      allocator_(allocator),
      quarantine_(quarantine),
      metadata_(metadata) {}

GuestMap::~GuestMap() { CHECK(pending_.empty()); }

// The slice that maps `guest`, whose table exists.
Task<Slice*> GuestMap::slice_for(ClusterIndex guest) {
  const Geometry& geometry = image_.geometry;
  const L1Entry table = image_.l1.load(geometry.l1_index(guest));
  if (!table.is_valid(geometry) || !table.has_table()) co_return damaged_mapping(image_, guest);
  co_return co_await slices_.get(geometry.slice_of(guest));
}

// What a lookup could not use is either not in memory or damaged.
Task<void> GuestMap::load(GuestOffset at) {
  const Geometry& geometry = image_.geometry;
  const ClusterIndex guest = geometry.guest_cluster(at);
  if (image_.l1.load(geometry.l1_index(guest)).raw() == 0) co_return;
  Slice* slice = co_await slice_for(guest);
  const L2Entry entry = slice->load(geometry.index_in_slice(guest));
  if (entry.kind(geometry, image_.has_zero_flag()) == EntryKind::kInvalid) {
    co_await fail(damaged_mapping(image_, guest));
  }
}

// --- L2 tables

// Afterwards the table of `l1_index` exists and belongs to the active L1 table alone.
Task<void> GuestMap::ensure_own_table(uint64_t l1_index) {
  if (image_.l1.load(l1_index).is_copied()) co_return;
  RangeGuard guard(tables_, l1_index, l1_index + 1);
  co_await guard.acquired();
  const L1Entry table = image_.l1.load(l1_index);
  if (!table.is_valid(image_.geometry)) {
    co_await fail(damaged_mapping(image_, image_.geometry.first_cluster_of(l1_index)));
  }
  if (!table.has_table()) {
    co_await add_table(l1_index);
  } else if (!table.is_copied()) {
    co_await copy_table(l1_index);
  }
}

Task<void> GuestMap::add_table(uint64_t l1_index) {
  const ClusterIndex place = co_await allocator_.allocate_table();
  slices_.add_new_table(l1_index);
  image_.l1.store(l1_index, L1Entry::owned(image_.geometry.host_offset(place)));
}

// A table that a snapshot shares: the new one holds the same entries. All slices stay in memory
// until it is written whole.
Task<void> GuestMap::copy_table(uint64_t l1_index) {
  const Geometry& geometry = image_.geometry;
  const HostOffset old = image_.l1.load(l1_index).table();
  const uint64_t first = geometry.slice_of(geometry.first_cluster_of(l1_index));
  const ClusterIndex place = co_await allocator_.allocate_table();
  std::vector<Slice*> held;
  Result<void> outcome;
  for (uint64_t i = 0; i < geometry.slices_per_table() && outcome.ok(); ++i) {
    Result<Slice*> slice = co_await slices_.get(first + i).result();
    if (slice.ok()) {
      held.push_back(slice.value());
      ++held.back()->holds;
    } else {
      outcome = slice.error();
    }
  }
  for (Slice* slice : held) --slice->holds;
  if (!outcome.ok()) {
    const ClusterRun unused{place, 1};
    co_await allocator_.take_back(unused);
    co_await std::move(outcome);
  }
  for (Slice* slice : held) slices_.mark_dirty(*slice);
  slices_.add_new_table(l1_index);
  image_.l1.store(l1_index, L1Entry::owned(geometry.host_offset(place)));
  quarantine_.release(geometry.host_cluster(old));
}

// --- allocation

// What must not be followed, nor released: it might be a table. Standard entries that point at one
// were marked when they came into memory (SliceCache::judged), compressed ones have no bit for it.
bool GuestMap::is_invalid(L2Entry entry) const {
  if (entry.kind(image_.geometry, image_.has_zero_flag()) == EntryKind::kInvalid) return true;
  if (!entry.is_compressed()) return false;
  const ClusterRun run = host_clusters_of(entry, image_.geometry);
  for (uint64_t i = 0; i < run.count; ++i) {
    if (metadata_.contains(run.first + i)) return true;
  }
  return false;
}

bool GuestMap::is_kept(L2Entry entry) const {
  return entry.kind(image_.geometry, image_.has_zero_flag()) == EntryKind::kZero &&
         entry.has_host() && entry.is_copied();
}

// Clusters from `first` on that have no place in which they may be written.
uint64_t GuestMap::count_placeless(const Slice& slice, ClusterIndex first, uint64_t end) const {
  uint64_t count = 0;
  for (; first.value() + count < end; ++count) {
    L2Entry entry = slice.load(image_.geometry.index_in_slice(first + count));
    if (is_invalid(entry)) break;
    if (entry.is_writable_in_place() || is_kept(entry)) break;
  }
  return count;
}

// Clusters from `first` on that read as zeros but have kept their places, one behind the other.
uint64_t GuestMap::count_kept(const Slice& slice, ClusterIndex first, uint64_t end) const {
  const Geometry& geometry = image_.geometry;
  const HostOffset host = slice.load(geometry.index_in_slice(first)).host();
  uint64_t count = 0;
  for (; first.value() + count < end; ++count) {
    L2Entry entry = slice.load(geometry.index_in_slice(first + count));
    const ByteCount before(count << geometry.cluster_bits());
    if (!is_kept(entry) || entry.host() != host + before) break;
  }
  return count;
}

Task<void> GuestMap::choose_place(Pending& pending, uint64_t end, Slice& slice) {
  const Geometry& geometry = image_.geometry;
  const ClusterIndex first = pending.guest_first;
  const L2Entry entry = slice.load(geometry.index_in_slice(first));
  if (is_invalid(entry)) co_await fail(damaged_mapping(image_, first));
  pending.was_kept = is_kept(entry);
  if (pending.was_kept) {
    pending.host = {geometry.host_cluster(entry.host()), count_kept(slice, first, end)};
    cover_whole(pending);
    co_return;
  }
  const uint64_t count = count_placeless(slice, first, end);
  if (count == 0) co_return;
  NewClusters made = co_await allocate_for(first, count);
  pending.host = made.run;
  pending.reads_zero = made.reads_zero;
  cover_whole(pending);
}

// In a data file every cluster has its place already; what that holds is not known. What is zero in
// the file of an encrypted image is noise to the guest.
Task<NewClusters> GuestMap::allocate_for(ClusterIndex guest, uint64_t count) {
  if (!image_.has_data_file()) {
    NewClusters made = co_await allocator_.allocate(count);
    made.reads_zero = made.reads_zero && !image_.header.is_encrypted();
    co_return made;
  }
  const HostOffset place(image_.geometry.guest_offset(guest).value() | kInDataFile);
  co_return NewClusters{{image_.geometry.host_cluster(place), count}, false};
}

void GuestMap::cover_whole(Pending& pending) const {
  pending.cover_first = pending.touched_first = pending.guest_first.value();
  pending.cover_end = pending.touched_end = pending.cover_first + pending.host.count;
}

GuestRange GuestMap::units_range(uint64_t first, uint64_t end) const {
  const uint32_t bits = image_.geometry.unit_bits();
  return GuestRange(GuestOffset(first << bits), ByteCount((end - first) << bits));
}

Task<std::optional<Allocation>> GuestMap::begin_allocation(GuestRange range) {
  const Geometry& geometry = image_.geometry;
  const ClusterIndex first = geometry.guest_cluster(range.offset);
  const uint64_t range_end =
      geometry.guest_cluster(GuestOffset(range.end().value() - 1)).value() + 1;
  const uint64_t slice_end = (geometry.slice_of(first) + 1) << geometry.slice_bits();
  const uint64_t end = std::min(range_end, slice_end);
  auto pending = std::make_unique<Pending>(clusters_, first, end);
  co_await pending->guard.acquired();
  co_await check_writable(image_, "write");
  co_await ensure_own_table(geometry.l1_index(first));
  Slice* slice = co_await slice_for(first);
  if (geometry.has_subclusters()) {
    const uint64_t units_end = geometry.unit_of(GuestOffset(range.end().value() - 1)) + 1;
    co_await choose_subclusters(*pending, geometry.unit_of(range.offset),
                                std::min(units_end, geometry.first_unit_of(ClusterIndex(end))),
                                *slice);
  } else {
    co_await choose_place(*pending, end, *slice);
  }
  if (pending->host.count == 0) co_return std::nullopt;
  const uint64_t lead = pending->cover_first - geometry.first_unit_of(first);
  Allocation allocation;
  allocation.cover = units_range(pending->cover_first, pending->cover_end);
  allocation.request =
      range.intersection(units_range(pending->touched_first, pending->touched_end));
  allocation.changed = allocation.request;
  const uint64_t place = geometry.host_offset(pending->host.first).value();
  allocation.host =
      HostOffset(image_.place_in_data(place)) + ByteCount(lead << geometry.unit_bits());
  allocation.reads_zero = pending->reads_zero;
  allocation.ticket = ++tickets_;
  pending_.emplace(allocation.ticket, std::move(pending));
  co_return allocation;
}

std::unique_ptr<GuestMap::Pending> GuestMap::take_pending(const Allocation& allocation) {
  auto node = pending_.extract(allocation.ticket);
  CHECK(!node.empty());
  return std::move(node.mapped());
}

// The slice may have left memory since the allocation began, and may not come back.
Task<void> GuestMap::record(const Pending& pending) {
  const Geometry& geometry = image_.geometry;
  co_await check_writable(image_, "write");
  Slice* slice = co_await slice_for(pending.guest_first);
  for (uint64_t i = 0; i < pending.host.count; ++i) {
    const uint64_t index = geometry.index_in_slice(pending.guest_first + i);
    const L2Entry old = slice->load(index);
    slice->store(index, recorded(pending, i, old));
    if (!pending.was_kept) release(old);
  }
  slices_.mark_dirty(*slice);
}

// What the entry of the allocation's cluster `index` becomes.
L2Entry GuestMap::recorded(const Pending& pending, uint64_t index, L2Entry old) const {
  if (image_.geometry.has_subclusters()) return recorded_subclusters(pending, index, old);
  return L2Entry::owned(image_.geometry.host_offset(pending.host.first + index));
}

// Whatever happens the clusters are unlocked at the end, and have an owner or are free.
Task<void> GuestMap::finish_allocation(Allocation allocation) {
  std::unique_ptr<Pending> pending = take_pending(allocation);
  Result<void> recorded = co_await record(*pending).result();
  if (recorded.ok()) co_return;
  Result<void> taken_back = co_await give_place_back(*pending).result();
  static_cast<void>(taken_back.ok());  // the first error is the one that matters
  co_await std::move(recorded);
}

Task<void> GuestMap::abandon_allocation(Allocation allocation) {
  std::unique_ptr<Pending> pending = take_pending(allocation);
  co_await give_place_back(*pending);
}

Task<void> GuestMap::give_place_back(const Pending& pending) {
  if (!pending.was_kept && !image_.has_data_file()) {
    co_await allocator_.take_back(pending.host);
  }
}

// Host clusters that an entry points at, once the entry is gone.
void GuestMap::release(L2Entry entry) {
  if (is_invalid(entry)) return;
  if (image_.has_data_file() && !entry.is_compressed()) return;
  const ClusterRun run = host_clusters_of(entry, image_.geometry);
  if (run.count != 0) quarantine_.release(run);
}

}  // namespace ringdisk::qcow2
