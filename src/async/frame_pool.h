// SPDX-License-Identifier: Apache-2.0
// FramePool: memory for coroutine frames. One a shard (inside its Executor), no locks: a frame is
// freed on the thread that made it. Free frames wait in lists by size, 64 bytes apart up to 4 KiB,
// so that a running shard calls the system's allocator no more. Under AddressSanitizer free frames
// are poisoned. The counters are what the budget tests read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ringdisk {

class FramePool {
 public:
  FramePool() = default;
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;
  ~FramePool();  // CHECKs that no frame is alive

  void* allocate(size_t bytes);
  void free(void* frame, size_t bytes);

  uint64_t allocated_total() const { return allocated_total_; }
  uint64_t system_allocations() const { return system_allocations_; }
  uint64_t live() const { return live_; }
  uint64_t live_max() const { return live_max_; }
  void restart_live_max() { live_max_ = live_; }

 private:
  static constexpr size_t kStep = 64;
  static constexpr size_t kClasses = 64;

  struct FreeFrame {
    FreeFrame* next;
  };

  // this shard only
  FreeFrame* free_[kClasses + 1] = {};
  uint64_t allocated_total_ = 0;
  uint64_t system_allocations_ = 0;
  uint64_t live_ = 0;
  uint64_t live_max_ = 0;
};

}  // namespace ringdisk
