// SPDX-License-Identifier: Apache-2.0
// Geometry: the arithmetic of one image, fixed by its cluster size, refcount width and width of L2
// entries. Pure.
//
//   guest offset   | L1 index | L2 index | offset in cluster |
//                  L2 index: cluster_bits - 3 bits (8-byte entries), - 4 bits (extended ones)
//   host offset    | refcount table index | index in block | offset in cluster |
//   slices         an L2 table is cut into slices of up to 4 KiB: what is loaded, published and
//                  evicted
//   units          what has a mapping of its own: a cluster, or one of the 32 subclusters that
//                  extended L2 entries tell apart
//
// Worked example, 64 KiB clusters: 8192 entries a table, so one table maps 512 MiB and has 16
// slices; guest offset 600 MiB is guest cluster 9600, L1 index 1, L2 index 1408, slice 2 of its
// table, slice 18 of the image. With 16-bit refcounts a block counts 32768 clusters, 2 GiB of file.
#pragma once

#include <algorithm>

#include "base/limits.h"
#include "base/units.h"

namespace ringdisk::qcow2 {

inline constexpr uint32_t kEntryBytes = 8;  // of all tables but those of extended L2 entries
inline constexpr uint32_t kSliceBytesMaxBits = 12;
inline constexpr uint32_t kSubclusterBits = 5;  // log2 of a cluster's subclusters
// Extended L2 entries: so that a subcluster is a sector at least.
inline constexpr uint32_t kExtendedClusterBitsMin = 14;
inline constexpr uint32_t kRefcountOrderMax = 6;

class Geometry {
 public:
  // `cluster_bits` is 9 to 21, with extended L2 entries 14 to 21; `refcount_order` 0 to 6.
  constexpr Geometry(uint32_t cluster_bits, uint32_t refcount_order, bool has_extended_l2 = false)
      : cluster_bits_(cluster_bits),
        refcount_order_(refcount_order),
        subcluster_bits_(has_extended_l2 ? kSubclusterBits : 0),
        l2_entry_bits_(has_extended_l2 ? 4 : 3) {
    CHECK_GE(cluster_bits,
             has_extended_l2 ? kExtendedClusterBitsMin : limits::kQcow2ClusterBitsMin);
    CHECK_LE(cluster_bits, limits::kQcow2ClusterBitsMax);
    CHECK_LE(refcount_order, kRefcountOrderMax);
  }

  constexpr uint32_t cluster_bits() const { return cluster_bits_; }
  constexpr uint64_t cluster_size() const { return uint64_t{1} << cluster_bits_; }
  constexpr uint32_t refcount_order() const { return refcount_order_; }

  // --- guest side
  constexpr uint64_t l2_entry_bytes() const { return uint64_t{1} << l2_entry_bits_; }
  constexpr uint32_t l2_bits() const { return cluster_bits_ - l2_entry_bits_; }
  constexpr uint64_t l2_entries() const { return uint64_t{1} << l2_bits(); }
  constexpr ClusterIndex guest_cluster(GuestOffset at) const {
    return ClusterIndex(at.value() >> cluster_bits_);
  }
  constexpr GuestOffset guest_offset(ClusterIndex cluster) const {
    return GuestOffset(cluster.value() << cluster_bits_);
  }
  constexpr uint64_t l1_index(ClusterIndex guest) const { return guest.value() >> l2_bits(); }
  constexpr uint64_t l2_index(ClusterIndex guest) const {
    return guest.value() & (l2_entries() - 1);
  }
  // The first guest cluster that an L2 table maps.
  constexpr ClusterIndex first_cluster_of(uint64_t l1_index) const {
    return ClusterIndex(l1_index << l2_bits());
  }
  // Guest clusters of a disk of `size`, the last one perhaps cut.
  constexpr uint64_t guest_clusters(ByteCount size) const {
    return (size.value() >> cluster_bits_) + ((size.value() & (cluster_size() - 1)) != 0 ? 1 : 0);
  }
  constexpr uint64_t l1_entries_for(ByteCount size) const {
    uint64_t clusters = guest_clusters(size);
    return (clusters >> l2_bits()) + ((clusters & (l2_entries() - 1)) != 0 ? 1 : 0);
  }

