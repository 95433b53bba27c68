// SPDX-License-Identifier: Apache-2.0
// Slices as they are read from the disk, by whichever shard misses them: the bytes fetched and
// decoded there, so that a disk whose tables exceed the memory for them is looked up on all cores.
// The home shard takes them in (SliceCache::take_in) and alone publishes them.
//
//   try_map fails ──> SliceReader::read: disk, decode ──> home: still so? ──> published
//                     (the shard's own)                    (otherwise home reads it itself)
#pragma once

#include <memory>
#include <vector>

#include "block/storage_access.h"
#include "qcow2/home/free_clusters.h"
#include "qcow2/image.h"

namespace ringdisk::qcow2 {

struct DecodedSlice {
  std::unique_ptr<Slice> slice;
  // The host clusters that its entries point at, in order of the entries; none where nobody asks
  // (read-only images, and data files, which hold no table).
  std::vector<ClusterRun> pointed;
};

// Slices in a row as one shard found them on the disk.
struct SliceBatch {
  uint64_t first;
  L1Entry table;   // where they lie
  uint64_t since;  // SliceDepartures::now() before the read
  std::vector<DecodedSlice> slices;
};

// `bytes` as they lie on the disk. An entry that breaks the specification by bits that are ours in
// memory is kRejected; what it points at is for the home shard to judge.
// `spare`: memory for it, or null.
DecodedSlice decode_slice(const Image& image, uint64_t number, Bytes bytes,
                          std::unique_ptr<Slice> spare);

// How many slices to read when `number` is missing: one, or several where the one before is in
// memory already: somebody reads on from there. Any shard.
uint64_t slices_to_read(const Image& image, uint64_t number);

// Fills `target` with the slices from `number` on, of the given L2 table. kCorrupt: the table lies
// beyond the end of the file.
Task<void> read_slices(const Image& image, StorageAccess& storage, L1Entry table, uint64_t number,
                       MutableBytes target);

// One shard's.
class SliceReader {
 public:
  SliceReader(const Image& image, StorageAccess& storage) : image_(image), storage_(storage) {}

  // Null: the home shard must look itself (there is no table, it is damaged, it cannot be read).
  Task<std::unique_ptr<SliceBatch>> read(uint64_t number);
  // After the home shard has had the batch: what is in it now is memory for the next ones.
  void recycle(SliceBatch& batch);

 private:
  static constexpr size_t kSparesMax = 64;

  std::unique_ptr<Slice> take_spare();

  const Image& image_;
  StorageAccess& storage_;
  std::vector<std::unique_ptr<Slice>> spares_;
};

}  // namespace ringdisk::qcow2
