// SPDX-License-Identifier: Apache-2.0
// ReferenceCounts: how often each host cluster of an image is pointed to, counted by `check` on all
// shards at once. It holds one window of clusters at a time, because memory is bounded: an image
// that does not fit is gone over once for each window. Within the window memory follows the
// clusters that are pointed to, not the size that a damaged image pretends to have.
//
//   a cell, 16 bits:  | count (12) | flags (4) |         wide, 32 bits:  | count (28) | flags (4) |
//
// A count beyond 4095 (as many snapshots) does not fit a narrow cell: overflowed() says so, and the
// check starts again with wide ones. Cost: an add is one atomic addition; 2^28 clusters (16 TiB at
// 64 KiB) take 512 MiB.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/units.h"

namespace ringdisk::qcow2 {

// The cells of one window, in chunks that appear when one of their cells is first needed.
template <class Word>
class CountCells {
 public:
  using Cell = std::atomic<Word>;
  static constexpr uint64_t kChunkCells = 32768;

  explicit CountCells(uint64_t cells) : chunks_((cells + kChunkCells - 1) / kChunkCells) {}
  CountCells(const CountCells&) = delete;
  CountCells& operator=(const CountCells&) = delete;
  ~CountCells() {
    for (auto& chunk : chunks_) std::unique_ptr<Cell[]>(chunk.load(std::memory_order_relaxed));
  }

  Word load(uint64_t index) const {
    const Cell* chunk = chunks_[index / kChunkCells].load(std::memory_order_acquire);
    return chunk ? chunk[index % kChunkCells].load(std::memory_order_relaxed) : Word{0};
  }
  // `index`, or, where its chunk has never been needed, the beginning of the next one.
  uint64_t skip_absent(uint64_t index) const {
    const bool is_there = chunks_[index / kChunkCells].load(std::memory_order_acquire) != nullptr;
    return is_there ? index : (index / kChunkCells + 1) * kChunkCells;
  }
  Cell& cell(uint64_t index) {
    Cell* chunk = chunks_[index / kChunkCells].load(std::memory_order_acquire);
    if (!chunk) [[unlikely]]
      chunk = add_chunk(chunks_[index / kChunkCells]);
    return chunk[index % kChunkCells];
  }

 private:
  // Several shards may find it absent at once; one of theirs stays.
  static Cell* add_chunk(std::atomic<Cell*>& place) {
    auto made = std::make_unique<Cell[]>(kChunkCells);
    Cell* there = nullptr;
    if (place.compare_exchange_strong(there, made.get(), std::memory_order_acq_rel)) {
      return made.release();
    }
    return there;
  }

  std::vector<std::atomic<Cell*>> chunks_;  // each owned
};

class ReferenceCounts {
 public:
  // What stands beside a cluster's count.
  static constexpr uint32_t kIsOne = 1;           // its refcount is one
  static constexpr uint32_t kFixedTable = 2;      // header, L1, snapshot and bitmap tables
  static constexpr uint32_t kL2Table = 4;         //
  static constexpr uint32_t kRefcountTables = 8;  // refcount table and blocks
  static constexpr uint32_t kMetadata = kFixedTable | kL2Table | kRefcountTables;

  // From now on clusters [first, first + clusters) are counted, from zero. No other shard uses it.
  void open_window(ClusterIndex first, uint64_t clusters, bool is_wide) {
    close_window();
    first_ = first.value();
    clusters_ = clusters;
    overflowed_.store(false, std::memory_order_relaxed);
    next_outside_.store(kNone, std::memory_order_relaxed);
    if (is_wide) {
      wide_ = std::make_unique<CountCells<uint32_t>>(clusters);
    } else {
      narrow_ = std::make_unique<CountCells<uint16_t>>(clusters);
    }
  }
  // Gives the memory back.
  void close_window() {
    narrow_.reset();
    wide_.reset();
    clusters_ = 0;
  }
  ClusterIndex first() const { return ClusterIndex(first_); }
  ClusterIndex end() const { return ClusterIndex(first_ + clusters_); }
  bool covers(ClusterIndex cluster) const { return cluster.value() - first_ < clusters_; }

