// SPDX-License-Identifier: Apache-2.0
// ScatteredNode: a format for tests of block/access. Clusters of 4 KiB lie anywhere in the storage,
// in no order; tables are "not in memory" now and then; an allocation takes one cluster and must be
// finished or abandoned. It keeps its table in memory alone. One shard.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "async/event.h"
#include "base/random.h"
#include "block/format.h"
#include "block/storage_access.h"

namespace ringdisk {

class ScatteredNode final : public FormatNode {
 public:
  static constexpr uint64_t kCluster = 4096;

  ScatteredNode(std::unique_ptr<SharedStorage> storage, ByteCount size, uint64_t seed)
      : storage_(std::move(storage)),
        size_(size),
        table_((size.value() + kCluster - 1) / kCluster),
        random_(seed) {
    limits_.cluster_size = ByteCount(kCluster);
    // Host clusters are given out in drawn order.
    for (uint64_t i = 0; i < 4 * table_.size(); ++i) free_.push_back(i * kCluster);
    for (size_t i = free_.size(); i > 1; --i) std::swap(free_[i - 1], free_[random_.below(i)]);
  }

  const char* driver() const override { return "scattered"; }
  const FormatLimits& limits() const override { return limits_; }
  ByteCount size() const override { return size_; }
  Task<std::unique_ptr<FormatQueue>> open_queue(Shard& shard) override;
  Task<void> close() override { return storage_->node->close(); }

  uint64_t pins() const { return pins_; }
  uint64_t allocations() const { return allocations_; }
  uint64_t abandoned() const { return abandoned_; }
  bool is_any_busy() const {
    return std::any_of(table_.begin(), table_.end(), [](const Cluster& one) { return one.busy; });
  }

 private:
  friend class ScatteredQueue;
  struct Cluster {
    MappingKind kind = MappingKind::kAbsent;
    uint64_t host = 0;
    bool busy = false;  // an allocation is under way
  };

  const std::unique_ptr<SharedStorage> storage_;
  const ByteCount size_;
  FormatLimits limits_;
  std::vector<Cluster> table_;
  std::vector<uint64_t> free_;
  Random random_;
  Event changed_;  // set and reset whenever a cluster stops being busy
  uint64_t pins_ = 0, allocations_ = 0, abandoned_ = 0;
};

class ScatteredQueue final : public FormatQueue {
 public:
  ScatteredQueue(ScatteredNode& node, std::unique_ptr<StorageAccess> storage)
      : node_(node), storage_(std::move(storage)) {}

  StorageAccess& data_storage() override { return *storage_; }

  bool try_map(GuestRange range, MapPurpose, Mapping& mapping) override {
    if (!loaded_ && node_.random_.chance(15)) return false;
    loaded_ = false;
    uint64_t index = range.offset.value() / kCluster;
    const uint64_t lead = range.offset.value() % kCluster;
    const auto& first = node_.table_[index];
    uint64_t length = kCluster - lead;
    for (uint64_t next = index + 1; length < range.length.value(); ++next, length += kCluster) {
      const auto& cluster = node_.table_[next];
      if (cluster.kind != first.kind) break;
      const bool follows = cluster.host == first.host + (next - index) * kCluster;
      if (first.kind == MappingKind::kData && !follows) break;
    }
    mapping.kind = first.kind;
    mapping.length = std::min(range.length, ByteCount(length));
    mapping.host = HostOffset(first.host + lead);
    if (first.kind == MappingKind::kData) {
      ++node_.pins_;
      mapping.pin = MappingPin(*this, 0);
    }
    return true;
  }
  Task<void> load_map(GuestOffset) override {
    loaded_ = true;
    co_return;
  }

  Task<std::optional<Allocation>> begin_allocation(GuestRange range) override {
    const uint64_t index = range.offset.value() / kCluster;
    while (node_.table_[index].busy) co_await node_.changed_.wait();
    if (node_.table_[index].kind == MappingKind::kData) co_return std::nullopt;
    node_.table_[index].busy = true;
    ++node_.allocations_;
    Allocation allocation;
    allocation.cover = GuestRange(GuestOffset(index * kCluster), ByteCount(kCluster));
    allocation.request = range.intersection(allocation.cover);
    allocation.changed = allocation.request;
    allocation.host = HostOffset(node_.free_.back());
    node_.free_.pop_back();
    // A file's part that was never written reads as zeros; a place that was abandoned may not.
    allocation.reads_zero = node_.abandoned_ == 0;
    allocation.ticket = index;
    co_return std::optional<Allocation>(allocation);
  }
  Task<void> finish_allocation(const Allocation& allocation) override {
    auto& cluster = node_.table_[allocation.ticket];
    cluster.kind = MappingKind::kData;
    cluster.host = allocation.host.value();
    end_allocation(allocation);
    co_return;
  }
  Task<void> abandon_allocation(const Allocation& allocation) override {
    ++node_.abandoned_;
    node_.free_.push_back(allocation.host.value());
    end_allocation(allocation);
    co_return;
  }

  Task<ClusterChange> zero_clusters(GuestRange clusters, ZeroOptions) override {
    co_return co_await change_first(clusters).result();
  }
  Task<ClusterChange> discard_clusters(GuestRange clusters) override {
    co_return co_await change_first(clusters).result();
  }
  Task<void> read_compressed(GuestOffset, MutableBytes) override {
    UNREACHABLE("this format compresses nothing");
  }
  Task<void> flush() override { return storage_->flush(); }

 private:
  static constexpr uint64_t kCluster = ScatteredNode::kCluster;

  void release_pin(uint32_t) override { --node_.pins_; }
  void end_allocation(const Allocation& allocation) {
    node_.table_[allocation.ticket].busy = false;
    node_.changed_.set();
    node_.changed_.reset();
  }
  // One cluster becomes zeros; what it had is given away.
  Task<ClusterChange> change_first(GuestRange clusters) {
    auto& cluster = node_.table_[clusters.offset.value() / kCluster];
    while (cluster.busy) co_await node_.changed_.wait();
    cluster.kind = MappingKind::kZero;
    ClusterChange change;
    change.done = std::min(clusters.length, ByteCount(kCluster));
    co_return change;
  }

  ScatteredNode& node_;
  std::unique_ptr<StorageAccess> storage_;
  bool loaded_ = false;
};

inline Task<std::unique_ptr<FormatQueue>> ScatteredNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*storage_, shard);
  co_return std::make_unique<ScatteredQueue>(*this, std::move(access));
}

}  // namespace ringdisk
