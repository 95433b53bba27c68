// SPDX-License-Identifier: Apache-2.0
// A new snapshot table in place of one whose entries lack fields that version 3 asks for, or have
// more behind them than any program takes, as the edits of snapshots put one in place: it is
// written to clusters of its own, whose refcounts are durable, and becomes the image's by one write
// of twelve bytes of the header, which lie in one sector. Nothing then points to the old clusters.
// The new table says what the old one said; an entry without a disk size gets the image's, which is
// what it meant.
#include <algorithm>

#include "base/endian.h"
#include "qcow2/check/repair.h"

namespace ringdisk::qcow2 {

ClusterIndex Repair::first_behind_all() const {
  const bool grows = checker_.storage().limits().grows;
  const uint64_t file_clusters = checker_.image().rules.file_clusters;
  return ClusterIndex(std::max(found_.end_cluster, grows ? file_clusters : 0));
}

bool Repair::has_room_until(ClusterIndex end) const {
  const StorageAccess& storage = checker_.storage();
  return storage.limits().grows ||
         end.value() <= storage.size().value() >> geometry().cluster_bits();
}

// What prevents it is said, and the table stays: the image can be used as it is.
void Repair::plan_snapshot_table() {
  const CheckedImage& image = checker_.image();
  NewSnapshotTable table;
  std::vector<Snapshot> snapshots = checker_.snapshots();
  for (Snapshot& one : snapshots) {
    if (one.has_too_much()) one.unknown_extra.resize(kSnapshotExtraBytesMax - 24);
  }
  table.bytes = encode_snapshots(snapshots, image.header.size);
  table.first = first_behind_all();
  table.clusters = geometry().clusters_of(table.bytes.size());
  const char* obstacle = nullptr;
  if (table.bytes.size() > limits::kQcow2SnapshotTableBytesMax) {
    obstacle = "would be larger than it may be; delete snapshots";
  } else if (!has_room_until(table.end())) {
    obstacle = "has no space behind the image";
  }
  if (obstacle) {
    done_.add(FindingKind::kOther, CheckStage::kSnapshotTable, 0, "a new snapshot table %s",
              obstacle);
    return;
  }
  const uint64_t last = table.end().value() - 1;
  for (uint64_t block = geometry().refcount_block_of(table.first);
       block <= geometry().refcount_block_of(ClusterIndex(last)); ++block) {
    table.lacks_blocks = table.lacks_blocks || !image.has_block(block);
  }
  new_snapshots_ = std::move(table);
}

// Its refcounts are durable.
Task<void> Repair::switch_snapshot_tables() {
  StorageAccess& storage = checker_.storage();
  const Bytes table(new_snapshots_->bytes);
  const HostOffset at = geometry().host_offset(new_snapshots_->first);
  co_await storage.write(at, ConstBuffers(table));
  co_await storage.flush();
  std::byte fields[12];
  store_be32(fields, checker_.image().header.snapshot_count);
  store_be64(&fields[4], at.value());
  co_await storage.write(HostOffset(kSnapshotFieldsAt), ConstBuffers(Bytes(fields)));
  co_await storage.flush();
  checker_.use_snapshot_table(at, ByteCount(table.size()));
}

}  // namespace ringdisk::qcow2
