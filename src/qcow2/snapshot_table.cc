// SPDX-License-Identifier: Apache-2.0
// One pass over the table with a bounded reader.
#include "qcow2/snapshot_table.h"

#include <algorithm>

#include "base/limits.h"
#include "base/span_reader.h"

namespace ringdisk::qcow2 {
namespace {

Result<Snapshot> parse_snapshot(SpanReader& reader) {
  Snapshot snapshot;
  snapshot.l1_table = HostOffset(reader.be64());
  snapshot.l1_size = reader.be32();
  const uint16_t id_length = reader.be16();
  const uint16_t name_length = reader.be16();
  snapshot.date_seconds = reader.be32();
  snapshot.date_nanoseconds = reader.be32();
  snapshot.vm_clock_nanoseconds = reader.be64();
  snapshot.vm_state_size = reader.be32();
  const uint32_t extra_length = reader.be32();
  if (!reader.ok() || extra_length > kSnapshotExtraBytesMax) {
    return Error::of(ErrorKind::kCorrupt, "parse snapshot table", reader.position());
  }
  SpanReader extra(reader.bytes(extra_length));
  if (extra_length >= 8) snapshot.vm_state_size = extra.be64();
  if (extra_length >= 16) snapshot.disk_size = extra.be64();
  if (extra_length >= 24) snapshot.instruction_count = extra.be64();
  snapshot.id = as_text(reader.bytes(id_length));
  snapshot.name = as_text(reader.bytes(name_length));
  // The padding of the last entry may be missing at the end of a file.
  const size_t padding = (8 - reader.position() % 8) % 8;
  reader.skip(std::min(padding, reader.left()));
  if (!reader.ok())
    return Error::of(ErrorKind::kCorrupt, "parse snapshot table", reader.position());
  return snapshot;
}

}  // namespace

Result<SnapshotTable> parse_snapshots(Bytes table, uint32_t count) {
  if (count > limits::kQcow2SnapshotsMax) {
    return Error::of(ErrorKind::kLimit, "parse snapshot table");
  }
  SnapshotTable parsed;
  SpanReader reader(table);
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(Snapshot snapshot, parse_snapshot(reader));
    parsed.snapshots.push_back(std::move(snapshot));
    if (reader.position() > limits::kQcow2SnapshotTableBytesMax) {
      return Error::of(ErrorKind::kLimit, "parse snapshot table", reader.position());
    }
  }
  parsed.length = reader.position();
  return parsed;
}

}  // namespace ringdisk::qcow2
