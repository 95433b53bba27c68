// SPDX-License-Identifier: Apache-2.0
// Table entries of the format specification ("Cluster mapping"), decoded and encoded. Pure; values
// are in host byte order.
//
//   L1        63 COPIED | 62-56 reserved | 55-9 offset of the L2 table | 8-0 reserved
//   standard  63 COPIED | 62: 0 | 61-56 reserved | 55-9 host cluster | 8-1 reserved | 0 zeros (v3)
//   packed    63: 0     | 62: 1 | 61-x extra sectors | x-1..0 host offset (any byte)
//             "packed": a compressed cluster; x = 62 - (cluster_bits - 8)
//
// Two of the reserved bits mean something in memory only, in standard entries, and never reach a
// disk:
//   kFrozen   writes go to the home shard, because it is about to move or share the cluster
//             (decision 0003)
//   kRejected the entry failed a check that needs more than the entry itself (it points into
//             metadata)
#pragma once

#include "qcow2/geometry.h"

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
  kInvalid,  // breaks the specification, or was rejected
};

// Where a compressed cluster's stream lies.
struct CompressedPlace {
  HostOffset offset;
  ByteCount length;  // up to the end of its last sector; the stream may end before
};

class L2Entry {
 public:
  constexpr explicit L2Entry(uint64_t raw) : raw_(raw) {}
  constexpr uint64_t raw() const { return raw_; }
  // As it may stand on a disk.
  constexpr uint64_t persistent() const {
    return is_compressed() ? raw_ : raw_ & ~(kFrozen | kRejected);
  }

  static constexpr L2Entry unallocated() { return L2Entry(0); }
  static constexpr L2Entry zero() { return L2Entry(kReadsZero); }
  // A cluster whose refcount is one.
  static constexpr L2Entry owned(HostOffset host) { return L2Entry(host.value() | kCopied); }

  constexpr bool is_compressed() const { return (raw_ & kCompressed) != 0; }
  constexpr bool is_copied() const { return (raw_ & kCopied) != 0; }
  constexpr bool is_frozen() const { return !is_compressed() && (raw_ & kFrozen) != 0; }
  // Of a standard entry; zero: none.
  constexpr HostOffset host() const { return HostOffset(raw_ & kOffsetMask); }
  constexpr bool has_host() const { return !is_compressed() && (raw_ & kOffsetMask) != 0; }

  // `zero_flag_known`: version 3.
  constexpr EntryKind kind(const Geometry& geometry, bool zero_flag_known) const {
    if (is_compressed()) return compressed_kind(geometry);
    constexpr uint64_t kKnown = kCopied | kOffsetMask | kReadsZero | kFrozen;
    bool is_valid = (raw_ & ~kKnown) == 0 && host().is_aligned(geometry.cluster_size());
    if (!is_valid) return EntryKind::kInvalid;
    if ((raw_ & kReadsZero) != 0) return zero_flag_known ? EntryKind::kZero : EntryKind::kInvalid;
    if (has_host()) return EntryKind::kData;
    return is_copied() ? EntryKind::kInvalid : EntryKind::kUnallocated;
  }
  // Data that may be written where it lies, without asking the home shard.
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
    return L2Entry(kCompressed | extra_sectors << x | offset.value());
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

  uint64_t raw_;
};

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
