// SPDX-License-Identifier: Apache-2.0
// Pacer: how long a job's next bytes have to wait, so that all of them together go at no more than
// a rate. Owned by the job; any thread. It says when, and its user sleeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "runtime/clock.h"

namespace ringdisk {

class Pacer {
 public:
  // 0: no limit.
  explicit Pacer(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // From when on `bytes` may go, after all that asked before; what was not used in time past is
  // not saved up.
  Instant claim(uint64_t bytes, Instant now) {
    if (bytes_per_second_ == 0) return now;
    const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_);
    const auto length = static_cast<int64_t>(std::min(seconds, kSecondsMax) * 1e9);
    const int64_t earliest = now.since_start.count();
    int64_t free = free_from_.load(std::memory_order_relaxed);
    int64_t begin;
    do {
      begin = std::max(free, earliest);
    } while (!free_from_.compare_exchange_weak(free, begin + length, std::memory_order_relaxed));
    return Instant{Duration(begin)};
  }

 private:
  static constexpr double kSecondsMax = 1e6;  // of one claim, so that a few thousand still add up

  const uint64_t bytes_per_second_;
  std::atomic<int64_t> free_from_{0};  // nanoseconds of the clock
};

}  // namespace ringdisk
