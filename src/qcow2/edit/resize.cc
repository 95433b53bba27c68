// SPDX-License-Identifier: Apache-2.0
// The header's fields, a longer L1 table, and vm state, which makes way.
#include "qcow2/edit/resize.h"

#include <algorithm>
#include <utility>

#include "base/diagnostics.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/describe.h"
#include "qcow2/edit/edit.h"
#include "qcow2/node.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kSizeGranule = 512;

Result<void> check_size(const Header& header, ByteCount size, Diagnostics& diagnostics,
                        uint32_t node) {
  auto refuse = [&diagnostics, node](ErrorKind kind, std::string why) {
    return diagnostics.explain(Error::of(kind, "resize"), node, std::move(why));
  };
  if (size.value() % kSizeGranule != 0) {
    return refuse(ErrorKind::kInvalid, "the size of a qcow2 disk is a multiple of 512 bytes");
  }
  if (size.value() > kOffsetMax ||
      header.geometry().l1_entries_for(size) > limits::kQcow2L1BytesMax / kEntryBytes) {
    return refuse(ErrorKind::kLimit,
                  "a disk of this size needs an L1 table of more than 32 MiB at clusters of " +
                      std::to_string(header.geometry().cluster_size()) +
                      " bytes; convert it to larger clusters first");
  }
  if (header.has_data_file() && size.value() > kDataFileDiskBytesMax) {
    return refuse(ErrorKind::kLimit, "a disk with a data file has at most 32 PiB");
  }
  if (header.version == 2 && header.snapshot_count != 0) {
    return refuse(ErrorKind::kUnsupported,
                  "a version 2 image with snapshots cannot be resized; delete them, or convert it");
  }
  return {};
}

// Beside the active table there is now a longer one.
Task<HostOffset> write_longer_table(TableEditor& tables, const Header& header, uint64_t entries) {
  TableEditor::Table l1 = co_await tables.read_table(header.l1_table, header.l1_size);
  l1.resize(entries);
  const ClusterRun place = co_await tables.allocate_for(entries * kEntryBytes);
  const HostOffset at = header.geometry().host_offset(place.first);
  co_await tables.write_table(at, l1);
  co_await tables.flush();
  co_return at;
}

Task<void> move_to_longer_table(TableEditor& tables, const Header& header, ByteCount size,
                                uint64_t entries) {
  co_await tables.set_dirty(true);
  const HostOffset at = co_await write_longer_table(tables, header, entries);
  const std::vector<std::byte> fields = encode_disk_fields(header, size, entries, at);
  if (size == header.size) {
    co_await tables.commit_header(kDiskFieldsAt, fields);
  } else {
    co_await tables.commit_size(size, fields);
  }
  const Geometry geometry = header.geometry();
  std::vector<ClusterRun> runs;
  runs.push_back({geometry.host_cluster(header.l1_table),
                  geometry.clusters_of(uint64_t{header.l1_size} * kEntryBytes)});
  const TableEditor::Table nothing;
  co_await tables.lower(nothing, runs);
  co_await tables.set_dirty(false);
}

}  // namespace

Task<void> check_new_size(const World& world, SharedStorage& storage, ByteCount size) {
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(storage, Shard::current());
  const Header header = co_await read_header(*access, world.diagnostics);
  co_await check_size(header, size, world.diagnostics, access->node_id());
  // Of those that an open for writing would give up nothing is asked.
  Result<BitmapDirectory> bitmaps =
      co_await read_bitmap_directory(*access, header, world.diagnostics).result();
  if (bitmaps.ok()) {
    co_await check_bitmap_sizes(bitmaps.value(), header.size, size, world.diagnostics,
                                access->node_id());
  } else if (bitmaps.error().kind != ErrorKind::kCorrupt) {
    co_await fail(bitmaps.error());
  }
}

