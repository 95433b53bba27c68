// SPDX-License-Identifier: Apache-2.0
// Searching: holes first, then the end.
#include "qcow2/home/allocator.h"

#include <algorithm>

#include "qcow2/damage.h"

namespace ringdisk::qcow2 {

Allocator::Allocator(Image& image, StorageAccess& storage, RefcountBlocks& refcounts,
                     MetadataMap& metadata, const SliceCache& slices)
    : image_(image),
      storage_(storage),
      refcounts_(refcounts),
      metadata_(metadata),
      slices_(slices) {}

Task<void> Allocator::open() {
  end_ = image_.geometry.clusters_of(storage_.size().value());
  if (!storage_.limits().grows) co_await find_end();
  scan_end_ = end_;
}

// On a storage of fixed size (a block device) the end is behind the last cluster in use.
Task<void> Allocator::find_end() {
  const Geometry& geometry = image_.geometry;
  end_ = std::max<uint64_t>(1, metadata_.end());
  for (uint64_t block = refcounts_.table_entries(); block-- > 0;) {
    if (!refcounts_.has_block(block)) continue;
    co_await refcounts_.load(block);
    const uint64_t first = geometry.first_cluster_of_block(block).value();
    for (uint64_t at = first + geometry.refcount_block_entries(); at-- > first;) {
      if (refcounts_.get(ClusterIndex(at)) == 0) continue;
      end_ = std::max(at + 1, metadata_.end());
      co_return;
    }
  }
}

Task<NewClusters> Allocator::allocate(uint64_t count) {
  MutexLock lock = co_await allocating_.lock();
  // A run lies within one refcount block, so that its numbers change in one step.
  count = std::min(count, image_.geometry.refcount_block_entries());
  std::optional<ClusterRun> hole = free_.find(count);
  if (!hole && scanned_ < scan_end_) {
    co_await discover();
    hole = free_.find(count);
  }
  if (hole) co_return co_await allocate_hole(*hole);
  Result<NewClusters> at_end = co_await allocate_at_end(count).result();
  if (at_end.ok() || at_end.error().kind != ErrorKind::kNoSpace) co_return std::move(at_end);
  co_return co_await allocate_last_holes(count, at_end.error());
}

// The end is reached: now any hole will do.
Task<NewClusters> Allocator::allocate_last_holes(uint64_t count, Error full) {
  while (free_.empty() && scanned_ < scan_end_) co_await discover();
  std::optional<ClusterRun> hole = free_.find_any(count);
  if (!hole) co_return full;
  co_return co_await allocate_hole(*hole);
}

Task<NewClusters> Allocator::allocate_for_table() {
  MutexLock lock = co_await allocating_.lock();
  Result<NewClusters> at_end = co_await allocate_at_end(1).result();
  if (at_end.ok() || at_end.error().kind != ErrorKind::kNoSpace) co_return std::move(at_end);
  co_return co_await allocate_last_holes(1, at_end.error());
}

Task<ClusterIndex> Allocator::allocate_table() {
  NewClusters place = co_await allocate_for_table();
  Result<void> reserved = co_await reserve(place.run).result();
  if (!reserved.ok()) {
    co_await take_back(place.run);
    co_return reserved.error();
  }
  co_await claim(place.run);
  co_return place.run.first;
}

// Clusters become a table's. Where an entry points at one, or a table lies there already, its
// refcount of zero was wrong: guests would write over the table. Such a cluster is neither used nor
// given back; the error ends the image as a writable one before anything points at it.
Result<void> Allocator::claim(ClusterRun run) {
  if (!slices_.is_pointed_at(run) && metadata_.add(run.first, run.count)) return {};
  return used_free_cluster(image_, run.first);
}

// Where the storage cannot promise space, write-back finds out.
Task<void> Allocator::reserve(ClusterRun run) {
  const HostRange range(image_.geometry.host_offset(run.first),
                        ByteCount(run.count << image_.geometry.cluster_bits()));
  Result<void> reserved = co_await storage_.allocate(range).result();
  if (!reserved.ok() && reserved.error().kind == ErrorKind::kUnsupported) co_return;
  co_await std::move(reserved);
}

// Looks through one more refcount block for holes that were there when the image was opened. What
// is not counted at all is left alone.
//
// A table that counts as free is damage, and the end of writing. To pass over it would save the
// table; but refcounts that miss a table, which we can recognise, are likely to miss data, which we
// cannot: its clusters would be given to somebody else.
Task<void> Allocator::discover() {
  const Geometry& geometry = image_.geometry;
  const uint64_t block = geometry.refcount_block_of(ClusterIndex(scanned_));
  const uint64_t block_end = geometry.first_cluster_of_block(block + 1).value();
  const uint64_t stop = std::min(block_end, scan_end_);
  const bool is_counted = refcounts_.has_block(block);
  if (is_counted) co_await refcounts_.load(block);
  for (; scanned_ < stop; ++scanned_) {
    const ClusterIndex cluster(scanned_);
    if (is_counted && refcounts_.get(cluster) != 0) continue;
    if (metadata_.contains(cluster)) co_await fail(used_free_cluster(image_, cluster));
    if (is_counted) free_.add({cluster, 1});
  }
}

Task<NewClusters> Allocator::allocate_hole(ClusterRun hole) {
  const Geometry& geometry = image_.geometry;
  const uint64_t block = geometry.refcount_block_of(hole.first);
  const uint64_t block_end = geometry.first_cluster_of_block(block + 1).value();
  hole.count = std::min(hole.count, block_end - hole.first.value());
  co_await refcounts_.load(block);
  free_.remove(hole);
  for (uint64_t i = 0; i < hole.count; ++i) {
    CHECK_EQ(refcounts_.get(hole.first + i), uint64_t{0});
    refcounts_.set(hole.first + i, 1);
  }
  co_return NewClusters{hole, false};
}

Result<void> Allocator::check_room(uint64_t end) const {
  const uint32_t bits = image_.geometry.cluster_bits();
  if (end > kHostEnd >> bits) return Error::of(ErrorKind::kNoSpace, "allocate clusters");
  if (!storage_.limits().grows && end << bits > storage_.size().value()) {
    return Error::of(ErrorKind::kNoSpace, "allocate clusters");
  }
  return {};
}

// How many clusters from end_ on, at most `count`, are free and counted by the loaded block of
// end_. Moves end_ over clusters that are in use already: leaks beyond the file's end, left by a
// crash.
uint64_t Allocator::free_at_end(uint64_t count) {
  const Geometry& geometry = image_.geometry;
  const uint64_t block = geometry.refcount_block_of(ClusterIndex(end_));
  const uint64_t block_end = geometry.first_cluster_of_block(block + 1).value();
  auto is_free = [this](uint64_t cluster) {
    return refcounts_.get(ClusterIndex(cluster)) == 0 && !metadata_.contains(ClusterIndex(cluster));
  };
  while (end_ < block_end && !is_free(end_)) ++end_;
  uint64_t found = 0;
  while (found < count && end_ + found < block_end && is_free(end_ + found)) ++found;
  return found;
}

Task<NewClusters> Allocator::allocate_at_end(uint64_t count) {
  const Geometry& geometry = image_.geometry;
  for (;;) {
    co_await check_room(end_ + 1);
    const uint64_t block = geometry.refcount_block_of(ClusterIndex(end_));
    co_await ensure_block(block);
    if (geometry.refcount_block_of(ClusterIndex(end_)) != block) continue;
    uint64_t found = free_at_end(count);
    while (found > 0 && !check_room(end_ + found).ok()) --found;
    if (found == 0) {
      co_await check_room(end_ + 1);
      continue;
    }
    const uint64_t bytes = (end_ + found) << geometry.cluster_bits();
    if (storage_.limits().grows && storage_.size().value() < bytes) {
      co_await extend_storage(end_ + found);
      continue;
    }
    NewClusters made{{ClusterIndex(end_), found}, storage_.limits().grown_reads_zero};
    for (uint64_t i = 0; i < found; ++i) refcounts_.set(ClusterIndex(end_ + i), 1);
    end_ += found;
    co_return made;
  }
}

// Every cluster that was given out lies before end_, so no write there makes the file longer than
// this: it only grows here.
Task<void> Allocator::extend_storage(uint64_t end) {
  const uint32_t bits = image_.geometry.cluster_bits();
  const uint64_t bytes = end << bits;
  const uint64_t step = std::clamp(bytes / 8, kExtensionMin, kExtensionMax);
  const uint64_t ahead = image_.geometry.clusters_of(step) << bits;
  extended_ = bytes + ahead;
  co_await storage_.resize(ByteCount(extended_));
}

// An image's entry may point beyond the end at open, and a write through it be there: what a
// refcount counts stays, and all of it where somebody else has made the file longer.
Task<void> Allocator::trim_storage() {
  const Geometry& geometry = image_.geometry;
  if (extended_ == 0 || storage_.size().value() > extended_) co_return;
  uint64_t used = geometry.clusters_of(storage_.size().value());
  for (; used > end_; --used) {
    const ClusterIndex last(used - 1);
    if (!refcounts_.has_block(geometry.refcount_block_of(last))) continue;
    co_await refcounts_.load(geometry.refcount_block_of(last));
    if (refcounts_.get(last) != 0) break;
  }
  const ByteCount kept(used << geometry.cluster_bits());
  if (storage_.size() > kept) co_await storage_.resize(kept);
}

Task<void> Allocator::take_back(ClusterRun run) {
  co_await refcounts_.load(image_.geometry.refcount_block_of(run.first));
  for (uint64_t i = 0; i < run.count; ++i) {
    // A damaged image's second pointer at a cluster may have freed it under its new owner.
    if (refcounts_.get(run.first + i) != 1) co_await fail(low_refcount(image_, run.first + i));
    refcounts_.set(run.first + i, 0);
    add_free({run.first + i, 1});
  }
}

// What lies in the part that is still to be scanned is found there in its time, and what lies
// beyond end_ (a damaged image's entry pointed there) when the end comes to it. A table that was
// there is one no more.
void Allocator::add_free(ClusterRun run) {
  const uint64_t begin = run.first.value(), end = begin + run.count;
  auto add = [this](uint64_t from, uint64_t to) {
    if (from < to) free_.add({ClusterIndex(from), to - from});
  };
  metadata_.remove(run.first, run.count);
  add(begin, std::min(end, scanned_));
  add(std::max(begin, scan_end_), std::min(end, end_));
}

}  // namespace ringdisk::qcow2
