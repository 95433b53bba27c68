// SPDX-License-Identifier: Apache-2.0
// RefcountBlocks: the refcount table and a cache of refcount blocks, as they will be on the disk. A
// number here only goes up before something points at its cluster, and only goes down when the
// removal of the pointer is durable; so writing any of this at any time is safe. Home shard only,
// writable images only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "async/range_lock.h"
#include "qcow2/image.h"
#include "qcow2/layout/refcount_block.h"

namespace ringdisk::qcow2 {

// Bytes to be written at a place, taken at one moment.
struct MetadataWrite {
  HostOffset at;
  std::vector<std::byte> bytes;
};

class RefcountBlocks {
 public:
  RefcountBlocks(Image& image, StorageAccess& storage);

  // Reads the table.
  Task<void> open();

  uint64_t table_entries() const { return table_.size(); }
  HostOffset table_place() const { return table_place_; }
  bool has_block(uint64_t block) const { return block < table_.size() && table_[block] != 0; }
  // Where the block lies; kCorrupt if its table entry is none.
  Result<HostOffset> block_place(uint64_t block) const;

  // Brings a block that the table has into memory. Afterwards get and set take its clusters until
  // the caller suspends.
  Task<void> load(uint64_t block);
  uint64_t dirty_count() const { return dirty_.size(); }
  bool is_loaded(uint64_t block) const { return blocks_.contains(block); }
  uint64_t get(ClusterIndex cluster) const;
  // All counters of a block in memory, as refcount_block.h reads them.
  Bytes counters_of(uint64_t block) const;
  void set(ClusterIndex cluster, uint64_t refcount);

  // The counters of the block that counts `cluster`, for loops over many of them: until the caller
  // suspends.
  class Counters;
  Counters counters(ClusterIndex cluster);

  // A new, empty block for `block`, which the table does not have yet but has room for.
  void add_block(uint64_t block, HostOffset at);
  // The table moves to `at` and has `entries` from now on, not fewer than before.
  void move_table(HostOffset at, uint64_t entries);
  // A block in memory lies at `at` from now on; its old place is the caller's to free.
  void move_block(uint64_t block, HostOffset at);
  // The table has no such block any more; what it counted is in no use.
  void drop_block(uint64_t block);

  // --- for write-back
  struct Dirty {
    std::vector<uint64_t> blocks;             // held until write_back_done
    std::vector<MetadataWrite> block_writes;  // before the table's
    std::vector<MetadataWrite> table_writes;  // before the header's
    bool table_moved = false;
  };
  bool is_dirty() const { return !dirty_.empty() || !dirty_table_.empty() || table_moved_; }
  // Everything that differs from the disk; it counts as written from now on.
  Dirty take_dirty();
  void write_back_done(const Dirty& dirty);

 private:
  struct Block {
    std::vector<std::byte> bytes;
    uint64_t dirty_begin = ~uint64_t{0};  // bytes
    uint64_t dirty_end = 0;
    uint32_t holds = 0;
    bool was_used = true;
    bool is_dirty() const { return dirty_end != 0; }
  };
  static constexpr uint64_t kMemoryMax = 64 * limits::kMiB;
  static constexpr uint64_t kSectorBytes = 512;

  Block& loaded(ClusterIndex cluster);
  void touch(uint64_t block, Block& state, uint64_t begin, uint64_t end) {
    if (!state.is_dirty()) dirty_.insert(block);
    state.dirty_begin = std::min(state.dirty_begin, begin / kSectorBytes * kSectorBytes);
    state.dirty_end =
        std::max(state.dirty_end, (end + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
  }
  void make_room();
  MetadataWrite take_block(uint64_t block);
  void take_table(Dirty& dirty);

  Image& image_;
  StorageAccess& storage_;
  RangeLock loading_;            // block indexes
  std::vector<uint64_t> table_;  // raw entries
  HostOffset table_place_;
  std::unordered_map<uint64_t, Block> blocks_;
  std::vector<uint64_t> order_;  // clock over blocks_
  size_t hand_ = 0;
  std::set<uint64_t> dirty_;        // block indexes
  std::set<uint64_t> dirty_table_;  // entries of the table
  bool table_moved_ = false;
};

class RefcountBlocks::Counters {
 public:
  uint64_t get(ClusterIndex cluster) const {
    return load_refcount(state_.bytes, geometry_.refcount_order(),
                         geometry_.index_in_refcount_block(cluster));
  }
  void set(ClusterIndex cluster, uint64_t refcount) {
    const uint64_t index = geometry_.index_in_refcount_block(cluster);
    store_refcount(state_.bytes, geometry_.refcount_order(), index, refcount);
    const uint64_t byte = (index << geometry_.refcount_order()) / 8;
    blocks_.touch(geometry_.refcount_block_of(cluster), state_, byte, byte + 1);
  }

 private:
  friend class RefcountBlocks;
  Counters(RefcountBlocks& blocks, Block& state)
      : blocks_(blocks), state_(state), geometry_(blocks.image_.geometry) {}

  RefcountBlocks& blocks_;
  Block& state_;
  const Geometry& geometry_;
};

inline RefcountBlocks::Counters RefcountBlocks::counters(ClusterIndex cluster) {
  return Counters(*this, loaded(cluster));
}

inline void RefcountBlocks::set(ClusterIndex cluster, uint64_t refcount) {
  counters(cluster).set(cluster, refcount);
}

}  // namespace ringdisk::qcow2