  // Any shard: counts a reference and gives the flags beside it; outside of the window it is only
  // remembered that there is one, and the flags are 0.
  uint32_t add(ClusterIndex cluster) {
    if (!covers(cluster)) {
      if (cluster.value() >= first_ + clusters_) note_outside(cluster.value());
      return 0;
    }
    const uint64_t index = cluster.value() - first_;
    return narrow_ ? add_to(narrow_->cell(index)) : add_to(wide_->cell(index));
  }
  // Any shard. Flags are set for clusters within the window alone. Gives those of before.
  uint32_t mark(ClusterIndex cluster, uint32_t flags) {
    if (!covers(cluster)) return 0;
    const uint64_t index = cluster.value() - first_;
    const uint32_t before =
        narrow_ ? narrow_->cell(index).fetch_or(static_cast<uint16_t>(flags)) & kFlags
                : wide_->cell(index).fetch_or(flags) & kFlags;
    return before;
  }
  void unmark(ClusterIndex cluster, uint32_t flags) {
    if ((load(cluster) & flags) == 0) return;
    const uint64_t index = cluster.value() - first_;
    if (narrow_) {
      narrow_->cell(index).fetch_and(static_cast<uint16_t>(~flags));
    } else {
      wide_->cell(index).fetch_and(~flags);
    }
  }
  uint64_t count(ClusterIndex cluster) const { return load(cluster) >> kFlagBits; }
  uint32_t flags(ClusterIndex cluster) const { return load(cluster) & kFlags; }

  // From there on there may be counts; from `cluster` up to there are none.
  ClusterIndex skip_uncounted(ClusterIndex cluster) const {
    if (!covers(cluster)) return cluster;
    const uint64_t index = cluster.value() - first_;
    return ClusterIndex(first_ +
                        (narrow_ ? narrow_->skip_absent(index) : wide_->skip_absent(index)));
  }

  // A count did not fit; counts are wrong.
  bool overflowed() const { return overflowed_.load(std::memory_order_relaxed); }
  // The lowest cluster behind the window that was referred to.
  std::optional<ClusterIndex> next_outside() const {
    const uint64_t next = next_outside_.load(std::memory_order_relaxed);
    if (next == kNone) return std::nullopt;
    return ClusterIndex(next);
  }

 private:
  static constexpr uint32_t kFlagBits = 4;
  static constexpr uint32_t kFlags = (1 << kFlagBits) - 1;
  static constexpr uint64_t kNone = ~uint64_t{0};

  uint32_t load(ClusterIndex cluster) const {
    if (!covers(cluster)) return 0;
    const uint64_t index = cluster.value() - first_;
    return narrow_ ? narrow_->load(index) : wide_->load(index);
  }
  template <class Word>
  uint32_t add_to(std::atomic<Word>& cell) {
    constexpr Word kOne = 1 << kFlagBits;
    constexpr Word kCountBits = static_cast<Word>(~Word{kFlags});
    const Word before = cell.fetch_add(kOne, std::memory_order_relaxed);
    if ((before & kCountBits) == kCountBits) overflowed_.store(true, std::memory_order_relaxed);
    return before & kFlags;
  }
  void note_outside(uint64_t cluster) {
    uint64_t lowest = next_outside_.load(std::memory_order_relaxed);
    while (cluster < lowest && !next_outside_.compare_exchange_weak(lowest, cluster)) continue;
  }

  // constant while shards count
  uint64_t first_ = 0;
  uint64_t clusters_ = 0;
  std::unique_ptr<CountCells<uint16_t>> narrow_;  // one of the two
  std::unique_ptr<CountCells<uint32_t>> wide_;

  // any shard
  std::atomic<bool> overflowed_{false};
  std::atomic<uint64_t> next_outside_{kNone};
};

}  // namespace ringdisk::qcow2
