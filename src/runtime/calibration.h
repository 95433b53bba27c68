// SPDX-License-Identifier: Apache-2.0
// What things cost on this machine, measured in well under a millisecond each: work that is done in
// place, and crossing to another shard (what runtime/offload.h weighs against each other). The
// quickest of a few rounds counts: the first find caches and clocks cold, and others are disturbed.
#pragma once

#include <algorithm>

#include "async/task.h"
#include "runtime/clock.h"
#include "runtime/world.h"

namespace ringdisk {

// The quickest of `rounds` calls of work(), which gives whether it could be done. Zero where it
// could not, and in virtual time.
template <class F>
Duration measure_quickest(int rounds, const Clock& clock, F work) {
  Duration quickest = Duration::max();
  for (int round = 0; round < rounds; ++round) {
    const Instant began = clock.now();
    if (!work()) return Duration::zero();
    quickest = std::min(quickest, clock.now() - began);
  }
  return quickest;
}

// Round trips of a call, from the calling shard to the one after it. Zero where there is no other.
struct CrossingCost {
  Duration together{0};  // each of 64 calls under way at once
  Duration single{0};    // one call at a time, the other shard looking for it if it has learnt to
  Duration asleep{0};    // the other shard in the kernel
};
Task<CrossingCost> measure_crossing(const World& world);

}  // namespace ringdisk
