// SPDX-License-Identifier: Apache-2.0
// Grants in order of arrival: a guard is granted when no earlier guard overlaps it.
#include "block/block_lock.h"

#include "runtime/shard.h"

namespace ringdisk {

BlockGuard::BlockGuard(BlockLock& lock, HostRange blocks, Shard& shard)
    : lock_(lock), blocks_(blocks), shard_(shard) {
  CHECK(!blocks.empty());
}

bool BlockLock::is_first(const BlockGuard& guard) {
  bool first = true;
  guards_.for_each([&](const BlockGuard& earlier) {
    if (&earlier == &guard) return false;
    first = !earlier.blocks_.overlaps(guard.blocks_);
    return first;
  });
  return first;
}

bool BlockGuard::enqueue() {
  Executor::current().note_lock();
  std::lock_guard lock(lock_.mutex_);
  lock_.guards_.push_back(*this);
  queued_ = true;
  granted_ = lock_.is_first(*this);
  return !granted_;
}

BlockGuard::~BlockGuard() {
  if (!queued_) return;
  std::lock_guard lock(lock_.mutex_);
  CHECK(granted_);
  unlink();
  lock_.guards_.for_each([&](BlockGuard& waiting) {
    if (!waiting.granted_ && lock_.is_first(waiting)) {
      waiting.granted_ = true;
      waiting.shard_.post(waiting);
    }
    return true;
  });
}

}  // namespace ringdisk
