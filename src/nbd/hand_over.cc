// SPDX-License-Identifier: Apache-2.0
// The arithmetic of handing over.
#include "nbd/hand_over.h"

#include <algorithm>

#include "runtime/shard.h"
#include "runtime/world.h"

namespace ringdisk::nbd {
namespace {

constexpr uint64_t kFraction = 256;
constexpr uint64_t kWeight = 8;           // a batch counts for one eighth of the average
constexpr size_t kShardsLookedAtMax = 4;  // two atomic loads each, likely cache misses

}  // namespace

void WorkEstimate::add(uint64_t units, Duration elapsed) {
  if (units == 0) return;
  // Bounded, so that one stall (a suspended machine) does not make every later batch look huge.
  Duration bounded = std::clamp(elapsed, Duration::zero(), Duration(std::chrono::seconds(1)));
  uint64_t sample = static_cast<uint64_t>(bounded.count()) * kFraction / units;
  unit_cost_ = (unit_cost_ * (kWeight - 1) + sample) / kWeight;
}

Duration WorkEstimate::of(uint64_t units) const {
  return Duration(static_cast<int64_t>(unit_cost_ * units / kFraction));
}

Shard* find_idle_shard(const World& world, const Shard& home, uint32_t* turn) {
  size_t count = world.shards.size();
  for (size_t looked = 0; looked < std::min(count, kShardsLookedAtMax); ++looked) {
    Shard* shard = world.shards[(*turn)++ % count];
    if (shard != &home && (shard->is_asleep() || shard->load() == 0)) return shard;
  }
  return nullptr;
}

bool is_worth_hand_over(const HandOverLimits& limits, const Shard& shard, Duration work) {
  return work >= (shard.is_asleep() ? limits.asleep : limits.awake);
}

}  // namespace ringdisk::nbd
