// SPDX-License-Identifier: Apache-2.0
// MetadataMap: the host clusters that hold tables: header, L1 table, refcount table and blocks, L2
// tables of the active L1 table, the snapshot table and the L1 tables of snapshots. What a damaged
// or hostile image might make us overwrite: an L2 entry that points here is rejected when it comes
// into memory, a cluster that one in memory points at does not come here (Allocator::claim), and
// the allocator does not hand these clusters out whatever their refcount says. Home shard only, and
// only where the image is writable.
//
// Every entry that comes into memory is asked about, and entries next to one another point at
// clusters next to one another: so it is made of short stretches of bits and remembers the one it
// was asked about last. Memory: about 110 bytes a table, less where they lie close.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <unordered_map>

#include "base/units.h"

namespace ringdisk::qcow2 {

class MetadataMap {
 public:
  // False: one of them was there already.
  bool add(ClusterIndex first, uint64_t count) {
    bool is_new = true;
    for (uint64_t at = first.value(); at < first.value() + count; ++at) {
      auto bit = stretches_[at / kStretchClusters][at % kStretchClusters];
      is_new = !bit && is_new;
      bit = true;
    }
    end_ = std::max(end_, first.value() + count);
    forget_last();
    return is_new;
  }
  // Behind the last cluster that was ever in it.
  uint64_t end() const { return end_; }
  void remove(ClusterIndex first, uint64_t count) {
    for (uint64_t at = first.value(); at < first.value() + count; ++at) {
      auto found = stretches_.find(at / kStretchClusters);
      if (found == stretches_.end()) continue;
      found->second.reset(at % kStretchClusters);
      if (found->second.none()) stretches_.erase(found);
    }
    forget_last();
  }
  bool contains(ClusterIndex cluster) const {
    const uint64_t number = cluster.value() / kStretchClusters;
    if (number != last_number_) [[unlikely]]
      look_up(number);
    return last_ && last_->test(cluster.value() % kStretchClusters);
  }
  bool overlaps(ClusterIndex first, uint64_t count) const {
    for (uint64_t at = first.value(), end = at + count; at < end;) {
      const uint64_t number = at / kStretchClusters;
      const uint64_t stop = std::min(end, (number + 1) * kStretchClusters);
      if (number != last_number_) [[unlikely]]
        look_up(number);
      const uint64_t beyond = kStretchClusters - (stop - at);
      if (last_ && ((*last_ >> at % kStretchClusters) << beyond).any()) return true;
      at = stop;
    }
    return false;
  }

 private:
  static constexpr uint64_t kStretchClusters = 512;
  static constexpr uint64_t kNone = ~uint64_t{0};
  using Stretch = std::bitset<kStretchClusters>;

  void look_up(uint64_t number) const {
    auto found = stretches_.find(number);
    last_ = found == stretches_.end() ? nullptr : &found->second;
    last_number_ = number;
  }
  void forget_last() { last_number_ = kNone; }

  std::unordered_map<uint64_t, Stretch> stretches_;  // those that are not empty
  uint64_t end_ = 0;

  // What look_up() found last.
  mutable uint64_t last_number_ = kNone;
  mutable const Stretch* last_ = nullptr;
};

}  // namespace ringdisk::qcow2
