// SPDX-License-Identifier: Apache-2.0
// Table entries of the format specification ("Cluster mapping", "Extended L2 Entries"), decoded and
// encoded. Pure; values are in host byte order.
//
//   L1        63 COPIED | 62-56 reserved | 55-9 offset of the L2 table | 8-0 reserved
//   standard  63 COPIED | 62: 0 | 61-56 reserved | 55-9 host cluster | 8-1 reserved | 0 zeros (v3)
//   packed    63: 0     | 62: 1 | 61-x extra sectors | x-1..0 host offset (any byte)
//             "packed": a compressed cluster; x = 62 - (cluster_bits - 8)
//
// With extended entries a standard one has no zero flag, and a second word follows (0 behind a
// packed one):
//   bitmap    63-32 subcluster x - 32 reads as zeros | 31-0 subcluster x is in the host cluster
//             neither: unallocated; both: invalid
//
// Two of the reserved bits mean something in memory only, in standard entries, and never reach a
// disk:
//   kFrozen   writes go to the home shard, because it is about to move or share the cluster
//             (decision 0003)
//   kRejected the entry failed a check that needs more than the entry itself (it points into
//             metadata)
#pragma once

#include <bit>

#include "base/bytes.h"
#include "base/endian.h"
#include "qcow2/layout/geometry.h"

namespace ringdisk::qcow2 {

inline constexpr uint64_t kCopied = uint64_t{1} << 63;
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kReadsZero = 1;
inline constexpr uint64_t kFrozen = uint64_t{1} << 1;
inline constexpr uint64_t kRejected = uint64_t{1} << 2;
inline constexpr uint64_t kOffsetMask = ((uint64_t{1} << 56) - 1) & ~uint64_t{511};
inline constexpr uint64_t kCompressedSectorBytes = 512;  // the unit of a stream's length
inline constexpr uint64_t kHostEnd = uint64_t{1} << 56;  // no table can point at or beyond it

static_assert((kFrozen & (kOffsetMask | kCopied | kCompressed | kReadsZero)) == 0);
static_assert((kRejected & (kOffsetMask | kCopied | kCompressed | kReadsZero | kFrozen)) == 0);

enum class EntryKind : uint8_t {
  kUnallocated,
  kZero,  // reads as zeros; host() may name a cluster kept for it
  kData,
  kCompressed,
  kSubclusters,  // of an extended entry: each is unallocated, zeros or data (subcluster_kind)
  kInvalid,      // breaks the specification, or was rejected
};

// Where a compressed cluster's stream lies.
struct CompressedPlace {
  HostOffset offset;
  ByteCount length;  // up to the end of its last sector; the stream may end before
};

class L2Entry {
 public:
  // `bitmap`: the second word of an extended entry; 0 where entries have none.
  constexpr L2Entry(uint64_t raw, uint64_t bitmap) : raw_(raw), bitmap_(bitmap) {}
  constexpr uint64_t raw() const { return raw_; }
  constexpr uint64_t bitmap() const { return bitmap_; }
  friend constexpr bool operator==(const L2Entry&, const L2Entry&) = default;
  // As it may stand on a disk.
  constexpr uint64_t persistent() const {
    return is_compressed() ? raw_ : raw_ & ~(kFrozen | kRejected);
  }

  static constexpr L2Entry unallocated() { return L2Entry(0, 0); }
  // Of images without subclusters.
  static constexpr L2Entry zero() { return L2Entry(kReadsZero, 0); }
  // A cluster whose refcount is one. (Extended: which has no subcluster yet.)
  static constexpr L2Entry owned(HostOffset host) { return L2Entry(host.value() | kCopied, 0); }
  // What cannot be used now; the home shard, asked for it, has another.
  static constexpr L2Entry unsettled() { return L2Entry(kRejected, 0); }

  constexpr bool is_compressed() const { return (raw_ & kCompressed) != 0; }
  constexpr bool is_copied() const { return (raw_ & kCopied) != 0; }
  constexpr bool is_frozen() const { return !is_compressed() && (raw_ & kFrozen) != 0; }
  // Of a standard entry; zero: none.
  constexpr HostOffset host() const { return HostOffset(raw_ & kOffsetMask); }
  constexpr bool has_host() const { return !is_compressed() && (raw_ & kOffsetMask) != 0; }

