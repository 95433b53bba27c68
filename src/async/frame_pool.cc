// SPDX-License-Identifier: Apache-2.0
// Sizes are rounded up to a multiple of kStep: class 1 is 64 bytes, class 2 is 128, ... class 64 is
// 4096. Larger frames go straight to the system's allocator.
#include "async/frame_pool.h"

#include <new>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define RINGDISK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RINGDISK_ASAN 1
#endif
#endif
#ifdef RINGDISK_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace ringdisk {

FramePool::~FramePool() {
  CHECK_EQ(live_, uint64_t{0});
  for (size_t size_class = 1; size_class <= kClasses; ++size_class) {
    while (FreeFrame* frame = free_[size_class]) {
      ASAN_UNPOISON_MEMORY_REGION(frame, size_class * kStep);
      free_[size_class] = frame->next;
      ::operator delete(frame);
    }
  }
}

void* FramePool::allocate(size_t bytes) {
  ++allocated_total_;
  if (++live_ > live_max_) live_max_ = live_;
  size_t size_class = (bytes + kStep - 1) / kStep;
  if (size_class <= kClasses) [[likely]] {
    if (FreeFrame* frame = free_[size_class]) [[likely]] {
      ASAN_UNPOISON_MEMORY_REGION(frame, size_class * kStep);
      free_[size_class] = frame->next;
      return frame;
    }
    bytes = size_class * kStep;
  }
  ++system_allocations_;
  return ::operator new(bytes);
}

void FramePool::free(void* memory, size_t bytes) {
  CHECK_GT(live_, uint64_t{0});
  --live_;
  size_t size_class = (bytes + kStep - 1) / kStep;
  if (size_class > kClasses) {
    ::operator delete(memory);
    return;
  }
  auto* frame = static_cast<FreeFrame*>(memory);
  frame->next = free_[size_class];
  free_[size_class] = frame;
  ASAN_POISON_MEMORY_REGION(frame, size_class * kStep);
}

}  // namespace ringdisk
