// SPDX-License-Identifier: Apache-2.0
// The tables in one piece: where the words stand that name them. The refcount table is not among
// them: refcount_blocks.h moves it.
#include "qcow2/compact/tail_pointers.h"
#include "qcow2/describe.h"

namespace ringdisk::qcow2 {
namespace {

// Of the header.
constexpr uint64_t kL1TableAt = 40;
constexpr uint64_t kSnapshotTableAt = 64;
// Of the bitmaps extension.
constexpr uint64_t kBitmapDirectoryAt = 16;

}  // namespace

const char* name_of(TailKind kind) {
  switch (kind) {
    case TailKind::kData:
      return "data";
    case TailKind::kStream:
      return "a compressed cluster";
    case TailKind::kBitmap:
      return "bits of a bitmap";
    case TailKind::kTable:
      return "an L2 table";
    case TailKind::kBitmapTable:
      return "a bitmap's table";
    case TailKind::kL1Table:
      return "an L1 table";
    case TailKind::kSnapshotTable:
      return "the snapshot table";
    case TailKind::kBitmapDirectory:
      return "the bitmap directory";
    case TailKind::kEncryptionHeader:
      return "the encryption header";
  }
  UNREACHABLE("no such kind");
}

namespace {

void add(TailRoots& roots, TailKind kind, HostOffset at, uint64_t bytes, uint64_t place) {
  if (bytes == 0) return;
  const Geometry geometry = roots.header.geometry();
  TailPointer pointer;
  pointer.target = pointer.raw = at.value();
  pointer.place = place;
  pointer.length = static_cast<uint32_t>(geometry.clusters_of(bytes) << geometry.cluster_bits());
  pointer.kind = kind;
  roots.tables.push_back(pointer);
}

// What a writer could keep in mind (bitmap_keeper.h): tables without fault, bounded.
void add_bitmaps(TailRoots& roots) {
  const BitmapDirectory& bitmaps = roots.bitmaps;
  if (bitmaps.entries.empty()) return;
  uint64_t place = bitmaps.place.directory.value();
  for (const BitmapEntry& entry : bitmaps.entries) {
    add(roots, TailKind::kBitmapTable, entry.table, uint64_t{entry.table_entries} * kEntryBytes,
        place);
    place += entry.encoded_bytes();
  }
  const HeaderExtension* extension = roots.header.find_extension(ExtensionType::kBitmaps);
  add(roots, TailKind::kBitmapDirectory, bitmaps.place.directory, bitmaps.place.directory_bytes,
      extension->place + kBitmapDirectoryAt);
}

void add_encryption_header(TailRoots& roots) {
  const std::optional<HostRange> header = roots.header.encryption_header();
  if (!header) return;
  const HeaderExtension* extension = roots.header.find_extension(ExtensionType::kEncryptionHeader);
  add(roots, TailKind::kEncryptionHeader, header->offset, header->length.value(), extension->place);
}

}  // namespace

Task<TailRoots> read_tail_roots(HomeParts parts) {
  TailRoots roots;
  Diagnostics& diagnostics = parts.image.world.diagnostics;
  roots.header = co_await read_header(parts.storage, diagnostics);
  roots.snapshots = co_await read_snapshots(parts.storage, roots.header, diagnostics);
  roots.bitmaps = co_await read_bitmap_directory(parts.storage, roots.header, diagnostics);
  const Header& header = roots.header;
  add(roots, TailKind::kL1Table, header.l1_table, uint64_t{header.l1_size} * kEntryBytes,
      kL1TableAt);
  for (const Snapshot& one : roots.snapshots.snapshots) {
    if (uint64_t{one.l1_size} * kEntryBytes > limits::kQcow2L1BytesMax) {
      co_return Error::of(ErrorKind::kCorrupt, "read L1 table", one.l1_table.value());
    }
    add(roots, TailKind::kL1Table, one.l1_table, uint64_t{one.l1_size} * kEntryBytes,
        header.snapshot_table.value() + one.place);
  }
  add(roots, TailKind::kSnapshotTable, header.snapshot_table, roots.snapshots.length,
      kSnapshotTableAt);
  add_bitmaps(roots);
  add_encryption_header(roots);
  co_return std::move(roots);
}

}  // namespace ringdisk::qcow2
