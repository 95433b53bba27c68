// SPDX-License-Identifier: Apache-2.0
// Bits to the disk. Everything goes to clusters that nothing points at yet; the directory's entries
// are the point from which on they count.
#include "base/diagnostics.h"
#include "base/endian.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/damage.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kTableFieldsBytes = 16;  // of an entry: table, its entries, flags

}  // namespace

Task<void> BitmapKeeper::close() {
  std::vector<Kept*> saved;
  for (Kept& kept : kept_) {
    if (kept.is_ours) saved.push_back(&kept);
  }
  if (saved.empty()) co_return;
  Result<void> outcome = co_await save_in_place(saved).result();
  if (outcome.ok()) co_return;
  co_await give_back_new();
  co_await fail(image_.world.diagnostics.explain(
      outcome.error(), image_.node_id(),
      "its dirty bitmaps could not be saved and are inconsistent now (" +
          errno_text(outcome.error().errno_value) +
          "); 'ringdisk bitmap --remove' takes them out of the image"));
}

Task<void> BitmapKeeper::save_in_place(const std::vector<Kept*>& saved) {
  std::vector<Kept*> moved;
  for (Kept* kept : saved) {
    if (!kept->bits->take_changed()) continue;
    co_await write_bits(*kept);
    moved.push_back(kept);
  }
  co_await write_back_.flush();
  new_clusters_.clear();  // from now on the disk may point at them
  Result<void> written;
  if (!moved.empty()) written = co_await write_tables(moved).result();
  if (written.ok()) {
    for (Kept* kept : saved) kept->entry.flags &= ~kBitmapInUse;
    written = co_await write_flags(saved).result();
  }
  if (!written.ok()) end_writing(image_, written.error());
  co_await std::move(written);
  for (Kept* kept : saved) kept->is_ours = false;
  co_await release_old();
}

// --- bits, table

Task<void> BitmapKeeper::write_bits(Kept& kept) {
  std::vector<ClusterRun> clusters;
  const std::vector<uint64_t> table = co_await write_data(*kept.bits, clusters);
  std::vector<std::byte> bytes(table.size() * kEntryBytes);
  for (size_t i = 0; i < table.size(); ++i) store_be64(&bytes[i * kEntryBytes], table[i]);
  const ClusterRun place = co_await allocate(bytes.size(), clusters);
  const HostOffset at = image_.geometry.host_offset(place.first);
  co_await write_whole(at, bytes);
  kept.entry.table = at;
  kept.entry.table_entries = static_cast<uint32_t>(table.size());
  old_clusters_.insert(old_clusters_.end(), kept.clusters.begin(), kept.clusters.end());
  kept.clusters = std::move(clusters);
}

// Gives the entries of the table. Clusters that are the same in all bits take no space.
Task<std::vector<uint64_t>> BitmapKeeper::write_data(const DirtyBits& bits,
                                                     std::vector<ClusterRun>& clusters) {
  const uint64_t cluster = image_.geometry.cluster_size();
  std::vector<uint64_t> table(
      bitmap_table_entries(bits.size(), bits.granularity_bits(), image_.geometry));
  Buffer buffer = Shard::current().buffers().take(cluster);
  MutableBytes bytes = buffer.first(cluster);
  for (size_t i = 0; i < table.size(); ++i) {
    const DirtyBits::Uniform uniform = bits.uniform(i * cluster, cluster);
    if (uniform == DirtyBits::Uniform::kDirty) table[i] = kBitmapAllOnes;
    if (uniform != DirtyBits::Uniform::kNo) continue;
    const ClusterRun place = co_await allocate(cluster, clusters);
    const HostOffset at = image_.geometry.host_offset(place.first);
    bits.store(i * cluster, bytes);
    co_await storage_.write(at, ConstBuffers(Bytes(bytes)));
    table[i] = at.value();
  }
  co_return std::move(table);
}

// None, at offset 0, for nothing.
Task<ClusterRun> BitmapKeeper::allocate(uint64_t bytes, std::vector<ClusterRun>& clusters) {
  const uint64_t count = image_.geometry.clusters_of(bytes);
  if (count == 0) co_return ClusterRun{ClusterIndex(0), 0};
  ClusterRun place;
  if (count == 1) {  // from a hole where there is one
    const NewClusters made = co_await allocator_.allocate(1);
    place = made.run;
  } else {
    place = co_await allocator_.allocate_contiguous(count);
  }
  new_clusters_.push_back(place);
  clusters.push_back(place);
  co_return place;
}

// The last cluster to its end, so that nobody reads what stood there before.
Task<void> BitmapKeeper::write_whole(HostOffset at, Bytes bytes) {
  if (bytes.empty()) co_return;
  std::vector<std::byte> whole(bytes.begin(), bytes.end());
  const Geometry& geometry = image_.geometry;
  whole.resize(geometry.clusters_of(bytes.size()) << geometry.cluster_bits());
  for (uint64_t done = 0; done < whole.size(); done += limits::kRequestBytesMax) {
    const uint64_t piece = std::min<uint64_t>(limits::kRequestBytesMax, whole.size() - done);
    const Bytes source = Bytes(whole).subspan(done, piece);
    co_await storage_.write(at + ByteCount(done), ConstBuffers(source));
  }
}

// --- the directory in place

Task<void> BitmapKeeper::write_flags(const std::vector<Kept*>& changed) {
  for (const Kept* kept : changed) {
    std::vector<std::byte> flags(4);
    store_be32(&flags[0], kept->entry.flags);
    const ByteCount before(kept->directory_at + kBitmapEntryFlagsAt);
    co_await storage_.write(place_.directory + before, ConstBuffers(Bytes(flags)));
  }
  if (image_.planted_bug == PlantedBug::kBitmapsInUseTooLate) co_return;
  co_await storage_.flush();
}

Task<void> BitmapKeeper::write_tables(const std::vector<Kept*>& moved) {
  for (const Kept* kept : moved) {
    std::vector<std::byte> fields(kTableFieldsBytes);
    store_be64(&fields[0], kept->entry.table.value());
    store_be32(&fields[8], kept->entry.table_entries);
    store_be32(&fields[12], kept->entry.flags);
    const ByteCount before(kept->directory_at);
    co_await storage_.write(place_.directory + before, ConstBuffers(Bytes(fields)));
  }
  co_await storage_.flush();
}

// --- clusters

// What fails here leaks; the caller has an error of its own to tell.
Task<void> BitmapKeeper::give_back_new() {
  for (ClusterRun run : std::exchange(new_clusters_, {})) {
    for (uint64_t i = 0; i < run.count && image_.health.is_writable(); ++i) {
      const ClusterRun one{run.first + i, 1};
      Result<void> taken = co_await allocator_.take_back(one).result();
      static_cast<void>(taken.ok());
    }
  }
  old_clusters_.clear();
}

// The round makes it known that nothing on the disk points at them any more.
Task<void> BitmapKeeper::release_old() {
  if (old_clusters_.empty()) co_return;
  for (ClusterRun run : std::exchange(old_clusters_, {})) quarantine_.release(run);
  co_await write_back_.flush();
}

}  // namespace ringdisk::qcow2
