// SPDX-License-Identifier: Apache-2.0
// mem: a storage in memory, for tests, benches and scratch disks. It grows with writes and takes
// memory only for what was written (nodes/sparse_memory.h). Nothing of it survives the process.
//
//   driver=mem,size=8T,block_size=512
//
// MemContent is the bytes; a MemNode is one opening of them, so that a test can close an image and
// open it again. Queues of several shards may work at once, on overlapping ranges too (which are
// then atomic by 64 KiB chunks at the most). Transfers of more than kMemPieceBytes let the shard's
// other work run in between.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "block/graph.h"
#include "block/storage.h"
#include "nodes/sparse_memory.h"

namespace ringdisk {

// A megabyte takes 100 to 150 us to copy.
inline constexpr size_t kMemPieceBytes = size_t{1} << 20;

// Any thread.
class MemContent {
 public:
  explicit MemContent(ByteCount size = ByteCount(0)) : size_(size.value()) {}

  SparseMemory& memory() { return memory_; }
  ByteCount size() const { return ByteCount(size_.load(std::memory_order_acquire)); }
  void grow_to(ByteCount size);
  // Cuts or grows; what is grown reads as zeros.
  void resize(ByteCount size);

 private:
  SparseMemory memory_;
  std::atomic<uint64_t> size_;
};

struct MemOptions {
  uint32_t block_size = 1;        // a power of two, at most kBlockSizeMax
  uint32_t memory_alignment = 1;  // likewise
  bool read_only = false;
};

class MemNode final : public StorageNode {
 public:
  // An empty one of `size` bytes, a multiple of the block size.
  MemNode(std::string name, uint32_t id, ByteCount size, MemOptions options = MemOptions());
  // Another opening of what is there.
  MemNode(std::string name, uint32_t id, std::shared_ptr<MemContent> content,
          MemOptions options = MemOptions());

  const std::shared_ptr<MemContent>& content() const { return content_; }

  const char* driver() const override { return "mem"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override { return content_->size(); }
  Task<ByteCount> allocated_size() override;
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;
  Task<void> close() override;

 private:
  const std::shared_ptr<MemContent> content_;
  const StorageLimits limits_;
};

// Options: size (default 0), block_size (default 1). Cannot be created by name: it begins empty.
StorageDriver mem_driver();

}  // namespace ringdisk
