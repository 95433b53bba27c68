// SPDX-License-Identifier: Apache-2.0
// Any bytes as persistent bitmaps: the first tells how many, the second the cluster size, 24 more
// are a header extension, the rest a directory, whose bytes are taken for a table as well. What is
// accepted is bounded, and encodes to what parses to the same.
#include "base/check.h"
#include "base/endian.h"
#include "qcow2/layout/bitmap_directory.h"

namespace ringdisk::qcow2 {
namespace {

void try_extension(Bytes content, const Geometry& geometry) {
  Result<BitmapsExtension> extension = parse_bitmaps_extension(content, geometry);
  if (!extension.ok()) return;
  CHECK_LE(extension.value().directory_bytes, kBitmapDirectoryBytesMax);
  const std::vector<std::byte> encoded = encode_bitmaps_extension(extension.value());
  Result<BitmapsExtension> again = parse_bitmaps_extension(encoded, geometry);
  CHECK(again.ok());
  CHECK_EQ(again.value().count, extension.value().count);
}

void judge(const BitmapEntry& entry, const Geometry& geometry) {
  for (uint64_t size : {uint64_t{0}, uint64_t{1} << 20, uint64_t{1} << 40, kOffsetMax}) {
    if (fault_of_bitmap(entry, ByteCount(size), geometry)) continue;
    if (why_unusable(entry, ByteCount(size))) continue;
    CHECK_LE(bitmap_bytes(ByteCount(size), entry.granularity_bits), kBitmapBytesMax);
  }
}

void try_directory(Bytes directory, uint32_t count, const Geometry& geometry) {
  Result<std::vector<BitmapEntry>> entries = parse_bitmap_directory(directory, count);
  if (!entries.ok()) return;
  CHECK_EQ(entries.value().size(), size_t{count});
  for (const BitmapEntry& entry : entries.value()) judge(entry, geometry);
  const std::vector<std::byte> encoded = encode_bitmap_directory(entries.value());
  CHECK_EQ(encoded.size(), directory.size());
  Result<std::vector<BitmapEntry>> again = parse_bitmap_directory(encoded, count);
  CHECK(again.ok());
  CHECK(again.value().back().name == entries.value().back().name);
}

void try_table(Bytes table, const Geometry& geometry) {
  for (; table.size() >= kEntryBytes; table = table.subspan(kEntryBytes)) {
    const uint64_t raw = load_be64(table.data());
    if (fault_of_bitmap_table_entry(raw, geometry)) continue;
    CHECK(bitmap_cluster(raw).is_aligned(geometry.cluster_size()));
  }
}

void try_all(Bytes input) {
  if (input.size() < 2 + kBitmapsExtensionBytes) return;
  const uint32_t count = 1 + static_cast<uint32_t>(input[0]) % 64;
  const Geometry geometry(9 + static_cast<uint32_t>(input[1]) % 13, 4);
  try_extension(input.subspan(2, kBitmapsExtensionBytes), geometry);
  const Bytes directory = input.subspan(2 + kBitmapsExtensionBytes);
  try_directory(directory, count, geometry);
  try_table(directory, geometry);
}

}  // namespace
}  // namespace ringdisk::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::qcow2::try_all(ringdisk::Bytes(reinterpret_cast<const std::byte*>(bytes), size));
  return 0;
}
