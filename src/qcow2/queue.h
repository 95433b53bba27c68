// SPDX-License-Identifier: Apache-2.0
// Qcow2Queue: one shard's handle on an image. Lookups and pins happen here, without the home shard;
// everything else is a call to it. Owned by the shard's DeviceQueue.
#pragma once

#include <memory>

#include "async/mutex.h"
#include "codec/inflate.h"
#include "codec/zstd.h"
#include "qcow2/compressor.h"
#include "qcow2/home/home.h"
#include "qcow2/lookup.h"

namespace ringdisk::qcow2 {

class Qcow2Queue final : public FormatQueue {
 public:
  // `home` lives on `home_shard` and outlives the queue.
  Qcow2Queue(Image& image, Home& home, Shard& home_shard, Shard& shard,
             std::unique_ptr<StorageAccess> storage, std::unique_ptr<StorageAccess> data);

  StorageAccess& data_storage() override { return data_ ? *data_ : *storage_; }
  bool try_map(GuestRange range, MapPurpose purpose, Mapping& mapping) override;
  Task<void> load_map(GuestOffset at) override;
  Task<std::optional<Allocation>> begin_allocation(GuestRange range) override;
  Task<void> finish_allocation(const Allocation& allocation) override;
  Task<void> abandon_allocation(const Allocation& allocation) override;
  Task<ClusterChange> zero_clusters(GuestRange clusters, ZeroOptions options) override;
  Task<ClusterChange> discard_clusters(GuestRange clusters) override;
  Task<void> read_compressed(GuestOffset at, MutableBytes target) override;
  Task<bool> write_compressed(GuestOffset at, Bytes cluster, CompressOptions options) override;
  Task<void> flush() override;

 private:
  void release_pin(uint32_t generation) override;
  Task<void> load_at_home(GuestOffset at, SliceBatch* read);
  Task<void> record_change(GuestRange range);
  bool try_map_tracked(GuestRange range, Mapping& mapping);
  bool try_map_untracked(GuestRange range, MapPurpose purpose, Mapping& mapping);
  Task<L2Entry> pinned_entry(ClusterIndex guest, MappingPin& pin);
  Task<ClusterChange> discard_raw(GuestRange clusters);
  Task<void> write_raw_zeroes(GuestRange clusters, ZeroOptions options);
  Task<void> read_place(L2Entry entry, MutableBytes target);
  Task<void> read_subclusters(L2Entry entry, MutableBytes target);
  Task<void> read_stream(ClusterIndex guest, CompressedPlace place, MutableBytes target);
  Result<void> decompress(Bytes stream, MutableBytes target);
  Task<size_t> compress(Bytes cluster, MutableBytes target, uint32_t level);

  // constant
  Image& image_;
  Home& home_;
  Shard& home_shard_;
  Shard& shard_;

  // this shard only
  std::unique_ptr<StorageAccess> storage_;
  std::unique_ptr<StorageAccess> data_;  // Image::data; null: guest data lies in storage_
  Lookup lookup_;
  SliceReader reader_;
  RangeLock loading_;                   // slice numbers
  std::unique_ptr<Inflater> inflater_;  // made when first needed
  std::unique_ptr<ZstdDecoder> zstd_decoder_;
  Compressor compressor_;
  Mutex compressing_;  // one cluster a turn of the shard
};

}  // namespace ringdisk::qcow2
