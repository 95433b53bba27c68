// SPDX-License-Identifier: Apache-2.0
// The storage contract on the simulated disk and on memory.
#include "sim/storage_contract.h"

#include "nodes/mem.h"
#include "runtime/shard.h"
#include "sim/sim_storage.h"

namespace ringdisk::sim {
namespace {

// A node that brings its disk along.
class OwningNode final : public StorageNode {
 public:
  explicit OwningNode(SimDiskOptions options)
      : StorageNode("sim", 1), disk_(options, 1), node_(disk_, "sim", 1) {}
  const char* driver() const override { return node_.driver(); }
  const StorageLimits& limits() const override { return node_.limits(); }
  ByteCount size() const override { return node_.size(); }
  Task<ByteCount> allocated_size() override { return node_.allocated_size(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    return node_.open_queue(shard);
  }
  Task<void> close() override { return node_.close(); }

 private:
  SimDisk disk_;
  SimStorageNode node_;
};

Task<std::unique_ptr<StorageNode>> open_file(const World&, ByteCount) {
  co_return std::make_unique<OwningNode>(SimDiskOptions::file());
}
Task<std::unique_ptr<StorageNode>> open_direct_file(const World&, ByteCount size) {
  SimDiskOptions options;
  options.size = size;
  options.block_size = 512;
  options.memory_alignment = 512;
  co_return std::make_unique<OwningNode>(options);
}
Task<std::unique_ptr<StorageNode>> open_device(const World&, ByteCount size) {
  co_return std::make_unique<OwningNode>(SimDiskOptions::block_device(size, 4096));
}
Task<std::unique_ptr<StorageNode>> open_mem(const World&, ByteCount size) {
  co_return std::make_unique<MemNode>("mem", 1, size);
}

RINGDISK_STORAGE_CONTRACT(sim_file, &open_file);
RINGDISK_STORAGE_CONTRACT(sim_direct_file, &open_direct_file);
RINGDISK_STORAGE_CONTRACT(sim_device, &open_device);
RINGDISK_STORAGE_CONTRACT(mem, &open_mem);

}  // namespace
}  // namespace ringdisk::sim
