// SPDX-License-Identifier: Apache-2.0
// Clock: monotonic time, handed down from main(). The simulator's clock moves only when nothing can
// run.
#pragma once

#include <chrono>
#include <cstdint>

namespace ringdisk {

using Duration = std::chrono::nanoseconds;

// A point of monotonic time; only differences mean something.
struct Instant {
  Duration since_start{0};
  constexpr auto operator<=>(const Instant&) const = default;
  friend constexpr Instant operator+(Instant at, Duration after) {
    return {at.since_start + after};
  }
  friend constexpr Duration operator-(Instant a, Instant b) {
    return a.since_start - b.since_start;
  }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;  // any thread
};

// CLOCK_MONOTONIC.
class SystemClock final : public Clock {
 public:
  Instant now() const override;
};

}  // namespace ringdisk
