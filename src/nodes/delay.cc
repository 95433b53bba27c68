// SPDX-License-Identifier: Apache-2.0
// The queue of `delay`, and its options.
#include "nodes/delay.h"

#include "base/diagnostics.h"
#include "base/random.h"
#include "nodes/filter_child.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

class DelayQueue final : public HookedQueue {
 public:
  DelayQueue(std::unique_ptr<StorageQueue> child, const DelayPlan& plan, Shard& shard)
      : HookedQueue(std::move(child)),
        plan_(plan),
        shard_(shard),
        random_(Random(plan.seed).next() + shard.index()) {}

 private:
  Task<int> before(StorageOperation operation, HostRange) override {
    if (!plan_.after && plan_.operations.has(operation)) co_await wait_a_while();
    co_return 0;
  }
  Task<void> after(StorageOperation operation, HostRange, int) override {
    if (plan_.after && plan_.operations.has(operation)) co_await wait_a_while();
  }
  Task<void> wait_a_while() {
    Result<void> slept = co_await shard_.sleep(draw());
    co_await std::move(slept);
  }
  Duration draw() {
    const auto span = static_cast<uint64_t>((plan_.longest - plan_.shortest).count());
    return plan_.shortest + Duration(static_cast<Duration::rep>(random_.below(span + 1)));
  }

  const DelayPlan& plan_;
  Shard& shard_;
  Random random_;
};

Task<std::unique_ptr<StorageNode>> open_delay(const World& world, const Drivers& drivers,
                                              Options options, OpenMode mode) {
  Diagnostics& diagnostics = world.diagnostics;
  constexpr uint64_t kMicrosecondsMax = 3600u * 1000 * 1000;
  DelayPlan plan;
  plan.operations = co_await take_operations(options, diagnostics);
  plan.after = co_await take_is_after(options, diagnostics);
  uint64_t shortest = co_await options.take_size("shortest_us", 0, diagnostics);
  uint64_t longest = co_await options.take_size("longest_us", 1000, diagnostics);
  plan.seed = co_await options.take_size("seed", 1, diagnostics);
  if (shortest > longest || longest > kMicrosecondsMax) {
    co_return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                                  "shortest_us must not exceed longest_us, nor that an hour");
  }
  plan.shortest = std::chrono::microseconds(shortest);
  plan.longest = std::chrono::microseconds(longest);
  std::unique_ptr<SharedStorage> child =
      co_await open_filter_child(world, drivers, "delay", options, mode);
  std::unique_ptr<StorageNode> node = std::make_unique<DelayNode>(std::move(child), plan);
  co_return std::move(node);
}

}  // namespace

DelayNode::DelayNode(std::unique_ptr<SharedStorage> child, DelayPlan plan)
    : StorageFilter(std::move(child)), plan_(plan) {
  CHECK(plan.shortest <= plan.longest);
}

Task<std::unique_ptr<StorageQueue>> DelayNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
  std::unique_ptr<StorageQueue> queue =
      std::make_unique<DelayQueue>(std::move(below), plan_, shard);
  co_return std::move(queue);
}

StorageDriver delay_driver(const Drivers& drivers) {
  StorageDriver driver;
  driver.name = "delay";
  driver.open = [&drivers](const World& world, Options options, OpenMode mode) {
    return open_delay(world, drivers, std::move(options), mode);
  };
  return driver;
}

}  // namespace ringdisk
