// SPDX-License-Identifier: Apache-2.0
// Health: whether an image may still be changed. Two things end that for good, until it is opened
// again: a failed write or flush of metadata (what the disk holds is then unknown), and damage
// found in the image's tables. Reads go on in both. Any shard; lookups ask it before they let a
// write go in place.
#pragma once

#include <atomic>

#include "base/error.h"
#include "base/result.h"

namespace ringdisk::qcow2 {

class Health {
 public:
  bool is_writable() const { return state_.load(std::memory_order_acquire) == 0; }
  bool is_corrupt() const { return state_.load(std::memory_order_acquire) == kCorrupt; }

  // The error for a write or flush that comes too late.
  Result<void> check(const char* operation) const {
    int state = state_.load(std::memory_order_acquire);
    if (state == 0) return {};
    if (state == kCorrupt) return Error::of(ErrorKind::kCorrupt, operation);
    return Error::from_errno(state, operation);
  }

  // The first cause counts. True: this was it.
  bool mark_broken(const Error& cause) {
    return mark(cause.errno_value > 0 ? cause.errno_value : 5);
  }
  bool mark_corrupt() { return mark(kCorrupt); }

 private:
  static constexpr int kCorrupt = -1;
  bool mark(int state) {
    int healthy = 0;
    return state_.compare_exchange_strong(healthy, state, std::memory_order_acq_rel);
  }

  std::atomic<int> state_{0};  // 0, an errno, or kCorrupt
};

}  // namespace ringdisk::qcow2
