// SPDX-License-Identifier: Apache-2.0
// When a session lets another shard do a part of its requests. Requests stay on the shard where
// they arrive unless that shard is saturated and another one has nothing to do; and then a part of
// a batch goes as a whole, because a hand-over costs about 0.5 us to a shard that is awake and 20
// us to one that sleeps (docs/decisions/0006), as much as ten cached reads.
//
//   a batch of 16 reads of 64 KiB, measured at 700 ns a unit of 4 KiB: 16 x 17 units = 190 us.
//   Half of it, 95 us, is worth a hand-over to a shard that is awake (20 us), not to one that
//   sleeps (200 us). A batch of 8 reads of 4 KiB, 11 us, stays at home.
//
// WorkEstimate belongs to one session, on its shard.
#pragma once

#include <cstdint>

#include "runtime/clock.h"

namespace ringdisk {
class Shard;
struct World;
}  // namespace ringdisk

namespace ringdisk::nbd {

// What the moved part of a batch must at least be worth. Several times the price of the hand-over:
// its buffers also change from one core's cache to another's, and a woken thread may take its core
// from somebody else, such as the client.
struct HandOverLimits {
  Duration awake = std::chrono::microseconds(20);
  Duration asleep = std::chrono::microseconds(200);
};

// What this session's requests cost its shard, in units of one request plus one for each 4 KiB: a
// moving average.
class WorkEstimate {
 public:
  static constexpr uint64_t kUnitBytes = 4096;

  static uint64_t units_of(uint64_t length) { return 1 + length / kUnitBytes; }
  // `units` were started here and took `elapsed` of the shard's time.
  void add(uint64_t units, Duration elapsed);
  Duration of(uint64_t units) const;

 private:
  // Nanoseconds in 1/256, so that the average also moves where a unit costs little.
  uint64_t unit_cost_ = 0;
};

// An idle shard other than `home`, or null. Looks at a few shards from `*turn` on and moves it, so
// that the price does not grow with the number of shards and not everybody asks the same one.
Shard* find_idle_shard(const World& world, const Shard& home, uint32_t* turn);

// Whether work of this estimated cost may go to `shard`.
bool is_worth_hand_over(const HandOverLimits& limits, const Shard& shard, Duration work);

}  // namespace ringdisk::nbd
