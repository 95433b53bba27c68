// SPDX-License-Identifier: Apache-2.0
// Parsing, judging, encoding.
#include "qcow2/layout/bitmap_directory.h"

#include <set>
#include <string_view>

#include "base/endian.h"
#include "base/span_reader.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint32_t kKnownFlags = kBitmapInUse | kBitmapAuto | kBitmapExtraCompatible;
constexpr uint32_t kGranularityBitsPossible = 63;
constexpr uint64_t kTableEntryReserved = 0xff000000000001fe;

Error damaged(size_t at) { return Error::of(ErrorKind::kCorrupt, "parse bitmap directory", at); }

uint64_t divide_up(uint64_t value, uint64_t by) { return value / by + (value % by != 0 ? 1 : 0); }

Result<BitmapEntry> parse_entry(SpanReader& reader) {
  const size_t start = reader.position();
  BitmapEntry entry;
  entry.table = HostOffset(reader.be64());
  entry.table_entries = reader.be32();
  entry.flags = reader.be32();
  entry.type = reader.u8();
  entry.granularity_bits = reader.u8();
  const uint16_t name_length = reader.be16();
  const uint32_t extra_length = reader.be32();
  const Bytes extra = reader.bytes(extra_length);
  const Bytes name = reader.bytes(name_length);
  reader.skip((8 - reader.position() % 8) % 8);
  if (!reader.ok() || name_length == 0) return damaged(start);
  entry.extra.assign(extra.begin(), extra.end());
  entry.name = as_text(name);
  if (entry.name.find('\0') != std::string::npos) return damaged(start);
  return entry;
}

void append(std::vector<std::byte>& target, Bytes bytes) {
  target.insert(target.end(), bytes.begin(), bytes.end());
}

}  // namespace

Result<BitmapsExtension> parse_bitmaps_extension(Bytes content, const Geometry& geometry) {
  SpanReader reader(content);
  BitmapsExtension extension;
  extension.count = reader.be32();
  reader.skip(4);
  extension.directory_bytes = reader.be64();
  extension.directory = HostOffset(reader.be64());
  const uint64_t least = uint64_t{extension.count} * kBitmapEntryHeadBytes;
  const bool is_right =
      reader.ok() && reader.left() == 0 && extension.count != 0 && extension.count <= kBitmapsMax &&
      extension.directory_bytes >= least && extension.directory_bytes <= kBitmapDirectoryBytesMax &&
      extension.directory != HostOffset(0) && extension.directory.value() <= kOffsetMax &&
      extension.directory.is_aligned(geometry.cluster_size());
  if (!is_right) return Error::of(ErrorKind::kCorrupt, "parse bitmaps extension");
  return extension;
}

std::vector<std::byte> encode_bitmaps_extension(const BitmapsExtension& extension) {
  std::vector<std::byte> content(kBitmapsExtensionBytes);
  store_be32(&content[0], extension.count);
  store_be64(&content[8], extension.directory_bytes);
  store_be64(&content[16], extension.directory.value());
  return content;
}

Result<std::vector<BitmapEntry>> parse_bitmap_directory(Bytes directory, uint32_t count) {
  if (count > directory.size() / kBitmapEntryHeadBytes) return damaged(0);
  std::vector<BitmapEntry> entries;
  entries.reserve(count);
  std::set<std::string_view> names;
  SpanReader reader(directory);
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(BitmapEntry entry, parse_entry(reader));
    entries.push_back(std::move(entry));
    if (!names.insert(entries.back().name).second) return damaged(reader.position());
  }
  if (reader.left() != 0) return damaged(reader.position());
  return entries;
}

std::vector<std::byte> encode_bitmap_directory(const std::vector<BitmapEntry>& entries) {
  std::vector<std::byte> directory;
  for (const BitmapEntry& entry : entries) {
    std::vector<std::byte> head(kBitmapEntryHeadBytes);
    store_be64(&head[0], entry.table.value());
    store_be32(&head[8], entry.table_entries);
    store_be32(&head[kBitmapEntryFlagsAt], entry.flags);
    head[16] = static_cast<std::byte>(entry.type);
    head[17] = static_cast<std::byte>(entry.granularity_bits);
    store_be16(&head[18], static_cast<uint16_t>(entry.name.size()));
    store_be32(&head[20], static_cast<uint32_t>(entry.extra.size()));
    append(directory, head);
    append(directory, entry.extra);
    append(directory, as_bytes(entry.name));
    directory.resize((directory.size() + 7) / 8 * 8);
  }
  return directory;
}

uint64_t bitmap_bytes(ByteCount size, uint32_t granularity_bits) {
  return divide_up(divide_up(size.value(), uint64_t{1} << granularity_bits), 8);
}

uint64_t bitmap_table_entries(ByteCount size, uint32_t granularity_bits, const Geometry& geometry) {
  return divide_up(bitmap_bytes(size, granularity_bits), geometry.cluster_size());
}

const char* fault_of_bitmap(const BitmapEntry& entry, ByteCount size, const Geometry& geometry) {
  if (entry.table == HostOffset(0) && entry.table_entries != 0) return "has no table";
  if (!entry.table.is_aligned(geometry.cluster_size())) return "has a misaligned table";
  if (entry.table.value() > kOffsetMax) return "has a table beyond all files";
  if ((entry.flags & ~kKnownFlags) != 0) return "has reserved flags set";
  if (entry.granularity_bits > kGranularityBitsPossible) return "has an impossible granularity";
  if (entry.is_auto() && entry.type != kDirtyTrackingType)
    return "tracks changes but is no bitmap of them";
  if (entry.is_in_use()) return nullptr;
  const uint64_t needed = bitmap_table_entries(size, entry.granularity_bits, geometry);
  if (entry.type == kDirtyTrackingType && entry.table_entries != needed) {
    return "has a table of another length than the disk's size asks for";
  }
  return nullptr;
}

const char* why_unusable(const BitmapEntry& entry, ByteCount size) {
  if (entry.type != kDirtyTrackingType) return "is of an unknown type";
  if (!entry.extra.empty() && (entry.flags & kBitmapExtraCompatible) == 0) {
    return "has extra data that is not known here";
  }
  if (entry.name.size() > kBitmapNameBytesMax) return "has a name of more than 1023 bytes";
  if (entry.granularity_bits < kBitmapGranularityBitsMin ||
      entry.granularity_bits > kBitmapGranularityBitsMax) {
    return "has a granularity outside of 512 bytes to 2 GiB";
  }
  if (bitmap_bytes(size, entry.granularity_bits) > kBitmapBytesMax) {
    return "needs more than 512 MiB";
  }
  return nullptr;
}

const char* fault_of_bitmap_table_entry(uint64_t raw, const Geometry& geometry) {
  if ((raw & kTableEntryReserved) != 0) return "has reserved bits set";
  const HostOffset cluster = bitmap_cluster(raw);
  if (!cluster.is_aligned(geometry.cluster_size())) return "is not cluster aligned";
  if (cluster != HostOffset(0) && (raw & kBitmapAllOnes) != 0) {
    return "has a cluster and is all ones";
  }
  return nullptr;
}

}  // namespace ringdisk::qcow2
