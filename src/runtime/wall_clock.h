// SPDX-License-Identifier: Apache-2.0
// The date, for what records one (a snapshot). A command asks for it and hands it down as numbers;
// all waiting goes by the monotonic Clock (runtime/clock.h).
#pragma once

#include <cstdint>

namespace ringdisk {

struct WallTime {
  uint32_t seconds = 0;  // since 1970, as images record it
  uint32_t nanoseconds = 0;
};

WallTime read_wall_clock();

}  // namespace ringdisk
