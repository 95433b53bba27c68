// SPDX-License-Identifier: Apache-2.0
// OpenClusters: host clusters with room behind the compressed streams that they hold, so that the
// next streams go there. Pure. Home shard only. The newest few are kept; what is pushed out, or was
// open when the image was closed, just stays unused.
//
//   one host cluster   | stream | stream | stre~  |      room      |
//                                                 ^ next: a byte offset
//
// A cluster that loses a reference leaves for good (quarantine.h): its refcount may be on the way
// to zero, and a new stream there would be punched away with the old ones.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "qcow2/home/free_clusters.h"
#include "qcow2/layout/geometry.h"

namespace ringdisk::qcow2 {

class OpenClusters {
 public:
  explicit OpenClusters(const Geometry& geometry) : geometry_(geometry) {}

  // The place for `size` bytes where least room is left over; nullopt: there is none.
  std::optional<HostOffset> find(ByteCount size) const {
    std::optional<HostOffset> best;
    for (HostOffset next : open_) {
      if (room(next) < size || (best && room(*best) <= room(next))) continue;
      best = next;
    }
    return best;
  }
  // The place in the cluster just before `cluster`, from which a stream could go on into that one.
  std::optional<HostOffset> find_before(ClusterIndex cluster) const {
    for (HostOffset next : open_) {
      if (geometry_.host_cluster(next) + 1 == cluster) return next;
    }
    return std::nullopt;
  }
  bool contains(HostOffset next) const {
    return std::find(open_.begin(), open_.end(), next) != open_.end();
  }
  // From now on `next` is the first unused byte of its cluster; none where it is the cluster's
  // first.
  void add(HostOffset next) {
    if (next.is_aligned(geometry_.cluster_size())) return;
    leave({geometry_.host_cluster(next), 1});
    if (open_.size() == kOpenMax) open_.erase(open_.begin());
    open_.push_back(next);
  }
  // None of these clusters is open any more.
  void leave(ClusterRun run) {
    std::erase_if(open_, [&](HostOffset next) {
      const ClusterIndex cluster = geometry_.host_cluster(next);
      return cluster >= run.first && cluster - run.first < run.count;
    });
  }

 private:
  // Enough for streams of several shards, and for those whose neighbours do not shrink.
  static constexpr size_t kOpenMax = 8;

  ByteCount room(HostOffset next) const {
    return ByteCount(geometry_.cluster_size()) - next.offset_in(geometry_.cluster_size());
  }

  const Geometry geometry_;
  std::vector<HostOffset> open_;  // oldest first
};

}  // namespace ringdisk::qcow2
