// SPDX-License-Identifier: Apache-2.0
// Building the refcount table and its blocks anew, from the references alone. They are laid behind
// all else, where nothing can lie that somebody misses, and become the image's by one write of
// twelve bytes of the header, which lie in one sector.
//
//   | header … everything there is | refcount table | refcount blocks |
//                                    first            first + table_clusters
//
// A new snapshot table, where there is to be one (repair_snapshots.cc), lies in front of them.
//
// The new tables count themselves too: more of them may be needed to do so, and the layout is found
// by going round until it counts all it has.
#include <algorithm>

#include "base/endian.h"
#include "qcow2/check/repair.h"
#include "qcow2/layout/refcount_block.h"
#include "runtime/next_turn.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kTableEntriesMax = limits::kQcow2RefcountTableBytesMax / kEntryBytes;

Counting counting_without_tables() {
  Counting counting;
  counting.refcount_tables = false;
  return counting;
}

}  // namespace

Task<void> Repair::rebuild() {
  std::vector<uint64_t> needed = co_await find_blocks_needed();
  NewTables tables = co_await lay_out(std::move(needed));
  co_await write_new_blocks(tables);
  co_await write_new_table(tables);
  co_await flush_written();
  co_await switch_tables(tables);
}

// Those that have a cluster to count, and where leaks are kept those that there were.
Task<std::vector<uint64_t>> Repair::find_blocks_needed() {
  std::vector<uint64_t> needed;
  auto look = [this, &needed](uint64_t) { return note_blocks_needed(needed); };
  auto forget = [&needed] { needed.clear(); };
  co_await checker_.for_each_window(counting_without_tables(), look, forget);
  co_return std::move(needed);
}

Task<void> Repair::note_blocks_needed(std::vector<uint64_t>& needed) {
  const CheckedImage& image = checker_.image();
  const uint32_t block_bits = geometry().refcount_block_bits();
  const uint64_t end = image.counts.end().value() >> block_bits;
  for (uint64_t block = image.counts.first().value() >> block_bits; block < end; ++block) {
    bool is_needed = keeps_leaks_ && image.has_block(block);
    const ClusterIndex first = geometry().first_cluster_of_block(block);
    for (uint64_t i = 0; i < geometry().refcount_block_entries() && !is_needed; ++i) {
      is_needed = image.counts.count(first + i) != 0;
    }
    if (is_needed) needed.push_back(block);
  }
  co_await NextTurn(Shard::current());
}

Task<Repair::NewTables> Repair::lay_out(std::vector<uint64_t> blocks) {
  NewTables tables;
  tables.blocks = std::move(blocks);
  const ClusterIndex first_new = first_behind_all();
  tables.first = new_snapshots_ ? new_snapshots_->end().value() : first_new.value();
  for (;;) {
    const uint64_t entries = tables.blocks.empty() ? 1 : tables.blocks.back() + 1;
    if (entries > kTableEntriesMax) {
      co_return checker_.refuse(ErrorKind::kLimit,
                                "the refcount table would be larger than any real one; the "
                                "refcounts cannot be rebuilt");
    }
    tables.table_clusters = geometry().clusters_of(entries * kEntryBytes);
    const uint64_t begin = first_new.value() >> geometry().refcount_block_bits();
    const uint64_t last =
        (tables.first + tables.clusters() - 1) >> geometry().refcount_block_bits();
    const size_t before = tables.blocks.size();
    for (uint64_t block = begin; block <= last; ++block) {
      auto place = std::lower_bound(tables.blocks.begin(), tables.blocks.end(), block);
      if (place == tables.blocks.end() || *place != block) tables.blocks.insert(place, block);
    }
    if (tables.blocks.size() == before) break;
  }
  if (!has_room_until(ClusterIndex(tables.first + tables.clusters()))) {
    co_return checker_.refuse(ErrorKind::kNoSpace,
                              "there is no space behind the image for new refcount tables");
  }
  co_return std::move(tables);
}

Task<void> Repair::write_new_blocks(const NewTables& tables) {
  Counting counting = counting_without_tables();
  counting.first_new = new_snapshots_ ? new_snapshots_->first : ClusterIndex(tables.first);
  counting.new_clusters = tables.first + tables.clusters() - counting.first_new.value();
  auto write = [this, &tables](uint64_t) { return write_blocks_of_window(tables); };
  auto nothing = [] {};
  co_await checker_.for_each_window(counting, write, nothing);
}

Task<void> Repair::write_blocks_of_window(const NewTables& tables) {
  const ReferenceCounts& counts = checker_.image().counts;
  for (size_t i = 0; i < tables.blocks.size(); ++i) {
    if (!counts.covers(geometry().first_cluster_of_block(tables.blocks[i]))) continue;
    co_await checker_.admit_more();
    const ClusterIndex place(tables.first + tables.table_clusters + i);
    co_await write_new_block(tables.blocks[i], geometry().host_offset(place));
  }
}

Task<void> Repair::write_new_block(uint64_t block, HostOffset at) {
  const CheckedImage& image = checker_.image();
  Shard& shard = Shard::current();
  Buffer buffer = shard.buffers().take(geometry().cluster_size());
  MutableBytes bytes = buffer.first(geometry().cluster_size());
  fill_zero(bytes);
  if (keeps_leaks_ && image.has_block(block)) {
    co_await checker_.storage().read(HostOffset(image.refcount_table[block]),
                                     MutableBuffers(bytes));
  }
  const ClusterIndex first = geometry().first_cluster_of_block(block);
  const uint32_t order = geometry().refcount_order();
  for (uint64_t i = 0; i < geometry().refcount_block_entries(); ++i) {
    const uint64_t before = keeps_leaks_ ? load_refcount(bytes, order, i) : 0;
    store_refcount(bytes, order, i, wanted_refcount(image.counts.count(first + i), before));
  }
  co_await NextTurn(shard);
  has_written_ = true;
  co_await checker_.storage().write(at, ConstBuffers(Bytes(bytes)));
}

Task<void> Repair::write_new_table(const NewTables& tables) {
  std::vector<std::byte> table(tables.table_clusters << geometry().cluster_bits());
  for (size_t i = 0; i < tables.blocks.size(); ++i) {
    const ClusterIndex place(tables.first + tables.table_clusters + i);
    store_be64(&table[tables.blocks[i] * kEntryBytes], geometry().host_offset(place).value());
  }
  const HostOffset at = geometry().host_offset(ClusterIndex(tables.first));
  has_written_ = true;
  co_await checker_.storage().write(at, ConstBuffers(Bytes(table)));
}

Task<void> Repair::switch_tables(const NewTables& tables) {
  const HostOffset at = geometry().host_offset(ClusterIndex(tables.first));
  const auto clusters = static_cast<uint32_t>(tables.table_clusters);
  std::byte fields[12];
  store_be64(fields, at.value());
  store_be32(&fields[8], clusters);
  co_await checker_.storage().write(HostOffset(kRefcountTableFieldsAt),
                                    ConstBuffers(Bytes(fields)));
  co_await checker_.storage().flush();
  co_await checker_.use_refcount_table(at, clusters);
}

}  // namespace ringdisk::qcow2
