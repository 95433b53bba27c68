// SPDX-License-Identifier: Apache-2.0
// Refcounts first, then a check.
#include "qcow2/check/cut_short.h"

#include "qcow2/check/checker.h"
#include "qcow2/layout/refcount_block.h"

namespace ringdisk::qcow2 {
namespace {

// Of a cluster with subclusters the file may end with a part.
uint64_t first_missing(const Geometry& geometry, uint64_t size) {
  return geometry.has_subclusters() ? geometry.clusters_of(size) : size >> geometry.cluster_bits();
}

// Whether a refcount of `block`, which lies at `at`, is not zero from cluster `first` on.
Task<bool> counts_from(StorageAccess& access, const Geometry& geometry, uint64_t block,
                       HostOffset at, uint64_t first) {
  std::vector<std::byte> counters(geometry.cluster_size());
  co_await access.read(at, MutableBuffers(MutableBytes(counters)));
  const uint64_t base = geometry.first_cluster_of_block(block).value();
  const uint64_t from = std::max(base, first) - base;
  for (uint64_t i = from; i < geometry.refcount_block_entries(); ++i) {
    if (load_refcount(counters, geometry.refcount_order(), i) != 0) co_return true;
  }
  co_return false;
}

// What the refcount table says of no block that could be read is for others to refuse.
Task<bool> counts_what_is_missing(StorageAccess& access, const Header& header) {
  const Geometry geometry = header.geometry();
  const uint64_t size = access.size().value();
  const uint64_t first = first_missing(geometry, size);
  const uint64_t blocks = geometry.refcount_table_entries(header.refcount_table_clusters);
  std::vector<std::byte> table(blocks * kEntryBytes);
  co_await access.read(header.refcount_table, MutableBuffers(MutableBytes(table)));
  for (uint64_t block = geometry.refcount_block_of(ClusterIndex(first)); block < blocks; ++block) {
    const HostOffset at(load_be64(&table[block * kEntryBytes]));
    if (at.value() == 0 || at.value() >= size || !at.is_aligned(geometry.cluster_size())) continue;
    const bool counts = co_await counts_from(access, geometry, block, at, first);
    if (counts) co_return true;
  }
  co_return false;
}

}  // namespace

Task<bool> is_cut_short(const World& world, SharedStorage& storage, StorageAccess& access,
                        const Header& header) {
  if (!header.is_encrypted()) co_return false;
  const bool may_be = co_await counts_what_is_missing(access, header);
  if (!may_be) co_return false;
  const CancelToken never;
  const std::function<void(CheckProgress)> no_progress;
  Checker checker(world, storage, CheckOptions(), never, no_progress);
  co_await checker.open();
  co_await checker.check();
  co_return checker.findings().count(FindingKind::kLostPointer) != 0;
}

}  // namespace ringdisk::qcow2
