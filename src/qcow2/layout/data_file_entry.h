// SPDX-License-Identifier: Apache-2.0
// Entries of images whose guest data lies in a file of its own, where each guest cluster has one
// place, its own offset (format specification, incompatible feature bit 2). Pure.
//
// In memory such an entry names that place with kInDataFile set, so that it is no place of the
// image's own file: no table lies there, nothing counts it, and guest cluster 0 has one, too (on
// the disk it is offset 0 with the COPIED flag).
//
//   disk      63 COPIED | 55-9 guest offset        memory   63 COPIED | 55 | 54-9 guest offset
#pragma once

#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {

inline constexpr uint64_t kInDataFile = uint64_t{1} << 55;
// Disks with a data file are no larger.
inline constexpr uint64_t kDataFileDiskBytesMax = kInDataFile;

// Whether an entry as it stands on the disk names a place in the data file.
constexpr bool names_data_file(L2Entry entry) {
  return !entry.is_compressed() && (entry.has_host() || entry.is_copied());
}

// The entry of guest cluster `at` in memory. One that names another place is rejected, and stays
// what it is on the disk.
constexpr L2Entry entry_in_data_file(L2Entry entry, GuestOffset at) {
  if (!names_data_file(entry) || (entry.raw() & (kFrozen | kRejected)) != 0) return entry;
  const bool is_right = entry.host().value() == at.value();
  return L2Entry(entry.raw() | (is_right ? kInDataFile : kRejected), entry.bitmap());
}

// As it may stand on the disk.
constexpr L2Entry persistent_in_data_file(L2Entry entry) {
  const bool is_ours = !entry.is_compressed() && (entry.raw() & kRejected) == 0;
  const uint64_t raw = entry.persistent();
  return L2Entry(is_ours ? raw & ~kInDataFile : raw, entry.bitmap());
}

}  // namespace ringdisk::qcow2
