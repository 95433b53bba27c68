// SPDX-License-Identifier: Apache-2.0
// What users do to bitmaps. Edits change a copy of the list; then the whole list becomes the new
// directory. Wording of errors is QEMU's where it has one.
#include <algorithm>
#include <bit>

#include "base/diagnostics.h"
#include "qcow2/bitmaps/bitmap_keeper.h"
#include "qcow2/damage.h"
#include "qcow2/edit/header_rewrite.h"

namespace ringdisk::qcow2 {
namespace {

// As QEMU chooses it: the cluster's size, but 4 KiB to 64 KiB.
uint64_t default_granularity(const Geometry& geometry) {
  return std::clamp<uint64_t>(geometry.cluster_size(), 4 * limits::kKiB, 64 * limits::kKiB);
}

// One switch of the header's first sector, whatever else changes with it.
Result<void> point_at(Header& header, const std::optional<BitmapsExtension>& place) {
  if (place) {
    set_extension(header, ExtensionType::kBitmaps, encode_bitmaps_extension(*place));
    header.autoclear_features |= kAutoclearBitmaps;
  } else {
    remove_extension(header, ExtensionType::kBitmaps);
    header.autoclear_features &= ~kAutoclearBitmaps;
  }
  return {};
}

}  // namespace

Task<void> BitmapKeeper::edit(const std::vector<BitmapEdit>& edits) {
  if (image_.header.version < 3) {
    co_await fail(refuse(ErrorKind::kUnsupported,
                         "version 2 images have no bitmaps; convert it with -o compat=1.1"));
  }
  std::vector<Kept> kept = kept_;
  for (const BitmapEdit& edit : edits) co_await apply(edit, kept);
  Result<void> saved = co_await save_all(kept).result();
  if (!saved.ok()) co_await give_back_new();
  co_await std::move(saved);
}

Task<void> BitmapKeeper::apply(const BitmapEdit& edit, std::vector<Kept>& kept) {
  using Action = BitmapEdit::Action;
  if (edit.action == Action::kAdd) {
    co_await add(edit, kept);
    co_return;
  }
  if (edit.action == Action::kRemove) {
    co_await remove(edit, kept);
    co_return;
  }
  const size_t index = co_await choose(kept, edit.bitmap);
  BitmapEntry& entry = kept[index].entry;
  switch (edit.action) {
    case Action::kClear:
      kept[index].bits = std::make_shared<DirtyBits>(size_, entry.granularity_bits);
      kept[index].bits->clear();
      break;
    case Action::kEnable:
      entry.flags |= kBitmapAuto;
      break;
    case Action::kDisable:
      entry.flags &= ~kBitmapAuto;
      break;
    case Action::kMerge:
      co_await merge(edit, index, kept);
      break;
    case Action::kAdd:
    case Action::kRemove:
      UNREACHABLE("done above");
  }
}

Result<void> BitmapKeeper::add(const BitmapEdit& edit, std::vector<Kept>& kept) const {
  const uint64_t granularity =
      edit.granularity == 0 ? default_granularity(image_.geometry) : edit.granularity;
  if (!std::has_single_bit(granularity) || granularity < uint64_t{1} << kBitmapGranularityBitsMin ||
      granularity > uint64_t{1} << kBitmapGranularityBitsMax) {
    return refuse(ErrorKind::kInvalid,
                  "the granularity of a bitmap is a power of two from 512 bytes to 2 GiB");
  }
  if (edit.bitmap.empty() || edit.bitmap.size() > kBitmapNameBytesMax ||
      edit.bitmap.find('\0') != std::string::npos) {
    return refuse(ErrorKind::kInvalid, "the name of a bitmap has 1 to " +
                                           std::to_string(kBitmapNameBytesMax) + " bytes");
  }
  auto has_name = [&edit](const Kept& one) { return one.entry.name == edit.bitmap; };
  if (std::any_of(kept.begin(), kept.end(), has_name)) {
    return refuse(ErrorKind::kInvalid, "Bitmap already exists: " + edit.bitmap);
  }
  if (kept.size() == kBitmapsMax) {
    return refuse(ErrorKind::kLimit, "the image has as many bitmaps as it can have; remove one");
  }
  Kept added;
  added.entry.flags = kBitmapAuto;
  added.entry.granularity_bits = static_cast<uint8_t>(std::countr_zero(granularity));
  added.entry.name = edit.bitmap;
  if (size_.is_zero()) return refuse(ErrorKind::kInvalid, "a disk of no size has no bitmaps");
  if (why_unusable(added)) {
    return refuse(ErrorKind::kLimit,
                  "a bitmap of this granularity would take too much space; use a larger one");
  }
  added.bits = std::make_shared<DirtyBits>(size_, added.entry.granularity_bits);
  added.bits->clear();
  kept.push_back(std::move(added));
  return {};
}

// Whatever state it is in.
Result<void> BitmapKeeper::remove(const BitmapEdit& edit, std::vector<Kept>& kept) {
  auto has_name = [&edit](const Kept& one) { return one.entry.name == edit.bitmap; };
  const auto removed = std::find_if(kept.begin(), kept.end(), has_name);
  if (removed == kept.end()) {
    return refuse(ErrorKind::kNotFound, "Dirty bitmap '" + edit.bitmap + "' not found");
  }
  old_clusters_.insert(old_clusters_.end(), removed->clusters.begin(), removed->clusters.end());
  kept.erase(removed);
  return {};
}

Task<void> BitmapKeeper::merge(const BitmapEdit& edit, size_t target, std::vector<Kept>& kept) {
  std::shared_ptr<const DirtyBits> source = edit.source_bits;
  if (!source) {
    const size_t index = co_await choose(kept, edit.source);
    co_await load(kept[index]);
    source = kept[index].bits;
  }
  co_await load(kept[target]);
  if (source->size() != size_) {
    co_await fail(refuse(ErrorKind::kInvalid, "bitmaps '" + edit.source + "' and '" + edit.bitmap +
                                                  "' are of disks of different sizes (" +
                                                  std::to_string(source->size().value()) + " and " +
                                                  std::to_string(size_.value()) + " bytes)"));
  }
  // Itself into itself changes nothing.
  if (source != kept[target].bits) kept[target].bits->merge(*source);
}

// --- to the disk

Task<void> BitmapKeeper::save_all(std::vector<Kept>& kept) {
  for (Kept& one : kept) {
    if (one.bits && one.bits->take_changed()) co_await write_bits(one);
  }
  std::vector<ClusterRun> clusters;
  std::optional<BitmapsExtension> place;
  if (!kept.empty()) place = co_await write_directory(kept, clusters);
  co_await write_back_.flush();
  const HeaderChange change = [&place](Header& header) { return point_at(header, place); };
  Result<void> switched =
      co_await rewrite_header(storage_, image_.world.diagnostics, change).result();
  if (!switched.ok() && switched.error().kind == ErrorKind::kLimit) co_await std::move(switched);
  new_clusters_.clear();
  if (!switched.ok()) end_writing(image_, switched.error());
  co_await std::move(switched);
  old_clusters_.insert(old_clusters_.end(), directory_clusters_.begin(), directory_clusters_.end());
  directory_clusters_ = std::move(clusters);
  place_ = place.value_or(BitmapsExtension());
  kept_ = std::move(kept);
  co_await release_old();
}

Task<BitmapsExtension> BitmapKeeper::write_directory(std::vector<Kept>& kept,
                                                     std::vector<ClusterRun>& clusters) {
  std::vector<BitmapEntry> entries;
  uint64_t at = 0;
  for (Kept& one : kept) {
    one.directory_at = at;
    at += one.entry.encoded_bytes();
    entries.push_back(one.entry);
  }
  if (at > kBitmapDirectoryBytesMax) {
    co_await fail(refuse(ErrorKind::kLimit, "Not enough space in the bitmap directory"));
  }
  const std::vector<std::byte> bytes = encode_bitmap_directory(entries);
  const ClusterRun run = co_await allocate(bytes.size(), clusters);
  BitmapsExtension place;
  place.count = static_cast<uint32_t>(kept.size());
  place.directory_bytes = bytes.size();
  place.directory = image_.geometry.host_offset(run.first);
  co_await write_whole(place.directory, bytes);
  co_return place;
}

}  // namespace ringdisk::qcow2
