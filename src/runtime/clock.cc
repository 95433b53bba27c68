// SPDX-License-Identifier: Apache-2.0
// The only place that asks the system for the time.
#include "runtime/clock.h"

#include <ctime>

namespace ringdisk {

Instant SystemClock::now() const {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return {std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec)};
}

}  // namespace ringdisk
