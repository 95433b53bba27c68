// SPDX-License-Identifier: Apache-2.0
// Slabs of 2 MiB cut into buffers of one size. Slabs are never given back before the pool ends;
// what a shard once needed it needs again.
#include "runtime/buffer.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <functional>
#include <new>

#include "base/check.h"
#include "runtime/loop.h"

namespace ringdisk {
namespace {

// Where the system bounds what a process may have, this much is left to all that is small, and
// whose want of memory is the process's end.
constexpr size_t kReserve = size_t{32} << 20;

bool has_reserve() {
  void* reserve =
      mmap(nullptr, kReserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserve == MAP_FAILED) return false;
  munmap(reserve, kReserve);
  return true;
}

// Or null.
std::byte* allocate(size_t bytes, bool keeps_reserve) {
  if (keeps_reserve && !has_reserve()) return nullptr;
  constexpr auto kAlignment = std::align_val_t(kBufferAlignment);
  return static_cast<std::byte*>(::operator new(bytes, kAlignment, std::nothrow));
}

}  // namespace

void Buffer::release() {
  if (!pool_) return;
  std::exchange(pool_, nullptr)->give_back(memory_, fixed_slot_);
  memory_ = MutableBytes();
  fixed_slot_ = -1;
}

BufferPool::~BufferPool() {
  CHECK_EQ(taken_, uint64_t{0});
  for (const Slab& slab : slabs_) {
    ::operator delete(slab.memory, std::align_val_t(kBufferAlignment));
  }
}

size_t BufferPool::class_of(size_t bytes) {
  size_t rounded = std::bit_ceil(bytes < kSmallest ? kSmallest : bytes);
  return static_cast<size_t>(std::countr_zero(rounded) - std::countr_zero(kSmallest));
}

// A slab more of free buffers of one size. False: there is no memory.
bool BufferPool::carve(size_t size_class, bool keeps_reserve) {
  std::byte* memory = allocate(kLargest, keeps_reserve);
  if (!memory) return false;
  ++system_allocations_;
  int slot = -1;
  if (loop_ && slabs_.size() < kSlabsRegisteredMax) {
    slot = loop_->register_buffers(MutableBytes(memory, kLargest));
  }
  slabs_.push_back({memory, slot});
  size_t size = kSmallest << size_class;
  for (size_t at = kLargest; at > 0; at -= size) {
    free_[size_class].push_back({memory + at - size, slot});
  }
  return true;
}

Buffer BufferPool::take(size_t bytes) {
  Result<Buffer> taken = take_where(bytes, false);
  CHECK(taken.ok());
  return std::move(taken).value();
}

Result<Buffer> BufferPool::try_take(size_t bytes) { return take_where(bytes, true); }

Result<Buffer> BufferPool::take_where(size_t bytes, bool keeps_reserve) {
  if (bytes > kLargest) return take_large(bytes, keeps_reserve);
  size_t size_class = class_of(bytes);
  std::vector<Free>& free = free_[size_class];
  if (free.empty() && !carve(size_class, keeps_reserve)) {
    return Error::from_errno(ENOMEM, "take buffer");
  }
  Free taken = free.back();
  free.pop_back();
  ++taken_;
  Buffer buffer;
  buffer.pool_ = this;
  buffer.memory_ = MutableBytes(taken.memory, kSmallest << size_class);
  buffer.fixed_slot_ = taken.fixed_slot;
  return buffer;
}

Result<Buffer> BufferPool::take_large(size_t bytes, bool keeps_reserve) {
  size_t rounded = (bytes + kBufferAlignment - 1) & ~(kBufferAlignment - 1);
  std::byte* memory = allocate(rounded, keeps_reserve);
  if (!memory) return Error::from_errno(ENOMEM, "take buffer");
  ++system_allocations_;
  ++taken_;
  Buffer buffer;
  buffer.pool_ = this;
  buffer.memory_ = MutableBytes(memory, rounded);
  return buffer;
}

// A walk over at most kSlabsRegisteredMax addresses, some 30 ns: little beside a transfer to a
// device.
int BufferPool::fixed_slot_of(Bytes memory) const {
  for (const Slab& slab : slabs_) {
    if (slab.fixed_slot < 0) continue;
    const std::less_equal<const std::byte*> not_above;
    if (not_above(slab.memory, memory.data()) &&
        not_above(memory.data() + memory.size(), slab.memory + kLargest)) {
      return slab.fixed_slot;
    }
  }
  return -1;
}

void BufferPool::give_back(MutableBytes memory, int fixed_slot) {
  CHECK_GT(taken_, uint64_t{0});
  --taken_;
  if (memory.size() > kLargest) {
    ::operator delete(memory.data(), std::align_val_t(kBufferAlignment));
    return;
  }
  free_[class_of(memory.size())].push_back({memory.data(), fixed_slot});
}

}  // namespace ringdisk
