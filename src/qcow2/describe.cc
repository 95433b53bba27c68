// SPDX-License-Identifier: Apache-2.0
// Header and snapshot table as `info` shows them; keys and order are qemu-img's.
#include "qcow2/describe.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "base/log.h"
#include "block/data_encryption.h"
#include "qcow2/bitmaps/bitmap_reader.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

DescribedField describe_bitmap(const BitmapEntry& entry) {
  DescribedField flags = text_field("flags", "");
  flags.kind = DescribedField::Kind::kList;
  if (entry.is_in_use()) flags.children.push_back(text_field("", "in-use"));
  if (entry.is_auto()) flags.children.push_back(text_field("", "auto"));
  DescribedField bitmap;
  bitmap.kind = DescribedField::Kind::kObject;
  bitmap.children.push_back(std::move(flags));
  bitmap.children.push_back(text_field("name", entry.name));
  bitmap.children.push_back(
      number_field("granularity", uint64_t{1} << (entry.granularity_bits & 63)));
  return bitmap;
}

// `encrypt`: null where the image is not encrypted.
std::vector<DescribedField> specific_fields(const Header& header,
                                            const std::vector<BitmapEntry>& bitmaps,
                                            const DescribedField* encrypt) {
  std::vector<DescribedField> fields;
  fields.push_back(text_field("compat", header.version == 2 ? "0.10" : "1.1"));
  fields.push_back(
      text_field("compression-type", header.compression == Compression::kZstd ? "zstd" : "zlib"));
  if (header.version == 2) {
    fields.push_back(number_field("refcount-bits", header.geometry().refcount_bits()));
    if (encrypt) fields.push_back(*encrypt);
    return fields;
  }
  const bool lazy = (header.compatible_features & kCompatibleLazyRefcounts) != 0;
  const bool extended = (header.incompatible_features & kIncompatibleExtendedL2) != 0;
  fields.push_back(bool_field("lazy-refcounts", lazy));
  if (!bitmaps.empty()) {
    DescribedField list = text_field("bitmaps", "");
    list.kind = DescribedField::Kind::kList;
    for (const BitmapEntry& entry : bitmaps) list.children.push_back(describe_bitmap(entry));
    fields.push_back(std::move(list));
  }
  fields.push_back(number_field("refcount-bits", header.geometry().refcount_bits()));
  if (encrypt) fields.push_back(*encrypt);
  if (header.has_data_file()) {
    if (std::string name = header.data_file_name(); !name.empty()) {
      fields.push_back(text_field("data-file", std::move(name)));
    }
    fields.push_back(bool_field("data-file-raw", header.data_file_is_raw()));
  }
  fields.push_back(bool_field("corrupt", header.is_corrupt()));
  fields.push_back(bool_field("extended-l2", extended));
  return fields;
}

SnapshotDescription describe_snapshot(const Snapshot& snapshot) {
  SnapshotDescription described;
  described.id = snapshot.id;
  described.name = snapshot.name;
  described.vm_state_size = snapshot.vm_state_size;
  described.date_seconds = snapshot.date_seconds;
  described.date_nanoseconds = snapshot.date_nanoseconds;
  described.vm_clock_nanoseconds = snapshot.vm_clock_nanoseconds;
  described.icount = snapshot.instruction_count;
  return described;
}

}  // namespace

Task<Header> read_header(StorageAccess& storage, Diagnostics& diagnostics) {
  Header header = co_await read_header_for_check(storage, diagnostics);
  co_await check_has_refcounts(header, diagnostics, storage.node_id());
  co_return std::move(header);
}

Task<Header> read_header_for_check(StorageAccess& storage, Diagnostics& diagnostics) {
  const auto length =
      static_cast<size_t>(std::min<uint64_t>(kHeaderBytesMax, storage.size().value()));
  Buffer buffer = Shard::current().buffers().take(kHeaderBytesMax);
  MutableBytes bytes = buffer.first(length);
  co_await storage.read(HostOffset(0), MutableBuffers(bytes));
  co_return parse_header(bytes, diagnostics, storage.node_id());
}

