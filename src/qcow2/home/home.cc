// SPDX-License-Identifier: Apache-2.0
// What queues ask of the home shard, and how damage is noted. Opening, background and closing:
// home_life.cc.
#include "qcow2/home/home.h"

#include "base/diagnostics.h"
#include "base/log.h"
#include "qcow2/damage.h"

namespace ringdisk::qcow2 {

Task<void> Home::load(GuestOffset at, SliceBatch* read) {
  if (read) co_await slices_.take_in(*read);
  Result<void> outcome = co_await guest_map_.load(at).result();
  if (!outcome.ok()) co_await note_damage(outcome.error());
  co_await std::move(outcome);
}

// A change of the mapping that may need clusters. It holds nothing while freed ones are fetched:
// its locks went with its frame.
template <class Change>
auto Home::perform(Change change) -> std::invoke_result_t<Change&> {
  co_await limit_dirty();
  auto outcome = co_await change().result();
  for (int tries = 0; !outcome.ok() && tries < kReclaimsMax; ++tries) {
    const bool reclaimed = co_await reclaim_after(outcome.error());
    if (!reclaimed) break;
    outcome = co_await change().result();
  }
  if (!outcome.ok()) co_await note_damage(outcome.error());
  co_return std::move(outcome);
}

// After a request found no cluster: takes those that are on their way through the quarantine to its
// end, joining a pass that is under way. False: there are none, or it is another error.
Task<bool> Home::reclaim_after(const Error& error) {
  if (error.kind != ErrorKind::kNoSpace || !quarantine_.is_holding()) co_return false;
  co_await flush();
  co_await process_quarantine();
  co_return true;
}

// Before the first change of the disk its bitmaps are in use, durably.
Task<void> Home::start_bitmaps() {
  if (bitmaps_.must_start()) co_await bitmaps_.start();
}

Task<void> Home::record_change(GuestRange range) {
  co_await start_bitmaps();
  image_.tracking.mark(range);
}

Task<std::shared_ptr<const DirtyBits>> Home::find_bitmap(std::string name) {
  return bitmaps_.find(std::move(name));
}

Task<std::optional<Allocation>> Home::begin_allocation(GuestRange range) {
  co_await start_bitmaps();
  auto begin = [this, range] { return guest_map_.begin_allocation(range); };
  co_return co_await perform(begin);
}

Task<void> Home::finish_allocation(Allocation allocation) {
  image_.tracking.mark(allocation.changed);
  Result<void> outcome = co_await guest_map_.finish_allocation(allocation).result();
  if (!outcome.ok()) co_await note_damage(outcome.error());
  wake_background();
  co_await std::move(outcome);
  co_await write_through();
}

Task<void> Home::abandon_allocation(Allocation allocation) {
  Result<void> outcome = co_await guest_map_.abandon_allocation(allocation).result();
  if (!outcome.ok()) co_await note_damage(outcome.error());
  co_await std::move(outcome);
}

Task<std::optional<HostOffset>> Home::begin_compressed(ByteCount size) {
  co_await check_writable(image_, "write");
  co_await start_bitmaps();
  auto begin = [this, size] { return compressed_.allocate(size); };
  co_return co_await perform(begin);
}

// What cannot be recorded gives its place back.
Task<void> Home::finish_compressed(GuestOffset guest, HostOffset at, ByteCount size) {
  const ClusterIndex cluster = image_.geometry.guest_cluster(guest);
  const GuestOffset start = image_.geometry.guest_offset(cluster);
  image_.tracking.mark(GuestRange(start, ByteCount(image_.geometry.cluster_size())));
  auto record = [this, cluster, at, size] {
    return guest_map_.record_compressed(cluster, at, size);
  };
  Result<ClusterChange> outcome = co_await perform(record).result();
  wake_background();
  if (!outcome.ok()) {
    co_await abandon_compressed(at, size);
    co_await fail(outcome.error());
  }
  co_await write_through();
}

// That it fails leaves a leak, which a check finds; the caller has an error of its own to tell.
Task<void> Home::abandon_compressed(HostOffset at, ByteCount size) {
  Result<void> outcome = co_await compressed_.take_back(at, size).result();
  if (!outcome.ok()) co_await note_damage(outcome.error());
}

Task<ClusterChange> Home::zero_clusters(GuestRange clusters, ZeroOptions options) {
  co_await start_bitmaps();
  image_.tracking.mark(clusters);
  auto change = [this, clusters, options] { return guest_map_.zero_clusters(clusters, options); };
  Result<ClusterChange> outcome = co_await perform(change).result();
  wake_background();
  if (outcome.ok()) co_await write_through();
  co_return std::move(outcome);
}

Task<ClusterChange> Home::discard_clusters(GuestRange clusters) {
  co_await start_bitmaps();
  image_.tracking.mark(clusters);
  auto change = [this, clusters] { return guest_map_.discard_clusters(clusters); };
  Result<ClusterChange> outcome = co_await perform(change).result();
  wake_background();
  co_return std::move(outcome);
}

// A flush shared by all who wait for one.
Task<void> Home::write_through() {
  if (image_.options.writes_through) co_await flush();
}

Task<void> Home::flush() {
  co_await write_back_.flush();
  if (quarantine_.has_waiting()) something_waits_.set();
}

// So that memory that differs from the disk stays bounded, whatever the guest does.
Task<void> Home::limit_dirty() {
  while (slices_.dirty_count() > kDirtySlicesMax && image_.health.is_writable()) co_await flush();
}

void Home::wake_background() {
  if (slices_.dirty_count() > kDirtySlicesWanted) much_is_dirty_.set();
}

// Damage found in the tables of an image that is only read needs no mark: nothing was going to be
// written.
Task<void> Home::note_damage(Error error) {
  if (error.kind != ErrorKind::kCorrupt || image_.limits.read_only) co_return;
  if (!image_.health.mark_corrupt()) co_return;
  error.node = image_.node_id();
  image_.world.log.warning(image_.world.diagnostics.describe(error) +
                           "; the image is read-only from now on");
  if (image_.header.version < 3) co_return;
  Result<void> marked = co_await set_corrupt_bit().result();
  if (marked.ok()) co_return;
  image_.world.log.warning(image_.world.diagnostics.describe(marked.error()) +
                           "; the image could not be marked as corrupt");
}

Task<void> Home::set_corrupt_bit() {
  std::vector<std::byte> field(8);
  const uint64_t dirty = write_back_.has_set_dirty_bit() ? kIncompatibleDirty : 0;
  store_be64(&field[0], image_.header.incompatible_features | kIncompatibleCorrupt | dirty);
  co_await storage_->write(HostOffset(kIncompatibleFeaturesAt), ConstBuffers(Bytes(field)));
  co_await storage_->flush();
}

}  // namespace ringdisk::qcow2
