// SPDX-License-Identifier: Apache-2.0
// fault: a filter that fails chosen operations, for fault sweeps (sim/fault_sweep.h) and for
// trying out what a program does when its disk fails.
//
//   driver=fault,operations=write+flush,number=3,count=1,errno=EIO,when=before,file.driver=mem
//
//   FaultPlan plan;                                     // shared by the nodes of a scenario
//   for (uint64_t n = 0;; ++n) {
//     plan.fail_nth(n, EIO);
//     run_scenario(plan);
//     if (plan.failures() == 0) break;                  // it had no n-th operation
//   }
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "block/graph.h"
#include "nodes/storage_filter.h"

namespace ringdisk {

// Which operations fail. They are those of one of `operations`, touching `range` (flush and resize
// touch every range); of these the first `number` pass and then `count` fail.
struct FaultRule {
  static constexpr uint64_t kForEver = ~uint64_t{0};

  StorageOperations operations = StorageOperations::all();
  HostRange range{HostOffset(0), ByteCount(kOffsetMax)};
  uint64_t number = 0;
  uint64_t count = 1;
  int errno_value = 5;  // EIO
  bool after = false;   // done, but reported failed
};

// Rules and counters, over all queues of all nodes that share the plan. Rules are set while no
// operation is under way; counting is for any thread (atomic).
class FaultPlan {
 public:
  // Forgets all rules and counters and fails the operation number `n`, counted from 0.
  void fail_nth(uint64_t n, int errno_value, bool after = false);
  void add(const FaultRule& rule);
  void clear();

  // Operations seen and failed since the last clear() or fail_nth().
  uint64_t operations() const { return operations_.load(std::memory_order_relaxed); }
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }

  // For FaultQueue. begin() counts the operation and draws its fate: the errno with which it fails,
  // and when.
  struct Fate {
    int errno_before = 0;
    int errno_after = 0;
  };
  Fate begin(StorageOperation operation, HostRange range);

 private:
  struct Counted {
    FaultRule rule;
    std::unique_ptr<std::atomic<uint64_t>> seen = std::make_unique<std::atomic<uint64_t>>(0);
  };

  std::vector<Counted> rules_;
  std::atomic<uint64_t> operations_{0};
  std::atomic<uint64_t> failures_{0};
};

class FaultNode final : public StorageFilter {
 public:
  FaultNode(std::unique_ptr<SharedStorage> child, std::shared_ptr<FaultPlan> plan)
      : StorageFilter(std::move(child)), plan_(std::move(plan)) {}

  FaultPlan& plan() { return *plan_; }
  const char* driver() const override { return "fault"; }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;

 private:
  const std::shared_ptr<FaultPlan> plan_;
};

// `drivers` is where the child's driver is looked up; it outlives the result.
StorageDriver fault_driver(const Drivers& drivers);

}  // namespace ringdisk
