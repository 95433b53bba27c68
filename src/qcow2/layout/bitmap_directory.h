// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps as they lie on the disk (format specification, "Bitmaps extension",
// "Bitmaps"): the header extension, the directory, entries of bitmap tables. Pure; untrusted.
//
//   extension        | 0 bitmaps (4) | 4 zero (4) | 8 directory bytes (8) | 16 directory (8) |
//   directory entry, at a multiple of 8:
//      0 table (8)  |  8 table entries (4)  | 12 flags (4)
//     16 type (1)   | 17 granularity bits (1) | 18 name length (2) | 20 extra length (4)
//     24 extra … name … zeros
//   table entry      | 63..56 zero | 55..9 cluster | 8..1 zero | 0 all ones, where there is none |
//   data             bit n, of byte n / 8, stands for bytes [n << g, (n + 1) << g) of the disk
//
// Worked example: a disk of 1 TiB at granularity 64 KiB has 2^24 bits, 2 MiB; at clusters of 64 KiB
// a table of 32 entries.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "base/units.h"
#include "qcow2/layout/geometry.h"

namespace ringdisk::qcow2 {

// QEMU's bounds, so that what one program makes the other takes.
inline constexpr uint32_t kBitmapsMax = 65535;
inline constexpr uint64_t kBitmapDirectoryBytesMax = uint64_t{1024} * kBitmapsMax;
inline constexpr uint32_t kBitmapNameBytesMax = 1023;
inline constexpr uint32_t kBitmapGranularityBitsMin = 9;
inline constexpr uint32_t kBitmapGranularityBitsMax = 31;
inline constexpr uint64_t kBitmapBytesMax = 512 * limits::kMiB;  // of the bits of one

inline constexpr uint32_t kBitmapsExtensionBytes = 24;
inline constexpr uint32_t kBitmapEntryHeadBytes = 24;
inline constexpr uint32_t kBitmapEntryFlagsAt = 12;

inline constexpr uint32_t kBitmapInUse = 1 << 0;
inline constexpr uint32_t kBitmapAuto = 1 << 1;
inline constexpr uint32_t kBitmapExtraCompatible = 1 << 2;
inline constexpr uint8_t kDirtyTrackingType = 1;

inline constexpr uint64_t kBitmapAllOnes = 1;  // of a table entry without a cluster

struct BitmapsExtension {
  uint32_t count = 0;
  uint64_t directory_bytes = 0;
  HostOffset directory;
};

// kCorrupt where it is none, or breaks a bound.
Result<BitmapsExtension> parse_bitmaps_extension(Bytes content, const Geometry& geometry);
std::vector<std::byte> encode_bitmaps_extension(const BitmapsExtension& extension);

struct BitmapEntry {
  HostOffset table;
  uint32_t table_entries = 0;
  uint32_t flags = 0;
  uint8_t type = kDirtyTrackingType;
  uint8_t granularity_bits = 16;
  std::string name;
  std::vector<std::byte> extra;

  bool is_in_use() const { return (flags & kBitmapInUse) != 0; }
  bool is_auto() const { return (flags & kBitmapAuto) != 0; }
  uint64_t encoded_bytes() const {
    return (kBitmapEntryHeadBytes + extra.size() + name.size() + 7) / 8 * 8;
  }
};

// `count` entries that fill `directory`. kCorrupt where they do not, or two share a name.
Result<std::vector<BitmapEntry>> parse_bitmap_directory(Bytes directory, uint32_t count);
std::vector<std::byte> encode_bitmap_directory(const std::vector<BitmapEntry>& entries);

// Bytes of the bits for a disk of `size`, and entries of a table for them.
uint64_t bitmap_bytes(ByteCount size, uint32_t granularity_bits);
uint64_t bitmap_table_entries(ByteCount size, uint32_t granularity_bits, const Geometry& geometry);

// What is wrong with an entry of an image whose disk has `size` bytes; null: nothing. The table of
// one that is in use may have any length.
const char* fault_of_bitmap(const BitmapEntry& entry, ByteCount size, const Geometry& geometry);
// Why an entry without fault cannot be used here; null: it can. Such a one is left as it is.
const char* why_unusable(const BitmapEntry& entry, ByteCount size);

// Of an entry of a bitmap table; null: nothing is wrong.
const char* fault_of_bitmap_table_entry(uint64_t raw, const Geometry& geometry);
// The cluster it names; offset 0: none.
inline HostOffset bitmap_cluster(uint64_t raw) { return HostOffset(raw & 0x00fffffffffffe00); }

}  // namespace ringdisk::qcow2
