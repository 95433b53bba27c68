// SPDX-License-Identifier: Apache-2.0
// UnreadableRanges: what a job that reads past errors could not read: how much, and where. Adjacent
// ranges become one; of a disk that fails everywhere kShownMax are kept and the rest is counted. A
// value: each lane of a job has its own, and the job one for all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace ringdisk {

struct UnreadableRange {
  GuestRange range;
  Error error;  // of the first byte
};

class UnreadableRanges {
 public:
  static constexpr size_t kShownMax = 1000;

  void add(GuestRange range, const Error& error);
  void add_all(const UnreadableRanges& other);

  // In order; those beyond kShownMax are missing.
  const std::vector<UnreadableRange>& first() const { return ranges_; }
  uint64_t bytes() const { return bytes_; }  // of all

 private:
  std::vector<UnreadableRange> ranges_;  // by offset
  uint64_t bytes_ = 0;
};

}  // namespace ringdisk
