// SPDX-License-Identifier: Apache-2.0
// MetadataMap: the host clusters that hold tables: header, L1 table, refcount table and blocks, L2
// tables of the active L1 table, the start of the snapshot table. What a damaged or hostile image
// might make us overwrite: an L2 entry that points here is rejected when it comes into memory, a
// cluster that one in memory points at does not come here (Allocator::claim), and the allocator
// does not hand these clusters out whatever their refcount says. Home shard only, and only where
// the image is writable. Memory: about 40 bytes a table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_set>

#include "base/units.h"

namespace ringdisk::qcow2 {

class MetadataMap {
 public:
  // False: one of them was there already.
  bool add(ClusterIndex first, uint64_t count) {
    bool is_new = true;
    for (uint64_t i = 0; i < count; ++i) {
      is_new = clusters_.insert(first.value() + i).second && is_new;
    }
    end_ = std::max(end_, first.value() + count);
    return is_new;
  }
  // Behind the last cluster that was ever in it.
  uint64_t end() const { return end_; }
  void remove(ClusterIndex first, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) clusters_.erase(first.value() + i);
  }
  bool contains(ClusterIndex cluster) const { return clusters_.contains(cluster.value()); }

 private:
  std::unordered_set<uint64_t> clusters_;
  uint64_t end_ = 0;
};

}  // namespace ringdisk::qcow2
