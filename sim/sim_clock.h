// SPDX-License-Identifier: Apache-2.0
// SimClock: virtual time. It stands still while anything can run and is moved by SimWorld to the
// next timer when nothing can, so a test of a timeout of an hour takes no time and always takes the
// same way. One thread.
#pragma once

#include "base/check.h"
#include "runtime/clock.h"

namespace ringdisk::sim {

class SimClock final : public Clock {
 public:
  Instant now() const override { return now_; }
  // Time never goes back.
  void advance_to(Instant later) {
    CHECK(later >= now_);
    now_ = later;
  }

 private:
  Instant now_;
};

}  // namespace ringdisk::sim
