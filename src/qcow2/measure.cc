// SPDX-License-Identifier: Apache-2.0
// Arithmetic on a plan; nothing is opened.
#include "qcow2/measure.h"

#include <bit>

#include "base/diagnostics.h"
#include "qcow2/create.h"
#include "qcow2/layout/bitmap_directory.h"

namespace ringdisk::qcow2 {
namespace {

Result<ByteCount> encryption_bytes_of(const CreateSettings& settings, Diagnostics& diagnostics,
                                      const DataEncryption* encryption) {
  if (!settings.encryption) return ByteCount(0);
  if (encryption) return encryption->measure(diagnostics, *settings.encryption);
  return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "create"),
                             "encryption is not supported here");
}

// All clusters in one file: those of a data file are to be counted, too.
CreateSettings as_if_preallocated(CreateSettings settings) {
  settings.header.incompatible_features &= ~kIncompatibleDataFile;
  settings.preallocation = Preallocation::kMetadata;
  return settings;
}

// As they are copied: whatever is dirty, each has all of its clusters.
ByteCount bitmaps_bytes(const std::vector<BitmapDescription>& bitmaps, ByteCount disk_size,
                        const Geometry& geometry) {
  uint64_t clusters = 0, directory_bytes = 0;
  for (const BitmapDescription& bitmap : bitmaps) {
    const auto bits = static_cast<uint32_t>(std::countr_zero(bitmap.granularity));
    const uint64_t entries = bitmap_table_entries(disk_size, bits, geometry);
    clusters += entries + geometry.clusters_of(entries * kEntryBytes);
    BitmapEntry entry;
    entry.name = bitmap.name;
    directory_bytes += entry.encoded_bytes();
  }
  clusters += geometry.clusters_of(directory_bytes);
  return ByteCount(clusters * geometry.cluster_size());
}

}  // namespace

Task<MeasureReport> measure_image(const World& world, MeasureRequest request,
                                  const DataEncryption* encryption) {
  Diagnostics& diagnostics = world.diagnostics;
  CreateRequest asked;
  asked.size = request.size;
  asked.options = request.options;
  CreateSettings settings = co_await parse_create_options(asked, diagnostics);
  settings.encryption_bytes = co_await encryption_bytes_of(settings, diagnostics, encryption);
  co_await plan_layout(settings, diagnostics);
  const Layout layout = lay_out(as_if_preallocated(settings));
  const Geometry geometry = settings.header.geometry();
  const uint64_t cluster_size = geometry.cluster_size();
  MeasureReport report;
  report.fully_allocated = report.required = ByteCount(layout.total * cluster_size);
  const bool takes_all_space = settings.preallocation == Preallocation::kFalloc ||
                               settings.preallocation == Preallocation::kFull;
  if (!takes_all_space) {
    ByteCount content(0);
    // Nobody knows what of it the backing image holds.
    if (request.count_content && settings.header.has_backing) {
      content = ByteCount(layout.data_clusters * cluster_size);
    } else if (request.count_content) {
      content = co_await request.count_content(ByteCount(cluster_size));
    }
    report.required -= ByteCount(layout.data_clusters * cluster_size) - content;
  }
  if (settings.header.version >= 3 && request.bitmaps) {
    report.bitmaps = bitmaps_bytes(*request.bitmaps, request.size, geometry);
  }
  co_return report;
}

}  // namespace ringdisk::qcow2
