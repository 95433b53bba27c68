// SPDX-License-Identifier: Apache-2.0
// For tests: snapshot tables as version 2 may have them, in images of version 3: entries whose
// extra bytes do not hold all fields that version 3 asks for. Laid out by hand, byte by byte; and
// what a repair has to keep of them.
#pragma once

#include <string_view>
#include <vector>

#include "qcow2/check/damaged_image_test.h"
#include "qcow2/describe.h"
#include "qcow2/layout/snapshot_table.h"

namespace ringdisk::qcow2 {

// The entry of `snapshot` with the first `extra` bytes of the 24 that it may have.
inline std::vector<std::byte> entry_with_extra(const Snapshot& snapshot, uint32_t extra) {
  std::vector<std::byte> bytes(64);
  store_be64(&bytes[0], snapshot.l1_table.value());
  store_be32(&bytes[8], snapshot.l1_size);
  store_be16(&bytes[12], static_cast<uint16_t>(snapshot.id.size()));
  store_be16(&bytes[14], static_cast<uint16_t>(snapshot.name.size()));
  store_be32(&bytes[16], snapshot.date_seconds);
  store_be32(&bytes[20], snapshot.date_nanoseconds);
  store_be64(&bytes[24], snapshot.vm_clock_nanoseconds);
  store_be32(&bytes[32], static_cast<uint32_t>(snapshot.vm_state_size));
  store_be32(&bytes[36], extra);
  store_be64(&bytes[40], snapshot.vm_state_size);
  store_be64(&bytes[48], snapshot.disk_size.value_or(0));
  store_be64(&bytes[56], snapshot.instruction_count.value_or(0));
  bytes.resize(40 + extra);
  for (std::string_view text : {std::string_view(snapshot.id), std::string_view(snapshot.name)}) {
    const Bytes letters = as_bytes(text);
    bytes.insert(bytes.end(), letters.begin(), letters.end());
  }
  bytes.resize((bytes.size() + 7) / 8 * 8);
  return bytes;
}

// Writes `snapshots` to `at`, each with as many extra bytes as `extras` says, and leads the header
// there. The caller has made room.
inline void put_snapshots(DamagedTables& tables, uint64_t at,
                          const std::vector<Snapshot>& snapshots,
                          const std::vector<uint32_t>& extras) {
  std::vector<std::byte> table;
  for (size_t i = 0; i < snapshots.size(); ++i) {
    const std::vector<std::byte> entry = entry_with_extra(snapshots[i], extras[i]);
    table.insert(table.end(), entry.begin(), entry.end());
  }
  tables.poke(at, table);
  std::byte fields[12];
  store_be32(fields, static_cast<uint32_t>(snapshots.size()));
  store_be64(&fields[4], at);
  tables.poke(kSnapshotFieldsAt, fields);
}

// Three snapshots of an empty disk, the first and the last with entries that are not complete.
inline void plant_incomplete_snapshots(DamagedTables& tables) {
  const auto l1_size = static_cast<uint32_t>(tables.get(36) >> 32);
  std::vector<Snapshot> snapshots(3);
  for (uint32_t i = 0; i < snapshots.size(); ++i) {
    Snapshot& one = snapshots[i];
    one.l1_table = HostOffset(tables.add_cluster(1));
    one.l1_size = l1_size;
    one.id = std::to_string(i + 1);
    one.name = "snapshot " + one.id;
    one.date_seconds = 1'700'000'000 + i;
    one.date_nanoseconds = 10 + i;
    one.vm_clock_nanoseconds = 100 + i;
    one.disk_size = tables.get(24);
    one.instruction_count = 1000 + i;
  }
  put_snapshots(tables, tables.add_cluster(1), snapshots, {0, 24, 8});
}

// And of a disk like the present one, whose clusters are not counted twice yet.
inline void plant_incomplete_shared_snapshot(DamagedTables& tables) {
  plant_incomplete_snapshots(tables);
  std::byte first_entry[8];
  store_be64(first_entry, tables.get(tables.l1_table()));
  tables.poke(tables.get(tables.snapshot_table()), first_entry);
}

// The file ends with the last cluster that a refcount block counts.
inline void plant_incomplete_snapshots_before_block_end(DamagedTables& tables) {
  plant_incomplete_snapshots(tables);
  const Geometry& geometry = tables.geometry();
  const uint64_t blocks =
      geometry.refcount_block_of(geometry.host_cluster(HostOffset(tables.end())));
  tables.put(geometry.host_offset(geometry.first_cluster_of_block(blocks + 1)).value() - 8, 0);
}

inline std::vector<Snapshot> snapshots_of(DamagedImage& image) {
  auto load = [&](Shard&) { return snapshots_on(image.world().world(), image.storage()); };
  Result<SnapshotTable> table = image.world().run(load);
  EXPECT_TRUE(table.ok());
  return table.ok() ? table.value().snapshots : std::vector<Snapshot>();
}

// `before` may lack fields; the disk had `disk_size`.
inline void expect_same_but_complete(const std::vector<Snapshot>& after,
                                     const std::vector<Snapshot>& before, uint64_t disk_size) {
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) {
    SCOPED_TRACE(i);
    const Snapshot &one = after[i], &other = before[i];
    EXPECT_EQ(one.l1_table, other.l1_table);
    EXPECT_EQ(one.l1_size, other.l1_size);
    EXPECT_EQ(one.id, other.id);
    EXPECT_EQ(one.name, other.name);
    EXPECT_EQ(one.date_seconds, other.date_seconds);
    EXPECT_EQ(one.date_nanoseconds, other.date_nanoseconds);
    EXPECT_EQ(one.vm_clock_nanoseconds, other.vm_clock_nanoseconds);
    EXPECT_EQ(one.vm_state_size, other.vm_state_size);
    EXPECT_EQ(one.instruction_count, other.instruction_count);
    EXPECT_EQ(one.disk_size, other.disk_size.value_or(disk_size));
    EXPECT_TRUE(one.is_complete());
  }
}

}  // namespace ringdisk::qcow2
