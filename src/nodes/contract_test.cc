// SPDX-License-Identifier: Apache-2.0
// The contract of storages (sim/storage_contract.h), held through each filter. (null forgets, so it
// cannot hold it; mem by itself is run where the suite is.)
#include "nodes/delay.h"
#include "nodes/fault.h"
#include "nodes/first_sector_guard.h"
#include "nodes/mem.h"
#include "nodes/window.h"
#include "sim/storage_contract.h"

namespace ringdisk {
namespace {

std::unique_ptr<SharedStorage> new_mem(ByteCount size, uint32_t block_size) {
  MemOptions options;
  options.block_size = block_size;
  return std::make_unique<SharedStorage>(std::make_unique<MemNode>("mem", 1, size, options));
}

Task<std::unique_ptr<StorageNode>> open_blocks(const World&, ByteCount size) {
  MemOptions options;
  options.block_size = options.memory_alignment = 4096;
  co_return std::make_unique<MemNode>("mem", 1, size, options);
}
Task<std::unique_ptr<StorageNode>> open_delay(const World&, ByteCount size) {
  co_return std::make_unique<DelayNode>(new_mem(size, 1), DelayPlan());
}
Task<std::unique_ptr<StorageNode>> open_late(const World&, ByteCount size) {
  DelayPlan plan;
  plan.after = true;
  co_return std::make_unique<DelayNode>(new_mem(size, 512), plan);
}
Task<std::unique_ptr<StorageNode>> open_fault(const World&, ByteCount size) {
  co_return std::make_unique<FaultNode>(new_mem(size, 1), std::make_shared<FaultPlan>());
}
Task<std::unique_ptr<StorageNode>> open_guard(const World& world, ByteCount size) {
  co_return std::make_unique<FirstSectorGuardNode>(new_mem(size, 1), world.diagnostics);
}

Task<std::unique_ptr<StorageNode>> open_window(const World&, ByteCount size) {
  Window window;
  window.offset = ByteCount(1 << 20);
  co_return std::make_unique<WindowNode>(new_mem(window.offset + size, 512), window);
}
// Which begins and ends in the middle of the file's blocks.
Task<std::unique_ptr<StorageNode>> open_odd_window(const World&, ByteCount size) {
  Window window;
  window.offset = ByteCount(12345);
  window.size = size;
  const ByteCount file(size.value() / 512 * 512 + 64 * 512);
  co_return std::make_unique<WindowNode>(new_mem(file, 512), window);
}

RINGDISK_STORAGE_CONTRACT(mem_blocks, &open_blocks);
RINGDISK_STORAGE_CONTRACT(delay_before, &open_delay);
RINGDISK_STORAGE_CONTRACT(delay_after, &open_late);
RINGDISK_STORAGE_CONTRACT(fault_without_rules, &open_fault);
RINGDISK_STORAGE_CONTRACT(first_sector_guard, &open_guard);
RINGDISK_STORAGE_CONTRACT(window, &open_window);
RINGDISK_STORAGE_CONTRACT(window_between_blocks, &open_odd_window);

}  // namespace
}  // namespace ringdisk
