// SPDX-License-Identifier: Apache-2.0
// ReferenceCounts: how often each host cluster of an image is pointed to, counted by `check`.
// Sparse: memory follows the clusters that are pointed to, not the size that a damaged image
// pretends to have.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "base/units.h"

namespace ringdisk::qcow2 {

class ReferenceCounts {
 public:
  void add(ClusterIndex cluster) {
    Chunk& chunk = chunk_of(cluster.value() / kChunkClusters);
    uint32_t& count = chunk[cluster.value() % kChunkClusters];
    if (count != ~uint32_t{0}) ++count;
  }
  uint32_t count(ClusterIndex cluster) const {
    auto found = chunks_.find(cluster.value() / kChunkClusters);
    return found == chunks_.end() ? 0 : (*found->second)[cluster.value() % kChunkClusters];
  }
  // One behind the highest cluster that is pointed to.
  ClusterIndex end() const {
    if (chunks_.empty()) return ClusterIndex(0);
    const auto& [number, chunk] = *chunks_.rbegin();
    uint64_t within = kChunkClusters;
    while (within != 0 && (*chunk)[within - 1] == 0) --within;
    return ClusterIndex(number * kChunkClusters + within);
  }

 private:
  static constexpr uint64_t kChunkClusters = 16384;  // 64 KiB of counts
  using Chunk = std::array<uint32_t, kChunkClusters>;

  Chunk& chunk_of(uint64_t number) {
    if (last_ && last_number_ == number) return *last_;
    std::unique_ptr<Chunk>& chunk = chunks_[number];
    if (!chunk) chunk = std::make_unique<Chunk>();
    last_number_ = number;
    last_ = chunk.get();
    return *last_;
  }

  std::map<uint64_t, std::unique_ptr<Chunk>> chunks_;  // none is all zero
  Chunk* last_ = nullptr;
  uint64_t last_number_ = 0;
};

}  // namespace ringdisk::qcow2
