// SPDX-License-Identifier: Apache-2.0
// DirtyBits: a bitmap of changed ranges of a disk in memory, one bit for each granule. Shards set
// bits beside each other; who keeps the bitmap loads and stores it while nobody does.
//
//   bit n, of word n / 64, stands for bytes [n << granularity_bits, (n + 1) << granularity_bits)
//
// Cost of mark(): a load for each word, and an atomic "or" only where a bit is not set yet, so that
// writes to what is dirty already share their cache lines. 1 TiB at 64 KiB: 2 MiB of memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/units.h"

namespace ringdisk {

// What a disk's format says of one of its persistent bitmaps.
struct BitmapDescription {
  std::string name;
  uint64_t granularity = 0;
  bool is_enabled = false;  // changes of the disk are being recorded
  bool is_usable = true;    // not inconsistent after a crash, nor of an unknown kind
};

class DirtyBits {
 public:
  // All clean. `granularity_bits` at most 62.
  DirtyBits(ByteCount size, uint32_t granularity_bits);

  // any shard; constant but for resize()
  ByteCount size() const { return size_; }
  uint32_t granularity_bits() const { return granularity_bits_; }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits_; }

  // --- any shard

  // The granules that `range` touches; what lies beyond the disk's end is left out.
  void mark(GuestRange range);

  struct Stretch {
    ByteCount length;  // at least 1
    bool is_dirty = false;
  };
  // The first stretch of `range`, which lies within the disk and is not empty.
  Stretch find_stretch(GuestRange range) const;

  // --- while nobody marks

  // Whether a bit was set since this was last asked for (or since the beginning).
  bool take_changed() { return changed_.exchange(false, std::memory_order_relaxed); }
  void clear();
  // What a larger disk gains is clean.
  void resize(ByteCount size);
  // What is dirty in `other`, of a disk of the same size, becomes dirty here.
  void merge(const DirtyBits& other);

  // The bits as bytes, bit n in byte n / 8. `first` and the span's length are multiples of 8; what
  // lies beyond the last bit is ignored, and stored as zeros.
  void load(uint64_t first, Bytes bytes);
  void store(uint64_t first, MutableBytes bytes) const;
  // Whether the bytes [first, first + length) hold the same in all bits that there are.
  enum class Uniform : uint8_t { kNo, kClean, kDirty };
  Uniform uniform(uint64_t first, uint64_t length) const;

 private:
  using Word = std::atomic<uint64_t>;
  static constexpr uint64_t kWordBits = 64;

  uint64_t bits() const { return count_bits(size_); }
  uint64_t count_bits(ByteCount size) const {
    return (size.value() >> granularity_bits_) +
           ((size.value() & (granularity() - 1)) != 0 ? 1 : 0);
  }
  uint64_t words() const { return (bits() + kWordBits - 1) / kWordBits; }
  // The bits of the last word that there are.
  uint64_t valid_bits(uint64_t word) const;
  uint64_t next_unlike(uint64_t first, uint64_t end, bool is_dirty) const;

  ByteCount size_;
  uint32_t granularity_bits_;
  std::unique_ptr<Word[]> words_;  // any shard
  std::atomic<bool> changed_{false};
};

inline void DirtyBits::mark(GuestRange range) {
  const uint64_t end = std::min(range.end().value(), size_.value());
  if (range.offset.value() >= end) return;
  const uint64_t first = range.offset.value() >> granularity_bits_;
  const uint64_t last = (end - 1) >> granularity_bits_;
  for (uint64_t word = first / kWordBits; word <= last / kWordBits; ++word) {
    uint64_t mask = ~uint64_t{0};
    if (word == first / kWordBits) mask &= ~uint64_t{0} << (first % kWordBits);
    if (word == last / kWordBits) mask &= ~uint64_t{0} >> (kWordBits - 1 - last % kWordBits);
    if ((words_[word].load(std::memory_order_relaxed) & mask) == mask) continue;
    words_[word].fetch_or(mask, std::memory_order_relaxed);
    if (!changed_.load(std::memory_order_relaxed)) changed_.store(true, std::memory_order_relaxed);
  }
}

}  // namespace ringdisk
