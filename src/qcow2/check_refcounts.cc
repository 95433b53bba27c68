// SPDX-License-Identifier: Apache-2.0
// Holding the counted references against the refcounts on the disk, and COPIED flags against the
// refcounts.
#include <algorithm>

#include "qcow2/checker.h"
#include "qcow2/refcount_block.h"

namespace ringdisk::qcow2 {

using Number = unsigned long long;

Task<void> Checker::load_refcount_table() {
  const uint64_t entries = geometry_.refcount_table_entries(header_.refcount_table_clusters);
  refcount_table_ = co_await read_table(header_.refcount_table, entries);
}

// 0 where no block counts the cluster.
Task<uint64_t> Checker::refcount_of(ClusterIndex cluster) {
  const uint64_t block = geometry_.refcount_block_of(cluster);
  if (block >= refcount_table_.size() || refcount_table_[block] == 0) co_return uint64_t{0};
  if (refcount_block_number_ != block) {
    refcount_block_.resize(geometry_.cluster_size());
    refcount_block_number_ = ~uint64_t{0};
    co_await storage_.read(HostOffset(refcount_table_[block]),
                           MutableBuffers(MutableBytes(refcount_block_)));
    refcount_block_number_ = block;
  }
  co_return load_refcount(refcount_block_, geometry_.refcount_order(),
                          geometry_.index_in_refcount_block(cluster));
}

// Every block that exists is compared whole, and every cluster that is pointed to, whether a block
// counts it or not.
Task<void> Checker::compare_refcounts() {
  const uint64_t end = references_.end().value();
  const uint64_t blocks_referred =
      end == 0 ? 0 : geometry_.refcount_block_of(ClusterIndex(end - 1)) + 1;
  const uint64_t blocks = std::max<uint64_t>(refcount_table_.size(), blocks_referred);
  for (uint64_t block = 0; block < blocks; ++block) {
    const bool exists = block < refcount_table_.size() && refcount_table_[block] != 0;
    if (exists || block < blocks_referred) co_await compare_block(block);
  }
}

Task<void> Checker::compare_block(uint64_t block) {
  const uint64_t first = geometry_.first_cluster_of_block(block).value();
  for (uint64_t i = 0; i < geometry_.refcount_block_entries(); ++i) {
    const ClusterIndex cluster(first + i);
    const uint64_t references = references_.count(cluster);
    const uint64_t refcount = co_await refcount_of(cluster);
    if (refcount == references) continue;
    if (refcount < references) {
      corruption("ERROR cluster %llu refcount=%llu reference=%llu",
                 static_cast<Number>(cluster.value()), static_cast<Number>(refcount),
                 static_cast<Number>(references));
    } else {
      leak("Leaked cluster %llu refcount=%llu reference=%llu", static_cast<Number>(cluster.value()),
           static_cast<Number>(refcount), static_cast<Number>(references));
    }
  }
}

Task<void> Checker::check_copied_flags() {
  for (size_t i = 0; i < active_l1_.size(); ++i) {
    const L1Entry entry(active_l1_[i]);
    const HostOffset table = entry.table();
    const bool usable = entry.has_table() && table.is_aligned(geometry_.cluster_size()) &&
                        geometry_.host_cluster(table).value() < file_clusters_;
    if (!usable) continue;
    const uint64_t refcount = co_await refcount_of(geometry_.host_cluster(table));
    if ((refcount == 1) != entry.is_copied()) {
      corruption("ERROR OFLAG_COPIED L2 cluster: l1_index=%zu l1_entry=%llx refcount=%llu", i,
                 static_cast<Number>(entry.raw()), static_cast<Number>(refcount));
    }
    co_await check_copied_of_l2(table);
  }
}

Task<void> Checker::check_copied_of_l2(HostOffset table) {
  std::vector<uint64_t> entries = co_await read_table(table, geometry_.l2_entries());
  for (uint64_t raw : entries) {
    const L2Entry entry(raw);
    const EntryKind kind = entry.kind(geometry_, header_.version >= 3);
    const bool counts = (kind == EntryKind::kData || kind == EntryKind::kZero) &&
                        entry.has_host() &&
                        geometry_.host_cluster(entry.host()).value() < file_clusters_;
    if (!counts) continue;
    const uint64_t refcount = co_await refcount_of(geometry_.host_cluster(entry.host()));
    if ((refcount == 1) == entry.is_copied()) continue;
    corruption("ERROR OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu",
               static_cast<Number>(raw), static_cast<Number>(refcount));
  }
}

}  // namespace ringdisk::qcow2
