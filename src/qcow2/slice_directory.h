// SPDX-License-Identifier: Apache-2.0
// What all shards see of the L2 tables: slices of up to 4 KiB, published through atomic pointers,
// their entries in host byte order.
//
//   slice number ──> top_[number >> 12] ──> chunk of 4096 pointers ──> Slice { entries[512] }
//                                              or, extended,  Slice { entries[256], bitmaps[256] }
//
// An extended entry is two words. Its bitmap alone changes by one store; every other change goes
// with the slice's sequence number, odd meanwhile, so that a lookup never takes words of two
// entries for one. A lookup that meets a change under way does not wait: it asks the home shard,
// whose turn comes after the change (docs/decisions/0012-extended-l2-entries.md).
//
// Written by the home shard alone; read by every shard within a lookup (qcow2/pins.h), which keeps
// slices alive that are being taken out. Chunks appear when first needed and stay until the end.
// Memory: a pointer per 4096 slices of the disk at once (8 TiB of 64 KiB clusters: 64 pointers), 32
// KiB a chunk in use.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/intrusive.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

class Slice : public ListLink {
 public:
  Slice(uint64_t slice_number, uint64_t entry_count, bool is_extended)
      : number(slice_number), entries(std::make_unique<std::atomic<uint64_t>[]>(entry_count)) {
    if (is_extended) bitmaps = std::make_unique<std::atomic<uint64_t>[]>(entry_count);
  }

  uint64_t number;  // constant while it is published

  // any shard, within a lookup
  // On the home shard it is always the entry; elsewhere an extended one may be unsettled().
  L2Entry load(uint64_t index) const {
    return bitmaps ? load_extended(index) : load_standard(index);
  }
  // Of an image without subclusters.
  L2Entry load_standard(uint64_t index) const {
    return L2Entry(entries[index].load(std::memory_order_seq_cst), 0);
  }
  // A lookup found it. Written only when it changes, so that hot slices stay shared in all caches.
  void note_use() {
    if (!used.load(std::memory_order_relaxed)) used.store(true, std::memory_order_relaxed);
  }

  // Its memory serves another slice, after nobody can be reading it; every entry is filled anew.
  void begin_anew(uint64_t slice_number) {
    CHECK(holds == 0 && !is_linked());
    number = slice_number;
    dirty = was_changed = false;
    used.store(false, std::memory_order_relaxed);
  }

  // home shard only
  void store(uint64_t index, L2Entry entry) {
    if (bitmaps) {
      store_extended(index, entry);
    } else {
      entries[index].store(entry.raw(), std::memory_order_seq_cst);
    }
  }
  // Before it is published.
  void fill(uint64_t index, L2Entry entry) {
    entries[index].store(entry.raw(), std::memory_order_relaxed);
    if (bitmaps) bitmaps[index].store(entry.bitmap(), std::memory_order_relaxed);
  }
  // What differs from the disk and is not on its way there yet.
  bool dirty = false;
  // It was dirty at some time (SliceDepartures).
  bool was_changed = false;
  // Somebody relies on its staying in memory: a write-back that is under way, a table being copied.
  uint32_t holds = 0;
  // See SliceEviction.
  bool is_protected = false;

  std::unique_ptr<std::atomic<uint64_t>[]> entries;
  std::unique_ptr<std::atomic<uint64_t>[]> bitmaps;  // null: no extended entries
  std::atomic<bool> used{false};

 private:
  static constexpr int kTriesMax = 4;

  // Both words stood there at one moment: while the number stays even and the same, at most the
  // bitmap changed, by a store of its own.
  L2Entry load_extended(uint64_t index) const {
    for (int tries = 0; tries < kTriesMax; ++tries) {
      const uint64_t before = sequence_.load(std::memory_order_seq_cst);
      const uint64_t raw = entries[index].load(std::memory_order_seq_cst);
      const uint64_t bitmap = bitmaps[index].load(std::memory_order_seq_cst);
      const uint64_t after = sequence_.load(std::memory_order_seq_cst);
      if (before == after && before % 2 == 0) return L2Entry(raw, bitmap);
    }
    return L2Entry::unsettled();
  }
  // Never suspends in between.
  void store_extended(uint64_t index, L2Entry entry) {
    if (entries[index].load(std::memory_order_relaxed) == entry.raw()) {
      bitmaps[index].store(entry.bitmap(), std::memory_order_seq_cst);
      return;
    }
    const uint64_t sequence = sequence_.load(std::memory_order_relaxed);
    sequence_.store(sequence + 1, std::memory_order_seq_cst);
    bitmaps[index].store(entry.bitmap(), std::memory_order_seq_cst);
    entries[index].store(entry.raw(), std::memory_order_seq_cst);
    sequence_.store(sequence + 2, std::memory_order_seq_cst);
  }

  std::atomic<uint64_t> sequence_{0};  // any shard
};

class SliceDirectory {
 public:
  explicit SliceDirectory(uint64_t slice_count)
      : top_(static_cast<size_t>((slice_count + kChunkSlices - 1) / kChunkSlices)) {}

  // Any shard. Null: not in memory.
  Slice* find(uint64_t number) const {
    const Chunk* chunk = top_[number / kChunkSlices].load(std::memory_order_seq_cst);
    if (!chunk) return nullptr;
    return (*chunk)[number % kChunkSlices].load(std::memory_order_seq_cst);
  }

  // Home shard.
  void publish(Slice& slice) { pointer_to(slice.number).store(&slice, std::memory_order_seq_cst); }
  void remove(const Slice& slice) {
    pointer_to(slice.number).store(nullptr, std::memory_order_seq_cst);
  }

 private:
  static constexpr uint64_t kChunkSlices = 4096;
  using Chunk = std::array<std::atomic<Slice*>, kChunkSlices>;

  std::atomic<Slice*>& pointer_to(uint64_t number) {
    std::atomic<Chunk*>& entry = top_[number / kChunkSlices];
    Chunk* chunk = entry.load(std::memory_order_relaxed);
    if (!chunk) {
      chunks_.push_back(std::make_unique<Chunk>());
      chunk = chunks_.back().get();
      entry.store(chunk, std::memory_order_seq_cst);
    }
    return (*chunk)[number % kChunkSlices];
  }

  std::vector<std::atomic<Chunk*>> top_;        // any shard
  std::vector<std::unique_ptr<Chunk>> chunks_;  // home shard only
};

}  // namespace ringdisk::qcow2
