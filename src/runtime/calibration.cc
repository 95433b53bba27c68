// SPDX-License-Identifier: Apache-2.0
// Calls to another shard, timed.
#include "runtime/calibration.h"

#include "async/scope.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr int kRounds = 20;
constexpr size_t kTogether = 64;
// Longer than a shard looks for messages before it sleeps.
constexpr Duration kUntilAsleep = std::chrono::microseconds(200);

Result<void> nothing() { return {}; }
Task<void> call(Shard& other) { co_await other.call(&nothing); }

Task<void> call_together(Shard& other) {
  auto one = [&other](size_t) { return call(other); };
  co_await when_all(kTogether, one);
}

}  // namespace

Task<CrossingCost> measure_crossing(const World& world) {
  CrossingCost cost;
  if (world.shards.size() < 2) co_return cost;
  Shard& home = Shard::current();
  Shard& other = *world.shards[(home.index() + 1) % world.shards.size()];
  cost.together = cost.single = cost.asleep = Duration::max();
  for (int round = 0; round < kRounds; ++round) {
    Result<void> slept = co_await home.sleep(kUntilAsleep);
    co_await std::move(slept);
    Instant began = world.clock.now();
    co_await call(other);
    cost.asleep = std::min(cost.asleep, world.clock.now() - began);
    began = world.clock.now();
    co_await call(other);
    cost.single = std::min(cost.single, world.clock.now() - began);
    began = world.clock.now();
    co_await call_together(other);
    cost.together = std::min(cost.together, (world.clock.now() - began) / int64_t{kTogether});
  }
  co_return cost;
}

}  // namespace ringdisk
