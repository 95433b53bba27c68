// SPDX-License-Identifier: Apache-2.0
// Loading, publishing and retiring slices.
#include "qcow2/home/slice_cache.h"

#include <algorithm>

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
  slice.dirty = slice.was_changed = true;
  dirty_.push_back(&slice);
}

Task<void> SliceCache::load(uint64_t number) {
  const Geometry& geometry = image_.geometry;
  const uint64_t locked = slices_to_read(image_, number);
  RangeGuard guard(loading_, number, number + locked);
  co_await guard.acquired();
  if (image_.slices.find(number)) co_return;
  // What came while this waited may be changed, written and evicted during the read: not read here.
  const uint64_t count = std::min(locked, slices_to_read(image_, number));
  const uint64_t l1_index = geometry.l1_index_of_slice(number);
  const L1Entry table = image_.l1.load(l1_index);
  CHECK(table.has_table());
  const uint64_t bytes = count * geometry.slice_bytes();
  Buffer buffer = co_await Shard::current().buffers().try_take(bytes);
  if (is_new_table(l1_index)) {
    fill_zero(buffer.first(bytes));
  } else {
    co_await read_slices(image_, storage_, table, number, buffer.first(bytes));
  }
  // The one that was asked for comes last, so that none of the others takes its room.
  for (uint64_t i = count; i-- > 0;) {
    if (image_.slices.find(number + i)) continue;
    Bytes slice_bytes =
        buffer.first(bytes).subspan(i * geometry.slice_bytes(), geometry.slice_bytes());
    insert(decode_slice(image_, number + i, slice_bytes, take_spare()));
  }
}

// The lock keeps it out of the middle of a load here, whose bytes must stay what the disk holds.
// What has left memory by then goes back with the batch, as memory for the next one.
Task<void> SliceCache::take_in(SliceBatch& batch) {
  const uint64_t first = batch.first;
  RangeGuard guard(loading_, first, first + batch.slices.size());
  co_await guard.acquired();
  const uint64_t l1_index = image_.geometry.l1_index_of_slice(first);
  if (is_new_table(l1_index) || image_.l1.load(l1_index).table() != batch.table.table()) co_return;
  for (uint64_t i = batch.slices.size(); i-- > 0;) {
    if (image_.slices.find(first + i)) continue;
    if (image_.departures.may_miss(first + i, batch.since)) continue;
    insert(std::move(batch.slices[i]));
    batch.slices[i].slice = take_spare();
  }
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

// What points at a table is as invalid as an entry with reserved bits.
void SliceCache::judge(const DecodedSlice& decoded) {
  bool is_wrong = false;
  for (const ClusterRun& run : decoded.pointed) {
    pointed_end_ = std::max(pointed_end_, run.first.value() + run.count);
    is_wrong = is_wrong || metadata_.overlaps(run.first, run.count);
  }
  if (is_wrong) reject_what_points_at_tables(*decoded.slice);
}

void SliceCache::reject_what_points_at_tables(Slice& slice) const {
  for (uint64_t i = 0; i < image_.geometry.slice_entries(); ++i) {
    const L2Entry entry = slice.load(i);
    if (!entry.has_host()) continue;
    if (!metadata_.contains(image_.geometry.host_cluster(entry.host()))) continue;
    slice.fill(i, L2Entry(entry.raw() | kRejected, entry.bitmap()));
  }
}

void SliceCache::insert(DecodedSlice decoded) {
  judge(decoded);
  make_room();
  std::unique_ptr<Slice> slice = std::move(decoded.slice);
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
    if (victim->was_changed) image_.departures.note(victim->number);
    auto node = owned_.extract(victim->number);
    retired_.push_back({std::move(node.mapped()), image_.pins.mark()});
  }
}

void SliceCache::free_retired() {
  while (!retired_.empty() && image_.pins.is_past(retired_.front().mark)) {
    if (spares_.size() < kSparesMax) spares_.push_back(std::move(retired_.front().slice));
    retired_.pop_front();
  }
}

std::unique_ptr<Slice> SliceCache::take_spare() {
  if (spares_.empty()) return nullptr;
  std::unique_ptr<Slice> spare = std::move(spares_.back());
  spares_.pop_back();
  return spare;
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
  if (!tables.empty()) image_.departures.note_all();
  for (uint64_t table : tables) new_tables_.erase(table);
}

}  // namespace ringdisk::qcow2