namespace {

// A raw data file shows what it holds, so what it may hold beyond the old end goes first.
Task<void> grow_data_file(StorageAccess& data, const Image& image, ByteCount size) {
  const HostOffset old_end(image.header.size.value());
  const HostOffset there(std::min(size.value(), data.size().value()));
  if (image.data_file_is_raw() && old_end < there) {
    const HostRange gained = HostRange::between(old_end, there);
    co_await data.write_zeroes(gained, ZeroOptions());
  }
  if (data.limits().grows && data.size() < size) co_await data.resize(size);
  co_await data.flush();
}

Task<void> resize_tables(HomeParts parts, ByteCount size) {
  const Header& header = parts.image.header;
  TableEditor tables(parts);
  const uint64_t entries = header.geometry().l1_entries_for(size);
  if (entries <= header.l1_size) {
    const std::vector<std::byte> fields =
        encode_disk_fields(header, size, header.l1_size, header.l1_table);
    co_await tables.commit_size(size, fields);
    co_return;
  }
  Result<void> moved = co_await move_to_longer_table(tables, header, size, entries).result();
  if (!moved.ok()) co_await tables.undo();
  co_await std::move(moved);
}

}  // namespace

// Takes the entries from `first` on out of the active table, and out of `l1`: gives those.
static TableEditor::Table cut_from(TableEditor::Table& l1, uint64_t first) {
  TableEditor::Table rest(l1.size());
  for (uint64_t i = first; i < l1.size(); ++i) rest[i] = std::exchange(l1[i], 0);
  return rest;
}

// vm state lies behind the disk's end, from the next L1 entry on: a disk that reaches there would
// gain it. It goes, as QEMU has it go when a disk shrinks; that of snapshots stays theirs. In a
// data file there is none, and a raw one keeps the entries of what was cut off.
static Task<void> drop_vm_state(HomeParts parts, ByteCount size) {
  const Header& header = parts.image.header;
  const Geometry geometry = header.geometry();
  const uint64_t first = geometry.l1_entries_for(header.size);
  if (header.has_data_file() || geometry.l1_entries_for(size) <= first) co_return;
  TableEditor tables(parts);
  TableEditor::Table l1 = co_await tables.read_table(header.l1_table, header.l1_size);
  const TableEditor::Table dropped = cut_from(l1, first);
  const bool is_there = std::ranges::any_of(dropped, [](uint64_t entry) { return entry != 0; });
  if (!is_there) co_return;
  co_await tables.set_dirty(true);
  co_await tables.write_table(header.l1_table, l1);
  co_await tables.flush();
  const std::vector<ClusterRun> no_tables;
  co_await tables.lower(dropped, no_tables);
  co_await tables.set_dirty(false);
}

static Task<void> lengthen_table(HomeParts parts, ByteCount size) {
  const Header& header = parts.image.header;
  co_await check_size(header, size, parts.image.world.diagnostics, parts.image.node_id());
  co_await drop_vm_state(parts, size);
  const uint64_t entries = header.geometry().l1_entries_for(size);
  if (entries <= header.l1_size) co_return;
  TableEditor tables(parts);
  Result<void> moved = co_await move_to_longer_table(tables, header, header.size, entries).result();
  if (!moved.ok()) co_await tables.undo();
  co_await std::move(moved);
}

Task<void> prepare_growth(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size) {
  const ImageEdit lengthen = [size](HomeParts parts) { return lengthen_table(parts, size); };
  co_await edit_image(graph, std::move(storage), lengthen);
}

Result<void> show_grown(FormatNode& node, ByteCount size) {
  Image& image = static_cast<Qcow2Node&>(node).image();
  const bool has_room = image.geometry.l1_entries_for(size) <= image.l1.size();
  if (!has_room || size < image.size) return Error::of(ErrorKind::kInvalid, "resize");
  image.size = size;
  return {};
}

// The data file is never shorter than the disk says.
Task<void> resize_disk(HomeParts parts, ByteCount size) {
  const Image& image = parts.image;
  co_await check_size(image.header, size, image.world.diagnostics, image.node_id());
  co_await parts.bitmaps.check_size(size);
  const ByteCount old_size = image.header.size;
  if (parts.data && size > old_size) co_await grow_data_file(*parts.data, image, size);
  co_await resize_tables(parts, size);
  const bool cuts = parts.data && size < old_size && parts.data->limits().grows;
  if (cuts) co_await parts.data->resize(size);
}

Task<void> resize_image(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size) {
  const ImageEdit resize = [size](HomeParts parts) { return resize_disk(parts, size); };
  co_await edit_image(graph, std::move(storage), resize);
}

}  // namespace ringdisk::qcow2