  // `zero_flag_known`: version 3.
  constexpr EntryKind kind(const Geometry& geometry, bool zero_flag_known) const {
    return geometry.has_subclusters() ? extended_kind(geometry)
                                      : cluster_kind(geometry, zero_flag_known);
  }
  // The same, for images without subclusters.
  constexpr EntryKind cluster_kind(const Geometry& geometry, bool zero_flag_known) const {
    if (is_compressed()) return compressed_kind(geometry);
    constexpr uint64_t kKnown = kCopied | kOffsetMask | kReadsZero | kFrozen;
    bool is_valid = (raw_ & ~kKnown) == 0 && host().is_aligned(geometry.cluster_size());
    if (!is_valid) return EntryKind::kInvalid;
    if ((raw_ & kReadsZero) != 0) return zero_flag_known ? EntryKind::kZero : EntryKind::kInvalid;
    if (has_host()) return EntryKind::kData;
    return is_copied() ? EntryKind::kInvalid : EntryKind::kUnallocated;
  }
  // --- of kind kSubclusters: a bit for each
  constexpr uint32_t allocated() const { return static_cast<uint32_t>(bitmap_); }
  constexpr uint32_t zeros() const { return static_cast<uint32_t>(bitmap_ >> 32); }
  constexpr EntryKind subcluster_kind(uint32_t index) const {
    if ((allocated() >> index & 1) != 0) return EntryKind::kData;
    return (zeros() >> index & 1) != 0 ? EntryKind::kZero : EntryKind::kUnallocated;
  }
  // Subclusters from `index` on that are of its kind, one at least.
  constexpr uint32_t subcluster_run(uint32_t index) const {
    const uint32_t data = allocated() >> index, zero = zeros() >> index;
    if ((data & 1) != 0) return static_cast<uint32_t>(std::countr_one(data));
    if ((zero & 1) != 0) return static_cast<uint32_t>(std::countr_one(zero));
    return std::min(static_cast<uint32_t>(std::countr_zero(data | zero)),
                    (uint32_t{1} << kSubclusterBits) - index);
  }
  constexpr L2Entry with_subclusters(uint32_t allocated, uint32_t zeros) const {
    return L2Entry(raw_, uint64_t{zeros} << 32 | allocated);
  }

  // Data that may be written where it lies, without asking the home shard. (Extended: where the
  // subcluster is allocated.)
  constexpr bool is_writable_in_place() const {
    return (raw_ & (kCopied | kCompressed | kReadsZero | kFrozen | kRejected)) == kCopied;
  }

  constexpr CompressedPlace compressed_place(const Geometry& geometry) const {
    uint32_t x = offset_bits(geometry);
    HostOffset offset(raw_ & ((uint64_t{1} << x) - 1));
    uint64_t extra = (raw_ & (kCompressed - 1)) >> x;
    return {offset, ByteCount((extra + 1) * 512 - (offset.value() & 511))};
  }
  // No descriptor can name this byte of the file, or one behind it.
  static constexpr HostOffset compressed_end(const Geometry& geometry) {
    return HostOffset(uint64_t{1} << std::min(offset_bits(geometry), 56u));
  }
  // `extra_sectors`: 512-byte sectors touched beyond the one that holds `offset`. Both fit their
  // fields.
  static constexpr L2Entry compressed(const Geometry& geometry, HostOffset offset,
                                      uint64_t extra_sectors) {
    uint32_t x = offset_bits(geometry);
    CHECK_LT(offset.value(), uint64_t{1} << std::min(x, 56u));
    CHECK_LT(extra_sectors, uint64_t{1} << (62 - x));
    return L2Entry(kCompressed | extra_sectors << x | offset.value(), 0);
  }

 private:
  static constexpr uint32_t offset_bits(const Geometry& geometry) {
    return 62 - (geometry.cluster_bits() - 8);
  }
  constexpr EntryKind compressed_kind(const Geometry& geometry) const {
    HostOffset at = compressed_place(geometry).offset;
    bool is_valid = !is_copied() && at.value() != 0 && at.value() < kHostEnd;
    return is_valid ? EntryKind::kCompressed : EntryKind::kInvalid;
  }
  constexpr EntryKind extended_kind(const Geometry& geometry) const {
    if (is_compressed()) return bitmap_ == 0 ? compressed_kind(geometry) : EntryKind::kInvalid;
    constexpr uint64_t kKnown = kCopied | kOffsetMask | kFrozen;
    bool is_valid = (raw_ & ~kKnown) == 0 && host().is_aligned(geometry.cluster_size()) &&
                    (allocated() & zeros()) == 0;
    if (!has_host()) is_valid = is_valid && !is_copied() && allocated() == 0;
    return is_valid ? EntryKind::kSubclusters : EntryKind::kInvalid;
  }

  uint64_t raw_;
  uint64_t bitmap_;
};

// Entry `index` of a table, or of a part of one, as it lies on the disk. kRejected and kFrozen are
// not for there.
inline L2Entry load_l2_entry(Bytes table, uint64_t index, const Geometry& geometry) {
  const std::byte* at = &table[index * geometry.l2_entry_bytes()];
  return L2Entry(load_be64(at), geometry.has_subclusters() ? load_be64(at + kEntryBytes) : 0);
}
inline void store_l2_entry(MutableBytes table, uint64_t index, L2Entry entry,
                           const Geometry& geometry) {
  std::byte* at = &table[index * geometry.l2_entry_bytes()];
  store_be64(at, entry.raw());
  if (geometry.has_subclusters()) store_be64(at + kEntryBytes, entry.bitmap());
}

class L1Entry {
 public:
  constexpr explicit L1Entry(uint64_t raw) : raw_(raw) {}
  static constexpr L1Entry owned(HostOffset table) { return L1Entry(table.value() | kCopied); }

  constexpr uint64_t raw() const { return raw_; }
  constexpr bool has_table() const { return (raw_ & kOffsetMask) != 0; }
  constexpr HostOffset table() const { return HostOffset(raw_ & kOffsetMask); }
  constexpr bool is_copied() const { return (raw_ & kCopied) != 0; }
  // As the specification has it: no reserved bit, table at a cluster's start.
  constexpr bool is_valid(const Geometry& geometry) const {
    return (raw_ & ~(kCopied | kOffsetMask)) == 0 && table().is_aligned(geometry.cluster_size()) &&
           (has_table() || !is_copied());
  }

 private:
  uint64_t raw_;
};

}  // namespace ringdisk::qcow2
