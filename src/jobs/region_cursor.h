// SPDX-License-Identifier: Apache-2.0
// RegionCursor: a disk dealt out to the lanes of a job, from its beginning to its end, in regions
// on a grid. A lane that finds a long stretch of one kind takes all of it in one step. Owned by the
// job; any thread.
//
//   | claimed | region | region | ...          claim_up_to: | region ~~~~~~~~~> | region | ...
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/units.h"

namespace ringdisk {

class RegionCursor {
 public:
  // Of a disk of `total_bytes`.
  RegionCursor(uint64_t total_bytes, uint64_t region_bytes)
      : total_bytes_(total_bytes), region_bytes_(region_bytes) {}

  // A region nobody else has, or an empty one when none is left.
  GuestRange claim() {
    const uint64_t begin = next_.fetch_add(region_bytes_, std::memory_order_relaxed);
    if (begin >= total_bytes_) return {};
    const uint64_t end = std::min(total_bytes_, begin + region_bytes_);
    return GuestRange::between(GuestOffset(begin), GuestOffset(end));
  }
  // `region` with as much as possible up to `wanted_end` added to it, if nobody has claimed what
  // follows it. Regions stay on their grid, so that pieces do.
  GuestRange claim_up_to(GuestRange region, GuestOffset wanted_end) {
    uint64_t wanted = wanted_end.value();
    if (wanted < total_bytes_) wanted -= wanted % region_bytes_;
    uint64_t expected = region.end().value();
    if (wanted <= expected) return region;
    if (!next_.compare_exchange_strong(expected, wanted, std::memory_order_relaxed)) return region;
    return GuestRange::between(region.offset, GuestOffset(wanted));
  }

 private:
  const uint64_t total_bytes_, region_bytes_;
  std::atomic<uint64_t> next_{0};  // everything below is claimed
};

}  // namespace ringdisk
