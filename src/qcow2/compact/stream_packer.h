// SPDX-License-Identifier: Apache-2.0
// StreamPacker: places for compressed clusters' streams, one behind the other in holes of a file,
// when a compaction moves them. Pure.
//
//   from   | ..s1 s1 s1.s2 s2|s2 s2 . . . . s3 s3. |        sectors; s1 and s2 share one
//   to     | ..s1 s1 s1.s2 s2 s2 s2 s3 s3. |                 they still do; s3 keeps its offset
//                                                            within its sector
//
// A descriptor counts sectors from the one in which its stream begins, so a stream that keeps its
// offset within the sector keeps its number of sectors.
#pragma once

#include <optional>
#include <vector>

#include "qcow2/home/free_clusters.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

class StreamPacker {
 public:
  // `holes` outlive it.
  StreamPacker(const Geometry& geometry, const std::vector<ClusterRun>& holes)
      : geometry_(geometry), holes_(holes) {}

  // The stream of `length` bytes at `from`, up to the end of a sector; each comes from behind the
  // one before, or from within its last sector. `count` descriptors point at it: no cluster is
  // given to more than its refcount can count. nullopt: what is left of the holes is too small.
  std::optional<uint64_t> place(uint64_t from, uint64_t length, uint64_t count) {
    const uint64_t within = from % kCompressedSectorBytes;
    const bool shares_sector = from - within < previous_end_;
    uint64_t to = shares_sector ? from + shift_ : room_ + within;
    if (cluster_of(to) == last_cluster_ && last_count_ + count > geometry_.refcount_max()) {
      to = ((cluster_of(to) + 1) << geometry_.cluster_bits()) + within;
    }
    while (to + length > room_end_) {
      if (next_hole_ == holes_.size()) return std::nullopt;
      const ClusterRun& hole = holes_[next_hole_++];
      room_ = geometry_.host_offset(hole.first).value();
      room_end_ = room_ + (hole.count << geometry_.cluster_bits());
      to = room_ + within;
    }
    note(to, length, count);
    previous_end_ = from + length;
    shift_ = to - from;
    return to;
  }

 private:
  uint64_t cluster_of(uint64_t byte) const { return byte >> geometry_.cluster_bits(); }

  void note(uint64_t to, uint64_t length, uint64_t count) {
    const uint64_t last = cluster_of(to + length - 1);
    if (cluster_of(to) != last_cluster_ || last != last_cluster_) last_count_ = 0;
    last_cluster_ = last;
    last_count_ += count;
    room_ = std::max(room_, to + length);
  }

  const Geometry geometry_;
  const std::vector<ClusterRun>& holes_;
  size_t next_hole_ = 0;
  uint64_t room_ = 0, room_end_ = 0;  // bytes, of the hole that is being filled
  uint64_t previous_end_ = 0;         // of the stream before, where it came from
  uint64_t shift_ = 0;                // what it was moved by (modulo 2^64)
  uint64_t last_cluster_ = 0;         // that was given out, in part
  uint64_t last_count_ = 0;           // of descriptors that point at it
};

}  // namespace ringdisk::qcow2
