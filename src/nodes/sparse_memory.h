// SPDX-License-Identifier: Apache-2.0
// SparseMemory: bytes by offset, of which only the chunks that were written take memory. What `mem`
// keeps its content in; an 8 TiB one that nobody wrote to is a table of 4096 empty slots.
//
//   offset  [ 12 bits ][ 12 bits ][ 12 bits ][ 16 bits ]
//            root       middle     leaf       byte in the chunk of 64 KiB         (4 PiB in all)
//
// Any thread may call anything at any time. Tables are only ever added (one compare-and-swap) and
// live as long as the whole. A chunk's slot holds its address and, in the lowest bit, whether
// somebody is using the chunk just now: every access takes that bit for the length of one memcpy
// (at most 64 KiB, some 5 us), so disjoint ranges written at once are safe even within a chunk, a
// chunk can be freed by whoever zeroes all of it, and overlapping accesses are atomic chunk by
// chunk.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/units.h"
#include "block/storage.h"

namespace ringdisk {

class SparseMemory {
 public:
  static constexpr unsigned kChunkBits = 16;
  static constexpr unsigned kTableBits = 12;
  static constexpr uint64_t kChunkBytes = uint64_t{1} << kChunkBits;
  static constexpr uint64_t kBytesMax = uint64_t{1} << (kChunkBits + 3 * kTableBits);

  SparseMemory() = default;
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;
  ~SparseMemory();

  // Everything lies below kBytesMax.
  void read(HostOffset offset, MutableBytes target) const;
  void write(HostOffset offset, Bytes source);
  // Reads as zeros afterwards; chunks that lie wholly in the range are given back.
  void zero(HostRange range);
  // Whether the bytes from range.offset on were never written (or zeroed by whole chunks), and how
  // far that holds. Looks at no more than kChunksLookedAt chunks that take memory, so the answer
  // may be shorter than the truth.
  StorageExtent find_extent(HostRange range) const;
  uint64_t allocated_bytes() const { return chunks_.load(std::memory_order_relaxed) * kChunkBytes; }

 private:
  static constexpr uint64_t kTableSlots = uint64_t{1} << kTableBits;
  static constexpr uint32_t kChunksLookedAt = 1024;

  using Chunk = std::array<std::byte, kChunkBytes>;
  // 0, or the address of a Chunk; the lowest bit set: in use.
  using Slot = std::atomic<uintptr_t>;
  struct Leaf {
    mutable std::array<Slot, kTableSlots> slots{};  // readers take the bit, too
  };
  struct Middle {
    ~Middle();
    std::array<std::atomic<Leaf*>, kTableSlots> leaves{};
  };
  class Held;

  Slot* find_slot(uint64_t chunk, uint64_t& absent_until) const;
  Slot& ensure_slot(uint64_t chunk);
  void zero_in_chunk(uint64_t chunk, uint64_t begin, uint64_t length);

  // any thread (atomic)
  std::array<std::atomic<Middle*>, kTableSlots> root_{};
  std::atomic<uint64_t> chunks_{0};
};

}  // namespace ringdisk
