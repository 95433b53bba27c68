// SPDX-License-Identifier: Apache-2.0
// Loading, publishing and retiring slices.
#include "qcow2/home/slice_cache.h"

#include <algorithm>

#include "qcow2/damage.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

// More than one load brings in, so that what was asked for is still there when the load is done.
constexpr uint64_t kSlicesMin = 64;

uint64_t slices_in(uint64_t bytes, const Geometry& geometry) {
  return std::max<uint64_t>(bytes / geometry.slice_bytes(), kSlicesMin);
}

}  // namespace

SliceCache::SliceCache(Image& image, StorageAccess& storage, const MetadataMap& metadata)
    : image_(image),
      storage_(storage),
      metadata_(metadata),
      eviction_(slices_in(image.options.slice_memory_max, image.geometry)) {}

Task<Slice*> SliceCache::get(uint64_t number) {
  for (;;) {
    if (Slice* slice = image_.slices.find(number)) co_return slice;
    co_await load(number);
  }
}

void SliceCache::mark_dirty(Slice& slice) {
  if (slice.dirty) return;
  slice.dirty = true;
  dirty_.push_back(&slice);
}

// One slice, or several where the one before is in memory already: somebody reads on from there.
uint64_t SliceCache::slices_to_load(uint64_t number) const {
  const Geometry& geometry = image_.geometry;
  const uint64_t in_table = geometry.slice_in_table(number);
  if (in_table == 0 || !image_.slices.find(number - 1)) return 1;
  const uint64_t left = std::min(kReadAheadSlices, geometry.slices_per_table() - in_table);
  uint64_t count = 1;
  while (count < left && !image_.slices.find(number + count)) ++count;
  return count;
}

Task<void> SliceCache::load(uint64_t number) {
  const Geometry& geometry = image_.geometry;
  const uint64_t locked = slices_to_load(number);
  RangeGuard guard(loading_, number, number + locked);
  co_await guard.acquired();
  if (image_.slices.find(number)) co_return;
  // What came while this waited may be changed, written and evicted during the read: not read here.
  const uint64_t count = std::min(locked, slices_to_load(number));
  const uint64_t l1_index = geometry.l1_index_of_slice(number);
  const L1Entry table = image_.l1.load(l1_index);
  CHECK(table.has_table());
  const uint64_t bytes = count * geometry.slice_bytes();
  Buffer buffer = Shard::current().buffers().take(bytes);
  if (is_new_table(l1_index)) {
    fill_zero(buffer.first(bytes));
  } else {
    // Beyond the end a read gives zeros: a file cut short would pass for an empty disk.
    if (geometry.host_cluster(table.table()).value() >=
        geometry.clusters_of(storage_.size().value())) {
      co_await fail(missing_table(image_, l1_index));
    }
    const ByteCount before(geometry.slice_in_table(number) * geometry.slice_bytes());
    MutableBuffers target(buffer.first(bytes));
    Result<void> read = co_await storage_.read(table.table() + before, target).result();
    if (!read.ok()) co_await fail(unread_table(image_, l1_index, read.error()));
  }
  // The one that was asked for comes last, so that none of the others takes its room.
  for (uint64_t i = count; i-- > 0;) {
    if (image_.slices.find(number + i)) continue;
    Bytes slice_bytes = buffer.first(bytes).subspan(i * geometry.slice_bytes());
    insert(make_slice(number + i, slice_bytes));
  }
}

std::unique_ptr<Slice> SliceCache::make_slice(uint64_t number, Bytes bytes) {
  const Geometry& geometry = image_.geometry;
  auto slice =
      std::make_unique<Slice>(number, geometry.slice_entries(), geometry.has_subclusters());
  for (uint64_t i = 0; i < geometry.slice_entries(); ++i) {
    L2Entry entry = load_l2_entry(bytes, i, geometry);
    if (image_.has_data_file()) {
      const ClusterIndex guest((number << geometry.slice_bits()) + i);
      entry = entry_in_data_file(entry, geometry.guest_offset(guest));
    }
    entry = judged(entry);
    slice->fill(i, entry);
    // Nothing of a data file can be in the way of a table.
    if (image_.has_data_file()) continue;
    const ClusterRun run = host_clusters_of(entry, geometry);
    pointed_end_ = std::max(pointed_end_, run.first.value() + run.count);
  }
  return slice;
}

bool SliceCache::is_pointed_at(ClusterRun run) const {
  if (run.first.value() >= pointed_end_) return false;
  for (const auto& [number, slice] : owned_) {
    for (uint64_t i = 0; i < image_.geometry.slice_entries(); ++i) {
      const ClusterRun there = host_clusters_of(slice->load(i), image_.geometry);
      const bool is_apart = there.first.value() + there.count <= run.first.value() ||
                            run.first.value() + run.count <= there.first.value();
      if (!is_apart) return true;
    }
  }
  return false;
}

// On the disk our own bits are reserved ones, so an entry that has them is as invalid as one that
// points at a table.
L2Entry SliceCache::judged(L2Entry entry) const {
  if (entry.is_compressed()) return entry;
  bool is_wrong = (entry.raw() & (kFrozen | kRejected)) != 0;
  is_wrong = is_wrong ||
             (entry.has_host() && metadata_.contains(image_.geometry.host_cluster(entry.host())));
  return is_wrong ? L2Entry(entry.raw() | kRejected, entry.bitmap()) : entry;
}

void SliceCache::insert(std::unique_ptr<Slice> slice) {
  make_room();
  image_.slices.publish(*slice);
  eviction_.insert(*slice);
  owned_.emplace(slice->number, std::move(slice));
}

void SliceCache::make_room() {
  free_retired();
  while (eviction_.is_full()) {
    Slice* victim = eviction_.take_victim();
    if (!victim) return;  // all dirty or held; write-back is bounded, so this passes
    image_.slices.remove(*victim);
    auto node = owned_.extract(victim->number);
    retired_.push_back({std::move(node.mapped()), image_.pins.mark()});
  }
}

void SliceCache::free_retired() {
  while (!retired_.empty() && image_.pins.is_past(retired_.front().mark)) retired_.pop_front();
}

std::vector<Slice*> SliceCache::take_dirty() {
  for (Slice* slice : dirty_) {
    slice->dirty = false;
    ++slice->holds;
  }
  return std::exchange(dirty_, {});
}

void SliceCache::write_back_done(const std::vector<Slice*>& slices,
                                 const std::set<uint64_t>& tables) {
  for (Slice* slice : slices) --slice->holds;
  for (uint64_t table : tables) new_tables_.erase(table);
}

}  // namespace ringdisk::qcow2