// The table's length stands nowhere: a piece is read and parsed, a larger one if it was too short.
Task<SnapshotTable> read_snapshots(StorageAccess& storage, const Header& header,
                                   Diagnostics& diagnostics) {
  constexpr uint64_t kFirstPiece = 64 * limits::kKiB;
  if (header.snapshot_count == 0) co_return SnapshotTable();
  const uint64_t start = header.snapshot_table.value();
  const uint64_t end = storage.size().value();
  const uint64_t there = start < end ? end - start : 0;
  const uint64_t length_max =
      std::min(there, limits::kQcow2SnapshotTableBytesMax + kSnapshotEntryBytesMax);
  for (uint64_t length = std::min(kFirstPiece, length_max);;
       length = std::min(length * 8, length_max)) {
    const uint64_t clusters = header.geometry().clusters_of(length);
    Buffer buffer = Shard::current().buffers().take(clusters << header.cluster_bits);
    MutableBytes bytes = buffer.first(clusters << header.cluster_bits);
    fill_zero(bytes.subspan(length));  // what a file lacks of its last cluster
    for (uint64_t at = 0; at < length; at += limits::kRequestBytesMax) {
      MutableBytes piece = bytes.subspan(at, std::min(limits::kRequestBytesMax, length - at));
      co_await storage.read(header.snapshot_table + ByteCount(at), MutableBuffers(piece));
    }
    Result<SnapshotTable> table = parse_snapshots(bytes, header.snapshot_count);
    if (table.ok()) co_return std::move(table);
    if (length == length_max) {
      co_return diagnostics.explain(table.error(), storage.node_id(),
                                    "the snapshot table is cut short or damaged");
    }
  }
}

namespace {

// What nobody here knows may change what all the rest means.
Result<void> refuse_unknown_features(const Header& header, Diagnostics& diagnostics,
                                     uint32_t node) {
  const uint64_t unknown = header.incompatible_features & ~kIncompatibleKnown;
  if (unknown == 0) return {};
  return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "open"), node,
                             "unknown incompatible features: " +
                                 names_of_features(header, FeatureSet::kIncompatible, unknown));
}

// Damaged ones are told of, and the rest is described.
Task<std::vector<BitmapEntry>> describe_bitmaps(StorageAccess& storage, const Header& header,
                                                const World& world) {
  Result<BitmapDirectory> directory =
      co_await read_bitmap_directory(storage, header, world.diagnostics).result();
  if (directory.ok()) co_return std::move(directory.value().entries);
  if (directory.error().kind != ErrorKind::kCorrupt) co_return directory.error();
  world.log.warning(world.diagnostics.describe(directory.error()));
  co_return std::vector<BitmapEntry>();
}

// A header that cannot be understood is told of, and the rest is described.
Task<DescribedField> describe_encryption(StorageAccess& storage, const Header& header,
                                         const World& world, const DataEncryption* encryption) {
  DescribedField field;
  field.key = "encrypt";
  field.kind = DescribedField::Kind::kObject;
  const std::optional<HostRange> place = header.encryption_header();
  if (place && encryption) {
    Result<std::vector<DescribedField>> described =
        co_await encryption->describe(world, storage, *place).result();
    if (described.ok()) {
      field.children = std::move(described).value();
    } else {
      world.log.warning(world.diagnostics.describe(described.error()));
    }
  }
  // Where qemu-img has it.
  auto is_behind = [](const DescribedField& child) { return child.key == "cipher-mode"; };
  const bool is_luks = header.encryption == Encryption::kLuks;
  field.children.insert(std::ranges::find_if(field.children, is_behind),
                        text_field("format", is_luks ? "luks" : "aes"));
  co_return std::move(field);
}

Task<ImageDescription> describe_with(StorageAccess& storage, const World& world,
                                     const DataEncryption* encryption) {
  Diagnostics& diagnostics = world.diagnostics;
  Header header = co_await read_header(storage, diagnostics);
  co_await refuse_unknown_features(header, diagnostics, storage.node_id());
  SnapshotTable table = co_await read_snapshots(storage, header, diagnostics);
  std::vector<BitmapEntry> bitmaps = co_await describe_bitmaps(storage, header, world);
  ImageDescription described;
  described.virtual_size = header.size;
  described.cluster_size = ByteCount(header.geometry().cluster_size());
  described.dirty = header.is_dirty();
  described.corrupt = header.is_corrupt();
  described.encrypted = header.is_encrypted();
  described.backing_name = header.backing_name;
  described.backing_format = header.backing_format;
  for (const Snapshot& snapshot : table.snapshots) {
    described.snapshots.push_back(describe_snapshot(snapshot));
  }
  if (header.is_encrypted()) {
    const DescribedField encrypt = co_await describe_encryption(storage, header, world, encryption);
    described.specific = specific_fields(header, bitmaps, &encrypt);
  } else {
    described.specific = specific_fields(header, bitmaps, nullptr);
  }
  co_return std::move(described);
}

}  // namespace

Task<ImageDescription> describe_image(const World& world, SharedStorage& storage,
                                      const DataEncryption* encryption) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  co_return co_await describe_with(*access, world, encryption).result();
}

}  // namespace ringdisk::qcow2
