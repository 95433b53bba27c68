// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps as a check sees them: their clusters are counted and marked, entries of the
// directory and of tables are judged. What is inconsistent after a crash (in use) is no fault, as
// `qemu-img check` has it: `bitmap --remove` takes it away.
#include <algorithm>

#include "base/diagnostics.h"
#include "qcow2/bitmaps/bitmap_reader.h"
#include "qcow2/check/checker.h"

namespace ringdisk::qcow2 {
namespace {

using Number = unsigned long long;

// Bounds what a hostile directory makes a check read: a table of 64 MiB describes 512 GiB of bits
// at 64 KiB clusters.
constexpr uint32_t kTableEntriesMax = 8 << 20;
// Of all tables together: a hostile directory may name the same one by the thousand.
constexpr uint64_t kAllEntriesMax = 32 << 20;
constexpr uint64_t kEntriesAtOnce = limits::kMiB / kEntryBytes;

}  // namespace

Task<void> Checker::refer_bitmaps(uint32_t flag) {
  // Without the autoclear bit the extension is stale, and its clusters are leaks.
  if (!has_valid_bitmaps(image_->header)) co_return;
  const HeaderExtension* extension = image_->header.find_extension(ExtensionType::kBitmaps);
  Result<BitmapsExtension> place = parse_bitmaps_extension(extension->content, image_->geometry());
  if (!place.ok()) {
    findings_.add(FindingKind::kLostPointer, CheckStage::kTables, 0,
                  "the bitmap extension is damaged");
    co_return;
  }
  const bool is_there = refer_table(place.value().directory, place.value().directory_bytes,
                                    "bitmap directory", ReferenceCounts::kFixedTable);
  if (!is_there) co_return;
  Result<BitmapDirectory> directory =
      co_await read_bitmap_directory(*storage_, image_->header, world_.diagnostics).result();
  if (!directory.ok() && directory.error().kind == ErrorKind::kCorrupt) {
    findings_.add(FindingKind::kLostPointer, CheckStage::kTables, 0,
                  "the bitmap directory is damaged");
    co_return;
  }
  const BitmapDirectory read = co_await std::move(directory);
  uint64_t all_entries = 0;
  for (size_t i = 0; i < read.entries.size(); ++i) {
    co_await admit_more();
    all_entries += read.entries[i].table_entries;
    if (all_entries > kAllEntriesMax) {
      findings_.add(FindingKind::kLostPointer, CheckStage::kTables, i,
                    "the bitmap tables are larger than any real ones");
      co_return;
    }
    judge_bitmap(read.entries[i], i);
    co_await refer_bitmap(read.entries[i], i, flag);
  }
}

void Checker::judge_bitmap(const BitmapEntry& entry, uint64_t number) {
  const char* fault = fault_of_bitmap(entry, image_->header.size, image_->geometry());
  if (!fault) return;
  findings_.add(FindingKind::kOther, CheckStage::kTables, number, "bitmap directory entry %llu %s",
                static_cast<Number>(number), fault);
}

Task<void> Checker::refer_bitmap(const BitmapEntry& entry, uint64_t number, uint32_t flag) {
  const Geometry& geometry = image_->geometry();
  if (entry.table_entries == 0) co_return;
  if (entry.table_entries > kTableEntriesMax || !entry.table.is_aligned(geometry.cluster_size())) {
    findings_.add(FindingKind::kLostPointer, CheckStage::kTables, number,
                  "a bitmap table of %u entries at offset %#llx breaks the limits",
                  entry.table_entries, static_cast<Number>(entry.table.value()));
    co_return;
  }
  const uint64_t length = uint64_t{entry.table_entries} * kEntryBytes;
  if (!refer_table(entry.table, length, "bitmap table", flag)) co_return;
  for (uint64_t done = 0; done < entry.table_entries; done += kEntriesAtOnce) {
    const uint64_t count = std::min(kEntriesAtOnce, entry.table_entries - done);
    const std::vector<uint64_t> table = co_await read_bitmap_table(*storage_, entry, done, count);
    for (uint64_t raw : table) {
      const char* fault = fault_of_bitmap_table_entry(raw, geometry);
      if (fault) {
        findings_.add(FindingKind::kLostPointer, CheckStage::kTables, raw,
                      "bitmap table entry %#llx %s", static_cast<Number>(raw), fault);
      }
      const HostOffset cluster = bitmap_cluster(raw);
      if (cluster == HostOffset(0) || !cluster.is_aligned(geometry.cluster_size())) continue;
      refer_table(cluster, geometry.cluster_size(), "bitmap", flag);
    }
  }
}

}  // namespace ringdisk::qcow2
