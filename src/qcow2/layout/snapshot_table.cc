// SPDX-License-Identifier: Apache-2.0
// One pass over the table with a bounded reader.
#include "qcow2/layout/snapshot_table.h"

#include <algorithm>

#include "base/limits.h"
#include "base/span_reader.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kNoInstructionCount = ~uint64_t{0};

Result<Snapshot> parse_snapshot(SpanReader& reader) {
  Snapshot snapshot;
  snapshot.place = reader.position();
  snapshot.l1_table = HostOffset(reader.be64());
  snapshot.l1_size = reader.be32();
  const uint16_t id_length = reader.be16();
  const uint16_t name_length = reader.be16();
  snapshot.date_seconds = reader.be32();
  snapshot.date_nanoseconds = reader.be32();
  snapshot.vm_clock_nanoseconds = reader.be64();
  snapshot.vm_state_size = reader.be32();
  const uint32_t extra_length = reader.be32();
  if (!reader.ok() || extra_length > reader.left()) {
    return Error::of(ErrorKind::kCorrupt, "parse snapshot table", reader.position());
  }
  SpanReader extra(reader.bytes(extra_length));
  if (extra_length >= 8) snapshot.vm_state_size = extra.be64();
  if (extra_length >= 16) snapshot.disk_size = extra.be64();
  if (extra_length >= 24) {
    const uint64_t count = extra.be64();
    if (count != kNoInstructionCount) snapshot.instruction_count = count;
  }
  if (extra_length > 24) {
    const Bytes unknown = extra.bytes(extra_length - 24);
    snapshot.unknown_extra.assign(unknown.begin(), unknown.end());
  }
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

// The extra bytes of an entry: those fields that it has, and the two that version 3 asks for.
static std::vector<std::byte> encode_extra(const Snapshot& snapshot, ByteCount disk_size) {
  const bool has_count = snapshot.instruction_count || !snapshot.unknown_extra.empty();
  std::vector<std::byte> extra(has_count ? 24 : 16);
  store_be64(&extra[0], snapshot.vm_state_size);
  store_be64(&extra[8], snapshot.disk_size.value_or(disk_size.value()));
  if (has_count) store_be64(&extra[16], snapshot.instruction_count.value_or(kNoInstructionCount));
  extra.insert(extra.end(), snapshot.unknown_extra.begin(), snapshot.unknown_extra.end());
  return extra;
}

static void append_snapshot(const Snapshot& snapshot, ByteCount disk_size,
                            std::vector<std::byte>& table) {
  constexpr uint64_t kShortSizeMax = ~uint32_t{0};
  const std::vector<std::byte> extra = encode_extra(snapshot, disk_size);
  std::vector<std::byte> fixed(40);
  store_be64(&fixed[0], snapshot.l1_table.value());
  store_be32(&fixed[8], snapshot.l1_size);
  store_be16(&fixed[12], static_cast<uint16_t>(snapshot.id.size()));
  store_be16(&fixed[14], static_cast<uint16_t>(snapshot.name.size()));
  store_be32(&fixed[16], snapshot.date_seconds);
  store_be32(&fixed[20], snapshot.date_nanoseconds);
  store_be64(&fixed[24], snapshot.vm_clock_nanoseconds);
  const bool fits = snapshot.vm_state_size <= kShortSizeMax;
  store_be32(&fixed[32], fits ? static_cast<uint32_t>(snapshot.vm_state_size) : 0);
  store_be32(&fixed[36], static_cast<uint32_t>(extra.size()));
  for (Bytes part : {Bytes(fixed), Bytes(extra), as_bytes(snapshot.id), as_bytes(snapshot.name)}) {
    table.insert(table.end(), part.begin(), part.end());
  }
  table.resize((table.size() + 7) / 8 * 8);
}

std::vector<std::byte> encode_snapshots(const std::vector<Snapshot>& snapshots,
                                        ByteCount disk_size) {
  std::vector<std::byte> table;
  for (const Snapshot& snapshot : snapshots) append_snapshot(snapshot, disk_size, table);
  return table;
}

std::optional<size_t> find_snapshot(const SnapshotTable& table, std::string_view id_or_name,
                                    Precedence first) {
  std::optional<size_t> by_id, by_name;
  for (size_t i = 0; i < table.snapshots.size(); ++i) {
    const Snapshot& one = table.snapshots[i];
    if (!by_id && one.id == id_or_name) by_id = i;
    if (!by_name && one.name == id_or_name) by_name = i;
  }
  if (first == Precedence::kId) return by_id ? by_id : by_name;
  return by_name ? by_name : by_id;
}

}  // namespace ringdisk::qcow2
