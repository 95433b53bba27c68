// SPDX-License-Identifier: Apache-2.0
// Bounds first, then bytes.
#include "qcow2/bitmaps/bitmap_reader.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "base/endian.h"
#include "runtime/shard.h"

namespace ringdisk::qcow2 {
namespace {

bool lies_in_file(HostOffset at, uint64_t length, const StorageAccess& storage) {
  const uint64_t end = storage.size().value();
  return at.value() <= end && length <= end - at.value();
}

}  // namespace

std::optional<size_t> BitmapDirectory::find(std::string_view name) const {
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].name == name) return i;
  }
  return std::nullopt;
}

bool has_valid_bitmaps(const Header& header) {
  return header.version >= 3 && (header.autoclear_features & kAutoclearBitmaps) != 0 &&
         header.find_extension(ExtensionType::kBitmaps) != nullptr;
}

Task<BitmapDirectory> read_bitmap_directory(StorageAccess& storage, const Header& header,
                                            Diagnostics& diagnostics) {
  BitmapDirectory directory;
  if (!has_valid_bitmaps(header)) co_return std::move(directory);
  auto damaged = [&](Error error, const char* what) {
    return diagnostics.explain(error, storage.node_id(),
                               std::string(what) + "; 'ringdisk check' tells more");
  };
  const HeaderExtension* extension = header.find_extension(ExtensionType::kBitmaps);
  Result<BitmapsExtension> place = parse_bitmaps_extension(extension->content, header.geometry());
  if (!place.ok()) co_return damaged(place.error(), "the bitmaps extension is damaged");
  directory.place = place.value();
  const uint64_t length = directory.place.directory_bytes;
  if (!lies_in_file(directory.place.directory, length, storage)) {
    const Error error = Error::of(ErrorKind::kCorrupt, "read bitmap directory");
    co_return damaged(error, "the bitmap directory lies beyond the end of the file");
  }
  std::vector<std::byte> bytes(length);
  for (uint64_t done = 0; done < length; done += limits::kRequestBytesMax) {
    const uint64_t piece = std::min(limits::kRequestBytesMax, length - done);
    MutableBytes target = MutableBytes(bytes).subspan(done, piece);
    co_await storage.read(directory.place.directory + ByteCount(done), MutableBuffers(target));
  }
  Result<std::vector<BitmapEntry>> entries = parse_bitmap_directory(bytes, directory.place.count);
  if (!entries.ok()) co_return damaged(entries.error(), "the bitmap directory is damaged");
  directory.entries = std::move(entries).value();
  co_return std::move(directory);
}

Task<std::vector<uint64_t>> read_bitmap_table(StorageAccess& storage, const BitmapEntry& entry,
                                              uint64_t first, uint64_t count) {
  constexpr uint64_t kAtOnce = limits::kMiB / kEntryBytes;
  const uint64_t bytes = (first + count) * kEntryBytes;
  if (!lies_in_file(entry.table, bytes, storage)) {
    co_return Error::of(ErrorKind::kCorrupt, "read bitmap table", entry.table.value());
  }
  std::vector<uint64_t> table(count);
  Buffer buffer = Shard::current().buffers().take(std::min(kAtOnce, count) * kEntryBytes + 1);
  for (uint64_t done = 0; done < count;) {
    const uint64_t piece = std::min(kAtOnce, count - done);
    MutableBytes target = buffer.first(piece * kEntryBytes);
    const ByteCount before((first + done) * kEntryBytes);
    co_await storage.read(entry.table + before, MutableBuffers(target));
    for (uint64_t i = 0; i < piece; ++i) table[done + i] = load_be64(&target[i * kEntryBytes]);
    done += piece;
  }
  co_return std::move(table);
}

