// SPDX-License-Identifier: Apache-2.0
// Any bytes as a snapshot table: the first byte is the number of snapshots, the rest the table.
// Nothing beyond it is read, and what is accepted lies within it.
#include "base/check.h"
#include "qcow2/layout/snapshot_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using ringdisk::qcow2::SnapshotTable;
  if (size == 0) return 0;
  // why: libFuzzer hands out uint8_t, our spans hold std::byte
  ringdisk::Bytes table(reinterpret_cast<const std::byte*>(bytes + 1), size - 1);
  ringdisk::Result<SnapshotTable> parsed = ringdisk::qcow2::parse_snapshots(table, bytes[0]);
  if (!parsed.ok()) return 0;
  CHECK_EQ(parsed.value().snapshots.size(), size_t{bytes[0]});
  CHECK_LE(parsed.value().length, uint64_t{table.size()});
  return 0;
}
