// SPDX-License-Identifier: Apache-2.0
// The contract of storages (sim/storage_contract.h), held through each filter. (null forgets, so it
// cannot hold it; mem by itself is run where the suite is.)
#include "nodes/delay.h"
#include "nodes/fault.h"
#include "nodes/first_sector_guard.h"
#include "nodes/mem.h"
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

RINGDISK_STORAGE_CONTRACT(mem_blocks, &open_blocks);
RINGDISK_STORAGE_CONTRACT(delay_before, &open_delay);
RINGDISK_STORAGE_CONTRACT(delay_after, &open_late);
RINGDISK_STORAGE_CONTRACT(fault_without_rules, &open_fault);
RINGDISK_STORAGE_CONTRACT(first_sector_guard, &open_guard);

}  // namespace
}  // namespace ringdisk
