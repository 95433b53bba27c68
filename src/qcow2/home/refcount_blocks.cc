// SPDX-License-Identifier: Apache-2.0
// Loading blocks, reading and changing their numbers, and taking what is dirty.
#include "qcow2/home/refcount_blocks.h"

#include <algorithm>

#include "qcow2/damage.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {

RefcountBlocks::RefcountBlocks(Image& image, StorageAccess& storage)
    : image_(image), storage_(storage), table_place_(image.header.refcount_table) {}

Task<void> RefcountBlocks::open() {
  const Geometry& geometry = image_.geometry;
  const uint64_t clusters = image_.header.refcount_table_clusters;
  std::vector<std::byte> bytes(clusters << geometry.cluster_bits());
  co_await storage_.read(table_place_, MutableBytes(bytes));
  table_.resize(geometry.refcount_table_entries(clusters));
  for (size_t i = 0; i < table_.size(); ++i) table_[i] = load_be64(&bytes[i * kEntryBytes]);
}

Result<HostOffset> RefcountBlocks::block_place(uint64_t block) const {
  CHECK(has_block(block));
  HostOffset at(table_[block]);
  if (at.is_aligned(image_.geometry.cluster_size()) && at.value() < kHostEnd) return at;
  return damaged_refcount_table(image_, block);
}

Task<void> RefcountBlocks::load(uint64_t block) {
  if (auto found = blocks_.find(block); found != blocks_.end()) {
    found->second.was_used = true;
    co_return;
  }
  RangeGuard guard(loading_, block, block + 1);
  co_await guard.acquired();
  if (blocks_.contains(block)) co_return;
  HostOffset at = co_await block_place(block);
  Block state;
  state.bytes.resize(image_.geometry.cluster_size());
  co_await storage_.read(at, MutableBytes(state.bytes));
  make_room();
  blocks_.emplace(block, std::move(state));
  order_.push_back(block);
}

// Clean blocks leave by a clock when all of them together are too large.
void RefcountBlocks::make_room() {
  const uint64_t count_max = std::max<uint64_t>(kMemoryMax >> image_.geometry.cluster_bits(), 8);
  for (size_t tries = 0; order_.size() >= count_max && tries < 2 * order_.size(); ++tries) {
    hand_ = (hand_ + 1) % order_.size();
    Block& state = blocks_.at(order_[hand_]);
    if (state.is_dirty() || state.holds != 0) continue;
    if (std::exchange(state.was_used, false)) continue;
    blocks_.erase(order_[hand_]);
    order_[hand_] = order_.back();
    order_.pop_back();
  }
}

RefcountBlocks::Block& RefcountBlocks::loaded(ClusterIndex cluster) {
  auto found = blocks_.find(image_.geometry.refcount_block_of(cluster));
  CHECK(found != blocks_.end());
  return found->second;
}

uint64_t RefcountBlocks::get(ClusterIndex cluster) const {
  auto found = blocks_.find(image_.geometry.refcount_block_of(cluster));
  CHECK(found != blocks_.end());
  return load_refcount(found->second.bytes, image_.geometry.refcount_order(),
                       image_.geometry.index_in_refcount_block(cluster));
}

Bytes RefcountBlocks::counters_of(uint64_t block) const {
  auto found = blocks_.find(block);
  CHECK(found != blocks_.end());
  return found->second.bytes;
}

void RefcountBlocks::add_block(uint64_t block, HostOffset at) {
  CHECK_LT(block, uint64_t{table_.size()});
  CHECK_EQ(table_[block], uint64_t{0});
  make_room();
  Block state;
  state.bytes.resize(image_.geometry.cluster_size());
  table_[block] = at.value();
  dirty_table_.insert(block);
  // Whole: nobody has written its cluster yet.
  touch(block, blocks_.emplace(block, std::move(state)).first->second, 0,
        image_.geometry.cluster_size());
  order_.push_back(block);
}

void RefcountBlocks::move_table(HostOffset at, uint64_t entries) {
  CHECK_GE(entries, uint64_t{table_.size()});
  table_.resize(entries);
  table_place_ = at;
  table_moved_ = true;
}

// Its new cluster is written whole, before the table's entry.
void RefcountBlocks::move_block(uint64_t block, HostOffset at) {
  CHECK(has_block(block));
  table_[block] = at.value();
  dirty_table_.insert(block);
  touch(block, blocks_.at(block), 0, image_.geometry.cluster_size());
}

void RefcountBlocks::drop_block(uint64_t block) {
  CHECK(has_block(block));
  table_[block] = 0;
  dirty_table_.insert(block);
  dirty_.erase(block);
  auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  CHECK_EQ(found->second.holds, 0u);
  blocks_.erase(found);
  order_.erase(std::find(order_.begin(), order_.end(), block));
}

MetadataWrite RefcountBlocks::take_block(uint64_t block) {
  Block& state = blocks_.at(block);
  MetadataWrite write{HostOffset(table_[block]) + ByteCount(state.dirty_begin), {}};
  Bytes changed =
      Bytes(state.bytes).subspan(state.dirty_begin, state.dirty_end - state.dirty_begin);
  write.bytes.assign(changed.begin(), changed.end());
  state.dirty_begin = ~uint64_t{0};
  state.dirty_end = 0;
  ++state.holds;
  return write;
}

// The whole table where it has moved, else the sectors with new entries.
void RefcountBlocks::take_table(Dirty& dirty) {
  auto encode = [this](uint64_t first, uint64_t count) {
    MetadataWrite write{table_place_ + ByteCount(first * kEntryBytes), {}};
    write.bytes.resize(count * kEntryBytes);
    for (uint64_t i = 0; i < count; ++i) {
      store_be64(&write.bytes[i * kEntryBytes], table_[first + i]);
    }
    return write;
  };
  std::set<uint64_t> changed = std::exchange(dirty_table_, {});
  dirty.table_moved = std::exchange(table_moved_, false);
  if (dirty.table_moved) {
    dirty.table_writes.push_back(encode(0, table_.size()));
    return;
  }
  constexpr uint64_t kPerSector = kSectorBytes / kEntryBytes;
  std::set<uint64_t> sectors;
  for (uint64_t entry : changed) sectors.insert(entry / kPerSector);
  for (uint64_t sector : sectors) {
    dirty.table_writes.push_back(encode(sector * kPerSector, kPerSector));
  }
}

RefcountBlocks::Dirty RefcountBlocks::take_dirty() {
  Dirty dirty;
  for (uint64_t block : std::exchange(dirty_, {})) {
    dirty.block_writes.push_back(take_block(block));
    dirty.blocks.push_back(block);
  }
  take_table(dirty);
  return dirty;
}

void RefcountBlocks::write_back_done(const Dirty& dirty) {
  for (uint64_t block : dirty.blocks) --blocks_.at(block).holds;
}

}  // namespace ringdisk::qcow2
