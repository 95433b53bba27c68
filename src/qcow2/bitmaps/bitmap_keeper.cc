// SPDX-License-Identifier: Apache-2.0
// Opening, and the way of a bitmap while its disk is being changed.
#include "qcow2/bitmaps/bitmap_keeper.h"

#include "base/diagnostics.h"
#include "base/log.h"
#include "qcow2/damage.h"

namespace ringdisk::qcow2 {
namespace {

// Of all tables; at clusters of 64 KiB that is 2 TiB of bits.
constexpr uint64_t kTableEntriesMax = 4 << 20;
// Of all bitmaps that are in memory.
constexpr uint64_t kLoadedBytesMax = 1 * limits::kGiB;

}  // namespace

BitmapKeeper::BitmapKeeper(Image& image, StorageAccess& storage, MetadataMap& metadata,
                           Allocator& allocator, Quarantine& quarantine, WriteBack& write_back)
    : image_(image),
      storage_(storage),
      metadata_(metadata),
      allocator_(allocator),
      quarantine_(quarantine),
      write_back_(write_back),
      size_(image.header.size) {}

Error BitmapKeeper::refuse(ErrorKind kind, std::string why) const {
  return image_.world.diagnostics.explain(Error::of(kind, "edit bitmaps"), image_.node_id(),
                                          std::move(why));
}

// --- open

Task<void> BitmapKeeper::open() {
  if (!has_valid_bitmaps(image_.header)) co_return;
  Result<void> read = co_await read_all().result();
  if (read.ok()) {
    is_valid_ = true;
    for (const Kept& kept : kept_) {
      if (kept.entry.is_auto() && !kept.entry.is_in_use()) image_.tracking.arm();
    }
    co_return;
  }
  forget();
  if (read.error().kind != ErrorKind::kCorrupt) co_await std::move(read);
  image_.world.log.warning(
      image_.world.diagnostics.describe(at_node(read.error(), image_.node_id())) +
      "; its bitmaps are lost to this writer");
}

Task<void> BitmapKeeper::read_all() {
  BitmapDirectory directory =
      co_await read_bitmap_directory(storage_, image_.header, image_.world.diagnostics);
  place_ = directory.place;
  const Error damaged = Error::of(ErrorKind::kCorrupt, "read bitmaps", place_.directory.value());
  if (!claim(place_.directory, place_.directory_bytes, directory_clusters_)) {
    co_await fail(damaged);
  }
  uint64_t at = 0, entries_left = kTableEntriesMax;
  for (BitmapEntry& entry : directory.entries) {
    Kept kept;
    kept.directory_at = at;
    at += entry.encoded_bytes();
    kept.entry = std::move(entry);
    Result<void> read = co_await read_one(kept, entries_left).result();
    // What was claimed before it failed is given up with the others.
    kept_.push_back(std::move(kept));
    co_await std::move(read);
  }
}

Task<void> BitmapKeeper::read_one(Kept& kept, uint64_t& entries_left) {
  const Geometry& geometry = image_.geometry;
  const BitmapEntry& entry = kept.entry;
  const Error damaged = Error::of(ErrorKind::kCorrupt, "read bitmap", entry.table.value());
  if (fault_of_bitmap(entry, size_, geometry)) co_await fail(damaged);
  if (entry.table_entries == 0) co_return;
  if (entry.table_entries > entries_left) {
    co_await fail(
        refuse(ErrorKind::kLimit, "its bitmaps have larger tables than a writer can keep in mind"));
  }
  entries_left -= entry.table_entries;
  const uint64_t table_bytes = uint64_t{entry.table_entries} * kEntryBytes;
  if (!claim(entry.table, table_bytes, kept.clusters)) co_await fail(damaged);
  const std::vector<uint64_t> table =
      co_await read_bitmap_table(storage_, entry, 0, entry.table_entries);
  for (uint64_t raw : table) {
    if (fault_of_bitmap_table_entry(raw, geometry)) co_await fail(damaged);
    const HostOffset cluster = bitmap_cluster(raw);
    if (cluster == HostOffset(0)) continue;
    if (!claim(cluster, geometry.cluster_size(), kept.clusters)) co_await fail(damaged);
  }
}

// Clusters that nobody else may have: an L2 entry that points there is damaged from now on. False:
// they are another table's already, or not there.
bool BitmapKeeper::claim(HostOffset at, uint64_t bytes, std::vector<ClusterRun>& claimed) {
  const Geometry& geometry = image_.geometry;
  const uint64_t file_end = geometry.clusters_of(storage_.size().value());
  const ClusterIndex first = geometry.host_cluster(at);
  const uint64_t count = geometry.clusters_of(bytes);
  if (first.value() >= file_end || count > file_end - first.value()) return false;
  for (uint64_t i = 0; i < count; ++i) {
    if (!metadata_.add(first + i, 1)) return false;
    claimed.push_back({first + i, 1});
  }
  return true;
}

void BitmapKeeper::forget() {
  for (ClusterRun run : directory_clusters_) metadata_.remove(run.first, run.count);
  for (const Kept& kept : kept_) {
    for (ClusterRun run : kept.clusters) metadata_.remove(run.first, run.count);
  }
  directory_clusters_.clear();
  kept_.clear();
  place_ = BitmapsExtension();
}

// --- looking

std::vector<BitmapDescription> BitmapKeeper::describe() const {
  BitmapDirectory directory;
  for (const Kept& kept : kept_) {
    directory.entries.push_back(kept.entry);
    if (kept.is_ours) directory.entries.back().flags &= ~kBitmapInUse;
  }
  return describe_bitmaps(directory, size_);
}

Task<std::shared_ptr<const DirtyBits>> BitmapKeeper::find(std::string name) {
  MutexLock lock = co_await starting_.lock();
  const size_t index = co_await choose(kept_, name);
  co_await load(kept_[index]);
  co_return kept_[index].bits;
}

// As it was found: that it is in use because of this writer is its own affair.
Result<size_t> BitmapKeeper::choose(const std::vector<Kept>& all, const std::string& name) const {
  BitmapDirectory directory;
  for (const Kept& kept : all) {
    directory.entries.push_back(kept.entry);
    if (kept.is_ours) directory.entries.back().flags &= ~kBitmapInUse;
  }
  return choose_bitmap(directory, name, image_.header, image_.world.diagnostics, image_.node_id());
}

const char* BitmapKeeper::why_unusable(const Kept& kept) const {
  return qcow2::why_unusable(kept.entry, size_);
}

Task<void> BitmapKeeper::load(Kept& kept) {
  if (kept.bits) co_return;
  const uint64_t bytes = bitmap_bytes(size_, kept.entry.granularity_bits);
  if (bytes > kLoadedBytesMax - loaded_bytes_) {
    co_await fail(refuse(ErrorKind::kLimit, "bitmap '" + kept.entry.name +
                                                "' would need more memory than bitmaps may have"));
  }
  kept.bits = co_await read_bitmap_bits(storage_, kept.entry, size_, image_.geometry);
  loaded_bytes_ += bytes;
}

// --- in use

Task<void> BitmapKeeper::start() {
  MutexLock lock = co_await starting_.lock();
  if (!image_.tracking.is_armed()) co_return;
  co_await check_writable(image_, "start bitmaps");
  std::vector<Kept*> started;
  std::vector<std::shared_ptr<DirtyBits>> enabled;
  for (Kept& kept : kept_) {
    if (!kept.entry.is_auto() || kept.entry.is_in_use()) continue;
    started.push_back(&kept);
    // One that cannot be kept right says so by being in use, and the guest goes on.
    Result<void> loaded;
    if (!why_unusable(kept)) loaded = co_await load(kept).result();
    if (!loaded.ok() && loaded.error().kind != ErrorKind::kLimit) co_await std::move(loaded);
    if (kept.bits) {
      enabled.push_back(kept.bits);
    } else {
      image_.world.log.warning(image_.world.diagnostics.node_name(image_.node_id()) + ": bitmap '" +
                               kept.entry.name +
                               "' cannot be kept right and is inconsistent from now on");
    }
  }
  co_await mark_in_use(std::move(started));
  image_.tracking.start(std::move(enabled));
}

Task<void> BitmapKeeper::mark_in_use(std::vector<Kept*> marked) {
  for (Kept* kept : marked) {
    kept->entry.flags |= kBitmapInUse;
    kept->is_ours = kept->bits != nullptr;
  }
  Result<void> written = co_await write_flags(marked).result();
  if (!written.ok()) end_writing(image_, written.error());
  co_await std::move(written);
}

// --- another size

Result<void> BitmapKeeper::check_size(ByteCount size) const {
  BitmapDirectory directory;
  for (const Kept& kept : kept_) {
    directory.entries.push_back(kept.entry);
    if (kept.is_ours) directory.entries.back().flags &= ~kBitmapInUse;
  }
  return check_bitmap_sizes(directory, size_, size, image_.world.diagnostics, image_.node_id());
}

Task<void> BitmapKeeper::prepare_resize() {
  co_await start();
  MutexLock lock = co_await starting_.lock();
  std::vector<Kept*> others;
  for (Kept& kept : kept_) {
    if (kept.entry.is_in_use()) continue;
    co_await load(kept);
    others.push_back(&kept);
  }
  if (!others.empty()) co_await mark_in_use(std::move(others));
}

void BitmapKeeper::resize(ByteCount size) {
  size_ = size;
  for (Kept& kept : kept_) {
    if (kept.is_ours) kept.bits->resize(size);
  }
}

void BitmapKeeper::abandon() {
  for (Kept& kept : kept_) kept.is_ours = false;
}

}  // namespace ringdisk::qcow2
