// SPDX-License-Identifier: Apache-2.0
// A filter around each storage.
#include "app/interruptible.h"

#include "nodes/storage_filter.h"
#include "runtime/next_turn.h"

namespace ringdisk {
namespace {

// Requests that end at once between two turns of the shard.
constexpr uint32_t kRequestsPerTurn = 64;

class InterruptibleQueue final : public HookedQueue {
 public:
  InterruptibleQueue(std::unique_ptr<StorageQueue> child, const std::atomic<bool>& stopped,
                     Shard& shard)
      : HookedQueue(std::move(child)), stopped_(stopped), shard_(shard) {}

 private:
  Task<int> before(StorageOperation, HostRange) override {
    if (++requests_ % kRequestsPerTurn == 0) co_await NextTurn(shard_);
    if (stopped_.load(std::memory_order_relaxed)) {
      co_return Error::of(ErrorKind::kCancelled, "storage");
    }
    co_return 0;
  }
  Task<void> after(StorageOperation, HostRange, int) override { co_return; }

  const std::atomic<bool>& stopped_;
  Shard& shard_;
  uint32_t requests_ = 0;
};

class InterruptibleNode final : public StorageFilter {
 public:
  InterruptibleNode(std::unique_ptr<SharedStorage> child, const std::atomic<bool>& stopped)
      : StorageFilter(std::move(child)), stopped_(stopped) {}

  const char* driver() const override { return child().driver(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
    std::unique_ptr<StorageQueue> queue =
        std::make_unique<InterruptibleQueue>(std::move(below), stopped_, shard);
    co_return std::move(queue);
  }

 private:
  const std::atomic<bool>& stopped_;
};

Task<std::unique_ptr<StorageNode>> open_interruptible(const StorageDriver& driver,
                                                      const std::atomic<bool>& stopped,
                                                      const World& world, Options options,
                                                      OpenMode mode) {
  std::unique_ptr<StorageNode> child = co_await driver.open(world, std::move(options), mode);
  auto shared = std::make_unique<SharedStorage>(std::move(child));
  std::unique_ptr<StorageNode> node =
      std::make_unique<InterruptibleNode>(std::move(shared), stopped);
  co_return std::move(node);
}

}  // namespace

Drivers interruptible_drivers(const Drivers& drivers, const std::atomic<bool>& stopped) {
  Drivers interruptible = drivers;
  for (size_t i = 0; i < drivers.storages.size(); ++i) {
    const StorageDriver& driver = drivers.storages[i];
    interruptible.storages[i].open = [&driver, &stopped](const World& world, Options options,
                                                         OpenMode mode) {
      return open_interruptible(driver, stopped, world, std::move(options), mode);
    };
  }
  return interruptible;
}

}  // namespace ringdisk
