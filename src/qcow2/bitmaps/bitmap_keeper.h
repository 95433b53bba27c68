// SPDX-License-Identifier: Apache-2.0
// BitmapKeeper: the persistent bitmaps of an image that is open for writing. Owned by Home; home
// shard only. What shards mark meanwhile: dirty_tracking.h.
//
//   open      directory and tables are read; their clusters are metadata from now on. What cannot
//             be understood is given up as by a program that knows no bitmaps: the autoclear bit
//             goes
//   start     before the first change of the disk: the enabled ones are read and say in the
//             directory that they are in use, durably
//   …         shards mark
//   close     bits to new clusters, behind them a new table, flush; the directory's entries point
//             there, still in use, flush; they are in use no more, flush; old clusters are freed
//
// A crash before the end leaves them in use: inconsistent, as QEMU calls it, and leaks at worst.
// Changes by users (edit, bitmap_edit.cc) write a new directory as well, and the header's pointer
// at it is what counts (header_rewrite.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/format_admin.h"
#include "qcow2/bitmaps/bitmap_reader.h"
#include "qcow2/home/write_back.h"

namespace ringdisk::qcow2 {

class BitmapKeeper {
 public:
  BitmapKeeper(Image& image, StorageAccess& storage, MetadataMap& metadata, Allocator& allocator,
               Quarantine& quarantine, WriteBack& write_back);

  // Reads only. kLimit: more than a writer can keep in mind.
  Task<void> open();
  // The autoclear bit may stay.
  bool is_valid() const { return is_valid_; }

  // Before every change of the disk. A failure to write ends the image as a writable one.
  Task<void> start();
  bool must_start() const { return image_.tracking.is_armed(); }

  // --- for a change of the disk's size: all bitmaps are in use from prepare on; then one of both.
  // kUnsupported, with a note: one of them cannot be given another size.
  Result<void> check_size(ByteCount size) const;
  Task<void> prepare_resize();
  void resize(ByteCount size);
  // Nobody knows what has changed: they stay in use.
  void abandon();

  // One after another, all or, after an error, none. Errors name the bitmap.
  Task<void> edit(const std::vector<BitmapEdit>& edits);

  std::vector<BitmapDescription> describe() const;
  // As a reader sees it: that of an enabled one goes on changing.
  Task<std::shared_ptr<const DirtyBits>> find(std::string name);

  // After the last change of the disk, where the image is writable still.
  Task<void> close();

 private:
  struct Kept {
    BitmapEntry entry;                 // as it is in the directory
    uint64_t directory_at = 0;         // of the entry, in bytes
    std::vector<ClusterRun> clusters;  // of its table and data
    std::shared_ptr<DirtyBits> bits;   // null: not read
    bool is_ours = false;              // in use because of us
  };

  Task<void> read_all();
  Task<void> read_one(Kept& kept, uint64_t& entries_left);
  bool claim(HostOffset at, uint64_t bytes, std::vector<ClusterRun>& claimed);
  void forget();
  Result<size_t> choose(const std::vector<Kept>& kept, const std::string& name) const;
  const char* why_unusable(const Kept& kept) const;
  Task<void> load(Kept& kept);
  Task<void> mark_in_use(std::vector<Kept*> marked);

  // saving (bitmap_save.cc)
  Task<void> save_in_place(const std::vector<Kept*>& saved);
  Task<void> write_bits(Kept& kept);
  Task<std::vector<uint64_t>> write_data(const DirtyBits& bits, std::vector<ClusterRun>& clusters);
  Task<ClusterRun> allocate(uint64_t bytes, std::vector<ClusterRun>& clusters);
  Task<void> write_whole(HostOffset at, Bytes bytes);
  // Of their entries in the directory on the disk, durably. Flags alone are one sector's.
  Task<void> write_flags(const std::vector<Kept*>& kept);
  Task<void> write_tables(const std::vector<Kept*>& kept);
  Task<void> give_back_new();
  Task<void> release_old();

  // edits (bitmap_edit.cc)
  Task<void> apply(const BitmapEdit& edit, std::vector<Kept>& kept);
  Result<void> add(const BitmapEdit& edit, std::vector<Kept>& kept) const;
  Result<void> remove(const BitmapEdit& edit, std::vector<Kept>& kept);
  Task<void> merge(const BitmapEdit& edit, size_t target, std::vector<Kept>& kept);
  Task<void> save_all(std::vector<Kept>& kept);
  Task<BitmapsExtension> write_directory(std::vector<Kept>& kept,
                                         std::vector<ClusterRun>& clusters);
  Error refuse(ErrorKind kind, std::string why) const;

  Image& image_;
  StorageAccess& storage_;
  MetadataMap& metadata_;
  Allocator& allocator_;
  Quarantine& quarantine_;
  WriteBack& write_back_;
  Mutex starting_;

  bool is_valid_ = false;
  BitmapsExtension place_;  // where the directory lies
  std::vector<ClusterRun> directory_clusters_;
  std::vector<Kept> kept_;
  ByteCount size_;  // of the disk
  uint64_t loaded_bytes_ = 0;

  // While something is being saved: what nothing points at yet, and what nothing will.
  std::vector<ClusterRun> new_clusters_;
  std::vector<ClusterRun> old_clusters_;
};

}  // namespace ringdisk::qcow2