  // --- subclusters
  constexpr bool has_subclusters() const { return subcluster_bits_ != 0; }
  constexpr uint32_t subcluster_bits() const { return subcluster_bits_; }  // 0: none
  constexpr uint32_t unit_bits() const { return cluster_bits_ - subcluster_bits_; }
  constexpr uint64_t unit_size() const { return uint64_t{1} << unit_bits(); }
  constexpr uint64_t units_per_cluster() const { return uint64_t{1} << subcluster_bits_; }
  constexpr uint64_t unit_of(GuestOffset at) const { return at.value() >> unit_bits(); }
  constexpr uint64_t first_unit_of(ClusterIndex guest) const {
    return guest.value() << subcluster_bits_;
  }
  constexpr ClusterIndex cluster_of_unit(uint64_t unit) const {
    return ClusterIndex(unit >> subcluster_bits_);
  }

  // --- slices
  constexpr uint32_t slice_bits() const {
    return std::min(l2_bits(), kSliceBytesMaxBits - l2_entry_bits_);
  }
  constexpr uint64_t slice_entries() const { return uint64_t{1} << slice_bits(); }
  constexpr uint64_t slice_bytes() const { return slice_entries() << l2_entry_bits_; }
  constexpr uint64_t slices_per_table() const { return uint64_t{1} << (l2_bits() - slice_bits()); }
  constexpr uint64_t slice_of(ClusterIndex guest) const { return guest.value() >> slice_bits(); }
  constexpr uint64_t index_in_slice(ClusterIndex guest) const {
    return guest.value() & (slice_entries() - 1);
  }
  constexpr uint64_t l1_index_of_slice(uint64_t slice) const {
    return slice >> (l2_bits() - slice_bits());
  }
  constexpr uint64_t slice_in_table(uint64_t slice) const {
    return slice & (slices_per_table() - 1);
  }

  // --- host side
  constexpr ClusterIndex host_cluster(HostOffset at) const {
    return ClusterIndex(at.value() >> cluster_bits_);
  }
  constexpr HostOffset host_offset(ClusterIndex cluster) const {
    return HostOffset(cluster.value() << cluster_bits_);
  }
  constexpr uint32_t refcount_bits() const { return uint32_t{1} << refcount_order_; }
  constexpr uint64_t refcount_max() const {
    return refcount_order_ == kRefcountOrderMax ? ~uint64_t{0}
                                                : (uint64_t{1} << refcount_bits()) - 1;
  }
  // log2 of the clusters that one refcount block counts: cluster_size * 8 / refcount_bits.
  constexpr uint32_t refcount_block_bits() const { return cluster_bits_ + 3 - refcount_order_; }
  constexpr uint64_t refcount_block_entries() const { return uint64_t{1} << refcount_block_bits(); }
  constexpr uint64_t refcount_block_of(ClusterIndex host) const {
    return host.value() >> refcount_block_bits();
  }
  constexpr uint64_t index_in_refcount_block(ClusterIndex host) const {
    return host.value() & (refcount_block_entries() - 1);
  }
  constexpr ClusterIndex first_cluster_of_block(uint64_t block) const {
    return ClusterIndex(block << refcount_block_bits());
  }
  constexpr uint64_t refcount_table_entries(uint64_t table_clusters) const {
    return table_clusters << (cluster_bits_ - 3);
  }
  // Clusters that `bytes` fill, the last one perhaps in part.
  constexpr uint64_t clusters_of(uint64_t bytes) const {
    return (bytes >> cluster_bits_) + ((bytes & (cluster_size() - 1)) != 0 ? 1 : 0);
  }

 private:
  uint32_t cluster_bits_;
  uint32_t refcount_order_;
  uint32_t subcluster_bits_;
  uint32_t l2_entry_bits_;
};

static_assert(Geometry(16, 4).l2_entries() == 8192);
static_assert(Geometry(16, 4).slices_per_table() == 16);
static_assert(Geometry(9, 4).slices_per_table() == 1);
static_assert(Geometry(16, 4, true).l2_entries() == 4096);
static_assert(Geometry(16, 4, true).slices_per_table() == 16);
static_assert(Geometry(16, 4, true).unit_size() == 2048);
static_assert(Geometry(14, 4, true).unit_size() == 512);
static_assert(Geometry(16, 4).unit_size() == 65536);
static_assert(Geometry(16, 4).refcount_block_entries() == 32768);
static_assert(Geometry(9, 6).refcount_block_entries() == 64);
static_assert(Geometry(9, 0).refcount_block_entries() == 4096);
static_assert(Geometry(16, 4).l1_index(ClusterIndex(9600)) == 1);
static_assert(Geometry(16, 4).slice_of(ClusterIndex(9600)) == 18);

}  // namespace ringdisk::qcow2
