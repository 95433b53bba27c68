// SPDX-License-Identifier: Apache-2.0
// Which host clusters a table entry points at: one for a standard entry, all that a compressed
// cluster's sectors touch, each of which counts the reference. Pure.
//
//   64 KiB clusters, stream of 700 bytes at byte 130,800: sectors 255 and 256, clusters 1 and 2
#pragma once

#include <algorithm>

#include "qcow2/home/free_clusters.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

// The front of `run` that one refcount block counts.
inline ClusterRun front_in_one_block(ClusterRun run, const Geometry& geometry) {
  const uint64_t left =
      geometry.refcount_block_entries() - geometry.index_in_refcount_block(run.first);
  return {run.first, std::min(run.count, left)};
}

// Count 0: none.
inline ClusterRun host_clusters_of(L2Entry entry, const Geometry& geometry) {
  if (entry.is_compressed()) {
    const CompressedPlace place = entry.compressed_place(geometry);
    const ClusterIndex first = geometry.host_cluster(place.offset);
    const ClusterIndex last = geometry.host_cluster(place.offset + place.length - ByteCount(1));
    return {first, last - first + 1};
  }
  if (!entry.has_host()) return {};
  return {geometry.host_cluster(entry.host()), 1};
}

}  // namespace ringdisk::qcow2
