// SPDX-License-Identifier: Apache-2.0
// The three tables, and the bit that keeps a chunk for one user at a time.
#include "nodes/sparse_memory.h"

#include <sched.h>

#include <algorithm>

#include "base/check.h"

namespace ringdisk {
namespace {

constexpr uintptr_t kInUse = 1;
// A holder is done within 5 us unless its thread lost its core: then looking on is in vain.
constexpr uint32_t kLooksBeforeYield = 2000;

// Puts a new T into `slot` unless another thread was quicker; gives what is there afterwards.
template <class T>
T& ensure_table(std::atomic<T*>& slot) {
  T* table = slot.load(std::memory_order_acquire);
  if (table) return *table;
  auto made = std::make_unique<T>();
  if (slot.compare_exchange_strong(table, made.get(), std::memory_order_acq_rel,
                                   std::memory_order_acquire)) {
    return *made.release();
  }
  return *table;
}

}  // namespace

// A chunk's slot, for this thread alone until the end of the block.
class SparseMemory::Held {
 public:
  explicit Held(Slot& slot) : slot_(slot) {
    uint32_t looks = 0;
    address_ = slot.load(std::memory_order_relaxed) & ~kInUse;
    while (!slot.compare_exchange_weak(address_, address_ | kInUse, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      address_ &= ~kInUse;
      if (++looks < kLooksBeforeYield) {
        __builtin_ia32_pause();
      } else {
        sched_yield();
      }
    }
  }
  ~Held() { slot_.store(address_, std::memory_order_release); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  // Null: reads as zeros.
  Chunk* chunk() const {
    // why: the slot keeps the address as a number, because of the bit
    return reinterpret_cast<Chunk*>(address_);
  }
  void put(std::unique_ptr<Chunk> chunk) {
    // why: as above
    address_ = reinterpret_cast<uintptr_t>(chunk.release());
  }
  std::unique_ptr<Chunk> take() {
    std::unique_ptr<Chunk> taken(chunk());
    address_ = 0;
    return taken;
  }

 private:
  Slot& slot_;
  uintptr_t address_;
};

SparseMemory::Middle::~Middle() {
  for (std::atomic<Leaf*>& entry : leaves) {
    std::unique_ptr<Leaf> leaf(entry.load(std::memory_order_relaxed));
    if (!leaf) continue;
    for (Slot& slot : leaf->slots) Held(slot).take();
  }
}

SparseMemory::~SparseMemory() {
  for (std::atomic<Middle*>& entry : root_) {
    std::unique_ptr<Middle> middle(entry.load(std::memory_order_relaxed));
  }
}

// The slot of chunk number `chunk`; null where no table for it exists: then nothing below chunk
// number `absent_until` does.
SparseMemory::Slot* SparseMemory::find_slot(uint64_t chunk, uint64_t& absent_until) const {
  const Middle* middle = root_[chunk >> (2 * kTableBits)].load(std::memory_order_acquire);
  if (!middle) {
    absent_until = ((chunk >> (2 * kTableBits)) + 1) << (2 * kTableBits);
    return nullptr;
  }
  uint64_t leaf_index = chunk >> kTableBits;
  const Leaf* leaf = middle->leaves[leaf_index % kTableSlots].load(std::memory_order_acquire);
  if (!leaf) {
    absent_until = (leaf_index + 1) << kTableBits;
    return nullptr;
  }
  return &leaf->slots[chunk % kTableSlots];
}

SparseMemory::Slot& SparseMemory::ensure_slot(uint64_t chunk) {
  Middle& middle = ensure_table(root_[chunk >> (2 * kTableBits)]);
  Leaf& leaf = ensure_table(middle.leaves[(chunk >> kTableBits) % kTableSlots]);
  return leaf.slots[chunk % kTableSlots];
}

void SparseMemory::read(HostOffset offset, MutableBytes target) const {
  CHECK_LE(offset.value() + target.size(), kBytesMax);
  uint64_t at = offset.value();
  while (!target.empty()) {
    uint64_t absent_until = 0;
    Slot* slot = find_slot(at >> kChunkBits, absent_until);
    uint64_t end = slot ? (at | (kChunkBytes - 1)) + 1 : absent_until << kChunkBits;
    MutableBytes here = target.first(std::min<uint64_t>(target.size(), end - at));
    if (slot) {
      Held held(*slot);
      if (held.chunk()) {
        copy_bytes(Bytes(*held.chunk()).subspan(at % kChunkBytes, here.size()), here);
      } else {
        fill_zero(here);
      }
    } else {
      fill_zero(here);
    }
    at += here.size();
    target = target.subspan(here.size());
  }
}

void SparseMemory::write(HostOffset offset, Bytes source) {
  CHECK_LE(offset.value() + source.size(), kBytesMax);
  uint64_t at = offset.value();
  while (!source.empty()) {
    uint64_t in_chunk = at % kChunkBytes;
    Bytes here = source.first(std::min<uint64_t>(source.size(), kChunkBytes - in_chunk));
    Held held(ensure_slot(at >> kChunkBits));
    if (!held.chunk()) {
      bool covers = here.size() == kChunkBytes;
      held.put(covers ? std::make_unique_for_overwrite<Chunk>() : std::make_unique<Chunk>());
      chunks_.fetch_add(1, std::memory_order_relaxed);
    }
    copy_bytes(here, MutableBytes(*held.chunk()).subspan(in_chunk, here.size()));
    at += here.size();
    source = source.subspan(here.size());
  }
}

void SparseMemory::zero_in_chunk(uint64_t chunk, uint64_t begin, uint64_t length) {
  uint64_t absent_until = 0;
  Slot* slot = find_slot(chunk, absent_until);
  if (!slot) return;
  Held held(*slot);
  if (!held.chunk()) return;
  if (length == kChunkBytes) {
    held.take();
    chunks_.fetch_sub(1, std::memory_order_relaxed);
  } else {
    fill_zero(MutableBytes(*held.chunk()).subspan(begin, length));
  }
}

void SparseMemory::zero(HostRange range) {
  CHECK_LE(range.end().value(), kBytesMax);
  uint64_t at = range.offset.value(), end = range.end().value();
  while (at < end) {
    uint64_t chunk = at >> kChunkBits, absent_until = 0;
    if (!find_slot(chunk, absent_until)) {
      at = absent_until << kChunkBits;
      continue;
    }
    uint64_t stop = std::min(end, (chunk + 1) << kChunkBits);
    zero_in_chunk(chunk, at % kChunkBytes, stop - at);
    at = stop;
  }
}

StorageExtent SparseMemory::find_extent(HostRange range) const {
  CHECK(!range.empty());
  CHECK_LE(range.end().value(), kBytesMax);
  uint64_t at = range.offset.value(), end = range.end().value();
  StorageExtent extent;
  for (uint32_t looks = 0; at < end && looks < kChunksLookedAt; ++looks) {
    uint64_t absent_until = 0;
    Slot* slot = find_slot(at >> kChunkBits, absent_until);
    bool zero = !slot || (slot->load(std::memory_order_acquire) & ~kInUse) == 0;
    if (at == range.offset.value()) extent.zero = zero;
    if (zero != extent.zero) break;
    at = slot ? ((at >> kChunkBits) + 1) << kChunkBits : absent_until << kChunkBits;
  }
  extent.length = ByteCount(std::min(at, end) - range.offset.value());
  return extent;
}

}  // namespace ringdisk
