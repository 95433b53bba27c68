// SPDX-License-Identifier: Apache-2.0
// Joining neighbours, and counting what there is no room to list.
#include "jobs/unreadable.h"

#include <algorithm>

namespace ringdisk {

void UnreadableRanges::add(GuestRange range, const Error& error) {
  bytes_ += range.length.value();
  auto lies_behind = [](GuestOffset at, const UnreadableRange& one) {
    return at < one.range.offset;
  };
  auto next = std::upper_bound(ranges_.begin(), ranges_.end(), range.offset, lies_behind);
  if (next != ranges_.begin() && std::prev(next)->range.end() == range.offset) {
    GuestRange& before = std::prev(next)->range;
    before = GuestRange::between(before.offset, range.end());
    if (next == ranges_.end() || next->range.offset != range.end()) return;
    before = GuestRange::between(before.offset, next->range.end());
    ranges_.erase(next);
    return;
  }
  if (next != ranges_.end() && next->range.offset == range.end()) {
    *next = {GuestRange::between(range.offset, next->range.end()), error};
    return;
  }
  if (ranges_.size() < kShownMax) ranges_.insert(next, {range, error});
}

void UnreadableRanges::add_all(const UnreadableRanges& other) {
  uint64_t unlisted = other.bytes_;
  for (const UnreadableRange& one : other.ranges_) {
    add(one.range, one.error);
    unlisted -= one.range.length.value();
  }
  bytes_ += unlisted;
}

}  // namespace ringdisk
