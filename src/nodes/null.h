// SPDX-License-Identifier: Apache-2.0
// null: a storage that reads as zeros and forgets what is written, for measuring everything above
// it.
//
//   driver=null,size=2G            (default 1 GiB; a write further out makes it larger)
//
// It keeps nothing but its size, so its queues share nothing else.
#pragma once

#include <atomic>
#include <string>

#include "block/graph.h"
#include "block/storage.h"

namespace ringdisk {

class NullNode final : public StorageNode {
 public:
  NullNode(std::string name, uint32_t id, ByteCount size, bool read_only = false);

  const char* driver() const override { return "null"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override { return ByteCount(size_.load(std::memory_order_acquire)); }
  Task<ByteCount> allocated_size() override;
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;
  Task<void> close() override;

  // Any thread.
  void grow_to(HostOffset end);
  void resize(ByteCount size) { size_.store(size.value(), std::memory_order_release); }

 private:
  const StorageLimits limits_;
  std::atomic<uint64_t> size_;
};

// Options: size.
StorageDriver null_driver();

}  // namespace ringdisk
