// SPDX-License-Identifier: Apache-2.0
// BufferPool: I/O memory of one shard, in sizes from 4 KiB to 2 MiB by powers of two, aligned to
// 4096 bytes (what O_DIRECT and every device here accepts). Free buffers are used again last in,
// first out, so that hot memory stays hot: first touches of memory are slow. Memory comes in slabs
// that the loop may register with the kernel (fixed buffers).
//
//   Buffer buffer = shard.buffers().take(bytes);     // bytes() may be larger; contents are
//   whatever was there
//
// A Buffer goes back by itself, on its own shard. Larger ones than 2 MiB come from the system and
// go back to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace ringdisk {

class BufferPool;
class Loop;

inline constexpr size_t kBufferAlignment = 4096;

class [[nodiscard]] Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      release();
      pool_ = std::exchange(other.pool_, nullptr);
      memory_ = std::exchange(other.memory_, MutableBytes());
      fixed_slot_ = std::exchange(other.fixed_slot_, -1);
    }
    return *this;
  }
  ~Buffer() { release(); }

  // The whole buffer, at least as large as was asked for.
  MutableBytes bytes() const { return memory_; }
  MutableBytes first(size_t count) const { return memory_.first(count); }
  bool empty() const { return memory_.empty(); }
  // The loop's slot for the slab that holds it, or -1.
  int fixed_slot() const { return fixed_slot_; }
  void release();

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  MutableBytes memory_;
  int fixed_slot_ = -1;
};

class BufferPool {
 public:
  // `loop`, if given, outlives the pool and is asked to register slabs.
  explicit BufferPool(Loop* loop) : loop_(loop) {}
  ~BufferPool();  // CHECKs that every buffer has come back
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // For bounded pieces of one's own work. Where the system has no memory, that is the end.
  Buffer take(size_t bytes);
  // For what somebody outside asks for. Errors: kLimit (ENOMEM): the system has no memory, or would
  // have too little left for the rest of the process.
  Result<Buffer> try_take(size_t bytes);

  // The loop's slot for the slab that `memory` lies in, or -1. For memory that came here as a plain
  // span.
  int fixed_slot_of(Bytes memory) const;

  uint64_t taken() const { return taken_; }
  uint64_t system_allocations() const { return system_allocations_; }

 private:
  friend class Buffer;
  static constexpr size_t kSmallest = 4096;
  static constexpr size_t kLargest = size_t{2} << 20;
  static constexpr size_t kClasses = 10;  // 4 KiB << 0 … 4 KiB << 9
  static_assert((kSmallest << (kClasses - 1)) == kLargest);
  static constexpr size_t kSlabsRegisteredMax = 64;  // 128 MiB pinned at the most

  struct Free {
    std::byte* memory;
    int fixed_slot;
  };
  struct Slab {
    std::byte* memory;
    int fixed_slot;
  };

  static size_t class_of(size_t bytes);
  void give_back(MutableBytes memory, int fixed_slot);
  Result<Buffer> take_where(size_t bytes, bool keeps_reserve);
  Result<Buffer> take_large(size_t bytes, bool keeps_reserve);
  bool carve(size_t size_class, bool keeps_reserve);

  // this shard only
  Loop* loop_;
  std::vector<Free> free_[kClasses];
  std::vector<Slab> slabs_;
  uint64_t taken_ = 0;
  uint64_t system_allocations_ = 0;
};

}  // namespace ringdisk
