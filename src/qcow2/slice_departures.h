// SPDX-License-Identifier: Apache-2.0
// SliceDepartures: whether the disk may have changed under a shard while it read slices there.
//
// A slice that is changed stays in memory until it is written. So what a shard reads of a slice
// that is not in memory is what the disk holds, unless the slice came into memory during the read,
// was changed, written and evicted again. Of those that left changed the home shard keeps the
// latest:
//
//   reader   since = now()   l1, read from the disk ──────────> home: may_miss(number, since)?
//   home                 load, change, write, note(number)
//
// `now` is read before the read begins, and a slice is noted after its write is done: a reader that
// does not see the departure in `now` is told of it afterwards, one that does reads what was
// written.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

namespace ringdisk::qcow2 {

class SliceDepartures {
 public:
  // Any shard.
  uint64_t now() const { return count_.load(std::memory_order_seq_cst); }

  // --- home shard
  // The slice leaves memory, and was changed while it was there.
  void note(uint64_t number) {
    const uint64_t count = count_.load(std::memory_order_relaxed);
    latest_[count % kKept] = number;
    count_.store(count + 1, std::memory_order_seq_cst);
  }
  // Any slice may have been written while it was not in memory.
  void note_all() { count_.fetch_add(kKept + 1, std::memory_order_seq_cst); }
  // Whether a read of the slice that began at `since` may have found less than was written.
  bool may_miss(uint64_t number, uint64_t since) const {
    const uint64_t count = count_.load(std::memory_order_relaxed);
    if (count - since > kKept) return true;
    for (uint64_t at = since; at != count; ++at) {
      if (latest_[at % kKept] == number) return true;
    }
    return false;
  }

 private:
  static constexpr uint64_t kKept = 512;

  std::atomic<uint64_t> count_{0};
  std::array<uint64_t, kKept> latest_{};  // home shard only
};

}  // namespace ringdisk::qcow2