Task<std::shared_ptr<DirtyBits>> read_bitmap_bits(StorageAccess& storage, const BitmapEntry& entry,
                                                  ByteCount size, const Geometry& geometry) {
  const uint64_t cluster = geometry.cluster_size();
  const std::vector<uint64_t> table =
      co_await read_bitmap_table(storage, entry, 0, entry.table_entries);
  auto bits = std::make_shared<DirtyBits>(size, entry.granularity_bits);
  Buffer buffer = Shard::current().buffers().take(cluster);
  MutableBytes bytes = buffer.first(cluster);
  for (size_t i = 0; i < table.size(); ++i) {
    const HostOffset at = bitmap_cluster(table[i]);
    if (fault_of_bitmap_table_entry(table[i], geometry) || !lies_in_file(at, 0, storage)) {
      co_return Error::of(ErrorKind::kCorrupt, "read bitmap table", entry.table.value());
    }
    if (table[i] == 0) continue;
    if (at == HostOffset(0)) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
    } else {
      co_await storage.read(at, MutableBuffers(bytes));
    }
    bits->load(i * cluster, bytes);
  }
  co_return std::move(bits);
}

static Error inconsistent(const std::string& name, const char* operation, Diagnostics& diagnostics,
                          uint32_t node) {
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, operation), node,
                             "Bitmap '" + name +
                                 "' is inconsistent and cannot be used; 'ringdisk bitmap "
                                 "--remove' takes it out of the image");
}

Result<size_t> choose_bitmap(const BitmapDirectory& directory, std::string_view name,
                             const Header& header, Diagnostics& diagnostics, uint32_t node) {
  const std::optional<size_t> index = directory.find(name);
  const std::string quoted = "'" + std::string(name) + "'";
  if (!index) {
    return diagnostics.explain(Error::of(ErrorKind::kNotFound, "find bitmap"), node,
                               "Dirty bitmap " + quoted + " not found");
  }
  const BitmapEntry& entry = directory.entries[*index];
  if (entry.is_in_use()) return inconsistent(entry.name, "read bitmap", diagnostics, node);
  if (const char* why = why_unusable(entry, header.size)) {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "read bitmap"), node,
                               "bitmap " + quoted + " " + why + " and cannot be used");
  }
  return *index;
}

Result<void> check_bitmap_sizes(const BitmapDirectory& directory, ByteCount size,
                                ByteCount new_size, Diagnostics& diagnostics, uint32_t node) {
  for (const BitmapEntry& entry : directory.entries) {
    if (entry.is_in_use()) return inconsistent(entry.name, "resize", diagnostics, node);
    const char* why = why_unusable(entry, size);
    if (!why) why = why_unusable(entry, new_size);
    if (!why && new_size.is_zero()) why = "cannot be of a disk of no size";
    if (!why) continue;
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "resize"), node,
                               "bitmap '" + entry.name + "' " + why +
                                   ", so it cannot follow the disk to another size; 'ringdisk "
                                   "bitmap --remove' takes it out of the image");
  }
  return {};
}

Result<void> judge_bitmap(const BitmapEntry& entry, const Header& header, Diagnostics& diagnostics,
                          uint32_t node) {
  const char* fault = fault_of_bitmap(entry, header.size, header.geometry());
  if (!fault) return {};
  return diagnostics.explain(
      Error::of(ErrorKind::kCorrupt, "read bitmap"), node,
      "bitmap '" + entry.name + "' " + fault + "; 'ringdisk check' tells more");
}

std::vector<BitmapDescription> describe_bitmaps(const BitmapDirectory& directory, ByteCount size) {
  std::vector<BitmapDescription> described;
  for (const BitmapEntry& entry : directory.entries) {
    BitmapDescription one;
    one.name = entry.name;
    one.granularity = uint64_t{1} << (entry.granularity_bits & 63);
    one.is_enabled = entry.is_auto();
    one.is_usable = !entry.is_in_use() && !why_unusable(entry, size);
    described.push_back(std::move(one));
  }
  return described;
}

}  // namespace ringdisk::qcow2
