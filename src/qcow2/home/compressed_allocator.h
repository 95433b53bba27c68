// SPDX-License-Identifier: Apache-2.0
// CompressedAllocator: places for compressed clusters' streams, byte by byte, one behind the other
// (format specification, "Compressed Clusters Descriptor"). Home shard only, writable images only.
//
//   host cluster 7              host cluster 8, from the allocator
//   | A  | B    | C       | D ~ | ~ D  | E     |  room   |
//   refcount 4                  refcount 2
//
// The refcount of a host cluster is the number of streams that touch it. A stream is shorter than a
// cluster, so it touches two at the most, and two only if the second follows the first in the file.
// Where a refcount cannot count one more (refcount_bits=1), a stream begins a cluster of its own.
#pragma once

#include <optional>

#include "async/mutex.h"
#include "qcow2/home/allocator.h"
#include "qcow2/home/open_clusters.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

class CompressedAllocator {
 public:
  // All outlive it.
  CompressedAllocator(Image& image, RefcountBlocks& refcounts, Allocator& allocator,
                      OpenClusters& open_clusters)
      : image_(image), refcounts_(refcounts), allocator_(allocator), open_(open_clusters) {}

  // A place for a stream of `size` bytes, 1 up to less than a cluster; counted, in memory, from now
  // on. nullopt: the file is so large that a descriptor cannot name the place. kNoSpace: as of the
  // allocator.
  Task<std::optional<HostOffset>> allocate(ByteCount size);
  // Takes back a place that nothing ever pointed at.
  Task<void> take_back(HostOffset at, ByteCount size);

 private:
  Task<std::optional<HostOffset>> find_open(ByteCount size);
  Task<std::optional<HostOffset>> begin_cluster(ByteCount size);
  Task<HostOffset> extend_open(ClusterIndex made, ByteCount size);
  Task<bool> join(HostOffset at, ByteCount size);
  Task<void> take_back_one(ClusterIndex cluster);

  Image& image_;
  RefcountBlocks& refcounts_;
  Allocator& allocator_;
  OpenClusters& open_;
  Mutex packing_;
};

}  // namespace ringdisk::qcow2
