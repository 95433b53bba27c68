// SPDX-License-Identifier: Apache-2.0
// SlowCallGuard: calls in place that turn out to be slow (dirty throttling, a stalled journal,
// swap) are sent to workers for a while. One a queue and sort of call; this shard only.
//
//   a call took more than 1 ms: avoid for 100 ms; the first call after that is slow again: 200 ms,
//   … 1.6 s at the most
//
// Measured (decision 0004): under throttling the loop stands still 77 % of the time without it, 10
// % with it.
#pragma once

#include <algorithm>

#include "runtime/clock.h"

namespace ringdisk::file {

class SlowCallGuard {
 public:
  static constexpr Duration kSlow = std::chrono::milliseconds(1);
  static constexpr Duration kPauseFirst = std::chrono::milliseconds(100);
  static constexpr Duration kPauseLast = std::chrono::milliseconds(1600);

  // Whether a call may be made in place at `now`.
  bool allows(Instant now) const { return now >= allowed_from_; }

  // A call in place began at `start` and ended at `end`.
  void note(Instant start, Instant end) {
    if (end - start <= kSlow) {
      pause_ = kPauseFirst;
      return;
    }
    allowed_from_ = end + pause_;
    pause_ = std::min(pause_ * 2, kPauseLast);
  }

 private:
  Instant allowed_from_;
  Duration pause_ = kPauseFirst;
};

}  // namespace ringdisk::file
