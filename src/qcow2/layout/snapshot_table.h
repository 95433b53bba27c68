// SPDX-License-Identifier: Apache-2.0
// The snapshot table (format specification, "Snapshots"), parsed and encoded. Pure; untrusted. An
// entry has variable length and begins at a multiple of 8:
//
//    0 L1 offset (8)    |  8 L1 entries (4)     | 12 id length (2)    | 14 name length (2)
//   16 date s (4)       | 20 date ns (4)        | 24 VM clock ns (8)
//   32 VM state (4)     | 36 extra length (4)   | 40 extra … id … name … padding
//   extra:  0 VM state bytes (8)  |  8 disk size (8)  | 16 instruction count (8)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace ringdisk::qcow2 {

// Where the header leads to the table, in one sector, so that no crash tears it: count (4 bytes),
// offset (8 bytes).
inline constexpr uint64_t kSnapshotFieldsAt = 60;
// More than any program writes: QEMU opens no image that has it, and a check takes it away.
inline constexpr uint32_t kSnapshotExtraBytesMax = 1024;
inline constexpr uint64_t kSnapshotEntryBytesMax = 40 + kSnapshotExtraBytesMax + 2 * 65535 + 7;

struct Snapshot {
  HostOffset l1_table;
  uint32_t l1_size = 0;  // entries
  std::string id, name;
  uint32_t date_seconds = 0, date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  uint64_t vm_state_size = 0;
  std::optional<uint64_t> disk_size;
  std::optional<uint64_t> instruction_count;
  std::vector<std::byte> unknown_extra;  // what stands behind these fields, kept as it is
  // Whether the entry has all fields that version 3 asks for: the last of them is the disk's size.
  bool is_complete() const { return disk_size.has_value(); }
  bool has_too_much() const { return 24 + unknown_extra.size() > kSnapshotExtraBytesMax; }
  uint64_t place = 0;  // where its entry began in the table that was parsed; not encoded
};

struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  uint64_t length = 0;  // bytes of `table` that the entries take
};

// `count` entries at the front of `table`. kCorrupt where they do not fit or break a limit.
Result<SnapshotTable> parse_snapshots(Bytes table, uint32_t count);

// The table as it stands on a disk. Each entry gets the extra fields that version 3 asks for (VM
// state, disk size: `disk_size` where it had none) and keeps what else it had.
std::vector<std::byte> encode_snapshots(const std::vector<Snapshot>& snapshots,
                                        ByteCount disk_size);

// Names need not differ, and one may be another's id. Which is meant where both fit: qemu-img takes
// the id when it reads a snapshot or applies it, and the name when it deletes one.
enum class Precedence : uint8_t { kId, kName };

// The snapshot with this id or name; of several with the name the first.
std::optional<size_t> find_snapshot(const SnapshotTable& table, std::string_view id_or_name,
                                    Precedence first);

}  // namespace ringdisk::qcow2
