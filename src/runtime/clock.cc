// SPDX-License-Identifier: Apache-2.0
// The only place that asks the system for the time.
#include "runtime/clock.h"

#include <ctime>

#include "runtime/wall_clock.h"

namespace ringdisk {

Instant SystemClock::now() const {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return {std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec)};
}

WallTime read_wall_clock() {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return {static_cast<uint32_t>(time.tv_sec), static_cast<uint32_t>(time.tv_nsec)};
}

}  // namespace ringdisk
