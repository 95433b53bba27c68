// SPDX-License-Identifier: Apache-2.0
// The device contract on raw images, in files and on devices with large blocks.
#include "sim/device_contract.h"

#include "nodes/raw.h"
#include "runtime/shard.h"

namespace ringdisk::sim {
namespace {

Task<void> create_raw(const World&, SharedStorage& storage, ByteCount size) {
  if (!storage.node->limits().grows) co_return;
  std::unique_ptr<StorageQueue> queue = co_await storage.node->open_queue(Shard::current());
  Result<void> resized = co_await queue->resize(size).result();
  queue.reset();
  co_await std::move(resized);
}

Task<std::shared_ptr<DeviceNode>> open_raw(const World&, std::unique_ptr<SharedStorage> storage,
                                           bool) {
  ByteCount size = storage->node->size();
  auto raw = std::make_unique<RawNode>(std::move(storage), ByteCount(0), size);
  co_return std::make_shared<DeviceNode>("raw", 1, std::move(raw), nullptr);
}

ImageFormat raw_image() { return {"raw", &create_raw, &open_raw}; }

// A raw disk shows what the device holds, whoever has written it.
ImageFormat used_raw_device() {
  ImageFormat format = raw_image();
  format.initial = [](uint64_t sector, Sector& content) { content = stale_sector(sector); };
  return format;
}
SimDiskOptions device_with_blocks(uint32_t block_size) {
  return SimDiskOptions::block_device(ByteCount(kContractDiskBytes), block_size);
}
SimDiskOptions device_without_fast_zero() {
  SimDiskOptions options = device_with_blocks(4096);
  options.fast_zero = false;
  return options;
}

RINGDISK_DEVICE_CONTRACT(raw_in_a_file, raw_image(), SimDiskOptions::file());
RINGDISK_DEVICE_CONTRACT(raw_without_fast_zero, used_raw_device(), device_without_fast_zero());
RINGDISK_DEVICE_CONTRACT(raw_on_512, used_raw_device(), device_with_blocks(512));
RINGDISK_DEVICE_CONTRACT(raw_on_4096, used_raw_device(), device_with_blocks(4096));

}  // namespace
}  // namespace ringdisk::sim
