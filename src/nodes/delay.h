// SPDX-License-Identifier: Apache-2.0
// delay: a filter that makes a storage slow, to show what waits for what and to let operations
// complete in another order than they were asked for.
//
//   driver=delay,operations=read+write,shortest_us=100,longest_us=2000,when=before,seed=1,file.driver=mem
//
// Each operation sleeps on its shard's timers (virtual in the simulator) for a time drawn evenly
// from [shortest, longest], before or after the child does it. Queues draw from one seed and their
// shard's number, so a run can be repeated.
#pragma once

#include <memory>

#include "block/graph.h"
#include "nodes/storage_filter.h"
#include "runtime/clock.h"

namespace ringdisk {

struct DelayPlan {
  StorageOperations operations = StorageOperations::all();
  Duration shortest{0};
  Duration longest = std::chrono::milliseconds(1);  // at least `shortest`
  bool after = false;  // the child does it first; its caller hears of it late
  uint64_t seed = 1;
};

class DelayNode final : public StorageFilter {
 public:
  DelayNode(std::unique_ptr<SharedStorage> child, DelayPlan plan);

  const char* driver() const override { return "delay"; }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;

 private:
  const DelayPlan plan_;
};

// `drivers` is where the child's driver is looked up; it outlives the result.
StorageDriver delay_driver(const Drivers& drivers);

}  // namespace ringdisk
