// SPDX-License-Identifier: Apache-2.0
// The life of the home shard's state: what a writer reads at open, the two coroutines in the
// background, the close.
#include "base/diagnostics.h"
#include "base/log.h"
#include "qcow2/damage.h"
#include "qcow2/describe.h"
#include "qcow2/edit/table_lane.h"
#include "qcow2/home/home.h"

namespace ringdisk::qcow2 {

Home::Home(Image& image, std::unique_ptr<StorageAccess> storage,
           std::unique_ptr<StorageAccess> data)
    : image_(image),
      storage_(std::move(storage)),
      data_(std::move(data)),
      slices_(image, *storage_, metadata_),
      refcounts_(image, *storage_),
      allocator_(image, *storage_, refcounts_, metadata_, slices_),
      open_clusters_(image.geometry),
      compressed_(image, refcounts_, allocator_, open_clusters_),
      quarantine_(image, *storage_, refcounts_, allocator_, open_clusters_),
      write_back_(image, *storage_, data_file(), slices_, refcounts_, allocator_, quarantine_),
      guest_map_(image, slices_, allocator_, quarantine_, metadata_),
      bitmaps_(image, *storage_, metadata_, allocator_, quarantine_, write_back_) {}

Home::~Home() = default;

Task<std::unique_ptr<Home>> Home::open(Image& image, Shard& shard) {
  std::unique_ptr<StorageAccess> storage = co_await StorageAccess::open(*image.storage, shard);
  std::unique_ptr<StorageAccess> data;
  if (image.data) data = co_await StorageAccess::open(*image.data, shard);
  auto home = std::make_unique<Home>(image, std::move(storage), std::move(data));
  image.pins.set_home(shard);
  if (!image.limits.read_only) co_await home->open_writable();
  co_return std::move(home);
}

// Everything that may refuse comes before the first change of the disk.
Task<void> Home::open_writable() {
  co_await refcounts_.open();
  co_await note_tables();
  co_await note_snapshots();
  co_await bitmaps_.open();
  co_await allocator_.open();
  co_await clear_autoclear_bits();
  writer_.emplace(write_back_when_much_is_dirty());
  freer_.emplace(free_when_something_waits());
}

Result<void> Home::refuse_table(const char* what, HostOffset at) const {
  return image_.world.diagnostics.explain(Error::of(ErrorKind::kCorrupt, "open"), image_.node_id(),
                                          std::string(what) + " at byte " +
                                              std::to_string(at.value()) +
                                              " lies on another table or beyond the end of the "
                                              "file; the image is damaged and cannot be "
                                              "opened for writing" +
                                              advice(image_));
}

// Where all tables lie. Two at one place would overwrite each other, so such an image is not
// written to.
Result<void> Home::note_tables() {
  const Geometry& geometry = image_.geometry;
  const Header& header = image_.header;
  const uint64_t file_end = geometry.clusters_of(storage_->size().value());
  metadata_.add(ClusterIndex(0), 1);
  metadata_.add(geometry.host_cluster(header.l1_table),
                geometry.clusters_of(uint64_t{header.l1_size} * kEntryBytes));
  metadata_.add(geometry.host_cluster(header.refcount_table), header.refcount_table_clusters);
  if (const std::optional<HostRange> encryption = header.encryption_header()) {
    metadata_.add(geometry.host_cluster(encryption->offset),
                  geometry.clusters_of(encryption->length.value()));
  }
  for (uint64_t block = 0; block < refcounts_.table_entries(); ++block) {
    if (!refcounts_.has_block(block)) continue;
    ASSIGN_OR_RETURN(HostOffset at, refcounts_.block_place(block));
    const ClusterIndex cluster = geometry.host_cluster(at);
    if (cluster.value() >= file_end || !metadata_.add(cluster, 1)) {
      return refuse_table("a refcount block", at);
    }
  }
  for (uint64_t i = 0; i < image_.l1.size(); ++i) {
    const L1Entry entry = image_.l1.load(i);
    if (!entry.has_table() || !entry.is_valid(geometry)) continue;
    const ClusterIndex cluster = geometry.host_cluster(entry.table());
    if (cluster.value() >= file_end || !metadata_.add(cluster, 1)) {
      return refuse_table("an L2 table", entry.table());
    }
  }
  return {};
}

// The whole snapshot table, whose length stands nowhere, and the L1 tables that it names: refcounts
// that are wrong must not let anybody write there. A damaged table refuses edits of snapshots, and
// leaves the disk writable. L1 tables that lie where none may are for a check; beyond the limit,
// which only images made to cost time reach, they have refcounts alone.
Task<void> Home::note_snapshots() {
  constexpr uint64_t kL1ClustersMax = 1 << 18;
  const Geometry& geometry = image_.geometry;
  if (image_.header.snapshot_count == 0) co_return;
  metadata_.add(geometry.host_cluster(image_.header.snapshot_table), 1);
  Result<SnapshotTable> read =
      co_await read_snapshots(*storage_, image_.header, image_.world.diagnostics).result();
  if (!read.ok()) {
    const bool is_damaged =
        read.error().kind == ErrorKind::kCorrupt || read.error().kind == ErrorKind::kLimit;
    if (is_damaged) co_return;
    co_await fail(read.error());
  }
  const SnapshotTable table = std::move(read).value();
  metadata_.add(geometry.host_cluster(image_.header.snapshot_table),
                geometry.clusters_of(table.length));
  uint64_t left = kL1ClustersMax;
  for (const Snapshot& snapshot : table.snapshots) {
    const uint64_t clusters = geometry.clusters_of(uint64_t{snapshot.l1_size} * kEntryBytes);
    if (clusters > left) co_return;
    left -= clusters;
    if (!check_table_place(image_, snapshot.l1_table, snapshot.l1_size).ok()) continue;
    metadata_.add(geometry.host_cluster(snapshot.l1_table), clusters);
  }
}

// Features that promise something about the disk's content, which writing without knowing them
// breaks.
Task<void> Home::clear_autoclear_bits() {
  uint64_t kept = bitmaps_.is_valid() ? kAutoclearBitmaps : 0;
  if (image_.data_file_is_raw()) kept |= kAutoclearRawDataFile;
  const uint64_t bits = image_.header.autoclear_features & ~kept;
  if (image_.options.keep_clean || bits == 0) co_return;
  image_.world.log.warning(image_.world.diagnostics.node_name(image_.node_id()) +
                           ": opened for writing, which ends what these features promise: " +
                           names_of_features(image_.header, FeatureSet::kAutoclear, bits));
  std::vector<std::byte> cleared(8);
  store_be64(&cleared[0], image_.header.autoclear_features & kept);
  co_await storage_->write(HostOffset(kAutoclearFeaturesAt), ConstBuffers(Bytes(cleared)));
  co_await storage_->flush();
}

// --- background

Task<void> Home::write_back_when_much_is_dirty() {
  while (!closing_) {
    co_await much_is_dirty_.wait();
    much_is_dirty_.reset();
    if (closing_ || slices_.dirty_count() <= kDirtySlicesWanted) continue;
    // A failure is remembered in health and met by the next one who writes.
    Result<void> written = co_await flush().result();
    static_cast<void>(written.ok());
  }
  writer_ended_.set();
}

Task<void> Home::free_when_something_waits() {
  while (!closing_) {
    co_await something_waits_.wait();
    something_waits_.reset();
    if (!closing_) co_await process_quarantine();
  }
  freer_ended_.set();
}

// What fails here leaves clusters in use that nobody needs: a leak, which a check finds and
// repairs.
Task<void> Home::process_quarantine() {
  MutexLock lock = co_await freeing_.lock();
  Result<void> processed = co_await quarantine_.process().result();
  if (processed.ok()) co_return;
  image_.world.log.warning(image_.world.diagnostics.describe(processed.error()) +
                           "; freed clusters stay in use");
  co_await note_damage(processed.error());
}

// Nothing that was changed before is left in memory then, and nobody frees clusters beside the
// edit. An edit that damage has stopped is refused or, where it had begun, told of by the dirty
// bit; so it leaves no corrupt bit, which would lock everybody out for damage that their disk may
// have nothing to do with (a snapshot's table). Nothing is written after it, either.
Task<void> Home::edit(const ImageEdit& edit) {
  co_await write_everything();
  co_await check_writable(image_, "edit image");
  MutexLock lock = co_await freeing_.lock();
  const HomeParts parts{image_,     *storage_,   data_file(), refcounts_,
                        allocator_, quarantine_, write_back_, bitmaps_};
  Result<void> edited = co_await edit(parts).result();
  const bool is_damaged = !edited.ok() && edited.error().kind == ErrorKind::kCorrupt;
  if (is_damaged) image_.health.mark_corrupt();
  co_await std::move(edited);
}

// --- close

Task<void> Home::close() {
  if (image_.limits.read_only) {
    co_await image_.pins.close();
    co_return;
  }
  closing_ = true;
  much_is_dirty_.set();
  something_waits_.set();
  co_await writer_ended_.wait();
  co_await freer_ended_.wait();
  write_back_.end_laziness();
  Result<void> saved;
  if (image_.health.is_writable()) saved = co_await bitmaps_.close().result();
  Result<void> written = co_await write_everything().result();
  if (written.ok() && image_.health.is_writable()) {
    written = co_await allocator_.trim_storage().result();
  }
  co_await image_.pins.close();
  writer_.reset();
  freer_.reset();
  co_await std::move(written);
  co_await std::move(saved);
}

// Freeing clusters makes refcounts dirty, so it goes round until nothing is left; three times at
// the most.
Task<void> Home::write_everything() {
  write_back_.end_laziness();
  while (write_back_.is_dirty() || quarantine_.has_waiting()) {
    if (write_back_.is_dirty()) co_await write_back_.flush();
    if (quarantine_.has_waiting()) co_await process_quarantine();
    if (image_.health.is_corrupt()) co_return;
  }
  co_await write_back_.clear_dirty_bit();
}

}  // namespace ringdisk::qcow2
