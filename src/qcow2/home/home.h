// SPDX-License-Identifier: Apache-2.0
// Home: everything of an image that belongs to its home shard: the single writer of metadata.
// Queues of other shards reach it through shard.call. Made by the first open_queue, ended by the
// node's close; lives and dies on the home shard.
//
// Two coroutines of its own run as long as it does: one writes back when much is dirty, one takes
// freed clusters through the quarantine. Either may wait for long (a slow disk, a hung read)
// without holding up anybody else.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>

#include "async/scope.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/edit/table_editor.h"
#include "qcow2/home/compressed_allocator.h"
#include "qcow2/home/guest_map.h"

namespace ringdisk::qcow2 {

class Home {
 public:
  // On the home shard. Reads what a writer must know: the refcount table, where tables lie.
  static Task<std::unique_ptr<Home>> open(Image& image, Shard& shard);
  Home(Image& image, std::unique_ptr<StorageAccess> storage, std::unique_ptr<StorageAccess> data);
  ~Home();

  // What queues ask for. Each notes damage that it meets (note_damage).
  // `read`: what the caller's shard has read of the map there, or null.
  Task<void> load(GuestOffset at, SliceBatch* read);
  Task<std::optional<Allocation>> begin_allocation(GuestRange range);
  Task<void> finish_allocation(Allocation allocation);
  Task<void> abandon_allocation(Allocation allocation);
  // A place for a compressed cluster's stream; nullopt: write the cluster as an ordinary one. Each
  // place is finished or abandoned.
  Task<std::optional<HostOffset>> begin_compressed(ByteCount size);
  Task<void> finish_compressed(GuestOffset guest, HostOffset at, ByteCount size);
  Task<void> abandon_compressed(HostOffset at, ByteCount size);
  Task<ClusterChange> zero_clusters(GuestRange clusters, ZeroOptions options);
  Task<ClusterChange> discard_clusters(GuestRange clusters);
  Task<void> flush();

  // Persistent bitmaps.
  std::vector<BitmapDescription> describe_bitmaps() const { return bitmaps_.describe(); }
  Task<std::shared_ptr<const DirtyBits>> find_bitmap(std::string name);
  // Bitmaps say that the range changes, and durably that they are in use.
  Task<void> record_change(GuestRange range);

  // No queue is there any more; the image is closed after it.
  Task<void> edit(const ImageEdit& edit);

  // Everything to the disk, freed clusters freed; then nothing runs any more. After the last queue
  // is gone.
  Task<void> close();

 private:
  // Dirty slices that start a write-back, and that make allocations wait for it.
  static constexpr uint64_t kDirtySlicesWanted = 256;
  static constexpr uint64_t kDirtySlicesMax = 1024;
  // How often a request that finds the storage full waits for clusters that are being freed. More
  // than once, because others may be quicker to take them.
  static constexpr int kReclaimsMax = 3;

  // Null: what the guest's data lies in, in whatever form, is the image's own file.
  StorageAccess* data_file() const { return image_.has_data_file() ? data_.get() : nullptr; }
  Task<void> open_writable();
  Result<void> note_tables();
  Task<void> note_snapshots();
  Result<void> refuse_table(const char* what, HostOffset at) const;
  Task<void> clear_autoclear_bits();
  Task<void> start_bitmaps();
  template <class Change>
  auto perform(Change change) -> std::invoke_result_t<Change&>;
  Task<bool> reclaim_after(const Error& error);
  Task<void> limit_dirty();
  Task<void> write_through();
  Task<void> write_back_when_much_is_dirty();
  Task<void> free_when_something_waits();
  Task<void> process_quarantine();
  Task<void> write_everything();
  // Damage ends the image as a writable one and, in version 3, sets the corrupt bit on the disk.
  Task<void> note_damage(Error error);
  Task<void> set_corrupt_bit();
  void wake_background();

  Image& image_;
  std::unique_ptr<StorageAccess> storage_;
  std::unique_ptr<StorageAccess> data_;  // Image::data; null: guest data lies in storage_
  MetadataMap metadata_;
  SliceCache slices_;
  RefcountBlocks refcounts_;
  Allocator allocator_;
  OpenClusters open_clusters_;
  CompressedAllocator compressed_;
  Quarantine quarantine_;
  WriteBack write_back_;
  GuestMap guest_map_;
  BitmapKeeper bitmaps_;
  Mutex freeing_;  // one pass of the quarantine at a time
  Event much_is_dirty_;
  Event something_waits_;
  bool closing_ = false;
  std::optional<RootTask<void>> writer_;
  std::optional<RootTask<void>> freer_;
  Event writer_ended_;
  Event freer_ended_;
};

}  // namespace ringdisk::qcow2
