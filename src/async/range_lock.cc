// SPDX-License-Identifier: Apache-2.0
// Grants in order of arrival: an entry is granted when no earlier entry overlaps it.
#include "async/range_lock.h"

#include <utility>

namespace ringdisk {

RangeGuard::RangeGuard(RangeLock& lock, uint64_t begin, uint64_t end)
    : lock_(lock), entry_(begin, end) {
  Executor::current().note_lock();
  lock_.entries_.push_back(entry_);
}

RangeGuard::~RangeGuard() {
  CHECK(entry_.waiter_ == nullptr);
  entry_.unlink();
  lock_.wake_granted();
}

bool RangeGuard::Wait::await_ready() const { return guard_.lock_.is_first(guard_.entry_); }

bool RangeLock::is_first(const RangeEntry& entry) {
  bool first = true;
  entries_.for_each([&](const RangeEntry& earlier) {
    if (&earlier == &entry) return false;
    first = !earlier.overlaps(entry);
    return first;
  });
  return first;
}

void RangeLock::wake_granted() {
  entries_.for_each([&](RangeEntry& entry) {
    if (entry.waiter_ && is_first(entry)) std::exchange(entry.waiter_, nullptr)->wake();
    return true;
  });
}

}  // namespace ringdisk
